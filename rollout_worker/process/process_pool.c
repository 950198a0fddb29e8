#include "rollout_worker/process/process_pool.h"

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
#include "base/condition.h"
#include "base/json.h"
#include "base/memory.h"
#include "rollout_worker/process/child.h"

#define TAIL_BYTES     160 /* of standard error, in messages */
#define GRACE_MS       1000
#define WATCH_SLICE_MS 10
#define ENDS_MAX       3 /* of a program in a row, until what waits for its next start is refused too */

/* A line of the program's that its exchange has not taken yet. */
typedef struct Message {
    cJSON *json;
    struct Message *next;
} Message;

struct Exchange {
    ProcessPool *pool;
    uint64_t id;
    Str line; /* the request */
    bool dialogue;
    struct Keeper *keeper; /* whose program has it; NULL: it waits, or is over */
    bool heard;            /* the program has written a line for it */
    bool alone; /* a program ended over it and perhaps others: it has the next for itself */
    bool owed;  /* ... and others, or others alone: it may wait for the next start */
    int64_t deadline_ms; /* for the program's next line */
    Message *first, *last;
    bool over; /* no more lines will come: */
    ExchangeOutcome outcome;
    char reason[EXCHANGE_REASON_BYTES];
    pthread_cond_t changed;
    const Wanted *wanted;  /* NULL: for ever */
    struct Exchange *next; /* in the queue */
};

/* What is not marked is under the pool's lock. */
typedef struct Keeper {
    ProcessPool *pool;
    pthread_t thread;
    bool running;                       /* of open and close */
    int wake;                           /* eventfd: look at the queue, or at `closing`; const */
    Child child;                        /* the keeper's thread's */
    Str in;                             /* read, not yet a whole line; the keeper's thread's */
    char tail[TAIL_BYTES + 1];          /* the keeper's thread's */
    Exchange *sent[POOL_IN_FLIGHT_MAX]; /* open, and with this program */
    int num_sent;
    Str out;          /* not yet written */
    int failures;     /* ends in a row without an answer between them */
    int64_t start_ms; /* not to be started before */
    bool tried;       /* to start it, once at least ... */
    bool started;     /* ... and it could be */
    bool down;        /* waits for start_ms after a failure */
    bool answered;    /* a line, since its program was started */
} Keeper;

struct ProcessPool {
    ProcessPoolOptions options;  /* const, ... */
    char name[CHILD_NAME_BYTES]; /* ... as is what messages call the programs */
    pthread_mutex_t lock;
    pthread_cond_t tried; /* a keeper has tried to start its program */
    Exchange *first, *last;
    int open; /* exchanges */
    uint64_t next_id;
    bool closing;
    bool hung;    /* a program had to be killed for its silence, and none has answered since */
    bool excused; /* the last end was the first in a row and over a line: a start is worth waiting
                   * for */
    char trouble[EXCHANGE_REASON_BYTES]; /* why a program is down ... */
    ExchangeOutcome refusal;             /* ... and what is refused for that */
    Keeper keeper[POOL_PROCESSES_MAX];
};

/* ---- exchanges in the queue; call with the lock ---- */

static void finish(Exchange *exchange, ExchangeOutcome outcome, const char *reason)
{
    exchange->keeper = NULL;
    exchange->over = true;
    exchange->outcome = outcome;
    snprintf(exchange->reason, sizeof exchange->reason, "%s", reason);
    pthread_cond_signal(&exchange->changed);
}

static void put_first(ProcessPool *pool, Exchange *exchange)
{
    exchange->next = pool->first;
    pool->first = exchange;
    if (pool->last == NULL) pool->last = exchange;
}

static void put_last(ProcessPool *pool, Exchange *exchange)
{
    exchange->next = NULL;
    if (pool->last == NULL)
        pool->first = exchange;
    else
        pool->last->next = exchange;
    pool->last = exchange;
}

static Exchange *take_first(ProcessPool *pool)
{
    Exchange *exchange = pool->first;
    if (exchange == NULL) return NULL;
    pool->first = exchange->next;
    if (pool->first == NULL) pool->last = NULL;
    return exchange;
}

static void take_out(ProcessPool *pool, const Exchange *exchange)
{
    Exchange *before = NULL;
    for (Exchange *at = pool->first; at != NULL; before = at, at = at->next) {
        if (at != exchange) continue;
        if (before == NULL)
            pool->first = at->next;
        else
            before->next = at->next;
        if (pool->last == at) pool->last = before;
        return;
    }
}

