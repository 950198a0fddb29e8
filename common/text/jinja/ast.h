/* The syntax tree of a template and how it comes about: lex.c cuts the source into tokens,
 * parse.c makes nodes of them, scope.c turns names into slots. Internal to common/text.
 * All of it lives in one arena, and is const once compiled.
 *
 * Syntax and scoping are those of Jinja 3.1 (jinja.palletsprojects.com/en/stable/templates), set up
 * as transformers does it: trim_blocks, lstrip_blocks, break and continue, {% generation %}. */
#ifndef TROUPE_TEXT_JINJA_AST_H
#define TROUPE_TEXT_JINJA_AST_H

#include <setjmp.h>

#include "base/memory.h"
#include "text/jinja/run.h"
#include "text/jinja/value.h"

/* ---- tokens ---- */

typedef enum {
    TOKEN_END,
    TOKEN_DATA,
    TOKEN_VARIABLE_BEGIN,
    TOKEN_VARIABLE_END,
    TOKEN_BLOCK_BEGIN,
    TOKEN_BLOCK_END,
    TOKEN_NAME,
    TOKEN_STRING,
    TOKEN_INTEGER,
    TOKEN_FLOAT,
    TOKEN_ADD,
    TOKEN_SUB,
    TOKEN_DIV,
    TOKEN_FLOORDIV,
    TOKEN_MUL,
    TOKEN_MOD,
    TOKEN_POW,
    TOKEN_TILDE,
    TOKEN_LBRACKET,
    TOKEN_RBRACKET,
    TOKEN_LPAREN,
    TOKEN_RPAREN,
    TOKEN_LBRACE,
    TOKEN_RBRACE,
    TOKEN_EQ,
    TOKEN_NE,
    TOKEN_GT,
    TOKEN_GTEQ,
    TOKEN_LT,
    TOKEN_LTEQ,
    TOKEN_ASSIGN,
    TOKEN_DOT,
    TOKEN_COLON,
    TOKEN_PIPE,
    TOKEN_COMMA,
    TOKEN_SEMICOLON,
} TokenType;

typedef struct Token {
    TokenType type;
    int line;
    String text; /* TOKEN_DATA, TOKEN_NAME, TOKEN_STRING (unescaped) */
    int64_t integer;
    double real;
} Token;

/* The strings that a template spells, each once: names, attributes, constants. Keys of the input
 * that are among them become the same String, and are then found by comparing pointers. */
typedef struct InternTable {
    const String **slot; /* open addressing; NULL: free */
    size_t size, count;  /* size: a power of two */
    uint32_t first[32];  /* per length (the last: any longer one): bit c & 31 for a first byte c */
} InternTable;

const String *intern_find(const InternTable *table, const char *bytes, size_t length);

/* What the steps of a compilation share. Errors leave by longjmp, as in a Run. */
typedef struct Compile {
    Arena *arena;
    const char *where;
    jmp_buf failed;
    Error *err;
    uint64_t work;
    size_t bytes; /* taken from the arena */
} Compile;

