#include "rollout_worker/serve/request_rules.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"

#define WHOLE_MAX 9007199254740992.0 /* 2^53: doubles hold every whole number up to it */

/* ---- fields that are more than a value ---- */

static Status read_stop(RequestFields *fields, const cJSON *value, const char *param,
                        Refusal *refusal)
{
    int count = 0;
    const cJSON *item = cJSON_IsArray(value) ? value->child : value;
    for (; item != NULL; item = cJSON_IsArray(value) ? item->next : NULL) {
        if (!cJSON_IsString(item))
            return refuse_param(refusal, param,
                                "%s has %s in it, expected a string or a list of "
                                "strings",
                                param, json_type_name(item));
        size_t length = strlen(item->valuestring);
        if (length == 0 || length > SAMPLING_STOP_BYTES_MAX)
            return refuse_param(refusal, param,
                                "%s has a string of %zu bytes, expected 1 to %d bytes", param,
                                length, SAMPLING_STOP_BYTES_MAX);
        if (count == SAMPLING_STOPS_MAX)
            return refuse_param(refusal, param, "%s has more than %d strings", param,
                                SAMPLING_STOPS_MAX);
        fields->stop[count++] = item->valuestring;
    }
    fields->num_stop = count;
    return OK;
}

static Status read_stop_token_ids(RequestFields *fields, const cJSON *value, const char *param,
                                  Refusal *refusal)
{
    int count = 0;
    const cJSON *item;
    if (!cJSON_IsArray(value))
        return refuse_param(refusal, param, "%s is %s, expected a list of token ids", param,
                            json_type_name(value));
    cJSON_ArrayForEach(item, value)
    {
        if (!cJSON_IsNumber(item) || item->valuedouble != floor(item->valuedouble) ||
            item->valuedouble < 0 || item->valuedouble > INT32_MAX)
            return refuse_param(refusal, param, "%s[%d] is not a token id", param, count);
        if (count == SAMPLING_STOPS_MAX)
            return refuse_param(refusal, param, "%s has more than %d ids", param,
                                SAMPLING_STOPS_MAX);
        fields->stop_token_id[count++] = (int32_t)item->valuedouble;
    }
    fields->num_stop_token_ids = count;
    return OK;
}

static Status read_stream_options(RequestFields *fields, const cJSON *value, const char *param,
                                  Refusal *refusal)
{
    static const FieldRule rules[] = {
        {.name = "include_usage",
         .kind = RULE_FLAG,
         .offset = offsetof(RequestFields, include_usage)},
        {.name = "include_obfuscation", .kind = RULE_UNUSED},
    };
    if (!cJSON_IsObject(value))
        return refuse_param(refusal, param, "%s is %s, expected an object", param,
                            json_type_name(value));
    return fields_read(fields, (FieldTable){rules, sizeof rules / sizeof *rules}, value,
                       "stream_options.", refusal);
}

static Status read_tool_choice(RequestFields *fields, const cJSON *value, const char *param,
                               Refusal *refusal)
{
    const char *choice = cJSON_IsString(value) ? value->valuestring : "";
    if (strcmp(choice, "auto") != 0 && strcmp(choice, "none") != 0)
        return refuse_param(refusal, param,
                            "%s is %s%s%s, accepted are \"auto\" and \"none\": what the model "
                            "writes is not forced",
                            param, cJSON_IsString(value) ? "\"" : json_type_name(value),
                            cJSON_IsString(value) ? choice : "", cJSON_IsString(value) ? "\"" : "");
    fields->without_tools = strcmp(choice, "none") == 0;
    return OK;
}

static Status read_response_format(RequestFields *fields, const cJSON *value, const char *param,
                                   Refusal *refusal)
{
    (void)fields;
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(value, "type");
    if (!cJSON_IsString(type) || strcmp(type->valuestring, "text") != 0)
        return refuse_param(refusal, param,
                            "%s is %s%.40s%s, accepted is {\"type\": \"text\"}: what the model "
                            "writes is not forced into a form",
                            param, cJSON_IsString(type) ? "of type \"" : json_type_name(value),
                            cJSON_IsString(type) ? type->valuestring : "",
                            cJSON_IsString(type) ? "\"" : "");
    return OK;
}

