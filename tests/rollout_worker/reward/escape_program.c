/* A program that tries to get out of a sandbox, for test_sandbox.c; the first argument names the
 * way. It prints a line with ESCAPED for whatever works that must not. Built without sanitizers: it
 * runs under limits that they would not fit in. */
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Something that must not work; `result` is what the call gave. */
static void must_fail(long result, const char *what)
{
    if (result >= 0) printf("ESCAPED %s\n", what);
    fflush(stdout);
}

static void must_not_open(const char *path, int flags)
{
    char what[300];
    snprintf(what, sizeof what, "open %s with %o", path, (unsigned)flags);
    must_fail(open(path, flags, 0666), what);
}

static void fork_bomb(void)
{
    for (;;)
        if (fork() < 0) usleep(1000);
}

static void write_outside(const char *host_file, const char *shown_folder)
{
    static const char *const folders[] = {"",     "/usr", "/usr/bin", "/etc",    "/root", "/home",
                                          "/var", "/dev", "/bin",     "/lib",    "/proc", "/sys",
                                          "/run", "/opt", "/box/..",  "/tmp/..", "/mnt",  "/srv"};
    char path[400];
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        snprintf(path, sizeof path, "%s/escaped", folders[i]);
        must_not_open(path, O_CREAT | O_WRONLY);
        must_fail(mkdir(path, 0777), path);
        must_fail(symlink("/etc/passwd", path), path);
        must_fail(rename("/box/own", path), path);
        must_fail(mknod(path, S_IFREG | 0666, 0), path);
    }
    must_not_open(host_file, O_WRONLY);
    must_not_open(host_file, O_RDONLY);
    must_fail(unlink(host_file), host_file);
    must_fail(truncate(host_file, 0), host_file);
    must_fail(chmod("/usr/bin/env", 0777), "chmod of a program");
    must_fail(unlink("/usr/bin/env"), "unlink of a program");
    must_fail(unlink("/dev/null"), "unlink of a device");
    must_not_open("/etc/passwd", O_WRONLY);
    snprintf(path, sizeof path, "%s/escaped", shown_folder);
    must_not_open(path, O_CREAT | O_WRONLY);
    must_fail(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL), "remount of the root");
    must_fail(mount("x", "/usr", "tmpfs", 0, NULL), "mount over /usr");
    must_fail(umount("/usr"), "umount of /usr");
    int own = open("/box/own", O_CREAT | O_WRONLY, 0666);
    if (own < 0 || write(own, "x", 1) != 1) printf("BROKEN: /box cannot be written to\n");
}

static void use_network(int port)
{
    static const int families[] = {AF_UNIX,   AF_INET,  AF_INET6, AF_NETLINK,
                                   AF_PACKET, AF_VSOCK, AF_ALG};
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        must_fail(socket(families[i], SOCK_STREAM, 0), "a stream socket");
        must_fail(socket(families[i], SOCK_DGRAM, 0), "a datagram socket");
        must_fail(socket(families[i], SOCK_RAW, 0), "a raw socket");
    }
    int pair[2];
    must_fail(socketpair(AF_INET, SOCK_STREAM, 0, pair), "a pair of internet sockets");
    must_fail(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), "datagrams, which go to any name");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        printf("BROKEN: no pair of streams can be had, which asyncio needs\n");
    struct {
        uint16_t family, port;
        uint32_t address;
        uint8_t zero[8];
    } local = {AF_INET, (uint16_t)(port >> 8 | port << 8), 0x0100007f, {0}};
    for (int fd = 0; fd < 64; fd++)
        must_fail(connect(fd, (struct sockaddr *)&local, sizeof local), "a connection");
    must_fail(syscall(SYS_io_uring_setup, 8, NULL), "io_uring");
}

static void trace(pid_t host_pid)
{
    pid_t victims[] = {1, getppid(), host_pid, getpid()};
    char byte[8];
    struct iovec to = {byte, sizeof byte}, from = {byte, sizeof byte};
    for (size_t i = 0; i < sizeof victims / sizeof victims[0]; i++) {
        must_fail(ptrace(PTRACE_ATTACH, victims[i], NULL, NULL), "ptrace attach");
        must_fail(ptrace(PTRACE_SEIZE, victims[i], NULL, NULL), "ptrace seize");
        must_fail(process_vm_readv(victims[i], &to, 1, &from, 1, 0), "process_vm_readv");
        must_fail(process_vm_writev(victims[i], &to, 1, &from, 1, 0), "process_vm_writev");
        must_fail(syscall(SYS_kcmp, victims[i], 1, 0, 0, 0), "kcmp");
    }
    must_fail(ptrace(PTRACE_TRACEME, 0, NULL, NULL), "ptrace of itself");
    must_not_open("/proc/1/mem", O_RDONLY);
    int fd = (int)syscall(SYS_pidfd_open, 1, 0);
    must_fail(fd, "pidfd_open");
    must_fail(syscall(SYS_pidfd_getfd, fd, 0, 0), "pidfd_getfd");
}

