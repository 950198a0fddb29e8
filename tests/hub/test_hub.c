/* Tests of fetching from the Hub: what arrives is what the server has, in the layout of
 * huggingface_hub, through every fault that a network has; nothing is fetched twice, and nobody but
 * the Hub is shown the token. */
#include "test.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "dataset/files.h"
#include "hub/repo.h"
#include "hub/support.h"

static HubServer server;
static HubAccess access_http;

static int start_server(void **state)
{
    (void)state;
    make_fresh(SERVER_ROOT);
    hub_server_start("http", &server);
    access_http = hub_server_access("http", &server);
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    hub_server_stop(&server);
    hub_access_free(&access_http);
    return 0;
}

static int fresh(void **state)
{
    (void)state;
    hub_make_fresh();
    hub_put("a/set", COMMIT_A, "README.md", "# A set\n");
    hub_put_lines("a/set", COMMIT_A, "data/train.jsonl", 0, 20000); /* 800 kB: large */
    hub_put_lines("a/set", COMMIT_A, "data/test.jsonl", 0, 3);
    hub_put_lines("a/set", COMMIT_A, "deep/er/x y%.jsonl", 0, 100);
    return 0;
}

static Status open_repo(const char *text, const HubAccess *access, HubRepo **ret, Error *err)
{
    HubName name = {0};
    HubRepoOptions options = {.access = access};
    assert_true(hub_name_parse(text, &name));
    Status status = hub_repo_open(&name, &options, ret, err);
    hub_name_free(&name);
    return status;
}

static HubRepo *open_set(void)
{
    HubRepo *repo = NULL;
    Error err = {0};
    assert_ok(open_repo("hf://datasets/a/set", &access_http, &repo, &err), &err);
    return repo;
}

/* The fetched file is the server's. */
static void assert_same(HubRepo *repo, const char *path)
{
    Error err = {0};
    char *here = NULL, *there = mem_printf(SERVER_ROOT "/repos/a/set/" COMMIT_A "/%s", path);
    char digest[2][DIGEST_HEX_BYTES];
    assert_ok(hub_repo_fetch(repo, path, &here, &err), &err);
    assert_ok(digest_file(here, digest[0], NULL, &err), &err);
    assert_ok(digest_file(there, digest[1], NULL, &err), &err);
    assert_string_equal(digest[0], digest[1]);
    free(here);
    free(there);
}

static Status fetch_status(HubRepo *repo, const char *path, Error *err)
{
    char *here = NULL;
    Status status = hub_repo_fetch(repo, path, &here, err);
    free(here);
    return status;
}

static void test_files_arrive_in_the_layout_of_huggingface_hub(void **state)
{
    (void)state;
    static const char *const files[] = {"README.md", "data/test.jsonl", "data/train.jsonl",
                                        "deep/er/x y%.jsonl"};
    HubRepo *repo = open_set();
    assert_int_equal(hub_repo_files(repo)->count, 4); /* over two pages */
    for (size_t i = 0; i < 4; i++) {
        const HubFile *file = &hub_repo_files(repo)->item[i];
        char link[256] = "", blob[256];
        assert_string_equal(file->path, files[i]);
        assert_same(repo, files[i]);
        char *path = mem_printf(HUB_CACHE "/datasets--a--set/snapshots/" COMMIT_A "/%s", files[i]);
        assert_true(readlink(path, link, sizeof link - 1) > 0);
        snprintf(blob, sizeof blob, "%sblobs/%s",
                 i == 3  ? "../../../../"
                 : i > 0 ? "../../../"
                         : "../../",
                 file->etag);
        assert_string_equal(link, blob);
        free(path);
    }
    hub_repo_close(repo);
    char *ref = NULL;
    size_t length = 0;
    Error err = {0};
    assert_ok(file_read(HUB_CACHE "/datasets--a--set/refs/main", 99, &ref, &length, &err), &err);
    assert_string_equal(ref, COMMIT_A);
    free(ref);
    assert_true(path_exists(HUB_CACHE "/datasets--a--set/trees/" COMMIT_A ".json"));
}

