#include "rollout_worker/reward/math_lex.h"

#include <string.h>

#include "base/utf8.h"
#include "rollout_worker/reward/math_words.h"

#define DELIMITERS_MAX 64

typedef struct Lexer {
    Slice text;
    size_t at;
    MathTokens *out;
    bool spaced;
    int matrices; /* \begin{..matrix} that are open: there, \\ ends a row */
    /* What is open around the place: commas between digits are separators inside of it. A '{' that
     * groups counts as nothing. */
    char open[DELIMITERS_MAX];
    int depth;
    bool full;
} Lexer;

static char peek(const Lexer *lexer, size_t ahead)
{
    size_t at = lexer->at + ahead;
    return at < lexer->text.length ? lexer->text.data[at] : '\0';
}

static void emit(Lexer *lexer, MathTokenKind kind, char mark, Slice text)
{
    MathTokens *out = lexer->out;
    if (out->count == MATH_ANSWER_TOKENS_MAX) {
        lexer->full = true;
        return;
    }
    out->token[out->count++] =
        (MathToken){.kind = kind, .mark = mark, .spaced = lexer->spaced, .text = text};
    lexer->spaced = false;
}

static void emit_mark(Lexer *lexer, char mark)
{
    emit(lexer, TOKEN_CHAR, mark, (Slice){0});
}

static void emit_command(Lexer *lexer, const char *name)
{
    emit(lexer, TOKEN_COMMAND, '\0', slice_from(name));
}

static const MathToken *last_token(const Lexer *lexer)
{
    return lexer->out->count == 0 ? NULL : &lexer->out->token[lexer->out->count - 1];
}

/* A '{' behind a command, '^', '_' or another argument groups; elsewhere it may be a set. */
static bool brace_groups(const Lexer *lexer)
{
    const MathToken *last = last_token(lexer);
    if (last == NULL) return false;
    if (last->kind == TOKEN_COMMAND) return true;
    return last->kind == TOKEN_CHAR && strchr("^_}]", last->mark) != NULL;
}

static void open_delimiter(Lexer *lexer, char mark)
{
    bool groups = mark == '{' && brace_groups(lexer);
    if (lexer->depth < DELIMITERS_MAX) lexer->open[lexer->depth] = groups ? 'g' : mark;
    lexer->depth++;
    emit_mark(lexer, mark);
}

static void close_delimiter(Lexer *lexer, char mark)
{
    if (lexer->depth > 0) lexer->depth--;
    emit_mark(lexer, mark);
}

static bool in_delimiters(const Lexer *lexer)
{
    if (lexer->matrices > 0 || lexer->depth > DELIMITERS_MAX) return true;
    for (int i = 0; i < lexer->depth; i++)
        if (lexer->open[i] != 'g') return true;
    return false;
}

/* Bytes of a thousands separator at offset `ahead`, 0 for none. */
static size_t separator_bytes(const Lexer *lexer, size_t ahead)
{
    static const char *const always[] = {"{,}", ",\\!", "\\,", "\\ ", ",\\,", "~"};
    Slice rest = slice_part(lexer->text, lexer->at + ahead, lexer->text.length);
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++) {
        size_t bytes = strlen(always[i]);
        if (!slice_starts_with(rest, slice_from(always[i]))) continue;
        while (always[i][0] == ',' && byte_is_space(peek(lexer, ahead + bytes)))
            bytes++;
        return bytes;
    }
    bool plain = peek(lexer, ahead) == ',' || peek(lexer, ahead) == ' ';
    return plain && !in_delimiters(lexer) ? 1 : 0;
}

static bool three_digits(const Lexer *lexer, size_t ahead)
{
    for (size_t i = 0; i < 3; i++)
        if (!byte_is_digit(peek(lexer, ahead + i))) return false;
    return !byte_is_digit(peek(lexer, ahead + 3));
}

static void lex_number(Lexer *lexer)
{
    size_t length = 0;
    while (byte_is_digit(peek(lexer, length)))
        length++;
    bool groups = length >= 1 && length <= 3 && peek(lexer, 0) != '0';
    while (groups) {
        size_t separator = separator_bytes(lexer, length);
        if (separator == 0 || !three_digits(lexer, length + separator)) break;
        length += separator + 3;
    }
    if (peek(lexer, length) == '.' && byte_is_digit(peek(lexer, length + 1))) {
        length++;
        while (byte_is_digit(peek(lexer, length)))
            length++;
    } else if (peek(lexer, length) == '.' && length > 0 && peek(lexer, length + 1) == '\\') {
        length++; /* 0.\overline{3} */
    }
    emit(lexer, TOKEN_NUMBER, '\0', slice_part(lexer->text, lexer->at, lexer->at + length));
    lexer->at += length;
}

