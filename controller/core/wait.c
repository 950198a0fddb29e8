/* What the run waits for now, and whom: for the progress line, status and the log. */
#include "core/core.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- what is waited for ---- */

static void describe_actors(const Controller *c, char *text, size_t size)
{
    for (int i = 0; i < c->num_actors; i++) {
        const ActorRecord *record = &c->actor[i];
        if (supervise_ready(c, i) || !stage_wants(c, i)) continue;
        snprintf(text, size, "%s, which is %s%s%s", record->name, actor_state_name(record->state),
                 record->reason[0] != '\0' ? ": " : "", record->reason);
        return;
    }
}

/* "training step 7; train-0 waits for rank 1 in all_reduce" */
static void describe_ranks(const Controller *c, char *text, size_t size, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void describe_ranks(const Controller *c, char *text, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int used = vsnprintf(text, size, format, args);
    va_end(args);
    for (int i = c->first_train; i < c->num_actors && used < (int)size; i++)
        if (c->actor[i].waiting_for[0] != '\0')
            used += snprintf(text + used, size - (size_t)used, "; %s waits for %s",
                             c->actor[i].name, c->actor[i].waiting_for);
}

/* "samples from position 16 on from the rollout workers; rollout-0: rollout.reward: ..."; the data
 * source, whom they wait for, is named where it waits itself. */
static void describe_samples(const Controller *c, long long position, char *text, size_t size)
{
    int used =
        snprintf(text, size, "samples from position %lld on from the rollout workers", position);
    for (int i = c->first_rollout; i < c->end_rollout; i++) {
        if (c->actor[i].trouble[0] == '\0') continue;
        snprintf(text + used, size - (size_t)used, "; %s: %s", c->actor[i].name,
                 c->actor[i].trouble);
        return;
    }
    if (strncmp(c->actor[0].doing, "waiting for ", strlen("waiting for ")) == 0)
        snprintf(text + used, size - (size_t)used, "; data_source is %s", c->actor[0].doing);
}

/* Each piece of work has a name of its own: how long it is waited for begins anew with it. */
static void describe_work(const Controller *c, char *text, size_t size)
{
    bool evaluating = c->phase == PHASE_EVALUATING;
    const Lane *lane = &c->lane[evaluating ? SET_EVAL : SET_TRAIN];
    if (turn_describe_wait(c, text, size) || ranks_describe_wait(c, text, size)) return;
    if (lane->running.state == PLAN_SLOT_RUNNING && evaluating)
        describe_ranks(c, text, size, "the evaluation of samples %lld to %lld of %s",
                       (long long)lane->running.plan.first_position,
                       (long long)lane->running.plan.end_position - 1, c->set[1 + c->eval.at].name);
    else if (lane->running.state == PLAN_SLOT_RUNNING)
        describe_ranks(c, text, size, "training step %lld", (long long)lane->running.plan.step);
    else if (c->phase == PHASE_SAVING)
        describe_ranks(c, text, size, "the checkpoint of step %lld to be written",
                       (long long)c->step);
    else if (lane->next.state == PLAN_SLOT_FETCHING)
        describe_ranks(
            c, text, size, "train ranks to fetch the samples of %s %lld",
            evaluating ? "the evaluation from" : "step",
            (long long)(evaluating ? lane->next.plan.first_position : lane->next.plan.step));
    else if (lane->next.state == PLAN_SLOT_EMPTY && !push_describe_wait(c, text, size))
        describe_samples(c, (long long)lane->planned, text, size);
}

void job_describe_wait(Controller *c, char *text, size_t size)
{
    text[0] = '\0';
    if (c->phase == PHASE_ENDING || c->phase == PHASE_OVER) return;
    for (int i = 0; i < c->num_nodes; i++) {
        if (c->node[i].up) continue;
        snprintf(text, size, "the node agent %d to answer", i);
        return;
    }
    if (c->group_state != GROUP_READY) {
        snprintf(text, size, "the placement group%s%s", c->group_wait[0] != '\0' ? ": " : "",
                 c->group_wait);
        return;
    }
    describe_actors(c, text, size);
    if (text[0] != '\0') return;
    if (c->save.rewind_owed)
        snprintf(text, size, "the commit of the checkpoint of step %lld",
                 (long long)c->save.state.step);
    else if (c->gang.state != GANG_READY)
        describe_ranks(c, text, size, "train ranks to %s",
                       c->gang.state == GANG_CONFIGURE ? "take over the next stage"
                                                       : "load the model");
    else if (!job_sets_are_open(c))
        snprintf(text, size, "data_source to open the data set; %s", c->actor[0].doing);
    else
        describe_work(c, text, size);
}
