#include "dataset/sidecar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "dataset/content_hash.h"

#define EDGE_BYTES   (64u << 10)
#define COPY_BYTES   (256u << 10)
#define FRESH_NS     INT64_C(2000000000) /* in which a file may change and keep its times */
#define SPILLED_HELD (64u << 10)         /* of a part, that waits to be written */
#define FREE_BYTES   (INT64_C(1) << 30)  /* that a spool leaves of a disk, or a twentieth of it */

/* Table or spool on its way: in memory while it is small, or nothing is kept. */
typedef struct Part {
    Str held;
    uint64_t bytes; /* all of it */
    int fd;         /* where what is not held is; -1: all of it is held */
    char *path;     /* of that; NULL: it has no name */
} Part;

struct SidecarWriter {
    const struct Opening *opening;
    bool kept;
    uint64_t salt;
    Str body;
    Part table, spool;
    Error *out_err; /* what went wrong with the sidecar, as opposed to the data file; status OK:
                       nothing */
};

/* One opening of a sidecar: what is wanted, and of which state of the file. */
typedef struct Opening {
    const SidecarKind *kind;
    const SidecarOptions *options;
    const char *path;
    uint64_t key;
} Opening;

/* ---- what tells a state of the file ---- */

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool wants_edges(const SidecarOptions *options, const IndexHead *head)
{
    return options->by_checksum || head->state.changed_ns > head->made_ns - FRESH_NS;
}

static Status hash_edges(DataFile *file, uint64_t *ret, Error *err)
{
    uint64_t file_bytes = data_file_state(file)->bytes;
    size_t edge = file_bytes < EDGE_BYTES ? (size_t)file_bytes : EDGE_BYTES;
    char *bytes = mem_alloc(2 * edge + 1);
    Status status = data_file_read(file, bytes, edge, 0, err);
    if (status == OK) status = data_file_read(file, bytes + edge, edge, file_bytes - edge, err);
    if (status == OK) *ret = XXH3_64bits(bytes, 2 * edge) | 1;
    free(bytes);
    return status;
}

static bool same_state(const IndexHead *head, const SidecarOptions *options)
{
    const FileState *known = &head->state, *now = data_file_state(options->file);
    return known->bytes == now->bytes && known->modified_ns == now->modified_ns &&
           (options->by_checksum || known->changed_ns == now->changed_ns);
}

static uint64_t salt_of(const IndexHead *head)
{
    const uint64_t told[] = {head->magic, head->key, head->state.bytes,
                             (uint64_t)head->state.modified_ns, (uint64_t)head->made_ns};
    return XXH3_64bits(told, sizeof told);
}

/* ---- reading ---- */

/* The spool, and behind it the table. */
static bool read_at(const Sidecar *sidecar, uint64_t offset, void *bytes, size_t length)
{
    const IndexHead *head = &sidecar->head;
    if (sidecar->memory != NULL) {
        memcpy(bytes, sidecar->memory + offset, length);
        return true;
    }
    if (sidecar->own != NULL)
        return data_file_read(sidecar->own, bytes, length, offset, NULL) == OK;
    return index_folder_read(sidecar->folder, head->place + head->body_bytes + offset, bytes,
                             length);
}

bool sidecar_read_table(const Sidecar *sidecar, uint64_t offset, void *bytes, size_t length)
{
    const IndexHead *head = &sidecar->head;
    return offset <= head->table_bytes && length <= head->table_bytes - offset &&
           read_at(sidecar, head->spool_bytes + offset, bytes, length);
}

bool sidecar_read_spool(const Sidecar *sidecar, uint64_t offset, void *bytes, size_t length)
{
    const IndexHead *head = &sidecar->head;
    return offset <= head->spool_bytes && length <= head->spool_bytes - offset &&
           read_at(sidecar, offset, bytes, length);
}

static char *own_path(const Opening *opening)
{
    return index_folder_file(opening->options->folder, opening->path, opening->key,
                             opening->kind->suffix);
}

