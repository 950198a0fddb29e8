/* Tests of rollout function `generate` through a whole rollout worker, over real sockets, with the
 * real data source and boards of weights as train ranks show them: groups, rewards, weights that
 * come, go and are others, and samples that are the same whoever makes them. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "generate_stage.h"
#include "reward/http_server.h"
#include "toy_engine.h"

#define FOLDER  "generate"
#define GROUP   GENERATION_GROUP
#define RECORDS 12

static const char *const LINES[RECORDS] = {
    "{\"prompt\": \"How many are 2 and 3?\", \"label\": \"5\"}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Who has 4 books?\"}, "
    "{\"role\": \"assistant\", \"content\": \"Ada has.\"}]}",
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, "
    "{\"role\": \"user\", \"content\": \"One?\"}, {\"role\": \"assistant\", \"content\": \"1\"}, "
    "{\"role\": \"user\", \"content\": \"Two?\"}, {\"role\": \"assistant\", \"content\": \"2\"}]}",
    "{\"prompt\": \"a\", \"completion\": \"The answer.\"}",
    "{\"prompt\": \"no room: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 "
    "27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56\"}",
    "{\"messages\": [{\"role\": \"assistant\", \"content\": \"nobody asked\"}]}",
    "{\"prompt\": ",
    "{\"prompt\": \"What is 7 + 7?\", \"label\": 14}",
    "{\"prompt\": \"x\", \"label\": \"x\"}",
    "{\"prompt\": \"Count the shells.\", \"label\": \"9\"}",
    "{\"prompt\": \"Count the coins.\", \"label\": \"10\"}",
    "{\"prompt\": \"Count the stamps.\", \"label\": \"11\"}",
};

/* What the template makes of the first of them. */
static const char *const PROMPT[4] = {
    "<|im_start|>user\nHow many are 2 and 3?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWho has 4 books?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
    "<|im_start|>assistant\n1<|im_end|>\n<|im_start|>user\nTwo?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n",
};

static bool is_usable(uint64_t position)
{
    uint64_t record = position % RECORDS;
    return record < 4 || record > 6;
}

/* ---- the stage ---- */

static int stage_open(void **state)
{
    Stage *stage = mem_calloc(1, sizeof *stage);
    *state = stage;
    generation_begin(stage, FOLDER, LINES, RECORDS);
    return 0;
}

static int stage_close(void **state)
{
    generation_end(*state);
    return 0;
}

