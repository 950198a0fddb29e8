#include <string.h>

#include "rollout_worker/reward/math_parse.h"

MathNode *math_node_create(Arena *arena, MathKind kind, int count)
{
    MathNode *node = arena_alloc(arena, sizeof *node);
    node->kind = kind;
    node->count = count;
    if (count > 0) node->arg = arena_alloc(arena, (size_t)count * sizeof *node->arg);
    return node;
}

MathNode *math_parser_node(MathParser *parser, MathKind kind, int count)
{
    if (++parser->nodes > MATH_NODES_MAX) return NULL;
    return math_node_create(parser->arena, kind, count);
}

MathNode *math_parser_pair(MathParser *parser, MathKind kind, MathNode *a, MathNode *b)
{
    if (a == NULL || b == NULL) return NULL;
    MathNode *node = math_parser_node(parser, kind, 2);
    if (node == NULL) return NULL;
    node->arg[0] = a;
    node->arg[1] = b;
    return node;
}

static MathNode *wrap(MathParser *parser, MathKind kind, MathNode *a)
{
    MathNode *node = a == NULL ? NULL : math_parser_node(parser, kind, 1);
    if (node != NULL) node->arg[0] = a;
    return node;
}

MathNode *math_parser_function(MathParser *parser, MathFunction function, MathNode *a, MathNode *b)
{
    MathNode *node =
        b == NULL ? wrap(parser, NODE_FUNCTION, a) : math_parser_pair(parser, NODE_FUNCTION, a, b);
    if (node != NULL) node->op = (int)function;
    return node;
}

bool math_parser_take(MathParser *parser, char mark)
{
    if (!math_token_is_mark(&parser->token[parser->at], mark)) return false;
    parser->at++;
    return true;
}

static bool take_command(MathParser *parser, const char *name)
{
    if (!math_token_is_command(&parser->token[parser->at], name)) return false;
    parser->at++;
    return true;
}

/* Arguments that are collected before their number is known. */
typedef struct NodeList {
    MathNode *item[256];
    int count;
} NodeList;

static bool list_add(NodeList *list, MathNode *node)
{
    if (node == NULL || list->count == 256) return false;
    list->item[list->count++] = node;
    return true;
}

static MathNode *list_node(MathParser *parser, MathKind kind, const NodeList *list)
{
    MathNode *node = math_parser_node(parser, kind, list->count);
    if (node != NULL && list->count > 0)
        memcpy(node->arg, list->item, (size_t)list->count * sizeof list->item[0]);
    return node;
}

static bool is_integer(const MathNode *node)
{
    return node->kind == NODE_NUMBER && memchr(node->text.data, '.', node->text.length) == NULL;
}

/* Whether `next` behind the integer `first` makes a mixed number. */
static bool is_mixed(const MathNode *first, const MathNode *next)
{
    return is_integer(first) && first->base == 0 && next->kind == NODE_DIV &&
           is_integer(next->arg[0]) && is_integer(next->arg[1]);
}

static bool begins_operand(const MathParser *parser, bool functions)
{
    static const char *const others[] = {
        "le",    "ge",     "ne",     "in",       "cup",     "cap",        "setminus",
        "pm",    "mp",     "approx", "bmod",     "pmod",    "mod",        "end",
        "ldots", "rfloor", "rceil",  "rangle",   "choose",  "notin",      "to",
        "equiv", "sim",    "subset", "subseteq", "implies", "Rightarrow", "rightarrow",
    };
    static const char *const names[] = {"sin", "cos", "tan", "cot", "sec",
                                        "csc", "log", "ln",  "exp"};
    const MathToken *token = &parser->token[parser->at];
    switch (token->kind) {
    case TOKEN_LETTER:
    case TOKEN_TEXT:
        return true;
    case TOKEN_COMMAND:
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
            if (math_token_is_command(token, others[i])) return false;
        for (size_t i = 0; i < sizeof names / sizeof names[0] && !functions; i++)
            if (math_token_is_command(token, names[i])) return false;
        return true;
    case TOKEN_CHAR:
        return token->mark == '(' || token->mark == '{' ||
               (token->mark == '|' && parser->bars == 0);
    default:
        return false;
    }
}

/* `3 1/2`, written plainly. */
static MathNode *parse_plain_mixed(MathParser *parser, MathNode *first)
{
    const MathToken *token = &parser->token[parser->at];
    if (!is_integer(first) || token[0].kind != TOKEN_NUMBER || !token[0].spaced ||
        !math_token_is_mark(&token[1], '/') || token[2].kind != TOKEN_NUMBER)
        return NULL;
    MathNode *top = math_parse_atom(parser);
    parser->at++;
    MathNode *bottom = math_parse_atom(parser);
    MathNode *fraction = math_parser_pair(parser, NODE_DIV, top, bottom);
    return math_parser_pair(parser, NODE_ADD, first, fraction);
}

