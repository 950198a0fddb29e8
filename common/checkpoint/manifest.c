#include "checkpoint/manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"
#include "checkpoint/manifest_file.h"

#define FORMAT 1

/* The largest whole number that JSON readers keep exactly. */
#define NUMBER_MAX (INT64_C(1) << 53)

/* Stands between what is digested and the digest; the rest of the file is the digest and TAIL. */
#define DIGEST_MEMBER ",\n  \"sha256_of_the_above\": \""
#define TAIL          "\"\n}\n"

Manifest *manifest_create(void)
{
    Manifest *manifest = mem_calloc(1, sizeof *manifest);
    manifest->format = FORMAT;
    return manifest;
}

void manifest_destroy(Manifest *manifest)
{
    if (manifest == NULL) return;
    for (int i = 0; i < manifest->num_files; i++)
        free(manifest->file[i].name);
    free(manifest->file);
    for (int i = 0; i < manifest->num_counts; i++)
        free(manifest->count[i].name);
    free(manifest->count);
    free(manifest->best_metric);
    free(manifest->best);
    free(manifest->data_fingerprint);
    free(manifest->config_sha256);
    free(manifest->ledger_head);
    free(manifest);
}

void manifest_add_count(Manifest *manifest, const char *name, int64_t value)
{
    size_t count = (size_t)manifest->num_counts + 1;
    manifest->count = mem_realloc(manifest->count, count, sizeof *manifest->count);
    manifest->count[manifest->num_counts++] = (ManifestCount){mem_strdup(name), value};
}

int64_t manifest_count(const Manifest *manifest, const char *name)
{
    for (int i = 0; i < manifest->num_counts; i++)
        if (strcmp(manifest->count[i].name, name) == 0) return manifest->count[i].value;
    return 0;
}

void manifest_add_best(Manifest *manifest, int64_t step, double value)
{
    size_t count = (size_t)manifest->num_best + 1;
    manifest->best = mem_realloc(manifest->best, count, sizeof *manifest->best);
    manifest->best[manifest->num_best++] = (ManifestBest){step, value};
}

void manifest_add_file(Manifest *manifest, const char *name, int64_t bytes, const char *sha256)
{
    /* Copied first: the texts may be those of another file of this manifest, which moves. */
    ManifestFile file = {.name = mem_strdup(name), .bytes = bytes};
    snprintf(file.sha256, sizeof file.sha256, "%s", sha256);
    size_t count = (size_t)manifest->num_files;
    manifest->file = mem_realloc(manifest->file, count + 1, sizeof *manifest->file);
    manifest->file[manifest->num_files++] = file;
}

/* ---- checks that writing and reading share ---- */

Status manifest_check_name(const char *name, Error *err)
{
    size_t length = strlen(name);
    bool plain = length > 0 && length < 256 && strchr(name, '/') == NULL && name[0] != '.' &&
                 strcmp(name, MANIFEST_NAME) != 0;
    for (size_t i = 0; i < length; i++)
        plain = plain && (unsigned char)name[i] >= 0x20;
    if (plain) return OK;
    return error_set(err, ERR_INVALID, "%s cannot be the name of a file in a checkpoint",
                     QUOTED(name));
}

