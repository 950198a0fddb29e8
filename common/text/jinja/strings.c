/* Methods of strings. Every piece of a result keeps the origin of the bytes it came from. */
#include "base/utf8.h"
#include "text/jinja/chars.h"
#include "text/jinja/methods.h"

/* ---- arguments ---- */

static Value need_string(Run *run, Value value, const char *method)
{
    if (value_is_string(value)) return value;
    if (value.type == VALUE_UNDEFINED)
        run_raise(run, "%s() argument must be str, not Undefined", method);
    run_raise(run, "%s() argument must be str, not %s", method, value_type_name(value));
}

static bool is_given(Value value)
{
    return value.type != VALUE_MISSING && value.type != VALUE_NONE;
}

static Value with_flags(Value value, Value self)
{
    value.flags = self.flags;
    return value;
}

/* What a method of markup puts into its result is escaped first. */
static Value fit(Run *run, Value self, Value other)
{
    return self.flags & FLAG_MARKUP ? value_escape(run, other) : other;
}

/* ---- stripping ---- */

static bool char_in(Run *run, const String *set, uint32_t c)
{
    run_step(run, set != NULL ? 1 + set->length / 3 : 1);
    if (set == NULL) return char_is_space(c);
    for (size_t at = 0; at < set->length;) {
        int size;
        if (string_char(set, at, &size) == c) return true;
        at += (size_t)size;
    }
    return false;
}

static size_t char_begin(const String *text, size_t end)
{
    do {
        end--;
    } while (((unsigned char)text->bytes[end] & 0xC0) == 0x80);
    return end;
}

static bool is_ascii_space(char byte) /* as Python has it */
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r') || (byte >= 0x1C && byte <= 0x1F);
}

static Value strip(Run *run, Value self, const Args *args, const char *name, bool left, bool right)
{
    static const Param params[] = {{"chars", false}};
    Value chars;
    args_bind(run, name, args, params, 1, &chars);
    const String *set = is_given(chars) ? need_string(run, chars, name).as.string : NULL;
    const String *text = self.as.string;
    size_t begin = 0, end = text->length;
    int size;
    if (set == NULL) {
        while (left && begin < end && is_ascii_space(text->bytes[begin]))
            begin++;
        while (right && end > begin && is_ascii_space(text->bytes[end - 1]))
            end--;
    }
    while (left && begin < end && char_in(run, set, string_char(text, begin, &size)))
        begin += (size_t)size;
    while (right && end > begin) {
        size_t at = char_begin(text, end);
        if (!char_in(run, set, string_char(text, at, &size))) break;
        end = at;
    }
    if (set == NULL) run_step_bytes(run, 8 * (text->length - (end - begin)));
    return string_slice(run, self, begin, end);
}

Value string_strip(Run *run, Value self, const Args *args)
{
    return strip(run, self, args, "strip", true, true);
}

static Value call_lstrip(Run *run, Value self, const Args *args)
{
    return strip(run, self, args, "lstrip", true, false);
}

static Value call_rstrip(Run *run, Value self, const Args *args)
{
    return strip(run, self, args, "rstrip", false, true);
}

/* ---- searching ---- */

#define NOT_FOUND SIZE_MAX

static size_t find_forward(Run *run, const String *text, size_t from, const String *part)
{
    if (part->length == 0) return from;
    if (from > text->length) return NOT_FOUND;
    const char *at = memmem(text->bytes + from, text->length - from, part->bytes, part->length);
    size_t found = at != NULL ? (size_t)(at - text->bytes) : NOT_FOUND;
    run_step_search(run, (at != NULL ? found : text->length) - from, part->length);
    return found;
}

/* The last occurrence that ends at `end` or before it. */
static size_t find_backward(Run *run, const String *text, size_t end, const String *part)
{
    if (part->length == 0) return end;
    run_step_bytes(run, end);
    for (size_t at = end; at >= part->length;) {
        const char *last =
            memrchr(text->bytes, part->bytes[part->length - 1], at); /* where it may end */
        at = last != NULL ? (size_t)(last - text->bytes) + 1 : 0;
        if (at < part->length) break;
        run_step(run, part->length / 64);
        if (memcmp(text->bytes + at - part->length, part->bytes, part->length) == 0)
            return at - part->length;
        at--;
    }
    return NOT_FOUND;
}

