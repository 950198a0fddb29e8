/* Tests of rollout function `sft`: samples equal to what transformers makes of the same chats, the
 * policies, and what a bad record leaves behind. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/rollout.h"

#define FIXTURES TEST_SOURCE_DIR "/rollout_worker/fixtures/"
#define TINY     PROJECT_SOURCE_DIR "/deploy/examples/tiny/model"

typedef struct Worker {
    JobConfig config;
    void *shared, *scratch;
} Worker;

static void worker_open_keyed(Worker *worker, const char *model, const char *input_key)
{
    memset(worker, 0, sizeof *worker);
    JobConfig *config = &worker->config;
    config->data.input_key = (char *)input_key;
    config->model.tokenizer = (char *)model;
    config->data.label_key = "label";
    config->data.tool_key = "tools";
    config->data.metadata_key = "metadata";
    config->data.max_length = 2048;
    config->data.too_long = POLICY_SKIP;
    Error err = {0};
    assert_ok(rollout_sft.open(config, &worker->shared, &err), &err);
    worker->scratch = rollout_sft.open_thread(worker->shared);
}

static void worker_open(Worker *worker, const char *model)
{
    worker_open_keyed(worker, model, NULL);
}

static void worker_close(Worker *worker)
{
    rollout_sft.close_thread(worker->scratch);
    rollout_sft.close(worker->shared);
}

/* The one sample of a record. */
static Sample run_record(const Worker *worker, const RolloutRecord *record)
{
    Error err = {0};
    RolloutGroup group = {0};
    assert_ok(rollout_sft.run(worker->shared, worker->scratch, record, &group, &err), &err);
    assert_int_equal(group.count, 1);
    Sample sample = group.sample[0];
    free(group.sample);
    return sample;
}

/* Runs one line from a heap block of exactly its length. */
static Sample run_line(const Worker *worker, const char *line, size_t length)
{
    char *text = mem_alloc(length);
    memcpy(text, line, length);
    RolloutRecord record = {
        .position = 41, .text = text, .length = length, .source = "chats.jsonl:5", .error = ""};
    Sample sample = run_record(worker, &record);
    free(text);
    assert_int_equal(sample.position, 41);
    assert_int_equal(sample.index, 0);
    return sample;
}

static Sample run_text(const Worker *worker, const char *line)
{
    return run_line(worker, line, strlen(line));
}

/* ---- equality ---- */

static void assert_sample_equals(const Sample *sample, const char *expected_line, int line)
{
    Error err = {0};
    cJSON *expected = NULL;
    assert_ok(json_parse(expected_line, strlen(expected_line), "expected", &expected, &err), &err);
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(expected, "ids");
    const char *mask = cJSON_GetObjectItemCaseSensitive(expected, "mask")->valuestring;
    if (sample->status != SAMPLE_COMPLETED) fail_msg("line %d: %s", line, sample->reject_message);
    assert_int_equal(sample->length, cJSON_GetArraySize(ids));
    int t = 0, first = -1;
    for (const cJSON *id = ids->child; id != NULL; id = id->next, t++) {
        if (sample->token[t] != id->valueint || sample->loss_mask[t] != mask[t] - '0')
            fail_msg("line %d, token %d: id %d mask %d, expected %d and %c", line, t,
                     sample->token[t], sample->loss_mask[t], id->valueint, mask[t]);
        if (first < 0 && mask[t] == '1') first = t;
    }
    assert_int_equal(sample->prompt_length, first);
    assert_null(sample->log_prob);
    cJSON_Delete(expected);
}

static int compare_files(const Worker *worker, const char *chats_path, const char *expected_path)
{
    FILE *chats = fopen(chats_path, "r"), *expected = fopen(expected_path, "r");
    assert_true(chats != NULL && expected != NULL);
    char *chat = NULL, *wanted = NULL;
    size_t chat_capacity = 0, wanted_capacity = 0;
    int count = 0;
    while (getline(&wanted, &wanted_capacity, expected) > 0) {
        ssize_t length = getline(&chat, &chat_capacity, chats);
        assert_true(length > 0);
        Sample sample = run_line(worker, chat, (size_t)length - 1);
        Sample again = run_line(worker, chat, (size_t)length - 1); /* from warm caches */
        assert_sample_equals(&sample, wanted, ++count);
        assert_sample_equals(&again, wanted, count);
        sample_clear(&sample);
        sample_clear(&again);
    }
    free(chat);
    free(wanted);
    fclose(chats);
    fclose(expected);
    return count;
}

