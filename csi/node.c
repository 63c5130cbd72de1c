/* The Node service: requests checked, then stage.h and mounts.h do the work. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "check.h"
#include "control.h"
#include "csi.pb-c.h"
#include "driver.h"
#include "frame.h"
#include "mounts.h"
#include "records.h"
#include "stage.h"
#include "token.h"

/* The kubelet finds out whether a node has SELinux, and gives a context to those that do. */
static int check_context(struct csi_call *call, const struct source *source)
{
    char line[64];
    bool there = !source->selinux_context;
    FILE *file = there ? NULL : fopen("/proc/filesystems", "re");
    while (file && !there && fgets(line, sizeof(line), file))
        there = strstr(line, "selinuxfs") != NULL;
    if (file)
        fclose(file);
    return there ? CSI_OK
                 : csi_fail(call, CSI_INVALID_ARGUMENT,
                            "context= cannot be given to a mount: this node has no SELinux");
}

/* What is mounted, by the context or the id, with the options of the capability. */
static int find_source(struct csi *csi, struct csi_call *call, const char *id, size_t count,
                       Csi__V1__Pair *const *context, const Csi__V1__VolumeCapability *capability,
                       struct source *out)
{
    bool file = csi->config.allow_file;
    int code = source_in_pairs(count, context) ? source_from_pairs(call, count, context, file, out)
                                               : source_from_id(call, id, file, out);
    if (code != CSI_OK)
        return code;
    code = source_add_flags(call, out, capability->mount->n_mount_flags,
                            capability->mount->mount_flags);
    if (code == CSI_OK)
        code = source_allows(call, out, capability);
    if (code == CSI_OK)
        code = check_context(call, out);
    if (mode_is_read_only(capability))
        out->read_only = true;
    if (code != CSI_OK)
        source_done(out);
    return code;
}

static int stage_volume(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    const Csi__V1__NodeStageVolumeRequest *r = (const void *)request;
    Csi__V1__NodeStageVolumeResponse reply = CSI__V1__NODE_STAGE_VOLUME_RESPONSE__INIT;
    struct source source;
    int code = check_id(call, "volume_id", r->volume_id);
    if (code == CSI_OK)
        code = check_path(call, "staging_target_path", r->staging_target_path);
    if (code == CSI_OK)
        code = check_capability(call, r->volume_capability);
    if (code == CSI_OK)
        code = find_source(csi, call, r->volume_id, r->n_volume_context, r->volume_context,
                           r->volume_capability, &source);
    if (code != CSI_OK)
        return code;
    struct stage stage = {
        .volume_id = r->volume_id,
        .staging = r->staging_target_path,
        .launch = {.source = &source, .secret_count = r->n_secrets, .secrets = r->secrets},
        .group = r->volume_capability->mount->volume_mount_group,
    };
    code = frame_enter(csi, call, r->volume_id);
    if (code == CSI_OK) {
        /* The identity of a pod comes with Publish: then it is mounted. */
        code = source.pod_identity ? CSI_OK : stage_up(csi, call, &stage);
        frame_leave(csi, r->volume_id);
    }
    source_done(&source);
    return frame_end(call, code, &reply.base);
}

static int unstage_volume(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    const Csi__V1__NodeUnstageVolumeRequest *r = (const void *)request;
    Csi__V1__NodeUnstageVolumeResponse reply = CSI__V1__NODE_UNSTAGE_VOLUME_RESPONSE__INIT;
    int code = check_id(call, "volume_id", r->volume_id);
    if (code == CSI_OK)
        code = check_path(call, "staging_target_path", r->staging_target_path);
    if (code == CSI_OK)
        code = frame_enter(csi, call, r->volume_id);
    if (code != CSI_OK)
        return code;
    code = stage_down(csi, call, r->volume_id, r->staging_target_path, false);
    frame_leave(csi, r->volume_id);
    return frame_end(call, code, &reply.base);
}

/* Where the daemon of an inline volume is mounted: the kubelet gives no place for it. */
static char *inline_staging(const struct csi *csi, const char *volume_id)
{
    char *out = NULL;
    cleanup(free_ptr) char *dir = records_dir(csi->config.state_dir, volume_id);
    return dir && asprintf(&out, "%s/mnt", dir) >= 0 ? out : NULL;
}

