#include "inventory_convert.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define SQL_MAX (2 * PATH_MAX + 1024)
#define WORDS_MAX 300

/* Nothing is imported from where the user happens to be. */
#define PYTHON_BEGIN "import sys\nsys.path = [p for p in sys.path if p]\n"

static const char python_check[] =
    PYTHON_BEGIN "import importlib\nimportlib.import_module('pyarrow.' + sys.argv[1])\n";

static const char python_rows[] = PYTHON_BEGIN
    "import urllib.parse\n"
    "kind, path = sys.argv[1:3]\n"
    "wanted = ['bucket', 'key', 'size', 'last_modified_date', 'e_tag', 'is_latest',\n"
    "          'is_delete_marker']\n"
    "if kind == 'orc':\n"
    "    import pyarrow.orc\n"
    "    file = pyarrow.orc.ORCFile(path)\n"
    "    there = [name for name in wanted if name in file.schema.names]\n"
    "    batches = (file.read_stripe(i, there) for i in range(file.nstripes))\n"
    "else:\n"
    "    import pyarrow.parquet\n"
    "    file = pyarrow.parquet.ParquetFile(path)\n"
    "    there = [name for name in wanted if name in file.schema_arrow.names]\n"
    "    batches = file.iter_batches(batch_size=8192, columns=there)\n"
    "def text(value):\n"
    "    if value is None:\n"
    "        return ''\n"
    "    if isinstance(value, bool):\n"
    "        return 'true' if value else 'false'\n"
    "    if hasattr(value, 'strftime'):\n"
    "        return value.strftime('%Y-%m-%dT%H:%M:%S') + '.%03dZ' % (value.microsecond // 1000)\n"
    "    return str(value)\n"
    "for batch in batches:\n"
    "    at = batch.schema.get_field_index\n"
    "    columns = {name: batch.column(at(name)).to_pylist() for name in there}\n"
    "    empty = [None] * batch.num_rows\n"
    "    for row in zip(*(columns.get(name, empty) for name in wanted)):\n"
    "        row = [text(value) for value in row]\n"
    "        row[1] = urllib.parse.quote(row[1])\n"
    "        print(','.join('\"' + value.replace('\"', '\"\"') + '\"' for value in row))\n";

static bool find_program(const char *name, char out[PATH_MAX])
{
    const char *path = getenv("PATH");
    for (const char *at = path ? path : ""; *at;) {
        size_t len = strcspn(at, ":");
        if (at[0] == '/' && len < PATH_MAX &&
            snprintf(out, PATH_MAX, "%.*s/%s", (int)len, at, name) < PATH_MAX &&
            access(out, X_OK) == 0)
            return true;
        at += len + (at[len] == ':');
    }
    return false;
}

