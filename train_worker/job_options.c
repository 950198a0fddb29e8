#include "job_options.h"

DType job_dtype(const JobConfig *config)
{
    return config->model.dtype == MODEL_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

bool job_learns_by_rewards(const JobConfig *config)
{
    return config->rollout.function != ROLLOUT_SFT;
}

bool job_wants_reference(const JobConfig *config)
{
    return job_learns_by_rewards(config) && algorithm_uses_reference(&config->algorithm);
}

bool job_wants_critic(const JobConfig *config)
{
    return job_learns_by_rewards(config) && config->algorithm.advantage_estimator == ADVANTAGE_PPO;
}

int64_t job_memory_share(const JobConfig *config, int64_t memory_bytes)
{
    return memory_bytes / 10 * 9 / (config->train.tp_size * config->train.dp_size);
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
        .memory_bytes_max = job_memory_share(config, memory_bytes),
    };
    if (job_wants_critic(config)) options.memory_bytes_max /= 2;
    TRY(model_config_read(config->model.config, &options.model, err));
    *ret = options;
    return OK;
}
