#include "agent_strays.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The parent of a process, or -1. A name may hold anything, but its last ')' ends it. */
static int parent_of(int pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0) return -1;
    text[length] = '\0';
    const char *end = strrchr(text, ')');
    int parent = -1;
    if (end == NULL || sscanf(end + 1, " %*c %d", &parent) != 1) return -1;
    return parent;
}

int agent_kill_strays(bool (*is_known)(const void *context, int pid), const void *context)
{
    DIR *proc = opendir("/proc");
    if (proc == NULL) return 0;
    int strays = 0, self = (int)getpid();
    for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
        int pid = atoi(entry->d_name);
        if (pid <= 0 || (is_known != NULL && is_known(context, pid)) || parent_of(pid) != self)
            continue;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, WNOHANG);
        strays++;
    }
    closedir(proc);
    return strays;
}