/* The bytes between the optional arguments start and end, which count code points. False: an empty
 * range out of bounds, in which nothing is found. */
static bool search_range(Run *run, const String *text, Value start, Value end, size_t range[2])
{
    run_step_bytes(run, text->length);
    int64_t chars = string_chars(text);
    int64_t bounds[2] = {0, chars};
    Value given[2] = {start, end};
    for (int i = 0; i < 2; i++) {
        if (!is_given(given[i])) continue;
        int64_t bound = arg_int(run, given[i], "slice index");
        if (bound < 0) bound = bound + chars < 0 ? 0 : bound + chars;
        bounds[i] = bound;
    }
    if (bounds[0] > chars || bounds[0] > bounds[1]) return false;
    range[0] = string_offset(text, (size_t)bounds[0]);
    range[1] = string_offset(text, (size_t)(bounds[1] < chars ? bounds[1] : chars));
    return true;
}

static int64_t char_index(const String *text, size_t offset)
{
    String head = {.bytes = text->bytes, .length = (uint32_t)offset, .chars = CHARS_UNKNOWN};
    return string_is_ascii(text) ? (int64_t)offset : (int64_t)string_chars(&head);
}

static int64_t find(Run *run, Value self, const Args *args, const char *name, bool backward)
{
    static const Param params[] = {{"sub", true}, {"start", false}, {"end", false}};
    Value values[3];
    args_bind(run, name, args, params, 3, values);
    const String *text = self.as.string, *part = need_string(run, values[0], name).as.string;
    size_t range[2];
    if (!search_range(run, text, values[1], values[2], range)) return -1;
    String window = {.bytes = text->bytes, .length = (uint32_t)range[1], .chars = CHARS_UNKNOWN};
    size_t at = backward ? find_backward(run, &window, range[1], part)
                         : find_forward(run, &window, range[0], part);
    if (at == NOT_FOUND || at < range[0]) return -1;
    return char_index(text, at);
}

static Value call_find(Run *run, Value self, const Args *args)
{
    return value_int(find(run, self, args, "find", false));
}

static Value call_rfind(Run *run, Value self, const Args *args)
{
    return value_int(find(run, self, args, "rfind", true));
}

static Value call_index(Run *run, Value self, const Args *args)
{
    int64_t at = find(run, self, args, "index", false);
    if (at < 0) run_raise(run, "substring not found");
    return value_int(at);
}

static Value call_rindex(Run *run, Value self, const Args *args)
{
    int64_t at = find(run, self, args, "rindex", true);
    if (at < 0) run_raise(run, "substring not found");
    return value_int(at);
}

static Value call_count(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"sub", true}, {"start", false}, {"end", false}};
    Value values[3];
    args_bind(run, "count", args, params, 3, values);
    const String *text = self.as.string, *part = need_string(run, values[0], "count").as.string;
    size_t range[2];
    if (!search_range(run, text, values[1], values[2], range)) return value_int(0);
    String window = {.bytes = text->bytes + range[0],
                     .length = (uint32_t)(range[1] - range[0]),
                     .chars = CHARS_UNKNOWN};
    if (part->length == 0) return value_int((int64_t)string_chars(&window) + 1);
    int64_t count = 0;
    for (size_t at = 0; (at = find_forward(run, &window, at, part)) != NOT_FOUND;
         at += part->length)
        count++;
    return value_int(count);
}

static bool affix_matches(const String *text, const size_t range[2], const String *affix,
                          bool suffix)
{
    if (range[1] - range[0] < affix->length) return false;
    size_t at = suffix ? range[1] - affix->length : range[0];
    return memcmp(text->bytes + at, affix->bytes, affix->length) == 0;
}

