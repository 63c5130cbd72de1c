#include "fs/data.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "buffers.h"
#include "cache/cache.h"
#include "durability.h"
#include "file.h"
#include "inlined.h"
#include "passthrough.h"
#include "staging.h"
#include "upload.h"

/* So many pages in pieces: at its next open the kernel reads the file anew. */
#define CUT_PAGES_MANY 2

static void file_free(struct file *file)
{
    assert(!file->pass && !file->staging && !file->upload && !file->flush_wanted &&
           !file->extents_waiters);
    file_extents_unref(file->extents);
    pthread_mutex_destroy(&file->lock);
    free(file);
}

struct file *file_ref(struct file *file)
{
    atomic_fetch_add_explicit(&file->refs, 1, memory_order_relaxed);
    return file;
}

struct file *file_get(struct data *data, uint64_t ino)
{
    if (atomic_load_explicit(&data->file_count, memory_order_acquire) == 0)
        return NULL;
    struct file *file;
    pthread_mutex_lock(&data->lock);
    HASH_FIND(hh, data->files, &ino, sizeof(ino), file);
    if (file)
        file_ref(file);
    pthread_mutex_unlock(&data->lock);
    return file;
}

static struct data_kept *kept_slot(struct data *data, uint64_t ino)
{
    return &data->kept[ino % DATA_KEPT_SLOTS];
}

bool data_was_read(struct data *data, uint64_t ino)
{
    struct file *file;
    pthread_mutex_lock(&data->lock);
    HASH_FIND(hh, data->files, &ino, sizeof(ino), file);
    bool was = !file && kept_slot(data, ino)->ino == ino && kept_slot(data, ino)->read;
    pthread_mutex_unlock(&data->lock);
    return was;
}

static struct file *file_new(struct data *data, const struct meta_attr *attr)
{
    struct file *file = calloc(1, sizeof(*file));
    if (!file)
        return NULL;
    const struct data_kept *kept = kept_slot(data, attr->ino);
    file->data = data;
    file->ino = attr->ino;
    atomic_init(&file->refs, 1);
    pthread_mutex_init(&file->lock, NULL);
    file->attr = *attr;
    file->size = file->committed_size = attr->size;
    file->mtime_ns = attr->mtime_ns;
    file->ctime_ns = attr->ctime_ns;
    file->data_version = attr->data_version;
    file->unlinked = attr->nlink == 0;
    file->truncated_to = UINT64_MAX;
    file->cache_stale =
        kept->ino != attr->ino || kept->data_version != attr->data_version || !kept->pages;
    file->picks = !file->cache_stale && kept->picks;
    file->extents = file_extents_take_ahead_locked(data, attr);
    return file;
}

/* The attributes were asked for before the last commit of a handle that is gone since: with its old
 * size the file would be cut. Said once only, as nothing else is known after it. */
static bool is_late(struct data *data, const struct meta_attr *attr)
{
    struct data_kept *kept = kept_slot(data, attr->ino);
    if (kept->ino != attr->ino || kept->data_version <= attr->data_version)
        return false;
    *kept = (struct data_kept){0};
    return true;
}

void file_note_version(struct data *data, uint64_t ino, uint64_t data_version)
{
    struct file *file;
    pthread_mutex_lock(&data->lock);
    HASH_FIND(hh, data->files, &ino, sizeof(ino), file);
    if (!file)
        *kept_slot(data, ino) = (struct data_kept){.ino = ino, .data_version = data_version};
    pthread_mutex_unlock(&data->lock);
}

int file_make(struct data *data, const struct meta_attr *attr, struct file **out)
{
    int rc = 0;
    struct file *file;
    pthread_mutex_lock(&data->lock);
    HASH_FIND(hh, data->files, &attr->ino, sizeof(attr->ino), file);
    if (file) {
        file_ref(file);
    } else if (is_late(data, attr)) {
        rc = -EAGAIN;
    } else if ((file = file_new(data, attr))) {
        HASH_ADD(hh, data->files, ino, sizeof(file->ino), file);
        atomic_fetch_add_explicit(&data->file_count, 1, memory_order_release);
    } else {
        rc = -ENOMEM;
    }
    pthread_mutex_unlock(&data->lock);
    if (!rc)
        *out = file;
    return rc;
}

