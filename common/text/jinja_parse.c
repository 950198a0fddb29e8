/* A recursive-descent parser for Jinja's grammar. The order of precedence, from loose to tight:
 * conditional, or, and, not, comparison, + -, ~, * / // %, **, unary, then postfix and filters. */
#include "text/jinja_ast.h"

typedef struct Parser {
    Compile *compile;
    Lexer lexer;
    Token current, ahead;
    bool has_ahead;
    int last_line;
    int depth;
    const char *tag[TEMPLATE_NESTING_MAX]; /* the blocks open here */
    const char *const
        *end[TEMPLATE_NESTING_MAX]; /* and the tags that may end them; NULL-terminated lists */
    int num_tags, num_ends;
    Template *template;
} Parser;

static Node *parse_expression(Parser *parser);
static Node *parse_unary(Parser *parser, bool with_filters);
static Node *parse_primary(Parser *parser, bool with_namespace);
static Node *parse_postfix(Parser *parser, Node *node);
static NodeList parse_body(Parser *parser, const char *const *end_tags);

static const char *const ends_for[] = {"endfor", "else", NULL};
static const char *const ends_for_else[] = {"endfor", NULL};
static const char *const ends_if[] = {"elif", "else", "endif", NULL};
static const char *const ends_else[] = {"endif", NULL};
static const char *const ends_set[] = {"endset", NULL};
static const char *const ends_with[] = {"endwith", NULL};
static const char *const ends_macro[] = {"endmacro", NULL};
static const char *const ends_call[] = {"endcall", NULL};
static const char *const ends_filter[] = {"endfilter", NULL};
static const char *const ends_generation[] = {"endgeneration", NULL};

/* ---- tokens ---- */

static void *parser_alloc(Parser *parser, size_t bytes)
{
    return arena_alloc(parser->compile->arena, bytes);
}

static Node *node_create(Parser *parser, NodeKind kind, int line)
{
    Node *node = parser_alloc(parser, sizeof *node);
    node->kind = kind;
    node->line = line;
    return node;
}

static void next(Parser *parser)
{
    parser->last_line = parser->current.line;
    if (parser->has_ahead) {
        parser->current = parser->ahead;
        parser->has_ahead = false;
    } else {
        lexer_next(&parser->lexer, &parser->current);
    }
    if (parser->current.type == TOKEN_END) parser->current.line = parser->last_line;
}

static const Token *look(Parser *parser)
{
    if (!parser->has_ahead) lexer_next(&parser->lexer, &parser->ahead);
    parser->has_ahead = true;
    return &parser->ahead;
}

static bool token_is_name(const Token *token, const char *name)
{
    return token->type == TOKEN_NAME && string_is(&token->text, name);
}

static bool at_name(const Parser *parser, const char *name)
{
    return token_is_name(&parser->current, name);
}

static bool skip_name(Parser *parser, const char *name)
{
    if (!at_name(parser, name)) return false;
    next(parser);
    return true;
}

static bool skip_type(Parser *parser, TokenType type)
{
    if (parser->current.type != type) return false;
    next(parser);
    return true;
}

static _Noreturn void fail_expected(Parser *parser, const char *expected)
{
    if (parser->current.type == TOKEN_END)
        compile_fail(parser->compile, parser->current.line,
                     "unexpected end of template, expected '%s'.", expected);
    compile_fail(parser->compile, parser->current.line, "expected token '%s', got '%s'", expected,
                 token_describe(parser->compile, &parser->current));
}

static void expect_type(Parser *parser, TokenType type)
{
    if (parser->current.type != type) fail_expected(parser, token_type_name(type));
    next(parser);
}

static void expect_name(Parser *parser, const char *name)
{
    if (!at_name(parser, name)) fail_expected(parser, name);
    next(parser);
}

static const String *keep_string(Parser *parser, const String *string)
{
    String *copy = parser_alloc(parser, sizeof *copy);
    *copy = *string;
    string_chars(copy);
    return copy;
}

static const String *expect_any_name(Parser *parser)
{
    if (parser->current.type != TOKEN_NAME) fail_expected(parser, "name");
    const String *name = keep_string(parser, &parser->current.text);
    next(parser);
    return name;
}

static void descend(Parser *parser)
{
    if (++parser->depth > TEMPLATE_NESTING_MAX)
        compile_fail(parser->compile, parser->current.line, "nested deeper than %d levels",
                     TEMPLATE_NESTING_MAX);
}

/* Notes that `child` hangs below `node`, and bounds the height of the tree: what walks it later
 * recurses. */
static Node *adopt(Parser *parser, Node *node, const Node *child)
{
    if (child != NULL && child->height >= node->height) {
        node->height = child->height + 1;
        if (node->height > TEMPLATE_HEIGHT_MAX)
            compile_fail(parser->compile, node->line, "an expression of more than %d levels",
                         TEMPLATE_HEIGHT_MAX);
    }
    return node;
}

