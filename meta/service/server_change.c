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
    change->number = ++volume->change_count;
    change->volume = volume;
    change->job = job;
    change->published = change->made = false;
    change->holds = NULL;
    change->ino_count = 0;
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
    if (session->held_by == change->number && session->held_upto >= sequence)
        return;
    session->held_by = change->number;
    session->held_upto = sequence;
    session_hold(session, sequence, change);
}

void change_saw(struct change *change, struct session *by, uint64_t ino)
{
    struct server_volume *volume = change->volume;
    const struct touched *touched = NULL;
    const struct hold *hold, *next;
    if (volume->recovery)
        DL_FOREACH_SAFE2(volume->recovery->holds, hold, next, mine_next)
        {
            if (hold->session != by)
                change_hold(change, hold->session, hold->sequence);
        }
    if (ino && volume->touched)
        HASH_FIND(hh, volume->touched, &ino, sizeof(ino), touched);
    for (unsigned i = 0; touched && i < touched->count; i++) {
        const struct wait *wait = &touched->waits[i];
        if (wait->session != by && wait->sequence > wait->session->confirmed)
            change_hold(change, wait->session, wait->sequence);
    }
}

void change_touch(struct change *change, uint64_t ino)
{
    if (!ino)
        return;
    for (unsigned i = 0; i < change->ino_count; i++)
        if (change->inos[i] == ino)
            return;
    if (change->ino_count < CHANGE_INOS_MAX)
        change->inos[change->ino_count++] = ino;
}

static bool add_wait(struct touched *touched, unsigned *at, const struct hold *hold)
{
    unsigned i = *at;
    /* Changes of one time wait for the same sessions in the same order. */
    if (i >= touched->count || touched->waits[i].session != hold->session)
        for (i = 0; i < touched->count && touched->waits[i].session != hold->session; i++)
            ;
    if (i == touched->cap) {
        unsigned cap = touched->cap ? touched->cap * 2 : 8;
        struct wait *waits = realloc(touched->waits, cap * sizeof(*waits));
        if (!waits)
            return false;
        touched->waits = waits;
        touched->cap = cap;
    }
    if (i == touched->count)
        touched->waits[touched->count++] = (struct wait){.session = hold->session};
    touched->waits[i].sequence = MAX(touched->waits[i].sequence, hold->sequence);
    *at = i + 1;
    return true;
}

static struct touched *find_or_make(struct server_volume *volume, uint64_t ino)
{
    struct touched *touched;
    HASH_FIND(hh, volume->touched, &ino, sizeof(ino), touched);
    if (!touched) {
        touched = calloc(1, sizeof(*touched));
        if (!touched)
            return NULL;
        touched->ino = ino;
        HASH_ADD(hh, volume->touched, ino, sizeof(touched->ino), touched);
    }
    touched->refs++;
    return touched;
}

/* Without memory others may see it a moment too early; whoever caches it is waited for all the
 * same.
 */
void change_publish(struct change *change)
{
    struct server_volume *volume = change->volume;
    const struct hold *hold;
    if (change->published || !change->holds)
        return;
    change->published = true;
    for (unsigned i = 0; i < change->ino_count; i++) {
        struct touched *touched = change->touched[i] = find_or_make(volume, change->inos[i]);
        unsigned at = 0;
        if (!touched)
            continue;
        DL_FOREACH2(change->holds, hold, mine_next)
        {
            if (!add_wait(touched, &at, hold))
                break;
        }
    }
}

static void withdraw(struct change *change)
{
    struct server_volume *volume = change->volume;
    if (!change->published)
        return;
    change->published = false;
    for (unsigned i = 0; i < change->ino_count; i++) {
        struct touched *touched = change->touched[i];
        if (!touched || --touched->refs)
            continue;
        HASH_DEL(volume->touched, touched);
        free(touched->waits);
        free(touched);
    }
}

void change_forget(struct server_volume *volume, const struct session *session)
{
    for (struct touched *touched = volume->touched; touched; touched = touched->hh.next)
        for (unsigned i = 0; i < touched->count; i++)
            if (touched->waits[i].session == session)
                touched->waits[i--] = touched->waits[--touched->count];
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
