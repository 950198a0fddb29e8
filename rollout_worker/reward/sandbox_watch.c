/* The outside of a sandbox: makes the namespaces, stands between the program's pipes and the
 * caller, and ends the run when it is over or past a limit. All that is left of the program then
 * dies with process 1 of its namespace, before the result is given. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/process.h"
#include "rollout_worker/reward/sandbox_helper.h"

#define NAMESPACES                                                                                 \
    (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |     \
     CLONE_NEWCGROUP)
#define LOOK_MS       10          /* between two looks at memory and processor time */
#define TREE_MAX      5000        /* processes that are counted: all that there can be */
#define FIRST_USER    1900000000u /* outside, when we may choose: users that own nothing */
#define TROUBLE_BYTES 600

typedef struct Watch {
    const SandboxRun *run;
    SandboxResult *result;
    pid_t pid; /* of process 1, as seen from here */
    int input, output, errors, trouble, status, go;
    int disk_socket, disk; /* the file system that the program writes to; -1: not known yet */
    size_t written;        /* of the input */
    char trouble_text[TROUBLE_BYTES];
    size_t trouble_length;
    int wait_status; /* the program's; valid with `ended` */
    bool ended, stopped;
    int64_t start_ms, look_ms, cpu_ms;
    int64_t looked_ms, delayed_ms, disk_ms, starved_ms; /* so far */
    int64_t oom_kills;                                  /* before the start */
} Watch;

/* ---- start ---- */

static Status write_to(const char *path, const char *text, Error *err)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return error_set_errno(err, errno, "could not open %s", path);
    Status status = file_write_all(fd, text, strlen(text), path, err);
    close(fd);
    return status;
}

/* Whether the user 0 that we are may be the machine's root, as far as can be told from in here. */
static bool may_be_root(void)
{
    unsigned inside = 0, outside = 0;
    if (geteuid() != 0) return false;
    FILE *file = fopen("/proc/self/uid_map", "re");
    int got = file == NULL ? 0 : fscanf(file, "%u %u", &inside, &outside);
    if (file != NULL) fclose(file);
    return got != 2 || inside != 0 || outside == 0;
}

static Status refuse(Error *err, const char *what)
{
    char text[TROUBLE_BYTES];
    snprintf(text, sizeof text, "%s", what);
    error_set(err, ERR_UNSUPPORTED, "this machine cannot isolate a program: %s", text);
    return error_append(err,
                        "nothing was run. The sandbox needs user namespaces (sysctl "
                        "user.max_user_namespaces above 0; kernel.unprivileged_userns_clone 1 "
                        "or kernel.apparmor_restrict_unprivileged_userns 0 where they exist; a "
                        "container that allows them), seccomp and Linux 5.12");
}

/* Memory and processor time can be counted: the kernel tells a process's children. */
static bool can_count(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    return access(path, R_OK) == 0;
}

/* Lets one user (or group) of ours, the first of `ids` that we may use, be the program's. */
static bool map_one(pid_t pid, const char *which, const unsigned *ids, int count)
{
    char path[64], text[64];
    Error ignored;
    snprintf(path, sizeof path, "/proc/%d/%s", pid, which);
    for (int i = 0; i < count; i++) {
        snprintf(text, sizeof text, "%d %u 1", SANDBOX_USER, ids[i]);
        if (write_to(path, text, &ignored) == OK) return true;
    }
    return false;
}

/* The program's user is nobody's: one that owns nothing, where we may choose. Else it is our own,
 * which owns nothing that the program can see; but never the machine's root, whom limits do not
 * hold. */