static void test_sft_equals_transformers(void **state)
{
    (void)state;
    Worker worker;
    worker_open(&worker, TINY);
    assert_int_equal(
        compare_files(&worker, FIXTURES "chats.jsonl", FIXTURES "chats_expected.jsonl"), 12);
    worker_close(&worker);
}

static void test_sft_equals_transformers_on_gsm8k_with_qwen3(void **state)
{
    (void)state;
    const char *folder = getenv("TROUPE_SHARED");
    if (folder == NULL) folder = PROJECT_SOURCE_DIR "/../shared";
    char *model = path_join(folder, "data/tokenizers/qwen3");
    char *chats = path_join(folder, "data/gsm8k/train.jsonl");
    if (!path_exists(model) || !path_exists(chats)) {
        print_message("skipped: %s or %s is absent\n", model, chats);
        free(model);
        free(chats);
        skip();
    }
    Worker worker;
    worker_open(&worker, model);
    assert_int_equal(compare_files(&worker, chats, FIXTURES "gsm8k_qwen3_expected.jsonl"), 10);
    worker_close(&worker);
    free(model);
    free(chats);
}

/* Looking on must change nothing: the sample is the same, and the trace holds all of it. */
static void assert_explained_alike(const Worker *worker, const char *line, size_t length)
{
    RolloutRecord record = {
        .position = 41, .text = line, .length = length, .source = "chats.jsonl:5", .error = ""};
    Sample plain = run_record(worker, &record), looked_at = {0};
    RolloutTrace trace = {0};
    rollout_sft.explain(worker->shared, worker->scratch, &record, &looked_at, &trace);
    uint8_t *bytes[2];
    size_t sizes[2];
    sample_pack(&plain, &bytes[0], &sizes[0]);
    sample_pack(&looked_at, &bytes[1], &sizes[1]);
    assert_int_equal(sizes[0], sizes[1]);
    assert_memory_equal(bytes[0], bytes[1], sizes[0]);
    if (plain.status != SAMPLE_REJECTED) {
        assert_true(trace.conversation.length >= (size_t)plain.length);
        assert_memory_equal(trace.conversation.token, plain.token,
                            (size_t)plain.length * sizeof *plain.token);
        assert_memory_equal(trace.conversation.loss_mask, plain.loss_mask, (size_t)plain.length);
        assert_non_null(trace.conversation.text);
        assert_string_equal(trace.shape, "messages");
    }
    free(bytes[0]);
    free(bytes[1]);
    sample_clear(&plain);
    sample_clear(&looked_at);
    rollout_trace_clear(&trace);
}