/* The content of the group that follows, past it; one character when there are no braces. */
static Slice take_group(Lexer *lexer)
{
    while (byte_is_space(peek(lexer, 0)))
        lexer->at++;
    if (peek(lexer, 0) != '{') {
        Slice one = slice_part(lexer->text, lexer->at, lexer->at + 1);
        lexer->at += one.length;
        return one;
    }
    size_t start = lexer->at + 1;
    int depth = 0;
    for (; lexer->at < lexer->text.length; lexer->at++) {
        char byte = lexer->text.data[lexer->at];
        if (byte == '\\') {
            lexer->at++;
            continue;
        }
        if (byte == '{') depth++;
        if (byte == '}' && --depth == 0) break;
    }
    size_t end = lexer->at < lexer->text.length ? lexer->at : lexer->text.length;
    if (lexer->at < lexer->text.length) lexer->at++;
    if (lexer->at > lexer->text.length) lexer->at = lexer->text.length;
    return slice_part(lexer->text, start, end);
}

/* Without white space, brackets and points at the ends: (A) is A. */
static Slice trim_marks(Slice text)
{
    for (;;) {
        Slice trimmed = slice_trim(text);
        if (trimmed.length > 0 && strchr("(.,:[", trimmed.data[0]) != NULL)
            trimmed = slice_part(trimmed, 1, trimmed.length);
        if (trimmed.length > 0 && strchr(").,:]", trimmed.data[trimmed.length - 1]) != NULL)
            trimmed = slice_part(trimmed, 0, trimmed.length - 1);
        if (trimmed.length == text.length) return trimmed;
        text = trimmed;
    }
}

/* A run of letters, in text or plain. True when it means something and was emitted. */
static bool emit_word(Lexer *lexer, Slice word)
{
    if (math_word_is_separator(word)) {
        emit_mark(lexer, ',');
    } else if (math_word_is_percent(word)) {
        emit_mark(lexer, '%');
    } else {
        const char *command = math_word_command(word);
        if (command == NULL) return false;
        emit_command(lexer, command);
    }
    return true;
}

static bool all_digits(Slice text)
{
    for (size_t i = 0; i < text.length; i++)
        if (!byte_is_digit(text.data[i]) && strchr(".,-", text.data[i]) == NULL) return false;
    return text.length > 0;
}

static void lex_text(Lexer *lexer, bool upright)
{
    size_t before = lexer->at;
    Slice content = take_group(lexer);
    if (content.length > 0 && byte_is_space(content.data[0])) lexer->spaced = true;
    Slice word = trim_marks(content);
    if (word.length == 0) return;
    bool transparent =
        all_digits(word) || (!upright && memchr(content.data, '\\', content.length) != NULL);
    if (transparent) {
        lexer->at = before;
        return;
    }
    if (emit_word(lexer, word)) return;
    if (word.length == 1 && byte_is_letter(word.data[0]))
        emit(lexer, TOKEN_LETTER, '\0', word);
    else
        emit(lexer, TOKEN_TEXT, '\0', slice_trim(content));
}

static void lex_environment(Lexer *lexer, bool begins)
{
    Slice name = slice_trim(take_group(lexer));
    bool matrix = slice_find(name, SLICE_OF("matrix")) >= 0 || slice_equal(name, SLICE_OF("array"));
    lexer->matrices += matrix ? (begins ? 1 : -1) : 0;
    if (lexer->matrices < 0) lexer->matrices = 0;
    if (begins && slice_equal(name, SLICE_OF("array"))) take_group(lexer);
    emit_command(lexer, begins ? "begin" : "end");
    emit(lexer, TOKEN_TEXT, '\0', name);
}

static void lex_set_letter(Lexer *lexer)
{
    Slice content = slice_trim(take_group(lexer));
    emit(lexer, content.length == 1 ? TOKEN_SET : TOKEN_TEXT, '\0', content);
}

