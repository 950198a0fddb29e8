/* ProcessPool: programs of the user's that run as long as a job and are spoken to in lines of JSON:
 * requests on standard input, answers on standard output, in any order, each with the `id` of its
 * request. Rewards, tools and rollout functions in other languages stand on it.
 *
 * Each program has a keeper, a thread that starts it, writes, reads and watches. Callers put
 * exchanges into one queue; a keeper takes one when fewer than `in_flight` of its own are open. A
 * program that is silent for timeout_ms where it was its turn is taken for stuck: killed and
 * started again. One that ends is started again after a delay that doubles. Which of the requests
 * that it had was the cause nobody can tell: each is sent again once, alone, so that none fails for
 * what another did; but when a program is silent with one alone, too, and none has answered
 * between, the time of all of them is over. Silence counts as an end. While all are down, requests
 * are refused at once, so that a caller never waits for longer than its turn. Standard error is
 * passed on, and its last line goes into messages.
 *
 * Threads: open and close on one thread; everything else on any, at the same time; an Exchange
 * belongs to the thread that started it. */
#ifndef TROUPE_ROLLOUT_WORKER_PROCESS_PROCESS_POOL_H
#define TROUPE_ROLLOUT_WORKER_PROCESS_PROCESS_POOL_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "rollout_worker/process/wanted.h"

#define POOL_PROCESSES_MAX 64
#define POOL_ARGUMENTS_MAX 256
#define POOL_IN_FLIGHT_MAX 1024

typedef struct ProcessPool ProcessPool;

typedef struct ProcessPoolOptions {
    char *argv[POOL_ARGUMENTS_MAX + 1]; /* owned: process_pool_options_clear; ends with NULL */
    int64_t processes;                  /* programs */
    int64_t in_flight;                  /* exchanges that one of them may have open */
    int64_t timeout_ms;                 /* for its next line, where it is its turn */
    int64_t restart_ms, restart_ms_max; /* the pause before a new start, and where doubling ends */
    int64_t line_bytes_max;             /* of a line that it writes */
} ProcessPoolOptions;

/* 1 program, 1 in flight, 30 s, 500 ms to 30 s, a mebibyte. */
ProcessPoolOptions process_pool_defaults(void);
void process_pool_options_clear(ProcessPoolOptions *options);

/* The words of a command that is written as one text: parted by blanks; 'quotes' and "quotes" keep
 * them together, a backslash outside of 'quotes' takes the next character as it is. Nothing else is
 * of a shell. Fills ret->argv; ERR_INVALID for a quote that does not end, and for too many words or
 * none. */
Status process_pool_read_command(const char *text, ProcessPoolOptions *ret, Error *err);

/* Reads `command` (a list of texts, or one text as above; must be there), processes, in_flight,
 * timeout_ms, restart_ms and restart_ms_max of a JSON object; other keys are the caller's. `where`
 * names it in messages.
 */
Status process_pool_read_options(const cJSON *json, const char *where, ProcessPoolOptions *ret,
                                 Error *err);

/* Starts the programs. ERR_INVALID when none can be started; one that starts and ends is no error,
 * as that may be the machine's fault. Copies the options. */
Status process_pool_open(const ProcessPoolOptions *options, ProcessPool **ret, Error *err);
void process_pool_close(ProcessPool *pool); /* accepts NULL; no exchange may be open */

/* For a check before a run, when nothing was asked yet: ERR_INVALID as soon as a program has ended,
 * with how, and its last words; OK when all stand at `until_ms` of clock_ms. */
Status process_pool_watch(ProcessPool *pool, int64_t until_ms, Error *err);

/* ---- exchanges ---- */

typedef struct Exchange Exchange;

typedef enum {
    EXCHANGE_MESSAGE,   /* the program has written a line */
    EXCHANGE_FAILED,    /* it ended, or none is up */
    EXCHANGE_BROKEN,    /* it printed what is no line of the protocol */
    EXCHANGE_TIMEOUT,   /* it was silent, or none is up because of that */
    EXCHANGE_UNWANTED,  /* who wanted it gave it up (exchange_watch) */
    EXCHANGE_DISTURBED, /* of a dialogue: the program ended or was killed while it had others too:
                           begin again, with EXCHANGE_ALONE */
} ExchangeOutcome;

#define EXCHANGE_REASON_BYTES 512

/* A number for the `id` of a request, as text in it. */
uint64_t process_pool_next_id(ProcessPool *pool);

enum {
    EXCHANGE_DIALOGUE = 1, /* goes on until it is ended; any other exchange has one answer */
    EXCHANGE_ALONE = 2,    /* the program has no other meanwhile */
};

/* Sends `line`, a JSON object of this id that ends with a line end (taken; left empty). */
Exchange *exchange_start(ProcessPool *pool, uint64_t id, Str *line, unsigned flags);

/* From now on exchange_wait returns soon after nobody wants it any more, and who waits is told when
 * it is sent again. Borrowed. */
void exchange_watch(Exchange *exchange, const Wanted *wanted);

/* Waits for the next line of this id. *ret_message is owned by the caller, and has the id in it.
 * After a failure, which `reason` says, there is nothing more to come. */
ExchangeOutcome exchange_wait(Exchange *exchange, cJSON **ret_message,
                              char reason[EXCHANGE_REASON_BYTES]);

/* In a dialogue: sends a further line (taken), after which it is the program's turn again. */
void exchange_send(Exchange *exchange, Str *line);

/* Lets go of it, whatever its state; lines that come for its id are passed over. */
void exchange_end(Exchange *exchange); /* accepts NULL */

#endif
