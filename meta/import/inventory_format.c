#include "inventory_format.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define SIZE_MOST ((uint64_t)1 << 60)

/* Digits only. */
static bool parse_number(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    if (!isdigit((unsigned char)*text))
        return false;
    unsigned long long value = strtoull(text, &end, 10);
    *out = value;
    return !*end && !errno;
}

/* The manifest */

static const struct {
    const char *name;
    size_t offset;
} fields[] = {
    {"Bucket", offsetof(struct inventory_manifest, of_bucket)},
    {"Key", offsetof(struct inventory_manifest, key)},
    {"Size", offsetof(struct inventory_manifest, size)},
    {"LastModifiedDate", offsetof(struct inventory_manifest, modified)},
    {"ETag", offsetof(struct inventory_manifest, etag)},
    {"IsLatest", offsetof(struct inventory_manifest, latest)},
    {"IsDeleteMarker", offsetof(struct inventory_manifest, deleted)},
};

static const char no_field[] = "the inventory has no Key, Size, LastModifiedDate or ETag: choose "
                               "these fields for it";

static int parse_schema(const char *schema, struct inventory_manifest *out, struct error *error)
{
    cleanup(free_ptr) char *text = strdup(schema);
    char *save = NULL;
    if (!text)
        return -ENOMEM;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        *(int *)((char *)out + fields[i].offset) = -1;
    for (char *name = strtok_r(text, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        name += strspn(name, " ");
        name[strcspn(name, " ")] = '\0';
        for (size_t i = 0; i < ARRAY_LEN(fields); i++)
            if (!strcmp(name, fields[i].name))
                *(int *)((char *)out + fields[i].offset) = out->columns;
        if (++out->columns > INVENTORY_COLUMNS_MAX)
            return error_set(error, -EBADMSG, "the inventory has too many columns");
    }
    if (out->key < 0 || out->size < 0 || out->etag < 0 || out->modified < 0)
        return error_set(error, -EBADMSG, "%s", no_field);
    return 0;
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* Whether a schema of Parquet or ORC, as text, has a column. */
static bool has_column(const char *schema, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = strstr(schema, name); at; at = strstr(at + 1, name))
        if ((at == schema || !is_word(at[-1])) && !is_word(at[len]))
            return true;
    return false;
}

/* Of what inventory_convert.c makes of the files. */
static int parse_columns(const char *schema, struct inventory_manifest *out, struct error *error)
{
    static const char *const needed[] = {"key", "size", "last_modified_date", "e_tag"};
    for (size_t i = 0; i < ARRAY_LEN(needed); i++)
        if (!has_column(schema, needed[i]))
            return error_set(error, -EBADMSG, "%s", no_field);
    out->has_bucket = has_column(schema, "bucket");
    out->has_latest = has_column(schema, "is_latest");
    out->has_deleted = has_column(schema, "is_delete_marker");
    out->of_bucket = 0;
    out->key = 1;
    out->size = 2;
    out->modified = 3;
    out->etag = 4;
    out->latest = 5;
    out->deleted = 6;
    out->columns = 7;
    return 0;
}

static int parse_format(const char *format, struct inventory_manifest *out, struct error *error)
{
    static const char *const names[] = {
        [INVENTORY_CSV] = "CSV", [INVENTORY_PARQUET] = "Parquet", [INVENTORY_ORC] = "ORC"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!strcmp(format, names[i])) {
            out->format = (enum inventory_format)i;
            return 0;
        }
    }
    return error_set(error, -EOPNOTSUPP,
                     "the inventory's files are %.20s: CSV, Parquet or ORC is "
                     "wanted",
                     format);
}

static int parse_files(const json_t *files, struct inventory_manifest *out)
{
    size_t count = json_array_size(files);
    out->files = calloc(count + 1, sizeof(*out->files));
    if (!out->files)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        const json_t *f = json_array_get(files, i);
        const char *key = json_string_value(json_object_get(f, "key"));
        const char *md5 = json_string_value(json_object_get(f, "MD5checksum"));
        json_int_t size = json_integer_value(json_object_get(f, "size"));
        if (!key || !*key || strlen(key) > STORE_KEY_MAX || !md5 || strlen(md5) != 32 || size < 0)
            return -EBADMSG;
        struct inventory_file *file = &out->files[out->file_count++];
        file->key = strdup(key);
        file->size = (uint64_t)size;
        for (size_t j = 0; j < 32; j++)
            file->md5[j] = (char)tolower((unsigned char)md5[j]);
        if (!file->key)
            return -ENOMEM;
    }
    return 0;
}

static int parse_root(const json_t *root, struct inventory_manifest *out, struct error *error)
{
    const char *format = json_string_value(json_object_get(root, "fileFormat"));
    const char *schema = json_string_value(json_object_get(root, "fileSchema"));
    const char *bucket = json_string_value(json_object_get(root, "sourceBucket"));
    const char *created = json_string_value(json_object_get(root, "creationTimestamp"));
    const json_t *files = json_object_get(root, "files");
    uint64_t created_ms = 0;
    if (!format || !schema || !bucket || !json_is_array(files))
        return error_set(error, -EBADMSG, "this is no manifest of an inventory");
    int rc = parse_format(format, out, error);
    if (rc)
        return rc;
    if (!created || !parse_number(created, &created_ms) || created_ms > UINT64_MAX / NS_PER_MS ||
        !created_ms)
        return error_set(error, -EBADMSG, "the manifest does not say when the inventory was made");
    out->created_ns = created_ms * NS_PER_MS;
    out->bucket = strdup(bucket);
    if (!out->bucket)
        return -ENOMEM;
    rc = out->format == INVENTORY_CSV ? parse_schema(schema, out, error)
                                      : parse_columns(schema, out, error);
    if (!rc)
        rc = parse_files(files, out);
    if (rc == -EBADMSG && !error->code)
        error_set(error, rc, "the manifest's list of files is damaged");
    return rc;
}

