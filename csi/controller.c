/* The Controller service: volumes are bucket prefixes with a record in the bucket, or directories
 * of a volume of a metadata service with a record there, made and ended by `sluice prefix`. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "check.h"
#include "csi.pb-c.h"
#include "driver.h"
#include "frame.h"
#include "launch.h"
#include "registry.h"

#define DEFAULT_SIZE (10ll << 30)
#define STORE_CAPACITY (1ll << 60) /* what an object store has left: as much as one pays for */
#define CONTEXT_MAX 80

/* What the node needs of the parameters, and that the volume has a record. */
static size_t make_context(const Csi__V1__CreateVolumeRequest *r, const struct source *source,
                           Csi__V1__Pair *pairs, Csi__V1__Pair **list)
{
    static const char *const dropped[] = {"url",    "bucket",   "prefix",   "server",
                                          "volume", "onDelete", "topology", "managed"};
    size_t count = 0;
    csi__v1__pair__init(&pairs[count]);
    pairs[count].key = (char *)"url";
    pairs[count++].value = source->url;
    csi__v1__pair__init(&pairs[count]);
    pairs[count].key = (char *)"managed";
    pairs[count++].value = (char *)"true";
    for (size_t i = 0; i < r->n_parameters && count < CONTEXT_MAX; i++) {
        bool drop = strstr(r->parameters[i]->key, "kubernetes.io/") ||
                    strstr(r->parameters[i]->key, "storage.k8s.io/");
        for (size_t d = 0; d < ARRAY_LEN(dropped); d++)
            drop = drop || strcmp(r->parameters[i]->key, dropped[d]) == 0;
        if (!drop)
            pairs[count++] = *r->parameters[i];
    }
    for (size_t i = 0; i < count; i++)
        list[i] = &pairs[i];
    return count;
}

/* topology: node. The volume's metadata stays on the node that is to use it first. */
static const Csi__V1__Topology *choose_node(const Csi__V1__CreateVolumeRequest *r)
{
    const Csi__V1__TopologyRequirement *t = r->accessibility_requirements;
    if (!t)
        return NULL;
    return t->n_preferred ? t->preferred[0] : t->n_requisite ? t->requisite[0] : NULL;
}

static int check_create(struct csi *csi, struct csi_call *call,
                        const Csi__V1__CreateVolumeRequest *r, struct source *source)
{
    int code = CSI_OK;
    if (!*r->name)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "name is missing");
    if (strlen(r->name) > CHECK_NAME_MAX)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "name is longer than %d bytes", CHECK_NAME_MAX);
    if (r->volume_content_source)
        return csi_fail(call, CSI_INVALID_ARGUMENT,
                        "volumes cannot be made from snapshots or other volumes");
    if (r->n_mutable_parameters)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "there are no mutable parameters");
    if (r->n_parameters + 2 > CONTEXT_MAX)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "more than %d parameters", CONTEXT_MAX - 2);
    code = check_capabilities(call, r->n_volume_capabilities, r->volume_capabilities);
    if (code == CSI_OK)
        code =
            source_from_pairs(call, r->n_parameters, r->parameters, csi->config.allow_file, source);
    if (code != CSI_OK)
        return code;
    for (size_t i = 0; i < r->n_volume_capabilities && code == CSI_OK; i++) {
        const Csi__V1__VolumeCapability__MountVolume *m = r->volume_capabilities[i]->mount;
        struct source trial = {0};
        code = source_allows(call, source, r->volume_capabilities[i]);
        if (code == CSI_OK)
            code = source_add_flags(call, &trial, m->n_mount_flags, m->mount_flags);
        source_done(&trial);
    }
    if (code == CSI_OK && source->pin && !choose_node(r))
        code = csi_fail(call, CSI_INVALID_ARGUMENT,
                        "topology: node needs volumeBindingMode: WaitForFirstConsumer");
    if (code == CSI_OK)
        code = source_descend(call, source, r->name);
    if (code != CSI_OK)
        source_done(source);
    return code;
}

