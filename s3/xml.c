#include "xml.h"

#include <errno.h>
#include <expat.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "s3/backend.h"
#include "sigv4.h"

#define DEPTH_MAX 8
#define NAME_MAX_LEN 64
/* A key of 1,024 bytes has three characters for each when it is encoded. */
#define TEXT_MAX (3 * STORE_KEY_MAX + 16)

/* One document on its way through expat. `leaf` sees each element that has no children, with the
 * names of its ancestors; `close` sees the end of the others. */
struct parse {
    XML_Parser parser;
    const char *root;
    int (*leaf)(struct parse *parse, const char *parent, const char *name, char *text);
    int (*close)(struct parse *parse, const char *name);
    void *arg;
    struct xml_failure *failure;
    struct error *error;

    char names[DEPTH_MAX][NAME_MAX_LEN];
    unsigned depth;
    bool is_leaf, is_error;
    char text[TEXT_MAX + 1];
    size_t text_len;
    int rc;
};

static void stop(struct parse *parse, int rc)
{
    if (!parse->rc)
        parse->rc = rc;
    XML_StopParser(parse->parser, XML_FALSE);
}

static void stop_bad(struct parse *parse, const char *what)
{
    if (!parse->rc)
        error_set(parse->error, -EBADMSG, "the server's XML reply has %s", what);
    stop(parse, -EBADMSG);
}

static const char *local_name(const char *name)
{
    const char *colon = strrchr(name, ':');
    return colon ? colon + 1 : name;
}

static void on_start(void *arg, const char *name, const char **attributes)
{
    struct parse *parse = arg;
    name = local_name(name);
    if (parse->depth == DEPTH_MAX || strlen(name) >= NAME_MAX_LEN) {
        stop_bad(parse, "too deep or too long elements");
        return;
    }
    if (parse->depth == 0) {
        parse->is_error = strcmp(name, "Error") == 0;
        if (!parse->is_error && strcmp(name, parse->root) != 0) {
            if (!parse->rc)
                error_set(parse->error, -EBADMSG,
                          "the server's reply is <%.40s>, not <%s>: is the endpoint an S3 server?",
                          name, parse->root);
            stop(parse, -EBADMSG);
            return;
        }
    }
    snprintf(parse->names[parse->depth++], NAME_MAX_LEN, "%s", name);
    parse->is_leaf = true;
    parse->text_len = 0;
}

static void on_text(void *arg, const char *text, int len)
{
    struct parse *parse = arg;
    if (!parse->is_leaf)
        return;
    if ((size_t)len > TEXT_MAX - parse->text_len) {
        /* A long message of an error is no reason to lose its code. */
        if (!parse->is_error)
            stop_bad(parse, "a too long text");
        return;
    }
    memcpy(parse->text + parse->text_len, text, (size_t)len);
    parse->text_len += (size_t)len;
}

/* False if it had to be cut. */
static bool copy_text(char *out, size_t cap, const char *text)
{
    size_t len = strlen(text), room = MIN(len, cap - 1);
    memcpy(out, text, room);
    out[room] = '\0';
    return room == len;
}

static void failure_leaf(struct parse *parse, const char *name, const char *text)
{
    struct xml_failure *f = parse->failure;
    if (strcmp(name, "Code") == 0)
        copy_text(f->code, sizeof(f->code), text);
    else if (strcmp(name, "Message") == 0)
        copy_text(f->message, sizeof(f->message), text);
    else if (strcmp(name, "RequestId") == 0)
        copy_text(f->request_id, sizeof(f->request_id), text);
    else if (strcmp(name, "Region") == 0)
        copy_text(f->region, sizeof(f->region), text);
}

static void on_end(void *arg, const char *full_name)
{
    struct parse *parse = arg;
    if (parse->rc || parse->depth == 0)
        return;
    const char *name = parse->names[--parse->depth];
    const char *parent = parse->depth ? parse->names[parse->depth - 1] : "";
    int rc = 0;
    parse->text[parse->text_len] = '\0';
    if (parse->is_leaf && parse->is_error)
        failure_leaf(parse, name, parse->text);
    else if (parse->is_leaf && parse->depth > 0)
        rc = parse->leaf(parse, parent, name, parse->text);
    else if (!parse->is_error && parse->close)
        rc = parse->close(parse, name);
    parse->is_leaf = false;
    if (rc)
        stop(parse, rc);
}

