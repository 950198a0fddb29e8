#include "text/tokenizer/code_point_set.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/utf8.h"

#define SET_WORDS (CODE_POINTS / 64)

static void add(CodePointSet *set, uint32_t c)
{
    set->word[c / 64] |= (uint64_t)1 << (c % 64);
}

static bool has(const CodePointSet *set, uint32_t c)
{
    return set->word[c / 64] >> (c % 64) & 1;
}

CodePointSet *set_create(void)
{
    return mem_calloc(1, sizeof(CodePointSet));
}

void set_add_range(CodePointSet *set, uint32_t first, uint32_t last)
{
    for (uint32_t c = first; c <= last; c++)
        add(set, c);
}

void set_add_categories(CodePointSet *set, const UnicodeTable *table, uint32_t categories)
{
    for (uint32_t c = 0; c < CODE_POINTS; c++)
        if (unicode_is(table, c, categories)) add(set, c);
}

void set_add_spaces(CodePointSet *set, const UnicodeTable *table)
{
    for (uint32_t c = 0; c < CODE_POINTS; c++)
        if (unicode_is_space(table, c)) add(set, c);
}

void set_add_words(CodePointSet *set, const UnicodeTable *table, bool alone)
{
    for (uint32_t c = 0; c < CODE_POINTS; c++)
        if (unicode_is_word(table, c) && c != 0x200C && c != 0x200D) add(set, c);
    if (!alone) return;
    set_add_range(set, 0xB2, 0xB3);
    set_add_range(set, 0xB9, 0xB9);
    set_add_range(set, 0xBC, 0xBE);
}

/* PCRE2 has no call that lists a class, so every character is asked. */
void set_add_pcre2_class(CodePointSet *set, const char *body)
{
    int code = 0;
    PCRE2_SIZE offset = 0;
    char *pattern = mem_printf("[%s]", body);
    pcre2_code *regex = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                      PCRE2_UTF | PCRE2_UCP, &code, &offset, NULL);
    free(pattern);
    CHECK(regex != NULL);
    pcre2_jit_compile(regex, PCRE2_JIT_COMPLETE);
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(regex, NULL);
    CHECK(match != NULL);
    for (uint32_t c = 0; c < CODE_POINTS; c++) {
        char bytes[4];
        if (c >= 0xD800 && c <= 0xDFFF) continue;
        PCRE2_SIZE size = (PCRE2_SIZE)utf8_encode(c, bytes);
        if (pcre2_match(regex, (PCRE2_SPTR)bytes, size, 0, PCRE2_NO_UTF_CHECK, match, NULL) > 0)
            add(set, c);
    }
    pcre2_match_data_free(match);
    pcre2_code_free(regex);
}

void set_add_set(CodePointSet *set, const CodePointSet *other)
{
    for (size_t i = 0; i < SET_WORDS; i++)
        set->word[i] |= other->word[i];
}

void set_intersect(CodePointSet *set, const CodePointSet *other)
{
    for (size_t i = 0; i < SET_WORDS; i++)
        set->word[i] &= other->word[i];
}

void set_invert(CodePointSet *set)
{
    for (size_t i = 0; i < SET_WORDS; i++)
        set->word[i] = ~set->word[i];
}

/* Surrogates, which no text holds, go with the character before them, so as not to cut a range. */
void set_write(const CodePointSet *set, Str *ret)
{
    for (uint32_t c = 0; c < CODE_POINTS; c++) {
        if (!has(set, c) || (c >= 0xD800 && c <= 0xDFFF)) continue;
        uint32_t first = c, last = c;
        while (c + 1 < CODE_POINTS && (has(set, c + 1) || (c + 1 >= 0xD800 && c + 1 <= 0xDFFF))) {
            c++;
            if (c < 0xD800 || c > 0xDFFF) last = c;
        }
        str_printf(ret, "\\x{%X}-\\x{%X}", first, last);
    }
}

/* ---- properties ---- */

#define BIT CATEGORY_BIT
/* PCRE2's Unicode 14 has one category that changed later (U+1171E, from Mn to Mc) and of course
 * other unassigned characters: the properties that hold those have no name of PCRE2's. */
#define UNASSIGNED (BIT(CN) | 1u << CATEGORY_NEW_NUMBER)
#define OTHER      (BIT(CC) | BIT(CF) | BIT(CO) | UNASSIGNED)
#define CASED      (BIT(LU) | BIT(LL) | BIT(LT))
#define SEPARATOR  (BIT(ZS) | BIT(ZL) | BIT(ZP))

