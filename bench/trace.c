/* The format of traces: one JSON object on a line, the first one says what it is. */
#include "bench/trace.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"

#define EVENTS_MAX 50000000u
#define NUMBER_MAX 1000000u /* of threads and of handles */

static const char *const op_names[TRACE_OP_COUNT] = {
    "stat",  "readlink", "list",     "mkdir",  "rmdir", "unlink", "rename", "link",  "symlink",
    "chmod", "utimes",   "truncate", "create", "open",  "read",   "write",  "fsync", "close"};

const char *trace_op_name(enum trace_op op)
{
    return op_names[op];
}

static bool has_handle(enum trace_op op)
{
    return op >= TRACE_CREATE;
}

static bool has_path(enum trace_op op)
{
    return op <= TRACE_OPEN;
}

static bool has_two_names(enum trace_op op)
{
    return op == TRACE_RENAME || op == TRACE_LINK || op == TRACE_SYMLINK;
}

/* Printable ASCII stays, all else (and what JSON or this escape use) is %XX: names are bytes, JSON
 * is not. */
static void put_name(FILE *to, const char *key, const char *name)
{
    fprintf(to, ",\"%s\":\"", key);
    for (const unsigned char *c = (const unsigned char *)name; *c; c++) {
        if (*c > ' ' && *c < 0x7f && *c != '"' && *c != '\\' && *c != '%')
            putc(*c, to);
        else
            fprintf(to, "%%%02X", *c);
    }
    putc('"', to);
}

int trace_write_head(FILE *to, const char *directory)
{
    fprintf(to, "{\"schema\":\"%s\",\"when\":%lld", TRACE_SCHEMA, (long long)time(NULL));
    put_name(to, "directory", directory);
    fputs("}\n", to);
    return ferror(to) ? -EIO : 0;
}

int trace_write(FILE *to, const struct trace_event *e)
{
    fprintf(to, "{\"op\":\"%s\",\"start_ns\":%llu,\"took_ns\":%llu,\"thread\":%u", op_names[e->op],
            (unsigned long long)e->start_ns, (unsigned long long)e->took_ns, e->thread);
    if (has_handle(e->op) && e->handle)
        fprintf(to, ",\"handle\":%u", e->handle);
    if (has_path(e->op))
        put_name(to, "path", e->path);
    if (e->to)
        put_name(to, "to", e->to);
    if (e->offset)
        fprintf(to, ",\"offset\":%llu", (unsigned long long)e->offset);
    if (e->len)
        fprintf(to, ",\"len\":%llu", (unsigned long long)e->len);
    if (e->flags)
        fprintf(to, ",\"flags\":%d", e->flags);
    if (e->mode)
        fprintf(to, ",\"mode\":%u", e->mode);
    fprintf(to, ",\"result\":%d}\n", e->result);
    return ferror(to) ? -EIO : 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Takes the escapes away. -EINVAL for a bad escape, a NUL or too much. */
static int get_name(const char *text, char *out)
{
    size_t len = 0;
    for (; *text; text++) {
        int c = (unsigned char)*text;
        if (c == '%') {
            int high = hex_value(text[1]), low = high < 0 ? -1 : hex_value(text[2]);
            if (low < 0)
                return -EINVAL;
            c = high * 16 + low;
            text += 2;
        }
        if (c == 0 || len == TRACE_PATH_MAX)
            return -EINVAL;
        out[len++] = (char)c;
    }
    out[len] = 0;
    return 0;
}

/* No empty names, no "." and "..": a trace must not reach outside of the replay's directory. */
static bool stays_inside(const char *path)
{
    if (!*path)
        return true;
    for (const char *at = path;; at++) {
        size_t len = strcspn(at, "/");
        if (len == 0 || len > 255 || (len == 1 && at[0] == '.') ||
            (len == 2 && at[0] == '.' && at[1] == '.'))
            return false;
        at += len;
        if (!*at)
            return true;
    }
}

static int get_number(json_t *object, const char *key, uint64_t max, uint64_t *out,
                      struct error *error)
{
    json_t *value = json_object_get(object, key);
    *out = 0;
    if (!value)
        return 0;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) > max)
        return error_set(error, -EINVAL, "\"%s\" is no number from 0 to %llu", key,
                         (unsigned long long)max);
    *out = (uint64_t)json_integer_value(value);
    return 0;
}

