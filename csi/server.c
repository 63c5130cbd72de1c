#include "server.h"

#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/pool.h"
#include "scrape.h"
#include "wire.h"

#define SHUTDOWN_GRACE_MS 500 /* for calls in work, before they are cancelled */

/* A tag of the completion queue: which step of which call has come to its end. */
struct step {
    void (*done)(struct step *step, bool ok);
    struct rpc *rpc;
};

/* One of the fixed number of calls. Owned by the queue's thread, but while `task` is in the pool:
 * then `call`, `payload` and `method` are the handler's. */
struct rpc {
    struct server *server;
    struct step arrived, received, sent, closed;
    grpc_call *handle;
    grpc_call_details details;
    grpc_metadata_array metadata;
    grpc_byte_buffer *payload, *answer;
    const struct csi_method *method;
    struct csi_call call;
    struct pool_task task;
    int was_cancelled;
    unsigned steps_open; /* of sent and closed */
};

struct server {
    struct server_config config;
    grpc_server *handle;
    grpc_completion_queue *queue;
    struct pool *pool;
    pthread_t thread;
    struct step stopped;
    _Atomic bool stop_done;
    struct rpc *rpcs;
    unsigned bound;
};

static void rpc_request(struct rpc *rpc);

static void rpc_finish_step(struct rpc *rpc)
{
    if (--rpc->steps_open)
        return;
    grpc_byte_buffer_destroy(rpc->answer);
    grpc_byte_buffer_destroy(rpc->payload);
    rpc->answer = rpc->payload = NULL;
    grpc_metadata_array_destroy(&rpc->metadata);
    grpc_call_details_destroy(&rpc->details);
    grpc_call_unref(rpc->handle);
    rpc->handle = NULL;
    csi_call_done(&rpc->call);
    rpc_request(rpc);
}

static void rpc_closed(struct step *step, bool ok)
{
    (void)ok;
    if (step->rpc->was_cancelled)
        atomic_store(&step->rpc->call.cancelled, true);
    rpc_finish_step(step->rpc);
}

static void rpc_sent(struct step *step, bool ok)
{
    (void)ok;
    rpc_finish_step(step->rpc);
}

/* Ends the call: the packed reply with CSI_OK, the sentence otherwise. */
static void rpc_answer(struct rpc *rpc, int code)
{
    grpc_op ops[3] = {0};
    unsigned count = 0;
    ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
    if (code == CSI_OK) {
        grpc_slice slice =
            grpc_slice_from_copied_buffer((const char *)rpc->call.reply.data, rpc->call.reply.len);
        rpc->answer = grpc_raw_byte_buffer_create(&slice, 1);
        grpc_slice_unref(slice);
        ops[count].op = GRPC_OP_SEND_MESSAGE;
        ops[count++].data.send_message.send_message = rpc->answer;
    }
    grpc_slice details = grpc_slice_from_copied_string(code == CSI_OK ? "" : rpc->call.message);
    ops[count].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    ops[count].data.send_status_from_server.status = (grpc_status_code)code;
    ops[count++].data.send_status_from_server.status_details = &details;
    grpc_call_error r = grpc_call_start_batch(rpc->handle, ops, count, &rpc->sent, NULL);
    grpc_slice_unref(details);
    if (r != GRPC_CALL_OK) {
        log_error("cannot answer", "error=\"%s\"", grpc_call_error_to_string(r));
        abort(); /* a wrong use of the library: the call could never end */
    }
}

static int run_handler(struct rpc *rpc, const ProtobufCMessage **request,
                       struct wire_message *message)
{
    struct csi_call *call = &rpc->call;
    struct error error = {0};
    grpc_byte_buffer_reader reader;
    const ProtobufCMethodDescriptor *type =
        protobuf_c_service_descriptor_get_method_by_name(rpc->method->service, rpc->method->name);
    if (rpc->payload->type != GRPC_BB_RAW ||
        rpc->payload->data.raw.compression != GRPC_COMPRESS_NONE)
        return csi_fail(call, CSI_UNIMPLEMENTED, "compressed messages are not accepted");
    if (!grpc_byte_buffer_reader_init(&reader, rpc->payload))
        return csi_fail(call, CSI_INTERNAL, "out of memory");
    grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    int r = wire_decode(type->input, GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice), message,
                        &error);
    grpc_slice_unref(slice);
    if (r < 0)
        return csi_fail(call, CSI_INVALID_ARGUMENT, "%s", error_text(&error));
    *request = message->message;
    if (!csi_time_left_ms(call))
        return csi_fail_late(call, "it waited for others");
    return rpc->method->run(rpc->server->config.csi, call, message->message);
}