static Status read_modalities(RequestFields *fields, const cJSON *value, const char *param,
                              Refusal *refusal)
{
    (void)fields;
    const cJSON *only = cJSON_IsArray(value) ? value->child : NULL;
    if (only == NULL || only->next != NULL || !cJSON_IsString(only) ||
        strcmp(only->valuestring, "text") != 0)
        return refuse_param(refusal, param, "%s must be [\"text\"]: this model writes text", param);
    return OK;
}

static Status read_seed(RequestFields *fields, const cJSON *value, const char *param,
                        Refusal *refusal)
{
    double seed = cJSON_IsNumber(value) ? value->valuedouble : NAN;
    if (!(fabs(seed) <= WHOLE_MAX) || seed != floor(seed))
        return refuse_param(refusal, param, "%s is not a whole number of at most 2^53", param);
    fields->seed = (int64_t)seed;
    fields->has_seed = true;
    return OK;
}

/* The number of alternatives in /v1/completions, in place of a flag. */
static Status read_completion_logprobs(RequestFields *fields, const cJSON *value, const char *param,
                                       Refusal *refusal)
{
    if (cJSON_IsFalse(value)) return OK;
    if (!cJSON_IsTrue(value) && !(cJSON_IsNumber(value) && value->valuedouble == 0))
        return refuse_param(refusal, param,
                            "%s asks for alternatives to the tokens that were chosen, and only the "
                            "chosen tokens have log-probs here: %s is 0 or null",
                            param, param);
    fields->wants_logprobs = true;
    return OK;
}

static Status read_return_logprob(RequestFields *fields, const cJSON *value, const char *param,
                                  Refusal *refusal)
{
    if (cJSON_IsBool(value)) {
        fields->wants_logprobs = cJSON_IsTrue(value);
        return OK;
    }
    const cJSON *item;
    int wanted = 0;
    if (!cJSON_IsArray(value))
        return refuse_param(refusal, param, "%s is %s, expected true or false", param,
                            json_type_name(value));
    cJSON_ArrayForEach(item, value)
    {
        if (!cJSON_IsBool(item))
            return refuse_param(refusal, param, "%s has %s in it, expected true or false", param,
                                json_type_name(item));
        wanted += cJSON_IsTrue(item);
    }
    fields->wants_logprobs = wanted > 0;
    return OK;
}

/* ---- tables ---- */

#define AT(field) offsetof(RequestFields, field)
#define NUMBER(n, f, low, high)                                                                    \
    {                                                                                              \
        .name = n, .kind = RULE_NUMBER, .offset = AT(f), .min = low, .max = high                   \
    }
#define WHOLE(n, f, low, high)                                                                     \
    {                                                                                              \
        .name = n, .kind = RULE_WHOLE, .offset = AT(f), .min = low, .max = high                    \
    }
#define FLAG(n, f)                                                                                 \
    {                                                                                              \
        .name = n, .kind = RULE_FLAG, .offset = AT(f)                                              \
    }
#define STRING(n, f)                                                                               \
    {                                                                                              \
        .name = n, .kind = RULE_STRING, .offset = AT(f)                                            \
    }
#define VALUE(n, f)                                                                                \
    {                                                                                              \
        .name = n, .kind = RULE_VALUE, .offset = AT(f)                                             \
    }
#define READ(n, f)                                                                                 \
    {                                                                                              \
        .name = n, .kind = RULE_READ, .read = f                                                    \
    }
#define UNUSED(n)                                                                                  \
    {                                                                                              \
        .name = n, .kind = RULE_UNUSED                                                             \
    }
#define ABSENT(n, why)                                                                             \
    {                                                                                              \
        .name = n, .kind = RULE_ABSENT, .accepted = why                                            \
    }