static int get_text(json_t *object, const char *key, bool inside, char *room, struct error *error)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text)
        return error_set(error, -EINVAL, "\"%s\" is missing", key);
    if (get_name(text, room) < 0 || (inside && !stays_inside(room)))
        return error_set(error, -EINVAL, "\"%s\" is no name below the directory", key);
    return 0;
}

static int get_op(json_t *object, enum trace_op *out, struct error *error)
{
    const char *name = json_string_value(json_object_get(object, "op"));
    for (unsigned i = 0; name && i < TRACE_OP_COUNT; i++) {
        if (strcmp(op_names[i], name) == 0) {
            *out = (enum trace_op)i;
            return 0;
        }
    }
    return error_set(error, -EINVAL, "\"op\" is none that is known");
}

static int get_event(json_t *object, char *room, struct trace_event *out, struct error *error)
{
    uint64_t thread, handle, flags, mode;
    bool io = false;
    *out = (struct trace_event){.path = NULL};
    int r = get_op(object, &out->op, error);
    if (r == 0)
        io = out->op == TRACE_READ || out->op == TRACE_WRITE;
    if (r < 0 || (r = get_number(object, "start_ns", INT64_MAX / 2, &out->start_ns, error)) < 0 ||
        (r = get_number(object, "took_ns", INT64_MAX / 2, &out->took_ns, error)) < 0 ||
        (r = get_number(object, "thread", NUMBER_MAX - 1, &thread, error)) < 0 ||
        (r = get_number(object, "handle", NUMBER_MAX - 1, &handle, error)) < 0 ||
        (r = get_number(object, "offset", INT64_MAX / 2, &out->offset, error)) < 0 ||
        (r = get_number(object, "len", io ? TRACE_IO_MAX : INT64_MAX / 2, &out->len, error)) < 0 ||
        (r = get_number(object, "flags", INT32_MAX, &flags, error)) < 0 ||
        (r = get_number(object, "mode", 0177777, &mode, error)) < 0)
        return r;
    json_t *result = json_object_get(object, "result");
    if (!json_is_integer(result) || json_integer_value(result) < -4095 ||
        json_integer_value(result) > TRACE_IO_MAX)
        return error_set(error, -EINVAL, "\"result\" is no result of a call");
    out->result = (int)json_integer_value(result);
    out->thread = (uint32_t)thread;
    out->handle = (uint32_t)handle;
    out->flags = (int)flags;
    out->mode = (uint32_t)mode;
    if (has_path(out->op)) {
        if ((r = get_text(object, "path", true, room, error)) < 0)
            return r;
        out->path = room;
        room += strlen(room) + 1;
    }
    if (has_two_names(out->op)) {
        if ((r = get_text(object, "to", out->op != TRACE_SYMLINK, room, error)) < 0)
            return r;
        out->to = room;
    }
    if (has_handle(out->op) && handle == 0 && out->result >= 0)
        return error_set(error, -EINVAL, "\"handle\" is missing");
    return 0;
}

int trace_parse(const char *line, size_t len, char *room, struct trace_event *out,
                struct error *error)
{
    json_error_t why;
    if (len > TRACE_LINE_MAX)
        return error_set(error, -EINVAL, "longer than %u bytes", TRACE_LINE_MAX);
    json_t *object = json_loadb(line, len, JSON_REJECT_DUPLICATES, &why);
    if (!object)
        return error_set(error, -EINVAL, "no JSON object: %s", why.text);
    struct trace_event event;
    int r = get_event(object, room, &event, error);
    json_decref(object);
    if (r == 0)
        *out = event;
    return r;
}