int inventory_manifest_parse(const void *data, size_t len, struct inventory_manifest *out,
                             struct error *error)
{
    *out = (struct inventory_manifest){0};
    json_t *root = len && len <= INVENTORY_MANIFEST_MAX
                       ? json_loadb(data, len, JSON_REJECT_DUPLICATES, NULL)
                       : NULL;
    int rc = parse_root(root, out, error);
    json_decref(root);
    if (rc)
        inventory_manifest_done(out);
    return rc;
}

void inventory_manifest_done(struct inventory_manifest *m)
{
    for (size_t i = 0; i < m->file_count; i++)
        free(m->files[i].key);
    free(m->files);
    free(m->bucket);
    *m = (struct inventory_manifest){0};
}

/* Rows */

bool inventory_row_goes_on(const char *text)
{
    bool quoted = false;
    for (; *text; text++)
        quoted ^= *text == '"';
    return quoted;
}

/* Splits in place: quotes go, doubled ones become one. The number of columns, or -1. */
static int split(char *text, char *columns[INVENTORY_COLUMNS_MAX])
{
    int count = 0;
    char *from = text;
    for (;;) {
        if (count == INVENTORY_COLUMNS_MAX)
            return -1;
        char *to = columns[count++] = from;
        if (*from == '"') {
            from++;
            while (*from && (*from != '"' || from[1] == '"')) {
                from += *from == '"';
                *to++ = *from++;
            }
            if (*from++ != '"' || (*from && *from != ','))
                return -1;
        } else {
            while (*from && *from != ',') {
                if (*from == '"')
                    return -1;
                *to++ = *from++;
            }
        }
        bool more = *from == ',';
        *to = '\0';
        if (!more)
            return count;
        from++;
    }
}

static int hex(char c)
{
    const char *at = c ? strchr("0123456789abcdef", tolower((unsigned char)c)) : NULL;
    return at ? (int)(at - "0123456789abcdef") : -1;
}

/* As forms are encoded: %XX, and + for a space. */
static bool decode_key(const char *text, char out[STORE_KEY_MAX + 1])
{
    size_t len = 0;
    for (; *text; text++) {
        char c = *text == '+' ? ' ' : *text;
        if (c == '%') {
            int high = hex(text[1]), low = high < 0 ? -1 : hex(text[2]);
            if (low < 0 || (!high && !low))
                return false;
            c = (char)(high * 16 + low);
            text += 2;
        }
        if (len == STORE_KEY_MAX)
            return false;
        out[len++] = c;
    }
    out[len] = '\0';
    return len > 0;
}

/* 2026-11-20T10:11:12.000Z */
static bool parse_time(const char *text, uint64_t *out)
{
    struct tm tm = {0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!end || (*end != '.' && *end != 'Z' && *end))
        return false;
    time_t t = timegm(&tm);
    if (t < 0 || (uint64_t)t >= UINT64_MAX / NS_PER_S)
        return false;
    *out = (uint64_t)t * NS_PER_S;
    return true;
}

static const char *column(char *const columns[], int at)
{
    return at < 0 ? "" : columns[at];
}

int inventory_row_parse(const struct inventory_manifest *m, char *text, struct inventory_row *out,
                        struct error *error)
{
    char *columns[INVENTORY_COLUMNS_MAX];
    int count = split(text, columns);
    *out = (struct inventory_row){0};
    if (count < 0 || count != m->columns)
        return error_set(error, -EBADMSG, "a row of the inventory has %d columns in place of %d",
                         count < 0 ? 0 : count, m->columns);
    const char *size = column(columns, m->size), *etag = column(columns, m->etag);
    const char *bucket = column(columns, m->of_bucket);
    out->skip = !strcasecmp(column(columns, m->deleted), "true") ||
                !strcasecmp(column(columns, m->latest), "false");
    if (!decode_key(column(columns, m->key), out->key))
        return error_set(error, -EBADMSG, "a row of the inventory has a key that cannot be one");
    if (strlen(bucket) >= sizeof(out->bucket))
        return error_set(error, -EBADMSG, "%s: this is no bucket", out->key);
    memcpy(out->bucket, bucket, strlen(bucket) + 1);
    if (out->skip)
        return 0;
    etag += *etag == '"';
    size_t etag_len = strcspn(etag, "\"");
    if (!parse_number(size, &out->size) || out->size > SIZE_MOST)
        return error_set(error, -EBADMSG, "%s: the inventory does not say its size", out->key);
    if (!etag_len || etag_len >= sizeof(out->etag))
        return error_set(error, -EBADMSG, "%s: the inventory does not say its ETag", out->key);
    memcpy(out->etag, etag, etag_len);
    if (!parse_time(column(columns, m->modified), &out->mtime_ns))
        return error_set(error, -EBADMSG, "%s: the inventory does not say its time", out->key);
    return 0;
}
