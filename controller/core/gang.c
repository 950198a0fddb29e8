/* The train ranks as one: they bootstrap their communicators together, load the same state
 * together, and fail together. Ranks are laid out as Megatron does it: the tensor-parallel index
 * runs fastest. */
#include "core/core.h"

#include <stdio.h>
#include <string.h>

#include "base/plural.h"

#define BOOTSTRAP_TIMEOUT_MS 30000
bool gang_is_retryable(Status status)
{
    return status == ERR_UNAVAILABLE || status == ERR_TIMEOUT || status == ERR_CANCELLED;
}

static int tp_rank(const Controller *c, int actor)
{
    return c->actor[actor].rank % (int)c->config->train.tp_size;
}

int gang_dp_rank(const Controller *c, int actor)
{
    return c->actor[actor].rank / (int)c->config->train.tp_size;
}

void gang_reset(Controller *c)
{
    c->gang.state = GANG_DOWN;
    c->gang.answers = 0;
    push_reset(c);
    turn_reset(c);
}

static void begin_bootstrap(Controller *c)
{
    c->gang.state = GANG_BOOTSTRAP;
    c->gang.answers = 0;
    c->gang.call_id = core_next_id(c);
    for (int i = c->first_train; i < c->num_actors; i++) {
        Effect *effect = core_call(c, i, CALL_BOOTSTRAP, c->gang.call_id, BOOTSTRAP_TIMEOUT_MS);
        effect->call.bootstrap.tensor_group = tp_rank(c, i) == 0;
        effect->call.bootstrap.data_group = gang_dp_rank(c, i) == 0;
    }
}

static void begin_start(Controller *c)
{
    c->gang.state = GANG_START;
    c->gang.answers = 0;
    c->gang.call_id = core_next_id(c);
    for (int i = c->first_train; i < c->num_actors; i++) {
        Effect *effect = core_call(c, i, CALL_START, c->gang.call_id, WORK_TIMEOUT_MS);
        effect->call.start.tensor_group_id = c->gang.tensor_id[gang_dp_rank(c, i)].bytes;
        effect->call.start.data_group_id = c->gang.data_id[tp_rank(c, i)].bytes;
        effect->call.start.checkpoint = c->checkpoint;
        effect->call.start.stage_begin = c->done.stage_begin;
    }
}

void gang_configure(Controller *c)
{
    if (c->gang.state != GANG_READY) return; /* it will be told when it starts */
    c->gang.state = GANG_CONFIGURE;
    c->gang.answers = 0;
    c->gang.call_id = core_next_id(c);
    for (int i = c->first_train; i < c->num_actors; i++)
        core_call(c, i, CALL_CONFIGURE, c->gang.call_id, WORK_TIMEOUT_MS);
}

void gang_advance(Controller *c)
{
    if (c->gang.state != GANG_DOWN || c->save.committing) return;
    for (int i = c->first_train; i < c->num_actors; i++)
        if (!supervise_ready(c, i)) return;
    if (turn_take(c, TURN_OF_TRAINING)) begin_bootstrap(c);
}

static void keep_ids(Controller *c, const Event *event)
{
    const void *tensor_id = event->reply.bootstrap.tensor_group_id;
    const void *data_id = event->reply.bootstrap.data_group_id;
    if (tensor_id != NULL)
        memcpy(c->gang.tensor_id[gang_dp_rank(c, event->actor)].bytes, tensor_id, sizeof(CommId));
    if (data_id != NULL)
        memcpy(c->gang.data_id[tp_rank(c, event->actor)].bytes, data_id, sizeof(CommId));
}

static void on_started(Controller *c, const Event *event)
{
    if (event->reply.start.step != c->step) {
        core_finish(c, ERR_INTERNAL, "%s loaded step %lld, expected step %lld from %s",
                    c->actor[event->actor].name, (long long)event->reply.start.step,
                    (long long)c->step, c->checkpoint != NULL ? c->checkpoint : "the beginning");
        return;
    }
    c->gang.parameters = event->reply.start.parameters;
    if (event->reply.start.memory_plan != NULL)
        snprintf(c->gang.memory_plan, sizeof c->gang.memory_plan, "%s",
                 event->reply.start.memory_plan);
    if (++c->gang.answers < core_num_train(c)) return;
    c->gang.state = GANG_READY;
    char from[64] = "";
    if (c->step > 0)
        snprintf(from, sizeof from, "; goes on from step %lld", (long long)c->step);
    else if (c->generation > 1)
        snprintf(from, sizeof from, "; begins anew");
    core_log(c, LOG_INFO, "model_ready", "%lld parameters on %d rank%s (tp %lld, dp %lld)%s",
             (long long)c->gang.parameters, core_num_train(c), plural(core_num_train(c)),
             (long long)c->config->train.tp_size, (long long)c->config->train.dp_size, from);
    core_log(c, LOG_DEBUG, "memory_of_a_rank", "%s", c->gang.memory_plan);
}

void gang_reply(Controller *c, const Event *event)
{
    static const GangState state_of[CALL_KIND_COUNT] = {[CALL_BOOTSTRAP] = GANG_BOOTSTRAP,
                                                        [CALL_START] = GANG_START,
                                                        [CALL_CONFIGURE] = GANG_CONFIGURE};
    if (c->gang.state != state_of[event->reply.call] || event->reply.id != c->gang.call_id) return;
    if (event->status != OK) {
        supervise_reply_failed(c, event);
        return;
    }
    if (event->reply.call == CALL_START) {
        on_started(c, event);
    } else if (event->reply.call == CALL_CONFIGURE) {
        if (++c->gang.answers == core_num_train(c)) c->gang.state = GANG_READY;
    } else {
        keep_ids(c, event);
        if (++c->gang.answers == core_num_train(c)) begin_start(c);
    }
}
