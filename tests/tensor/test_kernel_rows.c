/* The contract at the top of tensor/kernels.h, bit for bit: a row's values do not change with the
 * rows beside it, with chunks, with packing or with threads. Built once per instruction set
 * (TEST_ISA). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "tensor/buffer.h"
#include "test.h"

static const KernelTable *kernels;

#define FOR_EACH_DTYPE(dtype) for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++)

static void use_threads(int num_threads)
{
    kernels = TEST_KERNELS(num_threads);
}

/* Rows [first, first + count) of a tensor as a tensor. */
static Tensor rows_of(const Tensor *tensor, int64_t first, int64_t count)
{
    Tensor rows = *tensor;
    rows.data =
        (char *)tensor->data + (size_t)(first * tensor->shape[1]) * dtype_size(tensor->dtype);
    rows.shape[0] = count;
    return rows;
}

static void assert_same_rows(const Tensor *part, const Tensor *whole, int64_t first,
                             const char *what)
{
    const Tensor expected = rows_of(whole, first, part->shape[0]);
    if (memcmp(part->data, expected.data, tensor_bytes(part)) != 0)
        fail_msg("%s (%s): %lld rows from row %lld on differ from the whole batch", what,
                 dtype_name(part->dtype), (long long)part->shape[0], (long long)first);
}

/* ---- matrices ---- */

#define ROWS 200
static const int COUNTS[] = {1, 2, 5, 8, 9, 64, 199};

typedef void (*Product)(Tensor y, Tensor x, const Weight *w);

/* Every way to make some rows of y = product(x, w) gives the bits of `whole`. */
static void check_rows_of_product(Product product, const Tensor *whole, const Tensor *x,
                                  const Weight *w, const char *what)
{
    for (size_t i = 0; i < sizeof COUNTS / sizeof COUNTS[0]; i++)
        for (int first = 0; first < ROWS; first += ROWS - COUNTS[i]) {
            Buffer part = buffer_result(whole->dtype, COUNTS[i], whole->shape[1]);
            product(part.tensor, rows_of(x, first, COUNTS[i]), w);
            assert_same_rows(&part.tensor, whole, first, what);
            buffer_free(&part);
            if (first > 0) break;
        }
}

static void check_product(DType dtype, DType result, int n, int k)
{
    Buffer x = buffer_random(dtype, ROWS, k, 1, 1), dy = buffer_random(dtype, ROWS, n, 2, 1);
    Buffer w = buffer_random(dtype, n, k, 3, 1);
    Buffer y = buffer_result(result, ROWS, n), dx = buffer_result(result, ROWS, k);
    Weight weight = {.plain = w.tensor}, plain = {.plain = w.tensor};
    use_threads(1);
    kernels->weight_prepare(&weight);
    kernels->matmul(y.tensor, x.tensor, &weight);
    kernels->matmul_dgrad(dx.tensor, dy.tensor, &weight);
    for (int threads = 1; threads <= TEST_THREADS_MAX; threads++) {
        use_threads(threads);
        check_rows_of_product(kernels->matmul, &y.tensor, &x.tensor, &weight, "matmul");
        Buffer again = buffer_result(result, ROWS, k);
        kernels->matmul_dgrad(again.tensor, dy.tensor, &weight);
        assert_same_rows(&again.tensor, &dx.tensor, 0, "dgrad");
        buffer_free(&again);
    }
    check_rows_of_product(kernels->matmul, &y.tensor, &x.tensor, &plain, "matmul, not packed");
    kernels->weight_release(&weight);
    Buffer *all[] = {&x, &dy, &w, &y, &dx};
    for (size_t i = 0; i < 5; i++)
        buffer_free(all[i]);
}

static void test_matmul_rows_do_not_depend_on_their_number(void **state)
{
    (void)state;
    /* The last ones are Qwen3-0.6B's; they take too long on slow backends. */
    const int shapes[][2] = {{333, 130},   {50, 77},     {1, 64},      {64, 1},
                             {1024, 2048}, {4096, 1024}, {6144, 1024}, {1024, 3072}};
    const size_t count = TEST_IS_FAST ? 8 : TEST_IS_EMULATED ? 2 : 4;
    FOR_EACH_DTYPE(dtype)
    for (size_t i = TEST_IS_EMULATED; i < count; i++) {
        check_product(dtype, dtype, shapes[i][0], shapes[i][1]);
        if (i < 4) check_product(dtype, DTYPE_F32, shapes[i][0], shapes[i][1]);
    }
}

