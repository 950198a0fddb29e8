/* FunctionRun: a rollout function of the user's at work on one record: what it may ask for, and
 * what it may say samples are made of. A program (process_function.h) and a shared object
 * (plugin_function.h) are two ways to speak to it; what they say has one form, JSON objects, so
 * that one place judges it. Token ids and log-probs of what was generated stay here: outputs are
 * referred to by name, so that nothing that is trained can have another log-prob, or stand behind
 * other tokens, than it was drawn with. One thread. */
#ifndef TROUPE_ROLLOUT_WORKER_FUNCTION_FUNCTION_RUN_H
#define TROUPE_ROLLOUT_WORKER_FUNCTION_FUNCTION_RUN_H

#include "base/str.h"
#include "rollout_worker/engine/engine.h"
#include "rollout_worker/function/answer.h"
#include "rollout_worker/function/pieces.h"
#include "rollout_worker/process/wanted.h"

/* What an engine is asked: fills ret[request->num_samples], to be cleared by who asked, and blocks
 * until they are there. ERR_INVALID and ERR_RESOURCE are told to the function, which may ask for
 * something else; any other status ends the task. */
typedef struct FunctionEngine {
    Status (*generate)(void *context, const GenerateRequest *request, Generation *ret, Error *err);
    void *context;
} FunctionEngine;

/* What all records of a function share; borrowed. */
typedef struct FunctionHost {
    const TextModel *model;
    const char *model_path;       /* told to the function */
    const cJSON *template_kwargs; /* the job's; NULL: none */
    const cJSON *options;         /* rollout.function_options; NULL: none */
} FunctionHost;

/* All borrowed. */
typedef struct FunctionTask {
    const cJSON *record;   /* as it was read */
    const cJSON *messages; /* of the prompt */
    const cJSON *tools;    /* of the record; a list, or NULL */
    const cJSON *metadata; /* or NULL */
    const char *label;     /* as text, or NULL */
    int64_t position;
    int num_samples;
    bool evaluation;
    uint64_t sample;       /* the record's id in the run: with params.seed the key of all noise */
    int32_t max_length;    /* tokens of a sample */
    SamplingParams params; /* the run's: what a request does not say */
    int64_t now;           /* that templates show */
    bool rewards;          /* the job judges what the function does not */
    const Wanted *wanted;  /* NULL: it is for ever */
} FunctionTask;

typedef struct FunctionRun {
    const FunctionHost *host;
    const FunctionTask *task;
    const FunctionEngine *engine;
    OutputTable outputs;
    PieceContext pieces;
} FunctionRun;

void function_run_begin(FunctionRun *run, const FunctionHost *host, const FunctionTask *task,
                        const FunctionEngine *engine);
void function_run_end(FunctionRun *run);

/* Appends what the function is told of its record: members of a JSON object, with a comma before
 * each. */
void function_run_describe(const FunctionRun *run, Str *out);

/* What came of a request. */
typedef struct FunctionOutputs {
    char *refusal;    /* why it cannot be, for the function, which may go on; owned; NULL: it is */
    int first, count; /* in run->outputs */
} FunctionOutputs;

/* Generates as {"call", "prompt", "samples", "index", "draw", "sampling"} say; the rest of the
 * object is passed over. ERR_INVALID: it has no call of its own; or the engine's. */
Status function_run_generate(FunctionRun *run, const cJSON *request, FunctionOutputs *ret,
                             Error *err);

/* The text of an output, without the token that ended it; owned. */
Status function_run_text(const FunctionRun *run, const Output *output, char **ret,
                         size_t *ret_bytes, Error *err);

/* Makes ret[task->num_samples], zeroed before, of a list of {"pieces", "reward", "right", "extra"}
 * or {"rejected"}. ERR_INVALID names the sample and what is wrong with it; what was made is the
 * caller's to clear. */
Status function_run_finish(const FunctionRun *run, const cJSON *samples, Answer *ret, Error *err);

#endif
