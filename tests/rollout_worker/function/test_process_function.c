/* Tests of rollout functions that are programs: what they may build samples from, and that nothing
 * that is trained can have been made from other tokens; every way in which they can be wrong. The
 * engine is a callback that says what it is told to. */
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "rollout_worker/function/process_function.h"

#define TINY_MODEL PROJECT_SOURCE_DIR "/deploy/examples/tiny/model"
#define PROGRAM    PROJECT_BINARY_DIR "/bin/function_program"

/* Generates "<index> is <text>" and the end token, with log-probs -1 for the first token, -2 ...,
 * by weights whose version is the number of calls. */
typedef struct Talker {
    const TextModel *model;
    const char *text;
    atomic_int calls;
    Status status;           /* that it ends with */
    GenerateRequest request; /* the last one; its arrays are gone */
} Talker;

static Status talk(void *context, const GenerateRequest *request, Generation *ret, Error *err)
{
    Talker *talker = context;
    talker->request = *request;
    talker->calls++;
    if (talker->status != OK) return error_set(err, talker->status, "the engine says no");
    for (int i = 0; i < request->num_samples; i++) {
        char *text = mem_printf("%d is %s<|im_end|>", (int)request->first_index + i, talker->text);
        Encoding encoding = {0};
        assert_ok(tokenizer_encode(text_model_tokenizer(talker->model), NULL, text, strlen(text),
                                   NULL, false, &encoding, err),
                  err);
        size_t length = encoding.length;
        ret[i] = (Generation){.index = request->first_index + (uint32_t)i,
                              .token = mem_calloc(length, sizeof(int32_t)),
                              .log_prob = mem_calloc(length, sizeof(float)),
                              .version_run = mem_calloc(1, sizeof(VersionRun)),
                              .num_version_runs = 1,
                              .length = (int32_t)length,
                              .temperature = (float)request->params.temperature,
                              .finish = FINISH_STOP,
                              .stop_string = -1,
                              .prompt_length = request->prompt_length};
        for (size_t k = 0; k < length; k++) {
            ret[i].token[k] = encoding.span[k].id;
            ret[i].log_prob[k] = -1.0f - (float)k;
        }
        ret[i].stop_token = ret[i].token[length - 1];
        ret[i].version_run[0] = (VersionRun){atomic_load(&talker->calls), (int32_t)length};
        encoding_free(&encoding);
        free(text);
    }
    return OK;
}

typedef struct Fixture {
    TextModel *model;
    ProcessFunction *function;
    Talker talker;
} Fixture;

static void open_command(Fixture *fixture, const char *spec)
{
    Error err = {0};
    ProcessPoolOptions pool = process_pool_defaults();
    FunctionHost host = {.model_path = TINY_MODEL};
    cJSON *json = cJSON_Parse(spec);
    assert_ok(text_model_load(TINY_MODEL, NULL, &fixture->model, &err), &err);
    assert_ok(process_pool_read_options(json, "function", &pool, &err), &err);
    host.model = fixture->model;
    assert_ok(process_function_open(&pool, &host, &fixture->function, &err), &err);
    process_pool_options_clear(&pool);
    cJSON_Delete(json);
    fixture->talker = (Talker){.model = fixture->model, .text = "five"};
}

static void open_fixture(Fixture *fixture)
{
    open_command(fixture, "{\"command\": [\"" PROGRAM "\"], \"in_flight\": 16, \"timeout_ms\": "
                          "2000, \"restart_ms\": 1}");
}

static void close_fixture(Fixture *fixture)
{
    process_function_close(fixture->function);
    text_model_destroy(fixture->model);
}

static FunctionTask make_task(const cJSON *record, int num_samples)
{
    SamplingParams params = sampling_defaults();
    params.max_new_tokens = 100;
    params.seed = 1;
    return (FunctionTask){.record = record,
                          .position = 12,
                          .num_samples = num_samples,
                          .sample = 99,
                          .max_length = 400,
                          .rewards = true,
                          .params = params};
}

