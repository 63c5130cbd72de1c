#include "findings.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define COLUMN 22

void findings_say(struct findings *f, enum finding kind, const char *what, const char *fmt, ...)
{
    static const char *const marks[] = {"ok  ", "note", "BAD "};
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    /* A long name has a line of its own. */
    printf("%s  %-*s%s%s\n", marks[kind], COLUMN, what, strlen(what) > COLUMN ? "\n      " : " ",
           text);
    fflush(stdout);
    f->bad += kind == FINDING_BAD;
    f->notes += kind == FINDING_NOTE;
}
