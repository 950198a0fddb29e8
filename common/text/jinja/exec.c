/* Statements, macros and loops. */
#include "text/jinja/ast.h"

typedef enum { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE } Flow;

static Flow exec_list(Run *run, Activation *activation, const NodeList *list);

static Activation *activation_create(Run *run, Activation *parent, size_t num_slots)
{
    Activation *activation = run_alloc(run, sizeof *activation + num_slots * sizeof(Value));
    activation->parent = parent;
    return activation;
}

static Value *find_slot(Activation *activation, VarRef ref)
{
    for (uint16_t hops = ref.hops; hops > 0; hops--)
        activation = activation->parent;
    return &activation->slot[ref.slot];
}

static void scope_enter(Run *run, Activation *activation, const Scope *scope)
{
    run_step(run, scope->count / 16);
    for (size_t i = 0; i < scope->count; i++) {
        const ScopeLoad *load = &scope->load[i];
        Value *slot = &activation->slot[load->slot];
        if (load->kind == LOAD_CONTEXT) {
            *slot = run->context[load->name];
        } else if (load->kind == LOAD_ALIAS) {
            *slot = *find_slot(activation, load->outer);
        } else if (load->kind == LOAD_UNDEFINED) {
            *slot = value_missing();
        }
    }
}

static void scope_leave(Activation *activation, const Scope *scope)
{
    for (size_t i = 0; i < scope->count; i++)
        activation->slot[scope->load[i].slot] = value_missing();
}

/* ---- assignment ---- */

static void check_namespaces(Run *run, Activation *activation, const Node *target)
{
    if (target->kind == NODE_TUPLE) {
        for (size_t i = 0; i < target->as.list.count; i++)
            check_namespaces(run, activation, target->as.list.item[i]);
    } else if (target->kind == NODE_NSREF) {
        const Value *slot = find_slot(activation, target->as.nsref.name->as.name.ref);
        if (slot->type != VALUE_NAMESPACE)
            run_raise(run, "cannot assign attribute on non-namespace object");
    }
}

static void assign_tuple(Run *run, Activation *activation, const Node *target, Value value)
{
    size_t expected = target->as.list.count, count;
    Iterator iterator;
    if (!iterator_begin(run, value, &iterator))
        run_raise(run, "cannot unpack non-iterable %s object", value_type_name(value));
    Value *items = value_items(run, value, &count);
    if (count < expected)
        run_raise(run, "not enough values to unpack (expected %zu, got %zu)", expected, count);
    if (count > expected) run_raise(run, "too many values to unpack (expected %zu)", expected);
    for (size_t i = 0; i < expected; i++)
        assign_target(run, activation, target->as.list.item[i], items[i]);
}

void assign_target(Run *run, Activation *activation, const Node *target, Value value)
{
    if (target->kind == NODE_NAME) {
        *find_slot(activation, target->as.name.ref) = value;
    } else if (target->kind == NODE_NSREF) {
        const Value *slot = find_slot(activation, target->as.nsref.name->as.name.ref);
        const String *attribute = target->as.nsref.attribute;
        if (attribute->bytes[0] == '_')
            run_raise(run,
                      "Chat templates cannot store underscore-prefixed attributes on a namespace, "
                      "but got '%s'. Please rename the attribute.",
                      message_text(run, attribute));
        dict_set(run, slot->as.names, value_of_string(attribute, run->literal_origin), value);
    } else {
        assign_tuple(run, activation, target, value);
    }
}

/* The message whose turn is being written, from here on. */
static void stand_at(Run *run, int32_t message)
{
    run->loop_message = message;
    run->literal_origin = origin_make(ORIGIN_TEMPLATE, message);
}

/* A loop over numbers stands at the message that it takes first: {% set message = messages[i] %}.
 */
static void stand_at_taken(Run *run, Value value)
{
    if (!run->may_stand || value.type != VALUE_DICT || value.as.dict->message < 0) return;
    stand_at(run, value.as.dict->message);
    run->may_stand = false;
}

