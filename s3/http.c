#include "http.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uthash.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* Reading in pieces that stay in the second-level cache costs less than fewer, bigger ones: libcurl
 * copies once more from its buffer to where the bytes go. */
#define RECEIVE_BUFFER (256L << 10)
#define SEND_BUFFER (256L << 10)
#define HEADER_MAX 16384
#define IDLE_SLOTS 4u

/* One easy handle: reused for request after request, so that its buffers and options stay. */
struct http_slot {
    struct http *http;
    CURL *easy;
    struct http_request *request; /* NULL: idle */
    struct http_slot *next;       /* of the idle ones */
    struct curl_slist *headers;
    unsigned iov_index; /* where the body is read next */
    size_t iov_offset;
    unsigned sent_count; /* times that libcurl began to send the request */
    uint64_t active_ms;  /* when a byte moved last; uv_now */
    uint64_t acked;      /* bytes that the peer had acknowledged at the last look */
    bool acked_known;
    uint64_t start_ns;
    curl_socket_t fd;
    bool replied;
    int refused; /* -errno of on_body */
    char error[CURL_ERROR_SIZE];
};

/* A socket that libuv watches. A connection's: from its first use to its close. libcurl takes its
 * wish back after each request and has it again at the next one; what is watched stays the same,
 * which saves seven system calls for each request. Others (libcurl's thread that looks up names
 * tells its end by one) are watched while libcurl wishes it: nobody tells of their close. */
struct watch {
    uv_poll_t poll;
    struct http *http;
    curl_socket_t fd;
    int events;  /* of UV_READABLE, UV_WRITABLE: watched now */
    bool wanted; /* by libcurl: a request uses it */
    bool connection;
    UT_hash_handle hh;
};

struct http {
    /* immutable */
    struct loop *loop;
    struct http_options options;
    char *ca_file, *user_agent;
    struct metric *received, *sent, *connects, *active_gauge, *queued_gauge;
    /* owned by the loop thread */
    CURLM *multi;
    CURLSH *share;
    struct watch *watches; /* by fd */
    struct loop_timer timer, scan;
    bool scanning;
    unsigned active, slot_count;
    unsigned peak;            /* active ones since the last scan */
    struct http_slot **slots; /* all that were made: at most options.connections */
    struct http_slot *idle;
    struct http_request *queue[HTTP_PRIORITIES];
    int init_rc; /* of set_up */
    uv_sem_t closed;
    unsigned closing;
};

static void pump(struct http *http);

/* ---- what libcurl calls ---- */

static uint64_t scan_period_ms(const struct http *http)
{
    return MAX(10u, MIN(1000u, http->options.stall_timeout_ms / 4));
}

static void touch(struct http_slot *slot)
{
    slot->active_ms = uv_now(loop_uv(slot->http->loop));
}

static void moved(struct http_slot *slot)
{
    touch(slot);
    if (slot->request->on_moved)
        slot->request->on_moved(slot->request);
}

static size_t on_read(char *out, size_t size, size_t count, void *arg)
{
    struct http_slot *slot = arg;
    const struct http_request *request = slot->request;
    size_t room = size * count, done = 0;
    while (done < room && slot->iov_index < request->body_count) {
        const struct iovec *iov = &request->body[slot->iov_index];
        size_t len = MIN(room - done, iov->iov_len - slot->iov_offset);
        memcpy(out + done, (const char *)iov->iov_base + slot->iov_offset, len);
        done += len;
        slot->iov_offset += len;
        if (slot->iov_offset == iov->iov_len) {
            slot->iov_index++;
            slot->iov_offset = 0;
        }
    }
    moved(slot);
    metric_add(slot->http->sent, done);
    return done;
}

static size_t on_write(char *data, size_t size, size_t count, void *arg)
{
    struct http_slot *slot = arg;
    struct http_request *request = slot->request;
    size_t len = size * count;
    moved(slot);
    metric_add(slot->http->received, len);
    int rc = request->on_body ? request->on_body(request, data, len) : 0;
    if (rc == 0)
        return len;
    slot->refused = rc;
    return CURL_WRITEFUNC_ERROR;
}