static Status map_users(pid_t pid, Error *err)
{
    char path[64];
    Error inner = {0};
    unsigned nobody = FIRST_USER + (unsigned)pid % 1000000u;
    unsigned users[] = {nobody, 65534, geteuid()}, groups[] = {nobody, 65534, getegid()};
    int first = geteuid() == 0 ? 0 : 2, last = may_be_root() ? 2 : 3;
    if (!map_one(pid, "uid_map", users + first, last - first))
        return refuse(err, "it does not let us choose a user other than root for the program");
    snprintf(path, sizeof path, "/proc/%d/setgroups", pid);
    if (write_to(path, "deny", &inner) != OK) return refuse(err, inner.message);
    if (!map_one(pid, "gid_map", groups + first, 3 - first))
        return refuse(err, "it does not let us choose a group for the program");
    return OK;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* One pipe: *ret_near stays here, *ret_far goes to the namespaces. */
static Status open_pipe(bool to_child, int *ret_near, int *ret_far, Error *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return error_set_errno(err, errno, "could not open a pipe");
    *ret_near = ends[to_child ? 1 : 0];
    *ret_far = ends[to_child ? 0 : 1];
    fcntl(*ret_near, F_SETFL, fcntl(*ret_near, F_GETFL) | O_NONBLOCK);
    return OK;
}

static Status open_pipes(Watch *watch, SandboxPipes *pipes, Error *err)
{
    TRY(open_pipe(true, &watch->input, &pipes->input, err));
    TRY(open_pipe(false, &watch->output, &pipes->output, err));
    TRY(open_pipe(false, &watch->errors, &pipes->errors, err));
    TRY(open_pipe(false, &watch->trouble, &pipes->trouble, err));
    TRY(open_pipe(false, &watch->status, &pipes->status, err));
    TRY(open_pipe(true, &watch->go, &pipes->go, err));
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return refuse(err, "it has no pairs of sockets");
    watch->disk_socket = ends[0];
    pipes->disk = ends[1];
    return OK;
}

static void close_near(Watch *watch)
{
    close_fd(&watch->input);
    close_fd(&watch->output);
    close_fd(&watch->errors);
    close_fd(&watch->trouble);
    close_fd(&watch->status);
    close_fd(&watch->go);
    close_fd(&watch->disk_socket);
    close_fd(&watch->disk);
}

static void close_far(SandboxPipes *pipes)
{
    close_fd(&pipes->input);
    close_fd(&pipes->output);
    close_fd(&pipes->errors);
    close_fd(&pipes->trouble);
    close_fd(&pipes->status);
    close_fd(&pipes->go);
    close_fd(&pipes->disk);
}

/* Of all processes of the machine these are the ones to kill when its memory ends. */
static void die_first(pid_t pid)
{
    char path[64];
    Error ignored;
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
    (void)write_to(path, "1000", &ignored); /* better, but no part of the isolation */
}

static Status start(Watch *watch, SandboxPipes *pipes, const struct sock_fprog *filter, Error *err)
{
    if (!can_count())
        return refuse(err, "it does not tell the children of a process "
                           "(/proc/PID/task/TID/children), and what they use cannot be counted");
    if (geteuid() == 0 && setgroups(0, NULL) != 0 && may_be_root())
        return refuse(err, "it does not let root leave its groups");
    pid_t pid = (pid_t)syscall(SYS_clone, (unsigned long)NAMESPACES | SIGCHLD, NULL, NULL, NULL, 0);
    if (pid == 0) {
        close_near(watch);
        sandbox_root_run(watch->run, pipes, filter);
    }
    if (pid < 0) {
        char what[128];
        snprintf(what, sizeof what, "it refuses new namespaces (%s)", strerror(errno));
        return refuse(err, what);
    }
    watch->pid = pid;
    die_first(pid);
    TRY(map_users(pid, err));
    if (write(watch->go, "g", 1) != 1)
        return error_set_errno(err, errno, "could not start the sandbox");
    return OK;
}

/* ---- limits ---- */

/* What the processes of the namespace use together, and which they are. */
typedef struct Usage {
    int64_t memory_bytes, cpu_ticks;
    int64_t wanted_ms;   /* that a thread had a processor or waited for one, at most */
    bool waits_for_disk; /* a process of them does */
    int processes;
    pid_t pid[TREE_MAX];
} Usage;

/* Reads a file of /proc/PID whole, as far as it fits; "" when the process is gone. */
static void read_about(pid_t pid, const char *name, char *ret, size_t size)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, ret, size - 1);
    if (fd >= 0) close(fd);
    ret[got > 0 ? got : 0] = '\0';
}

/* The number that a line of one of the kernel's texts gives behind a name; 0: it has none. */
static int64_t number_behind(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    return at == NULL ? 0 : atoll(at + strlen(key));
}

/* Whether a process that sleeps without being woken by signals does so in a page fault or in a call
 * that reads files: then it waits for a disk. A program can have itself put into that state: who
 * calls vfork is in it for as long as the child pleases. */