#define TABLE(rules) ((FieldTable){rules, sizeof rules / sizeof *rules})

static const char NO_FORM[] = "what the model writes is not forced into a form";
static const char NO_IMAGES[] = "this model takes text";

/* What sampling takes under any API, by the same names. */
#define SAMPLING_FIELDS                                                                            \
    NUMBER("temperature", temperature, 0, 100), NUMBER("top_p", top_p, 1e-9, 1),                   \
        WHOLE("top_k", top_k, -1, INT32_MAX), NUMBER("min_p", min_p, 0, 1),                        \
        NUMBER("repetition_penalty", repetition_penalty, 1e-3, 10),                                \
        NUMBER("frequency_penalty", frequency_penalty, -2, 2),                                     \
        NUMBER("presence_penalty", presence_penalty, -2, 2), READ("stop", read_stop),              \
        READ("stop_token_ids", read_stop_token_ids), FLAG("ignore_eos", ignore_eos),               \
        WHOLE("n", n, 1, SERVE_SAMPLES_MAX), FLAG("skip_special_tokens", skip_special),            \
        ABSENT("logit_bias", "logits are not changed token by token")

/* What both of OpenAI's calls take besides. */
#define OPENAI_FIELDS                                                                              \
    STRING("model", model), FLAG("stream", stream), READ("stream_options", read_stream_options),   \
        READ("seed", read_seed), WHOLE("max_tokens", max_tokens, 1, INT32_MAX),                    \
        WHOLE("min_tokens", min_tokens, 0, INT32_MAX),                                             \
        FLAG("include_stop_str_in_output", keep_stop),                                             \
        READ("response_format", read_response_format), UNUSED("user"), UNUSED("metadata"),         \
        UNUSED("store"), UNUSED("service_tier"), UNUSED("safety_identifier"),                      \
        UNUSED("prompt_cache_key"), UNUSED("prompt_cache_retention"),                              \
        UNUSED("spaces_between_special_tokens"), ABSENT("guided_json", NO_FORM),                   \
        ABSENT("guided_regex", NO_FORM), ABSENT("guided_choice", NO_FORM),                         \
        ABSENT("guided_grammar", NO_FORM), ABSENT("structured_outputs", NO_FORM),                  \
        ABSENT("use_beam_search", "samples are drawn, not searched for"),                          \
        ABSENT("length_penalty", "it belongs to beam search"),                                     \
        ABSENT("prompt_logprobs", "log-probs are those of generated tokens")

static const FieldRule CHAT_RULES[] = {
    OPENAI_FIELDS,
    SAMPLING_FIELDS,
    VALUE("messages", messages),
    VALUE("tools", tools),
    READ("tool_choice", read_tool_choice),
    UNUSED("parallel_tool_calls"),
    WHOLE("max_completion_tokens", max_tokens, 1, INT32_MAX),
    FLAG("logprobs", wants_logprobs),
    {.name = "top_logprobs",
     .kind = RULE_WHOLE,
     .offset = AT(top_logprobs),
     .min = 0,
     .max = 0,
     .accepted = "0: only the chosen tokens have log-probs here"},
    VALUE("chat_template_kwargs", template_kwargs),
    FLAG("add_generation_prompt", add_generation_prompt),
    READ("modalities", read_modalities),
    UNUSED("verbosity"),
    ABSENT("reasoning_effort", "templates that know it take it in chat_template_kwargs"),
    ABSENT("chat_template", "the model's own template is used"),
    ABSENT("continue_final_message", "an answer begins its own message"),
    ABSENT("functions", "functions are given as tools"),
    ABSENT("function_call", "use tool_choice"),
    ABSENT("audio", "this model writes text"),
    ABSENT("prediction", "nothing is predicted"),
    ABSENT("web_search_options", "nothing is looked up"),
};

static const FieldRule COMPLETION_RULES[] = {
    OPENAI_FIELDS,
    SAMPLING_FIELDS,
    VALUE("prompt", prompt),
    FLAG("echo", echo),
    READ("logprobs", read_completion_logprobs),
    WHOLE("best_of", best_of, 1, SERVE_SAMPLES_MAX),
    ABSENT("suffix", "text is continued, not filled in"),
};

