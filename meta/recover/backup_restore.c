/* From a backup to a metadata directory, and a comparison with the bucket. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "backup_impl.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "engine/owner_record.h"
#include "meta/engine.h"

#define PIECE_BYTES (8u << 20)
#define OWNER_LEASE_NS (90 * NS_PER_S)
#define PLACE "db"

struct restore {
    const struct restore_config *config;
    struct restore_result *result;
    struct error *error;
    struct backup_manifest manifest;
    struct engine *engine;
    char wanted[BACKUP_TIME_LEN + 1], found[BACKUP_TIME_LEN + 1];
};

/* ---- which ---- */

/* "2026-11-21T16:11" as the beginning of a backup's name: digits only, T at its place. */
static int read_time(const char *text, char out[BACKUP_TIME_LEN + 1])
{
    size_t n = 0;
    for (const char *p = text; *p; p++) {
        if (*p == '-' || *p == ':')
            continue;
        if (n == BACKUP_TIME_LEN)
            return -EINVAL;
        out[n++] = *p;
    }
    out[n] = '\0';
    if (n > 0 && out[n - 1] == 'Z' && n < BACKUP_TIME_LEN)
        out[--n] = '\0';
    /* What is missing must fit the shape. */
    char whole[BACKUP_TIME_LEN + 1] = "00000000T000000.000Z";
    memcpy(whole, out, n);
    return n >= 4 && backup_is_time(whole, BACKUP_TIME_LEN) ? 0 : -EINVAL;
}

static int choose(void *arg, const char *time)
{
    struct restore *r = arg;
    if (strncmp(time, r->wanted, strlen(r->wanted)) <= 0)
        memcpy(r->found, time, sizeof(r->found));
    return 0;
}

static int find_backup(struct restore *r)
{
    const struct restore_config *c = r->config;
    if (c->at && read_time(c->at, r->wanted) < 0)
        return error_set(r->error, -EINVAL, "'%s' is no time like 2026-11-21T16:11", c->at);
    int rc = backup_list(&c->place, choose, r, r->error);
    if (rc < 0)
        return rc;
    if (!r->found[0])
        return error_set(r->error, -ENOENT, "there is no backup%s%s in %s/%s",
                         c->at ? " up to " : "", c->at ? c->at : "", store_name(c->place.store),
                         c->place.base);
    memcpy(r->result->time, r->found, sizeof(r->found));
    return backup_manifest_read(&c->place, r->found, &r->manifest, r->error);
}

/* The database of a mount that lives must not come to life a second time. */
static int check_owner(struct restore *r)
{
    const struct restore_config *c = r->config;
    struct owner_record record;
    char key[META_KEY_MAX + 16];
    cleanup(free_ptr) uint8_t *data = malloc(OWNER_RECORD_MAX);
    snprintf(key, sizeof(key), "%s.sluice/volume", c->prefix);
    struct store_op op = {.kind = STORE_GET,
                          .key = key,
                          .buf = data,
                          .buf_len = OWNER_RECORD_MAX,
                          .length = OWNER_RECORD_MAX};
    int rc = data ? store_wait(c->store, &op) : -ENOMEM;
    size_t got = op.got;
    if (rc < 0 && rc != -ENOENT && rc != -ERANGE && r->error) {
        *r->error = op.error;
        error_prefix(r->error, "cannot read who owns the prefix");
    }
    store_op_reset(&op);
    if (rc == -ENOENT || rc == -ERANGE || c->take_over)
        return 0;
    if (rc < 0 || owner_record_parse(data, got, &record) < 0)
        return rc;
    uint64_t now = clock_wall_ns();
    if (!record.held || now > record.renewed_ns + OWNER_LEASE_NS)
        return 0;
    return error_set(r->error, -EBUSY,
                     "the prefix was held %" PRIu64
                     " s ago by %s; unmount it there, or say --take-over if it is gone for good",
                     (uint64_t)((now > record.renewed_ns ? now - record.renewed_ns : 0) / NS_PER_S),
                     record.owner[0] ? record.owner : "an unnamed host");
}

/* ---- files ---- */

static int get_piece(struct restore *r, const char *key, void *buf, uint64_t offset, size_t len)
{
    struct store_op op = {
        .kind = STORE_GET, .key = key, .buf = buf, .buf_len = len, .offset = offset, .length = len};
    int rc = store_wait(r->config->place.store, &op);
    if (rc == 0 && op.got != len)
        rc = -EBADMSG;
    store_op_reset(&op);
    return rc;
}

static int write_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static void free_digest(EVP_MD_CTX **ctx)
{
    EVP_MD_CTX_free(*ctx);
}

