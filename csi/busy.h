/* Which volumes have a call in work: a second call for the same volume is told to come later. */
#ifndef SLUICE_CSI_BUSY_H
#define SLUICE_CSI_BUSY_H

#include <stdbool.h>

struct busy;

struct busy *busy_new(void);       /* NULL without memory */
void busy_free(struct busy *busy); /* nothing may be taken */
/* Any thread. True: the key is the caller's until busy_leave. False: somebody else has it (or there
 * is no memory). Never waits. */
bool busy_enter(struct busy *busy, const char *key);
void busy_leave(struct busy *busy, const char *key);

#endif
