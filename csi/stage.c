#include "stage.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "busy.h"
#include "control.h"
#include "daemons.h"
#include "frame.h"
#include "mounts.h"
#include "records.h"
#include "token.h"

#define END_BY_ITSELF_MS                                                                           \
    1000                   /* an unmounted daemon ends; one that others still see is asked to      \
                            */
#define LEASE_MS 90000     /* of an owner's record in a bucket */
#define KEEP_S (7 * 86400) /* metadata of a volume that is not mounted here any more */
#define GC_STILL_MS 20000  /* no object was deleted for so long: they cannot be */
#define GC_POLL_US 50000

/* The id of the metadata of a mount, NULL if it has none of its own. */
static char *ask_owner(const char *staging)
{
    const char *id = NULL;
    json_t *json = control_ask(staging, "{\"op\":\"status\"}");
    int read_only = 1;
    json_unpack(json, "{s:{s:b},s:{s:{s:s}}}", "mount", "read_only", &read_only, "volume", "volume",
                "id", &id);
    char *copy = id && !read_only ? strdup(id) : NULL;
    json_decref(json);
    return copy;
}

/* The metadata on this host is of an older owner: another node has had the volume since. If all of
 * it was in the bucket then it goes; otherwise it is kept aside, for a person to look at. */
static int drop_old_metadata(struct csi_call *call, const char *dir, const struct record *record)
{
    cleanup(free_ptr) char *meta = NULL;
    cleanup(free_ptr) char *aside = NULL;
    if (asprintf(&meta, "%s/meta", dir) < 0 ||
        asprintf(&aside, "%s/meta.unsettled-%lu", dir,
                 (unsigned long)(clock_wall_ns() / NS_PER_S)) < 0)
        return csi_fail(call, CSI_INTERNAL, "out of memory");
    int r = 0;
    if (record->clean)
        r = records_remove(meta);
    else if (rename(meta, aside) < 0 && errno != ENOENT)
        r = -errno;
    if (r < 0)
        return csi_fail(call, CSI_INTERNAL, "%s: %s", meta, strerror(-r));
    log_info("metadata of an earlier owner was put away", "directory=%s kept=%s", dir,
             record->clean ? "no" : aside);
    return CSI_OK;
}

static int check_take_over(struct csi_call *call, json_t *owner)
{
    uint64_t renewed_ms =
        (uint64_t)json_integer_value(json_object_get(owner, "renewed_ns")) / NS_PER_MS;
    uint64_t now_ms = clock_wall_ns() / NS_PER_MS;
    if (!json_is_true(json_object_get(owner, "held")) || now_ms > renewed_ms + LEASE_MS)
        return CSI_OK;
    const char *who = json_string_value(json_object_get(owner, "owner"));
    return csi_fail(
        call, CSI_FAILED_PRECONDITION,
        "the volume is held by %s, which renewed that within the last 90 s; take-over is "
        "for a holder that is gone",
        who ? who : "another node");
}

/* What the bucket says of the volume. */
struct bucket_state {
    bool moved;   /* somebody else had it last; or it was here, and the metadata is lost */
    int64_t size; /* 0: it has no record */
};

/* Asks the bucket whose the volume was last, and puts metadata away that is of before that. */
static int compare_owner(struct csi *csi, struct csi_call *call, const struct stage *stage,
                         const char *dir, struct record *record, struct bucket_state *out)
{
    static const char *const show[] = {NULL};
    json_t *reply = NULL;
    int code = launch_prefix(csi, call, &stage->launch, show, &reply);
    if (code != CSI_OK)
        return code;
    json_t *owner = json_object_get(reply, "owner"), *volume = json_object_get(reply, "record");
    const char *last = json_string_value(json_object_get(owner, "volume"));
    out->size = json_integer_value(json_object_get(volume, "size"));
    if (stage->launch.source->managed && !json_is_object(volume))
        code = csi_fail(call, CSI_NOT_FOUND, "there is no volume at %s any more",
                        stage->launch.source->url);
    if (code == CSI_OK && stage->launch.source->take_over)
        code = check_take_over(call, owner);
    if (code == CSI_OK && record->owner && (!last || strcmp(last, record->owner) != 0)) {
        code = drop_old_metadata(call, dir, record);
        free(record->owner);
        record->owner = NULL;
    }
    out->moved = last && !record->owner;
    json_decref(reply);
    return code;
}

/* A directory of a service that was made by this driver must still be that. */
static int check_record(struct csi *csi, struct csi_call *call, const struct stage *stage)
{
    static const char *const show[] = {NULL};
    const struct source *source = stage->launch.source;
    json_t *reply = NULL;
    if (!source->managed || !source_is_made(source))
        return CSI_OK;
    int code = launch_prefix(csi, call, &stage->launch, show, &reply);
    if (code == CSI_OK && !json_is_object(json_object_get(reply, "record")))
        code = csi_fail(call, CSI_NOT_FOUND, "there is no volume at %s any more", source->url);
    json_decref(reply);
    return code;
}

