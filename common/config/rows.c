#include "config/rows.h"

#include <stdlib.h>
#include <string.h>

RowHead *row_at(const ConfigKey *key, const RowList *rows, int index)
{
    CHECK(index >= 0 && index < rows->count);
    return (RowHead *)((char *)rows->row + (size_t)index * key->row_bytes);
}

bool row_gives(const ConfigKey *key, const RowHead *row, const char *name)
{
    int index = config_find(key->rows, name);
    CHECK(index >= 0);
    return row->given >> index & 1;
}

static void clear_row(const ConfigKey *key, RowHead *row)
{
    config_release(key->rows, row);
    free(row->name);
    free(row->path);
}

void rows_free(const ConfigKey *key, RowList *rows)
{
    for (int i = 0; i < rows->count; i++)
        clear_row(key, row_at(key, rows, i));
    free(rows->row);
    *rows = (RowList){0};
}

/* ---- reading ---- */

static bool is_name(const char *text)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t length = strlen(text);
    return length > 0 && length <= ROW_NAME_MAX && text[0] != '.' && text[0] != '-' &&
           strspn(text, letters) == length;
}

static ConfigSource source_of_row(const ConfigSource *source, const ConfigKey *key, RowHead *row)
{
    ConfigSource inner = *source;
    inner.table = key->rows;
    inner.prefix = arena_printf(source->arena, "%s", row->path);
    inner.values = row;
    inner.origin =
        arena_alloc(source->arena, sizeof *inner.origin * (size_t)config_num_keys(key->rows));
    return inner;
}

static void note_given(const ConfigSource *inner, RowHead *row)
{
    int count = config_num_keys(inner->table);
    CHECK(count <= 64);
    for (int i = 0; i < count; i++)
        if (inner->origin[i].kind != FROM_NOWHERE) row->given |= (uint64_t)1 << i;
}

static Status check_required(const ConfigSource *inner, const YamlNode *name, const RowHead *row,
                             Error *err)
{
    for (int i = 0; i < config_num_keys(inner->table); i++) {
        const ConfigKey *key = config_key(inner->table, i);
        if (!key->required || row->given >> i & 1) continue;
        return error_set(err, ERR_INVALID, "%s: %s is missing: %s.\nAdd for example `%s: %s`.",
                         config_place(inner, name), config_key_path(inner, key), key->meaning,
                         key->path, key->example);
    }
    return OK;
}

static Status read_row(const ConfigSource *source, const ConfigKey *key, const YamlNode *name,
                       const YamlNode *body, RowHead *row, Error *err)
{
    if (!is_name(name->text))
        return error_set(err, ERR_INVALID,
                         "%s: %s holds the name \"%s\", expected at most %d letters, digits, `.`, "
                         "`_` and `-`, beginning with a letter, a digit or `_`.",
                         config_place(source, name), key->path,
                         config_cut(name->text, source->arena), ROW_NAME_MAX);
    if (body->kind == YAML_SCALAR && !yaml_is_null(body)) {
        const ConfigKey *first = config_key(key->rows, 0);
        const char *value = config_cut(body->text, source->arena);
        return error_set(err, ERR_INVALID,
                         "%s: %s.%s is \"%s\", expected its keys in braces or in lines below "
                         "it.\nWrite %s: {%s: %s}.",
                         config_place(source, body), key->path, name->text, value, name->text,
                         first->path, value);
    }
    row->name = mem_strdup(name->text);
    row->path = mem_printf("%s.%s", key->path, name->text);
    ConfigSource inner = source_of_row(source, key, row);
    TRY(config_apply(&inner, body, err));
    note_given(&inner, row);
    return check_required(&inner, name, row, err);
}

static Status check_names(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                          Error *err)
{
    if (node->count > ROWS_MAX)
        return error_set(err, ERR_INVALID, "%s: %s has %d names, at most %d are possible.",
                         config_place(source, node), key->path, node->count, ROWS_MAX);
    for (int i = 0; i < node->count; i++)
        for (int j = 0; j < i; j++)
            if (strcmp(node->key[i]->text, node->key[j]->text) == 0)
                return error_set(err, ERR_INVALID,
                                 "%s: %s.%s is set twice; the first is in line %d.\nKeep one.",
                                 config_place(source, node->key[i]), key->path,
                                 config_cut(node->key[i]->text, source->arena), node->key[j]->line);
    return OK;
}

Status rows_read(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                 RowList *ret, Error *err)
{
    if (node->kind != YAML_MAPPING) return config_value_refuse(source, key, node, NULL, err);
    TRY(check_names(source, key, node, err));
    RowList rows = {.row = mem_calloc((size_t)node->count, key->row_bytes), .count = node->count};
    Status status = OK;
    for (int i = 0; status == OK && i < rows.count; i++)
        status = read_row(source, key, node->key[i], node->item[i], row_at(key, &rows, i), err);
    if (status == OK)
        *ret = rows;
    else
        rows_free(key, &rows);
    return status;
}

Status rows_apply(const ConfigSource *source, const ConfigKey *key, RowList *rows, const char *path,
                  const YamlNode *value, Error *err)
{
    Str names = {0};
    for (int i = 0; i < rows->count; i++) {
        RowHead *row = row_at(key, rows, i);
        size_t length = strlen(row->name);
        str_printf(&names, "%s%s", i > 0 ? ", " : "", row->name);
        if (strncmp(path, row->name, length) != 0 || path[length] != '.') continue;
        str_free(&names);
        ConfigSource inner = source_of_row(source, key, row);
        TRY(config_apply_value(&inner, path + length + 1, value, err));
        note_given(&inner, row);
        int index = config_find(key->rows, path + length + 1);
        if (yaml_is_null(value)) row->given &= ~((uint64_t)1 << index); /* said to be unsaid */
        return OK;
    }
    error_set(err, ERR_INVALID, "%s: %s.%s is no key of a name in %s.\n%s%s.", source->where,
              key->path, config_cut(path, source->arena), key->path,
              rows->count > 0 ? "Names there: " : "No name is there; write it into the job file",
              str_text(&names));
    str_free(&names);
    return ERR_INVALID;
}

/* ---- writing ---- */

void rows_text(const ConfigKey *key, const RowList *rows, Str *text)
{
    if (rows->count == 0) {
        str_puts(text, "null");
        return;
    }
    str_putc(text, '{');
    for (int i = 0; i < rows->count; i++) {
        const RowHead *row = row_at(key, rows, i);
        str_printf(text, "%s\"%s\": {", i > 0 ? ", " : "", row->name);
        bool first = true;
        for (int k = 0; k < config_num_keys(key->rows); k++) {
            const ConfigKey *inner = config_key(key->rows, k);
            if (!(row->given >> k & 1)) continue;
            str_printf(text, "%s%s: ", first ? "" : ", ", inner->path);
            config_value_text(inner, row, text);
            first = false;
        }
        str_putc(text, '}');
    }
    str_putc(text, '}');
}