static const FieldRule GENERATE_RULES[] = {
    VALUE("text", text),
    VALUE("input_ids", input_ids),
    VALUE("sampling_params", sampling_params),
    STRING("rid", rid),
    FLAG("stream", stream),
    READ("return_logprob", read_return_logprob),
    WHOLE("logprob_start_len", logprob_start, -1, INT32_MAX),
    {.name = "top_logprobs_num",
     .kind = RULE_WHOLE,
     .offset = AT(top_logprobs),
     .min = 0,
     .max = 0,
     .accepted = "0: only the chosen tokens have log-probs here"},
    FLAG("return_text_in_logprobs", text_in_logprobs),
    UNUSED("log_metrics"),
    UNUSED("background"),
    UNUSED("priority"),
    UNUSED("extra_key"),
    UNUSED("data_parallel_rank"),
    ABSENT("token_ids_logprob", "only the chosen tokens have log-probs here"),
    ABSENT("input_embeds", "prompts are text or token ids"),
    ABSENT("image_data", NO_IMAGES),
    ABSENT("audio_data", NO_IMAGES),
    ABSENT("video_data", NO_IMAGES),
    ABSENT("modalities", NO_IMAGES),
    ABSENT("lora_path", "there are no adapters"),
    ABSENT("session_params", "prompts are given whole; what they share is found by itself"),
    ABSENT("custom_logit_processor", "logits are not changed by programs"),
    ABSENT("return_hidden_states", "answers are tokens"),
    ABSENT("return_routed_experts", "this model has no experts"),
};

static const FieldRule SAMPLING_RULES[] = {
    SAMPLING_FIELDS,
    WHOLE("max_new_tokens", max_tokens, 1, INT32_MAX),
    WHOLE("min_new_tokens", min_tokens, 0, INT32_MAX),
    READ("sampling_seed", read_seed),
    READ("seed", read_seed),
    FLAG("no_stop_trim", keep_stop),
    UNUSED("spaces_between_special_tokens"),
    UNUSED("stream_interval"),
    ABSENT("stop_regex", "use stop or stop_token_ids"),
    ABSENT("json_schema", NO_FORM),
    ABSENT("regex", NO_FORM),
    ABSENT("ebnf", NO_FORM),
    ABSENT("structural_tag", NO_FORM),
    ABSENT("custom_params", "logits are not changed by programs"),
};

FieldTable request_rules(ServeApi api)
{
    switch (api) {
    case API_CHAT:
        return TABLE(CHAT_RULES);
    case API_COMPLETION:
        return TABLE(COMPLETION_RULES);
    default:
        return TABLE(GENERATE_RULES);
    }
}

FieldTable sampling_rules(void)
{
    return TABLE(SAMPLING_RULES);
}

RequestFields request_fields_defaults(ServeApi api)
{
    return (RequestFields){
        .temperature = 1.0,
        .top_p = 1.0,
        .repetition_penalty = 1.0,
        .n = 1,
        .max_tokens = api == API_COMPLETION ? 16
                      : api == API_GENERATE ? 128
                                            : -1,
        .best_of = -1,
        .logprob_start = -1,
        .skip_special = true,
        .add_generation_prompt = true,
    };
}

/* ---- reading ---- */

/* Whether a value asks for nothing. */
static bool asks_nothing(const cJSON *value)
{
    if (cJSON_IsNull(value) || cJSON_IsFalse(value)) return true;
    if (cJSON_IsNumber(value)) return value->valuedouble == 0;
    if (cJSON_IsString(value)) return value->valuestring[0] == '\0';
    return (cJSON_IsArray(value) || cJSON_IsObject(value)) && value->child == NULL;
}

