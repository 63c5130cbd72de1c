/*
 * One store request from the command line: for tests written in python, and to look at a store by
 * hand. The store is opened as a mount opens it, by URL and the AWS_* environment.
 *
 *   store_tool [OPTION…] URL put KEY [FILE]        body from FILE or standard input; prints the
 * ETag store_tool [OPTION…] URL get KEY [OFF LEN]     to standard output store_tool [OPTION…] URL
 * head|rm KEY store_tool [OPTION…] URL list [PREFIX [DELIMITER]] store_tool [OPTION…] URL parts KEY
 * PARTS BYTES multipart upload of a pattern store_tool [OPTION…] URL probe Options: --if-match=ETAG
 * --if-none-match --meta=NAME=VALUE --deadline-ms=N --stall-ms=N
 *   --hedge-ms=N --connections=N --anonymous --region=R --ca-file=PATH --path-style=0|1
 *   --storage-class=C --sse=KIND --sse-key=KEY --request-payer
 * Exit status: 0, or the errno of the failure, with its message on standard error.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "s3/open.h"

#define BODY_MAX (256u << 20)
#define META_COUNT_MAX 16

struct tool {
    struct store_options options;
    const char *if_match;
    bool if_none_match;
    struct store_meta meta[META_COUNT_MAX];
    unsigned meta_count;
    struct store *store;
};

static int fail(const struct store_op *op)
{
    fprintf(stderr, "%s\n", error_text(&op->error));
    return -op->result;
}

static char *read_all(FILE *file, size_t *len)
{
    char *data = malloc(BODY_MAX);
    if (data)
        *len = fread(data, 1, BODY_MAX, file);
    return data;
}

static int do_put(struct tool *tool, int argc, char **argv)
{
    FILE *file = argc > 1 ? fopen(argv[1], "re") : stdin;
    struct iovec body = {0};
    body.iov_base = file ? read_all(file, &body.iov_len) : NULL;
    if (!body.iov_base)
        return errno;
    struct store_op op = {
        .kind = STORE_PUT,
        .key = argv[0],
        .iov = &body,
        .iov_count = 1,
        .meta = tool->meta,
        .meta_count = tool->meta_count,
        .if_match = tool->if_match,
        .if_none_match = tool->if_none_match,
    };
    int rc = store_wait(tool->store, &op) ? fail(&op) : 0;
    if (rc == 0)
        printf("%s\n", op.info.etag);
    store_op_reset(&op);
    free(body.iov_base);
    return rc;
}

static int do_get(struct tool *tool, int argc, char **argv)
{
    size_t len = argc > 2 ? strtoull(argv[2], NULL, 10) : BODY_MAX;
    void *buf = malloc(len + 1);
    if (!buf)
        return ENOMEM;
    struct store_op op = {
        .kind = STORE_GET,
        .key = argv[0],
        .offset = argc > 1 ? strtoull(argv[1], NULL, 10) : 0,
        .length = len,
        .buf = buf,
        .buf_len = len,
        .if_match = tool->if_match,
    };
    int rc = store_wait(tool->store, &op) ? fail(&op) : 0;
    if (rc == 0)
        fwrite(buf, 1, op.got, stdout);
    store_op_reset(&op);
    free(buf);
    return rc;
}

static int do_head(struct tool *tool, int argc, char **argv)
{
    struct store_op op = {.kind = STORE_HEAD, .key = argv[0], .if_match = tool->if_match};
    int rc = store_wait(tool->store, &op) ? fail(&op) : 0;
    if (rc == 0) {
        printf("size %llu\netag %s\nclass %s\nmtime_ns %llu\n", (unsigned long long)op.info.size,
               op.info.etag, op.info.storage_class, (unsigned long long)op.info.mtime_ns);
        for (unsigned i = 0; i < op.out_meta_count; i++)
            printf("meta %s %s\n", op.out_meta[i].name, op.out_meta[i].value);
    }
    store_op_reset(&op);
    return rc;
}

static int do_rm(struct tool *tool, int argc, char **argv)
{
    struct store_op op = {.kind = STORE_DELETE, .key = argv[0], .if_match = tool->if_match};
    if (argc > 1)
        op = (struct store_op){.kind = STORE_DELETE_MANY,
                               .keys = (const char *const *)argv,
                               .key_count = (unsigned)argc};
    int rc = store_wait(tool->store, &op) ? fail(&op) : 0;
    for (size_t i = 0; i < op.out_list.count; i++)
        printf("%s: %s\n", op.out_list.entries[i].name, strerror((int)op.out_list.entries[i].size));
    store_op_reset(&op);
    return rc;
}

static int do_list(struct tool *tool, int argc, char **argv)
{
    char *token = NULL;
    int rc = 0;
    do {
        struct store_op op = {
            .kind = STORE_LIST,
            .prefix = argc > 0 ? argv[0] : NULL,
            .delimiter = argc > 1 ? argv[1] : NULL,
            .token = token,
        };
        rc = store_wait(tool->store, &op) ? fail(&op) : 0;
        for (size_t i = 0; rc == 0 && i < op.out_list.count; i++) {
            const struct store_entry *e = &op.out_list.entries[i];
            printf("%s %llu %s\n", e->is_prefix ? "prefix" : "key", (unsigned long long)e->size,
                   e->name);
        }
        free(token);
        token = rc == 0 && op.out_list.next_token ? strdup(op.out_list.next_token) : NULL;
        store_op_reset(&op);
    } while (token);
    return rc;
}

static int send_parts(struct tool *tool, struct store_op *create, struct iovec *body,
                      struct store_part *parts, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        memset(body->iov_base, 'a' + (int)(i % 26), body->iov_len);
        struct store_op op = {
            .kind = STORE_MPU_PART,
            .key = create->key,
            .upload_id = create->out_upload_id,
            .part_number = i + 1,
            .iov = body,
            .iov_count = 1,
        };
        int rc = store_wait(tool->store, &op) ? fail(&op) : 0;
        parts[i] = op.out_part;
        store_op_reset(&op);
        if (rc)
            return rc;
    }
    struct store_op op = {
        .kind = STORE_MPU_COMPLETE,
        .key = create->key,
        .upload_id = create->out_upload_id,
        .parts = parts,
        .part_count = count,
        .meta = tool->meta,
        .meta_count = tool->meta_count,
        .if_match = tool->if_match,
        .if_none_match = tool->if_none_match,
    };
    int rc = store_wait(tool->store, &op) ? fail(&op) : 0;
    if (rc == 0)
        printf("%s\n", op.info.etag);
    store_op_reset(&op);
    return rc;
}

static int do_parts(struct tool *tool, int argc, char **argv)
{
    unsigned count = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 2;
    struct iovec body = {.iov_len = argc > 2 ? strtoull(argv[2], NULL, 10) : 5u << 20};
    body.iov_base = malloc(body.iov_len + 1);
    struct store_part *parts = calloc(count + 1, sizeof(*parts));
    struct store_op op = {
        .kind = STORE_MPU_CREATE,
        .key = argv[0],
        .meta = tool->meta,
        .meta_count = tool->meta_count,
    };
    int rc = ENOMEM;
    if (body.iov_base && parts)
        rc = store_wait(tool->store, &op) ? fail(&op) : 0;
    if (rc == 0)
        rc = send_parts(tool, &op, &body, parts, count);
    store_op_reset(&op);
    free(body.iov_base);
    free(parts);
    return rc;
}

static void print_finding(void *arg, const char *what, bool good, const char *text)
{
    printf("%s %s %s\n", what, good ? "good" : "bad", text);
}

static int do_probe(struct tool *tool, int argc, char **argv)
{
    struct error error = {0};
    int rc = store_probe(tool->store, argc > 0 ? argv[0] : "", print_finding, NULL, &error);
    if (rc)
        fprintf(stderr, "%s\n", error_text(&error));
    return -rc;
}

static const struct {
    const char *name;
    int arguments;
    int (*run)(struct tool *tool, int argc, char **argv);
} commands[] = {
    {"put", 1, do_put},   {"get", 1, do_get},     {"head", 1, do_head},   {"rm", 1, do_rm},
    {"list", 0, do_list}, {"parts", 1, do_parts}, {"probe", 0, do_probe},
};

static const char *value_of(const char *argument, const char *name)
{
    size_t len = strlen(name);
    return strncmp(argument, name, len) == 0 && argument[len] == '=' ? argument + len + 1 : NULL;
}

static bool take_option(struct tool *tool, char *argument)
{
    const char *v;
    struct store_options *o = &tool->options;
    if ((v = value_of(argument, "--if-match")))
        tool->if_match = v;
    else if (strcmp(argument, "--if-none-match") == 0)
        tool->if_none_match = true;
    else if (strcmp(argument, "--anonymous") == 0)
        o->anonymous = true;
    else if ((v = value_of(argument, "--deadline-ms")))
        o->deadline_ms = (uint32_t)strtoul(v, NULL, 10);
    else if ((v = value_of(argument, "--stall-ms")))
        o->stall_timeout_ms = (uint32_t)strtoul(v, NULL, 10);
    else if ((v = value_of(argument, "--hedge-ms")))
        o->hedge_after_ms = (uint32_t)strtoul(v, NULL, 10);
    else if ((v = value_of(argument, "--connections")))
        o->connections = (unsigned)strtoul(v, NULL, 10);
    else if ((v = value_of(argument, "--region")))
        o->region = v;
    else if ((v = value_of(argument, "--ca-file")))
        o->ca_file = v;
    else if ((v = value_of(argument, "--storage-class")))
        o->storage_class = v;
    else if ((v = value_of(argument, "--sse")))
        o->sse = v;
    else if ((v = value_of(argument, "--sse-key")))
        o->sse_key = v;
    else if (strcmp(argument, "--request-payer") == 0)
        o->request_payer = true;
    else if ((v = value_of(argument, "--path-style")))
        o->path_style = (int)strtol(v, NULL, 10);
    else if ((v = value_of(argument, "--meta")) && strchr(v, '=') &&
             tool->meta_count < META_COUNT_MAX) {
        char *equals = strchr(argument + strlen("--meta="), '=');
        *equals = '\0';
        tool->meta[tool->meta_count++] = (struct store_meta){v, equals + 1};
    } else {
        return false;
    }
    return true;
}

static int run_command(struct tool *tool, int argc, char **argv)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        if (strcmp(commands[i].name, argv[0]) == 0 && argc - 1 >= commands[i].arguments)
            return commands[i].run(tool, argc - 1, argv + 1);
    }
    fprintf(stderr, "store_tool: unknown command, or an argument is missing: %s\n", argv[0]);
    return EINVAL;
}

int main(int argc, char **argv)
{
    struct tool tool = {0};
    store_options_init(&tool.options);
    int i = 1;
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        if (!take_option(&tool, argv[i])) {
            fprintf(stderr, "store_tool: unknown option %s\n", argv[i]);
            return EINVAL;
        }
    }
    if (argc - i < 2) {
        fprintf(stderr, "usage: store_tool [OPTION...] URL COMMAND [ARGUMENT...]\n");
        return EINVAL;
    }
    struct error error = {0};
    struct store_url url = {{0}};
    struct loop *loop = NULL;
    int rc = store_url_parse(argv[i], &url, &error);
    if (rc == 0)
        rc = loop_new(&loop, "store");
    if (rc == 0)
        rc = store_open(&url, &tool.options, loop, NULL, &tool.store, &error);
    if (rc)
        fprintf(stderr, "%s\n", error_text(&error));
    else
        rc = -run_command(&tool, argc - i - 1, argv + i + 1);
    store_free(tool.store);
    loop_free(loop);
    store_url_done(&url);
    return -rc;
}
