/* Python's two ways to format: "%s" % values (docs.python.org/3/library/stdtypes.html,
 * printf-style) and
 * "{}".format(values) (docs.python.org/3/library/string.html, format specification). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "text/jinja/run.h"

/* How one value is to be laid out. */
typedef struct Layout {
    Value fill; /* one character */
    char align; /* '<', '>', '^', '=' (behind the sign) or 0: the type's own */
    char sign;  /* '+', '-', ' ' */
    bool alternate;
    bool zero;
    char grouping; /* ',', '_' or 0 */
    int64_t width;
    int64_t precision; /* -1: none */
    char type;         /* 0: none given */
    bool has_sign;
} Layout;

#define WIDTH_MAX 1000000

static bool one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

/* Not even one other character; also true of an empty string. */
static bool all_digits(const String *text)
{
    for (uint32_t i = 0; i < text->length; i++)
        if (text->bytes[i] < '0' || text->bytes[i] > '9') return false;
    return true;
}

static void write_padding(Run *run, Value fill, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        run_step(run, 1);
        buffer_write_string(run, fill);
    }
}

/* Writes text between the padding that its layout asks for; `sign_length` bytes of it are sign and
 * base. */
static void write_aligned(Run *run, Value text, size_t sign_length, const Layout *layout,
                          char align)
{
    const String *string = text.as.string;
    int64_t pad = layout->width - (int64_t)string_chars(string);
    if (pad < 0) pad = 0;
    if (layout->align != 0) align = layout->align;
    int64_t before = align == '>' ? pad : align == '^' ? pad / 2 : 0;
    write_padding(run, layout->fill, before);
    buffer_write_slice(run, text, 0, sign_length);
    if (align == '=') write_padding(run, layout->fill, pad);
    buffer_write_slice(run, text, sign_length, string->length);
    if (align == '<' || align == '^') write_padding(run, layout->fill, pad - before);
}

/* Of `whole` digits with a separator after every `size` of them. */
static size_t grouped_length(size_t whole, size_t size)
{
    return whole + (whole - 1) / size;
}

/* The digits before the point or exponent in groups, with zeros before them as far as `width`
 * needs them: they are grouped too. */
static Value group_digits(Run *run, const char *digits, const Layout *layout, int64_t width,
                          Origin origin)
{
    bool is_decimal = layout->type == 0 || !one_of(layout->type, "bcoxX");
    size_t size = is_decimal ? 3 : 4;
    size_t whole = strspn(digits, is_decimal ? "0123456789" : "0123456789abcdefABCDEF");
    size_t zeros = 0, length = strlen(digits);
    if (whole == 0) return value_text(run, digits, length, origin);
    bool fill = layout->align == '=' && string_is(layout->fill.as.string, "0");
    while (fill && (int64_t)(grouped_length(zeros + whole, size) + length - whole) < width)
        zeros++;
    buffer_push(run);
    for (size_t i = 0; i < zeros + whole; i++) {
        if (i > 0 && (zeros + whole - i) % size == 0)
            buffer_write(run, &layout->grouping, 1, origin);
        buffer_write(run, i < zeros ? "0" : &digits[i - zeros], 1, origin);
    }
    buffer_puts(run, digits + whole, origin);
    return buffer_pop(run);
}

#define NUMBER_TEXT_MAX 800 /* "%.300f" of the largest double */

/* Sign, digits and layout of a number given as the digits of its magnitude. */
static void write_number(Run *run, bool negative, const char *prefix, const char *digits,
                         const Layout *layout, Origin origin)
{
    char before[8];
    const char *sign = negative ? "-" : layout->sign == '+' ? "+" : layout->sign == ' ' ? " " : "";
    int length = snprintf(before, sizeof before, "%s%s", sign, prefix);
    Value text = value_text(run, digits, strlen(digits), origin);
    if (layout->grouping != 0)
        text = group_digits(run, digits, layout, layout->width - length, origin);
    text = string_concat(run, value_text(run, before, (size_t)length, origin), text);
    write_aligned(run, text, (size_t)length, layout, '>');
}

