/* What a person sees: the live line on a terminal of a given width, and the status table. */
#include "test.h"

#include <fcntl.h>
#include <math.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "view/live_line.h"
#include "view/reporter.h"
#include "view/status.h"

/* ---- a terminal ---- */

static const Screen clever = {.redraws = true, .utf8 = true};

typedef void (*Scene)(Reporter *reporter, int terminal);

/* Plays a scene on a terminal that is `columns` wide and returns everything it wrote. */
static char *play_on(const Screen *screen, int columns, Scene scene)
{
    int terminal = -1;
    struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = 24};
    pid_t pid = forkpty(&terminal, NULL, NULL, &size);
    assert_true(pid >= 0);
    if (pid == 0) {
        Reporter *reporter = NULL;
        if (reporter_create("metrics.jsonl", screen, &reporter, NULL) != OK) _exit(1);
        scene(reporter, STDERR_FILENO);
        reporter_destroy(reporter);
        _exit(0);
    }
    Str seen = {0};
    char piece[4096];
    for (ssize_t got; (got = read(terminal, piece, sizeof piece)) > 0;)
        str_append(&seen, piece, (size_t)got);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(terminal);
    return str_take(&seen);
}

static char *play(int columns, Scene scene)
{
    return play_on(&clever, columns, scene);
}

/* The drawings of the live line, in order: what follows each "erase the line". */
static int split_drawings(char *seen, char **drawing, int max)
{
    int count = 0;
    for (char *at = strstr(seen, "\033[K"); at != NULL && count < max;) {
        char *next = strstr(at + 3, "\r");
        drawing[count++] = at + 3;
        at = next != NULL ? strstr(next, "\033[K") : NULL;
        if (next != NULL) *next = '\0';
    }
    return count;
}

static void report_step(Reporter *reporter, int64_t step)
{
    Plan plan = {.num_samples = 16, .num_micro_batches = 4, .end_position = 16};
    JobView job = {.phase = "training", .waits_for = "", .step = step, .total_steps = 1000000};
    job.next_position = 1000; /* few are skipped up to step 39 */
    job.tally.rejected[REJECT_TOO_LONG] = step < 40 ? 10 : 120;
    job.tally.rejected[REJECT_BAD_RECORD] = step < 40 ? 0 : 30;
    Effect effect = {.kind = FX_REPORT_STEP};
    effect.step.plan = &plan;
    effect.step.step = step;
    effect.step.seconds = 2.0;
    effect.step.result = (StepResult){.loss_sum = 2469.1358,
                                      .trained_tokens = 1000,
                                      .tokens = 24690,
                                      .grad_norm = 1.25,
                                      .lr = 0.0001,
                                      .flops = 4e9};
    reporter_step(reporter, &effect, &job, 5e9);
}

static void report_eval(Reporter *reporter, int64_t step)
{
    JobView job = {.phase = "evaluating", .waits_for = "", .step = step, .total_steps = 1000000};
    Effect effect = {.kind = FX_REPORT_EVAL};
    const EvalFigures set = {.name = "eval",
                             .samples = 10,
                             .result = {.loss_sum = 30, .trained_tokens = 10},
                             .seconds = 0.5};
    effect.eval.step = step;
    effect.eval.set = &set;
    effect.eval.num_sets = 1;
    reporter_eval(reporter, &effect, &job);
}

static double number_in(const char *text, const char *name)
{
    char *key = mem_printf("\"%s\":", name);
    const char *at = strstr(text, key);
    if (at == NULL) fail_msg("%s is not in %s", name, text);
    double value = strtod(at + strlen(key), NULL);
    free(key);
    return value;
}