static void test_nothing_is_fetched_twice(void **state)
{
    (void)state;
    HubRepo *repo = open_set();
    assert_same(repo, "data/train.jsonl");
    hub_forget_requests();
    assert_same(repo, "data/train.jsonl");
    hub_repo_close(repo);
    assert_int_equal(hub_requests_with(""), 0);
    repo = open_set();
    assert_same(repo, "data/train.jsonl");
    hub_repo_close(repo);
    assert_int_equal(hub_requests_with(""), 1); /* which commit is main now */
}

/* Whatever happens on the way, the file is right in the end. */
static void test_faults_on_the_way_do_no_harm(void **state)
{
    (void)state;
    static const char *const faults[] = {
        "[{\"match\": \"^/a/\", \"do\": \"cut\", \"after\": 300000, \"times\": 5}]",
        "[{\"match\": \"^/a/\", \"do\": \"cut\", \"after\": 0, \"times\": 3}]",
        "[{\"match\": \"^/a/\", \"do\": \"cut\", \"after\": 9, \"times\": 1},"
        " {\"match\": \"^/a/\", \"do\": \"whole\"}]",
        "[{\"match\": \"resolve\", \"do\": \"status\", \"code\": 503, \"times\": 3}]",
        "[{\"match\": \"resolve\", \"do\": \"status\", \"code\": 429, \"retry_after\": 0}]",
        "[{\"match\": \"^/a/\", \"do\": \"status\", \"code\": 500, \"times\": 2}]",
        "[{\"match\": \"^/a/\", \"do\": \"corrupt\", \"at\": 7}]",
        "[{\"match\": \"^/a/\", \"do\": \"slow\", \"chunk\": 99999, \"ms\": 5}]",
        "[{\"match\": \"revision|tree\", \"do\": \"status\", \"code\": 502, \"times\": 3}]",
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        print_message("%s\n", faults[i]);
        make_fresh("cache");
        hub_set_faults(faults[i]);
        HubRepo *repo = open_set();
        assert_same(repo, "data/train.jsonl");
        hub_repo_close(repo);
    }
}

static void test_a_server_that_stays_broken_is_given_up(void **state)
{
    (void)state;
    Error err = {0};
    HubRepo *repo = open_set();
    hub_set_faults("[{\"match\": \"resolve\", \"do\": \"status\", \"code\": 503, \"times\": 99}]");
    assert_fails(fetch_status(repo, "data/train.jsonl", &err), ERR_UNAVAILABLE, &err, "status 503");
    assert_int_equal(hub_requests_with("resolve"), access_http.attempts);
    hub_set_faults("[{\"match\": \"^/a/\", \"do\": \"corrupt\", \"times\": 99}]");
    assert_fails(fetch_status(repo, "data/train.jsonl", &err), ERR_DATA, &err, "checksum, twice");
    hub_set_faults("[{\"match\": \"resolve\", \"do\": \"swap\", \"times\": 99}]");
    assert_fails(fetch_status(repo, "data/train.jsonl", &err), ERR_DATA, &err, "another file");
    hub_set_faults("[]");
    assert_same(repo, "data/train.jsonl");
    hub_repo_close(repo);
}

static void test_a_small_file_is_checked_too(void **state)
{
    (void)state;
    Error err = {0};
    HubRepo *repo = open_set();
    hub_set_faults("[{\"match\": \"resolve\", \"do\": \"corrupt\", \"times\": 99}]");
    assert_fails(fetch_status(repo, "README.md", &err), ERR_DATA, &err, "checksum, twice");
    hub_set_faults("[]");
    assert_same(repo, "README.md");
    hub_repo_close(repo);
}

/* ---- kills ---- */

static char *only_incomplete(void)
{
    HubRepo *repo = open_set();
    const HubFile *file = hub_files_find(hub_repo_files(repo), "data/train.jsonl");
    char *path = mem_printf(HUB_CACHE "/datasets--a--set/blobs/%s.incomplete", file->etag);
    hub_repo_close(repo);
    return path;
}

static int64_t bytes_of(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? info.st_size : -1;
}

/* Fetches in another process, which is killed with something, and not all, on the disk. */
static void kill_in_download(const char *incomplete, int64_t more_than)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        HubRepo *repo = open_set();
        (void)fetch_status(repo, "data/train.jsonl", &(Error){0});
        _exit(0);
    }
    while (bytes_of(incomplete) <= more_than && waitpid(child, NULL, WNOHANG) == 0)
        usleep(1000);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_true(bytes_of(incomplete) > more_than);
}