/* startswith and endswith take one string or a tuple of them. */
static Value has_affix(Run *run, Value self, const Args *args, const char *name, bool suffix)
{
    static const Param params[] = {{"prefix", true}, {"start", false}, {"end", false}};
    Value values[3];
    args_bind(run, name, args, params, 3, values);
    const String *text = self.as.string;
    size_t range[2];
    bool in_range = search_range(run, text, values[1], values[2], range);
    bool is_tuple = values[0].type == VALUE_TUPLE;
    if (!is_tuple && !value_is_string(values[0]))
        run_raise(run, "%s first arg must be str or a tuple of str, not %s", name,
                  value_type_name(values[0]));
    size_t count = is_tuple ? values[0].as.list->count : 1;
    const Value *affixes = is_tuple ? values[0].as.list->item : values;
    for (size_t i = 0; i < count; i++) {
        if (!value_is_string(affixes[i]))
            run_raise(run, "tuple for %s must only contain str, not %s", name,
                      value_type_name(affixes[i]));
        run_step_bytes(run, value_is_string(affixes[i]) ? affixes[i].as.string->length : 0);
        if (in_range && affix_matches(text, range, affixes[i].as.string, suffix))
            return value_bool(true);
    }
    return value_bool(false);
}

static Value call_startswith(Run *run, Value self, const Args *args)
{
    return has_affix(run, self, args, "startswith", false);
}

static Value call_endswith(Run *run, Value self, const Args *args)
{
    return has_affix(run, self, args, "endswith", true);
}

static Value remove_affix(Run *run, Value self, const Args *args, const char *name, bool suffix)
{
    static const Param params[] = {{"affix", true}};
    Value affix;
    args_bind(run, name, args, params, 1, &affix);
    const String *text = self.as.string, *part = need_string(run, affix, name).as.string;
    size_t range[2] = {0, text->length};
    run_step_bytes(run, part->length);
    if (!affix_matches(text, range, part, suffix)) return self;
    return suffix ? string_slice(run, self, 0, text->length - part->length)
                  : string_slice(run, self, part->length, text->length);
}

static Value call_removeprefix(Run *run, Value self, const Args *args)
{
    return remove_affix(run, self, args, "removeprefix", false);
}

static Value call_removesuffix(Run *run, Value self, const Args *args)
{
    return remove_affix(run, self, args, "removesuffix", true);
}

/* ---- splitting ---- */

/* A list that grows. */
typedef struct Pieces {
    Value *item;
    size_t count, capacity;
} Pieces;

static void pieces_push(Run *run, Pieces *pieces, Value item)
{
    run_step(run, 1);
    if (pieces->count == pieces->capacity) {
        size_t capacity = pieces->capacity == 0 ? 8 : 2 * pieces->capacity;
        Value *grown = run_alloc(run, capacity * sizeof *grown);
        if (pieces->count > 0) memcpy(grown, pieces->item, pieces->count * sizeof *grown);
        pieces->item = grown;
        pieces->capacity = capacity;
    }
    pieces->item[pieces->count++] = item;
}

static Value pieces_list(Run *run, const Pieces *pieces)
{
    Value list = value_list(run, pieces->count);
    if (pieces->count > 0) memcpy(list_items(list), pieces->item, pieces->count * sizeof(Value));
    return list;
}

static void pieces_reverse(Pieces *pieces)
{
    for (size_t i = 0, j = pieces->count; i + 1 < j; i++) {
        Value item = pieces->item[i];
        pieces->item[i] = pieces->item[--j];
        pieces->item[j] = item;
    }
}

static void split_spaces(Run *run, Value self, int64_t max, Pieces *pieces)
{
    const String *text = self.as.string;
    size_t at = 0;
    int size;
    for (;;) {
        while (at < text->length && char_is_space(string_char(text, at, &size)))
            at += (size_t)size;
        if (at == text->length) return;
        size_t begin = at;
        if (max >= 0 && (int64_t)pieces->count >= max) {
            pieces_push(run, pieces, string_slice(run, self, begin, text->length));
            return;
        }
        while (at < text->length && !char_is_space(string_char(text, at, &size)))
            at += (size_t)size;
        pieces_push(run, pieces, string_slice(run, self, begin, at));
    }
}