/* Runs a record whose script is this list of messages. */
static Status run_script(Fixture *fixture, const char *script, int num_samples, Answer *ret,
                         Error *err)
{
    cJSON *record = cJSON_CreateObject(), *list = cJSON_Parse(script);
    assert_non_null(list);
    cJSON_AddItemToObject(record, "script", list);
    FunctionTask task = make_task(record, num_samples);
    FunctionEngine engine = {talk, &fixture->talker};
    Status status = process_function_run(fixture->function, &task, &engine, ret, err);
    cJSON_Delete(record);
    return status;
}

static void assert_script_fails(Fixture *fixture, const char *script, Status expected,
                                const char *message)
{
    Answer sample;
    Error err = {0};
    assert_fails(run_script(fixture, script, 1, &sample, &err), expected, &err, message);
}

static void assert_text(const Fixture *fixture, const Sample *sample, const char *expected)
{
    char *text = NULL;
    size_t length = 0;
    Error err = {0};
    assert_ok(tokenizer_decode(text_model_tokenizer(fixture->model), sample->token,
                               (size_t)sample->length, false, &text, &length, &err),
              &err);
    assert_string_equal(text, expected);
    free(text);
}

#define QUESTION     "{\"messages\": [{\"role\": \"user\", \"content\": \"2+3?\"}]}"
#define ASK          "{\"type\": \"generate\", \"call\": \"a\", \"prompt\": [" QUESTION "]}"
#define PROMPT       "<|im_start|>user\n2+3?<|im_end|>\n<|im_start|>assistant\n"
#define DONE(pieces) "{\"type\": \"done\", \"samples\": [{\"pieces\": [" pieces "]}]}"

static void test_function_makes_a_group(void **state)
{
    (void)state;
    Fixture fixture;
    Answer samples[2];
    Error err = {0};
    open_fixture(&fixture);
    assert_ok(run_script(&fixture,
                         "[{\"type\": \"generate\", \"call\": \"a\", \"samples\": 2, \"prompt\": "
                         "[" QUESTION "]},"
                         "{\"type\": \"done\", \"samples\": ["
                         "{\"pieces\": [" QUESTION ", {\"output\": [\"a\", 0]}], \"reward\": 0.5},"
                         "{\"pieces\": [" QUESTION
                         ", {\"output\": [\"a\", 1]}], \"extra\": {\"n\": "
                         "1}}]}]",
                         2, samples, &err),
              &err);
    assert_text(&fixture, &samples[0].sample, PROMPT "0 is five<|im_end|>");
    assert_text(&fixture, &samples[1].sample, PROMPT "1 is five<|im_end|>");
    assert_true(samples[0].has_reward && samples[0].sample.reward == 0.5f);
    assert_false(samples[1].has_reward);
    assert_string_equal(samples[1].response, "1 is five");
    assert_non_null(cJSON_GetObjectItem(samples[1].extra, "n"));
    assert_int_equal(fixture.talker.request.sample, 99);
    assert_int_equal(fixture.talker.request.params.max_new_tokens, 100);
    for (int i = 0; i < 2; i++) {
        const Sample *sample = &samples[i].sample;
        assert_int_equal(sample->position, 12);
        assert_int_equal(sample->index, i);
        assert_int_equal(sample->status, SAMPLE_COMPLETED);
        assert_ok(sample_check_policy(sample, &err), &err);
        for (int32_t t = 0; t < sample->length; t++) {
            int32_t at = t - sample->prompt_length;
            assert_int_equal(sample->loss_mask[t], at >= 0);
            assert_true(sample->log_prob[t] == (at >= 0 ? -1.0f - (float)at : 0));
        }
        answer_clear(&samples[i]);
    }
    close_fixture(&fixture);
}

