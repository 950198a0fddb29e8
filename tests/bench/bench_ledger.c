/* What a start and an audit cost beside a long ledger, and what a start costs beside long metrics:
 * makes a run folder with the ledger and the metrics of so many steps of 64 samples, one position
 * in 50 of which was rejected, and times the start's part with the mark of the newest checkpoint,
 * the same without, reading all of it, and what stands behind the mark.
 *
 * usage: bench_ledger [steps] [folder] [records fingerprint]   (default 30000, a new folder in
 * /tmp)
 *
 * With the fingerprint of a data set and its number of records, as ledger.jsonl of a run with it
 * has them, `controller data audit FOLDER` can be timed in that run's folder. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/ledger.h"
#include "view/metrics.h"

#define STEP_SAMPLES   64
#define REJECTED_EVERY 50
#define ROUNDS         5

static void check(Status status, const Error *err)
{
    if (status == OK) return;
    fprintf(stderr, "bench_ledger: %s\n", err->message);
    exit(1);
}

typedef struct Made {
    char *ledger, *metrics;
    char head[DIGEST_HEX_BYTES];
    LedgerMark mark;
} Made;

/* A step takes positions until it has its samples. */
static void append(Ledger *ledger, int64_t step, int64_t *position, LedgerRecord record)
{
    int64_t accepted[STEP_SAMPLES], rejected[STEP_SAMPLES];
    const char *why[STEP_SAMPLES];
    Error err = {0};
    record.step = step;
    record.first = *position;
    for (; record.num_accepted < STEP_SAMPLES; (*position)++) {
        if (*position % REJECTED_EVERY == 7) {
            why[record.num_rejected] = "too_long";
            rejected[record.num_rejected++] = *position;
        } else {
            accepted[record.num_accepted++] = *position;
        }
    }
    record.end = *position;
    record.accepted = accepted;
    record.rejected = rejected;
    record.why = why;
    check(ledger_append(ledger, &record, &err), &err);
}

static void make(int64_t steps, const LedgerRecord *record, Made *made)
{
    static const char *const names[] = {
        "train/loss",      "train/token_accuracy", "train/grad_norm", "train/lr",
        "train/samples",   "train/tokens",         "train/position",  "perf/step_time",
        "perf/train_time", "perf/forward_time",    "perf/comm_time",  "perf/optimizer_time",
        "perf/peak_flops"};
    Error err = {0};
    Ledger *ledger = NULL;
    Metrics *metrics = NULL;
    int64_t position = 0;
    check(ledger_open(made->ledger, NULL, NULL, &ledger, NULL, &err), &err);
    check(metrics_open(made->metrics, &metrics, &err), &err);
    metrics_rewind(metrics, 0);
    for (int64_t step = 1; step <= steps; step++) {
        append(ledger, step, &position, *record);
        metrics_begin(metrics, METRICS_STEP, step, 0);
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            metrics_put(metrics, names[i], 1.0 / (double)(step + (int64_t)i));
        metrics_end(metrics);
    }
    made->mark = *ledger_mark(ledger);
    snprintf(made->head, sizeof made->head, "%s", ledger_head(ledger));
    ledger_close(ledger);
    metrics_close(metrics);
    printf("%lld steps, %lld positions: a ledger of %.1f MB\n", (long long)steps,
           (long long)position, (double)made->mark.bytes / 1e6);
}

static void open_ledger(const Made *made, const LedgerMark *mark)
{
    Error err = {0};
    Ledger *ledger = NULL;
    check(ledger_open(made->ledger, made->head, mark, &ledger, NULL, &err), &err);
    ledger_close(ledger);
}

static void open_at_mark(const Made *made)
{
    open_ledger(made, &made->mark);
}

static void open_without_mark(const Made *made)
{
    open_ledger(made, NULL);
}

static void open_metrics(const Made *made)
{
    Error err = {0};
    Metrics *metrics = NULL;
    check(metrics_open(made->metrics, &metrics, &err), &err);
    metrics_rewind(metrics, INT64_MAX);
    metrics_close(metrics);
}

static void read_all(const Made *made)
{
    Error err = {0};
    LedgerSummary summary;
    check(ledger_read(made->ledger, NULL, NULL, &summary, &err), &err);
}

/* As `controller samples --step` does for the step behind the checkpoint. */
static void read_behind(const Made *made)
{
    Error err = {0};
    check(ledger_read_behind(made->ledger, made->head, &made->mark, NULL, NULL, &err), &err);
}

static void time_best(const char *what, void (*deed)(const Made *made), const Made *made)
{
    int64_t best = INT64_MAX;
    for (int i = 0; i < ROUNDS; i++) {
        int64_t start = clock_ns();
        deed(made);
        int64_t took = clock_ns() - start;
        if (took < best) best = took;
    }
    printf("%-34s %10.3f ms, the best of %d\n", what, (double)best / 1e6, ROUNDS);
}

int main(int argc, char **argv)
{
    int64_t steps = argc > 1 ? atoll(argv[1]) : 30000;
    char folder[] = "/tmp/bench_ledger.XXXXXX", *run = argc > 2 ? argv[2] : mkdtemp(folder);
    LedgerRecord record = {.records = argc > 4 ? atoll(argv[3]) : 1000000,
                           .data = argc > 4 ? argv[4] : NULL};
    Error err = {0};
    if (run == NULL || steps < 1) return 2;
    check(folder_create(run, &err), &err);
    Made made = {.ledger = path_join(run, "ledger.jsonl"),
                 .metrics = path_join(run, "metrics.jsonl")};
    make(steps, &record, &made);
    time_best("a start opens the ledger", open_at_mark, &made);
    time_best("the same without the mark", open_without_mark, &made);
    time_best("a start opens the metrics", open_metrics, &made);
    time_best("all of the ledger is read", read_all, &made);
    time_best("what is behind the mark is read", read_behind, &made);
    free(made.ledger);
    free(made.metrics);
    if (argc <= 2) check(folder_remove(run, &err), &err);
    return 0;
}