static Node *adopt_list(Parser *parser, Node *node, const NodeList *list)
{
    for (size_t i = 0; i < list->count; i++)
        adopt(parser, node, list->item[i]);
    return node;
}

/* ---- lists of nodes ---- */

static void list_push(Parser *parser, NodeList *list, Node *node)
{
    size_t count = list->count;
    if ((count & (count - 1)) == 0) { /* full at powers of two */
        Node **grown = parser_alloc(parser, (count == 0 ? 1 : 2 * count) * sizeof *grown);
        if (count > 0) memcpy(grown, list->item, count * sizeof *grown);
        list->item = grown;
    }
    list->item[list->count++] = node;
}

/* ---- expressions ---- */

static Node *binary_create(Parser *parser, NodeKind kind, int line, Node *left, Node *right)
{
    Node *node = node_create(parser, kind, line);
    node->as.binary.left = left;
    node->as.binary.right = right;
    return adopt(parser, adopt(parser, node, left), right);
}

static Node *const_create(Parser *parser, int line, Value value)
{
    Node *node = node_create(parser, NODE_CONST, line);
    node->as.constant = value;
    return node;
}

static Node *parse_or(Parser *parser);

static Node *parse_expression(Parser *parser)
{
    descend(parser);
    int line = parser->current.line;
    Node *node = parse_or(parser);
    while (skip_name(parser, "if")) {
        Node *condition = node_create(parser, NODE_CONDITION, line);
        condition->as.condition.yes = node;
        condition->as.condition.test = parse_or(parser);
        if (skip_name(parser, "else")) condition->as.condition.no = parse_expression(parser);
        adopt(parser, adopt(parser, condition, node), condition->as.condition.test);
        node = adopt(parser, condition, condition->as.condition.no);
        line = parser->current.line;
    }
    parser->depth--;
    return node;
}

static bool at_compare(Parser *parser, CompareOp *ret_op)
{
    switch (parser->current.type) {
    case TOKEN_EQ:
        *ret_op = COMPARE_EQ;
        break;
    case TOKEN_NE:
        *ret_op = COMPARE_NE;
        break;
    case TOKEN_LT:
        *ret_op = COMPARE_LT;
        break;
    case TOKEN_LTEQ:
        *ret_op = COMPARE_LE;
        break;
    case TOKEN_GT:
        *ret_op = COMPARE_GT;
        break;
    case TOKEN_GTEQ:
        *ret_op = COMPARE_GE;
        break;
    case TOKEN_NAME:
        if (at_name(parser, "in")) {
            *ret_op = COMPARE_IN;
        } else if (at_name(parser, "not") && token_is_name(look(parser), "in")) {
            next(parser);
            *ret_op = COMPARE_NOT_IN;
        } else {
            return false;
        }
        break;
    default:
        return false;
    }
    next(parser);
    return true;
}

/* The operators of one level of precedence: "+ -" or "* / // %" or "**". */
static bool at_math(Parser *parser, int level, BinaryOp *ret_op)
{
    static const struct {
        TokenType type;
        int level;
        BinaryOp op;
    } table[] = {
        {TOKEN_ADD, 1, BINARY_ADD}, {TOKEN_SUB, 1, BINARY_SUB},
        {TOKEN_MUL, 2, BINARY_MUL}, {TOKEN_DIV, 2, BINARY_DIV},
        {TOKEN_MOD, 2, BINARY_MOD}, {TOKEN_FLOORDIV, 2, BINARY_FLOORDIV},
        {TOKEN_POW, 3, BINARY_POW},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].level == level && parser->current.type == table[i].type) {
            *ret_op = table[i].op;
            next(parser);
            return true;
        }
    return false;
}

static Node *parse_concat(Parser *parser);

static Node *parse_math(Parser *parser, int level)
{
    int line = parser->current.line;
    Node *left = level == 1   ? parse_concat(parser)
                 : level == 2 ? parse_math(parser, 3)
                              : parse_unary(parser, true);
    BinaryOp op;
    while (at_math(parser, level, &op)) {
        Node *right = level == 1   ? parse_concat(parser)
                      : level == 2 ? parse_math(parser, 3)
                                   : parse_unary(parser, true);
        left = binary_create(parser, NODE_BINARY, line, left, right);
        left->as.binary.op = op;
        line = parser->current.line;
    }
    return left;
}

static Node *parse_concat(Parser *parser)
{
    int line = parser->current.line;
    Node *first = parse_math(parser, 2);
    if (parser->current.type != TOKEN_TILDE) return first;
    Node *node = node_create(parser, NODE_CONCAT, line);
    list_push(parser, &node->as.list, first);
    while (skip_type(parser, TOKEN_TILDE))
        list_push(parser, &node->as.list, parse_math(parser, 2));
    return adopt_list(parser, node, &node->as.list);
}

