#include "config/table.h"

#include <string.h>

#include "config/rows.h"

int config_num_keys(const ConfigTable *table)
{
    int count = 0;
    for (int i = 0; i < table->num_sections; i++)
        count += table->section[i]->num_keys;
    return count;
}

const ConfigKey *config_key(const ConfigTable *table, int index)
{
    const ConfigSection *const *section = table->section;
    for (; index >= (*section)->num_keys; section++)
        index -= (*section)->num_keys;
    return &(*section)->key[index];
}

static bool is_named(const ConfigKey *key, const char *path)
{
    if (strcmp(key->path, path) == 0) return true;
    if (key->alias == NULL) return false;
    const char *leaf = config_leaf(path), *own = config_leaf(key->path);
    return leaf - path == own - key->path && strncmp(path, key->path, (size_t)(leaf - path)) == 0 &&
           config_word_in(key->alias, leaf);
}

int config_find(const ConfigTable *table, const char *path)
{
    for (int i = 0; i < config_num_keys(table); i++)
        if (is_named(config_key(table, i), path)) return i;
    return -1;
}

static bool in_section(const ConfigKey *key, const char *section)
{
    size_t length = strlen(section);
    if (length == 0) return strchr(key->path, '.') == NULL;
    return strncmp(key->path, section, length) == 0 && key->path[length] == '.';
}

/* A key with this very name, or one that others call so: both first in the same section. */
static const ConfigKey *find_namesake(const ConfigTable *table, const char *section,
                                      const char *leaf)
{
    for (int pass = 0; pass < 4; pass++) {
        for (int i = 0; i < config_num_keys(table); i++) {
            const ConfigKey *key = config_key(table, i);
            if (pass < 2 && !in_section(key, section)) continue;
            if (config_word_in(pass % 2 == 0 ? config_leaf(key->path) : key->also, leaf))
                return key;
        }
    }
    return NULL;
}

/* By the whole of what was written, or by its last part, `leaf`, which is told in any section. */
static const ConfigForeign *find_foreign(const ConfigTable *table, const char *path,
                                         const char *leaf)
{
    for (int i = 0; table->foreign != NULL && i < *table->num_foreign; i++)
        if (config_word_in(table->foreign[i].names, path) ||
            config_word_in(table->foreign[i].names, leaf))
            return &table->foreign[i];
    return NULL;
}

/* A name that a key has, here or elsewhere. */
typedef struct NamedKey {
    const char *name;
    const ConfigKey *key;
} NamedKey;

static int list_names(const ConfigTable *table, const char *section, NamedKey *named, int room,
                      Arena *arena)
{
    int count = 0;
    for (int i = 0; i < config_num_keys(table); i++) {
        const ConfigKey *key = config_key(table, i);
        if (section != NULL && !in_section(key, section)) continue;
        if (count < room) named[count++] = (NamedKey){config_leaf(key->path), key};
        for (const char *word = key->also; word != NULL && *word != '\0' && count < room;) {
            size_t length = strcspn(word, " ");
            named[count++] = (NamedKey){arena_strndup(arena, word, length), key};
            word += length + strspn(word + length, " ");
        }
    }
    return count;
}

#define NAMES_MAX 512

/* The key with a name near to `leaf`, in the section or else in any. */
static const ConfigKey *find_nearest(const ConfigTable *table, const char *section,
                                     const char *leaf, Arena *arena)
{
    NamedKey *named = arena_alloc(arena, sizeof *named * NAMES_MAX);
    const char **names = arena_alloc(arena, sizeof *names * NAMES_MAX);
    for (int pass = 0; pass < 2; pass++) {
        int count = list_names(table, pass == 0 ? section : NULL, named, NAMES_MAX, arena);
        for (int i = 0; i < count; i++)
            names[i] = named[i].name;
        const char *nearest = str_nearest(leaf, names, (size_t)count);
        if (nearest == NULL || 2 * str_distance(leaf, nearest) > (int)strlen(leaf)) continue;
        for (int i = 0; i < count; i++)
            if (names[i] == nearest) return named[i].key;
    }
    return NULL;
}

/* The names that may stand in a section ("" : at the top), comma separated. */
static const char *valid_names(const ConfigTable *table, const char *section, Arena *arena)
{
    Str names = {0};
    for (int i = 0; section[0] == '\0' && i < table->num_sections; i++)
        if (table->section[i]->name[0] != '\0')
            str_printf(&names, "%s%s", names.length > 0 ? ", " : "", table->section[i]->name);
    for (int i = 0; i < config_num_keys(table); i++)
        if (in_section(config_key(table, i), section))
            str_printf(&names, "%s%s", names.length > 0 ? ", " : "",
                       config_leaf(config_key(table, i)->path));
    const char *list = arena_strndup(arena, str_text(&names), names.length);
    str_free(&names);
    return list;
}

