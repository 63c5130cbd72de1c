/* Starting a named thread. Private to base. */
#ifndef SLUICE_BASE_THREAD_H
#define SLUICE_BASE_THREAD_H

#include <pthread.h>

/* Starts a thread that takes no signals (they are for the main thread, which handles them). `name`
 * is cut to 15 characters. 0 or -errno. */
int thread_start(pthread_t *thread, const char *name, void *(*run)(void *arg), void *arg);

#endif
