/* Values in long double with error radii. Complex functions are the C library's. */
#include <complex.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "rollout_worker/reward/math_value.h"

#define EPSILON LDBL_EPSILON

static const Ball undefined = {NAN, NAN, INFINITY, false};

static Ball ball_real(long double value, long double radius)
{
    return (Ball){value, 0, radius, true};
}

static long double size_of(Ball ball)
{
    return ball.real ? fabsl(ball.re) : hypotl(ball.re, ball.im);
}

/* A complex number by its parts; C11's CMPLXL, which not every compiler has with every library. */
static long double complex complex_of(long double re, long double im)
{
    long double parts[2] = {re, im};
    long double complex value;
    memcpy(&value, parts, sizeof value);
    return value;
}

static long double complex mid_of(Ball ball)
{
    return complex_of(ball.re, ball.im);
}

/* A result with what its own rounding adds to the radius it inherited. */
static Ball ball_of(long double complex mid, long double radius, bool real)
{
    Ball ball = {creall(mid), real ? 0 : cimagl(mid), radius, real};
    ball.radius += 4 * EPSILON * size_of(ball);
    return ball_is_defined(ball) ? ball : undefined;
}

static Ball ball_line(long double value, long double radius)
{
    return ball_of(complex_of(value, 0), radius, true);
}

bool ball_is_defined(Ball ball)
{
    return isfinite(ball.re) && isfinite(ball.im) && isfinite(ball.radius);
}

bool ball_is_zero(Ball ball)
{
    return size_of(ball) <= ball.radius;
}

static Ball add(Ball a, Ball b)
{
    return ball_of(mid_of(a) + mid_of(b), a.radius + b.radius, a.real && b.real);
}

static Ball negate(Ball a)
{
    a.re = -a.re;
    a.im = a.real ? 0 : -a.im;
    return a;
}

Ball ball_subtract(Ball a, Ball b)
{
    return add(a, negate(b));
}

static Ball multiply(Ball a, Ball b)
{
    long double radius = size_of(a) * b.radius + size_of(b) * a.radius + a.radius * b.radius;
    if (a.real && b.real) return ball_line(a.re * b.re, radius);
    return ball_of(mid_of(a) * mid_of(b), radius, false);
}

Ball ball_divide(Ball a, Ball b)
{
    long double below = size_of(b) - b.radius;
    if (!(below > 0)) return undefined;
    long double ratio = size_of(a) / size_of(b);
    long double radius = (a.radius + ratio * b.radius) / below;
    if (a.real && b.real) return ball_line(a.re / b.re, radius);
    return ball_of(mid_of(a) / mid_of(b), radius, false);
}

static Ball exponential(Ball a)
{
    if (a.radius > 1) return undefined;
    long double complex mid = a.real ? complex_of(expl(a.re), 0) : cexpl(mid_of(a));
    return ball_of(mid, cabsl(mid) * expm1l(a.radius), a.real);
}

static Ball logarithm(Ball a)
{
    if (ball_is_zero(a)) return undefined;
    long double relative = a.radius / size_of(a);
    if (relative > 0.5L) return undefined;
    if (a.real && a.re > 0) return ball_line(logl(a.re), -log1pl(-relative));
    if (a.real) return ball_of(complex_of(logl(-a.re), acosl(-1)), -log1pl(-relative), false);
    return ball_of(clogl(mid_of(a)), 2 * relative, false);
}

/* The base to a whole power, by repeated squaring. */
static Ball whole_power(Ball base, unsigned long exponent)
{
    Ball result = ball_real(1, 0);
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1) result = multiply(result, base);
        if (exponent > 1) base = multiply(base, base);
    }
    return result;
}

/* |base|^(p/q) with the sign that the real root of a negative number has; q odd. */
static Ball real_root_power(Ball base, long p, unsigned long q)
{
    Ball size = {fabsl(base.re), 0, base.radius, true};
    Ball exponent = ball_divide(ball_real((long double)p, 0), ball_real((long double)q, 0));
    Ball result = exponential(multiply(logarithm(size), exponent));
    return p % 2 == 0 ? result : negate(result);
}