/* The packed samples of positions 0 to RECORDS - 1, group after group. */
static void fetch_all(Stage *stage, Str *ret)
{
    for (uint64_t position = 0; position < RECORDS; position++) {
        for (uint32_t i = 0; i < GROUP && is_usable(position); i++) {
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
}

static void assert_same(const Str *a, const Str *b)
{
    assert_true(a->length > 1000);
    assert_int_equal(a->length, b->length);
    assert_memory_equal(a->data, b->data, a->length);
}

/* ---- samples ---- */

/* Against the weights that were published, and the prompt as the template writes it. */
static void check_sample(const Boards *boards, const Sample *sample, const char *prompt)
{
    Error err = {0};
    float expected[TOY_LENGTH_MAX];
    Tokenizer *tokenizer = NULL;
    char *text = NULL;
    size_t length = 0;
    assert_ok(sample_check_policy(sample, &err), &err);
    assert_true(sample->status == SAMPLE_COMPLETED || sample->status == SAMPLE_TRUNCATED);
    assert_true(sample->length - sample->prompt_length <= 20 && sample->length <= 100);
    for (int32_t t = 0; t < sample->length; t++)
        assert_int_equal(sample->loss_mask[t], t >= sample->prompt_length);
    weights_log_probs(boards->weights[0], sample->token, sample->length, sample->prompt_length,
                      expected);
    assert_memory_equal(expected, sample->log_prob + sample->prompt_length,
                        (size_t)(sample->length - sample->prompt_length) * sizeof *expected);
    if (sample->status == SAMPLE_COMPLETED)
        assert_int_equal(sample->token[sample->length - 1], 1023); /* <|im_end|> */
    assert_ok(tokenizer_load(TINY, &tokenizer, &err), &err);
    assert_ok(tokenizer_decode(tokenizer, sample->token, (size_t)sample->prompt_length, false,
                               &text, &length, &err),
              &err);
    assert_string_equal(text, prompt);
    free(text);
    tokenizer_destroy(tokenizer);
}

static void test_a_lease_answers_with_groups_of_the_weights_adopted(void **state)
{
    Stage *stage = *state;
    Boards boards;
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "train", 0, 4);
    assert_int_equal(reply->n_samples, 4 * GROUP);
    int rewarded = 0;
    for (uint32_t i = 0; i < 4 * GROUP; i++) {
        const Troupe__SampleMeta *meta = reply->samples[i];
        Sample sample;
        assert_int_equal(meta->position, i / GROUP);
        assert_int_equal(meta->index, i % GROUP);
        assert_int_equal(meta->weight_version, 1);
        assert_int_equal(meta->right, meta->reward == 1.0f);
        rewarded += meta->right;
        fetch(stage, "train", meta->position, meta->index, &sample);
        assert_int_equal(sample.index, meta->index);
        assert_int_equal(sample.length, meta->length);
        assert_true(sample.reward == meta->reward && sample.right == meta->right);
        assert_true(sample.temperature == 1.0f);
        check_sample(&boards, &sample, PROMPT[meta->position]);
        sample_clear(&sample);
    }
    assert_in_range(rewarded, 1, 4 * GROUP - 1);
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
}

static void check_sameness(Stage *stage, int tp_size)
{
    Boards boards;
    Str one = {0}, other = {0};
    stage->config.train.tp_size = tp_size;
    worker_restart(stage);
    adopt_first(stage, &boards);
    lease_train(stage, 0, RECORDS);
    fetch_all(stage, &one);
    stage->config.rollout.concurrency = 2; /* one thread, and not even a whole group at a time */
    worker_restart(stage);
    adopt(stage, &boards, 1, true);
    for (uint64_t position = RECORDS; position-- > 0;)
        lease_train(stage, position, 1);
    fetch_all(stage, &other);
    assert_same(&one, &other);
    str_free(&one);
    str_free(&other);
    boards_close(&boards);
}

static void test_samples_are_the_same_whatever_the_threads_and_the_order(void **state)
{
    check_sameness(*state, 1);
}

static void test_samples_of_two_ranks_are_the_same_whatever_the_threads(void **state)
{
    check_sameness(*state, 2);
}

static void test_evaluation_has_its_own_settings_and_noise(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Sample sample[2], train;
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "eval", 0, 1); /* greedy: temperature is 0 */
    assert_int_equal(reply->n_samples, 2);
    troupe__lease_reply__free_unpacked(reply, NULL);
    for (uint32_t i = 0; i < 2; i++) {
        fetch(stage, "eval", 0, i, &sample[i]);
        assert_in_range(sample[i].length - sample[i].prompt_length, 1, 5);
    }
    assert_int_equal(sample[0].length, sample[1].length);
    assert_memory_equal(sample[0].token, sample[1].token, (size_t)sample[0].length * 4);
    sample_clear(&sample[0]);
    sample_clear(&sample[1]);
    stage->config.eval.temperature = 1.0;
    stage->config.eval.max_response_length = 0;
    worker_restart(stage);
    adopt(stage, &boards, 1, true);
    troupe__lease_reply__free_unpacked(lease(stage, "eval", 0, 1), NULL);
    lease_train(stage, 0, 1);
    fetch(stage, "eval", 0, 0, &sample[0]);
    fetch(stage, "train", 0, 0, &train);
    assert_int_equal(sample[0].prompt_length, train.prompt_length);
    size_t first = (size_t)train.prompt_length;
    assert_memory_not_equal(sample[0].token + first, train.token + first, 4);
    sample_clear(&sample[0]);
    sample_clear(&train);
    boards_close(&boards);
}