static void test_a_sample_that_is_looked_at_is_the_same(void **state)
{
    (void)state;
    Worker worker;
    worker_open(&worker, TINY);
    worker.config.data.max_length = 200;
    for (int policy = POLICY_SKIP; policy <= POLICY_TRUNCATE; policy++) {
        worker.config.data.too_long = (DataPolicy)policy;
        FILE *chats = fopen(FIXTURES "chats.jsonl", "r");
        char *line = NULL;
        size_t capacity = 0;
        for (ssize_t length; (length = getline(&line, &capacity, chats)) > 0;)
            assert_explained_alike(&worker, line, (size_t)length);
        fclose(chats);
        free(line);
    }
    static const char *const bad[] = {"", "{", "{\"text\": 1}", "{\"prompt\": \"a\"}",
                                      "{\"messages\": [{\"role\": \"x\"}]}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_explained_alike(&worker, bad[i], strlen(bad[i]));
    worker_close(&worker);
}

/* ---- shapes ---- */

#define USER(text)      "{\"role\": \"user\", \"content\": \"" text "\"}"
#define ASSISTANT(text) "{\"role\": \"assistant\", \"content\": \"" text "\"}"
#define WHOLE           "{\"messages\": [" USER("a b") ", " ASSISTANT("c") "]}"

static void assert_same_sample(const Worker *worker, const char *line, const char *plain)
{
    Sample sample = run_text(worker, line), expected = run_text(worker, plain);
    if (sample.status != SAMPLE_COMPLETED) fail_msg("%s: %s", line, sample.reject_message);
    assert_int_equal(expected.status, SAMPLE_COMPLETED);
    assert_int_equal(sample.length, expected.length);
    assert_memory_equal(sample.token, expected.token, (size_t)sample.length * sizeof *sample.token);
    assert_memory_equal(sample.loss_mask, expected.loss_mask, (size_t)sample.length);
    sample_clear(&sample);
    sample_clear(&expected);
}

static void test_the_same_conversation_in_any_shape_is_the_same_sample(void **state)
{
    (void)state;
    Worker worker;
    worker_open(&worker, TINY);
    static const char *const lines[] = {
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"a b\"}, "
        "{\"from\": \"gpt\", \"value\": \"c\"}]}",
        "{\"prompt\": \"a b\", \"completion\": \"c\", \"id\": 3}",
        "{\"prompt\": [" USER("a b") "], \"chosen\": [" ASSISTANT(
            "c") "], \"rejected\": [" ASSISTANT("d") "]}",
        "{\"chosen\": [" USER("a b") ", " ASSISTANT("c") "], \"rejected\": [" USER(
            "a b") ", " ASSISTANT("d") "]}",
        "{\"instruction\": \"a b\", \"input\": \"\", \"output\": \"c\"}",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        assert_same_sample(&worker, lines[i], WHOLE);
    worker_close(&worker);
}

static void test_what_is_given_is_not_trained(void **state)
{
    (void)state;
    Worker worker;
    worker_open(&worker, TINY);
    static const char masked[] =
        "{\"messages\": [" USER("a") ", {\"role\": \"assistant\", \"content\": \"b\", "
                                     "\"step_loss_mask\": 0}, " USER("c") ", " ASSISTANT("d") "]}";
#define GIVEN USER("a") ", " ASSISTANT("b") ", " USER("c")
    static const char answer[] = "{\"prompt\": [" GIVEN "], \"completion\": [" ASSISTANT("d") "]}";
    static const char pair[] =
        "{\"chosen\": [" GIVEN ", " ASSISTANT("d") "], "
                                                   "\"rejected\": [" GIVEN ", " ASSISTANT("e") "]}";
#undef GIVEN
    assert_same_sample(&worker, answer, masked);
    assert_same_sample(&worker, pair, masked);
    worker_close(&worker);
}

static void worker_open_with_template(Worker *worker, const char *source)
{
    Error err = {0};
    assert_ok(file_write_atomic("worker.jinja", source, strlen(source), &err), &err);
    worker_open(worker, TINY);
    worker_close(worker);
    worker->config.model.chat_template = "worker.jinja";
    assert_ok(rollout_sft.open(&worker->config, &worker->shared, &err), &err);
    worker->scratch = rollout_sft.open_thread(worker->shared);
}

static void test_template_kwargs_of_job_and_record_are_honoured(void **state)
{
    (void)state;
    Worker worker;
    worker_open_with_template(
        &worker, "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}"
                 "{%- if m.role == 'assistant' and enable_thinking is false %}{{- 'quick ' }}"
                 "{%- endif %}{{- m.content + '<|im_end|>\\n' }}{%- endfor %}");
    static const char own[] = "{\"messages\": [" USER("a b") ", " ASSISTANT(
        "c") "], "
             "\"chat_template_kwargs\": {\"enable_thinking\": false}}";
    static const char quick[] = "{\"messages\": [" USER("a b") ", " ASSISTANT("quick c") "]}";
    static const char slow[] = "{\"messages\": [" USER("a b") ", " ASSISTANT(
        "c") "], "
             "\"chat_template_kwargs\": {\"enable_thinking\": true}}";
    Sample expected = run_text(&worker, quick), by_record = run_text(&worker, own);
    Sample plain = run_text(&worker, WHOLE);
    worker_close(&worker);
    worker.config.data.apply_chat_template_kwargs = "{\"enable_thinking\": false}";
    Error err = {0};
    assert_ok(rollout_sft.open(&worker.config, &worker.shared, &err), &err);
    worker.scratch = rollout_sft.open_thread(worker.shared);
    Sample by_job = run_text(&worker, WHOLE), overruled = run_text(&worker, slow);
    worker_close(&worker);
    assert_int_equal(by_record.length, expected.length);
    assert_int_equal(by_job.length, expected.length);
    size_t bytes = (size_t)expected.length * sizeof *expected.token;
    assert_memory_equal(by_record.token, expected.token, bytes);
    assert_memory_equal(by_job.token, expected.token, bytes);
    assert_int_equal(overruled.length, plain.length);
    assert_true(plain.length < expected.length);
    Sample *all[] = {&expected, &by_record, &plain, &by_job, &overruled};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        sample_clear(all[i]);
}

/* ---- policies ---- */

#define CHAT                                                                                       \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"one two three\"}, "                       \
    "{\"role\": \"assistant\", \"content\": \"four five six seven\"}]}"

static void test_long_conversation_is_truncated_or_rejected_as_told(void **state)
{
    (void)state;
    Worker worker;
    worker_open(&worker, TINY);
    Sample whole = run_text(&worker, CHAT);
    assert_int_equal(whole.status, SAMPLE_COMPLETED);
    assert_true(whole.prompt_length > 3 && whole.prompt_length < whole.length - 2);

    worker.config.data.max_length = whole.length;
    Sample exact = run_text(&worker, CHAT);
    assert_int_equal(exact.status, SAMPLE_COMPLETED);

    static const DataPolicy rejecting[] = {POLICY_SKIP, POLICY_STOP};
    worker.config.data.max_length = whole.length - 1;
    for (int i = 0; i < 2; i++) { /* stop is the controller's to carry out */
        worker.config.data.too_long = rejecting[i];
        Sample rejected = run_text(&worker, CHAT);
        assert_int_equal(rejected.status, SAMPLE_REJECTED);
        assert_int_equal(rejected.reject_reason, REJECT_TOO_LONG);
        assert_int_equal(rejected.length, 0);
        assert_null(rejected.token);
        assert_non_null(strstr(rejected.reject_message, "chats.jsonl:5: the conversation has "));
        sample_clear(&rejected);
    }

    worker.config.data.too_long = POLICY_TRUNCATE;
    worker.config.data.max_length = whole.prompt_length + 1;
    Sample head = run_text(&worker, CHAT);
    assert_int_equal(head.status, SAMPLE_TRUNCATED);
    assert_int_equal(head.length, whole.prompt_length + 1);
    assert_memory_equal(head.token, whole.token, (size_t)head.length * sizeof *head.token);
    assert_memory_equal(head.loss_mask, whole.loss_mask, (size_t)head.length);
    assert_int_equal(sample_meta(&head).trained_tokens, 1);

    worker.config.data.max_length = whole.prompt_length; /* the answer is cut off whole */
    Sample untrained = run_text(&worker, CHAT);
    assert_int_equal(untrained.status, SAMPLE_REJECTED);
    assert_int_equal(untrained.reject_reason, REJECT_NOTHING_TO_TRAIN);
    assert_non_null(strstr(untrained.reject_message, "truncated"));

    sample_clear(&whole);
    sample_clear(&exact);
    sample_clear(&head);
    sample_clear(&untrained);
    worker_close(&worker);
}

static void assert_rejected(const Worker *worker, const char *line, RejectReason reason,
                            const char *expected)
{
    Sample sample = run_text(worker, line);
    assert_int_equal(sample.status, SAMPLE_REJECTED);
    if (sample.reject_reason != reason || strstr(sample.reject_message, expected) == NULL)
        fail_msg("%s\ngave %s: %s\nexpected %s: %s", line, reject_reason_name(sample.reject_reason),
                 sample.reject_message, reject_reason_name(reason), expected);
    int lines = 1;
    for (const char *c = sample.reject_message; *c != '\0'; c++)
        lines += *c == '\n';
    assert_true(lines <= 6);
    assert_true(str_starts_with(sample.reject_message, "chats.jsonl:5: "));
    if (strstr(sample.reject_message, "expected") == NULL) fail_msg("%s", sample.reject_message);
    assert_non_null(strstr(sample.reject_message, "\n  to do: "));
    sample_clear(&sample);
}

static void test_conversation_without_trained_tokens_is_rejected(void **state)
{
    (void)state;
    Worker worker;
    worker_open(&worker, TINY);
    assert_rejected(&worker, "{\"messages\": [{\"role\": \"user\", \"content\": \"hello?\"}]}",
                    REJECT_NOTHING_TO_TRAIN, "no token carries loss");
    assert_rejected(
        &worker,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
        "\"content\": \"b\", \"step_loss_mask\": 0}]}",
        REJECT_NOTHING_TO_TRAIN, "no token carries loss");
    assert_rejected(&worker, "{\"prompt\": \"2 + 2?\", \"label\": \"4\"}", REJECT_NOTHING_TO_TRAIN,
                    "the record holds a prompt and no answer to learn");
    assert_rejected(&worker, "{\"prompt\": \"2 + 2?\", \"completion\": \"5\", \"label\": false}",
                    REJECT_NOTHING_TO_TRAIN, "\"label\" is false");
    worker_close(&worker);
}

#define DEVELOPER "{\"role\": \"developer\", \"content\": \"Be brief.\"}"

/* In Qwen3's manner: no word for a developer. */
static const char no_developer[] =
    "{%- for m in messages %}{%- if m.role in ['user', 'assistant'] %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content }}"
    "{%- for c in m.tool_calls or [] %}{{- c.function.arguments if c.function.arguments is string "
    "else c.function.arguments | tojson }}{{- '<tool_call>' + c.function.name }}{%- endfor %}"
    "{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}";

/* Without it training would be on another conversation than was given. */
static void test_what_the_template_passes_over_is_a_matter_of_policy(void **state)
{
    (void)state;
    static const char line[] = "{\"messages\": [" DEVELOPER ", " USER("a") ", " ASSISTANT("b") "]}";
    Worker worker;
    worker_open_with_template(&worker, no_developer);
    worker.config.data.not_rendered = POLICY_STOP;
    assert_rejected(&worker, line, REJECT_NOT_RENDERED, "messages[0] (developer) does not appear");
    worker.config.data.not_rendered = POLICY_SKIP;
    assert_rejected(&worker, line, REJECT_NOT_RENDERED, "set data.not_rendered to keep");
    worker.config.data.not_rendered = POLICY_KEEP;
    Sample kept = run_text(&worker, line);
    Sample without = run_text(&worker, "{\"messages\": [" USER("a") ", " ASSISTANT("b") "]}");
    assert_int_equal(kept.status, SAMPLE_COMPLETED);
    assert_int_equal(kept.notes, 1u << NOTE_NOT_RENDERED);
    assert_non_null(
        strstr(kept.note_message[NOTE_NOT_RENDERED], "chats.jsonl:5: messages[0] (developer)"));
    assert_int_equal(without.notes, 0);
    assert_null(without.note_message[NOTE_NOT_RENDERED]);
    assert_int_equal(kept.length, without.length);
    assert_memory_equal(kept.token, without.token, (size_t)kept.length * sizeof *kept.token);
    sample_clear(&kept);
    sample_clear(&without);
    worker_close(&worker);
}

/* The reference tools train such text as it stands; it is said. */
static void test_arguments_that_are_no_json_are_trained_and_noted(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *note; /* NULL: none */
    } cases[] = {
        {"{\"x\": 1}", NULL},
        {"\"{\\\"x\\\": 1}\"", NULL},
        {"\"\"", "neither an object nor the JSON text of one: an empty text"},
        {"\"null\"", "neither an object nor the JSON text of one: null"},
        {"null", "neither an object nor the JSON text of one: null"},
        {"[1]", "neither an object nor the JSON text of one: a list"},
        {"\"{\\\"x\\\": 1\"", "messages[1].tool_calls[0] has arguments that are neither an"},
        {"\"x = 1\"", "messages[1].tool_calls[0] has arguments that are neither an"},
        {"\"[1]\"", "nor the JSON text of one: a list"},
    };
    Worker worker;
    worker_open_with_template(&worker, no_developer);
    worker.config.data.not_rendered = POLICY_STOP;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *line = mem_printf(
            "{\"messages\": [" USER(
                "a") ", {\"role\": \"assistant\", \"content\": \"\", "
                     "\"tool_calls\": [{\"type\": \"function\", \"function\": {\"name\": "
                     "\"f\", \"arguments\": %s}}]}]}",
            cases[i].arguments);
        Sample sample = run_text(&worker, line);
        if (sample.status != SAMPLE_COMPLETED) fail_msg("%s: %s", line, sample.reject_message);
        assert_int_equal(sample.notes, cases[i].note != NULL ? 1u << NOTE_BAD_ARGUMENTS : 0);
        if (cases[i].note != NULL &&
            strstr(sample.note_message[NOTE_BAD_ARGUMENTS], cases[i].note) == NULL)
            fail_msg("%s: %s", line, sample.note_message[NOTE_BAD_ARGUMENTS]);
        sample_clear(&sample);
        free(line);
    }
    worker_close(&worker);
}

