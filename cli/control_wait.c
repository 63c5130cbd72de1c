#include "control_wait.h"

#include <pthread.h>
#include <semaphore.h>
#include <time.h>

#include "base/clock.h"
#include "control_client.h"

#define LOOK_NS (250 * NS_PER_MS)

struct waiting {
    const char *path;
    json_t *request; /* owned */
    json_t *reply;
    struct error error;
    int result;
    sem_t done;
};

static void *ask(void *arg)
{
    struct waiting *w = arg;
    struct control_client client;
    w->result = control_client_open(w->path, &client, &w->error);
    if (w->result == 0) {
        w->result = control_client_call_at(&client, w->path, w->request, &w->reply, &w->error);
        control_client_close(&client);
    } else {
        json_decref(w->request);
    }
    sem_post(&w->done);
    return NULL;
}

static bool wait_a_little(sem_t *done)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + LOOK_NS;
    until.tv_sec += (time_t)(ns / NS_PER_S);
    until.tv_nsec = (long)(ns % NS_PER_S);
    return sem_timedwait(done, &until) == 0;
}

int control_wait(const char *path, json_t *request, const char *what, bool bytes,
                 bool (*left)(const char *path, uint64_t *out), json_t **reply, struct error *error)
{
    struct waiting w = {.path = path, .request = request};
    struct progress progress;
    pthread_t thread;
    progress_init(&progress, what, bytes);
    sem_init(&w.done, 0, 0);
    if (!progress.on || pthread_create(&thread, NULL, ask, &w) != 0) {
        ask(&w);
    } else {
        while (!wait_a_little(&w.done)) {
            uint64_t amount;
            if (left(path, &amount))
                progress_show(&progress, amount);
        }
        pthread_join(thread, NULL);
        progress_end(&progress);
    }
    sem_destroy(&w.done);
    if (w.result < 0)
        *error = w.error;
    else
        *reply = w.reply;
    return w.result;
}
