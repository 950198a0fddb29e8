/* The reward `process`: a program of the user's that judges responses, in any language. It runs as
 * long as the job; requests are lines of JSON on its standard input, answers lines on its standard
 * output, in any order (scorer_json.h has their form, docs/rewards.md the description for users).
 *
 * Each program has a keeper, a thread that starts it, writes, reads and watches. Callers put items
 * into one queue and wait; a keeper takes one when fewer than `in_flight` of its own are
 * unanswered. An item that is not answered in timeout_ms is a timeout, and its program is taken for
 * stuck: killed, started again, and what else it had is sent again. A program that ends is started
 * again after a delay that doubles; what it had is sent again once, then it is an infra_error.
 * While all are down, items are refused at once, so that a caller never waits for longer than its
 * turn. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/reward/child.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/scorer_json.h"

#define PROCESSES_MAX 64
#define ARGUMENTS_MAX 256
#define SENT_MAX      1024 /* unanswered lines of one program */
#define TRIES_MAX     2    /* programs that may end over one item */
#define TAIL_BYTES    160  /* of standard error, in messages */
#define GRACE_MS      1000

typedef struct Item {
    uint64_t id;
    Str line;
    RewardResult *results;
    int count;
    bool group;
    int tries;
    int64_t deadline_ms; /* while it is sent */
    bool done;
    pthread_cond_t changed;
    struct Item *next; /* in the queue */
} Item;

typedef struct Keeper {
    struct Scorer *scorer;
    pthread_t thread;
    bool running;
    int wake; /* eventfd: look at the queue, or at `closing` */
    Child child;
    Item *sent[SENT_MAX];
    int num_sent;
    Str out; /* not yet written */
    Str in;  /* read, not yet a whole line */
    char tail[TAIL_BYTES + 1];
    int failures;     /* ends in a row without an answer between them */
    int64_t start_ms; /* not to be started before */
    bool tried;       /* to start it, once at least ... */
    bool started;     /* ... and it could be */
    bool down;        /* waits for start_ms after a failure */
} Keeper;

typedef struct Scorer {
    char *argument[ARGUMENTS_MAX + 1];
    int64_t processes, in_flight, timeout_ms, restart_ms, restart_ms_max;
    double right_above;
    bool group;
    pthread_mutex_t lock; /* the queue, items, `down`, trouble, closing */
    pthread_cond_t tried; /* a keeper has tried to start its program */
    Item *first, *last;
    uint64_t next_id;
    bool closing;
    char trouble[ERROR_MESSAGE_MAX]; /* why a program is down */
    Keeper keeper[PROCESSES_MAX];
} Scorer;

/* ---- items ---- */

static void finish(Item *item)
{
    item->done = true;
    pthread_cond_signal(&item->changed);
}

static void fail_item(Item *item, RewardOutcome outcome, const char *reason)
{
    for (int i = 0; i < item->count; i++)
        reward_fail(&item->results[i], outcome, "%s", reason);
    finish(item);
}

static void put_first(Scorer *scorer, Item *item)
{
    item->next = scorer->first;
    scorer->first = item;
    if (scorer->last == NULL) scorer->last = item;
}

static void put_last(Scorer *scorer, Item *item)
{
    item->next = NULL;
    if (scorer->last == NULL)
        scorer->first = item;
    else
        scorer->last->next = item;
    scorer->last = item;
}

static Item *take_first(Scorer *scorer)
{
    Item *item = scorer->first;
    if (item == NULL) return NULL;
    scorer->first = item->next;
    if (scorer->first == NULL) scorer->last = NULL;
    return item;
}

static void wake(const Keeper *keeper)
{
    uint64_t one = 1;
    ssize_t written = write(keeper->wake, &one, sizeof one);
    (void)written; /* full: it is awake */
}

static bool all_down(const Scorer *scorer)
{
    for (int64_t i = 0; i < scorer->processes; i++)
        if (!scorer->keeper[i].down) return false;
    return true;
}

/* ---- the program ---- */

/* What becomes of the items that a program had when it was stopped. */
static void give_back_sent(Keeper *keeper, bool blame, const char *reason)
{
    for (int i = keeper->num_sent - 1; i >= 0; i--) {
        Item *item = keeper->sent[i];
        item->tries += blame;
        if (item->tries >= TRIES_MAX)
            fail_item(item, REWARD_INFRA_ERROR, reason);
        else
            put_first(keeper->scorer, item);
    }
    for (int64_t i = 0; keeper->num_sent > 0 && i < keeper->scorer->processes; i++)
        wake(&keeper->scorer->keeper[i]); /* another may be idle */
    keeper->num_sent = 0;
}

