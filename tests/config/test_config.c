/* Tests of common/config: what a person writes in job.yaml, and what is said when it is wrong. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "config/eval_set.h"
#include "config/job.h"
#include "config/job_internal.h"
#include "config/job_text.h"

static const char good[] = "model:\n"
                           "  path: models/qwen\n"
                           "data:\n"
                           "  train: [a.jsonl, \"b/*.jsonl\"]\n"
                           "  eval: test.jsonl\n"
                           "train:\n"
                           "  lr: 3e-4\n"
                           "  tp_size: 2\n"
                           "  num_epochs: 3\n";

static void test_config_reads_values_and_fills_in_defaults(void **state)
{
    (void)state;
    JobConfig *config = parse_job(good);
    assert_string_equal(config->name, "job");
    assert_string_equal(config->model.path, "/models/qwen");
    assert_string_equal(config->model.config, "/models/qwen/config.json");
    assert_string_equal(config->model.tokenizer, "/models/qwen");
    assert_null(config->model.chat_template);
    assert_int_equal(config->data.train.count, 2);
    assert_string_equal(config->data.train.item[1], "/b/*.jsonl");
    assert_int_equal(config->data.eval.count, 1);
    assert_int_equal(config->train.tp_size, 2);
    assert_int_equal(config->train.dp_size, 1);
    assert_int_equal(config->train.num_epochs, 3);
    assert_int_equal(config->train.num_steps, 0);
    assert_true(config->train.lr == 3e-4);
    assert_true(config->train.adam_eps == 1e-8);
    assert_int_equal(config->train.lr_schedule, SCHEDULE_COSINE);
    assert_true(config->data.shuffle);
    assert_null(config->data.input_key);
    assert_string_equal(config->data.tool_key, "tools");
    job_config_destroy(config);
}

static void test_config_paths_start_at_their_folders(void **state)
{
    (void)state;
    Error err = {0};
    char here[4096];
    assert_non_null(getcwd(here, sizeof here));
    assert_ok(folder_create("jobs/[1]/deep", &err), &err);
    const char *yaml = "run_dir: out\n"
                       "model: {path: ../../m, tokenizer: ./t, chat_template: /abs/x$$y.jinja}\n"
                       "data: {train: '*.jsonl'}\n";
    assert_ok(file_write_atomic("jobs/[1]/deep/a b.yaml", yaml, strlen(yaml), &err), &err);
    const char *overrides[] = {"data.eval=[x.jsonl, ../y.jsonl]"};
    JobConfig *config = NULL;
    assert_ok(job_config_load("jobs/[1]/deep/a b.yaml", NULL, overrides, 1, &config, &err), &err);
    char *expected[] = {
        mem_printf("%s/jobs/m", here),
        mem_printf("%s/jobs/[1]/deep/t", here),
        mem_printf("%s/jobs/\\[1]/deep/*.jsonl", here),
        mem_printf("%s/out", here),
        mem_printf("%s/x.jsonl", here),
    };
    assert_true(str_starts_with(config->name, "a-b-")); /* and a digest: "a-b.yaml" is another */
    assert_string_equal(config->model.path, expected[0]);
    assert_string_equal(config->model.tokenizer, expected[1]);
    assert_string_equal(config->model.chat_template, "/abs/x$y.jinja");
    assert_string_equal(config->data.train.item[0], expected[2]);
    assert_string_equal(config->run_dir, expected[3]);
    assert_string_equal(config->data.eval.item[0], expected[4]);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        free(expected[i]);
    job_config_destroy(config);
}

/* The name of a job whose file has this one. */
static char *name_of(const char *file)
{
    JobConfig *config = NULL;
    Error err = {0};
    assert_ok(job_config_parse("model: {path: m}\ndata: {train: a}\n", file, "/", &config, &err),
              &err);
    char *name = mem_strdup(config->name);
    job_config_destroy(config);
    return name;
}

/* Jobs that are called differently have different run folders. */
static void test_config_job_names_differ_as_their_files_do(void **state)
{
    (void)state;
    static const struct {
        const char *file, *name; /* NULL: whatever, but another than all others */
    } jobs[] = {
        {"/x/sft.v2_a-b.yml", "sft.v2_a-b"},
        {"\u6570\u5b66\u5fae\u8c03.yaml", "\u6570\u5b66\u5fae\u8c03"},
        {"\u6570\u5b66\u8bc4\u6d4b.yaml", "\u6570\u5b66\u8bc4\u6d4b"},
        {"jobs/\u043e\u0431\u0443\u0447\u0435\u043d\u0438\u0435.yaml",
         "\u043e\u0431\u0443\u0447\u0435\u043d\u0438\u0435"},
        {"my job.yaml", NULL},
        {"my-job.yaml", "my-job"},
        {"my\tjob.yaml", NULL},
        {"my\u3000job.yaml", NULL},
        {"my\u200bjob.yaml", NULL},
        {"my\xffjob.yaml", NULL},
        {".hidden.yaml", NULL},
        {"0123456789012345678901234567890123456789a.yaml", NULL},
        {"0123456789012345678901234567890123456789b.yaml", NULL},
    };
    char *name[sizeof jobs / sizeof *jobs];
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        name[i] = name_of(jobs[i].file);
        if (jobs[i].name != NULL) assert_string_equal(name[i], jobs[i].name);
        assert_true(name[i][0] != '.' && strpbrk(name[i], " \t/") == NULL && strlen(name[i]) <= 40);
        for (size_t j = 0; j < i; j++)
            if (strcmp(name[i], name[j]) == 0) fail_msg("%s twice", name[i]);
    }
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++)
        free(name[i]);
    REFUSED("name: a\u3000b\nmodel: {path: m}\ndata: {train: a}\n", "letters and digits");
}

/* ---- what may stand for a model folder ---- */

