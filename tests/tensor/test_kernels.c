/* Every operation of a backend against the float64 loops of reference.c, f32 and bf16, on sizes
 * that do and do not fill whole vectors. Built once per backend (buffer.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifndef TEST_WITHOUT_XXHASH /* a machine with a GPU and few headers (tests/gpu) */
#include <xxhash.h>
#endif

#include "base/memory.h"
#include "base/rng.h"
#include "tensor/buffer.h"
#include "tensor/digest.h"
#include "tensor/reference.h"
#include "test.h"

static const KernelTable *kernels;

#define FOR_EACH_DTYPE(dtype) for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++)

static const int32_t *random_ids(int count, int32_t bound, uint64_t key)
{
    int32_t *ids = mem_calloc((size_t)count + 1, sizeof *ids);
    for (int i = 0; i < count; i++)
        ids[i] = (int32_t)rng_below(key, (uint64_t)i, (uint64_t)bound);
    return ids;
}

/* ---- conversions ---- */

static void test_cast_rounds_as_the_tensor_header_says(void **state)
{
    (void)state;
    float x[1000];
    uint16_t y[1000];
    for (int i = 0; i < 1000; i++) {
        const uint32_t bits = rng_block(11, 0, (uint64_t)i).word[0];
        memcpy(&x[i], &bits, sizeof bits); /* any pattern: subnormals, infinities, NaN */
    }
    const uint32_t special[] = {0x7F800000, 0xFF800000, 0x7FC00001, 0x7F800001,
                                0xFFFFFFFF, 0x00000001, 0x00008000, 0x00018000,
                                0x3F808000, 0x3F818000, 0x7F7FFFFF, 0x80000000};
    memcpy(x, special, sizeof special);
    kernels->cast(tensor_1d(y, DTYPE_BF16, 1000), tensor_1d(x, DTYPE_F32, 1000));
    for (int i = 0; i < 1000; i++)
        assert_int_equal(y[i], bf16_from_f32(x[i]));
    kernels->cast(tensor_1d(x, DTYPE_F32, 999), tensor_1d(y, DTYPE_BF16, 999));
    for (int i = 0; i < 999; i++) {
        const float expected = bf16_to_f32(y[i]);
        assert_memory_equal(&x[i], &expected, sizeof expected);
    }
}

static void test_fill_zero_and_alloc_give_zeros(void **state)
{
    (void)state;
    for (size_t bytes = 1; bytes < (size_t)9 << 20; bytes = bytes * 5 + 3) {
        unsigned char *memory = kernels->alloc(bytes);
        assert_int_equal((uintptr_t)memory % 64, 0);
        for (size_t i = 0; i < bytes; i++)
            assert_int_equal(memory[i], 0);
        memset(memory, 7, bytes);
        kernels->fill_zero(tensor_1d(memory, DTYPE_U8, (int64_t)bytes - 1));
        assert_int_equal(memory[bytes - 1], 7);
        for (size_t i = 0; i + 1 < bytes; i++)
            assert_int_equal(memory[i], 0);
        kernels->free(memory);
    }
    kernels->free(NULL);
}

/* ---- matrices ---- */

static void check_products(DType dtype, DType result, int m, int n, int k)
{
    Buffer x = buffer_random(dtype, m, k, 1, 1), w = buffer_random(dtype, n, k, 2, 1);
    Buffer dy = buffer_random(dtype, m, n, 3, 1);
    Buffer y = buffer_result(result, m, n), dx = buffer_result(result, m, k);
    Buffer dw = buffer_random(DTYPE_F32, n, k, 4, 1);
    reference_matmul(y.exact, x.exact, w.exact, m, n, k, 0, 1);
    reference_matmul(dx.exact, dy.exact, w.exact, m, k, n, 0, 0);
    double *sum = mem_calloc((size_t)(n * k), sizeof *sum);
    reference_matmul(sum, dy.exact, x.exact, n, k, m, 1, 0);
    for (int i = 0; i < n * k; i++)
        dw.exact[i] += sum[i];

    Weight weight = {.plain = w.tensor};
    kernels->matmul(y.tensor, x.tensor, &weight); /* not prepared: allowed, slower */
    assert_buffer_close(&y, tolerance_of(result, 1e-5), "matmul of a plain weight");
    kernels->weight_prepare(&weight);
    memset(y.tensor.data, 0xFF, tensor_bytes(&y.tensor));
    kernels->matmul(y.tensor, x.tensor, &weight);
    kernels->matmul_dgrad(dx.tensor, dy.tensor, &weight);
    kernels->matmul_wgrad_accumulate(dw.tensor, dy.tensor, x.tensor);
    assert_buffer_close(&y, tolerance_of(result, 1e-5), "matmul");
    assert_buffer_close(&dx, tolerance_of(result, 1e-5), "dgrad");
    assert_buffer_close(&dw, 1e-5, "wgrad");
    kernels->weight_release(&weight);
    assert_null(weight.packed);
    free(sum);
    Buffer *all[] = {&x, &w, &dy, &y, &dx, &dw};
    for (size_t i = 0; i < 6; i++)
        buffer_free(all[i]);
}

static void test_matmul_and_gradients_equal_reference(void **state)
{
    (void)state;
    const int shapes[][3] = {{1, 1, 1},    {3, 5, 7},     {17, 33, 65},
                             {64, 96, 48}, {1, 200, 130}, {50, 128, 256}};
    FOR_EACH_DTYPE(dtype)
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        check_products(dtype, dtype, shapes[i][0], shapes[i][1], shapes[i][2]);
        check_products(dtype, DTYPE_F32, shapes[i][0], shapes[i][1], shapes[i][2]);
    }
}

