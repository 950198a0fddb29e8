/* The reward `http`: a server of the user's that judges responses (process/http_poster.h speaks to
 * it). A request is a POST whose body is slime's, {"prompt", "response", "label"} (with `full` also
 * metadata, position and index; with `group` all responses of a prompt at once), an answer a number
 * or an object (scorer_json.h). Without `group` the responses of a group are posted side by side,
 * as far as `connections` allow. A status that says that the request is wrong is REWARD_INFRA_ERROR
 * with `permanent`. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/process/http_poster.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/scorer_json.h"

typedef struct Server {
    HttpPoster *poster;
    char *url;
    char *key; /* the score's key in an answer that is an object */
    double right_above;
    bool group, full;
    int helpers_max;
    atomic_int helpers; /* threads that post for a group */
} Server;

static void http_close(void *opened)
{
    Server *server = opened;
    if (server == NULL) return;
    http_poster_close(server->poster);
    free(server->url);
    free(server->key);
    free(server);
}

static Status read_options(const cJSON *options, Server *server, HttpPosterOptions *ret, Error *err)
{
    static const char *const keys[] = {
        "url", "timeout_ms",  "attempts", "backoff_ms", "connections",    "headers",
        "key", "right_above", "group",    "full",       "backoff_ms_max", NULL};
    static const char *const where = "http";
    const char *key = NULL;
    TRY(options_check(options, where, keys, err));
    TRY(json_string_or(options, "key", where, &key, err));
    TRY(json_double_or(options, "right_above", where, &server->right_above, err));
    TRY(json_bool_or(options, "group", where, &server->group, err));
    TRY(json_bool_or(options, "full", where, &server->full, err));
    TRY(http_poster_read_options(options, "the options of reward http", ret, err));
    server->helpers_max = (int)ret->connections - 1;
    server->url = mem_strdup(ret->url);
    server->key = mem_strdup(key);
    return OK;
}

static Status http_open(const cJSON *options, void **ret_self, Error *err)
{
    Server *server = mem_calloc(1, sizeof *server);
    HttpPosterOptions poster = http_poster_defaults();
    Status status = read_options(options, server, &poster, err);
    if (status == OK) status = http_poster_open(&poster, &server->poster, err);
    http_poster_options_clear(&poster);
    if (status == OK)
        *ret_self = server;
    else
        http_close(server);
    return status;
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
    for (int i = 0; i < count; i++)
        scorer_name(server->url, &ret[i]);
    cJSON_Delete(answer);
}

static void ask(Server *server, const RewardRequest *requests, int count, RewardResult *ret)
{
    Str body = {0}, answer = {0};
    HttpOutcome outcome = {0};
    scorer_append_request(&body, NULL, requests, count, server->group, server->full);
    str_putc(&body, '}');
    Status status = http_poster_post(server->poster, &body, requests[0].wanted, &answer, &outcome);
    if (status == OK) read_answer(server, &answer, count, ret);
    if (status != OK && status != ERR_CANCELLED)
        wanted_note_failure(requests[0].wanted, outcome.reason);
    for (int i = 0; status != OK && i < count; i++) {
        reward_fail(&ret[i], status == ERR_TIMEOUT ? REWARD_TIMEOUT : REWARD_INFRA_ERROR, "%s",
                    outcome.reason);
        ret[i].permanent = outcome.permanent;
        ret[i].told = true;
    }
    str_free(&body);
    str_free(&answer);
}

static void http_score(void *opened, const RewardRequest *request, RewardResult *ret)
{
    ask(opened, request, 1, ret);
}

/* Posts of a group, taken one after the other by several threads. */
typedef struct Posts {
    Server *server;
    const RewardRequest *requests;
    RewardResult *results;
    int count;
    atomic_int next;
} Posts;

static void *take_posts(void *argument)
{
    Posts *posts = argument;
    for (int i; (i = atomic_fetch_add(&posts->next, 1)) < posts->count;)
        ask(posts->server, &posts->requests[i], 1, &posts->results[i]);
    return NULL;
}

/* The caller's thread and others; over all groups as many others as there may be connections. */
static void ask_side_by_side(Server *server, const RewardRequest *requests, int count,
                             RewardResult *ret)
{
    Posts posts = {server, requests, ret, count, 0};
    pthread_t *helper = mem_calloc((size_t)count, sizeof *helper);
    int helpers = 0;
    while (helpers + 1 < count) {
        if (atomic_fetch_add(&server->helpers, 1) >= server->helpers_max ||
            pthread_create(&helper[helpers], NULL, take_posts, &posts) != 0) {
            atomic_fetch_sub(&server->helpers, 1);
            break;
        }
        helpers++;
    }
    take_posts(&posts);
    for (int i = 0; i < helpers; i++)
        pthread_join(helper[i], NULL);
    atomic_fetch_sub(&server->helpers, helpers);
    free(helper);
}

static void http_score_group(void *opened, const RewardRequest *requests, int count,
                             RewardResult *ret)
{
    Server *server = opened;
    if (server->group) {
        ask(server, requests, count, ret);
        return;
    }
    ask_side_by_side(server, requests, count, ret);
}

const RewardTable reward_http = {"http", http_open, http_close, http_score, http_score_group, NULL};
