#include "passthrough_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/pool.h"
#include "cache/cache.h"
#include "durability.h"
#include "read_op.h"
#include "staging.h"
#include "upload.h"

/* Smaller files are read in one request, which costs less than naming a backing file. */
#define PASS_SIZE_MIN (64u << 10)

/* --- Who reads and writes how */

void data_passthrough_set(struct data *data, const struct data_passthrough *kernel)
{
    data->passthrough = *kernel;
    atomic_store(&data->passthrough_on, data->config.cache != NULL);
    atomic_store(&data->staged_pass_on, data_stages_locally(data));
}

void data_direct_set(struct data *data)
{
    data->direct_new = data->config.cache != NULL;
}

bool data_stages_locally(const struct data *data)
{
    return data->area && (data->rules || data->config.durability != DATA_STORE);
}

static void switch_off(struct data *data, const char *what, int rc)
{
    if (atomic_exchange(&data->passthrough_on, false))
        log_warn("reads are not passed through", "what=%s reason=\"%s\"", what, strerror(-rc));
}

/* The file is one whole object: its content id, or 0. */
static uint64_t whole_object_locked(const struct file *file)
{
    const struct file_extents *extents = file->extents;
    if (extents->reply.extent_count != 1 || extents->size != file->size)
        return 0;
    const struct meta_extent *extent = &extents->reply.extents[0];
    if (extent->kind != META_EXTENT_OBJECT || extent->offset != 0 || extent->object_offset != 0 ||
        extent->length != file->size)
        return 0;
    const struct meta_object *object = read_find_object(extents, extent->object);
    return object && object->size == file->size ? read_cid(file->data->reads, object) : 0;
}

static bool eligible_locked(const struct data_handle *handle, int flags)
{
    const struct file *file = handle->file;
    return atomic_load(&file->data->passthrough_on) && !file->pass && !handle->writable &&
           !(flags & O_TRUNC) && file->cached_handles == 0 && file->writers == 0 &&
           !file->staging && !file->upload && file->truncated_to == UINT64_MAX &&
           file->size >= PASS_SIZE_MIN && handle->outside_changes == file->outside_changes;
}

/* A mapping of memory that is no file is never cleaned: what is written to it could not be seen. */
static bool can_back(int fd)
{
    struct statfs st;
    return fstatfs(fd, &st) == 0 && st.f_type != TMPFS_MAGIC;
}

/* The first handle with passthrough. False: it is not to be had now. */
static bool begin_locked(struct data_handle *handle)
{
    struct file *file = handle->file;
    struct data *data = file->data;
    uint64_t cid = whole_object_locked(file);
    int fd = cid ? cache_backing_get(data->config.cache, cid, file->ino) : -ENOENT;
    if (fd == -EOPNOTSUPP)
        switch_off(data, "cache-disk", fd);
    if (fd < 0)
        return false;
    struct pass *pass = calloc(1, sizeof(*pass));
    int id = !pass ? -ENOMEM : can_back(fd) ? data->passthrough.open(data->passthrough.arg, fd) : 0;
    if (id == 0)
        id = -EOPNOTSUPP;
    if (id < 0) {
        if (pass)
            switch_off(data, "kernel", id);
        cache_backing_put(data->config.cache, cid);
        free(pass);
        return false;
    }
    *pass = (struct pass){.file = file,
                          .cid = cid,
                          .fd = fd,
                          .id = id,
                          .size = file->size,
                          .base = file_extents_ref(file->extents)};
    file->pass = pass;
    return true;
}

/* Who only writes to a new file has nothing from the kernel's pages: they cost it a copy, a request
 * for each piece of a page, and a question for file capabilities. What is appended may be read for
 * long while it grows, and the pages help then. */
static bool is_direct_locked(const struct data_handle *handle, int flags)
{
    const struct file *file = handle->file;
    return file->direct_writers > 0 ||
           (file->data->direct_new &&
            (flags & (O_ACCMODE | O_CREAT | O_APPEND)) == (O_WRONLY | O_CREAT));
}