/* Takes an exchange from the program that has it. */
static void take_back(Keeper *keeper, int at)
{
    keeper->sent[at]->keeper = NULL;
    keeper->sent[at] = keeper->sent[--keeper->num_sent];
}

static void wake(const Keeper *keeper)
{
    uint64_t one = 1;
    ssize_t written = write(keeper->wake, &one, sizeof one);
    (void)written; /* full: it is awake */
}

static void wake_all(const ProcessPool *pool)
{
    for (int64_t i = 0; i < pool->options.processes; i++)
        wake(&pool->keeper[i]);
}

static bool all_down(const ProcessPool *pool)
{
    for (int64_t i = 0; i < pool->options.processes; i++)
        if (!pool->keeper[i].down) return false;
    return true;
}

/* The place of the exchange that was begun first. */
static int find_oldest(const Keeper *keeper)
{
    int oldest = 0;
    for (int i = 1; i < keeper->num_sent; i++)
        if (keeper->sent[i]->id < keeper->sent[oldest]->id) oldest = i;
    return oldest;
}

/* What becomes of the exchanges that a program had when it ended. One that was alone is the cause,
 * but may have met the end by chance the first time. The oldest is the likeliest cause where lines
 * are judged one after the other: it comes last, when the others are answered. */
static void give_back_sent(Keeper *keeper, ExchangeOutcome outcome, const char *reason)
{
    bool others = keeper->num_sent > 1;
    if (keeper->num_sent > 0) wake_all(keeper->pool); /* another may be idle */
    while (keeper->num_sent > 0) {
        int oldest = find_oldest(keeper);
        Exchange *exchange = keeper->sent[oldest];
        take_back(keeper, oldest);
        if (exchange->alone || (exchange->heard && !others)) {
            finish(exchange, outcome, reason);
        } else if (exchange->heard) {
            finish(exchange, EXCHANGE_DISTURBED, reason);
        } else {
            exchange->alone = true;
            exchange->owed = others;
            wanted_note_failure(exchange->wanted, reason);
            put_first(keeper->pool, exchange);
        }
    }
}

/* Those that wait to show by themselves what they take: a program that is silent with one alone,
 * after it was with all, will be with each. */
static void time_out_alone(ProcessPool *pool, const char *reason)
{
    Exchange *rest = pool->first;
    pool->first = pool->last = NULL;
    for (Exchange *exchange; (exchange = rest) != NULL;) {
        rest = exchange->next;
        if (exchange->alone)
            finish(exchange, EXCHANGE_TIMEOUT, reason);
        else
            put_last(pool, exchange);
    }
}

/* Refuses what waits, but for what is owed another program, unless that is too. */
static void fail_waiting(ProcessPool *pool, bool owed_too)
{
    Exchange *rest = pool->first;
    pool->first = pool->last = NULL;
    for (Exchange *exchange; (exchange = rest) != NULL;) {
        rest = exchange->next;
        if (exchange->owed && !owed_too)
            put_last(pool, exchange);
        else
            finish(exchange, pool->refusal, pool->trouble);
    }
}

static void owe_waiting(ProcessPool *pool)
{
    for (Exchange *exchange = pool->first; exchange != NULL; exchange = exchange->next)
        exchange->owed = true;
}

/* The program is gone or could not be started: wait before the next start. Those that wait behind
 * the line over which it ended have nothing to do with that; but they wait no longer than they
 * would for an answer. */
static void note_failure(Keeper *keeper, ExchangeOutcome refusal, const char *what)
{
    ProcessPool *pool = keeper->pool;
    int64_t delay = pool->options.restart_ms, most = pool->options.restart_ms_max;
    for (int i = 0; i < keeper->failures && delay < most; i++)
        delay *= 2;
    if (delay > most) delay = most;
    keeper->failures++;
    keeper->start_ms = clock_ms() + delay;
    keeper->down = true;
    str_clear(&keeper->out);
    pool->excused =
        keeper->num_sent > 0 && keeper->failures == 1 && delay <= pool->options.timeout_ms;
    if (pool->excused) owe_waiting(pool);
    pool->refusal = refusal;
    snprintf(pool->trouble, sizeof pool->trouble, "%s", what);
    give_back_sent(keeper, refusal, pool->trouble);
    if (all_down(pool)) fail_waiting(pool, keeper->failures >= ENDS_MAX);
}