static void test_wgrad_does_not_depend_on_threads(void **state)
{
    (void)state;
    FOR_EACH_DTYPE(dtype)
    {
        Buffer x = buffer_random(dtype, 300, 200, 1, 1), dy = buffer_random(dtype, 300, 330, 2, 1);
        Buffer one = buffer_random(DTYPE_F32, 330, 200, 3, 1);
        for (int threads = 1; threads <= TEST_THREADS_MAX; threads++) {
            Buffer dw = buffer_random(DTYPE_F32, 330, 200, 3, 1);
            use_threads(threads);
            kernels->matmul_wgrad_accumulate(dw.tensor, dy.tensor, x.tensor);
            if (threads == 1) memcpy(one.tensor.data, dw.tensor.data, tensor_bytes(&dw.tensor));
            assert_same_rows(&dw.tensor, &one.tensor, 0, "wgrad");
            buffer_free(&dw);
        }
        buffer_free(&x);
        buffer_free(&dy);
        buffer_free(&one);
    }
}

/* ---- norms, rotation, activation, loss ---- */

#define DIM 128

/* One row-wise pass over everything; `out` [rows, 4 * DIM] collects what it made of `in` [rows, 4 *
 * DIM]. */
static void row_wise_pass(Tensor out, Tensor in, const Tensor *norm, const float *cos_sin,
                          const int32_t *position)
{
    const int64_t rows = in.shape[0];
    Buffer narrow = buffer_result(in.dtype, rows, 2 * DIM),
           raw = buffer_result(in.dtype, rows, 3 * DIM);
    kernels->rmsnorm(out, NULL, in, *norm, 1e-6f);
    kernels->qk_norm_rope(out, raw.tensor, 2, 1, DIM, norm->data, norm->data, 1e-6f, cos_sin,
                          position);
    kernels->swiglu(narrow.tensor, out);
    kernels->swiglu_backward(out, narrow.tensor, in);
    buffer_free(&narrow);
    buffer_free(&raw);
}

static void test_row_wise_operations_do_not_depend_on_other_rows(void **state)
{
    (void)state;
    FOR_EACH_DTYPE(dtype)
    {
        Buffer in = buffer_random(dtype, 100, 4 * DIM, 1, 3),
               whole = buffer_result(dtype, 100, 4 * DIM);
        Buffer norm = buffer_random(dtype, 1, 4 * DIM, 2, 1);
        Buffer angles = buffer_random(DTYPE_F32, 100, DIM, 3, 1);
        int32_t position[100];
        for (int i = 0; i < 100; i++)
            position[i] = (i * 37) % 100;
        use_threads(1);
        row_wise_pass(whole.tensor, in.tensor, &norm.tensor, angles.tensor.data, position);
        for (int threads = 1; threads <= TEST_THREADS_MAX; threads++)
            for (int count = 1; count <= 100; count = count * 3 + 1) {
                use_threads(threads);
                const int first = 100 - count;
                Buffer part = buffer_result(dtype, count, 4 * DIM);
                row_wise_pass(part.tensor, rows_of(&in.tensor, first, count), &norm.tensor,
                              angles.tensor.data, position + first);
                assert_same_rows(&part.tensor, &whole.tensor, first, "row-wise operations");
                buffer_free(&part);
            }
        Buffer *all[] = {&in, &whole, &norm, &angles};
        for (size_t i = 0; i < 4; i++)
            buffer_free(all[i]);
    }
}

/* Everything the softmax kernels make of rows. */
typedef struct SoftmaxRows {
    float max[20], sum[20], shifted[20], logit[20], arg_max[20];
} SoftmaxRows;

static RowStats stats_of(SoftmaxRows *rows, int first)
{
    return (RowStats){rows->max + first, rows->sum + first, rows->shifted + first,
                      rows->logit + first, rows->arg_max + first};
}

static void test_cross_entropy_rows_do_not_depend_on_other_rows(void **state)
{
    (void)state;
    const int rows = 20, vocab = 9100;
    Buffer logits = buffer_random(DTYPE_F32, rows, vocab, 1, 20);
    Buffer gradient = buffer_result(DTYPE_BF16, rows, vocab);
    SoftmaxRows whole, part_rows;
    int32_t target[20];
    float lse[20], slope[20], entropy[20];
    for (int i = 0; i < rows; i++) {
        target[i] = i * 400;
        lse[i] = 20.0f + (float)i;
        slope[i] = 0.5f - (float)i;
        entropy[i] = (float)i;
    }
    use_threads(1);
    RowStats stats = stats_of(&whole, 0);
    RowSlopes slopes = {lse, slope, entropy, slope};
    kernels->cross_entropy_stats(&stats, logits.tensor, target, 0);
    kernels->cross_entropy_backward(gradient.tensor, logits.tensor, &slopes, target, 0);
    for (int threads = 1; threads <= TEST_THREADS_MAX; threads++)
        for (int count = 1; count <= rows; count += 6) {
            use_threads(threads);
            const int first = rows - count;
            const Tensor part = rows_of(&logits.tensor, first, count);
            stats = stats_of(&part_rows, first);
            kernels->cross_entropy_stats(&stats, part, target + first, 0);
            const size_t bytes = (size_t)count * sizeof(float);
            assert_memory_equal(part_rows.max + first, whole.max + first, bytes);
            assert_memory_equal(part_rows.sum + first, whole.sum + first, bytes);
            assert_memory_equal(part_rows.shifted + first, whole.shifted + first, bytes);
            assert_memory_equal(part_rows.logit + first, whole.logit + first, bytes);
            assert_memory_equal(part_rows.arg_max + first, whole.arg_max + first, bytes);
            Buffer part_gradient = buffer_result(DTYPE_BF16, count, vocab);
            slopes = (RowSlopes){lse + first, slope + first, entropy + first, slope + first};
            kernels->cross_entropy_backward(part_gradient.tensor, part, &slopes, target + first, 0);
            assert_same_rows(&part_gradient.tensor, &gradient.tensor, first,
                             "cross-entropy gradient");
            buffer_free(&part_gradient);
        }
    buffer_free(&logits);
    buffer_free(&gradient);
}

