#include "text/unicode_table.h"

#include "base/memory.h"

static bool is_white_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

/* Marks what the normal form `options` may change: `c` itself, and every character that a
 * decomposition yields after its first, because composing may join that one to the character before
 * it. */
static void mark_normal_form(UnicodeTable *table, uint32_t c, int options, uint8_t flag)
{
    utf8proc_int32_t part[64];
    int boundary = 0;
    utf8proc_ssize_t count = utf8proc_decompose_char((utf8proc_int32_t)c, part, 64,
                                                     (utf8proc_option_t)options, &boundary);
    if (count <= 0 || count > 64) return;
    for (utf8proc_ssize_t i = 1; i < count; i++)
        table->entry[part[i]] |= flag;
    count = utf8proc_normalize_utf32(part, count, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (count != 1 || part[0] != (utf8proc_int32_t)c) table->entry[c] |= flag;
}

UnicodeTable *unicode_table_create(void)
{
    UnicodeTable *table = mem_calloc(1, sizeof *table);
    for (uint32_t c = 0; c < CODE_POINTS; c++) {
        const utf8proc_property_t *property = utf8proc_get_property((utf8proc_int32_t)c);
        table->entry[c] |= (uint8_t)property->category;
        if (is_white_space(c)) table->entry[c] |= UNICODE_SPACE;
        if (property->combining_class != 0) table->entry[c] |= UNICODE_NFC | UNICODE_NFKC;
        if (property->decomp_seqindex == UINT16_MAX) continue;
        mark_normal_form(table, c, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, UNICODE_NFC);
        mark_normal_form(table, c, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | UTF8PROC_COMPAT,
                         UNICODE_NFKC);
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