static void lex_command(Lexer *lexer)
{
    size_t length = 1;
    while (byte_is_letter(peek(lexer, length)))
        length++;
    Slice name = slice_part(lexer->text, lexer->at + 1, lexer->at + length);
    lexer->at += length;
    const MathCommand *known = math_command_find(name);
    if (known == NULL) {
        Slice quad = SLICE_OF("quad"); /* \quadx: the space between them is missing */
        if (slice_starts_with(name, quad)) {
            lexer->at -= name.length - quad.length;
            lexer->spaced = true;
        } else {
            emit(lexer, TOKEN_COMMAND, '\0', name);
        }
        return;
    }
    switch (known->role) {
    case COMMAND_SKIPPED:
        if (peek(lexer, 0) == '.' && known->name[0] != 'd') lexer->at++; /* \left. */
        break;
    case COMMAND_SPACE:
        lexer->spaced = true;
        break;
    case COMMAND_SPACE_GROUP:
        take_group(lexer);
        lexer->spaced = true;
        break;
    case COMMAND_TEXT:
        lex_text(lexer, true);
        break;
    case COMMAND_FONT:
        lex_text(lexer, false);
        break;
    case COMMAND_SET_LETTER:
        lex_set_letter(lexer);
        break;
    case COMMAND_SET:
        emit(lexer, TOKEN_SET, '\0', slice_from(known->means));
        break;
    case COMMAND_MARK:
        if (known->means[0] == MARK_SET_OPEN || strchr("([", known->means[0]) != NULL)
            open_delimiter(lexer, known->means[0]);
        else if (known->means[0] == MARK_SET_CLOSE || strchr(")]", known->means[0]) != NULL)
            close_delimiter(lexer, known->means[0]);
        else
            emit_mark(lexer, known->means[0]);
        break;
    case COMMAND_ALIAS:
        emit_command(lexer, known->means);
        break;
    case COMMAND_BEGIN:
        lex_environment(lexer, true);
        break;
    case COMMAND_END:
        lex_environment(lexer, false);
        break;
    }
}

static void lex_backslash(Lexer *lexer)
{
    char next = peek(lexer, 1);
    if (byte_is_letter(next)) {
        lex_command(lexer);
        return;
    }
    lexer->at += next == '\0' ? 1 : 2;
    switch (next) {
    case '{':
        open_delimiter(lexer, MARK_SET_OPEN);
        break;
    case '}':
        close_delimiter(lexer, MARK_SET_CLOSE);
        break;
    case '%':
        emit_mark(lexer, '%');
        break;
    case '|':
        emit_mark(lexer, '|');
        break;
    case '\\':
        if (lexer->matrices > 0)
            emit_mark(lexer, 'R');
        else if (byte_is_letter(peek(lexer, 0)))
            lexer->at--; /* a backslash that was escaped once too often */
        else
            lexer->spaced = true;
        break;
    case ',':
    case ';':
    case ':':
    case ' ':
        lexer->spaced = true;
        break;
    default: /* \! \$ \( \) \[ \] */
        break;
    }
}

/* Passes over the scale of a temperature behind its degrees. */
static void skip_scale(Lexer *lexer)
{
    static const char *const spellings[] = {
        "\\text{C}",  "\\text{F}",    "\\mathrm{C}",  "\\mathrm{F}", "\\text{ C}",
        "\\text{ F}", "\\mathrm{~C}", "\\mathrm{~F}", "C",           "F"};
    Slice rest = slice_trim(slice_part(lexer->text, lexer->at, lexer->text.length));
    for (size_t i = 0; i < sizeof spellings / sizeof spellings[0]; i++) {
        size_t length = strlen(spellings[i]);
        if (!slice_starts_with(rest, slice_from(spellings[i]))) continue;
        if (rest.length > length && byte_is_letter(rest.data[length])) continue;
        lexer->at = (size_t)(rest.data - lexer->text.data) + length;
        return;
    }
}

/* `^\circ` and its spellings. True when it was one. */
static bool lex_degree(Lexer *lexer)
{
    static const char *const spellings[] = {"\\circ", "\\degree", "\xc2\xb0"};
    size_t ahead = 1;
    while (byte_is_space(peek(lexer, ahead)) || peek(lexer, ahead) == '{')
        ahead++;
    Slice rest = slice_part(lexer->text, lexer->at + ahead, lexer->text.length);
    for (size_t i = 0; i < sizeof spellings / sizeof spellings[0]; i++) {
        if (!slice_starts_with(rest, slice_from(spellings[i]))) continue;
        size_t end = ahead + strlen(spellings[i]);
        if (byte_is_letter(peek(lexer, end))) continue;
        while (byte_is_space(peek(lexer, end)))
            end++;
        bool braced = memchr(lexer->text.data + lexer->at, '{', ahead) != NULL;
        if (braced && peek(lexer, end) != '}') return false;
        lexer->at += end + (braced ? 1 : 0);
        emit_mark(lexer, 'D');
        skip_scale(lexer);
        return true;
    }
    return false;
}

