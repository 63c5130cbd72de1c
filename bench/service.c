/* Measures a metadata service alone. Happy path: connect all, make directories, rows, clean up. */
#include "bench/service.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "meta/codec.h"
#include "meta/remote.h"
#include "wire/wire.h"

#define NAME_ROOM 48
#define EVENTS 256
#define PATIENCE_MS 60000 /* without any answer */
#define PINGS_PER_LEASE 4

struct generator;

struct client {
    struct generator *gen;
    unsigned number;
    int fd;
    struct wire_input in;
    struct buf out;
    size_t sent; /* of out */
    bool wants_room, welcome;
    uint64_t change;
    uint64_t told, confirmed; /* batches */
    uint64_t dir;             /* its own */
    unsigned next, limit, flying;
    unsigned free_count;
    uint16_t free_slots[SERVICE_BENCH_DEPTH_MAX];
    uint64_t start_ns[SERVICE_BENCH_DEPTH_MAX];
};

struct generator {
    const struct service_bench_options *options;
    struct meta_remote_url url;
    struct client *clients;
    unsigned count;
    int epoll;
    uint32_t lease_ms;
    uint64_t pinged_ms;
    uint64_t base, shared; /* directories */
    char base_name[NAME_ROOM];
    struct service_bench_row *row;
    struct meta_op one; /* what client 0 does alone */
    bool is_one;
    uint64_t one_ino;
    int one_result;
    struct error *error;
};

static const struct {
    const char *name;
    bool durable;
} ops[SERVICE_BENCH_OP_COUNT] = {
    [SERVICE_BENCH_CREATE_SHARED] = {"create-shared", true},
    [SERVICE_BENCH_CREATE] = {"create", true},
    [SERVICE_BENCH_LOOKUP] = {"lookup", false},
    [SERVICE_BENCH_RENAME] = {"rename", true},
    [SERVICE_BENCH_UNLINK] = {"unlink", false},
    [SERVICE_BENCH_UNLINK_SHARED] = {"unlink-shared", false},
};

const char *service_bench_name(enum service_bench_op op)
{
    return ops[op].name;
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Connecting */

static int open_unix(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(addr.sun_path))
        return -ENAMETOOLONG;
    memcpy(addr.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
        return fd;
    int rc = -errno;
    if (fd >= 0)
        close(fd);
    return rc;
}

static int open_tcp(const struct meta_remote_url *url)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int rc = getaddrinfo(url->host, url->port, &hints, &found) ? -EHOSTUNREACH : -ECONNREFUSED;
    int one = 1, fd = -1;
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
            rc = -errno;
            close(fd);
            fd = -1;
        }
    }
    if (found)
        freeaddrinfo(found);
    if (fd < 0)
        return rc;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

