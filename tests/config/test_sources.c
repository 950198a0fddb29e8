/* Tests of data.sources and data.reader: what holds for a source, and what is refused. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "config/source_set.h"

#define MODEL "model: {path: m}\n"

static JobConfig *parse(const char *yaml)
{
    JobConfig *config = NULL;
    Error err = {0};
    assert_ok(job_config_parse(yaml, "job.yaml", "/", &config, &err), &err);
    return config;
}

static void assert_refused(const char *yaml, const char *message)
{
    JobConfig *config = NULL;
    Error err = {0};
    assert_int_equal(job_config_parse(yaml, "job.yaml", "/", &config, &err), ERR_INVALID);
    if (strstr(err.message, message) == NULL) fail_msg("%s", err.message);
}

static void test_sources_fall_back_on_their_section(void **state)
{
    (void)state;
    JobConfig *config = parse(MODEL "data:\n"
                                    "  shuffle: false\n"
                                    "  stopping_strategy: all_exhausted\n"
                                    "  sources:\n"
                                    "    chat: {path: [chat.jsonl, more/*.jsonl], weight: 0.7}\n"
                                    "    math: {path: math, shuffle: true, repeat: 3, "
                                    "label_key: answer}\n"
                                    "    own: {reader: my.so, reader_options: {rows: 4}}\n");
    assert_int_equal(config->data.stopping_strategy, STOP_ALL_EXHAUSTED);
    assert_int_equal(train_source_count(config), 3);
    TrainSource chat = train_source(config, 0), math = train_source(config, 1),
                own = train_source(config, 2);
    assert_string_equal(chat.name, "chat");
    assert_string_equal(chat.key, "data.sources.chat");
    assert_int_equal(chat.path->count, 2);
    assert_string_equal(chat.path->item[0], "/chat.jsonl");
    assert_true(chat.weight == 0.7 && chat.order.kind == ORDER_FILES && chat.repeat == 0 &&
                chat.reader == NULL);
    assert_true(math.weight == 1 && math.order.kind == ORDER_FULL && math.repeat == 3);
    assert_string_equal(math.record.label, "answer");
    assert_string_equal(math.record.tool, "tools");
    assert_string_equal(chat.record.label, "label");
    assert_string_equal(own.reader, "/my.so");
    assert_string_equal(own.reader_options, "{\"rows\": 4}");
    assert_int_equal(own.path->count, 0);
    assert_int_equal(train_source_find(config, "math"), 1);
    assert_int_equal(train_source_find(config, "train"), -1);
    job_config_destroy(config);
}

static void test_sources_without_a_mixture_are_data_train(void **state)
{
    (void)state;
    JobConfig *config = parse(MODEL "data: {train: a.txt, reader: my.so}\n");
    TrainSource only = train_source(config, 0);
    assert_int_equal(train_source_count(config), 1);
    assert_string_equal(only.name, "train");
    assert_string_equal(only.key, "data.train");
    assert_string_equal(only.path->item[0], "/a.txt");
    assert_string_equal(only.reader, "/my.so");
    assert_true(only.weight == 1 && only.order.kind == ORDER_FULL && only.reader_options == NULL);
    job_config_destroy(config);
}

/* The text is how actors get their configuration. */
static void test_sources_are_the_same_in_the_text(void **state)
{
    (void)state;
    JobConfig *config = parse(MODEL "data: {sources: {a: {path: a, weight: 2.5}, b: {path: b}}}\n");
    char *text = job_config_text(config);
    JobConfig *again = parse(text);
    char *changes = job_config_changes(config, again);
    assert_null(changes);
    assert_int_equal(again->data.train.count, 0);
    assert_true(train_source(again, 0).weight == 2.5 && train_source(again, 1).weight == 1);
    free(text);
    job_config_destroy(again);
    job_config_destroy(config);
}

