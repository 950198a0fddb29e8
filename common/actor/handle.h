/* Handle: the caller's side. One handle per peer (a DEALER socket connected to its inbox). Calls
 * are asynchronous: the reply callback runs exactly once, on the loop thread, with the reply, the
 * error the peer answered with, ERR_TIMEOUT at the deadline, or ERR_UNAVAILABLE when the peer is
 * known to be gone (a connection that broke, or handle_fail called by whoever learned of the
 * death). Never retried here: retry lives in one place, above. A reply that comes after its
 * deadline is dropped. */
#ifndef TROUPE_ACTOR_HANDLE_H
#define TROUPE_ACTOR_HANDLE_H

#include "actor/actor.h"
#include "actor/faults.h"

typedef struct Handle Handle;

typedef struct Reply {
    Status status;      /* OK, or why there is no answer */
    const Error *error; /* filled when status is not OK */
    Bytes body;         /* borrowed for the callback */
    Bytes attachment;   /* borrowed for the callback */
} Reply;

typedef void (*ReplyCallback)(void *argument, const Reply *reply);

typedef struct CallOptions {
    const char *method;
    Bytes body;
    Bytes attachment; /* copied; empty for none */
    int timeout_ms;   /* must be > 0: nothing waits for ever */
} CallOptions;

/* Connects (lazily, as ZeroMQ does). `peer` names the peer in messages. */
Status handle_open(Loop *loop, const ActorIdentity *self, const char *peer, const char *endpoint,
                   Handle **ret, Error *err);
void handle_close(Handle *handle); /* pending calls end with ERR_CANCELLED first; accepts NULL */

/* Sends a call. Fails at once (without a callback) only for bad arguments or more than
 * CALLS_IN_FLIGHT_MAX calls in flight. */
Status handle_call(Handle *handle, const CallOptions *options, ReplyCallback callback,
                   void *argument, Error *err);

/* Ends all pending calls with ERR_UNAVAILABLE and `reason`: the peer is known to be dead. */
void handle_fail(Handle *handle, const char *reason);
void handle_set_generation(Handle *handle, uint32_t generation);
int handle_calls_in_flight(const Handle *handle);

/* Calls back whenever a connection to the peer was made (true) or broke (false): for whoever must
 * act on a death without having a call in flight. */
void handle_watch(Handle *handle, void (*callback)(void *argument, bool connected), void *argument);

/* Loses, repeats and delays messages of this handle as the plan says (tests); borrowed; NULL ends
 * it. */
void handle_set_faults(Handle *handle, const FaultPlan *plan);

/* A blocking call for command-line tools that have no loop of their own: connects, calls, waits,
 * closes. *ret_body is owned by the caller. */
Status call_once(const ActorIdentity *self, const char *peer, const char *endpoint,
                 const CallOptions *options, uint8_t **ret_body, size_t *ret_length, Error *err);

#endif
