#include "rollout_worker/tools/tool_format.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"

/* A turn is whatever a model wrote, marks by the thousand included: what is read of it is bounded.
 */
#define CALLS_MAX   64 /* of a turn; more are passed over */
#define CLOSERS_MAX 8  /* that may stand in the texts of one call */

/* ---- calls ---- */

void tool_calls_clear(ToolCalls *calls)
{
    for (int i = 0; i < calls->count; i++) {
        free(calls->call[i].name);
        free(calls->call[i].fault);
        cJSON_Delete(calls->call[i].arguments);
    }
    free(calls->call);
    *calls = (ToolCalls){0};
}

/* Appends a call; takes all three. */
static void append(ToolCalls *calls, char *name, cJSON *arguments, char *fault)
{
    if (calls->count == CALLS_MAX) {
        free(name);
        free(fault);
        cJSON_Delete(arguments);
        return;
    }
    if (calls->call == NULL) calls->call = mem_calloc(CALLS_MAX, sizeof *calls->call);
    calls->call[calls->count++] = (ToolCall){name, arguments, fault};
}

static char *copy_trimmed(const char *begin, const char *end)
{
    while (begin < end && strchr(" \t\r\n", *begin) != NULL)
        begin++;
    while (end > begin && strchr(" \t\r\n", end[-1]) != NULL)
        end--;
    Str text = {0};
    str_append(&text, begin, (size_t)(end - begin));
    return text.data == NULL ? mem_strdup("") : str_take(&text);
}

/* Arguments as an object, or as the JSON text of one; none at all are no arguments. */
static cJSON *read_arguments(const cJSON *value)
{
    cJSON *parsed = NULL;
    Error ignored;
    if (value == NULL || cJSON_IsNull(value)) return cJSON_CreateObject();
    if (cJSON_IsObject(value)) return cJSON_Duplicate(value, true);
    if (!cJSON_IsString(value) || json_parse(value->valuestring, strlen(value->valuestring),
                                             "arguments", &parsed, &ignored) != OK)
        return NULL;
    if (cJSON_IsObject(parsed)) return parsed;
    cJSON_Delete(parsed);
    return NULL;
}

/* Appends what {"name": ..., KEY: {...}} says. */
static void append_json(ToolCalls *calls, const cJSON *json, const char *key)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(json, "name");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(json, key);
    if (!cJSON_IsString(name)) {
        append(calls, mem_strdup(""), NULL, mem_strdup("the call has no \"name\" that is a text"));
        return;
    }
    cJSON *arguments = read_arguments(value);
    char *fault = arguments != NULL
                      ? NULL
                      : mem_printf("the \"%s\" of the call are %s, expected an object", key,
                                   json_type_name(value));
    append(calls, mem_strdup(name->valuestring), arguments, fault);
}

/* ---- hermes: <tool_call>{"name": ..., "arguments": {...}}</tool_call> ---- */

static const char opener[] = "<tool_call>", closer[] = "</tool_call>";

/* The end of the call that begins at `begin`: the first closer before which there is JSON, as one
 * may stand in a text of the arguments; else the first. */
static const char *hermes_end(const char *begin, cJSON **ret_json, Error *err)
{
    const char *first = NULL;
    const char *at = begin;
    for (int tries = 0; tries < CLOSERS_MAX && (at = strstr(at, closer)) != NULL; at++, tries++) {
        Error fault = {0};
        if (json_parse(begin, (size_t)(at - begin), "the call", ret_json, &fault) == OK) return at;
        if (first == NULL) *err = fault;
        if (first == NULL) first = at;
    }
    if (first != NULL) return first;
    const char *end = begin + strlen(begin); /* a turn that ended before it was closed */
    (void)json_parse(begin, strlen(begin), "the call", ret_json, err);
    return end;
}

