/* What a run folder says of what its run began with: checkpoints, and tokens of a micro-batch. */
#include "test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "config/cache_pins.h"
#include "config/job.h"
#include "config/model_pins.h"

static void touch(const char *path)
{
    Error err = {0};
    char *folder = path_folder(path);
    assert_ok(folder_create(folder, &err), &err);
    assert_ok(file_write_atomic(path, "x\n", 2, &err), &err);
    free(folder);
}

static void write_pins(const char *text)
{
    Error err = {0};
    assert_ok(file_write_atomic("pinned/models.json", text, strlen(text), &err), &err);
}

/* Not the newest one in its place: the run would be another. */
static void test_model_pins_run_that_cannot_say_what_it_began_with_is_refused(void **state)
{
    (void)state;
    static const char job[] = "run_dir: ./pinned\nmodel: {path: ./a_run}\ndata: {train: a}\n";
    static const char *const broken[][2] = {{"{\"./a_run\": \"step", "models.json"},
                                            {"", "models.json"},
                                            {"[]", "found a list, expected an object"},
                                            {"{\"./a_run\": 3}", "./a_run is a number"}};
    JobConfig *config = NULL;
    Error err = {0};
    assert_ok(folder_create("pinned", &err), &err);
    for (int i = 0; i < 4; i++) {
        write_pins(broken[i][0]);
        assert_int_not_equal(job_config_parse(job, "job.yaml", ".", &config, &err), OK);
        if (strstr(err.message, broken[i][1]) == NULL ||
            strstr(err.message, "pinned/models.json says with which") == NULL)
            fail_msg("%s: %s", broken[i][0], err.message);
    }
    assert_int_equal(unlink("pinned/models.json"), 0);
    assert_ok(folder_create("pinned/models.json", &err), &err); /* there, and unreadable */
    assert_int_not_equal(job_config_parse(job, "job.yaml", ".", &config, &err), OK);
    assert_non_null(strstr(err.message, "pinned/models.json"));
    assert_ok(folder_remove("pinned/models.json", &err), &err);
    touch("a_run/checkpoints/step_00000009/config.json");
    touch("a_run/checkpoints/step_00000009/manifest.json");
    assert_ok(job_config_parse(job, "job.yaml", ".", &config, &err), &err);
    assert_false(model_pins_are_lost(config)); /* nothing was begun yet */
    touch("pinned/checkpoints/step_00000002/config.json");
    touch("pinned/checkpoints/step_00000002/manifest.json");
    assert_true(model_pins_are_lost(config));
    write_pins("{}");
    assert_false(model_pins_are_lost(config));
    job_config_destroy(config);
    assert_ok(folder_remove("a_run", &err), &err);
    assert_ok(folder_remove("pinned", &err), &err);
}

/* The run would go on with others, to other bits. */
static void test_tokens_that_cannot_be_read_are_not_decided_anew(void **state)
{
    (void)state;
    static const char job[] = "run_dir: ./pinned\nmodel: {path: m}\ndata: {train: a}\n";
    static const char torn[] = "{\"micro-batches: samp";
    JobConfig *config = NULL;
    Error err = {0};
    char *kept = NULL;
    size_t length = 0;
    assert_ok(folder_create("pinned", &err), &err);
    assert_ok(job_config_parse(job, "job.yaml", ".", &config, &err), &err);
    JobStages stages = {&config, 1};
    config->tokens_decided = true;
    assert_ok(file_write_atomic("pinned/memory.json", torn, strlen(torn), &err), &err);
    assert_fails(cache_pins_keep(&stages, "pinned", &err), ERR_DATA, &err,
                 "pinned/memory.json says how many tokens");
    assert_ok(file_read("pinned/memory.json", 1000, &kept, &length, &err), &err);
    assert_string_equal(kept, torn);
    free(kept);
    config->tokens_decided = false; /* nothing else depends on it */
    assert_ok(cache_pins_keep(&stages, "pinned", &err), &err);
    config->tokens_decided = true;
    assert_int_equal(unlink("pinned/memory.json"), 0);
    assert_ok(cache_pins_keep(&stages, "pinned", &err), &err);
    assert_int_equal(cache_pins_tokens(config), config->train.max_tokens_per_gpu);
    job_config_destroy(config);
    assert_ok(folder_remove("pinned", &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_pins_run_that_cannot_say_what_it_began_with_is_refused),
        cmocka_unit_test(test_tokens_that_cannot_be_read_are_not_decided_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
