/* The tables of the conformance suite. */
#ifndef SLUICE_TESTS_CONFORMANCE_CASES_H
#define SLUICE_TESTS_CONFORMANCE_CASES_H

struct run;

/* What a store must have (store_caps) for a behaviour to be tried. */
enum conformance_need {
    CONFORMANCE_ANY,
    CONFORMANCE_FREE_KEYS, /* keys that are no paths */
    CONFORMANCE_PATH_KEYS, /* the opposite */
    CONFORMANCE_PUT_IF,
    CONFORMANCE_COMPLETE_IF,
    CONFORMANCE_COPY,
    CONFORMANCE_COPY_IF,
    CONFORMANCE_PART_MIN,
};

struct conformance_case {
    const char *name; /* NULL: the end of a table */
    void (*run)(struct run *r);
    enum conformance_need need;
};

extern const struct conformance_case conformance_list_cases[];
extern const struct conformance_case conformance_upload_cases[];

#endif