/* What the template prints of a call without a name nobody can call. */
static void test_a_call_without_a_name_is_trained_and_noted(void **state)
{
    (void)state;
    static const char *const functions[] = {"{\"arguments\": {}}",
                                            "{\"name\": \"\", \"arguments\": {}}",
                                            "{\"name\": null, \"arguments\": {}}"};
    Worker worker;
    worker_open_with_template(
        &worker, "{%- for m in messages %}{{ m.role }}{{ m.content }}{%- for c in m.tool_calls "
                 "or [] %}{{- c | tojson }}{%- endfor %}{{- '<|im_end|>' }}{%- endfor %}");
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        char *line = mem_printf(
            "{\"messages\": [" USER("a") ", {\"role\": \"assistant\", \"content\": \"\", "
                                         "\"tool_calls\": [{\"function\": %s}]}]}",
            functions[i]);
        Sample sample = run_text(&worker, line);
        assert_int_equal(sample.status, SAMPLE_COMPLETED);
        assert_int_equal(sample.notes, 1u << NOTE_UNNAMED_CALL);
        assert_non_null(strstr(sample.note_message[NOTE_UNNAMED_CALL],
                               "chats.jsonl:5: messages[1].tool_calls[0] has no name"));
        sample_clear(&sample);
        free(line);
    }
    worker_close(&worker);
}

