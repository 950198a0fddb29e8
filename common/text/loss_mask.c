/* From the origins of one rendering to the tokens that carry loss.
 *
 * The turn of an assistant message is what the template writes while its loop stands at the
 * message: text of the message and of the template, without what it inserts from other messages. Of
 * that, the header is not trained: the text with which the template asks for an answer (learned
 * once per model from its generation prompt); header_rule.c has the exceptions. All after it is
 * what the model has to write, the end-of-turn token included. Where a template ends a turn only by
 * the control token that opens the next one, that token is the terminator. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/str.h"
#include "text/text_model.h"

typedef struct Turn {
    uint32_t begin, end; /* of all bytes that belong to the turn; begin == end: none */
    uint32_t text,
        text_end; /* from the first to the last byte of the message itself; equal: none */
    uint32_t first_generated; /* behind the header */
} Turn;

static bool is_message_text(const OriginSpan *span)
{
    return span->kind == ORIGIN_CONTENT || span->kind == ORIGIN_REASONING ||
           span->kind == ORIGIN_TOOL_CALL;
}

/* The message whose turn these bytes are part of, or -1: neither text of another message nor
 * written at another message's place. */
static int32_t span_owner(const OriginSpan *span)
{
    int32_t message = span->kind == ORIGIN_TEMPLATE ? -1 : span->message;
    if (message < 0) return span->loop_message;
    return span->loop_message < 0 || span->loop_message == message ? message : -1;
}

static void collect_turns(const Rendering *rendering, Turn *turn, size_t num_messages)
{
    for (size_t i = 0; i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        int32_t owner = span_owner(span);
        if (owner < 0 || (size_t)owner >= num_messages) continue;
        Turn *t = &turn[owner];
        if (t->begin == t->end) t->begin = span->begin;
        t->end = span->end;
        if (!is_message_text(span)) continue;
        if (t->text == t->text_end) t->text = span->begin;
        t->text_end = span->end;
    }
}

/* A space behind the terminator separates turns; the newline is part of what is learned, as TRL's
 * templates have it. */
static void strip_spaces(const char *text, Turn *turn)
{
    while (turn->end > turn->begin && turn->end > turn->text_end && text[turn->end - 1] == ' ')
        turn->end--;
}

/* Where the header of a turn ends. A turn that goes on without one (after a tool's answer, say)
 * begins as the template has them go on, or if that is unknown with the message's own text; when
 * the template has no header at all, with its first byte. */
static uint32_t header_end(const TextModel *model, const char *text, const Turn *turn)
{
    size_t length = strlen(model->header);
    uint32_t limit = turn->text < turn->text_end ? turn->text : turn->end;
    if (length == 0) return turn->begin;
    const char *begin = text + turn->begin;
    const char *at = memmem(begin, turn->end - turn->begin, model->header, length);
    if (at == NULL || at > text + limit) { /* the header may lack its white space at the end */
        while (length > 0 && strchr(" \t\r\n", model->header[length - 1]) != NULL)
            length--;
        if (length == 0) return turn->begin;
        at = memmem(begin, turn->end - turn->begin, model->header, length);
    }
    if (at != NULL && at <= text + limit) return (uint32_t)(at - text + (ptrdiff_t)length);
    if (model->continuation != NULL && str_starts_with(begin, model->continuation)) {
        uint32_t end = turn->begin + (uint32_t)strlen(model->continuation);
        return end < limit ? end : limit;
    }
    return limit;
}

/* Where the generated part of a turn begins. */
static uint32_t first_generated(const TextModel *model, const char *text, const Turn *turn)
{
    if (model->header_rule == HEADER_TRAINED) return turn->begin;
    uint32_t begin = header_end(model, text, turn);
    if (model->header_rule == HEADER_LINE_END_TRAINED)
        while (begin > turn->begin && strchr(" \t\r\n", text[begin - 1]) != NULL)
            begin--;
    return begin;
}

/* Per byte: 1 for what an assistant generates. */
static uint8_t *generated_bytes(const MaskRequest *request, const Turn *turn)
{
    const Rendering *rendering = request->rendering;
    uint8_t *generated = mem_calloc(rendering->length + 1, 1);
    for (size_t i = 0; i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        int32_t owner = span_owner(span);
        bool owned = owner >= 0 && (size_t)owner < request->num_messages;
        uint32_t begin = span->begin, end = span->end;
        if (rendering->has_generation_blocks) {
            if (!span->generation || (owned && !request->trained[owner])) continue;
        } else {
            if (!owned || !request->trained[owner]) continue;
            if (begin < turn[owner].first_generated) begin = turn[owner].first_generated;
            if (end > turn[owner].end) end = turn[owner].end;
        }
        if (begin < end) memset(generated + begin, 1, end - begin);
    }
    return generated;
}

