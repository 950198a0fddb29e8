#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
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

char *process_host(void)
{
    char boot[64] = "", space[64] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, boot, sizeof boot - 1) : 0;
    if (fd >= 0) close(fd);
    boot[length > 0 ? strcspn(boot, "\n") : 0] = '\0';
    length = readlink("/proc/self/ns/pid", space, sizeof space - 1);
    space[length > 0 ? length : 0] = '\0';
    size_t size = sizeof boot + sizeof space;
    char *host = mem_alloc(size);
    snprintf(host, size, "%s %s", boot, space);
    return host;
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

/* ---- a program and its end ---- */

#define LOOK_MS      20   /* between two looks at a child whose end nothing announces */
#define KILL_WAIT_MS 1000 /* for a child that was killed */

typedef struct Child {
    const ProgramRun *run;
    pid_t parent, pid;
    int words;   /* our end of the pipe; -1: none, or it said its last */
    int trouble; /* the child's end: the errno of an exec that failed */
    size_t used; /* of run->words */
    int end;     /* as waitpid says */
} Child;

/* After a fork beside other threads: nothing but system calls. */
static _Noreturn void become(const Child *child, int words)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != child->parent) _exit(125); /* it died before the line above */
    if (words >= 0) {
        ProgramWords of = child->run->words_of;
        int output = of == WORDS_OF_ERRORS ? open("/dev/null", O_WRONLY | O_CLOEXEC) : words;
        if (output >= 0) dup2(output, STDOUT_FILENO);
        if (of != WORDS_OF_OUTPUT) dup2(words, STDERR_FILENO);
    }
    execv(child->run->path, (char *const *)child->run->arguments);
    int number = errno;
    ssize_t written = write(child->trouble, &number, sizeof number);
    _exit(written == sizeof number ? 127 : 126);
}

static void close_pipe(int end[2])
{
    for (int i = 0; i < 2; i++)
        if (end[i] >= 0) close(end[i]);
}

/* The errno that it could not exec with; 0 when it did. */
static int read_trouble(Child *child, int trouble[2])
{
    int number = 0;
    ssize_t count;
    close(trouble[1]);
    trouble[1] = -1;
    do
        count = read(trouble[0], &number, sizeof number);
    while (count < 0 && errno == EINTR);
    if (count != sizeof number) return 0;
    waitpid(child->pid, NULL, 0);
    return number;
}

static Status start_child(Child *child, Error *err)
{
    int words[2] = {-1, -1}, trouble[2] = {-1, -1}, number = 0;
    bool taken = child->run->words != NULL;
    if ((taken && pipe2(words, O_CLOEXEC) != 0) || pipe2(trouble, O_CLOEXEC) != 0) goto failed;
    child->parent = getpid();
    child->trouble = trouble[1];
    child->pid = fork();
    if (child->pid < 0) goto failed;
    if (child->pid == 0) become(child, words[1]);
    number = read_trouble(child, trouble);
    if (number == 0) {
        child->words = words[0];
        words[0] = -1;
    }
    goto done;
failed:
    number = errno;
done:
    close_pipe(words);
    close_pipe(trouble);
    if (number == 0) return OK;
    return error_set_errno(err, number, "could not start %s", child->run->path);
}

/* What does not fit is read, too: nobody is to wait for a full pipe. */
static void take_words(Child *child)
{
    char rest[512];
    const ProgramRun *run = child->run;
    bool full = child->used + 1 >= run->words_size;
    ssize_t count = read(child->words, full ? rest : run->words + child->used,
                         full ? sizeof rest : run->words_size - 1 - child->used);
    if (count < 0 && errno == EINTR) return;
    if (count > 0 && !full) child->used += (size_t)count;
    if (count > 0) return;
    close(child->words);
    child->words = -1;
}

static bool has_ended(Child *child, int64_t wait_ms)
{
    int64_t until = clock_ms() + wait_ms;
    for (;;) {
        pid_t pid = waitpid(child->pid, &child->end, WNOHANG);
        if (pid == child->pid) return true;
        if (clock_ms() >= until) return false;
        poll(NULL, 0, LOOK_MS);
    }
}

/* Waits for words, for the descriptor that calls it off, and for the deadline. */
static Status attend(Child *child, Error *err)
{
    const ProgramRun *run = child->run;
    for (;;) {
        struct pollfd watched[] = {{child->words, POLLIN, 0}, {run->cancel, POLLIN, 0}};
        int64_t left = run->deadline_ms == 0 ? LOOK_MS : run->deadline_ms - clock_ms();
        if (left <= 0) return error_set(err, ERR_TIMEOUT, "%s did not end in time", run->path);
        if (child->words < 0 && has_ended(child, 0)) return OK;
        bool silent = child->words < 0 || run->deadline_ms == 0;
        poll(watched, 2, (int)(silent && left > LOOK_MS ? LOOK_MS : left));
        if (watched[0].revents != 0) take_words(child);
        if (watched[1].revents != 0)
            return error_set(err, ERR_CANCELLED, "%s was called off", run->path);
    }
}

Status program_run(const ProgramRun *run, int *ret_end, Error *err)
{
    Child child = {.run = run, .words = -1};
    TRY(start_child(&child, err));
    Status status = OK;
    bool patient = run->words == NULL && run->deadline_ms == 0 && run->cancel < 0;
    while (patient && waitpid(child.pid, &child.end, 0) < 0 && errno == EINTR)
        continue;
    if (!patient) status = attend(&child, err);
    if (status != OK) {
        kill(child.pid, SIGKILL);
        has_ended(&child, KILL_WAIT_MS);
    }
    if (child.words >= 0) close(child.words);
    if (run->words != NULL) run->words[child.used] = '\0';
    if (status == OK) *ret_end = child.end;
    return status;
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
    return setenv(SAID[0], "1000", 1) == 0;
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
