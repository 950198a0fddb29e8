/* From the origins of one rendering to the tokens that carry loss.
 *
 * The turn of an assistant message is what the template writes while its loop stands at the
 * message: text of the message and of the template, without what it inserts from other messages. Of
 * that, the header is not trained: the text with which the template asks for an answer (learned
 * once per model from its generation prompt); header_rule.c has the exceptions. All after it is
 * what the model has to write, the end-of-turn token included. Where a template ends a turn only by
 * the control token that opens the next one, that token is the terminator.
 *
 * Text of an answer that comes out anywhere else (message_place.c) is trained with what the
 * template writes around it: from the header before it on, up to the first control token behind it.
 */
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

/* What loss_mask_fill works on. */
typedef struct Masking {
    const TextModel *model;
    const MaskRequest *request;
    const MessagePlace *places; /* [num_messages] */
    Turn *turn;                 /* [num_messages] of what is written at home */
    uint8_t *generated;         /* per byte: 1 for what an assistant generates */
} Masking;

/* Adds the span to the turn of its owner. Where the text of another message stands before the
 * message's own, the turn begins behind it: what a template writes there ends what that one is. */
static void collect_span(Masking *masking, const OriginSpan *span)
{
    int32_t place = span->loop_message;
    int32_t owner = span_owner(masking->places, span);
    if (owner < 0 && span->message >= 0 && span_is_message_text(span) && place >= 0) {
        Turn *crossed = &masking->turn[place];
        if (crossed->text == crossed->text_end) crossed->begin = crossed->end = 0;
    }
    if (owner < 0 || span_is_displaced(masking->places, span)) return;
    Turn *turn = &masking->turn[owner];
    if (turn->begin == turn->end) turn->begin = span->begin;
    turn->end = span->end;
    if (!span_is_message_text(span)) return;
    if (turn->text == turn->text_end) turn->text = span->begin;
    turn->text_end = span->end;
}

/* A message that has no text at home though it has some has no turn there either. */
static void collect_turns(Masking *masking)
{
    const Rendering *rendering = masking->request->rendering;
    for (size_t i = 0; i < rendering->num_spans; i++)
        collect_span(masking, &rendering->span[i]);
    for (size_t i = 0; i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        if (!span_is_displaced(masking->places, span)) continue;
        Turn *turn = &masking->turn[span->message];
        if (turn->text == turn->text_end) *turn = (Turn){0};
    }
}

/* A space behind the terminator separates turns; the newline is part of what is learned, as TRL's
 * templates have it. */
static void strip_spaces(const char *text, Turn *turn)
{
    while (turn->end > turn->begin && turn->end > turn->text_end && text[turn->end - 1] == ' ')
        turn->end--;
}

