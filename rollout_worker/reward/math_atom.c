/* The smallest parts of an answer: numbers, names, fractions, functions, brackets, matrices. */
#include <stdlib.h>
#include <string.h>

#include "rollout_worker/reward/math_parse.h"

static const MathToken *here(const MathParser *parser)
{
    return &parser->token[parser->at];
}

static MathNode *number_node(MathParser *parser, Slice text)
{
    MathNode *node = math_parser_node(parser, NODE_NUMBER, 0);
    if (node != NULL) node->text = text;
    return node;
}

static MathNode *symbol_node(MathParser *parser, Slice name)
{
    MathNode *node = math_parser_node(parser, NODE_SYMBOL, 0);
    if (node == NULL) return NULL;
    char *lower = arena_strndup(parser->arena, name.data, name.length);
    for (size_t i = 0; i < name.length; i++)
        lower[i] = byte_lower(lower[i]);
    node->text = (Slice){lower, name.length};
    return node;
}

/* The spelling of tokens [start, end), for names that are made of several. */
static Slice spelling(MathParser *parser, const char *prefix, int start, int end)
{
    size_t bytes = strlen(prefix);
    for (int i = start; i < end; i++)
        bytes += parser->token[i].text.length + 1;
    char *text = arena_alloc(parser->arena, bytes + 1);
    size_t length = strlen(prefix);
    memcpy(text, prefix, length);
    for (int i = start; i < end; i++) {
        const MathToken *token = &parser->token[i];
        if (token->kind == TOKEN_CHAR && token->mark != '{' && token->mark != '}')
            text[length++] = token->mark;
        if (token->text.length > 0) memcpy(text + length, token->text.data, token->text.length);
        length += token->text.length;
    }
    return (Slice){text, length};
}

/* Passes a bracketed group without reading it. False when it does not end. */
static bool skip_brackets(MathParser *parser, char open, char close)
{
    int depth = 0;
    for (;; parser->at++) {
        if (here(parser)->kind == TOKEN_END) return false;
        if (math_token_is_mark(here(parser), open)) depth++;
        if (math_token_is_mark(here(parser), close) && --depth == 0) break;
    }
    parser->at++;
    return true;
}

/* Passes `_x` or `_{...}`. */
static bool skip_subscript(MathParser *parser)
{
    parser->at++;
    if (math_token_is_mark(here(parser), '{')) return skip_brackets(parser, '{', '}');
    if (here(parser)->kind == TOKEN_END) return false;
    parser->at++;
    return true;
}

MathNode *math_parse_group(MathParser *parser)
{
    MathToken *token = &parser->token[parser->at];
    if (token->kind != TOKEN_NUMBER || token->text.length < 2) return math_parse_atom(parser);
    Slice digit = slice_part(token->text, 0, 1); /* \frac12: the first digit is the argument */
    token->text = slice_part(token->text, 1, token->text.length);
    return number_node(parser, digit);
}

static MathNode *parse_number(MathParser *parser)
{
    MathNode *node = number_node(parser, here(parser)->text);
    parser->at++;
    if (node == NULL) return NULL;
    const MathToken *token = here(parser);
    if (math_token_is_command(token, "overline") && math_token_is_mark(&token[1], '{') &&
        token[2].kind == TOKEN_NUMBER && math_token_is_mark(&token[3], '}')) {
        if (memchr(node->text.data, '.', node->text.length) == NULL) return NULL;
        node->repeat = token[2].text;
        parser->at += 4;
    }
    if (math_token_is_mark(here(parser), '_')) {
        int start = parser->at + 1;
        if (!skip_subscript(parser)) return NULL;
        for (int i = start; i < parser->at; i++)
            if (parser->token[i].kind == TOKEN_NUMBER && parser->token[i].text.length < 4)
                node->base = atoi(arena_strndup(parser->arena, parser->token[i].text.data,
                                                parser->token[i].text.length));
    }
    return node;
}