static int connect_one(struct generator *gen, struct client *c)
{
    struct wire_hello hello = {
        .version_min = WIRE_VERSION,
        .version_max = WIRE_VERSION,
        .volume = {gen->url.volume, strlen(gen->url.volume)},
        .token = {gen->options->token, gen->options->token ? strlen(gen->options->token) : 0},
        .text = {"sluice bench-service", strlen("sluice bench-service")},
    };
    hash_random(hello.key, sizeof(hello.key));
    c->fd = gen->url.path ? open_unix(gen->url.path) : open_tcp(&gen->url);
    if (c->fd < 0)
        return error_set(gen->error, c->fd, "%s: %s", gen->options->url, strerror(-c->fd));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(gen->epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
        return error_set(gen->error, -errno, "epoll: %s", strerror(errno));
    wire_put_hello(&c->out, &hello);
    return 0;
}

/* What is asked */

static struct meta_name name_of(char room[NAME_ROOM], const char *prefix, unsigned client,
                                unsigned i)
{
    int len = snprintf(room, NAME_ROOM, "%sfile-%u-%08u", prefix, client, i);
    return (struct meta_name){.bytes = room, .len = (size_t)len};
}

static void fill(const struct client *c, unsigned i, struct meta_op *op, char one[NAME_ROOM],
                 char two[NAME_ROOM])
{
    const struct generator *gen = c->gen;
    enum service_bench_op what = gen->row->op;
    bool shared = what == SERVICE_BENCH_CREATE_SHARED || what == SERVICE_BENCH_UNLINK_SHARED;
    *op = (struct meta_op){.parent = shared ? gen->shared : c->dir,
                           .name = name_of(one, "", c->number, i)};
    switch (what) {
    case SERVICE_BENCH_CREATE_SHARED:
    case SERVICE_BENCH_CREATE:
        op->kind = META_MKNOD;
        op->attr.mode = S_IFREG | 0644;
        break;
    case SERVICE_BENCH_LOOKUP:
        op->kind = META_LOOKUP;
        op->name = name_of(one, "", c->number, (unsigned)((uint64_t)i * 7919 % c->limit));
        break;
    case SERVICE_BENCH_RENAME:
        op->kind = META_RENAME;
        op->new_parent = c->dir;
        op->new_name = name_of(two, "renamed-", c->number, i);
        break;
    case SERVICE_BENCH_UNLINK:
        op->name = name_of(one, "renamed-", c->number, i);
        op->kind = META_UNLINK;
        break;
    default:
        op->kind = META_UNLINK;
        break;
    }
}

static void put_op(struct client *c, unsigned slot, const struct meta_op *op, bool durable)
{
    struct wire_request m = {.id = slot + 1,
                             .change = meta_kind_changes(op->kind) ? ++c->change : 0,
                             .durable = durable};
    wire_put_request(&c->out, &m, op);
    c->start_ns[slot] = clock_monotonic_ns();
    c->flying++;
}

/* As many as may be in flight. */
static void ask(struct client *c)
{
    struct generator *gen = c->gen;
    if (gen->is_one) {
        if (c->number == 0 && c->next < c->limit) {
            c->next++;
            put_op(c, c->free_slots[--c->free_count], &gen->one, false);
        }
        return;
    }
    bool stop = atomic_load_explicit(gen->options->stop, memory_order_relaxed);
    while (gen->row && !stop && c->next < c->limit && c->free_count) {
        char one[NAME_ROOM], two[NAME_ROOM];
        struct meta_op op;
        fill(c, c->next++, &op, one, two);
        put_op(c, c->free_slots[--c->free_count], &op, ops[gen->row->op].durable);
    }
}

/* Answers */

static int take_reply(struct client *c, const uint8_t *data, size_t len)
{
    struct generator *gen = c->gen;
    struct wire_reply m;
    if (wire_get_reply(data, len, &m) < 0 || m.id == 0 || m.id > SERVICE_BENCH_DEPTH_MAX ||
        c->flying == 0)
        return -EBADMSG;
    unsigned slot = (unsigned)m.id - 1;
    c->free_slots[c->free_count++] = (uint16_t)slot;
    c->flying--;
    if (gen->is_one) {
        struct meta_reply reply;
        meta_reply_init(&reply);
        gen->one_result = m.result;
        if (m.result == 0 && m.reply)
            gen->one_result = meta_codec_reply_get(m.reply, m.reply_len, &reply);
        gen->one_ino = reply.attr.ino;
        meta_reply_done(&reply);
        return 0;
    }
    histogram_add(&gen->row->latency, clock_monotonic_ns() - c->start_ns[slot]);
    gen->row->operations++;
    if (m.result < 0) {
        gen->row->failed++;
        gen->row->error = m.result;
    }
    return 0;
}

static void ignore_item(void *arg, const struct wire_item *item)
{
    struct client *c = arg;
    (void)item;
    if (c->gen->row)
        c->gen->row->told++;
}

static int take(struct client *c, enum wire_type type, const uint8_t *data, size_t len)
{
    struct wire_welcome welcome;
    struct wire_refused refused;
    switch (type) {
    case WIRE_REPLY:
        return take_reply(c, data, len);
    case WIRE_INVALIDATE:
        return wire_get_items(data, len, &c->told, ignore_item, c);
    case WIRE_WELCOME:
        if (wire_get_welcome(data, len, &welcome) < 0)
            return -EBADMSG;
        c->gen->lease_ms = welcome.lease_ms;
        c->welcome = true;
        return 0;
    case WIRE_REFUSED:
        if (wire_get_refused(data, len, &refused) == 0)
            return error_set(c->gen->error, refused.code, "%s: %.*s", c->gen->options->url,
                             (int)refused.text.len, refused.text.bytes);
        return -EBADMSG;
    case WIRE_PONG:
        return 0;
    default:
        return -EBADMSG;
    }
}

static int flush(struct client *c)
{
    while (c->sent < c->out.len) {
        ssize_t n =
            send(c->fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n < 0)
            return -errno;
        c->sent += (size_t)n;
    }
    bool left = c->sent < c->out.len;
    if (!left) {
        buf_reset(&c->out);
        c->sent = 0;
    }
    if (left != c->wants_room) {
        struct epoll_event event = {.events = EPOLLIN | (left ? EPOLLOUT : 0u), .data.ptr = c};
        epoll_ctl(c->gen->epoll, EPOLL_CTL_MOD, c->fd, &event);
        c->wants_room = left;
    }
    return 0;
}

static int receive(struct client *c)
{
    size_t room;
    enum wire_type type;
    const uint8_t *data;
    size_t len;
    int rc = 0;
    uint8_t *at = wire_input_room(&c->in, &room);
    if (!at)
        return -ENOMEM;
    ssize_t n = recv(c->fd, at, room, MSG_DONTWAIT);
    if (n == 0)
        return -ECONNRESET;
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    wire_input_add(&c->in, (size_t)n);
    while (rc >= 0 && (rc = wire_input_next(&c->in, &type, &data, &len)) > 0)
        rc = take(c, type, data, len);
    if (c->told > c->confirmed) {
        wire_put_number(&c->out, WIRE_CONFIRM, c->told);
        c->confirmed = c->told;
    }
    return MIN(rc, 0);
}

/* A turn: waits for the service, takes what it says. */
static int turn(struct generator *gen)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(gen->epoll, events, EVENTS, 250);
    if (n < 0 && errno != EINTR)
        return -errno;
    for (int i = 0; i < n; i++) {
        struct client *c = events[i].data.ptr;
        int rc = events[i].events & ~(uint32_t)EPOLLOUT ? receive(c) : 0;
        if (rc == 0) {
            ask(c);
            rc = flush(c);
        }
        if (rc < 0)
            return gen->error->code ? rc
                                    : error_set(gen->error, rc, "%s: connection %u: %s",
                                                gen->options->url, c->number, strerror(-rc));
    }
    uint64_t now = clock_monotonic_ms();
    if (gen->lease_ms && now >= gen->pinged_ms + gen->lease_ms / PINGS_PER_LEASE) {
        gen->pinged_ms = now;
        for (unsigned i = 0; i < gen->count; i++) {
            wire_put_number(&gen->clients[i].out, WIRE_PING, now);
            int rc = flush(&gen->clients[i]);
            if (rc < 0)
                return error_set(gen->error, rc, "%s: %s", gen->options->url, strerror(-rc));
        }
    }
    return n;
}