/* `exact` is the exponent where it is rational and small, as p / q; q is 0 where it is not. */
static Ball power(Ball base, Ball exponent, long p, unsigned long q)
{
    if (q == 1 && labs(p) <= 4096) {
        Ball result = whole_power(base, (unsigned long)labs(p));
        return p < 0 ? ball_divide(ball_real(1, 0), result) : result;
    }
    if (ball_is_zero(base)) {
        bool zero = base.radius == 0 && exponent.real && exponent.re > exponent.radius;
        return zero ? ball_real(0, 0) : undefined;
    }
    if (base.real && base.re < 0 && q % 2 == 1) return real_root_power(base, p, q);
    Ball result = exponential(multiply(logarithm(base), exponent));
    if (base.real && base.re > 0 && exponent.real) {
        result.real = true;
        result.im = 0;
    }
    return result;
}

static Ball square_root(Ball a)
{
    if (a.real && a.re == 0 && a.radius == 0) return a;
    if (ball_is_zero(a)) return undefined;
    long double root = sqrtl(size_of(a));
    long double radius = a.radius / root; /* twice the first-order bound */
    if (a.real && a.re > 0) return ball_line(root, radius);
    if (a.real) return ball_of(complex_of(0, root), radius, false);
    return ball_of(csqrtl(mid_of(a)), radius, false);
}

static Ball sine(Ball a, bool cosine)
{
    if (a.radius > 1) return undefined;
    if (a.real) {
        long double value = cosine ? cosl(a.re) : sinl(a.re);
        return ball_line(value, a.radius + EPSILON);
    }
    long double growth = coshl(fabsl(a.im) + a.radius);
    return ball_of(cosine ? ccosl(mid_of(a)) : csinl(mid_of(a)), growth * (a.radius + EPSILON),
                   false);
}

static Ball trigonometric(MathFunction function, Ball a)
{
    Ball one = ball_real(1, 0);
    switch (function) {
    case FUNCTION_SIN:
        return sine(a, false);
    case FUNCTION_COS:
        return sine(a, true);
    case FUNCTION_TAN:
        return ball_divide(sine(a, false), sine(a, true));
    case FUNCTION_COT:
        return ball_divide(sine(a, true), sine(a, false));
    case FUNCTION_SEC:
        return ball_divide(one, sine(a, true));
    default:
        return ball_divide(one, sine(a, false));
    }
}

/* asin and acos: the derivative is 1 / sqrt(1 - a^2), which grows without bound at the ends. */
static Ball inverse_sine(Ball a, bool cosine)
{
    bool real = a.real && fabsl(a.re) <= 1;
    long double complex mid = mid_of(a);
    long double slope = 1 / sqrtl(cabsl(1 - mid * mid));
    long double radius = a.radius == 0 ? 0 : a.radius * 2 * slope;
    if (!isfinite(radius)) radius = sqrtl(2 * a.radius) * 2;
    if (real) return ball_line(cosine ? acosl(a.re) : asinl(a.re), radius);
    return ball_of(cosine ? cacosl(mid) : casinl(mid), radius, false);
}

static Ball inverse_tangent(Ball a)
{
    long double complex mid = mid_of(a);
    long double slope = 1 / cabsl(1 + mid * mid);
    if (a.real) return ball_line(atanl(a.re), a.radius * 2 * slope);
    return ball_of(catanl(mid), a.radius * 2 * slope, false);
}

static Ball hyperbolic(MathFunction function, Ball a)
{
    Ball up = exponential(a), down = exponential(negate(a)), two = ball_real(2, 0);
    Ball sum = add(up, down), difference = ball_subtract(up, down);
    if (function == FUNCTION_SINH) return ball_divide(difference, two);
    if (function == FUNCTION_COSH) return ball_divide(sum, two);
    return ball_divide(difference, sum);
}

static Ball stepped(MathFunction function, Ball a)
{
    if (!a.real) return undefined;
    long double low = a.re - a.radius, high = a.re + a.radius;
    low = function == FUNCTION_FLOOR ? floorl(low) : ceill(low);
    high = function == FUNCTION_FLOOR ? floorl(high) : ceill(high);
    return low == high ? ball_real(low, 0) : undefined;
}

