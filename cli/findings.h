/* What `sluice doctor` says: one line for each finding, and how many there were. */
#ifndef SLUICE_CLI_FINDINGS_H
#define SLUICE_CLI_FINDINGS_H

enum finding { FINDING_GOOD, FINDING_NOTE, FINDING_BAD };

struct findings {
    unsigned bad, notes;
};

/* Prints "BAD   what   text" and counts. */
void findings_say(struct findings *f, enum finding kind, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
