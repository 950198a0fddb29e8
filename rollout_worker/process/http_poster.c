#include "rollout_worker/process/http_poster.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"

struct HttpPoster {
    HttpPosterOptions options;
    struct curl_slist *headers;
    pthread_mutex_t lock; /* the list of idle handles */
    pthread_cond_t freed;
    CURL *idle[POSTER_CONNECTIONS_MAX];
    int64_t num_idle, num_used;
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
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&poster->freed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&poster->lock, NULL);
    *ret = poster;
    return OK;
}

void http_poster_close(HttpPoster *poster)
{
    if (poster == NULL) return;
    CHECK(poster->num_used == 0);
    for (int64_t i = 0; i < poster->num_idle; i++)
        curl_easy_cleanup(poster->idle[i]);
    curl_slist_free_all(poster->headers);
    pthread_cond_destroy(&poster->freed);
    pthread_mutex_destroy(&poster->lock);
    http_poster_options_clear(&poster->options);
    free(poster);
}

/* ---- connections ---- */

/* A handle with a connection that may be kept from before; NULL when none came free in time. */
static CURL *take_handle(HttpPoster *poster, int64_t end_ms)
{
    struct timespec until = {.tv_sec = end_ms / 1000, .tv_nsec = end_ms % 1000 * 1000000};
    CURL *handle = NULL;
    bool wait = true;
    pthread_mutex_lock(&poster->lock);
    while (poster->num_used == poster->options.connections && wait)
        wait = pthread_cond_timedwait(&poster->freed, &poster->lock, &until) != ETIMEDOUT;
    bool free_one = poster->num_used < poster->options.connections;
    if (free_one) poster->num_used++;
    if (free_one && poster->num_idle > 0) handle = poster->idle[--poster->num_idle];
    pthread_mutex_unlock(&poster->lock);
    if (free_one && handle == NULL) {
        handle = curl_easy_init();
        CHECK(handle != NULL);
    }
    return handle;
}

static void give_handle(HttpPoster *poster, CURL *handle)
{
    pthread_mutex_lock(&poster->lock);
    poster->num_used--;
    poster->idle[poster->num_idle++] = handle;
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

/* One try. Returns curl's code and the HTTP status. */
static CURLcode try_once(const HttpPoster *poster, CURL *handle, const Str *body, int64_t left_ms,
                         Str *answer, long *ret_status)
{
    char trouble[CURL_ERROR_SIZE] = "";
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
    curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, trouble);
    str_clear(answer);
    CURLcode code = curl_easy_perform(handle);
    curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, NULL);
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

static void pause_ms(int64_t milliseconds)
{
    struct timespec left = {.tv_sec = milliseconds / 1000,
                            .tv_nsec = milliseconds % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
}

Status http_poster_post(HttpPoster *poster, const Str *body, Str *answer, HttpOutcome *ret)
{
    const HttpPosterOptions *options = &poster->options;
    int64_t end_ms = clock_ms() + options->timeout_ms, delay = options->backoff_ms;
    CURLcode code = CURLE_OPERATION_TIMEDOUT;
    long status = 0;
    for (int64_t attempt = 1; attempt <= options->attempts; attempt++) {
        CURL *handle = take_handle(poster, end_ms);
        int64_t left_ms = end_ms - clock_ms();
        if (handle != NULL && left_ms > 0)
            code = try_once(poster, handle, body, left_ms, answer, &status);
        if (handle != NULL) give_handle(poster, handle);
        if (handle == NULL || left_ms <= 0) break;
        bool answered = code == CURLE_OK && status >= 200 && status < 300;
        if (answered || !may_pass(code, status) || attempt == options->attempts) break;
        if (delay > options->backoff_ms_max) delay = options->backoff_ms_max;
        if (clock_ms() + delay >= end_ms) break;
        pause_ms(delay);
        delay *= 2;
    }
    if (code == CURLE_OK && status >= 200 && status < 300) return OK;
    return explain(poster, code, status, answer, ret);
}
