#include "learner.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "job_options.h"
#include "model/lr_schedule.h"
#include "tensor/safetensors.h"

struct Learner {
    LearnerOptions options;
    const JobConfig *config;   /* in force */
    const DeviceMemory *pools; /* NULL: what is allocated stays */
    Trainer *policy, *critic;
    char *memory_text;
};

/* ---- life ---- */

static void share_options(const Learner *learner, TrainerOptions *ret)
{
    const LearnerOptions *o = &learner->options;
    ret->kernels = o->kernels;
    ret->pools = learner->pools;
    ret->tensor_comm = o->tensor_comm;
    ret->data_comm = o->data_comm;
    ret->on_progress = o->on_progress;
    ret->on_disk_wait = o->on_disk_wait;
    ret->progress_context = o->context;
}

static Status trainer_options(const Learner *learner, TrainerOptions *ret, Error *err)
{
    TRY(job_trainer_options(learner->config, learner->options.memory_bytes, ret, err));
    share_options(learner, ret);
    return OK;
}

/* The critic gets what memory the policy leaves. */
static Status critic_options(const Learner *learner, TrainerOptions *ret, Error *err)
{
    TRY(job_critic_options(learner->config, learner->options.memory_bytes,
                           trainer_memory_bytes(learner->policy), ret, err));
    share_options(learner, ret);
    return OK;
}

static const char *or_model(const JobConfig *config, const char *folder)
{
    return folder != NULL ? folder : config->model.path;
}

/* The weights that a run, or with `start` a stage, begins with. A stage behind another has a seed
 * of its own, also one that began before the first step: the run's weights are not drawn from that.
 */
static Status set_beginning(Learner *learner, const char *start, Error *err)
{
    const JobConfig *config = learner->config;
    if (start != NULL) return trainer_load_weights(learner->policy, start, err);
    if (config->model.init == INIT_RANDOM)
        return trainer_init_random(learner->policy, learner->options.first_seed, err);
    return trainer_load_weights(learner->policy, config->model.path, err);
}

static Status make_policy(Learner *learner, const char *checkpoint, Error *err)
{
    TrainerOptions options = {0};
    bool start = job_refers_to_start(learner->config);
    TRY(trainer_options(learner, &options, err));
    TRY(trainer_create(&options, &learner->policy, err));
    if (start || checkpoint == NULL)
        TRY(set_beginning(learner, start ? learner->options.stage_start : NULL, err));
    if (start) TRY(trainer_keep_reference(learner->policy, err));
    return checkpoint != NULL ? trainer_load(learner->policy, checkpoint, err) : OK;
}

/* A checkpoint of a stage before, or of another job, has none: then the critic is made as the
 * configuration says, like that of ranks which go over to this stage without a restart. */
static Status find_critic(const char *checkpoint, bool *ret, Error *err)
{
    SafetensorsReader *reader = NULL;
    *ret = false;
    if (checkpoint == NULL) return OK;
    Status status = safetensors_open(checkpoint, "critic_model", &reader, err);
    *ret = status == OK;
    safetensors_close(reader);
    return status == ERR_NOT_FOUND ? OK : status;
}

static Status make_critic(Learner *learner, const char *checkpoint, Error *err)
{
    const JobConfig *config = learner->config;
    TrainerOptions options = {0};
    bool saved = false;
    TRY(find_critic(checkpoint, &saved, err));
    TRY(critic_options(learner, &options, err));
    Trainer *critic = NULL;
    TRY(trainer_create(&options, &critic, err));
    Status status =
        saved ? trainer_load(critic, checkpoint, err)
        : config->model.init == INIT_RANDOM && config->algorithm.critic == NULL
            ? trainer_init_random(critic, config->seed, err)
            : trainer_load_weights(critic, or_model(config, config->algorithm.critic), err);
    if (status == OK)
        learner->critic = critic;
    else
        trainer_destroy(critic);
    return status;
}

