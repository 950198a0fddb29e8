#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"
#include "tensor/safetensors.h"
#include "tensor/safetensors_header.h"

/* Data is read with pread: a file that shrinks under a mapping would kill the process with SIGBUS.
 */
typedef struct Shard {
    char *path;
    int fd;
    struct stat info;    /* when it was opened */
    int64_t data_offset; /* of the data part in the file */
    SafetensorsHeader header;
} Shard;

typedef struct Entry {
    const SafetensorsTensor *tensor; /* in the header of its shard */
    int shard;
} Entry;

struct SafetensorsReader {
    char *path; /* as the caller gave it */
    Shard *shard;
    int num_shards;
    Entry *entry; /* sorted by name */
    int count;
};

static void shard_close(Shard *shard)
{
    if (shard->fd >= 0) close(shard->fd);
    safetensors_header_clear(&shard->header);
    free(shard->path);
}

void safetensors_close(SafetensorsReader *reader)
{
    if (reader == NULL) return;
    for (int i = 0; i < reader->num_shards; i++)
        shard_close(&reader->shard[i]);
    free(reader->shard);
    free(reader->entry);
    free(reader->path);
    free(reader);
}

static Status read_header(Shard *shard, Error *err)
{
    const char *path = shard->path;
    unsigned char prefix[8];
    if (fstat(shard->fd, &shard->info) != 0)
        return error_set_errno(err, errno, "could not stat %s", path);
    if (!S_ISREG(shard->info.st_mode))
        return error_set(err, ERR_INVALID, "%s is not a regular file", path);
    int64_t size = (int64_t)shard->info.st_size;
    if (size < 8)
        return error_set(err, ERR_DATA,
                         "%s has %" PRId64 " bytes: a safetensors file begins with 8 that give "
                         "the length of its header",
                         path, size);
    TRY(file_read_at(shard->fd, prefix, 8, 0, path, err));
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | prefix[i];
    if (length > SAFETENSORS_HEADER_MAX || length > (uint64_t)size - 8)
        return error_set(err, ERR_DATA,
                         "%s: its header is said to have %" PRIu64
                         " bytes, but the file has %" PRId64
                         " and the format allows %u: not a safetensors file, or a cut one",
                         path, length, size, SAFETENSORS_HEADER_MAX);
    char *text = mem_alloc((size_t)length);
    Status status = file_read_at(shard->fd, text, (size_t)length, 8, path, err);
    shard->data_offset = 8 + (int64_t)length;
    if (status == OK)
        status = safetensors_header_parse(text, (size_t)length, size - shard->data_offset, path,
                                          &shard->header, err);
    free(text);
    return status;
}

/* Opens a file as the reader's next shard. The path is copied. */
static Status open_shard(SafetensorsReader *reader, const char *path, Error *err)
{
    reader->shard = mem_realloc(reader->shard, (size_t)reader->num_shards + 1, sizeof(Shard));
    Shard *shard = &reader->shard[reader->num_shards++];
    *shard = (Shard){.path = mem_strdup(path)};
    /* O_NONBLOCK: a named pipe must not make us wait before it is refused. */
    shard->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (shard->fd < 0) return error_set_errno(err, errno, "could not open %s", path);
    return read_header(shard, err);
}

static Status open_single(SafetensorsReader *reader, const char *path, Error *err)
{
    TRY(open_shard(reader, path, err));
    const SafetensorsHeader *header = &reader->shard[0].header;
    reader->entry = mem_calloc((size_t)header->count, sizeof *reader->entry);
    reader->count = header->count;
    for (int i = 0; i < header->count; i++)
        reader->entry[i] = (Entry){&header->tensor[i], 0};
    return OK;
}

/* ---- a folder of shards ---- */

typedef struct IndexLine {
    const char *tensor;
    const char *file;
} IndexLine;

/* An index may only name plain files beside it. Symbolic links are followed: they are how the
 * Hugging Face cache lays out a model, and an index cannot create one. */
