/*
 * Writes what the bucket carries of an inode besides its content: entries below `.sluice/e/`, from
 * which rebuild takes what no object says (docs/rebuild.md). One entry for each inode that needs
 * one, at a key that is made of its number: it is written anew, never moved.
 *
 * Steps for one inode: look whether it needs an entry; record that there may be one, synced; write
 * it; record that it is done, unless the inode has changed meanwhile. Each can be repeated.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/crash.h"
#include "base/log.h"
#include "carry_entry.h"
#include "pacer.h"
#include "volume.h"

#define PARALLEL 8
#define STEP 256
#define ROUND_NS (100 * NS_PER_MS) /* rounds are so far apart, and a tenth of the time at most */
#define RETRY_NS (10 * NS_PER_S)
#define RESCAN_NS NS_PER_S /* what waits for settle is looked at again */

struct carry_job {
    struct carrier *carrier;
    struct meta *meta;
    uint64_t ino, stamp;
    bool carried;
    struct meta_attr attr;
    struct meta_object object; /* file: its object */
    struct work_op op;
    struct work_call call;
    char key[META_KEY_MAX + 64];
    char *body; /* owned */
    struct iovec iov;
    struct carry_job *next, *prev;
};

struct carrier {
    struct meta *meta;
    struct loop_timer timer;
    struct loop_task again;
    bool again_posted, stopped;
    struct carry_job *jobs;
    unsigned active;
    uint64_t cursor;                   /* rows up to here were looked at in this round */
    uint64_t wake_ns;                  /* of the rows of this round: the next look */
    uint64_t written, removed, failed; /* since start */
    uint64_t failed_ns;                /* monotonic: the last failure */
    uint64_t hold_ns;                  /* monotonic: no row is looked at before */
    uint64_t round_ns;                 /* monotonic: when this round began */
    char last_error[256];
};

static void pump(struct carrier *c);

static void pump_soon(struct carrier *c);

/* The end of a job */

static void job_end(struct carry_job *job)
{
    struct carrier *c = job->carrier;
    struct meta *meta = job->meta;
    DL_DELETE(c->jobs, job);
    c->active--;
    store_op_reset(&job->op.op);
    meta_reply_done(&job->call.request.reply);
    free(job->body);
    free(job);
    if (!c->stopped)
        pump_soon(c);
    work_end(meta);
}

static void job_fail(struct carry_job *job, const char *text)
{
    static struct log_limit limit = LOG_LIMIT(5, 60000);
    struct carrier *c = job->carrier;
    c->failed++;
    c->failed_ns = clock_monotonic_ns();
    c->hold_ns = c->failed_ns + RETRY_NS;
    snprintf(c->last_error, sizeof(c->last_error), "%s", text);
    if (!c->stopped)
        log_limited(&limit, LOG_WARN, "entry not written", "ino=%" PRIu64 " error=\"%s\"", job->ino,
                    text);
    job_end(job);
}

/* `none`: the bucket has no entry of it. */
static void job_done(struct carry_job *job, bool none)
{
    struct meta_op op = {.kind = META_CARRY_DONE,
                         .ino = job->ino,
                         .length = job->stamp,
                         .flags = none ? META_NOT_WRITTEN : 0};
    struct meta_reply reply;
    int rc = volume_apply(job->meta, &op, &reply);
    meta_reply_done(&reply);
    crash_point("carry.done");
    if (rc)
        job_fail(job, strerror(-rc));
    else
        job_end(job);
}

static void submit(struct carry_job *job, void (*done)(struct work_op *work))
{
    job->op.op.priority = STORE_BACKGROUND;
    job->op.done = done;
    job->op.arg = job;
    pacer_submit(job->meta, &job->op, 0);
}

/* Removing */

static void removed(struct work_op *work)
{
    struct carry_job *job = work->arg;
    if (work->op.result && work->op.result != -ENOENT) {
        job_fail(job, error_text(&work->op.error));
        return;
    }
    job->carrier->removed++;
    job_done(job, true);
}

static void job_remove(struct carry_job *job)
{
    if (!job->carried) {
        job_done(job, false);
        return;
    }
    crash_point("carry.removing");
    store_op_reset(&job->op.op);
    job->op.op = (struct store_op){.kind = STORE_DELETE, .key = job->key};
    submit(job, removed);
}

/* Writing */

/* The bytes that a read gives, as a new string; NULL if there are none. */
static char *read_text(struct meta *meta, struct meta_op *op, size_t *len)
{
    struct meta_reply reply;
    char *text = NULL;
    if (!volume_read(meta, op, &reply)) {
        text = malloc(reply.data_len + 1);
        if (text) {
            memcpy(text, reply.data, reply.data_len);
            text[reply.data_len] = '\0';
            *len = reply.data_len;
        }
    }
    meta_reply_done(&reply);
    return text;
}

