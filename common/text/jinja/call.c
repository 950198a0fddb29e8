/* Arguments of builtins, and the global functions. */
#include <stdio.h>
#include <time.h>

#include "base/plural.h"
#include "base/str.h"
#include "text/jinja/run.h"

/* As Python counts: what a filter or test is applied to is an argument too. */
_Noreturn static void fail_count(Run *run, const char *function, const Args *args,
                                 const Param *params, size_t count)
{
    bool is_applied = str_starts_with(function, "do_") || str_starts_with(function, "test_");
    size_t least = 0, most = count + is_applied, given = args->count + is_applied;
    for (size_t i = 0; i < count; i++)
        least += params[i].required;
    least += is_applied;
    if (!is_applied)
        run_raise(run, "%s() takes at most %zu argument%s (%zu given)", function, most,
                  plural(most), given);
    if (least < most)
        run_raise(run, "%s() takes from %zu to %zu positional arguments but %zu were given",
                  function, least, most, given);
    run_raise(run, "%s() takes %zu positional argument%s but %zu were given", function, most,
              plural(most), given);
}

void args_bind(Run *run, const char *function, const Args *args, const Param *params, size_t count,
               Value *values)
{
    for (size_t i = 0; i < count; i++)
        values[i] = value_missing();
    if (args->count > count) fail_count(run, function, args, params, count);
    if (args->count > 0) memcpy(values, args->positional, args->count * sizeof *values);
    for (size_t i = 0; i < args->num_keywords; i++) {
        const String *name = args->keyword[i].name;
        size_t at = 0;
        while (at < count && !string_is(name, params[at].name))
            at++;
        if (at == count)
            run_raise(run, "%s() got an unexpected keyword argument '%s'", function,
                      message_text(run, name));
        if (values[at].type != VALUE_MISSING)
            run_raise(run, "%s() got multiple values for argument '%s'", function, params[at].name);
        values[at] = args->keyword[i].value;
    }
    for (size_t i = 0; i < count; i++)
        if (params[i].required && values[i].type == VALUE_MISSING)
            run_raise(run, "%s() missing 1 required positional argument: '%s'", function,
                      params[i].name);
}

int64_t arg_int(Run *run, Value value, const char *what)
{
    (void)what;
    if (value_is_integer(value)) return value_as_int(value);
    run_raise(run, "'%s' object cannot be interpreted as an integer", value_type_name(value));
}

/* ---- globals ---- */

static Value call_raise(Run *run, Value self, const Args *args)
{
    (void)self;
    static const Param params[] = {{"message", true}};
    Value message;
    args_bind(run, "raise_exception", args, params, 1, &message);
    run_raise(run, "%s", message_text(run, value_str(run, message).as.string));
}

/* datetime.now().strftime(format), with the time the caller of the rendering chose, in UTC. */
static Value call_strftime(Run *run, Value self, const Args *args)
{
    (void)self;
    static const Param params[] = {{"format", true}};
    Value format;
    args_bind(run, "strftime_now", args, params, 1, &format);
    if (!value_is_string(format))
        run_raise(run, "strftime() argument 1 must be str, not %s", value_type_name(format));
    time_t now = (time_t)run->now;
    struct tm tm;
    if (gmtime_r(&now, &tm) == NULL) run_raise(run, "year is out of range");
    const String *text = format.as.string;
    buffer_push(run);
    for (size_t at = 0; at < text->length; at++) {
        if (text->bytes[at] != '%' || at + 1 == text->length) {
            buffer_write_slice(run, format, at, at + 1);
            continue;
        }
        char directive = text->bytes[++at], out[128];
        bool has_modifier = directive == '-' || directive == 'E' || directive == 'O';
        char spec[4] = {'%', directive, '\0', '\0'};
        if (has_modifier && at + 1 < text->length) spec[2] = text->bytes[++at];
        if (directive == 'f') {
            buffer_puts(run, "000000", format.origin);
        } else if (directive != 'z' && directive != 'Z') { /* a naive datetime has no zone */
            size_t length = strftime(out, sizeof out, spec, &tm);
            buffer_write(run, out, length, format.origin);
        }
    }
    return buffer_pop(run);
}