// clang-format off
static const Property properties[] = {
    {"l", CATEGORIES_LETTER, "L"},
    {"letter", CATEGORIES_LETTER, "L"},
    {"lu", BIT(LU), "Lu"},
    {"uppercaseletter", BIT(LU), "Lu"},
    {"ll", BIT(LL), "Ll"},
    {"lowercaseletter", BIT(LL), "Ll"},
    {"lt", BIT(LT), "Lt"},
    {"titlecaseletter", BIT(LT), "Lt"},
    {"lc", CASED, "L&"},
    {"lm", BIT(LM), "Lm"},
    {"modifierletter", BIT(LM), "Lm"},
    {"lo", BIT(LO), "Lo"},
    {"otherletter", BIT(LO), "Lo"},
    {"m", CATEGORIES_MARK, "M"},
    {"mark", CATEGORIES_MARK, "M"},
    {"mn", BIT(MN), NULL},
    {"nonspacingmark", BIT(MN), NULL},
    {"mc", BIT(MC), "Mc"},
    {"me", BIT(ME), "Me"},
    {"n", CATEGORIES_NUMBER, "N"},
    {"number", CATEGORIES_NUMBER, "N"},
    {"nd", BIT(ND), "Nd"},
    {"digit", BIT(ND), "Nd"},
    {"decimalnumber", BIT(ND), "Nd"},
    {"nl", BIT(NL), "Nl"},
    {"no", BIT(NO), "No"},
    {"p", CATEGORIES_PUNCTUATION, "P"},
    {"punct", CATEGORIES_PUNCTUATION, "P"},
    {"punctuation", CATEGORIES_PUNCTUATION, "P"},
    {"pc", BIT(PC), "Pc"},
    {"pd", BIT(PD), "Pd"},
    {"ps", BIT(PS), "Ps"},
    {"pe", BIT(PE), "Pe"},
    {"pi", BIT(PI), "Pi"},
    {"pf", BIT(PF), "Pf"},
    {"po", BIT(PO), "Po"},
    {"s", CATEGORIES_SYMBOL, "S"},
    {"symbol", CATEGORIES_SYMBOL, "S"},
    {"sm", BIT(SM), "Sm"},
    {"sc", BIT(SC), "Sc"},
    {"sk", BIT(SK), "Sk"},
    {"so", BIT(SO), "So"},
    {"z", SEPARATOR, "Z"},
    {"separator", SEPARATOR, "Z"},
    {"zs", BIT(ZS), "Zs"},
    {"zl", BIT(ZL), "Zl"},
    {"zp", BIT(ZP), "Zp"},
    {"c", OTHER, NULL},
    {"other", OTHER, NULL},
    {"cc", BIT(CC), "Cc"},
    {"cntrl", BIT(CC), "Cc"},
    {"cf", BIT(CF), "Cf"},
    {"co", BIT(CO), "Co"},
    {"cn", UNASSIGNED, NULL},
};
// clang-format on

const Property *property_find(const char *name)
{
    for (size_t i = 0; i < sizeof properties / sizeof properties[0]; i++)
        if (strcmp(properties[i].name, name) == 0) return &properties[i];
    return NULL;
}

static bool names_script(const char *script, const char *name)
{
    size_t i = 0;
    while (script[i] != '\0' && (script[i] | 0x20) == name[i])
        i++;
    return script[i] == '\0' && name[i] == '\0';
}

const UnicodeScript *script_find(const char *name)
{
    for (size_t i = 0; i < unicode_scripts_count; i++)
        if (names_script(unicode_scripts[i].name, name)) return &unicode_scripts[i];
    return NULL;
}

void property_write(const Property *property, Str *ret)
{
    CHECK(property->pcre2 != NULL);
    str_printf(ret, "\\p{%s}", property->pcre2);
    for (size_t i = 0; i < unicode_category_delta_count; i++) {
        const UnicodeRange *range = &unicode_category_delta[i];
        if (property->categories >> range->value & 1)
            str_printf(ret, "\\x{%X}-\\x{%X}", range->first, range->last);
    }
}

void script_write(const UnicodeScript *script, Str *ret)
{
    str_printf(ret, "\\p{sc:%s}%s", script->name, script->extra);
}
