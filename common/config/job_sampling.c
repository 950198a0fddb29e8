/* Sampling: whether what a job says of it makes sense, and what it does to learning. */
#include <stdlib.h>

#include "config/eval_set.h"
#include "config/job_internal.h"

static const char LEAST[] = "rollout.min_new_tokens";

/* `key` names the number, `of` its limit. */
static Status check_least(const LoadedJob *job, const char *key, int64_t least, int64_t most,
                          Error *err)
{
    if (least <= most) return OK;
    bool is_row = config_find(&job_table, key) < 0;
    return job_refuse(job, is_row ? "eval.sets" : key, NULL, err,
                      "%s is %lld, more than the %lld tokens that an answer may have "
                      "(max_response_length).\nLower it, or raise max_response_length.",
                      key, (long long)least, (long long)most);
}

Status job_check_sampling(const LoadedJob *job, Error *err)
{
    const JobConfig *config = &job->config;
    int64_t longest = config->rollout.max_response_length;
    TRY(check_least(job, LEAST, config->rollout.min_new_tokens, longest, err));
    for (int i = 0; i < eval_set_count(config); i++) {
        EvalSet set = eval_set(config, i);
        bool own = set.min_new_tokens != config->eval.min_new_tokens;
        int64_t most = set.max_response_length > 0 ? set.max_response_length : longest;
        char *key = mem_printf("%s.min_new_tokens", own ? set.key : "eval");
        Status status = check_least(job, key, set.min_new_tokens, most, err);
        free(key);
        TRY(status);
    }
    return OK;
}

static void put_key(Str *keys, const char *key, const JobConfig *config, bool biases)
{
    if (!biases) return;
    str_printf(keys, "%s%s ", keys->length > 0 ? ", " : "", key);
    config_value_text(config_key(&job_table, config_find(&job_table, key)), config, keys);
}

char *job_sampling_bias(const JobConfig *config)
{
    Str keys = {0};
    const PenaltyConfig *penalty = &config->rollout.penalty;
    if (config->rollout.function == ROLLOUT_SFT || config->rollout.only) return NULL;
    put_key(&keys, "rollout.top_p", config, config->rollout.top_p != 1.0);
    put_key(&keys, "rollout.top_k", config, config->rollout.top_k != 0);
    put_key(&keys, "rollout.min_p", config, config->rollout.min_p != 0.0);
    put_key(&keys, "rollout.repetition_penalty", config, penalty->repetition != 1.0);
    put_key(&keys, "rollout.frequency_penalty", config, penalty->frequency != 0.0);
    put_key(&keys, "rollout.presence_penalty", config, penalty->presence != 0.0);
    put_key(&keys, LEAST, config, config->rollout.min_new_tokens != 0);
    return keys.length > 0 ? str_take(&keys) : NULL;
}
