/* Tests of rollout functions of the user's own in a rollout worker, over real sockets, with boards
 * of weights as train ranks show them: what a program and a shared object make, that it is the same
 * whoever makes it, who judges it, and what becomes of it when they fail. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "generate_stage.h"
#include "toy_engine.h"

#define FOLDER  "user_function"
#define GROUP   GENERATION_GROUP
#define PROGRAM PROJECT_BINARY_DIR "/bin/function_program"
#define PLUGIN  PROJECT_BINARY_DIR "/bin/rollout_recheck.so"
#define FAULTY  PROJECT_BINARY_DIR "/bin/rollout_plugin_faulty.so"

#define SAID     "[{\"role\": \"user\", \"content\": \"2 and 3?\"}]"
#define TALK     "\"messages\": " SAID ", \"label\": \"5\""
#define QUESTION "{\"messages\": " SAID "}"
#define GENERATE "{\"type\": \"generate\", \"call\": "
#define ASK      GENERATE "\"a\", \"samples\": 3, \"prompt\": [" QUESTION "]}"
#define FOLLOW   "{\"follow\": [{\"role\": \"user\", \"content\": \"Sure?\"}]}"
#define FIRST(n) QUESTION ", {\"output\": [\"a\", " n "]}"
#define AGAIN(n) GENERATE "\"b" n "\", \"index\": " n ", \"prompt\": [" FIRST(n) ", " FOLLOW "]}"
#define ONE(n)   "\"pieces\": [" FIRST(n) "]"
#define BOTH(n)  "\"pieces\": [" FIRST(n) ", " FOLLOW ", {\"output\": [\"b" n "\", 0]}]"
#define DONE(s)  "{\"type\": \"done\", \"samples\": [" s "]}"

#define SCRIPT(s) "{" TALK ", \"script\": [" s "]}"

enum { TURNS, REWARDED, FAILED, PARTLY, CRASH, SILENT, GARBLED, NOISE, RECORDS };

static const char *const LINES[RECORDS] = {
    [TURNS] = SCRIPT(ASK ", " AGAIN("0") ", " AGAIN("1") ", " AGAIN("2") ", " DONE(
        "{" BOTH("0") "}, {" BOTH("1") "}, {" BOTH("2") "}")),
    [REWARDED] =
        SCRIPT(ASK ", " DONE("{" ONE("0") ", \"reward\": 0.5}, "
                                          "{" ONE("1") ", \"reward\": -2, \"right\": true}, "
                                                       "{" ONE("2") ", \"reward\": 0}")),
    [FAILED] = SCRIPT("{\"type\": \"failed\", \"error\": \"no such board\"}"),
    [PARTLY] = SCRIPT(ASK ", " DONE("{" ONE("0") ", \"reward\": 0.5}, "
                                                 "{\"rejected\": \"too easy\"}, {" ONE("2") "}")),
    [CRASH] = SCRIPT("\"crash\""),
    [SILENT] = SCRIPT("\"silent\""),
    [GARBLED] = SCRIPT(ASK ", " DONE("")),
    [NOISE] = SCRIPT("\"noise\""),
};

static int stage_open(void **state)
{
    Stage *stage = mem_calloc(1, sizeof *stage);
    JobConfig *config = &stage->config;
    *state = stage;
    generation_begin(stage, FOLDER, LINES, RECORDS);
    config->data.max_length = 200;
    config->rollout.function = ROLLOUT_PROCESS;
    config->rollout.function_of = PROGRAM;
    config->rollout.function_processes = config->rollout.function_in_flight = 1;
    config->rollout.function_timeout_s = 60;
    config->rollout.failures_max = 100;
    stage->table = &rollout_process;
    worker_restart(stage);
    return 0;
}

static int stage_close(void **state)
{
    generation_end(*state);
    return 0;
}

static void use_plugin(Stage *stage, char *path)
{
    stage->config.rollout.function = ROLLOUT_PLUGIN;
    stage->config.rollout.function_of = path;
    stage->table = &rollout_plugin_table;
}

/* ---- samples ---- */

