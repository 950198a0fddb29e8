#include "text/tokenizer/unicode_table.h"

#include "base/error.h"
#include "base/memory.h"

static bool is_white_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

/* Decomposes and composes `c`. Returns whether that changes it. With `joins`, marks every character
 * that its decomposition yields after the first: composing may join that one to the one before. */
static bool mark_normal_form(UnicodeTable *table, uint32_t c, bool compat, bool joins)
{
    utf8proc_int32_t part[64];
    int boundary = 0;
    utf8proc_option_t options =
        UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compat ? UTF8PROC_COMPAT : 0);
    utf8proc_ssize_t count =
        utf8proc_decompose_char((utf8proc_int32_t)c, part, 64, options, &boundary);
    CHECK(count > 0 && count <= 64);
    for (utf8proc_ssize_t i = 1; joins && i < count; i++)
        table->entry[part[i]] |= UNICODE_NFC | UNICODE_NFKC;
    count = utf8proc_normalize_utf32(part, count, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    return count != 1 || part[0] != (utf8proc_int32_t)c;
}

static const UnicodeRange *find_range(const UnicodeRange *range, size_t count, uint32_t c)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > range[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && c >= range[low].first ? &range[low] : NULL;
}

bool unicode_is_plain(uint32_t c)
{
    return find_range(unicode_plain_delta, unicode_plain_delta_count, c) != NULL ||
           find_range(unicode_category_delta, unicode_category_delta_count, c) != NULL;
}

static void set_categories(UnicodeTable *table, const UnicodeRange *range, size_t count,
                           int category)
{
    for (size_t i = 0; i < count; i++)
        for (uint32_t c = range[i].first; c <= range[i].last; c++)
            table->entry[c] = (uint8_t)(category >= 0 ? category : range[i].value);
}

UnicodeTable *unicode_table_create(void)
{
    UnicodeTable *table = mem_calloc(1, sizeof *table);
    for (uint32_t c = 0; c < CODE_POINTS; c++)
        table->entry[c] = (uint8_t)utf8proc_get_property((utf8proc_int32_t)c)->category;
    set_categories(table, unicode_category_delta, unicode_category_delta_count, -1);
    set_categories(table, unicode_number_delta, unicode_number_delta_count, CATEGORY_NEW_NUMBER);
    for (uint32_t c = 0; c < CODE_POINTS; c++) {
        const utf8proc_property_t *property = utf8proc_get_property((utf8proc_int32_t)c);
        if (is_white_space(c)) table->entry[c] |= UNICODE_SPACE;
        bool decomposes = property->decomp_seqindex != UINT16_MAX;
        if ((property->combining_class == 0 && !decomposes) || unicode_is_plain(c)) continue;
        if (property->combining_class != 0) table->entry[c] |= UNICODE_NFC | UNICODE_NFKC;
        if (!decomposes) continue;
        if (mark_normal_form(table, c, false, true)) table->entry[c] |= UNICODE_NFC;
        if (mark_normal_form(table, c, true, false)) table->entry[c] |= UNICODE_NFKC;
    }
    /* Hangul vowels and finals join by arithmetic, not by table. */
    for (uint32_t c = 0x1161; c <= 0x1175; c++)
        table->entry[c] |= UNICODE_NFC | UNICODE_NFKC;
    for (uint32_t c = 0x11A8; c <= 0x11C2; c++)
        table->entry[c] |= UNICODE_NFC | UNICODE_NFKC;
    return table;
}

bool unicode_is_word(const UnicodeTable *table, uint32_t c)
{
    return unicode_is(table, c,
                      CATEGORIES_LETTER | CATEGORIES_MARK | CATEGORY_BIT(ND) | CATEGORY_BIT(NL) |
                          CATEGORY_BIT(PC)) ||
           c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
           (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
           (c >= 0x1F170 && c <= 0x1F189);
}

bool unicode_is_punctuation(const UnicodeTable *table, uint32_t c)
{
    const UnicodeRange *range =
        find_range(unicode_punctuation_delta, unicode_punctuation_delta_count, c);
    return range != NULL ? range->value != 0 : unicode_is(table, c, CATEGORIES_PUNCTUATION);
}

int unicode_lower(uint32_t c, uint32_t ret[2])
{
    if (c == 0x130) {
        ret[0] = 'i';
        ret[1] = 0x307;
        return 2;
    }
    const UnicodeRange *range = find_range(unicode_lower_delta, unicode_lower_delta_count, c);
    if (range != NULL)
        ret[0] = (uint32_t)((int32_t)c + range->value);
    else
        ret[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    return 1;
}
