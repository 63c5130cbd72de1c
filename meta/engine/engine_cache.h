/*
 * A bounded cache of small records in front of RocksDB, that also remembers absence. Any thread.
 *
 * One writer changes records while readers fill the cache, so that a reader must not put back what
 * he read before the change. The writer brackets its write by engine_cache_begin (the record is
 * hidden, and nobody may fill it) and engine_cache_end (the new value comes in); a reader that
 * misses gets a ticket, reads the database, and its fill is taken only if no write touched that
 * part of the cache since. What is not in the cache is read from the database, so a reader never
 * waits for the writer and never sees a state that the database did not have.
 */
#ifndef SLUICE_META_ENGINE_CACHE_H
#define SLUICE_META_ENGINE_CACHE_H

#include <stddef.h>
#include <stdint.h>

struct engine_cache;

int engine_cache_new(struct engine_cache **out, uint64_t max_bytes);
void engine_cache_free(struct engine_cache *cache);

/* The length of the value that was copied to `out`, -ENOENT if it is known to be absent, -EAGAIN
 * with a ticket if it is not here. A value longer than cap is not here. */
int engine_cache_get(struct engine_cache *cache, uint8_t table, const void *key, size_t key_len,
                     void *out, size_t cap, uint64_t *ticket);
/* value NULL: absent. */
void engine_cache_fill(struct engine_cache *cache, uint8_t table, const void *key, size_t key_len,
                       const void *value, size_t len, uint64_t ticket);

enum engine_cache_end { ENGINE_CACHE_PUT, ENGINE_CACHE_ABSENT, ENGINE_CACHE_FORGET };
void engine_cache_begin(struct engine_cache *cache, uint8_t table, const void *key, size_t key_len);
void engine_cache_end(struct engine_cache *cache, uint8_t table, const void *key, size_t key_len,
                      enum engine_cache_end what, const void *value, size_t len);
/* Empties it (the database was opened again). No reader may be at work. */
void engine_cache_clear(struct engine_cache *cache);
uint64_t engine_cache_bytes(struct engine_cache *cache);

#endif
