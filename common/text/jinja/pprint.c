/* The filter pprint: Python's pprint.pformat with its defaults. What fits into 80 characters is
 * printed as repr() has it, keys in order; else lists, tuples and dicts get a line per item, and
 * strings are cut between words. */
#include "text/jinja/chars.h"
#include "text/jinja/filters.h"

#define PRINT_WIDTH 80

/* Where a value is printed: behind `indent` characters, with `allowance` to come behind it. */
typedef struct Place {
    int64_t indent, allowance;
    int level; /* of nesting; 1: the value itself */
} Place;

static void write_plain(Run *run, Value value);
static void write_pretty(Run *run, Value value, Place place);

/* ---- keys in order ---- */

/* Keys that Python cannot compare are ordered by the names of their types, which it prints as
 * <class 'str'>. */
static const char *class_name(Value value)
{
    return value.flags & FLAG_MARKUP ? "markupsafe.Markup" : value_type_name(value);
}

static bool key_before(Run *run, const void *context, size_t i, size_t j)
{
    const Value *key = context;
    Value a = key[i], b = key[j];
    bool both_texts = value_is_string(a) && value_is_string(b);
    bool both_numbers = (value_is_number(a) || a.type == VALUE_BIGINT) &&
                        (value_is_number(b) || b.type == VALUE_BIGINT);
    if (both_texts || both_numbers || (a.type == VALUE_TUPLE && b.type == VALUE_TUPLE))
        return value_compare(run, a, b, "<") < 0;
    int order = strcmp(class_name(a), class_name(b));
    if (order == 0)
        run_fail(run, ERR_UNSUPPORTED, "pprint of a dict with two keys of type %s", class_name(a));
    return order < 0;
}

static size_t *sorted_entries(Run *run, const Dict *dict)
{
    Value *key = run_alloc_raw(run, (dict->count + 1) * sizeof *key);
    for (size_t i = 0; i < dict->count; i++)
        key[i] = dict->entry[i].key;
    return sort_order(run, dict->count, key_before, key);
}

/* ---- on one line ---- */

static void write_spaces(Run *run, int64_t count, Origin origin)
{
    run_step(run, (uint64_t)count);
    for (int64_t i = 0; i < count; i++)
        buffer_write(run, " ", 1, origin);
}

static void write_plain_dict(Run *run, Value value)
{
    const Dict *dict = value.as.dict;
    const size_t *order = sorted_entries(run, dict);
    buffer_puts(run, "{", value.origin);
    for (size_t i = 0; i < dict->count; i++) {
        const DictEntry *entry = &dict->entry[order[i]];
        if (i > 0) buffer_puts(run, ", ", value.origin);
        write_plain(run, entry->key);
        buffer_puts(run, ": ", value.origin);
        write_plain(run, *entry_value(run, entry));
    }
    buffer_puts(run, "}", value.origin);
}

static bool is_plain_tuple(Value value)
{
    return value.type == VALUE_TUPLE && !(value.flags & FLAG_GROUP);
}

static void write_plain(Run *run, Value value)
{
    bool is_list = value.type == VALUE_LIST || is_plain_tuple(value);
    if (value.type != VALUE_DICT && !is_list) {
        write_repr(run, value);
        return;
    }
    run_enter(run);
    run_step(run, 1);
    if (value.type == VALUE_DICT) {
        write_plain_dict(run, value);
    } else {
        const List *list = value.as.list;
        const char *close = value.type == VALUE_LIST ? "]" : list->count == 1 ? ",)" : ")";
        buffer_puts(run, value.type == VALUE_LIST ? "[" : "(", value.origin);
        for (size_t i = 0; i < list->count; i++) {
            if (i > 0) buffer_puts(run, ", ", value.origin);
            write_plain(run, list->item[i]);
        }
        buffer_puts(run, close, value.origin);
    }
    run_leave(run);
}

static Value plain(Run *run, Value value, int64_t *ret_chars)
{
    buffer_push(run);
    write_plain(run, value);
    Value text = buffer_pop(run);
    run_step_bytes(run, text.as.string->length);
    *ret_chars = string_chars(text.as.string);
    return text;
}

/* ---- on several lines ---- */

static void write_break(Run *run, int64_t indent, Origin origin)
{
    buffer_puts(run, "\n", origin);
    write_spaces(run, indent, origin);
}

static void write_items(Run *run, Value value, Place place)
{
    const List *list = value.as.list;
    bool is_list = value.type == VALUE_LIST;
    const char *close = is_list ? "]" : list->count == 1 ? ",)" : ")";
    buffer_puts(run, is_list ? "[" : "(", value.origin);
    for (size_t i = 0; i < list->count; i++) {
        Place inner = {.indent = place.indent + 1, .allowance = 1, .level = place.level};
        if (i + 1 == list->count) inner.allowance = place.allowance + (int64_t)strlen(close);
        if (i > 0) {
            buffer_puts(run, ",", value.origin);
            write_break(run, inner.indent, value.origin);
        }
        write_pretty(run, list->item[i], inner);
    }
    buffer_puts(run, close, value.origin);
}

