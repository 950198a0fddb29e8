#include "data_source/file_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/plural.h"

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

static void add_files(cJSON *list, const Dataset *dataset)
{
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
}

/* In `owner` what stands for all of it, and in its list the paths. */
static void add_reader(cJSON *owner, cJSON *list, const UserReader *reader)
{
    char digest[DIGEST_HEX_BYTES];
    const char *path;
    user_reader_fingerprint(reader, digest);
    cJSON_AddStringToObject(owner, "reader", digest);
    for (int i = 0; (path = user_reader_path(reader, i, digest)) != NULL; i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "path", path);
        cJSON_AddStringToObject(item, "hash", digest);
        cJSON_AddItemToArray(list, item);
    }
}

static double share_of(const Mixture *mixture, int source)
{
    return (double)mixture_turns(mixture)->share[source] / (double)INTERLEAVE_UNIT;
}

/* Of one source a list of its files; of several the same for each, with its name and share. */
static cJSON *make_list(const Mixture *mixture)
{
    char order[DIGEST_HEX_BYTES];
    cJSON *root = cJSON_CreateObject();
    mixture_order_fingerprint(mixture, order);
    cJSON_AddStringToObject(root, "order", order);
    cJSON *list = cJSON_AddArrayToObject(root, "list");
    for (int i = 0; i < mixture_num_sources(mixture); i++) {
        cJSON *files = list, *owner = root;
        if (mixture_num_sources(mixture) > 1) {
            cJSON *source = cJSON_CreateObject();
            cJSON_AddStringToObject(source, "source", mixture_source_name(mixture, i));
            cJSON_AddNumberToObject(source, "share", share_of(mixture, i));
            files = cJSON_AddArrayToObject(source, "files");
            cJSON_AddItemToArray(list, source);
            owner = source;
        }
        const Dataset *dataset = mixture_source_dataset(mixture, i);
        if (dataset != NULL)
            add_files(files, dataset);
        else
            add_reader(owner, files, mixture_source_reader(mixture, i));
    }
    return root;
}

void file_list_keep(const char *folder, const char *fingerprint, const Mixture *mixture)
{
    char *path = list_path(folder, fingerprint);
    if (!path_exists(path)) {
        cJSON *list = make_list(mixture);
        char *text = cJSON_PrintUnformatted(list);
        file_write_atomic(path, text, strlen(text), NULL);
        cJSON_free(text);
        cJSON_Delete(list);
    }
    free(path);
}

/* NULL: there is none. */
static cJSON *read_list(const char *folder, const char *fingerprint)
{
    char *path = list_path(folder, fingerprint);
    cJSON *root = NULL;
    Error unknown;
    (void)json_read(path, LIST_BYTES_MAX, &root, &unknown);
    free(path);
    return root;
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
        bool same_size = number_of(item, "bytes") == (double)file->bytes &&
                         number_of(item, "records") == (double)file->records;
        if (same_size && file->records > 0)
            str_printf(ret, "%s: other content in as many records (%llu) and bytes (%llu)",
                       file->path, (unsigned long long)file->records,
                       (unsigned long long)file->bytes);
        else if (file->records > 0 || number_of(item, "records") > 0)
            str_printf(ret, "%s: %llu record%s in %llu bytes, were %.0f in %.0f", file->path,
                       (unsigned long long)file->records, plural((int64_t)file->records),
                       (unsigned long long)file->bytes, number_of(item, "records"),
                       number_of(item, "bytes"));
        else if (number_of(item, "bytes") == (double)file->bytes)
            str_printf(ret, "%s: other content in as many bytes (%llu)", file->path,
                       (unsigned long long)file->bytes);
        else /* not counted */
            str_printf(ret, "%s: %llu bytes, were %.0f", file->path,
                       (unsigned long long)file->bytes, number_of(item, "bytes"));
        if (strcmp(file->path, text_of(item, "path")) != 0)
            str_printf(ret, " (of %s)", text_of(item, "path"));
    }
}

/* What is told so far: one difference a line, the first of them. */
typedef struct Changes {
    Str *text;
    int count;
} Changes;

static void tell(Changes *changes, const Str *line)
{
    if (line->length > 0 && changes->count++ < SHOWN_MAX)
        str_printf(changes->text, "%s%s", changes->text->length > 0 ? "\n" : "", str_text(line));
}

static void compare_files(const cJSON *list, const Dataset *dataset, Changes *changes)
{
    int num_files = dataset != NULL ? dataset_num_files(dataset) : 0;
    const cJSON *item = list != NULL ? list->child : NULL;
    for (int i = 0; i < num_files || item != NULL; i++) {
        DatasetFileInfo file = {0};
        if (i < num_files) file = dataset_file(dataset, i);
        Str line = {0};
        describe(item, i < num_files ? &file : NULL, &line);
        tell(changes, &line);
        str_free(&line);
        if (item != NULL) item = item->next;
    }
}

static const cJSON *find_path(const cJSON *list, const char *path)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        if (strcmp(text_of(item, "path"), path) == 0) return item;
    }
    return NULL;
}

