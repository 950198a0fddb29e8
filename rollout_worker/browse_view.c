#include "rollout_worker/browse_view.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "rollout_worker/paint.h"

static const char *text_at(const BrowsedAnswer *answer, const char *key)
{
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(answer->json, key);
    return cJSON_IsString(text) ? text->valuestring : "";
}

static bool is_rejected(const BrowsedAnswer *answer)
{
    return answer->sample->status == SAMPLE_REJECTED;
}

/* Why no step learns from it; NULL: one does, did or may yet. */
static const char *why_dropped(const BrowsedAnswer *answer)
{
    if (is_rejected(answer)) return reject_reason_name(answer->sample->reject_reason);
    if (answer->verdict != GROUP_KEPT) return group_verdict_name(answer->verdict);
    if (answer->step > 0 && !answer->trained) return group_verdict_name(GROUP_TOO_STALE);
    return NULL;
}

/* ---- for people ---- */

static void put_head(const BrowsedAnswer *answer, Str *out)
{
    const Sample *sample = answer->sample;
    str_printf(out, "position %lld, answer %d of %d", (long long)sample->position,
               sample->index + 1, answer->group_size);
    if (answer->step > 0)
        str_printf(out, ", %s step %lld",
                   answer->trained       ? "trained in"
                   : is_rejected(answer) ? "rejected at"
                                         : "dropped at",
                   (long long)answer->step);
    if (is_rejected(answer)) {
        str_puts(out, ": not judged\n");
        return;
    }
    str_printf(out, ": %s, reward %g", sample->right ? "right" : "wrong", (double)sample->reward);
    bool learns = why_dropped(answer) == NULL;
    if (learns && isfinite(answer->advantage))
        str_printf(out, ", advantage %+.4g", answer->advantage);
    str_putc(out, '\n');
}

static void put_figures(const BrowsedAnswer *answer, Str *out)
{
    const Sample *sample = answer->sample;
    const char *dropped = why_dropped(answer);
    if (!is_rejected(answer)) {
        str_printf(out, "  %s, %d tokens behind a prompt of %d", sample_status_name(sample->status),
                   sample->length - sample->prompt_length, sample->prompt_length);
        if (isfinite(answer->log_prob_mean))
            str_printf(out, ", mean log-prob %.4f", answer->log_prob_mean);
        str_puts(out, "\n  weights of version");
        for (int32_t r = 0; r < sample->num_version_runs; r++)
            str_printf(out, "%s %lld", r > 0 ? "," : "", (long long)sample->version_run[r].version);
        str_putc(out, '\n');
    }
    if (dropped != NULL)
        str_printf(out, "  not trained: %s%s\n",
                   is_rejected(answer) ? "" : "its group was dropped, ", dropped);
    if (is_rejected(answer) && sample->reject_message != NULL)
        str_put_block(out, sample->reject_message);
}

static void put_named(const BrowsedAnswer *answer, const char *key, Str *out)
{
    const char *text = text_at(answer, key);
    if (text[0] == '\0') return;
    str_printf(out, "  %s:\n", key);
    str_put_block(out, text);
}

/* A value of the file as it stands there: what several rewards said, what is the user's own. */
static void put_value(const BrowsedAnswer *answer, const char *key, Str *out)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(answer->json, key);
    if (value == NULL) return;
    Str text = {0};
    json_append(&text, value);
    str_printf(out, "  %s:\n", key);
    str_put_block(out, str_text(&text));
    str_free(&text);
}

/* Token by token, each with what the trainer makes of it. */
static Status put_tokens(const Sample *sample, const Tokenizer *tokenizer, Painter *painter,
                         Error *err)
{
    DecodeStream *stream = decode_stream_create(tokenizer, false);
    Status status = OK;
    for (int32_t t = 0; t <= sample->length && status == OK; t++) {
        char *text = NULL;
        size_t length = 0;
        bool over = t == sample->length;
        status = over ? decode_stream_finish(stream, &text, &length, err)
                      : decode_stream_step(stream, sample->token[t], &text, &length, err);
        if (status == OK && !over)
            paint(painter, sample->loss_mask[t] ? TOKEN_TRAINED : TOKEN_GIVEN);
        if (status == OK) paint_text(painter, text, length);
        free(text);
    }
    decode_stream_destroy(stream);
    return status;
}

static void put_saved_texts(const BrowsedAnswer *answer, Painter *painter)
{
    const char *prompt = text_at(answer, "prompt"), *response = text_at(answer, "response");
    paint(painter, TOKEN_GIVEN);
    paint_text(painter, prompt, strlen(prompt));
    if (!is_rejected(answer)) paint(painter, TOKEN_TRAINED);
    paint_text(painter, response, strlen(response));
}

void browse_view_text(const BrowsedAnswer *answer, const Tokenizer *tokenizer, bool color, Str *out)
{
    Error err = {0};
    Str text = {0};
    Painter painter = {.out = &text, .color = color};
    put_head(answer, out);
    put_figures(answer, out);
    put_named(answer, "label", out);
    put_named(answer, "answer", out);
    put_named(answer, "reason", out);
    put_value(answer, "rewards", out);
    put_value(answer, "extra", out);
    str_putc(out, '\n');
    if (tokenizer == NULL || is_rejected(answer) ||
        put_tokens(answer->sample, tokenizer, &painter, &err) != OK) {
        str_clear(&text);
        painter.use = TOKEN_GIVEN;
        put_saved_texts(answer, &painter);
    }
    paint(&painter, TOKEN_GIVEN);
    str_append(out, str_text(&text), text.length);
    if (text.length > 0 && text.data[text.length - 1] != '\n') str_putc(out, '\n');
    str_free(&text);
}

/* ---- for programs ---- */

static void add_number(cJSON *object, const char *key, double value)
{
    if (isfinite(value))
        cJSON_AddNumberToObject(object, key, value);
    else
        cJSON_AddNullToObject(object, key);
}

void browse_view_json(const BrowsedAnswer *answer, Str *out)
{
    cJSON *object = cJSON_Duplicate(answer->json, true);
    const char *dropped = why_dropped(answer);
    if (answer->stage != NULL)
        cJSON_AddStringToObject(object, "stage", answer->stage);
    else
        cJSON_AddNullToObject(object, "stage");
    cJSON_AddNumberToObject(object, "group_size", answer->group_size);
    add_number(object, "step", answer->step > 0 ? (double)answer->step : NAN);
    cJSON_AddBoolToObject(object, "trained", answer->trained);
    if (dropped != NULL)
        cJSON_AddStringToObject(object, "dropped", dropped);
    else
        cJSON_AddNullToObject(object, "dropped");
    add_number(object, "advantage", answer->advantage);
    add_number(object, "log_prob_mean", answer->log_prob_mean);
    json_append(out, object);
    str_putc(out, '\n');
    cJSON_Delete(object);
}