static char *read_path(struct meta *meta, uint64_t ino)
{
    struct meta_op op = {.kind = META_PATH, .ino = ino};
    size_t len;
    return read_text(meta, &op, &len);
}

struct link_name {
    uint64_t parent;
    char name[META_NAME_MAX + 1];
};

struct link_names {
    struct link_name names[CARRY_LINKS_MAX];
    size_t count;
};

static int take_link(void *arg, uint64_t parent, const char *name, size_t len)
{
    struct link_names *links = arg;
    if (links->count == CARRY_LINKS_MAX)
        return 1;
    struct link_name *link = &links->names[links->count++];
    link->parent = parent;
    snprintf(link->name, sizeof(link->name), "%.*s", (int)len, name);
    return 0;
}

static int read_links(struct meta *meta, uint64_t ino, struct carry_entry *e)
{
    cleanup(free_ptr) struct link_names *links = calloc(1, sizeof(*links));
    e->links = calloc(CARRY_LINKS_MAX, sizeof(*e->links));
    if (!links || !e->links)
        return -ENOMEM;
    int rc = engine_links(meta->engine, ino, take_link, links);
    for (size_t i = 0; !rc && i < links->count; i++) {
        cleanup(free_ptr) char *parent = read_path(meta, links->names[i].parent);
        char *path = NULL;
        if (!parent)
            continue; /* renamed or gone: another row comes */
        if (asprintf(&path, "%s%s%s", parent, *parent ? "/" : "", links->names[i].name) < 0)
            return -ENOMEM;
        if (strlen(path) <= CARRY_PATH_MAX)
            e->links[e->link_count++] = path;
        else
            free(path);
    }
    return rc;
}

static int read_xattrs(struct meta *meta, uint64_t ino, struct carry_entry *e)
{
    struct meta_op op = {.kind = META_LISTXATTR, .ino = ino};
    size_t len = 0, count = 0, total = 0;
    cleanup(free_ptr) char *names = read_text(meta, &op, &len);
    if (!names)
        return -EIO;
    for (size_t i = 0; i < len; i++)
        count += !names[i];
    e->xattrs = calloc(count + 1, sizeof(*e->xattrs));
    if (!e->xattrs)
        return -ENOMEM;
    for (const char *name = names; name < names + len; name += strlen(name) + 1) {
        struct carry_xattr *x = &e->xattrs[e->xattr_count];
        op = (struct meta_op){.kind = META_GETXATTR, .ino = ino, .name = {name, strlen(name)}};
        x->value.bytes = read_text(meta, &op, &x->value.len);
        if (!x->value.bytes)
            continue;
        total += strlen(name) + x->value.len;
        x->name = (struct carry_text){strdup(name), strlen(name)};
        if (x->name.bytes && total <= CARRY_XATTRS_MAX) {
            e->xattr_count++;
            continue;
        }
        bool too_much = x->name.bytes != NULL;
        free(x->name.bytes);
        free(x->value.bytes);
        return too_much ? 0 : -ENOMEM;
    }
    return 0;
}

static char *make_body(struct carry_job *job)
{
    const struct meta_attr *a = &job->attr;
    struct carry_entry e = {.mode = a->mode,
                            .uid = a->uid,
                            .gid = a->gid,
                            .mtime_ns = a->mtime_ns,
                            .rdev = a->rdev,
                            .size = a->size,
                            .written_ns = meta_time_ns(job->meta)};
    int rc = 0;
    char *text = NULL;
    memcpy(e.etag, job->object.etag, sizeof(e.etag));
    e.path = read_path(job->meta, job->ino);
    if (S_ISLNK(a->mode)) {
        struct meta_op op = {.kind = META_READLINK, .ino = job->ino};
        e.target.bytes = read_text(job->meta, &op, &e.target.len);
    }
    if (a->has_xattr)
        rc = read_xattrs(job->meta, job->ino, &e);
    if (!rc && !S_ISDIR(a->mode) && a->nlink > 1)
        rc = read_links(job->meta, job->ino, &e);
    if (!rc && e.path && (!S_ISLNK(a->mode) || e.target.bytes))
        text = carry_entry_print(&e);
    carry_entry_done(&e);
    return text;
}

static void entry_written(struct work_op *work)
{
    struct carry_job *job = work->arg;
    crash_point("carry.written");
    if (work->op.result) {
        job_fail(job, error_text(&work->op.error));
        return;
    }
    job->carrier->written++;
    job_done(job, false);
}

