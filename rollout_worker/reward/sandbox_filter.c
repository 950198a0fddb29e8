/* Which system calls a program in the sandbox may make: what interpreters and compiled programs
 * need to compute, to read files and to have threads and children. Everything else answers EPERM,
 * which programs take for a refusal and go on; calls whose arguments a filter cannot see answer
 * ENOSYS, so that the C library falls back to ones it can. Another architecture's calls kill. */
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/memory.h"
#include "rollout_worker/reward/sandbox_helper.h"

static const char *const allowed[] = {
    /* memory */
    "brk",
    "mincore",
    "mlock",
    "mlock2",
    "mlockall",
    "mprotect",
    "mremap",
    "msync",
    "munlock",
    "munlockall",
    "munmap",
    "membarrier",
    "pkey_alloc",
    "pkey_free",
    "pkey_mprotect",
    /* files */
    "access",
    "chdir",
    "chmod",
    "close",
    "close_range",
    "copy_file_range",
    "creat",
    "dup",
    "dup2",
    "dup3",
    "faccessat",
    "faccessat2",
    "fallocate",
    "fchdir",
    "fchmod",
    "fchmodat",
    "fcntl",
    "fdatasync",
    "flock",
    "fstat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "getcwd",
    "getdents",
    "getdents64",
    "getxattr",
    "fgetxattr",
    "lgetxattr",
    "link",
    "linkat",
    "listxattr",
    "llistxattr",
    "flistxattr",
    "lseek",
    "lstat",
    "mkdir",
    "mkdirat",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pread64",
    "preadv",
    "preadv2",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readahead",
    "readlink",
    "readlinkat",
    "readv",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "sendfile",
    "splice",
    "stat",
    "statfs",
    "statx",
    "symlink",
    "symlinkat",
    "sync_file_range",
    "tee",
    "truncate",
    "umask",
    "unlink",
    "unlinkat",
    "utime",
    "utimensat",
    "utimes",
    "futimesat",
    "write",
    "writev",
    "inotify_init1",
    "inotify_add_watch",
    "inotify_rm_watch",
    /* waiting */
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "eventfd",
    "eventfd2",
    "pause",
    "pipe",
    "pipe2",
    "poll",
    "ppoll",
    "pselect6",
    "select",
    "signalfd",
    "signalfd4",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_settime",
    /* time */
    "clock_getres",
    "clock_gettime",
    "clock_nanosleep",
    "getitimer",
    "gettimeofday",
    "nanosleep",
    "setitimer",
    "time",
    "timer_create",
    "timer_delete",
    "timer_getoverrun",
    "timer_gettime",
    "timer_settime",
    "times",
    "alarm",
    /* processes and threads */
    "arch_prctl",
    "capget",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "fork",
    "futex",
    "futex_waitv",
    "get_robust_list",
    "get_thread_area",
    "getcpu",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getpgid",
    "getpgrp",
    "getpid",
    "getppid",
    "getpriority",
    "getresgid",
    "getresuid",
    "getrlimit",
    "getrusage",
    "getsid",
    "gettid",
    "getuid",
    "kill",
    "prctl",
    "restart_syscall",
    "rseq",
    "sched_get_priority_max",
    "sched_get_priority_min",
    "sched_getaffinity",
    "sched_getattr",
    "sched_getparam",
    "sched_getscheduler",
    "sched_rr_get_interval",
    "sched_yield",
    "set_robust_list",
    "set_thread_area",
    "set_tid_address",
    "setpgid",
    "setrlimit",
    "setsid",
    "sysinfo",
    "tgkill",
    "tkill",
    "uname",
    "vfork",
    "wait4",
    "waitid",
    /* signals */
    "rt_sigaction",
    "rt_sigpending",
    "rt_sigprocmask",
    "rt_sigqueueinfo",
    "rt_sigreturn",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "rt_tgsigqueueinfo",
    "sigaltstack",
    /* between the ends of a socketpair: asyncio has one */
    "getpeername",
    "getsockname",
    "getsockopt",
    "recvfrom",
    "recvmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    /* other */
    "getrandom",
};

/* Known to C libraries, which do without when they are told that there is no such call. */
static const char *const absent[] = {"clone3",     "landlock_create_ruleset", "io_uring_setup",
                                     "pidfd_open", "process_madvise",         "memfd_create"};

/* Answered as if they were done. A program that went where others are busy, or behind everybody,
 * could blame the machine for its slowness; one that had files forgotten, for its disk. */