static void fail_waiting(Scorer *scorer)
{
    for (Item *item; (item = take_first(scorer)) != NULL;)
        fail_item(item, REWARD_INFRA_ERROR, scorer->trouble);
}

/* The program is gone or could not be started: wait before the next start. Call with the lock. */
static void note_failure(Keeper *keeper, const char *what)
{
    Scorer *scorer = keeper->scorer;
    int64_t delay = scorer->restart_ms;
    for (int i = 0; i < keeper->failures && delay < scorer->restart_ms_max; i++)
        delay *= 2;
    if (delay > scorer->restart_ms_max) delay = scorer->restart_ms_max;
    keeper->failures++;
    keeper->start_ms = clock_ms() + delay;
    keeper->down = true;
    snprintf(scorer->trouble, sizeof scorer->trouble, "%s", what);
    give_back_sent(keeper, true, scorer->trouble);
    if (all_down(scorer)) fail_waiting(scorer);
}

static void stop_child(Keeper *keeper, int64_t grace_ms, int *ret_status)
{
    child_stop(&keeper->child, grace_ms, ret_status);
    str_clear(&keeper->out);
    str_clear(&keeper->in);
}

static void start_child(Keeper *keeper)
{
    Scorer *scorer = keeper->scorer;
    Error err = {0};
    keeper->tail[0] = '\0';
    Status status = child_start(scorer->argument, &keeper->child, &err);
    pthread_mutex_lock(&scorer->lock);
    keeper->down = false;
    if (status != OK) note_failure(keeper, err.message);
    keeper->started = keeper->started || status == OK;
    keeper->tried = true;
    pthread_cond_broadcast(&scorer->tried);
    pthread_mutex_unlock(&scorer->lock);
}

/* Passes standard error on and keeps the end of its last line. */
static void read_errors(Keeper *keeper)
{
    char bytes[4096];
    ssize_t got = read(keeper->child.errors, bytes, sizeof bytes);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        close(keeper->child.errors);
        keeper->child.errors = -1;
    }
    if (got <= 0) return;
    ssize_t passed = write(STDERR_FILENO, bytes, (size_t)got);
    (void)passed;
    Slice text = slice_trim((Slice){bytes, (size_t)got});
    ssize_t line = slice_find_last(text, SLICE_OF("\n"));
    if (line >= 0) text = slice_part(text, (size_t)line + 1, text.length);
    text = slice_tail(text, TAIL_BYTES / 4);
    if (text.length == 0) return;
    snprintf(keeper->tail, sizeof keeper->tail, "%.*s", (int)text.length, text.data);
}

/* The program ended, or broke the protocol in the way that `fault` says. */
static void lose_child(Keeper *keeper, const char *fault)
{
    Scorer *scorer = keeper->scorer;
    char end[CHILD_END_BYTES], what[ERROR_MESSAGE_MAX];
    int status = 0;
    if (keeper->child.errors >= 0) read_errors(keeper);
    stop_child(keeper, fault == NULL ? GRACE_MS : 0, &status);
    snprintf(what, sizeof what, "%s %s%s%s", scorer->argument[0],
             fault == NULL ? child_end(status, end) : fault, keeper->tail[0] == '\0' ? "" : ": ",
             keeper->tail);
    pthread_mutex_lock(&scorer->lock);
    note_failure(keeper, what);
    pthread_mutex_unlock(&scorer->lock);
}

/* ---- a keeper's work ---- */

static void take_items(Keeper *keeper)
{
    Scorer *scorer = keeper->scorer;
    pthread_mutex_lock(&scorer->lock);
    while (keeper->num_sent < scorer->in_flight) {
        Item *item = take_first(scorer);
        if (item == NULL) break;
        item->deadline_ms = clock_ms() + scorer->timeout_ms;
        keeper->sent[keeper->num_sent++] = item;
        str_append(&keeper->out, item->line.data, item->line.length);
    }
    pthread_mutex_unlock(&scorer->lock);
}

static Item *find_sent(const Keeper *keeper, const char *id, int *ret_at)
{
    char *end = NULL;
    uint64_t number = strtoull(id, &end, 10);
    for (int i = 0; i < keeper->num_sent && *end == '\0'; i++) {
        if (keeper->sent[i]->id != number) continue;
        *ret_at = i;
        return keeper->sent[i];
    }
    return NULL;
}

