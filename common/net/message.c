#include "net/message.h"

#include <errno.h>
#include <string.h>

#include "base/limits.h"
#include "base/utf8.h"

/* Field numbers of proto/envelope.proto and protobuf's wire types
 * (https://protobuf.dev/programming-guides/encoding). */
enum {
    FIELD_PROTOCOL = 1,
    FIELD_KIND,
    FIELD_JOB,
    FIELD_GENERATION,
    FIELD_SENDER,
    FIELD_SEQUENCE,
    FIELD_CALL,
    FIELD_TIMEOUT_MS,
    FIELD_METHOD,
    FIELD_BODY,
    FIELD_STATUS,
    FIELD_ERROR,
};
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

/* ---- writing: proto3 leaves out fields that hold their default, and writes the rest by number
 * ---- */

static size_t varint_bytes(uint64_t value)
{
    size_t bytes = 1;
    for (; value >= 0x80; value >>= 7)
        bytes++;
    return bytes;
}

static size_t number_bytes(uint64_t value)
{
    return value != 0 ? 1 + varint_bytes(value) : 0;
}

static size_t fixed_bytes(uint64_t value)
{
    return value != 0 ? 1 + 8 : 0;
}

static size_t text_bytes(Bytes text)
{
    return text.length != 0 ? 1 + varint_bytes(text.length) + text.length : 0;
}

size_t message_bytes(const Message *m)
{
    return number_bytes(m->protocol) + number_bytes(m->kind) + fixed_bytes(m->job) +
           number_bytes(m->generation) + fixed_bytes(m->sender) + number_bytes(m->sequence) +
           number_bytes(m->call) + number_bytes(m->timeout_ms) + text_bytes(m->method) +
           text_bytes(m->body) + number_bytes(m->status) + text_bytes(m->error);
}

static uint8_t *put_varint(uint8_t *at, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *at++ = (uint8_t)(value | 0x80);
    *at++ = (uint8_t)value;
    return at;
}

static uint8_t *put_number(uint8_t *at, int field, uint64_t value)
{
    if (value == 0) return at;
    *at++ = (uint8_t)(field << 3 | WIRE_VARINT);
    return put_varint(at, value);
}

static uint8_t *put_fixed(uint8_t *at, int field, uint64_t value)
{
    if (value == 0) return at;
    *at++ = (uint8_t)(field << 3 | WIRE_64);
    for (int i = 0; i < 8; i++)
        *at++ = (uint8_t)(value >> (8 * i));
    return at;
}

static uint8_t *put_text(uint8_t *at, int field, Bytes text)
{
    if (text.length == 0) return at;
    *at++ = (uint8_t)(field << 3 | WIRE_BYTES);
    at = put_varint(at, text.length);
    memcpy(at, text.data, text.length);
    return at + text.length;
}

void message_encode(const Message *m, uint8_t *ret)
{
    uint8_t *at = ret;
    at = put_number(at, FIELD_PROTOCOL, m->protocol);
    at = put_number(at, FIELD_KIND, m->kind);
    at = put_fixed(at, FIELD_JOB, m->job);
    at = put_number(at, FIELD_GENERATION, m->generation);
    at = put_fixed(at, FIELD_SENDER, m->sender);
    at = put_number(at, FIELD_SEQUENCE, m->sequence);
    at = put_number(at, FIELD_CALL, m->call);
    at = put_number(at, FIELD_TIMEOUT_MS, m->timeout_ms);
    at = put_text(at, FIELD_METHOD, m->method);
    at = put_text(at, FIELD_BODY, m->body);
    at = put_number(at, FIELD_STATUS, m->status);
    put_text(at, FIELD_ERROR, m->error);
}

/* ---- reading ---- */

typedef struct Reader {
    const uint8_t *start, *at, *end;
} Reader;

typedef struct Field {
    uint32_t number;
    int wire;
    uint64_t value; /* varint and fixed */
    Bytes bytes;
} Field;

static Status malformed(const Reader *reader, const char *what, Error *err)
{
    return error_set(err, ERR_DATA, "malformed envelope: %s at byte %zu of %zu", what,
                     (size_t)(reader->at - reader->start), (size_t)(reader->end - reader->start));
}

/* A varint of at most `bytes_max` bytes; bits above the 64th fall away, as in every protobuf
 * reader. */
