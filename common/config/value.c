#include "config/table.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/data_path.h"
#include "base/hub_name.h"
#include "base/json.h"
#include "config/rows.h"

/* "job.yaml:7:5", or the override's own text. */
const char *config_place(const ConfigSource *source, const YamlNode *node)
{
    if (source->override != NULL) return source->where;
    return arena_printf(source->arena, "%s:%d:%d", source->where, node->line, node->column);
}

const char *config_key_path(const ConfigSource *source, const ConfigKey *key)
{
    if (source->prefix == NULL) return key->path;
    return arena_printf(source->arena, "%s.%s", source->prefix, key->path);
}

const char *config_leaf(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot != NULL ? dot + 1 : path;
}

bool config_word_in(const char *words, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = words; at != NULL && *at != '\0';) {
        size_t word = strcspn(at, " "), i = 0;
        while (i < word && i < length &&
               at[i] == (name[i] == '-'                     ? '_'
                         : name[i] >= 'A' && name[i] <= 'Z' ? name[i] | 32
                                                            : name[i]))
            i++;
        if (i == word && i == length) return true;
        at += word;
        while (*at == ' ')
            at++;
    }
    return false;
}

/* The shortest decimal that reads back to the same double; `shortest` holds 32 bytes. */
static const char *number_text(double number, char *shortest)
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(shortest, 32, "%.*g", digits, number);
        if (strtod(shortest, NULL) == number) break;
    }
    /* Whole numbers in full. */
    if (number == floor(number) && fabs(number) < 1e17) snprintf(shortest, 32, "%.0f", number);
    return shortest;
}

static bool takes_text(const KeyName *name)
{
    return name->name[strlen(name->name) - 1] == ':';
}

const char *config_expected(const ConfigKey *key, Arena *arena)
{
    bool any = key->min == 0 && key->max == 0 && !key->above_min;
    const char *noun = key->type == KEY_INT ? "a whole number" : "a number";
    char min[32], max[32];
    number_text(key->min, min);
    number_text(key->max, max);
    Str names = {0};
    switch (key->type) {
    case KEY_INT:
    case KEY_NUMBER:
        if (any) return noun;
        return arena_printf(arena, "%s %s %s %s %s", noun, key->above_min ? "above" : "from", min,
                            key->above_min ? "and at most" : "to", max);
    case KEY_INTS:
        return arena_printf(arena, "a whole number from %s to %s, or a list of these", min, max);
    case KEY_BOOL:
        return "true or false";
    case KEY_ENUM:
        for (const KeyName *name = key->names; name->name != NULL; name++)
            str_printf(&names, "%s%s%s", name == key->names ? "" : ", ", name->name,
                       takes_text(name) ? "..." : "");
        const char *list = arena_printf(arena, "%s%s", key->names[1].name != NULL ? "one of " : "",
                                        str_text(&names));
        str_free(&names);
        return list;
    case KEY_STRING:
        return "a text";
    case KEY_STRINGS:
        return "a text or a list of texts";
    case KEY_PATH:
        return key->word != NULL ? arena_printf(arena, "a path, or %s", key->word) : "a path";
    case KEY_PATHS:
        return "a path or glob, or a list of them";
    case KEY_OBJECT:
        return "names with values, as in {enable_thinking: false}";
    case KEY_JSON:
        return "a name, or names with values, or a list of these";
    case KEY_ROWS:
        return "names, each with keys of its own";
    }
    CHECK(false);
    return NULL;
}

const char *config_cut(const char *text, Arena *arena)
{
    size_t length = strlen(text), shown = length < CONFIG_FOUND_MAX ? length : CONFIG_FOUND_MAX;
    while (shown < length && shown > 0 && ((unsigned char)text[shown] & 0xc0) == 0x80)
        shown--; /* never half a character */
    char *cut = arena_printf(arena, "%.*s%s", (int)shown, text, shown < length ? "..." : "");
    for (char *at = cut; *at != '\0'; at++)
        if ((unsigned char)*at < ' ') *at = ' ';
    return cut;
}

