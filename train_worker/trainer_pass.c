/* Micro-batches through a Trainer's network, and the losses of reinforcement learning on what comes
 * out of it. */
#include <string.h>

#include "base/clock.h"
#include "trainer_state.h"

/* ---- one pass ---- */

void trainer_fill_batch(Trainer *trainer, const MicroBatch *micro_batch)
{
    Batch *batch = trainer->batch;
    batch_clear(batch);
    for (int s = 0; s < micro_batch->num_samples; s++) {
        const Sample *sample = micro_batch->sample[s];
        batch_add(batch, sample->token, sample->loss_mask, sample->length);
        if (sample->temperature > 0.0f) batch_set_temperature(batch, sample->temperature);
    }
}

static void count_batch(const Trainer *trainer, bool backward, StepResult *result)
{
    const Batch *batch = trainer->batch;
    FlopCount count = {
        .tokens = batch->num_rows,
        .head_rows = batch->num_targets,
        .squared_lengths = batch_squared_lengths(batch),
    };
    double forward = model_config_forward_flops(&trainer->options.model, &count);
    result->flops += forward * (backward ? 3.0 : 1.0) / trainer->tp_size;
    result->tokens += batch->num_rows;
    result->trained_tokens += batch->num_targets;
}

/* A device is waited for, once in a micro-batch, so that times are of what they are called. */
static Status run_backward(Trainer *trainer, ModelTensors *gradients, Error *err)
{
    TRY(model_backward(trainer->model, trainer->batch, trainer->activations, gradients, err));
    trainer->options.kernels->synchronize();
    return OK;
}

Status trainer_run(Trainer *trainer, const HeadPass *pass, StepResult *result, Error *err)
{
    HeadResult head = {0};
    Model *model = pass->model != NULL ? pass->model : trainer->model;
    int64_t begin = clock_ns();
    TRY(model_forward(model, trainer->batch, NULL, trainer->activations, err));
    TRY(head_run(trainer->head, trainer->batch, trainer->activations, pass, &head, err));
    int64_t middle = clock_ns();
    if (pass->gradients != NULL) TRY(run_backward(trainer, pass->gradients, err));
    result->forward_s += seconds(middle - begin - head.backward_ns);
    result->backward_s += seconds(clock_ns() - middle + head.backward_ns);
    result->loss_sum += head.nll_sum;
    result->correct += head.correct;
    count_batch(trainer, pass->gradients != NULL, result);
    return OK;
}

Status trainer_run_values(Trainer *trainer, const ValuePass *pass, StepResult *result, Error *err)
{
    Model *model = trainer->model;
    int64_t begin = clock_ns();
    TRY(model_forward(model, trainer->batch, NULL, trainer->activations, err));
    int64_t backward_ns =
        head_run_values(trainer->head, trainer->batch, trainer->activations, pass);
    TRY(model_settle(model, err));
    int64_t middle = clock_ns();
    if (pass->gradients != NULL) TRY(run_backward(trainer, pass->gradients, err));
    result->forward_s += seconds(middle - begin - backward_ns);
    result->backward_s += seconds(clock_ns() - middle + backward_ns);
    count_batch(trainer, pass->gradients != NULL, result);
    return OK;
}

/* ---- losses ---- */

/* The trained tokens of a micro-batch, in the order of its targets. Arena memory. */
typedef struct Tokens {
    int64_t count;
    int num_samples;
    const Sample *const *sample; /* [num_samples] */
    const TokenData *data;       /* [num_samples] */
    int64_t *first;              /* [num_samples + 1]: of each sample's targets */
    int32_t *place;              /* [count]: the token's index in its sample */
} Tokens;

static Tokens *list_tokens(Trainer *trainer, const TrainStep *step, int m)
{
    Arena *arena = trainer->arena;
    const MicroBatch *micro_batch = &step->micro_batch[m];
    Tokens *tokens = arena_alloc(arena, sizeof *tokens);
    tokens->num_samples = micro_batch->num_samples;
    tokens->sample = micro_batch->sample;
    tokens->data = step->tokens[m];
    tokens->first = arena_alloc(arena, ((size_t)tokens->num_samples + 1) * sizeof *tokens->first);
    tokens->place = arena_alloc(arena, (size_t)trainer->batch->num_targets * sizeof *tokens->place);
    for (int s = 0; s < tokens->num_samples; s++) {
        const Sample *sample = tokens->sample[s];
        tokens->first[s] = tokens->count;
        for (int32_t t = 1; t < sample->length; t++)
            if (sample->loss_mask[t]) tokens->place[tokens->count++] = t;
        CHECK(tokens->data[s].count == tokens->count - tokens->first[s]);
    }
    tokens->first[tokens->num_samples] = tokens->count;
    CHECK(tokens->count == trainer->batch->num_targets);
    return tokens;
}

