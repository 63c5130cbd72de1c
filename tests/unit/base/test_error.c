#include "base/error.h"

#include <errno.h>

#include "test.h"

TEST(error_set, returns_the_code_and_fills_the_message)
{
    struct error e;
    memset(&e, 0xff, sizeof(e));
    check_int(error_set(&e, -ENOENT, "no %s in %d", "key", 7), -ENOENT);
    check_int(e.code, -ENOENT);
    check_int(e.http_status, 0);
    check_str(e.store_code, "");
    check_str(e.request_id, "");
    check_str(e.message, "no key in 7");
    check_str(error_text(&e), "no key in 7");
}

TEST(error_set, accepts_null)
{
    check_int(error_set(NULL, -EIO, "lost"), -EIO);
    check_int(error_prefix(NULL, "reading"), 0);
    error_clear(NULL);
    check_str(error_text(NULL), "");
}

TEST(error_set, makes_one_line)
{
    struct error e;
    error_set(&e, -EIO, "a\nb\rc\x1b[31md\x7f");
    check_str(e.message, "a b c [31md ");
}

TEST(error_set, cuts_long_messages)
{
    struct error e;
    char text[2000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    error_set(&e, -EIO, "%s", text);
    check_uint(strlen(e.message), sizeof(e.message) - 1);
    error_prefix(&e, "%s", text);
    check_uint(strlen(e.message), sizeof(e.message) - 1);
}

TEST(error_set, may_use_the_old_message)
{
    struct error e;
    error_set(&e, -EIO, "first");
    error_set(&e, -EINVAL, "second after %s", e.message);
    check_str(e.message, "second after first");
}

TEST(error_prefix, puts_the_context_in_front)
{
    struct error e;
    error_set(&e, -EIO, "short read");
    e.http_status = 500;
    check_int(error_prefix(&e, "object %d", 5), -EIO);
    check_str(e.message, "object 5: short read");
    check_int(e.http_status, 500);
    check_int(error_prefix(&e, "open"), -EIO);
    check_str(e.message, "open: object 5: short read");
}

TEST(error_prefix, names_the_code_where_there_is_no_message)
{
    struct error e = {.code = -ENOSPC};
    error_prefix(&e, "log");
    check_str(e.message, "log: No space left on device");
}

TEST(error_text, falls_back_to_the_code)
{
    struct error e;
    error_clear(&e);
    e.code = -ENOENT;
    check_str(error_text(&e), "No such file or directory");
    e.code = -99999;
    check_str(error_text(&e), "Unknown error");
}
