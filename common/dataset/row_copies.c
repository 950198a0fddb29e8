#include "dataset/row_copies.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "dataset/content_hash.h"

#define SPOOLED_BYTES (256u << 10) /* that are written at once */
#define SMALL_BYTES   (8u << 10)
#define PACKED_MOST   256 /* bytes that LZ4 can make of one */

/* In front of the compressed rows. */
typedef struct PieceHead {
    uint64_t hash; /* of the rows, and of which piece of which pass they are */
    uint64_t bytes;
} PieceHead;

struct RowCopier {
    const TableLibrary *library;
    SidecarWriter *writer;
    OffsetWriter offsets;
    uint64_t count, next, end;
    Str waiting; /* pieces that are not in the spool yet: its last bytes */
};

bool row_copies_possible(const TableLibrary *library)
{
    return library->pack_bound(1) > 0;
}

RowCopier *row_copier_open(const TableLibrary *library, SidecarWriter *writer, uint64_t count)
{
    RowCopier *copier = mem_calloc(1, sizeof *copier);
    copier->library = library;
    copier->writer = writer;
    copier->count = count;
    copier->offsets.sidecar = writer;
    return copier;
}

void row_copier_close(RowCopier *copier)
{
    if (copier == NULL) return;
    str_free(&copier->waiting);
    free(copier);
}

static void spool_waiting(RowCopier *copier)
{
    if (copier->waiting.length > 0)
        sidecar_spool(copier->writer, copier->waiting.data, copier->waiting.length);
    str_clear(&copier->waiting);
}

static void put_offset(RowCopier *copier)
{
    (void)offset_writer_put(&copier->offsets, copier->end, ++copier->next);
}

static uint64_t hash_rows(const TableRows *rows, size_t bytes, uint64_t salt, uint64_t piece)
{
    return XXH3_64bits_withSeed(rows, bytes, salt + piece);
}

static void skip_to(RowCopier *copier, uint64_t piece)
{
    while (copier->next < piece)
        put_offset(copier);
}

bool row_copier_put(RowCopier *copier, uint64_t piece, const TableRows *rows, size_t bytes)
{
    Str *waiting = &copier->waiting;
    CHECK(piece >= copier->next && piece < copier->count);
    skip_to(copier, piece);
    size_t bound = copier->library->pack_bound(bytes);
    PieceHead head = {hash_rows(rows, bytes, sidecar_salt(copier->writer), piece), bytes};
    str_reserve(waiting, waiting->length + sizeof head + bound);
    char *out = waiting->data + waiting->length;
    size_t packed = copier->library->pack(rows, bytes, out + sizeof head, bound);
    if (packed == 0) return true; /* too large for it */
    memcpy(out, &head, sizeof head);
    waiting->length += sizeof head + packed;
    put_offset(copier);
    copier->end += sizeof head + packed;
    if (waiting->length <= SPOOLED_BYTES) return true;
    spool_waiting(copier);
    double each = (double)copier->end / (double)copier->next;
    return sidecar_has_room(copier->writer,
                            (uint64_t)(each * (double)(copier->count - copier->next)));
}

void row_copier_finish(RowCopier *copier)
{
    skip_to(copier, copier->count);
    spool_waiting(copier);
    offset_writer_end(&copier->offsets, copier->end);
}

/* ---- reading ---- */

/* Where the rows are put behind a text, aligned for them. */
static size_t room_behind(const Str *text)
{
    return (text->length + 7) / 8 * 8;
}

/* The rows are made behind the text, in its own memory. */
static bool unpack_behind(const RowCopies *copies, uint64_t piece, const char *packed,
                          size_t packed_bytes, uint64_t row, Str *text)
{
    PieceHead head;
    size_t at = room_behind(text);
    memcpy(&head, packed, sizeof head);
    if (head.bytes / PACKED_MOST > packed_bytes) return false;
    str_reserve(text, at + head.bytes);
    TableRows *rows = (TableRows *)(void *)(text->data + at);
    if (!copies->library->unpack(packed + sizeof head, packed_bytes - sizeof head, rows,
                                 head.bytes) ||
        hash_rows(rows, head.bytes, copies->sidecar->salt, piece) != head.hash || row >= rows->rows)
        return false;
    uint64_t begin = rows->offset[row];
    size_t length = (size_t)(rows->offset[row + 1] - begin);
    memmove(text->data + text->length, text->data + at + begin, length);
    text->length += length;
    return true;
}

RowCopyResult row_copies_read(const RowCopies *copies, uint64_t piece, uint64_t row, Str *text)
{
    char few[SMALL_BYTES];
    OffsetPlace place;
    if (piece >= copies->count) return ROW_COPY_NONE;
    if (!offset_table_find(copies->sidecar, piece, &place)) return ROW_COPY_DAMAGED;
    size_t bytes = (size_t)(place.end - place.begin);
    if (bytes == 0) return ROW_COPY_NONE;
    if (bytes <= sizeof(PieceHead)) return ROW_COPY_DAMAGED;
    char *packed = bytes <= sizeof few ? few : mem_alloc(bytes);
    bool whole = sidecar_read_spool(copies->sidecar, place.begin, packed, bytes) &&
                 unpack_behind(copies, piece, packed, bytes, row, text);
    if (packed != few) free(packed);
    str_reserve(text, text->length + 1);
    text->data[text->length] = '\0';
    return whole ? ROW_COPY_READ : ROW_COPY_DAMAGED;
}
