/*
 * Who may write below a prefix (I9): the object `<prefix>.sluice/volume` names the volume, and each
 * change of it is conditional on what it was. Format and rules: docs/open-layout.md.
 *
 * The same volume may take it back at once on the same host: its database has one process at a
 * time (RocksDB's lock), so the former holder is dead. Another volume is refused as long as it is
 * held, dead or alive: the holder's database may know of files that are not in the bucket yet. Only
 * the user can decide that (take_over).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "base/log.h"
#include "engine/owner_record.h"
#include "s3/mux.h"
#include "volume.h"

#define LEASE_NS (90 * NS_PER_S) /* of a holder on another host */
#define TAKE_TRIES 8
#define RETRY_MS 5000
#define GIVE_BACK_MS 10000 /* an unmount waits no longer */

struct owner {
    struct meta *meta;
    struct store *store;         /* borrowed; what it calls `bare` is `key` to the volume */
    char key[META_KEY_MAX + 48]; /* with the store's number */
    const char *bare;            /* in `key` */
    char etag[STORE_ETAG_MAX];   /* of the object as we wrote it last */
    struct owner_record self;

    /* Work thread. */
    struct loop_timer timer;
    bool timer_open, stopping, lost, busy, drained;
    atomic_bool closing; /* the timer still is */
    struct work_op op;
    char *body; /* being written */
    struct iovec iov;
    uint8_t *read; /* being read: OWNER_RECORD_MAX bytes */
    uint64_t renewed_ns;
};

/* Who we are */

static void read_line(const char *path, char *out, size_t cap)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    if (fgets(out, (int)cap, file))
        out[strcspn(out, "\n")] = '\0';
    fclose(file);
}

/* The same for all processes of one host, also after it booted again. */
static void host_identity(char *out, size_t cap)
{
    read_line("/etc/machine-id", out, cap);
    if (!out[0])
        read_line("/proc/sys/kernel/random/boot_id", out, cap);
}

/* May we take it from who has it? 0, or -EBUSY and why not. */
static int decide(const struct owner_record *found, const struct owner_record *self, bool take_over,
                  uint64_t now_ns, struct error *error)
{
    if (!found->held || take_over)
        return 0;
    bool same_volume = !strcmp(found->volume, self->volume);
    if (same_volume && !strcmp(found->host, self->host))
        return 0;
    uint64_t age_ns = now_ns > found->renewed_ns ? now_ns - found->renewed_ns : 0;
    if (same_volume && age_ns > LEASE_NS)
        return 0;
    return error_set(error, -EBUSY,
                     "the prefix belongs to volume %s, mounted by %s (seen %" PRIu64
                     " s ago); unmount it there, or mount with --take-over if it is gone for good, "
                     "or with --read-only",
                     found->volume, found->owner[0] ? found->owner : "an unnamed host",
                     (uint64_t)(age_ns / NS_PER_S));
}

/* Taking, blocking */

static int read_now(struct owner *owner, struct owner_record *found, char etag[STORE_ETAG_MAX],
                    struct error *error)
{
    cleanup(free_ptr) uint8_t *data = malloc(OWNER_RECORD_MAX);
    if (!data)
        return -ENOMEM;
    struct store_op op = {.kind = STORE_GET,
                          .key = owner->bare,
                          .buf = data,
                          .buf_len = OWNER_RECORD_MAX,
                          .length = OWNER_RECORD_MAX};
    int rc = store_wait(owner->store, &op);
    if (rc == -ERANGE) {
        /* An empty object: has nothing to get, but an ETag. */
        store_op_reset(&op);
        op = (struct store_op){.kind = STORE_HEAD, .key = owner->bare};
        rc = store_wait(owner->store, &op);
    }
    if (!rc)
        memcpy(etag, op.info.etag, STORE_ETAG_MAX);
    if (!rc && owner_record_parse(data, op.got, found)) {
        /* Held by who knows whom. */
        *found =
            (struct owner_record){.held = true, .owner = "a newer version of Sluice, or damaged"};
    } else if (rc && rc != -ENOENT && error) {
        *error = op.error;
        error_prefix(error, "cannot read who owns the prefix");
    }
    store_op_reset(&op);
    return rc;
}

static bool is_conditional(const struct owner *owner)
{
    const struct store_caps *caps = store_caps(owner->store);
    return caps->put_if_none_match && caps->put_if_match;
}

/* Conditional on `etag`, or on absence with NULL. */
static int write_now(struct owner *owner, const char *etag, struct error *error)
{
    owner->self.renewed_ns = clock_wall_ns();
    cleanup(free_ptr) char *body = owner_record_print(&owner->self);
    if (!body)
        return -ENOMEM;
    struct iovec iov = {.iov_base = body, .iov_len = strlen(body)};
    bool conditional = is_conditional(owner);
    struct store_op op = {.kind = STORE_PUT,
                          .key = owner->bare,
                          .iov = &iov,
                          .iov_count = 1,
                          .content_type = "application/json",
                          .timeout_ms = owner->self.held ? 0 : GIVE_BACK_MS,
                          .if_match = conditional ? etag : NULL,
                          .if_none_match = conditional && !etag};
    int rc = store_wait(owner->store, &op);
    if (!rc) {
        memcpy(owner->etag, op.info.etag, sizeof(owner->etag));
    } else if (rc != -EEXIST && rc != -ENOENT && error) {
        *error = op.error;
        error_prefix(error, "cannot take the prefix");
    }
    store_op_reset(&op);
    return rc;
}

