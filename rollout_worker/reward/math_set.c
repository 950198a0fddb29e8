/* Lists, sets, tuples, matrices, and sets of real numbers. */
#include <math.h>
#include <string.h>

#include "rollout_worker/reward/math_equal.h"
#include "rollout_worker/reward/math_value.h"

#define SEGMENTS_MAX 64
#define ITEMS_MAX    128

/* A part of the real line. Ends are numbers; an infinite one is never closed. */
typedef struct Segment {
    long double low, high;
    bool low_closed, high_closed;
} Segment;

typedef struct Segments {
    Segment item[SEGMENTS_MAX];
    int count;
} Segments;

static bool same_end(long double a, long double b)
{
    if (isinf(a) || isinf(b)) return a == b;
    return fabsl(a - b) <= 1e-12L * fmaxl(1, fmaxl(fabsl(a), fabsl(b)));
}

/* Whether the end of `a` lies before the start of `b` with a gap. */
static bool apart(Segment a, Segment b)
{
    if (same_end(a.high, b.low)) return !a.high_closed && !b.low_closed;
    return a.high < b.low;
}

static bool is_empty(Segment segment)
{
    if (same_end(segment.low, segment.high)) return !segment.low_closed || !segment.high_closed;
    return segment.low > segment.high;
}

static bool add_segment(Segments *set, Segment segment)
{
    if (is_empty(segment)) return true;
    if (set->count == SEGMENTS_MAX) return false;
    int at = set->count++;
    for (; at > 0 && set->item[at - 1].low > segment.low; at--)
        set->item[at] = set->item[at - 1];
    set->item[at] = segment;
    return true;
}

/* Joins segments that touch. */
static void join(Segments *set)
{
    int kept = 0;
    for (int i = 0; i < set->count; i++) {
        Segment next = set->item[i];
        Segment *last = kept == 0 ? NULL : &set->item[kept - 1];
        if (last == NULL || apart(*last, next)) {
            set->item[kept++] = next;
            continue;
        }
        if (same_end(last->low, next.low)) last->low_closed = last->low_closed || next.low_closed;
        if (same_end(last->high, next.high))
            last->high_closed = last->high_closed || next.high_closed;
        else if (next.high > last->high) {
            last->high = next.high;
            last->high_closed = next.high_closed;
        }
    }
    set->count = kept;
}

static bool unite(const Segments *a, const Segments *b, Segments *ret)
{
    *ret = *a;
    for (int i = 0; i < b->count; i++)
        if (!add_segment(ret, b->item[i])) return false;
    join(ret);
    return true;
}

static bool intersect(const Segments *a, const Segments *b, Segments *ret)
{
    ret->count = 0;
    for (int i = 0; i < a->count; i++) {
        for (int k = 0; k < b->count; k++) {
            Segment x = a->item[i], y = b->item[k];
            if (same_end(x.low, y.low))
                x.low_closed = x.low_closed && y.low_closed;
            else if (y.low > x.low) {
                x.low = y.low;
                x.low_closed = y.low_closed;
            }
            if (same_end(x.high, y.high))
                x.high_closed = x.high_closed && y.high_closed;
            else if (y.high < x.high) {
                x.high = y.high;
                x.high_closed = y.high_closed;
            }
            if (!add_segment(ret, x)) return false;
        }
    }
    return true;
}

static bool complement(const Segments *set, Segments *ret)
{
    ret->count = 0;
    Segment gap = {-INFINITY, INFINITY, false, false};
    for (int i = 0; i < set->count; i++) {
        gap.high = set->item[i].low;
        gap.high_closed = !set->item[i].low_closed && !isinf(gap.high);
        if (!add_segment(ret, gap)) return false;
        gap.low = set->item[i].high;
        gap.low_closed = !set->item[i].high_closed && !isinf(gap.low);
    }
    gap.high = INFINITY;
    gap.high_closed = false;
    return add_segment(ret, gap);
}

static bool end_value(MathCompare *compare, const MathNode *node, long double *ret)
{
    int sign = math_infinity_sign(node);
    if (sign != 0) {
        *ret = sign * (long double)INFINITY;
        return true;
    }
    if (math_has_symbols(node)) return false;
    Ball ball = math_ball(node, 0, &compare->work);
    if (!ball_is_defined(ball) || fabsl(ball.im) > ball.radius) return false;
    *ret = ball.re;
    return true;
}

static bool points_of(MathCompare *compare, const MathNode *node, Segments *ret)
{
    ret->count = 0;
    for (int i = 0; i < node->count; i++) {
        long double value = 0;
        if (!end_value(compare, node->arg[i], &value) || isinf(value)) return false;
        if (!add_segment(ret, (Segment){value, value, true, true})) return false;
    }
    join(ret);
    return true;
}