MathNode *math_parse_product(MathParser *parser, bool functions)
{
    NodeList factors = {.count = 0};
    MathNode *first = math_parse_atom(parser);
    if (first == NULL) return NULL;
    if (parser->token[parser->at].kind == TOKEN_NUMBER) {
        first = parse_plain_mixed(parser, first);
        if (first == NULL) return NULL;
    }
    list_add(&factors, first);
    while (begins_operand(parser, functions)) {
        MathNode *next = math_parse_atom(parser);
        if (next == NULL) return NULL;
        if (factors.count == 1 && is_mixed(first, next)) {
            factors.item[0] = math_parser_pair(parser, NODE_ADD, first, next);
            if (factors.item[0] == NULL) return NULL;
        } else if (!list_add(&factors, next)) {
            return NULL;
        }
    }
    return factors.count == 1 ? factors.item[0] : list_node(parser, NODE_MUL, &factors);
}

static MathNode *parse_signed_product(MathParser *parser)
{
    bool negative = false;
    while (math_token_is_mark(&parser->token[parser->at], '-') ||
           math_token_is_mark(&parser->token[parser->at], '+'))
        negative ^= parser->token[parser->at++].mark == '-';
    MathNode *product = math_parse_product(parser, true);
    return negative ? wrap(parser, NODE_NEG, product) : product;
}

static MathNode *parse_term(MathParser *parser)
{
    MathNode *left = math_parse_product(parser, true);
    while (left != NULL) {
        if (math_parser_take(parser, '*'))
            left = math_parser_pair(parser, NODE_MUL, left, parse_signed_product(parser));
        else if (math_parser_take(parser, '/') || math_parser_take(parser, ':'))
            left = math_parser_pair(parser, NODE_DIV, left, parse_signed_product(parser));
        else if (take_command(parser, "bmod") || take_command(parser, "mod"))
            left = math_parser_function(parser, FUNCTION_MOD, left, parse_signed_product(parser));
        else
            break;
    }
    return left;
}

/* The sign before a term: '+', '-', 'p' for \pm, 'm' for \mp; 0 when there is none. Two signs in a
 * row are one. */
static char take_sign(MathParser *parser)
{
    if (take_command(parser, "pm")) return 'p';
    if (take_command(parser, "mp")) return 'm';
    char sign = 0;
    for (;;) {
        if (math_parser_take(parser, '+'))
            sign = sign == 0 ? '+' : sign;
        else if (math_parser_take(parser, '-'))
            sign = sign == '-' ? '+' : '-';
        else
            return sign;
        if (math_parser_take(parser, '/')) { /* +/- */
            if (!math_parser_take(parser, '-')) return '?';
            return 'p';
        }
    }
}

static MathNode *parse_terms(MathParser *parser)
{
    MathNode *sum = NULL;
    for (bool first = true;; first = false) {
        char sign = take_sign(parser);
        if (sign == '?') return NULL;
        if (sign == 0 && !first) return sum;
        MathNode *term = parse_term(parser);
        if (term == NULL) return NULL;
        if (sign == 'p' || sign == 'm') {
            if (sum == NULL) sum = math_parser_node(parser, NODE_NUMBER, 0);
            if (sum != NULL && first) sum->text = SLICE_OF("0");
            sum = math_parser_pair(parser, NODE_PLUS_MINUS, sum, term);
            if (sum != NULL) sum->op = sign == 'p' ? '+' : '-';
        } else {
            if (sign == '-') term = wrap(parser, NODE_NEG, term);
            sum = first ? term : math_parser_pair(parser, NODE_ADD, sum, term);
        }
        if (sum == NULL) return NULL;
    }
}

MathNode *math_parse_sum(MathParser *parser)
{
    if (++parser->depth > MATH_DEPTH_MAX) return NULL;
    MathNode *sum = parse_terms(parser);
    if (sum != NULL && take_command(parser, "choose"))
        sum = math_parser_function(parser, FUNCTION_BINOM, sum, parse_terms(parser));
    parser->depth--;
    return sum;
}

/* Sums joined by \cap, those by \cup, those by \setminus. */
static MathNode *parse_sets(MathParser *parser, int level)
{
    static const char *const names[] = {"cap", "cup", "setminus"};
    static const MathKind kinds[] = {NODE_INTERSECTION, NODE_UNION, NODE_DIFFERENCE};
    MathNode *left = level == 0 ? math_parse_sum(parser) : parse_sets(parser, level - 1);
    while (left != NULL && take_command(parser, names[level])) {
        MathNode *right = level == 0 ? math_parse_sum(parser) : parse_sets(parser, level - 1);
        left = math_parser_pair(parser, kinds[level], left, right);
    }
    return left;
}

static bool take_relation(MathParser *parser, MathRelation *ret)
{
    static const struct {
        const char *name;
        char mark;
        MathRelation relation;
    } signs[] = {
        {"", '=', RELATION_EQUAL},
        {"", '<', RELATION_LESS},
        {"", '>', RELATION_GREATER},
        {"le", 0, RELATION_LESS_EQUAL},
        {"ge", 0, RELATION_GREATER_EQUAL},
        {"ne", 0, RELATION_NOT_EQUAL},
        {"in", 0, RELATION_IN},
        {"approx", 0, RELATION_APPROX},
        {"equiv", 0, RELATION_EQUAL},
    };
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        bool is = signs[i].mark != 0 ? math_parser_take(parser, signs[i].mark)
                                     : take_command(parser, signs[i].name);
        if (!is) continue;
        *ret = signs[i].relation;
        return true;
    }
    return false;
}

