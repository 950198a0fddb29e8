/* Tests of what a job says of rollout functions and tools: names that take a text, paths and
 * folders that programs have, and values that would change nothing. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "config/job.h"

#define JOB "model: {path: m}\ndata: {train: a.jsonl}\nrollout:\n  n_samples_per_prompt: 2\n"

static Status read_job(const char *rollout, JobConfig **ret, Error *err)
{
    char *yaml = mem_printf(JOB "%s", rollout);
    Status status = job_config_parse(yaml, "job.yaml", "/", ret, err);
    free(yaml);
    return status;
}

static JobConfig *parse(const char *rollout)
{
    JobConfig *config = NULL;
    Error err = {0};
    assert_ok(read_job(rollout, &config, &err), &err);
    return config;
}

static void refused(const char *rollout, const char *text)
{
    JobConfig *config = NULL;
    Error err = {0};
    assert_fails(read_job(rollout, &config, &err), ERR_INVALID, &err, text);
}

static void assert_function(const char *rollout, RolloutFunction function, const char *of)
{
    JobConfig *config = parse(rollout), *again = NULL;
    Error err = {0};
    char *text = job_config_text(config);
    assert_ok(job_config_parse(text, "again.yaml", "/tmp", &again, &err), &err);
    for (int i = 0; i < 2; i++) {
        const JobConfig *one = i == 0 ? config : again; /* and as a worker gets it */
        assert_int_equal(one->rollout.function, function);
        if (of == NULL)
            assert_null(one->rollout.function_of);
        else
            assert_string_equal(one->rollout.function_of, of);
        assert_string_equal(one->rollout.working_dir, "/");
    }
    free(text);
    job_config_destroy(again);
    job_config_destroy(config);
}

static void test_a_function_may_take_a_text(void **state)
{
    (void)state;
    assert_function("  function: generate\n  reward: math\n", ROLLOUT_GENERATE, NULL);
    assert_function("  function: process:python3 my.py --x='a b'\n", ROLLOUT_PROCESS,
                    "python3 my.py --x='a b'");
    assert_function("  function: \"process:./a: b # \\\"c\\\"\"\n", ROLLOUT_PROCESS,
                    "./a: b # \"c\"");
    assert_function("  function: plugin:a/b.so\n", ROLLOUT_PLUGIN, "/a/b.so");
    assert_function("  function: plugin:/c/b.so\n", ROLLOUT_PLUGIN, "/c/b.so");
}

static void test_a_function_without_its_text_is_refused(void **state)
{
    (void)state;
    refused("  function: process\n", "Did you mean process:...?");
    refused("  function: \"process:\"\n", "Did you mean process:...?");
    refused("  function: plugn:a.so\n", "Did you mean plugin:...?");
    refused("  function: generat\n", "Did you mean generate?");
    refused("  function: process: python3 a.py\n", "job.yaml:5");
}

static void test_only_a_function_of_ones_own_may_judge_itself(void **state)
{
    (void)state;
    refused("  function: generate\n", "does not say what an answer is worth");
    job_config_destroy(parse("  function: process:a\n"));
    job_config_destroy(parse("  function: plugin:a.so\n"));
}

static void test_what_would_change_nothing_is_refused(void **state)
{
    (void)state;
#define GENERATE "  function: generate\n  reward: math\n"
    refused(GENERATE "  max_turns: 3\n", "rollout.max_turns has no effect without rollout.tools");
    refused(GENERATE "  tool_format: glm\n", "has no effect without rollout.tools");
    refused(GENERATE "  function_processes: 2\n", "unless rollout.function is process:COMMAND");
    refused(GENERATE "  function_options: {a: 1}\n", "has no effect with rollout.function: gen");
    refused("  function: plugin:a.so\n  function_in_flight: 3\n", "there is no such program");
    refused(GENERATE "  function_timeout_s: 3\n", "has no effect with rollout.function: generate");
    job_config_destroy(parse("  function: plugin:a.so\n  function_timeout_s: 3\n"));
    refused("  function: process:a\n  tools: [{name: a, command: b}]\n",
            "has no effect with a rollout function of your own");
    JobConfig *config = parse(GENERATE "  tools: [{name: a, command: b}]\n  max_turns: 3\n");
    assert_string_equal(config->rollout.tools, "[{\"name\": \"a\", \"command\": \"b\"}]");
    assert_int_equal(config->rollout.max_turns, 3);
    job_config_destroy(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_function_may_take_a_text),
        cmocka_unit_test(test_a_function_without_its_text_is_refused),
        cmocka_unit_test(test_only_a_function_of_ones_own_may_judge_itself),
        cmocka_unit_test(test_what_would_change_nothing_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
