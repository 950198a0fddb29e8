/* Values as text: str(), repr() and json.dumps() of Python, and HTML escapes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "text/jinja/chars.h"
#include "text/jinja/run.h"

/* Adds one to the last digit of "1.2345e+67"; false where that would carry into another place. */
static bool count_up(char *digits)
{
    char *at = strchr(digits, 'e') - 1;
    while (at > digits && (*at == '9' || *at == '.'))
        at--;
    if (*at == '9') return false;
    ++*at;
    while (*++at != 'e')
        if (*at == '9') *at = '0';
    return true;
}

/* Digits that read back as `real`: as few as there can be, and then as near as they can be. What
 * has 15 digits or less comes back as it was, but for the smallest numbers. A power of two has more
 * room above it than below, so that the nearest 16 digits may fail and the next ones not. */
static void find_digits(double real, char digits[32])
{
    bool is_small = fabs(real) < 1e-290;
    int exponent;
    for (int precision = is_small ? 1 : 15; precision < 17; precision++) {
        snprintf(digits, 32, "%.*e", precision - 1, real);
        if (strtod(digits, NULL) == real) return;
    }
    if (fabs(frexp(real, &exponent)) == 0.5 && count_up(digits) && strtod(digits, NULL) == real)
        return;
    snprintf(digits, 32, "%.16e", real);
}

/* Takes the zeros at the end of the digits away. Returns how many digits are left. */
static int trim_digits(char *digits)
{
    char *mark = strchr(digits, 'e'), *end = mark;
    while (end[-1] == '0')
        end--;
    if (end[-1] == '.') end--;
    memmove(end, mark, strlen(mark) + 1);
    char *first = digits + (*digits == '-');
    ptrdiff_t count = end - first;
    return count > 1 ? (int)count - 1 : 1; /* less the point */
}

/* As Python's repr(float) prints it. */
char *format_double(double real, char text[32])
{
    if (isnan(real)) return strcpy(text, "nan");
    if (isinf(real)) return strcpy(text, real > 0 ? "inf" : "-inf");
    if (real == 0) return strcpy(text, signbit(real) ? "-0.0" : "0.0");
    char digits[32];
    find_digits(real, digits);
    int precision = trim_digits(digits);
    int exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        return strcpy(text, digits); /* two digits of exponent at least, as C has it too */
    }
    int decimals = precision - 1 - exponent;
    snprintf(text, 32, "%.*f", decimals > 1 ? decimals : 1, real);
    return text;
}

const char *message_text(Run *run, const String *string)
{
    size_t length = string->length;
    if (length > 200) {
        length = 200;
        while (((unsigned char)string->bytes[length] & 0xC0) == 0x80)
            length--;
    }
    char *text = run_alloc(run, length + 4);
    memcpy(text, string->bytes, length);
    if (length < string->length) strcpy(text + length, "...");
    return text;
}

const char *message_repr(Run *run, Value value)
{
    buffer_push(run);
    write_repr(run, value);
    return message_text(run, buffer_pop(run).as.string);
}

