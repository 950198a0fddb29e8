#include "dataset/index.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"

#define INDEX_MAGIC   UINT64_C(0x3178646965707254) /* "Trpeidx1" on a little-endian machine */
#define READ_BYTES    (256u << 10) /* stays in the cache for the hash and the scan */
#define EDGE_BYTES    (64u << 10)
#define OFFSET_BUFFER 8192

/* A run of blank lines: it stands before `record`, and `blank_lines` counts all blank lines above
 * that record. */
typedef struct Gap {
    uint64_t record;
    uint64_t blank_lines;
} Gap;

/* The sidecar: this header, offsets[records + 1] (the last is the size of the file),
 * gaps[num_gaps]. All numbers are as the machine has them; a machine of another byte order sees
 * another magic number. */
typedef struct IndexHeader {
    uint64_t magic;
    uint64_t path_hash;
    uint64_t file_bytes;
    int64_t modified_ns;
    uint64_t edge_hash;
    uint64_t content_hash;
    uint64_t records;
    uint64_t num_gaps;
    uint64_t body_hash;   /* of offsets and gaps */
    uint64_t header_hash; /* of all fields above */
} IndexHeader;

struct LineIndex {
    IndexHeader header;
    void *map;
    size_t map_bytes;
    const uint64_t *offset; /* [records + 1], in the map */
    const Gap *gap;         /* [num_gaps], in the map */
    bool reused;
    char *warning;
};

static uint64_t header_hash(const IndexHeader *header)
{
    return XXH3_64bits(header, offsetof(IndexHeader, header_hash));
}

static Status read_identity(int fd, const char *path, IndexHeader *ret, Error *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0) return error_set_errno(err, errno, "could not stat %s", path);
    if (!S_ISREG(info.st_mode))
        return error_set(err, ERR_INVALID, "%s is not a regular file, which a data set must be",
                         path);
    char *real = realpath(path, NULL);
    const char *name = real != NULL ? real : path;
    IndexHeader header = {
        .magic = INDEX_MAGIC,
        .path_hash = XXH3_64bits(name, strlen(name)),
        .file_bytes = (uint64_t)info.st_size,
        .modified_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec,
    };
    free(real);
    size_t edge = header.file_bytes < EDGE_BYTES ? (size_t)header.file_bytes : EDGE_BYTES;
    char *bytes = mem_alloc(2 * edge);
    Status status = file_read_at(fd, bytes, edge, 0, path, err);
    if (status == OK)
        status =
            file_read_at(fd, bytes + edge, edge, (int64_t)(header.file_bytes - edge), path, err);
    if (status == OK) {
        header.edge_hash = XXH3_64bits(bytes, 2 * edge);
        *ret = header;
    }
    free(bytes);
    return status;
}

/* Maps an index file; false when it is not a whole one. */
static bool map_index(int fd, LineIndex *index)
{
    IndexHeader header;
    struct stat info;
    if (fstat(fd, &info) != 0 || info.st_size < (off_t)sizeof header) return false;
    size_t bytes = (size_t)info.st_size;
    void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return false;
    memcpy(&header, map, sizeof header);
    const char *body = (const char *)map + sizeof header;
    size_t body_bytes = bytes - sizeof header;
    bool whole =
        header.magic == INDEX_MAGIC && header.header_hash == header_hash(&header) &&
        body_bytes == (header.records + 1) * sizeof(uint64_t) + header.num_gaps * sizeof(Gap) &&
        header.body_hash == XXH3_64bits(body, body_bytes);
    if (!whole) {
        munmap(map, bytes);
        return false;
    }
    index->header = header;
    index->map = map;
    index->map_bytes = bytes;
    index->offset = (const uint64_t *)(const void *)body;
    index->gap = (const Gap *)(const void *)(index->offset + header.records + 1);
    return true;
}

static void unmap_index(LineIndex *index)
{
    if (index->map != NULL) munmap(index->map, index->map_bytes);
    index->map = NULL;
}

