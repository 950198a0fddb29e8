/* Inspection of a data set: what the rollout function of a job makes of its records, for people.
 * The same reader of data files, the same order and the same rollout function as in a run, so what
 * is shown is what would be trained; but in one process, without an index being kept, and without
 * more of a file being read than the records that are asked for. One thread. */
#ifndef TROUPE_ROLLOUT_WORKER_INSPECT_H
#define TROUPE_ROLLOUT_WORKER_INSPECT_H

#include "config/job.h"
#include "dataset/watch.h"
#include "rollout_worker/rollout.h"

/* Which record is to be shown. */
typedef struct InspectChoice {
    bool by_position; /* `number` is a position of the run's stream, or with a source of that one's
                         own; else a record in file order, of the first source where none is named;
                         the figures of a reader's are of its first records in the same order */
    uint64_t number;
} InspectChoice;

#define INSPECT_ALL ((uint64_t)INT64_MAX) /* of summary_records */

typedef struct InspectOptions {
    const JobConfig *config; /* borrowed */
    const char *set;         /* of an evaluation, its name; NULL: what is trained on */
    const char *source;      /* a name of data.sources: that one alone; NULL: all of them */
    InspectChoice choice;
    uint64_t summary_records; /* so many records from the first on will be summarised */
    /* Told now and then, while they are; NULL: nobody is. */
    void (*looked)(void *context, const char *key, uint64_t records, uint64_t of);
    void *context;
    uint64_t listed_max; /* of those that are rejected or odd, so many will be listed */
    ReadWatch *watch;    /* borrowed; NULL: nobody watches */
} InspectOptions;

typedef struct Inspection Inspection;

/* "data.train", "data.sources", "data.sources.chat", "data.eval", "eval.sets.gsm8k": borrowed from
 * the configuration. */
const char *inspect_set_key(const InspectOptions *options);

/* Whether the job's rollout function shows what it makes of a record. */
bool inspection_is_possible(const JobConfig *config);

/* Opens data files, tokenizer and template. ERR_INVALID names the sets when there is no such one.
 */
Status inspection_open(const InspectOptions *options, Inspection **ret, Error *err);
/* What is odd about tokenizer and template, a line each; owned by the caller. NULL: nothing. */
char *inspection_warnings(const Inspection *inspection);
void inspection_close(Inspection *inspection); /* accepts NULL */
/* "next_batch of the reader csv (/lib/csv.so) of data.train" while code of the user's runs; else
 * false. Any thread. */
bool inspection_describe(const Inspection *inspection, char *text, size_t size);

/* Sources that are looked at: more than one of a mixture. */
int inspection_num_sources(const Inspection *inspection);
typedef struct InspectedSource {
    const char *name, *key; /* "chat", "data.sources.chat"; borrowed from the configuration */
    double share;           /* of the mixture; 1 where there is none */
    uint64_t records;       /* of a pass; 0: not known so far, or never */
} InspectedSource;
InspectedSource inspection_source(const Inspection *inspection, int index);
/* What its entries became, a line each where that is not plain; NULL: a reader's. Borrowed. */
const StringList *inspection_entries(const Inspection *inspection, int index);
/* Of an epoch of all sources together; 0: not known. */
uint64_t inspection_epoch(const Inspection *inspection);
/* What a run refuses. ERR_INVALID: what is trained on has fewer records than a batch takes, or a
 * source of it is gone through more often than it may be; ERR_RESOURCE: windows of its sources take
 * too much memory. */
Status inspection_check_run(const Inspection *inspection, Error *err);
/* That the job trains on, if none is rejected; 0: not known. */
uint64_t inspection_run(const Inspection *inspection);

/* One record and what became of it. */
typedef struct InspectedRecord {
    uint64_t index; /* in file order, from 0, where it is numbered; of a reader's in the order that
                     * it has without shuffling */
    bool numbered;  /* not where it was chosen by its position and is a reader's, whose order nobody
                     * else knows */
    const char *key; /* what it is of: "data.train"; borrowed from the configuration */
    uint64_t pass;   /* over its source, from 0, where it was chosen by its position */
    char *source;    /* "file.jsonl:123", owned */
    Sample sample;
    RolloutTrace trace;
} InspectedRecord;

void inspected_record_clear(InspectedRecord *record);

/* The chosen record. ERR_INVALID when there are fewer. */
Status inspection_choose(Inspection *inspection, InspectedRecord *ret, Error *err);

/* A record that is rejected or odd. */
typedef struct InspectFinding {
    bool rejected; /* else it is trained, and something about it is odd */
    int kind;      /* RejectReason, or SampleNote */
    uint64_t index;
    char *source;  /* "file.jsonl:123", owned */
    char *message; /* owned; begins with the source */
} InspectFinding;

/* What became of the first records. */
#define SHAPES_MAX 16
typedef struct InspectSummary {
    uint64_t records, json_bytes;
    bool all;       /* the data set has no more than these */
    bool more;      /* it surely has, ... */
    uint64_t there; /* ... so many; 0: not known */
    uint64_t completed, truncated;
    uint64_t rejected[REJECT_REASON_COUNT], odd[NOTE_COUNT];
    /* In their order: the first listed_max, and of each kind the first wherever it stands. */
    InspectFinding *finding; /* [num_findings], owned */
    uint64_t num_findings;
    struct {
        const char *name;
        uint64_t records;
    } shape[SHAPES_MAX];      /* up to the first without a name */
    uint64_t tokens, trained; /* of completed and truncated samples */
    int32_t *length;          /* [num_lengths] tokens before any cut, ascending, owned */
    uint64_t num_lengths;     /* records that could be tokenized */
    uint64_t over_max;        /* of these, longer than data.max_length */
} InspectSummary;

void inspect_summary_clear(InspectSummary *summary);
/* Of one of the sources that are looked at. ERR_INVALID: all records of one whose reader does not
 * say how many it has. */
Status inspection_summarize(Inspection *inspection, int source, InspectSummary *ret, Error *err);

/* The first of its kind; NULL: there is none. Borrowed. */
const InspectFinding *inspect_first(const InspectSummary *summary, bool rejected, int kind);

/* Whether the job's policies end a run at a record that is rejected for this reason. */
bool inspect_stops(const JobConfig *config, RejectReason reason);

#endif
