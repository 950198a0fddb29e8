/* Tests of a Hub that is in trouble, or refuses: whoever waits is told for whom, how long, and
 * until when, and can end it at once; what may pass is tried again; what does not is explained. */
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "dataset/files.h"
#include "hub/repo.h"
#include "hub/support.h"

static HubServer server;
static HubAccess hub;

static int start_server(void **state)
{
    (void)state;
    make_fresh(SERVER_ROOT);
    hub_server_start("http", &server);
    hub = hub_server_access("http", &server);
    hub.tell_ms = 300;
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    hub_server_stop(&server);
    hub_access_free(&hub);
    return 0;
}

static int fresh(void **state)
{
    (void)state;
    hub_make_fresh();
    hub_put("a/set", COMMIT_A, "README.md", "# A set of which the card is not long\n");
    hub_put_lines("a/set", COMMIT_A, "data/train.jsonl", 0, 2000);
    return 0;
}

/* What was said, line by line. */
typedef struct Told {
    char text[8192];
    int over; /* how often it was */
    atomic_bool ends;
} Told;

static void waits(void *context, const char *waits_for)
{
    Told *told = context;
    size_t used = strlen(told->text);
    told->over += waits_for[0] == '\0';
    snprintf(told->text + used, sizeof told->text - used, "%s\n", waits_for);
}

static bool goes_on(void *context, int64_t new_bytes)
{
    (void)new_bytes;
    return !((Told *)context)->ends;
}

static Status open_repo(const HubAccess *access, Told *told, HubRepo **ret, Error *err)
{
    HubName name = {0};
    HubRepoOptions options = {.access = access, .watch = {goes_on, told, waits}};
    assert_true(hub_name_parse("hf://datasets/a/set", &name));
    Status status = hub_repo_open(&name, &options, ret, err);
    hub_name_free(&name);
    return status;
}

static Status fetch_status(HubRepo *repo, const char *path, Error *err)
{
    char *here = NULL;
    Status status = hub_repo_fetch(repo, path, &here, err);
    free(here);
    return status;
}

/* ---- what is told ---- */

static void assert_told(const Told *told, const char *format, int port)
{
    char *expected = mem_printf(format, port);
    print_message("%s", told->text);
    assert_non_null(strstr(told->text, expected));
    assert_true(told->over > 0);
    free(expected);
}

static void test_silence_is_told_with_its_host(void **state)
{
    (void)state;
    Told told = {0};
    HubRepo *repo = NULL;
    Error err = {0};
    hub_set_faults("[{\"match\": \"revision\", \"do\": \"hang\", \"s\": 2}]");
    assert_ok(open_repo(&hub, &told, &repo, &err), &err);
    assert_told(&told, "http://127.0.0.1:%d (a/set); no answer for ", server.port);
    assert_told(&told, " s (try 1 of 4, gives up in ", 0);
    memset(&told, 0, sizeof told);
    hub_set_faults("[{\"match\": \"^/a/\", \"do\": \"hang\", \"s\": 2}]");
    assert_ok(fetch_status(repo, "data/train.jsonl", &err), &err);
    assert_told(&told, "http://localhost:%d (data/train.jsonl of a/set); no answer for ",
                server.cdn_port);
    hub_repo_close(repo);
}

static void test_slow_bytes_are_told(void **state)
{
    (void)state;
    Told told = {0};
    HubRepo *repo = NULL;
    Error err = {0};
    assert_ok(open_repo(&hub, &told, &repo, &err), &err);
    hub_set_faults("[{\"match\": \"README\", \"do\": \"slow\", \"chunk\": 2, \"ms\": 150}]");
    assert_ok(fetch_status(repo, "README.md", &err), &err);
    assert_told(&told, "http://127.0.0.1:%d (README.md of a/set); slow: ", server.port);
    hub_repo_close(repo);
}

static void test_what_the_server_asks_for_is_told(void **state)
{
    (void)state;
    Told told = {0};
    HubRepo *repo = NULL;
    Error err = {0};
    hub_set_faults("[{\"match\": \"revision\", \"do\": \"status\", \"code\": 429, "
                   "\"retry_after\": 2}]");
    assert_ok(open_repo(&hub, &told, &repo, &err), &err);
    assert_told(&told, "(a/set); HTTP status 429; asked again in 2 s (try 2 of 4)\n", 0);
    hub_repo_close(repo);
}

static void test_a_name_without_address_is_told(void **state)
{
    (void)state;
    Told told = {0};
    HubRepo *repo = NULL;
    Error err = {0};
    HubAccess access = hub;
    access.endpoint = "http://hub.invalid";
    access.attempts = 2;
    access.backoff_ms = 1000;
    assert_fails(open_repo(&access, &told, &repo, &err), ERR_UNAVAILABLE, &err,
                 "a/set: http://hub.invalid: Couldn't resolve host");
    assert_told(&told, "http://hub.invalid (a/set); Couldn't resolve host", 0);
    assert_told(&told, "asked again in 1 s (try 2 of 2)", 0);
}

static void *end_soon(void *context)
{
    assert_int_equal(hub_watch_pause(&(HubWatch){0}, 300, NULL), OK);
    ((Told *)context)->ends = true;
    return NULL;
}