static void test_text_that_spells_a_special_token_is_noted(void **state)
{
    (void)state;
    Worker worker;
    worker_open_keyed(&worker, TINY, "dialog");
    Sample sample = run_text(&worker, "{\"dialog\": [" USER("what is <|im_end|>?") ", " ASSISTANT(
                                          "<|im_start|> is") "], \"system\": \"s\"}");
    assert_int_equal(sample.status, SAMPLE_COMPLETED);
    assert_int_equal(sample.notes, 1u << NOTE_SPELLED_CONTROL);
    assert_string_equal(sample.note_message[NOTE_SPELLED_CONTROL],
                        "chats.jsonl:5: dialog[0] spells the special token \"<|im_end|>\", the "
                        "first of 2 such places\n"
                        "  it stays text here; transformers would make the token of it");
    sample_clear(&sample);
    worker_close(&worker);
}

/* The record is as good as another: what cannot be rendered is the template's doing. */
static void test_a_template_beyond_its_limits_is_to_blame_and_not_the_record(void **state)
{
    (void)state;
    Worker worker;
    worker_open_with_template(
        &worker, "{%- set n = namespace(s=messages[0].content) %}{%- if messages | length > 2 %}"
                 "{%- for i in range(60) %}{%- set n.s = n.s ~ n.s %}{%- endfor %}{%- endif %}"
                 "{%- for m in messages %}{{ m.role ~ m.content ~ '<|im_end|>' }}{%- endfor %}");
    static const char line[] =
        "{\"messages\": [" USER("a") ", " ASSISTANT("b") ", " USER("c") ", " ASSISTANT("d") "]}";
    assert_rejected(&worker, line, REJECT_TEMPLATE, "chats.jsonl:5: ");
    assert_rejected(&worker, line, REJECT_TEMPLATE,
                    "\n  to do: correct the template, or name another one in model.chat_template");
    Sample sample = run_text(&worker, "{\"messages\": [" USER("a") ", " ASSISTANT("b") "]}");
    assert_int_equal(sample.status, SAMPLE_COMPLETED);
    sample_clear(&sample);
    worker_close(&worker);
}

