/* From bodies to prompts and sampling parameters, and what is said of bodies that are wrong. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "rollout_worker/serve/request_rules.h"

#define FOLDER PROJECT_SOURCE_DIR "/deploy/examples/tiny/model"

static TextModel *text;
static ServeModel model = {.name = "tiny", .vocab_size = 1024, .max_length = 64};

static int load_text(void **state)
{
    Error err = {0};
    (void)state;
    assert_ok(text_model_load(FOLDER, NULL, &text, &err), &err);
    model.text = text;
    return 0;
}

static int free_text(void **state)
{
    (void)state;
    text_model_destroy(text);
    return 0;
}

static ServeRequest parse(ServeApi api, const char *body)
{
    ServeRequest request = {0};
    Refusal refusal;
    if (serve_request_parse(&model, api, body, strlen(body), &request, &refusal) != OK)
        fail_msg("%s: %s", body, refusal.error.message);
    return request;
}

static Refusal refused(ServeApi api, const char *body)
{
    ServeRequest request = {0};
    Refusal refusal;
    if (serve_request_parse(&model, api, body, strlen(body), &request, &refusal) == OK)
        fail_msg("taken: %s", body);
    return refusal;
}

/* ---- what is taken ---- */

#define MESSAGES "\"messages\": [{\"role\": \"user\", \"content\": \"2 + 2?\"}]"

static void test_chat_is_rendered_by_the_models_template(void **state)
{
    Error err = {0};
    TokenizedConversation wanted = {0};
    ConversationOptions options = {.add_generation_prompt = true};
    cJSON *messages = cJSON_Parse("[{\"role\": \"user\", \"content\": \"2 + 2?\"}]");
    (void)state;
    assert_ok(conversation_encode(text, NULL, messages, NULL, &options, &wanted, &err), &err);
    ServeRequest request = parse(API_CHAT, "{" MESSAGES ", \"max_completion_tokens\": 7}");
    assert_int_equal(request.num_prompts, 1);
    const ServePrompt *prompt = &request.prompt[0];
    assert_int_equal(prompt->length, wanted.length);
    assert_memory_equal(prompt->token, wanted.token, wanted.length * sizeof *wanted.token);
    assert_int_equal(prompt->params.max_new_tokens, 7);
    assert_true(prompt->params.temperature == 1.0 && prompt->params.top_p == 1.0);
    serve_request_clear(&request);
    tokenized_conversation_free(&wanted);
    cJSON_Delete(messages);
}

static void test_chat_without_a_limit_may_fill_the_room(void **state)
{
    (void)state;
    ServeRequest request = parse(API_CHAT, "{" MESSAGES "}");
    assert_int_equal(request.prompt[0].params.max_new_tokens, 64 - request.prompt[0].length);
    serve_request_clear(&request);
}

static void test_sampling_fields_arrive(void **state)
{
    (void)state;
    ServeRequest request =
        parse(API_CHAT, "{" MESSAGES ", \"temperature\": 0.5, \"top_p\": 0.9, \"top_k\": 5, "
                        "\"min_p\": 0.1, \"repetition_penalty\": 1.5, \"frequency_penalty\": -1, "
                        "\"presence_penalty\": 2, \"stop\": [\"a\", \"bc\"], "
                        "\"stop_token_ids\": [7], \"ignore_eos\": true, \"seed\": 42, \"n\": 3, "
                        "\"min_tokens\": 2, \"max_tokens\": 9, \"logprobs\": true, "
                        "\"stream\": true, \"stream_options\": {\"include_usage\": true}, "
                        "\"user\": \"me\", \"response_format\": {\"type\": \"text\"}, "
                        "\"logit_bias\": {}, \"functions\": null, \"model\": \"tiny\"}");
    const SamplingParams *p = &request.prompt[0].params;
    assert_true(p->temperature == 0.5 && p->top_p == 0.9 && p->top_k == 5 && p->min_p == 0.1);
    assert_true(p->repetition_penalty == 1.5 && p->frequency_penalty == -1.0 &&
                p->presence_penalty == 2.0);
    assert_int_equal(p->num_stop, 2);
    assert_string_equal(p->stop[1], "bc");
    assert_int_equal(p->stop_token_id[0], 7);
    assert_true(p->ignore_eos && p->seed == 42);
    assert_int_equal(p->min_new_tokens, 2);
    assert_int_equal(request.prompt[0].n, 3);
    assert_true(request.stream && request.include_usage && request.logprobs);
    serve_request_clear(&request);
}

