/* Process 1 of a sandbox's namespaces: builds the root, takes everything away from itself, starts
 * the program, and reaps until it ends. Then it ends too, and with it, by the kernel's doing, all
 * that the program left behind. Whatever fails here is written as a line to pipes->trouble, and
 * nothing is run. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rollout_worker/reward/sandbox_helper.h"

#define BASE       "/tmp" /* where the new root is built, before it becomes / */
#define TREES_MAX  96     /* the system, devices and what the caller names */
#define ROOT_BYTES "size=1m,nr_inodes=512,mode=755"

static int trouble_fd;

static _Noreturn void give_up(const char *what)
{
    char line[512];
    int length = snprintf(line, sizeof line, "%s: %s", what, strerror(errno));
    ssize_t written = write(trouble_fd, line, (size_t)length);
    _exit(written == length ? 1 : 2);
}

#define MUST(call, what)                                                                           \
    do {                                                                                           \
        if ((call) < 0) give_up(what);                                                             \
    } while (0)

/* ---- the root ---- */

/* A piece of this machine's tree, taken before its owner's rights are given up. */
typedef struct Tree {
    int fd; /* a detached, read-only copy of the mounts there; -1: it is not there */
    const char *path;
    bool folder;
    char link[256]; /* what it points to, when it is a symbolic link; else "" */
} Tree;

typedef enum {
    TREE_SYSTEM, /* may be a link to another part of the system, as /bin is to usr/bin */
    TREE_DEVICE, /* can be written to */
    TREE_MORE,   /* what the caller asked for */
} TreeKind;

static void take_tree(Tree *tree, const char *path, TreeKind kind)
{
    struct stat info;
    bool device = kind == TREE_DEVICE;
    *tree = (Tree){.fd = -1, .path = path};
    if (lstat(path, &info) != 0) return;
    if (S_ISLNK(info.st_mode) && kind == TREE_SYSTEM) {
        ssize_t length = readlink(path, tree->link, sizeof tree->link - 1);
        if (length > 0 && tree->link[0] != '/') return; /* lib -> usr/lib: made again inside */
        tree->link[0] = '\0';
    }
    if (stat(path, &info) != 0) return;
    tree->folder = S_ISDIR(info.st_mode);
    tree->fd = (int)syscall(SYS_open_tree, AT_FDCWD, path,
                            OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (tree->fd < 0) give_up(path);
    struct mount_attr attributes = {
        .attr_set =
            MOUNT_ATTR_NOSUID | (device ? MOUNT_ATTR_NOEXEC : MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV),
        .propagation = MS_PRIVATE, /* what is mounted there later does not show inside */
    };
    MUST(syscall(SYS_mount_setattr, tree->fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes,
                 sizeof attributes),
         "could not make a part of the root read-only (this needs Linux 5.12)");
}

static int take_trees(const SandboxRun *run, Tree *trees)
{
    static const char *const system[] = {"/usr",
                                         "/bin",
                                         "/sbin",
                                         "/lib",
                                         "/lib64",
                                         "/lib32",
                                         "/etc/ld.so.cache",
                                         "/etc/alternatives",
                                         "/etc/localtime"};
    /* No /dev/zero: mapped and shared it is memory that is nobody's when it is counted. */
    static const char *const devices[] = {"/dev/null", "/dev/full", "/dev/random", "/dev/urandom"};
    int count = 0;
    for (size_t i = 0; i < sizeof system / sizeof system[0]; i++)
        take_tree(&trees[count++], system[i], TREE_SYSTEM);
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++)
        take_tree(&trees[count++], devices[i], TREE_DEVICE);
    for (int i = 0; run->readable != NULL && run->readable[i] != NULL; i++) {
        CHECK(count < TREES_MAX); /* SANDBOX_READABLE_MAX */
        take_tree(&trees[count], run->readable[i], TREE_MORE);
        if (trees[count].fd < 0) {
            errno = ENOENT;
            give_up(run->readable[i]);
        }
        count++;
    }
    return count;
}

/* Makes the folders above `path`, which is relative to the new root. */
static void make_parents(const char *path)
{
    char part[4096];
    for (size_t i = 1; path[i] != '\0' && i < sizeof part; i++) {
        if (path[i] != '/') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST) give_up(part);
    }
}

static void put_tree(const Tree *tree)
{
    const char *path = tree->path + 1; /* in the new root, the current folder */
    if (tree->link[0] != '\0') {
        make_parents(path);
        if (symlink(tree->link, path) != 0 && errno != EEXIST) give_up(tree->path);
        return;
    }
    if (tree->fd < 0) return;
    make_parents(path);
    if (tree->folder) {
        if (mkdir(path, 0755) != 0 && errno != EEXIST) give_up(tree->path);
    } else {
        int fd = open(path, O_CREAT | O_RDONLY | O_CLOEXEC, 0644);
        MUST(fd, tree->path);
        close(fd);
    }
    MUST(syscall(SYS_move_mount, tree->fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH),
         tree->path);
    close(tree->fd);
}

