#include "staging_lib.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "data/staging_log.h"
#include "test.h"

void staging_lib_change_boot(const char *directory, uint64_t ino)
{
    char path[5000];
    struct staging_header header;
    snprintf(path, sizeof(path), "%s/small", directory);
    int fd = open(path, O_RDWR);
    check(fd >= 0);
    check_int(pwrite(fd, "ffffffff", 8, 16), 8); /* the boot id begins here */
    close(fd);
    snprintf(path, sizeof(path), "%s/%016llx", directory, (unsigned long long)ino);
    fd = open(path, O_RDWR);
    if (fd < 0)
        return; /* without a log */
    check_int(pread(fd, &header, sizeof(header), 0), sizeof(header));
    const struct staging staging = {.ino = header.ino,
                                    .log_generation = header.generation,
                                    .data_number = header.data_number,
                                    .flags = header.flags};
    staging_header_fill(&header, &staging, "00000000-0000-0000-0000-000000000000");
    check_int(pwrite(fd, &header, sizeof(header), 0), sizeof(header));
    close(fd);
}