static void hermes_parse(const char *text, const cJSON *tools, ToolCalls *ret)
{
    (void)tools;
    for (const char *at = text; ret->count < CALLS_MAX && (at = strstr(at, opener)) != NULL;) {
        cJSON *json = NULL;
        Error err = {0};
        const char *begin = at + strlen(opener), *end = hermes_end(begin, &json, &err);
        if (json == NULL)
            append(ret, mem_strdup(""), NULL, mem_printf("the call is no JSON: %s", err.message));
        else
            append_json(ret, json, "arguments");
        cJSON_Delete(json);
        at = *end == '\0' ? end : end + strlen(closer);
    }
}

/* ---- llama3_json: the turn is {"name": ..., "parameters": {...}} and nothing else ---- */

static void llama3_parse(const char *text, const cJSON *tools, ToolCalls *ret)
{
    static const char tag[] = "<|python_tag|>";
    cJSON *json = NULL;
    Error ignored;
    (void)tools;
    text += strspn(text, " \t\r\n");
    if (str_starts_with(text, tag)) text += strlen(tag);
    text += strspn(text, " \t\r\n");
    size_t length = strlen(text);
    const char *mark = length > 4 && str_ends_with(text, "|>") ? strrchr(text, '<') : NULL;
    if (mark != NULL && mark[1] == '|') length = (size_t)(mark - text); /* an end mark */
    if (*text != '{' || json_parse(text, length, "the call", &json, &ignored) != OK) return;
    if (cJSON_HasObjectItem(json, "name") && cJSON_HasObjectItem(json, "parameters"))
        append_json(ret, json, "parameters");
    cJSON_Delete(json);
}

/* ---- formats that write values bare ---- */

/* Whether the tool's schema says that this argument is a text. */
static bool is_text(const cJSON *tools, const char *name, const char *key)
{
    const cJSON *tool = NULL;
    cJSON_ArrayForEach(tool, tools)
    {
        const cJSON *function = cJSON_GetObjectItemCaseSensitive(tool, "function");
        if (function == NULL) function = tool;
        const cJSON *own = cJSON_GetObjectItemCaseSensitive(function, "name");
        if (!cJSON_IsString(own) || strcmp(own->valuestring, name) != 0) continue;
        const cJSON *at = cJSON_GetObjectItemCaseSensitive(function, "parameters");
        at = cJSON_GetObjectItemCaseSensitive(at, "properties");
        at = cJSON_GetObjectItemCaseSensitive(at, key);
        at = cJSON_GetObjectItemCaseSensitive(at, "type");
        return cJSON_IsString(at) && strcmp(at->valuestring, "string") == 0;
    }
    return false;
}

/* A bare value: JSON where it is some and the schema does not say that it is a text. */
static cJSON *bare_value(const cJSON *tools, const char *name, const char *key, const char *text)
{
    cJSON *value = NULL;
    Error ignored;
    if (!is_text(tools, name, key) &&
        json_parse(text, strlen(text), "value", &value, &ignored) == OK)
        return value;
    return cJSON_CreateString(text);
}

/* How such a format marks a call (between opener and closer), its name and its arguments. */
typedef struct BareMarks {
    const char *before_name, *after_name; /* "": the call's begin, or up to the next mark */
    const char *before_key, *after_key, *before_value, *after_value;
} BareMarks;

/* Moves *at behind `mark`, and gives what stood before it; NULL when there is none before `end`. */
static char *take_until(const char **at, const char *end, const char *mark)
{
    const char *found = memmem(*at, (size_t)(end - *at), mark, strlen(mark));
    if (found == NULL) return NULL;
    char *text = copy_trimmed(*at, found);
    *at = found + strlen(mark);
    return text;
}

static cJSON *take_bare_arguments(const BareMarks *marks, const char *at, const char *end,
                                  const cJSON *tools, const char *name)
{
    cJSON *arguments = cJSON_CreateObject();
    for (;;) {
        char *before = take_until(&at, end, marks->before_key);
        if (before == NULL) return arguments;
        free(before);
        char *key = take_until(&at, end, marks->after_key);
        char *gap = key == NULL || *marks->before_value == '\0'
                        ? mem_strdup("")
                        : take_until(&at, end, marks->before_value);
        char *value = key == NULL || gap == NULL ? NULL : take_until(&at, end, marks->after_value);
        if (value != NULL)
            cJSON_AddItemToObject(arguments, key, bare_value(tools, name, key, value));
        bool whole = value != NULL;
        free(key);
        free(gap);
        free(value);
        if (whole) continue;
        cJSON_Delete(arguments);
        return NULL;
    }
}

