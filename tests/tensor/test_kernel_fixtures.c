/* The kernels against torch and transformers' Qwen3 modules: fixtures/kernels, made by
 * make_kernel_fixtures.py from the same numbers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "tensor/buffer.h"
#include "tensor/safetensors.h"
#include "test.h"

enum { HEADS = 4, KV_HEADS = 2, DIM = 16, ROWS = 72, WIDTH = (HEADS + 2 * KV_HEADS) * DIM };

static const float EPS = 1e-6f;
static const KernelTable *kernels;

typedef struct Fixture {
    SafetensorsReader *reader;
    DType dtype;
    double tolerance;
} Fixture;

static Fixture fixture_open(DType dtype)
{
    Fixture fixture = {.dtype = dtype, .tolerance = dtype == DTYPE_F32 ? 1e-5 : 5e-2};
    char path[512];
    Error err = {0};
    snprintf(path, sizeof path, "%s/tensor/fixtures/kernels/%s.safetensors", TEST_SOURCE_DIR,
             dtype_name(dtype));
    assert_ok(safetensors_open(path, "model", &fixture.reader, &err), &err);
    return fixture;
}

/* make_kernel_fixtures.py's `numbers`. */
static Buffer numbers(DType dtype, int64_t rows, int64_t columns, uint64_t key, double spread)
{
    Buffer buffer = buffer_result(dtype, rows, columns);
    for (uint64_t i = 0; i < (uint64_t)(rows * columns); i++) {
        uint64_t word = (i + 1000003 * key) * 2654435761u % ((uint64_t)1 << 32);
        word = (word >> 15 ^ word) * 2246822519u % ((uint64_t)1 << 32);
        buffer.exact[i] = (float)((2 * ((double)(word >> 8) / 16777216.0) - 1) * spread);
    }
    buffer_store_exact(&buffer);
    return buffer;
}

/* A place for a result of the kernels; what torch made of it is expected. */
static Buffer expected(const Fixture *fixture, const char *name, DType dtype)
{
    Error err = {0};
    Tensor found;
    assert_ok(safetensors_describe(fixture->reader, name, &found, &err), &err);
    const int64_t columns = found.shape[found.rank - 1], count = tensor_count(&found);
    Buffer file = buffer_result(found.dtype, count / columns, columns);
    assert_ok(safetensors_read(fixture->reader, name, 0, count, file.tensor.data, &err), &err);
    Buffer buffer = buffer_result(dtype, count / columns, columns);
    for (int64_t i = 0; i < count; i++)
        buffer.exact[i] = buffer_at(&file, i);
    buffer_free(&file);
    return buffer;
}

static void free_all(Buffer *const *buffers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        buffer_free(buffers[i]);
}
#define FREE_ALL(...)                                                                              \
    free_all((Buffer *[]){__VA_ARGS__}, sizeof((Buffer *[]){__VA_ARGS__}) / sizeof(Buffer *))

static void zero(Buffer *buffer)
{
    memset(buffer->tensor.data, 0, tensor_bytes(&buffer->tensor));
}

static void *column_of(const Tensor *qkv, int64_t column)
{
    return (char *)qkv->data + (size_t)column * dtype_size(qkv->dtype);
}

