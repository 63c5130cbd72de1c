/*
 * What does this store honour? Found out on objects of our own, which are removed again: never by
 * doing the real thing and looking whether it failed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "s3/backend.h"

#define TEXT_LEN 200

struct probe {
    struct store *store;
    struct store_caps caps;
    void (*report)(void *arg, const char *what, bool good, const char *text);
    void *arg;
    char *base; /* "<prefix>.sluice/probe/<random>": every key begins so */
    char tag[33];
    char etag[STORE_ETAG_MAX]; /* of what was written last */
    int rc;                    /* of what must work */
    bool unusable;             /* not even the first request was answered with success */
    struct error error;
};

static void report(struct probe *p, const char *what, bool good, const char *text)
{
    if (p->report)
        p->report(p->arg, what, good, text);
}

static char *key(const struct probe *p, const char *name)
{
    char *out;
    return asprintf(&out, "%s%s", p->base, name) < 0 ? NULL : out;
}

/* Runs one request on a key of ours; the outputs go to *op, which the caller resets. */
static int ask(struct probe *p, struct store_op *op)
{
    return op->key ? store_wait(p->store, op) : -ENOMEM;
}

/* No object has it. */
#define OTHER_ETAG "0123456789abcdef0123456789abcdef"
/* For what a server may lack: it may answer 500 again and again. */
#define OPTIONAL_MS 10000

enum condition { ALWAYS, IF_NONE_MATCH, IF_MATCH_OTHER };

static int put(struct probe *p, const char *name, enum condition condition,
               char etag[STORE_ETAG_MAX])
{
    cleanup(free_ptr) char *at = key(p, name);
    struct iovec body = {p->tag, strlen(p->tag)};
    struct store_meta meta = {"sluice-probe", p->tag};
    struct store_op op = {.kind = STORE_PUT,
                          .key = at,
                          .iov = &body,
                          .iov_count = 1,
                          .meta = &meta,
                          .meta_count = 1,
                          .timeout_ms = etag ? 0 : OPTIONAL_MS,
                          .if_match = condition == IF_MATCH_OTHER ? OTHER_ETAG : NULL,
                          .if_none_match = condition == IF_NONE_MATCH};
    int rc = ask(p, &op);
    if (rc == 0 && etag)
        memcpy(etag, op.info.etag, STORE_ETAG_MAX);
    if (rc)
        p->error = op.error;
    store_op_reset(&op);
    return rc;
}

static void drop(struct probe *p, const char *name)
{
    cleanup(free_ptr) char *at = key(p, name);
    struct store_op op = {.kind = STORE_DELETE, .key = at};
    ask(p, &op);
    store_op_reset(&op);
}

static void fail(struct probe *p, const char *what, int rc)
{
    char text[TEXT_LEN];
    if (p->rc == 0)
        p->rc = rc;
    snprintf(text, sizeof(text), "%.190s", error_text(&p->error));
    report(p, what, false, text);
}

/* ---- what every store must do ---- */

static void probe_write(struct probe *p)
{
    int rc = put(p, "a", ALWAYS, p->etag);
    p->unusable = rc != 0;
    p->rc = rc; /* store_probe says why */
    if (rc == 0)
        report(p, "write", true, "objects can be written");
}

static void probe_read(struct probe *p)
{
    cleanup(free_ptr) char *at = key(p, "a");
    char back[64] = "";
    struct store_op op = {.kind = STORE_GET,
                          .key = at,
                          .buf = back,
                          .buf_len = sizeof(back),
                          .offset = 1,
                          .length = 8,
                          .if_match = p->etag};
    int rc = ask(p, &op);
    p->error = op.error;
    bool same = rc == 0 && op.got == 8 && memcmp(back, p->tag + 1, 8) == 0;
    const char *meta = store_op_meta(&op, "sluice-probe");
    bool meta_same = meta && strcmp(meta, p->tag) == 0;
    store_op_reset(&op);
    if (rc)
        fail(p, "read", rc);
    else if (!same)
        fail(p, "read", error_set(&p->error, -EIO, "what was written does not come back"));
    else
        report(p, "read", true, "ranges of objects can be read");
    if (rc == 0)
        report(p, "metadata", meta_same,
               meta_same ? "user metadata comes back"
                         : "user metadata is lost: modes, owners and times live in Sluice only");
}

