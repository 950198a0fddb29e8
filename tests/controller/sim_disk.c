/* The disk: what was written and what a kill leaves of it. The ledger forgets what is cut off, and
 * a checkpoint is there when its commit has landed, not when it was ordered. */
#include "sim_internal.h"

#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "config/source_set.h"

/* ---- the ledger ---- */

/* Positions of the stage's data that are consumed after a step. */
static int64_t end_in_stage(const World *w, int64_t step, int stage)
{
    return w->disk.ledger_stage[step] == stage ? w->disk.ledger_end[step] : 0;
}

/* What a supervised step is by the book (docs/data-order.md), whatever the session before made of
 * it: the first accepted records behind the last step; of one epoch, unless its remainder wraps. */
static void check_positions(World *w, const Plan *plan)
{
    if (generates(w)) return;
    RemainderPolicy policy = w->config->data.remainder;
    int64_t batch = job_samples_per_step(w->config), position = plan->first_position;
    int64_t seam = (position / SIM_RECORDS + 1) * SIM_RECORDS, taken = 0, sum = 0, planned = 0;
    for (; taken < batch; position++) {
        if (position == seam && policy == REMAINDER_PAD && taken > 0) break;
        if (position == seam && policy == REMAINDER_DROP) taken = sum = 0;
        if (position == seam) seam += SIM_RECORDS;
        if (sample_at(w, 0, position).status == SAMPLE_REJECTED) continue;
        taken++;
        sum += position;
    }
    if (policy == REMAINDER_DROP && seam - position < batch) position = seam;
    for (int i = 0; i < plan->num_samples; i++)
        planned += plan->sample[i].position;
    int64_t rejected = position - plan->first_position - taken;
    if (plan->end_position != position || plan->num_samples != taken || planned != sum ||
        plan->rejected != rejected)
        violate(w,
                "step %lld of positions %lld to %lld trains %d of the sum %lld and rejects %d; "
                "expected an end at %lld, %lld of the sum %lld, %lld rejected",
                (long long)plan->step, (long long)plan->first_position,
                (long long)plan->end_position, plan->num_samples, (long long)planned,
                plan->rejected, (long long)position, (long long)taken, (long long)sum,
                (long long)rejected);
}

static void append(World *w, const Plan *plan)
{
    if (w->disk.landing.pending) violate(w, "the ledger grows while a commit is under way");
    if (plan->step != w->disk.ledger_steps + 1)
        violate(w, "step %lld follows step %lld in the ledger", (long long)plan->step,
                (long long)w->disk.ledger_steps);
    if (plan->first_position != end_in_stage(w, w->disk.ledger_steps, w->stage_now))
        violate(w, "step %lld begins at position %lld, the one before ended at %lld",
                (long long)plan->step, (long long)plan->first_position,
                (long long)end_in_stage(w, w->disk.ledger_steps, w->stage_now));
    CHECK(plan->step <= STEPS_MAX);
    check_positions(w, plan);
    if (w->result.violation[0] != '\0') return;
    int64_t step = ++w->disk.ledger_steps;
    w->disk.ledger_end[step] = plan->end_position;
    w->disk.ledger_stage[step] = w->stage_now;
    w->disk.trained[step] = w->disk.trained[step - 1] + plan->num_samples;
    uint64_t chain = w->disk.chain[step - 1];
    for (int i = 0; i < plan->num_samples; i++)
        chain = rng_mix(chain ^ rng_mix((uint64_t)plan->sample[i].position));
    w->disk.chain[step] = rng_mix(chain ^ (uint64_t)plan->end_position);
}

static void ranks_agree(World *w, int64_t step)
{
    const Process *last = &w->process[w->num_actors - 1];
    for (int i = w->first_train; i < w->num_actors; i++)
        if (w->process[i].alive && last->alive && w->process[i].weights != last->weights)
            violate(w, "ranks differ after step %lld", (long long)step);
}

static void append_or_fail(World *w, const Plan *plan)
{
    moved(w);
    if (w->disk.ledger_broken) return;
    if (!chance(w, w->faults->failed_append)) {
        append(w, plan);
        ranks_agree(w, plan->step);
        return;
    }
    w->disk.ledger_broken = true;
    push(w, 1,
         &(Event){.kind = EV_LEDGER_FAILED,
                  .status = ERR_RESOURCE,
                  .message = "ledger: no space left on device"});
}

