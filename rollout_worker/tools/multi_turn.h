/* MultiTurn: samples of several turns. The model generates a turn; the tool calls in it are made;
 * what the tools answer is appended as the chat template would write it, and the model is asked for
 * the next turn, until one calls no tool or a limit is reached.
 *
 * What was generated stays as it is: token ids are only ever appended, never made again from text.
 * The tokens between two turns (the terminator, where the model did not write it, the tools'
 * answers, the header of the next turn) are what the template writes there, learnt by rendering the
 * conversation with a placeholder in the place of each generated turn; they carry mask 0 and
 * log-prob 0.
 *
 * A Dialogue is a state machine over two callbacks and makes no I/O of its own:
 *
 *     dialogue_create; loop: generate from dialogue_tokens with dialogue_room;
 *                            dialogue_take(what was generated) until it says that it is done;
 *     dialogue_to_sample
 *
 * A MultiTurn is const once created and shared by threads; a Dialogue belongs to one at a time. */
#ifndef TROUPE_ROLLOUT_WORKER_TOOLS_MULTI_TURN_H
#define TROUPE_ROLLOUT_WORKER_TOOLS_MULTI_TURN_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "rollout_worker/process/wanted.h"
#include "rollout_worker/tools/sample_builder.h"
#include "rollout_worker/tools/tool_format.h"
#include "text/conversation.h"

/* Which sample a call belongs to: for tools that keep a state for each. */
typedef struct ToolCaller {
    int64_t position;
    int32_t index, turn;
    const Wanted *wanted; /* a runner that waits looks at it: ERR_CANCELLED; NULL: for ever */
} ToolCaller;

/* Makes the calls of a turn, all at once if it likes, and gives an answer to each, in order
 * (ret_answer[i], owned by the caller). A call that went wrong by its own fault (no such tool,
 * wrong arguments, a division by zero) has an answer that says so. An error is one of the tools'
 * machinery: ERR_UNAVAILABLE, ERR_TIMEOUT; the sample cannot go on, and it is not the model's
 * fault. */
typedef struct ToolRunner {
    Status (*run)(void *context, const ToolCaller *caller, const ToolCall *calls, int count,
                  char **ret_answer, Error *err);
    void *context;
} ToolRunner;

typedef struct MultiTurnOptions {
    const TextModel *model; /* borrowed */
    ToolRunner runner;
    const char *format;        /* of the calls: a name of tool_format.h, or "auto" */
    int32_t max_turns;         /* that are generated, at least 1 */
    int32_t max_length;        /* tokens of a sample, prompt included */
    int32_t max_answer_tokens; /* of what is appended for one turn; a longer one is cut in the
                                  middle of each answer, and says so */
} MultiTurnOptions;

typedef struct MultiTurn MultiTurn;

/* ERR_INVALID, ERR_UNSUPPORTED: the format is not known. */
Status multi_turn_create(const MultiTurnOptions *options, MultiTurn **ret, Error *err);
void multi_turn_destroy(MultiTurn *multi_turn); /* accepts NULL */

/* ---- one sample ---- */

typedef struct DialogueStart {
    const cJSON *messages;        /* what the prompt was rendered from; copied */
    const cJSON *tools;           /* the same; a list or NULL; copied */
    const cJSON *template_kwargs; /* the same; an object or NULL; copied */
    int64_t now;                  /* the same: seconds since 1970 */
    const int32_t *prompt;        /* [prompt_length >= 1]; copied */
    int32_t prompt_length;
    int64_t position; /* of the record; with index it names the sample */
    int32_t index;
    int32_t max_length;   /* of this sample, where that is less than the options'; 0: it is not */
    const Wanted *wanted; /* for the runner; borrowed; NULL: for ever */
} DialogueStart;

/* A generated turn; borrowed. Its tokens include those that stopped it. */
typedef struct GeneratedTurn {
    GeneratedTokens tokens;
    enum { TURN_STOPPED, TURN_AT_LIMIT, TURN_ABORTED } finish;
    int32_t stop_token; /* that ended it: the last one; -1: another reason, a stop string */
} GeneratedTurn;

typedef enum {
    DIALOGUE_OPEN,        /* ask for the next turn */
    DIALOGUE_ANSWERED,    /* the last turn calls no tool */
    DIALOGUE_MAX_TURNS,   /* it does, but it was the last that may be */
    DIALOGUE_MAX_LENGTH,  /* a turn was cut, or there is no room for the answers or another turn */
    DIALOGUE_FOREIGN_END, /* a turn ended with a token that ends no turn (as <|endoftext|> does) */
    DIALOGUE_ABORTED,
    DIALOGUE_STATE_COUNT,
} DialogueState;

const char *dialogue_state_name(DialogueState state);

typedef struct Dialogue Dialogue;

/* Borrows multi_turn. ERR_RESOURCE when the prompt leaves no room for a turn. */
Status dialogue_create(const MultiTurn *multi_turn, const DialogueStart *start, Dialogue **ret,
                       Error *err);
void dialogue_destroy(Dialogue *dialogue); /* accepts NULL */

/* All tokens so far: the prompt of the next turn. Borrowed until the next call. */
const int32_t *dialogue_tokens(const Dialogue *dialogue, int32_t *ret_length);
int32_t dialogue_room(const Dialogue *dialogue);  /* tokens that the next turn may have */
int32_t dialogue_turns(const Dialogue *dialogue); /* generated so far */
int32_t dialogue_calls(const Dialogue *dialogue); /* tool calls made so far ... */
/* ... and of these, the ones that were answered with an error for the model to read */
int32_t dialogue_call_errors(const Dialogue *dialogue);

/* Appends the turn, makes its calls and appends what follows. Blocks for the tools. On an error
 * (the runner's, the template's) the dialogue stays as it was before. */
Status dialogue_take(Dialogue *dialogue, const GeneratedTurn *turn, DialogueState *ret_state,
                     Error *err);

/* The sample so far: mask 1 on what was generated. Status completed (ANSWERED, FOREIGN_END),
 * truncated (the limits) or aborted (ABORTED, OPEN). Reward is left 0. */
void dialogue_to_sample(const Dialogue *dialogue, Sample *ret);

/* The generated text of the last turn, without its end token: what rewards read. Owned. */
Status dialogue_answer(const Dialogue *dialogue, char **ret_text, Error *err);

#endif
