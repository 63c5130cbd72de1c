/*
 * Metrics of many processes as one text (Prometheus 0.0.4): the families of all are brought
 * together, and each sample gets the label of whose it is.
 */
#ifndef SLUICE_CSI_EXPOSITION_H
#define SLUICE_CSI_EXPOSITION_H

#include <stddef.h>

#include "base/buf.h"

struct exposition;

/* NULL without memory. It keeps at most `bytes`. */
struct exposition *exposition_new(size_t bytes);
void exposition_free(struct exposition *e);
/* What `metrics_print` makes, not ended by 0. `label`: volume="…" with its value escaped, put
 * before the others; NULL: none. Histograms without an observation are left out, and so are lines
 * that are none of the format. The first text that has a family says its help and type; where a
 * later one has another type, its samples are left out. 0, or -E2BIG: the rest did not fit. */
int exposition_add(struct exposition *e, const char *text, size_t len, const char *label);
/* Families in the order in which they came. */
void exposition_print(const struct exposition *e, struct buf *out);
/* name="value" with the value escaped as the format wants it. Owned by the caller; NULL without
 * memory. */
char *exposition_label(const char *name, const char *value);

#endif
