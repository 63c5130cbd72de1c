#include "list_plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"

#define PART_PAGES 4   /* a part is to have so many */
#define PART_WAITING 8 /* pages of a part that wait to be taken */
#define WAITING_EACH 8 /* pages of all parts, for each stream */
#define EMPTY_FREE 2   /* parts that may be empty before they count */
#define EMPTY_SHARE 8  /* and of so many requests one */
#define AHEAD_MAX 128  /* pages */
#define LEARN_EACH 64  /* keys of a page */

struct list_part {
    struct list_part *prev, *next;
    char *after, *until; /* owned; NULL: no bound */
    char *token;         /* of the next request; owned */
    char *jump;          /* its start in place of a token; owned */
    char *last;          /* the last key that came; owned */
    bool begun, asking, ended;
    struct list_page *pages; /* in order: those that came, then the one that is asked for */
    unsigned count;
};

static void part_free(struct list_part *part)
{
    free(part->after);
    free(part->until);
    free(part->token);
    free(part->jump);
    free(part->last);
    free(part);
}

/* NULL copied is NULL. */
static int copy(const char *text, char **out)
{
    char *mine = text ? strdup(text) : NULL;
    if (text && !mine)
        return -ENOMEM;
    free(*out);
    *out = mine;
    return 0;
}

static struct list_part *part_new(const char *after, const char *until)
{
    struct list_part *part = calloc(1, sizeof(*part));
    if (part && (copy(after, &part->after) || copy(until, &part->until))) {
        part_free(part);
        return NULL;
    }
    return part;
}

int list_plan_init(struct list_plan *plan, const struct list_range *range, unsigned streams)
{
    *plan = (struct list_plan){.range = *range, .streams = streams};
    list_space_init(&plan->space, range->prefix, range->folders);
    const char *after = range->after && *range->after ? range->after : NULL;
    struct list_part *part = part_new(after, NULL);
    if (!part)
        return -ENOMEM;
    DL_APPEND(plan->parts, part);
    return 0;
}

void list_plan_done(struct list_plan *plan)
{
    struct list_part *part, *next;
    DL_FOREACH_SAFE(plan->parts, part, next)
    {
        DL_DELETE(plan->parts, part);
        part_free(part);
    }
    free(TAKE_PTR(plan->first));
    free(TAKE_PTR(plan->last));
    free(TAKE_PTR(plan->final));
}

void list_page_done(struct list_page *page)
{
    free(TAKE_PTR(page->begin));
    free(TAKE_PTR(page->end));
}

/* Dividing */

static bool may_divide(const struct list_plan *plan)
{
    return plan->streams > 1 && !plan->unordered && plan->first &&
           plan->empty <= EMPTY_FREE + plan->answered / EMPTY_SHARE;
}

static bool is_skipped(const struct list_plan *plan, const char *key)
{
    const char *skip = plan->range.skip;
    return skip && !strncmp(key, skip, strlen(skip));
}

/* Up to where keys of a part may be. NULL: not known. */
static const char *bound_of(const struct list_plan *plan, const struct list_part *part)
{
    const char *until = part->until;
    return plan->final && (!until || strcmp(plan->final, until) < 0) ? plan->final : until;
}

/* The first part that is long enough becomes two. The new one. */
static struct list_part *divide(struct list_plan *plan)
{
    struct list_part *part;
    char at[STORE_KEY_MAX + 1];
    DL_FOREACH(plan->parts, part)
    {
        const char *from = part->last ? part->last : part->after;
        const char *bound = bound_of(plan, part);
        /* Where the end is not known, one request looks for it at a time, farther each time. */
        if (part->ended || !from || (!bound && !part->last))
            continue;
        unsigned pages =
            bound ? PART_PAGES : (unsigned)MAX(PART_PAGES, MIN(plan->answered, AHEAD_MAX));
        struct list_guess guess = {plan->first, plan->last, from, bound, pages};
        if (!list_space_ahead(&plan->space, &guess, at) || is_skipped(plan, at))
            continue;
        struct list_part *rest = part_new(at, part->until);
        if (!rest || copy(at, &part->until)) {
            if (rest)
                part_free(rest);
            return NULL;
        }
        DL_APPEND_ELEM(plan->parts, part, rest);
        plan->divided++;
        return rest;
    }
    return NULL;
}

static bool has_room(const struct list_plan *plan)
{
    return plan->pages < WAITING_EACH * plan->streams;
}

static struct list_part *part_to_ask(struct list_plan *plan)
{
    struct list_part *part;
    DL_FOREACH(plan->parts, part)
    {
        bool room = part->count < PART_WAITING && has_room(plan);
        if (!part->asking && !part->ended && (room || (part == plan->parts && !part->count)))
            return part;
    }
    return has_room(plan) && may_divide(plan) ? divide(plan) : NULL;
}

/* Behind all that a common prefix stands for. */
static char *behind(const struct list_plan *plan, const char *key)
{
    size_t len = strlen(key);
    bool folder = plan->range.folders && len > plan->space.prefix_len && key[len - 1] == '/';
    char *text;
    return asprintf(&text, "%s%s", key, folder ? LIST_BEHIND : "") < 0 ? NULL : text;
}

