/* A long request to a mount, with a bar on a terminal meanwhile. */
#ifndef SLUICE_CLI_CONTROL_WAIT_H
#define SLUICE_CLI_CONTROL_WAIT_H

#include <jansson.h>

#include "base/error.h"
#include "progress.h"

/* Takes the reference of `request`, which gets the path. `left` is asked now and then what is still
 * to do, in bytes or else in files; false: not known. 0 with *reply, which is new, or -errno. */
int control_wait(const char *path, json_t *request, const char *what, bool bytes,
                 bool (*left)(const char *path, uint64_t *out), json_t **reply,
                 struct error *error);

#endif
