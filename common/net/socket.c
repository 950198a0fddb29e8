#include "net/socket.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/str.h"

enum {
    SEND_FUSE = 1 << 17,    /* messages per connection */
    RECEIVE_FUSE = 1 << 16, /* messages per connection */
    BACKLOG = 4096,         /* connections that may knock at once */
    LINGER_MS = 500,        /* last replies of a process that ends */
    HANDSHAKE_MS = 5000,
    NEVER_MS = 24 * 3600 * 1000, /* reconnecting is Connection's work */
    CONNECT_MS = 5000,
    TCP_SILENCE_MS = 10000, /* after which a connection to another host is given up */
    TCP_HEARTBEAT_MS = 2000,
};

static void set_int(void *socket, int option, int value)
{
    CHECKF(zmq_setsockopt(socket, option, &value, sizeof value) == 0, "socket option %d: %s",
           option, zmq_strerror(errno));
}

static void set_common_options(void *socket, const char *endpoint)
{
    const int64_t bytes_max = MESSAGE_BYTES_MAX;
    zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &bytes_max, sizeof bytes_max);
    set_int(socket, ZMQ_SNDHWM, SEND_FUSE);
    set_int(socket, ZMQ_RCVHWM, RECEIVE_FUSE);
    set_int(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    if (!str_starts_with(endpoint, "tcp://")) return;
    set_int(socket, ZMQ_TCP_MAXRT, TCP_SILENCE_MS);
    set_int(socket, ZMQ_HEARTBEAT_IVL, TCP_HEARTBEAT_MS);
    set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, TCP_SILENCE_MS);
}

static Status error_set_zmq(Error *err, const char *verb, const char *endpoint)
{
    int code = errno;
    if (code == EINVAL || code == EPROTONOSUPPORT || code == ENOCOMPATPROTO)
        return error_set(err, ERR_INVALID,
                         "could not %s %s: not an endpoint; expected ipc:///path or "
                         "tcp://127.0.0.1:port",
                         verb, endpoint);
    Status status = code == EADDRINUSE ? ERR_EXISTS : code == EMFILE ? ERR_RESOURCE : ERR_IO;
    return error_set(err, status, "could not %s %s: %s", verb, endpoint, zmq_strerror(code));
}

static const char *ipc_path(const char *endpoint)
{
    return str_starts_with(endpoint, "ipc://") ? endpoint + strlen("ipc://") : NULL;
}

/* "pid 123 (controller)" of the process that listens on a connected Unix socket. */
static void describe_listener(int fd, char *text, size_t size)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    char path[64], name[64] = "";
    snprintf(text, size, "another process");
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return;
    snprintf(path, sizeof path, "/proc/%d/comm", (int)peer.pid);
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fgets(name, sizeof name, file) != NULL) name[strcspn(name, "\n")] = '\0';
        fclose(file);
    }
    snprintf(text, size, "pid %d (%s)", (int)peer.pid, name[0] != '\0' ? name : "unknown");
}

/* A socket connected to whoever listens at the path; -1 and errno when nobody does. */
static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN) return fd;
    int errnum = errno;
    close(fd);
    errno = errnum;
    return -1;
}

bool socket_is_served(const char *endpoint)
{
    const char *path = ipc_path(endpoint);
    if (path == NULL) return true;
    int fd = connect_to(path);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

/* Removes a socket file that no process serves; ERR_EXISTS if one does. libzmq itself would take
 * the name from its owner without a word. */
static Status ipc_take_over(const char *path, Error *err)
{
    struct stat info;
    if (lstat(path, &info) != 0) return OK;
    if (!S_ISSOCK(info.st_mode))
        return error_set(err, ERR_EXISTS, "%s is in the way: it is not a socket", path);
    int fd = connect_to(path);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE))
        return error_set_errno(err, errno, "could not make a socket");
    char owner[128] = "";
    if (fd >= 0) {
        describe_listener(fd, owner, sizeof owner);
        close(fd);
        return error_set(err, ERR_EXISTS, "%s is served by %s: stop it or use another folder", path,
                         owner);
    }
    if (unlink(path) != 0 && errno != ENOENT)
        return error_set_errno(err, errno, "could not remove the stale socket %s", path);
    return OK;
}

static Status prepare_ipc(const char *path, Error *err)
{
    if (path[0] != '/')
        return error_set(err, ERR_INVALID, "ipc://%s: expected an absolute path", path);
    if (strlen(path) >= ENDPOINT_MAX)
        return error_set(err, ERR_INVALID,
                         "socket path %s has %zu bytes, the system allows %d: use a shorter folder",
                         path, strlen(path), ENDPOINT_MAX - 1);
    char *folder = path_folder(path);
    Status status = OK;
    if (!path_is_folder(folder)) {
        status = folder_create(folder, err);
        if (status == OK && chmod(folder, 0700) != 0)
            status = error_set_errno(err, errno, "could not make %s private", folder);
    }
    free(folder);
    if (status != OK) return status;
    return ipc_take_over(path, err);
}

