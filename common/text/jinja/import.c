/* Variables: from JSON to values that know their origin. Half of the time of a plain conversation
 * goes by here, so members of an object are taken in one pass over it. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "text/jinja/ast.h"

/* ---- texts and numbers ---- */

static bool is_ascii(const char *bytes, size_t length)
{
    uint64_t word, all = 0;
    uint32_t half, tail;
    if (length >= 8) {
        for (size_t at = 0; at + 8 < length; at += 8) {
            memcpy(&word, bytes + at, 8);
            all |= word;
        }
        memcpy(&word, bytes + length - 8, 8);
        return ((all | word) & 0x8080808080808080u) == 0;
    }
    if (length >= 4) {
        memcpy(&half, bytes, 4);
        memcpy(&tail, bytes + length - 4, 4);
        return ((half | tail) & 0x80808080u) == 0;
    }
    return length == 0 || ((bytes[0] | bytes[length / 2] | bytes[length - 1]) & 0x80) == 0;
}

/* Returns how many code points it has, if that is known by looking at it once. */
static uint32_t check_text(Run *run, const char *bytes, size_t length)
{
    if (is_ascii(bytes, length)) return (uint32_t)length;
    if (utf8_valid_prefix(bytes, length) < length)
        run_raise(run, "a string in the variables is not valid UTF-8");
    return CHARS_UNKNOWN;
}

static Value take_string(Run *run, const char *bytes, size_t length, Origin origin, String *ret)
{
    run->memory_max += 16 * length;
    if (length > TEMPLATE_OUTPUT_BYTES_MAX)
        run_fail(run, ERR_RESOURCE, "a string of %zu MiB in the variables", length >> 20);
    *ret = (String){.bytes = bytes, .length = (uint32_t)length};
    ret->chars = check_text(run, bytes, length);
    return value_of_string(ret, origin);
}

Value import_string(Run *run, const char *bytes, Origin origin, String *ret)
{
    return take_string(run, bytes, strlen(bytes), origin, ret);
}

static Value import_text(Run *run, const char *bytes, Origin origin)
{
    return import_string(run, bytes, origin, run_alloc_raw(run, sizeof(String)));
}

/* A number keeps the kind it was written as: 1.0 is a float, 1 is not (base/json.h). */
static Value import_number(Run *run, const cJSON *json, Origin origin)
{
    const char *spelling = json->valuestring;
    Value value = value_float(json->valuedouble);
    bool whole = spelling != NULL ? strpbrk(spelling, ".eE") == NULL
                                  : json->valuedouble == floor(json->valuedouble);
    if (whole && spelling != NULL) {
        errno = 0;
        value = value_int(strtoll(spelling, NULL, 10));
        if (errno == ERANGE) {
            value = import_text(run, spelling, origin);
            value.type = VALUE_BIGINT;
        }
    } else if (whole && fabs(json->valuedouble) < 9.2e18) {
        value = value_int((int64_t)json->valuedouble);
    }
    value.origin = origin;
    return value;
}

/* ---- lists and objects ---- */

static size_t count_children(const cJSON *json)
{
    size_t count = 0;
    for (const cJSON *item = json->child; item != NULL; item = item->next)
        count++;
    return count;
}

static Value import_object(Run *run, const cJSON *json, Origin origin, const Dict *shape,
                           int32_t message);

static Value import_list(Run *run, const cJSON *json, Origin origin)
{
    Value list = value_list(run, count_children(json));
    list.origin = origin;
    size_t count = 0;
    const Dict *shape = NULL;
    for (const cJSON *item = json->child; item != NULL; item = item->next) {
        bool is_object = (item->type & 0xFF) == cJSON_Object;
        Value value = is_object ? import_object(run, item, origin, shape, -1)
                                : value_import(run, item, origin);
        if (is_object) shape = value.as.dict;
        list_items(list)[count++] = value;
    }
    return list;
}