static void test_a_kill_costs_no_byte_that_was_fetched(void **state)
{
    (void)state;
    char *incomplete = only_incomplete(), range[64];
    hub_set_faults("[{\"match\": \"^/a/\", \"do\": \"slow\", \"chunk\": 20000, \"ms\": 10, "
                   "\"times\": 99}]");
    int64_t bytes = 0;
    for (int i = 0; i < 3; i++) {
        kill_in_download(incomplete, bytes);
        bytes = bytes_of(incomplete);
    }
    hub_set_faults("[]");
    hub_forget_requests();
    HubRepo *repo = open_set();
    assert_same(repo, "data/train.jsonl");
    hub_repo_close(repo);
    snprintf(range, sizeof range, "bytes=%lld-", (long long)bytes);
    assert_int_equal(hub_requests_with(range), 2); /* of the Hub, and of where it sends us */
    assert_int_equal(bytes_of(incomplete), -1);
    free(incomplete);
}

static void test_wrong_bytes_of_an_earlier_try_are_fetched_again(void **state)
{
    (void)state;
    char *incomplete = only_incomplete();
    write_text(incomplete, "what somebody else has left");
    HubRepo *repo = open_set();
    assert_same(repo, "data/train.jsonl");
    hub_repo_close(repo);
    free(incomplete);
}

/* ---- several at once ---- */

static void *fetch_main(void *failures)
{
    HubRepo *repo = open_set();
    if (fetch_status(repo, "data/train.jsonl", &(Error){0}) != OK) (*(_Atomic int *)failures)++;
    hub_repo_close(repo);
    return NULL;
}

static void test_one_of_many_fetches_a_blob(void **state)
{
    (void)state;
    pthread_t thread[8];
    _Atomic int failures = 0;
    hub_set_faults("[{\"match\": \"^/a/\", \"do\": \"slow\", \"chunk\": 200000, \"ms\": 50}]");
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, fetch_main, (void *)&failures), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(failures, 0);
    assert_int_equal(hub_requests_with("\"cdn\""), 1);
}

typedef struct Waiting {
    int lock;
    char said[512];
    bool over;
} Waiting;

/* The lock is given back when it was named. */
static void note_waiting(void *context, const char *waits_for)
{
    Waiting *waiting = context;
    waiting->over = waits_for[0] == '\0';
    if (waiting->over) return;
    snprintf(waiting->said, sizeof waiting->said, "%s", waits_for);
    close(waiting->lock);
}

static void test_a_lock_that_is_held_is_named_with_its_holder(void **state)
{
    (void)state;
    Error err = {0};
    HubRepo *repo = NULL;
    HubName name = {0};
    Waiting waiting = {0};
    char *here = NULL, holder[32];
    HubRepoOptions options = {.access = &access_http,
                              .watch = {.context = &waiting, .waits = note_waiting}};
    assert_true(hub_name_parse("hf://datasets/a/set", &name));
    assert_ok(hub_repo_open(&name, &options, &repo, &err), &err);
    const HubFile *file = hub_files_find(hub_repo_files(repo), "data/train.jsonl");
    char *path = mem_printf(HUB_CACHE "/.locks/datasets--a--set/%s.lock", file->etag);
    write_text(path, "");
    waiting.lock = open(path, O_RDWR | O_CLOEXEC);
    assert_true(waiting.lock >= 0);
    assert_int_equal(flock(waiting.lock, LOCK_EX), 0);
    assert_ok(hub_repo_fetch(repo, "data/train.jsonl", &here, &err), &err);
    assert_non_null(strstr(waiting.said, path));
    assert_non_null(strstr(waiting.said, "which fetches data/train.jsonl"));
    snprintf(holder, sizeof holder, "process %d,", (int)getpid());
    assert_true(strstr(waiting.said, holder) != NULL ||
                strstr(waiting.said, "another process,") != NULL); /* where /proc does not tell */
    assert_true(waiting.over);
    free(here);
    free(path);
    hub_name_free(&name);
    hub_repo_close(repo);
}

/* ---- who may ---- */

