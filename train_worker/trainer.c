#include "trainer.h"

#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "trainer_state.h"

/* ---- life ---- */

static Status check_options(const TrainerOptions *options, int tp_size, Error *err)
{
    TRY(model_config_check_parallel(&options->model, tp_size, err));
    if (options->dtype != DTYPE_F32 && options->dtype != DTYPE_BF16)
        return error_set(err, ERR_INVALID, "the model's dtype must be f32 or bf16, not %s",
                         dtype_name(options->dtype));
    int64_t longest = options->max_sequence_length,
            trained = options->model.max_position_embeddings;
    if (longest < 1 || options->max_tokens < longest)
        return error_set(err, ERR_INVALID,
                         "a micro-batch of %lld tokens cannot hold a sample of %lld",
                         (long long)options->max_tokens, (long long)longest);
    if (longest > trained)
        return error_set(err, ERR_INVALID,
                         "samples may have %lld tokens, but the model's max_position_embeddings is "
                         "%lld; lower data.max_length",
                         (long long)longest, (long long)trained);
    return OK;
}

static Status plan_memory(const TrainerOptions *options, const WeightPlan *plan, MemoryPlan *ret,
                          Error *err)
{
    MemoryRequest request = {
        .plan = plan,
        .kernels = options->kernels,
        .dtype = options->dtype,
        .max_tokens = options->max_tokens,
        .max_sequence_length = options->max_sequence_length,
        .with_reference = options->with_reference || options->room_for_reference,
        .shown = options->shown_weights,
        .bytes_max = options->memory_bytes_max,
    };
    return memory_plan_make(&request, ret, err);
}

Status trainer_plan(const TrainerOptions *options, int tp_size, int64_t *ret_bytes,
                    int64_t *ret_kept, char **ret_text, Error *err)
{
    MemoryPlan memory = {0};
    TRY(check_options(options, tp_size, err));
    WeightPlan *plan = weight_plan_create(&options->model, 0, tp_size);
    Status status = plan_memory(options, plan, &memory, err);
    weight_plan_destroy(plan);
    TRY(status);
    *ret_bytes = memory.total;
    if (ret_kept != NULL) *ret_kept = memory_plan_kept(&memory);
    *ret_text = memory_plan_text(&memory);
    return OK;
}

int64_t trainer_plan_tokens(const TrainerOptions *options, int tp_size, int64_t most)
{
    Error unused;
    MemoryPlan first = {0}, wider = {0};
    TrainerOptions asked = *options;
    int64_t tokens = options->max_tokens, limit = options->memory_bytes_max;
    if (check_options(options, tp_size, &unused) != OK) return tokens;
    WeightPlan *plan = weight_plan_create(&options->model, 0, tp_size);
    bool fits = plan_memory(options, plan, &first, &unused) == OK;
    while (fits && 2 * tokens <= most) {
        asked.max_tokens = 2 * tokens;
        fits = plan_memory(&asked, plan, &wider, &unused) == OK && wider.policy <= first.policy &&
               wider.chunk_rows >= first.chunk_rows &&
               (limit == 0 || wider.total <= limit - limit / 4);
        if (fits) tokens *= 2;
    }
    weight_plan_destroy(plan);
    return tokens;
}

int64_t trainer_reference_bytes(const TrainerOptions *options, int tp_size)
{
    WeightPlan *plan = weight_plan_create(&options->model, 0, tp_size);
    int64_t bytes = memory_plan_reference(plan, options->dtype, options->kernels);
    weight_plan_destroy(plan);
    return bytes;
}

/* What is allocated from here on is of that pool, where the device's memory can be given back. */
static MemoryPool enter_pool(const Trainer *trainer, MemoryPool pool)
{
    const DeviceMemory *pools = trainer->options.pools;
    return pools != NULL ? pools->pool_enter(pool) : POOL_FIXED;
}

