/* The control requests of access control lists, for programs that cannot ask for attributes of the
 * system (Java). Names are those of the mount's host. */
#include <errno.h>
#include <grp.h>
#include <jansson.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "front_control.h"
#include "meta/acl.h"

#define NAMES_MAX 16384 /* bytes of what the host knows of one user or group */

static bool parse_id(const char *text, uint32_t *id)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno || *end || *text < '0' || *text > '9' || number >= UINT32_MAX)
        return false;
    *id = (uint32_t)number;
    return true;
}

/* 0, or -ENOENT: the host knows no such name. */
static int id_of(const struct control_acl_entry *entry, uint32_t *id)
{
    cleanup(free_ptr) char *room = malloc(NAMES_MAX);
    struct passwd user, *found_user = NULL;
    struct group group, *found_group = NULL;
    if (!room)
        return -ENOMEM;
    if (entry->tag == ACL_USER)
        getpwnam_r(entry->name, &user, room, NAMES_MAX, &found_user);
    else
        getgrnam_r(entry->name, &group, room, NAMES_MAX, &found_group);
    if (found_user)
        *id = found_user->pw_uid;
    else if (found_group)
        *id = found_group->gr_gid;
    else if (!parse_id(entry->name, id))
        return -ENOENT;
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct acl_entry *x = a, *y = b;
    if (x->tag != y->tag)
        return x->tag < y->tag ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* The entries of one of the two lists, in its order. */
static int build(const struct control_request *request, bool is_default, struct acl *out,
                 struct error *error)
{
    out->count = 0;
    for (size_t i = 0; i < request->acl_count; i++) {
        const struct control_acl_entry *from = &request->acl[i];
        if (from->is_default != is_default)
            continue;
        if (out->count == ACL_ENTRIES_MAX)
            return error_set(error, -EINVAL, "a list has at most %d entries", ACL_ENTRIES_MAX);
        struct acl_entry *to = &out->entries[out->count++];
        *to = (struct acl_entry){.tag = from->tag, .perm = from->perm, .id = UINT32_MAX};
        int result = from->name ? id_of(from, &to->id) : 0;
        if (result == -ENOENT)
            return error_set(error, -EINVAL, "the host of the mount knows no %s %.60s",
                             from->tag == ACL_USER ? "user" : "group", from->name);
        if (result < 0)
            return result;
    }
    qsort(out->entries, out->count, sizeof(out->entries[0]), compare);
    for (size_t i = 1; i < out->count; i++)
        if (compare(&out->entries[i - 1], &out->entries[i]) == 0)
            return error_set(error, -EINVAL, "two entries are of the same user or group");
    if (acl_check(out) < 0)
        return error_set(error, -EINVAL,
                         "a list needs user::, group:: and other::, and with names a mask::");
    return 0;
}

/* valid: META_KILL_SGID or nothing. */
static int store(struct fs *fs, uint64_t ino, const char *name, const struct acl *acl,
                 uint32_t valid)
{
    cleanup(free_ptr) uint8_t *value = malloc(acl_size(acl));
    if (!value)
        return -ENOMEM;
    acl_write(acl, value);
    struct meta_request request = {
        .op = {.kind = acl->count ? META_SETXATTR : META_REMOVEXATTR,
               .ino = ino,
               .name = {.bytes = name, .len = strlen(name)},
               .data = (const char *)value,
               .data_len = acl_size(acl),
               .valid = acl->count ? valid : 0},
    };
    int result = meta_call(fs->meta, &request);
    meta_reply_done(&request.reply);
    return result == -ENODATA && acl->count == 0 ? 0 : result;
}

static int set(struct control_handle *h, const struct meta_attr *attr, struct error *error)
{
    struct fs *fs = h->fs;
    if (fs->config.read_only)
        return -EROFS;
    if (h->caller.uid != 0 && h->caller.uid != attr->uid)
        return -EPERM;
    cleanup(free_ptr) struct acl *lists = calloc(2, sizeof(*lists));
    if (!lists)
        return -ENOMEM;
    int result = build(&h->request, false, &lists[0], error);
    if (result == 0)
        result = build(&h->request, true, &lists[1], error);
    if (result < 0)
        return result;
    if (lists[0].count == 0)
        return error_set(error, -EINVAL, "entries must have user::, group:: and other::");
    if (lists[1].count && !S_ISDIR(attr->mode))
        return error_set(error, -EINVAL, "only a directory has default entries");
    bool outsider = h->caller.uid != 0 && !control_in_group(&h->caller, attr->gid);
    result = store(fs, attr->ino, ACL_ACCESS, &lists[0], outsider ? META_KILL_SGID : 0);
    if (result == 0 && S_ISDIR(attr->mode))
        result = store(fs, attr->ino, ACL_DEFAULT, &lists[1], 0);
    /* The kernel keeps mode and lists; it did not see this. */
    fuse_lowlevel_notify_inval_inode(fs->session, attr->ino, -1, 0);
    return result;
}

static void append(json_t *out, const struct acl_entry *entry, bool is_default)
{
    static const char *const words[] = {
        [ACL_OWNER] = "user",        [ACL_USER] = "user", [ACL_GROUP] = "group",
        [ACL_NAMED_GROUP] = "group", [ACL_MASK] = "mask", [ACL_OTHER] = "other"};
    char room[NAMES_MAX], number[16] = "";
    struct passwd user, *found_user = NULL;
    struct group group, *found_group = NULL;
    if (entry->tag == ACL_USER)
        getpwuid_r(entry->id, &user, room, sizeof(room), &found_user);
    else if (entry->tag == ACL_NAMED_GROUP)
        getgrgid_r(entry->id, &group, room, sizeof(room), &found_group);
    if (entry->tag == ACL_USER || entry->tag == ACL_NAMED_GROUP)
        snprintf(number, sizeof(number), "%u", entry->id);
    const char *name = found_user    ? found_user->pw_name
                       : found_group ? found_group->gr_name
                                     : number;
    json_array_append_new(out,
                          json_sprintf("%s%s:%s:%c%c%c", is_default ? "default:" : "",
                                       words[entry->tag], name, entry->perm & 4 ? 'r' : '-',
                                       entry->perm & 2 ? 'w' : '-', entry->perm & 1 ? 'x' : '-'));
}

/* Without a list there are no entries. */
static int load(struct fs *fs, uint64_t ino, const char *name, struct acl *acl)
{
    struct meta_request request = {
        .op = {.kind = META_GETXATTR, .ino = ino, .name = {.bytes = name, .len = strlen(name)}}};
    int result = meta_call(fs->meta, &request);
    if (result == 0)
        result = acl_parse(request.reply.data, request.reply.data_len, acl);
    meta_reply_done(&request.reply);
    if (result != -ENODATA)
        return result;
    acl->count = 0;
    return 0;
}

static int get(struct control_handle *h, const struct meta_attr *attr, json_t *entries)
{
    cleanup(free_ptr) struct acl *acl = malloc(sizeof(*acl));
    int result = acl ? 0 : -ENOMEM;
    for (int is_default = 0; result == 0 && is_default < 2; is_default++) {
        result = load(h->fs, attr->ino, is_default ? ACL_DEFAULT : ACL_ACCESS, acl);
        for (size_t i = 0; result == 0 && i < acl->count; i++)
            append(entries, &acl->entries[i], is_default);
    }
    return result;
}

void control_run_acl(struct control_handle *h)
{
    struct error error = {0};
    struct meta_attr attr;
    json_t *entries = NULL;
    int result = h->fs->config.posix_acl
                     ? control_walk(h, &h->request.path, &attr)
                     : error_set(&error, -EOPNOTSUPP, "the mount is without --posix-acl");
    if (result == 0 && h->request.op == CONTROL_ACL_SET) {
        result = set(h, &attr, &error);
    } else if (result == 0) {
        entries = json_array();
        result = get(h, &attr, entries);
    }
    if (result == 0) {
        json_t *reply = json_pack("{s:b}", "ok", 1);
        if (entries)
            json_object_set(reply, "entries", entries);
        control_put_json(&h->reply, reply);
    } else {
        control_fail(h, result, error.message[0] ? error.message : NULL);
    }
    json_decref(entries);
}