/* Two sets: one line of metrics with both, a line for people of each. */
static void test_evaluation_is_told_set_by_set(void **state)
{
    (void)state;
    Reporter *reporter = NULL;
    Error err = {0};
    JobView job = {.phase = "evaluating", .waits_for = "", .step = 5, .total_steps = 10};
    const EvalFigures set[] = {
        {.name = "eval",
         .generated = true,
         .answers = {.prompts = 2,
                     .answers = 4,
                     .right = 1,
                     .truncated = 1,
                     .reward = 3.0,
                     .reward_squared = 3.0,
                     .tokens = 40,
                     .pass = {0.5, 1.0},
                     .pass_of = {2, 2}}},
        {.name = "gsm8k",
         .rewards = "[\"math\", \"format\"]",
         .generated = true,
         .answers = {.prompts = 1,
                     .answers = 1,
                     .right = 1,
                     .reward = 1.0,
                     .reward_squared = 1.0,
                     .part = {1.0, 0.5},
                     .parts_of = 1,
                     .tokens = 7,
                     .pass = {1.0},
                     .unjudged = 3,
                     .tool_calls = 2,
                     .pass_of = {1}}},
        {.name = "code", .generated = true, .answers = {.unjudged = 12, .failed = 1, .refused = 2}},
    };
    Effect effect = {.kind = FX_REPORT_EVAL};
    effect.eval.step = 5;
    effect.eval.set = set;
    effect.eval.num_sets = 3;
    unlink("sets.jsonl");
    assert_ok(reporter_create("sets.jsonl", &(Screen){0}, &reporter, &err), &err);
    int saved = dup(STDOUT_FILENO), file = open("told.txt", O_RDWR | O_CREAT | O_TRUNC, 0600);
    fflush(stdout);
    dup2(file, STDOUT_FILENO);
    reporter_eval(reporter, &effect, &job);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    close(file);
    reporter_destroy(reporter);
    char *told = NULL, *line = NULL;
    size_t length = 0;
    assert_ok(file_read("told.txt", 1 << 16, &told, &length, &err), &err);
    assert_string_equal(told, "eval step=5/10 reward=0.7500 accuracy=0.2500 pass@2=0.5000 "
                              "length=10.0 samples=4 seconds=0.0\n"
                              "eval gsm8k step=5/10 reward=1.0000 accuracy=1.0000 length=7.0 "
                              "samples=1 calls=2.00 unjudged=3 seconds=0.0\n"
                              "eval code step=5/10 no answer was judged: unjudged=12 failed=1 "
                              "rejected=2 seconds=0.0\n");
    assert_ok(file_read("sets.jsonl", 1 << 16, &line, &length, &err), &err);
    assert_ptr_equal(strchr(line, '\n'), line + length - 1);
    assert_true(number_in(line, "eval/reward") == 0.75);
    assert_true(number_in(line, "eval/pass@1") == 0.25);
    assert_true(number_in(line, "eval/truncated_ratio") == 0.25);
    assert_true(number_in(line, "eval/gsm8k/accuracy") == 1);
    assert_true(number_in(line, "eval/gsm8k/rewards/format/mean") == 0.5);
    assert_true(number_in(line, "eval/gsm8k/response_len/mean") == 7);
    assert_null(strstr(line, "gsm8k/pass@2"));
    free(told);
    free(line);
}

/* One step of reinforcement learning: its line of metrics and its line for people, both owned. */
static char *report_policy(const AlgorithmConfig *algorithm, const PolicyFigures *figures,
                           char **ret_told)
{
    Reporter *reporter = NULL;
    Error err = {0};
    PlannedSample sample[] = {
        {.trained_tokens = 4,
         .reward = 1,
         .right = true,
         .weight_version = 1,
         .work = {.num_parts = 3, .part = {1, 0.5f, 0}}},
        {.trained_tokens = 6,
         .weight_version = 1,
         .work = {.num_parts = 3, .part = {0, 1, 0}, .turns = 2, .tool_calls = 1}}};
    Plan plan = {.sample = sample, .num_samples = 2, .step = 1, .begun_ms = 100, .done_ms = 2600};
    JobView job = {.phase = "training", .waits_for = "", .step = 1, .total_steps = 1};
    Effect effect = {.kind = FX_REPORT_STEP};
    effect.step.plan = &plan;
    effect.step.step = 1;
    effect.step.seconds = 1;
    effect.step.wait_s = 3;
    effect.step.algorithm = algorithm;
    effect.step.rewards = "[\"gsm8k\", {\"name\": \"format\", \"weight\": 0.5}, \"format\"]";
    effect.step.result = (StepResult){.has_policy = true, .trained_tokens = 10, .policy = *figures};
    unlink("policy.jsonl");
    assert_ok(reporter_create("policy.jsonl", &(Screen){0}, &reporter, &err), &err);
    int saved = dup(STDOUT_FILENO), file = open("told.txt", O_RDWR | O_CREAT | O_TRUNC, 0600);
    fflush(stdout);
    dup2(file, STDOUT_FILENO);
    reporter_step(reporter, &effect, &job, 0);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    close(file);
    reporter_destroy(reporter);
    char *line = NULL;
    size_t length = 0;
    assert_ok(file_read("told.txt", 1 << 16, ret_told, &length, &err), &err);
    assert_ok(file_read("policy.jsonl", 1 << 16, &line, &length, &err), &err);
    return line;
}

