/* Arithmetic with Python's types and its sentences for what does not go together. */
#include <math.h>

#include "text/jinja/run.h"

static const char *const op_names[] = {
    [BINARY_ADD] = "+", [BINARY_SUB] = "-",       [BINARY_MUL] = "*",          [BINARY_DIV] = "/",
    [BINARY_MOD] = "%", [BINARY_FLOORDIV] = "//", [BINARY_POW] = "** or pow()"};

_Noreturn static void fail_operands(Run *run, BinaryOp op, Value a, Value b)
{
    if (a.type == VALUE_UNDEFINED) run_fail_undefined(run, a);
    if (b.type == VALUE_UNDEFINED) run_fail_undefined(run, b);
    if (op == BINARY_ADD && value_is_string(a) && !(a.flags & FLAG_MARKUP))
        run_raise(run, "can only concatenate str (not \"%s\") to str", value_type_name(b));
    if (op == BINARY_ADD && value_is_list(a))
        run_raise(run, "can only concatenate %s (not \"%s\") to %s", value_type_name(a),
                  value_type_name(b), value_type_name(a));
    if (op == BINARY_MUL && (value_is_string(a) || value_is_list(a)))
        run_raise(run, "can't multiply sequence by non-int of type '%s'", value_type_name(b));
    if (op == BINARY_MUL && (value_is_string(b) || value_is_list(b)))
        run_raise(run, "can't multiply sequence by non-int of type '%s'", value_type_name(a));
    run_raise(run, "unsupported operand type(s) for %s: '%s' and '%s'", op_names[op],
              value_type_name(a), value_type_name(b));
}

_Noreturn static void fail_overflow(Run *run)
{
    run_fail(run, ERR_UNSUPPORTED, "a whole number beyond 64 bits");
}

static int64_t floor_divide(int64_t x, int64_t y)
{
    int64_t quotient = x / y;
    return x % y != 0 && (x < 0) != (y < 0) ? quotient - 1 : quotient;
}

static int64_t floor_modulo(int64_t x, int64_t y)
{
    int64_t rest = x % y;
    return rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest;
}

static Value integer_power(Run *run, int64_t base, int64_t exponent)
{
    if (exponent < 0) {
        if (base == 0) run_raise(run, "0.0 cannot be raised to a negative power");
        return value_float(pow((double)base, (double)exponent));
    }
    int64_t result = 1;
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) fail_overflow(run);
        exponent >>= 1;
        if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) fail_overflow(run);
    }
    return value_int(result);
}

static Value integer_binary(Run *run, BinaryOp op, int64_t x, int64_t y)
{
    int64_t result = 0;
    bool overflow = false;
    switch (op) {
    case BINARY_ADD:
        overflow = __builtin_add_overflow(x, y, &result);
        break;
    case BINARY_SUB:
        overflow = __builtin_sub_overflow(x, y, &result);
        break;
    case BINARY_MUL:
        overflow = __builtin_mul_overflow(x, y, &result);
        break;
    case BINARY_DIV:
        if (y == 0) run_raise(run, "division by zero");
        return value_float((double)x / (double)y);
    case BINARY_FLOORDIV:
        if (y == 0) run_raise(run, "integer division or modulo by zero");
        overflow = x == INT64_MIN && y == -1;
        if (!overflow) result = floor_divide(x, y);
        break;
    case BINARY_MOD:
        if (y == 0) run_raise(run, "integer modulo by zero");
        result = y == -1 ? 0 : floor_modulo(x, y);
        break;
    case BINARY_POW:
        return integer_power(run, x, y);
    }
    if (overflow) fail_overflow(run);
    return value_int(result);
}

/* As CPython computes it: exact where the quotient is. */
static double float_floor_divide(double x, double y)
{
    double rest = fmod(x, y);
    double quotient = (x - rest) / y;
    if (rest != 0 && (y < 0) != (rest < 0)) quotient -= 1;
    if (quotient == 0) return copysign(0.0, x / y);
    double whole = floor(quotient);
    return quotient - whole > 0.5 ? whole + 1 : whole;
}

static double float_modulo(double x, double y)
{
    double rest = fmod(x, y);
    if (rest == 0) return copysign(0.0, y);
    return (rest < 0) != (y < 0) ? rest + y : rest;
}

static Value float_binary(Run *run, BinaryOp op, double x, double y)
{
    switch (op) {
    case BINARY_ADD:
        return value_float(x + y);
    case BINARY_SUB:
        return value_float(x - y);
    case BINARY_MUL:
        return value_float(x * y);
    case BINARY_DIV:
        if (y == 0) run_raise(run, "float division by zero");
        return value_float(x / y);
    case BINARY_FLOORDIV:
        if (y == 0) run_raise(run, "float floor division by zero");
        return value_float(float_floor_divide(x, y));
    case BINARY_MOD:
        if (y == 0) run_raise(run, "float modulo");
        return value_float(float_modulo(x, y));
    case BINARY_POW:
        if (x == 0 && y < 0) run_raise(run, "0.0 cannot be raised to a negative power");
        if (x < 0 && y != floor(y))
            run_fail(run, ERR_UNSUPPORTED, "a complex number as the result of **");
        return value_float(pow(x, y));
    }
    return value_none();
}

