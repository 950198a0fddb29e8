#include "rollout_worker/serve/request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/json.h"
#include "base/memory.h"
#include "rollout_worker/serve/request_rules.h"

/* What the prompts of one body are made with. */
typedef struct Making {
    const ServeModel *model;
    const RequestFields *fields;
    ServeRequest *request;
    Refusal *refusal;
} Making;

/* ---- sampling ---- */

static uint64_t random_seed(void)
{
    uint64_t seed = 0;
    CHECK(getrandom(&seed, sizeof seed, 0) == sizeof seed);
    return seed >> 11; /* so that it can be given back in JSON */
}

static Status make_params(const Making *making, const RequestFields *f, int32_t prompt_length,
                          SamplingParams *ret)
{
    const ServeModel *model = making->model;
    int64_t room = model->max_length - prompt_length;
    int64_t most = f->max_tokens < 0 || f->max_tokens > room ? room : f->max_tokens;
    if (f->max_tokens >= 0 && f->min_tokens > f->max_tokens)
        return refuse_param(making->refusal,
                            making->request->api == API_GENERATE ? "sampling_params.min_new_tokens"
                                                                 : "min_tokens",
                            "at least %lld tokens, but at most %lld", (long long)f->min_tokens,
                            (long long)f->max_tokens);
    SamplingParams params = {
        .temperature = f->temperature,
        .top_k = (int32_t)f->top_k,
        .top_p = f->top_p,
        .min_p = f->min_p,
        .repetition_penalty = f->repetition_penalty,
        .frequency_penalty = f->frequency_penalty,
        .presence_penalty = f->presence_penalty,
        .stop = f->stop,
        .num_stop = f->num_stop,
        .stop_token_id = f->stop_token_id,
        .num_stop_token_ids = f->num_stop_token_ids,
        .min_new_tokens = (int32_t)(f->min_tokens < most ? f->min_tokens : most),
        .max_new_tokens = (int32_t)most,
        .seed = f->has_seed ? (uint64_t)f->seed : random_seed(),
        .ignore_eos = f->ignore_eos,
    };
    Refusal *refusal = making->refusal;
    if (sampling_check(&params, model->vocab_size, &refusal->error) != OK) {
        /* Its messages begin with the field. */
        refusal->http_status = 400;
        snprintf(refusal->param, sizeof refusal->param, "%.*s",
                 (int)strcspn(refusal->error.message, " ["), refusal->error.message);
        return refusal->error.status;
    }
    sampling_copy(ret, &params);
    return OK;
}

/* ---- prompts ---- */

/* Takes the tokens (and text). */
static Status add_prompt(const Making *making, const RequestFields *fields, ServePrompt prompt,
                         const char *param)
{
    ServeRequest *request = making->request;
    Status status = OK;
    int32_t most = making->model->max_length - 1;
    if (prompt.length < 1) status = refuse_param(making->refusal, param, "%s has no tokens", param);
    if (status == OK && prompt.length > most) {
        status = refuse_param(making->refusal, param,
                              "the prompt has %d tokens, at most %d leave room for an answer in "
                              "this server's %d (--max-length)",
                              prompt.length, most, most + 1);
        making->refusal->code = "context_length_exceeded";
    }
    for (int32_t i = 0; status == OK && i < prompt.length; i++)
        if (prompt.token[i] < 0 || prompt.token[i] >= making->model->vocab_size)
            status =
                refuse_param(making->refusal, param, "%s[%d] is %d, the model's ids are 0 to %lld",
                             param, i, prompt.token[i], (long long)making->model->vocab_size - 1);
    if (status == OK) status = make_params(making, fields, prompt.length, &prompt.params);
    if (status != OK) {
        free(prompt.token);
        free(prompt.text);
        return status;
    }
    prompt.n = (int)fields->n;
    int count = request->num_prompts;
    request->prompt = mem_realloc(request->prompt, (size_t)count + 1, sizeof *request->prompt);
    request->prompt[count] = prompt;
    request->num_prompts = count + 1;
    return OK;
}