static void check_attention(const Fixture *fixture)
{
    const DType dtype = fixture->dtype;
    Buffer q_norm = numbers(dtype, 1, DIM, 1, 1), k_norm = numbers(dtype, 1, DIM, 2, 1);
    Buffer qkv = numbers(dtype, ROWS, WIDTH, 3, 2), dout = numbers(dtype, ROWS, HEADS * DIM, 4, 1);
    Buffer angles = expected(fixture, "attention.cos_sin", DTYPE_F32);
    Buffer out = expected(fixture, "attention.out", dtype);
    Buffer dqkv = expected(fixture, "attention.dqkv", dtype);
    Buffer dq_norm = expected(fixture, "attention.dq_norm", DTYPE_F32);
    Buffer dk_norm = expected(fixture, "attention.dk_norm", DTYPE_F32);
    Buffer raw = buffer_result(dtype, ROWS, (HEADS + KV_HEADS) * DIM);
    buffer_store_exact(&angles);
    zero(&dq_norm);
    zero(&dk_norm);
    float lse[HEADS * ROWS];
    int32_t position[ROWS];
    const int32_t starts[] = {0, 66, 67, ROWS};
    for (int s = 0; s < 3; s++)
        for (int i = starts[s]; i < starts[s + 1]; i++)
            position[i] = i - starts[s];
    const SequenceTable sequences = {3, starts, NULL, starts, NULL};
    const AttentionShape shape = {HEADS, KV_HEADS, DIM, 0.25f, WIDTH, WIDTH, WIDTH, HEADS * DIM};
    const int64_t k = HEADS * DIM, v = (HEADS + KV_HEADS) * DIM;
    kernels->qk_norm_rope(qkv.tensor, raw.tensor, HEADS, KV_HEADS, DIM, q_norm.tensor.data,
                          k_norm.tensor.data, EPS, angles.tensor.data, position);
    kernels->attention(out.tensor.data, lse, dtype, qkv.tensor.data, column_of(&qkv.tensor, k),
                       column_of(&qkv.tensor, v), &shape, &sequences, NULL);
    kernels->attention_backward(
        dqkv.tensor.data, column_of(&dqkv.tensor, k), column_of(&dqkv.tensor, v), dtype,
        dout.tensor.data, qkv.tensor.data, column_of(&qkv.tensor, k), column_of(&qkv.tensor, v),
        out.tensor.data, lse, &shape, &sequences);
    kernels->qk_norm_rope_backward(dqkv.tensor, raw.tensor, HEADS, KV_HEADS, DIM,
                                   q_norm.tensor.data, k_norm.tensor.data, EPS, dq_norm.tensor.data,
                                   dk_norm.tensor.data, angles.tensor.data, position);
    assert_buffer_close(&out, fixture->tolerance, "norm, rotation and attention");
    assert_buffer_close(&dqkv, fixture->tolerance, "their gradient");
    assert_buffer_close(&dq_norm, fixture->tolerance, "gradient of q_norm");
    assert_buffer_close(&dk_norm, fixture->tolerance, "gradient of k_norm");
    FREE_ALL(&q_norm, &k_norm, &qkv, &dout, &angles, &out, &dqkv, &dq_norm, &dk_norm, &raw);
}

static void check_rmsnorm(const Fixture *fixture)
{
    const DType dtype = fixture->dtype;
    Buffer x = numbers(dtype, 11, 50, 5, 3), w = numbers(dtype, 1, 50, 6, 1);
    Buffer dy = numbers(dtype, 11, 50, 7, 1), y = expected(fixture, "rmsnorm.y", dtype);
    Buffer dx = expected(fixture, "rmsnorm.dx", dtype),
           dw = expected(fixture, "rmsnorm.dw", DTYPE_F32);
    float rstd[11];
    zero(&dw);
    kernels->rmsnorm(y.tensor, rstd, x.tensor, w.tensor, EPS);
    kernels->rmsnorm_backward(dx.tensor, false, dw.tensor, dy.tensor, x.tensor, w.tensor, rstd);
    /* In bf16 the roundings are Hugging Face's own. */
    assert_buffer_close(&y, dtype == DTYPE_F32 ? 1e-6 : 0, "Qwen3RMSNorm");
    assert_buffer_close(&dx, fixture->tolerance, "gradient of x");
    assert_buffer_close(&dw, fixture->tolerance, "gradient of the norm's weight");
    FREE_ALL(&x, &w, &dy, &y, &dx, &dw);
}

static void check_swiglu(const Fixture *fixture)
{
    const DType dtype = fixture->dtype;
    Buffer gate_up = numbers(dtype, 7, 2 * 37, 8, 5), dy = numbers(dtype, 7, 37, 9, 1);
    Buffer y = expected(fixture, "swiglu.y", dtype);
    Buffer dgate_up = expected(fixture, "swiglu.dgate_up", dtype);
    kernels->swiglu(y.tensor, gate_up.tensor);
    kernels->swiglu_backward(dgate_up.tensor, dy.tensor, gate_up.tensor);
    assert_buffer_close(&y, dtype == DTYPE_F32 ? 1e-6 : 0, "silu(gate) * up");
    assert_buffer_close(&dgate_up, fixture->tolerance, "its gradient");
    FREE_ALL(&gate_up, &dy, &y, &dgate_up);
}

