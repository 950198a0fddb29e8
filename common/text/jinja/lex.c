#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "text/jinja/ast.h"
#include "text/jinja/chars.h"

_Noreturn void compile_fail(Compile *compile, int line, const char *format, ...)
{
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    error_set(compile->err, ERR_DATA, "%s:%d: %s", compile->where, line, message);
    longjmp(compile->failed, (int)ERR_DATA);
}

void *compile_alloc(Compile *compile, size_t bytes)
{
    if (bytes > TEMPLATE_COMPILE_BYTES_MAX - compile->bytes) {
        error_set(compile->err, ERR_RESOURCE,
                  "%s: a template that takes more than %zu MiB to compile", compile->where,
                  TEMPLATE_COMPILE_BYTES_MAX >> 20);
        longjmp(compile->failed, (int)ERR_RESOURCE);
    }
    compile->bytes += bytes;
    return arena_alloc(compile->arena, bytes);
}

void compile_work(Compile *compile, uint64_t work)
{
    compile->work += work;
    if (compile->work <= TEMPLATE_COMPILE_WORK_MAX) return;
    error_set(compile->err, ERR_RESOURCE, "%s: a template with too many names", compile->where);
    longjmp(compile->failed, (int)ERR_RESOURCE);
}

/* The source with every line end as '\n' and one at the very end taken off. */
void lexer_init(Lexer *lexer, Compile *compile, const char *source, size_t length)
{
    char *clean = compile_alloc(compile, length + 1);
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        if (source[i] == '\r') {
            clean[used++] = '\n';
            if (i + 1 < length && source[i + 1] == '\n') i++;
        } else {
            clean[used++] = source[i];
        }
    }
    if (used > 0 && clean[used - 1] == '\n') used--;
    clean[used] = '\0';
    *lexer = (Lexer){.compile = compile,
                     .source = clean,
                     .length = used,
                     .line = 1,
                     .state = LEX_ROOT,
                     .line_starting = true,
                     .pending = TOKEN_END};
}

static size_t space_size(const Lexer *lexer, size_t at)
{
    uint32_t code_point;
    int size = utf8_decode(lexer->source + at, lexer->length - at, &code_point);
    return size > 0 && char_is_space(code_point) ? (size_t)size : 0;
}

static size_t skip_spaces(const Lexer *lexer, size_t at)
{
    size_t size;
    while (at < lexer->length && (size = space_size(lexer, at)) > 0)
        at += size;
    return at;
}

/* The end of [begin, end) less the white space before it. */
static size_t strip_end(const Lexer *lexer, size_t begin, size_t end)
{
    while (end > begin) {
        size_t at = end - 1;
        while (at > begin && ((unsigned char)lexer->source[at] & 0xC0) == 0x80)
            at--;
        if (space_size(lexer, at) != end - at) break;
        end = at;
    }
    return end;
}

static bool looking_at(const Lexer *lexer, size_t at, const char *text)
{
    size_t length = strlen(text);
    return lexer->length - at >= length && memcmp(lexer->source + at, text, length) == 0;
}

/* Moves to `end`, counting lines. */
static void advance(Lexer *lexer, size_t end)
{
    for (size_t i = lexer->position; i < end; i++)
        lexer->line += lexer->source[i] == '\n';
    if (end > lexer->position) lexer->line_starting = lexer->source[end - 1] == '\n';
    lexer->position = end;
}

/* Where the text before a tag ends, after what the tag's sign and lstrip_blocks take from it. */
static size_t data_end(const Lexer *lexer, size_t tag, char sign, bool is_variable)
{
    size_t begin = lexer->position;
    if (sign == '-') return strip_end(lexer, begin, tag);
    if (sign == '+' || is_variable) return tag;
    size_t line_begin = tag;
    while (line_begin > begin && lexer->source[line_begin - 1] != '\n')
        line_begin--;
    if (line_begin == begin && !lexer->line_starting) return tag;
    return skip_spaces(lexer, line_begin) >= tag ? line_begin : tag;
}

/* The position behind the end of a tag at `at` ("%}", "-%}" ...), or 0 if there is none here. A tag
 * of blocks swallows one newline behind it. */
