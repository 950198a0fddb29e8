/* Expressions. */
#include "text/jinja/ast.h"

static Value eval_name(Run *run, Activation *activation, const Node *node)
{
    for (uint16_t hops = node->as.name.ref.hops; hops > 0; hops--)
        activation = activation->parent;
    Value value = activation->slot[node->as.name.ref.slot];
    return value.type != VALUE_MISSING ? value : value_undefined_name(run, node->as.name.text);
}

static Value eval_list(Run *run, Activation *activation, const Node *node)
{
    size_t count = node->as.list.count;
    Value list = node->kind == NODE_LIST ? value_list(run, count) : value_tuple(run, count);
    for (size_t i = 0; i < count; i++)
        list_items(list)[i] = eval_node(run, activation, node->as.list.item[i]);
    return list;
}

static Value eval_dict(Run *run, Activation *activation, const Node *node)
{
    Dict *dict = dict_create(run, node->as.list.count / 2);
    for (size_t i = 0; i + 1 < node->as.list.count; i += 2) {
        Value key = eval_node(run, activation, node->as.list.item[i]);
        dict_set(run, dict, key, eval_node(run, activation, node->as.list.item[i + 1]));
    }
    return value_of_dict(dict, run->literal_origin);
}

static Value eval_condition(Run *run, Activation *activation, const Node *node)
{
    if (value_truth(eval_child(run, activation, node->as.condition.test)))
        return eval_child(run, activation, node->as.condition.yes);
    if (node->as.condition.no != NULL) return eval_child(run, activation, node->as.condition.no);
    return value_undefined_hint(run,
                                "the inline if-expression on line %d evaluated to false and no "
                                "else section was defined.",
                                node->line);
}

static Value eval_concat(Run *run, Activation *activation, const Node *node)
{
    Value joined = value_str(run, eval_node(run, activation, node->as.list.item[0]));
    for (size_t i = 1; i < node->as.list.count; i++)
        joined = string_concat(run, joined,
                               value_str(run, eval_node(run, activation, node->as.list.item[i])));
    return joined;
}

static bool compare_once(Run *run, CompareOp op, Value a, Value b)
{
    switch (op) {
    case COMPARE_EQ:
        return value_equal(run, a, b);
    case COMPARE_NE:
        return !value_equal(run, a, b);
    case COMPARE_LT:
        return value_compare(run, a, b, "<") < 0;
    case COMPARE_LE:
        return value_compare(run, a, b, "<=") <= 0;
    case COMPARE_GT:
        return value_compare(run, a, b, ">") > 0;
    case COMPARE_GE:
        return value_compare(run, a, b, ">=") >= 0;
    case COMPARE_IN:
        return value_contains(run, b, a);
    case COMPARE_NOT_IN:
        return !value_contains(run, b, a);
    }
    return false;
}

bool compare_name(Run *run, Activation *activation, const Node *node)
{
    Value left = eval_child(run, activation, node->as.compare.first);
    const String *name = node->as.compare.operand.item[0]->as.constant.as.string;
    bool equal = value_is_string(left) && string_equal(left.as.string, name);
    return equal == (node->as.compare.op[0] == COMPARE_EQ);
}

static Value eval_compare(Run *run, Activation *activation, const Node *node)
{
    if (node->as.compare.is_name_test) return value_bool(compare_name(run, activation, node));
    Value left = eval_child(run, activation, node->as.compare.first);
    for (size_t i = 0; i < node->as.compare.operand.count; i++) {
        Value right = eval_child(run, activation, node->as.compare.operand.item[i]);
        if (!compare_once(run, node->as.compare.op[i], left, right)) return value_bool(false);
        left = right;
    }
    return value_bool(true);
}

/* ---- attributes and items ---- */

/* What is not in a dict's entries: methods and the attributes of special objects. VALUE_MISSING:
 * nothing. */
