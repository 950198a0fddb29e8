#include "text/tokenizer/splitters.h"

#include <string.h>

/* What the patterns tell apart. ASCII characters have their class in a table; the others in the
 * UnicodeTable. */
enum {
    UPPER = 1,    /* Lu, Lt */
    LOWER = 2,    /* Ll */
    CASELESS = 4, /* Lm, Lo */
    MARK = 8,     /* M */
    NUMBER = 16,  /* N */
    NEWLINE = 32, /* \r \n */
    SPACE = 64,   /* the rest of \s */
    SIGN = 128,   /* P, S */
    REST = 256,   /* C and what is left */
    LETTER = UPPER | LOWER | CASELESS,
    WHITE = SPACE | NEWLINE,
};

static const uint16_t category_class[32] = {
    [UTF8PROC_CATEGORY_CN] = REST,     [UTF8PROC_CATEGORY_LU] = UPPER,
    [UTF8PROC_CATEGORY_LL] = LOWER,    [UTF8PROC_CATEGORY_LT] = UPPER,
    [UTF8PROC_CATEGORY_LM] = CASELESS, [UTF8PROC_CATEGORY_LO] = CASELESS,
    [UTF8PROC_CATEGORY_MN] = MARK,     [UTF8PROC_CATEGORY_MC] = MARK,
    [UTF8PROC_CATEGORY_ME] = MARK,     [UTF8PROC_CATEGORY_ND] = NUMBER,
    [UTF8PROC_CATEGORY_NL] = NUMBER,   [UTF8PROC_CATEGORY_NO] = NUMBER,
    [UTF8PROC_CATEGORY_PC] = SIGN,     [UTF8PROC_CATEGORY_PD] = SIGN,
    [UTF8PROC_CATEGORY_PS] = SIGN,     [UTF8PROC_CATEGORY_PE] = SIGN,
    [UTF8PROC_CATEGORY_PI] = SIGN,     [UTF8PROC_CATEGORY_PF] = SIGN,
    [UTF8PROC_CATEGORY_PO] = SIGN,     [UTF8PROC_CATEGORY_SM] = SIGN,
    [UTF8PROC_CATEGORY_SC] = SIGN,     [UTF8PROC_CATEGORY_SK] = SIGN,
    [UTF8PROC_CATEGORY_SO] = SIGN,     [UTF8PROC_CATEGORY_ZS] = SPACE,
    [UTF8PROC_CATEGORY_ZL] = SPACE,    [UTF8PROC_CATEGORY_ZP] = SPACE,
    [UTF8PROC_CATEGORY_CC] = REST,     [UTF8PROC_CATEGORY_CF] = REST,
    [UTF8PROC_CATEGORY_CS] = REST,     [UTF8PROC_CATEGORY_CO] = REST,
    [CATEGORY_NEW_NUMBER] = REST,
};

#define R REST
#define S SPACE
#define P SIGN
#define N NUMBER
#define U UPPER
#define L LOWER
#define E NEWLINE
// clang-format off
static const uint16_t ascii_class[128] = {
    R, R, R, R, R, R, R, R, R, S, E, S, S, E, R, R, R, R, R, R, R, R, R, R, R, R, R, R, R, R, R, R,
    S, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, N, N, N, N, N, N, N, N, N, N, P, P, P, P, P, P,
    P, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, P, P, P, P, P,
    P, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, P, P, P, P, R,
};
// clang-format on
#undef R
#undef S
#undef P
#undef N
#undef U
#undef L
#undef E

/* The class of the character at `at`, and its size; 0 at the end of the text. */
static inline unsigned class_at(const SplitText *text, uint32_t at, uint32_t *ret_size)
{
    if (at >= text->length) {
        *ret_size = 0;
        return 0;
    }
    unsigned char first = (unsigned char)text->data[at];
    if (first < 0x80) {
        *ret_size = 1;
        return ascii_class[first];
    }
    uint8_t entry = text->table->entry[utf8_next(text->data + at, ret_size)];
    if (entry & UNICODE_SPACE) return SPACE;
    return category_class[entry & UNICODE_CATEGORY];
}

/* The end of the run of characters of these classes from `at` on. */
static inline uint32_t run_end(const SplitText *text, uint32_t at, unsigned classes)
{
    uint32_t size;
    while (class_at(text, at, &size) & classes)
        at += size;
    return at;
}

/* The end of up to `most` numbers. */
static inline uint32_t number_end(const SplitText *text, uint32_t at, int most)
{
    uint32_t size;
    for (int i = 0; i < most && class_at(text, at, &size) == NUMBER; i++)
        at += size;
    return at;
}

/* 's 't 're 've 'm 'll 'd at an apostrophe; its end, or 0. `any_case` as (?i:...), where U+017F is
 * an s. */
