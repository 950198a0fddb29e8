/* Generator: whoever owns an Engine and answers for it, as the HTTP front sees it. The program
 * `serve` and the rollout workers of a run hand in their EngineThread (thread_generator.h). The
 * front never touches an Engine itself. */
#ifndef TROUPE_ROLLOUT_WORKER_SERVE_GENERATOR_H
#define TROUPE_ROLLOUT_WORKER_SERVE_GENERATOR_H

#include "rollout_worker/engine/engine.h"

/* Where the tokens and results of one request go. Called by the owner's compute thread, so they
 * must be short. After `num_samples` calls of on_result, or one of on_failure, nothing more comes.
 */
typedef struct GenerationSink {
    void (*on_token)(void *context, const TokenEvent *event);
    void (*on_result)(void *context, Generation *result); /* takes what it points to */
    void (*on_failure)(void *context, const Error *err);  /* refused, or lost on the way */
    void *context;
} GenerationSink;

typedef struct GeneratorState {
    int64_t weight_version;
    int running, waiting; /* samples */
    bool ready;           /* it takes requests */
} GeneratorState;

/* All functions may be called by any thread. */
typedef struct Generator {
    /* Copies the request, whose id is ignored: *ret_id names it from now on. The sink must last
     * until its last call, which comes in any case. ERR_RESOURCE: too many are in work.
     * ERR_UNAVAILABLE: it ends. On failure the sink is not called. */
    Status (*submit)(void *self, const GenerateRequest *request, const GenerationSink *sink,
                     uint64_t *ret_id, Error *err);
    /* Ends all samples of a request soon, with what they have; nothing if it has ended already. */
    void (*abort)(void *self, uint64_t id);
    GeneratorState (*state)(void *self);
    void *self;
} Generator;

#endif
