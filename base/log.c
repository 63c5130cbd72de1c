#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define LINE_MAX_BYTES 4096 /* a longer record is cut, and says so */

/* Set by log_init before threads start, but for the level. A new file takes the place of the old
 * one under the same descriptor number (log_reopen), so that writers need no lock. */
static struct {
    _Atomic int level;
    int fd;
    bool journal;
    char path[PATH_MAX];
} sink = {.level = LOG_INFO, .fd = STDERR_FILENO};

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const int syslog_priorities[] = {3, 4, 6, 7};

static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat st;
    char expected[64];
    if (!stream || fstat(STDERR_FILENO, &st) < 0)
        return false;
    snprintf(expected, sizeof(expected), "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    return !strcmp(stream, expected);
}

static int open_path(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
    return fd < 0 ? -errno : fd;
}

int log_init(enum log_level level, const char *path)
{
    int fd = STDERR_FILENO;
    if (path) {
        if (strlen(path) >= sizeof(sink.path))
            return -ENAMETOOLONG;
        fd = open_path(path);
        if (fd < 0)
            return fd;
    }
    if (sink.fd != STDERR_FILENO)
        close(sink.fd);
    sink.fd = fd;
    sink.journal = !path && stderr_is_journal();
    snprintf(sink.path, sizeof(sink.path), "%s", path ? path : "");
    log_set_level(level);
    return 0;
}

int log_reopen(void)
{
    if (!sink.path[0])
        return 0;
    cleanup(close_fd) int fd = open_path(sink.path);
    if (fd < 0)
        return fd;
    return dup3(fd, sink.fd, O_CLOEXEC) < 0 ? -errno : 0;
}

void log_set_level(enum log_level level)
{
    /* relaxed: a record more or less around a change of level does no harm */
    atomic_store_explicit(&sink.level, (int)level, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&sink.level, memory_order_relaxed);
}

int log_level_parse(const char *name, enum log_level *level)
{
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        if (!strcmp(name, level_names[i])) {
            *level = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

static size_t put_head(char *line, size_t size, enum log_level level, const char *event)
{
    int n;
    if (sink.journal) {
        n = snprintf(line, size, "<%d>%s", syslog_priorities[level], event);
    } else {
        uint64_t now = clock_wall_ns();
        time_t seconds = (time_t)(now / NS_PER_S);
        struct tm tm;
        char stamp[32] = "";
        if (gmtime_r(&seconds, &tm))
            strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
        n = snprintf(line, size, "%s.%03uZ %s %s", stamp, (unsigned)(now % NS_PER_S / NS_PER_MS),
                     level_names[level], event);
    }
    return n < 0 ? 0 : MIN((size_t)n, size - 1);
}

static void write_line(char *line, size_t len)
{
    /* Whatever the values hold, a record stays one line. */
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = ' ';
    }
    line[len] = '\n';
    ssize_t n;
    do {
        n = write(sink.fd, line, len + 1);
    } while (n < 0 && errno == EINTR);
    /* Where the log itself cannot be written there is nowhere to say so. */
}

static void log_writev(enum log_level level, const char *event, uint32_t suppressed,
                       const char *fmt, va_list ap) __attribute__((format(printf, 4, 0)));

static void log_writev(enum log_level level, const char *event, uint32_t suppressed,
                       const char *fmt, va_list ap)
{
    static const char cut_mark[] = " cut=true";
    int saved_errno = errno;
    char line[LINE_MAX_BYTES + sizeof(cut_mark) + 1];
    size_t len = put_head(line, LINE_MAX_BYTES, level, event);
    if (suppressed && len < LINE_MAX_BYTES) {
        int n = snprintf(line + len, LINE_MAX_BYTES - len, " suppressed=%u", suppressed);
        len = MIN(len + (size_t)MAX(n, 0), (size_t)LINE_MAX_BYTES - 1);
    }
    if (*fmt && len < LINE_MAX_BYTES - 1) {
        line[len++] = ' ';
        int n = vsnprintf(line + len, LINE_MAX_BYTES - len, fmt, ap);
        if (n > 0 && (size_t)n >= LINE_MAX_BYTES - len) {
            len = LINE_MAX_BYTES - 1;
            memcpy(line + len, cut_mark, sizeof(cut_mark) - 1);
            len += sizeof(cut_mark) - 1;
        } else if (n > 0) {
            len += (size_t)n;
        }
    }
    write_line(line, len);
    errno = saved_errno;
}

void log_write(enum log_level level, const char *event, const char *fmt, ...)
{
    if (!log_enabled(level))
        return;
    va_list ap;
    va_start(ap, fmt);
    log_writev(level, event, 0, fmt, ap);
    va_end(ap);
}

/* All relaxed: the counts are for people; at the change of a window two threads may let through
 * one record more than the burst. */
static bool limit_passes(struct log_limit *limit, uint32_t *suppressed)
{
    uint64_t now = clock_monotonic_ms() + 1; /* 0 means: no window yet */
    uint64_t start = atomic_load_explicit(&limit->window_start_ms, memory_order_relaxed);
    if ((start == 0 || now - start >= limit->period_ms) &&
        atomic_compare_exchange_strong_explicit(&limit->window_start_ms, &start, now,
                                                memory_order_relaxed, memory_order_relaxed))
        atomic_store_explicit(&limit->used, 0, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&limit->used, 1, memory_order_relaxed) >= limit->burst) {
        atomic_fetch_add_explicit(&limit->suppressed, 1, memory_order_relaxed);
        return false;
    }
    *suppressed = atomic_exchange_explicit(&limit->suppressed, 0, memory_order_relaxed);
    return true;
}

void log_limited(struct log_limit *limit, enum log_level level, const char *event, const char *fmt,
                 ...)
{
    uint32_t suppressed;
    if (!log_enabled(level) || !limit_passes(limit, &suppressed))
        return;
    va_list ap;
    va_start(ap, fmt);
    log_writev(level, event, suppressed, fmt, ap);
    va_end(ap);
}

static bool needs_quotes(const char *text)
{
    if (!*text)
        return true;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p <= 0x20 || *p == 0x7f || *p == '"' || *p == '\\' || *p == '=')
            return true;
    }
    return false;
}

/* The escaped form of c in `out` (5 bytes at most, with NUL); returns its length. */
static size_t escape(unsigned char c, char out[5])
{
    int n;
    if (c == '"' || c == '\\')
        n = snprintf(out, 5, "\\%c", c);
    else if (c == '\n')
        n = snprintf(out, 5, "\\n");
    else if (c < 0x20 || c == 0x7f)
        n = snprintf(out, 5, "\\x%02x", c);
    else
        n = snprintf(out, 5, "%c", c);
    return (size_t)n;
}

const char *log_quote(const char *text, char *buf, unsigned long buf_len)
{
    if (buf_len == 0)
        return buf;
    if (!text)
        text = "";
    if (!needs_quotes(text) || buf_len < 3) {
        snprintf(buf, buf_len, "%s", text);
        return buf;
    }
    size_t len = 0;
    buf[len++] = '"';
    for (const char *p = text; *p; p++) {
        char form[5];
        size_t n = escape((unsigned char)*p, form);
        if (len + n + 2 > buf_len) /* the closing quote and NUL */
            break;
        memcpy(buf + len, form, n);
        len += n;
    }
    buf[len++] = '"';
    buf[len] = '\0';
    return buf;
}