static void make_reference(Trainer *trainer)
{
    const TrainerOptions *options = &trainer->options;
    const MemoryPool before = enter_pool(trainer, POOL_STATE);
    trainer->reference = weights_create(trainer->plan, options->dtype, options->kernels);
    trainer->reference_model =
        model_create(trainer->reference, options->tensor_comm, options->max_sequence_length);
    trainer->reference_model->on_progress = options->on_progress;
    trainer->reference_model->progress_context = options->progress_context;
    enter_pool(trainer, before);
}

static void allocate(Trainer *trainer)
{
    const TrainerOptions *options = &trainer->options;
    const WeightPlan *plan = trainer->plan;
    const KernelTable *kernels = options->kernels;
    const MemoryPool before = enter_pool(trainer, POOL_STATE);
    trainer->weights = weights_create(plan, options->dtype, kernels);
    AdamWOptions adamw = {options->adam_beta1, options->adam_beta2, options->adam_eps,
                          options->weight_decay};
    trainer->optimizer = optimizer_create(trainer->weights, &adamw);
    trainer->model =
        model_create(trainer->weights, options->tensor_comm, options->max_sequence_length);
    enter_pool(trainer, POOL_SCRATCH); /* made anew by every step */
    trainer->gradient = kernels->alloc((size_t)plan->size * sizeof(float));
    model_tensors_init(&trainer->gradients, plan, trainer->gradient, DTYPE_F32);
    trainer->model->on_progress = options->on_progress;
    trainer->model->progress_context = options->progress_context;
    trainer->activations = activations_create(plan, options->dtype, trainer->memory.policy,
                                              options->max_tokens, kernels);
    trainer->head =
        head_create(trainer->model, options->max_tokens, trainer->memory.chunk_rows, true);
    enter_pool(trainer, before);
    trainer->batch = batch_create();
    trainer->arena = arena_create();
    if (options->with_reference) make_reference(trainer);
}

Status trainer_add_reference(Trainer *trainer, Error *err)
{
    if (trainer->reference != NULL) return OK;
    if (trainer->memory.reference > 0) { /* it was planned for */
        make_reference(trainer);
        return OK;
    }
    int64_t more =
        memory_plan_reference(trainer->plan, trainer->options.dtype, trainer->options.kernels);
    int64_t limit = trainer->options.memory_bytes_max;
    if (limit > 0 && trainer->memory.total + more > limit)
        return error_set(err, ERR_RESOURCE,
                         "the train worker has %.2f GiB and may use %.2f GiB; a reference model "
                         "would take %.2f GiB more.\n"
                         "Lower train.max_tokens_per_gpu or data.max_length, raise train.tp_size, "
                         "or begin the run with train.memory_reference: true, which plans for it",
                         (double)trainer->memory.total / 0x1p30, (double)limit / 0x1p30,
                         (double)more / 0x1p30);
    trainer->memory.reference = more;
    trainer->memory.total += more;
    free(trainer->memory_text);
    trainer->memory_text = memory_plan_text(&trainer->memory);
    make_reference(trainer);
    return OK;
}

Status trainer_create(const TrainerOptions *options, Trainer **ret, Error *err)
{
    Comm *tensor = options->tensor_comm, *data = options->data_comm;
    int tp_size = tensor != NULL ? comm_size(tensor) : 1;
    TRY(check_options(options, tp_size, err));
    Trainer *trainer = mem_calloc(1, sizeof *trainer);
    trainer->options = *options;
    trainer->tp_size = tp_size;
    trainer->tp_rank = tensor != NULL ? comm_rank(tensor) : 0;
    trainer->dp_size = data != NULL ? comm_size(data) : 1;
    trainer->dp_rank = data != NULL ? comm_rank(data) : 0;
    trainer->plan = weight_plan_create(&options->model, trainer->tp_rank, tp_size);
    Status status = plan_memory(options, trainer->plan, &trainer->memory, err);
    if (status != OK) {
        trainer_destroy(trainer);
        return status;
    }
    trainer->memory_text = memory_plan_text(&trainer->memory);
    const char *before =
        memory_purpose("a train worker: lower train.max_tokens_per_gpu, or set model.dtype: bf16");
    allocate(trainer);
    memory_purpose(before);
    *ret = trainer;
    return OK;
}

