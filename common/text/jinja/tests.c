/* Tests: what stands behind `is`. */
#include "text/jinja/run.h"
#include "text/jinja/case.h"

static Value operand(Run *run, const Args *args, const char *name)
{
    static const Param params[] = {{"other", true}};
    Value other;
    args_bind(run, name, args, params, 1, &other);
    return other;
}

static void no_operand(Run *run, const Args *args, const char *name)
{
    Value unused;
    args_bind(run, name, args, NULL, 0, &unused);
}

static Value is_defined(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_defined");
    return value_bool(self.type != VALUE_UNDEFINED);
}

static Value is_undefined(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_undefined");
    return value_bool(self.type == VALUE_UNDEFINED);
}

static Value is_none(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_none");
    return value_bool(self.type == VALUE_NONE);
}

static Value is_boolean(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_boolean");
    return value_bool(self.type == VALUE_BOOL);
}

static Value is_true(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_true");
    return value_bool(self.type == VALUE_BOOL && self.as.boolean);
}

static Value is_false(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_false");
    return value_bool(self.type == VALUE_BOOL && !self.as.boolean);
}

static Value is_integer(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_integer");
    return value_bool(self.type == VALUE_INT || self.type == VALUE_BIGINT);
}

static Value is_float(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_float");
    return value_bool(self.type == VALUE_FLOAT);
}

static Value is_number(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_number");
    return value_bool(value_is_number(self) || self.type == VALUE_BIGINT);
}

static Value is_string(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_string");
    return value_bool(value_is_string(self));
}

static Value is_mapping(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_mapping");
    return value_bool(self.type == VALUE_DICT);
}

static Value is_iterable(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_iterable");
    Iterator iterator;
    return value_bool(self.type == VALUE_LOOP || iterator_begin(run, self, &iterator));
}

static Value is_sequence(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_sequence");
    return value_bool(self.type == VALUE_UNDEFINED || self.type == VALUE_STRING ||
                      value_is_list(self) || self.type == VALUE_DICT || self.type == VALUE_RANGE);
}

static Value is_callable(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_callable");
    return value_bool(self.type == VALUE_UNDEFINED || self.type == VALUE_FUNCTION ||
                      self.type == VALUE_METHOD || self.type == VALUE_MACRO ||
                      self.type == VALUE_LOOP || self.type == VALUE_JOINER);
}

static Value is_escaped(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_escaped");
    return value_bool(value_is_string(self) && (self.flags & FLAG_MARKUP));
}

static Value call_string_method(Run *run, Value self, const char *name)
{
    String method = {.bytes = name, .length = (uint32_t)strlen(name), .chars = CHARS_UNKNOWN};
    Value text = value_str(run, self);
    Args none = {0};
    return method_find(text, &method)(run, text, &none);
}

static Value is_lower(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_lower");
    return call_string_method(run, self, "islower");
}

static Value is_upper(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_upper");
    return call_string_method(run, self, "isupper");
}

static Value remainder_is(Run *run, Value self, int64_t divisor, int64_t wanted)
{
    Value rest = eval_binary(run, BINARY_MOD, self, value_int(divisor));
    return value_bool(value_equal(run, rest, value_int(wanted)));
}

static Value is_odd(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_odd");
    return remainder_is(run, self, 2, 1);
}

static Value is_even(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_even");
    return remainder_is(run, self, 2, 0);
}

static Value is_divisible(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"num", true}};
    Value divisor;
    args_bind(run, "test_divisibleby", args, params, 1, &divisor);
    Value rest = eval_binary(run, BINARY_MOD, self, divisor);
    return value_bool(value_equal(run, rest, value_int(0)));
}

/* The same object: for values that cannot change, being equal and of one type is as near as it
 * gets. */
static Value is_same(Run *run, Value self, const Args *args)
{
    Value other = operand(run, args, "test_sameas");
    if (self.type != other.type) return value_bool(false);
    if (value_is_list(self) || self.type == VALUE_DICT)
        return value_bool(self.as.list == other.as.list);
    return value_bool(value_equal(run, self, other));
}

static Value is_in(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"seq", true}};
    Value container;
    args_bind(run, "test_in", args, params, 1, &container);
    return value_bool(value_contains(run, container, self));
}

static Value is_filter(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_filter");
    value_hash(run, self); /* fails on what cannot be a key */
    return value_bool(value_is_string(self) &&
                      filter_find(self.as.string->bytes, self.as.string->length) != NULL);
}

static Value is_test(Run *run, Value self, const Args *args)
{
    no_operand(run, args, "test_test");
    value_hash(run, self);
    return value_bool(value_is_string(self) &&
                      test_find(self.as.string->bytes, self.as.string->length) != NULL);
}

static Value is_equal(Run *run, Value self, const Args *args)
{
    return value_bool(value_equal(run, self, operand(run, args, "eq")));
}

static Value is_not_equal(Run *run, Value self, const Args *args)
{
    return value_bool(!value_equal(run, self, operand(run, args, "ne")));
}

static Value is_greater(Run *run, Value self, const Args *args)
{
    return value_bool(value_compare(run, self, operand(run, args, "gt"), ">") > 0);
}

static Value is_greater_equal(Run *run, Value self, const Args *args)
{
    return value_bool(value_compare(run, self, operand(run, args, "ge"), ">=") >= 0);
}

static Value is_less(Run *run, Value self, const Args *args)
{
    return value_bool(value_compare(run, self, operand(run, args, "lt"), "<") < 0);
}

static Value is_less_equal(Run *run, Value self, const Args *args)
{
    return value_bool(value_compare(run, self, operand(run, args, "le"), "<=") <= 0);
}

static const Function tests[] = {
    {"defined", is_defined},
    {"undefined", is_undefined},
    {"none", is_none},
    {"boolean", is_boolean},
    {"true", is_true},
    {"false", is_false},
    {"integer", is_integer},
    {"float", is_float},
    {"number", is_number},
    {"string", is_string},
    {"mapping", is_mapping},
    {"iterable", is_iterable},
    {"sequence", is_sequence},
    {"callable", is_callable},
    {"escaped", is_escaped},
    {"lower", is_lower},
    {"upper", is_upper},
    {"odd", is_odd},
    {"even", is_even},
    {"divisibleby", is_divisible},
    {"sameas", is_same},
    {"in", is_in},
    {"filter", is_filter},
    {"test", is_test},
    {"eq", is_equal},
    {"equalto", is_equal},
    {"==", is_equal},
    {"ne", is_not_equal},
    {"!=", is_not_equal},
    {"gt", is_greater},
    {"greaterthan", is_greater},
    {">", is_greater},
    {"ge", is_greater_equal},
    {">=", is_greater_equal},
    {"lt", is_less},
    {"lessthan", is_less},
    {"<", is_less},
    {"le", is_less_equal},
    {"<=", is_less_equal},
};

const Function *test_find(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        if (strlen(tests[i].name) == length && memcmp(tests[i].name, name, length) == 0)
            return &tests[i];
    return NULL;
}