/* One line for each call; secrets are in no field that is printed. */
static void log_call(const struct rpc *rpc, const ProtobufCMessage *request, int code,
                     uint64_t began_ms)
{
    char volume[300], path[600], text[700];
    const char *id = request ? wire_string(request, "volume_id") : NULL;
    const char *target = request ? wire_string(request, "target_path") : NULL;
    if (request && !target)
        target = wire_string(request, "staging_target_path");
    if (!id && request)
        id = wire_string(request, "name");
    bool quiet = code == CSI_OK && (!id || !*id);
    log_write(code != CSI_OK ? LOG_WARN
              : quiet        ? LOG_DEBUG
                             : LOG_INFO,
              "call", "method=%s code=%s volume=%s path=%s ms=%lu text=%s", rpc->method->name,
              csi_code_name(code), log_quote(id ? id : "", volume, sizeof(volume)),
              log_quote(target ? target : "", path, sizeof(path)),
              (unsigned long)(clock_monotonic_ms() - began_ms),
              log_quote(code == CSI_OK ? "" : rpc->call.message, text, sizeof(text)));
}

static void rpc_run(struct pool_task *task)
{
    struct rpc *rpc = container_of(task, struct rpc, task);
    struct wire_message message = {0};
    const ProtobufCMessage *request = NULL;
    uint64_t began_ms = clock_monotonic_ms();
    int code = run_handler(rpc, &request, &message);
    log_call(rpc, request, code, began_ms);
    scrape_note_call(rpc->server->config.scrape, rpc->method->name, csi_code_name(code),
                     clock_monotonic_ms() - began_ms);
    wire_message_done(&message);
    rpc_answer(rpc, code);
}

static void rpc_received(struct step *step, bool ok)
{
    struct rpc *rpc = step->rpc;
    if (!ok || !rpc->payload) {
        rpc_answer(rpc, csi_fail(&rpc->call, CSI_INTERNAL, "there was no request in the call"));
        return;
    }
    rpc->task.run = rpc_run;
    pool_submit(rpc->server->pool, &rpc->task);
}

static const struct csi_method *find_method(const struct server *server, grpc_slice path)
{
    char name[200], wanted[200];
    size_t len = GRPC_SLICE_LENGTH(path);
    if (len >= sizeof(wanted))
        return NULL;
    memcpy(wanted, GRPC_SLICE_START_PTR(path), len);
    wanted[len] = 0;
    for (unsigned i = 0; i < server->config.method_count; i++) {
        const struct csi_method *m = &server->config.methods[i];
        snprintf(name, sizeof(name), "/%s/%s", m->service->name, m->name);
        if (strcmp(name, wanted) == 0)
            return m;
    }
    return NULL;
}

static uint64_t deadline_of(const struct rpc *rpc)
{
    uint64_t now = clock_monotonic_ms();
    gpr_timespec left =
        gpr_time_sub(gpr_convert_clock_type(rpc->details.deadline, GPR_CLOCK_REALTIME),
                     gpr_now(GPR_CLOCK_REALTIME));
    int32_t ms = gpr_time_to_millis(left);
    if (ms < 0)
        ms = 0;
    return now + MIN((uint32_t)ms, rpc->server->config.default_timeout_ms);
}

static void rpc_arrived(struct step *step, bool ok)
{
    struct rpc *rpc = step->rpc;
    if (!ok) { /* the server stops: this call never was */
        grpc_metadata_array_destroy(&rpc->metadata);
        grpc_call_details_destroy(&rpc->details);
        return;
    }
    csi_call_init(&rpc->call, deadline_of(rpc));
    rpc->steps_open = 2;
    rpc->method = find_method(rpc->server, rpc->details.method);
    grpc_op close = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    close.data.recv_close_on_server.cancelled = &rpc->was_cancelled;
    grpc_op receive = {.op = GRPC_OP_RECV_MESSAGE};
    receive.data.recv_message.recv_message = &rpc->payload;
    if (grpc_call_start_batch(rpc->handle, &close, 1, &rpc->closed, NULL) != GRPC_CALL_OK)
        abort(); /* a wrong use of the library */
    if (!rpc->method)
        rpc_answer(rpc, csi_fail(&rpc->call, CSI_UNIMPLEMENTED, "there is no such method here"));
    else if (grpc_call_start_batch(rpc->handle, &receive, 1, &rpc->received, NULL) != GRPC_CALL_OK)
        abort();
}

/* Makes the slot wait for the next call. When the server stops that comes back at once, not ok. */
static void rpc_request(struct rpc *rpc)
{
    grpc_call_details_init(&rpc->details);
    grpc_metadata_array_init(&rpc->metadata);
    rpc->was_cancelled = 0;
    grpc_call_error r =
        grpc_server_request_call(rpc->server->handle, &rpc->handle, &rpc->details, &rpc->metadata,
                                 rpc->server->queue, rpc->server->queue, &rpc->arrived);
    if (r != GRPC_CALL_OK) {
        grpc_metadata_array_destroy(&rpc->metadata);
        grpc_call_details_destroy(&rpc->details);
    }
}