static bool read_varint(Reader *reader, int bytes_max, uint64_t *ret)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes_max && reader->at + i < reader->end; i++) {
        value |= (uint64_t)(reader->at[i] & 0x7F) << (7 * i);
        if ((reader->at[i] & 0x80) == 0) {
            reader->at += i + 1;
            *ret = value;
            return true;
        }
    }
    return false;
}

static bool read_fixed(Reader *reader, int bytes, uint64_t *ret)
{
    if (reader->end - reader->at < bytes) return false;
    *ret = 0;
    for (int i = 0; i < bytes; i++)
        *ret |= (uint64_t)reader->at[i] << (8 * i);
    reader->at += bytes;
    return true;
}

static Status read_field(Reader *reader, Field *ret, Error *err)
{
    uint64_t value = 0;
    if (!read_varint(reader, 5, &value)) return malformed(reader, "a broken field tag", err);
    ret->number = (uint32_t)(value >> 3);
    if (ret->number == 0) return malformed(reader, "field number 0", err);
    ret->wire = (int)(value & 7);
    ret->value = 0;
    ret->bytes = (Bytes){0};
    switch (ret->wire) {
    case WIRE_VARINT:
        if (read_varint(reader, 10, &ret->value)) return OK;
        return malformed(reader, "a broken number", err);
    case WIRE_64:
        if (read_fixed(reader, 8, &ret->value)) return OK;
        return malformed(reader, "a cut number", err);
    case WIRE_32:
        if (read_fixed(reader, 4, &ret->value)) return OK;
        return malformed(reader, "a cut number", err);
    case WIRE_BYTES:
        if (!read_varint(reader, 5, &value)) return malformed(reader, "a broken length", err);
        if (value > (uint64_t)(reader->end - reader->at))
            return malformed(reader, "a length beyond the end", err);
        ret->bytes = (Bytes){reader->at, (size_t)value};
        reader->at += value;
        return OK;
    default:
        return malformed(reader, "an unknown wire type", err);
    }
}

static int wire_of(uint32_t number)
{
    switch (number) {
    case FIELD_JOB:
    case FIELD_SENDER:
        return WIRE_64;
    case FIELD_METHOD:
    case FIELD_BODY:
    case FIELD_ERROR:
        return WIRE_BYTES;
    default:
        return WIRE_VARINT;
    }
}

static void store_field(Message *m, const Field *field)
{
    switch (field->number) {
    case FIELD_PROTOCOL:
        m->protocol = (uint32_t)field->value;
        break;
    case FIELD_KIND:
        m->kind = (MessageKind)(uint32_t)field->value;
        break;
    case FIELD_JOB:
        m->job = field->value;
        break;
    case FIELD_GENERATION:
        m->generation = (uint32_t)field->value;
        break;
    case FIELD_SENDER:
        m->sender = field->value;
        break;
    case FIELD_SEQUENCE:
        m->sequence = field->value;
        break;
    case FIELD_CALL:
        m->call = field->value;
        break;
    case FIELD_TIMEOUT_MS:
        m->timeout_ms = (uint32_t)field->value;
        break;
    case FIELD_METHOD:
        m->method = field->bytes;
        break;
    case FIELD_BODY:
        m->body = field->bytes;
        break;
    case FIELD_STATUS:
        m->status = (uint32_t)field->value;
        break;
    case FIELD_ERROR:
        m->error = field->bytes;
        break;
    }
}

/* Method names come back in messages and logs, so nothing unprintable passes. */
static bool method_is_readable(Bytes method)
{
    if (method.length >= METHOD_NAME_MAX) return false;
    for (size_t i = 0; i < method.length; i++)
        if (method.data[i] <= ' ' || method.data[i] > '~') return false;
    return true;
}

static void cut_error(Bytes *error)
{
    if (error->length == 0) return;
    if (error->length >= ERROR_MESSAGE_MAX) error->length = ERROR_MESSAGE_MAX - 1;
    const uint8_t *nul = memchr(error->data, '\0', error->length);
    if (nul != NULL) error->length = (size_t)(nul - error->data);
    error->length = utf8_valid_prefix((const char *)error->data, error->length);
}

