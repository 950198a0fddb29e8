/* AgentLink: the controller's line to one node agent: the embedded one, which it starts and ends
 * itself, or one that was configured and is only dialled. Tells when the agent is up and when it is
 * lost; carries its calls. Loop thread. */
#ifndef TROUPE_CONTROLLER_AGENT_LINK_H
#define TROUPE_CONTROLLER_AGENT_LINK_H

#include "actor/handle.h"
#include "core/event.h"

typedef struct AgentLink AgentLink;

typedef struct AgentLinkOptions {
    Loop *loop;
    const ActorIdentity *self;
    int node;             /* index, in events */
    const char *endpoint; /* of the agent's inbox */
    bool embedded;        /* start it; else only dial */
    double cpus;          /* of the embedded agent */
    bool gpus;            /* have it look for some */
    const char *job_name, *run_dir, *controller_endpoint, *log_path;
    void (*feed)(
        void *context,
        const Event *event); /* EV_AGENT_*, EV_GROUP_REPLY, EV_SPAWN_REPLY, EV_ACTOR_EXITED */
    void *context;
} AgentLinkOptions;

AgentLink *agent_link_create(const AgentLinkOptions *options);
void agent_link_destroy(AgentLink *link); /* ends the embedded agent; accepts NULL */

void agent_link_start(AgentLink *link); /* FX_START_AGENT: start or dial, again if need be */
void agent_link_group(AgentLink *link, const Effect *effect);

typedef struct SpawnOrder {
    int actor;
    uint64_t incarnation, group;
    int bundle;
    const char *name, *executable, *log_path;
    const char *const *argument;
    int num_arguments;
} SpawnOrder;
void agent_link_spawn(AgentLink *link, const SpawnOrder *order);
void agent_link_kill(AgentLink *link, const char *name, int actor, uint64_t incarnation);

#endif