static size_t on_header_line(char *data, size_t size, size_t count, void *arg)
{
    struct http_slot *slot = arg;
    struct http_request *request = slot->request;
    size_t len = size * count;
    moved(slot);
    char line[HEADER_MAX];
    if (len >= sizeof(line)) {
        slot->refused = -E2BIG;
        return 0;
    }
    memcpy(line, data, len);
    while (len > 0 && strchr("\r\n \t", line[len - 1]))
        len--;
    line[len] = '\0';
    if (strncmp(line, "HTTP/", 5) == 0) {
        const char *space = strchr(line, ' ');
        request->status = space ? (int)strtol(space + 1, NULL, 10) : 0;
        /* "100 Continue" and its like are no reply yet. */
        if (!slot->replied && request->status >= 200) {
            slot->replied = true;
            request->first_byte_ns = clock_monotonic_ns() - slot->start_ns;
        }
        return size * count;
    }
    char *colon = strchr(line, ':');
    if (!colon || request->status < 200 || !request->on_header)
        return size * count;
    *colon = '\0';
    char *value = colon + 1;
    value += strspn(value, " \t");
    request->on_header(request, line, value);
    return size * count;
}

/* Called each time before the request goes out. libcurl repeats a request on a new connection if a
 * kept-alive one gave no reply: that is the caller's decision, not its. */
static int on_send(void *arg, char *remote, char *local, int remote_port, int local_port)
{
    struct http_slot *slot = arg;
    touch(slot);
    return slot->sent_count++ == 0 ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

/* ---- sockets and timers ---- */

static void handle_closed(struct http *http)
{
    assert(http->closing > 0);
    if (--http->closing == 0 && !http->multi)
        uv_sem_post(&http->closed);
}

static void on_watch_closed(uv_handle_t *handle)
{
    struct watch *watch = handle->data;
    handle_closed(watch->http);
    free(watch);
}

static struct watch *watch_find(struct http *http, curl_socket_t fd)
{
    struct watch *watch;
    HASH_FIND_INT(http->watches, &fd, watch);
    return watch;
}

static struct watch *watch_new(struct http *http, curl_socket_t fd, bool connection)
{
    struct watch *watch = calloc(1, sizeof(*watch));
    if (!watch || uv_poll_init_socket(loop_uv(http->loop), &watch->poll, fd)) {
        free(watch);
        return NULL;
    }
    watch->poll.data = watch;
    watch->http = http;
    watch->fd = fd;
    watch->connection = connection;
    http->closing++;
    HASH_ADD_INT(http->watches, fd, watch);
    return watch;
}

static void watch_end(struct watch *watch)
{
    HASH_DEL(watch->http->watches, watch);
    uv_poll_stop(&watch->poll);
    uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
}

static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct http *http = arg;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    metric_add(http->connects, 1);
    if (fd >= 0 && !watch_new(http, fd, true)) {
        close(fd);
        return CURL_SOCKET_BAD;
    }
    return fd;
}

/* Every connection of libcurl ends here. */
static int on_close_socket(void *arg, curl_socket_t fd)
{
    struct watch *watch = watch_find(arg, fd);
    if (watch)
        watch_end(watch);
    return close(fd);
}

static void finish(struct http_slot *slot, enum http_end end)
{
    struct http *http = slot->http;
    struct http_request *request = slot->request;
    curl_multi_remove_handle(http->multi, slot->easy);
    curl_slist_free_all(slot->headers);
    slot->headers = NULL;
    slot->request = NULL;
    LL_PREPEND(http->idle, slot);
    http->active--;
    metric_move(http->active_gauge, -1);
    request->slot = NULL;
    request->end = end;
    request->total_ns = clock_monotonic_ns() - slot->start_ns;
    request->done(request);
}

static bool is_fatal(CURLcode code)
{
    switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
        return true;
    default:
        return false;
    }
}

/* The one place where libcurl's results become ours. */
static enum http_end translate(struct http_slot *slot, CURLcode code)
{
    struct http_request *request = slot->request;
    if (code == CURLE_OK)
        return HTTP_OK;
    if (slot->refused)
        return HTTP_REFUSED;
    if (slot->sent_count > 1) {
        snprintf(request->message, sizeof(request->message),
                 "the server closed the connection before it replied");
        return HTTP_LOST;
    }
    snprintf(request->message, sizeof(request->message), "%s",
             slot->error[0] ? slot->error : curl_easy_strerror(code));
    return is_fatal(code) ? HTTP_FATAL : HTTP_FAILED;
}

static void process_done(struct http *http)
{
    int left;
    CURLMsg *message;
    while ((message = curl_multi_info_read(http->multi, &left))) {
        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode code = message->data.result;
        struct http_slot *slot = NULL;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&slot);
        finish(slot, translate(slot, code));
    }
    pump(http);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    struct http *http = watch->http;
    int flags = 0, running;
    if (status < 0)
        watch->events = 0; /* libuv does not watch it any more */
    if (!watch->wanted) {
        /* The server has closed an idle connection: libcurl sees that when it wants to use it. */
        uv_poll_stop(poll);
        watch->events = 0;
        return;
    }
    if (status < 0)
        flags = CURL_CSELECT_ERR;
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    curl_multi_socket_action(http->multi, watch->fd, flags, &running);
    process_done(http);
}