/* "%.5d": zeros before the digits. */
static const char *least_digits(Run *run, const char *digits, int64_t least)
{
    size_t length = strlen(digits);
    if (least <= (int64_t)length) return digits;
    run_step(run, (uint64_t)least / 8);
    char *all = run_alloc(run, (size_t)least + 1);
    memset(all, '0', (size_t)least);
    strcpy(all + (size_t)least - length, digits);
    return all;
}

static void write_integer(Run *run, int64_t integer, const Layout *layout, Origin origin)
{
    uint64_t magnitude = integer < 0 ? 0 - (uint64_t)integer : (uint64_t)integer;
    char digits[80];
    const char *prefix = "";
    switch (layout->type) {
    case 'x':
    case 'X':
        snprintf(digits, sizeof digits, layout->type == 'x' ? "%llx" : "%llX",
                 (unsigned long long)magnitude);
        if (layout->alternate) prefix = layout->type == 'x' ? "0x" : "0X";
        break;
    case 'o':
        snprintf(digits, sizeof digits, "%llo", (unsigned long long)magnitude);
        if (layout->alternate) prefix = "0o";
        break;
    case 'b': {
        size_t count = 1;
        while (count < 64 && magnitude >> count != 0)
            count++;
        for (size_t i = 0; i < count; i++)
            digits[i] = magnitude >> (count - 1 - i) & 1 ? '1' : '0';
        digits[count] = '\0';
        if (layout->alternate) prefix = "0b";
        break;
    }
    default:
        snprintf(digits, sizeof digits, "%llu", (unsigned long long)magnitude);
        break;
    }
    write_number(run, integer < 0, prefix, least_digits(run, digits, layout->precision), layout,
                 origin);
}

/* The whole part of a float, which may have more digits than 64 bits hold. */
static void write_whole(Run *run, double real, const Layout *layout, Origin origin)
{
    char digits[NUMBER_TEXT_MAX];
    if (isnan(real) || isinf(real))
        run_raise(run, "cannot convert float %s to integer", isnan(real) ? "NaN" : "infinity");
    snprintf(digits, sizeof digits, "%.0f", trunc(fabs(real)));
    write_number(run, real <= -1, "", least_digits(run, digits, layout->precision), layout, origin);
}

static void write_float(Run *run, double real, const Layout *layout, Origin origin)
{
    char digits[NUMBER_TEXT_MAX], spec[16];
    bool negative = real < 0 || (real == 0 && 1 / real < 0);
    double magnitude = negative ? -real : real;
    int precision = layout->precision < 0 ? 6 : (int)layout->precision;
    if (precision > 300) run_fail(run, ERR_UNSUPPORTED, "a precision of more than 300 digits");
    if (layout->type == 0 && layout->precision < 0) {
        char shortest[32];
        snprintf(digits, sizeof digits, "%s", format_double(magnitude, shortest));
    } else if (layout->type == '%') {
        snprintf(digits, sizeof digits, "%.*f%%", precision, magnitude * 100);
    } else {
        char type = layout->type == 0 || layout->type == 'n' ? 'g' : layout->type;
        snprintf(spec, sizeof spec, layout->alternate ? "%%#.*%c" : "%%.*%c", type);
        snprintf(digits, sizeof digits, spec, precision, magnitude);
        if (layout->type == 0 && strpbrk(digits, ".en") == NULL) strcat(digits, ".0");
    }
    write_number(run, negative, "", digits, layout, origin);
}

/* The character with this code. */
static Value code_char(Run *run, Value code)
{
    int64_t number = value_as_int(code);
    if (number < 0 || number > 0x10FFFF || (number >= 0xD800 && number < 0xE000))
        run_raise(run, "%%c arg not in range(0x110000)");
    char bytes[4];
    int size = utf8_encode((uint32_t)number, bytes);
    return value_text(run, bytes, (size_t)size, code.origin);
}

static double as_double(Run *run, Value value, const char *what)
{
    if (value_is_number(value)) return value_as_double(value);
    if (value.type == VALUE_UNDEFINED) run_fail_undefined(run, value);
    run_raise(run, "%s, not %s", what, value_type_name(value));
}

/* ---- printf style ---- */

typedef struct Percent {
    Value format;
    size_t at;
    const Value *argument;
    size_t count, next;
    bool is_mapping; /* the one argument may be asked for keys */
    Layout layout;
} Percent;

