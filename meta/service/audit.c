/* See audit.h. Failure: a record that cannot be written (disk full) is counted as dropped; the next
 * one begins on a line of its own. */
#include "audit.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#define SLOTS 8192

struct slot {
    uint64_t time_ns, session, request, ino, parent, new_parent;
    int result;
    uint16_t name_len, new_name_len;
    char event[12], op[16], token[24];
    char peer[96], volume[72], client[160], reason[96];
    char name[META_NAME_MAX], new_name[META_NAME_MAX];
};

struct audit {
    char *path;
    int fd; /* its number stays; the file under it is replaced */
    pthread_t thread;
    bool torn; /* the thread's: the last line may not have its end */
    struct metric *written, *dropped;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct slot *slots; /* a ring */
    unsigned size, first, count;
    uint64_t lost; /* since the last record */
    bool stopping;
};

/* The caller's side */

static void put_text(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text ? text : "");
}

static uint16_t put_name(char out[META_NAME_MAX], const struct meta_name *name)
{
    size_t len = MIN(name->len, (size_t)META_NAME_MAX);
    if (len)
        memcpy(out, name->bytes, len);
    return (uint16_t)len;
}

static void fill(struct slot *slot, const struct audit_record *r)
{
    slot->time_ns = clock_wall_ns();
    slot->session = r->session;
    slot->request = r->request;
    slot->ino = r->ino;
    slot->parent = r->parent;
    slot->new_parent = r->new_parent;
    slot->result = r->result;
    slot->name_len = put_name(slot->name, &r->name);
    slot->new_name_len = put_name(slot->new_name, &r->new_name);
    put_text(slot->event, sizeof(slot->event), r->event);
    put_text(slot->op, sizeof(slot->op), r->op);
    put_text(slot->token, sizeof(slot->token), r->token);
    put_text(slot->peer, sizeof(slot->peer), r->peer);
    put_text(slot->volume, sizeof(slot->volume), r->volume);
    put_text(slot->client, sizeof(slot->client), r->client);
    put_text(slot->reason, sizeof(slot->reason), r->reason);
}

void audit_put(struct audit *audit, const struct audit_record *record)
{
    if (!audit)
        return;
    pthread_mutex_lock(&audit->lock);
    if (audit->count == audit->size) {
        audit->lost++;
        metric_add(audit->dropped, 1);
    } else {
        fill(&audit->slots[(audit->first + audit->count) % audit->size], record);
        if (audit->count++ == 0)
            pthread_cond_signal(&audit->wake);
    }
    pthread_mutex_unlock(&audit->lock);
}

/* Lines */

static void add(json_t *root, const char *key, json_t *value)
{
    if (value)
        json_object_set_new(root, key, value);
}

static void add_text(json_t *root, const char *key, const char *text)
{
    if (*text)
        add(root, key, json_string(text));
}

static void add_number(json_t *root, const char *key, uint64_t number)
{
    if (number)
        add(root, key, json_integer((json_int_t)number));
}

/* A name that is no UTF-8 is given in hex, under another key. */
static void add_name(json_t *root, const char *key, const char *name, size_t len)
{
    char hex[2 * META_NAME_MAX + 1], other[32];
    json_t *value = len ? json_stringn(name, len) : NULL;
    if (value || !len) {
        add(root, key, value);
        return;
    }
    for (size_t i = 0; i < len; i++)
        snprintf(hex + 2 * i, 3, "%02x", (unsigned char)name[i]);
    snprintf(other, sizeof(other), "%s_hex", key);
    add(root, other, json_string(hex));
}

static void add_time(json_t *root, uint64_t ns)
{
    char text[48], day[32];
    struct tm tm;
    time_t seconds = (time_t)(ns / NS_PER_S);
    gmtime_r(&seconds, &tm);
    strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text, sizeof(text), "%s.%03uZ", day, (unsigned)(ns % NS_PER_S / NS_PER_MS));
    add(root, "time", json_string(text));
}

static char *line_of(const struct slot *slot)
{
    const char *result = slot->result ? strerrorname_np(-slot->result) : "ok";
    json_t *root = json_object();
    add_time(root, slot->time_ns);
    add_text(root, "event", slot->event);
    add_text(root, "volume", slot->volume);
    add_number(root, "session", slot->session);
    add_text(root, "peer", slot->peer);
    add_text(root, "token", slot->token);
    add_text(root, "client", slot->client);
    add_number(root, "request", slot->request);
    add_text(root, "op", slot->op);
    add_number(root, "ino", slot->ino);
    add_number(root, "parent", slot->parent);
    add_name(root, "name", slot->name, slot->name_len);
    add_number(root, "new_parent", slot->new_parent);
    add_name(root, "new_name", slot->new_name, slot->new_name_len);
    add(root, "result", json_string(result ? result : "?"));
    add_text(root, "reason", slot->reason);
    char *line = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return line;
}

