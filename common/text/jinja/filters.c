/* Filters over text and numbers. */
#include "text/jinja/filters.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja/case.h"
#include "text/jinja/chars.h"
#include "text/jinja/methods.h"

static bool is_given(Value value)
{
    return value.type != VALUE_MISSING;
}

static void no_arguments(Run *run, const Args *args, const char *name)
{
    Value unused;
    args_bind(run, name, args, NULL, 0, &unused);
}

static Value with_flags(Value value, Value from)
{
    value.flags = from.flags;
    return value;
}

/* ---- case, stripping, replacing ---- */

static Value filter_upper(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_upper");
    return case_map(run, value_soft_str(run, self), CASE_UPPER);
}

static Value filter_lower(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_lower");
    return case_map(run, value_soft_str(run, self), CASE_LOWER);
}

static Value filter_capitalize(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_capitalize");
    return case_map(run, value_soft_str(run, self), CASE_CAPITALIZE);
}

static Value filter_title(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_title");
    Value title = case_map(run, value_soft_str(run, self), CASE_TITLE_WORDS);
    title.flags = 0;
    return title;
}

static Value call_method(Run *run, Value self, const char *name, const Args *args)
{
    String method = {.bytes = name, .length = (uint32_t)strlen(name), .chars = CHARS_UNKNOWN};
    return method_find(self, &method)(run, self, args);
}

static Value filter_trim(Run *run, Value self, const Args *args)
{
    return string_strip(run, value_soft_str(run, self), args);
}

static Value filter_center(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"width", false}};
    Value width;
    args_bind(run, "do_center", args, params, 1, &width);
    if (!is_given(width)) width = value_int(80);
    return call_method(run, value_soft_str(run, self), "center",
                       &(Args){.positional = &width, .count = 1});
}

static Value filter_replace(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"old", true}, {"new", true}, {"count", false}};
    Value values[3];
    args_bind(run, "do_replace", args, params, 3, values);
    int64_t max =
        is_given(values[2]) && values[2].type != VALUE_NONE ? arg_int(run, values[2], "count") : -1;
    return string_replace(run, value_str(run, self), value_str(run, values[0]),
                          value_str(run, values[1]), max);
}

static Value filter_format(Run *run, Value self, const Args *args)
{
    if (args->count > 0 && args->num_keywords > 0)
        run_raise(run, "can't handle positional and keyword arguments at the same time");
    Value arguments;
    if (args->num_keywords > 0) {
        Dict *dict = dict_create(run, args->num_keywords);
        for (size_t i = 0; i < args->num_keywords; i++)
            dict_set(run, dict, value_of_string(args->keyword[i].name, run->literal_origin),
                     args->keyword[i].value);
        arguments = value_of_dict(dict, run->literal_origin);
    } else {
        arguments = value_tuple(run, args->count);
        if (args->count > 0)
            memcpy(list_items(arguments), args->positional, args->count * sizeof(Value));
    }
    return format_percent(run, value_soft_str(run, self), arguments);
}

/* ---- markup ---- */

static Value filter_string(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "soft_str");
    return value_soft_str(run, self);
}

static Value filter_safe(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_mark_safe");
    Value text = value_str(run, self);
    text.flags |= FLAG_MARKUP;
    return text;
}

static Value filter_escape(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "escape");
    return value_escape(run, self);
}

static Value filter_forceescape(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_forceescape");
    return value_escape(run, value_str(run, self));
}

/* The five entities that escape() makes, and &nbsp; ones no more: striptags undoes them. */
static size_t entity_at(const String *text, size_t at, char *ret_char)
{
    static const struct {
        const char *entity;
        char c;
    } table[] = {{"&amp;", '&'},  {"&lt;", '<'},  {"&gt;", '>'},
                 {"&#39;", '\''}, {"&#34;", '"'}, {"&quot;", '"'}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        size_t length = strlen(table[i].entity);
        if (text->length - at >= length && memcmp(text->bytes + at, table[i].entity, length) == 0) {
            *ret_char = table[i].c;
            return length;
        }
    }
    return 0;
}

