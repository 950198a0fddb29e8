#include "text/tokenizer/regex.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "text/tokenizer/code_point_set.h"

#define REGEX_DEPTH_MAX 50

/* ---- the translator ---- */

typedef struct Translator {
    const char *pattern;
    size_t length, at;
    const UnicodeTable *table;
    const char *where;
    Str out;
    bool caseless;
    uint32_t last_literal; /* the character just written, or 0 */
    int depth;
    Error *err;
} Translator;

/* A character class being read: its members, and how PCRE2 may write them (`body`) unless it holds
 * an intersection or a negated class. */
typedef struct ClassReader {
    CodePointSet *set; /* NULL while `body` alone is wanted */
    Str body;
    bool plain; /* `body` says it all */
    bool alone; /* not a class at all, but one escape outside of any */
} ClassReader;

static Status refuse(Translator *t, const char *what)
{
    return error_set(t->err, ERR_UNSUPPORTED,
                     "%s: the regular expression \"%.600s\" is not supported: %s at byte %zu",
                     t->where, t->pattern, what, t->at);
}

static bool at_text(const Translator *t, const char *text)
{
    size_t length = strlen(text);
    return t->length - t->at >= length && memcmp(t->pattern + t->at, text, length) == 0;
}

static bool take(Translator *t, const char *text)
{
    if (!at_text(t, text)) return false;
    t->at += strlen(text);
    return true;
}

static char peek(const Translator *t)
{
    return t->at < t->length ? t->pattern[t->at] : '\0';
}

static void write_char(Str *out, uint32_t c)
{
    if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
        str_putc(out, (char)c);
    else
        str_printf(out, "\\x{%X}", c);
}

static uint32_t take_char(Translator *t)
{
    uint32_t c = 0;
    int size = utf8_decode(t->pattern + t->at, t->length - t->at, &c);
    CHECK(size > 0);
    t->at += (size_t)size;
    return c;
}

/* ---- escapes ---- */

