/* Jobs of several stages, and jobs that are swapped in. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "config/job.h"

static void write_text(const char *path, const char *text)
{
    Error err = {0};
    assert_ok(file_write_atomic(path, text, strlen(text), &err), &err);
}

static const char staged[] = "model: {path: /m}\n"
                             "data: {train: a.jsonl, max_length: 100}\n"
                             "train: {num_epochs: 2, lr: 1e-5, max_tokens_per_gpu: 300}\n"
                             "stages:\n"
                             "  - name: sft\n"
                             "    rollout: {num_workers: 2}\n"
                             "  - data: {train: b.jsonl, max_length: 400}\n"
                             "    train: {num_steps: 7, max_tokens_per_gpu: 800}\n"
                             "    rollout: {num_workers: 3}\n"
                             "  - name: last\n"
                             "    data: ~\n"
                             "    seed: 9\n";

static void test_stages_replace_what_the_file_says(void **state)
{
    (void)state;
    Error err = {0};
    JobStages stages = {0};
    const char *overrides[] = {"train.lr=1e-4"};
    write_text("staged.yaml", staged);
    assert_ok(job_stages_load("staged.yaml", overrides, 1, &stages, &err), &err);
    assert_int_equal(stages.count, 3);
    JobConfig *const *stage = stages.stage;
    assert_string_equal(stage[0]->stage, "sft");
    assert_string_equal(stage[1]->stage, "stage-2");
    assert_int_equal(stage[0]->train.num_epochs, 2);
    assert_int_equal(stage[1]->train.num_epochs, 0); /* a stage's num_steps replaces it */
    assert_int_equal(stage[1]->train.num_steps, 7);
    assert_string_equal(path_name(stage[1]->data.train.item[0]), "b.jsonl");
    assert_string_equal(path_name(stage[2]->data.train.item[0]), "a.jsonl");
    assert_int_equal(stage[2]->seed, 9);
    for (int i = 0; i < 3; i++) { /* an override is of all; what is reserved is for the largest */
        assert_true(stage[i]->train.lr == 1e-4);
        assert_int_equal(stage[i]->cluster.rollout_workers_max, 3);
        assert_int_equal(stage[i]->train.memory_length, 400);
        assert_int_equal(stage[i]->train.memory_tokens_per_gpu, 800);
    }
    job_stages_free(&stages);

    JobConfig *config = NULL;
    assert_ok(job_config_load("staged.yaml", "last", NULL, 0, &config, &err), &err);
    assert_int_equal(config->seed, 9);
    char *text = job_config_text(config);
    JobConfig *again = NULL;
    assert_ok(job_config_parse(text, "again", "/", &again, &err), &err);
    assert_string_equal(again->stage, "last");
    assert_null(job_config_changes(config, again));
    job_config_destroy(again);
    free(text);
    job_config_destroy(config);
    assert_fails(job_config_load("staged.yaml", "lest", NULL, 0, &config, &err), ERR_INVALID, &err,
                 "Did you mean last?");
}

static void test_stages_are_overridden_one_by_one(void **state)
{
    (void)state;
    Error err = {0};
    JobStages stages = {0};
    const char *overrides[] = {"train.lr=1e-4", "stages.stage-2.train.lr=2e-4",
                               "stages.last.data.max_length=50"};
    write_text("staged.yaml", staged);
    assert_ok(job_stages_load("staged.yaml", overrides, 3, &stages, &err), &err);
    for (int i = 0; i < 3; i++)
        assert_true(stages.stage[i]->train.lr == (i == 1 ? 2e-4 : 1e-4));
    assert_int_equal(stages.stage[0]->data.max_length, 100);
    assert_int_equal(stages.stage[2]->data.max_length, 50);
    job_stages_free(&stages);

    const char *wrong[][2] = {
        {"stages.lats.train.lr=1", "--set stages.lats.train.lr=1: there is no stage called lats."},
        {"stages.last.model.path=/n", "model.path cannot be another one in a stage"},
        {"stages.last.train.lrr=1", "train.lrr is not a key"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(job_stages_load("staged.yaml", &wrong[i][0], 1, &stages, &err),
                         ERR_INVALID);
        assert_non_null(strstr(err.message, wrong[i][1]));
    }
    char *text = NULL;
    assert_ok(job_config_describe("stages", &text, &err), &err);
    assert_non_null(strstr(text, "a list of stages"));
    free(text);
}

static void test_stages_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *stages, *message;
    } wrong[] = {
        {"stages: []", "job.yaml:3:9: stages is empty, expected a list of 1 to 64 stages"},
        {"stages: {name: sft}", "expected a list of 1 to 64 stages"},
        {"stages: [sft]", "job.yaml:3:10: found \"sft\", expected a stage"},
        {"stages: [{name: a/b}]", "the stage's name is \"a/b\""},
        {"stages: [{name: a}, {name: a}]", "two stages are called a, the first in line 3"},
        {"stages: [{name: a, model: {dtype: bf16}}]",
         "model.dtype cannot be another one in a stage"},
        {"stages: [{name: a, train: {tp_size: 2}}]", "Move it out of the stage a"},
        {"stages: [{name: a, train: {lrr: 2}}]", "train.lr"},
        {"stages: [{name: a, train: {lr: 1}, train: {lr: 2}}]", "stands twice"},
        {"stages: [{name: a}]\nstages: [{name: b}]", "stages stands twice; the first is in line 3"},
        {"train: {memory_length: 10}", "train.memory_length is 10, less than the 2048"},
        {"stages: [{name: a}, {name: b, rollout: {num_workers: 4}}]\n"
         "cluster: {rollout_workers_max: 3}",
         "cluster.rollout_workers_max is 3, less than the 4"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        Error err = {0};
        JobStages stages = {0};
        char *text = mem_printf("model: {path: /m}\ndata: {train: a.jsonl}\n%s\n", wrong[i].stages);
        write_text("job.yaml", text);
        assert_fails(job_stages_load("job.yaml", NULL, 0, &stages, &err), ERR_INVALID, &err,
                     wrong[i].message);
        free(text);
    }
}

