/* SGLang's answers of /generate. In a stream every event has all of the sample so far. */
#include "base/clock.h"
#include "base/json.h"
#include "rollout_worker/serve/answer.h"

static void append_finish(const CallChoice *choice, Str *out)
{
    const Generation *result = &choice->result;
    str_puts(out, ",\"finish_reason\":");
    if (!choice->finished) {
        str_puts(out, "null");
        return;
    }
    str_printf(out, "{\"type\":\"%s\"", finish_reason_name(result->finish));
    if (result->stop_string >= 0) {
        str_puts(out, ",\"matched\":");
        json_append_string(out, choice->prompt->params.stop[result->stop_string]);
    } else if (result->stop_token >= 0) {
        str_printf(out, ",\"matched\":%d", result->stop_token);
    }
    if (result->finish == FINISH_LENGTH) str_printf(out, ",\"length\":%d", choice->length);
    if (result->finish == FINISH_ABORT) str_puts(out, ",\"message\":\"aborted\"");
    str_putc(out, '}');
}

static void append_log_probs(const Call *call, const CallChoice *choice, Str *out)
{
    str_puts(out, ",\"input_token_logprobs\":[],\"output_token_logprobs\":[");
    for (int32_t i = 0; i < choice->length; i++) {
        str_puts(out, i > 0 ? ",[" : "[");
        answer_append_log_prob(choice->log_prob[i], out);
        str_printf(out, ",%d,", choice->token[i]);
        if (call->request.text_in_logprobs)
            answer_append_token(call, choice->token[i], out);
        else
            str_puts(out, "null");
        str_putc(out, ']');
    }
    str_putc(out, ']');
}

/* The weights of each token, as runs; known when it ended. */
static void append_versions(const Call *call, const CallChoice *choice, Str *out)
{
    const Generation *result = &choice->result;
    int64_t version = call->weight_version;
    if (choice->finished && result->num_version_runs > 0)
        version = result->version_run[result->num_version_runs - 1].version;
    str_printf(out, ",\"weight_version\":\"%lld\"", (long long)version);
    if (!choice->finished) return;
    str_puts(out, ",\"version_runs\":[");
    for (int i = 0; i < result->num_version_runs; i++)
        str_printf(out, "%s[%lld,%lld]", i > 0 ? "," : "",
                   (long long)result->version_run[i].version,
                   (long long)result->version_run[i].count);
    str_putc(out, ']');
}

static void append_sample(const Call *call, const CallChoice *choice, Str *out)
{
    const SamplingParams *params = &choice->prompt->params;
    str_puts(out, "{\"text\":");
    Str text = {0};
    str_append(&text, str_text(&choice->text.text), choice->text.certain);
    json_append_string(out, str_text(&text));
    str_free(&text);
    str_puts(out, ",\"output_ids\":[");
    for (int32_t i = 0; i < choice->length; i++)
        str_printf(out, "%s%d", i > 0 ? "," : "", choice->token[i]);
    str_puts(out, "],\"meta_info\":{\"id\":");
    json_append_string(out, call->request.rid != NULL ? call->request.rid : call->id);
    append_finish(choice, out);
    str_printf(out,
               ",\"prompt_tokens\":%d,\"completion_tokens\":%d,\"cached_tokens\":%d,"
               "\"seed\":%llu,\"temperature\":%.9g",
               choice->prompt->length, choice->length, choice->result.found_tokens,
               (unsigned long long)params->seed, params->temperature);
    append_versions(call, choice, out);
    if (call->request.logprobs) append_log_probs(call, choice, out);
    if (choice->finished)
        str_printf(out, ",\"e2e_latency\":%.6f", (double)choice->result.total_ns / 1e9);
    str_puts(out, "}}");
}

void sglang_whole(const Call *call, Str *out)
{
    bool list = call->request.batched || call->num_choices > 1;
    if (list) str_putc(out, '[');
    for (int i = 0; i < call->num_choices; i++) {
        if (i > 0) str_putc(out, ',');
        append_sample(call, &call->choice[i], out);
    }
    if (list) str_putc(out, ']');
}

/* Of several samples each event says whose it is, as SGLang does. */
static void append_event(const Call *call, const CallChoice *choice, Str *out)
{
    str_puts(out, "data: ");
    append_sample(call, choice, out);
    if (call->request.batched || call->num_choices > 1) {
        out->length--; /* the closing brace */
        str_printf(out, ",\"index\":%d}", choice->index);
    }
    str_puts(out, "\n\n");
}

void sglang_events(Call *call, Str *out)
{
    for (int i = 0; i < call->num_choices; i++) {
        CallChoice *choice = &call->choice[i];
        if (choice->end_told || (choice->length == choice->told && !choice->finished)) continue;
        append_event(call, choice, out);
        choice->told = choice->length;
        choice->end_told = choice->finished;
    }
}