static Status check_file_name(const char *index_path, const IndexLine *line, Error *err)
{
    const char *file = line->file;
    size_t length = strlen(file);
    static const char suffix[] = ".safetensors";
    bool plain = strchr(file, '/') == NULL && strchr(file, '\\') == NULL && file[0] != '.' &&
                 length > sizeof suffix - 1 && length < 256 &&
                 strcmp(file + length - (sizeof suffix - 1), suffix) == 0;
    if (plain) return OK;
    return error_set(err, ERR_DATA,
                     "%s: tensor %s is said to be in %s, expected the name of a "
                     ".safetensors file in the same folder",
                     index_path, QUOTED(line->tensor), QUOTED(file));
}

static int compare_line_file(const void *a, const void *b)
{
    const IndexLine *x = a, *y = b;
    int order = strcmp(x->file, y->file);
    return order != 0 ? order : strcmp(x->tensor, y->tensor);
}

static int compare_entry(const void *a, const void *b)
{
    return strcmp(((const Entry *)a)->tensor->name, ((const Entry *)b)->tensor->name);
}

/* The lines of weight_map, sorted by file. *ret_lines is owned and borrows from `json`. */
static Status read_weight_map(const cJSON *json, const char *path, IndexLine **ret_lines,
                              int *ret_count, Error *err)
{
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(json, "weight_map");
    if (!cJSON_IsObject(map))
        return error_set(err, ERR_DATA, "%s: \"weight_map\" is %s, expected an object", path,
                         json_type_name(map));
    int count = 0;
    IndexLine *lines = mem_calloc((size_t)cJSON_GetArraySize(map), sizeof *lines);
    Status status = OK;
    for (const cJSON *item = map->child; item != NULL && status == OK; item = item->next) {
        if (!cJSON_IsString(item)) {
            status = error_set(err, ERR_DATA, "%s: the file of tensor %s is %s, expected a string",
                               path, QUOTED(item->string), json_type_name(item));
            break;
        }
        lines[count] = (IndexLine){item->string, item->valuestring};
        status = check_file_name(path, &lines[count++], err);
    }
    if (status != OK) {
        free(lines);
        return status;
    }
    qsort(lines, (size_t)count, sizeof *lines, compare_line_file);
    *ret_lines = lines;
    *ret_count = count;
    return OK;
}

static Status open_next_file(SafetensorsReader *reader, const char *folder, const char *index_path,
                             const IndexLine *line, Error *err)
{
    if (reader->num_shards == SAFETENSORS_SHARDS_MAX)
        return error_set(err, ERR_DATA, "%s names more than %d files", index_path,
                         SAFETENSORS_SHARDS_MAX);
    char *path = path_join(folder, line->file);
    Status status = OK;
    if (!path_exists(path))
        status = error_set(err, ERR_DATA,
                           "%s names \"%s\" for tensor %s, but that file is not there; "
                           "is the download complete?",
                           index_path, line->file, QUOTED(line->tensor));
    else
        status = open_shard(reader, path, err);
    free(path);
    return status;
}

/* Opens every file once, and finds every named tensor in the file that is said to hold it. */
static Status open_lines(SafetensorsReader *reader, const char *folder, const char *index_path,
                         const IndexLine *lines, int count, Error *err)
{
    int *shard_of = mem_calloc((size_t)count, sizeof *shard_of);
    Status status = OK;
    for (int i = 0; i < count && status == OK; i++) {
        if (i == 0 || strcmp(lines[i - 1].file, lines[i].file) != 0)
            status = open_next_file(reader, folder, index_path, &lines[i], err);
        shard_of[i] = reader->num_shards - 1;
    }
    if (status != OK) goto done;
    reader->entry = mem_calloc((size_t)count, sizeof *reader->entry);
    for (int i = 0; i < count; i++) {
        const Shard *shard = &reader->shard[shard_of[i]];
        const SafetensorsTensor *tensor = safetensors_header_find(&shard->header, lines[i].tensor);
        if (tensor == NULL) {
            status =
                error_set(err, ERR_DATA, "%s names tensor %s in \"%s\", which does not hold it",
                          index_path, QUOTED(lines[i].tensor), lines[i].file);
            goto done;
        }
        reader->entry[reader->count++] = (Entry){tensor, shard_of[i]};
    }
    qsort(reader->entry, (size_t)count, sizeof *reader->entry, compare_entry);
    for (int i = 1; i < count && status == OK; i++)
        if (compare_entry(&reader->entry[i - 1], &reader->entry[i]) == 0)
            status = error_set(err, ERR_DATA, "%s names tensor %s twice", index_path,
                               QUOTED(reader->entry[i].tensor->name));
done:
    free(shard_of);
    return status;
}

