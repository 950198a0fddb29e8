/* What clients see of samples as they come: text, streams, answers; with a generator that says
 * what the test tells it to, over a vocabulary whose characters are cut into tokens everywhere. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "rollout_worker/serve/answer.h"
#include "tiny_tokenizer.h"

static Tokenizer *tokenizer;

static int make_tokenizer(void **state)
{
    (void)state;
    tokenizer = tiny_tokenizer();
    return 0;
}

static int free_tokenizer(void **state)
{
    (void)state;
    tokenizer_destroy(tokenizer);
    return 0;
}

/* ---- text ---- */

/* A token whose text is that, or the piece of a character. */
static int32_t token_of(const char *spelled)
{
    int32_t id = tokenizer_token_id(tokenizer, spelled);
    assert_true(id >= 0);
    return id;
}

static SamplingParams with_stops(const char *const *stop, int count)
{
    SamplingParams params = sampling_defaults();
    params.stop = stop;
    params.num_stop = count;
    return params;
}

typedef struct Shown {
    ChoiceText text;
    Str out; /* what a stream has given out */
} Shown;

static void push(Shown *shown, const char *spelled)
{
    Error err = {0};
    ChoiceText *text = &shown->text;
    assert_ok(choice_text_push(text, token_of(spelled), &err), &err);
    assert_true(text->certain >= text->sent);
    str_append(&shown->out, str_text(&text->text) + text->sent, text->certain - text->sent);
    text->sent = text->certain;
}

static void finish(Shown *shown, int stop, const char *expected)
{
    Error err = {0};
    ChoiceText *text = &shown->text;
    assert_ok(choice_text_finish(text, stop, &err), &err);
    assert_true(text->certain >= text->sent);
    str_append(&shown->out, str_text(&text->text) + text->sent, text->certain - text->sent);
    assert_string_equal(str_text(&shown->out), expected);
    str_free(&shown->out);
    choice_text_clear(text);
}

static void test_text_holds_back_what_may_be_a_stop(void **state)
{
    static const char *const STOPS[] = {"bcd", "ba"};
    SamplingParams params = with_stops(STOPS, 2);
    Shown shown = {0};
    (void)state;
    choice_text_init(&shown.text, tokenizer, &params, false, false);
    push(&shown, "ab");
    assert_string_equal(str_text(&shown.out), "a"); /* b may begin either */
    push(&shown, "c");
    assert_string_equal(str_text(&shown.out), "a");
    push(&shown, "c");
    assert_string_equal(str_text(&shown.out), "abcc"); /* it was none */
    push(&shown, "bc");
    push(&shown, "da"); /* ends in the middle of the token, before its result is there */
    assert_string_equal(str_text(&shown.out), "abcc");
    finish(&shown, 0, "abcc");
}

static void test_text_keeps_the_stop_when_asked(void **state)
{
    static const char *const STOPS[] = {"cd"};
    SamplingParams params = with_stops(STOPS, 1);
    Shown shown = {0};
    (void)state;
    choice_text_init(&shown.text, tokenizer, &params, false, true);
    push(&shown, "ac");
    assert_string_equal(str_text(&shown.out), "ac");
    push(&shown, "da");
    finish(&shown, 0, "acda");
}

static void test_text_held_back_comes_at_the_end(void **state)
{
    static const char *const STOPS[] = {"dddd"};
    SamplingParams params = with_stops(STOPS, 1);
    Shown shown = {0};
    (void)state;
    choice_text_init(&shown.text, tokenizer, &params, false, false);
    push(&shown, "dd");
    assert_string_equal(str_text(&shown.out), "");
    finish(&shown, -1, "dd");
}