/* A name with its subscript and primes; f(x) as a whole is a name too. */
static MathNode *parse_name(MathParser *parser)
{
    int start = parser->at;
    const MathToken *token = here(parser);
    char letter = token->kind == TOKEN_LETTER ? token->text.data[0] : '\0';
    parser->at++;
    if (math_token_is_mark(here(parser), '_') && !skip_subscript(parser)) return NULL;
    while (math_token_is_mark(here(parser), '\''))
        parser->at++;
    bool plain = parser->at == start + 1;
    if (plain && letter == 'e') return math_parser_node(parser, NODE_E, 0);
    if (plain && letter == 'i') return math_parser_node(parser, NODE_I, 0);
    bool called = letter != '\0' && strchr("fghFG", letter) != NULL;
    if (called && math_token_is_mark(here(parser), '(') && !skip_brackets(parser, '(', ')'))
        return NULL;
    return symbol_node(parser, spelling(parser, "", start, parser->at));
}

/* \overline{AB}, \vec{v}: names. */
static MathNode *parse_accent(MathParser *parser, const char *prefix)
{
    int start = ++parser->at;
    if (math_token_is_mark(here(parser), '{')) {
        if (!skip_brackets(parser, '{', '}')) return NULL;
    } else if (here(parser)->kind != TOKEN_END) {
        parser->at++;
    }
    if (math_token_is_mark(here(parser), '_') && !skip_subscript(parser)) return NULL;
    return symbol_node(parser, spelling(parser, prefix, start, parser->at));
}

/* The fraction's lower number: all of its digits, as people write \frac1{10} without braces. */
static MathNode *parse_lower(MathParser *parser)
{
    return here(parser)->kind == TOKEN_NUMBER ? parse_number(parser) : math_parse_group(parser);
}

static MathNode *parse_fraction(MathParser *parser, MathKind kind)
{
    parser->at++;
    MathNode *upper = math_parse_group(parser);
    MathNode *lower = upper == NULL ? NULL : parse_lower(parser);
    if (kind == NODE_DIV) return math_parser_pair(parser, NODE_DIV, upper, lower);
    return lower == NULL ? NULL : math_parser_function(parser, FUNCTION_BINOM, upper, lower);
}

static MathNode *parse_root(MathParser *parser)
{
    bool word = here(parser)->mark == 'w';
    parser->at++;
    MathNode *index = NULL;
    if (math_parser_take(parser, '[')) {
        index = math_parse_sum(parser);
        if (index == NULL || !math_parser_take(parser, ']')) return NULL;
    }
    MathNode *inside = word && here(parser)->kind == TOKEN_NUMBER ? parse_number(parser)
                                                                  : math_parse_group(parser);
    if (index == NULL) index = number_node(parser, SLICE_OF("2"));
    return index == NULL ? NULL : math_parser_function(parser, FUNCTION_ROOT, inside, index);
}

static const struct {
    const char *name;
    MathFunction function;
    MathFunction inverse; /* of sin^{-1}; the same function when there is none */
} functions[] = {
    {"sin", FUNCTION_SIN, FUNCTION_ARCSIN},       {"cos", FUNCTION_COS, FUNCTION_ARCCOS},
    {"tan", FUNCTION_TAN, FUNCTION_ARCTAN},       {"cot", FUNCTION_COT, FUNCTION_ARCCOT},
    {"sec", FUNCTION_SEC, FUNCTION_ARCSEC},       {"csc", FUNCTION_CSC, FUNCTION_ARCCSC},
    {"arcsin", FUNCTION_ARCSIN, FUNCTION_ARCSIN}, {"arccos", FUNCTION_ARCCOS, FUNCTION_ARCCOS},
    {"arctan", FUNCTION_ARCTAN, FUNCTION_ARCTAN}, {"arccot", FUNCTION_ARCCOT, FUNCTION_ARCCOT},
    {"arcsec", FUNCTION_ARCSEC, FUNCTION_ARCSEC}, {"arccsc", FUNCTION_ARCCSC, FUNCTION_ARCCSC},
    {"sinh", FUNCTION_SINH, FUNCTION_SINH},       {"cosh", FUNCTION_COSH, FUNCTION_COSH},
    {"tanh", FUNCTION_TANH, FUNCTION_TANH},       {"ln", FUNCTION_LN, FUNCTION_LN},
    {"log", FUNCTION_LOG, FUNCTION_LOG},          {"exp", FUNCTION_EXP, FUNCTION_EXP},
    {"gcd", FUNCTION_GCD, FUNCTION_GCD},          {"lcm", FUNCTION_LCM, FUNCTION_LCM},
    {"max", FUNCTION_MAX, FUNCTION_MAX},          {"min", FUNCTION_MIN, FUNCTION_MIN},
};