static void test_the_token_is_shown_to_the_hub_alone(void **state)
{
    (void)state;
    HubAccess access = access_http;
    HubRepo *repo = NULL;
    Error err = {0};
    access.token = "hf_secret";
    assert_ok(open_repo("hf://datasets/a/set", &access, &repo, &err), &err);
    assert_same(repo, "data/train.jsonl");
    hub_repo_close(repo);
    assert_int_equal(hub_requests_with("\"cdn\""), 1);
    assert_int_equal(hub_requests_with("\"hub\""), hub_requests_with("hf_secret"));
    for (int i = 0; i < 2; i++) /* nor in a file of the cache */
        assert_int_not_equal(system(i == 0 ? "grep -rq hf_secret cache" : "false"), 0);
}

static void put_access(const char *repo, const char *json)
{
    char *path = mem_printf(SERVER_ROOT "/repos/%s/access.json", repo);
    write_text(path, json);
    free(path);
}

static void test_who_may_not_is_told_what_to_do(void **state)
{
    (void)state;
    Error err = {0};
    HubAccess access = access_http;
    HubRepo *repo = NULL;
    put_access("a/set", "{\"gated\": true, \"token\": \"hf_good\"}");
    assert_ok(open_repo("hf://datasets/a/set", &access, &repo, &err), &err);
    assert_fails(fetch_status(repo, "README.md", &err), ERR_INVALID, &err, "accept them at http");
    hub_repo_close(repo);
    access.token = "hf_good";
    assert_ok(open_repo("hf://datasets/a/set", &access, &repo, &err), &err);
    assert_same(repo, "README.md");
    hub_repo_close(repo);
    put_access("a/set", "{\"private\": true, \"token\": \"hf_good\"}");
    access.token = NULL;
    assert_fails(open_repo("hf://datasets/a/set", &access, &repo, &err), ERR_NOT_FOUND, &err,
                 "and there is none");
    access.token = "hf_bad";
    assert_fails(open_repo("hf://datasets/a/set", &access, &repo, &err), ERR_NOT_FOUND, &err,
                 "no data set of that name");
}

static void test_nearest_names_are_told(void **state)
{
    (void)state;
    Error err = {0};
    HubAccess access = access_http;
    HubRepo *repo = NULL;
    access.token = "hf_x";
    hub_set_refs("a/set", "{\"branches\": {\"main\": \"" COMMIT_A "\"}, \"tags\": {\"v1.0\": \"" //
                 COMMIT_A "\"}}");
    assert_fails(open_repo("hf://datasets/a/sett", &access, &repo, &err), ERR_NOT_FOUND, &err,
                 "did you mean \"a/set\"?");
    access.token = NULL; /* then it answers with 401 */
    assert_fails(open_repo("hf://datasets/a/sett", &access, &repo, &err), ERR_NOT_FOUND, &err,
                 "did you mean \"a/set\"?");
    assert_fails(open_repo("hf://datasets/a/set@v1.1", &access, &repo, &err), ERR_NOT_FOUND, &err,
                 "did you mean \"v1.0\"?");
    assert_ok(open_repo("hf://datasets/a/set@v1.0", &access, &repo, &err), &err);
    hub_repo_close(repo);
}

/* ---- without a network ---- */

static void test_offline_takes_what_is_there(void **state)
{
    (void)state;
    Error err = {0};
    HubAccess access = access_http;
    HubRepo *repo = NULL;
    access.offline = true;
    assert_fails(open_repo("hf://datasets/a/set", &access, &repo, &err), ERR_RESOURCE, &err,
                 "hf download --repo-type dataset a/set");
    repo = open_set();
    assert_same(repo, "data/test.jsonl");
    hub_repo_close(repo);
    hub_forget_requests();
    assert_ok(open_repo("hf://datasets/a/set", &access, &repo, &err), &err);
    assert_same(repo, "data/test.jsonl");
    assert_fails(fetch_status(repo, "data/train.jsonl", &err), ERR_RESOURCE, &err,
                 "is not in the cache");
    hub_repo_close(repo);
    /* Without the list, as older releases of huggingface_hub leave it. */
    make_fresh(HUB_CACHE "/datasets--a--set/trees");
    assert_ok(open_repo("hf://datasets/a/set", &access, &repo, &err), &err);
    assert_int_equal(hub_repo_files(repo)->count, 1);
    assert_same(repo, "data/test.jsonl");
    hub_repo_close(repo);
    assert_int_equal(hub_requests_with(""), 0);
}