static Value own_attribute(Run *run, Value object, const String *name)
{
    const Name *known = string_name(name);
    bool has_others =
        object.type == VALUE_NAMESPACE || object.type == VALUE_LOOP || object.type == VALUE_CYCLER;
    if (known != NULL && !known->is_attribute && !has_others) return value_missing();
    if (object.type == VALUE_NAMESPACE) {
        const Value *value = dict_get_string(run, object.as.names, name);
        return value != NULL ? *value : value_missing();
    }
    if (object.type == VALUE_LOOP) return loop_attribute(run, object.as.loop, name);
    if (object.type == VALUE_MACRO && string_is(name, "name"))
        return object.as.macro->node->name != NULL
                   ? value_of_string(object.as.macro->node->name, run->literal_origin)
                   : value_none();
    if (object.flags & FLAG_GROUP) {
        if (string_is(name, "grouper")) return list_items(object)[0];
        if (string_is(name, "list")) return list_items(object)[1];
    }
    if (name_is_dunder(name))
        return value_undefined_hint(run, "access to attribute '%s' of '%s' object is unsafe.",
                                    message_text(run, name), value_type_name(object));
    return method_bind(run, object, name);
}

static Value get_attribute(Run *run, Value object, Value name, bool maybe_method)
{
    const String *text = name.as.string;
    run_step(run, text->length / 16);
    if (object.type == VALUE_UNDEFINED) run_fail_undefined(run, object);
    if (object.type != VALUE_DICT || maybe_method) {
        Value value = own_attribute(run, object, text);
        if (value.type != VALUE_MISSING) return value;
    }
    if (object.type == VALUE_DICT) {
        const Value *value = dict_get_string(run, object.as.dict, text);
        if (value != NULL) return *value;
    }
    return value_undefined_attribute(run, object, name);
}

Value eval_getattr(Run *run, Value object, Value name)
{
    return get_attribute(run, object, name, true);
}

/* Item `index` of what has a length, counted from the end when negative; VALUE_MISSING when out of
 * range. */
static Value item_at(Run *run, Value object, int64_t index)
{
    int64_t count = (int64_t)value_length(run, object);
    if (index < 0) index += count;
    if (index < 0 || index >= count) return value_missing();
    if (value_is_list(object)) return list_items(object)[index];
    if (object.type == VALUE_RANGE)
        return value_int(object.as.range->start + index * object.as.range->step);
    const String *text = object.as.string;
    if (!string_is_ascii(text)) run_step(run, (uint64_t)index / 4);
    size_t begin = string_offset(text, (size_t)index);
    int size;
    string_char(text, begin, &size);
    return string_slice(run, object, begin, begin + (size_t)size);
}

Value eval_getitem(Run *run, Value object, Value key)
{
    if (object.type == VALUE_UNDEFINED) run_fail_undefined(run, object);
    if (object.type == VALUE_DICT) {
        const Value *value = NULL;
        if (value_is_string(key)) {
            run_step(run, key.as.string->length / 16);
            value = dict_get_string(run, object.as.dict, key.as.string);
        } else if (value_is_hashable(run, key)) {
            value = dict_get(run, object.as.dict, key);
        }
        if (value != NULL) return *value;
    } else if (value_is_integer(key) &&
               (value_is_list(object) || value_is_string(object) || object.type == VALUE_RANGE)) {
        Value value = item_at(run, object, value_as_int(key));
        if (value.type != VALUE_MISSING) return value;
    }
    if (value_is_string(key)) {
        Value value = own_attribute(run, object, key.as.string);
        if (value.type != VALUE_MISSING) return value;
    }
    return value_undefined_attribute(run, object, key);
}

/* A bound of a slice as an index into 0..count, or `otherwise` when it is not given. */
static int64_t slice_bound(Run *run, Value bound, int64_t count, int64_t low, int64_t otherwise)
{
    if (bound.type == VALUE_NONE || bound.type == VALUE_MISSING) return otherwise;
    if (!value_is_integer(bound))
        run_raise(run, "slice indices must be integers or None or have an __index__ method");
    int64_t index = value_as_int(bound);
    if (index < 0) index = index < -count ? low : index + count;
    int64_t high = low < 0 ? count - 1 : count;
    return index < low ? low : index > high ? high : index;
}