static void compare_reader(const cJSON *owner, const cJSON *list, const Mixture *mixture,
                           int source, Changes *changes)
{
    const UserReader *reader = mixture_source_reader(mixture, source);
    const char *name = mixture_source_name(mixture, source), *path;
    char digest[DIGEST_HEX_BYTES];
    int before = changes->count;
    user_reader_fingerprint(reader, digest);
    if (strcmp(text_of(owner, "reader"), digest) == 0) return;
    for (int i = 0; (path = user_reader_path(reader, i, digest)) != NULL; i++) {
        const cJSON *item = find_path(list, path);
        Str line = {0};
        if (item == NULL)
            str_printf(&line, "source %s: %s was not among the paths", name, path);
        else if (strcmp(text_of(item, "hash"), digest) != 0)
            str_printf(&line, "source %s: %s changed", name, path);
        tell(changes, &line);
        str_free(&line);
    }
    if (changes->count > before) return;
    Str line = {0};
    str_printf(&line,
               "source %s: its paths, its reader's name or options, the number of its records, "
               "its shuffling or what the reader says of its data changed",
               name);
    tell(changes, &line);
    str_free(&line);
}

/* Lists of earlier versions tell nothing of a reader: then there is nothing to compare. */
static void compare_data(const cJSON *owner, const cJSON *list, const Mixture *mixture, int source,
                         Changes *changes)
{
    const Dataset *dataset = mixture_source_dataset(mixture, source);
    bool was_read = text_of(owner, "reader")[0] != '\0';
    Str line = {0};
    if (was_read && dataset == NULL)
        compare_reader(owner, list, mixture, source, changes);
    else if (was_read)
        str_printf(&line, "source %s: it was read by a reader of its own",
                   mixture_source_name(mixture, source));
    else
        compare_files(list, dataset, changes);
    tell(changes, &line);
    str_free(&line);
}

static const cJSON *find_source(const cJSON *list, const char *name)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        if (strcmp(text_of(item, "source"), name) == 0) return item;
    }
    return NULL;
}

/* JSON has 15 digits of a share, which tell its parts of INTERLEAVE_UNIT but not its last bits. */
static int64_t share_parts(double share)
{
    return (int64_t)(share * (double)INTERLEAVE_UNIT + 0.5);
}

/* In as few digits as it takes to see a difference, if there is one. */
static void describe_share(const char *name, double now, double before, Str *ret)
{
    if (share_parts(now) == share_parts(before)) return;
    char text[2][32] = {"", ""};
    for (int digits = 6; digits <= 12 && strcmp(text[0], text[1]) == 0; digits += 2) {
        snprintf(text[0], sizeof text[0], "%.*g", digits, now);
        snprintf(text[1], sizeof text[1], "%.*g", digits, before);
    }
    str_printf(ret, "the share of the source %s: %s, was %s", name, text[0], text[1]);
}

static void compare_source(const cJSON *list, const Mixture *mixture, int source, Changes *changes)
{
    const char *name = mixture_source_name(mixture, source);
    const cJSON *before = find_source(list, name);
    Str line = {0};
    if (before == NULL)
        str_printf(&line, "the source %s is new", name);
    else
        describe_share(name, share_of(mixture, source), number_of(before, "share"), &line);
    tell(changes, &line);
    str_free(&line);
    if (before != NULL)
        compare_data(before, cJSON_GetObjectItemCaseSensitive(before, "files"), mixture, source,
                     changes);
}

static void compare_sources(const cJSON *list, const Mixture *mixture, Changes *changes)
{
    for (int i = 0; i < mixture_num_sources(mixture); i++)
        compare_source(list, mixture, i, changes);
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        bool kept = false;
        Str line = {0};
        for (int i = 0; i < mixture_num_sources(mixture); i++)
            kept = kept || strcmp(text_of(item, "source"), mixture_source_name(mixture, i)) == 0;
        if (!kept) str_printf(&line, "the source %s is no longer there", text_of(item, "source"));
        tell(changes, &line);
        str_free(&line);
    }
}

static void add_changes(const cJSON *root, const cJSON *list, const Mixture *mixture, Str *ret)
{
    Changes changes = {.text = ret};
    bool was_mixed = list->child != NULL && text_of(list->child, "source")[0] != '\0';
    bool is_mixed = mixture_num_sources(mixture) > 1;
    Str line = {0};
    if (was_mixed && is_mixed)
        compare_sources(list, mixture, &changes);
    else if (!was_mixed && !is_mixed)
        compare_data(root, list, mixture, 0, &changes);
    else
        str_puts(&line, is_mixed ? "it was no mixture" : "it was a mixture of sources");
    tell(&changes, &line);
    str_free(&line);
    if (changes.count > SHOWN_MAX) str_printf(ret, "\nand %d more", changes.count - SHOWN_MAX);
}

char *file_list_changes(const char *folder, const char *known, const Mixture *mixture)
{
    cJSON *root = read_list(folder, known);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "list");
    Str text = {0};
    if (cJSON_IsArray(list)) add_changes(root, list, mixture, &text);
    cJSON_Delete(root);
    return str_take(&text);
}

bool file_list_same_order(const char *folder, const char *fingerprint, const char *other)
{
    cJSON *root = read_list(folder, fingerprint), *beside = read_list(folder, other);
    bool same = text_of(root, "order")[0] != '\0' &&
                strcmp(text_of(root, "order"), text_of(beside, "order")) == 0;
    cJSON_Delete(beside);
    cJSON_Delete(root);
    return same;
}
