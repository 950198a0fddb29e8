/* Tests of what a job says of rollout functions and tools: names that take a text, paths and
 * folders that programs have, and values that would change nothing. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "config/eval_set.h"

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

#define LOSS "algorithm: {eps_clip: 0.3}\n"

/* Answers of another run are old as soon as this one learns otherwise: then ratios move. */
static void test_saved_answers_may_be_learnt_from_otherwise(void **state)
{
    (void)state;
    refused("  function: generate\n  reward: math\n" LOSS, "every ratio is exactly 1");
    job_config_destroy(parse("  function: generate\n  reward: math\n  load: answers\n" LOSS));
    job_config_destroy(parse("  function: generate\n  reward: math\n  load: answers\n"
                             "algorithm: {policy_loss: gspo}\n"));
    job_config_destroy(parse("  function: generate\n  reward: math\n  load: answers\n"
                             "algorithm: {old_log_probs: current, correction: tis}\n"));
    refused("  function: generate\n  reward: math\n  load: answers\n"
            "algorithm: {old_log_probs: current, eps_clip: 0.3}\n",
            "every ratio is exactly 1");
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
    refused("  function: \"process:\"\n", "right behind the colon, without a blank: function: pr");
    refused("  function:\n    process: python3 a.py\n", "rollout.function is \"process:\", exp");
    refused("  function: {plugin: a.so}\n", "without a blank: function: plugin:...");
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

/* ---- sampling ---- */

static const char sampling_keys[] =
    GENERATE "  repetition_penalty: 1.25\n  frequency_penalty: -0.5\n  presence_penalty: 0.75\n"
             "  stop_token_ids: [3, 5]\n  min_new_tokens: 4\n  ignore_eos: true\n"
             "eval:\n  frequency_penalty: 1\n  min_new_tokens: 2\n  sets:\n"
             "    all: {path: a, repetition_penalty: 2, presence_penalty: -1, stop_token_ids: 7,\n"
             "          min_new_tokens: 0, ignore_eos: false}\n"
             "    none: {path: b}\n";

static void check_sampling(const JobConfig *config)
{
    EvalSet all = eval_set(config, 0), none = eval_set(config, 1);
    assert_true(config->rollout.penalty.repetition == 1.25);
    assert_true(config->rollout.penalty.frequency == -0.5);
    assert_true(config->rollout.penalty.presence == 0.75);
    assert_int_equal(config->rollout.stop_token_ids.count, 2);
    assert_int_equal(config->rollout.stop_token_ids.item[1], 5);
    assert_int_equal(config->rollout.min_new_tokens, 4);
    assert_true(config->rollout.ignore_eos);
    assert_true(all.penalty.repetition == 2 && all.penalty.presence == -1);
    assert_true(all.penalty.frequency == 1); /* of the section */
    assert_int_equal(all.stop_token_ids->count, 1);
    assert_int_equal(all.stop_token_ids->item[0], 7);
    assert_true(all.min_new_tokens == 0 && !all.ignore_eos);
    /* Penalties of training are not those of evaluation; what ends an answer is. */
    assert_true(none.penalty.repetition == 1 && none.penalty.presence == 0);
    assert_int_equal(none.stop_token_ids->count, 2);
    assert_true(none.min_new_tokens == 2 && none.ignore_eos);
}

static void test_all_of_sampling_can_be_said_for_training_and_each_set(void **state)
{
    (void)state;
    Error err = {0};
    JobConfig *config = parse(sampling_keys), *again = NULL;
    check_sampling(config);
    char *text = job_config_text(config);
    assert_ok(job_config_parse(text, "again.yaml", "/", &again, &err), &err);
    check_sampling(again);
    assert_null(job_config_changes(config, again));
    free(text);
    job_config_destroy(again);
    job_config_destroy(config);
}

static void test_sampling_out_of_range_is_refused_by_name(void **state)
{
    (void)state;
    refused(GENERATE "  repetition_penalty: 0\n",
            "rollout.repetition_penalty is 0, expected a number above 0 and at most 10");
    refused(GENERATE "  frequency_penalty: 2.5\n", "The nearest valid value is 2");
    refused(GENERATE "  presence_penalty: -3\n", "The nearest valid value is -2");
    refused(
        GENERATE "  stop_token_ids: [1, -1]\n",
        "rollout.stop_token_ids is -1, expected a whole number from 0 to 2147483647, or a list");
    refused(GENERATE "  stop_token_ids: [\"</s>\"]\n", "rollout.stop_token_ids is \"</s>\"");
    refused(GENERATE "  ignore_eos: 3\n", "expected true or false");
    refused(GENERATE "  max_response_length: 8\n  min_new_tokens: 9\n",
            "rollout.min_new_tokens is 9, more than the 8 tokens");
    refused(GENERATE "eval: {sets: {a: {path: a, max_response_length: 4, min_new_tokens: 5}}}\n",
            "eval.sets.a.min_new_tokens is 5, more than the 4 tokens");
    JobConfig *config = NULL;
    Error err = {0};
    assert_fails(
        job_config_parse("model: {path: m}\ndata: {train: t}\nrollout: {ignore_eos: true}\n",
                         "job.yaml", "/", &config, &err),
        ERR_INVALID, &err, "rollout.ignore_eos has no effect with rollout.function: sft");
}

static void assert_bias(const char *rollout, const char *expected)
{
    JobConfig *config = parse(rollout);
    char *keys = job_sampling_bias(config);
    if (expected == NULL)
        assert_null(keys);
    else
        assert_string_equal(keys, expected);
    free(keys);
    job_config_destroy(config);
}

static void test_what_biases_the_gradient_is_named(void **state)
{
    (void)state;
    assert_bias(GENERATE, NULL);
    assert_bias(GENERATE "  temperature: 0.7\n  stop: [a]\n  stop_token_ids: 3\n"
                         "  ignore_eos: true\neval: {top_p: 0.5, repetition_penalty: 2}\n",
                NULL);
    assert_bias(GENERATE "  top_p: 0.9\n  top_k: 20\n", "rollout.top_p 0.9, rollout.top_k 20");
    assert_bias(GENERATE "  min_p: 0.1\n  repetition_penalty: 1.1\n",
                "rollout.min_p 0.1, rollout.repetition_penalty 1.1");
    assert_bias(GENERATE "  frequency_penalty: 1\n  presence_penalty: -1\n  min_new_tokens: 2\n",
                "rollout.frequency_penalty 1, rollout.presence_penalty -1, "
                "rollout.min_new_tokens 2");
    assert_bias(GENERATE "  top_p: 0.9\n  only: true\n  save: answers\n", NULL);
}

/* The place is that of the key that says how many. */
static void test_one_answer_to_a_prompt_is_refused_where_it_stands(void **state)
{
    (void)state;
    static const char *const job = "model: {path: m}\ndata: {train: a.jsonl}\nrollout:\n"
                                   "  function: generate\n  reward: math\n"
                                   "  n_samples_per_prompt: 1\n";
    JobConfig *config = NULL;
    Error err = {0};
    Status status = job_config_parse(job, "job.yaml", "/", &config, &err);
    assert_fails(status, ERR_INVALID, &err, "job.yaml:6: algorithm.advantage_estimator compares");
    assert_non_null(strstr(err.message, "for example rollout.n_samples_per_prompt: 8"));
}

/* A method that is the value of one key elsewhere and several keys here. */
static void test_methods_by_other_names_are_known(void **state)
{
    (void)state;
    static const struct {
        const char *line, *advice;
    } cases[] = {
        {"advantage_estimator: gspo", "write algorithm.policy_loss: gspo"},
        {"advantage_estimator: CISPO", "write algorithm.policy_loss: cispo"},
        {"advantage_estimator: dr_grpo", "grpo with std_normalization: false"},
        {"advantage_estimator: drgrpo", "grpo with std_normalization: false"},
        {"advantage_estimator: dapo", "dynamic_filter: zero_variance"},
        {"advantage_estimator: gae", "Write ppo"},
        {"advantage_estimator: reinforce++", "Write reinforce_plus_plus."},
        {"advantage_estimator: reinforce++-baseline", "Write reinforce_plus_plus_baseline."},
        {"advantage_estimator: grop", "Did you mean grpo?"},
        {"policy_loss: ppo", "Write clip: "},
        {"policy_loss: tis", "write algorithm.correction"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *rest = mem_printf(GENERATE "algorithm:\n  %s\n", cases[i].line);
        refused(rest, cases[i].advice);
        free(rest);
    }
}

static void test_keys_and_functions_by_other_names_are_known(void **state)
{
    (void)state;
    refused(GENERATE "algorithm:\n  type: grpo\n", "Write algorithm.advantage_estimator");
    static const struct {
        const char *name, *advice;
    } functions[] = {
        {"rl", "Reinforcement learning is function: generate, with a reward"},
        {"grpo", "algorithm.advantage_estimator says grpo"},
        {"supervised", "Supervised training is function: sft."},
        {"python", "function: process:COMMAND"},
        {"genrate", "Did you mean generate?"},
    };
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        char *rollout = mem_printf("  function: %s\n", functions[i].name);
        refused(rollout, functions[i].advice);
        free(rollout);
    }
}

/* A limit that is never met; the default is nobody's choice. */
static void test_an_answer_as_long_as_everything_is_refused(void **state)
{
    (void)state;
    static const char *const message =
        "rollout.max_response_length is 400, but prompt and answer together have at most 128 "
        "tokens (data.max_length)";
    JobConfig *config = NULL;
    Error err = {0};
    const char *job = "model: {path: m}\ndata: {train: a.jsonl, max_length: 128}\nrollout:\n"
                      "  function: generate\n  reward: math\n  n_samples_per_prompt: 4\n"
                      "  max_response_length: 400\n";
    Status status = job_config_parse(job, "job.yaml", "/", &config, &err);
    assert_fails(status, ERR_INVALID, &err, "job.yaml:7: ");
    assert_non_null(strstr(err.message, message));
    job = "model: {path: m}\ndata: {train: a.jsonl, max_length: 128}\nrollout:\n"
          "  function: generate\n  reward: math\n  n_samples_per_prompt: 4\n";
    assert_ok(job_config_parse(job, "job.yaml", "/", &config, &err), &err);
    job_config_destroy(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_function_may_take_a_text),
        cmocka_unit_test(test_saved_answers_may_be_learnt_from_otherwise),
        cmocka_unit_test(test_a_function_without_its_text_is_refused),
        cmocka_unit_test(test_only_a_function_of_ones_own_may_judge_itself),
        cmocka_unit_test(test_what_would_change_nothing_is_refused),
        cmocka_unit_test(test_all_of_sampling_can_be_said_for_training_and_each_set),
        cmocka_unit_test(test_sampling_out_of_range_is_refused_by_name),
        cmocka_unit_test(test_what_biases_the_gradient_is_named),
        cmocka_unit_test(test_one_answer_to_a_prompt_is_refused_where_it_stands),
        cmocka_unit_test(test_methods_by_other_names_are_known),
        cmocka_unit_test(test_keys_and_functions_by_other_names_are_known),
        cmocka_unit_test(test_an_answer_as_long_as_everything_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
