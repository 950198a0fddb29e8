#include "text/aligned_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

void aligned_text_free(AlignedText *text)
{
    free(text->data);
    free(text->origin);
    *text = (AlignedText){0};
}

void aligned_text_clear(AlignedText *text, size_t length_max)
{
    text->length = 0;
    text->length_max = length_max;
    text->overflow = false;
}

static bool reserve(AlignedText *text, size_t more)
{
    if (more > text->length_max - text->length) {
        text->overflow = true;
        return false;
    }
    if (more <= text->capacity - text->length) return true;
    size_t capacity = (text->length + more) * 2 + 64;
    text->data = mem_realloc(text->data, capacity, 1);
    text->origin = mem_realloc(text->origin, capacity, sizeof(ByteOrigin));
    text->capacity = capacity;
    return true;
}

void aligned_text_append(AlignedText *text, const char *bytes, size_t length, ByteOrigin origin)
{
    if (length == 0 || !reserve(text, length)) return;
    memcpy(text->data + text->length, bytes, length);
    for (size_t i = 0; i < length; i++)
        text->origin[text->length + i] = origin;
    text->length += length;
}

void aligned_text_append_view(AlignedText *text, const TextView *view, uint32_t begin, uint32_t end)
{
    size_t length = end - begin;
    if (length == 0 || !reserve(text, length)) return;
    memcpy(text->data + text->length, view->data + begin, length);
    ByteOrigin *origin = text->origin + text->length;
    if (view->origin != NULL) {
        memcpy(origin, view->origin + begin, length * sizeof *origin);
    } else {
        for (uint32_t i = 0; i < length; i++)
            origin[i] = text_view_origin_marked(view, begin + i, begin + i + 1);
    }
    text->length += length;
}

TextView aligned_text_view(const AlignedText *text)
{
    return (TextView){text->data == NULL ? "" : text->data, (uint32_t)text->length, 0,
                      text->origin};
}
