/*
 * Multipart uploads: a directory u/<id> for each, so that they outlive the process.
 *
 *   attribute user.sluice.key    the object's key
 *   attribute user.sluice.part   P, the size of a regular part, once known
 *   data                         the object to be, with its metadata; part n of at most P bytes is
 *                                written at (n - 1) * P, so that COMPLETE is a rename
 *   00007                        a symbolic link that never leads anywhere: its text describes
 *                                part 7: "s <size> <etag>" (in data) or "f <size> <etag>" (in a
 *                                file of its own, named by the ETag). Made when the bytes are on
 *                                the disk.
 *
 * A part has its own file if it is larger than P, or was uploaded before, or is being uploaded
 * twice at once: a slot of `data` is written only under a lock on its range, and never again once
 * the part is there. If such a file is among the parts of COMPLETE, or they leave gaps, the object
 * is copied together.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/hash.h"
#include "file.h"

#define KEY_NAME "user.sluice.key"
#define PART_NAME "user.sluice.part"
/* A part whose size is no multiple of it is taken for the last one. */
#define REGULAR_UNIT (64u << 10)
#define ID_LEN 32

struct upload_part {
    bool in_data;
    uint64_t size;
    char etag[FILE_NAME_SIZE];
};

static bool is_id(const char *id)
{
    return strlen(id) == ID_LEN && strspn(id, "0123456789abcdef") == ID_LEN;
}

/* The directory of the op's upload, or -ENOENT, -errno. */
static int open_upload(const struct file_store *f, const struct store_op *op)
{
    if (!is_id(op->upload_id))
        return -ENOENT;
    cleanup(close_fd) int dir =
        openat(f->uploads, op->upload_id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return -errno;
    char key[STORE_KEY_MAX + 1];
    ssize_t len = fgetxattr(dir, KEY_NAME, key, sizeof(key) - 1);
    if (len < 0)
        return -errno;
    key[len] = 0;
    return strcmp(key, op->key) ? -ENOENT : TAKE_FD(dir);
}

static int need_upload(const struct file_store *f, struct store_op *op, int *dir)
{
    *dir = open_upload(f, op);
    if (*dir == -ENOENT)
        return file_no_upload(op);
    return *dir < 0 ? file_error(op, -*dir, "opening the upload") : 0;
}

/* P, or 0 as long as it is not known. */
static uint64_t regular_size(int dir)
{
    char text[24];
    ssize_t len = fgetxattr(dir, PART_NAME, text, sizeof(text) - 1);
    if (len <= 0)
        return 0;
    text[len] = 0;
    return strtoull(text, NULL, 10);
}

/* The same; this part decides it if it can. */
static uint64_t decide_regular_size(int dir, uint32_t number, uint64_t size)
{
    uint64_t regular = regular_size(dir);
    if (regular || !size || (number != 1 && size % REGULAR_UNIT))
        return regular;
    char text[24];
    int len = snprintf(text, sizeof(text), "%llu", (unsigned long long)size);
    if (!fsetxattr(dir, PART_NAME, text, (size_t)len, XATTR_CREATE))
        return size;
    return regular_size(dir); /* another part was faster; or 0, and the part goes elsewhere */
}

static int read_part(int dir, uint32_t number, struct upload_part *out)
{
    char name[16], text[128], *end;
    snprintf(name, sizeof(name), "%05u", number);
    ssize_t len = readlinkat(dir, name, text, sizeof(text) - 1);
    if (len < 0)
        return -errno;
    text[len] = 0;
    if ((text[0] != 's' && text[0] != 'f') || text[1] != ' ')
        return -ENOENT;
    out->in_data = text[0] == 's';
    out->size = strtoull(text + 2, &end, 10);
    size_t etag_len = strspn(end + (*end == ' '), "0123456789abcdef-");
    if (*end != ' ' || !etag_len || etag_len >= sizeof(out->etag) || end[1 + etag_len])
        return -ENOENT;
    memcpy(out->etag, end + 1, etag_len + 1);
    return 0;
}

static int lock_range(int fd, uint64_t offset, uint64_t len)
{
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = (off_t)len};
    return fcntl(fd, F_OFD_SETLK, &lock);
}

