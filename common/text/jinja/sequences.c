/* Filters over sequences and mappings. */
#include "text/jinja/case.h"
#include "text/jinja/filters.h"

static bool is_given(Value value)
{
    return value.type != VALUE_MISSING && value.type != VALUE_NONE;
}

static void no_arguments(Run *run, const Args *args, const char *name)
{
    Value unused;
    args_bind(run, name, args, NULL, 0, &unused);
}

/* ---- attributes by path: "a.b.0" ---- */

typedef struct Path {
    Value *part; /* strings and whole numbers */
    size_t count;
    Value otherwise;  /* stands for what is undefined, or VALUE_MISSING */
    bool ignore_case; /* strings are compared in lower case */
} Path;

static Value path_part(Run *run, Value text)
{
    const String *string = text.as.string;
    int64_t number = 0;
    if (string->length == 0 || string->length > 18) return text;
    for (uint32_t i = 0; i < string->length; i++) {
        if (string->bytes[i] < '0' || string->bytes[i] > '9') return text;
        number = number * 10 + (string->bytes[i] - '0');
    }
    (void)run;
    return value_int(number);
}

static Path make_path(Run *run, Value attribute)
{
    Path path = {.otherwise = value_missing()};
    if (!is_given(attribute)) return path;
    if (!value_is_string(attribute)) {
        path.part = run_alloc(run, sizeof *path.part);
        path.part[path.count++] = attribute;
        return path;
    }
    const String *text = attribute.as.string;
    path.part = run_alloc(run, ((size_t)text->length + 1) * sizeof *path.part);
    for (size_t begin = 0, at = 0; at <= text->length; at++) {
        if (at < text->length && text->bytes[at] != '.') continue;
        path.part[path.count++] = path_part(run, string_slice(run, attribute, begin, at));
        begin = at + 1;
    }
    return path;
}

static Value follow_path(Run *run, const Path *path, Value item)
{
    run_step(run, 1);
    for (size_t i = 0; i < path->count; i++) {
        item = eval_getitem(run, item, path->part[i]);
        if (item.type == VALUE_UNDEFINED && path->otherwise.type != VALUE_MISSING)
            item = path->otherwise;
    }
    if (path->ignore_case && value_is_string(item)) return case_map(run, item, CASE_LOWER);
    return item;
}

static Value *follow_all(Run *run, const Path *path, const Value *items, size_t count)
{
    Value *keys = run_alloc(run, count * sizeof *keys);
    for (size_t i = 0; i < count; i++)
        keys[i] = follow_path(run, path, items[i]);
    return keys;
}

/* ---- what a generator walks over ---- */

/* Begins to walk over `value`, whose items may fail on the way; `generator` gets room for as many.
 */
static Iterator walk(Run *run, Value value, Generator *generator)
{
    Iterator iterator;
    if (!iterator_begin(run, value, &iterator))
        run_raise(run, "'%s' object is not iterable", value_type_name(value));
    generator->item = run_alloc(run, (iterator_room(&iterator) + 1) * sizeof *generator->item);
    return iterator;
}

/* ---- one item, all items, how many ---- */

static Value filter_length(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "len");
    if (self.type != VALUE_LOOP) return value_int((int64_t)value_length(run, self));
    static const String name = {.bytes = "length", .length = 6, .chars = 6};
    return loop_attribute(run, self.as.loop, &name);
}

static Value filter_first(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_first");
    Iterator iterator;
    Value item;
    if (!iterator_begin(run, self, &iterator))
        run_raise(run, "'%s' object is not iterable", value_type_name(self));
    if (iterator_next(run, &iterator, &item)) return item;
    return value_undefined_hint(run, "No first item, sequence was empty.");
}

static Value filter_last(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_last");
    if (self.type == VALUE_GENERATOR || !value_has_length(self) || self.type == VALUE_LOOP)
        run_raise(run, "'%s' object is not reversible", value_type_name(self));
    if (value_is_string(self) || value_is_list(self) || self.type == VALUE_RANGE) {
        if (value_length(run, self) > 0) return eval_getitem(run, self, value_int(-1));
    } else {
        size_t count;
        Value *items = value_items(run, self, &count);
        if (count > 0) return items[count - 1];
    }
    return value_undefined_hint(run, "No last item, sequence was empty.");
}