/* ---- attention ---- */

enum { HEADS = 4, KV_HEADS = 2, WIDTH = (HEADS + 2 * KV_HEADS) * DIM };

/* Packed qkv rows and what attention makes of them. */
typedef struct AttentionData {
    Buffer qkv, out, lse; /* lse [rows, HEADS] after gathering, so that rows compare */
} AttentionData;

static const AttentionShape SHAPE = {HEADS, KV_HEADS, DIM,   0.088388347648f,
                                     WIDTH, WIDTH,    WIDTH, HEADS *DIM};

static const char *column_of(const Tensor *qkv, int64_t column)
{
    return (const char *)qkv->data + (size_t)column * dtype_size(qkv->dtype);
}

/* Attention over rows of qkv; out [rows, HEADS DIM], lse as [rows, HEADS]. */
static void attend(Tensor out, Tensor lse, Tensor qkv, const SequenceTable *sequences,
                   const KvPages *pages)
{
    const int64_t rows = qkv.shape[0];
    float *by_head = mem_calloc((size_t)(rows * HEADS), sizeof *by_head);
    kernels->attention(out.data, by_head, qkv.dtype, qkv.data, column_of(&qkv, HEADS * DIM),
                       column_of(&qkv, (HEADS + KV_HEADS) * DIM), &SHAPE, sequences, pages);
    for (int64_t i = 0; i < rows; i++)
        for (int h = 0; h < HEADS; h++)
            ((float *)lse.data)[i * HEADS + h] = by_head[h * rows + i];
    free(by_head);
}

static AttentionData attention_data(DType dtype, int rows)
{
    return (AttentionData){buffer_random(dtype, rows, WIDTH, 5, 2),
                           buffer_result(dtype, rows, HEADS * DIM),
                           buffer_result(DTYPE_F32, rows, HEADS)};
}

static void attention_data_free(AttentionData *data)
{
    buffer_free(&data->qkv);
    buffer_free(&data->out);
    buffer_free(&data->lse);
}

/* The rows [first, first + count) of `whole`, done apart. */
static void check_attention_part(const AttentionData *whole, int first, int count,
                                 const SequenceTable *sequences, const KvPages *pages,
                                 const char *what)
{
    Buffer out = buffer_result(whole->out.tensor.dtype, count, HEADS * DIM);
    Buffer lse = buffer_result(DTYPE_F32, count, HEADS);
    attend(out.tensor, lse.tensor, rows_of(&whole->qkv.tensor, first, count), sequences, pages);
    assert_same_rows(&out.tensor, &whole->out.tensor, first, what);
    assert_same_rows(&lse.tensor, &whole->lse.tensor, first, what);
    buffer_free(&out);
    buffer_free(&lse);
}

/* The tables of the tests are theirs, on the stack: where a device has its own memory, that of
 * globals is none of it. */
#define PACKED_STARTS                                                                              \
    {                                                                                              \
        0, 1, 8, 72, 137, 337                                                                      \
    }
enum { PACKED_COUNT = 5, PACKED_ROWS = 337 };

static void test_attention_of_packed_sequences_equals_each_alone(void **state)
{
    (void)state;
    const int32_t packed_starts[] = PACKED_STARTS;
    FOR_EACH_DTYPE(dtype)
    {
        AttentionData data = attention_data(dtype, PACKED_ROWS);
        const SequenceTable packed = {PACKED_COUNT, packed_starts, NULL, packed_starts, NULL};
        use_threads(1);
        attend(data.out.tensor, data.lse.tensor, data.qkv.tensor, &packed, NULL);
        for (int threads = 1; threads <= TEST_THREADS_MAX; threads++) {
            use_threads(threads);
            check_attention_part(&data, 0, PACKED_ROWS, &packed, NULL, "packed sequences");
            for (int i = 0; i < PACKED_COUNT; i++) {
                const int32_t alone[] = {0, packed_starts[i + 1] - packed_starts[i]};
                const SequenceTable one = {1, alone, NULL, alone, NULL};
                check_attention_part(&data, packed_starts[i], alone[1], &one, NULL,
                                     "sequence alone");
            }
        }
        attention_data_free(&data);
    }
}

