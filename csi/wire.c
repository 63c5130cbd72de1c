#include "wire.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Each block is preceded by its size, so that freeing gives the bytes back. */
union block {
    size_t size;
    max_align_t align;
};

static void *bounded_alloc(void *arg, size_t size)
{
    struct wire_message *m = arg;
    if (size > WIRE_MEMORY_MAX || size + sizeof(union block) > m->left)
        return NULL;
    union block *b = malloc(sizeof(*b) + size);
    if (!b)
        return NULL;
    b->size = size;
    m->left -= size + sizeof(*b);
    return b + 1;
}

static void bounded_free(void *arg, void *pointer)
{
    struct wire_message *m = arg;
    if (!pointer)
        return;
    union block *b = (union block *)pointer - 1;
    m->left += b->size + sizeof(*b);
    free(b);
}

/* Length of the UTF-8 sequence at p (shortest form, no surrogates), 0 if it is none. */
static unsigned utf8_len(const unsigned char *p)
{
    static const struct {
        unsigned char mask, lead;
        unsigned len;
        uint32_t min;
    } forms[] = {
        {0x80, 0, 1, 0}, {0xe0, 0xc0, 2, 0x80}, {0xf0, 0xe0, 3, 0x800}, {0xf8, 0xf0, 4, 0x10000}};
    for (unsigned f = 0; f < 4; f++) {
        if ((p[0] & forms[f].mask) != forms[f].lead)
            continue;
        uint32_t code = p[0] & (unsigned char)~forms[f].mask;
        for (unsigned i = 1; i < forms[f].len; i++) {
            if ((p[i] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (p[i] & 0x3f);
        }
        bool good = code >= forms[f].min && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
        return good ? forms[f].len : 0;
    }
    return 0;
}

static bool text_allowed(const char *text, bool lines)
{
    const unsigned char *p = (const unsigned char *)text;
    while (*p) {
        unsigned len = utf8_len(p);
        bool space = lines && (*p == '\n' || *p == '\r' || *p == '\t');
        if (!len || ((*p < 0x20 || *p == 0x7f) && !space))
            return false;
        p += len;
    }
    return true;
}

static bool is_map_value(const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message)
{
    return strcmp(message->descriptor->short_name, "Pair") == 0 &&
           strcmp(field->name, "value") == 0;
}

static const char *find_bad_text(const ProtobufCMessage *message);

/* One element of a field: the name of a bad field, or NULL. */
static const char *check_element(const ProtobufCMessage *message,
                                 const ProtobufCFieldDescriptor *field, const void *element)
{
    const void *pointer = *(const void *const *)element;
    if (!pointer)
        return NULL;
    if (field->type == PROTOBUF_C_TYPE_STRING)
        return text_allowed(pointer, is_map_value(field, message)) ? NULL : field->name;
    return find_bad_text(pointer);
}

static bool is_set(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    if (!(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
        return true;
    const char *base = (const char *)message;
    return *(const uint32_t *)(base + field->quantifier_offset) == field->id;
}

/* Depth is that of the message types, which do not contain themselves. */
static const char *find_bad_text(const ProtobufCMessage *message) // NOLINT(misc-no-recursion)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    const char *base = (const char *)message, *bad = NULL;
    for (unsigned i = 0; i < type->n_fields && !bad; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        if (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        if (field->label != PROTOBUF_C_LABEL_REPEATED) {
            if (is_set(message, field))
                bad = check_element(message, field, base + field->offset);
            continue;
        }
        size_t count = *(const size_t *)(base + field->quantifier_offset);
        void *const *list = *(void *const *const *)(base + field->offset);
        for (size_t k = 0; k < count && !bad; k++)
            bad = check_element(message, field, &list[k]);
    }
    return bad;
}

int wire_decode(const ProtobufCMessageDescriptor *type, const void *data, size_t len,
                struct wire_message *out, struct error *error)
{
    *out = (struct wire_message){.left = WIRE_MEMORY_MAX};
    if (len > WIRE_MESSAGE_MAX)
        return error_set(error, -E2BIG, "a request of %zu bytes is too large", len);
    out->allocator = (ProtobufCAllocator){bounded_alloc, bounded_free, out};
    out->message = protobuf_c_message_unpack(type, &out->allocator, len, data);
    if (!out->message)
        return error_set(error, -EBADMSG, "the request is not a %s", type->name);
    const char *bad = find_bad_text(out->message);
    if (bad) {
        wire_message_done(out);
        return error_set(error, -EINVAL, "%s holds control characters or is not UTF-8", bad);
    }
    return 0;
}

void wire_message_done(struct wire_message *m)
{
    if (m->message)
        protobuf_c_message_free_unpacked(m->message, &m->allocator);
    m->message = NULL;
}

int wire_encode(const ProtobufCMessage *message, struct buf *out)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    if (!len)
        return 0;
    uint8_t *room = buf_extend(out, len);
    if (!room)
        return -ENOMEM;
    protobuf_c_message_pack(message, room);
    return 0;
}

const char *wire_string(const ProtobufCMessage *message, const char *field)
{
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field_by_name(message->descriptor, field);
    if (!f || f->type != PROTOBUF_C_TYPE_STRING || f->label == PROTOBUF_C_LABEL_REPEATED)
        return NULL;
    return *(const char *const *)((const char *)message + f->offset);
}
