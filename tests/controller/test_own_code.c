#include "test.h"

#include "core/own_code.h"

static void assert_described(const JobConfig *config, const char *expected)
{
    char text[128] = "before";
    own_code_describe(config, text, sizeof text);
    assert_string_equal(text, expected);
}

/* Who reads that a worker was killed by a signal is told whose code runs in it. */
static void test_own_code_names_the_plugin_of_a_job(void **state)
{
    (void)state;
    JobConfig config = {.rollout = {.function = ROLLOUT_GENERATE, .reward = "\"gsm8k\""}};
    assert_described(&config, "");
    config.rollout.reward = "{\"name\": \"plugin\", \"options\": {\"path\": \"./seg.so\"}}";
    assert_described(&config, "rollout.reward (plugin ./seg.so)");
    config.rollout.reward =
        "[\"gsm8k\", {\"name\": \"plugin\", \"options\": {\"path\": \"b.so\"}}]";
    assert_described(&config, "rollout.reward (plugin b.so)");
    config.rollout.function = ROLLOUT_PLUGIN;
    config.rollout.function_of = "recheck.so";
    assert_described(&config, "rollout.function (plugin recheck.so)");
}

static void test_own_code_is_suspect_of_what_ours_never_does(void **state)
{
    (void)state;
    assert_true(own_code_is_suspect("killed by signal 11 (SIGSEGV)", NULL));
    assert_true(own_code_is_suspect("killed by signal 6 (SIGABRT)", ""));
    assert_true(own_code_is_suspect("exited with code 0", NULL));
    assert_true(own_code_is_suspect("exited with code 3", "exit() was called in next_batch"));
    assert_false(own_code_is_suspect("killed by signal 9 (SIGKILL)", ""));
    assert_false(own_code_is_suspect("exited with code 3", "no memory"));
    assert_true(own_code_is_at("next_batch of the reader csv (/lib/csv.so) of data.train"));
    assert_false(own_code_is_at("indexing the files of data.train"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_code_names_the_plugin_of_a_job),
        cmocka_unit_test(test_own_code_is_suspect_of_what_ours_never_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