static void write_file(const char *path, Slice text, mode_t mode)
{
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode);
    MUST(fd, path);
    for (size_t at = 0; at < text.length;) {
        ssize_t written = write(fd, text.data + at, text.length - at);
        MUST(written, path);
        at += (size_t)written;
    }
    close(fd);
}

/* Shows the watcher how much is in the file system of `path`. */
static void send_disk(const char *path, int socket)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    char byte = 'd';
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    MUST(fd, path);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    MUST(sendmsg(socket, &message, MSG_NOSIGNAL), "could not show the disk to the watcher");
    close(fd);
    close(socket);
}

static int take_folder(const char *path)
{
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    MUST(fd, path);
    return fd;
}

static void put_folder(int fd, const char *path)
{
    MUST(syscall(SYS_move_mount, fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH), path);
    close(fd);
}

/* /box and /tmp: two folders of one file system in memory of the limit's size. */
static void make_disk(const SandboxRun *run, int socket)
{
    char options[128];
    snprintf(options, sizeof options, "size=%lld,nr_inodes=4096,mode=755",
             (long long)run->limits.disk_bytes);
    MUST(mkdir("box", 0755), "/box");
    MUST(mkdir("tmp", 0755), "/tmp");
    MUST(mount("private", "box", "tmpfs", MS_NOSUID | MS_NODEV, options), "/box");
    send_disk("box", socket);
    MUST(mkdir("box/box", 0755), "/box");
    MUST(mkdir("box/tmp", 01777), "/tmp");
    MUST(chmod("box/tmp", 01777), "/tmp");
    int box = take_folder("box/box"), tmp = take_folder("box/tmp");
    MUST(umount2("box", MNT_DETACH), "/box");
    put_folder(box, "box");
    put_folder(tmp, "tmp");
}

static void write_files(const SandboxRun *run)
{
    MUST(chdir("box"), "/box");
    for (int i = 0; i < run->num_files; i++)
        write_file(run->files[i].name, run->files[i].text, 0644);
    MUST(chdir(".."), "/");
}

static void build_root(const SandboxRun *run, const Tree *trees, int count, int socket)
{
    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "could not part from the mounts");
    MUST(mount("root", BASE, "tmpfs", MS_NOSUID | MS_NODEV, ROOT_BYTES),
         "could not mount a file system for the new root");
    MUST(chdir(BASE), BASE);
    make_disk(run, socket);
    MUST(mkdir("etc", 0755), "/etc");
    write_file("etc/passwd", slice_from("sandbox:x:1000:1000::/box:/bin/sh\n"), 0644);
    write_file("etc/group", slice_from("sandbox:x:1000:\n"), 0644);
    for (int i = 0; i < count; i++)
        put_tree(&trees[i]);
    write_files(run);
    MUST(syscall(SYS_pivot_root, ".", "."), "could not change the root");
    MUST(umount2(".", MNT_DETACH), "could not let go of the old root");
    MUST(chdir("/"), "/");
    struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY};
    MUST(syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &read_only, sizeof read_only),
         "could not make the root read-only");
    MUST(chdir("/box"), "/box");
}

/* ---- what is taken away ---- */

static void limit(int which, rlim_t value, const char *name)
{
    struct rlimit limits = {value, value};
    MUST(setrlimit(which, &limits), name);
}

/* SIGXCPU comes a second before SIGKILL, which would look as if it came from outside. */
static void limit_cpu(int64_t cpu_ms)
{
    rlim_t seconds = (rlim_t)(cpu_ms + 1999) / 1000;
    struct rlimit limits = {seconds, seconds + 1};
    MUST(setrlimit(RLIMIT_CPU, &limits), "processor time limit");
}

static void set_limits(const SandboxLimits *limits)
{
    limit(RLIMIT_CORE, 0, "core size limit");
    limit(RLIMIT_AS, (rlim_t)limits->memory_bytes * 4, "address space limit");
    limit(RLIMIT_FSIZE, (rlim_t)limits->disk_bytes, "file size limit");
    limit(RLIMIT_NOFILE, (rlim_t)limits->open_files, "open file limit");
    limit_cpu(limits->cpu_ms);
    limit(RLIMIT_MEMLOCK, 0, "locked memory limit");
    limit(RLIMIT_MSGQUEUE, 0, "message queue limit");
    limit(RLIMIT_NICE, 0, "priority limit");
    limit(RLIMIT_RTPRIO, 0, "real-time priority limit");
    limit(RLIMIT_SIGPENDING, 1024, "pending signal limit");
    /* process 1 is not the program's */
    limit(RLIMIT_NPROC, (rlim_t)limits->processes + 1, "process limit");
}