/* A source of which the step trained nothing has no loss to tell. */
static void test_reporter_tells_the_loss_of_each_source(void **state)
{
    (void)state;
    Reporter *reporter = NULL;
    Error err = {0};
    Plan plan = {.num_samples = 3, .end_position = 4};
    JobView job = {.phase = "training", .waits_for = "", .step = 1, .total_steps = 1};
    const SourceStep source[] = {{.name = "chat", .samples = 1},
                                 {.name = "none", .rejected = 1},
                                 {.name = "math", .samples = 2}};
    Effect effect = {.kind = FX_REPORT_STEP};
    effect.step.plan = &plan;
    effect.step.step = 1;
    effect.step.seconds = 1;
    effect.step.source = source;
    effect.step.num_sources = 3;
    effect.step.result = (StepResult){
        .loss_sum = 11, .trained_tokens = 10, .source[0] = {3, 4}, .source[2] = {8, 6}};
    unlink("sources.jsonl");
    assert_ok(reporter_create("sources.jsonl", &(Screen){0}, &reporter, &err), &err);
    reporter_step(reporter, &effect, &job, 0);
    reporter_destroy(reporter);
    char *line = NULL;
    size_t length = 0;
    assert_ok(file_read("sources.jsonl", 1 << 16, &line, &length, &err), &err);
    assert_true(number_in(line, "train/loss") == 1.1);
    assert_true(number_in(line, "data/chat/loss") == 0.75);
    assert_float_equal(number_in(line, "data/math/loss"), 8.0 / 6, 1e-8);
    assert_non_null(strstr(line, "\"data/none/rejected\":1"));
    assert_null(strstr(line, "data/none/loss"));
    free(line);
}

static void assert_nulls(const char *line, const char *const *name, bool are_null)
{
    for (; *name != NULL; name++) {
        char *key = mem_printf("\"%s\":null", *name);
        if ((strstr(line, key) != NULL) != are_null)
            fail_msg("%s is %s null in %s", *name, are_null ? "not" : "", line);
        free(key);
        if (!are_null) (void)number_in(line, *name);
    }
}

/* A 0 says that nothing happened, null that nothing could: without a reference model there is no
 * divergence from it, without a correction no weight, without samples to compare no mismatch. */