static Status add_text(const Making *making, const RequestFields *fields, const char *text,
                       const char *param)
{
    Encoding encoding = {0};
    ServePrompt prompt = {0};
    Refusal *refusal = making->refusal;
    Status status = tokenizer_encode(text_model_tokenizer(making->model->text), NULL, text,
                                     strlen(text), NULL, true, &encoding, &refusal->error);
    if (status != OK) {
        refusal->http_status = 400;
        snprintf(refusal->param, sizeof refusal->param, "%s", param);
        encoding_free(&encoding);
        return status;
    }
    size_t length = encoding.length;
    if (length <= INT32_MAX) {
        prompt.token = mem_calloc(length + 1, sizeof *prompt.token);
        prompt.length = (int32_t)length;
        for (size_t i = 0; i < length; i++)
            prompt.token[i] = encoding.span[i].id;
    }
    encoding_free(&encoding);
    if (making->request->echo) prompt.text = mem_strdup(text);
    return add_prompt(making, fields, prompt, param);
}

static Status add_ids(const Making *making, const RequestFields *fields, const cJSON *list,
                      const char *param)
{
    ServePrompt prompt = {0};
    size_t count = (size_t)cJSON_GetArraySize(list);
    const cJSON *item;
    Refusal *refusal = making->refusal;
    if (count >= (size_t)making->model->max_length) {
        refuse_param(refusal, param,
                     "the prompt has %zu tokens, this server takes %d with their "
                     "answer (--max-length)",
                     count, making->model->max_length);
        refusal->code = "context_length_exceeded";
        return ERR_INVALID;
    }
    prompt.token = mem_calloc(count + 1, sizeof *prompt.token);
    Status status = OK;
    cJSON_ArrayForEach(item, list)
    {
        double id = cJSON_IsNumber(item) ? item->valuedouble : NAN;
        if (!(id >= 0 && id <= INT32_MAX && id == floor(id))) {
            status = refuse_param(refusal, param, "%s[%d] is not a token id", param, prompt.length);
            break;
        }
        prompt.token[prompt.length++] = (int32_t)id;
    }
    if (status == OK && making->request->echo) {
        size_t length = 0;
        status = tokenizer_decode(text_model_tokenizer(making->model->text), prompt.token, count,
                                  true, &prompt.text, &length, &refusal->error);
    }
    if (status == OK) return add_prompt(making, fields, prompt, param);
    free(prompt.token);
    return status;
}

/* A prompt that is a string, or a list of token ids. */
static Status add_either(const Making *making, const RequestFields *fields, const cJSON *value,
                         const char *param)
{
    if (cJSON_IsString(value)) return add_text(making, fields, value->valuestring, param);
    if (cJSON_IsArray(value)) return add_ids(making, fields, value, param);
    return refuse_param(making->refusal, param,
                        "%s is %s, expected a string or a list of token "
                        "ids",
                        param, json_type_name(value));
}

/* ---- the three forms ---- */