/* Pages for sequences of rows, scattered; their memory is NaN bits at first: what is not yet known
 * is read by nobody. */
typedef struct PagedData {
    KvPages pages;
    int32_t page[16], first_page[PACKED_COUNT + 1];
} PagedData;

static void paged_data_init(PagedData *data, DType dtype, const int32_t *starts, int count)
{
    const int64_t bytes = kernels->kv_page_bytes(dtype, KV_HEADS, DIM);
    int32_t used = 0;
    for (int i = 0; i < count; i++) {
        data->first_page[i] = used;
        used += (starts[i + 1] - starts[i] + KV_PAGE - 1) / KV_PAGE;
    }
    assert_in_range(used, 1, 16);
    for (int i = 0; i < used; i++)
        data->page[i] = (i * 5 + 3) % 16;
    data->pages = (KvPages){.memory = kernels->alloc(16 * (size_t)bytes),
                            .page_bytes = bytes,
                            .page = data->page,
                            .first_page = data->first_page};
    memset(data->pages.memory, 0xFF, 16 * (size_t)bytes);
}

static void store(const PagedData *data, const Tensor *qkv, const SequenceTable *sequences)
{
    kernels->kv_store(&data->pages, qkv->dtype, column_of(qkv, HEADS * DIM),
                      column_of(qkv, (HEADS + KV_HEADS) * DIM), &SHAPE, sequences);
}

static void check_chunks(const AttentionData *data, int rows, int chunk)
{
    const int32_t whole[] = {0, rows};
    PagedData paged;
    paged_data_init(&paged, data->qkv.tensor.dtype, whole, 1);
    for (int32_t first = 0; first < rows; first += chunk) {
        const int32_t count = rows - first < chunk ? rows - first : chunk;
        const int32_t starts[] = {0, count};
        const SequenceTable part = {1, starts, &first, starts, &first};
        const Tensor qkv = rows_of(&data->qkv.tensor, first, count);
        store(&paged, &qkv, &part);
        check_attention_part(data, first, count, &part, &paged.pages, "chunk with pages");
    }
    kernels->free(paged.pages.memory);
}

static void test_attention_in_chunks_equals_the_whole(void **state)
{
    (void)state;
    enum { LENGTH = 330 };
    const int chunks[] = {1, 3, 16, 64, 100, LENGTH};
    FOR_EACH_DTYPE(dtype)
    {
        AttentionData data = attention_data(dtype, LENGTH);
        const int32_t starts[] = {0, LENGTH};
        const SequenceTable whole = {1, starts, NULL, starts, NULL};
        use_threads(2);
        attend(data.out.tensor, data.lse.tensor, data.qkv.tensor, &whole, NULL);
        for (size_t i = TEST_IS_EMULATED ? 3 : 0; i < sizeof chunks / sizeof chunks[0]; i++)
            check_chunks(&data, LENGTH, chunks[i]);
        attention_data_free(&data);
    }
}

/* Rows of no sequence behind the last one, as a step of decoding that is padded has them. */
#define PADDING 3

/* Chunks of the packed sequences from position `first` on, by qk_norm_rope and kv_store apart, and
 * by both in one: the same pages, and rows. */