static void touch(const char *path)
{
    Error err = {0};
    char *folder = path_folder(path);
    assert_ok(folder_create(folder, &err), &err);
    assert_ok(file_write_atomic(path, "x\n", 2, &err), &err);
    free(folder);
}

static char *model_path_of(const char *written)
{
    char *yaml = mem_printf("model: {path: \"%s\"}\ndata: {train: a}\n", written), folder[4096];
    JobConfig *config = NULL;
    Error err = {0};
    assert_non_null(getcwd(folder, sizeof folder));
    assert_ok(job_config_parse(yaml, "job.yaml", folder, &config, &err), &err);
    char *path = mem_strdup(config->model.path + strlen(folder) + 1);
    assert_true((config->model.run != NULL) == (strstr(path, "step_") != NULL));
    job_config_destroy(config);
    free(yaml);
    return path;
}

static void expect_model_path(const char *written, const char *expected)
{
    char *path = model_path_of(written);
    assert_string_equal(path, expected);
    free(path);
}

static void test_config_takes_a_run_for_its_newest_checkpoint(void **state)
{
    (void)state;
    Error err = {0};
    folder_remove("a_run", NULL);
    for (int step = 8; step <= 10; step++) { /* the last is not whole */
        char *folder = mem_printf("a_run/checkpoints/step_000000%02d", step);
        char *config = path_join(folder, "config.json"), *done = path_join(folder, "manifest.json");
        touch(config);
        if (step < 10) touch(done);
        free(done);
        free(config);
        free(folder);
    }
    touch("a_run/checkpoints/step_00000011.x7.partial/config.json");
    touch("a_run/checkpoints/step_00000011.x7.partial/manifest.json");
    touch("a_run/checkpoints/latest");
    expect_model_path("a_run", "a_run/checkpoints/step_00000009");
    expect_model_path("a_run/", "a_run/checkpoints/step_00000009");
    expect_model_path("a_run/checkpoints", "a_run/checkpoints/step_00000009");
    expect_model_path("./a_run/checkpoints/latest", "a_run/checkpoints/step_00000009");
    touch("a_run/config.json"); /* a model like any other */
    expect_model_path("a_run//", "a_run");
    expect_model_path("no_run/checkpoints/latest", "no_run/checkpoints/latest");
    assert_ok(folder_remove("a_run", &err), &err);
}

static void test_config_expands_variables_in_paths_only(void **state)
{
    (void)state;
    assert_int_equal(setenv("TROUPE_TEST_FOLDER", "/data/${x}", 1), 0);
    unsetenv("TROUPE_TEST_ABSENT");
    JobConfig *config = parse_job("model: {path: \"${TROUPE_TEST_FOLDER}/m\"}\n"
                                  "data: {train: a, input_key: \"${TROUPE_TEST_FOLDER}\"}\n");
    assert_string_equal(config->model.path, "/data/${x}/m");
    assert_string_equal(config->data.input_key, "${TROUPE_TEST_FOLDER}");
    job_config_destroy(config);
    REFUSED("model:\n  path: ${TROUPE_TEST_ABSENT}/m\n", "job.yaml:2:9: model.path",
            "${TROUPE_TEST_ABSENT}", "not set", "export");
    REFUSED("model:\n  path: ${TROUPE\n", "job.yaml:2:9", "no `}`");
}

static void test_config_wrong_value_says_found_and_expected(void **state)
{
    (void)state;
    REFUSED("train:\n  lr: fast\n", "job.yaml:2:7: train.lr is \"fast\"",
            "expected a number above 0", "`lr: 1e-5`");
    REFUSED("train:\n  lr: \"1e-4\"\n", "without quotes");
    REFUSED("train: {lr: .inf}\n", "train.lr is \".inf\"");
    REFUSED("train: {lr: 0x10}\n", "train.lr");
    REFUSED("train: {lr: [1]}\n", "train.lr is a list of 1");
    REFUSED("train: {lr: {a: 1}}\n", "train.lr is a section");
    REFUSED("train: {lr: }\n", "train.lr is empty");
    REFUSED("train: {lr: -1}\n", "train.lr is -1", "above 0");
    REFUSED("train: {tp_size: 65}\n", "from 1 to 64", "nearest valid value is 64");
    REFUSED("train: {tp_size: 0}\n", "nearest valid value is 1");
    REFUSED("train: {num_steps: 1e3}\n", "a whole number", "Write 1000.");
    REFUSED("train: {num_steps: 1.5}\n", "train.num_steps is 1.5");
    REFUSED("train: {num_steps: 99999999999999999999}\n", "train.num_steps");
    REFUSED("data: {shuffle: yes}\n", "true or false", "Write true.");
    REFUSED("train: {lr_schedule: cosin}\n", "one of constant, linear, cosine, wsd",
            "Did you mean cosine?");
    REFUSED("data: {nothing_to_train: truncate}\n", "one of skip, stop");
    REFUSED("model: {path: m}\ndata: {train: []}\n", "data.train is an empty list");
    REFUSED("data: {train: [a, [b]]}\n", "job.yaml:1:19: data.train is a list of 1");
    REFUSED("model: {path: \"\"}\n", "model.path", "expected a path");
    REFUSED("data: {apply_chat_template_kwargs: high}\n", "expected names with values",
            "{enable_thinking: false}");
    REFUSED("data: {apply_chat_template_kwargs: [a]}\n", "is a list of 1");
    REFUSED("data: {apply_chat_template_kwargs: '[1]'}\n", "expected names with values");
    REFUSED("data: {apply_chat_template_kwargs: {a: no}}\n", "is \"no\"", "Write true or false");
    REFUSED("data: {apply_chat_template_kwargs: {a: 1, a: 2}}\n", "job.yaml:1:43", "\"a\" twice");
    REFUSED("train: 3\n", "train is 3", "expected a section", "lr_schedule");
    REFUSED("- a\n", "found a list of 1", "expected sections");
    REFUSED("name: ../x\nmodel: {path: m}\ndata: {train: a}\n", "job.yaml:1: name is \"../x\"");
}

