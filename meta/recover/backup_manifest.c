/* The manifest of a backup: JSON, docs/backup.md. */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "meta/backup.h"

#define VERSION 1
#define FILES_MAX 1000000

static void free_json(json_t **json)
{
    json_decref(*json);
}

void backup_manifest_done(struct backup_manifest *manifest)
{
    free(manifest->files);
    *manifest = (struct backup_manifest){0};
}

char *backup_manifest_print(const struct backup_manifest *m)
{
    json_t *files = json_array();
    for (size_t i = 0; files && i < m->count; i++) {
        const struct backup_file *f = &m->files[i];
        json_t *one = json_pack("{s:s,s:I,s:s}", "name", f->name, "size", (json_int_t)f->size,
                                "sha256", f->sha256);
        if (!one || json_array_append_new(files, one) < 0) {
            json_decref(files);
            return NULL;
        }
    }
    cleanup(free_json) json_t *root =
        json_pack("{s:i,s:s,s:s,s:s,s:I,s:I,s:o}", "version", VERSION, "volume", m->volume, "store",
                  m->store, "prefix", m->prefix, "time_ns", (json_int_t)m->time_ns, "applied",
                  (json_int_t)m->applied, "files", files);
    return root ? json_dumps(root, JSON_INDENT(1)) : NULL;
}

/* A name of RocksDB's: never a way out of the directory. */
static bool is_name(const char *name)
{
    if (name[0] == '.' || !name[0] || strlen(name) >= BACKUP_NAME_MAX)
        return false;
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
            return false;
    return true;
}

static bool is_hex(const char *text, size_t len)
{
    if (strlen(text) != len)
        return false;
    for (const char *p = text; *p; p++)
        if (!isdigit((unsigned char)*p) && !(*p >= 'a' && *p <= 'f'))
            return false;
    return true;
}

static int take_text(json_t *root, const char *key, char *out, size_t cap)
{
    const char *text = json_string_value(json_object_get(root, key));
    if (!text || strlen(text) >= cap)
        return -EBADMSG;
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

static int take_number(json_t *root, const char *key, uint64_t *out)
{
    json_t *value = json_object_get(root, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return -EBADMSG;
    *out = (uint64_t)json_integer_value(value);
    return 0;
}

static int take_file(json_t *json, struct backup_file *out)
{
    int rc = take_text(json, "name", out->name, sizeof(out->name));
    if (rc == 0)
        rc = take_text(json, "sha256", out->sha256, sizeof(out->sha256));
    if (rc == 0)
        rc = take_number(json, "size", &out->size);
    return rc == 0 && is_name(out->name) && is_hex(out->sha256, 64) ? 0 : -EBADMSG;
}

static int take_all(json_t *root, struct backup_manifest *out)
{
    json_t *files = json_object_get(root, "files");
    size_t count = json_array_size(files);
    int rc = take_text(root, "volume", out->volume, sizeof(out->volume));
    if (rc == 0)
        rc = take_text(root, "store", out->store, sizeof(out->store));
    if (rc == 0)
        rc = take_text(root, "prefix", out->prefix, sizeof(out->prefix));
    if (rc == 0)
        rc = take_number(root, "time_ns", &out->time_ns);
    if (rc == 0)
        rc = take_number(root, "applied", &out->applied);
    if (rc < 0 || count == 0 || count > FILES_MAX)
        return -EBADMSG;
    out->files = calloc(count, sizeof(*out->files));
    if (!out->files)
        return -ENOMEM;
    for (; rc == 0 && out->count < count; out->count++)
        rc = take_file(json_array_get(files, out->count), &out->files[out->count]);
    return rc;
}

int backup_manifest_parse(const void *data, size_t len, struct backup_manifest *out)
{
    *out = (struct backup_manifest){0};
    if (len > BACKUP_MANIFEST_MAX)
        return -EBADMSG;
    cleanup(free_json) json_t *root = json_loadb(data, len, JSON_REJECT_DUPLICATES, NULL);
    json_t *version = json_object_get(root, "version");
    if (!json_is_integer(version))
        return -EBADMSG;
    if (json_integer_value(version) != VERSION)
        return json_integer_value(version) > VERSION ? -EPROTO : -EBADMSG;
    int rc = take_all(root, out);
    if (rc < 0)
        backup_manifest_done(out);
    return rc;
}
