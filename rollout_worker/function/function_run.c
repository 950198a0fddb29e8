#include "rollout_worker/function/function_run.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/rng.h"

#define GENERATIONS_MAX 1024 /* samples of one call */

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

void function_run_begin(FunctionRun *run, const FunctionHost *host, const FunctionTask *task,
                        const FunctionEngine *engine)
{
    *run = (FunctionRun){.host = host, .task = task, .engine = engine};
    run->pieces = (PieceContext){.model = host->model,
                                 .template_kwargs = host->template_kwargs,
                                 .outputs = &run->outputs,
                                 .now = task->now};
}

void function_run_end(FunctionRun *run)
{
    output_table_clear(&run->outputs);
}

/* ---- what the function is told ---- */

static void append_json(Str *out, const char *key, const cJSON *value)
{
    str_printf(out, ", \"%s\": ", key);
    if (value != NULL)
        json_append(out, value);
    else
        str_puts(out, "null");
}

static void append_text(Str *out, const char *key, const char *text)
{
    str_printf(out, ", \"%s\": ", key);
    if (text != NULL)
        json_append_string(out, text);
    else
        str_puts(out, "null");
}

static void append_stops(Str *out, const SamplingParams *params)
{
    str_puts(out, ", \"stop\": [");
    for (int i = 0; i < params->num_stop; i++) {
        if (i > 0) str_puts(out, ", ");
        json_append_string(out, params->stop[i]);
    }
    str_puts(out, "], \"stop_token_ids\": [");
    for (int i = 0; i < params->num_stop_token_ids; i++)
        str_printf(out, "%s%d", i > 0 ? ", " : "", params->stop_token_id[i]);
    str_puts(out, "]}");
}

void function_run_describe(const FunctionRun *run, Str *out)
{
    const FunctionTask *task = run->task;
    const SamplingParams *params = &task->params;
    str_printf(out, ", \"position\": %" PRId64 ", \"samples\": %d, \"evaluation\": %s",
               task->position, task->num_samples, task->evaluation ? "true" : "false");
    str_printf(out, ", \"max_length\": %d", task->max_length);
    append_text(out, "model", run->host->model_path);
    append_json(out, "options", run->host->options);
    str_printf(out,
               ", \"sampling\": {\"temperature\": %g, \"top_p\": %g, \"top_k\": %d, \"min_p\": %g, "
               "\"repetition_penalty\": %g, \"frequency_penalty\": %g, \"presence_penalty\": %g, "
               "\"max_new_tokens\": %d, \"min_new_tokens\": %d, \"ignore_eos\": %s",
               params->temperature, params->top_p, params->top_k, params->min_p,
               params->repetition_penalty, params->frequency_penalty, params->presence_penalty,
               params->max_new_tokens, params->min_new_tokens,
               params->ignore_eos ? "true" : "false");
    append_stops(out, params);
    append_json(out, "messages", task->messages);
    append_text(out, "label", task->label);
    append_json(out, "metadata", task->metadata);
    append_json(out, "tools", task->tools);
    append_json(out, "record", task->record);
}

Status function_run_text(const FunctionRun *run, const Output *output, char **ret,
                         size_t *ret_bytes, Error *err)
{
    const Generation *made = &output->generation;
    bool ended = made->stop_token >= 0;
    return tokenizer_decode(text_model_tokenizer(run->host->model), made->token,
                            (size_t)(made->length - ended), false, ret, ret_bytes, err);
}

/* ---- generate ---- */

/* Lists of a request's sampling, while it runs. */
typedef struct Stops {
    const char *text[SAMPLING_STOPS_MAX];
    int32_t token[SAMPLING_STOPS_MAX];
} Stops;

static Status read_stops(const cJSON *json, Stops *stops, SamplingParams *ret, Error *err)
{
    const cJSON *texts = member(json, "stop"), *tokens = member(json, "stop_token_ids");
    const cJSON *entry = NULL;
    int count = 0;
    cJSON_ArrayForEach(entry, texts)
    {
        if (!cJSON_IsString(entry) || count == SAMPLING_STOPS_MAX)
            return error_set(err, ERR_INVALID, "stop is no list of at most %d texts",
                             SAMPLING_STOPS_MAX);
        stops->text[count++] = entry->valuestring;
    }
    if (texts != NULL) ret->stop = stops->text, ret->num_stop = count;
    count = 0;
    cJSON_ArrayForEach(entry, tokens)
    {
        if (!cJSON_IsNumber(entry) || count == SAMPLING_STOPS_MAX)
            return error_set(err, ERR_INVALID, "stop_token_ids is no list of at most %d numbers",
                             SAMPLING_STOPS_MAX);
        stops->token[count++] = entry->valueint;
    }
    if (tokens != NULL) ret->stop_token_id = stops->token, ret->num_stop_token_ids = count;
    return OK;
}