static int watch_set(struct watch *watch, int events)
{
    if (events == watch->events)
        return 0;
    int rc = uv_poll_start(&watch->poll, events, on_poll);
    watch->events = rc ? 0 : events;
    return rc ? -1 : 0;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    struct http *http = arg;
    if (what == CURL_POLL_REMOVE) {
        struct watch *watch = watch_find(http, fd);
        if (!watch)
            return 0;
        watch->wanted = false;
        if (!watch->connection) {
            watch_end(watch);
            return 0;
        }
        /* It can be written to all the time: who watched that would never sleep. */
        return watch_set(watch, watch->events & UV_READABLE);
    }
    struct watch *watch = watch_find(http, fd);
    if (!watch)
        watch = watch_new(http, fd, false);
    if (!watch)
        return -1;
    watch->wanted = true;
    struct http_slot *slot = NULL;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&slot);
    if (slot)
        slot->fd = fd;
    return watch_set(watch, (what & CURL_POLL_IN ? UV_READABLE : 0) |
                                (what & CURL_POLL_OUT ? UV_WRITABLE : 0));
}

static int on_timer_wish(CURLM *multi, long timeout_ms, void *arg)
{
    struct http *http = arg;
    if (timeout_ms < 0)
        loop_timer_stop(&http->timer);
    else
        loop_timer_start(&http->timer, (uint64_t)timeout_ms);
    return 0;
}

static void on_timer(struct loop_timer *timer)
{
    struct http *http = container_of(timer, struct http, timer);
    int running;
    curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    process_done(http);
}

/* The kernel's struct goes on behind what the C library knows of it. */
struct long_tcp_info {
    struct tcp_info info;
    uint64_t pacing_rate, max_pacing_rate, bytes_acked;
};

/* What was given to the kernel may be on its way for long on a slow line: acknowledged bytes count
 * as progress. The first look only notes where the connection is. */
static bool peer_took_bytes(struct http_slot *slot)
{
    struct long_tcp_info info;
    socklen_t len = sizeof(info);
    if (slot->fd == CURL_SOCKET_BAD ||
        getsockopt(slot->fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 || len < sizeof(info))
        return false;
    bool moved = slot->acked_known && info.bytes_acked != slot->acked;
    slot->acked = info.bytes_acked;
    slot->acked_known = true;
    return moved;
}

static bool is_stalled(struct http_slot *slot, uint64_t now, uint64_t stall_ms)
{
    /* Before the request is sent, the connect timeout rules. */
    if (!slot->request || slot->sent_count == 0)
        return false;
    if (slot->request->slow_reply && !slot->replied)
        return false;
    if (now > slot->active_ms && !slot->replied && peer_took_bytes(slot))
        moved(slot);
    return now >= slot->active_ms + stall_ms;
}

/* Handles have buffers: a burst of requests does not keep its memory for ever. What the time since
 * the last look did not need goes. */
static void drop_idle_slots(struct http *http)
{
    unsigned keep = MAX(http->peak, IDLE_SLOTS), kept = 0;
    unsigned drop = http->slot_count > keep ? http->slot_count - keep : 0;
    http->idle = NULL;
    for (unsigned i = 0; i < http->slot_count; i++) {
        struct http_slot *slot = http->slots[i];
        if (!slot->request && drop > 0) {
            curl_easy_cleanup(slot->easy);
            free(slot);
            drop--;
            continue;
        }
        http->slots[kept++] = slot;
        if (!slot->request)
            LL_PREPEND(http->idle, slot);
    }
    http->slot_count = kept;
    http->peak = http->active;
}

static void on_scan(struct loop_timer *timer)
{
    struct http *http = container_of(timer, struct http, scan);
    uint64_t now = uv_now(loop_uv(http->loop));
    for (unsigned i = 0; i < http->slot_count; i++) {
        struct http_slot *slot = http->slots[i];
        if (!is_stalled(slot, now, http->options.stall_timeout_ms))
            continue;
        snprintf(slot->request->message, sizeof(slot->request->message), "no byte moved for %u ms",
                 http->options.stall_timeout_ms);
        finish(slot, HTTP_TIMED_OUT);
    }
    pump(http);
    drop_idle_slots(http);
    http->scanning = http->active > 0 || http->slot_count > IDLE_SLOTS;
    if (http->scanning)
        loop_timer_start(&http->scan, scan_period_ms(http));
}

/* ---- requests ---- */

static struct http_slot *slot_new(struct http *http)
{
    struct http_slot *slot = calloc(1, sizeof(*slot));
    CURL *easy = slot ? curl_easy_init() : NULL;
    if (!easy) {
        free(slot);
        return NULL;
    }
    slot->http = http;
    slot->easy = easy;
    const struct http_options *o = &http->options;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, slot);
    curl_easy_setopt(easy, CURLOPT_SHARE, http->share);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    /* What a proxy says to CONNECT is not the server's reply. */
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, SEND_BUFFER);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)o->connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, slot->http->user_agent);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, slot->error);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(easy, CURLOPT_READDATA, slot);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, slot);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header_line);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, slot);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_send);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, slot);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, http);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, http);
    if (o->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, o->ca_file);
    if (o->no_verify_tls) {
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    http->slots[http->slot_count++] = slot;
    return slot;
}

