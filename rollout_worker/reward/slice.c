#include "rollout_worker/reward/slice.h"

#include <string.h>

bool byte_is_space(char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

bool byte_is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

bool byte_is_letter(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

char byte_lower(char byte)
{
    return byte >= 'A' && byte <= 'Z' ? (char)(byte - 'A' + 'a') : byte;
}

Slice slice_from(const char *text)
{
    return (Slice){text, text == NULL ? 0 : strlen(text)};
}

Slice slice_part(Slice slice, size_t start, size_t end)
{
    if (end > slice.length) end = slice.length;
    if (start > end) start = end;
    return (Slice){slice.data == NULL ? NULL : slice.data + start, end - start};
}

Slice slice_trim(Slice slice)
{
    while (slice.length > 0 && byte_is_space(slice.data[slice.length - 1]))
        slice.length--;
    size_t start = 0;
    while (start < slice.length && byte_is_space(slice.data[start]))
        start++;
    return slice_part(slice, start, slice.length);
}

Slice slice_tail(Slice slice, size_t characters_max)
{
    size_t start = slice.length;
    while (start > 0 && characters_max > 0) {
        start--;
        bool continues = ((unsigned char)slice.data[start] & 0xc0) == 0x80;
        if (!continues) characters_max--;
    }
    return slice_part(slice, start, slice.length);
}

bool slice_equal(Slice a, Slice b)
{
    return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

bool slice_equal_fold(Slice a, Slice b)
{
    if (a.length != b.length) return false;
    for (size_t i = 0; i < a.length; i++)
        if (byte_lower(a.data[i]) != byte_lower(b.data[i])) return false;
    return true;
}

bool slice_starts_with(Slice slice, Slice prefix)
{
    return slice.length >= prefix.length &&
           slice_equal(slice_part(slice, 0, prefix.length), prefix);
}

bool slice_ends_with(Slice slice, Slice suffix)
{
    return slice.length >= suffix.length &&
           slice_equal(slice_part(slice, slice.length - suffix.length, slice.length), suffix);
}

ssize_t slice_find(Slice slice, Slice needle)
{
    if (slice.length == 0) return -1;
    const char *found = memmem(slice.data, slice.length, needle.data, needle.length);
    return found == NULL ? -1 : found - slice.data;
}

ssize_t slice_find_last(Slice slice, Slice needle)
{
    for (size_t end = slice.length; end >= needle.length && end > 0; end--) {
        const char *last = memrchr(slice.data, needle.data[0], end - needle.length + 1);
        if (last == NULL) return -1;
        size_t at = (size_t)(last - slice.data);
        if (memcmp(last, needle.data, needle.length) == 0) return (ssize_t)at;
        end = at + needle.length;
    }
    return -1;
}

ssize_t slice_find_fold(Slice slice, Slice needle)
{
    char first = byte_lower(needle.data[0]);
    for (size_t i = 0; i + needle.length <= slice.length; i++)
        if (byte_lower(slice.data[i]) == first &&
            slice_equal_fold(slice_part(slice, i, i + needle.length), needle))
            return (ssize_t)i;
    return -1;
}

size_t slice_count(Slice slice, Slice needle)
{
    size_t count = 0;
    for (;;) {
        ssize_t at = slice_find(slice, needle);
        if (at < 0) return count;
        count++;
        slice = slice_part(slice, (size_t)at + needle.length, slice.length);
    }
}

Slice slice_after_think(Slice response)
{
    Slice tag = SLICE_OF("</think>");
    ssize_t at = slice_find_last(response, tag);
    if (at < 0) return response;
    return slice_part(response, (size_t)at + tag.length, response.length);
}
