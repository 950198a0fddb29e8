#include "policy_step.h"

#include <stdlib.h>

#include "base/memory.h"
#include "sample/group.h"

/* One of this rank's samples, and what is found out about its trained tokens; arrays by these, in
 * order. */
typedef struct Own {
    const Sample *sample;
    int place;                  /* in the batch */
    int32_t count;              /* trained tokens */
    float *old, *ref, *value;   /* NULL where they are not needed */
    double *kl;                 /* in the reward; NULL without */
    double *advantage, *target; /* target: with a critic */
} Own;

/* One of the step's optimizer steps. */
typedef struct Update {
    int first, count;       /* this rank's micro-batches */
    int64_t trained_tokens; /* of all ranks */
    int samples;            /* the same */
} Update;

/* A step under way. Arena memory throughout. */
typedef struct Run {
    Trainer *policy, *critic;
    const AlgorithmConfig *algorithm;
    const PolicyStep *step;
    PolicyStepResult *result;
    Arena *arena;
    Own *own; /* [num_own], micro-batch after micro-batch */
    int num_own;
    Update *update; /* [num_updates] */
    int num_updates;
    double *score; /* [batch_size] */
} Run;

/* ---- which samples these are ---- */

static int compare_place(const void *a, const void *b)
{
    const SampleMeta *x = a, *y = b;
    if (x->position != y->position) return x->position < y->position ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static int count_trained(const Sample *sample)
{
    int count = 0;
    for (int32_t t = 1; t < sample->length; t++)
        count += sample->loss_mask[t];
    return count;
}

static Status find_own(Run *run, const Sample *sample, Own *own, Error *err)
{
    const PolicyStep *step = run->step;
    SampleMeta key = {.position = sample->position, .index = sample->index};
    const SampleMeta *found =
        bsearch(&key, step->batch, (size_t)step->batch_size, sizeof key, compare_place);
    TRY(sample_check_policy(sample, err));
    if (found == NULL)
        return error_set(err, ERR_INTERNAL, "sample %lld/%d is not in the batch of step %lld",
                         (long long)sample->position, sample->index, (long long)step->step);
    *own = (Own){.sample = sample, .place = (int)(found - step->batch)};
    own->count = count_trained(sample);
    return OK;
}

static Status list_own(Run *run, Error *err)
{
    const PolicyStep *step = run->step;
    int count = 0;
    for (int m = 0; m < step->num_micro_batches; m++)
        count += step->micro_batch[m].num_samples;
    run->own = arena_alloc(run->arena, ((size_t)count + 1) * sizeof *run->own);
    for (int m = 0; m < step->num_micro_batches; m++)
        for (int s = 0; s < step->micro_batch[m].num_samples; s++)
            TRY(find_own(run, step->micro_batch[m].sample[s], &run->own[run->num_own++], err));
    return OK;
}

/* Each sample of the batch must train on one data-parallel rank. Equal on all ranks. */
static Status check_cover(Run *run, Error *err)
{
    size_t size = (size_t)run->step->batch_size;
    double *times = arena_alloc(run->arena, (size + 1) * sizeof *times);
    for (int i = 0; i < run->num_own; i++)
        times[run->own[i].place] += 1.0;
    TRY(trainer_sum(run->policy, times, run->step->batch_size, err));
    for (size_t i = 0; i < size; i++)
        if (times[i] != 1.0)
            return error_set(err, ERR_INTERNAL,
                             "sample %lld/%d of step %lld's batch is in %g micro-batches, not one",
                             (long long)run->step->batch[i].position, run->step->batch[i].index,
                             (long long)run->step->step, times[i]);
    return OK;
}

/* Makes the updates. Returns which of them each sample of the batch trains in, by place. */
static int *updates_of_batch(Run *run)
{
    const PolicyStep *step = run->step;
    int *update = arena_alloc(run->arena, ((size_t)step->batch_size + 1) * sizeof *update);
    int groups = 0;
    for (int i = 0; i < step->batch_size; i++) {
        if (i > 0 && step->batch[i].position != step->batch[i - 1].position) groups++;
        update[i] = groups;
    }
    run->num_updates = updates_of_groups(groups + 1, step->groups_of_update);
    run->update = arena_alloc(run->arena, (size_t)run->num_updates * sizeof *run->update);
    for (int i = 0; i < step->batch_size; i++) {
        update[i] = update_of_group(update[i], step->groups_of_update);
        run->update[update[i]].samples++;
    }
    return update;
}

/* A micro-batch is of one update, and they come in order: or gradients of different updates would
 * be one. */
static Status place_micro_batch(Run *run, const int *update, int m, const Own *own, Error *err)
{
    int count = run->step->micro_batch[m].num_samples, at = update[own->place];
    bool ordered = true;
    for (int u = at + 1; u < run->num_updates; u++)
        ordered &= run->update[u].count == 0;
    for (int s = 0; s < count; s++) {
        ordered &= update[own[s].place] == at;
        run->update[at].trained_tokens += own[s].count;
    }
    if (!ordered)
        return error_set(err, ERR_INTERNAL,
                         "micro-batch %d of step %lld is not of one update, or not in their order",
                         m, (long long)run->step->step);
    if (run->update[at].count++ == 0) run->update[at].first = m;
    return OK;
}

/* Adds up over ranks how much each update has; equal on all of them. */
static Status count_updates(Run *run, Error *err)
{
    int64_t all = 0;
    double *tokens = arena_alloc(run->arena, (size_t)run->num_updates * sizeof *tokens);
    for (int u = 0; u < run->num_updates; u++)
        tokens[u] = (double)run->update[u].trained_tokens;
    TRY(trainer_sum(run->policy, tokens, run->num_updates, err));
    for (int u = 0; u < run->num_updates; u++)
        all += run->update[u].trained_tokens = (int64_t)tokens[u];
    if (all == run->step->trained_tokens) return OK;
    return error_set(
        err, ERR_INTERNAL, "step %lld has %lld trained tokens in all, but its plan counts %lld",
        (long long)run->step->step, (long long)all, (long long)run->step->trained_tokens);
}

static Status list_updates(Run *run, Error *err)
{
    const PolicyStep *step = run->step;
    const int *update = updates_of_batch(run);
    const Own *own = run->own;
    for (int m = 0; m < step->num_micro_batches; own += step->micro_batch[m++].num_samples)
        TRY(place_micro_batch(run, update, m, own, err));
    return count_updates(run, err);
}

/* ---- passes over the models ---- */

static double *doubles(Run *run, int32_t count)
{
    return arena_alloc(run->arena, (size_t)count * sizeof(double));
}

static float *floats(Run *run, int32_t count)
{
    return arena_alloc(run->arena, (size_t)count * sizeof(float));
}

/* The samples' arrays of one kind by micro-batch and sample, as passes fill them. `which` gives the
 * place of the array in an Own. */
static float *const *const *by_micro_batch(Run *run, float **(*which)(Own *))
{
    const PolicyStep *step = run->step;
    size_t batches = (size_t)step->num_micro_batches;
    float **flat = arena_alloc(run->arena, ((size_t)run->num_own + 1) * sizeof *flat);
    float ***list = arena_alloc(run->arena, (batches + 1) * sizeof *list);
    for (int i = 0; i < run->num_own; i++)
        *which(&run->own[i]) = flat[i] = floats(run, run->own[i].count);
    for (size_t m = 0, first = 0; m < batches; first += (size_t)step->micro_batch[m++].num_samples)
        list[m] = flat + first;
    return (float *const *const *)list;
}

static float **old_of(Own *own)
{
    return &own->old;
}

static float **ref_of(Own *own)
{
    return &own->ref;
}

static float **value_of(Own *own)
{
    return &own->value;
}

static void take_reported(Run *run)
{
    for (int i = 0; i < run->num_own; i++) {
        Own *own = &run->own[i];
        int32_t k = 0;
        own->old = floats(run, own->count);
        for (int32_t t = 1; t < own->sample->length; t++)
            if (own->sample->loss_mask[t]) own->old[k++] = own->sample->log_prob[t];
    }
}

static Status run_passes(Run *run, Error *err)
{
    const PolicyStep *step = run->step;
    const MicroBatch *batches = step->micro_batch;
    StepResult *passes = &run->result->passes;
    int count = step->num_micro_batches;
    if (run->critic != NULL)
        TRY(trainer_values(run->critic, batches, count, by_micro_batch(run, value_of), passes,
                           err));
    if (algorithm_uses_reference(run->algorithm))
        TRY(trainer_log_probs(run->policy, WEIGHTS_REFERENCE, batches, count,
                              by_micro_batch(run, ref_of), passes, err));
    bool current = run->algorithm->old_log_probs == OLD_CURRENT;
    if (run->algorithm->kl_coef == 0.0 && !(current && run->num_updates > 1)) return OK;
    if (current)
        return trainer_log_probs(run->policy, WEIGHTS_CURRENT, batches, count,
                                 by_micro_batch(run, old_of), passes, err);
    take_reported(run);
    return OK;
}

/* ---- advantages ---- */

/* The estimates that rewards are charged for. */
static void estimate_kl(Run *run)
{
    const AlgorithmConfig *algorithm = run->algorithm;
    for (int i = 0; i < run->num_own && algorithm->kl_coef != 0.0; i++) {
        Own *own = &run->own[i];
        own->kl = doubles(run, own->count);
        for (int32_t k = 0; k < own->count; k++) {
            double d = (double)own->old[k] - (double)own->ref[k];
            own->kl[k] = kl_estimate(algorithm->kl_estimator, d);
            run->result->reward_kl += own->kl[k];
        }
    }
}

/* Takes kl_coef times each sample's summed KL off its reward; every rank learns of all. */
static Status charge_kl(Run *run, double *reward, Error *err)
{
    int size = run->step->batch_size;
    double *kl = arena_alloc(run->arena, ((size_t)size + 1) * sizeof *kl);
    for (int i = 0; i < run->num_own; i++)
        for (int32_t k = 0; k < run->own[i].count; k++)
            kl[run->own[i].place] += run->own[i].kl[k];
    TRY(trainer_sum(run->policy, kl, size, err));
    for (int i = 0; i < size; i++)
        reward[i] -= run->algorithm->kl_coef * kl[i];
    return OK;
}

static Status take_scores(Run *run, Error *err)
{
    const PolicyStep *step = run->step;
    size_t size = (size_t)step->batch_size + 1;
    double *reward = arena_alloc(run->arena, size * sizeof *reward);
    int64_t *group = arena_alloc(run->arena, size * sizeof *group);
    run->score = arena_alloc(run->arena, size * sizeof *run->score);
    for (int i = 0; i < step->batch_size; i++) {
        reward[i] = (double)step->batch[i].reward;
        group[i] = step->batch[i].position;
    }
    if (run->algorithm->kl_coef != 0.0 && kl_goes_into_score(run->algorithm->advantage_estimator))
        TRY(charge_kl(run, reward, err));
    return sample_scores(run->algorithm, group, reward, step->batch_size, run->score,
                         &run->result->groups, err);
}

/* Whitens over the trained tokens of all ranks: their moments are merged in rank order. */
static Status whiten_all(Run *run, Error *err)
{
    int dp_rank = 0, dp_size = 1;
    trainer_data_ranks(run->policy, &dp_rank, &dp_size);
    Moments *rank = arena_alloc(run->arena, (size_t)dp_size * sizeof *rank), all = {0};
    for (int i = 0; i < run->num_own; i++)
        moments_add(&rank[dp_rank], run->own[i].advantage, run->own[i].count);
    TRY(trainer_sum(run->policy, (double *)rank, 3 * dp_size, err));
    for (int r = 0; r < dp_size; r++)
        moments_merge(&all, &rank[r]);
    for (int i = 0; i < run->num_own; i++)
        whiten(&all, run->own[i].advantage, run->own[i].count);
    return OK;
}

static Status take_advantages(Run *run, Error *err)
{
    estimate_kl(run);
    TRY(take_scores(run, err));
    for (int i = 0; i < run->num_own; i++) {
        Own *own = &run->own[i];
        own->advantage = doubles(run, own->count);
        double *value = run->critic != NULL ? doubles(run, own->count) : NULL;
        if (run->critic != NULL) own->target = doubles(run, own->count);
        for (int32_t k = 0; value != NULL && k < own->count; k++)
            value[k] = (double)own->value[k];
        TokenReturns returns = {own->count, run->score[own->place], own->kl, value};
        token_advantages(run->algorithm, &returns, own->advantage, own->target);
    }
    return run->algorithm->normalize_advantages ? whiten_all(run, err) : OK;
}

/* ---- updates ---- */

static double token_weight(const AlgorithmConfig *algorithm, int32_t count)
{
    bool by_sample = algorithm->loss_normalization == NORMALIZE_SAMPLE && count > 0;
    return by_sample ? 1.0 / count : 1.0;
}

double policy_normaliser(const AlgorithmConfig *algorithm, const PolicyStep *step)
{
    switch (algorithm->loss_normalization) {
    case NORMALIZE_TOKEN:
        return (double)step->trained_tokens;
    case NORMALIZE_SAMPLE:
        return (double)step->batch_size;
    case NORMALIZE_CONSTANT:
        return (double)algorithm->loss_constant * step->batch_size;
    }
    CHECKF(false, "loss normalization %d", (int)algorithm->loss_normalization);
}

/* The whole batch as one update. */
static TrainStep make_update(Run *run)
{
    const PolicyStep *step = run->step;
    size_t batches = (size_t)step->num_micro_batches;
    TokenData *data = arena_alloc(run->arena, ((size_t)run->num_own + 1) * sizeof *data);
    const TokenData **list = arena_alloc(run->arena, (batches + 1) * sizeof *list);
    for (int i = 0; i < run->num_own; i++) {
        const Own *own = &run->own[i];
        data[i] = (TokenData){
            .count = own->count,
            .weight = token_weight(run->algorithm, own->count),
            .advantage = own->advantage,
            .old_log_prob = own->old,
            .ref_log_prob = own->ref,
            .old_value = own->value,
            .target = own->target,
        };
    }
    for (size_t m = 0, first = 0; m < batches; first += (size_t)step->micro_batch[m++].num_samples)
        list[m] = data + first;
    return (TrainStep){
        .micro_batch = step->micro_batch,
        .num_micro_batches = step->num_micro_batches,
        .step = step->step,
        .trained_tokens = step->trained_tokens,
        .lr = step->lr,
        .normaliser = policy_normaliser(run->algorithm, step),
        .algorithm = run->algorithm,
        .tokens = list,
        .weight_version = step->weight_version,
        .keys_are_kept = step->keys_are_kept,
    };
}

/* Of the whole batch what update `u` has. */
static TrainStep cut_update(const Run *run, const TrainStep *whole, int u)
{
    const Update *update = &run->update[u];
    PolicyStep size = {.trained_tokens = update->trained_tokens, .batch_size = update->samples};
    TrainStep one = *whole;
    one.micro_batch += update->first;
    one.tokens += update->first;
    one.num_micro_batches = update->count;
    one.trained_tokens = update->trained_tokens;
    one.normaliser = policy_normaliser(run->algorithm, &size);
    one.has_moved = u > 0;
    return one;
}

static void add_times(StepResult *sum, const StepResult *other)
{
    sum->forward_s += other->forward_s;
    sum->backward_s += other->backward_s;
    sum->comm_s += other->comm_s;
    sum->optimizer_s += other->optimizer_s;
    sum->flops += other->flops;
}

/* Takes up one of `count` updates. */
static void add_update(StepResult *sum, const StepResult *one, int count)
{
    add_times(sum, one);
    sum->loss_sum += one->loss_sum;
    sum->trained_tokens += one->trained_tokens;
    sum->tokens += one->tokens;
    sum->correct += one->correct;
    sum->grad_norm += one->grad_norm / count;
    sum->skipped |= one->skipped;
    policy_sums_add(&sum->policy, &one->policy);
    value_sums_add(&sum->value, &one->value);
    sum->log_probs_compared += one->log_probs_compared;
    sum->log_probs_differ += one->log_probs_differ;
    sum->age += one->age;
    if (one->age_max > sum->age_max) sum->age_max = one->age_max;
    sum->mixed_samples += one->mixed_samples;
}

static Status update_policy(Run *run, const TrainStep *whole, Error *err)
{
    for (int u = 0; u < run->num_updates; u++) {
        StepResult result;
        TrainStep one = cut_update(run, whole, u);
        one.goes_on = u + 1 < run->num_updates;
        TRY(trainer_train_step(run->policy, &one, &result, err));
        add_update(&run->result->policy, &result, run->num_updates);
    }
    return OK;
}

/* All its updates make one step of the critic. */
static Status update_critic(Run *run, const TrainStep *whole, Error *err)
{
    StepResult spent = {0};
    for (int i = 0; i < run->step->critic_updates; i++) {
        StepResult pass = {0}, result;
        for (int u = 0; u < run->num_updates; u++) {
            TrainStep one = cut_update(run, whole, u);
            one.lr = run->step->critic_lr;
            one.step = trainer_step(run->critic) + 1;
            one.goes_on = i + 1 < run->step->critic_updates || u + 1 < run->num_updates;
            TRY(trainer_train_step(run->critic, &one, &result, err));
            add_update(&pass, &result, run->num_updates);
        }
        add_times(&pass, &spent);
        spent = run->result->critic = pass;
    }
    return OK;
}

static Status run_step(Run *run, Error *err)
{
    TRY(list_own(run, err));
    TRY(check_cover(run, err));
    TRY(list_updates(run, err));
    TRY(run_passes(run, err));
    TRY(take_advantages(run, err));
    TrainStep whole = make_update(run);
    if (run->critic != NULL) TRY(update_critic(run, &whole, err));
    if (run->step->critic_only) {
        run->result->policy.tokens = run->result->critic.tokens; /* what there is of a rate */
        return trainer_pass_step(run->policy, run->step->step, err);
    }
    return update_policy(run, &whole, err);
}

Status policy_step(Trainer *policy, Trainer *critic, const AlgorithmConfig *algorithm,
                   const PolicyStep *step, PolicyStepResult *ret, Error *err)
{
    PolicyStepResult result = {0};
    CHECK((critic != NULL) == (algorithm->advantage_estimator == ADVANTAGE_PPO));
    CHECK(critic != NULL || !step->critic_only);
    Run run = {
        .policy = policy,
        .critic = critic,
        .algorithm = algorithm,
        .step = step,
        .result = &result,
        .arena = arena_create(),
    };
    Status status = run_step(&run, err);
    arena_destroy(run.arena);
    if (status == OK) *ret = result;
    return status;
}
