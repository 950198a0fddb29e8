#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define START_TICKS_FIELD 22

bool process_start_ticks(pid_t pid, uint64_t *ret_ticks)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0) return false;
    text[length] = '\0';
    /* Field 2 is the program's name in parentheses and may hold anything, also spaces and ")". */
    char *at = strrchr(text, ')');
    if (at == NULL || at[1] != ' ') return false;
    at += 2;
    if (*at == 'Z' || *at == 'X') return false;
    for (int field = 3; field < START_TICKS_FIELD; field++) {
        at = strchr(at, ' ');
        if (at == NULL) return false;
        at++;
    }
    *ret_ticks = strtoull(at, NULL, 10);
    return true;
}

bool process_is_alive(pid_t pid, uint64_t start_ticks)
{
    uint64_t ticks = 0;
    return pid > 0 && process_start_ticks(pid, &ticks) && ticks == start_ticks;
}
