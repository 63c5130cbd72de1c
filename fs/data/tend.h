/* The data path's own housekeeping: see tend.c. */
#ifndef SLUICE_FS_TEND_H
#define SLUICE_FS_TEND_H

#include "file.h"

/* Not on the loop thread. */
void tend_start(struct data *data);
void tend_stop(struct data *data);

#endif