void file_put(struct file *file)
{
    if (!file)
        return;
    unsigned refs = atomic_load_explicit(&file->refs, memory_order_relaxed);
    while (refs > 1)
        if (atomic_compare_exchange_weak_explicit(&file->refs, &refs, refs - 1,
                                                  memory_order_acq_rel, memory_order_relaxed))
            return;
    /* Perhaps the last one: only under the table lock can nobody find the file any more. */
    struct data *data = file->data;
    pthread_mutex_lock(&data->lock);
    if (atomic_fetch_sub_explicit(&file->refs, 1, memory_order_acq_rel) != 1) {
        pthread_mutex_unlock(&data->lock);
        return;
    }
    HASH_DEL(data->files, file);
    if (!file->unlinked)
        inlined_put(data->inlined, file->ino, file->extents);
    atomic_fetch_sub_explicit(&data->file_count, 1, memory_order_release);
    *kept_slot(data, file->ino) = (struct data_kept){.ino = file->ino,
                                                     .data_version = file->data_version,
                                                     .pages = !file->cache_stale,
                                                     .read = !file->cache_stale,
                                                     .picks = file->picks};
    if (!data->files)
        pthread_cond_broadcast(&data->files_gone);
    pthread_mutex_unlock(&data->lock);
    /* `data` may be gone from here on. */
    file_free(file);
}

void file_dirty_update(struct file *file)
{
    struct data *data = file->data;
    bool removed = false;
    pthread_mutex_lock(&data->lock);
    pthread_mutex_lock(&file->lock);
    bool dirty = file->staging != NULL;
    enum data_durability durability = file->durability;
    pthread_mutex_unlock(&file->lock);
    _Atomic uint64_t *const counts[] = {NULL, &data->local_files, &data->scratch_files};
    if (dirty && !file->in_dirty) {
        file->in_dirty = true;
        file->dirty_as = durability;
        if (counts[durability])
            atomic_fetch_add(counts[durability], 1);
        file_ref(file);
        DL_APPEND2(data->dirty, file, dirty_prev, dirty_next);
        atomic_fetch_add_explicit(&data->dirty_files, 1, memory_order_relaxed);
    } else if (!dirty && file->in_dirty) {
        file->in_dirty = false;
        if (counts[file->dirty_as])
            atomic_fetch_sub(counts[file->dirty_as], 1);
        DL_DELETE2(data->dirty, file, dirty_prev, dirty_next);
        atomic_fetch_sub_explicit(&data->dirty_files, 1, memory_order_relaxed);
        removed = true;
    }
    pthread_mutex_unlock(&data->lock);
    if (removed)
        file_put(file);
}

void file_other_size_locked(struct file *file, uint64_t before, uint64_t size)
{
    uint64_t end = 0;
    if (!file->data->inlined || file->truncated_to != UINT64_MAX || pass_is_staged_locked(file))
        return;
    for (struct staging_range r; staging_next(file->staging, end, &r);)
        end = r.offset + r.length;
    size = MAX(size, file->size > MAX(before, end) ? file->size : end);
    if (file->size != size && staging_set_size(file->staging, size, file->mtime_ns) == 0)
        file->size = size;
}

void file_refresh_locked(struct file *file, const struct meta_attr *attr)
{
    if (attr->data_version >= file->data_version)
        file->attr = *attr;
    if (attr->data_version <= file->data_version)
        return;
    uint64_t before = file->committed_size;
    file->data_version = attr->data_version;
    file->committed_size = attr->size;
    file_extents_drop_locked(file);
    pass_rewritten_locked(file);
    if (!file->staging) {
        file->size = attr->size;
        file->mtime_ns = attr->mtime_ns;
        file->ctime_ns = attr->ctime_ns;
    } else {
        file_other_size_locked(file, before, attr->size);
    }
}

