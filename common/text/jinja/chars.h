/* Kinds of characters as Python's str.isupper(), isdigit() and their like tell them apart: general
 * categories of utf8proc and the properties of Unicode 14 that are not categories. Internal to
 * common/text. */
#ifndef TROUPE_TEXT_JINJA_CHARS_H
#define TROUPE_TEXT_JINJA_CHARS_H

#include <stdbool.h>
#include <stdint.h>

bool char_is_upper(uint32_t code_point);
bool char_is_lower(uint32_t code_point);
bool char_is_title(uint32_t code_point); /* one letter that is upper and lower case: U+01C5 */
bool char_is_alpha(uint32_t code_point);
bool char_is_decimal(uint32_t code_point);
bool char_is_digit(uint32_t code_point);    /* decimal, or superscript, circled ... */
bool char_is_numeric(uint32_t code_point);  /* digits, fractions, ideographs that mean numbers */
bool char_begins_name(uint32_t code_point); /* may an identifier begin with it? */
bool char_continues_name(uint32_t code_point);
bool char_is_space(uint32_t code_point); /* as str.isspace */
bool char_is_printable(uint32_t code_point);

#endif