static MathNode *parse_relation(MathParser *parser)
{
    take_command(parser, "approx"); /* about 3.14: the number that is written */
    MathNode *first = parse_sets(parser, 2);
    if (first == NULL) return NULL;
    NodeList sides = {.count = 0};
    MathRelation relation[256];
    list_add(&sides, first);
    while (take_relation(parser, &relation[sides.count - 1]))
        if (!list_add(&sides, parse_sets(parser, 2))) return NULL;
    if (sides.count == 1) return first;
    MathNode *node = list_node(parser, NODE_RELATION, &sides);
    if (node == NULL) return NULL;
    size_t bytes = (size_t)(sides.count - 1) * sizeof relation[0];
    node->relation = arena_alloc(parser->arena, bytes);
    memcpy(node->relation, relation, bytes);
    return node;
}

static bool take_separators(MathParser *parser)
{
    bool any = false;
    while (math_parser_take(parser, ',') || math_parser_take(parser, ';'))
        any = true;
    return any;
}

static char closer_at(const MathParser *parser, const char *closers)
{
    const MathToken *token = &parser->token[parser->at];
    if (token->kind == TOKEN_END) return *closers == '\0' ? '.' : 0;
    if (token->kind == TOKEN_CHAR && token->mark != '\0' && strchr(closers, token->mark) != NULL)
        return token->mark;
    return 0;
}

MathNode *math_parse_elements(MathParser *parser, MathKind kind, const char *closers,
                              char *ret_closer)
{
    NodeList list = {.count = 0};
    if (++parser->depth > MATH_DEPTH_MAX) return NULL;
    int bars = parser->bars;
    parser->bars = 0;
    while (closer_at(parser, closers) == 0) {
        if (!list_add(&list, parse_relation(parser))) return NULL;
        if (!take_separators(parser)) break;
    }
    *ret_closer = closer_at(parser, closers);
    if (*ret_closer == 0) return NULL;
    if (*ret_closer != '.') parser->at++;
    parser->bars = bars;
    parser->depth--;
    return list_node(parser, kind, &list);
}

/* x = 1, 2 says that x is 1 or 2. */
static MathNode *bind_list(MathParser *parser, MathNode *list)
{
    MathNode *first = list->arg[0];
    if (first->kind != NODE_RELATION || first->count != 2 ||
        (first->relation[0] != RELATION_EQUAL && first->relation[0] != RELATION_IN) ||
        first->arg[0]->kind != NODE_SYMBOL)
        return list;
    for (int i = 1; i < list->count; i++)
        if (list->arg[i]->kind == NODE_RELATION) return list;
    MathNode *values = math_parser_node(parser, NODE_LIST, list->count);
    if (values == NULL) return NULL;
    memcpy(values->arg, list->arg, (size_t)list->count * sizeof list->arg[0]);
    values->arg[0] = first->arg[1];
    first->arg[1] = values;
    return first;
}

/* All letters and digits of the answer, lower case. */
static MathNode *text_node(const MathTokens *tokens, Arena *arena)
{
    size_t bytes = 0;
    for (int i = 0; i < tokens->count; i++)
        bytes += tokens->token[i].text.length;
    char *text = arena_alloc(arena, bytes + 1);
    size_t length = 0;
    for (int i = 0; i < tokens->count; i++) {
        Slice part = tokens->token[i].text;
        for (size_t k = 0; k < part.length; k++)
            if (byte_is_letter(part.data[k]) || byte_is_digit(part.data[k]) ||
                (unsigned char)part.data[k] >= 0x80)
                text[length++] = byte_lower(part.data[k]);
    }
    MathNode *node = math_node_create(arena, NODE_TEXT, 0);
    node->text = (Slice){text, length};
    return node;
}

static bool has_words_only(const MathTokens *tokens)
{
    bool words = false;
    for (int i = 0; i < tokens->count; i++) {
        if (tokens->token[i].unit) return false;
        words = words || tokens->token[i].kind == TOKEN_TEXT;
    }
    return words && math_tokens_are_letters(tokens);
}

MathNode *math_parse(const MathTokens *tokens, Arena *arena)
{
    if (tokens->count == 0) return NULL;
    if (has_words_only(tokens)) return text_node(tokens, arena);
    MathParser parser = {.arena = arena};
    parser.token = arena_alloc(arena, (size_t)(tokens->count + 3) * sizeof *parser.token);
    int kept = 0;
    for (int i = 0; i < tokens->count; i++)
        if (!tokens->token[i].unit) parser.token[kept++] = tokens->token[i];
    char closer = 0;
    MathNode *list = math_parse_elements(&parser, NODE_LIST, "", &closer);
    if (list == NULL || list->count == 0) return NULL;
    return list->count == 1 ? list->arg[0] : bind_list(&parser, list);
}
