/* The float64 backward passes that the kernels are compared with, against central differences of
 * the float64 forward passes: loss = sum of y * dy. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "tensor/buffer.h"
#include "tensor/reference.h"
#include "test.h"

enum { ROWS = 9, DIM = 6, HEADS = 4, KV_HEADS = 2, WIDTH = (HEADS + 2 * KV_HEADS) * DIM };

/* One operation under test: its inputs, its output and the weights of the output in the loss. */
typedef struct Case {
    double *x[3], *gradient[3];
    int64_t count[3];
    double *y, *dy;
    int64_t outputs;
    void (*forward)(const struct Case *c); /* y from x */
    const void *shape;
} Case;

static double loss_of(const void *context)
{
    const Case *c = context;
    c->forward(c);
    double loss = 0;
    for (int64_t i = 0; i < c->outputs; i++)
        loss += c->y[i] * c->dy[i];
    return loss;
}

static double *numbers(int64_t count, uint64_t key, double spread)
{
    Buffer buffer = buffer_random(DTYPE_F32, 1, count, key, spread);
    free(buffer.tensor.data);
    return buffer.exact;
}

static Case case_create(const int64_t count[3], int64_t outputs)
{
    Case c = {.outputs = outputs};
    for (int i = 0; i < 3; i++) {
        c.count[i] = count[i];
        c.x[i] = numbers(count[i], 10 + (uint64_t)i, 1.5);
        c.gradient[i] = mem_calloc((size_t)count[i] + 1, sizeof(double));
    }
    c.y = mem_calloc((size_t)outputs, sizeof(double));
    c.dy = numbers(outputs, 20, 1);
    return c;
}

static void check_and_free(Case *c, const char *what)
{
    for (int i = 0; i < 3; i++)
        assert_gradient_of(loss_of, c, c->x[i], c->gradient[i], c->count[i], what);
    for (int i = 0; i < 3; i++) {
        free(c->x[i]);
        free(c->gradient[i]);
    }
    free(c->y);
    free(c->dy);
}

static void rmsnorm_forward(const Case *c)
{
    reference_rmsnorm(c->y, NULL, c->x[0], c->x[1], ROWS, DIM, 1e-3);
}

static void test_rmsnorm_gradient_is_the_slope(void **state)
{
    (void)state;
    Case c = case_create((const int64_t[]){ROWS * DIM, DIM, 0}, ROWS * DIM);
    c.forward = rmsnorm_forward;
    reference_rmsnorm_backward(c.gradient[0], c.gradient[1], c.dy, c.x[0], c.x[1], ROWS, DIM, 1e-3);
    check_and_free(&c, "rmsnorm");
}

static void rope_forward(const Case *c)
{
    ReferenceHeads heads = *(const ReferenceHeads *)c->shape;
    heads.q_norm = c->x[1];
    heads.k_norm = c->x[2];
    reference_qk_norm_rope(c->y, c->x[0], &heads);
}

static void test_qk_norm_rope_gradient_is_the_slope(void **state)
{
    (void)state;
    float cos_sin[ROWS * DIM];
    int32_t position[ROWS];
    for (int i = 0; i < ROWS; i++) {
        position[i] = ROWS - 1 - i;
        for (int j = 0; j < DIM / 2; j++) {
            cos_sin[i * DIM + j] = cosf((float)(i + j));
            cos_sin[i * DIM + DIM / 2 + j] = sinf((float)(i + j));
        }
    }
    Case c = case_create((const int64_t[]){ROWS * WIDTH, DIM, DIM}, ROWS * WIDTH);
    const ReferenceHeads heads = {ROWS,   HEADS, KV_HEADS, DIM,     c.x[1],
                                  c.x[2], 1e-3,  cos_sin,  position};
    c.forward = rope_forward;
    c.shape = &heads;
    reference_qk_norm_rope_backward(c.gradient[0], c.gradient[1], c.gradient[2], c.dy, c.x[0],
                                    &heads);
    check_and_free(&c, "qk_norm_rope");
}

static void swiglu_forward(const Case *c)
{
    reference_swiglu(c->y, c->x[0], ROWS, DIM);
}

static void test_swiglu_gradient_is_the_slope(void **state)
{
    (void)state;
    Case c = case_create((const int64_t[]){ROWS * 2 * DIM, 0, 0}, ROWS * DIM);
    c.forward = swiglu_forward;
    reference_swiglu_backward(c.gradient[0], c.dy, c.x[0], ROWS, DIM);
    check_and_free(&c, "swiglu");
}

static void attention_forward(const Case *c)
{
    reference_attention(c->y, NULL, c->x[0], c->x[1], c->x[2], c->shape);
}

static void test_attention_gradient_is_the_slope(void **state)
{
    (void)state;
    const int32_t cu_seqlens[] = {0, 2, 2, ROWS};
    const ReferenceAttention shape = {HEADS, KV_HEADS, DIM, 3, cu_seqlens, 0.4};
    Case c = case_create(
        (const int64_t[]){ROWS * HEADS * DIM, ROWS * KV_HEADS * DIM, ROWS * KV_HEADS * DIM},
        ROWS * HEADS * DIM);
    c.forward = attention_forward;
    c.shape = &shape;
    reference_attention_backward(c.gradient[0], c.gradient[1], c.gradient[2], c.dy, c.x[0], c.x[1],
                                 c.x[2], &shape);
    check_and_free(&c, "attention");
}

/* The kernel's own formula against the slope, in float64, of a log-prob and an entropy. */
static double softmax_loss(const void *context)
{
    const double *x = context;
    double sum = 0, entropy = 0;
    for (int j = 0; j < 21; j++)
        sum += exp(x[j]);
    for (int j = 0; j < 21; j++)
        entropy -= exp(x[j]) / sum * (x[j] - log(sum));
    return -0.5 * (x[4] - log(sum)) + 0.75 * entropy;
}

static void test_cross_entropy_gradient_is_the_slope(void **state)
{
    (void)state;
    Buffer logits = buffer_random(DTYPE_F32, 1, 21, 1, 3),
           gradient = buffer_result(DTYPE_F32, 1, 21);
    const KernelTable *kernels = cpu_kernels(1);
    float max, sum, shifted, target_logit, lse, entropy, arg_max;
    const int32_t target = 4;
    const float dlog_prob = -0.5f, dentropy = 0.75f;
    const RowStats stats = {&max, &sum, &shifted, &target_logit, &arg_max};
    kernels->cross_entropy_stats(&stats, logits.tensor, &target, 0);
    lse = max + logf(sum);
    entropy = logf(sum) - shifted / sum;
    const RowSlopes slopes = {&lse, &dlog_prob, &entropy, &dentropy};
    kernels->cross_entropy_backward(gradient.tensor, logits.tensor, &slopes, &target, 0);
    for (int i = 0; i < 21; i++)
        gradient.exact[i] = buffer_at(&gradient, i);
    assert_gradient_of(softmax_loss, logits.exact, logits.exact, gradient.exact, 21,
                       "cross-entropy");
    buffer_free(&logits);
    buffer_free(&gradient);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm_gradient_is_the_slope),
        cmocka_unit_test(test_qk_norm_rope_gradient_is_the_slope),
        cmocka_unit_test(test_swiglu_gradient_is_the_slope),
        cmocka_unit_test(test_attention_gradient_is_the_slope),
        cmocka_unit_test(test_cross_entropy_gradient_is_the_slope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
