/*
 * Bytes of small files, as the metadata has them inline, and where the bytes of files of one object
 * are, kept when the file is closed: for a volume of a service, where asking for them again is a
 * round trip. Content has a version, which steps with each change, so these bytes are right
 * whenever the version is. An object that went meanwhile is asked for anew by its reader.
 */
#ifndef SLUICE_FS_INLINED_H
#define SLUICE_FS_INLINED_H

#include "file.h"

#define INLINED_BYTES_MAX (32u << 20) /* of memory, all counted; the longest unused goes */

struct inlined;
int inlined_new(struct inlined **out);
void inlined_free(struct inlined *inlined); /* NULL: nothing */
/* Keeps these extents (NULL: none), if they are of one object at most. Any thread; `inlined` may be
 * NULL.
 */
void inlined_put(struct inlined *inlined, uint64_t ino, struct file_extents *extents);
/* The same bytes may be in other objects now. */
void inlined_moved(struct inlined *inlined, uint64_t ino);
/* It has no name any more. */
void inlined_gone(struct inlined *inlined, uint64_t ino);
/* What is kept of this version; a reference, or NULL. */
struct file_extents *inlined_get(struct inlined *inlined, uint64_t ino, uint64_t data_version);

#endif
