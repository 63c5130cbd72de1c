/* The end of a mount that was asked for (`sluice umount`) while other mount namespaces hold copies
 * of it: the kernel would keep the connection as long as they do. */
#ifndef SLUICE_FS_LEAVE_H
#define SLUICE_FS_LEAVE_H

struct fs;
struct leave;

/* Ends `fs` (fs_stop) when no mount of it is left in this mount namespace. -ENOENT: there is none
 * now. Any thread. */
int leave_start(struct fs *fs, struct leave **out);
/* It stays after all, or has ended. NULL: nothing. Waits for its thread. */
void leave_stop(struct leave *leave);

#endif
