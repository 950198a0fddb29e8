/* Tests of the rewards outside of this process: programs over JSON lines, servers, shared objects.
 * What they say arrives, and whatever goes wrong with them is never a score. */
#include "test.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/process.h"
#include "base/str.h"
#include "http_server.h"
#include "rollout_worker/reward/reward_set.h"

#define BIN PROJECT_BINARY_DIR "/bin/"

static RewardSet *open_rewards(const char *spec)
{
    Error err = {0};
    cJSON *json = NULL;
    RewardSet *set = NULL;
    assert_ok(json_parse(spec, strlen(spec), "spec", &json, &err), &err);
    assert_ok(reward_set_open(json, &set, &err), &err);
    cJSON_Delete(json);
    return set;
}

static void assert_not_opened(const char *spec, const char *message)
{
    Error err = {0};
    cJSON *json = NULL;
    RewardSet *set = NULL;
    assert_ok(json_parse(spec, strlen(spec), "spec", &json, &err), &err);
    assert_int_not_equal(reward_set_open(json, &set, &err), OK);
    if (strstr(err.message, message) == NULL) fail_msg("%s lacks %s", err.message, message);
    cJSON_Delete(json);
}

static RewardResult score(RewardSet *set, const char *response)
{
    RewardRequest request = {.prompt = slice_from("say \"it\"\n"),
                             .response = slice_from(response),
                             .label = slice_from("label"),
                             .position = 12,
                             .index = 3};
    RewardResult result;
    reward_set_score(set, &request, 1, &result);
    free(result.extra);
    result.extra = NULL;
    return result;
}

static RewardSet *open_program(const char *arguments, const char *options)
{
    char *spec = mem_printf("{\"name\": \"process\", \"options\": {\"command\": [\"" BIN
                            "scorer_program\", %s]%s}}",
                            arguments, options);
    RewardSet *set = open_rewards(spec);
    free(spec);
    return set;
}

static void test_process_scores_any_bytes(void **state)
{
    (void)state;
    RewardSet *set = open_program("\"length\"", "");
    RewardResult result = score(set, "abc");
    assert_int_equal(result.outcome, REWARD_OK);
    assert_true(result.score == 3);
    assert_string_equal(result.answer, "label");
    assert_true(score(set, "").score == 0);
    assert_int_equal(score(set, "").outcome, REWARD_WRONG);
    assert_true(score(set, "\"\\\n\t{}\x01").score == 7);
    assert_true(score(set, "\xff").score == 3); /* as U+FFFD */
    char *large = mem_alloc((4u << 20) + 1);
    memset(large, 'x', 4u << 20);
    large[4u << 20] = '\0';
    assert_true(score(set, large).score == 4u << 20);
    free(large);
    reward_set_close(set);
}

static void test_process_takes_answers_in_any_order(void **state)
{
    (void)state;
    RewardSet *set = open_program("\"reverse\"", ", \"in_flight\": 2");
    RewardRequest requests[8];
    RewardResult results[8];
    for (int i = 0; i < 8; i++)
        requests[i] = (RewardRequest){.response = {"xxxxxxxx", (size_t)i}};
    reward_set_score(set, requests, 8, results);
    for (int i = 0; i < 8; i++) {
        assert_true(results[i].score == i);
        reward_result_clear(&results[i]);
    }
    reward_set_close(set);
}

static void test_process_scores_groups(void **state)
{
    (void)state;
    RewardSet *set = open_program("\"length\"", ", \"group\": true");
    RewardRequest requests[3] = {{.response = slice_from("a")},
                                 {.response = slice_from("")},
                                 {.response = slice_from("ccc")}};
    RewardResult results[3];
    reward_set_score(set, requests, 3, results);
    assert_true(results[0].score == 1 && results[1].score == 0 && results[2].score == 3);
    for (int i = 0; i < 3; i++)
        reward_result_clear(&results[i]);
    reward_set_score(set, requests, 1, results);
    assert_true(results[0].score == 1);
    reward_result_clear(&results[0]);
    reward_set_close(set);
}