static void test_weight_prepare_follows_the_plain_weight(void **state)
{
    (void)state;
    Buffer x = buffer_random(DTYPE_F32, 4, 40, 1, 1), w = buffer_random(DTYPE_F32, 24, 40, 2, 1);
    Buffer y = buffer_result(DTYPE_F32, 4, 24);
    Weight weight = {.plain = w.tensor};
    kernels->weight_prepare(&weight);
    for (int i = 0; i < 24 * 40; i++)
        w.exact[i] = 3 - w.exact[i];
    buffer_store_exact(&w);
    kernels->weight_prepare(&weight);
    kernels->matmul(y.tensor, x.tensor, &weight);
    reference_matmul(y.exact, x.exact, w.exact, 4, 24, 40, 0, 1);
    assert_buffer_close(&y, 1e-5, "matmul after a second weight_prepare");
    kernels->weight_release(&weight);
    buffer_free(&x);
    buffer_free(&w);
    buffer_free(&y);
}

static void test_products_of_no_rows_change_nothing(void **state)
{
    (void)state;
    Buffer w = buffer_random(DTYPE_F32, 8, 8, 1, 1), none = buffer_result(DTYPE_F32, 0, 8);
    Buffer dw = buffer_random(DTYPE_F32, 8, 8, 2, 1);
    Weight weight = {.plain = w.tensor};
    kernels->matmul(none.tensor, none.tensor, &weight);
    kernels->matmul_dgrad(none.tensor, none.tensor, &weight);
    kernels->matmul_wgrad_accumulate(dw.tensor, none.tensor, none.tensor);
    assert_buffer_close(&dw, 0, "wgrad of no rows");
    buffer_free(&w);
    buffer_free(&none);
    buffer_free(&dw);
}

/* ---- embedding ---- */

static void test_embedding_reads_the_shard_and_zeroes_the_rest(void **state)
{
    (void)state;
    FOR_EACH_DTYPE(dtype)
    {
        const int rows = 9, width = 37, vocab = 6, first = 4;
        Buffer table = buffer_random(dtype, vocab, width, 1, 1);
        Buffer y = buffer_result(dtype, rows, width), dy = buffer_random(dtype, rows, width, 2, 1);
        Buffer dtable = buffer_random(DTYPE_F32, vocab, width, 3, 1);
        const int32_t token[9] = {4, 9, 3, 10, 5, 5, 0, 9, 5};
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < width; j++) {
                if (token[i] < first || token[i] >= first + vocab) continue;
                const int at = (token[i] - first) * width + j;
                y.exact[i * width + j] = table.exact[at];
                dtable.exact[at] += dy.exact[i * width + j];
            }
        kernels->embedding(y.tensor, table.tensor, token, first);
        kernels->embedding_backward_accumulate(dtable.tensor, dy.tensor, token, token, first);
        assert_buffer_close(&y, 0, "embedding");
        assert_buffer_close(&dtable, 1e-6, "embedding gradient");
        Buffer *all[] = {&table, &y, &dy, &dtable};
        for (size_t i = 0; i < 4; i++)
            buffer_free(all[i]);
    }
}

/* ---- element-wise and norms ---- */

static void test_add_in_place_and_apart(void **state)
{
    (void)state;
    FOR_EACH_DTYPE(dtype)
    {
        Buffer a = buffer_random(dtype, 5, 21, 1, 1), b = buffer_random(dtype, 5, 21, 2, 1);
        Buffer y = buffer_result(dtype, 5, 21);
        for (int i = 0; i < 5 * 21; i++)
            y.exact[i] = a.exact[i] + b.exact[i];
        kernels->add(y.tensor, a.tensor, b.tensor);
        assert_buffer_close(&y, tolerance_of(dtype, 1e-7), "add");
        kernels->add(a.tensor, a.tensor, b.tensor);
        assert_memory_equal(a.tensor.data, y.tensor.data, tensor_bytes(&y.tensor));
        buffer_free(&a);
        buffer_free(&b);
        buffer_free(&y);
    }
}

static void check_rmsnorm(DType dtype, DType w_dtype, int m, int n, bool add_to_dx)
{
    const float eps = 1e-6f;
    Buffer x = buffer_random(dtype, m, n, 1, 3), w = buffer_random(w_dtype, 1, n, 2, 1);
    Buffer dy = buffer_random(dtype, m, n, 3, 1), y = buffer_result(dtype, m, n);
    Buffer rstd = buffer_result(DTYPE_F32, 1, m), dw = buffer_random(DTYPE_F32, 1, n, 4, 1);
    Buffer dx = add_to_dx ? buffer_random(dtype, m, n, 5, 1) : buffer_result(dtype, m, n);
    double *branch = mem_calloc((size_t)(m * n), sizeof *branch);
    reference_rmsnorm(y.exact, rstd.exact, x.exact, w.exact, m, n, (double)eps);
    reference_rmsnorm_backward(branch, dw.exact, dy.exact, x.exact, w.exact, m, n, (double)eps);
    for (int i = 0; i < m * n; i++)
        dx.exact[i] = branch[i] + (add_to_dx ? dx.exact[i] : 0);
    kernels->rmsnorm(y.tensor, rstd.tensor.data, x.tensor, w.tensor, eps);
    kernels->rmsnorm_backward(dx.tensor, add_to_dx, dw.tensor, dy.tensor, x.tensor, w.tensor,
                              rstd.tensor.data);
    assert_buffer_close(&y, tolerance_of(dtype, 2e-6), "rmsnorm");
    assert_buffer_close(&rstd, 2e-6, "rstd");
    assert_buffer_close(&dx, tolerance_of(dtype, 5e-6), "rmsnorm dx");
    assert_buffer_close(&dw, tolerance_of(dtype, 5e-6), "rmsnorm dw");
    free(branch);
    Buffer *all[] = {&x, &w, &dy, &y, &rstd, &dw, &dx};
    for (size_t i = 0; i < 7; i++)
        buffer_free(all[i]);
}