static void test_without_a_seed_each_request_draws_its_own(void **state)
{
    (void)state;
    ServeRequest a = parse(API_CHAT, "{" MESSAGES "}"), b = parse(API_CHAT, "{" MESSAGES "}");
    assert_true(a.prompt[0].params.seed != b.prompt[0].params.seed);
    serve_request_clear(&a);
    serve_request_clear(&b);
}

static void test_completion_takes_all_forms_of_prompts(void **state)
{
    (void)state;
    ServeRequest ids = parse(API_COMPLETION, "{\"prompt\": [1, 2, 3], \"echo\": true}");
    assert_int_equal(ids.num_prompts, 1);
    assert_int_equal(ids.prompt[0].token[2], 3);
    assert_int_equal(ids.prompt[0].params.max_new_tokens, 16);
    assert_non_null(ids.prompt[0].text);
    ServeRequest texts = parse(API_COMPLETION, "{\"prompt\": [\"a\", \"b b\"], \"n\": 2}");
    assert_int_equal(texts.num_prompts, 2);
    assert_int_equal(serve_request_samples(&texts), 4);
    ServeRequest lists = parse(API_COMPLETION, "{\"prompt\": [[5], [6, 7]], \"logprobs\": 0}");
    assert_int_equal(lists.prompt[1].length, 2);
    assert_true(lists.logprobs);
    serve_request_clear(&ids);
    serve_request_clear(&texts);
    serve_request_clear(&lists);
}

static void test_generate_takes_parameters_for_each_prompt(void **state)
{
    (void)state;
    ServeRequest one = parse(API_GENERATE, "{\"input_ids\": [1, 2], \"return_logprob\": true, "
                                           "\"rid\": \"x\", \"sampling_params\": "
                                           "{\"max_new_tokens\": 3, \"temperature\": 0}}");
    assert_false(one.batched);
    assert_true(one.logprobs);
    assert_string_equal(one.rid, "x");
    assert_true(one.prompt[0].params.temperature == 0.0);
    ServeRequest two =
        parse(API_GENERATE, "{\"text\": [\"a\", \"b\"], \"sampling_params\": "
                            "[{\"max_new_tokens\": 3}, {\"n\": 2, \"sampling_seed\": 9}]}");
    assert_true(two.batched);
    assert_int_equal(two.prompt[0].params.max_new_tokens, 3);
    assert_int_equal(two.prompt[1].params.seed, 9);
    assert_int_equal(serve_request_samples(&two), 3);
    serve_request_clear(&one);
    serve_request_clear(&two);
}

static void test_a_limit_beyond_the_room_is_an_upper_bound(void **state)
{
    (void)state;
    ServeRequest request = parse(API_COMPLETION, "{\"prompt\": [1], \"max_tokens\": 100000}");
    assert_int_equal(request.prompt[0].params.max_new_tokens, 63);
    serve_request_clear(&request);
}

/* ---- what is refused ---- */

typedef struct Mistake {
    ServeApi api;
    const char *body, *param, *message;
    int http_status;
} Mistake;

