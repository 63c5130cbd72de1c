#include "notify_event.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* As in a form: '+' is a space, %XX a byte. False: it is no key. */
static bool decode_key(const char *text, char out[NOTIFY_KEY_MAX + 1])
{
    size_t n = 0;
    for (const char *p = text; *p; p++, n++) {
        if (n == NOTIFY_KEY_MAX)
            return false;
        out[n] = *p == '+' ? ' ' : *p;
        if (*p != '%')
            continue;
        int high = hex(p[1]), low = high < 0 ? -1 : hex(p[2]);
        if (low < 0 || !(high << 4 | low))
            return false;
        out[n] = (char)(high << 4 | low);
        p += 2;
    }
    out[n] = '\0';
    return n > 0;
}

/* 1: a record of an object; 0: of something else; -EINVAL. */
static int read_record(json_t *record, size_t number, char key[NOTIFY_KEY_MAX + 1],
                       struct notify_event *out, struct error *error)
{
    json_t *s3 = json_object_get(record, "s3");
    const char *name = json_string_value(json_object_get(record, "eventName"));
    if (!json_is_object(record) || !name)
        return error_set(error, -EINVAL, "record %zu has no eventName", number);
    const char *bucket = json_string_value(json_object_get(json_object_get(s3, "bucket"), "name"));
    const char *coded = json_string_value(json_object_get(json_object_get(s3, "object"), "key"));
    if (!bucket || !coded)
        return error_set(error, -EINVAL,
                         "record %zu (%.60s) has no s3.bucket.name or s3.object.key", number, name);
    if (!decode_key(coded, key))
        return error_set(error, -EINVAL, "record %zu: s3.object.key is no encoded key", number);
    /* Newer S3 events begin with "ObjectCreated:", those of some servers with "s3:". */
    const char *kind = strncmp(name, "s3:", 3) == 0 ? name + 3 : name;
    *out = (struct notify_event){.bucket = bucket, .key = key};
    return strncmp(kind, "Object", 6) == 0 || strncmp(kind, "Lifecycle", 9) == 0;
}

static int each_record(json_t *records, int (*take)(void *arg, const struct notify_event *event),
                       void *arg, struct error *error)
{
    char key[NOTIFY_KEY_MAX + 1];
    struct notify_event event;
    size_t i;
    json_t *record;
    int count = 0;
    json_array_foreach(records, i, record)
    {
        int rc = read_record(record, i + 1, key, &event, error);
        if (rc > 0 && take)
            rc = take(arg, &event);
        if (rc < 0)
            return rc;
        count++;
    }
    return count;
}

int notify_events_parse(const char *text, size_t len,
                        int (*take)(void *arg, const struct notify_event *event), void *arg,
                        bool *more, struct error *error)
{
    json_error_t where;
    *more = false;
    if (len > NOTIFY_TEXT_MAX)
        return error_set(error, -EINVAL, "a notification of more than %u bytes", NOTIFY_TEXT_MAX);
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    if (!root) {
        *more = json_error_code(&where) == json_error_premature_end_of_input;
        return error_set(error, -EINVAL, "not JSON: %s (line %d, column %d)", where.text,
                         where.line, where.column);
    }
    json_t *records = json_object_get(root, "Records");
    int rc;
    if (json_is_string(json_object_get(root, "Event")) && !records)
        rc = 0; /* the test that S3 sends when notifications are set up */
    else if (!json_is_array(records))
        rc = error_set(error, -EINVAL, "a notification is an object with an array Records");
    else if (json_array_size(records) > NOTIFY_RECORDS_MAX)
        rc = error_set(error, -EINVAL, "more than %d records", NOTIFY_RECORDS_MAX);
    else
        rc = each_record(records, NULL, NULL, error);
    if (rc > 0)
        rc = each_record(records, take, arg, error);
    json_decref(root);
    return rc;
}
