/* AnswerMaker: how a prompt becomes answers: by one turn of the policy's (make_once.c), by several
 * with tools between (make_turns.c), or by a rollout function of the user's (make_function.c). A
 * table of functions; what all of them share is beside it in generate.c: reading records, rewards,
 * samples. Any number of threads call `make` at once. */
#ifndef TROUPE_ROLLOUT_WORKER_GENERATE_MAKER_H
#define TROUPE_ROLLOUT_WORKER_GENERATE_MAKER_H

#include "rollout_worker/function/answer.h"
#include "rollout_worker/generate/prompt.h"
#include "rollout_worker/policy.h"
#include "rollout_worker/process/wanted.h"

/* What makers work with; outlives them. */
typedef struct MakerHost {
    const JobConfig *config;
    const ChatText *text;
    Policy *policy;
} MakerHost;

/* What is to be made of one prompt; all borrowed. */
typedef struct MakerTask {
    const Prompt *prompt;
    int num_samples;
    uint64_t sample; /* the prompt's id in the run: with seed and index the key of all noise */
    SamplingParams params; /* max_new_tokens as if a prompt had all the room */
    bool rewards;          /* answers without a reward are judged afterwards */
    const Wanted *wanted;
} MakerTask;

typedef struct AnswerMaker {
    bool needs_room; /* a prompt of data.max_length tokens is of no use */
    Status (*open)(const MakerHost *host, void **ret_self, Error *err);
    void (*close)(void *self); /* accepts NULL */
    /* process_pool_watch of its programs. NULL: it has none. */
    Status (*watch)(void *self, int64_t until_ms, Error *err);
    Trouble *(*trouble)(const void *self); /* of what it asks now; borrowed. NULL: it asks nobody */
    /* What prompts show that have no tools of their own: a list; NULL: nothing. */
    const cJSON *(*tools)(const void *self);
    /* Makes ret[num_samples], zeroed before but for position and index, some or all of them
     * rejected. Fails as RolloutTable.run does; then nothing is returned. */
    Status (*make)(void *self, const MakerTask *task, Answer *ret, Error *err);
} AnswerMaker;

extern const AnswerMaker make_once;
extern const AnswerMaker make_turns;
extern const AnswerMaker make_function;

/* ---- for makers ---- */

/* The engine's samples of a request, each finished: ERR_CANCELLED where one was given up. */
Status maker_generate(const MakerHost *host, const GenerateRequest *request, const Wanted *wanted,
                      Generation *ret, Error *err);

/* The same of the first turn behind the task's prompt: its num_samples samples. */
Status maker_first_turns(const MakerHost *host, const MakerTask *task, Generation *ret, Error *err);

/* What may be generated behind so many tokens of a prompt. */
int32_t maker_room(const MakerHost *host, const MakerTask *task, int64_t prompt_length);

/* The text of a turn, without the token that ended it; owned. */
Status maker_text(const MakerHost *host, const Generation *turn, char **ret, size_t *ret_bytes,
                  Error *err);

#endif
