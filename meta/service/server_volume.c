/*
 * Volumes of the service: what their own threads changed (import, settle) is brought to the loop
 * thread and told to the sessions; inodes without a name stay as long as a session may use them;
 * what a restart left is tidied when all sessions came back or their leases are over.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "server_examine.h"
#include "server_locks.h"
#include "server_quota.h"

#define EVENTS_MAX 100000
#define STEP 256

/* Sets of numbers */

int id_set_add(struct id_entry **set, uint64_t id)
{
    struct id_entry *entry;
    HASH_FIND(hh, *set, &id, sizeof(id), entry);
    if (entry)
        return 0;
    entry = calloc(1, sizeof(*entry));
    if (!entry)
        return -ENOMEM;
    entry->id = id;
    HASH_ADD(hh, *set, id, sizeof(entry->id), entry);
    return 0;
}

bool id_set_remove(struct id_entry **set, uint64_t id)
{
    struct id_entry *entry;
    HASH_FIND(hh, *set, &id, sizeof(id), entry);
    if (!entry)
        return false;
    HASH_DEL(*set, entry);
    free(entry);
    return true;
}

/* Telling */

bool volume_tell(struct server_volume *volume, struct session *by, struct change *change,
                 enum wire_item_kind kind, uint64_t ino, const struct meta_name *name,
                 unsigned names)
{
    struct session *session, *next;
    bool told = false;
    uint64_t now = clock_monotonic_ms();
    DL_FOREACH_SAFE2(volume->caching, session, next, caching_next)
    {
        uint64_t sequence;
        if (session == by)
            continue;
        enum lease_answer found =
            lease_change(&session->lease, ino, names, now, session_batch(session),
                         session->confirmed, &sequence);
        if (found == LEASE_NOTHING)
            continue;
        told = true;
        if (found == LEASE_PUSH)
            session_push(session, kind, ino, name);
        if (change)
            change_hold(change, session, sequence);
    }
    return told;
}

void volume_name_gone(struct server_volume *volume, const struct session *by, uint64_t parent,
                      const struct meta_name *name)
{
    for (struct session *s = volume->sessions; s; s = s->hh.next)
        if (s != by && s->lease.knows_all)
            session_push(s, WIRE_ITEM_ENTRY, parent, name);
}

int volume_own(struct server_volume *volume, struct meta_op *op)
{
    struct meta_reply reply;
    if (!volume->meta)
        return -ESHUTDOWN;
    int rc = volume_apply(volume->meta, op, &reply);
    meta_reply_done(&reply);
    return rc;
}

/* Inodes without a name */

static void drop_now(struct server_volume *volume, uint64_t ino)
{
    struct meta_op op = {.kind = META_DROP, .inos = &ino, .ino_count = 1};
    int rc = volume_own(volume, &op);
    if (rc < 0 && rc != -ESHUTDOWN)
        log_warn("unlinked file not dropped", "volume=%s ino=%" PRIu64 " error=%d", volume->name,
                 ino, -rc);
}

static void gone_free(struct server_volume *volume, struct gone *gone)
{
    HASH_DEL(volume->gone, gone);
    free(gone->holders);
    free(gone);
}

static void release(struct server_volume *volume, struct gone *gone, uint64_t session)
{
    for (size_t i = 0; i < gone->count; i++)
        if (gone->holders[i] == session)
            gone->holders[i--] = gone->holders[--gone->count];
    if (gone->count)
        return;
    uint64_t ino = gone->ino;
    gone_free(volume, gone);
    drop_now(volume, ino);
}

static struct gone *gone_make(struct server_volume *volume, uint64_t ino)
{
    struct gone *gone;
    HASH_FIND(hh, volume->gone, &ino, sizeof(ino), gone);
    if (gone)
        return gone;
    gone = calloc(1, sizeof(*gone));
    if (gone) {
        gone->ino = ino;
        gone->holders = calloc(HASH_COUNT(volume->sessions) + 1, sizeof(*gone->holders));
    }
    if (!gone || !gone->holders) {
        free(gone);
        return NULL; /* stays until the volume is opened next */
    }
    HASH_ADD(hh, volume->gone, ino, sizeof(gone->ino), gone);
    return gone;
}

