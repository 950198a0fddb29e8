/* Connection: the calling side of one peer, made again by itself whenever it breaks. Each attempt
 * has a fresh socket, so what was sent over one connection is never delivered over the next, and
 * everything that arrived before a break is handed over before the break is told. (libzmq's own
 * reconnecting promises neither: without ZMQ_IMMEDIATE unsent messages reach whoever binds the name
 * next, with it received ones are thrown away.) Loop thread only. */
#ifndef TROUPE_NET_CONNECTION_H
#define TROUPE_NET_CONNECTION_H

#include "net/loop.h"
#include "net/message.h"

typedef struct Connection Connection;

/* All run on the loop; each may close the connection. */
typedef struct ConnectionEvents {
    void (*opened)(void *argument);   /* sending works from now on */
    void (*writable)(void *argument); /* once, after a send that the fuse refused */
    void (*received)(void *argument, MessageFrames *frames); /* takes the frames */
    void (*broken)(void *argument); /* sending fails until opened is called again */
} ConnectionEvents;

/* Begins to connect. Fails only for an endpoint that cannot be one, or without resources. */
Status connection_open(Loop *loop, const char *endpoint, const ConnectionEvents *events,
                       void *argument, Connection **ret, Error *err);
void connection_close(Connection *connection); /* what was not sent is dropped; accepts NULL */
bool connection_is_open(const Connection *connection);

/* ERR_UNAVAILABLE: not connected. ERR_RESOURCE: the fuse blew; `writable` follows. Never waits. */
Status connection_send(Connection *connection, const Message *message, Bytes attachment);

#endif
