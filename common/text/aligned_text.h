/* AlignedText: text on its way through the tokenizer, every byte of which knows the input bytes it
 * stands for, so that a token found at the end of normalizing and splitting can tell which input it
 * covers. A TextView is a borrowed piece of one; while nothing has changed the text (the common
 * case) it needs no table of origins. */
#ifndef TROUPE_TEXT_ALIGNED_TEXT_H
#define TROUPE_TEXT_ALIGNED_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The input bytes [begin, end) that one byte of a changed text stands for. `first`: by the
 * reference's reckoning, which is narrower where characters are joined or replaced, it begins where
 * the input does. */
typedef struct ByteOrigin {
    uint32_t begin;
    uint32_t end : 31;
    uint32_t first : 1;
} ByteOrigin;

typedef struct TextView {
    const char *data;
    uint32_t length;
    uint32_t base;            /* without origins: byte i is input byte base + i */
    const ByteOrigin *origin; /* [length], or NULL */
} TextView;

/* Growable; zero-initialise it. Appends beyond `length_max` bytes are dropped and set `overflow`.
 */
typedef struct AlignedText {
    char *data;
    ByteOrigin *origin;
    size_t length, capacity, length_max;
    bool overflow;
} AlignedText;

/* How long a text of `length` bytes may grow: more than any sane rule makes of it, and an end for
 * one that explodes. */
static inline size_t text_length_max(size_t length)
{
    size_t most = 64 * length + (1u << 20);
    return most < UINT32_MAX ? most : UINT32_MAX;
}

void aligned_text_free(AlignedText *text);
void aligned_text_clear(AlignedText *text, size_t length_max);

/* Appends bytes that all stand for `origin`. */
void aligned_text_append(AlignedText *text, const char *bytes, size_t length, ByteOrigin origin);

/* Appends bytes [begin, end) of a view with their origins. */
void aligned_text_append_view(AlignedText *text, const TextView *view, uint32_t begin,
                              uint32_t end);

TextView aligned_text_view(const AlignedText *text); /* valid until the text changes */

static inline TextView text_view_slice(const TextView *view, uint32_t begin, uint32_t end)
{
    return (TextView){view->data + begin, end - begin, view->base + begin,
                      view->origin == NULL ? NULL : view->origin + begin};
}

/* Is the byte one that the reference counts to the input's first character? */
static inline bool text_view_first(const TextView *view, uint32_t at)
{
    if (view->origin != NULL) return view->origin[at].first != 0;
    if (view->base + at > 3) return false;
    const char *byte = view->data + at;
    for (uint32_t left = view->base + at; left > 0; left--, byte--)
        if (((unsigned char)*byte & 0xC0) != 0x80) return false;
    return true;
}

/* The input bytes that bytes [begin, end) of a view stand for; an empty range has an empty origin.
 */
static inline ByteOrigin text_view_origin(const TextView *view, uint32_t begin, uint32_t end)
{
    if (view->origin == NULL) return (ByteOrigin){view->base + begin, view->base + end, false};
    if (begin < end)
        return (ByteOrigin){view->origin[begin].begin, view->origin[end - 1].end, false};
    if (begin < view->length)
        return (ByteOrigin){view->origin[begin].begin, view->origin[begin].begin, false};
    uint32_t last = begin > 0 ? view->origin[begin - 1].end : view->base;
    return (ByteOrigin){last, last, false};
}

/* The same of a range that is not empty, with `first`: for what is put in its place. */
static inline ByteOrigin text_view_origin_marked(const TextView *view, uint32_t begin, uint32_t end)
{
    ByteOrigin origin = text_view_origin(view, begin, end);
    origin.first = text_view_first(view, begin);
    return origin;
}

#endif