static void check_rope_store(DType dtype, const int32_t *first, bool normed)
{
    const int32_t packed_starts[] = PACKED_STARTS;
    const AttentionShape shape = SHAPE;
    int32_t starts[PACKED_COUNT + PADDING + 1] = {0}, firsts[PACKED_COUNT + PADDING] = {0};
    int32_t position[PACKED_ROWS + PADDING] = {0}, slot[PACKED_ROWS + PADDING];
    float *cos_sin = mem_calloc((size_t)(PACKED_ROWS * DIM), sizeof *cos_sin);
    for (int i = 0; i < PACKED_ROWS * DIM; i++)
        cos_sin[i] = (float)(i % 17) / 16 - 0.5f;
    PagedData apart, joined;
    paged_data_init(&apart, dtype, packed_starts, PACKED_COUNT);
    paged_data_init(&joined, dtype, packed_starts, PACKED_COUNT);
    for (int i = 0; i < PACKED_COUNT; i++) {
        const int32_t length = packed_starts[i + 1] - packed_starts[i];
        firsts[i] = first[i];
        starts[i + 1] = starts[i] + length - first[i];
        for (int32_t p = first[i]; p < length; p++) {
            const int32_t row = starts[i] + p - first[i];
            position[row] = p;
            slot[row] = joined.page[joined.first_page[i] + p / KV_PAGE] * KV_PAGE + p % KV_PAGE;
        }
    }
    const int32_t rows = starts[PACKED_COUNT];
    for (int i = 0; i < PADDING; i++) {
        starts[PACKED_COUNT + i + 1] = rows; /* sequences of no rows */
        slot[rows + i] = -1;
    }
    Buffer one = buffer_random(dtype, rows + PADDING, WIDTH, 5, 1);
    Buffer two = buffer_random(dtype, rows + PADDING, WIDTH, 5, 1);
    Buffer norm = buffer_random(dtype, 2, DIM, 6, 1);
    const char *k_norm = (const char *)norm.tensor.data + DIM * dtype_size(dtype);
    const HeadRope rope = {normed ? norm.tensor.data : NULL, normed ? k_norm : NULL, 1e-6f, cos_sin,
                           position};
    const SequenceTable table = {PACKED_COUNT, starts, firsts, starts, firsts};
    const SequenceTable padded = {PACKED_COUNT + PADDING, starts, firsts, starts, firsts};
    joined.pages.slot = slot;
    kernels->qk_norm_rope(one.tensor, tensor_2d(NULL, dtype, 0, 0), HEADS, KV_HEADS, DIM,
                          rope.q_norm, rope.k_norm, rope.eps, cos_sin, position);
    store(&apart, &one.tensor, &table);
    kernels->qk_norm_rope_store(two.tensor, &rope, &shape, &padded, &joined.pages);
    const Tensor done = rows_of(&two.tensor, 0, rows);
    assert_same_rows(&done, &one.tensor, 0, "q/k norm and RoPE with pages");
    assert_memory_equal(apart.pages.memory, joined.pages.memory, 16 * apart.pages.page_bytes);
    kernels->free(apart.pages.memory);
    kernels->free(joined.pages.memory);
    buffer_free(&one);
    buffer_free(&two);
    buffer_free(&norm);
    free(cos_sin);
}

static void test_rope_with_pages_equals_both_apart(void **state)
{
    (void)state;
    const int32_t packed_starts[] = PACKED_STARTS;
    int32_t whole[PACKED_COUNT] = {0}, last[PACKED_COUNT];
    for (int i = 0; i < PACKED_COUNT; i++)
        last[i] = packed_starts[i + 1] - packed_starts[i] - 1;
    use_threads(1);
    FOR_EACH_DTYPE(dtype)
    {
        check_rope_store(dtype, whole, true);
        check_rope_store(dtype, last, true);
        check_rope_store(dtype, last, false);
    }
}

/* Decoding several sequences at once: one row each, at different positions. */
static void test_attention_decode_in_a_batch_equals_the_whole(void **state)
{
    (void)state;
    const int32_t packed_starts[] = PACKED_STARTS;
    FOR_EACH_DTYPE(dtype)
    {
        AttentionData data = attention_data(dtype, PACKED_ROWS);
        const int32_t zeros[PACKED_COUNT] = {0};
        const SequenceTable packed = {PACKED_COUNT, packed_starts, zeros, packed_starts, zeros};
        PagedData paged;
        paged_data_init(&paged, dtype, packed_starts, PACKED_COUNT);
        use_threads(2);
        attend(data.out.tensor, data.lse.tensor, data.qkv.tensor, &packed, NULL);
        store(&paged, &data.qkv.tensor, &packed);
        Buffer last = buffer_result(dtype, PACKED_COUNT, WIDTH);
        Buffer out = buffer_result(dtype, PACKED_COUNT, HEADS * DIM);
        Buffer lse = buffer_result(DTYPE_F32, PACKED_COUNT, HEADS);
        int32_t starts[PACKED_COUNT + 1] = {0}, first[PACKED_COUNT];
        for (int i = 0; i < PACKED_COUNT; i++) {
            starts[i + 1] = i + 1;
            first[i] = packed_starts[i + 1] - packed_starts[i] - 1;
            memcpy(rows_of(&last.tensor, i, 1).data,
                   rows_of(&data.qkv.tensor, packed_starts[i + 1] - 1, 1).data,
                   WIDTH * dtype_size(dtype));
        }
        const SequenceTable decode = {PACKED_COUNT, starts, first, starts, first};
        for (int threads = 1; threads <= TEST_THREADS_MAX; threads++) {
            use_threads(threads);
            attend(out.tensor, lse.tensor, last.tensor, &decode, &paged.pages);
            for (int i = 0; i < PACKED_COUNT; i++) {
                const Tensor row = rows_of(&out.tensor, i, 1), row_lse = rows_of(&lse.tensor, i, 1);
                assert_same_rows(&row, &data.out.tensor, packed_starts[i + 1] - 1, "decode");
                assert_same_rows(&row_lse, &data.lse.tensor, packed_starts[i + 1] - 1, "decode");
            }
        }
        Buffer *all[] = {&last, &out, &lse};
        for (size_t i = 0; i < 3; i++)
            buffer_free(all[i]);
        kernels->free(paged.pages.memory);
        attention_data_free(&data);
    }
}