void volume_gone(struct server_volume *volume, struct session *by, uint64_t ino)
{
    struct gone *gone;
    HASH_FIND(hh, volume->gone, &ino, sizeof(ino), gone);
    if (gone)
        return;
    gone = gone_make(volume, ino);
    if (!gone)
        return;
    for (struct session *s = volume->sessions; s; s = s->hh.next) {
        if (s != by && !lease_knows(&s->lease, ino))
            continue;
        gone->holders[gone->count++] = s->id;
        if (s != by)
            session_push(s, WIRE_ITEM_GONE, ino, NULL);
    }
    if (!gone->count)
        release(volume, gone, 0);
}

void volume_named(struct server_volume *volume, uint64_t ino)
{
    struct gone *gone;
    struct meta_op op = {.kind = META_GETATTR, .ino = ino};
    struct meta_reply reply;
    HASH_FIND(hh, volume->gone, &ino, sizeof(ino), gone);
    if (!gone || !volume->meta)
        return;
    /* The answer of a link that was sent again is as old as the link. */
    if (volume_read(volume->meta, &op, &reply) == 0 && reply.attr.nlink)
        gone_free(volume, gone);
    meta_reply_done(&reply);
}

void volume_drop(struct server_volume *volume, struct session *session, const uint64_t *inos,
                 size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct gone *gone;
        HASH_FIND(hh, volume->gone, &inos[i], sizeof(inos[i]), gone);
        if (gone)
            release(volume, gone, session->id);
    }
}

/* Objects that nobody will commit */

struct abandon {
    struct server_volume *volume;
    uint64_t object;
};

/* On the volume's work thread: settle may be at work on one of its own. */
static void abandon_one(void *arg)
{
    struct abandon *a = arg;
    struct meta *meta = a->volume->meta;
    struct meta_op op = {.kind = META_OBJECT, .object = a->object};
    struct meta_reply reply;
    bool ours = volume_read(meta, &op, &reply) == 0 && reply.object_count &&
                reply.objects[0].state == META_OBJECT_RESERVED &&
                !settler_uses_key(meta->settler, reply.objects[0].key);
    meta_reply_done(&reply);
    op = (struct meta_op){.kind = META_ABANDON, .object = a->object};
    if (ours)
        volume_own(a->volume, &op);
}

static void abandon_set(struct server_volume *volume, struct id_entry **set)
{
    while (*set) {
        struct abandon a = {.volume = volume, .object = (*set)->id};
        id_set_remove(set, a.object);
        if (volume->meta)
            loop_call(volume->meta->work, abandon_one, &a);
    }
}

void volume_claim(struct server_volume *volume, struct session *session, uint64_t object)
{
    if (id_set_remove(&volume->orphans, object))
        id_set_add(&session->reserved, object);
}

void volume_recovered(struct server_volume *volume)
{
    if (--volume->restored)
        return;
    volume_locks_recovered(volume);
    quota_recovered(volume);
    if (volume->orphans) {
        log_info("objects of ended clients given up", "volume=%s objects=%u", volume->name,
                 HASH_COUNT(volume->orphans));
        abandon_set(volume, &volume->orphans);
    }
}

void volume_session_over(struct server_volume *volume, struct session *session)
{
    struct gone *gone, *next;
    HASH_ITER(hh, volume->gone, gone, next)
    {
        release(volume, gone, session->id);
    }
    abandon_set(volume, &session->reserved);
    examine_session_over(volume, session->id);
}

/* Events of the volume's own threads */

struct event {
    struct loop_task task;
    struct server_volume *volume;
    enum wire_item_kind kind;
    uint64_t ino;
    size_t name_len;
    char name[];
};

