#include "prefix_service.h"

#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "meta/remote.h"
#include "prefix.h"

#define PAGE 256 /* names of a directory that are removed at once */
#define RECORD_MAX (16 << 10)

struct place {
    struct meta *meta;
    uint64_t parent, ino; /* ino 0: the directory is not there */
    struct meta_name name;
};

static struct meta_name name_of(const char *text)
{
    return (struct meta_name){text, strlen(text)};
}

/* One operation; the answer is to be released, after a failure too. */
static int ask(struct meta *meta, struct meta_request *request, const char *what,
               struct error *error)
{
    int r = meta_call(meta, request);
    return r < 0 ? error_set(error, r, "%s: %s", what, strerror(-r)) : 0;
}

/* The inode of a name, 0 if there is none. */
static int look_up(struct meta *meta, uint64_t parent, struct meta_name name, uint64_t *ino,
                   struct error *error)
{
    struct meta_request request = {.op = {.kind = META_LOOKUP, .parent = parent, .name = name}};
    int r = meta_call(meta, &request);
    *ino = 0;
    if (r == 0 && !S_ISDIR(request.reply.attr.mode))
        r = error_set(error, -ENOTDIR, "%.*s is not a directory", (int)name.len, name.bytes);
    else if (r < 0 && r != -ENOENT)
        error_set(error, r, "looking for %.*s: %s", (int)name.len, name.bytes, strerror(-r));
    else if (r == 0)
        *ino = request.reply.attr.ino;
    meta_reply_done(&request.reply);
    return r == -ENOENT ? 0 : r;
}

static int make_directory(struct meta *meta, uint64_t parent, struct meta_name name, uint64_t *ino,
                          struct error *error)
{
    struct meta_request request = {
        .op = {.kind = META_MKNOD, .parent = parent, .name = name, .attr.mode = S_IFDIR | 0755}};
    int r = meta_call(meta, &request);
    if (r == 0)
        *ino = request.reply.attr.ino;
    meta_reply_done(&request.reply);
    if (r == -EEXIST) /* somebody else was quicker */
        return look_up(meta, parent, name, ino, error);
    return r < 0 ? error_set(error, r, "making %.*s: %s", (int)name.len, name.bytes, strerror(-r))
                 : 0;
}

/* Goes down `path`; directories on the way are made if `make`. */
static int find(struct place *place, char *path, bool make, struct error *error)
{
    int r = 0;
    char *save = NULL, *next = NULL, *word = strtok_r(path, "/", &save);
    place->ino = META_ROOT_INO;
    for (; word && r == 0 && place->ino; word = next) {
        next = strtok_r(NULL, "/", &save);
        if (strcmp(word, ".") == 0 || strcmp(word, "..") == 0 || strlen(word) > META_NAME_MAX)
            return error_set(error, -EINVAL, "'%.100s' is no name of a directory", word);
        place->parent = place->ino;
        place->name = name_of(word);
        r = look_up(place->meta, place->parent, place->name, &place->ino, error);
        if (r == 0 && !place->ino && make && next)
            r = make_directory(place->meta, place->parent, place->name, &place->ino, error);
    }
    if (r == 0 && word) /* the end was not reached: the volume itself is not there either */
        place->parent = 0;
    return r;
}

static int read_record(const struct place *place, json_t **out, struct error *error)
{
    struct meta_request request = {
        .op = {.kind = META_GETXATTR, .ino = place->ino, .name = name_of(PREFIX_SERVICE_RECORD)}};
    *out = NULL;
    if (!place->ino)
        return 0;
    int r = meta_call(place->meta, &request);
    if (r == 0) {
        *out = json_loadb(request.reply.data, MIN(request.reply.data_len, (size_t)RECORD_MAX), 0,
                          NULL);
        if (!json_is_object(*out)) {
            json_decref(*out);
            *out = NULL;
            r = error_set(error, -EBADMSG, "the record of the volume is none of Sluice");
        }
    } else if (r == -ENODATA) {
        r = 0;
    } else {
        error_set(error, r, "reading the record of the volume: %s", strerror(-r));
    }
    meta_reply_done(&request.reply);
    return r;
}

