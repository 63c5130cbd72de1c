#include "bucket_list.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

static void listed(struct store_op *op)
{
    struct bucket_page *page = op->arg;
    sem_post(&page->done);
}

static void ask(struct bucket_list *list, struct bucket_page *page)
{
    page->op = (struct store_op){.kind = list->kind,
                                 .priority = STORE_NORMAL,
                                 .prefix = list->prefix,
                                 .token = page->token,
                                 .done = listed,
                                 .arg = page};
    page->asked = true;
    store_submit(list->store, &page->op);
}

static void release(struct bucket_page *page)
{
    if (!page->asked)
        return;
    store_op_reset(&page->op);
    free(TAKE_PTR(page->token));
    page->asked = false;
}

void bucket_list_init(struct bucket_list *list, struct store *store, enum store_kind kind,
                      const char *prefix)
{
    *list = (struct bucket_list){.store = store, .kind = kind, .prefix = prefix};
    for (unsigned i = 0; i < 2; i++)
        sem_init(&list->pages[i].done, 0, 0);
    ask(list, &list->pages[0]);
}

static void wait_for(struct bucket_page *page)
{
    while (sem_wait(&page->done) < 0 && errno == EINTR)
        ;
}

int bucket_list_next(struct bucket_list *list, const struct store_list **page, struct error *error)
{
    if (list->begun) {
        release(&list->pages[list->at]);
        list->at = 1 - list->at;
    }
    list->begun = true;
    struct bucket_page *now = &list->pages[list->at], *next = &list->pages[1 - list->at];
    if (!now->asked)
        return 0;
    wait_for(now);
    if (now->op.result) {
        if (error)
            *error = now->op.error;
        return now->op.result;
    }
    if (now->op.out_list.next_token) {
        next->token = strdup(now->op.out_list.next_token);
        if (!next->token)
            return -ENOMEM;
        ask(list, next);
    }
    *page = &now->op.out_list;
    return 1;
}

void bucket_list_done(struct bucket_list *list)
{
    struct bucket_page *next = &list->pages[1 - list->at];
    if (next->asked)
        wait_for(next);
    if (!list->begun)
        wait_for(&list->pages[0]);
    for (unsigned i = 0; i < 2; i++) {
        release(&list->pages[i]);
        sem_destroy(&list->pages[i].done);
    }
}
