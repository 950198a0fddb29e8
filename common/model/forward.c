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

/* q/k norm and RoPE; with pages, keys and values into them, too. */
static void rotate_heads(Model *model, const Batch *batch, const KvPages *pages,
                         const AttentionShape *shape, int l, LayerActivations *a)
{
    const KernelTable *kernels = model->kernels;
    const LayerTensors *weights = &model->weights->tensors.layer[l];
    const HeadRope rope = {weights->q_norm.data, weights->k_norm.data,
                           model->plan->config.rms_norm_eps, model->cos_sin,
                           batch->device.position};
    SequenceTable sequences = batch_sequences(batch);
    if (pages != NULL && a->raw_qk.data == NULL) {
        kernels->qk_norm_rope_store(a->qkv, &rope, shape, &sequences, pages);
        return;
    }
    kernels->qk_norm_rope(a->qkv, a->raw_qk, shape->num_heads, shape->num_kv_heads, shape->head_dim,
                          rope.q_norm, rope.k_norm, rope.eps, rope.cos_sin, rope.position);
    if (pages == NULL) return;
    const char *k = (const char *)a->qkv.data +
                    (size_t)(shape->num_heads * shape->head_dim) * dtype_size(a->qkv.dtype);
    const char *v = k + (size_t)(shape->num_kv_heads * shape->head_dim) * dtype_size(a->qkv.dtype);
    kernels->kv_store(pages, a->qkv.dtype, k, v, shape, &sequences);
}

/* q/k/v, q/k norm, RoPE and attention: norm1 to a->attention. */
static void run_attention(Model *model, const Batch *batch, const KvCache *cache,
                          Activations *activations, int l)
{
    LayerActivations *a = &activations->layer[l];
    AttentionShape shape = model_attention_shape(model->plan);
    SequenceTable sequences = batch_sequences(batch);
    KvPages in_cache = {0}, *pages = cache != NULL ? &in_cache : NULL;
    if (cache != NULL) in_cache = kv_cache_pages(cache, l, batch);
    model->kernels->matmul(a->qkv, a->norm1, &model->weights->layer[l].qkv);
    rotate_heads(model, batch, pages, &shape, l, a);
    size_t head = (size_t)shape.head_dim * dtype_size(activations->dtype);
    const char *q = a->qkv.data, *k = q + (size_t)shape.num_heads * head;
    const char *v = k + (size_t)shape.num_kv_heads * head;
    model->kernels->attention(a->attention.data, a->lse, activations->dtype, q, k, v, &shape,
                              &sequences, pages);
}

/* gate/up and SwiGLU: norm2 to a->swiglu. */
static void run_mlp(Model *model, Activations *activations, int l)
{
    LayerActivations *a = &activations->layer[l];
    model->kernels->matmul(a->gate_up, a->norm2, &model->weights->layer[l].gate_up);
    model->kernels->swiglu(a->swiglu, a->gate_up);
}

/* activations->partial = the sum over ranks of x w^T: what joins the residual stream next. */
static Status row_parallel(Model *model, Activations *activations, Tensor x, const Weight *w,
                           Error *err)
{
    model->kernels->matmul(activations->partial, x, w);
    return model_all_reduce(model, activations->partial, err);
}

/* x + partial to x_mid, and its norm. */
static void join_attention(Model *model, Activations *activations, int l)
{
    LayerActivations *a = &activations->layer[l];
    Tensor weight = model->weights->tensors.layer[l].post_attention_layernorm;
    model->kernels->add_rmsnorm(a->x_mid, a->norm2, a->rstd2, a->x, activations->partial, weight,
                                model->plan->config.rms_norm_eps);
}

/* x_mid + partial to the next layer's x, and its norm; after the last layer to the output. */
static void join_mlp(Model *model, Activations *activations, int l)
{
    LayerActivations *a = &activations->layer[l], *next = a + 1;
    if (l + 1 == model->plan->config.num_hidden_layers) {
        model->kernels->add(activations->output, a->x_mid, activations->partial);
        return;
    }
    Tensor weight = model->weights->tensors.layer[l + 1].input_layernorm;
    model->kernels->add_rmsnorm(next->x, next->norm1, next->rstd1, a->x_mid, activations->partial,
                                weight, model->plan->config.rms_norm_eps);
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

Status model_forward_placed(Model *model, const Batch *batch, KvCache *cache,
                            Activations *activations, Error *err)
{
    activations_set_rows(activations, batch->num_rows);
    TRY(run_embedding(model, batch, activations->layer[0].x, err));
    norm_before_attention(model, activations, 0);
    for (int l = 0; l < model->plan->config.num_hidden_layers; l++) {
        LayerActivations *a = &activations->layer[l];
        const LayerWeights *w = &model->weights->layer[l];
        run_attention(model, batch, cache, activations, l);
        TRY(row_parallel(model, activations, a->attention, &w->o, err));
        join_attention(model, activations, l);
        run_mlp(model, activations, l);
        TRY(row_parallel(model, activations, a->swiglu, &w->down, err));
        join_mlp(model, activations, l);
        model_progress(model);
    }
    return OK;
}

Status model_forward(Model *model, Batch *batch, KvCache *cache, Activations *activations,
                     Error *err)
{
    batch_place(batch, model->kernels);
    if (cache != NULL) kv_cache_check(cache, batch);
    return model_forward_placed(model, batch, cache, activations, err);
}

void layer_recompute_attention(Model *model, const Batch *batch, Activations *activations, int l)
{
    if (activations->policy != KEEP_RESIDUAL && activations->policy != KEEP_MATRICES) return;
    norm_before_attention(model, activations, l);
    if (activations->policy == KEEP_RESIDUAL) run_attention(model, batch, NULL, activations, l);
}

void layer_recompute_mlp(Model *model, Activations *activations, int l)
{
    LayerActivations *a = &activations->layer[l];
    if (activations->policy != KEEP_RESIDUAL && activations->policy != KEEP_MATRICES) return;
    norm_before_mlp(model, activations, l);
    if (activations->policy == KEEP_RESIDUAL)
        run_mlp(model, activations, l);
    else
        model->kernels->swiglu(a->swiglu, a->gate_up);
}