void trainer_destroy(Trainer *trainer)
{
    if (trainer == NULL) return;
    model_destroy(trainer->reference_model);
    weights_destroy(trainer->reference);
    arena_destroy(trainer->arena);
    batch_destroy(trainer->batch);
    head_destroy(trainer->head);
    activations_destroy(trainer->activations);
    model_destroy(trainer->model);
    model_tensors_clear(&trainer->gradients);
    if (trainer->gradient != NULL) trainer->options.kernels->free(trainer->gradient);
    optimizer_destroy(trainer->optimizer);
    weights_destroy(trainer->weights);
    weight_plan_destroy(trainer->plan);
    free(trainer->memory_text);
    free(trainer);
}

const char *trainer_memory_plan(const Trainer *trainer)
{
    return trainer->memory_text;
}

int64_t trainer_memory_bytes(const Trainer *trainer)
{
    return trainer->memory.total;
}

const Weights *trainer_weights(const Trainer *trainer)
{
    return trainer->weights;
}

LoadTimes trainer_load_times(const Trainer *trainer)
{
    return trainer->load_times;
}

int64_t trainer_step(const Trainer *trainer)
{
    return trainer->step;
}

void trainer_set_optimizer(Trainer *trainer, const TrainerOptimizer *optimizer)
{
    trainer->options.clip_grad = optimizer->clip_grad;
    trainer->optimizer->options = (AdamWOptions){optimizer->adam_beta1, optimizer->adam_beta2,
                                                 optimizer->adam_eps, optimizer->weight_decay};
}

/* ---- checks of what the controller sent ---- */

static Status check_sample(const Trainer *trainer, const Sample *sample, Error *err)
{
    long long position = (long long)sample->position;
    if (sample->length < 1 || sample->length > trainer->options.max_sequence_length)
        return error_set(err, ERR_DATA, "sample %lld has %d tokens, planned for 1 to %lld",
                         position, sample->length, (long long)trainer->options.max_sequence_length);
    for (int32_t i = 0; i < sample->length; i++)
        if (sample->token[i] < 0 || sample->token[i] >= trainer->options.model.vocab_size)
            return error_set(
                err, ERR_DATA,
                "sample %lld has token id %d at %d, but the model's vocab_size is %lld", position,
                sample->token[i], i, (long long)trainer->options.model.vocab_size);
    return OK;
}

static Status check_micro_batches(const Trainer *trainer, const MicroBatch *micro_batch, int count,
                                  Error *err)
{
    if (trainer->broken)
        return error_set(err, ERR_UNAVAILABLE,
                         "a collective failed before: this trainer must be made anew");
    if (!trainer->ready)
        return error_set(err, ERR_INVALID,
                         "the trainer has no weights yet: load or draw them first");
    for (int m = 0; m < count; m++) {
        int64_t rows = 0;
        for (int s = 0; s < micro_batch[m].num_samples; s++) {
            TRY(check_sample(trainer, micro_batch[m].sample[s], err));
            rows += micro_batch[m].sample[s]->length;
        }
        if (rows < 1 || rows > trainer->options.max_tokens)
            return error_set(err, ERR_INVALID,
                             "micro-batch %d has %lld tokens, planned for 1 to %lld", m,
                             (long long)rows, (long long)trainer->options.max_tokens);
    }
    return OK;
}

/* Time so far in collectives, for comm_s. */
static int64_t comm_ns(const Trainer *trainer)
{
    int64_t ns = trainer->comm_ns + trainer->model->comm_ns;
    return trainer->reference_model != NULL ? ns + trainer->reference_model->comm_ns : ns;
}

/* ---- gradients of the global batch ---- */

Status trainer_sum(Trainer *trainer, double *values, int count, Error *err)
{
    if (trainer->dp_size == 1) return OK;
    int64_t begin = clock_ns();
    Status status = comm_all_reduce_f64(trainer->options.data_comm, values, count, COMM_SUM, err);
    trainer->comm_ns += clock_ns() - begin;
    if (status != OK) trainer->broken = true;
    return status;
}

/* The normaliser must be what the global batch really holds: a plan that miscounts would train with
 * a wrong step size and nobody would see it. Equal on all ranks. */