static bool is_trigonometric(MathFunction function)
{
    return function >= FUNCTION_SIN && function <= FUNCTION_CSC;
}

static bool is_minus_one(const MathNode *node)
{
    return node != NULL && node->kind == NODE_NEG && node->arg[0]->kind == NODE_NUMBER &&
           slice_equal(node->arg[0]->text, SLICE_OF("1"));
}

/* The exponent behind a '^' that was passed. */
static MathNode *parse_exponent(MathParser *parser)
{
    bool negative = math_parser_take(parser, '-');
    MathNode *exponent =
        here(parser)->kind == TOKEN_NUMBER ? parse_number(parser) : math_parse_group(parser);
    if (!negative || exponent == NULL) return exponent;
    MathNode *node = math_parser_node(parser, NODE_NEG, 1);
    if (node != NULL) node->arg[0] = exponent;
    return node;
}

static MathNode *parse_argument(MathParser *parser)
{
    if (math_token_is_mark(here(parser), '(')) {
        parser->at++;
        MathNode *inside = math_parse_sum(parser);
        return inside != NULL && math_parser_take(parser, ')') ? inside : NULL;
    }
    if (math_parser_take(parser, '-')) {
        MathNode *node = math_parser_node(parser, NODE_NEG, 1);
        MathNode *inside = math_parse_product(parser, false);
        if (node == NULL || inside == NULL) return NULL;
        node->arg[0] = inside;
        return node;
    }
    return math_parse_product(parser, false);
}

static MathNode *parse_many(MathParser *parser, MathFunction function)
{
    char closer = 0;
    if (!math_parser_take(parser, '(')) return NULL;
    MathNode *node = math_parse_elements(parser, NODE_FUNCTION, ")", &closer);
    if (node == NULL || node->count == 0) return NULL;
    node->op = (int)function;
    return node;
}

static MathNode *parse_function(MathParser *parser, size_t row)
{
    MathFunction function = functions[row].function;
    parser->at++;
    if (function >= FUNCTION_GCD && function <= FUNCTION_MIN) return parse_many(parser, function);
    MathNode *base = NULL, *power = NULL;
    if (math_parser_take(parser, '_')) {
        base = math_parse_group(parser);
        if (base == NULL || function != FUNCTION_LOG) return NULL;
    }
    if (math_parser_take(parser, '^')) {
        power = parse_exponent(parser);
        if (power == NULL) return NULL;
        if (is_minus_one(power) && functions[row].inverse != function) {
            function = functions[row].inverse;
            power = NULL;
        }
    }
    if (function == FUNCTION_LOG && base == NULL) base = number_node(parser, SLICE_OF("10"));
    bool trig = is_trigonometric(function);
    parser->trig += trig;
    MathNode *argument = parse_argument(parser);
    parser->trig -= trig;
    MathNode *node = math_parser_function(parser, function, argument, base);
    return power == NULL ? node : math_parser_pair(parser, NODE_POW, node, power);
}

static MathNode *parse_enclosed(MathParser *parser, MathFunction function, const char *closer)
{
    parser->at++;
    MathNode *inside = math_parse_sum(parser);
    if (inside == NULL || !math_token_is_command(here(parser), closer)) return NULL;
    parser->at++;
    return math_parser_function(parser, function, inside, NULL);
}