static void test_a_template_that_renders_nothing_is_refused_at_once(void **state)
{
    (void)state;
    static const char template[] = "{{ functions[0] }}{{ messages[1].content }}";
    JobConfig config = {.model = {.tokenizer = TINY, .chat_template = "functions.jinja"}};
    Error err = {0};
    void *shared = NULL;
    assert_ok(file_write_atomic("functions.jinja", template, strlen(template), &err), &err);
    assert_fails(rollout_sft.open(&config, &shared, &err), ERR_DATA, &err,
                 "A name of the template's own is given in data.apply_chat_template_kwargs.");
    config.data.apply_chat_template_kwargs = "{\"functions\": [1]}";
    assert_ok(rollout_sft.open(&config, &shared, &err), &err);
    rollout_sft.close(shared);
}

/* Whoever looks for a fault looks for it in the file. */
static void test_refusals_name_the_records_own_key(void **state)
{
    (void)state;
    Worker worker;
    worker_open_keyed(&worker, TINY, "data.dialog");
    assert_rejected(&worker, "{\"data\": {\"dialog\": [" USER("a") ", {\"role\": \"usr\"}]}}",
                    REJECT_BAD_RECORD, "chats.jsonl:5: data.dialog[1].role is \"usr\"");
    assert_rejected(
        &worker,
        "{\"system\": \"s\", \"data\": {\"dialog\": [" USER("a") ", {\"role\": \"usr\"}]}}",
        REJECT_BAD_RECORD, "chats.jsonl:5: data.dialog[1].role is \"usr\"");
    assert_rejected(&worker, "{\"data\": {\"dialog\": []}}", REJECT_BAD_RECORD,
                    "chats.jsonl:5: data.dialog is an empty list");
    assert_rejected(&worker, "{\"data\": {\"dialog\": [{\"role\": \"user\", \"role\": 1}]}}",
                    REJECT_BAD_RECORD, "key \"role\" occurs twice in data.dialog[0]");
    assert_rejected(&worker, "{\"data\": {}}", REJECT_BAD_RECORD, "\"data.dialog\" is missing");
    worker_close(&worker);
}

