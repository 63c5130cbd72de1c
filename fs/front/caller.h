/* Who asks: what a request does not carry, and /proc has. */
#ifndef SLUICE_FS_CALLER_H
#define SLUICE_FS_CALLER_H

#include <fuse_lowlevel.h>
#include <stdbool.h>

#define CALLER_GROUPS_MAX 1024

/* His supplementary groups: how many. 0 too if his process cannot be seen (another namespace). */
int caller_groups(fuse_req_t req, gid_t groups[CALLER_GROUPS_MAX]);

/* Whether a set-group-ID bit for this group survives his change of an access control list: he is
 * in the group, or has CAP_FSETID. No, where that cannot be seen. */
bool caller_keeps_setgid(fuse_req_t req, gid_t gid);

#endif