static void write_entries(Run *run, Value value, Place place)
{
    const Dict *dict = value.as.dict;
    const size_t *order = sorted_entries(run, dict);
    buffer_puts(run, "{", value.origin);
    for (size_t i = 0; i < dict->count; i++) {
        const DictEntry *entry = &dict->entry[order[i]];
        int64_t chars;
        Value key = plain(run, entry->key, &chars);
        if (i > 0) {
            buffer_puts(run, ",", value.origin);
            write_break(run, place.indent + 1, value.origin);
        }
        buffer_write_string(run, key);
        buffer_puts(run, ": ", value.origin);
        bool last = i + 1 == dict->count;
        write_pretty(run, *entry_value(run, entry),
                     (Place){.indent = place.indent + 1 + chars + 2,
                             .allowance = last ? place.allowance + 1 : 1,
                             .level = place.level});
    }
    buffer_puts(run, "}", value.origin);
}

/* Pieces of a string, each of which is printed on a line of its own. */
typedef struct Pieces {
    Value *piece; /* their repr() */
    size_t count, capacity;
} Pieces;

static void push_piece(Run *run, Pieces *pieces, Value piece)
{
    if (pieces->count == pieces->capacity) {
        size_t capacity = pieces->capacity == 0 ? 16 : 2 * pieces->capacity;
        Value *grown = run_alloc_raw(run, capacity * sizeof *grown);
        if (pieces->count > 0) memcpy(grown, pieces->piece, pieces->count * sizeof *grown);
        pieces->piece = grown;
        pieces->capacity = capacity;
    }
    pieces->piece[pieces->count++] = piece;
}

/* Behind the word at `at` and the white space that follows it. */
static size_t word_end(Run *run, const String *text, size_t at)
{
    bool in_space = false;
    while (at < text->length) {
        int size;
        bool space = char_is_space(string_char(text, at, &size));
        run_step(run, 1);
        if (in_space && !space) break;
        in_space = space;
        at += (size_t)size;
    }
    return at;
}

/* A line that is too long, cut between words. What stands behind the string takes `reserve` of the
 * room of its last piece. */
static void cut_line(Run *run, Value line, int64_t width, int64_t reserve, Pieces *pieces)
{
    const String *text = line.as.string;
    size_t begin = 0, end = 0;
    while (end < text->length) {
        size_t next = word_end(run, text, end);
        int64_t chars;
        if (next == text->length) width -= reserve;
        plain(run, string_slice(run, line, begin, next), &chars);
        if (chars > width && end > begin) {
            int64_t unused;
            push_piece(run, pieces, plain(run, string_slice(run, line, begin, end), &unused));
        }
        if (chars > width) begin = end;
        end = next;
    }
    int64_t unused;
    if (end > begin)
        push_piece(run, pieces, plain(run, string_slice(run, line, begin, end), &unused));
}

static void write_long_string(Run *run, Value value, Place place)
{
    bool alone = place.level == 1;
    int64_t indent = place.indent + alone, allowance = place.allowance + alone;
    size_t count;
    Value *lines = string_lines(run, value, true, &count);
    Pieces pieces = {0};
    Value repr = value;
    for (size_t i = 0; i < count; i++) {
        int64_t chars, width = PRINT_WIDTH - indent, reserve = i + 1 == count ? allowance : 0;
        repr = plain(run, lines[i], &chars);
        if (chars <= width - reserve)
            push_piece(run, &pieces, repr);
        else
            cut_line(run, lines[i], width, reserve, &pieces);
    }
    if (pieces.count == 1) {
        buffer_write_string(run, repr);
        return;
    }
    if (alone) buffer_puts(run, "(", value.origin);
    for (size_t i = 0; i < pieces.count; i++) {
        if (i > 0) write_break(run, indent, value.origin);
        buffer_write_string(run, pieces.piece[i]);
    }
    if (alone) buffer_puts(run, ")", value.origin);
}

static void write_pretty(Run *run, Value value, Place place)
{
    int64_t chars;
    run_enter(run);
    Value text = plain(run, value, &chars);
    bool fits = chars <= PRINT_WIDTH - place.indent - place.allowance;
    place.level++;
    bool is_text = value_is_string(value) && !(value.flags & FLAG_MARKUP);
    if (!fits && value.type == VALUE_DICT)
        write_entries(run, value, place);
    else if (!fits && (value.type == VALUE_LIST || is_plain_tuple(value)))
        write_items(run, value, place);
    else if (!fits && is_text && value.as.string->length > 0)
        write_long_string(run, value, place);
    else
        buffer_write_string(run, text);
    run_leave(run);
}

Value filter_pprint(Run *run, Value self, const Args *args)
{
    Value unused;
    args_bind(run, "do_pprint", args, NULL, 0, &unused);
    buffer_push(run);
    write_pretty(run, self, (Place){0});
    return buffer_pop(run);
}