/* Behind the tag or comment that begins at `at`, or 0 if it is not closed. */
static size_t tag_end(const String *text, size_t at)
{
    const char *end = text->bytes + text->length, *begin = text->bytes + at;
    if (text->length - at >= 4 && memcmp(begin, "<!--", 4) == 0) {
        const char *close = memmem(begin + 4, (size_t)(end - begin) - 4, "-->", 3);
        return close != NULL ? (size_t)(close - text->bytes) + 3 : 0;
    }
    const char *close = memchr(begin, '>', (size_t)(end - begin));
    return close != NULL ? (size_t)(close - text->bytes) + 1 : 0;
}

static Value filter_striptags(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_striptags");
    Value string = value_str(run, self);
    const String *text = string.as.string;
    run_step(run, text->length / 8);
    buffer_push(run);
    size_t at = 0;
    for (size_t tag = 0; tag < text->length;) {
        const char *open = memchr(text->bytes + tag, '<', text->length - tag);
        size_t end = open != NULL ? tag_end(text, (size_t)(open - text->bytes)) : 0;
        if (end == 0) break;
        run_step(run, 1);
        buffer_write_slice(run, string, at, (size_t)(open - text->bytes));
        at = tag = end;
    }
    buffer_write_slice(run, string, at, text->length);
    Value words = call_method(run, buffer_pop(run), "split", &(Args){0});
    Value joined = call_method(run, value_literal(run, " "), "join",
                               &(Args){.positional = &words, .count = 1});
    text = joined.as.string;
    run_step(run, text->length);
    buffer_push(run);
    for (size_t i = 0; i < text->length;) {
        char c;
        size_t length = text->bytes[i] == '&' ? entity_at(text, i, &c) : 0;
        if (length > 0) {
            buffer_write(run, &c, 1, string_origin(joined, i));
        } else {
            length = 1;
            buffer_write_slice(run, joined, i, i + 1);
        }
        i += length;
    }
    return buffer_pop(run);
}

static Value filter_xmlattr(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"autospace", false}};
    Value autospace;
    args_bind(run, "do_xmlattr", args, params, 1, &autospace);
    if (self.type != VALUE_DICT)
        run_raise(run, "'%s' object has no attribute 'items'", value_type_name(self));
    bool first = true;
    buffer_push(run);
    for (size_t i = 0; i < self.as.dict->count; i++) {
        const DictEntry *entry = &self.as.dict->entry[i];
        Value value = *entry_value(run, entry);
        if (value.type == VALUE_NONE || value.type == VALUE_UNDEFINED) continue;
        if (!value_is_string(entry->key))
            run_raise(run, "expected string or bytes-like object, got '%s'",
                      value_type_name(entry->key));
        Value key = entry->key;
        for (size_t at = 0; at < key.as.string->length; at++)
            if (strchr(" \t\n\r\f\v/>=", key.as.string->bytes[at]) != NULL)
                run_raise(run, "Invalid character in attribute name: %s", message_repr(run, key));
        if (!first || !is_given(autospace) || value_truth(autospace))
            buffer_puts(run, " ", run->literal_origin);
        first = false;
        buffer_write_string(run, value_escape(run, key));
        buffer_puts(run, "=\"", run->literal_origin);
        buffer_write_string(run, value_escape(run, value));
        buffer_puts(run, "\"", run->literal_origin);
    }
    return buffer_pop(run);
}

/* ---- lines and words ---- */