static Ball factorial(Ball a)
{
    if (!a.real || a.re <= -1 || a.re > 1500) return undefined;
    long double value = tgammal(a.re + 1);
    long double slope = value * (logl(a.re + 2) + 2);
    return ball_line(value, a.radius * slope + 16 * EPSILON * value);
}

static Ball one_argument(MathFunction function, Ball a)
{
    Ball one = ball_real(1, 0);
    switch (function) {
    case FUNCTION_ARCSIN:
    case FUNCTION_ARCCOS:
        return inverse_sine(a, function == FUNCTION_ARCCOS);
    case FUNCTION_ARCSEC:
    case FUNCTION_ARCCSC:
        return inverse_sine(ball_divide(one, a), function == FUNCTION_ARCSEC);
    case FUNCTION_ARCTAN:
        return inverse_tangent(a);
    case FUNCTION_ARCCOT:
        return inverse_tangent(ball_divide(one, a));
    case FUNCTION_SINH:
    case FUNCTION_COSH:
    case FUNCTION_TANH:
        return hyperbolic(function, a);
    case FUNCTION_LN:
        return logarithm(a);
    case FUNCTION_EXP:
        return exponential(a);
    case FUNCTION_ABS:
        return ball_line(size_of(a), a.radius);
    case FUNCTION_FLOOR:
    case FUNCTION_CEIL:
        return stepped(function, a);
    case FUNCTION_FACTORIAL:
        return factorial(a);
    default:
        return function >= FUNCTION_SIN && function <= FUNCTION_CSC ? trigonometric(function, a)
                                                                    : undefined;
    }
}

static Ball binomial(Ball n, Ball k)
{
    Ball rest = ball_subtract(n, k);
    return ball_divide(factorial(n), multiply(factorial(k), factorial(rest)));
}

static Ball two_arguments(MathFunction function, Ball a, Ball b)
{
    switch (function) {
    case FUNCTION_LOG:
        return ball_divide(logarithm(a), logarithm(b));
    case FUNCTION_BINOM:
        return binomial(a, b);
    case FUNCTION_MAX:
    case FUNCTION_MIN:
        if (!a.real || !b.real) return undefined;
        return (a.re > b.re) == (function == FUNCTION_MAX) ? a : b;
    default:
        return undefined;
    }
}

/* A value in a range that differs from point to point, so that a wrong equality at one (two
 * branches of a function, say) is seen at another. 24 bits: exact. */
static Ball symbol_value(Slice name, int point)
{
    static const struct {
        float low, high;
    } range[] = {{0.25F, 2}, {-2, -0.25F}, {0.1F, 0.9F}, {1, 5}, {-0.9F, -0.1F}, {-5, 5}};
    uint64_t key = 0xcbf29ce484222325u;
    for (size_t i = 0; i < name.length; i++)
        key = (key ^ (unsigned char)name.data[i]) * 0x100000001b3u;
    RngBlock block = rng_block(key, (uint64_t)point, 0);
    size_t row = (size_t)point % (sizeof range / sizeof range[0]);
    float unit = rng_uniform(block.word[0]);
    return ball_real(range[row].low + (range[row].high - range[row].low) * unit, 0);
}

/* A rational as the nearest long double. */
static Ball ball_from_exact(const mpq_t value)
{
    mpf_t real;
    mpf_init2(real, 128);
    mpf_set_q(real, value);
    long power = 0;
    double high = mpf_get_d_2exp(&power, real);
    mpf_t rest;
    mpf_init2(rest, 128);
    mpf_set_d(rest, high);
    if (power >= 0)
        mpf_mul_2exp(rest, rest, (unsigned long)power);
    else
        mpf_div_2exp(rest, rest, (unsigned long)-power);
    mpf_sub(rest, real, rest);
    long power_rest = 0;
    double low = mpf_get_d_2exp(&power_rest, rest);
    mpf_clear(real);
    mpf_clear(rest);
    long double sum = ldexpl(high, (int)power) + ldexpl(low, (int)power_rest);
    return ball_line(sum, 0);
}