static void write_string_repr(Run *run, Value string)
{
    const String *text = string.as.string;
    run_step(run, text->length / 8);
    Origin outer = text->length > 0 ? string_origin(string, 0) : string.origin;
    bool has_single = memchr(text->bytes, '\'', text->length) != NULL;
    bool has_double = memchr(text->bytes, '"', text->length) != NULL;
    char quote = has_single && !has_double ? '"' : '\'';
    if (string.flags & FLAG_MARKUP) buffer_puts(run, "Markup(", outer);
    buffer_write(run, &quote, 1, outer);
    for (size_t at = 0; at < text->length;) {
        int size;
        uint32_t c = string_char(text, at, &size);
        char escape[16] = "";
        if (c == (uint32_t)quote || c == '\\') {
            snprintf(escape, sizeof escape, "\\%c", (int)c);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            snprintf(escape, sizeof escape, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        } else if (!char_is_printable(c)) {
            snprintf(escape, sizeof escape,
                     c < 0x100     ? "\\x%02x"
                     : c < 0x10000 ? "\\u%04x"
                                   : "\\U%08x",
                     c);
        }
        if (escape[0] != '\0') {
            buffer_puts(run, escape, string_origin(string, at));
        } else {
            buffer_write_slice(run, string, at, at + (size_t)size);
        }
        at += (size_t)size;
    }
    buffer_write(run, &quote, 1, outer);
    if (string.flags & FLAG_MARKUP) buffer_puts(run, ")", outer);
}

static void write_items_repr(Run *run, Value value, const char *open, const char *close)
{
    Iterator iterator;
    iterator_begin(run, value, &iterator);
    buffer_puts(run, open, value.origin);
    Value item;
    bool first = true;
    while (iterator_next(run, &iterator, &item)) {
        if (!first) buffer_puts(run, ", ", value.origin);
        first = false;
        write_repr(run, item);
    }
    buffer_puts(run, close, value.origin);
}

static void write_dict_repr(Run *run, const Dict *dict, Origin origin)
{
    buffer_puts(run, "{", origin);
    for (size_t i = 0; i < dict->count; i++) {
        if (i > 0) buffer_puts(run, ", ", origin);
        write_repr(run, dict->entry[i].key);
        buffer_puts(run, ": ", origin);
        write_repr(run, dict->entry[i].value);
    }
    buffer_puts(run, "}", origin);
}

static void write_object_repr(Run *run, Value value)
{
    char text[256];
    if (value.type == VALUE_RANGE) {
        const Range *range = value.as.range;
        snprintf(text, sizeof text,
                 range->step == 1 ? "range(%lld, %lld)" : "range(%lld, %lld, %lld)",
                 (long long)range->start, (long long)range->stop, (long long)range->step);
    } else if (value.type == VALUE_SELF) {
        strcpy(text, "<TemplateReference None>");
    } else if (value.type == VALUE_FUNCTION) {
        snprintf(text, sizeof text, "<function %s>", value.as.function->name);
    } else {
        snprintf(text, sizeof text, "<%s object>", value_type_name(value));
    }
    buffer_puts(run, text, value.origin);
}

void write_repr(Run *run, Value value)
{
    char text[32];
    run_enter(run);
    run_step(run, 1);
    switch ((ValueType)value.type) {
    case VALUE_STRING:
        write_string_repr(run, value);
        break;
    case VALUE_UNDEFINED:
    case VALUE_MISSING:
        buffer_puts(run, "Undefined", value.origin);
        break;
    case VALUE_NONE:
        buffer_puts(run, "None", value.origin);
        break;
    case VALUE_BOOL:
        buffer_puts(run, value.as.boolean ? "True" : "False", value.origin);
        break;
    case VALUE_INT:
        snprintf(text, sizeof text, "%lld", (long long)value.as.integer);
        buffer_puts(run, text, value.origin);
        break;
    case VALUE_BIGINT:
        buffer_write_string(run, value);
        break;
    case VALUE_FLOAT:
        run_step(run, 10);
        buffer_puts(run, format_double(value.as.real, text), value.origin);
        break;
    case VALUE_LIST:
        write_items_repr(run, value, "[", "]");
        break;
    case VALUE_TUPLE:
        write_items_repr(run, value, "(", value.as.list->count == 1 ? ",)" : ")");
        break;
    case VALUE_DICT:
        write_dict_repr(run, value.as.dict, value.origin);
        break;
    case VALUE_VIEW:
        buffer_puts(run, value_type_name(value), value.origin);
        write_items_repr(run, value, "([", "])");
        break;
    case VALUE_NAMESPACE:
        buffer_puts(run, "<Namespace ", value.origin);
        write_dict_repr(run, value.as.names, value.origin);
        buffer_puts(run, ">", value.origin);
        break;
    default:
        write_object_repr(run, value);
        break;
    }
    run_leave(run);
}

void write_str(Run *run, Value value)
{
    if (value_is_string(value)) {
        buffer_write_string(run, value);
    } else if (value.type != VALUE_UNDEFINED) {
        write_repr(run, value);
    }
}

Value value_soft_str(Run *run, Value value)
{
    if (value_is_string(value)) return value;
    buffer_push(run);
    write_str(run, value);
    return buffer_pop(run);
}

Value value_str(Run *run, Value value)
{
    Value string = value_soft_str(run, value);
    string.flags &= (uint8_t)~FLAG_MARKUP;
    return string;
}

/* ---- JSON ---- */

static void write_json_char(Run *run, uint32_t c, Origin origin)
{
    char text[16];
    run_step(run, 1);
    const char *plain = "\"\"\\\\\nn\rr\tt\bb\ff";
    for (size_t i = 0; plain[i] != '\0'; i += 2)
        if (c == (unsigned char)plain[i]) {
            snprintf(text, sizeof text, "\\%c", plain[i + 1]);
            buffer_puts(run, text, origin);
            return;
        }
    if (c < 0x10000) {
        snprintf(text, sizeof text, "\\u%04x", c);
    } else {
        uint32_t offset = c - 0x10000;
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800 + (offset >> 10),
                 0xDC00 + (offset & 0x3FF));
    }
    buffer_puts(run, text, origin);
}

