#include "view/reporter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "core/figures.h"
#include "view/eval_report.h"
#include "view/live_line.h"
#include "view/metrics.h"
#include "view/policy_report.h"
#include "view/skipped.h"

#define PLAIN_LINE_MS 1000 /* at most one line a second, where lines are not redrawn */
#define TURNS_KEPT    15   /* their median is how long a step takes, whatever one of them met */
#define TURNS_ENOUGH  3    /* for the time that is left to be worth saying */
#define EQUAL_STEPS   3    /* without anything to compare, until people are told */

struct Reporter {
    Metrics *metrics;
    bool terminal, ascii;
    LiveLine line;  /* what the terminal shows last */
    char phase[32]; /* of the job, when it is something to be seen; else "" */
    int64_t plain_ms;
    double turn_s[TURNS_KEPT]; /* ring: seconds of the last steps */
    int64_t num_turns;         /* ever */
    int equal_steps;           /* in a row, of which every group's rewards are equal */
    ReportView last;
};

/* ---- the live line ---- */

/* The width may change at any time; a terminal that does not know its own counts as 80. */
static int terminal_columns(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return size.ws_col;
}

static void draw(Reporter *reporter)
{
    if (!reporter->terminal || reporter->line.count == 0) return;
    Str text = {0};
    /* The last column stays free: a cursor behind it has wrapped on some terminals. */
    live_line_fit(&reporter->line, terminal_columns() - 1, &text);
    fprintf(stderr, "\r\033[K%s", str_text(&text));
    fflush(stderr);
    str_free(&text);
}

void reporter_resized(Reporter *reporter)
{
    draw(reporter);
}

/* Log lines go above the live line. */
static void write_log_line(void *context, const char *line)
{
    Reporter *reporter = context;
    Str shown = {0};
    if (reporter->ascii)
        live_put_ascii(&shown, line);
    else
        str_puts(&shown, line);
    fprintf(stderr, "\r\033[K%s", str_text(&shown));
    str_free(&shown);
    draw(reporter);
    fflush(stderr);
}

static double mean(double sum, int64_t count)
{
    return count > 0 ? sum / (double)count : NAN;
}

/* ---- steps ---- */

typedef struct StepFigures {
    double loss, accuracy, grad_norm, tokens_per_s; /* NAN where the policy stayed as it was */
    double mfu, peak_flops;                         /* NAN when unknown */
    double eta_s;
} StepFigures;

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds that a step takes, NAN as long as too few were made to tell. */
static double usual_turn(const Reporter *reporter)
{
    double turn[TURNS_KEPT];
    int count = reporter->num_turns < TURNS_KEPT ? (int)reporter->num_turns : TURNS_KEPT;
    if (count < TURNS_ENOUGH) return NAN;
    memcpy(turn, reporter->turn_s, (size_t)count * sizeof *turn);
    qsort(turn, (size_t)count, sizeof *turn, by_size);
    return (turn[(count - 1) / 2] + turn[count / 2]) / 2;
}

/* The critic warms up. */
static bool policy_stays(const StepResult *result)
{
    return result->has_policy && result->policy.tokens == 0;
}

/* The whole turn counts, with what is waited for. */
static double turn_of(const Effect *effect)
{
    double seconds = effect->step.seconds + effect->step.wait_s;
    return seconds > 0 ? seconds : 1e-3;
}

static StepFigures figures_of(Reporter *reporter, const Effect *effect, const JobView *job,
                              double peak_flops)
{
    const StepResult *result = &effect->step.result;
    double seconds = turn_of(effect);
    reporter->turn_s[reporter->num_turns++ % TURNS_KEPT] = seconds;
    double rate = result->flops / seconds;
    return (StepFigures){
        .loss = result->has_policy ? policy_view_step(effect).loss
                                   : mean(result->loss_sum, result->trained_tokens),
        .accuracy = mean((double)result->correct, result->trained_tokens),
        .grad_norm = policy_stays(result) ? (double)NAN : result->grad_norm,
        .tokens_per_s = (double)result->tokens / seconds,
        .mfu = peak_flops > 0 ? rate / peak_flops : NAN,
        .peak_flops = peak_flops > 0 ? peak_flops : NAN,
        .eta_s = (double)(job->total_steps - effect->step.step) * usual_turn(reporter),
    };
}

/* From 1; 0 where there are none. */
static int stage_told(const JobView *job, int stage)
{
    return job->stage_name != NULL || stage > 0 ? stage + 1 : 0;
}