/* Without the white space at its end. */
static size_t trimmed_length(const char *text, size_t length)
{
    while (length > 0 && strchr(" \t\r\n", text[length - 1]) != NULL)
        length--;
    return length;
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
        length = trimmed_length(model->header, length);
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

/* ---- turns at home ---- */

/* What is generated of turns at home, or, where the template marks it itself, what it marks. */
static void mark_turns(Masking *masking)
{
    const Rendering *rendering = masking->request->rendering;
    const bool *trained = masking->request->trained;
    for (size_t i = 0; i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        int32_t owner = span_owner(masking->places, span);
        uint32_t begin = span->begin, end = span->end;
        if (rendering->has_generation_blocks) {
            if (!span->generation || (owner >= 0 && !trained[owner])) continue;
        } else {
            if (owner < 0 || !trained[owner] || span_is_displaced(masking->places, span)) continue;
            const Turn *turn = &masking->turn[owner];
            if (begin < turn->first_generated) begin = turn->first_generated;
            if (end > turn->end) end = turn->end;
        }
        if (begin < end) memset(masking->generated + begin, 1, end - begin);
    }
}

/* ---- displaced text ---- */

/* Text of one message that stands together, with nothing but the template's own text in it. */
typedef struct Stretch {
    int32_t message;         /* -1: none */
    uint32_t gap;            /* where the template's text before it begins */
    uint32_t text, text_end; /* of the message */
} Stretch;

/* The end of the last occurrence of `part` in [begin, end) of the text; 0: it does not occur. */
static uint32_t last_end(const char *text, uint32_t begin, uint32_t end, const char *part,
                         size_t length)
{
    uint32_t found = 0;
    for (const char *at = text + begin;
         length > 0 && (at = memmem(at, (size_t)(text + end - at), part, length)) != NULL; at++)
        found = (uint32_t)(at - text) + (uint32_t)length;
    return found;
}

/* Behind the header before the text, if there is one. */
static uint32_t stretch_begin(const TextModel *model, const char *text, const Stretch *stretch)
{
    const char *openers[] = {model->header, model->continuation};
    for (size_t i = 0; i < 2 && openers[i] != NULL; i++) {
        size_t length = strlen(openers[i]);
        uint32_t found = last_end(text, stretch->gap, stretch->text, openers[i], length);
        if (found == 0)
            found = last_end(text, stretch->gap, stretch->text, openers[i],
                             trimmed_length(openers[i], length));
        if (found > 0) return found;
    }
    return stretch->text;
}

/* Where white space behind the control token ends that goes with it: it does when it is the end of
 * a turn, which another control token follows, and not the beginning of one, which text follows. */
static uint32_t terminator_end(const Masking *masking, size_t token, uint32_t limit)
{
    const Encoding *encoding = masking->request->encoding;
    const Rendering *rendering = masking->request->rendering;
    uint32_t end = encoding->span[token].end, behind = end;
    while (behind < limit && strchr(" \t\r\n", rendering->text[behind]) != NULL)
        behind++;
    size_t next = token_from(encoding, behind);
    bool closes = encoding->span[token].id == masking->model->eos_id ||
                  behind == rendering->length ||
                  (next < encoding->length && encoding->span[next].begin == behind &&
                   is_control(masking->model, rendering, &encoding->span[next]));
    if (!closes) return end;
    while (behind > end && rendering->text[behind - 1] == ' ')
        behind--;
    return behind;
}

/* Where what is generated ends, terminator included. The template's text goes on to `limit`, where
 * the text of message `next` stands (-1: of none that is displaced). */
static uint32_t stretch_end(const Masking *masking, const Stretch *stretch, uint32_t limit,
                            int32_t next)
{
    const MaskRequest *request = masking->request;
    const Encoding *encoding = request->encoding;
    const char *text = request->rendering->text, *header = masking->model->header;
    size_t at = token_from(encoding, stretch->text_end);
    while (at < encoding->length && encoding->span[at].begin < limit &&
           !is_control(masking->model, request->rendering, &encoding->span[at]))
        at++;
    if (at == encoding->length || encoding->span[at].begin >= limit) {
        /* two answers made one: what joins them is written, too */
        bool joined = next >= 0 && request->trained[next] &&
                      last_end(text, stretch->text_end, limit, header, strlen(header)) == 0;
        return joined ? limit : stretch->text_end;
    }
    if (*header != '\0' && str_starts_with(text + encoding->span[at].begin, header))
        return stretch->text_end;
    uint32_t end = terminator_end(masking, at, limit);
    bool is_last = (size_t)stretch->message + 1 == request->num_messages && !request->is_prompt &&
                   limit == request->rendering->length;
    at = token_from(encoding, end);
    if (is_last && at < encoding->length && encoding->span[at].begin == end &&
        is_control(masking->model, request->rendering, &encoding->span[at]))
        end = encoding->span[at].end;
    return end;
}

static void close_stretch(Masking *masking, Stretch *stretch, uint32_t limit, int32_t next)
{
    if (stretch->message >= 0 && masking->request->trained[stretch->message]) {
        const char *text = masking->request->rendering->text;
        uint32_t begin = stretch_begin(masking->model, text, stretch);
        uint32_t end = stretch_end(masking, stretch, limit, next);
        memset(masking->generated + begin, 1, end - begin);
    }
    stretch->message = -1;
}

/* An answer that says nothing has no text to go by, only its role: what it writes begins behind the
 * header that holds the role. */
static void open_silent_stretch(const Masking *masking, const OriginSpan *role, uint32_t gap,
                                Stretch *ret)
{
    const unsigned text_kinds =
        1u << ORIGIN_CONTENT | 1u << ORIGIN_REASONING | 1u << ORIGIN_TOOL_CALL;
    const MessagePlace *place = &masking->places[role->message];
    if (place->at_home || (place->kinds & text_kinds) != 0) return;
    const Rendering *rendering = masking->request->rendering;
    const char *header = masking->model->header;
    size_t length = strlen(header);
    size_t most = role->end + length < rendering->length ? role->end + length : rendering->length;
    uint32_t end = last_end(rendering->text, gap, (uint32_t)most, header, length);
    if (end >= role->end) *ret = (Stretch){role->message, end, end, end};
}

static void mark_stretches(Masking *masking)
{
    const Rendering *rendering = masking->request->rendering;
    Stretch stretch = {.message = -1};
    uint32_t gap = 0;
    for (size_t i = 0; i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        if (span->kind == ORIGIN_ROLE) {
            close_stretch(masking, &stretch, span->begin, -1);
            open_silent_stretch(masking, span, gap, &stretch);
        }
        if (span->kind == ORIGIN_ROLE || span->kind == ORIGIN_TEMPLATE) continue;
        bool displaced = span_is_displaced(masking->places, span);
        if (stretch.message < 0 || span->message != stretch.message) {
            close_stretch(masking, &stretch, span->begin, displaced ? span->message : -1);
            if (displaced) stretch = (Stretch){.message = span->message, gap, span->begin, 0};
        }
        if (displaced && span->message == stretch.message) stretch.text_end = span->end;
        gap = span->end;
    }
    close_stretch(masking, &stretch, (uint32_t)rendering->length, -1);
}

/* ---- terminators outside of a turn ---- */

/* Control tokens that end a turn from outside of it: the opener of the next turn where this one has
 * no terminator of its own, and the end of text that some templates write behind the last turn. */
static void mark_outer_terminator(const Masking *masking, const Turn *turn, bool is_last,
                                  uint8_t *mask)
{
    const TextModel *model = masking->model;
    const MaskRequest *request = masking->request;
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

static void mark_outer_terminators(const Masking *masking, uint8_t *mask)
{
    const MaskRequest *request = masking->request;
    const Rendering *rendering = request->rendering;
    uint32_t text_end = 0; /* of all messages */
    for (size_t i = 0; i < rendering->num_spans; i++)
        if (span_is_message_text(&rendering->span[i])) text_end = rendering->span[i].end;
    for (size_t i = 0; i < request->num_messages; i++) {
        const Turn *turn = &masking->turn[i];
        bool is_last =
            i + 1 == request->num_messages && !request->is_prompt && turn->end >= text_end;
        if (request->trained[i]) mark_outer_terminator(masking, turn, is_last, mask);
    }
}

size_t loss_mask_fill(const TextModel *model, const MaskRequest *request, uint8_t *mask)
{
    const Rendering *rendering = request->rendering;
    const Encoding *encoding = request->encoding;
    size_t num_messages = request->num_messages, num_trained = 0;
    MessagePlace *places = message_places_find(rendering, num_messages);
    Masking masking = {.model = model,
                       .request = request,
                       .places = places,
                       .turn = mem_calloc(num_messages, sizeof(Turn)),
                       .generated = mem_calloc(rendering->length + 1, 1)};
    collect_turns(&masking);
    for (size_t i = 0; i < num_messages; i++) {
        Turn *turn = &masking.turn[i];
        strip_spaces(rendering->text, turn);
        turn->first_generated = first_generated(model, rendering->text, turn);
    }
    mark_turns(&masking);
    if (!rendering->has_generation_blocks) mark_stretches(&masking);
    for (size_t i = 0; i < encoding->length; i++)
        mask[i] = token_is_generated(rendering, masking.generated, &encoding->span[i]);
    if (!rendering->has_generation_blocks) mark_outer_terminators(&masking, mask);
    for (size_t i = 0; i < encoding->length; i++)
        num_trained += mask[i];
    free(masking.generated);
    free(masking.turn);
    free(places);
    return num_trained;
}
