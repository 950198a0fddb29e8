#include "data_source/file_list.h"

#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"

#define LIST_BYTES_MAX (64u << 20) /* more than DATASET_FILES_MAX files with long names take */
#define SHOWN_MAX      3           /* differences with a line each */
#define NAME_DIGITS    16          /* of the fingerprint, in the name of the list */

static char *list_path(const char *folder, const char *fingerprint)
{
    char *name = mem_printf("stream_%.*s.json", NAME_DIGITS, fingerprint);
    char *path = path_join(folder, name);
    free(name);
    return path;
}

/* As text, because a double has not enough digits. */
static char *hash_text(const DatasetFileInfo *file)
{
    return mem_printf("%016llx", (unsigned long long)file->content_hash);
}

void file_list_keep(const char *folder, const char *fingerprint, const Dataset *dataset)
{
    char *path = list_path(folder, fingerprint);
    if (!path_exists(path)) {
        cJSON *list = cJSON_CreateArray();
        for (int i = 0; i < dataset_num_files(dataset); i++) {
            DatasetFileInfo file = dataset_file(dataset, i);
            char *hash = hash_text(&file);
            cJSON *item = cJSON_CreateObject();
            cJSON_AddStringToObject(item, "path", file.path);
            cJSON_AddNumberToObject(item, "bytes", (double)file.bytes);
            cJSON_AddNumberToObject(item, "records", (double)file.records);
            cJSON_AddStringToObject(item, "hash", hash);
            cJSON_AddItemToArray(list, item);
            free(hash);
        }
        char *text = cJSON_PrintUnformatted(list);
        file_write_atomic(path, text, strlen(text), NULL);
        cJSON_free(text);
        cJSON_Delete(list);
    }
    free(path);
}

static const char *text_of(const cJSON *item, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(item, key);
    return cJSON_IsString(value) ? value->valuestring : "";
}

static double number_of(const cJSON *item, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(item, key);
    return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

/* One difference in a line, or "". `item` or `file` is NULL where there is none at that place. */
static void describe(const cJSON *item, const DatasetFileInfo *file, Str *ret)
{
    if (item == NULL) {
        str_printf(ret, "%s was not among the files", file->path);
    } else if (file == NULL) {
        str_printf(ret, "%s is no longer among the files", text_of(item, "path"));
    } else {
        char *hash = hash_text(file);
        bool same = strcmp(hash, text_of(item, "hash")) == 0 &&
                    number_of(item, "bytes") == (double)file->bytes;
        free(hash);
        if (same) return;
        str_printf(ret, "%s: %llu records in %llu bytes, were %.0f in %.0f", file->path,
                   (unsigned long long)file->records, (unsigned long long)file->bytes,
                   number_of(item, "records"), number_of(item, "bytes"));
        if (strcmp(file->path, text_of(item, "path")) != 0)
            str_printf(ret, " (of %s)", text_of(item, "path"));
    }
}

static void add_changes(const cJSON *list, const Dataset *dataset, Str *ret)
{
    int num_files = dataset_num_files(dataset), changes = 0;
    const cJSON *item = list->child;
    for (int i = 0; i < num_files || item != NULL; i++) {
        DatasetFileInfo file = {0};
        if (i < num_files) file = dataset_file(dataset, i);
        Str line = {0};
        describe(item, i < num_files ? &file : NULL, &line);
        if (line.length > 0 && changes++ < SHOWN_MAX)
            str_printf(ret, "%s%s", ret->length > 0 ? "\n" : "", str_text(&line));
        str_free(&line);
        if (item != NULL) item = item->next;
    }
    if (changes > SHOWN_MAX) str_printf(ret, "\nand %d more", changes - SHOWN_MAX);
}

char *file_list_changes(const char *folder, const char *known, const Dataset *dataset)
{
    char *path = list_path(folder, known);
    cJSON *list = NULL;
    Str text = {0};
    Error unknown;
    if (json_read(path, LIST_BYTES_MAX, &list, &unknown) == OK && cJSON_IsArray(list))
        add_changes(list, dataset, &text);
    cJSON_Delete(list);
    free(path);
    return str_take(&text);
}
