#include "agent/strays.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/process.h"

int agent_kill_strays(bool (*is_known)(const void *context, int pid), const void *context)
{
    DIR *proc = opendir("/proc");
    if (proc == NULL) return 0;
    int strays = 0;
    pid_t self = getpid();
    for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
        int pid = atoi(entry->d_name);
        if (pid <= 0 || (is_known != NULL && is_known(context, pid)) || process_parent(pid) != self)
            continue;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, WNOHANG);
        strays++;
    }
    closedir(proc);
    return strays;
}