/* `beginning`: the policy has the weights that the stage begins with. */
static Status make_reference(Learner *learner, bool beginning, Error *err)
{
    const JobConfig *config = learner->config;
    if (job_refers_to_start(config))
        return beginning ? trainer_keep_reference(learner->policy, err) : OK; /* make_policy did */
    return trainer_load_reference(learner->policy, or_model(config, config->algorithm.reference),
                                  err);
}

/* A later stage is to have one: better to hear now that there is no room for it. */
static Status plan_critic(const Learner *learner, Error *err)
{
    TrainerOptions options = {0};
    int64_t bytes = 0;
    char *text = NULL;
    TRY(critic_options(learner, &options, err));
    int tp_size = options.tensor_comm != NULL ? comm_size(options.tensor_comm) : 1;
    Status status = trainer_plan(&options, tp_size, &bytes, NULL, &text, err);
    free(text);
    return status == OK ? OK : error_prefix(err, "the critic of a later stage");
}

static void describe_memory(Learner *learner)
{
    const char *policy = trainer_memory_plan(learner->policy);
    free(learner->memory_text);
    learner->memory_text =
        learner->critic == NULL
            ? mem_strdup(policy)
            : mem_printf("%s; critic: %s", policy, trainer_memory_plan(learner->critic));
}

static Status find_pools(Learner *learner, Error *err)
{
    char why[256] = "it is the host's";
    const DeviceMemory *memory = learner->options.memory;
    if (learner->config->rollout.offload != OFFLOAD_ON) return OK;
    if (memory == NULL || !memory->has_pools(why, sizeof why))
        return error_set(err, ERR_UNSUPPORTED,
                         "rollout.offload: the device's memory cannot be given back while others "
                         "work: %s.\nWrite rollout.offload: false, or colocate: false.",
                         why);
    learner->pools = memory;
    return OK;
}

const DeviceMemory *learner_pools(const Learner *learner)
{
    return learner->pools;
}

Status learner_create(const LearnerOptions *options, const char *checkpoint, Learner **ret,
                      Error *err)
{
    Learner *learner = mem_calloc(1, sizeof *learner);
    learner->options = *options;
    learner->config = options->config;
    Status status = find_pools(learner, err);
    if (status == OK) status = make_policy(learner, checkpoint, err);
    if (status == OK && job_wants_reference(learner->config))
        status = make_reference(learner, false, err);
    if (status == OK && job_wants_critic(learner->config))
        status = make_critic(learner, checkpoint, err);
    else if (status == OK && job_has_room_for_critic(learner->config))
        status = plan_critic(learner, err);
    if (status != OK) {
        learner_destroy(learner);
        return status;
    }
    describe_memory(learner);
    *ret = learner;
    return OK;
}

void learner_destroy(Learner *learner)
{
    if (learner == NULL) return;
    trainer_destroy(learner->policy);
    trainer_destroy(learner->critic);
    free(learner->memory_text);
    free(learner);
}

Trainer *learner_policy(const Learner *learner)
{
    return learner->policy;
}

const char *learner_memory_plan(const Learner *learner)
{
    return learner->memory_text;
}

int64_t learner_memory_bytes(const Learner *learner)
{
    int64_t critic = learner->critic != NULL ? trainer_memory_bytes(learner->critic) : 0;
    return trainer_memory_bytes(learner->policy) + critic;
}

LoadTimes learner_load_times(const Learner *learner)
{
    LoadTimes times = trainer_load_times(learner->policy);
    if (learner->critic != NULL) {
        LoadTimes critic = trainer_load_times(learner->critic);
        times.read_ns += critic.read_ns;
        times.upload_ns += critic.upload_ns;
    }
    return times;
}

/* ---- another configuration ---- */