const char *config_found(const YamlNode *node, Arena *arena)
{
    if (node->kind == YAML_MAPPING) return "a section (`key: value` lines)";
    if (node->kind == YAML_SEQUENCE && node->count == 0) return "an empty list";
    if (node->kind == YAML_SEQUENCE) return arena_printf(arena, "a list of %d", node->count);
    if (yaml_is_null(node)) return "empty";
    bool number = node->text[strspn(node->text, "+-.0123456789eE")] == '\0';
    const char *quote = node->quoted || !number ? "\"" : "";
    return arena_printf(arena, "%s%s%s", quote, config_cut(node->text, arena), quote);
}

Status config_value_refuse(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                           const char *hint, Error *err)
{
    Arena *arena = source->arena;
    const char *path = config_key_path(source, key);
    const char *example = key->example != NULL ? key->example : key->preset;
    if (hint == NULL && example != NULL)
        hint = arena_printf(arena, "Write for example `%s: %s`.", config_leaf(key->path), example);
    return error_set(err, ERR_INVALID, "%s: %s is %s, expected %s.\n%s%s%s: %s.",
                     config_place(source, node), path, config_found(node, arena),
                     config_expected(key, arena), hint != NULL ? hint : "",
                     hint != NULL ? "\n" : "", path, key->meaning);
}

static bool in_range(const ConfigKey *key, double number)
{
    if (key->min == 0 && key->max == 0 && !key->above_min) return true;
    return number >= key->min && number <= key->max && !(key->above_min && number == key->min);
}

/* A decimal number as YAML and people write it; no hexadecimal, no infinity. */
static bool read_number(const YamlNode *node, double *ret)
{
    if (node->kind != YAML_SCALAR || node->quoted || node->text[0] == '\0') return false;
    if (node->text[strspn(node->text, "+-.0123456789eE")] != '\0') return false;
    char *end = NULL;
    double number = strtod(node->text, &end);
    if (*end != '\0' || !isfinite(number)) return false;
    *ret = number;
    return true;
}

static bool is_quoted_number(const YamlNode *node)
{
    YamlNode bare = *node;
    double ignored;
    bare.quoted = false;
    return node->kind == YAML_SCALAR && node->quoted && read_number(&bare, &ignored);
}

/* For a number out of range; NULL where the limit itself is not allowed. */
static const char *nearest_hint(const ConfigKey *key, double number, Arena *arena)
{
    if (number > key->max)
        return arena_printf(arena, "The nearest valid value is %.15g.", key->max);
    if (key->above_min) return NULL;
    return arena_printf(arena, "The nearest valid value is %.15g.", key->min);
}

static Status read_int(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                       int64_t *ret, Error *err)
{
    double number = 0;
    if (!read_number(node, &number)) {
        const char *hint = is_quoted_number(node) ? "Write the number without quotes." : NULL;
        return config_value_refuse(source, key, node, hint, err);
    }
    char *end = NULL;
    errno = 0;
    long long whole = strtoll(node->text, &end, 10);
    if (*end != '\0' || errno != 0) {
        const char *hint = NULL;
        if (number == floor(number) && fabs(number) < 1e15 && in_range(key, number))
            hint = arena_printf(source->arena, "Write %.0f.", number);
        return config_value_refuse(source, key, node, hint, err);
    }
    if (!in_range(key, (double)whole))
        return config_value_refuse(source, key, node, nearest_hint(key, number, source->arena),
                                   err);
    *ret = whole;
    return OK;
}

static Status read_ints(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                        IntList *ret, Error *err)
{
    bool one = node->kind != YAML_SEQUENCE;
    IntList list = {.count = one ? 1 : node->count};
    if (list.count > 0) list.item = mem_calloc((size_t)list.count, sizeof *list.item);
    Status status = OK;
    for (int i = 0; i < list.count && status == OK; i++)
        status = read_int(source, key, one ? node : node->item[i], &list.item[i], err);
    if (status == OK)
        *ret = list;
    else
        free(list.item);
    return status;
}

static Status read_double(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                          double *ret, Error *err)
{
    double number = 0;
    if (!read_number(node, &number)) {
        const char *hint = is_quoted_number(node) ? "Write the number without quotes." : NULL;
        return config_value_refuse(source, key, node, hint, err);
    }
    if (!in_range(key, number))
        return config_value_refuse(source, key, node, nearest_hint(key, number, source->arena),
                                   err);
    *ret = number;
    return OK;
}