/* Cuts the ledger; it cannot grow again by what it has lost. */
static void rewind_to(World *w, const CheckpointState *state)
{
    if (w->disk.landing.pending)
        violate(w, "the ledger goes back to step %lld while a commit of step %lld is under way",
                (long long)state->step, (long long)w->disk.landing.state.step);
    if (state->step > w->disk.ledger_steps)
        violate(w, "the checkpoint names step %lld, the ledger holds %lld steps",
                (long long)state->step, (long long)w->disk.ledger_steps);
    else if (state->step > 0 && w->disk.has_checkpoint && state->step == w->disk.saved.step &&
             w->disk.chain[state->step] != w->disk.saved_head)
        violate(w, "the ledger has another head than the checkpoint of step %lld",
                (long long)state->step);
    else if (end_in_stage(w, state->step, state->stage) != state->next_position)
        violate(w, "step %lld ends at position %lld in the ledger, at %lld in the checkpoint",
                (long long)state->step, (long long)end_in_stage(w, state->step, state->stage),
                (long long)state->next_position);
    if (w->disk.has_checkpoint && state->step < w->disk.saved.step)
        violate(w, "the ledger goes back to step %lld, before the checkpoint of step %lld",
                (long long)state->step, (long long)w->disk.saved.step);
    if (w->result.violation[0] == '\0') w->disk.ledger_steps = state->step;
}

/* ---- checkpoints ---- */

static bool refuses(World *w)
{
    return chance(w, w->faults->failed_save);
}

static const char *folder_of(World *w, uint64_t save)
{
    char name[32];
    int length = snprintf(name, sizeof name, "partial-%llu", (unsigned long long)save);
    return arena_strndup(w->arena, name, (size_t)length);
}

static void begin(World *w, const Effect *fx)
{
    Event event = {.kind = EV_CHECKPOINT_BEGUN};
    event.checkpoint.save = fx->checkpoint.save;
    w->disk.saving = (Saving){.id = fx->checkpoint.save};
    event.checkpoint.path = folder_of(w, fx->checkpoint.save);
    if (refuses(w)) {
        event.status = ERR_RESOURCE;
        event.message = "no space left on device";
    }
    push(w, chance(w, w->faults->late_commit) ? draw_below(w, 10000) : latency(w), &event);
}

static void land(World *w)
{
    Landing *landing = &w->disk.landing;
    int64_t step = landing->state.step;
    if (step > w->disk.ledger_steps || w->disk.chain[step] != landing->head)
        violate(w, "the checkpoint of step %lld lands, but its lines of the ledger are gone",
                (long long)step);
    w->disk.landed[step] = true;
    for (int i = 0; i < landing->state.best.count; i++)
        if (!w->disk.landed[landing->state.best.item[i].step])
            violate(w, "step %lld is one of the best and has no checkpoint",
                    (long long)landing->state.best.item[i].step);
    w->disk.saved = landing->state;
    w->disk.saved_weights = landing->weights;
    w->disk.saved_head = landing->head;
    w->disk.has_checkpoint = true;
}

static void commit_ends(World *w, void *argument)
{
    bool mine = w->disk.landing.number == (uint64_t)(uintptr_t)argument;
    if (!mine || !w->disk.landing.pending) return; /* the controller died meanwhile */
    Event event = {.kind = EV_CHECKPOINT_DONE};
    event.checkpoint.save = w->disk.landing.save;
    event.checkpoint.path = "folder";
    if (refuses(w) || w->disk.ledger_broken) {
        event.status = ERR_RESOURCE;
        event.message = "no space left on device";
    } else {
        land(w);
    }
    w->disk.landing.pending = false;
    moved(w);
    push(w, 0, &event);
}

