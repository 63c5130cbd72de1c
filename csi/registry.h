/* The volumes that this controller has made: for ListVolumes, which is given no credentials to look
 * into buckets. A JSON file in the state directory; what it lacks is lost for the list only. */
#ifndef SLUICE_CSI_REGISTRY_H
#define SLUICE_CSI_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct registry;

/* NULL without memory. An unreadable file counts as none. */
struct registry *registry_open(const char *state_dir);
void registry_close(struct registry *registry);
/* Any thread. A file that cannot be written is logged. */
void registry_put(struct registry *registry, const char *id, int64_t size);
void registry_remove(struct registry *registry, const char *id);

struct registry_page {
    struct {
        char *id;
        int64_t size;
    } * entries; /* ordered by id */
    size_t count;
    char *next; /* token of the next page, NULL: there is none */
};
/* From behind `token` ("" = the first), at most `max` (0 = all). A token is the last id of a page;
 * it need not be there any more. False: it can be no token (or no memory). */
bool registry_page(struct registry *registry, const char *token, unsigned max,
                   struct registry_page *out);
void registry_page_done(struct registry_page *page);

#endif
