/* Rollout: how a record becomes a Sample. A rollout function is a table of functions, found by the
 * enum that job.yaml's rollout.function became; docs/ tells how to write one. What all of them
 * share: a sample is a pure function of (job, record, position), so a lease that runs again, here
 * or elsewhere, gives the same bytes; and nothing that a record contains can fail a worker: what
 * cannot be used becomes a rejected Sample that says why. */
#ifndef TROUPE_ROLLOUT_WORKER_ROLLOUT_H
#define TROUPE_ROLLOUT_WORKER_ROLLOUT_H

#include <stddef.h>
#include <stdint.h>

#include "config/job.h"
#include "sample/sample.h"
#include "text/conversation.h"

/* One record of the data source; all borrowed. */
typedef struct RolloutRecord {
    int64_t position;
    const char *text; /* the line, any bytes; not NUL-terminated */
    size_t length;
    const char *source; /* "file.jsonl:123" */
    const char *error;  /* why there is no text, or "" */
} RolloutRecord;

/* How a sample came about, for people to look at. Zero-initialise; rollout_trace_clear. */
typedef struct RolloutTrace {
    const char *shape; /* of the record; NULL: it was not read so far. Not owned */
    /* All that was rendered, before any cut, with text and spans; length 0: it did not come so far.
     */
    TokenizedConversation conversation;
} RolloutTrace;

void rollout_trace_clear(RolloutTrace *trace);

typedef struct RolloutTable {
    const char *name;
    /* Loads what all threads share (tokenizer, template); const afterwards. `config` outlives it.
     */
    Status (*open)(const JobConfig *config, void **ret_shared, Error *err);
    void (*close)(void *shared); /* accepts NULL */
    /* What one thread keeps between records (caches). */
    void *(*open_thread)(const void *shared);
    void (*close_thread)(void *scratch);
    /* Makes the sample of a record. *ret is zeroed before; position and index are filled in here.
     */
    void (*run)(const void *shared, void *scratch, const RolloutRecord *record, Sample *ret);
    /* The same, and says how: for `controller data inspect`. NULL: it cannot be looked at. */
    void (*explain)(const void *shared, void *scratch, const RolloutRecord *record, Sample *ret,
                    RolloutTrace *ret_trace);
} RolloutTable;

extern const RolloutTable rollout_sft;

const RolloutTable *rollout_table(RolloutFunction function);

/* Makes *ret a rejected sample with this message (copied). */
void rollout_reject(Sample *ret, RejectReason reason, const char *message);

#endif
