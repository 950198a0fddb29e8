#include "core/stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

void stream_init(Stream *stream, SetName set, int64_t capacity, int group_size)
{
    CHECK(capacity > 0 && group_size > 0);
    *stream = (Stream){.set = set, .records = -1, .capacity = capacity, .group_size = group_size};
    stream->slot = mem_calloc((size_t)capacity, sizeof *stream->slot);
    stream->sample = mem_calloc((size_t)(capacity * group_size), sizeof *stream->sample);
}

void stream_free(Stream *stream)
{
    free(stream->slot);
    free(stream->sample);
    stream->slot = NULL;
    stream->sample = NULL;
}

static Slot *slot_at(const Stream *stream, int64_t position)
{
    return &stream->slot[position % stream->capacity];
}

static SampleMeta *samples_at(const Stream *stream, int64_t position)
{
    return &stream->sample[position % stream->capacity * stream->group_size];
}

static bool in_window(const Stream *stream, int64_t position)
{
    return position >= stream->base && position < stream->base + stream->capacity;
}

static bool is_delivered(const Slot *slot)
{
    return slot->state == SLOT_READY || slot->state == SLOT_REJECTED || slot->state == SLOT_TAKEN;
}

/* A record that is no conversation, seen for the first time: later epochs bring it again. */
static bool is_new_bad_record(const Stream *stream, int64_t position)
{
    RejectReason why = samples_at(stream, position)->reject_reason;
    return slot_at(stream, position)->state == SLOT_REJECTED && position < stream->records &&
           (why == REJECT_BAD_RECORD || why == REJECT_TEMPLATE);
}

void stream_restart(Stream *stream, int64_t base)
{
    for (int64_t p = stream->base; p < stream->top; p++)
        *slot_at(stream, p) = (Slot){.state = SLOT_FREE};
    stream->base = stream->top = stream->front = stream->free_from = base;
    stream->rejected_ahead = stream->bad_ahead = stream->accepted_ahead = 0;
}

int stream_lease(Stream *stream, int worker, int64_t from, int64_t limit, int count_max,
                 int64_t *ret_first)
{
    if (limit > stream->end) limit = stream->end;
    if (limit > stream->base + stream->capacity) limit = stream->base + stream->capacity;
    bool all = from <= stream->free_from; /* nothing free is passed over */
    int64_t first = all ? stream->free_from : from;
    while (first < limit && slot_at(stream, first)->state != SLOT_FREE)
        first++;
    int count = 0;
    while (count < count_max && first + count < limit &&
           slot_at(stream, first + count)->state == SLOT_FREE) {
        *slot_at(stream, first + count) = (Slot){.state = SLOT_LEASED, .worker = worker};
        count++;
    }
    if (all) stream->free_from = first + count;
    if (first + count > stream->top) stream->top = first + count;
    *ret_first = first;
    return count;
}

/* Moves the front over what is delivered without a gap. */
static void advance_front(Stream *stream)
{
    while (stream->front < stream->top && is_delivered(slot_at(stream, stream->front))) {
        if (slot_at(stream, stream->front)->state != SLOT_REJECTED) stream->accepted_ahead++;
        stream->front++;
    }
}

bool stream_deliver(Stream *stream, int worker, const SampleMeta *sample, int count,
                    GroupVerdict verdict)
{
    CHECK(count > 0 && count <= stream->group_size);
    int64_t position = sample->position;
    if (!in_window(stream, position)) return false;
    Slot *slot = slot_at(stream, position);
    if (slot->state != SLOT_LEASED || slot->worker != worker) return false;
    slot->state = verdict == GROUP_KEPT ? SLOT_READY : SLOT_REJECTED;
    slot->verdict = verdict;
    slot->samples = count;
    memcpy(samples_at(stream, position), sample, (size_t)count * sizeof *sample);
    if (slot->state == SLOT_REJECTED) stream->rejected_ahead++;
    if (is_new_bad_record(stream, position)) stream->bad_ahead++;
    if (position == stream->front) advance_front(stream);
    return true;
}

static void free_slot(Stream *stream, int64_t position)
{
    slot_at(stream, position)->state = SLOT_FREE;
    if (position < stream->free_from) stream->free_from = position;
}

void stream_lease_failed(Stream *stream, int worker, int64_t first, int count)
{
    for (int64_t p = first; p < first + count; p++) {
        if (!in_window(stream, p)) continue;
        const Slot *slot = slot_at(stream, p);
        if (slot->state == SLOT_LEASED && slot->worker == worker) free_slot(stream, p);
    }
}

void stream_worker_lost(Stream *stream, int worker)
{
    for (int64_t p = stream->base; p < stream->top; p++) {
        const Slot *slot = slot_at(stream, p);
        bool lost = slot->state == SLOT_LEASED || slot->state == SLOT_READY;
        if (lost && slot->worker == worker) free_slot(stream, p);
    }
    stream->front = stream->base;
    stream->accepted_ahead = 0;
    advance_front(stream);
}

void stream_take(Stream *stream, int64_t first, int64_t end)
{
    /* Whatever became of its holder meanwhile, and if it was leased again. */
    for (int64_t p = first; p < end; p++)
        if (in_window(stream, p) && slot_at(stream, p)->state != SLOT_REJECTED)
            slot_at(stream, p)->state = SLOT_TAKEN;
    advance_front(stream);
}

int64_t stream_consume(Stream *stream, int64_t position)
{
    CHECK(position >= stream->base && position <= stream->front);
    int64_t bad = 0;
    for (; stream->base < position; stream->base++) {
        Slot *slot = slot_at(stream, stream->base);
        if (is_new_bad_record(stream, stream->base)) bad++;
        if (slot->state == SLOT_REJECTED)
            stream->rejected_ahead--;
        else
            stream->accepted_ahead--;
        *slot = (Slot){.state = SLOT_FREE};
    }
    stream->bad_ahead -= bad;
    if (stream->free_from < stream->base) stream->free_from = stream->base;
    return bad;
}

const Slot *stream_slot(const Stream *stream, int64_t position)
{
    return in_window(stream, position) ? slot_at(stream, position) : NULL;
}

const SampleMeta *stream_samples(const Stream *stream, int64_t position)
{
    CHECK(in_window(stream, position) && is_delivered(slot_at(stream, position)));
    return samples_at(stream, position);
}

bool stream_is_full(const Stream *stream)
{
    return stream->front == stream->base + stream->capacity;
}