static int create(struct csi *csi, struct csi_call *call, const Csi__V1__CreateVolumeRequest *r,
                  const struct source *source, const char *id, int64_t size)
{
    struct launch launch = {.source = source, .secret_count = r->n_secrets, .secrets = r->secrets};
    char size_word[40];
    cleanup(free_ptr) char *name_word = NULL;
    json_t *reply = NULL;
    snprintf(size_word, sizeof(size_word), "--size=%" PRId64, size);
    if (asprintf(&name_word, "--create=%s", r->name) < 0)
        return csi_fail(call, CSI_INTERNAL, "out of memory");
    const char *words[] = {name_word, size_word,
                           source->delete_data ? "--on-delete=delete" : "--on-delete=retain", NULL};
    int code = launch_prefix(csi, call, &launch, words, &reply);
    json_decref(reply);
    if (code != CSI_OK)
        return code;
    registry_put(csi->registry, id, size);
    Csi__V1__CreateVolumeResponse answer = CSI__V1__CREATE_VOLUME_RESPONSE__INIT;
    Csi__V1__Volume volume = CSI__V1__VOLUME__INIT;
    Csi__V1__Pair pairs[CONTEXT_MAX + 2], *list[CONTEXT_MAX + 2];
    Csi__V1__Topology *nodes[1] = {(Csi__V1__Topology *)choose_node(r)};
    volume.volume_id = (char *)id;
    volume.capacity_bytes = size;
    volume.n_volume_context = make_context(r, source, pairs, list);
    volume.volume_context = list;
    if (source->pin) {
        volume.accessible_topology = nodes;
        volume.n_accessible_topology = 1;
    }
    answer.volume = &volume;
    return csi_reply(call, &answer.base);
}

static int create_volume(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    const Csi__V1__CreateVolumeRequest *r = (const void *)request;
    struct source source;
    int64_t size = 0;
    int code = check_create(csi, call, r, &source);
    if (code != CSI_OK)
        return code;
    cleanup(free_ptr) char *id = source_id(&source);
    code = check_capacity(call, r->capacity_range, DEFAULT_SIZE, &size);
    if (code == CSI_OK && !id)
        code = csi_fail(call, CSI_INVALID_ARGUMENT,
                        "the volume's id would be longer than %d bytes; shorten the prefix, or put "
                        "the endpoint into the Secret",
                        CHECK_NAME_MAX);
    if (code == CSI_OK)
        code = frame_enter(csi, call, id);
    if (code == CSI_OK) {
        code = create(csi, call, r, &source, id, size);
        frame_leave(csi, id);
    }
    source_done(&source);
    return code;
}

static int delete_volume(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    static const char *const words[] = {"--delete", NULL};
    const Csi__V1__DeleteVolumeRequest *r = (const void *)request;
    Csi__V1__DeleteVolumeResponse reply = CSI__V1__DELETE_VOLUME_RESPONSE__INIT;
    struct source source;
    json_t *answer = NULL;
    int code = check_id(call, "volume_id", r->volume_id);
    if (code != CSI_OK)
        return code;
    /* What cannot be one of ours does not exist. */
    if (source_from_id(call, r->volume_id, csi->config.allow_file, &source) != CSI_OK)
        return csi_reply(call, &reply.base);
    struct launch launch = {.source = &source, .secret_count = r->n_secrets, .secrets = r->secrets};
    if (source_is_made(&source) && (code = frame_enter(csi, call, r->volume_id)) == CSI_OK) {
        code = launch_prefix(csi, call, &launch, words, &answer);
        if (code == CSI_NOT_FOUND)
            code = CSI_OK; /* the whole bucket, or the service's volume, is gone */
        if (code == CSI_OK)
            registry_remove(csi->registry, r->volume_id);
        frame_leave(csi, r->volume_id);
    }
    json_decref(answer);
    source_done(&source);
    return frame_end(call, code, &reply.base);
}

/* The record of a volume by its id; NOT_FOUND without one. */
static int find_record(struct csi *csi, struct csi_call *call, const char *id, size_t secret_count,
                       Csi__V1__Pair *const *secrets, const char *const *words, int64_t *size,
                       bool *on_node)
{
    struct source source;
    json_t *reply = NULL;
    if (source_from_id(call, id, csi->config.allow_file, &source) != CSI_OK)
        return csi_fail(call, CSI_NOT_FOUND, "there is no such volume");
    struct launch launch = {.source = &source, .secret_count = secret_count, .secrets = secrets};
    int code = source_is_made(&source)
                   ? launch_prefix(csi, call, &launch, words, &reply)
                   : csi_fail(call, CSI_NOT_FOUND, "the volume was not made by this driver");
    json_t *record = json_object_get(reply, "record");
    if (code == CSI_OK && !json_is_object(record))
        code = csi_fail(call, CSI_NOT_FOUND, "there is no volume at %s", source.url);
    if (code == CSI_OK && size)
        *size = json_integer_value(json_object_get(record, "size"));
    if (code == CSI_OK && on_node)
        *on_node = source.kind != SOURCE_SERVICE; /* the service keeps to its limit itself */
    json_decref(reply);
    source_done(&source);
    return code;
}