static void exec_set(Run *run, Activation *activation, const Node *node)
{
    check_namespaces(run, activation, node->as.set.target);
    Value value = eval_child(run, activation, node->as.set.value);
    assign_target(run, activation, node->as.set.target, value);
    stand_at_taken(run, value);
}

/* ---- filters over text that was collected: the innermost of them has no subject of its own ----
 */

static Value filter_collected(Run *run, Activation *activation, const Node *filter, Value text)
{
    if (filter == NULL) return text;
    Value subject = filter_collected(run, activation, filter->as.call.callee, text);
    return eval_filter(run, activation, filter, subject);
}

static void emit_value(Run *run, Value value)
{
    if (value_is_string(value)) {
        buffer_emit(run, value);
    } else if (value.type != VALUE_UNDEFINED) {
        buffer_emit(run, value_str(run, value));
    }
}

/* What a call block or a filter block gives is put between other text: it has to be text. */
static void emit_text(Run *run, Value value)
{
    if (!value_is_string(value))
        run_raise(run, "what a filter or call block gives: expected str instance, %s found",
                  value_type_name(value));
    buffer_emit(run, value);
}

static Flow exec_set_block(Run *run, Activation *activation, const Node *node)
{
    scope_enter(run, activation, &node->as.set.scope);
    buffer_push(run);
    Flow flow = exec_list(run, activation, &node->as.set.body);
    if (flow != FLOW_NEXT) {
        buffer_drop(run);
        return flow;
    }
    run->line = node->line;
    Value value = filter_collected(run, activation, node->as.set.value, buffer_pop(run));
    check_namespaces(run, activation, node->as.set.target);
    assign_target(run, activation, node->as.set.target, value);
    scope_leave(activation, &node->as.set.scope);
    return FLOW_NEXT;
}

static Flow exec_filter_block(Run *run, Activation *activation, const Node *node)
{
    scope_enter(run, activation, &node->as.block.scope);
    buffer_push(run);
    Flow flow = exec_list(run, activation, &node->as.block.body);
    if (flow != FLOW_NEXT) {
        buffer_drop(run);
        return flow;
    }
    run->line = node->line;
    emit_text(run, filter_collected(run, activation, node->as.block.filter, buffer_pop(run)));
    scope_leave(activation, &node->as.block.scope);
    return FLOW_NEXT;
}

static Flow exec_with(Run *run, Activation *activation, const Node *node)
{
    scope_enter(run, activation, &node->as.block.scope);
    for (size_t i = 0; i < node->as.block.targets.count; i++) {
        Value value = eval_node(run, activation, node->as.block.values.item[i]);
        assign_target(run, activation, node->as.block.targets.item[i], value);
    }
    Flow flow = exec_list(run, activation, &node->as.block.body);
    if (flow == FLOW_NEXT) scope_leave(activation, &node->as.block.scope);
    return flow;
}

/* ---- loops ---- */

/* The next item that passes the loop's test; VALUE_MISSING at the end. */
static Value loop_pull(Run *run, Loop *loop)
{
    Value item;
    const Node *node = loop->node;
    Iterator *iterator = &loop->iterator;
    if (node->as.loop.test == NULL && value_is_list(iterator->source)) {
        run_step(run, 1);
        return iterator->position < iterator->count
                   ? iterator->source.as.list->item[iterator->position++]
                   : value_missing();
    }
    while (iterator_next(run, &loop->iterator, &item)) {
        if (node->as.loop.test == NULL) return item;
        assign_target(run, loop->activation, node->as.loop.test_target, item);
        if (value_truth(eval_child(run, loop->activation, node->as.loop.test))) return item;
    }
    return value_missing();
}

static Value loop_peek(Run *run, Loop *loop)
{
    if (loop->after.type == VALUE_MISSING) loop->after = loop_pull(run, loop);
    return loop->after;
}

