/* Message: what stands on the wire between two processes: one Envelope (proto/envelope.proto), then
 * at most one raw frame, the attachment. A ROUTER socket puts the route (which connection) before
 * them. The envelope is read and written here directly in protobuf's wire format, without
 * intermediate allocations, because every call pays for it four times; tests and the fuzzer hold it
 * equal to protobuf-c's reading. */
#ifndef TROUPE_NET_MESSAGE_H
#define TROUPE_NET_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <zmq.h>

#include "base/bytes.h"
#include "base/error.h"

#define PROTOCOL_VERSION 1

typedef enum { MESSAGE_REQUEST = 0, MESSAGE_REPLY = 1 } MessageKind;

/* An envelope. The texts are borrowed: when decoded, from the frame. */
typedef struct Message {
    uint32_t protocol;
    MessageKind kind;
    uint64_t job;
    uint32_t generation;
    uint64_t sender; /* incarnation */
    uint64_t sequence;
    uint64_t call;
    uint32_t timeout_ms; /* requests */
    Bytes
        method; /* requests; decoding refuses more than METHOD_NAME_MAX bytes or unprintable ones */
    Bytes body;
    uint32_t status; /* replies: a Status */
    Bytes error;     /* replies; decoding cuts it to ERROR_MESSAGE_MAX bytes of valid UTF-8 */
} Message;

size_t message_bytes(const Message *message);              /* of the encoded envelope */
void message_encode(const Message *message, uint8_t *ret); /* exactly message_bytes */

/* ERR_DATA with what is wrong and at which byte. Fields that this version does not know are passed
 * over. */
Status message_decode(Bytes frame, Message *ret, Error *err);

/* The frames of one received message. Movable only by message_frames_move: short frames live inside
 * it. */
typedef struct MessageFrames {
    zmq_msg_t route; /* empty on a DEALER */
    zmq_msg_t envelope;
    zmq_msg_t attachment; /* empty: none */
} MessageFrames;

typedef enum { RECEIVE_OK, RECEIVE_NOTHING, RECEIVE_MALFORMED } ReceiveResult;

/* Takes the next message, if there is one, without waiting. RECEIVE_MALFORMED: a number of frames
 * that no peer of ours sends; it was dropped. Only after RECEIVE_OK are the frames the caller's to
 * close. */
ReceiveResult message_receive(void *zmq_socket, bool has_route, MessageFrames *ret);
void message_frames_close(MessageFrames *frames);
void message_frames_move(MessageFrames *to,
                         MessageFrames *from); /* `to` is uninitialised before, `from` after */
Bytes message_frame_bytes(zmq_msg_t *frame);   /* borrowed from the frame */

/* Encodes and sends without waiting. `route` (empty on a DEALER) and `attachment` are copied.
 * ERR_UNAVAILABLE: no such connection; ERR_RESOURCE: the fuse blew or, on a DEALER, there is no
 * connection yet. No Error text: both are ordinary and the caller knows what to say. */
Status message_send(void *zmq_socket, Bytes route, const Message *message, Bytes attachment);

#endif
