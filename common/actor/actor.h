/* Actor: the callee's side of Troupe's messaging. A process binds one inbox (a ROUTER socket),
 * names the methods it answers, and serves calls on its loop thread. Calls of one caller arrive in
 * the order in which they were made; a handler may answer at once or keep the Call and answer
 * later, in any order, from the loop thread. Calls of an older generation of the job than the
 * actor's own are refused; a call whose deadline passed while it waited is dropped; one with an
 * unknown method, or a body that cannot be read, is answered with an error that says so.
 *
 * Bulk bytes (samples, JSON lines) travel as an attachment: one raw frame after the envelope, never
 * copied into it. Tensors never travel here. */
#ifndef TROUPE_ACTOR_ACTOR_H
#define TROUPE_ACTOR_ACTOR_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "net/loop.h"

typedef struct Actor Actor;
typedef struct Call Call;

/* Answers a call: reads the request through call_body and call_attachment (both borrowed until the
 * answer) and sooner or later calls call_reply or call_fail exactly once. */
typedef void (*ActorHandler)(void *self, Call *call);

typedef struct ActorMethod {
    const char *name; /* "data_source.read" */
    ActorHandler handler;
} ActorMethod;

/* Who this process is, on every message it sends. */
typedef struct ActorIdentity {
    char name[64];        /* "train-3"; unique in the job */
    uint64_t job;         /* rng_key(0, job name + run folder) or the like; 0: accept any */
    uint32_t generation;  /* of the job, from 1: raised at every recovery; fences stale peers. 0: a
                           * tool that  belongs to no generation and is not fenced */
    uint64_t incarnation; /* of this process: random, never reused */
} ActorIdentity;

typedef struct ActorOptions {
    ActorIdentity identity;
    const char *endpoint; /* "ipc:///run/dir/x.sock", "tcp://127.0.0.1:0" ... */
    const ActorMethod *methods;
    int num_methods;
    void *self; /* handed to the handlers */
} ActorOptions;

/* Binds the inbox. A name in use is ERR_EXISTS and says by whom where that is known; an ipc socket
 * file left by a dead process is taken over. */
Status actor_create(Loop *loop, const ActorOptions *options, Actor **ret, Error *err);
/* Unanswered calls fail at their callers as unavailable; whoever still holds one may answer it,
 * unheard. Not from a handler. Accepts NULL. */
void actor_destroy(Actor *actor);
const char *actor_endpoint(const Actor *actor); /* with the port that the system chose, for tcp */
void actor_set_generation(Actor *actor, uint32_t generation);

/* More methods, with a `self` of their own; the table is borrowed for the actor's life. */
void actor_add_methods(Actor *actor, const ActorMethod *methods, int num_methods, void *self);

/* What became of everything that arrived. */
typedef struct ActorStats {
    uint64_t calls;     /* handed to a method */
    uint64_t answers;   /* sent, refusals included */
    uint64_t malformed; /* not an envelope, or not a request: dropped */
    uint64_t refused;   /* answered with an error by the actor itself: stale, unknown method, ... */
    uint64_t duplicates; /* dropped: that (connection, sender, sequence) was here before */
    uint64_t missing;    /* sequence numbers that have not come (yet) */
    uint64_t late;       /* answers not sent because the caller has given up by now */
    uint64_t unroutable; /* answers whose caller is gone, or does not read */
} ActorStats;
ActorStats actor_stats(const Actor *actor);

const char *call_method(const Call *call);
Bytes call_body(const Call *call);
Bytes call_attachment(const Call *call); /* length 0 when there is none */
uint64_t call_sender_incarnation(const Call *call);
uint32_t call_generation(const Call *call);
int64_t call_deadline_ms(
    const Call *call); /* clock_ms() at which the caller has given up, counted from arrival */

/* These take the call; it must not be touched afterwards. Bytes are copied. */
void call_reply(Call *call, Bytes body, Bytes attachment);
void call_fail(Call *call, const Error *error);
void call_failf(Call *call, Status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