static Status read_number(const FieldRule *rule, const cJSON *value, const char *param, double *ret,
                          Refusal *refusal)
{
    bool whole = rule->kind == RULE_WHOLE;
    if (!cJSON_IsNumber(value))
        return refuse_param(refusal, param, "%s is %s, expected a %snumber", param,
                            json_type_name(value), whole ? "whole " : "");
    double number = value->valuedouble;
    bool ok = number >= rule->min && number <= rule->max && (!whole || number == floor(number));
    if (ok) {
        *ret = number;
        return OK;
    }
    if (rule->accepted != NULL)
        return refuse_param(refusal, param, "%s is %.10g, accepted is %s", param, number,
                            rule->accepted);
    if (rule->max == INT32_MAX)
        return refuse_param(refusal, param, "%s is %.10g, accepted are whole numbers from %.10g on",
                            param, number, rule->min);
    return refuse_param(refusal, param, "%s is %.10g, accepted are %snumbers from %.10g to %.10g",
                        param, number, whole ? "whole " : "", rule->min, rule->max);
}

static Status read_field(RequestFields *fields, const FieldRule *rule, const cJSON *value,
                         const char *param, Refusal *refusal)
{
    char *at = (char *)fields + rule->offset;
    double number = 0;
    switch (rule->kind) {
    case RULE_NUMBER:
        TRY(read_number(rule, value, param, &number, refusal));
        *(double *)at = number;
        return OK;
    case RULE_WHOLE:
        TRY(read_number(rule, value, param, &number, refusal));
        *(int64_t *)at = (int64_t)number;
        return OK;
    case RULE_FLAG:
        if (!cJSON_IsBool(value))
            return refuse_param(refusal, param, "%s is %s, expected true or false", param,
                                json_type_name(value));
        *(bool *)at = cJSON_IsTrue(value);
        return OK;
    case RULE_STRING:
        if (!cJSON_IsString(value))
            return refuse_param(refusal, param, "%s is %s, expected a string", param,
                                json_type_name(value));
        *(const char **)at = value->valuestring;
        return OK;
    case RULE_VALUE:
        *(const cJSON **)at = value;
        return OK;
    case RULE_READ:
        return rule->read(fields, value, param, refusal);
    case RULE_UNUSED:
        return OK;
    case RULE_ABSENT:
        break;
    }
    if (asks_nothing(value)) return OK;
    return refuse_param(refusal, param, "%s is not offered: %s", param, rule->accepted);
}

#define RULES_MAX 64

static Status refuse_unknown(FieldTable table, const char *name, const char *prefix,
                             Refusal *refusal)
{
    const char *names[RULES_MAX] = {NULL};
    CHECK(table.count <= RULES_MAX);
    for (size_t i = 0; i < table.count; i++)
        names[i] = table.rule[i].kind == RULE_ABSENT ? NULL : table.rule[i].name;
    const char *nearest = str_nearest(name, names, table.count);
    char param[REFUSAL_PARAM_MAX];
    snprintf(param, sizeof param, "%s%.60s", prefix, name);
    refuse_param(refusal, param, "Unknown parameter: %s%s.%s%s%s", prefix, QUOTED(name),
                 nearest != NULL ? " Did you mean " : "", nearest != NULL ? nearest : "",
                 nearest != NULL ? "?" : "");
    refusal->code = "unknown_parameter";
    return ERR_INVALID;
}

Status fields_read(RequestFields *fields, FieldTable table, const cJSON *object, const char *prefix,
                   Refusal *refusal)
{
    const cJSON *value;
    cJSON_ArrayForEach(value, object)
    {
        const FieldRule *rule = NULL;
        for (size_t i = 0; i < table.count && rule == NULL; i++)
            if (strcmp(table.rule[i].name, value->string) == 0) rule = &table.rule[i];
        if (rule == NULL) return refuse_unknown(table, value->string, prefix, refusal);
        if (cJSON_IsNull(value)) continue;
        char param[REFUSAL_PARAM_MAX];
        snprintf(param, sizeof param, "%s%s", prefix, rule->name);
        TRY(read_field(fields, rule, value, param, refusal));
    }
    return OK;
}
