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

/* A number of a few decimals, without a search: `real` is the fraction nearest to digits / scale,
 * and no shorter one is as near. False: it is not as simple as that. */
static bool format_decimal(double real, char text[32])
{
    static const double scales[] = {1, 10, 100, 1e3, 1e4, 1e5, 1e6};
    double magnitude = fabs(real);
    if (!(magnitude >= 1e-4 && magnitude < 1e8)) return false;
    for (int decimals = 0; decimals < 7; decimals++) {
        double digits = nearbyint(magnitude * scales[decimals]);
        if (digits / scales[decimals] != magnitude) continue;
        uint64_t rest = (uint64_t)digits;
        char reversed[32];
        int count = 0, places = decimals;
        if (decimals == 0) {
            reversed[count++] = '0';
            reversed[count++] = '.';
        }
        do {
            reversed[count++] = (char)('0' + rest % 10);
            rest /= 10;
            if (--places == 0) reversed[count++] = '.';
        } while (rest > 0 || places >= 0);
        if (real < 0) reversed[count++] = '-';
        for (int i = 0; i < count; i++)
            text[i] = reversed[count - 1 - i];
        text[count] = '\0';
        return true;
    }
    return false;
}

/* As Python's repr(float) prints it. */
char *format_double(double real, char text[32])
{
    if (isnan(real)) return strcpy(text, "nan");
    if (isinf(real)) return strcpy(text, real > 0 ? "inf" : "-inf");
    if (real == 0) return strcpy(text, signbit(real) ? "-0.0" : "0.0");
    if (format_decimal(real, text)) return text;
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

static bool is_plain_ascii(char byte, char quote) /* stands for itself in repr() */
{
    return byte >= ' ' && byte <= '~' && byte != quote && byte != '\\';
}

static void write_string_repr(Run *run, Value string)
{
    const String *text = string.as.string;
    run_step(run, text->length);
    Origin outer = text->length > 0 ? string_origin(string, 0) : string.origin;
    bool has_single = memchr(text->bytes, '\'', text->length) != NULL;
    bool has_double = memchr(text->bytes, '"', text->length) != NULL;
    char quote = has_single && !has_double ? '"' : '\'';
    if (string.flags & FLAG_MARKUP) buffer_puts(run, "Markup(", outer);
    buffer_write(run, &quote, 1, outer);
    for (size_t at = 0; at < text->length;) {
        size_t plain = at;
        while (plain < text->length && is_plain_ascii(text->bytes[plain], quote))
            plain++;
        buffer_write_slice(run, string, at, plain);
        at = plain;
        if (at == text->length) break;
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
        write_repr(run, *entry_value(run, &dict->entry[i]));
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

static void write_integer(Run *run, int64_t integer, Origin origin)
{
    char digits[24], *first = digits + sizeof digits;
    uint64_t rest = integer < 0 ? 0 - (uint64_t)integer : (uint64_t)integer;
    do {
        *--first = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (integer < 0) *--first = '-';
    buffer_write(run, first, (size_t)(digits + sizeof digits - first), origin);
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
        write_integer(run, value.as.integer, value.origin);
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

/* ---- HTML ---- */

static const struct {
    const char *text;
    size_t length;
} entities[] = {
    {"", 0}, {"&amp;", 5}, {"&lt;", 4}, {"&gt;", 4}, {"&#39;", 5}, {"&#34;", 5},
};

/* Per byte that HTML takes for something else: its place among the entities. */
static const uint8_t entity_of[256] = {['&'] = 1, ['<'] = 2, ['>'] = 3, ['\''] = 4, ['"'] = 5};

/* Of text that comes from one input, in one go. */
static Value escape_plain(Run *run, Value string, size_t escaped_length)
{
    const String *text = string.as.string;
    char *to;
    Value escaped = value_room(run, escaped_length, string.origin, &to);
    for (size_t at = 0; at < text->length; at++) {
        uint8_t entity = entity_of[(unsigned char)text->bytes[at]];
        if (entity == 0) {
            *to++ = text->bytes[at];
        } else {
            memcpy(to, entities[entity].text, entities[entity].length);
            to += entities[entity].length;
        }
    }
    return escaped;
}

static Value escape_pieces(Run *run, Value string)
{
    const String *text = string.as.string;
    size_t plain = 0;
    buffer_push(run);
    for (size_t at = 0; at < text->length; at++) {
        uint8_t entity = entity_of[(unsigned char)text->bytes[at]];
        if (entity == 0) continue;
        buffer_write_slice(run, string, plain, at);
        buffer_puts(run, entities[entity].text, string_origin(string, at));
        plain = at + 1;
    }
    buffer_write_slice(run, string, plain, text->length);
    return buffer_pop(run);
}

Value value_escape(Run *run, Value value)
{
    Value string = value_soft_str(run, value);
    if (string.flags & FLAG_MARKUP) return string;
    const String *text = string.as.string;
    size_t escaped_length = text->length;
    run_step(run, text->length / 16);
    for (size_t at = 0; at < text->length; at++) { /* without a branch: several at a time */
        char byte = text->bytes[at];
        int quotes = (byte == '"') + (byte == '\'') + (byte == '&');
        int angles = (byte == '<') + (byte == '>');
        escaped_length += (size_t)(4 * quotes + 3 * angles);
    }
    if (escaped_length > text->length)
        string = text->run == NULL ? escape_plain(run, string, escaped_length)
                                   : escape_pieces(run, string);
    string.flags |= FLAG_MARKUP;
    return string;
}
