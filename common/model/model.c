#include "model/model.h"

#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"

int64_t model_rope_bytes(const ModelConfig *config, int64_t max_positions)
{
    return max_positions * config->head_dim * (int64_t)sizeof(float);
}

/* Su et al. 2021, in transformers' precision: the frequency and its product with the position are
 * rounded to f32, the table stays f32 whatever the model computes in. */
static void fill_cos_sin(float *table, int64_t positions, int head_dim, double theta)
{
    int half = head_dim / 2;
    for (int i = 0; i < half; i++) {
        float frequency = (float)(1.0 / pow(theta, 2.0 * i / head_dim));
        for (int64_t p = 0; p < positions; p++) {
            float angle = (float)p * frequency;
            table[p * head_dim + i] = (float)cos((double)angle);
            table[p * head_dim + half + i] = (float)sin((double)angle);
        }
    }
}

Model *model_create(const Weights *weights, Comm *comm, int64_t max_positions)
{
    const ModelConfig *config = &weights->plan->config;
    CHECK((comm == NULL ? 1 : comm_size(comm)) == weights->plan->tp_size);
    Model *model = mem_calloc(1, sizeof *model);
    model->kernels = weights->kernels;
    model->plan = weights->plan;
    model->weights = weights;
    model->comm = comm;
    model->max_positions = max_positions;
    model->rope = mirror_create(model->kernels, (size_t)model_rope_bytes(config, max_positions));
    fill_cos_sin((float *)model->rope.host, max_positions, config->head_dim, config->rope_theta);
    mirror_push(&model->rope, 0, model->rope.bytes);
    model->cos_sin = (const float *)model->rope.device;
    return model;
}

void model_destroy(Model *model)
{
    if (model == NULL) return;
    mirror_destroy(&model->rope);
    free(model);
}

Status model_all_reduce(Model *model, Tensor tensor, Error *err)
{
    if (model->plan->tp_size == 1) return OK;
    int64_t begin = clock_ns();
    Status status = comm_all_reduce(model->comm, tensor, COMM_SUM, err);
    model->comm_ns += clock_ns() - begin;
    return status;
}

Status model_settle(Model *model, Error *err)
{
    if (model->plan->tp_size == 1) return OK;
    int64_t begin = clock_ns();
    Status status = comm_settle(model->comm, err);
    model->comm_ns += clock_ns() - begin;
    return status;
}

Status model_split_backward(Model *model, const SplitProduct *product, Error *err)
{
    const KernelTable *kernels = model->kernels;
    bool alone = model->plan->tp_size == 1;
    kernels->matmul_dgrad(product->dx, product->dy, product->w);
    int64_t begin = clock_ns();
    if (!alone) TRY(comm_all_reduce_start(model->comm, product->dx, COMM_SUM, err));
    model->comm_ns += clock_ns() - begin;
    kernels->matmul_wgrad_accumulate(product->dw, product->dy, product->x);
    begin = clock_ns();
    if (!alone) TRY(comm_all_reduce_finish(model->comm, err));
    model->comm_ns += clock_ns() - begin;
    return OK;
}

Status model_all_gather(Model *model, Tensor out, Tensor in, Error *err)
{
    if (model->plan->tp_size == 1) {
        model->kernels->copy(out.data, in.data, tensor_bytes(&in));
        return OK;
    }
    int64_t begin = clock_ns();
    Status status = comm_all_gather(model->comm, out, in, err);
    model->comm_ns += clock_ns() - begin;
    return status;
}

void model_progress(const Model *model)
{
    if (model->on_progress != NULL) model->on_progress(model->progress_context);
}