static void test_bad_record_is_rejected_with_place_and_remedy(void **state)
{
    (void)state;
    Worker worker;
    worker_open(&worker, TINY);
    assert_rejected(&worker, "{\"messages\": [{\"role\": \"user\", \"content\": \"cut",
                    REJECT_BAD_RECORD, "ends inside a string in messages[0].content");
    assert_rejected(&worker, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\\u0000b\"}]}",
                    REJECT_BAD_RECORD, "a NUL character in messages[0].content");
    assert_rejected(&worker, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\\ud800b\"}]}",
                    REJECT_BAD_RECORD, "a lone surrogate (\\ud800) in messages[0].content");
    assert_rejected(&worker, "{\"text\": \"hello\"}", REJECT_BAD_RECORD,
                    "the record is of no known shape");
    assert_rejected(
        &worker,
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\"}]}",
        REJECT_BAD_RECORD, "found: messages made of the shape ShareGPT conversations");
    assert_rejected(&worker, "{\"messages\": \"hello\"}", REJECT_BAD_RECORD,
                    "\"messages\" is a string");
    assert_rejected(&worker, "{\"messages\": []}", REJECT_BAD_RECORD, "messages is an empty list");
    assert_rejected(&worker, "{\"messages\": [\"hello\"]}", REJECT_BAD_RECORD,
                    "messages[0] is a string");
    assert_rejected(&worker, "{\"messages\": [{\"role\": \"usr\", \"content\": \"a\"}]}",
                    REJECT_BAD_RECORD, "messages[0].role is \"usr\"; did you mean \"user\"?");
    assert_rejected(&worker, "{\"messages\": [{\"role\": \"human\", \"content\": \"a\"}]}",
                    REJECT_BAD_RECORD, "messages[0].role is \"human\"; did you mean \"user\"?");
    assert_rejected(&worker, "{\"messages\": [{\"role\": \"model\", \"content\": \"a\"}]}",
                    REJECT_BAD_RECORD,
                    "messages[0].role is \"model\"; did you mean \"assistant\"?");
    assert_rejected(&worker, "{", REJECT_BAD_RECORD,
                    "the line holds nothing but an opening bracket");
    assert_rejected(&worker, "[ ", REJECT_BAD_RECORD, "`jq -c '.[]' FILE` for a list");
    assert_rejected(&worker, "{\"messages\": [{\"content\": \"a\"}]}", REJECT_BAD_RECORD,
                    "messages[0].role is missing");
    assert_rejected(&worker, "{\"messages\": [{\"role\": \"user\", \"content\": 7}]}",
                    REJECT_BAD_RECORD, "messages[0].content is a number");
    assert_rejected(
        &worker,
        "{\"messages\": [{\"role\": \"tool\", \"content\": \"a\"}, {\"role\": \"assistant\", "
        "\"content\": \"b\"}]}",
        REJECT_BAD_RECORD, "messages[0].role is \"tool\"");
    assert_rejected(&worker,
                    "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"tools\": \"[1\"}",
                    REJECT_BAD_RECORD, "tools");
    worker_close(&worker);
}