/* One line of the program's. False when it breaks the protocol. */
static bool take_answer(Keeper *keeper, const char *line, size_t length)
{
    Scorer *scorer = keeper->scorer;
    cJSON *answer = NULL;
    Error err;
    if (json_parse(line, length, "answer", &answer, &err) != OK) return false;
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(answer, "id");
    bool valid = cJSON_IsString(id);
    int at = 0;
    pthread_mutex_lock(&scorer->lock);
    Item *item = valid ? find_sent(keeper, id->valuestring, &at) : NULL;
    if (item != NULL) { /* one that is not: its time was over */
        if (item->group)
            scorer_read_answers(answer, NULL, scorer->right_above, item->count, item->results);
        else
            scorer_read_answer(answer, NULL, scorer->right_above, item->results);
        keeper->sent[at] = keeper->sent[--keeper->num_sent];
        keeper->failures = 0;
        finish(item);
    }
    pthread_mutex_unlock(&scorer->lock);
    cJSON_Delete(answer);
    return valid;
}

static bool take_lines(Keeper *keeper)
{
    size_t start = 0;
    Str *in = &keeper->in;
    for (;;) {
        const char *end = memchr(in->data + start, '\n', in->length - start);
        if (end == NULL) break;
        size_t length = (size_t)(end - in->data) - start;
        bool blank = slice_trim((Slice){in->data + start, length}).length == 0;
        if (!blank && !take_answer(keeper, in->data + start, length)) {
            char line[64], fault[200];
            snprintf(line, sizeof line, "%.*s", (int)length, in->data + start);
            snprintf(fault, sizeof fault,
                     "printed a line that is no answer, %s (what is for people belongs on standard "
                     "error)",
                     QUOTED(line));
            lose_child(keeper, fault);
            return false;
        }
        start += length + 1;
    }
    if (start > 0) {
        memmove(in->data, in->data + start, in->length - start);
        in->length -= start;
    }
    if (in->length <= SCORER_ANSWER_BYTES_MAX) return true;
    lose_child(keeper, "printed a line of more than a mebibyte");
    return false;
}

/* Reads what there is. False when the program is gone. */
static bool read_output(Keeper *keeper)
{
    char bytes[65536];
    ssize_t got = read(keeper->child.output, bytes, sizeof bytes);
    if (got > 0) {
        str_append(&keeper->in, bytes, (size_t)got);
        return take_lines(keeper);
    }
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    lose_child(keeper, NULL);
    return false;
}