static void lex_letters(Lexer *lexer)
{
    size_t length = 0;
    while (byte_is_letter(peek(lexer, length)))
        length++;
    Slice word = slice_part(lexer->text, lexer->at, lexer->at + length);
    lexer->at += length;
    if (length == 1)
        emit(lexer, TOKEN_LETTER, '\0', word);
    else if (!emit_word(lexer, word))
        emit(lexer, TOKEN_TEXT, 'w', word); /* resolved at the end: product, word or unit */
}

static void lex_unicode(Lexer *lexer)
{
    uint32_t code = 0;
    Slice rest = slice_part(lexer->text, lexer->at, lexer->text.length);
    int bytes = utf8_decode(rest.data, rest.length, &code);
    lexer->at += bytes > 0 ? (size_t)bytes : 1;
    const char *latex = bytes > 0 ? math_unicode_latex(code) : NULL;
    if (latex == NULL) {
        emit(lexer, TOKEN_CHAR, '?', slice_part(rest, 0, bytes > 0 ? (size_t)bytes : 1));
        return;
    }
    /* The spelling is a constant of a few bytes: it is read in place of the sign. */
    Lexer inner = *lexer;
    inner.text = slice_from(latex);
    inner.at = 0;
    while (inner.at < inner.text.length) {
        if (inner.text.data[inner.at] == '\\')
            lex_backslash(&inner);
        else if (byte_is_digit(inner.text.data[inner.at]))
            lex_number(&inner);
        else
            emit_mark(&inner, inner.text.data[inner.at++]);
    }
    lexer->spaced = inner.spaced;
    lexer->full = inner.full;
    lexer->depth = inner.depth;
    memcpy(lexer->open, inner.open, sizeof lexer->open);
}

static void lex_punctuation(Lexer *lexer)
{
    char byte = peek(lexer, 0), next = peek(lexer, 1);
    lexer->at++;
    if (byte == '*' && next == '*') {
        lexer->at++;
        emit_mark(lexer, '^');
    } else if ((byte == '<' || byte == '>' || byte == '!' || byte == '=') && next == '=') {
        lexer->at++;
        if (byte == '=')
            emit_mark(lexer, '=');
        else
            emit_command(lexer, byte == '<' ? "le" : byte == '>' ? "ge" : "ne");
    } else if (strchr("([{", byte) != NULL) {
        open_delimiter(lexer, byte);
    } else if (strchr(")]}", byte) != NULL) {
        close_delimiter(lexer, byte);
    } else if (byte == '~') {
        lexer->spaced = true;
    } else if (byte != '$' && byte != '"' && byte != '`') {
        emit_mark(lexer, byte);
    }
}

static void lex_one(Lexer *lexer)
{
    char byte = peek(lexer, 0);
    if (byte_is_space(byte)) {
        lexer->spaced = true;
        lexer->at++;
    } else if (byte == '\\') {
        lex_backslash(lexer);
    } else if (byte_is_digit(byte) || (byte == '.' && byte_is_digit(peek(lexer, 1)))) {
        lex_number(lexer);
    } else if (byte_is_letter(byte)) {
        lex_letters(lexer);
    } else if ((unsigned char)byte >= 0x80) {
        lex_unicode(lexer);
    } else if (byte != '^' || !lex_degree(lexer)) {
        lex_punctuation(lexer);
    }
}

bool math_token_is_command(const MathToken *token, const char *name)
{
    return token->kind == TOKEN_COMMAND && slice_equal(token->text, slice_from(name));
}

bool math_token_is_mark(const MathToken *token, char mark)
{
    return token->kind == TOKEN_CHAR && token->mark == mark;
}

bool math_tokens_are_letters(const MathTokens *tokens)
{
    for (int i = 0; i < tokens->count; i++) {
        const MathToken *token = &tokens->token[i];
        if (token->kind == TOKEN_TEXT || token->kind == TOKEN_LETTER) continue;
        if (token->kind != TOKEN_CHAR || strchr("().,'-:?", token->mark) == NULL) return false;
    }
    return true;
}

bool math_lex(Slice answer, MathTokens *ret)
{
    ret->count = 0;
    answer = slice_trim(answer);
    if (answer.length > MATH_ANSWER_BYTES_MAX) return false;
    Lexer lexer = {.text = answer, .out = ret};
    while (lexer.at < lexer.text.length && !lexer.full)
        lex_one(&lexer);
    if (lexer.full) return false;
    return math_resolve_words(ret);
}