static void on_doctype(void *arg, const char *name, const char *system, const char *public_id,
                       int has_internal)
{
    stop_bad(arg, "a document type");
}

static void on_entity(void *arg, const char *name, int is_parameter, const char *value, int len,
                      const char *base, const char *system, const char *public_id,
                      const char *notation)
{
    stop_bad(arg, "an entity");
}

static bool looks_like_html(const char *data, size_t len)
{
    return (len >= 5 && strncasecmp(data, "<html", 5) == 0) ||
           (len >= 9 && strncasecmp(data, "<!doctype", 9) == 0);
}

static int run(struct parse *parse, const void *data, size_t len)
{
    const char *text = data;
    memset(parse->failure, 0, sizeof(*parse->failure));
    /* What a server sends to show that it is still at work may come before the document. */
    for (; len > 0 && strchr(" \t\r\n", *text) && *text; len--)
        text++;
    if (looks_like_html(text, len))
        return error_set(parse->error, -EBADMSG,
                         "the server answered a web page: is the endpoint an S3 server?");
    if (len > XML_REPLY_MAX)
        return error_set(parse->error, -EBADMSG, "the server's XML reply is too long");
    parse->parser = XML_ParserCreate(NULL);
    if (!parse->parser)
        return -ENOMEM;
    XML_SetUserData(parse->parser, parse);
    XML_SetElementHandler(parse->parser, on_start, on_end);
    XML_SetCharacterDataHandler(parse->parser, on_text);
    XML_SetStartDoctypeDeclHandler(parse->parser, on_doctype);
    XML_SetEntityDeclHandler(parse->parser, on_entity);
    uint8_t salt[8];
    hash_random(salt, sizeof(salt));
    unsigned long salt_value;
    memcpy(&salt_value, salt, sizeof(salt_value));
    XML_SetHashSalt(parse->parser, salt_value);
    enum XML_Status status = XML_Parse(parse->parser, text, (int)len, XML_TRUE);
    enum XML_Error code = XML_GetErrorCode(parse->parser);
    unsigned long line = XML_GetCurrentLineNumber(parse->parser);
    XML_ParserFree(parse->parser);
    if (parse->rc)
        return parse->rc;
    if (code == XML_ERROR_NO_MEMORY)
        return -ENOMEM;
    if (status != XML_STATUS_OK)
        return error_set(parse->error, -EBADMSG, "the server's reply is not XML: line %lu: %s",
                         line, XML_ErrorString(code));
    return parse->is_error ? -EREMOTEIO : 0;
}

static struct parse *parse_new(const char *root, struct xml_failure *failure, struct error *error)
{
    struct parse *parse = calloc(1, sizeof(*parse));
    if (!parse)
        return NULL;
    parse->root = root;
    parse->failure = failure;
    parse->error = error;
    return parse;
}

/* ---- texts ---- */

/* `digits` digits and what must stand behind them (0: anything). -1 if it is not so. */
static int take_number(const char **text, unsigned digits, char behind)
{
    int n = 0;
    for (; digits > 0; digits--, (*text)++) {
        if (**text < '0' || **text > '9')
            return -1;
        n = 10 * n + (**text - '0');
    }
    if (!behind)
        return n;
    return *(*text)++ == behind ? n : -1;
}

uint64_t xml_parse_time(const char *text)
{
    static const struct {
        unsigned digits;
        char behind;
    } fields[] = {{4, '-'}, {2, '-'}, {2, 'T'}, {2, ':'}, {2, ':'}, {2, 0}};
    int n[ARRAY_LEN(fields)];
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        n[i] = take_number(&text, fields[i].digits, fields[i].behind);
        if (n[i] < 0)
            return 0;
    }
    uint64_t ns = 0, unit = NS_PER_S / 10;
    if (*text == '.') {
        for (const char *p = text + 1; *p >= '0' && *p <= '9'; p++, unit /= 10)
            ns += (uint64_t)(*p - '0') * unit;
    }
    struct tm tm = {.tm_year = n[0] - 1900,
                    .tm_mon = n[1] - 1,
                    .tm_mday = n[2],
                    .tm_hour = n[3],
                    .tm_min = n[4],
                    .tm_sec = n[5]};
    time_t t = timegm(&tm);
    if (t < 0)
        return 0;
    return (uint64_t)t < UINT64_MAX / NS_PER_S ? (uint64_t)t * NS_PER_S + ns : UINT64_MAX;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void xml_url_decode(char *text)
{
    char *out = text;
    for (const char *p = text; *p; p++) {
        if (*p == '+') {
            *out++ = ' ';
        } else if (*p == '%' && hex_value(p[1]) >= 0 && hex_value(p[2]) >= 0) {
            *out++ = (char)(hex_value(p[1]) << 4 | hex_value(p[2]));
            p += 2;
        } else {
            *out++ = *p;
        }
    }
    *out = '\0';
}

