#include "stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

void stream_init(Stream *stream, SetName set, int64_t capacity)
{
    CHECK(capacity > 0);
    *stream = (Stream){.set = set, .records = -1, .capacity = capacity};
    stream->slot = mem_calloc((size_t)capacity, sizeof *stream->slot);
}

void stream_free(Stream *stream)
{
    free(stream->slot);
    stream->slot = NULL;
}

static Slot *slot_at(const Stream *stream, int64_t position)
{
    return &stream->slot[position % stream->capacity];
}

static bool in_window(const Stream *stream, int64_t position)
{
    return position >= stream->base && position < stream->base + stream->capacity;
}

void stream_restart(Stream *stream, int64_t base)
{
    memset(stream->slot, 0, (size_t)stream->capacity * sizeof *stream->slot);
    stream->base = base;
    stream->top = base;
    stream->rejected_ahead = 0;
}

int stream_lease(Stream *stream, int worker, int64_t limit, int count_max, int64_t *ret_first)
{
    if (limit > stream->end) limit = stream->end;
    if (limit > stream->base + stream->capacity) limit = stream->base + stream->capacity;
    int64_t first = stream->base;
    while (first < limit && slot_at(stream, first)->state != SLOT_FREE)
        first++;
    int count = 0;
    while (count < count_max && first + count < limit &&
           slot_at(stream, first + count)->state == SLOT_FREE) {
        *slot_at(stream, first + count) = (Slot){.state = SLOT_LEASED, .worker = worker};
        count++;
    }
    if (first + count > stream->top) stream->top = first + count;
    *ret_first = first;
    return count;
}

bool stream_deliver(Stream *stream, int worker, const SampleMeta *meta)
{
    if (!in_window(stream, meta->position)) return false;
    Slot *slot = slot_at(stream, meta->position);
    if (slot->state != SLOT_LEASED || slot->worker != worker) return false;
    slot->state = meta->status == SAMPLE_REJECTED ? SLOT_REJECTED : SLOT_READY;
    slot->meta = *meta;
    if (slot->state == SLOT_REJECTED) stream->rejected_ahead++;
    return true;
}

void stream_lease_failed(Stream *stream, int worker, int64_t first, int count)
{
    for (int64_t p = first; p < first + count; p++) {
        if (!in_window(stream, p)) continue;
        Slot *slot = slot_at(stream, p);
        if (slot->state == SLOT_LEASED && slot->worker == worker) slot->state = SLOT_FREE;
    }
}

void stream_worker_lost(Stream *stream, int worker)
{
    for (int64_t p = stream->base; p < stream->top; p++) {
        Slot *slot = slot_at(stream, p);
        bool lost = slot->state == SLOT_LEASED || slot->state == SLOT_READY;
        if (lost && slot->worker == worker) slot->state = SLOT_FREE;
    }
}

void stream_take(Stream *stream, int64_t first, int64_t end)
{
    for (int64_t p = first; p < end; p++)
        if (in_window(stream, p) && slot_at(stream, p)->state == SLOT_READY)
            slot_at(stream, p)->state = SLOT_TAKEN;
}

void stream_consume(Stream *stream, int64_t position)
{
    CHECK(position >= stream->base);
    for (; stream->base < position; stream->base++) {
        if (slot_at(stream, stream->base)->state == SLOT_REJECTED) stream->rejected_ahead--;
        *slot_at(stream, stream->base) = (Slot){.state = SLOT_FREE};
    }
    if (stream->top < stream->base) stream->top = stream->base;
}

const Slot *stream_slot(const Stream *stream, int64_t position)
{
    return in_window(stream, position) ? slot_at(stream, position) : NULL;
}

int stream_ready_count(const Stream *stream, int64_t position, int limit)
{
    int ready = 0;
    for (; ready < limit && position < stream->end; position++) {
        const Slot *slot = stream_slot(stream, position);
        if (slot == NULL || (slot->state != SLOT_READY && slot->state != SLOT_REJECTED)) break;
        if (slot->state == SLOT_READY) ready++;
    }
    return ready;
}