static Value filter_indent(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"width", false}, {"first", false}, {"blank", false}};
    Value values[3];
    args_bind(run, "do_indent", args, params, 3, values);
    if (!value_is_string(self)) {
        if (self.type == VALUE_UNDEFINED) run_fail_undefined(run, self);
        run_raise(run, "unsupported operand type(s) for +=: '%s' and 'str'", value_type_name(self));
    }
    Value indent = values[0];
    if (!is_given(indent)) indent = value_int(4);
    if (!value_is_string(indent))
        indent = eval_binary(run, BINARY_MUL, value_literal(run, " "), indent);
    if (self.flags & FLAG_MARKUP) indent = value_escape(run, indent);
    bool first = value_truth(values[1]), blank = value_truth(values[2]);
    size_t count;
    Value *lines =
        string_lines(run, string_concat(run, self, value_literal(run, "\n")), false, &count);
    buffer_push(run);
    for (size_t i = 0; i < count; i++) {
        if (i > 0) buffer_puts(run, "\n", string_origin(self, 0));
        if (i == 0 ? first : blank || lines[i].as.string->length > 0)
            buffer_write_string(run, indent);
        buffer_write_string(run, lines[i]);
    }
    return with_flags(buffer_pop(run), self);
}

static Value filter_truncate(Run *run, Value self, const Args *args)
{
    static const Param params[] = {
        {"length", false}, {"killwords", false}, {"end", false}, {"leeway", false}};
    Value values[4];
    args_bind(run, "do_truncate", args, params, 4, values);
    int64_t length = is_given(values[0]) ? arg_int(run, values[0], "length") : 255;
    Value end = is_given(values[2]) ? value_str(run, values[2]) : value_literal(run, "...");
    int64_t leeway =
        is_given(values[3]) && values[3].type != VALUE_NONE ? arg_int(run, values[3], "leeway") : 5;
    int64_t end_chars = string_chars(end.as.string);
    if (length < end_chars)
        run_raise(run, "expected length >= %lld, got %lld", (long long)end_chars,
                  (long long)length);
    if (leeway < 0) run_raise(run, "expected leeway >= 0, got %lld", (long long)leeway);
    if ((int64_t)value_length(run, self) <= length + leeway) return self;
    Value head = eval_slice(run, self, value_none(), value_int(length - end_chars), value_none());
    if (!value_truth(values[1])) { /* up to the last space */
        const String *text = head.as.string;
        run_step_bytes(run, text->length);
        for (size_t at = text->length; at > 0; at--)
            if (text->bytes[at - 1] == ' ') {
                head = string_slice(run, head, 0, at - 1);
                break;
            }
    }
    return eval_binary(run, BINARY_ADD, head, end);
}

static Value filter_wordcount(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_wordcount");
    Value string = value_soft_str(run, self);
    const String *text = string.as.string;
    int64_t words = 0;
    bool inside = false;
    for (size_t at = 0; at < text->length;) {
        int size;
        uint32_t c = string_char(text, at, &size);
        run_step_char(run, c, 2);
        bool word = c == '_' || char_is_alpha(c) || char_is_numeric(c);
        words += word && !inside;
        inside = word;
        at += (size_t)size;
    }
    return value_int(words);
}

static Value filter_urlencode(Run *run, Value self, const Args *args);

/* Quotes a string as urllib.parse.quote does; in a query "/" too, and a space becomes "+". */
static void write_url_quoted(Run *run, Value value, bool in_query)
{
    Value string = value_str(run, value);
    const String *text = string.as.string;
    for (size_t at = 0; at < text->length; at++) {
        unsigned char c = (unsigned char)text->bytes[at];
        run_step(run, 2);
        bool plain = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') ||
                     (c != '\0' && strchr("_.-~", c) != NULL) || (c == '/' && !in_query);
        if (plain) {
            buffer_write_slice(run, string, at, at + 1);
        } else if (c == ' ' && in_query) {
            buffer_puts(run, "+", string_origin(string, at));
        } else {
            static const char hex[] = "0123456789ABCDEF";
            const char escape[] = {'%', hex[c >> 4], hex[c & 15]};
            buffer_write(run, escape, sizeof escape, string_origin(string, at));
        }
    }
}

