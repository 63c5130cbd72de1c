/* The control request of backups (docs/backup.md): the mount makes a checkpoint, who asked copies
 * it. It goes away with the handle. */
#include <errno.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "front_control.h"

void control_run_checkpoint(struct control_handle *h)
{
    struct meta *meta = h->fs->meta;
    const struct meta_volume *volume = meta_volume(meta);
    const char *directory;
    uint64_t applied;
    struct error error = {0};
    int result = 0;
    if (h->caller.uid != 0 && h->caller.uid != h->fs->owner)
        result = error_set(&error, -EPERM, "only root and who mounted may make a backup");
    if (result == 0 && h->has_checkpoint) {
        h->has_checkpoint = false;
        meta_checkpoint_drop(meta);
    }
    if (result == 0)
        result = meta_checkpoint(meta, &directory, &applied, &error);
    if (result < 0) {
        control_fail(h, result, error_text(&error));
        return;
    }
    h->has_checkpoint = true;
    control_put_json(&h->reply,
                     json_pack("{s:b,s:s,s:I,s:s,s:s,s:s}", "ok", 1, "directory", directory,
                               "applied", (json_int_t)applied, "volume", volume->id, "store",
                               volume->store, "prefix", volume->prefix));
}
