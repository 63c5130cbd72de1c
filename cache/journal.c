#include "journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"

#define NAME_MAX_LEN 40
#define CHECKPOINT_TMP "index.tmp"
#define LOG_MIN (8u << 20) /* below it no checkpoint is worth the while */

static void name_of(char name[NAME_MAX_LEN], uint64_t generation, const char *suffix)
{
    snprintf(name, NAME_MAX_LEN, "index-%016" PRIx64 ".%s", generation, suffix);
}

/* The generations that are there, ascending. */
struct found {
    uint64_t *generations;
    size_t count;
};

static bool parse_name(const char *name, uint64_t *generation)
{
    char check[NAME_MAX_LEN];
    if (strncmp(name, "index-", 6) != 0)
        return false;
    /* What follows the number is checked by writing the name again. */
    *generation = strtoull(name + 6, NULL, 16);
    name_of(check, *generation, "ckpt");
    if (!strcmp(name, check))
        return true;
    name_of(check, *generation, "log");
    return !strcmp(name, check);
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int find_generations(int dir_fd, struct found *found)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        int rc = -errno;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    int rc = 0;
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir));) {
        uint64_t generation;
        if (!parse_name(entry->d_name, &generation))
            continue;
        uint64_t *grown =
            reallocarray(found->generations, found->count + 1, sizeof(*found->generations));
        if (grown) {
            found->generations = grown;
            found->generations[found->count++] = generation;
        } else {
            rc = -ENOMEM;
        }
    }
    closedir(dir);
    if (found->count > 1)
        qsort(found->generations, found->count, sizeof(*found->generations), compare_u64);
    return rc;
}

/* 0 also if the file is not there or damaged; then *ended is false. */
static int replay_file(int dir_fd, const char *name, struct index *index, uint32_t now_s,
                       bool *ended)
{
    *ended = false;
    cleanup(close_fd) int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0)
        return 0;
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (data == MAP_FAILED)
        return 0;
    int64_t good = index_replay(index, data, (size_t)st.st_size, now_s, ended);
    munmap(data, (size_t)st.st_size);
    if (good >= 0 && good < st.st_size)
        log_info("cache index ends early", "file=%s good=%" PRId64 " size=%" PRId64, name, good,
                 (int64_t)st.st_size);
    return good < 0 ? (int)good : 0;
}

static int load(struct journal *journal, struct index *index, uint32_t now_s,
                const struct found *found)
{
    char name[NAME_MAX_LEN];
    uint64_t from = 0;
    struct policy *policy = index->policy;
    for (size_t i = found->count; i-- > 0;) {
        if (i + 1 < found->count && found->generations[i] == found->generations[i + 1])
            continue;
        bool ended;
        name_of(name, found->generations[i], "ckpt");
        int rc = replay_file(journal->dir_fd, name, index, now_s, &ended);
        if (rc < 0)
            return rc;
        if (ended) {
            from = found->generations[i];
            break;
        }
        index_done(index);
        index_init(index, policy);
    }
    for (size_t i = 0; i < found->count; i++) {
        if (found->generations[i] < from ||
            (i > 0 && found->generations[i] == found->generations[i - 1]))
            continue;
        bool ended;
        name_of(name, found->generations[i], "log");
        int rc = replay_file(journal->dir_fd, name, index, now_s, &ended);
        if (rc < 0)
            return rc;
    }
    return index_settle(index);
}