static bool is_sha256(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static Status check_files(const Manifest *manifest, Error *err)
{
    size_t count = (size_t)manifest->num_files;
    const char **names = mem_calloc(count, sizeof *names);
    Status status = OK;
    for (size_t i = 0; i < count && status == OK; i++) {
        const ManifestFile *file = &manifest->file[i];
        names[i] = file->name;
        status = manifest_check_name(file->name, err);
        if (status == OK && !is_sha256(file->sha256))
            status = error_set(err, ERR_INVALID, "%s: \"%.70s\" is not a SHA-256",
                               QUOTED(file->name), file->sha256);
        if (status == OK && (file->bytes < 0 || file->bytes > NUMBER_MAX))
            status = error_set(err, ERR_INVALID, "%s is said to have %" PRId64 " bytes",
                               QUOTED(file->name), file->bytes);
    }
    if (status == OK) {
        qsort(names, count, sizeof *names, compare_text);
        for (size_t i = 1; i < count && status == OK; i++)
            if (strcmp(names[i - 1], names[i]) == 0)
                status = error_set(err, ERR_INVALID, "file %s stands twice in the manifest",
                                   QUOTED(names[i]));
    }
    free(names);
    return status;
}

/* ---- writing ---- */

static void put_string(Str *out, const char *key, const char *value)
{
    str_printf(out, ",\n  \"%s\": ", key);
    json_append_string(out, value);
}

static void put_number(Str *out, const char *key, int64_t value)
{
    CHECK(value >= 0 && value <= NUMBER_MAX);
    str_printf(out, ",\n  \"%s\": %" PRId64, key, value);
}

static void put_counts(Str *out, const Manifest *manifest)
{
    if (manifest->num_counts == 0) return;
    str_puts(out, ",\n  \"counts\": {");
    for (int i = 0; i < manifest->num_counts; i++) {
        str_puts(out, i > 0 ? ", " : "");
        json_append_string(out, manifest->count[i].name);
        str_printf(out, ": %" PRId64, manifest->count[i].value);
    }
    str_putc(out, '}');
}

static void put_best(Str *out, const Manifest *manifest)
{
    if (manifest->best_metric == NULL) return;
    put_string(out, "best_metric", manifest->best_metric);
    str_puts(out, ",\n  \"best\": [");
    for (int i = 0; i < manifest->num_best; i++)
        str_printf(out, "%s{\"step\": %" PRId64 ", \"value\": %.17g}", i > 0 ? ", " : "",
                   manifest->best[i].step, manifest->best[i].value);
    str_putc(out, ']');
}

/* The numbers of a ledger's mark: written and read alike. */
typedef struct MarkNumber {
    const char *key;
    size_t offset;
    int64_t max;
} MarkNumber;

static const MarkNumber mark_number[] = {
    {"bytes", offsetof(LedgerMark, bytes), NUMBER_MAX},
    {"format", offsetof(LedgerMark, format), INT32_MAX},
    {"stage", offsetof(LedgerMark, stage), INT32_MAX},
    {"records", offsetof(LedgerMark, records), NUMBER_MAX},
    {"group", offsetof(LedgerMark, group_size), INT32_MAX},
};
enum { MARK_NUMBERS = sizeof mark_number / sizeof *mark_number };

static void put_mark(Str *out, const LedgerMark *mark)
{
    if (mark->bytes == 0) return;
    str_puts(out, ",\n  \"ledger_mark\": {");
    for (int i = 0; i < MARK_NUMBERS; i++)
        str_printf(out, "\"%s\": %" PRId64 ", ", mark_number[i].key,
                   *(const int64_t *)((const char *)mark + mark_number[i].offset));
    str_puts(out, "\"data\": ");
    json_append_string(out, mark->data);
    str_putc(out, '}');
}

Status manifest_text(const Manifest *manifest, char **ret_text, size_t *ret_length, Error *err)
{
    TRY(check_files(manifest, err));
    Str out = {0};
    char sha256[DIGEST_HEX_BYTES];
    str_printf(&out, "{\n  \"format\": %d", FORMAT);
    put_number(&out, "step", manifest->step);
    put_number(&out, "generation", manifest->generation);
    put_number(&out, "next_position", manifest->next_position);
    put_number(&out, "consumed_samples", manifest->consumed_samples);
    put_number(&out, "rejected_samples", manifest->rejected_samples);
    put_number(&out, "trained_tokens", manifest->trained_tokens);
    put_number(&out, "bad_records", manifest->bad_records);
    put_number(&out, "records", manifest->records);
    put_counts(&out, manifest);
    put_best(&out, manifest);
    put_number(&out, "tp_size", manifest->tp_size);
    put_number(&out, "dp_size", manifest->dp_size);
    put_string(&out, "data_fingerprint", manifest->data_fingerprint);
    put_string(&out, "config_sha256", manifest->config_sha256);
    put_string(&out, "ledger_head", manifest->ledger_head);
    put_mark(&out, &manifest->ledger_mark);
    str_puts(&out, ",\n  \"files\": [");
    for (int i = 0; i < manifest->num_files; i++) {
        const ManifestFile *file = &manifest->file[i];
        str_puts(&out, i > 0 ? ",\n    {\"name\": " : "\n    {\"name\": ");
        json_append_string(&out, file->name);
        str_printf(&out, ", \"bytes\": %" PRId64 ", \"sha256\": \"%s\"}", file->bytes,
                   file->sha256);
    }
    str_puts(&out, "\n  ]");
    digest_bytes(out.data, out.length, sha256);
    str_printf(&out, "%s%s%s", DIGEST_MEMBER, sha256, TAIL);
    *ret_length = out.length;
    *ret_text = str_take(&out);
    return OK;
}

/* ---- reading ---- */

/* The file ends exactly as manifest_text ends it, and its digest holds. */
static Status check_own_digest(const char *text, size_t length, const char *where, Error *err)
{
    static const size_t member = sizeof DIGEST_MEMBER - 1, tail = sizeof TAIL - 1;
    size_t end = member + 64 + tail;
    char sha256[DIGEST_HEX_BYTES];
    if (length > end && memcmp(text + length - end, DIGEST_MEMBER, member) == 0 &&
        memcmp(text + length - tail, TAIL, tail) == 0) {
        digest_bytes(text, length - end, sha256);
        if (memcmp(text + length - end + member, sha256, 64) == 0) return OK;
    }
    return error_set(err, ERR_DATA, "%s is damaged: its own SHA-256 does not fit", where);
}

static Status parse_file(const cJSON *json, const char *where, Manifest *manifest, Error *err)
{
    const char *name = NULL, *sha256 = NULL;
    int64_t bytes = 0;
    TRY(json_string(json, "name", where, &name, err));
    TRY(json_int(json, "bytes", where, 0, NUMBER_MAX, &bytes, err));
    TRY(json_string(json, "sha256", where, &sha256, err));
    manifest_add_file(manifest, name, bytes, sha256);
    return OK;
}

/* Absent where nothing was counted. */
static Status parse_counts(const cJSON *json, const char *where, Manifest *manifest, Error *err)
{
    if (json != NULL && !cJSON_IsObject(json))
        return error_set(err, ERR_DATA, "%s: \"counts\" is %s, expected an object", where,
                         json_type_name(json));
    for (const cJSON *item = json != NULL ? json->child : NULL; item != NULL; item = item->next) {
        int64_t value = 0;
        TRY(json_int(json, item->string, where, 0, NUMBER_MAX, &value, err));
        manifest_add_count(manifest, item->string, value);
    }
    return OK;
}

/* Absent where no job keeps its best. */
static Status parse_best(const cJSON *json, const char *where, Manifest *manifest, Error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "best");
    const char *metric = NULL;
    if (list == NULL) return OK;
    TRY(json_string(json, "best_metric", where, &metric, err));
    manifest->best_metric = mem_strdup(metric);
    if (!cJSON_IsArray(list))
        return error_set(err, ERR_DATA, "%s: \"best\" is %s, expected a list", where,
                         json_type_name(list));
    for (const cJSON *item = list->child; item != NULL; item = item->next) {
        int64_t step = 0;
        double value = 0;
        TRY(json_int(item, "step", where, 0, NUMBER_MAX, &step, err));
        TRY(json_double(item, "value", where, &value, err));
        manifest_add_best(manifest, step, value);
    }
    return OK;
}