/* What is counted of each source is what stands below the position. */
static void check_sources(World *w, const CheckpointState *state)
{
    if (w->config->data.sources.count == 0) return;
    const char *name[SIM_SOURCES];
    double weight[SIM_SOURCES];
    Interleave mix;
    for (int i = 0; i < SIM_SOURCES; i++) {
        TrainSource source = train_source(w->config, i);
        name[i] = source.name;
        weight[i] = source.weight;
    }
    CHECK(interleave_make((uint64_t)w->config->seed, name, weight, SIM_SOURCES, &mix) < 0);
    InterleaveCursor cursor = interleave_cursor(&mix, (uint64_t)state->next_position);
    for (int i = 0; i < SIM_SOURCES; i++) {
        const SourceTally *tally = &state->source[i];
        if (tally->samples + tally->rejected != (int64_t)cursor.taken[i])
            violate(w,
                    "of source %s %lld samples and %lld rejected are counted, %llu stand below "
                    "position %lld",
                    name[i], (long long)tally->samples, (long long)tally->rejected,
                    (unsigned long long)cursor.taken[i], (long long)state->next_position);
    }
}

/* What is counted is what the steps of the ledger sum up to. */
static void check_counts(World *w, const CheckpointState *state)
{
    if (w->disk.ledger_broken) return;
    int64_t trained = w->disk.trained[state->step];
    if (state->consumed_samples != trained)
        violate(w, "step %lld is committed with %lld samples, the ledger has %lld",
                (long long)state->step, (long long)state->consumed_samples, (long long)trained);
    if (w->num_stages == 1 && !generates(w) &&
        trained + state->rejected_samples != state->next_position)
        violate(w, "%lld samples and %lld rejected are no %lld positions", (long long)trained,
                (long long)state->rejected_samples, (long long)state->next_position);
}

static void commit(World *w, const Effect *fx)
{
    check_sources(w, &fx->checkpoint.state);
    check_counts(w, &fx->checkpoint.state);
    if (w->disk.landing.pending) violate(w, "two commits at a time");
    if (fx->checkpoint.save != w->disk.saving.id)
        violate(w, "a commit of a save that is not under way");
    if (strcmp(fx->checkpoint.folder, folder_of(w, fx->checkpoint.save)) != 0)
        violate(w, "a commit of the folder %s", fx->checkpoint.folder);
    if (w->disk.saving.files != w->num_actors - w->first_train)
        violate(w, "a commit with the files of %d ranks", w->disk.saving.files);
    if (fx->checkpoint.state.step != w->disk.ledger_steps && !w->disk.ledger_broken)
        violate(w, "a commit of step %lld while the ledger stands at step %lld",
                (long long)fx->checkpoint.state.step, (long long)w->disk.ledger_steps);
    w->disk.landing = (Landing){.pending = true,
                                .number = w->disk.landing.number + 1,
                                .save = fx->checkpoint.save,
                                .weights = w->disk.saving.weights,
                                .head = w->disk.chain[w->disk.ledger_steps],
                                .state = fx->checkpoint.state};
    w->disk.saving = (Saving){0};
    bool late = chance(w, w->faults->late_commit);
    if (late) disturbed(w);
    push_run(w, late ? draw_below(w, 10000) : latency(w), commit_ends,
             (void *)(uintptr_t)w->disk.landing.number);
}

void disk_effect(World *w, const Effect *fx)
{
    switch (fx->kind) {
    case FX_CHECKPOINT_BEGIN:
        begin(w, fx);
        break;
    case FX_CHECKPOINT_FILES:
        if (fx->checkpoint.save != w->disk.saving.id)
            violate(w, "files of a save that is not under way");
        w->disk.saving.files++;
        w->disk.saving.weights = w->process[fx->actor].weights;
        break;
    case FX_CHECKPOINT_COMMIT:
        commit(w, fx);
        break;
    case FX_CHECKPOINT_ABANDON:
        if (fx->checkpoint.save == w->disk.saving.id) w->disk.saving = (Saving){0};
        break;
    case FX_LEDGER_APPEND:
        append_or_fail(w, fx->ledger.plan);
        break;
    default:
        CHECK(fx->kind == FX_LEDGER_REWIND);
        rewind_to(w, &fx->checkpoint.state);
        break;
    }
}

/* Its process is gone in the middle of whatever it did: a commit has come about, or not. */
void disk_controller_died(World *w)
{
    if (w->disk.landing.pending && !w->disk.ledger_broken && chance(w, 0.5)) land(w);
    w->disk.landing.pending = false;
    w->disk.saving = (Saving){0};
    w->disk.ledger_broken = false;
}