/* A volume that was not made here is what its context says; it need have no record. */
static int find_volume(struct csi *csi, struct csi_call *call,
                       const Csi__V1__ValidateVolumeCapabilitiesRequest *r, struct source *source)
{
    static const char *const none[] = {NULL};
    const char *managed = pair_value(r->n_volume_context, r->volume_context, "managed");
    bool file = csi->config.allow_file;
    if (!managed && source_in_pairs(r->n_volume_context, r->volume_context))
        return source_from_pairs(call, r->n_volume_context, r->volume_context, file, source);
    int code = find_record(csi, call, r->volume_id, r->n_secrets, r->secrets, none, NULL, NULL);
    return code == CSI_OK ? source_from_id(call, r->volume_id, file, source) : code;
}

static int validate(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    const Csi__V1__ValidateVolumeCapabilitiesRequest *r = (const void *)request;
    Csi__V1__ValidateVolumeCapabilitiesResponse reply =
        CSI__V1__VALIDATE_VOLUME_CAPABILITIES_RESPONSE__INIT;
    Csi__V1__ValidateVolumeCapabilitiesResponse__Confirmed confirmed =
        CSI__V1__VALIDATE_VOLUME_CAPABILITIES_RESPONSE__CONFIRMED__INIT;
    struct source source;
    int code = check_id(call, "volume_id", r->volume_id);
    if (code == CSI_OK && !r->n_volume_capabilities)
        code = csi_fail(call, CSI_INVALID_ARGUMENT, "volume_capabilities are missing");
    if (code == CSI_OK)
        code = find_volume(csi, call, r, &source);
    if (code != CSI_OK)
        return code;
    /* A mode that cannot be had is an answer, not an error. */
    code = check_capabilities(call, r->n_volume_capabilities, r->volume_capabilities);
    for (size_t i = 0; i < r->n_volume_capabilities && code == CSI_OK; i++)
        code = source_allows(call, &source, r->volume_capabilities[i]);
    source_done(&source);
    if (code != CSI_OK) {
        reply.message = call->message;
        return csi_reply(call, &reply.base);
    }
    confirmed.n_volume_context = r->n_volume_context;
    confirmed.volume_context = r->volume_context;
    confirmed.n_volume_capabilities = r->n_volume_capabilities;
    confirmed.volume_capabilities = r->volume_capabilities;
    confirmed.n_parameters = r->n_parameters;
    confirmed.parameters = r->parameters;
    reply.confirmed = &confirmed;
    return csi_reply(call, &reply.base);
}

static int list_volumes(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    const Csi__V1__ListVolumesRequest *r = (const void *)request;
    Csi__V1__ListVolumesResponse reply = CSI__V1__LIST_VOLUMES_RESPONSE__INIT;
    struct registry_page page = {0};
    if (r->max_entries < 0)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "max_entries cannot be negative");
    if (!registry_page(csi->registry, r->starting_token, (unsigned)r->max_entries, &page))
        return csi_fail(call, CSI_ABORTED, "the starting_token is none of this driver; begin anew");
    Csi__V1__Volume *volumes = calloc(page.count + 1, sizeof(*volumes));
    Csi__V1__ListVolumesResponse__Entry *entries = calloc(page.count + 1, sizeof(*entries));
    Csi__V1__ListVolumesResponse__Entry **list = calloc(page.count + 1, sizeof(*list));
    int code = volumes && entries && list ? CSI_OK : csi_fail(call, CSI_INTERNAL, "out of memory");
    for (size_t i = 0; i < page.count && code == CSI_OK; i++) {
        csi__v1__volume__init(&volumes[i]);
        csi__v1__list_volumes_response__entry__init(&entries[i]);
        volumes[i].volume_id = page.entries[i].id;
        volumes[i].capacity_bytes = page.entries[i].size;
        entries[i].volume = &volumes[i];
        list[i] = &entries[i];
    }
    reply.n_entries = page.count;
    reply.entries = list;
    if (page.next)
        reply.next_token = page.next;
    if (code == CSI_OK)
        code = csi_reply(call, &reply.base);
    free(volumes);
    free(entries);
    free(list);
    registry_page_done(&page);
    return code;
}

static int get_capacity(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    const Csi__V1__GetCapacityRequest *r = (const void *)request;
    Csi__V1__GetCapacityResponse reply = CSI__V1__GET_CAPACITY_RESPONSE__INIT;
    struct source source = {0};
    struct statvfs st;
    reply.available_capacity = STORE_CAPACITY;
    if (source_in_pairs(r->n_parameters, r->parameters)) {
        int code = source_from_pairs(call, r->n_parameters, r->parameters, csi->config.allow_file,
                                     &source);
        if (code != CSI_OK)
            return code;
        if (source.kind == SOURCE_FILE && statvfs(source.url + strlen("file://"), &st) == 0)
            reply.available_capacity = (int64_t)st.f_bavail * (int64_t)st.f_frsize;
        for (size_t i = 0; i < r->n_volume_capabilities && code == CSI_OK; i++) {
            code = check_capability(call, r->volume_capabilities[i]);
            if (code == CSI_OK && source_allows(call, &source, r->volume_capabilities[i]) != CSI_OK)
                reply.available_capacity = 0;
        }
        source_done(&source);
        if (code != CSI_OK)
            return code;
    }
    return csi_reply(call, &reply.base);
}