static int check_head(const char *line, size_t len, struct error *error)
{
    json_t *object = json_loadb(line, len, 0, NULL);
    const char *schema = json_string_value(json_object_get(object, "schema"));
    int r = schema && strcmp(schema, TRACE_SCHEMA) == 0
                ? 0
                : error_set(error, -EINVAL, "this is no trace of `sluice trace record` (%s)",
                            TRACE_SCHEMA);
    json_decref(object);
    return r;
}

/* Keeps the event with strings of its own. */
static int keep(struct trace *trace, size_t *room_events, size_t *room_strings,
                const struct trace_event *event)
{
    if (trace->count == *room_events) {
        size_t more = *room_events ? *room_events * 2 : 1024;
        void *grown = reallocarray(trace->events, more, sizeof(*trace->events));
        if (!grown)
            return -ENOMEM;
        trace->events = grown;
        *room_events = more;
    }
    if (trace->string_count + 2 > *room_strings) {
        size_t more = *room_strings ? *room_strings * 2 : 1024;
        void *grown = reallocarray(trace->strings, more, sizeof(*trace->strings));
        if (!grown)
            return -ENOMEM;
        trace->strings = grown;
        *room_strings = more;
    }
    struct trace_event *kept = &trace->events[trace->count];
    *kept = *event;
    const char **texts[] = {&kept->path, &kept->to};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (!*texts[i])
            continue;
        char *copy = strdup(*texts[i]);
        if (!copy)
            return -ENOMEM;
        trace->strings[trace->string_count++] = copy;
        *texts[i] = copy;
    }
    trace->count++;
    trace->threads = MAX(trace->threads, event->thread + 1);
    trace->handles = MAX(trace->handles, event->handle + 1);
    return 0;
}

static int compare_start(const void *a, const void *b)
{
    const struct trace_event *x = a, *y = b;
    return x->start_ns < y->start_ns ? -1 : x->start_ns > y->start_ns;
}

static int load_lines(FILE *from, const char *file, struct trace *out, struct error *error)
{
    cleanup(free_ptr) char *line = NULL, *room = malloc(TRACE_LINE_MAX);
    size_t line_room = 0, event_room = 0, string_room = 0;
    uint64_t number = 0;
    ssize_t len;
    int r = room ? 0 : -ENOMEM;
    while (r == 0 && (len = getline(&line, &line_room, from)) >= 0) {
        struct trace_event event;
        if (++number == 1) {
            r = check_head(line, (size_t)len, error);
            continue;
        }
        r = trace_parse(line, (size_t)len, room, &event, error);
        if (r == 0 && out->count == EVENTS_MAX)
            r = error_set(error, -EFBIG, "more than %u calls", EVENTS_MAX);
        if (r == 0 && keep(out, &event_room, &string_room, &event) < 0)
            r = error_set(error, -ENOMEM, "no memory");
    }
    if (r == 0 && ferror(from))
        r = error_set(error, -EIO, "cannot be read");
    if (r == 0 && out->count == 0)
        r = error_set(error, -EINVAL, "there is no call in it");
    if (r < 0 && error)
        error_prefix(error, "%s, line %llu", file, (unsigned long long)number);
    return r;
}

int trace_load(const char *file, struct trace *out, struct error *error)
{
    struct trace trace = {0};
    FILE *from = fopen(file, "re");
    if (!from)
        return error_set(error, -errno, "%s: %s", file, strerror(errno));
    int r = load_lines(from, file, &trace, error);
    fclose(from);
    if (r < 0) {
        trace_done(&trace);
        return r;
    }
    qsort(trace.events, trace.count, sizeof(*trace.events), compare_start);
    *out = trace;
    return 0;
}

void trace_done(struct trace *trace)
{
    for (size_t i = 0; i < trace->string_count; i++)
        free(trace->strings[i]);
    free(trace->strings);
    free(trace->events);
    *trace = (struct trace){0};
}