static struct mount_flags flags_of(const Csi__V1__NodePublishVolumeRequest *r, bool read_only)
{
    struct mount_flags flags = {.read_only = read_only || r->readonly};
    for (size_t i = 0; i < r->volume_capability->mount->n_mount_flags; i++) {
        const char *flag = r->volume_capability->mount->mount_flags[i];
        flags.read_only = flags.read_only || strcmp(flag, "ro") == 0;
        flags.noexec = flags.noexec || strcmp(flag, "noexec") == 0;
        flags.noatime = flags.noatime || strcmp(flag, "noatime") == 0;
    }
    return flags;
}

static bool is_single_writer(const Csi__V1__VolumeCapability *c)
{
    return c->access_mode->mode ==
           CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__SINGLE_NODE_SINGLE_WRITER;
}

/* What is at the target now. CSI_OK: it may be bound, or (*there) it is already as it should be. */
static int look_at_target(struct csi_call *call, const struct mount_table *table,
                          const struct mount_entry *staged, const char *target,
                          const struct mount_flags *flags, bool single, bool *there)
{
    struct error error = {0};
    const struct mount_entry *entry = mounts_at(table, target);
    *there = false;
    for (size_t i = 0; single && i < table->count; i++) {
        const struct mount_entry *e = &table->entries[i];
        if (strcmp(e->device, staged->device) == 0 && e != staged &&
            strcmp(e->mountpoint, target) != 0 && strcmp(e->mountpoint, staged->mountpoint) != 0)
            return csi_fail(call, CSI_FAILED_PRECONDITION,
                            "the volume is for a single pod, and published at %s", e->mountpoint);
    }
    if (!entry)
        return CSI_OK;
    if (!mounts_is_sluice(entry))
        return csi_fail(call, CSI_ALREADY_EXISTS, "%s is a mount of something else (%s)", target,
                        entry->type);
    if (strcmp(entry->device, staged->device) == 0) {
        *there = entry->read_only == (flags->read_only || staged->read_only);
        return *there ? CSI_OK
                      : csi_fail(call, CSI_ALREADY_EXISTS,
                                 "the volume is published at %s with other options", target);
    }
    if (mounts_alive(target))
        return csi_fail(call, CSI_ALREADY_EXISTS, "%s is published there already", entry->source);
    return mounts_unmount(target, true, &error) < 0 ? frame_fail_io(call, &error) : CSI_OK;
}

static int bind_target(struct csi_call *call, const Csi__V1__NodePublishVolumeRequest *r,
                       const struct source *source, const char *staging)
{
    struct mount_table table;
    struct error error = {0};
    struct mount_flags flags = flags_of(r, source->read_only);
    bool there = false;
    if (mounts_read(&table) < 0)
        return csi_fail(call, CSI_INTERNAL, "the table of mounts cannot be read");
    const struct mount_entry *staged = mounts_at(&table, staging);
    int code = CSI_OK;
    if (!mounts_is_sluice(staged) || !mounts_alive(staging))
        code = csi_fail(call, CSI_FAILED_PRECONDITION, "the volume is not staged at %s", staging);
    else
        code = look_at_target(call, &table, staged, r->target_path, &flags,
                              is_single_writer(r->volume_capability), &there);
    mounts_done(&table);
    if (code != CSI_OK || there)
        return code;
    if (mounts_make_target(r->target_path, &error) < 0 ||
        mounts_bind(staging, source->directory, r->target_path, &flags, &error) < 0)
        return frame_fail_io(call, &error);
    return CSI_OK;
}

/* Mounts at Publish what was not at Stage, or is not any more. */
static int mount_late(struct csi *csi, struct csi_call *call,
                      const Csi__V1__NodePublishVolumeRequest *r, const struct source *source,
                      const char *staging, bool ephemeral)
{
    cleanup(free_ptr) char *dir = records_dir(csi->config.state_dir, r->volume_id);
    cleanup(free_ptr) char *token_file = NULL;
    struct error error = {0};
    if (!dir)
        return csi_fail(call, CSI_INTERNAL, "out of memory");
    if (records_make(dir, &error) < 0)
        return frame_fail_io(call, &error);
    if (source->pod_identity) {
        bool in_use = mounts_is_mounted(staging) != 0 && mounts_alive(staging);
        int code = token_store(call, r, source, dir, in_use);
        if (code != CSI_OK)
            return code;
        if (asprintf(&token_file, "%s/token", dir) < 0)
            return csi_fail(call, CSI_INTERNAL, "out of memory");
    }
    struct stage stage = {
        .volume_id = r->volume_id,
        .staging = staging,
        .launch = {.source = source,
                   .secret_count = r->n_secrets,
                   .secrets = r->secrets,
                   .token_file = token_file,
                   /* A pod's author does not get the driver's. */
                   .own_credentials = ephemeral || source->pod_identity},
        .group = r->volume_capability->mount->volume_mount_group,
    };
    return stage_up(csi, call, &stage);
}