static void stop_finished(struct step *step, bool ok)
{
    (void)ok;
    struct server *server = container_of(step, struct server, stopped);
    atomic_store(&server->stop_done, true);
}

static void *serve(void *arg)
{
    struct server *server = arg;
    for (;;) {
        grpc_event event =
            grpc_completion_queue_next(server->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (event.type == GRPC_OP_COMPLETE) {
            struct step *step = event.tag;
            step->done(step, event.success);
        }
    }
}

/* A socket that a dead server left is in the way; anything else there is not ours. */
static int clear_socket(const char *path, struct error *error)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : error_set(error, -errno, "%s: %s", path, strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return error_set(error, -EEXIST, "%s is there and is not a socket", path);
    return unlink(path) < 0 ? error_set(error, -errno, "%s: %s", path, strerror(errno)) : 0;
}

static int bind_sockets(struct server *server, struct error *error)
{
    for (unsigned i = 0; i < server->config.socket_count; i++) {
        char address[200];
        const char *path = server->config.sockets[i];
        int r = clear_socket(path, error);
        if (r < 0)
            return r;
        snprintf(address, sizeof(address), "unix:%s", path);
        grpc_server_credentials *open = grpc_insecure_server_credentials_create();
        int bound = grpc_server_add_http2_port(server->handle, address, open);
        grpc_server_credentials_release(open);
        if (!bound)
            return error_set(error, -EADDRNOTAVAIL,
                             "cannot listen on %s: is its directory there, and may it be written?",
                             path);
        chmod(path, 0600);
        server->bound++;
    }
    return 0;
}

static int start(struct server *server, struct error *error)
{
    grpc_arg args[] = {
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
         .value.integer = WIRE_MESSAGE_MAX},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)GRPC_ARG_MAX_CONCURRENT_STREAMS,
         .value.integer = 100},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION,
         .value.integer = 0},
    };
    grpc_channel_args list = {ARRAY_LEN(args), args};
    server->handle = grpc_server_create(&list, NULL);
    server->queue = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(server->handle, server->queue, NULL);
    int r = bind_sockets(server, error);
    if (r < 0)
        return r;
    r = pool_new(&server->pool, "csi", server->config.threads);
    server->rpcs = calloc(server->config.calls, sizeof(*server->rpcs));
    if (r < 0 || !server->rpcs)
        return error_set(error, -ENOMEM, "cannot start the server's threads");
    grpc_server_start(server->handle);
    for (unsigned i = 0; i < server->config.calls; i++) {
        struct rpc *rpc = &server->rpcs[i];
        rpc->server = server;
        rpc->arrived = (struct step){rpc_arrived, rpc};
        rpc->received = (struct step){rpc_received, rpc};
        rpc->sent = (struct step){rpc_sent, rpc};
        rpc->closed = (struct step){rpc_closed, rpc};
        rpc_request(rpc);
    }
    r = -pthread_create(&server->thread, NULL, serve, server);
    if (r < 0)
        return error_set(error, r, "cannot start the server's thread");
    return 0;
}

static void stop(struct server *server)
{
    server->stopped = (struct step){stop_finished, NULL};
    grpc_server_shutdown_and_notify(server->handle, server->queue, &server->stopped);
    for (unsigned waited = 0; !atomic_load(&server->stop_done); waited += 10) {
        if (waited == SHUTDOWN_GRACE_MS)
            grpc_server_cancel_all_calls(server->handle);
        usleep(10000);
    }
    grpc_completion_queue_shutdown(server->queue);
    pthread_join(server->thread, NULL);
}

int server_start(const struct server_config *config, struct server **out, struct error *error)
{
    struct server *server = calloc(1, sizeof(*server));
    if (!server)
        return error_set(error, -ENOMEM, "out of memory");
    server->config = *config;
    /* Errors are told by who calls; the library's own lines only if they were asked for. */
    setenv("GRPC_VERBOSITY", "NONE", 0);
    grpc_init();
    int r = start(server, error);
    if (r == 0) {
        *out = server;
        return 0;
    }
    /* Nothing was served yet: the library is left as it is, the program ends. */
    pool_free(server->pool);
    free(server->rpcs);
    free(server);
    return r;
}

void server_free(struct server *server)
{
    if (!server)
        return;
    stop(server);
    pool_free(server->pool);
    grpc_server_destroy(server->handle);
    grpc_completion_queue_destroy(server->queue);
    for (unsigned i = 0; i < server->bound; i++)
        unlink(server->config.sockets[i]);
    free(server->rpcs);
    free(server);
    grpc_shutdown();
}