static Value filter_urlencode(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_urlencode");
    Iterator iterator;
    bool is_pairs = !value_is_string(self) && iterator_begin(run, self, &iterator);
    if (!is_pairs) {
        buffer_push(run);
        write_url_quoted(run, self, false);
        return buffer_pop(run);
    }
    if (self.type == VALUE_DICT) self = call_method(run, self, "items", &(Args){0});
    size_t count, size;
    Value *pairs = value_items(run, self, &count);
    buffer_push(run);
    for (size_t i = 0; i < count; i++) {
        Value *pair = value_items(run, pairs[i], &size);
        if (size != 2) run_raise(run, "not enough values to unpack (expected 2, got %zu)", size);
        if (i > 0) buffer_puts(run, "&", run->literal_origin);
        write_url_quoted(run, pair[0], true);
        buffer_puts(run, "=", run->literal_origin);
        write_url_quoted(run, pair[1], true);
    }
    return buffer_pop(run);
}

/* ---- JSON ---- */

static void json_indent(Run *run, Value indent, JsonStyle *style)
{
    if (!is_given(indent) || indent.type == VALUE_NONE) return;
    if (!value_is_string(indent)) {
        int64_t spaces = arg_int(run, indent, "indent");
        indent = eval_binary(run, BINARY_MUL, value_literal(run, " "),
                             value_int(spaces > 0 ? spaces : 0));
    }
    style->indent = indent.as.string;
    size_t blanks = 0;
    while (blanks < style->indent->length && style->indent->bytes[blanks] == ' ')
        blanks++;
    style->indents_blank = blanks == style->indent->length;
}

static Value filter_tojson(Run *run, Value self, const Args *args)
{
    static const Param params[] = {
        {"ensure_ascii", false}, {"indent", false}, {"separators", false}, {"sort_keys", false}};
    Value values[4];
    args_bind(run, "tojson", args, params, 4, values);
    JsonStyle style = {.ensure_ascii = value_truth(values[0]), .sort_keys = value_truth(values[3])};
    json_indent(run, values[1], &style);
    style.item_separator = value_literal(run, style.indent == NULL ? ", " : ",");
    style.key_separator = value_literal(run, ": ");
    if (is_given(values[2]) && values[2].type != VALUE_NONE) {
        size_t count;
        Value *pair = value_items(run, values[2], &count);
        if (count != 2 || !value_is_string(pair[0]) || !value_is_string(pair[1]))
            run_raise(run, "separators must be two strings");
        style.item_separator = pair[0];
        style.key_separator = pair[1];
    }
    buffer_push(run);
    write_json(run, self, &style);
    return buffer_pop(run);
}

/* ---- numbers ---- */

static Value filter_abs(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "abs");
    if (self.type == VALUE_FLOAT) return value_float(fabs(self.as.real));
    if (value_is_integer(self)) return eval_negative(run, self, value_as_int(self) < 0);
    if (self.type == VALUE_BIGINT) {
        size_t sign = self.as.string->bytes[0] == '-';
        return string_slice(run, self, sign, self.as.string->length);
    }
    run_raise(run, "bad operand type for abs(): '%s'", value_type_name(self));
}

/* A number's text as int() and float() take it: without the white space around it and single
 * underscores between digits. NULL if it cannot be one. */
static char *number_text(Run *run, Value value)
{
    const String *text = value.as.string;
    run_step(run, text->length / 4);
    size_t begin = 0, end = text->length, used = 0;
    int length;
    while (begin < end && char_is_space(string_char(text, begin, &length)))
        begin += (size_t)length;
    while (end > begin && (unsigned char)text->bytes[end - 1] < 0x80 &&
           char_is_space((unsigned char)text->bytes[end - 1]))
        end--;
    char *out = run_alloc_raw(run, end - begin + 1);
    for (size_t i = begin; i < end; i++) {
        char c = text->bytes[i];
        if (c == '_') {
            bool between = i > begin && i + 1 < end && text->bytes[i - 1] != '_' &&
                           ((text->bytes[i - 1] | 32) >= '0') && text->bytes[i + 1] != '_';
            if (!between) return NULL;
            continue;
        }
        if (c == '\0' || (unsigned char)c >= 0x80 || char_is_space((unsigned char)c)) return NULL;
        out[used++] = c;
    }
    out[used] = '\0';
    return used > 0 ? out : NULL;
}