static Status check_trained_tokens(Trainer *trainer, const TrainStep *step, int64_t mine,
                                   Error *err)
{
    double all = (double)mine;
    TRY(trainer_sum(trainer, &all, 1, err));
    if ((int64_t)all == step->trained_tokens) return OK;
    return error_set(err, ERR_INTERNAL,
                     "step %lld has %lld trained tokens in all, but its plan counts %lld",
                     (long long)step->step, (long long)all, (long long)step->trained_tokens);
}

/* Sums over ranks: what tensor-parallel ranks hold in common, then everything over data-parallel
 * ranks. */
static Status reduce_gradients(Trainer *trainer, Error *err)
{
    TRY(gradients_sum_replicated(trainer->model, trainer->gradient, err));
    if (trainer->dp_size == 1) return OK;
    int64_t begin = clock_ns();
    Tensor whole = tensor_1d(trainer->gradient, DTYPE_F32, trainer->plan->size);
    Status status = comm_all_reduce(trainer->options.data_comm, whole, COMM_SUM, err);
    trainer->comm_ns += clock_ns() - begin;
    return status;
}

/* The norm of the whole model's summed gradient: every element once, whoever holds it. Equal on all
 * ranks, because data-parallel ranks hold equal gradients. From here on it is known that all sums
 * over ranks went well: the update may follow. */
static Status gradient_norm(Trainer *trainer, double *ret, Error *err)
{
    int64_t counted = 0;
    ElementRange *range = mem_calloc((size_t)trainer->plan->num_specs, sizeof *range);
    for (int s = 0; s < trainer->plan->num_specs; s++) {
        const WeightSpec *spec = &trainer->plan->spec[s];
        if (spec->counted)
            range[counted++] = (ElementRange){spec->offset, spec->local_rows * spec->local_cols};
    }
    double sum = trainer->options.kernels->sum_squares(trainer->gradient, range, counted);
    free(range);
    int64_t begin = clock_ns();
    if (trainer->dp_size > 1) TRY(comm_settle(trainer->options.data_comm, err));
    if (trainer->tp_size > 1)
        TRY(comm_all_reduce_f64(trainer->options.tensor_comm, &sum, 1, COMM_SUM, err));
    trainer->comm_ns += clock_ns() - begin;
    *ret = sqrt(sum);
    return OK;
}

/* Normalises, clips and applies the gradient; a gradient that is not finite leaves everything as it
 * was. */
static Status apply_gradients(Trainer *trainer, const TrainStep *step, StepResult *result,
                              Error *err)
{
    double norm = 0.0;
    double normaliser =
        1.0 / (step->normaliser > 0.0 ? step->normaliser : (double)step->trained_tokens);
    TRY(check_trained_tokens(trainer, step, result->trained_tokens, err));
    TRY(reduce_gradients(trainer, err));
    TRY(gradient_norm(trainer, &norm, err));
    norm *= normaliser;
    result->grad_norm = norm;
    if (!isfinite(norm)) {
        result->skipped = true;
        return OK;
    }
    double clip = trainer->options.clip_grad, scale = normaliser;
    if (clip > 0.0 && norm > clip) scale *= clip / (norm + 1e-6);
    optimizer_update(trainer->optimizer, trainer->gradient, step->lr, scale);
    return OK;
}

/* ---- work ---- */

/* What each sample of the micro-batch adds to the loss, from its targets' log-probs. */
static void sum_by_sample(const MicroBatch *micro_batch, const float *log_prob, double *ret)
{
    for (int s = 0; s < micro_batch->num_samples; s++) {
        const Sample *sample = micro_batch->sample[s];
        ret[s] = 0.0;
        for (int32_t t = 1; t < sample->length; t++)
            if (sample->loss_mask[t]) ret[s] -= (double)*log_prob++;
    }
}