static Node *parse_compare(Parser *parser)
{
    int line = parser->current.line;
    Node *first = parse_math(parser, 1);
    CompareOp op, ops[TEMPLATE_NESTING_MAX];
    NodeList operands = {0};
    while (at_compare(parser, &op)) {
        if (operands.count == TEMPLATE_NESTING_MAX)
            compile_fail(parser->compile, line, "more than %d comparisons in a row",
                         TEMPLATE_NESTING_MAX);
        ops[operands.count] = op;
        list_push(parser, &operands, parse_math(parser, 1));
        line = parser->current.line;
    }
    if (operands.count == 0) return first;
    Node *node = node_create(parser, NODE_COMPARE, line);
    node->as.compare.first = first;
    node->as.compare.operand = operands;
    node->as.compare.op = parser_alloc(parser, operands.count * sizeof(CompareOp));
    memcpy(node->as.compare.op, ops, operands.count * sizeof(CompareOp));
    return adopt_list(parser, adopt(parser, node, first), &operands);
}

static Node *parse_not(Parser *parser)
{
    if (!at_name(parser, "not")) return parse_compare(parser);
    descend(parser);
    int line = parser->current.line;
    next(parser);
    Node *node = binary_create(parser, NODE_NOT, line, parse_not(parser), NULL);
    parser->depth--;
    return node;
}

static Node *parse_and(Parser *parser)
{
    int line = parser->current.line;
    Node *left = parse_not(parser);
    while (skip_name(parser, "and")) {
        left = binary_create(parser, NODE_AND, line, left, parse_not(parser));
        line = parser->current.line;
    }
    return left;
}

static Node *parse_or(Parser *parser)
{
    int line = parser->current.line;
    Node *left = parse_and(parser);
    while (skip_name(parser, "or")) {
        left = binary_create(parser, NODE_OR, line, left, parse_and(parser));
        line = parser->current.line;
    }
    return left;
}

static bool at_tuple_end(const Parser *parser, const char *end_name)
{
    TokenType type = parser->current.type;
    return type == TOKEN_VARIABLE_END || type == TOKEN_BLOCK_END || type == TOKEN_RPAREN ||
           (end_name != NULL && at_name(parser, end_name));
}

typedef struct TupleRules {
    enum { TUPLE_EXPRESSIONS, TUPLE_WITHOUT_CONDITION, TUPLE_TARGETS } items;
    const char *end_name; /* a name that ends it, or NULL */
    bool parenthesised;   /* may be empty */
    bool with_namespace;  /* TUPLE_TARGETS: a.b is allowed */
} TupleRules;

/* One expression, or several with commas between them as a tuple. */
static Node *parse_tuple(Parser *parser, TupleRules rules)
{
    int line = parser->current.line;
    NodeList items = {0};
    bool is_tuple = false;
    for (;;) {
        if (items.count > 0) expect_type(parser, TOKEN_COMMA);
        if (at_tuple_end(parser, rules.end_name)) break;
        list_push(parser, &items,
                  rules.items == TUPLE_TARGETS       ? parse_primary(parser, rules.with_namespace)
                  : rules.items == TUPLE_EXPRESSIONS ? parse_expression(parser)
                                                     : parse_or(parser));
        if (parser->current.type != TOKEN_COMMA) break;
        is_tuple = true;
        line = parser->current.line;
    }
    if (!is_tuple && items.count > 0) return items.item[0];
    if (!is_tuple && !rules.parenthesised)
        compile_fail(parser->compile, parser->current.line, "Expected an expression, got '%s'",
                     token_describe(parser->compile, &parser->current));
    Node *node = node_create(parser, NODE_TUPLE, line);
    node->as.list = items;
    return adopt_list(parser, node, &items);
}

static Node *parse_list(Parser *parser)
{
    Node *node = node_create(parser, NODE_LIST, parser->current.line);
    next(parser);
    while (parser->current.type != TOKEN_RBRACKET) {
        if (node->as.list.count > 0) expect_type(parser, TOKEN_COMMA);
        if (parser->current.type == TOKEN_RBRACKET) break;
        list_push(parser, &node->as.list, parse_expression(parser));
    }
    next(parser);
    return adopt_list(parser, node, &node->as.list);
}

static Node *parse_dict(Parser *parser)
{
    Node *node = node_create(parser, NODE_DICT, parser->current.line);
    next(parser);
    while (parser->current.type != TOKEN_RBRACE) {
        if (node->as.list.count > 0) expect_type(parser, TOKEN_COMMA);
        if (parser->current.type == TOKEN_RBRACE) break;
        list_push(parser, &node->as.list, parse_expression(parser));
        expect_type(parser, TOKEN_COLON);
        list_push(parser, &node->as.list, parse_expression(parser));
    }
    next(parser);
    return adopt_list(parser, node, &node->as.list);
}