static Status read_sampling(const cJSON *json, Stops *stops, SamplingParams *ret, Error *err)
{
    static const char *const known[] = {"temperature",
                                        "top_p",
                                        "top_k",
                                        "min_p",
                                        "repetition_penalty",
                                        "frequency_penalty",
                                        "presence_penalty",
                                        "max_new_tokens",
                                        "min_new_tokens",
                                        "stop",
                                        "stop_token_ids",
                                        "ignore_eos"};
    static const size_t count = sizeof known / sizeof known[0];
    static const char *const where = "sampling";
    const cJSON *entry = NULL;
    int64_t top_k = ret->top_k, most = ret->max_new_tokens, least = ret->min_new_tokens;
    cJSON_ArrayForEach(entry, json)
    {
        bool found = false;
        for (size_t i = 0; i < count; i++)
            found = found || strcmp(known[i], entry->string) == 0;
        if (found) continue;
        const char *nearest = str_nearest(entry->string, known, count);
        error_set(err, ERR_INVALID, "sampling has no key %s", QUOTED(entry->string));
        if (nearest != NULL) error_append(err, "did you mean %s?", nearest);
        return ERR_INVALID;
    }
    TRY(json_double_or(json, "temperature", where, &ret->temperature, err));
    TRY(json_double_or(json, "top_p", where, &ret->top_p, err));
    TRY(json_double_or(json, "min_p", where, &ret->min_p, err));
    TRY(json_double_or(json, "repetition_penalty", where, &ret->repetition_penalty, err));
    TRY(json_double_or(json, "frequency_penalty", where, &ret->frequency_penalty, err));
    TRY(json_double_or(json, "presence_penalty", where, &ret->presence_penalty, err));
    TRY(json_int_or(json, "top_k", where, -1, INT32_MAX, &top_k, err));
    TRY(json_int_or(json, "max_new_tokens", where, 1, INT32_MAX, &most, err));
    TRY(json_int_or(json, "min_new_tokens", where, 0, INT32_MAX, &least, err));
    TRY(json_bool_or(json, "ignore_eos", where, &ret->ignore_eos, err));
    ret->top_k = (int32_t)top_k;
    ret->max_new_tokens = (int32_t)most;
    ret->min_new_tokens = (int32_t)least;
    return read_stops(json, stops, ret, err);
}

/* Which noise a call draws from: its own of the record and the sample; a program that wants
 * another answer to the same question for the same sample says another `draw`. */
static uint64_t noise_of(const FunctionTask *task, int64_t draw)
{
    return draw == 0 ? task->sample : task->sample ^ rng_mix((uint64_t)draw);
}

static Status read_request(const FunctionRun *run, const cJSON *message, Stops *stops,
                           GenerateRequest *ret, Error *err)
{
    int64_t index = 0, count = 1, draw = 0;
    static const char *const where = "generate";
    ret->params = run->task->params;
    TRY(json_int_or(message, "index", where, 0, INT32_MAX, &index, err));
    TRY(json_int_or(message, "samples", where, 1, GENERATIONS_MAX, &count, err));
    TRY(json_int_or(message, "draw", where, 0, INT64_MAX >> 11, &draw, err));
    TRY(read_sampling(member(message, "sampling"), stops, &ret->params, err));
    ret->sample = noise_of(run->task, draw);
    ret->first_index = (uint32_t)index;
    ret->num_samples = (int)count;
    return OK;
}

static bool has_call(const OutputTable *outputs, const char *call)
{
    for (int i = 0; i < outputs->count; i++)
        if (strcmp(outputs->output[i].call, call) == 0) return true;
    return false;
}

/* The prompt of a request, and how much may be generated from it. */
static Status read_prompt(const FunctionRun *run, const cJSON *message, SampleBuilder *prompt,
                          GenerateRequest *request, Error *err)
{
    const Output *last = NULL;
    TRY(pieces_resolve(&run->pieces, member(message, "prompt"), prompt, &last, err));
    int32_t room = run->task->max_length - prompt->length;
    if (prompt->length == 0) return error_set(err, ERR_DATA, "the prompt is empty");
    if (room < 1)
        return error_set(err, ERR_DATA, "the prompt has %d tokens and leaves no room within %d",
                         prompt->length, run->task->max_length);
    if (request->params.max_new_tokens > room) request->params.max_new_tokens = room;
    if (request->params.min_new_tokens > request->params.max_new_tokens)
        request->params.min_new_tokens = request->params.max_new_tokens;
    request->prompt = prompt->token;
    request->prompt_length = prompt->length;
    return OK;
}

Status function_run_generate(FunctionRun *run, const cJSON *message, FunctionOutputs *ret,
                             Error *err)
{
    const char *call = cJSON_GetStringValue(member(message, "call"));
    if (call == NULL || has_call(&run->outputs, call))
        return error_set(err, ERR_INVALID, "a generate has no call of its own, a text");
    Stops stops;
    SampleBuilder prompt = {0};
    GenerateRequest request = {0};
    Generation *made = NULL;
    Error inner = {0};
    *ret = (FunctionOutputs){.first = run->outputs.count};
    Status status = read_request(run, message, &stops, &request, &inner);
    if (status == OK) status = read_prompt(run, message, &prompt, &request, &inner);
    bool asked = status == OK;
    if (asked) {
        made = mem_calloc((size_t)request.num_samples, sizeof *made);
        status = run->engine->generate(run->engine->context, &request, made, &inner);
    }
    if (status == OK) {
        for (int i = 0; i < request.num_samples; i++)
            output_table_add(&run->outputs, call, i, &made[i], prompt.token, prompt.length);
        ret->count = request.num_samples;
    } else if (!asked || status == ERR_INVALID || status == ERR_RESOURCE) {
        ret->refusal = mem_strdup(inner.message);
        status = OK;
    } else {
        error_set(err, status, "%s", inner.message);
    }
    free(made);
    sample_builder_free(&prompt);
    return status;
}

