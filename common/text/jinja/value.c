#include "text/jinja/value.h"

#include <math.h>
#include <stdio.h>

#include "base/utf8.h"
#include "text/jinja/run.h"

/* ---- making ---- */

Value value_literal(Run *run, const char *text)
{
    String *string = run_alloc_raw(run, sizeof *string);
    *string = (String){.bytes = text, .length = (uint32_t)strlen(text), .chars = CHARS_UNKNOWN};
    return value_of_string(string, ORIGIN_PLAIN_TEMPLATE);
}

/* Room for a string of `length` bytes, placed so that string_concat may extend it. */
static char *text_reserve(Run *run, size_t length)
{
    if (run->text_top == NULL || (size_t)(run->text_end - run->text_top) < length) {
        size_t chunk = length < 1024 ? 2048 : length + length / 4;
        run->text_top = run_alloc_raw(run, chunk);
        run->text_end = run->text_top + chunk;
    }
    char *bytes = run->text_top;
    run->text_top += length;
    return bytes;
}

static OriginRun *runs_reserve(Run *run, size_t count)
{
    if (run->runs_top == NULL || (size_t)(run->runs_end - run->runs_top) < count) {
        size_t chunk = count < 32 ? 64 : count + count / 4;
        run->runs_top = run_alloc_raw(run, chunk * sizeof(OriginRun));
        run->runs_end = run->runs_top + chunk;
    }
    OriginRun *runs = run->runs_top;
    run->runs_top += count;
    return runs;
}

Value value_room(Run *run, size_t length, Origin origin, char **ret_bytes)
{
    run_check_length(run, length);
    run_step(run, length / 64);
    String *string = run_alloc_raw(run, sizeof *string);
    *ret_bytes = text_reserve(run, length);
    *string = (String){.bytes = *ret_bytes, .length = (uint32_t)length, .chars = CHARS_UNKNOWN};
    return value_of_string(string, origin);
}

Value value_text(Run *run, const char *bytes, size_t length, Origin origin)
{
    char *copy;
    Value value = value_room(run, length, origin, &copy);
    if (length > 0) memcpy(copy, bytes, length);
    return value;
}

static Value list_create(Run *run, ValueType type, size_t count)
{
    List *list = run_alloc_raw(run, sizeof *list);
    list->item = run_alloc(run, count * sizeof *list->item);
    list->count = count;
    return (Value){.type = (uint8_t)type, .origin = ORIGIN_PLAIN_TEMPLATE, .as.list = list};
}

Value value_list(Run *run, size_t count)
{
    return list_create(run, VALUE_LIST, count);
}

Value value_tuple(Run *run, size_t count)
{
    return list_create(run, VALUE_TUPLE, count);
}

Value value_tuple2(Run *run, Value first, Value second)
{
    Value tuple = list_create(run, VALUE_TUPLE, 2);
    list_items(tuple)[0] = first;
    list_items(tuple)[1] = second;
    return tuple;
}

Value value_generator(Run *run, Value *items, size_t count)
{
    Generator *generator = run_alloc(run, sizeof *generator);
    generator->item = items;
    generator->count = count;
    return (Value){
        .type = VALUE_GENERATOR, .origin = ORIGIN_PLAIN_TEMPLATE, .as.generator = generator};
}

static Value undefined_create(Run *run, Undefined undefined)
{
    Undefined *copy = run_alloc_raw(run, sizeof *copy);
    *copy = undefined;
    return (Value){.type = VALUE_UNDEFINED, .origin = ORIGIN_PLAIN_TEMPLATE, .as.undefined = copy};
}

Value value_undefined_name(Run *run, const String *name)
{
    return undefined_create(run, (Undefined){.name = value_of_string(name, ORIGIN_PLAIN_TEMPLATE)});
}