typedef struct Caller {
    RewardSet *set;
    int number;
    int wrong;
    pthread_t thread;
} Caller;

static void *call_often(void *argument)
{
    Caller *caller = argument;
    char text[300];
    memset(text, 'y', sizeof text);
    for (int i = 0; i < 100; i++) {
        size_t length = (size_t)(caller->number * 20 + i % 17);
        RewardRequest request = {.response = {text, length}};
        RewardResult result;
        reward_set_score(caller->set, &request, 1, &result);
        caller->wrong += result.score != (double)length;
        reward_result_clear(&result);
    }
    return NULL;
}

static void test_process_is_asked_by_many_threads(void **state)
{
    (void)state;
    RewardSet *set = open_program("\"length\"", ", \"processes\": 3, \"in_flight\": 4");
    Caller callers[8];
    for (int i = 0; i < 8; i++) {
        callers[i] = (Caller){.set = set, .number = i};
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(callers[i].thread, NULL);
        assert_int_equal(callers[i].wrong, 0);
    }
    reward_set_close(set);
}

static void test_process_timeout_is_no_score(void **state)
{
    (void)state;
    RewardSet *set = open_program("\"length\"", ", \"timeout_ms\": 200");
    RewardResult result = score(set, "slow");
    assert_int_equal(result.outcome, REWARD_TIMEOUT);
    assert_true(result.score == 0 && !result.permanent);
    assert_non_null(strstr(result.reason, "scorer_program length gave no answer in 200 ms"));
    assert_true(score(set, "ab").score == 2); /* a new one is running */
    reward_set_close(set);
}

static void assert_group(RewardSet *set, const char *const *responses, int count,
                         RewardOutcome first, const char *reason)
{
    RewardRequest requests[8];
    RewardResult results[8];
    for (int i = 0; i < count; i++)
        requests[i] = (RewardRequest){.response = slice_from(responses[i])};
    reward_set_score(set, requests, count, results);
    assert_int_equal(results[0].outcome, first);
    if (strstr(results[0].reason, reason) == NULL) fail_msg("%s", results[0].reason);
    for (int i = 1; i < count; i++) {
        if (results[i].score != (double)strlen(responses[i])) fail_msg("%s", results[i].reason);
        reward_result_clear(&results[i]);
    }
    reward_result_clear(&results[0]);
    reward_set_close(set);
}

/* A program that judges one line after the other is late with all that stand behind the slow one.
 */
static void test_process_neighbours_of_a_late_line_are_judged(void **state)
{
    (void)state;
    static const char *const responses[] = {"slow", "a", "bb", "ccc"};
    assert_group(open_program("\"length\"", ", \"timeout_ms\": 300, \"in_flight\": 4"), responses,
                 4, REWARD_TIMEOUT, "no answer in 300 ms");
}

static long count_starts(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? (long)info.st_size : 0;
}

/* A program that hangs, whatever it is asked, takes the time of two lines and not of each. */
static void test_process_that_hangs_is_not_asked_line_by_line(void **state)
{
    (void)state;
    remove("starts");
    RewardSet *set = open_program("\"silent\", \"starts\"",
                                  ", \"timeout_ms\": 300, \"in_flight\": 8, \"restart_ms\": "
                                  "600000, \"restart_ms_max\": 600000");
    RewardRequest requests[8];
    RewardResult results[8];
    for (int i = 0; i < 8; i++)
        requests[i] = (RewardRequest){.response = slice_from("a")};
    reward_set_score(set, requests, 8, results);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(results[i].outcome, REWARD_TIMEOUT);
        reward_result_clear(&results[i]);
    }
    assert_int_equal(count_starts("starts"), 2);
    reward_set_close(set);
}