void xml_copy_etag(char out[STORE_ETAG_MAX], const char *text)
{
    text += strncmp(text, "W/", 2) == 0 ? 2 : 0;
    size_t len = strlen(text);
    if (len >= 2 && text[0] == '"' && text[len - 1] == '"') {
        text++;
        len -= 2;
    }
    snprintf(out, STORE_ETAG_MAX, "%.*s", (int)MIN(len, STORE_ETAG_MAX - 1u), text);
}

/* ---- listings ---- */

struct listing {
    struct store_op *op;
    bool encoded, truncated, has_prefixes;
    struct store_entry entry; /* being read; name is below */
    char name[TEXT_MAX + 1], upload_id[STORE_UPLOAD_ID_MAX + 1];
    char next[TEXT_MAX + 1], next_upload[STORE_UPLOAD_ID_MAX + 1];
};

static int list_leaf(struct parse *parse, const char *parent, const char *name, char *text)
{
    struct listing *l = parse->arg;
    if (strcmp(parent, "Contents") == 0) {
        if (strcmp(name, "Key") == 0)
            copy_text(l->name, sizeof(l->name), text);
        else if (strcmp(name, "Size") == 0)
            l->entry.size = strtoull(text, NULL, 10);
        else if (strcmp(name, "ETag") == 0)
            xml_copy_etag(l->entry.etag, text);
        else if (strcmp(name, "LastModified") == 0)
            l->entry.mtime_ns = xml_parse_time(text);
    } else if (strcmp(parent, "CommonPrefixes") == 0) {
        if (strcmp(name, "Prefix") == 0)
            copy_text(l->name, sizeof(l->name), text);
    } else if (strcmp(parent, parse->root) == 0) {
        if (strcmp(name, "EncodingType") == 0)
            l->encoded = strcmp(text, "url") == 0;
        else if (strcmp(name, "IsTruncated") == 0)
            l->truncated = strcmp(text, "true") == 0;
        else if (strcmp(name, "NextContinuationToken") == 0)
            copy_text(l->next, sizeof(l->next), text);
    }
    return 0;
}

static int list_close(struct parse *parse, const char *name)
{
    struct listing *l = parse->arg;
    bool is_prefix = strcmp(name, "CommonPrefixes") == 0;
    if (!is_prefix && strcmp(name, "Contents") != 0)
        return 0;
    if (!l->name[0]) {
        stop_bad(parse, "an entry without a name");
        return -EBADMSG;
    }
    if (l->op->out_list.count >= 2 * STORE_LIST_MAX) {
        stop_bad(parse, "more entries than were asked for");
        return -EBADMSG;
    }
    l->has_prefixes |= is_prefix;
    if (!is_prefix && !l->entry.etag[0] && l->op->kind == STORE_LIST)
        store_etag_weak(l->entry.size, l->entry.mtime_ns, l->entry.etag);
    int rc = store_op_add_entry(l->op, l->name, l->entry.size, l->entry.mtime_ns, l->entry.etag,
                                is_prefix);
    memset(&l->entry, 0, sizeof(l->entry));
    l->name[0] = '\0';
    return rc;
}

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const struct store_entry *)a)->name, ((const struct store_entry *)b)->name);
}

/* The server lists keys and prefixes apart, and encodes names if it says so. */
static void put_in_order(struct listing *l)
{
    struct store_list *list = &l->op->out_list;
    for (size_t i = 0; l->encoded && i < list->count; i++)
        xml_url_decode((char *)list->entries[i].name);
    if (l->has_prefixes)
        qsort(list->entries, list->count, sizeof(*list->entries), compare_entries);
}

