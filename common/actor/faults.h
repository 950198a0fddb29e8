/* Seeded faults for tests: what a network may do to the messages of a handle. A decision is a pure
 * function of seed, direction, method and count, so a run that failed fails again. Always compiled
 * in; takes effect only where a FaultPlan is handed over in code. */
#ifndef TROUPE_ACTOR_FAULTS_H
#define TROUPE_ACTOR_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct FaultRule {
    const char *method;  /* NULL: every method that no earlier rule names */
    double drop_request; /* probabilities, 0 to 1 */
    double drop_reply;
    double duplicate_request;
    double delay_request; /* by 1 to delay_ms_max, which also reorders */
    double delay_reply;
    int delay_ms_max;
} FaultRule;

typedef struct FaultPlan {
    uint64_t seed;
    const FaultRule *rules;
    int num_rules;
} FaultPlan;

typedef struct FaultDecision {
    bool drop;
    bool duplicate;
    int delay_ms; /* 0: none */
} FaultDecision;

/* What happens to message number `count` of its kind. NULL plan: nothing. */
FaultDecision faults_decide(const FaultPlan *plan, bool reply, const char *method, uint64_t count);

#endif
