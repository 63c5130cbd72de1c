/*
 * RocksDB under the engine. All is in one directory:
 *
 *   db/       RocksDB's own files, without its info log: it cannot be told to have none, but aborts
 *             when it cannot write it; so the log is made elsewhere, and removed at once
 *   synced    how many applies were synced: what the write-ahead log must at least hold
 *   reserve   bytes that are given back when the disk is full, so that deleting still works
 *
 * The write-ahead log is replayed up to an incomplete last record (a kill or a power loss cut it).
 * Other damage to it is accepted only behind what `synced` says, as a power loss may leave the last
 * pages in any order; anything else is refused.
 *
 * When the disk is full, RocksDB keeps answering reads and refuses writes until it is opened again;
 * that is tried before each later apply, as soon as there is room.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "base/log.h"
#include "engine_impl.h"

#define MIB ((uint64_t)1 << 20)
#define RESERVE_BYTES (16 * MIB)
#define TIGHT_BYTES (8 * MIB)   /* less than this free: only what frees is accepted */
#define RELEASE_BYTES (4 * MIB) /* less than this free: the reserve is given back */
#define CHECK_APPLIES 64
#define SQUEEZE_APPLIES 512
#define CHECK_BYTES MIB

/* Values of RocksDB's WALRecoveryMode. */
enum { RECOVER_TOLERATE_TAIL = 0, RECOVER_POINT_IN_TIME = 2 };
#define INFO_LOG_FATAL 4

static const char *const table_names[TABLE_COUNT] = {"default", "inode",  "dentry",    "link",
                                                     "extent",  "object", "key",       "claim",
                                                     "origin",  "xattr",  "sustained", "work"};

int engine_db_error(struct engine *engine, char *message, const char *what)
{
    int code = -EIO;
    if (strstr(message, "No space left") || strstr(message, "Disk quota exceeded") ||
        strstr(message, "Space limit reached"))
        code = -ENOSPC;
    else if (strstr(message, "hold by current process") || strstr(message, "While lock file"))
        code = -EBUSY;
    else if (strncmp(message, "Corruption", strlen("Corruption")) == 0)
        code = -EILSEQ;
    else if (strstr(message, "Permission denied"))
        code = -EACCES;
    else if (strstr(message, "Read-only file system"))
        code = -EROFS;
    else if (strstr(message, "Cannot allocate memory"))
        code = -ENOMEM;
    if (what) {
        static struct log_limit limit = LOG_LIMIT(5, 10000);
        char quoted[600], path[300];
        log_limited(&limit, LOG_ERROR, "metadata database failed", "at=%s path=%s error=%s", what,
                    log_quote(engine->path, path, sizeof(path)),
                    log_quote(message, quoted, sizeof(quoted)));
    }
    rocksdb_free(message);
    return code;
}

static void path_of(const struct engine *engine, const char *name, char out[4096])
{
    snprintf(out, 4096, "%s/%s", engine->path, name);
}

static bool has_memtable_filter(enum engine_table table)
{
    return table == TABLE_DENTRY || table == TABLE_KEY;
}

/* New records of a table mostly come beside others that begin alike: inodes and their parts by
 * number, names by directory, work by time. RocksDB remembers where the last one of each such
 * beginning went into the memtable, and searches the next from there and not from the top. One
 * memory of 250 bytes for each beginning: so 256 inodes share theirs. The C interface knows this
 * option only as text. */
static void set_insert_hints(rocksdb_options_t *o, enum engine_table table)
{
    static const int same[TABLE_COUNT] = {
        [TABLE_SYSTEM] = 4, [TABLE_INODE] = 7,  [TABLE_DENTRY] = 8, [TABLE_LINK] = 7,
        [TABLE_EXTENT] = 7, [TABLE_OBJECT] = 7, [TABLE_XATTR] = 7,  [TABLE_SUSTAINED] = 7,
        [TABLE_WORK] = 5, /* the kind, and the time in units of four seconds */
    };
    char text[96], *message = NULL;
    if (same[table] == 0)
        return;
    snprintf(text, sizeof(text),
             "memtable_insert_with_hint_prefix_extractor=rocksdb.FixedPrefix.%d", same[table]);
    rocksdb_options_t *plain = rocksdb_options_create_copy(o);
    rocksdb_get_options_from_string(plain, text, o, &message);
    rocksdb_options_destroy(plain);
    if (message)
        log_debug("inserts without hints", "error=%s", message);
    rocksdb_free(message);
}

