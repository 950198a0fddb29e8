/* Checkpoints: every rank writes its files into a fresh folder, then one commit makes them a
 * checkpoint. A commit that is out is not called back: it lands or fails by itself, and where a run
 * goes back to is known only then. Until then the ledger stays as it is, because the checkpoint
 * that may land names its last line. */
#include "core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *newest(const Controller *c)
{
    return c->checkpoint != NULL ? c->checkpoint : "none";
}

/* The next stage's reference model is to be the weights with which it begins. */
static bool is_start_of_next(const Controller *c)
{
    bool at_end = c->step >= c->total_steps || c->lane[SET_TRAIN].over;
    if (!at_end || !stage_has_next(c)) return false;
    return job_refers_to_start(c->stage[c->done.stage + 1].config);
}

bool save_is_due(const Controller *c, bool at_end)
{
    if (push_is_all(c)) return false; /* the weights are those of the beginning */
    if (c->save.best_owed) return true;
    /* Behind a save of this step that failed it may turn out that no other comes: the data is over,
     * or there is a swap. If it fails again, that is told. */
    bool needed = at_end && (!stage_has_next(c) || is_start_of_next(c));
    if (c->save.tried_step == c->step && !needed) return false;
    if (at_end || core_is_stopping(c)) return c->step > c->saved.step;
    return job_is_due(c->config->checkpoint.interval, c->step);
}

void save_begin(Controller *c)
{
    c->phase = PHASE_SAVING;
    c->save.tried_step = c->step;
    c->save.best_owed = false;
    c->save.answers = 0;
    c->save.id = core_next_id(c);
    Effect *effect = effect_add(c->fx, FX_CHECKPOINT_BEGIN);
    effect->checkpoint.save = c->save.id;
    effect->checkpoint.state = c->done;
}

static void abandon_folder(Controller *c, uint64_t save, const char *folder)
{
    Effect *effect = effect_add(c->fx, FX_CHECKPOINT_ABANDON);
    effect->checkpoint.save = save;
    effect->checkpoint.folder = arena_strndup(c->scratch, folder, strlen(folder));
}

void save_abandon(Controller *c)
{
    if (c->save.committing) return;
    if (c->save.folder != NULL) abandon_folder(c, c->save.id, c->save.folder);
    free(c->save.folder);
    c->save.folder = NULL;
    c->save.id = 0;
}

/* What a full disk would have to hold. */
static const char *size_of_one(Controller *c, Status status)
{
    if (status != ERR_RESOURCE || c->checkpoint_size == NULL) return "";
    return arena_printf(c->scratch, " (a checkpoint takes %s)", c->checkpoint_size);
}

/* No other save comes after it. */
static bool is_last(const Controller *c)
{
    bool at_end = c->step >= c->total_steps || c->lane[SET_TRAIN].over;
    return c->stop_requests > 0 || (at_end && !stage_has_next(c));
}

/* A save that fails is a save that fails: older checkpoints stand, training goes on; only one that
 * nothing can make up for is fatal. */
static void fail(Controller *c, Status status, const char *message)
{
    save_abandon(c);
    best_unsaved(c);
    c->phase = PHASE_TRAINING;
    if (c->failure.status != OK)
        core_finish(c, c->failure.status, "%s\nThe steps after step %lld are lost: %s",
                    c->failure.message, (long long)c->saved.step, message);
    else if (is_last(c) || is_start_of_next(c))
        core_finish(
            c, status,
            "the last checkpoint%s could not be saved: %s%s\nThe newest whole one: %s\n"
            "Make room, or whatever it lacks, and give the same command again: it goes on from "
            "there.",
            is_last(c) ? "" : " of the stage", message, size_of_one(c, status), newest(c));
    else
        core_log(c, LOG_ERROR, "save_failed",
                 "step %lld: %s%s; training goes on, the newest whole checkpoint is %s",
                 (long long)c->step, message, size_of_one(c, status), newest(c));
}

static void on_begun(Controller *c, const Event *event)
{
    bool current = c->phase == PHASE_SAVING && event->checkpoint.save == c->save.id;
    if (!current) { /* of an attempt that was given up meanwhile */
        if (event->status == OK) abandon_folder(c, event->checkpoint.save, event->checkpoint.path);
        return;
    }
    if (event->status != OK) {
        fail(c, event->status, event->message);
        return;
    }
    c->save.folder = mem_strdup(event->checkpoint.path);
    for (int i = c->first_train; i < c->num_actors; i++) {
        Effect *effect = core_call(c, i, CALL_SAVE, c->save.id, WORK_TIMEOUT_MS);
        effect->call.save.folder = c->save.folder;
        effect->call.save.step = c->step;
    }
}