/* The last row of each sequence, alone in a step, and in the end of a chunk of three. */
#define LONG_COUNT 3
#define LONG_ROWS  905

static void check_long_rows(DType dtype, int64_t positions)
{
    const int32_t packed[LONG_COUNT + 1] = {0, 600, 605, LONG_ROWS}, zeros[LONG_COUNT] = {0};
    const SequenceTable whole = {LONG_COUNT, packed, zeros, packed, zeros};
    AttentionData data = attention_data(dtype, LONG_ROWS);
    Buffer one = buffer_result(dtype, LONG_COUNT, WIDTH);
    Buffer three = buffer_result(dtype, 3 * LONG_COUNT, WIDTH);
    Buffer expected = buffer_result(dtype, 3 * LONG_COUNT, HEADS * DIM);
    Buffer found = buffer_result(dtype, LONG_COUNT, HEADS * DIM);
    PagedData paged;
    int32_t ones[LONG_COUNT + PADDING + 1] = {0}, threes[LONG_COUNT + 1] = {0};
    int32_t last[LONG_COUNT + PADDING] = {0}, before[LONG_COUNT];
    paged_data_init(&paged, dtype, packed, LONG_COUNT);
    store(&paged, &data.qkv.tensor, &whole);
    for (int i = 0; i < LONG_COUNT; i++) {
        ones[i + 1] = i + 1;
        threes[i + 1] = 3 * (i + 1);
        last[i] = packed[i + 1] - packed[i] - 1;
        before[i] = last[i] - 2;
        memcpy(rows_of(&one.tensor, i, 1).data,
               rows_of(&data.qkv.tensor, packed[i + 1] - 1, 1).data, WIDTH * dtype_size(dtype));
        memcpy(rows_of(&three.tensor, 3 * i, 3).data,
               rows_of(&data.qkv.tensor, packed[i + 1] - 3, 3).data, 3 * WIDTH * dtype_size(dtype));
    }
    for (int i = LONG_COUNT; i < LONG_COUNT + PADDING; i++)
        ones[i + 1] = LONG_COUNT;
    attend(expected.tensor, data.lse.tensor, three.tensor,
           &(SequenceTable){LONG_COUNT, threes, before, threes, before}, &paged.pages);
    KvParts *parts = &paged.pages.parts;
    const SequenceTable step = {LONG_COUNT + PADDING, ones, last, ones, last};
    const int64_t bytes = kernels->kv_parts_bytes(&SHAPE, step.num_sequences, positions);
    if (bytes > 0) *parts = (KvParts){kernels->alloc((size_t)bytes), step.num_sequences, positions};
    if (bytes > 0) memset(parts->memory, 0xFF, (size_t)bytes);
    kernels->attention(
        found.tensor.data, NULL, dtype, one.tensor.data, column_of(&one.tensor, HEADS * DIM),
        column_of(&one.tensor, (HEADS + KV_HEADS) * DIM), &SHAPE, &step, &paged.pages);
    for (int i = 0; i < LONG_COUNT; i++) {
        const Tensor row = rows_of(&found.tensor, i, 1);
        assert_same_rows(&row, &expected.tensor, 3 * i + 2, "a long row alone");
    }
    kernels->free(parts->memory);
    kernels->free(paged.pages.memory);
    Buffer *all[] = {&one, &three, &expected, &found};
    for (size_t i = 0; i < 4; i++)
        buffer_free(all[i]);
    attention_data_free(&data);
}

static void test_attention_of_long_rows_does_not_depend_on_who_computes_it(void **state)
{
    (void)state;
    use_threads(1);
    FOR_EACH_DTYPE(dtype)
    {
        check_long_rows(dtype, 0); /* one block all splits */
        check_long_rows(dtype, 600);
        check_long_rows(dtype, 5000); /* room for more than there are */
    }
}

/* ---- backward passes: the number of threads and the packing do not show ---- */

static void attend_backward(Tensor dqkv, const AttentionData *data, int first,
                            const SequenceTable *sequences, const float *lse)
{
    const Tensor qkv = rows_of(&data->qkv.tensor, first, dqkv.shape[0]);
    const Tensor out = rows_of(&data->out.tensor, first, dqkv.shape[0]);
    kernels->attention_backward(dqkv.data, (void *)column_of(&dqkv, HEADS * DIM),
                                (void *)column_of(&dqkv, (HEADS + KV_HEADS) * DIM), qkv.dtype,
                                out.data, qkv.data, column_of(&qkv, HEADS * DIM),
                                column_of(&qkv, (HEADS + KV_HEADS) * DIM), out.data, lse, &SHAPE,
                                sequences);
}

