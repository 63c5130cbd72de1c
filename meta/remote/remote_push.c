/*
 * What the service takes back: out of this client's own memory at once, out of the kernel by the
 * mount's events; confirmed when the kernel has dropped it.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "remote_impl.h"

void remote_forget_names(struct remote *remote)
{
    pthread_mutex_lock(&remote->lock);
    remote_names_drop_all(&remote->names);
    pthread_mutex_unlock(&remote->lock);
}

static void take_item(void *arg, const struct wire_item *item)
{
    struct remote *remote = arg;
    const struct meta_events *events = &remote->config.events;
    metric_add(remote->invalidations, 1);
    pthread_mutex_lock(&remote->lock);
    if (item->kind == WIRE_ITEM_ALL) {
        remote_attrs_touch_all(&remote->attrs);
        remote_names_drop_all(&remote->names);
    } else {
        remote_attrs_touch(&remote->attrs, item->ino);
        remote_names_drop(&remote->names, item->ino);
    }
    pthread_mutex_unlock(&remote->lock);
    switch (item->kind) {
    case WIRE_ITEM_ENTRY:
        if (events->entry_changed)
            events->entry_changed(events->arg, item->ino, item->name.bytes, item->name.len);
        break;
    case WIRE_ITEM_ATTR:
    case WIRE_ITEM_OUTSIDE:
        if (events->inode_changed)
            events->inode_changed(events->arg, item->ino, item->kind == WIRE_ITEM_OUTSIDE);
        break;
    case WIRE_ITEM_CONTENT:
        if (events->content_changed)
            events->content_changed(events->arg, item->ino);
        break;
    case WIRE_ITEM_EXTENTS:
        if (events->extents_changed)
            events->extents_changed(events->arg, item->ino);
        break;
    case WIRE_ITEM_GONE:
        if (events->inode_gone)
            events->inode_gone(events->arg, item->ino);
        break;
    case WIRE_ITEM_ALL:
        if (events->all_changed)
            events->all_changed(events->arg);
        break;
    }
}

/* A batch that is to be confirmed when the kernel has dropped all of it. */
struct batch {
    struct meta_told told;
    struct loop_task back;
    struct remote *remote;
    uint64_t sequence, link;
};

static void confirm(struct remote *remote, uint64_t sequence)
{
    struct buf b;
    buf_init(&b, 0);
    wire_put_number(&b, WIRE_CONFIRM, sequence);
    remote_link_send(remote, &b);
    buf_done(&b);
}

static void confirm_batch(struct loop_task *task)
{
    struct batch *batch = container_of(task, struct batch, back);
    struct remote *remote = batch->remote;
    /* Numbers are of one connection. */
    if (remote->state == REMOTE_ONLINE && remote->links == batch->link)
        confirm(remote, batch->sequence);
    free(batch);
}

static void dropped(struct meta_told *told)
{
    struct batch *batch = container_of(told, struct batch, told);
    batch->back.run = confirm_batch;
    loop_post(batch->remote->loop, &batch->back);
}

int remote_pushed(struct remote *remote, const uint8_t *data, size_t len)
{
    const struct meta_events *events = &remote->config.events;
    uint64_t sequence;
    if (wire_get_items(data, len, &sequence, take_item, remote) < 0)
        return -EBADMSG;
    if (!events->when_dropped) {
        confirm(remote, sequence);
        return 0;
    }
    struct batch *batch = calloc(1, sizeof(*batch));
    if (!batch)
        return -ENOMEM; /* the next connection begins with empty caches */
    batch->remote = remote;
    batch->sequence = sequence;
    batch->link = remote->links;
    batch->told.done = dropped;
    events->when_dropped(events->arg, &batch->told);
    return 0;
}