static void test_config_missing_and_repeated_keys_are_refused(void **state)
{
    (void)state;
    REFUSED("", "job.yaml: model.path is missing", "path: models/");
    REFUSED("model: {path: m}\n", "data.train is missing");
    REFUSED("train:\n  lr: 1\n  lr: 1\n", "job.yaml:3:3: train.lr is set twice", "line 2");
    REFUSED("train:\n  lr: 1\nmodel:\ntrain:\n  lr: 1\n", "job.yaml:4:1", "stands twice", "line 1");
}

static void test_config_yaml_mistakes_are_explained(void **state)
{
    (void)state;
    REFUSED("model:\n\tpath: x\n", "job.yaml:2:1", "tab", "two spaces");
    REFUSED("model:\n  path x\n  init: random\n", "job.yaml:2:3", "without a colon");
    REFUSED("model:\n  path: \"x\n", "job.yaml:2:9", "never closed");
    REFUSED("data:\n  train: *.jsonl\n", "job.yaml:2:", "\"quotes\"");
    REFUSED("model:\n  path: x\n init: random\n", "job.yaml:3:2", "same column");
    REFUSED("model: *m\n", "job.yaml:1:8", "alias *m");
    REFUSED("model: &m {path: *m}\n", "alias *m");
    REFUSED("model: !!map {path: m}\nname: !x y\n", "job.yaml:2:7", "tag");
    REFUSED("name: a\n---\nname: b\n", "job.yaml:2:1", "second YAML document");
    REFUSED("name: \"a\\0b\"\n", "job.yaml:1:7", "NUL");
    REFUSED("name: \xff\n", "job.yaml:1: byte 0xff", "UTF-8");
    REFUSED("name: \x01\n", "control character");
}

