/* The reward `http`: a server of the user's that judges responses. A request is a POST whose body
 * is slime's, {"prompt", "response", "label"} (with `full` also metadata, position and index; with
 * `group` all responses of a prompt at once), an answer a number or an object (scorer_json.h).
 *
 * Each call has one time limit, timeout_ms, for all of its tries and the pauses between them, which
 * double from backoff_ms to backoff_ms_max. What may pass is tried again: no connection, a broken
 * one, 408, 425, 429 and 5xx. Any other status says that the request is wrong, which does not pass:
 * that is REWARD_INFRA_ERROR with `permanent`. Connections are kept and shared; at most
 * `connections` are in use at a time, and a call that must wait for one waits inside of its time
 * limit. */
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/scorer_json.h"

#define CONNECTIONS_MAX 1024

typedef struct Server {
    char *url;
    char *key; /* the score's key in an answer that is an object */
    int64_t timeout_ms, attempts, backoff_ms, backoff_ms_max, connections;
    double right_above;
    bool group, full;
    struct curl_slist *headers;
    pthread_mutex_t lock; /* the list of idle handles */
    pthread_cond_t freed;
    CURL *idle[CONNECTIONS_MAX];
    int64_t num_idle, num_used;
} Server;

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void start_curl(void)
{
    CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == 0);
}

static void http_close(void *opened)
{
    Server *server = opened;
    if (server == NULL) return;
    CHECK(server->num_used == 0); /* no call may be under way */
    for (int64_t i = 0; i < server->num_idle; i++)
        curl_easy_cleanup(server->idle[i]);
    curl_slist_free_all(server->headers);
    pthread_cond_destroy(&server->freed);
    pthread_mutex_destroy(&server->lock);
    free(server->url);
    free(server->key);
    free(server);
}

static Status read_headers(const cJSON *options, Server *server, Error *err)
{
    const cJSON *headers = cJSON_GetObjectItemCaseSensitive(options, "headers"), *entry = NULL;
    server->headers = curl_slist_append(NULL, "Content-Type: application/json");
    if (headers == NULL) return OK;
    bool valid = cJSON_IsObject(headers);
    cJSON_ArrayForEach(entry, headers)
    {
        valid = valid && cJSON_IsString(entry) && strpbrk(entry->string, "\r\n: ") == NULL &&
                strpbrk(entry->valuestring, "\r\n") == NULL;
        if (!valid) break;
        char *line = mem_printf("%s: %s", entry->string, entry->valuestring);
        server->headers = curl_slist_append(server->headers, line);
        free(line);
    }
    if (valid) return OK;
    return error_set(
        err, ERR_INVALID,
        "option headers of reward http is not an object of names and texts on one line");
}

static Status read_options(const cJSON *options, Server *server, Error *err)
{
    static const char *const keys[] = {
        "url", "timeout_ms",  "attempts", "backoff_ms", "connections",    "headers",
        "key", "right_above", "group",    "full",       "backoff_ms_max", NULL};
    static const char *const where = "http";
    const char *url = NULL, *key = NULL;
    TRY(options_check(options, where, keys, err));
    TRY(json_string(options, "url", where, &url, err));
    TRY(json_string_or(options, "key", where, &key, err));
    TRY(json_int_or(options, "timeout_ms", where, 1, 86400000, &server->timeout_ms, err));
    TRY(json_int_or(options, "attempts", where, 1, 1000, &server->attempts, err));
    TRY(json_int_or(options, "backoff_ms", where, 0, 3600000, &server->backoff_ms, err));
    TRY(json_int_or(options, "backoff_ms_max", where, 0, 3600000, &server->backoff_ms_max, err));
    TRY(json_int_or(options, "connections", where, 1, CONNECTIONS_MAX, &server->connections, err));
    TRY(json_double_or(options, "right_above", where, &server->right_above, err));
    TRY(json_bool_or(options, "group", where, &server->group, err));
    TRY(json_bool_or(options, "full", where, &server->full, err));
    if (!str_starts_with(url, "http://") && !str_starts_with(url, "https://"))
        return error_set(err, ERR_INVALID,
                         "option url of reward http is %s, expected http://... or https://...",
                         QUOTED(url));
    server->url = mem_strdup(url);
    server->key = mem_strdup(key);
    return read_headers(options, server, err);
}

static Status http_open(const cJSON *options, void **ret_self, Error *err)
{
    pthread_once(&curl_once, start_curl);
    Server *server = mem_calloc(1, sizeof *server);
    server->timeout_ms = 120000;
    server->attempts = 10;
    server->backoff_ms = 1000;
    server->backoff_ms_max = 30000;
    server->connections = 64;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&server->freed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&server->lock, NULL);
    Status status = read_options(options, server, err);
    if (status == OK)
        *ret_self = server;
    else
        http_close(server);
    return status;
}

/* ---- connections ---- */

/* A handle with a connection that may be kept from before; NULL when none came free in time. */
static CURL *take_handle(Server *server, int64_t end_ms)
{
    struct timespec until = {.tv_sec = end_ms / 1000, .tv_nsec = end_ms % 1000 * 1000000};
    CURL *handle = NULL;
    bool wait = true;
    pthread_mutex_lock(&server->lock);
    while (server->num_used == server->connections && wait)
        wait = pthread_cond_timedwait(&server->freed, &server->lock, &until) != ETIMEDOUT;
    bool free_one = server->num_used < server->connections;
    if (free_one) server->num_used++;
    if (free_one && server->num_idle > 0) handle = server->idle[--server->num_idle];
    pthread_mutex_unlock(&server->lock);
    if (free_one && handle == NULL) {
        handle = curl_easy_init();
        CHECK(handle != NULL);
    }
    return handle;
}

