/* The session with the service ends: what was begun in it does not land, what comes after it does.
 */
#include <errno.h>

#include "data_lib.h"

#define KIB 1024u

static struct data_test t;

static void begin(void)
{
    data_begin(&t);
}

static void end(void)
{
    data_end(&t);
}

TEST(lost, handles_end_and_new_ones_do_not, .init = begin, .fini = end)
{
    static uint8_t old[200 * KIB], new[300 * KIB];
    char byte;
    uint64_t a, b;
    random_fill(old, sizeof(old));
    random_fill(new, sizeof(new));
    struct data_handle *ha = data_test_create(&t, "a", &a), *hb = data_test_create(&t, "b", &b);
    check_int(data_test_write(ha, old, 0, sizeof(old)), sizeof(old));
    check_int(data_test_flush(ha), 0);
    check_int(data_test_write(ha, new, 0, sizeof(new)), sizeof(new));
    check_int(data_test_write(hb, new, 0, 10), 10);
    data_session_lost(t.data);
    check(data_handle_lost(ha));
    check_int(data_test_write(ha, new, 0, 1), -ESTALE);
    check_int((int)data_test_read(ha, 0, 1, &byte), -ESTALE);
    check_int(data_test_flush(ha), -ESTALE);
    check_int(data_test_flush(hb), -ESTALE);
    check_int(data_test_fallocate(hb, 0, 0, 100), -ESTALE);
    struct data_handle *again = data_test_handle(&t, b);
    check(!data_handle_lost(again));
    check_int(data_test_copy(ha, 0, again, 0, 10), -ESTALE);
    check_int(data_test_flush_all(&t), 0);
    data_test_check_committed(&t, a, old, sizeof(old)); /* nothing landed late */
    check_uint(data_test_attr(&t, b).size, 0);
    check_int(data_test_write(again, new, 0, 20), 20);
    check_int(data_test_flush(again), 0);
    data_test_check_committed(&t, b, new, 20);
    data_file_release(ha);
    data_file_release(hb);
    data_file_release(again);
}