static bool reads_files(pid_t pid)
{
    static const long calls[] = {
#ifdef SYS_open
        SYS_open,      SYS_stat,       SYS_lstat,    SYS_access,     SYS_readlink,
#endif
        SYS_read,      SYS_pread64,    SYS_readv,    SYS_preadv,     SYS_preadv2,
        SYS_openat,    SYS_statx,      SYS_mmap,     SYS_newfstatat, SYS_execve,
        SYS_faccessat, SYS_readlinkat, SYS_sendfile, SYS_getdents64};
    char text[256];
    long number = 0;
    read_about(pid, "syscall", text, sizeof text);
    if (sscanf(text, "%ld", &number) != 1) return false; /* it runs, or nothing is told */
    bool reads = number == -1;                           /* a page fault */
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        reads = reads || number == calls[i];
    return reads;
}

/* Memory that is a process's own, and the time of it and of its children that are gone. What maps
 * files is not counted: they are the machine's, or count as disk; and there is no shared memory
 * without a file (sandbox_filter.c). */
static void add_process(pid_t pid, Usage *usage)
{
    char text[4096];
    read_about(pid, "status", text, sizeof text);
    const char *fields = strchr(text, '\n'); /* the name before it may have anything in it */
    if (fields != NULL)
        usage->memory_bytes +=
            1024 * (number_behind(fields, "\nRssAnon:") + number_behind(fields, "\nVmSwap:"));
    read_about(pid, "stat", text, sizeof text);
    fields = strrchr(text, ')');
    long ticks[4] = {0};
    char state = ' ';
    if (fields != NULL &&
        sscanf(fields, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld %ld %ld", &state,
               &ticks[0], &ticks[1], &ticks[2], &ticks[3]) == 5)
        usage->cpu_ticks += ticks[0] + ticks[1] + ticks[2] + ticks[3];
    usage->waits_for_disk = usage->waits_for_disk || (state == 'D' && reads_files(pid));
}

/* How long a thread ran and waited for a processor. Where the kernel does not say nothing is ever
 * called starved. */
static void add_thread(pid_t pid, const char *thread, Usage *usage)
{
    char name[300], text[128];
    long long ran_ns = 0, delayed_ns = 0;
    snprintf(name, sizeof name, "task/%.250s/schedstat", thread);
    read_about(pid, name, text, sizeof text);
    if (sscanf(text, "%lld %lld", &ran_ns, &delayed_ns) != 2) return;
    int64_t wanted_ms = (ran_ns + delayed_ns) / 1000000;
    if (wanted_ms > usage->wanted_ms) usage->wanted_ms = wanted_ms;
}

/* Appends the children that a thread started. */
static void list_children(pid_t pid, const char *thread, Usage *usage)
{
    char path[300];
    int child = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%s/children", pid, thread);
    FILE *file = fopen(path, "re");
    if (file == NULL) return;
    while (usage->processes < TREE_MAX && fscanf(file, "%d", &child) == 1)
        usage->pid[usage->processes++] = child;
    fclose(file);
}

/* Process 1 and all below it, orphans too; a list, so that a long chain of processes takes no more
 * of us than a wide one. */
static void count_usage(pid_t first, Usage *ret)
{
    ret->memory_bytes = ret->cpu_ticks = ret->wanted_ms = 0;
    ret->waits_for_disk = false;
    ret->processes = 1;
    ret->pid[0] = first;
    for (int i = 0; i < ret->processes; i++) {
        char path[64];
        add_process(ret->pid[i], ret);
        snprintf(path, sizeof path, "/proc/%d/task", ret->pid[i]);
        DIR *threads = opendir(path);
        if (threads == NULL) continue;
        for (struct dirent *entry; (entry = readdir(threads)) != NULL;) {
            if (entry->d_name[0] == '.') continue;
            list_children(ret->pid[i], entry->d_name, ret);
            add_thread(ret->pid[i], entry->d_name, ret);
        }
        closedir(threads);
    }
}

static int64_t count_oom_kills(const SandboxRun *run)
{
    return process_count_oom_kills(run->machine == NULL ? "" : run->machine);
}

/* What is in /box and /tmp. */
static int64_t disk_bytes(const Watch *watch)
{
    struct statfs info;
    if (watch->disk < 0 || fstatfs(watch->disk, &info) != 0) return 0;
    return (int64_t)(info.f_blocks - info.f_bfree) * (int64_t)info.f_bsize;
}

static void stop(Watch *watch, SandboxEnd end)
{
    if (watch->stopped) return;
    watch->stopped = true;
    watch->result->end = end;
    kill(watch->pid, SIGKILL); /* process 1: the kernel kills the others */
}

static int64_t between(int64_t value, int64_t least, int64_t most)
{
    return value < least ? least : value > most ? most : value;
}