Value value_undefined_attribute(Run *run, Value object, Value name)
{
    const Undefined *last = run->undefined; /* a loop asks for the same one again and again */
    const char *type = value_object_name(object);
    bool same = last != NULL && last->object == type && value_is_string(name) &&
                last->name.as.string == name.as.string;
    if (same)
        return (Value){
            .type = VALUE_UNDEFINED, .origin = ORIGIN_PLAIN_TEMPLATE, .as.undefined = last};
    Value undefined = undefined_create(run, (Undefined){.object = type, .name = name});
    if (value_is_string(name)) run->undefined = undefined.as.undefined;
    return undefined;
}

Value value_undefined_hint(Run *run, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char *hint = run_alloc(run, strlen(text) + 1);
    memcpy(hint, text, strlen(text) + 1);
    return undefined_create(run, (Undefined){.hint = hint});
}

/* ---- looking ---- */

const char *value_type_name(Value value)
{
    static const char *const view_names[] = {"dict_keys", "dict_values", "dict_items"};
    switch ((ValueType)value.type) {
    case VALUE_MISSING:
    case VALUE_UNDEFINED:
        return "Undefined";
    case VALUE_NONE:
        return "NoneType";
    case VALUE_BOOL:
        return "bool";
    case VALUE_INT:
    case VALUE_BIGINT:
        return "int";
    case VALUE_FLOAT:
        return "float";
    case VALUE_STRING:
        return value.flags & FLAG_MARKUP ? "Markup" : "str";
    case VALUE_LIST:
        return "list";
    case VALUE_TUPLE:
        return value.flags & FLAG_GROUP ? "_GroupTuple" : "tuple";
    case VALUE_DICT:
        return "dict";
    case VALUE_VIEW:
        return view_names[value.as.view->kind];
    case VALUE_RANGE:
        return "range";
    case VALUE_GENERATOR:
        return "generator";
    case VALUE_NAMESPACE:
        return "TemplateNamespace";
    case VALUE_FUNCTION:
        return "function";
    case VALUE_METHOD:
        return "builtin_function_or_method";
    case VALUE_MACRO:
        return "Macro";
    case VALUE_LOOP:
        return "LoopContext";
    case VALUE_CYCLER:
        return "Cycler";
    case VALUE_JOINER:
        return "Joiner";
    case VALUE_SELF:
        return "TemplateReference";
    case VALUE_PENDING:
        break;
    }
    return "object";
}

const char *value_object_name(Value value)
{
    static const char *const names[] = {
        [VALUE_BOOL] = "bool object",
        [VALUE_INT] = "int object",
        [VALUE_BIGINT] = "int object",
        [VALUE_FLOAT] = "float object",
        [VALUE_LIST] = "list object",
        [VALUE_TUPLE] = "tuple object",
        [VALUE_DICT] = "dict object",
        [VALUE_RANGE] = "range object",
        [VALUE_GENERATOR] = "generator object",
        [VALUE_FUNCTION] = "function object",
        [VALUE_METHOD] = "builtin_function_or_method object",
        [VALUE_NAMESPACE] = "transformers.utils.chat_template_utils.TemplateNamespace object",
        [VALUE_MACRO] = "jinja2.runtime.Macro object",
        [VALUE_LOOP] = "jinja2.runtime.LoopContext object",
        [VALUE_CYCLER] = "jinja2.utils.Cycler object",
        [VALUE_JOINER] = "jinja2.utils.Joiner object",
        [VALUE_SELF] = "jinja2.runtime.TemplateReference object",
    };
    static const char *const view_names[] = {"dict_keys object", "dict_values object",
                                             "dict_items object"};
    if (value.type == VALUE_NONE) return "None";
    if (value.type == VALUE_STRING)
        return value.flags & FLAG_MARKUP ? "markupsafe.Markup object" : "str object";
    if (value.type == VALUE_VIEW) return view_names[value.as.view->kind];
    return names[value.type] != NULL ? names[value.type] : "object";
}