/* 1: is escaped in JSON; 2: in JSON of ASCII only. */
static uint8_t json_escape_kind(unsigned char byte)
{
    if (byte < 0x20 || byte == '"' || byte == '\\') return 1;
    return byte < 0x80 ? 0 : 2;
}

/* The length of the prefix whose bytes JSON takes as they are; eight at a time: a byte has its high
 * bit set in `special` if it is below 0x20, a quote or a backslash. May stop early, never late. */
static size_t json_plain_prefix(const char *bytes, size_t length)
{
    const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
    size_t at = 0;
    for (; at + 8 <= length; at += 8) {
        uint64_t word;
        memcpy(&word, bytes + at, 8);
        uint64_t quotes = word ^ ones * '"', slashes = word ^ ones * '\\';
        uint64_t special = (word - ones * 0x20) | (quotes - ones) | (slashes - ones);
        if ((special & ~word & highs) != 0) break;
    }
    return at;
}

/* A short string without escapes, of the origin that is being written: most of JSON. */
static bool write_plain_json_string(Run *run, Value string)
{
    const String *text = string.as.string;
    size_t length = text->length;
    if (text->run != NULL || length > 200) return false;
    char *room = buffer_room(run, length + 2, string.origin);
    if (room == NULL) return false;
    for (size_t at = json_plain_prefix(text->bytes, length); at < length; at++)
        if (json_escape_kind((unsigned char)text->bytes[at]) == 1) return false;
    room[0] = '"';
    memcpy(room + 1, text->bytes, length);
    room[length + 1] = '"';
    run->top->length += length + 2;
    return true;
}

static void write_json_string(Run *run, Value string, bool ensure_ascii)
{
    if (!ensure_ascii && write_plain_json_string(run, string)) return;
    const String *text = string.as.string;
    Origin outer = text->length > 0 ? string_origin(string, 0) : string.origin;
    uint8_t escaped = ensure_ascii ? 3 : 1;
    buffer_write(run, "\"", 1, outer);
    size_t plain = 0; /* bytes from here on need no escape */
    for (size_t at = 0; at < text->length;) {
        if (!ensure_ascii) at += json_plain_prefix(text->bytes + at, text->length - at);
        if (at == text->length) break;
        if ((json_escape_kind((unsigned char)text->bytes[at]) & escaped) == 0) {
            at++;
            continue;
        }
        buffer_write_slice(run, string, plain, at);
        int size = 1;
        uint32_t c = string_char(text, at, &size);
        write_json_char(run, c, string_origin(string, at));
        at += (size_t)size;
        plain = at;
    }
    buffer_write_slice(run, string, plain, text->length);
    buffer_write(run, "\"", 1, outer);
}

static void write_json_float(Run *run, double real, Origin origin)
{
    char text[32];
    run_step(run, 10);
    if (isnan(real)) {
        buffer_puts(run, "NaN", origin);
    } else if (isinf(real)) {
        buffer_puts(run, real > 0 ? "Infinity" : "-Infinity", origin);
    } else {
        buffer_puts(run, format_double(real, text), origin);
    }
}

static void write_json_break(Run *run, const JsonStyle *style, int level, Origin origin)
{
    if (style->indent.type == VALUE_NONE) return;
    buffer_puts(run, "\n", origin);
    for (int i = 0; i < level; i++)
        buffer_write_string(run, style->indent);
}

static void write_json_value(Run *run, Value value, const JsonStyle *style, int level);

static void write_json_list(Run *run, Value value, const JsonStyle *style, int level)
{
    const List *list = value.as.list;
    buffer_puts(run, "[", value.origin);
    for (size_t i = 0; i < list->count; i++) {
        if (i > 0)
            buffer_write(run, style->item_separator.as.string->bytes,
                         style->item_separator.as.string->length, value.origin);
        write_json_break(run, style, level + 1, value.origin);
        write_json_value(run, list->item[i], style, level + 1);
    }
    if (list->count > 0) write_json_break(run, style, level, value.origin);
    buffer_puts(run, "]", value.origin);
}