/* A stage may train on a mixture where the file has one set, and the other way round. */
static void test_sources_replace_data_train_in_a_stage(void **state)
{
    (void)state;
    static const char yaml[] =
        MODEL "data: {train: a}\n"
              "stages:\n"
              "- {name: one}\n"
              "- {name: mix, data: {sources: {a: {path: a}, b: {path: b}}}}\n";
    Error err = {0};
    JobStages stages = {0};
    assert_ok(file_write_atomic("stages-of-sources.yaml", yaml, strlen(yaml), &err), &err);
    const char *set[] = {"data.sources.a.weight=3"};
    assert_int_equal(job_stages_load("stages-of-sources.yaml", set, 1, &stages, &err), ERR_INVALID);
    assert_ok(job_stages_load("stages-of-sources.yaml", NULL, 0, &stages, &err), &err);
    assert_int_equal(stages.stage[0]->data.train.count, 1);
    assert_int_equal(stages.stage[0]->data.sources.count, 0);
    assert_int_equal(stages.stage[1]->data.train.count, 0);
    assert_int_equal(stages.stage[1]->data.sources.count, 2);
    assert_null(job_config_set_aside(stages.stage[1])); /* a stage says what it is for */
    job_stages_free(&stages);
    static const char plain[] = MODEL "data: {train: a}\n";
    const char *other[] = {"data.train=c"};
    assert_ok(file_write_atomic("plain.yaml", plain, strlen(plain), &err), &err);
    assert_ok(job_stages_load("plain.yaml", other, 1, &stages, &err), &err);
    assert_null(job_config_set_aside(stages.stage[0]));
    job_stages_free(&stages);
    static const char back[] = MODEL "data: {sources: {a: {path: a}, b: {path: b}}}\n"
                                     "stages:\n"
                                     "- {name: mix}\n"
                                     "- {name: one, data: {train: c}}\n";
    assert_ok(file_write_atomic("back.yaml", back, strlen(back), &err), &err);
    const char *of_mix[] = {"stages.mix.data.sources.a.weight=3"};
    assert_ok(job_stages_load("back.yaml", of_mix, 1, &stages, &err), &err);
    assert_true(train_source(stages.stage[0], 0).weight == 3);
    assert_int_equal(stages.stage[1]->data.train.count, 1);
    assert_int_equal(stages.stage[1]->data.sources.count, 0);
    job_stages_free(&stages);
    const char *of_all[] = {"data.sources.a.weight=3"};
    assert_int_equal(job_stages_load("back.yaml", of_all, 1, &stages, &err), ERR_INVALID);
    const char *one[] = {"data.train=c"};
    assert_ok(job_stages_load("stages-of-sources.yaml", one, 1, &stages, &err), &err);
    assert_string_equal(job_config_set_aside(stages.stage[1]), "data.sources");
    assert_int_equal(stages.stage[1]->data.train.count, 1);
    assert_int_equal(stages.stage[1]->data.sources.count, 0);
    job_stages_free(&stages);
}

static void test_remainder_is_refused_where_every_prompt_is_taken(void **state)
{
    (void)state;
#define DROPS                                                                                      \
    MODEL "data: {train: a, remainder: drop}\ntrain: {global_batch_size: 16}\n"                    \
          "rollout: {function: generate, reward: gsm8k, n_samples_per_prompt: 4, "
    assert_refused(DROPS "load: x}\n", "data.remainder is drop, but the job has rollout.load");
    assert_refused(DROPS "only: true, save: x}\n",
                   "data.remainder is drop, but the job has rollout.only");
    assert_refused(MODEL "data: {train: a, drop_last: true}\n", "data.remainder");
    assert_refused(MODEL "data: {train: a, remainder: cut}\n", "one of wrap, drop, pad");
    assert_refused(MODEL "data: {train: a, remainder: pad}\ntrain: {global_batch_size: 16}\n"
                         "rollout: {function: generate, reward: gsm8k, n_samples_per_prompt: 4, "
                         "load: x}\n",
                   "data.remainder is pad, but the job has rollout.load");
#undef DROPS
}