static int copy_file(struct restore *r, const struct backup_file *file, int fd)
{
    char key[META_KEY_MAX + 1], hex[65];
    uint8_t sum[32];
    cleanup(free_ptr) uint8_t *piece = malloc(PIECE_BYTES);
    cleanup(free_digest) EVP_MD_CTX *digest = EVP_MD_CTX_new();
    int rc = backup_key(&r->config->place, key, BACKUP_FILES, file->sha256, "");
    if (!piece || !digest || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1)
        return -ENOMEM;
    for (uint64_t at = 0; rc == 0 && at < file->size; at += PIECE_BYTES) {
        size_t len = (size_t)MIN((uint64_t)PIECE_BYTES, file->size - at);
        rc = get_piece(r, key, piece, at, len);
        if (rc == 0)
            rc = write_all(fd, piece, len);
        EVP_DigestUpdate(digest, piece, rc == 0 ? len : 0);
    }
    if (rc < 0)
        return rc;
    EVP_DigestFinal_ex(digest, sum, NULL);
    hash_hex(sum, sizeof(sum), hex);
    if (strcmp(hex, file->sha256) != 0)
        return -EBADMSG;
    return fsync(fd) < 0 ? -errno : 0;
}

static int fetch_file(struct restore *r, const char *directory, const struct backup_file *file)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/%s", directory, file->name) >= (int)sizeof(path))
        return error_set(r->error, -ENAMETOOLONG, "%s: too long a path", directory);
    cleanup(close_fd) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(r->error, -errno, "%s: %s", path, strerror(errno));
    int rc = copy_file(r, file, fd);
    if (rc == -ENOENT || rc == -ERANGE || rc == -EBADMSG)
        return error_set(r->error, -EBADMSG, "backup %s is damaged: %s (%s) is %s", r->found,
                         file->name, file->sha256, rc == -ENOENT ? "gone" : "not what it was");
    if (rc < 0)
        return error_set(r->error, rc, "%s: %s", path, strerror(-rc));
    r->result->files++;
    r->result->bytes += file->size;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int sync_directory(const char *path)
{
    cleanup(close_fd) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* ---- the database ---- */

static void keep_first(void *arg, const char *text)
{
    char *first = arg;
    if (!first[0])
        snprintf(first, 400, "%s", text);
}

static int check_database(struct restore *r)
{
    const struct restore_config *c = r->config;
    struct meta_volume volume;
    char first[400] = "";
    int rc = engine_volume(r->engine, &volume);
    if (rc < 0)
        return error_set(r->error, -EBADMSG, "backup %s holds no volume", r->found);
    if (strcmp(volume.id, r->manifest.volume) != 0)
        return error_set(r->error, -EBADMSG, "backup %s is not what its manifest says", r->found);
    if (strcmp(volume.prefix, c->prefix) != 0 || strcmp(volume.store, store_name(c->store)) != 0)
        return error_set(r->error, -EINVAL, "backup %s is of %s/%s, not of %s/%s", r->found,
                         volume.store, volume.prefix, store_name(c->store), c->prefix);
    int found = engine_check(r->engine, keep_first, first);
    if (found < 0)
        return error_set(r->error, found, "cannot check the database: %s", strerror(-found));
    if (found)
        return error_set(r->error, -EBADMSG, "backup %s is damaged: %d violations, first: %s",
                         r->found, found, first);
    rc = engine_restored(r->engine);
    return rc < 0 ? error_set(r->error, rc, "cannot write the database: %s", strerror(-rc)) : 0;
}

/* ---- the bucket: both sides in the order of their keys ---- */

struct bucket_walk {
    struct restore *r;
    struct store_op op;
    size_t next;
    char *token;
    bool ended;
};

/* The next key of the bucket at or after `key`, or NULL. */
static int bucket_seek(struct bucket_walk *walk, const char *key, const struct store_entry **out)
{
    for (;;) {
        for (; walk->next < walk->op.out_list.count; walk->next++) {
            *out = &walk->op.out_list.entries[walk->next];
            if (strcmp((*out)->name, key) >= 0)
                return 0;
        }
        *out = NULL;
        if (walk->ended)
            return 0;
        store_op_reset(&walk->op);
        walk->op = (struct store_op){
            .kind = STORE_LIST, .prefix = walk->r->config->prefix, .token = walk->token};
        int rc = store_wait(walk->r->config->store, &walk->op);
        if (rc < 0) {
            if (walk->r->error)
                *walk->r->error = walk->op.error;
            return rc;
        }
        free(walk->token);
        walk->token = walk->op.out_list.next_token ? strdup(walk->op.out_list.next_token) : NULL;
        walk->ended = !walk->token;
        walk->next = 0;
    }
}

static void report(struct restore *r, const struct engine_object *object, const char *key,
                   bool gone)
{
    struct meta_op op = {.kind = META_PATH, .ino = object->ino};
    struct meta_reply reply;
    r->result->missing += gone;
    r->result->changed += !gone;
    if (!r->config->differs)
        return;
    meta_reply_init(&reply);
    cleanup(free_ptr) char *path =
        engine_read(r->engine, &op, 0, &reply) == 0 ? strndup(reply.data, reply.data_len) : NULL;
    meta_reply_done(&reply);
    r->config->differs(r->config->arg, path ? path : "?", key, gone);
}

static int compare_object(void *arg, const struct engine_object *object)
{
    struct bucket_walk *walk = arg;
    const struct store_entry *entry;
    char key[META_KEY_MAX + 1], etag[META_ETAG_MAX];
    snprintf(key, sizeof(key), "%.*s", (int)object->key_len, object->key);
    snprintf(etag, sizeof(etag), "%.*s", (int)object->etag_len, object->etag);
    walk->r->result->objects++;
    int rc = bucket_seek(walk, key, &entry);
    if (rc < 0)
        return rc;
    bool gone = !entry || strcmp(entry->name, key) != 0;
    if (gone || entry->size != object->size || (etag[0] && strcmp(entry->etag, etag) != 0))
        report(walk->r, object, key, gone);
    return 0;
}

static int compare_bucket(struct restore *r)
{
    struct bucket_walk walk = {.r = r};
    int rc = engine_each_object(r->engine, compare_object, &walk);
    store_op_reset(&walk.op);
    free(walk.token);
    if (rc < 0 && r->error && !r->error->code)
        error_set(r->error, rc, "cannot compare with the bucket: %s", strerror(-rc));
    return rc;
}

/* ---- all ---- */

static int fetch_all(struct restore *r, const char *work)
{
    char directory[PATH_MAX];
    int n = snprintf(directory, sizeof(directory), "%s/" PLACE, work);
    if (n >= (int)sizeof(directory) || mkdir(work, 0700) < 0 || mkdir(directory, 0700) < 0)
        return error_set(r->error, n >= (int)sizeof(directory) ? -ENAMETOOLONG : -errno,
                         "cannot make %s", work);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < r->manifest.count; i++)
        rc = fetch_file(r, directory, &r->manifest.files[i]);
    if (rc == 0 && (rc = sync_directory(directory)) < 0)
        error_set(r->error, rc, "%s: %s", directory, strerror(-rc));
    return rc;
}

