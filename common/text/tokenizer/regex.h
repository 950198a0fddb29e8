/* Regular expressions of tokenizer.json, run by PCRE2. They are written for Oniguruma, whose syntax
 * and Unicode tables differ, so a pattern is read, checked and written anew: what would mean
 * something else, or is not known here, is refused by name. Compiled ones are const; any thread. */
#ifndef TROUPE_TEXT_TOKENIZER_REGEX_H
#define TROUPE_TEXT_TOKENIZER_REGEX_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"
#include "base/str.h"
#include "text/tokenizer/unicode_table.h"

/* Rewrites an Oniguruma pattern (Ruby syntax) for PCRE2; appends to *ret. `where` is for messages.
 */
Status regex_translate(const char *pattern, const UnicodeTable *table, const char *where, Str *ret,
                       Error *err);

/* Translates and compiles. */
Status regex_compile(const char *pattern, const UnicodeTable *table, const char *where,
                     pcre2_code **ret, Error *err);

#endif
