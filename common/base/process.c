#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"

enum { PARENT_FIELD = 4, START_TICKS_FIELD = 22 };

/* A number of /proc/<pid>/stat by its place as proc(5) counts, from 4 on; false when there is no
 * such process. *ret_state is field 3. */
static bool read_stat(pid_t pid, int field, char *ret_state, uint64_t *ret)
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
    *ret_state = *at;
    for (int i = 3; i < field; i++) {
        at = strchr(at, ' ');
        if (at == NULL) return false;
        at++;
    }
    *ret = strtoull(at, NULL, 10);
    return true;
}

bool process_start_ticks(pid_t pid, uint64_t *ret_ticks)
{
    char state = 'X';
    uint64_t ticks = 0;
    if (!read_stat(pid, START_TICKS_FIELD, &state, &ticks) || state == 'Z' || state == 'X')
        return false;
    *ret_ticks = ticks;
    return true;
}

pid_t process_parent(pid_t pid)
{
    char state;
    uint64_t parent;
    return read_stat(pid, PARENT_FIELD, &state, &parent) ? (pid_t)parent : -1;
}

bool process_is_alive(pid_t pid, uint64_t start_ticks)
{
    uint64_t ticks = 0;
    return pid > 0 && process_start_ticks(pid, &ticks) && ticks == start_ticks;
}

char *program_path(const char *name)
{
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0) return mem_strdup(name);
    self[length] = '\0';
    char *folder = path_folder(self);
    char *path = path_join(folder, name);
    free(folder);
    return path;
}

void process_raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* whoever needs more hears so when it opens */
}

bool process_let_threads_sleep(void)
{
    static const char *const SAID[] = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"};
    for (size_t i = 0; i < sizeof SAID / sizeof *SAID; i++)
        if (getenv(SAID[i]) != NULL) return false;
    return setenv(SAID[0], "0", 1) == 0;
}

/* The number behind "oom_kill " in a text of the kernel's; -1: it is not there. */
static int64_t read_oom_kills(const char *path)
{
    char line[256];
    long long count = -1;
    FILE *file = fopen(path, "re");
    if (file == NULL) return -1;
    while (count < 0 && fgets(line, sizeof line, file) != NULL)
        (void)sscanf(line, "oom_kill %lld", &count);
    fclose(file);
    return count;
}

int64_t process_count_oom_kills(const char *root)
{
    char *path = mem_printf("%s/proc/self/cgroup", root), line[PATH_MAX];
    int64_t count = -1;
    FILE *file = fopen(path, "re");
    free(path);
    while (file != NULL && count < 0 && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *kind = strchr(line, ':'); /* number:controllers:path */
        char *group = kind == NULL ? NULL : strchr(kind + 1, ':');
        if (group == NULL) continue;
        *group++ = '\0';
        if (strcmp(kind, ":") == 0)
            path = mem_printf("%s/sys/fs/cgroup%s/memory.events", root, group);
        else if (strcmp(kind, ":memory") == 0)
            path = mem_printf("%s/sys/fs/cgroup/memory%s/memory.oom_control", root, group);
        else
            continue;
        count = read_oom_kills(path);
        free(path);
    }
    if (file != NULL) fclose(file);
    if (count >= 0) return count;
    path = mem_printf("%s/proc/vmstat", root);
    count = read_oom_kills(path);
    free(path);
    return count;
}