static Value filter_list(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_list");
    size_t count;
    Value *items = value_items(run, self, &count);
    Value list = value_list(run, count);
    if (count > 0) memcpy(list_items(list), items, count * sizeof *items);
    list.origin = self.origin;
    return list;
}

static Value filter_default(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"default_value", false}, {"boolean", false}};
    Value values[2];
    args_bind(run, "do_default", args, params, 2, values);
    bool replace = self.type == VALUE_UNDEFINED || (value_truth(values[1]) && !value_truth(self));
    if (!replace) return self;
    return values[0].type != VALUE_MISSING ? values[0] : value_literal(run, "");
}

static void produce_items(Run *run, Value self, const Args *args, Generator *generator)
{
    (void)args;
    if (self.type == VALUE_UNDEFINED) return;
    if (self.type != VALUE_DICT) run_raise(run, "Can only get item pairs from a mapping.");
    const Dict *dict = self.as.dict;
    generator->item = run_alloc(run, dict->count * sizeof *generator->item);
    for (size_t i = 0; i < dict->count; i++)
        generator->item[generator->count++] =
            value_tuple2(run, dict->entry[i].key, *entry_value(run, &dict->entry[i]));
}

static Value filter_items(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_items");
    return value_produce(run, produce_items, self, args);
}

static Value filter_attr(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"name", true}};
    Value name;
    args_bind(run, "do_attr", args, params, 1, &name);
    if (!value_is_string(name)) run_raise(run, "attribute name must be string");
    if (self.type == VALUE_UNDEFINED) run_fail_undefined(run, self);
    /* attributes only: not the entries of a dict */
    if (self.type == VALUE_DICT && !dict_method_known(name.as.string))
        return value_undefined_attribute(run, self, name);
    return eval_getattr(run, self, name);
}

static Value filter_join(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"d", false}, {"attribute", false}};
    Value values[2];
    args_bind(run, "do_join", args, params, 2, values);
    Value separator =
        values[0].type != VALUE_MISSING ? value_str(run, values[0]) : value_literal(run, "");
    Path path = make_path(run, values[1]);
    size_t count;
    Value *items = value_items(run, self, &count);
    items = follow_all(run, &path, items, count);
    buffer_push(run);
    for (size_t i = 0; i < count; i++) {
        if (i > 0) buffer_write_string(run, separator);
        write_str(run, items[i]);
    }
    return buffer_pop(run);
}

static Value filter_reverse(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_reverse");
    if (value_is_string(self))
        return eval_slice(run, self, value_none(), value_none(), value_int(-1));
    Iterator iterator;
    if (!iterator_begin(run, self, &iterator)) run_raise(run, "argument must be iterable");
    size_t count;
    Value *items = value_items(run, self, &count);
    for (size_t i = 0, j = count; i + 1 < j; i++) {
        Value item = items[i];
        items[i] = items[--j];
        items[j] = item;
    }
    if (self.type != VALUE_GENERATOR) return value_generator(run, items, count);
    Value list = value_list(run, count);
    if (count > 0) memcpy(list_items(list), items, count * sizeof *items);
    return list;
}

/* ---- order ---- */

typedef struct Sorting {
    Value **keys; /* per item, `columns` of them */
    size_t columns;
    bool as_lists; /* items with equal keys are not asked which is less: keys are in a list */
    bool reverse;
} Sorting;

static bool sorts_before(Run *run, const void *context, size_t i, size_t j)
{
    const Sorting *sorting = context;
    size_t a = sorting->reverse ? j : i, b = sorting->reverse ? i : j;
    for (size_t column = 0; column < sorting->columns; column++) {
        Value x = sorting->keys[column][a], y = sorting->keys[column][b];
        if (sorting->as_lists && value_equal(run, x, y)) continue;
        return value_compare(run, x, y, "<") < 0;
    }
    return false;
}

