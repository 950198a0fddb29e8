#include "text/jinja/case.h"
#include "text/jinja/chars.h"

#include <utf8proc.h>

#include "base/utf8.h"
#include "text/jinja/run.h"

/* Letters whose upper case is several letters (Unicode's SpecialCasing.txt, the unconditional
 * part), with their title case where that is several letters too. U+1F80 to U+1FAF follow a rule:
 * see special_upper. */
static const struct {
    uint32_t letter;
    uint32_t upper[3], title[3];
} special_casing[] = {
    {0x00DF, {0x0053, 0x0053}, {0x0053, 0x0073}},
    {0x0149, {0x02BC, 0x004E}, {0x02BC, 0x004E}},
    {0x01F0, {0x004A, 0x030C}, {0x004A, 0x030C}},
    {0x0390, {0x0399, 0x0308, 0x0301}, {0x0399, 0x0308, 0x0301}},
    {0x03B0, {0x03A5, 0x0308, 0x0301}, {0x03A5, 0x0308, 0x0301}},
    {0x0587, {0x0535, 0x0552}, {0x0535, 0x0582}},
    {0x1E96, {0x0048, 0x0331}, {0x0048, 0x0331}},
    {0x1E97, {0x0054, 0x0308}, {0x0054, 0x0308}},
    {0x1E98, {0x0057, 0x030A}, {0x0057, 0x030A}},
    {0x1E99, {0x0059, 0x030A}, {0x0059, 0x030A}},
    {0x1E9A, {0x0041, 0x02BE}, {0x0041, 0x02BE}},
    {0x1F50, {0x03A5, 0x0313}, {0x03A5, 0x0313}},
    {0x1F52, {0x03A5, 0x0313, 0x0300}, {0x03A5, 0x0313, 0x0300}},
    {0x1F54, {0x03A5, 0x0313, 0x0301}, {0x03A5, 0x0313, 0x0301}},
    {0x1F56, {0x03A5, 0x0313, 0x0342}, {0x03A5, 0x0313, 0x0342}},
    {0x1FB2, {0x1FBA, 0x0399}, {0x1FBA, 0x0345}},
    {0x1FB3, {0x0391, 0x0399}, {0}},
    {0x1FB4, {0x0386, 0x0399}, {0x0386, 0x0345}},
    {0x1FB6, {0x0391, 0x0342}, {0x0391, 0x0342}},
    {0x1FB7, {0x0391, 0x0342, 0x0399}, {0x0391, 0x0342, 0x0345}},
    {0x1FBC, {0x0391, 0x0399}, {0}},
    {0x1FC2, {0x1FCA, 0x0399}, {0x1FCA, 0x0345}},
    {0x1FC3, {0x0397, 0x0399}, {0}},
    {0x1FC4, {0x0389, 0x0399}, {0x0389, 0x0345}},
    {0x1FC6, {0x0397, 0x0342}, {0x0397, 0x0342}},
    {0x1FC7, {0x0397, 0x0342, 0x0399}, {0x0397, 0x0342, 0x0345}},
    {0x1FCC, {0x0397, 0x0399}, {0}},
    {0x1FD2, {0x0399, 0x0308, 0x0300}, {0x0399, 0x0308, 0x0300}},
    {0x1FD3, {0x0399, 0x0308, 0x0301}, {0x0399, 0x0308, 0x0301}},
    {0x1FD6, {0x0399, 0x0342}, {0x0399, 0x0342}},
    {0x1FD7, {0x0399, 0x0308, 0x0342}, {0x0399, 0x0308, 0x0342}},
    {0x1FE2, {0x03A5, 0x0308, 0x0300}, {0x03A5, 0x0308, 0x0300}},
    {0x1FE3, {0x03A5, 0x0308, 0x0301}, {0x03A5, 0x0308, 0x0301}},
    {0x1FE4, {0x03A1, 0x0313}, {0x03A1, 0x0313}},
    {0x1FE6, {0x03A5, 0x0342}, {0x03A5, 0x0342}},
    {0x1FE7, {0x03A5, 0x0308, 0x0342}, {0x03A5, 0x0308, 0x0342}},
    {0x1FF2, {0x1FFA, 0x0399}, {0x1FFA, 0x0345}},
    {0x1FF3, {0x03A9, 0x0399}, {0}},
    {0x1FF4, {0x038F, 0x0399}, {0x038F, 0x0345}},
    {0x1FF6, {0x03A9, 0x0342}, {0x03A9, 0x0342}},
    {0x1FF7, {0x03A9, 0x0342, 0x0399}, {0x03A9, 0x0342, 0x0345}},
    {0x1FFC, {0x03A9, 0x0399}, {0}},
    {0xFB00, {0x0046, 0x0046}, {0x0046, 0x0066}},
    {0xFB01, {0x0046, 0x0049}, {0x0046, 0x0069}},
    {0xFB02, {0x0046, 0x004C}, {0x0046, 0x006C}},
    {0xFB03, {0x0046, 0x0046, 0x0049}, {0x0046, 0x0066, 0x0069}},
    {0xFB04, {0x0046, 0x0046, 0x004C}, {0x0046, 0x0066, 0x006C}},
    {0xFB05, {0x0053, 0x0054}, {0x0053, 0x0074}},
    {0xFB06, {0x0053, 0x0054}, {0x0053, 0x0074}},
    {0xFB13, {0x0544, 0x0546}, {0x0544, 0x0576}},
    {0xFB14, {0x0544, 0x0535}, {0x0544, 0x0565}},
    {0xFB15, {0x0544, 0x053B}, {0x0544, 0x056B}},
    {0xFB16, {0x054E, 0x0546}, {0x054E, 0x0576}},
    {0xFB17, {0x0544, 0x053D}, {0x0544, 0x056D}},
};

