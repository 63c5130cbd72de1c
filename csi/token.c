#include "token.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "check.h"

#define TOKENS "csi.storage.k8s.io/serviceAccount.tokens"
#define ACCOUNT "csi.storage.k8s.io/serviceAccount.name"
#define NAMESPACE "csi.storage.k8s.io/pod.namespace"
#define DEFAULT_AUDIENCE "sts.amazonaws.com"

char *token_pick(const char *json, const char *audience)
{
    json_t *root = json_loads(json, 0, NULL), *entry = NULL;
    if (audience)
        entry = json_object_get(root, audience);
    else if (json_object_size(root) == 1)
        entry = json_object_iter_value(json_object_iter(root));
    else
        entry = json_object_get(root, DEFAULT_AUDIENCE);
    const char *token = json_string_value(json_object_get(entry, "token"));
    char *copy = token && *token && strlen(token) <= TOKEN_MAX ? strdup(token) : NULL;
    json_decref(root);
    return copy;
}

/* New content by rename: who reads sees the old or the new one. */
static int write_file(const char *dir, const char *name, const char *text)
{
    cleanup(free_ptr) char *path = NULL;
    cleanup(free_ptr) char *fresh = NULL;
    if (asprintf(&path, "%s/%s", dir, name) < 0 || asprintf(&fresh, "%s/%s.new", dir, name) < 0)
        return -ENOMEM;
    cleanup(close_fd) int fd =
        open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, text, strlen(text));
    if (n != (ssize_t)strlen(text))
        return n < 0 ? -errno : -ENOSPC;
    return rename(fresh, path) < 0 ? -errno : 0;
}

/* Whether the mount's token is of another account. */
static bool is_of_other(const char *dir, const char *account, char *other, size_t len)
{
    cleanup(free_ptr) char *path = NULL;
    if (asprintf(&path, "%s/token.of", dir) < 0)
        return true;
    cleanup(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, other, len - 1);
    other[n > 0 ? n : 0] = 0;
    return n <= 0 || strcmp(other, account) != 0;
}

int token_store(struct csi_call *call, const Csi__V1__NodePublishVolumeRequest *r,
                const struct source *source, const char *dir, bool in_use)
{
    /* Newer kubelets put it among the secrets (serviceAccountTokenInSecrets). */
    const char *json = pair_value(r->n_secrets, r->secrets, TOKENS);
    const char *name = pair_value(r->n_volume_context, r->volume_context, ACCOUNT);
    const char *space = pair_value(r->n_volume_context, r->volume_context, NAMESPACE);
    char account[600], other[600];
    if (!json)
        json = pair_value(r->n_volume_context, r->volume_context, TOKENS);
    char *token = json ? token_pick(json, source->token_audience) : NULL;
    if (!token)
        return csi_fail(call, CSI_UNAUTHENTICATED,
                        "identity: pod needs a token of the pod's service account%s%s: set "
                        "podIdentity.enabled of the chart (CSIDriver.spec.tokenRequests)",
                        source->token_audience ? " for " : "",
                        source->token_audience ? source->token_audience : "");
    snprintf(account, sizeof(account), "%.250s/%.250s", space ? space : "", name ? name : "");
    int code = CSI_OK;
    if (in_use && is_of_other(dir, account, other, sizeof(other)))
        code = csi_fail(call, CSI_FAILED_PRECONDITION,
                        "the volume is mounted on this node with the identity of %s; a pod of %s "
                        "cannot have it at the same time",
                        other, account);
    int result = code == CSI_OK ? write_file(dir, "token.of", account) : 0;
    if (code == CSI_OK && result == 0)
        result = write_file(dir, "token", token);
    explicit_bzero(token, strlen(token));
    free(token);
    if (result == -ENOSPC || result == -EDQUOT)
        return csi_fail(call, CSI_RESOURCE_EXHAUSTED, "no room for the pod's token in %s", dir);
    if (result < 0)
        return csi_fail(call, CSI_INTERNAL, "the pod's token could not be stored: %s",
                        strerror(-result));
    return code;
}

void token_forget(const char *dir)
{
    static const char *const names[] = {"token", "token.new", "token.of", "token.of.new"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        cleanup(free_ptr) char *path = NULL;
        if (asprintf(&path, "%s/%s", dir, names[i]) >= 0)
            unlink(path);
    }
}