static Value slice_string(Run *run, Value object, int64_t start, int64_t step, int64_t count)
{
    const String *text = object.as.string;
    if (step == 1) {
        if (!string_is_ascii(text)) run_step(run, (uint64_t)(start + count) / 4);
        size_t begin = string_offset(text, (size_t)start);
        return string_slice(run, object, begin, string_offset(text, (size_t)(start + count)));
    }
    run_step(run, (uint64_t)count);
    size_t *offset = NULL; /* of every code point, unless they are single bytes */
    if (!string_is_ascii(text)) {
        offset = run_alloc(run, ((size_t)string_chars(text) + 1) * sizeof *offset);
        size_t chars = 0;
        for (size_t i = 0; i <= text->length; i++)
            if (i == text->length || ((unsigned char)text->bytes[i] & 0xC0) != 0x80)
                offset[chars++] = i;
    }
    buffer_push(run);
    for (int64_t i = 0; i < count; i++) {
        size_t at = (size_t)(start + i * step);
        buffer_write_slice(run, object, offset != NULL ? offset[at] : at,
                           offset != NULL ? offset[at + 1] : at + 1);
    }
    Value sliced = buffer_pop(run);
    sliced.flags = object.flags;
    return sliced;
}

Value eval_slice(Run *run, Value object, Value start, Value stop, Value step)
{
    if (object.type == VALUE_UNDEFINED) run_fail_undefined(run, object);
    if (object.type == VALUE_DICT) run_raise(run, "unhashable type: 'slice'");
    if (!value_is_list(object) && !value_is_string(object) && object.type != VALUE_RANGE)
        run_raise(run, "'%s' object is not subscriptable", value_type_name(object));
    int64_t stride = 1;
    if (step.type != VALUE_NONE && step.type != VALUE_MISSING) {
        if (!value_is_integer(step))
            run_raise(run, "slice indices must be integers or None or have an __index__ method");
        stride = value_as_int(step);
        if (stride == 0) run_raise(run, "slice step cannot be zero");
        if (stride < -INT32_MAX) stride = -INT32_MAX;
        if (stride > INT32_MAX) stride = INT32_MAX;
    }
    int64_t length = (int64_t)value_length(run, object);
    int64_t low = stride < 0 ? -1 : 0;
    int64_t first = slice_bound(run, start, length, low, stride < 0 ? length - 1 : 0);
    int64_t last = slice_bound(run, stop, length, low, stride < 0 ? -1 : length);
    int64_t count =
        stride > 0 ? (last - first + stride - 1) / stride : (first - last - stride - 1) / -stride;
    if (count < 0) count = 0;
    if (value_is_string(object))
        return slice_string(run, object, count > 0 ? first : 0, stride, count);
    if (object.type == VALUE_RANGE) {
        const Range *from = object.as.range;
        Range *range = run_alloc(run, sizeof *range);
        range->start = from->start + first * from->step;
        range->step = from->step * stride;
        range->stop = from->start + last * from->step;
        range->count = count;
        object.as.range = range;
        return object;
    }
    Value part = object.type == VALUE_LIST ? value_list(run, (size_t)count)
                                           : value_tuple(run, (size_t)count);
    part.origin = object.origin;
    run_step(run, (uint64_t)count / 8);
    for (int64_t i = 0; i < count; i++)
        list_items(part)[i] = list_items(object)[first + i * stride];
    return part;
}

static Value eval_optional(Run *run, Activation *activation, const Node *node)
{
    return node != NULL ? eval_child(run, activation, node) : value_none();
}

static Value eval_item(Run *run, Activation *activation, const Node *node)
{
    Value object = eval_child(run, activation, node->as.get.object);
    const Node *key = node->as.get.key;
    if (key->kind != NODE_SLICE) return eval_getitem(run, object, eval_child(run, activation, key));
    Value start = eval_optional(run, activation, key->as.slice.start);
    Value stop = eval_optional(run, activation, key->as.slice.stop);
    return eval_slice(run, object, start, stop, eval_optional(run, activation, key->as.slice.step));
}

/* ---- calls ---- */

/* Appends what *args gives to the positional arguments. */
static void spread_positional(Run *run, Args *args, Value star)
{
    size_t count;
    Value *items = value_items(run, star, &count);
    Value *all = run_alloc(run, (args->count + count) * sizeof *all);
    if (args->count > 0) memcpy(all, args->positional, args->count * sizeof *all);
    if (count > 0) memcpy(all + args->count, items, count * sizeof *all);
    args->positional = all;
    args->count += count;
}