static int64_t loop_length(Run *run, Loop *loop)
{
    if (loop->length >= 0) return loop->length;
    if (loop->node->as.loop.test == NULL && value_has_length(loop->iterator.source)) {
        loop->length = (int64_t)value_length(run, loop->iterator.source);
        return loop->length;
    }
    size_t count = 0, capacity = 16; /* walks on to the end and goes back to a list of what came */
    Value *items = run_alloc(run, capacity * sizeof *items);
    for (Value item = loop_pull(run, loop); item.type != VALUE_MISSING;
         item = loop_pull(run, loop)) {
        if (count == capacity) {
            Value *grown = run_alloc(run, 2 * capacity * sizeof *grown);
            memcpy(grown, items, count * sizeof *grown);
            items = grown;
            capacity *= 2;
        }
        items[count++] = item;
    }
    loop->length = (int64_t)count + loop->index0 + 1 + (loop->after.type != VALUE_MISSING);
    iterator_begin(run, value_generator(run, items, count), &loop->iterator);
    return loop->length;
}

static Value loop_cycle(Run *run, Value self, const Args *args)
{
    if (args->count == 0) run_raise(run, "no items for cycling given");
    return args->positional[(size_t)self.as.loop->index0 % args->count];
}

static Value loop_changed(Run *run, Value self, const Args *args)
{
    Loop *loop = self.as.loop;
    Value now = value_tuple(run, args->count);
    if (args->count > 0) memcpy(list_items(now), args->positional, args->count * sizeof(Value));
    if (loop->changed.type != VALUE_MISSING && value_equal(run, loop->changed, now))
        return value_bool(false);
    loop->changed = now;
    return value_bool(true);
}

static Value loop_method(Run *run, Loop *loop, CallFunction call)
{
    Method *method = run_alloc(run, sizeof *method);
    method->self = (Value){.type = VALUE_LOOP, .as.loop = loop};
    method->call = call;
    return (Value){.type = VALUE_METHOD, .as.method = method};
}

Value loop_attribute(Run *run, Loop *loop, const String *name)
{
    if (string_is(name, "index0")) return value_int(loop->index0);
    if (string_is(name, "index")) return value_int(loop->index0 + 1);
    if (string_is(name, "first")) return value_bool(loop->index0 == 0);
    if (string_is(name, "last")) return value_bool(loop_peek(run, loop).type == VALUE_MISSING);
    if (string_is(name, "length")) return value_int(loop_length(run, loop));
    if (string_is(name, "revindex")) return value_int(loop_length(run, loop) - loop->index0);
    if (string_is(name, "revindex0")) return value_int(loop_length(run, loop) - loop->index0 - 1);
    if (string_is(name, "previtem"))
        return loop->index0 == 0 ? value_undefined_hint(run, "there is no previous item")
                                 : loop->before;
    if (string_is(name, "nextitem")) {
        Value next = loop_peek(run, loop);
        return next.type == VALUE_MISSING ? value_undefined_hint(run, "there is no next item")
                                          : next;
    }
    if (string_is(name, "depth")) return value_int(loop->depth0 + 1);
    if (string_is(name, "depth0")) return value_int(loop->depth0);
    if (string_is(name, "cycle")) return loop_method(run, loop, loop_cycle);
    if (string_is(name, "changed")) return loop_method(run, loop, loop_changed);
    return value_missing();
}

/* Runs the body once; true when the loop goes on. */
static Flow loop_once(Run *run, Activation *activation, Loop *loop, Value item)
{
    const Node *node = loop->node;
    loop->index0++;
    loop->before = loop->current;
    loop->current = item;
    if (item.type == VALUE_DICT && item.as.dict->message >= 0) stand_at(run, item.as.dict->message);
    run->may_stand = item.type == VALUE_INT;
    assign_target(run, activation, node->as.loop.target, item);
    if (node->as.loop.uses_loop)
        activation->slot[node->as.loop.loop_slot] =
            (Value){.type = VALUE_LOOP, .origin = ORIGIN_PLAIN_TEMPLATE, .as.loop = loop};
    scope_enter(run, activation, &node->as.loop.scope);
    return exec_list(run, activation, &node->as.loop.body);
}