static void test_a_stop_before_its_time_stays_in_the_text(void **state)
{
    /* min_new_tokens: the first "ab" stopped nothing, the second did */
    static const char *const STOPS[] = {"ab"};
    SamplingParams params = with_stops(STOPS, 1);
    params.min_new_tokens = 3;
    Shown shown = {0};
    (void)state;
    choice_text_init(&shown.text, tokenizer, &params, false, false);
    push(&shown, "ab");
    assert_string_equal(str_text(&shown.out), "ab");
    push(&shown, "c");
    push(&shown, "a");
    push(&shown, "b");
    finish(&shown, 0, "abc");
}

static void test_text_never_has_half_a_character(void **state)
{
    SamplingParams params = sampling_defaults();
    Shown shown = {0};
    (void)state;
    choice_text_init(&shown.text, tokenizer, &params, false, false);
    push(&shown, "a");
    push(&shown, "\u00c3"); /* how byte-level vocabularies spell the first byte of e acute */
    assert_string_equal(str_text(&shown.out), "a");
    push(&shown, "\u00a9");
    assert_string_equal(str_text(&shown.out), "a\u00e9");
    push(&shown, "\u00c3");
    finish(&shown, -1, "a\u00e9\uFFFD");
}

/* ---- answers, from a generator that the test plays ---- */

static TextModel *text;
static ServeModel model = {.name = "tiny", .vocab_size = 1024, .max_length = 64, .created = 7};

static int load_text(void **state)
{
    Error err = {0};
    (void)state;
    assert_ok(text_model_load(PROJECT_SOURCE_DIR "/deploy/examples/tiny/model", NULL, &text, &err),
              &err);
    model.text = text;
    return make_tokenizer(state);
}

static int free_text(void **state)
{
    text_model_destroy(text);
    return free_tokenizer(state);
}

typedef struct Played {
    GenerationSink sink[8]; /* of each prompt; its samples count from 0 */
    int count, aborted;
} Played;

static Status play_submit(void *self, const GenerateRequest *request, const GenerationSink *sink,
                          uint64_t *ret_id, Error *err)
{
    Played *played = self;
    if (request->prompt[0] == 1000) return error_set(err, ERR_RESOURCE, "full");
    played->sink[played->count] = *sink;
    *ret_id = (uint64_t)played->count++;
    return OK;
}

/* The sample's tokens are those of a text, and it ends. */
static void play_result(Played *played, int prompt, uint32_t index, const char *says,
                        Generation ends)
{
    Error err = {0};
    Encoding encoding = {0};
    Generation result = ends;
    assert_ok(tokenizer_encode(text_model_tokenizer(text), NULL, says, strlen(says), NULL, false,
                               &encoding, &err),
              &err);
    result.index = index;
    result.length = (int32_t)encoding.length;
    result.token = mem_calloc(encoding.length + 1, sizeof *result.token);
    result.log_prob = mem_calloc(encoding.length + 1, sizeof *result.log_prob);
    result.version_run = mem_calloc(1, sizeof *result.version_run);
    result.version_run[0] = (VersionRun){3, result.length};
    result.num_version_runs = 1;
    for (size_t i = 0; i < encoding.length; i++) {
        result.token[i] = encoding.span[i].id;
        result.log_prob[i] = -0.5f * (float)(i + 1);
    }
    encoding_free(&encoding);
    GenerationSink sink = played->sink[prompt];
    sink.on_result(sink.context, &result);
}

/* The next token of a sample that goes on. */
static void play_token(Played *played, int prompt, uint32_t index, int32_t token)
{
    TokenEvent event = {(uint64_t)prompt, index, token, -1.0f};
    played->sink[prompt].on_token(played->sink[prompt].context, &event);
}

static void play_abort(void *self, uint64_t id)
{
    Played *played = self;
    played->aborted++;
    play_result(played, (int)id, 0, "",
                (Generation){.finish = FINISH_ABORT, .stop_token = -1, .stop_string = -1});
}

static GeneratorState play_state(void *self)
{
    (void)self;
    return (GeneratorState){.weight_version = 3, .ready = true};
}