static void test_what_does_not_apply_is_null(void **state)
{
    (void)state;
    static const char *const of_reference[] = {"train/ref_kl", NULL};
    static const char *const of_kl_loss[] = {"train/kl_loss", NULL};
    static const char *const of_correction[] = {"train/tis", "train/tis_clipfrac", NULL};
    static const char *const of_clip[] = {"train/pg_clipfrac", "train/pg_clipfrac_low",
                                          "train/pg_clipfrac_high", NULL};
    static const char *const of_compared[] = {"train/logprob_mismatch_count", NULL};
    static const char *const of_update[] = {"train/loss",
                                            "train/pg_loss",
                                            "train/entropy_loss",
                                            "train/ratio/mean",
                                            "train/ratio/min",
                                            "train/ratio/max",
                                            "train/advantage_std",
                                            "rollout/staleness/token_mean",
                                            "train/ppo_kl",
                                            "rollout/staleness/token_max",
                                            "train/grad_norm",
                                            "rollout/partial_samples",
                                            NULL};
    PolicyFigures figures = {.tokens = 10,
                             .normaliser = 10,
                             .rollout_tokens = 10,
                             .entropy = 5,
                             .log_probs_compared = 10};
    AlgorithmConfig algorithm = {.policy_loss = POLICY_LOSS_CLIP};
    char *told, *line = report_policy(&algorithm, &figures, &told);
    assert_nulls(line, of_reference, true);
    assert_nulls(line, of_kl_loss, true);
    assert_nulls(line, of_correction, true);
    assert_nulls(line, of_clip, false);
    assert_nulls(line, of_compared, false);
    assert_nulls(line, of_update, false);
    assert_true(number_in(line, "perf/step_time") == 4 && number_in(line, "perf/train_time") == 1);
    assert_true(number_in(line, "perf/train_wait_time") == 3);
    assert_true(number_in(line, "perf/rollout_time") == 2.5);
    assert_non_null(strstr(told, " step_s=4 wait_s=3"));
    assert_true(number_in(line, "rewards/gsm8k/mean") == 0.5);
    assert_true(number_in(line, "rewards/format/mean") == 0.75);
    assert_true(number_in(line, "rewards/format_2/mean") == 0);
    assert_null(strstr(told, "kl=")); /* as no divergence is known, none is told */
    assert_non_null(strstr(told, "length=5.0 calls=0.50 entropy=0.5000 loss="));
    free(told);
    free(line);

    algorithm = (AlgorithmConfig){.policy_loss = POLICY_LOSS_REINFORCE,
                                  .kl_coef = 0.1,
                                  .old_log_probs = OLD_CURRENT,
                                  .correction = CORRECTION_TIS};
    figures.log_probs_compared = 0;
    figures.old_kl = 0.25;
    line = report_policy(&algorithm, &figures, &told);
    assert_nulls(line, of_reference, false); /* 0: the policy is still its reference */
    assert_nulls(line, of_kl_loss, true);    /* it is in the rewards */
    assert_nulls(line, of_correction, false);
    assert_nulls(line, of_clip, true);
    assert_nulls(line, of_compared, true);
    assert_non_null(strstr(told, " kl=0 ppo_kl=0.025 entropy="));
    free(told);
    free(line);

    /* the critic warms up */
    figures = (PolicyFigures){.normaliser = 10, .value_tokens = 10, .value_loss = 5};
    algorithm = (AlgorithmConfig){.advantage_estimator = ADVANTAGE_PPO, .kl_loss_coef = 0.1};
    line = report_policy(&algorithm, &figures, &told);
    assert_nulls(line, of_reference, true);
    assert_nulls(line, of_update, true);
    assert_nulls(line, of_clip, true);
    assert_null(strstr(told, " loss="));
    assert_null(strstr(told, "grad_norm="));
    assert_true(number_in(line, "critic-train/value_loss") == 0.5);
    assert_null(strstr(told, "entropy="));
    assert_non_null(strstr(told, " value_loss=0.5000 lr="));
    free(told);
    free(line);
}

static void three_steps(Reporter *reporter, int terminal)
{
    (void)terminal;
    report_eval(reporter, 0);
    for (int64_t step = 38; step <= 40; step++) {
        reporter_rewind(reporter, step - 1); /* no turn before it: 2 s each */
        report_step(reporter, step);
    }
}

static void test_live_line_fits_the_terminal(void **state)
{
    (void)state;
    static const char *const all[] = {"step 40/1000000", "loss 2.4691", "grad 1.25",
                                      "lr 1.0e-04",      "12.3k tok/s", "MFU 40%",
                                      "ETA 23d03h",      "eval 3.0000", "15% skipped"};
    char *drawing[8];
    for (int columns = 200; columns >= 10; columns -= 10) {
        char *seen = play(columns, three_steps);
        int count = split_drawings(seen, drawing, 8);
        assert_int_equal(count, 4); /* the evaluation clears the line, the steps draw it */
        for (int i = 1; i < 3; i++)
            assert_null(strstr(drawing[i], "ETA")); /* too few steps to tell */
        assert_null(strstr(drawing[2], "skipped"));
        char *line = drawing[3];
        if (strlen(line) >= (size_t)columns)
            fail_msg("%zu characters at %d columns: %s", strlen(line), columns, line);
        for (size_t i = 0; columns == 200 && i < sizeof all / sizeof *all; i++)
            if (strstr(line, all[i]) == NULL) fail_msg("%s lacks %s", line, all[i]);
        if (columns >= 20) assert_non_null(strstr(line, "step 40/1000000"));
        if (columns >= 30) assert_non_null(strstr(line, "loss 2.4691"));
        if (columns >= 50) assert_non_null(strstr(line, "ETA"));
        if (columns == 80) assert_non_null(strstr(line, "12.3k tok/s"));
        if (columns == 80) assert_null(strstr(line, "lr 1"));
        free(seen);
    }
}