/* Two sets over the same records: what differs is what each says of itself. */
static void test_evaluation_sets_have_their_own_settings_rewards_and_noise(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Error err = {0};
    JobConfig *job = NULL;
    assert_ok(
        job_config_parse("model: {path: m}\ndata: {train: t}\n"
                         "rollout: {function: generate, reward: random, n_samples_per_prompt: 4}\n"
                         "eval:\n"
                         "  sets:\n"
                         "    long: {path: " FOLDER "/train.jsonl, max_response_length: 9, "
                         "temperature: 1, n_samples_per_prompt: 3}\n"
                         "    other: {path: " FOLDER "/train.jsonl, max_response_length: 9, "
                         "temperature: 1, reward: {name: format, options: {shape: think}}}\n",
                         "job.yaml", ".", &job, &err),
        &err);
    stage->config.eval.sets = job->eval.sets;
    stage->config.rollout.save = FOLDER "/answers";
    source_stop(stage);
    source_start(stage);
    worker_restart(stage);
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "long", 0, 1);
    assert_int_equal(reply->n_samples, 3);
    troupe__lease_reply__free_unpacked(reply, NULL);
    reply = lease(stage, "other", 0, 1); /* no answer of random weights has that form */
    assert_int_equal(reply->n_samples, 2);
    for (size_t i = 0; i < reply->n_samples; i++)
        assert_true(reply->samples[i]->reward == 0);
    troupe__lease_reply__free_unpacked(reply, NULL);
    assert_true(path_exists(FOLDER "/answers/long-step0/000000/000000000.jsonl"));
    assert_true(path_exists(FOLDER "/answers/other-step0/000000/000000000.jsonl"));
    Sample one, two;
    fetch(stage, "long", 0, 0, &one);
    fetch(stage, "other", 0, 0, &two);
    assert_int_equal(one.prompt_length, two.prompt_length);
    assert_in_range(one.length - one.prompt_length, 1, 9);
    size_t first = (size_t)one.prompt_length;
    assert_memory_not_equal(one.token + first, two.token + first, 4);
    sample_clear(&one);
    sample_clear(&two);
    boards_close(&boards);
    job_config_destroy(job);
}

/* The end token of an answer to record 0, or -1. */
static int32_t end_of(Stage *stage, const char *set, uint32_t index, int32_t *ret_length)
{
    Sample sample;
    fetch(stage, set, 0, index, &sample);
    *ret_length = sample.length - sample.prompt_length;
    int32_t last = sample.token[sample.length - 1];
    bool stopped = sample.status == SAMPLE_COMPLETED;
    sample_clear(&sample);
    return stopped ? last : -1;
}

/* Every id of the vocabulary ends an answer: it has as many tokens as it must. And a repetition
 * penalty that nothing withstands: no token comes twice, where without it the likeliest does. */
static void test_penalties_and_ends_of_the_job_reach_the_engine(void **state)
{
    Stage *stage = *state;
    Boards boards;
    JobConfig *config = &stage->config;
    int64_t all[60];
    int32_t length = 0;
    int repeats[2] = {0};
    const double penalty[2] = {1.0, 10.0};
    for (int i = 0; i < 60; i++)
        all[i] = 900 + i;
    config->rollout.max_response_length = 40;
    config->rollout.min_new_tokens = 3;
    config->rollout.stop_token_ids = (IntList){all, 60};
    config->rollout.ignore_eos = true;
    config->eval.max_response_length = 40;
    worker_restart(stage);
    adopt_first(stage, &boards);
    lease_train(stage, 0, 1);
    int stopped = 0;
    for (uint32_t i = 0; i < GROUP; i++) {
        int32_t end = end_of(stage, "train", i, &length);
        if (end < 0) {
            assert_int_equal(length, 40);
            continue;
        }
        assert_in_range(end, 900, 959); /* not the model's own, 1023 */
        assert_in_range(length, 3, 40);
        stopped++;
    }
    assert_true(stopped > 0);
    boards_close(&boards);
    config->rollout.stop_token_ids = (IntList){0};
    for (int pass = 0; pass < 2; pass++) {
        Sample sample;
        config->eval.penalty.repetition = penalty[pass];
        worker_restart(stage);
        adopt_first(stage, &boards);
        troupe__lease_reply__free_unpacked(lease(stage, "eval", 0, 1), NULL);
        fetch(stage, "eval", 0, 0, &sample);
        for (int32_t t = sample.prompt_length; t < sample.length; t++)
            for (int32_t u = sample.prompt_length; u < t; u++)
                repeats[pass] += sample.token[t] == sample.token[u];
        sample_clear(&sample);
        boards_close(&boards);
    }
    assert_true(repeats[0] > 0);
    assert_int_equal(repeats[1], 0);
}

static void assert_rejected(const Troupe__SampleMeta *meta, RejectReason reason, const char *text)
{
    assert_int_equal(meta->status, SAMPLE_REJECTED);
    assert_int_equal(meta->reject_reason, reason);
    if (strstr(meta->reject_message, text) == NULL) fail_msg("%s", meta->reject_message);
}