static Status read_bool(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                        bool *ret, Error *err)
{
    const char *text = node->kind == YAML_SCALAR ? node->text : "";
    bool yes = config_word_in("true yes on y 1", text),
         no = config_word_in("false no off n 0", text);
    bool exact = config_word_in("true false", text) && !node->quoted;
    if (!exact)
        return config_value_refuse(source, key, node,
                                   yes  ? "Write true."
                                   : no ? "Write false."
                                        : NULL,
                                   err);
    *ret = yes;
    return OK;
}

/* Whether `text` is the name, or begins with it where it takes a text. */
static bool is_named(const KeyName *name, const char *text)
{
    size_t length = strlen(name->name);
    if (!takes_text(name)) return strcmp(text, name->name) == 0;
    return strncmp(text, name->name, length) == 0 && text[length] != '\0';
}

static const char *enum_hint(const ConfigSource *source, const ConfigKey *key, const char *text)
{
    for (const ConfigForeign *other = key->foreign; other != NULL && other->names != NULL; other++)
        if (text[0] != '\0' && config_word_in(other->names, text))
            return arena_printf(source->arena, "%s.", other->advice);
    const char *names[16];
    size_t count = 0, written = strcspn(text, ":");
    const char *begin =
        arena_strndup(source->arena, text, written + (text[written] == ':' ? 1 : 0));
    for (const KeyName *name = key->names; name->name != NULL; name++) {
        CHECK(count < sizeof names / sizeof *names);
        names[count++] = name->name;
    }
    const char *nearest = str_nearest(begin, names, count);
    if (nearest == NULL) return NULL;
    return arena_printf(source->arena, "Did you mean %s%s?", nearest,
                        nearest[strlen(nearest) - 1] == ':' ? "..." : "");
}

/* "process:" with nothing right behind the colon, which YAML takes for a key with a value. The
 * name, or NULL when the value is something else. */
static const KeyName *name_without_text(const ConfigKey *key, const YamlNode *node)
{
    bool mapping = node->kind == YAML_MAPPING && node->count == 1;
    const char *text = mapping ? node->key[0]->text : node->kind == YAML_SCALAR ? node->text : "";
    size_t length = strlen(text);
    for (const KeyName *name = key->names; name->name != NULL; name++)
        if (takes_text(name) && strncmp(text, name->name, length) == 0 &&
            strcmp(name->name + length, mapping ? ":" : "") == 0)
            return name;
    return NULL;
}

static Status refuse_enum(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                          Error *err)
{
    const char *text = node->kind == YAML_SCALAR ? node->text : "";
    const KeyName *name = name_without_text(key, node);
    if (name == NULL)
        return config_value_refuse(source, key, node, enum_hint(source, key, text), err);
    YamlNode found = *node;
    found.kind = YAML_SCALAR;
    found.quoted = true;
    found.text = name->name;
    const char *hint = arena_printf(source->arena,
                                    "Write what it names right behind the colon, without a blank: "
                                    "%s: %s...",
                                    config_leaf(key->path), name->name);
    return config_value_refuse(source, key, &found, hint, err);
}

static Status read_enum(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                        Error *err)
{
    char *values = source->values;
    const char *text = node->kind == YAML_SCALAR ? node->text : "";
    for (const KeyName *name = key->names; name->name != NULL; name++) {
        if (!is_named(name, text)) continue;
        config_value_release(key, values);
        *(int *)(values + key->offset) = name->value;
        if (takes_text(name))
            *(char **)(values + key->text_offset) = mem_strdup(text + strlen(name->name));
        return OK;
    }
    return refuse_enum(source, key, node, err);
}

/* `${NAME}`, `$$` and a leading `~/` of a path. */
static Status expand_path(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                          Str *path, Error *err)
{
    const char *at = node->text;
    const char *home = getenv("HOME");
    if (strncmp(at, "~/", 2) == 0 && home != NULL) {
        str_puts(path, home);
        at++;
    }
    while (*at != '\0') {
        if (at[0] != '$' || (at[1] != '{' && at[1] != '$')) {
            str_putc(path, *at++);
            continue;
        }
        if (at[1] == '$') {
            str_putc(path, '$');
            at += 2;
            continue;
        }
        size_t length = strcspn(at + 2, "}");
        if (at[2 + length] != '}')
            return config_value_refuse(source, key, node,
                                       "The `${` has no `}` (`$$` stands for one `$`).", err);
        char *name = arena_strndup(source->arena, at + 2, length);
        const char *value = getenv(name);
        const char *shown = config_cut(name, source->arena);
        if (value == NULL || value[0] == '\0')
            return error_set(err, ERR_INVALID,
                             "%s: %s uses ${%s}, which is %s in the environment.\n"
                             "Set it (export %s=...) or write the path out.\n%s: %s.",
                             config_place(source, node), config_key_path(source, key), shown,
                             value == NULL ? "not set" : "empty", shown,
                             config_key_path(source, key), key->meaning);
        str_puts(path, value);
        at += length + 3;
    }
    return OK;
}