static void test_rmsnorm_and_gradients_equal_reference(void **state)
{
    (void)state;
    const int shapes[][2] = {{2, 5}, {3, 7}, {70, 33}, {4, 100}, {2, 1024}, {200, 64}};
    FOR_EACH_DTYPE(dtype)
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        check_rmsnorm(dtype, dtype, shapes[i][0], shapes[i][1], false);
        check_rmsnorm(dtype, DTYPE_F32, shapes[i][0], shapes[i][1], true);
    }
}

/* The sum in place too, as the residual stream has it. */
static void check_add_rmsnorm(DType dtype, DType w_dtype, int m, int n, bool in_place)
{
    const float eps = 1e-6f;
    Buffer a = buffer_random(dtype, m, n, 1, 3), b = buffer_random(dtype, m, n, 2, 2);
    Buffer w = buffer_random(w_dtype, 1, n, 3, 1), sum = buffer_result(dtype, m, n);
    Buffer y = buffer_result(dtype, m, n), y_apart = buffer_result(dtype, m, n);
    Buffer sum_apart = buffer_result(dtype, m, n);
    float *rstd = mem_calloc((size_t)(2 * m), sizeof *rstd);
    kernels->add(sum_apart.tensor, a.tensor, b.tensor);
    kernels->rmsnorm(y_apart.tensor, rstd, sum_apart.tensor, w.tensor, eps);
    const Tensor to = in_place ? a.tensor : sum.tensor;
    kernels->add_rmsnorm(to, y.tensor, in_place ? NULL : rstd + m, a.tensor, b.tensor, w.tensor,
                         eps);
    assert_memory_equal(to.data, sum_apart.tensor.data, tensor_bytes(&to));
    assert_memory_equal(y.tensor.data, y_apart.tensor.data, tensor_bytes(&to));
    if (!in_place) assert_memory_equal(rstd, rstd + m, (size_t)m * sizeof *rstd);
    free(rstd);
    Buffer *all[] = {&a, &b, &w, &sum, &y, &y_apart, &sum_apart};
    for (size_t i = 0; i < 7; i++)
        buffer_free(all[i]);
}

static void test_add_rmsnorm_equals_both_apart(void **state)
{
    (void)state;
    const int shapes[][2] = {{2, 5}, {70, 33}, {3, 1024}, {2, 2560}};
    FOR_EACH_DTYPE(dtype)
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        check_add_rmsnorm(dtype, dtype, shapes[i][0], shapes[i][1], false);
        check_add_rmsnorm(dtype, DTYPE_F32, shapes[i][0], shapes[i][1], true);
    }
}

static float *angles(int positions, int dim)
{
    float *cos_sin = mem_calloc((size_t)(positions * dim), sizeof *cos_sin);
    for (int p = 0; p < positions; p++)
        for (int j = 0; j < dim / 2; j++) {
            const double angle = p * pow(10000.0, -2.0 * j / dim);
            cos_sin[p * dim + j] = (float)cos(angle);
            cos_sin[p * dim + dim / 2 + j] = (float)sin(angle);
        }
    return cos_sin;
}

static void check_rope(DType dtype, int m, int num_heads, int num_kv_heads, int dim, bool normed)
{
    const int width = (num_heads + 2 * num_kv_heads) * dim;
    const int qk_width = (num_heads + num_kv_heads) * dim;
    const float eps = 1e-6f;
    float *cos_sin = angles(300, dim);
    const int32_t *position = random_ids(m, 300, 9);
    Buffer q_norm = buffer_random(dtype, 1, dim, 1, 2), k_norm = buffer_random(dtype, 1, dim, 2, 2);
    Buffer x = buffer_random(dtype, m, width, 3, 1), dy = buffer_random(dtype, m, width, 4, 1);
    Buffer y = buffer_result(dtype, m, width), dx = buffer_result(dtype, m, width);
    Buffer raw = buffer_result(dtype, m, qk_width);
    Buffer dq_norm = buffer_random(DTYPE_F32, 1, dim, 5, 1);
    Buffer dk_norm = buffer_random(DTYPE_F32, 1, dim, 6, 1);
    const ReferenceHeads heads = {m,
                                  num_heads,
                                  num_kv_heads,
                                  dim,
                                  normed ? q_norm.exact : NULL,
                                  normed ? k_norm.exact : NULL,
                                  (double)eps,
                                  cos_sin,
                                  position};
    const void *wq = normed ? q_norm.tensor.data : NULL, *wk = normed ? k_norm.tensor.data : NULL;
    reference_qk_norm_rope(y.exact, x.exact, &heads);
    reference_qk_norm_rope_backward(dx.exact, dq_norm.exact, dk_norm.exact, dy.exact, x.exact,
                                    &heads);
    memcpy(y.tensor.data, x.tensor.data, tensor_bytes(&y.tensor));
    memcpy(dx.tensor.data, dy.tensor.data, tensor_bytes(&dx.tensor));
    kernels->qk_norm_rope(y.tensor, raw.tensor, num_heads, num_kv_heads, dim, wq, wk, eps, cos_sin,
                          position);
    kernels->qk_norm_rope_backward(dx.tensor, raw.tensor, num_heads, num_kv_heads, dim, wq, wk, eps,
                                   dq_norm.tensor.data, dk_norm.tensor.data, cos_sin, position);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < qk_width; j++)
            raw.exact[i * qk_width + j] = x.exact[i * width + j];
    assert_buffer_close(&raw, 0, "raw q and k");
    /* In bf16 three roundings follow each other: after the norm, after its weight, after the
     * rotation. */
    assert_buffer_close(&y, dtype == DTYPE_F32 ? 2e-6 : 2e-2, "qk_norm_rope");
    assert_buffer_close(&dx, tolerance_of(dtype, 5e-6), "qk_norm_rope dx");
    assert_buffer_close(&dq_norm, tolerance_of(dtype, 5e-6), "dq_norm");
    assert_buffer_close(&dk_norm, tolerance_of(dtype, 5e-6), "dk_norm");
    free(cos_sin);
    free((void *)position);
    Buffer *all[] = {&q_norm, &k_norm, &x, &dy, &y, &dx, &raw, &dq_norm, &dk_norm};
    for (size_t i = 0; i < 9; i++)
        buffer_free(all[i]);
}