static int take_once(struct owner *owner, struct error *error)
{
    struct owner_record found = {0};
    char etag[STORE_ETAG_MAX] = "";
    bool take_over = owner->meta->config.take_over;
    int rc = read_now(owner, &found, etag, error);
    if (rc && rc != -ENOENT)
        return rc;
    bool there = !rc;
    if (there && !strcmp(found.instance, owner->self.instance)) {
        /* A lost reply: our own write was done. */
        memcpy(owner->etag, etag, sizeof(etag));
        return 0;
    }
    if (there) {
        rc = decide(&found, &owner->self, take_over, clock_wall_ns(), error);
        if (rc)
            return rc;
        if (found.held && strcmp(found.volume, owner->self.volume))
            log_warn("prefix taken over", "from_volume=%s by=%s", found.volume, owner->self.volume);
    }
    owner->self.epoch = found.epoch + 1;
    rc = write_now(owner, there ? etag : NULL, error);
    if (rc == -EEXIST || rc == -ENOENT)
        return -EAGAIN; /* somebody was faster */
    if (rc || is_conditional(owner))
        return rc;
    /* Without conditional writes the last writer wins, and looks again whether it was he. */
    rc = read_now(owner, &found, etag, error);
    if (!rc && strcmp(found.instance, owner->self.instance))
        return -EAGAIN;
    return rc;
}

int owner_take(struct meta *meta, struct owner **out, struct error *error)
{
    return owner_take_at(meta, meta->store, meta->internal, out, error);
}

int owner_take_at(struct meta *meta, struct store *store, const char *base, struct owner **out,
                  struct error *error)
{
    struct owner *owner = calloc(1, sizeof(*owner));
    if (!owner)
        return -ENOMEM;
    owner->read = malloc(OWNER_RECORD_MAX);
    if (!owner->read) {
        free(owner);
        return -ENOMEM;
    }
    size_t skip;
    owner->meta = meta;
    owner->store = store;
    snprintf(owner->key, sizeof(owner->key), "%svolume", base);
    store_route(owner->key, strlen(owner->key), &skip);
    owner->bare = owner->key + skip;
    struct owner_record *self = &owner->self;
    memcpy(self->volume, meta->format.id, sizeof(self->volume));
    snprintf(self->owner, sizeof(self->owner), "%s", meta->config.owner_text);
    uint8_t instance[8];
    hash_random(instance, sizeof(instance));
    hash_hex(instance, sizeof(instance), self->instance);
    host_identity(self->host, sizeof(self->host));
    self->held = true;
    int rc = -EAGAIN;
    for (int i = 0; i < TAKE_TRIES && rc == -EAGAIN; i++)
        rc = take_once(owner, error);
    if (rc == -EAGAIN)
        rc = error_set(error, -EBUSY, "the prefix is being taken by others at the same time");
    if (rc) {
        owner_free(owner);
        return rc;
    }
    owner->renewed_ns = self->renewed_ns;
    *out = owner;
    return 0;
}

/* Renewing, on the work thread */

static void write_again(struct owner *owner, const char *etag);

static void next_renewal(struct owner *owner, uint64_t delay_ms)
{
    if (owner->timer_open && !owner->stopping && !owner->lost)
        loop_timer_start(&owner->timer, delay_ms);
}

static void lose(struct owner *owner, const struct owner_record *to)
{
    owner->lost = true;
    log_error("prefix lost to another owner", "volume=%s owner=\"%s\" epoch=%" PRIu64, to->volume,
              to->owner, to->epoch);
    volume_refuse(owner->meta, "another volume instance took the prefix");
}

static void reread_done(struct work_op *work)
{
    struct owner *owner = work->arg;
    struct store_op *op = &work->op;
    struct owner_record found;
    owner->busy = false;
    int rc = op->result == -ERANGE ? 0 : op->result;
    if (!rc && owner_record_parse(owner->read, op->got, &found))
        found = (struct owner_record){.owner = "unreadable"};
    if (!rc && !strcmp(found.instance, owner->self.instance)) {
        /* The write before was done, its reply was lost. */
        memcpy(owner->etag, op->info.etag, sizeof(owner->etag));
        owner->renewed_ns = clock_wall_ns();
        next_renewal(owner, owner->meta->config.owner_renew_ms);
    } else if (!rc) {
        lose(owner, &found);
    } else if (rc == -ENOENT && !owner->stopping) {
        log_warn("owner object was deleted, writing it again", "key=%s", owner->key);
        store_op_reset(op);
        write_again(owner, NULL);
        return;
    } else {
        next_renewal(owner, RETRY_MS);
    }
    store_op_reset(op);
}

