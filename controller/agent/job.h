/* AgentJob: a job as its node agent sees it: who its controller is, the line to it, and the death
 * notices that it has not acknowledged. A controller that cannot be reached (its connection broke,
 * or none came about) is gone, and with it the job: at once on this host, where a broken connection
 * is a death; after a while over tcp, where it may be the network. Loop thread. */
#ifndef TROUPE_CONTROLLER_AGENT_JOB_H
#define TROUPE_CONTROLLER_AGENT_JOB_H

#include "actor/handle.h"

typedef struct AgentJob {
    uint64_t serial;     /* of this agent: names the owner of reservations */
    uint64_t controller; /* incarnation: only its calls count */
    char *name;
    char *endpoint; /* of the controller */
    bool gone;
    struct AgentJob *next; /* for whoever keeps the list */
    struct AgentJobLine *line;
} AgentJob;

typedef struct AgentJobOptions {
    Loop *loop;
    const ActorIdentity *self;
    uint64_t serial, controller;
    const char *name, *endpoint;
    void (*on_gone)(void *context, AgentJob *job, const char *why); /* once; must not close it */
    void *context;
} AgentJobOptions;

Status agent_job_open(const AgentJobOptions *options, AgentJob **ret, Error *err);
void agent_job_close(AgentJob *job); /* accepts NULL */

/* Marks the job gone and tells on_gone, unless that was done already. */
void agent_job_give_up(AgentJob *job, const char *why);

/* controller.actor_exited with this body (copied), again and again until it is acknowledged or the
 * job is gone. */
void agent_job_notify(AgentJob *job, Bytes body);

#endif