/* False when the node is no set of real numbers with known ends. */
static bool segments_of(MathCompare *compare, const MathNode *node, Segments *ret)
{
    if (--compare->work < 0) return false;
    ret->count = 0;
    switch (node->kind) {
    case NODE_SET:
        return points_of(compare, node, ret);
    case NODE_NAMED_SET:
        if (node->op == 'R') return add_segment(ret, (Segment){-INFINITY, INFINITY, false, false});
        return node->op == 0;
    case NODE_INTERVAL: {
        Segment segment = {0, 0, (node->op & 1) != 0, (node->op & 2) != 0};
        if (!end_value(compare, node->arg[0], &segment.low) ||
            !end_value(compare, node->arg[1], &segment.high))
            return false;
        segment.low_closed = segment.low_closed && !isinf(segment.low);
        segment.high_closed = segment.high_closed && !isinf(segment.high);
        return add_segment(ret, segment);
    }
    case NODE_UNION:
    case NODE_INTERSECTION:
    case NODE_DIFFERENCE: {
        Segments a, b, rest;
        if (!segments_of(compare, node->arg[0], &a) || !segments_of(compare, node->arg[1], &b))
            return false;
        if (node->kind == NODE_UNION) return unite(&a, &b, ret);
        if (node->kind == NODE_INTERSECTION) return intersect(&a, &b, ret);
        return complement(&b, &rest) && intersect(&a, &rest, ret);
    }
    default:
        return false;
    }
}

bool math_is_real_set(const MathNode *node)
{
    return node->kind == NODE_INTERVAL || node->kind == NODE_UNION ||
           node->kind == NODE_INTERSECTION || node->kind == NODE_DIFFERENCE ||
           (node->kind == NODE_NAMED_SET && (node->op == 'R' || node->op == 0));
}

bool math_real_sets_equal(MathCompare *compare, const MathNode *expected, const MathNode *answer)
{
    Segments a, b;
    if (!segments_of(compare, expected, &a) || !segments_of(compare, answer, &b)) return false;
    if (a.count != b.count) return false;
    for (int i = 0; i < a.count; i++) {
        Segment x = a.item[i], y = b.item[i];
        if (!same_end(x.low, y.low) || !same_end(x.high, y.high) || x.low_closed != y.low_closed ||
            x.high_closed != y.high_closed)
            return false;
    }
    return true;
}

static bool equal_in_order(MathCompare *compare, const MathNode *a, const MathNode *b)
{
    if (a->count != b->count) return false;
    for (int i = 0; i < a->count; i++)
        if (!math_nodes_equal(compare, a->arg[i], b->arg[i])) return false;
    return true;
}

/* The items without repetitions. */
static int distinct(MathCompare *compare, const MathNode *node, MathNode *ret[ITEMS_MAX])
{
    int count = 0;
    for (int i = 0; i < node->count; i++) {
        bool seen = false;
        for (int k = 0; k < count && !seen; k++)
            seen = math_nodes_equal(compare, ret[k], node->arg[i]);
        if (!seen) ret[count++] = node->arg[i];
    }
    return count;
}

static bool equal_in_any_order(MathCompare *compare, const MathNode *a, const MathNode *b)
{
    if (a->count > ITEMS_MAX || b->count > ITEMS_MAX) return false;
    MathNode *left[ITEMS_MAX], *right[ITEMS_MAX];
    int count = distinct(compare, a, left);
    if (distinct(compare, b, right) != count) return false;
    for (int i = 0; i < count; i++) {
        int k = i;
        while (k < count && !math_nodes_equal(compare, left[i], right[k]))
            k++;
        if (k == count) return false;
        MathNode *found = right[k];
        right[k] = right[i];
        right[i] = found;
    }
    return true;
}

static bool is_unordered(const MathNode *node)
{
    return node->kind == NODE_LIST || node->kind == NODE_SET;
}

static bool is_ordered(const MathNode *node)
{
    return node->kind == NODE_TUPLE || (node->kind == NODE_INTERVAL && node->op == 0);
}

bool math_collections_equal(MathCompare *compare, MathNode *expected, MathNode *answer)
{
    if (expected->kind == NODE_MATRIX || answer->kind == NODE_MATRIX)
        return expected->kind == answer->kind && expected->op == answer->op &&
               equal_in_order(compare, expected, answer);
    if (expected->kind == NODE_NAMED_SET && answer->kind == NODE_NAMED_SET)
        return expected->op == answer->op;
    if (expected->kind == NODE_INTERVAL && answer->kind == NODE_INTERVAL)
        return expected->op == answer->op && equal_in_order(compare, expected, answer);
    if (is_unordered(expected) && (is_unordered(answer) || is_ordered(answer)))
        return equal_in_any_order(compare, expected, answer);
    if (is_ordered(expected) && (is_unordered(answer) || is_ordered(answer)))
        return equal_in_order(compare, expected, answer);
    /* {5} and 5 */
    if (is_unordered(expected) && expected->count == 1)
        return math_nodes_equal(compare, expected->arg[0], answer);
    if (is_unordered(answer) && answer->count == 1)
        return math_nodes_equal(compare, expected, answer->arg[0]);
    if (math_is_real_set(expected) || math_is_real_set(answer))
        return math_real_sets_equal(compare, expected, answer);
    return false;
}
