#include "rollout_worker/process/http_poster.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/json.h"
#include "base/memory.h"

/* A transfer and the connection that it keeps, which is the multi handle's. */
typedef struct Line {
    CURLM *multi;
    CURL *easy;
} Line;

struct HttpPoster {
    HttpPosterOptions options;
    struct curl_slist *headers;
    pthread_mutex_t lock; /* the list of idle lines */
    pthread_cond_t freed;
    Line idle[POSTER_CONNECTIONS_MAX];
    int64_t num_idle, num_used;
    int64_t answered_ms; /* when the server last answered anything; under the lock, too */
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void start_curl(void)
{
    CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == 0);
}

/* ---- options ---- */

HttpPosterOptions http_poster_defaults(void)
{
    return (HttpPosterOptions){.timeout_ms = 120000,
                               .attempts = 10,
                               .backoff_ms = 1000,
                               .backoff_ms_max = 30000,
                               .connections = 64};
}

void http_poster_options_clear(HttpPosterOptions *options)
{
    free(options->url);
    for (int i = 0; options->header[i] != NULL; i++)
        free(options->header[i]);
    *options = (HttpPosterOptions){0};
}

static Status read_headers(const cJSON *json, const char *where, HttpPosterOptions *ret, Error *err)
{
    const cJSON *headers = cJSON_GetObjectItemCaseSensitive(json, "headers"), *entry = NULL;
    int count = 0;
    if (headers == NULL) return OK;
    bool valid = cJSON_IsObject(headers) && cJSON_GetArraySize(headers) <= POSTER_HEADERS_MAX;
    cJSON_ArrayForEach(entry, headers)
    {
        valid = valid && cJSON_IsString(entry) && strpbrk(entry->string, "\r\n: ") == NULL &&
                strpbrk(entry->valuestring, "\r\n") == NULL;
        if (!valid) break;
        ret->header[count++] = mem_printf("%s: %s", entry->string, entry->valuestring);
    }
    if (valid) return OK;
    return error_set(err, ERR_INVALID,
                     "%s: headers is not an object of at most %d names and texts on one line",
                     where, POSTER_HEADERS_MAX);
}

Status http_poster_read_options(const cJSON *json, const char *where, HttpPosterOptions *ret,
                                Error *err)
{
    const char *url = NULL;
    TRY(json_string(json, "url", where, &url, err));
    TRY(json_int_or(json, "timeout_ms", where, 1, 86400000, &ret->timeout_ms, err));
    TRY(json_int_or(json, "attempts", where, 1, 1000, &ret->attempts, err));
    TRY(json_int_or(json, "backoff_ms", where, 0, 3600000, &ret->backoff_ms, err));
    TRY(json_int_or(json, "backoff_ms_max", where, 0, 3600000, &ret->backoff_ms_max, err));
    TRY(json_int_or(json, "connections", where, 1, POSTER_CONNECTIONS_MAX, &ret->connections, err));
    if (!str_starts_with(url, "http://") && !str_starts_with(url, "https://"))
        return error_set(err, ERR_INVALID, "%s: url is %s, expected http://... or https://...",
                         where, QUOTED(url));
    ret->url = mem_strdup(url);
    return read_headers(json, where, ret, err);
}

Status http_poster_open(const HttpPosterOptions *options, HttpPoster **ret, Error *err)
{
    if (pthread_once(&curl_once, start_curl) != 0)
        return error_set(err, ERR_INTERNAL, "could not start libcurl");
    HttpPoster *poster = mem_calloc(1, sizeof *poster);
    poster->options = *options;
    poster->options.url = mem_strdup(options->url);
    poster->headers = curl_slist_append(NULL, "Content-Type: application/json");
    for (int i = 0; options->header[i] != NULL; i++)
        poster->headers = curl_slist_append(poster->headers, options->header[i]);
    memset(poster->options.header, 0, sizeof poster->options.header);
    condition_init(&poster->freed);
    pthread_mutex_init(&poster->lock, NULL);
    *ret = poster;
    return OK;
}

