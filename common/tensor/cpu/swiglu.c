/* SwiGLU (Shazeer 2020): y = silu(gate) up, silu(g) = g s with s = 1 / (1 + exp(-g)). Backward:
 *   dup = dy silu(gate),   dgate = dy up s (1 + g (1 - s)).
 * As in Hugging Face's modules silu(gate) is rounded to the activations' type before the product.
 */
#include "tensor/cpu/ops.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/vector.h"

typedef struct SwigluRun {
    Tensor y, gate_up; /* backward: y is dy */
    Tensor dgate_up;
} SwigluRun;

ALWAYS_INLINE Lanes sigmoid(Lanes x)
{
    const Lanes one = lanes_set(1.0f);
    return lanes_div(one, lanes_add(one, lanes_exp(lanes_sub(lanes_set(0), x))));
}

ALWAYS_INLINE void swiglu_rows(const SwigluRun *run, int64_t first, int64_t last, DType dtype)
{
    const int64_t n = run->y.shape[1], size = dtype == DTYPE_F32 ? 4 : 2;
    for (int64_t row = first; row < last; row++) {
        const char *gate = (const char *)run->gate_up.data + row * 2 * n * size;
        const char *up = gate + n * size;
        char *y = (char *)run->y.data + row * n * size;
        for (int64_t j = 0; j < n; j += LANES) {
            const Lanes g = lanes_load_row(gate, j, n, dtype);
            const Lanes silu = lanes_round(lanes_mul(g, sigmoid(g)), dtype);
            lanes_store_row(y, j, n, dtype, lanes_mul(silu, lanes_load_row(up, j, n, dtype)));
        }
    }
}

ALWAYS_INLINE void swiglu_backward_rows(const SwigluRun *run, int64_t first, int64_t last,
                                        DType dtype)
{
    const int64_t n = run->y.shape[1], size = dtype == DTYPE_F32 ? 4 : 2;
    const Lanes one = lanes_set(1.0f);
    for (int64_t row = first; row < last; row++) {
        const char *gate = (const char *)run->gate_up.data + row * 2 * n * size;
        const char *up = gate + n * size;
        const char *dy = (const char *)run->y.data + row * n * size;
        char *dgate = (char *)run->dgate_up.data + row * 2 * n * size;
        char *dup = dgate + n * size;
        for (int64_t j = 0; j < n; j += LANES) {
            const Lanes g = lanes_load_row(gate, j, n, dtype);
            const Lanes u = lanes_load_row(up, j, n, dtype);
            const Lanes grad = lanes_load_row(dy, j, n, dtype);
            const Lanes s = sigmoid(g);
            const Lanes slope = lanes_mul(s, lanes_fma(g, lanes_sub(one, s), one));
            const Lanes silu = lanes_round(lanes_mul(g, s), dtype);
            lanes_store_row(dgate, j, n, dtype, lanes_mul(lanes_mul(grad, u), slope));
            lanes_store_row(dup, j, n, dtype, lanes_mul(grad, silu));
        }
    }
}

static void swiglu_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const SwigluRun *run = context;
    if (run->y.dtype == DTYPE_F32)
        swiglu_rows(run, first, last, DTYPE_F32);
    else
        swiglu_rows(run, first, last, DTYPE_BF16);
}

static void swiglu_backward_body(const void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const SwigluRun *run = context;
    if (run->y.dtype == DTYPE_F32)
        swiglu_backward_rows(run, first, last, DTYPE_F32);
    else
        swiglu_backward_rows(run, first, last, DTYPE_BF16);
}

static int64_t swiglu_check(const Tensor *y, const Tensor *gate_up)
{
    CHECK(y->rank == 2 && gate_up->rank == 2 && y->dtype == gate_up->dtype);
    CHECK(y->dtype == DTYPE_F32 || y->dtype == DTYPE_BF16);
    CHECK(y->shape[0] == gate_up->shape[0] && 2 * y->shape[1] == gate_up->shape[1]);
    return 1 + 8192 / (y->shape[1] + 1); /* rows worth a thread */
}

void cpu_swiglu(Tensor y, Tensor gate_up)
{
    const int64_t grain = swiglu_check(&y, &gate_up);
    const SwigluRun run = {.y = y, .gate_up = gate_up};
    parallel_range(y.shape[0], grain, swiglu_body, &run);
}

void cpu_swiglu_backward(Tensor dgate_up, Tensor dy, Tensor gate_up)
{
    const int64_t grain = swiglu_check(&dy, &gate_up);
    CHECK(tensor_same_shape(&dgate_up, &gate_up) && dgate_up.dtype == gate_up.dtype);
    const SwigluRun run = {.y = dy, .gate_up = gate_up, .dgate_up = dgate_up};
    parallel_range(dy.shape[0], grain, swiglu_backward_body, &run);
}
