/* See server_subtree.h. */
#include "server_subtree.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

/* What is inside */

struct parents {
    uint64_t *inos;
    size_t count, cap;
};

static int add_parent(void *arg, uint64_t parent, const char *name, size_t len)
{
    struct parents *p = arg;
    if (p->count == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 16;
        uint64_t *inos = realloc(p->inos, cap * sizeof(*inos));
        if (!inos)
            return -ENOMEM;
        p->inos = inos;
        p->cap = cap;
    }
    p->inos[p->count++] = parent;
    return 0;
}

/* By another name than its first. */
static int linked_inside(struct engine *engine, uint64_t ino, uint64_t root)
{
    struct parents parents = {0};
    int rc = engine_links(engine, ino, add_parent, &parents);
    for (size_t i = 0; rc == 0 && i < parents.count; i++)
        rc = engine_below(engine, parents.inos[i], root);
    free(parents.inos);
    return rc;
}

/* Without a name, but in use here. */
static bool held(const struct session *session, uint64_t ino)
{
    struct gone *gone;
    HASH_FIND(hh, session->volume->gone, &ino, sizeof(ino), gone);
    for (size_t i = 0; gone && i < gone->count; i++)
        if (gone->holders[i] == session->id)
            return true;
    return false;
}

int subtree_take_ino(const struct session *session, uint64_t *ino)
{
    if (!session->root || *ino == 0)
        return 0;
    if (*ino == META_ROOT_INO)
        *ino = session->root;
    if (*ino == session->root)
        return 0;
    struct meta *meta = session->volume->meta;
    if (!meta)
        return -ESHUTDOWN;
    int rc = engine_below(meta->engine, *ino, session->root);
    if (rc == 0 && !held(session, *ino))
        rc = linked_inside(meta->engine, *ino, session->root);
    else if (rc == 0)
        rc = 1;
    if (rc > 0)
        return 0;
    return rc < 0 ? rc : -EACCES;
}

static bool is_reserved_here(const struct session *session, uint64_t object)
{
    struct id_entry *entry;
    HASH_FIND(hh, session->reserved, &object, sizeof(object), entry);
    return entry;
}

/* What others write is theirs. What nobody writes (any more) the engine refuses, but for the answer
 * of a change that was sent again. */
static int check_object(const struct session *session, uint64_t object)
{
    uint64_t ino;
    struct meta *meta = session->volume->meta;
    if (!meta || is_reserved_here(session, object))
        return meta ? 0 : -ESHUTDOWN;
    int rc = engine_reserved_for(meta->engine, object, &ino);
    return rc == 0 ? -EACCES : rc == -ENOENT ? 0 : rc;
}

/* Extents may be of objects that the same commit brings: nothing else is known to be the client's.
 */
static int check_commit(const struct session *session, const struct meta_op *op)
{
    for (size_t i = 0; i < op->extent_count; i++) {
        const struct meta_extent *e = &op->extents[i];
        bool brought = e->kind != META_EXTENT_OBJECT;
        for (size_t j = 0; j < op->object_count && !brought; j++)
            brought = op->objects[j].id == e->object;
        if (!brought)
            return -EACCES;
    }
    int rc = 0;
    for (size_t i = 0; i < op->object_count && rc == 0; i++)
        rc = check_object(session, op->objects[i].id);
    return rc;
}

bool subtree_may_claim(const struct session *session, uint64_t object)
{
    uint64_t ino = 0;
    const struct meta *meta = session->volume->meta;
    return !session->root || (meta && engine_reserved_for(meta->engine, object, &ino) == 0 &&
                              subtree_take_ino(session, &ino) == 0);
}

int subtree_take(const struct session *session, struct meta_op *op)
{
    if (!session->root)
        return 0;
    uint64_t *inos[] = {&op->ino, &op->parent, &op->new_parent, &op->new_ino};
    for (size_t i = 0; i < ARRAY_LEN(inos); i++) {
        int rc = subtree_take_ino(session, inos[i]);
        if (rc < 0)
            return rc;
    }
    switch (op->kind) {
    case META_COMMIT:
        return check_commit(session, op);
    case META_OBJECT:
        return -EACCES;
    case META_ABANDON:
        return check_object(session, op->object);
    case META_QUOTA_SET:
        /* The limit of the root is for those who are outside. */
        return op->ino == session->root ? -EPERM : 0;
    default:
        return 0;
    }
}

static int cut_path(const struct session *session, struct meta_reply *reply)
{
    struct meta_op op = {.kind = META_PATH, .ino = session->root};
    struct meta_reply root;
    int rc = session->volume->meta ? volume_read(session->volume->meta, &op, &root) : -ESHUTDOWN;
    if (rc == -ESHUTDOWN)
        return rc;
    size_t len = root.data_len;
    const char *path = reply->data;
    bool inside = reply->data_len >= len && (len == 0 || memcmp(path, root.data, len) == 0) &&
                  (reply->data_len == len || len == 0 || path[len] == '/');
    meta_reply_done(&root);
    if (rc < 0)
        return rc;
    if (!inside)
        return -EACCES; /* its first name is elsewhere */
    size_t skip = MIN(len ? len + 1 : 0, reply->data_len);
    reply->data = path + skip;
    reply->data_len -= skip;
    return 0;
}

int subtree_give(const struct session *session, const struct meta_op *op, struct meta_reply *reply)
{
    if (!session->root)
        return 0;
    reply->attr.ino = subtree_give_ino(session, reply->attr.ino);
    /* A limit above binds here too, and is shown as the root's. */
    for (size_t i = 0; i < reply->quota_count; i++) {
        uint64_t ino = reply->quotas[i].ino;
        reply->quotas[i].ino =
            subtree_take_ino(session, &ino) == 0 ? subtree_give_ino(session, ino) : META_ROOT_INO;
    }
    return op->kind == META_PATH ? cut_path(session, reply) : 0;
}

