/*
 * Import from an inventory: each of its files is brought to the disk, compared with its MD5, and
 * read row by row into a rebuild_tree. Nothing of a file counts before its sum is right. In the end
 * the directories that the inventory covers are as if they had been listed when it was made.
 */
#include "meta/inventory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/cleanup.h"
#include "base/crash.h"
#include "engine/names.h"
#include "inventory_convert.h"
#include "recover/rebuild_state.h"
#include "recover/rebuild_tree.h"
#include "volume/volume.h"

#define STATE "inventory"
#define COPY "inventory.data"
#define CHUNK (8u << 20)
#define SAVE_NS (5 * NS_PER_S)

struct inventory {
    const struct inventory_config *config;
    struct inventory_counts *counts;
    struct inventory_manifest manifest;
    struct inventory_converter converter; /* if they are not CSV */
    char sum[33];                         /* of the manifest */
    struct meta *meta;
    const char *directory; /* of the database */
    struct rebuild_tree tree;
    struct rebuild_state state;
    uint8_t *chunk; /* owned */
    size_t file;    /* the one that is read */
    uint64_t row;   /* of it */
    size_t from_file;
    uint64_t from_row; /* what is before is in the database */
    uint64_t saved_ns;
    struct error *error;
};

static int check_stop(struct inventory *in)
{
    const struct inventory_config *config = in->config;
    return config->stop && config->stop(config->arg)
               ? error_set(in->error, -ECANCELED, "stopped; the same call goes on")
               : 0;
}

/* Reading and sums */

struct sum {
    EVP_MD_CTX *md5;
};

static int sum_begin(struct sum *s)
{
    s->md5 = EVP_MD_CTX_new();
    return s->md5 && EVP_DigestInit_ex(s->md5, EVP_md5(), NULL) == 1 ? 0 : -ENOMEM;
}