static bool is_loopback(const char *endpoint)
{
    return str_starts_with(endpoint, "tcp://127.") || str_starts_with(endpoint, "tcp://[::1]:") ||
           str_starts_with(endpoint, "tcp://localhost:");
}

Status socket_bind(void *zmq_context, const char *endpoint, void **ret, char *ret_endpoint,
                   size_t ret_endpoint_size, Error *err)
{
    const char *path = ipc_path(endpoint);
    if (path != NULL) TRY(prepare_ipc(path, err));
    if (str_starts_with(endpoint, "tcp://") && !is_loopback(endpoint))
        return error_set(
            err, ERR_UNSUPPORTED,
            "%s would listen beyond this machine without keys; use tcp://127.0.0.1:port "
            "or ipc:///path",
            endpoint);
    void *socket = zmq_socket(zmq_context, ZMQ_ROUTER);
    if (socket == NULL) return error_set_zmq(err, "make a socket for", endpoint);
    set_common_options(socket, endpoint);
    set_int(socket, ZMQ_ROUTER_MANDATORY, 1);
    set_int(socket, ZMQ_BACKLOG, BACKLOG);
    set_int(socket, ZMQ_LINGER, LINGER_MS);
    mode_t mask = umask(0077);
    int code = zmq_bind(socket, endpoint);
    umask(mask);
    size_t size = ret_endpoint_size;
    if (code != 0 || zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, ret_endpoint, &size) != 0) {
        Status status = error_set_zmq(err, "listen on", endpoint);
        zmq_close(socket);
        return status;
    }
    *ret = socket;
    return OK;
}

/* A PAIR on which `socket` reports its connections from now on. */
static Status open_monitor(void *zmq_context, void *socket, const char *endpoint, void **ret,
                           Error *err)
{
    char address[64];
    snprintf(address, sizeof address, "inproc://monitor-%p", socket);
    if (zmq_socket_monitor(socket, address,
                           ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                               ZMQ_EVENT_CLOSED) != 0)
        return error_set_zmq(err, "monitor", endpoint);
    void *monitor = zmq_socket(zmq_context, ZMQ_PAIR);
    if (monitor == NULL) return error_set_zmq(err, "monitor", endpoint);
    set_int(monitor, ZMQ_LINGER, 0);
    if (zmq_connect(monitor, address) != 0) {
        Status status = error_set_zmq(err, "monitor", endpoint);
        zmq_close(monitor);
        return status;
    }
    *ret = monitor;
    return OK;
}

Status socket_connect(void *zmq_context, const char *endpoint, void **ret, void **ret_monitor,
                      Error *err)
{
    const char *path = ipc_path(endpoint);
    if (path != NULL && strlen(path) >= ENDPOINT_MAX)
        return error_set(err, ERR_INVALID, "socket path %s has %zu bytes, the system allows %d",
                         path, strlen(path), ENDPOINT_MAX - 1);
    void *monitor = NULL;
    void *socket = zmq_socket(zmq_context, ZMQ_DEALER);
    if (socket == NULL) return error_set_zmq(err, "make a socket for", endpoint);
    set_common_options(socket, endpoint);
    set_int(socket, ZMQ_IMMEDIATE,
            0); /* with 1, a break throws away what was received and not read yet */
    set_int(socket, ZMQ_LINGER, 0);
    set_int(socket, ZMQ_CONNECT_TIMEOUT, CONNECT_MS);
    set_int(socket, ZMQ_RECONNECT_IVL, NEVER_MS);
    /* The monitor first: a connection is made in the background, faster than one may think. */
    Status status = open_monitor(zmq_context, socket, endpoint, &monitor, err);
    if (status == OK && zmq_connect(socket, endpoint) != 0)
        status = error_set_zmq(err, "connect to", endpoint);
    if (status != OK) {
        if (monitor != NULL) zmq_close(monitor);
        zmq_close(socket);
        return status;
    }
    *ret = socket;
    *ret_monitor = monitor;
    return OK;
}

/* One event is two frames: number (16 bits) and value (32 bits), then the address. */
static bool read_event(void *monitor, uint16_t *ret_event)
{
    bool more = true;
    for (bool first = true; more; first = false) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        int got;
        do
            got = zmq_msg_recv(&part, monitor, ZMQ_DONTWAIT);
        while (got < 0 && errno == EINTR);
        if (first && got >= (int)sizeof *ret_event)
            memcpy(ret_event, zmq_msg_data(&part), sizeof *ret_event);
        more = got >= 0 && zmq_msg_more(&part) != 0;
        zmq_msg_close(&part);
        if (got < 0) return false;
    }
    return true;
}

MonitorEvent socket_read_monitor(void *monitor)
{
    uint16_t event = 0;
    while (read_event(monitor, &event)) {
        if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) return MONITOR_CONNECTED;
        if (event == ZMQ_EVENT_DISCONNECTED || event == ZMQ_EVENT_CLOSED)
            return MONITOR_DISCONNECTED;
    }
    return MONITOR_NOTHING;
}

void socket_remove_file(const char *endpoint)
{
    const char *path = ipc_path(endpoint);
    if (path != NULL) unlink(path);
}