bool value_truth_any(Value value)
{
    switch ((ValueType)value.type) {
    case VALUE_MISSING:
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return false;
    case VALUE_BOOL:
        return value.as.boolean;
    case VALUE_INT:
        return value.as.integer != 0;
    case VALUE_FLOAT:
        return value.as.real != 0;
    case VALUE_STRING:
        return value.as.string->length > 0;
    case VALUE_LIST:
    case VALUE_TUPLE:
        return value.as.list->count > 0;
    case VALUE_DICT:
        return value.as.dict->count > 0;
    case VALUE_VIEW:
        return value.as.view->dict->count > 0;
    case VALUE_RANGE:
        return value.as.range->count > 0;
    default:
        return true;
    }
}

static bool number_equal(Value a, Value b)
{
    if (value_is_integer(a) && value_is_integer(b)) return value_as_int(a) == value_as_int(b);
    return value_as_double(a) == value_as_double(b);
}

static bool list_equal(Run *run, const List *a, const List *b)
{
    if (a->count != b->count) return false;
    run_enter(run);
    bool equal = true;
    for (size_t i = 0; i < a->count && equal; i++)
        equal = value_equal(run, a->item[i], b->item[i]);
    run_leave(run);
    return equal;
}

static bool dict_equal(Run *run, const Dict *a, const Dict *b)
{
    if (a->count != b->count) return false;
    run_enter(run);
    bool equal = true;
    for (size_t i = 0; i < a->count && equal; i++) {
        const Value *other = dict_get(run, b, a->entry[i].key);
        equal = other != NULL && value_equal(run, *entry_value(run, &a->entry[i]), *other);
    }
    run_leave(run);
    return equal;
}

static bool range_equal(const Range *a, const Range *b)
{
    if (a->count != b->count) return false;
    return a->count == 0 || (a->start == b->start && (a->count == 1 || a->step == b->step));
}

/* Methods are the same where they are of the same object; of strings, equal ones are. */
static bool owner_equal(Run *run, Value a, Value b)
{
    if (a.type == VALUE_LIST || a.type == VALUE_DICT)
        return a.type == b.type && a.as.list == b.as.list;
    return value_equal(run, a, b);
}

bool value_equal(Run *run, Value a, Value b)
{
    run_step(run, 1);
    if (a.type == VALUE_STRING && b.type == VALUE_STRING) {
        if (a.as.string->length == b.as.string->length) run_step_bytes(run, a.as.string->length);
        return a.as.string == b.as.string || string_equal(a.as.string, b.as.string);
    }
    if (value_is_number(a) && value_is_number(b)) return number_equal(a, b);
    if (a.type != b.type) return false;
    switch ((ValueType)a.type) {
    case VALUE_BIGINT:
        return string_equal(a.as.string, b.as.string);
    case VALUE_MISSING:
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return true;
    case VALUE_LIST:
    case VALUE_TUPLE:
        return list_equal(run, a.as.list, b.as.list);
    case VALUE_DICT:
        return a.as.dict == b.as.dict || dict_equal(run, a.as.dict, b.as.dict);
    case VALUE_RANGE:
        return range_equal(a.as.range, b.as.range);
    case VALUE_METHOD:
        return a.as.method->call == b.as.method->call &&
               owner_equal(run, a.as.method->self, b.as.method->self);
    default:
        return a.as.list == b.as.list; /* the same object */
    }
}

_Noreturn static void fail_order(Run *run, Value a, Value b, const char *operator_name)
{
    if ((a.type == VALUE_BIGINT || value_is_number(a)) &&
        (b.type == VALUE_BIGINT || value_is_number(b)))
        run_fail(run, ERR_UNSUPPORTED, "a whole number beyond 64 bits");
    if (a.type == VALUE_UNDEFINED) run_fail_undefined(run, a);
    if (b.type == VALUE_UNDEFINED) run_fail_undefined(run, b);
    run_raise(run, "'%s' not supported between instances of '%s' and '%s'", operator_name,
              value_type_name(a), value_type_name(b));
}