static void put_sources(Metrics *metrics, const Effect *effect)
{
    char name[128];
    for (int i = 0; i < effect->step.num_sources; i++) {
        const SourceStep *source = &effect->step.source[i];
        const SourceLoss *loss = &effect->step.result.source[i];
        snprintf(name, sizeof name, "data/%s/samples", source->name);
        metrics_put(metrics, name, (double)source->samples);
        snprintf(name, sizeof name, "data/%s/tokens", source->name);
        metrics_put(metrics, name, (double)source->tokens);
        snprintf(name, sizeof name, "data/%s/rejected", source->name);
        metrics_put(metrics, name, (double)source->rejected);
        snprintf(name, sizeof name, "data/%s/epoch", source->name);
        metrics_put(metrics, name, source->epoch);
        if (loss->trained_tokens == 0) continue;
        snprintf(name, sizeof name, "data/%s/loss", source->name);
        metrics_put(metrics, name, mean(loss->loss_sum, loss->trained_tokens));
    }
}

static void put_times(Metrics *metrics, const Effect *effect)
{
    const Plan *plan = effect->step.plan;
    metrics_put(metrics, "perf/step_time", effect->step.seconds + effect->step.wait_s);
    metrics_put(metrics, "perf/rollout_time", (double)(plan->done_ms - plan->begun_ms) / 1000);
    metrics_put(metrics, "perf/train_wait_time", effect->step.wait_s);
}

static void record_step(Reporter *reporter, const Effect *effect, const JobView *job,
                        const StepFigures *figures)
{
    Metrics *metrics = reporter->metrics;
    const StepResult *result = &effect->step.result;
    metrics_begin(metrics, METRICS_STEP, effect->step.step, stage_told(job, effect->step.stage));
    metrics_put(metrics, "train/loss", figures->loss);
    if (result->has_policy) policy_metrics_step(metrics, effect);
    metrics_put(metrics, "train/token_accuracy", figures->accuracy);
    metrics_put(metrics, "train/grad_norm", figures->grad_norm);
    metrics_put(metrics, "train/lr", result->lr);
    metrics_put(metrics, "train/skipped", result->skipped);
    metrics_put(metrics, "train/samples", effect->step.plan->num_samples);
    metrics_put(metrics, "train/rejected", effect->step.plan->rejected);
    metrics_put(metrics, "train/dropped", effect->step.plan->dropped[GROUP_REMAINDER]);
    metrics_put(metrics, "train/tokens", (double)result->tokens);
    metrics_put(metrics, "train/trained_tokens", (double)result->trained_tokens);
    metrics_put(metrics, "train/micro_batches", effect->step.plan->num_micro_batches);
    DataPosition at = data_position(effect->step.plan->end_position, effect->step.records);
    metrics_put(metrics, "train/position", (double)at.global_consumed_count);
    metrics_put(metrics, "train/epoch_id", (double)at.epoch_id);
    metrics_put(metrics, "train/consumed_count", (double)at.consumed_count);
    put_sources(metrics, effect);
    put_times(metrics, effect);
    metrics_put(metrics, "perf/train_time", effect->step.seconds);
    metrics_put(metrics, "perf/forward_time", result->forward_s);
    metrics_put(metrics, "perf/backward_time", result->backward_s);
    metrics_put(metrics, "perf/comm_time", result->comm_s);
    metrics_put(metrics, "perf/optimizer_time", result->optimizer_s);
    metrics_put(metrics, "perf/actor_train_tok_per_s", figures->tokens_per_s);
    metrics_put(metrics, "perf/mfu", figures->mfu);
    metrics_put(metrics, "perf/peak_flops", figures->peak_flops);
    metrics_end(metrics);
}

/* Pieces of the live line, the most important first. */
enum {
    SHOW_STEP,
    SHOW_PHASE,
    SHOW_LOSS,
    SHOW_ETA,
    SHOW_RATE,
    SHOW_SKIPPED,
    SHOW_EVAL,
    SHOW_LENGTH,
    SHOW_KL,
    SHOW_ENTROPY,
    SHOW_GRAD,
    SHOW_MFU,
    SHOW_LR
};

