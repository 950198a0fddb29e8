/* Equations and inequalities. */
#include <string.h>

#include "rollout_worker/reward/math_equal.h"
#include "rollout_worker/reward/math_value.h"

#define POINTS     8
#define POINTS_MIN 3

static bool is_inequality(MathRelation relation)
{
    return relation >= RELATION_LESS && relation <= RELATION_GREATER_EQUAL;
}

/* The relation read from right to left. */
static MathRelation turned(MathRelation relation)
{
    switch (relation) {
    case RELATION_LESS:
        return RELATION_GREATER;
    case RELATION_LESS_EQUAL:
        return RELATION_GREATER_EQUAL;
    case RELATION_GREATER:
        return RELATION_LESS;
    case RELATION_GREATER_EQUAL:
        return RELATION_LESS_EQUAL;
    default:
        return relation;
    }
}

static Ball side_difference(MathCompare *compare, const MathNode *node, int point)
{
    return ball_subtract(math_ball(node->arg[0], point, &compare->work),
                         math_ball(node->arg[1], point, &compare->work));
}

/* left - right of one is the other's times a constant; *ret_sign is the constant's. */
static bool is_multiple(MathCompare *compare, const MathNode *a, const MathNode *b, int *ret_sign)
{
    Ball first = {0, 0, 0, false};
    int agree = 0;
    for (int point = 0; point < POINTS; point++) {
        Ball ratio =
            ball_divide(side_difference(compare, a, point), side_difference(compare, b, point));
        if (!ball_is_defined(ratio)) continue;
        if (ball_is_zero(ratio)) return false;
        if (agree == 0) first = ratio;
        BallOrder order = ball_compare(first, ratio);
        if (order == BALLS_DIFFER) return false;
        agree += order == BALLS_EQUAL;
    }
    *ret_sign = first.re < 0 ? -1 : 1;
    return agree >= POINTS_MIN;
}

static bool pairs_equal(MathCompare *compare, MathNode *expected, MathNode *answer)
{
    MathRelation relation = expected->relation[0], other = answer->relation[0];
    if (relation == RELATION_IN) relation = RELATION_EQUAL;
    if (other == RELATION_IN) other = RELATION_EQUAL;
    bool direct = relation == other;
    if (!direct && relation != turned(other)) return false;
    if (direct && math_nodes_equal(compare, expected->arg[0], answer->arg[0]) &&
        math_nodes_equal(compare, expected->arg[1], answer->arg[1]))
        return true;
    int sign = 0;
    if (!is_multiple(compare, expected, answer, &sign)) return false;
    return !is_inequality(relation) || (sign > 0) == direct;
}

/* a < x < b, side by side, the second one from its end when `turn` is set. */
static bool chains_equal(MathCompare *compare, MathNode *expected, MathNode *answer, bool turn)
{
    int count = expected->count;
    for (int i = 0; i < count; i++) {
        MathNode *side = answer->arg[turn ? count - 1 - i : i];
        if (!math_nodes_equal(compare, expected->arg[i], side)) return false;
        if (i + 1 == count) continue;
        MathRelation relation =
            turn ? turned(answer->relation[count - 2 - i]) : answer->relation[i];
        if (expected->relation[i] != relation) return false;
    }
    return true;
}

/* 1 <= x <= 2 answered by x \in [1,2]; the other way round an interval was asked for. */
static bool membership_equal(MathCompare *compare, MathNode *expected, MathNode *answer)
{
    if (answer->count != 2 || answer->relation[0] != RELATION_IN) return false;
    MathNode *set = math_inequality_set(compare, expected);
    return set != NULL && math_real_sets_equal(compare, set, answer->arg[1]);
}

bool math_relations_equal(MathCompare *compare, MathNode *expected, MathNode *answer)
{
    if (membership_equal(compare, expected, answer)) return true;
    if (expected->count != answer->count) return false;
    if (expected->count == 2) return pairs_equal(compare, expected, answer);
    return chains_equal(compare, expected, answer, false) ||
           chains_equal(compare, expected, answer, true);
}

static MathNode *infinite(MathCompare *compare, bool negative)
{
    MathNode *node = math_node_create(compare->arena, NODE_INFINITY, 0);
    if (!negative) return node;
    MathNode *sign = math_node_create(compare->arena, NODE_NEG, 1);
    sign->arg[0] = node;
    return sign;
}

static MathNode *interval(MathCompare *compare, MathNode *low, MathNode *high, int op)
{
    MathNode *node = math_node_create(compare->arena, NODE_INTERVAL, 2);
    node->arg[0] = low;
    node->arg[1] = high;
    node->op = op;
    return node;
}

/* x < a and a < x. */
static MathNode *half_line(MathCompare *compare, const MathNode *node)
{
    bool left = node->arg[0]->kind == NODE_SYMBOL;
    MathNode *end = node->arg[left ? 1 : 0];
    if (!left && node->arg[1]->kind != NODE_SYMBOL) return NULL;
    MathRelation relation = left ? node->relation[0] : turned(node->relation[0]);
    switch (relation) {
    case RELATION_LESS:
    case RELATION_LESS_EQUAL:
        return interval(compare, infinite(compare, true), end,
                        relation == RELATION_LESS_EQUAL ? 2 : 0);
    case RELATION_GREATER:
    case RELATION_GREATER_EQUAL:
        return interval(compare, end, infinite(compare, false),
                        relation == RELATION_GREATER_EQUAL ? 1 : 0);
    case RELATION_NOT_EQUAL: {
        MathNode *both = math_node_create(compare->arena, NODE_UNION, 2);
        both->arg[0] = interval(compare, infinite(compare, true), end, 0);
        both->arg[1] = interval(compare, end, infinite(compare, false), 0);
        return both;
    }
    default:
        return NULL;
    }
}

/* a < x < b, and the other way round. */
static MathNode *between(MathCompare *compare, const MathNode *node)
{
    MathRelation low = node->relation[0], high = node->relation[1];
    if (node->arg[1]->kind != NODE_SYMBOL) return NULL;
    bool up = low == RELATION_LESS || low == RELATION_LESS_EQUAL;
    bool up_too = high == RELATION_LESS || high == RELATION_LESS_EQUAL;
    if (up != up_too || !is_inequality(low) || !is_inequality(high)) return NULL;
    int closed = low == RELATION_LESS_EQUAL || low == RELATION_GREATER_EQUAL ? 1 : 0;
    int closed_too = high == RELATION_LESS_EQUAL || high == RELATION_GREATER_EQUAL ? 1 : 0;
    if (up) return interval(compare, node->arg[0], node->arg[2], closed | closed_too << 1);
    return interval(compare, node->arg[2], node->arg[0], closed_too | closed << 1);
}

MathNode *math_inequality_set(MathCompare *compare, const MathNode *relation)
{
    if (relation->kind == NODE_RELATION)
        return relation->count == 2   ? half_line(compare, relation)
               : relation->count == 3 ? between(compare, relation)
                                      : NULL;
    if (relation->kind != NODE_LIST) return NULL;
    MathNode *set = NULL;
    for (int i = 0; i < relation->count; i++) {
        if (relation->arg[i]->kind != NODE_RELATION) return NULL;
        MathNode *part = math_inequality_set(compare, relation->arg[i]);
        if (part == NULL) return NULL;
        if (set != NULL) {
            MathNode *both = math_node_create(compare->arena, NODE_UNION, 2);
            both->arg[0] = set;
            both->arg[1] = part;
            part = both;
        }
        set = part;
    }
    return set;
}