int value_compare(Run *run, Value a, Value b, const char *operator_name)
{
    run_step(run, 1);
    if (value_is_integer(a) && value_is_integer(b)) {
        int64_t x = value_as_int(a), y = value_as_int(b);
        return (x > y) - (x < y);
    }
    if (value_is_number(a) && value_is_number(b)) {
        double x = value_as_double(a), y = value_as_double(b);
        return (x > y) - (x < y);
    }
    if (value_is_string(a) && value_is_string(b)) {
        const String *x = a.as.string, *y = b.as.string; /* UTF-8 sorts as code points do */
        run_step_bytes(run, x->length);
        int order = memcmp(x->bytes, y->bytes, x->length < y->length ? x->length : y->length);
        return order != 0 ? order : (x->length > y->length) - (x->length < y->length);
    }
    if (value_is_list(a) && a.type == b.type) {
        const List *x = a.as.list, *y = b.as.list;
        for (size_t i = 0; i < x->count && i < y->count; i++) {
            if (value_equal(run, x->item[i], y->item[i])) continue;
            run_enter(run);
            int order = value_compare(run, x->item[i], y->item[i], operator_name);
            run_leave(run);
            return order;
        }
        return (x->count > y->count) - (x->count < y->count);
    }
    fail_order(run, a, b, operator_name);
}

static bool contains_text(Run *run, Value container, Value item)
{
    if (!value_is_string(item)) {
        run_raise(run, "'in <string>' requires string as left operand, not %s",
                  value_type_name(item));
    }
    const String *text = container.as.string, *part = item.as.string;
    run_step_search(run, text->length, part->length);
    return part->length == 0 ||
           memmem(text->bytes, text->length, part->bytes, part->length) != NULL;
}

bool value_contains(Run *run, Value container, Value item)
{
    if (value_is_string(container)) return contains_text(run, container, item);
    if (container.type == VALUE_DICT) return dict_has(run, container.as.dict, item);
    if (container.type == VALUE_VIEW && container.as.view->kind == VIEW_KEYS)
        return dict_has(run, container.as.view->dict, item);
    Iterator iterator;
    if (!iterator_begin(run, container, &iterator))
        run_raise(run, "argument of type '%s' is not iterable", value_type_name(container));
    Value each;
    while (iterator_next(run, &iterator, &each))
        if (value_equal(run, each, item)) return true;
    return false;
}

bool value_has_length(Value value)
{
    switch ((ValueType)value.type) {
    case VALUE_UNDEFINED:
    case VALUE_STRING:
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_DICT:
    case VALUE_VIEW:
    case VALUE_RANGE:
    case VALUE_LOOP:
        return true;
    default:
        return false;
    }
}

size_t value_length(Run *run, Value value)
{
    switch ((ValueType)value.type) {
    case VALUE_UNDEFINED:
        return 0;
    case VALUE_STRING:
        if (value.as.string->chars == CHARS_UNKNOWN) run_step_bytes(run, value.as.string->length);
        return string_chars(value.as.string);
    case VALUE_LIST:
    case VALUE_TUPLE:
        return value.as.list->count;
    case VALUE_DICT:
        return value.as.dict->count;
    case VALUE_VIEW:
        return value.as.view->dict->count;
    case VALUE_RANGE:
        return (size_t)value.as.range->count;
    default:
        run_raise(run, "object of type '%s' has no len()", value_type_name(value));
    }
}

/* ---- walking ---- */

bool iterator_begin(Run *run, Value source, Iterator *ret)
{
    *ret = (Iterator){.source = source};
    switch ((ValueType)source.type) {
    case VALUE_UNDEFINED:
        return true;
    case VALUE_STRING:
        ret->count = source.as.string->length;
        return true;
    case VALUE_LIST:
    case VALUE_TUPLE:
        ret->count = source.as.list->count;
        return true;
    case VALUE_DICT:
        ret->count = source.as.dict->count;
        return true;
    case VALUE_VIEW:
        ret->count = source.as.view->dict->count;
        return true;
    case VALUE_RANGE:
        ret->count = (size_t)source.as.range->count;
        return true;
    case VALUE_GENERATOR:
        return true;
    default:
        (void)run;
        return false;
    }
}

size_t iterator_room(const Iterator *iterator)
{
    const Generator *generator = iterator->source.as.generator;
    return iterator->source.type == VALUE_GENERATOR ? generator->count - generator->position
                                                    : iterator->count - iterator->position;
}

