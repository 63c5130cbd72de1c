/* From a page that is wanted to a request in a ring, by way of an open file. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "base/blocking.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "disk.h"

void disk_io_end_locked(struct disk_io *io, bool keep_slot)
{
    struct disk *disk = io->disk;
    if (!keep_slot) {
        if (io->heap)
            free(io->slot);
        else
            slots_put(&disk->slots, io->slot);
    }
    io->segment->busy--;
    io->content->busy--;
    if (--disk->io_in_flight == 0)
        pthread_cond_broadcast(&disk->settled);
    if (io->content->doomed && io->content->busy == 0)
        pthread_cond_signal(&disk->tend);
}

void disk_page_drop_locked(struct disk *disk, struct index_segment *segment, unsigned page)
{
    if (segment->pages[page].valid == 0 || segment->going)
        return;
    index_set_page(&disk->index, segment, page, 0, 0, 0);
    segment->verified &= ~(1u << page);
    index_put_page(&disk->batch, segment, page);
}

static void run_ended(struct pool_task *task)
{
    struct ring_io *ring = container_of(task, struct ring_io, task);
    ring->done(ring);
}

/* Ends an I/O that never reached a ring, on a thread of the cache as the others. */
static void fail_later(struct disk *disk, struct disk_io *io, int result)
{
    io->ring.result = result;
    io->ring.task.run = run_ended;
    pool_submit(disk->openers, &io->ring.task);
}

static void suffer(struct disk_io *io)
{
    pthread_mutex_lock(&io->disk->lock);
    const struct disk_fault *fault = &io->disk->fault;
    uint32_t delay_ms = fault->delay_ms;
    int result = io->ring.write ? fault->write_result : fault->read_result;
    pthread_mutex_unlock(&io->disk->lock);
    if (delay_ms > 0)
        nanosleep(&(struct timespec){delay_ms / 1000, delay_ms % 1000 * 1000000L}, NULL);
    if (result < 0)
        io->ring.result = result;
}

static void ended(struct ring_io *ring)
{
    struct disk_io *io = container_of(ring, struct disk_io, ring);
    if (atomic_load_explicit(&io->disk->faulty, memory_order_relaxed))
        suffer(io);
    if (io->read)
        disk_read_ended(io);
    else
        disk_fill_ended(io);
}

static void submit(struct disk *disk, struct disk_file *file, struct disk_io *const *ios,
                   unsigned count)
{
    struct ring *ring = disk->rings[atomic_fetch_add(&disk->next_ring, 1) % disk->ring_count];
    struct ring_io *batch[CACHE_READ_MAX / CACHE_PAGE + 1];
    for (unsigned i = 0; i < count;) {
        unsigned n = 0;
        for (; i + n < count && n < ARRAY_LEN(batch); n++) {
            batch[n] = &ios[i + n]->ring;
            batch[n]->fd = file->fd;
            batch[n]->file = file->index;
        }
        if (ring_submit(ring, batch, n) < 0)
            for (unsigned k = 0; k < n; k++)
                fail_later(disk, ios[i + k], -EAGAIN);
        i += n;
    }
}

/* One system call for what lies one behind the other. Returns how many were read as a whole, at
 * least 1: the first has its result in any case. */
static unsigned read_run(const struct disk_file *file, struct disk_io *const *ios, unsigned count)
{
    struct iovec iov[DISK_READ_IOS_MAX];
    unsigned n = 0;
    do {
        iov[n] = (struct iovec){ios[n]->ring.buf, ios[n]->ring.len};
        n++;
    } while (n < count && ios[n]->ring.offset == ios[n - 1]->ring.offset + ios[n - 1]->ring.len);
    ssize_t got;
    do
        got = preadv(file->fd, iov, (int)n, (off_t)ios[0]->ring.offset);
    while (got < 0 && errno == EINTR);
    unsigned whole = 0;
    for (size_t left = got > 0 ? (size_t)got : 0; whole < n && left >= iov[whole].iov_len;
         whole++) {
        ios[whole]->ring.result = (int)iov[whole].iov_len;
        left -= iov[whole].iov_len;
    }
    if (whole == 0)
        ios[whole++]->ring.result = got < 0 ? -errno : (int)got;
    return whole;
}

static void read_here(const struct disk_file *file, struct disk_io *const *ios, unsigned count)
{
    for (unsigned done = 0; done < count;) {
        unsigned n = read_run(file, &ios[done], count - done);
        /* The last one's end may be that of all of them. */
        for (unsigned i = 0; i < n; i++)
            ended(&ios[done + i]->ring);
        done += n;
    }
}

void disk_file_name(uint64_t cid, char name[DISK_NAME_MAX])
{
    snprintf(name, DISK_NAME_MAX, "%02x/%016" PRIx64, (unsigned)(cid & 0xff), cid);
}

