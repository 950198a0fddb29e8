/* Calls and replies whose body is a protobuf message: packing in one place. Loop thread. */
#ifndef TROUPE_ACTOR_TYPED_H
#define TROUPE_ACTOR_TYPED_H

#include <protobuf-c/protobuf-c.h>

#include "actor/handle.h"

/* A message in wire form; `data` is owned by whoever asked for it (free). */
typedef struct PackedMessage {
    uint8_t *data;
    size_t length;
} PackedMessage;

PackedMessage message_pack(const ProtobufCMessage *message); /* NULL: an empty body */

/* Answers with this message. Takes the call. */
void call_reply_message(Call *call, const ProtobufCMessage *message);
/* Answers with an empty body, which is what the message Empty packs to. */
void call_reply_empty(Call *call);
/* For a request that is not the method's message. */
void call_refuse_unreadable(Call *call);

typedef struct MessageCall {
    const char *method;
    const ProtobufCMessage *message; /* NULL: an empty body */
    int timeout_ms;
} MessageCall;

/* handle_call with a packed message. */
Status handle_call_message(Handle *handle, const MessageCall *call, ReplyCallback callback,
                           void *argument, Error *err);

#endif
