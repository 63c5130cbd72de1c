/* What a mount that is not up yet waits for: said once, after a few seconds. */
#ifndef SLUICE_CLI_MOUNT_WAIT_H
#define SLUICE_CLI_MOUNT_WAIT_H

#include <stdbool.h>

#include "base/loop.h"
#include "s3/open.h"

struct mount_wait {
    struct loop *loop; /* NULL: not started */
    const char *url, *endpoint;
    uint32_t deadline_ms;
    /* The loop's thread. */
    struct loop_timer timer;
    struct error why; /* of the last try that failed */
};

/* From now on, until mount_wait_end; `options` are filled in so that the store tells. All that is
 * given must live as long. */
void mount_wait_start(struct mount_wait *w, struct loop *loop, const char *url,
                      struct store_options *options);
/* May be called again. Before the loop is freed. */
void mount_wait_end(struct mount_wait *w);

#endif