static Value next_argument(Run *run, Percent *percent)
{
    if (percent->next >= percent->count) run_raise(run, "not enough arguments for format string");
    return percent->argument[percent->next++];
}

static char percent_char(Run *run, const Percent *percent)
{
    const String *text = percent->format.as.string;
    if (percent->at >= text->length) run_raise(run, "incomplete format");
    return text->bytes[percent->at];
}

/* A number, or '*' for one from the arguments. */
static int64_t percent_number(Run *run, Percent *percent)
{
    if (percent_char(run, percent) == '*') {
        percent->at++;
        Value value = next_argument(run, percent);
        if (!value_is_integer(value)) run_raise(run, "* wants int");
        return value_as_int(value);
    }
    int64_t number = 0;
    for (char c; (c = percent_char(run, percent)) >= '0' && c <= '9'; percent->at++) {
        number = number * 10 + (c - '0');
        if (number > WIDTH_MAX) run_raise(run, "width too big");
    }
    return number;
}

/* "(name)": the argument is the mapping's value. */
static void percent_key(Run *run, Percent *percent, Value *ret_argument)
{
    if (percent_char(run, percent) != '(') return;
    size_t begin = ++percent->at;
    int depth = 1;
    for (; depth > 0; percent->at++) {
        char c = percent_char(run, percent);
        depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    }
    Value key = string_slice(run, percent->format, begin, percent->at - 1);
    if (percent->is_mapping && percent->argument[0].type == VALUE_UNDEFINED)
        run_fail_undefined(run, percent->argument[0]);
    if (!percent->is_mapping || percent->argument[0].type != VALUE_DICT)
        run_raise(run, "format requires a mapping");
    const Value *found = dict_get(run, percent->argument[0].as.dict, key);
    if (found == NULL) run_raise(run, "%s", message_repr(run, key));
    *ret_argument = *found;
    percent->next = percent->count;
}

static void percent_text(Run *run, const Percent *percent, Value value, char type)
{
    const Layout *layout = &percent->layout;
    Value text;
    if (type == 's') {
        text = value_str(run, value);
    } else {
        buffer_push(run);
        write_repr(run, value);
        text = buffer_pop(run);
    }
    if (percent->format.flags & FLAG_MARKUP)
        text = value_escape(run, value_is_string(value) && type == 's' ? value : text);
    const String *string = text.as.string;
    if (layout->precision >= 0 && layout->precision < (int64_t)string_chars(string))
        text = string_slice(run, text, 0, string_offset(string, (size_t)layout->precision));
    write_aligned(run, text, 0, layout, '>');
}

static void percent_value(Run *run, Percent *percent, Value value, char type)
{
    Layout *layout = &percent->layout;
    char text[80];
    if (layout->zero && layout->align == 0 && !one_of(type, "srac")) {
        layout->fill = value_literal(run, "0");
        layout->align = '=';
    }
    switch (type) {
    case 's':
    case 'r':
    case 'a':
        percent_text(run, percent, value, type);
        break;
    case 'd':
    case 'i':
    case 'u':
        snprintf(text, sizeof text, "%%%c format: a real number is required", type);
        layout->type = 'd';
        if (value_is_integer(value)) {
            write_integer(run, value_as_int(value), layout, value.origin);
        } else {
            write_whole(run, as_double(run, value, text), layout, value.origin);
        }
        break;
    case 'x':
    case 'X':
    case 'o':
        if (!value_is_integer(value))
            run_raise(run, "%%%c format: an integer is required, not %s", type,
                      value_type_name(value));
        layout->type = type;
        write_integer(run, value_as_int(value), layout, value.origin);
        break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        layout->type = type;
        write_float(run, as_double(run, value, "must be real number"), layout, value.origin);
        break;
    case 'c':
        if (value_is_integer(value)) value = code_char(run, value);
        if (!value_is_string(value) || string_chars(value.as.string) != 1)
            run_raise(run, "%%c requires int or char");
        write_aligned(run, value, 0, layout, '>');
        break;
    default:
        run_raise(run, "unsupported format character '%c' (0x%x) at index %zu", type,
                  (unsigned char)type, percent->at - 1);
    }
}

