/*
 * Requests of sessions about the volume's stores (docs/stores.md). They block, on the network and
 * on the disk, so a thread does them, one at a time; what sessions see next waits in the mounts
 * (remote_stores.c), not here.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "meta/stores.h"
#include "server_examine.h"

#define CALLS_MAX 256 /* under way, of a volume */

struct stores_call {
    struct server_volume *volume;
    struct meta *meta;
    uint64_t session, id;
    bool root,
        owner;   /* the session sees one directory only; it is root's or the service's user's */
    int refused; /* changes */
    json_t *request;
    char *answer;
    struct pool_task task;
    struct loop_task back;
};

static json_t *refusal(int code, const char *text)
{
    return json_pack("{s:i, s:s}", "error", code, "text", text);
}

/* What lies outside of its root is not its business; how stores are reached is. */
static json_t *list(const struct stores_call *call)
{
    json_t *out = meta_stores_json(call->meta), *one;
    size_t i;
    json_array_foreach(json_object_get(call->root ? out : NULL, "stores"), i, one)
    {
        json_object_set_new(one, "path", json_null());
    }
    if (call->root)
        json_object_set_new(out, "migrations", json_array());
    return out ? out : refusal(-ENOMEM, "out of memory");
}

static int attach(const struct stores_call *call, struct error *error)
{
    struct meta_store_request request = {0};
    json_int_t ino = 0;
    int read_only = 0;
    if (json_unpack(call->request, "{s:s, s?s, s?s, s?b, s?I}", "url", &request.url, "name",
                    &request.name, "options", &request.options, "read_only", &read_only, "ino",
                    &ino) < 0)
        return error_set(error, -EINVAL, "no such request");
    if (strncmp(request.url, "file:", 5) == 0 && !call->owner)
        return error_set(error, -EACCES,
                         "a directory of the service's host: only root or the service's user may "
                         "attach it, through its unix socket");
    request.read_only = read_only;
    request.ino = (uint64_t)ino;
    return meta_store_attach(call->meta, &request, error);
}

static int migrate(const struct stores_call *call, struct error *error)
{
    json_int_t ino = 0, after = 0;
    int what = -1;
    const char *name = NULL, *class = NULL;
    if (json_unpack(call->request, "{s:I, s:i, s?s, s?s, s?I}", "ino", &ino, "what", &what, "name",
                    &name, "class", &class, "after", &after) < 0 ||
        after < 0 || what < META_MIGRATE_TO || what > META_MIGRATE_CANCEL ||
        (what == META_MIGRATE_TO && !name == !class))
        return error_set(error, -EINVAL, "no such request");
    return meta_migrate(call->meta, (uint64_t)ino, (enum meta_migrate)what, name, class,
                        (uint64_t)after, error);
}

static json_t *answer(const struct stores_call *call)
{
    struct error error = {0};
    const char *op = json_string_value(json_object_get(call->request, "op")), *name = NULL;
    json_t *examined = NULL;
    int rc = 0;
    if (!op || strcmp(op, "list") == 0)
        return list(call);
    bool examines = strncmp(op, "examine", 7) == 0;
    bool looks = examines && !json_is_true(json_object_get(call->request, "delete")) &&
                 !json_object_get(call->request, "inventory");
    if (call->refused && !(looks && call->refused == -EROFS))
        return refusal(call->refused, call->root
                                          ? "this mount sees one directory of the volume only"
                                          : "the token of this mount is not for that (admin is)");
    if (strcmp(op, "attach") == 0)
        rc = attach(call, &error);
    else if (strcmp(op, "detach") == 0 && !json_unpack(call->request, "{s:s}", "name", &name))
        rc = meta_store_detach(call->meta, name, &error);
    else if (strcmp(op, "migrate") == 0)
        rc = migrate(call, &error);
    else if (strcmp(op, "examine") == 0 || strcmp(op, "examined") == 0 ||
             strcmp(op, "examine-stop") == 0)
        examined = examine_take(call->volume, call->meta, call->session, call->request, &error);
    else
        rc = error_set(&error, -EINVAL, "no such request");
    if (examined)
        return examined;
    rc = rc ? rc : error.code;
    log_info("stores", "volume=%s session=%" PRIu64 " op=%s result=%s", call->volume->name,
             call->session, op, rc ? strerrorname_np(-rc) : "ok");
    return rc ? refusal(rc, error.code ? error_text(&error) : strerror(-rc)) : json_object();
}

/* Loop thread. */
static void run_back(struct loop_task *task)
{
    struct stores_call *call = container_of(task, struct stores_call, back);
    const char *text = call->answer ? call->answer : "{\"error\":-12}";
    struct session *session;
    HASH_FIND(hh, call->volume->sessions, &call->session, sizeof(call->session), session);
    if (session && session->conn)
        wire_put_text(conn_out(session->conn), WIRE_STORES_REPLY, call->id, text, strlen(text));
    free(call->answer);
    free(call);
}

static void run(struct pool_task *task)
{
    struct stores_call *call = container_of(task, struct stores_call, task);
    struct server_volume *volume = call->volume;
    json_t *reply = answer(call);
    call->answer = reply ? json_dumps(reply, JSON_COMPACT) : NULL;
    json_decref(reply);
    json_decref(call->request);
    __atomic_fetch_sub(&volume->stores_calls, 1, __ATOMIC_RELAXED);
    loop_post(volume->server->loop, &call->back);
}

int stores_take(struct session *session, uint64_t id, const struct wire_text *text)
{
    struct server_volume *volume = session->volume;
    json_t *request = text->len <= WIRE_STORES_MAX
                          ? json_loadb(text->len ? text->bytes : "", text->len, 0, NULL)
                          : NULL;
    struct stores_call *call = json_is_object(request) ? calloc(1, sizeof(*call)) : NULL;
    if (!call) {
        json_decref(request);
        return json_is_object(request) ? 0 : -EBADMSG;
    }
    *call = (struct stores_call){
        .volume = volume,
        .meta = volume->meta,
        .session = session->id,
        .id = id,
        .root = session->root,
        .owner = session->conn->owner,
        .refused = session->root || session->grant.rights < TOKEN_ADMIN ? -EACCES
                   : session->read_only                                 ? -EROFS
                                                                        : 0,
        .request = request,
    };
    call->task.run = run;
    call->back.run = run_back;
    if (__atomic_load_n(&volume->stores_calls, __ATOMIC_RELAXED) >= CALLS_MAX) {
        json_decref(request);
        call->answer = strdup("{\"error\":-16,\"text\":\"too many requests about stores\"}");
        run_back(&call->back);
        return 0;
    }
    __atomic_fetch_add(&volume->stores_calls, 1, __ATOMIC_RELAXED);
    pool_submit(volume->stores_pool, &call->task);
    return 0;
}

/* Not in a batch that others wait for: mounts only have to know before the next message. */
static void tell_all(void *arg)
{
    struct server_volume *volume = arg;
    for (struct session *s = volume->sessions; s; s = s->hh.next)
        if (s->conn)
            wire_put_number(conn_out(s->conn), WIRE_STORES_NEW, 0);
}

void volume_stores_changed(void *arg)
{
    struct server_volume *volume = arg;
    loop_call(volume->server->loop, tell_all, volume);
}
