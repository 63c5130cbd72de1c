/* What the kernel tells of a caller by his process number only. */
#include "caller.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

#define CAP_FSETID_BIT 4

int caller_groups(fuse_req_t req, gid_t groups[CALLER_GROUPS_MAX])
{
    int count = fuse_req_getgroups(req, CALLER_GROUPS_MAX, groups);
    return count < 0 ? 0 : MIN(count, CALLER_GROUPS_MAX);
}

/* Capabilities count in the process's own user namespace: those of another one are none here. */
static bool in_our_namespace(pid_t pid)
{
    char path[64], theirs[64], ours[64];
    snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
    ssize_t a = readlink(path, theirs, sizeof(theirs));
    ssize_t b = readlink("/proc/self/ns/user", ours, sizeof(ours));
    return a > 0 && a == b && memcmp(theirs, ours, (size_t)a) == 0;
}

static bool has_fsetid(pid_t pid)
{
    char path[64], line[256];
    unsigned long long effective = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    while (fgets(line, sizeof(line), f))
        if (strncmp(line, "CapEff:", 7) == 0)
            effective = strtoull(line + 7, NULL, 16);
    fclose(f);
    return effective >> CAP_FSETID_BIT & 1;
}

bool caller_keeps_setgid(fuse_req_t req, gid_t gid)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    gid_t groups[CALLER_GROUPS_MAX];
    if (ctx->gid == gid)
        return true;
    int count = caller_groups(req, groups);
    for (int i = 0; i < count; i++)
        if (groups[i] == gid)
            return true;
    return ctx->pid > 0 && in_our_namespace(ctx->pid) && has_fsetid(ctx->pid);
}
