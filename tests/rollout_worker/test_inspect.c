/* Tests of rollout_worker/inspect: what people are shown of a record and of the first records. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "dataset/shuffle.h"
#include "rollout_worker/inspect_view.h"

#define TINY PROJECT_SOURCE_DIR "/deploy/examples/tiny/model"
#define CHAT(question, answer)                                                                     \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"" question "\"}, "                        \
    "{\"role\": \"assistant\", \"content\": \"" answer "\"}]}\n"

/* A job over a data set of this text. */
typedef struct Bench {
    JobConfig *config;
    InspectOptions options;
    Inspection *inspection;
} Bench;

static Bench open_bench(const char *text, const char *data_keys, InspectOptions options)
{
    Bench bench = {.options = options};
    Error err = {0};
    assert_ok(file_write_atomic("data.jsonl", text, strlen(text), &err), &err);
    char *yaml = mem_printf("run_dir: run\nmodel: {path: %s, init: random}\n"
                            "data: {train: data.jsonl, eval: data.jsonl%s}\n",
                            TINY, data_keys);
    assert_ok(job_config_parse(yaml, "job.yaml", ".", &bench.config, &err), &err);
    free(yaml);
    bench.options.config = bench.config;
    assert_ok(inspection_open(&bench.options, &bench.inspection, &err), &err);
    return bench;
}

static void close_bench(Bench *bench)
{
    inspection_close(bench->inspection);
    job_config_destroy(bench->config);
}

static char *view_record(const char *text, const char *data_keys, InspectOptions options,
                         bool color)
{
    Bench bench = open_bench(text, data_keys, options);
    Error err = {0};
    InspectedRecord record = {0};
    Str out = {0};
    assert_ok(inspection_choose(bench.inspection, &record, &err), &err);
    inspect_view_record(&bench.options, &record, color, &out);
    inspected_record_clear(&record);
    close_bench(&bench);
    return str_take(&out);
}

static void assert_shows(const char *text, const char *data_keys, uint64_t number, bool color,
                         const char *expected)
{
    char *view = view_record(text, data_keys, (InspectOptions){.choice.number = number}, color);
    if (strstr(view, expected) == NULL) fail_msg("shown is\n%s\nexpected\n%s", view, expected);
    free(view);
}

static void test_a_record_is_shown_with_what_is_trained(void **state)
{
    (void)state;
    static const char text[] = CHAT("x", "y") CHAT("2 + 2?", "4\\n5");
    assert_shows(text, "", 1, false, "record 1 of data.train: ");
    assert_shows(text, "", 1, false, "data.jsonl:2\n  shape    messages\n");
    assert_shows(text, "", 1, false,
                 "text, between ⟦ and ⟧ where it is trained:\n\n"
                 "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
                 "⟦4\n5<|im_end|>\n⟧\n\nids:\n\n  ");
    assert_shows(text, "", 1, true,
                 "text, green where it is trained:\n\n"
                 "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
                 "\x1b[0m\x1b[32m4↵\n5<|im_end|>↵\n\x1b[0m\n\nids:\n\n  ");
}

static void test_a_cut_is_shown_where_it_is(void **state)
{
    (void)state;
    static const char text[] = CHAT("a", "b c d e f g h i j k l m n o p");
    char *whole = view_record(text, "", (InspectOptions){0}, false);
    unsigned tokens = 0;
    assert_int_equal(sscanf(strstr(whole, "  tokens   "), "  tokens   %u", &tokens), 1);
    char *keys = mem_printf(", max_length: %u, too_long: truncate", tokens - 3);
    char *figures =
        mem_printf("  cut      from %u tokens, by data.max_length %u\n", tokens, tokens - 3);
    assert_shows(text, keys, 0, false, figures);
    assert_shows(text, keys, 0, false, "⟧\n---- cut here: 3 more tokens, ");
    free(keys);
    keys = mem_printf(", max_length: %u", tokens - 3); /* rejected: all of it is shown */
    assert_shows(text, keys, 0, false, "  rejected as too_long, which a run passes over\n");
    assert_shows(text, keys, 0, false, " n o p<|im_end|>\n⟧\n");
    free(keys);
    free(figures);
    free(whole);
}