/* Until nothing is left to be asked or answered. */
static int drive(struct generator *gen)
{
    uint64_t heard_ms = clock_monotonic_ms();
    for (unsigned i = 0; i < gen->count; i++) {
        ask(&gen->clients[i]);
        int rc = flush(&gen->clients[i]);
        if (rc < 0)
            return error_set(gen->error, rc, "%s: %s", gen->options->url, strerror(-rc));
    }
    for (;;) {
        bool stop = atomic_load(gen->options->stop), busy = false;
        for (unsigned i = 0; i < gen->count && !busy; i++)
            busy =
                gen->clients[i].flying || (!stop && gen->clients[i].next < gen->clients[i].limit);
        if (!busy)
            return 0;
        int rc = turn(gen);
        if (rc < 0)
            return rc;
        if (rc > 0)
            heard_ms = clock_monotonic_ms();
        else if (clock_monotonic_ms() - heard_ms > PATIENCE_MS)
            return error_set(gen->error, -ETIMEDOUT, "%s: no answer", gen->options->url);
    }
}

/* One operation of the first connection. */
static int do_one(struct generator *gen, uint64_t *ino)
{
    gen->is_one = true;
    for (unsigned i = 0; i < gen->count; i++) {
        gen->clients[i].next = 0;
        gen->clients[i].limit = i == 0;
    }
    int rc = drive(gen);
    gen->is_one = false;
    if (rc == 0 && gen->one_result < 0)
        rc = error_set(gen->error, gen->one_result, "%s: %s in %s: %s", gen->options->url,
                       meta_kind_name(gen->one.kind), gen->base_name, strerror(-gen->one_result));
    if (rc == 0 && ino)
        *ino = gen->one_ino;
    return rc;
}

