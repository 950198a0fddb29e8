/* UnicodeTable: what the tokenizer must know about each code point, in one flat array (1 MiB, built
 * at load in a few milliseconds): its general category and how the normal forms treat it. From
 * utf8proc, with the characters added up to the version of Unicode that the reference tokenizers
 * use. Const once made; any thread. */
#ifndef TROUPE_TEXT_TOKENIZER_UNICODE_TABLE_H
#define TROUPE_TEXT_TOKENIZER_UNICODE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <utf8proc.h>

#define CODE_POINTS 0x110000u

/* The low five bits of an entry are the utf8proc_category_t. */
#define UNICODE_CATEGORY 0x1Fu
#define UNICODE_SPACE    0x20u /* White_Space */
/* NFC (NFKC) may change the character, or it may join or reorder with the one before it. */
#define UNICODE_NFC  0x40u
#define UNICODE_NFKC 0x80u

typedef struct UnicodeTable {
    uint8_t entry[CODE_POINTS];
} UnicodeTable;

UnicodeTable *unicode_table_create(void); /* free() it */

/* Code points first to last; the meaning of `value` is the table's. */
typedef struct UnicodeRange {
    uint32_t first, last;
    int32_t value;
} UnicodeRange;

typedef struct UnicodeScript {
    const char *name;
    const char *extra; /* members that PCRE2 lacks, as they stand in a character class */
} UnicodeScript;

/* Categories that differ from Unicode 14; characters without normal forms; differences of lower
 * case (value: the step); numbers (unassigned elsewhere); punctuation that the Punctuation
 * pre-tokenizer has (1) or lacks (0) against the category; scripts. All sorted. */
extern const UnicodeRange unicode_category_delta[], unicode_plain_delta[], unicode_lower_delta[],
    unicode_number_delta[], unicode_punctuation_delta[];
extern const size_t unicode_category_delta_count, unicode_plain_delta_count,
    unicode_lower_delta_count, unicode_number_delta_count, unicode_punctuation_delta_count;
extern const UnicodeScript unicode_scripts[];
extern const size_t unicode_scripts_count;

/* A category of our own: numbers that only the Digits pre-tokenizer knows. */
#define CATEGORY_NEW_NUMBER 30u

/* Sets of categories, as bits 1 << category. */
#define CATEGORY_BIT(category) (1u << UTF8PROC_CATEGORY_##category)
#define CATEGORIES_LETTER                                                                          \
    (CATEGORY_BIT(LU) | CATEGORY_BIT(LL) | CATEGORY_BIT(LT) | CATEGORY_BIT(LM) | CATEGORY_BIT(LO))
#define CATEGORIES_MARK   (CATEGORY_BIT(MN) | CATEGORY_BIT(MC) | CATEGORY_BIT(ME))
#define CATEGORIES_NUMBER (CATEGORY_BIT(ND) | CATEGORY_BIT(NL) | CATEGORY_BIT(NO))
#define CATEGORIES_PUNCTUATION                                                                     \
    (CATEGORY_BIT(PC) | CATEGORY_BIT(PD) | CATEGORY_BIT(PS) | CATEGORY_BIT(PE) |                   \
     CATEGORY_BIT(PI) | CATEGORY_BIT(PF) | CATEGORY_BIT(PO))
#define CATEGORIES_SYMBOL                                                                          \
    (CATEGORY_BIT(SM) | CATEGORY_BIT(SC) | CATEGORY_BIT(SK) | CATEGORY_BIT(SO))

static inline bool unicode_is(const UnicodeTable *table, uint32_t code_point, uint32_t categories)
{
    return categories >> (table->entry[code_point] & UNICODE_CATEGORY) & 1;
}

static inline bool unicode_is_space(const UnicodeTable *table, uint32_t code_point)
{
    return table->entry[code_point] & UNICODE_SPACE;
}

/* What \w matches in a regular expression of Rust: alphabetic, mark, decimal number, connector
 * punctuation, joiner. */
bool unicode_is_word(const UnicodeTable *table, uint32_t code_point);

/* Whether the Punctuation pre-tokenizer cuts at it. */
bool unicode_is_punctuation(const UnicodeTable *table, uint32_t code_point);

/* Whether the reference's normal forms leave it alone, though utf8proc's may not. */
bool unicode_is_plain(uint32_t code_point);

/* Lower case: one code point, or two for U+0130. Returns how many. */
int unicode_lower(uint32_t code_point, uint32_t ret[2]);

/* The code point at valid UTF-8 and its size. */
static inline uint32_t utf8_next(const char *bytes, uint32_t *ret_size)
{
    const unsigned char *b = (const unsigned char *)bytes;
    if (b[0] < 0x80) {
        *ret_size = 1;
        return b[0];
    }
    if (b[0] < 0xE0) {
        *ret_size = 2;
        return (b[0] & 0x1Fu) << 6 | (b[1] & 0x3Fu);
    }
    if (b[0] < 0xF0) {
        *ret_size = 3;
        return (b[0] & 0x0Fu) << 12 | (b[1] & 0x3Fu) << 6 | (b[2] & 0x3Fu);
    }
    *ret_size = 4;
    return (b[0] & 0x07u) << 18 | (b[1] & 0x3Fu) << 12 | (b[2] & 0x3Fu) << 6 | (b[3] & 0x3Fu);
}

/* The code point that ends just before bytes[at] (at > 0), and its size. */
static inline uint32_t utf8_previous(const char *bytes, uint32_t at, uint32_t *ret_size)
{
    uint32_t begin = at - 1;
    while (begin > 0 && (bytes[begin] & 0xC0) == 0x80)
        begin--;
    *ret_size = at - begin;
    uint32_t size;
    return utf8_next(bytes + begin, &size);
}

#endif