static Value view_item(Run *run, const View *view, size_t index)
{
    const DictEntry *entry = &view->dict->entry[index];
    if (view->kind == VIEW_KEYS) return entry->key;
    const Value *value = entry_value(run, entry);
    return view->kind == VIEW_VALUES ? *value : value_tuple2(run, entry->key, *value);
}

bool iterator_next(Run *run, Iterator *iterator, Value *ret)
{
    run_step(run, 1);
    Value source = iterator->source;
    if (source.type == VALUE_GENERATOR) {
        Generator *generator = source.as.generator;
        if (generator->position >= generator->count) {
            if (generator->failure != NULL) run_raise(run, "%s", generator->failure);
            return false;
        }
        *ret = generator->item[generator->position++];
        return true;
    }
    if (iterator->position >= iterator->count) return false;
    size_t at = iterator->position++;
    switch ((ValueType)source.type) {
    case VALUE_STRING: {
        int size;
        string_char(source.as.string, at, &size);
        *ret = string_slice(run, source, at, at + (size_t)size);
        ret->flags &= (uint8_t)~FLAG_MARKUP; /* Markup gives plain strings */
        iterator->position = at + (size_t)size;
        break;
    }
    case VALUE_LIST:
    case VALUE_TUPLE:
        *ret = source.as.list->item[at];
        break;
    case VALUE_DICT:
        *ret = source.as.dict->entry[at].key;
        break;
    case VALUE_VIEW:
        *ret = view_item(run, source.as.view, at);
        break;
    default:
        *ret = value_int(source.as.range->start + (int64_t)at * source.as.range->step);
        break;
    }
    return true;
}

Value *value_items(Run *run, Value source, size_t *ret_count)
{
    Iterator iterator;
    if (!iterator_begin(run, source, &iterator))
        run_raise(run, "'%s' object is not iterable", value_type_name(source));
    Value *items = run_alloc(run, iterator_room(&iterator) * sizeof *items);
    size_t count = 0;
    for (Value item; iterator_next(run, &iterator, &item);)
        items[count++] = item;
    *ret_count = count;
    return items;
}

size_t *sort_order(Run *run, size_t count, Before before, const void *context)
{
    size_t *from = run_alloc(run, count * sizeof *from), *to = run_alloc(run, count * sizeof *to);
    for (size_t i = 0; i < count; i++)
        from[i] = i;
    for (size_t width = 1; width < count; width *= 2) { /* merge sort, bottom up */
        for (size_t begin = 0; begin < count; begin += 2 * width) {
            size_t middle = begin + width < count ? begin + width : count;
            size_t end = begin + 2 * width < count ? begin + 2 * width : count;
            size_t left = begin, right = middle;
            for (size_t at = begin; at < end; at++) {
                bool take_right = left == middle ||
                                  (right < end && before(run, context, from[right], from[left]));
                to[at] = from[take_right ? right++ : left++];
            }
        }
        size_t *other = from;
        from = to;
        to = other;
    }
    return from;
}

/* ---- strings ---- */

uint32_t string_chars(const String *string)
{
    if (string->chars != CHARS_UNKNOWN) return string->chars;
    uint32_t chars = 0;
    for (uint32_t i = 0; i < string->length; i++)
        chars += ((unsigned char)string->bytes[i] & 0xC0) != 0x80;
    ((String *)string)->chars =
        chars; /* a cache: strings of templates have theirs filled by the parser */
    return chars;
}

size_t string_offset(const String *string, size_t character)
{
    if (string_is_ascii(string)) return character < string->length ? character : string->length;
    size_t at = 0;
    while (at < string->length && character > 0) {
        at++;
        while (at < string->length && ((unsigned char)string->bytes[at] & 0xC0) == 0x80)
            at++;
        character--;
    }
    return at;
}

uint32_t string_char(const String *string, size_t offset, int *ret_size)
{
    uint32_t code_point = 0;
    *ret_size = utf8_decode(string->bytes + offset, string->length - offset, &code_point);
    CHECKF(*ret_size > 0, "a template string is not UTF-8 at byte %zu", offset);
    return code_point;
}

