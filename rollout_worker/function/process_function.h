/* ProcessFunction: a rollout function in another language (`rollout.function: process:COMMAND`): a
 * program that gets records, asks for generations, and says what samples are made of
 * (docs/rollout-function.md has the protocol). Token ids and log-probs of what was generated stay
 * here: the program refers to an output by its name, so that nothing that is trained can have
 * another log-prob, or stand behind other tokens, than it was drawn with.
 *
 * Who calls brings the engine, as a callback. Any number of threads may run tasks at once; each
 * blocks until its samples are there. */
#ifndef TROUPE_ROLLOUT_WORKER_FUNCTION_PROCESS_FUNCTION_H
#define TROUPE_ROLLOUT_WORKER_FUNCTION_PROCESS_FUNCTION_H

#include <cjson/cJSON.h>

#include "rollout_worker/engine/engine.h"
#include "rollout_worker/process/process_pool.h"
#include "text/conversation.h"

typedef struct ProcessFunction ProcessFunction;

/* What an engine is asked: fills ret[request->num_samples], to be cleared by who asked, and blocks
 * until they are there. ERR_INVALID and ERR_RESOURCE are told to the program, which may ask for
 * something else; any other status ends the task. */
typedef struct FunctionEngine {
    Status (*generate)(void *context, const GenerateRequest *request, Generation *ret, Error *err);
    void *context;
} FunctionEngine;

typedef struct ProcessFunctionOptions {
    ProcessPoolOptions
        pool;               /* copied; in_flight is the records that a program works on at a time */
    const TextModel *model; /* borrowed */
    const char *model_path; /* told to the program; borrowed */
    const cJSON *template_kwargs; /* the job's; borrowed; NULL: none */
} ProcessFunctionOptions;

/* Starts the programs. ERR_INVALID when none can be started. */
Status process_function_open(const ProcessFunctionOptions *options, ProcessFunction **ret,
                             Error *err);
void process_function_close(ProcessFunction *function); /* accepts NULL; no task may be running */

/* All borrowed. */
typedef struct FunctionTask {
    const cJSON *record; /* as it was read */
    int64_t position;
    int num_samples;
    bool evaluation;
    uint64_t sample;       /* the record's id in the run: with params.seed the key of all noise */
    int32_t max_length;    /* tokens of a sample */
    SamplingParams params; /* the run's: what a request does not say */
    int64_t now;           /* that templates show */
} FunctionTask;

typedef struct FunctionSample {
    Sample sample; /* position and index are set; rejected samples too */
    bool has_reward;
    char
        *response; /* text of what was generated last: what rewards read; owned; NULL if rejected */
    cJSON *extra;  /* what else the program says of it, or NULL; owned */
} FunctionSample;

void function_sample_clear(FunctionSample *sample);

/* Makes ret[task->num_samples]. ERR_UNAVAILABLE, ERR_TIMEOUT: the program ended or was silent;
 * another try may help. ERR_DATA: it broke the protocol, or says that it cannot use the record. */
Status process_function_run(ProcessFunction *function, const FunctionTask *task,
                            const FunctionEngine *engine, FunctionSample *ret, Error *err);

#endif