static rocksdb_options_t *options_new(struct engine *engine, enum engine_table table)
{
    uint64_t buffers = engine->memory_bytes / 2;
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(o, !engine->read_only);
    rocksdb_options_set_create_missing_column_families(o, !engine->read_only);
    rocksdb_options_set_wal_recovery_mode(o, RECOVER_TOLERATE_TAIL);
    rocksdb_options_set_info_log_level(o, INFO_LOG_FATAL);
    rocksdb_options_set_max_open_files(o, 256);
    rocksdb_options_set_max_background_jobs(o, 2);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_stats_persist_period_sec(o, 0);
    rocksdb_options_set_db_write_buffer_size(o, buffers);
    rocksdb_options_set_write_buffer_size(o, buffers / 3);
    rocksdb_options_set_arena_block_size(o, 128 << 10);
    rocksdb_options_set_max_total_wal_size(o, buffers * 2);
    rocksdb_options_set_max_manifest_file_size(o, 4 * MIB);
    rocksdb_options_set_manifest_preallocation_size(o, 64 << 10);
    rocksdb_options_set_keep_log_file_num(o, 1);
    rocksdb_options_set_compression(o, rocksdb_lz4_compression);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
    rocksdb_options_set_max_bytes_for_level_base(o, 64 * MIB);
    rocksdb_options_set_target_file_size_base(o, 16 * MIB);
    rocksdb_options_set_enable_write_thread_adaptive_yield(o, 0);
    if (has_memtable_filter(table)) {
        rocksdb_options_set_memtable_prefix_bloom_size_ratio(o, 0.05);
        rocksdb_options_set_memtable_whole_key_filtering(o, 1);
    }
    set_insert_hints(o, table);
    rocksdb_block_based_table_options_t *b = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(b, engine->block_cache);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(b, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(b, 1);
    rocksdb_block_based_options_set_filter_policy(b, rocksdb_filterpolicy_create_bloom_full(10));
    /* In pieces: the filter of a file of 500,000 keys is one block of 600 KiB otherwise, which a
     * small cache reads anew for each key that is asked for. */
    rocksdb_block_based_options_set_index_type(
        b, rocksdb_block_based_table_index_type_two_level_index_search);
    rocksdb_block_based_options_set_partition_filters(b, 1);
    rocksdb_block_based_options_set_pin_top_level_index_and_filter(b, 1);
    rocksdb_block_based_options_set_format_version(b, 5);
    rocksdb_options_set_block_based_table_factory(o, b);
    rocksdb_block_based_options_destroy(b);
    return o;
}

/* A directory for the info log, in memory if it can be; "" if none can be made. Always the same one
 * for a database, so that one left by a killed process is removed by the next. */
static void log_dir_make(struct engine *engine, char dir[4096])
{
    uint8_t sum[32];
    char hex[17], path[4096];
    struct stat st;
    path_of(engine, "", path);
    char *whole = realpath(path, NULL);
    hash_sha256(whole ? whole : path, strlen(whole ? whole : path), sum);
    free(whole);
    hash_hex(sum, 8, hex);
    snprintf(dir, 4096, "/dev/shm/sluice-log-%u-%s", (unsigned)geteuid(), hex);
    if (mkdir(dir, 0700) == 0 || (errno == EEXIST && lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) &&
                                  st.st_uid == geteuid() && (st.st_mode & 077) == 0))
        return;
    path_of(engine, "log-XXXXXX", dir);
    if (engine->read_only || !mkdtemp(dir))
        dir[0] = '\0';
}

