/* The products of the CUDA backend by a library (cuda/gemm_lt.cu), over one whose heuristics like
 * what must not be taken (cublaslt/fake.cc): the right numbers by the right algorithm. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "cublaslt/fake.h"
#include "tensor/buffer.h"
#include "tensor/cuda/gemm_choice.h"
#include "tensor/reference.h"
#include "test.h"

bool open_fake_library(char *text, size_t size); /* products_on_host.cc */
void on_host_record(bool record);                /* device_on_host.cc */
const char *on_host_spoiled(void);

static const KernelTable *kernels;
static int *calls; /* [FAKE_COUNT] */

static int setup(void **state)
{
    (void)state;
    char text[512];
    if (!open_fake_library(text, sizeof text)) fail_msg("%s", text);
    void *library = dlopen("libcublasLt.so.0", RTLD_NOW);
    assert_non_null(library);
    calls = dlsym(library, FAKE_LT_CALLS);
    assert_non_null(calls);
    kernels = cuda_table();
    return 0;
}

/* The one algorithm that has multiplied since `before` was cleared; FAKE_COUNT: none. */
static FakeAlgo algo_of(void)
{
    FakeAlgo used = FAKE_COUNT;
    for (int algo = 0; algo < FAKE_COUNT; algo++)
        if (calls[algo] > 0) {
            assert_int_equal(used, FAKE_COUNT);
            used = (FakeAlgo)algo;
        }
    memset(calls, 0, FAKE_COUNT * sizeof *calls);
    return used;
}

typedef struct Products {
    Buffer x, w, dy, y, dx, dw;
} Products;

static Products make_products(DType dtype, DType result, int m, int n, int k)
{
    Products p = {buffer_random(dtype, m, k, 1, 1), buffer_random(dtype, n, k, 2, 1),
                  buffer_random(dtype, m, n, 3, 1), buffer_result(result, m, n),
                  buffer_result(result, m, k),      buffer_random(DTYPE_F32, n, k, 4, 1)};
    const Weight weight = {.plain = p.w.tensor};
    kernels->matmul(p.y.tensor, p.x.tensor, &weight);
    kernels->matmul_dgrad(p.dx.tensor, p.dy.tensor, &weight);
    kernels->matmul_wgrad_accumulate(p.dw.tensor, p.dy.tensor, p.x.tensor);
    return p;
}

static void products_free(Products *p)
{
    Buffer *all[] = {&p->x, &p->w, &p->dy, &p->y, &p->dx, &p->dw};
    for (size_t i = 0; i < 6; i++)
        buffer_free(all[i]);
}

static void check_products(DType dtype, DType result, int m, int n, int k)
{
    Products p = make_products(dtype, result, m, n, k);
    double *sum = mem_calloc((size_t)(n * k), sizeof *sum);
    reference_matmul(p.y.exact, p.x.exact, p.w.exact, m, n, k, 0, 1);
    reference_matmul(p.dx.exact, p.dy.exact, p.w.exact, m, k, n, 0, 0);
    reference_matmul(sum, p.dy.exact, p.x.exact, n, k, m, 1, 0);
    for (int i = 0; i < n * k; i++)
        p.dw.exact[i] += sum[i];
    assert_buffer_close(&p.y, tolerance_of(result, 1e-5), "matmul");
    assert_buffer_close(&p.dx, tolerance_of(result, 1e-5), "dgrad");
    assert_buffer_close(&p.dw, 1e-5, "wgrad");
    free(sum);
    products_free(&p);
}

/* The last shapes have a product that the library has nothing for. */
static void test_products_by_the_library_equal_reference(void **state)
{
    (void)state;
    const int shapes[][3] = {{17, 33, 65}, {64, 96, 48}, {300, 40, 24}, {5, 7, 3}, {2, 3, 9}};
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++)
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            check_products(dtype, dtype, shapes[i][0], shapes[i][1], shapes[i][2]);
            check_products(dtype, DTYPE_F32, shapes[i][0], shapes[i][1], shapes[i][2]);
        }
}

static void multiply(DType dtype, int rows, int n, int k)
{
    Buffer x = buffer_random(dtype, rows, k, 1, 1), w = buffer_random(dtype, n, k, 2, 1);
    Buffer y = buffer_result(dtype, rows, n);
    const Weight weight = {.plain = w.tensor};
    kernels->matmul(y.tensor, x.tensor, &weight);
    Buffer *all[] = {&x, &w, &y};
    for (size_t i = 0; i < 3; i++)
        buffer_free(all[i]);
}

