#include "rollout_worker/tools/tool_set.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/process/http_poster.h"
#include "rollout_worker/process/process_pool.h"

#define PROVIDERS_MAX 64
#define FUNCTIONS_MAX 1024

/* Of a function, as OpenAI has them. */
static const char *const function_keys[] = {"name", "description", "parameters", "strict"};

/* A program or a server. */
typedef struct Provider {
    ProcessPool *pool;
    HttpPoster *poster;
} Provider;

struct ToolSet {
    Provider provider[PROVIDERS_MAX];
    int num_providers;
    cJSON *functions;         /* as chat templates take them */
    int owner[FUNCTIONS_MAX]; /* [functions] the provider of each */
};

/* ---- opening ---- */

void tool_set_close(ToolSet *set)
{
    if (set == NULL) return;
    for (int i = 0; i < set->num_providers; i++) {
        process_pool_close(set->provider[i].pool);
        http_poster_close(set->provider[i].poster);
    }
    cJSON_Delete(set->functions);
    free(set);
}

static int find_function(const ToolSet *set, const char *name)
{
    const cJSON *entry = NULL;
    int index = 0;
    cJSON_ArrayForEach(entry, set->functions)
    {
        const cJSON *function = cJSON_GetObjectItemCaseSensitive(entry, "function");
        const char *own = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(function, "name"));
        if (strcmp(own, name) == 0) return index;
        index++;
    }
    return -1;
}

static Status check_keys(const cJSON *entry, const char *where, const char *const *keys,
                         size_t count, Error *err)
{
    const cJSON *item = NULL;
    if (!cJSON_IsObject(entry))
        return error_set(err, ERR_INVALID, "%s is %s, expected an object", where,
                         json_type_name(entry));
    cJSON_ArrayForEach(item, entry)
    {
        bool known = false;
        for (size_t i = 0; i < count; i++)
            known = known || strcmp(keys[i], item->string) == 0;
        if (known) continue;
        const char *nearest = str_nearest(item->string, keys, count);
        error_set(err, ERR_INVALID, "%s has no key %s", where, QUOTED(item->string));
        if (nearest != NULL) error_append(err, "did you mean %s?", nearest);
        return ERR_INVALID;
    }
    return OK;
}

static Status check_entry(const cJSON *entry, const char *where, Error *err)
{
    static const char *const of_program[] = {
        "functions", "name",      "description", "parameters", "strict",        "command",
        "processes", "in_flight", "timeout_s",   "restart_ms", "restart_ms_max"};
    static const char *const of_server[] = {
        "functions", "name",      "description", "parameters", "strict",         "url",
        "headers",   "timeout_s", "attempts",    "backoff_ms", "backoff_ms_max", "connections"};
    bool server = cJSON_HasObjectItem(entry, "url");
    if (server)
        return check_keys(entry, where, of_server, sizeof of_server / sizeof *of_server, err);
    return check_keys(entry, where, of_program, sizeof of_program / sizeof *of_program, err);
}

static Status add_function(ToolSet *set, const cJSON *function, const char *where, Error *err)
{
    const char *name = NULL;
    TRY(json_string(function, "name", where, &name, err));
    if (find_function(set, name) >= 0)
        return error_set(err, ERR_INVALID, "%s: there are two functions %s", where, QUOTED(name));
    int count = cJSON_GetArraySize(set->functions);
    if (count == FUNCTIONS_MAX)
        return error_set(err, ERR_INVALID, "there are more than %d functions", FUNCTIONS_MAX);
    cJSON *tool = cJSON_CreateObject(), *copy = cJSON_AddObjectToObject(tool, "function");
    cJSON_AddStringToObject(tool, "type", "function");
    for (size_t i = 0; i < sizeof function_keys / sizeof *function_keys; i++) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(function, function_keys[i]);
        if (value != NULL)
            cJSON_AddItemToObject(copy, function_keys[i], cJSON_Duplicate(value, true));
    }
    cJSON_AddItemToArray(set->functions, tool);
    set->owner[count] = set->num_providers;
    return OK;
}

