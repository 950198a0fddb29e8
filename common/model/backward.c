#include "model/backward.h"

#include "base/memory.h"

/* One layer's backward pass over its MLP half; dx is the gradient of its output and becomes that of
 * x_mid. */
static Status mlp_backward(Model *model, Activations *activations, LayerTensors *gradients, int l,
                           Error *err)
{
    const KernelTable *kernels = model->kernels;
    const LayerWeights *w = &model->weights->layer[l];
    LayerActivations *a = &activations->layer[l];
    Tensor dx = activations->dx, dnorm = activations->dnorm;
    Tensor dswiglu = activations_as(activations->dnarrow, a->swiglu.shape[1]);
    Tensor dgate_up = activations_as(activations->dwide, a->gate_up.shape[1]);
    layer_recompute_mlp(model, activations, l);
    kernels->matmul_dgrad(dswiglu, dx, &w->down);
    kernels->matmul_wgrad_accumulate(gradients->down, dx, a->swiglu);
    kernels->swiglu_backward(dgate_up, dswiglu, a->gate_up);
    SplitProduct gate_up = {dnorm, gradients->gate_up, dgate_up, a->norm2, &w->gate_up};
    TRY(model_split_backward(model, &gate_up, err));
    kernels->rmsnorm_backward(dx, true, gradients->post_attention_layernorm, dnorm, a->x_mid,
                              model->weights->tensors.layer[l].post_attention_layernorm, a->rstd2);
    return OK;
}

/* From dattention (in dnarrow) to the gradient of the qkv product, in `dqkv`. */
static void attention_core_backward(Model *model, const Batch *batch, Activations *activations,
                                    LayerTensors *gradients, Tensor dqkv, int l)
{
    const KernelTable *kernels = model->kernels;
    const WeightPlan *plan = model->plan;
    const LayerTensors *weights = &model->weights->tensors.layer[l];
    LayerActivations *a = &activations->layer[l];
    AttentionShape shape = model_attention_shape(plan);
    SequenceTable sequences = batch_sequences(batch);
    size_t head = (size_t)plan->config.head_dim * dtype_size(activations->dtype);
    size_t k = (size_t)plan->num_heads * head, v = k + (size_t)plan->num_kv_heads * head;
    const char *qkv = a->qkv.data;
    char *d = dqkv.data;
    kernels->attention_backward(d, d + k, d + v, activations->dtype, activations->dnarrow.data, qkv,
                                qkv + k, qkv + v, a->attention.data, a->lse, &shape, &sequences);
    kernels->qk_norm_rope_backward(
        dqkv, a->raw_qk, plan->num_heads, plan->num_kv_heads, plan->config.head_dim,
        weights->q_norm.data, weights->k_norm.data, plan->config.rms_norm_eps,
        gradients->q_norm.data, gradients->k_norm.data, model->cos_sin, batch->device.position);
}

static Status attention_backward(Model *model, const Batch *batch, Activations *activations,
                                 LayerTensors *gradients, int l, Error *err)
{
    const KernelTable *kernels = model->kernels;
    const LayerWeights *w = &model->weights->layer[l];
    LayerActivations *a = &activations->layer[l];
    Tensor dx = activations->dx, dnorm = activations->dnorm;
    Tensor dattention = activations_as(activations->dnarrow, a->attention.shape[1]);
    Tensor dqkv = activations_as(activations->dwide, a->qkv.shape[1]);
    layer_recompute_attention(model, batch, activations, l);
    kernels->matmul_dgrad(dattention, dx, &w->o);
    kernels->matmul_wgrad_accumulate(gradients->o, dx, a->attention);
    attention_core_backward(model, batch, activations, gradients, dqkv, l);
    SplitProduct qkv = {dnorm, gradients->qkv, dqkv, a->norm1, &w->qkv};
    TRY(model_split_backward(model, &qkv, err));
    kernels->rmsnorm_backward(dx, true, gradients->input_layernorm, dnorm, a->x,
                              model->weights->tensors.layer[l].input_layernorm, a->rstd1);
    return OK;
}

Status model_backward(Model *model, const Batch *batch, Activations *activations,
                      ModelTensors *gradients, Error *err)
{
    const WeightPlan *plan = model->plan;
    CHECK(activations->policy != KEEP_NOTHING && activations->rows == batch->num_rows);
    for (int l = plan->config.num_hidden_layers - 1; l >= 0; l--) {
        TRY(mlp_backward(model, activations, &gradients->layer[l], l, err));
        TRY(attention_backward(model, batch, activations, &gradients->layer[l], l, err));
        model_progress(model);
    }
    WeightRange rows =
        weight_spec_part(&plan->spec[plan->embed_tokens], plan->tp_rank, plan->tp_size);
    model->kernels->embedding_backward_accumulate(gradients->embed_tokens, activations->dx,
                                                  batch->device.token, batch->token,
                                                  (int32_t)rows.first);
    return OK;
}

/* ---- weights that several ranks hold ---- */

/* Elements of the largest whole k_proj or v_proj. */
static int64_t whole_kv_elements(const WeightPlan *plan)
{
    const WeightSpec *spec = &plan->spec[plan->layer[0].k_proj];
    return plan->kv_replicas > 1 ? spec->rows * spec->cols : 0;
}

int64_t gradients_sum_bytes(const WeightPlan *plan)
{
    return whole_kv_elements(plan) * (int64_t)sizeof(float);
}

/* Every rank puts its part at its kv head's place of a whole tensor of zeros; after the sum over
 * the group each takes its kv head back, now with the parts of all ranks that hold a copy. */
static Status sum_copies(Model *model, const WeightSpec *spec, float *flat, float *whole,
                         Error *err)
{
    WeightSegment run = weight_spec_segment(spec, model->plan->tp_rank, model->plan->tp_size, 0);
    float *part = flat + spec->offset, *place = whole + run.global_first;
    size_t bytes = (size_t)run.count * sizeof(float);
    Tensor sum = tensor_1d(whole, DTYPE_F32, spec->rows * spec->cols);
    model->kernels->fill_zero(sum);
    model->kernels->copy(place, part, bytes);
    TRY(model_all_reduce(model, sum, err));
    model->kernels->copy(part, place, bytes);
    return OK;
}

Status gradients_sum_replicated(Model *model, float *flat, Error *err)
{
    const WeightPlan *plan = model->plan;
    if (plan->tp_size == 1) return OK;
    WeightRange qk = plan->qk_norms;
    if (qk.count > 0)
        TRY(model_all_reduce(model, tensor_1d(flat + qk.first, DTYPE_F32, qk.count), err));
    if (plan->kv_replicas == 1) return OK;
    Status status = OK;
    float *whole = model->kernels->alloc((size_t)gradients_sum_bytes(plan));
    for (int l = 0; status == OK && l < plan->config.num_hidden_layers; l++) {
        const LayerPlan *layer = &plan->layer[l];
        status = sum_copies(model, &plan->spec[layer->k_proj], flat, whole, err);
        if (status == OK) status = sum_copies(model, &plan->spec[layer->v_proj], flat, whole, err);
    }
    model->kernels->free(whole);
    return status;
}