static bool take_hex(Translator *t, int digits_min, int digits_max, uint32_t *ret)
{
    uint32_t value = 0;
    int digits = 0;
    while (digits < digits_max && peek(t) != '\0' && strchr("0123456789abcdefABCDEF", peek(t))) {
        char c = t->pattern[t->at++];
        value = value * 16 + (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
        digits++;
    }
    *ret = value;
    return digits >= digits_min && value < CODE_POINTS && !(value >= 0xD800 && value <= 0xDFFF);
}

/* Reads what follows a backslash if it stands for one character; false if it is something else. */
static Status take_char_escape(Translator *t, uint32_t *ret, bool *ret_found)
{
    static const char letters[] = "tnrfvae", values[] = "\t\n\r\f\v\a\x1B";
    *ret_found = true;
    char c = peek(t);
    const char *known = c == '\0' ? NULL : strchr(letters, c);
    if (known != NULL) {
        t->at++;
        *ret = (uint32_t)values[known - letters];
        return OK;
    }
    if (take(t, "x{")) {
        if (!take_hex(t, 1, 8, ret) || !take(t, "}")) return refuse(t, "a wrong \\x{...}");
        return OK;
    }
    if (take(t, "x")) {
        /* \x80 and above are bytes of a character in Oniguruma, not code points. */
        if (!take_hex(t, 1, 2, ret) || *ret >= 0x80) return refuse(t, "a wrong \\x..");
        return OK;
    }
    if (take(t, "u")) {
        if (!take_hex(t, 4, 4, ret)) return refuse(t, "a wrong \\u....");
        return OK;
    }
    bool alphanumeric = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (c == '\0' || alphanumeric) {
        *ret_found = false;
        return OK;
    }
    *ret = take_char(t);
    return OK;
}

static Status take_property_name(Translator *t, char *name, size_t size, bool *ret_negated)
{
    if (!take(t, "{")) return refuse(t, "\\p without {...}");
    if (take(t, "^")) *ret_negated = !*ret_negated;
    size_t length = 0;
    while (peek(t) != '}') {
        char c = peek(t);
        if (c == '\0' || (unsigned char)c >= 0x80 || length + 1 >= size)
            return refuse(t, "a wrong property name");
        t->at++;
        if (c == ' ' || c == '-' || c == '_') continue;
        name[length++] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    t->at++;
    name[length] = '\0';
    return OK;
}

/* Adds a set to a class that PCRE2 may write as `body`; NULL: only as ranges. */
static void add_set(ClassReader *reader, CodePointSet *set, bool negated, const Str *body)
{
    if (negated) set_invert(set);
    if (reader->set != NULL) set_add_set(reader->set, set);
    if (negated || body == NULL)
        set_write(set, &reader->body);
    else
        str_append(&reader->body, body->data, body->length);
}

/* Whether PCRE2's way to write a part of a class is all that is wanted of it. */
static bool body_suffices(const ClassReader *reader, bool negated, const Str *body)
{
    return reader->set == NULL && !negated && body->length > 0;
}

static void add_property(const Translator *t, ClassReader *reader, const Property *property,
                         bool negated)
{
    Str body = {0};
    if (property->pcre2 != NULL) property_write(property, &body);
    if (body_suffices(reader, negated, &body)) {
        str_append(&reader->body, body.data, body.length);
    } else {
        CodePointSet *set = set_create();
        set_add_categories(set, t->table, property->categories);
        add_set(reader, set, negated, body.length > 0 ? &body : NULL);
        free(set);
    }
    str_free(&body);
}

static void add_script(ClassReader *reader, const UnicodeScript *script, bool negated)
{
    Str body = {0};
    script_write(script, &body);
    if (body_suffices(reader, negated, &body)) {
        str_append(&reader->body, body.data, body.length);
    } else {
        CodePointSet *set = set_create();
        set_add_pcre2_class(set, str_text(&body));
        add_set(reader, set, negated, &body);
        free(set);
    }
    str_free(&body);
}

static void add_spaces(const Translator *t, ClassReader *reader, bool negated)
{
    CodePointSet *set = set_create();
    set_add_spaces(set, t->table);
    add_set(reader, set, negated, NULL);
    free(set);
}

static Status read_property(Translator *t, ClassReader *reader, bool negated)
{
    char name[64];
    TRY(take_property_name(t, name, sizeof name, &negated));
    const Property *property = property_find(name);
    const UnicodeScript *script = script_find(name);
    if (property != NULL) {
        uint32_t cased = CATEGORY_BIT(LU) | CATEGORY_BIT(LL) | CATEGORY_BIT(LT);
        uint32_t part = property->categories & cased;
        if (t->caseless && (negated || (part != 0 && part != cased)))
            return refuse(t, "a negated property, or one of one letter case, inside (?i)");
        add_property(t, reader, property, negated);
    } else if (strcmp(name, "space") == 0 || strcmp(name, "whitespace") == 0) {
        add_spaces(t, reader, negated);
    } else if (script != NULL) {
        if (t->caseless) return refuse(t, "a script inside (?i)");
        add_script(reader, script, negated);
    } else {
        char what[128];
        snprintf(what, sizeof what, "the property %s", name);
        return refuse(t, what);
    }
    return OK;
}

/* Reads what follows a backslash if it stands for a class of characters. */
static Status take_class_escape(Translator *t, ClassReader *reader, bool *ret_found)
{
    char c = peek(t);
    *ret_found = c != '\0' && strchr("sSdDwWhHpP", c) != NULL;
    if (!*ret_found) return OK;
    t->at++;
    bool negated = c >= 'A' && c <= 'Z';
    if (c == 'p' || c == 'P') return read_property(t, reader, negated);
    if (c == 'd' || c == 'D') {
        add_property(t, reader, property_find("nd"), negated);
        return OK;
    }
    if (c == 's' || c == 'S') {
        add_spaces(t, reader, negated);
        return OK;
    }
    CodePointSet *set = set_create();
    if (c == 'h' || c == 'H') {
        set_add_range(set, '0', '9');
        set_add_range(set, 'A', 'F');
        set_add_range(set, 'a', 'f');
    } else {
        set_add_words(set, t->table, reader->alone);
    }
    add_set(reader, set, negated, NULL);
    free(set);
    return OK;
}

/* ---- character classes ---- */

static Status read_class(Translator *t, ClassReader *reader);

static void reader_free(ClassReader *reader)
{
    free(reader->set);
    str_free(&reader->body);
}

static Status read_posix(Translator *t, ClassReader *reader)
{
    bool negated = take(t, "^");
    CodePointSet *set = set_create();
    Status status = OK;
    if (take(t, "space:]"))
        set_add_spaces(set, t->table);
    else if (take(t, "digit:]"))
        set_add_categories(set, t->table, CATEGORY_BIT(ND));
    else if (take(t, "punct:]"))
        set_add_categories(set, t->table, CATEGORIES_PUNCTUATION | CATEGORIES_SYMBOL);
    else
        status = refuse(t, "this [:class:]");
    if (status == OK) add_set(reader, set, negated, NULL);
    free(set);
    return status;
}

/* Adds a class that stands inside another. */
static Status read_nested(Translator *t, ClassReader *reader)
{
    ClassReader inner = {.set = reader->set == NULL ? NULL : set_create(), .plain = true};
    Status status = read_class(t, &inner);
    if (status == OK) {
        if (reader->set != NULL) set_add_set(reader->set, inner.set);
        str_puts(&reader->body, str_text(&inner.body));
        reader->plain &= inner.plain;
    }
    reader_free(&inner);
    return status;
}

static Status read_range(Translator *t, ClassReader *reader, uint32_t first)
{
    uint32_t last = first;
    bool range = peek(t) == '-' && t->at + 1 < t->length && t->pattern[t->at + 1] != ']';
    if (range) {
        t->at++;
        bool is_char = true;
        if (peek(t) == '[') return refuse(t, "a class as the end of a range");
        if (take(t, "\\"))
            TRY(take_char_escape(t, &last, &is_char));
        else
            last = take_char(t);
        if (!is_char || last < first) return refuse(t, "a wrong range");
    }
    if (t->caseless && last >= 0x80) return refuse(t, "a character beyond ASCII inside (?i)");
    if (reader->set != NULL) set_add_range(reader->set, first, last);
    write_char(&reader->body, first);
    if (last > first) {
        str_putc(&reader->body, '-');
        write_char(&reader->body, last);
    }
    return OK;
}

static Status read_class_item(Translator *t, ClassReader *reader)
{
    if (take(t, "[:")) return read_posix(t, reader);
    if (take(t, "[")) return read_nested(t, reader);
    if (take(t, "\\")) {
        bool found;
        uint32_t c = 0;
        TRY(take_class_escape(t, reader, &found));
        if (found) return OK;
        if (take(t, "b")) return read_range(t, reader, '\b');
        TRY(take_char_escape(t, &c, &found));
        if (!found) return refuse(t, "an unknown escape");
        return read_range(t, reader, c);
    }
    return read_range(t, reader, take_char(t));
}

/* `left && right`: what stands before and what stands behind, up to the end of the class. */
static Status read_intersection(Translator *t, ClassReader *reader)
{
    ClassReader right = {.set = reader->set == NULL ? NULL : set_create(), .plain = true};
    Status status = OK;
    while (status == OK && peek(t) != ']' && !at_text(t, "&&"))
        status = t->at < t->length ? read_class_item(t, &right) : refuse(t, "an open class");
    if (status == OK && reader->set != NULL) set_intersect(reader->set, right.set);
    reader->plain = false;
    reader_free(&right);
    return status;
}

/* Reads a class behind its '['. Afterwards the set is the class's own, negation applied. */
static Status read_class(Translator *t, ClassReader *reader)
{
    if (++t->depth > REGEX_DEPTH_MAX) return refuse(t, "deeper nesting");
    bool negated = take(t, "^");
    if (peek(t) == ']') return refuse(t, "a class that begins with ]");
    while (peek(t) != ']') {
        if (t->at >= t->length) return refuse(t, "an open class");
        if (take(t, "&&"))
            TRY(read_intersection(t, reader));
        else
            TRY(read_class_item(t, reader));
    }
    t->at++;
    if (negated) {
        if (reader->set != NULL) set_invert(reader->set);
        reader->plain = false;
    }
    t->depth--;
    return OK;
}

static void write_class(Translator *t, ClassReader *reader, bool negated)
{
    if (reader->plain && reader->body.length > 0) {
        str_printf(&t->out, "[%s%s]", negated ? "^" : "", str_text(&reader->body));
        return;
    }
    Str ranges = {0};
    if (reader->set != NULL) set_write(reader->set, &ranges);
    if (ranges.length == 0)
        str_puts(&t->out, "(?!)");
    else
        str_printf(&t->out, "[%s]", str_text(&ranges));
    str_free(&ranges);
}

/* A class that is only negated as a whole keeps PCRE2's names: [^\s\p{L}] and its like are common.
 */
static Status translate_class(Translator *t)
{
    ClassReader reader = {.plain = true};
    size_t begin = t->at;
    bool negated = take(t, "^");
    Status status = peek(t) == ']' ? refuse(t, "a class that begins with ]") : OK;
    while (status == OK && reader.plain && peek(t) != ']') {
        if (t->at >= t->length)
            status = refuse(t, "an open class");
        else if (at_text(t, "&&"))
            reader.plain = false;
        else
            status = read_class_item(t, &reader);
    }
    if (status == OK && !reader.plain) {
        /* Not that simple: once more, by sets. */
        reader.set = set_create();
        str_clear(&reader.body);
        t->at = begin;
        status = read_class(t, &reader);
        reader.plain = false;
        if (status == OK && t->caseless) status = refuse(t, "such a class inside (?i)");
        negated = false;
    } else if (status == OK) {
        t->at++;
    }
    if (status == OK) write_class(t, &reader, negated);
    reader_free(&reader);
    return status;
}

/* ---- atoms, groups and repeats ---- */

static Status translate_alternatives(Translator *t, bool group);

/* A few pairs of letters have one-character equals ("st" and U+FB06) that Oniguruma matches. */
static bool folds_together(uint32_t first, uint32_t second)
{
    uint32_t a = first | 0x20, b = second | 0x20;
    return (a == 's' && (b == 's' || b == 't')) || (a == 'f' && (b == 'f' || b == 'i' || b == 'l'));
}

static Status write_literal(Translator *t, uint32_t c)
{
    if (t->caseless) {
        if (c >= 0x80) return refuse(t, "a character beyond ASCII inside (?i)");
        if (folds_together(t->last_literal, c))
            return refuse(t, "two letters with a ligature inside (?i)");
    }
    write_char(&t->out, c);
    t->last_literal = c;
    return OK;
}

/* \b: a place between a word character and another. */
static void write_boundary(Translator *t, bool negated)
{
    CodePointSet *set = set_create();
    set_add_words(set, t->table, true);
    Str word = {0};
    set_write(set, &word);
    const char *w = str_text(&word);
    if (negated)
        str_printf(&t->out, "(?:(?<=[%s])(?=[%s])|(?<![%s])(?![%s]))", w, w, w, w);
    else
        str_printf(&t->out, "(?:(?<=[%s])(?![%s])|(?<![%s])(?=[%s]))", w, w, w, w);
    str_free(&word);
    free(set);
}

static Status translate_escape(Translator *t, bool *ret_repeatable)
{
    ClassReader reader = {.plain = true, .alone = true};
    bool found;
    Status status = take_class_escape(t, &reader, &found);
    if (status == OK && found) write_class(t, &reader, false);
    reader_free(&reader);
    if (status != OK || found) return status;
    uint32_t c = 0;
    TRY(take_char_escape(t, &c, &found));
    if (found) return write_literal(t, c);
    *ret_repeatable = false;
    if (take(t, "b") || take(t, "B"))
        write_boundary(t, t->pattern[t->at - 1] == 'B');
    else if (take(t, "A"))
        str_puts(&t->out, "\\A");
    else if (take(t, "z"))
        str_puts(&t->out, "\\z");
    else if (take(t, "Z"))
        str_puts(&t->out, "\\Z");
    else
        return refuse(t, "an unknown escape");
    return OK;
}

/* (?i) without a colon holds to the end of its group; elsewhere than at the start of one it would
 * also regroup the alternatives, and is refused. */
static bool take_caseless_prefix(Translator *t)
{
    return take(t, "(?i)");
}

static Status translate_group(Translator *t, bool *ret_repeatable)
{
    static const struct {
        const char *open;
        bool look;
    } table[] = {{"(?:", false}, {"(?>", false}, {"(?=", true},
                 {"(?!", true},  {"(?<=", true}, {"(?<!", true}};
    bool caseless = t->caseless;
    const char *open = NULL;
    for (size_t i = 0; i < sizeof table / sizeof table[0] && open == NULL; i++) {
        if (!take(t, table[i].open)) continue;
        open = table[i].open;
        *ret_repeatable = !table[i].look;
    }
    if (open == NULL && take(t, "(?i:")) {
        t->caseless = true;
        open = "(?i:";
    } else if (open == NULL && take(t, "(?-i:")) {
        t->caseless = false;
        open = "(?-i:";
    } else if (open == NULL && at_text(t, "(?")) {
        return refuse(t, "this kind of group");
    } else if (open == NULL) {
        t->at++;
        open = "(?:"; /* nothing refers back to a group, so none needs to capture */
    }
    str_puts(&t->out, open);
    if (take_caseless_prefix(t)) {
        t->caseless = true;
        str_puts(&t->out, "(?i)");
    }
    TRY(translate_alternatives(t, true));
    str_putc(&t->out, ')');
    t->caseless = caseless;
    return OK;
}

static bool take_number(Translator *t, uint32_t *ret)
{
    size_t begin = t->at;
    uint32_t value = 0;
    while (peek(t) >= '0' && peek(t) <= '9' && t->at - begin < 6)
        value = value * 10 + (uint32_t)(t->pattern[t->at++] - '0');
    *ret = value;
    return t->at > begin;
}

/* {n}, {n,}, {n,m} or {,m}; anything else in braces is literal. *ret_fixed: {n}. */
static bool take_interval(Translator *t, uint32_t *ret_min, uint32_t *ret_max, bool *ret_fixed)
{
    size_t begin = t->at;
    *ret_min = 0;
    *ret_max = UINT32_MAX;
    *ret_fixed = false;
    if (!take(t, "{")) return false;
    bool has_min = take_number(t, ret_min), has_max = false;
    if (take(t, ",")) {
        has_max = take_number(t, ret_max);
        if (!has_max) *ret_max = UINT32_MAX;
    } else {
        *ret_fixed = true;
        *ret_max = *ret_min;
    }
    if ((has_min || has_max) && take(t, "}")) return true;
    t->at = begin;
    return false;
}

/* Ruby's {n,m}+ is not possessive but repeats the whole once more. */
static Status translate_interval(Translator *t, size_t atom, const uint32_t bounds[2], bool fixed)
{
    if (bounds[1] != UINT32_MAX && bounds[1] < bounds[0]) return refuse(t, "a wrong {n,m}");
    if (bounds[0] > 1000 || (bounds[1] != UINT32_MAX && bounds[1] > 1000))
        return refuse(t, "a repeat of more than 1000");
    str_printf(&t->out, "{%u,", bounds[0]);
    if (bounds[1] != UINT32_MAX) str_printf(&t->out, "%u", bounds[1]);
    str_putc(&t->out, '}');
    if (take(t, "?")) {
        if (fixed) return refuse(t, "{n}?");
        str_putc(&t->out, '?');
    } else if (take(t, "+")) {
        char *inner = mem_strndup(t->out.data + atom, t->out.length - atom);
        t->out.length = atom;
        str_printf(&t->out, "(?:%s)+", inner);
        free(inner);
    }
    return OK;
}

static Status translate_repeat(Translator *t, size_t atom, bool repeatable)
{
    uint32_t bounds[2];
    bool fixed = false;
    char c = peek(t);
    bool simple = c == '*' || c == '+' || c == '?';
    if (!simple && !take_interval(t, &bounds[0], &bounds[1], &fixed)) return OK;
    if (!repeatable) return refuse(t, "a repeat of something without width");
    t->last_literal = 0;
    if (simple) {
        t->at++;
        str_putc(&t->out, c);
        if (peek(t) == '?' || peek(t) == '+') str_putc(&t->out, t->pattern[t->at++]);
    } else {
        TRY(translate_interval(t, atom, bounds, fixed));
    }
    c = peek(t);
    if (c == '*' || c == '+' || c == '?' || take_interval(t, &bounds[0], &bounds[1], &fixed))
        return refuse(t, "a repeat of a repeat");
    return OK;
}

static Status translate_atom(Translator *t)
{
    size_t atom = t->out.length;
    bool repeatable = true;
    char c = peek(t);
    if (c != '\\' && strchr("[(.^$", c) == NULL) {
        if (c == '*' || c == '+' || c == '?') return refuse(t, "a repeat of nothing");
        TRY(write_literal(t, take_char(t)));
        return translate_repeat(t, atom, repeatable);
    }
    if (c != '\\') t->last_literal = 0;
    if (c == '(') {
        TRY(translate_group(t, &repeatable));
    } else {
        t->at++;
        if (c == '[') {
            TRY(translate_class(t));
        } else if (c == '.') {
            str_puts(&t->out, "[^\\n]");
        } else if (c == '\\') {
            TRY(translate_escape(t, &repeatable));
        } else {
            repeatable = false; /* ^ and $ stand at lines, as PCRE2_MULTILINE has it */
            str_putc(&t->out, c);
        }
    }
    return translate_repeat(t, atom, repeatable);
}

static Status translate_alternatives(Translator *t, bool group)
{
    if (++t->depth > REGEX_DEPTH_MAX) return refuse(t, "deeper nesting");
    t->last_literal = 0;
    while (t->at < t->length && peek(t) != ')') {
        if (take(t, "|")) {
            str_putc(&t->out, '|');
            t->last_literal = 0;
        } else {
            TRY(translate_atom(t));
        }
    }
    t->last_literal = 0;
    t->depth--;
    if (group && !take(t, ")")) return refuse(t, "an open group");
    if (!group && t->at < t->length) return refuse(t, "an unopened )");
    return OK;
}

Status regex_translate(const char *pattern, const UnicodeTable *table, const char *where, Str *ret,
                       Error *err)
{
    Translator t = {
        .pattern = pattern, .length = strlen(pattern), .table = table, .where = where, .err = err};
    if (take_caseless_prefix(&t)) {
        t.caseless = true;
        str_puts(&t.out, "(?i)");
    }
    Status status = translate_alternatives(&t, false);
    if (status == OK) str_append(ret, str_text(&t.out), t.out.length);
    str_free(&t.out);
    return status;
}

Status regex_compile(const char *pattern, const UnicodeTable *table, const char *where,
                     pcre2_code **ret, Error *err)
{
    Str translated = {0};
    TRY(regex_translate(pattern, table, where, &translated, err));
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    CHECK(context != NULL);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int code = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code *regex =
        pcre2_compile((PCRE2_SPTR)str_text(&translated), translated.length,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &offset, context);
    pcre2_compile_context_free(context);
    str_free(&translated);
    if (regex == NULL) {
        PCRE2_UCHAR text[256];
        pcre2_get_error_message(code, text, sizeof text);
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: the regular expression \"%.600s\" is not supported: %s", where,
                         pattern, (const char *)text);
    }
    /* Without just-in-time compilation the interpreter runs it: slower, with the same result. */
    pcre2_jit_compile(regex, PCRE2_JIT_COMPLETE);
    *ret = regex;
    return OK;
}