static size_t tag_end(const Lexer *lexer, size_t at, const char *mark, bool is_variable)
{
    char signed_mark[4] = {'-', mark[0], mark[1], '\0'};
    if (looking_at(lexer, at, signed_mark)) return skip_spaces(lexer, at + 3);
    signed_mark[0] = '+';
    if (!is_variable && looking_at(lexer, at, signed_mark)) return at + 3;
    if (!looking_at(lexer, at, mark)) return 0;
    at += 2;
    if (!is_variable && at < lexer->length && lexer->source[at] == '\n') at++;
    return at;
}

/* Behind "{% raw %}", whose "{%" and sign end at `at`, or 0 if another tag stands here. */
static size_t raw_begin_end(const Lexer *lexer, size_t at)
{
    at = skip_spaces(lexer, at);
    if (!looking_at(lexer, at, "raw")) return 0;
    at = skip_spaces(lexer, at + 3);
    if (looking_at(lexer, at, "-%}")) return skip_spaces(lexer, at + 3);
    return looking_at(lexer, at, "%}") ? at + 2 : 0;
}

static void set_data(Token *token, const Lexer *lexer, size_t begin, size_t end)
{
    token->type = TOKEN_DATA;
    token->text = (String){
        .bytes = lexer->source + begin, .length = (uint32_t)(end - begin), .chars = CHARS_UNKNOWN};
}

/* A comment that begins where the template ends is none, to Jinja; likewise for raw text. */
static void skip_comment(Lexer *lexer, size_t begin)
{
    if (begin == lexer->length) return;
    for (size_t at = begin; at < lexer->length; at++) {
        size_t end = tag_end(lexer, at, "#}", false);
        if (end > 0) {
            advance(lexer, end);
            return;
        }
    }
    compile_fail(lexer->compile, lexer->line, "Missing end of comment tag");
}

/* The text up to {% endraw %}. */
static void lex_raw(Lexer *lexer, Token *ret)
{
    ret->line = lexer->line;
    if (lexer->position == lexer->length) {
        set_data(ret, lexer, lexer->position, lexer->position);
        lexer->state = LEX_ROOT;
        return;
    }
    for (size_t tag = lexer->position; tag < lexer->length; tag++) {
        if (!looking_at(lexer, tag, "{%")) continue;
        char sign = lexer->source[tag + 2];
        size_t at = tag + 2 + (sign == '-' || sign == '+');
        at = skip_spaces(lexer, at);
        if (!looking_at(lexer, at, "endraw")) continue;
        size_t end = tag_end(lexer, skip_spaces(lexer, at + 6), "%}", false);
        if (end == 0) continue;
        set_data(ret, lexer, lexer->position, data_end(lexer, tag, sign, false));
        advance(lexer, end);
        lexer->state = LEX_ROOT;
        return;
    }
    compile_fail(lexer->compile, lexer->line, "Missing end of raw directive");
}

/* Text outside of tags, up to the next tag; comments are passed over. May return empty data. */
static void lex_root(Lexer *lexer, Token *ret)
{
    ret->line = lexer->line;
    size_t tag = lexer->position;
    while (tag < lexer->length && !looking_at(lexer, tag, "{{") && !looking_at(lexer, tag, "{%") &&
           !looking_at(lexer, tag, "{#"))
        tag++;
    if (tag >= lexer->length) {
        set_data(ret, lexer, lexer->position, lexer->length);
        advance(lexer, lexer->length);
        return;
    }
    char kind = lexer->source[tag + 1], sign = lexer->source[tag + 2];
    bool is_signed = sign == '-' || sign == '+';
    size_t inside = tag + 2 + is_signed;
    set_data(ret, lexer, lexer->position, data_end(lexer, tag, sign, kind == '{'));
    advance(lexer, inside);
    if (kind == '#') {
        skip_comment(lexer, inside);
        return;
    }
    size_t raw = kind == '%' ? raw_begin_end(lexer, inside) : 0;
    if (raw > 0) {
        advance(lexer, raw);
        lexer->state = LEX_RAW;
        return;
    }
    lexer->pending = kind == '{' ? TOKEN_VARIABLE_BEGIN : TOKEN_BLOCK_BEGIN;
}