static int journal_create(struct journal *journal, uint64_t generation)
{
    char name[NAME_MAX_LEN];
    name_of(name, generation, "log");
    int fd = openat(journal->dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (journal->fd >= 0)
        close(journal->fd);
    journal->fd = fd;
    journal->generation = generation;
    journal->bytes = 0;
    journal->failed = false;
    return 0;
}

int journal_open(struct journal *journal, int dir_fd, struct index *index, uint32_t now_s)
{
    *journal = (struct journal){.dir_fd = dir_fd, .fd = -1};
    struct found found = {0};
    int rc = find_generations(dir_fd, &found);
    if (rc == 0)
        rc = load(journal, index, now_s, &found);
    if (rc == 0)
        rc = journal_create(journal, found.count > 0 ? found.generations[found.count - 1] + 1 : 1);
    free(found.generations);
    return rc;
}

void journal_close(struct journal *journal)
{
    if (journal->fd >= 0)
        close(journal->fd);
    journal->fd = -1;
}

void journal_batch_init(struct buf *batch)
{
    buf_init(batch, INDEX_BATCH_MAX);
    buf_extend(batch, INDEX_BATCH_HEADER);
}

static int write_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static int write_batch(int fd, struct buf *batch, uint64_t *bytes)
{
    int rc = buf_error(batch);
    if (rc == 0 && batch->len > INDEX_BATCH_HEADER) {
        index_seal_batch(batch);
        rc = write_all(fd, batch->data, batch->len);
        *bytes += batch->len;
    }
    buf_reset(batch);
    buf_extend(batch, INDEX_BATCH_HEADER);
    return rc;
}

int journal_append(struct journal *journal, struct buf *batch)
{
    if (journal->failed || journal->fd < 0) {
        buf_reset(batch);
        buf_extend(batch, INDEX_BATCH_HEADER);
        return -EIO;
    }
    int rc = write_batch(journal->fd, batch, &journal->bytes);
    /* A torn batch would hide those after it. */
    if (rc < 0)
        journal->failed = true;
    return rc;
}

bool journal_wants_checkpoint(const struct journal *journal)
{
    return journal->failed || journal->bytes > MAX(LOG_MIN, 2 * journal->checkpoint_bytes);
}

int journal_checkpoint_begin(struct journal *journal, struct journal_checkpoint *checkpoint)
{
    int rc = journal_create(journal, journal->generation + 1);
    if (rc < 0)
        return rc;
    int fd =
        openat(journal->dir_fd, CHECKPOINT_TMP, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    *checkpoint = (struct journal_checkpoint){.journal = journal, .fd = fd};
    return 0;
}

int journal_checkpoint_put(struct journal_checkpoint *checkpoint, struct buf *batch)
{
    return write_batch(checkpoint->fd, batch, &checkpoint->bytes);
}

void journal_checkpoint_abandon(struct journal_checkpoint *checkpoint)
{
    close(checkpoint->fd);
    unlinkat(checkpoint->journal->dir_fd, CHECKPOINT_TMP, 0);
}

static void remove_older(const struct journal *journal)
{
    struct found found = {0};
    char name[NAME_MAX_LEN];
    if (find_generations(journal->dir_fd, &found) == 0) {
        for (size_t i = 0; i < found.count; i++) {
            if (found.generations[i] >= journal->generation)
                continue;
            name_of(name, found.generations[i], "ckpt");
            unlinkat(journal->dir_fd, name, 0);
            name_of(name, found.generations[i], "log");
            unlinkat(journal->dir_fd, name, 0);
        }
    }
    free(found.generations);
}

int journal_checkpoint_end(struct journal_checkpoint *checkpoint)
{
    struct journal *journal = checkpoint->journal;
    struct buf batch;
    char name[NAME_MAX_LEN];
    journal_batch_init(&batch);
    index_put_end(&batch);
    int rc = journal_checkpoint_put(checkpoint, &batch);
    buf_done(&batch);
    name_of(name, journal->generation, "ckpt");
    if (rc == 0 && (fdatasync(checkpoint->fd) < 0 ||
                    renameat(journal->dir_fd, CHECKPOINT_TMP, journal->dir_fd, name) < 0))
        rc = -errno;
    if (rc < 0) {
        journal_checkpoint_abandon(checkpoint);
        return rc;
    }
    close(checkpoint->fd);
    journal->checkpoint_bytes = checkpoint->bytes;
    remove_older(journal);
    return 0;
}