int disk_file_detach_locked(struct disk *disk, struct index_content *content)
{
    struct disk_file *file = content->open;
    if (!file || file->state != FILE_OPEN)
        return -1;
    content->open = NULL;
    file->content = NULL;
    file->state = FILE_FREE;
    return TAKE_FD(file->fd);
}

/* A free place, or that of the content which was not used for longest. */
static struct disk_file *place_locked(struct disk *disk)
{
    struct disk_file *best = NULL;
    for (unsigned i = 0; i < DISK_FILES; i++) {
        struct disk_file *file = &disk->files[i];
        if (file->state == FILE_FREE)
            return file;
        if (file->state == FILE_OPEN && file->content->busy == 0 &&
            (!best || file->last_use < best->last_use))
            best = file;
    }
    if (best) {
        best->content->open = NULL;
        best->state = FILE_FREE; /* fd stays, for the task to close */
    }
    return best;
}

static int open_file(struct disk *disk, uint64_t cid, uint64_t size, bool *fresh)
{
    char name[DISK_NAME_MAX];
    disk_file_name(cid, name);
    int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (disk->direct ? O_DIRECT : 0);
    int fd = openat(disk->files_fd, name, flags, 0600);
    if (fd < 0 && errno == ENOENT) {
        name[2] = '\0';
        if (mkdirat(disk->files_fd, name, 0700) < 0 && errno != EEXIST)
            return errno == ENOENT ? -ENODEV : -errno; /* the directory itself was removed */
        name[2] = '/';
        fd = openat(disk->files_fd, name, flags, 0600);
    }
    /* Something of others has the name: no fault of the disk. */
    if (fd < 0)
        return errno == EISDIR || errno == ELOOP ? -ENOENT : -errno;
    struct stat st;
    int rc = fstat(fd, &st) < 0 ? -errno : 0;
    *fresh = rc == 0 && (uint64_t)st.st_size != size;
    if (*fresh && ftruncate(fd, (off_t)size) < 0)
        rc = -errno;
    if (rc < 0)
        close(fd);
    return rc < 0 ? rc : fd;
}

static void run_open(struct pool_task *task)
{
    struct disk_file *file = container_of(task, struct disk_file, task);
    struct disk *disk = file->disk;
    if (file->fd >= 0)
        close(file->fd);
    bool fresh = false;
    int fd = open_file(disk, file->cid, file->size, &fresh);
    int index = (int)(file - disk->files);
    bool registered = fd >= 0;
    for (unsigned i = 0; i < disk->ring_count && registered; i++)
        registered = ring_set_file(disk->rings[i], index, fd);

    pthread_mutex_lock(&disk->lock);
    struct index_content *content = file->content;
    file->fd = fd < 0 ? -1 : fd;
    file->index = registered ? index : -1;
    file->state = fd < 0 ? FILE_FREE : FILE_OPEN;
    if (fd < 0) {
        content->open = NULL;
        file->content = NULL;
    }
    /* Somebody removed or cut the file: what was checked once is not what is there now. */
    for (uint32_t i = 0; fresh && i < content->segment_count; i++)
        if (content->segments[i])
            content->segments[i]->verified = 0;
    struct disk_io *waiting = TAKE_PTR(file->waiting);
    pthread_mutex_unlock(&disk->lock);
    while (waiting) {
        struct disk_io *io = waiting;
        waiting = io->next;
        if (fresh && io->read)
            disk_read_check_page(io);
        if (fd < 0) {
            io->ring.result = fd;
            io->ring.done(&io->ring);
        } else {
            submit(disk, file, &io, 1);
        }
    }
}

void disk_io_start(struct disk *disk, struct disk_io *const *ios, unsigned count, bool here)
{
    struct index_content *content = ios[0]->content;
    for (unsigned i = 0; i < count; i++) {
        ios[i]->ring.done = ended;
        ios[i]->next = NULL;
    }
    pthread_mutex_lock(&disk->lock);
    struct disk_file *file = content->open;
    bool open = file && file->state == FILE_OPEN;
    bool begin = false;
    if (!file && (file = place_locked(disk))) {
        begin = true;
        file->disk = disk;
        file->state = FILE_OPENING;
        file->content = content;
        file->cid = content->cid;
        file->size = content->size;
        file->waiting = NULL;
        content->open = file;
    }
    if (file)
        file->last_use = ++disk->file_uses;
    for (unsigned i = 0; file && !open && i < count; i++)
        LL_APPEND(file->waiting, ios[i]);
    pthread_mutex_unlock(&disk->lock);
    if (begin) {
        file->task.run = run_open;
        pool_submit(disk->openers, &file->task);
    } else if (!file) {
        for (unsigned i = 0; i < count; i++)
            fail_later(disk, ios[i], -EAGAIN);
    } else if (open && here) {
        blocking_begin();
        read_here(file, ios, count);
    } else if (open) {
        submit(disk, file, ios, count);
    }
}
