/*
 * What the files of the volume hold, kept apart from it: computed from the operations that were
 * applied, and compared with the volume's tables and the bucket after each change of either.
 */
#ifndef SLUICE_TESTS_MODEL_H
#define SLUICE_TESTS_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bucket_object;
struct engine;

/* Steps of the volume that a test leaves out, to see that it is noticed. */
enum model_mutant {
    MODEL_WHOLE,
    MODEL_NO_CONFLICT, /* what others wrote is not shown beside changes of ours */
    MODEL_NO_ENTRY,    /* what an object does not say of its file is not put beside it */
    MODEL_NO_LATE,     /* what comes late to a key is not known as ours */
};

void model_mutate(enum model_mutant mutant);
void model_engine(struct engine *engine); /* of the volume that is open; NULL: none */
void model_check(const char *why);
/* Somebody else is about to overwrite or delete it. */
void model_disturb(const struct bucket_object *object);
/* A file that uses it, or 0. */
uint64_t model_user_of(const struct bucket_object *object);
unsigned model_files(void);
/* One whose content is in objects that others overwrote or deleted; 0: there is none. */
uint64_t model_disturbed(void);
/* A regular file, drawn; 0: there is none. */
uint64_t model_any_file(void);
uint64_t model_size(uint64_t ino);

/* `key` is not in the store, or not at the path, that the file has. */
bool model_is_elsewhere(uint64_t ino, const char *key);
/* The store that its key is to be in. */
unsigned model_home(uint64_t ino);

/* A reader of a file gets one of the contents that it has from now on. */
struct model_reader;
struct model_reader *model_reader_begin(uint64_t ino);
/* `data` NULL: it gave up. Frees it. */
void model_reader_end(struct model_reader *reader, const void *data, size_t len);

/* The process is dead: nothing is applied any more. */
void model_dead(bool dead);

#endif