static void begin_cached_locked(struct data_handle *handle, int flags)
{
    handle->mode = HANDLE_CACHED;
    handle->direct = is_direct_locked(handle, flags);
    handle->file->cached_handles++;
    handle->file->direct_writers += handle->direct && handle->writable;
}

/* -EAGAIN: the extents must be known. */
static int decide_locked(struct data_handle *handle, int flags, bool *new)
{
    struct file *file = handle->file;
    struct pass *pass = file->pass;
    bool rdwr = (flags & O_ACCMODE) == O_RDWR;
    if (pass && pass->handles > 0) {
        if (pass->stale && rdwr)
            return -ESTALE; /* he could map, and write into, what is not the file any more */
        bool change = !pass->view && (handle->writable || (flags & O_TRUNC));
        int rc = change ? pass_before_change_locked(file) : 0;
        if (rc < 0)
            return rc;
        pass->rdwr |= rdwr;
    } else if (pass_staged_eligible_locked(handle)) {
        pass = pass_staged_begin_locked(handle, new) ? file->pass : NULL;
        if (pass)
            pass->rdwr = rdwr;
    } else if (!eligible_locked(handle, flags)) {
        pass = NULL;
    } else if (!file->extents) {
        return -EAGAIN;
    } else {
        pass = begin_locked(handle) ? file->pass : NULL;
    }
    handle->rdwr = rdwr;
    if (!pass) {
        begin_cached_locked(handle, flags);
        return 0;
    }
    handle->mode = HANDLE_PASS;
    handle->direct = !pass->view && (handle->writable || pass->stale || pass->applying);
    pass->handles++;
    return 0;
}

struct mode_ask {
    struct file_extents_wait extents;
    struct data_handle *handle;
    struct data_request *request;
    int flags;
};

/* The extents are there, or are not to be had. */
static int decide(struct data_handle *handle, int flags, bool last)
{
    bool new = false;
    pthread_mutex_lock(&handle->file->lock);
    int rc = decide_locked(handle, flags, &new);
    if (rc == -EAGAIN && last) {
        /* They were dropped again meanwhile. */
        begin_cached_locked(handle, flags);
        rc = 0;
    }
    pthread_mutex_unlock(&handle->file->lock);
    if (new)
        file_dirty_update(handle->file);
    return rc;
}

static int mode_decided(struct mode_ask *ask)
{
    struct data_handle *handle = ask->handle;
    if (ask->extents.result == 0)
        file_extents_unref(TAKE_PTR(ask->extents.extents));
    int rc = decide(handle, ask->flags, true);
    free(ask);
    return rc;
}

static void extents_there(struct file_extents_wait *wait)
{
    struct mode_ask *ask = container_of(wait, struct mode_ask, extents);
    struct data_request *request = ask->request;
    request->result = mode_decided(ask);
    request->done(request);
}

int data_handle_mode(struct data_handle *handle, int flags, struct data_request *request)
{
    int rc = decide(handle, flags, !request);
    if (rc != -EAGAIN)
        return rc;
    struct mode_ask *ask = calloc(1, sizeof(*ask));
    if (!ask)
        return -ENOMEM;
    *ask = (struct mode_ask){
        .extents.done = extents_there, .handle = handle, .request = request, .flags = flags};
    rc = file_extents_get(handle->file, &ask->extents);
    if (rc == -EINPROGRESS)
        return rc;
    ask->extents.result = rc;
    return mode_decided(ask);
}

int data_handle_passthrough(const struct data_handle *handle, bool *direct)
{
    *direct = handle->direct;
    return handle->mode == HANDLE_PASS ? handle->file->pass->id : 0;
}