static Flow loop_run(Run *run, Activation *activation, const Node *node, Value source, int depth0)
{
    Loop *loop = run_alloc_raw(run, sizeof *loop);
    *loop = (Loop){
        .node = node, .activation = activation, .index0 = -1, .length = -1, .depth0 = depth0};
    if (!iterator_begin(run, source, &loop->iterator))
        run_raise(run, "'%s' object is not iterable", value_type_name(source));
    scope_enter(run, activation, &node->as.loop.test_scope);
    int32_t outer_message = run->loop_message;
    bool outer_may = run->may_stand, ran = false;
    for (;;) {
        stand_at(run, outer_message);
        Value item = loop->after.type != VALUE_MISSING ? loop->after : loop_pull(run, loop);
        loop->after = value_missing();
        if (item.type == VALUE_MISSING) break;
        Flow flow = loop_once(run, activation, loop, item);
        ran = ran || flow == FLOW_NEXT; /* else is for loops whose body never came to its end */
        if (flow == FLOW_BREAK) break;
        run->line = node->line;
    }
    stand_at(run, outer_message);
    run->may_stand = outer_may;
    scope_leave(activation, &node->as.loop.scope);
    if (ran || node->as.loop.otherwise.count == 0) return FLOW_NEXT;
    scope_enter(run, activation, &node->as.loop.else_scope);
    return exec_list(run, activation, &node->as.loop.otherwise);
}

/* A recursive loop is a function that gives the text of its iterations. */
static Value loop_render(Run *run, Activation *outer, const Node *node, Value source, int depth0)
{
    Activation *activation = activation_create(run, outer, node->as.loop.num_slots);
    buffer_push(run);
    loop_run(run, activation, node, source, depth0);
    return buffer_pop(run);
}

Value eval_loop_call(Run *run, const Loop *loop, Value items)
{
    if (!loop->node->as.loop.recursive)
        run_raise(run, "The loop must have the 'recursive' marker to be called recursively.");
    run_enter(run);
    int line = run->line;
    Value text = loop_render(run, loop->activation->parent, loop->node, items, loop->depth0 + 1);
    run->line = line;
    run_leave(run);
    return text;
}

static Flow exec_for(Run *run, Activation *activation, const Node *node)
{
    Value source = eval_child(run, activation, node->as.loop.source);
    if (!node->as.loop.recursive) return loop_run(run, activation, node, source, 0);
    buffer_emit(run, loop_render(run, activation, node, source, 0));
    return FLOW_NEXT;
}

/* ---- macros ---- */

typedef struct MacroCall {
    const MacroNode *node;
    Activation *activation;
    const Args *args;
    bool *used; /* [args->num_keywords] */
} MacroCall;

static Value take_keyword(MacroCall *call, const String *name)
{
    for (size_t i = 0; i < call->args->num_keywords; i++) {
        const Keyword *keyword = &call->args->keyword[i];
        if (!call->used[i] && keyword->name->length == name->length &&
            memcmp(keyword->name->bytes, name->bytes, name->length) == 0) {
            call->used[i] = true;
            return keyword->value;
        }
    }
    return value_missing();
}

/* 'name', or None for the macro of a call block. */
static const char *macro_name(Run *run, const MacroNode *node)
{
    if (node->name == NULL) return "None";
    return message_repr(run, value_of_string(node->name, run->literal_origin));
}

_Noreturn static void fail_keyword(Run *run, const MacroNode *node, const String *name)
{
    if (string_is(name, "caller"))
        run_raise(run,
                  "macro %s was invoked with two values for the special caller argument. This is "
                  "most likely a bug.",
                  macro_name(run, node));
    run_raise(run, "macro %s takes no keyword argument '%s'", macro_name(run, node),
              message_text(run, name));
}