static int set_limit(const struct place *place, uint64_t bytes, struct error *error)
{
    struct meta_request request = {.op = {.kind = META_QUOTA_SET,
                                          .ino = place->ino,
                                          .valid = META_QUOTA_BYTES,
                                          .offset = bytes},
                                   .durable = true};
    int r = ask(place->meta, &request, "limiting the volume", error);
    meta_reply_done(&request.reply);
    return r;
}

/* The limit first: a record says that all is done. */
static int write_record(const struct place *place, json_t *record, struct error *error)
{
    cleanup(free_ptr) char *text = json_dumps(record, JSON_COMPACT);
    uint64_t size = (uint64_t)json_integer_value(json_object_get(record, "size"));
    if (!text)
        return error_set(error, -ENOMEM, "out of memory");
    struct meta_request request = {.op = {.kind = META_SETXATTR,
                                          .ino = place->ino,
                                          .name = name_of(PREFIX_SERVICE_RECORD),
                                          .data = text,
                                          .data_len = strlen(text)},
                                   .durable = true};
    int r = set_limit(place, size, error);
    if (r < 0)
        return r;
    r = ask(place->meta, &request, "writing the record of the volume", error);
    meta_reply_done(&request.reply);
    return r;
}

static int check_empty(const struct place *place, struct error *error)
{
    struct meta_request request = {.op = {.kind = META_READDIR, .ino = place->ino, .count = 1}};
    int r = ask(place->meta, &request, "looking whether the directory is empty", error);
    if (r == 0 && request.reply.entry_count)
        r = error_set(error, -EEXIST, "there are files in the directory, such as %.*s",
                      (int)MIN(request.reply.entries[0].name_len, (size_t)200),
                      request.reply.entries[0].name);
    meta_reply_done(&request.reply);
    return r;
}

static int create(struct place *place, const struct prefix_request *q, json_t **out,
                  struct error *error)
{
    json_t *record = NULL;
    bool created = false;
    int r = 0;
    if (!place->ino)
        r = make_directory(place->meta, place->parent, place->name, &place->ino, error);
    if (r == 0)
        r = read_record(place, &record, error);
    if (r == 0 && !record) {
        /* New, or one whose making was interrupted. */
        r = check_empty(place, error);
        record = json_pack("{s:i,s:s,s:I,s:s}", "format", 1, "name", q->create, "size",
                           (json_int_t)q->size, "on_delete", q->on_delete);
        if (r == 0)
            r = write_record(place, record, error);
        created = r == 0;
    } else if (r == 0) {
        r = prefix_compare(record, q->create, q->size, q->on_delete, error);
    }
    if (r == 0)
        *out = json_pack("{s:O,s:b}", "record", record, "created", created);
    json_decref(record);
    return r;
}

static int resize(const struct place *place, uint64_t size, json_t **out, struct error *error)
{
    json_t *record = NULL;
    int r = read_record(place, &record, error);
    if (r == 0 && !record)
        r = error_set(error, -ENOENT, "there is no volume in this directory");
    if (r == 0 && (uint64_t)json_integer_value(json_object_get(record, "size")) < size) {
        json_object_set_new(record, "size", json_integer((json_int_t)size));
        r = write_record(place, record, error);
    }
    if (r == 0)
        *out = json_pack("{s:O}", "record", record);
    json_decref(record);
    return r;
}

/* ---- the end of a volume ---- */

struct level {
    uint64_t parent, ino;
    char name[META_NAME_MAX + 1];
    size_t len;
};

struct removal {
    struct meta *meta;
    struct level *stack; /* directories that are to go, the deepest last */
    size_t count, room;
    uint64_t deleted;
    sem_t answered;
    struct meta_request requests[PAGE];
    uint64_t dropped[PAGE];
};

static void note_answer(struct meta_request *request)
{
    sem_post(request->arg);
}