/* That everything trained has the log-prob that the weights give it, and nothing else has one. */
static void check_sample(const Boards *boards, const Sample *sample)
{
    Error err = {0};
    float expected[TOY_LENGTH_MAX];
    assert_ok(sample_check_policy(sample, &err), &err);
    weights_log_probs(boards->weights[0], sample->token, sample->length, sample->prompt_length,
                      expected);
    for (int32_t t = 0; t < sample->length; t++) {
        float log_prob = sample->loss_mask[t] ? expected[t - sample->prompt_length] : 0;
        assert_true(sample->log_prob[t] == log_prob);
    }
}

static void fetch_packed(Stage *stage, uint64_t position, Str *ret)
{
    for (uint32_t i = 0; i < GROUP; i++) {
        Sample sample;
        uint8_t *bytes = NULL;
        size_t length = 0;
        fetch(stage, "train", position, i, &sample);
        sample_pack(&sample, &bytes, &length);
        str_append(ret, bytes, length);
        free(bytes);
        sample_clear(&sample);
    }
}

static void assert_rejected(const Troupe__SampleMeta *meta, RejectReason reason, const char *text)
{
    assert_int_equal(meta->status, SAMPLE_REJECTED);
    assert_int_equal(meta->reject_reason, reason);
    if (strstr(meta->reject_message, text) == NULL) fail_msg("%s", meta->reject_message);
}

/* ---- programs ---- */

static void test_a_program_makes_samples_of_several_turns(void **state)
{
    Stage *stage = *state;
    Boards boards;
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "train", TURNS, 1);
    assert_int_equal(reply->n_samples, GROUP);
    for (uint32_t i = 0; i < GROUP; i++) {
        Sample sample;
        int starts = 0;
        assert_int_equal(reply->samples[i]->turns, 2);
        assert_int_equal(reply->samples[i]->weight_version, 1);
        assert_int_equal(reply->samples[i]->right, reply->samples[i]->reward == 1.0f); /* random */
        fetch(stage, "train", TURNS, i, &sample);
        check_sample(&boards, &sample);
        for (int32_t t = 1; t < sample.length; t++)
            starts += sample.loss_mask[t] && !sample.loss_mask[t - 1];
        assert_int_equal(starts, 2);
        sample_clear(&sample);
    }
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
}

static void check_sameness(Stage *stage, uint64_t position)
{
    Boards boards;
    Str one = {0}, other = {0};
    adopt_first(stage, &boards);
    lease_train(stage, position, 1);
    fetch_packed(stage, position, &one);
    stage->config.rollout.concurrency = 2;
    stage->config.rollout.function_processes = 3;
    worker_restart(stage);
    adopt(stage, &boards, 1, true);
    lease_train(stage, REWARDED, 1);
    lease_train(stage, position, 1);
    fetch_packed(stage, position, &other);
    assert_true(one.length > 500);
    assert_int_equal(one.length, other.length);
    assert_memory_equal(one.data, other.data, one.length);
    str_free(&one);
    str_free(&other);
    boards_close(&boards);
}

static void test_samples_of_a_program_are_the_same_on_any_worker(void **state)
{
    check_sameness(*state, TURNS);
}

static void test_a_program_may_judge_itself_and_the_job_judges_the_rest(void **state)
{
    Stage *stage = *state;
    Boards boards;
    stage->config.rollout.reward =
        "{\"name\": \"random\", \"weight\": 8, \"options\": {\"share\": 1}}";
    worker_restart(stage);
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "train", REWARDED, 1);
    const Troupe__SampleMeta *const *meta = (const Troupe__SampleMeta *const *)reply->samples;
    assert_true(meta[0]->reward == 0.5f && meta[0]->right);
    assert_true(meta[1]->reward == -2 && meta[1]->right);
    assert_true(meta[2]->reward == 0 && !meta[2]->right);
    troupe__lease_reply__free_unpacked(reply, NULL);
    reply = lease(stage, "train", PARTLY, 1);
    assert_true(reply->samples[0]->reward == 0.5f);
    assert_rejected(reply->samples[1], REJECT_BY_FUNCTION,
                    "train.jsonl:4: passed over by the rollout function: too easy");
    assert_true(reply->samples[2]->reward == 8 && reply->samples[2]->right);
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
}