static void test_attention_gradients_do_not_depend_on_packing_and_threads(void **state)
{
    (void)state;
    const int32_t packed_starts[] = PACKED_STARTS;
    FOR_EACH_DTYPE(dtype)
    {
        AttentionData data = attention_data(dtype, PACKED_ROWS);
        const SequenceTable packed = {PACKED_COUNT, packed_starts, NULL, packed_starts, NULL};
        Buffer whole = buffer_result(dtype, PACKED_ROWS, WIDTH);
        float *lse = mem_calloc(PACKED_ROWS * HEADS, sizeof *lse),
              *part_lse = mem_calloc(PACKED_ROWS * HEADS, sizeof *lse);
        use_threads(1);
        attend(data.out.tensor, data.lse.tensor, data.qkv.tensor, &packed, NULL);
        for (int i = 0; i < PACKED_ROWS * HEADS; i++)
            lse[i % HEADS * PACKED_ROWS + i / HEADS] = ((float *)data.lse.tensor.data)[i];
        attend_backward(whole.tensor, &data, 0, &packed, lse);
        for (int threads = 1; threads <= TEST_THREADS_MAX; threads++) {
            use_threads(threads);
            Buffer again = buffer_result(dtype, PACKED_ROWS, WIDTH);
            attend_backward(again.tensor, &data, 0, &packed, lse);
            assert_same_rows(&again.tensor, &whole.tensor, 0, "attention gradients, threads");
            buffer_free(&again);
            for (int i = 0; i < PACKED_COUNT; i++) {
                const int32_t count = packed_starts[i + 1] - packed_starts[i], alone[] = {0, count};
                const SequenceTable one = {1, alone, NULL, alone, NULL};
                Buffer part = buffer_result(dtype, count, WIDTH);
                for (int h = 0; h < HEADS; h++)
                    memcpy(part_lse + h * count, lse + h * PACKED_ROWS + packed_starts[i],
                           (size_t)count * sizeof *lse);
                attend_backward(part.tensor, &data, packed_starts[i], &one, part_lse);
                assert_same_rows(&part.tensor, &whole.tensor, packed_starts[i],
                                 "attention gradients, alone");
                buffer_free(&part);
            }
        }
        free(lse);
        free(part_lse);
        buffer_free(&whole);
        attention_data_free(&data);
    }
}

/* A gradient's bits are those of the rows added one after the other, however many have a token,
 * wherever the shard begins and whether or not rows are whole packs. */
static void test_embedding_backward_adds_rows_in_their_order(void **state)
{
    (void)state;
    use_threads(2);
    enum { COUNT = 700, VOCAB = 40, FIRST = 11 };
    const int widths[] = {16, 30, 1032};
    int32_t token[COUNT];
    for (int i = 0; i < COUNT; i++)
        token[i] = i % 3 == 0 ? 17 : (int32_t)((uint32_t)i * 2654435761u >> 26);
    FOR_EACH_DTYPE(dtype)
    {
        for (int w = 0; w < 3; w++) {
            const int width = widths[w];
            Buffer dy = buffer_random(dtype, COUNT, width, 2, 1);
            Buffer dtable = buffer_random(DTYPE_F32, VOCAB, width, 3, 1);
            float *expected = mem_calloc((size_t)(VOCAB * width), sizeof *expected);
            for (int i = 0; i < VOCAB * width; i++)
                expected[i] = (float)dtable.exact[i];
            for (int i = 0; i < COUNT; i++)
                for (int j = 0; j < width; j++)
                    if (token[i] >= FIRST && token[i] < FIRST + VOCAB)
                        expected[(token[i] - FIRST) * width + j] += (float)dy.exact[i * width + j];
            kernels->embedding_backward_accumulate(dtable.tensor, dy.tensor, token, token, FIRST);
            assert_memory_equal(dtable.tensor.data, expected,
                                (size_t)(VOCAB * width) * sizeof *expected);
            kernels->embedding_backward_accumulate(dtable.tensor, dy.tensor, token, token, 64);
            assert_memory_equal(dtable.tensor.data, expected, /* all of another shard */
                                (size_t)(VOCAB * width) * sizeof *expected);
            free(expected);
            buffer_free(&dy);
            buffer_free(&dtable);
        }
    }
}

/* Of several ranges: each as if alone, then in their order, bit for bit. */
static void test_sum_squares_of_ranges_is_the_sum_of_each(void **state)
{
    (void)state;
    use_threads(2);
    const ElementRange ranges[] = {{3, 40000}, {40003, 0}, {40100, 1}, {50000, 16384}, {0, 7}};
    Buffer x = buffer_random(DTYPE_F32, 1, 70000, 5, 100);
    double sum = 0;
    for (int i = 0; i < 5; i++)
        sum += kernels->sum_squares(x.tensor.data, &ranges[i], 1);
    assert_true(kernels->sum_squares(x.tensor.data, ranges, 5) == sum);
    assert_true(kernels->sum_squares(x.tensor.data, ranges, 0) == 0);
    buffer_free(&x);
}

