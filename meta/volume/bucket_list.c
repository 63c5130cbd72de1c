#include "bucket_list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"

struct bucket_page {
    struct list_page page;
    struct store_op op;
    struct bucket_list *list;
    char *token, *start_after; /* owned */
    struct bucket_page *next;  /* of the answers */
};

static void page_free(struct bucket_page *p)
{
    if (!p)
        return;
    store_op_reset(&p->op);
    list_page_done(&p->page);
    free(p->token);
    free(p->start_after);
    free(p);
}

/* Store loop. */
static void listed(struct store_op *op)
{
    struct bucket_page *p = op->arg;
    struct bucket_list *list = p->list;
    pthread_mutex_lock(&list->lock);
    LL_PREPEND(list->answers, p);
    pthread_cond_signal(&list->came);
    pthread_mutex_unlock(&list->lock);
}

static int submit(struct bucket_list *list, struct bucket_page *p, const char *start_after,
                  const char *token)
{
    p->list = list;
    p->token = token ? strdup(token) : NULL;
    p->start_after = start_after ? strdup(start_after) : NULL;
    if ((token && !p->token) || (start_after && !p->start_after))
        return -ENOMEM;
    p->op = (struct store_op){.kind = list->kind,
                              .priority = STORE_NORMAL,
                              .prefix = list->plan.range.prefix,
                              .token = p->token,
                              .start_after = p->start_after,
                              .done = listed,
                              .arg = p};
    list->in_flight++;
    store_submit(list->store, &p->op);
    return 0;
}

static void fail(struct bucket_list *list, int rc, const struct error *error)
{
    if (list->failed)
        return;
    list->failed = rc;
    if (error)
        list->error = *error;
    else
        error_set(&list->error, rc, "cannot list \"%s\": %s", list->plan.range.prefix,
                  rc == -EIO ? "the server does not list keys in order" : strerror(-rc));
}

/* As many requests as there may be. */
static void ask(struct bucket_list *list)
{
    while (!list->failed) {
        const char *start_after = NULL, *token = NULL;
        struct bucket_page *p = calloc(1, sizeof(*p));
        if (!p || !list_plan_ask(&list->plan, &p->page, &start_after, &token)) {
            page_free(p);
            return;
        }
        int rc = submit(list, p, start_after, token);
        if (rc)
            fail(list, rc, NULL);
    }
}

/* Looks at the answers that have come; waits for one if `wait`. */
static void look(struct bucket_list *list, bool wait)
{
    pthread_mutex_lock(&list->lock);
    while (wait && !list->answers)
        pthread_cond_wait(&list->came, &list->lock);
    struct bucket_page *came = TAKE_PTR(list->answers), *next;
    pthread_mutex_unlock(&list->lock);
    for (; came; came = next) {
        next = came->next;
        list->in_flight--;
        int rc = came->op.result;
        if (rc)
            fail(list, rc, &came->op.error);
        else if (!list->failed)
            rc = list_plan_answer(&list->plan, &came->page, &came->op.out_list);
        if (rc)
            fail(list, rc, NULL);
    }
}

void bucket_list_init(struct bucket_list *list, struct store *store, enum store_kind kind,
                      const struct list_range *range)
{
    *list = (struct bucket_list){.store = store, .kind = kind};
    pthread_mutex_init(&list->lock, NULL);
    pthread_cond_init(&list->came, NULL);
    bool divided = kind == STORE_LIST && store_caps_at(store, range->prefix)->lists_at_once;
    int rc = list_plan_init(&list->plan, range, divided ? LIST_STREAMS : 1);
    if (rc)
        fail(list, rc, NULL);
    ask(list);
}

int bucket_list_next(struct bucket_list *list, const struct store_list **page, struct error *error)
{
    page_free(TAKE_PTR(list->now));
    struct list_page *taken = NULL;
    look(list, false);
    while (!list->failed) {
        ask(list);
        taken = list_plan_take(&list->plan);
        if (taken || !list->plan.parts)
            break;
        if (list->in_flight)
            look(list, true);
        else
            fail(list, -ENOMEM, NULL); /* nothing could be asked */
    }
    if (list->failed) {
        if (error)
            *error = list->error;
        return list->failed;
    }
    if (!taken)
        return 0;
    list->now = container_of(taken, struct bucket_page, page);
    list->view =
        (struct store_list){.entries = list->now->op.out_list.entries, .count = taken->count};
    *page = &list->view;
    return 1;
}

void bucket_list_done(struct bucket_list *list)
{
    struct list_page *page;
    while (list->in_flight)
        look(list, true);
    while ((page = list_plan_drop(&list->plan)))
        page_free(container_of(page, struct bucket_page, page));
    page_free(TAKE_PTR(list->now));
    list_plan_done(&list->plan);
    pthread_cond_destroy(&list->came);
    pthread_mutex_destroy(&list->lock);
}
