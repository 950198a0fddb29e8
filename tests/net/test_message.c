/* Tests of the envelope codec against protobuf-c, which it replaces on the hot path. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/memory.h"
#include "base/rng.h"
#include "envelope.pb-c.h"
#include "net/message.h"

static uint64_t draw(uint64_t counter)
{
    RngBlock block = rng_block(rng_key(7, "message"), 0, counter);
    return (uint64_t)block.word[0] << 32 | block.word[1];
}

/* Numbers of every length, zero often. */
static uint64_t some_number(uint64_t *counter)
{
    uint64_t value = draw((*counter)++);
    uint64_t shift = draw((*counter)++) % 65;
    return shift == 64 ? 0 : value >> shift;
}

static Bytes some_text(uint64_t *counter, char *buffer, size_t length_max)
{
    size_t length = some_number(counter) % (length_max + 1);
    for (size_t i = 0; i < length; i++)
        buffer[i] = (char)('!' + draw((*counter)++) % ('~' - '!' + 1));
    buffer[length] = '\0';
    return (Bytes){(const uint8_t *)buffer, length};
}

static void assert_same_bytes(Bytes ours, const void *theirs, size_t length)
{
    assert_int_equal(ours.length, length);
    if (length > 0) assert_memory_equal(ours.data, theirs, length);
}

static void test_message_encodes_as_protobuf_c(void **state)
{
    (void)state;
    static char method[METHOD_NAME_MAX], body[4096], error[1024];
    uint64_t counter = 0;
    for (int round = 0; round < 20000; round++) {
        Message m = {.protocol = (uint32_t)some_number(&counter),
                     .kind = (MessageKind)(some_number(&counter) % 2),
                     .job = some_number(&counter),
                     .generation = (uint32_t)some_number(&counter),
                     .sender = some_number(&counter),
                     .sequence = some_number(&counter),
                     .call = some_number(&counter),
                     .timeout_ms = (uint32_t)some_number(&counter),
                     .method = some_text(&counter, method, sizeof method - 1),
                     .body = some_text(&counter, body, round % 100 == 0 ? sizeof body - 1 : 20),
                     .status = (uint32_t)some_number(&counter),
                     .error = some_text(&counter, error, 20)};
        Troupe__Envelope theirs = TROUPE__ENVELOPE__INIT;
        theirs.protocol = m.protocol;
        theirs.kind = (Troupe__Envelope__Kind)m.kind;
        theirs.job = m.job;
        theirs.generation = m.generation;
        theirs.sender = m.sender;
        theirs.sequence = m.sequence;
        theirs.call = m.call;
        theirs.timeout_ms = m.timeout_ms;
        theirs.method = method;
        theirs.body = (ProtobufCBinaryData){m.body.length, (uint8_t *)body};
        theirs.status = m.status;
        theirs.error = error;
        size_t length = troupe__envelope__get_packed_size(&theirs);
        uint8_t *packed = mem_alloc(length + 1);
        uint8_t *ours = mem_alloc(length + 1);
        assert_int_equal(message_bytes(&m), length);
        troupe__envelope__pack(&theirs, packed);
        message_encode(&m, ours);
        assert_memory_equal(ours, packed, length);
        Message back;
        Error err = {0};
        assert_ok(message_decode((Bytes){packed, length}, &back, &err), &err);
        assert_int_equal(back.protocol, m.protocol);
        assert_int_equal(back.kind, m.kind);
        assert_true(back.job == m.job && back.sender == m.sender && back.call == m.call);
        assert_true(back.sequence == m.sequence && back.generation == m.generation);
        assert_true(back.timeout_ms == m.timeout_ms && back.status == m.status);
        assert_same_bytes(back.method, method, m.method.length);
        assert_same_bytes(back.body, body, m.body.length);
        assert_same_bytes(back.error, error, m.error.length);
        free(packed);
        free(ours);
    }
}

/* What protobuf-c reads out of damaged bytes, we read too, and nothing else; except that names must
 * be printable and kinds known. */