/* A whole number of digits, with a sign perhaps, that 64 bits cannot hold. */
static Value big_number(Run *run, bool negative, const char *digits)
{
    digits += strspn(digits, "0");
    Value text = value_text(run, digits, strlen(digits), ORIGIN_PLAIN_TEMPLATE);
    if (negative) text = string_concat(run, value_literal(run, "-"), text);
    text.type = VALUE_BIGINT;
    return text;
}

#define INT_DIGITS_MAX 4300 /* Python refuses to take more for a whole number */

static bool parse_int(Run *run, Value value, int base, Value *ret)
{
    const char *digits = number_text(run, value);
    if (digits == NULL) return false;
    bool negative = *digits == '-';
    if (*digits == '-' || *digits == '+') digits++;
    static const char marks[] = {[2] = 'b', [8] = 'o', [16] = 'x'};
    char mark = digits[0] == '0' ? digits[1] | 32 : 0;
    if ((base == 2 || base == 8 || base == 16) && mark == marks[base]) digits += 2;
    if (base == 0 && mark != 0) {
        base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
        if (base != 10) digits += 2;
    }
    if (*digits == '\0' || *digits == '-' || *digits == '+') return false;
    if ((base == 0 || (base & (base - 1)) != 0) && strlen(digits) > INT_DIGITS_MAX) return false;
    char *end;
    errno = 0;
    long long number = strtoll(digits, &end, base == 0 ? 10 : base);
    if (*end != '\0') return false;
    if (errno == ERANGE && base != 10)
        run_fail(run, ERR_UNSUPPORTED, "a whole number beyond 64 bits");
    *ret = errno == ERANGE ? big_number(run, negative, digits)
                           : value_int(negative ? -number : number);
    return true;
}

static bool parse_float(Run *run, Value value, double *ret)
{
    char *text = number_text(run, value), *end;
    if (text == NULL) return false;
    const char *digits = text + (*text == '-' || *text == '+');
    if (digits[0] == '0' && (digits[1] | 32) == 'x') return false;
    if (strchr("0123456789.iInN", *digits) == NULL || strchr(text, '(') != NULL) return false;
    *ret = strtod(text, &end);
    return *end == '\0';
}

static Value float_to_int(Run *run, double real, Value otherwise)
{
    if (isnan(real) || isinf(real)) return otherwise;
    if (fabs(real) < 9223372036854775808.0) return value_int((int64_t)real);
    char digits[400];
    snprintf(digits, sizeof digits, "%.0f", fabs(real));
    return big_number(run, real < 0, digits);
}

static Value filter_int(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"default", false}, {"base", false}};
    Value values[2];
    args_bind(run, "do_int", args, params, 2, values);
    Value otherwise = is_given(values[0]) ? values[0] : value_int(0);
    int64_t base = is_given(values[1]) ? arg_int(run, values[1], "base") : 10;
    if (base != 0 && (base < 2 || base > 36)) return otherwise;
    Value integer;
    double real;
    if (self.type == VALUE_UNDEFINED) run_fail_undefined(run, self);
    if (value_is_integer(self)) return value_int(value_as_int(self));
    if (self.type == VALUE_BIGINT) return self;
    if (self.type == VALUE_FLOAT) {
        if (isinf(self.as.real)) run_raise(run, "cannot convert float infinity to integer");
        return float_to_int(run, self.as.real, otherwise);
    }
    if (!value_is_string(self)) return otherwise;
    if (parse_int(run, self, (int)base, &integer)) return integer;
    return parse_float(run, self, &real) ? float_to_int(run, real, otherwise) : otherwise;
}

