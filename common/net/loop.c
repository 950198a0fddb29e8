#include "net/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>
#include <zmq.h>

#include "base/memory.h"

enum {
    READ_BUDGET = 256,   /* messages a socket may receive before the others get their turn */
    ROUNDS_PER_TURN = 4, /* looks at ZMQ_EVENTS before the same */
    SOCKETS_PER_CONTEXT = 65535,
};

struct LoopSocket {
    Loop *loop;
    void *zmq;
    uv_poll_t poll;
    SocketReadable readable;
    void (*writable)(void *argument); /* NULL: nobody waits to send */
    void *argument;
    bool dirty; /* its ZMQ_EVENTS must be looked at before the loop may sleep */
    bool removed;
    LoopSocket *prev, *next;             /* all sockets */
    LoopSocket *dirty_prev, *dirty_next; /* those to look at */
};

struct LoopTimer {
    Loop *loop;
    uv_timer_t timer;
    void (*callback)(void *argument);
    void *argument;
    LoopTimer *prev, *next;
};

typedef struct LoopSignal {
    uv_signal_t signal;
    void (*callback)(void *argument, int signal_number);
    void *argument;
    struct LoopSignal *next;
} LoopSignal;

typedef struct Post {
    void (*callback)(void *argument);
    void *argument;
    struct Post *next;
} Post;

struct Loop {
    uv_loop_t uv;
    void *zmq_context;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t idle; /* active while a socket is dirty, so that the loop does not sleep */
    uv_async_t async;
    uv_mutex_t post_lock;
    Post *posts_head, *posts_tail; /* under post_lock */
    LoopSocket *sockets, *dirty;
    int num_dirty;
    LoopTimer *timers;
    LoopSignal *signals;
};

static Status error_set_uv(Error *err, int code, const char *what)
{
    return error_set(err, ERR_RESOURCE, "%s: %s", what, uv_strerror(code));
}

/* ---- sockets ---- */

static void socket_mark(LoopSocket *socket)
{
    if (socket->dirty || socket->removed) return;
    socket->dirty = true;
    socket->loop->num_dirty++;
    DL_APPEND2(socket->loop->dirty, socket, dirty_prev, dirty_next);
}

static void socket_unmark(LoopSocket *socket)
{
    if (!socket->dirty) return;
    socket->dirty = false;
    socket->loop->num_dirty--;
    DL_DELETE2(socket->loop->dirty, socket, dirty_prev, dirty_next);
}

/* Serves a socket until ZMQ_EVENTS shows nothing to do, or its turn is over; true if work is left.
 */
static bool socket_serve(LoopSocket *socket)
{
    for (int round = 0; round < ROUNDS_PER_TURN; round++) {
        int events = 0;
        size_t size = sizeof events;
        if (zmq_getsockopt(socket->zmq, ZMQ_EVENTS, &events, &size) != 0) return errno == EINTR;
        bool worked = false;
        if (events & ZMQ_POLLIN) {
            bool more = socket->readable(socket->argument, socket->zmq, READ_BUDGET);
            if (socket->removed) return false;
            if (more) return true;
            worked = true;
        }
        if ((events & ZMQ_POLLOUT) && socket->writable != NULL) {
            void (*writable)(void *) = socket->writable;
            socket->writable = NULL;
            writable(socket->argument);
            if (socket->removed) return false;
            worked = true;
        }
        if (!worked) return false;
    }
    return true;
}

static void idle_tick(uv_idle_t *idle)
{
    (void)idle; /* its being active is what keeps the loop awake */
}

/* Gives every socket that was dirty on entry one turn. */
static void loop_serve(Loop *loop)
{
    for (int turns = loop->num_dirty; turns > 0 && loop->dirty != NULL; turns--) {
        LoopSocket *socket = loop->dirty;
        socket_unmark(socket);
        if (socket_serve(socket)) socket_mark(socket);
    }
    if (loop->dirty != NULL)
        uv_idle_start(&loop->idle, idle_tick);
    else
        uv_idle_stop(&loop->idle);
}

static void on_prepare(uv_prepare_t *prepare)
{
    loop_serve(prepare->data);
}