static Status make_chat(const Making *making)
{
    const RequestFields *fields = making->fields;
    Refusal *refusal = making->refusal;
    ConversationOptions options = {.add_generation_prompt = fields->add_generation_prompt,
                                   .template_kwargs = fields->template_kwargs};
    TokenizedConversation conversation = {0};
    if (!cJSON_IsArray(fields->messages) || fields->messages->child == NULL)
        return refuse_param(refusal, "messages", "messages is %s, expected a list of messages",
                            fields->messages == NULL          ? "missing"
                            : cJSON_IsArray(fields->messages) ? "an empty list"
                                                              : json_type_name(fields->messages));
    if (fields->template_kwargs != NULL &&
        conversation_check_kwargs(fields->template_kwargs, &refusal->error) != OK) {
        snprintf(refusal->param, sizeof refusal->param, "chat_template_kwargs");
        return refusal->error.status;
    }
    const cJSON *tools = fields->without_tools ? NULL : fields->tools;
    Status status = conversation_encode(making->model->text, NULL, fields->messages, tools,
                                        &options, &conversation, &refusal->error);
    if (status != OK) {
        const char *message = refusal->error.message;
        snprintf(refusal->param, sizeof refusal->param, "%.*s",
                 str_starts_with(message, "messages[") ? (int)strcspn(message, " ") : 8,
                 str_starts_with(message, "tools")       ? "tools"
                 : str_starts_with(message, "messages[") ? message
                                                         : "messages");
        return status;
    }
    bool reads_calls = cJSON_IsArray(tools) && tools->child != NULL;
    if (reads_calls && making->model->tool_format != NULL)
        making->request->tools = cJSON_Duplicate(tools, true);
    ServePrompt prompt = {.token = conversation.token};
    conversation.token = NULL;
    if (conversation.length <= INT32_MAX) prompt.length = (int32_t)conversation.length;
    tokenized_conversation_free(&conversation);
    return add_prompt(making, fields, prompt, "messages");
}

/* Whether a list holds prompts, and is not one itself. */
static bool is_list_of_prompts(const cJSON *value)
{
    return cJSON_IsArray(value) && (cJSON_IsString(value->child) || cJSON_IsArray(value->child));
}

static Status make_completion(const Making *making)
{
    const RequestFields *fields = making->fields;
    const cJSON *prompt = fields->prompt, *item;
    if (prompt == NULL)
        return refuse_param(making->refusal, "prompt",
                            "prompt is missing, expected a string, a list of token ids, or a list "
                            "of either");
    if (!is_list_of_prompts(prompt)) return add_either(making, fields, prompt, "prompt");
    cJSON_ArrayForEach(item, prompt) TRY(add_either(making, fields, item, "prompt"));
    return OK;
}

/* The fields with the sampling parameters of prompt i. */
static Status sampling_of(const Making *making, int i, RequestFields *ret)
{
    const cJSON *params = making->fields->sampling_params;
    *ret = *making->fields;
    if (cJSON_IsArray(params)) params = cJSON_GetArrayItem(params, i);
    if (params == NULL && making->fields->sampling_params == NULL) return OK;
    if (!cJSON_IsObject(params))
        return refuse_param(making->refusal, "sampling_params",
                            "sampling_params is %s, expected an object, or a list of one for each "
                            "prompt",
                            json_type_name(params));
    return fields_read(ret, sampling_rules(), params, "sampling_params.", making->refusal);
}

static Status make_generate(const Making *making)
{
    const RequestFields *fields = making->fields;
    ServeRequest *request = making->request;
    RequestFields own;
    if ((fields->text == NULL) == (fields->input_ids == NULL))
        return refuse_param(making->refusal, "text",
                            "%s of text and input_ids: expected one of them",
                            fields->text == NULL ? "none" : "both");
    const char *param = fields->text != NULL ? "text" : "input_ids";
    const cJSON *value = fields->text != NULL ? fields->text : fields->input_ids, *item;
    request->batched = is_list_of_prompts(value);
    if (cJSON_IsArray(value) != request->batched && fields->text != NULL)
        return refuse_param(making->refusal, param,
                            "text is a list of ids or empty: ids are given as input_ids");
    if (!request->batched) {
        TRY(sampling_of(making, 0, &own));
        TRY(add_either(making, &own, value, param));
    }
    int i = 0;
    if (request->batched) cJSON_ArrayForEach(item, value)
        {
            TRY(sampling_of(making, i++, &own));
            TRY(add_either(making, &own, item, param));
        }
    request->keep_special = !own.skip_special;
    request->keep_stop = own.keep_stop;
    for (int p = 0; p < request->num_prompts; p++)
        if (fields->logprob_start >= 0 && fields->logprob_start < request->prompt[p].length)
            return refuse_param(making->refusal, "logprob_start_len",
                                "logprob_start_len is %lld, but log-probs are those of generated "
                                "tokens: accepted is -1",
                                (long long)fields->logprob_start);
    return OK;
}

