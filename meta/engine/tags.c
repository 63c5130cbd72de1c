/*
 * User metadata of the objects that Sluice writes: whose they are, and what POSIX knows of the
 * file. Format: docs/open-layout.md.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "volume/volume.h"

#define TAG_VOLUME "sluice-volume"
#define TAG_OBJECT "sluice-object"
#define TAG_MODE "sluice-mode"
#define TAG_UID "sluice-uid"
#define TAG_GID "sluice-gid"
#define TAG_MTIME "sluice-mtime"
#define TAG_CHANGE "sluice-change"

struct writer {
    struct meta_object_tags *tags;
    unsigned count;
    size_t used;
};

static void add(struct writer *w, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void add(struct writer *w, const char *name, const char *fmt, ...)
{
    char *value = w->tags->room + w->used;
    size_t room = sizeof(w->tags->room) - w->used;
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(value, room, fmt, ap);
    va_end(ap);
    if (len < 0 || (size_t)len >= room || w->count == META_TAGS_MAX)
        return;
    w->used += (size_t)len + 1;
    w->tags->pairs[w->count++] = (struct store_meta){.name = name, .value = value};
}

unsigned meta_object_tags(const struct meta_volume *volume, const struct meta_object *object,
                          const struct meta_attr *attr, struct meta_object_tags *out)
{
    struct writer w = {.tags = out};
    add(&w, TAG_VOLUME, "%s", volume->id);
    add(&w, TAG_OBJECT, "%" PRIu64, object->id);
    if (attr) {
        add(&w, TAG_MODE, "%o", attr->mode & 07777u);
        add(&w, TAG_UID, "%" PRIu32, attr->uid);
        add(&w, TAG_GID, "%" PRIu32, attr->gid);
        uint64_t seconds = attr->mtime_ns / NS_PER_S, rest = attr->mtime_ns % NS_PER_S;
        add(&w, TAG_MTIME, "%" PRIu64 ".%09" PRIu64, seconds, rest);
    }
    return w.count;
}

/* A whole number in `base` up to `max`; false for anything else. */
static bool parse_number(const char *text, int base, uint64_t max, uint64_t *out)
{
    if (!text || *text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, base);
    if (errno || *end || v > max)
        return false;
    *out = v;
    return true;
}

static bool parse_time(const char *text, uint64_t *out)
{
    char seconds[24];
    const char *dot = text ? strchr(text, '.') : NULL;
    if (!dot || (size_t)(dot - text) >= sizeof(seconds) || strlen(dot + 1) != 9)
        return false;
    memcpy(seconds, text, (size_t)(dot - text));
    seconds[dot - text] = '\0';
    uint64_t s, ns;
    if (!parse_number(seconds, 10, UINT64_MAX / NS_PER_S - 1, &s) ||
        !parse_number(dot + 1, 10, NS_PER_S - 1, &ns))
        return false;
    *out = s * NS_PER_S + ns;
    return true;
}

unsigned tags_add_change(struct meta_object_tags *tags, unsigned count, uint64_t change)
{
    struct writer w = {.tags = tags, .count = count};
    for (unsigned i = 0; i < count; i++)
        w.used += strlen(tags->pairs[i].value) + 1;
    add(&w, TAG_CHANGE, "%" PRIu64, change);
    return w.count;
}

uint64_t tags_change(const struct store_op *head, const struct meta_volume *volume, uint64_t object)
{
    uint64_t number = 0;
    bool ours = tags_compare(head, volume, object, NULL) == TAGS_SAME;
    return ours && parse_number(store_op_meta(head, TAG_CHANGE), 10, UINT64_MAX, &number) ? number
                                                                                          : 0;
}

bool tags_parse(const struct store_op *head, struct meta_attr *attr)
{
    uint64_t mode, uid, gid, mtime;
    if (!store_op_meta(head, TAG_VOLUME) ||
        !parse_number(store_op_meta(head, TAG_MODE), 8, 07777, &mode) ||
        !parse_number(store_op_meta(head, TAG_UID), 10, UINT32_MAX - 1, &uid) ||
        !parse_number(store_op_meta(head, TAG_GID), 10, UINT32_MAX - 1, &gid) ||
        !parse_time(store_op_meta(head, TAG_MTIME), &mtime))
        return false;
    attr->mode = S_IFREG | (uint32_t)mode;
    attr->uid = (uint32_t)uid;
    attr->gid = (uint32_t)gid;
    attr->atime_ns = attr->mtime_ns = attr->ctime_ns = attr->btime_ns = mtime;
    return true;
}

enum tags_match tags_compare(const struct store_op *head, const struct meta_volume *volume,
                             uint64_t object, uint64_t *found)
{
    const char *id = store_op_meta(head, TAG_VOLUME);
    uint64_t number;
    if (!id || strcmp(id, volume->id) ||
        !parse_number(store_op_meta(head, TAG_OBJECT), 10, UINT64_MAX, &number))
        return TAGS_NONE;
    if (found)
        *found = number;
    return number == object ? TAGS_SAME : TAGS_OTHER;
}
