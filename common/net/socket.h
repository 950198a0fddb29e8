/* Sockets as Troupe sets them up, in one place. High-water marks are a fuse against a peer that
 * does not read, not a policy; nothing is held for a peer that is not there; a frame over
 * MESSAGE_BYTES_MAX closes its connection; a ROUTER reports an unknown route instead of dropping
 * what was meant for it. The sockets belong to the caller, who hands them to a Loop. */
#ifndef TROUPE_NET_SOCKET_H
#define TROUPE_NET_SOCKET_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* A bound ROUTER. `endpoint` is checked: an ipc path must fit sockaddr_un; its folder is made (mode
 * 0700), the socket file is private to the user, a socket file that no process serves is taken
 * over, and one that is served is ERR_EXISTS with the process that serves it. tcp is refused beyond
 * loopback, because there are no keys yet. `ret_endpoint` gets the endpoint with the port that the
 * system chose. */
Status socket_bind(void *zmq_context, const char *endpoint, void **ret, char *ret_endpoint,
                   size_t ret_endpoint_size, Error *err);

/* A DEALER that tries once to connect, and a PAIR on which it tells what became of that: read it
 * with socket_read_monitor until MONITOR_NOTHING, and close it first. See net/connection.h. */
Status socket_connect(void *zmq_context, const char *endpoint, void **ret, void **ret_monitor,
                      Error *err);

typedef enum {
    MONITOR_NOTHING,
    MONITOR_CONNECTED,
    MONITOR_DISCONNECTED, /* or never connected: nobody was there, or did not speak ZMTP */
} MonitorEvent;
MonitorEvent socket_read_monitor(void *monitor);

/* Whether a process listens at an ipc endpoint; at any other it may, which only a call can tell. */
bool socket_is_served(const char *endpoint);

/* Removes the socket file of an ipc endpoint, if there is one: for whoever learns of its owner's
 * death. */
void socket_remove_file(const char *endpoint);

#endif