char *config_resolve_path(const char *base, const char *relative)
{
    char *folder = mem_strdup(base);
    while (relative[0] == '.' &&
           (relative[1] == '/' || relative[1] == '\0' ||
            (relative[1] == '.' && (relative[2] == '/' || relative[2] == '\0')))) {
        if (relative[1] == '.') {
            char *parent = path_folder(folder);
            free(folder);
            folder = parent;
            relative++;
        }
        relative++;
        relative += strspn(relative, "/");
    }
    char *path = relative[0] != '\0' ? path_join(folder, relative) : mem_strdup(folder);
    for (size_t length = strlen(path); length > 1 && path[length - 1] == '/';)
        path[--length] = '\0'; /* "model/" is "model" */
    free(folder);
    return path;
}

/* `folder` with a backslash before each character that a glob would take as its own. */
static char *escape_glob(const char *folder)
{
    Str escaped = {0};
    for (const char *at = folder; *at != '\0'; at++) {
        if (strchr("*?[\\", *at) != NULL) str_putc(&escaped, '\\');
        str_putc(&escaped, *at);
    }
    return str_take(&escaped);
}

/* NULL: it is a path, or the key takes nothing else. */
static char *read_hub_name(const ConfigKey *key, const char *text, const char *folder)
{
    if (key->type != KEY_PATHS && !key->hub_model) return NULL;
    bool address = key->type == KEY_PATHS && data_path_is_address(text);
    /* An address is refused when its file is looked for. */
    if (str_starts_with(text, HUB_SCHEME) || address) return mem_strdup(text);
    return key->hub_model ? hub_model_name_expand(text, folder) : hub_name_expand(text, folder);
}

static Status read_path(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                        char **ret, Error *err)
{
    Str expanded = {0};
    char *base = NULL;
    Status status = expand_path(source, key, node, &expanded, err);
    if (status != OK) goto done;
    if (expanded.length == 0 || expanded.length >= PATH_MAX) {
        status = config_value_refuse(source, key, node, NULL, err);
        goto done;
    }
    *ret = read_hub_name(key, expanded.data, source->base_dir);
    if (*ret != NULL) goto done;
    bool glob = key->type == KEY_PATHS && strpbrk(expanded.data, "*?[") != NULL;
    bool output = key->output && source->output_dir != NULL;
    const char *folder = output ? source->output_dir : source->base_dir;
    base = glob ? escape_glob(folder) : mem_strdup(folder);
    *ret = config_resolve_path(base, expanded.data);
done:
    str_free(&expanded);
    free(base);
    return status;
}

static Status read_text(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                        char **ret, Error *err)
{
    if (node->kind != YAML_SCALAR || yaml_is_null(node) || node->text[0] == '\0')
        return config_value_refuse(source, key, node, NULL, err);
    bool word = key->word != NULL && strcmp(node->text, key->word) == 0;
    if (!word && (key->type == KEY_PATH || key->type == KEY_PATHS))
        return read_path(source, key, node, ret, err);
    *ret = mem_strdup(node->text);
    return OK;
}

static Status read_list(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                        StringList *ret, Error *err)
{
    StringList list = {0};
    bool one = node->kind != YAML_SEQUENCE;
    if (!one && node->count == 0 && key->required)
        return config_value_refuse(source, key, node, NULL, err);
    for (int i = 0; i < (one ? 1 : node->count); i++) {
        char *text = NULL;
        Status status = read_text(source, key, one ? node : node->item[i], &text, err);
        if (status != OK) {
            string_list_free(&list);
            return status;
        }
        string_list_append(&list, text);
        free(text);
    }
    *ret = list;
    return OK;
}

/* ---- objects ---- */

static Status append_json(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                          Str *json, Error *err);

