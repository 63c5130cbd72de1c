/*
 * A CSI client for tests: csi_call SOCKET [TIMEOUT_MS]. Reads one JSON object for each line,
 * {"method": "Node/NodeGetInfo", "request": {…}}, and answers each with a line {"code": 0, "reply":
 * {…}} or {"code": 5, "message": "…"}. Maps are objects.
 */
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "csi.pb-c.h"
#include "registration.pb-c.h"

static const ProtobufCServiceDescriptor *const services[] = {
    &csi__v1__identity__descriptor,
    &csi__v1__controller__descriptor,
    &csi__v1__node__descriptor,
    &pluginregistration__registration__descriptor,
};

static void die(const char *what)
{
    fprintf(stderr, "csi_call: %s\n", what);
    exit(2);
}

static ProtobufCMessage *message_from_json(const ProtobufCMessageDescriptor *type, json_t *json);

/* Into the place of one element. Nothing is ever freed: the program is short. */
static void element_from_json(const ProtobufCFieldDescriptor *field, json_t *json, void *place)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        *(char **)place = strdup(json_string_value(json));
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)place = message_from_json(field->descriptor, json);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)place = json_is_true(json);
        break;
    case PROTOBUF_C_TYPE_INT64:
        *(int64_t *)place = json_integer_value(json);
        break;
    default: /* int32 and enums */
        *(int32_t *)place = (int32_t)json_integer_value(json);
    }
}

static json_t *pairs_of_object(json_t *object)
{
    json_t *list = json_array(), *value = NULL;
    const char *key = NULL;
    json_object_foreach(object, key, value)
        json_array_append_new(list, json_pack("{s:s,s:O}", "key", key, "value", value));
    return list;
}

static ProtobufCMessage *message_from_json(const ProtobufCMessageDescriptor *type, json_t *json)
{
    ProtobufCMessage *message = calloc(1, type->sizeof_message);
    json_t *value = NULL;
    const char *key = NULL;
    protobuf_c_message_init(type, message);
    json_object_foreach(json, key, value)
    {
        const ProtobufCFieldDescriptor *f =
            protobuf_c_message_descriptor_get_field_by_name(type, key);
        char *base = (char *)message;
        if (!f)
            die(key);
        if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
            *(uint32_t *)(base + f->quantifier_offset) = f->id;
        if (f->label != PROTOBUF_C_LABEL_REPEATED) {
            element_from_json(f, value, base + f->offset);
            continue;
        }
        json_t *list = json_is_object(value) ? pairs_of_object(value) : value;
        size_t count = json_array_size(list);
        void **elements = calloc(count + 1, sizeof(void *));
        for (size_t i = 0; i < count; i++)
            element_from_json(f, json_array_get(list, i), &elements[i]);
        *(size_t *)(base + f->quantifier_offset) = count;
        *(void ***)(base + f->offset) = elements;
    }
    return message;
}

static json_t *message_to_json(const ProtobufCMessage *message);

static json_t *element_to_json(const ProtobufCFieldDescriptor *field, const void *place)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        return json_string(*(char *const *)place);
    case PROTOBUF_C_TYPE_MESSAGE:
        return *(void *const *)place ? message_to_json(*(void *const *)place) : json_null();
    case PROTOBUF_C_TYPE_BOOL:
        return json_boolean(*(const protobuf_c_boolean *)place);
    case PROTOBUF_C_TYPE_INT64:
        return json_integer(*(const int64_t *)place);
    default:
        return json_integer(*(const int32_t *)place);
    }
}

static json_t *message_to_json(const ProtobufCMessage *message)
{
    json_t *out = json_object();
    const char *base = (const char *)message;
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &message->descriptor->fields[i];
        if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
            *(const uint32_t *)(base + f->quantifier_offset) != f->id)
            continue;
        if (f->label != PROTOBUF_C_LABEL_REPEATED) {
            json_object_set_new(out, f->name, element_to_json(f, base + f->offset));
            continue;
        }
        json_t *list = json_array();
        size_t count = *(const size_t *)(base + f->quantifier_offset);
        void *const *elements = *(void *const *const *)(base + f->offset);
        for (size_t k = 0; k < count; k++)
            json_array_append_new(list, element_to_json(f, &elements[k]));
        json_object_set_new(out, f->name, list);
    }
    return out;
}