static void test_records_without_a_usable_prompt_are_rejected_by_name(void **state)
{
    Stage *stage = *state;
    Boards boards;
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "train", 4, 3);
    assert_int_equal(reply->n_samples, 3);
    assert_rejected(reply->samples[0], REJECT_TOO_LONG, "train.jsonl:5: the prompt has 1");
    assert_rejected(reply->samples[1], REJECT_BAD_RECORD,
                    "train.jsonl:6: there is nothing to answer");
    assert_rejected(reply->samples[2], REJECT_BAD_RECORD, "train.jsonl:7");
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
}

/* ---- rewards ---- */

static void use_scorer(Stage *stage, char *spec, size_t size, const char *arguments)
{
    snprintf(spec, size,
             "{\"name\": \"process\", \"options\": {\"command\": [\"" PROJECT_BINARY_DIR
             "/bin/scorer_program\", %s]}}",
             arguments);
    stage->config.rollout.reward = spec;
    worker_restart(stage);
}

static void test_rewards_see_prompt_and_label_or_else_the_answer_cut_off(void **state)
{
    Stage *stage = *state;
    Boards boards;
    char spec[512];
    use_scorer(stage, spec, sizeof spec, "\"context\"");
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = lease(stage, "train", 0, 8);
    static const char *const LABEL[4] = {"5", "Ada has.", "2", "The answer."};
    for (size_t i = 0; i < 4 * GROUP; i++) {
        size_t expected = 1000 * strlen(LABEL[i / GROUP]) + strlen(PROMPT[i / GROUP]);
        assert_int_equal((size_t)reply->samples[i]->reward, expected);
    }
    /* behind three that are rejected; its label is a number */
    const Troupe__SampleMeta *number = reply->samples[4 * GROUP + 3];
    assert_int_equal(number->position, 7);
    assert_in_range((int)number->reward, 2000, 2999);
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
}

static void test_a_verifier_that_fails_is_tried_again(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Answer answer;
    char spec[512];
    use_scorer(stage, spec, sizeof spec, "\"later\", \"" FOLDER "/works\"");
    adopt_first(stage, &boards);
    start_lease(stage, "train", 0, 1, &answer);
    turn_until(stage, "rewards");
    Error err = {0};
    assert_ok(file_write_atomic(FOLDER "/works", "", 0, &err), &err);
    Troupe__LeaseReply *reply = finish_lease(&answer);
    assert_non_null(reply);
    assert_int_equal(reply->n_samples, GROUP);
    for (int i = 0; i < GROUP; i++)
        assert_int_not_equal(reply->samples[i]->status, SAMPLE_REJECTED);
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
}

static void use_reward(Stage *stage, Boards *boards, const char *spec)
{
    stage->config.rollout.reward = (char *)spec;
    worker_restart(stage);
    adopt_first(stage, boards);
}

/* Nothing is generated for it, and no verifier is blamed. */
static void test_a_label_of_no_use_is_the_records_fault(void **state)
{
    Boards boards;
    use_reward(*state, &boards, "\"dapo\"");
    Troupe__LeaseReply *reply = lease(*state, "train", 7, 2); /* labels 14 and x */
    assert_int_equal(reply->n_samples, GROUP + 1);
    assert_true(reply->samples[0]->reward == -1.0f && !reply->samples[0]->right);
    assert_rejected(reply->samples[GROUP], REJECT_BAD_RECORD,
                    "train.jsonl:9: an answer to the "
                    "record could not be judged");
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
}

static void test_answers_that_cannot_be_judged_do_not_train_and_many_end_the_run(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Answer answer;
    char spec[200];
    HttpServer server;
    http_server_start(&server);
    snprintf(spec, sizeof spec,
             "{\"name\": \"http\", \"options\": {\"url\": \"http://127.0.0.1:%d/wrong\"}}",
             server.port);
    stage->config.rollout.unjudged_max = 2 * GROUP;
    use_reward(stage, &boards, spec);
    Troupe__LeaseReply *reply = lease(stage, "train", 8, 1);
    assert_int_equal(reply->n_samples, GROUP);
    for (int i = 0; i < GROUP; i++)
        assert_rejected(reply->samples[i], REJECT_UNJUDGED,
                        "train.jsonl:9: an answer could not be judged: infra_error");
    char told[TROUBLE_TEXT_BYTES];
    rollout_service_trouble(stage->service, told, sizeof told);
    assert_string_equal(told, "");                           /* nobody waits for it any more */
    const char *message = reply->samples[0]->reject_message; /* it is no record's fault */
    assert_non_null(strstr(message, "correct what judges it"));
    assert_non_null(strstr(message, "(rollout.reward)"));
    troupe__lease_reply__free_unpacked(reply, NULL);
    bool ended = false;
    for (uint64_t epoch = 1; epoch < 14 && !ended; epoch++) {
        start_lease(stage, "train", epoch * RECORDS + 8, 1, &answer);
        await(&answer);
        ended = answer.status != OK;
        if (ended) {
            assert_int_equal(answer.status, ERR_RESOURCE);
            assert_int_equal(epoch, 2);
            assert_non_null(strstr(answer.err.message, "could not be computed for "));
            assert_non_null(strstr(answer.err.message, "limit: rollout.unjudged_max, "));
        }
        answer_free(&answer);
    }
    assert_true(ended);
    boards_close(&boards);
    http_server_stop(&server);
}

