#include "config/eval_set.h"

#include <stdlib.h>
#include <string.h>

#include "config/job_internal.h"
#include "config/rows.h"

static const ConfigKey *sets_key(void)
{
    return config_key(&job_table, config_find(&job_table, "eval.sets"));
}

static bool has_unnamed(const JobConfig *config)
{
    return config->data.eval.count > 0;
}

int eval_set_count(const JobConfig *config)
{
    return has_unnamed(config) + config->eval.sets.count;
}

RecordKeys eval_set_record_keys(const JobConfig *config, int index)
{
    if (index >= 0) return eval_set(config, index).record;
    return (RecordKeys){.input = config->data.input_key,
                        .label = config->data.label_key,
                        .tool = config->data.tool_key,
                        .metadata = config->data.metadata_key};
}

/* What holds where a set says nothing itself. */
static EvalSet common_set(const JobConfig *config)
{
    return (EvalSet){
        .name = "eval",
        .key = "data.eval",
        .path = &config->data.eval,
        .record = eval_set_record_keys(config, -1),
        .reward = config->rollout.reward,
        .n_samples_per_prompt = config->eval.n_samples_per_prompt,
        .max_response_length = config->eval.max_response_length,
        .top_k = config->eval.top_k,
        .temperature = config->eval.temperature,
        .top_p = config->eval.top_p,
        .min_p = config->eval.min_p,
        .penalty = config->eval.penalty,
        .stop = &config->rollout.stop,
        .stop_token_ids = &config->rollout.stop_token_ids,
        .min_new_tokens = config->eval.min_new_tokens,
        .ignore_eos = config->rollout.ignore_eos,
    };
}

EvalSet eval_set(const JobConfig *config, int index)
{
    CHECK(index >= 0 && index < eval_set_count(config));
    EvalSet set = common_set(config);
    if (has_unnamed(config) && index-- == 0) return set;
    const ConfigKey *key = sets_key();
    const EvalSetRow *row = (const EvalSetRow *)row_at(key, &config->eval.sets, index);
#define GIVEN(name) row_gives(key, &row->head, name)
    set.name = row->head.name;
    set.key = row->head.path;
    set.path = &row->path;
    if (GIVEN("reward")) set.reward = row->reward;
    if (GIVEN("n_samples_per_prompt")) set.n_samples_per_prompt = row->n_samples_per_prompt;
    if (GIVEN("max_response_length")) set.max_response_length = row->max_response_length;
    if (GIVEN("top_k")) set.top_k = row->top_k;
    if (GIVEN("temperature")) set.temperature = row->temperature;
    if (GIVEN("top_p")) set.top_p = row->top_p;
    if (GIVEN("min_p")) set.min_p = row->min_p;
    if (GIVEN("repetition_penalty")) set.penalty.repetition = row->penalty.repetition;
    if (GIVEN("frequency_penalty")) set.penalty.frequency = row->penalty.frequency;
    if (GIVEN("presence_penalty")) set.penalty.presence = row->penalty.presence;
    if (GIVEN("stop")) set.stop = &row->stop;
    if (GIVEN("stop_token_ids")) set.stop_token_ids = &row->stop_token_ids;
    if (GIVEN("min_new_tokens")) set.min_new_tokens = row->min_new_tokens;
    if (GIVEN("ignore_eos")) set.ignore_eos = row->ignore_eos;
    if (GIVEN("input_key")) set.record.input = row->input_key;
    if (GIVEN("label_key")) set.record.label = row->label_key;
    if (GIVEN("tool_key")) set.record.tool = row->tool_key;
    if (GIVEN("metadata_key")) set.record.metadata = row->metadata_key;
#undef GIVEN
    return set;
}

int eval_set_find(const JobConfig *config, const char *name)
{
    for (int i = 0; i < eval_set_count(config); i++)
        if (strcmp(eval_set(config, i).name, name) == 0) return i;
    return -1;
}

int64_t eval_set_samples_max(const JobConfig *config)
{
    int64_t most = 1;
    for (int i = 0; i < eval_set_count(config); i++) {
        int64_t samples = eval_set(config, i).n_samples_per_prompt;
        if (samples > most) most = samples;
    }
    return most;
}

/* ---- what is measured ---- */

static const struct {
    const char *name;
    bool generated;
    BestMode mode;
} figures[FIGURE_COUNT] = {
    [FIGURE_LOSS] = {"loss", false, BEST_MIN},
    [FIGURE_PERPLEXITY] = {"perplexity", false, BEST_MIN},
    [FIGURE_TOKEN_ACCURACY] = {"token_accuracy", false, BEST_MAX},
    [FIGURE_REWARD] = {"reward", true, BEST_MAX},
    [FIGURE_ACCURACY] = {"accuracy", true, BEST_MAX},
    [FIGURE_PASS_AT] = {"pass@", true, BEST_MAX},
    [FIGURE_RESPONSE_LENGTH] = {"response_len/mean", true, BEST_UNSAID},
    [FIGURE_TRUNCATED] = {"truncated_ratio", true, BEST_MIN},
};

const char *eval_figure_name(EvalFigure figure)
{
    return figures[figure].name;
}

bool eval_figure_is_generated(EvalFigure figure)
{
    return figures[figure].generated;
}

BestMode eval_figure_mode(EvalFigure figure)
{
    return figures[figure].mode;
}

static bool find_figure(const char *name, EvalGoal *ret)
{
    for (EvalFigure figure = 0; figure < FIGURE_COUNT; figure++) {
        ret->figure = figure;
        if (figure != FIGURE_PASS_AT && strcmp(name, figures[figure].name) == 0) return true;
    }
    if (!str_starts_with(name, "pass@")) return false;
    char *end = NULL;
    long k = strtol(name + strlen("pass@"), &end, 10);
    ret->figure = FIGURE_PASS_AT;
    ret->k = (int)k;
    return end != name + strlen("pass@") && *end == '\0' && k > 0 && (k & (k - 1)) == 0;
}

/* The figure's name where `text` begins with the name of the set, else NULL. */
static const char *behind_name(const char *text, const char *name)
{
    size_t length = strlen(name);
    return strncmp(text, name, length) == 0 && text[length] == '/' ? text + length + 1 : NULL;
}

bool eval_goal(const JobConfig *config, EvalGoal *ret)
{
    const char *metric = config->eval.best_metric;
    if (metric == NULL) return false;
    const char *whole = behind_name(metric, "eval"); /* as metrics.jsonl has it */
    for (int i = 0; i < eval_set_count(config); i++) {
        const char *name = eval_set(config, i).name;
        const char *figure = behind_name(metric, name);
        if (figure == NULL && whole != NULL) figure = behind_name(whole, name);
        EvalGoal goal = {.set = i};
        if (figure == NULL || !find_figure(figure, &goal)) continue;
        if (goal.figure == FIGURE_PASS_AT && goal.k > eval_set(config, i).n_samples_per_prompt)
            continue;
        *ret = goal;
        return true;
    }
    return false;
}