/* Strings that stand side by side are one, as in Python. */
static Node *parse_string(Parser *parser)
{
    int line = parser->current.line;
    String text = parser->current.text;
    next(parser);
    while (parser->current.type == TOKEN_STRING) {
        const String *more = &parser->current.text;
        char *joined = parser_alloc(parser, (size_t)text.length + more->length + 1);
        memcpy(joined, text.bytes, text.length);
        memcpy(joined + text.length, more->bytes, more->length);
        text.bytes = joined;
        text.length += more->length;
        next(parser);
    }
    text.chars = CHARS_UNKNOWN;
    return const_create(parser, line,
                        value_of_string(keep_string(parser, &text), ORIGIN_PLAIN_TEMPLATE));
}

static Node *parse_name(Parser *parser, bool with_namespace)
{
    int line = parser->current.line;
    const String *name = expect_any_name(parser);
    bool is_true = string_is(name, "true") || string_is(name, "True");
    if (is_true || string_is(name, "false") || string_is(name, "False"))
        return const_create(parser, line, value_bool(is_true));
    if (string_is(name, "none") || string_is(name, "None"))
        return const_create(parser, line, value_none());
    Node *node = node_create(parser, NODE_NAME, line);
    node->as.name.text = name;
    if (!with_namespace || parser->current.type != TOKEN_DOT) return node;
    next(parser);
    Node *target = node_create(parser, NODE_NSREF, line);
    target->as.nsref.name = node;
    target->as.nsref.attribute = expect_any_name(parser);
    return target;
}

static Node *parse_primary(Parser *parser, bool with_namespace)
{
    Token token = parser->current;
    switch (token.type) {
    case TOKEN_NAME:
        return parse_name(parser, with_namespace);
    case TOKEN_STRING:
        return parse_string(parser);
    case TOKEN_INTEGER:
        next(parser);
        return const_create(parser, token.line, value_int(token.integer));
    case TOKEN_FLOAT:
        next(parser);
        return const_create(parser, token.line, value_float(token.real));
    case TOKEN_LPAREN:
        next(parser);
        Node *node = parse_tuple(parser, (TupleRules){.parenthesised = true});
        expect_type(parser, TOKEN_RPAREN);
        return node;
    case TOKEN_LBRACKET:
        return parse_list(parser);
    case TOKEN_LBRACE:
        return parse_dict(parser);
    default:
        compile_fail(parser->compile, token.line, "unexpected '%s'",
                     token_describe(parser->compile, &token));
    }
}

static Node *parse_unary(Parser *parser, bool with_filters);

/* One of the subscripts between brackets: an expression or a slice. */
static Node *parse_subscribed(Parser *parser)
{
    int line = parser->current.line;
    Node *start = NULL;
    if (parser->current.type != TOKEN_COLON) {
        start = parse_expression(parser);
        if (parser->current.type != TOKEN_COLON) return start;
    }
    Node *node = node_create(parser, NODE_SLICE, line);
    node->as.slice.start = start;
    next(parser);
    TokenType type = parser->current.type;
    if (type != TOKEN_COLON && type != TOKEN_RBRACKET && type != TOKEN_COMMA)
        node->as.slice.stop = parse_expression(parser);
    if (skip_type(parser, TOKEN_COLON)) {
        type = parser->current.type;
        if (type != TOKEN_RBRACKET && type != TOKEN_COMMA)
            node->as.slice.step = parse_expression(parser);
    }
    adopt(parser, adopt(parser, node, start), node->as.slice.stop);
    return adopt(parser, node, node->as.slice.step);
}

static Node *parse_dot(Parser *parser, Node *object)
{
    int line = parser->current.line;
    next(parser);
    Token token = parser->current;
    if (token.type == TOKEN_NAME) {
        Node *node = node_create(parser, NODE_GETATTR, line);
        node->as.get.object = object;
        node->as.get.attribute = value_of_string(expect_any_name(parser), ORIGIN_PLAIN_TEMPLATE);
        node->as.get.maybe_method = method_known(node->as.get.attribute.as.string);
        return adopt(parser, node, object);
    }
    next(parser);
    if (token.type != TOKEN_INTEGER)
        compile_fail(parser->compile, token.line, "expected name or number");
    Node *node = node_create(parser, NODE_GETITEM, line);
    node->as.get.object = object;
    node->as.get.key = const_create(parser, token.line, value_int(token.integer));
    return adopt(parser, node, object);
}

static Node *parse_brackets(Parser *parser, Node *object)
{
    int line = parser->current.line;
    next(parser);
    NodeList keys = {0};
    while (parser->current.type != TOKEN_RBRACKET) {
        if (keys.count > 0) expect_type(parser, TOKEN_COMMA);
        list_push(parser, &keys, parse_subscribed(parser));
    }
    next(parser);
    Node *node = node_create(parser, NODE_GETITEM, line);
    node->as.get.object = object;
    if (keys.count == 1) {
        node->as.get.key = keys.item[0];
    } else {
        node->as.get.key = node_create(parser, NODE_TUPLE, line);
        node->as.get.key->as.list = keys;
        adopt_list(parser, node->as.get.key, &keys);
    }
    return adopt(parser, adopt(parser, node, object), node->as.get.key);
}