/* A scratch file is staged from its open on: so the next process knows of it, and removes it. */
static void choose_locked(struct file *file, enum data_durability durability, bool *new)
{
    if (file->staging)
        return;
    file->durability = durability;
    if (durability == DATA_SCRATCH && write_need_staging_locked(file, new))
        file->durability = DATA_STORE;
}

int data_file_open(struct data *data, const struct meta_attr *attr, bool writable,
                   struct data_handle **out)
{
    struct data_handle *handle = calloc(1, sizeof(*handle));
    if (!handle)
        return -ENOMEM;
    int rc = file_make(data, attr, &handle->file);
    if (rc) {
        free(handle);
        return rc;
    }
    struct file *file = handle->file;
    handle->writable = writable;
    bool chooses = writable && data->area && (data->rules || data->config.durability != DATA_STORE);
    enum data_durability durability =
        chooses ? durability_of(data, attr->ino, attr->size == 0) : DATA_STORE;
    bool new = false;
    pthread_mutex_lock(&file->lock);
    if (file->giving_up) { /* its upload ends soon */
        pthread_mutex_unlock(&file->lock);
        file_put(file);
        free(handle);
        return -ESTALE;
    }
    if (!file->upload)
        file_refresh_locked(file, attr);
    if (chooses)
        choose_locked(file, durability, &new);
    file->handles++;
    handle->lost = file->lost;
    file->writers += writable;
    handle->outside_changes = file->outside_changes;
    handle->keep_cache = !file->cache_stale;
    file->cache_stale = false;
    pthread_mutex_unlock(&file->lock);
    if (new) {
        file_dirty_update(file);
        durability_hold(data, file->ino, true);
    }
    *out = handle;
    return 0;
}

bool data_handle_is_local(const struct data_handle *handle)
{
    pthread_mutex_lock(&handle->file->lock);
    bool local = handle->file->durability == DATA_LOCAL;
    pthread_mutex_unlock(&handle->file->lock);
    return local;
}

/* Nobody can reach the bytes of an unlinked file without a handle. */
static void drop_unlinked(struct file *file)
{
    pthread_mutex_lock(&file->lock);
    bool drop = file->unlinked && file->handles == 0 && file->staging && !file->upload;
    if (drop) {
        /* Under the lock: a new staging would have the same name. */
        staging_free(TAKE_PTR(file->staging));
        file->size = file->committed_size;
        file_quota_update_locked(file);
    }
    pthread_mutex_unlock(&file->lock);
    if (drop)
        file_dirty_update(file);
}

/* Pages that the kernel has for none it would ask for one by one, between those that it has. If
 * there are several, it is less to ask for the whole file: the next open lets go of its pages. */
static void forget_pieces_locked(struct file *file)
{
    if (file->writers)
        return;
    if (file->cut_pages >= CUT_PAGES_MANY && !file->data->config.whole_pages)
        file->cache_stale = true;
    file->cut_pages = 0;
}

void data_file_release(struct data_handle *handle)
{
    struct file *file = handle->file;
    read_streams_free(handle->streams);
    pass_release(handle);
    pthread_mutex_lock(&file->lock);
    file->handles--;
    file->writers -= handle->writable;
    forget_pieces_locked(file);
    bool flush = handle->writable && file->writers == 0 && file->staging && !file->unlinked;
    bool drop = file->unlinked && file->handles == 0;
    if (drop)
        upload_stop_locked(file, 0);
    pthread_mutex_unlock(&file->lock);
    free(handle);
    if (flush)
        durability_written(file);
    if (drop) {
        upload_stopped(file);
        drop_unlinked(file);
    }
    file_put(file);
}

uint64_t data_handle_ino(const struct data_handle *handle)
{
    return handle->file->ino;
}

bool data_handle_keep_cache(const struct data_handle *handle)
{
    return handle->keep_cache;
}