/* Of a shape that has been met: `rows` rows. */
static FakeAlgo algo_for(DType dtype, int rows)
{
    multiply(dtype, rows, 80, 96);
    return algo_of();
}

static void test_few_rows_take_a_faster_algorithm_only_of_equal_bits(void **state)
{
    (void)state;
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Products p = make_products(dtype, dtype, 1, 80, 96);
        products_free(&p);
        if (calls[FAKE_BACKWARD] < 3) fail_msg("the algorithm of other bits was not even tried");
        memset(calls, 0, FAKE_COUNT * sizeof *calls);
        const int few[] = {1, 2, 16, 17, 64, 65, 256};
        for (size_t i = 0; i < sizeof few / sizeof few[0]; i++)
            assert_int_equal(algo_for(dtype, few[i]), FAKE_FEW);
        assert_int_equal(algo_for(dtype, 257), FAKE_FORWARD);
        assert_int_equal(algo_for(dtype, 1000), FAKE_FORWARD);
        gemm_choose(GEMM_LIBRARY_FIXED);
        assert_int_equal(algo_for(dtype, 1), FAKE_FORWARD);
        gemm_choose(GEMM_TILE);
        assert_int_equal(algo_for(dtype, 1), FAKE_COUNT);
        gemm_choose(GEMM_LIBRARY_FREE);
        assert_int_equal(algo_for(dtype, 1), FAKE_SPLIT);
        assert_int_equal(algo_for(dtype, 257), FAKE_SPLIT);
        gemm_choose(GEMM_LIBRARY);
    }
}

/* A trainer has no few rows. */
static void test_algorithms_are_tried_when_few_rows_are_met(void **state)
{
    (void)state;
    const int64_t rows[] = {1000, 300, 257};
    memset(calls, 0, FAKE_COUNT * sizeof *calls);
    for (size_t i = 0; i < 3; i++)
        multiply(DTYPE_BF16, (int)rows[i], 88, 104);
    assert_int_equal(calls[FAKE_FORWARD], 3);
    assert_int_equal(algo_of(), FAKE_FORWARD);
    multiply(DTYPE_BF16, 200, 88, 104);
    if (calls[FAKE_BACKWARD] < 3) fail_msg("no algorithm was tried");
    memset(calls, 0, FAKE_COUNT * sizeof *calls);
    multiply(DTYPE_BF16, 200, 88, 104);
    assert_int_equal(calls[FAKE_FEW], 1);
    assert_int_equal(algo_of(), FAKE_FEW);
}

static void test_products_that_cannot_be_recorded_spoil_it_and_stop_nobody(void **state)
{
    (void)state;
    memset(calls, 0, FAKE_COUNT * sizeof *calls);
    on_host_record(true);
    multiply(DTYPE_BF16, 5, 72, 112);
    assert_non_null(strstr(on_host_spoiled(), "a shape that was not met before"));
    assert_int_equal(algo_of(), FAKE_COUNT); /* nothing was tried */
    on_host_record(false);
    multiply(DTYPE_BF16, 1000, 72, 112);
    on_host_record(true);
    multiply(DTYPE_BF16, 5, 72, 112);
    assert_null(on_host_spoiled());
    memset(calls, 0, FAKE_COUNT * sizeof *calls);
    on_host_record(false);
    multiply(DTYPE_BF16, 5, 72, 112);
    if (calls[FAKE_BACKWARD] < 3) fail_msg("recorded rows were taken for tried ones");
    memset(calls, 0, FAKE_COUNT * sizeof *calls);
}

/* What the process says on stderr in `run`. */
static char *said_by(void (*run)(void))
{
    static char text[4096];
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);
    assert_non_null(file);
    fflush(stderr);
    dup2(fileno(file), STDERR_FILENO);
    run();
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static void multiply_what_the_library_has_not(void)
{
    for (int rows = 1; rows <= 300; rows += 100)
        multiply(DTYPE_BF16, rows, 50, 3);
}

static void go_back_where_the_library_refuses(void)
{
    Products p = make_products(DTYPE_BF16, DTYPE_BF16, 40, FAKE_REFUSED, 8);
    products_free(&p);
    p = make_products(DTYPE_BF16, DTYPE_BF16, 40, FAKE_REFUSED, 8);
    products_free(&p);
}

