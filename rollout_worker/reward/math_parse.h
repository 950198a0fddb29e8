/* What math_parse.c and math_atom.c, the two halves of the parser, share. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_MATH_PARSE_H
#define TROUPE_ROLLOUT_WORKER_REWARD_MATH_PARSE_H

#include "rollout_worker/reward/math_node.h"

typedef struct MathParser {
    Arena *arena;
    MathToken *token; /* ends with TOKEN_END; owned by the arena, so that numbers can be cut */
    int at;
    int depth;
    int nodes;
    int bars; /* | that are open: the next one closes */
    int trig; /* arguments of trigonometric functions that are open: degrees count */
} MathParser;

/* All return NULL when the tokens are not understood; the place is undefined then. */
MathNode *math_parse_sum(MathParser *parser);
MathNode *math_parse_product(MathParser *parser, bool functions); /* by juxtaposition */
MathNode *math_parse_atom(MathParser *parser);
MathNode *math_parse_group(MathParser *parser); /* { ... }, or one digit, letter or command */
/* Elements up to the closing mark, which is passed; a node of `kind`. */
MathNode *math_parse_elements(MathParser *parser, MathKind kind, const char *closers,
                              char *ret_closer);

/* A node, counted; NULL when there are too many. */
MathNode *math_parser_node(MathParser *parser, MathKind kind, int count);
MathNode *math_parser_pair(MathParser *parser, MathKind kind, MathNode *a, MathNode *b);
MathNode *math_parser_function(MathParser *parser, MathFunction function, MathNode *a, MathNode *b);
bool math_parser_take(MathParser *parser, char mark); /* passes the mark if it is next */

#endif