/* A mount that finds no metadata lists the bucket as it goes. One whose volume was in use elsewhere
 * has more there than a listing tells. */
static int prepare_metadata(struct csi *csi, struct csi_call *call, const struct stage *stage,
                            const char *dir, const struct bucket_state *state)
{
    cleanup(free_ptr) char *database = NULL;
    cleanup(free_ptr) char *begun = NULL;
    if (asprintf(&database, "%s/meta/db", dir) < 0 || asprintf(&begun, "%s/meta/rebuild", dir) < 0)
        return csi_fail(call, CSI_INTERNAL, "out of memory");
    bool there = access(database, F_OK) == 0 && access(begun, F_OK) < 0;
    if (!state->moved || there || stage->launch.source->import_only)
        return CSI_OK;
    return launch_rebuild(csi, call, &stage->launch, dir);
}

/* A mount whose process is gone, wherever it is seen: nothing else would take away those of pods.
 * -errno of the last one that stayed. */
static int take_away(const struct mount_table *table, const struct mount_entry *dead)
{
    int result = 0;
    for (size_t i = table->count; i > 0; i--) {
        const struct mount_entry *e = &table->entries[i - 1];
        struct error error = {0};
        if (strcmp(e->device, dead->device) != 0)
            continue;
        int r = mounts_unmount(e->mountpoint, true, &error);
        log_warn("took away a mount whose process is gone", "path=%s result=%s", e->mountpoint,
                 r < 0 ? error_text(&error) : "ok");
        result = r < 0 ? r : result;
    }
    return result;
}

/* 1: it is mounted as it should be; 0: nothing is there (any more). */
static int look_at(struct csi_call *call, const struct stage *stage, int *mounted)
{
    struct mount_table table;
    int code = CSI_OK;
    *mounted = 0;
    if (mounts_read(&table) < 0)
        return csi_fail(call, CSI_INTERNAL, "the table of mounts cannot be read");
    const struct mount_entry *entry = mounts_at(&table, stage->staging);
    if (entry && !mounts_is_sluice(entry)) {
        code = csi_fail(call, CSI_FAILED_PRECONDITION, "%s is a mount of something else (%s)",
                        stage->staging, entry->type);
    } else if (entry && !mounts_alive(stage->staging)) {
        if (take_away(&table, entry) < 0)
            code = csi_fail(call, CSI_INTERNAL, "a dead mount at %s cannot be taken away",
                            stage->staging);
    } else if (entry && strcmp(entry->source, stage->launch.source->url) != 0) {
        code = csi_fail(call, CSI_ALREADY_EXISTS, "%s is mounted there already", entry->source);
    } else if (entry) {
        *mounted = 1;
    }
    mounts_done(&table);
    return code;
}

/* The kubelet's fsGroup: the root's group may write, and what is made below inherits the group. */
static int give_to_group(struct csi_call *call, const struct stage *stage)
{
    struct stat st;
    char *end = NULL;
    if (!stage->group || !*stage->group || stage->launch.source->read_only)
        return CSI_OK;
    errno = 0;
    unsigned long gid = strtoul(stage->group, &end, 10);
    if (*end || errno || gid >= UINT32_MAX || !strchr("0123456789", stage->group[0]))
        return csi_fail(call, CSI_INVALID_ARGUMENT,
                        "volume_mount_group must be a number, not '%.40s'", stage->group);
    cleanup(close_fd) int fd = mounts_open_below(stage->staging, stage->launch.source->directory);
    if (fd < 0)
        return csi_fail(call, fd == -ENOENT ? CSI_NOT_FOUND : CSI_FAILED_PRECONDITION,
                        "the directory of the volume: %s", strerror(-fd));
    if (fstat(fd, &st) < 0 || (st.st_gid != gid && fchown(fd, (uid_t)-1, (gid_t)gid) < 0) ||
        fchmod(fd, (st.st_mode & 07777) | 02070) < 0)
        return csi_fail(call, CSI_INTERNAL, "setting the group of %s: %s", stage->staging,
                        strerror(errno));
    return CSI_OK;
}

/* A start that failed or took too long must leave no process behind: killed, it loses nothing that
 * was acknowledged. */
static void undo(const struct stage *stage)
{
    struct daemons daemons;
    daemons_find(stage->staging, &daemons);
    daemons_signal(&daemons, SIGKILL);
    daemons_done(&daemons);
    mounts_unmount(stage->staging, true, NULL);
}

static int save(struct csi_call *call, const char *dir, const struct record *record)
{
    struct error error = {0};
    return record_save(dir, record, &error) < 0 ? frame_fail_io(call, &error) : CSI_OK;
}