static Status begin(Played *played, ServeApi api, const char *body, Call **ret, Refusal *refusal)
{
    Generator generator = {play_submit, play_abort, play_state, played};
    ServeRequest request = {0};
    TRY(serve_request_parse(&model, api, body, strlen(body), &request, refusal));
    return call_start(&generator, &model, &request, ret, refusal);
}

static Call *start(Played *played, ServeApi api, const char *body)
{
    Refusal refusal = {0};
    Call *call = NULL;
    if (begin(played, api, body, &call, &refusal) != OK)
        fail_msg("%s: %s", body, refusal.error.message);
    return call;
}

static void wait_for(Call *call)
{
    Refusal refusal = {0};
    assert_ok(call_wait(call, -1, &refusal), &refusal.error);
}

static cJSON *whole(const Call *call)
{
    Str out = {0};
    assert_true(call_is_finished(call));
    answer_whole(call, &out);
    cJSON *json = cJSON_ParseWithLength(out.data, out.length);
    assert_non_null(json);
    str_free(&out);
    return json;
}

/* Follows a path such as "choices.0.message.content". */
static const cJSON *at(const cJSON *json, const char *path)
{
    char part[64];
    while (*path != '\0' && json != NULL) {
        size_t n = strcspn(path, ".");
        snprintf(part, sizeof part, "%.*s", (int)n, path);
        json = cJSON_IsArray(json) ? cJSON_GetArrayItem(json, atoi(part))
                                   : cJSON_GetObjectItemCaseSensitive(json, part);
        path += n + (path[n] == '.');
    }
    if (json == NULL) fail_msg("nothing at %s", path);
    return json;
}

static const char *text_at(const cJSON *json, const char *path)
{
    const cJSON *value = at(json, path);
    if (!cJSON_IsString(value)) fail_msg("%s is no string", path);
    return value->valuestring;
}

static int int_at(const cJSON *json, const char *path)
{
    return at(json, path)->valueint;
}

static const Generation BY_LENGTH = {
    .finish = FINISH_LENGTH, .stop_token = -1, .stop_string = -1, .found_tokens = 2};

static void test_chat_answer_has_the_form_of_openais(void **state)
{
    Played played = {0};
    (void)state;
    Call *call = start(&played, API_CHAT,
                       "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"n\": 2, "
                       "\"logprobs\": true, \"stop\": [\"apples\"]}");
    play_result(&played, 0, 1, "3 \"apples", (Generation){.finish = FINISH_STOP, .stop_token = -1});
    play_result(&played, 0, 0, "four", BY_LENGTH);
    wait_for(call);
    cJSON *json = whole(call);
    assert_string_equal(text_at(json, "object"), "chat.completion");
    assert_string_equal(text_at(json, "model"), "tiny");
    assert_string_equal(text_at(json, "choices.0.message.content"), "four");
    assert_string_equal(text_at(json, "choices.0.message.role"), "assistant");
    assert_string_equal(text_at(json, "choices.0.finish_reason"), "length");
    assert_string_equal(text_at(json, "choices.1.message.content"), "3 \"");
    assert_string_equal(text_at(json, "choices.1.finish_reason"), "stop");
    assert_string_equal(text_at(json, "choices.1.stop_reason"), "apples");
    int made = call->choice[0].length + call->choice[1].length;
    assert_int_equal(cJSON_GetArraySize(at(json, "choices.1.logprobs.content")),
                     call->choice[1].length);
    assert_true(at(json, "choices.1.logprobs.content.0.logprob")->valuedouble == -0.5);
    assert_int_equal(int_at(json, "usage.completion_tokens"), made);
    assert_int_equal(int_at(json, "usage.prompt_tokens"), call->request.prompt[0].length);
    assert_int_equal(int_at(json, "usage.total_tokens"), made + call->request.prompt[0].length);
    assert_int_equal(int_at(json, "usage.prompt_tokens_details.cached_tokens"), 2);
    cJSON_Delete(json);
    call_destroy(call);
    assert_int_equal(played.aborted, 0);
}

