#include "rollout_worker/serve/answer_turn.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

/* Calls in the text from `from` on; -1 where one cannot be read. */
static int count_calls(const Call *call, const char *text)
{
    ToolCalls calls = {0};
    tool_format_read(call->model->tool_format, text, call->request.tools, &calls);
    int count = calls.count;
    for (int i = 0; i < calls.count; i++)
        if (calls.call[i].fault != NULL) count = -1;
    tool_calls_clear(&calls);
    return count;
}

/* Where the first of `count` calls begins: nothing can be cut off behind that without losing it. */
static size_t first_call(const Call *call, const char *text, size_t length, int count)
{
    size_t low = 0, high = length; /* all calls are found from low on, and not from high on */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (count_calls(call, text + middle) == count)
            low = middle;
        else
            high = middle;
    }
    return low;
}

AnsweredTurn answered_turn_read(const Call *call, const CallChoice *choice)
{
    AnsweredTurn turn = {.content_length = choice->text.certain};
    const char *text = str_text(&choice->text.text);
    if (call->request.tools == NULL) return turn;
    int count = count_calls(call, text);
    if (count <= 0) return turn;
    tool_format_read(call->model->tool_format, text, call->request.tools, &turn.calls);
    size_t end = first_call(call, text, choice->text.certain, count);
    while (end > choice->text.sent && strchr(" \t\r\n", text[end - 1]) != NULL)
        end--;
    turn.content_length = end;
    return turn;
}

void answered_turn_clear(AnsweredTurn *turn)
{
    tool_calls_clear(&turn->calls);
}

size_t answered_content(const Call *call, const CallChoice *choice)
{
    size_t certain = choice->text.certain;
    if (call->request.tools == NULL) return certain;
    /* Every format begins a call with one of these; reasoning is held back with it. */
    size_t plain = strcspn(str_text(&choice->text.text), "<{[");
    return plain < certain ? plain : certain;
}

void answered_calls_append(const Call *call, const CallChoice *choice, const AnsweredTurn *turn,
                           bool indexed, Str *out)
{
    str_puts(out, "\"tool_calls\":[");
    for (int i = 0; i < turn->calls.count; i++) {
        const ToolCall *one = &turn->calls.call[i];
        char *arguments = cJSON_PrintUnformatted(one->arguments);
        str_puts(out, i > 0 ? ",{" : "{");
        if (indexed) str_printf(out, "\"index\":%d,", i);
        str_printf(out, "\"id\":\"call_%s_%d_%d\",\"type\":\"function\",\"function\":{\"name\":",
                   call->id + strcspn(call->id, "-") + 1, choice->index, i);
        json_append_string(out, one->name);
        str_puts(out, ",\"arguments\":");
        json_append_string(out, arguments);
        str_puts(out, "}}");
        cJSON_free(arguments);
    }
    str_putc(out, ']');
}
