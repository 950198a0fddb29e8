/* The parser's two halves: parse.c (tokens, statements) and expression.c. Internal to
 * common/text. */
#ifndef TROUPE_TEXT_JINJA_PARSER_H
#define TROUPE_TEXT_JINJA_PARSER_H

#include "text/jinja/ast.h"

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

/* ---- tokens ---- */

void parser_next(Parser *parser);
const Token *parser_look(Parser *parser); /* the token behind the current one */
bool token_is_name(const Token *token, const char *name);
bool parser_at(const Parser *parser, const char *name); /* the current token is this name */
bool parser_skip_name(Parser *parser, const char *name);
bool parser_skip(Parser *parser, TokenType type);
_Noreturn void parser_fail_expected(Parser *parser, const char *expected);
void parser_expect(Parser *parser, TokenType type);
void parser_expect_name(Parser *parser, const char *name);
const String *parser_name(Parser *parser);                       /* takes a name, whichever it is */
const String *parser_keep(Parser *parser, const String *string); /* a copy */
const String *parser_intern(Parser *parser, const String *string); /* the template's one copy */
void parser_descend(Parser *parser); /* one level of brackets or tags deeper; `depth--` goes back */

/* ---- nodes ---- */

void *parser_alloc(Parser *parser, size_t bytes);
Node *node_create(Parser *parser, NodeKind kind, int line);
/* Notes that `child` (or NULL) hangs below `node`, and bounds the height of the tree: what walks it
 * later recurses. Returns `node`. */
Node *node_adopt(Parser *parser, Node *node, const Node *child);
Node *node_adopt_list(Parser *parser, Node *node, const NodeList *list);
void node_list_push(Parser *parser, NodeList *list, Node *node);

/* ---- expressions ---- */

typedef struct TupleRules {
    enum { TUPLE_EXPRESSIONS, TUPLE_WITHOUT_CONDITION, TUPLE_TARGETS } items;
    bool parenthesised;  /* may be empty */
    bool with_namespace; /* TUPLE_TARGETS: a.b is allowed */
} TupleRules;

Node *parse_expression(Parser *parser);
/* One expression, or several with commas between them as a tuple. */
Node *parse_tuple(Parser *parser, TupleRules rules);
Node *parse_primary(Parser *parser, bool with_namespace);
Node *parse_name(Parser *parser, bool with_namespace);
/* The name and arguments of a filter; `subject` is NULL in filter blocks. */
Node *parse_one_filter(Parser *parser, Node *subject);
Node *parse_filters(Parser *parser, Node *subject); /* "|a|b" or nothing */
Node *const_create(Parser *parser, int line, Value value);

#endif