static void test_completion_answer_counts_choices_over_prompts(void **state)
{
    Played played = {0};
    (void)state;
    Call *call = start(&played, API_COMPLETION,
                       "{\"prompt\": [\"Ada\", \"Bela\"], \"n\": 2, \"echo\": true}");
    play_result(&played, 1, 1, " d", BY_LENGTH);
    play_result(&played, 0, 0, " a", BY_LENGTH);
    play_result(&played, 0, 1, " b", BY_LENGTH);
    play_result(&played, 1, 0, " c", BY_LENGTH);
    wait_for(call);
    cJSON *json = whole(call);
    assert_string_equal(text_at(json, "choices.0.text"), "Ada a");
    assert_string_equal(text_at(json, "choices.1.text"), "Ada b");
    assert_string_equal(text_at(json, "choices.2.text"), "Bela c");
    assert_string_equal(text_at(json, "choices.3.text"), "Bela d");
    cJSON_Delete(json);
    call_destroy(call);
}

static void test_generate_answer_has_the_form_of_sglangs(void **state)
{
    Played played = {0};
    (void)state;
    Call *call = start(&played, API_GENERATE,
                       "{\"input_ids\": [5, 6], \"return_logprob\": true, \"rid\": \"r1\", "
                       "\"return_text_in_logprobs\": true, \"sampling_params\": {\"seed\": 9}}");
    Generation ends = {.finish = FINISH_STOP, .stop_token = 1023, .stop_string = -1};
    play_result(&played, 0, 0, "12", ends);
    wait_for(call);
    cJSON *json = whole(call);
    assert_string_equal(text_at(json, "text"), "12");
    assert_int_equal(cJSON_GetArraySize(at(json, "output_ids")), 2);
    assert_string_equal(text_at(json, "meta_info.id"), "r1");
    assert_string_equal(text_at(json, "meta_info.finish_reason.type"), "stop");
    assert_int_equal(int_at(json, "meta_info.finish_reason.matched"), 1023);
    assert_int_equal(int_at(json, "meta_info.prompt_tokens"), 2);
    assert_int_equal(int_at(json, "meta_info.completion_tokens"), 2);
    assert_string_equal(text_at(json, "meta_info.weight_version"), "3");
    assert_int_equal(int_at(json, "meta_info.version_runs.0.1"), 2);
    assert_int_equal(int_at(json, "meta_info.seed"), 9);
    assert_true(at(json, "meta_info.output_token_logprobs.1.0")->valuedouble == -1.0);
    assert_int_equal(int_at(json, "meta_info.output_token_logprobs.1.1"),
                     int_at(json, "output_ids.1"));
    assert_string_equal(text_at(json, "meta_info.output_token_logprobs.1.2"), "2");
    cJSON_Delete(json);
    call_destroy(call);
}

static void test_log_probs_come_back_to_the_bit(void **state)
{
    Str out = {0};
    (void)state;
    for (int i = 1; i < 1000; i++) {
        float value = -1.0f / (float)i * 3.7f;
        str_clear(&out);
        answer_append_log_prob(value, &out);
        assert_true(strtof(str_text(&out), NULL) == value);
    }
    str_free(&out);
}

/* Takes the events of a stream apart: the texts of one choice one after the other, and how many
 * have a finish_reason. */
static void read_events(const char *events, int choice, Str *ret_text, int *ret_ends)
{
    for (const char *line = strstr(events, "data: "); line != NULL;
         line = strstr(line + 1, "data: ")) {
        if (strncmp(line, "data: [DONE]", 12) == 0) continue;
        cJSON *json = cJSON_ParseWithOpts(line + 6, NULL, false);
        assert_non_null(json);
        const cJSON *one = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "choices"), 0);
        if (one != NULL && int_at(one, "index") == choice) {
            const cJSON *content =
                cJSON_GetObjectItem(cJSON_GetObjectItem(one, "delta"), "content");
            if (content != NULL) str_puts(ret_text, content->valuestring);
            *ret_ends += cJSON_IsString(cJSON_GetObjectItem(one, "finish_reason"));
        }
        cJSON_Delete(json);
    }
}

