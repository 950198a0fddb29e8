/* The tokens of a mathematical answer, written in LaTeX or plainly. What is only typography is gone
 * after this step (spacing, \left and \right, \displaystyle, dollar signs, \dfrac for \frac), and
 * what is written in several ways has one (Unicode signs, \lbrace, `pi` for \pi, \text{and} for a
 * comma). Units behind a number are marked, so that `10\text{ cm}^2` and `10 cm` can be read as 10.
 *
 * Any thread; tokens borrow from the text they were made of. Reads any bytes in linear time. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_MATH_LEX_H
#define TROUPE_ROLLOUT_WORKER_REWARD_MATH_LEX_H

#include "rollout_worker/reward/slice.h"

#define MATH_ANSWER_BYTES_MAX  4096 /* longer answers are compared as text */
#define MATH_ANSWER_TOKENS_MAX 1024

typedef enum {
    TOKEN_END = 0,
    TOKEN_NUMBER,  /* digits with at most one point; thousands separators inside `text` */
    TOKEN_LETTER,  /* one ASCII letter: a variable */
    TOKEN_COMMAND, /* `text` is a LaTeX command without its backslash, or a word read as one */
    TOKEN_TEXT,    /* `text` is what stands in \text{...} or a plain word that is no product */
    TOKEN_SET,     /* \mathbb{R}: `text` is the letter */
    TOKEN_CHAR,    /* `mark` is the byte: operators, brackets; '{' '}' group, 'S' 'Z' are \{ \} */
    TOKEN_KIND_COUNT,
} MathTokenKind;

typedef struct MathToken {
    MathTokenKind kind;
    char mark;   /* of TOKEN_CHAR; 'w' for a TOKEN_TEXT that is a plain word; else 0 */
    bool spaced; /* white space before it */
    bool unit;   /* part of a unit at the end: not part of the value */
    Slice text;
} MathToken;

#define MARK_SET_OPEN  'S' /* \{ */
#define MARK_SET_CLOSE 'Z' /* \} */

typedef struct MathTokens {
    MathToken token[MATH_ANSWER_TOKENS_MAX + 1]; /* the last one is TOKEN_END */
    int count;                                   /* without TOKEN_END */
} MathTokens;

/* False when the answer is too long. */
bool math_lex(Slice answer, MathTokens *ret);

/* Nothing but words, letters and the punctuation between them. */
bool math_tokens_are_letters(const MathTokens *tokens);

bool math_token_is_command(const MathToken *token, const char *name);
bool math_token_is_mark(const MathToken *token, char mark);

#endif