/* `data` is still in the upload, so COMPLETE has not taken it. */
static bool is_in_upload(int dir, int fd)
{
    struct stat a, b;
    return !fstatat(dir, "data", &a, AT_SYMLINK_NOFOLLOW) && !fstat(fd, &b) && a.st_ino == b.st_ino;
}

/* Where a part is written. */
struct slot {
    int fd;
    uint64_t offset;
    struct upload_part part;
};

static int open_slot(struct file_store *f, struct store_op *op, int dir, uint64_t size,
                     const char *etag, struct slot *out)
{
    struct upload_part old;
    out->part = (struct upload_part){.size = size};
    snprintf(out->part.etag, sizeof(out->part.etag), "%s", etag);
    uint64_t regular = decide_regular_size(dir, op->part_number, size);
    if (size && regular && size <= regular && read_part(dir, op->part_number, &old) == -ENOENT) {
        cleanup(close_fd) int fd = openat(dir, "data", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            return errno == ENOENT ? file_no_upload(op)
                                   : file_error(op, errno, "opening the upload");
        uint64_t offset = (op->part_number - 1) * regular;
        if (!lock_range(fd, offset, regular) && is_in_upload(dir, fd) &&
            read_part(dir, op->part_number, &old) == -ENOENT) {
            out->part.in_data = true;
            out->offset = offset;
            out->fd = TAKE_FD(fd);
            return 0;
        }
    }
    out->offset = 0;
    out->fd = openat(dir, etag, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (out->fd < 0)
        return errno == ENOENT ? file_no_upload(op) : file_error(op, errno, "making a part");
    return 0;
}

/* Ends a part: `rc` is what writing it gave. */
static int finish_slot(struct file_store *f, struct store_op *op, int dir, struct slot *slot,
                       int rc)
{
    const struct upload_part *part = &slot->part;
    unsigned wait =
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    if (!rc && part->size &&
        sync_file_range(slot->fd, (off_t)slot->offset, (off_t)part->size, wait) < 0)
        rc = file_error(op, errno, "writing");
    char text[128], name[16], temp[2 * FILE_NAME_SIZE];
    snprintf(text, sizeof(text), "%c %llu %s", part->in_data ? 's' : 'f',
             (unsigned long long)part->size, part->etag);
    snprintf(name, sizeof(name), "%05u", op->part_number);
    snprintf(temp, sizeof(temp), "n%s", part->etag);
    struct upload_part old;
    bool replaces = !rc && !read_part(dir, op->part_number, &old);
    if (!rc && (symlinkat(text, dir, temp) < 0 || renameat(dir, temp, dir, name) < 0))
        rc = errno == ENOENT ? file_no_upload(op) : file_error(op, errno, "recording the part");
    if (rc) {
        unlinkat(dir, temp, 0);
        /* Nothing of it may keep space; the length of `data` is for COMPLETE to judge. */
        if (!part->in_data)
            unlinkat(dir, part->etag, 0);
        else
            fallocate(slot->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)slot->offset,
                      (off_t)part->size);
    } else {
        if (replaces && !old.in_data)
            unlinkat(dir, old.etag, 0);
        op->out_part.number = op->part_number;
        snprintf(op->out_part.etag, sizeof(op->out_part.etag), "%s", part->etag);
    }
    close(TAKE_FD(slot->fd));
    return rc;
}

/* Unique, so that a caller never takes one upload of a part for another. */
static void part_etag(struct file_store *f, char etag[FILE_NAME_SIZE])
{
    uint32_t noise;
    hash_random(&noise, sizeof(noise));
    snprintf(etag, FILE_NAME_SIZE, "%llx-%08x", (unsigned long long)file_unique_ns(f), noise);
}

int file_do_mpu_part(struct file_store *f, struct store_op *op)
{
    cleanup(close_fd) int dir = -1;
    int rc = need_upload(f, op, &dir);
    if (rc)
        return rc;
    uint32_t crc = 0;
    uint64_t size = 0;
    for (unsigned i = 0; i < op->iov_count; i++) {
        crc = hash_crc32c(crc, op->iov[i].iov_base, op->iov[i].iov_len);
        size += op->iov[i].iov_len;
    }
    if (op->has_crc32c && crc != op->crc32c)
        return file_fail(op, -EBADMSG, "BadDigest", "the body has another checksum");
    char etag[FILE_NAME_SIZE];
    struct slot slot;
    part_etag(f, etag);
    rc = open_slot(f, op, dir, size, etag, &slot);
    if (rc)
        return rc;
    rc = finish_slot(f, op, dir, &slot, file_write_body(op, slot.fd, slot.offset, &size));
    crc = __builtin_bswap32(crc);
    if (!rc)
        hash_base64(&crc, sizeof(crc), op->out_part.crc32c);
    return rc;
}

int file_do_mpu_part_copy(struct file_store *f, struct store_op *op)
{
    cleanup(close_fd) int dir = -1, from = -1;
    struct stat st;
    int rc = need_upload(f, op, &dir);
    if (!rc)
        rc = file_open_source(f, op, &from, &st);
    if (rc)
        return rc;
    uint64_t size = op->length ? op->length : (uint64_t)st.st_size;
    if (op->offset + size > (uint64_t)st.st_size)
        return file_fail(op, -ERANGE, "InvalidRange", "the range is not inside the source");
    if (size > f->store.caps.copy_max)
        return file_fail(op, -EFBIG, "InvalidRequest", "a part is 5 GiB at most");
    char etag[FILE_NAME_SIZE];
    struct slot slot;
    part_etag(f, etag);
    rc = open_slot(f, op, dir, size, etag, &slot);
    if (rc)
        return rc;
    rc = file_copy_range(op, from, op->offset, slot.fd, slot.offset, size);
    struct stat after = st;
    if (!rc && from >= 0 && fstat(from, &after) < 0)
        rc = file_error(op, errno, "looking at the source");
    if (!rc && (after.st_size != st.st_size || after.st_mtim.tv_sec != st.st_mtim.tv_sec ||
                after.st_mtim.tv_nsec != st.st_mtim.tv_nsec))
        rc = file_fail(op, -EIO, "", "another program wrote into the source");
    return finish_slot(f, op, dir, &slot, rc);
}

/* Beginning and end */

static int fill_upload(struct file_store *f, struct store_op *op, int dir)
{
    if (fsetxattr(dir, KEY_NAME, op->key, strlen(op->key), 0) < 0)
        return file_error(op, errno, "recording the key");
    cleanup(close_fd) int data = openat(dir, "data", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (data < 0)
        return file_error(op, errno, "making the upload");
    return file_set_meta(op, data, op->meta, op->meta_count);
}

int file_do_mpu_create(struct file_store *f, struct store_op *op)
{
    struct file_key key;
    int rc = file_key_parse(op->key, &key);
    if (rc || key.marker)
        return file_fail(op, rc ? rc : -EINVAL, "InvalidKey", "the key cannot be a file here");
    char name[FILE_NAME_SIZE], id[ID_LEN + 1];
    uint64_t noise;
    hash_random(&noise, sizeof(noise));
    snprintf(id, sizeof(id), "%016llx%016llx", (unsigned long long)file_unique_ns(f),
             (unsigned long long)noise);
    file_temp_name(f, name);
    if (mkdirat(f->work, name, 0700) < 0)
        return file_error(op, errno, "making the upload");
    cleanup(close_fd) int dir = openat(f->work, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rc = dir < 0 ? file_error(op, errno, "making the upload") : fill_upload(f, op, dir);
    if (!rc && renameat(f->work, name, f->uploads, id) < 0)
        rc = file_error(op, errno, "making the upload");
    if (rc) {
        file_remove_tree(f->work, name);
        return rc;
    }
    op->out_upload_id = store_op_strdup(op, id);
    return op->out_upload_id ? 0 : -ENOMEM;
}

/* Takes the upload out of sight at once, then removes it. */
static int remove_upload(struct file_store *f, const char *id)
{
    char name[FILE_NAME_SIZE];
    file_temp_name(f, name);
    if (renameat(f->uploads, id, f->work, name) < 0)
        return -errno;
    file_remove_tree(f->work, name);
    return 0;
}

/* Reads the parts that COMPLETE names into `parts`. *in_place: `data` is the object as it is. */
static int read_parts(struct store_op *op, int dir, struct upload_part *parts, uint64_t *total,
                      bool *in_place)
{
    uint64_t regular = regular_size(dir);
    *total = 0;
    *in_place = true;
    for (unsigned i = 0; i < op->part_count; i++) {
        uint32_t number = op->parts[i].number;
        int rc = read_part(dir, number, &parts[i]);
        if (rc && rc != -ENOENT)
            return file_error(op, -rc, "reading a part's record");
        if (rc || strcmp(parts[i].etag, op->parts[i].etag))
            return file_fail(op, -EINVAL, "InvalidPart", "a part is not there, or was replaced");
        if (!parts[i].in_data || number != i + 1 ||
            (i + 1 < op->part_count && parts[i].size != regular))
            *in_place = false;
        *total += parts[i].size;
    }
    return 0;
}

/* The object as a new file in work. */
static int join_parts(struct file_store *f, struct store_op *op, int dir, int data,
                      const struct upload_part *parts, int *out, char name[FILE_NAME_SIZE])
{
    uint64_t regular = regular_size(dir), at = 0;
    cleanup(close_fd) int fd = file_temp_open(f, f->work, name);
    if (fd < 0)
        return file_error(op, -fd, "making a temporary file");
    int rc = file_copy_meta(op, data, fd);
    for (unsigned i = 0; !rc && i < op->part_count; i++) {
        cleanup(close_fd) int own = -1;
        if (!parts[i].in_data) {
            own = openat(dir, parts[i].etag, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
            if (own < 0) {
                rc = file_error(op, errno, "opening a part");
                break;
            }
        }
        uint64_t offset = parts[i].in_data ? (op->parts[i].number - 1) * regular : 0;
        rc = file_copy_range(op, own < 0 ? data : own, offset, fd, at, parts[i].size);
        at += parts[i].size;
    }
    if (rc)
        unlinkat(f->work, name, 0);
    else
        *out = TAKE_FD(fd);
    return rc;
}

/* Makes `data`, which is locked, the object; false: that would lose parts. A failed condition must
 * leave all that were uploaded, so only what no part claims is cut off. */
static bool trim_data(int dir, int data, uint64_t total, unsigned part_count)
{
    struct stat st;
    if (fstat(data, &st) < 0 || (uint64_t)st.st_size < total)
        return false;
    if ((uint64_t)st.st_size == total)
        return true;
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        close_fd(&fd);
        return false;
    }
    unsigned recorded = 0;
    for (struct dirent *e; (e = readdir(d));)
        recorded += strlen(e->d_name) == 5 && strspn(e->d_name, "0123456789") == 5;
    closedir(d);
    return recorded == part_count && !ftruncate(data, (off_t)total);
}

static int complete(struct file_store *f, struct store_op *op, const struct file_key *key, int dir,
                    const struct upload_part *parts, uint64_t total, bool in_place)
{
    cleanup(close_fd) int data = openat(dir, "data", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (data < 0)
        return errno == ENOENT ? file_no_upload(op) : file_error(op, errno, "opening the upload");
    /* Not in place either if a part is being written just now. */
    if (in_place && !lock_range(data, 0, 0) && trim_data(dir, data, total, op->part_count))
        return file_publish(f, op, key, data, dir, "data");
    char name[FILE_NAME_SIZE];
    cleanup(close_fd) int fd = -1;
    int rc = join_parts(f, op, dir, data, parts, &fd, name);
    if (rc)
        return rc;
    /* Another COMPLETE may have taken the upload in the meantime. */
    rc = is_in_upload(dir, data) ? file_publish(f, op, key, fd, f->work, name) : -ESTALE;
    if (rc)
        unlinkat(f->work, name, 0);
    return rc;
}

int file_do_mpu_complete(struct file_store *f, struct store_op *op)
{
    cleanup(close_fd) int dir = -1;
    struct file_key key;
    int rc = need_upload(f, op, &dir);
    if (rc)
        return rc;
    rc = file_key_parse(op->key, &key);
    if (rc)
        return file_no_upload(op);
    cleanup(free_ptr) struct upload_part *parts = calloc(op->part_count, sizeof(*parts));
    if (!parts)
        return -ENOMEM;
    uint64_t total;
    bool in_place;
    rc = read_parts(op, dir, parts, &total, &in_place);
    if (!rc)
        rc = complete(f, op, &key, dir, parts, total, in_place);
    if (rc)
        return rc == -ESTALE ? file_no_upload(op) : rc;
    crash_point("file.completed");
    remove_upload(f, op->upload_id);
    return 0;
}

int file_do_mpu_abort(struct file_store *f, struct store_op *op)
{
    cleanup(close_fd) int dir = open_upload(f, op);
    int rc = dir < 0 ? dir : remove_upload(f, op->upload_id);
    return rc && rc != -ENOENT ? file_error(op, -rc, "removing the upload") : 0;
}

/* Listing and cleaning */

struct found {
    char *key; /* owned */
    char id[ID_LEN + 1];
};

static int by_key_and_id(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    int order = strcmp(x->key, y->key);
    return order ? order : strcmp(x->id, y->id);
}

static int read_upload(int uploads, const char *id, const char *prefix, struct found *out)
{
    char key[STORE_KEY_MAX + 1];
    cleanup(close_fd) int dir =
        openat(uploads, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t len = dir < 0 ? -1 : fgetxattr(dir, KEY_NAME, key, sizeof(key) - 1);
    if (len < 0)
        return -ENOENT; /* ended just now */
    key[len] = 0;
    if (strncmp(key, prefix, strlen(prefix)))
        return -ENOENT;
    out->key = strdup(key);
    memcpy(out->id, id, ID_LEN + 1);
    return out->key ? 0 : -ENOMEM;
}

static int find_uploads(DIR *d, const char *prefix, struct found **found, size_t *count)
{
    size_t cap = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (!is_id(e->d_name))
            continue;
        if (*count == cap) {
            cap = cap ? 2 * cap : 16;
            struct found *grown = reallocarray(*found, cap, sizeof(*grown));
            if (!grown)
                return -ENOMEM;
            *found = grown;
        }
        int rc = read_upload(dirfd(d), e->d_name, prefix, &(*found)[*count]);
        if (rc == -ENOMEM)
            return rc;
        *count += !rc;
    }
    return 0;
}

static uint64_t initiated_ns(const char *id)
{
    char text[17];
    memcpy(text, id, 16);
    text[16] = 0;
    return strtoull(text, NULL, 16);
}

int file_do_mpu_list(struct file_store *f, struct store_op *op)
{
    if (f->uploads < 0)
        return 0; /* a read-only store shows objects only */
    int fd = openat(f->uploads, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        int err = errno;
        if (fd >= 0)
            close(fd);
        return file_error(op, err, "reading the uploads");
    }
    cleanup(free_ptr) struct found *found = NULL;
    size_t count = 0;
    int rc = find_uploads(d, op->prefix ? op->prefix : "", &found, &count);
    closedir(d);
    if (!rc && count)
        qsort(found, count, sizeof(*found), by_key_and_id);
    for (size_t i = 0; i < count; i++) {
        if (!rc)
            rc = store_op_add_entry(op, found[i].key, 0, initiated_ns(found[i].id), found[i].id,
                                    false);
        free(found[i].key);
    }
    return rc;
}

void file_uploads_clean(struct file_store *f)
{
    int fd = openat(f->uploads, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        if (!is_id(e->d_name))
            continue;
        cleanup(close_fd) int dir = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        /* COMPLETE renamed `data` away and then the process died. */
        if (dir >= 0 && faccessat(dir, "data", F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
            file_remove_tree(f->uploads, e->d_name);
    }
    closedir(d);
}