/* The name ends at a mark, or where the first argument or the call does. */
static char *take_bare_name(const BareMarks *marks, const char **at, const char *end)
{
    if (*marks->before_name != '\0') {
        char *before = take_until(at, end, marks->before_name);
        if (before == NULL) return NULL;
        free(before);
        return take_until(at, end, marks->after_name);
    }
    const char *stop =
        memmem(*at, (size_t)(end - *at), marks->before_key, strlen(marks->before_key));
    if (stop == NULL) stop = end;
    char *name = copy_trimmed(*at, stop);
    *at = stop;
    return name;
}

static void bare_parse(const BareMarks *marks, const char *text, const cJSON *tools, ToolCalls *ret)
{
    for (const char *at = text; ret->count < CALLS_MAX && (at = strstr(at, opener)) != NULL;) {
        at += strlen(opener);
        const char *end = strstr(at, closer);
        const char *next = end == NULL ? at + strlen(at) : end + strlen(closer);
        if (end == NULL) end = next;
        char *name = take_bare_name(marks, &at, end);
        if (name == NULL || *name == '\0') {
            free(name);
            append(ret, mem_strdup(""), NULL, mem_strdup("the call names no function"));
        } else {
            cJSON *arguments = take_bare_arguments(marks, at, end, tools, name);
            append(ret, name, arguments,
                   arguments != NULL ? NULL : mem_strdup("an argument of the call is not closed"));
        }
        at = next;
    }
}

/* glm: <tool_call>NAME<arg_key>K</arg_key><arg_value>V</arg_value></tool_call> */
static void glm_parse(const char *text, const cJSON *tools, ToolCalls *ret)
{
    static const BareMarks marks = {
        "", "", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"};
    bare_parse(&marks, text, tools, ret);
}

/* qwen_xml: <tool_call><function=NAME><parameter=K>V</parameter></function></tool_call> */
static void qwen_xml_parse(const char *text, const cJSON *tools, ToolCalls *ret)
{
    static const BareMarks marks = {"<function=", ">", "<parameter=", ">", "", "</parameter>"};
    bare_parse(&marks, text, tools, ret);
}

/* ---- the table ---- */

static const ToolFormat formats[] = {
    {"hermes", hermes_parse},
    {"llama3_json", llama3_parse},
    {"qwen_xml", qwen_xml_parse},
    {"glm", glm_parse},
};
#define FORMAT_COUNT (sizeof formats / sizeof formats[0])

/* A name that the text is a part of, or else the one that is spelt most alike. */
static const char *nearest_format(const char *text, const char *const *names)
{
    for (size_t i = 0; i < FORMAT_COUNT && strlen(text) > 1; i++)
        if (strstr(names[i], text) != NULL) return names[i];
    return str_nearest(text, names, FORMAT_COUNT);
}

Status tool_format_find(const char *name, const ToolFormat **ret, Error *err)
{
    const char *names[FORMAT_COUNT];
    Str list = {0};
    for (size_t i = 0; i < FORMAT_COUNT; i++) {
        names[i] = formats[i].name;
        str_printf(&list, "%s%s", i == 0 ? "" : ", ", names[i]);
        if (strcmp(names[i], name) != 0) continue;
        *ret = &formats[i];
        str_free(&list);
        return OK;
    }
    const char *nearest = nearest_format(name, names);
    error_set(err, ERR_INVALID, "there is no tool format %s; expected auto, %s", QUOTED(name),
              str_text(&list));
    if (nearest != NULL) error_append(err, "did you mean %s?", nearest);
    str_free(&list);
    return ERR_INVALID;
}

/* ---- learning it ---- */

static const char probe_tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"qFq\",\"description\":\"d\",\"parameters\":{"
    "\"type\":\"object\",\"properties\":{\"qKq\":{\"type\":\"string\",\"description\":\"d\"}},"
    "\"required\":[\"qKq\"]}}}]";
static const char probe_messages[] =
    "[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"\",\"tool_"
    "calls\":"
    "[{\"id\":\"call12345\",\"type\":\"function\",\"function\":{\"name\":\"qFq\",\"arguments\":{"
    "\"qKq\":\"qVq\"}}}]}]";

/* The text of the trained tokens, without the control tokens and white space at its end. */
static char *trained_text(const TextModel *model, const TokenizedConversation *probe)
{
    size_t first = 0, last = probe->length;
    while (first < last && !probe->loss_mask[first])
        first++;
    while (last > first && !probe->loss_mask[last - 1])
        last--;
    while (last > first) {
        const TokenSpan *span = &probe->span[last - 1];
        char *text = copy_trimmed(probe->text + span->begin, probe->text + span->end);
        bool ends = *text == '\0' ||
                    tokenizer_id_kind(text_model_tokenizer(model), span->id) == TOKEN_KIND_CONTROL;
        free(text);
        if (!ends) break;
        last--;
    }
    if (first == last) return mem_strdup("");
    return copy_trimmed(probe->text + probe->span[first].begin,
                        probe->text + probe->span[last - 1].end);
}

static bool reads_probe(const ToolFormat *format, const char *turn, const cJSON *tools)
{
    ToolCalls calls = {0};
    tool_format_read(format, turn, tools, &calls);
    bool reads = calls.count == 1 && calls.call[0].fault == NULL &&
                 strcmp(calls.call[0].name, "qFq") == 0 &&
                 cJSON_GetArraySize(calls.call[0].arguments) == 1;
    if (reads) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(calls.call[0].arguments, "qKq");
        reads = cJSON_IsString(value) && strcmp(value->valuestring, "qVq") == 0;
    }
    tool_calls_clear(&calls);
    return reads;
}