/* ---- the whole ---- */

static Status check_fields(const Making *making)
{
    const RequestFields *f = making->fields;
    Refusal *refusal = making->refusal;
    if (f->model != NULL && strcmp(f->model, making->model->name) != 0) {
        refuse_request(refusal, 404, "model_not_found",
                       "the model %s does not exist; this server has %s", QUOTED(f->model),
                       making->model->name);
        snprintf(refusal->param, sizeof refusal->param, "model");
        return ERR_INVALID;
    }
    if (f->best_of >= 0 && f->best_of != f->n)
        return refuse_param(refusal, "best_of",
                            "best_of is %lld and n is %lld: samples are not ranked, accepted is "
                            "best_of equal to n",
                            (long long)f->best_of, (long long)f->n);
    if (f->echo && f->wants_logprobs)
        return refuse_param(refusal, "echo",
                            "echo together with logprobs asks for log-probs of the prompt; only "
                            "generated tokens have them");
    if (f->include_usage && !f->stream)
        return refuse_param(refusal, "stream_options",
                            "stream_options is accepted with \"stream\": true only");
    return OK;
}

static Status make_request(const Making *making)
{
    const RequestFields *f = making->fields;
    ServeRequest *request = making->request;
    TRY(check_fields(making));
    request->stream = f->stream;
    request->include_usage = f->include_usage;
    request->logprobs = f->wants_logprobs;
    request->echo = f->echo;
    request->text_in_logprobs = f->text_in_logprobs;
    request->keep_special = !f->skip_special;
    request->keep_stop = f->keep_stop;
    request->rid = mem_strdup(f->rid);
    if (request->api == API_CHAT) TRY(make_chat(making));
    if (request->api == API_COMPLETION) TRY(make_completion(making));
    if (request->api == API_GENERATE) TRY(make_generate(making));
    int64_t samples = 0;
    for (int i = 0; i < request->num_prompts; i++)
        samples += request->prompt[i].n;
    if (samples > SERVE_SAMPLES_MAX)
        return refuse_param(making->refusal, "n",
                            "%lld samples of all prompts together, at most %d are accepted",
                            (long long)samples, SERVE_SAMPLES_MAX);
    return OK;
}

Status serve_request_parse(const ServeModel *model, ServeApi api, const char *body, size_t length,
                           ServeRequest *ret, Refusal *refusal)
{
    cJSON *json = NULL;
    ServeRequest request = {.api = api};
    RequestFields fields = request_fields_defaults(api);
    Making making = {model, &fields, &request, refusal};
    *refusal = (Refusal){0};
    Status status = json_parse(body, length, "the body", &json, &refusal->error);
    if (status == OK && !cJSON_IsObject(json))
        status = refuse_request(refusal, 400, NULL, "the body is %s, expected a JSON object",
                                json_type_name(json));
    if (status == OK) status = fields_read(&fields, request_rules(api), json, "", refusal);
    if (status == OK) status = make_request(&making);
    if (status == OK)
        *ret = request;
    else
        serve_request_clear(&request);
    cJSON_Delete(json);
    return status;
}

void serve_request_clear(ServeRequest *request)
{
    for (int i = 0; i < request->num_prompts; i++) {
        free(request->prompt[i].token);
        free(request->prompt[i].text);
        sampling_clear(&request->prompt[i].params);
    }
    cJSON_Delete(request->tools);
    free(request->prompt);
    free(request->rid);
    *request = (ServeRequest){0};
}

int serve_request_samples(const ServeRequest *request)
{
    int samples = 0;
    for (int i = 0; i < request->num_prompts; i++)
        samples += request->prompt[i].n;
    return samples;
}