OriginKind message_member_kind(const char *name, size_t length)
{
    static const struct {
        const char *key;
        OriginKind kind;
    } kinds[] = {
        {"content", ORIGIN_CONTENT},      {"reasoning_content", ORIGIN_REASONING},
        {"tool_calls", ORIGIN_TOOL_CALL}, {"role", ORIGIN_ROLE},
        {"reasoning", ORIGIN_REASONING},  {"thinking", ORIGIN_REASONING},
        {"thought", ORIGIN_REASONING},    {"thoughts", ORIGIN_REASONING},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strlen(kinds[i].key) == length && memcmp(name, kinds[i].key, length) == 0)
            return kinds[i].kind;
    return ORIGIN_OTHER;
}

/* The origin of a member of a message. */
static Origin member_origin(const String *key, Origin inherited)
{
    const Name *name = string_name(key);
    OriginKind kind = name != NULL ? name->member : message_member_kind(key->bytes, key->length);
    return kind == ORIGIN_OTHER ? inherited : origin_make(kind, origin_message(inherited));
}

/* A set of strings that has false members, but lacks none: most keys are seen to be new at once. */
static uint64_t set_bit(const char *key, size_t length)
{
    return (uint64_t)1 << ((length * 7 + (unsigned char)key[0] * 3 +
                            (length > 0 ? (unsigned char)key[length - 1] : 0)) &
                           63);
}

bool json_keys_differ(const cJSON *json)
{
    uint64_t seen = 0;
    for (const cJSON *item = json->child; item != NULL && item->string != NULL; item = item->next) {
        uint64_t bit = set_bit(item->string, strlen(item->string));
        if ((seen & bit) != 0) return false;
        seen |= bit;
    }
    return true;
}

/* `room` is for the text of a string. */
static Value import_member(Run *run, const cJSON *item, Origin origin, String *room)
{
    switch (item->type & 0xFF) {
    case cJSON_String:
        return import_string(run, item->valuestring, origin, room);
    case cJSON_Array:
    case cJSON_Object:
        return (Value){.type = VALUE_PENDING, .origin = origin, .as.pending = item};
    default:
        return value_import(run, item, origin);
    }
}

Value value_take(Run *run, Value pending)
{
    return value_import(run, pending.as.pending, pending.origin);
}

static uint64_t set_of_keys(const Dict *dict)
{
    uint64_t set = 0;
    for (size_t i = 0; i < dict->count; i++) {
        const String *key = dict->entry[i].key.as.string;
        set |= set_bit(key->bytes, key->length);
    }
    return set;
}

/* Is `name`, which ends in a NUL, this key? */
static bool is_key(const char *name, const String *key)
{
    size_t at = 0;
    while (at < key->length && name[at] == key->bytes[at])
        at++;
    return at == key->length && name[at] == '\0';
}

/* A key that the template spells is the template's own String. Of two members with one name the
 * last counts. Objects of one list mostly have the same members in the same order, so the one
 * before (`shape`, or NULL) tells what a key will be. `message`: it is messages[message], or -1. */
static Value import_object(Run *run, const cJSON *json, Origin origin, const Dict *shape,
                           int32_t message)
{
    size_t count = count_children(json);
    Dict *dict = dict_create(run, count);
    String *string = run_alloc_raw(run, 2 * count * sizeof *string);
    bool as_shape = shape != NULL; /* so far */
    uint64_t seen = 0;
    dict->message = message;
    dict->interned = true;
    run_step(run, count);
    run->memory_max += 512 * count;
    for (const cJSON *item = json->child; item != NULL; item = item->next) {
        Value key;
        as_shape = as_shape && dict->count < shape->count &&
                   is_key(item->string, shape->entry[dict->count].key.as.string);
        if (as_shape) {
            key = value_of_string(shape->entry[dict->count].key.as.string, origin);
        } else {
            size_t length = strlen(item->string);
            const String *known = intern_find(&run->template->interned, item->string, length);
            key = known != NULL ? value_of_string(known, origin)
                                : take_string(run, item->string, length, origin, string++);
            if (seen == 0) seen = set_of_keys(dict);
        }
        Origin inner = message >= 0 ? member_origin(key.as.string, origin) : origin;
        Value value = import_member(run, item, inner, string);
        string += value_is_string(value);
        uint64_t bit = as_shape ? 0 : set_bit(key.as.string->bytes, key.as.string->length);
        if ((seen & bit) == 0) {
            dict_append(run, dict, key, value);
        } else {
            dict_put(run, dict, key, value);
        }
        seen |= bit;
    }
    return value_of_dict(dict, origin);
}

