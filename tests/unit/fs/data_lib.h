/*
 * A data path over a volume of tests/unit/meta/volume_lib.h, with calls that wait.
 */
#ifndef SLUICE_TESTS_DATA_LIB_H
#define SLUICE_TESTS_DATA_LIB_H

#include "../meta/volume_lib.h"
#include "fs/data.h"

struct data_test {
    struct volume v;
    struct metrics *metrics;
    struct data_config config;
    char staging[4200];
    struct data *data;
    /* Inodes that data_config.changed named. */
    _Atomic unsigned changed;
};

/* A store in memory behind faults, small parts (64 KiB), no settle; opened. */
void data_begin(struct data_test *t);
/* `dir`/bucket as the bucket; not opened. */
void data_begin_file(struct data_test *t, const char *dir);
void data_test_open(struct data_test *t);
/* Closes data path and volume; -errno of data_close. */
int data_test_close(struct data_test *t);
void data_end(struct data_test *t);

struct data_handle *data_test_handle(struct data_test *t, uint64_t ino);
/* A new file below the root, opened. */
struct data_handle *data_test_create(struct data_test *t, const char *name, uint64_t *ino);

int data_test_write(struct data_handle *handle, const void *bytes, uint64_t offset,
                    uint64_t length);
int data_test_append(struct data_handle *handle, const void *bytes, uint64_t length);
int data_test_flush(struct data_handle *handle);
int data_test_flush_all(struct data_test *t);
int data_test_truncate(struct data_test *t, uint64_t ino, uint64_t size);
int data_test_fallocate(struct data_handle *handle, int mode, uint64_t offset, uint64_t length);
int data_test_copy(struct data_handle *from, uint64_t from_offset, struct data_handle *to,
                   uint64_t to_offset, uint64_t length);
int64_t data_test_seek(struct data_handle *handle, uint64_t offset, int whence);
/* Bytes read, or -errno. */
int64_t data_test_read(struct data_handle *handle, uint64_t offset, uint64_t length, void *buf);
/* As the kernel is told: metadata with the overlay. */
struct meta_attr data_test_attr(struct data_test *t, uint64_t ino);
/* The file is `length` bytes, as given, through a handle of its own. */
void data_test_check(struct data_test *t, uint64_t ino, const void *bytes, uint64_t length);
/* Committed: what the metadata and the store hold, without the data path. */
void data_test_check_committed(struct data_test *t, uint64_t ino, const void *bytes,
                               uint64_t length);
/* Extents of the file as the metadata has them: "inline 0+5;object 10+20;" Static. */
const char *data_test_extents(struct data_test *t, uint64_t ino);

/* The same numbers on every machine. */
void random_seed(uint64_t seed);
uint64_t random_next(void);
uint64_t random_below(uint64_t n);
void random_fill(void *bytes, size_t length);

#endif