static int special_upper(uint32_t c, bool title, uint32_t out[4])
{
    if (c >= 0x1F80 && c <= 0x1FAF) { /* Greek letters with an iota below it */
        static const uint32_t base[] = {0x1F08, 0x1F28, 0x1F68};
        if (title) return 0;
        out[0] = base[(c - 0x1F80) >> 4] + (c & 7);
        out[1] = 0x0399;
        return 2;
    }
    for (size_t i = 0; i < sizeof special_casing / sizeof special_casing[0]; i++) {
        if (special_casing[i].letter != c) continue;
        const uint32_t *letters = title ? special_casing[i].title : special_casing[i].upper;
        int count = 0;
        while (count < 3 && letters[count] != 0) {
            out[count] = letters[count];
            count++;
        }
        return count;
    }
    return 0;
}

static int upper_of(uint32_t c, bool title, uint32_t out[4])
{
    int count = c >= 0xDF ? special_upper(c, title, out) : 0;
    if (count > 0) return count;
    out[0] = (uint32_t)(title ? utf8proc_totitle((utf8proc_int32_t)c)
                              : utf8proc_toupper((utf8proc_int32_t)c));
    return 1;
}

static int lower_of(uint32_t c, uint32_t out[4])
{
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    if (c != 0x130) return 1;
    out[0] = 'i';
    out[1] = 0x307;
    return 2;
}

static int fold_of(uint32_t c, uint32_t out[4])
{
    int boundary = 0;
    utf8proc_int32_t folded[8];
    utf8proc_ssize_t count =
        utf8proc_decompose_char((utf8proc_int32_t)c, folded, 8, UTF8PROC_CASEFOLD, &boundary);
    if (count < 1 || count > 4) {
        out[0] = c;
        return 1;
    }
    for (utf8proc_ssize_t i = 0; i < count; i++)
        out[i] = (uint32_t)folded[i];
    return (int)count;
}

static bool is_cased(uint32_t c)
{
    return char_is_upper(c) || char_is_lower(c) || char_is_title(c);
}

/* What may stand between a letter and the end of a word without being part of either. */
static bool is_case_ignorable(uint32_t c)
{
    if (c == '\'' || c == '.' || c == ':' || c == '^' || c == '`' || c == 0xA8 || c == 0xAD ||
        c == 0xAF || c == 0xB4 || c == 0xB7 || c == 0xB8 || c == 0x2019)
        return true;
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_ME ||
           category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_LM ||
           category == UTF8PROC_CATEGORY_SK;
}