static struct http_slot *slot_get(struct http *http)
{
    struct http_slot *slot = http->idle;
    if (slot)
        LL_DELETE(http->idle, slot);
    else
        slot = slot_new(http);
    return slot;
}

/* The end of a request that never reached libcurl. */
static void on_refused(struct loop_task *task)
{
    struct http_request *request = container_of(task, struct http_request, task);
    request->end = HTTP_REFUSED;
    request->done(request);
}

static void set_method(CURL *easy, const struct http_request *request)
{
    bool plain = strcmp(request->method, "GET") == 0;
    curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L); /* clears what the last request set */
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, NULL);
    if (strcmp(request->method, "HEAD") == 0) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else if (strcmp(request->method, "PUT") == 0 || strcmp(request->method, "POST") == 0) {
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->body_len);
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
    } else if (!plain) {
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
    }
}

static void begin(struct http *http, struct http_request *request)
{
    uint64_t now_ns = clock_monotonic_ns();
    request->queue_ns = now_ns - request->submit_ns;
    request->starting = true;
    request->task.run = on_refused;
    struct http_slot *slot = NULL;
    if (request->start(request) || !(slot = slot_get(http))) {
        curl_slist_free_all(TAKE_PTR(request->headers));
        loop_post(http->loop, &request->task);
        return;
    }
    request->starting = false;
    request->slot = slot;
    slot->request = request;
    slot->iov_index = 0;
    slot->iov_offset = 0;
    slot->sent_count = 0;
    slot->acked_known = false;
    slot->replied = false;
    slot->refused = 0;
    slot->fd = CURL_SOCKET_BAD;
    slot->error[0] = '\0';
    slot->start_ns = now_ns;
    touch(slot);
    /* Without the wait for "100 Continue": a body that is refused costs less than a round trip for
     * each that is not. */
    slot->headers = curl_slist_append(TAKE_PTR(request->headers), "Expect:");
    set_method(slot->easy, request);
    curl_easy_setopt(slot->easy, CURLOPT_URL, request->url);
    curl_easy_setopt(slot->easy, CURLOPT_HTTPHEADER, slot->headers);
    http->active++;
    http->peak = MAX(http->peak, http->active);
    metric_move(http->active_gauge, 1);
    curl_multi_add_handle(http->multi, slot->easy);
    if (!http->scanning) {
        http->scanning = true;
        loop_timer_start(&http->scan, scan_period_ms(http));
    }
}

/* Some connections are kept for those that somebody waits for. */
static unsigned limit_for(const struct http *http, unsigned priority)
{
    unsigned limit = http->options.connections;
    return priority == 0 ? limit : priority == 1 ? limit - limit / 16 : limit - limit / 4;
}

static void pump(struct http *http)
{
    for (unsigned p = 0; p < HTTP_PRIORITIES; p++) {
        while (http->queue[p] && http->active < limit_for(http, p)) {
            struct http_request *request = http->queue[p];
            DL_DELETE(http->queue[p], request);
            request->queued = false;
            metric_move(http->queued_gauge, -1);
            begin(http, request);
        }
    }
}

void http_submit(struct http *http, struct http_request *request)
{
    assert(loop_on_thread(http->loop));
    request->http = http;
    request->slot = NULL;
    request->end = HTTP_OK;
    request->status = 0;
    request->message[0] = '\0';
    request->queue_ns = request->first_byte_ns = request->total_ns = 0;
    request->queued = request->starting = false;
    request->submit_ns = clock_monotonic_ns();
    unsigned priority = MIN(request->priority, HTTP_PRIORITIES - 1u);
    request->priority = priority;
    if (!http->queue[priority] && http->active < limit_for(http, priority)) {
        begin(http, request);
        return;
    }
    request->queued = true;
    DL_APPEND(http->queue[priority], request);
    metric_move(http->queued_gauge, 1);
}

