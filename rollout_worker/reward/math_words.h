/* The vocabulary of mathematical answers: what LaTeX commands, Unicode signs and plain words mean,
 * and which words behind a number are its unit. Constant tables; any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_MATH_WORDS_H
#define TROUPE_ROLLOUT_WORKER_REWARD_MATH_WORDS_H

#include <stdint.h>

#include "rollout_worker/reward/math_lex.h"

typedef enum {
    COMMAND_SKIPPED,     /* typography */
    COMMAND_SPACE,       /* white space */
    COMMAND_SPACE_GROUP, /* white space with an argument */
    COMMAND_TEXT,        /* its argument is words */
    COMMAND_FONT,        /* its argument is words or mathematics in another face */
    COMMAND_SET_LETTER,  /* its argument is the letter of a set */
    COMMAND_SET,         /* `means` is the letter of a set */
    COMMAND_MARK,        /* `means` is a TOKEN_CHAR */
    COMMAND_ALIAS,       /* `means` is another command */
    COMMAND_BEGIN,
    COMMAND_END,
} MathCommandRole;

typedef struct MathCommand {
    const char *name;
    MathCommandRole role;
    const char *means;
} MathCommand;

const MathCommand *math_command_find(Slice name); /* NULL: the command stands for itself */
const char *math_unicode_latex(uint32_t code);    /* LaTeX for a sign, or NULL */

/* Words without a backslash, as people write answers; letter case counts for commands. */
const char *math_word_command(Slice word); /* "sqrt", "pi", "infinity" ...; NULL: not one */
bool math_word_is_separator(Slice word);   /* and, or */
bool math_word_is_percent(Slice word);

/* Turns runs of letters into products, words or units, and marks the units that stand behind a
 * value at the end of an answer or of a part of a list. False when there are too many tokens then.
 */
bool math_resolve_words(MathTokens *tokens);

/* Marks as units the letters behind a number that could be one or a variable (`5 m`). True when
 * there are any. */
bool math_mark_letter_units(MathTokens *tokens);

#endif