static void percent_directive(Run *run, Percent *percent)
{
    percent->layout = (Layout){.fill = value_literal(run, " "), .precision = -1, .sign = '-'};
    Value argument = value_missing();
    percent_key(run, percent, &argument);
    for (char c; one_of(c = percent_char(run, percent), "-+ #0"); percent->at++) {
        if (c == '-') percent->layout.align = '<';
        if (c == '+' || (c == ' ' && percent->layout.sign != '+')) percent->layout.sign = c;
        percent->layout.alternate |= c == '#';
        percent->layout.zero |= c == '0';
    }
    percent->layout.width = percent_number(run, percent);
    if (percent->layout.width < 0) {
        percent->layout.align = '<';
        percent->layout.width = -percent->layout.width;
    }
    if (percent->layout.width > WIDTH_MAX) run_raise(run, "width too big");
    if (percent_char(run, percent) == '.') {
        percent->at++;
        percent->layout.precision = percent_number(run, percent);
    }
    while (one_of(percent_char(run, percent), "hlL"))
        percent->at++;
    char type = percent_char(run, percent);
    percent->at++;
    if (type == '%') {
        buffer_write_slice(run, percent->format, percent->at - 1, percent->at);
        return;
    }
    if (argument.type == VALUE_MISSING) argument = next_argument(run, percent);
    percent_value(run, percent, argument, type);
}

Value format_percent(Run *run, Value format, Value arguments)
{
    Percent percent = {.format = format, .argument = &arguments, .count = 1};
    if (arguments.type == VALUE_TUPLE) {
        percent.argument = arguments.as.list->item;
        percent.count = arguments.as.list->count;
    }
    percent.is_mapping = arguments.type == VALUE_DICT || arguments.type == VALUE_LIST ||
                         arguments.type == VALUE_RANGE || arguments.type == VALUE_UNDEFINED;
    const String *text = format.as.string;
    buffer_push(run);
    while (percent.at < text->length) {
        run_step(run, 1);
        const char *mark = memchr(text->bytes + percent.at, '%', text->length - percent.at);
        size_t end = mark != NULL ? (size_t)(mark - text->bytes) : text->length;
        buffer_write_slice(run, format, percent.at, end);
        percent.at = end + 1;
        if (mark != NULL) percent_directive(run, &percent);
    }
    if (percent.next < percent.count && !percent.is_mapping)
        run_raise(run, "not all arguments converted during string formatting");
    Value formatted = buffer_pop(run);
    formatted.flags = format.flags;
    return formatted;
}

/* ---- str.format ---- */

typedef struct Braces {
    Value format;
    const Args *args;
    size_t automatic; /* the next number for "{}" */
    bool used_automatic, used_manual;
    int depth;
} Braces;

static bool is_align(char c)
{
    return c == '<' || c == '>' || c == '^' || c == '=';
}

static int64_t read_number(Run *run, const String *text, size_t *at)
{
    int64_t number = 0;
    while (*at < text->length && text->bytes[*at] >= '0' && text->bytes[*at] <= '9') {
        number = number * 10 + (text->bytes[(*at)++] - '0');
        if (number > WIDTH_MAX) run_raise(run, "Too many decimal digits in format string");
    }
    return number;
}

/* [[fill]align][sign][z][#][0][width][grouping][.precision][type] */
static Layout read_spec(Run *run, Value spec, Value value)
{
    const String *text = spec.as.string;
    Layout layout = {.fill = value_literal(run, " "), .precision = -1, .sign = '-'};
    size_t at = 0;
    int size = 0;
    if (text->length > 0) string_char(text, 0, &size);
    if (size > 0 && (size_t)size < text->length && is_align(text->bytes[size])) {
        layout.fill = string_slice(run, spec, 0, (size_t)size);
        layout.align = text->bytes[size];
        at = (size_t)size + 1;
    } else if (text->length > 0 && is_align(text->bytes[0])) {
        layout.align = text->bytes[at++];
    }
    if (at < text->length && one_of(text->bytes[at], "+- ")) {
        layout.sign = text->bytes[at++];
        layout.has_sign = true;
    }
    if (at < text->length && text->bytes[at] == '#') {
        layout.alternate = true;
        at++;
    }
    if (at < text->length && text->bytes[at] == '0') {
        at++;
        if (layout.align == 0) {
            layout.fill = value_literal(run, "0");
            layout.align = value_is_string(value) ? '<' : '=';
        }
    }
    layout.width = read_number(run, text, &at);
    if (at < text->length && (text->bytes[at] == ',' || text->bytes[at] == '_'))
        layout.grouping = text->bytes[at++];
    if (at < text->length && text->bytes[at] == '.') {
        size_t begin = ++at;
        layout.precision = read_number(run, text, &at);
        if (at == begin) run_raise(run, "Format specifier missing precision");
    }
    if (at < text->length) layout.type = text->bytes[at++];
    if (at < text->length) run_raise(run, "Invalid format specifier");
    bool may_group = layout.type == 0 || one_of(layout.type, "deEfFgG%") ||
                     (layout.grouping == '_' && one_of(layout.type, "boxX"));
    if (layout.grouping != 0 && !may_group)
        run_raise(run, "Cannot specify '%c' with '%c'.", layout.grouping, layout.type);
    return layout;
}