static void test_function_makes_several_turns(void **state)
{
    (void)state;
    Fixture fixture;
    Answer sample;
    Error err = {0};
    open_fixture(&fixture);
#define FIRST                                                                                      \
    QUESTION                                                                                       \
    ", {\"output\": [\"a\", 0]}, {\"follow\": [{\"role\": \"user\", \"content\": \"Sure?\"}]}"
    assert_ok(run_script(&fixture,
                         "[" ASK ", {\"type\": \"generate\", \"call\": \"b\", \"index\": 4, "
                         "\"draw\": 1, \"prompt\": [" FIRST "]}, " DONE(FIRST ", {\"output\": "
                                                                              "[\"b\", 0]}") "]",
                         1, &sample, &err),
              &err);
    assert_text(&fixture, &sample.sample,
                PROMPT "0 is five<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n"
                       "<|im_start|>assistant\n4 is five<|im_end|>");
    assert_string_equal(sample.response, "4 is five");
    assert_int_equal(sample.sample.num_version_runs, 2);
    assert_int_equal(sample.sample.version_run[1].version, 2);
    assert_int_not_equal(fixture.talker.request.sample, 99); /* another draw, other noise */
    int trained = 0;
    for (int32_t t = 0; t < sample.sample.length; t++)
        trained += sample.sample.loss_mask[t];
    Generation one = {0};
    GenerateRequest request = {.num_samples = 1};
    assert_ok(talk(&fixture.talker, &request, &one, &err), &err);
    assert_int_equal(trained, 2 * one.length);
    generation_clear(&one);
    answer_clear(&sample);
    close_fixture(&fixture);
}

static void test_a_request_may_say_all_of_sampling(void **state)
{
    (void)state;
    Fixture fixture;
    open_fixture(&fixture);
    assert_script_fails(&fixture,
                        "[{\"type\": \"generate\", \"call\": \"a\", \"prompt\": [" QUESTION "], "
                        "\"sampling\": {\"repetition_penalty\": 1.5, \"frequency_penalty\": 0.25, "
                        "\"presence_penalty\": -1, \"stop_token_ids\": [3, 4], "
                        "\"min_new_tokens\": 2, \"ignore_eos\": true, \"stop\": [\"x\"]}}, "
                        "\"$reply\"]",
                        ERR_DATA, "\"call\": \"a\"");
    const SamplingParams *params = &fixture.talker.request.params;
    assert_true(params->repetition_penalty == 1.5 && params->frequency_penalty == 0.25);
    assert_true(params->presence_penalty == -1 && params->ignore_eos);
    assert_int_equal(params->num_stop_token_ids, 2);
    assert_int_equal(params->num_stop, 1);
    assert_int_equal(params->min_new_tokens, 2);
    close_fixture(&fixture);
}

static void test_pieces_of_text_and_ids(void **state)
{
    (void)state;
    Fixture fixture;
    Answer sample;
    Error err = {0};
    open_fixture(&fixture);
#define HEAD                                                                                       \
    "{\"text\": \"<|im_start|>\", \"special\": true}, {\"text\": \"<|im_end|>\"}, {\"tokens\": "   \
    "[1022]}"
    assert_ok(run_script(&fixture,
                         "[{\"type\": \"generate\", \"call\": \"a\", \"prompt\": [" HEAD
                         "]}, " DONE(HEAD ", {\"output\": [\"a\", 0]}") "]",
                         1, &sample, &err),
              &err);
    assert_text(&fixture, &sample.sample, "<|im_start|><|im_end|><|im_start|>0 is five<|im_end|>");
    assert_int_equal(sample.sample.token[0], 1022);
    assert_int_not_equal(sample.sample.token[1], 1023); /* text, not the control token */
    answer_clear(&sample);
    close_fixture(&fixture);
}

static void test_outputs_are_trained_only_behind_their_prompt(void **state)
{
    (void)state;
    Fixture fixture;
    Answer sample;
    Error err = {0};
    open_fixture(&fixture);
    assert_script_fails(&fixture,
                        "[" ASK ", " DONE("{\"text\": \"Easy:\"}, {\"output\": [\"a\", 0]}") "]",
                        ERR_INVALID, "stands behind other tokens than it was generated from");
    /* as context it may stand anywhere */
#define CONTEXT "{\"text\": \"Easy:\"}, {\"output\": [\"a\", 0], \"trained\": false}"
    assert_ok(run_script(&fixture,
                         "[" ASK ", {\"type\": \"generate\", \"call\": \"b\", \"prompt\": [" CONTEXT
                         "]}, " DONE(CONTEXT ", {\"output\": [\"b\", 0]}") "]",
                         1, &sample, &err),
              &err);
    assert_text(&fixture, &sample.sample, "Easy:0 is five<|im_end|>0 is five<|im_end|>");
    assert_int_equal(sample.sample.loss_mask[sample.sample.prompt_length - 1], 0);
    answer_clear(&sample);
    close_fixture(&fixture);
}