static void test_a_record_that_the_program_refuses_is_a_bad_one(void **state)
{
    Stage *stage = *state;
    Boards boards;
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "train", FAILED, 1);
    for (size_t i = 0; i < reply->n_samples; i++)
        assert_rejected(reply->samples[i], REJECT_BAD_RECORD,
                        "train.jsonl:3: record 2, rollout function: the rollout function says: no "
                        "such board\n  to do: correct the record, or drop it; "
                        "data.bad_record: skip passes over such ones");
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
}

/* ---- failures ---- */

static void test_a_record_that_a_program_fails_at_is_tried_again_and_given_up(void **state)
{
    Stage *stage = *state;
    Boards boards;
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "train", GARBLED, 1);
    assert_int_equal(reply->n_samples, GROUP);
    assert_int_equal(reply->samples[0]->retries, 4);
    for (size_t i = 0; i < reply->n_samples; i++)
        assert_rejected(reply->samples[i], REJECT_FAILED,
                        "train.jsonl:7: given up because the rollout function failed: record 6, "
                        "rollout function: done has 0 samples, expected 3");
    troupe__lease_reply__free_unpacked(reply, NULL);
    lease_train(stage, TURNS, 1); /* and the next record is none the worse */
    boards_close(&boards);
}

static void assert_run_ends(Stage *stage, uint64_t position, const char *const *texts)
{
    Answer answer;
    Boards boards;
    stage->config.rollout.failures_max = 0;
    stage->config.rollout.function_timeout_s = 0.2;
    worker_restart(stage);
    adopt_first(stage, &boards);
    start_lease(stage, "train", position, 1, &answer);
    await(&answer);
    assert_int_equal(answer.status, ERR_RESOURCE);
    for (; *texts != NULL; texts++)
        if (strstr(answer.err.message, *texts) == NULL) fail_msg("%s", answer.err.message);
    answer_free(&answer);
    boards_close(&boards);
}

static void test_a_program_that_dies_too_often_ends_the_run(void **state)
{
    static const char *const texts[] = {
        "the rollout function failed at 1 samples or records, each tried 4 times",
        "rollout.failures_max 0", "exited with status 3: out of cheese", "to do: mend it", NULL};
    assert_run_ends(*state, CRASH, texts);
}

static void test_a_program_that_hangs_too_often_ends_the_run(void **state)
{
    static const char *const texts[] = {"4 were silent", "gave no answer in 200 ms", NULL};
    assert_run_ends(*state, SILENT, texts);
}

static void test_a_program_that_breaks_the_protocol_too_often_ends_the_run(void **state)
{
    static const char *const texts[] = {"4 broke the protocol", "done has 0 samples, expected 3",
                                        NULL};
    assert_run_ends(*state, GARBLED, texts);
}

static void test_a_program_that_prints_noise_breaks_the_protocol(void **state)
{
    static const char *const texts[] = {"4 broke the protocol", "no answer, \"hello world\"", NULL};
    assert_run_ends(*state, NOISE, texts);
}

static void hang(Stage *stage, double failing_s, Boards *boards, Answer *answer)
{
    stage->config.rollout.function_timeout_s = 0.1;
    stage->config.rollout.failing_s = failing_s;
    worker_restart(stage);
    adopt_first(stage, boards);
    start_lease(stage, "train", SILENT, 1, answer);
}