/* It was staged, and its process has died: the kubelet, for which it is staged, calls only this. */
static bool was_staged(struct csi *csi, const char *volume_id, const char *staging)
{
    struct mount_table table;
    struct record record = {0};
    cleanup(free_ptr) char *dir = records_dir(csi->config.state_dir, volume_id);
    if (!dir || mounts_read(&table) < 0)
        return false;
    const struct mount_entry *entry = mounts_at(&table, staging);
    bool gone = !entry || (mounts_is_sluice(entry) && !mounts_alive(staging));
    mounts_done(&table);
    bool was = gone && record_load(dir, &record) == 0 && record.volume_id && record.staging &&
               strcmp(record.volume_id, volume_id) == 0 && strcmp(record.staging, staging) == 0;
    record_done(&record);
    return was;
}

/* An inline volume has no other call; the identity of a pod comes only now, with each repetition a
 * newer token. */
static int publish(struct csi *csi, struct csi_call *call,
                   const Csi__V1__NodePublishVolumeRequest *r, const struct source *source,
                   bool ephemeral)
{
    cleanup(free_ptr) char *staging =
        ephemeral ? inline_staging(csi, r->volume_id) : strdup(r->staging_target_path);
    if (!staging)
        return csi_fail(call, CSI_INTERNAL, "out of memory");
    int code = CSI_OK;
    bool again = !ephemeral && !source->pod_identity && was_staged(csi, r->volume_id, staging);
    if (ephemeral || source->pod_identity || again)
        code = mount_late(csi, call, r, source, staging, ephemeral);
    if (again && code == CSI_PERMISSION_DENIED && !r->n_secrets)
        return csi_fail(call, CSI_FAILED_PRECONDITION,
                        "the volume is not staged at %s any more, and without a Secret for Publish "
                        "it cannot be mounted again",
                        staging);
    return code == CSI_OK ? bind_target(call, r, source, staging) : code;
}

static int publish_volume(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    const Csi__V1__NodePublishVolumeRequest *r = (const void *)request;
    Csi__V1__NodePublishVolumeResponse reply = CSI__V1__NODE_PUBLISH_VOLUME_RESPONSE__INIT;
    const char *kind =
        pair_value(r->n_volume_context, r->volume_context, "csi.storage.k8s.io/ephemeral");
    bool ephemeral = kind && strcmp(kind, "true") == 0;
    struct source source;
    int code = check_id(call, "volume_id", r->volume_id);
    if (code == CSI_OK)
        code = check_path(call, "target_path", r->target_path);
    if (code == CSI_OK)
        code = check_capability(call, r->volume_capability);
    if (code == CSI_OK && !ephemeral)
        code = check_path(call, "staging_target_path", r->staging_target_path);
    if (code == CSI_OK)
        code = find_source(csi, call, r->volume_id, r->n_volume_context, r->volume_context,
                           r->volume_capability, &source);
    if (code != CSI_OK)
        return code;
    code = frame_enter(csi, call, r->volume_id);
    if (code == CSI_OK) {
        code = publish(csi, call, r, &source, ephemeral);
        frame_leave(csi, r->volume_id);
    }
    source_done(&source);
    return frame_end(call, code, &reply.base);
}

static int unpublish(struct csi *csi, struct csi_call *call, const char *volume_id,
                     const char *target)
{
    struct mount_table table;
    struct error error = {0};
    cleanup(free_ptr) char *staging = inline_staging(csi, volume_id);
    if (!staging || mounts_read(&table) < 0)
        return csi_fail(call, CSI_INTERNAL, "the table of mounts cannot be read");
    const struct mount_entry *entry = mounts_at(&table, target);
    bool foreign = entry && !mounts_is_sluice(entry),
         dead = entry && !foreign && !mounts_alive(target);
    bool is_inline = mounts_at(&table, staging) != NULL;
    mounts_done(&table);
    if (foreign)
        return csi_fail(call, CSI_FAILED_PRECONDITION, "%s is a mount of something else", target);
    if ((entry && mounts_unmount(target, dead, &error) < 0) ||
        mounts_remove_target(target, &error) < 0)
        return frame_fail_io(call, &error);
    return is_inline ? stage_down(csi, call, volume_id, staging, true) : CSI_OK;
}