static void keyword_push(Parser *parser, CallArgs *args, const String *name, Node *value)
{
    size_t count = args->keyword.count;
    const String **names = parser_alloc(parser, (count + 1) * sizeof *names);
    if (count > 0) memcpy(names, args->keyword_name, count * sizeof *names);
    names[count] = name;
    args->keyword_name = names;
    list_push(parser, &args->keyword, value);
}

static CallArgs parse_args(Parser *parser)
{
    CallArgs args = {0};
    int line = parser->current.line;
    bool first = true;
    expect_type(parser, TOKEN_LPAREN);
    while (parser->current.type != TOKEN_RPAREN) {
        if (!first) {
            expect_type(parser, TOKEN_COMMA);
            if (parser->current.type == TOKEN_RPAREN) break;
        }
        first = false;
        bool valid;
        if (skip_type(parser, TOKEN_MUL)) {
            valid = args.star == NULL && args.star_star == NULL;
            args.star = parse_expression(parser);
        } else if (skip_type(parser, TOKEN_POW)) {
            valid = args.star_star == NULL;
            args.star_star = parse_expression(parser);
        } else if (parser->current.type == TOKEN_NAME && look(parser)->type == TOKEN_ASSIGN) {
            valid = args.star_star == NULL;
            const String *name = expect_any_name(parser);
            next(parser);
            keyword_push(parser, &args, name, parse_expression(parser));
        } else {
            valid = args.star == NULL && args.star_star == NULL && args.keyword.count == 0;
            list_push(parser, &args.positional, parse_expression(parser));
        }
        if (!valid)
            compile_fail(parser->compile, line, "invalid syntax for function call expression");
    }
    next(parser);
    return args;
}

/* Completes a call, filter or test. */
static Node *adopt_call(Parser *parser, Node *node)
{
    const CallArgs *args = &node->as.call.args;
    adopt(parser, node, node->as.call.callee);
    adopt_list(parser, node, &args->positional);
    adopt_list(parser, node, &args->keyword);
    return adopt(parser, adopt(parser, node, args->star), args->star_star);
}

static Node *parse_call(Parser *parser, Node *callee)
{
    Node *node = node_create(parser, NODE_CALL, parser->current.line);
    node->as.call.callee = callee;
    node->as.call.args = parse_args(parser);
    return adopt_call(parser, node);
}

/* A filter's or test's name, dots included. */
static const String *parse_dotted_name(Parser *parser)
{
    const String *name = expect_any_name(parser);
    while (skip_type(parser, TOKEN_DOT)) {
        const String *more = expect_any_name(parser);
        char *text = arena_printf(parser->compile->arena, "%.*s.%.*s", (int)name->length,
                                  name->bytes, (int)more->length, more->bytes);
        String joined = {
            .bytes = text, .length = name->length + 1 + more->length, .chars = CHARS_UNKNOWN};
        name = keep_string(parser, &joined);
    }
    return name;
}

/* The name and arguments of a filter; `subject` is NULL in filter blocks. */
static Node *parse_one_filter(Parser *parser, Node *subject)
{
    Node *node = node_create(parser, NODE_FILTER, parser->current.line);
    node->as.call.callee = subject;
    node->as.call.name = parse_dotted_name(parser);
    if (parser->current.type == TOKEN_LPAREN) node->as.call.args = parse_args(parser);
    return adopt_call(parser, node);
}

static Node *parse_filters(Parser *parser, Node *subject)
{
    while (skip_type(parser, TOKEN_PIPE))
        subject = parse_one_filter(parser, subject);
    return subject;
}

static bool at_test_argument(const Parser *parser)
{
    switch (parser->current.type) {
    case TOKEN_NAME:
        return !at_name(parser, "else") && !at_name(parser, "or") && !at_name(parser, "and");
    case TOKEN_STRING:
    case TOKEN_INTEGER:
    case TOKEN_FLOAT:
    case TOKEN_LBRACKET:
    case TOKEN_LBRACE:
        return true;
    default:
        return false;
    }
}

static Node *parse_test(Parser *parser, Node *subject)
{
    int line = parser->current.line;
    next(parser);
    bool negated = skip_name(parser, "not");
    Node *node = node_create(parser, NODE_TEST, line);
    node->as.call.callee = subject;
    node->as.call.name = parse_dotted_name(parser);
    if (parser->current.type == TOKEN_LPAREN) {
        node->as.call.args = parse_args(parser);
    } else if (at_test_argument(parser)) {
        if (at_name(parser, "is"))
            compile_fail(parser->compile, parser->current.line,
                         "You cannot chain multiple tests with is");
        Node *argument = parse_postfix(parser, parse_primary(parser, false));
        list_push(parser, &node->as.call.args.positional, argument);
    }
    adopt_call(parser, node);
    return negated ? binary_create(parser, NODE_NOT, line, node, NULL) : node;
}