/* `sample_loss`: of this micro-batch's samples, or NULL. */
static Status run_cross_entropy(Trainer *trainer, const MicroBatch *micro_batch,
                                double *sample_loss, StepResult *result, Error *err)
{
    HeadPass pass = {.gradients = &trainer->gradients};
    arena_reset(trainer->arena);
    if (sample_loss != NULL)
        pass.log_prob = arena_alloc(trainer->arena,
                                    (size_t)trainer->batch->num_targets * sizeof *pass.log_prob);
    TRY(trainer_run(trainer, &pass, result, err));
    if (sample_loss != NULL) sum_by_sample(micro_batch, pass.log_prob, sample_loss);
    return OK;
}

static Status train_checked(Trainer *trainer, const TrainStep *step, StepResult *result, Error *err)
{
    int64_t comm_begin = comm_ns(trainer), begin = clock_ns();
    Tensor gradient = tensor_1d(trainer->gradient, DTYPE_F32, trainer->plan->size);
    trainer->options.kernels->fill_zero(gradient);
    result->optimizer_s += seconds(clock_ns() - begin);
    double *loss = step->sample_loss;
    for (int m = 0; m < step->num_micro_batches; m++) {
        const MicroBatch *micro_batch = &step->micro_batch[m];
        trainer_fill_batch(trainer, micro_batch);
        TRY(step->algorithm != NULL ? trainer_run_loss(trainer, step, m, result, err)
                                    : run_cross_entropy(trainer, micro_batch, loss, result, err));
        if (loss != NULL) loss += micro_batch->num_samples;
    }
    begin = clock_ns();
    TRY(apply_gradients(trainer, step, result, err));
    trainer->options.kernels->synchronize(); /* a step that is answered is done */
    result->optimizer_s += seconds(clock_ns() - begin);
    result->comm_s = seconds(comm_ns(trainer) - comm_begin);
    return OK;
}

void trainer_data_ranks(const Trainer *trainer, int *ret_dp_rank, int *ret_dp_size)
{
    *ret_dp_rank = trainer->dp_rank;
    *ret_dp_size = trainer->dp_size;
}

static Status check_next(const Trainer *trainer, int64_t step, Error *err)
{
    if (step == trainer->step + 1) return OK;
    return error_set(err, ERR_INVALID, "asked to make step %lld, but the state is at step %lld",
                     (long long)step, (long long)trainer->step);
}

Status trainer_pass_step(Trainer *trainer, int64_t step, Error *err)
{
    TRY(check_next(trainer, step, err));
    trainer->step = step;
    return OK;
}

/* A policy loss starts from what generation reported. */
static Status check_policy(const TrainStep *step, Error *err)
{
    for (int m = 0; m < step->num_micro_batches; m++)
        for (int s = 0; s < step->micro_batch[m].num_samples; s++)
            TRY(sample_check_policy(step->micro_batch[m].sample[s], err));
    return OK;
}

Status trainer_train_step(Trainer *trainer, const TrainStep *step, StepResult *ret, Error *err)
{
    StepResult result = {0};
    CHECK(step->algorithm != NULL || !trainer->options.model.value_head);
    CHECK(step->algorithm == NULL || step->sample_loss == NULL);
    TRY(check_micro_batches(trainer, step->micro_batch, step->num_micro_batches, err));
    if (step->algorithm != NULL) TRY(check_policy(step, err));
    TRY(check_next(trainer, step->step, err));
    if (step->trained_tokens < 1)
        return error_set(err, ERR_INVALID, "step %lld has no trained tokens",
                         (long long)step->step);
    Status status = train_checked(trainer, step, &result, err);
    if (status != OK) {
        trainer->broken = true;
        return status;
    }
    if (!step->goes_on) trainer->step++;
    *ret = result;
    return OK;
}

/* Hands out a batch's log-probs, which are in the order of its targets. */
static void scatter_log_probs(const MicroBatch *micro_batch, const float *value, float *const *out)
{
    for (int s = 0; s < micro_batch->num_samples; s++) {
        const Sample *sample = micro_batch->sample[s];
        for (int32_t t = 1; t < sample->length; t++) {
            if (!sample->loss_mask[t]) continue;
            if (out[s] != NULL) out[s][t] = *value;
            value++;
        }
    }
}