static void test_config_hostile_yaml_is_cheap(void **state)
{
    (void)state;
    Str text = {0};
    str_puts(&text, "a0: &a0 [x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 70; i++)
        str_printf(&text, "a%d: &a%d [*a%d, *a%d]\n", i, i, i - 1, i - 1);
    REFUSED(str_text(&text), "CONFIG_ALIASES_MAX");
    str_clear(&text);
    for (int i = 0; i < 100; i++)
        str_putc(&text, '[');
    REFUSED(str_text(&text), "CONFIG_DEPTH_MAX");
    str_clear(&text);
    str_puts(&text, "[x");
    for (int i = 0; i < 30000; i++)
        str_puts(&text, ", x");
    REFUSED(str_text(&text), "CONFIG_NODES_MAX");
    str_clear(&text);
    while (text.length <= 1 << 20)
        str_puts(&text, "# filler filler filler filler filler filler\n");
    REFUSED(str_text(&text), "CONFIG_BYTES_MAX");
    str_free(&text);
}

/* A job that is right but for the given lines. */
static char *job_with(const char *lines)
{
    return mem_printf("model: {path: m}\ndata: {train: a}\n%s", lines);
}
#define CLASH(lines, ...)                                                                          \
    do {                                                                                           \
        char *text_ = job_with(lines);                                                             \
        REFUSED(text_, __VA_ARGS__);                                                               \
        free(text_);                                                                               \
    } while (0)

static void test_config_values_that_disagree_are_refused(void **state)
{
    (void)state;
    CLASH("train:\n  global_batch_size: 10\n  dp_size: 4\n",
          "job.yaml:4: ", "train.global_batch_size is 10", "train.dp_size 4", "8 or 12",
          "1, 2, 5, 10");
    CLASH("train:\n  global_batch_size: 3\n  dp_size: 4\n", "global_batch_size of 4, or");
    CLASH("train: {tp_size: 64, dp_size: 64}\n", "4096 train workers", "at most 16");
    CLASH("train:\n  num_steps: 5\n  num_epochs: 1\n", "job.yaml:5: train.num_epochs",
          "Remove one");
    CLASH("train: {num_steps: 0, num_epochs: 0}\n", "both 0");
    CLASH("train: {lr: 1e-5, min_lr: 1e-4}\n", "train.min_lr is 0.0001", "1e-05");
    CLASH("train: {num_steps: 5, warmup_steps: 6}\n", "train.warmup_steps 6", "Expected at most 5");
    CLASH("train: {lr_schedule: wsd, num_steps: 50}\n", "decay_steps: 5");
    CLASH("train: {decay_steps: 5}\n", "only lr_schedule: wsd");
    CLASH("train: {max_tokens_per_gpu: 100}\n", "2048", "Raise max_tokens_per_gpu");
    CLASH("device: cuda\ntrain:\n  tp_size: 2\nrollout:\n  rank_processes: false\n"
          "  function: generate\n  reward: random\n  n_samples_per_prompt: 2\n",
          "job.yaml:7: ", "rollout.rank_processes is false with device: cuda", "train.tp_size 2",
          "expected true or auto");
    CLASH("rollout: {rank_processes: true, function: generate, reward: random, "
          "n_samples_per_prompt: 2}\n",
          "rollout.rank_processes", "train.tp_size is 1", "Remove it");
    job_config_destroy(
        parse_job("model: {path: m}\ndata: {train: a}\ndevice: cuda\n"
                  "train: {tp_size: 2, dp_size: 2}\n"
                  "rollout: {function: generate, reward: random, n_samples_per_prompt: 2}\n"));
    CLASH("device: gpu\n", "device", "expected one of cpu, cuda", "device: cuda");
    CLASH("eval: {interval: 5}\n", "eval.interval", "data.eval names no file");
    CLASH("cluster: {suspect_ms: 600}\n", "cluster.suspect_ms is 600", "1000");
    CLASH("cluster: {dead_ms: 2000}\n", "cluster.dead_ms is 2000", "more than");
    CLASH("cluster: {agents: [tcp://10.0.0.1:7700]}\n", "cluster.agents", "tcp://10.0.0.1:7700",
          "not possible yet", "ipc:///run/troupe/agent");
    CLASH("cluster: {agents: [ipc:///a, agent]}\n", "\"agent\"", "expected ipc:///path");
}

static void refused_override(const char *override, const char *part, const char *part2)
{
    const char *overrides[] = {override};
    JobConfig *config = NULL;
    Error err = {0};
    assert_fails(job_config_load("override.yaml", NULL, overrides, 1, &config, &err), ERR_INVALID,
                 &err, part);
    if (strstr(err.message, part2) == NULL) fail_msg("\"%s\" is not in: %s", part2, err.message);
    assert_true(count_lines(err.message) <= 6);
}

static void test_config_overrides_are_typed_and_named(void **state)
{
    (void)state;
    Error err = {0};
    assert_ok(file_write_atomic("override.yaml", good, strlen(good), &err), &err);
    const char *overrides[] = {"train.lr=1e-3", "train.lr=1e-2", "train.num_steps=7",
                               "data.eval=[]", "name=other"};
    JobConfig *config = NULL;
    assert_ok(job_config_load("override.yaml", NULL, overrides, 5, &config, &err), &err);
    assert_true(config->train.lr == 1e-2);
    assert_int_equal(config->train.num_steps, 7);
    assert_int_equal(config->train.num_epochs, 0);
    assert_int_equal(config->data.eval.count, 0);
    assert_string_equal(config->name, "other");
    assert_true(str_ends_with(config->run_dir, "/runs/other"));
    job_config_destroy(config);
    refused_override("train.lr=fast", "--set train.lr=fast: train.lr is \"fast\"",
                     "number above 0");
    refused_override("trian.lr=1", "--set trian.lr=1", "Did you mean train.lr");
    refused_override("chekpoint.interval=1", "--set", "Did you mean checkpoint.interval");
    refused_override("train=1", "train is a section", "lr_schedule");
    refused_override("train.lr", "expected KEY=VALUE", "--set train.lr");
    refused_override("=1", "expected KEY=VALUE", "--set");
    refused_override("train.lr=[1", "--set train.lr=[1", "not a valid value");
    refused_override("data.accept_changed=yes", "data.accept_changed is \"yes\"",
                     "first 8 or more digits");
    refused_override("data.accept_changed=9f3c2b1", "data.accept_changed is \"9f3c2b1\"",
                     "fingerprint");
    refused_override("train.tp_size=0", "--set train.tp_size=0", "nearest valid value is 1");
}

/* What was found when a key's value was opened is said with the key's place, and with what the key
 * is for where nothing behind it says what to do. */
static void test_config_failures_of_a_key_are_located(void **state)
{
    static const struct {
        const char *message, *expected;
    } cases[] = {
        {"data.reader: cannot load the reader",
         "job.yaml:2: data.reader: cannot load the reader\n"
         "data.reader: a shared object of your own that reads data.train."},
        {"data.reader: no such file\nCorrect it.",
         "job.yaml:2: data.reader: no such file\nCorrect it."},
        {"data.reader: it failed\nlast: twice\nto do: mend it",
         "job.yaml:2: data.reader: it failed\nlast: twice\nto do: mend it"},
        {"the reader failed", "the reader failed"},
    };
    (void)state;
    JobConfig *config = NULL;
    Error err = {0};
    assert_ok(job_config_parse("model: {path: m}\ndata: {train: t, reader: r.so}\n", "job.yaml",
                               "/", &config, &err),
              &err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        error_set(&err, ERR_RESOURCE, "%s", cases[i].message);
        assert_int_equal(job_config_locate(config, &err), ERR_RESOURCE);
        assert_string_equal(err.message, cases[i].expected);
    }
    job_config_destroy(config);
}

static void assert_kwargs(const char *written, const char *expected)
{
    char *lines = mem_printf("data: {train: a, apply_chat_template_kwargs: %s}\n"
                             "model: {path: m}\n",
                             written);
    JobConfig *config = parse_job(lines);
    assert_string_equal(config->data.apply_chat_template_kwargs, expected);
    char *text = job_config_text(config);
    JobConfig *again = parse_job(text);
    assert_string_equal(again->data.apply_chat_template_kwargs, expected);
    job_config_destroy(config);
    job_config_destroy(again);
    free(text);
    free(lines);
}

static void test_config_objects_are_json_whichever_way_they_are_written(void **state)
{
    (void)state;
    assert_kwargs("{enable_thinking: false}", "{\"enable_thinking\": false}");
    assert_kwargs("{enable_thinking: False, effort: low}",
                  "{\"enable_thinking\": false, \"effort\": \"low\"}");
    assert_kwargs("'{\"enable_thinking\":false, \"n\": 1.0}'",
                  "{\"enable_thinking\": false, \"n\": 1.0}");
    assert_kwargs("{a: ~, b: \"true\", c: [1, 2.50, {d: -1e5}], \"e \\\"\": \"no\", f: é}",
                  "{\"a\": null, \"b\": \"true\", \"c\": [1, 2.50, {\"d\": -1e5}], "
                  "\"e \\\"\": \"no\", \"f\": \"é\"}");
    assert_kwargs("{a: 01, b: +2, c: .5, d: 3.}", "{\"a\": 1, \"b\": 2, \"c\": 0.5, \"d\": 3}");
    assert_kwargs("{a: \"x\\x7fy\\ty\"}", "{\"a\": \"x\x7fy\\u0009y\"}");
    assert_kwargs("{}", "{}");
}

static void test_config_changes_name_old_and_new_value(void **state)
{
    (void)state;
    JobConfig *before = parse_job("model: {path: /m}\ndata: {train: [/a]}\n"
                                  "train: {lr: 0.002, tp_size: 2}\n");
    JobConfig *after = parse_job("model: {path: /m}\ndata: {train: [/a, /b]}\n"
                                 "train:\n  lr: 1e-3\n  tp_size: 2\n");
    assert_null(job_config_changes(before, before));
    char *changes = job_config_changes(before, after);
    assert_string_equal(changes, "data.train: [/a] -> [/a, /b] (job.yaml:2)\n"
                                 "train.lr: 0.002 -> 0.001 (job.yaml:4)");
    free(changes);
    changes = job_config_changes(after, before);
    assert_non_null(strstr(changes, "train.lr: 0.001 -> 0.002 (job.yaml:3)"));
    free(changes);
    job_config_destroy(before);
    job_config_destroy(after);
}

static void test_config_text_reads_back_the_same(void **state)
{
    (void)state;
    JobConfig *config =
        parse_job("name: null\n"
                  "model: {path: \"/m $${x} \\\"q\\\"\\t#é\", chat_template: ~}\n"
                  "data: {train: [\"/a: b\", /c], input_key: \"null\", eval: /e}\n"
                  "train: {lr: 0.1234567890123456, adam_eps: 1e-300, num_steps: 12}\n"
                  "cluster: {agents: [\"ipc:///a\"], cpus: 2.5}\n");
    char *text = job_config_text(config);
    assert_non_null(strstr(text, "num_steps: 12  # job.yaml:4\n"));
    assert_non_null(strstr(text, "tp_size: 1  # default\n"));
    JobConfig *again = NULL;
    Error err = {0};
    assert_ok(job_config_parse(text, "again.yaml", "/tmp", &again, &err), &err);
    assert_string_equal(again->model.path, "/m ${x} \"q\"\t#é");
    assert_string_equal(again->data.train.item[0], "/a: b");
    assert_string_equal(again->data.input_key, "null");
    assert_string_equal(again->name, "job");
    assert_null(again->model.chat_template);
    assert_true(again->train.lr == config->train.lr);
    assert_true(again->train.adam_eps == 1e-300);
    assert_true(again->cluster.cpus == 2.5);
    assert_int_equal(again->train.num_epochs, 0);
    char *text2 = job_config_text(again);
    /* All but the comments is the same. */
    const char *a = strchr(text, '\n'), *b = strchr(text2, '\n');
    while (*a != '\0' && *b != '\0') {
        assert_int_equal(*a, *b);
        if (strncmp(a, "  # ", 4) == 0) {
            a = strchr(a, '\n');
            b = strchr(b, '\n');
        }
        a++;
        b++;
    }
    assert_int_equal(*a, *b);
    free(text);
    free(text2);
    job_config_destroy(config);
    job_config_destroy(again);
}

static void test_config_override_cannot_forge_lines(void **state)
{
    (void)state;
    Error err = {0};
    assert_ok(file_write_atomic("forge.yaml", good, strlen(good), &err), &err);
    const char *overrides[] = {"train.lr=1e-3\n\n# \nseed: 7"};
    JobConfig *config = NULL;
    assert_fails(job_config_load("forge.yaml", NULL, overrides, 1, &config, &err), ERR_INVALID,
                 &err, "--set");
    const char *comment[] = {"data.input_key=\"x\"\n# seed: 7\n"};
    assert_ok(job_config_load("forge.yaml", NULL, comment, 1, &config, &err), &err);
    char *text = job_config_text(config);
    assert_null(strstr(text, "\n# seed"));
    free(text);
    job_config_destroy(config);
}

static void test_config_reference_lists_every_key(void **state)
{
    (void)state;
    char *reference = job_config_reference(), *one = NULL;
    JobConfig *config = parse_job(good);
    char *text = job_config_text(config);
    int keys = 0;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char *colon = strstr(line, ": ");
        if (line[0] == '#' || colon == NULL) continue;
        char *row = mem_printf("| `%.*s` |", (int)(colon - line - (line[0] == ' ') * 2),
                               line + (line[0] == ' ') * 2);
        if (strstr(reference, row) == NULL) fail_msg("%s is not in the reference", row);
        free(row);
        keys++;
    }
    assert_true(keys > 50);
    Error err = {0};
    assert_ok(job_config_describe("train.lr", &one, &err), &err);
    assert_non_null(strstr(one, "above 0"));
    assert_non_null(strstr(one, "learning_rate"));
    free(one);
    assert_fails(job_config_describe("train.lrr", &one, &err), ERR_INVALID, &err, "train.lr ");
    free(text);
    free(reference);
    job_config_destroy(config);
}

