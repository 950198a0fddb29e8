/* Tests of the reward `code`: programs that a sandbox runs against the tests of their record, and
 * what becomes of those that the machine does not let run. Where it cannot isolate they are
 * skipped, as those of test_sandbox.c. */
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/memory.h"
#include "rollout_worker/reward/reward_set.h"
#include "rollout_worker/reward/sandbox.h"
#include "sandbox_stage.h"

static bool isolates; /* this machine lets us */

static RewardResult score(RewardSet *set, const char *response, const char *metadata)
{
    Error err = {0};
    cJSON *json = NULL;
    assert_ok(json_parse(metadata, strlen(metadata), "metadata", &json, &err), &err);
    RewardRequest request = {.response = slice_from(response), .metadata = json};
    RewardResult result;
    reward_set_score(set, &request, 1, &result);
    cJSON_Delete(json);
    return result;
}

static RewardSet *open_code(const char *spec)
{
    Error err = {0};
    cJSON *json = NULL;
    RewardSet *set = NULL;
    assert_ok(json_parse(spec, strlen(spec), "spec", &json, &err), &err);
    Status status = reward_set_open(json, &set, &err);
    cJSON_Delete(json);
    if (isolates) {
        assert_ok(status, &err);
        return set;
    }
    assert_refused(status, &err);
    print_message("          SKIP, refused as it must be: the reward does not open\n");
    return NULL;
}

#define SHELL                                                                                      \
    "{\"name\": \"code\", \"options\": {\"interpreter\": [\"sh\"], \"language\": \"sh\", "         \
    "\"file\": "                                                                                   \
    "\"main.sh\", \"cpu_ms\": 500%s}}"

static void assert_judged(RewardSet *set, const char *response, const char *metadata,
                          RewardOutcome outcome, double expected, const char *reason)
{
    RewardResult result = score(set, response, metadata);
    if (result.outcome != outcome || result.score != expected ||
        strstr(result.reason, reason) == NULL)
        fail_msg("%s: %s %g %s", response, reward_outcome_name(result.outcome), result.score,
                 result.reason);
    reward_result_clear(&result);
}

static void test_code_compares_outputs(void **state)
{
    (void)state;
    char spec[300];
    snprintf(spec, sizeof spec, SHELL, "");
    RewardSet *set = open_code(spec);
    if (set == NULL) skip();
    const char *twice =
        "{\"tests\": [{\"input\": \"3\\n\", \"output\": \"6\"}, {\"input\": \"5\\n\", "
        "\"output\": \"10\\n\\n\"}]}";
    assert_judged(set, "So:\n```sh\nread n; echo $((2*n)) \n```\nDone.", twice, REWARD_OK, 1, "");
    assert_judged(set, "```\nread n; echo $((2*n))", twice, REWARD_OK, 1, "");
    assert_judged(set, "```sh\necho 6\n```", twice, REWARD_WRONG, 0, "case 2 of 2: another output");
    assert_judged(set, "```sh\nread n; echo 6; exit 3\n```", twice, REWARD_WRONG, 0,
                  "exit status 3");
    assert_judged(set, "```sh\nwhile :; do :; done\n```", twice, REWARD_WRONG, 0, "cpu_limit");
    assert_judged(set, "```python\nread n\n```", twice, REWARD_WRONG, 0, "no code block");
    assert_judged(set, "read n; echo $((2*n))", twice, REWARD_WRONG, 0, "no code block");
    assert_judged(set, "```sh\ncat\n```", "{\"inputs\": [\"a\"], \"outputs\": [\"a\"]}", REWARD_OK,
                  1, "");
    assert_judged(set, "```sh\ncat\n```", "{}", REWARD_INFRA_ERROR, 0, "has no tests");
    assert_judged(set, "```sh\ncat\n```", "{\"tests\": \"assert 1\"}", REWARD_INFRA_ERROR, 0,
                  "has no tests");
    reward_set_close(set);
    snprintf(spec, sizeof spec, SHELL, ", \"score\": \"share\"");
    set = open_code(spec);
    assert_judged(set, "```sh\necho 6\n```", twice, REWARD_WRONG, 0.5, "case 2 of 2");
    reward_set_close(set);
}

static void test_code_does_not_judge_what_the_machine_did(void **state)
{
    (void)state;
    char spec[300];
    Crowd crowd;
    const char *test = "{\"tests\": [{\"input\": \"\", \"output\": \"6\"}]}";
    snprintf(spec, sizeof spec, SHELL, ", \"wall_ms\": 20000");
    RewardSet *set = open_code(spec);
    if (set == NULL) skip();
    assert_judged(set, "```sh\nkill -9 $$; echo 6\n```", test, REWARD_WRONG, 0, "signal 9");
    assert_judged(set, "```sh\nulimit -t 1; while :; do :; done\n```", test, REWARD_WRONG, 0, "");
    assert_judged(set, "```sh\nkill -11 $$; echo 6\n```", test, REWARD_WRONG, 0, "signal 11");
    reward_set_close(set);
    set = open_code("{\"name\": \"code\", \"options\": {\"interpreter\": [\"sh\"], "
                    "\"language\": \"sh\", \"file\": \"main.sh\", \"wall_ms\": 3000}}");
    crowd_start(&crowd);
    RewardResult busy = score(set, "```sh\nwhile :; do :; done\n```", test);
    crowd_end(&crowd);
    if (busy.outcome != REWARD_TIMEOUT) fail_msg("%s", busy.reason);
    assert_non_null(strstr(busy.reason, "this machine is too busy"));
    reward_result_clear(&busy);
    reward_set_close(set);
}