/* Absent in checkpoints of earlier builds, and where the ledger has no line. */
static Status parse_mark(const cJSON *json, const char *where, LedgerMark *ret, Error *err)
{
    LedgerMark mark = {0};
    const char *data = NULL;
    if (json == NULL) return OK;
    for (int i = 0; i < MARK_NUMBERS; i++)
        TRY(json_int(json, mark_number[i].key, where, 0, mark_number[i].max,
                     (int64_t *)((char *)&mark + mark_number[i].offset), err));
    TRY(json_string(json, "data", where, &data, err));
    snprintf(mark.data, sizeof mark.data, "%s", data);
    *ret = mark;
    return OK;
}

static Status parse_members(const cJSON *json, const char *where, Manifest *manifest, Error *err)
{
    const struct {
        const char *key;
        int64_t *to;
    } numbers[] = {
        {"step", &manifest->step},
        {"next_position", &manifest->next_position},
        {"consumed_samples", &manifest->consumed_samples},
        {"rejected_samples", &manifest->rejected_samples},
        {"trained_tokens", &manifest->trained_tokens},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        TRY(json_int(json, numbers[i].key, where, 0, NUMBER_MAX, numbers[i].to, err));
    const struct {
        const char *key;
        char **to;
    } strings[] = {
        {"data_fingerprint", &manifest->data_fingerprint},
        {"config_sha256", &manifest->config_sha256},
        {"ledger_head", &manifest->ledger_head},
    };
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
        const char *value = NULL;
        TRY(json_string(json, strings[i].key, where, &value, err));
        *strings[i].to = mem_strdup(value);
    }
    /* Absent in checkpoints of the first builds. */
    TRY(json_int_or(json, "bad_records", where, 0, NUMBER_MAX, &manifest->bad_records, err));
    TRY(json_int_or(json, "records", where, 0, NUMBER_MAX, &manifest->records, err));
    TRY(parse_counts(cJSON_GetObjectItemCaseSensitive(json, "counts"), where, manifest, err));
    TRY(parse_best(json, where, manifest, err));
    TRY(parse_mark(cJSON_GetObjectItemCaseSensitive(json, "ledger_mark"), where,
                   &manifest->ledger_mark, err));
    int64_t generation = 0, tp_size = 0, dp_size = 0;
    TRY(json_int(json, "generation", where, 0, UINT32_MAX, &generation, err));
    TRY(json_int(json, "tp_size", where, 0, WORLD_SIZE_MAX, &tp_size, err));
    TRY(json_int(json, "dp_size", where, 0, WORLD_SIZE_MAX, &dp_size, err));
    manifest->generation = (uint32_t)generation;
    manifest->tp_size = (int)tp_size;
    manifest->dp_size = (int)dp_size;
    const cJSON *files = cJSON_GetObjectItemCaseSensitive(json, "files");
    if (!cJSON_IsArray(files))
        return error_set(err, ERR_DATA, "%s: \"files\" is %s, expected a list", where,
                         json_type_name(files));
    for (const cJSON *file = files->child; file != NULL; file = file->next)
        TRY(parse_file(file, where, manifest, err));
    return check_files(manifest, err);
}

Status manifest_parse(const char *text, size_t length, const char *where, Manifest **ret,
                      Error *err)
{
    cJSON *json = NULL;
    int64_t format = 0;
    Manifest *manifest = manifest_create();
    Status status = check_own_digest(text, length, where, err);
    if (status == OK) status = json_parse(text, length, where, &json, err);
    if (status == OK) status = json_int(json, "format", where, 1, INT32_MAX, &format, err);
    if (status == OK && format > FORMAT)
        status =
            error_set(err, ERR_UNSUPPORTED,
                      "%s has format %" PRId64 ", this program reads up to %d: use a newer one",
                      where, format, FORMAT);
    if (status == OK) {
        status = parse_members(json, where, manifest, err);
        /* Whole, as its digest says, but not what manifest_text writes. */
        if (status != OK) status = ERR_DATA;
        if (status != OK && err != NULL) err->status = status;
    }
    cJSON_Delete(json);
    if (status != OK) {
        manifest_destroy(manifest);
        return status;
    }
    *ret = manifest;
    return OK;
}
