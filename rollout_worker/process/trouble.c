#include "rollout_worker/process/trouble.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"

#define REASON_BYTES 256
#define TRIES_MIN    2
#define LOG_AGAIN_MS 10000
#define RECENT_MS    300000 /* since the last try: what failed before that is past */

struct Trouble {
    char *what;
    int64_t failing_ms;
    pthread_mutex_t lock; /* of the rest */
    bool ever_fine;
    int64_t tries;             /* that failed, since one went well */
    int64_t began_ms, last_ms; /* the first and the last of them */
    int64_t logged_ms;         /* 0: never */
    char why[REASON_BYTES];    /* of the last */
};

Trouble *trouble_create(const char *what, int64_t failing_ms)
{
    Trouble *trouble = mem_calloc(1, sizeof *trouble);
    trouble->what = mem_strdup(what);
    trouble->failing_ms = failing_ms;
    pthread_mutex_init(&trouble->lock, NULL);
    return trouble;
}

void trouble_destroy(Trouble *trouble)
{
    if (trouble == NULL) return;
    pthread_mutex_destroy(&trouble->lock);
    free(trouble->what);
    free(trouble);
}

void trouble_note(Trouble *trouble, const char *why)
{
    if (trouble == NULL) return;
    pthread_mutex_lock(&trouble->lock);
    int64_t now = clock_ms(), tries = ++trouble->tries;
    if (tries == 1) trouble->began_ms = now;
    trouble->last_ms = now;
    snprintf(trouble->why, sizeof trouble->why, "%s", why);
    bool logs = trouble->logged_ms == 0 || now - trouble->logged_ms >= LOG_AGAIN_MS;
    if (logs) trouble->logged_ms = now;
    pthread_mutex_unlock(&trouble->lock);
    if (logs)
        log_event(LOG_WARN, "try_failed", F_STR("of", trouble->what), F_INT("in_a_row", tries),
                  F_STR("why", why));
}

void trouble_end(Trouble *trouble)
{
    if (trouble == NULL) return;
    pthread_mutex_lock(&trouble->lock);
    trouble->ever_fine = true;
    trouble->tries = 0;
    pthread_mutex_unlock(&trouble->lock);
}

static int64_t limit_ms(const Trouble *trouble)
{
    return trouble->ever_fine ? trouble->failing_ms : trouble->failing_ms / 4;
}

/* With the lock. */
static bool lasts(const Trouble *trouble)
{
    return trouble->failing_ms > 0 && trouble->tries >= TRIES_MIN &&
           trouble->last_ms - trouble->began_ms >= limit_ms(trouble);
}

bool trouble_lasts(Trouble *trouble)
{
    if (trouble == NULL) return false;
    pthread_mutex_lock(&trouble->lock);
    bool too_long = lasts(trouble);
    pthread_mutex_unlock(&trouble->lock);
    return too_long;
}

Status trouble_check(Trouble *trouble, Error *err)
{
    Status status = OK;
    Error nobodys;
    if (trouble == NULL) return OK;
    if (err == NULL) err = &nobodys;
    pthread_mutex_lock(&trouble->lock);
    if (lasts(trouble)) {
        status =
            error_set(err, ERR_RESOURCE,
                      "%s failed at every try for %.1f s, %" PRId64
                      " in a row%s (limit: %g s, %srollout.failing_s)",
                      trouble->what, (double)(trouble->last_ms - trouble->began_ms) / 1000,
                      trouble->tries, trouble->ever_fine ? "" : "; none has ever gone well",
                      (double)limit_ms(trouble) / 1000, trouble->ever_fine ? "" : "a quarter of ");
        error_append(err, "last: %s", trouble->why);
        error_append(err, "to do: mend it and start again; where it only needs longer, raise "
                          "rollout.failing_s");
    }
    pthread_mutex_unlock(&trouble->lock);
    return status;
}

bool trouble_describe(Trouble *trouble, char *ret, size_t bytes)
{
    ret[0] = '\0';
    if (trouble == NULL) return false;
    pthread_mutex_lock(&trouble->lock);
    int64_t now = clock_ms();
    bool there = trouble->tries >= TRIES_MIN && now - trouble->last_ms < RECENT_MS;
    if (there)
        snprintf(ret, bytes, "%s: %s (%" PRId64 " tries in %" PRId64 " s, none went well)",
                 trouble->what, trouble->why, trouble->tries,
                 (now - trouble->began_ms + 999) / 1000);
    pthread_mutex_unlock(&trouble->lock);
    return there;
}
