#include "actor/actor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "actor/callers.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/memory.h"
#include "net/message.h"
#include "net/socket.h"

enum { SPARE_CALLS_MAX = 4096 };

typedef struct MethodTable {
    const ActorMethod *methods;
    int num_methods;
    void *self;
    struct MethodTable *next;
} MethodTable;

struct Actor {
    Loop *loop;
    LoopSocket *socket;
    void *zmq;
    ActorIdentity identity;
    char endpoint[ENDPOINT_MAX + 16];
    MethodTable *tables;
    Callers *callers;
    Call *open;  /* handed to a method and not answered yet */
    Call *spare; /* through `next` */
    int num_spare;
    ActorStats stats;
};

struct Call {
    Actor *actor; /* NULL once the actor is gone */
    MessageFrames frames;
    Message message; /* borrows from frames */
    const char *method;
    int64_t deadline_ms;
    Call *prev, *next;
};

/* ---- calls ---- */

static Call *call_take_spare(Actor *actor)
{
    Call *call = actor->spare;
    if (call == NULL) return mem_alloc(sizeof *call);
    actor->spare = call->next;
    actor->num_spare--;
    return call;
}

static void call_recycle(Call *call)
{
    Actor *actor = call->actor;
    if (actor == NULL || actor->num_spare >= SPARE_CALLS_MAX) {
        free(call);
        return;
    }
    call->next = actor->spare;
    actor->spare = call;
    actor->num_spare++;
}

static void call_free(Call *call)
{
    message_frames_close(&call->frames);
    call_recycle(call);
}

static void send_answer(Call *call, Message *answer, Bytes attachment)
{
    Actor *actor = call->actor;
    Bytes route = message_frame_bytes(&call->frames.route);
    Caller *caller = callers_find(actor->callers, route, call->message.sender);
    answer->protocol = PROTOCOL_VERSION;
    answer->kind = MESSAGE_REPLY;
    answer->job = actor->identity.job;
    answer->generation = actor->identity.generation;
    answer->sender = actor->identity.incarnation;
    answer->sequence = caller != NULL ? caller_next_reply(caller) : 0;
    answer->call = call->message.call;
    if (message_send(actor->zmq, route, answer, attachment) == OK)
        actor->stats.answers++;
    else
        actor->stats.unroutable++;
    loop_socket_sent(actor->socket);
}

static void send_error(Call *call, Status status, const char *text)
{
    Message answer = {.status = (uint32_t)status, .error = {(const uint8_t *)text, strlen(text)}};
    send_answer(call, &answer, (Bytes){0});
}

/* Ends the life of an open call, without a word to the caller. */
static void call_close(Call *call)
{
    if (call->actor != NULL) DL_DELETE(call->actor->open, call);
    call_free(call);
}

/* True if an answer still has somebody to go to. */
static bool call_is_awaited(Call *call)
{
    if (call->actor == NULL) return false;
    if (clock_ms() < call->deadline_ms) return true;
    call->actor->stats.late++;
    return false;
}

void call_reply(Call *call, Bytes body, Bytes attachment)
{
    if (call_is_awaited(call)) {
        Message answer = {.body = body};
        if (body.length > MESSAGE_BYTES_MAX - 256 || attachment.length > MESSAGE_BYTES_MAX) {
            char text[160];
            snprintf(text, sizeof text,
                     "the answer to %s has %zu + %zu bytes, a message carries %u", call->method,
                     body.length, attachment.length, MESSAGE_BYTES_MAX);
            send_error(call, ERR_RESOURCE, text);
        } else {
            send_answer(call, &answer, attachment);
        }
    }
    call_close(call);
}

void call_fail(Call *call, const Error *error)
{
    CHECK(error->status != OK);
    if (call_is_awaited(call)) send_error(call, error->status, error->message);
    call_close(call);
}

void call_failf(Call *call, Status status, const char *format, ...)
{
    Error error;
    va_list args;
    va_start(args, format);
    error_setv(&error, status, format, args);
    va_end(args);
    call_fail(call, &error);
}

const char *call_method(const Call *call)
{
    return call->method;
}

Bytes call_body(const Call *call)
{
    return call->message.body;
}

Bytes call_attachment(const Call *call)
{
    return message_frame_bytes((zmq_msg_t *)&call->frames.attachment);
}

uint64_t call_sender_incarnation(const Call *call)
{
    return call->message.sender;
}

uint32_t call_generation(const Call *call)
{
    return call->message.generation;
}

int64_t call_deadline_ms(const Call *call)
{
    return call->deadline_ms;
}

/* ---- arrival ---- */

static const ActorMethod *find_method(const Actor *actor, Bytes name, void **ret_self)
{
    for (const MethodTable *table = actor->tables; table != NULL; table = table->next)
        for (int i = 0; i < table->num_methods; i++) {
            const char *candidate = table->methods[i].name;
            if (strncmp(candidate, (const char *)name.data, name.length) != 0 ||
                candidate[name.length] != '\0')
                continue;
            *ret_self = table->self;
            return &table->methods[i];
        }
    return NULL;
}