static void test_a_refusal_is_shown_in_full(void **state)
{
    (void)state;
    assert_shows("{\"text\": 1}\n", "", 0, false, "  rejected as bad_record, which ends a run\n");
    assert_shows("{\"text\": 1}\n", ", bad_record: skip", 0, false,
                 "  rejected as bad_record, which a run passes over\n");
    assert_shows("{\"text\": 1}\n", "", 0, false,
                 "data.jsonl:1: the record is of no known shape\n      found: the keys \"text\"\n");
    char *view = view_record("{\"text\": 1}\n", "", (InspectOptions){0}, false);
    assert_null(strstr(view, "ids:"));
    free(view);
}

/* The line is named, and the byte at which it begins: whatever is wrong with it, or odd. */
static void test_whatever_is_wrong_is_said_with_its_byte(void **state)
{
    (void)state;
    static const struct {
        const char *line, *keys, *kind;
    } cases[] = {
        {"{\"text\": 1}\n", "", "  rejected as bad_record"},
        {CHAT("a", "b c d e f g"), ", max_length: 10", "  rejected as too_long"},
        {"{\"prompt\": \"a\"}\n", "", "  rejected as nothing_to_train"},
        {"{\"prompt\": \"a\", \"completion\": \"b\", \"tools\": [{\"name\": \"c\"}]}\n", "",
         "  rejected as not_rendered"},
        {CHAT("a", ""), "", "empty_answer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = mem_printf("%s%s", CHAT("x", "y"), cases[i].line);
        char *at = mem_printf("  at: byte %zu\n", sizeof CHAT("x", "y") - 1);
        assert_shows(text, cases[i].keys, 1, false, cases[i].kind);
        assert_shows(text, cases[i].keys, 1, false, at);
        free(at);
        free(text);
    }
}

/* ---- labels ---- */

#define RL(reward, keys)                                                                           \
    keys "}\nrollout: {function: generate, n_samples_per_prompt: 2, reward: " reward

/* The model would answer and nobody could judge it: that is the data's fault, and known before. */
static void test_a_label_that_the_reward_cannot_use_rejects_the_record(void **state)
{
    (void)state;
    static const struct {
        const char *line, *keys, *expected; /* "": nothing is wrong */
    } cases[] = {
        {"{\"prompt\": \"2+2?\", \"label\": \"4\"}", RL("gsm8k", ""), ""},
        {"{\"prompt\": \"2+2?\", \"label\": 4}", RL("gsm8k", ""), ""},
        {"{\"prompt\": \"2+2?\", \"label\": \"four\"}", RL("gsm8k", ""),
         "found: the record's label is no number, and has none behind ####: \"four\""},
        {"{\"prompt\": \"2+2?\"}", RL("gsm8k", ""),
         "data.jsonl:1: the record has no label: key \"label\" (data.label_key) is missing"},
        {"{\"prompt\": \"2+2?\", \"answr\": 4}", RL("math", ", label_key: answer"),
         "did you mean \"answr\"? Name it in data.label_key"},
        {"{\"prompt\": \"2+2?\", \"reward_model\": {\"ground_truth\": \"4\"}}", RL("dapo", ""),
         "if \"reward_model.ground_truth\" is it, say so, as in data.label_key: "
         "reward_model.ground_truth"},
        {"{\"prompt\": \"2+2?\", \"reward_model\": {\"ground_truth\": \"4\"}}",
         RL("dapo", ", label_key: reward_model.ground_truth"), ""},
        {"{\"prompt\": \"2+2?\", \"a.b\": \"4\", \"a\": {\"b\": \"x\"}}",
         RL("dapo", ", label_key: a.b"), ""},
        {CHAT("2+2?", "#### 4"), RL("gsm8k", ""), ""}, /* the answer stands for a label ... */
        {CHAT("2+2?", "#### 4"), RL("gsm8k", ", label_key: answer"), "is missing"}, /* or not */
        {"{\"prompt\": \"2+2?\"}", RL("random", ""), ""},
        {"{\"prompt\": \"2+2?\"}", RL("random", ", label_key: gold"), "is missing"},
        {"{\"prompt\": \"2+2?\", \"gold\": null}", RL("random", ", label_key: gold"), ""},
        {"{\"prompt\": \"2+2?\", \"gold\": null}", RL("f1", ", label_key: gold"),
         "key \"gold\" (data.label_key) is null"},
        {"{\"prompt\": \"2+2?\"}", RL("instructions", ""),
         "drop the record, or name the key where it stands in data.metadata_key"},
        {"{\"prompt\": \"2+2?\", \"metadata\": {\"instruction_id_list\": [\"a:b\"]}}",
         RL("instructions", ""),
         "drop the record, or name the key where it stands in data.metadata_key"},
        {"{\"prompt\": \"2+2?\"}", RL("deepscaler", ""), "no label"},
        {"{\"prompt\": \"2+2?\"}", RL("gpqa", ""), "no label"},
        {"{\"prompt\": \"2+2?\", \"label\": \"x\"}", RL("[random, {name: gsm8k, weight: 0.5}]", ""),
         "found: reward gsm8k: the record's label is no number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *view = view_record(cases[i].line, cases[i].keys, (InspectOptions){0}, false);
        bool refused = strstr(view, "rejected as bad_record, which ends a run") != NULL;
        if (refused != (cases[i].expected[0] != '\0') || strstr(view, cases[i].expected) == NULL)
            fail_msg("%s%s\n%s\nexpected\n%s", cases[i].line, cases[i].keys, view,
                     cases[i].expected);
        free(view);
    }
}

static void test_a_prompt_that_ends_in_an_answer_is_noted(void **state)
{
    (void)state;
    char *view = view_record("{\"prompt\": [{\"role\": \"user\", \"content\": \"2+2?\"}, "
                             "{\"role\": \"assistant\", \"content\": \"It is\"}]}",
                             RL("random", ""), (InspectOptions){0}, false);
    if (strstr(view, "odd (prefill_cut)") == NULL ||
        strstr(view, "data.jsonl:1: prompt[1] ends the prompt, and is an assistant's") == NULL)
        fail_msg("%s", view);
    free(view);
}

static void test_control_characters_do_not_reach_a_terminal(void **state)
{
    (void)state;
    static const char text[] = CHAT("\\u001b[2J\\u009b \\u007f\\r\\tx", "\\u001b]0;title\\u0007 é");
    char *view = view_record(text, "", (InspectOptions){0}, false);
    assert_non_null(strstr(view, "\\x1b[2J\\x9b \\x7f\\x0d\tx"));
    assert_non_null(strstr(view, "⟦\\x1b]0;title\\x07 é"));
    assert_null(strchr(view, 0x1b));
    free(view);
}

static void test_a_position_is_that_of_the_run(void **state)
{
    (void)state;
    Str text = {0};
    for (int i = 0; i < 20; i++)
        str_printf(&text, CHAT("question %d", "answer"), i);
    OrderCursor cursor = order_cursor((RecordOrder){.records = 20, .seed = 42, .shuffle = true});
    for (uint64_t position = 0; position < 45; position += 11) {
        uint64_t epoch;
        char expected[80];
        snprintf(expected, sizeof expected, "record %llu of data.train, at position %llu: ",
                 (unsigned long long)order_record(&cursor, position, &epoch),
                 (unsigned long long)position);
        InspectOptions options = {.choice = {.by_position = true, .number = position}};
        char *view = view_record(text.data, "", options, false);
        assert_true(str_starts_with(view, expected));
        free(view);
        options.set = "eval"; /* in the order of its files */
        view = view_record(text.data, "", options, false);
        snprintf(expected, sizeof expected,
                 "record %llu of data.eval, at position %llu: ", (unsigned long long)position % 20,
                 (unsigned long long)position);
        assert_true(str_starts_with(view, expected));
        free(view);
    }
    str_free(&text);
}

static void test_a_record_that_is_not_there_is_refused(void **state)
{
    (void)state;
    Bench bench = open_bench(CHAT("a", "b"), "", (InspectOptions){.choice.number = 1});
    InspectedRecord record = {0};
    Error err = {0};
    assert_fails(inspection_choose(bench.inspection, &record, &err), ERR_INVALID, &err,
                 "there is no record 1 in data.train: it has 1\n  expected: a number from 0 to 0");
    close_bench(&bench);
}

static void test_the_summary_counts_every_record_once(void **state)
{
    (void)state;
    static const char text[] = CHAT("a", "b") CHAT(
        "a",
        "b c d e f g h i j k l m n o p q r s t u v w x y z") "{\"prompt\": \"a\", \"completion\": "
                                                             "\"b\"}\n{\"prompt\": "
                                                             "\"a\"}\n{\"prompt\": \"b\"}\n"
                                                             "{\"text\": 1}\nnot JSON\n" CHAT(
                                                                 "beyond", "the count");
    Bench bench = open_bench(text, ", max_length: 30, too_long: truncate",
                             (InspectOptions){.summary_records = 7});
    InspectSummary summary = {0};
    Error err = {0};
    assert_ok(inspection_summarize(bench.inspection, 0, &summary, &err), &err);
    assert_int_equal(summary.records, 7);
    assert_false(summary.all);
    assert_int_equal(summary.completed, 2);
    assert_int_equal(summary.truncated, 1);
    assert_int_equal(summary.rejected[REJECT_NOTHING_TO_TRAIN], 2);
    assert_int_equal(summary.rejected[REJECT_BAD_RECORD], 2);
    assert_int_equal(summary.num_lengths, 5);
    assert_int_equal(summary.over_max, 1);
    assert_int_equal(summary.tokens, 2 * summary.length[2] + 30);
    assert_true(summary.trained > 0 && summary.trained < summary.tokens);
    Str out = {0};
    inspect_view_summary(&bench.options, &summary, &out);
    static const char *const shown[] = {
        "the first 7 records of data.train, which has more (--count all: all of them), ",
        "  shapes     messages 2, prompt and completion 1, prompt 2\n",
        "  samples    3, 1 of them cut; 4 rejected\n",
        "  too long   1 over data.max_length 30 (20.0 %)\n",
        "rejected as nothing_to_train, which a run passes over: 2. The first:\n",
        "rejected as bad_record, which ends a run: 2. The first:\n",
        "data.jsonl:6: the record is of no known shape\n",
    };
    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++)
        if (strstr(out.data, shown[i]) == NULL) fail_msg("no %s in\n%s", shown[i], out.data);
    /* The bars add up to the records that have a length. */
    unsigned long long total = 0, count;
    for (char *line = strstr(out.data, "any cut:\n\n") + 10; *line == ' ';
         line = strchr(line, '\n') + 1) {
        assert_int_equal(sscanf(line, " %*d to %*d %llu", &count), 1);
        total += count;
    }
    assert_int_equal(total, 5);
    str_free(&out);
    inspect_summary_clear(&summary);
    close_bench(&bench);
}

/* In the words of a run, which begins before it has counted them, or not. */
static void test_a_wrong_number_of_samples_is_said_where_it_is_known(void **state)
{
    static const struct {
        const char *keys, *expected;
        uint64_t looked;
    } cases[] = {
        {", num_samples: 5",
         "  warning: data.num_samples is 5, but the training set has 3 records: an epoch has 3\n",
         1000},
        {", num_samples: 5, order: window",
         "has 3 records: the run is as long as the job says, and its epochs are told by that "
         "number\n",
         1000},
        {", num_samples: 3", NULL, 1000},
        {"", NULL, 1000},
        {", num_samples: 5", NULL, 2}, /* nobody has counted them */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Bench bench = open_bench(CHAT("a", "b") CHAT("c", "d") CHAT("e", "f"), cases[i].keys,
                                 (InspectOptions){.summary_records = cases[i].looked});
        InspectSummary summary = {0};
        Error err = {0};
        Str out = {0};
        assert_ok(inspection_summarize(bench.inspection, 0, &summary, &err), &err);
        inspect_view_brief(&bench.options, &summary, &out);
        const char *said = strstr(out.data, "data.num_samples");
        bool right =
            cases[i].expected == NULL ? said == NULL : strstr(out.data, cases[i].expected) != NULL;
        if (!right) fail_msg("case %zu: %s", i, out.data);
        str_free(&out);
        inspect_summary_clear(&summary);
        close_bench(&bench);
    }
}

/* Each of many bad records is listed, up to the limit; of a kind that comes later, its first. */
static void test_rejected_records_are_listed_in_their_order(void **state)
{
    (void)state;
    Str text = {0};
    for (int i = 0; i < 6; i++)
        str_puts(&text, "{\"text\": 1}\n" CHAT("a", "b"));
    str_puts(&text, "{\"prompt\": \"a\"}\n");
    Bench bench =
        open_bench(text.data, "", (InspectOptions){.summary_records = 100, .listed_max = 4});
    InspectSummary summary = {0};
    Error err = {0};
    Str out = {0};
    assert_ok(inspection_summarize(bench.inspection, 0, &summary, &err), &err);
    inspect_view_summary(&bench.options, &summary, &out);
    assert_non_null(strstr(out.data, "\nthe first 4 of them (--list), in their order:\n\n"
                                     "  bad_record       "));
    static const char *const listed[] = {"data.jsonl:1: the record", "data.jsonl:3: the record",
                                         "data.jsonl:5: the record", "data.jsonl:7: the record"};
    const char *at = strstr(out.data, "in their order");
    for (size_t i = 0; i < 4; i++) {
        at = strstr(at, listed[i]);
        assert_non_null(at);
    }
    assert_null(strstr(at, "data.jsonl:9:"));
    assert_non_null(strstr(out.data, "rejected as bad_record, which ends a run: 6. The first:"));
    assert_non_null(strstr(out.data, "data.jsonl:13: the record holds a prompt"));
    str_free(&out);

    inspect_view_json(&bench.options, bench.inspection, NULL, &summary, &out);
    cJSON *json = NULL;
    assert_ok(json_parse(out.data, out.length, "json", &json, &err), &err);
    const cJSON *object = cJSON_GetObjectItem(json, "summary");
    const cJSON *findings = cJSON_GetObjectItem(object, "findings");
    assert_int_equal(cJSON_GetArraySize(findings), 5);
    const cJSON *third = cJSON_GetArrayItem(findings, 2);
    assert_int_equal(cJSON_GetObjectItem(third, "index")->valueint, 4);
    assert_true(str_ends_with(cJSON_GetObjectItem(third, "source")->valuestring, "data.jsonl:5"));
    const cJSON *rejected = cJSON_GetObjectItem(object, "rejected");
    const cJSON *bad = cJSON_GetObjectItem(rejected, "bad_record");
    assert_int_equal(cJSON_GetObjectItem(bad, "records")->valueint, 6);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(bad, "ends_run")));
    cJSON_Delete(json);
    str_free(&out);
    inspect_summary_clear(&summary);
    close_bench(&bench);
    str_free(&text);
}