static const ProtobufCMethodDescriptor *find(const char *name, char path[300])
{
    const char *slash = strchr(name, '/');
    for (size_t s = 0; slash && s < ARRAY_LEN(services); s++) {
        const ProtobufCMethodDescriptor *m =
            protobuf_c_service_descriptor_get_method_by_name(services[s], slash + 1);
        if (m && strncmp(services[s]->short_name, name, (size_t)(slash - name)) == 0) {
            snprintf(path, 300, "/%s/%s", services[s]->name, m->name);
            return m;
        }
    }
    return NULL;
}

static json_t *reply_of(const ProtobufCMethodDescriptor *method, grpc_byte_buffer *received)
{
    grpc_byte_buffer_reader reader;
    grpc_byte_buffer_reader_init(&reader, received);
    grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
    ProtobufCMessage *m = protobuf_c_message_unpack(method->output, NULL, GRPC_SLICE_LENGTH(slice),
                                                    GRPC_SLICE_START_PTR(slice));
    if (!m)
        die("the reply is not what it should be");
    json_t *out = message_to_json(m);
    protobuf_c_message_free_unpacked(m, NULL);
    grpc_slice_unref(slice);
    grpc_byte_buffer_reader_destroy(&reader);
    return out;
}

static json_t *call(grpc_channel *channel, grpc_completion_queue *queue, json_t *line,
                    int timeout_ms)
{
    char path[300];
    const ProtobufCMethodDescriptor *method =
        find(json_string_value(json_object_get(line, "method")), path);
    if (!method)
        die("no such method");
    ProtobufCMessage *request = message_from_json(method->input, json_object_get(line, "request"));
    size_t len = protobuf_c_message_get_packed_size(request);
    grpc_slice body = grpc_slice_malloc(len);
    protobuf_c_message_pack(request, GRPC_SLICE_START_PTR(body));
    grpc_byte_buffer *sent = grpc_raw_byte_buffer_create(&body, 1), *received = NULL;
    grpc_metadata_array initial, trailing;
    grpc_metadata_array_init(&initial);
    grpc_metadata_array_init(&trailing);
    grpc_status_code status = GRPC_STATUS_UNKNOWN;
    grpc_slice details = grpc_empty_slice(), name = grpc_slice_from_copied_string(path);
    gpr_timespec deadline =
        gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
    grpc_call *c = grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue, name,
                                            NULL, deadline, NULL);
    grpc_op ops[6] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA, .flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY},
        {.op = GRPC_OP_SEND_MESSAGE},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA},
        {.op = GRPC_OP_RECV_MESSAGE},
        {.op = GRPC_OP_RECV_STATUS_ON_CLIENT}};
    ops[1].data.send_message.send_message = sent;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &initial;
    ops[4].data.recv_message.recv_message = &received;
    ops[5].data.recv_status_on_client.trailing_metadata = &trailing;
    ops[5].data.recv_status_on_client.status = &status;
    ops[5].data.recv_status_on_client.status_details = &details;
    if (grpc_call_start_batch(c, ops, 6, c, NULL) != GRPC_CALL_OK)
        die("cannot start the call");
    grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    json_t *out = json_pack("{s:i}", "code", (int)status);
    char *text = grpc_slice_to_c_string(details);
    json_object_set_new(out, "message", json_string(text));
    if (received)
        json_object_set_new(out, "reply", reply_of(method, received));
    gpr_free(text);
    grpc_byte_buffer_destroy(sent);
    grpc_byte_buffer_destroy(received);
    grpc_slice_unref(body);
    grpc_slice_unref(name);
    grpc_slice_unref(details);
    grpc_metadata_array_destroy(&initial);
    grpc_metadata_array_destroy(&trailing);
    grpc_call_unref(c);
    return out;
}

int main(int argc, char **argv)
{
    char target[300], *line = NULL;
    size_t room = 0;
    if (argc < 2)
        die("usage: csi_call SOCKET [TIMEOUT_MS]");
    int timeout_ms = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 120000;
    grpc_init();
    snprintf(target, sizeof(target), "unix:%s", argv[1]);
    grpc_channel_credentials *open = grpc_insecure_credentials_create();
    grpc_channel *channel = grpc_channel_create(target, open, NULL);
    grpc_completion_queue *queue = grpc_completion_queue_create_for_next(NULL);
    while (getline(&line, &room, stdin) > 0) {
        json_t *json = json_loads(line, 0, NULL);
        if (!json)
            die("a line is no JSON");
        json_t *reply = call(channel, queue, json, timeout_ms);
        char *text = json_dumps(reply, JSON_COMPACT);
        printf("%s\n", text);
        fflush(stdout);
        free(text);
        json_decref(reply);
        json_decref(json);
    }
    free(line);
    return 0;
}