static void test_a_hub_that_cannot_be_reached_is_named(void **state)
{
    (void)state;
    Error err = {0};
    HubAccess access = access_http;
    HubRepo *repo = NULL;
    hub_repo_close(open_set());
    access.endpoint = "http://127.0.0.1:1";
    assert_fails(open_repo("hf://datasets/a/set", &access, &repo, &err), ERR_UNAVAILABLE, &err,
                 "http://127.0.0.1:1");
    assert_non_null(strstr(err.message, "HF_HUB_OFFLINE=1 takes what the cache has"));
}

/* ---- certificates ---- */

static void test_certificates_are_verified(void **state)
{
    (void)state;
    Error err = {0};
    HubServer secure;
    HubRepo *repo = NULL;
    if (!hub_make_certificate()) skip();
    hub_server_start("https", &secure);
    HubAccess access = hub_server_access("https", &secure);
    assert_ok(open_repo("hf://datasets/a/set", &access, &repo, &err), &err);
    assert_same(repo, "data/train.jsonl");
    hub_repo_close(repo);
    free(access.ca_file);
    access.ca_file = NULL; /* the system's, which do not know it */
    assert_fails(open_repo("hf://datasets/a/set", &access, &repo, &err), ERR_INVALID, &err,
                 "certificate of https://127.0.0.1");
    assert_non_null(strstr(err.message, "SSL_CERT_FILE"));
    hub_access_free(&access);
    hub_server_stop(&secure);
}

/* ---- giving up ---- */

static bool two_looks(void *context, int64_t new_bytes)
{
    (void)new_bytes;
    return ++*(_Atomic int *)context < 3;
}

static void test_who_is_not_waited_for_ends_soon(void **state)
{
    (void)state;
    _Atomic int looks = 0;
    Error err = {0};
    HubName name = {0};
    HubRepo *repo = NULL;
    HubRepoOptions options = {.access = &access_http, .watch = {two_looks, (void *)&looks}};
    hub_set_faults("[{\"match\": \"revision\", \"do\": \"status\", \"code\": 503, "
                   "\"retry_after\": 600, \"times\": 9}]");
    assert_true(hub_name_parse("hf://datasets/a/set", &name));
    assert_int_equal(hub_repo_open(&name, &options, &repo, &err), ERR_CANCELLED);
    hub_name_free(&name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_files_arrive_in_the_layout_of_huggingface_hub, fresh),
        cmocka_unit_test_setup(test_nothing_is_fetched_twice, fresh),
        cmocka_unit_test_setup(test_faults_on_the_way_do_no_harm, fresh),
        cmocka_unit_test_setup(test_a_server_that_stays_broken_is_given_up, fresh),
        cmocka_unit_test_setup(test_a_small_file_is_checked_too, fresh),
        cmocka_unit_test_setup(test_a_kill_costs_no_byte_that_was_fetched, fresh),
        cmocka_unit_test_setup(test_wrong_bytes_of_an_earlier_try_are_fetched_again, fresh),
        cmocka_unit_test_setup(test_one_of_many_fetches_a_blob, fresh),
        cmocka_unit_test_setup(test_a_lock_that_is_held_is_named_with_its_holder, fresh),
        cmocka_unit_test_setup(test_the_token_is_shown_to_the_hub_alone, fresh),
        cmocka_unit_test_setup(test_who_may_not_is_told_what_to_do, fresh),
        cmocka_unit_test_setup(test_nearest_names_are_told, fresh),
        cmocka_unit_test_setup(test_offline_takes_what_is_there, fresh),
        cmocka_unit_test_setup(test_a_hub_that_cannot_be_reached_is_named, fresh),
        cmocka_unit_test_setup(test_certificates_are_verified, fresh),
        cmocka_unit_test_setup(test_who_is_not_waited_for_ends_soon, fresh),
    };
    if (!hub_server_is_possible()) {
        print_message("          SKIP: there is no python3 to serve\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
