#include "model/activations.h"

#include <stdlib.h>

#include "base/memory.h"

const char *keep_policy_name(KeepPolicy policy)
{
    static const char *const NAMES[KEEP_POLICY_COUNT] = {
        [KEEP_ALL] = "all kept",
        [KEEP_MATRICES] = "norms and SwiGLU recomputed",
        [KEEP_RESIDUAL] = "layers recomputed from the residual stream",
        [KEEP_NOTHING] = "forward only",
    };
    return NAMES[policy];
}

/* Hands out pieces of one allocation; with no memory behind it, it only counts. */
typedef struct Carver {
    char *memory;
    size_t used;
    DType dtype;
    int64_t rows;
} Carver;

static void *carve_bytes(Carver *carver, size_t bytes)
{
    void *piece = carver->memory != NULL ? carver->memory + carver->used : NULL;
    carver->used += (bytes + 63) / 64 * 64;
    return piece;
}

static Tensor carve(Carver *carver, int64_t columns)
{
    size_t bytes = (size_t)(carver->rows * columns) * dtype_size(carver->dtype);
    return tensor_2d(carve_bytes(carver, bytes), carver->dtype, carver->rows, columns);
}

static float *carve_floats(Carver *carver, int64_t count)
{
    return carve_bytes(carver, (size_t)count * sizeof(float));
}

typedef struct Widths {
    int64_t hidden, heads, qk, qkv, intermediate;
} Widths;

static Widths plan_widths(const WeightPlan *plan)
{
    const ModelConfig *config = &plan->config;
    int64_t heads = (int64_t)plan->num_heads * config->head_dim;
    int64_t kv = (int64_t)plan->num_kv_heads * config->head_dim;
    int64_t intermediate = config->intermediate_size / plan->tp_size;
    return (Widths){config->hidden_size, heads, heads + kv, heads + 2 * kv, intermediate};
}

static void carve_residual(Carver *carver, const Widths *w, LayerActivations *layer)
{
    layer->x = carve(carver, w->hidden);
    layer->x_mid = carve(carver, w->hidden);
}

static void carve_statistics(Carver *carver, int num_heads, LayerActivations *layer)
{
    layer->rstd1 = carve_floats(carver, carver->rows);
    layer->rstd2 = carve_floats(carver, carver->rows);
    layer->lse = carve_floats(carver, carver->rows * num_heads);
}

static void carve_matrices(Carver *carver, const Widths *w, bool with_raw, LayerActivations *layer)
{
    layer->qkv = carve(carver, w->qkv);
    layer->raw_qk = with_raw ? carve(carver, w->qk) : tensor_2d(NULL, carver->dtype, 0, w->qk);
    layer->attention = carve(carver, w->heads);
    layer->gate_up = carve(carver, 2 * w->intermediate);
}

static void carve_elementwise(Carver *carver, const Widths *w, LayerActivations *layer)
{
    layer->norm1 = carve(carver, w->hidden);
    layer->norm2 = carve(carver, w->hidden);
    layer->swiglu = carve(carver, w->intermediate);
}

/* Lays everything out; `layers` has room for all layers. */
static void carve_all(Carver *carver, Activations *a)
{
    const WeightPlan *plan = a->plan;
    Widths w = plan_widths(plan);
    KeepPolicy policy = a->policy;
    bool backward = policy != KEEP_NOTHING;
    LayerActivations shared = {0};
    if (policy == KEEP_NOTHING) {
        shared.x = shared.x_mid = carve(carver, w.hidden);
    } else if (policy == KEEP_RESIDUAL) {
        carve_statistics(carver, plan->num_heads, &shared);
    }
    if (policy >= KEEP_RESIDUAL) carve_matrices(carver, &w, backward, &shared);
    if (policy >= KEEP_MATRICES) carve_elementwise(carver, &w, &shared);
    for (int l = 0; l < plan->config.num_hidden_layers; l++) {
        LayerActivations *layer = &a->layer[l];
        *layer = shared;
        if (policy <= KEEP_RESIDUAL) carve_residual(carver, &w, layer);
        if (policy <= KEEP_MATRICES) carve_statistics(carver, plan->num_heads, layer);
        if (policy <= KEEP_MATRICES) carve_matrices(carver, &w, backward, layer);
        if (policy == KEEP_ALL) carve_elementwise(carver, &w, layer);
    }
    a->output = backward ? carve(carver, w.hidden) : shared.x;
    a->partial = carve(carver, w.hidden);
    if (!backward) return;
    int64_t wide = w.qkv > 2 * w.intermediate ? w.qkv : 2 * w.intermediate;
    int64_t narrow = w.heads > w.intermediate ? w.heads : w.intermediate;
    a->dx = carve(carver, w.hidden);
    a->dnorm = a->partial; /* never live together */
    a->dwide = carve(carver, wide);
    a->dnarrow = carve(carver, narrow);
}

/* A layout without memory behind it. */
static Activations lay_out(const WeightPlan *plan, DType dtype, KeepPolicy policy, int64_t max_rows,
                           size_t *ret_bytes)
{
    Activations a = {.plan = plan, .dtype = dtype, .policy = policy, .max_rows = max_rows};
    Carver carver = {.dtype = dtype, .rows = max_rows};
    a.layer = mem_calloc((size_t)plan->config.num_hidden_layers, sizeof *a.layer);
    carve_all(&carver, &a);
    *ret_bytes = carver.used;
    return a;
}

int64_t activations_bytes(const WeightPlan *plan, DType dtype, KeepPolicy policy, int64_t max_rows)
{
    size_t bytes = 0;
    Activations a = lay_out(plan, dtype, policy, max_rows, &bytes);
    free(a.layer);
    return (int64_t)bytes;
}

Activations *activations_create(const WeightPlan *plan, DType dtype, KeepPolicy policy,
                                int64_t max_rows, const KernelTable *kernels)
{
    size_t bytes = 0;
    Activations *a = mem_calloc(1, sizeof *a);
    *a = lay_out(plan, dtype, policy, max_rows, &bytes);
    a->kernels = kernels;
    a->memory = kernels->alloc(bytes);
    Carver carver = {.memory = a->memory, .dtype = dtype, .rows = max_rows};
    carve_all(&carver, a);
    a->rows = max_rows;
    return a;
}

void activations_destroy(Activations *activations)
{
    if (activations == NULL) return;
    activations->kernels->free(activations->memory);
    free(activations->layer);
    free(activations);
}

void activations_set_rows(Activations *a, int64_t rows)
{
    CHECKF(rows >= 1 && rows <= a->max_rows, "%lld rows, planned for at most %lld", (long long)rows,
           (long long)a->max_rows);
    a->rows = rows;
    for (int l = 0; l < a->plan->config.num_hidden_layers; l++) {
        LayerActivations *layer = &a->layer[l];
        Tensor *const views[] = {&layer->x,     &layer->norm1, &layer->qkv,     &layer->attention,
                                 &layer->x_mid, &layer->norm2, &layer->gate_up, &layer->swiglu};
        for (size_t i = 0; i < sizeof views / sizeof *views; i++)
            views[i]->shape[0] = rows;
        if (layer->raw_qk.data != NULL) layer->raw_qk.shape[0] = rows;
    }
    Tensor *const views[] = {&a->output, &a->partial, &a->dx, &a->dnorm, &a->dwide, &a->dnarrow};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++)
        views[i]->shape[0] = rows;
}

Tensor activations_as(Tensor buffer, int64_t columns)
{
    CHECK(columns <= buffer.shape[1]);
    return tensor_2d(buffer.data, buffer.dtype, buffer.shape[0], columns);
}
