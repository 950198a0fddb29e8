#include "model/weight_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* Units [first, first + count) of rank `rank`. Fewer units than ranks: neighbours share one. */
static WeightRange split_units(int64_t units, int size, int rank)
{
    if (units < size) return (WeightRange){rank / (size / units), 1};
    int64_t base = units / size, extra = units % size;
    return (WeightRange){rank * base + (rank < extra ? rank : extra), base + (rank < extra)};
}

WeightRange weight_spec_part(const WeightSpec *spec, int tp_rank, int tp_size)
{
    if (spec->split == SPLIT_NONE) return (WeightRange){0, spec->rows};
    int64_t length = spec->split == SPLIT_ROWS ? spec->rows : spec->cols;
    WeightRange units = split_units(length / spec->unit, tp_size, tp_rank);
    return (WeightRange){units.first * spec->unit, units.count * spec->unit};
}

int64_t weight_spec_segments(const WeightSpec *spec)
{
    return spec->split == SPLIT_COLUMNS ? spec->rows : 1;
}

WeightSegment weight_spec_segment(const WeightSpec *spec, int tp_rank, int tp_size, int64_t i)
{
    WeightRange part = weight_spec_part(spec, tp_rank, tp_size);
    CHECK(i >= 0 && i < weight_spec_segments(spec));
    if (spec->split == SPLIT_COLUMNS)
        return (WeightSegment){i * spec->cols + part.first, i * part.count, part.count};
    return (WeightSegment){part.first * spec->cols, 0, part.count * spec->cols};
}

/* ---- building the table ---- */

/* Appends a spec; its place in the flat buffer is decided later. Returns its index. */
static int add_spec(WeightPlan *plan, WeightSpec spec)
{
    WeightRange part = weight_spec_part(&spec, plan->tp_rank, plan->tp_size);
    spec.local_rows = spec.split == SPLIT_COLUMNS ? spec.rows : part.count;
    spec.local_cols = spec.split == SPLIT_COLUMNS ? part.count : spec.cols;
    /* Of equal copies the lowest rank counts. */
    bool copy_below = false;
    if (plan->tp_rank > 0) {
        WeightRange below = weight_spec_part(&spec, plan->tp_rank - 1, plan->tp_size);
        copy_below = below.first == part.first;
    }
    spec.counted = !copy_below;
    plan->spec[plan->num_specs] = spec;
    return plan->num_specs++;
}

static int add_matrix(WeightPlan *plan, const char *name, int64_t rows, int64_t cols,
                      WeightSplit split, int64_t unit)
{
    WeightSpec spec = {.rank = 2, .rows = rows, .cols = cols, .split = split, .unit = unit};
    snprintf(spec.name, sizeof spec.name, "%s", name);
    return add_spec(plan, spec);
}

static int add_layer_matrix(WeightPlan *plan, int layer, const char *part, int64_t rows,
                            int64_t cols, WeightSplit split, int64_t unit)
{
    char name[WEIGHT_NAME_MAX];
    snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, part);
    return add_matrix(plan, name, rows, cols, split, unit);
}

static int add_layer_vector(WeightPlan *plan, int layer, const char *part, int64_t rows)
{
    WeightSpec spec = {.rank = 1, .rows = rows, .cols = 1, .split = SPLIT_NONE};
    snprintf(spec.name, sizeof spec.name, "model.layers.%d.%s.weight", layer, part);
    return add_spec(plan, spec);
}

static void add_layer_matrices(WeightPlan *plan, int l)
{
    const ModelConfig *config = &plan->config;
    LayerPlan *layer = &plan->layer[l];
    int64_t h = config->hidden_size, d = config->head_dim, f = config->intermediate_size;
    int64_t q = config->num_attention_heads * d, kv = config->num_key_value_heads * d;
    layer->q_proj = add_layer_matrix(plan, l, "self_attn.q_proj", q, h, SPLIT_ROWS, d);
    layer->k_proj = add_layer_matrix(plan, l, "self_attn.k_proj", kv, h, SPLIT_ROWS, d);
    layer->v_proj = add_layer_matrix(plan, l, "self_attn.v_proj", kv, h, SPLIT_ROWS, d);
    layer->o_proj = add_layer_matrix(plan, l, "self_attn.o_proj", h, q, SPLIT_COLUMNS, d);
    layer->gate_proj = add_layer_matrix(plan, l, "mlp.gate_proj", f, h, SPLIT_ROWS, 1);
    layer->up_proj = add_layer_matrix(plan, l, "mlp.up_proj", f, h, SPLIT_ROWS, 1);
    layer->down_proj = add_layer_matrix(plan, l, "mlp.down_proj", h, f, SPLIT_COLUMNS, 1);
}

