#include "notify_event.h"

#include <errno.h>

#include "test.h"

static char seen[4096];

static int take(void *arg, const struct notify_event *event)
{
    size_t len = strlen(seen);
    snprintf(seen + len, sizeof(seen) - len, "%s:%s;", event->bucket, event->key);
    return arg ? *(int *)arg : 0;
}

static int parse(const char *text, bool *more, struct error *error)
{
    seen[0] = '\0';
    return notify_events_parse(text, strlen(text), take, NULL, more, error);
}

#define RECORD(name, key)                                                                          \
    "{\"eventName\":\"" name "\",\"s3\":{\"bucket\":{\"name\":\"b\"},\"object\":{\"key\":\"" key   \
    "\",\"size\":3,\"eTag\":\"x\"}}}"

TEST(notify_events_parse, takes_records_and_decodes_keys)
{
    bool more;
    struct error error = {0};
    check_int(parse("{\"Records\":[" RECORD("ObjectCreated:Put", "a+b/%C3%BC%2B") "," RECORD(
                        "s3:ObjectRemoved:Delete", "gone") "]}",
                    &more, &error),
              2);
    check_str(seen, "b:a b/\xc3\xbc+;b:gone;");
    check_int(parse("{\"Service\":\"Amazon S3\",\"Event\":\"s3:TestEvent\"}", &more, &error), 0);
    check_int(parse("{\"Records\":[" RECORD("Replication:Done", "k") "]}", &more, &error), 1);
    check_str(seen, "");
}

TEST(notify_events_parse, refuses_the_whole_of_a_bad_one)
{
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"Records\":{}}",
        "{\"Records\":[" RECORD("ObjectCreated:Put", "good") ",{}]}",
        "{\"Records\":[" RECORD("ObjectCreated:Put", "%zz") "]}",
        "{\"Records\":[" RECORD("ObjectCreated:Put", "%00") "]}",
        "{\"Records\":[" RECORD("ObjectCreated:Put", "cut%4") "]}",
        "{\"Records\":[" RECORD("ObjectCreated:Put", "") "]}",
        "{\"Records\":[{\"eventName\":\"ObjectCreated:Put\",\"s3\":{}}]}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        bool more;
        struct error error = {0};
        check_int(parse(bad[i], &more, &error), -EINVAL);
        check(error.message[0] != '\0');
        check_str(seen, "");
    }
}

TEST(notify_events_parse, knows_a_beginning_and_ends_where_it_is_told)
{
    bool more = false;
    struct error error = {0};
    int stop = -EIO;
    const char *two =
        "{\"Records\":[" RECORD("ObjectCreated:Put", "a") "," RECORD("ObjectCreated:Put", "b") "]}";
    check_int(parse("{\"Records\":[", &more, &error), -EINVAL);
    check(more);
    check_int(parse("{\"Records\":}", &more, &error), -EINVAL);
    check(!more);
    seen[0] = '\0';
    check_int(notify_events_parse(two, strlen(two), take, &stop, &more, &error), -EIO);
    check_str(seen, "b:a;");
}