/* A key as json.dumps turns it into a string. */
static Value json_key(Run *run, Value key)
{
    switch ((ValueType)key.type) {
    case VALUE_STRING:
        return key;
    case VALUE_NONE:
        return value_literal(run, "null");
    case VALUE_BOOL:
        return value_literal(run, key.as.boolean ? "true" : "false");
    case VALUE_INT:
    case VALUE_BIGINT:
    case VALUE_FLOAT:
        return value_str(run, key);
    default:
        run_raise(run, "keys must be str, int, float, bool or None, not %s", value_type_name(key));
    }
}

static bool key_before(Run *run, const void *context, size_t i, size_t j)
{
    const Dict *dict = context;
    return value_compare(run, dict->entry[i].key, dict->entry[j].key, "<") < 0;
}

static void write_json_dict(Run *run, Value value, const JsonStyle *style, int level)
{
    const Dict *dict = value.as.dict;
    const size_t *order = style->sort_keys ? sort_order(run, dict->count, key_before, dict) : NULL;
    const String *item_separator = style->item_separator.as.string;
    const String *key_separator = style->key_separator.as.string;
    buffer_puts(run, "{", value.origin);
    for (size_t i = 0; i < dict->count; i++) {
        if (i > 0) buffer_write(run, item_separator->bytes, item_separator->length, value.origin);
        write_json_break(run, style, level + 1, value.origin);
        const DictEntry *entry = &dict->entry[order != NULL ? order[i] : i];
        write_json_string(run, json_key(run, entry->key), style->ensure_ascii);
        buffer_write(run, key_separator->bytes, key_separator->length, value.origin);
        write_json_value(run, entry->value, style, level + 1);
    }
    if (dict->count > 0) write_json_break(run, style, level, value.origin);
    buffer_puts(run, "}", value.origin);
}

static void write_json_value(Run *run, Value value, const JsonStyle *style, int level)
{
    run_enter(run);
    run_step(run, 1);
    switch ((ValueType)value.type) {
    case VALUE_NONE:
        buffer_puts(run, "null", value.origin);
        break;
    case VALUE_BOOL:
        buffer_puts(run, value.as.boolean ? "true" : "false", value.origin);
        break;
    case VALUE_INT:
    case VALUE_BIGINT:
        write_repr(run, value);
        break;
    case VALUE_FLOAT:
        write_json_float(run, value.as.real, value.origin);
        break;
    case VALUE_STRING:
        write_json_string(run, value, style->ensure_ascii);
        break;
    case VALUE_LIST:
    case VALUE_TUPLE:
        write_json_list(run, value, style, level);
        break;
    case VALUE_DICT:
        write_json_dict(run, value, style, level);
        break;
    default:
        run_raise(run, "Object of type %s is not JSON serializable", value_type_name(value));
    }
    run_leave(run);
}

void write_json(Run *run, Value value, const JsonStyle *style)
{
    write_json_value(run, value, style, 0);
}

/* ---- HTML ---- */

Value value_escape(Run *run, Value value)
{
    Value string = value_soft_str(run, value);
    if (string.flags & FLAG_MARKUP) return string;
    const String *text = string.as.string;
    run_step(run, text->length / 16);
    static const bool is_special[256] = {
        ['&'] = true, ['<'] = true, ['>'] = true, ['\''] = true, ['"'] = true};
    buffer_push(run);
    size_t plain = 0;
    for (size_t at = 0; at < text->length; at++) {
        const char *entity = NULL;
        if (!is_special[(unsigned char)text->bytes[at]]) continue;
        switch (text->bytes[at]) {
        case '&':
            entity = "&amp;";
            break;
        case '<':
            entity = "&lt;";
            break;
        case '>':
            entity = "&gt;";
            break;
        case '\'':
            entity = "&#39;";
            break;
        case '"':
            entity = "&#34;";
            break;
        default:
            continue;
        }
        buffer_write_slice(run, string, plain, at);
        buffer_puts(run, entity, string_origin(string, at));
        plain = at + 1;
    }
    buffer_write_slice(run, string, plain, text->length);
    Value escaped = buffer_pop(run);
    escaped.flags |= FLAG_MARKUP;
    return escaped;
}