static int start_daemon(struct csi *csi, struct csi_call *call, const struct stage *stage,
                        const char *dir, struct record *record)
{
    const struct source *source = stage->launch.source;
    struct bucket_state state = {0};
    int code = CSI_OK;
    if (source->kind == SOURCE_SERVICE)
        code = check_record(csi, call, stage);
    else if (!source->read_only)
        code = compare_owner(csi, call, stage, dir, record, &state);
    if (code == CSI_OK)
        code = prepare_metadata(csi, call, stage, dir, &state);
    if (code != CSI_OK)
        return code;
    free(record->volume_id);
    free(record->staging);
    record->volume_id = strdup(stage->volume_id);
    record->staging = strdup(stage->staging);
    record->clean = false;
    record->unstaged_s = 0;
    code = save(call, dir, record);
    if (code == CSI_OK)
        code = launch_mount(csi, call, &stage->launch, stage->staging, dir);
    if (code == CSI_OK && state.size && control_set_quota(stage->staging, state.size) < 0)
        code = csi_fail(call, CSI_INTERNAL, "the size of the volume could not be set");
    if (code != CSI_OK) {
        undo(stage);
        return code;
    }
    free(record->owner);
    record->owner = ask_owner(stage->staging);
    return save(call, dir, record);
}

int stage_up(struct csi *csi, struct csi_call *call, const struct stage *stage)
{
    struct error error = {0};
    struct record record = {0};
    struct daemons daemons;
    int mounted = 0, code = look_at(call, stage, &mounted);
    if (code != CSI_OK || mounted)
        return code == CSI_OK ? give_to_group(call, stage) : code;
    /* A daemon without a mount: one that is ending, or whose start nobody waited for. */
    daemons_find(stage->staging, &daemons);
    daemons_signal(&daemons, SIGTERM);
    bool ended = daemons_wait(&daemons, csi_time_left_ms(call), call);
    daemons_done(&daemons);
    if (!ended)
        return csi_fail_late(call, "an earlier mount of the volume has not ended");
    cleanup(free_ptr) char *dir = records_dir(csi->config.state_dir, stage->volume_id);
    if (!dir)
        return csi_fail(call, CSI_INTERNAL, "out of memory");
    if (mounts_make_target(stage->staging, &error) < 0 || records_make(dir, &error) < 0)
        return frame_fail_io(call, &error);
    record_load(dir, &record);
    code = start_daemon(csi, call, stage, dir, &record);
    record_done(&record);
    if (code == CSI_OK)
        code = give_to_group(call, stage);
    return code;
}

/* Another place where the same filesystem is mounted, or NULL. */
static const struct mount_entry *other_place(const struct mount_table *table,
                                             const struct mount_entry *entry)
{
    for (size_t i = 0; i < table->count; i++)
        if (strcmp(table->entries[i].device, entry->device) == 0 &&
            strcmp(table->entries[i].mountpoint, entry->mountpoint) != 0)
            return &table->entries[i];
    return NULL;
}

/* Deleted and renamed files are objects until gc has been there: another node would see them as
 * files. *clean: there are none any more. */
static int wait_for_gc(struct csi_call *call, const char *staging, bool *clean)
{
    json_int_t before = -1;
    uint64_t since_ms = clock_monotonic_ms();
    for (*clean = false; !*clean; usleep(GC_POLL_US)) {
        json_t *drift = control_ask(staging, "{\"op\":\"drift\"}");
        json_t *garbage = json_object_get(drift, "garbage_objects");
        bool known = json_is_integer(garbage);
        json_int_t now = json_integer_value(garbage);
        json_decref(drift);
        if (!known || (now == before && clock_monotonic_ms() - since_ms > GC_STILL_MS)) {
            log_warn("deleted files are still in the bucket", "path=%s objects=%lld", staging,
                     (long long)now);
            return CSI_OK;
        }
        if (now != before)
            since_ms = clock_monotonic_ms();
        before = now;
        *clean = now == 0;
        if (!*clean && !csi_time_left_ms(call))
            return csi_fail_late(call, "deleted files are still in the bucket");
    }
    return CSI_OK;
}

/* The bucket as another node would find it is the volume as this one has it. */
static int bring_to_bucket(struct csi *csi, struct csi_call *call, const char *staging, bool *clean)
{
    bool settled = false;
    int code = launch_settle(csi, call, staging, &settled);
    if (code == CSI_OK)
        code = wait_for_gc(call, staging, clean);
    *clean = *clean && settled;
    return code;
}

