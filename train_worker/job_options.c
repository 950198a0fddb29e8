#include "job_options.h"

DType job_dtype(const JobConfig *config)
{
    return config->model.dtype == MODEL_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

Status job_trainer_options(const JobConfig *config, int64_t memory_bytes, TrainerOptions *ret,
                           Error *err)
{
    TrainerOptions options = {
        .dtype = job_dtype(config),
        .max_tokens = config->train.max_tokens_per_gpu,
        .max_sequence_length = config->data.max_length,
        .adam_beta1 = config->train.adam_beta1,
        .adam_beta2 = config->train.adam_beta2,
        .adam_eps = config->train.adam_eps,
        .weight_decay = config->train.weight_decay,
        .clip_grad = config->train.clip_grad,
        .memory_bytes_max = memory_bytes / 10 * 9 / (config->train.tp_size * config->train.dp_size),
    };
    if (config->train.micro_batch_size > 0)
        options.max_tokens = config->train.micro_batch_size * config->data.max_length;
    TRY(model_config_read(config->model.config, &options.model, err));
    *ret = options;
    return OK;
}
