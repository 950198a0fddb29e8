#include "rollout_worker/reward/math_words.h"

#include <stdlib.h>
#include <string.h>

#define PRODUCT_LETTERS_MAX 3 /* a longer run of letters on its own is a word, not a product */

/* Sorted by name (strcmp): they are searched by halves. */
static const MathCommand commands[] = {
    {"Big", COMMAND_SKIPPED, NULL},
    {"Bigg", COMMAND_SKIPPED, NULL},
    {"Biggl", COMMAND_SKIPPED, NULL},
    {"Biggr", COMMAND_SKIPPED, NULL},
    {"Bigl", COMMAND_SKIPPED, NULL},
    {"Bigr", COMMAND_SKIPPED, NULL},
    {"C", COMMAND_SET, "C"},
    {"N", COMMAND_SET, "N"},
    {"Q", COMMAND_SET, "Q"},
    {"R", COMMAND_SET, "R"},
    {"Z", COMMAND_SET, "Z"},
    {"ast", COMMAND_MARK, "*"},
    {"backslash", COMMAND_ALIAS, "setminus"},
    {"begin", COMMAND_BEGIN, NULL},
    {"bf", COMMAND_SKIPPED, NULL},
    {"big", COMMAND_SKIPPED, NULL},
    {"bigcup", COMMAND_ALIAS, "cup"},
    {"bigg", COMMAND_SKIPPED, NULL},
    {"biggl", COMMAND_SKIPPED, NULL},
    {"biggr", COMMAND_SKIPPED, NULL},
    {"bigl", COMMAND_SKIPPED, NULL},
    {"bigr", COMMAND_SKIPPED, NULL},
    {"bm", COMMAND_FONT, NULL},
    {"boldsymbol", COMMAND_FONT, NULL},
    {"boxed", COMMAND_SKIPPED, NULL},
    {"cdot", COMMAND_MARK, "*"},
    {"cdots", COMMAND_ALIAS, "ldots"},
    {"cfrac", COMMAND_ALIAS, "frac"},
    {"circ", COMMAND_MARK, "D"},
    {"colon", COMMAND_MARK, ":"},
    {"dbinom", COMMAND_ALIAS, "binom"},
    {"degree", COMMAND_MARK, "D"},
    {"dfrac", COMMAND_ALIAS, "frac"},
    {"displaystyle", COMMAND_SKIPPED, NULL},
    {"div", COMMAND_MARK, "/"},
    {"dots", COMMAND_ALIAS, "ldots"},
    {"dotsc", COMMAND_ALIAS, "ldots"},
    {"end", COMMAND_END, NULL},
    {"enspace", COMMAND_SPACE, NULL},
    {"fbox", COMMAND_SKIPPED, NULL},
    {"geq", COMMAND_ALIAS, "ge"},
    {"geqslant", COMMAND_ALIAS, "ge"},
    {"gt", COMMAND_MARK, ">"},
    {"hbox", COMMAND_TEXT, NULL},
    {"hphantom", COMMAND_SPACE_GROUP, NULL},
    {"hspace", COMMAND_SPACE_GROUP, NULL},
    {"it", COMMAND_SKIPPED, NULL},
    {"land", COMMAND_MARK, ","},
    {"lbrace", COMMAND_MARK, "S"},
    {"lbrack", COMMAND_MARK, "["},
    {"left", COMMAND_SKIPPED, NULL},
    {"leq", COMMAND_ALIAS, "le"},
    {"leqslant", COMMAND_ALIAS, "le"},
    {"limits", COMMAND_SKIPPED, NULL},
    {"lor", COMMAND_MARK, ","},
    {"lparen", COMMAND_MARK, "("},
    {"lt", COMMAND_MARK, "<"},
    {"lvert", COMMAND_MARK, "|"},
    {"mathbb", COMMAND_SET_LETTER, NULL},
    {"mathbf", COMMAND_FONT, NULL},
    {"mathcal", COMMAND_FONT, NULL},
    {"mathit", COMMAND_FONT, NULL},
    {"mathrm", COMMAND_TEXT, NULL},
    {"mathsf", COMMAND_FONT, NULL},
    {"mathtt", COMMAND_FONT, NULL},
    {"mbox", COMMAND_TEXT, NULL},
    {"medspace", COMMAND_SPACE, NULL},
    {"mid", COMMAND_MARK, "|"},
    {"mleft", COMMAND_SKIPPED, NULL},
    {"mright", COMMAND_SKIPPED, NULL},
    {"neq", COMMAND_ALIAS, "ne"},
    {"nolimits", COMMAND_SKIPPED, NULL},
    {"operatorname", COMMAND_TEXT, NULL},
    {"phantom", COMMAND_SPACE_GROUP, NULL},
    {"prime", COMMAND_MARK, "'"},
    {"qquad", COMMAND_SPACE, NULL},
    {"quad", COMMAND_SPACE, NULL},
    {"rbrace", COMMAND_MARK, "Z"},
    {"rbrack", COMMAND_MARK, "]"},
    {"right", COMMAND_SKIPPED, NULL},
    {"rm", COMMAND_SKIPPED, NULL},
    {"rparen", COMMAND_MARK, ")"},
    {"rvert", COMMAND_MARK, "|"},
    {"scriptstyle", COMMAND_SKIPPED, NULL},
    {"smallsetminus", COMMAND_ALIAS, "setminus"},
    {"space", COMMAND_SPACE, NULL},
    {"tbinom", COMMAND_ALIAS, "binom"},
    {"text", COMMAND_TEXT, NULL},
    {"textbf", COMMAND_TEXT, NULL},
    {"textit", COMMAND_TEXT, NULL},
    {"textnormal", COMMAND_TEXT, NULL},
    {"textrm", COMMAND_TEXT, NULL},
    {"textsf", COMMAND_TEXT, NULL},
    {"textstyle", COMMAND_SKIPPED, NULL},
    {"texttt", COMMAND_TEXT, NULL},
    {"tfrac", COMMAND_ALIAS, "frac"},
    {"thinspace", COMMAND_SPACE, NULL},
    {"times", COMMAND_MARK, "*"},
    {"varnothing", COMMAND_ALIAS, "emptyset"},
    {"vert", COMMAND_MARK, "|"},
};