static void eat(size_t bytes)
{
    const size_t step = 4 << 20;
    for (size_t eaten = 0; eaten < bytes; eaten += step) {
        char *memory = mmap(NULL, step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) _exit(3);
        memset(memory, 1, step);
    }
}

static void eat_memory(int children)
{
    must_fail(syscall(SYS_memfd_create, "m", 0), "memfd_create");
    must_fail(shmget(IPC_PRIVATE, 1 << 20, IPC_CREAT | 0600), "shmget");
    must_not_open("/dev/zero", O_RDWR);
    /* shared and touched, then let go of: in use, and no process's */
    const int kinds[] = {MAP_SHARED | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
                         MAP_SHARED_VALIDATE | MAP_ANONYMOUS};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        must_fail(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, kinds[i], -1, 0) == MAP_FAILED ? -1
                                                                                             : 0,
                  "memory that is shared");
    for (int i = 1; i < children; i++)
        if (fork() == 0) break;
    eat((size_t)8 << 30);
    printf("ESCAPED ate 8 GiB\n");
}

static void spin(int children)
{
    for (int i = 1; i < children; i++)
        if (fork() == 0) break;
    for (;;)
        continue;
}

/* Prints what can be read of a file: the test looks for what must not be there. */
static void show(const char *path)
{
    char bytes[256];
    int fd = open(path, O_RDONLY);
    ssize_t got = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
    if (got > 0) printf("read %s: %.*s\n", path, (int)got, bytes);
    if (fd >= 0) close(fd);
}

static void follow_links(const char *host_file)
{
    static const char *const roots[] = {
        "/proc/self/root", "/proc/1/root", "/dev/fd/0/..", "/", "..", "../../../../../../.."};
    char path[600];
    if (symlink(host_file, "/box/link") != 0) printf("BROKEN: no link can be made\n");
    show("/box/link");
    for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++) {
        if (symlink(roots[i], "/box/root") != 0) printf("BROKEN: no link can be made\n");
        snprintf(path, sizeof path, "/box/root%s", host_file);
        show(path);
        snprintf(path, sizeof path, "%s%s", roots[i], host_file);
        show(path);
        unlink("/box/root");
    }
    must_fail(link(host_file, "/box/hard"), "a hard link");
    must_fail(chroot("/box"), "chroot");
    int fd = open("/", O_PATH | O_DIRECTORY);
    for (int i = 0; i < 32; i++)
        fd = openat(fd, "..", O_PATH | O_DIRECTORY);
    int out = openat(fd, host_file + 1, O_RDONLY);
    must_fail(out, "the host's file by way of ..");
    char handle[128] = {0};
    must_fail(syscall(SYS_open_by_handle_at, fd, handle, O_RDONLY), "open_by_handle_at");
    must_fail(syscall(SYS_name_to_handle_at, fd, "usr", handle, handle, 0), "name_to_handle_at");
}

static void look_at_proc(void)
{
    static const char *const paths[] = {"/proc/self/environ",
                                        "/proc/1/environ",
                                        "/proc/1/root/etc",
                                        "/proc/sys/kernel/core_pattern",
                                        "/proc/sysrq-trigger",
                                        "/proc/kcore",
                                        "/proc/self/mem",
                                        "/sys/kernel/uevent_helper",
                                        "/sys/fs/cgroup/cgroup.procs",
                                        "/dev/mem",
                                        "/dev/kmsg",
                                        "/dev/vda",
                                        "/dev/sda",
                                        "/dev/tty",
                                        "/dev/ptmx",
                                        "/dev/fuse",
                                        "/dev/kvm"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        must_not_open(paths[i], O_RDONLY);
        must_not_open(paths[i], O_WRONLY);
    }
    mkdir("/box/proc", 0777);
    must_fail(mount("proc", "/box/proc", "proc", 0, NULL), "mount of proc");
    must_fail(mount("sys", "/box/proc", "sysfs", 0, NULL), "mount of sysfs");
    must_fail(syscall(SYS_fsopen, "proc", 0), "fsopen of proc");
    must_fail(mknod("/box/disk", S_IFBLK | 0666, makedev(254, 0)), "mknod of a disk");
    must_fail(mknod("/box/memory", S_IFCHR | 0666, makedev(1, 1)), "mknod of memory");
}