static int make_dir(struct generator *gen, uint64_t parent, const char *name, uint64_t *ino)
{
    gen->one = (struct meta_op){.kind = META_MKNOD,
                                .parent = parent,
                                .name = {name, strlen(name)},
                                .attr = {.mode = S_IFDIR | 0700}};
    return do_one(gen, ino);
}

static int remove_dir(struct generator *gen, uint64_t parent, const char *name)
{
    gen->one = (struct meta_op){
        .kind = META_UNLINK, .parent = parent, .name = {name, strlen(name)}, .flags = META_RMDIR};
    return do_one(gen, NULL);
}

static int each_dir(struct generator *gen, bool make)
{
    char name[NAME_ROOM];
    int rc = make ? make_dir(gen, gen->base, "shared", &gen->shared)
                  : remove_dir(gen, gen->base, "shared");
    for (unsigned i = 0; rc == 0 && i < gen->count; i++) {
        snprintf(name, sizeof(name), "d%u", i);
        rc = make ? make_dir(gen, gen->base, name, &gen->clients[i].dir)
                  : remove_dir(gen, gen->base, name);
    }
    return rc;
}

/* Rows */

static void report(const struct generator *gen, const struct service_bench_row *row)
{
    if (gen->options->ended)
        gen->options->ended(gen->options->arg, row);
}

static int run_row(struct generator *gen, enum service_bench_op op, struct service_bench_row *row)
{
    *row = (struct service_bench_row){
        .op = op, .connections = gen->count, .depth = gen->options->depth};
    for (unsigned i = 0; i < gen->count; i++) {
        gen->clients[i].next = 0;
        gen->clients[i].limit = gen->options->count;
    }
    double cpu = cpu_seconds();
    uint64_t start = clock_monotonic_ns();
    gen->row = row;
    int rc = drive(gen);
    gen->row = NULL;
    row->seconds = (double)(clock_monotonic_ns() - start) / 1e9;
    row->cpu_s = cpu_seconds() - cpu;
    if (rc == 0 && !atomic_load(gen->options->stop))
        report(gen, row);
    return rc;
}

/* What an interrupted run has left: under either name. */
static int remove_files(struct generator *gen, struct service_bench_row *row)
{
    atomic_bool *stop = gen->options->stop;
    bool stopped = atomic_exchange(stop, false);
    struct service_bench_options quiet = *gen->options;
    const struct service_bench_options *loud = gen->options;
    int rc = 0;
    if (stopped) {
        quiet.ended = NULL;
        gen->options = &quiet;
    }
    static const enum service_bench_op all[] = {SERVICE_BENCH_RENAME, SERVICE_BENCH_UNLINK,
                                                SERVICE_BENCH_UNLINK_SHARED};
    for (size_t i = stopped ? 0 : 1; rc == 0 && i < sizeof(all) / sizeof(all[0]); i++)
        rc = run_row(gen, all[i], row);
    gen->options = loud;
    atomic_store(stop, stopped);
    return rc;
}

static int run_rows(struct generator *gen)
{
    cleanup(free_ptr) struct service_bench_row *row = calloc(1, sizeof(*row));
    uint64_t random;
    if (!row)
        return error_set(gen->error, -ENOMEM, "no memory");
    hash_random(&random, sizeof(random));
    snprintf(gen->base_name, sizeof(gen->base_name), "sluice-bench.%016" PRIx64, random);
    int rc = make_dir(gen, META_ROOT_INO, gen->base_name, &gen->base);
    if (rc == 0)
        rc = each_dir(gen, true);
    for (int op = 0; rc == 0 && op < SERVICE_BENCH_UNLINK; op++)
        if (!atomic_load(gen->options->stop))
            rc = run_row(gen, (enum service_bench_op)op, row);
    if (rc == 0)
        rc = remove_files(gen, row);
    bool stopped = atomic_exchange(gen->options->stop, false);
    if (rc == 0)
        rc = each_dir(gen, false);
    if (rc == 0)
        rc = remove_dir(gen, META_ROOT_INO, gen->base_name);
    return rc == 0 && stopped ? error_set(gen->error, -ECANCELED, "interrupted") : rc;
}

