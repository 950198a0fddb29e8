#include "hub/client.h"

#include <ctype.h>
#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/memory.h"

#define IDLE_MAX          16 /* connections that are kept */
#define REDIRECTIONS_MAX  10
#define LOOK_MS           100 /* in a pause */
#define CONNECT_MS        20000
#define RETRY_AFTER_MAX_S 600

struct HubClient {
    const HubAccess *access;
    HubWatch watch;
    HubSpeaker speaker;
    pthread_mutex_t lock; /* the idle handles */
    CURL *idle[IDLE_MAX];
    int num_idle;
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void start_curl(void)
{
    CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == 0);
}

/* ---- connections ---- */

HubClient *hub_client_create(const HubAccess *access, HubWatch watch)
{
    CHECK(pthread_once(&curl_once, start_curl) == 0);
    HubClient *client = mem_calloc(1, sizeof *client);
    client->access = access;
    client->watch = watch;
    pthread_mutex_init(&client->lock, NULL);
    return client;
}

void hub_client_destroy(HubClient *client)
{
    if (client == NULL) return;
    for (int i = 0; i < client->num_idle; i++)
        curl_easy_cleanup(client->idle[i]);
    pthread_mutex_destroy(&client->lock);
    free(client);
}

const HubAccess *hub_client_access(const HubClient *client)
{
    return client->access;
}

const HubWatch *hub_client_watch(const HubClient *client)
{
    return &client->watch;
}

static CURL *take_handle(HubClient *client)
{
    CURL *handle = NULL;
    pthread_mutex_lock(&client->lock);
    if (client->num_idle > 0) handle = client->idle[--client->num_idle];
    pthread_mutex_unlock(&client->lock);
    if (handle == NULL) handle = curl_easy_init();
    CHECK(handle != NULL);
    curl_easy_reset(handle); /* the connection stays */
    return handle;
}

static void give_handle(HubClient *client, CURL *handle)
{
    pthread_mutex_lock(&client->lock);
    bool kept = client->num_idle < IDLE_MAX;
    if (kept) client->idle[client->num_idle++] = handle;
    pthread_mutex_unlock(&client->lock);
    if (!kept) curl_easy_cleanup(handle);
}

/* ---- addresses ---- */

/* Scheme, host and port of a URL are the same: the text before the path, in any case of letters,
 * where the port is written or not written in both. */
static bool same_origin(const char *a, const char *b)
{
    const char *host_a = strstr(a, "://"), *host_b = strstr(b, "://");
    if (host_a == NULL || host_b == NULL) return false;
    size_t length = (size_t)(host_a - a) + 3 + strcspn(host_a + 3, "/?#");
    size_t other = (size_t)(host_b - b) + 3 + strcspn(host_b + 3, "/?#");
    return length == other && strncasecmp(a, b, length) == 0;
}

/* A redirection's address, which may be relative to the one that gave it. NULL: none that is
 * followed. Owned. */
static char *follow(const char *url, const char *location)
{
    CURLU *address = curl_url();
    char *text = NULL, *target = NULL;
    bool valid = address != NULL && curl_url_set(address, CURLUPART_URL, url, 0) == CURLUE_OK &&
                 curl_url_set(address, CURLUPART_URL, location, 0) == CURLUE_OK &&
                 curl_url_get(address, CURLUPART_URL, &text, 0) == CURLUE_OK;
    bool web = valid && (str_starts_with(text, "https://") ||
                         (str_starts_with(text, "http://") && str_starts_with(url, "http://")));
    if (web) target = mem_strdup(text);
    curl_free(text);
    curl_url_cleanup(address);
    return target;
}

/* ---- one try ---- */

typedef struct Try {
    HubClient *client;
    const HubRequest *request;
    HubHeader *header;
    HubSilence silence;
    int64_t from; /* the byte from which on the body is wanted */
    bool begun;   /* the body is the sink's */
    bool away;    /* another host than the Hub is asked */
    char commit[HUB_COMMIT_BYTES], linked[HUB_ETAG_BYTES]; /* that the Hub said on the way */
    int64_t unseen; /* bytes that the watch was not told of */
    Error err;      /* of the sink */
} Try;