void data_overlay(struct data *data, struct meta_attr *attr)
{
    struct file *file = file_get(data, attr->ino);
    if (!file)
        return;
    pthread_mutex_lock(&file->lock);
    pass_look_locked(file);
    /* An answer that left the metadata before a commit of ours is older than what is known here. */
    bool older = attr->data_version < file->data_version;
    /* Another mount may have written it. (While an upload of ours ends, its own answer says it.) */
    if (!older && !file->upload)
        file_refresh_locked(file, attr);
    else if (!older)
        file->attr = *attr;
    if (file->staging || older)
        attr->size = file->size;
    if ((file->staging && file->time_dirty) || older) {
        attr->mtime_ns = file->mtime_ns;
        attr->ctime_ns = MAX(attr->ctime_ns, file->ctime_ns);
    }
    pthread_mutex_unlock(&file->lock);
    file_put(file);
}

void data_times_set(struct data *data, uint64_t ino, uint64_t mtime_ns, uint64_t ctime_ns)
{
    struct file *file = file_get(data, ino);
    if (!file)
        return;
    pthread_mutex_lock(&file->lock);
    pass_look_locked(file);
    file->mtime_ns = mtime_ns;
    file->ctime_ns = ctime_ns;
    file->time_dirty = false;
    if (file->staging)
        staging_set_time(file->staging, mtime_ns);
    upload_times_set_locked(file);
    pthread_mutex_unlock(&file->lock);
    file_put(file);
}

void data_unlinked(struct data *data, uint64_t ino)
{
    inlined_gone(data->inlined, ino);
    struct file *file = file_get(data, ino);
    if (!file)
        return;
    pthread_mutex_lock(&file->lock);
    file->unlinked = true;
    upload_stop_locked(file, 0);
    pthread_mutex_unlock(&file->lock);
    upload_stopped(file);
    drop_unlinked(file);
    file_put(file);
}

void data_linked(struct data *data, uint64_t ino)
{
    struct file *file = file_get(data, ino);
    if (!file)
        return;
    pthread_mutex_lock(&file->lock);
    file->unlinked = false;
    pthread_mutex_unlock(&file->lock);
    file_put(file);
}

bool data_is_unlinked(struct data *data, uint64_t ino)
{
    struct file *file = file_get(data, ino);
    if (!file)
        return false;
    pthread_mutex_lock(&file->lock);
    bool unlinked = file->unlinked;
    pthread_mutex_unlock(&file->lock);
    file_put(file);
    return unlinked;
}

struct refresh {
    struct meta_request request;
    struct file *file;
    uint64_t drops; /* file->extents_drops when it was asked */
};

static void refresh_done(struct meta_request *request)
{
    struct refresh *refresh = container_of(request, struct refresh, request);
    if (request->result == 0) {
        struct file *file = refresh->file;
        pthread_mutex_lock(&file->lock);
        bool newest = refresh->drops == file->extents_drops;
        file_refresh_locked(file, &request->reply.attr);
        if (newest)
            file->size_in_doubt = false;
        /* Who reads it next need not ask again. */
        if (newest && request->op.kind == META_EXTENTS && !file->extents && !file->extents_asked &&
            !file->upload && request->reply.attr.data_version == file->data_version)
            file->extents = file_extents_from(&request->reply);
        pthread_mutex_unlock(&file->lock);
    }
    meta_reply_done(&request->reply);
    file_put(refresh->file);
    free(refresh);
}

enum how { MOVED, REWRITTEN, OUTSIDE };