static bool is_word_char(uint32_t code_point)
{
    if (code_point < 0x80)
        return (code_point >= '0' && code_point <= '9') || code_point == '_' ||
               ((code_point | 32) >= 'a' && (code_point | 32) <= 'z');
    switch (utf8proc_category((utf8proc_int32_t)code_point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

static size_t word_end(const Lexer *lexer, size_t at)
{
    while (at < lexer->length) {
        uint32_t code_point;
        int size = utf8_decode(lexer->source + at, lexer->length - at, &code_point);
        if (size == 0 || !is_word_char(code_point)) break;
        at += (size_t)size;
    }
    return at;
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

/* Behind digits that may have single underscores between them; `at` itself if there are none. */
static size_t digits_end(const Lexer *lexer, size_t at, int base)
{
    size_t end = at;
    while (at < lexer->length) {
        if (lexer->source[at] == '_' && at == end && at > 0 &&
            is_word_char((unsigned char)lexer->source[at - 1]))
            at++;
        int c = lexer->source[at] | 32;
        int digit = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : base;
        if (digit >= base) break;
        end = ++at;
    }
    return end;
}

/* Behind a float that begins at `at`, or 0: digits, then a fraction or an exponent or both. */
static size_t float_end(const Lexer *lexer, size_t at)
{
    if (at > 0 && lexer->source[at - 1] == '.') return 0;
    size_t end = digits_end(lexer, at, 10);
    bool is_float = false;
    if (end < lexer->length && lexer->source[end] == '.' && end + 1 < lexer->length &&
        is_digit(lexer->source[end + 1])) {
        end = digits_end(lexer, end + 1, 10);
        is_float = true;
    }
    if (end < lexer->length && (lexer->source[end] | 32) == 'e') {
        size_t exponent = end + 1;
        if (exponent < lexer->length &&
            (lexer->source[exponent] == '+' || lexer->source[exponent] == '-'))
            exponent++;
        if (exponent < lexer->length && is_digit(lexer->source[exponent])) {
            end = digits_end(lexer, exponent, 10);
            is_float = true;
        }
    }
    return is_float ? end : 0;
}

static size_t integer_end(const Lexer *lexer, size_t at, int *ret_base)
{
    *ret_base = 10;
    if (lexer->source[at] != '0') return digits_end(lexer, at, 10);
    int mark = at + 1 < lexer->length ? lexer->source[at + 1] | 32 : 0;
    int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (base != 0) {
        size_t first = at + 2;
        if (first < lexer->length && lexer->source[first] == '_') first++;
        size_t end = digits_end(lexer, first, base);
        if (end > first) {
            *ret_base = base;
            return end;
        }
    }
    return digits_end(lexer, at, 1); /* zeros only */
}

static void lex_number(Lexer *lexer, Token *ret)
{
    size_t begin = lexer->position;
    int base = 10;
    size_t end = float_end(lexer, begin);
    bool is_float = end > 0;
    if (!is_float) end = integer_end(lexer, begin, &base);
    char *digits = compile_alloc(lexer->compile, end - begin + 1);
    size_t used = 0;
    for (size_t i = begin + (base != 10 ? 2 : 0); i < end; i++)
        if (lexer->source[i] != '_') digits[used++] = lexer->source[i];
    ret->type = is_float ? TOKEN_FLOAT : TOKEN_INTEGER;
    if (is_float) {
        ret->real = strtod(digits, NULL);
    } else {
        errno = 0;
        ret->integer = strtoll(digits, NULL, base);
        if (errno == ERANGE)
            compile_fail(lexer->compile, ret->line, "the number %s is too large", digits);
    }
    advance(lexer, end);
}

/* Reads `count` hexadecimal digits (or up to three octal ones) of an escape. */
static uint32_t escape_digits(Lexer *lexer, const char *text, size_t left, int count, int base,
                              size_t *ret_used)
{
    uint32_t value = 0;
    size_t used = 0;
    while (used < (size_t)count && used < left) {
        int c = (unsigned char)text[used];
        int digit = is_digit(c)                          ? c - '0'
                    : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                         : 99;
        if (digit >= base) break;
        value = value * (uint32_t)base + (uint32_t)digit;
        used++;
    }
    if (base == 16 && used < (size_t)count)
        compile_fail(lexer->compile, lexer->line, "truncated \\%s escape",
                     count == 2   ? "xXX"
                     : count == 4 ? "uXXXX"
                                  : "UXXXXXXXX");
    *ret_used = used;
    return value;
}

/* One escape of a Python string literal; returns how many bytes behind the backslash it took. */
static size_t unescape_one(Lexer *lexer, const char *text, size_t left, char *out, size_t *used)
{
    static const char plain[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
    if (text[0] == '\n') return 1;
    for (size_t i = 0; plain[i] != '\0'; i += 2)
        if (text[0] == plain[i]) {
            out[(*used)++] = plain[i + 1];
            return 1;
        }
    size_t taken = 0;
    uint32_t code_point;
    if (text[0] == 'x' || text[0] == 'u' || text[0] == 'U') {
        int count = text[0] == 'x' ? 2 : text[0] == 'u' ? 4 : 8;
        code_point = escape_digits(lexer, text + 1, left - 1, count, 16, &taken);
        taken++;
    } else if (text[0] >= '0' && text[0] <= '7') {
        code_point = escape_digits(lexer, text, left, 3, 8, &taken);
    } else if (text[0] == 'N' && left > 1 && text[1] == '{') {
        compile_fail(lexer->compile, lexer->line, "\\N{...} escapes are not supported");
    } else {
        out[(*used)++] = '\\';
        return 0;
    }
    if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000))
        compile_fail(lexer->compile, lexer->line, "illegal Unicode character");
    *used += (size_t)utf8_encode(code_point, out + *used);
    return taken;
}

/* What stands here begins no token. */
static _Noreturn void fail_at_char(Lexer *lexer)
{
    const char *text = lexer->source + lexer->position;
    uint32_t code_point;
    int size = utf8_decode(text, lexer->length - lexer->position, &code_point);
    size_t chars = 0;
    for (size_t i = 0; i < lexer->position; i++)
        chars += ((unsigned char)lexer->source[i] & 0xC0) != 0x80;
    char quote = *text == '\'' ? '"' : '\'';
    compile_fail(lexer->compile, lexer->line, "unexpected char %c%.*s%c at %zu", quote,
                 size > 0 ? size : 1, text, quote, chars);
}

static void lex_string(Lexer *lexer, Token *ret)
{
    char quote = lexer->source[lexer->position];
    size_t begin = lexer->position + 1, end = begin;
    while (end < lexer->length && lexer->source[end] != quote)
        end += lexer->source[end] == '\\' ? 2 : 1;
    if (end >= lexer->length) fail_at_char(lexer);
    char *out = compile_alloc(lexer->compile, 2 * (end - begin) + 1);
    size_t used = 0;
    for (size_t i = begin; i < end;) {
        char c = lexer->source[i++];
        if (c != '\\') {
            out[used++] = c;
        } else {
            i += unescape_one(lexer, lexer->source + i, end - i, out, &used);
        }
    }
    ret->type = TOKEN_STRING;
    ret->text = (String){.bytes = out, .length = (uint32_t)used, .chars = CHARS_UNKNOWN};
    advance(lexer, end + 1);
}

static const struct {
    const char *text;
    TokenType type;
} operators[] = {
    {"//", TOKEN_FLOORDIV}, {"**", TOKEN_POW},      {"==", TOKEN_EQ},    {"!=", TOKEN_NE},
    {">=", TOKEN_GTEQ},     {"<=", TOKEN_LTEQ},     {"+", TOKEN_ADD},    {"-", TOKEN_SUB},
    {"/", TOKEN_DIV},       {"*", TOKEN_MUL},       {"%", TOKEN_MOD},    {"~", TOKEN_TILDE},
    {"[", TOKEN_LBRACKET},  {"]", TOKEN_RBRACKET},  {"(", TOKEN_LPAREN}, {")", TOKEN_RPAREN},
    {"{", TOKEN_LBRACE},    {"}", TOKEN_RBRACE},    {">", TOKEN_GT},     {"<", TOKEN_LT},
    {"=", TOKEN_ASSIGN},    {".", TOKEN_DOT},       {":", TOKEN_COLON},  {"|", TOKEN_PIPE},
    {",", TOKEN_COMMA},     {";", TOKEN_SEMICOLON},
};

static void balance(Lexer *lexer, char bracket)
{
    if (strchr("([{", bracket) != NULL) {
        if (lexer->num_open == TEMPLATE_NESTING_MAX)
            compile_fail(lexer->compile, lexer->line, "more than %d brackets inside each other",
                         TEMPLATE_NESTING_MAX);
        lexer->open[lexer->num_open++] = bracket == '(' ? ')' : bracket == '[' ? ']' : '}';
    } else if (strchr(")]}", bracket) != NULL) {
        if (lexer->num_open == 0)
            compile_fail(lexer->compile, lexer->line, "unexpected '%c'", bracket);
        char expected = lexer->open[--lexer->num_open];
        if (expected != bracket)
            compile_fail(lexer->compile, lexer->line, "unexpected '%c', expected '%c'", bracket,
                         expected);
    }
}

static void lex_operator(Lexer *lexer, Token *ret)
{
    for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++) {
        if (!looking_at(lexer, lexer->position, operators[i].text)) continue;
        balance(lexer, operators[i].text[0]);
        ret->type = operators[i].type;
        advance(lexer, lexer->position + strlen(operators[i].text));
        return;
    }
    fail_at_char(lexer);
}

/* A token inside {{ }} or {% %}. */
static void lex_tag(Lexer *lexer, Token *ret)
{
    bool is_variable = lexer->state == LEX_VARIABLE;
    for (;;) {
        ret->line = lexer->line;
        if (lexer->position >= lexer->length) {
            ret->type = TOKEN_END;
            return;
        }
        size_t end = lexer->num_open > 0
                         ? 0
                         : tag_end(lexer, lexer->position, is_variable ? "}}" : "%}", is_variable);
        if (end > 0) {
            ret->type = is_variable ? TOKEN_VARIABLE_END : TOKEN_BLOCK_END;
            advance(lexer, end);
            lexer->state = LEX_ROOT;
            return;
        }
        end = skip_spaces(lexer, lexer->position);
        if (end == lexer->position) break;
        advance(lexer, end);
    }
    char c = lexer->source[lexer->position];
    if (is_digit(c)) {
        lex_number(lexer, ret);
        return;
    }
    size_t end = word_end(lexer, lexer->position);
    if (end > lexer->position) {
        ret->type = TOKEN_NAME;
        ret->text = (String){.bytes = lexer->source + lexer->position,
                             .length = (uint32_t)(end - lexer->position),
                             .chars = CHARS_UNKNOWN};
        advance(lexer, end);
    } else if (c == '"' || c == '\'') {
        lex_string(lexer, ret);
    } else {
        lex_operator(lexer, ret);
    }
}

void lexer_next(Lexer *lexer, Token *ret)
{
    *ret = (Token){.type = TOKEN_END, .line = lexer->line};
    if (lexer->pending != TOKEN_END) {
        ret->type = lexer->pending;
        lexer->state = lexer->pending == TOKEN_BLOCK_BEGIN ? LEX_BLOCK : LEX_VARIABLE;
        lexer->pending = TOKEN_END;
        return;
    }
    if (lexer->state == LEX_BLOCK || lexer->state == LEX_VARIABLE) {
        lex_tag(lexer, ret);
        return;
    }
    while (lexer->position < lexer->length || lexer->state == LEX_RAW) {
        if (lexer->state == LEX_RAW) {
            lex_raw(lexer, ret);
        } else {
            lex_root(lexer, ret);
        }
        if (ret->text.length > 0) return;
        if (lexer->pending != TOKEN_END) {
            lexer_next(lexer, ret);
            return;
        }
    }
    *ret = (Token){.type = TOKEN_END, .line = lexer->line};
}

const char *token_type_name(TokenType type)
{
    switch (type) {
    case TOKEN_END:
        return "end of template";
    case TOKEN_DATA:
        return "template data / text";
    case TOKEN_VARIABLE_BEGIN:
        return "begin of print statement";
    case TOKEN_VARIABLE_END:
        return "end of print statement";
    case TOKEN_BLOCK_BEGIN:
        return "begin of statement block";
    case TOKEN_BLOCK_END:
        return "end of statement block";
    case TOKEN_NAME:
        return "name";
    case TOKEN_STRING:
        return "string";
    case TOKEN_INTEGER:
        return "integer";
    case TOKEN_FLOAT:
        return "float";
    default:
        for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++)
            if (operators[i].type == type) return operators[i].text;
        return "?";
    }
}

const char *token_describe(Compile *compile, const Token *token)
{
    if (token->type != TOKEN_NAME) return token_type_name(token->type);
    return arena_printf(compile->arena, "%.*s", (int)token->text.length, token->text.bytes);
}
