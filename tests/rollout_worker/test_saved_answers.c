/* What a run saves of its answers, and what another one makes of them: the rewards of a weighted
 * sum and what a scorer adds, rewards that are others now, weights that are others now. Through a
 * whole rollout worker, as test_generate.c. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "generate_stage.h"

#define FOLDER  "saved_answers"
#define GROUP   GENERATION_GROUP
#define RECORDS 3

static const char *const LINES[RECORDS] = {
    "{\"prompt\": \"How many are 2 and 3?\", \"label\": \"5\"}",
    "{\"prompt\": \"What is 7 + 7?\", \"label\": 14}",
    "{\"prompt\": \"Count the coins.\", \"label\": \"10\"}",
};

/* What the template makes of the first. */
static const char PROMPT[] =
    "<|im_start|>user\nHow many are 2 and 3?<|im_end|>\n<|im_start|>assistant\n";

/* The worker saves. */
static int stage_open(void **state)
{
    Stage *stage = mem_calloc(1, sizeof *stage);
    *state = stage;
    generation_begin(stage, FOLDER, LINES, RECORDS);
    stage->config.rollout.save = FOLDER "/answers";
    worker_restart(stage);
    return 0;
}

static int stage_close(void **state)
{
    generation_end(*state);
    return 0;
}

static void load_from_here_on(Stage *stage, const char *reward)
{
    stage->config.rollout.save = NULL;
    stage->config.rollout.load = FOLDER "/answers";
    if (reward != NULL) stage->config.rollout.reward = (char *)reward;
    worker_restart(stage);
}

/* Of a weighted sum: with the sample's meta, and in the file of its group. */
static void test_what_each_reward_says_is_kept(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Error err = {0};
    char *saved = NULL;
    size_t length = 0;
    stage->config.rollout.reward =
        (char *)("[\"random\", {\"name\": \"process\", \"weight\": 0.5, \"options\": "
                 "{\"command\": [\"" PROJECT_BINARY_DIR "/bin/scorer_program\", \"plain\"]}}]");
    worker_restart(stage);
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "train", 0, 1);
    assert_int_equal(reply->n_samples, GROUP);
    for (int i = 0; i < GROUP; i++) {
        const Troupe__SampleMeta *meta = reply->samples[i];
        assert_int_equal(meta->n_part, 2);
        assert_true(meta->part[0] == 0 || meta->part[0] == 1);
        assert_true(meta->reward == meta->part[0] + 0.5f * meta->part[1]);
    }
    assert_ok(
        file_read(FOLDER "/answers/train/000000/000000000.jsonl", 1 << 20, &saved, &length, &err),
        &err);
    assert_non_null(strstr(saved, "\"rewards\": {\"random\": "));
    assert_non_null(strstr(saved, "\"extra\": {\"process\": {\"pid\":"));
    free(saved);
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
}

/* Of a run with another loss: version 1 is what it began with too, version 2 is other weights, and
 * version 3 is not known here. Only where they are the same is anything to be compared. */
static void test_saved_answers_of_other_weights_say_so(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Sample sample;
    static const bool expected[] = {false, true, true};
    adopt_first(stage, &boards);
    lease_train(stage, 0, 1);
    for (int64_t version = 2; version <= 3; version++) {
        boards_publish(&boards, version, 100 + version);
        adopt(stage, &boards, version, false);
        lease_train(stage, (uint64_t)version - 1, 1);
    }
    boards_close(&boards);
    load_from_here_on(stage, NULL);
    adopt_first(stage, &boards);
    boards_publish(&boards, 2, 200);
    adopt(stage, &boards, 2, false);
    for (uint64_t position = 0; position < 3; position++) {
        lease_train(stage, position, 1);
        fetch(stage, "train", position, 0, &sample);
        assert_int_equal(sample.weight_version, position + 1);
        assert_int_equal(sample.other_weights, expected[position]);
        sample_clear(&sample);
    }
    boards_close(&boards);
    worker_restart(stage); /* nothing is known as long as there are no weights */
    lease_train(stage, 0, 1);
    fetch(stage, "train", 0, 0, &sample);
    assert_true(sample.other_weights);
    sample_clear(&sample);
}

/* Rewards are those that were saved as long as the job names the same ones. */
static void test_saved_answers_are_judged_anew_for_other_rewards(void **state)
{
    Stage *stage = *state;
    Boards boards;
    float before[GROUP];
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "train", 0, 1);
    for (int i = 0; i < GROUP; i++)
        before[i] = reply->samples[i]->reward;
    troupe__lease_reply__free_unpacked(reply, NULL);
    load_from_here_on(stage,
                      "{\"name\": \"process\", \"options\": {\"command\": [\"" PROJECT_BINARY_DIR
                      "/bin/scorer_program\", \"context\"]}}");
    reply = lease(stage, "train", 0, 1);
    assert_int_equal(reply->n_samples, GROUP);
    for (int i = 0; i < GROUP; i++) { /* label and prompt are the record's */
        assert_int_equal((size_t)reply->samples[i]->reward, 1000 + strlen(PROMPT));
        assert_true(before[i] <= 1);
    }
    troupe__lease_reply__free_unpacked(reply, NULL);
    load_from_here_on(stage, "[\"random\", {\"name\": \"random\", \"weight\": 2}]");
    reply = lease(stage, "train", 0, 1);
    for (int i = 0; i < GROUP; i++) { /* the same coin for the same sample: nothing else moved */
        assert_int_equal(reply->samples[i]->n_part, 2);
        assert_true(reply->samples[i]->reward == 3 * before[i]);
        assert_int_equal(reply->samples[i]->right, before[i] == 1);
    }
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
}

#define STAGED(test) cmocka_unit_test_setup_teardown(test, stage_open, stage_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STAGED(test_what_each_reward_says_is_kept),
        STAGED(test_saved_answers_of_other_weights_say_so),
        STAGED(test_saved_answers_are_judged_anew_for_other_rewards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