static bool open_own(const Opening *opening, Sidecar *sidecar)
{
    const IndexHead *head = &sidecar->head;
    char *path = own_path(opening);
    Status status = data_file_open(index_folder_pool(sidecar->folder), path, &sidecar->own, NULL);
    free(path);
    return status == OK &&
           data_file_state(sidecar->own)->bytes == head->table_bytes + head->spool_bytes;
}

static bool load_body(Sidecar *sidecar)
{
    const IndexHead *head = &sidecar->head;
    uint8_t *body = mem_alloc(head->body_bytes + 1);
    sidecar->body = body;
    if (head->body_bytes == 0) return true;
    return index_folder_read(sidecar->folder, head->place, body, head->body_bytes) &&
           XXH3_64bits_withSeed(body, head->body_bytes, sidecar->salt) == head->body_hash;
}

static void forget(Sidecar *sidecar)
{
    free((uint8_t *)(uintptr_t)sidecar->body);
    free(sidecar->memory);
    data_file_close(sidecar->own);
    *sidecar = (Sidecar){.folder = sidecar->folder, .warning = sidecar->warning};
}

static bool find(const Opening *opening, IndexHead *ret)
{
    return index_folder_find(opening->options->folder, opening->kind->magic, opening->key, ret) &&
           same_state(ret, opening->options);
}

/* Takes what an earlier pass has kept; false: it has to be made. */
static bool load(const Opening *opening, Sidecar *sidecar)
{
    uint64_t edges = 0;
    IndexHead *head = &sidecar->head;
    if (opening->options->anew || !find(opening, head)) return false;
    bool same =
        !wants_edges(opening->options, head) ||
        (hash_edges(opening->options->file, &edges, NULL) == OK && edges == head->edge_hash);
    sidecar->salt = salt_of(head);
    same = same && load_body(sidecar) && (head->own == 0 || open_own(opening, sidecar));
    if (!same) forget(sidecar);
    sidecar->reused = same;
    return same;
}

char *sidecar_path(const Sidecar *sidecar)
{
    if (sidecar->own != NULL) return mem_strdup(data_file_path(sidecar->own));
    return mem_strdup("files.bodies");
}

char *sidecar_lost(const Sidecar *sidecar)
{
    Error err = {0};
    if (sidecar->own == NULL || data_file_check(sidecar->own, &err) == OK) return NULL;
    return mem_strndup(err.message, strcspn(err.message, "\n"));
}

/* ---- building ---- */

static void spill(SidecarWriter *writer, Part *part)
{
    if (writer->out_err->status == OK)
        file_write_all(part->fd, part->held.data, part->held.length, "the index", writer->out_err);
    str_clear(&part->held);
}

/* A part that has become large gets a file, which has a name of its own until the sidecar is whole.
 */