static void probe_read_condition(struct probe *p)
{
    cleanup(free_ptr) char *at = key(p, "a");
    char back[8];
    struct store_op op = {.kind = STORE_GET,
                          .key = at,
                          .buf = back,
                          .buf_len = sizeof(back),
                          .length = sizeof(back),
                          .timeout_ms = OPTIONAL_MS,
                          .if_match = OTHER_ETAG};
    int rc = ask(p, &op);
    /* Where it is ignored, the backend itself notices another ETag, in an answer of success. */
    bool honoured = rc == -EEXIST && (op.error.http_status == 412 || op.error.http_status == 0);
    store_op_reset(&op);
    report(p, "read-if-match", honoured,
           honoured ? "reads are bound to one version of an object"
                    : "If-Match on reads is ignored: a change is noticed by the ETag only");
}

/* 1: a listing has the key, 0: it has not, or -errno. */
static int is_listed(struct probe *p, const char *name)
{
    struct store_op op = {.kind = STORE_LIST, .prefix = p->base};
    int rc = store_wait(p->store, &op);
    p->error = op.error;
    cleanup(free_ptr) char *at = key(p, name);
    for (size_t i = 0; rc == 0 && at && i < op.out_list.count; i++)
        rc = strcmp(op.out_list.entries[i].name, at) == 0;
    store_op_reset(&op);
    return rc;
}

static void probe_list(struct probe *p)
{
    int rc = is_listed(p, "a");
    if (rc < 0)
        fail(p, "list", rc);
    else if (!rc)
        fail(p, "list", error_set(&p->error, -EIO, "a new object is missing in the listing"));
    else
        report(p, "list", true, "a new object is listed at once");
}

/* ---- what it may lack ---- */

static void probe_put_condition(struct probe *p)
{
    int rc = put(p, "a", IF_NONE_MATCH, NULL);
    p->caps.put_if_none_match = rc == -EEXIST;
    report(p, "put-if-none-match", rc == -EEXIST,
           rc == -EEXIST ? "a taken key is never overwritten"
                         : "If-None-Match on PUT is ignored: Sluice asks by HEAD first, and a race "
                           "with another writer of the same key can be lost");
    rc = put(p, "a", IF_MATCH_OTHER, NULL);
    p->caps.put_if_match = rc == -EEXIST;
    report(p, "put-if-match", rc == -EEXIST,
           rc == -EEXIST ? "an object is replaced only if nobody else has changed it"
                         : "If-Match on PUT is ignored: Sluice asks by HEAD first, and a race with "
                           "another writer of the same key can be lost");
}

static void probe_neighbours(struct probe *p)
{
    bool taken = put(p, "a/b", ALWAYS, NULL) == 0;
    /* Some take the second one and hide it in listings as long as the first is there. */
    bool good = taken && is_listed(p, "a/b") == 1;
    p->caps.file_beside_directory = good;
    if (taken)
        drop(p, "a/b");
    report(p, "file-beside-directory", good,
           good    ? "`a` and `a/b` can both be objects"
           : taken ? "`a/b` is not listed while `a` is an object: it is not written before that is "
                     "gone"
                   : "`a` and `a/b` cannot both be objects (a store on a filesystem)");
}

static void probe_copy(struct probe *p)
{
    cleanup(free_ptr) char *from = key(p, "a"), *to = key(p, "c");
    struct store_op op = {.kind = STORE_COPY, .key = to, .source_key = from};
    int rc = from ? ask(p, &op) : -ENOMEM;
    store_op_reset(&op);
    p->caps.server_copy = rc == 0;
    report(p, "copy", rc == 0,
           rc == 0 ? "the server copies objects"
                   : "the server does not copy: settling moves data through this host");
    if (rc)
        return;
    struct store_op wrong = {
        .kind = STORE_COPY, .key = to, .source_key = from, .source_if_match = OTHER_ETAG};
    rc = ask(p, &wrong);
    store_op_reset(&wrong);
    p->caps.copy_if_match = rc == -EEXIST;
    report(p, "copy-if-match", rc == -EEXIST,
           rc == -EEXIST ? "a copy is bound to one version of its source"
                         : "conditions on the source of a copy are ignored");
    drop(p, "c");
}

