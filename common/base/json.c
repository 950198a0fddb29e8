#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/utf8.h"

static void line_and_column(const char *text, size_t offset, int *ret_line, int *ret_column)
{
    int line = 1, column = 1;
    for (size_t i = 0; i < offset; i++) {
        if (text[i] == '\n') {
            line++;
            column = 1;
        } else {
            column++;
        }
    }
    *ret_line = line;
    *ret_column = column;
}

/* "answers.jsonl:7", whose text is that line. */
static bool names_a_line(const char *where)
{
    const char *colon = strrchr(where, ':');
    return colon != NULL && colon[1] != '\0' && colon[1 + strspn(colon + 1, "0123456789")] == '\0';
}

static Status refuse_at(Error *err, const char *where, const char *text, size_t offset,
                        const char *what)
{
    int line, column;
    line_and_column(text, offset, &line, &column);
    if (line == 1 && names_a_line(where))
        return error_set(err, ERR_DATA, "%s:%d: %s", where, column, what);
    return error_set(err, ERR_DATA, "%s:%d:%d: %s", where, line, column, what);
}

/* What cJSON would let pass or cut: bad UTF-8, NUL in any form, too deep a nesting. *ret_open tells
 * whether a string, list or object is still open at the end. */
static Status check_text(const char *text, size_t length, const char *where, bool *ret_open,
                         Error *err)
{
    size_t valid = utf8_valid_prefix(text, length);
    if (valid < length) return refuse_at(err, where, text, valid, "bytes that are not valid UTF-8");
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (c == '\0') return refuse_at(err, where, text, i, "a NUL byte in JSON text");
        if (in_string) {
            if (c == '\\' && i + 1 < length) {
                if (length - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0)
                    return refuse_at(err, where, text, i, "an escaped NUL (\\u0000) in a string");
                i++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > JSON_DEPTH_MAX)
                return refuse_at(err, where, text, i, "nesting deeper than 200 levels");
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    *ret_open = in_string || depth > 0;
    return OK;
}

/* ---- numbers as they were spelled ---- */

typedef struct NumberScan {
    const char *at, *end;
} NumberScan;

/* The quote that ends the string which begins at `at`, behind its first quote. */
static const char *string_end(const char *at, const char *end)
{
    const char *begin = at;
    while ((at = memchr(at, '"', (size_t)(end - at))) != NULL) {
        const char *slash = at;
        while (slash > begin && slash[-1] == '\\')
            slash--;
        if ((at - slash) % 2 == 0) return at;
        at++;
    }
    return end;
}

/* The next number token of valid JSON text; false at the end. */
static bool next_number(NumberScan *scan, const char **ret_begin, size_t *ret_length)
{
    const char *at = scan->at;
    for (; at < scan->end && *at != '-' && (*at < '0' || *at > '9'); at++)
        if (*at == '"') at = string_end(at + 1, scan->end);
    if (at >= scan->end) return false;
    *ret_begin = at;
    while (at < scan->end && *at != '\0' && strchr("0123456789+-.eE", *at) != NULL)
        at++;
    *ret_length = (size_t)(at - *ret_begin);
    scan->at = at;
    return true;
}

/* A double tells neither 1.0 from 1 nor all digits of a long number. The tree holds its numbers in
 * the order of the text, so one more walk over both puts the spelling where it matters. */
static void keep_spelling(cJSON *value, NumberScan *scan)
{
    for (; value != NULL; value = value->next) {
        if (cJSON_IsNumber(value)) {
            const char *begin = NULL;
            size_t length = 0;
            CHECK(next_number(scan, &begin, &length));
            bool whole = memchr(begin, '.', length) == NULL && memchr(begin, 'e', length) == NULL &&
                         memchr(begin, 'E', length) == NULL;
            if (!whole || length > 15) value->valuestring = mem_strndup(begin, length);
        } else if (value->child != NULL) {
            keep_spelling(value->child, scan);
        }
    }
}

void json_keep_spelling(cJSON *json, const char *text, size_t length)
{
    keep_spelling(json, &(NumberScan){text, text + length});
}

Status json_parse(const char *text, size_t length, const char *where, cJSON **ret_json, Error *err)
{
    bool open = false;
    TRY(check_text(text, length, where, &open, err));
    const char *end = NULL;
    cJSON *json = cJSON_ParseWithLengthOpts(text, length, &end, 0);
    size_t at = end != NULL ? (size_t)(end - text) : 0;
    if (json == NULL) {
        if (open || at >= length)
            return refuse_at(err, where, text, length, "the JSON text ends too soon");
        return refuse_at(err, where, text, at, "not valid JSON from here on");
    }
    while (at < length && strchr(" \t\r\n", text[at]) != NULL)
        at++;
    if (at < length) {
        cJSON_Delete(json);
        return refuse_at(err, where, text, at, "more text after the end of the JSON value");
    }
    json_keep_spelling(json, text, length);
    *ret_json = json;
    return OK;
}

Status json_read(const char *path, size_t bytes_max, cJSON **ret_json, Error *err)
{
    char *text = NULL;
    size_t length = 0;
    TRY(file_read(path, bytes_max, &text, &length, err));
    Status status = json_parse(text, length, path, ret_json, err);
    free(text);
    return status;
}

const char *json_type_name(const cJSON *value)
{
    if (value == NULL) return "nothing";
    if (cJSON_IsString(value)) return "a string";
    if (cJSON_IsNumber(value)) return "a number";
    if (cJSON_IsBool(value)) return "true or false";
    if (cJSON_IsNull(value)) return "null";
    if (cJSON_IsArray(value)) return "a list";
    if (cJSON_IsObject(value)) return "an object";
    return "something unreadable";
}

/* Finds a member; *ret_value is NULL when it is absent or null and `optional`. */
static Status find(const cJSON *object, const char *key, const char *where, bool optional,
                   const cJSON **ret_value, Error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    if (value == NULL || cJSON_IsNull(value)) {
        if (!optional)
            return error_set(err, ERR_NOT_FOUND, "%s: key \"%s\" is missing", where, key);
        value = NULL;
    }
    *ret_value = value;
    return OK;
}

static Status wrong_type(Error *err, const char *where, const char *key, const char *expected,
                         const cJSON *value)
{
    return error_set(err, ERR_INVALID, "%s: key \"%s\" is %s, expected %s", where, key,
                     json_type_name(value), expected);
}

static Status get_string(const cJSON *object, const char *key, const char *where, bool optional,
                         const char **ret, Error *err)
{
    const cJSON *value = NULL;
    TRY(find(object, key, where, optional, &value, err));
    if (value == NULL) return OK;
    if (!cJSON_IsString(value)) return wrong_type(err, where, key, "a string", value);
    *ret = value->valuestring;
    return OK;
}

static Status get_int(const cJSON *object, const char *key, const char *where, bool optional,
                      const int64_t range[2], int64_t *ret, Error *err)
{
    const cJSON *value = NULL;
    TRY(find(object, key, where, optional, &value, err));
    if (value == NULL) return OK;
    if (!cJSON_IsNumber(value)) return wrong_type(err, where, key, "a whole number", value);
    double number = value->valuedouble;
    if (number != floor(number) || fabs(number) > 9007199254740992.0)
        return error_set(err, ERR_INVALID, "%s: key \"%s\" is %g, expected a whole number", where,
                         key, number);
    if (number < (double)range[0] || number > (double)range[1])
        return error_set(err, ERR_INVALID, "%s: key \"%s\" is %.0f, expected %lld to %lld", where,
                         key, number, (long long)range[0], (long long)range[1]);
    *ret = (int64_t)number;
    return OK;
}

static Status get_double(const cJSON *object, const char *key, const char *where, bool optional,
                         double *ret, Error *err)
{
    const cJSON *value = NULL;
    TRY(find(object, key, where, optional, &value, err));
    if (value == NULL) return OK;
    if (!cJSON_IsNumber(value)) return wrong_type(err, where, key, "a number", value);
    *ret = value->valuedouble;
    return OK;
}

static Status get_bool(const cJSON *object, const char *key, const char *where, bool optional,
                       bool *ret, Error *err)
{
    const cJSON *value = NULL;
    TRY(find(object, key, where, optional, &value, err));
    if (value == NULL) return OK;
    if (!cJSON_IsBool(value)) return wrong_type(err, where, key, "true or false", value);
    *ret = cJSON_IsTrue(value);
    return OK;
}

Status json_string(const cJSON *object, const char *key, const char *where, const char **ret,
                   Error *err)
{
    return get_string(object, key, where, false, ret, err);
}

Status json_string_or(const cJSON *object, const char *key, const char *where, const char **ret,
                      Error *err)
{
    return get_string(object, key, where, true, ret, err);
}

Status json_int(const cJSON *object, const char *key, const char *where, int64_t min, int64_t max,
                int64_t *ret, Error *err)
{
    return get_int(object, key, where, false, (const int64_t[2]){min, max}, ret, err);
}

Status json_int_or(const cJSON *object, const char *key, const char *where, int64_t min,
                   int64_t max, int64_t *ret, Error *err)
{
    return get_int(object, key, where, true, (const int64_t[2]){min, max}, ret, err);
}

Status json_double(const cJSON *object, const char *key, const char *where, double *ret, Error *err)
{
    return get_double(object, key, where, false, ret, err);
}

Status json_double_or(const cJSON *object, const char *key, const char *where, double *ret,
                      Error *err)
{
    return get_double(object, key, where, true, ret, err);
}

Status json_bool(const cJSON *object, const char *key, const char *where, bool *ret, Error *err)
{
    return get_bool(object, key, where, false, ret, err);
}

Status json_bool_or(const cJSON *object, const char *key, const char *where, bool *ret, Error *err)
{
    return get_bool(object, key, where, true, ret, err);
}

void json_append_string(Str *out, const char *text)
{
    str_putc(out, '"');
    for (const unsigned char *c = (const unsigned char *)(text != NULL ? text : ""); *c; c++) {
        if (*c == '"' || *c == '\\') {
            str_putc(out, '\\');
            str_putc(out, (char)*c);
        } else if (*c == '\n') {
            str_puts(out, "\\n");
        } else if (*c < 0x20) {
            str_printf(out, "\\u%04x", *c);
        } else {
            str_putc(out, (char)*c);
        }
    }
    str_putc(out, '"');
}

static void append_members(Str *out, const cJSON *value, bool keys)
{
    for (const cJSON *member = value->child; member != NULL; member = member->next) {
        if (keys) json_append_string(out, member->string);
        if (keys) str_puts(out, ": ");
        json_append(out, member);
        if (member->next != NULL) str_puts(out, ", ");
    }
}

void json_append(Str *out, const cJSON *value)
{
    if (cJSON_IsObject(value)) {
        str_putc(out, '{');
        append_members(out, value, true);
        str_putc(out, '}');
    } else if (cJSON_IsArray(value)) {
        str_putc(out, '[');
        append_members(out, value, false);
        str_putc(out, ']');
    } else if (cJSON_IsString(value)) {
        json_append_string(out, value->valuestring);
    } else if (cJSON_IsNumber(value) && value->valuestring != NULL) {
        str_puts(out, value->valuestring);
    } else if (cJSON_IsNumber(value)) {
        str_printf(out, "%.17g", value->valuedouble);
    } else {
        str_puts(out, cJSON_IsNull(value) ? "null" : cJSON_IsTrue(value) ? "true" : "false");
    }
}