/* JSON has no "+1", "01", ".5" and "1.". */
static bool is_json_number(const char *text)
{
    static const char digits[] = "0123456789";
    const char *at = text + (*text == '-');
    size_t whole = strspn(at, digits);
    if (whole == 0 || (*at == '0' && whole > 1)) return false;
    at += whole;
    if (*at == '.') {
        size_t fraction = strspn(at + 1, digits);
        if (fraction == 0) return false;
        at += 1 + fraction;
    }
    if (*at == 'e' || *at == 'E') at += 1 + (at[1] == '+' || at[1] == '-');
    return at[strspn(at, digits)] == '\0';
}

/* A bare scalar is what YAML takes it for: null, true, a number; else a text. */
static Status append_scalar(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                            Str *json, Error *err)
{
    char number[32];
    double value = 0;
    if (yaml_is_null(node)) {
        str_puts(json, "null");
    } else if (!node->quoted && config_word_in("true false", node->text)) {
        str_puts(json, config_word_in("true", node->text) ? "true" : "false");
    } else if (!node->quoted && config_word_in("yes no on off y n", node->text)) {
        return config_value_refuse(source, key, node,
                                   "Write true or false, or put the word in \"quotes\".", err);
    } else if (read_number(node, &value)) {
        str_puts(json, is_json_number(node->text) ? node->text : number_text(value, number));
    } else {
        json_append_string(json, node->text);
    }
    return OK;
}

static Status append_mapping(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                             Str *json, Error *err)
{
    str_putc(json, '{');
    for (int i = 0; i < node->count; i++) {
        for (int j = 0; j < i; j++)
            if (strcmp(node->key[i]->text, node->key[j]->text) == 0)
                return error_set(err, ERR_INVALID, "%s: %s has \"%s\" twice.\nRemove one of them.",
                                 config_place(source, node->key[i]), config_key_path(source, key),
                                 config_cut(node->key[i]->text, source->arena));
        if (i > 0) str_puts(json, ", ");
        json_append_string(json, node->key[i]->text);
        str_puts(json, ": ");
        TRY(append_json(source, key, node->item[i], json, err));
    }
    str_putc(json, '}');
    return OK;
}

static Status append_json(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                          Str *json, Error *err)
{
    if (node->kind == YAML_SCALAR) return append_scalar(source, key, node, json, err);
    if (node->kind == YAML_MAPPING) return append_mapping(source, key, node, json, err);
    str_putc(json, '[');
    for (int i = 0; i < node->count; i++) {
        if (i > 0) str_puts(json, ", ");
        TRY(append_json(source, key, node->item[i], json, err));
    }
    str_putc(json, ']');
    return OK;
}

/* A text, a mapping or a list. */
static Status read_json(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                        char **ret, Error *err)
{
    Str json = {0};
    Status status = append_json(source, key, node, &json, err);
    if (status == OK) *ret = str_take(&json);
    str_free(&json);
    return status;
}

/* A mapping, or a text that is a JSON object. */
static Status read_object(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                          char **ret, Error *err)
{
    Str json = {0};
    Status status = OK;
    if (node->kind == YAML_MAPPING) {
        status = append_mapping(source, key, node, &json, err);
    } else {
        cJSON *object = NULL;
        if (node->kind == YAML_SCALAR)
            json_parse(node->text, strlen(node->text), key->path, &object, NULL);
        if (cJSON_IsObject(object))
            json_append(&json, object);
        else
            status = config_value_refuse(source, key, node, NULL, err);
        cJSON_Delete(object);
    }
    if (status == OK) *ret = str_take(&json);
    str_free(&json);
    return status;
}

void config_value_release(const ConfigKey *key, void *values)
{
    void *value = (char *)values + key->offset;
    if (key->type == KEY_STRING || key->type == KEY_PATH || key->type == KEY_OBJECT ||
        key->type == KEY_JSON) {
        free(*(char **)value);
        *(char **)value = NULL;
    } else if (key->type == KEY_STRINGS || key->type == KEY_PATHS) {
        string_list_free(value);
    } else if (key->type == KEY_INTS) {
        free(((IntList *)value)->item);
        *(IntList *)value = (IntList){0};
    } else if (key->type == KEY_ROWS) {
        rows_free(key, value);
    } else if (key->type == KEY_ENUM && key->text_offset != 0) {
        char **text = (char **)((char *)values + key->text_offset);
        free(*text);
        *text = NULL;
    }
}

