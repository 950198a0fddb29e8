#include "config/stage_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"

static char *list_path(const char *run_dir)
{
    return path_join(run_dir, "stages.jsonl");
}

static char *config_path(const char *run_dir, int number)
{
    return mem_printf("%s/stages/stage_%d.yaml", run_dir, number);
}

void stage_list_free(StageList *list)
{
    for (int i = 0; i < list->count; i++)
        free(list->entry[i].name);
    free(list->entry);
    *list = (StageList){0};
}

/* ---- reading ---- */

static Status read_entry(const cJSON *json, const char *where, StageEntry *ret, Error *err)
{
    const char *name = NULL;
    int64_t number = 0, steps = 0, generating = 0;
    TRY(json_int(json, "stage", where, 1, INT32_MAX, &number, err));
    TRY(json_string_or(json, "name", where, &name, err));
    TRY(json_int(json, "steps_before", where, 0, INT64_C(1) << 53, &steps, err));
    TRY(json_int(json, "generating_before", where, 0, INT32_MAX, &generating, err));
    *ret = (StageEntry){(int)number, mem_strdup(name), steps, (int)generating};
    return OK;
}

static Status add_line(StageList *list, const char *line, size_t length, const char *where,
                       Error *err)
{
    cJSON *json = NULL;
    StageEntry entry = {0};
    TRY(json_parse(line, length, where, &json, err));
    Status status = read_entry(json, where, &entry, err);
    cJSON_Delete(json);
    if (status != OK) {
        if (err != NULL) err->status = ERR_DATA;
        return ERR_DATA;
    }
    int last = list->count > 0 ? list->entry[list->count - 1].number : 0;
    if (entry.number <= last) {
        free(entry.name);
        return error_set(err, ERR_DATA, "%s: stage %d stands behind stage %d", where, entry.number,
                         last);
    }
    list->entry = mem_realloc(list->entry, (size_t)list->count + 1, sizeof *list->entry);
    list->entry[list->count++] = entry;
    return OK;
}

Status stage_list_read(const char *run_dir, StageList *ret, Error *err)
{
    StageList list = {0};
    char *path = list_path(run_dir), *text = NULL;
    size_t length = 0;
    Status status = path_exists(path) ? file_read(path, CONFIG_BYTES_MAX, &text, &length, err) : OK;
    const char *line = text;
    for (int number = 1; status == OK && line != NULL && *line != '\0'; number++) {
        size_t bytes = strcspn(line, "\n");
        char *where = mem_printf("%s:%d", path, number);
        status = add_line(&list, line, bytes, where, err);
        free(where);
        line += bytes + (line[bytes] == '\n');
    }
    if (status == OK)
        *ret = list;
    else
        stage_list_free(&list);
    free(text);
    free(path);
    return status;
}

int stage_list_find(const StageList *list, const char *name)
{
    char *end = NULL;
    long number = strtol(name, &end, 10);
    for (int i = list->count - 1; i >= 0; i--)
        if (list->entry[i].name != NULL && strcmp(list->entry[i].name, name) == 0) return i;
    for (int i = 0; end != name && *end == '\0' && i < list->count; i++)
        if (list->entry[i].number == number) return i;
    return -1;
}

Status stage_list_config(const char *run_dir, int number, JobConfig **ret, Error *err)
{
    char *path = config_path(run_dir, number), *text = NULL;
    size_t length = 0;
    Status status = file_read(path, CONFIG_BYTES_MAX, &text, &length, err);
    if (status == OK) status = job_config_parse(text, path, run_dir, ret, err);
    free(text);
    free(path);
    return status;
}

/* ---- writing ---- */

static void put_entry(const StageEntry *entry, Str *out)
{
    str_printf(out, "{\"stage\": %d, \"name\": ", entry->number);
    if (entry->name != NULL)
        json_append_string(out, entry->name);
    else
        str_puts(out, "null");
    str_printf(out, ", \"steps_before\": %lld, \"generating_before\": %d}\n",
               (long long)entry->steps_before, entry->generating_before);
}

static Status write_config(const char *run_dir, int number, const char *text, Error *err)
{
    char *folder = path_join(run_dir, "stages"), *path = config_path(run_dir, number);
    Status status = folder_create(folder, err);
    if (status == OK) status = file_write_atomic(path, text, strlen(text), err);
    free(path);
    free(folder);
    return status;
}

/* The list is short: it is written anew, whole, and never names a file that is not there. */
Status stage_list_enter(const char *run_dir, const StageEntry *entry, const char *text, Error *err)
{
    StageList list = {0};
    Str lines = {0};
    TRY(write_config(run_dir, entry->number, text, err));
    TRY(stage_list_read(run_dir, &list, err));
    for (int i = 0; i < list.count && list.entry[i].number < entry->number; i++)
        put_entry(&list.entry[i], &lines);
    put_entry(entry, &lines);
    char *path = list_path(run_dir);
    Status status = file_write_atomic(path, str_text(&lines), lines.length, err);
    free(path);
    str_free(&lines);
    stage_list_free(&list);
    return status;
}