static int unpublish_volume(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    const Csi__V1__NodeUnpublishVolumeRequest *r = (const void *)request;
    Csi__V1__NodeUnpublishVolumeResponse reply = CSI__V1__NODE_UNPUBLISH_VOLUME_RESPONSE__INIT;
    int code = check_id(call, "volume_id", r->volume_id);
    if (code == CSI_OK)
        code = check_path(call, "target_path", r->target_path);
    if (code == CSI_OK)
        code = frame_enter(csi, call, r->volume_id);
    if (code != CSI_OK)
        return code;
    code = unpublish(csi, call, r->volume_id, r->target_path);
    frame_leave(csi, r->volume_id);
    return frame_end(call, code, &reply.base);
}

/* CSI_OK: a mount of ours is at the path (*alive tells whether it answers). */
static int find_volume(struct csi_call *call, const char *path, bool *alive, bool *of_service)
{
    struct mount_table table;
    if (mounts_read(&table) < 0)
        return csi_fail(call, CSI_INTERNAL, "the table of mounts cannot be read");
    bool found = mounts_is_sluice(mounts_at(&table, path));
    *of_service = mounts_is_of_service(mounts_at(&table, path));
    mounts_done(&table);
    if (!found)
        return csi_fail(call, CSI_NOT_FOUND, "there is no volume of this driver at %.300s", path);
    *alive = mounts_alive(path);
    return CSI_OK;
}

static int answer_stats(struct csi_call *call, const char *path, bool alive)
{
    Csi__V1__NodeGetVolumeStatsResponse reply = CSI__V1__NODE_GET_VOLUME_STATS_RESPONSE__INIT;
    Csi__V1__VolumeUsage bytes = CSI__V1__VOLUME_USAGE__INIT, inodes = CSI__V1__VOLUME_USAGE__INIT;
    Csi__V1__VolumeUsage *usage[] = {&bytes, &inodes};
    Csi__V1__VolumeCondition condition = CSI__V1__VOLUME_CONDITION__INIT;
    struct statvfs st = {0};
    if (alive && statvfs(path, &st) < 0)
        return csi_fail(call, CSI_INTERNAL, "%s: %s", path, strerror(errno));
    int64_t unit = (int64_t)st.f_frsize;
    bytes.unit = CSI__V1__VOLUME_USAGE__UNIT__BYTES;
    bytes.total = (int64_t)st.f_blocks * unit;
    bytes.available = (int64_t)st.f_bavail * unit;
    bytes.used = (int64_t)(st.f_blocks - st.f_bfree) * unit;
    inodes.unit = CSI__V1__VOLUME_USAGE__UNIT__INODES;
    inodes.total = (int64_t)st.f_files;
    inodes.available = (int64_t)st.f_favail;
    inodes.used = (int64_t)(st.f_files - st.f_ffree);
    condition.abnormal = !alive;
    condition.message =
        (char *)(alive ? "the mount answers"
                       : "the mount's process is gone; pods that use the volume must "
                         "be started anew");
    reply.usage = usage;
    reply.n_usage = ARRAY_LEN(usage);
    reply.volume_condition = &condition;
    return csi_reply(call, &reply.base);
}

static int get_volume_stats(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    const Csi__V1__NodeGetVolumeStatsRequest *r = (const void *)request;
    bool alive = false, of_service = false;
    int code = check_id(call, "volume_id", r->volume_id);
    if (code == CSI_OK && !*r->volume_path)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "volume_path is missing");
    if (code == CSI_OK)
        code = frame_enter(csi, call, r->volume_id);
    if (code != CSI_OK)
        return code;
    code = find_volume(call, r->volume_path, &alive, &of_service);
    if (code == CSI_OK)
        code = answer_stats(call, r->volume_path, alive);
    frame_leave(csi, r->volume_id);
    return code;
}

/* The size is a quota on the volume's root. It is in the volume's record too, for the next Stage.
 */
