/* Where the text of each message came out. Most templates write a message while their loop stands
 * at it: it is at home then, and all that is written there is its turn. Some write it later (those
 * that merge messages of one role), earlier (an answer right behind its question) or in no loop
 * over messages at all (a list made anew, a macro that calls itself): its text is displaced. What
 * comes out at home and once more elsewhere is quoted there, as gpt-oss names the call in the
 * header of the tool's answer. */
#include "base/memory.h"
#include "text/text_model.h"

static unsigned bit(OriginKind kind)
{
    return 1u << kind;
}

bool span_is_message_text(const OriginSpan *span)
{
    return span->kind == ORIGIN_CONTENT || span->kind == ORIGIN_REASONING ||
           span->kind == ORIGIN_TOOL_CALL;
}

MessagePlace *message_places_find(const Rendering *rendering, size_t num_messages)
{
    MessagePlace *places = mem_calloc(num_messages, sizeof *places);
    for (size_t i = 0; i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        if (span->message >= 0) places[span->message].kinds |= bit(span->kind);
        if (span->loop_message < 0) continue;
        MessagePlace *place = &places[span->loop_message];
        if (span->message == span->loop_message)
            place->kinds_at_home |= bit(span->kind);
        else if (span->message >= 0 && span_is_message_text(span))
            place->is_lent = true;
        else
            place->is_used = true;
    }
    for (size_t i = 0; i < num_messages; i++)
        places[i].at_home =
            places[i].kinds_at_home != 0 || (places[i].is_used && !places[i].is_lent);
    return places;
}

/* Text of the message outside of all loops, where the template's text for it was made in its turn:
 * a string that was built up and is printed at the end. */
static bool is_built_up(const MessagePlace *of, const OriginSpan *span)
{
    return span->loop_message < 0 && of->is_used && !of->is_lent &&
           (of->kinds_at_home & bit(span->kind)) == 0;
}

bool span_is_displaced(const MessagePlace *places, const OriginSpan *span)
{
    if (!span_is_message_text(span) || span->message == span->loop_message) return false;
    const MessagePlace *of = &places[span->message];
    if (is_built_up(of, span)) return false;
    return span->kind == ORIGIN_TOOL_CALL ? !of->at_home
                                          : (of->kinds_at_home & bit(span->kind)) == 0;
}

int32_t span_owner(const MessagePlace *places, const OriginSpan *span)
{
    int32_t message = span->message, place = span->loop_message;
    if (message >= 0 && message != place) {
        bool own = span_is_displaced(places, span) || is_built_up(&places[message], span);
        return own ? message : -1;
    }
    return place >= 0 && places[place].at_home ? place : -1;
}