static size_t take_header(char *line, size_t size, size_t count, void *context)
{
    hub_header_line(((Try *)context)->header, line, size * count);
    return size * count;
}

/* What the Hub said of the file before it sent us elsewhere stays with the last header. */
static void keep_what_was_said(Try *this)
{
    HubHeader *header = this->header;
    if (header->commit[0] == '\0') memcpy(header->commit, this->commit, sizeof this->commit);
    if (header->linked_etag[0] == '\0')
        memcpy(header->linked_etag, this->linked, sizeof this->linked);
    memcpy(this->commit, header->commit, sizeof this->commit);
    memcpy(this->linked, header->linked_etag, sizeof this->linked);
}

static Status begin_body(Try *this)
{
    const HubSink *sink = &this->request->sink;
    this->begun = true;
    keep_what_was_said(this);
    return sink->header != NULL ? sink->header(sink->context, this->header, &this->err) : OK;
}

static size_t take_body(char *bytes, size_t size, size_t count, void *context)
{
    Try *this = context;
    size_t length = size * count;
    int status = this->header->status;
    if (status < 200 || status >= 300) return length; /* what is said about it, is in the header */
    const HubSink *sink = &this->request->sink;
    if (!this->begun && begin_body(this) != OK) return 0;
    if (sink->take(sink->context, bytes, length, &this->err) != OK) return 0;
    this->unseen += (int64_t)length;
    return length;
}

static int tell_progress(void *context, curl_off_t all, curl_off_t now, curl_off_t up_all,
                         curl_off_t up_now)
{
    Try *this = context;
    (void)all, (void)now, (void)up_all, (void)up_now;
    int64_t bytes = this->unseen;
    this->unseen = 0;
    if (bytes > 0) hub_silence_bytes(&this->silence, bytes);
    hub_silence_look(&this->silence);
    return hub_watch_goes_on(&this->client->watch, bytes) ? 0 : 1;
}

static struct curl_slist *make_headers(const Try *this, const char *url)
{
    const HubAccess *access = this->client->access;
    struct curl_slist *list = curl_slist_append(NULL, "Accept-Encoding: identity");
    if (access->token != NULL && same_origin(url, access->endpoint)) {
        char *line = mem_printf("Authorization: Bearer %s", access->token);
        list = curl_slist_append(list, line);
        free(line);
    }
    if (this->from > 0 && this->request->etag != NULL && same_origin(url, access->endpoint)) {
        char *line = mem_printf("If-Match: \"%s\"", this->request->etag);
        list = curl_slist_append(list, line);
        free(line);
    }
    return list;
}

static CURLcode perform(Try *this, const char *url)
{
    const HubAccess *access = this->client->access;
    CURL *handle = take_handle(this->client);
    struct curl_slist *headers = make_headers(this, url);
    curl_easy_setopt(handle, CURLOPT_URL, url);
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(handle, CURLOPT_USERAGENT, "troupe");
    curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
#if CURL_AT_LEAST_VERSION(7, 87, 0)
    curl_easy_setopt(handle, CURLOPT_QUICK_EXIT, 1L); /* waits for no resolver that hangs */
#endif
    curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(handle, CURLOPT_LOW_SPEED_TIME, (long)((access->stall_ms + 999) / 1000));
    curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(handle, CURLOPT_HEADERDATA, this);
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, tell_progress);
    curl_easy_setopt(handle, CURLOPT_XFERINFODATA, this);
    if (access->ca_file != NULL) curl_easy_setopt(handle, CURLOPT_CAINFO, access->ca_file);
    if (this->from > 0) {
        char range[32];
        snprintf(range, sizeof range, "%lld-", (long long)this->from);
        curl_easy_setopt(handle, CURLOPT_RANGE, range);
    }
    CURLcode code = curl_easy_perform(handle);
    if (code == CURLE_OK) tell_progress(this, 0, 0, 0, 0);
    curl_slist_free_all(headers);
    give_handle(this->client, handle);
    return code;
}