/* `out` -1: what it writes is not wanted. */
static int spawn(const char *const argv[], int out, int words, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int rc = posix_spawn_file_actions_addchdir_np(&actions, "/");
    rc = rc ? rc : posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (!rc && out < 0)
        rc = posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    else if (!rc)
        rc = posix_spawn_file_actions_adddup2(&actions, out, 1);
    rc = rc ? rc : posix_spawn_file_actions_adddup2(&actions, words, 2);
    rc = rc ? rc : posix_spawn(pid, argv[0], &actions, &attributes, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return -rc;
}

static int wait_for(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return status;
}

/* The last line that it said. */
static void last_words(int fd, char out[WORDS_MAX])
{
    char text[4 * WORDS_MAX];
    off_t end = lseek(fd, 0, SEEK_END);
    ssize_t n =
        end > 0 ? pread(fd, text, sizeof(text) - 1, MAX(end - (off_t)sizeof(text) + 1, 0)) : 0;
    text[MAX(n, 0)] = '\0';
    size_t len = strlen(text);
    while (len && strchr(" \r\n", text[len - 1]))
        text[--len] = '\0';
    const char *line = strrchr(text, '\n');
    snprintf(out, WORDS_MAX, "%s", line ? line + 1 : text);
}

static const char *python_kind(enum inventory_format format)
{
    return format == INVENTORY_ORC ? "orc" : "parquet";
}

static bool has_pyarrow(const char *python, enum inventory_format format)
{
    const char *const argv[] = {python, "-c", python_check, python_kind(format), NULL};
    cleanup(close_fd) int words = memfd_create("words", MFD_CLOEXEC);
    pid_t pid;
    return words >= 0 && spawn(argv, -1, words, &pid) == 0 && wait_for(pid) == 0;
}

int inventory_converter_find(enum inventory_format format, struct inventory_converter *out,
                             struct error *error)
{
    *out = (struct inventory_converter){0};
    if (format == INVENTORY_PARQUET && find_program("duckdb", out->program)) {
        out->duckdb = true;
        return 0;
    }
    if (find_program("python3", out->program) && has_pyarrow(out->program, format))
        return 0;
    return error_set(
        error, -EOPNOTSUPP,
        "the inventory's files are %s: to read them a python3 with pyarrow%s is needed "
        "on PATH (python3 -m pip install pyarrow)",
        format == INVENTORY_ORC ? "ORC" : "Parquet",
        format == INVENTORY_ORC ? "" : ", or the program duckdb,");
}

/* A text in SQL. */
static void quote(const char *text, char out[2 * PATH_MAX])
{
    size_t n = 0;
    for (; *text && n < 2 * PATH_MAX - 2; text++) {
        if (*text == '\'')
            out[n++] = '\'';
        out[n++] = *text;
    }
    out[n] = '\0';
}

static void make_sql(const struct inventory_manifest *m, const char *path, char out[SQL_MAX])
{
    char quoted[2 * PATH_MAX];
    quote(path, quoted);
    snprintf(out, SQL_MAX,
             "SET threads = 2; COPY (SELECT %s, url_encode(key), size, "
             "strftime(last_modified_date, '%%Y-%%m-%%dT%%H:%%M:%%S.%%gZ'), e_tag, %s, %s "
             "FROM read_parquet('%s')) TO '/dev/stdout' (FORMAT csv, HEADER false, FORCE_QUOTE *)",
             m->has_bucket ? "bucket" : "''", m->has_latest ? "is_latest" : "NULL",
             m->has_deleted ? "is_delete_marker" : "NULL", quoted);
}

int inventory_convert_begin(const struct inventory_converter *converter,
                            const struct inventory_manifest *manifest, const char *path,
                            struct inventory_child *child, int *fd, struct error *error)
{
    char absolute[PATH_MAX], sql[SQL_MAX];
    int pipe_fds[2];
    *child = (struct inventory_child){.words = -1};
    if (!realpath(path, absolute))
        return error_set(error, -errno, "%s: %s", path, strerror(errno));
    make_sql(manifest, absolute, sql);
    const char *const duckdb[] = {
        converter->program, "-init", "/dev/null", "-bail", "-c", sql, NULL};
    const char *const python[] = {
        converter->program, "-c", python_rows, python_kind(manifest->format), absolute, NULL};
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return -errno;
    cleanup(close_fd) int out = pipe_fds[1];
    child->words = memfd_create("words", MFD_CLOEXEC);
    int rc = child->words < 0
                 ? -errno
                 : spawn(converter->duckdb ? duckdb : python, out, child->words, &child->pid);
    if (rc) {
        close(pipe_fds[0]);
        if (child->words >= 0)
            close(child->words);
        return error_set(error, rc, "%s: %s", converter->program, strerror(-rc));
    }
    *fd = pipe_fds[0];
    return 0;
}

int inventory_convert_end(struct inventory_child *child, bool whole, struct error *error)
{
    char words[WORDS_MAX];
    if (!whole)
        kill(child->pid, SIGKILL);
    int status = wait_for(child->pid);
    last_words(child->words, words);
    close(child->words);
    if (!whole || status == 0)
        return 0;
    if (status > 0 && WIFEXITED(status))
        return error_set(error, -EIO, "the program that converts it ended with %d: %s",
                         WEXITSTATUS(status), words);
    return error_set(error, -EIO, "the program that converts it was ended by signal %d: %s",
                     status > 0 ? WTERMSIG(status) : 0, words);
}
