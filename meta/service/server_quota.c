#include "server_quota.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "engine/engine_quota.h"
#include "server_impl.h"

#define MORE_MAX (64ull << 20) /* given beyond what was asked for */
#define TIGHT_MS 1000          /* after a round nobody gets more than that */
#define ROUNDS_MAX 4           /* for one request */
#define PARTS_MAX (64u << 10)  /* of one session */

/* What one session has reserved for a file. */
struct quota_part {
    uint64_t session, size;
    bool more;  /* than was asked for */
    bool stale; /* not said in the round that is under way */
    struct quota_part *prev, *next;
};

struct quota_file {
    uint64_t ino;
    struct quota_part *parts;
    UT_hash_handle hh;
};

struct server_quota {
    struct quota_file *files;
    bool active;       /* there was a limit when it was last looked, */
    uint64_t turns;    /* since the volume had got its first one so often */
    uint64_t rounds;   /* so far */
    unsigned waited;   /* sessions that have not answered */
    unsigned more;     /* parts */
    uint64_t tight_ms; /* until then */
    struct job *parked;
};

int server_quota_new(struct server_volume *volume)
{
    volume->quota = calloc(1, sizeof(*volume->quota));
    return volume->quota ? 0 : -ENOMEM;
}

static void remove_part(struct server_quota *q, struct quota_file *file, struct quota_part *part)
{
    q->more -= part->more;
    DL_DELETE(file->parts, part);
    free(part);
}

static void forget_file(struct server_quota *q, struct quota_file *file)
{
    while (file->parts)
        remove_part(q, file, file->parts);
    HASH_DEL(q->files, file);
    free(file);
}

static void forget_all(struct server_quota *q)
{
    struct quota_file *file, *next;
    HASH_ITER(hh, q->files, file, next)
    {
        forget_file(q, file);
    }
}

void server_quota_free(struct server_volume *volume)
{
    if (volume->quota)
        forget_all(volume->quota);
    free(TAKE_PTR(volume->quota));
}

/* Sizes */

static struct quota_file *find_file(struct server_quota *q, uint64_t ino)
{
    struct quota_file *file;
    HASH_FIND(hh, q->files, &ino, sizeof(ino), file);
    return file;
}

static struct quota_part *find_part(const struct quota_file *file, uint64_t session)
{
    struct quota_part *part;
    DL_FOREACH(file->parts, part)
    {
        if (part->session == session)
            break;
    }
    return part;
}

static uint64_t largest(const struct quota_file *file)
{
    const struct quota_part *part;
    uint64_t size = 0;
    DL_FOREACH(file->parts, part)
    {
        size = MAX(size, part->size);
    }
    return size;
}

/* After a part has gone. */
static void shrunk(struct server_volume *volume, struct quota_file *file)
{
    if (file->parts) {
        meta_quota_reserve(volume->meta, file->ino, largest(file), true);
        return;
    }
    meta_quota_release(volume->meta, file->ino);
    forget_file(volume->quota, file);
}

static struct quota_part *need_part(struct session *session, uint64_t ino)
{
    struct server_quota *q = session->volume->quota;
    struct quota_file *file = find_file(q, ino);
    struct quota_part *part = file ? find_part(file, session->id) : NULL;
    if (part)
        return part;
    if (session->quota_parts == PARTS_MAX)
        return NULL;
    part = calloc(1, sizeof(*part));
    if (part && !file) {
        file = calloc(1, sizeof(*file));
        if (file) {
            file->ino = ino;
            HASH_ADD(hh, q->files, ino, sizeof(file->ino), file);
        }
    }
    if (!part || !file) {
        free(part);
        return NULL;
    }
    part->session = session->id;
    session->quota_parts++;
    DL_APPEND(file->parts, part);
    return part;
}

/* The part of the session becomes `size`; 0, -EDQUOT (then it is what it was), -ENOMEM. */
static int set_part(struct session *session, uint64_t ino, uint64_t size, bool force)
{
    struct server_volume *volume = session->volume;
    struct quota_part *part = need_part(session, ino);
    if (!part)
        return -ENOMEM;
    struct quota_file *file = find_file(volume->quota, ino);
    uint64_t was = part->size;
    part->size = size;
    int rc = meta_quota_reserve(volume->meta, ino, largest(file), force);
    part->stale = false;
    if (rc == 0) {
        volume->quota->more -= part->more;
        part->more = false;
        return 0;
    }
    part->size = was;
    if (was == 0) {
        session->quota_parts--;
        remove_part(volume->quota, file, part);
        if (!file->parts)
            forget_file(volume->quota, file);
    }
    return rc;
}

static void drop_part(struct session *session, uint64_t ino)
{
    struct quota_file *file = find_file(session->volume->quota, ino);
    struct quota_part *part = file ? find_part(file, session->id) : NULL;
    if (!part)
        return;
    session->quota_parts--;
    remove_part(session->volume->quota, file, part);
    shrunk(session->volume, file);
}

/* All parts of the session, or the stale ones. */
static void drop_parts(struct session *session, bool stale_only)
{
    struct quota_file *file, *next;
    HASH_ITER(hh, session->volume->quota->files, file, next)
    {
        struct quota_part *part = find_part(file, session->id);
        if (part && (part->stale || !stale_only))
            drop_part(session, file->ino);
    }
}

/* Rounds */

static bool is_ready(const struct server_volume *volume)
{
    return volume->quota->waited == 0 && volume->restored == 0;
}

static void park(struct job *job)
{
    DL_APPEND2(job->session->volume->quota->parked, job, quota_prev, quota_next);
}

static bool try_grant(struct job *job);