void http_cancel(struct http_request *request)
{
    struct http *http = request->http;
    if (request->queued) {
        DL_DELETE(http->queue[request->priority], request);
        request->queued = false;
        metric_move(http->queued_gauge, -1);
        request->end = HTTP_CANCELLED;
        request->done(request);
    } else if (request->slot) {
        finish(request->slot, HTTP_CANCELLED);
        pump(http);
    }
    /* else it is about to end by on_refused */
}

/* ---- life ---- */

struct set_up_call {
    struct http *http;
    struct error *error;
};

static int set_up_rc(struct http *http, struct error *error)
{
    http->multi = curl_multi_init();
    http->share = curl_share_init();
    http->slots = calloc(http->options.connections, sizeof(struct http_slot *));
    if (!http->multi || !http->share || !http->slots)
        return error_set(error, -ENOMEM, "no memory for HTTP connections");
    curl_share_setopt(http->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
    curl_share_setopt(http->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timer_wish);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
    curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, (long)http->options.connections);
    return 0;
}

static void set_up(void *arg)
{
    struct set_up_call *call = arg;
    struct http *http = call->http;
    loop_timer_init(http->loop, &http->timer, on_timer);
    loop_timer_init(http->loop, &http->scan, on_scan);
    http->closing += 2;
    http->init_rc = set_up_rc(http, call->error);
}

static void on_timer_closed(struct loop_timer *timer)
{
    handle_closed(container_of(timer, struct http, timer));
}

static void on_scan_closed(struct loop_timer *timer)
{
    handle_closed(container_of(timer, struct http, scan));
}

static void tear_down(void *arg)
{
    struct http *http = arg;
    assert(http->active == 0);
    for (unsigned i = 0; i < http->slot_count; i++) {
        curl_easy_cleanup(http->slots[i]->easy);
        free(http->slots[i]);
    }
    if (http->multi)
        curl_multi_cleanup(TAKE_PTR(http->multi));
    if (http->share)
        curl_share_cleanup(http->share);
    loop_timer_close(&http->timer, on_timer_closed);
    loop_timer_close(&http->scan, on_scan_closed);
}

int http_new(struct http **out, struct loop *loop, const struct http_options *options,
             struct metrics *metrics, struct error *error)
{
    if (options->ca_file && access(options->ca_file, R_OK) < 0)
        return error_set(error, -errno, "cannot read the CA file %s", options->ca_file);
    if (curl_global_init(CURL_GLOBAL_DEFAULT))
        return error_set(error, -ENOMEM, "libcurl does not start");
    struct http *http = calloc(1, sizeof(*http));
    if (!http)
        return error_set(error, -ENOMEM, "no memory for HTTP connections");
    http->loop = loop;
    http->options = *options;
    http->options.connections = MAX(1u, options->connections);
    if (options->ca_file)
        http->options.ca_file = http->ca_file = strdup(options->ca_file);
    if (asprintf(&http->user_agent, "sluice/" SLUICE_VERSION "%s%s%s", options->client ? " (" : "",
                 options->client ? options->client : "", options->client ? ")" : "") < 0)
        http->user_agent = NULL; /* then none is sent */
    http->options.client = NULL;
    http->received = metrics_counter(metrics, "sluice_http_received_bytes_total", "",
                                     "Bytes of HTTP bodies that came from the object store.");
    http->sent = metrics_counter(metrics, "sluice_http_sent_bytes_total", "",
                                 "Bytes of HTTP bodies that went to the object store.");
    http->connects = metrics_counter(metrics, "sluice_http_connects_total", "",
                                     "Connections that were opened to the object store.");
    http->active_gauge = metrics_gauge(metrics, "sluice_http_active_requests", "",
                                       "HTTP requests that have a connection.");
    http->queued_gauge = metrics_gauge(metrics, "sluice_http_queued_requests", "",
                                       "HTTP requests that wait for a connection.");
    uv_sem_init(&http->closed, 0);
    struct set_up_call call = {http, error};
    loop_call(loop, set_up, &call);
    if (http->init_rc) {
        int rc = http->init_rc;
        http_free(http);
        return rc;
    }
    *out = http;
    return 0;
}

void http_free(struct http *http)
{
    if (!http)
        return;
    loop_call(http->loop, tear_down, http);
    uv_sem_wait(&http->closed);
    uv_sem_destroy(&http->closed);
    free(http->slots);
    free(http->ca_file);
    free(http->user_agent);
    free(http);
}
