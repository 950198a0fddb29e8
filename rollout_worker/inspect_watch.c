#include "rollout_worker/inspect_watch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/memory.h"

#define LOOK_MS      200
#define SAID_FIRST_S 5 /* without progress, unless cluster.progress_s is less */
#define SAID_AGAIN_S 30

struct InspectWatch {
    const char *key; /* "data.train" */
    int64_t progress_s;
    ReadWatch read;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t stopped;
    bool stopping;
    const Inspection *inspection; /* NULL: it is being opened */
};

/* What it is at; true: in code of the user's. */
static bool describe(const InspectWatch *watch, char *ret, size_t size)
{
    int64_t fetched = watch->read.fetched, to_fetch = watch->read.to_fetch;
    double read = (double)watch->read.bytes_read, total = (double)watch->read.bytes_total;
    if (watch->inspection != NULL && inspection_describe(watch->inspection, ret, size)) return true;
    if (fetched < to_fetch)
        snprintf(ret, size, "fetching %s from the Hub: %.1f of %.1f MB", watch->key,
                 (double)fetched / 1e6, (double)to_fetch / 1e6);
    else if (watch->inspection == NULL && read < total)
        snprintf(ret, size, "indexing the files of %s: %.1f of %.1f MB", watch->key, read / 1e6,
                 total / 1e6);
    else
        snprintf(ret, size, "%s %s", watch->inspection == NULL ? "opening" : "reading", watch->key);
    return false;
}

/* What somebody else has to do, which the read itself says when it has waited for some seconds. */
static void tell_waiting(InspectWatch *watch, int64_t *said_ms)
{
    char waits_for[READ_WAITS_BYTES];
    int64_t now = clock_ms();
    if (!read_watch_said(&watch->read, waits_for, sizeof waits_for)) return;
    if (*said_ms != 0 && now - *said_ms < SAID_AGAIN_S * 1000) return;
    *said_ms = now;
    fprintf(stderr, "controller: %s: waiting for %s\n", watch->key, waits_for);
}

/* A process in which code of the user's does not return has no other end. */
static _Noreturn void give_up(const InspectWatch *watch, const char *doing)
{
    fprintf(stderr,
            "controller: %s: no progress for %lld s (cluster.progress_s)\n"
            "  expected: a function that returns\n"
            "  to do: mend the reader, or raise cluster.progress_s\n",
            doing, (long long)watch->progress_s);
    _exit(status_exit_code(ERR_TIMEOUT));
}

static void *watch_main(void *argument)
{
    InspectWatch *watch = argument;
    uint64_t seen = watch->read.progress;
    int64_t since_ms = clock_ms(), first_s = SAID_FIRST_S, say_s, waits_said_ms = 0;
    if (watch->progress_s < first_s) first_s = watch->progress_s;
    say_s = first_s;
    pthread_mutex_lock(&watch->lock);
    while (!watch->stopping) {
        char doing[256];
        condition_wait_for(&watch->stopped, &watch->lock, LOOK_MS);
        tell_waiting(watch, &waits_said_ms);
        uint64_t now = watch->read.progress;
        if (now != seen) {
            seen = now;
            since_ms = clock_ms();
            say_s = first_s;
        }
        int64_t waited_s = (clock_ms() - since_ms) / 1000;
        if (watch->stopping || waited_s < say_s) continue;
        bool own = describe(watch, doing, sizeof doing);
        if (own && waited_s >= watch->progress_s) give_up(watch, doing);
        fprintf(stderr, "controller: waiting for %lld s: %s\n", (long long)waited_s, doing);
        say_s = waited_s + SAID_AGAIN_S;
        if (own && say_s > watch->progress_s) say_s = watch->progress_s;
    }
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

InspectWatch *inspect_watch_start(const InspectOptions *options)
{
    InspectWatch *watch = mem_calloc(1, sizeof *watch);
    watch->key = inspect_set_key(options);
    watch->progress_s = options->config->cluster.progress_s;
    pthread_mutex_init(&watch->lock, NULL);
    condition_init(&watch->stopped);
    CHECK(pthread_create(&watch->thread, NULL, watch_main, watch) == 0);
    return watch;
}

ReadWatch *inspect_watch_of(InspectWatch *watch)
{
    return &watch->read;
}

void inspect_watch_opened(InspectWatch *watch, const Inspection *inspection)
{
    pthread_mutex_lock(&watch->lock);
    watch->inspection = inspection;
    watch->read.progress++;
    pthread_mutex_unlock(&watch->lock);
}

void inspect_watch_stop(InspectWatch *watch)
{
    if (watch == NULL) return;
    pthread_mutex_lock(&watch->lock);
    watch->stopping = true;
    pthread_cond_signal(&watch->stopped);
    pthread_mutex_unlock(&watch->lock);
    pthread_join(watch->thread, NULL);
    pthread_cond_destroy(&watch->stopped);
    pthread_mutex_destroy(&watch->lock);
    free(watch);
}