static bool load_sidecar(const char *sidecar, const IndexHeader *identity, LineIndex *index)
{
    int fd = open(sidecar, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool same = false;
    if (map_index(fd, index)) {
        const IndexHeader *found = &index->header;
        same =
            found->path_hash == identity->path_hash && found->file_bytes == identity->file_bytes &&
            found->modified_ns == identity->modified_ns && found->edge_hash == identity->edge_hash;
        if (!same) unmap_index(index);
    }
    close(fd);
    index->reused = same;
    return same;
}

/* ---- building ---- */

/* The file that is to be indexed. */
typedef struct Source {
    int fd;
    const char *path;
    IndexHeader identity;
    const LineIndexOptions *options;
} Source;

typedef struct Builder {
    int out;
    Error
        *out_err; /* what went wrong with `out`, as opposed to the data file; status OK: nothing */
    XXH3_state_t *content_hash, *body_hash;
    uint64_t offset[OFFSET_BUFFER];
    size_t num_offsets; /* waiting in `offset` */
    Gap *gap;
    size_t num_gaps, gap_capacity;
    uint64_t records, blank_lines;
    uint64_t records_max;
    bool full;           /* the line being scanned would be one record too many */
    uint64_t line_begin; /* of the line being scanned */
    bool blank;          /* nothing but white space in it so far */
} Builder;

static void put_body(Builder *builder, const void *bytes, size_t length)
{
    if (builder->out_err->status != OK) return;
    XXH3_64bits_update(builder->body_hash, bytes, length);
    file_write_all(builder->out, bytes, length, "the index", builder->out_err);
}

static void put_offset(Builder *builder, uint64_t offset)
{
    builder->offset[builder->num_offsets++] = offset;
    if (builder->num_offsets < OFFSET_BUFFER) return;
    put_body(builder, builder->offset, sizeof builder->offset);
    builder->num_offsets = 0;
}

static void add_record(Builder *builder)
{
    builder->full = builder->records == builder->records_max;
    if (builder->full) return;
    uint64_t counted = builder->num_gaps > 0 ? builder->gap[builder->num_gaps - 1].blank_lines : 0;
    if (builder->blank_lines > counted) {
        if (builder->num_gaps == builder->gap_capacity) {
            builder->gap_capacity = 2 * builder->gap_capacity + 64;
            builder->gap = mem_realloc(builder->gap, builder->gap_capacity, sizeof *builder->gap);
        }
        builder->gap[builder->num_gaps++] = (Gap){builder->records, builder->blank_lines};
    }
    put_offset(builder, builder->line_begin);
    builder->records++;
}

/* Scans the next `length` bytes of the file, which begin at file offset `base`. */
static void scan(Builder *builder, const char *bytes, size_t length, uint64_t base)
{
    const char *at = bytes, *end = bytes + length;
    if (base == 0 && length >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0) {
        at += 3;
        builder->line_begin = 3;
    }
    while (at < end) {
        if (builder->blank) {
            while (at < end && (*at == ' ' || *at == '\t' || *at == '\r'))
                at++;
            if (at == end) return;
            if (*at != '\n') {
                add_record(builder);
                if (builder->full) return;
                builder->blank = false;
            }
        }
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if (newline == NULL) return;
        at = newline + 1;
        if (builder->blank) builder->blank_lines++;
        builder->line_begin = base + (uint64_t)(at - bytes);
        builder->blank = true;
    }
}

static Status scan_file(const Source *source, Builder *builder, Error *err)
{
    int fd = source->fd;
    uint64_t file_bytes = source->identity.file_bytes;
    char *bytes = mem_alloc(READ_BYTES);
    Status status = OK;
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    ReadWatch *watch = source->options->watch;
    for (uint64_t at = 0; at < file_bytes && status == OK && builder->out_err->status == OK;) {
        size_t length = file_bytes - at < READ_BYTES ? (size_t)(file_bytes - at) : READ_BYTES;
        status = file_read_at(fd, bytes, length, (int64_t)at, source->path, err);
        if (status != OK) break;
        XXH3_64bits_update(builder->content_hash, bytes, length);
        scan(builder, bytes, length, at);
        if (builder->full) break;
        at += length;
        if (watch != NULL) watch->progress++;
        if (watch != NULL && watch->cancelled)
            status = error_set(err, ERR_CANCELLED, "reading %s was cancelled", source->path);
    }
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM); /* what follows is one line here, one line there */
    free(bytes);
    return status;
}