/* One number for each target, by weights or by a critic's head; ret[m][s] as of trainer_log_probs.
 */
static Status give_numbers(Trainer *trainer, TrainerWeights which, const MicroBatch *micro_batch,
                           float *const *ret, StepResult *result, Error *err)
{
    const Batch *batch = trainer->batch;
    arena_reset(trainer->arena);
    trainer_fill_batch(trainer, micro_batch);
    float *number = arena_alloc(trainer->arena, (size_t)batch->num_targets * sizeof *number);
    ValuePass values = {.value = number};
    HeadPass log_probs = {.log_prob = number};
    if (which == WEIGHTS_REFERENCE) log_probs.model = trainer->reference_model;
    TRY(trainer->options.model.value_head ? trainer_run_values(trainer, &values, result, err)
                                          : trainer_run(trainer, &log_probs, result, err));
    for (int s = 0; s < micro_batch->num_samples; s++) {
        const Sample *sample = micro_batch->sample[s];
        int32_t count = 0;
        for (int32_t t = 1; t < sample->length; t++)
            if (sample->loss_mask[t]) ret[s][count++] = *number++;
    }
    return OK;
}

static Status give_all_numbers(Trainer *trainer, TrainerWeights which,
                               const MicroBatch *micro_batch, int count, float *const *const *ret,
                               StepResult *result, Error *err)
{
    int64_t comm_begin = comm_ns(trainer);
    TRY(check_micro_batches(trainer, micro_batch, count, err));
    for (int m = 0; m < count; m++) {
        Status status = give_numbers(trainer, which, &micro_batch[m], ret[m], result, err);
        if (status == OK) continue;
        trainer->broken = true;
        return status;
    }
    result->comm_s += seconds(comm_ns(trainer) - comm_begin);
    return OK;
}

Status trainer_log_probs(Trainer *trainer, TrainerWeights which, const MicroBatch *micro_batch,
                         int num_micro_batches, float *const *const *ret, StepResult *result,
                         Error *err)
{
    CHECK(!trainer->options.model.value_head);
    if (which == WEIGHTS_REFERENCE && !trainer->reference_ready)
        return error_set(err, ERR_INVALID, "the trainer has no reference model: load it first");
    return give_all_numbers(trainer, which, micro_batch, num_micro_batches, ret, result, err);
}

Status trainer_values(Trainer *trainer, const MicroBatch *micro_batch, int num_micro_batches,
                      float *const *const *ret, StepResult *result, Error *err)
{
    CHECK(trainer->options.model.value_head);
    return give_all_numbers(trainer, WEIGHTS_CURRENT, micro_batch, num_micro_batches, ret, result,
                            err);
}

static Status evaluate_checked(Trainer *trainer, const MicroBatch *micro_batch, int count,
                               float *const *const *log_prob, StepResult *result, Error *err)
{
    int64_t comm_begin = comm_ns(trainer);
    size_t targets_max = (size_t)trainer->options.max_tokens;
    float *value = log_prob != NULL ? mem_calloc(targets_max, sizeof *value) : NULL;
    Status status = OK;
    for (int m = 0; status == OK && m < count; m++) {
        HeadPass pass = {.log_prob = value};
        trainer_fill_batch(trainer, &micro_batch[m]);
        status = trainer_run(trainer, &pass, result, err);
        if (status == OK && log_prob != NULL)
            scatter_log_probs(&micro_batch[m], value, log_prob[m]);
    }
    result->comm_s = seconds(comm_ns(trainer) - comm_begin);
    free(value);
    return status;
}

Status trainer_evaluate(Trainer *trainer, const MicroBatch *micro_batch, int num_micro_batches,
                        float *const *const *log_prob, StepResult *ret, Error *err)
{
    StepResult result = {0};
    CHECK(!trainer->options.model.value_head);
    TRY(check_micro_batches(trainer, micro_batch, num_micro_batches, err));
    Status status =
        evaluate_checked(trainer, micro_batch, num_micro_batches, log_prob, &result, err);
    if (status != OK) {
        trainer->broken = true;
        return status;
    }
    *ret = result;
    return OK;
}