static Node *parse_postfix(Parser *parser, Node *node)
{
    for (;;) {
        if (parser->current.type == TOKEN_DOT) {
            node = parse_dot(parser, node);
        } else if (parser->current.type == TOKEN_LBRACKET) {
            node = parse_brackets(parser, node);
        } else if (parser->current.type == TOKEN_LPAREN) {
            node = parse_call(parser, node);
        } else {
            return node;
        }
    }
}

static Node *parse_unary(Parser *parser, bool with_filters)
{
    descend(parser);
    int line = parser->current.line;
    Node *node;
    if (skip_type(parser, TOKEN_SUB)) {
        node = binary_create(parser, NODE_NEGATIVE, line, parse_unary(parser, false), NULL);
    } else if (skip_type(parser, TOKEN_ADD)) {
        node = binary_create(parser, NODE_POSITIVE, line, parse_unary(parser, false), NULL);
    } else {
        node = parse_primary(parser, false);
    }
    node = parse_postfix(parser, node);
    while (with_filters) {
        if (parser->current.type == TOKEN_PIPE) {
            node = parse_filters(parser, node);
        } else if (at_name(parser, "is")) {
            node = parse_test(parser, node);
        } else if (parser->current.type == TOKEN_LPAREN) {
            node = parse_call(parser, node);
        } else {
            break;
        }
    }
    parser->depth--;
    return node;
}

/* ---- targets of assignments ---- */

static const char *node_kind_name(NodeKind kind)
{
    switch (kind) {
    case NODE_CONST:
        return "const";
    case NODE_LIST:
        return "list";
    case NODE_DICT:
        return "dict";
    default:
        return "expression";
    }
}

static void check_target(Parser *parser, const Node *node)
{
    if (node->kind == NODE_TUPLE) {
        for (size_t i = 0; i < node->as.list.count; i++)
            check_target(parser, node->as.list.item[i]);
    } else if (node->kind != NODE_NAME && node->kind != NODE_NSREF) {
        compile_fail(parser->compile, node->line, "can't assign to '%s'",
                     node_kind_name(node->kind));
    }
}

static Node *parse_target(Parser *parser, const char *end_name, bool with_namespace)
{
    Node *node = parse_tuple(parser, (TupleRules){.items = TUPLE_TARGETS,
                                                  .end_name = end_name,
                                                  .with_namespace = with_namespace});
    check_target(parser, node);
    return node;
}

static Node *parse_name_target(Parser *parser)
{
    if (parser->current.type != TOKEN_NAME) fail_expected(parser, "name");
    Node *node = parse_name(parser, false);
    check_target(parser, node);
    return node;
}

/* ---- statements ---- */

static Node *parse_set(Parser *parser)
{
    int line = parser->current.line;
    next(parser);
    Node *target = parse_target(parser, NULL, true);
    bool is_block = parser->current.type != TOKEN_ASSIGN;
    Node *node = node_create(parser, is_block ? NODE_SET_BLOCK : NODE_SET, line);
    node->as.set.target = target;
    if (!is_block) {
        next(parser);
        node->as.set.value = parse_tuple(parser, (TupleRules){0});
        return node;
    }
    node->as.set.value = parse_filters(parser, NULL);
    node->as.set.body = parse_body(parser, ends_set);
    next(parser);
    return node;
}

static Node *parse_for(Parser *parser)
{
    Node *node = node_create(parser, NODE_FOR, parser->current.line);
    next(parser);
    node->as.loop.target = parse_target(parser, "in", false);
    expect_name(parser, "in");
    node->as.loop.source = parse_tuple(
        parser, (TupleRules){.items = TUPLE_WITHOUT_CONDITION, .end_name = "recursive"});
    if (skip_name(parser, "if")) node->as.loop.test = parse_expression(parser);
    node->as.loop.recursive = skip_name(parser, "recursive");
    node->as.loop.body = parse_body(parser, ends_for);
    bool has_else = at_name(parser, "else");
    next(parser);
    if (has_else) {
        node->as.loop.otherwise = parse_body(parser, ends_for_else);
        next(parser);
    }
    return node;
}

static Node *parse_if(Parser *parser)
{
    Node *node = node_create(parser, NODE_IF, parser->current.line);
    NodeList *body = NULL; /* one per branch */
    size_t count = 0;
    do {
        next(parser);
        Node *test = parse_tuple(parser, (TupleRules){.items = TUPLE_WITHOUT_CONDITION});
        list_push(parser, &node->as.branch.test, test);
        NodeList *grown = parser_alloc(parser, (count + 1) * sizeof *grown);
        if (count > 0) memcpy(grown, body, count * sizeof *grown);
        body = grown;
        body[count++] = parse_body(parser, ends_if);
    } while (at_name(parser, "elif"));
    node->as.branch.body = body;
    bool has_else = at_name(parser, "else");
    next(parser);
    if (has_else) {
        node->as.branch.otherwise = parse_body(parser, ends_else);
        next(parser);
    }
    return node;
}

