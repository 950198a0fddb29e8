/* Filters over sequences and mappings. */
#include "text/jinja_case.h"
#include "text/jinja_filters.h"

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
    } else if (self.type != VALUE_UNDEFINED) {
        size_t count;
        Value *items = value_items(run, self, &count);
        if (count > 0) return items[count - 1];
    } else {
        run_fail_undefined(run, self);
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

static Value filter_items(Run *run, Value self, const Args *args)
{
    no_arguments(run, args, "do_items");
    if (self.type == VALUE_UNDEFINED) return value_generator(run, NULL, 0);
    if (self.type != VALUE_DICT) run_raise(run, "Can only get item pairs from a mapping.");
    const Dict *dict = self.as.dict;
    Value *items = run_alloc(run, dict->count * sizeof *items);
    for (size_t i = 0; i < dict->count; i++)
        items[i] = value_tuple2(run, dict->entry[i].key, dict->entry[i].value);
    return value_generator(run, items, dict->count);
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
    bool reverse;
} Sorting;

static bool sorts_before(Run *run, const void *context, size_t i, size_t j)
{
    const Sorting *sorting = context;
    size_t a = sorting->reverse ? j : i, b = sorting->reverse ? i : j;
    for (size_t column = 0; column < sorting->columns; column++) {
        Value x = sorting->keys[column][a], y = sorting->keys[column][b];
        if (column + 1 < sorting->columns && value_equal(run, x, y)) continue;
        return value_compare(run, x, y, "<") < 0;
    }
    return false;
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
    Sorting sorting = {.columns = num_paths, .reverse = value_truth(values[0])};
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
        items[i] = value_tuple2(run, dict->entry[i].key, dict->entry[i].value);
        keys[i] = follow_path(run, &path, by_value ? dict->entry[i].value : dict->entry[i].key);
    }
    Sorting sorting = {.keys = &keys, .columns = 1, .reverse = value_truth(values[2])};
    return list_of(run, sort_items(run, items, dict->count, &sorting), dict->count);
}

static Value filter_unique(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"case_sensitive", false}, {"attribute", false}};
    Value values[2];
    args_bind(run, "do_unique", args, params, 2, values);
    Path path = make_path(run, values[1]);
    path.ignore_case = !value_truth(values[0]);
    size_t count, kept = 0;
    Value *items = value_items(run, self, &count);
    Value *unique = run_alloc(run, count * sizeof *unique);
    Dict *seen = dict_create(run, 0);
    for (size_t i = 0; i < count; i++) {
        Value key = follow_path(run, &path, items[i]);
        if (dict_get(run, seen, key) != NULL) continue;
        dict_set(run, seen, key, value_none());
        unique[kept++] = items[i];
    }
    return value_generator(run, unique, kept);
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

static Value filter_batch(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"linecount", true}, {"fill_with", false}};
    Value values[2];
    args_bind(run, "do_batch", args, params, 2, values);
    int64_t size = arg_int(run, values[0], "linecount");
    size_t count, num_batches = 0;
    Value *items = value_items(run, self, &count);
    if (size <= 0 || (uint64_t)size > 1000000) size = size <= 0 ? 1 : 1000000;
    Value *batches = run_alloc(run, (count + 1) * sizeof *batches);
    for (size_t begin = 0; begin < count; begin += (size_t)size) {
        size_t left = count - begin < (size_t)size ? count - begin : (size_t)size;
        size_t filled = is_given(values[1]) ? (size_t)size : left;
        Value batch = value_list(run, filled);
        for (size_t i = 0; i < filled; i++)
            list_items(batch)[i] = i < left ? items[begin + i] : values[1];
        batches[num_batches++] = batch;
    }
    return value_generator(run, batches, num_batches);
}

static Value filter_slice(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"slices", true}, {"fill_with", false}};
    Value values[2];
    args_bind(run, "do_slice", args, params, 2, values);
    int64_t slices = arg_int(run, values[0], "slices");
    size_t count;
    Value *items = value_items(run, self, &count);
    if (slices == 0) run_raise(run, "integer division or modulo by zero");
    if (slices < 0) slices = 0;
    if (slices > 100000) run_fail(run, ERR_RESOURCE, "more than 100000 slices");
    size_t base = slices > 0 ? count / (size_t)slices : 0;
    size_t extra = slices > 0 ? count % (size_t)slices : 0, begin = 0;
    Value *parts = run_alloc(run, (size_t)slices * sizeof *parts);
    for (size_t i = 0; i < (size_t)slices; i++) {
        size_t size = base + (i < extra);
        bool fill = is_given(values[1]) && i >= extra;
        parts[i] = value_list(run, size + fill);
        for (size_t j = 0; j < size; j++)
            list_items(parts[i])[j] = items[begin + j];
        if (fill) list_items(parts[i])[size] = values[1];
        begin += size;
    }
    return value_generator(run, parts, (size_t)slices);
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

static Value filter_map(Run *run, Value self, const Args *args)
{
    if (!value_truth(self)) return value_generator(run, NULL, 0);
    size_t count;
    Value *items = value_items(run, self, &count);
    Value *mapped;
    if (args->count == 0 && args->num_keywords > 0) {
        static const Param params[] = {{"attribute", false}, {"default", false}};
        Value values[2];
        args_bind(run, "map", args, params, 2, values);
        if (values[0].type == VALUE_MISSING) run_raise(run, "map requires a filter argument");
        Path path = make_path(run, values[0]);
        if (is_given(values[1])) path.otherwise = values[1];
        mapped = follow_all(run, &path, items, count);
    } else {
        if (args->count == 0) run_raise(run, "map requires a filter argument");
        const Function *filter = find_named(run, args->positional[0], true);
        Args rest = *args;
        rest.positional++;
        rest.count--;
        mapped = run_alloc(run, count * sizeof *mapped);
        run_enter(run);
        for (size_t i = 0; i < count; i++)
            mapped[i] = filter->call(run, items[i], &rest);
        run_leave(run);
    }
    return value_generator(run, mapped, count);
}

/* select, reject: with a test or the truth of the item; the ...attr ones look at an attribute of
 * it. */
static Value choose(Run *run, Value self, const Args *args, bool by_attribute, bool wanted)
{
    if (!value_truth(self)) return value_generator(run, NULL, 0);
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
    size_t count, kept = 0;
    Value *items = value_items(run, self, &count);
    Value *chosen = run_alloc(run, count * sizeof *chosen);
    for (size_t i = 0; i < count; i++) {
        Value subject = follow_path(run, &path, items[i]);
        if (test != NULL) subject = test->call(run, subject, &rest);
        if (value_truth(subject) == wanted) chosen[kept++] = items[i];
    }
    return value_generator(run, chosen, kept);
}

static Value filter_select(Run *run, Value self, const Args *args)
{
    return choose(run, self, args, false, true);
}

static Value filter_reject(Run *run, Value self, const Args *args)
{
    return choose(run, self, args, false, false);
}

static Value filter_selectattr(Run *run, Value self, const Args *args)
{
    return choose(run, self, args, true, true);
}

static Value filter_rejectattr(Run *run, Value self, const Args *args)
{
    return choose(run, self, args, true, false);
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