static int compare_command(const void *key, const void *entry)
{
    const Slice *name = key;
    const char *other = ((const MathCommand *)entry)->name;
    size_t length = strlen(other);
    int order = memcmp(name->data, other, name->length < length ? name->length : length);
    if (order != 0) return order;
    return name->length < length ? -1 : name->length > length;
}

const MathCommand *math_command_find(Slice name)
{
    return bsearch(&name, commands, sizeof commands / sizeof commands[0], sizeof commands[0],
                   compare_command);
}

const char *math_unicode_latex(uint32_t code)
{
    static const struct {
        uint32_t code;
        const char *latex;
    } signs[] = {
        {0xa0, "\\ "},          {0xb0, "\\degree"},   {0xb1, "\\pm"},
        {0xb2, "^2"},           {0xb3, "^3"},         {0xb7, "*"},
        {0xb9, "^1"},           {0xbc, "\\frac14"},   {0xbd, "\\frac12"},
        {0xbe, "\\frac34"},     {0xd7, "*"},          {0xf7, "/"},
        {0x393, "\\Gamma"},     {0x394, "\\Delta"},   {0x398, "\\Theta"},
        {0x3a3, "\\Sigma"},     {0x3a6, "\\Phi"},     {0x3a9, "\\Omega"},
        {0x3b1, "\\alpha"},     {0x3b2, "\\beta"},    {0x3b3, "\\gamma"},
        {0x3b4, "\\delta"},     {0x3b5, "\\epsilon"}, {0x3b8, "\\theta"},
        {0x3bb, "\\lambda"},    {0x3bc, "\\mu"},      {0x3c0, "\\pi"},
        {0x3c1, "\\rho"},       {0x3c3, "\\sigma"},   {0x3c4, "\\tau"},
        {0x3c6, "\\phi"},       {0x3c9, "\\omega"},   {0x2009, "\\ "},
        {0x2013, "-"},          {0x2014, "-"},        {0x2018, "\\ "},
        {0x2019, "'"},          {0x201c, "\\ "},      {0x201d, "\\ "},
        {0x202f, "\\ "},        {0x2032, "'"},        {0x20ac, "\\ "},
        {0xa3, "\\ "},          {0x2070, "^0"},       {0x2074, "^4"},
        {0x2075, "^5"},         {0x2076, "^6"},       {0x2102, "\\C"},
        {0x2115, "\\N"},        {0x211a, "\\Q"},      {0x211d, "\\R"},
        {0x2124, "\\Z"},        {0x2153, "\\frac13"}, {0x2154, "\\frac23"},
        {0x2205, "\\emptyset"}, {0x2208, "\\in"},     {0x2212, "-"},
        {0x2216, "\\setminus"}, {0x221a, "\\sqrt"},   {0x221e, "\\infty"},
        {0x2220, "\\angle"},    {0x2229, "\\cap"},    {0x222a, "\\cup"},
        {0x2248, "\\approx"},   {0x2260, "\\ne"},     {0x2264, "\\le"},
        {0x2265, "\\ge"},       {0x22c5, "*"},        {0x2308, "\\lceil"},
        {0x2309, "\\rceil"},    {0x230a, "\\lfloor"}, {0x230b, "\\rfloor"},
        {0x27e8, "\\langle"},   {0x27e9, "\\rangle"},
    };
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++)
        if (signs[i].code == code) return signs[i].latex;
    return NULL;
}