static int write_whole(struct audit *audit, const char *text, size_t len)
{
    while (len) {
        ssize_t n = write(audit->fd, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        audit->torn = true;
        text += n;
        len -= (size_t)n;
    }
    return 0;
}

static void write_line(struct audit *audit, const char *line)
{
    static struct log_limit limit = LOG_LIMIT(1, 60000);
    cleanup(free_ptr) char *text = NULL;
    int len = line ? asprintf(&text, "%s%s\n", audit->torn ? "\n" : "", line) : -1;
    int rc = len < 0 ? -ENOMEM : write_whole(audit, text, (size_t)len);
    if (rc == 0) {
        audit->torn = false;
        metric_add(audit->written, 1);
        return;
    }
    metric_add(audit->dropped, 1);
    log_limited(&limit, LOG_ERROR, "audit record not written", "file=%s error=\"%s\"", audit->path,
                strerror(-rc));
}

static void write_slot(struct audit *audit, const struct slot *slot, uint64_t lost)
{
    char *line = line_of(slot);
    write_line(audit, line);
    free(line);
    if (lost) {
        struct slot gap = {.time_ns = slot->time_ns};
        put_text(gap.event, sizeof(gap.event), "dropped");
        snprintf(gap.reason, sizeof(gap.reason), "%llu records had no room",
                 (unsigned long long)lost);
        line = line_of(&gap);
        write_line(audit, line);
        free(line);
    }
}

static void *run(void *arg)
{
    struct audit *audit = arg;
    pthread_setname_np(pthread_self(), "audit");
    pthread_mutex_lock(&audit->lock);
    for (;;) {
        while (audit->count == 0 && !audit->stopping)
            pthread_cond_wait(&audit->wake, &audit->lock);
        if (audit->count == 0)
            break;
        /* Nobody else takes from the ring, and a slot that is counted is not written to. */
        const struct slot *slot = &audit->slots[audit->first];
        uint64_t lost = audit->count == 1 ? audit->lost : 0;
        audit->lost -= lost;
        pthread_mutex_unlock(&audit->lock);
        write_slot(audit, slot, lost);
        pthread_mutex_lock(&audit->lock);
        audit->first = (audit->first + 1) % audit->size;
        audit->count--;
    }
    pthread_mutex_unlock(&audit->lock);
    return NULL;
}

/* Beginning and end */

static int open_path(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
    return fd < 0 ? -errno : fd;
}

static void free_parts(struct audit *audit)
{
    close_fd(&audit->fd);
    pthread_cond_destroy(&audit->wake);
    pthread_mutex_destroy(&audit->lock);
    free(audit->slots);
    free(audit->path);
    free(audit);
}

int audit_open(const struct audit_config *config, struct audit **out, struct error *error)
{
    struct audit *audit = calloc(1, sizeof(*audit));
    if (!audit)
        return error_set(error, -ENOMEM, "out of memory");
    pthread_mutex_init(&audit->lock, NULL);
    pthread_cond_init(&audit->wake, NULL);
    audit->size = config->slots ? config->slots : SLOTS;
    audit->slots = calloc(audit->size, sizeof(*audit->slots));
    audit->path = strdup(config->path);
    audit->fd = audit->path ? open_path(config->path) : -ENOMEM;
    audit->written = metrics_counter(config->metrics, "sluice_serve_audit_records_total", "",
                                     "Records written to the audit log.");
    audit->dropped = metrics_counter(config->metrics, "sluice_serve_audit_dropped_total", "",
                                     "Records that had no room in the queue, or on the disk.");
    int rc = audit->fd < 0 ? audit->fd : audit->slots ? 0 : -ENOMEM;
    if (rc == 0)
        rc = -pthread_create(&audit->thread, NULL, run, audit);
    if (rc < 0) {
        error_set(error, rc, "audit log %s: %s", config->path, strerror(-rc));
        free_parts(audit);
        return rc;
    }
    *out = audit;
    return 0;
}

int audit_reopen(struct audit *audit)
{
    cleanup(close_fd) int fd = open_path(audit->path);
    if (fd < 0)
        return fd;
    return dup3(fd, audit->fd, O_CLOEXEC) < 0 ? -errno : 0;
}

void audit_free(struct audit *audit)
{
    if (!audit)
        return;
    pthread_mutex_lock(&audit->lock);
    audit->stopping = true;
    pthread_cond_signal(&audit->wake);
    pthread_mutex_unlock(&audit->lock);
    pthread_join(audit->thread, NULL);
    free_parts(audit);
}
