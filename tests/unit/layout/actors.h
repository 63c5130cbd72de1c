/* Who works on the volume, and who changes its bucket beside it. */
#ifndef SLUICE_TESTS_ACTORS_H
#define SLUICE_TESTS_ACTORS_H

#include <stdbool.h>
#include <stdint.h>

/* Each until the world stops. */
void actors_start(void);
/* Some bytes, drawn, as an object of its own; `replace`: they are all that the file has. */
void actors_write_object(uint64_t ino, uint64_t offset, bool replace);
/* Files below a directory have their keys in this store from now on; flags as META_STORE_PLACE. */
void actors_place(uint64_t dir, unsigned store, uint32_t flags);

#endif