/* Puts the header in front of the body, now that all of it is known. */
static void put_header(Builder *builder, IndexHeader header)
{
    header.records = builder->records;
    header.num_gaps = builder->num_gaps;
    header.content_hash = XXH3_64bits_digest(builder->content_hash);
    header.body_hash = XXH3_64bits_digest(builder->body_hash);
    header.header_hash = header_hash(&header);
    if (builder->out_err->status == OK && lseek(builder->out, 0, SEEK_SET) == 0)
        file_write_all(builder->out, &header, sizeof header, "the index", builder->out_err);
}

/* Writes the whole index of `source` to the open, empty file `out`. A failure of `out` alone is
 * told in *out_err, whose status is OK before. */
static Status build(const Source *source, int out, Error *out_err, Error *err)
{
    const IndexHeader *identity = &source->identity;
    Builder *builder = mem_calloc(1, sizeof *builder);
    builder->out = out;
    builder->out_err = out_err;
    builder->blank = true;
    builder->records_max =
        source->options->records_max > 0 ? source->options->records_max : UINT64_MAX;
    builder->content_hash = XXH3_createState();
    builder->body_hash = XXH3_createState();
    CHECK(builder->content_hash != NULL && builder->body_hash != NULL);
    XXH3_64bits_reset(builder->content_hash);
    XXH3_64bits_reset(builder->body_hash);

    IndexHeader now;
    if (lseek(out, sizeof now, SEEK_SET) < 0)
        error_set_errno(out_err, errno, "could not write the index");
    Status status = scan_file(source, builder, err);
    if (status != OK) goto done;
    put_offset(builder, builder->full ? builder->line_begin : identity->file_bytes);
    put_body(builder, builder->offset, builder->num_offsets * sizeof *builder->offset);
    put_body(builder, builder->gap, builder->num_gaps * sizeof *builder->gap);

    status = read_identity(source->fd, source->path, &now, err);
    if (status != OK) goto done;
    if (now.file_bytes != identity->file_bytes || now.modified_ns != identity->modified_ns) {
        status = error_set(err, ERR_IO,
                           "%s changed while it was being read; start again when it is complete",
                           source->path);
        goto done;
    }
    put_header(builder, *identity);
done:
    XXH3_freeState(builder->content_hash);
    XXH3_freeState(builder->body_hash);
    free(builder->gap);
    free(builder);
    return status;
}

/* Removes what builders that were killed left beside this sidecar. One that still lives keeps its
 * open file. */
static void remove_leftovers(const char *folder, const char *sidecar)
{
    char *prefix = mem_printf("%s.tmp-", path_name(sidecar));
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;)
        if (str_starts_with(entry->d_name, prefix)) unlinkat(dirfd(entries), entry->d_name, 0);
    if (entries != NULL) closedir(entries);
    free(prefix);
}

/* Builds into a sidecar. When only that failed, the status is OK, the map absent and the reason in
 * the warning. */