static void log_dir_remove(const char *dir)
{
    DIR *list = dir[0] ? opendir(dir) : NULL;
    if (!list)
        return;
    for (struct dirent *e; (e = readdir(list));)
        unlinkat(dirfd(list), e->d_name, 0); /* not "." and "..": they are directories */
    closedir(list);
    rmdir(dir);
}

static int open_rocksdb(struct engine *engine, bool read_only, int mode, char **message)
{
    char path[4096], log_dir[4096];
    path_of(engine, "db", path);
    log_dir_make(engine, log_dir);
    rocksdb_options_set_db_log_dir(engine->options[TABLE_SYSTEM], log_dir);
    rocksdb_options_set_wal_recovery_mode(engine->options[TABLE_SYSTEM], mode);
    const rocksdb_options_t *options[TABLE_COUNT];
    for (int i = 0; i < TABLE_COUNT; i++)
        options[i] = engine->options[i];
    *message = NULL;
    if (read_only)
        engine->db = rocksdb_open_for_read_only_column_families(engine->options[TABLE_SYSTEM], path,
                                                                TABLE_COUNT, table_names, options,
                                                                engine->tables, 0, message);
    else
        engine->db = rocksdb_open_column_families(engine->options[TABLE_SYSTEM], path, TABLE_COUNT,
                                                  table_names, options, engine->tables, message);
    log_dir_remove(log_dir);
    return *message ? -EIO : 0;
}

static void close_rocksdb(struct engine *engine)
{
    if (!engine->db)
        return;
    for (int i = 0; i < TABLE_COUNT; i++) {
        if (engine->tables[i])
            rocksdb_column_family_handle_destroy(engine->tables[i]);
        engine->tables[i] = NULL;
    }
    rocksdb_close(engine->db);
    engine->db = NULL;
}

