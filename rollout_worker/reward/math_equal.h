/* Whether two mathematical answers are the same: the equality behind the rewards `math` and
 * `deepscaler`. The first answer is the expected one and the comparison follows its form: `x = 5`
 * may be answered by `5` and `5` by `x = 5`, an interval may answer an inequality but not the other
 * way round, a list may be answered in any order, a pair may not.
 *
 * Steps: the same tokens; the same words; then both are parsed and compared by what they are
 * (numbers exactly, a decimal number to six places, other expressions at random points with error
 * bounds, sets, intervals, tuples, matrices and relations by their parts). What cannot be parsed is
 * equal only if it is spelled alike. docs/rewards.md has the rules and how they compare with
 * Math-Verify.
 *
 * Any thread; work and memory are bounded whatever the bytes are. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_MATH_EQUAL_H
#define TROUPE_ROLLOUT_WORKER_REWARD_MATH_EQUAL_H

#include "rollout_worker/reward/math_node.h"

bool math_answers_equal(Slice expected, Slice answer);

/* What the parts of the comparison share. */
typedef struct MathCompare {
    Arena *arena;
    long work; /* evaluations that may still be done; below 0 nothing is equal any more */
} MathCompare;

bool math_nodes_equal(MathCompare *compare, MathNode *expected, MathNode *answer);
bool math_scalars_equal(MathCompare *compare, const MathNode *expected, const MathNode *answer);
bool math_relations_equal(MathCompare *compare, MathNode *expected, MathNode *answer);
bool math_collections_equal(MathCompare *compare, MathNode *expected, MathNode *answer);

/* Sets of real numbers as sorted, disjoint segments. */
bool math_is_real_set(const MathNode *node); /* an interval, \mathbb{R}, or a union ... of such */
bool math_real_sets_equal(MathCompare *compare, const MathNode *expected, const MathNode *answer);
/* An inequality of one variable, or a list of them, as intervals; NULL where it is none. */
MathNode *math_inequality_set(MathCompare *compare, const MathNode *relation);

#endif