static void test_stages_a_swap_keeps_what_a_run_has_once(void **state)
{
    (void)state;
    Error err = {0};
    JobConfig *run = NULL, *job = NULL, *both = NULL;
    const char *of_run =
        "name: run\nrun_dir: /runs/1\nmodel: {path: /m, dtype: bf16}\n"
        "data: {train: /a}\ntrain: {tp_size: 2, lr: 1}\ncheckpoint: {interval: 7}\n";
    const char *of_job = "name: rl\nmodel: {path: /other}\ndata: {train: /b}\ntrain: {lr: 2}\n";
    assert_ok(job_config_parse(of_run, "run", "/", &run, &err), &err);
    assert_ok(job_config_parse(of_job, "job", "/", &job, &err), &err);
    char *text = job_config_graft(run, job);
    assert_ok(job_config_parse(text, "both", "/", &both, &err), &err);
    assert_string_equal(both->stage, "rl");
    assert_string_equal(both->name, "run");
    assert_string_equal(both->run_dir, "/runs/1");
    assert_string_equal(both->model.path, "/m");
    assert_int_equal(both->model.dtype, MODEL_BF16);
    assert_int_equal(both->train.tp_size, 2);
    assert_int_equal(both->checkpoint.interval, 7);
    assert_true(both->train.lr == 2);
    assert_string_equal(both->data.train.item[0], "/b");
    free(text);
    job_config_destroy(both);
    job_config_destroy(job);
    job_config_destroy(run);
}

/* A later stage stays near to what the one before it left, where it does not say otherwise. */
static void test_stages_refer_to_what_they_begin_with(void **state)
{
    (void)state;
    static const char head[] = "model: {path: /m}\ndata: {train: a.jsonl}\n";
    static const char rl[] = "rollout: {function: generate, reward: random, n_samples_per_prompt: "
                             "4}, algorithm: {kl_loss_coef: 0.1";
    static const struct {
        const char *more, *first, *second; /* expected of them; NULL: model.path */
    } cases[] = {{"", NULL, REFERENCE_START},
                 {", reference: start_of_stage", REFERENCE_START, REFERENCE_START},
                 {", reference: /other", "/other", "/other"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error err = {0};
        JobStages stages = {0};
        char *text = mem_printf("%sstages:\n  - {%s%s}}\n  - {%s%s}}\n  - {name: sft}\n", head, rl,
                                cases[i].more, rl, cases[i].more);
        write_text("near.yaml", text);
        assert_ok(job_stages_load("near.yaml", NULL, 0, &stages, &err), &err);
        const char *found[] = {stages.stage[0]->algorithm.reference,
                               stages.stage[1]->algorithm.reference};
        const char *expected[] = {cases[i].first, cases[i].second};
        for (int k = 0; k < 2; k++) {
            assert_int_equal(found[k] == NULL, expected[k] == NULL);
            if (expected[k] != NULL) assert_string_equal(found[k], expected[k]);
        }
        /* Memory is planned once, for all of them. */
        assert_true(stages.stage[2]->train.memory_reference);
        assert_false(stages.stage[0]->train.memory_critic);
        job_stages_free(&stages);
        free(text);
    }
}

static void test_stages_a_swap_refers_to_what_it_begins_with(void **state)
{
    (void)state;
    Error err = {0};
    JobConfig *run = NULL, *job = NULL, *both = NULL;
    const char *of_run = "model: {path: /m, init: random}\ndata: {train: /a}\n";
    const char *of_job = "model: {path: /other}\ndata: {train: /b}\nalgorithm: {kl_coef: 0.1}\n"
                         "rollout: {function: generate, reward: random, n_samples_per_prompt: 4}\n";
    assert_ok(job_config_parse(of_run, "run", "/", &run, &err), &err);
    assert_ok(job_config_parse(of_job, "job", "/", &job, &err), &err);
    assert_null(job->algorithm.reference);
    char *text = job_config_graft(run, job);
    assert_ok(job_config_parse(text, "both", "/", &both, &err), &err);
    assert_string_equal(both->algorithm.reference, REFERENCE_START);
    free(text);
    job_config_destroy(both);
    job_config_destroy(job);
    job_config_destroy(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stages_replace_what_the_file_says),
        cmocka_unit_test(test_stages_are_overridden_one_by_one),
        cmocka_unit_test(test_stages_that_cannot_be_are_refused),
        cmocka_unit_test(test_stages_a_swap_keeps_what_a_run_has_once),
        cmocka_unit_test(test_stages_refer_to_what_they_begin_with),
        cmocka_unit_test(test_stages_a_swap_refers_to_what_it_begins_with),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