static int push(struct removal *removal, uint64_t parent, const struct meta_entry *entry,
                struct error *error)
{
    if (removal->count == removal->room) {
        size_t room = removal->room ? 2 * removal->room : 64;
        struct level *grown = reallocarray(removal->stack, room, sizeof(*grown));
        if (!grown)
            return error_set(error, -ENOMEM, "out of memory");
        removal->stack = grown;
        removal->room = room;
    }
    struct level *level = &removal->stack[removal->count++];
    level->parent = parent;
    level->ino = entry->ino;
    level->len = MIN(entry->name_len, (size_t)META_NAME_MAX);
    memcpy(level->name, entry->name, level->len);
    return 0;
}

/* What is no directory, all at once; the names are in `page`. */
static int unlink_files(struct removal *removal, uint64_t ino, const struct meta_reply *page,
                        struct error *error)
{
    size_t sent = 0, waiting = 0, gone = 0;
    int r = 0;
    for (size_t i = 0; i < page->entry_count && sent < PAGE; i++) {
        const struct meta_entry *entry = &page->entries[i];
        if (S_ISDIR(entry->attr.mode))
            continue;
        struct meta_request *request = &removal->requests[sent++];
        *request = (struct meta_request){
            .op = {.kind = META_UNLINK, .parent = ino, .name = {entry->name, entry->name_len}},
            .done = note_answer,
            .arg = &removal->answered};
        if (meta_submit(removal->meta, request) == -EINPROGRESS)
            waiting++;
    }
    for (; waiting; waiting--)
        while (sem_wait(&removal->answered) < 0 && errno == EINTR)
            ;
    for (size_t i = 0; i < sent; i++) {
        struct meta_request *request = &removal->requests[i];
        if (request->result < 0 && request->result != -ENOENT && r == 0)
            r = error_set(error, request->result, "removing a file of the volume: %s",
                          strerror(-request->result));
        if (request->result == 0 && request->reply.attr.nlink == 0)
            removal->dropped[gone++] = request->reply.attr.ino;
        removal->deleted += request->result == 0;
        meta_reply_done(&request->reply);
    }
    struct meta_request drop = {
        .op = {.kind = META_DROP, .inos = removal->dropped, .ino_count = gone}};
    if (gone) {
        meta_call(removal->meta, &drop);
        meta_reply_done(&drop.reply);
    }
    return r;
}

static int remove_directory(struct removal *removal, struct error *error)
{
    const struct level *level = &removal->stack[--removal->count];
    struct meta_request request = {.op = {.kind = META_UNLINK,
                                          .parent = level->parent,
                                          .name = {level->name, level->len},
                                          .flags = META_RMDIR},
                                   .durable = removal->count == 0};
    int r = meta_call(removal->meta, &request);
    uint64_t ino = request.reply.attr.ino;
    meta_reply_done(&request.reply);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return error_set(error, r, "removing a directory of the volume: %s", strerror(-r));
    struct meta_request drop = {.op = {.kind = META_DROP, .inos = &ino, .ino_count = 1}};
    meta_call(removal->meta, &drop);
    meta_reply_done(&drop.reply);
    removal->deleted++;
    return 0;
}

/* One page of the deepest directory: its files go, its directories come first. */
static int remove_page(struct removal *removal, struct error *error)
{
    uint64_t ino = removal->stack[removal->count - 1].ino;
    struct meta_request request = {.op = {.kind = META_READDIR, .ino = ino, .count = PAGE}};
    int r = ask(removal->meta, &request, "listing a directory of the volume", error);
    if (r == 0 && request.reply.entry_count == 0) {
        meta_reply_done(&request.reply);
        return remove_directory(removal, error);
    }
    if (r == 0)
        r = unlink_files(removal, ino, &request.reply, error);
    for (size_t i = 0; i < request.reply.entry_count && r == 0; i++)
        if (S_ISDIR(request.reply.entries[i].attr.mode))
            r = push(removal, ino, &request.reply.entries[i], error);
    meta_reply_done(&request.reply);
    return r;
}

/* The volume's own directory goes last, and its record with it: a deletion that was interrupted can
 * be repeated. */
