/* Programs that the driver runs: mounts and helpers of the sluice binary. */
#ifndef SLUICE_CSI_SPAWN_H
#define SLUICE_CSI_SPAWN_H

#include "base/error.h"
#include "call.h"

#define SPAWN_WORDS_MAX 128
#define SPAWN_OUTPUT_MAX (256u << 10) /* bytes kept of stdout and of stderr */

/* A command line or an environment that is being put together. After a failed allocation `failed`
 * is set and the rest does nothing. */
struct words {
    char *list[SPAWN_WORDS_MAX + 1]; /* owned, NULL-ended */
    unsigned count;
    bool failed;
};
void words_add(struct words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void words_done(struct words *w);

struct spawned {
    int exit_code;   /* 128 + signal for one that was killed */
    char *out, *err; /* owned, never NULL on success of spawn_run; cut at SPAWN_OUTPUT_MAX */
};
void spawned_done(struct spawned *s);

/* Runs argv with this environment and nothing else of ours (no descriptors, no signal mask), in a
 * session of its own, and waits until it has ended. `cgroups`: files that it writes itself into
 * (cgroup.procs), NULL-ended; may be NULL. 0; -ETIMEDOUT when the call's time ran out: the process
 * was killed then; -errno if it could not be started. */
int spawn_run(struct words *argv, struct words *env, const char *const *cgroups,
              struct csi_call *call, struct spawned *out, struct error *error);

#endif