static void free_listing(struct listing **l)
{
    free(*l);
}

static void free_parse(struct parse **p)
{
    free(*p);
}

static const char same_again[] = "the server's listing does not get on: same token again";

/* The page goes on where it began itself. */
static bool is_asked(const struct store_op *op, const char *token)
{
    return op->token && strcmp(op->token, token) == 0;
}

int xml_parse_list(const void *data, size_t len, struct store_op *op, struct xml_failure *failure,
                   struct error *error)
{
    cleanup(free_listing) struct listing *l = calloc(1, sizeof(*l));
    cleanup(free_parse) struct parse *parse = parse_new("ListBucketResult", failure, error);
    if (!l || !parse)
        return -ENOMEM;
    l->op = op;
    parse->leaf = list_leaf;
    parse->close = list_close;
    parse->arg = l;
    int rc = run(parse, data, len);
    if (rc)
        return rc;
    put_in_order(l);
    if (!l->truncated)
        return 0;
    if (!l->next[0])
        return error_set(error, -EBADMSG, "the server cut a listing and gave no token to go on");
    if (is_asked(op, l->next))
        return error_set(error, -EBADMSG, "%s", same_again);
    op->out_list.next_token = store_op_strdup(op, l->next);
    return op->out_list.next_token ? 0 : -ENOMEM;
}

static int uploads_leaf(struct parse *parse, const char *parent, const char *name, char *text)
{
    struct listing *l = parse->arg;
    bool whole = true;
    if (strcmp(parent, "Upload") == 0) {
        if (strcmp(name, "Key") == 0)
            copy_text(l->name, sizeof(l->name), text);
        else if (strcmp(name, "UploadId") == 0)
            whole = copy_text(l->upload_id, sizeof(l->upload_id), text);
        else if (strcmp(name, "Initiated") == 0)
            l->entry.mtime_ns = xml_parse_time(text);
    } else if (strcmp(parent, parse->root) == 0) {
        if (strcmp(name, "EncodingType") == 0)
            l->encoded = strcmp(text, "url") == 0;
        else if (strcmp(name, "IsTruncated") == 0)
            l->truncated = strcmp(text, "true") == 0;
        else if (strcmp(name, "NextKeyMarker") == 0)
            copy_text(l->next, sizeof(l->next), text);
        else if (strcmp(name, "NextUploadIdMarker") == 0)
            whole = copy_text(l->next_upload, sizeof(l->next_upload), text);
    }
    if (!whole)
        stop_bad(parse, "a too long upload id");
    return 0;
}

static int uploads_close(struct parse *parse, const char *name)
{
    struct listing *l = parse->arg;
    if (strcmp(name, "Upload") != 0)
        return 0;
    if (!l->name[0] || !l->upload_id[0] || l->op->out_list.count >= 2 * STORE_LIST_MAX) {
        stop_bad(parse, "an upload without key or id, or too many");
        return -EBADMSG;
    }
    int rc = store_op_add_entry(l->op, l->name, 0, l->entry.mtime_ns, l->upload_id, false);
    if (rc)
        return rc;
    struct store_entry *entry = &l->op->out_list.entries[l->op->out_list.count - 1];
    entry->upload_id = store_op_strdup(l->op, l->upload_id);
    memset(&l->entry, 0, sizeof(l->entry));
    l->name[0] = l->upload_id[0] = '\0';
    return entry->upload_id ? 0 : -ENOMEM;
}

