/* OpenAI's answers: chat.completion(.chunk) and text_completion. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/version.h"
#include "rollout_worker/serve/answer.h"
#include "rollout_worker/serve/answer_turn.h"

static void append_head(const Call *call, const char *object, Str *out)
{
    str_puts(out, "{\"id\":");
    json_append_string(out, call->id);
    str_printf(out, ",\"object\":\"%s\",\"created\":%lld,\"model\":", object,
               (long long)call->created);
    json_append_string(out, call->model->name);
    str_printf(out, ",\"system_fingerprint\":\"troupe-%s-w%lld\"", TROUPE_VERSION,
               (long long)call->weight_version);
}

static void append_usage(const Call *call, Str *out)
{
    int64_t prompt = 0, made = 0, found = 0;
    const ServePrompt *last = NULL;
    for (int i = 0; i < call->num_choices; i++) {
        const CallChoice *choice = &call->choice[i];
        made += choice->length;
        if (choice->prompt == last) continue; /* one prompt for all of its samples */
        last = choice->prompt;
        prompt += last->length;
        int32_t hit = choice->result.found_tokens;
        found += hit < last->length ? hit : last->length;
    }
    str_printf(out,
               "{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld,"
               "\"prompt_tokens_details\":{\"cached_tokens\":%lld}}",
               (long long)prompt, (long long)made, (long long)(prompt + made), (long long)found);
}

/* ---- log-probs ---- */

static bool has_half_character(const char *text)
{
    return strstr(text, "\xEF\xBF\xBD") != NULL;
}

/* One entry of `content` in a chat's log-probs. */
static void append_chat_log_prob(const Call *call, const CallChoice *choice, int32_t i, Str *out)
{
    char *text = NULL;
    size_t length = 0;
    Error err;
    if (tokenizer_decode(text_model_tokenizer(call->model->text), &choice->token[i], 1, false,
                         &text, &length, &err) != OK)
        text = NULL;
    str_puts(out, "{\"token\":");
    json_append_string(out, text);
    str_puts(out, ",\"logprob\":");
    answer_append_log_prob(choice->log_prob[i], out);
    str_puts(out, ",\"bytes\":");
    if (text == NULL || has_half_character(text)) {
        str_puts(out, "null");
    } else {
        for (size_t b = 0; b < length; b++)
            str_printf(out, "%c%u", b == 0 ? '[' : ',', (unsigned char)text[b]);
        str_puts(out, length == 0 ? "[]" : "]");
    }
    str_puts(out, ",\"top_logprobs\":[]}");
    free(text);
}

static void append_chat_log_probs(const Call *call, const CallChoice *choice, int32_t first,
                                  Str *out)
{
    str_puts(out, "{\"content\":[");
    for (int32_t i = first; i < choice->length; i++) {
        if (i > first) str_putc(out, ',');
        append_chat_log_prob(call, choice, i, out);
    }
    str_puts(out, "],\"refusal\":null}");
}

static int64_t characters_of(const Call *call, int32_t token)
{
    char *text = NULL;
    size_t length = 0;
    int64_t count = 0;
    Error err;
    if (tokenizer_decode(text_model_tokenizer(call->model->text), &token, 1,
                         !call->request.keep_special, &text, &length, &err) != OK)
        return 0;
    for (size_t i = 0; i < length; i++)
        count += ((unsigned char)text[i] & 0xC0) != 0x80;
    free(text);
    return count;
}

/* Offsets are those of the tokens' own texts, one behind the other. */
static void append_text_log_probs(const Call *call, const CallChoice *choice, int32_t first,
                                  Str *out)
{
    Str values = {0}, offsets = {0};
    long long offset = choice->told_characters;
    str_puts(out, "{\"tokens\":[");
    for (int32_t i = first; i < choice->length; i++) {
        if (i > first) str_putc(out, ',');
        answer_append_token(call, choice->token[i], out);
        str_puts(&values, i > first ? "," : "");
        answer_append_log_prob(choice->log_prob[i], &values);
        str_printf(&offsets, "%s%lld", i > first ? "," : "", offset);
        offset += characters_of(call, choice->token[i]);
    }
    str_printf(out, "],\"token_logprobs\":[%s],\"top_logprobs\":null,\"text_offset\":[%s]}",
               str_text(&values), str_text(&offsets));
    str_free(&values);
    str_free(&offsets);
}

static void append_log_probs(const Call *call, const CallChoice *choice, int32_t first, Str *out)
{
    str_puts(out, ",\"logprobs\":");
    if (!call->request.logprobs)
        str_puts(out, "null");
    else if (call->request.api == API_CHAT)
        append_chat_log_probs(call, choice, first, out);
    else
        append_text_log_probs(call, choice, first, out);
}

/* ---- choices ---- */