/* How long the program wanted to go on so far, and did nothing because the machine was busy: what
 * its most delayed thread waited for a processor, less all that its other threads had of one, so
 * that they cannot be what it waited for; and the looks at which it waited for a disk and none of
 * it ran. */
static void note_starvation(Watch *watch, const Usage *usage)
{
    int64_t cpu_ms = usage->cpu_ticks * 1000 / sysconf(_SC_CLK_TCK), now = clock_ms();
    if (usage->waits_for_disk && cpu_ms <= watch->cpu_ms) watch->disk_ms += now - watch->looked_ms;
    if (cpu_ms > watch->cpu_ms) watch->cpu_ms = cpu_ms;
    int64_t delayed_ms = usage->wanted_ms - watch->cpu_ms;
    if (delayed_ms > watch->delayed_ms) watch->delayed_ms = delayed_ms;
    watch->looked_ms = now;
    int64_t idle = now - watch->start_ms - watch->cpu_ms;
    watch->starved_ms = between(watch->delayed_ms + watch->disk_ms, 0, idle > 0 ? idle : 0);
}

static void check_limits(Watch *watch)
{
    const SandboxLimits *limits = &watch->run->limits;
    int64_t now = clock_ms();
    bool late = now - watch->start_ms > limits->wall_ms;
    if (now < watch->look_ms && !late) return;
    watch->look_ms = now + LOOK_MS;
    Usage usage;
    count_usage(watch->pid, &usage);
    note_starvation(watch, &usage);
    bool starved = watch->starved_ms >= limits->wall_ms / 2;
    if (late) stop(watch, starved ? SANDBOX_STARVED : SANDBOX_WALL_LIMIT);
    if (usage.memory_bytes + disk_bytes(watch) > limits->memory_bytes)
        stop(watch, SANDBOX_MEMORY_LIMIT);
    if (watch->cpu_ms > limits->cpu_ms) stop(watch, SANDBOX_CPU_LIMIT);
}

/* ---- pipes ---- */

static void feed(Watch *watch)
{
    Slice rest = slice_part(watch->run->input, watch->written, watch->run->input.length);
    ssize_t written = rest.length == 0 ? 0 : write(watch->input, rest.data, rest.length);
    if (written > 0) watch->written += (size_t)written;
    bool failed = written < 0 && errno != EAGAIN && errno != EINTR;
    if (failed || watch->written == watch->run->input.length) close_fd(&watch->input);
}

/* Reads into `ret` up to the limit; past it the run is stopped. */
static void collect(Watch *watch, int *fd, Str *ret)
{
    char bytes[65536];
    ssize_t got = read(*fd, bytes, sizeof bytes);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) close_fd(fd);
    if (got <= 0) return;
    size_t room = (size_t)watch->run->limits.output_bytes - ret->length;
    str_append(ret, bytes, (size_t)got < room ? (size_t)got : room);
    if ((size_t)got > room) stop(watch, SANDBOX_OUTPUT_LIMIT);
}

static void read_trouble(Watch *watch)
{
    size_t room = sizeof watch->trouble_text - 1 - watch->trouble_length;
    ssize_t got = read(watch->trouble, watch->trouble_text + watch->trouble_length, room);
    if (got > 0) watch->trouble_length += (size_t)got;
    if (got == 0 || room == 0) close_fd(&watch->trouble);
}

static void read_status(Watch *watch)
{
    ssize_t got = read(watch->status, &watch->wait_status, sizeof watch->wait_status);
    if (got == sizeof watch->wait_status) watch->ended = true;
    if (got >= 0) close_fd(&watch->status);
}

/* Takes the descriptor that process 1 sends. */
static void receive_disk(Watch *watch)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(watch->disk_socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    struct cmsghdr *header = got == 1 ? CMSG_FIRSTHDR(&message) : NULL;
    if (header != NULL && header->cmsg_type == SCM_RIGHTS)
        memcpy(&watch->disk, CMSG_DATA(header), sizeof watch->disk);
    close_fd(&watch->disk_socket);
}

static void serve(Watch *watch)
{
    struct pollfd fds[7] = {
        {.fd = watch->input, .events = POLLOUT},      {.fd = watch->output, .events = POLLIN},
        {.fd = watch->errors, .events = POLLIN},      {.fd = watch->trouble, .events = POLLIN},
        {.fd = watch->status, .events = POLLIN},      {.fd = STDOUT_FILENO, .events = 0},
        {.fd = watch->disk_socket, .events = POLLIN},
    };
    if (poll(fds, 7, LOOK_MS) < 0) return;
    if (fds[6].revents != 0) receive_disk(watch);
    if (fds[0].revents != 0) feed(watch);
    if (fds[1].revents != 0) collect(watch, &watch->output, &watch->result->output);
    if (fds[2].revents != 0) collect(watch, &watch->errors, &watch->result->errors);
    if (fds[3].revents != 0) read_trouble(watch);
    if (fds[4].revents != 0) read_status(watch);
    if (fds[5].revents & POLLERR) stop(watch, SANDBOX_KILLED); /* nobody waits for the answer */
}