static void test_qk_norm_rope_and_gradients_equal_reference(void **state)
{
    (void)state;
    FOR_EACH_DTYPE(dtype)
    {
        check_rope(dtype, 1, 1, 1, 2, true);
        check_rope(dtype, 5, 4, 2, 10, true);
        check_rope(dtype, 70, 3, 1, 64, true);
        check_rope(dtype, 9, 4, 2, 128, true);
        check_rope(dtype, 9, 2, 2, 80, false);
        check_rope(dtype, 9, 2, 1, 96, true);
        check_rope(dtype, 5, 2, 1, 256, true);
        check_rope(dtype, 3, 1, 1, 330, true); /* no whole number of pairs for each lane */
        check_rope(dtype, 2200, 1, 1, 8, true);
    }
}

static void test_swiglu_and_gradients_equal_reference(void **state)
{
    (void)state;
    const int shapes[][2] = {{1, 1}, {3, 7}, {40, 96}, {2, 1030}};
    FOR_EACH_DTYPE(dtype)
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const int m = shapes[i][0], n = shapes[i][1];
        Buffer gate_up = buffer_random(dtype, m, 2 * n, 1, 6), y = buffer_result(dtype, m, n);
        Buffer dy = buffer_random(dtype, m, n, 2, 1), dgate_up = buffer_result(dtype, m, 2 * n);
        reference_swiglu(y.exact, gate_up.exact, m, n);
        reference_swiglu_backward(dgate_up.exact, dy.exact, gate_up.exact, m, n);
        kernels->swiglu(y.tensor, gate_up.tensor);
        kernels->swiglu_backward(dgate_up.tensor, dy.tensor, gate_up.tensor);
        assert_buffer_close(&y, tolerance_of(dtype, 2e-6), "swiglu");
        assert_buffer_close(&dgate_up, tolerance_of(dtype, 2e-6), "swiglu gradient");
        Buffer *all[] = {&gate_up, &y, &dy, &dgate_up};
        for (size_t j = 0; j < 4; j++)
            buffer_free(all[j]);
    }
}

static void test_swiglu_of_huge_gates_stays_finite(void **state)
{
    (void)state;
    const float gate_up[] = {-200.0f, 200.0f, -88.5f, 2.0f, 3.0f, 4.0f}, dy[] = {1, 1, 1};
    float y[3], dgate_up[6];
    kernels->swiglu(tensor_2d(y, DTYPE_F32, 1, 3), tensor_2d((void *)gate_up, DTYPE_F32, 1, 6));
    kernels->swiglu_backward(tensor_2d(dgate_up, DTYPE_F32, 1, 6),
                             tensor_2d((void *)dy, DTYPE_F32, 1, 3),
                             tensor_2d((void *)gate_up, DTYPE_F32, 1, 6));
    assert_true(fabsf(y[0]) < 1e-30f && y[1] == 600.0f && fabsf(y[2]) < 1e-30f);
    assert_true(dgate_up[1] == 3.0f && dgate_up[4] == 200.0f && fabsf(dgate_up[0]) < 1e-30f);
}

/* ---- attention ---- */

typedef struct AttentionCase {
    int num_heads, num_kv_heads, head_dim, num_sequences;
    int32_t cu_seqlens[6];
} AttentionCase;

static void check_attention(DType dtype, const AttentionCase *c)
{
    const int rows = c->cu_seqlens[c->num_sequences], dim = c->head_dim;
    const int q_width = c->num_heads * dim, kv_width = c->num_kv_heads * dim;
    const double scale = 1 / sqrt((double)dim);
    Buffer q = buffer_random(dtype, rows, q_width, 1, 2),
           k = buffer_random(dtype, rows, kv_width, 2, 2);
    Buffer v = buffer_random(dtype, rows, kv_width, 3, 1);
    Buffer dout = buffer_random(dtype, rows, q_width, 4, 1),
           out = buffer_result(dtype, rows, q_width);
    Buffer lse = buffer_result(DTYPE_F32, c->num_heads, rows),
           dq = buffer_result(dtype, rows, q_width);
    Buffer dk = buffer_result(dtype, rows, kv_width), dv = buffer_result(dtype, rows, kv_width);
    const ReferenceAttention reference = {c->num_heads,     c->num_kv_heads, dim,
                                          c->num_sequences, c->cu_seqlens,   (double)(float)scale};
    reference_attention(out.exact, lse.exact, q.exact, k.exact, v.exact, &reference);
    reference_attention_backward(dq.exact, dk.exact, dv.exact, dout.exact, q.exact, k.exact,
                                 v.exact, &reference);
    const AttentionShape shape = {c->num_heads, c->num_kv_heads, dim,      (float)scale,
                                  q_width,      kv_width,        kv_width, q_width};
    const SequenceTable sequences = {c->num_sequences, c->cu_seqlens, NULL, c->cu_seqlens, NULL};
    kernels->attention(out.tensor.data, lse.tensor.data, dtype, q.tensor.data, k.tensor.data,
                       v.tensor.data, &shape, &sequences, NULL);
    kernels->attention_backward(dq.tensor.data, dk.tensor.data, dv.tensor.data, dtype,
                                dout.tensor.data, q.tensor.data, k.tensor.data, v.tensor.data,
                                out.tensor.data, lse.tensor.data, &shape, &sequences);
    const double f32 = 1e-5, bf16 = 3e-2; /* bf16: probabilities are rounded as well */
    const double tolerance = dtype == DTYPE_F32 ? f32 : bf16;
    assert_buffer_close(&out, tolerance, "attention");
    assert_buffer_close(&lse, 1e-5, "log-sum-exp");
    assert_buffer_close(&dq, tolerance, "attention dq");
    assert_buffer_close(&dk, tolerance, "attention dk");
    assert_buffer_close(&dv, tolerance, "attention dv");
    Buffer *all[] = {&q, &k, &v, &dout, &out, &lse, &dq, &dk, &dv};
    for (size_t i = 0; i < 9; i++)
        buffer_free(all[i]);
}