static void test_config_documentation_is_current(void **state)
{
    (void)state;
    Error err = {0};
    char *reference = job_config_reference(), *written = NULL;
    assert_ok(file_read(PROJECT_SOURCE_DIR "/docs/job-yaml.md", 1 << 20, &written, NULL, &err),
              &err);
    if (strcmp(reference, written) != 0)
        fail_msg("docs/job-yaml.md is not what the key table says: run ninja -C build docs");
    free(reference);
    free(written);
}

static void write_text(const char *path, const char *text)
{
    Error err = {0};
    assert_ok(file_write_atomic(path, text, strlen(text), &err), &err);
}

static void check_fails(const char *yaml, Status expected, const char *part, const char *part2)
{
    char here[4096];
    JobConfig *config = NULL;
    Error err = {0};
    assert_non_null(getcwd(here, sizeof here));
    assert_ok(job_config_parse(yaml, "job.yaml", here, &config, &err), &err);
    assert_fails(job_config_check_files(config, &err), expected, &err, part);
    if (strstr(err.message, part2) == NULL) fail_msg("\"%s\" is not in: %s", part2, err.message);
    assert_true(count_lines(err.message) <= 6);
    job_config_destroy(config);
}

static void test_config_files_that_lack_are_named(void **state)
{
    (void)state;
    Error err = {0};
    assert_ok(folder_remove("files", &err), &err);
    assert_ok(folder_create("files/m", &err), &err);
    const char *job = "model: {path: files/m, init: random}\ndata: {train: files/train.jsonl}\n";
    check_fails(job, ERR_NOT_FOUND, "job.yaml: model.config (default)",
                "config.json does not exist");
    write_text("files/m/config.json", "{\"num_attention_heads\": 4, \"intermediate_size\": 96}");
    check_fails(job, ERR_NOT_FOUND, "holds no tokenizer.json", "model.tokenizer:");
    write_text("files/m/tokenizer.json", "{}");
    write_text("files/trian.jsonl", "{}\n");
    check_fails(job, ERR_NOT_FOUND, "job.yaml:2: data.train", "Did you mean");
    write_text("files/train.jsonl", "");
    check_fails(job, ERR_DATA, "job.yaml:2: data.train", "0 bytes");
    write_text("files/empty.jsonl", "");
    check_fails("model: {path: files/m, init: random}\n"
                "data: {train: [files/train.jsonl, 'files/em*.jsonl']}\n",
                ERR_DATA, "job.yaml:2: data.train", "0 bytes");
    write_text("files/train.jsonl", "{}\n");
    check_fails("model: {path: files/m}\ndata: {train: files/train.jsonl}\n", ERR_NOT_FOUND,
                "holds no weights", "init: random");
    write_text("files/m/model.safetensors.index.json",
               "{\"weight_map\": {\"a\": \"model-00001-of-00001.safetensors\"}}");
    check_fails("model: {path: files/m}\ndata: {train: files/train.jsonl}\n", ERR_NOT_FOUND,
                "model-00001-of-00001.safetensors", "incomplete");
    check_fails("model: {path: files/m, init: random}\ndata: {train: 'files/gone.jsonl@[0:3]'}\n",
                ERR_NOT_FOUND, "gone.jsonl does not exist", "data.train");
    check_fails("model: {path: files/m, init: random}\ndata: {train: 'files/x*'}\n", ERR_NOT_FOUND,
                "no file matches", "files/x*");
    check_fails("model: {path: files/m/config.json, init: random}\ndata: {train: a}\n", ERR_INVALID,
                "is a file", "model.path");
    check_fails("model: {path: files/m, init: random}\ntrain: {tp_size: 3}\n"
                "data: {train: 'files/t*.jsonl'}\n",
                ERR_INVALID, "num_attention_heads 4", "for example 2");
    check_fails("run_dir: files/train.jsonl\nmodel: {path: files/m, init: random}\n"
                "data: {train: 'files/t*.jsonl'}\n",
                ERR_EXISTS, "run_dir", "is a file");
    JobConfig *config = NULL;
    char here[4096];
    assert_non_null(getcwd(here, sizeof here));
    const char *whole = "model: {path: files/m, init: random}\n"
                        "data: {train: [files/empty.jsonl, 'files/*.jsonl']}\n"
                        "train: {tp_size: 2}\n";
    assert_ok(job_config_parse(whole, "job.yaml", here, &config, &err), &err);
    assert_ok(job_config_check_files(config, &err), &err);
    job_config_destroy(config);
}