static Status refuse_redirection(const Try *this, const char *location, Error *err)
{
    return error_set(err, ERR_DATA,
                     "%s: the server sends to %s, which is not followed\n  expected: at most %d "
                     "redirections, and from https none to another protocol\n  to do: look at "
                     "HF_ENDPOINT",
                     this->request->what, QUOTED(location), REDIRECTIONS_MAX);
}

/* What curl says, as one of ours. ERR_UNAVAILABLE may pass. */
static Status explain_transport(Try *this, CURLcode code, Error *err)
{
    const HubAccess *access = this->client->access;
    const char *what = this->request->what, *said = curl_easy_strerror(code);
    if (code == CURLE_ABORTED_BY_CALLBACK) return hub_watch_give_up(err);
    if (code == CURLE_WRITE_ERROR && this->err.status != OK) {
        if (err != NULL) *err = this->err;
        return this->err.status;
    }
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE)
        return error_set(err, ERR_INVALID,
                         "%s: the certificate of %s cannot be verified: %s\n  expected: one by a "
                         "certificate authority that is known here (%s)\n  to do: install "
                         "ca-certificates, or name the file of your authority in SSL_CERT_FILE",
                         what, this->silence.host, said,
                         access->ca_file != NULL ? access->ca_file : "the system's");
    if (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL)
        return error_set(err, ERR_INVALID, "%s: %s: %s", what, this->request->url, said);
    snprintf(this->silence.trouble, sizeof this->silence.trouble, "%s", said);
    return error_set(err, ERR_UNAVAILABLE, "%s: %s: %s", what, this->silence.host, said);
}

/* Follows redirections; the header is that of the last answer. */
static Status try_once(Try *this, Error *err)
{
    char *url = mem_strdup(this->request->url);
    Status status = OK;
    this->commit[0] = this->linked[0] = '\0';
    for (int hop = 0;; hop++) {
        HubHeader *header = this->header;
        hub_header_begin(header);
        this->begun = false;
        hub_silence_host(&this->silence, url);
        this->away = !same_origin(url, this->client->access->endpoint);
        CURLcode code = perform(this, url);
        if (code != CURLE_OK) status = explain_transport(this, code, err);
        bool away = header->status >= 300 && header->status < 400 && header->location != NULL;
        if (status != OK || !away) break;
        keep_what_was_said(this);
        char *target = follow(url, header->location);
        if (target == NULL || hop == REDIRECTIONS_MAX)
            status = refuse_redirection(this, header->location, err);
        free(url);
        url = target;
        if (status != OK) break;
    }
    free(url);
    int answer = this->header->status;
    if (status == OK && answer >= 200 && answer < 300 && !this->begun) /* without a byte */
        status = begin_body(this) == OK ? OK : explain_transport(this, CURLE_WRITE_ERROR, err);
    return status;
}

/* ---- a request ---- */

static bool may_pass(int status)
{
    return status == 408 || status == 425 || status == 429 || status >= 500;
}

/* A link that the Hub gave to another host may have expired there: it gives a new one. */
static bool is_refused_link(const Try *this)
{
    int status = this->header->status;
    return this->away && status >= 400 && status < 500 && status != 412 && status != 416;
}

static Status explain_answer(Try *this, Error *err)
{
    const HubHeader *header = this->header;
    const char *what = this->request->what, *host = this->silence.host;
    const char *said =
        header->error_message[0] != '\0' ? header->error_message : header->error_code;
    char reason[2 * STR_QUOTED_BYTES] = "";
    if (said[0] != '\0') snprintf(reason, sizeof reason, " (%s)", QUOTED(said));
    snprintf(this->silence.trouble, sizeof this->silence.trouble, "HTTP status %d", header->status);
    if (is_refused_link(this))
        return error_set(err, ERR_UNAVAILABLE,
                         "%s: %s, where the Hub sends us to, answers with HTTP status %d", what,
                         host, header->status);
    Status status = may_pass(header->status)                         ? ERR_UNAVAILABLE
                    : header->status == 404                          ? ERR_NOT_FOUND
                    : header->status == 401 || header->status == 403 ? ERR_INVALID
                                                                     : ERR_DATA;
    return error_set(err, status, "%s: %s answers with HTTP status %d%s", what, host,
                     header->status, reason);
}