static int complete(struct probe *p, const char *at, const char *upload_id,
                    const struct store_part *part, enum condition condition)
{
    struct store_meta meta = {"sluice-probe", "complete"};
    struct store_op op = {.kind = STORE_MPU_COMPLETE,
                          .key = at,
                          .upload_id = upload_id,
                          .parts = part,
                          .part_count = 1,
                          .meta = &meta,
                          .meta_count = 1,
                          .if_match = condition == IF_MATCH_OTHER ? OTHER_ETAG : NULL,
                          .if_none_match = condition == IF_NONE_MATCH};
    int rc = ask(p, &op);
    p->error = op.error;
    if (rc == 0)
        memcpy(p->etag, op.info.etag, sizeof(p->etag));
    store_op_reset(&op);
    return rc;
}

static void probe_complete_etag(struct probe *p, const char *at)
{
    struct store_op op = {.kind = STORE_HEAD, .key = at};
    int rc = op.key ? store_wait(p->store, &op) : -ENOMEM;
    bool good = rc == 0 && strcmp(op.info.etag, p->etag) == 0;
    store_op_reset(&op);
    p->caps.complete_etag = good;
    report(p, "complete-etag", good,
           good ? "the ETag of a large object is known at once"
                : "CompleteMultipartUpload answers with another ETag than the object has: Sluice "
                  "asks by HEAD for each");
}

static void probe_complete(struct probe *p, const char *at, const char *upload_id,
                           const struct store_part *part)
{
    int rc = complete(p, at, upload_id, part, IF_NONE_MATCH);
    bool good = rc == -EEXIST, done = rc == 0;
    p->caps.complete_if_none_match = good;
    report(p, "complete-if-none-match", good,
           good ? "a taken key is never overwritten by a large object"
                : "If-None-Match on CompleteMultipartUpload is ignored: Sluice asks by HEAD "
                  "first, and a race with another writer can be lost");
    /* (A server that ignored the first has no such upload any more.) */
    rc = complete(p, at, upload_id, part, IF_MATCH_OTHER);
    good = rc == -EEXIST;
    done |= rc == 0;
    p->caps.complete_if_match = good;
    report(p, "complete-if-match", good,
           good ? "a large object replaces another only if nobody else has changed it"
                : "If-Match on CompleteMultipartUpload is ignored: Sluice asks by HEAD first, and "
                  "a race with another writer can be lost");
    if (done || complete(p, at, upload_id, part, ALWAYS) == 0)
        probe_complete_etag(p, at);
}

static int send_part(struct probe *p, const char *at, const char *upload_id,
                     struct store_part *part)
{
    struct iovec body = {p->tag, strlen(p->tag)};
    struct store_op op = {.kind = STORE_MPU_PART,
                          .key = at,
                          .upload_id = upload_id,
                          .part_number = 1,
                          .iov = &body,
                          .iov_count = 1};
    int rc = ask(p, &op);
    p->error = op.error;
    *part = op.out_part;
    store_op_reset(&op);
    return rc;
}

/* An upload that is to become <base>a, which exists. */
static void probe_upload(struct probe *p)
{
    cleanup(free_ptr) char *at = key(p, "a");
    struct store_op create = {.kind = STORE_MPU_CREATE, .key = at};
    struct store_part part;
    int rc = ask(p, &create);
    p->error = create.error;
    if (rc == 0)
        rc = send_part(p, at, create.out_upload_id, &part);
    if (rc) {
        fail(p, "multipart", rc);
    } else {
        report(p, "multipart", true, "large objects can be written in parts");
        probe_complete(p, at, create.out_upload_id, &part);
    }
    if (create.out_upload_id) {
        struct store_op abort_op = {
            .kind = STORE_MPU_ABORT, .key = at, .upload_id = create.out_upload_id};
        ask(p, &abort_op);
        store_op_reset(&abort_op);
    }
    store_op_reset(&create);
}

static void probe_delete(struct probe *p)
{
    cleanup(free_ptr) char *at = key(p, "a");
    struct store_op op = {.kind = STORE_DELETE, .key = at, .if_match = OTHER_ETAG};
    bool good = ask(p, &op) == -EEXIST;
    store_op_reset(&op);
    report(p, "delete-if-match", good,
           good ? "a delete is bound to one version of an object"
                : "If-Match on DELETE is ignored: Sluice looks first, and what another writer puts "
                  "there in between is lost");
    drop(p, "a");
}

static void set_caps(void *arg)
{
    struct probe *p = arg;
    for (struct store *s = p->store; s; s = s->below) {
        s->caps.put_if_none_match = p->caps.put_if_none_match;
        s->caps.put_if_match = p->caps.put_if_match;
        s->caps.complete_if_none_match = p->caps.complete_if_none_match;
        s->caps.complete_if_match = p->caps.complete_if_match;
        s->caps.complete_etag = p->caps.complete_etag;
        s->caps.copy_if_match = p->caps.copy_if_match;
        s->caps.file_beside_directory = p->caps.file_beside_directory;
        s->caps.server_copy = p->caps.server_copy;
    }
}