/* Beginning and end */

static void close_all(struct generator *gen)
{
    for (unsigned i = 0; i < gen->count; i++) {
        struct client *c = &gen->clients[i];
        if (c->fd >= 0) {
            buf_reset(&c->out);
            c->sent = 0;
            wire_put_number(&c->out, WIRE_BYE, 0);
            if (c->welcome)
                flush(c);
            close(c->fd);
        }
        wire_input_done(&c->in);
        buf_done(&c->out);
    }
    if (gen->epoll >= 0)
        close(gen->epoll);
    free(gen->clients);
    meta_remote_url_done(&gen->url);
}

static int wait_welcome(struct generator *gen)
{
    uint64_t end = clock_monotonic_ms() + PATIENCE_MS;
    for (unsigned i = 0; i < gen->count;) {
        if (gen->clients[i].welcome) {
            i++;
            continue;
        }
        int rc = turn(gen);
        if (rc < 0)
            return rc;
        if (clock_monotonic_ms() > end)
            return error_set(gen->error, -ETIMEDOUT, "%s: no answer", gen->options->url);
    }
    return 0;
}

static int connect_all(struct generator *gen)
{
    const struct service_bench_options *o = gen->options;
    gen->epoll = epoll_create1(EPOLL_CLOEXEC);
    gen->clients = calloc(o->connections, sizeof(*gen->clients));
    if (gen->epoll < 0 || !gen->clients)
        return error_set(gen->error, -ENOMEM, "no memory");
    for (unsigned i = 0; i < o->connections; i++) {
        struct client *c = &gen->clients[i];
        c->gen = gen;
        c->number = i;
        wire_input_init(&c->in, WIRE_FRAME_MAX);
        buf_init(&c->out, 0);
        for (unsigned slot = 0; slot < o->depth; slot++)
            c->free_slots[c->free_count++] = (uint16_t)slot;
        gen->count++;
        int rc = connect_one(gen, c);
        if (rc == 0)
            rc = flush(c);
        /* No more strangers at once than a service may hold. */
        if (rc == 0 && i % 32 == 31)
            rc = wait_welcome(gen);
        if (rc < 0)
            return rc;
    }
    return wait_welcome(gen);
}

static int start(struct generator *gen, const struct service_bench_options *options,
                 struct error *error)
{
    *gen = (struct generator){.options = options, .epoll = -1, .error = error};
    int rc = meta_remote_url_parse(options->url, &gen->url, error);
    if (rc == 0 && gen->url.tls)
        rc = error_set(error, -EINVAL,
                       "%s: the load generator speaks no TLS: use sluice://, or a "
                       "unix socket",
                       options->url);
    if (rc == 0 && gen->url.directory)
        rc = error_set(error, -EINVAL, "%s: give a whole volume", options->url);
    return rc == 0 ? connect_all(gen) : rc;
}

int service_bench_run(const struct service_bench_options *options, struct error *error)
{
    struct generator gen;
    int rc = start(&gen, options, error);
    if (rc == 0)
        rc = run_rows(&gen);
    close_all(&gen);
    return rc;
}

int service_bench_idle(const struct service_bench_options *options, uint32_t time_ms,
                       void (*ready)(void *arg), struct error *error)
{
    struct generator gen;
    int rc = start(&gen, options, error);
    uint64_t end = clock_monotonic_ms() + time_ms;
    if (rc == 0)
        ready(options->arg);
    while (rc >= 0 && clock_monotonic_ms() < end && !atomic_load(options->stop))
        rc = turn(&gen);
    close_all(&gen);
    return MIN(rc, 0);
}