static void show_loss(LiveLine *line, const Effect *effect, const StepFigures *figures)
{
    if (!effect->step.result.has_policy) {
        str_printf(live_line_add(line, SHOW_LOSS), "loss %.4f", figures->loss);
        return;
    }
    PolicyView view = policy_view_step(effect);
    str_printf(live_line_add(line, SHOW_LOSS), "reward %.3f", view.reward);
    str_printf(live_line_add(line, SHOW_LENGTH), "length %.0f", view.length);
    if (isfinite(view.kl)) str_printf(live_line_add(line, SHOW_KL), "kl %.2g", view.kl);
    if (isfinite(view.entropy))
        str_printf(live_line_add(line, SHOW_ENTROPY), "entropy %.2f", view.entropy);
    if (view.mismatches > 0)
        str_printf(live_line_add(line, SHOW_PHASE), "%lld LOG-PROBS DIFFER",
                   (long long)view.mismatches);
}

static void show_step_live(Reporter *reporter, const Effect *effect, const JobView *job,
                           const StepFigures *figures)
{
    LiveLine *line = &reporter->line;
    const StepResult *result = &effect->step.result;
    live_line_clear(line);
    str_printf(live_line_add(line, SHOW_STEP), "step %lld/%lld", (long long)effect->step.step,
               (long long)job->total_steps);
    str_puts(live_line_add(line, SHOW_PHASE), reporter->phase);
    show_loss(line, effect, figures);
    if (isfinite(figures->grad_norm))
        str_printf(live_line_add(line, SHOW_GRAD), "grad %.3g", figures->grad_norm);
    str_printf(live_line_add(line, SHOW_LR), "lr %.1e", result->lr);
    Str *rate = live_line_add(line, SHOW_RATE);
    live_put_rate(rate, figures->tokens_per_s);
    str_puts(rate, " tok/s");
    if (figures->mfu > 1) /* the measured rate was too low: how much is not known */
        str_puts(live_line_add(line, SHOW_MFU), "MFU >100%");
    else if (isfinite(figures->mfu))
        str_printf(live_line_add(line, SHOW_MFU), "MFU %.0f%%", 100 * figures->mfu);
    Str *eta = live_line_add(line, SHOW_ETA);
    if (isfinite(figures->eta_s)) {
        str_puts(eta, "ETA ");
        live_put_duration(eta, figures->eta_s);
    }
    if (isfinite(reporter->last.eval_loss))
        str_printf(live_line_add(line, SHOW_EVAL), "eval %.4f", reporter->last.eval_loss);
    Skipped skipped = skipped_count(job);
    if (skipped_is_much(&skipped))
        str_printf(live_line_add(line, SHOW_SKIPPED), "%.0f%% skipped", 100 * skipped.share);
    draw(reporter);
}

static void print_policy(const PolicyView *view)
{
    Str text = {0};
    policy_text(view, &text);
    fputs(str_text(&text), stdout);
    str_free(&text);
}

static void print_step_plain(Reporter *reporter, const Effect *effect, const JobView *job,
                             const StepFigures *figures)
{
    int64_t now = clock_ms();
    bool last = effect->step.step == job->total_steps;
    if (!last && reporter->plain_ms != 0 && now - reporter->plain_ms < PLAIN_LINE_MS) return;
    reporter->plain_ms = now;
    printf("step=%lld/%lld ", (long long)effect->step.step, (long long)job->total_steps);
    if (effect->step.result.has_policy) {
        PolicyView view = policy_view_step(effect);
        print_policy(&view);
        putchar(' ');
    }
    if (!policy_stays(&effect->step.result))
        printf("loss=%.4f grad_norm=%.4g ", figures->loss, figures->grad_norm);
    printf("lr=%.4g tokens_per_s=%.0f", effect->step.result.lr, figures->tokens_per_s);
    if (isfinite(figures->mfu)) printf(" mfu=%.3f", figures->mfu);
    if (effect->step.result.has_policy)
        printf(" step_s=%.3g wait_s=%.3g", turn_of(effect), effect->step.wait_s);
    if (isfinite(figures->eta_s)) printf(" eta_s=%.0f", figures->eta_s);
    Skipped skipped = skipped_count(job);
    if (skipped_is_much(&skipped))
        printf(" skipped=%.1f%%(%s)", 100 * skipped.share, reject_reason_name(skipped.mostly));
    putchar('\n');
    fflush(stdout);
}

/* ---- steps that train nothing ---- */