/* Before the next try: what the server asks for, or the pause that doubles. */
static Status pause_before(Try *this, Error *err)
{
    const HubAccess *access = this->client->access;
    HubSilence *silence = &this->silence;
    int64_t asked_s = this->header->retry_after_s, pause = silence->backoff_ms, left;
    if (asked_s > RETRY_AFTER_MAX_S) asked_s = RETRY_AFTER_MAX_S;
    if (asked_s >= 0) pause = 1000 * asked_s;
    silence->next_ms = clock_ms() + pause;
    while ((left = silence->next_ms - clock_ms()) > 0) {
        hub_silence_look(silence);
        TRY(hub_watch_pause(&this->client->watch, left < LOOK_MS ? left : LOOK_MS, err));
    }
    silence->next_ms = 0;
    silence->backoff_ms = 2 * silence->backoff_ms < access->backoff_ms_max ? 2 * silence->backoff_ms
                                                                           : access->backoff_ms_max;
    return hub_watch_goes_on(&this->client->watch, 0) ? OK : hub_watch_give_up(err);
}

/* All tries. */
static Status try_often(Try *this, Error *err)
{
    const HubSink *sink = &this->request->sink;
    HubSilence *silence = &this->silence;
    for (;;) {
        Error why = {0}, pause = {0};
        int64_t from = sink->begin != NULL ? sink->begin(sink->context) : 0;
        if (from > this->from) { /* it goes on */
            silence->tries = 0;
            silence->backoff_ms = this->client->access->backoff_ms;
        }
        this->from = from;
        silence->begun_ms = clock_ms();
        Status status = try_once(this, &why);
        if (status == OK && (this->header->status < 200 || this->header->status >= 300))
            status = explain_answer(this, &why);
        if (status != ERR_UNAVAILABLE || ++silence->tries >= silence->tries_max) {
            if (status != OK && err != NULL) *err = why;
            return status;
        }
        if (pause_before(this, &pause) == OK) continue;
        if (err != NULL) *err = pause;
        return ERR_CANCELLED;
    }
}

Status hub_client_get(HubClient *client, const HubRequest *request, HubHeader *ret, Error *err)
{
    const HubAccess *access = client->access;
    HubHeader header = {0};
    Try this = {.client = client,
                .request = request,
                .header = &header,
                .silence = {.access = access,
                            .watch = &client->watch,
                            .speaker = &client->speaker,
                            .what = request->what,
                            .tries_max = request->once ? 1 : access->attempts,
                            .backoff_ms = access->backoff_ms}};
    hub_silence_begin(&this.silence);
    Status status = try_often(&this, err);
    hub_silence_end(&this.silence);
    if (status == ERR_UNAVAILABLE && err != NULL)
        error_append(err, "  expected: the Hugging Face Hub there\n  to do: look at the network "
                          "(https_proxy, HF_ENDPOINT) and start again: what was fetched is kept");
    if (ret != NULL)
        *ret = header;
    else
        hub_header_free(&header);
    return status;
}

/* ---- small answers ---- */

static int64_t begin_text(void *context)
{
    str_clear(context);
    return 0;
}

static Status take_text(void *context, const void *bytes, size_t length, Error *err)
{
    Str *text = context;
    if (text->length + length > HUB_LIST_BYTES_MAX)
        return error_set(err, ERR_RESOURCE,
                         "the Hub's answer has more than %u bytes (HUB_LIST_BYTES_MAX)",
                         HUB_LIST_BYTES_MAX);
    str_append(text, bytes, length);
    return OK;
}

Status hub_client_get_text(HubClient *client, const char *url, const char *what, bool once,
                           HubText *ret, Error *err)
{
    *ret = (HubText){0};
    HubRequest request = {.url = url,
                          .what = what,
                          .once = once,
                          .sink = {.begin = begin_text, .take = take_text, .context = &ret->text}};
    Status status = hub_client_get(client, &request, &ret->header, err);
    if (status == OK && ret->header.next != NULL) ret->next = follow(url, ret->header.next);
    return status;
}

void hub_text_free(HubText *text)
{
    str_free(&text->text);
    free(text->next);
    hub_header_free(&text->header);
    *text = (HubText){0};
}
