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
    const uint64_t highs = 0x8080808080808080u;
    uint64_t word, all = 0;
    if (length < 8) {
        for (size_t i = 0; i < length; i++)
            all |= (uint64_t)(unsigned char)bytes[i];
        return (all & highs) == 0;
    }
    for (size_t at = 0; at + 8 <= length; at += 8) {
        memcpy(&word, bytes + at, 8);
        all |= word;
    }
    memcpy(&word, bytes + length - 8, 8);
    return ((all | word) & highs) == 0;
}

static uint32_t count_chars(Run *run, const char *bytes, size_t length)
{
    if (is_ascii(bytes, length)) return (uint32_t)length;
    if (utf8_valid_prefix(bytes, length) < length)
        run_raise(run, "a string in the variables is not valid UTF-8");
    uint32_t chars = 0;
    for (size_t i = 0; i < length; i++)
        chars += ((unsigned char)bytes[i] & 0xC0) != 0x80;
    return chars;
}

/* `ret` has to live as long as the run. */
static Value import_string(Run *run, const char *bytes, size_t length, Origin origin, String *ret)
{
    run->memory_max += 16 * length;
    if (length > TEMPLATE_OUTPUT_BYTES_MAX)
        run_fail(run, ERR_RESOURCE, "a string of %zu MiB in the variables", length >> 20);
    *ret = (String){.bytes = bytes, .length = (uint32_t)length};
    ret->chars = count_chars(run, bytes, length);
    return value_of_string(ret, origin);
}

static Value import_text(Run *run, const char *bytes, Origin origin)
{
    String *string = run_alloc_raw(run, sizeof *string);
    return import_string(run, bytes, strlen(bytes), origin, string);
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

static Value import(Run *run, const cJSON *json, Origin origin);

static size_t count_children(const cJSON *json)
{
    size_t count = 0;
    for (const cJSON *item = json->child; item != NULL; item = item->next)
        count++;
    return count;
}

static Value import_list(Run *run, const cJSON *json, Origin origin)
{
    Value list = value_list(run, count_children(json));
    list.origin = origin;
    size_t count = 0;
    for (const cJSON *item = json->child; item != NULL; item = item->next)
        list_items(list)[count++] = import(run, item, origin);
    return list;
}

/* The origin of a member of a message. */
static Origin member_origin(const char *key, Origin inherited)
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
        if (*key == *kinds[i].key && strcmp(key, kinds[i].key) == 0)
            return origin_make(kinds[i].kind, origin_message(inherited));
    return inherited;
}

/* A set of strings that has false members, but lacks none: most keys are seen to be new at once. */
static uint64_t set_bit(const char *key, size_t length)
{
    return (uint64_t)1 << ((length * 7 + (unsigned char)key[0] * 3 +
                            (length > 0 ? (unsigned char)key[length - 1] : 0)) &
                           63);
}

/* A key that the template spells is the template's own String. Of two members with one name the
 * last counts. `message`: it is messages[message], or -1. */
static Value import_object(Run *run, const cJSON *json, Origin origin, int32_t message)
{
    size_t count = count_children(json);
    Dict *dict = dict_create(run, count);
    String *string = run_alloc_raw(run, 2 * count * sizeof *string);
    uint64_t seen = 0;
    dict->message = message;
    dict->interned = true;
    run_step(run, count);
    for (const cJSON *item = json->child; item != NULL; item = item->next) {
        size_t length = strlen(item->string);
        const String *known = intern_find(&run->template->interned, item->string, length);
        Value key = known != NULL ? value_of_string(known, origin)
                                  : import_string(run, item->string, length, origin, string++);
        Origin inner = message >= 0 ? member_origin(item->string, origin) : origin;
        Value value =
            (item->type & 0xFF) == cJSON_String
                ? import_string(run, item->valuestring, strlen(item->valuestring), inner, string++)
                : import(run, item, inner);
        uint64_t bit = set_bit(item->string, length);
        if ((seen & bit) == 0) {
            dict_append(run, dict, key, value);
        } else {
            dict_put(run, dict, key, value);
        }
        seen |= bit;
    }
    run->memory_max += 512 * count;
    return value_of_dict(dict, origin);
}

static Value import(Run *run, const cJSON *json, Origin origin)
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
        value = import_object(run, json, origin, -1);
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
    for (const cJSON *item = json->child; item != NULL; item = item->next, index++) {
        Origin origin = origin_make(ORIGIN_OTHER, index);
        run->memory_max += 1024;
        list_items(list)[index] = cJSON_IsObject(item) ? import_object(run, item, origin, index)
                                                       : import(run, item, origin);
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
    return import(run, json, is_token ? ORIGIN_PLAIN_TEMPLATE : origin_make(ORIGIN_OTHER, -1));
}

static const cJSON *find_variable(const cJSON *variables, const String *name)
{
    const cJSON *item = variables != NULL ? variables->child : NULL;
    for (; item != NULL; item = item->next)
        if (*item->string == *name->bytes &&
            strncmp(item->string, name->bytes, name->length) == 0 &&
            item->string[name->length] == '\0')
            return item;
    return NULL;
}

/* Only what the template mentions is imported. */
const Value *import_variables(Run *run, const cJSON *variables)
{
    const Template *tree = run->template;
    Value *context = run_alloc(run, tree->num_names * sizeof *context);
    for (size_t i = 0; i < tree->num_names; i++) {
        const cJSON *json = find_variable(variables, tree->name[i]);
        if (string_is(tree->name[i], "self")) {
            context[i] = (Value){.type = VALUE_SELF, .origin = ORIGIN_PLAIN_TEMPLATE};
        } else if (json != NULL) {
            context[i] = import_variable(run, tree->name[i], json);
        } else if (tree->global[i] != NULL) {
            context[i] = (Value){.type = VALUE_FUNCTION,
                                 .origin = ORIGIN_PLAIN_TEMPLATE,
                                 .as.function = tree->global[i]};
        }
    }
    return context;
}
