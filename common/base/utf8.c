#include "base/utf8.h"

#include <stdbool.h>
#include <string.h>

int utf8_decode(const char *bytes, size_t length, uint32_t *ret_code_point)
{
    const unsigned char *b = (const unsigned char *)bytes;
    if (length == 0) return 0;
    if (b[0] < 0x80) {
        *ret_code_point = b[0];
        return 1;
    }
    int size = b[0] >= 0xF0 ? 4 : b[0] >= 0xE0 ? 3 : 2;
    if (b[0] < 0xC2 || b[0] > 0xF4 || length < (size_t)size) return 0;
    uint32_t code_point = b[0] & (0x7Fu >> size);
    for (int i = 1; i < size; i++) {
        if ((b[i] & 0xC0) != 0x80) return 0;
        code_point = code_point << 6 | (b[i] & 0x3Fu);
    }
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (code_point < smallest[size] || code_point > 0x10FFFF) return 0;
    if (code_point >= 0xD800 && code_point <= 0xDFFF) return 0;
    *ret_code_point = code_point;
    return size;
}

int utf8_encode(uint32_t code_point, char bytes[4])
{
    if (code_point < 0x80) {
        bytes[0] = (char)code_point;
        return 1;
    }
    int size = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
    for (int i = size - 1; i > 0; i--) {
        bytes[i] = (char)(0x80 | (code_point & 0x3F));
        code_point >>= 6;
    }
    bytes[0] = (char)((0xF00 >> size) | code_point);
    return size;
}

/* The size of a valid character of two or three bytes, which are most of those that are no ASCII;
 * 0: is something else. */
static inline int short_size(const unsigned char *b, size_t length)
{
    if (length < 3 || (b[1] & 0xC0) != 0x80) return 0;
    if (b[0] >= 0xC2 && b[0] <= 0xDF) return 2;
    bool in_plane = b[0] >= 0xE1 && b[0] <= 0xEC; /* no surrogates, nothing overlong */
    return in_plane && (b[2] & 0xC0) == 0x80 ? 3 : 0;
}

size_t utf8_valid_prefix(const char *bytes, size_t length)
{
    size_t at = 0;
    while (at < length) {
        /* Most text is ASCII for long stretches: eight bytes at a time. */
        uint64_t eight;
        while (length - at >= sizeof eight) {
            memcpy(&eight, bytes + at, sizeof eight);
            if (eight & 0x8080808080808080u) break;
            at += sizeof eight;
        }
        if (at == length) break;
        if ((unsigned char)bytes[at] < 0x80) {
            at++;
            continue;
        }
        uint32_t code_point;
        int size = short_size((const unsigned char *)bytes + at, length - at);
        if (size == 0) size = utf8_decode(bytes + at, length - at, &code_point);
        if (size == 0) return at;
        at += (size_t)size;
    }
    return length;
}