static void test_line_that_could_not_be_read_is_rejected(void **state)
{
    (void)state;
    Worker worker;
    worker_open(&worker, TINY);
    RolloutRecord record = {.position = 3,
                            .source = "long.jsonl:2",
                            .error = "long.jsonl:2: the line has more than 9 bytes"};
    Sample sample = run_record(&worker, &record);
    assert_int_equal(sample.position, 3);
    assert_int_equal(sample.reject_reason, REJECT_BAD_RECORD);
    assert_string_equal(sample.reject_message, record.error);
    sample_clear(&sample);
    worker_close(&worker);
}

static void test_template_that_refuses_is_told_apart(void **state)
{
    (void)state;
    static const char strict[] =
        "{%- for m in messages %}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{- raise_exception('roles must alternate user and assistant') }}{%- endif %}"
        "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}";
    Worker worker;
    worker_open_with_template(&worker, strict);
    Sample good = run_text(&worker, CHAT);
    assert_int_equal(good.status, SAMPLE_COMPLETED);
    sample_clear(&good);
    assert_rejected(
        &worker,
        "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}, {\"role\": \"user\", "
        "\"content\": \"b\"}]}",
        REJECT_TEMPLATE, "roles must alternate user and assistant");
    worker_close(&worker);
}

static void test_missing_tokenizer_is_an_error_of_the_worker(void **state)
{
    (void)state;
    JobConfig config = {0};
    config.model.tokenizer = "no-such-folder";
    void *shared = NULL;
    Error err = {0};
    assert_fails(rollout_sft.open(&config, &shared, &err), ERR_NOT_FOUND, &err, "no-such-folder");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sft_equals_transformers),
        cmocka_unit_test(test_sft_equals_transformers_on_gsm8k_with_qwen3),
        cmocka_unit_test(test_a_sample_that_is_looked_at_is_the_same),
        cmocka_unit_test(test_the_same_conversation_in_any_shape_is_the_same_sample),
        cmocka_unit_test(test_what_is_given_is_not_trained),
        cmocka_unit_test(test_template_kwargs_of_job_and_record_are_honoured),
        cmocka_unit_test(test_long_conversation_is_truncated_or_rejected_as_told),
        cmocka_unit_test(test_conversation_without_trained_tokens_is_rejected),
        cmocka_unit_test(test_what_the_template_passes_over_is_a_matter_of_policy),
        cmocka_unit_test(test_arguments_that_are_no_json_are_trained_and_noted),
        cmocka_unit_test(test_a_call_without_a_name_is_trained_and_noted),
        cmocka_unit_test(test_text_that_spells_a_special_token_is_noted),
        cmocka_unit_test(test_a_template_beyond_its_limits_is_to_blame_and_not_the_record),
        cmocka_unit_test(test_a_template_that_renders_nothing_is_refused_at_once),
        cmocka_unit_test(test_refusals_name_the_records_own_key),
        cmocka_unit_test(test_bad_record_is_rejected_with_place_and_remedy),
        cmocka_unit_test(test_line_that_could_not_be_read_is_rejected),
        cmocka_unit_test(test_template_that_refuses_is_told_apart),
        cmocka_unit_test(test_missing_tokenizer_is_an_error_of_the_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
