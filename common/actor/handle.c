#include "actor/handle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "actor/call_table.h"
#include "base/clock.h"
#include "base/memory.h"
#include "net/connection.h"
#include "net/message.h"

enum {
    ENVELOPE_OVERHEAD = 256, /* more than everything in an envelope but body and error */
    NOT_ARMED = -1,
};

/* A call that waits for a connection. Its sequence number is given when it goes out, so there are
 * no gaps. */
typedef struct QueuedCall {
    uint64_t id;
    size_t body_length, attachment_length;
    struct QueuedCall *prev, *next;
    uint8_t bytes[]; /* body, attachment */
} QueuedCall;

/* A message that a fault holds back. */
typedef struct DelayedMessage {
    Handle *handle;
    LoopTimer *timer;
    bool is_reply;
    MessageFrames frames;  /* of a reply */
    uint64_t id, sequence; /* of a request */
    size_t body_length;
    struct DelayedMessage *prev, *next;
    size_t attachment_length;
    uint8_t bytes[];
} DelayedMessage;

struct Handle {
    Loop *loop;
    ActorIdentity self;
    char peer[ACTOR_NAME_MAX];
    char endpoint[ENDPOINT_MAX + 16];
    Connection *connection;
    CallTable calls;
    QueuedCall *queue;
    size_t queue_bytes;
    uint64_t sequence;
    LoopTimer *timer;
    int64_t armed_ms; /* when the timer fires, or NOT_ARMED */
    bool was_connected;
    bool closed;
    int depth; /* callbacks running: a closed handle is freed when the last one returns */
    void (*watcher)(void *argument, bool connected);
    void *watcher_argument;
    const FaultPlan *faults;
    uint64_t fault_count;
    DelayedMessage *delayed;
};

static void handle_free(Handle *handle);

static void enter(Handle *handle)
{
    handle->depth++;
}

/* Whoever leaves must not touch the handle again if this says false: it is gone. */
static bool leave(Handle *handle)
{
    handle->depth--;
    if (!handle->closed) return true;
    if (handle->depth == 0) handle_free(handle);
    return false;
}

/* ---- ends of calls ---- */

static void end_call(const PendingCall *call, Status status, const Error *error)
{
    Reply reply = {.status = status, .error = error};
    call->callback(call->argument, &reply);
}

static void drop_queue(Handle *handle)
{
    QueuedCall *queued, *next;
    DL_FOREACH_SAFE(handle->queue, queued, next)
    free(queued);
    handle->queue = NULL;
    handle->queue_bytes = 0;
}

/* Ends every call made so far; calls that the callbacks make stay. The caller has entered the
 * handle. */
static void end_all(Handle *handle, Status status, const char *reason)
{
    uint32_t count = handle->calls.count;
    PendingCall *ended = mem_calloc(count, sizeof *ended);
    for (uint32_t i = 0; i < count; i++)
        CHECK(call_table_take(&handle->calls, call_table_first(&handle->calls)->id, &ended[i]));
    drop_queue(handle);
    for (uint32_t i = 0; i < count; i++) {
        Error error;
        error_set(&error, status, "%s to %s: %s", ended[i].method, handle->peer, reason);
        end_call(&ended[i], status, &error);
    }
    free(ended);
}

static void end_late(Handle *handle, const PendingCall *call)
{
    Error error;
    error_set(&error, ERR_TIMEOUT, "%s to %s got no answer before its deadline%s%s", call->method,
              handle->peer, handle->was_connected ? "" : ": nobody answers at ",
              handle->was_connected ? "" : handle->endpoint);
    end_call(call, ERR_TIMEOUT, &error);
}

static void arm(Handle *handle, int64_t now_ms)
{
    const PendingCall *first = call_table_first(&handle->calls);
    if (first == NULL) return; /* a timer that fires for nothing costs less than stopping it */
    if (handle->armed_ms != NOT_ARMED && handle->armed_ms <= first->deadline_ms) return;
    int64_t delay_ms = first->deadline_ms - now_ms;
    handle->armed_ms = first->deadline_ms;
    loop_restart_timer(handle->timer, delay_ms > 0 ? delay_ms : 0);
}

static void on_deadline(void *argument)
{
    Handle *handle = argument;
    int64_t now_ms = clock_ms();
    handle->armed_ms = NOT_ARMED;
    enter(handle);
    const PendingCall *first;
    while (!handle->closed && (first = call_table_first(&handle->calls)) != NULL &&
           first->deadline_ms <= now_ms) {
        PendingCall call;
        CHECK(call_table_take(&handle->calls, first->id, &call));
        end_late(handle, &call);
    }
    if (leave(handle)) arm(handle, now_ms);
}

/* ---- sending ---- */