static Status open_index(SafetensorsReader *reader, const char *folder, const char *index_path,
                         Error *err)
{
    cJSON *json = NULL;
    IndexLine *lines = NULL;
    int count = 0;
    TRY(json_read(index_path, JSON_FILE_BYTES_MAX, &json, err));
    Status status = read_weight_map(json, index_path, &lines, &count, err);
    if (status == OK) status = open_lines(reader, folder, index_path, lines, count, err);
    free(lines);
    cJSON_Delete(json);
    return status;
}

/* ---- opening ---- */

static const char pickle_hint[] =
    "is a pickle file, which can run code when it is read, so it never is. Convert it once: "
    "transformers' from_pretrained, then save_pretrained(folder, safe_serialization=True)";

static bool is_pickle(const char *path)
{
    static const char *const suffixes[] = {".bin", ".pt", ".pth", ".ckpt", ".pkl"};
    size_t length = strlen(path);
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        size_t part = strlen(suffixes[i]);
        if (length > part && strcmp(path + length - part, suffixes[i]) == 0) return true;
    }
    return false;
}

static Status open_folder(SafetensorsReader *reader, const char *folder, const char *stem,
                          Error *err)
{
    char *name = mem_printf("%s.safetensors", stem);
    char *single = path_join(folder, name);
    char *index = mem_printf("%s.index.json", single);
    char *pickle = path_join(folder, "pytorch_model.bin");
    char *pickle_index = mem_printf("%s.index.json", pickle);
    Status status = OK;
    if (path_exists(single))
        status = open_single(reader, single, err);
    else if (path_exists(index))
        status = open_index(reader, folder, index, err);
    else if (path_exists(pickle) || path_exists(pickle_index))
        status = error_set(err, ERR_UNSUPPORTED, "%s %s", pickle, pickle_hint);
    else
        status = error_set(err, ERR_NOT_FOUND,
                           "folder %s holds neither %s nor %s.index.json: not a model folder, or "
                           "its weights were not downloaded",
                           folder, name, name);
    free(pickle_index);
    free(pickle);
    free(index);
    free(single);
    free(name);
    return status;
}

Status safetensors_open(const char *path, const char *stem, SafetensorsReader **ret, Error *err)
{
    SafetensorsReader *reader = mem_calloc(1, sizeof *reader);
    reader->path = mem_strdup(path);
    Status status = OK;
    if (path_is_folder(path))
        status = open_folder(reader, path, stem, err);
    else if (is_pickle(path) && path_exists(path))
        status = error_set(err, ERR_UNSUPPORTED, "%s %s", path, pickle_hint);
    else
        status = open_single(reader, path, err);
    if (status != OK) {
        safetensors_close(reader);
        return status;
    }
    *ret = reader;
    return OK;
}

/* ---- reading ---- */

int safetensors_count(const SafetensorsReader *reader)
{
    return reader->count;
}

const char *safetensors_name(const SafetensorsReader *reader, int index)
{
    CHECK(index >= 0 && index < reader->count);
    return reader->entry[index].tensor->name;
}