/* As one that ends again and again: it is started less and less often, and nobody waits for it. */
static void test_process_that_hangs_again_is_down(void **state)
{
    (void)state;
    remove("starts");
    RewardSet *set =
        open_program("\"silent\", \"starts\"", ", \"timeout_ms\": 300, \"restart_ms\": 600000, "
                                               "\"restart_ms_max\": 600000");
    for (int i = 0; i < 2; i++)
        assert_int_equal(score(set, "a").outcome, REWARD_TIMEOUT);
    RewardResult result = score(set, "a");
    assert_int_equal(result.outcome, REWARD_TIMEOUT); /* refused: it is not started again */
    assert_non_null(strstr(result.reason, "no answer in 300 ms"));
    assert_int_equal(count_starts("starts"), 2);
    reward_set_close(set);
}

static void test_process_neighbours_of_a_fatal_line_are_judged(void **state)
{
    (void)state;
    static const char *const responses[] = {"crash", "a", "bb", "ccc"};
    assert_group(open_program("\"length\"", ", \"restart_ms\": 5, \"in_flight\": 4"), responses, 4,
                 REWARD_INFRA_ERROR, "out of cheese");
    /* Nor do those fail that had not been sent yet, or come while it is started again. */
    assert_group(open_program("\"length\"", ", \"restart_ms\": 50"), responses, 4,
                 REWARD_INFRA_ERROR, "out of cheese");
}

static void test_process_that_ends_is_started_again(void **state)
{
    (void)state;
    RewardSet *set = open_program("\"length\"", ", \"restart_ms\": 20, \"restart_ms_max\": 40");
    RewardResult result = score(set, "crash");
    assert_int_equal(result.outcome, REWARD_INFRA_ERROR);
    assert_non_null(strstr(result.reason, "exited with status 3: out of cheese"));
    assert_false(result.permanent);
    int64_t end = clock_ms() + 20000;
    do
        result = score(set, "abcd");
    while (result.outcome == REWARD_INFRA_ERROR && clock_ms() < end);
    assert_true(result.score == 4);
    reward_set_close(set);
}

static void test_process_that_ends_once_is_not_noticed(void **state)
{
    (void)state;
    remove("once");
    RewardSet *set = open_program("\"once\", \"once\"", ", \"processes\": 2, \"restart_ms\": 1");
    RewardRequest requests[2] = {{.response = slice_from("a")}, {.response = slice_from("bb")}};
    RewardResult results[2];
    reward_set_score(set, requests, 1, results);
    assert_true(results[0].score == 1); /* sent again */
    reward_result_clear(&results[0]);
    reward_set_close(set);
}

static void test_process_that_is_down_refuses_at_once(void **state)
{
    (void)state;
    RewardSet *set = open_program("\"dead\"", ", \"restart_ms\": 60000, \"restart_ms_max\": 60000");
    RewardResult result = score(set, "a");
    assert_int_equal(result.outcome, REWARD_INFRA_ERROR);
    assert_non_null(strstr(result.reason, "exited with status 4: no such model"));
    assert_int_equal(score(set, "a").outcome, REWARD_INFRA_ERROR);
    reward_set_close(set);
}

static void test_process_that_prints_noise_is_told_why(void **state)
{
    (void)state;
    RewardSet *set = open_program("\"length\"", ", \"restart_ms\": 1");
    RewardResult result = score(set, "noise");
    assert_int_equal(result.outcome, REWARD_INFRA_ERROR);
    assert_non_null(strstr(result.reason, "no answer, \"loading the model"));
    reward_set_close(set);
    /* Who answers to a request that nobody made will not answer to the one that somebody did. */
    set = open_program("\"length\"", "");
    result = score(set, "foreign");
    assert_int_equal(result.outcome, REWARD_INFRA_ERROR);
    assert_non_null(strstr(result.reason, "no answer, \"{\"id\": \"zzz"));
    reward_set_close(set);
}

static void test_process_leaves_nothing_behind(void **state)
{
    (void)state;
    remove("pid");
    RewardSet *set = open_program("\"child\", \"pid\"", "");
    assert_true(score(set, "a").score == 1);
    FILE *file = fopen("pid", "r");
    assert_non_null(file);
    int pid = 0;
    assert_int_equal(fscanf(file, "%d", &pid), 1);
    fclose(file);
    uint64_t ticks = 0;
    assert_true(process_start_ticks(pid, &ticks));
    reward_set_close(set);
    int64_t end = clock_ms() + 20000;
    while (process_is_alive(pid, ticks) && clock_ms() < end)
        usleep(1000);
    assert_false(process_is_alive(pid, ticks));
}