/* ---- the program ---- */

static void start_child(Keeper *keeper)
{
    ProcessPool *pool = keeper->pool;
    Error err = {0};
    keeper->tail[0] = '\0';
    str_clear(&keeper->in);
    Status status = child_start(pool->options.argv, &keeper->child, &err);
    pthread_mutex_lock(&pool->lock);
    keeper->down = keeper->answered = false;
    if (status != OK) note_failure(keeper, EXCHANGE_FAILED, err.message);
    keeper->started = keeper->started || status == OK;
    keeper->tried = true;
    pthread_cond_broadcast(&pool->tried);
    pthread_mutex_unlock(&pool->lock);
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
    const char *end = bytes + got;
    while (end > bytes && strchr(" \t\r\n", end[-1]) != NULL)
        end--;
    const char *line = end;
    while (line > bytes && line[-1] != '\n' && end - line < TAIL_BYTES)
        line--;
    if (line < end) snprintf(keeper->tail, sizeof keeper->tail, "%.*s", (int)(end - line), line);
}

/* The program ended, or broke the protocol in the way that `fault` says. */
static void lose_child(Keeper *keeper, const char *fault)
{
    ProcessPool *pool = keeper->pool;
    char end[CHILD_END_BYTES], what[EXCHANGE_REASON_BYTES];
    int status = 0;
    if (keeper->child.errors >= 0) read_errors(keeper);
    child_stop(&keeper->child, fault == NULL ? GRACE_MS : 0, &status);
    snprintf(what, sizeof what, "%s %s%s%s", pool->name,
             fault == NULL ? child_end(status, end) : fault, keeper->tail[0] == '\0' ? "" : ": ",
             keeper->tail);
    pthread_mutex_lock(&pool->lock);
    note_failure(keeper, fault == NULL ? EXCHANGE_FAILED : EXCHANGE_BROKEN, what);
    pthread_mutex_unlock(&pool->lock);
}

/* ---- a keeper's work ---- */

/* Whether the next exchange that waits is one for this program now. */
static bool may_take(const Keeper *keeper)
{
    const Exchange *next = keeper->pool->first;
    if (next == NULL || keeper->num_sent >= keeper->pool->options.in_flight) return false;
    return keeper->num_sent == 0 || (!next->alone && !keeper->sent[0]->alone);
}

static void take_exchanges(Keeper *keeper)
{
    ProcessPool *pool = keeper->pool;
    pthread_mutex_lock(&pool->lock);
    while (may_take(keeper)) {
        Exchange *exchange = take_first(pool);
        exchange->deadline_ms = clock_ms() + pool->options.timeout_ms;
        exchange->keeper = keeper;
        keeper->sent[keeper->num_sent++] = exchange;
        str_append(&keeper->out, exchange->line.data, exchange->line.length);
    }
    pthread_mutex_unlock(&pool->lock);
}

static int find_sent(const Keeper *keeper, const char *id)
{
    char *end = NULL;
    uint64_t number = strtoull(id, &end, 10);
    for (int i = 0; i < keeper->num_sent && *end == '\0'; i++)
        if (keeper->sent[i]->id == number) return i;
    return -1;
}

static void put_message(Exchange *exchange, cJSON *json)
{
    Message *message = mem_calloc(1, sizeof *message);
    message->json = json;
    if (exchange->last == NULL)
        exchange->first = message;
    else
        exchange->last->next = message;
    exchange->last = message;
    exchange->heard = true;
    exchange->deadline_ms = INT64_MAX; /* it is the caller's turn */
    pthread_cond_signal(&exchange->changed);
}

/* An id that a request had; its time may be over. Call with the lock. */
static bool was_asked(const ProcessPool *pool, const char *id)
{
    char *end = NULL;
    uint64_t number = strtoull(id, &end, 10);
    return end != id && *end == '\0' && number >= 1 && number <= pool->next_id;
}