Value value_import(Run *run, const cJSON *json, Origin origin)
{
    Value value = value_none();
    run_enter(run);
    run_step(run, 1);
    run->memory_max += 256; /* what the value itself takes up */
    switch (json->type & 0xFF) {
    case cJSON_String:
        value = import_text(run, json->valuestring, origin);
        break;
    case cJSON_Number:
        value = import_number(run, json, origin);
        break;
    case cJSON_True:
    case cJSON_False:
        value = value_bool((json->type & 0xFF) == cJSON_True);
        break;
    case cJSON_Array:
        value = import_list(run, json, origin);
        break;
    case cJSON_Object:
        value = import_object(run, json, origin, NULL, -1);
        break;
    default:
        break;
    }
    value.origin = origin;
    run_leave(run);
    return value;
}

/* ---- variables ---- */

static Value import_messages(Run *run, const cJSON *json)
{
    size_t count = (size_t)cJSON_GetArraySize(json);
    if (count > ORIGIN_MESSAGES_MAX)
        run_fail(run, ERR_RESOURCE, "a conversation of %zu messages", count);
    Value list = value_list(run, count);
    list.origin = origin_make(ORIGIN_OTHER, -1);
    int32_t index = 0;
    const Dict *shape = NULL;
    for (const cJSON *item = json->child; item != NULL; item = item->next, index++) {
        Origin origin = origin_make(ORIGIN_OTHER, index);
        bool is_object = (item->type & 0xFF) == cJSON_Object;
        run->memory_max += 1024;
        Value value = is_object ? import_object(run, item, origin, shape, index)
                                : value_import(run, item, origin);
        if (is_object) shape = value.as.dict;
        list_items(list)[index] = value;
    }
    return list;
}

/* bos_token and its like come from the model's own files: they may be control tokens. */
static bool is_token_name(const String *name)
{
    static const char suffix[] = "_token";
    size_t length = sizeof suffix - 1;
    return name->length > length &&
           memcmp(name->bytes + name->length - length, suffix, length) == 0;
}

static Value import_variable(Run *run, const String *name, const cJSON *json)
{
    if (string_is(name, "messages") && cJSON_IsArray(json)) return import_messages(run, json);
    bool is_token = is_token_name(name) && cJSON_IsString(json);
    return value_import(run, json,
                        is_token ? ORIGIN_PLAIN_TEMPLATE : origin_make(ORIGIN_OTHER, -1));
}

/* Only what the template mentions is imported. */
const Value *import_variables(Run *run, const cJSON *variables)
{
    const Template *tree = run->template;
    Value *context = run_alloc_raw(run, tree->num_names * sizeof *context);
    if (tree->num_names > 0) memcpy(context, tree->given, tree->num_names * sizeof *context);
    const cJSON *item = variables != NULL ? variables->child : NULL;
    for (; item != NULL; item = item->next) {
        const String *known = intern_find(&tree->interned, item->string, strlen(item->string));
        uint32_t place = known != NULL ? string_name(known)->variable : NAME_NO_VARIABLE;
        bool is_wanted = place != NAME_NO_VARIABLE && context[place].type != VALUE_SELF;
        if (is_wanted) context[place] = import_variable(run, known, item);
    }
    return context;
}
