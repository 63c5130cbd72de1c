/*
 * What a trace expects to find: a model of the names, which is led through the calls of the trace
 * in their order. A name that a call found, and that no call before had made, was there at the
 * start.
 */
#ifndef SLUICE_BENCH_TRACE_TREE_H
#define SLUICE_BENCH_TRACE_TREE_H

#include "bench/trace.h"

/* Makes below `directory` what was there at the start: directories, files of the size that they
 * were first seen with (filled), symbolic links. -ENOSPC, -ENOMEM and what the filesystem says,
 * with a sentence. */
int trace_tree_make(const struct trace *trace, int directory, struct error *error);

#endif