static int unmount_staging(struct csi *csi, struct csi_call *call, const char *staging,
                           bool *settled)
{
    struct mount_table table;
    struct error error = {0};
    int code = CSI_OK;
    *settled = false;
    if (mounts_read(&table) < 0)
        return csi_fail(call, CSI_INTERNAL, "the table of mounts cannot be read");
    const struct mount_entry *entry = mounts_at(&table, staging);
    const struct mount_entry *other = entry ? other_place(&table, entry) : NULL;
    bool alive = entry && mounts_is_sluice(entry) && mounts_alive(staging);
    if (!entry)
        goto out;
    if (!mounts_is_sluice(entry))
        code = csi_fail(call, CSI_FAILED_PRECONDITION, "%s is a mount of something else (%s)",
                        staging, entry->type);
    else if (other && alive)
        code = csi_fail(call, CSI_FAILED_PRECONDITION, "the volume is still published at %s",
                        other->mountpoint);
    else if (alive && !entry->read_only && !mounts_is_of_service(entry))
        code = bring_to_bucket(csi, call, staging, settled);
    else
        *settled = alive; /* what a service has, it settles itself */
    if (code == CSI_OK && mounts_unmount(staging, !alive, &error) < 0)
        code = frame_fail_io(call, &error);
out:
    mounts_done(&table);
    return code;
}

static void record_end(const char *dir, bool settled, bool forget)
{
    struct record record = {0};
    if (record_load(dir, &record) == 0) {
        bool nothing_here = !record.owner; /* a read-only mount, or one that never was */
        record.clean = settled || record.clean;
        free(record.staging);
        record.staging = NULL;
        if (!record.unstaged_s)
            record.unstaged_s = (int64_t)(clock_wall_ns() / NS_PER_S);
        if ((forget && record.clean) || (nothing_here && settled))
            records_remove(dir);
        else
            record_save(dir, &record, NULL);
    }
    record_done(&record);
}

int stage_down(struct csi *csi, struct csi_call *call, const char *volume_id, const char *staging,
               bool forget)
{
    struct daemons daemons;
    bool settled = false;
    cleanup(free_ptr) char *dir = records_dir(csi->config.state_dir, volume_id);
    if (!dir)
        return csi_fail(call, CSI_INTERNAL, "out of memory");
    daemons_find(staging, &daemons);
    int code = unmount_staging(csi, call, staging, &settled);
    if (code == CSI_OK && !daemons_wait(&daemons, END_BY_ITSELF_MS, call)) {
        daemons_signal(&daemons, SIGTERM);
        if (!daemons_wait(&daemons, csi_time_left_ms(call), call))
            code = csi_fail_late(call, "what was written is on its way to the bucket");
    }
    daemons_done(&daemons);
    if (code == CSI_OK) {
        token_forget(dir);
        record_end(dir, settled, forget);
    }
    return code;
}

static void adopt(void *arg, const char *staging, const char *meta_dir)
{
    struct csi *csi = arg;
    struct record record = {0};
    const char *slash = strrchr(meta_dir, '/'), *base = csi->config.state_dir;
    cleanup(free_ptr) char *dir = slash ? strndup(meta_dir, (size_t)(slash - meta_dir)) : NULL;
    if (!dir || strncmp(dir, base, strlen(base)) != 0 || dir[strlen(base)] != '/')
        return; /* a mount of somebody else */
    if (record_load(dir, &record) < 0 || !record.owner) {
        free(record.staging);
        record.staging = strdup(staging);
        record.owner = ask_owner(staging);
        record.clean = false;
        if (record_save(dir, &record, NULL) == 0)
            log_info("noted a running mount", "path=%s", staging);
    }
    record_done(&record);
}

static void clean_staging(const struct record *record)
{
    struct mount_table table;
    if (mounts_read(&table) < 0)
        return;
    const struct mount_entry *entry = mounts_at(&table, record->staging);
    if (entry && mounts_is_sluice(entry) && !mounts_alive(record->staging))
        take_away(&table, entry);
    mounts_done(&table);
}

static void clean_dead(void *arg, const char *dir, struct record *record)
{
    struct csi *csi = arg;
    const char *key = record->volume_id ? record->volume_id : dir;
    if (!record->staging || !busy_enter(csi->busy, key))
        return;
    clean_staging(record);
    busy_leave(csi->busy, key);
}

static void expire(void *arg, const char *dir, struct record *record)
{
    int64_t now_s = (int64_t)(clock_wall_ns() / NS_PER_S);
    struct csi *csi = arg;
    if (record->staging || !record->clean || !record->unstaged_s || !record->volume_id ||
        record->unstaged_s + KEEP_S > now_s || !busy_enter(csi->busy, record->volume_id))
        return;
    log_info("a volume was not used here for long: its metadata goes", "directory=%s", dir);
    records_remove(dir);
    busy_leave(csi->busy, record->volume_id);
}

void stage_clean_up(struct csi *csi)
{
    daemons_each(adopt, csi);
    records_each(csi->config.state_dir, clean_dead, csi);
    records_each(csi->config.state_dir, expire, csi);
}