static int expand_volume(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    const Csi__V1__ControllerExpandVolumeRequest *r = (const void *)request;
    Csi__V1__ControllerExpandVolumeResponse reply =
        CSI__V1__CONTROLLER_EXPAND_VOLUME_RESPONSE__INIT;
    char size_word[40];
    int64_t size = 0, limit = r->capacity_range ? r->capacity_range->limit_bytes : 0;
    int code = check_id(call, "volume_id", r->volume_id);
    if (code == CSI_OK && !r->capacity_range)
        code = csi_fail(call, CSI_INVALID_ARGUMENT, "capacity_range is missing");
    if (code == CSI_OK)
        code = check_capacity(call, r->capacity_range, 0, &size);
    if (code == CSI_OK && !size)
        code = csi_fail(call, CSI_INVALID_ARGUMENT, "required_bytes is missing");
    if (code != CSI_OK)
        return code;
    snprintf(size_word, sizeof(size_word), "--size=%" PRId64, size);
    const char *words[] = {"--resize", size_word, NULL};
    bool on_node = true;
    code = frame_enter(csi, call, r->volume_id);
    if (code != CSI_OK)
        return code;
    code = find_record(csi, call, r->volume_id, r->n_secrets, r->secrets, words, &size, &on_node);
    frame_leave(csi, r->volume_id);
    if (code == CSI_OK && limit && size > limit)
        code = csi_fail(call, CSI_OUT_OF_RANGE,
                        "the volume has %" PRId64 " bytes already, more than limit_bytes", size);
    if (code != CSI_OK)
        return code;
    registry_put(csi->registry, r->volume_id, size);
    reply.capacity_bytes = size;
    reply.node_expansion_required = on_node;
    return csi_reply(call, &reply.base);
}

static int get_capabilities(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
#define RPC_TYPE(name) CSI__V1__CONTROLLER_SERVICE_CAPABILITY__RPC__TYPE__##name
    static const Csi__V1__ControllerServiceCapability__RPC__Type types[] = {
        RPC_TYPE(CREATE_DELETE_VOLUME), RPC_TYPE(LIST_VOLUMES), RPC_TYPE(GET_CAPACITY),
        RPC_TYPE(EXPAND_VOLUME), RPC_TYPE(SINGLE_NODE_MULTI_WRITER)};
#undef RPC_TYPE
    Csi__V1__ControllerGetCapabilitiesResponse reply =
        CSI__V1__CONTROLLER_GET_CAPABILITIES_RESPONSE__INIT;
    Csi__V1__ControllerServiceCapability entries[ARRAY_LEN(types)], *list[ARRAY_LEN(types)];
    Csi__V1__ControllerServiceCapability__RPC rpcs[ARRAY_LEN(types)];
    (void)csi;
    (void)request;
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        csi__v1__controller_service_capability__rpc__init(&rpcs[i]);
        csi__v1__controller_service_capability__init(&entries[i]);
        rpcs[i].type = types[i];
        entries[i].type_case = CSI__V1__CONTROLLER_SERVICE_CAPABILITY__TYPE_RPC;
        entries[i].rpc = &rpcs[i];
        list[i] = &entries[i];
    }
    reply.capabilities = list;
    reply.n_capabilities = ARRAY_LEN(list);
    return csi_reply(call, &reply.base);
}

const struct csi_method csi_controller_methods[] = {
    CSI_METHOD(csi__v1__controller__descriptor, "CreateVolume", create_volume),
    CSI_METHOD(csi__v1__controller__descriptor, "DeleteVolume", delete_volume),
    CSI_METHOD(csi__v1__controller__descriptor, "ValidateVolumeCapabilities", validate),
    CSI_METHOD(csi__v1__controller__descriptor, "ListVolumes", list_volumes),
    CSI_METHOD(csi__v1__controller__descriptor, "GetCapacity", get_capacity),
    CSI_METHOD(csi__v1__controller__descriptor, "ControllerExpandVolume", expand_volume),
    CSI_METHOD(csi__v1__controller__descriptor, "ControllerGetCapabilities", get_capabilities),
    {0},
};