static void test_a_product_by_our_own_kernel_is_told_once_with_its_shape(void **state)
{
    (void)state;
    const char *text = said_by(multiply_what_the_library_has_not);
    assert_string_equal(text,
                        "the host: cuBLASLt has no algorithm for c[1, 50] = a[1, 3] b[50, 3]^T "
                        "in bf16 whose rows do not depend on their number: a kernel of ours "
                        "computes it, to the same precision and more slowly\n");
    text = said_by(go_back_where_the_library_refuses);
    const char *found = strstr(text, "cuBLASLt CUBLAS_STATUS for c[40, 8] = a[40, 77] b[8, 77]^T");
    assert_non_null(found);
    assert_null(strstr(found + strlen("cuBLASLt CUBLAS_STATUS for c[40, 8] = a"), "a[40, 77]"));
    assert_string_equal(said_by(multiply_what_the_library_has_not), "");
    memset(calls, 0, FAKE_COUNT * sizeof *calls);
}

/* No forward pass has dgrad: its sum may be split, alike for every equal number of rows. */
static void test_the_way_back_may_be_split(void **state)
{
    (void)state;
    const int rows[] = {1, 129, 200, 256, 257};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        Buffer dy = buffer_random(DTYPE_BF16, rows[i], 96, 1, 1);
        Buffer w = buffer_random(DTYPE_BF16, 96, 56, 2, 1);
        Buffer dx = buffer_result(DTYPE_BF16, rows[i], 56);
        const Weight weight = {.plain = w.tensor};
        Buffer again = buffer_result(DTYPE_BF16, rows[i], 56);
        reference_matmul(dx.exact, dy.exact, w.exact, rows[i], 56, 96, 0, 0);
        kernels->matmul_dgrad(dx.tensor, dy.tensor, &weight);
        kernels->matmul_dgrad(again.tensor, dy.tensor, &weight);
        assert_int_equal(algo_of(), FAKE_SPLIT);
        assert_buffer_close(&dx, tolerance_of(DTYPE_BF16, 1e-5), "dgrad");
        assert_memory_equal(dx.tensor.data, again.tensor.data, tensor_bytes(&dx.tensor));
        Buffer *all[] = {&dy, &w, &dx, &again};
        for (size_t k = 0; k < 4; k++)
            buffer_free(all[k]);
    }
}

static void test_sums_over_tokens_may_be_split(void **state)
{
    (void)state;
    Buffer x = buffer_random(DTYPE_BF16, 300, 24, 1, 1),
           dy = buffer_random(DTYPE_BF16, 300, 40, 2, 1);
    Buffer dw = buffer_random(DTYPE_F32, 40, 24, 3, 1);
    kernels->matmul_wgrad_accumulate(dw.tensor, dy.tensor, x.tensor);
    assert_int_equal(algo_of(), FAKE_SPLIT);
    Buffer *all[] = {&x, &dy, &dw};
    for (size_t i = 0; i < 3; i++)
        buffer_free(all[i]);
}

/* A model's weights stand one after the other, whatever their sizes. */
static void test_a_weight_may_begin_at_any_element(void **state)
{
    (void)state;
    enum { M = 5, N = 16, K = 32 };
    Buffer x = buffer_random(DTYPE_BF16, M, K, 1, 1),
           flat = buffer_random(DTYPE_BF16, N + 1, K, 2, 1);
    Buffer y = buffer_result(DTYPE_F32, M, N);
    const Weight weight = {.plain = tensor_2d((uint16_t *)flat.tensor.data + 3, DTYPE_BF16, N, K)};
    reference_matmul(y.exact, x.exact, flat.exact + 3, M, N, K, 0, 1);
    kernels->matmul(y.tensor, x.tensor, &weight);
    assert_buffer_close(&y, 1e-5, "matmul with a weight in the middle of others");
    buffer_free(&x);
    buffer_free(&flat);
    buffer_free(&y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_by_the_library_equal_reference),
        cmocka_unit_test(test_few_rows_take_a_faster_algorithm_only_of_equal_bits),
        cmocka_unit_test(test_algorithms_are_tried_when_few_rows_are_met),
        cmocka_unit_test(test_products_that_cannot_be_recorded_spoil_it_and_stop_nobody),
        cmocka_unit_test(test_a_product_by_our_own_kernel_is_told_once_with_its_shape),
        cmocka_unit_test(test_the_way_back_may_be_split),
        cmocka_unit_test(test_sums_over_tokens_may_be_split),
        cmocka_unit_test(test_a_weight_may_begin_at_any_element),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