static int remove_all(const struct place *place, uint64_t *deleted, struct error *error)
{
    struct removal *removal = calloc(1, sizeof(*removal));
    struct meta_entry root = {
        .name = place->name.bytes, .name_len = place->name.len, .ino = place->ino};
    if (!removal)
        return error_set(error, -ENOMEM, "out of memory");
    removal->meta = place->meta;
    sem_init(&removal->answered, 0, 0);
    int r = push(removal, place->parent, &root, error);
    while (r == 0 && removal->count)
        r = remove_page(removal, error);
    *deleted = removal->deleted;
    sem_destroy(&removal->answered);
    free(removal->stack);
    free(removal);
    return r;
}

static int forget(const struct place *place, struct error *error)
{
    struct meta_request request = {
        .op = {.kind = META_REMOVEXATTR, .ino = place->ino, .name = name_of(PREFIX_SERVICE_RECORD)},
        .durable = true};
    int r = set_limit(place, META_QUOTA_NONE, error);
    if (r < 0)
        return r;
    r = meta_call(place->meta, &request);
    meta_reply_done(&request.reply);
    return r < 0 && r != -ENODATA
               ? error_set(error, r, "removing the record of the volume: %s", strerror(-r))
               : 0;
}

static int end(const struct place *place, json_t **out, struct error *error)
{
    json_t *record = NULL;
    uint64_t deleted = 0;
    int r = read_record(place, &record, error);
    const char *what = json_string_value(json_object_get(record, "on_delete"));
    if (r == 0 && record && what && strcmp(what, "delete") == 0)
        r = remove_all(place, &deleted, error);
    else if (r == 0 && record)
        r = forget(place, error);
    if (r == 0)
        *out = json_pack("{s:I,s:i}", "deleted", (json_int_t)deleted, "left", 0);
    json_decref(record);
    return r;
}

/* "sluice://host:7700/volume/a/b" → "sluice://host:7700/volume" and "a/b" */
static int split(char *url, char **path, struct error *error)
{
    char *start = strstr(url, "://") + 3;
    bool is_unix = strncmp(url, "sluice+unix", 11) == 0;
    char *volume = is_unix ? strrchr(start, ':') : strchr(start, '/');
    char *slash = volume ? strchr(volume + 1, '/') : NULL;
    if (!slash || !slash[1])
        return error_set(error, -EINVAL,
                         "%s: a directory of the volume is needed, "
                         "sluice://HOST:PORT/VOLUME/DIRECTORY",
                         url);
    *slash = 0;
    *path = slash + 1;
    return 0;
}

static int work(struct place *place, const struct prefix_request *q, json_t **out,
                struct error *error)
{
    if (q->create)
        return create(place, q, out, error);
    if (q->resize)
        return resize(place, q->size, out, error);
    if (q->delete)
        return end(place, out, error);
    json_t *record = NULL;
    int r = read_record(place, &record, error);
    if (r == 0)
        *out = json_pack("{s:o,s:n}", "record", record ? record : json_null(), "owner");
    return r;
}

int prefix_service_run(const char *url, const struct prefix_request *request, json_t **out,
                       struct error *error)
{
    cleanup(free_ptr) char *copy = strdup(url);
    char *path = NULL, text[300] = "";
    struct place place = {0};
    struct meta_remote_config config;
    int r = copy ? split(copy, &path, error) : error_set(error, -ENOMEM, "out of memory");
    if (r < 0)
        return r;
    log_init(LOG_WARN, NULL); /* that it connects is not worth a line of a command's output */
    gethostname(text, 256);
    strncat(text, ": sluice prefix", sizeof(text) - strlen(text) - 1);
    meta_remote_config_init(&config);
    config.url = copy;
    config.text = text;
    config.token = getenv("SLUICE_TOKEN");
    config.tls_ca = request->tls_ca;
    config.tls_cert = request->tls_cert;
    config.tls_key = request->tls_key;
    config.tls_name = request->tls_name;
    config.read_only = !request->create && !request->resize && !request->delete;
    r = meta_remote_open(&config, &place.meta, error);
    if (r < 0)
        return r;
    r = find(&place, path, request->create != NULL, error);
    if (r == 0)
        r = work(&place, request, out, error);
    meta_close(place.meta);
    return r;
}