/* It is named while it is waited for, and not waited for over and over. */
static void test_a_program_that_always_hangs_is_named_and_ends_the_run(void **state)
{
    Stage *stage = *state;
    Answer answer;
    Boards boards;
    hang(stage, 0, &boards, &answer); /* for ever: it is given up after four tries */
    turn_until_trouble(stage, "gave no answer in 100 ms (");
    await(&answer);
    assert_int_equal(answer.status, OK);
    answer_free(&answer);
    boards_close(&boards);
    hang(stage, 1, &boards, &answer);
    await(&answer);
    assert_int_equal(answer.status, ERR_RESOURCE);
    if (strstr(answer.err.message, "rollout.function failed at every try for ") == NULL ||
        strstr(answer.err.message, "a quarter of rollout.failing_s") == NULL)
        fail_msg("%s", answer.err.message);
    answer_free(&answer);
    boards_close(&boards);
}

static void test_a_worker_does_not_wait_for_a_program_that_nobody_wants(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Answer answer;
    adopt_first(stage, &boards);
    start_lease(stage, "train", SILENT, 1, &answer);
    turn_until(stage, "the rollout function");
    int64_t began = clock_ms();
    adopt(stage, &boards, 1, true); /* the train ranks are new ones */
    await(&answer);
    assert_int_equal(answer.status, ERR_CANCELLED);
    answer_free(&answer);
    start_lease(stage, "train", SILENT, 1, &answer);
    turn_until(stage, "the rollout function");
    worker_restart(stage);
    assert_true(clock_ms() - began < 30000); /* half of its time to be silent */
    answer_free(&answer);
    boards_close(&boards);
}

static void test_what_is_no_program_is_told_before_anything_starts(void **state)
{
    Stage *stage = *state;
    Error err = {0};
    void *shared = NULL;
    JobConfig config = stage->config;
    config.rollout.function_of = "no-such-program --fast";
    assert_fails(rollout_process.open(&config, &shared, &err), ERR_INVALID, &err,
                 "rollout.function: there is no program \"no-such-program\" in PATH");
    config.rollout.function_of = "\"python3";
    assert_fails(rollout_process.open(&config, &shared, &err), ERR_INVALID, &err,
                 "rollout.function: a quote, \", is opened and not closed");
}

/* ---- shared objects ---- */

static void test_a_plugin_makes_samples_of_several_turns(void **state)
{
    Stage *stage = *state;
    Boards boards;
    use_plugin(stage, PLUGIN);
    worker_restart(stage);
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "train", TURNS, 1);
    assert_int_equal(reply->n_samples, GROUP);
    for (uint32_t i = 0; i < GROUP; i++) {
        Sample sample;
        fetch(stage, "train", TURNS, i, &sample);
        check_sample(&boards, &sample);
        assert_int_equal(reply->samples[i]->turns, 2);
        sample_clear(&sample);
    }
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
}

static void test_samples_of_a_plugin_are_the_same_on_any_worker(void **state)
{
    use_plugin(*state, PLUGIN);
    worker_restart(*state);
    check_sameness(*state, CRASH); /* which is a record like others here */
}

/* The program's script and the plugin ask the same question: the tokens must be the same, too. */
static void test_a_plugin_and_a_program_that_say_the_same_make_the_same(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Str one = {0}, other = {0};
    adopt_first(stage, &boards);
    lease_train(stage, TURNS, 1);
    fetch_packed(stage, TURNS, &one);
    use_plugin(stage, PLUGIN);
    stage->config.rollout.function_options = "{\"ask\": \"Sure?\"}";
    worker_restart(stage);
    adopt(stage, &boards, 1, true);
    lease_train(stage, TURNS, 1);
    fetch_packed(stage, TURNS, &other);
    assert_int_equal(one.length, other.length);
    assert_memory_equal(one.data, other.data, one.length);
    str_free(&one);
    str_free(&other);
    boards_close(&boards);
}

static void assert_not_opened(Stage *stage, char *path, Status status, const char *text)
{
    Error err = {0};
    void *shared = NULL;
    use_plugin(stage, path);
    assert_fails(rollout_plugin_table.open(&stage->config, &shared, &err), status, &err, text);
}