static double *doubles(Trainer *trainer, int64_t count)
{
    return arena_alloc(trainer->arena, (size_t)count * sizeof(double));
}

static float *floats(Trainer *trainer, int64_t count)
{
    return arena_alloc(trainer->arena, (size_t)count * sizeof(float));
}

/* Targets of sample s within [first, first + count). */
typedef struct Part {
    int64_t first;
    int count;
} Part;

static Part part_of(const Tokens *tokens, int s, int64_t first, int64_t count)
{
    int64_t begin = tokens->first[s] > first ? tokens->first[s] : first;
    int64_t end = tokens->first[s + 1] < first + count ? tokens->first[s + 1] : first + count;
    return (Part){begin, end > begin ? (int)(end - begin) : 0};
}

/* ---- the policy's ---- */

/* A micro-batch under way; arrays by target. */
typedef struct PolicyRun {
    const TrainStep *step;
    const Tokens *tokens;
    StepResult *result;
    float *log_prob, *entropy, *dlog_prob, *dentropy;         /* the head's; dentropy may be NULL */
    double *x, *old, *rollout, *ref, *entropy_wide, *dx, *dh; /* the loss's */
} PolicyRun;

/* Compares what generation reported with what the trainer computes from the same weights, and
 * counts by how much others are older. */
static void compare_log_probs(PolicyRun *run, int s, Part part)
{
    const Sample *sample = run->tokens->sample[s];
    int64_t version = run->step->weight_version;
    bool mixed = sample->num_version_runs > 1;
    if (version == 0 || sample->log_prob == NULL) return;
    run->result->mixed_samples += mixed && part.first == run->tokens->first[s];
    for (int64_t i = part.first; i < part.first + part.count; i++) {
        int32_t t = run->tokens->place[i];
        int64_t age = version - sample_version_at(sample, t);
        run->result->age += age;
        if (age > run->result->age_max) run->result->age_max = age;
        if (age != 0 || sample->other_weights || run->step->has_moved ||
            (mixed && run->step->keys_are_kept))
            continue;
        run->result->log_probs_compared++;
        run->result->log_probs_differ +=
            memcmp(&run->log_prob[i], &sample->log_prob[t], sizeof(float)) != 0;
    }
}

/* Widens what the loss reads of a part. */
static void widen(PolicyRun *run, int s, Part part)
{
    const AlgorithmConfig *algorithm = run->step->algorithm;
    const Sample *sample = run->tokens->sample[s];
    const TokenData *data = &run->tokens->data[s];
    for (int64_t i = part.first; i < part.first + part.count; i++) {
        int64_t k = i - run->tokens->first[s];
        double reported =
            sample->log_prob != NULL ? (double)sample->log_prob[run->tokens->place[i]] : 0.0;
        run->x[i] = (double)run->log_prob[i];
        run->rollout[i] = reported;
        run->old[i] = data->old_log_prob != NULL                ? (double)data->old_log_prob[k]
                      : algorithm->old_log_probs == OLD_ROLLOUT ? reported
                                                                : run->x[i];
        if (data->ref_log_prob != NULL) run->ref[i] = (double)data->ref_log_prob[k];
        run->entropy_wide[i] = (double)run->entropy[i];
    }
}

static void derive_part(PolicyRun *run, int s, Part part)
{
    const TokenData *data = &run->tokens->data[s];
    int64_t at = part.first, k = at - run->tokens->first[s];
    compare_log_probs(run, s, part);
    widen(run, s, part);
    PolicyTokens tokens = {
        .count = part.count,
        .log_prob = run->x + at,
        .old_log_prob = run->old + at,
        .rollout_log_prob = run->tokens->sample[s]->log_prob != NULL ? run->rollout + at : NULL,
        .ref_log_prob = data->ref_log_prob != NULL ? run->ref + at : NULL,
        .entropy = run->entropy_wide + at,
        .advantage = data->advantage + k,
        .weight = data->weight,
    };
    policy_loss(run->step->algorithm, &tokens, run->dx + at, run->dh + at, &run->result->policy);
    for (int64_t i = at; i < at + part.count; i++) {
        run->dlog_prob[i] = (float)run->dx[i];
        if (run->dentropy != NULL) run->dentropy[i] = (float)run->dh[i];
    }
}

