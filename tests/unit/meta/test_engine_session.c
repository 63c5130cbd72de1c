/* Changes of sessions: applied once, however often they are sent. */
#include "engine_test.h"

#define FILE_MODE (S_IFREG | 0644)

static int begin(struct world *w, uint64_t session)
{
    struct meta_op op = {
        .kind = META_SESSION_BEGIN, .session = session, .data = "record", .data_len = 6};
    return world_apply(w, &op);
}

static int end(struct world *w, uint64_t session)
{
    struct meta_op op = {.kind = META_SESSION_END, .session = session};
    return world_apply(w, &op);
}

static int make_as(struct world *w, uint64_t session, uint64_t request, const char *name,
                   bool retry)
{
    struct meta_op op = {.kind = META_MKNOD,
                         .parent = 1,
                         .name = name_of(name),
                         .attr = {.mode = FILE_MODE},
                         .retry = retry,
                         .session = session,
                         .request = request};
    return world_apply(w, &op);
}

TEST(engine_session, applies_a_repeated_change_once)
{
    struct world w;
    world_init(&w);
    check_int(begin(&w, 7), 0);
    check_int(make_as(&w, 7, 1, "a", false), 0);
    uint64_t ino = w.reply.attr.ino, applied = engine_sequence(w.engine);
    check_int(make_as(&w, 7, 1, "a", true), 0);
    check_uint(w.reply.attr.ino, ino);
    check_uint(engine_sequence(w.engine), applied);
    /* One that never came is applied now. */
    check_int(make_as(&w, 7, 2, "b", true), 0);
    check(w.reply.attr.ino != ino);
    check_int(make_as(&w, 7, 3, "a", true), -EEXIST);
    world_done(&w);
}

TEST(engine_session, remembers_over_a_restart)
{
    struct world w;
    world_init(&w);
    check_int(begin(&w, 7), 0);
    check_int(make_as(&w, 7, 1, "a", false), 0);
    uint64_t ino = w.reply.attr.ino;
    world_reopen(&w);
    check_int(make_as(&w, 7, 1, "a", true), 0);
    check_uint(w.reply.attr.ino, ino);
    check_int(make_as(&w, 8, 1, "b", false), -ESTALE);
    world_done(&w);
}

TEST(engine_session, refuses_what_comes_after_its_end)
{
    struct world w;
    world_init(&w);
    check_int(make_as(&w, 7, 1, "a", false), -ESTALE);
    check_int(begin(&w, 7), 0);
    check_int(make_as(&w, 7, 1, "a", false), 0);
    check_int(end(&w, 7), 0);
    check_int(make_as(&w, 7, 1, "a", true), -ESTALE);
    check_int(make_as(&w, 7, 2, "b", false), -ESTALE);
    world_reopen(&w);
    check_int(make_as(&w, 7, 2, "b", false), -ESTALE);
    /* Nothing of it is left for another session. */
    check_int(begin(&w, 7), 0);
    check_int(make_as(&w, 7, 1, "b", true), 0);
    world_done(&w);
}

TEST(engine_session, never_applies_one_whose_answer_is_forgotten)
{
    struct world w;
    char name[16];
    world_init(&w);
    check_int(begin(&w, 7), 0);
    for (unsigned i = 1; i <= META_SESSION_WINDOW + 1; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        check_int(make_as(&w, 7, i, name, false), 0);
    }
    check_int(unlink_at(&w, 1, "f1", 0), 0);
    check_int(make_as(&w, 7, 1, "f1", true), -ESTALE);
    check_int(make_as(&w, 7, 2, "f2", true), 0);
    world_done(&w);
}
