/* Stream: the controller's view of one ordered stream of samples (the training set, or the
 * evaluation set): which positions are leased to which rollout worker, which samples are ready and
 * who holds them, and up to where everything is consumed. Positions are the only identity: a
 * position may be leased many times (its worker died, its holder was lost), but is consumed once,
 * in order. What is made of one position is a group of samples: one in supervised training, in
 * reinforcement learning the answers to its prompt. Pure; owned by the controller core. */
#ifndef TROUPE_CONTROLLER_CORE_STREAM_H
#define TROUPE_CONTROLLER_CORE_STREAM_H

#include "core/event.h"
#include "sample/group.h"

typedef enum {
    SLOT_FREE,
    SLOT_LEASED,
    SLOT_READY,
    SLOT_REJECTED, /* nothing of it is trained */
    SLOT_TAKEN,    /* every train rank has the sample: its holder may go */
} SlotState;

typedef struct Slot {
    SlotState state;
    int worker;  /* leased to, or holder */
    int samples; /* of the group, once delivered: at stream_samples */
    GroupVerdict verdict;
    int64_t leased_ms, done_ms; /* when it was leased last, and delivered */
    int64_t version; /* of the oldest weights in it, or while it is being made the newest that this
                        is sure to be not below; 0: no weights make it */
} Slot;

/* Which source of a mixture stands where. */
typedef struct SourceTurns {
    Interleave mix;
    int64_t records[INTERLEAVE_SOURCES_MAX]; /* of a pass over a source; RECORDS_UNKNOWN */
} SourceTurns;

#define RECORDS_UNKNOWN (INT64_MAX / 2) /* more than any run comes to */

typedef struct Stream {
    SetName set;
    int64_t now_ms;  /* as its owner says it before each call: slots remember it */
    int64_t records; /* of one epoch, or RECORDS_UNKNOWN; -1 while the data source has not said */
    const SourceTurns *turns; /* of a mixture, borrowed; NULL: there is one source */
    int64_t end;              /* positions at and beyond it do not exist for this run */
    int64_t base;             /* everything below is consumed */
    int64_t top;              /* nothing at or above was leased yet */
    Slot *slot; /* ring: position p at p % capacity, for base <= p < base + capacity */
    int64_t capacity;
    SampleMeta *sample;     /* [capacity, group_size]: those of a slot */
    int group_size;         /* samples of a position at most */
    int64_t front;          /* [base, front) is delivered without a gap ... */
    int64_t accepted_ahead; /* ... and has so many that are not rejected */
    int64_t free_from;      /* no position of [base, free_from) is free */
    /* Of the window, not yet consumed: */
    int64_t rejected_ahead;
    int64_t bad_ahead; /* records that are no conversation, each counted in the first epoch alone */
    int64_t bad_ahead_of[INTERLEAVE_SOURCES_MAX]; /* the same of each source */
} Stream;

/* Of one epoch; `unknown` when nobody has said. */
int64_t stream_known_records(const Stream *stream, int64_t unknown);

void stream_init(Stream *stream, SetName set, int64_t capacity, int group_size);
void stream_free(Stream *stream);

/* Forgets all slots and stands at `base`: start, resume, rollback. */
void stream_restart(Stream *stream, int64_t base);

typedef struct LeaseTerms {
    int worker;
    int64_t version;     /* of the weights that the worker has; 0: none */
    int64_t from, limit; /* positions that may be leased */
    int count_max;
} LeaseTerms;

/* Finds the first run of free positions that the terms allow and marks it as leased. Returns its
 * length, 0 when nothing is to be leased. */
int stream_lease(Stream *stream, const LeaseTerms *terms, int64_t *ret_first);

/* What a lease brought of one position: 1 to group_size samples, and what was judged of them: those
 * that are not kept are rejected. News of positions that are consumed or not leased to this worker
 * is dropped: false. */
bool stream_deliver(Stream *stream, int worker, const SampleMeta *sample, int count,
                    GroupVerdict verdict);

/* Positions of a lease that failed, or everything leased to or held by a worker that is gone: free
 * again. */
void stream_lease_failed(Stream *stream, int worker, int64_t first, int count);
void stream_worker_lost(Stream *stream, int worker);

/* The samples of [first, end) have reached every train rank. */
void stream_take(Stream *stream, int64_t first, int64_t end);

/* Everything below `position`, which is delivered, is consumed by a committed step. Returns how
 * many bad records (as bad_ahead counts them) were among it. */
int64_t stream_consume(Stream *stream, int64_t position);

/* Groups whose weights are too old for every step to come, none of them taken yet. Those of
 * [first, end) are rejected as GROUP_TOO_STALE whether they are made or not; a position that nobody
 * has begun counts as made with `newest`, which is what it would be made with. Returns the end of
 * the run of too old positions that begins at `first`. */
int64_t stream_drop_stale(Stream *stream, int64_t first, int64_t end, int64_t oldest,
                          int64_t newest);

/* The same at and above `first`, but these are free again, to be made with newer weights. Returns
 * how many of them were finished. */
int64_t stream_free_stale(Stream *stream, int64_t first, int64_t oldest);

/* Rejects what stands at [first, end), an epoch's end, as GROUP_REMAINDER, whether it is made or
 * not, and whatever was judged of it. False, and nothing is done, while the window ends before it.
 */
bool stream_drop_remainder(Stream *stream, int64_t first, int64_t end);
/* The same where all of it is delivered; what is rejected already stays as it is. */
void stream_drop_accepted(Stream *stream, int64_t first, int64_t end);

int stream_source(const Stream *stream, int64_t position); /* 0 where there is one */
/* That of a position in the window is no conversation, and is met for the first time. */
bool stream_is_new_bad_record(const Stream *stream, int64_t position);

/* Doubles the window, and keeps all that is known of it. False: it would have more than
 * STREAM_BYTES_MAX. */
bool stream_widen(Stream *stream);

const Slot *stream_slot(const Stream *stream, int64_t position); /* NULL outside of the window */
/* The group of a position in the window that is delivered: as many as its slot says. */
const SampleMeta *stream_samples(const Stream *stream, int64_t position);
bool stream_is_full(const Stream *stream); /* the whole window is delivered */

#endif