static void derive_policy(void *context, int64_t first, int64_t count)
{
    PolicyRun *run = context;
    for (int s = 0; s < run->tokens->num_samples; s++) {
        Part part = part_of(run->tokens, s, first, count);
        if (part.count > 0) derive_part(run, s, part);
    }
}

static Status run_policy(Trainer *trainer, const TrainStep *step, const Tokens *tokens,
                         StepResult *result, Error *err)
{
    int64_t n = tokens->count;
    PolicyRun run = {.step = step, .tokens = tokens, .result = result};
    float **narrow[] = {&run.log_prob, &run.entropy, &run.dlog_prob, &run.dentropy};
    double **wide[] = {&run.x,  &run.old, &run.rollout, &run.ref, &run.entropy_wide,
                       &run.dx, &run.dh};
    for (size_t i = 0; i < sizeof narrow / sizeof *narrow; i++)
        *narrow[i] = floats(trainer, n);
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        *wide[i] = doubles(trainer, n);
    if (step->algorithm->entropy_coef == 0.0) run.dentropy = NULL;
    HeadLoss loss = {
        .derive = derive_policy,
        .context = &run,
        .needs_all = policy_loss_needs_sample(step->algorithm),
        .dlog_prob = run.dlog_prob,
        .dentropy = run.dentropy,
    };
    HeadPass pass = {
        .log_prob = run.log_prob,
        .entropy = run.entropy,
        .gradients = &trainer->gradients,
        .loss = &loss,
    };
    return trainer_run(trainer, &pass, result, err);
}

/* ---- the critic's ---- */

typedef struct ValueRun {
    const TrainStep *step;
    const Tokens *tokens;
    StepResult *result;
    float *value, *dvalue;             /* the head's */
    double *wide, *old_wide, *dv_wide; /* the loss's */
} ValueRun;

static void derive_values(void *context)
{
    ValueRun *run = context;
    const Tokens *tokens = run->tokens;
    for (int s = 0; s < tokens->num_samples; s++) {
        const TokenData *data = &tokens->data[s];
        int64_t at = tokens->first[s];
        for (int32_t k = 0; k < data->count; k++) {
            run->wide[at + k] = (double)run->value[at + k];
            run->old_wide[at + k] = (double)data->old_value[k];
        }
        ValueTokens values = {
            .count = data->count,
            .value = run->wide + at,
            .old_value = run->old_wide + at,
            .target = data->target,
            .weight = data->weight,
        };
        value_loss(run->step->algorithm->value_clip, &values, run->dv_wide + at,
                   &run->result->value);
    }
    for (int64_t i = 0; i < tokens->count; i++)
        run->dvalue[i] = (float)run->dv_wide[i];
}

static Status run_critic(Trainer *trainer, const TrainStep *step, const Tokens *tokens,
                         StepResult *result, Error *err)
{
    int64_t n = tokens->count;
    ValueRun run = {
        .step = step,
        .tokens = tokens,
        .result = result,
        .value = floats(trainer, n),
        .dvalue = floats(trainer, n),
        .wide = doubles(trainer, n),
        .old_wide = doubles(trainer, n),
        .dv_wide = doubles(trainer, n),
    };
    ValuePass pass = {
        .value = run.value,
        .gradients = &trainer->gradients,
        .derive = derive_values,
        .context = &run,
        .dvalue = run.dvalue,
    };
    return trainer_run_values(trainer, &pass, result, err);
}

Status trainer_run_loss(Trainer *trainer, const TrainStep *step, int m, StepResult *result,
                        Error *err)
{
    arena_reset(trainer->arena);
    const Tokens *tokens = list_tokens(trainer, step, m);
    return trainer->options.model.value_head ? run_critic(trainer, step, tokens, result, err)
                                             : run_policy(trainer, step, tokens, result, err);
}