/* What was synced at least, 0 without a note. */
static uint64_t synced_note(struct engine *engine)
{
    uint8_t bytes[8];
    if (engine->synced_fd < 0 ||
        pread(engine->synced_fd, bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        return 0;
    return record_get_u64(bytes);
}

/* The first byte of each of the two records says what is needed to read all the others. */
static int check_version(const struct engine *engine, const uint8_t *value, size_t len,
                         unsigned newest, struct error *error)
{
    if (len == 0 || value[0] <= newest)
        return 0;
    return error_set(error, -EPROTO,
                     "the metadata in %s was written by a newer version of Sluice. Nothing was "
                     "changed. Use that version, or a newer one",
                     engine->path);
}

/* Counters, settings and the version of what was opened. */
static int load_state(struct engine *engine, struct error *error)
{
    struct arena arena = {0};
    struct record_key key;
    const uint8_t *value;
    size_t len;
    memset(&engine->counters, 0, sizeof(engine->counters));
    record_key_text(&key, "volume");
    int rc = engine_db_copy(engine, NULL, TABLE_SYSTEM, &key, &arena, &value, &len);
    if (rc == -ENOENT) {
        rc = 0; /* not formatted */
    } else if (rc == 0) {
        rc = check_version(engine, value, len, RECORD_VOLUME_VERSION, error);
        if (rc == 0 && record_volume_decode(value, len, &engine->volume) < 0)
            rc = -EILSEQ;
    }
    record_key_text(&key, "counters");
    int got = rc ? rc : engine_db_copy(engine, NULL, TABLE_SYSTEM, &key, &arena, &value, &len);
    if (got == 0)
        got = check_version(engine, value, len, RECORD_COUNTERS_VERSION, error);
    if (got == 0 && record_counters_decode(value, len, &engine->counters) < 0)
        got = -EILSEQ;
    if (got != -ENOENT)
        rc = got;
    arena_done(&arena);
    atomic_store(&engine->applied, engine->counters.applied);
    atomic_store(&engine->inodes, engine->counters.inodes);
    if (rc == 0 && engine->volume.id[0])
        atomic_store(&engine->formatted, true);
    if (rc == 0 && engine->counters.applied < synced_note(engine))
        rc = -EILSEQ;
    if (rc == 0)
        rc = engine_stores_load(engine);
    return rc == 0 ? engine_quota_load(engine) : rc;
}

static int damaged(struct engine *engine, struct error *error, const char *detail)
{
    return error_set(error, -EILSEQ,
                     "the metadata in %s is damaged (%.200s). Nothing was changed. Restore the "
                     "directory from a copy, or move it away and mount again: settled files are in "
                     "the bucket under their own paths",
                     engine->path, detail);
}

/* The log has damage that is no cut end. It is a power loss's if all that was synced is in front of
 * it: looked at without changing anything. */
static int damage_is_behind_synced(struct engine *engine)
{
    char *message;
    int rc = open_rocksdb(engine, true, RECOVER_POINT_IN_TIME, &message);
    if (rc < 0) {
        rocksdb_free(message);
        return 0;
    }
    rc = load_state(engine, NULL);
    close_rocksdb(engine);
    return rc == 0;
}

static int open_checked(struct engine *engine, struct error *error)
{
    char *message;
    int rc = open_rocksdb(engine, engine->read_only, RECOVER_TOLERATE_TAIL, &message);
    if (rc < 0 && strncmp(message, "Corruption", strlen("Corruption")) == 0 &&
        damage_is_behind_synced(engine)) {
        log_warn("metadata log cut", "path=%s reason=\"damage behind what was synced\"",
                 engine->path);
        rocksdb_free(message);
        rc = open_rocksdb(engine, engine->read_only, RECOVER_POINT_IN_TIME, &message);
    }
    if (rc < 0) {
        char text[256];
        snprintf(text, sizeof(text), "%s", message);
        rc = engine_db_error(engine, message, NULL);
        if (rc == -EILSEQ)
            return damaged(engine, error, text);
        if (rc == -EBUSY)
            return error_set(error, rc, "the metadata in %s is in use by another process",
                             engine->path);
        return error_set(error, rc, "cannot open the metadata in %s: %s", engine->path, text);
    }
    rc = load_state(engine, error);
    if (rc == -EILSEQ) {
        rc = damaged(engine, error, "its log ends before what was synced");
    } else if (rc < 0 && !(error && error->code)) {
        rc =
            error_set(error, rc, "cannot read the metadata in %s: %s", engine->path, strerror(-rc));
    }
    if (rc < 0)
        close_rocksdb(engine);
    return rc;
}

static void reserve_make(struct engine *engine)
{
    char path[4096];
    path_of(engine, "reserve", path);
    if (engine->no_reserve || engine->read_only)
        return;
    cleanup(close_fd) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    engine->has_reserve = fd >= 0 && posix_fallocate(fd, 0, (off_t)RESERVE_BYTES) == 0;
    if (!engine->has_reserve)
        unlink(path);
}

static void reserve_release(struct engine *engine)
{
    char path[4096];
    path_of(engine, "reserve", path);
    if (engine->has_reserve && unlink(path) == 0)
        log_warn("metadata disk is full", "path=%s reserve=released", engine->path);
    engine->has_reserve = false;
}

static uint64_t free_bytes(const struct engine *engine)
{
    struct statvfs st;
    if (statvfs(engine->path, &st) < 0)
        return UINT64_MAX;
    return (uint64_t)st.f_bavail * st.f_frsize;
}

static void space_check(struct engine *engine)
{
    engine->since_space_check = 0;
    engine->bytes_since_space_check = 0;
    uint64_t left = free_bytes(engine);
    if (engine->db)
        engine_wal_grow(engine);
    if (left < RELEASE_BYTES)
        reserve_release(engine);
    if (left < TIGHT_BYTES) {
        engine->tight = true;
    } else if (engine->tight &&
               left > 2 * TIGHT_BYTES + (engine->has_reserve ? 0 : RESERVE_BYTES)) {
        engine->tight = false;
        if (!engine->has_reserve)
            reserve_make(engine);
    }
}

/* On a disk that is nearly full, what was deleted must really go: RocksDB would keep it in its log
 * and in the files below until it finds it worth its while. */
static void squeeze(struct engine *engine)
{
    char *message = NULL;
    engine->since_squeeze = 0;
    reserve_release(engine);
    rocksdb_flushoptions_t *flush = rocksdb_flushoptions_create();
    for (int i = 0; i < TABLE_COUNT && !message; i++)
        rocksdb_flush_cf(engine->db, flush, engine->tables[i], &message);
    rocksdb_flushoptions_destroy(flush);
    if (message) {
        engine_db_error(engine, message, "flush");
        return;
    }
    for (int i = 0; i < TABLE_COUNT; i++)
        rocksdb_compact_range_cf(engine->db, engine->tables[i], NULL, 0, NULL, 0);
    space_check(engine);
}

static int prepare_directory(struct engine *engine, struct error *error)
{
    char path[4096], current[4096];
    if (!engine->read_only && mkdir(engine->path, 0700) < 0 && errno != EEXIST)
        return error_set(error, -errno, "cannot make the metadata directory %s: %s", engine->path,
                         strerror(errno));
    path_of(engine, "synced", path);
    path_of(engine, "db/CURRENT", current);
    engine->synced_fd =
        open(path, (engine->read_only ? O_RDONLY : O_RDWR | O_CREAT) | O_CLOEXEC, 0600);
    if (engine->synced_fd < 0)
        return error_set(error, -errno, "cannot open %s: %s", path, strerror(errno));
    /* RocksDB would begin a new database in place of one that lost this file. */
    if (access(current, F_OK) < 0 && errno == ENOENT && synced_note(engine) > 0)
        return damaged(engine, error, "db/CURRENT is missing");
    return 0;
}

/* In few parts: a block has to fit into one, and older files of a database have large ones. */
static rocksdb_cache_t *block_cache_new(size_t bytes)
{
    rocksdb_lru_cache_options_t *o = rocksdb_lru_cache_options_create();
    rocksdb_lru_cache_options_set_capacity(o, bytes);
    rocksdb_lru_cache_options_set_num_shard_bits(o, 2);
    rocksdb_cache_t *cache = rocksdb_cache_create_lru_opts(o);
    rocksdb_lru_cache_options_destroy(o);
    return cache;
}

int engine_db_open(struct engine *engine, struct error *error)
{
    int rc = prepare_directory(engine, error);
    if (rc < 0)
        return rc;
    engine->block_cache = block_cache_new(engine->memory_bytes / 4);
    for (int i = 0; i < TABLE_COUNT; i++)
        engine->options[i] = options_new(engine, i);
    engine->read = rocksdb_readoptions_create();
    engine->write = rocksdb_writeoptions_create();
    rc = open_checked(engine, error);
    if (rc < 0)
        return rc;
    if (!engine->read_only) {
        reserve_make(engine);
        space_check(engine);
    }
    return 0;
}

void engine_db_close(struct engine *engine)
{
    if (engine->db && !engine->read_only)
        engine_db_sync(engine);
    close_rocksdb(engine);
    for (int i = 0; i < TABLE_COUNT; i++) {
        if (engine->options[i])
            rocksdb_options_destroy(engine->options[i]);
    }
    if (engine->read)
        rocksdb_readoptions_destroy(engine->read);
    if (engine->write)
        rocksdb_writeoptions_destroy(engine->write);
    if (engine->block_cache)
        rocksdb_cache_destroy(engine->block_cache);
    if (engine->synced_fd >= 0)
        close(engine->synced_fd);
}

/* After a refused write: opens the database again, which takes the state of the log. */
static int open_again(struct engine *engine)
{
    struct error error = {0};
    reserve_release(engine);
    if (free_bytes(engine) < RELEASE_BYTES)
        return -ENOSPC;
    engine_quota_let_go(&engine->txn);
    pthread_rwlock_wrlock(&engine->gate);
    close_rocksdb(engine);
    int rc = open_checked(engine, &error);
    engine_cache_clear(engine->cache);
    if (rc < 0) {
        /* Reading goes on. */
        char *message;
        if (open_rocksdb(engine, true, RECOVER_TOLERATE_TAIL, &message) < 0)
            engine_db_error(engine, message, "reopen");
    }
    pthread_rwlock_unlock(&engine->gate);
    if (rc < 0) {
        static struct log_limit limit = LOG_LIMIT(3, 60000);
        log_limited(&limit, LOG_ERROR, "metadata database stays closed for writing", "error=\"%s\"",
                    error_text(&error));
        return rc == -ENOSPC ? rc : -EROFS;
    }
    log_info("metadata database writes again", "path=%s", engine->path);
    engine->stopped = false;
    engine->tight = true; /* until space_check finds room */
    return 0;
}

int engine_db_ready(struct engine *engine, bool frees)
{
    if (engine->read_only)
        return -EROFS;
    if (!engine->stopped && ++engine->since_space_check < CHECK_APPLIES &&
        engine->bytes_since_space_check < CHECK_BYTES && !engine->tight)
        return 0;
    space_check(engine);
    if (engine->stopped) {
        int rc = open_again(engine);
        if (rc < 0)
            return rc;
        space_check(engine);
    }
    if (engine->tight && frees && ++engine->since_squeeze >= SQUEEZE_APPLIES)
        squeeze(engine);
    return engine->tight && !frees ? -ENOSPC : 0;
}

int engine_db_write(struct engine *engine, rocksdb_writebatch_t *batch)
{
    size_t bytes;
    rocksdb_writebatch_data(batch, &bytes);
    engine->bytes_since_space_check += bytes;
    engine->wal_written += bytes;
    char *message = NULL;
    uint64_t before = engine->counters.applied;
    rocksdb_write(engine->db, engine->write, batch, &message);
    if (!message)
        return 0;
    int rc = engine_db_error(engine, message, "write");
    engine->stopped = true;
    if (rc != -ENOSPC)
        return rc == -ENOMEM ? rc : -EROFS;
    /* The log may hold the whole batch all the same, and then it did happen. */
    if (open_again(engine) == 0 && engine->counters.applied > before)
        return 0;
    return -ENOSPC;
}

int engine_db_sync(struct engine *engine)
{
    char *message = NULL;
    uint64_t applied = atomic_load(&engine->applied);
    pthread_rwlock_rdlock(&engine->gate);
    bool there = engine->db != NULL;
    if (there)
        rocksdb_flush_wal(engine->db, 1, &message);
    pthread_rwlock_unlock(&engine->gate);
    if (!there)
        return -EIO;
    if (message)
        return engine_db_error(engine, message, "sync");
    uint64_t be = __builtin_bswap64(applied);
    if (pwrite(engine->synced_fd, &be, sizeof(be), 0) != (ssize_t)sizeof(be))
        return errno == ENOSPC ? 0 : -errno;
    return 0;
}

int engine_db_get(struct engine *engine, enum engine_table table, const void *key, size_t key_len,
                  uint8_t value[ENGINE_RECORD_MAX])
{
    uint64_t ticket;
    int rc =
        engine_cache_get(engine->cache, table, key, key_len, value, ENGINE_RECORD_MAX, &ticket);
    if (rc != -EAGAIN)
        return rc;
    if (table == TABLE_INODE &&
        (rc = engine_hot_get(engine, record_get_u64(key), value)) != -ENOENT)
        return rc;
    char *message = NULL;
    rocksdb_pinnableslice_t *slice = rocksdb_get_pinned_cf(
        engine->db, engine->read, engine->tables[table], key, key_len, &message);
    if (message) {
        rc = engine_db_error(engine, message, "read");
        return rc == -EILSEQ ? -EIO : rc;
    }
    if (!slice) {
        if (table == TABLE_DENTRY)
            engine_cache_fill(engine->cache, table, key, key_len, NULL, 0, ticket);
        return -ENOENT;
    }
    size_t len;
    const char *bytes = rocksdb_pinnableslice_value(slice, &len);
    if (len <= ENGINE_RECORD_MAX) {
        memcpy(value, bytes, len);
        engine_cache_fill(engine->cache, table, key, key_len, bytes, len, ticket);
    }
    rocksdb_pinnableslice_destroy(slice);
    return len <= ENGINE_RECORD_MAX ? (int)len : -EIO;
}

int engine_db_copy(struct engine *engine, const rocksdb_snapshot_t *snapshot,
                   enum engine_table table, const struct record_key *key, struct arena *arena,
                   const uint8_t **value, size_t *len)
{
    rocksdb_readoptions_t *options = engine->read;
    if (snapshot) {
        options = rocksdb_readoptions_create();
        rocksdb_readoptions_set_snapshot(options, snapshot);
    }
    char *message = NULL;
    rocksdb_pinnableslice_t *slice = rocksdb_get_pinned_cf(
        engine->db, options, engine->tables[table], (const char *)key->bytes, key->len, &message);
    if (snapshot)
        rocksdb_readoptions_destroy(options);
    if (message) {
        int rc = engine_db_error(engine, message, "read");
        return rc == -EILSEQ ? -EIO : rc;
    }
    if (!slice)
        return -ENOENT;
    size_t n;
    const char *bytes = rocksdb_pinnableslice_value(slice, &n);
    const uint8_t *copy = arena_copy(arena, bytes, n);
    rocksdb_pinnableslice_destroy(slice);
    if (!copy)
        return -ENOMEM;
    *value = copy;
    *len = n;
    return 0;
}

void engine_iter_init(struct engine_iter *iter, struct engine *engine,
                      const rocksdb_snapshot_t *snapshot, enum engine_table table,
                      const struct record_key *lower, const struct record_key *upper,
                      size_t prefix_len)
{
    iter->engine = engine;
    iter->options = rocksdb_readoptions_create();
    if (snapshot)
        rocksdb_readoptions_set_snapshot(iter->options, snapshot);
    bool bounded = true;
    if (upper) {
        memcpy(iter->upper.bytes, upper->bytes, upper->len);
        iter->upper.len = upper->len;
    } else {
        memcpy(iter->upper.bytes, lower->bytes, prefix_len);
        iter->upper.len = prefix_len;
        bounded = record_key_next_prefix(&iter->upper) == 0;
    }
    if (bounded)
        rocksdb_readoptions_set_iterate_upper_bound(iter->options, (const char *)iter->upper.bytes,
                                                    iter->upper.len);
    rocksdb_readoptions_set_total_order_seek(iter->options, 1);
    iter->it = rocksdb_create_iterator_cf(engine->db, iter->options, engine->tables[table]);
    rocksdb_iter_seek(iter->it, (const char *)lower->bytes, lower->len);
}

void engine_iter_done(struct engine_iter *iter)
{
    rocksdb_iter_destroy(iter->it);
    rocksdb_readoptions_destroy(iter->options);
}

int engine_iter_get(struct engine_iter *iter, const uint8_t **key, size_t *key_len,
                    const uint8_t **value, size_t *len)
{
    if (!rocksdb_iter_valid(iter->it)) {
        char *message = NULL;
        rocksdb_iter_get_error(iter->it, &message);
        if (!message)
            return 0;
        int rc = engine_db_error(iter->engine, message, "scan");
        return rc == -EILSEQ ? -EIO : rc;
    }
    size_t unused;
    *key = (const uint8_t *)rocksdb_iter_key(iter->it, key_len);
    const char *v = rocksdb_iter_value(iter->it, len ? len : &unused);
    if (value)
        *value = (const uint8_t *)v;
    return 1;
}

void engine_iter_next(struct engine_iter *iter)
{
    rocksdb_iter_next(iter->it);
}