/* One step that met a pause says nothing of how long the rest will take. */
static void one_long_step(Reporter *reporter, int terminal)
{
    (void)terminal;
    Plan plan = {.num_samples = 16};
    JobView job = {.phase = "training", .waits_for = "", .total_steps = 110};
    for (int64_t step = 1; step <= 10; step++) {
        Effect effect = {.kind = FX_REPORT_STEP};
        effect.step.plan = &plan;
        effect.step.step = step;
        effect.step.seconds = step == 1 ? 50 : step == 9 ? 200 : 3;
        effect.step.result = (StepResult){.trained_tokens = 1, .tokens = 1};
        reporter_rewind(reporter, step - 1);
        reporter_step(reporter, &effect, &job, 0);
    }
}

static void test_eta_is_that_of_most_steps(void **state)
{
    (void)state;
    char *drawing[16], *seen = play(100, one_long_step);
    assert_int_equal(split_drawings(seen, drawing, 16), 10);
    assert_null(strstr(drawing[1], "ETA"));
    assert_non_null(strstr(drawing[2], "ETA 5m21s"));
    assert_non_null(strstr(drawing[8], "ETA 5m03s"));
    assert_non_null(strstr(drawing[9], "ETA 5m00s"));
    free(seen);
}

/* ---- other terminals ---- */

static void wait_for_a_name(Reporter *reporter, int terminal)
{
    (void)terminal;
    JobView job = {.phase = "starting", .waits_for = "\u6a21\u578b\u6587\u4ef6\u5939"};
    reporter_tick(reporter, &job, 7000);
    log_event(LOG_WARN, "actor", F_STR("name", "\u6a21"));
    report_step(reporter, 1);
}

/* Chinese characters are two columns wide: "starting: waiting 7s for " is 25. */
static void test_live_line_counts_columns_not_characters(void **state)
{
    (void)state;
    char *drawing[8], *seen = play(36, wait_for_a_name);
    split_drawings(seen, drawing, 8);
    assert_string_equal(drawing[0], "starting: waiting 7s for \u6a21\u578b\u6587\u4ef6\u5939");
    free(seen);
    seen = play(35, wait_for_a_name);
    split_drawings(seen, drawing, 8);
    assert_string_equal(drawing[0], "starting: waiting 7s for \u6a21\u578b\u6587...");
    free(seen);
}

static void test_live_line_is_ascii_where_nothing_else_is_shown(void **state)
{
    (void)state;
    const Screen ascii = {.redraws = true};
    char *drawing[8], *seen = play_on(&ascii, 100, wait_for_a_name);
    assert_int_equal(split_drawings(seen, drawing, 8), 4);
    assert_non_null(strstr(drawing[0], "for \\xe6\\xa8\\xa1\\xe5\\x9e\\x8b"));
    assert_non_null(strstr(drawing[1], "name=\\xe6\\xa8\\xa1"));
    free(seen);
}

/* TERM=dumb: plain lines, and no control characters. */
static void test_a_dumb_terminal_gets_plain_lines(void **state)
{
    (void)state;
    const Screen dumb = {.utf8 = true};
    char *seen = play_on(&dumb, 80, wait_for_a_name);
    assert_non_null(strstr(seen, "step=1/1000000 loss=2.4691"));
    assert_null(strchr(seen, '\033'));
    assert_null(strstr(seen, "waiting"));
    free(seen);
}

/* Steps of reinforcement learning in which `equal` of 4 groups have rewards that are all equal. */
static void report_groups(Reporter *reporter, int steps, uint32_t equal)
{
    static const Plan plan = {0};
    static const AlgorithmConfig algorithm = {.eps_clip = 0.2};
    JobView job = {.phase = "training", .waits_for = "", .total_steps = 100};
    for (int64_t step = 1; step <= steps; step++) {
        Effect effect = {.kind = FX_REPORT_STEP};
        effect.step.step = step;
        effect.step.seconds = 1;
        effect.step.plan = &plan;
        effect.step.algorithm = &algorithm;
        effect.step.result.has_policy = true;
        effect.step.result.grad_norm = equal == 4 ? 0 : 1;
        effect.step.result.policy.groups = 4;
        effect.step.result.policy.zero_variance_groups = equal;
        reporter_step(reporter, &effect, &job, 0);
    }
}

