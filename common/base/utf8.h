/* UTF-8 as the Unicode standard defines it: no overlong forms, no surrogates, nothing above
 * U+10FFFF. */
#ifndef TROUPE_BASE_UTF8_H
#define TROUPE_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Decodes the code point at bytes[0..length). Returns its size in bytes (1 to 4), or 0 if the bytes
 * there are not valid UTF-8 (or length is 0). */
int utf8_decode(const char *bytes, size_t length, uint32_t *ret_code_point);

/* Writes a code point (not a surrogate, at most U+10FFFF); returns its size in bytes. */
int utf8_encode(uint32_t code_point, char bytes[4]);

/* Offset of the first byte that is not valid UTF-8, or `length` if all of it is valid. */
size_t utf8_valid_prefix(const char *bytes, size_t length);

#endif