static void sum_end(struct sum *s, char out[33])
{
    uint8_t raw[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (s->md5)
        EVP_DigestFinal_ex(s->md5, raw, &len);
    EVP_MD_CTX_free(s->md5);
    for (unsigned i = 0; i < len && i < 16; i++)
        snprintf(out + 2 * i, 3, "%02x", raw[i]);
}

static int write_all(int fd, const void *data, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = write(fd, (const char *)data + done, len - done);
        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* The next bytes of a file of the inventory: their count, 0 at the end. */
static ssize_t read_some(struct inventory *in, const char *key, int fd, uint64_t at)
{
    if (!in->config->store) {
        ssize_t n;
        do
            n = read(fd, in->chunk, CHUNK);
        while (n < 0 && errno == EINTR);
        return n < 0 ? error_set(in->error, -errno, "%s: %s", key, strerror(errno)) : n;
    }
    struct store_op op = {.kind = STORE_GET,
                          .key = key,
                          .offset = at,
                          .length = CHUNK,
                          .buf = in->chunk,
                          .buf_len = CHUNK};
    int rc = store_wait(in->config->store, &op);
    ssize_t got = rc == -ERANGE ? 0 : rc ? rc : (ssize_t)op.got;
    if (got < 0) {
        *in->error = op.error;
        error_prefix(in->error, "%s", key);
    }
    store_op_reset(&op);
    return got;
}

/* A file of a local inventory: below one of the directories above the manifest, as in the bucket,
 * or by its own name beside it. */
static int find_local(const struct inventory *in, const char *key, char path[PATH_MAX])
{
    char directory[PATH_MAX];
    const char *name = strrchr(key, '/');
    snprintf(directory, sizeof(directory), "%s", in->config->manifest);
    for (char *slash = strrchr(directory, '/'); slash; slash = strrchr(directory, '/')) {
        const char *const places[] = {key, name ? name + 1 : key};
        *slash = '\0';
        for (size_t i = 0; i < ARRAY_LEN(places); i++) {
            if (snprintf(path, PATH_MAX, "%s/%s", directory, places[i]) < PATH_MAX &&
                !access(path, R_OK))
                return 0;
            if (snprintf(path, PATH_MAX, "%s/data/%s", directory, places[i]) < PATH_MAX &&
                !access(path, R_OK))
                return 0;
        }
    }
    if (strchr(in->config->manifest, '/'))
        return error_set(in->error, -ENOENT, "there is no %s at or above %s", key,
                         in->config->manifest);
    return snprintf(path, PATH_MAX, "%s", name ? name + 1 : key) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* Compares size and sum of a file; one of a store is copied beside the database meanwhile. `path`:
 * where it can be read. */
static int bring(struct inventory *in, const struct inventory_file *file, char path[PATH_MAX])
{
    const char *key = file->key;
    bool local = !in->config->store;
    char text[33] = "";
    struct sum sum;
    int rc = 0;
    if (local)
        rc = find_local(in, key, path);
    else if (snprintf(path, PATH_MAX, "%s/" COPY, in->directory) >= PATH_MAX)
        rc = -ENAMETOOLONG;
    if (rc)
        return rc;
    cleanup(close_fd) int fd =
        open(path, local ? O_RDONLY | O_CLOEXEC : O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(in->error, -errno, "%s: %s", path, strerror(errno));
    rc = sum_begin(&sum);
    uint64_t at = 0;
    for (ssize_t n = 1; !rc && n > 0 && at <= file->size; at += (uint64_t)MAX(n, 0)) {
        n = read_some(in, local ? path : key, fd, at);
        rc = n < 0 ? (int)n : check_stop(in);
        if (n > 0 && !local)
            rc = write_all(fd, in->chunk, (size_t)n);
        if (n > 0)
            EVP_DigestUpdate(sum.md5, in->chunk, (size_t)n);
    }
    sum_end(&sum, text);
    if (rc)
        return in->error->code ? rc : error_set(in->error, rc, "%s: %s", path, strerror(-rc));
    if (at != file->size || strcmp(text, file->md5) != 0)
        return error_set(in->error, -EBADMSG,
                         "%s is not what the manifest says (%" PRIu64 " bytes, MD5 %s, in place of "
                         "%" PRIu64 ", %s)",
                         key, at, text, file->size, file->md5);
    return 0;
}

static int read_manifest(struct inventory *in)
{
    const char *place = in->config->manifest;
    cleanup(free_ptr) char *text = NULL;
    cleanup(close_fd) int fd = -1;
    struct sum sum;
    size_t len = 0;
    if (!in->config->store) {
        fd = open(place, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return error_set(in->error, -errno, "%s: %s", place, strerror(errno));
    }
    int rc = sum_begin(&sum);
    for (ssize_t n = 1; !rc && n > 0 && len <= INVENTORY_MANIFEST_MAX;) {
        n = read_some(in, place, fd, len);
        char *grown = n > 0 ? realloc(text, len + (size_t)n) : text;
        rc = n < 0 ? (int)n : n > 0 && !grown ? -ENOMEM : 0;
        if (rc || n <= 0)
            break;
        text = grown;
        memcpy(text + len, in->chunk, (size_t)n);
        EVP_DigestUpdate(sum.md5, in->chunk, (size_t)n);
        len += (size_t)n;
    }
    sum_end(&sum, in->sum);
    if (rc)
        return rc;
    rc = inventory_manifest_parse(text, len, &in->manifest, in->error);
    if (rc)
        error_prefix(in->error, "%s", place);
    return rc;
}

/* How far it came */

static int save(struct inventory *in)
{
    int rc = rebuild_tree_flush(&in->tree);
    if (!rc)
        rc = engine_sync(in->meta->engine);
    crash_point("inventory.synced");
    if (rc)
        return rc;
    snprintf(in->state.after, sizeof(in->state.after), "%s %zu %" PRIu64, in->sum, in->file,
             in->row);
    in->saved_ns = clock_monotonic_ns();
    rc = rebuild_state_save(in->directory, STATE, &in->state, in->error);
    crash_point("inventory.saved");
    return rc;
}

/* Only of the same manifest: another one begins anew. */
static int load(struct inventory *in)
{
    char *end;
    int rc = rebuild_state_load(in->directory, STATE, &in->state);
    bool same = !rc && !strncmp(in->state.after, in->sum, 32) && in->state.after[32] == ' ';
    if (rc && rc != -ENOENT && rc != -EBADMSG)
        return error_set(in->error, rc, "%s/" STATE ": %s", in->directory, strerror(-rc));
    if (!same) {
        in->state = (struct rebuild_state){0};
        return 0;
    }
    in->from_file = strtoull(in->state.after + 32, &end, 10);
    in->from_row = strtoull(end, NULL, 10);
    return 0;
}

/* Rows */

static bool begins_with(const char *text, const char *prefix)
{
    return !strncmp(text, prefix, strlen(prefix));
}

static int take_row(struct inventory *in, char *text)
{
    struct inventory_row row;
    struct rebuild_counts *names = &in->state.counts;
    int rc = inventory_row_parse(&in->manifest, text, &row, in->error);
    if (rc)
        return rc;
    if (row.bucket[0] && strcmp(row.bucket, in->manifest.bucket) != 0)
        return error_set(in->error, -EBADMSG, "a row is of the bucket %s, the inventory of %s",
                         row.bucket, in->manifest.bucket);
    bool own = begins_with(row.key, in->meta->internal);
    if (row.skip || own || !begins_with(row.key, in->meta->format.prefix)) {
        in->counts->skipped++;
        return 0;
    }
    struct meta_entry file = {.size = row.size, .mtime_ns = row.mtime_ns};
    memcpy(file.etag, row.etag, sizeof(file.etag));
    rc = rebuild_tree_add(&in->tree, row.key, &file);
    in->counts->names = *names;
    return rc;
}

static int read_rows(struct inventory *in, gzFile from)
{
    cleanup(free_ptr) char *text = malloc(INVENTORY_ROW_MAX);
    size_t len = 0;
    int rc = text ? 0 : -ENOMEM;
    while (!rc && gzgets(from, text + len, (int)(INVENTORY_ROW_MAX - len))) {
        size_t end = len + strlen(text + len);
        if (end == len || (end == INVENTORY_ROW_MAX - 1 && text[end - 1] != '\n'))
            return error_set(in->error, -EBADMSG, "row %" PRIu64 " is too long, or has a NUL",
                             in->row + 1);
        len = end;
        if (inventory_row_goes_on(text) && !gzeof(from))
            continue;
        len = 0;
        text[strcspn(text, "\r\n")] = '\0';
        in->row++;
        in->counts->rows++;
        if (!*text || (in->file == in->from_file && in->row <= in->from_row))
            continue;
        rc = take_row(in, text);
        crash_point("inventory.row");
        if (!rc && clock_monotonic_ns() > in->saved_ns + SAVE_NS)
            rc = save(in);
        if (!rc && in->row % 256 == 0)
            rc = check_stop(in);
        if (in->config->progress && in->row % 4096 == 0)
            in->config->progress(in->config->arg, in->counts);
    }
    int bad = 0;
    gzerror(from, &bad);
    if (!rc && bad != Z_OK && bad != Z_STREAM_END)
        rc = error_set(in->error, -EBADMSG, "cannot be unpacked");
    return rc;
}

/* Reads the rows and closes `from` (NULL: it could not be opened). */
static int read_open(struct inventory *in, gzFile from, const char *path)
{
    if (!from)
        return error_set(in->error, -errno, "%s: %s", path, strerror(errno));
    int rc = read_rows(in, from);
    int closed = gzclose_r(from);
    if (!rc && closed != Z_OK)
        rc = error_set(in->error, -EBADMSG, "ends too early");
    return rc;
}

static int read_plain(struct inventory *in, const char *path)
{
    return read_open(in, gzopen(path, "rb"), path); /* also what is not compressed */
}

static int read_converted(struct inventory *in, const char *path)
{
    struct inventory_child child;
    int fd = -1;
    int rc = inventory_convert_begin(&in->converter, &in->manifest, path, &child, &fd, in->error);
    if (rc)
        return rc;
    gzFile from = gzdopen(fd, "rb");
    rc = read_open(in, from, path);
    if (!from)
        close(fd);
    int end = inventory_convert_end(&child, !rc, in->error);
    return rc ? rc : end;
}

static int read_file(struct inventory *in)
{
    const struct inventory_file *file = &in->manifest.files[in->file];
    char path[PATH_MAX];
    in->row = 0;
    int rc = bring(in, file, path);
    if (rc)
        return rc;
    rc = in->manifest.format == INVENTORY_CSV ? read_plain(in, path) : read_converted(in, path);
    if (rc) {
        error_prefix(in->error, "%s, row %" PRIu64, file->key, in->row);
        return rc;
    }
    in->counts->bytes += file->size;
    if (!in->config->store)
        return 0;
    return unlink(path) < 0 ? error_set(in->error, -errno, "%s: %s", path, strerror(errno)) : 0;
}

/* Directories */

/* One that was moved still has its prefix, but was not found by it: its names did not come. */
static bool is_at_home(struct inventory *in, uint64_t ino, const char *prefix)
{
    struct meta_op op = {.kind = META_PATH, .ino = ino};
    struct meta_reply reply;
    size_t own = strlen(in->meta->format.prefix), len = strlen(prefix);
    bool same = volume_read(in->meta, &op, &reply) == 0;
    if (same && ino != META_ROOT_INO)
        same = len == own + reply.data_len + 1 && !memcmp(prefix + own, reply.data, reply.data_len);
    meta_reply_done(&reply);
    return same;
}

/* Names that begin with the filter are all there are in these. */
static int mark_listed(struct inventory *in, uint64_t ino, const char *prefix)
{
    if (!begins_with(prefix, in->config->filter) || !begins_with(prefix, in->meta->format.prefix) ||
        !is_at_home(in, ino, prefix))
        return 0;
    struct meta_name end = {"\xff", 1};
    struct meta_op op = {.kind = META_IMPORT_DIR,
                         .ino = ino,
                         .name = end,
                         .new_name = end,
                         .data = prefix,
                         .data_len = strlen(prefix),
                         .attr.mtime_ns = in->manifest.created_ns,
                         .flags = META_IMPORT_OLD | META_IMPORT_LAST};
    struct meta_reply reply;
    int rc = volume_apply(in->meta, &op, &reply);
    meta_reply_done(&reply);
    in->counts->listed += !rc;
    return rc == -ESTALE ? 0 : rc;
}

static int mark_all(struct inventory *in)
{
    uint64_t inos[256], after = 0;
    int count;
    while ((count = engine_origins(in->meta->engine, after, inos, ARRAY_LEN(inos))) > 0) {
        after = inos[count - 1];
        for (int i = 0; i < count; i++) {
            char prefix[META_KEY_MAX + 1];
            uint64_t listed_ns;
            int rc = engine_origin(in->meta->engine, inos[i], prefix, &listed_ns);
            if (!rc)
                rc = mark_listed(in, inos[i], prefix);
            if (rc && rc != -ENODATA && rc != -ENOENT)
                return rc;
        }
    }
    return count;
}

static int run(struct inventory *in)
{
    int rc = rebuild_tree_begin(&in->tree, in->meta, &in->state.counts, in->error);
    in->tree.asked_ns = in->manifest.created_ns;
    in->saved_ns = clock_monotonic_ns();
    for (in->file = 0; !rc && in->file < in->manifest.file_count; in->file++) {
        if (in->file < in->from_file) {
            in->counts->bytes += in->manifest.files[in->file].size;
            continue;
        }
        rc = read_file(in);
        if (in->config->progress)
            in->config->progress(in->config->arg, in->counts);
    }
    if (!rc)
        rc = save(in);
    int end = rebuild_tree_end(&in->tree, !rc);
    rc = rc ? rc : end;
    if (!rc)
        rc = mark_all(in);
    if (!rc)
        rc = engine_sync(in->meta->engine);
    return rc;
}

static int open_and_run(struct inventory *in)
{
    struct meta_config volume = in->config->volume;
    int rc = 0;
    in->meta = in->config->living;
    volume.no_settle = true;
    if (!in->meta)
        rc = meta_open(&volume, &in->meta, in->error);
    if (!rc)
        rc = run(in);
    in->counts->names = in->state.counts;
    if (!in->config->living)
        meta_close(in->meta);
    crash_point("inventory.closed");
    return rc;
}

int meta_import_inventory(const struct inventory_config *config, struct inventory_counts *counts,
                          json_t *hidden, struct error *error)
{
    struct inventory in = {.config = config, .counts = counts, .error = error};
    in.directory = config->living ? config->living->directory : config->volume.directory;
    *counts = (struct inventory_counts){0};
    in.chunk = malloc(CHUNK);
    int rc = in.chunk ? read_manifest(&in) : -ENOMEM;
    if (!rc && strcmp(in.manifest.bucket, config->bucket) != 0)
        rc = error_set(error, -EINVAL, "%s is an inventory of the bucket %s, not of %s",
                       config->manifest, in.manifest.bucket, config->bucket);
    for (size_t i = 0; !rc && i < in.manifest.file_count; i++)
        counts->all_bytes += in.manifest.files[i].size;
    if (!rc && in.manifest.format != INVENTORY_CSV)
        rc = inventory_converter_find(in.manifest.format, &in.converter, error);
    if (!rc)
        rc = load(&in);
    if (!rc)
        rc = open_and_run(&in);
    if (hidden && in.tree.hidden)
        names_hidden_status(in.tree.hidden, hidden);
    names_hidden_free(in.tree.hidden);
    if (!rc)
        rc = rebuild_state_end(in.directory, STATE, error);
    inventory_manifest_done(&in.manifest);
    free(in.chunk);
    if (rc && !error->code)
        error_set(error, rc, "import: %s", strerror(-rc));
    return rc;
}
