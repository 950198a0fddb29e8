#include "dataset/offset_table.h"

#include <stddef.h>
#include <string.h>

#include "base/error.h"
#include "dataset/content_hash.h"

#define GROWN_SHIFT 48
#define GROWN_MANY  UINT64_C(0xFFFF) /* so much or more: a jump */

_Static_assert(sizeof(OffsetChunk) == 512, "a chunk does not cross a sector of the disk");

static uint64_t chunk_check(const OffsetChunk *chunk, uint64_t salt, uint64_t index)
{
    return XXH3_64bits_withSeed(chunk, offsetof(OffsetChunk, check), salt + index);
}

static void write_chunk(OffsetWriter *writer, uint64_t end)
{
    OffsetChunk *chunk = &writer->chunk;
    uint64_t index = (writer->count - 1) / OFFSETS_A_CHUNK;
    for (uint64_t i = writer->count - index * OFFSETS_A_CHUNK; i < OFFSETS_A_CHUNK; i++)
        chunk->entry[i] = end;
    chunk->end = end;
    chunk->check = chunk_check(chunk, sidecar_salt(writer->sidecar), index);
    sidecar_put_table(writer->sidecar, chunk, sizeof *chunk);
    memset(chunk, 0, sizeof *chunk);
}

bool offset_writer_put(OffsetWriter *writer, uint64_t offset, uint64_t number)
{
    CHECK(offset <= OFFSET_MAX);
    size_t at = (size_t)(writer->count % OFFSETS_A_CHUNK);
    uint64_t grown = 0;
    if (at > 0) grown = number - writer->number - 1;
    if (at == 0 && writer->count > 0) write_chunk(writer, offset);
    if (at == 0) writer->chunk.number = number;
    bool held = grown < GROWN_MANY;
    if (!held) grown = GROWN_MANY;
    writer->chunk.entry[at] = offset | grown << GROWN_SHIFT;
    writer->number = number;
    writer->count++;
    return held;
}

void offset_writer_end(OffsetWriter *writer, uint64_t end)
{
    if (writer->count > 0) write_chunk(writer, end);
}

bool offset_table_find(const Sidecar *sidecar, uint64_t index, OffsetPlace *ret)
{
    OffsetChunk chunk;
    uint64_t number = index / OFFSETS_A_CHUNK;
    size_t at = (size_t)(index % OFFSETS_A_CHUNK);
    if (!sidecar_read_table(sidecar, number * sizeof chunk, &chunk, sizeof chunk) ||
        chunk.check != chunk_check(&chunk, sidecar->salt, number))
        return false;
    ret->begin = chunk.entry[at] & OFFSET_MAX;
    ret->end = at + 1 < OFFSETS_A_CHUNK ? chunk.entry[at + 1] & OFFSET_MAX : chunk.end;
    ret->number = chunk.number;
    ret->jumped = NO_JUMP;
    for (size_t i = 1; i <= at; i++) {
        uint64_t grown = chunk.entry[i] >> GROWN_SHIFT;
        ret->number += 1 + grown;
        if (grown < GROWN_MANY) continue;
        ret->number = 0;
        ret->jumped = number * OFFSETS_A_CHUNK + i;
    }
    return true;
}
