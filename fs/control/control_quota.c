/* The control requests of quotas (docs/quota.md). */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/cleanup.h"
#include "front_control.h"

static int set_limits(struct control_handle *h)
{
    struct fs *fs = h->fs;
    struct meta_attr attr;
    struct meta_request request = {.op = {.kind = META_QUOTA_SET,
                                          .valid = h->request.quota_valid,
                                          .offset = h->request.max_bytes,
                                          .length = h->request.max_inodes}};
    int result = fs->config.read_only ? -EROFS : control_walk(h, &h->request.path, &attr);
    if (result < 0)
        return result;
    request.op.ino = attr.ino;
    request.durable = true;
    bool first = !meta_quota_active(fs->meta);
    result = meta_call(fs->meta, &request);
    meta_reply_done(&request.reply);
    /* What was accepted before there was any quota. */
    if (result == 0 && first)
        result = data_quota_begin(fs->data);
    return result;
}

void control_run_quota_set(struct control_handle *h)
{
    if (h->caller.uid != 0 && h->caller.uid != h->fs->owner) {
        control_fail(h, -EPERM, "only root and who mounted may set quotas");
        return;
    }
    int result = set_limits(h);
    if (result < 0)
        control_fail(h, result, NULL);
    else
        control_put_json(&h->reply, json_pack("{s:b}", "ok", 1));
}

static json_t *limit_json(uint64_t limit)
{
    return limit == META_QUOTA_NONE ? json_null() : json_integer((json_int_t)limit);
}

/* NULL: without memory, gone meanwhile, or the caller cannot reach it. */
static json_t *quota_json(struct control_handle *h, const struct meta_quota *quota)
{
    struct meta_request request = {.op = {.kind = META_PATH, .ino = quota->ino}};
    struct meta_attr attr;
    json_t *out = NULL;
    int result = meta_call(h->fs->meta, &request);
    struct control_text path = {0};
    if (result == 0) {
        path.len = request.reply.data_len;
        path.bytes = strndup(path.len ? request.reply.data : "", path.len);
        result = path.bytes ? control_walk(h, &path, &attr) : -ENOMEM;
    }
    if (result == 0)
        out = json_pack("{s:I,s:o,s:o,s:I,s:I,s:I,s:I}", "ino", (json_int_t)quota->ino, "max_bytes",
                        limit_json(quota->max_bytes), "max_inodes", limit_json(quota->max_inodes),
                        "bytes", (json_int_t)quota->usage.bytes, "files",
                        (json_int_t)quota->usage.files, "directories",
                        (json_int_t)quota->usage.directories, "reserved_bytes",
                        (json_int_t)quota->reserved_bytes);
    if (out)
        control_set_name(out, "path", path.bytes, path.len);
    free(path.bytes);
    meta_reply_done(&request.reply);
    return out;
}

void control_run_quota(struct control_handle *h)
{
    struct meta_attr attr;
    int result = control_walk(h, &h->request.path, &attr);
    bool below = h->request.op == CONTROL_QUOTA_LIST;
    struct meta_request request = {
        .op = {.kind = META_QUOTA, .flags = below ? META_QUOTA_BELOW : META_QUOTA_ABOVE}};
    if (result == 0) {
        request.op.ino = attr.ino;
        result = meta_call(h->fs->meta, &request);
    }
    json_t *list = json_array();
    for (size_t i = 0; result == 0 && i < request.reply.quota_count; i++) {
        json_t *quota = quota_json(h, &request.reply.quotas[i]);
        if (quota && json_array_append_new(list, quota) < 0)
            result = -ENOMEM;
    }
    meta_reply_done(&request.reply);
    if (result == 0) {
        control_put_json(&h->reply, json_pack("{s:b,s:o}", "ok", 1, "quotas", list));
    } else {
        json_decref(list);
        control_fail(h, result, NULL);
    }
}
