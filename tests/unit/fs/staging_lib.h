/* What tests of the staging directory share. */
#ifndef SLUICE_TESTS_UNIT_FS_STAGING_LIB_H
#define SLUICE_TESTS_UNIT_FS_STAGING_LIB_H

#include <stdint.h>

/* What is left in the directory, the log of that inode too, is of before a restart of the host. */
void staging_lib_change_boot(const char *directory, uint64_t ino);

#endif