static void on_check(uv_check_t *check)
{
    loop_serve(check->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    socket_mark(poll->data);
}

Status loop_add_socket(Loop *loop, void *zmq_socket, SocketReadable readable, void *argument,
                       LoopSocket **ret, Error *err)
{
    int fd = -1;
    size_t size = sizeof fd;
    if (zmq_getsockopt(zmq_socket, ZMQ_FD, &fd, &size) != 0) {
        Status status = error_set_errno(err, errno, "could not watch a socket");
        zmq_close(zmq_socket);
        return status;
    }
    LoopSocket *socket = mem_calloc(1, sizeof *socket);
    socket->loop = loop;
    socket->zmq = zmq_socket;
    socket->readable = readable;
    socket->argument = argument;
    int code = uv_poll_init(&loop->uv, &socket->poll, fd);
    if (code != 0) {
        zmq_close(zmq_socket);
        free(socket);
        return error_set_uv(err, code, "could not watch a socket");
    }
    socket->poll.data = socket;
    code = uv_poll_start(&socket->poll, UV_READABLE, on_poll);
    CHECK(code == 0);
    DL_APPEND(loop->sockets, socket);
    socket_mark(socket); /* what came before the watch began raised no edge for it */
    *ret = socket;
    return OK;
}

void loop_socket_sent(LoopSocket *socket)
{
    socket_mark(socket);
}

void loop_socket_await_writable(LoopSocket *socket, void (*writable)(void *argument))
{
    socket->writable = writable;
    socket_mark(socket);
}

static void on_socket_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void loop_remove_socket(LoopSocket *socket)
{
    if (socket == NULL) return;
    CHECK(!socket->removed);
    socket_unmark(socket);
    socket->removed = true;
    DL_DELETE(socket->loop->sockets, socket);
    uv_poll_stop(&socket->poll); /* before the descriptor goes */
    zmq_close(socket->zmq);
    uv_close((uv_handle_t *)&socket->poll, on_socket_closed);
}

/* ---- timers and signals ---- */

static void on_timer(uv_timer_t *handle)
{
    LoopTimer *timer = handle->data;
    timer->callback(timer->argument);
}

LoopTimer *loop_make_timer(Loop *loop, void (*callback)(void *argument), void *argument)
{
    LoopTimer *timer = mem_calloc(1, sizeof *timer);
    timer->loop = loop;
    timer->callback = callback;
    timer->argument = argument;
    uv_timer_init(&loop->uv, &timer->timer);
    timer->timer.data = timer;
    DL_APPEND(loop->timers, timer);
    return timer;
}

LoopTimer *loop_add_timer(Loop *loop, int64_t delay_ms, int64_t period_ms,
                          void (*callback)(void *argument), void *argument)
{
    LoopTimer *timer = loop_make_timer(loop, callback, argument);
    uv_update_time(&loop->uv); /* delays count from now, not from the start of this turn */
    uv_timer_start(&timer->timer, on_timer, (uint64_t)(delay_ms > 0 ? delay_ms : 0),
                   (uint64_t)period_ms);
    return timer;
}

void loop_restart_timer(LoopTimer *timer, int64_t delay_ms)
{
    uv_update_time(&timer->loop->uv);
    uv_timer_start(&timer->timer, on_timer, (uint64_t)(delay_ms > 0 ? delay_ms : 0),
                   uv_timer_get_repeat(&timer->timer));
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void loop_remove_timer(LoopTimer *timer)
{
    if (timer == NULL) return;
    DL_DELETE(timer->loop->timers, timer);
    uv_close((uv_handle_t *)&timer->timer, on_timer_closed);
}

static void on_signal(uv_signal_t *handle, int signal_number)
{
    LoopSignal *signal = handle->data;
    signal->callback(signal->argument, signal_number);
}

static void on_signal_closed(uv_handle_t *handle)
{
    free(handle->data);
}

Status loop_add_signal(Loop *loop, int signal_number,
                       void (*callback)(void *argument, int signal_number), void *argument,
                       Error *err)
{
    LoopSignal *signal = mem_calloc(1, sizeof *signal);
    signal->callback = callback;
    signal->argument = argument;
    int code = uv_signal_init(&loop->uv, &signal->signal);
    if (code != 0) {
        free(signal);
        return error_set_uv(err, code, "could not watch a signal");
    }
    signal->signal.data = signal;
    code = uv_signal_start(&signal->signal, on_signal, signal_number);
    if (code != 0) {
        uv_close((uv_handle_t *)&signal->signal, on_signal_closed);
        return error_set_uv(err, code, "could not watch a signal");
    }
    LL_PREPEND(loop->signals, signal);
    return OK;
}

/* ---- posts from other threads ---- */

void loop_post(Loop *loop, void (*callback)(void *argument), void *argument)
{
    Post *post = mem_calloc(1, sizeof *post);
    post->callback = callback;
    post->argument = argument;
    uv_mutex_lock(&loop->post_lock);
    if (loop->posts_tail != NULL)
        loop->posts_tail->next = post;
    else
        loop->posts_head = post;
    loop->posts_tail = post;
    uv_mutex_unlock(&loop->post_lock);
    uv_async_send(&loop->async);
}

static Post *take_posts(Loop *loop)
{
    uv_mutex_lock(&loop->post_lock);
    Post *posts = loop->posts_head;
    loop->posts_head = loop->posts_tail = NULL;
    uv_mutex_unlock(&loop->post_lock);
    return posts;
}

static void on_async(uv_async_t *async)
{
    for (Post *post = take_posts(async->data); post != NULL;) {
        Post *next = post->next;
        post->callback(post->argument);
        free(post);
        post = next;
    }
}

/* ---- the loop itself ---- */

Status loop_create(Loop **ret, Error *err)
{
    Loop *loop = mem_calloc(1, sizeof *loop);
    int code = uv_loop_init(&loop->uv);
    if (code != 0) {
        free(loop);
        return error_set_uv(err, code, "could not make an event loop");
    }
    code = uv_async_init(&loop->uv, &loop->async, on_async);
    if (code != 0) {
        uv_loop_close(&loop->uv);
        free(loop);
        return error_set_uv(err, code, "could not make an event loop");
    }
    loop->async.data = loop;
    CHECK(uv_mutex_init(&loop->post_lock) == 0);
    uv_prepare_init(&loop->uv, &loop->prepare);
    uv_check_init(&loop->uv, &loop->check);
    uv_idle_init(&loop->uv, &loop->idle);
    loop->prepare.data = loop->check.data = loop;
    uv_prepare_start(&loop->prepare, on_prepare);
    uv_check_start(&loop->check, on_check);
    loop->zmq_context = zmq_ctx_new();
    CHECK(loop->zmq_context != NULL);
    zmq_ctx_set(loop->zmq_context, ZMQ_MAX_SOCKETS, SOCKETS_PER_CONTEXT);
    *ret = loop;
    return OK;
}

/* Handles that users of loop_uv left open; their memory is theirs. */
static void close_stray_handle(uv_handle_t *handle, void *argument)
{
    (void)argument;
    if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

void loop_destroy(Loop *loop)
{
    if (loop == NULL) return;
    const int no_linger = 0;
    LoopSocket *socket, *next_socket;
    DL_FOREACH_SAFE(loop->sockets, socket, next_socket)
    {
        zmq_setsockopt(socket->zmq, ZMQ_LINGER, &no_linger, sizeof no_linger);
        loop_remove_socket(socket);
    }
    LoopTimer *timer, *next_timer;
    DL_FOREACH_SAFE(loop->timers, timer, next_timer)
    loop_remove_timer(timer);
    LoopSignal *signal, *next_signal;
    LL_FOREACH_SAFE(loop->signals, signal, next_signal)
    uv_close((uv_handle_t *)&signal->signal, on_signal_closed);
    uv_walk(&loop->uv, close_stray_handle, NULL);
    do /* a loop_stop that nobody waited for ends the first run at once */
        uv_run(&loop->uv, UV_RUN_DEFAULT);
    while (uv_loop_close(&loop->uv) == UV_EBUSY);
    for (Post *post = take_posts(loop); post != NULL;) {
        Post *next = post->next;
        free(post);
        post = next;
    }
    uv_mutex_destroy(&loop->post_lock);
    while (zmq_ctx_term(loop->zmq_context) != 0 && errno == EINTR)
        continue;
    free(loop);
}

void loop_run(Loop *loop)
{
    uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void loop_stop(Loop *loop)
{
    uv_stop(&loop->uv);
}

uv_loop_t *loop_uv(Loop *loop)
{
    return &loop->uv;
}

void *loop_zmq_context(Loop *loop)
{
    return loop->zmq_context;
}
