/* How many processors this process may use. */
#ifndef SLUICE_FS_PROCESSORS_H
#define SLUICE_FS_PROCESSORS_H

/* The least of those in its affinity and of its control group's cpu.max (cgroup v2: Linux,
 * Documentation/admin-guide/cgroup-v2.rst). What cannot be read does not limit. > 0. */
double processors_allowed(void);

/* `quota`: the text of a cpu.max, "max 100000" or "150000 100000". 0: no limit, or not such. */
double processors_of_quota(const char *quota);

#endif
