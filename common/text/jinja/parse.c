/* Statements, and the stream of tokens under the parser. */
#include "text/jinja/parser.h"

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

void *parser_alloc(Parser *parser, size_t bytes)
{
    return compile_alloc(parser->compile, bytes);
}

Node *node_create(Parser *parser, NodeKind kind, int line)
{
    Node *node = parser_alloc(parser, sizeof *node);
    node->kind = kind;
    node->line = line;
    return node;
}

void parser_next(Parser *parser)
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

const Token *parser_look(Parser *parser)
{
    if (!parser->has_ahead) lexer_next(&parser->lexer, &parser->ahead);
    parser->has_ahead = true;
    return &parser->ahead;
}

bool token_is_name(const Token *token, const char *name)
{
    return token->type == TOKEN_NAME && string_is(&token->text, name);
}

bool parser_at(const Parser *parser, const char *name)
{
    return token_is_name(&parser->current, name);
}

bool parser_skip_name(Parser *parser, const char *name)
{
    if (!parser_at(parser, name)) return false;
    parser_next(parser);
    return true;
}

bool parser_skip(Parser *parser, TokenType type)
{
    if (parser->current.type != type) return false;
    parser_next(parser);
    return true;
}

_Noreturn void parser_fail_expected(Parser *parser, const char *expected)
{
    if (parser->current.type == TOKEN_END)
        compile_fail(parser->compile, parser->current.line,
                     "unexpected end of template, expected '%s'.", expected);
    compile_fail(parser->compile, parser->current.line, "expected token '%s', got '%s'", expected,
                 token_describe(parser->compile, &parser->current));
}

void parser_expect(Parser *parser, TokenType type)
{
    if (parser->current.type != type) parser_fail_expected(parser, token_type_name(type));
    parser_next(parser);
}

void parser_expect_name(Parser *parser, const char *name)
{
    if (!parser_at(parser, name)) parser_fail_expected(parser, name);
    parser_next(parser);
}

const String *parser_keep(Parser *parser, const String *string)
{
    String *copy = parser_alloc(parser, sizeof *copy);
    *copy = *string;
    string_chars(copy);
    return copy;
}