static const Mistake MISTAKES[] = {
    {API_CHAT, "{", "", "ends too soon", 400},
    {API_CHAT, "[]", "", "the body is a list, expected a JSON object", 400},
    {API_CHAT, "{}", "messages", "messages is missing", 400},
    {API_CHAT, "{\"messages\": []}", "messages", "an empty list", 400},
    {API_CHAT, "{\"messages\": [{\"role\": \"usr\", \"content\": \"x\"}]}", "messages[0].role",
     "did you mean \"user\"", 400},
    {API_CHAT, "{" MESSAGES ", \"temprature\": 1}", "temprature", "Did you mean temperature?", 400},
    {API_CHAT, "{" MESSAGES ", \"temperature\": \"hot\"}", "temperature",
     "temperature is a string, expected a number", 400},
    {API_CHAT, "{" MESSAGES ", \"temperature\": -1}", "temperature", "from 0 to 100", 400},
    {API_CHAT, "{" MESSAGES ", \"temperature\": 0.001}", "temperature", "0.01 to 100", 400},
    {API_CHAT, "{" MESSAGES ", \"top_p\": 0}", "top_p", "top_p is 0", 400},
    {API_CHAT, "{" MESSAGES ", \"n\": 1.5}", "n", "n is 1.5", 400},
    {API_CHAT, "{" MESSAGES ", \"n\": 100000}", "n", "from 1 to 1024", 400},
    {API_CHAT, "{" MESSAGES ", \"stream\": 1}", "stream", "expected true or false", 400},
    {API_CHAT, "{" MESSAGES ", \"stop\": [1]}", "stop", "stop has a number in it", 400},
    {API_CHAT, "{" MESSAGES ", \"stop\": \"\"}", "stop", "0 bytes", 400},
    {API_CHAT, "{" MESSAGES ", \"stop_token_ids\": [5000]}", "stop_token_ids", "0 to 1023", 400},
    {API_CHAT, "{" MESSAGES ", \"top_logprobs\": 5}", "top_logprobs", "only the chosen tokens",
     400},
    {API_CHAT, "{" MESSAGES ", \"response_format\": {\"type\": \"json_object\"}}",
     "response_format", "json_object", 400},
    {API_CHAT, "{" MESSAGES ", \"tool_choice\": \"required\"}", "tool_choice",
     "accepted are \"auto\" and \"none\"", 400},
    {API_CHAT, "{" MESSAGES ", \"tools\": 3}", "tools", "tools is a number", 400},
    {API_CHAT, "{" MESSAGES ", \"logit_bias\": {\"5\": 1}}", "logit_bias", "not offered", 400},
    {API_CHAT, "{" MESSAGES ", \"reasoning_effort\": \"low\"}", "reasoning_effort",
     "chat_template_kwargs", 400},
    {API_CHAT, "{" MESSAGES ", \"chat_template_kwargs\": {\"messages\": 1}}",
     "chat_template_kwargs", "messages", 400},
    {API_CHAT, "{" MESSAGES ", \"stream_options\": {\"include_usage\": true}}", "stream_options",
     "\"stream\": true", 400},
    {API_CHAT, "{" MESSAGES ", \"stream_options\": {\"usage\": true}}", "stream_options.usage",
     "Unknown parameter", 400},
    {API_CHAT, "{" MESSAGES ", \"model\": \"gpt\"}", "model", "this server has tiny", 404},
    {API_CHAT, "{" MESSAGES ", \"min_tokens\": 5, \"max_tokens\": 3}", "min_tokens", "at most 3",
     400},
    {API_CHAT, "{" MESSAGES ", \"seed\": 1.5}", "seed", "whole number", 400},
    {API_COMPLETION, "{}", "prompt", "prompt is missing", 400},
    {API_COMPLETION, "{\"prompt\": []}", "prompt", "no tokens", 400},
    {API_COMPLETION, "{\"prompt\": \"\"}", "prompt", "no tokens", 400},
    {API_COMPLETION, "{\"prompt\": [1, -2]}", "prompt", "prompt[1] is not a token id", 400},
    {API_COMPLETION, "{\"prompt\": [1, 1024]}", "prompt", "0 to 1023", 400},
    {API_COMPLETION, "{\"prompt\": {\"a\": 1}}", "prompt", "an object", 400},
    {API_COMPLETION, "{\"prompt\": \"a\", \"logprobs\": 3}", "logprobs", "alternatives", 400},
    {API_COMPLETION, "{\"prompt\": \"a\", \"best_of\": 3}", "best_of", "not ranked", 400},
    {API_COMPLETION, "{\"prompt\": \"a\", \"echo\": true, \"logprobs\": 0}", "echo",
     "only generated tokens", 400},
    {API_COMPLETION, "{\"prompt\": \"a\", \"suffix\": \"b\"}", "suffix", "not filled in", 400},
    {API_GENERATE, "{}", "text", "none of text and input_ids", 400},
    {API_GENERATE, "{\"text\": \"a\", \"input_ids\": [1]}", "text", "both", 400},
    {API_GENERATE, "{\"text\": [1]}", "text", "input_ids", 400},
    {API_GENERATE, "{\"input_ids\": [1], \"sampling_params\": {\"max_tokens\": 3}}",
     "sampling_params.max_tokens", "Unknown parameter", 400},
    {API_GENERATE, "{\"input_ids\": [1], \"sampling_params\": {\"regex\": \"a\"}}",
     "sampling_params.regex", "not offered", 400},
    {API_GENERATE, "{\"input_ids\": [[1], [2]], \"sampling_params\": [{}]}", "sampling_params",
     "one for each prompt", 400},
    {API_GENERATE, "{\"input_ids\": [1, 2], \"logprob_start_len\": 0}", "logprob_start_len",
     "accepted is -1", 400},
    {API_GENERATE, "{\"input_ids\": [1], \"image_data\": \"x\"}", "image_data", "takes text", 400},
};