static void test_requests_that_cannot_be_are_answered(void **state)
{
    (void)state;
    Fixture fixture;
    open_fixture(&fixture);
    static const struct {
        const char *request, *answer;
    } cases[] = {
        {"\"sampling\": {\"temprature\": 1}, \"prompt\": [" QUESTION "]",
         "did you mean temperature?"},
        {"\"sampling\": {\"presence_penalty\": \"1\"}, \"prompt\": [" QUESTION "]",
         "presence_penalty"},
        {"\"prompt\": []", "the prompt is empty"},
        {"\"prompt\": [{\"txt\": 1}]", "pieces[0]: a piece has none of"},
        {"\"prompt\": [{\"tokens\": [5000]}]", "no id of the vocabulary"},
        {"\"prompt\": [{\"output\": [\"z\", 0]}]", "there is no output 0 of a call"},
        {"\"prompt\": [{\"follow\": []}]", "right behind an output"},
        {"\"prompt\": [{\"messages\": [{\"role\": \"usr\"}]}]", "did you mean"},
        {"\"samples\": 0, \"prompt\": [" QUESTION "]", "is 0, expected 1 to 1024"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *script = mem_printf("[{\"type\": \"generate\", \"call\": \"a\", %s}, \"$reply\"]",
                                  cases[i].request);
        assert_script_fails(&fixture, script, ERR_DATA, cases[i].answer);
        free(script);
    }
    assert_int_equal(fixture.talker.calls, 0);
    fixture.talker.status = ERR_RESOURCE;
    assert_script_fails(&fixture, "[" ASK ", \"$reply\"]", ERR_DATA, "the engine says no");
    close_fixture(&fixture);
}

static void test_function_is_told_what_was_generated(void **state)
{
    (void)state;
    Fixture fixture;
    open_fixture(&fixture);
    assert_script_fails(&fixture, "[" ASK ", \"$reply\"]", ERR_DATA,
                        "\"call\": \"a\", \"outputs\": [{\"number\": 0, \"text\": \"0 is five\", "
                        "\"finish\": \"stop\"");
    assert_script_fails(&fixture, "[\"$reply\"]", ERR_DATA, "\"sampling\": {\"temperature\": 1");
    assert_script_fails(&fixture, "[\"$reply\"]", ERR_DATA,
                        "\"repetition_penalty\": 1, \"frequency_penalty\": 0, "
                        "\"presence_penalty\": 0, \"max_new_tokens\": 100, "
                        "\"min_new_tokens\": 0, \"ignore_eos\": false, \"stop\": [], "
                        "\"stop_token_ids\": []}");
    close_fixture(&fixture);
}

static void test_function_that_breaks_the_protocol_is_told_how(void **state)
{
    (void)state;
    Fixture fixture;
    open_fixture(&fixture);
    assert_script_fails(&fixture, "[{\"type\": \"finished\"}]", ERR_INVALID,
                        "expected generate, done or failed");
    assert_script_fails(&fixture, "[{\"type\": \"done\", \"samples\": []}]", ERR_INVALID,
                        "done has 0 samples, expected 1");
    assert_script_fails(&fixture, "[" DONE(QUESTION) "]", ERR_INVALID,
                        "none of the pieces is an output");
    assert_script_fails(&fixture, "[" ASK ", " ASK "]", ERR_INVALID, "no call of its own");
    assert_script_fails(&fixture,
                        "[{\"type\": \"done\", \"samples\": [{\"pieces\": [], \"rewrd\": 1}]}]",
                        ERR_INVALID, "\"rewrd\" is no key of a sample, did you mean reward?");
    assert_script_fails(&fixture,
                        "[{\"type\": \"done\", \"samples\": [{\"rejected\": \"a\", \"zz\": 1}]}]",
                        ERR_INVALID, "what is yours belongs in extra");
    assert_script_fails(&fixture, "[{\"type\": \"failed\", \"error\": \"no label\"}]", ERR_DATA,
                        "the rollout function says: no label");
    close_fixture(&fixture);
}

static void test_samples_may_be_rejected(void **state)
{
    (void)state;
    Fixture fixture;
    Answer sample;
    Error err = {0};
    open_fixture(&fixture);
    assert_ok(run_script(&fixture,
                         "[{\"type\": \"done\", \"samples\": [{\"rejected\": \"too easy\"}]}]", 1,
                         &sample, &err),
              &err);
    assert_int_equal(sample.sample.status, SAMPLE_REJECTED);
    assert_string_equal(sample.sample.reject_message, "too easy");
    assert_int_equal(sample.sample.position, 12);
    answer_clear(&sample);
    close_fixture(&fixture);
}

static void test_function_that_ends_or_is_silent_is_no_fault_of_the_record(void **state)
{
    (void)state;
    Fixture fixture;
    Answer sample;
    Error err = {0};
    open_fixture(&fixture);
    assert_script_fails(&fixture, "[" ASK ", \"crash\"]", ERR_UNAVAILABLE,
                        "exited with status 3: out of cheese");
    Status status = ERR_UNAVAILABLE; /* it is started again */
    for (int i = 0; status == ERR_UNAVAILABLE && i < 200; i++) {
        status = run_script(&fixture, "[" ASK ", " DONE(QUESTION ", {\"output\": [\"a\", 0]}") "]",
                            1, &sample, &err);
        if (status != OK) usleep(20000);
    }
    assert_ok(status, &err);
    answer_clear(&sample);
    assert_script_fails(&fixture, "[" ASK ", \"silent\"]", ERR_TIMEOUT, "no answer in 2000 ms");
    close_fixture(&fixture);
}

typedef struct Neighbour {
    Fixture fixture; /* the same program, an engine of its own */
    Status status;
    Error err;
} Neighbour;

static void *be_silent(void *argument)
{
    Neighbour *neighbour = argument;
    Answer sample;
    neighbour->status =
        run_script(&neighbour->fixture, "[" ASK ", \"silent\"]", 1, &sample, &neighbour->err);
    return NULL;
}

/* A dialogue that is late because the program has another one begins again, alone. */
static void test_function_neighbours_of_a_silent_record_begin_again(void **state)
{
    (void)state;
    Fixture fixture;
    Answer sample;
    Error err = {0};
    pthread_t thread;
    open_fixture(&fixture);
    Neighbour neighbour = {.fixture = fixture};
    assert_int_equal(pthread_create(&thread, NULL, be_silent, &neighbour), 0);
    while (atomic_load(&neighbour.fixture.talker.calls) == 0)
        usleep(1000); /* the other is the program's first */
    assert_ok(run_script(&fixture,
                         "[" ASK ", \"lag\", " DONE(QUESTION ", {\"output\": [\"a\", 0]}") "]", 1,
                         &sample, &err),
              &err);
    pthread_join(thread, NULL);
    assert_fails(neighbour.status, ERR_TIMEOUT, &neighbour.err, "no answer in 2000 ms");
    assert_int_equal(fixture.talker.calls, 2); /* it was asked again */
    answer_clear(&sample);
    close_fixture(&fixture);
}

static void test_engine_that_ends_ends_the_task(void **state)
{
    (void)state;
    Fixture fixture;
    open_fixture(&fixture);
    fixture.talker.status = ERR_CANCELLED;
    assert_script_fails(&fixture, "[" ASK ", \"silent\"]", ERR_CANCELLED, "the engine says no");
    close_fixture(&fixture);
}

typedef struct Asker {
    Fixture fixture; /* a copy: the function and the model are shared */
    pthread_t thread;
    bool right;
} Asker;

static void *ask_often(void *argument)
{
    Asker *asker = argument;
    asker->right = true;
    for (int i = 0; i < 20; i++) {
        Answer sample;
        Error err = {0};
        Status status = run_script(&asker->fixture,
                                   "[" ASK ", " DONE(QUESTION ", {\"output\": [\"a\", 0]}") "]", 1,
                                   &sample, &err);
        asker->right = asker->right && status == OK &&
                       strstr(sample.response, asker->fixture.talker.text) != NULL;
        answer_clear(&sample);
    }
    return NULL;
}

static void test_function_works_on_many_records_at_once(void **state)
{
    (void)state;
    Fixture fixture;
    Asker askers[6];
    static const char *const texts[] = {"one", "two", "three", "four", "five", "six"};
    open_fixture(&fixture);
    for (int i = 0; i < 6; i++) {
        askers[i].fixture = fixture;
        askers[i].fixture.talker.text = texts[i];
        assert_int_equal(pthread_create(&askers[i].thread, NULL, ask_often, &askers[i]), 0);
    }
    for (int i = 0; i < 6; i++) {
        pthread_join(askers[i].thread, NULL);
        assert_true(askers[i].right);
    }
    close_fixture(&fixture);
}

/* The example in Python: asks, lets the model check its answer, and judges. */
static void test_example_in_python_refines_answers(void **state)
{
    (void)state;
    if (access("/usr/bin/python3", X_OK) != 0) {
        print_message("skipped: there is no /usr/bin/python3\n");
        skip();
    }
    Fixture fixture;
    Answer samples[3];
    Error err = {0};
    open_command(&fixture, "{\"command\": [\"/usr/bin/python3\", \"" PROJECT_SOURCE_DIR
                           "/deploy/examples/rollout/refine.py\"]}");
    cJSON *record = cJSON_Parse("{\"messages\": [{\"role\": \"user\", \"content\": \"2+3?\"}], "
                                "\"label\": \"2\"}");
    FunctionTask task = make_task(record, 3);
    FunctionEngine engine = {talk, &fixture.talker};
    task.messages = cJSON_GetObjectItem(record, "messages");
    task.label = "2";
    fixture.talker.text = "the index. The answer is 2";
    assert_ok(process_function_run(fixture.function, &task, &engine, samples, &err), &err);
    for (int i = 0; i < 3; i++) {
        char *expected = mem_printf(
            PROMPT "%d is the index. The answer is 2<|im_end|>\n<|im_start|>user\nCheck this. 2+3?"
                   "<|im_end|>\n<|im_start|>assistant\n"
                   "%d is the index. The answer is 2<|im_end|>",
            i, i);
        assert_text(&fixture, &samples[i].sample, expected);
        assert_true(samples[i].has_reward && samples[i].sample.reward == 1);
        free(expected);
        answer_clear(&samples[i]);
    }
    cJSON_Delete(record);
    close_fixture(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_function_makes_a_group),
        cmocka_unit_test(test_function_makes_several_turns),
        cmocka_unit_test(test_a_request_may_say_all_of_sampling),
        cmocka_unit_test(test_pieces_of_text_and_ids),
        cmocka_unit_test(test_outputs_are_trained_only_behind_their_prompt),
        cmocka_unit_test(test_requests_that_cannot_be_are_answered),
        cmocka_unit_test(test_function_is_told_what_was_generated),
        cmocka_unit_test(test_function_that_breaks_the_protocol_is_told_how),
        cmocka_unit_test(test_samples_may_be_rejected),
        cmocka_unit_test(test_function_that_ends_or_is_silent_is_no_fault_of_the_record),
        cmocka_unit_test(test_function_neighbours_of_a_silent_record_begin_again),
        cmocka_unit_test(test_engine_that_ends_ends_the_task),
        cmocka_unit_test(test_function_works_on_many_records_at_once),
        cmocka_unit_test(test_example_in_python_refines_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