static int expand_volume(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    const Csi__V1__NodeExpandVolumeRequest *r = (const void *)request;
    Csi__V1__NodeExpandVolumeResponse reply = CSI__V1__NODE_EXPAND_VOLUME_RESPONSE__INIT;
    bool alive = false, of_service = false;
    int code = check_id(call, "volume_id", r->volume_id);
    if (code == CSI_OK && !*r->volume_path)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "volume_path is missing");
    if (code == CSI_OK)
        code = check_capacity(call, r->capacity_range, 0, &reply.capacity_bytes);
    if (code == CSI_OK)
        code = frame_enter(csi, call, r->volume_id);
    if (code != CSI_OK)
        return code;
    code = find_volume(call, r->volume_path, &alive, &of_service);
    if (code == CSI_OK && reply.capacity_bytes && !of_service &&
        control_set_quota(r->volume_path, reply.capacity_bytes) < 0)
        code = csi_fail(call, CSI_INTERNAL, "the size of the volume could not be set");
    frame_leave(csi, r->volume_id);
    return frame_end(call, code, &reply.base);
}

static int get_capabilities(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
#define RPC_TYPE(name) CSI__V1__NODE_SERVICE_CAPABILITY__RPC__TYPE__##name
    static const Csi__V1__NodeServiceCapability__RPC__Type types[] = {
        RPC_TYPE(STAGE_UNSTAGE_VOLUME),
        RPC_TYPE(GET_VOLUME_STATS),
        RPC_TYPE(EXPAND_VOLUME),
        RPC_TYPE(VOLUME_CONDITION),
        RPC_TYPE(SINGLE_NODE_MULTI_WRITER),
        RPC_TYPE(VOLUME_MOUNT_GROUP)};
#undef RPC_TYPE
    Csi__V1__NodeGetCapabilitiesResponse reply = CSI__V1__NODE_GET_CAPABILITIES_RESPONSE__INIT;
    Csi__V1__NodeServiceCapability entries[ARRAY_LEN(types)], *list[ARRAY_LEN(types)];
    Csi__V1__NodeServiceCapability__RPC rpcs[ARRAY_LEN(types)];
    (void)csi;
    (void)request;
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        csi__v1__node_service_capability__rpc__init(&rpcs[i]);
        csi__v1__node_service_capability__init(&entries[i]);
        rpcs[i].type = types[i];
        entries[i].type_case = CSI__V1__NODE_SERVICE_CAPABILITY__TYPE_RPC;
        entries[i].rpc = &rpcs[i];
        list[i] = &entries[i];
    }
    reply.capabilities = list;
    reply.n_capabilities = ARRAY_LEN(list);
    return csi_reply(call, &reply.base);
}

static int get_info(struct csi *csi, struct csi_call *call, const ProtobufCMessage *request)
{
    Csi__V1__NodeGetInfoResponse reply = CSI__V1__NODE_GET_INFO_RESPONSE__INIT;
    Csi__V1__Topology topology = CSI__V1__TOPOLOGY__INIT;
    Csi__V1__Pair pair = CSI__V1__PAIR__INIT, *pairs[] = {&pair};
    char key[100];
    (void)request;
    snprintf(key, sizeof(key), "%s/node", csi->config.name);
    pair.key = key;
    pair.value = (char *)csi->config.node_id;
    topology.segments = pairs;
    topology.n_segments = 1;
    reply.node_id = (char *)csi->config.node_id;
    reply.max_volumes_per_node = csi->config.max_volumes;
    reply.accessible_topology = &topology;
    return csi_reply(call, &reply.base);
}

const struct csi_method csi_node_methods[] = {
    CSI_METHOD(csi__v1__node__descriptor, "NodeStageVolume", stage_volume),
    CSI_METHOD(csi__v1__node__descriptor, "NodeUnstageVolume", unstage_volume),
    CSI_METHOD(csi__v1__node__descriptor, "NodePublishVolume", publish_volume),
    CSI_METHOD(csi__v1__node__descriptor, "NodeUnpublishVolume", unpublish_volume),
    CSI_METHOD(csi__v1__node__descriptor, "NodeGetVolumeStats", get_volume_stats),
    CSI_METHOD(csi__v1__node__descriptor, "NodeExpandVolume", expand_volume),
    CSI_METHOD(csi__v1__node__descriptor, "NodeGetCapabilities", get_capabilities),
    CSI_METHOD(csi__v1__node__descriptor, "NodeGetInfo", get_info),
    {0},
};