/* Is the sigma at `at` the last letter of a word of several? */
static bool sigma_is_final(Run *run, const String *text, size_t at)
{
    bool letter_before = false;
    for (size_t i = at; i > 0 && !letter_before;) {
        do {
            i--;
        } while (((unsigned char)text->bytes[i] & 0xC0) == 0x80);
        int size;
        uint32_t c = string_char(text, i, &size);
        run_step_char(run, c, 3);
        if (is_case_ignorable(c)) continue;
        letter_before = is_cased(c);
        break;
    }
    if (!letter_before) return false;
    for (size_t i = at + 2; i < text->length;) {
        int size;
        uint32_t c = string_char(text, i, &size);
        run_step_char(run, c, 3);
        if (!is_case_ignorable(c)) return !is_cased(c);
        i += (size_t)size;
    }
    return true;
}

static bool ends_word(uint32_t c)
{
    return char_is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
}

/* One letter of a text. */
typedef struct Letter {
    const String *text;
    size_t at;
    uint32_t c;
    bool begins; /* a word */
} Letter;

static int map_char(Run *run, const Letter *letter, CaseMode mode, uint32_t out[4])
{
    uint32_t c = letter->c;
    bool raise = false, title = false;
    switch (mode) {
    case CASE_FOLD:
        return fold_of(c, out);
    case CASE_UPPER:
        raise = true;
        break;
    case CASE_LOWER:
        break;
    case CASE_SWAP:
        raise = char_is_lower(c);
        if (!raise && !char_is_upper(c)) {
            out[0] = c;
            return 1;
        }
        break;
    case CASE_TITLE:
    case CASE_CAPITALIZE:
        raise = title = letter->begins;
        break;
    case CASE_TITLE_WORDS:
        raise = letter->begins;
        break;
    }
    if (raise) return upper_of(c, title, out);
    if (c == 0x3A3 && sigma_is_final(run, letter->text, letter->at)) {
        out[0] = 0x3C2;
        return 1;
    }
    return lower_of(c, out);
}

/* Upper or lower case of ASCII from one input; the string itself where it is in that case. */
static Value case_map_ascii(Run *run, Value string, bool raise)
{
    const String *text = string.as.string;
    char first = raise ? 'a' : 'A', last = raise ? 'z' : 'Z';
    size_t at = 0;
    while (at < text->length && (text->bytes[at] < first || text->bytes[at] > last))
        at++;
    if (at == text->length) return string;
    char *bytes;
    Value mapped = value_room(run, text->length, string.origin, &bytes);
    memcpy(bytes, text->bytes, text->length);
    for (; at < text->length; at++)
        if (bytes[at] >= first && bytes[at] <= last) bytes[at] ^= 0x20;
    mapped.flags = string.flags;
    return mapped;
}

Value case_map(Run *run, Value string, CaseMode mode)
{
    const String *text = string.as.string;
    bool is_plain = mode == CASE_UPPER || mode == CASE_LOWER;
    run_step(run, text->length / 8);
    if (is_plain && text->run == NULL && string_is_ascii(text))
        return case_map_ascii(run, string, mode == CASE_UPPER);
    buffer_push(run);
    bool begins = true, in_separator = false;
    for (size_t at = 0; at < text->length;) {
        int size;
        uint32_t c = string_char(text, at, &size), out[4];
        run_step_char(run, c, 5);
        if (mode == CASE_TITLE_WORDS && at > 0) {
            begins = ends_word(c) != in_separator;
        }
        in_separator = ends_word(c);
        Letter letter = {.text = text, .at = at, .c = c, .begins = begins};
        int count = map_char(run, &letter, mode, out);
        char bytes[32];
        size_t used = 0;
        for (int i = 0; i < count; i++)
            used += (size_t)utf8_encode(out[i], bytes + used);
        buffer_write(run, bytes, used, string_origin(string, at));
        begins = mode == CASE_TITLE ? !is_cased(c) : false;
        at += (size_t)size;
    }
    Value mapped = buffer_pop(run);
    mapped.flags = string.flags;
    return mapped;
}