static bool is_blank(const char *text, uint32_t begin, uint32_t end)
{
    for (uint32_t i = begin; i < end; i++)
        if (strchr(" \t\r\n", text[i]) == NULL) return false;
    return true;
}

/* Does the token hold something generated? White space behind a turn that melts with what follows
 * it into one token does not count: the token is the next turn's. */
static bool token_is_generated(const Rendering *rendering, const uint8_t *generated,
                               const TokenSpan *token)
{
    uint32_t begin = token->begin, end = token->end;
    while (begin < end && !generated[begin])
        begin++;
    uint32_t last = begin;
    while (last < end && generated[last])
        last++;
    if (begin == end) return false;
    bool melted = begin == token->begin && last < end && begin > 0 && generated[begin - 1];
    return !(melted && is_blank(rendering->text, begin, last));
}

/* The origin of a byte. */
static const OriginSpan *span_at(const Rendering *rendering, uint32_t offset)
{
    size_t low = 0, high = rendering->num_spans;
    while (low + 1 < high) {
        size_t middle = (low + high) / 2;
        if (rendering->span[middle].begin <= offset) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &rendering->span[low];
}

/* The index of the first token that begins at `offset` or behind it. */
static size_t token_from(const Encoding *encoding, uint32_t offset)
{
    size_t low = 0, high = encoding->length;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (encoding->span[middle].begin < offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Is it a control token, and written by the template? */
static bool is_control(const TextModel *model, const Rendering *rendering, const TokenSpan *token)
{
    if (token->begin >= rendering->length) return false;
    bool control = token->id == model->eos_id ||
                   tokenizer_id_kind(model->tokenizer, token->id) == TOKEN_KIND_CONTROL;
    return control && span_at(rendering, token->begin)->kind == ORIGIN_TEMPLATE;
}

/* Control tokens that end a turn from outside of it: the opener of the next turn where this one has
 * no terminator of its own, and the end of text that some templates write behind the last turn. */
static void mark_outer_terminator(const TextModel *model, const MaskRequest *request,
                                  const Turn *turn, bool is_last, uint8_t *mask)
{
    const Encoding *encoding = request->encoding;
    if (turn->begin == turn->end) return;
    bool terminated = false;
    size_t at =
        token_from(encoding, turn->text < turn->text_end ? turn->text_end : turn->first_generated);
    for (; at < encoding->length && encoding->span[at].begin < turn->end; at++)
        terminated = terminated || is_control(model, request->rendering, &encoding->span[at]);
    const char *behind = request->rendering->text + turn->end;
    bool goes_on = *model->header != '\0' && str_starts_with(behind, model->header);
    if ((terminated && !is_last) || goes_on) return;
    if (at < encoding->length && is_control(model, request->rendering, &encoding->span[at]))
        mask[at] = 1;
}

size_t loss_mask_fill(const TextModel *model, const MaskRequest *request, uint8_t *mask)
{
    const Rendering *rendering = request->rendering;
    const Encoding *encoding = request->encoding;
    size_t num_messages = request->num_messages, num_trained = 0;
    Turn *turn = mem_calloc(num_messages, sizeof *turn);
    collect_turns(rendering, turn, num_messages);
    for (size_t i = 0; i < num_messages; i++) {
        strip_spaces(rendering->text, &turn[i]);
        turn[i].first_generated = first_generated(model, rendering->text, &turn[i]);
    }
    uint8_t *generated = generated_bytes(request, turn);
    for (size_t i = 0; i < encoding->length; i++)
        mask[i] = token_is_generated(rendering, generated, &encoding->span[i]);
    for (size_t i = 0; i < num_messages && !rendering->has_generation_blocks; i++) {
        bool is_last = i + 1 == num_messages && !request->is_prompt;
        if (request->trained[i]) mark_outer_terminator(model, request, &turn[i], is_last, mask);
    }
    for (size_t i = 0; i < encoding->length; i++)
        num_trained += mask[i];
    free(generated);
    free(turn);
    return num_trained;
}