static void append_finish(const CallChoice *choice, bool calls, Str *out)
{
    const Generation *result = &choice->result;
    bool called = calls && result->finish == FINISH_STOP;
    str_printf(out, ",\"finish_reason\":\"%s\",\"stop_reason\":",
               called ? "tool_calls" : finish_reason_name(result->finish));
    if (result->stop_string >= 0)
        json_append_string(out, choice->prompt->params.stop[result->stop_string]);
    else if (result->stop_token >= 0)
        str_printf(out, "%d", result->stop_token);
    else
        str_puts(out, "null");
}

static void append_text(const CallChoice *choice, size_t length, bool echo, Str *out)
{
    Str text = {0};
    if (echo) str_puts(&text, choice->prompt->text);
    str_append(&text, str_text(&choice->text.text), length);
    json_append_string(out, str_text(&text));
    str_free(&text);
}

void openai_whole(const Call *call, Str *out)
{
    bool chat = call->request.api == API_CHAT;
    append_head(call, chat ? "chat.completion" : "text_completion", out);
    str_puts(out, ",\"choices\":[");
    for (int i = 0; i < call->num_choices; i++) {
        const CallChoice *choice = &call->choice[i];
        AnsweredTurn turn = answered_turn_read(call, choice);
        str_printf(out, "%s{\"index\":%d,%s", i > 0 ? "," : "", choice->index,
                   chat ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"text\":");
        if (turn.calls.count > 0 && turn.content_length == 0)
            str_puts(out, "null");
        else
            append_text(choice, turn.content_length, call->request.echo, out);
        if (chat) str_puts(out, ",\"refusal\":null");
        if (turn.calls.count > 0) {
            str_putc(out, ',');
            answered_calls_append(call, choice, &turn, false, out);
        }
        if (chat) str_putc(out, '}');
        append_log_probs(call, choice, 0, out);
        append_finish(choice, turn.calls.count > 0, out);
        str_putc(out, '}');
        answered_turn_clear(&turn);
    }
    str_puts(out, "],\"usage\":");
    append_usage(call, out);
    str_putc(out, '}');
}

/* ---- streams ---- */

static void begin_event(const Call *call, Str *out)
{
    str_puts(out, "data: ");
    append_head(call, call->request.api == API_CHAT ? "chat.completion.chunk" : "text_completion",
                out);
    str_puts(out, ",\"choices\":[");
}

static void end_event(const Call *call, Str *out)
{
    str_puts(out, call->request.include_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
}

/* The text that is new, with the log-probs of the tokens since the last event; or the end. */
static void append_event(Call *call, CallChoice *choice, bool end, Str *out)
{
    bool chat = call->request.api == API_CHAT, first = choice->told == 0 && choice->text.sent == 0;
    ChoiceText *text = &choice->text;
    AnsweredTurn turn = {.content_length = answered_content(call, choice)};
    if (end) turn = answered_turn_read(call, choice);
    begin_event(call, out);
    str_printf(out, "{\"index\":%d,", choice->index);
    Str piece = {0};
    if (first && call->request.echo) str_puts(&piece, choice->prompt->text);
    if (turn.content_length > text->sent)
        str_append(&piece, text->text.data + text->sent, turn.content_length - text->sent);
    str_puts(out, chat ? "\"delta\":{" : "\"text\":");
    if (chat && !(end && piece.length == 0)) str_puts(out, "\"content\":");
    if (!chat || !end || piece.length > 0) json_append_string(out, str_text(&piece));
    if (turn.calls.count > 0) {
        if (piece.length > 0) str_putc(out, ',');
        answered_calls_append(call, choice, &turn, true, out);
    }
    if (chat) str_putc(out, '}');
    append_log_probs(call, choice, choice->told, out);
    if (end)
        append_finish(choice, turn.calls.count > 0, out);
    else
        str_puts(out, ",\"finish_reason\":null");
    str_putc(out, '}');
    end_event(call, out);
    str_free(&piece);
    text->sent = turn.content_length;
    answered_turn_clear(&turn);
    if (!chat && call->request.logprobs)
        for (; choice->told < choice->length; choice->told++)
            choice->told_characters += characters_of(call, choice->token[choice->told]);
    choice->told = choice->length;
    choice->end_told = end;
}

static void append_role(Call *call, const CallChoice *choice, Str *out)
{
    begin_event(call, out);
    str_printf(out,
               "{\"index\":%d,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
               "\"logprobs\":null,\"finish_reason\":null}",
               choice->index);
    end_event(call, out);
}

void openai_events(Call *call, Str *out)
{
    for (int i = 0; i < call->num_choices; i++) {
        CallChoice *choice = &call->choice[i];
        if (choice->end_told) continue;
        bool first = choice->told == 0 && choice->text.sent == 0;
        bool news = answered_content(call, choice) > choice->text.sent;
        if (!news && !choice->finished) continue;
        if (first && call->request.api == API_CHAT) append_role(call, choice, out);
        append_event(call, choice, choice->finished, out);
    }
    if (!call_is_finished(call) || !call->request.include_usage) return;
    begin_event(call, out);
    str_puts(out, "],\"usage\":");
    append_usage(call, out);
    str_puts(out, "}\n\n");
}
