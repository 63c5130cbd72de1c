/* A directory of a volume of the metadata service as a volume of its own: a limit on what is below
 * it, and a record in the extended attribute PREFIX_SERVICE_RECORD. Needs no mount. */
#ifndef SLUICE_CLI_PREFIX_SERVICE_H
#define SLUICE_CLI_PREFIX_SERVICE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define PREFIX_SERVICE_RECORD                                                                      \
    "trusted.sluice.csi" /* programs without CAP_SYS_ADMIN do not see it */

struct prefix_request {
    const char *create; /* its name, with size and on_delete; NULL: not to be made */
    const char *on_delete;
    uint64_t size;
    bool resize, delete;
    /* Of the service, as meta_remote_config has them; the token comes from SLUICE_TOKEN. */
    const char *tls_ca, *tls_cert, *tls_key, *tls_name;
};

/* Does what is asked with sluice://HOST:PORT/VOLUME/DIRECTORY; nothing asked: shows the record. The
 * answers and errors are those of prefix.h. Blocks. */
int prefix_service_run(const char *url, const struct prefix_request *request, json_t **out,
                       struct error *error);

#endif
