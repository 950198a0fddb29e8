#include "rollout_worker/chat_check.h"

#include <string.h>

#include "base/json.h"
#include "base/memory.h"

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* ---- arguments ---- */

/* What the arguments are in place of an object, or NULL. `err` is for a text that is no JSON. */
static const char *bad_arguments(const cJSON *call, Error *err)
{
    const cJSON *function = member(call, "function");
    const cJSON *arguments = member(cJSON_IsObject(function) ? function : call, "arguments");
    cJSON *json = NULL;
    if (!cJSON_IsString(arguments)) return NULL;
    const char *text = arguments->valuestring, *what = NULL;
    if (text[strspn(text, " \t\r\n")] == '\0') return NULL; /* stands for no arguments */
    if (json_parse(text, strlen(text), "arguments", &json, err) != OK) return err->message;
    if (!cJSON_IsObject(json) && !cJSON_IsNull(json)) what = json_type_name(json);
    cJSON_Delete(json);
    return what;
}

char *chat_find_bad_arguments(const cJSON *messages)
{
    int m = 0;
    for (const cJSON *message = messages->child; message != NULL; message = message->next, m++) {
        const cJSON *calls = member(message, "tool_calls");
        int c = 0;
        for (const cJSON *call = cJSON_IsArray(calls) ? calls->child : NULL; call != NULL;
             call = call->next, c++) {
            Error err = {0};
            const char *what = bad_arguments(call, &err);
            if (what != NULL)
                return mem_printf("messages[%d].tool_calls[%d] has arguments that are not the JSON "
                                  "text of an object: %s",
                                  m, c, what);
        }
    }
    return NULL;
}

/* ---- answers ---- */

static bool is_blank(const cJSON *content)
{
    if (cJSON_IsString(content))
        return content->valuestring[strspn(content->valuestring, " \t\r\n")] == '\0';
    if (!cJSON_IsArray(content)) return true;
    for (const cJSON *part = content->child; part != NULL; part = part->next)
        if (!is_blank(member(part, "text"))) return false;
    return true;
}

static bool is_masked(const cJSON *message)
{
    static const char *const keys[] = {"step_loss_mask", "weight"};
    for (int i = 0; i < 2; i++) {
        const cJSON *weight = member(message, keys[i]);
        if (cJSON_IsFalse(weight) || (cJSON_IsNumber(weight) && weight->valuedouble == 0))
            return true;
    }
    return false;
}

static bool is_empty_answer(const cJSON *message)
{
    static const char *const thoughts[] = {"reasoning_content", "thinking", "reasoning"};
    const cJSON *role = member(message, "role");
    if (!cJSON_IsString(role) || strcmp(role->valuestring, "assistant") != 0) return false;
    for (int i = 0; i < 3; i++)
        if (!is_blank(member(message, thoughts[i]))) return false;
    return is_blank(member(message, "content")) &&
           cJSON_GetArraySize(member(message, "tool_calls")) == 0 && !is_masked(message);
}

char *chat_find_empty_answer(const cJSON *messages, int first)
{
    int m = 0;
    for (const cJSON *message = messages->child; message != NULL; message = message->next, m++)
        if (m >= first && is_empty_answer(message))
            return mem_printf("messages[%d] is an answer that says nothing", m);
    return NULL;
}