static bool small_fraction(const MathNode *node, long *ret_p, unsigned long *ret_q, long *work)
{
    mpq_t value;
    mpq_init(value);
    bool small = math_exact(node, value, work) && mpz_fits_sint_p(mpq_numref(value)) &&
                 mpz_fits_sint_p(mpq_denref(value));
    if (small) {
        *ret_p = mpz_get_si(mpq_numref(value));
        *ret_q = mpz_get_ui(mpq_denref(value));
    }
    mpq_clear(value);
    return small;
}

static Ball ball_number(const MathNode *node, long *work)
{
    mpq_t value;
    mpq_init(value);
    Ball ball = math_exact(node, value, work) ? ball_from_exact(value) : undefined;
    mpq_clear(value);
    return ball;
}

static Ball ball_power(const MathNode *node, int point, long *work)
{
    Ball base = math_ball(node->arg[0], point, work);
    Ball exponent = math_ball(node->arg[1], point, work);
    long p = 0;
    unsigned long q = 0;
    small_fraction(node->arg[1], &p, &q, work);
    return power(base, exponent, p, q);
}

static Ball ball_root(const MathNode *node, int point, long *work)
{
    Ball base = math_ball(node->arg[0], point, work);
    long p = 0;
    unsigned long q = 0;
    if (small_fraction(node->arg[1], &p, &q, work) && q == 1 && p > 0) {
        if (p == 2) return square_root(base);
        return power(base, ball_divide(ball_real(1, 0), ball_real((long double)p, 0)), 1,
                     (unsigned long)p);
    }
    Ball index = math_ball(node->arg[1], point, work);
    return power(base, ball_divide(ball_real(1, 0), index), 0, 0);
}

static Ball ball_function(const MathNode *node, int point, long *work)
{
    if (node->op == FUNCTION_ROOT) return ball_root(node, point, work);
    if (node->count == 0) return undefined;
    Ball value = math_ball(node->arg[0], point, work);
    if (node->count == 1) return one_argument((MathFunction)node->op, value);
    for (int i = 1; i < node->count; i++)
        value = two_arguments((MathFunction)node->op, value, math_ball(node->arg[i], point, work));
    return value;
}

static Ball ball_sum_or_product(const MathNode *node, int point, long *work)
{
    Ball value = math_ball(node->arg[0], point, work);
    for (int i = 1; i < node->count; i++) {
        Ball next = math_ball(node->arg[i], point, work);
        value = node->kind == NODE_ADD ? add(value, next) : multiply(value, next);
    }
    return value;
}

Ball math_ball(const MathNode *node, int point, long *work)
{
    if (--*work < 0) return undefined;
    switch (node->kind) {
    case NODE_NUMBER:
        return ball_number(node, work);
    case NODE_SYMBOL:
        return symbol_value(node->text, point);
    case NODE_PI:
        return ball_line(acosl(-1), 0);
    case NODE_E:
        return ball_line(expl(1), 0);
    case NODE_I:
        return (Ball){0, 1, 0, false};
    case NODE_ADD:
    case NODE_MUL:
        return ball_sum_or_product(node, point, work);
    case NODE_DIV:
        return ball_divide(math_ball(node->arg[0], point, work),
                           math_ball(node->arg[1], point, work));
    case NODE_NEG:
        return negate(math_ball(node->arg[0], point, work));
    case NODE_POW:
        return ball_power(node, point, work);
    case NODE_PERCENT:
        return ball_divide(math_ball(node->arg[0], point, work), ball_real(100, 0));
    case NODE_FUNCTION:
        return ball_function(node, point, work);
    default:
        return undefined;
    }
}

BallOrder ball_compare(Ball a, Ball b)
{
    if (!ball_is_defined(a) || !ball_is_defined(b)) return BALLS_UNDECIDED;
    long double size = fmaxl(size_of(a), size_of(b));
    long double distance = hypotl(a.re - b.re, a.im - b.im);
    if (distance > a.radius + b.radius + 8 * EPSILON * size) return BALLS_DIFFER;
    bool narrow = a.radius + b.radius <= 1e-9L * fmaxl(size, 1e-6L);
    return narrow ? BALLS_EQUAL : BALLS_UNDECIDED;
}
