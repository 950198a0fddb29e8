#include "model/weights.h"

#include <stdlib.h>

#include "base/memory.h"

Tensor weight_view(const WeightPlan *plan, int spec_index, void *flat, DType dtype)
{
    const WeightSpec *spec = &plan->spec[spec_index];
    char *data = (char *)flat + (size_t)spec->offset * dtype_size(dtype);
    if (spec->rank == 1) return tensor_1d(data, dtype, spec->local_rows);
    return tensor_2d(data, dtype, spec->local_rows, spec->local_cols);
}

/* Tensors that lie one after the other, as one matrix. */
static Tensor fused_view(const WeightPlan *plan, int first_spec, int count, void *flat, DType dtype)
{
    Tensor view = weight_view(plan, first_spec, flat, dtype);
    for (int i = 1; i < count; i++) {
        const WeightSpec *spec = &plan->spec[first_spec + i];
        CHECK(spec->offset == plan->spec[first_spec].offset + view.shape[0] * view.shape[1]);
        CHECK(spec->local_cols == view.shape[1]);
        view.shape[0] += spec->local_rows;
    }
    return view;
}

static Tensor optional_view(const WeightPlan *plan, int spec, void *flat, DType dtype)
{
    return spec >= 0 ? weight_view(plan, spec, flat, dtype) : tensor_1d(NULL, dtype, 0);
}

void model_tensors_init(ModelTensors *tensors, const WeightPlan *plan, void *flat, DType dtype)
{
    int layers = plan->config.num_hidden_layers;
    tensors->embed_tokens = weight_view(plan, plan->embed_tokens, flat, dtype);
    tensors->norm = weight_view(plan, plan->norm, flat, dtype);
    tensors->lm_head = weight_view(plan, plan->lm_head, flat, dtype);
    tensors->layer = mem_calloc((size_t)layers, sizeof *tensors->layer);
    for (int l = 0; l < layers; l++) {
        const LayerPlan *from = &plan->layer[l];
        tensors->layer[l] = (LayerTensors){
            .input_layernorm = weight_view(plan, from->input_layernorm, flat, dtype),
            .qkv = fused_view(plan, from->q_proj, 3, flat, dtype),
            .q_norm = optional_view(plan, from->q_norm, flat, dtype),
            .k_norm = optional_view(plan, from->k_norm, flat, dtype),
            .o = weight_view(plan, from->o_proj, flat, dtype),
            .post_attention_layernorm =
                weight_view(plan, from->post_attention_layernorm, flat, dtype),
            .gate_up = fused_view(plan, from->gate_proj, 2, flat, dtype),
            .down = weight_view(plan, from->down_proj, flat, dtype),
        };
    }
}

void model_tensors_clear(ModelTensors *tensors)
{
    free(tensors->layer);
    *tensors = (ModelTensors){0};
}

Weights *weights_create(const WeightPlan *plan, DType dtype, const KernelTable *kernels)
{
    void *flat = kernels->alloc((size_t)plan->size * dtype_size(dtype));
    Weights *weights = weights_create_at(plan, dtype, kernels, flat);
    weights->borrowed = false;
    return weights;
}

Weights *weights_create_at(const WeightPlan *plan, DType dtype, const KernelTable *kernels,
                           void *flat)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_BF16);
    Weights *weights = mem_calloc(1, sizeof *weights);
    weights->kernels = kernels;
    weights->plan = plan;
    weights->dtype = dtype;
    weights->flat = flat;
    weights->borrowed = true;
    model_tensors_init(&weights->tensors, plan, weights->flat, dtype);
    weights->lm_head.plain = weights->tensors.lm_head;
    size_t layers = (size_t)plan->config.num_hidden_layers;
    weights->layer = mem_calloc(layers, sizeof *weights->layer);
    for (size_t l = 0; l < layers; l++) {
        weights->layer[l].qkv.plain = weights->tensors.layer[l].qkv;
        weights->layer[l].o.plain = weights->tensors.layer[l].o;
        weights->layer[l].gate_up.plain = weights->tensors.layer[l].gate_up;
        weights->layer[l].down.plain = weights->tensors.layer[l].down;
    }
    return weights;
}

static void for_each_matrix(Weights *weights, void (*apply)(Weight *))
{
    for (int l = 0; l < weights->plan->config.num_hidden_layers; l++) {
        apply(&weights->layer[l].qkv);
        apply(&weights->layer[l].o);
        apply(&weights->layer[l].gate_up);
        apply(&weights->layer[l].down);
    }
    apply(&weights->lm_head);
}

void weights_prepare(Weights *weights)
{
    for_each_matrix(weights, weights->kernels->weight_prepare);
}

void weights_destroy(Weights *weights)
{
    if (weights == NULL) return;
    for_each_matrix(weights, weights->kernels->weight_release);
    model_tensors_clear(&weights->tensors);
    if (!weights->borrowed) weights->kernels->free(weights->flat);
    free(weights->layer);
    free(weights);
}