static void run_event(struct loop_task *task)
{
    struct event *event = container_of(task, struct event, task);
    struct server_volume *volume = event->volume;
    struct meta_name name = {event->name, event->name_len};
    __atomic_fetch_sub(&volume->events, 1, __ATOMIC_RELAXED);
    struct change *change = change_new(volume);
    if (change)
        change_touch(change, event->ino);
    switch (event->kind) {
    case WIRE_ITEM_GONE:
        volume_tell(volume, NULL, change, WIRE_ITEM_ATTR, event->ino, NULL, 0);
        volume_gone(volume, NULL, event->ino);
        break;
    case WIRE_ITEM_EXTENTS:
        for (struct session *s = volume->sessions; s; s = s->hh.next)
            if (lease_knows(&s->lease, event->ino))
                session_push(s, WIRE_ITEM_EXTENTS, event->ino, NULL);
        break;
    default:
        if (event->kind == WIRE_ITEM_ENTRY)
            volume_name_gone(volume, NULL, event->ino, &name);
        volume_tell(volume, NULL, change, event->kind, event->ino,
                    event->kind == WIRE_ITEM_ENTRY ? &name : NULL,
                    event->kind == WIRE_ITEM_ENTRY ? LEASE_NAMES | LEASE_ABSENT : 0);
        break;
    }
    if (change)
        change_made(change);
    free(event);
}

static void post_event(struct server_volume *volume, enum wire_item_kind kind, uint64_t ino,
                       const char *name, size_t len)
{
    struct event *event = NULL;
    if (__atomic_fetch_add(&volume->events, 1, __ATOMIC_RELAXED) < EVENTS_MAX)
        event = malloc(sizeof(*event) + len);
    if (!event) {
        __atomic_fetch_sub(&volume->events, 1, __ATOMIC_RELAXED);
        atomic_store(&volume->events_lost, true);
        return;
    }
    *event = (struct event){.volume = volume, .kind = kind, .ino = ino, .name_len = len};
    event->task.run = run_event;
    memcpy(event->name, name, len);
    loop_post(volume->server->loop, &event->task);
}

static void on_entry(void *arg, uint64_t parent, const char *name, size_t len)
{
    post_event(arg, WIRE_ITEM_ENTRY, parent, name, len);
}

static void on_inode(void *arg, uint64_t ino, bool data)
{
    post_event(arg, data ? WIRE_ITEM_OUTSIDE : WIRE_ITEM_ATTR, ino, "", 0);
}

static void on_extents(void *arg, uint64_t ino)
{
    post_event(arg, WIRE_ITEM_EXTENTS, ino, "", 0);
}

static void on_gone(void *arg, uint64_t ino)
{
    post_event(arg, WIRE_ITEM_GONE, ino, "", 0);
}

struct meta_events meta_server_volume_events(struct server_volume *volume)
{
    return (struct meta_events){.entry_changed = on_entry,
                                .inode_changed = on_inode,
                                .extents_changed = on_extents,
                                .inode_gone = on_gone,
                                .stores_changed = volume_stores_changed,
                                .arg = volume};
}

void volume_tick(struct server_volume *volume)
{
    if (!atomic_exchange(&volume->events_lost, false))
        return;
    for (struct session *s = volume->sessions; s; s = s->hh.next)
        session_push_all(s);
}

/* Beginning and end */

struct server_volume *server_volume_find(struct server *server, const struct wire_text *name)
{
    struct server_volume *volume;
    HASH_FIND(hh, server->volumes, name->bytes, name->len, volume);
    return volume && volume->meta ? volume : NULL;
}

int meta_server_volume_new(struct server *server, const struct server_volume_config *config,
                           struct server_volume **out)
{
    struct server_volume *volume = calloc(1, sizeof(*volume));
    if (!volume)
        return -ENOMEM;
    volume->server = server;
    volume->name = strdup(config->name);
    volume->url = strdup(config->url);
    volume->options = strdup(config->options);
    if (!volume->name || !volume->url || !volume->options || server_locks_new(volume) < 0 ||
        server_quota_new(volume) < 0 || pool_new(&volume->stores_pool, "stores", 1) < 0) {
        if (volume->locks)
            server_locks_free(volume);
        server_quota_free(volume);
        free(volume->name);
        free(volume->url);
        free(volume->options);
        free(volume);
        return -ENOMEM;
    }
    volume->signer = config->signer;
    volume->read_signer = config->read_signer;
    volume->keys_s = config->keys_s;
    *out = volume;
    return 0;
}

static int restore_one(void *arg, uint64_t id, const void *record, size_t len)
{
    return session_restore(arg, id, record, len);
}