static const char *nearest_section(const ConfigTable *table, const char *name, Arena *arena)
{
    const char **names = arena_alloc(arena, sizeof *names * (size_t)table->num_sections);
    for (int i = 0; i < table->num_sections; i++)
        names[i] = table->section[i]->name[0] != '\0' ? table->section[i]->name : NULL;
    return str_nearest(name, names, (size_t)table->num_sections);
}

static bool section_exists(const ConfigTable *table, const char *name)
{
    for (int i = 0; i < table->num_sections; i++)
        if (name[0] != '\0' && strcmp(table->section[i]->name, name) == 0) return true;
    return false;
}

/* `path` is what was written; a name near its last part, `leaf`, is looked for in `section` first.
 */
static Status refuse_unknown(const ConfigSource *source, const char *place, const char *path,
                             const char *section, Error *err)
{
    const ConfigTable *table = source->table;
    Arena *arena = source->arena;
    const char *leaf = config_leaf(path);
    bool top = strcmp(leaf, path) == 0;
    const char *near_section = top ? nearest_section(table, leaf, arena) : NULL;
    const ConfigKey *key = find_namesake(table, section, leaf);
    const ConfigForeign *foreign = find_foreign(table, path, leaf);
    if (key != NULL && in_section(key, section)) foreign = NULL;
    if (key == NULL && near_section == NULL) key = find_nearest(table, section, leaf, arena);
    Str hint = {0};
    if (foreign != NULL)
        str_printf(&hint, "%s.", foreign->advice);
    else if (key != NULL)
        str_printf(&hint, "Did you mean %s (%s)?\n%s: %s.", config_key_path(source, key),
                   config_expected(key, arena), config_key_path(source, key), key->meaning);
    else if (near_section != NULL)
        str_printf(&hint, "Did you mean the section %s?", near_section);
    else
        str_printf(&hint, "Valid here: %s.", valid_names(table, section, arena));
    Status status =
        error_set(err, ERR_INVALID, "%s: %s%s%s is not a key of a job file.\n%s", place,
                  source->prefix != NULL ? source->prefix : "", source->prefix != NULL ? "." : "",
                  config_cut(path, arena), str_text(&hint));
    str_free(&hint);
    return status;
}

/* ---- reading a document --------------------------------------------------------------------- */

static Status apply_key(const ConfigSource *source, int index, const YamlNode *name,
                        const YamlNode *value, Error *err)
{
    const ConfigKey *key = config_key(source->table, index);
    ConfigOrigin *origin = &source->origin[index];
    if (source->layer != NULL && key->fixed)
        return error_set(err, ERR_INVALID,
                         "%s: %s cannot be another one in a stage: it is the same for the whole "
                         "run.\nMove it out of %s, to the sections of the file itself.",
                         config_place(source, name), key->path, source->layer);
    bool replaces = source->layer != NULL && !origin->layered;
    if (source->override == NULL && origin->kind == FROM_FILE && !replaces)
        return error_set(err, ERR_INVALID,
                         "%s: %s is set twice; the first is in line %d.\nKeep one.",
                         config_place(source, name), config_key_path(source, key), origin->line);
    bool may_be_empty = !key->required && key->preset == NULL;
    if (yaml_is_null(value) && may_be_empty) {
        config_value_release(key, source->values);
        *origin = (ConfigOrigin){.kind = FROM_NOWHERE};
        return OK;
    }
    TRY(config_value_read(source, key, value, err));
    origin->kind = source->override != NULL ? FROM_OVERRIDE : FROM_FILE;
    origin->line = name->line;
    origin->override = source->override;
    origin->layered = source->layer != NULL;
    return OK;
}

static Status apply_section(const ConfigSource *source, const YamlNode *name, const YamlNode *body,
                            Error *err)
{
    Arena *arena = source->arena;
    if (yaml_is_null(body)) return OK;
    if (body->kind != YAML_MAPPING)
        return error_set(err, ERR_INVALID,
                         "%s: %s is %s, expected a section: `key: value` lines, indented by two "
                         "spaces.\nKeys of %s: %s.",
                         config_place(source, body), name->text, config_found(body, arena),
                         name->text, valid_names(source->table, name->text, arena));
    for (int i = 0; i < body->count; i++) {
        const char *path = arena_printf(arena, "%s.%s", name->text, body->key[i]->text);
        int index = config_find(source->table, path);
        if (index < 0)
            return refuse_unknown(source, config_place(source, body->key[i]), path, name->text,
                                  err);
        TRY(apply_key(source, index, body->key[i], body->item[i], err));
    }
    return OK;
}