/* Why this actor does not take the call: false and a text, or true. */
static bool admit(const Actor *actor, const Message *m, Error *err)
{
    const ActorIdentity *me = &actor->identity;
    if (m->protocol != PROTOCOL_VERSION) {
        error_set(err, ERR_UNSUPPORTED,
                  "%s speaks protocol %d, the caller %" PRIu32 ": run the same build everywhere",
                  me->name, PROTOCOL_VERSION, m->protocol);
        return false;
    }
    if (me->job != 0 && m->job != 0 && m->job != me->job) {
        error_set(err, ERR_INVALID, "%s belongs to job %016" PRIx64 ", the call to job %016" PRIx64,
                  me->name, me->job, m->job);
        return false;
    }
    if (m->generation != 0 && m->generation < me->generation) {
        error_set(err, ERR_CANCELLED,
                  "stale generation: the caller is in generation %" PRIu32 ", %s in %" PRIu32,
                  m->generation, me->name, me->generation);
        return false;
    }
    return true;
}

static void refuse(Call *call, const Error *err)
{
    call->actor->stats.refused++;
    send_error(call, err->status, err->message);
    call_free(call);
}

static void dispatch(Call *call)
{
    Actor *actor = call->actor;
    const Message *m = &call->message;
    Error err;
    void *self = NULL;
    if (!admit(actor, m, &err)) {
        refuse(call, &err);
        return;
    }
    const ActorMethod *method = find_method(actor, m->method, &self);
    if (method == NULL) {
        error_set(&err, ERR_NOT_FOUND, "%s has no method \"%.*s\"", actor->identity.name,
                  (int)m->method.length, (const char *)m->method.data);
        refuse(call, &err);
        return;
    }
    call->method = method->name;
    DL_APPEND(actor->open, call);
    actor->stats.calls++;
    method->handler(self, call);
}

/* Reads the frames of a call; false if it is not one that may run. */
static bool read_call(Actor *actor, int64_t now_ms, Call *call)
{
    if (message_decode(message_frame_bytes(&call->frames.envelope), &call->message, NULL) != OK ||
        call->message.kind != MESSAGE_REQUEST || call->message.sequence == 0) {
        actor->stats.malformed++;
        return false;
    }
    call->deadline_ms = now_ms + call->message.timeout_ms;
    Caller *caller = callers_find(actor->callers, message_frame_bytes(&call->frames.route),
                                  call->message.sender);
    if (caller == NULL) {
        actor->stats.malformed++;
        return false;
    }
    if (!caller_accept(caller, call->message.sequence)) {
        actor->stats.duplicates++;
        return false;
    }
    return true;
}

static bool on_readable(void *argument, void *zmq_socket, int budget)
{
    Actor *actor = argument;
    int64_t now_ms = clock_ms();
    for (int i = 0; i < budget; i++) {
        Call *call = call_take_spare(actor);
        call->actor = actor;
        ReceiveResult result = message_receive(zmq_socket, true, &call->frames);
        if (result == RECEIVE_OK) {
            if (read_call(actor, now_ms, call))
                dispatch(call);
            else
                call_free(call);
            continue;
        }
        call_recycle(call);
        if (result == RECEIVE_NOTHING) return false;
        actor->stats.malformed++;
    }
    return true;
}

/* ---- the actor ---- */

void actor_add_methods(Actor *actor, const ActorMethod *methods, int num_methods, void *self)
{
    MethodTable *table = mem_calloc(1, sizeof *table);
    *table = (MethodTable){methods, num_methods, self, NULL};
    LL_APPEND(actor->tables, table);
}

Status actor_create(Loop *loop, const ActorOptions *options, Actor **ret, Error *err)
{
    Actor *actor = mem_calloc(1, sizeof *actor);
    actor->loop = loop;
    actor->identity = options->identity;
    actor->callers = callers_create();
    actor_add_methods(actor, options->methods, options->num_methods, options->self);
    Status status = socket_bind(loop_zmq_context(loop), options->endpoint, &actor->zmq,
                                actor->endpoint, sizeof actor->endpoint, err);
    if (status == OK)
        status = loop_add_socket(loop, actor->zmq, on_readable, actor, &actor->socket, err);
    if (status != OK) {
        error_prefix(err, "inbox of %s", options->identity.name);
        actor_destroy(actor);
        return status;
    }
    *ret = actor;
    return OK;
}

void actor_destroy(Actor *actor)
{
    if (actor == NULL) return;
    char text[128];
    snprintf(text, sizeof text, "%s has stopped", actor->identity.name);
    Call *call, *next;
    DL_FOREACH_SAFE(actor->open, call, next)
    {
        send_error(call, ERR_UNAVAILABLE, text);
        call->actor = NULL; /* whoever holds it may still answer; nobody hears it */
    }
    if (actor->socket != NULL) socket_remove_file(actor->endpoint); /* libzmq leaves it */
    loop_remove_socket(actor->socket);
    LL_FOREACH_SAFE(actor->spare, call, next)
    free(call);
    MethodTable *table, *next_table;
    LL_FOREACH_SAFE(actor->tables, table, next_table)
    free(table);
    callers_destroy(actor->callers);
    free(actor);
}

const char *actor_endpoint(const Actor *actor)
{
    return actor->endpoint;
}

void actor_set_generation(Actor *actor, uint32_t generation)
{
    actor->identity.generation = generation;
}

ActorStats actor_stats(const Actor *actor)
{
    ActorStats stats = actor->stats;
    stats.missing = callers_missing(actor->callers);
    return stats;
}
