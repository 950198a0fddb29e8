/* Loop: one libuv loop with ZeroMQ sockets inside, owned by the thread that runs it. All of a
 * process's sockets, timers and state live on its loop; anything slower than 10 ms belongs on a
 * compute thread, which hands results back with loop_post, the only function other threads may
 * call.
 *
 * A ZeroMQ descriptor is edge-triggered and only says "look at ZMQ_EVENTS"; the loop looks after
 * every wake-up and after every send, and calls a socket's callback until nothing is left to
 * receive (with a budget, so that one busy socket does not starve the rest). */
#ifndef TROUPE_NET_LOOP_H
#define TROUPE_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"

typedef struct Loop Loop;
typedef struct LoopSocket LoopSocket;
typedef struct LoopTimer LoopTimer;

Status loop_create(Loop **ret, Error *err);

/* Accepts NULL. Closes what is still open, sockets with no linger; sockets removed before with a
 * linger of their own get that long. Posts that have not run yet are dropped. */
void loop_destroy(Loop *loop);

void loop_run(Loop *loop);  /* until loop_stop */
void loop_stop(Loop *loop); /* from a callback */
uv_loop_t *loop_uv(Loop *loop);
void *loop_zmq_context(Loop *loop);

/* Runs `callback` on the loop thread soon, in the order of the posts. Any thread. */
void loop_post(Loop *loop, void (*callback)(void *argument), void *argument);

/* Watches an open ZeroMQ socket, taking ownership of it (on failure too). The callback receives
 * everything it can with ZMQ_DONTWAIT, at most `budget` messages a call; returns true if it stopped
 * at the budget. It may remove any socket, its own included. */
typedef bool (*SocketReadable)(void *argument, void *zmq_socket, int budget);
Status loop_add_socket(Loop *loop, void *zmq_socket, SocketReadable readable, void *argument,
                       LoopSocket **ret, Error *err);
void loop_socket_sent(LoopSocket *socket); /* call after every zmq send on it */

/* Calls back once, on the loop, when the socket can take a message again: after a send that gave
 * EAGAIN. */
void loop_socket_await_writable(LoopSocket *socket, void (*writable)(void *argument));
void loop_remove_socket(LoopSocket *socket); /* closes it; accepts NULL */

/* Calls back every `period_ms` (or once, when period_ms is 0) after `delay_ms`. A timer that has
 * fired for the last time still belongs to the caller. */
LoopTimer *loop_add_timer(Loop *loop, int64_t delay_ms, int64_t period_ms,
                          void (*callback)(void *argument), void *argument);
LoopTimer *loop_make_timer(Loop *loop, void (*callback)(void *argument),
                           void *argument);                  /* not running */
void loop_restart_timer(LoopTimer *timer, int64_t delay_ms); /* from now; keeps the period */
void loop_remove_timer(LoopTimer *timer); /* accepts NULL; the timer's own callback may call it */

/* Calls back on a signal (SIGINT, SIGTERM, ...). Removed with the loop. */
Status loop_add_signal(Loop *loop, int signal_number,
                       void (*callback)(void *argument, int signal_number), void *argument,
                       Error *err);

#endif
