/* Values as JSON, byte for byte as Python's json.dumps writes them. */
#include <math.h>
#include <stdio.h>

#include "text/jinja/run.h"

static void write_json_char(Run *run, uint32_t c, Origin origin)
{
    char text[16];
    run_step(run, 1);
    const char *plain = "\"\"\\\\\nn\rr\tt\bb\ff";
    for (size_t i = 0; plain[i] != '\0'; i += 2)
        if (c == (unsigned char)plain[i]) {
            buffer_write(run, (const char[]){'\\', plain[i + 1]}, 2, origin);
            return;
        }
    if (c < 0x10000) {
        snprintf(text, sizeof text, "\\u%04x", c);
    } else {
        uint32_t offset = c - 0x10000;
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800 + (offset >> 10),
                 0xDC00 + (offset & 0x3FF));
    }
    buffer_puts(run, text, origin);
}

/* 1: is escaped in JSON; 2: in JSON of ASCII only. */
static uint8_t json_escape_kind(unsigned char byte)
{
    if (byte < 0x20 || byte == '"' || byte == '\\') return 1;
    return byte < 0x80 ? 0 : 2;
}

/* Has its high bit set in each byte that is below 0x20, a quote or a backslash, or follows such a
 * one: may see too many, never too few. */
static inline uint64_t json_special(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
    uint64_t quotes = word ^ ones * '"', slashes = word ^ ones * '\\';
    return ((word - ones * 0x20) | (quotes - ones) | (slashes - ones)) & ~word & highs;
}

/* The length of a prefix whose bytes JSON takes as they are. */
static size_t json_plain_prefix(const char *bytes, size_t length)
{
    size_t at = 0;
    for (; at + 8 <= length; at += 8) {
        uint64_t word;
        memcpy(&word, bytes + at, 8);
        if (json_special(word) != 0) break;
    }
    return at;
}

/* Does JSON take all of it as it is, and is it ASCII? */
static bool json_is_plain(const char *bytes, size_t length)
{
    uint64_t word, found = 0;
    if (length < 8) {
        for (size_t at = 0; at < length; at++)
            found |= json_escape_kind((unsigned char)bytes[at]);
        return found == 0;
    }
    for (size_t at = 0; at + 8 < length; at += 8) {
        memcpy(&word, bytes + at, 8);
        found |= json_special(word) | (word & 0x8080808080808080u);
    }
    memcpy(&word, bytes + length - 8, 8);
    return (found | json_special(word) | (word & 0x8080808080808080u)) == 0;
}

/* Writes a short string that is plain, of the origin that is being written: most of JSON. */
static bool write_plain(Run *run, const char *bytes, size_t length, Origin origin)
{
    char *room = length < 256 ? buffer_room(run, length + 2, origin) : NULL;
    if (room == NULL || !json_is_plain(bytes, length)) return false;
    room[0] = '"';
    if (length < 64) {
        copy_short(room + 1, bytes, length);
    } else {
        memcpy(room + 1, bytes, length);
    }
    room[length + 1] = '"';
    run->top->length += length + 2;
    return true;
}

/* buffer_write of a few bytes, most often of the origin that is being written. */
static inline void put(Run *run, const char *bytes, size_t length, Origin origin)
{
    char *room = length < 64 ? buffer_room(run, length, origin) : NULL;
    if (room == NULL) {
        buffer_write(run, bytes, length, origin);
    } else {
        copy_short(room, bytes, length);
        run->top->length += length;
    }
}

static void write_json_string(Run *run, Value string, bool ensure_ascii)
{
    const String *text = string.as.string;
    if (text->run == NULL && write_plain(run, text->bytes, text->length, string.origin)) return;
    Origin outer = text->length > 0 ? string_origin(string, 0) : string.origin;
    uint8_t escaped = ensure_ascii ? 3 : 1;
    buffer_write(run, "\"", 1, outer);
    size_t plain = 0; /* bytes from here on need no escape */
    for (size_t at = 0; at < text->length;) {
        if (!ensure_ascii) at += json_plain_prefix(text->bytes + at, text->length - at);
        if (at == text->length) break;
        if ((json_escape_kind((unsigned char)text->bytes[at]) & escaped) == 0) {
            at++;
            continue;
        }
        buffer_write_slice(run, string, plain, at);
        int size = 1;
        uint32_t c = string_char(text, at, &size);
        write_json_char(run, c, string_origin(string, at));
        at += (size_t)size;
        plain = at;
    }
    buffer_write_slice(run, string, plain, text->length);
    buffer_write(run, "\"", 1, outer);
}

static void write_json_float(Run *run, double real, Origin origin)
{
    char text[32];
    run_step(run, 10);
    if (isnan(real)) {
        buffer_puts(run, "NaN", origin);
    } else if (isinf(real)) {
        buffer_puts(run, real > 0 ? "Infinity" : "-Infinity", origin);
    } else {
        buffer_puts(run, format_double(real, text), origin);
    }
}

/* A new line and its indentation: part of what is written, like the brackets. */
static void write_json_break(Run *run, const JsonStyle *style, int level, Origin origin)
{
    static const char blanks[] = "\n                                                              ";
    const String *indent = style->indent;
    size_t length = 1 + (size_t)level * indent->length;
    if (style->indents_blank && length < sizeof blanks) {
        put(run, blanks, length, origin);
        return;
    }
    put(run, "\n", 1, origin);
    for (int i = 0; i < level; i++)
        put(run, indent->bytes, indent->length, origin);
}

static void write_json_value(Run *run, Value value, const JsonStyle *style, int level);

