/* The control requests that hold the volume's tables against its bucket while it is in use: fsck
 * and gc of a mount (docs/fsck.md), and the import of an inventory (docs/import.md). They end early
 * when the handle is closed. */
#include <errno.h>
#include <jansson.h>

#include "front_control.h"
#include "meta/check.h"

static bool is_canceled(void *arg)
{
    struct control_handle *h = arg;
    pthread_mutex_lock(&h->lock);
    bool canceled = h->cancel;
    pthread_mutex_unlock(&h->lock);
    return canceled;
}

void control_run_check(struct control_handle *h)
{
    const struct control_request *request = &h->request;
    bool import = request->op == CONTROL_IMPORT;
    struct meta_examine what = {.inventory = request->url,
                                .filter = request->filter,
                                .options = request->options,
                                .gc = request->op == CONTROL_GC,
                                .deep = request->deep,
                                .remove = request->remove,
                                .strays = request->strays,
                                .older_than_ms = request->older_than_ms,
                                .stop = is_canceled,
                                .arg = h};
    struct error error = {0};
    json_t *reply = NULL;
    int rc = 0;
    if (h->caller.uid != 0 && h->caller.uid != h->fs->owner)
        rc = error_set(&error, -EPERM, "only root and who mounted may %s",
                       import ? "import" : "check the bucket");
    else if ((request->remove || import) && h->fs->config.read_only)
        rc = error_set(&error, -EROFS, "the mount is read-only");
    else
        rc = meta_examine(h->fs->meta, &what, &reply, &error);
    if (rc < 0) {
        control_fail(h, rc, error.code ? error_text(&error) : NULL);
        return;
    }
    json_object_set_new(reply, "ok", json_true());
    control_put_json(&h->reply, reply);
}
