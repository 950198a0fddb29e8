#include "core/stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/memory.h"

int64_t stream_known_records(const Stream *stream, int64_t unknown)
{
    bool known = stream->records >= 0 && stream->records < RECORDS_UNKNOWN;
    return known ? stream->records : unknown;
}

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

int stream_source(const Stream *stream, int64_t position)
{
    if (stream->turns == NULL) return 0;
    return interleave_at(&stream->turns->mix, (uint64_t)position).source;
}

/* Later epochs, or passes over its source, bring the record again. */
static bool is_first_pass(const Stream *stream, int64_t position)
{
    if (stream->turns == NULL) return position < stream->records;
    InterleavePlace place = interleave_at(&stream->turns->mix, (uint64_t)position);
    return (int64_t)place.position < stream->turns->records[place.source];
}

bool stream_is_new_bad_record(const Stream *stream, int64_t position)
{
    RejectReason why = samples_at(stream, position)->reject_reason;
    return slot_at(stream, position)->state == SLOT_REJECTED &&
           (why == REJECT_BAD_RECORD || why == REJECT_TEMPLATE) && is_first_pass(stream, position);
}

static void count_bad(Stream *stream, int64_t position, int change)
{
    stream->bad_ahead += change;
    stream->bad_ahead_of[stream_source(stream, position)] += change;
}

void stream_restart(Stream *stream, int64_t base)
{
    for (int64_t p = stream->base; p < stream->top; p++)
        *slot_at(stream, p) = (Slot){.state = SLOT_FREE};
    stream->base = stream->top = stream->front = stream->free_from = base;
    stream->rejected_ahead = stream->bad_ahead = stream->accepted_ahead = 0;
    memset(stream->bad_ahead_of, 0, sizeof stream->bad_ahead_of);
}

/* No position at or above it can be dealt with now. */
static int64_t window_end(const Stream *stream)
{
    int64_t end = stream->base + stream->capacity;
    return end < stream->end ? end : stream->end;
}

