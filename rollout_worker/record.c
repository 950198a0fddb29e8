#include "rollout_worker/record.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "base/utf8.h"

#define NUMBER_BYTES_MAX 63 /* what cJSON reads of one number */
#define KEY_SHOWN_BYTES  48
#define PATH_SHOWN_BYTES 240
#define EXCERPT_BEFORE   36
#define EXCERPT_AFTER    24

/* A list or object that is open: where in it the check stands. */
typedef struct Level {
    const char *key; /* raw, between its quotes; NULL in a list, and before the first key */
    size_t key_length;
    size_t index; /* in a list */
} Level;

typedef struct Checker {
    const char *text, *at, *end;
    const char *source;
    Level level[JSON_DEPTH_MAX];
    int depth;
    Error *err;
} Checker;

Status record_refuse(Error *err, const char *source, const char *what, const char *found,
                     const char *expected, const char *remedy)
{
    return error_set(err, ERR_DATA, "%s: %s%s%s\n  expected: %s\n  to do: %s", source, what,
                     found != NULL ? "\n  found: " : "", found != NULL ? found : "", expected,
                     remedy);
}

/* ---- messages ---- */

/* "messages[1].content", or "" at the outermost level; of a long path the beginning. */
static void append_path(const Checker *checker, Str *out)
{
    for (int i = 0; i < checker->depth; i++) {
        const Level *level = &checker->level[i];
        if (out->length > PATH_SHOWN_BYTES) {
            str_puts(out, " ...");
            return;
        }
        if (level->key == NULL) {
            str_printf(out, "[%zu]", level->index);
            continue;
        }
        if (level->key_length == 0) continue;
        size_t shown = level->key_length < KEY_SHOWN_BYTES ? level->key_length : KEY_SHOWN_BYTES;
        shown = utf8_valid_prefix(level->key, shown);
        str_printf(out, "%s%.*s", out->length > 0 ? "." : "", (int)shown, level->key);
    }
}

/* It is invisible where it is shown. */
static bool is_byte_order_mark(const char *at, const char *end)
{
    return end - at >= 3 && memcmp(at, "\xEF\xBB\xBF", 3) == 0;
}

/* The text around `at`, fit for a terminal: what is not printable or not UTF-8 as \xNN. */
static void append_excerpt(const Checker *checker, const char *at, Str *out)
{
    const char *begin = at - checker->text > EXCERPT_BEFORE ? at - EXCERPT_BEFORE : checker->text;
    const char *end = checker->end - at > EXCERPT_AFTER ? at + EXCERPT_AFTER : checker->end;
    while (begin < at && ((unsigned char)*begin & 0xC0) == 0x80)
        begin++;
    if (begin > checker->text) str_puts(out, "...");
    while (begin < end) {
        uint32_t code_point;
        int size = utf8_decode(begin, (size_t)(checker->end - begin), &code_point);
        if (size == 0 || code_point < 0x20 || code_point == 0x7F ||
            is_byte_order_mark(begin, checker->end)) {
            str_printf(out, "\\x%02X", (unsigned char)*begin++);
        } else {
            str_append(out, begin, (size_t)size);
            begin += size;
        }
    }
    str_puts(out, end < checker->end ? "..." : " (end of the line)");
}

/* Refuses what stands at `at`; `where` is " in " or " after " or the like, put before the key path
 * if there is one. */
static Status refuse(Checker *checker, const char *at, const char *what, const char *where,
                     const char *expected, const char *remedy)
{
    Str head = {0}, path = {0}, excerpt = {0};
    append_path(checker, &path);
    str_puts(&head, what);
    if (path.length > 0) str_printf(&head, "%s%s", where, path.data);
    str_printf(&head, " (byte %zu)", (size_t)(at - checker->text) + 1);
    append_excerpt(checker, at, &excerpt);
    record_refuse(checker->err, checker->source, head.data, excerpt.data, expected, remedy);
    str_free(&head);
    str_free(&path);
    str_free(&excerpt);
    return ERR_DATA;
}

static Status refuse_cut(Checker *checker, const char *what)
{
    return refuse(checker, checker->end, what, " in ", "a complete JSON object on one line",
                  "write this line again: it was cut off, or a raw line break splits the record");
}