static void add_matrices(WeightPlan *plan)
{
    const ModelConfig *config = &plan->config;
    int64_t v = config->vocab_size, h = config->hidden_size;
    plan->embed_tokens = add_matrix(plan, "model.embed_tokens.weight", v, h, SPLIT_ROWS, 1);
    for (int l = 0; l < config->num_hidden_layers; l++)
        add_layer_matrices(plan, l);
    plan->lm_head = plan->embed_tokens;
    if (config->value_head)
        plan->lm_head = add_matrix(plan, "score.weight", 1, h, SPLIT_NONE, 1);
    else if (!config->tie_word_embeddings)
        plan->lm_head = add_matrix(plan, "lm_head.weight", v, h, SPLIT_ROWS, 1);
}

static void add_layer_norms(WeightPlan *plan)
{
    const ModelConfig *config = &plan->config;
    int64_t h = config->hidden_size;
    for (int l = 0; l < config->num_hidden_layers; l++) {
        LayerPlan *layer = &plan->layer[l];
        layer->input_layernorm = add_layer_vector(plan, l, "input_layernorm", h);
        layer->post_attention_layernorm = add_layer_vector(plan, l, "post_attention_layernorm", h);
    }
    WeightSpec norm = {.name = "model.norm.weight", .rank = 1, .rows = h, .cols = 1};
    plan->norm = add_spec(plan, norm);
}

static void add_qk_norms(WeightPlan *plan)
{
    const ModelConfig *config = &plan->config;
    for (int l = 0; l < config->num_hidden_layers; l++) {
        LayerPlan *layer = &plan->layer[l];
        layer->q_norm = layer->k_norm = -1;
        if (!config->qk_norm) continue;
        layer->q_norm = add_layer_vector(plan, l, "self_attn.q_norm", config->head_dim);
        layer->k_norm = add_layer_vector(plan, l, "self_attn.k_norm", config->head_dim);
    }
}

/* Whether the spec continues the fused matrix of the one before it: no padding between them. */
static bool continues_fused(const WeightPlan *plan, int index)
{
    const char *name = plan->spec[index].name;
    return strstr(name, ".k_proj.") != NULL || strstr(name, ".v_proj.") != NULL ||
           strstr(name, ".up_proj.") != NULL;
}

static void place_specs(WeightPlan *plan, int first_spec, WeightRange *ret_range)
{
    int64_t first = plan->size;
    for (int i = first_spec; i < plan->num_specs; i++) {
        if (!continues_fused(plan, i))
            plan->size = (plan->size + WEIGHT_ALIGN - 1) / WEIGHT_ALIGN * WEIGHT_ALIGN;
        plan->spec[i].offset = plan->size;
        plan->size += plan->spec[i].local_rows * plan->spec[i].local_cols;
    }
    plan->size = (plan->size + WEIGHT_ALIGN - 1) / WEIGHT_ALIGN * WEIGHT_ALIGN;
    *ret_range = (WeightRange){first, plan->size - first};
}

WeightPlan *weight_plan_create(const ModelConfig *config, int tp_rank, int tp_size)
{
    Error err = {0};
    CHECKF(model_config_check_parallel(config, tp_size, &err) == OK, "%s", err.message);
    CHECK(tp_rank >= 0 && tp_rank < tp_size);
    WeightPlan *plan = mem_calloc(1, sizeof *plan);
    size_t layers = (size_t)config->num_hidden_layers;
    *plan = (WeightPlan){.config = *config, .tp_rank = tp_rank, .tp_size = tp_size};
    plan->num_heads = config->num_attention_heads / tp_size;
    bool copied = config->num_key_value_heads < tp_size;
    plan->num_kv_heads = copied ? 1 : config->num_key_value_heads / tp_size;
    plan->kv_replicas = copied ? tp_size / config->num_key_value_heads : 1;
    plan->layer = mem_calloc(layers, sizeof *plan->layer);
    plan->spec = mem_calloc(layers * 11 + 3, sizeof *plan->spec);
    add_matrices(plan);
    place_specs(plan, 0, &plan->matrices);
    int first_vector = plan->num_specs;
    add_layer_norms(plan);
    place_specs(plan, first_vector, &plan->vectors);
    first_vector = plan->num_specs;
    add_qk_norms(plan);
    place_specs(plan, first_vector, &plan->qk_norms);
    plan->vectors.count += plan->qk_norms.count;
    return plan;
}

void weight_plan_destroy(WeightPlan *plan)
{
    if (plan == NULL) return;
    free(plan->layer);
    free(plan->spec);
    free(plan);
}

int weight_plan_find(const WeightPlan *plan, const char *name)
{
    for (int i = 0; i < plan->num_specs; i++)
        if (strcmp(plan->spec[i].name, name) == 0) return i;
    return -1;
}
