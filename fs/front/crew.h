/*
 * The threads that take requests from /dev/fuse and handle them: leader and followers (D. Schmidt
 * et al., "Leader/Followers", PLoP 2000).
 *
 * One thread, the leader, takes requests and handles them itself, one after the other: the next
 * request finds a thread that runs, with warm caches, and no other is woken. Before it waits for
 * something in a request (base/blocking.h) or moves much data, it lets another one lead if more
 * than one program asks; if one program alone does, that can have no second request meanwhile. A
 * leader that is away unannounced is missed by a guard, after one to two milliseconds. Where many
 * processors are, and requests come faster than one thread takes them, others help.
 *
 * When there is no request the leader looks again for some time before it sleeps, because to be
 * woken takes longer than what most requests need. How long depends on what the last waits were, as
 * in KVM's halt polling (Linux, Documentation/virt/kvm/halt-polling.rst): up to poll_ns while
 * requests come within poll_ns, half of it after each that took longer, soon nothing. Between
 * looks it yields to whom wants the processor.
 */
#ifndef SLUICE_FS_CREW_H
#define SLUICE_FS_CREW_H

#include <stdint.h>

struct crew;
struct fuse_session;

#define CREW_POLL_NS 50000u /* default of poll_ns */

struct crew_config {
    unsigned threads; /* >= 1 */
    uint64_t poll_ns; /* look for requests so long before sleeping; 0: never */
};

struct crew_counts {
    uint64_t requests;
    uint64_t polled; /* came while the leader looked for them */
    uint64_t slept;  /* came when it slept */
    uint64_t handed; /* another thread was let lead */
    uint64_t missed; /* the guard let another thread lead */
};

/* The session is borrowed; it is mounted, and not over io_uring. -ENOMEM, -EMFILE. */
int crew_new(struct fuse_session *session, const struct crew_config *config, struct crew **out);

/* Serves until crew_stop, or the kernel ends the connection: 0, else the error of the device or of
 * pthread_create. Once; the calling thread only waits. */
int crew_run(struct crew *crew);

/* Any thread, at any time until crew_free; more than once is as once. A signal handler must not. */
void crew_stop(struct crew *crew);

/* Any thread. */
void crew_count(const struct crew *crew, struct crew_counts *out);

/* Ends the session's processing, not its mount. NULL: nothing. */
void crew_free(struct crew *crew);

#endif
