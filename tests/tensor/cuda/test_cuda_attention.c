/* Attention's kernels on a device that gives a block little shared memory (an RTX card): they take
 * what there is, and a row's bits are those of a larger device. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "tensor/buffer.h"
#include "test.h"

void on_host_give_shared(size_t bytes); /* device_on_host.cc */

#define SHARED_RTX  ((size_t)99 << 10)
#define SHARED_H100 ((size_t)227 << 10)

enum { HEADS = 4, KV_HEADS = 2, PAGES = 16 };

static const KernelTable *kernels;

static int setup(void **state)
{
    (void)state;
    kernels = TEST_KERNELS(1);
    return 0;
}

static AttentionShape shape_of(int dim)
{
    int width = (HEADS + 2 * KV_HEADS) * dim;
    return (AttentionShape){HEADS, KV_HEADS, dim, 0.1f, width, width, width, HEADS * dim};
}

static const char *column_of(const Tensor *qkv, int64_t column)
{
    return (const char *)qkv->data + (size_t)column * dtype_size(qkv->dtype);
}

/* Rows of qkv and what attention makes of them, on each of the two devices. */
typedef struct Case {
    AttentionShape shape;
    Buffer qkv, out[2];
    float *lse[2];
} Case;

static Case case_of(DType dtype, int dim, int rows)
{
    Case made = {.shape = shape_of(dim), .qkv = buffer_random(dtype, rows, 8 * dim, 1, 2)};
    for (int i = 0; i < 2; i++) {
        made.out[i] = buffer_result(dtype, rows, HEADS * dim);
        made.lse[i] = mem_calloc((size_t)(rows * HEADS), sizeof **made.lse);
    }
    return made;
}

static void case_free(Case *used)
{
    buffer_free(&used->qkv);
    for (int i = 0; i < 2; i++) {
        buffer_free(&used->out[i]);
        free(used->lse[i]);
    }
}

static void check(Case *used, const SequenceTable *sequences, const KvPages *pages, bool with_lse)
{
    const Tensor *qkv = &used->qkv.tensor;
    int dim = used->shape.head_dim;
    for (int i = 0; i < 2; i++) {
        on_host_give_shared(i == 0 ? SHARED_H100 : SHARED_RTX);
        kernels->attention(used->out[i].tensor.data, with_lse ? used->lse[i] : NULL, qkv->dtype,
                           qkv->data, column_of(qkv, HEADS * dim),
                           column_of(qkv, (HEADS + KV_HEADS) * dim), &used->shape, sequences,
                           pages);
    }
    on_host_give_shared(SHARED_H100);
    assert_memory_equal(used->out[0].tensor.data, used->out[1].tensor.data,
                        tensor_bytes(&used->out[0].tensor));
    size_t bytes = (size_t)(qkv->shape[0] * HEADS) * sizeof(float);
    assert_memory_equal(used->lse[0], used->lse[1], bytes);
}

/* More than one split of 256 positions, a tile that is not full, and a single row. */
static void test_packed_rows_have_the_bits_of_a_larger_device(void **state)
{
    (void)state;
    const int32_t starts[] = {0, 300, 365, 366};
    const SequenceTable packed = {3, starts, NULL, starts, NULL};
    const struct {
        DType dtype;
        int dim;
    } kinds[] = {{DTYPE_BF16, 64}, {DTYPE_BF16, 128}, {DTYPE_BF16, 256}, {DTYPE_F32, 256}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        Case one = case_of(kinds[i].dtype, kinds[i].dim, 366);
        check(&one, &packed, NULL, true);
        case_free(&one);
    }
}

/* Pages of two sequences, 600 and 70 positions long. */
static KvPages fill_pages(const Case *from, int32_t *page, int32_t *first_page)
{
    const int32_t starts[] = {0, 600, 670}, zeros[] = {0, 0};
    const SequenceTable whole = {2, starts, zeros, starts, zeros};
    int dim = from->shape.head_dim;
    Buffer qkv = buffer_random(from->qkv.tensor.dtype, 670, 8 * dim, 2, 2);
    const int64_t bytes = kernels->kv_page_bytes(qkv.tensor.dtype, KV_HEADS, dim);
    for (int i = 0; i < PAGES; i++)
        page[i] = (i * 5 + 3) % PAGES;
    first_page[0] = 0;
    first_page[1] = 10;
    KvPages pages = {.memory = kernels->alloc((size_t)(PAGES * bytes)),
                     .page_bytes = bytes,
                     .page = page,
                     .first_page = first_page};
    kernels->kv_store(&pages, qkv.tensor.dtype, column_of(&qkv.tensor, HEADS * dim),
                      column_of(&qkv.tensor, (HEADS + KV_HEADS) * dim), &from->shape, &whole);
    buffer_free(&qkv);
    return pages;
}

static void test_steps_of_decoding_have_the_bits_of_a_larger_device(void **state)
{
    (void)state;
    const int32_t starts[] = {0, 1, 2}, last[] = {599, 69};
    const SequenceTable step = {2, starts, last, starts, last};
    int32_t page[PAGES], first_page[2];
    Case one = case_of(DTYPE_BF16, 128, 2);
    KvPages pages = fill_pages(&one, page, first_page);
    check(&one, &step, &pages, false); /* one block all positions */
    int64_t bytes = kernels->kv_parts_bytes(&one.shape, 2, 600);
    pages.parts = (KvParts){kernels->alloc((size_t)bytes), 2, 600};
    check(&one, &step, &pages, false); /* several */
    kernels->free(pages.parts.memory);
    kernels->free(pages.memory);
    case_free(&one);
}

static void test_gradients_run_where_a_block_has_little(void **state)
{
    (void)state;
    const int32_t starts[] = {0, 70};
    const SequenceTable one = {1, starts, NULL, starts, NULL};
    const int dims[] = {128, 256};
    for (size_t i = 0; i < 2; i++) {
        int dim = dims[i];
        Case made = case_of(DTYPE_BF16, dim, 70);
        Buffer dqkv = buffer_result(DTYPE_BF16, 70, 8 * dim);
        const Tensor *qkv = &made.qkv.tensor;
        const char *k = column_of(qkv, HEADS * dim), *v = column_of(qkv, (HEADS + KV_HEADS) * dim);
        check(&made, &one, NULL, true);
        on_host_give_shared(SHARED_RTX);
        kernels->attention_backward(dqkv.tensor.data, (void *)column_of(&dqkv.tensor, HEADS * dim),
                                    (void *)column_of(&dqkv.tensor, (HEADS + KV_HEADS) * dim),
                                    DTYPE_BF16, made.out[0].tensor.data, qkv->data, k, v,
                                    made.out[0].tensor.data, made.lse[0], &made.shape, &one);
        on_host_give_shared(SHARED_H100);
        for (int64_t at = 0; at < 70 * 8 * dim; at++)
            assert_true(bf16_to_f32(((uint16_t *)dqkv.tensor.data)[at]) ==
                        bf16_to_f32(((uint16_t *)dqkv.tensor.data)[at])); /* written */
        buffer_free(&dqkv);
        case_free(&made);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packed_rows_have_the_bits_of_a_larger_device),
        cmocka_unit_test(test_steps_of_decoding_have_the_bits_of_a_larger_device),
        cmocka_unit_test(test_gradients_run_where_a_block_has_little),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