bool data_handle_left_pages(const struct data_handle *handle)
{
    if (!handle->direct || handle->mode == HANDLE_PASS)
        return false;
    pthread_mutex_lock(&handle->file->lock);
    bool others = handle->file->handles > 1;
    pthread_mutex_unlock(&handle->file->lock);
    return others;
}

/* --- Changes of a backing file */

static struct timespec change_time(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? st.st_ctim : (struct timespec){0};
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

int pass_before_change_locked(struct file *file)
{
    struct pass *pass = file->pass;
    if (pass && pass->view) {
        int rc = pass_take_locked(file);
        return rc == -EDQUOT ? 0 : rc;
    }
    if (!pass || pass->cid == 0 || pass->stale)
        return 0;
    int fd = cache_backing_detach(file->data->config.cache, pass->cid, &pass->sums);
    if (fd < 0) {
        log_error("a backing file cannot be detached", "ino=%llu error=%s",
                  (unsigned long long)file->ino, strerror(-fd));
        return -EIO;
    }
    pass->cid = 0;
    pass->fd = fd;
    pass->page_count = (pass->size + CACHE_PAGE - 1) / CACHE_PAGE;
    pass->changed = change_time(fd);
    return 0;
}

static void changed_begin(struct pass *pass)
{
    if (pass->rdwr && !same_time(pass->changed, change_time(pass->fd)))
        pass->suspicious = true;
}

static void changed_end(struct pass *pass, int rc)
{
    if (pass->rdwr)
        pass->changed = change_time(pass->fd);
    if (rc == 0)
        return;
    log_error("a backing file cannot be written; its readers keep the old content",
              "ino=%llu error=%s", (unsigned long long)pass->file->ino, strerror(-rc));
    pass->stale = true;
}

static void forget_pages(struct pass *pass, uint64_t offset, uint64_t end)
{
    uint64_t last = MIN((end + CACHE_PAGE - 1) / CACHE_PAGE, pass->page_count);
    for (uint64_t page = offset / CACHE_PAGE; page < last; page++)
        pass->sums[page].known = false;
}

static int write_all(int fd, const char *bytes, uint64_t length, uint64_t offset)
{
    while (length > 0) {
        ssize_t n = pwrite(fd, bytes, length, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        bytes += n;
        offset += (uint64_t)n;
        length -= (uint64_t)n;
    }
    return 0;
}

void pass_changed_locked(struct file *file, uint64_t offset, uint64_t length)
{
    struct pass *pass = file->pass;
    if (!pass || pass->stale || pass->view)
        return;
    char room[16u << 10];
    uint64_t end = offset + length;
    int rc = 0;
    changed_begin(pass);
    forget_pages(pass, offset, end);
    while (offset < end && rc == 0) {
        uint64_t n = MIN(end - offset, sizeof(room));
        rc = staging_read(file->staging, offset, n, room);
        if (rc == 0)
            rc = write_all(pass->fd, room, n, offset);
        offset += n;
    }
    changed_end(pass, rc);
}

int pass_write_locked(struct file *file, const void *bytes, uint64_t offset, uint64_t length)
{
    struct pass *pass = file->pass;
    uint64_t end = offset + length;
    changed_begin(pass);
    forget_pages(pass, offset, end);
    int rc = write_all(pass->fd, bytes, length, offset);
    changed_end(pass, rc);
    struct staging_range range;
    while (rc == 0 && file->staging && staging_next(file->staging, offset, &range) &&
           range.offset < end) {
        uint64_t from = MAX(range.offset, offset), to = MIN(range.offset + range.length, end);
        pass_changed_locked(file, from, to - from);
        offset = to;
    }
    return rc;
}

void pass_resized_locked(struct file *file)
{
    struct pass *pass = file->pass;
    if (!pass || pass->stale)
        return;
    changed_begin(pass);
    if (!pass->view)
        forget_pages(pass, file->size, UINT64_MAX - CACHE_PAGE);
    changed_end(pass, ftruncate(pass->fd, (off_t)file->size) < 0 ? -errno : 0);
}

void pass_stale_locked(struct file *file)
{
    if (file->pass && !file->pass->view)
        file->pass->stale = true;
}

/* --- What mappings changed */

/* Reads a page of the backing file; 0 or -errno. *length: of the page, at the end of the file. */
static int read_page(int fd, uint64_t number, char *page, size_t *length)
{
    size_t got = 0;
    while (got < CACHE_PAGE) {
        ssize_t n = pread(fd, page + got, CACHE_PAGE - got, (off_t)(number * CACHE_PAGE + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    memset(page + got, 0, CACHE_PAGE - got);
    *length = got;
    return 0;
}

static bool as_known(const struct pass *pass, uint64_t number, const char *page, size_t length)
{
    return number < pass->page_count && pass->sums[number].known &&
           pass->sums[number].crc == cache_page_crc(page, length);
}

/* Stages a page that is not as it was. *more: there may be another one after it. */
static int absorb_page(struct file *file, uint64_t number, char *page, bool *new, bool *more)
{
    size_t length;
    struct pass *pass = file->pass;
    int rc = read_page(pass->fd, number, page, &length);
    *more = rc == 0 && length == CACHE_PAGE;
    if (rc < 0 || length == 0 || as_known(pass, number, page, length))
        return rc;
    /* Again, and nobody else changes it meanwhile. */
    pthread_mutex_lock(&file->lock);
    rc = read_page(pass->fd, number, page, &length);
    uint64_t offset = number * CACHE_PAGE;
    length = MIN(length, file->size - MIN(file->size, offset));
    if (rc == 0 && length > 0 && !as_known(pass, number, page, length)) {
        rc = write_bytes_locked(file, page, offset, length, new);
        if (rc == 0 && number < pass->page_count) {
            memset(page + length, 0, CACHE_PAGE - length);
            pass->sums[number] = (struct cache_page_sum){cache_page_crc(page, length), true};
        }
    }
    pthread_mutex_unlock(&file->lock);
    return rc;
}

/* On a thread that may block. file->pass is there and stays. `surely`: also if nothing seems to
 * have changed. */
static int absorb(struct file *file, bool surely)
{
    struct pass *pass = file->pass;
    /* Write-protects the mapped pages: who writes to them again changes the time again. */
    sync_file_range(pass->fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE);
    pthread_mutex_lock(&file->lock);
    struct timespec now = change_time(pass->fd);
    bool skip = pass->stale || !pass->rdwr || pass->cid != 0 ||
                (!surely && !pass->suspicious && same_time(now, pass->changed));
    pass->suspicious = false;
    pass->changed = now;
    pthread_mutex_unlock(&file->lock);
    if (skip)
        return 0;
    bool new = false, more = true;
    char *page = malloc(CACHE_PAGE);
    int rc = page ? 0 : -ENOMEM;
    for (uint64_t number = 0; rc == 0 && more; number++) {
        bool made = false;
        rc = absorb_page(file, number, page, &made, &more);
        new |= made;
    }
    free(page);
    if (rc < 0) {
        pthread_mutex_lock(&file->lock);
        pass->suspicious = true;
        pthread_mutex_unlock(&file->lock);
        log_error("what was written through a mapping cannot be staged", "ino=%llu error=%s",
                  (unsigned long long)file->ino, strerror(-rc));
    }
    if (new)
        file_dirty_update(file);
    return rc;
}

struct pass_flush {
    struct pool_task task;
    struct file *file; /* the handle's: it stays until the flush was answered */
    struct data_request *request;
};

static void run_flush(struct pool_task *task)
{
    struct pass_flush *flush = container_of(task, struct pass_flush, task);
    struct data_request *request = flush->request;
    int rc = absorb(flush->file, false);
    if (rc == 0)
        rc = durability_flush(flush->file, request);
    free(flush);
    if (rc == -EINPROGRESS)
        return;
    request->result = rc < 0 ? -EIO : 0;
    request->done(request);
}

bool pass_flush(struct data_handle *handle, struct data_request *request)
{
    if (handle->mode != HANDLE_PASS || !handle->rdwr || handle->file->pass->view)
        return false;
    struct pass_flush *flush = calloc(1, sizeof(*flush));
    if (!flush)
        return false;
    *flush = (struct pass_flush){.task.run = run_flush, .file = handle->file, .request = request};
    request->may_wait = false; /* it goes on in another thread */
    pool_submit(handle->file->data->pool, &flush->task);
    return true;
}

/* --- Reads of handles whose I/O comes here */

struct pass_answer {
    struct data_buffer buffer;
};

static void answer_put(struct data_buffer *buffer)
{
    free(container_of(buffer, struct pass_answer, buffer));
}

bool pass_read(struct data_handle *handle, uint64_t offset, uint64_t length,
               struct data_request *request)
{
    if (handle->mode != HANDLE_PASS)
        return false;
    struct file *file = handle->file;
    if (file->pass->view) {
        pthread_mutex_lock(&file->lock);
        pass_take_locked(file);
        pthread_mutex_unlock(&file->lock);
        return false;
    }
    struct pass_answer *answer = calloc(1, sizeof(*answer));
    if (!answer)
        return false;
    pthread_mutex_lock(&file->lock);
    const struct pass *pass = file->pass;
    bool here = !pass->stale && !pass->applying && pass->cid == 0;
    answer->buffer = (struct data_buffer){
        .fd = pass->fd,
        .fd_offset = offset,
        .length = MIN(length, file->size - MIN(file->size, offset)),
        .put = answer_put,
    };
    pthread_mutex_unlock(&file->lock);
    if (!here) {
        free(answer);
        return false;
    }
    request->result = 0;
    request->buffer = &answer->buffer;
    return true;
}

/* --- The end */

/* `over`: nobody can write to a staging any more. */
static void end_locked(struct file *file, bool over)
{
    if (file->pass->view) {
        pass_staged_end_locked(file, over);
        return;
    }
    struct pass *pass = TAKE_PTR(file->pass);
    if (pass->id)
        file->data->passthrough.close(file->data->passthrough.arg, pass->id);
    if (pass->cid) {
        cache_backing_put(file->data->config.cache, pass->cid);
    } else {
        close(pass->fd);
        /* The kernel's pages of this inode, from before, are older than the changes. */
        file->cache_stale = true;
    }
    file_extents_unref(pass->base);
    free(pass->sums);
    free(pass);
}

/* Nobody can write to the file by a mapping any more. Our own descriptor would count, too. */
static bool writers_are_gone_locked(struct pass *pass)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", pass->fd);
    int reader = open(path, O_RDONLY | O_CLOEXEC);
    if (reader < 0)
        return false;
    close(pass->fd);
    pass->fd = reader;
    bool gone = fcntl(reader, F_SETLEASE, F_RDLCK) == 0;
    if (gone) {
        fcntl(reader, F_SETLEASE, F_UNLCK);
        return true;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", reader);
    int writer = open(path, O_RDWR | O_CLOEXEC);
    if (writer < 0) {
        pass->stale = true;
    } else {
        pass->fd = writer;
        close(reader);
    }
    return false;
}

/* Looks whether a file that lingers still must. `last`: it must not, in any case. */
static void check_lingering(struct pass *pass, bool last)
{
    struct file *file = pass->file;
    struct data *data = file->data;
    pthread_mutex_lock(&file->lock);
    bool over = pass->view ? pass_staged_is_over_locked(pass)
                           : pass->stale || writers_are_gone_locked(pass);
    bool gone = last || over;
    pthread_mutex_unlock(&file->lock);
    int rc = pass->view ? 0 : absorb(file, gone);
    if (rc < 0 && !last)
        gone = false;
    pthread_mutex_lock(&data->lock);
    pass->checking = false;
    if (gone)
        DL_DELETE(data->lingering, pass);
    pthread_mutex_unlock(&data->lock);
    if (!gone)
        return;
    pthread_mutex_lock(&file->lock);
    end_locked(file, over);
    bool flush = file->staging && file->writers == 0 && !file->unlinked;
    pthread_mutex_unlock(&file->lock);
    file_dirty_update(file);
    if (flush && !last)
        durability_written(file);
    file_put(file);
}

static void run_check(struct pool_task *task)
{
    check_lingering(container_of(task, struct pass, task), false);
}

void pass_release(struct data_handle *handle)
{
    struct file *file = handle->file;
    pthread_mutex_lock(&file->lock);
    struct pass *pass = handle->mode == HANDLE_PASS ? file->pass : NULL;
    if (handle->mode == HANDLE_CACHED) {
        file->cached_handles--;
        file->direct_writers -= handle->direct && handle->writable;
    }
    pthread_mutex_unlock(&file->lock);
    if (pass)
        pass_put(file, pass);
}

void pass_put(struct file *file, struct pass *pass)
{
    struct data *data = file->data;
    struct pass *lingers = NULL;
    pthread_mutex_lock(&file->lock);
    bool ended = --pass->handles == 0;
    if (ended) {
        if (pass->view ? !pass_staged_is_over_locked(pass) : pass->rdwr && !pass->stale) {
            data->passthrough.close(data->passthrough.arg, pass->id);
            pass->id = 0;
            lingers = pass;
        } else {
            end_locked(file, true);
        }
    }
    pthread_mutex_unlock(&file->lock);
    if (ended)
        file_dirty_update(file);
    if (!lingers)
        return;
    file_ref(file);
    lingers->task.run = run_check;
    lingers->checking = true;
    pthread_mutex_lock(&data->lock);
    DL_APPEND(data->lingering, lingers);
    pthread_mutex_unlock(&data->lock);
    pool_submit(data->pool, &lingers->task);
    reads_tick(data->reads);
}

bool pass_tick(struct data *data)
{
    pthread_mutex_lock(&data->lock);
    bool some = data->lingering != NULL;
    struct pass *pass;
    DL_FOREACH(data->lingering, pass)
    {
        if (!pass->checking) {
            pass->checking = true;
            pool_submit(data->pool, &pass->task);
        }
    }
    pthread_mutex_unlock(&data->lock);
    return some;
}

/* The first staging that lingers and that this round has not seen; it is being checked then.
 * *busy: somebody else is at it. */
static struct pass *next_to_settle(struct data *data, uint64_t round, bool *busy)
{
    struct pass *pass, *found = NULL;
    *busy = false;
    pthread_mutex_lock(&data->lock);
    DL_FOREACH(data->lingering, pass)
    {
        if (!pass->view || pass->round == round)
            continue;
        if (pass->checking) {
            *busy = true;
        } else {
            pass->checking = true;
            pass->round = round;
            found = pass;
            break;
        }
    }
    pthread_mutex_unlock(&data->lock);
    return found;
}

void pass_settle(struct data *data)
{
    uint64_t round = atomic_fetch_add(&data->pass_rounds, 1) + 1;
    for (;;) {
        bool busy;
        struct pass *pass = next_to_settle(data, round, &busy);
        if (pass)
            check_lingering(pass, false);
        else if (!busy)
            return;
        else
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

void pass_close(struct data *data)
{
    for (;;) {
        pthread_mutex_lock(&data->lock);
        struct pass *pass = data->lingering;
        bool checking = pass && pass->checking;
        if (pass)
            pass->checking = true;
        pthread_mutex_unlock(&data->lock);
        if (!pass)
            return;
        if (checking)
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        else
            check_lingering(pass, true);
    }
}