static void take_checkpoint(Controller *c, const char *path)
{
    free(c->checkpoint);
    c->checkpoint = mem_strdup(path);
    c->saved = c->save.state;
}

static void on_done(Controller *c, const Event *event)
{
    if (!c->save.committing || event->checkpoint.save != c->save.id) return;
    c->save.committing = false;
    free(c->save.folder); /* it has its final name, or is gone */
    c->save.folder = NULL;
    if (event->status == OK) take_checkpoint(c, event->checkpoint.path);
    if (c->phase == PHASE_ENDING) return;
    if (c->save.rewind_owed)
        job_roll_back(c); /* to the one that has just come about, perhaps */
    else if (event->status == OK)
        c->phase = PHASE_TRAINING;
    else
        fail(c, event->status, event->message);
}

void save_event(Controller *c, const Event *event)
{
    if (event->kind == EV_CHECKPOINT_BEGUN)
        on_begun(c, event);
    else
        on_done(c, event);
}

void save_reply(Controller *c, const Event *event)
{
    if (c->phase != PHASE_SAVING || event->reply.id != c->save.id) return;
    if (event->status != OK) {
        if (gang_is_retryable(event->status))
            supervise_call_failed(c, event->actor, event->message);
        else
            fail(c, event->status, event->message);
        return;
    }
    Effect *files = effect_add(c->fx, FX_CHECKPOINT_FILES);
    files->actor = event->actor;
    files->checkpoint.save = c->save.id;
    files->checkpoint.folder = c->save.folder;
    files->checkpoint.file = event->reply.save.file;
    files->checkpoint.num_files = event->reply.save.count;
    if (++c->save.answers < core_num_train(c)) return;
    Effect *commit = effect_add(c->fx, FX_CHECKPOINT_COMMIT);
    commit->checkpoint.save = c->save.id;
    commit->checkpoint.folder = c->save.folder;
    commit->checkpoint.state = c->done;
    c->save.committing = true;
    c->save.state = c->done;
}

static void describe_lost(const Controller *c, char *text, size_t size)
{
    long long first = (long long)c->saved.step + 1, last = (long long)c->step;
    bool unfinished = c->lane[SET_TRAIN].running.state == PLAN_SLOT_RUNNING;
    int used = 0;
    if (last == first)
        used = snprintf(text, size, "step %lld", last);
    else if (last > first)
        used = snprintf(text, size, "steps %lld to %lld", first, last);
    else if (!unfinished)
        used = snprintf(text, size, "nothing");
    if (unfinished && used < (int)size)
        snprintf(text + used, size - (size_t)used, "%sthe unfinished step %lld",
                 used > 0 ? " and " : "", last + 1);
}

void save_describe_end(const Controller *c, char *text, size_t size)
{
    if (push_is_all(c)) {
        snprintf(text, size,
                 "Answers of %lld of %lld batches are in %s. The same command generates them anew.",
                 (long long)c->step, (long long)c->total_steps, c->config->rollout.save);
        return;
    }
    char lost[128], stands[REASON_MAX + 64] = "nothing";
    describe_lost(c, lost, sizeof lost);
    if (c->checkpoint != NULL)
        snprintf(stands, sizeof stands, "step %lld (%s)", (long long)c->saved.step, c->checkpoint);
    int used = snprintf(text, size, "Committed: %s. Lost: %s.\n", stands, lost);
    if (used < 0 || used >= (int)size) return;
    if (c->save.committing)
        snprintf(
            text + used, size - (size_t)used,
            "The checkpoint of step %lld is being committed yet. The same command goes on from "
            "it, if that succeeds.",
            (long long)c->save.state.step);
    else if (c->checkpoint != NULL)
        snprintf(text + used, size - (size_t)used, "The same command goes on from step %lld.",
                 (long long)c->saved.step);
    else
        snprintf(text + used, size - (size_t)used, "The same command begins anew.");
}

void save_ledger_failed(Controller *c, const Event *event)
{
    core_finish(c, event->status,
                "the ledger, which says what every step was trained on, could not be written: %s\n"
                "The newest whole checkpoint: %s\n"
                "Make room, or whatever it lacks, and give the same command again: it goes on from "
                "there.",
                event->message, newest(c));
}

void save_roll_back(Controller *c)
{
    save_abandon(c);
    c->save.rewind_owed = c->save.committing;
    c->save.tried_step = c->checkpoint != NULL ? c->saved.step : -1;
    c->save.best_owed = false;
    if (!c->save.rewind_owed) effect_add(c->fx, FX_LEDGER_REWIND)->checkpoint.state = c->saved;
}