static const char *const ignored[] = {"sched_setaffinity", "setpriority", "fadvise64"};

static const unsigned long allowed_ioctls[] = {FIONREAD, FIONBIO, FIOCLEX,
                                               FIONCLEX, TCGETS,  TIOCGWINSZ};

#define NAMESPACES                                                                                 \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |  \
     CLONE_NEWNET | 0x80 /* CLONE_NEWTIME */)

#define SOCKET_TYPE_MASK 0xfu /* the rest of the argument are SOCK_CLOEXEC and such */

static int add_rules(scmp_filter_ctx context)
{
    int failed = 0;
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++) {
        int number = seccomp_syscall_resolve_name(allowed[i]);
        if (number >= 0) failed |= seccomp_rule_add(context, SCMP_ACT_ALLOW, number, 0);
    }
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        int number = seccomp_syscall_resolve_name(absent[i]);
        if (number >= 0) failed |= seccomp_rule_add(context, SCMP_ACT_ERRNO(ENOSYS), number, 0);
    }
    for (size_t i = 0; i < sizeof allowed_ioctls / sizeof allowed_ioctls[0]; i++)
        failed |= seccomp_rule_add(context, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                                   SCMP_A1_32(SCMP_CMP_EQ, allowed_ioctls[i]));
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
        failed |= seccomp_rule_add(context, SCMP_ACT_ERRNO(0),
                                   seccomp_syscall_resolve_name(ignored[i]), 0);
    /* Not its own memory to a disk, for which it would then wait. */
    failed |= seccomp_rule_add(context, SCMP_ACT_ALLOW, SCMP_SYS(madvise), 1,
                               SCMP_A2_32(SCMP_CMP_NE, MADV_PAGEOUT));
    failed |= seccomp_rule_add(context, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                               SCMP_A0(SCMP_CMP_MASKED_EQ, NAMESPACES, 0));
    /* Streams only: a datagram may be sent to any name, and a name in a folder that is shown would
     * lead out. */
    failed |= seccomp_rule_add(context, SCMP_ACT_ALLOW, SCMP_SYS(socketpair), 2,
                               SCMP_A0_32(SCMP_CMP_EQ, AF_UNIX),
                               SCMP_A1_32(SCMP_CMP_MASKED_EQ, SOCKET_TYPE_MASK, SOCK_STREAM));
    /* Of itself only: process 1 has the same user, and a limit of its could end the run. */
    failed |= seccomp_rule_add(context, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1,
                               SCMP_A0_32(SCMP_CMP_EQ, 0));
    /* Not shared and without a file: such memory is nobody's when it is counted. */
    const unsigned both = MAP_SHARED | MAP_ANONYMOUS;
    for (unsigned kind = 0; kind < both; kind++)
        if ((kind & ~both) == 0)
            failed |= seccomp_rule_add(context, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                                       SCMP_A3_32(SCMP_CMP_MASKED_EQ, both, kind));
    return failed;
}

/* Takes the finished program out of libseccomp, by way of a file in memory. */
static Status export(scmp_filter_ctx context, struct sock_fprog *ret, Error *err)
{
    int fd = memfd_create("filter", MFD_CLOEXEC);
    if (fd < 0) return error_set_errno(err, errno, "could not make a file in memory");
    Status status = OK;
    off_t bytes = seccomp_export_bpf(context, fd) == 0 ? lseek(fd, 0, SEEK_END) : -1;
    size_t size = bytes > 0 ? (size_t)bytes : 0;
    struct sock_filter *filter = mem_alloc(size);
    if (size == 0 || size % sizeof *filter != 0 || size / sizeof *filter > BPF_MAXINSNS ||
        pread(fd, filter, size, 0) != bytes) {
        free(filter);
        status = error_set(err, ERR_UNSUPPORTED, "could not make the system call filter");
    } else {
        *ret =
            (struct sock_fprog){.len = (unsigned short)(size / sizeof *filter), .filter = filter};
    }
    close(fd);
    return status;
}

Status sandbox_filter_make(struct sock_fprog *ret, Error *err)
{
    scmp_filter_ctx context = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (context == NULL)
        return error_set(err, ERR_UNSUPPORTED, "libseccomp does not know this architecture");
    Status status;
    if (seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) != 0 ||
        seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2) != 0 || add_rules(context) != 0)
        status = error_set(err, ERR_UNSUPPORTED, "could not build the system call filter");
    else
        status = export(context, ret, err);
    seccomp_release(context);
    return status;
}