/* As sorted() takes it. */
static bool take_reverse(Run *run, Value reverse)
{
    return reverse.type != VALUE_MISSING && arg_int(run, reverse, "reverse") != 0;
}

static Value *sort_items(Run *run, const Value *items, size_t count, const Sorting *sorting)
{
    size_t *order = sort_order(run, count, sorts_before, sorting);
    Value *sorted = run_alloc(run, count * sizeof *sorted);
    for (size_t i = 0; i < count; i++)
        sorted[i] = items[order[i]];
    return sorted;
}

static Value list_of(Run *run, const Value *items, size_t count)
{
    Value list = value_list(run, count);
    if (count > 0) memcpy(list_items(list), items, count * sizeof *items);
    return list;
}

/* sort(attribute="a,b.c"): by several paths, the first deciding. */
static Value filter_sort(Run *run, Value self, const Args *args)
{
    static const Param params[] = {
        {"reverse", false}, {"case_sensitive", false}, {"attribute", false}};
    Value values[3];
    args_bind(run, "do_sort", args, params, 3, values);
    size_t count;
    Value *items = value_items(run, self, &count);
    Value *paths = &values[2];
    size_t num_paths = 1;
    if (is_given(values[2]) && value_is_string(values[2])) {
        Value comma = value_literal(run, ",");
        static const String split = {.bytes = "split", .length = 5, .chars = 5};
        Value parts = method_find(values[2], &split)(run, values[2],
                                                     &(Args){.positional = &comma, .count = 1});
        paths = list_items(parts);
        num_paths = parts.as.list->count;
    }
    Sorting sorting = {.columns = num_paths, .as_lists = true};
    sorting.reverse = take_reverse(run, values[0]);
    sorting.keys = run_alloc(run, num_paths * sizeof *sorting.keys);
    for (size_t i = 0; i < num_paths; i++) {
        Path path = make_path(run, paths[i]);
        path.ignore_case = !value_truth(values[1]);
        sorting.keys[i] = follow_all(run, &path, items, count);
    }
    return list_of(run, sort_items(run, items, count, &sorting), count);
}

static Value filter_dictsort(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"case_sensitive", false}, {"by", false}, {"reverse", false}};
    Value values[3];
    args_bind(run, "do_dictsort", args, params, 3, values);
    Value by = values[1].type != VALUE_MISSING ? values[1] : value_literal(run, "key");
    bool by_value = value_is_string(by) && string_is(by.as.string, "value");
    if (!by_value && !(value_is_string(by) && string_is(by.as.string, "key")))
        run_raise(run, "You can only sort by either \"key\" or \"value\"");
    if (self.type == VALUE_UNDEFINED) run_fail_undefined(run, self);
    if (self.type != VALUE_DICT)
        run_raise(run, "'%s' object has no attribute 'items'", value_type_name(self));
    const Dict *dict = self.as.dict;
    Value *items = run_alloc(run, dict->count * sizeof *items);
    Value *keys = run_alloc(run, dict->count * sizeof *keys);
    Path path = {.otherwise = value_missing(), .ignore_case = !value_truth(values[0])};
    for (size_t i = 0; i < dict->count; i++) {
        Value key = dict->entry[i].key, value = *entry_value(run, &dict->entry[i]);
        items[i] = value_tuple2(run, key, value);
        keys[i] = follow_path(run, &path, by_value ? value : key);
    }
    Sorting sorting = {.keys = &keys, .columns = 1, .reverse = take_reverse(run, values[2])};
    return list_of(run, sort_items(run, items, dict->count, &sorting), dict->count);
}

static const Param unique_params[] = {{"case_sensitive", false}, {"attribute", false}};