static void spread_keywords(Run *run, Args *args, Value star_star)
{
    if (star_star.type != VALUE_DICT)
        run_raise(run, "argument after ** must be a mapping, not %s", value_type_name(star_star));
    const Dict *dict = star_star.as.dict;
    Keyword *all = run_alloc(run, (args->num_keywords + dict->count) * sizeof *all);
    if (args->num_keywords > 0) memcpy(all, args->keyword, args->num_keywords * sizeof *all);
    for (size_t i = 0; i < dict->count; i++) {
        if (!value_is_string(dict->entry[i].key)) run_raise(run, "keywords must be strings");
        all[args->num_keywords++] = (Keyword){.name = dict->entry[i].key.as.string,
                                              .value = *entry_value(run, &dict->entry[i])};
    }
    args->keyword = all;
}

static Args eval_args(Run *run, Activation *activation, const CallArgs *written)
{
    Args args = {.count = written->positional.count, .num_keywords = written->keyword.count};
    run_step(run, args.count + args.num_keywords);
    if (args.count > 0) {
        Value *positional = run_alloc_raw(run, args.count * sizeof *positional);
        for (size_t i = 0; i < args.count; i++)
            positional[i] = eval_child(run, activation, written->positional.item[i]);
        args.positional = positional;
    }
    if (args.num_keywords > 0) {
        Keyword *keyword = run_alloc_raw(run, args.num_keywords * sizeof *keyword);
        for (size_t i = 0; i < args.num_keywords; i++) {
            keyword[i].name = written->keyword_name[i];
            keyword[i].value = eval_child(run, activation, written->keyword.item[i]);
        }
        args.keyword = keyword;
    }
    if (written->star != NULL)
        spread_positional(run, &args, eval_child(run, activation, written->star));
    if (written->star_star != NULL)
        spread_keywords(run, &args, eval_child(run, activation, written->star_star));
    return args;
}

Value eval_call(Run *run, Value callee, const Args *args)
{
    switch ((ValueType)callee.type) {
    case VALUE_FUNCTION:
        return callee.as.function->call(run, callee, args);
    case VALUE_METHOD:
        return callee.as.method->call(run, callee.as.method->self, args);
    case VALUE_MACRO:
        return eval_macro(run, callee.as.macro, args);
    case VALUE_LOOP:
        if (args->count != 1 || args->num_keywords > 0) run_raise(run, "loop() takes one argument");
        return eval_loop_call(run, callee.as.loop, args->positional[0]);
    case VALUE_JOINER: {
        Joiner *joiner = callee.as.joiner;
        bool first = !joiner->used;
        joiner->used = true;
        return first ? value_literal(run, "") : joiner->separator;
    }
    case VALUE_UNDEFINED:
        run_fail_undefined(run, callee);
    default:
        run_raise(run, "'%s' object is not callable", value_type_name(callee));
    }
}

/* Calls a method without making a value of it first. */
static Value eval_method_call(Run *run, Activation *activation, const Node *node)
{
    const Node *getter = node->as.call.callee;
    Value object = eval_child(run, activation, getter->as.get.object);
    CallFunction call = NULL;
    if (value_is_string(object)) {
        call = getter->as.get.string_method;
    } else if (object.type == VALUE_DICT) {
        call = getter->as.get.dict_method;
    }
    Value callee = value_missing();
    if (call == NULL)
        callee = get_attribute(run, object, getter->as.get.attribute, getter->as.get.maybe_method);
    Args args = eval_args(run, activation, &node->as.call.args);
    return call != NULL ? call(run, object, &args) : eval_call(run, callee, &args);
}

/* The call of a {% call %} block passes its body as the keyword argument `caller`. */
static Value eval_call_node(Run *run, Activation *activation, const Node *node, const Value *caller)
{
    const Node *callee_node = node->as.call.callee;
    if (caller == NULL && callee_node->kind == NODE_GETATTR)
        return eval_method_call(run, activation, node);
    Value callee = eval_child(run, activation, callee_node);
    Args args = eval_args(run, activation, &node->as.call.args);
    if (caller != NULL) {
        static const String name = {.bytes = "caller", .length = 6, .chars = 6};
        Keyword *all = run_alloc(run, (args.num_keywords + 1) * sizeof *all);
        if (args.num_keywords > 0) memcpy(all, args.keyword, args.num_keywords * sizeof *all);
        all[args.num_keywords++] = (Keyword){.name = &name, .value = *caller};
        args.keyword = all;
    }
    return eval_call(run, callee, &args);
}

Value eval_call_block(Run *run, Activation *activation, const Node *call, Value caller)
{
    return eval_call_node(run, activation, call, &caller);
}

