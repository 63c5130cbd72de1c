#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "s3/backend.h"
#include "s3/open.h"

void store_options_init(struct store_options *options)
{
    *options = (struct store_options){.path_style = -1};
}

/* Puts one decorator on top; without memory the stack below goes too. */
static int put_on_top(int rc, struct store *top, struct store **stack, struct error *error)
{
    if (rc) {
        store_free(*stack);
        *stack = NULL;
        return error_set(error, rc, "cannot open the store: no memory");
    }
    *stack = top;
    return 0;
}

static int open_s3(const struct store_url *url, const struct store_options *options,
                   struct loop *loop, struct metrics *metrics, struct store **out,
                   struct error *error)
{
    struct store *stack = NULL, *top = NULL;
    int rc = store_s3_new(url, options, loop, metrics, &stack, error);
    if (rc)
        return rc;
    if (options->hedge_after_ms != UINT32_MAX) {
        rc = store_hedge_new(stack, options, metrics, &top);
        rc = put_on_top(rc, top, &stack, error);
        if (rc)
            return rc;
    }
    rc = store_retry_new(stack, options, metrics, &top);
    rc = put_on_top(rc, top, &stack, error);
    if (rc == 0)
        *out = stack;
    return rc;
}

int store_open(const struct store_url *url, const struct store_options *options, struct loop *loop,
               struct metrics *metrics, struct store **out, struct error *error)
{
    struct store *stack = NULL, *top = NULL;
    int rc;
    if (strcmp(url->scheme, "file") == 0)
        rc = store_file_new(url->bucket, options->read_only, loop, &stack, error);
    else
        rc = open_s3(url, options, loop, metrics, &stack, error);
    if (rc)
        return rc;
    rc = store_trace_new(stack, metrics, &top);
    rc = put_on_top(rc, top, &stack, error);
    if (rc == 0)
        *out = stack;
    return rc;
}