/* A pending call as it goes over the wire. */
typedef struct Outgoing {
    const PendingCall *call;
    uint64_t sequence;
    Bytes body, attachment;
} Outgoing;

static Status send_now(Handle *handle, const Outgoing *out, int64_t now_ms)
{
    const PendingCall *call = out->call;
    int64_t left_ms = call->deadline_ms - now_ms;
    Message message = {
        .protocol = PROTOCOL_VERSION,
        .kind = MESSAGE_REQUEST,
        .job = handle->self.job,
        .generation = handle->self.generation,
        .sender = handle->self.incarnation,
        .sequence = out->sequence,
        .call = call->id,
        .timeout_ms = (uint32_t)(left_ms > 1 ? left_ms : 1),
        .method = {(const uint8_t *)call->method, strlen(call->method)},
        .body = out->body,
    };
    return connection_send(handle->connection, &message, out->attachment);
}

static void delayed_free(DelayedMessage *delayed)
{
    DL_DELETE(delayed->handle->delayed, delayed);
    loop_remove_timer(delayed->timer);
    if (delayed->is_reply) message_frames_close(&delayed->frames);
    free(delayed);
}

static void on_delayed_request(void *argument)
{
    DelayedMessage *delayed = argument;
    Handle *handle = delayed->handle;
    Outgoing out = {
        .call = call_table_find(&handle->calls, delayed->id),
        .sequence = delayed->sequence,
        .body = {delayed->bytes, delayed->body_length},
        .attachment = {delayed->bytes + delayed->body_length, delayed->attachment_length}};
    if (out.call != NULL) send_now(handle, &out, clock_ms());
    delayed_free(delayed);
}

static void delay_request(Handle *handle, const Outgoing *out, int delay_ms)
{
    DelayedMessage *delayed =
        mem_calloc(1, sizeof *delayed + out->body.length + out->attachment.length);
    delayed->handle = handle;
    delayed->id = out->call->id;
    delayed->sequence = out->sequence;
    delayed->body_length = out->body.length;
    delayed->attachment_length = out->attachment.length;
    if (out->body.length > 0) memcpy(delayed->bytes, out->body.data, out->body.length);
    if (out->attachment.length > 0)
        memcpy(delayed->bytes + out->body.length, out->attachment.data, out->attachment.length);
    DL_APPEND(handle->delayed, delayed);
    delayed->timer = loop_add_timer(handle->loop, delay_ms, 0, on_delayed_request, delayed);
}

/* Sends with the next sequence number; a failure means "not now". */
static Status transmit(Handle *handle, const PendingCall *call, Bytes body, Bytes attachment,
                       int64_t now_ms)
{
    if (!connection_is_open(handle->connection)) return ERR_UNAVAILABLE;
    Outgoing out = {call, handle->sequence + 1, body, attachment};
    FaultDecision fault = faults_decide(handle->faults, false, call->method, handle->fault_count++);
    Status status = OK;
    if (!fault.drop && fault.delay_ms > 0)
        delay_request(handle, &out, fault.delay_ms);
    else if (!fault.drop)
        status = send_now(handle, &out, now_ms);
    if (status == OK && fault.duplicate) send_now(handle, &out, now_ms);
    if (status == OK) handle->sequence++;
    return status;
}

static void send_queue(Handle *handle)
{
    int64_t now_ms = clock_ms();
    while (handle->queue != NULL) {
        QueuedCall *queued = handle->queue;
        const PendingCall *call = call_table_find(&handle->calls, queued->id);
        Bytes body = {queued->bytes, queued->body_length};
        Bytes attachment = {queued->bytes + queued->body_length, queued->attachment_length};
        /* A call that ended meanwhile is not sent at all. */
        if (call != NULL && transmit(handle, call, body, attachment, now_ms) != OK) return;
        handle->queue_bytes -= queued->body_length + queued->attachment_length;
        DL_DELETE(handle->queue, queued);
        free(queued);
    }
}

static void enqueue(Handle *handle, uint64_t id, Bytes body, Bytes attachment)
{
    QueuedCall *queued = mem_alloc(sizeof *queued + body.length + attachment.length);
    queued->id = id;
    queued->body_length = body.length;
    queued->attachment_length = attachment.length;
    if (body.length > 0) memcpy(queued->bytes, body.data, body.length);
    if (attachment.length > 0)
        memcpy(queued->bytes + body.length, attachment.data, attachment.length);
    handle->queue_bytes += body.length + attachment.length;
    DL_APPEND(handle->queue, queued);
}

