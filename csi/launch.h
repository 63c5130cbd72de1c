/* Starting `sluice mount`, and asking `sluice prefix`: command lines and environments. Credentials
 * go by the environment only. */
#ifndef SLUICE_CSI_LAUNCH_H
#define SLUICE_CSI_LAUNCH_H

#include <jansson.h>

#include "csi.pb-c.h"
#include "driver.h"
#include "source.h"

struct launch {
    const struct source *source;
    size_t secret_count;
    Csi__V1__Pair *const *secrets;
    const char *token_file; /* of the pod's identity, NULL: none. Then no other keys are used */
    bool own_credentials;   /* without secrets of its own, do not use those of the driver */
};

/* Runs `sluice prefix URL WORDS…`. CSI_OK with *reply to be released, or the code that fits its
 * refusal, with its sentence. */
int launch_prefix(struct csi *csi, struct csi_call *call, const struct launch *launch,
                  const char *const *words, json_t **reply);
/* At the driver's start: files of secrets that a killed driver's calls of launch_prefix left. */
void launch_clean_up(const char *state_dir);
/* Runs `sluice settle PATH`. CSI_OK when all is in the bucket, or also if something cannot be there
 * (then *settled is false, and the log says what). */
int launch_settle(struct csi *csi, struct csi_call *call, const char *path, bool *settled);
/* Runs `sluice rebuild`: metadata of the volume in `dir`, from the bucket. What was begun goes on
 * at the next call. */
int launch_rebuild(struct csi *csi, struct csi_call *call, const struct launch *launch,
                   const char *dir);
/* Mounts at `staging`; `dir` is the volume's (records.h). CSI_OK when it serves. */
int launch_mount(struct csi *csi, struct csi_call *call, const struct launch *launch,
                 const char *staging, const char *dir);

#endif
