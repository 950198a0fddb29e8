/* Exact rational values. */
#include <stdlib.h>
#include <string.h>

#include "rollout_worker/reward/math_value.h"

#define FACTORIAL_MAX 1000

static bool fits(const mpq_t value)
{
    return mpz_sizeinbase(mpq_numref(value), 2) <= MATH_EXACT_BITS_MAX &&
           mpz_sizeinbase(mpq_denref(value), 2) <= MATH_EXACT_BITS_MAX;
}

static bool is_integer(const mpq_t value)
{
    return mpz_cmp_ui(mpq_denref(value), 1) == 0;
}

/* Digits of `text` (others are separators) as an integer; the number of them behind the point. */
static bool read_digits(Slice text, mpz_t ret, unsigned long *ret_decimals)
{
    char digits[MATH_EXACT_BITS_MAX / 4];
    size_t count = 0;
    unsigned long decimals = 0;
    bool point = false;
    for (size_t i = 0; i < text.length; i++) {
        if (text.data[i] == '.') point = true;
        if (!byte_is_digit(text.data[i])) continue;
        if (count + 1 >= sizeof digits) return false;
        digits[count++] = text.data[i];
        decimals += point;
    }
    if (count == 0) return false;
    digits[count] = '\0';
    *ret_decimals = decimals;
    return mpz_set_str(ret, digits, 10) == 0;
}

static bool exact_number(const MathNode *node, mpq_t ret)
{
    unsigned long decimals = 0, repeated = 0;
    if (!read_digits(node->text, mpq_numref(ret), &decimals)) return false;
    mpz_ui_pow_ui(mpq_denref(ret), 10, decimals);
    if (node->repeat.length > 0) { /* + r / (10^d (10^k - 1)) */
        mpq_t rest;
        mpq_init(rest);
        bool ok = read_digits(node->repeat, mpq_numref(rest), &repeated);
        repeated = node->repeat.length;
        mpz_ui_pow_ui(mpq_denref(rest), 10, repeated);
        mpz_sub_ui(mpq_denref(rest), mpq_denref(rest), 1);
        mpz_mul(mpq_denref(rest), mpq_denref(rest), mpq_denref(ret));
        mpq_canonicalize(rest);
        mpq_canonicalize(ret);
        mpq_add(ret, ret, rest);
        mpq_clear(rest);
        return ok && fits(ret);
    }
    mpq_canonicalize(ret);
    return fits(ret);
}

static bool exact_power(mpq_t ret, const mpq_t base, const mpq_t exponent)
{
    if (!is_integer(exponent) || !mpz_fits_slong_p(mpq_numref(exponent))) return false;
    long power = mpz_get_si(mpq_numref(exponent));
    if (mpq_sgn(base) == 0) {
        if (power <= 0) return false;
        mpq_set_ui(ret, 0, 1);
        return true;
    }
    unsigned long size = (unsigned long)labs(power);
    size_t bits = mpz_sizeinbase(mpq_numref(base), 2);
    size_t bits_below = mpz_sizeinbase(mpq_denref(base), 2);
    bits = bits > bits_below ? bits : bits_below;
    bool unit = bits == 1; /* 1 and -1 */
    if (!unit && size > MATH_EXACT_BITS_MAX / bits) return false;
    if (unit) size &= 1;
    mpz_pow_ui(mpq_numref(ret), mpq_numref(base), size);
    mpz_pow_ui(mpq_denref(ret), mpq_denref(base), size);
    if (power < 0) mpq_inv(ret, ret);
    return fits(ret);
}

static bool exact_root(mpq_t ret, const mpq_t value, const mpq_t index)
{
    if (!is_integer(index) || !mpz_fits_ulong_p(mpq_numref(index))) return false;
    unsigned long n = mpz_get_ui(mpq_numref(index));
    if (n == 0 || n > 64 || (mpq_sgn(value) < 0 && n % 2 == 0)) return false;
    return mpz_root(mpq_numref(ret), mpq_numref(value), n) != 0 &&
           mpz_root(mpq_denref(ret), mpq_denref(value), n) != 0;
}

static bool exact_binomial(mpq_t ret, const mpq_t n, const mpq_t k)
{
    if (!is_integer(n) || !is_integer(k) || mpq_sgn(n) < 0 || mpq_sgn(k) < 0) return false;
    if (mpz_cmp_ui(mpq_numref(n), FACTORIAL_MAX) > 0) return false;
    if (mpq_cmp(k, n) > 0)
        mpq_set_ui(ret, 0, 1);
    else
        mpz_bin_uiui(mpq_numref(ret), mpz_get_ui(mpq_numref(n)), mpz_get_ui(mpq_numref(k)));
    mpz_set_ui(mpq_denref(ret), 1);
    return fits(ret);
}