static Status check_call(const Handle *handle, const CallOptions *options, Error *err)
{
    size_t bytes = options->body.length + options->attachment.length;
    if (handle->closed)
        return error_set(err, ERR_CANCELLED, "%s to %s: the handle is closed", options->method,
                         handle->peer);
    if (options->timeout_ms <= 0 || strlen(options->method) >= METHOD_NAME_MAX)
        return error_set(err, ERR_INVALID,
                         "call of \"%.80s\" to %s: expected a name of at most %d bytes and a "
                         "timeout above 0 ms, found %d ms",
                         options->method, handle->peer, METHOD_NAME_MAX - 1, options->timeout_ms);
    if (options->body.length > MESSAGE_BYTES_MAX - ENVELOPE_OVERHEAD ||
        options->attachment.length > MESSAGE_BYTES_MAX)
        return error_set(err, ERR_INVALID,
                         "%s to %s: %zu + %zu bytes are more than a message carries (%u)",
                         options->method, handle->peer, options->body.length,
                         options->attachment.length, MESSAGE_BYTES_MAX);
    if (handle->queue != NULL && handle->queue_bytes + bytes > CALL_QUEUE_BYTES_MAX)
        return error_set(err, ERR_RESOURCE, "%s to %s: %zu bytes wait to be sent already (cap %u)",
                         options->method, handle->peer, handle->queue_bytes, CALL_QUEUE_BYTES_MAX);
    return OK;
}

Status handle_call(Handle *handle, const CallOptions *options, ReplyCallback callback,
                   void *argument, Error *err)
{
    TRY(check_call(handle, options, err));
    int64_t now_ms = clock_ms();
    PendingCall call = {
        .deadline_ms = now_ms + options->timeout_ms, .callback = callback, .argument = argument};
    memcpy(call.method, options->method, strlen(options->method) + 1);
    uint64_t id = call_table_add(&handle->calls, &call);
    if (id == 0)
        return error_set(err, ERR_RESOURCE, "%s to %s: %d calls are in flight already",
                         options->method, handle->peer, CALLS_IN_FLIGHT_MAX);
    const PendingCall *pending = call_table_find(&handle->calls, id);
    if (handle->queue != NULL ||
        transmit(handle, pending, options->body, options->attachment, now_ms) != OK)
        enqueue(handle, id, options->body, options->attachment);
    arm(handle, now_ms);
    return OK;
}

/* ---- receiving ---- */

static void deliver(Handle *handle, const PendingCall *call, const Message *m, Bytes attachment)
{
    Reply reply = {.status = OK, .body = m->body, .attachment = attachment};
    Error error;
    if (m->protocol != PROTOCOL_VERSION) {
        reply.status = error_set(&error, ERR_UNSUPPORTED,
                                 "%s speaks protocol %u, this process %d: run the same build "
                                 "everywhere",
                                 handle->peer, m->protocol, PROTOCOL_VERSION);
    } else if (m->status != OK) {
        Status status = m->status < STATUS_COUNT ? (Status)m->status : ERR_INTERNAL;
        reply.status = error_set(&error, status, "%.*s", (int)m->error.length,
                                 m->error.length > 0 ? (const char *)m->error.data : "");
    }
    if (reply.status != OK) reply = (Reply){.status = reply.status, .error = &error};
    call->callback(call->argument, &reply);
}

/* Takes the frames. Replies that nobody waits for (any more) are dropped, as is what is not a
 * reply. */
static void accept_reply(Handle *handle, MessageFrames *frames)
{
    Message message;
    PendingCall call;
    if (message_decode(message_frame_bytes(&frames->envelope), &message, NULL) == OK &&
        message.kind == MESSAGE_REPLY && call_table_take(&handle->calls, message.call, &call))
        deliver(handle, &call, &message, message_frame_bytes(&frames->attachment));
    message_frames_close(frames);
}

static void on_delayed_reply(void *argument)
{
    DelayedMessage *delayed = argument;
    Handle *handle = delayed->handle;
    MessageFrames frames;
    message_frames_move(&frames, &delayed->frames);
    delayed->is_reply = false; /* nothing to close any more */
    delayed_free(delayed);
    enter(handle);
    accept_reply(handle, &frames);
    leave(handle);
}

/* Lets the fault plan have the message; true if it took it. */
static bool fault_reply(Handle *handle, MessageFrames *frames)
{
    Message message;
    if (handle->faults == NULL ||
        message_decode(message_frame_bytes(&frames->envelope), &message, NULL) != OK)
        return false;
    const PendingCall *call = call_table_find(&handle->calls, message.call);
    if (call == NULL) return false;
    FaultDecision fault = faults_decide(handle->faults, true, call->method, handle->fault_count++);
    if (fault.drop) {
        message_frames_close(frames);
        return true;
    }
    if (fault.delay_ms == 0) return false;
    DelayedMessage *delayed = mem_calloc(1, sizeof *delayed);
    delayed->handle = handle;
    delayed->is_reply = true;
    message_frames_move(&delayed->frames, frames);
    DL_APPEND(handle->delayed, delayed);
    delayed->timer = loop_add_timer(handle->loop, fault.delay_ms, 0, on_delayed_reply, delayed);
    return true;
}

