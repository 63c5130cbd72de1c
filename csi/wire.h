/* Requests as bytes: decoded with bounds on memory and text, whoever sends them. */
#ifndef SLUICE_CSI_WIRE_H
#define SLUICE_CSI_WIRE_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

#define WIRE_MESSAGE_MAX (1u << 20) /* bytes of a request */
#define WIRE_MEMORY_MAX (8u << 20)  /* bytes that a decoded request may take */

struct wire_message {
    ProtobufCMessage *message; /* owned */
    ProtobufCAllocator allocator;
    size_t left; /* of WIRE_MEMORY_MAX */
};

/* Any bytes. 0: out->message is what `type` says, every string of it is UTF-8 without control
 * characters (values of maps may have line ends and tabs: certificates). -EBADMSG: not such a
 * message; -E2BIG: too large; -EINVAL: text that is not allowed, the sentence names the field.
 * *out must stay where it is. Release with wire_message_done, after a failure too (it does nothing
 * then). */
int wire_decode(const ProtobufCMessageDescriptor *type, const void *data, size_t len,
                struct wire_message *out, struct error *error);
void wire_message_done(struct wire_message *m);
/* Appends the message. 0 or -ENOMEM. */
int wire_encode(const ProtobufCMessage *message, struct buf *out);
/* The value of a string field by its name, or NULL if there is no such field. */
const char *wire_string(const ProtobufCMessage *message, const char *field);

#endif