static void test_config_job_file_itself_may_be_wrong(void **state)
{
    (void)state;
    JobConfig *config = NULL;
    Error err = {0};
    assert_fails(job_config_load("absent.yaml", NULL, NULL, 0, &config, &err), ERR_NOT_FOUND, &err,
                 "absent.yaml does not exist");
    assert_int_equal(status_exit_code(err.status), 2);
    assert_fails(job_config_load(".", NULL, NULL, 0, &config, &err), ERR_INVALID, &err,
                 "is a folder");
    write_text("bom.yaml", "\xef\xbb\xbfmodel: {path: m}\r\ndata:\r\n  train: a\r\n");
    assert_ok(job_config_load("bom.yaml", NULL, NULL, 0, &config, &err), &err);
    job_config_destroy(config);
}

/* ---- evaluation sets ---- */

static const char with_sets[] =
    "model: {path: m}\n"
    "data: {train: t.jsonl, eval: e.jsonl, label_key: target}\n"
    "rollout:\n"
    "  function: generate\n"
    "  reward: random\n"
    "  n_samples_per_prompt: 4\n"
    "  stop: end\n"
    "eval:\n"
    "  temperature: 0.7\n"
    "  n_samples_per_prompt: 2\n"
    "  sets:\n"
    "    gsm8k:\n"
    "      path: [g.jsonl, \"h*.jsonl\"]\n"
    "      temperature: 0\n"
    "      reward: {name: gsm8k, weight: 2}\n"
    "      label_key: answer\n"
    "    aime-24: {path: a.jsonl, n_samples_per_prompt: 16, stop: []}\n";

static void check_sets(const JobConfig *config, const char *folder)
{
    assert_int_equal(eval_set_count(config), 3);
    EvalSet plain = eval_set(config, 0), gsm8k = eval_set(config, 1), aime = eval_set(config, 2);
    assert_string_equal(plain.name, "eval");
    assert_string_equal(plain.key, "data.eval");
    assert_int_equal(plain.n_samples_per_prompt, 2);
    assert_string_equal(plain.reward, "\"random\"");
    assert_string_equal(gsm8k.name, "gsm8k");
    assert_string_equal(gsm8k.key, "eval.sets.gsm8k");
    char *path = mem_printf("%sh*.jsonl", folder);
    assert_string_equal(gsm8k.path->item[1], path);
    free(path);
    assert_true(gsm8k.temperature == 0);
    assert_int_equal(gsm8k.n_samples_per_prompt, 2);
    assert_string_equal(gsm8k.reward, "{\"name\": \"gsm8k\", \"weight\": 2}");
    assert_string_equal(gsm8k.record.label, "answer");
    assert_int_equal(gsm8k.stop->count, 1);
    assert_true(aime.temperature == 0.7);
    assert_int_equal(aime.n_samples_per_prompt, 16);
    assert_string_equal(aime.record.label, "target");
    assert_int_equal(aime.stop->count, 0);
    assert_int_equal(eval_set_samples_max(config), 16);
    assert_int_equal(eval_set_find(config, "aime-24"), 2);
    assert_int_equal(eval_set_find(config, "train"), -1);
}

