/* From one stage to the next, as the job file has them or as people ask for them (EV_SWAP). What is
 * of the old stage goes: its rollout actors, its data source, what they had made ahead. What is of
 * the run stays: the placement group, the train ranks with weights and optimizer state, the count
 * of steps, the ledger. A stage ends when its steps are made, committed and evaluated; a resume
 * that finds its last step goes on from there as if nothing had been. */
#include "core/core.h"

#include <stdlib.h>
#include <string.h>

#include "config/eval_set.h"

static void add_stage(Controller *c, const Stage *stage, const char *fingerprint)
{
    size_t count = (size_t)c->num_stages + 1;
    c->stage = mem_realloc(c->stage, count, sizeof *c->stage);
    c->fingerprint = mem_realloc(c->fingerprint, count, sizeof *c->fingerprint);
    c->stage[c->num_stages] = *stage;
    c->fingerprint[c->num_stages++] = mem_strdup(fingerprint);
}

static void drop_stages(Controller *c, int count)
{
    while (c->num_stages > count)
        free(c->fingerprint[--c->num_stages]);
}

void stage_take(Controller *c, const ControllerStart *start)
{
    CHECK(start->state.stage >= 0 && start->state.stage < start->num_stages);
    for (int i = 0; i < start->num_stages; i++)
        add_stage(c, &start->stage[i], i == start->state.stage ? start->data_fingerprint : NULL);
    c->config = c->stage[start->state.stage].config;
}

void stage_free(Controller *c)
{
    drop_stages(c, 0);
    free(c->stage);
    free(c->fingerprint);
    free(c->set);
    free(c->eval.figures);
}

bool stage_has_next(const Controller *c)
{
    return c->done.stage + 1 < c->num_stages;
}

int64_t stage_step(const Controller *c)
{
    return c->step - c->done.stage_begin;
}

bool stage_wants(const Controller *c, int actor)
{
    int worker = ranks_leader(c, actor); /* itself, mostly */
    if (worker != actor && ranks_count(c, worker) == 0) return false;
    return worker < c->end_rollout || worker >= c->first_train;
}

/* Where the new stage begins in its own data. What was trained is counted through the whole run. */
static void begin_books(Controller *c, int stage)
{
    c->done.stage = stage;
    c->done.stage_begin = c->step;
    c->done.next_position = c->next_position = 0;
    c->done.rejected_samples = c->done.bad_records = c->done.records = 0;
    c->done.tally = (RecordTally){0};
    memset(c->done.source, 0, sizeof c->done.source);
    c->done.evaluated = 0;
    c->done.best = (BestList){0}; /* other data, other figures */
}

static void renew_sets(Controller *c)
{
    size_t num_evals = (size_t)eval_set_count(c->config);
    free(c->set);
    free(c->eval.figures);
    c->num_sets = 1 + (int)num_evals;
    c->set = mem_calloc((size_t)c->num_sets, sizeof *c->set);
    for (int i = 0; i < c->num_sets; i++)
        c->set[i] =
            (DataSet){.name = i == 0 ? "train" : eval_set(c->config, i - 1).name, .records = -1};
    c->eval.figures = mem_calloc(num_evals, sizeof *c->eval.figures);
    for (SetName set = 0; set < SET_COUNT; set++)
        lane_renew(c, set);
    evaluate_enter(c, 0);
}

void stage_enter(Controller *c, int stage)
{
    bool first = c->done.stage < 0;         /* nothing to leave */
    bool next = stage == c->done.stage + 1; /* not back to one before, with a checkpoint of it */
    c->config = c->stage[stage].config;
    /* Of that checkpoint a restart of the train ranks takes the reference model. */
    bool needs_start = next && !first && c->step > 0 && job_refers_to_start(c->config);
    CHECK(!needs_start || c->saved.step == c->step);
    begin_books(c, stage);
    if (next && c->saved.step == c->step) c->saved = c->done; /* the same weights */
    c->end_rollout = c->first_rollout + (int)c->config->rollout.num_workers;
    lease_forget_all(c);
    renew_sets(c);
    for (int i = 0; i < c->first_train && !first; i++)
        supervise_replace(c, i, "another stage");
    for (int i = c->first_rollout; i < c->first_train; i++)
        c->actor[i].adopted = c->actor[i].adopting = c->actor[i].received = 0;
    for (int i = c->first_rollout; i < c->first_follower; i++)
        ranks_reset(c, i);
    c->eval.last_step = -1;
    c->eval.bad_records = 0;
    c->eval.checked = false;
    c->total_steps = c->schedule_steps = 0;
    c->skipped_in_a_row = 0;
    records_forget_messages(&c->rejects_logged);
    records_forget_messages(&c->notes_logged);
    effect_add(c->fx, FX_STAGE)->stage.stage = stage;
    gang_configure(c);
    c->phase = PHASE_STARTING;
}

/* The stage in work ends with the step in work, and the new one is the last. */
void stage_swap(Controller *c, const Event *event)
{
    if (c->phase == PHASE_ENDING) return;
    bool running = c->lane[SET_TRAIN].running.state == PLAN_SLOT_RUNNING;
    int64_t last = c->step + running;
    drop_stages(c, c->done.stage + 1);
    c->stage[c->done.stage].swapped = true;
    c->stage[c->done.stage].last_step = last;
    if (c->total_steps > last) c->total_steps = last;
    add_stage(c, &(Stage){.config = event->swap.config}, NULL);
    Effect *effect = effect_add(c->fx, FX_SWAPPED);
    effect->swapped.stage = c->num_stages - 1;
    effect->swapped.last_step = last;
}
