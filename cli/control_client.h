/* Asking a mount through its control file (docs/control.md). */
#ifndef SLUICE_CLI_CONTROL_CLIENT_H
#define SLUICE_CLI_CONTROL_CLIENT_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

struct control_client {
    char *mountpoint; /* root of the mount that `path` is in */
    char *inside;     /* path below it, "/" or "/a/b": as the control requests take it */
    int fd;
};

/* Finds the mount that holds `path`. -ENODEV if there is none: the sentence says so. */
int control_client_open(const char *path, struct control_client *out, struct error *error);
void control_client_close(struct control_client *client);
/* Takes the reference of `request`. 0: *reply is new. A refusal of the mount is its -errno with its
 * message. Blocks until it is answered. */
int control_client_call(struct control_client *client, json_t *request, json_t **reply,
                        struct error *error);
/* The member "path" (or "path64") of a request: the path that the client was opened with. */
void control_client_set_path(const struct control_client *client, json_t *request);
/* With that member; a reason that is a bare "No such file or directory" gets `path` in front. */
int control_client_call_at(struct control_client *client, const char *path, json_t *request,
                           json_t **reply, struct error *error);
/* The same once, with {"op": op, "path": inside} and nothing more. For "refresh" the path need not
 * exist if its directory does. */
int control_client_simple(const char *path, const char *op, json_t **reply, struct error *error);

#endif
