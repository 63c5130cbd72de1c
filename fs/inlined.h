/*
 * Bytes of small files, as the metadata has them inline, kept when the file is closed: for a volume
 * of a service, where asking for them again is a round trip. Content has a version, which steps
 * with each change, so these bytes are right whenever the version is; where they lie by then does
 * not matter.
 */
#ifndef SLUICE_FS_INLINED_H
#define SLUICE_FS_INLINED_H

#include "file.h"

#define INLINED_BYTES_MAX (32u << 20) /* with what each file costs; the longest unused goes */

struct inlined;
int inlined_new(struct inlined **out);
void inlined_free(struct inlined *inlined); /* NULL: nothing */
/* Keeps these extents (NULL: none), if all of them are inline. Any thread; `inlined` may be NULL.
 */
void inlined_put(struct inlined *inlined, uint64_t ino, struct file_extents *extents);
/* What is kept of this version; a reference, or NULL. */
struct file_extents *inlined_get(struct inlined *inlined, uint64_t ino, uint64_t data_version);

#endif
