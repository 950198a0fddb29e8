/* A recursive-descent parser for Jinja's expressions. The order of precedence, from loose to tight:
 * conditional, or, and, not, comparison, + -, ~, * / // %, **, unary, then postfix and filters. */
#include "text/jinja/parser.h"

static Node *parse_or(Parser *parser);
static Node *parse_concat(Parser *parser);
static Node *parse_unary(Parser *parser, bool with_filters);
static Node *parse_postfix(Parser *parser, Node *node);

static Node *binary_create(Parser *parser, NodeKind kind, int line, Node *left, Node *right)
{
    Node *node = node_create(parser, kind, line);
    node->as.binary.left = left;
    node->as.binary.right = right;
    return node_adopt(parser, node_adopt(parser, node, left), right);
}

Node *const_create(Parser *parser, int line, Value value)
{
    Node *node = node_create(parser, NODE_CONST, line);
    node->as.constant = value;
    return node;
}

/* A constant for which the evaluator knows shorter ways, as it costs next to nothing to compare. */
static bool is_short_string(const Node *node)
{
    return node->kind == NODE_CONST && value_is_string(node->as.constant) &&
           node->as.constant.as.string->length <= 16;
}

Node *parse_expression(Parser *parser)
{
    parser_descend(parser);
    int line = parser->current.line;
    Node *node = parse_or(parser);
    while (parser_skip_name(parser, "if")) {
        Node *condition = node_create(parser, NODE_CONDITION, line);
        condition->as.condition.yes = node;
        condition->as.condition.test = parse_or(parser);
        if (parser_skip_name(parser, "else")) condition->as.condition.no = parse_expression(parser);
        node_adopt(parser, node_adopt(parser, condition, node), condition->as.condition.test);
        node = node_adopt(parser, condition, condition->as.condition.no);
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
        if (parser_at(parser, "in")) {
            *ret_op = COMPARE_IN;
        } else if (parser_at(parser, "not") && token_is_name(parser_look(parser), "in")) {
            parser_next(parser);
            *ret_op = COMPARE_NOT_IN;
        } else {
            return false;
        }
        break;
    default:
        return false;
    }
    parser_next(parser);
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
            parser_next(parser);
            return true;
        }
    return false;
}

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
    node_list_push(parser, &node->as.list, first);
    while (parser_skip(parser, TOKEN_TILDE))
        node_list_push(parser, &node->as.list, parse_math(parser, 2));
    return node_adopt_list(parser, node, &node->as.list);
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
        node_list_push(parser, &operands, parse_math(parser, 1));
        line = parser->current.line;
    }
    if (operands.count == 0) return first;
    Node *node = node_create(parser, NODE_COMPARE, line);
    node->as.compare.first = first;
    node->as.compare.operand = operands;
    node->as.compare.op = parser_alloc(parser, operands.count * sizeof(CompareOp));
    memcpy(node->as.compare.op, ops, operands.count * sizeof(CompareOp));
    const Node *operand = operands.item[0];
    node->as.compare.is_name_test = operands.count == 1 &&
                                    (ops[0] == COMPARE_EQ || ops[0] == COMPARE_NE) &&
                                    is_short_string(operand);
    return node_adopt_list(parser, node_adopt(parser, node, first), &operands);
}

static Node *parse_not(Parser *parser)
{
    if (!parser_at(parser, "not")) return parse_compare(parser);
    parser_descend(parser);
    int line = parser->current.line;
    parser_next(parser);
    Node *node = binary_create(parser, NODE_NOT, line, parse_not(parser), NULL);
    parser->depth--;
    return node;
}

static Node *parse_and(Parser *parser)
{
    int line = parser->current.line;
    Node *left = parse_not(parser);
    while (parser_skip_name(parser, "and")) {
        left = binary_create(parser, NODE_AND, line, left, parse_not(parser));
        line = parser->current.line;
    }
    return left;
}