static bool is_among(Slice word, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (slice_equal_fold(word, slice_from(names[i]))) return true;
    return false;
}

#define AMONG(word, names) is_among(word, names, sizeof(names) / sizeof((names)[0]))

const char *math_word_command(Slice word)
{
    static const char *const names[] = {
        "sqrt",   "sin",   "cos",    "tan",    "cot",    "sec",    "csc", "arcsin", "arccos",
        "arctan", "sinh",  "cosh",   "tanh",   "log",    "ln",     "exp", "pi",     "theta",
        "alpha",  "beta",  "lambda", "min",    "max",    "gcd",    "lcm", "frac",   "infty",
        "binom",  "omega", "phi",    "arcsec", "arccsc", "arccot",
    };
    static const char *const infinity[] = {"infinity", "inf"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (slice_equal(word, slice_from(names[i]))) return names[i];
    return AMONG(word, infinity) ? "infty" : NULL;
}

bool math_word_is_separator(Slice word)
{
    static const char *const names[] = {"and", "or"};
    return AMONG(word, names);
}

bool math_word_is_percent(Slice word)
{
    static const char *const names[] = {"percent", "percentage", "pct"};
    return AMONG(word, names);
}

/* Short words that are units and not products; longer words behind a number are units anyway. */
static bool is_short_unit(Slice word)
{
    static const char *const names[] = {
        "cm", "mm",  "km",  "dm",  "ft",  "in",  "yd",  "mi",  "kg",   "mg",   "lb", "lbs",
        "oz", "ml",  "hr",  "hrs", "sec", "min", "mph", "kph", "kmh",  "am",   "pm", "sq",
        "cu", "deg", "rad", "gal", "day", "men", "way", "day", "ways", "days",
    };
    return AMONG(word, names);
}

static bool is_plain_word(const MathToken *token)
{
    return token->kind == TOKEN_TEXT && token->mark == 'w';
}

static bool is_unit_word(const MathToken *token)
{
    if (token->kind != TOKEN_TEXT) return false;
    if (!is_plain_word(token)) return true;
    return is_short_unit(token->text) || (token->spaced && token->text.length >= 4) ||
           token->text.length >= 6;
}

static bool is_value_end(const MathToken *token)
{
    switch (token->kind) {
    case TOKEN_NUMBER:
    case TOKEN_LETTER:
        return true;
    case TOKEN_COMMAND:
        return math_token_is_command(token, "pi") || math_token_is_command(token, "infty");
    case TOKEN_CHAR:
        return strchr(")}]|%D!'", token->mark) != NULL;
    default:
        return false;
    }
}

/* Where the power of a unit that ends at `end` begins, or `end` when there is none: ^2 or ^{2}. */
static int before_power(const MathTokens *tokens, int start, int end)
{
    const MathToken *token = tokens->token;
    if (end - start >= 3 && token[end - 1].kind == TOKEN_NUMBER &&
        math_token_is_mark(&token[end - 2], '^'))
        return end - 2;
    if (end - start >= 5 && math_token_is_mark(&token[end - 1], '}') &&
        token[end - 2].kind == TOKEN_NUMBER && math_token_is_mark(&token[end - 3], '{') &&
        math_token_is_mark(&token[end - 4], '^'))
        return end - 4;
    return end;
}

/* Marks the unit that ends at `end`, if something it can be the unit of begins at `start`. */
static bool mark_unit(MathTokens *tokens, int start, int end, bool (*is_unit)(const MathToken *))
{
    MathToken *token = tokens->token;
    int at = end;
    bool found = false;
    while (at > start) {
        int below = before_power(tokens, start, at);
        if (is_unit(&token[below - 1])) {
            at = below - 1;
            found = true;
        } else if (found && math_token_is_mark(&token[at - 1], '/') && at - 2 > start &&
                   is_unit(&token[before_power(tokens, start, at - 1) - 1])) {
            at--;
        } else if (math_token_is_mark(&token[at - 1], '.')) {
            at--;
        } else {
            break;
        }
    }
    if (!found || at == start || !is_value_end(&token[at - 1])) return false;
    for (int i = at; i < end; i++)
        token[i].unit = true;
    return true;
}

static bool mark_all_units(MathTokens *tokens, bool (*is_unit)(const MathToken *))
{
    bool any = false;
    int start = 0;
    for (int i = 0; i <= tokens->count; i++) {
        const MathToken *token = &tokens->token[i];
        bool ends = i == tokens->count || math_token_is_mark(token, ',') ||
                    math_token_is_mark(token, ';') || math_token_is_mark(token, '=');
        if (!ends) continue;
        any = mark_unit(tokens, start, i, is_unit) || any;
        start = i + 1;
    }
    return any;
}

static bool is_letter_unit(const MathToken *token)
{
    if (token->unit || is_unit_word(token)) return true;
    return token->kind == TOKEN_LETTER && token->spaced &&
           strchr("msgLlhdNJWKCFVA", token->text.data[0]) != NULL;
}

static bool is_rate_letter(const MathToken *token)
{
    return is_letter_unit(token) ||
           (token->kind == TOKEN_LETTER && strchr("msgh", token->text.data[0]) != NULL);
}

bool math_mark_letter_units(MathTokens *tokens)
{
    bool any = mark_all_units(tokens, is_letter_unit);
    for (int i = 2; i < tokens->count && !any; i++) /* 5 m/s */
        if (math_token_is_mark(&tokens->token[i], '/') && tokens->token[i - 1].spaced &&
            is_letter_unit(&tokens->token[i - 1]))
            any = mark_all_units(tokens, is_rate_letter);
    return any;
}

/* `\text{No solution}`, `east`; not `xyz`. */
static bool is_wordy(const MathTokens *tokens)
{
    bool words = false;
    for (int i = 0; i < tokens->count; i++) {
        const MathToken *token = &tokens->token[i];
        words = words || (token->kind == TOKEN_TEXT &&
                          (!is_plain_word(token) || token->text.length > PRODUCT_LETTERS_MAX));
    }
    return words && math_tokens_are_letters(tokens);
}

/* Letters of a run that is a product of variables, one token each. */
static bool split_word(MathTokens *tokens, int at)
{
    MathToken word = tokens->token[at];
    int more = (int)word.text.length - 1;
    if (tokens->count + more > MATH_ANSWER_TOKENS_MAX) return false;
    memmove(&tokens->token[at + 1 + more], &tokens->token[at + 1],
            (size_t)(tokens->count - at - 1) * sizeof(MathToken));
    for (int i = 0; i <= more; i++)
        tokens->token[at + i] =
            (MathToken){.kind = TOKEN_LETTER,
                        .spaced = i == 0 && word.spaced,
                        .text = slice_part(word.text, (size_t)i, (size_t)i + 1)};
    tokens->count += more;
    return true;
}

static void drop_trailing_points(MathTokens *tokens)
{
    while (tokens->count > 0) {
        const MathToken *last = &tokens->token[tokens->count - 1];
        if (!math_token_is_mark(last, '.') && !math_token_is_mark(last, ',') &&
            !math_token_is_mark(last, ';'))
            break;
        tokens->count--;
    }
}

/* A letter U between two intervals is a union. */
static void find_unions(MathTokens *tokens)
{
    for (int i = 1; i + 1 < tokens->count; i++) {
        MathToken *token = &tokens->token[i];
        if (token->kind != TOKEN_LETTER || token->text.data[0] != 'U') continue;
        const MathToken *before = token - 1, *after = token + 1;
        if ((math_token_is_mark(before, ')') || math_token_is_mark(before, ']')) &&
            (math_token_is_mark(after, '(') || math_token_is_mark(after, '[')))
            *token = (MathToken){.kind = TOKEN_COMMAND, .text = SLICE_OF("cup")};
    }
}

bool math_resolve_words(MathTokens *tokens)
{
    drop_trailing_points(tokens);
    find_unions(tokens);
    if (!is_wordy(tokens)) {
        mark_all_units(tokens, is_unit_word);
        for (int i = 0; i < tokens->count; i++) {
            const MathToken *token = &tokens->token[i];
            if (!is_plain_word(token) || token->unit) continue;
            bool product = token->text.length <= PRODUCT_LETTERS_MAX || (i > 0 && !token->spaced);
            if (product && !split_word(tokens, i)) return false;
        }
    }
    tokens->token[tokens->count] = (MathToken){.kind = TOKEN_END};
    return true;
}
