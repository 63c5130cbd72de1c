/* The control requests of other stores (docs/stores.md). */
#include <errno.h>
#include <jansson.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "front_control.h"
#include "meta/stores.h"

static bool is_owner(const struct control_handle *h)
{
    return h->caller.uid == 0 || h->caller.uid == h->fs->owner;
}

static int attach(struct control_handle *h, struct error *error)
{
    struct meta_store_request request = {.url = h->request.url,
                                         .name = h->request.name,
                                         .options = h->request.options,
                                         .read_only = h->request.read_only};
    struct meta_attr attr;
    if (h->request.has_path) {
        int result = control_walk(h, &h->request.path, &attr);
        if (result < 0)
            return result;
        if (!S_ISDIR(attr.mode))
            return error_set(error, -ENOTDIR, "a store is attached at a directory");
        if (attr.ino == META_ROOT_INO)
            return error_set(error, -EBUSY, "the root is the volume's own store");
        request.ino = attr.ino;
    }
    return meta_store_attach(h->fs->meta, &request, error);
}

void control_run_store(struct control_handle *h)
{
    struct error error = {0};
    int result = 0;
    if (h->request.op == CONTROL_STORE_LIST) {
        json_t *list = meta_stores_json(h->fs->meta);
        if (!list) {
            control_fail(h, -EOPNOTSUPP, "a volume of a service has one store");
            return;
        }
        json_object_set_new(list, "ok", json_true());
        control_put_json(&h->reply, list);
        return;
    }
    if (!is_owner(h))
        result = error_set(&error, -EPERM, "only root and who mounted may change the stores");
    else if (h->request.op == CONTROL_STORE_ATTACH)
        result = attach(h, &error);
    else
        result = meta_store_detach(h->fs->meta, h->request.name, &error);
    notify_wait(h->fs->notify);
    if (result < 0)
        control_fail(h, result, error.code ? error_text(&error) : NULL);
    else
        control_put_json(&h->reply, json_pack("{s:b}", "ok", 1));
}

void control_run_migrate(struct control_handle *h)
{
    struct error error = {0};
    struct meta_attr attr;
    int result = control_walk(h, &h->request.path, &attr);
    if (result == 0 && !is_owner(h))
        result = error_set(&error, -EPERM, "only root and who mounted may migrate");
    if (result == 0)
        result = meta_migrate(h->fs->meta, attr.ino, h->request.migrate, h->request.name,
                              h->request.class, h->request.after_s, &error);
    if (result < 0)
        control_fail(h, result, error.code ? error_text(&error) : NULL);
    else
        control_put_json(&h->reply, json_pack("{s:b}", "ok", 1));
}
