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
    uint64_t hash; /* XXH3 of the rows */
    uint64_t bytes;
} PieceHead;

struct RowCopier {
    const TableLibrary *library;
    SidecarWriter *writer;
    uint64_t *offset; /* [count + 1], as far as `next` */
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
    copier->offset = mem_calloc(count + 1, sizeof *copier->offset);
    return copier;
}

void row_copier_close(RowCopier *copier)
{
    if (copier == NULL) return;
    str_free(&copier->waiting);
    free(copier->offset);
    free(copier);
}

static void spool_waiting(RowCopier *copier)
{
    if (copier->waiting.length > 0)
        sidecar_spool(copier->writer, copier->waiting.data, copier->waiting.length);
    str_clear(&copier->waiting);
}

static void skip_to(RowCopier *copier, uint64_t piece)
{
    while (copier->next < piece)
        copier->offset[copier->next++] = copier->end;
}

bool row_copier_put(RowCopier *copier, uint64_t piece, const TableRows *rows, size_t bytes)
{
    Str *waiting = &copier->waiting;
    CHECK(piece >= copier->next && piece < copier->count);
    skip_to(copier, piece);
    size_t bound = copier->library->pack_bound(bytes);
    PieceHead head = {XXH3_64bits(rows, bytes), bytes};
    str_reserve(waiting, waiting->length + sizeof head + bound);
    char *out = waiting->data + waiting->length;
    size_t packed = copier->library->pack(rows, bytes, out + sizeof head, bound);
    if (packed == 0) return true; /* too large for it */
    memcpy(out, &head, sizeof head);
    waiting->length += sizeof head + packed;
    copier->offset[copier->next++] = copier->end;
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
    copier->offset[copier->count] = copier->end;
    spool_waiting(copier);
    sidecar_put(copier->writer, copier->offset, (copier->count + 1) * sizeof *copier->offset);
}

/* ---- reading ---- */

bool row_copies_have(const RowCopies *copies, uint64_t piece)
{
    return piece < copies->count && copies->offset[piece] < copies->offset[piece + 1];
}

/* Where the rows are put behind a text, aligned for them. */
static size_t room_behind(const Str *text)
{
    return (text->length + 7) / 8 * 8;
}

/* The rows are made behind the text, in its own memory. */
static bool unpack_behind(const RowCopies *copies, const char *packed, size_t packed_bytes,
                          uint64_t row, Str *text)
{
    PieceHead head;
    size_t at = room_behind(text);
    memcpy(&head, packed, sizeof head);
    if (head.bytes / PACKED_MOST > packed_bytes) return false;
    str_reserve(text, at + head.bytes);
    TableRows *rows = (TableRows *)(void *)(text->data + at);
    if (!copies->library->unpack(packed + sizeof head, packed_bytes - sizeof head, rows,
                                 head.bytes) ||
        XXH3_64bits(rows, head.bytes) != head.hash || row >= rows->rows)
        return false;
    uint64_t begin = rows->offset[row];
    size_t length = (size_t)(rows->offset[row + 1] - begin);
    memmove(text->data + text->length, text->data + at + begin, length);
    text->length += length;
    return true;
}

bool row_copies_read(const RowCopies *copies, uint64_t piece, uint64_t row, Str *text)
{
    char few[SMALL_BYTES];
    uint64_t begin = copies->offset[piece];
    size_t bytes = (size_t)(copies->offset[piece + 1] - begin);
    if (bytes <= sizeof(PieceHead)) return false;
    char *packed = bytes <= sizeof few ? few : mem_alloc(bytes);
    bool whole = sidecar_read(copies->sidecar, begin, packed, bytes) &&
                 unpack_behind(copies, packed, bytes, row, text);
    if (packed != few) free(packed);
    str_reserve(text, text->length + 1);
    text->data[text->length] = '\0';
    return whole;
}