Status config_value_read(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                         Error *err)
{
    void *value = (char *)source->values + key->offset;
    char *text = NULL;
    StringList list = {0};
    RowList rows = {0};
    IntList ints = {0};
    switch (key->type) {
    case KEY_INT:
        return read_int(source, key, node, value, err);
    case KEY_NUMBER:
        return read_double(source, key, node, value, err);
    case KEY_BOOL:
        return read_bool(source, key, node, value, err);
    case KEY_ENUM:
        return read_enum(source, key, node, err);
    case KEY_STRING:
    case KEY_PATH:
    case KEY_OBJECT:
    case KEY_JSON:
        TRY(key->type == KEY_OBJECT ? read_object(source, key, node, &text, err)
            : key->type == KEY_JSON ? read_json(source, key, node, &text, err)
                                    : read_text(source, key, node, &text, err));
        config_value_release(key, source->values);
        *(char **)value = text;
        return OK;
    case KEY_STRINGS:
    case KEY_PATHS:
        TRY(read_list(source, key, node, &list, err));
        config_value_release(key, source->values);
        *(StringList *)value = list;
        return OK;
    case KEY_INTS:
        TRY(read_ints(source, key, node, &ints, err));
        config_value_release(key, source->values);
        *(IntList *)value = ints;
        return OK;
    case KEY_ROWS:
        TRY(rows_read(source, key, node, &rows, err));
        config_value_release(key, source->values);
        *(RowList *)value = rows;
        return OK;
    }
    CHECK(false);
    return ERR_INTERNAL;
}

static void text_text(const ConfigKey *key, const char *value, Str *text)
{
    if (value == NULL) {
        str_puts(text, "null");
        return;
    }
    Arena *arena = arena_create();
    Str escaped = {0};
    bool path = key->type == KEY_PATH || key->type == KEY_PATHS;
    for (const char *at = value; *at != '\0'; at++) {
        if (*at == '$' && path) str_putc(&escaped, '$');
        str_putc(&escaped, *at);
    }
    str_puts(text, yaml_quote(str_text(&escaped), arena));
    str_free(&escaped);
    arena_destroy(arena);
}

static void enum_text(const ConfigKey *key, const void *values, Str *text)
{
    int value = *(const int *)((const char *)values + key->offset);
    for (const KeyName *name = key->names; name->name != NULL; name++) {
        if (name->value != value) continue;
        char *const *behind = (char *const *)((const char *)values + key->text_offset);
        char *whole = mem_printf("%s%s", name->name, takes_text(name) ? *behind : "");
        Arena *arena = arena_create();
        str_puts(text, yaml_quote(whole, arena));
        arena_destroy(arena);
        free(whole);
    }
}

void config_value_text(const ConfigKey *key, const void *values, Str *text)
{
    const void *value = (const char *)values + key->offset;
    const StringList *list = value;
    const IntList *ints = value;
    char number[32];
    switch (key->type) {
    case KEY_INT:
        str_printf(text, "%lld", (long long)*(const int64_t *)value);
        break;
    case KEY_NUMBER:
        str_puts(text, number_text(*(const double *)value, number));
        break;
    case KEY_BOOL:
        str_puts(text, *(const bool *)value ? "true" : "false");
        break;
    case KEY_ENUM:
        enum_text(key, values, text);
        break;
    case KEY_STRING:
    case KEY_PATH:
        text_text(key, *(char *const *)value, text);
        break;
    case KEY_INTS:
        str_putc(text, '[');
        for (int i = 0; i < ints->count; i++)
            str_printf(text, "%s%lld", i > 0 ? ", " : "", (long long)ints->item[i]);
        str_putc(text, ']');
        break;
    case KEY_STRINGS:
    case KEY_PATHS:
        str_putc(text, '[');
        for (int i = 0; i < list->count; i++) {
            if (i > 0) str_puts(text, ", ");
            text_text(key, list->item[i], text);
        }
        str_putc(text, ']');
        break;
    case KEY_JSON:
    case KEY_OBJECT: /* JSON is YAML, but for this character */
        if (*(char *const *)value == NULL || strchr(*(char *const *)value, 127) != NULL)
            text_text(key, *(char *const *)value, text);
        else
            str_puts(text, *(char *const *)value);
        break;
    case KEY_ROWS:
        rows_text(key, value, text);
        break;
    }
}