static void rsplit_spaces(Run *run, Value self, int64_t max, Pieces *pieces)
{
    const String *text = self.as.string;
    size_t end = text->length;
    int size;
    for (;;) {
        while (end > 0 && char_is_space(string_char(text, char_begin(text, end), &size)))
            end = char_begin(text, end);
        if (end == 0) return;
        size_t begin = end;
        if (max >= 0 && (int64_t)pieces->count >= max) {
            pieces_push(run, pieces, string_slice(run, self, 0, end));
            return;
        }
        while (begin > 0 && !char_is_space(string_char(text, char_begin(text, begin), &size)))
            begin = char_begin(text, begin);
        pieces_push(run, pieces, string_slice(run, self, begin, end));
        end = begin;
    }
}

static Value split(Run *run, Value self, const Args *args, const char *name, bool backward)
{
    static const Param params[] = {{"sep", false}, {"maxsplit", false}};
    Value values[2];
    args_bind(run, name, args, params, 2, values);
    int64_t max = values[1].type != VALUE_MISSING ? arg_int(run, values[1], "maxsplit") : -1;
    const String *text = self.as.string;
    run_step_bytes(run, text->length);
    Pieces pieces = {0};
    if (!is_given(values[0])) {
        if (backward) {
            rsplit_spaces(run, self, max, &pieces);
        } else {
            split_spaces(run, self, max, &pieces);
        }
    } else {
        const String *separator = need_string(run, values[0], name).as.string;
        if (separator->length == 0) run_raise(run, "empty separator");
        size_t begin = 0, end = text->length, at;
        while ((max < 0 || (int64_t)pieces.count < max) &&
               (at = backward ? find_backward(run, text, end, separator)
                              : find_forward(run, text, begin, separator)) != NOT_FOUND) {
            if (backward) {
                pieces_push(run, &pieces, string_slice(run, self, at + separator->length, end));
                end = at;
            } else {
                pieces_push(run, &pieces, string_slice(run, self, begin, at));
                begin = at + separator->length;
            }
        }
        pieces_push(run, &pieces, string_slice(run, self, begin, end));
    }
    if (backward) pieces_reverse(&pieces);
    return pieces_list(run, &pieces);
}

static Value call_split(Run *run, Value self, const Args *args)
{
    return split(run, self, args, "split", false);
}

static Value call_rsplit(Run *run, Value self, const Args *args)
{
    return split(run, self, args, "rsplit", true);
}

Value *string_lines(Run *run, Value string, bool keep_ends, size_t *ret_count)
{
    const String *text = string.as.string;
    run_step(run, text->length / 8);
    Pieces pieces = {0};
    size_t begin = 0;
    for (size_t at = 0; at < text->length;) {
        int size;
        uint32_t c = string_char(text, at, &size);
        size_t end = at;
        at += (size_t)size;
        if (!(c >= 0x0A && c <= 0x0D) && !(c >= 0x1C && c <= 0x1E) && c != 0x85 && c != 0x2028 &&
            c != 0x2029)
            continue;
        if (c == '\r' && at < text->length && text->bytes[at] == '\n') at++;
        pieces_push(run, &pieces, string_slice(run, string, begin, keep_ends ? at : end));
        begin = at;
    }
    if (begin < text->length)
        pieces_push(run, &pieces, string_slice(run, string, begin, text->length));
    *ret_count = pieces.count;
    return pieces.item;
}

static Value call_splitlines(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"keepends", false}};
    Value keep;
    args_bind(run, "splitlines", args, params, 1, &keep);
    size_t count;
    bool keep_ends = keep.type != VALUE_MISSING && arg_int(run, keep, "keepends") != 0;
    Value *lines = string_lines(run, self, keep_ends, &count);
    Value list = value_list(run, count);
    if (count > 0) memcpy(list_items(list), lines, count * sizeof(Value));
    return list;
}

static Value partition(Run *run, Value self, const Args *args, const char *name, bool backward)
{
    static const Param params[] = {{"sep", true}};
    Value sep;
    args_bind(run, name, args, params, 1, &sep);
    const String *text = self.as.string, *separator = need_string(run, sep, name).as.string;
    if (separator->length == 0) run_raise(run, "empty separator");
    size_t at = backward ? find_backward(run, text, text->length, separator)
                         : find_forward(run, text, 0, separator);
    size_t begin = at, end = at + separator->length;
    if (at == NOT_FOUND) begin = end = backward ? 0 : text->length;
    Value tuple = value_tuple(run, 3);
    list_items(tuple)[0] = string_slice(run, self, 0, begin);
    list_items(tuple)[1] = string_slice(run, self, begin, end);
    list_items(tuple)[2] = string_slice(run, self, end, text->length);
    return tuple;
}

