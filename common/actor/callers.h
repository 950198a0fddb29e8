/* Callers: what an actor remembers of each connection so that no call runs twice: which sequence
 * numbers have been here, in a window behind the highest. The window belongs to one connection (its
 * route) and one process (its incarnation): libzmq never sends a message again over another
 * connection. Loop thread. */
#ifndef TROUPE_ACTOR_CALLERS_H
#define TROUPE_ACTOR_CALLERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

enum { SEQUENCE_WINDOW = 4096 };

typedef struct Callers Callers;
typedef struct Caller Caller;

Callers *callers_create(void);
void callers_destroy(Callers *callers); /* accepts NULL */

/* The caller behind a route, made at its first message; the oldest connections are forgotten beyond
 * CALLERS_MAX. NULL for a route that none of our peers has. Valid until the next call of this
 * function. */
Caller *callers_find(Callers *callers, Bytes route, uint64_t incarnation);

/* Notes a sequence number; false if it was here before, or is too old to tell. */
bool caller_accept(Caller *caller, uint64_t sequence);

/* Sequence number of the next message to this caller, from 1. */
uint64_t caller_next_reply(Caller *caller);

/* Numbers below the highest that have not come (yet), over all callers. */
uint64_t callers_missing(const Callers *callers);

#endif
