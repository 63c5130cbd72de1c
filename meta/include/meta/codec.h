/*
 * Operations and their answers as bytes: for the wire, for the answers that are kept for sessions,
 * for a replicated log, and for replay in tests. One format, version 1 (docs/data-model.md,
 * "Operations as bytes").
 */
#ifndef SLUICE_META_CODEC_H
#define SLUICE_META_CODEC_H

#include "base/buf.h"
#include "meta/op.h"

/* Appends an operation. Errors show in buf_error. */
void meta_codec_op_put(struct buf *b, const struct meta_op *op);

struct meta_decoded_op {
    struct meta_op op; /* points into the input and into the arena */
    void *arena;
};
/* Takes any bytes, all of them. 0, -EBADMSG (*out needs no release then) or -ENOMEM. Lengths of
 * names, keys, values and lists are checked against META_…_MAX and the input; that the operation
 * makes sense is for the engine to find out. */
int meta_codec_op_get(const void *data, size_t len, struct meta_decoded_op *out);
void meta_codec_op_done(struct meta_decoded_op *op);

/* The same for answers (docs/protocol.md): all but need_import and settle. */
void meta_codec_reply_put(struct buf *b, const struct meta_reply *reply);
/* Takes any bytes, all of them. *out is initialised here, and owns copies of all it points to; 0,
 * -EBADMSG or -ENOMEM (*out is empty then). */
int meta_codec_reply_get(const void *data, size_t len, struct meta_reply *out);

#endif
