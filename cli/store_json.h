/* How a mount is told to reach another store (docs/stores.md). */
#ifndef SLUICE_CLI_STORE_JSON_H
#define SLUICE_CLI_STORE_JSON_H

#include <jansson.h>

#include "s3/open.h"

/* What of it was given, without secrets; a new reference. */
json_t *store_json(const struct store_options *options);

#endif
