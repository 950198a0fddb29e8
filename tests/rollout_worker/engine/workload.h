/* Random requests for an engine, and a driver that submits, aborts and resumes them at random. A
 * request is a pure function of (workload, number), so that its samples can be made again
 * elsewhere. Runs in ranks (ranks.h): fails through rank_check. */
#ifndef TROUPE_TESTS_WORKLOAD_H
#define TROUPE_TESTS_WORKLOAD_H

#include "ranks.h"
#include "rollout_worker/engine/engine.h"
#include "tiny_tokenizer.h"

#define WORKLOAD_LENGTH_MAX 256 /* of a sequence */
#define WORKLOAD_END        5   /* the model's own end token */

typedef struct Spec {
    int32_t prompt[WORKLOAD_LENGTH_MAX];
    int32_t stop_ids[2];
    const char *stop[2];
    GenerateRequest request; /* points into this; id is the number */
} Spec;

typedef struct Outcome {
    int number; /* of the request */
    Generation generation;
} Outcome;

typedef struct Workload {
    uint64_t seed;
    int num_requests;
    int in_work_max;    /* requests */
    int abort_one_in;   /* steps; 0: never */
    int resume_percent; /* of aborted samples */
    bool with_stops;    /* stop strings, which need a tokenizer */
    bool long_samples;
    /* results */
    Outcome *outcome;
    int num_outcomes, capacity, num_resumed, num_aborted;
} Workload;

/* Request `number` of it. */
void spec_make(Spec *spec, const Workload *workload, int number);

/* Runs it on rank 0's engine until nothing is left. */
void workload_run(Workload *workload, Engine *engine);
void workload_clear(Workload *workload);

/* What holds of every result: counts agree, and it ended as it says and not earlier. */
void outcome_check(const Workload *workload, const Outcome *outcome, const Tokenizer *tokenizer);

/* Follows rank 0's engine until it is destroyed. */
void follow(Engine *engine);

#endif
