/* An envelope from another process: what protobuf-c reads out of the bytes, our reader reads too,
 * and what it reads it writes so that both read the same again. It refuses more than protobuf-c:
 * names that are not printable, kinds that are not known, and field number 0 in an overlong form.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "envelope.pb-c.h"
#include "net/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check_same(const Message *ours, const Troupe__Envelope *theirs)
{
    CHECK(ours->protocol == theirs->protocol && (int)ours->kind == (int)theirs->kind);
    CHECK(ours->job == theirs->job && ours->generation == theirs->generation);
    CHECK(ours->sender == theirs->sender && ours->sequence == theirs->sequence);
    CHECK(ours->call == theirs->call && ours->timeout_ms == theirs->timeout_ms);
    CHECK(ours->status == theirs->status && ours->body.length == theirs->body.len);
    CHECK(ours->body.length == 0 ||
          memcmp(ours->body.data, theirs->body.data, ours->body.length) == 0);
    CHECK(ours->method.length == strlen(theirs->method));
    CHECK(memcmp(theirs->method, ours->method.length > 0 ? (const char *)ours->method.data : "",
                 ours->method.length) == 0);
    CHECK(ours->error.length < ERROR_MESSAGE_MAX);
    const char *error = ours->error.length > 0 ? (const char *)ours->error.data : "";
    CHECK(utf8_valid_prefix(error, ours->error.length) == ours->error.length);
    CHECK(memcmp(theirs->error, error, ours->error.length) == 0);
}

static void check_written_again(const Message *message)
{
    size_t length = message_bytes(message);
    uint8_t *bytes = mem_alloc(length + 1);
    message_encode(message, bytes);
    Troupe__Envelope *theirs = troupe__envelope__unpack(NULL, length, bytes);
    Message again;
    CHECK(theirs != NULL && message_decode((Bytes){bytes, length}, &again, NULL) == OK);
    check_same(message, theirs);
    check_same(&again, theirs);
    CHECK(troupe__envelope__get_packed_size(theirs) == length);
    uint8_t *packed = mem_alloc(length + 1);
    troupe__envelope__pack(theirs, packed);
    CHECK(memcmp(packed, bytes, length) == 0);
    free(packed);
    troupe__envelope__free_unpacked(theirs, NULL);
    free(bytes);
}

/* Whether one of the three reasons to refuse what protobuf-c takes holds. */
static bool may_be_refused(const Troupe__Envelope *theirs, const Error *err)
{
    return strstr(err->message, "bad method name") != NULL ||
           strstr(err->message, "field number 0") != NULL || (unsigned)theirs->kind > 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    Error err = {0};
    Message message;
    Troupe__Envelope *theirs = troupe__envelope__unpack(NULL, length, bytes);
    if (message_decode((Bytes){bytes, length}, &message, &err) == OK) {
        CHECK(theirs != NULL);
        check_same(&message, theirs);
        check_written_again(&message);
    } else {
        CHECK(err.status == ERR_DATA && strchr(err.message, '\n') == NULL);
        CHECK(theirs == NULL || may_be_refused(theirs, &err));
    }
    if (theirs != NULL) troupe__envelope__free_unpacked(theirs, NULL);
    return 0;
}