/* The names that a macro may use without declaring them; fails on arguments that nothing takes. */
static void bind_special(Run *run, MacroCall *call)
{
    static const String caller = {.bytes = "caller", .length = 6, .chars = 6};
    const MacroNode *node = call->node;
    const Args *args = call->args;
    Value *slot = call->activation->slot;
    if (node->takes_caller) {
        Value value = take_keyword(call, &caller);
        slot[node->caller_slot] = value.type == VALUE_MISSING || value.type == VALUE_NONE
                                      ? value_undefined_hint(run, "No caller defined")
                                      : value;
    }
    Dict *kwargs = node->takes_kwargs ? dict_create(run, args->num_keywords) : NULL;
    for (size_t i = 0; i < args->num_keywords; i++) {
        if (call->used[i]) continue;
        if (kwargs == NULL) fail_keyword(run, node, args->keyword[i].name);
        dict_set(run, kwargs, value_of_string(args->keyword[i].name, run->literal_origin),
                 args->keyword[i].value);
    }
    if (kwargs != NULL) slot[node->kwargs_slot] = value_of_dict(kwargs, run->literal_origin);
    size_t extra = args->count > node->num_parameters ? args->count - node->num_parameters : 0;
    if (extra > 0 && !node->takes_varargs)
        run_raise(run, "macro %s takes not more than %zu argument(s)", macro_name(run, node),
                  node->num_parameters);
    if (node->takes_varargs) {
        Value varargs = value_tuple(run, extra);
        for (size_t i = 0; i < extra; i++)
            list_items(varargs)[i] = args->positional[node->num_parameters + i];
        slot[node->varargs_slot] = varargs;
    }
}

/* Gives a macro its parameters and enters it. */
static Activation *macro_enter(Run *run, const MacroNode *node, Activation *closure,
                               const Args *args)
{
    MacroCall call = {.node = node, .args = args};
    call.activation = activation_create(run, closure, node->num_slots);
    call.used = run_alloc(run, args->num_keywords * sizeof *call.used);
    run_step(run, node->num_parameters * args->num_keywords / 8);
    Value *slot = call.activation->slot;
    for (size_t i = 0; i < node->num_parameters; i++)
        slot[node->parameter_slot[i]] = i < args->count
                                            ? args->positional[i]
                                            : take_keyword(&call, node->parameter[i]->as.name.text);
    bind_special(run, &call);
    scope_enter(run, call.activation, &node->scope);
    size_t first_default = node->num_parameters - node->defaults.count;
    for (size_t i = 0; i < node->num_parameters; i++) {
        Value *value = &slot[node->parameter_slot[i]];
        if (value->type != VALUE_MISSING) continue;
        if (i >= first_default) {
            *value = eval_node(run, call.activation, node->defaults.item[i - first_default]);
        } else {
            *value = value_undefined_hint(run, "parameter '%s' was not provided",
                                          message_text(run, node->parameter[i]->as.name.text));
        }
    }
    return call.activation;
}

Value eval_macro(Run *run, const Macro *macro, const Args *args)
{
    run_enter(run);
    int line = run->line;
    Activation *activation = macro_enter(run, macro->node, macro->closure, args);
    buffer_push(run);
    exec_list(run, activation, &macro->node->body);
    Value text = buffer_pop(run);
    run->line = line;
    run_leave(run);
    return text;
}

static Value macro_create(Run *run, Activation *activation, const MacroNode *node)
{
    Macro *macro = run_alloc(run, sizeof *macro);
    macro->node = node;
    macro->closure = activation;
    return (Value){.type = VALUE_MACRO, .origin = ORIGIN_PLAIN_TEMPLATE, .as.macro = macro};
}

/* {% generation %}: text written here is what the assistant generates. */
static void exec_generation(Run *run, Activation *activation, const Node *node)
{
    Args none = {0};
    Origin outer = run->generation;
    Activation *inner = macro_enter(run, node->as.macro.macro, activation, &none);
    run->generation = ORIGIN_GENERATION;
    exec_list(run, inner, &node->as.macro.macro->body);
    run->generation = outer;
}

/* ---- statements ---- */

static bool emit_plain(Run *run, Value value)
{
    if (!value_is_string(value) || (value.flags & FLAG_MARKUP)) return false;
    buffer_emit(run, value);
    return true;
}

/* Writes a + b + c piece by piece where all are strings, which spares joining them first; what is
 * none is added to what was written before it. */