/* Functions of one argument, in place. */
static bool exact_function(MathFunction function, mpq_t value)
{
    mpz_ptr top = mpq_numref(value), bottom = mpq_denref(value);
    switch (function) {
    case FUNCTION_ABS:
        mpq_abs(value, value);
        return true;
    case FUNCTION_FLOOR:
        mpz_fdiv_q(top, top, bottom);
        mpz_set_ui(bottom, 1);
        return true;
    case FUNCTION_CEIL:
        mpz_cdiv_q(top, top, bottom);
        mpz_set_ui(bottom, 1);
        return true;
    case FUNCTION_FACTORIAL:
        if (!is_integer(value) || mpq_sgn(value) < 0 || mpz_cmp_ui(top, FACTORIAL_MAX) > 0)
            return false;
        mpz_fac_ui(top, mpz_get_ui(top));
        return fits(value);
    default:
        return false;
    }
}

/* Functions of two arguments and more: `ret` holds the value so far, `next` the next argument. */
static bool exact_combine(MathFunction function, mpq_t ret, mpq_t next)
{
    switch (function) {
    case FUNCTION_MAX:
        if (mpq_cmp(next, ret) > 0) mpq_set(ret, next);
        return true;
    case FUNCTION_MIN:
        if (mpq_cmp(next, ret) < 0) mpq_set(ret, next);
        return true;
    case FUNCTION_GCD:
        mpz_gcd(mpq_numref(ret), mpq_numref(ret), mpq_numref(next));
        return is_integer(ret) && is_integer(next);
    case FUNCTION_LCM:
        mpz_lcm(mpq_numref(ret), mpq_numref(ret), mpq_numref(next));
        return is_integer(ret) && is_integer(next) && fits(ret);
    case FUNCTION_MOD:
        if (!is_integer(ret) || !is_integer(next) || mpq_sgn(next) == 0) return false;
        mpz_fdiv_r(mpq_numref(ret), mpq_numref(ret), mpq_numref(next));
        return true;
    case FUNCTION_BINOM:
        return exact_binomial(ret, ret, next);
    case FUNCTION_ROOT:
        return exact_root(ret, ret, next);
    default:
        return false;
    }
}

static bool combine(const MathNode *node, mpq_t ret, mpq_t next)
{
    switch (node->kind) {
    case NODE_ADD:
        mpq_add(ret, ret, next);
        return fits(ret);
    case NODE_MUL:
        mpq_mul(ret, ret, next);
        return fits(ret);
    case NODE_DIV:
        if (mpq_sgn(next) == 0) return false;
        mpq_div(ret, ret, next);
        return fits(ret);
    case NODE_POW:
        return exact_power(ret, ret, next);
    case NODE_FUNCTION:
        return exact_combine((MathFunction)node->op, ret, next);
    default:
        return false;
    }
}

static bool exact_arguments(const MathNode *node, mpq_t ret, long *work)
{
    if (node->count == 0 || !math_exact(node->arg[0], ret, work)) return false;
    if (node->kind == NODE_FUNCTION && node->count == 1)
        return exact_function((MathFunction)node->op, ret);
    mpq_t next;
    mpq_init(next);
    bool ok = true;
    for (int i = 1; i < node->count && ok; i++)
        ok = math_exact(node->arg[i], next, work) && combine(node, ret, next);
    mpq_clear(next);
    return ok;
}

bool math_exact(const MathNode *node, mpq_t ret, long *work)
{
    if (--*work < 0) return false;
    switch (node->kind) {
    case NODE_NUMBER:
        return exact_number(node, ret);
    case NODE_NEG:
        if (!math_exact(node->arg[0], ret, work)) return false;
        mpq_neg(ret, ret);
        return true;
    case NODE_PERCENT:
        if (!math_exact(node->arg[0], ret, work)) return false;
        mpz_mul_ui(mpq_denref(ret), mpq_denref(ret), 100);
        mpq_canonicalize(ret);
        return fits(ret);
    case NODE_ADD:
    case NODE_MUL:
    case NODE_DIV:
    case NODE_POW:
    case NODE_FUNCTION:
        return exact_arguments(node, ret, work);
    default:
        return false;
    }
}

bool math_has_decimals(const MathNode *node)
{
    if (node->kind == NODE_NUMBER)
        return node->repeat.length == 0 && memchr(node->text.data, '.', node->text.length) != NULL;
    for (int i = 0; i < node->count; i++)
        if (math_has_decimals(node->arg[i])) return true;
    return false;
}

bool math_has_symbols(const MathNode *node)
{
    if (node->kind == NODE_SYMBOL) return true;
    for (int i = 0; i < node->count; i++)
        if (math_has_symbols(node->arg[i])) return true;
    return false;
}

int math_infinity_sign(const MathNode *node)
{
    if (node->kind == NODE_INFINITY) return 1;
    if (node->kind == NODE_NEG) return -math_infinity_sign(node->arg[0]);
    return 0;
}