static void read_again(struct owner *owner)
{
    store_op_reset(&owner->op.op);
    owner->op.op = (struct store_op){.kind = STORE_GET,
                                     .key = owner->key,
                                     .buf = owner->read,
                                     .buf_len = OWNER_RECORD_MAX,
                                     .length = OWNER_RECORD_MAX};
    owner->op.done = reread_done;
    owner->busy = true;
    work_op_submit(owner->meta, &owner->op);
}

static void write_done(struct work_op *work)
{
    static struct log_limit limit = LOG_LIMIT(1, 60000);
    struct owner *owner = work->arg;
    struct store_op *op = &work->op;
    int rc = op->result;
    owner->busy = false;
    free(TAKE_PTR(owner->body));
    if (!rc) {
        memcpy(owner->etag, op->info.etag, sizeof(owner->etag));
        owner->renewed_ns = owner->self.renewed_ns;
        next_renewal(owner, owner->meta->config.owner_renew_ms);
    } else if ((rc == -EEXIST || rc == -ENOENT) && !owner->stopping) {
        read_again(owner);
        return;
    } else {
        if (!owner->stopping)
            log_limited(&limit, LOG_WARN, "prefix ownership not renewed", "error=\"%s\"",
                        error_text(&op->error));
        next_renewal(owner, RETRY_MS);
    }
    store_op_reset(op);
}

static void write_again(struct owner *owner, const char *etag)
{
    owner->self.renewed_ns = clock_wall_ns();
    owner->body = owner_record_print(&owner->self);
    if (!owner->body) {
        next_renewal(owner, RETRY_MS);
        return;
    }
    owner->iov = (struct iovec){.iov_base = owner->body, .iov_len = strlen(owner->body)};
    owner->op.op = (struct store_op){.kind = STORE_PUT,
                                     .key = owner->key,
                                     .iov = &owner->iov,
                                     .iov_count = 1,
                                     .content_type = "application/json",
                                     .if_match = etag,
                                     .if_none_match = !etag};
    owner->op.done = write_done;
    owner->busy = true;
    work_op_submit(owner->meta, &owner->op);
}

/* Without conditional writes a renewal looks first, and is not more than a look. */
static void renew(struct loop_timer *timer)
{
    struct owner *owner = container_of(timer, struct owner, timer);
    if (owner->stopping || owner->lost)
        return;
    if (is_conditional(owner))
        write_again(owner, owner->etag);
    else
        read_again(owner);
}

void owner_start(struct owner *owner)
{
    owner->op.arg = owner;
    loop_timer_init(owner->meta->work, &owner->timer, renew);
    owner->timer_open = true;
    next_renewal(owner, owner->meta->config.owner_renew_ms);
}

static void timer_closed(struct loop_timer *timer)
{
    struct owner *owner = container_of(timer, struct owner, timer);
    atomic_store(&owner->closing, false);
}

void owner_stop(struct owner *owner)
{
    owner->stopping = true;
    if (!owner->timer_open)
        return;
    owner->timer_open = false;
    atomic_store(&owner->closing, true);
    loop_timer_close(&owner->timer, timer_closed);
}

static void look_busy(void *arg)
{
    struct owner *owner = arg;
    owner->drained = !owner->busy && !atomic_load(&owner->closing);
}

void owner_drain(struct owner *owner)
{
    const struct timespec pause = {.tv_nsec = 5 * NS_PER_MS};
    for (;;) {
        loop_call(owner->meta->work, look_busy, owner);
        if (owner->drained)
            return;
        nanosleep(&pause, NULL);
    }
}

const char *owner_instance(const struct owner *owner)
{
    return owner->self.instance;
}

int owner_give_back(struct owner *owner)
{
    if (owner->lost)
        return 0;
    owner->self.held = false;
    struct error error;
    error_clear(&error);
    int rc = write_now(owner, owner->etag, &error);
    if (rc == -EEXIST) {
        /* A renewal that was cut off may have been done all the same. */
        struct owner_record found;
        rc = read_now(owner, &found, owner->etag, &error);
        if (!rc)
            rc = strcmp(found.instance, owner->self.instance)
                     ? -EEXIST
                     : write_now(owner, owner->etag, &error);
    }
    if (rc)
        log_warn("prefix was not given back", "error=\"%s\"",
                 error.code ? error_text(&error) : "somebody else has changed the owner object");
    return rc;
}

void owner_free(struct owner *owner)
{
    if (!owner)
        return;
    free(owner->body);
    free(owner->read);
    free(owner);
}

void owner_status(struct owner *owner, json_t *out)
{
    json_object_set_new(out, "key", json_string(owner->key));
    json_object_set_new(out, "epoch", json_integer((json_int_t)owner->self.epoch));
    json_object_set_new(out, "instance", json_string(owner->self.instance));
    json_object_set_new(out, "renewed_ns", json_integer((json_int_t)owner->renewed_ns));
    json_object_set_new(out, "lost", json_boolean(owner->lost));
}