static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}, {0}};
    MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient capabilities");
    for (int number = 0; prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0; number++)
        MUST(prctl(PR_CAPBSET_DROP, number, 0, 0, 0), "the bounding set of capabilities");
    MUST(syscall(SYS_capset, &header, none), "could not drop capabilities");
}

static void become_nobody(void)
{
    MUST(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "could not keep capabilities for the mounts");
    MUST(syscall(SYS_setresgid, SANDBOX_USER, SANDBOX_USER, SANDBOX_USER),
         "could not change the group");
    MUST(syscall(SYS_setresuid, SANDBOX_USER, SANDBOX_USER, SANDBOX_USER),
         "could not change the user");
    /* A change of user may leave the capabilities permitted but not in effect. */
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2];
    MUST(syscall(SYS_capget, &header, sets), "could not read capabilities");
    for (int i = 0; i < 2; i++)
        sets[i].effective = sets[i].permitted;
    MUST(syscall(SYS_capset, &header, sets), "could not use capabilities");
}

/* ---- the program ---- */

static _Noreturn void become_program(const SandboxRun *run)
{
    static char *const environment[] = {"PATH=/usr/local/bin:/usr/bin:/bin",
                                        "HOME=/box",
                                        "TMPDIR=/tmp",
                                        "LANG=C.UTF-8",
                                        "PYTHONDONTWRITEBYTECODE=1",
                                        "OMP_NUM_THREADS=1",
                                        "OPENBLAS_NUM_THREADS=1",
                                        NULL};
    static const char *const folders[] = {"/usr/local/bin/", "/usr/bin/", "/bin/"};
    char *const *argv = (char *const *)run->command;
    MUST(setsid(), "could not start a session");
    signal(SIGPIPE, SIG_DFL); /* the watcher ignores it, and exec would keep that */
    if (strchr(argv[0], '/') != NULL) {
        execve(argv[0], argv, environment);
    } else {
        for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
            char path[4096];
            snprintf(path, sizeof path, "%s%s", folders[i], argv[0]);
            execve(path, argv, environment);
            if (errno != ENOENT && errno != ENOTDIR) break;
        }
    }
    char what[300];
    snprintf(what, sizeof what, "@cannot run %.200s in the sandbox", argv[0]);
    give_up(what);
}

/* From here on this process, and with it the whole namespace, dies with the watcher. The kernel
 * forgets the wish when the user changes, and does not look back: hence the pipe, which is closed
 * when the watcher died before. */
static void die_with_watcher(const SandboxPipes *pipes)
{
    MUST(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "could not ask for a death signal");
    struct pollfd gone = {.fd = pipes->go, .events = POLLIN};
    if (poll(&gone, 1, 0) != 0) _exit(3);
}

/* Waits for the user mapping. */
static void await_go(const SandboxPipes *pipes)
{
    char byte;
    if (read(pipes->go, &byte, 1) != 1) _exit(3);
    die_with_watcher(pipes);
}

/* Takes the program's ends for its own, in the place of the watcher's. */
static void take_pipes(const SandboxPipes *pipes)
{
    MUST(dup2(pipes->input, 0), "standard input");
    MUST(dup2(pipes->output, 1), "standard output");
    MUST(dup2(pipes->errors, 2), "standard error");
    close(pipes->input);
    close(pipes->output);
    close(pipes->errors);
}

/* Reaps what ends in the namespace until the program does, and says how. */
static _Noreturn void reap(pid_t program, int status_fd)
{
    for (;;) {
        int status = 0;
        pid_t ended = waitpid(-1, &status, 0);
        if (ended == program) {
            ssize_t written = write(status_fd, &status, sizeof status);
            _exit(written == sizeof status ? 0 : 1);
        }
        if (ended < 0 && errno != EINTR) _exit(1);
    }
}

_Noreturn void sandbox_root_run(const SandboxRun *run, const SandboxPipes *pipes,
                                const struct sock_fprog *filter)
{
    static Tree trees[TREES_MAX];
    trouble_fd = pipes->trouble;
    await_go(pipes);
    take_pipes(pipes);
    umask(022);
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "could not forbid new privileges");
    MUST(sethostname("sandbox", 7), "could not set the host name");
    int count = take_trees(run, trees);
    become_nobody();
    build_root(run, trees, count, pipes->disk);
    MUST(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "could not hide its memory");
    die_with_watcher(pipes);
    drop_capabilities();
    set_limits(&run->limits);
    struct sock_fprog program = *filter;
    MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0),
         "the kernel refused the system call filter");
    pid_t pid = fork();
    MUST(pid, "could not start a process in the sandbox");
    if (pid == 0) become_program(run);
    if (pid != SANDBOX_PID) give_up("the program is not the second process of its namespace");
    close(pipes->trouble);
    close_range(0, 2, 0);
    reap(pid, pipes->status);
}