/* A server that is down is named while it is waited for, and ends the run in time. */
static void test_a_server_that_is_down_is_named_and_ends_the_run(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Answer answer;
    stage->config.rollout.failing_s = 8;
    use_reward(stage, &boards,
               "{\"name\": \"http\", \"options\": {\"url\": \"http://127.0.0.1:9/score\", "
               "\"backoff_ms\": 20}}");
    start_lease(stage, "train", 8, 1, &answer);
    turn_until_trouble(stage, "rollout.reward: http://127.0.0.1:9/score: ");
    await(&answer);
    assert_int_equal(answer.status, ERR_RESOURCE);
    if (strstr(answer.err.message, "rollout.reward failed at every try for ") == NULL ||
        strstr(answer.err.message, "none has ever gone well (limit: 2 s") == NULL ||
        strstr(answer.err.message, "last: http://127.0.0.1:9/score: ") == NULL)
        fail_msg("%s", answer.err.message);
    answer_free(&answer);
    boards_close(&boards);
}

/* ---- weights ---- */

static void test_leases_wait_for_the_first_weights(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Answer answer;
    start_lease(stage, "train", 0, 4, &answer);
    turn_until(stage, "weights of the train workers");
    assert_int_equal(rollout_service_working(stage->service), 0);
    adopt_first(stage, &boards);
    Troupe__LeaseReply *reply = finish_lease(&answer);
    assert_non_null(reply);
    assert_int_equal(reply->n_samples, 4 * GROUP);
    troupe__lease_reply__free_unpacked(reply, NULL);
    boards_close(&boards);
}

static void test_new_weights_take_the_place_of_old_ones(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Sample sample;
    adopt_first(stage, &boards);
    for (int64_t version = 2; version <= 5; version++) {
        boards_publish(&boards, version, 100 + version);
        adopt(stage, &boards, (uint64_t)version, false);
        adopt(stage, &boards, (uint64_t)version, false); /* asked again: it is there */
        lease_train(stage, 0, 1);
        fetch(stage, "train", 0, 0, &sample);
        assert_int_equal(sample.weight_version, version);
        check_sample(&boards, &sample,
                     "<|im_start|>user\nHow many are 2 and 3?<|im_end|>\n<|im_start|>assistant\n");
        sample_clear(&sample);
    }
    boards_close(&boards);
}

static void test_weights_may_come_in_the_middle_of_leases(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Answer answer[6];
    stage->config.rollout.max_response_length = 60;
    worker_restart(stage);
    adopt_first(stage, &boards);
    for (uint64_t i = 0; i < 6; i++)
        start_lease(stage, "train", i * RECORDS, 4, &answer[i]);
    boards_publish(&boards, 2, 102);
    adopt(stage, &boards, 2, false);
    for (uint64_t i = 0; i < 6; i++) {
        Troupe__LeaseReply *reply = finish_lease(&answer[i]);
        assert_non_null(reply);
        for (uint32_t s = 0; s < 4 * GROUP; s++) {
            Sample sample;
            Error err = {0};
            fetch(stage, "train", reply->samples[s]->position, s % GROUP, &sample);
            assert_ok(sample_check_policy(&sample, &err), &err);
            assert_int_equal(sample.weight_version,
                             sample_version_at(&sample, sample.prompt_length));
            assert_in_range(sample_version_at(&sample, sample.length - 1), sample.weight_version,
                            2);
            sample_clear(&sample);
        }
        troupe__lease_reply__free_unpacked(reply, NULL);
    }
    boards_close(&boards);
}