static void test_what_is_no_plugin_is_told_before_anything_starts(void **state)
{
    Stage *stage = *state;
    assert_not_opened(stage, FOLDER "/none.so", ERR_NOT_FOUND, "cannot load rollout plugin");
    assert_not_opened(stage, PROJECT_BINARY_DIR "/bin/reward_brevity.so", ERR_INVALID,
                      "exports no rollout_plugin");
    assert_not_opened(stage, PROJECT_BINARY_DIR "/bin/rollout_plugin_other_abi.so", ERR_UNSUPPORTED,
                      "is made for interface 2, this build has 1");
    stage->config.rollout.function_options = "{\"deed\": \"refuse\"}";
    assert_not_opened(stage, FAULTY, ERR_INVALID, "\"faulty\": it does not want to");
    stage->config.rollout.function_options = "{\"ask\": \"\"}";
    assert_not_opened(stage, PLUGIN, ERR_INVALID, "ask is empty");
}

static void test_a_plugin_that_does_wrong_is_told_what(void **state)
{
    static const struct {
        const char *deed, *text;
        RejectReason reason;
    } cases[] = {
        {"unset", "sample 0 was not set", REJECT_FAILED},
        {"twice", "a sample is set twice", REJECT_FAILED},
        {"elsewhere", "stands behind other tokens", REJECT_FAILED},
        {"strange", "run returned 77, which the interface has not", REJECT_FAILED},
        {"fail", "as it was told", REJECT_FAILED},
        {"refuse", "the rollout function says: as it was told", REJECT_BAD_RECORD},
        {"good", "", REJECT_NONE},
    };
    Stage *stage = mem_calloc(1, sizeof *stage);
    Boards boards;
    const char *lines[sizeof cases / sizeof *cases];
    const int count = sizeof cases / sizeof *cases;
    (void)state;
    for (int i = 0; i < count; i++)
        lines[i] = mem_printf("{" TALK ", \"metadata\": {\"deed\": \"%s\"}}", cases[i].deed);
    generation_begin(stage, FOLDER, lines, count);
    stage->config.rollout.failures_max = 100;
    stage->config.rollout.concurrency = 100;
    stage->config.rollout.function_timeout_s = 60;
    use_plugin(stage, FAULTY);
    worker_restart(stage);
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "train", 0, (uint32_t)count);
    assert_int_equal(reply->n_samples, count * GROUP);
    for (int i = 0; i < count; i++)
        if (cases[i].reason != REJECT_NONE)
            assert_rejected(reply->samples[i * GROUP], cases[i].reason, cases[i].text);
        else
            assert_true(reply->samples[i * GROUP]->reward == 1);
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
    generation_end(stage);
    for (int i = 0; i < count; i++)
        free((char *)lines[i]);
}

/* A call that wakes up after it was given up finds nobody to work for; one that hangs for ever does
 * not keep the next record from being made. */
static void test_a_plugin_that_hangs_is_given_up(void **state)
{
    static const char *const deeds[] = {"wake", "hang", "good"};
    Stage *stage = mem_calloc(1, sizeof *stage);
    Boards boards;
    const char *lines[3];
    (void)state;
    for (int i = 0; i < 3; i++)
        lines[i] = mem_printf("{" TALK ", \"metadata\": {\"deed\": \"%s\"}}", deeds[i]);
    generation_begin(stage, FOLDER, lines, 3);
    stage->config.rollout.failures_max = 100;
    stage->config.rollout.concurrency = 100;
    stage->config.rollout.function_timeout_s = 0.5;
    use_plugin(stage, FAULTY);
    worker_restart(stage);
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "train", 0, 3);
    for (int i = 0; i < 2; i++)
        assert_rejected(reply->samples[i * GROUP], REJECT_FAILED,
                        "plugin \"faulty\": a call has not come back within 500 ms");
    assert_true(reply->samples[2 * GROUP]->reward == 1);
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
    generation_end(stage);
    for (int i = 0; i < 3; i++)
        free((char *)lines[i]);
}

