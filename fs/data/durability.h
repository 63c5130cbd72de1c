/*
 * When written data is safe, file by file (docs/durability.md): in the store, on this disk, or
 * never. Which class a file has is decided when it is opened for writing while nothing of it is
 * staged, by its path; it keeps it until all is committed.
 */
#ifndef SLUICE_FS_DURABILITY_H
#define SLUICE_FS_DURABILITY_H

#include "file.h"

/* Of the path that the file has now; reads the metadata, which answers at once, if there are rules.
 * `created`: nothing of it is committed. Only such files can be scratch. No locks held. */
enum data_durability durability_of(struct data *data, uint64_t ino, bool created);
/* Tells the metadata that the bytes of the file are here only (or not any more): settle would make
 * an empty object of it. What is submitted later is applied later. */
void durability_hold(struct data *data, uint64_t ino, bool held);
/* Takes the names of a scratch file away, and what is staged of it. Blocking. */
void durability_drop_scratch(struct data *data, uint64_t ino);
/* At the end: all scratch files. Blocking. */
void durability_drop_all(struct data *data);
/* 0 or -errno; for data->rules. */
int durability_open(struct data *data, struct error *error);
void durability_close(struct data *data);

/* fsync and close: all that was written before is safe in the way of the file's class. As
 * upload_flush. */
int durability_flush(struct file *file, struct data_request *request);
/* What was written is on this disk. Blocking; no locks held. */
int durability_sync(struct file *file);
/* Nobody writes any more: what is dirty goes to the store, now or in its turn. */
void durability_written(struct file *file);
/* The backlog is too old: writers of the file wait. */
bool durability_must_wait(const struct file *file);
/* A write that finds no room may wait for the backlog, though no flush is under way. */
bool durability_has_hope(const struct file *file);

#endif