static void print_only(Reporter *reporter, const Effect *effect, const JobView *job,
                       const PolicyView *view)
{
    int64_t now = clock_ms();
    bool last = effect->step.step == job->total_steps;
    if (!last && reporter->plain_ms != 0 && now - reporter->plain_ms < PLAIN_LINE_MS) return;
    reporter->plain_ms = now;
    printf("step=%lld/%lld ", (long long)effect->step.step, (long long)job->total_steps);
    print_policy(view);
    if (isfinite(reporter->last.tokens_per_s))
        printf(" tokens_per_s=%.0f", reporter->last.tokens_per_s);
    if (isfinite(reporter->last.eta_s)) printf(" eta_s=%.0f", reporter->last.eta_s);
    putchar('\n');
    fflush(stdout);
}

static void show_only(Reporter *reporter, const Effect *effect, const JobView *job,
                      const PolicyView *view)
{
    LiveLine *line = &reporter->line;
    live_line_clear(line);
    str_printf(live_line_add(line, SHOW_STEP), "step %lld/%lld", (long long)effect->step.step,
               (long long)job->total_steps);
    str_puts(live_line_add(line, SHOW_PHASE), reporter->phase);
    str_printf(live_line_add(line, SHOW_LOSS), "reward %.3f", view->reward);
    str_printf(live_line_add(line, SHOW_LENGTH), "length %.0f", view->length);
    if (isfinite(reporter->last.tokens_per_s)) {
        Str *rate = live_line_add(line, SHOW_RATE);
        live_put_rate(rate, reporter->last.tokens_per_s);
        str_puts(rate, " tok/s");
    }
    if (isfinite(reporter->last.eta_s)) {
        Str *eta = live_line_add(line, SHOW_ETA);
        str_puts(eta, "ETA ");
        live_put_duration(eta, reporter->last.eta_s);
    }
    draw(reporter);
}

/* Answers that were generated and saved (rollout.only). */
static void report_only(Reporter *reporter, const Effect *effect, const JobView *job)
{
    const Plan *plan = effect->step.plan;
    PolicyView view = policy_view_step(effect);
    double seconds = turn_of(effect);
    reporter->turn_s[reporter->num_turns++ % TURNS_KEPT] = seconds;
    reporter->last.tokens_per_s = view.length * (double)plan->num_samples / seconds;
    reporter->last.eta_s = (double)(job->total_steps - effect->step.step) * usual_turn(reporter);
    view.kl = view.entropy = (double)NAN;
    metrics_begin(reporter->metrics, METRICS_STEP, effect->step.step,
                  stage_told(job, effect->step.stage));
    policy_metrics_only(reporter->metrics, effect);
    put_times(reporter->metrics, effect);
    metrics_put(reporter->metrics, "perf/rollout_tok_per_s", reporter->last.tokens_per_s);
    metrics_end(reporter->metrics);
    if (reporter->terminal)
        show_only(reporter, effect, job, &view);
    else
        print_only(reporter, effect, job, &view);
}

/* The first thing that a beginner meets: figures that stand still, and nothing is wrong. */
static void watch_groups(Reporter *reporter, const Effect *effect)
{
    const StepResult *result = &effect->step.result;
    const PolicyFigures *figures = &result->policy;
    bool equal = result->has_policy && result->grad_norm == 0 && figures->groups > 0 &&
                 figures->zero_variance_groups == figures->groups;
    reporter->equal_steps = equal ? reporter->equal_steps + 1 : 0;
    if (reporter->equal_steps != EQUAL_STEPS) return;
    log_event(LOG_WARN, "nothing_is_learnt", F_INT("step", effect->step.step),
              F_STR("why", "all answers to a prompt are worth the same, in every group of the last "
                           "steps, so that none is better than another\n"
                           "  to do: look at some (rollout.save, controller samples); the reward "
                           "or the labels may not fit them, or the model knows nothing of the task "
                           "yet: train it on examples first"));
}

void reporter_step(Reporter *reporter, const Effect *effect, const JobView *job, double peak_flops)
{
    if (effect->step.only) {
        report_only(reporter, effect, job);
        return;
    }
    StepFigures figures = figures_of(reporter, effect, job, peak_flops);
    reporter->last = (ReportView){.loss = figures.loss,
                                  .tokens_per_s = figures.tokens_per_s,
                                  .mfu = figures.mfu,
                                  .eta_s = figures.eta_s,
                                  .eval_loss = reporter->last.eval_loss};
    record_step(reporter, effect, job, &figures);
    if (effect->step.result.skipped)
        log_event(LOG_WARN, "step_skipped", F_INT("step", effect->step.step),
                  F_STR("why", "the gradient is not finite; weights are untouched"));
    watch_groups(reporter, effect);
    if (reporter->terminal)
        show_step_live(reporter, effect, job, &figures);
    else
        print_step_plain(reporter, effect, job, &figures);
}

