/* MathNode: the tree of a mathematical answer, and the parser that makes it from tokens. A reading
 * of LaTeX as people write answers, not of all of LaTeX: what it does not know is a failure, and
 * the caller compares texts instead.
 *
 * Conventions, where notation is ambiguous: a product without a sign binds tighter than one with
 * (1/2x is 1/(2x)); an integer before a fraction is a mixed number (2\frac{1}{2} is 5/2); \log
 * without a base is base 10; i is the imaginary unit and e Euler's number; letter case is ignored
 * in names; (a,b) is an open interval and a pair at once; degrees count only inside of
 * trigonometric functions.
 *
 * Nodes live in the arena given. Depth and number are bounded. Any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_MATH_NODE_H
#define TROUPE_ROLLOUT_WORKER_REWARD_MATH_NODE_H

#include "base/memory.h"
#include "rollout_worker/reward/math_lex.h"

#define MATH_DEPTH_MAX 64
#define MATH_NODES_MAX 4096

typedef enum {
    NODE_NUMBER, /* text: digits, at most one point; repeat: digits that recur at its end */
    NODE_SYMBOL, /* text: its name, lower case */
    NODE_PI,
    NODE_E,
    NODE_I,
    NODE_INFINITY,
    NODE_ADD, /* any number of arguments, as NODE_MUL */
    NODE_MUL,
    NODE_DIV,        /* two */
    NODE_NEG,        /* one */
    NODE_POW,        /* two */
    NODE_PERCENT,    /* one */
    NODE_PLUS_MINUS, /* two: both a + b and a - b; op is '-' for \mp */
    NODE_FUNCTION,   /* op: MathFunction */
    NODE_MATRIX,     /* row by row; op: columns */
    NODE_LIST,       /* a, b, c without brackets */
    NODE_SET,        /* {a, b, c} */
    NODE_TUPLE,      /* (a, b, c) */
    NODE_INTERVAL,   /* two; op: bit 0 left end belongs to it, bit 1 right end */
    NODE_NAMED_SET,  /* op: N Z Q R C, or 0 for the empty set */
    NODE_UNION,      /* two, as the next ones */
    NODE_INTERSECTION,
    NODE_DIFFERENCE,
    NODE_RELATION, /* arguments with a MathRelation in `relation[i]` between i and i + 1 */
    NODE_TEXT,     /* text: words */
} MathKind;

typedef enum {
    FUNCTION_ROOT, /* root(x, n) */
    FUNCTION_SIN,
    FUNCTION_COS,
    FUNCTION_TAN,
    FUNCTION_COT,
    FUNCTION_SEC,
    FUNCTION_CSC,
    FUNCTION_ARCSIN,
    FUNCTION_ARCCOS,
    FUNCTION_ARCTAN,
    FUNCTION_ARCCOT,
    FUNCTION_ARCSEC,
    FUNCTION_ARCCSC,
    FUNCTION_SINH,
    FUNCTION_COSH,
    FUNCTION_TANH,
    FUNCTION_LOG, /* log(x, base) */
    FUNCTION_LN,
    FUNCTION_EXP,
    FUNCTION_ABS,
    FUNCTION_FLOOR,
    FUNCTION_CEIL,
    FUNCTION_BINOM,
    FUNCTION_FACTORIAL,
    FUNCTION_GCD,
    FUNCTION_LCM,
    FUNCTION_MAX,
    FUNCTION_MIN,
    FUNCTION_MOD,
    FUNCTION_COUNT,
} MathFunction;

typedef enum {
    RELATION_EQUAL,
    RELATION_NOT_EQUAL,
    RELATION_LESS,
    RELATION_LESS_EQUAL,
    RELATION_GREATER,
    RELATION_GREATER_EQUAL,
    RELATION_IN,
    RELATION_APPROX,
} MathRelation;

typedef struct MathNode {
    MathKind kind;
    int op;
    int count;              /* arguments */
    struct MathNode **arg;  /* [count] */
    MathRelation *relation; /* [count - 1] of NODE_RELATION */
    Slice text;
    Slice repeat; /* of NODE_NUMBER */
    int base;     /* of NODE_NUMBER: its subscript, 0 for none */
} MathNode;

/* NULL when the tokens are not understood. Units are passed over. */
MathNode *math_parse(const MathTokens *tokens, Arena *arena);

/* A node with `count` arguments that the caller fills in. */
MathNode *math_node_create(Arena *arena, MathKind kind, int count);

#endif
