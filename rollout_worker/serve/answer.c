#include "rollout_worker/serve/answer.h"

#include <stdlib.h>

#include "base/json.h"

void answer_whole(const Call *call, Str *out)
{
    if (call->request.api == API_GENERATE)
        sglang_whole(call, out);
    else
        openai_whole(call, out);
}

void answer_events(Call *call, Str *out)
{
    if (call->request.api == API_GENERATE)
        sglang_events(call, out);
    else
        openai_events(call, out);
    if (call_is_finished(call)) str_puts(out, "data: [DONE]\n\n");
}

void answer_failure_event(const Refusal *refusal, Str *out)
{
    str_puts(out, "data: ");
    refusal_append_json(refusal, out);
    str_puts(out, "\n\ndata: [DONE]\n\n");
}

void answer_models(const ServeModel *model, bool list, Str *out)
{
    if (list) str_puts(out, "{\"object\":\"list\",\"data\":[");
    str_puts(out, "{\"id\":");
    json_append_string(out, model->name);
    str_printf(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"troupe\",\"root\":",
               (long long)model->created);
    json_append_string(out, model->name);
    str_printf(out, ",\"max_model_len\":%d}", model->max_length);
    if (list) str_puts(out, "]}");
}

void answer_append_token(const Call *call, int32_t token, Str *out)
{
    char *text = NULL;
    size_t length = 0;
    if (tokenizer_decode(text_model_tokenizer(call->model->text), &token, 1, false, &text, &length,
                         NULL) != OK)
        text = NULL;
    json_append_string(out, text);
    free(text);
}

void answer_append_log_prob(float log_prob, Str *out)
{
    str_printf(out, "%.9g", (double)log_prob);
}
