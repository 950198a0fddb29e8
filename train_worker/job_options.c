#include "job_options.h"

#include <math.h>

#include "base/plural.h"
#include "model/weight_board.h"

DType job_dtype(const JobConfig *config)
{
    return config->model.dtype == MODEL_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

DeviceKind job_device(const JobConfig *config)
{
    return config->device == JOB_CUDA ? DEVICE_CUDA : DEVICE_CPU;
}

int job_threads(const JobConfig *config)
{
    if (config->train.threads > 0) return (int)config->train.threads;
    int cpus = (int)floor(config->cluster.cpus_per_train_worker);
    return cpus > 1 ? cpus : 1;
}

Status job_open_device(const JobConfig *config, const KernelTable **ret, DeviceInfo *ret_info,
                       Error *err)
{
    DeviceKind kind = job_device(config);
    DeviceOptions options = {.num_threads = job_threads(config)};
    Status status = device_open(kind, &options, ret, ret_info, err);
    return status == OK ? OK : error_prefix(err, "device: %s", device_kind_name(kind));
}

bool job_learns_by_rewards(const JobConfig *config)
{
    return config->rollout.function != ROLLOUT_SFT;
}

int64_t job_memory_share(const JobConfig *config, int64_t memory_bytes)
{
    int64_t ranks = config->train.tp_size * config->train.dp_size;
    int64_t asked = (int64_t)(config->train.memory_gb * 0x1p30) / ranks;
    bool is_there = config->device == JOB_CPU || memory_bytes == 0 || asked <= memory_bytes;
    if (asked > 0 && is_there) return asked;
    if (config->device != JOB_CPU) ranks = 1;
    return memory_bytes / 10 * 9 / ranks;
}

Status job_check_memory(const JobConfig *config, int64_t memory_bytes, Error *err)
{
    int64_t ranks = config->train.tp_size * config->train.dp_size;
    double asked = config->train.memory_gb / (double)ranks, has = (double)memory_bytes / 0x1p30;
    if (config->device == JOB_CPU || memory_bytes == 0 || asked <= has) return OK;
    error_set(err, ERR_RESOURCE,
              "train.memory_gb: %g GiB for %lld train worker%s, which is %.2f GiB of a GPU, but "
              "this one has %.2f GiB free.\n"
              "Write at most %g, or leave it out: then a train worker may use nine tenths of what "
              "is free.",
              config->train.memory_gb, (long long)ranks, plural(ranks), asked, has,
              floor(has * 90 * (double)ranks) / 100);
    return job_config_locate(config, err);
}

/* One where generation lets go of the weights before others are written. */
int job_shown_weights(const JobConfig *config)
{
    if (config->device == JOB_CPU || !job_learns_by_rewards(config)) return 0;
    return config->rollout.offload == OFFLOAD_ON ? 1 : WEIGHT_BOARD_SLOTS_MAX;
}

Status job_trainer_options(const JobConfig *config, int64_t memory_bytes, TrainerOptions *ret,
                           Error *err)
{
    TrainerOptions options = {
        .dtype = job_dtype(config),
        .max_tokens = config->train.memory_tokens_per_gpu,
        .max_sequence_length = config->train.memory_length,
        .adam_beta1 = config->train.adam_beta1,
        .adam_beta2 = config->train.adam_beta2,
        .adam_eps = config->train.adam_eps,
        .weight_decay = config->train.weight_decay,
        .clip_grad = config->train.clip_grad,
        .with_reference = job_wants_reference(config),
        .room_for_reference = config->train.memory_reference,
        .memory_bytes_max = job_memory_share(config, memory_bytes),
        .shown_weights = job_shown_weights(config),
    };
    if (job_has_room_for_critic(config)) options.memory_bytes_max /= 2;
    TRY(model_config_read(config->model.config, &options.model, err));
    *ret = options;
    return OK;
}

bool job_has_room_for_critic(const JobConfig *config)
{
    return config->train.memory_critic || job_wants_critic(config);
}

Status job_critic_options(const JobConfig *config, int64_t memory_bytes, int64_t taken,
                          TrainerOptions *ret, Error *err)
{
    TRY(job_trainer_options(config, memory_bytes, ret, err));
    ret->model.value_head = true;
    ret->with_reference = ret->room_for_reference = false;
    ret->shown_weights = 0;
    int64_t share = job_memory_share(config, memory_bytes);
    if (share > 0) ret->memory_bytes_max = share > taken ? share - taken : 1; /* 0: no limit */
    return OK;
}