static void extents_changed(struct data *data, uint64_t ino, enum how how)
{
    atomic_fetch_add(&data->changes, 1);
    inlined_moved(data->inlined, ino);
    struct file *file = file_get(data, ino);
    if (!file) {
        if (how != MOVED) {
            pthread_mutex_lock(&data->lock);
            if (kept_slot(data, ino)->ino == ino)
                kept_slot(data, ino)->pages = false;
            pthread_mutex_unlock(&data->lock);
        }
        return;
    }
    pthread_mutex_lock(&file->lock);
    file_extents_drop_locked(file);
    if (how != MOVED)
        file->cache_stale = file->size_in_doubt = true;
    uint64_t drops = file->extents_drops;
    if (how == OUTSIDE) {
        pass_stale_locked(file);
        file->outside_changes++;
    } else if (how == REWRITTEN) {
        pass_rewritten_locked(file);
    } else {
        pass_moved_locked(file);
    }
    pthread_mutex_unlock(&file->lock);
    struct refresh *refresh = how != MOVED ? calloc(1, sizeof(*refresh)) : NULL;
    if (!refresh) {
        file_put(file);
        return;
    }
    refresh->file = file;
    refresh->drops = drops;
    refresh->request.op = (struct meta_op){
        .kind = META_GETATTR, .ino = ino, .flags = data->inlined ? META_OPENING : 0};
    refresh->request.done = refresh_done;
    if (meta_submit(data->meta, &refresh->request) != -EINPROGRESS)
        refresh_done(&refresh->request);
}

struct cache *data_cache(struct data *data)
{
    return data->config.cache;
}

void data_extents_changed(struct data *data, uint64_t ino, bool outside)
{
    extents_changed(data, ino, outside ? OUTSIDE : MOVED);
}

void data_settled(struct data *data, uint64_t cid, const void *bytes, size_t len)
{
    if (data->config.cache && !data->config.cache_by_name && cid)
        cache_fill(data->config.cache, cid, len, 0, bytes, len, false);
}

void data_contents_gone(struct data *data, const uint64_t *cids, size_t count)
{
    for (size_t i = 0; data->config.cache && !data->config.cache_by_name && i < count; i++)
        cache_drop(data->config.cache, cids[i]);
}

void data_content_changed(struct data *data, uint64_t ino)
{
    extents_changed(data, ino, REWRITTEN);
}

static void backlog_stats(struct data *data, struct data_stats *out)
{
    uint64_t oldest_ns = UINT64_MAX, now = clock_monotonic_ns();
    if (atomic_load(&data->local_files) == 0 && atomic_load(&data->scratch_files) == 0)
        return;
    pthread_mutex_lock(&data->lock);
    for (struct file *file = data->dirty; file; file = file->dirty_next) {
        pthread_mutex_lock(&file->lock);
        uint64_t bytes = file->staging ? staging_dirty_bytes(file->staging) : 0;
        if (file->staging && file->durability == DATA_LOCAL) {
            out->backlog_files++;
            out->backlog_bytes += bytes;
            oldest_ns = MIN(oldest_ns, file->dirty_since_ns);
        } else if (file->staging && file->durability == DATA_SCRATCH) {
            out->scratch_files++;
            out->scratch_bytes += bytes;
        }
        pthread_mutex_unlock(&file->lock);
    }
    pthread_mutex_unlock(&data->lock);
    if (out->backlog_files && now > oldest_ns)
        out->backlog_age_ms = (now - oldest_ns) / NS_PER_MS;
    out->backlog_late = atomic_load(&data->backlog_late);
}

void data_stats(struct data *data, struct data_stats *out)
{
    *out = (struct data_stats){
        .open_files = atomic_load(&data->file_count),
        .dirty_files = atomic_load(&data->dirty_files),
        .staged_bytes = data->area ? staging_area_bytes(data->area) : 0,
        .buffer_bytes = tickets_used(data->read_tickets) + tickets_used(data->upload_tickets),
        .buffer_peak_bytes = tickets_peak(data->read_tickets) + tickets_peak(data->upload_tickets),
    };
    out->dirty_bytes = out->staged_bytes;
    uint64_t sent = atomic_load_explicit(&data->sent_bytes, memory_order_relaxed);
    out->unsent_bytes = out->dirty_bytes > sent ? out->dirty_bytes - sent : 0;
    backlog_stats(data, out);
    out->unsent_bytes -= MIN(out->unsent_bytes, out->scratch_bytes);
}