static void open_part(SidecarWriter *writer, Part *part)
{
    if (index_folder_make(writer->opening->options->folder, writer->out_err) != OK) return;
    char *own = own_path(writer->opening);
    part->path =
        mem_printf("%s.tmp-%d-%s", own, (int)gettid(), part == &writer->spool ? "spool" : "table");
    part->fd = open(part->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (part->fd < 0) error_set_errno(writer->out_err, errno, "could not create %s", part->path);
    free(own);
}

static void put(SidecarWriter *writer, Part *part, const void *bytes, size_t length)
{
    if (writer->out_err->status != OK) return;
    str_append(&part->held, bytes, length);
    part->bytes += length;
    if (!writer->kept || part->held.length < SPILLED_HELD) return;
    if (part->fd < 0) open_part(writer, part);
    if (part->fd >= 0) spill(writer, part);
}

void sidecar_put_body(SidecarWriter *writer, const void *bytes, size_t length)
{
    str_append(&writer->body, bytes, length);
}

void sidecar_put_table(SidecarWriter *writer, const void *bytes, size_t length)
{
    put(writer, &writer->table, bytes, length);
}

uint64_t sidecar_spool(SidecarWriter *writer, const void *bytes, size_t length)
{
    uint64_t at = writer->spool.bytes;
    put(writer, &writer->spool, bytes, length);
    return at;
}

bool sidecar_has_room(SidecarWriter *writer, uint64_t bytes)
{
    struct statvfs disk;
    if (writer->out_err->status != OK) return false;
    IndexFolder *index = writer->opening->options->folder;
    const char *folder = index_folder_path(index);
    if (!writer->kept) return true;
    if (index_folder_make(index, writer->out_err) != OK) return false;
    if (statvfs(folder, &disk) != 0) return true;
    int64_t unit = (int64_t)disk.f_frsize, left = (int64_t)disk.f_bavail * unit;
    int64_t stays = (int64_t)disk.f_blocks * unit / 20;
    if (stays > FREE_BYTES) stays = FREE_BYTES;
    if (left - stays >= (int64_t)bytes) return true;
    error_set(
        writer->out_err, ERR_RESOURCE,
        "the index of %s would become %.1f MB larger, and the disk of %s has %.1f MB free, of "
        "which %.1f MB stay free",
        writer->opening->path, (double)bytes * 1e-6, folder, (double)left * 1e-6,
        (double)stays * 1e-6);
    return false;
}

bool sidecar_is_kept(const SidecarWriter *writer)
{
    return writer->kept;
}

uint64_t sidecar_salt(const SidecarWriter *writer)
{
    return writer->salt;
}

static void free_part(Part *part)
{
    if (part->fd >= 0) close(part->fd);
    if (part->fd >= 0 && part->path != NULL) unlink(part->path);
    free(part->path);
    str_free(&part->held);
}

/* A spool may be as large as the data, so it is written once and the table is put behind it. */
static void append_table(SidecarWriter *writer)
{
    Part *spool = &writer->spool, *table = &writer->table;
    uint64_t written = table->bytes - table->held.length;
    char *bytes = mem_alloc(COPY_BYTES);
    Error *err = writer->out_err;
    for (uint64_t at = 0; at < written && err->status == OK;) {
        size_t length = written - at < COPY_BYTES ? (size_t)(written - at) : COPY_BYTES;
        if (file_read_at(table->fd, bytes, length, (int64_t)at, "the index", err) == OK)
            file_write_all(spool->fd, bytes, length, "the index", err);
        at += length;
    }
    if (err->status == OK)
        file_write_all(spool->fd, table->held.data, table->held.length, "the index", err);
    free(bytes);
}

static void keep_own_file(SidecarWriter *writer)
{
    Part *part = writer->spool.bytes > 0 ? &writer->spool : &writer->table;
    Error *err = writer->out_err;
    if (part->fd < 0) open_part(writer, part);
    if (part->fd < 0) return;
    spill(writer, part);
    if (part == &writer->spool) append_table(writer);
    char *path = own_path(writer->opening);
    if (err->status == OK && rename(part->path, path) != 0)
        error_set_errno(err, errno, "could not rename %s to %s", part->path, path);
    free(path);
    if (err->status != OK) return;
    free(part->path);
    part->path = NULL;
}

/* Hands what was found to the folder. */
static void keep(SidecarWriter *writer, Sidecar *sidecar)
{
    IndexFolder *folder = sidecar->folder;
    IndexHead *head = &sidecar->head;
    Str *body = &writer->body;
    head->own = writer->table.fd >= 0 || writer->spool.fd >= 0 ||
                head->table_bytes + head->spool_bytes > INDEX_OWN_BYTES;
    if (head->own != 0) {
        keep_own_file(writer);
    } else {
        str_append(body, writer->spool.held.data, writer->spool.held.length);
        str_append(body, writer->table.held.data, writer->table.held.length);
    }
    if (writer->out_err->status == OK && body->length > 0)
        index_folder_append(folder, body->data, body->length, &head->place, writer->out_err);
    if (writer->out_err->status == OK) index_folder_keep(folder, head, writer->out_err);
    if (writer->out_err->status == OK && head->own != 0 && !open_own(writer->opening, sidecar))
        error_set(writer->out_err, ERR_IO, "could not open the index of %s", writer->opening->path);
}

static void hold(SidecarWriter *writer, Sidecar *sidecar)
{
    Str *spool = &writer->spool.held;
    str_append(spool, writer->table.held.data, writer->table.held.length);
    sidecar->memory = (uint8_t *)str_take(spool);
}

static Status make_pass(SidecarWriter *writer, IndexHead *head, Error *err)
{
    const Opening *opening = writer->opening;
    const SidecarOptions *options = opening->options;
    *head = (IndexHead){.magic = opening->kind->magic,
                        .key = opening->key,
                        .state = *data_file_state(options->file),
                        .made_ns = now_ns()};
    writer->salt = salt_of(head);
    Status status = opening->kind->build(options->context, writer, head, err);
    if (status == OK && wants_edges(options, head))
        status = hash_edges(options->file, &head->edge_hash, err);
    if (status == ERR_CANCELLED) return status;
    /* Whatever became of the pass: of a file that changed that is what there is to say. */
    if (data_file_check(options->file, NULL) == ERR_IO)
        return error_set(err, ERR_IO,
                         "%s changed while it was being read; start again when it is complete",
                         opening->path);
    if (status == OK) status = data_file_check(options->file, err);
    if (status != OK) return status;
    head->body_bytes = writer->body.length;
    head->table_bytes = writer->table.bytes;
    head->spool_bytes = writer->spool.bytes;
    head->body_hash = XXH3_64bits_withSeed(writer->body.data, writer->body.length, writer->salt);
    return OK;
}

/* With `kept`, what keeps the sidecar from being written is told in its warning, and nothing is
 * made then. */
static Status build(const Opening *opening, bool kept, Sidecar *sidecar, bool *ret_made, Error *err)
{
    Error out_err = {0};
    SidecarWriter writer = {.opening = opening,
                            .kept = kept,
                            .table = {.fd = -1},
                            .spool = {.fd = -1},
                            .out_err = &out_err};
    Status status = make_pass(&writer, &sidecar->head, err);
    *ret_made = false;
    if (status == OK && out_err.status == OK) {
        size_t body_bytes = writer.body.length;
        sidecar->salt = writer.salt;
        sidecar->body = memcpy(mem_alloc(body_bytes + 1), str_text(&writer.body), body_bytes);
        if (kept)
            keep(&writer, sidecar);
        else
            hold(&writer, sidecar);
        *ret_made = out_err.status == OK;
    }
    if (!*ret_made) forget(sidecar);
    if (out_err.status != OK) sidecar->warning = mem_strdup(out_err.message);
    free_part(&writer.table);
    free_part(&writer.spool);
    str_free(&writer.body);
    return status;
}

static Opening opening_of(const SidecarKind *kind, const SidecarOptions *options)
{
    const char *path = data_file_path(options->file);
    return (Opening){kind, options, path, index_folder_key(options->folder, path)};
}

bool sidecar_known(const SidecarKind *kind, const SidecarOptions *options, IndexHead *ret)
{
    Opening opening = opening_of(kind, options);
    return find(&opening, ret);
}

Status sidecar_open(const SidecarKind *kind, const SidecarOptions *options, Sidecar **ret,
                    Error *err)
{
    Opening opening = opening_of(kind, options);
    Sidecar *sidecar = mem_calloc(1, sizeof *sidecar);
    sidecar->folder = options->folder;
    bool made = load(&opening, sidecar);
    Status status = OK;
    if (!made && index_folder_writes(options->folder))
        status = build(&opening, true, sidecar, &made, err);
    if (status == OK && !made) status = build(&opening, false, sidecar, &made, err);
    if (status == OK) {
        CHECK(made);
        *ret = sidecar;
        sidecar = NULL;
    }
    sidecar_close(sidecar);
    return status;
}

void sidecar_close(Sidecar *sidecar)
{
    if (sidecar == NULL) return;
    forget(sidecar);
    free(sidecar->warning);
    free(sidecar);
}