static Status refuse_syntax(Checker *checker, const char *expected)
{
    if (checker->at >= checker->end) return refuse_cut(checker, "the JSON text ends too soon");
    if (*checker->at == '\0')
        return refuse(checker, checker->at, "a NUL byte", " in ", expected,
                      "remove the NUL bytes: the file may be damaged there");
    if (is_byte_order_mark(checker->at, checker->end))
        return refuse(
            checker, checker->at, "a byte order mark (0xEF 0xBB 0xBF)", " in ", expected,
            "remove it, for example with sed 's/\\xEF\\xBB\\xBF//g': a file may begin with "
            "one, and another one stands where files were put together");
    return refuse(checker, checker->at, "not valid JSON", " in ", expected,
                  "mend the line, or write the file with a JSON library");
}

static Status refuse_utf8(Checker *checker, const char *at)
{
    char what[64];
    snprintf(what, sizeof what, "a byte that is not UTF-8 (0x%02X)", (unsigned char)*at);
    return refuse(checker, at, what, " in ", "text in UTF-8",
                  "convert the file, for example with iconv -f LATIN1 -t UTF-8");
}

static Status refuse_nul(Checker *checker, const char *at)
{
    return refuse(checker, at, "a NUL character", " in ",
                  "text without NUL, which no chat template or tokenizer can carry",
                  "remove it from the data, for example with sed 's/\\\\u0000//g'");
}

static Status refuse_surrogate(Checker *checker, const char *at)
{
    char what[64];
    snprintf(what, sizeof what, "a lone surrogate (%.6s)", at);
    return refuse(
        checker, at, what, " in ", "two halves together, as in \\ud83d\\ude00",
        "mend the text where it was cut in the middle of a character, or put \\ufffd there");
}

/* ---- the grammar ---- */

static void skip_space(Checker *checker)
{
    const char *at = checker->at;
    while (at < checker->end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    checker->at = at;
}

/* The value of four hex digits at `at`, or -1. */
static int hex4(const char *at, const char *end)
{
    if (end - at < 4) return -1;
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* Checks the escape at checker->at (a backslash) and steps behind it. */
static Status check_escape(Checker *checker)
{
    const char *at = checker->at, *end = checker->end;
    if (end - at >= 2 && at[1] != '\0' && strchr("\"\\/bfnrt", at[1]) != NULL) {
        checker->at += 2;
        return OK;
    }
    if (end - at < 2 || (at[1] == 'u' && end - at < 6))
        return refuse_cut(checker, "the JSON text ends inside a string");
    int code = at[1] == 'u' ? hex4(at + 2, end) : -1;
    if (code < 0)
        return refuse(checker, at, "an unknown escape", " in ",
                      "\\\" \\\\ \\/ \\b \\f \\n \\r \\t or \\u with four hex digits",
                      "write a backslash in text as two");
    if (code == 0) return refuse_nul(checker, at);
    if (code >= 0xDC00 && code <= 0xDFFF) return refuse_surrogate(checker, at);
    checker->at += 6;
    if (code < 0xD800 || code > 0xDBFF) return OK;
    int low = end - at >= 12 && at[6] == '\\' && at[7] == 'u' ? hex4(at + 8, end) : -1;
    if (low < 0xDC00 || low > 0xDFFF) return refuse_surrogate(checker, at);
    checker->at += 6;
    return OK;
}

/* Steps over plain text, eight bytes at a time: up to a quote, a backslash, a control character, a
 * byte of a longer UTF-8 sequence, or the last bytes. */
static void skip_plain(Checker *checker)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), highs = ones << 7;
    while (checker->end - checker->at >= 8) {
        uint64_t word;
        memcpy(&word, checker->at, 8);
        uint64_t quote = word ^ ones * '"', backslash = word ^ ones * '\\';
        /* (x - ones) & ~x & highs is not 0 when a byte of x is 0, and so is (x - ones * n) when one
         * is below n. */
        uint64_t stop = ((word - ones * 0x20) | (quote - ones) | (backslash - ones) | word) & highs;
        if (stop != 0) return;
        checker->at += 8;
    }
}

/* Checks the string at checker->at (a quote) and steps behind it. */
static Status check_string(Checker *checker)
{
    checker->at++;
    while (skip_plain(checker), checker->at < checker->end) {
        unsigned char byte = (unsigned char)*checker->at;
        if (byte == '"') {
            checker->at++;
            return OK;
        }
        if (byte == '\\') {
            TRY(check_escape(checker));
        } else if (byte >= 0x80) {
            uint32_t code_point;
            int size = utf8_decode(checker->at, (size_t)(checker->end - checker->at), &code_point);
            if (size == 0) return refuse_utf8(checker, checker->at);
            checker->at += size;
        } else if (byte >= 0x20) {
            checker->at++;
        } else if (byte == 0) {
            return refuse_nul(checker, checker->at);
        } else {
            return refuse(checker, checker->at, "a raw control character", " in ",
                          "control characters escaped, as in \\n or \\u001b",
                          "write the file with a JSON library");
        }
    }
    return refuse_cut(checker, "the JSON text ends inside a string");
}