static Status build_sidecar(const Source *source, const char *sidecar, LineIndex *index, Error *err)
{
    char *temporary = mem_printf("%s.tmp-%d", sidecar, (int)gettid());
    Error out_err = {0};
    Status status = OK;
    bool renamed = false;
    int out = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (out < 0) {
        error_set_errno(&out_err, errno, "could not create %s", temporary);
        goto done;
    }
    status = build(source, out, &out_err, err);
    if (status != OK || out_err.status != OK) goto done;
    if (!map_index(out, index)) {
        error_set(&out_err, ERR_IO, "could not map %s", temporary);
    } else if (rename(temporary, sidecar) != 0) {
        error_set_errno(&out_err, errno, "could not rename %s to %s", temporary, sidecar);
    } else {
        renamed = true;
    }
done:
    if (out_err.status != OK) index->warning = mem_strdup(out_err.message);
    if (out >= 0 && !renamed) unlink(temporary);
    if (out >= 0) close(out);
    free(temporary);
    return status;
}

static Status build_in_memory(const Source *source, LineIndex *index, Error *err)
{
    int out = memfd_create("troupe-index", MFD_CLOEXEC);
    if (out < 0)
        return error_set_errno(err, errno, "could not make room for the index of %s", source->path);
    Error out_err = {0};
    Status status = build(source, out, &out_err, err);
    if (status == OK && (out_err.status != OK || !map_index(out, index)))
        status =
            error_set(err, ERR_RESOURCE, "not enough memory for the index of %s", source->path);
    close(out);
    return status;
}

static char *sidecar_path(const char *folder, const Source *source)
{
    char *name = mem_printf("%.100s-%016llx.idx", path_name(source->path),
                            (unsigned long long)source->identity.path_hash);
    char *sidecar = path_join(folder, name);
    free(name);
    return sidecar;
}

static Status open_with_sidecar(const Source *source, LineIndex *index, Error *err)
{
    const LineIndexOptions *options = source->options;
    Error folder_err = {0};
    Status status = OK;
    char *sidecar = sidecar_path(options->folder, source);
    if (load_sidecar(sidecar, &source->identity, index) || options->read_only) goto done;
    if (folder_create(options->folder, &folder_err) != OK) {
        index->warning = mem_strdup(folder_err.message);
        goto done;
    }
    remove_leftovers(options->folder, sidecar);
    status = build_sidecar(source, sidecar, index, err);
done:
    free(sidecar);
    return status;
}

Status line_index_open(int fd, const char *path, const LineIndexOptions *options, LineIndex **ret,
                       Error *err)
{
    CHECK(options->records_max == 0 || options->folder == NULL || options->read_only);
    Source source = {.fd = fd, .path = path, .options = options};
    TRY(read_identity(fd, path, &source.identity, err));
    LineIndex *index = mem_calloc(1, sizeof *index);
    Status status = OK;
    if (options->folder != NULL) status = open_with_sidecar(&source, index, err);
    if (status == OK && index->map == NULL) status = build_in_memory(&source, index, err);
    if (status == OK) {
        *ret = index;
        index = NULL;
    }
    line_index_close(index);
    return status;
}

void line_index_close(LineIndex *index)
{
    if (index == NULL) return;
    unmap_index(index);
    free(index->warning);
    free(index);
}

LineIndexSummary line_index_summary(const LineIndex *index)
{
    return (LineIndexSummary){
        .records = index->header.records,
        .content_hash = index->header.content_hash,
        .file_bytes = index->header.file_bytes,
        .modified_ns = index->header.modified_ns,
        .reused = index->reused,
        .whole = index->offset[index->header.records] == index->header.file_bytes,
    };
}

const char *line_index_warning(const LineIndex *index)
{
    return index->warning;
}

uint64_t line_index_record(const LineIndex *index, uint64_t record, uint64_t *ret_begin,
                           uint64_t *ret_end)
{
    CHECK(record < index->header.records);
    *ret_begin = index->offset[record];
    *ret_end = index->offset[record + 1];
    size_t low = 0, high = (size_t)index->header.num_gaps; /* the gaps at or before the record */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (index->gap[middle].record <= record)
            low = middle + 1;
        else
            high = middle;
    }
    return record + 1 + (low > 0 ? index->gap[low - 1].blank_lines : 0);
}