static Value call_partition(Run *run, Value self, const Args *args)
{
    return partition(run, self, args, "partition", false);
}

static Value call_rpartition(Run *run, Value self, const Args *args)
{
    return partition(run, self, args, "rpartition", true);
}

/* ---- building ---- */

Value string_replace(Run *run, Value self, Value old, Value new, int64_t max)
{
    const String *text = self.as.string, *part = old.as.string;
    if (max == 0 || (part->length > 0 && find_forward(run, text, 0, part) == NOT_FOUND))
        return self;
    buffer_push(run);
    size_t begin = 0;
    for (int64_t count = 0; max < 0 || count < max; count++) {
        size_t at = find_forward(run, text, begin, part);
        int size = 0;
        if (part->length == 0 && count > 0) { /* between all characters */
            if (begin >= text->length) break;
            string_char(text, begin, &size);
            at = begin + (size_t)size;
        }
        if (at == NOT_FOUND) break;
        run_step(run, 1);
        buffer_write_slice(run, self, begin, at);
        buffer_write_string(run, new);
        begin = at + part->length;
    }
    buffer_write_slice(run, self, begin, text->length);
    return with_flags(buffer_pop(run), self);
}

static Value call_replace(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"old", true}, {"new", true}, {"count", false}};
    Value values[3];
    args_bind(run, "replace", args, params, 3, values);
    int64_t max = values[2].type != VALUE_MISSING ? arg_int(run, values[2], "count") : -1;
    need_string(run, values[0], "replace");
    Value new = need_string(run, fit(run, self, values[1]), "replace");
    return string_replace(run, self, values[0], new, max);
}

static Value call_join(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"iterable", true}};
    Value iterable;
    args_bind(run, "join", args, params, 1, &iterable);
    size_t count;
    Iterator iterator;
    if (!iterator_begin(run, iterable, &iterator)) run_raise(run, "can only join an iterable");
    Value *items = value_items(run, iterable, &count);
    buffer_push(run);
    for (size_t i = 0; i < count; i++) {
        run_step(run, 1);
        if (i > 0) buffer_write_string(run, self);
        Value item = fit(run, self, items[i]);
        if (!value_is_string(item))
            run_raise(run, "sequence item %zu: expected str instance, %s found", i,
                      value_type_name(item));
        buffer_write_string(run, item);
    }
    return with_flags(buffer_pop(run), self);
}

static void write_fill(Run *run, Value fill, int64_t count)
{
    run_check_length(run, count > 0 ? (uint64_t)count : 0);
    for (int64_t i = 0; i < count; i++) {
        run_step(run, 1);
        buffer_write_string(run, fill);
    }
}

/* Pads to `width` code points: `left` of them (or what centring leaves) before the text. */
static Value justify(Run *run, Value self, const Args *args, const char *name, char side)
{
    static const Param params[] = {{"width", true}, {"fillchar", false}};
    Value values[2];
    args_bind(run, name, args, params, 2, values);
    int64_t width = arg_int(run, values[0], "width");
    Value fill =
        values[1].type == VALUE_MISSING ? value_literal(run, " ") : fit(run, self, values[1]);
    if (!value_is_string(fill) || string_chars(fill.as.string) != 1)
        run_raise(run, "The fill character must be exactly one character long");
    int64_t chars = string_chars(self.as.string);
    if (width <= chars) return self;
    int64_t pad = width - chars, left = 0;
    if (side == 'r') left = pad;
    if (side == 'c') left = pad / 2 + (pad & width & 1);
    buffer_push(run);
    write_fill(run, fill, left);
    buffer_write_string(run, self);
    write_fill(run, fill, pad - left);
    return with_flags(buffer_pop(run), self);
}

static Value call_center(Run *run, Value self, const Args *args)
{
    return justify(run, self, args, "center", 'c');
}

static Value call_ljust(Run *run, Value self, const Args *args)
{
    return justify(run, self, args, "ljust", 'l');
}