static void test_process_refuses_a_command_that_is_none(void **state)
{
    (void)state;
    assert_not_opened("{\"name\": \"process\", \"options\": {\"command\": [\"no-such-program\"]}}",
                      "no program \"no-such-program\" in PATH");
    assert_not_opened("{\"name\": \"process\", \"options\": {\"command\": [\"/etc/passwd\"]}}",
                      "cannot run \"/etc/passwd\"");
    assert_not_opened("{\"name\": \"process\", \"options\": {\"command\": 7}}",
                      "expected a text or a list of texts");
    assert_not_opened("{\"name\": \"process\", \"options\": {\"command\": \"cat 'x\"}}",
                      "a quote, ', is opened and not closed");
    assert_not_opened("{\"name\": \"process\"}", "command");
    assert_not_opened("{\"name\": \"process\", \"options\": {\"comand\": []}}",
                      "did you mean command?");
}

/* ---- http ---- */

static RewardSet *open_http(const HttpServer *server, const char *path, const char *options)
{
    char *spec = mem_printf("{\"name\": \"http\", \"options\": {\"url\": "
                            "\"http://127.0.0.1:%d%s\", \"backoff_ms\": 5%s}}",
                            server->port, path, options);
    RewardSet *set = open_rewards(spec);
    free(spec);
    return set;
}

static RewardResult ask(HttpServer *server, const char *path, const char *options)
{
    RewardSet *set = open_http(server, path, options);
    RewardResult result = score(set, "response \xff");
    reward_set_close(set);
    return result;
}

static void test_http_sends_slimes_body_and_reads_answers(void **state)
{
    (void)state;
    HttpServer server;
    http_server_start(&server);
    RewardResult result = ask(&server, "/number", "");
    assert_int_equal(result.outcome, REWARD_OK);
    assert_true(result.score == 0.5);
    assert_string_equal(server.body, "{\"prompt\": \"say \\\"it\\\"\\n\", \"response\": \"response "
                                     "\xef\xbf\xbd\", \"label\": \"label\"}");
    result = ask(&server, "/object", ", \"full\": true, \"headers\": {\"X-Key\": \"secret\"}");
    assert_true(result.score == 2);
    assert_string_equal(result.reason, "fine");
    assert_non_null(strstr(server.headers, "X-Key: secret"));
    assert_non_null(strstr(server.body, "\"metadata\": {}, \"position\": 12, \"index\": 3}"));
    assert_true(ask(&server, "/named", ", \"key\": \"reward\"").score == 3);
    assert_int_equal(ask(&server, "/number", ", \"right_above\": 0.5").outcome, REWARD_WRONG);
    http_server_stop(&server);
}

static void test_http_scores_groups(void **state)
{
    (void)state;
    HttpServer server;
    http_server_start(&server);
    RewardSet *set = open_http(&server, "/group", ", \"group\": true");
    RewardRequest requests[3] = {{.response = slice_from("a")}, {.response = slice_from("b")}};
    RewardResult results[3];
    reward_set_score(set, requests, 3, results);
    for (int i = 0; i < 3; i++) {
        assert_true(results[i].score == i);
        reward_result_clear(&results[i]);
    }
    assert_int_equal(server.requests, 1);
    reward_set_close(set);
    http_server_stop(&server);
}

/* The server answers none before all that may be under way have come. */
static void test_http_posts_a_group_side_by_side(void **state)
{
    (void)state;
    static const char *const options[] = {"", ", \"connections\": 2"};
    static const int together[] = {8, 2};
    for (int k = 0; k < 2; k++) {
        HttpServer server;
        http_server_start(&server);
        server.together = together[k];
        RewardSet *set = open_http(&server, "/together", options[k]);
        RewardRequest requests[8];
        RewardResult results[8];
        for (int i = 0; i < 8; i++)
            requests[i] = (RewardRequest){.response = {"xxxxxxxx", (size_t)i + 1}};
        reward_set_score(set, requests, 8, results);
        for (int i = 0; i < 8; i++) {
            if (results[i].score != i + 1) fail_msg("%d: %s", i, results[i].reason);
            reward_result_clear(&results[i]);
        }
        reward_set_close(set);
        http_server_stop(&server);
    }
}