static void send_signals(pid_t host_pid)
{
    union sigval value = {0};
    must_fail(kill(host_pid, SIGKILL), "kill of a process outside");
    must_fail(kill(-host_pid, SIGKILL), "kill of a group outside");
    must_fail(syscall(SYS_tgkill, host_pid, host_pid, SIGKILL), "tgkill outside");
    must_fail(sigqueue(host_pid, SIGKILL, value), "sigqueue outside");
    struct rlimit nothing = {0, 0};
    must_fail(syscall(SYS_prlimit64, 1, RLIMIT_CPU, &nothing, NULL), "a limit of process 1");
    kill(1, SIGKILL); /* process 1 takes no signal from below */
    kill(1, SIGTERM);
    kill(-1, SIGKILL); /* everyone but itself and process 1 */
    kill(getppid(), SIGSTOP);
    for (pid_t pid = 2; pid < 65536; pid++)
        if (pid != getpid()) kill(pid, SIGKILL);
    printf("still here\n");
}

static void *end_the_process(void *number)
{
    (void)number;
    kill((pid_t)syscall(SYS_gettid), SIGKILL); /* by the number of a thread */
    return NULL;
}

static int sleep_long(void *nothing)
{
    (void)nothing;
    sleep(1000);
    return 0;
}

static int end_as_a_child(void *nothing)
{
    (void)nothing;
    return 0;
}

/* Has SIGKILL sent to itself, which would look as if it came from outside. */
static void kill_itself(const char *way)
{
    static char stack[65536];
    union sigval value = {0};
    pid_t self = getpid(), child = 0;
    pthread_t thread;
    timer_t timer;
    struct rlimit limit = {1, 1};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    struct itimerspec soon = {.it_value = {.tv_nsec = 10000000}};
    if (strcmp(way, "kill") == 0) kill(self, SIGKILL);
    if (strcmp(way, "group") == 0) kill(0, SIGKILL);
    if (strcmp(way, "tkill") == 0) syscall(SYS_tkill, self, SIGKILL);
    if (strcmp(way, "queue") == 0) sigqueue(self, SIGKILL, value);
    if (strcmp(way, "thread") == 0) pthread_create(&thread, NULL, end_the_process, NULL);
    if (strcmp(way, "child") == 0 && (child = fork()) == 0) kill(self, SIGKILL);
    if (strcmp(way, "childs_end") == 0) clone(end_as_a_child, stack + sizeof stack, SIGKILL, NULL);
    if (strcmp(way, "timer") == 0 && timer_create(CLOCK_MONOTONIC, &event, &timer) == 0)
        timer_settime(timer, 0, &soon, NULL);
    if (strcmp(way, "limit") == 0 && setrlimit(RLIMIT_CPU, &limit) == 0)
        for (;;)
            continue;
    sleep(5);
    printf("BROKEN: %s does not kill\n", way);
}

/* Sleeps in a state that is also that of who waits for a disk. */
static void wait_for_vfork(const char *how)
{
    if (strcmp(how, "vfork") == 0 && syscall(SYS_vfork) == 0) sleep(1000);
    static char stack[65536];
    int flags = strcmp(how, "sibling") == 0 ? CLONE_VFORK | CLONE_PARENT | SIGCHLD
                                            : CLONE_VFORK | CLONE_VM | SIGCHLD;
    clone(sleep_long, stack + sizeof stack, flags, NULL);
}

/* What would make it wait where the machine is not busy for others. */
static void seek_the_crowd(void)
{
    cpu_set_t before, one, after;
    sched_getaffinity(0, sizeof before, &before);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) printf("BROKEN: told of no affinity\n");
    if (setpriority(PRIO_PROCESS, 0, 19) != 0) printf("BROKEN: told of no priority\n");
    sched_getaffinity(0, sizeof after, &after);
    must_fail(CPU_EQUAL(&before, &after) ? -1 : 0, "a processor of its choice");
    must_fail(getpriority(PRIO_PROCESS, 0) == 0 ? -1 : 0, "a priority behind all others");
}