static void emit_sum(Run *run, Activation *activation, const NodeList *sum)
{
    size_t begin = run->top->length, i = 0;
    Value value = value_missing();
    for (; i < sum->count; i++) {
        value = eval_child(run, activation, sum->item[i]);
        if (!emit_plain(run, value)) break;
    }
    if (i == sum->count) return;
    if (i > 0) value = eval_binary(run, BINARY_ADD, buffer_retract(run, begin), value);
    for (i++; i < sum->count; i++)
        value = eval_binary(run, BINARY_ADD, value, eval_child(run, activation, sum->item[i]));
    emit_value(run, value);
}

static void exec_output(Run *run, Activation *activation, const Node *node)
{
    run_step(run, node->as.list.count);
    for (size_t i = 0; i < node->as.list.count; i++) {
        const Node *child = node->as.list.item[i];
        run->line = child->line;
        if (child->kind == NODE_CONCAT) {
            for (size_t j = 0; j < child->as.list.count; j++)
                emit_value(run, eval_node(run, activation, child->as.list.item[j]));
            continue;
        }
        if (child->kind == NODE_BINARY && child->as.binary.sum.count > 0) {
            emit_sum(run, activation, &child->as.binary.sum);
        } else {
            emit_value(run, eval_child(run, activation, child));
        }
    }
}

/* Is it true? */
static inline bool eval_test(Run *run, Activation *activation, const Node *node)
{
    if (node->kind == NODE_COMPARE && node->as.compare.is_name_test) /* as most tests are */
        return compare_name(run, activation, node);
    return value_truth(eval_child(run, activation, node));
}

static Flow exec_if(Run *run, Activation *activation, const Node *node)
{
    for (size_t i = 0; i < node->as.branch.test.count; i++) {
        const Node *test = node->as.branch.test.item[i];
        if (i > 0) run->line = test->line;
        if (eval_test(run, activation, test))
            return exec_list(run, activation, &node->as.branch.body[i]);
    }
    return exec_list(run, activation, &node->as.branch.otherwise);
}

static Flow exec_node(Run *run, Activation *activation, const Node *node)
{
    run->line = node->line;
    if (node->kind == NODE_OUTPUT) { /* most are one of these, and guessed right */
        exec_output(run, activation, node);
        return FLOW_NEXT;
    }
    if (node->kind == NODE_IF) return exec_if(run, activation, node);
    switch (node->kind) {
    case NODE_FOR:
        return exec_for(run, activation, node);
    case NODE_SET:
        exec_set(run, activation, node);
        return FLOW_NEXT;
    case NODE_SET_BLOCK:
        return exec_set_block(run, activation, node);
    case NODE_FILTER_BLOCK:
        return exec_filter_block(run, activation, node);
    case NODE_WITH:
        return exec_with(run, activation, node);
    case NODE_MACRO:
        *find_slot(activation, node->as.macro.ref) =
            macro_create(run, activation, node->as.macro.macro);
        return FLOW_NEXT;
    case NODE_CALL_BLOCK:
        emit_text(run, eval_call_block(run, activation, node->as.macro.call,
                                       macro_create(run, activation, node->as.macro.macro)));
        return FLOW_NEXT;
    case NODE_GENERATION:
        exec_generation(run, activation, node);
        return FLOW_NEXT;
    case NODE_BREAK:
        return FLOW_BREAK;
    case NODE_CONTINUE:
        return FLOW_CONTINUE;
    case NODE_UNAVAILABLE:
        run_raise(run, "%s", node->as.reason);
    default:
        CHECKF(false, "node %d is not a statement", node->kind);
        return FLOW_NEXT;
    }
}

static Flow exec_list(Run *run, Activation *activation, const NodeList *list)
{
    run_enter(run);
    run_step(run, 1);
    Flow flow = FLOW_NEXT;
    for (size_t i = 0; i < list->count && flow == FLOW_NEXT; i++)
        flow = exec_node(run, activation, list->item[i]);
    run_leave(run);
    return flow;
}

void exec_template(Run *run)
{
    const Template *template = run->template;
    Activation *activation = activation_create(run, NULL, template->num_slots);
    scope_enter(run, activation, &template->scope);
    exec_list(run, activation, &template->body);
}
