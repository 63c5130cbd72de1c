#include "processors.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>

double processors_of_quota(const char *quota)
{
    char *behind;
    unsigned long long used = strtoull(quota, &behind, 10), period = strtoull(behind, NULL, 10);
    return used > 0 && period > 0 ? (double)used / (double)period : 0;
}

/* Its first line that begins so; else empty. */
static void read_line(const char *path, const char *begin, char *line, int size)
{
    FILE *f = fopen(path, "re");
    line[0] = 0;
    while (f && fgets(line, size, f) && strncmp(line, begin, strlen(begin)) != 0)
        line[0] = 0;
    if (f)
        fclose(f);
    line[strcspn(line, "\n")] = 0;
}

static double of_group(void)
{
    char own[1024], path[1100], quota[64];
    read_line("/proc/self/cgroup", "0::/", own, sizeof(own)); /* cgroup v2 */
    if (!own[0])
        return 0;
    snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cpu.max", own + 3);
    read_line(path, "", quota, sizeof(quota));
    return processors_of_quota(quota);
}

double processors_allowed(void)
{
    cpu_set_t set;
    double most = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1024;
    double quota = of_group();
    return quota > 0 ? MIN(quota, most) : most;
}
