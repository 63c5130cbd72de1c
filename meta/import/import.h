/*
 * Between import.c (who waits for what of the bucket) and listing.c (one listing of one
 * directory). Everything here is owned by the work thread, but for what says otherwise.
 */
#ifndef SLUICE_META_IMPORT_H
#define SLUICE_META_IMPORT_H

#include <uthash.h>

#include "engine/names.h"
#include "volume/volume.h"

/* Who waits for a listing or for one key. */
struct import_wait {
    void (*done)(struct import_wait *wait, int result, const struct error *error);
    struct import_wait *next;
};

/* A key that was deleted or written by us while a request was under way. */
struct import_change {
    bool written;
    UT_hash_handle hh;
    char key[];
};

/* A request whose answer would be wrong about keys that we change meanwhile. */
struct import_fetch {
    struct work_op work;
    struct import_change *changes;
    struct import_fetch *next, *prev;
    char watch[META_KEY_MAX + 2]; /* keys that begin so are of interest */
};

/* What is remembered of a directory in memory. */
struct import_dir {
    uint64_t ino;
    uint32_t pages;   /* of its last listing; 0: not known */
    uint32_t singles; /* names asked for one by one since then */
    UT_hash_handle hh;
};

struct importer {
    struct meta *meta;
    struct listing *listings;     /* by ino */
    struct single *singles;       /* by parent and name */
    struct import_fetch *fetches; /* under way */
    struct import_dir *dirs;
    struct names_hidden *hidden;
    unsigned running; /* listings */
    bool stopped;
    uint64_t listed_dirs, listed_keys, asked_names, failures;
    char last_error[256];
    struct metric *keys, *listings_total, *names;

    /* Any thread. */
    atomic_uint found_answers;       /* answers that a name is there */
    _Atomic uint64_t unreachable_ns; /* since when the bucket has not answered; 0: it does */
    _Atomic uint64_t probe_due_ns;

    pthread_mutex_t lock; /* a leaf */
    /* Under lock. */
    struct meta_request *incoming, **incoming_end;
    struct answer *answers; /* by parent and name */
    struct loop_task take;
    bool take_posted;
};

void import_fetch_submit(struct importer *importer, struct import_fetch *fetch);
/* After its answer was used. */
void import_fetch_done(struct importer *importer, struct import_fetch *fetch);
struct import_dir *import_dir_get(struct importer *importer, uint64_t ino);
void import_failed(struct importer *importer, const struct error *error);
/* import_offline.c. What an import says of the bucket. */
void import_unreachable(struct importer *importer, const struct error *error);
void import_reached(struct importer *importer);
/* True: the volume's own keys, which are no files. `prefix` = origin of the directory. */
bool import_is_internal(const struct importer *importer, const char *prefix, const char *name,
                        size_t len);
/* What the bucket was asked. */
struct import_question {
    const char *prefix; /* below it */
    uint64_t asked_ns;  /* meta_time_ns at or before the time of asking */
    bool looked;        /* the object's tags were looked at: it is nothing late of ours */
};
/* Whether what HEAD shows at a key is an object of ours that was written after gc had done with it.
 * Then gc gets it again, if the key is free. */
bool import_is_late(struct meta *meta, const struct store_op *head);

/* What HEAD says against an object of ours may be from before our last write: files of ours do not
 * go by that alone, but if a listing of the one key does not show the object either. */
bool import_speaks_against(const struct store_op *head, const struct meta_object *object);
bool import_shows(const struct store_op *list, const struct meta_object *object);

/* META_IMPORT_ONE; entry NULL: there is none. Tells the mount what changed. -ESTALE: the directory
 * comes from another prefix by now. */
int import_one(struct importer *importer, uint64_t parent, const struct import_question *question,
               const struct meta_name *name, const struct meta_entry *entry);

/* Asks for one name of a directory that has an origin, or joins who does. `wait` is called when the
 * answer is applied, maybe before this returns; also when the directory got another origin
 * meanwhile, with result 0: who still lacks the name asks again. */
void import_ask(struct importer *importer, uint64_t parent, const struct meta_name *name,
                struct import_wait *wait);

/* listing.c */

/* Lists a directory, or joins the listing that is under way. `wait` (may be NULL) is called when
 * it has ended, maybe before this returns. */
void listing_join(struct importer *importer, uint64_t ino, struct import_wait *wait);
/* Only those that begin after this call will do. */
void listing_again(struct importer *importer, uint64_t ino, struct import_wait *wait);

#endif