static void nothing_to_compare(Reporter *reporter, int terminal)
{
    (void)terminal;
    report_groups(reporter, 8, 4);
}

static void something_to_compare(Reporter *reporter, int terminal)
{
    (void)terminal;
    report_groups(reporter, 2, 4);
    report_groups(reporter, 8, 3);
    report_groups(reporter, 2, 4);
}

static void test_steps_without_anything_to_compare_are_told_once(void **state)
{
    (void)state;
    const Screen dumb = {.utf8 = true};
    char *seen = play_on(&dumb, 80, nothing_to_compare);
    const char *told = strstr(seen, "nothing_is_learnt");
    assert_non_null(told);
    assert_non_null(strstr(told, "controller samples"));
    assert_null(strstr(told + 1, "nothing_is_learnt"));
    free(seen);
    seen = play_on(&dumb, 80, something_to_compare);
    assert_null(strstr(seen, "nothing_is_learnt"));
    free(seen);
}

static void resize(Reporter *reporter, int terminal)
{
    struct winsize size = {.ws_col = 30, .ws_row = 24};
    report_step(reporter, 40);
    ioctl(terminal, TIOCSWINSZ, &size);
    reporter_resized(reporter);
}

static void test_live_line_follows_a_resize(void **state)
{
    (void)state;
    char *drawing[8], *seen = play(100, resize);
    assert_int_equal(split_drawings(seen, drawing, 8), 2);
    assert_true(strlen(drawing[0]) > 60);
    assert_string_equal(drawing[1], "step 40/1000000  loss 2.4691");
    free(seen);
}

static void wait_long(Reporter *reporter, int terminal)
{
    (void)terminal;
    JobView job = {.phase = "starting",
                   .waits_for = "the placement group:\nnode agent 0 has \033[31mno CPUs",
                   .total_steps = 10};
    reporter_tick(reporter, &job, 7000);
    report_step(reporter, 40);
    job = (JobView){.phase = "saving", .waits_for = "the checkpoint", .step = 40};
    reporter_tick(reporter, &job, 500);
    reporter_tick(reporter, &job, 5000);
    reporter_tick(reporter, &job, 6000);
    job.phase = "training";
    reporter_tick(reporter, &job, 7000);
}

static void test_live_line_says_what_goes_on(void **state)
{
    (void)state;
    char *drawing[8], *seen = play(100, wait_long);
    assert_int_equal(split_drawings(seen, drawing, 8), 4);
    assert_string_equal(drawing[0], "starting: waiting 7s for the placement group:\\nnode agent 0 "
                                    "has \\x1b[31mno CPUs");
    assert_non_null(strstr(drawing[1], "step 40/1000000  loss"));
    assert_non_null(strstr(drawing[2], "step 40/1000000  saving  loss"));
    assert_non_null(strstr(drawing[3], "step 40/1000000  loss"));
    free(seen);
}

static void log_between(Reporter *reporter, int terminal)
{
    (void)terminal;
    report_step(reporter, 40);
    log_event(LOG_WARN, "actor", F_STR("reason", "a\033[2Jb"));
}

static void test_log_lines_stand_above_the_live_line(void **state)
{
    (void)state;
    char *drawing[8], *seen = play(60, log_between);
    assert_int_equal(split_drawings(seen, drawing, 8), 3);
    assert_non_null(strstr(drawing[1], "warn  actor reason=\"a\\u001b[2Jb\""));
    assert_string_equal(drawing[0], drawing[2]);
    free(seen);
}

static void test_durations_and_rates_are_short(void **state)
{
    (void)state;
    Str text = {0};
    const double seconds[] = {0.4, 59, 59.6, 61, 3599, 3600, 47 * 3600 + 60, 48 * 3600, 1e7};
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) {
        live_put_duration(&text, seconds[i]);
        str_putc(&text, ' ');
    }
    live_put_rate(&text, 9999);
    str_putc(&text, ' ');
    live_put_rate(&text, 12345);
    assert_string_equal(str_text(&text),
                        "0s 59s 1m00s 1m01s 59m59s 1h00m 47h01m 2d00h 115d17h 9999 12.3k");
    str_free(&text);
}