int stream_lease(Stream *stream, const LeaseTerms *terms, int64_t *ret_first)
{
    int64_t limit = terms->limit < window_end(stream) ? terms->limit : window_end(stream);
    bool all = terms->from <= stream->free_from; /* nothing free is passed over */
    int64_t first = all ? stream->free_from : terms->from;
    while (first < limit && slot_at(stream, first)->state != SLOT_FREE)
        first++;
    int count = 0;
    while (count < terms->count_max && first + count < limit &&
           slot_at(stream, first + count)->state == SLOT_FREE) {
        *slot_at(stream, first + count) = (Slot){.state = SLOT_LEASED,
                                                 .worker = terms->worker,
                                                 .leased_ms = stream->now_ms,
                                                 .version = terms->version};
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

/* From here on it counts anew: what was delivered without a gap may have one. */
static void find_front(Stream *stream)
{
    stream->front = stream->base;
    stream->accepted_ahead = 0;
    advance_front(stream);
}

/* Of the samples that train; the lease's where none does. */
static int64_t oldest_version(const Slot *slot, const SampleMeta *sample, int count)
{
    int64_t oldest = INT64_MAX;
    for (int i = 0; i < count; i++)
        if (sample_meta_trains(&sample[i]) && sample[i].weight_version < oldest)
            oldest = sample[i].weight_version;
    return oldest < INT64_MAX ? oldest : slot->version;
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
    slot->done_ms = stream->now_ms;
    slot->version = oldest_version(slot, sample, count);
    memcpy(samples_at(stream, position), sample, (size_t)count * sizeof *sample);
    if (slot->state == SLOT_REJECTED) stream->rejected_ahead++;
    if (stream_is_new_bad_record(stream, position)) count_bad(stream, position, 1);
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
    find_front(stream);
}

/* What was delivered does not count as rejected any more. */
static void forget_rejection(Stream *stream, int64_t position)
{
    if (slot_at(stream, position)->state != SLOT_REJECTED) return;
    stream->rejected_ahead--;
    if (stream_is_new_bad_record(stream, position)) count_bad(stream, position, -1);
}

/* Whatever was or will be made of it. */
static void drop(Stream *stream, int64_t position, GroupVerdict why)
{
    forget_rejection(stream, position);
    *slot_at(stream, position) =
        (Slot){.state = SLOT_REJECTED, .samples = 1, .verdict = why, .version = INT64_MAX};
    *samples_at(stream, position) = (SampleMeta){.position = position, .status = SAMPLE_REJECTED};
    stream->rejected_ahead++;
    if (position >= stream->top) stream->top = position + 1;
}

int64_t stream_drop_stale(Stream *stream, int64_t first, int64_t end, int64_t oldest,
                          int64_t newest)
{
    int64_t run_end = first;
    if (end > window_end(stream)) end = window_end(stream);
    for (int64_t p = first; p < end; p++) {
        const Slot *slot = slot_at(stream, p);
        CHECK(slot->state != SLOT_TAKEN);
        int64_t version = slot->state == SLOT_FREE ? newest : slot->version;
        if (version < oldest) drop(stream, p, GROUP_TOO_STALE);
        bool dropped = slot->state == SLOT_REJECTED && slot->verdict == GROUP_TOO_STALE;
        if (dropped && p == run_end) run_end++;
    }
    find_front(stream);
    return run_end;
}

bool stream_drop_remainder(Stream *stream, int64_t first, int64_t end)
{
    if (end > window_end(stream)) return false;
    for (int64_t p = first; p < end; p++) {
        CHECK(slot_at(stream, p)->state != SLOT_TAKEN);
        drop(stream, p, GROUP_REMAINDER);
    }
    find_front(stream);
    return true;
}

void stream_drop_accepted(Stream *stream, int64_t first, int64_t end)
{
    CHECK(end <= stream->front);
    for (int64_t p = first; p < end; p++) {
        CHECK(slot_at(stream, p)->state != SLOT_TAKEN);
        if (slot_at(stream, p)->state == SLOT_READY) drop(stream, p, GROUP_REMAINDER);
    }
    find_front(stream);
}

int64_t stream_free_stale(Stream *stream, int64_t first, int64_t oldest)
{
    int64_t finished = 0;
    for (int64_t p = first; p < stream->top; p++) {
        const Slot *slot = slot_at(stream, p);
        CHECK(slot->state != SLOT_TAKEN);
        if (slot->state == SLOT_FREE || slot->version >= oldest) continue;
        finished += slot->state != SLOT_LEASED;
        forget_rejection(stream, p);
        free_slot(stream, p);
    }
    find_front(stream);
    return finished;
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
        bool new_bad = stream_is_new_bad_record(stream, stream->base);
        if (new_bad) count_bad(stream, stream->base, -1);
        bad += new_bad;
        if (slot->state == SLOT_REJECTED)
            stream->rejected_ahead--;
        else
            stream->accepted_ahead--;
        *slot = (Slot){.state = SLOT_FREE};
    }
    if (stream->free_from < stream->base) stream->free_from = stream->base;
    return bad;
}

bool stream_widen(Stream *stream)
{
    int64_t capacity = 2 * stream->capacity, group = stream->group_size;
    int64_t each = (int64_t)sizeof(Slot) + group * (int64_t)sizeof(SampleMeta);
    if (capacity > (int64_t)STREAM_BYTES_MAX / each) return false;
    Slot *slot = mem_calloc((size_t)capacity, sizeof *slot);
    SampleMeta *sample = mem_calloc((size_t)(capacity * group), sizeof *sample);
    for (int64_t p = stream->base; p < stream->base + stream->capacity; p++) {
        slot[p % capacity] = *slot_at(stream, p);
        memcpy(&sample[p % capacity * group], samples_at(stream, p),
               (size_t)group * sizeof *sample);
    }
    stream_free(stream);
    stream->slot = slot;
    stream->sample = sample;
    stream->capacity = capacity;
    return true;
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
