/* The ledger of a run: which positions of the training stream were consumed by which step, one
 * line of JSON per step, appended only. Each line carries the SHA-256 of itself and of all lines
 * before it; the value of the last one, the head, goes into the checkpoint's manifest. So a
 * checkpoint proves which samples are in its weights, and a resumed run cuts the ledger back to
 * exactly that (what was trained after the checkpoint is trained again).
 *
 * {"step":3,"first":64,"end":98,"accepted":"64-70,72-97","rejected":"71","why":{"too_long":"71"},
 *  "chain":"<64 hex>"}
 *
 * Other members, each where it applies. Told once, and then holding for the lines that follow:
 *   "ledger":2            on the first line: every line tells why positions were rejected
 *   "stage":1             positions are those of another stage's data from here on, and begin at 0
 *   "data":"<64 hex>"     positions stand for the records of this data: its fingerprint
 *   "records":1000        so many records are an epoch of it: position p is of epoch p / 1000
 *   "group":8             an accepted position gave so many samples, 0 to 7 ...
 *   "partial":{"66":"0-5,7"}   ... (of one line) but this one, of which these alone were trained
 * Ledgers that began before format 2 lack all but "data" in the lines of that time, and are read
 * and continued all the same.
 *
 * chain = SHA-256(chain of the line before, then the line's text before ,"chain"); the chain
 * before the first line is the SHA-256 of "troupe ledger 1". A Ledger is used by one thread at a
 * time. */
#ifndef TROUPE_CHECKPOINT_LEDGER_H
#define TROUPE_CHECKPOINT_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/digest.h"

#define LEDGER_FORMAT 2

/* Of the samples of one position these were trained, ascending. */
typedef struct LedgerPart {
    int64_t position;
    const int32_t *index;
    int count;
} LedgerPart;

/* Positions [first, end) were looked at by this step; of them `accepted` were trained and
 * `rejected` were not, each sorted ascending, without repetition and without a common element.
 * Arrays and texts are borrowed. */
typedef struct LedgerRecord {
    int64_t step;
    int64_t first, end;
    const int64_t *accepted;
    int num_accepted;
    const int64_t *rejected;
    int num_rejected;
    const char *data; /* fingerprint of the data, at most 64 letters; NULL: as on the line before */
    const char *const *why; /* [num_rejected]: the name of each one's reason; NULL: not told */
    int stage;              /* whose data positions are of, from 0 */
    int64_t records;        /* of one epoch of it; 0: not told */
    int group_size;         /* samples of an accepted position; 0: 1 */
    const LedgerPart *part; /* [num_parts], by position: those that trained fewer */
    int num_parts;
    /* Of a line that was read; ledger_append does not look at them: */
    const char *chain;
    int format;    /* of the ledger's first line */
    int64_t bytes; /* of the file, up to where the line begins */
} LedgerRecord;

/* Where a line ends and what holds behind it. A checkpoint keeps that of its head, so that a start
 * need not read the lines before. */
typedef struct LedgerMark {
    int64_t bytes; /* of the file, up to the line's end; 0: not known, or there is no line */
    int64_t last_step;
    int64_t format;              /* of the first line; 0: there is none */
    char data[DIGEST_HEX_BYTES]; /* "": not told */
    int64_t stage, records;      /* records 0: not told */
    int64_t group_size;
} LedgerMark;

typedef struct Ledger Ledger;

/* Opens the ledger for appending after the line whose chain is `head`; whatever follows, whole
 * or torn, is cut off. `head` NULL or "" is a run from the start: everything is cut off. The
 * file is created if it is absent. *ret_cut_lines (may be NULL) counts what was cut, a torn line
 * included. ERR_DATA: no line has that head, or one before it is damaged.
 *
 * With the `mark` of that line (NULL: unknown) this takes as long as reading the line itself and
 * what is cut: of what stands before it only the chain that the line before tells is looked at, and
 * the line's own must follow from that. All of it is checked by ledger_read alone. Where the mark
 * does not fit the file everything is read, as without it. */
Status ledger_open(const char *path, const char *head, const LedgerMark *mark, Ledger **ret,
                   int64_t *ret_cut_lines, Error *err);
void ledger_close(Ledger *ledger); /* accepts NULL; does not flush */

/* Appends a record; steps must ascend. When the disk is full (ERR_RESOURCE) the file is as
 * before. */
Status ledger_append(Ledger *ledger, const LedgerRecord *record, Error *err);
/* Flushes to disk: before a checkpoint with ledger_head is committed. */
Status ledger_sync(Ledger *ledger, Error *err);

const char *ledger_head(const Ledger *ledger);  /* 64 hex digits; borrowed, until the next append */
int64_t ledger_last_step(const Ledger *ledger); /* -1 while there is none */
const LedgerMark *ledger_mark(const Ledger *ledger); /* of the head; borrowed as the head is */

/* What a reader learns of the file as a whole. */
typedef struct LedgerSummary {
    int format;                  /* of its first line: 1 or 2; 0: there is no line */
    char head[DIGEST_HEX_BYTES]; /* of the last whole line */
    int64_t records;
    int64_t last_step;  /* -1: none */
    int64_t torn_bytes; /* after the last whole line: an append that a kill cut off */
} LedgerSummary;

/* Reads a ledger from its start and checks every line; `visit` (may be NULL) gets each record.
 * ERR_DATA names the line that is damaged; a torn last line is not damage. */
Status ledger_read(const char *path, void (*visit)(void *context, const LedgerRecord *record),
                   void *context, LedgerSummary *ret, Error *err);
/* For who looks at the last steps of a long one: as ledger_read, but only what stands behind the
 * line with that head, which ends at `mark`, is looked at, as ledger_open does. Where the mark does
 * not fit the file, or is not known (NULL, or of byte 0), all of it is: `visit` then gets the
 * records before it, too. */
Status ledger_read_behind(const char *path, const char *head, const LedgerMark *mark,
                          void (*visit)(void *context, const LedgerRecord *record), void *context,
                          Error *err);

#endif