static void test_attention_and_gradients_equal_reference(void **state)
{
    (void)state;
    const AttentionCase cases[] = {
        {1, 1, 1, 1, {0, 1}},           {2, 1, 8, 2, {0, 3, 10}},
        {4, 2, 16, 3, {0, 65, 65, 70}}, /* with an empty sequence */
        {2, 2, 33, 1, {0, 64}},         {6, 2, 64, 2, {0, 130, 131}},
        {4, 2, 128, 2, {0, 200, 264}},  {7, 1, 32, 2, {0, 70, 75}},
        {2, 1, 32, 2, {0, 540, 840}}, /* positions that a backend may sum up in several parts */
    };
    FOR_EACH_DTYPE(dtype)
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_attention(dtype, &cases[i]);
}

/* ---- cross-entropy ---- */

#define VOCAB_FIRST 1000

/* Rows of logits, what the kernels are to make of them, and where they put it. */
typedef struct SoftmaxCase {
    int m, n;
    Buffer logits, max, sum, shifted, target_logit, gradient;
    int32_t *target;
    float *arg_max;
    float *lse, *entropy, *dlog_prob, *dentropy; /* [m]; dentropy is 0 in every fourth row */
} SoftmaxCase;

static double gradient_at(const SoftmaxCase *c, int i, int j, bool with_entropy)
{
    double log_p = c->logits.exact[i * c->n + j] - (double)c->lse[i], p = exp(log_p);
    double value = (double)c->dlog_prob[i] * ((j == c->target[i] - VOCAB_FIRST) - p);
    if (with_entropy) value -= (double)c->dentropy[i] * p * (log_p + (double)c->entropy[i]);
    return value;
}

static void expect_row(SoftmaxCase *c, int i, bool with_entropy)
{
    const double *x = c->logits.exact + i * c->n;
    double entropy = 0;
    c->max.exact[i] = -INFINITY;
    for (int j = 0; j < c->n; j++)
        c->max.exact[i] = fmax(c->max.exact[i], x[j]);
    for (int j = 0; j < c->n; j++) {
        double below = x[j] - c->max.exact[i];
        c->sum.exact[i] += exp(below);
        c->shifted.exact[i] += exp(below) * below;
    }
    c->lse[i] = (float)(c->max.exact[i] + log(c->sum.exact[i]));
    entropy = log(c->sum.exact[i]) - c->shifted.exact[i] / c->sum.exact[i];
    c->entropy[i] = (float)entropy;
    c->dlog_prob[i] = i % 2 == 0 ? -0.25f : 1.5f;
    c->dentropy[i] = 0.5f * (float)(i % 4);
    const int at = c->target[i] - VOCAB_FIRST;
    if (at >= 0 && at < c->n) c->target_logit.exact[i] = x[at];
    for (int j = 0; j < c->n; j++)
        c->gradient.exact[i * c->n + j] = gradient_at(c, i, j, with_entropy);
}

static SoftmaxCase softmax_case(DType gradient_dtype, int m, int n, bool with_entropy)
{
    SoftmaxCase c = {.m = m, .n = n, .logits = buffer_random(DTYPE_F32, m, n, 1, 20)};
    Buffer *stats[] = {&c.max, &c.sum, &c.shifted, &c.target_logit};
    for (int i = 0; i < 4; i++)
        *stats[i] = buffer_result(DTYPE_F32, 1, m);
    c.gradient = buffer_result(gradient_dtype, m, n);
    c.target = (int32_t *)random_ids(m, n, 2);
    c.arg_max = mem_calloc((size_t)m, sizeof *c.arg_max);
    float **rows[] = {&c.lse, &c.entropy, &c.dlog_prob, &c.dentropy};
    for (int i = 0; i < 4; i++)
        *rows[i] = mem_calloc((size_t)m, sizeof **rows[i]);
    for (int i = 0; i < m; i++) {
        c.target[i] += i % 3 == 2 ? 0 : VOCAB_FIRST; /* every third is another rank's, mostly */
        expect_row(&c, i, with_entropy);
    }
    return c;
}

static void softmax_case_free(SoftmaxCase *c)
{
    Buffer *all[] = {&c->logits, &c->max, &c->sum, &c->shifted, &c->target_logit, &c->gradient};
    for (size_t i = 0; i < 6; i++)
        buffer_free(all[i]);
    void *rows[] = {c->target, c->arg_max, c->lse, c->entropy, c->dlog_prob, c->dentropy};
    for (size_t i = 0; i < 6; i++)
        free(rows[i]);
}

static void check_cross_entropy(DType gradient_dtype, int m, int n, bool with_entropy)
{
    SoftmaxCase c = softmax_case(gradient_dtype, m, n, with_entropy);
    RowStats stats = {
        .max = c.max.tensor.data,
        .sum_exp = c.sum.tensor.data,
        .sum_shifted = with_entropy ? c.shifted.tensor.data : NULL,
        .target_logit = c.target_logit.tensor.data,
        .arg_max = c.arg_max,
    };
    RowSlopes slopes = {.lse = c.lse, .dlog_prob = c.dlog_prob};
    if (with_entropy) {
        slopes.entropy = c.entropy;
        slopes.dentropy = c.dentropy;
    }
    kernels->cross_entropy_stats(&stats, c.logits.tensor, c.target, VOCAB_FIRST);
    kernels->cross_entropy_backward(c.gradient.tensor, c.logits.tensor, &slopes, c.target,
                                    VOCAB_FIRST);
    assert_buffer_close(&c.max, 0, "max");
    assert_buffer_close(&c.sum, 1e-6, "sum of exp");
    if (with_entropy) assert_buffer_close(&c.shifted, 1e-6, "shifted sum");
    assert_buffer_close(&c.target_logit, 0, "target's logit");
    assert_buffer_close(&c.gradient, tolerance_of(gradient_dtype, 2e-6), "cross-entropy gradient");
    for (int i = 0; i < m; i++)
        assert_true(c.logits.exact[i * n + (int)c.arg_max[i] - VOCAB_FIRST] == c.max.exact[i]);
    if (gradient_dtype == DTYPE_F32) {
        kernels->cross_entropy_backward(c.logits.tensor, c.logits.tensor, &slopes, c.target,
                                        VOCAB_FIRST);
        assert_memory_equal(c.logits.tensor.data, c.gradient.tensor.data,
                            tensor_bytes(&c.logits.tensor));
    }
    softmax_case_free(&c);
}