void http_poster_close(HttpPoster *poster)
{
    if (poster == NULL) return;
    CHECK(poster->num_used == 0);
    for (int64_t i = 0; i < poster->num_idle; i++) {
        curl_multi_cleanup(poster->idle[i].multi);
        curl_easy_cleanup(poster->idle[i].easy);
    }
    curl_slist_free_all(poster->headers);
    pthread_cond_destroy(&poster->freed);
    pthread_mutex_destroy(&poster->lock);
    http_poster_options_clear(&poster->options);
    free(poster);
}

/* ---- connections ---- */

/* When to look again whether it is wanted, and no later than `end_ms`. */
static int64_t next_look(int64_t end_ms)
{
    int64_t look_ms = clock_ms() + WANTED_SLICE_MS;
    return look_ms < end_ms ? look_ms : end_ms;
}

/* With the lock: until when one that began to wait then does so. For as long as a server answers
 * those before it, it is only slow, and each has its turn. */
static int64_t end_of_patience(const HttpPoster *poster, int64_t began_ms)
{
    int64_t since_ms = poster->answered_ms > began_ms ? poster->answered_ms : began_ms;
    return since_ms + poster->options.timeout_ms;
}

/* A line with a connection that may be kept from before. False when none came free in time, or
 * nobody wants it any more. */
static bool take_line(HttpPoster *poster, const Wanted *wanted, int64_t began_ms, Line *ret)
{
    *ret = (Line){0};
    pthread_mutex_lock(&poster->lock);
    while (poster->num_used == poster->options.connections &&
           clock_ms() < end_of_patience(poster, began_ms) && !wanted_is_over(wanted))
        condition_wait_until(&poster->freed, &poster->lock,
                             next_look(end_of_patience(poster, began_ms)));
    bool free_one = poster->num_used < poster->options.connections;
    if (free_one) poster->num_used++;
    if (free_one && poster->num_idle > 0) *ret = poster->idle[--poster->num_idle];
    pthread_mutex_unlock(&poster->lock);
    if (!free_one || ret->easy != NULL) return free_one;
    *ret = (Line){curl_multi_init(), curl_easy_init()};
    CHECK(ret->multi != NULL && ret->easy != NULL);
    return true;
}

static void give_line(HttpPoster *poster, const Line *line, bool answered)
{
    pthread_mutex_lock(&poster->lock);
    if (answered) poster->answered_ms = clock_ms();
    poster->num_used--;
    poster->idle[poster->num_idle++] = *line;
    pthread_cond_signal(&poster->freed);
    pthread_mutex_unlock(&poster->lock);
}

static size_t take_bytes(char *bytes, size_t size, size_t count, void *answer)
{
    Str *text = answer;
    if (text->length + size * count > POSTER_ANSWER_BYTES) return 0;
    str_append(text, bytes, size * count);
    return size * count;
}

/* Until the transfer has ended, or nobody wants it any more: CURLE_ABORTED_BY_CALLBACK. */
static CURLcode transfer(const Line *line, const Wanted *wanted)
{
    CURLcode code = CURLE_ABORTED_BY_CALLBACK;
    int running = 1, left = 0;
    CHECK(curl_multi_add_handle(line->multi, line->easy) == CURLM_OK);
    while (running > 0 && !wanted_is_over(wanted)) {
        if (curl_multi_perform(line->multi, &running) != CURLM_OK) break;
        if (running > 0) curl_multi_poll(line->multi, NULL, 0, WANTED_SLICE_MS, NULL);
    }
    for (CURLMsg *message; (message = curl_multi_info_read(line->multi, &left)) != NULL;)
        if (message->msg == CURLMSG_DONE) code = message->data.result;
    curl_multi_remove_handle(line->multi, line->easy);
    return code;
}

