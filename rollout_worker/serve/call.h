/* Call: one HTTP request on its way: its prompts at the Generator, its samples as they come. Made,
 * waited for and destroyed by one HTTP thread; the Generator's thread hands tokens and results in.
 */
#ifndef TROUPE_ROLLOUT_WORKER_SERVE_CALL_H
#define TROUPE_ROLLOUT_WORKER_SERVE_CALL_H

#include "rollout_worker/serve/choice_text.h"
#include "rollout_worker/serve/generator.h"
#include "rollout_worker/serve/request.h"

#define CALL_ID_BYTES 40

/* One sample. */
typedef struct CallChoice {
    const ServePrompt *prompt;
    int index; /* among the answer's choices: those of the first prompt first */
    ChoiceText text;
    int32_t *token;  /* [length] so far */
    float *log_prob; /* [length] */
    int32_t length, capacity;
    bool finished;
    Generation result;       /* then: how it ended; its arrays have moved here, the runs excepted */
    int32_t told;            /* tokens that a stream has given out */
    int64_t told_characters; /* of the texts of these tokens */
    bool end_told;
} CallChoice;

typedef struct CallInbox CallInbox;

typedef struct Call {
    ServeRequest request;
    const ServeModel *model;
    Generator generator;
    char id[CALL_ID_BYTES];
    int64_t created; /* seconds since 1970 */
    int64_t started_ns;
    CallChoice *choice; /* [num_choices] */
    int num_choices, num_finished;
    int64_t weight_version; /* when it was last looked at */
    CallInbox *inbox;
} Call;

/* Hands all prompts in. Takes the request, also on failure. */
Status call_start(const Generator *generator, const ServeModel *model, ServeRequest *request,
                  Call **ret, Refusal *refusal);

/* Aborts what is still in work and waits for its last word: at most a step or two. Accepts NULL. */
void call_destroy(Call *call);

/* Asks for all its samples to end with what they have. Any thread, before call_destroy. */
void call_abort(Call *call);

/* Waits until a sample has new tokens (for a stream) or ended, and takes them. With `fd` >= 0, a
 * client that hangs up ends the wait with ERR_CANCELLED. A failure of any prompt is the call's. */
Status call_wait(Call *call, int fd, Refusal *refusal);

static inline bool call_is_finished(const Call *call)
{
    return call->num_finished == call->num_choices;
}

#endif
