#include "base/blocking.h"

#include <stddef.h>

static _Thread_local struct blocking_hook *of_thread;

void blocking_set(struct blocking_hook *hook)
{
    of_thread = hook;
}

void blocking_begin(void)
{
    if (of_thread)
        of_thread->before(of_thread);
}