static Node *parse_with(Parser *parser)
{
    Node *node = node_create(parser, NODE_WITH, parser->current.line);
    next(parser);
    while (parser->current.type != TOKEN_BLOCK_END) {
        if (node->as.block.targets.count > 0) expect_type(parser, TOKEN_COMMA);
        list_push(parser, &node->as.block.targets, parse_target(parser, NULL, false));
        expect_type(parser, TOKEN_ASSIGN);
        list_push(parser, &node->as.block.values, parse_expression(parser));
    }
    node->as.block.body = parse_body(parser, ends_with);
    next(parser);
    return node;
}

static void parse_signature(Parser *parser, MacroNode *macro)
{
    NodeList parameters = {0};
    expect_type(parser, TOKEN_LPAREN);
    while (parser->current.type != TOKEN_RPAREN) {
        if (parameters.count > 0) expect_type(parser, TOKEN_COMMA);
        Node *name = parse_name_target(parser);
        if (skip_type(parser, TOKEN_ASSIGN)) {
            list_push(parser, &macro->defaults, parse_expression(parser));
        } else if (macro->defaults.count > 0) {
            compile_fail(parser->compile, parser->current.line,
                         "non-default argument follows default argument");
        }
        list_push(parser, &parameters, name);
    }
    next(parser);
    macro->parameter = parameters.item;
    macro->num_parameters = parameters.count;
}

static Node *parse_macro(Parser *parser)
{
    Node *node = node_create(parser, NODE_MACRO, parser->current.line);
    MacroNode *macro = node->as.macro.macro = parser_alloc(parser, sizeof *macro);
    next(parser);
    macro->name = parse_name_target(parser)->as.name.text;
    parse_signature(parser, macro);
    macro->body = parse_body(parser, ends_macro);
    next(parser);
    return node;
}

static Node *parse_call_block(Parser *parser)
{
    Node *node = node_create(parser, NODE_CALL_BLOCK, parser->current.line);
    MacroNode *macro = node->as.macro.macro = parser_alloc(parser, sizeof *macro);
    next(parser);
    if (parser->current.type == TOKEN_LPAREN) parse_signature(parser, macro);
    node->as.macro.call = parse_expression(parser);
    if (node->as.macro.call->kind != NODE_CALL)
        compile_fail(parser->compile, node->line, "expected call");
    macro->body = parse_body(parser, ends_call);
    next(parser);
    return node;
}

static Node *parse_generation(Parser *parser)
{
    Node *node = node_create(parser, NODE_GENERATION, parser->current.line);
    node->as.macro.macro = parser_alloc(parser, sizeof(MacroNode));
    next(parser);
    node->as.macro.macro->body = parse_body(parser, ends_generation);
    next(parser);
    parser->template->has_generation = true;
    return node;
}

static Node *parse_filter_block(Parser *parser)
{
    Node *node = node_create(parser, NODE_FILTER_BLOCK, parser->current.line);
    next(parser);
    node->as.block.filter = parse_filters(parser, parse_one_filter(parser, NULL));
    node->as.block.body = parse_body(parser, ends_filter);
    next(parser);
    return node;
}

static Node *parse_print(Parser *parser)
{
    Node *node = node_create(parser, NODE_OUTPUT, parser->current.line);
    next(parser);
    while (parser->current.type != TOKEN_BLOCK_END) {
        if (node->as.list.count > 0) expect_type(parser, TOKEN_COMMA);
        list_push(parser, &node->as.list, parse_expression(parser));
    }
    return node;
}

static Node *parse_loop_control(Parser *parser)
{
    Node *node = node_create(parser, at_name(parser, "break") ? NODE_BREAK : NODE_CONTINUE,
                             parser->current.line);
    next(parser);
    return node;
}

/* include, import, from: transformers gives its environment no loader, so they fail when they are
 * reached. */
static Node *parse_unavailable(Parser *parser)
{
    Node *node = node_create(parser, NODE_UNAVAILABLE, parser->current.line);
    node->as.reason = "no loader for this environment specified";
    while (parser->current.type != TOKEN_BLOCK_END && parser->current.type != TOKEN_END)
        next(parser);
    return node;
}

static Node *parse_unsupported(Parser *parser)
{
    compile_fail(parser->compile, parser->current.line,
                 "the tag '%s' has no place in a chat template and is not supported",
                 token_describe(parser->compile, &parser->current));
}

static const struct {
    const char *tag;
    Node *(*parse)(Parser *parser);
} statements[] = {
    {"for", parse_for},
    {"if", parse_if},
    {"set", parse_set},
    {"macro", parse_macro},
    {"call", parse_call_block},
    {"filter", parse_filter_block},
    {"with", parse_with},
    {"print", parse_print},
    {"generation", parse_generation},
    {"break", parse_loop_control},
    {"continue", parse_loop_control},
    {"include", parse_unavailable},
    {"import", parse_unavailable},
    {"from", parse_unavailable},
    {"extends", parse_unsupported},
    {"block", parse_unsupported},
    {"autoescape", parse_unsupported},
};