static void test_silence_is_ended_at_once(void **state)
{
    (void)state;
    static const char *const faults[] = {
        "[{\"match\": \"revision\", \"do\": \"hang\", \"s\": 30}]",
        "[{\"match\": \"revision\", \"do\": \"status\", \"code\": 503, \"retry_after\": 600}]"};
    for (int i = 0; i < 2; i++) {
        Told told = {0};
        HubRepo *repo = NULL;
        Error err = {0};
        pthread_t thread;
        int64_t begun_ms = clock_ms();
        hub_set_faults(faults[i]);
        assert_int_equal(pthread_create(&thread, NULL, end_soon, &told), 0);
        assert_fails(open_repo(&hub, &told, &repo, &err), ERR_CANCELLED, &err, "not wanted");
        assert_true(clock_ms() - begun_ms < 5000); /* curl looks once a second */
        pthread_join(thread, NULL);
    }
}

static void test_people_are_told_now_and_then(void **state)
{
    (void)state;
    _Atomic int64_t told_ms = 0;
    assert_false(hub_watch_is_time(&told_ms, ""));
    assert_true(hub_watch_is_time(&told_ms, "x"));
    assert_false(hub_watch_is_time(&told_ms, "y"));
    told_ms -= 31000;
    assert_true(hub_watch_is_time(&told_ms, "y"));
}

/* ---- refusals ---- */

/* A link to the CDN that is refused has expired: the Hub gives another. */
static void test_an_expired_link_is_asked_for_again(void **state)
{
    (void)state;
    Told told = {0};
    HubRepo *repo = NULL;
    Error err = {0};
    assert_ok(open_repo(&hub, &told, &repo, &err), &err);
    hub_set_faults("[{\"match\": \"^/a/\", \"do\": \"cut\", \"after\": 20000},"
                   " {\"match\": \"^/a/\", \"do\": \"status\", \"code\": 403}]");
    hub_forget_requests();
    assert_ok(fetch_status(repo, "data/train.jsonl", &err), &err);
    assert_int_equal(hub_requests_with("\"hub\""), 3);
    assert_int_equal(hub_requests_with("\"cdn\""), 3);
    make_fresh("cache");
    hub_set_faults("[{\"match\": \"^/a/\", \"do\": \"status\", \"code\": 403, \"times\": 99}]");
    assert_fails(fetch_status(repo, "data/train.jsonl", &err), ERR_UNAVAILABLE, &err,
                 ", where the Hub sends us to, answers with HTTP status 403");
    assert_null(strstr(err.message, "HF_TOKEN")); /* it was not asked for */
    hub_repo_close(repo);
}

static void test_an_expired_token_is_named(void **state)
{
    (void)state;
    Told told = {0};
    HubRepo *repo = NULL;
    Error err = {0};
    HubAccess access = hub;
    access.token = "hf_expired";
    assert_fails(open_repo(&access, &told, &repo, &err), ERR_INVALID, &err,
                 "HTTP status 401 (\"User Access Token is expired\")");
    assert_non_null(strstr(err.message, "has expired, or was never one"));
    access.token = mem_strdup("hf_good");
    assert_ok(open_repo(&access, &told, &repo, &err), &err);
    free(access.token);
    access.token = "hf_expired"; /* while the run goes on */
    assert_fails(fetch_status(repo, "data/train.jsonl", &err), ERR_INVALID, &err,
                 "has expired, or was never one");
    hub_repo_close(repo);
}

static void test_what_was_taken_away_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *fault, *expected;
    } cases[] = {
        {"404, \"error_code\": \"EntryNotFound\"", "answers with HTTP status 404"},
        {"404, \"error_code\": \"RepoNotFound\"", "whether it is still there"},
        {"404, \"error_code\": \"RevisionNotFound\"", "as they were listed"},
        {"401, \"error_code\": \"RepoNotFound\"", "for a private one a token"},
        {"403, \"error_code\": \"GatedRepo\"", "who has accepted the terms of this data set"},
    };
    Told told = {0};
    HubRepo *repo = NULL;
    Error err = {0};
    assert_ok(open_repo(&hub, &told, &repo, &err), &err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *faults = mem_printf("[{\"match\": \"resolve\", \"do\": \"status\", \"code\": %s}]",
                                  cases[i].fault);
        hub_set_faults(faults);
        Status status = fetch_status(repo, "data/train.jsonl", &err);
        print_message("%s\n", err.message);
        assert_int_not_equal(status, ERR_UNAVAILABLE); /* trying again does not help */
        assert_fails(status, status, &err, cases[i].expected);
        assert_non_null(strstr(err.message, "data/train.jsonl of a/set"));
        assert_non_null(strstr(err.message, "  to do: "));
        free(faults);
    }
    hub_repo_close(repo);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_silence_is_told_with_its_host, fresh),
        cmocka_unit_test_setup(test_slow_bytes_are_told, fresh),
        cmocka_unit_test_setup(test_what_the_server_asks_for_is_told, fresh),
        cmocka_unit_test_setup(test_a_name_without_address_is_told, fresh),
        cmocka_unit_test_setup(test_silence_is_ended_at_once, fresh),
        cmocka_unit_test(test_people_are_told_now_and_then),
        cmocka_unit_test_setup(test_an_expired_link_is_asked_for_again, fresh),
        cmocka_unit_test_setup(test_an_expired_token_is_named, fresh),
        cmocka_unit_test_setup(test_what_was_taken_away_is_told, fresh),
    };
    if (!hub_server_is_possible()) {
        print_message("          SKIP: there is no python3 to serve\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
