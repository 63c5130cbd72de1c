#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#include "service/audit.h"
#include "test.h"

static char path[64];

static struct audit *make(unsigned slots, struct metrics *metrics)
{
    struct audit_config config = {.path = path, .slots = slots, .metrics = metrics};
    struct audit *audit = NULL;
    struct error error = {0};
    if (audit_open(&config, &audit, &error) < 0)
        test_fail("%s", error.message);
    return audit;
}

static void use_path(void)
{
    snprintf(path, sizeof(path), "/tmp/sluice-audit.XXXXXX");
    int fd = mkstemp(path);
    check(fd >= 0);
    close(fd);
    unlink(path);
}

static json_t *next_line(FILE *file)
{
    char line[8192];
    check(fgets(line, sizeof(line), file) != NULL);
    json_t *root = json_loads(line, 0, NULL);
    if (!root)
        test_fail("this is no JSON: %s", line);
    return root;
}

static const char *text_of(json_t *root, const char *key)
{
    const char *text = json_string_value(json_object_get(root, key));
    return text ? text : "(none)";
}

TEST(audit, a_record_is_a_line_whatever_is_in_it)
{
    use_path();
    struct audit *audit = make(0, NULL);
    char text[2000];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    struct audit_record record = {.event = "op",
                                  .op = "rename",
                                  .peer = "10.0.0.1:5",
                                  .token = "0123456789abcdef",
                                  .volume = "v",
                                  .client = text,
                                  .session = 7,
                                  .request = 9,
                                  .parent = 1,
                                  .name = {"a\n\"b\"", 5},
                                  .new_parent = 2,
                                  .new_name = {"\xff/", 2},
                                  .result = -EACCES};
    audit_put(audit, &record);
    audit_put(audit, &(struct audit_record){.event = "begin"});
    audit_put(NULL, &record);
    audit_free(audit);
    struct stat st;
    check_int(stat(path, &st), 0);
    check_uint(st.st_mode & 0777, 0600);
    FILE *file = fopen(path, "r");
    check(file != NULL);
    json_t *root = next_line(file);
    check_str(text_of(root, "event"), "op");
    check_str(text_of(root, "op"), "rename");
    check_str(text_of(root, "result"), "EACCES");
    check_str(text_of(root, "name"), "a\n\"b\"");
    check_str(text_of(root, "new_name_hex"), "ff2f");
    check_str(text_of(root, "token"), "0123456789abcdef");
    check_uint(json_integer_value(json_object_get(root, "request")), 9);
    check(strlen(text_of(root, "time")) == strlen("2026-01-01T00:00:00.000Z"));
    check(strlen(text_of(root, "client")) < 200);
    json_decref(root);
    root = next_line(file);
    check_str(text_of(root, "event"), "begin");
    check_str(text_of(root, "result"), "ok");
    json_decref(root);
    check(fgetc(file) == EOF);
    fclose(file);
    unlink(path);
}

TEST(audit, goes_on_in_a_new_file)
{
    char old[80];
    use_path();
    struct audit *audit = make(0, NULL);
    snprintf(old, sizeof(old), "%s.1", path);
    check_int(rename(path, old), 0);
    check_int(audit_reopen(audit), 0);
    audit_put(audit, &(struct audit_record){.event = "begin"});
    audit_free(audit);
    struct stat st;
    check_int(stat(path, &st), 0);
    check(st.st_size > 0);
    check_int(stat(old, &st), 0);
    check_int(st.st_size, 0);
    unlink(path);
    unlink(old);
}

/* A file that takes nothing: a pipe that nobody empties. */
TEST(audit, who_puts_a_record_never_waits)
{
    struct metrics *metrics = NULL;
    check_int(metrics_new(&metrics), 0);
    use_path();
    check_int(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    check(reader >= 0);
    struct audit *audit = make(16, metrics);
    char name[255];
    memset(name, 'n', sizeof(name));
    struct audit_record record = {.event = "op", .op = "mknod", .name = {name, sizeof(name)}};
    for (int i = 0; i < 2000; i++)
        audit_put(audit, &record);
    int64_t dropped = metrics_sum(metrics, "sluice_serve_audit_dropped_total");
    check(dropped > 0);
    /* Somebody reads again: the rest is written, and that something is missing. */
    static char all[2000 * 600];
    size_t len = 0;
    while (metrics_sum(metrics, "sluice_serve_audit_records_total") < 2001 - dropped) {
        ssize_t n = read(reader, all + len, sizeof(all) - len - 1);
        len += n > 0 ? (size_t)n : 0;
        usleep(100);
    }
    audit_free(audit);
    ssize_t n = read(reader, all + len, sizeof(all) - len - 1);
    len += n > 0 ? (size_t)n : 0;
    all[len] = '\0';
    size_t lines = 0;
    for (const char *p = all; (p = strchr(p, '\n')); p++)
        lines++;
    check_int(lines, 2001 - dropped);
    check(strstr(all, "\"event\":\"dropped\"") != NULL);
    close(reader);
    unlink(path);
    metrics_free(metrics);
}

TEST(audit, a_file_that_cannot_be_opened_is_said)
{
    struct audit_config config = {.path = "/proc/nonexistent/audit"};
    struct audit *audit = NULL;
    struct error error = {0};
    check_int(audit_open(&config, &audit, &error), -ENOENT);
    check(strstr(error.message, "/proc/nonexistent/audit") != NULL);
}
