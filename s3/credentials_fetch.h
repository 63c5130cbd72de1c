/* The sources of credentials that are asked anew each time: a program, STS, the container's or the
 * instance's metadata. All block. For s3/credentials.c. */
#ifndef SLUICE_S3_CREDENTIALS_FETCH_H
#define SLUICE_S3_CREDENTIALS_FETCH_H

#include "credentials.h"

struct credential_source {
    enum {
        CREDENTIALS_STATIC,
        CREDENTIALS_PROCESS,
        CREDENTIALS_WEB_IDENTITY,
        CREDENTIALS_CONTAINER,
        CREDENTIALS_INSTANCE,
        CREDENTIALS_KEYS,
    } kind;
    /* All owned; NULL if the kind does not need them. */
    char *command;
    char *role_arn, *session_name, *token_file, *sts_endpoint;
    char *url; /* of the container's agent, or base of the instance's metadata service */
    char *authorization, *authorization_file;
    struct store_keys_source keys;
};

void credential_source_done(struct credential_source *source);
/* Never for CREDENTIALS_STATIC. 0 or -EACCES (the source said no, or nonsense), -EIO (it does not
 * answer). */
int credential_source_fetch(const struct credential_source *source, struct credential_set *out,
                            struct error *error);
/* The JSON that all but STS give. `token_name`: "SessionToken" or "Token". */
int credential_parse_json(const char *text, size_t len, const char *token_name,
                          struct credential_set *out, struct error *error);

#endif