static int restore_gone(struct server_volume *volume)
{
    uint64_t inos[STEP], after = 0;
    int count;
    while ((count = engine_sustained(volume->meta->engine, after, inos, STEP)) > 0) {
        after = inos[count - 1];
        for (int i = 0; i < count; i++)
            volume_gone(volume, NULL, inos[i]);
    }
    return count;
}

static int restore_objects(struct server_volume *volume)
{
    cleanup(free_ptr) struct meta_object *objects = calloc(STEP, sizeof(*objects));
    uint64_t after = 0;
    int count = objects ? 0 : -ENOMEM;
    while (objects && (count = engine_reserved(volume->meta->engine, after, objects, STEP)) > 0) {
        after = objects[count - 1].id;
        for (int i = 0; i < count; i++)
            if (id_set_add(&volume->orphans, objects[i].id) < 0)
                return -ENOMEM;
    }
    return count;
}

/* What was changed shortly before a restart may be in the caches of those who did not confirm it:
 * nobody sees anything before all have dropped what they have, or their leases are over. */
static int wait_for_restored(struct server_volume *volume)
{
    struct change *change = change_new(volume);
    struct session *session, *next;
    if (!change)
        return -ENOMEM;
    volume->recovery = change;
    HASH_ITER(hh, volume->sessions, session, next)
    {
        session_hold(session, session->lease.floor, change);
    }
    change_made(change);
    return 0;
}

struct start_call {
    struct server_volume *volume;
    struct meta *meta;
    int rc;
};

static void start_on_loop(void *arg)
{
    struct start_call *call = arg;
    struct server_volume *volume = call->volume;
    volume->meta = call->meta;
    call->rc = engine_sessions(call->meta->engine, restore_one, volume);
    if (call->rc == 0 && volume->sessions)
        call->rc = restore_gone(volume);
    if (call->rc == 0 && volume->sessions)
        call->rc = restore_objects(volume);
    if (call->rc == 0 && volume->sessions)
        call->rc = wait_for_restored(volume);
    HASH_ADD_KEYPTR(hh, volume->server->volumes, volume->name, strlen(volume->name), volume);
    log_info("volume served", "volume=%s url=%s sessions=%u", volume->name, volume->url,
             volume->restored);
}

static void stop_on_loop(void *arg)
{
    struct start_call *call = arg;
    struct server_volume *volume = call->volume;
    struct session *session, *next;
    bool end = call->rc;
    if (!volume->meta)
        return;
    HASH_ITER(hh, volume->sessions, session, next)
    {
        if (end)
            session_end(session, "the volume is being deleted");
    }
    volume->meta = NULL;
    HASH_ITER(hh, volume->sessions, session, next)
    {
        session_drop(session);
    }
    HASH_DEL(volume->server->volumes, volume);
}

int meta_server_volume_start(struct server_volume *volume, struct meta *meta, struct error *error)
{
    struct start_call call = {.volume = volume, .meta = meta};
    loop_call(volume->server->loop, start_on_loop, &call);
    if (call.rc < 0) {
        meta_server_volume_stop(volume, false);
        return error_set(error, call.rc, "volume %s: its sessions cannot be read: %s", volume->name,
                         strerror(-call.rc));
    }
    return 0;
}

void meta_server_volume_stop(struct server_volume *volume, bool end)
{
    struct start_call call = {.volume = volume, .rc = end};
    loop_call(volume->server->loop, stop_on_loop, &call);
    pool_free(TAKE_PTR(volume->stores_pool)); /* ends what it does with `meta` */
    examine_end(volume);
}

static void free_on_loop(void *arg)
{
    struct server_volume *volume = arg;
    struct gone *gone, *next;
    HASH_ITER(hh, volume->gone, gone, next)
    {
        gone_free(volume, gone);
    }
    while (volume->orphans)
        id_set_remove(&volume->orphans, volume->orphans->id);
    server_locks_free(volume);
    server_quota_free(volume);
}

void meta_server_volume_free(struct server_volume *volume)
{
    if (!volume)
        return;
    /* What the volume's threads posted until meta_close runs before this. */
    pool_free(volume->stores_pool);
    loop_call(volume->server->loop, free_on_loop, volume);
    store_signer_free(volume->signer);
    store_signer_free(volume->read_signer);
    free(volume->name);
    free(volume->url);
    free(volume->options);
    free(volume);
}