/* What else is asked for must not change a bit of what was asked before. */
static void test_cross_entropy_stats_do_not_depend_on_what_is_asked(void **state)
{
    (void)state;
    SoftmaxCase c = softmax_case(DTYPE_F32, 5, 9001, true);
    float sum[5];
    RowStats stats = {c.max.tensor.data, sum, NULL, c.target_logit.tensor.data, c.arg_max};
    kernels->cross_entropy_stats(&stats, c.logits.tensor, c.target, VOCAB_FIRST);
    stats.sum_exp = c.sum.tensor.data;
    stats.sum_shifted = c.shifted.tensor.data;
    kernels->cross_entropy_stats(&stats, c.logits.tensor, c.target, VOCAB_FIRST);
    assert_memory_equal(sum, c.sum.tensor.data, sizeof sum);
    softmax_case_free(&c);
}

/* The summary of columns cut into shards is that of all of them. */
static void check_cross_entropy_join(int shards, int m, int n)
{
    SoftmaxCase c = softmax_case(DTYPE_F32, m, n, true);
    float *stats = mem_calloc((size_t)(shards * 5 * m), sizeof *stats);
    float *columns = mem_calloc((size_t)(m * n), sizeof *columns);
    Buffer lse = buffer_result(DTYPE_F32, 1, m), entropy = buffer_result(DTYPE_F32, 1, m);
    Buffer *const joined[] = {&lse, &entropy};
    for (int s = 0; s < shards; s++) {
        int begin = n * s / shards, count = n * (s + 1) / shards - begin;
        for (int i = 0; i < m * count; i++)
            columns[i] = ((float *)c.logits.tensor.data)[i / count * n + begin + i % count];
        float *at = stats + s * 5 * m;
        RowStats part = {at, at + m, at + 2 * m, at + 3 * m, at + 4 * m};
        kernels->cross_entropy_stats(&part, tensor_2d(columns, DTYPE_F32, m, count), c.target,
                                     VOCAB_FIRST + begin);
    }
    RowStats first = {stats, stats + m, stats + 2 * m, stats + 3 * m, stats + 4 * m};
    RowSummary summary = {c.max.tensor.data, lse.tensor.data, entropy.tensor.data,
                          c.target_logit.tensor.data, c.arg_max};
    kernels->cross_entropy_join(&summary, &first, shards, 5 * m, m);
    for (int i = 0; i < m; i++) {
        lse.exact[i] = c.max.exact[i] + log(c.sum.exact[i]);
        entropy.exact[i] = log(c.sum.exact[i]) - c.shifted.exact[i] / c.sum.exact[i];
        assert_true(c.logits.exact[i * n + (int)c.arg_max[i] - VOCAB_FIRST] == c.max.exact[i]);
    }
    assert_buffer_close(&c.max, 0, "max");
    assert_buffer_close(&c.target_logit, 0, "target's logit");
    for (int i = 0; i < 2; i++) {
        assert_buffer_close(joined[i], 1e-6, i == 0 ? "log-sum-exp" : "entropy");
        buffer_free(joined[i]);
    }
    free(columns);
    free(stats);
    softmax_case_free(&c);
}

static void test_cross_entropy_of_shards_joins_to_that_of_all_columns(void **state)
{
    (void)state;
    check_cross_entropy_join(1, 3, 500);
    check_cross_entropy_join(2, 5, 777);
    check_cross_entropy_join(7, 4, 9001);
}

static void test_cross_entropy_equals_reference(void **state)
{
    (void)state;
    FOR_EACH_DTYPE(dtype)
    {
        for (int with_entropy = 0; with_entropy < 2; with_entropy++) {
            check_cross_entropy(dtype, 1, 1, with_entropy);
            check_cross_entropy(dtype, 7, 19, with_entropy);
            check_cross_entropy(dtype, 5, 1000, with_entropy);
            check_cross_entropy(dtype, 4, 9001, with_entropy);
        }
    }
}

static void test_cross_entropy_takes_the_lowest_of_equal_logits(void **state)
{
    (void)state;
    float *logits = mem_calloc(9000, sizeof *logits);
    logits[8500] = logits[4097] = logits[4096 + 70] = 5.0f;
    float max, sum, shifted, target_logit, arg_max;
    int32_t target = 3;
    const RowStats stats = {&max, &sum, &shifted, &target_logit, &arg_max};
    const Tensor row = tensor_2d(logits, DTYPE_F32, 1, 9000);
    kernels->cross_entropy_stats(&stats, row, &target, 0);
    assert_true(arg_max == 4097.0f);
    for (int i = 0; i < 9000; i++)
        logits[i] = -INFINITY; /* a shard of padding only */
    kernels->cross_entropy_stats(&stats, row, &target, 0);
    assert_true(max == -INFINITY && sum == 0.0f && shifted == 0.0f);
    logits[7] = 2.0f; /* all mass on one token: no entropy, and no NaN */
    kernels->cross_entropy_stats(&stats, row, &target, 0);
    assert_true(sum == 1.0f && shifted == 0.0f);
    free(logits);
}

/* ---- sampling ---- */