Status message_decode(Bytes frame, Message *ret, Error *err)
{
    Message message = {0};
    Reader reader = {frame.data, frame.data, frame.data + frame.length};
    while (reader.at < reader.end) {
        Field field = {0};
        TRY(read_field(&reader, &field, err));
        if (field.number < FIELD_PROTOCOL || field.number > FIELD_ERROR) continue;
        if (field.wire != wire_of(field.number))
            return malformed(&reader, "a field of another type", err);
        store_field(&message, &field);
    }
    if (message.kind != MESSAGE_REQUEST && message.kind != MESSAGE_REPLY)
        return malformed(&reader, "neither a request nor a reply", err);
    if (!method_is_readable(message.method)) return malformed(&reader, "a bad method name", err);
    cut_error(&message.error);
    *ret = message;
    return OK;
}

/* ---- frames ---- */

static bool receive_part(void *zmq_socket, zmq_msg_t *part)
{
    zmq_msg_init(part);
    int got;
    do
        got = zmq_msg_recv(part, zmq_socket, ZMQ_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got >= 0) return true;
    zmq_msg_close(part);
    return false;
}

static void drop_rest(void *zmq_socket)
{
    zmq_msg_t part;
    bool more = true;
    while (more && receive_part(zmq_socket, &part)) {
        more = zmq_msg_more(&part) != 0;
        zmq_msg_close(&part);
    }
}

ReceiveResult message_receive(void *zmq_socket, bool has_route, MessageFrames *ret)
{
    bool more = true;
    if (!has_route) {
        zmq_msg_init(&ret->route);
    } else {
        if (!receive_part(zmq_socket, &ret->route)) return RECEIVE_NOTHING;
        more = zmq_msg_more(&ret->route) != 0;
    }
    if (!more || !receive_part(zmq_socket, &ret->envelope)) {
        zmq_msg_close(&ret->route);
        return has_route ? RECEIVE_MALFORMED : RECEIVE_NOTHING;
    }
    if (!zmq_msg_more(&ret->envelope)) {
        zmq_msg_init(&ret->attachment);
        return RECEIVE_OK;
    }
    /* The parts of a message arrive together: a missing one cannot come later. */
    if (!receive_part(zmq_socket, &ret->attachment)) zmq_msg_init(&ret->attachment);
    if (!zmq_msg_more(&ret->attachment)) return RECEIVE_OK;
    drop_rest(zmq_socket);
    message_frames_close(ret);
    return RECEIVE_MALFORMED;
}

void message_frames_close(MessageFrames *frames)
{
    zmq_msg_close(&frames->route);
    zmq_msg_close(&frames->envelope);
    zmq_msg_close(&frames->attachment);
}

void message_frames_move(MessageFrames *to, MessageFrames *from)
{
    zmq_msg_t *targets[] = {&to->route, &to->envelope, &to->attachment};
    zmq_msg_t *sources[] = {&from->route, &from->envelope, &from->attachment};
    for (int i = 0; i < 3; i++) {
        zmq_msg_init(targets[i]);
        zmq_msg_move(targets[i], sources[i]);
        zmq_msg_close(sources[i]);
    }
}

Bytes message_frame_bytes(zmq_msg_t *frame)
{
    return (Bytes){zmq_msg_data(frame), zmq_msg_size(frame)};
}

/* Sends one part made by the caller, who must not touch it afterwards. */
static Status send_part(void *zmq_socket, zmq_msg_t *part, int flags)
{
    int sent;
    do
        sent = zmq_msg_send(part, zmq_socket, flags | ZMQ_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0) return OK;
    int code = errno;
    zmq_msg_close(part);
    return code == EAGAIN ? ERR_RESOURCE : ERR_UNAVAILABLE;
}

static void part_from_bytes(zmq_msg_t *part, Bytes bytes)
{
    CHECKF(zmq_msg_init_size(part, bytes.length) == 0, "%zu bytes for a message", bytes.length);
    if (bytes.length > 0) memcpy(zmq_msg_data(part), bytes.data, bytes.length);
}

Status message_send(void *zmq_socket, Bytes route, const Message *message, Bytes attachment)
{
    zmq_msg_t part;
    if (route.length > 0) {
        part_from_bytes(&part, route);
        TRY(send_part(zmq_socket, &part, ZMQ_SNDMORE));
    }
    size_t bytes = message_bytes(message);
    CHECKF(zmq_msg_init_size(&part, bytes) == 0, "%zu bytes for a message", bytes);
    message_encode(message, zmq_msg_data(&part));
    TRY(send_part(zmq_socket, &part, attachment.length > 0 ? ZMQ_SNDMORE : 0));
    if (attachment.length == 0) return OK;
    part_from_bytes(&part, attachment);
    return send_part(zmq_socket, &part, 0);
}
