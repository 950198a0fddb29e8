/* HubWatch: who waits for the Hub, how he is told what for, and how he ends it. HubSilence: what is
 * told of a request that brings nothing, or hardly anything. */
#ifndef TROUPE_HUB_WATCH_H
#define TROUPE_HUB_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "hub/access.h"

/* Its functions are called by any of the threads that make requests. */
typedef struct HubWatch {
    /* Several times a second, with the bytes that came since; false: nobody wants it any more, and
     * it ends with ERR_CANCELLED. NULL: nobody watches. */
    bool (*go_on)(void *context, int64_t new_bytes);
    void *context;
    /* What somebody else has to do first, after some seconds and then every second or two; "": it
     * is over. Before a semicolon stands who and what, behind it how it goes. May be NULL. */
    void (*waits)(void *context, const char *waits_for);
} HubWatch;

bool hub_watch_goes_on(const HubWatch *watch, int64_t new_bytes);
void hub_watch_waits(const HubWatch *watch, const char *waits_for);
/* Waits; ERR_CANCELLED when nobody wants it any more. */
Status hub_watch_pause(const HubWatch *watch, int64_t ms, Error *err);
Status hub_watch_give_up(Error *err); /* sets it: ERR_CANCELLED */

/* For `waits` of who writes lines for people: true at the first text and then every half a minute.
 * Any thread. */
bool hub_watch_is_time(_Atomic int64_t *told_ms, const char *waits_for);

/* One of the requests that go on at a time speaks. */
typedef _Atomic(const void *) HubSpeaker;

/* One request, over all of its tries; belongs to its thread. Who makes it keeps the fields up to
 * `next_ms`; what they point to is borrowed. */
typedef struct HubSilence {
    const HubAccess *access;
    const HubWatch *watch;
    HubSpeaker *speaker;
    const char *what;          /* "train.parquet of openai/gsm8k" */
    char host[128];            /* "https://huggingface.co", or where that sends us to */
    char trouble[128];         /* why the last try failed; "": there was none */
    int64_t tries, tries_max;  /* that failed */
    int64_t backoff_ms;        /* before the next try */
    int64_t begun_ms, next_ms; /* this try; when the next begins, 0: one is under way */
    int64_t byte_ms;           /* when the last byte came, or the request began */
    int64_t window_ms, window_bytes, said_ms;
    bool said_quiet; /* not that it is slow */
} HubSilence;

void hub_silence_begin(HubSilence *silence);
void hub_silence_host(HubSilence *silence, const char *url);
void hub_silence_bytes(HubSilence *silence, int64_t bytes);
void hub_silence_look(HubSilence *silence); /* several times a second */
void hub_silence_end(HubSilence *silence);

#endif