/* The run that holds the byte at `offset`. */
static size_t run_at(const String *string, size_t offset)
{
    size_t low = 0, high = string->num_runs - 1;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (string->run[middle].end > offset) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

Origin string_origin(Value string, size_t offset)
{
    const String *text = string.as.string;
    if (text->run == NULL) return string.origin;
    return text->run[run_at(text, offset)].origin;
}

Value string_slice(Run *run, Value string, size_t begin, size_t end)
{
    const String *text = string.as.string;
    if (begin == 0 && end == text->length) return string;
    String *part = run_alloc_raw(run, sizeof *part);
    *part =
        (String){.bytes = text->bytes + begin,
                 .length = (uint32_t)(end - begin),
                 .chars = text->chars == text->length ? (uint32_t)(end - begin) : CHARS_UNKNOWN};
    Value value = string;
    value.as.string = part;
    if (text->run == NULL || begin == end) return value;
    size_t first = run_at(text, begin), last = run_at(text, end - 1);
    value.origin = text->run[first].origin;
    if (first == last) return value;
    OriginRun *runs = run_alloc(run, (last - first + 1) * sizeof *runs);
    for (size_t i = first; i <= last; i++) {
        runs[i - first] = text->run[i];
        runs[i - first].end -= (uint32_t)begin;
    }
    part->run = runs;
    part->num_runs = (uint32_t)(last - first + 1);
    return value;
}

/* Origins of a + b; `extend` when the bytes of b were put right behind those of a, so that nothing
 * else can have been put behind the runs of a. */
static void concat_runs(Run *run, String *joined, Value a, Value b, bool extend)
{
    const String *x = a.as.string, *y = b.as.string;
    size_t n = x->run != NULL ? x->num_runs : 1, m = y->run != NULL ? y->num_runs : 1;
    OriginRun *runs;
    if (extend && x->run != NULL && x->run + n == run->runs_top &&
        (size_t)(run->runs_end - run->runs_top) >= m) {
        runs = run->runs_top - n;
        run->runs_top += m;
    } else {
        runs = runs_reserve(run, n + m);
        if (x->run != NULL) {
            memcpy(runs, x->run, n * sizeof *runs);
        } else {
            runs[0].origin = a.origin;
        }
    }
    runs[n - 1].end = x->length;
    for (size_t i = 0; i < m; i++) {
        runs[n + i].origin = y->run != NULL ? y->run[i].origin : b.origin;
        runs[n + i].end = x->length + (y->run != NULL ? y->run[i].end : y->length);
    }
    joined->run = runs;
    joined->num_runs = (uint32_t)(n + m);
}

Value string_concat(Run *run, Value a, Value b)
{
    const String *x = a.as.string, *y = b.as.string;
    if (y->length == 0) return a;
    if (x->length == 0) {
        b.flags = a.flags;
        return b;
    }
    size_t length = (size_t)x->length + y->length;
    run_check_length(run, length);
    run_step(run, length / 64);
    String *joined = run_alloc_raw(run, sizeof *joined);
    *joined = (String){.length = (uint32_t)length, .chars = CHARS_UNKNOWN};
    if (x->chars == x->length && y->chars == y->length) joined->chars = (uint32_t)length;
    bool extend = x->bytes + x->length == run->text_top &&
                  (size_t)(run->text_end - run->text_top) >= y->length;
    if (extend) {
        memcpy(text_reserve(run, y->length), y->bytes, y->length);
        joined->bytes = x->bytes;
    } else {
        char *bytes = text_reserve(run, length);
        memcpy(bytes, x->bytes, x->length);
        memcpy(bytes + x->length, y->bytes, y->length);
        joined->bytes = bytes;
    }
    Value value = a;
    value.as.string = joined;
    if (x->run != NULL || y->run != NULL || a.origin != b.origin)
        concat_runs(run, joined, a, b, extend);
    return value;
}