static Node *parse_or(Parser *parser)
{
    int line = parser->current.line;
    Node *left = parse_and(parser);
    while (parser_skip_name(parser, "or")) {
        left = binary_create(parser, NODE_OR, line, left, parse_and(parser));
        line = parser->current.line;
    }
    return left;
}

static bool at_tuple_end(const Parser *parser)
{
    TokenType type = parser->current.type;
    return type == TOKEN_VARIABLE_END || type == TOKEN_BLOCK_END || type == TOKEN_RPAREN;
}

/* One expression, or several with commas between them as a tuple. */
Node *parse_tuple(Parser *parser, TupleRules rules)
{
    int line = parser->current.line;
    NodeList items = {0};
    bool is_tuple = false;
    for (;;) {
        if (items.count > 0) parser_expect(parser, TOKEN_COMMA);
        if (at_tuple_end(parser)) break;
        node_list_push(parser, &items,
                       rules.items == TUPLE_TARGETS ? parse_primary(parser, rules.with_namespace)
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
    return node_adopt_list(parser, node, &items);
}

static Node *parse_list(Parser *parser)
{
    Node *node = node_create(parser, NODE_LIST, parser->current.line);
    parser_next(parser);
    while (parser->current.type != TOKEN_RBRACKET) {
        if (node->as.list.count > 0) parser_expect(parser, TOKEN_COMMA);
        if (parser->current.type == TOKEN_RBRACKET) break;
        node_list_push(parser, &node->as.list, parse_expression(parser));
    }
    parser_next(parser);
    return node_adopt_list(parser, node, &node->as.list);
}

static Node *parse_dict(Parser *parser)
{
    Node *node = node_create(parser, NODE_DICT, parser->current.line);
    parser_next(parser);
    while (parser->current.type != TOKEN_RBRACE) {
        if (node->as.list.count > 0) parser_expect(parser, TOKEN_COMMA);
        if (parser->current.type == TOKEN_RBRACE) break;
        node_list_push(parser, &node->as.list, parse_expression(parser));
        parser_expect(parser, TOKEN_COLON);
        node_list_push(parser, &node->as.list, parse_expression(parser));
    }
    parser_next(parser);
    return node_adopt_list(parser, node, &node->as.list);
}

/* Strings that stand side by side are one, as in Python. */
static Node *parse_string(Parser *parser)
{
    int line = parser->current.line;
    String text = parser->current.text;
    parser_next(parser);
    while (parser->current.type == TOKEN_STRING) {
        const String *more = &parser->current.text;
        char *joined = parser_alloc(parser, (size_t)text.length + more->length + 1);
        memcpy(joined, text.bytes, text.length);
        memcpy(joined + text.length, more->bytes, more->length);
        text.bytes = joined;
        text.length += more->length;
        parser_next(parser);
    }
    text.chars = CHARS_UNKNOWN;
    return const_create(parser, line,
                        value_of_string(parser_intern(parser, &text), ORIGIN_PLAIN_TEMPLATE));
}

Node *parse_name(Parser *parser, bool with_namespace)
{
    int line = parser->current.line;
    const String *name = parser_name(parser);
    bool is_true = string_is(name, "true") || string_is(name, "True");
    if (is_true || string_is(name, "false") || string_is(name, "False"))
        return const_create(parser, line, value_bool(is_true));
    if (string_is(name, "none") || string_is(name, "None"))
        return const_create(parser, line, value_none());
    Node *node = node_create(parser, NODE_NAME, line);
    node->as.name.text = name;
    if (!with_namespace || parser->current.type != TOKEN_DOT) return node;
    parser_next(parser);
    Node *target = node_create(parser, NODE_NSREF, line);
    target->as.nsref.name = node;
    target->as.nsref.attribute = parser_name(parser);
    return target;
}

Node *parse_primary(Parser *parser, bool with_namespace)
{
    Token token = parser->current;
    switch (token.type) {
    case TOKEN_NAME:
        return parse_name(parser, with_namespace);
    case TOKEN_STRING:
        return parse_string(parser);
    case TOKEN_INTEGER:
        parser_next(parser);
        return const_create(parser, token.line, value_int(token.integer));
    case TOKEN_FLOAT:
        parser_next(parser);
        return const_create(parser, token.line, value_float(token.real));
    case TOKEN_LPAREN:
        parser_next(parser);
        Node *node = parse_tuple(parser, (TupleRules){.parenthesised = true});
        parser_expect(parser, TOKEN_RPAREN);
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
    parser_next(parser);
    TokenType type = parser->current.type;
    if (type != TOKEN_COLON && type != TOKEN_RBRACKET && type != TOKEN_COMMA)
        node->as.slice.stop = parse_expression(parser);
    if (parser_skip(parser, TOKEN_COLON)) {
        type = parser->current.type;
        if (type != TOKEN_RBRACKET && type != TOKEN_COMMA)
            node->as.slice.step = parse_expression(parser);
    }
    node_adopt(parser, node_adopt(parser, node, start), node->as.slice.stop);
    return node_adopt(parser, node, node->as.slice.step);
}

static Node *parse_dot(Parser *parser, Node *object)
{
    int line = parser->current.line;
    parser_next(parser);
    Token token = parser->current;
    if (token.type == TOKEN_NAME) {
        Node *node = node_create(parser, NODE_GETATTR, line);
        node->as.get.object = object;
        node->as.get.attribute = value_of_string(parser_name(parser), ORIGIN_PLAIN_TEMPLATE);
        const String *name = node->as.get.attribute.as.string;
        node->as.get.maybe_method = dict_method_known(name);
        node->as.get.dict_method = method_find((Value){.type = VALUE_DICT}, name);
        node->as.get.string_method = string_method_find(name);
        return node_adopt(parser, node, object);
    }
    parser_next(parser);
    if (token.type != TOKEN_INTEGER)
        compile_fail(parser->compile, token.line, "expected name or number");
    Node *node = node_create(parser, NODE_GETITEM, line);
    node->as.get.object = object;
    node->as.get.key = const_create(parser, token.line, value_int(token.integer));
    return node_adopt(parser, node, object);
}

static Node *parse_brackets(Parser *parser, Node *object)
{
    int line = parser->current.line;
    parser_next(parser);
    NodeList keys = {0};
    while (parser->current.type != TOKEN_RBRACKET) {
        if (keys.count > 0) parser_expect(parser, TOKEN_COMMA);
        node_list_push(parser, &keys, parse_subscribed(parser));
    }
    parser_next(parser);
    Node *node = node_create(parser, NODE_GETITEM, line);
    node->as.get.object = object;
    if (keys.count == 1) {
        node->as.get.key = keys.item[0];
    } else {
        node->as.get.key = node_create(parser, NODE_TUPLE, line);
        node->as.get.key->as.list = keys;
        node_adopt_list(parser, node->as.get.key, &keys);
    }
    return node_adopt(parser, node_adopt(parser, node, object), node->as.get.key);
}

static void keyword_push(Parser *parser, CallArgs *args, const String *name, Node *value)
{
    size_t count = args->keyword.count;
    if ((count & (count - 1)) == 0) { /* full at powers of two */
        const String **names = parser_alloc(parser, (count == 0 ? 1 : 2 * count) * sizeof *names);
        if (count > 0) memcpy(names, args->keyword_name, count * sizeof *names);
        args->keyword_name = names;
    }
    args->keyword_name[count] = name;
    node_list_push(parser, &args->keyword, value);
}

static CallArgs parse_args(Parser *parser)
{
    CallArgs args = {0};
    int line = parser->current.line;
    bool first = true;
    parser_expect(parser, TOKEN_LPAREN);
    while (parser->current.type != TOKEN_RPAREN) {
        if (!first) {
            parser_expect(parser, TOKEN_COMMA);
            if (parser->current.type == TOKEN_RPAREN) break;
        }
        first = false;
        bool valid;
        if (parser_skip(parser, TOKEN_MUL)) {
            valid = args.star == NULL && args.star_star == NULL;
            args.star = parse_expression(parser);
        } else if (parser_skip(parser, TOKEN_POW)) {
            valid = args.star_star == NULL;
            args.star_star = parse_expression(parser);
        } else if (parser->current.type == TOKEN_NAME &&
                   parser_look(parser)->type == TOKEN_ASSIGN) {
            valid = args.star_star == NULL;
            const String *name = parser_name(parser);
            parser_next(parser);
            keyword_push(parser, &args, name, parse_expression(parser));
        } else {
            valid = args.star == NULL && args.star_star == NULL && args.keyword.count == 0;
            node_list_push(parser, &args.positional, parse_expression(parser));
        }
        if (!valid)
            compile_fail(parser->compile, line, "invalid syntax for function call expression");
    }
    parser_next(parser);
    return args;
}

/* Completes a call, filter or test. */
static Node *adopt_call(Parser *parser, Node *node)
{
    const CallArgs *args = &node->as.call.args;
    node_adopt(parser, node, node->as.call.callee);
    node_adopt_list(parser, node, &args->positional);
    node_adopt_list(parser, node, &args->keyword);
    return node_adopt(parser, node_adopt(parser, node, args->star), args->star_star);
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
    const String *name = parser_name(parser);
    while (parser_skip(parser, TOKEN_DOT)) {
        const String *more = parser_name(parser);
        char *text = arena_printf(parser->compile->arena, "%.*s.%.*s", (int)name->length,
                                  name->bytes, (int)more->length, more->bytes);
        String joined = {
            .bytes = text, .length = name->length + 1 + more->length, .chars = CHARS_UNKNOWN};
        name = parser_keep(parser, &joined);
    }
    return name;
}

/* The name and arguments of a filter; `subject` is NULL in filter blocks. */
Node *parse_one_filter(Parser *parser, Node *subject)
{
    Node *node = node_create(parser, NODE_FILTER, parser->current.line);
    node->as.call.callee = subject;
    node->as.call.name = parse_dotted_name(parser);
    if (parser->current.type == TOKEN_LPAREN) node->as.call.args = parse_args(parser);
    return adopt_call(parser, node);
}

Node *parse_filters(Parser *parser, Node *subject)
{
    while (parser_skip(parser, TOKEN_PIPE))
        subject = parse_one_filter(parser, subject);
    return subject;
}

static bool at_test_argument(const Parser *parser)
{
    switch (parser->current.type) {
    case TOKEN_NAME:
        return !parser_at(parser, "else") && !parser_at(parser, "or") && !parser_at(parser, "and");
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
    parser_next(parser);
    bool negated = parser_skip_name(parser, "not");
    Node *node = node_create(parser, NODE_TEST, line);
    node->as.call.callee = subject;
    node->as.call.name = parse_dotted_name(parser);
    if (parser->current.type == TOKEN_LPAREN) {
        node->as.call.args = parse_args(parser);
    } else if (at_test_argument(parser)) {
        if (parser_at(parser, "is"))
            compile_fail(parser->compile, parser->current.line,
                         "You cannot chain multiple tests with is");
        Node *argument = parse_postfix(parser, parse_primary(parser, false));
        node_list_push(parser, &node->as.call.args.positional, argument);
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
    parser_descend(parser);
    int line = parser->current.line;
    Node *node;
    if (parser_skip(parser, TOKEN_SUB)) {
        node = binary_create(parser, NODE_NEGATIVE, line, parse_unary(parser, false), NULL);
    } else if (parser_skip(parser, TOKEN_ADD)) {
        node = binary_create(parser, NODE_POSITIVE, line, parse_unary(parser, false), NULL);
    } else {
        node = parse_primary(parser, false);
    }
    node = parse_postfix(parser, node);
    while (with_filters) {
        if (parser->current.type == TOKEN_PIPE) {
            node = parse_filters(parser, node);
        } else if (parser_at(parser, "is")) {
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