/* Every seventh logit is -inf: in no bin, and of no weight. */
static void check_softmax_parts(int m, int n)
{
    const int32_t vocab_first = 50;
    const int64_t segments = softmax_num_segments(n);
    Buffer logits = buffer_random(DTYPE_F32, m, n, 3, 25),
           sum = buffer_result(DTYPE_F32, m, segments);
    double *mass = mem_calloc((size_t)m * SOFTMAX_BINS, sizeof *mass);
    int32_t *count = mem_calloc((size_t)m * SOFTMAX_BINS, sizeof *count), collected = 0;
    int32_t *last_bin = mem_calloc((size_t)m, sizeof *last_bin);
    int64_t *first = mem_calloc((size_t)m, sizeof *first);
    float *max = mem_calloc((size_t)m, sizeof *max);
    float *x = logits.tensor.data;
    for (int i = 0; i < m; i++) {
        max[i] = -INFINITY;
        for (int j = 0; j < n; j++) {
            if (j % 7 == 6) x[i * n + j] = -INFINITY;
            max[i] = fmaxf(max[i], x[i * n + j]);
        }
        for (int j = 0; j < n; j++)
            sum.exact[i * segments + j / SOFTMAX_SEGMENT] +=
                exp((double)x[i * n + j] - (double)max[i]);
    }
    kernels->softmax_segments(sum.tensor.data, logits.tensor, max);
    assert_buffer_close(&sum, 1e-6, "sums of segments");
    kernels->softmax_bins(mass, count, logits.tensor, max);
    for (int i = 0; i < m; i++) {
        double total = 0, expected = 0;
        last_bin[i] = i % 2 == 0 ? 40 * i : SOFTMAX_BINS - 1;
        first[i] = collected;
        for (int b = 0; b < SOFTMAX_BINS; b++)
            total += mass[i * SOFTMAX_BINS + b];
        for (int64_t k = 0; k < segments; k++)
            expected += sum.exact[i * segments + k];
        assert_true(fabs(total / expected - 1) < 1e-6);
        for (int b = 0; b <= last_bin[i]; b++)
            collected += count[i * SOFTMAX_BINS + b];
    }
    int32_t *token = mem_calloc((size_t)collected + 1, sizeof *token);
    float *logit = mem_calloc((size_t)collected + 1, sizeof *logit);
    const SoftmaxCandidates to = {token, logit, first, last_bin, vocab_first};
    kernels->softmax_collect(&to, logits.tensor, max);
    int32_t at = 0;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            const float below = (max[i] - x[i * n + j]) * SOFTMAX_BINS_PER_NAT;
            const bool last = last_bin[i] == SOFTMAX_BINS - 1;
            if (x[i * n + j] == -INFINITY || !(last || below < (float)last_bin[i] + 1)) continue;
            assert_int_equal(token[at], j + vocab_first);
            assert_true(logit[at++] == x[i * n + j]);
        }
    assert_int_equal(at, collected);
    void *const blocks[] = {mass, count, last_bin, first, max, token, logit};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    buffer_free(&logits);
    buffer_free(&sum);
}

static void test_softmax_parts_equal_reference(void **state)
{
    (void)state;
    check_softmax_parts(1, 1);
    check_softmax_parts(3, 40);
    check_softmax_parts(6, 1024);
    check_softmax_parts(5, 9001);
}

/* Where a number lies on the axis of a row's weights, in double; *ret_near: the distance to the
 * next border between two tokens, of all weights. */
static int32_t exact_draw(const float *logit, int n, float max, double uniform, double *ret_near)
{
    double total = 0, sum = 0;
    int32_t found = -1;
    for (int j = 0; j < n; j++)
        total += exp((double)logit[j] - (double)max);
    *ret_near = 1;
    for (int j = 0; j < n; j++) {
        sum += exp((double)logit[j] - (double)max);
        *ret_near = fmin(*ret_near, fabs(sum / total - uniform));
        if (found < 0 && logit[j] > -INFINITY && sum > uniform * total) found = j;
    }
    return found;
}

/* Draws spread over the axis, of rows with wide and narrow weights; every other one is greedy. */
static void check_softmax_draw(int m, int n, double width)
{
    const int64_t segments = softmax_num_segments(n);
    Buffer logits = buffer_random(DTYPE_F32, m, n, 7, width);
    float *x = logits.tensor.data, *sum = mem_calloc((size_t)(m * segments), sizeof *sum);
    float *max = mem_calloc((size_t)(3 * m), sizeof *max), *arg_max = max + m, *logit = max + 2 * m;
    double *uniform = mem_calloc((size_t)m, sizeof *uniform);
    int32_t *token = mem_calloc((size_t)m, sizeof *token);
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
            if (j % 5 == 3) x[i * n + j] = -INFINITY;
            if (j == 0 || x[i * n + j] > max[i]) arg_max[i] = (float)j;
            max[i] = j == 0 ? x[i * n] : fmaxf(max[i], x[i * n + j]);
        }
        uniform[i] = i % 2 == 1 ? -1.0 : (double)i / m + 1e-3;
    }
    kernels->softmax_segments(sum, logits.tensor, max);
    const SoftmaxDraw draw = {token, logit, sum, uniform, max, arg_max};
    kernels->softmax_draw(&draw, logits.tensor);
    for (int i = 0; i < m; i++) {
        double near = 1;
        int32_t expected = (int32_t)arg_max[i];
        if (uniform[i] >= 0) expected = exact_draw(x + i * n, n, max[i], uniform[i], &near);
        assert_in_range(token[i], 0, n - 1);
        assert_true(x[i * n + token[i]] == logit[i]);
        if (near > 1e-6) assert_int_equal(token[i], expected);
    }
    void *const blocks[] = {sum, max, uniform, token};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    buffer_free(&logits);
}

static void test_softmax_draw_finds_the_place(void **state)
{
    (void)state;
    check_softmax_draw(3, 1, 1);
    check_softmax_draw(16, 40, 2);
    check_softmax_draw(40, 3000, 1);
    check_softmax_draw(24, 9001, 6);
}

