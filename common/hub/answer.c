#include "hub/answer.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "base/memory.h"

#define TREE_VERSION 1
#define PATH_BYTES   1024
#define FILE_BYTES   ((int64_t)1 << 50)

/* ---- header ---- */

void hub_header_free(HubHeader *header)
{
    free(header->location);
    free(header->next);
    *header = (HubHeader){0};
}

void hub_header_begin(HubHeader *header)
{
    hub_header_free(header);
    header->length = header->range_begin = header->range_total = header->retry_after_s = -1;
}

/* Only digits; else -1. */
static int64_t read_number(const char *text)
{
    if (text[0] == '\0' || text[strspn(text, "0123456789")] != '\0') return -1;
    errno = 0;
    long long number = strtoll(text, NULL, 10);
    return errno == 0 ? number : -1;
}

/* "bytes 100-199/1000", or "bytes 100-199" with an unknown end. */
static void read_range(HubHeader *header, char *text)
{
    if (strncasecmp(text, "bytes ", 6) != 0) return;
    char *begin = text + 6, *dash = strchr(begin, '-'), *slash = strchr(begin, '/');
    if (slash != NULL) header->range_total = read_number(slash + 1);
    if (dash == NULL) return;
    *dash = '\0';
    header->range_begin = read_number(begin);
}

static void read_etag(const char *text, char ret[HUB_ETAG_BYTES])
{
    if (str_starts_with(text, "W/")) text += 2;
    if (*text == '"') text++;
    size_t length = strcspn(text, "\"");
    ret[0] = '\0';
    if (length >= HUB_ETAG_BYTES) return;
    memcpy(ret, text, length);
    ret[length] = '\0';
}

/* `<https://...>; rel="next"`, perhaps one of several. */
static void read_link(HubHeader *header, const char *text)
{
    for (const char *begin; (begin = strchr(text, '<')) != NULL;) {
        const char *end = strchr(begin, '>');
        if (end == NULL) return;
        size_t rest = strcspn(end, ",");
        char *about = mem_strndup(end, rest);
        bool next = strstr(about, "rel=\"next\"") != NULL || strstr(about, "rel=next") != NULL;
        free(about);
        if (next && header->next == NULL)
            header->next = mem_strndup(begin + 1, (size_t)(end - begin - 1));
        text = end + rest;
    }
}

