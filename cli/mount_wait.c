#include "mount_wait.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

#define QUIET_MS 3000

/* Without the request that failed: its key is one of ours, and says nothing to a user. */
static const char *cause(const struct error *why)
{
    const char *text = error_text(why), *url = strstr(text, "s3://");
    const char *behind = url ? strstr(url, ": ") : NULL;
    return behind ? behind + 2 : text;
}

static void on_timer(struct loop_timer *timer)
{
    struct mount_wait *w = container_of(timer, struct mount_wait, timer);
    fprintf(stderr, "sluice mount: still trying %s%s%s: %s (%u s at most)\n", w->url,
            w->endpoint ? " at " : "", w->endpoint ? w->endpoint : "",
            w->why.code ? cause(&w->why) : "no answer yet", w->deadline_ms / 1000);
}

static void on_again(void *arg, const struct error *why)
{
    struct mount_wait *w = arg;
    w->why = *why;
}

static void start(void *arg)
{
    struct mount_wait *w = arg;
    loop_timer_init(w->loop, &w->timer, on_timer);
    loop_timer_start(&w->timer, QUIET_MS);
}

static void end(void *arg)
{
    struct mount_wait *w = arg;
    loop_timer_close(&w->timer, NULL);
}

void mount_wait_start(struct mount_wait *w, struct loop *loop, const char *url,
                      struct store_options *options)
{
    *w = (struct mount_wait){.loop = loop,
                             .url = url,
                             .endpoint = store_endpoint(options),
                             .deadline_ms = options->deadline_ms};
    options->again = on_again;
    options->again_arg = w;
    loop_call(loop, start, w);
}

void mount_wait_end(struct mount_wait *w)
{
    if (w->loop)
        loop_call(w->loop, end, w);
    w->loop = NULL;
}
