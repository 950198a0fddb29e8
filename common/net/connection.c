#include "net/connection.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/memory.h"
#include "net/socket.h"

enum { RETRY_MS = 2, RETRY_MAX_MS = 500 };

struct Connection {
    Loop *loop;
    char endpoint[ENDPOINT_MAX + 16];
    ConnectionEvents events;
    void *argument;
    void *zmq;
    LoopSocket *socket, *monitor; /* NULL between two attempts */
    LoopTimer *retry;
    int retry_ms;
    bool is_open;
    bool closed;
    int depth; /* events being told: a closed connection is freed when the last one returns */
};

static void drop_sockets(Connection *c)
{
    if (c->socket != NULL) zmq_socket_monitor(c->zmq, NULL, 0);
    loop_remove_socket(c->monitor);
    loop_remove_socket(c->socket);
    c->monitor = c->socket = NULL;
}

static void enter(Connection *c)
{
    c->depth++;
}

/* False if the connection is gone now. */
static bool leave(Connection *c)
{
    c->depth--;
    if (!c->closed) return true;
    if (c->depth == 0) free(c);
    return false;
}

/* Returns true if it stopped at the budget. The caller has entered. */
static bool receive(Connection *c, int budget)
{
    for (int i = 0; i < budget; i++) {
        MessageFrames frames;
        ReceiveResult result = message_receive(c->zmq, false, &frames);
        if (result == RECEIVE_NOTHING) return false;
        if (result == RECEIVE_OK) c->events.received(c->argument, &frames);
        if (c->closed) return false;
    }
    return true;
}

static bool on_readable(void *argument, void *zmq_socket, int budget)
{
    (void)zmq_socket;
    Connection *c = argument;
    enter(c);
    bool more = receive(c, budget);
    return leave(c) && more;
}

static void on_writable(void *argument)
{
    Connection *c = argument;
    enter(c);
    if (c->is_open) c->events.writable(c->argument);
    leave(c);
}

static void schedule_retry(Connection *c)
{
    loop_restart_timer(c->retry, c->retry_ms);
    int next_ms = c->retry_ms + (c->retry_ms + 1) / 2;
    c->retry_ms = next_ms < RETRY_MAX_MS ? next_ms : RETRY_MAX_MS;
}

/* The attempt failed, or the connection broke. The caller has entered. */
static void lose(Connection *c)
{
    while (c->is_open && receive(c, 1024))
        continue;
    if (c->closed) return;
    drop_sockets(c);
    schedule_retry(c);
    if (!c->is_open) return;
    c->is_open = false;
    c->events.broken(c->argument);
}

static bool on_monitor(void *argument, void *monitor, int budget)
{
    Connection *c = argument;
    bool more = true;
    enter(c);
    for (int i = 0; i < budget && more && !c->closed && c->monitor != NULL; i++) {
        MonitorEvent event = socket_read_monitor(monitor);
        more = event != MONITOR_NOTHING;
        if (event == MONITOR_CONNECTED) {
            c->is_open = true;
            c->retry_ms = RETRY_MS;
            c->events.opened(c->argument);
        } else if (event == MONITOR_DISCONNECTED) {
            lose(c);
        }
    }
    more = more && c->monitor != NULL;
    return leave(c) && more;
}

static Status begin(Connection *c, Error *err)
{
    void *monitor = NULL;
    TRY(socket_connect(loop_zmq_context(c->loop), c->endpoint, &c->zmq, &monitor, err));
    Status status = loop_add_socket(c->loop, monitor, on_monitor, c, &c->monitor, err);
    if (status != OK) {
        zmq_close(c->zmq);
        return status;
    }
    status = loop_add_socket(c->loop, c->zmq, on_readable, c, &c->socket, err);
    if (status != OK) drop_sockets(c);
    return status;
}

static void on_retry(void *argument)
{
    Connection *c = argument;
    if (begin(c, NULL) != OK) schedule_retry(c); /* out of descriptors: later, perhaps */
}

Status connection_open(Loop *loop, const char *endpoint, const ConnectionEvents *events,
                       void *argument, Connection **ret, Error *err)
{
    Connection *c = mem_calloc(1, sizeof *c);
    c->loop = loop;
    snprintf(c->endpoint, sizeof c->endpoint, "%s", endpoint);
    c->events = *events;
    c->argument = argument;
    c->retry_ms = RETRY_MS;
    Status status = begin(c, err);
    if (status != OK) {
        free(c);
        return status;
    }
    c->retry = loop_make_timer(loop, on_retry, c);
    *ret = c;
    return OK;
}

void connection_close(Connection *connection)
{
    if (connection == NULL || connection->closed) return;
    drop_sockets(connection);
    loop_remove_timer(connection->retry);
    connection->is_open = false;
    connection->closed = true;
    if (connection->depth == 0) free(connection);
}

bool connection_is_open(const Connection *connection)
{
    return connection->is_open;
}

Status connection_send(Connection *connection, const Message *message, Bytes attachment)
{
    if (!connection->is_open) return ERR_UNAVAILABLE;
    Status status = message_send(connection->zmq, (Bytes){0}, message, attachment);
    loop_socket_sent(connection->socket);
    if (status == ERR_RESOURCE) loop_socket_await_writable(connection->socket, on_writable);
    return status;
}