/* ---- evaluations ---- */

/* A run goes on without, but who looks at its end for a figure would find none. */
static void warn_of_nothing_judged(const EvalFigures *set)
{
    if (!set->generated || set->answers.answers > 0) return;
    bool unnamed = strcmp(set->name, "eval") == 0;
    Str why = {0};
    str_printf(&why, "no answer to evaluation set %s was judged: it has no figures\n", set->name);
    str_printf(&why,
               "  to do: see to what judges it (%s%s%s), or to the records where those were "
               "rejected; the warnings above say why",
               unnamed ? "rollout.reward" : "eval.sets.", unnamed ? "" : set->name,
               unnamed ? "" : ".reward, else rollout.reward");
    log_event(LOG_WARN, "nothing_was_judged", F_STR("set", set->name),
              F_STR("why", str_text(&why)));
    str_free(&why);
}

void reporter_eval(Reporter *reporter, const Effect *effect, const JobView *job)
{
    Str text = {0};
    if (reporter->terminal) fputs("\r\033[K", stderr);
    metrics_begin(reporter->metrics, METRICS_EVAL, effect->eval.step,
                  stage_told(job, effect->eval.stage));
    for (int i = 0; i < effect->eval.num_sets; i++) {
        const EvalFigures *set = &effect->eval.set[i];
        eval_report_metrics(reporter->metrics, set);
        eval_report_line(set, effect->eval.step, job->total_steps, &text);
        warn_of_nothing_judged(set);
        if (i == 0) reporter->last.eval_loss = eval_value(set, FIGURE_LOSS, 0);
    }
    metrics_end(reporter->metrics);
    fputs(str_text(&text), stdout);
    fflush(stdout);
    str_free(&text);
    draw(reporter);
}

/* Before the first step the line says what is waited for; after it what else than training goes on.
 */
void reporter_tick(Reporter *reporter, const JobView *job, int64_t now_ms)
{
    LiveLine *line = &reporter->line;
    if (!reporter->terminal) return;
    double waited_s = (double)(now_ms - job->waits_since_ms) / 1000;
    if (reporter->num_turns == 0) {
        if (job->waits_for[0] == '\0') return;
        live_line_clear(line);
        str_printf(live_line_add(line, 0), "%s: waiting %.0fs for %s", job->phase, waited_s,
                   job->waits_for);
        draw(reporter);
        return;
    }
    bool training = strcmp(job->phase, "training") == 0 || waited_s < 1;
    const char *phase = training ? "" : job->phase;
    if (strcmp(phase, reporter->phase) == 0) return;
    snprintf(reporter->phase, sizeof reporter->phase, "%s", phase);
    for (int i = 0; i < line->count; i++) {
        if (line->piece[i].rank != SHOW_PHASE) continue;
        str_clear(&line->piece[i].text);
        str_puts(&line->piece[i].text, phase);
    }
    draw(reporter);
}

ReportView reporter_view(const Reporter *reporter)
{
    return reporter->last;
}

void reporter_rewind(Reporter *reporter, int64_t step)
{
    metrics_rewind(reporter->metrics, step);
}

/* ---- life ---- */

Status reporter_create(const char *metrics_path, const Screen *screen, Reporter **ret, Error *err)
{
    Metrics *metrics = NULL;
    TRY(metrics_open(metrics_path, &metrics, err));
    Reporter *reporter = mem_calloc(1, sizeof *reporter);
    reporter->metrics = metrics;
    reporter->last = (ReportView){NAN, NAN, NAN, NAN, NAN};
    reporter->terminal = screen->redraws;
    reporter->ascii = reporter->line.ascii = !screen->utf8;
    if (reporter->terminal) log_set_writer(write_log_line, reporter);
    *ret = reporter;
    return OK;
}

void reporter_destroy(Reporter *reporter)
{
    if (reporter == NULL) return;
    log_set_writer(NULL, NULL);
    if (reporter->terminal && reporter->line.count > 0) fputc('\n', stderr);
    metrics_close(reporter->metrics);
    live_line_free(&reporter->line);
    free(reporter);
}