/* ---- samples ---- */

/* What the function itself says of how good a sample is. */
static Status read_reward(const FunctionRun *run, const cJSON *json, Answer *ret, Error *err)
{
    const cJSON *reward = member(json, "reward"), *right = member(json, "right");
    if (reward == NULL && !run->task->rewards)
        return error_set(err, ERR_INVALID,
                         "it has no reward, and the job names none (rollout.reward)");
    if (reward != NULL && (!cJSON_IsNumber(reward) || !isfinite(reward->valuedouble)))
        return error_set(err, ERR_INVALID, "reward is %s, expected a number",
                         json_type_name(reward));
    if (right != NULL && (!cJSON_IsBool(right) || reward == NULL))
        return error_set(err, ERR_INVALID, "right is %s, expected true or false, beside a reward",
                         json_type_name(right));
    ret->has_reward = reward != NULL;
    if (reward == NULL) return OK;
    ret->sample.reward = (float)reward->valuedouble;
    ret->sample.right = right != NULL ? cJSON_IsTrue(right) : reward->valuedouble > 0;
    return OK;
}

static Status build_sample(const FunctionRun *run, const cJSON *json, SampleBuilder *builder,
                           Answer *ret, Error *err)
{
    static const SampleStatus statuses[FINISH_COUNT] = {
        [FINISH_STOP] = SAMPLE_COMPLETED,
        [FINISH_LENGTH] = SAMPLE_TRUNCATED,
        [FINISH_ABORT] = SAMPLE_ABORTED,
    };
    const Output *last = NULL;
    TRY(pieces_resolve(&run->pieces, member(json, "pieces"), builder, &last, err));
    if (last == NULL)
        return error_set(err, ERR_INVALID, "none of the pieces is an output that is trained");
    if (builder->length > run->task->max_length)
        return error_set(err, ERR_INVALID, "it has %d tokens, expected at most %d", builder->length,
                         run->task->max_length);
    TRY(function_run_text(run, last, &ret->response, &ret->response_bytes, err));
    sample_builder_to_sample(builder, &ret->sample);
    ret->sample.status = statuses[last->generation.finish];
    return read_reward(run, json, ret, err);
}

/* A key that is misspelt would have another reward decide, or none. */
static Status check_keys(const cJSON *json, Error *err)
{
    static const char *const keys[] = {"pieces", "reward", "right", "rejected", "extra"};
    const size_t count = sizeof keys / sizeof keys[0];
    const cJSON *entry = NULL;
    cJSON_ArrayForEach(entry, json)
    {
        bool known = false;
        for (size_t i = 0; entry->string != NULL && i < count; i++)
            known = known || strcmp(keys[i], entry->string) == 0;
        if (known || entry->string == NULL) continue;
        const char *nearest = str_nearest(entry->string, keys, count);
        return error_set(err, ERR_INVALID, "%s is no key of a sample%s%s%s", QUOTED(entry->string),
                         nearest != NULL ? ", did you mean " : "", nearest != NULL ? nearest : "",
                         nearest != NULL ? "?" : " (what is yours belongs in extra)");
    }
    return OK;
}

static Status read_sample(const FunctionRun *run, const cJSON *json, Answer *ret, Error *err)
{
    const cJSON *rejected = member(json, "rejected"), *extra = member(json, "extra");
    SampleBuilder builder = {0};
    TRY(check_keys(json, err));
    if (cJSON_IsString(rejected)) {
        answer_reject(ret, REJECT_BY_FUNCTION, rejected->valuestring);
        return OK;
    }
    Status status = build_sample(run, json, &builder, ret, err);
    sample_builder_free(&builder);
    if (extra != NULL) ret->extra = cJSON_Duplicate(extra, true);
    return status;
}

Status function_run_finish(const FunctionRun *run, const cJSON *samples, Answer *ret, Error *err)
{
    int count = run->task->num_samples, index = 0;
    Error inner = {0};
    if (cJSON_GetArraySize(samples) != count)
        return error_set(err, ERR_INVALID, "done has %d samples, expected %d",
                         cJSON_GetArraySize(samples), count);
    for (const cJSON *entry = samples->child; entry != NULL; entry = entry->next, index++) {
        Status status = read_sample(run, entry, &ret[index], &inner);
        ret[index].sample.position = run->task->position;
        ret[index].sample.index = index;
        if (status != OK)
            return error_set(err, ERR_INVALID, "samples[%d]: %s", index, inner.message);
    }
    return OK;
}
