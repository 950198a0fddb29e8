/* Audit: what the ledger of a run proves. Reads it from its start, checks its chain and that each
 * checkpoint's manifest names a line of it and counts what the lines up to there count, and follows
 * the positions: those of a stage must come one after the other, each trained or rejected by one
 * step. Position p is of epoch p / records, so an epoch whose positions are all there is one whose
 * records were consumed once each; that a position stands for one record and no other position of
 * its epoch does is proven with the data at hand (audit_data.h). Where the data was changed with
 * consent positions stand for other records from there on: an epoch ends there, cut, and only of
 * the last data can it be at hand. Not so where the same lines of the same files stand at them,
 * as when one was mended. Where data.num_samples became another the same data is counted in epochs
 * of another length from there on: an epoch ends there, too, but all before is still at hand.
 *
 * What is not as it should be is a finding. That a run ends in the midst of an epoch is none.
 *
 * Nothing is written, and the run may go on meanwhile. Who writes ledger and checkpoints anew, all
 * of them with right hashes, is not found out: nothing is signed. One thread. */
#ifndef TROUPE_DATA_SOURCE_AUDIT_H
#define TROUPE_DATA_SOURCE_AUDIT_H

#include "base/digest.h"
#include "base/str.h"
#include "checkpoint/ledger.h"
#include "checkpoint/manifest.h"

#define AUDIT_REASONS_MAX  32
#define AUDIT_FINDINGS_MAX 1000 /* kept; the others are counted */

typedef enum {
    FINDING_LEDGER,     /* damaged: what follows is not known */
    FINDING_CHECKPOINT, /* it names no line of the ledger, or counts otherwise */
    FINDING_STEPS,      /* steps without a line */
    FINDING_NEVER,      /* positions that no step consumed, though later ones were */
    FINDING_TWICE,      /* positions that were consumed twice */
    FINDING_DATA,       /* the data at hand is another */
    FINDING_RECORDS,    /* positions of an epoch that are not one for each record */
    FINDING_KIND_COUNT,
} FindingKind;

const char *finding_kind_name(FindingKind kind);

typedef struct AuditFinding {
    FindingKind kind;
    int stage;
    int64_t step;       /* at which it is seen; -1: none */
    int64_t first, end; /* positions; equal: none */
    char *text;         /* owned */
} AuditFinding;

/* What of an epoch is of one data. */
typedef struct AuditEpoch {
    int64_t number;
    int64_t records;           /* of the whole epoch; 0: not known, then there is one epoch */
    int64_t first, end;        /* positions; fewer than records: a change cut it */
    bool recounted;            /* that change was of the length of an epoch, not of the data */
    int64_t trained, rejected; /* positions */
    int64_t *rejected_for;     /* [num_reasons], the first of the stage's; owned */
    int num_reasons;
    int64_t first_step, last_step;
} AuditEpoch;

/* From a step on positions stand for the records of this data. */
typedef struct AuditData {
    char fingerprint[DIGEST_HEX_BYTES]; /* "": not told */
    int64_t records;                    /* of one epoch; 0: not known */
    int64_t step, position;
    bool same_order; /* positions stand for the same lines as with the data before */
} AuditData;

/* A position that was rejected. */
typedef struct AuditRejected {
    int64_t position, step;
    const char *why; /* of the stage's reasons; NULL: not told */
    char *source;    /* "file.jsonl:7", once the data was looked at; owned, or NULL */
} AuditRejected;

typedef struct AuditStage {
    int number;
    int64_t first_step, last_step;
    int64_t end;               /* everything below is consumed */
    int64_t trained, rejected; /* positions */
    AuditEpoch *epoch;         /* [num_epochs] */
    int num_epochs, room_for_epochs;
    int64_t epochs_end;              /* from here on there is none */
    int64_t cut_at;                  /* where epochs of the last data, or length, begin */
    char *reason[AUDIT_REASONS_MAX]; /* [num_reasons], owned */
    int64_t rejected_for[AUDIT_REASONS_MAX];
    int num_reasons;
    bool all_told;   /* each rejected position has a reason */
    AuditData *data; /* [num_data], one at least; the last is what the run stands in */
    int num_data;
    AuditRejected *passed; /* [num_passed]: the first that were rejected */
    int num_passed;
    int64_t counted;  /* records of the data at hand, where data.num_samples says or said another
                         number, by which epochs of the run go; else 0 */
    bool mapped;      /* looked at with its last data, all of whose files are as they were */
    char *not_mapped; /* why not; owned, or NULL: nobody asked */
} AuditStage;

typedef struct AuditCheckpoint {
    char *path;         /* owned */
    Manifest *manifest; /* NULL: it cannot be read ... */
    char *why;          /* ... for this reason; owned */
    bool found;         /* its head is a line of the ledger */
    bool agrees;        /* ... which counts what it counts */
} AuditCheckpoint;

/* Hears now and then how much of `what` is done. */
typedef struct AuditWatch {
    void *context;
    void (*progress)(void *context, const char *what, int64_t done, int64_t all); /* or NULL */
} AuditWatch;

typedef struct Audit {
    AuditWatch watch;
    int64_t ledger_bytes;
    char *ledger, *index_folder; /* paths; owned */
    LedgerSummary summary;
    bool whole; /* the ledger could be read to its end */
    int64_t listed_max;
    int64_t samples;   /* trained, of all stages; meant only for format 2 */
    AuditStage *stage; /* [num_stages] */
    int num_stages;
    AuditCheckpoint *checkpoint; /* [num_checkpoints], the newest first */
    int num_checkpoints;
    AuditFinding *finding; /* [num_findings] */
    int num_findings;
    int64_t more_findings; /* not kept */
} Audit;

typedef struct AuditOptions {
    const char *run;        /* folder */
    const char *checkpoint; /* look at this one alone; NULL: at all of the run's */
    int64_t listed_max;     /* rejected positions of each stage that are listed */
    AuditWatch watch;
} AuditOptions;

/* ERR_NOT_FOUND: there is no ledger, or no such checkpoint. What is wrong with the ledger is a
 * finding. *ret is to be cleared in any case. */
Status audit_run(const AuditOptions *options, Audit *ret, Error *err);
void audit_clear(Audit *audit);

/* One more; positions [first, end). */
void audit_find(Audit *audit, AuditFinding finding, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void audit_tell(const Audit *audit, const char *what, int64_t done, int64_t all);

/* The newest checkpoint that agrees; NULL: none. */
const AuditCheckpoint *audit_newest(const Audit *audit);
/* Positions of an epoch that the run has to consume yet, as far as it is known. */
int64_t audit_left(const AuditStage *stage, const AuditEpoch *epoch);
/* All of an epoch is consumed, and was of one data. */
bool audit_is_whole(const AuditStage *stage, const AuditEpoch *epoch);
const AuditData *audit_last_data(const AuditStage *stage);
/* Data i is the one before it, counted in epochs of another length. */
bool audit_is_recount(const AuditStage *stage, int i);
/* From here on positions stand for the lines that they stand for now. */
int64_t audit_order_begin(const AuditStage *stage);

#endif