typedef struct Poster {
    RewardSet *set;
    RewardOutcome outcome;
    pthread_t thread;
} Poster;

static void *post_one(void *argument)
{
    Poster *poster = argument;
    RewardRequest request = {.response = slice_from("a")};
    RewardResult result;
    reward_set_score(poster->set, &request, 1, &result);
    poster->outcome = result.outcome;
    reward_result_clear(&result);
    return NULL;
}

/* Six at a time, over one connection. */
static void post_six(const HttpServer *server, const char *path, int64_t timeout_ms,
                     RewardOutcome expected)
{
    Poster posters[6];
    char options[100];
    snprintf(options, sizeof options, ", \"connections\": 1, \"attempts\": 1, \"timeout_ms\": %d",
             (int)timeout_ms);
    RewardSet *set = open_http(server, path, options);
    for (int i = 0; i < 6; i++) {
        posters[i].set = set;
        assert_int_equal(pthread_create(&posters[i].thread, NULL, post_one, &posters[i]), 0);
    }
    for (int i = 0; i < 6; i++) {
        pthread_join(posters[i].thread, NULL);
        assert_int_equal(posters[i].outcome, expected);
    }
    reward_set_close(set);
}

/* A server that answers one after the other has time for each; one that answers none is not waited
 * for once for each. */
static void test_http_post_has_its_time_from_when_it_is_sent(void **state)
{
    (void)state;
    HttpServer server;
    http_server_start(&server);
    post_six(&server, "/slow", 2500, REWARD_OK);
    assert_int_equal(server.requests, 6);
    post_six(&server, "/silent", 300, REWARD_TIMEOUT);
    http_server_stop(&server);
    assert_in_range(server.requests, 7, 9);
}

static void *end_soon(void *flag)
{
    usleep(100000);
    atomic_store((atomic_bool *)flag, true);
    return NULL;
}

/* Where nobody wants the scores any more nobody waits for them, whoever makes them. */
static void assert_ends_soon(RewardSet *set, const char *response)
{
    atomic_bool given_up = false;
    const Wanted wanted = {.given_up = &given_up};
    pthread_t thread;
    RewardRequest requests[2];
    RewardResult results[2];
    for (int i = 0; i < 2; i++)
        requests[i] = (RewardRequest){.response = slice_from(response), .wanted = &wanted};
    int64_t start = clock_ms();
    assert_int_equal(pthread_create(&thread, NULL, end_soon, &given_up), 0);
    reward_set_score(set, requests, 2, results);
    pthread_join(thread, NULL);
    assert_true(clock_ms() - start < 30000);
    for (int i = 0; i < 2; i++) {
        assert_false(reward_outcome_trains(results[i].outcome));
        assert_non_null(strstr(results[i].reason, "nobody wants it any more"));
        reward_result_clear(&results[i]);
    }
    reward_set_close(set);
}

static void test_rewards_that_nobody_wants_are_not_waited_for(void **state)
{
    (void)state;
    HttpServer server;
    http_server_start(&server);
    assert_ends_soon(open_http(&server, "/silent", ""), "a");
    assert_ends_soon(open_http(&server, "/silent", ", \"connections\": 1"), "a");
    http_server_stop(&server);
    assert_ends_soon(open_http(&server, "/down",
                               ", \"backoff_ms\": 60000, "
                               "\"backoff_ms_max\": 60000"),
                     "a");
    assert_ends_soon(open_program("\"silent\"", ", \"timeout_ms\": 600000"), "a");
}