static int use_database(struct restore *r, const char *work)
{
    struct engine_options options = {.path = work};
    int rc = engine_open(&options, &r->engine, r->error);
    if (rc == 0)
        rc = check_database(r);
    if (rc == 0)
        rc = compare_bucket(r);
    engine_close(TAKE_PTR(r->engine));
    return rc;
}

/* All parts of the database change their place; the name of the database itself comes last. */
static int move_in(struct restore *r, const char *work)
{
    static const char *const parts[] = {"synced", "reserve", PLACE};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        char from[PATH_MAX], to[PATH_MAX];
        if (snprintf(from, sizeof(from), "%s/%s", work, parts[i]) >= (int)sizeof(from) ||
            snprintf(to, sizeof(to), "%s/%s", r->config->directory, parts[i]) >= (int)sizeof(to))
            return error_set(r->error, -ENAMETOOLONG, "%s: too long a path", work);
        if (rename(from, to) < 0 && !(errno == ENOENT && i + 1 < ARRAY_LEN(parts)))
            return error_set(r->error, -errno, "%s: %s", to, strerror(errno));
    }
    int rc = sync_directory(r->config->directory);
    return rc < 0 ? error_set(r->error, rc, "%s: %s", r->config->directory, strerror(-rc)) : 0;
}

int backup_restore(const struct restore_config *config, struct restore_result *result,
                   struct error *error)
{
    struct restore r = {.config = config, .result = result, .error = error};
    char work[PATH_MAX], database[PATH_MAX];
    *result = (struct restore_result){0};
    if (snprintf(work, sizeof(work), "%s/restore", config->directory) >= (int)sizeof(work) ||
        snprintf(database, sizeof(database), "%s/" PLACE, config->directory) >=
            (int)sizeof(database))
        return error_set(error, -ENAMETOOLONG, "%s: too long a path", config->directory);
    if (access(database, F_OK) == 0)
        return error_set(error, -EEXIST,
                         "there is metadata in %s; move it away first: what is not settled is "
                         "known to it alone",
                         config->directory);
    int rc = check_owner(&r);
    if (rc == 0)
        rc = find_backup(&r);
    if (rc < 0) {
        backup_manifest_done(&r.manifest);
        return rc;
    }
    remove_tree(work); /* of a restore that was killed */
    rc = fetch_all(&r, work);
    if (rc == 0)
        rc = use_database(&r, work);
    if (rc == 0)
        rc = move_in(&r, work);
    remove_tree(work);
    backup_manifest_done(&r.manifest);
    return rc;
}