static void test_stream_pieces_make_the_whole(void **state)
{
    Played played = {0};
    Str events = {0}, said = {0};
    int ends = 0;
    (void)state;
    Call *call = start(&played, API_CHAT,
                       "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"n\": 2, "
                       "\"stream\": true, \"stream_options\": {\"include_usage\": true}}");
    int32_t one = tokenizer_token_id(text_model_tokenizer(text), "1");
    for (int i = 0; i < 3; i++) {
        play_token(&played, 0, 1, one);
        wait_for(call);
        answer_events(call, &events);
    }
    assert_true(str_starts_with(str_text(&events), "data: {"));
    read_events(str_text(&events), 1, &said, &ends);
    assert_string_equal(str_text(&said), "111");
    assert_int_equal(ends, 0);
    assert_null(strstr(str_text(&events), "[DONE]"));
    play_result(&played, 0, 1, "1111", BY_LENGTH);
    play_result(&played, 0, 0, "22", BY_LENGTH);
    wait_for(call);
    answer_events(call, &events);
    str_clear(&said);
    read_events(str_text(&events), 1, &said, &ends);
    read_events(str_text(&events), 0, &said, &ends);
    assert_string_equal(str_text(&said), "111122");
    assert_int_equal(ends, 2);
    assert_true(str_ends_with(str_text(&events), "data: [DONE]\n\n"));
    assert_non_null(strstr(str_text(&events), "\"choices\":[],\"usage\":{\"prompt_tokens\""));
    str_free(&events);
    str_free(&said);
    call_destroy(call);
}

#define WITH_TOOLS                                                                                 \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"tools\": [{\"type\": "           \
    "\"function\", \"function\": {\"name\": \"add\"}}]"
#define CALLS                                                                                      \
    "I look.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>\n"         \
    "<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>"

static void learn_hermes(void)
{
    Error err = {0};
    assert_ok(tool_format_find("hermes", &model.tool_format, &err), &err);
}

static void test_calls_of_tools_are_taken_out_of_the_text(void **state)
{
    Played played = {0};
    Generation ends = {.finish = FINISH_STOP, .stop_token = 1023, .stop_string = -1};
    (void)state;
    learn_hermes();
    Call *call = start(&played, API_CHAT, WITH_TOOLS ", \"n\": 3}");
    play_result(&played, 0, 0, CALLS, ends);
    play_result(&played, 0, 1, "<tool_call>\n{\"name\": \"add\"", ends); /* broken off */
    play_result(&played, 0, 2, "none", ends);
    wait_for(call);
    cJSON *json = whole(call);
    assert_string_equal(text_at(json, "choices.0.message.content"), "I look.");
    assert_string_equal(text_at(json, "choices.0.message.tool_calls.0.function.name"), "add");
    assert_string_equal(text_at(json, "choices.0.message.tool_calls.0.function.arguments"),
                        "{\"a\":1}");
    assert_string_equal(text_at(json, "choices.0.message.tool_calls.1.function.arguments"), "{}");
    assert_string_not_equal(text_at(json, "choices.0.message.tool_calls.0.id"),
                            text_at(json, "choices.0.message.tool_calls.1.id"));
    assert_string_equal(text_at(json, "choices.0.finish_reason"), "tool_calls");
    assert_string_equal(text_at(json, "choices.1.message.content"),
                        "<tool_call>\n{\"name\": \"add\"");
    assert_string_equal(text_at(json, "choices.1.finish_reason"), "stop");
    assert_string_equal(text_at(json, "choices.2.message.content"), "none");
    assert_null(cJSON_GetObjectItem(at(json, "choices.2.message"), "tool_calls"));
    cJSON_Delete(json);
    call_destroy(call);
}

