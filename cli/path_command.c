#include "path_command.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <time.h>

#include "base/cleanup.h"
#include "cli.h"
#include "control_client.h"
#include "options.h"
#include "progress.h"

#define PROGRESS_INTERVAL_MS 250

struct path_options {
    bool json, wait;
};

struct waiting {
    const char *path, *op;
    json_t *reply;
    struct error error;
    int result;
    sem_t done;
};

static void *ask(void *arg)
{
    struct waiting *w = arg;
    w->result = control_client_simple(w->path, w->op, &w->reply, &w->error);
    sem_post(&w->done);
    return NULL;
}

static uint64_t files_left(const char *path)
{
    json_t *reply = NULL;
    if (control_client_simple(path, "drift", &reply, NULL) < 0)
        return 0;
    uint64_t files = (uint64_t)json_integer_value(json_object_get(reply, "files"));
    json_decref(reply);
    return files;
}

static bool wait_a_little(sem_t *done)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += PROGRESS_INTERVAL_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    return sem_timedwait(done, &until) == 0;
}

/* The request waits on a thread of its own, while this one shows what is left. */
static int ask_with_progress(const char *what, struct waiting *w)
{
    struct progress progress;
    pthread_t thread;
    progress_init(&progress, what, false);
    sem_init(&w->done, 0, 0);
    if (!progress.on || pthread_create(&thread, NULL, ask, w) != 0) {
        ask(w);
        return w->result;
    }
    while (!wait_a_little(&w->done))
        progress_show(&progress, files_left(w->path));
    pthread_join(thread, NULL);
    progress_end(&progress);
    return w->result;
}

int path_command_ask(const char *op, const char *path, const char *progress, json_t **reply,
                     struct error *error)
{
    struct waiting w = {.path = path, .op = op};
    int r = progress ? ask_with_progress(progress, &w) : (ask(&w), w.result);
    *reply = w.reply;
    *error = w.error;
    return r;
}

int path_command_run(const struct path_command *command, int argc, char **argv)
{
    static const struct option_spec rows[] = {
        {"json", 0, OPTION_FLAG, offsetof(struct path_options, json), NULL,
         "Print the mount's answer as JSON"},
        {"wait", 0, OPTION_FLAG, offsetof(struct path_options, wait), NULL,
         "Return when it is done (the default)"},
    };
    struct option_spec specs[ARRAY_LEN(rows)];
    size_t count = 0;
    if (command->json)
        specs[count++] = rows[0];
    if (command->wait)
        specs[count++] = rows[1];
    struct option_set set = {.specs = specs,
                             .count = count,
                             .usage = command->usage,
                             .doc = command->doc,
                             .args_min = command->args_min,
                             .args_max = 1};
    struct path_options options = {0};
    struct option_result result;
    char name[64];
    snprintf(name, sizeof(name), "sluice %s", command->name);
    int r = options_parse(&set, name, argc, argv, &options, &result);
    if (r)
        return r - 1;
    json_t *reply = NULL;
    struct error error = {0};
    if (path_command_ask(command->op, result.arg_count ? result.args[0] : ".", command->progress,
                         &reply, &error) < 0)
        return cli_fail(command->name, &error);
    if (options.json) {
        json_t *part = command->part ? command->part(reply) : reply;
        json_dumpf(part, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
        putchar('\n');
    } else if (command->print) {
        command->print(reply);
    }
    json_decref(reply);
    return 0;
}
