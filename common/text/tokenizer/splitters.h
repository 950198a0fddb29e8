/* Splitters: hand-written matchers for the regular expressions by which most published models cut
 * text into words, ten to fifty times as fast as the general path. A pattern is recognised by its
 * exact text; each splitter gives exactly the matches of its pattern (test_splitters.c compares
 * them with PCRE2's on random text). Stateless; any thread. */
#ifndef TROUPE_TEXT_TOKENIZER_SPLITTERS_H
#define TROUPE_TEXT_TOKENIZER_SPLITTERS_H

#include <stdbool.h>
#include <stdint.h>

#include "text/tokenizer/unicode_table.h"

typedef struct SplitText {
    const char *data; /* valid UTF-8 */
    uint32_t length;
    const UnicodeTable *table;
} SplitText;

/* Finds the first match at or behind `at` (< length): *ret_begin and the end, which is greater.
 * Returns 0 if there is none. */
typedef uint32_t (*Splitter)(const SplitText *text, uint32_t at, uint32_t *ret_begin);

/* The splitter of a pattern as it stands in tokenizer.json, or NULL. */
Splitter splitter_find(const char *pattern);

/* All patterns that are known, for tests; NULL behind the last. */
const char *splitter_pattern(int index);

#define GPT2_PATTERN                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

#endif