static void leave_children(void)
{
    for (int i = 0; i < 5; i++) {
        if (fork() != 0) continue;
        setsid();
        if (fork() != 0) _exit(0);
        signal(SIGTERM, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        prctl(PR_SET_PDEATHSIG, 0);
        if (i % 2 == 0) close(0), close(1), close(2);
        for (;;)
            sleep(100);
    }
    usleep(50000);
    printf("leaving\n");
}

static void gain_privileges(void)
{
    char stack[4096];
    must_fail(setuid(0), "setuid 0");
    must_fail(setgid(0), "setgid 0");
    must_fail(syscall(SYS_setresuid, 0, 0, 0), "setresuid 0");
    must_fail(unshare(CLONE_NEWUSER), "a new user namespace");
    must_fail(unshare(CLONE_NEWNS), "a new mount namespace");
    must_fail(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0), "clone");
    must_fail(syscall(SYS_clone3, stack, 88), "clone3");
    must_fail(setns(0, 0), "setns");
    must_fail(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 1), "keyctl");
    must_fail(syscall(SYS_add_key, "user", "a", "b", 1, KEY_SPEC_PROCESS_KEYRING), "add_key");
    must_fail(syscall(SYS_bpf, 0, stack, 64), "bpf");
    must_fail(syscall(SYS_perf_event_open, stack, 0, -1, -1, 0), "perf_event_open");
    must_fail(syscall(SYS_userfaultfd, 0), "userfaultfd");
    must_fail(syscall(SYS_init_module, stack, 16, ""), "init_module");
    must_fail(syscall(SYS_reboot, 0xfee1dead, 672274793, 0, NULL), "reboot");
    must_fail(syscall(SYS_settimeofday, NULL, NULL), "settimeofday");
    must_fail(syscall(SYS_sethostname, "x", 1), "sethostname");
    must_fail(syscall(SYS_personality, 0x0400000), "personality");
    must_fail(syscall(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, "x"), "TIOCSTI");
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    must_fail(setrlimit(RLIMIT_AS, &limit), "a higher limit of memory");
    must_fail(setrlimit(RLIMIT_NPROC, &limit), "a higher limit of processes");
    for (int fd = 3; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0) printf("ESCAPED an open descriptor %d\n", fd);
    if (getuid() == 0 || geteuid() == 0) printf("ESCAPED root\n");
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) printf("ESCAPED new privileges\n");
    if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 2) printf("ESCAPED no filter\n");
    for (int number = 0; number < 41; number++)
        if (prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1) printf("ESCAPED capability %d\n", number);
}

static void fill_disk(void)
{
    static char block[1 << 16];
    long long written = 0;
    for (int i = 0; i < 64; i++) {
        char path[64];
        snprintf(path, sizeof path, i % 2 == 0 ? "/tmp/file%d" : "/box/file%d", i);
        int fd = open(path, O_CREAT | O_WRONLY, 0666);
        for (ssize_t got; fd >= 0 && (got = write(fd, block, sizeof block)) > 0;)
            written += got;
    }
    printf("%lld bytes\n", written);
    fflush(stdout);
}

/* Takes memory by files and by processes, neither of them too much alone, and waits. */
static void eat_by_halves(long files_mb, long memory_mb)
{
    static char block[1 << 20];
    int fd = open("/tmp/half", O_CREAT | O_WRONLY, 0666);
    for (long i = 0; i < files_mb; i++)
        if (write(fd, block, sizeof block) != (ssize_t)sizeof block) printf("BROKEN: no room\n");
    eat((size_t)memory_mb << 20);
    sleep(1);
}

static void flood(void)
{
    for (;;)
        if (write(1, "0123456789abcdef", 16) < 0) return;
}

int main(int argc, char **argv)
{
    const char *way = argc > 1 ? argv[1] : "";
    const char *first = argc > 2 ? argv[2] : "0", *second = argc > 3 ? argv[3] : "";
    signal(SIGXFSZ, SIG_IGN);
    if (strcmp(way, "fork_bomb") == 0) fork_bomb();
    if (strcmp(way, "file_write") == 0) write_outside(first, second);
    if (strcmp(way, "network") == 0) use_network(atoi(first));
    if (strcmp(way, "ptrace") == 0) trace(atoi(first));
    if (strcmp(way, "memory") == 0) eat_memory(atoi(first));
    if (strcmp(way, "cpu") == 0) spin(atoi(first));
    if (strcmp(way, "symlink") == 0) follow_links(first);
    if (strcmp(way, "proc") == 0) look_at_proc();
    if (strcmp(way, "signals") == 0) send_signals(atoi(first));
    if (strcmp(way, "suicide") == 0) kill_itself(first);
    if (strcmp(way, "vfork") == 0) wait_for_vfork(first);
    if (strcmp(way, "crowd") == 0) seek_the_crowd();
    if (strcmp(way, "leftover") == 0) leave_children();
    if (strcmp(way, "privileges") == 0) gain_privileges();
    if (strcmp(way, "disk") == 0) fill_disk();
    if (strcmp(way, "halves") == 0) eat_by_halves(atol(first), atol(second));
    if (strcmp(way, "flood") == 0) flood();
    if (strcmp(way, "sleep") == 0) sleep(1000);
    printf("tried %s\n", way);
    return 0;
}