static Status check_sizes(const Learner *learner, const JobConfig *config, Error *err)
{
    const JobConfig *now = learner->config;
    int64_t length = now->train.memory_length, tokens = now->train.memory_tokens_per_gpu;
    if (config->data.max_length > length || job_micro_batch_tokens(config) > tokens)
        return error_set(
            err, ERR_INVALID,
            "the train workers were started for samples of %lld tokens in "
            "micro-batches of %lld, the new configuration wants %lld and %lld.\n"
            "Lower data.max_length and train.max_tokens_per_gpu, or start the run with "
            "train.memory_length and train.memory_tokens_per_gpu of that size.",
            (long long)length, (long long)tokens, (long long)config->data.max_length,
            (long long)job_micro_batch_tokens(config));
    if (config->model.dtype != now->model.dtype || config->train.tp_size != now->train.tp_size ||
        config->train.dp_size != now->train.dp_size)
        return error_set(err, ERR_INVALID,
                         "model.dtype, train.tp_size and train.dp_size of running train workers "
                         "cannot change.\nStop the run and start it again with the new file.");
    return OK;
}

static void set_optimizer(const JobConfig *config, Trainer *trainer)
{
    TrainerOptimizer optimizer = {
        .adam_beta1 = config->train.adam_beta1,
        .adam_beta2 = config->train.adam_beta2,
        .adam_eps = config->train.adam_eps,
        .weight_decay = config->train.weight_decay,
        .clip_grad = config->train.clip_grad,
    };
    if (trainer != NULL) trainer_set_optimizer(trainer, &optimizer);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

Status learner_configure(Learner *learner, const JobConfig *config, Error *err)
{
    const JobConfig *before = learner->config;
    TRY(check_sizes(learner, config, err));
    learner->config = config;
    bool same = job_wants_reference(before) && !job_refers_to_start(config) &&
                same_text(or_model(before, before->algorithm.reference),
                          or_model(config, config->algorithm.reference));
    Status status = OK;
    if (job_wants_reference(config) && !same) status = make_reference(learner, true, err);
    if (status == OK && job_wants_critic(config) && learner->critic == NULL)
        status = make_critic(learner, NULL, err);
    if (status != OK) {
        learner->config = before;
        return status;
    }
    if (!job_wants_critic(config)) { /* nor would ranks have one that start in this stage */
        trainer_destroy(learner->critic);
        learner->critic = NULL;
    }
    set_optimizer(config, learner->policy);
    set_optimizer(config, learner->critic);
    describe_memory(learner);
    return OK;
}

/* ---- work ---- */

static double rate_at(const JobConfig *config, double lr, const LearnerStep *step)
{
    LrPlan schedule = {
        .schedule = config->train.lr_schedule,
        .lr = lr,
        .min_lr = config->train.min_lr < lr ? config->train.min_lr : lr,
        .num_steps = step->total_steps,
        .warmup_steps = config->train.warmup_steps,
        .decay_steps = config->train.decay_steps,
    };
    return lr_plan_at(&schedule, step->step - step->first_step);
}

static int count_samples(const LearnerStep *step)
{
    int count = 0;
    for (int m = 0; m < step->num_micro_batches; m++)
        count += step->micro_batch[m].num_samples;
    return count;
}

/* Adds up samples by the source that they are of. */
static void sum_by_source(const LearnerStep *step, const double *loss, LearnerResult *result)
{
    for (int m = 0, at = 0; m < step->num_micro_batches; m++)
        for (int s = 0; s < step->micro_batch[m].num_samples; s++, at++) {
            SourceLoss *sum = &result->source[step->source[at]];
            sum->loss_sum += loss[at];
            sum->trained_tokens += sample_meta(step->micro_batch[m].sample[s]).trained_tokens;
        }
}

static Status supervised_step(Learner *learner, const LearnerStep *step, LearnerResult *result,
                              Error *err)
{
    double *loss = NULL;
    if (step->source != NULL) loss = mem_calloc((size_t)count_samples(step), sizeof *loss);
    TrainStep train = {
        .micro_batch = step->micro_batch,
        .num_micro_batches = step->num_micro_batches,
        .step = step->step,
        .trained_tokens = step->trained_tokens,
        .lr = result->lr,
        .sample_loss = loss,
    };
    Status status = trainer_train_step(learner->policy, &train, &result->result.policy, err);
    if (status == OK && loss != NULL) sum_by_source(step, loss, result);
    free(loss);
    return status;
}

/* 0: all of a batch. */
static int groups_of_update(const JobConfig *config)
{
    bool several = config->train.num_steps_per_rollout > 1;
    int64_t group = config->rollout.n_samples_per_prompt;
    return several ? (int)(config->train.global_batch_size / group) : 0;
}

static Status rewarded_step(Learner *learner, const LearnerStep *step, LearnerResult *result,
                            Error *err)
{
    const JobConfig *config = learner->config;
    const AlgorithmConfig *algorithm = &config->algorithm;
    Trainer *critic = job_wants_critic(config) ? learner->critic : NULL;
    double critic_lr = algorithm->critic_lr > 0.0 ? algorithm->critic_lr : config->train.lr;
    PolicyStep policy = {
        .micro_batch = step->micro_batch,
        .num_micro_batches = step->num_micro_batches,
        .step = step->step,
        .trained_tokens = step->trained_tokens,
        .lr = result->lr,
        .weight_version = step->weight_version,
        .keys_are_kept = config->rollout.partial == PARTIAL_KEEP,
        .batch = step->batch,
        .batch_size = step->batch_size,
        .critic_lr = rate_at(config, critic_lr, step),
        .critic_updates = (int)algorithm->critic_updates,
        .groups_of_update = groups_of_update(config),
    };
    /* By the critic's own count, so that it is the same after a resume, and after a swap. */
    policy.critic_only = critic != NULL && trainer_step(critic) < algorithm->critic_only_steps;
    result->normaliser = policy_normaliser(algorithm, &policy);
    return policy_step(learner->policy, critic, algorithm, &policy, &result->result, err);
}

Status learner_step(Learner *learner, const LearnerStep *step, LearnerResult *ret, Error *err)
{
    bool rewarded = job_learns_by_rewards(learner->config);
    if (rewarded != (step->batch != NULL))
        return error_set(err, ERR_INVALID,
                         rewarded ? "step %lld comes without rewards, but the job learns by them"
                                  : "step %lld comes with rewards, but the job is supervised",
                         (long long)step->step);
    LearnerResult result = {
        .lr = rate_at(learner->config, learner->config->train.lr, step),
        .normaliser = (double)step->trained_tokens,
    };
    TRY(rewarded ? rewarded_step(learner, step, &result, err)
                 : supervised_step(learner, step, &result, err));
    *ret = result;
    return OK;
}

/* Takes the second list into the first. */
static void join_files(SavedFiles *files, SavedFiles *more)
{
    size_t total = (size_t)(files->num_files + more->num_files);
    files->file = mem_realloc(files->file, total, sizeof *files->file);
    memcpy(files->file + files->num_files, more->file,
           (size_t)more->num_files * sizeof *more->file);
    files->num_files = (int)total;
    free(more->file);
}

Status learner_save(Learner *learner, const char *folder, SavedFiles *ret, Error *err)
{
    SavedFiles files = {0}, critics = {0};
    Error later;
    Status status = trainer_save(learner->policy, folder, &files, err);
    /* Also after a failure of this rank alone: the others count on it in the collectives. */
    if (learner->critic != NULL) {
        Status critic =
            trainer_save(learner->critic, folder, &critics, status == OK ? err : &later);
        if (status == OK) status = critic;
    }
    if (status != OK) {
        saved_files_clear(&files);
        saved_files_clear(&critics);
        return status;
    }
    if (critics.num_files > 0) join_files(&files, &critics);
    *ret = files;
    return OK;
}