/* A number as float() takes it; of a BIGINT, whose digits a string of the same bytes has. */
static double to_double(Run *run, Value value)
{
    if (value.type != VALUE_BIGINT) return value_as_double(value);
    double real = 0;
    value.type = VALUE_STRING;
    if (!parse_float(run, value, &real) || isinf(real))
        run_raise(run, "int too large to convert to float");
    return real;
}

static Value filter_float(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"default", false}};
    Value otherwise;
    args_bind(run, "do_float", args, params, 1, &otherwise);
    double real;
    if (self.type == VALUE_UNDEFINED) run_fail_undefined(run, self);
    if (value_is_number(self) || self.type == VALUE_BIGINT)
        return value_float(to_double(run, self));
    if (value_is_string(self) && parse_float(run, self, &real)) return value_float(real);
    return is_given(otherwise) ? otherwise : value_float(0.0);
}

static Value round_integer(Run *run, int64_t integer, int64_t precision)
{
    if (precision >= 0) return value_int(integer);
    if (precision < -18) return value_int(0);
    int64_t unit = 1;
    for (int64_t i = 0; i < -precision; i++)
        unit *= 10;
    int64_t rest = ((integer % unit) + unit) % unit, down = integer - rest;
    bool up = rest > unit / 2 || (rest == unit / 2 && (down / unit) % 2 != 0);
    (void)run;
    return value_int(up ? down + unit : down);
}

/* round(): to the nearest, exact halves to the even one; judged by the number's exact decimal
 * value. */
static double round_float(double real, int64_t precision)
{
    if (!isfinite(real) || precision > 300) return real;
    char text[700];
    if (precision >= 0) {
        snprintf(text, sizeof text, "%.*f", (int)precision, real);
        return strtod(text, NULL);
    }
    snprintf(text, sizeof text, "%.0e", fabs(real)); /* for its exponent, perhaps rounded up */
    int64_t exponent = strtol(strchr(text, 'e') + 1, NULL, 10);
    if (pow(10.0, (double)exponent) > fabs(real)) exponent--;
    int64_t digits = exponent + 1 + precision; /* that are left */
    if (digits > 0) {
        snprintf(text, sizeof text, "%.*e", (int)digits - 1, real);
        return strtod(text, NULL);
    }
    bool up = digits == 0 && fabs(real) > 5 * pow(10.0, (double)exponent);
    return copysign(up ? pow(10.0, (double)exponent + 1) : 0.0, real);
}

static Value filter_round(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"precision", false}, {"method", false}};
    Value values[2];
    args_bind(run, "do_round", args, params, 2, values);
    int64_t precision = is_given(values[0]) ? arg_int(run, values[0], "precision") : 0;
    Value method = is_given(values[1]) ? values[1] : value_literal(run, "common");
    bool ceiling = value_is_string(method) && string_is(method.as.string, "ceil");
    bool floored = value_is_string(method) && string_is(method.as.string, "floor");
    if (!ceiling && !floored && !(value_is_string(method) && string_is(method.as.string, "common")))
        run_raise(run, "method must be common, ceil or floor");
    if (self.type == VALUE_BIGINT) run_fail(run, ERR_UNSUPPORTED, "a whole number beyond 64 bits");
    if (!value_is_number(self) && (ceiling || floored))
        run_raise(run, "must be real number, not %s", value_type_name(self));
    if (!value_is_number(self))
        run_raise(run, "type %s doesn't define __round__ method", value_type_name(self));
    if (!ceiling && !floored)
        return value_is_integer(self) ? round_integer(run, value_as_int(self), precision)
                                      : value_float(round_float(self.as.real, precision));
    double unit = pow(10.0, (double)precision), scaled = value_as_double(self) * unit;
    return value_float(((ceiling ? ceil(scaled) : floor(scaled)) + 0.0) / unit); /* never -0.0 */
}

