#include "rollout_worker/process/child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/str.h"

enum { PIPE_INPUT, PIPE_OUTPUT, PIPE_ERRORS, PIPE_TROUBLE, PIPES };

/* What the new process needs, made before the fork: between fork and exec of a process with threads
 * only what POSIX calls async-signal-safe may be called. */
typedef struct Start {
    char path[PATH_MAX];
    char *const *argv;
    int pipe[PIPES][2];
    pid_t parent;
} Start;

static bool is_program(const char *path)
{
    return access(path, X_OK) == 0;
}

static Status find_program(const char *name, char path[PATH_MAX], Error *err)
{
    const char *folders = getenv("PATH");
    if (strchr(name, '/') != NULL) {
        snprintf(path, PATH_MAX, "%s", name);
        if (is_program(path)) return OK;
        return error_set_errno(err, errno, "cannot run %s", QUOTED(name));
    }
    for (const char *at = folders == NULL ? "/usr/bin:/bin" : folders; *at != '\0';) {
        size_t length = strcspn(at, ":");
        snprintf(path, PATH_MAX, "%.*s/%s", (int)length, at, name);
        if (is_program(path)) return OK;
        at += length + (at[length] == ':');
    }
    return error_set(err, ERR_NOT_FOUND, "there is no program %s in PATH", QUOTED(name));
}

static void report_and_exit(const Start *start)
{
    int number = errno;
    ssize_t written = write(start->pipe[PIPE_TROUBLE][1], &number, sizeof number);
    _exit(written == sizeof number ? 127 : 126);
}

static _Noreturn void become(const Start *start)
{
    sigset_t none;
    sigemptyset(&none);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != start->parent) _exit(125); /* it died before the line above */
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    if (dup2(start->pipe[PIPE_INPUT][0], 0) < 0 || dup2(start->pipe[PIPE_OUTPUT][1], 1) < 0 ||
        dup2(start->pipe[PIPE_ERRORS][1], 2) < 0)
        report_and_exit(start);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(start->path, start->argv);
    report_and_exit(start);
    _exit(126);
}

static void close_pipes(Start *start)
{
    for (int i = 0; i < PIPES; i++)
        for (int end = 0; end < 2; end++)
            if (start->pipe[i][end] >= 0) close(start->pipe[i][end]);
}

static Status open_pipes(Start *start, Error *err)
{
    memset(start->pipe, -1, sizeof start->pipe);
    for (int i = 0; i < PIPES; i++)
        if (pipe2(start->pipe[i], O_CLOEXEC) != 0)
            return error_set_errno(err, errno, "could not open a pipe");
    return OK;
}

/* Takes an end of a pipe out of `start`, non-blocking. */
static int take_end(Start *start, int which, int end)
{
    int fd = start->pipe[which][end];
    start->pipe[which][end] = -1;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return fd;
}

/* Reads the errno that the new process could not exec with; 0 when it did. */
static int read_trouble(Start *start)
{
    int number = 0;
    close(start->pipe[PIPE_TROUBLE][1]);
    start->pipe[PIPE_TROUBLE][1] = -1;
    ssize_t got;
    do
        got = read(start->pipe[PIPE_TROUBLE][0], &number, sizeof number);
    while (got < 0 && errno == EINTR);
    return got == sizeof number ? number : 0;
}

Status child_start(char *const *argv, Child *ret, Error *err)
{
    Start start = {.argv = argv, .parent = getpid()};
    TRY(find_program(argv[0], start.path, err));
    Status status = open_pipes(&start, err);
    sigset_t all, before;
    sigfillset(&all);
    if (status != OK) goto done;
    pthread_sigmask(SIG_SETMASK, &all, &before); /* no handler of ours runs in the new process */
    pid_t pid = fork();
    if (pid == 0) become(&start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid < 0) {
        status = error_set_errno(err, errno, "could not start %s", QUOTED(argv[0]));
        goto done;
    }
    setpgid(pid, pid);
    int number = read_trouble(&start);
    if (number != 0) {
        waitpid(pid, NULL, 0);
        status = error_set_errno(err, number, "cannot run %s", QUOTED(argv[0]));
        goto done;
    }
    *ret = (Child){.pid = pid,
                   .input = take_end(&start, PIPE_INPUT, 1),
                   .output = take_end(&start, PIPE_OUTPUT, 0),
                   .errors = take_end(&start, PIPE_ERRORS, 0)};
done:
    close_pipes(&start);
    return status;
}

/* Waits for the end of the child up to a time; false when it lives still. */
static bool wait_until(pid_t pid, int64_t end_ms, int *ret_status)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    for (;;) {
        pid_t got = waitpid(pid, ret_status, WNOHANG);
        if (got == pid || (got < 0 && errno != EINTR)) return true;
        if (clock_ms() >= end_ms) return false;
        nanosleep(&pause, NULL);
    }
}

void child_stop(Child *child, int64_t grace_ms, int *ret_status)
{
    int status = 0;
    if (child->input >= 0) close(child->input);
    if (child->output >= 0) close(child->output);
    if (child->errors >= 0) close(child->errors);
    if (child->pid > 0) {
        bool ended = wait_until(child->pid, clock_ms() + grace_ms, &status);
        kill(-child->pid, SIGKILL);
        while (!ended && waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
            continue;
    }
    if (ret_status != NULL) *ret_status = status;
    *child = CHILD_NONE;
}

char *child_end(int status, char buffer[CHILD_END_BYTES])
{
    if (WIFSIGNALED(status))
        snprintf(buffer, CHILD_END_BYTES, "was killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(buffer, CHILD_END_BYTES, "exited with status %d", WEXITSTATUS(status));
    return buffer;
}

const char *child_name(char *const *argv, char ret[CHILD_NAME_BYTES])
{
    Str whole = {0};
    for (int i = 0; argv[i] != NULL; i++)
        str_printf(&whole, "%s%s", i > 0 ? " " : "", argv[i]);
    const char *text = str_text(&whole);
    bool cut = whole.length >= CHILD_NAME_BYTES;
    if (cut) text += whole.length - (CHILD_NAME_BYTES - 4);
    snprintf(ret, CHILD_NAME_BYTES, "%s%s", cut ? "..." : "", text);
    str_free(&whole);
    return ret;
}