static void test_http_tries_again_what_may_pass(void **state)
{
    (void)state;
    HttpServer server;
    http_server_start(&server);
    assert_true(ask(&server, "/busy", "").score == 1);
    assert_int_equal(server.requests, 3);
    RewardResult result = ask(&server, "/down", ", \"attempts\": 4");
    assert_int_equal(result.outcome, REWARD_INFRA_ERROR);
    assert_false(result.permanent);
    assert_non_null(strstr(result.reason, "HTTP status 500: no memory"));
    assert_int_equal(server.requests, 7);
    http_server_stop(&server);
}

/* Long before a request is given up whoever waits for it knows why it takes so long. */
static void test_http_tells_of_what_it_tries_again(void **state)
{
    (void)state;
    HttpServer server;
    char told[TROUBLE_TEXT_BYTES];
    http_server_start(&server);
    Trouble *trouble = trouble_create("rollout.reward", 0);
    const Wanted wanted = {.trouble = trouble};
    RewardSet *set =
        open_http(&server, "/down", ", \"attempts\": 4, \"backoff_ms\": 1, \"group\": true");
    const RewardRequest request = {.response = slice_from("a"), .wanted = &wanted};
    RewardResult result;
    reward_set_score(set, &request, 1, &result);
    assert_true(result.told);
    assert_true(trouble_describe(trouble, told, sizeof told));
    if (strstr(told, "HTTP status 500: no memory (4 tries in ") == NULL) fail_msg("%s", told);
    assert_int_equal(wanted_check(&wanted, NULL), OK); /* 0: for ever */
    trouble_end(trouble);
    assert_false(trouble_describe(trouble, told, sizeof told));
    assert_string_equal(told, "");
    reward_result_clear(&result);
    reward_set_close(set);
    trouble_destroy(trouble);
    http_server_stop(&server);
}

static void test_what_lasts_too_long_is_waited_for_no_more(void **state)
{
    (void)state;
    Trouble *trouble = trouble_create("rollout.reward", 4);
    const Wanted wanted = {.trouble = trouble};
    Error err = {0};
    trouble_note(trouble, "refused");
    usleep(5000);
    assert_false(wanted_is_over(&wanted)); /* one try may be chance */
    trouble_note(trouble, "refused again");
    assert_int_equal(wanted_pause(&wanted, 600000, NULL), ERR_RESOURCE);
    assert_fails(wanted_check(&wanted, &err), ERR_RESOURCE, &err, "last: refused again");
    trouble_end(trouble);
    assert_ok(wanted_check(&wanted, &err), &err);
    trouble_destroy(trouble);
}

static void test_what_cannot_be_read_says_whose_it_is(void **state)
{
    (void)state;
    HttpServer server;
    http_server_start(&server);
    RewardResult result = ask(&server, "/named", ""); /* {"reward": 3}: no score */
    assert_int_equal(result.outcome, REWARD_INFRA_ERROR);
    if (strstr(result.reason, "/named: the scorer's score is missing") == NULL)
        fail_msg("%s", result.reason);
    http_server_stop(&server);
}

static void test_http_does_not_repeat_a_wrong_request(void **state)
{
    (void)state;
    HttpServer server;
    http_server_start(&server);
    RewardResult result = ask(&server, "/wrong", "");
    assert_int_equal(result.outcome, REWARD_INFRA_ERROR);
    assert_true(result.permanent);
    assert_int_equal(server.requests, 1);
    http_server_stop(&server);
}

static void test_http_failures_are_no_scores(void **state)
{
    (void)state;
    HttpServer server;
    http_server_start(&server);
    RewardResult result = ask(&server, "/silent", ", \"timeout_ms\": 100");
    assert_int_equal(result.outcome, REWARD_TIMEOUT);
    result = ask(&server, "/text", "");
    assert_int_equal(result.outcome, REWARD_INFRA_ERROR);
    assert_non_null(strstr(result.reason, "no JSON: quite good"));
    assert_int_equal(ask(&server, "/large", "").outcome, REWARD_INFRA_ERROR);
    assert_int_equal(ask(&server, "/cut", ", \"attempts\": 2").outcome, REWARD_INFRA_ERROR);
    result = ask(&server, "/number", ", \"key\": \"x\"");
    assert_true(result.score == 0.5); /* a number needs no key */
    int port = server.port;
    http_server_stop(&server);
    server.port = port;
    result = ask(&server, "/number", ", \"attempts\": 2");
    assert_int_equal(result.outcome, REWARD_INFRA_ERROR);
    assert_non_null(strstr(result.reason, "onnect"));
}

