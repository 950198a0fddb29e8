#include "rollout_worker/reward/math_equal.h"

#include <math.h>
#include <string.h>

#include "rollout_worker/reward/math_value.h"
#include "rollout_worker/reward/math_words.h"

#define WORK_MAX   100000L
#define POINTS     8
#define POINTS_MIN 3 /* that must agree */

static bool is_decimal_number(const MathNode *node)
{
    if (node->kind == NODE_NEG) node = node->arg[0];
    return node->kind == NODE_NUMBER && math_has_decimals(node);
}

static bool is_scalar(const MathNode *node)
{
    switch (node->kind) {
    case NODE_NUMBER:
    case NODE_SYMBOL:
    case NODE_PI:
    case NODE_E:
    case NODE_I:
    case NODE_INFINITY:
    case NODE_ADD:
    case NODE_MUL:
    case NODE_DIV:
    case NODE_NEG:
    case NODE_POW:
    case NODE_PERCENT:
    case NODE_FUNCTION:
        return true;
    default:
        return false;
    }
}

/* A decimal number stands for what rounds to it: both to six places, and within 1 % of each other,
 * which keeps numbers below a millionth apart. */
static bool equal_rounded(const mpq_t a, const mpq_t b)
{
    mpz_t scaled[2];
    const __mpq_struct *value[2] = {a, b};
    for (int i = 0; i < 2; i++) { /* floor(v 10^6 + 1/2) */
        mpz_init(scaled[i]);
        mpz_mul_ui(scaled[i], mpq_numref(value[i]), 2000000);
        mpz_add(scaled[i], scaled[i], mpq_denref(value[i]));
        mpz_fdiv_q(scaled[i], scaled[i], mpq_denref(value[i]));
        mpz_fdiv_q_2exp(scaled[i], scaled[i], 1);
    }
    bool equal = mpz_cmp(scaled[0], scaled[1]) == 0;
    mpz_clear(scaled[0]);
    mpz_clear(scaled[1]);
    mpq_t distance, size;
    mpq_init(distance);
    mpq_init(size);
    mpq_sub(distance, a, b);
    mpq_abs(distance, distance);
    mpz_mul_ui(mpq_numref(distance), mpq_numref(distance), 100);
    mpq_canonicalize(distance);
    mpq_abs(size, a);
    bool near = mpq_cmp(distance, size) <= 0;
    mpq_clear(distance);
    mpq_clear(size);
    return equal && near;
}

static bool balls_equal_rounded(Ball a, Ball b)
{
    if (!ball_is_defined(a) || !ball_is_defined(b)) return false;
    if (a.radius > 1e-9L || b.radius > 1e-9L || fabsl(a.im) > 1e-9L || fabsl(b.im) > 1e-9L)
        return false;
    if (fabsl(a.re) > 1e12L) return ball_compare(a, b) == BALLS_EQUAL;
    return roundl(a.re * 1e6L) == roundl(b.re * 1e6L) && fabsl(a.re - b.re) <= 0.01L * fabsl(a.re);
}

/* At points: any that differs decides; otherwise enough must agree. */
static bool equal_at_points(MathCompare *compare, const MathNode *a, const MathNode *b)
{
    bool constant = !math_has_symbols(a) && !math_has_symbols(b);
    if (constant && (is_decimal_number(a) || is_decimal_number(b)))
        return balls_equal_rounded(math_ball(a, 0, &compare->work),
                                   math_ball(b, 0, &compare->work));
    int agree = 0;
    for (int point = 0; point < (constant ? 1 : POINTS); point++) {
        BallOrder order =
            ball_compare(math_ball(a, point, &compare->work), math_ball(b, point, &compare->work));
        if (order == BALLS_DIFFER) return false;
        agree += order == BALLS_EQUAL;
    }
    return agree >= (constant ? 1 : POINTS_MIN);
}

static bool values_equal(MathCompare *compare, const MathNode *a, const MathNode *b)
{
    mpq_t exact[2];
    mpq_init(exact[0]);
    mpq_init(exact[1]);
    bool both = math_exact(a, exact[0], &compare->work) && math_exact(b, exact[1], &compare->work);
    bool equal = false;
    if (both)
        equal = math_has_decimals(a) || math_has_decimals(b) ? equal_rounded(exact[0], exact[1])
                                                             : mpq_equal(exact[0], exact[1]) != 0;
    mpq_clear(exact[0]);
    mpq_clear(exact[1]);
    return both ? equal : equal_at_points(compare, a, b);
}