static void check_cross_entropy(const Fixture *fixture)
{
    Buffer logits = numbers(DTYPE_F32, 6, 97, 10, 8);
    Buffer loss = expected(fixture, "cross_entropy.loss", DTYPE_F32);
    Buffer dlogits = expected(fixture, "cross_entropy.dlogits", fixture->dtype);
    const int32_t target[] = {0, 16, 32, 48, 64, 80};
    float max[6], sum[6], target_logit[6], lse[6], slope[6], arg_max[6];
    const RowStats stats = {max, sum, NULL, target_logit, arg_max};
    kernels->cross_entropy_stats(&stats, logits.tensor, target, 0);
    for (int i = 0; i < 6; i++) {
        slope[i] = -0.25f;
        lse[i] = max[i] + logf(sum[i]);
        ((float *)loss.tensor.data)[i] = lse[i] - target_logit[i];
    }
    const RowSlopes slopes = {.lse = lse, .dlog_prob = slope};
    kernels->cross_entropy_backward(dlogits.tensor, logits.tensor, &slopes, target, 0);
    assert_buffer_close(&loss, 1e-6, "cross-entropy");
    assert_buffer_close(&dlogits, tolerance_of(fixture->dtype, 1e-5), "its gradient");
    FREE_ALL(&logits, &loss, &dlogits);
}

static void check_adamw(const Fixture *fixture)
{
    Buffer start = numbers(DTYPE_F32, 1, 101, 11, 1);
    Buffer master = expected(fixture, "adamw.master", DTYPE_F32);
    Buffer weight = expected(fixture, "adamw.weight", fixture->dtype);
    Buffer exp_avg = expected(fixture, "adamw.exp_avg", DTYPE_F32);
    Buffer exp_avg_sq = expected(fixture, "adamw.exp_avg_sq", DTYPE_F32);
    memcpy(master.tensor.data, start.tensor.data, tensor_bytes(&start.tensor));
    zero(&exp_avg);
    zero(&exp_avg_sq);
    for (int step = 0; step < 3; step++) {
        Buffer grad = numbers(DTYPE_F32, 1, 101, 12 + (uint64_t)step, 0.1);
        const AdamWParams params = {
            1e-2, 0.9, 0.95, 1e-8, 0.1, 1 - pow(0.9, step + 1), 1 - pow(0.95, step + 1), 1};
        kernels->adamw(master.tensor.data, exp_avg.tensor.data, exp_avg_sq.tensor.data,
                       grad.tensor.data, weight.tensor.data, fixture->dtype, 101, &params);
        buffer_free(&grad);
    }
    assert_buffer_close(&master, 1e-6, "torch.optim.AdamW");
    assert_buffer_close(&weight, tolerance_of(fixture->dtype, 1e-6), "its weight");
    assert_buffer_close(&exp_avg, 1e-6, "exp_avg");
    assert_buffer_close(&exp_avg_sq, 1e-6, "exp_avg_sq");
    FREE_ALL(&start, &master, &weight, &exp_avg, &exp_avg_sq);
}

static void check_both(void (*check)(const Fixture *fixture))
{
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        const Fixture fixture = fixture_open(dtype);
        check(&fixture);
        safetensors_close(fixture.reader);
    }
}

static void test_attention_equals_transformers(void **state)
{
    (void)state;
    check_both(check_attention);
}

static void test_rmsnorm_equals_transformers(void **state)
{
    (void)state;
    check_both(check_rmsnorm);
}

static void test_swiglu_equals_torch(void **state)
{
    (void)state;
    check_both(check_swiglu);
}

static void test_cross_entropy_equals_torch(void **state)
{
    (void)state;
    check_both(check_cross_entropy);
}

static void test_adamw_equals_torch(void **state)
{
    (void)state;
    check_both(check_adamw);
}

static int setup(void **state)
{
    (void)state;
    kernels = TEST_KERNELS(1);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_equals_transformers),
        cmocka_unit_test(test_rmsnorm_equals_transformers),
        cmocka_unit_test(test_swiglu_equals_torch),
        cmocka_unit_test(test_cross_entropy_equals_torch),
        cmocka_unit_test(test_adamw_equals_torch),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