static void test_http_refuses_other_urls(void **state)
{
    (void)state;
    assert_not_opened("{\"name\": \"http\", \"options\": {\"url\": \"file:///etc/passwd\"}}",
                      "expected http://");
    assert_not_opened("{\"name\": \"http\"}", "url");
    assert_not_opened("{\"name\": \"http\", \"options\": {\"url\": \"http://x\", \"headers\": "
                      "{\"a\": \"b\\r\\nc: d\"}}}",
                      "on one line");
}

/* ---- plugin ---- */

static void test_plugin_scores(void **state)
{
    (void)state;
    RewardSet *set = open_rewards("{\"name\": \"plugin\", \"options\": {\"path\": \"" BIN
                                  "reward_brevity.so\", \"options\": {\"characters\": 4}}}");
    RewardResult result = score(set, "über");
    assert_int_equal(result.outcome, REWARD_OK);
    assert_true(result.score == 1);
    result = score(set, "12345678");
    assert_int_equal(result.outcome, REWARD_WRONG);
    assert_true(result.score == 0.5);
    assert_string_equal(result.reason, "8 characters");
    reward_set_close(set);
}

static void test_plugin_of_another_interface_is_refused(void **state)
{
    (void)state;
    assert_not_opened("{\"name\": \"plugin\", \"options\": {\"path\": \"" BIN
                      "plugin_other_abi.so\"}}",
                      "is made for interface 2, this build has 1");
    assert_not_opened("{\"name\": \"plugin\", \"options\": {\"path\": \"/no/such.so\"}}",
                      "cannot load reward plugin");
    assert_not_opened("{\"name\": \"plugin\", \"options\": {\"path\": \"libm.so.6\"}}",
                      "exports no reward_plugin");
    assert_not_opened("{\"name\": \"plugin\", \"options\": {\"path\": \"" BIN
                      "reward_brevity.so\", \"options\": {\"characters\": 0}}}",
                      "characters is 0, expected at least 1");
}

static void test_plugin_that_hangs_is_a_timeout(void **state)
{
    (void)state;
    RewardSet *set = open_rewards("{\"name\": \"plugin\", \"options\": {\"path\": \"" BIN
                                  "plugin_hangs.so\", \"timeout_ms\": 1000}}");
    RewardRequest requests[3] = {{.response = slice_from("a")},
                                 {.response = slice_from("hang")},
                                 {.response = slice_from("ccc")}};
    RewardResult results[3];
    reward_set_score(set, requests, 3, results);
    assert_true(results[0].score == 1 && results[2].score == 3);
    assert_int_equal(results[1].outcome, REWARD_TIMEOUT);
    assert_non_null(
        strstr(results[1].reason, "plugin \"hangs\": a call has not come back within 1000 ms"));
    assert_false(results[1].hopeless);
    reward_set_close(set);
}

static void test_plugin_that_is_late_is_counted_no_more(void **state)
{
    (void)state;
    RewardSet *set = open_rewards("{\"name\": \"plugin\", \"options\": {\"path\": \"" BIN
                                  "plugin_hangs.so\", \"timeout_ms\": 50}}");
    for (int i = 0; i < 20; i++) {
        RewardResult late = score(set, "late");
        assert_int_equal(late.outcome, REWARD_TIMEOUT);
        assert_false(late.hopeless);
        if (i % 4 == 3) usleep(500000);
    }
    reward_set_close(set);
}

/* What a plugin keeps for each thread (OpenMP its threads) is made once, and no thread for each
 * call; one that is left hanging is replaced. */