/* How many steps a run makes, and what they take of the data. */
static void test_remainder_says_how_many_steps_epochs_make(void **state)
{
    (void)state;
    static const struct {
        RemainderPolicy policy;
        int64_t records, batch, epochs, steps, of, positions;
    } cases[] = {
        {REMAINDER_WRAP, 60, 8, 2, 15, 8, 64},   {REMAINDER_DROP, 60, 8, 2, 14, 8, 68},
        {REMAINDER_PAD, 60, 8, 2, 16, 8, 60},    {REMAINDER_PAD, 60, 8, 2, 16, 9, 68},
        {REMAINDER_PAD, 64, 8, 3, 24, 9, 72},    {REMAINDER_DROP, 64, 8, 3, 24, 9, 72},
        {REMAINDER_PAD, 5, 8, 3, 3, 2, 10},      {REMAINDER_WRAP, 5, 8, 3, 1, 1, 8},
        {REMAINDER_PAD, 60, 8, 1, 8, 160, 1200}, {REMAINDER_PAD, 1, 1, 7, 7, 3, 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        JobConfig config = {.data.remainder = cases[i].policy};
        int64_t records = cases[i].records, batch = cases[i].batch;
        assert_int_equal(job_steps_of_epochs(&config, records, batch, cases[i].epochs),
                         cases[i].steps);
        assert_int_equal(job_positions_of_steps(&config, records, batch, cases[i].of),
                         cases[i].positions);
    }
}

static void test_sources_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    assert_refused(MODEL, "data.train is missing");
    assert_refused(MODEL "data: {train: a, sources: {b: {path: b}}}\n",
                   "job.yaml:2: data.sources and data.train both say");
    assert_refused(MODEL "data: {reader: a.so, sources: {b: {path: b}}}\n", "data.reader has no");
    assert_refused(MODEL "data: {num_samples: 9, sources: {b: {path: b}}}\n",
                   "data.num_samples has no effect with data.sources");
    assert_refused(MODEL "data: {sources: {b: {weight: 2}}}\n", "data.sources.b names no data");
    assert_refused(MODEL "data: {sources: {b: {path: b, weight: 0}}}\n",
                   "job.yaml:2:39: data.sources.b.weight is 0, expected a number above 0");
    assert_refused(MODEL "data: {sources: {b: {path: b, wieght: 1}}}\n", "weight");
    assert_refused(MODEL "data: {sources: {b: {path: b, reader_options: {a: 1}}}}\n",
                   "data.sources.b.reader_options has no effect");
    assert_refused(MODEL "data: {train: a, reader_options: {a: 1}}\n",
                   "data.reader_options has no effect");
    assert_refused(MODEL "data: {sources: {a b: {path: b}}}\n", "holds the name \"a b\"");
    assert_refused(MODEL "data: {train: a, stopping_strategy: all}\n", "all_exhausted");
}

/* What other systems call it, or would take for a value. */
static void test_data_names_of_other_systems_are_answered(void **state)
{
    (void)state;
    assert_refused("data: {max_samples: 5}\n", "data.jsonl@[:N]");
    assert_refused("data: {validation_file: x}\n", "Did you mean data.eval");
    assert_refused("data: {weights: [1]}\n", "Write data.sources");
    assert_refused("data: {repeat: 2}\n", "Write train.num_epochs");
    assert_refused("data: {split: train}\n", "my_folder@train");
    assert_refused("data: {order: random}\n", "Write order: full");
    assert_refused("data: {hf_version: 5.1}\n", "Write hf_version: 5.2");
    assert_refused("data: {bad_record: drop}\n", "Write skip.");
    assert_refused("data: {remainder: drop_last}\n", "Write remainder: drop.");
    assert_refused("data: {sources: {a: x.jsonl}}\n", "Write a: {path: x.jsonl}.");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data_names_of_other_systems_are_answered),
        cmocka_unit_test(test_sources_fall_back_on_their_section),
        cmocka_unit_test(test_sources_without_a_mixture_are_data_train),
        cmocka_unit_test(test_sources_are_the_same_in_the_text),
        cmocka_unit_test(test_sources_replace_data_train_in_a_stage),
        cmocka_unit_test(test_remainder_is_refused_where_every_prompt_is_taken),
        cmocka_unit_test(test_remainder_says_how_many_steps_epochs_make),
        cmocka_unit_test(test_sources_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
