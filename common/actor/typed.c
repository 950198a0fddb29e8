#include "actor/typed.h"

#include <stdlib.h>

#include "base/memory.h"

PackedMessage message_pack(const ProtobufCMessage *message)
{
    PackedMessage packed = {0};
    if (message == NULL) return packed;
    packed.length = protobuf_c_message_get_packed_size(message);
    packed.data = mem_alloc(packed.length);
    protobuf_c_message_pack(message, packed.data);
    return packed;
}

void call_reply_message(Call *call, const ProtobufCMessage *message)
{
    PackedMessage body = message_pack(message);
    call_reply(call, (Bytes){body.data, body.length}, (Bytes){0});
    free(body.data);
}

void call_reply_empty(Call *call)
{
    call_reply(call, (Bytes){0}, (Bytes){0});
}

void call_refuse_unreadable(Call *call)
{
    call_failf(call, ERR_INVALID, "the body of %s cannot be read", call_method(call));
}

Status handle_call_message(Handle *handle, const MessageCall *call, ReplyCallback callback,
                           void *argument, Error *err)
{
    PackedMessage body = message_pack(call->message);
    CallOptions options = {
        .method = call->method, .body = {body.data, body.length}, .timeout_ms = call->timeout_ms};
    Status status = handle_call(handle, &options, callback, argument, err);
    free(body.data);
    return status;
}