static bool is_hex(const char *text, size_t digits)
{
    return strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

static void copy_text(char *ret, size_t size, const char *text)
{
    size_t length = strlen(text);
    if (length >= size) length = size - 1;
    memcpy(ret, text, length);
    ret[length] = '\0';
}

static void take_field(HubHeader *header, const char *name, char *value)
{
    if (strcasecmp(name, "content-length") == 0) header->length = read_number(value);
    if (strcasecmp(name, "content-range") == 0) read_range(header, value);
    if (strcasecmp(name, "retry-after") == 0) header->retry_after_s = read_number(value);
    if (strcasecmp(name, "etag") == 0) read_etag(value, header->etag);
    if (strcasecmp(name, "x-linked-etag") == 0) read_etag(value, header->linked_etag);
    if (strcasecmp(name, "x-repo-commit") == 0 && is_hex(value, HUB_COMMIT_BYTES - 1))
        copy_text(header->commit, sizeof header->commit, value);
    if (strcasecmp(name, "x-error-code") == 0)
        copy_text(header->error_code, sizeof header->error_code, value);
    if (strcasecmp(name, "x-error-message") == 0)
        copy_text(header->error_message, sizeof header->error_message, value);
    if (strcasecmp(name, "link") == 0) read_link(header, value);
    if (strcasecmp(name, "location") == 0 && header->location == NULL)
        header->location = mem_strdup(value);
}

void hub_header_line(HubHeader *header, const char *line, size_t length)
{
    while (length > 0 && strchr("\r\n \t", line[length - 1]) != NULL)
        length--;
    char *text = mem_strndup(line, length);
    if (strncasecmp(text, "HTTP/", 5) == 0) {
        const char *status = strchr(text, ' ');
        hub_header_begin(header);
        header->status = status != NULL ? atoi(status + 1) : 0;
    } else if (strchr(text, ':') != NULL) {
        char *value = strchr(text, ':');
        *value++ = '\0';
        take_field(header, text, value + strspn(value, " \t"));
    }
    free(text);
}

/* ---- files ---- */

void hub_files_free(HubFiles *files)
{
    for (size_t i = 0; i < files->count; i++)
        free(files->item[i].path);
    free(files->item);
    *files = (HubFiles){0};
}

static int compare_files(const void *a, const void *b)
{
    return strcmp(((const HubFile *)a)->path, ((const HubFile *)b)->path);
}

void hub_files_sort(HubFiles *files)
{
    size_t kept = 0;
    if (files->count > 0) qsort(files->item, files->count, sizeof *files->item, compare_files);
    for (size_t i = 0; i < files->count; i++) {
        if (kept > 0 && strcmp(files->item[kept - 1].path, files->item[i].path) == 0)
            free(files->item[i].path);
        else
            files->item[kept++] = files->item[i];
    }
    files->count = kept;
}

const HubFile *hub_files_find(const HubFiles *files, const char *path)
{
    HubFile wanted = {.path = (char *)path};
    if (files->count == 0) return NULL;
    return bsearch(&wanted, files->item, files->count, sizeof *files->item, compare_files);
}

/* A path that may become one of this machine, below a folder of ours. */
static bool is_safe_path(const char *path)
{
    size_t length = strlen(path);
    if (length == 0 || length > PATH_BYTES || path[0] == '/') return false;
    for (const char *at = path; at != NULL; at = strchr(at, '/')) {
        at += *at == '/';
        size_t part = strcspn(at, "/");
        if (part == 0 || part > NAME_MAX || (part == 1 && at[0] == '.') ||
            (part == 2 && at[0] == '.' && at[1] == '.'))
            return false;
    }
    return true;
}

/* The fields of a file, as the Hub or the kept list names them. */
typedef struct FileFields {
    const char *path, *oid, *sha256, *xet;
    int64_t bytes;
} FileFields;

static Status add_file(HubFiles *files, const FileFields *fields, const char *where, Error *err)
{
    if (!is_safe_path(fields->path))
        return error_set(err, ERR_DATA,
                         "%s: %s is no path in a repository\n  expected: a relative one", where,
                         QUOTED(fields->path));
    if (!is_hex(fields->oid, HUB_COMMIT_BYTES - 1) ||
        (fields->sha256 != NULL && !is_hex(fields->sha256, HUB_ETAG_BYTES - 1)))
        return error_set(err, ERR_DATA,
                         "%s: the checksum of %s is not of 40 or 64 hexadecimal digits", where,
                         QUOTED(fields->path));
    if (files->count == HUB_FILES_MAX)
        return error_set(err, ERR_RESOURCE, "%s: more than %d files (HUB_FILES_MAX)", where,
                         HUB_FILES_MAX);
    if (files->count == files->capacity) {
        files->capacity = 2 * files->capacity + 16;
        files->item = mem_realloc(files->item, files->capacity, sizeof *files->item);
    }
    HubFile *file = &files->item[files->count++];
    *file = (HubFile){.path = mem_strdup(fields->path), .bytes = fields->bytes};
    copy_text(file->oid, sizeof file->oid, fields->oid);
    copy_text(file->etag, sizeof file->etag, fields->sha256 != NULL ? fields->sha256 : fields->oid);
    if (fields->xet != NULL && is_hex(fields->xet, HUB_ETAG_BYTES - 1))
        copy_text(file->xet, sizeof file->xet, fields->xet);
    return OK;
}

static Status take_entry(const cJSON *entry, const char *where, HubFiles *files, Error *err)
{
    FileFields fields = {0};
    const char *type = NULL;
    const cJSON *lfs = cJSON_GetObjectItemCaseSensitive(entry, "lfs");
    TRY(json_string(entry, "type", where, &type, err));
    if (strcmp(type, "file") != 0) return OK;
    TRY(json_string(entry, "path", where, &fields.path, err));
    TRY(json_string(entry, "oid", where, &fields.oid, err));
    TRY(json_int(entry, "size", where, 0, FILE_BYTES, &fields.bytes, err));
    TRY(json_string_or(entry, "xetHash", where, &fields.xet, err));
    if (cJSON_IsObject(lfs)) {
        TRY(json_string(lfs, "oid", where, &fields.sha256, err));
        TRY(json_int(lfs, "size", where, 0, FILE_BYTES, &fields.bytes, err));
    }
    return add_file(files, &fields, where, err);
}

/* Whatever is wrong with an answer is wrong with what the server says. */
static Status as_data(Status status, Error *err)
{
    if (status == OK || status == ERR_RESOURCE) return status;
    return err != NULL ? (err->status = ERR_DATA) : ERR_DATA;
}

Status hub_answer_tree(const char *text, size_t length, const char *where, HubFiles *files,
                       Error *err)
{
    cJSON *json = NULL;
    const cJSON *entry = NULL;
    Status status = json_parse(text, length, where, &json, err);
    if (status == OK && !cJSON_IsArray(json))
        status = error_set(err, ERR_DATA, "%s: found %s, expected a list of files", where,
                           json_type_name(json));
    cJSON_ArrayForEach(entry, json)
    {
        if (status != OK) break;
        status = take_entry(entry, where, files, err);
    }
    cJSON_Delete(json);
    return as_data(status, err);
}

Status hub_answer_commit(const char *text, size_t length, const char *where,
                         char ret[HUB_COMMIT_BYTES], Error *err)
{
    cJSON *json = NULL;
    const char *commit = NULL;
    Status status = json_parse(text, length, where, &json, err);
    if (status == OK) status = json_string(json, "sha", where, &commit, err);
    if (status == OK && !is_hex(commit, HUB_COMMIT_BYTES - 1))
        status = error_set(err, ERR_DATA, "%s: sha is %s, expected 40 hexadecimal digits", where,
                           QUOTED(commit));
    if (status == OK) copy_text(ret, HUB_COMMIT_BYTES, commit);
    cJSON_Delete(json);
    return as_data(status, err);
}

void hub_answer_names(const char *text, size_t length, const char *list, const char *key,
                      StringList *ret)
{
    cJSON *json = NULL;
    const cJSON *entry = NULL;
    if (json_parse(text, length, "", &json, NULL) != OK) return;
    const cJSON *entries = json;
    if (list != NULL) entries = cJSON_GetObjectItemCaseSensitive(json, list);
    cJSON_ArrayForEach(entry, entries)
    {
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(entry, key);
        if (cJSON_IsString(name)) string_list_append(ret, name->valuestring);
    }
    cJSON_Delete(json);
}

/* ---- trees/COMMIT.json ---- */

static Status take_kept(const cJSON *entry, const char *where, HubFiles *files, Error *err)
{
    FileFields fields = {.path = entry->string};
    TRY(json_string(entry, "blob_id", where, &fields.oid, err));
    TRY(json_int(entry, "size", where, 0, FILE_BYTES, &fields.bytes, err));
    TRY(json_string_or(entry, "lfs_sha256", where, &fields.sha256, err));
    TRY(json_int_or(entry, "lfs_size", where, 0, FILE_BYTES, &fields.bytes, err));
    TRY(json_string_or(entry, "xet_hash", where, &fields.xet, err));
    return add_file(files, &fields, where, err);
}

Status hub_tree_read(const char *path, HubFiles *ret, Error *err)
{
    cJSON *json = NULL;
    const cJSON *entry = NULL;
    HubFiles files = {0};
    int64_t version = 0;
    TRY(json_read(path, HUB_LIST_BYTES_MAX, &json, err));
    Status status =
        json_int(json, "format_version", path, TREE_VERSION, TREE_VERSION, &version, err);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "files");
    if (status == OK && !cJSON_IsObject(list))
        status = error_set(err, ERR_DATA, "%s: no object \"files\"", path);
    cJSON_ArrayForEach(entry, list)
    {
        if (status != OK) break;
        status = take_kept(entry, path, &files, err);
    }
    cJSON_Delete(json);
    if (status == OK) {
        hub_files_sort(&files);
        *ret = files;
    } else {
        hub_files_free(&files);
    }
    return as_data(status, err);
}

char *hub_tree_write(const HubFiles *files)
{
    Str text = {0};
    str_printf(&text, "{\n \"format_version\": %d,\n \"files\": {", TREE_VERSION);
    for (size_t i = 0; i < files->count; i++) {
        const HubFile *file = &files->item[i];
        bool large = strcmp(file->etag, file->oid) != 0;
        str_puts(&text, i > 0 ? ",\n  " : "\n  ");
        json_append_string(&text, file->path);
        str_printf(&text, ": {\n   \"size\": %lld,\n   \"blob_id\": \"%s\"", (long long)file->bytes,
                   file->oid);
        if (large)
            str_printf(&text, ",\n   \"lfs_sha256\": \"%s\",\n   \"lfs_size\": %lld", file->etag,
                       (long long)file->bytes);
        if (file->xet[0] != '\0') str_printf(&text, ",\n   \"xet_hash\": \"%s\"", file->xet);
        str_puts(&text, "\n  }");
    }
    str_puts(&text, files->count > 0 ? "\n }\n}" : "}\n}");
    return str_take(&text);
}