static void produce_unique(Run *run, Value self, const Args *args, Generator *generator)
{
    Value values[2];
    args_bind(run, "do_unique", args, unique_params, 2, values);
    Path path = make_path(run, values[1]);
    path.ignore_case = !value_truth(values[0]);
    Iterator iterator = walk(run, self, generator);
    Dict *seen = dict_create(run, 0);
    for (Value item; iterator_next(run, &iterator, &item);) {
        Value key = follow_path(run, &path, item);
        if (dict_has(run, seen, key)) continue;
        dict_set(run, seen, key, value_none());
        generator->item[generator->count++] = item;
    }
}

static Value filter_unique(Run *run, Value self, const Args *args)
{
    Value values[2];
    args_bind(run, "do_unique", args, unique_params, 2, values);
    return value_produce(run, produce_unique, self, args);
}

static Value extreme(Run *run, Value self, const Args *args, const char *name, bool largest)
{
    static const Param params[] = {{"case_sensitive", false}, {"attribute", false}};
    Value values[2];
    args_bind(run, name, args, params, 2, values);
    Path path = make_path(run, values[1]);
    path.ignore_case = !value_truth(values[0]);
    size_t count;
    Value *items = value_items(run, self, &count);
    if (count == 0) return value_undefined_hint(run, "No aggregated item, sequence was empty.");
    size_t best = 0;
    Value *keys = follow_all(run, &path, items, count);
    for (size_t i = 1; i < count; i++)
        if (largest ? value_compare(run, keys[i], keys[best], ">") > 0
                    : value_compare(run, keys[i], keys[best], "<") < 0)
            best = i;
    return items[best];
}

static Value filter_min(Run *run, Value self, const Args *args)
{
    return extreme(run, self, args, "do_min", false);
}

static Value filter_max(Run *run, Value self, const Args *args)
{
    return extreme(run, self, args, "do_max", true);
}

static Value filter_sum(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"attribute", false}, {"start", false}};
    Value values[2];
    args_bind(run, "do_sum", args, params, 2, values);
    Path path = make_path(run, values[0]);
    Value sum = values[1].type != VALUE_MISSING ? values[1] : value_int(0);
    if (value_is_string(sum)) run_raise(run, "sum() can't sum strings [use ''.join(seq) instead]");
    size_t count;
    Value *items = value_items(run, self, &count);
    for (size_t i = 0; i < count; i++)
        sum = eval_binary(run, BINARY_ADD, sum, follow_path(run, &path, items[i]));
    return sum;
}

/* ---- groups ---- */

static Value filter_groupby(Run *run, Value self, const Args *args)
{
    static const Param params[] = {
        {"attribute", true}, {"default", false}, {"case_sensitive", false}};
    Value values[3];
    args_bind(run, "do_groupby", args, params, 3, values);
    Path path = make_path(run, values[0]);
    if (is_given(values[1])) path.otherwise = values[1];
    path.ignore_case = !value_truth(values[2]);
    size_t count;
    Value *items = value_items(run, self, &count);
    Value *keys = follow_all(run, &path, items, count);
    Sorting sorting = {.keys = &keys, .columns = 1};
    size_t *order = sort_order(run, count, sorts_before, &sorting);
    Value *groups = run_alloc(run, count * sizeof *groups);
    size_t num_groups = 0;
    path.ignore_case = false;
    for (size_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count; end++)
            if (!value_equal(run, keys[order[begin]], keys[order[end]])) break;
        Value members = value_list(run, end - begin);
        for (size_t i = begin; i < end; i++)
            list_items(members)[i - begin] = items[order[i]];
        Value name = follow_path(run, &path, items[order[begin]]); /* in its own case */
        groups[num_groups] = value_tuple2(run, name, members);
        groups[num_groups++].flags |= FLAG_GROUP;
    }
    return list_of(run, groups, num_groups);
}

static const Param batch_params[] = {{"linecount", true}, {"fill_with", false}};