/* Texts and lists may name what lies elsewhere. */
static void hide_texts(json_t *value)
{
    const char *key;
    json_t *part;
    void *next;
    json_object_foreach_safe(value, next, key, part)
    {
        if (json_is_object(part))
            hide_texts(part);
        else if (json_is_array(part))
            json_array_clear(part);
        else if (json_is_string(part))
            json_string_set(part, "");
    }
}

void subtree_hide_names(struct buf *text)
{
    const char *key;
    json_t *root = json_loadb((const char *)text->data, text->len, 0, NULL), *part, *store;
    size_t i;
    json_object_foreach(root, key, part)
    {
        if (strcmp(key, "stores") == 0)
            json_array_foreach(part, i, store)
            {
                json_object_set_new(store, "path", json_null());
            }
        else if (json_is_array(part))
            json_array_clear(part);
        else if (strcmp(key, "volume") != 0 && strcmp(key, "owner") != 0)
            hide_texts(part);
    }
    cleanup(free_ptr) char *cut = root ? json_dumps(root, JSON_COMPACT) : NULL;
    buf_reset(text);
    buf_put(text, cut ? cut : "{}", cut ? strlen(cut) : 2);
    json_decref(root);
}

/* The way to the root */

struct subtree_walk {
    struct conn *conn; /* NULL: gone */
    struct server_volume *volume;
    struct wire_hello hello; /* its texts: in `texts` */
    char *texts, *path;
    size_t path_len, at;
    uint64_t ino;
    struct meta_request request;
    struct loop_task back;
};

static void step(struct subtree_walk *walk);

static void walk_free(struct subtree_walk *walk)
{
    if (walk->conn)
        walk->conn->walk = NULL;
    free(walk->texts);
    free(walk);
}

void subtree_walk_lost(struct subtree_walk *walk)
{
    walk->conn = NULL;
}

static void walk_end(struct subtree_walk *walk, int result)
{
    struct conn *conn = walk->conn;
    char path[512];
    size_t len = MIN(walk->path_len, sizeof(path) - 1);
    memcpy(path, walk->path, len);
    path[len] = 0;
    if (conn)
        conn->walk = NULL;
    if (conn && result == 0)
        session_begin(conn, walk->volume, &walk->hello, walk->ino);
    else if (conn && result == -ENOTDIR)
        conn_refuse(conn, result, "'%s' is not a directory of the volume", path);
    else if (conn && result == -ENOENT)
        conn_refuse(conn, result, "the volume has no directory '%s'", path);
    else if (conn)
        conn_refuse(conn, result, "directory '%s': %s", path, strerror(-result));
    walk->conn = NULL;
    walk_free(walk);
}

/* One name was looked up. */
static void took(struct subtree_walk *walk)
{
    int rc = walk->request.result;
    if (rc == 0 && !S_ISDIR(walk->request.reply.attr.mode))
        rc = -ENOTDIR;
    walk->ino = walk->request.reply.attr.ino;
    meta_reply_done(&walk->request.reply);
    if (rc < 0)
        walk_end(walk, rc);
    else
        step(walk);
}

static void run_back(struct loop_task *task)
{
    took(container_of(task, struct subtree_walk, back));
}

static void looked_up(struct meta_request *request)
{
    struct subtree_walk *walk = container_of(request, struct subtree_walk, request);
    walk->back.run = run_back;
    loop_post(walk->volume->server->loop, &walk->back);
}

static void step(struct subtree_walk *walk)
{
    const char *name = walk->path + walk->at;
    size_t left = walk->path_len - walk->at;
    const char *slash = memchr(name, '/', left);
    size_t len = slash ? (size_t)(slash - name) : left;
    if (!walk->conn || !walk->volume->meta) {
        walk_end(walk, -ESHUTDOWN);
        return;
    }
    if (left == 0) {
        walk_end(walk, 0);
        return;
    }
    if (len == 0 || len > META_NAME_MAX || (len <= 2 && strncmp(name, "..", len) == 0)) {
        walk_end(walk, -EINVAL);
        return;
    }
    walk->at += len + (slash ? 1 : 0);
    walk->request.op =
        (struct meta_op){.kind = META_LOOKUP, .parent = walk->ino, .name = {name, len}};
    walk->request.done = looked_up;
    if (meta_submit(walk->volume->meta, &walk->request) != -EINPROGRESS)
        took(walk);
}

void subtree_hello(struct conn *conn, struct server_volume *volume, const struct wire_hello *hello,
                   const struct wire_text *path)
{
    struct subtree_walk *walk = calloc(1, sizeof(*walk));
    char *texts = walk ? malloc(path->len + hello->text.len + 1) : NULL;
    if (!texts) {
        free(walk);
        conn_refuse(conn, -EAGAIN, "no session can be made now");
        return;
    }
    memcpy(texts, path->bytes, path->len);
    if (hello->text.len)
        memcpy(texts + path->len, hello->text.bytes, hello->text.len);
    walk->conn = conn;
    walk->volume = volume;
    walk->hello = *hello;
    walk->hello.volume = walk->hello.token = (struct wire_text){0};
    walk->hello.text.bytes = texts + path->len;
    walk->texts = walk->path = texts;
    walk->path_len = path->len;
    walk->ino = META_ROOT_INO;
    conn->walk = walk;
    step(walk);
}
