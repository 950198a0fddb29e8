/* Element-wise loops without a row structure: add, cast, zero, exp, AdamW. */
#include <math.h>
#include <string.h>

#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/vector.h"

#define ELEMENTS_PER_THREAD 32768

typedef struct BinaryRun {
    void *y;
    const void *a, *b;
    DType dtype, from; /* of y, a and b; cast: of y, and of a */
} BinaryRun;

ALWAYS_INLINE void add_elements(const BinaryRun *run, int64_t first, int64_t last, DType dtype)
{
    for (int64_t i = first; i < last; i += LANES)
        lanes_store_row(run->y, i, last, dtype,
                        lanes_add(lanes_load_row(run->a, i, last, dtype),
                                  lanes_load_row(run->b, i, last, dtype)));
}

static void add_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const BinaryRun *run = context;
    if (run->dtype == DTYPE_F32)
        add_elements(run, first, last, DTYPE_F32);
    else
        add_elements(run, first, last, DTYPE_BF16);
}

void cpu_add(Tensor y, Tensor a, Tensor b)
{
    CHECK(tensor_same_shape(&y, &a) && tensor_same_shape(&y, &b));
    CHECK(y.dtype == a.dtype && y.dtype == b.dtype);
    CHECK(y.dtype == DTYPE_F32 || y.dtype == DTYPE_BF16);
    const BinaryRun run = {.y = y.data, .a = a.data, .b = b.data, .dtype = y.dtype};
    parallel_range(tensor_count(&y), ELEMENTS_PER_THREAD, add_body, &run);
}

static void cast_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const BinaryRun *run = context;
    if (run->dtype == run->from) {
        const size_t size = dtype_size(run->dtype);
        memcpy((char *)run->y + (size_t)first * size, (const char *)run->a + (size_t)first * size,
               (size_t)(last - first) * size);
    } else if (run->dtype == DTYPE_F32) {
        for (int64_t i = first; i < last; i += LANES)
            lanes_store_row(run->y, i, last, DTYPE_F32,
                            lanes_load_row(run->a, i, last, DTYPE_BF16));
    } else {
        for (int64_t i = first; i < last; i += LANES)
            lanes_store_row(run->y, i, last, DTYPE_BF16,
                            lanes_load_row(run->a, i, last, DTYPE_F32));
    }
}

void cpu_cast(Tensor y, Tensor x)
{
    CHECK(tensor_count(&y) == tensor_count(&x));
    CHECK(y.dtype == x.dtype || ((y.dtype == DTYPE_F32 || y.dtype == DTYPE_BF16) &&
                                 (x.dtype == DTYPE_F32 || x.dtype == DTYPE_BF16)));
    const BinaryRun run = {.y = y.data, .a = x.data, .dtype = y.dtype, .from = x.dtype};
    parallel_range(tensor_count(&y), ELEMENTS_PER_THREAD, cast_body, &run);
}

static void zero_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    memset((char *)((const BinaryRun *)context)->y + first, 0, (size_t)(last - first));
}

void cpu_fill_zero(Tensor y)
{
    const BinaryRun run = {.y = y.data};
    parallel_range((int64_t)tensor_bytes(&y), 4 * ELEMENTS_PER_THREAD, zero_body, &run);
}

void cpu_vector_exp(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        lanes_store_row(y, i, n, DTYPE_F32, lanes_exp(lanes_load_row(x, i, n, DTYPE_F32)));
}

/* ---- AdamW ---- */

typedef struct AdamWRun {
    float *master, *exp_avg, *exp_avg_sq;
    const float *grad;
    void *weight;
    DType weight_dtype;
    AdamWParams params;
} AdamWRun;

/* Loshchilov & Hutter 2019, algorithm 2, step by step as torch.optim.AdamW rounds it. */
ALWAYS_INLINE void adamw_elements(const AdamWRun *run, int64_t first, int64_t last, DType dtype)
{
    const AdamWParams *p = &run->params;
    const Lanes decay = lanes_set((float)(1.0 - p->lr * p->weight_decay));
    const Lanes scale = lanes_set((float)p->grad_scale), beta2 = lanes_set((float)p->beta2);
    const Lanes keep1 = lanes_set((float)(1.0 - p->beta1));
    const Lanes keep2 = lanes_set((float)(1.0 - p->beta2));
    const Lanes step = lanes_set((float)(p->lr / p->bias_correction1));
    const Lanes root = lanes_set((float)sqrt(p->bias_correction2));
    const Lanes eps = lanes_set((float)p->eps);
    for (int64_t i = first; i < last; i += LANES) {
        const Lanes g = lanes_mul(lanes_load_row(run->grad, i, last, DTYPE_F32), scale);
        Lanes m = lanes_load_row(run->exp_avg, i, last, DTYPE_F32);
        Lanes v = lanes_load_row(run->exp_avg_sq, i, last, DTYPE_F32);
        Lanes w = lanes_mul(lanes_load_row(run->master, i, last, DTYPE_F32), decay);
        m = lanes_add(m, lanes_mul(keep1, lanes_sub(g, m)));
        v = lanes_add(lanes_mul(v, beta2), lanes_mul(lanes_mul(keep2, g), g));
        const Lanes denominator = lanes_add(lanes_div(lanes_sqrt(v), root), eps);
        w = lanes_sub(w, lanes_mul(step, lanes_div(m, denominator)));
        lanes_store_row(run->exp_avg, i, last, DTYPE_F32, m);
        lanes_store_row(run->exp_avg_sq, i, last, DTYPE_F32, v);
        lanes_store_row(run->master, i, last, DTYPE_F32, w);
        if (run->weight != run->master) lanes_store_row(run->weight, i, last, dtype, w);
    }
}

static void adamw_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const AdamWRun *run = context;
    if (run->weight_dtype == DTYPE_F32)
        adamw_elements(run, first, last, DTYPE_F32);
    else
        adamw_elements(run, first, last, DTYPE_BF16);
}

void cpu_adamw(float *master, float *exp_avg, float *exp_avg_sq, const float *grad, void *weight,
               DType weight_dtype, int64_t n, const AdamWParams *params)
{
    CHECK(weight_dtype == DTYPE_F32 || weight_dtype == DTYPE_BF16);
    CHECK(weight != master || weight_dtype == DTYPE_F32);
    const AdamWRun run = {master, exp_avg, exp_avg_sq, grad, weight, weight_dtype, *params};
    parallel_range(n, ELEMENTS_PER_THREAD / 4, adamw_body, &run);
}