/* What a set leaves out, the section says; and the effective configuration says the same. */
static void test_config_evaluation_sets_fall_back_on_their_section(void **state)
{
    (void)state;
    JobConfig *config = parse_job(with_sets);
    check_sets(config, "/");
    char *text = job_config_text(config);
    JobConfig *again = parse_job(text);
    check_sets(again, "/");
    assert_null(job_config_changes(config, again));
    job_config_destroy(again);
    free(text);
    job_config_destroy(config);
}

#define ROW_JOB "model: {path: m}\ndata: {sources: "

/* A weight that is other may stand far behind the beginning of what is written. */
static void test_config_changes_of_rows_are_told_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *before, *after, *changes;
    } cases[] = {
        {"{a: {path: a, weight: 1}, b: {path: b}}", "{a: {path: a, weight: 3}, b: {path: b}}",
         "data.sources.a.weight: 1 -> 3 (job.yaml:2)"},
        {"{a: {path: a}, b: {path: b}}", "{a: {path: a, weight: 2}, c: {path: b}}",
         "data.sources.a.weight: not said -> 2 (job.yaml:2)\n"
         "data.sources.c: not there -> added (job.yaml:2)\n"
         "data.sources.b: there -> removed (job.yaml:2)"},
        {"{a: {path: a}, b: {path: b}}", "{b: {path: b}, a: {path: a}}",
         "data.sources: in one order -> in another (job.yaml:2)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text[] = {mem_printf(ROW_JOB "%s}\n", cases[i].before),
                        mem_printf(ROW_JOB "%s}\n", cases[i].after)};
        JobConfig *before = parse_job(text[0]), *after = parse_job(text[1]);
        char *changes = job_config_changes(before, after);
        assert_string_equal(changes, cases[i].changes);
        free(changes);
        free(text[0]);
        free(text[1]);
        job_config_destroy(before);
        job_config_destroy(after);
    }
}

static void test_config_override_reaches_into_a_set(void **state)
{
    (void)state;
    Error err = {0};
    JobConfig *config = NULL;
    assert_ok(file_write_atomic("sets.yaml", with_sets, strlen(with_sets), &err), &err);
    const char *overrides[] = {"eval.sets.gsm8k.temperature=0.25",
                               "eval.sets.gsm8k.n_samples_per_prompt=8"};
    assert_ok(job_config_load("sets.yaml", NULL, overrides, 2, &config, &err), &err);
    assert_true(eval_set(config, 1).temperature == 0.25);
    assert_int_equal(eval_set(config, 1).n_samples_per_prompt, 8);
    job_config_destroy(config);
    const char *wrong[] = {"eval.sets.math.temperature=0.25"};
    assert_fails(job_config_load("sets.yaml", NULL, wrong, 1, &config, &err), ERR_INVALID, &err,
                 "Names there: gsm8k, aime-24");
    const char *typo[] = {"eval.sets.gsm8k.temprature=0.25"};
    assert_fails(job_config_load("sets.yaml", NULL, typo, 1, &config, &err), ERR_INVALID, &err,
                 "temprature=0.25: eval.sets.gsm8k.temprature is not a key of a job file.\n"
                 "Did you mean eval.sets.gsm8k.temperature (");
}

#define SETS(text)                                                                                 \
    "model: {path: m}\ndata: {train: t}\nrollout: {function: generate, reward: random, "           \
    "n_samples_per_prompt: 2}\neval:\n  sets:\n" text

static void test_config_mistakes_in_a_set_are_named_with_their_place(void **state)
{
    (void)state;
    REFUSED(SETS("    gsm8k:\n      path: g\n      temprature: 1\n"),
            "job.yaml:8:7: eval.sets.gsm8k.temprature is not a key",
            "Did you mean eval.sets.gsm8k.temperature");
    REFUSED(SETS("    gsm8k:\n      path: g\n      top_p: 2\n"),
            "job.yaml:8:14: eval.sets.gsm8k.top_p is 2", "nearest valid value is 1");
    REFUSED(SETS("    gsm8k: {temperature: 1}\n"), "job.yaml:6:5: eval.sets.gsm8k.path is missing");
    REFUSED(SETS("    train: {path: g}\n"), "eval.sets.train has a name that is taken");
    REFUSED(SETS("    a/b: {path: g}\n"), "the name \"a/b\"");
    REFUSED(SETS("    a: {path: g}\n    a: {path: h}\n"), "eval.sets.a is set twice", "line 6");
    REFUSED("model: {path: m}\ndata: {train: t}\neval: {sets: [g.jsonl]}\n",
            "eval.sets is a list of 1", "gsm8k: {path:");
    REFUSED("model: {path: m}\ndata: {train: t}\neval: {sets: {g: {path: g, top_k: 1}}}\n",
            "eval.sets.g.top_k has no effect with rollout.function: sft");
}

#define BEST(function, eval, keep)                                                                 \
    "model: {path: m}\ndata: {train: t, eval: e}\nrollout: {" function "}\neval: {" eval           \
    "}\ncheckpoint: {keep_best: " keep "}\n"
#define GENERATE "function: generate, reward: random, n_samples_per_prompt: 2"
#define GSM8K    "sets: {gsm8k: {path: g, n_samples_per_prompt: 4}}, "