int xml_parse_uploads(const void *data, size_t len, struct store_op *op,
                      struct xml_failure *failure, struct error *error)
{
    cleanup(free_listing) struct listing *l = calloc(1, sizeof(*l));
    cleanup(free_parse) struct parse *parse =
        parse_new("ListMultipartUploadsResult", failure, error);
    if (!l || !parse)
        return -ENOMEM;
    l->op = op;
    parse->leaf = uploads_leaf;
    parse->close = uploads_close;
    parse->arg = l;
    int rc = run(parse, data, len);
    if (rc)
        return rc;
    put_in_order(l);
    if (!l->truncated)
        return 0;
    if (!l->next[0])
        return error_set(error, -EBADMSG, "the server cut a listing and gave no marker to go on");
    if (l->encoded)
        xml_url_decode(l->next);
    cleanup(buf_done) struct buf token;
    buf_init(&token, 0);
    sigv4_encode(&token, l->next, strlen(l->next), 0);
    buf_printf(&token, "/");
    sigv4_encode(&token, l->next_upload, strlen(l->next_upload), 0);
    buf_printf(&token, "%s", "");
    if (buf_error(&token))
        return -ENOMEM;
    if (is_asked(op, (const char *)token.data))
        return error_set(error, -EBADMSG, "%s", same_again);
    op->out_list.next_token = store_op_strdup(op, (const char *)token.data);
    return op->out_list.next_token ? 0 : -ENOMEM;
}

/* ---- small results ---- */

struct deletion {
    struct store_op *op;
    int (*code_to_errno)(const char *code);
    char key[TEXT_MAX + 1];
    int code;
};

static int delete_leaf(struct parse *parse, const char *parent, const char *name, char *text)
{
    struct deletion *d = parse->arg;
    if (strcmp(parent, "Error") != 0)
        return 0;
    if (strcmp(name, "Key") == 0)
        copy_text(d->key, sizeof(d->key), text);
    else if (strcmp(name, "Code") == 0)
        d->code = d->code_to_errno(text);
    return 0;
}

static int delete_close(struct parse *parse, const char *name)
{
    struct deletion *d = parse->arg;
    if (strcmp(name, "Error") != 0)
        return 0;
    int code = d->code ? d->code : -EIO;
    d->code = 0;
    /* Deleting what is not there succeeds. */
    if (code == -ENOENT)
        return 0;
    return store_op_add_entry(d->op, d->key, (uint64_t)-code, 0, NULL, false);
}

int xml_parse_delete(const void *data, size_t len, struct store_op *op,
                     int (*code_to_errno)(const char *code), struct xml_failure *failure,
                     struct error *error)
{
    struct deletion d = {.op = op, .code_to_errno = code_to_errno};
    cleanup(free_parse) struct parse *parse = parse_new("DeleteResult", failure, error);
    if (!parse)
        return -ENOMEM;
    parse->leaf = delete_leaf;
    parse->close = delete_close;
    parse->arg = &d;
    return run(parse, data, len);
}

struct wanted {
    struct xml_text *texts;
    unsigned count;
};

static int wanted_leaf(struct parse *parse, const char *parent, const char *name, char *text)
{
    struct wanted *wanted = parse->arg;
    for (unsigned i = 0; i < wanted->count; i++) {
        struct xml_text *t = &wanted->texts[i];
        if (strcmp(name, t->element) != 0)
            continue;
        if (strlen(text) >= t->cap) {
            stop_bad(parse, "a too long value");
            return -EBADMSG;
        }
        copy_text(t->out, t->cap, text);
        t->found = true;
    }
    return 0;
}

int xml_parse_texts(const void *data, size_t len, const char *root, struct xml_text *texts,
                    unsigned count, struct xml_failure *failure, struct error *error)
{
    struct wanted wanted = {texts, count};
    cleanup(free_parse) struct parse *parse = parse_new(root, failure, error);
    if (!parse)
        return -ENOMEM;
    parse->leaf = wanted_leaf;
    parse->arg = &wanted;
    return run(parse, data, len);
}

int xml_parse_value(const void *data, size_t len, const char *root, const char *element, char *out,
                    size_t cap, struct xml_failure *failure, struct error *error)
{
    struct xml_text text = {element, out, cap, false};
    int rc = xml_parse_texts(data, len, root, &text, 1, failure, error);
    if (rc)
        return rc;
    if (!text.found)
        return error_set(error, -EBADMSG, "the server's reply <%s> has no <%s>", root, element);
    return 0;
}

int xml_parse_failure(const void *data, size_t len, struct xml_failure *out, struct error *error)
{
    cleanup(free_parse) struct parse *parse = parse_new("Error", out, error);
    if (!parse)
        return -ENOMEM;
    parse->leaf = NULL;
    int rc = run(parse, data, len);
    return rc == -EREMOTEIO ? 0 : rc;
}