static Value call_rjust(Run *run, Value self, const Args *args)
{
    return justify(run, self, args, "rjust", 'r');
}

static Value call_zfill(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"width", true}};
    Value width;
    args_bind(run, "zfill", args, params, 1, &width);
    const String *text = self.as.string;
    int64_t pad = arg_int(run, width, "width") - (int64_t)string_chars(text);
    if (pad <= 0) return self;
    size_t sign = text->length > 0 && (text->bytes[0] == '-' || text->bytes[0] == '+');
    buffer_push(run);
    buffer_write_slice(run, self, 0, sign);
    write_fill(run, value_literal(run, "0"), pad);
    buffer_write_slice(run, self, sign, text->length);
    return with_flags(buffer_pop(run), self);
}

static Value call_expandtabs(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"tabsize", false}};
    Value tabsize;
    args_bind(run, "expandtabs", args, params, 1, &tabsize);
    int64_t tab = tabsize.type != VALUE_MISSING ? arg_int(run, tabsize, "tabsize") : 8, column = 0;
    const String *text = self.as.string;
    Value space = value_literal(run, " ");
    run_step(run, text->length);
    buffer_push(run);
    for (size_t at = 0; at < text->length;) {
        int size;
        uint32_t c = string_char(text, at, &size);
        if (c == '\t') {
            int64_t fill = tab > 0 ? tab - column % tab : 0;
            space.origin = string_origin(self, at);
            write_fill(run, space, fill);
            column += fill;
        } else {
            buffer_write_slice(run, self, at, at + (size_t)size);
            column = c == '\n' || c == '\r' ? 0 : column + 1;
        }
        at += (size_t)size;
    }
    return with_flags(buffer_pop(run), self);
}

static Value call_format(Run *run, Value self, const Args *args)
{
    return format_braces(run, self, args);
}

static Value call_format_map(Run *run, Value self, const Args *args)
{
    if (args->num_keywords > 0) run_raise(run, "format_map() takes no keyword arguments");
    if (args->count != 1)
        run_raise(run, "format_map() takes exactly one argument (%zu given)", args->count);
    if (args->positional[0].type != VALUE_DICT)
        run_raise(run, "'%s' object is not subscriptable", value_type_name(args->positional[0]));
    const Dict *dict = args->positional[0].as.dict;
    Keyword *keyword = run_alloc(run, dict->count * sizeof *keyword);
    Args spread = {.keyword = keyword};
    for (size_t i = 0; i < dict->count; i++)
        if (value_is_string(dict->entry[i].key))
            keyword[spread.num_keywords++] = (Keyword){.name = dict->entry[i].key.as.string,
                                                       .value = *entry_value(run, &dict->entry[i])};
    return format_braces(run, self, &spread);
}

/* ---- table ---- */

static const Function methods[] = {
    {"strip", string_strip},
    {"lstrip", call_lstrip},
    {"rstrip", call_rstrip},
    {"split", call_split},
    {"rsplit", call_rsplit},
    {"startswith", call_startswith},
    {"endswith", call_endswith},
    {"replace", call_replace},
    {"join", call_join},
    {"format", call_format},
    {"format_map", call_format_map},
    {"find", call_find},
    {"rfind", call_rfind},
    {"index", call_index},
    {"rindex", call_rindex},
    {"count", call_count},
    {"splitlines", call_splitlines},
    {"partition", call_partition},
    {"rpartition", call_rpartition},
    {"removeprefix", call_removeprefix},
    {"removesuffix", call_removesuffix},
    {"center", call_center},
    {"ljust", call_ljust},
    {"rjust", call_rjust},
    {"zfill", call_zfill},
    {"expandtabs", call_expandtabs},
};

static CallFunction find_method(const Function *table, size_t count, const String *name)
{
    char first = name->length > 0 ? name->bytes[0] : '\0';
    for (size_t i = 0; i < count; i++)
        if (table[i].name[0] == first && string_is(name, table[i].name)) return table[i].call;
    return NULL;
}

CallFunction string_method_find(const String *name)
{
    size_t count;
    const Function *kinds = string_kind_methods(&count);
    CallFunction found = find_method(methods, sizeof methods / sizeof methods[0], name);
    return found != NULL ? found : find_method(kinds, count, name);
}