/* What a user can do about a store that cannot be used at all. */
static const char *advice(const struct error *error, bool reads_only)
{
    const char *code = error->store_code, *text = error->message;
    if (strcmp(code, "NoSuchBucket") == 0)
        return "make the bucket first, or look at --endpoint and --region";
    if (strcmp(code, "SignatureDoesNotMatch") == 0)
        return "look at the secret key";
    if (strcmp(code, "InvalidAccessKeyId") == 0 || strcmp(code, "XAdminUserNotFound") == 0)
        return "look at the access key, and whether it is of this --endpoint";
    if (error->http_status == 403)
        return reads_only ? "the credentials may not list it"
                          : "the credentials may not write here; --read-only needs to read only";
    if (strstr(text, "wrong version number"))
        return "the endpoint speaks plain HTTP: http://";
    if (strstr(text, "certificate"))
        return "--ca-file names who may vouch for it";
    if (strstr(text, "Empty reply"))
        return "does the endpoint speak TLS (https://)?";
    return error->http_status == 0 ? "look at --endpoint and the network" : NULL;
}

/* What is behind the request and its key in the words of an error. */
static const char *cause_of(const struct error *error, const char *key)
{
    const char *text = error_text(error), *at = strstr(text, key);
    const char *cause = at ? strstr(at + strlen(key), ": ") : NULL;
    return cause ? cause + 2 : text;
}

/* The request was one on a key of ours, which says nothing to a user. */
static void explain(const struct probe *p, struct error *error)
{
    const char *cause = cause_of(&p->error, p->tag);
    const char *hint = p->unusable ? advice(&p->error, false) : NULL;
    struct error text;
    error_set(&text, p->rc, "%s %s: %s%s%s%s", store_name(p->store),
              p->unusable ? "cannot be used" : "does not do what Sluice needs", cause,
              hint ? " (" : "", hint ? hint : "", hint ? ")" : "");
    *error = p->error;
    error->code = p->rc;
    memcpy(error->message, text.message, sizeof(error->message));
}

int store_probe(struct store *store, const char *prefix,
                void (*report_to)(void *arg, const char *what, bool good, const char *text),
                void *arg, struct error *error)
{
    struct probe p = {.store = store, .caps = store->caps, .report = report_to, .arg = arg};
    uint8_t random[16];
    hash_random(random, sizeof(random));
    hash_hex(random, sizeof(random), p.tag);
    if (asprintf(&p.base, "%s.sluice/probe/%s/", prefix, p.tag) < 0)
        return error_set(error, -ENOMEM, "no memory");
    /* An earlier probe may have made the stack ask by HEAD: that would look like the real thing. */
    p.caps.put_if_none_match = p.caps.complete_if_none_match = p.caps.server_copy = true;
    p.caps.put_if_match = p.caps.complete_if_match = p.caps.complete_etag = true;
    loop_call(store->loop, set_caps, &p);
    probe_write(&p);
    if (p.rc == 0) {
        probe_read(&p);
        probe_read_condition(&p);
        probe_list(&p);
        probe_put_condition(&p);
        probe_neighbours(&p);
        probe_copy(&p);
        probe_upload(&p);
        probe_delete(&p);
    }
    if (p.rc == 0) {
        /* The loop thread reads them. */
        loop_call(store->loop, set_caps, &p);
    } else if (error) {
        explain(&p, error);
    }
    free(p.base);
    return p.rc;
}

int store_look(struct store *store, const char *prefix, struct error *error)
{
    struct store_op op = {.kind = STORE_LIST, .prefix = prefix, .delimiter = "/", .max_keys = 1};
    int rc = store_wait(store, &op);
    if (rc && error) {
        const char *hint = advice(&op.error, true);
        *error = op.error;
        error_set(error, rc, "%s cannot be used: %s%s%s%s", store_name(store),
                  cause_of(&op.error, prefix), hint ? " (" : "", hint ? hint : "", hint ? ")" : "");
        error->http_status = op.error.http_status;
        memcpy(error->store_code, op.error.store_code, sizeof(error->store_code));
    }
    store_op_reset(&op);
    return rc;
}
