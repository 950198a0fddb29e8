#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "tests/data_source/ask.h"

#define TIMEOUT_MS 20000

static void on_reply(void *argument, const Reply *reply)
{
    Answer *answer = argument;
    answer->here = true;
    answer->status = reply->status;
    if (reply->status != OK) {
        answer->err = *reply->error;
    } else {
        answer->body = mem_strndup((const char *)reply->body.data, reply->body.length);
        answer->body_length = reply->body.length;
        answer->attachment =
            mem_strndup((const char *)reply->attachment.data, reply->attachment.length);
        answer->attachment_length = reply->attachment.length;
    }
    loop_stop(answer->loop);
}

void ask(Loop *loop, Handle *handle, const char *method, const ProtobufCMessage *message,
         int timeout_ms, Answer *ret)
{
    *ret = (Answer){.loop = loop};
    size_t length = protobuf_c_message_get_packed_size(message);
    uint8_t *body = mem_alloc(length);
    protobuf_c_message_pack(message, body);
    CallOptions options = {.method = method, .body = {body, length}, .timeout_ms = timeout_ms};
    Error err = {0};
    assert_ok(handle_call(handle, &options, on_reply, ret, &err), &err);
    free(body);
}

void await(Answer *answer)
{
    while (!answer->here)
        loop_run(answer->loop);
}

void answer_free(Answer *answer)
{
    free(answer->body);
    free(answer->attachment);
    answer->body = answer->attachment = NULL;
}

Troupe__ReadReply *ask_read(Loop *loop, Handle *handle, const char *set, uint64_t first,
                            uint32_t count, Answer *ret)
{
    Troupe__ReadRequest request = TROUPE__READ_REQUEST__INIT;
    request.set = (char *)set;
    request.first = first;
    request.count = count;
    ask(loop, handle, "data_source.read", &request.base, TIMEOUT_MS, ret);
    await(ret);
    return ret->status == OK
               ? troupe__read_reply__unpack(NULL, ret->body_length, (uint8_t *)ret->body)
               : NULL;
}

Troupe__LeaseReply *ask_run(Loop *loop, Handle *handle, const Troupe__LeaseRequest *request,
                            Answer *ret)
{
    ask(loop, handle, "rollout.run", &request->base, TIMEOUT_MS, ret);
    await(ret);
    return ret->status == OK
               ? troupe__lease_reply__unpack(NULL, ret->body_length, (uint8_t *)ret->body)
               : NULL;
}

Troupe__FetchReply *ask_fetch(Loop *loop, Handle *handle, const char *set, const uint64_t *position,
                              size_t count, Answer *ret)
{
    Troupe__FetchRequest request = TROUPE__FETCH_REQUEST__INIT;
    Troupe__SampleRef *ref = mem_calloc(count, sizeof *ref),
                      **list = mem_calloc(count, sizeof *list);
    for (size_t i = 0; i < count; i++) {
        troupe__sample_ref__init(&ref[i]);
        ref[i].position = position[i];
        list[i] = &ref[i];
    }
    request.set = (char *)set;
    request.n_refs = count;
    request.refs = list;
    ask(loop, handle, "rollout.fetch", &request.base, TIMEOUT_MS, ret);
    await(ret);
    free(list);
    free(ref);
    return ret->status == OK
               ? troupe__fetch_reply__unpack(NULL, ret->body_length, (uint8_t *)ret->body)
               : NULL;
}