static void test_restarted_train_ranks_end_what_is_in_work(void **state)
{
    Stage *stage = *state;
    Boards boards, again;
    Answer answer[8];
    Str expected = {0}, found = {0};
    adopt_first(stage, &boards);
    lease_train(stage, 0, RECORDS);
    fetch_all(stage, &expected);
    worker_restart(stage);
    boards_publish(&boards, 2, 102);
    adopt(stage, &boards, 2, false);
    for (uint64_t i = 0; i < 8; i++)
        start_lease(stage, "train", i * RECORDS, RECORDS, &answer[i]);
    boards_open(&again, 1); /* back at version 1, in other processes */
    boards_publish(&again, 1, 100);
    boards_close(&boards);
    adopt(stage, &again, 1, true);
    for (uint64_t i = 0; i < 8; i++) {
        await(&answer[i]);
        if (answer[i].status != OK) assert_int_equal(answer[i].status, ERR_CANCELLED);
        answer_free(&answer[i]);
    }
    lease_train(stage, 0, RECORDS);
    fetch_all(stage, &found);
    assert_same(&expected, &found);
    str_free(&expected);
    str_free(&found);
    boards_close(&again);
}

static void test_leases_that_wait_for_rewards_end_at_a_restart(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Answer answer;
    char spec[512];
    use_scorer(stage, spec, sizeof spec, "\"dead\"");
    adopt_first(stage, &boards);
    start_lease(stage, "train", 0, 1, &answer);
    turn_until(stage, "rewards");
    adopt(stage, &boards, 1, true);
    await(&answer);
    assert_int_equal(answer.status, ERR_CANCELLED);
    answer_free(&answer);
    boards_close(&boards);
}

static void test_a_worker_ends_in_the_middle_of_leases_and_its_successor_serves(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Answer answer[4], adopting;
    adopt_first(stage, &boards);
    for (uint64_t i = 0; i < 4; i++)
        start_lease(stage, "train", i * RECORDS, RECORDS, &answer[i]);
    await(&answer[0]);
    boards_publish(&boards, 2, 102);
    ask_adopt(stage, &boards, 2, false, &adopting);
    turn_once(stage);
    worker_stop(stage);
    source_stop(stage);
    loop_destroy(stage->loop);
    Error err = {0};
    assert_ok(loop_create(&stage->loop, &err), &err);
    source_start(stage);
    worker_start(stage, 64 << 20);
    for (int i = 0; i < 4; i++)
        answer_free(&answer[i]);
    answer_free(&adopting);
    adopt(stage, &boards, 2, true);
    lease_train(stage, 0, RECORDS);
    boards_close(&boards);
}

static void assert_adopt_fails(Stage *stage, Boards *boards, uint64_t version, Status status,
                               const char *text)
{
    Answer answer;
    ask_adopt(stage, boards, version, false, &answer);
    await(&answer);
    if (answer.status != status || strstr(answer.err.message, text) == NULL)
        fail_msg("%s: %s", status_name(answer.status), answer.err.message);
    answer_free(&answer);
}

static Policy *opened_policy; /* of the worker that was started last */

static Status open_and_keep(const JobConfig *config, void **ret_shared, Error *err)
{
    const ChatText *text = NULL;
    TRY(rollout_generate.open(config, ret_shared, err));
    opened_policy = (Policy *)rollout_generate.policy(*ret_shared, &text);
    return OK;
}

static int num_lost;
static bool lease_was_open;
static Answer *open_lease;

static void on_lost(void *context, const Error *why)
{
    (void)context;
    num_lost++;
    lease_was_open = !open_lease->here;
    assert_int_equal(why->status, ERR_UNAVAILABLE);
    assert_non_null(
        strstr(why->message, "a tensor-parallel rank of the generation engine is lost"));
}

static Status lose_rank(void *context, Engine *engine, Error *err)
{
    (void)context, (void)err;
    engine_lose_rank(engine);
    return OK;
}

/* The worker is told to end, and before its leases fail: the controller must not ask it again. */
static void test_an_engine_that_loses_a_rank_ends_the_worker(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Answer answer = {0};
    Error err = {0};
    static RolloutTable table; /* the worker's until it ends, after the test */
    table = rollout_generate;
    table.open = open_and_keep;
    stage->table = &table;
    stage->lost = on_lost;
    stage->config.train.tp_size = 2;
    num_lost = 0;
    open_lease = &answer;
    worker_restart(stage);
    adopt_first(stage, &boards);
    start_lease(stage, "train", 0, 1, &answer);
    assert_ok(engine_thread_run(policy_engine(opened_policy), lose_rank, NULL, &err), &err);
    assert_null(finish_lease(&answer));
    assert_int_equal(answer.status, ERR_UNAVAILABLE);
    assert_int_equal(num_lost, 1);
    assert_true(lease_was_open);
    boards_close(&boards);
}