static _Noreturn void fail_code(Run *run, char type, Value value)
{
    run_raise(run, "Unknown format code '%c' for object of type '%s'", type,
              value_type_name(value));
}

static void write_formatted(Run *run, Value value, Value spec)
{
    if (spec.as.string->length == 0) {
        write_str(run, value);
        return;
    }
    Layout layout = read_spec(run, spec, value);
    if (value_is_string(value)) {
        if (layout.type != 0 && layout.type != 's') fail_code(run, layout.type, value);
        if (layout.has_sign)
            run_raise(run, "%s not allowed in string format specifier",
                      layout.sign == ' ' ? "Space" : "Sign");
        if (layout.alternate)
            run_raise(run, "Alternate form (#) not allowed in string format specifier");
        if (layout.align == '=')
            run_raise(run, "'=' alignment not allowed in string format specifier");
        if (layout.grouping != 0) run_raise(run, "Cannot specify '%c' with 's'.", layout.grouping);
        const String *string = value.as.string;
        if (layout.precision >= 0 && layout.precision < (int64_t)string_chars(string))
            value = string_slice(run, value, 0, string_offset(string, (size_t)layout.precision));
        write_aligned(run, value, 0, &layout, '<');
    } else if (value_is_integer(value) && (layout.type == 0 || one_of(layout.type, "bcdoxXn"))) {
        if (layout.precision >= 0)
            run_raise(run, "Precision not allowed in integer format specifier");
        if (layout.type == 'c') {
            write_aligned(run, code_char(run, value), 0, &layout, '<');
        } else {
            write_integer(run, value_as_int(value), &layout, value.origin);
        }
    } else if (value_is_number(value)) {
        if (layout.type != 0 && !one_of(layout.type, "eEfFgGn%"))
            fail_code(run, layout.type, value);
        write_float(run, value_as_double(value), &layout, value.origin);
    } else {
        run_raise(run, "unsupported format string passed to %s.__format__", value_type_name(value));
    }
}

/* The argument that a field begins with: a number, a name, or nothing for the next one. */
static Value first_argument(Run *run, Braces *braces, Value name)
{
    const String *text = name.as.string;
    bool is_number = text->length > 0 && all_digits(text);
    if (text->length > 0 && !is_number) {
        for (size_t i = 0; i < braces->args->num_keywords; i++) {
            const Keyword *keyword = &braces->args->keyword[i];
            if (keyword->name->length == text->length &&
                memcmp(keyword->name->bytes, text->bytes, text->length) == 0)
                return keyword->value;
        }
        run_raise(run, "%s", message_repr(run, name));
    }
    size_t index = braces->automatic;
    if (is_number) {
        size_t at = 0;
        index = (size_t)read_number(run, text, &at);
        braces->used_manual = true;
    } else {
        braces->automatic++;
        braces->used_automatic = true;
    }
    if (braces->used_manual && braces->used_automatic)
        run_raise(run, is_number ? "cannot switch from automatic field numbering to manual field "
                                   "specification"
                                 : "cannot switch from manual field specification to automatic "
                                   "field numbering");
    if (index >= braces->args->count) run_raise(run, "tuple index out of range");
    return braces->args->positional[index];
}