/* ---- the end ---- */

/* After process 1 is gone nobody holds the other ends: what is in the pipes is all there will be.
 */
static void drain(Watch *watch)
{
    while (watch->output >= 0)
        collect(watch, &watch->output, &watch->result->output);
    while (watch->errors >= 0)
        collect(watch, &watch->errors, &watch->result->errors);
    while (watch->trouble >= 0)
        read_trouble(watch);
}

static Status judge(Watch *watch, int init_status, Error *err)
{
    SandboxResult *result = watch->result;
    if (watch->stopped) return OK;
    if (watch->trouble_length > 0) {
        watch->trouble_text[watch->trouble_length] = '\0';
        if (watch->trouble_text[0] == '@')
            return error_set(err, ERR_NOT_FOUND, "%s", watch->trouble_text + 1);
        return refuse(err, watch->trouble_text);
    }
    if (!watch->ended)
        return error_set(
            err, ERR_RESOURCE,
            "the sandbox ended before its program (wait status %d): is the machine out "
            "of memory?",
            init_status);
    if (WIFEXITED(watch->wait_status)) {
        result->end = SANDBOX_EXITED;
        result->code = WEXITSTATUS(watch->wait_status);
    } else if (WTERMSIG(watch->wait_status) == SIGXCPU ||
               (WTERMSIG(watch->wait_status) == SIGKILL &&
                result->cpu_ms > watch->run->limits.cpu_ms)) {
        result->end = SANDBOX_CPU_LIMIT; /* the kernel's own limit was first */
    } else if (WTERMSIG(watch->wait_status) == SIGKILL && result->oom_kills > 0) {
        /* The signal alone says nothing: a program can have it sent to itself in many ways (a limit
         * or a timer of its own, a child's exit signal, the number of a thread). */
        result->end = SANDBOX_KILLED_OUTSIDE;
    } else {
        result->end = SANDBOX_KILLED;
        result->code = WTERMSIG(watch->wait_status);
    }
    return OK;
}

static Status watch_until_end(Watch *watch, Error *err)
{
    while (!watch->stopped && watch->status >= 0) {
        serve(watch);
        check_limits(watch);
    }
    struct rusage usage;
    int status = 0;
    while (wait4(watch->pid, &status, 0, &usage) < 0 && errno == EINTR)
        continue;
    watch->result->wall_ms = clock_ms() - watch->start_ms;
    int64_t cpu_ms = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
                     (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
    watch->result->cpu_ms = cpu_ms > watch->cpu_ms ? cpu_ms : watch->cpu_ms;
    watch->result->starved_ms = watch->starved_ms;
    watch->result->oom_kills =
        between(count_oom_kills(watch->run) - watch->oom_kills, 0, INT64_MAX);
    watch->pid = 0;
    drain(watch);
    return judge(watch, status, err);
}

Status sandbox_watch(const SandboxRun *run, SandboxResult *ret, Error *err)
{
    Watch watch = {.run = run,
                   .result = ret,
                   .input = -1,
                   .output = -1,
                   .errors = -1,
                   .trouble = -1,
                   .status = -1,
                   .go = -1,
                   .disk_socket = -1,
                   .disk = -1,
                   .start_ms = clock_ms(),
                   .looked_ms = clock_ms(),
                   .oom_kills = count_oom_kills(run)};
    SandboxPipes pipes = {-1, -1, -1, -1, -1, -1, -1};
    struct sock_fprog filter = {0};
    signal(SIGPIPE, SIG_IGN);
    Status status = sandbox_filter_make(&filter, err);
    if (status == OK) status = open_pipes(&watch, &pipes, err);
    if (status == OK) status = start(&watch, &pipes, &filter, err);
    close_far(&pipes);
    if (status == OK) status = watch_until_end(&watch, err);
    if (watch.pid > 0) {
        kill(watch.pid, SIGKILL);
        waitpid(watch.pid, NULL, 0);
    }
    close_near(&watch);
    free(filter.filter);
    return status;
}