/* An entry is one function, or has a list of them. */
static Status add_functions(ToolSet *set, const cJSON *entry, const char *where, Error *err)
{
    const cJSON *functions = cJSON_GetObjectItemCaseSensitive(entry, "functions"), *function = NULL;
    bool one = cJSON_HasObjectItem(entry, "name");
    if (one && functions != NULL)
        return error_set(err, ERR_INVALID,
                         "%s has both name and functions, expected one of them: it is one function "
                         "or several",
                         where);
    if (one) return add_function(set, entry, where, err);
    if (!cJSON_IsArray(functions) || functions->child == NULL)
        return error_set(err, ERR_INVALID,
                         "%s: functions is %s, expected a list of {\"name\", \"description\", "
                         "\"parameters\"}, or a name",
                         where, functions == NULL ? "missing" : json_type_name(functions));
    cJSON_ArrayForEach(function, functions)
    {
        TRY(check_keys(function, where, function_keys, sizeof function_keys / sizeof *function_keys,
                       err));
        TRY(add_function(set, function, where, err));
    }
    return OK;
}

/* timeout_s, a number, in place of *timeout_ms. */
static Status read_timeout(const cJSON *entry, const char *where, int64_t *timeout_ms, Error *err)
{
    double seconds = (double)*timeout_ms / 1000;
    TRY(json_double_or(entry, "timeout_s", where, &seconds, err));
    if (!(seconds >= 0.001 && seconds <= 86400))
        return error_set(err, ERR_INVALID, "%s: timeout_s is %g, expected 0.001 to 86400", where,
                         seconds);
    *timeout_ms = (int64_t)(seconds * 1000);
    return OK;
}

static Status open_provider(const cJSON *entry, const char *where, Provider *ret, Error *err)
{
    if (cJSON_HasObjectItem(entry, "url")) {
        HttpPosterOptions options = http_poster_defaults();
        Status status = http_poster_read_options(entry, where, &options, err);
        if (status == OK) status = read_timeout(entry, where, &options.timeout_ms, err);
        if (status == OK) status = http_poster_open(&options, &ret->poster, err);
        http_poster_options_clear(&options);
        return status;
    }
    if (!cJSON_HasObjectItem(entry, "command"))
        return error_set(err, ERR_INVALID,
                         "%s has neither command nor url, expected one of them: the program that "
                         "answers its calls, or the server\n"
                         "Write for example command: [python3, calculator.py], or url: "
                         "\"http://127.0.0.1:8001/tools\"; docs/tools.md has all keys.",
                         where);
    ProcessPoolOptions options = process_pool_defaults();
    Status status = process_pool_read_options(entry, where, &options, err);
    if (status == OK) status = read_timeout(entry, where, &options.timeout_ms, err);
    if (status == OK) status = process_pool_open(&options, &ret->pool, err);
    process_pool_options_clear(&options);
    return status;
}

static Status add_entry(ToolSet *set, const cJSON *entry, int index, Error *err)
{
    char where[32];
    snprintf(where, sizeof where, "tools[%d]", index);
    if (set->num_providers == PROVIDERS_MAX)
        return error_set(err, ERR_INVALID, "there are more than %d tools", PROVIDERS_MAX);
    TRY(check_entry(entry, where, err));
    TRY(add_functions(set, entry, where, err));
    TRY(open_provider(entry, where, &set->provider[set->num_providers], err));
    set->num_providers++;
    return OK;
}

Status tool_set_open(const cJSON *spec, ToolSet **ret, Error *err)
{
    if (!cJSON_IsArray(spec) || spec->child == NULL)
        return error_set(err, ERR_INVALID, "tools is %s, expected a list with a tool at least",
                         cJSON_IsArray(spec) ? "an empty list" : json_type_name(spec));
    ToolSet *set = mem_calloc(1, sizeof *set);
    set->functions = cJSON_CreateArray();
    Status status = OK;
    int index = 0;
    for (const cJSON *entry = spec->child; entry != NULL && status == OK; entry = entry->next)
        status = add_entry(set, entry, index++, err);
    if (status == OK)
        *ret = set;
    else
        tool_set_close(set);
    return status;
}

Status tool_set_watch(ToolSet *set, int64_t until_ms, Error *err)
{
    for (int i = 0; i < set->num_providers; i++) {
        ProcessPool *pool = set->provider[i].pool;
        if (pool == NULL || process_pool_watch(pool, until_ms, err) == OK) continue;
        return error_prefix(err, "tools[%d]", i);
    }
    return OK;
}

const cJSON *tool_set_functions(const ToolSet *set)
{
    return set->functions;
}

/* ---- calls ---- */

static void append_call(Str *out, const ToolCaller *caller, const ToolCall *call)
{
    str_puts(out, "\"name\": ");
    json_append_string(out, call->name);
    str_puts(out, ", \"arguments\": ");
    json_append(out, call->arguments);
    str_printf(out, ", \"position\": %" PRId64 ", \"index\": %d, \"turn\": %d}", caller->position,
               caller->index, caller->turn);
}

