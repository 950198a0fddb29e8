/* The shell around the controller's core: one loop thread that turns messages, deaths, timers and
 * signals into events and carries effects out. It decides nothing. Parts: shell.c (the loop, the
 * inbox), shell_calls.c (calls to actors and their answers as protobuf), shell_swap.c (a stage that
 * people ask for), agent_link.c (node
 * agents), keeper.c (checkpoints and ledger), reporter.c (what people and programs see). */
#ifndef TROUPE_CONTROLLER_SHELL_H
#define TROUPE_CONTROLLER_SHELL_H

#include "actor/handle.h"
#include "agent_link.h"
#include "checkpoint/run_lock.h"
#include "core/controller.h"
#include "keeper.h"
#include "view/reporter.h"
#include "run_folder.h"
#include "run_stages.h"

typedef struct ActorLink {
    Handle *handle; /* to the incarnation below; NULL before its hello */
    uint64_t incarnation;
} ActorLink;

/* What a train rank has of the machine's memory. */
typedef struct RankMemory {
    int64_t available; /* that all ranks found free when they started; 0: not known */
    int64_t taken;     /* by one of them */
} RankMemory;

typedef struct SwapWork SwapWork; /* shell_swap.c */

typedef struct Shell {
    RunStages stages;
    const JobConfig *config; /* of the stage */
    const RunFolder *folder;
    const Screen *screen;
    char *config_yaml; /* the effective one: every actor gets it */
    SwapWork *swap;    /* one that is being looked at; NULL: none */
    bool swap_over;    /* none is taken any more */
    RankMemory memory; /* as the train ranks said last */
    ActorIdentity identity;
    Loop *loop;
    Actor *inbox;
    Controller *controller;
    EffectList effects;
    AgentLink **agent; /* [num_agents] */
    int num_agents;
    ActorLink *actor;   /* by actor index */
    double *peak_flops; /* by actor index: a train rank's matrix rate, the highest it measured */
    Keeper *keeper;
    Reporter *reporter;
    bool feeding;
    char checkpoint_size[32]; /* about what one takes; "": unknown */
    bool noted;      /* what a train rank said of its machine was logged: all say the same */
    bool stop_asked; /* by a signal or `controller stop` */
    Status exit_status;
    char exit_message[ERROR_MESSAGE_MAX];
} Shell;

/* Runs the job to its end on this thread. Returns how it ended; *err holds the message when not OK.
 */
Status shell_run(const JobStages *job, const RunFolder *folder, const Screen *screen, Error *err);

/* Hands an event to the core and carries out what it answers. Not from within an effect. */
void shell_feed(Shell *shell, const Event *event);

/* shell_calls.c: carries out an FX_CALL. */
void shell_call(Shell *shell, const Effect *effect);

/* shell_swap.c: controller.swap. The job is looked at on another thread, as before a start, while
 * the run goes on; the call is answered when the core has said after which step it comes. */
void shell_on_swap(void *self, Call *call);
void shell_swapped(Shell *shell, const Effect *effect); /* FX_SWAPPED: it is written down */
void shell_swap_end(Shell *shell); /* the run is over: a look is called off, none begins any more */

#endif
