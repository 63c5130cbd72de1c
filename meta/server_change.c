/*
 * A change is answered when every session that may have the old state has confirmed that it dropped
 * it. Until then nobody else may see the new state either, or there would be no one order of what
 * programs see: so whatever shows the change, a read or a change that failed or came after it,
 * waits for the same confirmations.
 *
 * Nobody waits for a confirmation of its own session: a kernel drops the pages of a file only when
 * the read of them that is under way has ended.
 */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "server_impl.h"

void change_init(struct change *change, struct server_volume *volume, struct job *job)
{
    change->volume = volume;
    change->job = job;
    change->published = change->made = false;
    change->holds = NULL;
    change->touch_count = 0;
}

struct change *change_new(struct server_volume *volume)
{
    struct change *change = malloc(sizeof(*change));
    if (change)
        change_init(change, volume, NULL);
    return change;
}

void change_hold(struct change *change, struct session *session, uint64_t sequence)
{
    const struct hold *hold;
    DL_FOREACH2(change->holds, hold, mine_next)
    {
        if (hold->session == session && hold->sequence >= sequence)
            return;
    }
    session_hold(session, sequence, change);
}

static void wait_as(struct change *change, const struct session *by, const struct change *before)
{
    struct hold *hold, *next;
    DL_FOREACH_SAFE2(before->holds, hold, next, mine_next)
    {
        if (hold->session != by)
            change_hold(change, hold->session, hold->sequence);
    }
}

void change_saw(struct change *change, struct session *by, uint64_t ino)
{
    struct server_volume *volume = change->volume;
    struct touch *touch;
    if (volume->recovery)
        wait_as(change, by, volume->recovery);
    if (!ino || !volume->touched)
        return;
    HASH_FIND(hh, volume->touched, &ino, sizeof(ino), touch);
    for (; touch; touch = touch->next)
        wait_as(change, by, touch->change);
}

void change_touch(struct change *change, uint64_t ino)
{
    if (!ino)
        return;
    for (unsigned i = 0; i < change->touch_count; i++)
        if (change->touches[i].ino == ino)
            return;
    if (change->touch_count < CHANGE_INOS_MAX)
        change->touches[change->touch_count++].ino = ino;
}

void change_publish(struct change *change)
{
    struct server_volume *volume = change->volume;
    if (change->published || !change->holds)
        return;
    change->published = true;
    for (unsigned i = 0; i < change->touch_count; i++) {
        struct touch *touch = &change->touches[i], *first;
        touch->change = change;
        touch->prev = touch;
        touch->next = NULL;
        HASH_FIND(hh, volume->touched, &touch->ino, sizeof(touch->ino), first);
        if (first)
            DL_APPEND(first, touch);
        else
            HASH_ADD(hh, volume->touched, ino, sizeof(touch->ino), touch);
    }
}

static void withdraw(struct change *change)
{
    struct server_volume *volume = change->volume;
    if (!change->published)
        return;
    change->published = false;
    for (unsigned i = 0; i < change->touch_count; i++) {
        struct touch *touch = &change->touches[i], *first;
        HASH_FIND(hh, volume->touched, &touch->ino, sizeof(touch->ino), first);
        if (first == touch)
            HASH_DEL(volume->touched, first);
        struct touch *list = first;
        DL_DELETE(list, touch);
        if (first == touch && list)
            HASH_ADD(hh, volume->touched, ino, sizeof(list->ino), list);
    }
}

static void done(struct change *change)
{
    if (change->volume->recovery == change)
        change->volume->recovery = NULL;
    if (change->job)
        job_answer(change->job);
    else
        free(change);
}

void change_made(struct change *change)
{
    change->made = true;
    change_publish(change);
    if (!change->holds)
        done(change);
}

void change_released(struct change *change)
{
    if (change->holds)
        return;
    withdraw(change);
    if (change->made)
        done(change);
}

void change_let_go(struct change *change)
{
    struct hold *hold, *next;
    DL_FOREACH_SAFE2(change->holds, hold, next, mine_next)
    {
        DL_DELETE2(change->holds, hold, mine_prev, mine_next);
        DL_DELETE(hold->session->holds, hold);
        free(hold);
    }
    change_released(change);
}