static void test_calls_of_tools_end_a_stream(void **state)
{
    Played played = {0};
    Str events = {0}, said = {0};
    int ends = 0;
    (void)state;
    learn_hermes();
    Call *call = start(&played, API_CHAT, WITH_TOOLS ", \"stream\": true}");
    Encoding encoding = {0};
    Error err = {0};
    assert_ok(tokenizer_encode(text_model_tokenizer(text), NULL, CALLS, strlen(CALLS), NULL, false,
                               &encoding, &err),
              &err);
    for (size_t i = 0; i + 1 < encoding.length; i++) {
        play_token(&played, 0, 0, encoding.span[i].id);
        wait_for(call);
        answer_events(call, &events);
    }
    encoding_free(&encoding);
    assert_null(strstr(str_text(&events), "tool_call"));
    play_result(&played, 0, 0, CALLS, (Generation){.finish = FINISH_STOP, .stop_string = -1});
    wait_for(call);
    answer_events(call, &events);
    read_events(str_text(&events), 0, &said, &ends);
    assert_true(str_starts_with(str_text(&said), "I look."));
    assert_null(strstr(str_text(&said), "<"));
    assert_non_null(strstr(str_text(&events), "\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":"));
    assert_non_null(strstr(str_text(&events), "\"finish_reason\":\"tool_calls\""));
    str_free(&events);
    str_free(&said);
    call_destroy(call);
}

static void test_a_call_that_is_left_is_aborted(void **state)
{
    Played played = {0};
    (void)state;
    Call *call = start(&played, API_COMPLETION, "{\"prompt\": [\"Ada\", \"Bela\"]}");
    call_destroy(call);
    assert_int_equal(played.aborted, 2);
}

static void test_a_call_that_is_half_taken_is_undone(void **state)
{
    Played played = {0};
    Refusal refusal = {0};
    Call *call = NULL;
    (void)state;
    assert_int_equal(
        begin(&played, API_COMPLETION, "{\"prompt\": [[5, 6], [1000]]}", &call, &refusal),
        ERR_RESOURCE);
    assert_int_equal(refusal_http_status(&refusal), 429);
    assert_int_equal(played.aborted, 1);
}

static void test_a_failure_ends_the_wait(void **state)
{
    Played played = {0};
    Refusal refusal = {0};
    Error lost = {ERR_INTERNAL, "lost"};
    (void)state;
    Call *call = start(&played, API_COMPLETION, "{\"prompt\": \"Ada\"}");
    played.sink[0].on_failure(played.sink[0].context, &lost);
    assert_int_equal(call_wait(call, -1, &refusal), ERR_INTERNAL);
    assert_int_equal(refusal_http_status(&refusal), 500);
    call_destroy(call);
    assert_int_equal(played.aborted, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_holds_back_what_may_be_a_stop),
        cmocka_unit_test(test_text_keeps_the_stop_when_asked),
        cmocka_unit_test(test_text_held_back_comes_at_the_end),
        cmocka_unit_test(test_a_stop_before_its_time_stays_in_the_text),
        cmocka_unit_test(test_text_never_has_half_a_character),
        cmocka_unit_test(test_chat_answer_has_the_form_of_openais),
        cmocka_unit_test(test_completion_answer_counts_choices_over_prompts),
        cmocka_unit_test(test_generate_answer_has_the_form_of_sglangs),
        cmocka_unit_test(test_log_probs_come_back_to_the_bit),
        cmocka_unit_test(test_stream_pieces_make_the_whole),
        cmocka_unit_test(test_calls_of_tools_are_taken_out_of_the_text),
        cmocka_unit_test(test_calls_of_tools_end_a_stream),
        cmocka_unit_test(test_a_call_that_is_left_is_aborted),
        cmocka_unit_test(test_a_call_that_is_half_taken_is_undone),
        cmocka_unit_test(test_a_failure_ends_the_wait),
    };
    return cmocka_run_group_tests(tests, load_text, free_text);
}