static void run_parked(struct server_volume *volume)
{
    struct server_quota *q = volume->quota;
    struct job *job, *last = q->parked ? q->parked->quota_prev : NULL;
    for (bool more = last != NULL; more && is_ready(volume);) {
        job = q->parked;
        more = job != last;
        DL_DELETE2(q->parked, job, quota_prev, quota_next);
        if (!job->is_task || !try_grant(job))
            job_ended(job);
    }
}

static void send_round(struct session *session, bool all)
{
    if (session->conn)
        wire_put_number(conn_out(session->conn), WIRE_QUOTA, session->quota_round << 1 | all);
}

static void ask(struct session *session, bool all)
{
    struct server_quota *q = session->volume->quota;
    if (!session->quota_round)
        q->waited++;
    session->quota_round = q->rounds;
    send_round(session, all);
}

static void ask_all(struct server_volume *volume)
{
    struct session *session, *next;
    volume->quota->rounds++;
    HASH_ITER(hh, volume->sessions, session, next)
    {
        if (!session->restored)
            ask(session, true);
    }
}

/* Those that have more than they asked for. */
static void ask_for_more(struct server_volume *volume)
{
    struct server_quota *q = volume->quota;
    q->rounds++;
    q->tight_ms = clock_monotonic_ms() + TIGHT_MS;
    for (struct quota_file *file = q->files; file; file = file->hh.next) {
        struct quota_part *part;
        DL_FOREACH(file->parts, part)
        {
            struct session *session;
            HASH_FIND(hh, volume->sessions, &part->session, sizeof(part->session), session);
            if (part->more && session && session->quota_round != q->rounds)
                ask(session, false);
        }
    }
}

static void over(struct session *session)
{
    if (!session->quota_round)
        return;
    session->quota_round = 0;
    session->volume->quota->waited--;
}

void quota_answered(struct session *session, uint64_t round)
{
    if (!round || round != session->quota_round)
        return;
    drop_parts(session, true);
    over(session);
    run_parked(session->volume);
}

void quota_session_over(struct session *session)
{
    struct server_volume *volume = session->volume;
    struct job *job, *next;
    over(session);
    DL_FOREACH_SAFE2(volume->quota->parked, job, next, quota_next)
    {
        if (job->session != session)
            continue;
        DL_DELETE2(volume->quota->parked, job, quota_prev, quota_next);
        job->task.result = -ESTALE;
        job_ended(job);
    }
    if (!volume->meta)
        return;
    drop_parts(session, false);
    run_parked(volume);
}

void quota_recovered(struct server_volume *volume)
{
    run_parked(volume);
}

static void begins(struct server_volume *volume)
{
    volume->quota->turns = engine_quota_turns(volume->meta->engine);
    volume->quota->active = meta_quota_active(volume->meta);
}

void quota_welcome(struct session *session, bool again)
{
    struct server_volume *volume = session->volume;
    struct server_quota *q = volume->quota;
    if (!q->active || !meta_quota_active(volume->meta))
        begins(volume);
    if (!q->active)
        return;
    if (!again) { /* it has nothing: nobody waits for it */
        wire_put_number(conn_out(session->conn), WIRE_QUOTA, 1);
        return;
    }
    for (struct quota_file *file = q->files; file; file = file->hh.next) {
        struct quota_part *part = find_part(file, session->id);
        if (part)
            part->stale = true;
    }
    q->rounds++;
    ask(session, true);
}

void quota_look(struct server_volume *volume)
{
    struct server_quota *q = volume->quota;
    if (!q->active || !volume->meta)
        return;
    /* The last limit may have gone, and a first one come, in one group of changes. */
    if (meta_quota_active(volume->meta) && engine_quota_turns(volume->meta->engine) == q->turns)
        return;
    q->active = false;
    forget_all(q); /* as the engine has */
}

bool quota_was_set(struct job *job)
{
    struct server_volume *volume = job->session->volume;
    struct server_quota *q = volume->quota;
    if (q->active || !volume->meta || !meta_quota_active(volume->meta))
        return false;
    begins(volume);
    ask_all(volume);
    if (is_ready(volume))
        return false;
    park(job);
    return true;
}

/* Requests */

/* True: it waits. */
static bool try_grant(struct job *job)
{
    struct session *session = job->session;
    struct server_quota *q = session->volume->quota;
    uint64_t ino = job->task.ino, size = job->quota_size;
    job->task.remaining = size;
    if (session->ended || !session->volume->meta || !meta_quota_active(session->volume->meta)) {
        job->task.result = session->ended ? -ESTALE : 0;
        return false;
    }
    if (!is_ready(session->volume)) {
        park(job);
        return true;
    }
    const struct quota_file *file = find_file(q, ino);
    bool stream = file && find_part(file, session->id);
    if (stream && clock_monotonic_ms() >= q->tight_ms) {
        uint64_t more = size + MIN(size, MORE_MAX);
        if (set_part(session, ino, more, false) == 0) {
            find_part(find_file(q, ino), session->id)->more = true;
            q->more++;
            job->task.remaining = more;
            return false;
        }
    }
    job->task.result = set_part(session, ino, size, false);
    if (job->task.result != -EDQUOT || q->more == 0 || job->quota_rounds++ == ROUNDS_MAX)
        return false;
    job->task.result = 0;
    ask_for_more(session->volume);
    park(job);
    return true;
}

bool quota_take(struct job *job, uint64_t size)
{
    struct session *session = job->session;
    job->quota_size = size;
    if (job->task_kind == WIRE_TASK_RESERVE)
        return try_grant(job);
    if (size == 0)
        drop_part(session, job->task.ino);
    else if (meta_quota_active(session->volume->meta))
        job->task.result = set_part(session, job->task.ino, size, true);
    return false;
}