bool math_scalars_equal(MathCompare *compare, const MathNode *expected, const MathNode *answer)
{
    if (!is_scalar(expected) || !is_scalar(answer) || compare->work < 0) return false;
    int sign = math_infinity_sign(expected), other = math_infinity_sign(answer);
    if (sign != 0 || other != 0) return sign == other;
    if (expected->kind == NODE_NUMBER && answer->kind == NODE_NUMBER && expected->base != 0 &&
        answer->base != 0 && expected->base != answer->base)
        return false;
    bool percent = expected->kind == NODE_PERCENT, other_percent = answer->kind == NODE_PERCENT;
    if (percent && other_percent) return values_equal(compare, expected->arg[0], answer->arg[0]);
    /* 50 % is 0.5, and "what percentage" is answered by 50 as well. */
    if (percent && values_equal(compare, expected->arg[0], answer)) return true;
    if (other_percent && values_equal(compare, expected, answer->arg[0])) return true;
    return values_equal(compare, expected, answer);
}

static bool has_plus_minus(const MathNode *node)
{
    if (node->kind == NODE_PLUS_MINUS) return true;
    for (int i = 0; i < node->count; i++)
        if (has_plus_minus(node->arg[i])) return true;
    return false;
}

/* The node with each \pm read as '+' or as '-'. */
static MathNode *choose_sign(MathCompare *compare, const MathNode *node, bool upper)
{
    MathNode *copy = math_node_create(compare->arena, node->kind, node->count);
    MathNode **arg = copy->arg;
    *copy = *node;
    copy->arg = arg;
    compare->work--;
    for (int i = 0; i < node->count; i++)
        copy->arg[i] = choose_sign(compare, node->arg[i], upper);
    if (node->kind != NODE_PLUS_MINUS) return copy;
    copy->kind = NODE_ADD;
    if ((node->op == '+') == upper) return copy;
    MathNode *negative = math_node_create(compare->arena, NODE_NEG, 1);
    negative->arg[0] = copy->arg[1];
    copy->arg[1] = negative;
    return copy;
}

/* Turns a \pm b into the list of both, inside of lists and on the right of x = as well. */
static MathNode *expand_signs(MathCompare *compare, MathNode *node)
{
    if (!has_plus_minus(node)) return node;
    if (node->kind == NODE_RELATION) {
        int last = node->count - 1;
        if (has_plus_minus(node->arg[last]))
            node->arg[last] = expand_signs(compare, node->arg[last]);
        return node;
    }
    bool collects = node->kind == NODE_LIST || node->kind == NODE_SET;
    int count = collects ? node->count : 1;
    MathNode *list = math_node_create(compare->arena, collects ? node->kind : NODE_LIST, 2 * count);
    list->count = 0;
    for (int i = 0; i < count; i++) {
        MathNode *item = collects ? node->arg[i] : node;
        if (item->kind == NODE_RELATION || !has_plus_minus(item)) {
            list->arg[list->count++] = item;
            continue;
        }
        list->arg[list->count++] = choose_sign(compare, item, true);
        list->arg[list->count++] = choose_sign(compare, item, false);
    }
    return list;
}

static bool is_equation(const MathNode *node)
{
    if (node->kind != NODE_RELATION) return false;
    for (int i = 0; i + 1 < node->count; i++)
        if (node->relation[i] != RELATION_EQUAL && node->relation[i] != RELATION_IN) return false;
    return true;
}

/* f^{-1}, the name of a function as well as 1/f. */
static bool is_inverse(const MathNode *node)
{
    return node->kind == NODE_POW && node->arg[0]->kind == NODE_SYMBOL &&
           node->arg[1]->kind == NODE_NEG && node->arg[1]->arg[0]->kind == NODE_NUMBER;
}

static bool is_symbols_only(const MathNode *node)
{
    if (node->kind == NODE_SYMBOL || is_inverse(node)) return true;
    if (node->count == 0) return false;
    for (int i = 0; i < node->count; i++)
        if (!is_symbols_only(node->arg[i])) return false;
    return true;
}

/* x = a = b is x = b; what follows \approx is dropped, unless there is nothing but a name before.
 */
static MathNode *shorten(MathCompare *compare, MathNode *node)
{
    if (node->kind != NODE_RELATION) return node;
    int count = node->count;
    for (int i = 0; i + 1 < count; i++) {
        if (node->relation[i] != RELATION_APPROX) continue;
        if (i == 0 && node->arg[0]->kind == NODE_SYMBOL)
            node->relation[i] = RELATION_EQUAL;
        else
            count = i + 1;
    }
    node->count = count;
    if (count == 1) return node->arg[0];
    if (count == 2 || !is_equation(node)) return node;
    MathNode *pair = math_node_create(compare->arena, NODE_RELATION, 2);
    pair->relation = node->relation;
    pair->arg[0] = node->arg[0];
    pair->arg[1] = node->arg[count - 1];
    if (!is_symbols_only(pair->arg[0])) pair->arg[0] = node->arg[count - 2];
    return pair;
}

