/* The end of a run: all work is done soon, and nothing is left behind or hidden. */
#ifndef SLUICE_TESTS_END_H
#define SLUICE_TESTS_END_H

void end_check(void);

#endif
