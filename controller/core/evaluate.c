/* Evaluations, set by set: of a model that is given the answers (plans go through the gang as
 * training's do, without an update), or by generation (rollout workers answer, and rewards say
 * all). */
#include "core/core.h"

#include "base/memory.h"
#include "config/eval_set.h"
#include "core/figures.h"

static EvalFigures *figures_now(Controller *c)
{
    return &c->eval.figures[c->eval.at];
}

void evaluate_commit_piece(Controller *c)
{
    Lane *lane = lane_of(c, SET_EVAL);
    PlanSlot *running = &lane->running;
    result_add(&figures_now(c)->result, &running->result);
    figures_now(c)->samples += running->plan.num_samples;
    c->eval.bad_records += stream_consume(&lane->stream, running->plan.end_position);
    job_release(c, SET_EVAL, running->plan.end_position);
    plan_clear(&running->plan);
    *running = (PlanSlot){0};
}

/* An evaluation by generation: what came of a position. */
static void add_answers(AnswerFigures *sum, const SampleMeta *answer, int count)
{
    int judged = 0, right = 0;
    for (int i = 0; i < count; i++) {
        if (!sample_meta_trains(&answer[i])) {
            sum->unjudged += answer[i].reject_reason == REJECT_UNJUDGED;
            sum->failed += answer[i].reject_reason == REJECT_FAILED;
            sum->refused += answer[i].reject_reason != REJECT_UNJUDGED &&
                            answer[i].reject_reason != REJECT_FAILED;
            continue;
        }
        judged++;
        right += answer[i].right;
        sum->truncated += answer[i].status == SAMPLE_TRUNCATED;
        sum->reward += (double)answer[i].reward;
        sum->reward_squared += (double)answer[i].reward * (double)answer[i].reward;
        sum->tokens += answer[i].trained_tokens;
        sum->turns += answer[i].work.turns;
        sum->tool_calls += answer[i].work.tool_calls;
        sum->tool_errors += answer[i].work.tool_errors;
        sum->tool_s += (double)answer[i].work.tool_s;
        sum->judge_s += (double)answer[i].work.judge_s;
        figures_add_parts(sum, &answer[i].work);
    }
    if (judged == 0) return;
    sum->prompts++;
    sum->answers += judged;
    sum->right += right;
    for (int i = 0; i < PASS_AT_MAX && 1 << i <= judged; i++) {
        sum->pass[i] += pass_at_k(judged, right, 1 << i);
        sum->pass_of[i]++;
    }
}

/* Answers of an evaluation need no plan: their rewards say all. */
static void take_answers(Controller *c)
{
    Lane *lane = lane_of(c, SET_EVAL);
    int64_t front = lane->stream.front;
    if (front == lane->planned) return;
    for (int64_t p = lane->planned; p < front; p++)
        add_answers(&figures_now(c)->answers, stream_samples(&lane->stream, p),
                    stream_slot(&lane->stream, p)->samples);
    c->eval.bad_records += stream_consume(&lane->stream, front);
    lane->planned = front;
    lane->over = front >= lane->stream.end;
    job_release(c, SET_EVAL, front);
}

/* ---- set by set ---- */

void evaluate_set_is_open(Controller *c)
{
    Stream *stream = &lane_of(c, SET_EVAL)->stream;
    stream->records = stream->end = core_set(c, SET_EVAL)->records;
}

void evaluate_enter(Controller *c, int at)
{
    lease_drop_set(c, SET_EVAL);
    c->eval.at = at;
    c->eval.started_ms = c->now_ms;
    lane_restart(lane_of(c, SET_EVAL), 0);
    const DataSet *set = core_set(c, SET_EVAL);
    if (set != NULL) evaluate_set_is_open(c); /* as it was when it was opened last */
}

static bool has_next_set(const Controller *c)
{
    return 1 + c->eval.at + 1 < c->num_sets;
}

void evaluate_begin(Controller *c)
{
    c->phase = PHASE_EVALUATING;
    c->eval.checked = true; /* every record is rolled out now */
    c->eval.bad_records = 0;
    for (int i = 0; i < c->num_sets - 1; i++)
        c->eval.figures[i] = (EvalFigures){.name = c->set[1 + i].name,
                                           .rewards = eval_set(c->config, i).reward,
                                           .generated = push_is_used(c)};
    evaluate_enter(c, 0);
}

static void end_set(Controller *c)
{
    figures_now(c)->seconds = (double)(c->now_ms - c->eval.started_ms) / 1000;
    if (has_next_set(c)) {
        evaluate_enter(c, c->eval.at + 1);
        return;
    }
    Effect *report = effect_add(c->fx, FX_REPORT_EVAL);
    report->eval.step = c->step;
    report->eval.stage = c->done.stage;
    report->eval.set = c->eval.figures;
    report->eval.num_sets = c->num_sets - 1;
    c->eval.last_step = c->done.evaluated = c->step;
    c->phase = PHASE_TRAINING;
    best_take(c);
}

void evaluate_advance(Controller *c)
{
    Lane *lane = lane_of(c, SET_EVAL);
    lease_ahead(c, SET_EVAL);
    if (push_is_used(c))
        take_answers(c);
    else
        job_plan_ahead(c, SET_EVAL);
    if (lane->running.state != PLAN_SLOT_EMPTY) return;
    if (core_is_stopping(c)) {
        c->phase = PHASE_TRAINING; /* an evaluation is not worth waiting for */
    } else if (lane->next.state == PLAN_SLOT_FETCHED) {
        job_run_next(c, SET_EVAL);
        job_plan_ahead(c, SET_EVAL);
    } else if (lane->over && lane->next.state == PLAN_SLOT_EMPTY) {
        end_set(c);
    }
}

bool evaluate_is_due(const Controller *c, bool at_end)
{
    if (c->num_sets == 1 || c->eval.last_step == c->step) return false;
    if (push_is_all(c) && c->eval.last_step >= 0) return false; /* the same weights */
    if (at_end) return c->stop_requests == 0;
    if (stage_step(c) == 0) return c->config->eval.before_train;
    return job_is_due(c->config->eval.interval, c->step) && !push_is_all(c);
}

void evaluate_check_set(Controller *c)
{
    Lane *lane = lane_of(c, SET_EVAL);
    bool cheap = c->config->rollout.function == ROLLOUT_SFT;
    if (c->eval.checked || !cheap || c->num_sets == 1 || c->step >= c->total_steps) return;
    if (!core_set(c, SET_EVAL)->open) return;
    if (evaluate_is_due(c, false)) return; /* it sees them all */
    lease_ahead(c, SET_EVAL);
    int64_t front = lane->stream.front;
    if (front > lane->planned) {
        c->eval.bad_records += stream_consume(&lane->stream, front);
        lane->planned = front;
        job_release(c, SET_EVAL, front);
    }
    if (front < lane->stream.end) return;
    c->eval.checked = !has_next_set(c);
    if (!c->eval.checked) evaluate_enter(c, c->eval.at + 1);
}
