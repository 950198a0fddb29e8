/* Methods of lists, dicts and the rest, and how any method is found. */
#include "text/jinja/methods.h"

void refuse_arguments(Run *run, const Args *args, const char *name)
{
    if (args->count > 0 || args->num_keywords > 0)
        run_raise(run, "str.%s() takes no arguments (%zu given)", name,
                  args->count + args->num_keywords);
}

/* ---- lists, tuples, ranges ---- */

static Value list_index(Run *run, Value self, const Args *args)
{
    if (args->count < 1) run_raise(run, "index expected at least 1 argument, got 0");
    size_t count;
    Value *items = value_items(run, self, &count);
    for (size_t i = 0; i < count; i++)
        if (value_equal(run, items[i], args->positional[0])) return value_int((int64_t)i);
    run_raise(run, "%s is not in list", message_repr(run, args->positional[0]));
}

static Value list_count(Run *run, Value self, const Args *args)
{
    if (args->count != 1)
        run_raise(run, "list.count() takes exactly one argument (%zu given)", args->count);
    size_t count;
    Value *items = value_items(run, self, &count);
    int64_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += value_equal(run, items[i], args->positional[0]);
    return value_int(found);
}

static Value same_object(Run *run, Value self, const Args *args)
{
    refuse_arguments(run, args, "copy");
    return self; /* nothing can change it */
}

/* ---- dicts ---- */

static Value dict_lookup(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"key", true}, {"default", false}};
    Value values[2];
    if (args->num_keywords > 0) run_raise(run, "dict.get() takes no keyword arguments");
    args_bind(run, "get", args, params, 2, values);
    const Value *found = dict_get(run, self.as.dict, values[0]);
    if (found != NULL) return *found;
    return values[1].type != VALUE_MISSING ? values[1] : value_none();
}

static Value dict_view(Run *run, Value self, const Args *args, ViewKind kind, const char *name)
{
    refuse_arguments(run, args, name);
    View *view = run_alloc(run, sizeof *view);
    view->kind = kind;
    view->dict = self.as.dict;
    return (Value){.type = VALUE_VIEW, .origin = self.origin, .as.view = view};
}

static Value dict_keys(Run *run, Value self, const Args *args)
{
    return dict_view(run, self, args, VIEW_KEYS, "keys");
}

static Value dict_values(Run *run, Value self, const Args *args)
{
    return dict_view(run, self, args, VIEW_VALUES, "values");
}

static Value dict_items(Run *run, Value self, const Args *args)
{
    return dict_view(run, self, args, VIEW_ITEMS, "items");
}

/* ---- numbers, cyclers ---- */

static Value float_is_integer(Run *run, Value self, const Args *args)
{
    refuse_arguments(run, args, "is_integer");
    return value_bool(self.as.real == (double)(int64_t)self.as.real);
}

static Value cycler_next(Run *run, Value self, const Args *args)
{
    refuse_arguments(run, args, "next");
    Cycler *cycler = self.as.cycler;
    Value item = cycler->item[cycler->position];
    cycler->position = (cycler->position + 1) % cycler->count;
    return item;
}

static Value cycler_reset(Run *run, Value self, const Args *args)
{
    refuse_arguments(run, args, "reset");
    self.as.cycler->position = 0;
    return value_none();
}

/* ---- tables; a method without a function would change its object, which the sandbox forbids ----
 */

#define FOR(type) (1u << (type))
#define FOR_LISTS (FOR(VALUE_LIST) | FOR(VALUE_TUPLE) | FOR(VALUE_RANGE))

static const struct {
    const char *name;
    uint32_t length; /* of the name */
    uint32_t types;
    CallFunction call;
} methods[] = {
    {"index", 5, FOR_LISTS, list_index},
    {"count", 5, FOR_LISTS, list_count},
    {"copy", 4, FOR(VALUE_LIST) | FOR(VALUE_DICT), same_object},
    {"get", 3, FOR(VALUE_DICT), dict_lookup},
    {"keys", 4, FOR(VALUE_DICT), dict_keys},
    {"values", 6, FOR(VALUE_DICT), dict_values},
    {"items", 5, FOR(VALUE_DICT), dict_items},
    {"is_integer", 10, FOR(VALUE_FLOAT), float_is_integer},
    {"next", 4, FOR(VALUE_CYCLER), cycler_next},
    {"reset", 5, FOR(VALUE_CYCLER), cycler_reset},
    {"append", 6, FOR(VALUE_LIST), NULL},
    {"extend", 6, FOR(VALUE_LIST), NULL},
    {"insert", 6, FOR(VALUE_LIST), NULL},
    {"remove", 6, FOR(VALUE_LIST), NULL},
    {"reverse", 7, FOR(VALUE_LIST), NULL},
    {"sort", 4, FOR(VALUE_LIST), NULL},
    {"pop", 3, FOR(VALUE_LIST) | FOR(VALUE_DICT), NULL},
    {"clear", 5, FOR(VALUE_LIST) | FOR(VALUE_DICT), NULL},
    {"popitem", 7, FOR(VALUE_DICT), NULL},
    {"setdefault", 10, FOR(VALUE_DICT), NULL},
    {"update", 6, FOR(VALUE_DICT), NULL},
};

#define NUM_METHODS (sizeof methods / sizeof methods[0])

/* The place of the method in the table, or NUM_METHODS. */
static size_t method_at(uint8_t type, const String *name)
{
    size_t i = 0;
    while (i < NUM_METHODS &&
           (methods[i].length != name->length || (methods[i].types & FOR(type)) == 0 ||
            memcmp(methods[i].name, name->bytes, name->length) != 0))
        i++;
    return i;
}

bool dict_method_known(const String *name)
{
    return method_at(VALUE_DICT, name) < NUM_METHODS;
}

bool attribute_known(const String *name)
{
    static const char *const others[] = {"name", "grouper", "list"};
    for (size_t i = 0; i < NUM_METHODS; i++)
        if (string_is(name, methods[i].name)) return true;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (string_is(name, others[i])) return true;
    return name_is_dunder(name) || string_method_find(name) != NULL;
}

CallFunction method_find(Value object, const String *name)
{
    if (value_is_string(object)) return string_method_find(name);
    size_t i = method_at(object.type, name);
    return i < NUM_METHODS ? methods[i].call : NULL;
}

Value method_bind(Run *run, Value object, const String *name)
{
    if (object.type == VALUE_CYCLER && string_is(name, "current"))
        return object.as.cycler->item[object.as.cycler->position];
    CallFunction call = method_find(object, name);
    if (call == NULL && method_at(object.type, name) < NUM_METHODS)
        return value_undefined_hint(run, "access to attribute '%s' of '%s' object is unsafe.",
                                    message_text(run, name), value_type_name(object));
    if (call == NULL) return value_missing();
    Method *method = run_alloc(run, sizeof *method);
    *method = (Method){.self = object, .call = call};
    return (Value){.type = VALUE_METHOD, .origin = object.origin, .as.method = method};
}