Status config_apply(const ConfigSource *source, const YamlNode *root, Error *err)
{
    if (yaml_is_null(root)) return OK;
    if (root->kind != YAML_MAPPING)
        return error_set(
            err, ERR_INVALID,
            "%s: found %s, expected sections of `key: value` lines.\nSections and keys: "
            "%s.",
            config_place(source, root), config_found(root, source->arena),
            valid_names(source->table, "", source->arena));
    for (int i = 0; i < root->count; i++) {
        const YamlNode *name = root->key[i];
        int index = strchr(name->text, '.') == NULL ? config_find(source->table, name->text) : -1;
        if (index >= 0) {
            TRY(apply_key(source, index, name, root->item[i], err));
            continue;
        }
        if (!section_exists(source->table, name->text))
            return refuse_unknown(source, config_place(source, name), name->text, "", err);
        for (int j = 0; j < i; j++)
            if (strcmp(root->key[j]->text, name->text) == 0)
                return error_set(err, ERR_INVALID,
                                 "%s: the section %s stands twice; the first is in line %d.\n"
                                 "Put their keys into one.",
                                 config_place(source, name), name->text, root->key[j]->line);
        TRY(apply_section(source, name, root->item[i], err));
    }
    return OK;
}

Status config_unknown(const ConfigTable *table, const char *where, const char *path, Arena *arena,
                      Error *err)
{
    ConfigSource source = {.table = table, .arena = arena};
    if (section_exists(table, path))
        return error_set(err, ERR_INVALID,
                         "%s: %s is a section, expected one of its keys.\n"
                         "Keys of %s: %s.",
                         where, path, path, valid_names(table, path, arena));
    const char *dot = strchr(path, '.'), *section = "";
    if (dot != NULL) {
        section = arena_strndup(arena, path, (size_t)(dot - path));
        const char *nearest = nearest_section(table, section, arena);
        if (!section_exists(table, section)) section = nearest != NULL ? nearest : "";
    }
    return refuse_unknown(&source, where, path, section, err);
}

int config_find_rows(const ConfigTable *table, const char *path)
{
    for (int i = 0; i < config_num_keys(table); i++) {
        const ConfigKey *key = config_key(table, i);
        size_t length = strlen(key->path);
        if (key->type == KEY_ROWS && strncmp(key->path, path, length) == 0 && path[length] == '.')
            return i;
    }
    return -1;
}

/* One key of one row: "eval.sets.gsm8k.temperature". */
static Status apply_to_row(const ConfigSource *source, int index, const char *path,
                           const YamlNode *value, Error *err)
{
    const ConfigKey *key = config_key(source->table, index);
    RowList *rows = (RowList *)((char *)source->values + key->offset);
    TRY(rows_apply(source, key, rows, path + strlen(key->path) + 1, value, err));
    source->origin[index] = (ConfigOrigin){.kind = FROM_OVERRIDE, .override = source->override};
    return OK;
}

Status config_apply_value(const ConfigSource *source, const char *path, const YamlNode *value,
                          Error *err)
{
    int index = config_find(source->table, path);
    YamlNode name = {.kind = YAML_SCALAR, .text = path, .line = 1, .column = 1};
    if (index >= 0) return apply_key(source, index, &name, value, err);
    index = config_find_rows(source->table, path);
    if (index >= 0) return apply_to_row(source, index, path, value, err);
    if (source->prefix != NULL) return refuse_unknown(source, source->where, path, "", err);
    return config_unknown(source->table, source->where, path, source->arena, err);
}

void config_apply_presets(const ConfigSource *source)
{
    Error err = {0};
    for (int i = 0; i < config_num_keys(source->table); i++) {
        const ConfigKey *key = config_key(source->table, i);
        if (source->origin[i].kind != FROM_NOWHERE || key->preset == NULL) continue;
        YamlNode node = {.kind = YAML_SCALAR, .text = key->preset};
        CHECKF(config_value_read(source, key, &node, &err) == OK, "%s", err.message);
        source->origin[i].kind = FROM_DEFAULT;
    }
}

void config_release(const ConfigTable *table, void *values)
{
    for (int i = 0; i < config_num_keys(table); i++)
        config_value_release(config_key(table, i), values);
}