bool list_plan_ask(struct list_plan *plan, struct list_page *page, const char **start_after,
                   const char **token)
{
    unsigned streams = plan->answered < plan->streams ? (unsigned)plan->answered : plan->streams;
    if (plan->in_flight && (plan->in_flight >= streams || plan->unordered))
        return false;
    struct list_part *part = part_to_ask(plan);
    if (!part)
        return false;
    const char *begin = part->last ? part->last : part->after;
    if (copy(begin, &page->begin))
        return false;
    *token = part->token;
    *start_after = part->token ? NULL : part->jump;
    if (!part->begun && part->after) {
        part->jump = behind(plan, part->after);
        if (!part->jump)
            return false;
        *start_after = part->jump;
    }
    part->begun = part->asking = true;
    part->count++;
    page->part = part;
    LL_APPEND(part->pages, page);
    plan->pages++;
    plan->in_flight++;
    return true;
}

/* Answers */

/* Each key of the prefix, and behind the one before it. */
static bool is_ordered(const struct list_plan *plan, const struct list_page *page)
{
    const char *before = page->begin;
    for (size_t i = 0; i < page->answer->count; i++) {
        const char *name = page->answer->entries[i].name;
        if ((before && strcmp(name, before) <= 0) ||
            strncmp(name, plan->range.prefix, plan->space.prefix_len) != 0)
            return false;
        before = name;
    }
    return true;
}

/* The spread of the keys, by a page that has more behind it. */
static int learn(struct list_plan *plan, const struct list_page *page)
{
    const struct store_list *answer = page->answer;
    for (size_t i = 0; i < answer->count; i += LEARN_EACH)
        list_space_learn(&plan->space, answer->entries[i].name);
    const char *last = answer->count ? answer->entries[answer->count - 1].name : page->begin;
    if (!answer->next_token)
        return copy(last ? last : plan->range.prefix, &plan->final);
    if (!answer->count)
        return 0;
    list_space_learn(&plan->space, last);
    int rc = copy(answer->entries[0].name, &plan->first);
    return rc ? rc : copy(last, &plan->last);
}

/* What the part is to be asked next, if anything. */
static int follow(struct list_plan *plan, struct list_page *page)
{
    struct list_part *part = page->part;
    const struct store_list *answer = page->answer;
    free(TAKE_PTR(part->token));
    free(TAKE_PTR(part->jump));
    if (!answer->next_token || page->count < answer->count) {
        part->ended = true;
        return copy(part->until, &page->end);
    }
    int rc = page->count ? copy(answer->entries[page->count - 1].name, &part->last) : 0;
    if (!rc)
        rc = copy(page->count ? part->last : page->begin, &page->end);
    if (!rc && part->last && is_skipped(plan, part->last)) {
        char text[STORE_KEY_MAX + sizeof(LIST_BEHIND)];
        strcpy(text, plan->range.skip);
        strcat(text, LIST_BEHIND);
        rc = copy(text, &part->jump);
        part->ended = part->until && strcmp(part->until, text) <= 0;
        return rc;
    }
    return rc ? rc : copy(answer->next_token, &part->token);
}

int list_plan_answer(struct list_plan *plan, struct list_page *page,
                     const struct store_list *answer)
{
    struct list_part *part = page->part;
    plan->in_flight--;
    plan->answered++;
    part->asking = false;
    page->answer = answer;
    page->count = answer->count;
    while (part->until && page->count &&
           strcmp(answer->entries[page->count - 1].name, part->until) > 0)
        page->count--;
    if ((plan->streams > 1 || plan->divided) && !plan->unordered && !is_ordered(plan, page)) {
        plan->unordered = true;
        if (plan->divided)
            return -EIO;
    }
    plan->empty += plan->divided && part->after && !part->last && !page->count;
    int rc = plan->streams > 1 && !plan->unordered ? learn(plan, page) : 0;
    return rc ? rc : follow(plan, page);
}

struct list_page *list_plan_take(struct list_plan *plan)
{
    struct list_part *part = plan->parts;
    struct list_page *page = part ? part->pages : NULL;
    if (!page || !page->answer)
        return NULL;
    LL_DELETE(part->pages, page);
    page->next = NULL;
    part->count--;
    plan->pages--;
    page->last = false;
    if (part->ended && !part->pages) {
        page->last = !part->next;
        DL_DELETE(plan->parts, part);
        part_free(part);
    }
    page->part = NULL;
    return page;
}

struct list_page *list_plan_drop(struct list_plan *plan)
{
    struct list_part *part;
    DL_FOREACH(plan->parts, part)
    {
        struct list_page *page = part->pages;
        if (!page)
            continue;
        LL_DELETE(part->pages, page);
        return page;
    }
    return NULL;
}

int list_plan_again(struct list_plan *plan, const struct list_page *page)
{
    struct list_part *part = part_new(page->begin, page->end);
    if (!part)
        return -ENOMEM;
    DL_PREPEND(plan->parts, part);
    return 0;
}