/* ---- what the connection tells ---- */

static void on_received(void *argument, MessageFrames *frames)
{
    Handle *handle = argument;
    enter(handle);
    if (!fault_reply(handle, frames)) accept_reply(handle, frames);
    leave(handle);
}

static void on_opened(void *argument)
{
    Handle *handle = argument;
    handle->was_connected = true;
    send_queue(handle);
    enter(handle);
    if (handle->watcher != NULL) handle->watcher(handle->watcher_argument, true);
    leave(handle);
}

static void on_writable(void *argument)
{
    send_queue(argument);
}

static void on_broken(void *argument)
{
    Handle *handle = argument;
    enter(handle);
    end_all(handle, ERR_UNAVAILABLE, "the connection broke");
    if (!handle->closed && handle->watcher != NULL)
        handle->watcher(handle->watcher_argument, false);
    leave(handle);
}

/* ---- the handle ---- */

Status handle_open(Loop *loop, const ActorIdentity *self, const char *peer, const char *endpoint,
                   Handle **ret, Error *err)
{
    Handle *handle = mem_calloc(1, sizeof *handle);
    handle->loop = loop;
    handle->self = *self;
    snprintf(handle->peer, sizeof handle->peer, "%s", peer);
    snprintf(handle->endpoint, sizeof handle->endpoint, "%s", endpoint);
    handle->armed_ms = NOT_ARMED;
    const ConnectionEvents events = {on_opened, on_writable, on_received, on_broken};
    Status status = connection_open(loop, endpoint, &events, handle, &handle->connection, err);
    if (status != OK) {
        free(handle);
        return error_prefix(err, "handle to %s", peer);
    }
    handle->timer = loop_make_timer(loop, on_deadline, handle);
    *ret = handle;
    return OK;
}

static void handle_free(Handle *handle)
{
    DelayedMessage *delayed, *next;
    DL_FOREACH_SAFE(handle->delayed, delayed, next)
    delayed_free(delayed);
    drop_queue(handle);
    call_table_free(&handle->calls);
    loop_remove_timer(handle->timer);
    connection_close(handle->connection);
    free(handle);
}

void handle_close(Handle *handle)
{
    if (handle == NULL || handle->closed) return;
    enter(handle);
    handle->closed = true;
    end_all(handle, ERR_CANCELLED, "the handle was closed");
    leave(handle);
}

void handle_fail(Handle *handle, const char *reason)
{
    enter(handle);
    end_all(handle, ERR_UNAVAILABLE, reason);
    leave(handle);
}

void handle_set_generation(Handle *handle, uint32_t generation)
{
    handle->self.generation = generation;
}

int handle_calls_in_flight(const Handle *handle)
{
    return (int)handle->calls.count;
}

void handle_watch(Handle *handle, void (*callback)(void *argument, bool connected), void *argument)
{
    handle->watcher = callback;
    handle->watcher_argument = argument;
}

void handle_set_faults(Handle *handle, const FaultPlan *plan)
{
    handle->faults = plan;
}

/* ---- one call without a loop of one's own ---- */

typedef struct OneCall {
    Loop *loop;
    Status status;
    Error *err;
    uint8_t *body;
    size_t length;
} OneCall;

static void on_one_reply(void *argument, const Reply *reply)
{
    OneCall *one = argument;
    one->status = reply->status;
    if (reply->status != OK) {
        error_set(one->err, reply->status, "%s", reply->error->message);
    } else {
        one->length = reply->body.length;
        one->body = mem_alloc(reply->body.length + 1);
        if (one->length > 0) memcpy(one->body, reply->body.data, one->length);
        one->body[one->length] = '\0';
    }
    loop_stop(one->loop);
}

Status call_once(const ActorIdentity *self, const char *peer, const char *endpoint,
                 const CallOptions *options, uint8_t **ret_body, size_t *ret_length, Error *err)
{
    OneCall one = {.status = ERR_INTERNAL, .err = err};
    Handle *handle = NULL;
    TRY(loop_create(&one.loop, err));
    Status status = handle_open(one.loop, self, peer, endpoint, &handle, err);
    if (status == OK) status = handle_call(handle, options, on_one_reply, &one, err);
    if (status == OK) {
        loop_run(one.loop);
        status = one.status;
    }
    handle_close(handle);
    loop_destroy(one.loop);
    if (status != OK) return status;
    *ret_body = one.body;
    *ret_length = one.length;
    return OK;
}