/* Markup escapes what it is joined with. */
static Value add_strings(Run *run, Value a, Value b)
{
    if ((a.flags | b.flags) & FLAG_MARKUP) {
        a = value_escape(run, a);
        b = value_escape(run, b);
    }
    return string_concat(run, a, b);
}

static Value add_lists(Run *run, Value a, Value b)
{
    size_t n = a.as.list->count, m = b.as.list->count;
    run_step(run, (n + m) / 8);
    Value sum = a.type == VALUE_LIST ? value_list(run, n + m) : value_tuple(run, n + m);
    sum.origin = a.origin;
    if (n > 0) memcpy(list_items(sum), a.as.list->item, n * sizeof(Value));
    if (m > 0) memcpy(list_items(sum) + n, b.as.list->item, m * sizeof(Value));
    return sum;
}

static Value repeat_string(Run *run, Value string, int64_t times)
{
    size_t length = string.as.string->length;
    if (times <= 0) return string_slice(run, string, 0, 0);
    if (length == 0 || times == 1) return string;
    if ((uint64_t)times > TEMPLATE_OUTPUT_BYTES_MAX) run_check_length(run, (uint64_t)times);
    run_check_length(run, (uint64_t)times * length);
    Value half = repeat_string(run, string, times / 2);
    Value whole = string_concat(run, half, half);
    return times % 2 == 0 ? whole : string_concat(run, whole, string);
}

static Value repeat_list(Run *run, Value list, int64_t times)
{
    size_t n = list.as.list->count;
    if (times <= 0) n = 0;
    if (n > 0 && (uint64_t)times > run->memory_max / sizeof(Value) / n)
        run_fail(run, ERR_RESOURCE, "a list of more than %zu items",
                 run->memory_max / sizeof(Value));
    size_t count = n * (size_t)(times > 0 ? times : 0);
    run_step(run, count);
    Value repeated = list.type == VALUE_LIST ? value_list(run, count) : value_tuple(run, count);
    for (size_t i = 0; i < count; i++)
        list_items(repeated)[i] = list.as.list->item[i % n];
    return repeated;
}

static Value multiply_sequence(Run *run, Value a, Value b)
{
    Value sequence = value_is_integer(a) ? b : a;
    int64_t times = value_as_int(value_is_integer(a) ? a : b);
    return value_is_string(sequence) ? repeat_string(run, sequence, times)
                                     : repeat_list(run, sequence, times);
}

static bool is_sequence(Value value)
{
    return value_is_string(value) || value_is_list(value);
}

Value eval_binary(Run *run, BinaryOp op, Value a, Value b)
{
    if (op == BINARY_ADD && value_is_string(a) && value_is_string(b)) return add_strings(run, a, b);
    if (value_is_integer(a) && value_is_integer(b))
        return integer_binary(run, op, value_as_int(a), value_as_int(b));
    if (value_is_number(a) && value_is_number(b))
        return float_binary(run, op, value_as_double(a), value_as_double(b));
    if (op == BINARY_ADD && value_is_list(a) && a.type == b.type) return add_lists(run, a, b);
    if (op == BINARY_MUL &&
        ((is_sequence(a) && value_is_integer(b)) || (value_is_integer(a) && is_sequence(b))))
        return multiply_sequence(run, a, b);
    if (op == BINARY_MOD && value_is_string(a)) return format_percent(run, a, b);
    bool is_big = (a.type == VALUE_BIGINT && (value_is_number(b) || b.type == VALUE_BIGINT)) ||
                  (b.type == VALUE_BIGINT && value_is_number(a));
    if (is_big) fail_overflow(run);
    fail_operands(run, op, a, b);
}

Value eval_negative(Run *run, Value value, bool negate)
{
    if (value.type == VALUE_BIGINT) fail_overflow(run);
    if (value_is_integer(value)) {
        int64_t integer = value_as_int(value);
        if (negate && integer == INT64_MIN) fail_overflow(run);
        return value_int(negate ? -integer : integer);
    }
    if (value.type == VALUE_FLOAT) return value_float(negate ? -value.as.real : value.as.real);
    if (value.type == VALUE_UNDEFINED) run_fail_undefined(run, value);
    run_raise(run, "bad operand type for unary %c: '%s'", negate ? '-' : '+',
              value_type_name(value));
}