/* Is `bytes` less than 10^k as a whole number? The double that is nearest to 10^24 is below it. */
static bool is_below(double bytes, double unit)
{
    return bytes < unit || (bytes == 1e24 && unit == 1e24);
}

static void write_file_size(double bytes, bool is_binary, char text[400])
{
    static const double decimal[] = {1e6, 1e9, 1e12, 1e15, 1e18, 1e21, 1e24, 1e27};
    double base = is_binary ? 1024 : 1000;
    if (bytes == 1) {
        strcpy(text, "1 Byte");
    } else if (bytes < base) {
        snprintf(text, 400, "%.0f Bytes", trunc(bytes) + 0.0);
    } else {
        int prefix = 0;
        double unit = is_binary ? 0x1p20 : decimal[0];
        while (!is_below(bytes, unit) && prefix < 7) {
            prefix++;
            unit = is_binary ? unit * 1024 : decimal[prefix];
        }
        int used = isfinite(base * bytes) ? snprintf(text, 350, "%.1f", base * bytes / unit)
                                          : snprintf(text, 350, "%s", isnan(bytes) ? "nan" : "inf");
        snprintf(text + used, 16, " %c%sB", (is_binary ? "KMGTPEZY" : "kMGTPEZY")[prefix],
                 is_binary ? "i" : "");
    }
}

static Value filter_filesizeformat(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"binary", false}};
    Value binary;
    args_bind(run, "do_filesizeformat", args, params, 1, &binary);
    double bytes;
    if (value_is_number(self) || self.type == VALUE_BIGINT) {
        bytes = to_double(run, self);
    } else if (!value_is_string(self) || !parse_float(run, self, &bytes)) {
        run_raise(run, "could not convert %s to float", message_repr(run, self));
    }
    if (isinf(bytes) && bytes < 0) run_raise(run, "cannot convert float infinity to integer");
    char text[400];
    write_file_size(bytes, value_truth(binary), text);
    return value_text(run, text, strlen(text), self.origin);
}

/* A text that is another one each time is nothing to train on. */
static Value filter_random(Run *run, Value self, const Args *args)
{
    (void)self;
    (void)args;
    run_fail(run, ERR_UNSUPPORTED, "the filter random is not supported");
}

static const Function filters[] = {
    {"abs", filter_abs},
    {"capitalize", filter_capitalize},
    {"center", filter_center},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"filesizeformat", filter_filesizeformat},
    {"float", filter_float},
    {"forceescape", filter_forceescape},
    {"format", filter_format},
    {"indent", filter_indent},
    {"int", filter_int},
    {"lower", filter_lower},
    {"replace", filter_replace},
    {"round", filter_round},
    {"safe", filter_safe},
    {"string", filter_string},
    {"striptags", filter_striptags},
    {"title", filter_title},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"truncate", filter_truncate},
    {"upper", filter_upper},
    {"urlencode", filter_urlencode},
    {"wordcount", filter_wordcount},
    {"xmlattr", filter_xmlattr},
    {"pprint", filter_pprint},
    {"random", filter_random},
    {"urlize", filter_urlize},
    {"wordwrap", filter_wordwrap},
};

FilterTable text_filters(void)
{
    return (FilterTable){.filter = filters, .count = sizeof filters / sizeof filters[0]};
}

const Function *filter_find(const char *name, size_t length)
{
    const FilterTable tables[] = {text_filters(), sequence_filters()};
    for (size_t t = 0; t < 2; t++)
        for (size_t i = 0; i < tables[t].count; i++) {
            const Function *filter = &tables[t].filter[i];
            if (strlen(filter->name) == length && memcmp(filter->name, name, length) == 0)
                return filter;
        }
    return NULL;
}
