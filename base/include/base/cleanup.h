/* Ownership helpers: cleanup attributes, TAKE_PTR, container_of, MIN and MAX. */
#ifndef SLUICE_BASE_CLEANUP_H
#define SLUICE_BASE_CLEANUP_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/param.h> /* MIN, MAX */
#include <unistd.h>

#define cleanup(f) __attribute__((cleanup(f)))

/* Moves a pointer out of a variable that has a cleanup: the variable becomes NULL. */
#define TAKE_PTR(p)                                                                                \
    ({                                                                                             \
        __typeof__(p) taken_ = (p);                                                                \
        (p) = NULL;                                                                                \
        taken_;                                                                                    \
    })

/* The same for a file descriptor: the variable becomes -1. */
#define TAKE_FD(fd)                                                                                \
    ({                                                                                             \
        int taken_ = (fd);                                                                         \
        (fd) = -1;                                                                                 \
        taken_;                                                                                    \
    })

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* For `cleanup(free_ptr) char *s`: frees what the variable points to at the end of its scope. */
static inline void free_ptr(void *p)
{
    free(*(void **)p);
}

/* For `cleanup(close_fd) int fd = -1`. */
static inline void close_fd(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

#endif