static size_t skip_digits(Checker *checker)
{
    const char *begin = checker->at;
    while (checker->at < checker->end && *checker->at >= '0' && *checker->at <= '9')
        checker->at++;
    return (size_t)(checker->at - begin);
}

static Status check_number(Checker *checker)
{
    const char *begin = checker->at, *end = checker->end;
    if (*checker->at == '-') checker->at++;
    bool zero = checker->at < end && *checker->at == '0';
    size_t digits = skip_digits(checker);
    if (digits == 0) return refuse_syntax(checker, "a digit");
    if (zero && digits > 1) {
        checker->at = begin;
        return refuse_syntax(checker, "a number without leading zeros");
    }
    if (checker->at < end && *checker->at == '.') {
        checker->at++;
        if (skip_digits(checker) == 0) return refuse_syntax(checker, "a digit after the point");
    }
    if (checker->at < end && (*checker->at == 'e' || *checker->at == 'E')) {
        checker->at++;
        if (checker->at < end && (*checker->at == '+' || *checker->at == '-')) checker->at++;
        if (skip_digits(checker) == 0) return refuse_syntax(checker, "a digit in the exponent");
    }
    if (checker->at - begin <= NUMBER_BYTES_MAX) return OK;
    return refuse(checker, begin, "a number of more than 63 characters", " in ",
                  "numbers of a sane length", "write it as a string");
}

static bool take_word(Checker *checker, const char *word)
{
    size_t length = strlen(word);
    if ((size_t)(checker->end - checker->at) < length || memcmp(checker->at, word, length) != 0)
        return false;
    checker->at += length;
    return true;
}

static Status check_value(Checker *checker);

/* Opens a level; the caller closes it by lowering `depth`. */
static Status open_level(Checker *checker)
{
    if (checker->depth == JSON_DEPTH_MAX)
        return refuse(checker, checker->at, "nesting deeper than 200 levels", " in ",
                      "a conversation", "drop the line");
    checker->level[checker->depth++] = (Level){0};
    checker->at++;
    skip_space(checker);
    return OK;
}

static Status check_list(Checker *checker)
{
    TRY(open_level(checker));
    Level *level = &checker->level[checker->depth - 1];
    bool empty = checker->at < checker->end && *checker->at == ']';
    for (; !empty; level->index++) {
        TRY(check_value(checker));
        skip_space(checker);
        if (checker->at < checker->end && *checker->at == ']') break;
        if (checker->at >= checker->end || *checker->at != ',')
            return refuse_syntax(checker, "\",\" or \"]\" after a list element");
        checker->at++;
    }
    checker->at++;
    checker->depth--;
    return OK;
}

static Status check_object(Checker *checker)
{
    TRY(open_level(checker));
    Level *level = &checker->level[checker->depth - 1];
    level->key = ""; /* an object, with no key read yet */
    bool empty = checker->at < checker->end && *checker->at == '}';
    while (!empty) {
        skip_space(checker);
        if (checker->at >= checker->end || *checker->at != '"')
            return refuse_syntax(checker, "a key in double quotes");
        const char *key = checker->at + 1;
        level->key_length = 0; /* a fault inside the key is not below the one before */
        TRY(check_string(checker));
        level->key = key;
        level->key_length = (size_t)(checker->at - 1 - key);
        skip_space(checker);
        if (checker->at >= checker->end || *checker->at != ':')
            return refuse_syntax(checker, "\":\" after the key");
        checker->at++;
        TRY(check_value(checker));
        skip_space(checker);
        if (checker->at < checker->end && *checker->at == '}') break;
        if (checker->at >= checker->end || *checker->at != ',')
            return refuse_syntax(checker, "\",\" or \"}\" after a value");
        checker->at++;
    }
    checker->at++;
    checker->depth--;
    return OK;
}

