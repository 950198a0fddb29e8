/* Sequence and Request: a sample in work, and the request it belongs to, on the rank that plans.
 * What they know of their tokens; which pages they hold is the scheduler's business. Private to the
 * engine. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_SEQUENCE_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_SEQUENCE_H

#include "rollout_worker/engine/engine.h"
#include "rollout_worker/engine/sampler.h"
#include "rollout_worker/engine/stop_matcher.h"

typedef struct Request Request;

/* Edits that follow from what was seen: one per token, found by a hash of it. */
typedef struct PenaltyTable {
    LogitEdit *edit; /* [count] */
    int32_t *uses;   /* [count] in the output */
    int32_t *slot;   /* [num_slots] index into edit, or -1 */
    int count, capacity, num_slots;
} PenaltyTable;

typedef struct Sequence {
    Request *request;
    uint32_t index;                   /* within the noise of its prompt */
    uint64_t order;                   /* of arrival: the highest is the newest */
    struct Sequence *previous, *next; /* among those that wait */
    bool running, planned;            /* planned: has its part in the step being planned */
    int32_t *token;                   /* [length] prompt, then generated */
    float *log_prob;                  /* [length - prompt_length] */
    VersionRun *version_run;
    int32_t length, capacity, num_version_runs;
    int32_t resumed;   /* generated tokens that came with the request */
    StopMatcher *stop; /* NULL without stop strings */
    PenaltyTable penalties;
    /* pages */
    int32_t *page;
    int num_pages, pages_capacity;
    int32_t computed;  /* positions whose keys and values stand in the pages */
    int num_published; /* of the pages, from the first on */
    bool mixed;        /* by weights of several versions: of no use to others */
    /* how it ended, and figures */
    FinishReason finish;
    int32_t stop_token, stop_string, found, preemptions;
    int64_t started_ns, first_token_ns; /* 0: not yet */
} Sequence;

struct Request {
    uint64_t id, sample;
    SamplingParams params; /* a copy */
    float temperature;     /* of log-probs */
    int32_t *stop_id; /* ids that end a sample: the request's and, unless ignored, the model's */
    int num_stop_ids;
    int32_t prompt_length;
    int num_members, num_left; /* left: in work */
    Sequence **member;         /* [num_members]; NULL: ended */
    bool counted;              /* its prompt's tokens are in the figures */
    int64_t submitted_ns;
    Request *next_request;
};

/* A request whose sequences hold all of `from`, in order of arrival `order`, order + 1, ... Takes
 * only requests that engine_submit has checked. Fails where the tokenizer cannot decode a partial
 * sample. */
Status request_create(const GenerateRequest *from, const EngineOptions *options, uint64_t order,
                      Request **ret, Error *err);
void request_destroy(Request *request); /* and the members that are left */

/* Its tokens so far, generated ones after prompt_length. */
int32_t sequence_generated(const Sequence *sequence);

/* What is drawn next; its edits are appended to (*edit)[*count], which grows. draw->edit and row
 * are the caller's to set. */
typedef struct EditList {
    LogitEdit *edit;
    int count, capacity;
} EditList;
void sequence_next_draw(const Sequence *sequence, Draw *ret, EditList *edits);

/* Adds a drawn token. *ret_ended: the sequence ends with it; `finish` says how. */
Status sequence_append(Sequence *sequence, Drawn drawn, int64_t version, int32_t max_length,
                       bool *ret_ended, Error *err);

/* Its result; the sequence's arrays move there. */
void sequence_to_generation(Sequence *sequence, int64_t now_ns, Generation *ret);
void sequence_destroy(Sequence *sequence); /* accepts NULL */

#endif
