/* Private to meta: the parts that operations and their answers have in common as bytes. */
#ifndef SLUICE_META_CODEC_PARTS_H
#define SLUICE_META_CODEC_PARTS_H

#include "arena.h"
#include "base/buf.h"
#include "meta/op.h"

/* A read past a bound sets r.failed; no_memory says why. */
struct codec_reader {
    struct reader r;
    struct arena arena;
    bool no_memory;
};

void codec_put_attr(struct buf *b, const struct meta_attr *a);
void codec_put_object(struct buf *b, const struct meta_object *o);
void codec_put_extent(struct buf *b, const struct meta_extent *e);

uint32_t codec_get_u32(struct codec_reader *d);
/* 0 or 1, so that equal values have equal bytes. */
bool codec_get_bool(struct codec_reader *d);
uint8_t codec_get_bits(struct codec_reader *d, uint8_t max);
/* A C string into fixed room. */
void codec_get_text(struct codec_reader *d, char *out, size_t cap);
/* Room for a list whose elements take at least `least` bytes each: more than the input can hold is
 * refused before memory is asked for. An empty list is refused. */
void *codec_get_list(struct codec_reader *d, size_t size, size_t least, size_t *count);
void codec_get_attr(struct codec_reader *d, struct meta_attr *a);
void codec_get_object(struct codec_reader *d, struct meta_object *o);
/* Inline data points into the input. */
void codec_get_extent(struct codec_reader *d, struct meta_extent *e);

#endif