static void write_json_list(Run *run, Value value, const JsonStyle *style, int level)
{
    const List *list = value.as.list;
    buffer_puts(run, "[", value.origin);
    for (size_t i = 0; i < list->count; i++) {
        if (i > 0)
            put(run, style->item_separator.as.string->bytes,
                style->item_separator.as.string->length, value.origin);
        if (style->indent != NULL) write_json_break(run, style, level + 1, value.origin);
        write_json_value(run, list->item[i], style, level + 1);
    }
    if (list->count > 0 && style->indent != NULL) write_json_break(run, style, level, value.origin);
    buffer_puts(run, "]", value.origin);
}

/* A key as json.dumps turns it into a string. */
static Value json_key(Run *run, Value key)
{
    switch ((ValueType)key.type) {
    case VALUE_STRING:
        return key;
    case VALUE_NONE:
        return value_literal(run, "null");
    case VALUE_BOOL:
        return value_literal(run, key.as.boolean ? "true" : "false");
    case VALUE_INT:
    case VALUE_BIGINT:
    case VALUE_FLOAT:
        return value_str(run, key);
    default:
        run_raise(run, "keys must be str, int, float, bool or None, not %s", value_type_name(key));
    }
}

static bool key_before(Run *run, const void *context, size_t i, size_t j)
{
    const Dict *dict = context;
    return value_compare(run, dict->entry[i].key, dict->entry[j].key, "<") < 0;
}

static void write_json_pending(Run *run, const cJSON *json, const JsonStyle *style, int level,
                               Origin origin);

/* What a dict holds. What nobody looked at is written from the input as it is, unless its members
 * have to be put in order. */
static void write_json_held(Run *run, Value held, const JsonStyle *style, int level)
{
    if (held.type != VALUE_PENDING) {
        write_json_value(run, held, style, level);
    } else if (style->sort_keys || !json_keys_differ(held.as.pending)) {
        write_json_value(run, value_take(run, held), style, level);
    } else {
        write_json_pending(run, held.as.pending, style, level, held.origin);
    }
}

static void write_json_dict(Run *run, Value value, const JsonStyle *style, int level)
{
    const Dict *dict = value.as.dict;
    const size_t *order = style->sort_keys ? sort_order(run, dict->count, key_before, dict) : NULL;
    const String *item_separator = style->item_separator.as.string;
    const String *key_separator = style->key_separator.as.string;
    buffer_puts(run, "{", value.origin);
    for (size_t i = 0; i < dict->count; i++) {
        if (i > 0) put(run, item_separator->bytes, item_separator->length, value.origin);
        if (style->indent != NULL) write_json_break(run, style, level + 1, value.origin);
        const DictEntry *entry = &dict->entry[order != NULL ? order[i] : i];
        write_json_string(run, json_key(run, entry->key), style->ensure_ascii);
        put(run, key_separator->bytes, key_separator->length, value.origin);
        write_json_held(run, entry->held, style, level + 1);
    }
    if (dict->count > 0 && style->indent != NULL) write_json_break(run, style, level, value.origin);
    buffer_puts(run, "}", value.origin);
}

static void write_json_value(Run *run, Value value, const JsonStyle *style, int level)
{
    run_enter(run);
    run_step(run, 1);
    switch ((ValueType)value.type) {
    case VALUE_NONE:
        buffer_puts(run, "null", value.origin);
        break;
    case VALUE_BOOL:
        buffer_puts(run, value.as.boolean ? "true" : "false", value.origin);
        break;
    case VALUE_INT:
    case VALUE_BIGINT:
        write_repr(run, value);
        break;
    case VALUE_FLOAT:
        write_json_float(run, value.as.real, value.origin);
        break;
    case VALUE_STRING:
        write_json_string(run, value, style->ensure_ascii);
        break;
    case VALUE_LIST:
    case VALUE_TUPLE:
        write_json_list(run, value, style, level);
        break;
    case VALUE_DICT:
        write_json_dict(run, value, style, level);
        break;
    default:
        run_raise(run, "Object of type %s is not JSON serializable", value_type_name(value));
    }
    run_leave(run);
}

static void write_json_text(Run *run, const char *bytes, const JsonStyle *style, Origin origin)
{
    String text;
    if (!write_plain(run, bytes, strlen(bytes), origin))
        write_json_string(run, import_string(run, bytes, origin, &text), style->ensure_ascii);
}

static void write_json_members(Run *run, const cJSON *json, const JsonStyle *style, int level,
                               Origin origin)
{
    bool is_object = (json->type & 0xFF) == cJSON_Object;
    const String *item_separator = style->item_separator.as.string;
    const String *key_separator = style->key_separator.as.string;
    put(run, is_object ? "{" : "[", 1, origin);
    for (const cJSON *item = json->child; item != NULL; item = item->next) {
        if (item != json->child) put(run, item_separator->bytes, item_separator->length, origin);
        if (style->indent != NULL) write_json_break(run, style, level + 1, origin);
        if (is_object) {
            write_json_text(run, item->string, style, origin);
            put(run, key_separator->bytes, key_separator->length, origin);
        }
        write_json_pending(run, item, style, level + 1, origin);
    }
    if (json->child != NULL && style->indent != NULL) write_json_break(run, style, level, origin);
    put(run, is_object ? "}" : "]", 1, origin);
}

static void write_json_pending(Run *run, const cJSON *json, const JsonStyle *style, int level,
                               Origin origin)
{
    int type = json->type & 0xFF;
    run_step(run, 1);
    if (type == cJSON_String) {
        write_json_text(run, json->valuestring, style, origin);
        return;
    }
    run_enter(run);
    if (type == cJSON_Array || (type == cJSON_Object && json_keys_differ(json))) {
        write_json_members(run, json, style, level, origin);
    } else {
        write_json_value(run, value_import(run, json, origin), style, level);
    }
    run_leave(run);
}

void write_json(Run *run, Value value, const JsonStyle *style)
{
    write_json_value(run, value, style, 0);
}