/* ---- MFU ---- */

static void step_with_rate(Reporter *reporter, int64_t step, double peak_flops)
{
    Plan plan = {.num_samples = 16};
    JobView job = {.phase = "training", .waits_for = "", .step = step, .total_steps = 9};
    Effect effect = {.kind = FX_REPORT_STEP};
    effect.step.plan = &plan;
    effect.step.step = step;
    effect.step.seconds = 1000; /* long before now: the turn is the step's own time */
    effect.step.result = (StepResult){.trained_tokens = 1, .tokens = 1, .flops = 1e12};
    reporter_rewind(reporter, step); /* no turn before it */
    reporter_step(reporter, &effect, &job, peak_flops);
}

static void steps_with_rates(Reporter *reporter, int terminal)
{
    (void)terminal;
    step_with_rate(reporter, 1, 4e9); /* a fast machine that does little */
    step_with_rate(reporter, 2, 2e9);
    step_with_rate(reporter, 3, 5e8); /* measured in a busy moment */
    step_with_rate(reporter, 4, 0);
}

static void test_mfu_is_the_share_of_what_was_measured(void **state)
{
    (void)state;
    unlink("metrics.jsonl");
    char *drawing[8], *seen = play(100, steps_with_rates), *text = NULL;
    size_t length = 0;
    Error err = {0};
    assert_int_equal(split_drawings(seen, drawing, 8), 4);
    assert_non_null(strstr(drawing[0], "MFU 25%"));
    assert_non_null(strstr(drawing[1], "MFU 50%"));
    assert_non_null(strstr(drawing[2], "MFU >100%"));
    assert_null(strstr(drawing[3], "MFU"));
    assert_ok(file_read("metrics.jsonl", 1 << 16, &text, &length, &err), &err);
    assert_non_null(strstr(text, "\"perf/mfu\":0.25,\"perf/peak_flops\":4e+09}"));
    assert_non_null(strstr(text, "\"perf/mfu\":0.5,\"perf/peak_flops\":2e+09}"));
    assert_non_null(strstr(text, "\"perf/mfu\":2,\"perf/peak_flops\":500000000}"));
    assert_non_null(strstr(text, "\"perf/mfu\":null,\"perf/peak_flops\":null}"));
    free(text);
    free(seen);
}

/* ---- the status table ---- */

static int count_lines(const char *text, const char *with)
{
    int count = 0;
    for (const char *line = text; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        if (memmem(line, length, with, strlen(with)) != NULL) count++;
        line += length + (line[length] == '\n');
    }
    return count;
}

static void test_status_table_has_one_line_for_each_actor(void **state)
{
    (void)state;
    static const char json[] =
        "{\"job\":\"a\\u001b[1mjob\",\"phase\":\"training\",\"stage\":null,\"step\":3,\"total_"
        "steps\":10,"
        "\"waits_for\":\"rollout-0 is restarting:\\nlast words\",\"waits_s\":6.5,"
        "\"last_checkpoint\":\"/x/step_1\\r\",\"actors\":["
        "{\"name\":\"rollout-0\",\"state\":\"restarting\",\"pid\":7,"
        "\"reason\":\"exited with code 3; its last words: one\\ntwo\\tthree\"},"
        "{\"name\":\"train-0\",\"state\":\"alive\",\"pid\":8,\"doing\":\"step 3\\n\","
        "\"waiting_for\":\"rank 1\\u009b2J in all_reduce\"},"
        "{\"name\":\"rollout-1\",\"state\":\"alive\",\"doing\":\"rollout train 0..1\","
        "\"waiting_for\":\"rewards\",\"trouble\":\"rollout.reward: refused (2 tries)\"}]}";
    char *table = NULL;
    Error err = {0};
    assert_ok(status_table(json, &table, &err), &err);
    assert_int_equal(count_lines(table, "rollout-0 "), 2); /* what is waited for, and its own */
    assert_int_equal(count_lines(table, "exited with code 3; its last words: one\\ntwo\\tthree"),
                     1);
    assert_int_equal(count_lines(table, "step 3\\n, waits for rank 1\\x9b2J in all_reduce"), 1);
    assert_int_equal(count_lines(table, "waiting 6.5 s for rollout-0 is restarting:\\nlast"), 1);
    assert_int_equal(count_lines(table, "waits for rewards; rollout.reward: refused (2 tries)"), 1);
    assert_int_equal(count_lines(table, ""), 9); /* six before the actors */
    for (const char *c = table; *c != '\0'; c++)
        assert_true(*c == '\n' || (unsigned char)*c >= 0x20);
    free(table);
}