/* ---- optimizer and reductions ---- */

static void test_adamw_equals_reference_over_three_steps(void **state)
{
    (void)state;
    FOR_EACH_DTYPE(dtype)
    {
        const int n = 1037;
        Buffer w = buffer_random(DTYPE_F32, 1, n, 1, 1), m = buffer_random(DTYPE_F32, 1, n, 2, 0);
        Buffer v = buffer_random(DTYPE_F32, 1, n, 3, 0), low = buffer_result(dtype, 1, n);
        for (int step = 1; step <= 3; step++) {
            Buffer g = buffer_random(DTYPE_F32, 1, n, 10 + (uint64_t)step, 0.1);
            const AdamWParams p = {
                1e-2, 0.9, 0.999, 1e-8, 0.1, 1 - pow(0.9, step), 1 - pow(0.999, step), 0.5};
            for (int i = 0; i < n; i++) {
                const double grad = g.exact[i] * 0.5;
                w.exact[i] -= 1e-2 * 0.1 * w.exact[i];
                m.exact[i] = 0.9 * m.exact[i] + 0.1 * grad;
                v.exact[i] = 0.999 * v.exact[i] + 0.001 * grad * grad;
                w.exact[i] -= 1e-2 * (m.exact[i] / p.bias_correction1) /
                              (sqrt(v.exact[i] / p.bias_correction2) + 1e-8);
                low.exact[i] = w.exact[i];
            }
            kernels->adamw(w.tensor.data, m.tensor.data, v.tensor.data, g.tensor.data,
                           dtype == DTYPE_F32 ? w.tensor.data : low.tensor.data, dtype, n, &p);
            buffer_free(&g);
        }
        assert_buffer_close(&w, 1e-6, "master weight");
        assert_buffer_close(&m, 1e-6, "exp_avg");
        assert_buffer_close(&v, 1e-6, "exp_avg_sq");
        if (dtype == DTYPE_BF16) assert_buffer_close(&low, 8e-3, "bf16 weight");
        Buffer *all[] = {&w, &m, &v, &low};
        for (size_t i = 0; i < 4; i++)
            buffer_free(all[i]);
    }
}

static void test_sum_squares_is_exact_in_double(void **state)
{
    (void)state;
    const int sizes[] = {0, 1, 15, 33, 1000, 32768, 100003};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        Buffer x = buffer_random(DTYPE_F32, 1, sizes[s], 5, 100);
        double sum = 0;
        for (int i = 0; i < sizes[s]; i++)
            sum += x.exact[i] * x.exact[i];
        const double got = kernels->sum_squares(x.tensor.data, &(ElementRange){0, sizes[s]}, 1);
        if (!(fabs(got - sum) <= 1e-13 * sum)) fail_msg("%.17g, expected %.17g", got, sum);
        buffer_free(&x);
    }
}

#ifndef TEST_WITHOUT_XXHASH
static void test_digests_of_pieces_are_the_librarys(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 15, 16, 4095, 4096, 4097, 12288, 70001};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        const size_t bytes = sizes[s], pieces = digest_num_pieces(bytes);
        Buffer x = buffer_random(DTYPE_F32, 1, (int64_t)(bytes / 4 + 1), 6 + s, 1);
        uint64_t *digest = kernels->alloc((pieces + 1) * sizeof *digest);
        kernels->digest_pieces(digest, x.tensor.data, bytes);
        kernels->synchronize();
        for (size_t i = 0; i < pieces; i++) {
            unsigned char piece[DIGEST_PIECE] = {0};
            const size_t at = i * DIGEST_PIECE, left = bytes - at;
            memcpy(piece, (const char *)x.tensor.data + at,
                   left < DIGEST_PIECE ? left : DIGEST_PIECE);
            assert_true(digest[i] == XXH3_64bits(piece, DIGEST_PIECE));
        }
        assert_int_equal(digest[pieces], 0);
        kernels->free(digest);
        buffer_free(&x);
    }
}
#endif

static int setup(void **state)
{
    (void)state;
    if (!TEST_CAN_RUN) {
        print_message("this machine lacks what it takes: skipped\n");
        exit(0);
    }
    kernels = TEST_KERNELS(2);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cast_rounds_as_the_tensor_header_says),
        cmocka_unit_test(test_fill_zero_and_alloc_give_zeros),
        cmocka_unit_test(test_matmul_and_gradients_equal_reference),
        cmocka_unit_test(test_weight_prepare_follows_the_plain_weight),
        cmocka_unit_test(test_products_of_no_rows_change_nothing),
        cmocka_unit_test(test_embedding_reads_the_shard_and_zeroes_the_rest),
        cmocka_unit_test(test_add_in_place_and_apart),
        cmocka_unit_test(test_rmsnorm_and_gradients_equal_reference),
        cmocka_unit_test(test_add_rmsnorm_equals_both_apart),
        cmocka_unit_test(test_qk_norm_rope_and_gradients_equal_reference),
        cmocka_unit_test(test_swiglu_and_gradients_equal_reference),
        cmocka_unit_test(test_swiglu_of_huge_gates_stays_finite),
        cmocka_unit_test(test_attention_and_gradients_equal_reference),
        cmocka_unit_test(test_cross_entropy_equals_reference),
        cmocka_unit_test(test_cross_entropy_of_shards_joins_to_that_of_all_columns),
        cmocka_unit_test(test_cross_entropy_stats_do_not_depend_on_what_is_asked),
        cmocka_unit_test(test_cross_entropy_takes_the_lowest_of_equal_logits),
        cmocka_unit_test(test_softmax_parts_equal_reference),
        cmocka_unit_test(test_softmax_draw_finds_the_place),
        cmocka_unit_test(test_adamw_equals_reference_over_three_steps),
        cmocka_unit_test(test_sum_squares_is_exact_in_double),
#ifndef TEST_WITHOUT_XXHASH
        cmocka_unit_test(test_digests_of_pieces_are_the_librarys),
#endif
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
