#include "sandbox_stage.h"

#include "test.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

void assert_refused(Status status, const Error *err)
{
    assert_int_equal(status, ERR_UNSUPPORTED);
    assert_non_null(strstr(err->message, "cannot isolate"));
    assert_non_null(strstr(err->message, "nothing was run"));
}

pid_t fork_mortal(void)
{
    pid_t self = getpid(), pid = fork();
    assert_true(pid >= 0);
    if (pid == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != self)) _exit(99);
    return pid;
}

void *kill_when_seen(void *argument)
{
    const char *word = argument;
    for (int64_t end = clock_ms() + 20000; clock_ms() < end; usleep(5000)) {
        DIR *folder = opendir("/proc");
        for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
            char path[300], command[300] = "";
            snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
            FILE *file = fopen(path, "r");
            size_t length = file == NULL ? 0 : fread(command, 1, sizeof command, file);
            if (file != NULL) fclose(file);
            if (length == 0 || memmem(command, length, word, strlen(word)) == NULL) continue;
            kill(atoi(entry->d_name), SIGKILL);
            closedir(folder);
            return NULL;
        }
        if (folder != NULL) closedir(folder);
    }
    return NULL;
}

void crowd_start(Crowd *crowd)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_getaffinity(0, sizeof crowd->before, &crowd->before);
    sched_setaffinity(0, sizeof one, &one);
    for (int i = 0; i < 8; i++) {
        crowd->pid[i] = fork_mortal();
        if (crowd->pid[i] != 0) continue;
        setsid(); /* the kernel may share out a processor by sessions */
        for (;;)
            continue;
    }
}

void crowd_end(Crowd *crowd)
{
    for (int i = 0; i < 8; i++) {
        kill(crowd->pid[i], SIGKILL);
        waitpid(crowd->pid[i], NULL, 0);
    }
    sched_setaffinity(0, sizeof crowd->before, &crowd->before);
}
