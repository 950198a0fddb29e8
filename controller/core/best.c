/* The best evaluations so far, whose checkpoints are kept (checkpoint.keep_best). The list is a
 * part of what a checkpoint says of the run, and an evaluation that gets into it is followed by the
 * checkpoint that says so: what is kept is decided by what was committed, never by memory, and a
 * run that goes back to a checkpoint goes back to its list. Therefore evaluations come before the
 * checkpoint of their step here, and after it in other runs. Each stage has a list of its own; the
 * weights that it begins with do not take part. */
#include "core/core.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/figures.h"

bool best_is_used(const Controller *c)
{
    return c->config->checkpoint.keep_best > 0;
}

static bool is_better(const Controller *c, double value, double than)
{
    return c->config->eval.best_mode == BEST_MIN ? value < than : value > than;
}

static bool is_listed(const BestList *list, int64_t step)
{
    for (int i = 0; i < list->count; i++)
        if (list->item[i].step == step) return true;
    return false;
}

/* Of equals the earlier one counts more. */
static bool insert(Controller *c, BestList *list, double value)
{
    int at = 0, room = (int)c->config->checkpoint.keep_best;
    while (at < list->count && !is_better(c, value, list->item[at].value))
        at++;
    if (at == room) return false;
    if (list->count < room) list->count++;
    memmove(&list->item[at + 1], &list->item[at],
            (size_t)(list->count - 1 - at) * sizeof *list->item);
    list->item[at] = (BestItem){c->step, value};
    return true;
}

void best_take(Controller *c)
{
    EvalGoal goal;
    if (!best_is_used(c) || stage_step(c) == 0 || !eval_goal(c->config, &goal)) return;
    double value = eval_value(&c->eval.figures[goal.set], goal.figure, goal.k);
    BestItem before = c->done.best.item[0];
    char than[64] = "";
    if (c->done.best.count > 0)
        snprintf(than, sizeof than, "; before: %.6g, step %lld", before.value,
                 (long long)before.step);
    if (!isfinite(value) || is_listed(&c->done.best, c->step)) return;
    if (!insert(c, &c->done.best, value)) return;
    c->save.best_owed = true;
    if (c->done.best.item[0].step == c->step)
        core_log(c, LOG_INFO, "best_so_far", "%s %.6g at step %lld%s", c->config->eval.best_metric,
                 value, (long long)c->step, than);
}

void best_unsaved(Controller *c)
{
    c->save.best_owed = false;
    c->done.best = c->saved.best;
}