static void test_plugin_is_called_on_one_thread_for_each_caller(void **state)
{
    (void)state;
    RewardSet *set = open_rewards("{\"name\": \"plugin\", \"options\": {\"path\": \"" BIN
                                  "plugin_hangs.so\", \"timeout_ms\": 1000}}");
    for (int i = 1; i <= 10; i++)
        assert_true(score(set, "count").score == i);
    assert_int_equal(score(set, "hang").outcome, REWARD_TIMEOUT);
    for (int i = 1; i <= 10; i++)
        assert_true(score(set, "count").score == i);
    reward_set_close(set);
}

/* The first of that plugin: one that hangs keeps it loaded. Its code is not unloaded while a thread
 * that has called it is still about to end in it. */
static void test_plugin_is_closed_after_its_threads(void **state)
{
    (void)state;
    RewardSet *set =
        open_rewards("{\"name\": \"plugin\", \"options\": {\"path\": \"" BIN "plugin_hangs.so\"}}");
    assert_true(score(set, "keep").score == 4);
    reward_set_close(set);
    usleep(400000);
}

static void test_plugin_that_hangs_too_often_ends_the_run(void **state)
{
    (void)state;
    RewardSet *set = open_rewards(
        "[{\"name\": \"random\"}, {\"name\": \"plugin\", \"options\": {\"path\": \"" BIN
        "plugin_hangs.so\", \"timeout_ms\": 5}}]");
    for (int i = 0; i < 15; i++)
        assert_false(score(set, "hang").hopeless);
    RewardResult result = score(set, "hang");
    assert_true(result.hopeless);
    assert_non_null(strstr(result.reason, "plugin \"hangs\": 16 calls of it have not come back"));
    assert_true(score(set, "abc").hopeless);
    reward_set_close(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_process_scores_any_bytes),
        cmocka_unit_test(test_process_takes_answers_in_any_order),
        cmocka_unit_test(test_process_scores_groups),
        cmocka_unit_test(test_process_is_asked_by_many_threads),
        cmocka_unit_test(test_process_timeout_is_no_score),
        cmocka_unit_test(test_process_that_hangs_is_not_asked_line_by_line),
        cmocka_unit_test(test_process_that_hangs_again_is_down),
        cmocka_unit_test(test_process_neighbours_of_a_late_line_are_judged),
        cmocka_unit_test(test_process_neighbours_of_a_fatal_line_are_judged),
        cmocka_unit_test(test_process_that_ends_is_started_again),
        cmocka_unit_test(test_process_that_ends_once_is_not_noticed),
        cmocka_unit_test(test_process_that_is_down_refuses_at_once),
        cmocka_unit_test(test_process_that_prints_noise_is_told_why),
        cmocka_unit_test(test_process_leaves_nothing_behind),
        cmocka_unit_test(test_process_refuses_a_command_that_is_none),
        cmocka_unit_test(test_http_sends_slimes_body_and_reads_answers),
        cmocka_unit_test(test_http_scores_groups),
        cmocka_unit_test(test_http_posts_a_group_side_by_side),
        cmocka_unit_test(test_http_post_has_its_time_from_when_it_is_sent),
        cmocka_unit_test(test_rewards_that_nobody_wants_are_not_waited_for),
        cmocka_unit_test(test_http_tries_again_what_may_pass),
        cmocka_unit_test(test_http_tells_of_what_it_tries_again),
        cmocka_unit_test(test_what_lasts_too_long_is_waited_for_no_more),
        cmocka_unit_test(test_what_cannot_be_read_says_whose_it_is),
        cmocka_unit_test(test_http_does_not_repeat_a_wrong_request),
        cmocka_unit_test(test_http_failures_are_no_scores),
        cmocka_unit_test(test_http_refuses_other_urls),
        cmocka_unit_test(test_plugin_scores),
        cmocka_unit_test(test_plugin_of_another_interface_is_refused),
        cmocka_unit_test(test_plugin_is_closed_after_its_threads),
        cmocka_unit_test(test_plugin_that_hangs_is_a_timeout),
        cmocka_unit_test(test_plugin_that_is_late_is_counted_no_more),
        cmocka_unit_test(test_plugin_is_called_on_one_thread_for_each_caller),
        cmocka_unit_test(test_plugin_that_hangs_too_often_ends_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