static inline uint32_t contraction_end(const SplitText *text, uint32_t at, bool any_case)
{
    uint32_t left = text->length - at;
    if (left < 2) return 0;
    const char *s = text->data + at;
    char fold = any_case ? 0x20 : 0;
    char a = (char)(s[1] | fold);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
    if (left < 3) return 0;
    if (any_case && s[1] == '\xC5' && s[2] == '\xBF') return at + 3;
    char b = (char)(s[2] | fold);
    if ((a == 'r' || a == 'v') && b == 'e') return at + 3;
    return a == 'l' && b == 'l' ? at + 3 : 0;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ from white space on: up to the last line end of the run; else all of it
 * at the end of the text; else all but the last character, which goes with what follows, unless it
 * is alone. Without `lines` the first alternative is missing. */
static inline uint32_t white_end(const SplitText *text, uint32_t at, bool lines)
{
    uint32_t end = at, last = at, line_end = 0, size;
    for (;;) {
        unsigned class = class_at(text, end, &size);
        if (!(class & WHITE)) break;
        last = end;
        end += size;
        if (class == NEWLINE) line_end = end;
    }
    if (lines && line_end != 0) return line_end;
    if (end == text->length || last == at) return end;
    return last;
}

/* ---- GPT-2 ---- */

static uint32_t split_gpt2(const SplitText *text, uint32_t at, uint32_t *ret_begin)
{
    *ret_begin = at;
    uint32_t size, next = at;
    unsigned class = class_at(text, at, &size);
    if (text->data[at] == '\'') {
        uint32_t end = contraction_end(text, at, false);
        if (end != 0) return end;
    }
    if (text->data[at] == ' ') {
        next = at + 1;
        class = class_at(text, next, &size);
    }
    if (class & LETTER) return run_end(text, next + size, LETTER);
    if (class == NUMBER) return run_end(text, next + size, NUMBER);
    if (class != 0 && !(class & WHITE)) return run_end(text, next + size, MARK | SIGN | REST);
    return white_end(text, at, false);
}

/* ---- cl100k: Qwen (single digits), Llama-3 and GLM-4 (up to three), Qwen3.5 (marks are letters)
 * ---- */

static inline uint32_t split_cl100k(const SplitText *text, uint32_t at, int digits,
                                    unsigned letters)
{
    const unsigned others = (MARK | SIGN | REST) & ~letters;
    uint32_t size, next_size;
    unsigned class = class_at(text, at, &size);
    if (class & letters) return run_end(text, at + size, letters);
    if (class == NUMBER) return number_end(text, at, digits);
    char first = text->data[at];
    if (first == '\'') {
        uint32_t end = contraction_end(text, at, true);
        if (end != 0) return end;
    }
    uint32_t next = at + size;
    unsigned next_class = class_at(text, next, &next_size);
    if (class != NEWLINE && (next_class & letters)) return run_end(text, next + next_size, letters);
    if (class & others) return run_end(text, run_end(text, next, others), NEWLINE);
    if (first == ' ' && (next_class & others))
        return run_end(text, run_end(text, next + next_size, others), NEWLINE);
    return white_end(text, at, true);
}

static uint32_t split_qwen(const SplitText *text, uint32_t at, uint32_t *ret_begin)
{
    *ret_begin = at;
    return split_cl100k(text, at, 1, LETTER);
}

static uint32_t split_llama3(const SplitText *text, uint32_t at, uint32_t *ret_begin)
{
    *ret_begin = at;
    return split_cl100k(text, at, 3, LETTER);
}

static uint32_t split_qwen3_5(const SplitText *text, uint32_t at, uint32_t *ret_begin)
{
    *ret_begin = at;
    return split_cl100k(text, at, 1, LETTER | MARK);
}

/* ---- o200k and Tekken: words begin with capitals and go on in small letters ---- */

/* [UPPER CASELESS MARK]*[LOWER CASELESS MARK]+ at `at`: the first part takes what it can and gives
 * back down to its last caseless character if no small letter follows. 0 if that fails. */
static uint32_t small_end(const SplitText *text, uint32_t at)
{
    uint32_t size, caseless_end = 0;
    for (;;) {
        unsigned class = class_at(text, at, &size);
        if (!(class & (UPPER | CASELESS | MARK))) break;
        at += size;
        if (class & (CASELESS | MARK)) caseless_end = at;
    }
    uint32_t end = run_end(text, at, LOWER | CASELESS | MARK);
    return end > at ? end : caseless_end;
}

static inline uint32_t split_cased(const SplitText *text, uint32_t at, int digits,
                                   bool contractions)
{
    uint32_t size, next_size, end = 0;
    unsigned class = class_at(text, at, &size);
    uint32_t next = at + size;
    bool prefix = (class & (MARK | SPACE | SIGN | REST)) != 0;
    if (prefix) end = small_end(text, next);
    if (end == 0 && (class & (LETTER | MARK))) end = small_end(text, at);
    if (end == 0) {
        /* Capitals alone; what else the second alternative matches, the first has matched. */
        uint32_t begin = prefix ? next : at;
        end = run_end(text, begin, UPPER);
        if (end == begin) end = 0;
    }
    if (end != 0) {
        uint32_t tail = 0;
        if (contractions && end < text->length && text->data[end] == '\'')
            tail = contraction_end(text, end, true);
        return tail != 0 ? tail : end;
    }
    if (class == NUMBER) return number_end(text, at, digits);
    const unsigned others = MARK | SIGN | REST;
    if (class & others)
        end = run_end(text, next, others);
    else if (text->data[at] == ' ' && (class_at(text, next, &next_size) & others))
        end = run_end(text, next + next_size, others);
    else
        return white_end(text, at, true);
    while (end < text->length && strchr("\r\n/", text->data[end]) != NULL &&
           text->data[end] != '\0')
        end++;
    return end;
}

static uint32_t split_o200k(const SplitText *text, uint32_t at, uint32_t *ret_begin)
{
    *ret_begin = at;
    return split_cased(text, at, 3, true);
}

static uint32_t split_tekken(const SplitText *text, uint32_t at, uint32_t *ret_begin)
{
    *ret_begin = at;
    return split_cased(text, at, 1, false);
}

/* ---- DeepSeek-V3: three patterns in a row, which leave some characters unmatched ---- */

static uint32_t split_three_digits(const SplitText *text, uint32_t at, uint32_t *ret_begin)
{
    uint32_t size;
    for (; at < text->length; at += size) {
        if (class_at(text, at, &size) != NUMBER) continue;
        *ret_begin = at;
        return number_end(text, at, 3);
    }
    return 0;
}

static bool is_cjk_or_kana(const SplitText *text, uint32_t at, uint32_t *ret_size)
{
    uint32_t c = utf8_next(text->data + at, ret_size);
    return (c >= 0x4E00 && c <= 0x9FA5) || (c >= 0x3040 && c <= 0x30FF);
}

static uint32_t split_cjk(const SplitText *text, uint32_t at, uint32_t *ret_begin)
{
    uint32_t size;
    for (; at < text->length; at += size) {
        if ((unsigned char)text->data[at] < 0xE3) {
            size = 1;
            continue;
        }
        if (!is_cjk_or_kana(text, at, &size)) continue;
        *ret_begin = at;
        while (at < text->length && is_cjk_or_kana(text, at, &size))
            at += size;
        return at;
    }
    return 0;
}

/* The match that begins at `at`, or 0. */
static uint32_t deepseek_end(const SplitText *text, uint32_t at)
{
    uint32_t size, next_size;
    unsigned class = class_at(text, at, &size);
    uint32_t next = at + size;
    unsigned char first = (unsigned char)text->data[at];
    if (class == SIGN && first < 0x80) {
        uint32_t end = next;
        while (end < text->length &&
               ((text->data[end] | 0x20) >= 'a' && (text->data[end] | 0x20) <= 'z'))
            end++;
        if (end > next) return end;
    }
    if (class & (LETTER | MARK)) return run_end(text, next, LETTER | MARK);
    unsigned next_class = class_at(text, next, &next_size);
    if ((class & (NUMBER | SPACE | REST)) && (next_class & (LETTER | MARK)))
        return run_end(text, next + next_size, LETTER | MARK);
    if (class == SIGN) return run_end(text, run_end(text, next, SIGN), NEWLINE);
    if (first == ' ' && next_class == SIGN)
        return run_end(text, run_end(text, next + next_size, SIGN), NEWLINE);
    return class & WHITE ? white_end(text, at, true) : 0;
}

static uint32_t split_deepseek(const SplitText *text, uint32_t at, uint32_t *ret_begin)
{
    uint32_t size;
    for (; at < text->length; at += size) {
        uint32_t end = deepseek_end(text, at);
        if (end != 0) {
            *ret_begin = at;
            return end;
        }
        class_at(text, at, &size);
    }
    return 0;
}

/* ---- the table ---- */

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define CASED(tail)                                                                                \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"     \
    "+" tail "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}"  \
    "\\p{M}]*" tail
#define WHITE_SPACE "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct {
    const char *pattern;
    Splitter splitter;
} known[] = {
    {GPT2_PATTERN, split_gpt2},
    {CONTRACTIONS
     "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" WHITE_SPACE,
     split_qwen},
    {CONTRACTIONS
     "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" WHITE_SPACE,
     split_llama3},
    {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| "
                  "?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" WHITE_SPACE,
     split_qwen3_5},
    {CASED(CONTRACTIONS "?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" WHITE_SPACE,
     split_o200k},
    {CASED("") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" WHITE_SPACE, split_tekken},
    {"\\p{N}{1,3}", split_three_digits},
    {"[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", split_cjk},
    {"[!\"#$%&'()*+,\\-./"
     ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
     "| ?[\\p{P}\\p{S}]+[\\r\\n]*" WHITE_SPACE,
     split_deepseek},
};

Splitter splitter_find(const char *pattern)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].pattern, pattern) == 0) return known[i].splitter;
    return NULL;
}

const char *splitter_pattern(int index)
{
    return index < (int)(sizeof known / sizeof known[0]) ? known[index].pattern : NULL;
}
