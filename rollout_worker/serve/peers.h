/* Peers: the connections of a server, each with the time by which its client must have done what it
 * is to do: send its request, take its answer. A thread of its own cuts off who has not. What comes
 * byte by byte does not put the time off, which timeouts of silence (libmicrohttpd's) would let it:
 * a few slow clients could hold all connections that a server has.
 *
 * Any thread, but a peer is not used after its removal. */
#ifndef TROUPE_ROLLOUT_WORKER_SERVE_PEERS_H
#define TROUPE_ROLLOUT_WORKER_SERVE_PEERS_H

#include <stdint.h>

typedef struct Peers Peers;
typedef struct Peer Peer;

Peers *peers_create(void);
void peers_destroy(Peers *peers); /* all of them were removed; accepts NULL */

/* A connection, before it is closed at the latest removed. `within_ms` as in peer_expect. */
Peer *peers_add(Peers *peers, int descriptor, int64_t within_ms);
void peers_remove(Peers *peers, Peer *peer); /* accepts a peer that is NULL */

/* From now on the client has so long until the next call of this; 0: for ever, as it is not its
 * turn. Past it, its connection ends for both directions. */
void peer_expect(Peers *peers, Peer *peer, int64_t within_ms);

#endif
