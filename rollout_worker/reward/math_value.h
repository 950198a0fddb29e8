/* What an expression is worth: exactly, where it is rational (GMP), and else as a Ball: a complex
 * number in long double with a radius that bounds (to first order) how far rounding may have moved
 * it, so that cancellation shows as a large radius and never as a false equality. Variables take
 * values that are a function of their name and the number of a point.
 *
 * Powers and roots with an odd index of a negative number are the real ones, as in school; other
 * powers, logarithms and inverse functions are the principal ones. Any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_MATH_VALUE_H
#define TROUPE_ROLLOUT_WORKER_REWARD_MATH_VALUE_H

#include <gmp.h>
#include <stdbool.h>

#include "rollout_worker/reward/math_node.h"

#define MATH_EXACT_BITS_MAX 8192 /* of numerator and of denominator */

/* The exact value of a node without variables. False when it is irrational, undefined, not a
 * number, or too large. *ret is initialised by the caller and overwritten; *work is what may still
 * be spent and shrinks. */
bool math_exact(const MathNode *node, mpq_t ret, long *work);

/* Whether a number with a decimal point is part of the value. */
bool math_has_decimals(const MathNode *node);
bool math_has_symbols(const MathNode *node);

typedef struct Ball {
    long double re, im;
    long double radius; /* infinite or NaN: undefined */
    bool real;          /* known to be on the real line: im is 0 */
} Ball;

/* The value at point number `point` (0, 1, ...). */
Ball math_ball(const MathNode *node, int point, long *work);
bool ball_is_defined(Ball ball);

typedef enum { BALLS_EQUAL, BALLS_DIFFER, BALLS_UNDECIDED } BallOrder;

/* Equal: they overlap and are narrow. Undecided: one is undefined or they overlap and are wide. */
BallOrder ball_compare(Ball a, Ball b);

/* Arithmetic on balls, for comparisons that combine values. */
Ball ball_subtract(Ball a, Ball b);
Ball ball_divide(Ball a, Ball b);
bool ball_is_zero(Ball ball); /* contains 0 */

/* Infinity with its sign (1, -1), or 0 for anything else. */
int math_infinity_sign(const MathNode *node);

#endif