static bool ends_matrix(const MathParser *parser)
{
    return math_token_is_command(here(parser), "end");
}

static MathNode *parse_matrix(MathParser *parser)
{
    parser->at += 2; /* \begin and the name */
    const MathToken *name = here(parser) - 1;
    bool known = slice_find(name->text, SLICE_OF("matrix")) >= 0 ||
                 slice_equal(name->text, SLICE_OF("array"));
    bool determinant = slice_find(name->text, SLICE_OF("vmatrix")) == 0;
    if (name->kind != TOKEN_TEXT || !known || determinant) return NULL;
    MathNode *entry[256];
    int count = 0, columns = 0, column = 0;
    while (!ends_matrix(parser)) {
        if (count == 256 || (entry[count] = math_parse_sum(parser)) == NULL) return NULL;
        count++;
        column++;
        if (math_parser_take(parser, '&')) continue;
        if (columns == 0) columns = column;
        if (column != columns) return NULL;
        column = 0;
        if (!math_parser_take(parser, 'R') && !ends_matrix(parser)) return NULL;
    }
    parser->at += here(parser)[1].kind == TOKEN_TEXT ? 2 : 1;
    MathNode *node = count == 0 ? NULL : math_parser_node(parser, NODE_MATRIX, count);
    if (node == NULL) return NULL;
    memcpy(node->arg, entry, (size_t)count * sizeof entry[0]);
    node->op = columns;
    return node;
}

static MathNode *parse_angle_brackets(MathParser *parser)
{
    parser->at++;
    MathNode *entry[64];
    int count = 0;
    do {
        if (count == 64 || (entry[count] = math_parse_sum(parser)) == NULL) return NULL;
        count++;
    } while (math_parser_take(parser, ','));
    if (!math_token_is_command(here(parser), "rangle")) return NULL;
    parser->at++;
    MathNode *node = math_parser_node(parser, NODE_TUPLE, count);
    if (node != NULL) memcpy(node->arg, entry, (size_t)count * sizeof entry[0]);
    return node;
}

static MathNode *parse_command(MathParser *parser)
{
    static const char *const accents[] = {"overline", "bar",       "vec",
                                          "hat",      "tilde",     "overrightarrow",
                                          "widehat",  "widetilde", "underline"};
    static const char
        *const names[] =
            {
                "alpha", "beta",  "gamma", "delta",   "epsilon",  "varepsilon", "zeta",
                "eta",   "theta", "kappa", "lambda",  "mu",       "nu",         "xi",
                "rho",   "sigma", "tau",   "upsilon", "phi",      "varphi",     "chi",
                "psi",   "omega", "Gamma", "Delta",   "Theta",    "Lambda",     "Sigma",
                "Phi",   "Psi",   "Omega", "angle",   "triangle", "ell",        "iota",
                "hbar",  "sum",   "int",   "lim", /* linear: what they apply to is a factor of them
                                                   */
            };
    const MathToken *token = here(parser);
    if (math_token_is_command(token, "frac")) return parse_fraction(parser, NODE_DIV);
    if (math_token_is_command(token, "binom")) return parse_fraction(parser, NODE_FUNCTION);
    if (math_token_is_command(token, "sqrt")) return parse_root(parser);
    if (math_token_is_command(token, "begin")) return parse_matrix(parser);
    if (math_token_is_command(token, "lfloor"))
        return parse_enclosed(parser, FUNCTION_FLOOR, "rfloor");
    if (math_token_is_command(token, "lceil"))
        return parse_enclosed(parser, FUNCTION_CEIL, "rceil");
    if (math_token_is_command(token, "langle")) return parse_angle_brackets(parser);
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (math_token_is_command(token, functions[i].name)) return parse_function(parser, i);
    for (size_t i = 0; i < sizeof accents / sizeof accents[0]; i++)
        if (math_token_is_command(token, accents[i])) return parse_accent(parser, accents[i]);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (math_token_is_command(token, names[i])) return parse_name(parser);
    MathKind kind = math_token_is_command(token, "pi")         ? NODE_PI
                    : math_token_is_command(token, "infty")    ? NODE_INFINITY
                    : math_token_is_command(token, "emptyset") ? NODE_NAMED_SET
                                                               : NODE_TEXT;
    if (kind == NODE_TEXT) return NULL;
    parser->at++;
    return math_parser_node(parser, kind, 0);
}