/* In a process that stands beside a helper of its own (OutOfMemory). The answers take a while, so
 * that a busy machine counts a kill meanwhile. */
static int judge_out_of_memory(void)
{
    const char *test = "{\"tests\": [{\"input\": \"\", \"output\": \"6\"}]}";
    char spec[300];
    snprintf(spec, sizeof spec, SHELL, "");
    isolates = true;
    RewardSet *set = open_code(spec);
    assert_judged(set, "```sh\nsleep 1; kill -9 $$\n```", test, REWARD_INFRA_ERROR, 0,
                  "was killed");
    assert_judged(set, "```sh\nsleep 1; echo 7\n```", test, REWARD_INFRA_ERROR, 0, "out of memory");
    assert_judged(set, "```sh\nsleep 1; echo 6\n```", test, REWARD_INFRA_ERROR, 0, "out of memory");
    assert_judged(set, "```sh\nwhile :; do :; done\n```", test, REWARD_WRONG, 0, "cpu_limit");
    reward_set_close(set);
    return 0;
}

/* Whether it passed or failed: else what is judged while memory is short would be too good. */
static void test_code_judges_nothing_while_the_kernel_kills_for_memory(void **state)
{
    (void)state;
    OutOfMemory machine;
    if (!isolates) skip();
    out_of_memory_start(&machine);
    char *command = mem_printf("cp /proc/%d/exe %s/bin/test_code && exec %s/bin/test_code judge",
                               (int)getpid(), machine.folder, machine.folder);
    int failed = system(command);
    free(command);
    out_of_memory_end(&machine);
    assert_int_equal(failed, 0);
}

static void *end_soon(void *flag)
{
    usleep(100000);
    atomic_store((atomic_bool *)flag, true);
    return NULL;
}

static void test_code_that_nobody_wants_is_not_waited_for(void **state)
{
    (void)state;
    char spec[300];
    snprintf(spec, sizeof spec, SHELL, ", \"wall_ms\": 600000, \"concurrent\": 1");
    RewardSet *set = open_code(spec);
    if (set == NULL) skip();
    atomic_bool ended = false;
    const Wanted wanted = {.ended = &ended};
    cJSON *metadata = cJSON_Parse("{\"tests\": [{\"input\": \"\", \"output\": \"6\"}]}");
    RewardRequest request = {
        .response = slice_from("```sh\nsleep 1000\n```"), .metadata = metadata, .wanted = &wanted};
    RewardResult result;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, end_soon, &ended), 0);
    reward_set_score(set, &request, 1, &result);
    pthread_join(thread, NULL);
    assert_int_equal(result.outcome, REWARD_INFRA_ERROR);
    assert_non_null(strstr(result.reason, "nobody wants these samples any more"));
    reward_result_clear(&result);
    cJSON_Delete(metadata);
    reward_set_close(set);
}

static void test_code_runs_python_tests(void **state)
{
    (void)state;
    if (access("/usr/bin/python3", X_OK) != 0) {
        print_message("          SKIP: there is no /usr/bin/python3\n");
        skip();
    }
    RewardSet *set = open_code("\"code\"");
    if (set == NULL) skip();
    const char *tests = "{\"tests\": \"assert twice(2) == 4\\nassert twice('a') == 'aa'\"}";
    assert_judged(set, "```python\ndef twice(x):\n    return 2 * x\n```", tests, REWARD_OK, 1, "");
    assert_judged(set, "```python\ndef twice(x):\n    return 4\n```", tests, REWARD_WRONG, 0,
                  "AssertionError");
    assert_judged(set, "```python\nimport os\nos._exit(0)\n```", tests, REWARD_WRONG, 0,
                  "ended before the tests did");
    assert_judged(set, "```python\nraise SystemExit\n```", tests, REWARD_WRONG, 0,
                  "ended before the tests did");
    assert_judged(set, "```python\ndef twice(x) return\n```", tests, REWARD_WRONG, 0,
                  "SyntaxError");
    assert_judged(set, "```py\ndef twice(x): return x\n```",
                  "{\"tests\": \"def check(f):\\n  assert f(3) == 3\", \"entry_point\": \"twice\"}",
                  REWARD_OK, 1, "");
    assert_judged(set, "```py\n```", "{\"tests\": \"\", \"entry_point\": \"a); evil(\"}",
                  REWARD_INFRA_ERROR, 0, "entry_point is no name");
    reward_set_close(set);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "judge") == 0) return judge_out_of_memory();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_code_compares_outputs),
        cmocka_unit_test(test_code_does_not_judge_what_the_machine_did),
        cmocka_unit_test(test_code_judges_nothing_while_the_kernel_kills_for_memory),
        cmocka_unit_test(test_code_that_nobody_wants_is_not_waited_for),
        cmocka_unit_test(test_code_runs_python_tests),
    };
    static const char *const command[] = {"true", NULL};
    const SandboxRun run = {.command = command, .limits = sandbox_limits_default};
    SandboxResult result = {0};
    Error err = {0};
    isolates = sandbox_run(&run, &result, &err) == OK;
    sandbox_result_clear(&result);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed == 0 && !isolates ? 77 : failed;
}