static void test_weights_that_cannot_be_had_are_told(void **state)
{
    Stage *stage = *state;
    Boards boards, two;
    adopt_first(stage, &boards);
    assert_adopt_fails(stage, &boards, 7, ERR_NOT_FOUND, "version 7");
    assert_adopt_fails(stage, &boards, 0, ERR_INVALID, "version 1 or more");
    lease_train(stage, 0, 1); /* goes on with those it has */
    boards_open(&two, 2);
    boards_publish(&two, 2, 1);
    assert_adopt_fails(stage, &two, 2, ERR_INVALID, "train.tp_size 1");
    two.tp_size = 1; /* the first of two ranks is not the only one */
    assert_adopt_fails(stage, &two, 2, ERR_INVALID, "another model, type or layout");
    two.tp_size = 2;
    boards_close(&two);
    boards_publish(&boards, 2, 102);
    adopt(stage, &boards, 2, false); /* the boards were let go of, and are found again */
    lease_train(stage, 0, 1);
    boards_close(&boards);
    assert_adopt_fails(stage, &boards, 3, ERR_NOT_FOUND, "version 3");
}

/* ---- saved answers ---- */

static void test_answers_that_were_saved_are_loaded_to_the_bit(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Str made = {0}, loaded = {0};
    stage->config.rollout.save = FOLDER "/answers";
    worker_restart(stage);
    adopt_first(stage, &boards);
    lease_train(stage, 0, RECORDS);
    fetch_all(stage, &made);
    troupe__lease_reply__free_unpacked(lease(stage, "eval", 0, 1), NULL);
    assert_true(path_exists(FOLDER "/answers/eval-step0/000000/000000000.jsonl"));
    stage->config.rollout.save = NULL;
    stage->config.rollout.load = FOLDER "/answers";
    worker_restart(stage);
    adopt(stage, &boards, 1, true); /* the very weights */
    lease_train(stage, 0, RECORDS);
    fetch_all(stage, &loaded);
    assert_same(&made, &loaded);
    Answer answer;
    start_lease(stage, "train", RECORDS, 1, &answer);
    await(&answer);
    assert_int_equal(answer.status, ERR_NOT_FOUND);
    assert_non_null(strstr(answer.err.message, "rollout.load: no answers are saved for position"));
    answer_free(&answer);
    stage->config.rollout.n_samples_per_prompt--;
    worker_restart(stage);
    start_lease(stage, "train", 0, 1, &answer);
    await(&answer);
    assert_int_equal(answer.status, ERR_INVALID);
    assert_non_null(strstr(answer.err.message, "answers, rollout.n_samples_per_prompt is"));
    answer_free(&answer);
    stage->config.rollout.n_samples_per_prompt++;
    str_free(&made);
    str_free(&loaded);
    boards_close(&boards);
}

static void test_saved_answers_to_another_prompt_are_refused(void **state)
{
    Stage *stage = *state;
    Boards boards;
    Answer answer;
    stage->config.rollout.save = FOLDER "/answers";
    worker_restart(stage);
    adopt_first(stage, &boards);
    lease_train(stage, 0, 2);
    assert_int_equal(rename(FOLDER "/answers/train/000000/000000001.jsonl",
                            FOLDER "/answers/train/000000/000000000.jsonl"),
                     0);
    stage->config.rollout.load = FOLDER "/answers";
    worker_restart(stage);
    start_lease(stage, "train", 0, 1, &answer);
    await(&answer);
    assert_int_equal(answer.status, ERR_DATA);
    assert_non_null(strstr(answer.err.message, "answers another prompt than"));
    answer_free(&answer);
    Error err = {0};
    const char *torn = "{\"status\": \"completed\", \"reward\": 1, \"temperature\": 1, "
                       "\"right\": true, \"tokens\": [1, 2], \"loss_mask\": [0]}";
    assert_ok(
        file_write_atomic(FOLDER "/answers/train/000000/000000000.jsonl", torn, strlen(torn), &err),
        &err);
    start_lease(stage, "train", 0, 1, &answer);
    await(&answer);
    assert_int_equal(answer.status, ERR_DATA);
    assert_non_null(strstr(answer.err.message, "000000000.jsonl:1: \"loss_mask\""));
    answer_free(&answer);
    boards_close(&boards);
}

/* ---- options ---- */