static Value call_range(Run *run, Value self, const Args *args)
{
    (void)self;
    if (args->num_keywords > 0) run_raise(run, "range() takes no keyword arguments");
    if (args->count == 0) run_raise(run, "range expected at least 1 argument, got 0");
    if (args->count > 3) run_raise(run, "range expected at most 3 arguments, got %zu", args->count);
    int64_t bound[3] = {0, 0, 1};
    for (size_t i = 0; i < args->count; i++)
        bound[i] = arg_int(run, args->positional[i], "range");
    if (args->count == 1) {
        bound[1] = bound[0];
        bound[0] = 0;
    }
    if (bound[2] == 0) run_raise(run, "range() arg 3 must not be zero");
    __int128 span = bound[2] > 0 ? (__int128)bound[1] - bound[0] : (__int128)bound[0] - bound[1];
    __int128 step = bound[2] > 0 ? bound[2] : -(__int128)bound[2];
    __int128 count = span > 0 ? (span + step - 1) / step : 0;
    if (count > 100000)
        run_raise(run, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
    Range *range = run_alloc(run, sizeof *range);
    *range =
        (Range){.start = bound[0], .stop = bound[1], .step = bound[2], .count = (int64_t)count};
    return (Value){.type = VALUE_RANGE, .origin = ORIGIN_PLAIN_TEMPLATE, .as.range = range};
}

/* What dict() makes of its arguments: a mapping or pairs, then keywords. */
static Dict *make_dict(Run *run, const char *function, const Args *args)
{
    if (args->count > 1)
        run_raise(run, "%s expected at most 1 argument, got %zu", function, args->count);
    Dict *dict = dict_create(run, args->num_keywords);
    if (args->count == 1 && args->positional[0].type == VALUE_UNDEFINED)
        run_fail_undefined(run, args->positional[0]); /* it is asked for its keys */
    if (args->count == 1 && args->positional[0].type == VALUE_DICT) {
        const Dict *from = args->positional[0].as.dict;
        for (size_t i = 0; i < from->count; i++)
            dict_set(run, dict, from->entry[i].key, *entry_value(run, &from->entry[i]));
    } else if (args->count == 1) {
        size_t count, size;
        Value *pairs = value_items(run, args->positional[0], &count);
        for (size_t i = 0; i < count; i++) {
            Iterator iterator;
            if (!iterator_begin(run, pairs[i], &iterator))
                run_raise(
                    run, "cannot convert dictionary update sequence element #%zu to a sequence", i);
            Value *pair = value_items(run, pairs[i], &size);
            if (size != 2)
                run_raise(run,
                          "dictionary update sequence element #%zu has length %zu; 2 is required",
                          i, size);
            dict_set(run, dict, pair[0], pair[1]);
        }
    }
    for (size_t i = 0; i < args->num_keywords; i++)
        dict_set(run, dict, value_of_string(args->keyword[i].name, run->literal_origin),
                 args->keyword[i].value);
    return dict;
}

static Value call_dict(Run *run, Value self, const Args *args)
{
    (void)self;
    return value_of_dict(make_dict(run, "dict", args), run->literal_origin);
}

static Value call_namespace(Run *run, Value self, const Args *args)
{
    (void)self;
    Dict *names = make_dict(run, "namespace", args);
    for (size_t i = 0; i < names->count; i++) {
        Value key = names->entry[i].key;
        if (value_is_string(key) && key.as.string->length > 0 && key.as.string->bytes[0] == '_')
            run_raise(run,
                      "Chat templates cannot store underscore-prefixed attributes on a namespace, "
                      "but got '%s'. Please rename the attribute.",
                      message_text(run, key.as.string));
    }
    return (Value){.type = VALUE_NAMESPACE, .origin = ORIGIN_PLAIN_TEMPLATE, .as.names = names};
}

static Value call_cycler(Run *run, Value self, const Args *args)
{
    (void)self;
    if (args->count == 0) run_raise(run, "at least one item has to be provided");
    Cycler *cycler = run_alloc(run, sizeof *cycler);
    cycler->item = args->positional;
    cycler->count = args->count;
    return (Value){.type = VALUE_CYCLER, .origin = ORIGIN_PLAIN_TEMPLATE, .as.cycler = cycler};
}

static Value call_joiner(Run *run, Value self, const Args *args)
{
    (void)self;
    static const Param params[] = {{"sep", false}};
    Value separator;
    args_bind(run, "joiner", args, params, 1, &separator);
    Joiner *joiner = run_alloc(run, sizeof *joiner);
    joiner->separator = separator.type == VALUE_MISSING ? value_literal(run, ", ") : separator;
    return (Value){.type = VALUE_JOINER, .origin = ORIGIN_PLAIN_TEMPLATE, .as.joiner = joiner};
}

static Value call_lipsum(Run *run, Value self, const Args *args)
{
    (void)self;
    (void)args;
    run_fail(run, ERR_UNSUPPORTED, "lipsum() makes random text and is not supported");
}

static const Function globals[] = {
    {"raise_exception", call_raise}, {"strftime_now", call_strftime},
    {"range", call_range},           {"dict", call_dict},
    {"namespace", call_namespace},   {"cycler", call_cycler},
    {"joiner", call_joiner},         {"lipsum", call_lipsum},
};

const Function *global_find(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++)
        if (strlen(globals[i].name) == length && memcmp(globals[i].name, name, length) == 0)
            return &globals[i];
    return NULL;
}