_Noreturn void compile_fail(Compile *compile, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Memory and work of a compilation are bounded. Zeroed memory of the arena. */
void *compile_alloc(Compile *compile, size_t bytes);
void compile_work(Compile *compile, uint64_t work); /* about one unit per name compared */

typedef enum { LEX_ROOT, LEX_BLOCK, LEX_VARIABLE, LEX_RAW } LexState;

typedef struct Lexer {
    Compile *compile;
    const char *source; /* newlines are '\n', and one at the end is gone */
    size_t length, position;
    int line;
    LexState state;
    bool line_starting;
    TokenType pending; /* the begin token found behind the data just returned, or TOKEN_END */
    char open[TEMPLATE_NESTING_MAX]; /* the closing brackets awaited */
    int num_open;
} Lexer;

void lexer_init(Lexer *lexer, Compile *compile, const char *source, size_t length);
void lexer_next(Lexer *lexer, Token *ret);
const char *token_describe(Compile *compile, const Token *token); /* for messages */
const char *token_type_name(TokenType type);

/* ---- nodes ---- */

typedef enum {
    NODE_CONST,
    NODE_NAME,
    NODE_NSREF, /* name.attribute as the target of an assignment */
    NODE_TUPLE,
    NODE_LIST,
    NODE_DICT,
    NODE_CONDITION, /* a if test else b */
    NODE_OR,
    NODE_AND,
    NODE_NOT,
    NODE_NEGATIVE,
    NODE_POSITIVE,
    NODE_BINARY,
    NODE_CONCAT,
    NODE_COMPARE,
    NODE_GETATTR,
    NODE_GETITEM,
    NODE_SLICE,
    NODE_CALL,
    NODE_FILTER,
    NODE_TEST,

    NODE_OUTPUT,
    NODE_FOR,
    NODE_IF,
    NODE_MACRO,
    NODE_CALL_BLOCK,
    NODE_FILTER_BLOCK,
    NODE_SET,
    NODE_SET_BLOCK,
    NODE_WITH,
    NODE_GENERATION,
    NODE_BREAK,
    NODE_CONTINUE,
    NODE_UNAVAILABLE, /* include and its like: there is no loader; fails when reached */
} NodeKind;

typedef enum {
    COMPARE_EQ,
    COMPARE_NE,
    COMPARE_LT,
    COMPARE_LE,
    COMPARE_GT,
    COMPARE_GE,
    COMPARE_IN,
    COMPARE_NOT_IN
} CompareOp;

typedef struct NodeList {
    Node **item;
    size_t count;
} NodeList;

/* A variable as the evaluator finds it: `hops` functions outwards, then a slot. */
typedef struct VarRef {
    uint16_t hops;
    uint16_t slot;
} VarRef;

/* What a scope does with a slot when it is entered. */
typedef struct ScopeLoad {
    enum { LOAD_PARAMETER, LOAD_UNDEFINED, LOAD_CONTEXT, LOAD_ALIAS } kind;
    uint16_t slot;
    uint32_t name; /* LOAD_CONTEXT: index into the template's names */
    VarRef outer;  /* LOAD_ALIAS */
} ScopeLoad;

typedef struct Scope {
    ScopeLoad *load; /* every slot of the scope; LOAD_PARAMETER: set by what enters it */
    size_t count;
} Scope;

/* Arguments as written. `name` of the first num_positional ones is unused. */
typedef struct CallArgs {
    NodeList positional;
    const String **keyword_name;
    NodeList keyword;
    Node *star, *star_star; /* *args, **kwargs, or NULL */
} CallArgs;

struct MacroNode {
    const String *name; /* NULL: of a call block */
    Node **parameter;   /* names */
    size_t num_parameters;
    NodeList defaults; /* of the last ones */
    NodeList body;
    Scope scope;
    uint16_t *parameter_slot;
    uint16_t num_slots;
    bool takes_caller, takes_kwargs, takes_varargs; /* uses these names without declaring them */
    uint16_t caller_slot, kwargs_slot, varargs_slot;
};

struct Node {
    NodeKind kind;
    int height; /* of the expression below it */
    int line;
    union {
        Value constant; /* NODE_CONST */
        struct {
            const String *text;
            VarRef ref;
        } name;
        struct {
            Node *name;
            const String *attribute;
        } nsref;
        NodeList list; /* NODE_TUPLE, NODE_LIST, NODE_CONCAT, NODE_OUTPUT; NODE_DICT: keys and
                          values in turn */
        struct {
            Node *test, *yes, *no; /* `no` may be NULL */
        } condition;
        struct {
            Node *left, *right; /* NODE_NOT, NODE_NEGATIVE, NODE_POSITIVE: left only */
            BinaryOp op;
            NodeList sum; /* a + b + c of an output: a, b, c */
        } binary;
        struct {
            Node *first;
            NodeList operand;
            CompareOp *op;
            bool is_name_test; /* == or != a short string as it stands */
        } compare;
        struct {
            Node *object;
            Value attribute;                         /* NODE_GETATTR: a string */
            CallFunction string_method, dict_method; /* of that name, or NULL */
            bool maybe_method;                       /* dicts have a method of that name */
            Node *key;                               /* NODE_GETITEM: may be a NODE_SLICE */
            /* The key of a dict that this is, if a variable of this function has one: it costs
             * next to nothing to look there first. Else NULL. */
            const String *entry;
        } get;
        struct {
            Node *start, *stop, *step; /* each may be NULL */
        } slice;
        struct {
            Node *callee; /* NODE_FILTER, NODE_TEST: what it is applied to; NULL in filter blocks */
            const String *name;
            const Function *function; /* NULL when unknown: fails when reached */
            CallArgs args;
        } call;
        struct {
            Node *target, *test_target, *source, *test;
            NodeList body, otherwise;
            Scope scope, test_scope, else_scope;
            bool recursive, uses_loop;
            uint16_t loop_slot;
            uint16_t num_slots; /* recursive: of its own function */
        } loop;
        struct {
            NodeList test; /* one per branch */
            NodeList *body;
            NodeList otherwise;
        } branch;
        struct {
            MacroNode *macro;
            VarRef ref; /* NODE_MACRO: where it is stored */
            Node *call; /* NODE_CALL_BLOCK */
        } macro;        /* NODE_MACRO, NODE_CALL_BLOCK, NODE_GENERATION */
        struct {
            Node *target, *value; /* NODE_SET; NODE_SET_BLOCK: value is the filter or NULL */
            NodeList body;
            Scope scope;
        } set;
        struct {
            Node *filter;
            NodeList targets, values; /* NODE_WITH */
            NodeList body;
            Scope scope;
        } block;            /* NODE_FILTER_BLOCK, NODE_WITH */
        const char *reason; /* NODE_UNAVAILABLE */
    } as;
};

struct Template {
    NodeList body;
    Scope scope;
    uint16_t num_slots;
    const String **name; /* names looked up in the variables and globals, each once */
    Value *given;        /* [num_names] the global of that name, or VALUE_MISSING */
    size_t num_names;
    InternTable interned;
    bool has_generation;
};

/* left == 'name' or left != 'name' */
bool compare_name(Run *run, Activation *activation, const Node *node);

/* eval_node, quicker for constants and variables. They count no step: what holds them does. */
static inline Value eval_child(Run *run, Activation *activation, const Node *node)
{
    if (node->kind == NODE_CONST) {
        Value value = node->as.constant;
        value.origin = run->literal_origin;
        return value;
    }
    if (node->kind == NODE_NAME && node->as.name.ref.hops == 0) {
        Value value = activation->slot[node->as.name.ref.slot];
        if (value.type != VALUE_MISSING) return value;
    }
    return eval_node(run, activation, node);
}

/* Source to nodes; names are not yet resolved. */
void template_parse(Compile *compile, const char *source, size_t length, Template *ret);
/* Names to slots; unknown filters and tests are reported, as Jinja does when it compiles. */
void template_resolve(Compile *compile, Template *template);

#endif