static void test_a_plugin_that_hangs_too_often_ends_the_run(void **state)
{
    Stage *stage = mem_calloc(1, sizeof *stage);
    Boards boards;
    Answer answer;
    const char *lines[5];
    (void)state;
    for (int i = 0; i < 5; i++)
        lines[i] = "{" TALK ", \"metadata\": {\"deed\": \"hang\"}}";
    generation_begin(stage, FOLDER, lines, 5);
    stage->config.rollout.failures_max = 100;
    stage->config.rollout.concurrency = 100;
    stage->config.rollout.function_timeout_s = 0.05;
    use_plugin(stage, FAULTY);
    worker_restart(stage);
    adopt_first(stage, &boards);
    start_lease(stage, "train", 0, 5, &answer);
    await(&answer);
    assert_int_equal(answer.status, ERR_RESOURCE);
    const char *says = strstr(answer.err.message, " calls of it have not come back");
    if (says == NULL) fail_msg("%s", answer.err.message);
    while (says[-1] >= '0' && says[-1] <= '9')
        says--;
    assert_in_range(atoi(says), 16, 20); /* others may end with the last that is allowed */
    answer_free(&answer);
    boards_close(&boards);
    generation_end(stage);
}

/* ---- rewards of a job ---- */

/* Scores that compare the answers of a group, and a sum with weights over them. */
static void test_groups_and_weighted_sums_reach_the_samples(void **state)
{
    Stage *stage = *state;
    Boards boards;
    stage->config.rollout.function = ROLLOUT_GENERATE;
    stage->table = &rollout_generate;
    stage->config.rollout.reward =
        "[{\"name\": \"random\", \"weight\": 100, \"options\": {\"share\": 1}}, "
        "{\"name\": \"process\", \"weight\": 0.5, \"options\": {\"group\": true, \"command\": "
        "[\"" PROJECT_BINARY_DIR "/bin/scorer_program\", \"rank\"]}}]";
    worker_restart(stage);
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "train", TURNS, 1);
    assert_int_equal(reply->n_samples, GROUP);
    for (uint32_t i = 0; i < GROUP; i++) {
        assert_true(reply->samples[i]->right); /* what the first reward says */
        assert_true(reply->samples[i]->reward == 100 + 0.5f * (float)i);
    }
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
}

#define STAGED(test) cmocka_unit_test_setup_teardown(test, stage_open, stage_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STAGED(test_a_program_makes_samples_of_several_turns),
        STAGED(test_samples_of_a_program_are_the_same_on_any_worker),
        STAGED(test_a_program_may_judge_itself_and_the_job_judges_the_rest),
        STAGED(test_a_record_that_the_program_refuses_is_a_bad_one),
        STAGED(test_a_record_that_a_program_fails_at_is_tried_again_and_given_up),
        STAGED(test_a_program_that_dies_too_often_ends_the_run),
        STAGED(test_a_program_that_hangs_too_often_ends_the_run),
        STAGED(test_a_program_that_breaks_the_protocol_too_often_ends_the_run),
        STAGED(test_a_program_that_prints_noise_breaks_the_protocol),
        STAGED(test_a_program_that_always_hangs_is_named_and_ends_the_run),
        STAGED(test_a_worker_does_not_wait_for_a_program_that_nobody_wants),
        STAGED(test_what_is_no_program_is_told_before_anything_starts),
        STAGED(test_a_plugin_makes_samples_of_several_turns),
        STAGED(test_samples_of_a_plugin_are_the_same_on_any_worker),
        STAGED(test_a_plugin_and_a_program_that_say_the_same_make_the_same),
        STAGED(test_what_is_no_plugin_is_told_before_anything_starts),
        cmocka_unit_test(test_a_plugin_that_does_wrong_is_told_what),
        cmocka_unit_test(test_a_plugin_that_hangs_is_given_up),
        cmocka_unit_test(test_a_plugin_that_hangs_too_often_ends_the_run),
        STAGED(test_groups_and_weighted_sums_reach_the_samples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