static void begun(struct work_call *call)
{
    struct carry_job *job = call->arg;
    int rc = call->request.result;
    crash_point("carry.begun");
    if (rc == -ENOENT) {
        job_remove(job);
        return;
    }
    if (rc) {
        job_fail(job, strerror(-rc));
        return;
    }
    job->body = call->request.reply.end ? make_body(job) : NULL;
    if (!job->body || strlen(job->body) > CARRY_ENTRY_MAX) {
        job_remove(job); /* its path or its names cannot be in the bucket */
        return;
    }
    job->iov = (struct iovec){.iov_base = job->body, .iov_len = strlen(job->body)};
    store_op_reset(&job->op.op);
    job->op.op = (struct store_op){.kind = STORE_PUT,
                                   .key = job->key,
                                   .iov = &job->iov,
                                   .iov_count = 1,
                                   .content_type = "application/json"};
    submit(job, entry_written);
}

static void job_write(struct carry_job *job)
{
    job->call.request.op = (struct meta_op){.kind = META_CARRY_BEGIN, .ino = job->ino};
    job->call.request.durable = true;
    job->call.done = begun;
    job->call.arg = job;
    work_call_submit(job->meta, &job->call);
}

/* Deciding */

/* The object says by itself what the inode has. */
static void file_looked(struct work_op *work)
{
    struct carry_job *job = work->arg;
    const struct meta_attr *a = &job->attr;
    struct meta_attr said = {0};
    if (work->op.result && work->op.result != -ENOENT) {
        job_fail(job, error_text(&work->op.error));
        return;
    }
    bool same = !work->op.result && tags_parse(&work->op, &said) && said.mode == a->mode &&
                said.uid == a->uid && said.gid == a->gid && said.mtime_ns == a->mtime_ns;
    /* One that is not found may be there all the same: an entry of an object that is gone says
     * nothing, and goes with its inode. */
    if (same)
        job_remove(job);
    else
        job_write(job);
}

static bool directory_needs_entry(const struct carry_job *job, uint64_t children)
{
    const struct meta_attr *a = &job->attr;
    const struct meta_volume *f = &job->meta->format;
    uint32_t mode = job->ino == META_ROOT_INO ? f->root_mode : 0755;
    return (children == 0 && job->ino != META_ROOT_INO) || (a->mode & 07777) != (mode & 07777) ||
           a->uid != f->root_uid || a->gid != f->root_gid || a->has_xattr;
}

static bool read_object(struct meta *meta, uint64_t id, struct meta_object *out)
{
    struct meta_op op = {.kind = META_OBJECT, .object = id};
    struct meta_reply reply;
    bool found = id && !volume_read(meta, &op, &reply) && reply.object_count;
    if (found)
        *out = reply.objects[0];
    if (id)
        meta_reply_done(&reply);
    return found;
}

/* True: the job goes on by itself. False: nothing can be done yet. */
static bool job_decide(struct carry_job *job)
{
    struct engine_carry_facts facts;
    int rc = engine_carry_look(job->meta->engine, job->ino, &facts);
    if (rc && rc != -ENOENT)
        return false;
    if (rc || !facts.attr.nlink) {
        job->carried = rc == -ENOENT || facts.carried;
        job_remove(job);
        return true;
    }
    job->attr = facts.attr;
    job->carried = facts.carried;
    if (S_ISDIR(job->attr.mode)) {
        if (directory_needs_entry(job, facts.children))
            job_write(job);
        else
            job_remove(job);
        return true;
    }
    if (!S_ISREG(job->attr.mode)) {
        job_write(job);
        return true;
    }
    if (facts.unsettled)
        return false; /* settle tells when it is done */
    if (!read_object(job->meta, facts.object, &job->object)) {
        job_remove(job); /* in the metadata only */
    } else if (job->attr.has_xattr || job->attr.nlink > 1) {
        job_write(job);
    } else {
        job->op.op = (struct store_op){.kind = STORE_HEAD, .key = job->object.key};
        submit(job, file_looked);
    }
    return true;
}

static bool job_start(struct carrier *c, const struct engine_carry *row)
{
    struct meta *meta = c->meta;
    struct carry_job *job = calloc(1, sizeof(*job));
    if (!job)
        return false;
    job->carrier = c;
    job->meta = meta;
    job->ino = row->ino;
    job->stamp = row->stamp;
    snprintf(job->key, sizeof(job->key), "%s" CARRY_FOLDER "%.8s/%016" PRIx64, meta->internal,
             meta->format.id, row->ino);
    DL_APPEND(c->jobs, job);
    c->active++;
    work_begin(meta);
    if (job_decide(job))
        return true;
    DL_DELETE(c->jobs, job);
    c->active--;
    free(job);
    work_end(meta);
    return false;
}

static bool is_running(const struct carrier *c, uint64_t ino)
{
    const struct carry_job *job;
    DL_FOREACH(c->jobs, job)
    {
        if (job->ino == ino)
            return true;
    }
    return false;
}

/* Rows, in rounds: each is looked at once in a round, then the next round waits for its time. */

