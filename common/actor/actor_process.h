/* ActorProcess: what every actor executable does besides its own work. It is told who it is on its
 * command line, dies with the agent that started it, binds its inbox, says hello to the controller
 * (which answers with the job's configuration), beats, and leaves when told to or when the
 * controller is silent for longer than cluster.dead_ms allows.
 *
 *   --parent PID --actor NAME --incarnation N --generation G --job ID --controller ENDPOINT
 *   --inbox ENDPOINT
 *
 * Methods that every actor has: actor.ping (answers with the bytes it got) and actor.stop (answers,
 * then ends the process as SIGTERM does). Exit codes are those of status_exit_code; 0 when told to.
 *
 * Everything here runs on the loop thread (the main thread), except `prepare`, and
 * actor_process_progress, which any thread may call. */
#ifndef TROUPE_ACTOR_ACTOR_PROCESS_H
#define TROUPE_ACTOR_ACTOR_PROCESS_H

#include "actor/handle.h"
#include "base/limits.h"
#include "config/job.h"

typedef struct ActorProcess ActorProcess;

/* A train worker's place among the ranks. */
typedef struct TrainPlace {
    int tp_rank, tp_size, dp_rank, dp_size;
} TrainPlace;

/* What a beat says. */
typedef struct ActorReport {
    uint64_t progress; /* changes whenever the work gets on: what "no progress" watches ... */
    int working;       /* ... while this is not 0: pieces of work in hand that wait for nobody */
    char doing[DOING_BYTES]; /* "step 12", "idle" */
    char waiting_for[192];   /* "all_reduce #8, waiting for rank 1", or "" */
    char trouble[384];       /* what it tries again and again, and why in vain, or "" */
    char notice[256];        /* what people are to be told once, or ""; stays as it is */
} ActorReport;

typedef struct ActorProcessSpec {
    const char *program; /* "train_worker": for --help and errors */
    const ActorMethod *methods;
    int num_methods;
    /* Called once the controller has answered, on a thread of its own, while the process beats and
     * calls wait: for what takes seconds and needs no loop, as opening a device does. It may read
     * the configuration. NULL: there is no such thing. A failure ends the process with the message.
     */
    Status (*prepare)(ActorProcess *process, Error *err);
    /* Called after it; makes what the methods get as `self`. Calls that come before are answered
     * after it. A failure ends the process with the message. */
    Status (*start)(ActorProcess *process, void **ret_self, Error *err);
    void (*stop)(void *self); /* before the process ends; self is not NULL */
    /* Completes what the next beat says of the work; the report comes filled with what
     * actor_process_progress and actor_process_set_doing said. May be NULL. */
    void (*describe)(void *self, ActorReport *report);
} ActorProcessSpec;

/* Runs the process to its end; returns its exit code. */
int actor_process_run(int argc, char **argv, const ActorProcessSpec *spec);

Loop *actor_process_loop(ActorProcess *process);
/* For handles to other actors. Its generation is 0: actors only read from each other, and a rollout
 * worker that outlives a generation must still be heard by a data source that is younger. What
 * changes anything comes from the controller. */
const ActorIdentity *actor_process_identity(const ActorProcess *process);
const JobConfig *actor_process_config(const ActorProcess *process);
TrainPlace actor_process_train_place(const ActorProcess *process);

/* The work has got on: what the controller's "no progress" watches. Any thread. */
void actor_process_progress(ActorProcess *process);

/* Ends the process with this error, as one that cannot go on: the controller learns of its end and
 * starts another. */
void actor_process_fail(ActorProcess *process, const Error *why);

/* What the process is doing, for status: "step 12", "idle". Copied. */
void actor_process_set_doing(ActorProcess *process, const char *doing);

#endif