/* Everything else that sums over rows or elements, into one long list of floats. */
static void sums_pass(DType dtype, float *ret)
{
    enum { COUNT = 500, WIDE = 512 };
    Buffer x = buffer_random(dtype, COUNT, WIDE, 1, 1),
           dy = buffer_random(dtype, COUNT, WIDE, 2, 1);
    Buffer w = buffer_random(dtype, 1, WIDE, 3, 1), dx = buffer_result(dtype, COUNT, WIDE);
    Buffer raw = buffer_random(dtype, COUNT, 3 * DIM, 4, 1),
           rstd = buffer_random(DTYPE_F32, 1, COUNT, 5, 1);
    Buffer angles = buffer_random(DTYPE_F32, COUNT, DIM, 6, 1);
    int32_t position[COUNT];
    for (int i = 0; i < COUNT; i++)
        position[i] = i % 7;
    kernels->rmsnorm_backward(dx.tensor, false, tensor_1d(ret, DTYPE_F32, WIDE), dy.tensor,
                              x.tensor, w.tensor, rstd.tensor.data);
    kernels->qk_norm_rope_backward(dx.tensor, raw.tensor, 2, 1, DIM, w.tensor.data, w.tensor.data,
                                   1e-6f, ret + WIDE, ret + WIDE + DIM, angles.tensor.data,
                                   position);
    kernels->embedding_backward_accumulate(tensor_2d(ret + 2 * WIDE, DTYPE_F32, 7, WIDE), dy.tensor,
                                           position, position, 0);
    const double squares =
        kernels->sum_squares(angles.tensor.data, &(ElementRange){0, COUNT * DIM}, 1);
    memcpy(ret + 10 * WIDE, &squares, sizeof squares);
    Buffer *all[] = {&x, &dy, &w, &dx, &raw, &rstd, &angles};
    for (size_t i = 0; i < 7; i++)
        buffer_free(all[i]);
}

static void test_sums_over_rows_do_not_depend_on_threads(void **state)
{
    (void)state;
    FOR_EACH_DTYPE(dtype)
    {
        const size_t count = 11 * 512;
        float *one = mem_calloc(count, sizeof *one);
        use_threads(1);
        sums_pass(dtype, one);
        for (int threads = 2; threads <= 5; threads++) {
            float *many = mem_calloc(count, sizeof *many);
            use_threads(threads);
            sums_pass(dtype, many);
            assert_memory_equal(one, many, count * sizeof *one);
            free(many);
        }
        free(one);
    }
}

static int setup(void **state)
{
    (void)state;
    if (!TEST_CAN_RUN) {
        print_message("this machine lacks what it takes: skipped\n");
        exit(0);
    }
    use_threads(1);
    return 0;
}

static void test_rows_are_divided_each_by_its_own(void **state)
{
    (void)state;
    enum { M = 9, N = 1003 };
    const float divisor[M] = {1.0f, 0.7f, 2.0f, 1.0f, 0.3f, 1.3f, 100.0f, 0.01f, 1.0f};
    for (int threads = 1; threads <= TEST_THREADS_MAX; threads++) {
        Buffer x = buffer_random(DTYPE_F32, M, N, 31, 3.0);
        use_threads(threads);
        kernels->divide_rows(x.tensor, divisor);
        for (int i = 0; i < M * N; i++) {
            const float expected = (float)x.exact[i] / divisor[i / N];
            assert_memory_equal((float *)x.tensor.data + i, &expected, sizeof expected);
        }
        buffer_free(&x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul_rows_do_not_depend_on_their_number),
        cmocka_unit_test(test_wgrad_does_not_depend_on_threads),
        cmocka_unit_test(test_row_wise_operations_do_not_depend_on_other_rows),
        cmocka_unit_test(test_rows_are_divided_each_by_its_own),
        cmocka_unit_test(test_cross_entropy_rows_do_not_depend_on_other_rows),
        cmocka_unit_test(test_attention_of_packed_sequences_equals_each_alone),
        cmocka_unit_test(test_attention_in_chunks_equals_the_whole),
        cmocka_unit_test(test_attention_decode_in_a_batch_equals_the_whole),
        cmocka_unit_test(test_rope_with_pages_equals_both_apart),
        cmocka_unit_test(test_attention_of_long_rows_does_not_depend_on_who_computes_it),
        cmocka_unit_test(test_attention_gradients_do_not_depend_on_packing_and_threads),
        cmocka_unit_test(test_embedding_backward_adds_rows_in_their_order),
        cmocka_unit_test(test_sum_squares_of_ranges_is_the_sum_of_each),
        cmocka_unit_test(test_sums_over_rows_do_not_depend_on_threads),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