/* The last batch is filled up when it comes to be made, as Jinja does it. */
static void produce_batches(Run *run, Value self, const Args *args, Generator *generator)
{
    Value values[2], item = value_missing();
    args_bind(run, "do_batch", args, batch_params, 2, values);
    Iterator iterator = walk(run, self, generator);
    size_t room = iterator_room(&iterator) + 1, size = 0;
    Value *batch = run_alloc(run, room * sizeof *batch);
    while (iterator_next(run, &iterator, &item)) {
        if (value_equal(run, value_int((int64_t)size), values[0])) {
            generator->item[generator->count++] = list_of(run, batch, size);
            size = 0;
        }
        batch[size++] = item;
    }
    if (size == 0) return;
    Value last = list_of(run, batch, size);
    if (is_given(values[1])) {
        Value missing = eval_binary(run, BINARY_SUB, values[0], value_int((int64_t)size));
        if (value_compare(run, value_int((int64_t)size), values[0], "<") < 0) {
            Value fill = list_of(run, &values[1], 1);
            last = eval_binary(run, BINARY_ADD, last, eval_binary(run, BINARY_MUL, fill, missing));
        }
    }
    generator->item[generator->count++] = last;
}

static Value filter_batch(Run *run, Value self, const Args *args)
{
    Value values[2];
    args_bind(run, "do_batch", args, batch_params, 2, values);
    return value_produce(run, produce_batches, self, args);
}

static const Param slice_params[] = {{"slices", true}, {"fill_with", false}};

static void produce_slices(Run *run, Value self, const Args *args, Generator *generator)
{
    Value values[2];
    args_bind(run, "do_slice", args, slice_params, 2, values);
    size_t count;
    Value *items = value_items(run, self, &count);
    eval_binary(run, BINARY_FLOORDIV, value_int((int64_t)count), values[0]); /* fails as Python */
    int64_t slices = arg_int(run, values[0], "slices");
    if (slices < 0) slices = 0;
    if (slices > 100000) run_fail(run, ERR_RESOURCE, "more than 100000 slices");
    size_t base = slices > 0 ? count / (size_t)slices : 0;
    size_t extra = slices > 0 ? count % (size_t)slices : 0, begin = 0;
    generator->item = run_alloc(run, (size_t)slices * sizeof *generator->item);
    for (size_t i = 0; i < (size_t)slices; i++) {
        size_t size = base + (i < extra);
        bool fill = is_given(values[1]) && i >= extra;
        Value part = value_list(run, size + fill);
        for (size_t j = 0; j < size; j++)
            list_items(part)[j] = items[begin + j];
        if (fill) list_items(part)[size] = values[1];
        generator->item[generator->count++] = part;
        begin += size;
    }
}

static Value filter_slice(Run *run, Value self, const Args *args)
{
    Value values[2];
    args_bind(run, "do_slice", args, slice_params, 2, values);
    return value_produce(run, produce_slices, self, args);
}

/* ---- applying filters and tests to items ---- */

static const Function *find_named(Run *run, Value name, bool is_filter)
{
    const char *kind = is_filter ? "filter" : "test";
    if (!value_is_string(name)) {
        const char *hint =
            name.type == VALUE_UNDEFINED ? " (Did you forget to quote the callable name?)" : "";
        run_raise(run, "No %s named %s.%s", kind, message_repr(run, name), hint);
    }
    const String *text = name.as.string;
    const Function *function =
        is_filter ? filter_find(text->bytes, text->length) : test_find(text->bytes, text->length);
    if (function == NULL) run_raise(run, "No %s named %s.", kind, message_repr(run, name));
    return function;
}

/* map("filter", ...): every item through a filter. */
static void produce_filtered(Run *run, Value self, const Args *args, Generator *generator)
{
    if (args->count == 0) run_raise(run, "map requires a filter argument");
    const Function *filter = find_named(run, args->positional[0], true);
    Args rest = *args;
    rest.positional++;
    rest.count--;
    Iterator iterator = walk(run, self, generator);
    run_enter(run);
    for (Value item; iterator_next(run, &iterator, &item); generator->count++)
        generator->item[generator->count] = filter->call(run, item, &rest);
    run_leave(run);
}