static bool write_input(Keeper *keeper)
{
    Str *out = &keeper->out;
    ssize_t written = write(keeper->child.input, out->data, out->length);
    if (written > 0) {
        memmove(out->data, out->data + written, out->length - (size_t)written);
        out->length -= (size_t)written;
        return true;
    }
    if (written < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    lose_child(keeper, NULL);
    return false;
}

/* Ends items whose time is over, and the program with them. */
static void check_deadlines(Keeper *keeper)
{
    Scorer *scorer = keeper->scorer;
    int64_t now = clock_ms();
    bool late = false;
    char reason[REWARD_REASON_BYTES];
    snprintf(reason, sizeof reason, "%s gave no answer in %" PRId64 " ms", scorer->argument[0],
             scorer->timeout_ms);
    pthread_mutex_lock(&scorer->lock);
    for (int i = keeper->num_sent - 1; i >= 0; i--) {
        if (keeper->sent[i]->deadline_ms > now) continue;
        fail_item(keeper->sent[i], REWARD_TIMEOUT, reason);
        keeper->sent[i] = keeper->sent[--keeper->num_sent];
        late = true;
    }
    if (late) give_back_sent(keeper, false, reason);
    pthread_mutex_unlock(&scorer->lock);
    if (late) stop_child(keeper, 0, NULL);
}

static int wait_ms(const Keeper *keeper)
{
    int64_t until = INT64_MAX;
    if (keeper->child.pid == 0) until = keeper->start_ms;
    for (int i = 0; i < keeper->num_sent; i++)
        if (keeper->sent[i]->deadline_ms < until) until = keeper->sent[i]->deadline_ms;
    if (until == INT64_MAX) return -1;
    int64_t left = until - clock_ms();
    return left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

static void serve(Keeper *keeper)
{
    bool alive = keeper->child.pid != 0;
    struct pollfd fds[4] = {
        {.fd = keeper->wake, .events = POLLIN},
        {.fd = alive ? keeper->child.output : -1, .events = POLLIN},
        {.fd = alive ? keeper->child.errors : -1, .events = POLLIN},
        {.fd = alive && keeper->out.length > 0 ? keeper->child.input : -1, .events = POLLOUT},
    };
    if (poll(fds, 4, wait_ms(keeper)) < 0) return;
    uint64_t count;
    if (fds[0].revents != 0 && read(keeper->wake, &count, sizeof count) < 0) return;
    if (fds[2].revents != 0) read_errors(keeper);
    if (fds[1].revents != 0 && !read_output(keeper)) return;
    if (fds[3].revents != 0 && !write_input(keeper)) return;
    check_deadlines(keeper);
}

static void *keep(void *argument)
{
    Keeper *keeper = argument;
    Scorer *scorer = keeper->scorer;
    sigset_t all;
    sigfillset(&all); /* SIGPIPE among them: a program that is gone is seen by EPIPE */
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (;;) {
        pthread_mutex_lock(&scorer->lock);
        bool closing = scorer->closing;
        if (keeper->down && all_down(scorer)) fail_waiting(scorer);
        pthread_mutex_unlock(&scorer->lock);
        if (closing) break;
        if (keeper->child.pid == 0 && clock_ms() >= keeper->start_ms) start_child(keeper);
        if (keeper->child.pid != 0) take_items(keeper);
        serve(keeper);
    }
    stop_child(keeper, GRACE_MS, NULL);
    return NULL;
}

/* ---- the reward ---- */

static void process_close(void *opened)
{
    Scorer *scorer = opened;
    if (scorer == NULL) return;
    pthread_mutex_lock(&scorer->lock);
    scorer->closing = true;
    pthread_mutex_unlock(&scorer->lock);
    for (int64_t i = 0; i < scorer->processes; i++)
        if (scorer->keeper[i].running) wake(&scorer->keeper[i]);
    for (int64_t i = 0; i < scorer->processes; i++) {
        Keeper *keeper = &scorer->keeper[i];
        if (keeper->running) pthread_join(keeper->thread, NULL);
        if (keeper->wake >= 0) close(keeper->wake);
        str_free(&keeper->in);
        str_free(&keeper->out);
    }
    CHECK(scorer->first == NULL); /* no call may be under way */
    for (int i = 0; scorer->argument[i] != NULL; i++)
        free(scorer->argument[i]);
    pthread_cond_destroy(&scorer->tried);
    pthread_mutex_destroy(&scorer->lock);
    free(scorer);
}

static Status read_command(const cJSON *options, Scorer *scorer, Error *err)
{
    const cJSON *command = cJSON_GetObjectItemCaseSensitive(options, "command"), *entry = NULL;
    int count = cJSON_GetArraySize(command), index = 0;
    bool valid = cJSON_IsArray(command) && count >= 1 && count <= ARGUMENTS_MAX;
    cJSON_ArrayForEach(entry, command) valid = valid && cJSON_IsString(entry);
    if (!valid)
        return error_set(err, ERR_INVALID,
                         "option command of reward process is %s, expected a list of texts: the "
                         "program and its arguments",
                         json_type_name(command));
    cJSON_ArrayForEach(entry, command) scorer->argument[index++] = mem_strdup(entry->valuestring);
    return OK;
}

static Status read_options(const cJSON *options, Scorer *scorer, Error *err)
{
    static const char *const keys[] = {"command",    "processes",   "in_flight",
                                       "timeout_ms", "restart_ms",  "restart_ms_max",
                                       "group",      "right_above", NULL};
    static const char *const where = "process";
    TRY(options_check(options, where, keys, err));
    TRY(json_int_or(options, "processes", where, 1, PROCESSES_MAX, &scorer->processes, err));
    TRY(json_int_or(options, "in_flight", where, 1, SENT_MAX, &scorer->in_flight, err));
    TRY(json_int_or(options, "timeout_ms", where, 1, 86400000, &scorer->timeout_ms, err));
    TRY(json_int_or(options, "restart_ms", where, 1, 3600000, &scorer->restart_ms, err));
    TRY(json_int_or(options, "restart_ms_max", where, 1, 3600000, &scorer->restart_ms_max, err));
    TRY(json_bool_or(options, "group", where, &scorer->group, err));
    TRY(json_double_or(options, "right_above", where, &scorer->right_above, err));
    return read_command(options, scorer, err);
}

/* Starts the keepers and waits until each has tried to start its program: one that cannot be
 * started at all is an error now. One that starts and ends is not, as it may be the machine's
 * fault. */
static Status start_keepers(Scorer *scorer, Error *err)
{
    for (int64_t i = 0; i < scorer->processes; i++) {
        Keeper *keeper = &scorer->keeper[i];
        keeper->scorer = scorer;
        keeper->child = CHILD_NONE;
        keeper->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (keeper->wake < 0) return error_set_errno(err, errno, "could not make an eventfd");
    }
    for (int64_t i = 0; i < scorer->processes; i++) {
        Keeper *keeper = &scorer->keeper[i];
        int number = pthread_create(&keeper->thread, NULL, keep, keeper);
        if (number != 0) return error_set_errno(err, number, "could not start a thread");
        keeper->running = true;
    }
    pthread_mutex_lock(&scorer->lock);
    bool started = false;
    for (int64_t i = 0; i < scorer->processes; i++) {
        while (!scorer->keeper[i].tried)
            pthread_cond_wait(&scorer->tried, &scorer->lock);
        started = started || scorer->keeper[i].started;
    }
    Status status = started ? OK : error_set(err, ERR_INVALID, "%s", scorer->trouble);
    pthread_mutex_unlock(&scorer->lock);
    return status;
}

static Status process_open(const cJSON *options, void **ret_self, Error *err)
{
    Scorer *scorer = mem_calloc(1, sizeof *scorer);
    scorer->processes = 1;
    scorer->in_flight = 1;
    scorer->timeout_ms = 30000;
    scorer->restart_ms = 500;
    scorer->restart_ms_max = 30000;
    pthread_mutex_init(&scorer->lock, NULL);
    pthread_cond_init(&scorer->tried, NULL);
    for (int i = 0; i < PROCESSES_MAX; i++)
        scorer->keeper[i].wake = -1;
    Status status = read_options(options, scorer, err);
    if (status == OK) status = start_keepers(scorer, err);
    if (status == OK)
        *ret_self = scorer;
    else
        process_close(scorer);
    return status;
}

static void make_item(Scorer *scorer, const RewardRequest *requests, int count, Item *ret)
{
    char id[32];
    pthread_cond_init(&ret->changed, NULL);
    pthread_mutex_lock(&scorer->lock);
    ret->id = ++scorer->next_id;
    pthread_mutex_unlock(&scorer->lock);
    snprintf(id, sizeof id, "%" PRIu64, ret->id);
    ret->count = count;
    ret->group = scorer->group;
    scorer_append_request(&ret->line, id, requests, count, scorer->group, true);
    str_puts(&ret->line, "}\n");
}

/* Puts items into the queue, and waits until all are done. */
static void await_items(Scorer *scorer, Item *items, int count)
{
    pthread_mutex_lock(&scorer->lock);
    for (int i = 0; i < count; i++) {
        if (all_down(scorer))
            fail_item(&items[i], REWARD_INFRA_ERROR, scorer->trouble);
        else
            put_last(scorer, &items[i]);
    }
    for (int64_t i = 0; i < scorer->processes; i++)
        wake(&scorer->keeper[i]);
    for (int i = 0; i < count; i++)
        while (!items[i].done)
            pthread_cond_wait(&items[i].changed, &scorer->lock);
    pthread_mutex_unlock(&scorer->lock);
    for (int i = 0; i < count; i++) {
        pthread_cond_destroy(&items[i].changed);
        str_free(&items[i].line);
    }
}

/* The responses of a group go out in one line where the scorer takes groups, else in a line each,
 * all at once as far as in_flight and the number of programs allow. */
static void process_score_group(void *opened, const RewardRequest *requests, int count,
                                RewardResult *ret)
{
    Scorer *scorer = opened;
    int lines = scorer->group ? 1 : count;
    Item *items = mem_calloc((size_t)lines, sizeof *items);
    for (int i = 0; i < lines; i++) {
        make_item(scorer, &requests[i], count / lines, &items[i]);
        items[i].results = &ret[i];
    }
    await_items(scorer, items, lines);
    free(items);
}

static void process_score(void *opened, const RewardRequest *request, RewardResult *ret)
{
    process_score_group(opened, request, 1, ret);
}

const RewardTable reward_process = {"process", process_open, process_close, process_score,
                                    process_score_group};
