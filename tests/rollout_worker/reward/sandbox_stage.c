#include "sandbox_stage.h"

#include "test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"

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

static void write_text(const char *folder, const char *name, const char *text, mode_t mode)
{
    char *path = mem_printf("%s/%s", folder, name), *part = mem_printf("%s.part", path);
    for (char *at = path; (at = strchr(at + 1, '/')) != NULL; *at = '/') {
        *at = '\0';
        mkdir(path, 0755);
    }
    FILE *file = fopen(part, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    chmod(part, mode);
    assert_int_equal(rename(part, path), 0);
    free(path);
    free(part);
}

static void *go_on_killing(void *argument)
{
    OutOfMemory *machine = argument;
    for (int count = 1; !__atomic_load_n(&machine->over, __ATOMIC_ACQUIRE); count++) {
        char text[100];
        snprintf(text, sizeof text, "low 0\nhigh 0\noom 1\noom_kill %d\n", count);
        write_text(machine->folder, "sys/fs/cgroup/job/worker/memory.events", text, 0644);
        usleep(1000);
    }
    return NULL;
}

void out_of_memory_start(OutOfMemory *machine)
{
    char *here = getcwd(NULL, 0);
    *machine = (OutOfMemory){.folder = "out_of_memory_XXXXXX"};
    assert_non_null(mkdtemp(machine->folder));
    char *text = mem_printf("#!/bin/sh\nexec %s/bin/sandbox --machine %s/%s\n", PROJECT_BINARY_DIR,
                            here, machine->folder);
    write_text(machine->folder, "bin/sandbox", text, 0755);
    write_text(machine->folder, "proc/self/cgroup", "0::/job/worker\n", 0644);
    machine->helper = mem_printf("%s/%s/bin/sandbox", here, machine->folder);
    assert_int_equal(pthread_create(&machine->thread, NULL, go_on_killing, machine), 0);
    free(text);
    free(here);
}

void out_of_memory_end(OutOfMemory *machine)
{
    __atomic_store_n(&machine->over, true, __ATOMIC_RELEASE);
    pthread_join(machine->thread, NULL);
    char *command = mem_printf("rm -r %s", machine->folder);
    assert_int_equal(system(command), 0);
    free(command);
    free(machine->helper);
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