bool math_nodes_equal(MathCompare *compare, MathNode *expected, MathNode *answer)
{
    if (--compare->work < 0) return false;
    expected = shorten(compare, expand_signs(compare, expected));
    answer = shorten(compare, expand_signs(compare, answer));
    bool relation = expected->kind == NODE_RELATION;
    if (is_equation(answer) && !relation)
        answer = answer->arg[answer->count - 1];
    else if (is_equation(expected) && answer->kind != NODE_RELATION &&
             is_symbols_only(expected->arg[0]))
        expected = expected->arg[expected->count - 1];
    relation = expected->kind == NODE_RELATION;
    if (relation && answer->kind == NODE_RELATION)
        return math_relations_equal(compare, expected, answer);
    if (math_is_real_set(answer) && (relation || expected->kind == NODE_LIST)) {
        MathNode *set = math_inequality_set(compare, expected);
        if (set != NULL) return math_real_sets_equal(compare, set, answer);
    }
    if (relation || answer->kind == NODE_RELATION) return false;
    if (is_scalar(expected) && is_scalar(answer))
        return math_scalars_equal(compare, expected, answer);
    return math_collections_equal(compare, expected, answer);
}

static bool is_brace(const MathToken *token)
{
    return math_token_is_mark(token, '{') || math_token_is_mark(token, '}');
}

/* The next token from *at that is part of the value; TOKEN_END at the end. */
static const MathToken *next_part(const MathTokens *tokens, int *at)
{
    while (*at < tokens->count && (tokens->token[*at].unit || is_brace(&tokens->token[*at])))
        (*at)++;
    return &tokens->token[*at];
}

static bool spelled_alike(const MathTokens *a, const MathTokens *b)
{
    for (int i = 0, k = 0;; i++, k++) {
        const MathToken *x = next_part(a, &i), *y = next_part(b, &k);
        if (x->kind != y->kind || (x->kind == TOKEN_CHAR && x->mark != y->mark)) return false;
        if (x->kind == TOKEN_END) return i > 0;
        if (!slice_equal_fold(x->text, y->text)) return false;
    }
}

/* The next letter or digit of the answer, lower case; '\0' at the end. */
static char next_letter(const MathTokens *tokens, int *token, size_t *at)
{
    while (*token < tokens->count) {
        Slice text = tokens->token[*token].text;
        if (*at >= text.length) {
            (*token)++;
            *at = 0;
            continue;
        }
        char byte = text.data[(*at)++];
        if (byte_is_letter(byte) || byte_is_digit(byte) || (unsigned char)byte >= 0x80)
            return byte_lower(byte);
    }
    return '\0';
}

/* The same letters and digits, whatever stands between them. */
static bool same_words(const MathTokens *a, const MathTokens *b)
{
    int token = 0, other_token = 0;
    size_t at = 0, other_at = 0;
    for (bool any = false;; any = true) {
        char byte = next_letter(a, &token, &at);
        if (byte != next_letter(b, &other_token, &other_at)) return false;
        if (byte == '\0') return any;
    }
}

static bool tokens_equal(const MathTokens *expected, const MathTokens *answer)
{
    if (spelled_alike(expected, answer)) return true;
    if (math_tokens_are_letters(expected) && math_tokens_are_letters(answer) &&
        same_words(expected, answer))
        return true;
    MathCompare compare = {.arena = arena_create(), .work = WORK_MAX};
    MathNode *a = math_parse(expected, compare.arena);
    MathNode *b = a == NULL ? NULL : math_parse(answer, compare.arena);
    bool equal = false;
    if (a != NULL && b != NULL) {
        bool words = a->kind == NODE_TEXT || b->kind == NODE_TEXT;
        equal = words ? same_words(expected, answer) : math_nodes_equal(&compare, a, b);
    }
    arena_destroy(compare.arena);
    return equal;
}

bool math_answers_equal(Slice expected, Slice answer)
{
    MathTokens tokens, other;
    if (!math_lex(expected, &tokens) || !math_lex(answer, &other))
        return slice_equal(slice_trim(expected), slice_trim(answer));
    if (tokens_equal(&tokens, &other)) return true;
    /* `5 m` may be five metres: read so on the side that has such a letter. */
    bool letters = math_mark_letter_units(&tokens);
    bool other_letters = math_mark_letter_units(&other);
    return letters != other_letters && tokens_equal(&tokens, &other);
}