static Status not_found(const SafetensorsReader *reader, const char *name, Error *err)
{
    if (err == NULL) return ERR_NOT_FOUND; /* whoever only asks need not wait for the nearest */
    const char **names = mem_calloc((size_t)reader->count, sizeof *names);
    for (int i = 0; i < reader->count; i++)
        names[i] = reader->entry[i].tensor->name;
    const char *nearest = str_nearest(name, names, (size_t)reader->count);
    free(names);
    if (nearest != NULL)
        return error_set(err, ERR_NOT_FOUND, "%s holds no tensor %s; the nearest name is %s",
                         reader->path, QUOTED(name), QUOTED(nearest));
    if (reader->count == 0)
        return error_set(err, ERR_NOT_FOUND, "%s holds no tensor %s: it is empty", reader->path,
                         QUOTED(name));
    return error_set(err, ERR_NOT_FOUND,
                     "%s holds no tensor %s nor one with a similar name; it holds %d, the "
                     "first is %s",
                     reader->path, QUOTED(name), reader->count,
                     QUOTED(reader->entry[0].tensor->name));
}

static Status find_entry(const SafetensorsReader *reader, const char *name, const Entry **ret,
                         Error *err)
{
    SafetensorsTensor wanted = {.name = (char *)name};
    Entry key = {.tensor = &wanted};
    const Entry *entry = NULL;
    if (reader->count > 0)
        entry = bsearch(&key, reader->entry, (size_t)reader->count, sizeof key, compare_entry);
    if (entry == NULL) return not_found(reader, name, err);
    const SafetensorsTensor *tensor = entry->tensor;
    const char *path = reader->shard[entry->shard].path;
    if (tensor->dtype == DTYPE_COUNT)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: tensor %s has dtype %s; F32, BF16, F16, I32, I64 and U8 can "
                         "be read",
                         path, QUOTED(name), tensor->dtype_name);
    if (tensor->rank > TENSOR_RANK_MAX)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: tensor %s has %d dimensions; up to %d can be read", path,
                         QUOTED(name), tensor->rank, TENSOR_RANK_MAX);
    *ret = entry;
    return OK;
}

static Tensor entry_tensor(const Entry *entry)
{
    Tensor tensor = {.dtype = entry->tensor->dtype, .rank = entry->tensor->rank};
    memcpy(tensor.shape, entry->tensor->shape, sizeof tensor.shape);
    return tensor;
}

Status safetensors_describe(const SafetensorsReader *reader, const char *name, Tensor *ret,
                            Error *err)
{
    const Entry *entry = NULL;
    TRY(find_entry(reader, name, &entry, err));
    *ret = entry_tensor(entry);
    return OK;
}

static Status check_unchanged(const Shard *shard, Error *err)
{
    struct stat now;
    if (fstat(shard->fd, &now) != 0)
        return error_set_errno(err, errno, "could not stat %s", shard->path);
    if (now.st_size == shard->info.st_size && now.st_mtim.tv_sec == shard->info.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == shard->info.st_mtim.tv_nsec)
        return OK;
    return error_set(err, ERR_DATA, "%s was changed while it was being read", shard->path);
}

Status safetensors_read(SafetensorsReader *reader, const char *name, int64_t first, int64_t count,
                        void *destination, Error *err)
{
    const Entry *entry = NULL;
    TRY(find_entry(reader, name, &entry, err));
    Tensor tensor = entry_tensor(entry);
    int64_t total = tensor_count(&tensor);
    if (first < 0 || count < 0 || first > total || count > total - first)
        return error_set(err, ERR_INVALID,
                         "%s: %" PRId64 " elements from number %" PRId64
                         " of tensor %s were asked for, it has %" PRId64,
                         reader->path, count, first, QUOTED(name), total);
    const Shard *shard = &reader->shard[entry->shard];
    int64_t size = (int64_t)dtype_size(tensor.dtype);
    TRY(file_read_at(shard->fd, destination, (size_t)(count * size),
                     shard->data_offset + entry->tensor->begin + first * size, shard->path, err));
    return check_unchanged(shard, err);
}