static void test_mistakes_name_field_value_and_what_is_accepted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof MISTAKES / sizeof *MISTAKES; i++) {
        const Mistake *mistake = &MISTAKES[i];
        Refusal refusal = refused(mistake->api, mistake->body);
        if (strcmp(refusal.param, mistake->param) != 0 ||
            strstr(refusal.error.message, mistake->message) == NULL ||
            refusal_http_status(&refusal) != mistake->http_status)
            fail_msg("%s gave param \"%s\", HTTP %d: %s", mistake->body, refusal.param,
                     refusal_http_status(&refusal), refusal.error.message);
    }
}

static void test_a_prompt_without_room_for_an_answer_is_refused(void **state)
{
    Str body = {0};
    (void)state;
    for (int i = 0; i < 64; i++)
        str_printf(&body, "%s1", i == 0 ? "{\"prompt\": [" : ", ");
    str_puts(&body, "]}");
    Refusal refusal = refused(API_COMPLETION, str_text(&body));
    assert_string_equal(refusal.code, "context_length_exceeded");
    str_free(&body);
}

/* ---- the page ---- */

static void check_page(const char *page, FieldTable table)
{
    for (size_t i = 0; i < table.count; i++) {
        char name[80];
        snprintf(name, sizeof name, "`%s`", table.rule[i].name);
        if (strstr(page, name) == NULL) fail_msg("docs/serving.md does not tell of %s", name);
    }
}

static void test_every_field_stands_in_the_page(void **state)
{
    Error err = {0};
    char *page = NULL;
    size_t length = 0;
    (void)state;
    assert_ok(file_read(PROJECT_SOURCE_DIR "/docs/serving.md", 1 << 20, &page, &length, &err),
              &err);
    check_page(page, request_rules(API_CHAT));
    check_page(page, request_rules(API_COMPLETION));
    check_page(page, request_rules(API_GENERATE));
    check_page(page, sampling_rules());
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat_is_rendered_by_the_models_template),
        cmocka_unit_test(test_chat_without_a_limit_may_fill_the_room),
        cmocka_unit_test(test_sampling_fields_arrive),
        cmocka_unit_test(test_without_a_seed_each_request_draws_its_own),
        cmocka_unit_test(test_completion_takes_all_forms_of_prompts),
        cmocka_unit_test(test_generate_takes_parameters_for_each_prompt),
        cmocka_unit_test(test_a_limit_beyond_the_room_is_an_upper_bound),
        cmocka_unit_test(test_mistakes_name_field_value_and_what_is_accepted),
        cmocka_unit_test(test_a_prompt_without_room_for_an_answer_is_refused),
        cmocka_unit_test(test_every_field_stands_in_the_page),
    };
    return cmocka_run_group_tests(tests, load_text, free_text);
}