static void test_a_job_that_generates_shows_prompts_and_labels(void **state)
{
    (void)state;
    const char *keys = "}\nrollout: {function: generate, reward: gsm8k, n_samples_per_prompt: 4, "
                       "max_response_length: 50}\neval: {max_response_length: 7";
    char *text =
        view_record(CHAT("What is 2 + 3?", "It is #### 5"), keys, (InspectOptions){0}, false);
    assert_non_null(strstr(text, "tokens, at most 50 to be generated behind them\n"));
    assert_non_null(strstr(text, "  label:\n    It is #### 5\n"));
    assert_non_null(strstr(text, "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n"
                                 "<|im_start|>assistant\n"));
    assert_null(strstr(text, "⟦"));
    free(text);
    text = view_record(CHAT("What is 2 + 3?", "It is #### 5"), keys,
                       (InspectOptions){.set = "eval"}, false);
    assert_non_null(strstr(text, "at most 7 to be generated"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_job_that_generates_shows_prompts_and_labels),
        cmocka_unit_test(test_a_record_is_shown_with_what_is_trained),
        cmocka_unit_test(test_a_cut_is_shown_where_it_is),
        cmocka_unit_test(test_a_refusal_is_shown_in_full),
        cmocka_unit_test(test_whatever_is_wrong_is_said_with_its_byte),
        cmocka_unit_test(test_a_label_that_the_reward_cannot_use_rejects_the_record),
        cmocka_unit_test(test_a_prompt_that_ends_in_an_answer_is_noted),
        cmocka_unit_test(test_control_characters_do_not_reach_a_terminal),
        cmocka_unit_test(test_a_position_is_that_of_the_run),
        cmocka_unit_test(test_a_record_that_is_not_there_is_refused),
        cmocka_unit_test(test_the_summary_counts_every_record_once),
        cmocka_unit_test(test_a_wrong_number_of_samples_is_said_where_it_is_known),
        cmocka_unit_test(test_rejected_records_are_listed_in_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