static Status refuse_template(const char *turn, Error *err)
{
    if (strstr(turn, "qFq") == NULL)
        return error_set(
            err, ERR_UNSUPPORTED,
            "the chat template leaves out the calls of tools in a turn of the model's, "
            "expected one that writes them");
    return error_set(err, ERR_UNSUPPORTED,
                     "the chat template writes calls of tools in a format that is not known, %s; "
                     "known are hermes, llama3_json, qwen_xml and glm",
                     QUOTED(turn));
}

Status tool_format_detect(const TextModel *model, const ToolFormat **ret, Error *err)
{
    cJSON *messages = cJSON_Parse(probe_messages), *tools = cJSON_Parse(probe_tools);
    CHECK(messages != NULL && tools != NULL);
    const ConversationOptions options = {.keep_text = true, .now = 1};
    TokenizedConversation probe = {0};
    char *turn = NULL;
    Error inner = {0};
    const ToolFormat *found = NULL;
    Status status = conversation_encode(model, NULL, messages, tools, &options, &probe, &inner);
    if (status != OK) {
        status = error_set(err, ERR_UNSUPPORTED,
                           "the chat template cannot render the call of a tool: %s", inner.message);
        goto done;
    }
    turn = trained_text(model, &probe);
    for (size_t i = 0; i < FORMAT_COUNT && found == NULL; i++)
        if (reads_probe(&formats[i], turn, tools)) found = &formats[i];
    if (found != NULL)
        *ret = found;
    else
        status = refuse_template(turn, err);
done:
    free(turn);
    tokenized_conversation_free(&probe);
    cJSON_Delete(messages);
    cJSON_Delete(tools);
    return status;
}

void tool_format_read(const ToolFormat *format, const char *turn, const cJSON *tools,
                      ToolCalls *ret)
{
    static const char end_of_reasoning[] = "</think>";
    const char *text = turn, *at;
    while ((at = strstr(text, end_of_reasoning)) != NULL)
        text = at + strlen(end_of_reasoning);
    if (text == turn && strstr(turn, "<think>") != NULL) return;
    format->parse(text, tools, ret);
}
