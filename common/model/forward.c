#include "model/forward.h"

static void norm_before_attention(Model *model, Activations *activations, int l)
{
    LayerActivations *a = &activations->layer[l];
    Tensor weight = model->weights->tensors.layer[l].input_layernorm;
    model->kernels->rmsnorm(a->norm1, a->rstd1, a->x, weight, model->plan->config.rms_norm_eps);
}

static void norm_before_mlp(Model *model, Activations *activations, int l)
{
    LayerActivations *a = &activations->layer[l];
    Tensor weight = model->weights->tensors.layer[l].post_attention_layernorm;
    model->kernels->rmsnorm(a->norm2, a->rstd2, a->x_mid, weight, model->plan->config.rms_norm_eps);
}

/* norm, q/k/v, q/k norm, RoPE and attention: x to a->attention. */
static void run_attention(Model *model, const Batch *batch, KvCache *cache,
                          Activations *activations, int l)
{
    const KernelTable *kernels = model->kernels;
    const WeightPlan *plan = model->plan;
    const LayerTensors *weights = &model->weights->tensors.layer[l];
    LayerActivations *a = &activations->layer[l];
    norm_before_attention(model, activations, l);
    kernels->matmul(a->qkv, a->norm1, &model->weights->layer[l].qkv);
    kernels->qk_norm_rope(a->qkv, a->raw_qk, plan->num_heads, plan->num_kv_heads,
                          plan->config.head_dim, weights->q_norm.data, weights->k_norm.data,
                          plan->config.rms_norm_eps, model->cos_sin, batch->device.position);
    KvPages pages = {0};
    if (cache != NULL) pages = kv_cache_store(cache, l, batch, a->qkv);
    AttentionShape shape = model_attention_shape(plan);
    SequenceTable sequences = batch_sequences(batch);
    size_t head = (size_t)plan->config.head_dim * dtype_size(activations->dtype);
    const char *q = a->qkv.data, *k = q + (size_t)plan->num_heads * head;
    const char *v = k + (size_t)plan->num_kv_heads * head;
    kernels->attention(a->attention.data, a->lse, activations->dtype, q, k, v, &shape, &sequences,
                       cache != NULL ? &pages : NULL);
}

/* norm, gate/up and SwiGLU: x_mid to a->swiglu. */
static void run_mlp(Model *model, Activations *activations, int l)
{
    LayerActivations *a = &activations->layer[l];
    norm_before_mlp(model, activations, l);
    model->kernels->matmul(a->gate_up, a->norm2, &model->weights->layer[l].gate_up);
    model->kernels->swiglu(a->swiglu, a->gate_up);
}

/* out = residual + sum over ranks of x w^T: where a row-parallel product joins the residual stream.
 */
static Status add_row_parallel(Model *model, Tensor out, Tensor residual, Tensor x, const Weight *w,
                               Tensor partial, Error *err)
{
    model->kernels->matmul(partial, x, w);
    TRY(model_all_reduce(model, partial, err));
    model->kernels->add(out, residual, partial);
    return OK;
}

static Status run_embedding(Model *model, const Batch *batch, Tensor out, Error *err)
{
    const WeightPlan *plan = model->plan;
    const WeightSpec *spec = &plan->spec[plan->embed_tokens];
    WeightRange rows = weight_spec_part(spec, plan->tp_rank, plan->tp_size);
    model->kernels->embedding(out, model->weights->tensors.embed_tokens, batch->device.token,
                              (int32_t)rows.first);
    return model_all_reduce(model, out, err);
}

Status model_forward(Model *model, Batch *batch, KvCache *cache, Activations *activations,
                     Error *err)
{
    batch_place(batch, model->kernels);
    activations_set_rows(activations, batch->num_rows);
    int layers = model->plan->config.num_hidden_layers;
    TRY(run_embedding(model, batch, activations->layer[0].x, err));
    for (int l = 0; l < layers; l++) {
        LayerActivations *a = &activations->layer[l];
        const LayerWeights *w = &model->weights->layer[l];
        Tensor next = l + 1 < layers ? activations->layer[l + 1].x : activations->output;
        run_attention(model, batch, cache, activations, l);
        TRY(add_row_parallel(model, a->x_mid, a->x, a->attention, &w->o, activations->partial,
                             err));
        run_mlp(model, activations, l);
        TRY(add_row_parallel(model, next, a->x_mid, a->swiglu, &w->down, activations->partial,
                             err));
        model_progress(model);
    }
    return OK;
}

void layer_recompute_attention(Model *model, const Batch *batch, Activations *activations, int l)
{
    if (activations->policy == KEEP_RESIDUAL)
        run_attention(model, batch, NULL, activations, l);
    else if (activations->policy == KEEP_MATRICES)
        norm_before_attention(model, activations, l);
}

void layer_recompute_mlp(Model *model, Activations *activations, int l)
{
    LayerActivations *a = &activations->layer[l];
    if (activations->policy == KEEP_RESIDUAL) {
        run_mlp(model, activations, l);
    } else if (activations->policy == KEEP_MATRICES) {
        norm_before_mlp(model, activations, l);
        model->kernels->swiglu(a->swiglu, a->gate_up);
    }
}