static Status check_value(Checker *checker)
{
    skip_space(checker);
    char c = checker->at < checker->end ? *checker->at : '\0';
    if (c == '{') return check_object(checker);
    if (c == '[') return check_list(checker);
    if (c == '"') return check_string(checker);
    if (c == '-' || (c >= '0' && c <= '9')) return check_number(checker);
    if (take_word(checker, "true") || take_word(checker, "false") || take_word(checker, "null"))
        return OK;
    return refuse_syntax(checker,
                         "a value: an object, a list, a string in double quotes, a number, "
                         "true, false or null");
}

/* So begins a file of JSON that is written for people to read. */
static bool is_bracket_alone(const Checker *checker)
{
    const char *at = checker->at;
    if (at == checker->end || (*at != '{' && *at != '[')) return false;
    for (at++; at < checker->end; at++)
        if (strchr(" \t\r\n", *at) == NULL || *at == '\0') return false;
    return true;
}

static Status check_record(Checker *checker)
{
    skip_space(checker);
    bool object = checker->at < checker->end && *checker->at == '{';
    if (is_bracket_alone(checker))
        return refuse(checker, checker->at, "the line holds nothing but an opening bracket", "",
                      "one JSON object per line, not a document over several lines",
                      "write it so, as `jq -c . FILE` does (`jq -c '.[]' FILE` for a list)");
    TRY(check_value(checker));
    skip_space(checker);
    if (checker->at < checker->end)
        return refuse(checker, checker->at, "more text after the end of the value", "",
                      "one JSON object per line", "put what follows on a line of its own");
    if (!object)
        return refuse(checker, checker->text, "the line is not an object", "",
                      "one JSON object per line, as in {\"messages\": [...]}",
                      checker->text < checker->end && *checker->text == '['
                          ? "write each object of the list on a line, as `jq -c '.[]' FILE` does"
                          : "write each conversation as an object");
    return OK;
}

Status record_check(const char *text, size_t length, const char *source, Error *err)
{
    Checker checker;
    checker.text = checker.at = text;
    checker.end = text + length;
    checker.source = source;
    checker.depth = 0;
    checker.err = err;
    return check_record(&checker);
}

Status record_parse(const char *text, size_t length, const char *source, cJSON **ret, Error *err)
{
    TRY(record_check(text, length, source, err));
    cJSON *json = cJSON_ParseWithLength(text, length);
    if (json == NULL)
        return error_set(err, ERR_INTERNAL, "%s: cJSON refused a record that the check had passed",
                         source);
    json_keep_spelling(json, text, length);
    *ret = json;
    return OK;
}

/* ---- keys ---- */

#define FEW_KEYS 32 /* so many are compared all with all, which is faster than to sort them */

static const char *repeated_of_few(const cJSON *object)
{
    for (const cJSON *member = object->child; member != NULL; member = member->next)
        for (const cJSON *other = object->child; other != member; other = other->next)
            if (strcmp(other->string, member->string) == 0) return member->string;
    return NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static const char *repeated_of_many(const cJSON *object, size_t count)
{
    const char **name = mem_calloc(count, sizeof *name), *repeated = NULL;
    size_t i = 0;
    for (const cJSON *member = object->child; member != NULL; member = member->next)
        name[i++] = member->string;
    qsort(name, count, sizeof *name, compare_names);
    for (i = 1; i < count && repeated == NULL; i++)
        if (strcmp(name[i - 1], name[i]) == 0) repeated = name[i];
    free(name);
    return repeated;
}

Status record_check_keys(const cJSON *object, const char *source, const char *place, Error *err)
{
    size_t count = (size_t)cJSON_GetArraySize(object);
    const char *repeated =
        count <= FEW_KEYS ? repeated_of_few(object) : repeated_of_many(object, count);
    if (repeated == NULL) return OK;
    char what[160];
    snprintf(what, sizeof what, "key \"%.60s\" occurs twice%s", repeated, place);
    return record_refuse(err, source, what, NULL, "each key once", "remove one of them");
}

const cJSON *record_find(const cJSON *record, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(record, key);
    const char *dot = strchr(key, '.');
    if (value != NULL || dot == NULL) return value;
    char *first = mem_strndup(key, (size_t)(dot - key));
    value = cJSON_GetObjectItemCaseSensitive(record, first);
    free(first);
    return cJSON_IsObject(value) ? record_find(value, dot + 1) : NULL;
}

const cJSON *record_value(const cJSON *record, const char *key)
{
    const cJSON *value = record_find(record, key);
    return cJSON_IsNull(value) ? NULL : value;
}