/* "name.attribute[key]" */
static Value field_value(Run *run, Braces *braces, Value field)
{
    const String *text = field.as.string;
    size_t at = 0;
    while (at < text->length && text->bytes[at] != '.' && text->bytes[at] != '[')
        at++;
    Value value = first_argument(run, braces, string_slice(run, field, 0, at));
    while (at < text->length) {
        bool is_key = text->bytes[at] == '[';
        size_t begin = ++at;
        while (at < text->length &&
               (is_key ? text->bytes[at] != ']' : text->bytes[at] != '.' && text->bytes[at] != '['))
            at++;
        if (at == begin) run_raise(run, "Empty attribute in format string");
        Value name = string_slice(run, field, begin, at);
        if (!is_key) {
            value = eval_getattr(run, value, name);
            continue;
        }
        if (at == text->length) run_raise(run, "Missing ']' in format string");
        at++;
        if (all_digits(name.as.string)) {
            size_t digits = 0;
            name = value_int(read_number(run, name.as.string, &digits));
        }
        value = eval_getitem(run, value, name);
    }
    return value;
}

static void write_braces(Run *run, Braces *braces, Value format);

/* One replacement field, without its braces: name, then !conversion, then :spec (which may hold
 * fields). */
static void write_field(Run *run, Braces *braces, Value field)
{
    const String *text = field.as.string;
    size_t name_end = 0;
    int bracket = 0;
    while (name_end < text->length &&
           (bracket > 0 || (text->bytes[name_end] != '!' && text->bytes[name_end] != ':'))) {
        bracket += text->bytes[name_end] == '[' ? 1 : text->bytes[name_end] == ']' ? -1 : 0;
        name_end++;
    }
    Value value = field_value(run, braces, string_slice(run, field, 0, name_end));
    size_t at = name_end;
    if (at < text->length && text->bytes[at] == '!') {
        char conversion = at + 1 < text->length ? text->bytes[at + 1] : '\0';
        if (conversion == 'r' || conversion == 'a') {
            buffer_push(run);
            write_repr(run, value);
            value = buffer_pop(run);
        } else if (conversion == 's') {
            value = value_str(run, value);
        } else {
            run_raise(run, "Unknown conversion specifier %c", conversion);
        }
        at += 2;
        if (at < text->length && text->bytes[at] != ':')
            run_raise(run, "expected ':' after conversion specifier");
    }
    Value spec = value_literal(run, "");
    if (at < text->length) {
        buffer_push(run);
        braces->depth++;
        write_braces(run, braces, string_slice(run, field, at + 1, text->length));
        braces->depth--;
        spec = buffer_pop(run);
    }
    if (value.type == VALUE_UNDEFINED && spec.as.string->length > 0)
        run_raise(run, "unsupported format string passed to Undefined.__format__");
    if (braces->format.flags & FLAG_MARKUP && spec.as.string->length == 0)
        value = value_escape(run, value);
    write_formatted(run, value, spec);
}

static void write_braces(Run *run, Braces *braces, Value format)
{
    if (braces->depth > 2) run_raise(run, "Max string recursion exceeded");
    const String *text = format.as.string;
    for (size_t at = 0; at < text->length;) {
        run_step(run, 1);
        char c = text->bytes[at];
        bool doubled = at + 1 < text->length && text->bytes[at + 1] == c;
        if (c != '{' && c != '}') {
            size_t end = at;
            while (end < text->length && text->bytes[end] != '{' && text->bytes[end] != '}')
                end++;
            buffer_write_slice(run, format, at, end);
            at = end;
        } else if (doubled) {
            buffer_write_slice(run, format, at, at + 1);
            at += 2;
        } else if (c == '}') {
            run_raise(run, "Single '}' encountered in format string");
        } else {
            int depth = 1;
            size_t end = at + 1;
            for (; end < text->length && depth > 0; end++)
                depth += text->bytes[end] == '{' ? 1 : text->bytes[end] == '}' ? -1 : 0;
            if (depth > 0)
                run_raise(run, at + 1 == text->length ? "Single '{' encountered in format string"
                                                      : "expected '}' before end of string");
            write_field(run, braces, string_slice(run, format, at + 1, end - 1));
            at = end;
        }
    }
}

Value format_braces(Run *run, Value format, const Args *args)
{
    Braces braces = {.format = format, .args = args};
    buffer_push(run);
    write_braces(run, &braces, format);
    Value formatted = buffer_pop(run);
    formatted.flags = format.flags;
    return formatted;
}