static void wake_at(struct carrier *c, uint64_t at_ns)
{
    if (!c->wake_ns || at_ns < c->wake_ns)
        c->wake_ns = at_ns;
}

static void look_at_row(struct carrier *c, const struct engine_carry *row, bool hurry, uint64_t now)
{
    uint64_t quiet = row->time_ns + (uint64_t)c->meta->format.settle_delay_ms * NS_PER_MS;
    if (!hurry && quiet > now)
        wake_at(c, quiet);
    else if (is_running(c, row->ino) || !job_start(c, row))
        wake_at(c, now + RESCAN_NS);
    else
        wake_at(c, now + (hurry ? RESCAN_NS : RETRY_NS));
}

/* False: the round has ended. */
static bool look_on(struct carrier *c, bool hurry)
{
    struct engine_carry rows[STEP];
    int count = engine_carry_rows(c->meta->engine, c->cursor, rows, STEP);
    uint64_t now = meta_time_ns(c->meta);
    for (int i = 0; i < count && c->active < PARALLEL; i++) {
        c->cursor = rows[i].ino;
        look_at_row(c, &rows[i], hurry, now);
    }
    if (count > 0)
        return true;
    c->cursor = 0;
    return false;
}

static void pump(struct carrier *c)
{
    struct meta *meta = c->meta;
    bool hurry = settler_is_wanted(meta->settler);
    if (c->stopped || meta->config.read_only || atomic_load(&meta->refuse) ||
        (meta->config.no_settle && !hurry))
        return;
    uint64_t start = clock_monotonic_ns();
    if (start < c->hold_ns) {
        loop_timer_start(&c->timer, (c->hold_ns - start) / NS_PER_MS + 1);
        return;
    }
    if (!c->cursor)
        c->round_ns = start;
    bool more = true;
    while (more && c->active < PARALLEL)
        more = look_on(c, hurry);
    if (more)
        return; /* the end of a job looks on */
    uint64_t end = clock_monotonic_ns();
    if (!hurry && c->hold_ns < end)
        c->hold_ns = end + MAX(ROUND_NS, 10 * (end - c->round_ns));
    if (!c->wake_ns)
        return; /* a change looks again */
    uint64_t now = meta_time_ns(meta), wake = c->wake_ns;
    c->wake_ns = 0;
    loop_timer_start(&c->timer, (wake > now ? (wake - now) / NS_PER_MS : 0) + 1);
}

static void run_again(struct loop_task *task)
{
    struct carrier *c = container_of(task, struct carrier, again);
    c->again_posted = false;
    pump(c);
}

static void pump_soon(struct carrier *c)
{
    if (c->again_posted)
        return;
    c->again_posted = true;
    c->again.run = run_again;
    loop_post(c->meta->work, &c->again);
}

static void run_timer(struct loop_timer *timer)
{
    pump(container_of(timer, struct carrier, timer));
}

void carrier_kick(struct carrier *c)
{
    pump(c);
}

int carrier_wait(struct carrier *c, uint64_t top, uint64_t asked_ns, char *reason, size_t cap)
{
    struct engine_carry rows[STEP];
    uint64_t after = 0;
    for (;;) {
        int count = engine_carry_rows(c->meta->engine, after, rows, STEP);
        if (count <= 0)
            return count;
        for (int i = 0; i < count; i++) {
            after = rows[i].ino;
            if (top != META_ROOT_INO && engine_below(c->meta->engine, rows[i].ino, top) <= 0)
                continue;
            if (!c->active && c->failed_ns >= asked_ns && c->failed_ns) {
                snprintf(reason, cap, "%s", c->last_error);
                return -EIO;
            }
            if (asked_ns > c->failed_ns)
                c->hold_ns = 0;
            pump(c);
            return 1;
        }
    }
}

/* Life */

static void init_timer(void *arg)
{
    struct carrier *c = arg;
    loop_timer_init(c->meta->work, &c->timer, run_timer);
}

int carrier_new(struct meta *meta, struct carrier **out)
{
    struct carrier *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->meta = meta;
    loop_call(meta->work, init_timer, c);
    *out = c;
    return 0;
}

void carrier_stop(struct carrier *c)
{
    c->stopped = true;
    loop_timer_close(&c->timer, NULL);
}

void carrier_free(struct carrier *c)
{
    if (!c)
        return;
    assert(!c->jobs);
    free(c);
}

void carrier_status(const struct carrier *c, json_t *out)
{
    json_object_set_new(out, "written", json_integer((json_int_t)c->written));
    json_object_set_new(out, "removed", json_integer((json_int_t)c->removed));
    json_object_set_new(out, "failed_tries", json_integer((json_int_t)c->failed));
    json_object_set_new(out, "last_error", json_string(c->last_error));
}