static void test_message_decodes_damage_as_protobuf_c(void **state)
{
    (void)state;
    uint64_t counter = 1u << 20;
    int both = 0, neither = 0;
    for (int round = 0; round < 50000; round++) {
        uint8_t bytes[160];
        Message m = {.protocol = 1,
                     .job = 5,
                     .generation = 3,
                     .sender = 9,
                     .sequence = 300,
                     .call = 1u << 20,
                     .timeout_ms = 5000,
                     .method = {(uint8_t *)"a.b", 3},
                     .body = {(uint8_t *)"body", 4},
                     .status = 2,
                     .error = {(uint8_t *)"e", 1}};
        size_t length = message_bytes(&m);
        message_encode(&m, bytes);
        for (uint64_t edits = 1 + draw(counter++) % 3; edits > 0; edits--) {
            uint64_t at = draw(counter++);
            if (at % 8 == 0)
                length = at / 8 % (length + 1);
            else if (length > 0)
                bytes[at / 8 % length] = (uint8_t)draw(counter++);
        }
        Troupe__Envelope *theirs = troupe__envelope__unpack(NULL, length, bytes);
        Message ours;
        Error err = {0};
        bool readable = message_decode((Bytes){bytes, length}, &ours, &err) == OK;
        if (readable) {
            assert_non_null(theirs);
            assert_true(ours.protocol == theirs->protocol && ours.job == theirs->job);
            assert_true(ours.generation == theirs->generation && ours.sender == theirs->sender);
            assert_true(ours.sequence == theirs->sequence && ours.call == theirs->call);
            assert_true(ours.timeout_ms == theirs->timeout_ms && ours.status == theirs->status);
            assert_same_bytes(ours.method, theirs->method, strlen(theirs->method));
            assert_same_bytes(ours.body, theirs->body.data, theirs->body.len);
            both++;
        } else if (theirs != NULL) {
            bool odd_name = strlen(theirs->method) >= METHOD_NAME_MAX;
            for (const char *c = theirs->method; *c != '\0'; c++)
                odd_name |= *c <= ' ' || *c > '~';
            /* A NUL inside a name hides its rest from strlen. */
            odd_name |= strlen(theirs->method) < 3;
            /* protobuf-c lets an overlong field number 0 pass; the specification does not. */
            bool zero_field = strstr(err.message, "field number 0") != NULL;
            assert_true(odd_name || zero_field || (unsigned)theirs->kind > 1);
        } else {
            neither++;
        }
        if (theirs != NULL) troupe__envelope__free_unpacked(theirs, NULL);
    }
    assert_true(both > 1000 && neither > 1000);
}

static void test_message_refuses_what_is_no_envelope(void **state)
{
    (void)state;
    Error err = {0};
    Message m;
    const uint8_t long_length[] = {0x52, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 'x'};
    assert_fails(message_decode((Bytes){long_length, sizeof long_length}, &m, &err), ERR_DATA, &err,
                 "beyond the end at byte 6 of 7");
    const uint8_t endless[] = {0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80};
    assert_fails(message_decode((Bytes){endless, sizeof endless}, &m, &err), ERR_DATA, &err,
                 "broken number");
    const uint8_t wrong_type[] = {0x48, 0x01};
    assert_fails(message_decode((Bytes){wrong_type, sizeof wrong_type}, &m, &err), ERR_DATA, &err,
                 "another type");
    const uint8_t escape[] = {0x4A, 0x02, 0x1B, '['};
    assert_fails(message_decode((Bytes){escape, sizeof escape}, &m, &err), ERR_DATA, &err,
                 "method name");
    const uint8_t kind[] = {0x10, 0x07};
    assert_fails(message_decode((Bytes){kind, sizeof kind}, &m, &err), ERR_DATA, &err,
                 "neither a request nor a reply");
    const uint8_t newer[] = {0x08, 0x01, 0xF2, 0x01,
                             0x02, 'h',  'i'}; /* field 30: of a later version */
    assert_ok(message_decode((Bytes){newer, sizeof newer}, &m, &err), &err);
    assert_int_equal(m.protocol, 1);
    const uint8_t bad_text[] = {0x62, 0x04, 'o', 'k', 0xFF, 'x'};
    assert_ok(message_decode((Bytes){bad_text, sizeof bad_text}, &m, &err), &err);
    assert_int_equal(m.error.length, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_encodes_as_protobuf_c),
        cmocka_unit_test(test_message_decodes_damage_as_protobuf_c),
        cmocka_unit_test(test_message_refuses_what_is_no_envelope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
