/*
 * Structured log: one line for each record, `time level event key=value …`. The one process-wide
 * object of Sluice: log_init is called once by main before threads start; without it records go to
 * stderr at LOG_INFO.
 *
 * Any thread may log. A record is written with one write(2); no lock is held. Values are quoted
 * when they need it.
 */
#ifndef SLUICE_BASE_LOG_H
#define SLUICE_BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* `path`: a file to append to (created 0640), or NULL for stderr. With stderr connected to the
 * journal (JOURNAL_STREAM set) lines carry the syslog prefix <N> in place of time and level.
 * Returns 0 or -errno of open(2), and then nothing changed. */
int log_init(enum log_level level, const char *path);
/* Opens the same path again (log rotation). */
int log_reopen(void);
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);
/* "error", "warn", "info", "debug" → level; -EINVAL otherwise. */
int log_level_parse(const char *name, enum log_level *level);

/* `event` is a fixed short text ("store request failed"); `fmt` makes the key=value part: "key=%s
 * code=%d". fmt may be "". Use log_quote for values that come from outside. */
void log_write(enum log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(event, ...) log_write(LOG_ERROR, event, "" __VA_ARGS__)
#define log_warn(event, ...) log_write(LOG_WARN, event, "" __VA_ARGS__)
#define log_info(event, ...) log_write(LOG_INFO, event, "" __VA_ARGS__)
#define log_debug(event, ...)                                                                      \
    do {                                                                                           \
        if (log_enabled(LOG_DEBUG))                                                                \
            log_write(LOG_DEBUG, event, "" __VA_ARGS__);                                           \
    } while (0)

/* A static one of these at a call site lets through at most `burst` records per `period_ms`; what
 * was left out is counted, and the next record that passes says how many (suppressed=N). */
struct log_limit {
    uint32_t burst, period_ms;
    _Atomic uint64_t window_start_ms;
    _Atomic uint32_t used, suppressed;
};
#define LOG_LIMIT(burst_, period_ms_)                                                              \
    {                                                                                              \
        .burst = (burst_), .period_ms = (period_ms_)                                               \
    }
void log_limited(struct log_limit *limit, enum log_level level, const char *event, const char *fmt,
                 ...) __attribute__((format(printf, 4, 5)));

/* Text from outside as a value: quoted and escaped if it holds spaces, quotes or control
 * characters; cut at buf_len. Returns buf. */
const char *log_quote(const char *text, char *buf, unsigned long buf_len);

#endif