/* What an answer says: {"content": ...} or {"error": "..."}; a content that is no text is shown as
 * JSON. */
static Status read_answer(const cJSON *json, char **ret, Error *err)
{
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(json, "content");
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(json, "error");
    if (cJSON_IsString(error)) {
        *ret = mem_printf("error: %s", error->valuestring);
        return OK;
    }
    if (content == NULL)
        return error_set(err, ERR_UNAVAILABLE,
                         "a tool's answer has neither \"content\" nor \"error\"");
    if (cJSON_IsString(content)) {
        *ret = mem_strdup(content->valuestring);
        return OK;
    }
    Str text = {0};
    json_append(&text, content);
    *ret = str_take(&text);
    return OK;
}

static Status ask_server(HttpPoster *poster, const ToolCaller *caller, const ToolCall *call,
                         char **ret, Error *err)
{
    Str body = {0}, text = {0};
    cJSON *json = NULL;
    HttpOutcome outcome = {0};
    str_putc(&body, '{');
    append_call(&body, caller, call);
    Status status = http_poster_post(poster, &body, caller->wanted, &text, &outcome);
    if (status != OK)
        error_set(err, status, "tool %s: %s", QUOTED(call->name), outcome.reason);
    else if (json_parse(str_text(&text), text.length, "the answer", &json, err) != OK)
        status = error_set(err, ERR_UNAVAILABLE, "tool %s: the answer is no JSON: %.60s",
                           QUOTED(call->name), str_text(&text));
    else
        status = read_answer(json, ret, err);
    cJSON_Delete(json);
    str_free(&body);
    str_free(&text);
    return status;
}

static Exchange *start_call(ProcessPool *pool, const ToolCaller *caller, const ToolCall *call)
{
    Str line = {0};
    uint64_t id = process_pool_next_id(pool);
    str_printf(&line, "{\"id\": \"%" PRIu64 "\", ", id);
    append_call(&line, caller, call);
    str_putc(&line, '\n');
    Exchange *exchange = exchange_start(pool, id, &line, 0);
    exchange_watch(exchange, caller->wanted);
    return exchange;
}

static Status finish_call(Exchange *exchange, const ToolCall *call, char **ret, Error *err)
{
    cJSON *json = NULL;
    char reason[EXCHANGE_REASON_BYTES];
    ExchangeOutcome outcome = exchange_wait(exchange, &json, reason);
    Status status = OK;
    if (outcome == EXCHANGE_UNWANTED)
        status = error_set(err, ERR_CANCELLED, "tool %s: %s", QUOTED(call->name), reason);
    else if (outcome != EXCHANGE_MESSAGE)
        status = error_set(err,
                           outcome == EXCHANGE_TIMEOUT  ? ERR_TIMEOUT
                           : outcome == EXCHANGE_BROKEN ? ERR_INVALID
                                                        : ERR_UNAVAILABLE,
                           "tool %s: %s", QUOTED(call->name), reason);
    else
        status = read_answer(json, ret, err);
    cJSON_Delete(json);
    exchange_end(exchange);
    return status;
}

/* Calls of programs run side by side; those of servers one after the other. */
static Status run_calls(void *context, const ToolCaller *caller, const ToolCall *calls, int count,
                        char **ret_answer, Error *err)
{
    ToolSet *set = context;
    Exchange **exchange = mem_calloc((size_t)count, sizeof(Exchange *));
    Status status = OK;
    for (int i = 0; i < count; i++) {
        int function = find_function(set, calls[i].name);
        Provider *provider = function < 0 ? NULL : &set->provider[set->owner[function]];
        if (provider == NULL)
            ret_answer[i] = mem_printf("error: there is no tool %s", QUOTED(calls[i].name));
        else if (provider->pool != NULL)
            exchange[i] = start_call(provider->pool, caller, &calls[i]);
        else if (status == OK)
            status = ask_server(provider->poster, caller, &calls[i], &ret_answer[i], err);
    }
    for (int i = 0; i < count; i++) {
        Error later;
        if (exchange[i] == NULL) continue;
        Status one =
            finish_call(exchange[i], &calls[i], &ret_answer[i], status == OK ? err : &later);
        if (status == OK) status = one;
    }
    for (int i = 0; status != OK && i < count; i++) {
        free(ret_answer[i]);
        ret_answer[i] = NULL;
    }
    free(exchange);
    return status;
}

ToolRunner tool_set_runner(ToolSet *set)
{
    return (ToolRunner){run_calls, set};
}