static void give_handle(Server *server, CURL *handle)
{
    pthread_mutex_lock(&server->lock);
    server->num_used--;
    server->idle[server->num_idle++] = handle;
    pthread_cond_signal(&server->freed);
    pthread_mutex_unlock(&server->lock);
}

static size_t take_bytes(char *bytes, size_t size, size_t count, void *answer)
{
    Str *text = answer;
    if (text->length + size * count > SCORER_ANSWER_BYTES_MAX) return 0;
    str_append(text, bytes, size * count);
    return size * count;
}

/* One POST. Returns curl's code and the HTTP status. */
static CURLcode post(const Server *server, CURL *handle, const Str *body, int64_t left_ms,
                     Str *answer, long *ret_status)
{
    char trouble[CURL_ERROR_SIZE] = "";
    curl_easy_reset(handle); /* the connection stays */
    curl_easy_setopt(handle, CURLOPT_URL, server->url);
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, server->headers);
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, body->data);
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->length);
    curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, (long)left_ms);
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, take_bytes);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(handle, CURLOPT_USERAGENT, "troupe");
    curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, trouble);
    str_clear(answer);
    CURLcode code = curl_easy_perform(handle);
    curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, NULL);
    curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, ret_status);
    return code;
}

/* ---- a call ---- */

static bool may_pass(CURLcode code, long status)
{
    if (code != CURLE_OK) return code != CURLE_URL_MALFORMAT && code != CURLE_WRITE_ERROR;
    return status == 408 || status == 425 || status == 429 || status >= 500;
}

/* Says of every response of the call that it was not judged. */
static void fail_all(const Server *server, CURLcode code, long status, const Str *answer, int count,
                     RewardResult *ret)
{
    char what[REWARD_REASON_BYTES];
    Slice body = slice_part((Slice){str_text(answer), answer->length}, 0, 80);
    if (code == CURLE_WRITE_ERROR)
        snprintf(what, sizeof what, "an answer of more than a mebibyte");
    else if (code != CURLE_OK)
        snprintf(what, sizeof what, "%s", curl_easy_strerror(code));
    else
        snprintf(what, sizeof what, "HTTP status %ld: %.*s", status, (int)body.length,
                 body.length == 0 ? "" : body.data);
    for (int i = 0; i < count; i++) {
        RewardOutcome outcome =
            code == CURLE_OPERATION_TIMEDOUT ? REWARD_TIMEOUT : REWARD_INFRA_ERROR;
        reward_fail(&ret[i], outcome, "%s: %s", server->url, what);
        ret[i].permanent = !may_pass(code, status);
    }
}

static void read_answer(const Server *server, const Str *text, int count, RewardResult *ret)
{
    cJSON *answer = NULL;
    Error err;
    if (json_parse(str_text(text), text->length, server->url, &answer, &err) != OK) {
        for (int i = 0; i < count; i++)
            reward_fail(&ret[i], REWARD_INFRA_ERROR, "%s: the answer is no JSON: %.60s",
                        server->url, str_text(text));
        return;
    }
    if (server->group)
        scorer_read_answers(answer, server->key, server->right_above, count, ret);
    else
        scorer_read_answer(answer, server->key, server->right_above, ret);
    cJSON_Delete(answer);
}

static void pause_ms(int64_t milliseconds)
{
    struct timespec left = {.tv_sec = milliseconds / 1000,
                            .tv_nsec = milliseconds % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
}

static void ask(Server *server, const RewardRequest *requests, int count, RewardResult *ret)
{
    int64_t end_ms = clock_ms() + server->timeout_ms, delay = server->backoff_ms;
    Str body = {0}, answer = {0};
    CURLcode code = CURLE_OPERATION_TIMEDOUT;
    long status = 0;
    scorer_append_request(&body, NULL, requests, count, server->group, server->full);
    str_putc(&body, '}');
    for (int64_t attempt = 1; attempt <= server->attempts; attempt++) {
        CURL *handle = take_handle(server, end_ms);
        int64_t left_ms = end_ms - clock_ms();
        if (handle != NULL && left_ms > 0)
            code = post(server, handle, &body, left_ms, &answer, &status);
        if (handle != NULL) give_handle(server, handle);
        if (handle == NULL || left_ms <= 0) break;
        bool answered = code == CURLE_OK && status >= 200 && status < 300;
        if (answered || !may_pass(code, status) || attempt == server->attempts) break;
        if (delay > server->backoff_ms_max) delay = server->backoff_ms_max;
        if (clock_ms() + delay >= end_ms) break;
        pause_ms(delay);
        delay *= 2;
    }
    if (code == CURLE_OK && status >= 200 && status < 300)
        read_answer(server, &answer, count, ret);
    else
        fail_all(server, code, status, &answer, count, ret);
    str_free(&body);
    str_free(&answer);
}

static void http_score(void *opened, const RewardRequest *request, RewardResult *ret)
{
    ask(opened, request, 1, ret);
}

static void http_score_group(void *opened, const RewardRequest *requests, int count,
                             RewardResult *ret)
{
    Server *server = opened;
    if (server->group) {
        ask(server, requests, count, ret);
        return;
    }
    for (int i = 0; i < count; i++)
        ask(server, &requests[i], 1, &ret[i]);
}

const RewardTable reward_http = {"http", http_open, http_close, http_score, http_score_group};