static MathNode *parse_brackets(MathParser *parser, char open)
{
    char closer = 0;
    const char *closers = open == '{' ? "}" : open == MARK_SET_OPEN ? "Z" : ")]";
    parser->at++;
    MathNode *node = math_parse_elements(parser, NODE_TUPLE, closers, &closer);
    if (node == NULL) return NULL;
    if (open == MARK_SET_OPEN || (open == '{' && node->count > 1)) {
        node->kind = node->count == 0 ? NODE_NAMED_SET : NODE_SET;
        return node;
    }
    if (node->count == 0) return NULL;
    if (node->count == 1) return node->arg[0];
    if (node->count == 2 && node->arg[0]->kind != NODE_RELATION) {
        node->kind = NODE_INTERVAL;
        node->op = (open == '[' ? 1 : 0) | (closer == ']' ? 2 : 0);
    }
    return node;
}

static MathNode *parse_bars(MathParser *parser)
{
    parser->at++;
    parser->bars++;
    MathNode *inside = math_parse_sum(parser);
    parser->bars--;
    if (inside == NULL || !math_parser_take(parser, '|')) return NULL;
    return math_parser_function(parser, FUNCTION_ABS, inside, NULL);
}

static MathNode *parse_bare_atom(MathParser *parser)
{
    const MathToken *token = here(parser);
    switch (token->kind) {
    case TOKEN_NUMBER:
        return parse_number(parser);
    case TOKEN_LETTER:
    case TOKEN_TEXT:
        return parse_name(parser);
    case TOKEN_COMMAND:
        return parse_command(parser);
    case TOKEN_SET: {
        MathNode *node = math_parser_node(parser, NODE_NAMED_SET, 0);
        if (node == NULL || strchr("NZQRC", token->text.data[0]) == NULL) return NULL;
        node->op = token->text.data[0];
        parser->at++;
        return node;
    }
    case TOKEN_CHAR:
        if (token->mark == '|') return parse_bars(parser);
        if (token->mark != '\0' && strchr("([{S", token->mark) != NULL)
            return parse_brackets(parser, token->mark);
        return NULL;
    default:
        return NULL;
    }
}

/* x degrees, which matter only where an angle is asked for. */
static MathNode *in_degrees(MathParser *parser, MathNode *node)
{
    if (parser->trig == 0) return node;
    MathNode *ratio = math_parser_pair(parser, NODE_DIV, math_parser_node(parser, NODE_PI, 0),
                                       number_node(parser, SLICE_OF("180")));
    return math_parser_pair(parser, NODE_MUL, node, ratio);
}

MathNode *math_parse_atom(MathParser *parser)
{
    if (++parser->depth > MATH_DEPTH_MAX) return NULL;
    MathNode *node = parse_bare_atom(parser);
    while (node != NULL) {
        if (math_parser_take(parser, '^')) {
            node = math_parser_pair(parser, NODE_POW, node, parse_exponent(parser));
        } else if (math_parser_take(parser, '!')) {
            node = math_parser_function(parser, FUNCTION_FACTORIAL, node, NULL);
        } else if (math_parser_take(parser, '%')) {
            MathNode *percent = math_parser_node(parser, NODE_PERCENT, 1);
            if (percent != NULL) percent->arg[0] = node;
            node = percent;
        } else if (math_parser_take(parser, 'D')) {
            node = in_degrees(parser, node);
        } else {
            break;
        }
    }
    parser->depth--;
    return node;
}
