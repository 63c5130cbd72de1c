/*
 * The identity of a pod: the kubelet gives NodePublishVolume tokens of the pod's service account
 * (CSIDriver.spec.tokenRequests), and new ones as long as the pod runs (requiresRepublish). One of
 * them becomes a file in the volume's directory on the host, from where the mount exchanges it for
 * keys of the store (AssumeRoleWithWebIdentity).
 *   DIR/token     mode 0600, replaced by rename    DIR/token.of   whose it is: NAMESPACE/ACCOUNT
 */
#ifndef SLUICE_CSI_TOKEN_H
#define SLUICE_CSI_TOKEN_H

#include <stdbool.h>

#include "call.h"
#include "csi.pb-c.h"
#include "source.h"

#define TOKEN_MAX (16 << 10)

/* Picks the token: of source->token_audience, else the only one, else that of sts.amazonaws.com.
 * `json` is what the kubelet sends, {"AUDIENCE": {"token": "…", "expirationTimestamp": "…"}}. The
 * copy is the caller's; NULL if there is none that can be used. Pure. */
char *token_pick(const char *json, const char *audience);
/* Stores the token of a request as DIR/token. `in_use`: a mount has an earlier one, which another
 * account must not take over. CSI_OK, UNAUTHENTICATED (no token), or FAILED_PRECONDITION. */
int token_store(struct csi_call *call, const Csi__V1__NodePublishVolumeRequest *request,
                const struct source *source, const char *dir, bool in_use);
/* At the end of the mount. */
void token_forget(const char *dir);

#endif