/* Of a job that has only begun: nothing is there yet, and nothing is made up. */
static void test_status_says_null_for_what_there_is_none_of(void **state)
{
    (void)state;
    static const char yaml[] = "name: fresh\nmodel: {path: /m}\ndata: {train: /t.jsonl}\n";
    static const char *const none[] = {
        "\"total_steps\":null",
        "\"loss\":null",
        "\"tokens_per_s\":null",
        "\"mfu\":null",
        "\"eta_s\":null",
        "\"eval_loss\":null",
        "\"records\":null",
        "\"last_checkpoint\":null",
        "\"agents\":[{\"node\":null,\"state\":\"down\",\"pid\":null,\"guard_pid\":null,\"cpus\":"
        "null,\"gpus\":null}]",
        "\"name\":\"train-0\",\"role\":\"train\",\"state\":\"pending\",\"reason\":null,"
        "\"pid\":null,\"node\":null,\"doing\":null,\"waiting_for\":null,\"trouble\":null,"
        "\"restarts\":0,"
        "\"rss_bytes\":null,\"since_s\":7,\"last_beat_s\":null}"};
    JobConfig *config = NULL;
    EffectList effects = {0};
    Error err = {0};
    assert_ok(job_config_parse(yaml, "job.yaml", NULL, &config, &err), &err);
    Controller *controller =
        controller_create(&(ControllerStart){.stage = &(Stage){.config = config},
                                             .num_stages = 1,
                                             .num_nodes = 1,
                                             .embedded_agent = true},
                          1000, &effects);
    ReportView last = {NAN, NAN, NAN, NAN, NAN};
    char *json = status_json(config, controller, &last, 8000), *table = NULL;
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        if (strstr(json, none[i]) == NULL) fail_msg("%s lacks %s", json, none[i]);
    assert_ok(status_table(json, &table, &err), &err);
    assert_int_equal(count_lines(table, "job fresh: starting, step 0, generation 1"), 1);
    assert_int_equal(count_lines(table, "data: 0 samples trained, 0 skipped, 0 ready"), 1);
    assert_int_equal(count_lines(table, "train-0        pending            -        -        0  "),
                     1);
    assert_int_equal(count_lines(table, "node_agent     down               -        -        -  "),
                     1);
    assert_int_equal(count_lines(table, "loss"), 0);
    free(table);
    free(json);
    controller_destroy(controller);
    effect_list_free(&effects);
    job_config_destroy(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reporter_tells_the_loss_of_each_source),
        cmocka_unit_test(test_evaluation_is_told_set_by_set),
        cmocka_unit_test(test_what_does_not_apply_is_null),
        cmocka_unit_test(test_live_line_fits_the_terminal),
        cmocka_unit_test(test_live_line_follows_a_resize),
        cmocka_unit_test(test_eta_is_that_of_most_steps),
        cmocka_unit_test(test_live_line_counts_columns_not_characters),
        cmocka_unit_test(test_live_line_is_ascii_where_nothing_else_is_shown),
        cmocka_unit_test(test_a_dumb_terminal_gets_plain_lines),
        cmocka_unit_test(test_steps_without_anything_to_compare_are_told_once),
        cmocka_unit_test(test_live_line_says_what_goes_on),
        cmocka_unit_test(test_log_lines_stand_above_the_live_line),
        cmocka_unit_test(test_durations_and_rates_are_short),
        cmocka_unit_test(test_mfu_is_the_share_of_what_was_measured),
        cmocka_unit_test(test_status_table_has_one_line_for_each_actor),
        cmocka_unit_test(test_status_says_null_for_what_there_is_none_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