static void test_an_answer_ends_as_the_files_and_the_template_say(void **state)
{
    (void)state;
    Error err = {0};
    JobConfig config = {0};
    ChatText text;
    EndTokens ends;
    config.model.init = INIT_RANDOM;
    config.model.config = FOLDER "/config.json";
    config.model.tokenizer = TINY;
    assert_ok(folder_create(FOLDER, &err), &err);
    assert_ok(chat_text_open(&config, &text, &err), &err);
    const char *files = "{\"eos_token_id\": [7, 9]}", *none = "{}";
    assert_ok(file_write_atomic(config.model.config, files, strlen(files), &err), &err);
    assert_ok(policy_end_tokens(&text, 1024, &ends, &err), &err);
    assert_int_equal(ends.count, 3); /* and the turn's end */
    assert_int_equal(ends.id[0], 7);
    assert_int_equal(ends.id[1], 9);
    assert_int_equal(ends.id[2], 1023);
    assert_ok(file_write_atomic(config.model.config, none, strlen(none), &err), &err);
    assert_ok(policy_end_tokens(&text, 1024, &ends, &err), &err);
    assert_int_equal(ends.count, 1);
    assert_int_equal(ends.id[0], 1023);
    chat_text_close(&text);
}

static void test_what_cannot_work_is_told_before_anything_starts(void **state)
{
    Stage *stage = *state;
    Error err = {0};
    void *shared = NULL;
    JobConfig config = stage->config;
    config.rollout.reward = "{\"name\": \"gsm9k\"}";
    assert_fails(rollout_generate.open(&config, &shared, &err), ERR_INVALID, &err, "gsm8k");
    config = stage->config;
    config.model.tokenizer = FOLDER "/nowhere";
    assert_fails(rollout_generate.open(&config, &shared, &err), ERR_NOT_FOUND, &err, "nowhere");
    config = stage->config;
    config.train.tp_size = 3;
    assert_fails(rollout_generate.open(&config, &shared, &err), ERR_INVALID, &err, "3");
    config = stage->config;
    config.rollout.stop_token_ids = (IntList){&(int64_t){4000000}, 1};
    assert_fails(rollout_generate.open(&config, &shared, &err), ERR_INVALID, &err,
                 "rollout: stop_token_ids[0] is 4000000, the model's ids are 0 to ");
    const char *plan = rollout_service_memory_plan(stage->service);
    assert_non_null(strstr(plan, "keys and values"));
    assert_non_null(strstr(plan, "the next weights"));
}

#define STAGED(test) cmocka_unit_test_setup_teardown(test, stage_open, stage_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STAGED(test_a_lease_answers_with_groups_of_the_weights_adopted),
        STAGED(test_samples_are_the_same_whatever_the_threads_and_the_order),
        STAGED(test_samples_of_two_ranks_are_the_same_whatever_the_threads),
        STAGED(test_evaluation_has_its_own_settings_and_noise),
        STAGED(test_evaluation_sets_have_their_own_settings_rewards_and_noise),
        STAGED(test_penalties_and_ends_of_the_job_reach_the_engine),
        STAGED(test_records_without_a_usable_prompt_are_rejected_by_name),
        STAGED(test_rewards_see_prompt_and_label_or_else_the_answer_cut_off),
        STAGED(test_a_verifier_that_fails_is_tried_again),
        STAGED(test_a_server_that_is_down_is_named_and_ends_the_run),
        STAGED(test_a_label_of_no_use_is_the_records_fault),
        STAGED(test_answers_that_cannot_be_judged_do_not_train_and_many_end_the_run),
        STAGED(test_leases_wait_for_the_first_weights),
        STAGED(test_new_weights_take_the_place_of_old_ones),
        STAGED(test_weights_may_come_in_the_middle_of_leases),
        STAGED(test_restarted_train_ranks_end_what_is_in_work),
        STAGED(test_leases_that_wait_for_rewards_end_at_a_restart),
        STAGED(test_a_worker_ends_in_the_middle_of_leases_and_its_successor_serves),
        STAGED(test_an_engine_that_loses_a_rank_ends_the_worker),
        STAGED(test_weights_that_cannot_be_had_are_told),
        STAGED(test_answers_that_were_saved_are_loaded_to_the_bit),
        STAGED(test_saved_answers_to_another_prompt_are_refused),
        cmocka_unit_test(test_an_answer_ends_as_the_files_and_the_template_say),
        STAGED(test_what_cannot_work_is_told_before_anything_starts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