static void assert_goal(const char *yaml, int set, EvalFigure figure, int k, BestMode mode)
{
    EvalGoal goal = {0};
    JobConfig *config = parse_job(yaml);
    assert_true(eval_goal(config, &goal));
    assert_int_equal(goal.set, set);
    assert_int_equal(goal.figure, figure);
    assert_int_equal(goal.k, k);
    assert_int_equal(config->eval.best_mode, mode);
    char *text = job_config_text(config);
    JobConfig *again = parse_job(text);
    assert_int_equal(again->eval.best_mode, mode);
    job_config_destroy(again);
    free(text);
    job_config_destroy(config);
}

static void test_config_best_metric_names_a_figure_of_a_set(void **state)
{
    (void)state;
    assert_goal(BEST("", "best_metric: eval/loss", "1"), 0, FIGURE_LOSS, 0, BEST_MIN);
    assert_goal(BEST(GENERATE, GSM8K "best_metric: gsm8k/reward", "2"), 1, FIGURE_REWARD, 0,
                BEST_MAX);
    assert_goal(BEST(GENERATE, GSM8K "best_metric: eval/gsm8k/pass@4", "2"), 1, FIGURE_PASS_AT, 4,
                BEST_MAX);
    assert_goal(BEST(GENERATE, "best_metric: eval/response_len/mean, best_mode: min", "1"), 0,
                FIGURE_RESPONSE_LENGTH, 0, BEST_MIN);
    REFUSED(BEST("", "interval: 1", "1"), "checkpoint.keep_best is 1", "best_metric: eval/loss");
    REFUSED(BEST("", "best_metric: eval/loss", "0"), "no effect without checkpoint.keep_best");
    REFUSED(BEST("", "best_metric: eval/reward", "1"), "names no figure",
            "loss, perplexity, token_accuracy.");
    REFUSED(BEST(GENERATE, GSM8K "best_metric: gsm8k/accurcy", "1"),
            "Did you mean gsm8k/accuracy?");
    REFUSED(BEST(GENERATE, GSM8K "best_metric: gsm8k/pass@8", "1"), "pass@k needs k answers",
            "Sets: eval, gsm8k.");
    REFUSED(BEST(GENERATE, "best_metric: math/reward", "1"), "\"math/reward\"");
    REFUSED(BEST(GENERATE, "best_metric: eval/response_len/mean", "1"), "best_mode: max");
    REFUSED("model: {path: m}\ndata: {train: t, eval: e}\neval: {best_mode: max}\n",
            "no effect without eval.best_metric");
}

#define ONLY(more)                                                                                 \
    "model: {path: m}\ndata: {train: t}\nrollout: {function: generate, reward: random, "           \
    "only: true" more "}\n"

static void test_config_run_without_training_needs_a_folder(void **state)
{
    (void)state;
    job_config_destroy(parse_job(ONLY(", save: s"))); /* one answer to a prompt: nobody compares */
    REFUSED(ONLY(""), "nothing says where the answers go", "save: answers");
    REFUSED(ONLY(", save: s, max_staleness: 1"), "rollout.max_staleness has no effect");
    REFUSED(ONLY(", save: s, load: l"), "rollout.load has no effect with rollout.only");
    REFUSED("model: {path: m}\ndata: {train: t}\nrollout: {only: true}\n",
            "no effect with rollout.function: sft");

    /* Any job can be looked at so: how it learns is passed over, and costs nothing. */
    JobConfig *config = parse_job(ONLY(", save: s") "algorithm: {kl_coef: 0.1}\n");
    assert_false(job_wants_reference(config) || config->train.memory_reference);
    job_config_destroy(config);
    config = parse_job(ONLY(", save: s") "algorithm: {advantage_estimator: ppo}\n");
    assert_false(job_wants_critic(config) || config->train.memory_critic);
    job_config_destroy(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_reads_values_and_fills_in_defaults),
        cmocka_unit_test(test_config_paths_start_at_their_folders),
        cmocka_unit_test(test_config_job_names_differ_as_their_files_do),
        cmocka_unit_test(test_config_takes_a_run_for_its_newest_checkpoint),
        cmocka_unit_test(test_config_expands_variables_in_paths_only),
        cmocka_unit_test(test_config_wrong_value_says_found_and_expected),
        cmocka_unit_test(test_config_missing_and_repeated_keys_are_refused),
        cmocka_unit_test(test_config_yaml_mistakes_are_explained),
        cmocka_unit_test(test_config_hostile_yaml_is_cheap),
        cmocka_unit_test(test_config_values_that_disagree_are_refused),
        cmocka_unit_test(test_config_overrides_are_typed_and_named),
        cmocka_unit_test(test_config_objects_are_json_whichever_way_they_are_written),
        cmocka_unit_test(test_config_changes_name_old_and_new_value),
        cmocka_unit_test(test_config_text_reads_back_the_same),
        cmocka_unit_test(test_config_override_cannot_forge_lines),
        cmocka_unit_test(test_config_reference_lists_every_key),
        cmocka_unit_test(test_config_evaluation_sets_fall_back_on_their_section),
        cmocka_unit_test(test_config_changes_of_rows_are_told_by_name),
        cmocka_unit_test(test_config_override_reaches_into_a_set),
        cmocka_unit_test(test_config_mistakes_in_a_set_are_named_with_their_place),
        cmocka_unit_test(test_config_best_metric_names_a_figure_of_a_set),
        cmocka_unit_test(test_config_run_without_training_needs_a_folder),
        cmocka_unit_test(test_config_documentation_is_current),
        cmocka_unit_test(test_config_failures_of_a_key_are_located),
        cmocka_unit_test(test_config_files_that_lack_are_named),
        cmocka_unit_test(test_config_job_file_itself_may_be_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