Value eval_filter(Run *run, Activation *activation, const Node *node, Value subject)
{
    if (node->as.call.function == NULL)
        run_raise(run, "No %s named '%s' found.", node->kind == NODE_FILTER ? "filter" : "test",
                  message_text(run, node->as.call.name));
    Args args = eval_args(run, activation, &node->as.call.args);
    return node->as.call.function->call(run, subject, &args);
}

static Value eval_or(Run *run, Activation *activation, const Node *node)
{
    Value left = eval_child(run, activation, node->as.binary.left);
    return value_truth(left) ? left : eval_child(run, activation, node->as.binary.right);
}

static Value eval_and(Run *run, Activation *activation, const Node *node)
{
    Value left = eval_child(run, activation, node->as.binary.left);
    return value_truth(left) ? eval_child(run, activation, node->as.binary.right) : left;
}

static Value eval_not(Run *run, Activation *activation, const Node *node)
{
    return value_bool(!value_truth(eval_child(run, activation, node->as.binary.left)));
}

static Value eval_sign(Run *run, Activation *activation, const Node *node)
{
    return eval_negative(run, eval_child(run, activation, node->as.binary.left),
                         node->kind == NODE_NEGATIVE);
}

static Value eval_operator(Run *run, Activation *activation, const Node *node)
{
    Value left = eval_child(run, activation, node->as.binary.left);
    return eval_binary(run, node->as.binary.op, left,
                       eval_child(run, activation, node->as.binary.right));
}

static Value eval_attribute(Run *run, Activation *activation, const Node *node)
{
    Value object = eval_child(run, activation, node->as.get.object);
    return get_attribute(run, object, node->as.get.attribute, node->as.get.maybe_method);
}

static Value eval_plain_call(Run *run, Activation *activation, const Node *node)
{
    return eval_call_node(run, activation, node, NULL);
}

static Value eval_filter_node(Run *run, Activation *activation, const Node *node)
{
    return eval_filter(run, activation, node, eval_child(run, activation, node->as.call.callee));
}

static Value eval_const(Run *run, Activation *activation, const Node *node)
{
    (void)activation;
    Value value = node->as.constant;
    value.origin = run->literal_origin;
    return value;
}

static _Noreturn Value eval_stray_slice(Run *run, Activation *activation, const Node *node)
{
    (void)activation;
    (void)node;
    run_raise(run, "a slice among several subscripts is not supported");
}

static Value (*const evaluators[])(Run *run, Activation *activation, const Node *node) = {
    [NODE_CONST] = eval_const,
    [NODE_NAME] = eval_name,
    [NODE_TUPLE] = eval_list,
    [NODE_LIST] = eval_list,
    [NODE_DICT] = eval_dict,
    [NODE_CONDITION] = eval_condition,
    [NODE_OR] = eval_or,
    [NODE_AND] = eval_and,
    [NODE_NOT] = eval_not,
    [NODE_NEGATIVE] = eval_sign,
    [NODE_POSITIVE] = eval_sign,
    [NODE_BINARY] = eval_operator,
    [NODE_CONCAT] = eval_concat,
    [NODE_COMPARE] = eval_compare,
    [NODE_GETATTR] = eval_attribute,
    [NODE_GETITEM] = eval_item,
    [NODE_SLICE] = eval_stray_slice,
    [NODE_CALL] = eval_plain_call,
    [NODE_FILTER] = eval_filter_node,
    [NODE_TEST] = eval_filter_node,
};

/* variable['name'] or variable.name of a dict; VALUE_MISSING: is not as simple as that. */
static inline Value eval_entry(Run *run, const Activation *activation, const Node *node)
{
    Value object = activation->slot[node->as.get.object->as.name.ref.slot];
    if (object.type != VALUE_DICT) return value_missing();
    const Value *value = dict_get_string(run, object.as.dict, node->as.get.entry);
    return value != NULL ? *value : value_missing();
}

Value eval_node(Run *run, Activation *activation, const Node *node)
{
    bool is_get = node->kind == NODE_GETITEM || node->kind == NODE_GETATTR;
    if (is_get && node->as.get.entry != NULL) {
        Value value = eval_entry(run, activation, node);
        if (value.type != VALUE_MISSING) return value;
    }
    run_step(run, 1);
    run_enter(run);
    Value value = evaluators[node->kind](run, activation, node);
    run_leave(run);
    return value;
}
