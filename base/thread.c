#include "thread.h"

#include <signal.h>
#include <stdio.h>

int thread_start(pthread_t *thread, const char *name, void *(*run)(void *arg), void *arg)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc)
        return -rc;
    char short_name[16];
    snprintf(short_name, sizeof(short_name), "%s", name);
    /* Only for people who look at the process; its failure changes nothing. */
    (void)pthread_setname_np(*thread, short_name);
    return 0;
}
