/* CodePointSet: a set of characters, for the classes of regular expressions that PCRE2 could not
 * write as they stand, and the properties by which such classes name their members. */
#ifndef TROUPE_TEXT_TOKENIZER_CODE_POINT_SET_H
#define TROUPE_TEXT_TOKENIZER_CODE_POINT_SET_H

#include "base/str.h"
#include "text/tokenizer/unicode_table.h"

typedef struct CodePointSet {
    uint64_t word[CODE_POINTS / 64];
} CodePointSet;

CodePointSet *set_create(void); /* empty; free() it */
void set_add_range(CodePointSet *set, uint32_t first, uint32_t last);
void set_add_categories(CodePointSet *set, const UnicodeTable *table, uint32_t categories);
void set_add_spaces(CodePointSet *set, const UnicodeTable *table);
/* \w of Oniguruma: as in Rust, but without joiners; and alone, outside of a class, with the
 * superscripts and fractions of Latin-1. */
void set_add_words(CodePointSet *set, const UnicodeTable *table, bool alone);
/* The members of a class as PCRE2 writes it between brackets. */
void set_add_pcre2_class(CodePointSet *set, const char *body);
void set_add_set(CodePointSet *set, const CodePointSet *other);
void set_intersect(CodePointSet *set, const CodePointSet *other);
void set_invert(CodePointSet *set);

/* Appends the set as ranges that may stand in a character class; nothing for an empty one. */
void set_write(const CodePointSet *set, Str *ret);

/* A property of Oniguruma that is a set of general categories. */
typedef struct Property {
    const char *name; /* lower case, without spaces, '-' and '_' */
    uint32_t categories;
    const char *pcre2; /* how PCRE2 names it, if its table differs by additions alone; or NULL */
} Property;

const Property *property_find(const char *name);    /* NULL if unknown */
const UnicodeScript *script_find(const char *name); /* in lower case; NULL if unknown */

/* Appends what stands for a property or a script in a character class of PCRE2, with the members
 * that PCRE2's tables lack. `property->pcre2` must not be NULL. */
void property_write(const Property *property, Str *ret);
void script_write(const UnicodeScript *script, Str *ret);

#endif