/* One try. Returns curl's code and the HTTP status. */
static CURLcode try_once(const HttpPoster *poster, const Line *line, const Str *body,
                         const Wanted *wanted, int64_t left_ms, Str *answer, long *ret_status)
{
    CURL *handle = line->easy;
    curl_easy_reset(handle); /* the connection stays */
    curl_easy_setopt(handle, CURLOPT_URL, poster->options.url);
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, poster->headers);
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, body->data);
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->length);
    curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, (long)left_ms);
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, take_bytes);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(handle, CURLOPT_USERAGENT, "troupe");
    str_clear(answer);
    CURLcode code = transfer(line, wanted);
    curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, ret_status);
    return code;
}

/* ---- a post ---- */

static bool may_pass(CURLcode code, long status)
{
    if (code != CURLE_OK) return code != CURLE_URL_MALFORMAT && code != CURLE_WRITE_ERROR;
    return status == 408 || status == 425 || status == 429 || status >= 500;
}

static Status explain(const HttpPoster *poster, CURLcode code, long status, const Str *answer,
                      HttpOutcome *ret)
{
    const char *url = poster->options.url;
    if (code == CURLE_WRITE_ERROR)
        snprintf(ret->reason, sizeof ret->reason, "%s: an answer of more than a mebibyte", url);
    else if (code != CURLE_OK)
        snprintf(ret->reason, sizeof ret->reason, "%s: %s", url, curl_easy_strerror(code));
    else
        snprintf(ret->reason, sizeof ret->reason, "%s: HTTP status %ld: %.80s", url, status,
                 str_text(answer));
    ret->permanent = !may_pass(code, status);
    return code == CURLE_OPERATION_TIMEDOUT ? ERR_TIMEOUT : ERR_UNAVAILABLE;
}

/* It is made again; who waits is told. */
static void tell_of_try(const HttpPoster *poster, const Wanted *wanted, CURLcode code, long status,
                        const Str *answer)
{
    HttpOutcome outcome;
    explain(poster, code, status, answer, &outcome);
    wanted_note_failure(wanted, outcome.reason);
}

/* Tries, with pauses between, while it may pass, there is time, and somebody wants it. The time is
 * that of the tries and pauses: waiting for a line is not the server's fault with this one. */
static CURLcode try_often(HttpPoster *poster, const Str *body, const Wanted *wanted, Str *answer,
                          long *ret_status)
{
    const HttpPosterOptions *options = &poster->options;
    int64_t began_ms = clock_ms(), left_ms = options->timeout_ms, delay = options->backoff_ms;
    CURLcode code = CURLE_OPERATION_TIMEDOUT;
    for (int64_t attempt = 1; attempt <= options->attempts; attempt++) {
        Line line;
        if (!take_line(poster, wanted, began_ms, &line)) break;
        int64_t start_ms = clock_ms();
        code = try_once(poster, &line, body, wanted, left_ms, answer, ret_status);
        left_ms -= clock_ms() - start_ms;
        give_line(poster, &line, code == CURLE_OK);
        bool answered = code == CURLE_OK && *ret_status >= 200 && *ret_status < 300;
        if (answered || !may_pass(code, *ret_status) || attempt == options->attempts) break;
        if (delay > options->backoff_ms_max) delay = options->backoff_ms_max;
        if (delay >= left_ms) break;
        tell_of_try(poster, wanted, code, *ret_status, answer);
        if (wanted_pause(wanted, delay, NULL) != OK) break;
        left_ms -= delay;
        delay *= 2;
    }
    return code;
}

Status http_poster_post(HttpPoster *poster, const Str *body, const Wanted *wanted, Str *answer,
                        HttpOutcome *ret)
{
    long status = 0;
    CURLcode code = try_often(poster, body, wanted, answer, &status);
    if (code == CURLE_OK && status >= 200 && status < 300) return OK;
    if (!wanted_is_over(wanted)) return explain(poster, code, status, answer, ret);
    snprintf(ret->reason, sizeof ret->reason, "%s: nobody wants it any more", poster->options.url);
    return ERR_CANCELLED;
}