/* map(attribute=..., default=...) */
static void produce_attributes(Run *run, Value self, const Args *args, Generator *generator)
{
    static const Param params[] = {{"attribute", false}, {"default", false}};
    Value values[2];
    args_bind(run, "map", args, params, 2, values);
    if (values[0].type == VALUE_MISSING) run_raise(run, "map requires a filter argument");
    Path path = make_path(run, values[0]);
    if (is_given(values[1])) path.otherwise = values[1];
    Iterator iterator = walk(run, self, generator);
    for (Value item; iterator_next(run, &iterator, &item); generator->count++)
        generator->item[generator->count] = follow_path(run, &path, item);
}

static Value filter_map(Run *run, Value self, const Args *args)
{
    if (!value_truth(self)) return value_generator(run, NULL, 0);
    bool by_attribute = args->count == 0 && args->num_keywords > 0;
    return value_produce(run, by_attribute ? produce_attributes : produce_filtered, self, args);
}

/* select, reject: with a test or the truth of the item; the ...attr ones look at an attribute of
 * it. */
static void choose(Run *run, Value self, const Args *args, Generator *generator, bool by_attribute,
                   bool wanted)
{
    Path path = {.otherwise = value_missing()};
    Args rest = *args;
    if (by_attribute) {
        if (args->count == 0) run_raise(run, "Missing parameter for attribute name");
        path = make_path(run, args->positional[0]);
        rest.positional++;
        rest.count--;
    }
    const Function *test = NULL;
    if (rest.count > 0) {
        test = find_named(run, rest.positional[0], false);
        rest.positional++;
        rest.count--;
    }
    Iterator iterator = walk(run, self, generator);
    for (Value item; iterator_next(run, &iterator, &item);) {
        Value subject = follow_path(run, &path, item);
        if (test != NULL) subject = test->call(run, subject, &rest);
        if (value_truth(subject) == wanted) generator->item[generator->count++] = item;
    }
}

static void produce_selected(Run *run, Value self, const Args *args, Generator *generator)
{
    choose(run, self, args, generator, false, true);
}

static void produce_rejected(Run *run, Value self, const Args *args, Generator *generator)
{
    choose(run, self, args, generator, false, false);
}

static void produce_selected_by(Run *run, Value self, const Args *args, Generator *generator)
{
    choose(run, self, args, generator, true, true);
}

static void produce_rejected_by(Run *run, Value self, const Args *args, Generator *generator)
{
    choose(run, self, args, generator, true, false);
}

static Value produce_chosen(Run *run, Produce produce, Value self, const Args *args)
{
    return value_truth(self) ? value_produce(run, produce, self, args)
                             : value_generator(run, NULL, 0);
}

static Value filter_select(Run *run, Value self, const Args *args)
{
    return produce_chosen(run, produce_selected, self, args);
}

static Value filter_reject(Run *run, Value self, const Args *args)
{
    return produce_chosen(run, produce_rejected, self, args);
}

static Value filter_selectattr(Run *run, Value self, const Args *args)
{
    return produce_chosen(run, produce_selected_by, self, args);
}

static Value filter_rejectattr(Run *run, Value self, const Args *args)
{
    return produce_chosen(run, produce_rejected_by, self, args);
}

static const Function filters[] = {
    {"attr", filter_attr},       {"batch", filter_batch},     {"count", filter_length},
    {"d", filter_default},       {"default", filter_default}, {"dictsort", filter_dictsort},
    {"first", filter_first},     {"groupby", filter_groupby}, {"items", filter_items},
    {"join", filter_join},       {"last", filter_last},       {"length", filter_length},
    {"list", filter_list},       {"map", filter_map},         {"max", filter_max},
    {"min", filter_min},         {"reject", filter_reject},   {"rejectattr", filter_rejectattr},
    {"reverse", filter_reverse}, {"select", filter_select},   {"selectattr", filter_selectattr},
    {"slice", filter_slice},     {"sort", filter_sort},       {"sum", filter_sum},
    {"unique", filter_unique},
};

FilterTable sequence_filters(void)
{
    return (FilterTable){.filter = filters, .count = sizeof filters / sizeof filters[0]};
}