/* "'elif' or 'else' or 'endif'" */
static const char *list_ends(Parser *parser, const char *const *ends)
{
    const char *text = "";
    for (size_t i = 0; ends[i] != NULL; i++)
        text = arena_printf(parser->compile->arena, "%s%s'%s'", text, i > 0 ? " or " : "", ends[i]);
    return text;
}

/* A tag that does not belong here (NULL: the template ends), explained by the blocks that are open.
 */
static _Noreturn void fail_tag(Parser *parser, const char *name, int line)
{
    Arena *arena = parser->compile->arena;
    const char *message = name != NULL ? arena_printf(arena, "Encountered unknown tag '%s'.", name)
                                       : "Unexpected end of template.";
    if (parser->num_ends > 0) {
        bool expected = false;
        for (int i = 0; name != NULL && i < parser->num_ends; i++)
            for (size_t j = 0; parser->end[i][j] != NULL; j++)
                expected = expected || strcmp(parser->end[i][j], name) == 0;
        const char *looking = list_ends(parser, parser->end[parser->num_ends - 1]);
        message = arena_printf(
            arena,
            expected ? "%s You probably made a nesting mistake. Jinja is expecting this tag, but "
                       "currently looking for %s."
                     : "%s Jinja was looking for the following tags: %s.",
            message, looking);
    }
    if (parser->num_tags > 0)
        message = arena_printf(arena, "%s The innermost block that needs to be closed is '%s'.",
                               message, parser->tag[parser->num_tags - 1]);
    compile_fail(parser->compile, line, "%s", message);
}

static Node *parse_statement(Parser *parser)
{
    Token token = parser->current;
    if (token.type != TOKEN_NAME) compile_fail(parser->compile, token.line, "tag name expected");
    for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++) {
        if (!string_is(&token.text, statements[i].tag)) continue;
        if (parser->num_tags == TEMPLATE_NESTING_MAX)
            compile_fail(parser->compile, token.line, "nested deeper than %d levels",
                         TEMPLATE_NESTING_MAX);
        parser->tag[parser->num_tags++] = statements[i].tag;
        Node *node = statements[i].parse(parser);
        parser->num_tags--;
        return node;
    }
    fail_tag(parser, token_describe(parser->compile, &token), token.line);
}

static bool at_end_tag(const Parser *parser, const char *const *end_tags)
{
    for (size_t i = 0; end_tags != NULL && end_tags[i] != NULL; i++)
        if (at_name(parser, end_tags[i])) return true;
    return false;
}

/* Output of text and expressions in a row is one node. */
static void output_push(Parser *parser, NodeList *body, Node **output, Node *node)
{
    if (*output == NULL) {
        *output = node_create(parser, NODE_OUTPUT, node->line);
        list_push(parser, body, *output);
    }
    list_push(parser, &(*output)->as.list, node);
}

/* Text and statements up to one of the end tags (NULL: the end of the template). Stands on the
 * tag's name after. */
static NodeList parse_until(Parser *parser, const char *const *end_tags)
{
    NodeList body = {0};
    Node *output = NULL;
    while (parser->current.type != TOKEN_END) {
        Token token = parser->current;
        next(parser);
        if (token.type == TOKEN_DATA) {
            const String *text = keep_string(parser, &token.text);
            output_push(
                parser, &body, &output,
                const_create(parser, token.line, value_of_string(text, ORIGIN_PLAIN_TEMPLATE)));
        } else if (token.type == TOKEN_VARIABLE_BEGIN) {
            output_push(parser, &body, &output, parse_tuple(parser, (TupleRules){0}));
            expect_type(parser, TOKEN_VARIABLE_END);
        } else {
            output = NULL;
            if (at_end_tag(parser, end_tags)) return body;
            list_push(parser, &body, parse_statement(parser));
            expect_type(parser, TOKEN_BLOCK_END);
        }
    }
    if (end_tags != NULL) fail_tag(parser, NULL, parser->current.line);
    return body;
}

/* The body of a block: from the end of its opening tag. */
static NodeList parse_body(Parser *parser, const char *const *end_tags)
{
    skip_type(parser, TOKEN_COLON);
    expect_type(parser, TOKEN_BLOCK_END);
    parser->end[parser->num_ends++] = end_tags; /* as deep as `tag` at most */
    NodeList body = parse_until(parser, end_tags);
    parser->num_ends--;
    return body;
}

void template_parse(Compile *compile, const char *source, size_t length, Template *ret)
{
    Parser *parser = arena_alloc(compile->arena, sizeof *parser);
    parser->compile = compile;
    parser->template = ret;
    lexer_init(&parser->lexer, compile, source, length);
    parser->current.line = 1;
    next(parser);
    ret->body = parse_until(parser, NULL);
}