/* One line of the program's. False when it breaks the protocol. */
static bool take_line(Keeper *keeper, const char *line, size_t length)
{
    ProcessPool *pool = keeper->pool;
    cJSON *json = NULL;
    Error err;
    if (json_parse(line, length, "answer", &json, &err) != OK) return false;
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(json, "id");
    bool valid = cJSON_IsString(id);
    pthread_mutex_lock(&pool->lock);
    valid = valid && was_asked(pool, id->valuestring);
    int at = valid ? find_sent(keeper, id->valuestring) : -1;
    if (at >= 0) { /* else its time was over */
        Exchange *exchange = keeper->sent[at];
        keeper->failures = 0;
        keeper->answered = true;
        pool->hung = false;
        if (!exchange->dialogue) {
            take_back(keeper, at);
            exchange->over = true;
            exchange->outcome = EXCHANGE_FAILED; /* for who waits for a second answer */
        }
        put_message(exchange, json);
        json = NULL;
    }
    pthread_mutex_unlock(&pool->lock);
    cJSON_Delete(json);
    return valid;
}

static bool is_blank(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (strchr(" \t\r\n", text[i]) == NULL) return false;
    return true;
}

static bool take_lines(Keeper *keeper)
{
    size_t start = 0;
    Str *in = &keeper->in;
    for (;;) {
        const char *end = memchr(in->data + start, '\n', in->length - start);
        if (end == NULL) break;
        size_t length = (size_t)(end - in->data) - start;
        if (!is_blank(in->data + start, length) && !take_line(keeper, in->data + start, length)) {
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
    if ((int64_t)in->length <= keeper->pool->options.line_bytes_max) return true;
    char fault[80];
    snprintf(fault, sizeof fault, "printed a line of more than %" PRId64 " bytes",
             keeper->pool->options.line_bytes_max);
    lose_child(keeper, fault);
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
    pthread_mutex_lock(&keeper->pool->lock);
    Str *out = &keeper->out;
    ssize_t written = write(keeper->child.input, out->data, out->length);
    bool alive = written >= 0 || errno == EAGAIN || errno == EINTR;
    if (written > 0) {
        memmove(out->data, out->data + written, out->length - (size_t)written);
        out->length -= (size_t)written;
    }
    pthread_mutex_unlock(&keeper->pool->lock);
    if (!alive) lose_child(keeper, NULL);
    return alive;
}

/* A program is to be killed for its silence. An exchange is over where it was alone; else it may
 * have waited for another, and each is to show by itself what it takes. The first time it is
 * started again at once, as a line may be the cause; one that says nothing then either is down. */
static void note_silence(Keeper *keeper, const char *reason)
{
    ProcessPool *pool = keeper->pool;
    if (keeper->num_sent == 1) {
        Exchange *exchange = keeper->sent[0];
        take_back(keeper, 0);
        finish(exchange, EXCHANGE_TIMEOUT, reason);
        if (exchange->alone && pool->hung) time_out_alone(pool, reason);
    }
    pool->hung = true;
    if (keeper->answered || keeper->failures == 0) {
        keeper->failures += !keeper->answered;
        give_back_sent(keeper, EXCHANGE_FAILED, reason);
        str_clear(&keeper->out);
    } else {
        note_failure(keeper, EXCHANGE_TIMEOUT, reason);
    }
}

/* Ends the program when an exchange's time is over. */
static void check_deadlines(Keeper *keeper)
{
    ProcessPool *pool = keeper->pool;
    int64_t now = clock_ms();
    bool late = false;
    char reason[EXCHANGE_REASON_BYTES];
    snprintf(reason, sizeof reason, "%s gave no answer in %" PRId64 " ms", pool->name,
             pool->options.timeout_ms);
    pthread_mutex_lock(&pool->lock);
    for (int i = 0; i < keeper->num_sent; i++)
        late = late || keeper->sent[i]->deadline_ms <= now;
    if (late) note_silence(keeper, reason);
    pthread_mutex_unlock(&pool->lock);
    if (late) child_stop(&keeper->child, 0, NULL);
}

/* How long a keeper may sleep; *ret_writes: there is something for the program. */
static int wait_ms(Keeper *keeper, bool *ret_writes)
{
    int64_t until = INT64_MAX;
    pthread_mutex_lock(&keeper->pool->lock);
    if (keeper->child.pid == 0) until = keeper->start_ms;
    for (int i = 0; i < keeper->num_sent; i++)
        if (keeper->sent[i]->deadline_ms < until) until = keeper->sent[i]->deadline_ms;
    *ret_writes = keeper->out.length > 0;
    pthread_mutex_unlock(&keeper->pool->lock);
    if (until == INT64_MAX) return -1;
    int64_t left = until - clock_ms();
    return left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

static void serve(Keeper *keeper)
{
    bool alive = keeper->child.pid != 0, writes = false;
    int timeout_ms = wait_ms(keeper, &writes);
    struct pollfd fds[4] = {
        {.fd = keeper->wake, .events = POLLIN},
        {.fd = alive ? keeper->child.output : -1, .events = POLLIN},
        {.fd = alive ? keeper->child.errors : -1, .events = POLLIN},
        {.fd = alive && writes ? keeper->child.input : -1, .events = POLLOUT},
    };
    if (poll(fds, 4, timeout_ms) < 0) return;
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
    ProcessPool *pool = keeper->pool;
    sigset_t all;
    sigfillset(&all); /* SIGPIPE among them: a program that is gone is seen by EPIPE */
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (;;) {
        pthread_mutex_lock(&pool->lock);
        bool closing = pool->closing;
        if (keeper->down && all_down(pool)) fail_waiting(pool, keeper->failures >= ENDS_MAX);
        int64_t start_ms = keeper->start_ms;
        pthread_mutex_unlock(&pool->lock);
        if (closing) break;
        if (keeper->child.pid == 0 && clock_ms() >= start_ms) start_child(keeper);
        if (keeper->child.pid != 0) take_exchanges(keeper);
        serve(keeper);
    }
    child_stop(&keeper->child, GRACE_MS, NULL);
    return NULL;
}

/* ---- the pool ---- */

ProcessPoolOptions process_pool_defaults(void)
{
    return (ProcessPoolOptions){.processes = 1,
                                .in_flight = 1,
                                .timeout_ms = 30000,
                                .restart_ms = 500,
                                .restart_ms_max = 30000,
                                .line_bytes_max = 1 << 20};
}

void process_pool_options_clear(ProcessPoolOptions *options)
{
    for (int i = 0; options->argv[i] != NULL; i++)
        free(options->argv[i]);
    *options = (ProcessPoolOptions){0};
}

/* Appends the word at *at, which begins no blank, and moves behind it. */
static Status read_word(const char **at, Str *word, Error *err)
{
    char quote = '\0';
    for (; **at != '\0' && (quote != '\0' || strchr(" \t\r\n", **at) == NULL); (*at)++) {
        if (**at == quote) {
            quote = '\0';
        } else if (quote == '\0' && (**at == '\'' || **at == '"')) {
            quote = **at;
        } else {
            if (**at == '\\' && quote != '\'' && (*at)[1] != '\0') (*at)++;
            str_putc(word, **at);
        }
    }
    if (quote == '\0') return OK;
    return error_set(err, ERR_INVALID, "a quote, %c, is opened and not closed", quote);
}

Status process_pool_read_command(const char *text, ProcessPoolOptions *ret, Error *err)
{
    int count = 0;
    for (const char *at = text + strspn(text, " \t\r\n"); *at != '\0';
         at += strspn(at, " \t\r\n")) {
        Str word = {0};
        if (count == POOL_ARGUMENTS_MAX)
            return error_set(err, ERR_INVALID, "it has more than %d words", POOL_ARGUMENTS_MAX);
        Status status = read_word(&at, &word, err);
        ret->argv[count++] = mem_strdup(str_text(&word));
        str_free(&word);
        if (status != OK) return status;
    }
    return count > 0 ? OK : error_set(err, ERR_INVALID, "it is empty, expected a program");
}

static Status read_command(const cJSON *json, const char *where, ProcessPoolOptions *ret,
                           Error *err)
{
    const cJSON *command = cJSON_GetObjectItemCaseSensitive(json, "command"), *entry = NULL;
    if (cJSON_IsString(command)) {
        Status status = process_pool_read_command(command->valuestring, ret, err);
        return status == OK ? OK : error_prefix(err, "%s: command", where);
    }
    int count = cJSON_GetArraySize(command), index = 0;
    bool valid = cJSON_IsArray(command) && count >= 1 && count <= POOL_ARGUMENTS_MAX;
    cJSON_ArrayForEach(entry, command) valid = valid && cJSON_IsString(entry);
    if (!valid)
        return error_set(err, ERR_INVALID,
                         "%s: command is %s, expected a text or a list of texts: the program and "
                         "its arguments",
                         where, command == NULL ? "missing" : json_type_name(command));
    cJSON_ArrayForEach(entry, command) ret->argv[index++] = mem_strdup(entry->valuestring);
    return OK;
}

Status process_pool_read_options(const cJSON *json, const char *where, ProcessPoolOptions *ret,
                                 Error *err)
{
    TRY(json_int_or(json, "processes", where, 1, POOL_PROCESSES_MAX, &ret->processes, err));
    TRY(json_int_or(json, "in_flight", where, 1, POOL_IN_FLIGHT_MAX, &ret->in_flight, err));
    TRY(json_int_or(json, "timeout_ms", where, 1, 86400000, &ret->timeout_ms, err));
    TRY(json_int_or(json, "restart_ms", where, 1, 3600000, &ret->restart_ms, err));
    TRY(json_int_or(json, "restart_ms_max", where, 1, 3600000, &ret->restart_ms_max, err));
    return read_command(json, where, ret, err);
}

void process_pool_close(ProcessPool *pool)
{
    if (pool == NULL) return;
    pthread_mutex_lock(&pool->lock);
    CHECK(pool->open == 0);
    pool->closing = true;
    pthread_mutex_unlock(&pool->lock);
    wake_all(pool);
    for (int64_t i = 0; i < pool->options.processes; i++) {
        Keeper *keeper = &pool->keeper[i];
        if (keeper->running) pthread_join(keeper->thread, NULL);
        if (keeper->wake >= 0) close(keeper->wake);
        str_free(&keeper->in);
        str_free(&keeper->out);
    }
    process_pool_options_clear(&pool->options);
    pthread_cond_destroy(&pool->tried);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static Status start_keepers(ProcessPool *pool, Error *err)
{
    for (int64_t i = 0; i < pool->options.processes; i++) {
        Keeper *keeper = &pool->keeper[i];
        keeper->pool = pool;
        keeper->child = CHILD_NONE;
        keeper->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (keeper->wake < 0) return error_set_errno(err, errno, "could not make an eventfd");
    }
    for (int64_t i = 0; i < pool->options.processes; i++) {
        Keeper *keeper = &pool->keeper[i];
        int number = pthread_create(&keeper->thread, NULL, keep, keeper);
        if (number != 0) return error_set_errno(err, number, "could not start a thread");
        keeper->running = true;
    }
    pthread_mutex_lock(&pool->lock);
    bool started = false;
    for (int64_t i = 0; i < pool->options.processes; i++) {
        while (!pool->keeper[i].tried)
            pthread_cond_wait(&pool->tried, &pool->lock);
        started = started || pool->keeper[i].started;
    }
    Status status = started ? OK : error_set(err, ERR_INVALID, "%s", pool->trouble);
    pthread_mutex_unlock(&pool->lock);
    return status;
}

Status process_pool_open(const ProcessPoolOptions *options, ProcessPool **ret, Error *err)
{
    ProcessPool *pool = mem_calloc(1, sizeof *pool);
    pool->options = *options;
    for (int i = 0; options->argv[i] != NULL; i++)
        pool->options.argv[i] = mem_strdup(options->argv[i]);
    child_name(pool->options.argv, pool->name);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->tried, NULL);
    for (int i = 0; i < POOL_PROCESSES_MAX; i++)
        pool->keeper[i].wake = -1;
    Status status = start_keepers(pool, err);
    if (status == OK)
        *ret = pool;
    else
        process_pool_close(pool);
    return status;
}

static Status look_for_ends(ProcessPool *pool, Error *err)
{
    Status status = OK;
    pthread_mutex_lock(&pool->lock);
    for (int64_t i = 0; i < pool->options.processes && status == OK; i++)
        if (pool->keeper[i].failures > 0)
            status =
                error_set(err, ERR_INVALID, "%s, before anything was asked of it", pool->trouble);
    pthread_mutex_unlock(&pool->lock);
    return status;
}

Status process_pool_watch(ProcessPool *pool, int64_t until_ms, Error *err)
{
    const struct timespec slice = {.tv_nsec = WATCH_SLICE_MS * 1000000};
    Status status = look_for_ends(pool, err);
    while (status == OK && clock_ms() < until_ms) {
        nanosleep(&slice, NULL);
        status = look_for_ends(pool, err);
    }
    return status;
}

/* ---- exchanges ---- */

uint64_t process_pool_next_id(ProcessPool *pool)
{
    pthread_mutex_lock(&pool->lock);
    uint64_t id = ++pool->next_id;
    pthread_mutex_unlock(&pool->lock);
    return id;
}

Exchange *exchange_start(ProcessPool *pool, uint64_t id, Str *line, unsigned flags)
{
    Exchange *exchange = mem_calloc(1, sizeof *exchange);
    exchange->pool = pool;
    exchange->id = id;
    exchange->dialogue = (flags & EXCHANGE_DIALOGUE) != 0;
    exchange->alone = exchange->owed = (flags & EXCHANGE_ALONE) != 0;
    exchange->line = *line;
    *line = (Str){0};
    condition_init(&exchange->changed);
    pthread_mutex_lock(&pool->lock);
    pool->open++;
    if (all_down(pool)) exchange->owed |= pool->excused;
    if (all_down(pool) && !exchange->owed)
        finish(exchange, pool->refusal, pool->trouble);
    else
        put_last(pool, exchange);
    wake_all(pool);
    pthread_mutex_unlock(&pool->lock);
    return exchange;
}

void exchange_watch(Exchange *exchange, const Wanted *wanted)
{
    pthread_mutex_lock(&exchange->pool->lock);
    exchange->wanted = wanted;
    pthread_mutex_unlock(&exchange->pool->lock);
}

/* Until something has changed; with somebody who may give it up, a moment at most. */
static void wait_for_change(Exchange *exchange)
{
    if (exchange->wanted == NULL)
        pthread_cond_wait(&exchange->changed, &exchange->pool->lock);
    else
        condition_wait_for(&exchange->changed, &exchange->pool->lock, WANTED_SLICE_MS);
}

ExchangeOutcome exchange_wait(Exchange *exchange, cJSON **ret_message,
                              char reason[EXCHANGE_REASON_BYTES])
{
    ExchangeOutcome outcome = EXCHANGE_MESSAGE;
    pthread_mutex_lock(&exchange->pool->lock);
    bool unwanted = wanted_is_over(exchange->wanted);
    while (exchange->first == NULL && !exchange->over && !unwanted) {
        wait_for_change(exchange);
        unwanted = wanted_is_over(exchange->wanted);
    }
    Message *message = exchange->first;
    if (message != NULL) {
        exchange->first = message->next;
        if (exchange->first == NULL) exchange->last = NULL;
        *ret_message = message->json;
        free(message);
    } else if (exchange->over) {
        outcome = exchange->outcome;
        memcpy(reason, exchange->reason, EXCHANGE_REASON_BYTES);
    } else {
        outcome = EXCHANGE_UNWANTED;
        snprintf(reason, EXCHANGE_REASON_BYTES, "nobody wants it any more");
    }
    pthread_mutex_unlock(&exchange->pool->lock);
    return outcome;
}

void exchange_send(Exchange *exchange, Str *line)
{
    CHECK(exchange->dialogue);
    pthread_mutex_lock(&exchange->pool->lock);
    Keeper *keeper = exchange->keeper;
    if (keeper != NULL) { /* else exchange_wait says what happened */
        str_append(&keeper->out, line->data, line->length);
        exchange->deadline_ms = clock_ms() + exchange->pool->options.timeout_ms;
        wake(keeper);
    }
    pthread_mutex_unlock(&exchange->pool->lock);
    str_free(line);
}

void exchange_end(Exchange *exchange)
{
    if (exchange == NULL) return;
    ProcessPool *pool = exchange->pool;
    pthread_mutex_lock(&pool->lock);
    Keeper *keeper = exchange->keeper;
    for (int i = keeper == NULL ? -1 : keeper->num_sent - 1; i >= 0; i--)
        if (keeper->sent[i] == exchange) take_back(keeper, i);
    if (keeper != NULL) wake(keeper); /* it has room for another */
    take_out(pool, exchange);
    pool->open--;
    pthread_mutex_unlock(&pool->lock);
    for (Message *message = exchange->first, *next; message != NULL; message = next) {
        next = message->next;
        cJSON_Delete(message->json);
        free(message);
    }
    pthread_cond_destroy(&exchange->changed);
    str_free(&exchange->line);
    free(exchange);
}