/* Of all bytes of a short string, which nearly all are, without a loop. */
static uint64_t intern_hash(const char *bytes, size_t length)
{
    uint64_t head = 0, tail = 0;
    if (length > 16) return hash_bytes(bytes, length);
    if (length >= 8) {
        memcpy(&head, bytes, 8);
        memcpy(&tail, bytes + length - 8, 8);
    } else if (length >= 4) {
        memcpy(&head, bytes, 4);
        memcpy(&tail, bytes + length - 4, 4);
    } else if (length > 0) {
        head = (unsigned char)bytes[0];
        tail = (uint64_t)(unsigned char)bytes[length / 2] << 8 | (unsigned char)bytes[length - 1];
    }
    uint64_t mixed = (head ^ length) * 0x9E3779B97F4A7C15u + tail;
    return (mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B9u >> 20;
}

static uint32_t *intern_first(InternTable *table, size_t length)
{
    return &table->first[length < 31 ? length : 31];
}

static uint32_t first_bit(const char *bytes, size_t length)
{
    return length > 0 ? 1u << ((unsigned char)bytes[0] & 31) : 1;
}

static size_t intern_place(const InternTable *table, const char *bytes, size_t length)
{
    size_t mask = table->size - 1, at = intern_hash(bytes, length) & mask;
    while (table->slot[at] != NULL && (table->slot[at]->length != length ||
                                       !bytes_equal(table->slot[at]->bytes, bytes, length)))
        at = (at + 1) & mask;
    return at;
}

const String *intern_find(const InternTable *table, const char *bytes, size_t length)
{
    bool may_be = (*intern_first((InternTable *)table, length) & first_bit(bytes, length)) != 0;
    return may_be ? table->slot[intern_place(table, bytes, length)] : NULL;
}

static void intern_grow(Parser *parser, InternTable *table)
{
    InternTable grown = *table;
    grown.size = table->size == 0 ? 64 : 2 * table->size;
    grown.slot = parser_alloc(parser, grown.size * sizeof *grown.slot);
    for (size_t i = 0; i < table->size; i++) {
        const String *string = table->slot[i];
        if (string != NULL)
            grown.slot[intern_place(&grown, string->bytes, string->length)] = string;
    }
    *table = grown;
}

const String *parser_intern(Parser *parser, const String *string)
{
    InternTable *table = &parser->template->interned;
    if (2 * table->count >= table->size) intern_grow(parser, table);
    size_t at = intern_place(table, string->bytes, string->length);
    if (table->slot[at] == NULL) {
        Name *name = parser_alloc(parser, sizeof *name);
        name->string = *string;
        string_chars(&name->string);
        name->string.interned = true;
        name->member = message_member_kind(string->bytes, string->length);
        name->is_attribute = attribute_known(string);
        name->variable = NAME_NO_VARIABLE;
        table->slot[at] = &name->string;
        *intern_first(table, string->length) |= first_bit(string->bytes, string->length);
        table->count++;
    }
    return table->slot[at];
}

const String *parser_name(Parser *parser)
{
    if (parser->current.type != TOKEN_NAME) parser_fail_expected(parser, "name");
    const String *name = parser_intern(parser, &parser->current.text);
    parser_next(parser);
    return name;
}

void parser_descend(Parser *parser)
{
    if (++parser->depth > TEMPLATE_NESTING_MAX)
        compile_fail(parser->compile, parser->current.line, "nested deeper than %d levels",
                     TEMPLATE_NESTING_MAX);
}

Node *node_adopt(Parser *parser, Node *node, const Node *child)
{
    if (child != NULL && child->height >= node->height) {
        node->height = child->height + 1;
        if (node->height > TEMPLATE_HEIGHT_MAX)
            compile_fail(parser->compile, node->line, "an expression of more than %d levels",
                         TEMPLATE_HEIGHT_MAX);
    }
    return node;
}

Node *node_adopt_list(Parser *parser, Node *node, const NodeList *list)
{
    for (size_t i = 0; i < list->count; i++)
        node_adopt(parser, node, list->item[i]);
    return node;
}

/* ---- lists of nodes ---- */

void node_list_push(Parser *parser, NodeList *list, Node *node)
{
    size_t count = list->count;
    if ((count & (count - 1)) == 0) { /* full at powers of two */
        Node **grown = parser_alloc(parser, (count == 0 ? 1 : 2 * count) * sizeof *grown);
        if (count > 0) memcpy(grown, list->item, count * sizeof *grown);
        list->item = grown;
    }
    list->item[list->count++] = node;
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

static Node *parse_target(Parser *parser, bool with_namespace)
{
    Node *node =
        parse_tuple(parser, (TupleRules){.items = TUPLE_TARGETS, .with_namespace = with_namespace});
    check_target(parser, node);
    return node;
}

static Node *parse_name_target(Parser *parser)
{
    if (parser->current.type != TOKEN_NAME) parser_fail_expected(parser, "name");
    Node *node = parse_name(parser, false);
    check_target(parser, node);
    return node;
}

/* ---- statements ---- */

static Node *parse_set(Parser *parser)
{
    int line = parser->current.line;
    parser_next(parser);
    Node *target = parse_target(parser, true);
    bool is_block = parser->current.type != TOKEN_ASSIGN;
    Node *node = node_create(parser, is_block ? NODE_SET_BLOCK : NODE_SET, line);
    node->as.set.target = target;
    if (!is_block) {
        parser_next(parser);
        node->as.set.value = parse_tuple(parser, (TupleRules){0});
        return node;
    }
    node->as.set.value = parse_filters(parser, NULL);
    node->as.set.body = parse_body(parser, ends_set);
    parser_next(parser);
    return node;
}

/* What stands between `else`, if that is where the parser is, and the end tag, and that tag. */
static NodeList parse_else(Parser *parser, const char *const *end_tags)
{
    NodeList body = {0};
    bool has_else = parser_at(parser, "else");
    parser_next(parser);
    if (has_else) {
        body = parse_body(parser, end_tags);
        parser_next(parser);
    }
    return body;
}

static Node *parse_for(Parser *parser)
{
    Node *node = node_create(parser, NODE_FOR, parser->current.line);
    parser_next(parser);
    node->as.loop.target = parse_target(parser, false);
    parser_expect_name(parser, "in");
    node->as.loop.source = parse_tuple(parser, (TupleRules){.items = TUPLE_WITHOUT_CONDITION});
    if (parser_skip_name(parser, "if")) node->as.loop.test = parse_expression(parser);
    node->as.loop.recursive = parser_skip_name(parser, "recursive");
    node->as.loop.body = parse_body(parser, ends_for);
    node->as.loop.otherwise = parse_else(parser, ends_for_else);
    return node;
}

static Node *parse_if(Parser *parser)
{
    Node *node = node_create(parser, NODE_IF, parser->current.line);
    NodeList *body = NULL; /* one per branch */
    size_t count = 0;
    do {
        parser_next(parser);
        Node *test = parse_tuple(parser, (TupleRules){.items = TUPLE_WITHOUT_CONDITION});
        node_list_push(parser, &node->as.branch.test, test);
        if ((count & (count - 1)) == 0) { /* full at powers of two */
            NodeList *grown = parser_alloc(parser, (count == 0 ? 1 : 2 * count) * sizeof *grown);
            if (count > 0) memcpy(grown, body, count * sizeof *grown);
            body = grown;
        }
        body[count++] = parse_body(parser, ends_if);
    } while (parser_at(parser, "elif"));
    node->as.branch.body = body;
    node->as.branch.otherwise = parse_else(parser, ends_else);
    return node;
}

static Node *parse_with(Parser *parser)
{
    Node *node = node_create(parser, NODE_WITH, parser->current.line);
    parser_next(parser);
    while (parser->current.type != TOKEN_BLOCK_END) {
        if (node->as.block.targets.count > 0) parser_expect(parser, TOKEN_COMMA);
        node_list_push(parser, &node->as.block.targets, parse_target(parser, false));
        parser_expect(parser, TOKEN_ASSIGN);
        node_list_push(parser, &node->as.block.values, parse_expression(parser));
    }
    node->as.block.body = parse_body(parser, ends_with);
    parser_next(parser);
    return node;
}

static void parse_signature(Parser *parser, MacroNode *macro)
{
    NodeList parameters = {0};
    parser_expect(parser, TOKEN_LPAREN);
    while (parser->current.type != TOKEN_RPAREN) {
        if (parameters.count > 0) parser_expect(parser, TOKEN_COMMA);
        Node *name = parse_name_target(parser);
        compile_work(parser->compile, parameters.count);
        for (size_t i = 0; i < parameters.count; i++)
            if (parameters.item[i]->as.name.text == name->as.name.text)
                compile_fail(parser->compile, name->line, "duplicate argument '%.*s'",
                             (int)name->as.name.text->length, name->as.name.text->bytes);
        if (parser_skip(parser, TOKEN_ASSIGN)) {
            node_list_push(parser, &macro->defaults, parse_expression(parser));
        } else if (macro->defaults.count > 0) {
            compile_fail(parser->compile, parser->current.line,
                         "non-default argument follows default argument");
        }
        node_list_push(parser, &parameters, name);
    }
    parser_next(parser);
    macro->parameter = parameters.item;
    macro->num_parameters = parameters.count;
}

static Node *parse_macro(Parser *parser)
{
    Node *node = node_create(parser, NODE_MACRO, parser->current.line);
    MacroNode *macro = node->as.macro.macro = parser_alloc(parser, sizeof *macro);
    parser_next(parser);
    macro->name = parse_name_target(parser)->as.name.text;
    parse_signature(parser, macro);
    macro->body = parse_body(parser, ends_macro);
    parser_next(parser);
    return node;
}

static Node *parse_call_block(Parser *parser)
{
    Node *node = node_create(parser, NODE_CALL_BLOCK, parser->current.line);
    MacroNode *macro = node->as.macro.macro = parser_alloc(parser, sizeof *macro);
    parser_next(parser);
    if (parser->current.type == TOKEN_LPAREN) parse_signature(parser, macro);
    node->as.macro.call = parse_expression(parser);
    if (node->as.macro.call->kind != NODE_CALL)
        compile_fail(parser->compile, node->line, "expected call");
    macro->body = parse_body(parser, ends_call);
    parser_next(parser);
    return node;
}

static Node *parse_generation(Parser *parser)
{
    Node *node = node_create(parser, NODE_GENERATION, parser->current.line);
    node->as.macro.macro = parser_alloc(parser, sizeof(MacroNode));
    parser_next(parser);
    node->as.macro.macro->body = parse_body(parser, ends_generation);
    parser_next(parser);
    parser->template->has_generation = true;
    return node;
}

static Node *parse_filter_block(Parser *parser)
{
    Node *node = node_create(parser, NODE_FILTER_BLOCK, parser->current.line);
    parser_next(parser);
    node->as.block.filter = parse_filters(parser, parse_one_filter(parser, NULL));
    node->as.block.body = parse_body(parser, ends_filter);
    parser_next(parser);
    return node;
}

static Node *parse_print(Parser *parser)
{
    Node *node = node_create(parser, NODE_OUTPUT, parser->current.line);
    parser_next(parser);
    while (parser->current.type != TOKEN_BLOCK_END) {
        if (node->as.list.count > 0) parser_expect(parser, TOKEN_COMMA);
        node_list_push(parser, &node->as.list, parse_expression(parser));
    }
    return node;
}

static Node *parse_loop_control(Parser *parser)
{
    Node *node = node_create(parser, parser_at(parser, "break") ? NODE_BREAK : NODE_CONTINUE,
                             parser->current.line);
    parser_next(parser);
    return node;
}

/* include, import, from: transformers gives its environment no loader, so they fail when they are
 * reached. */
static Node *parse_unavailable(Parser *parser)
{
    Node *node = node_create(parser, NODE_UNAVAILABLE, parser->current.line);
    node->as.reason = "no loader for this environment specified";
    while (parser->current.type != TOKEN_BLOCK_END && parser->current.type != TOKEN_END)
        parser_next(parser);
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
        if (parser_at(parser, end_tags[i])) return true;
    return false;
}

static bool is_addition(const Node *node)
{
    return node->kind == NODE_BINARY && node->as.binary.op == BINARY_ADD;
}

/* What is added up to be printed is known one by one, so that it can be printed one by one. */
static void list_summands(Parser *parser, Node *sum)
{
    size_t count = 1;
    for (const Node *left = sum; is_addition(left); left = left->as.binary.left)
        count++;
    NodeList list = {.item = parser_alloc(parser, count * sizeof(Node *)), .count = count};
    Node *left = sum;
    for (; is_addition(left); left = left->as.binary.left)
        list.item[--count] = left->as.binary.right;
    list.item[0] = left;
    sum->as.binary.sum = list;
}

/* Output of text and expressions in a row is one node. */
static void output_push(Parser *parser, NodeList *body, Node **output, Node *node)
{
    if (*output == NULL) {
        *output = node_create(parser, NODE_OUTPUT, node->line);
        node_list_push(parser, body, *output);
    }
    if (is_addition(node)) list_summands(parser, node);
    node_list_push(parser, &(*output)->as.list, node);
}

/* Text and statements up to one of the end tags (NULL: the end of the template). Stands on the
 * tag's name after. */
static NodeList parse_until(Parser *parser, const char *const *end_tags)
{
    NodeList body = {0};
    Node *output = NULL;
    while (parser->current.type != TOKEN_END) {
        Token token = parser->current;
        parser_next(parser);
        if (token.type == TOKEN_DATA) {
            const String *text = parser_keep(parser, &token.text);
            output_push(
                parser, &body, &output,
                const_create(parser, token.line, value_of_string(text, ORIGIN_PLAIN_TEMPLATE)));
        } else if (token.type == TOKEN_VARIABLE_BEGIN) {
            output_push(parser, &body, &output, parse_tuple(parser, (TupleRules){0}));
            parser_expect(parser, TOKEN_VARIABLE_END);
        } else {
            output = NULL;
            if (at_end_tag(parser, end_tags)) return body;
            node_list_push(parser, &body, parse_statement(parser));
            parser_expect(parser, TOKEN_BLOCK_END);
        }
    }
    if (end_tags != NULL) fail_tag(parser, NULL, parser->current.line);
    return body;
}

/* The body of a block: from the end of its opening tag. */
static NodeList parse_body(Parser *parser, const char *const *end_tags)
{
    parser_skip(parser, TOKEN_COLON);
    parser_expect(parser, TOKEN_BLOCK_END);
    parser->end[parser->num_ends++] = end_tags; /* as deep as `tag` at most */
    NodeList body = parse_until(parser, end_tags);
    parser->num_ends--;
    return body;
}

void template_parse(Compile *compile, const char *source, size_t length, Template *ret)
{
    Parser *parser = compile_alloc(compile, sizeof *parser);
    parser->compile = compile;
    parser->template = ret;
    lexer_init(&parser->lexer, compile, source, length);
    parser->current.line = 1;
    parser_next(parser);
    ret->body = parse_until(parser, NULL);
}
