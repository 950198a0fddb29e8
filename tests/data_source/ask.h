/* Calls of the tests of data source and rollout worker: ask, run the loop until the answer is
 * there, keep it. */
#ifndef TROUPE_TESTS_DATA_SOURCE_ASK_H
#define TROUPE_TESTS_DATA_SOURCE_ASK_H

#include "actor/handle.h"
#include "rollout.pb-c.h"

typedef struct Answer {
    Loop *loop;
    bool here;
    Status status;
    Error err; /* when status is not OK */
    char *body, *attachment;
    size_t body_length, attachment_length;
} Answer;

void answer_free(Answer *answer);

/* Sends the call; the answer comes while the loop runs. `message` is a protobuf-c message. */
void ask(Loop *loop, Handle *handle, const char *method, const ProtobufCMessage *message,
         int timeout_ms, Answer *ret);
void await(Answer *answer); /* runs the loop until this one is here */

/* The three calls most used. Read and lease replies are the caller's (free_unpacked); NULL when the
 * answer is an error, which then is in *ret. */
Troupe__ReadReply *ask_read(Loop *loop, Handle *handle, const char *set, uint64_t first,
                            uint32_t count, Answer *ret);
Troupe__LeaseReply *ask_run(Loop *loop, Handle *handle, const Troupe__LeaseRequest *request,
                            Answer *ret);
/* One position, index 0. */
Troupe__FetchReply *ask_fetch(Loop *loop, Handle *handle, const char *set, const uint64_t *position,
                              size_t count, Answer *ret);

#endif
