/* Tests of the sandbox: each way out, by name, tried by escape_program from inside; and that
 * nothing is run where isolation cannot be had.
 *
 * They need user namespaces. Where the machine refuses those, each test of an escape asserts that
 * sandbox_run refuses too and says so, and is then skipped; and the program ends with 77, which
 * ctest shows as skipped. The tests of refusals make their own reasons and run everywhere.
 *
 * Whatever this program forks dies with it, and it adopts the orphans of what it starts: so that
 * no process is left behind, and so that a test can tell that none is. */
#include "test.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/process.h"
#include "rollout_worker/reward/sandbox.h"
#include "sandbox_stage.h"

#define BIN     PROJECT_BINARY_DIR "/bin"
#define PROGRAM BIN "/escape_program"
#define SECRET  "the host's own words"

static bool isolates; /* this machine lets us */

static Status run_command(const char *const *command, const SandboxLimits *limits,
                          SandboxResult *ret, Error *err)
{
    static const char *const readable[] = {BIN, NULL};
    SandboxRun run = {.command = command,
                      .readable = readable,
                      .limits = limits == NULL ? sandbox_limits_default : *limits};
    return sandbox_run(&run, ret, err);
}

/* Whether what sandbox_run gave is of a run. False, after the refusal was asserted, where the
 * machine cannot isolate: the test then has to end with skip(). */
static bool was_run(Status status, const Error *err)
{
    if (isolates) {
        assert_ok(status, err);
        return true;
    }
    assert_refused(status, err);
    print_message("          SKIP, refused as it must be: %.*s\n", (int)strcspn(err->message, "\n"),
                  err->message);
    return false;
}

/* Runs escape_program in a sandbox; returns what was_run says. */
static bool escape(const char *way, const char *first, const char *second,
                   const SandboxLimits *limits, SandboxResult *ret)
{
    const char *command[] = {PROGRAM, way, first, second, NULL};
    Error err = {0};
    *ret = (SandboxResult){0};
    Status status = run_command(command, limits, ret, &err);
    if (!was_run(status, &err)) return false;
    const char *output = str_text(&ret->output);
    if (strstr(output, "ESCAPED") != NULL || strstr(output, "BROKEN") != NULL)
        fail_msg("%s", output);
    print_message("          tried in a sandbox: %s\n", sandbox_end_name(ret->end));
    return true;
}

static void assert_tried(const SandboxResult *result, const char *way)
{
    char line[64];
    snprintf(line, sizeof line, "tried %s\n", way);
    if (result->end != SANDBOX_EXITED || strstr(str_text(&result->output), line) == NULL)
        fail_msg("%s: %s %d: %s %s", way, sandbox_end_name(result->end), result->code,
                 str_text(&result->output), str_text(&result->errors));
}

/* Processes of this machine that run this build's escape_program, as far as they can be seen. */
static int count_escapers(void)
{
    DIR *folder = opendir("/proc");
    int count = 0;
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[300], command[sizeof PROGRAM] = "";
        snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file == NULL) continue;
        if (fread(command, 1, sizeof command, file) == sizeof command &&
            memcmp(command, PROGRAM, sizeof command) == 0)
            count++;
        fclose(file);
    }
    closedir(folder);
    return count;
}

static char *write_secret(void)
{
    char *folder = getcwd(NULL, 0);
    char *path = mem_printf("%s/secret.txt", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(SECRET, file);
    fclose(file);
    chmod(path, 0666); /* no permission but the sandbox keeps it from being read and written */
    free(folder);
    return path;
}

static void assert_secret_is_whole(const char *path)
{
    char text[64] = "";
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    assert_string_equal(text, SECRET);
}

/* ---- the ways out ---- */

typedef struct Counter {
    bool stop;
    int most;
    pthread_t thread;
} Counter;

static void *count_for_a_while(void *argument)
{
    Counter *counter = argument;
    while (!__atomic_load_n(&counter->stop, __ATOMIC_ACQUIRE)) {
        int count = count_escapers();
        if (count > counter->most) counter->most = count;
        usleep(20000);
    }
    return NULL;
}

static void test_escape_fork_bomb(void **state)
{
    (void)state;
    SandboxLimits limits = sandbox_limits_default;
    limits.wall_ms = 800;
    limits.processes = 20;
    Counter counter = {0};
    SandboxResult result;
    assert_int_equal(pthread_create(&counter.thread, NULL, count_for_a_while, &counter), 0);
    bool ran = escape("fork_bomb", "", "", &limits, &result);
    __atomic_store_n(&counter.stop, true, __ATOMIC_RELEASE);
    pthread_join(counter.thread, NULL);
    if (!ran) skip();
    assert_true(result.end == SANDBOX_WALL_LIMIT || result.end == SANDBOX_CPU_LIMIT ||
                result.end == SANDBOX_STARVED); /* where the machine is busy */
    assert_in_range(counter.most, 1, limits.processes);
    assert_int_equal(count_escapers(), 0);
    sandbox_result_clear(&result);
}

static void test_escape_file_write(void **state)
{
    (void)state;
    char *secret = write_secret();
    SandboxResult result;
    if (escape("file_write", secret, BIN, NULL, &result)) {
        assert_tried(&result, "file_write");
        assert_int_not_equal(access(BIN "/escaped", F_OK), 0);
        assert_secret_is_whole(secret);
        sandbox_result_clear(&result);
    }
    free(secret);
    if (!isolates) skip();
}

static void test_escape_network(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    char port[16];
    snprintf(port, sizeof port, "%d", ntohs(address.sin_port));
    SandboxResult result;
    if (escape("network", port, "", NULL, &result)) {
        assert_tried(&result, "network");
        assert_true(accept(listener, NULL, NULL) < 0 && errno == EAGAIN);
        sandbox_result_clear(&result);
    }
    close(listener);
    if (!isolates) skip();
}

/* A process outside that must live on. */
static pid_t start_victim(char text[16])
{
    pid_t victim = fork_mortal();
    if (victim == 0)
        for (;;)
            pause();
    setpgid(victim, victim);
    snprintf(text, 16, "%d", victim);
    return victim;
}

static void end_victim(pid_t victim)
{
    assert_int_equal(waitpid(victim, NULL, WNOHANG), 0); /* it lives */
    kill(victim, SIGKILL);
    waitpid(victim, NULL, 0);
}

static void test_escape_ptrace(void **state)
{
    (void)state;
    char text[16];
    pid_t victim = start_victim(text);
    SandboxResult result;
    if (escape("ptrace", text, "", NULL, &result)) {
        assert_tried(&result, "ptrace");
        sandbox_result_clear(&result);
    }
    end_victim(victim);
    if (!isolates) skip();
}

static void test_escape_memory(void **state)
{
    (void)state;
    SandboxLimits limits = sandbox_limits_default;
    limits.memory_bytes = 128 << 20;
    static const char *const children[] = {"1", "8"}; /* alone, and each its part */
    for (int i = 0; i < 2; i++) {
        SandboxResult result;
        if (!escape("memory", children[i], "", &limits, &result)) skip();
        bool contained = result.end == SANDBOX_MEMORY_LIMIT ||
                         (result.end == SANDBOX_EXITED && result.code == 3);
        if (!contained) fail_msg("%s %d", sandbox_end_name(result.end), result.code);
        assert_int_equal(count_escapers(), 0);
        sandbox_result_clear(&result);
    }
}

static void test_escape_cpu(void **state)
{
    (void)state;
    SandboxLimits limits = sandbox_limits_default;
    limits.cpu_ms = 400;
    static const char *const children[] = {"1", "6"};
    for (int i = 0; i < 2; i++) {
        SandboxResult result;
        if (!escape("cpu", children[i], "", &limits, &result)) skip();
        assert_int_equal(result.end, SANDBOX_CPU_LIMIT);
        assert_int_equal(count_escapers(), 0);
        sandbox_result_clear(&result);
    }
    limits = sandbox_limits_default;
    limits.wall_ms = 300; /* one that only waits */
    SandboxResult result;
    if (!escape("sleep", "", "", &limits, &result)) skip();
    assert_int_equal(result.end, SANDBOX_WALL_LIMIT);
    sandbox_result_clear(&result);
}

static void test_escape_symlink(void **state)
{
    (void)state;
    char *secret = write_secret();
    SandboxResult result;
    if (escape("symlink", secret, "", NULL, &result)) {
        assert_tried(&result, "symlink");
        if (strstr(str_text(&result.output), SECRET) != NULL)
            fail_msg("%s", str_text(&result.output));
        assert_secret_is_whole(secret);
        sandbox_result_clear(&result);
    }
    free(secret);
    if (!isolates) skip();
}

static void test_escape_proc(void **state)
{
    (void)state;
    SandboxResult result;
    if (!escape("proc", "", "", NULL, &result)) skip();
    assert_tried(&result, "proc");
    sandbox_result_clear(&result);
}

static void test_escape_signals(void **state)
{
    (void)state;
    char text[16];
    pid_t victim = start_victim(text);
    SandboxResult result;
    if (escape("signals", text, "", NULL, &result)) {
        assert_tried(&result, "signals");
        assert_non_null(strstr(str_text(&result.output), "still here"));
        sandbox_result_clear(&result);
    }
    end_victim(victim);
    if (!isolates) skip();
}

static void test_escape_suicide(void **state)
{
    (void)state;
    static const char *const ways[] = {"kill",  "group",      "tkill", "queue", "thread",
                                       "child", "childs_end", "timer", "limit"};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        SandboxResult result;
        if (!escape("suicide", ways[i], "", NULL, &result)) skip();
        if (result.end != SANDBOX_KILLED || result.code != SIGKILL)
            fail_msg("%s: %s %d", ways[i], sandbox_end_name(result.end), result.code);
        sandbox_result_clear(&result);
    }
}

/* Whoever waits for a child of vfork has the state of who waits for a disk. */
static void test_escape_vfork(void **state)
{
    (void)state;
    static const char *const ways[] = {"vfork", "clone", "sibling"};
    SandboxLimits limits = sandbox_limits_default;
    limits.wall_ms = 1200;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        SandboxResult result;
        if (!escape("vfork", ways[i], "", &limits, &result)) skip();
        if (result.end != SANDBOX_WALL_LIMIT || result.starved_ms > 600)
            fail_msg("%s: %s, starved %lld ms", ways[i], sandbox_end_name(result.end),
                     (long long)result.starved_ms);
        sandbox_result_clear(&result);
    }
}

static void test_escape_crowd(void **state)
{
    (void)state;
    SandboxResult result;
    if (!escape("crowd", "", "", NULL, &result)) skip();
    assert_tried(&result, "crowd");
    sandbox_result_clear(&result);
}

static void test_escape_leftover_children(void **state)
{
    (void)state;
    SandboxResult result;
    if (!escape("leftover", "", "", NULL, &result)) skip();
    assert_tried(&result, "leftover");
    assert_int_equal(count_escapers(), 0);
    sandbox_result_clear(&result);
}

static void test_escape_privileges(void **state)
{
    (void)state;
    SandboxResult result;
    int leaked = open("/dev/zero", O_RDONLY); /* not closed on exec, and yet not inside */
    if (escape("privileges", "", "", NULL, &result)) {
        assert_tried(&result, "privileges");
        sandbox_result_clear(&result);
    }
    close(leaked);
    if (!isolates) skip();
}

static void test_escape_disk(void **state)
{
    (void)state;
    SandboxLimits limits = sandbox_limits_default;
    limits.disk_bytes = 4 << 20;
    SandboxResult result;
    if (!escape("disk", "", "", &limits, &result)) skip();
    assert_tried(&result, "disk");
    assert_in_range(atoll(str_text(&result.output)), 1 << 20, 4 << 20);
    sandbox_result_clear(&result);
}

/* Files are memory: of a program that writes what its disk holds, and of one that takes memory in
 * both ways. */
static void test_escape_memory_by_files(void **state)
{
    (void)state;
    SandboxLimits limits = sandbox_limits_default;
    limits.disk_bytes = 256 << 20;
    limits.memory_bytes = 64 << 20;
    SandboxResult result;
    if (!escape("disk", "", "", &limits, &result)) skip();
    assert_int_equal(result.end, SANDBOX_MEMORY_LIMIT);
    sandbox_result_clear(&result);
    assert_true(escape("halves", "40", "40", &limits, &result));
    assert_int_equal(result.end, SANDBOX_MEMORY_LIMIT);
    sandbox_result_clear(&result);
    assert_true(escape("halves", "20", "20", &limits, &result));
    assert_tried(&result, "halves");
    sandbox_result_clear(&result);
}

static void test_escape_output(void **state)
{
    (void)state;
    SandboxLimits limits = sandbox_limits_default;
    limits.output_bytes = 10000;
    SandboxResult result;
    if (!escape("flood", "", "", &limits, &result)) skip();
    assert_int_equal(result.end, SANDBOX_OUTPUT_LIMIT);
    assert_int_equal(result.output.length, 10000);
    sandbox_result_clear(&result);
}

/* ---- what is not the program's doing ---- */

/* SIGKILL is the machine's doing where the kernel says that it killed for want of memory. */
static void test_sandbox_tells_a_kill_for_want_of_memory(void **state)
{
    (void)state;
    static const char *const command[] = {"sh", "-c", "sleep 1; kill -9 $$", NULL};
    OutOfMemory machine;
    SandboxResult result = {0};
    Error err = {0};
    if (!isolates) skip();
    out_of_memory_start(&machine);
    SandboxRun run = {
        .command = command, .limits = sandbox_limits_default, .helper = machine.helper};
    Status status = sandbox_run(&run, &result, &err);
    out_of_memory_end(&machine);
    assert_ok(status, &err);
    assert_int_equal(result.end, SANDBOX_KILLED_OUTSIDE);
    assert_true(result.oom_kills > 0);
    sandbox_result_clear(&result);
}

/* A program that computes and one that waits, on a processor that others want too: only the first
 * was kept from anything. */
static void test_sandbox_tells_a_busy_machine_from_a_slow_program(void **state)
{
    (void)state;
    Crowd crowd;
    SandboxLimits limits = sandbox_limits_default;
    SandboxResult computes, waits;
    if (!isolates) skip();
    crowd_start(&crowd);
    limits.wall_ms = 3000; /* of which a slow start is a part */
    bool ran = escape("cpu", "1", "", &limits, &computes);
    ran = escape("sleep", "", "", &limits, &waits) && ran;
    crowd_end(&crowd);
    assert_true(ran);
    assert_int_equal(computes.end, SANDBOX_STARVED);
    assert_true(computes.starved_ms >= 1500 && computes.starved_ms <= computes.wall_ms);
    assert_int_equal(waits.end, SANDBOX_WALL_LIMIT);
    sandbox_result_clear(&computes);
    sandbox_result_clear(&waits);
}

/* ---- what it is for ---- */

static void test_sandbox_runs_a_program(void **state)
{
    (void)state;
    static const char *const command[] = {"sh", "-c", "cat a.txt; cat; echo no >&2; pwd; exit 7",
                                          NULL};
    SandboxFile files[] = {{"a.txt", SLICE_OF("file \xc3\xbc\n")}};
    SandboxRun run = {.command = command,
                      .input = SLICE_OF("input\n"),
                      .files = files,
                      .num_files = 1,
                      .limits = sandbox_limits_default};
    SandboxResult result = {0};
    Error err = {0};
    Status status = sandbox_run(&run, &result, &err);
    if (!was_run(status, &err)) skip();
    assert_int_equal(result.end, SANDBOX_EXITED);
    assert_int_equal(result.code, 7);
    assert_string_equal(str_text(&result.output), "file \xc3\xbc\ninput\n/box\n");
    assert_string_equal(str_text(&result.errors), "no\n");
    sandbox_result_clear(&result);
}

static void test_sandbox_says_how_a_program_died(void **state)
{
    (void)state;
    static const char *const command[] = {"sh", "-c", "kill -SEGV $$", NULL};
    SandboxResult result = {0};
    Error err = {0};
    Status status = run_command(command, NULL, &result, &err);
    if (!was_run(status, &err)) skip();
    assert_int_equal(result.end, SANDBOX_KILLED);
    assert_int_equal(result.code, SIGSEGV);
    sandbox_result_clear(&result);
}

static void test_sandbox_knows_a_missing_program(void **state)
{
    (void)state;
    static const char *const command[] = {"no-such-interpreter", NULL};
    SandboxResult result = {0};
    Error err = {0};
    Status status = run_command(command, NULL, &result, &err);
    if (!isolates) {
        assert_refused(status, &err);
        skip();
    }
    assert_fails(status, ERR_NOT_FOUND, &err, "cannot run no-such-interpreter in the sandbox");
}

/* The helper ignores SIGPIPE; a program that writes to nobody must still end by it. */
static void test_sandbox_gives_the_program_plain_signals(void **state)
{
    (void)state;
    static const char *const command[] = {"sh", "-c", "kill -PIPE $$", NULL};
    SandboxResult result = {0};
    Error err = {0};
    Status status = run_command(command, NULL, &result, &err);
    if (!was_run(status, &err)) skip();
    assert_int_equal(result.end, SANDBOX_KILLED);
    assert_int_equal(result.code, SIGPIPE);
    sandbox_result_clear(&result);
}

typedef struct Runner {
    int number;
    bool right;
    pthread_t thread;
} Runner;

static void *run_echo(void *argument)
{
    Runner *runner = argument;
    char text[32], command_line[64];
    snprintf(text, sizeof text, "runner %d\n", runner->number);
    snprintf(command_line, sizeof command_line, "cat; exit %d", runner->number);
    const char *command[] = {"sh", "-c", command_line, NULL};
    SandboxRun run = {
        .command = command, .input = slice_from(text), .limits = sandbox_limits_default};
    SandboxResult result = {0};
    Error err = {0};
    Status status = sandbox_run(&run, &result, &err);
    runner->right = isolates ? status == OK && result.code == runner->number &&
                                   strcmp(str_text(&result.output), text) == 0
                             : status == ERR_UNSUPPORTED;
    sandbox_result_clear(&result);
    return NULL;
}

static void test_sandboxes_run_side_by_side(void **state)
{
    (void)state;
    Runner runners[8];
    for (int i = 0; i < 8; i++) {
        runners[i] = (Runner){.number = i};
        assert_int_equal(pthread_create(&runners[i].thread, NULL, run_echo, &runners[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(runners[i].thread, NULL);
        assert_true(runners[i].right);
    }
}

/* Reaps all that this process has started or adopted; false when something lives on. */
static bool reap_all(void)
{
    int64_t end = clock_ms() + 10000;
    while (clock_ms() < end) {
        pid_t ended = waitpid(-1, NULL, WNOHANG);
        if (ended < 0 && errno == ECHILD) return true;
        if (ended == 0) usleep(500);
    }
    return false;
}

/* Starts a process that runs escape_program in a sandbox, which only sleeps. */
static pid_t start_sleeper(void)
{
    pid_t starter = fork_mortal();
    if (starter == 0) {
        const char *command[] = {PROGRAM, "sleep", NULL};
        SandboxResult result = {0};
        Error err = {0};
        run_command(command, NULL, &result, &err);
        _exit(0);
    }
    return starter;
}

static void test_sandbox_dies_with_who_started_it(void **state)
{
    (void)state;
    if (!isolates) skip(); /* nothing is ever started; the other tests assert that */
    pid_t starter = start_sleeper();
    int64_t end = clock_ms() + 30000;
    while (count_escapers() == 0 && clock_ms() < end)
        usleep(2000);
    assert_int_equal(count_escapers(), 1);
    kill(starter, SIGKILL);
    assert_true(reap_all());
    assert_int_equal(count_escapers(), 0);
}

/* There is no moment of the start at which a death is not seen: the kills come ever later in it,
 * until the program runs. */
static void test_sandbox_leaves_nothing_behind_when_its_start_is_cut(void **state)
{
    (void)state;
    if (!isolates) skip();
    for (int i = 0; i < 50; i++) {
        pid_t starter = start_sleeper();
        usleep((useconds_t)(i * 200));
        kill(starter, SIGKILL);
        if (!reap_all()) fail_msg("killed after %d us: something lives on", i * 200);
    }
    assert_int_equal(count_escapers(), 0);
}

/* The helper is the one that is killed: process 1 of the namespace must see it, and the caller
 * hears that nothing came of the run. */
static void test_sandbox_dies_with_its_helper(void **state)
{
    (void)state;
    if (!isolates) skip();
    pid_t starter = start_sleeper();
    char path[64];
    int helper = 0;
    int64_t end = clock_ms() + 30000;
    while (count_escapers() == 0 && clock_ms() < end)
        usleep(2000);
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", starter, starter);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%d", &helper), 1);
    fclose(file);
    kill(helper, SIGKILL);
    int status = -1;
    assert_int_equal(waitpid(starter, &status, 0), starter);
    assert_int_equal(status, 0);
    assert_true(reap_all());
    assert_int_equal(count_escapers(), 0);
}

/* ---- refusals ---- */

static void test_sandbox_refuses_names_and_paths(void **state)
{
    (void)state;
    static const char *const command[] = {"true", NULL};
    static const char *const names[] = {"", "../x", "a/b", ".hidden"};
    static const char *const paths[] = {"/",        "/proc",        "/sys/kernel",      "/dev",
                                        "relative", "/usr/../root", "/run/docker.sock", "/box"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        SandboxFile file = {names[i], {0}};
        SandboxRun run = {
            .command = command, .files = &file, .num_files = 1, .limits = sandbox_limits_default};
        SandboxResult result = {0};
        Error err = {0};
        assert_fails(sandbox_run(&run, &result, &err), ERR_INVALID, &err, "is no name for a file");
    }
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        const char *readable[] = {paths[i], NULL};
        SandboxRun run = {
            .command = command, .readable = readable, .limits = sandbox_limits_default};
        SandboxResult result = {0};
        Error err = {0};
        assert_fails(sandbox_run(&run, &result, &err), ERR_INVALID, &err, "cannot be shown");
    }
}

static void test_sandbox_refuses_files_larger_than_its_disk(void **state)
{
    (void)state;
    static const char *const command[] = {"true", NULL};
    static char text[3 << 19];
    SandboxFile file = {"a.txt", {text, sizeof text}};
    SandboxRun run = {
        .command = command, .files = &file, .num_files = 1, .limits = sandbox_limits_default};
    run.limits.disk_bytes = 2 << 20;
    SandboxResult result = {0};
    Error err = {0};
    assert_fails(sandbox_run(&run, &result, &err), ERR_INVALID, &err, "have 1572864 bytes");
}

static void test_sandbox_refuses_without_its_helper(void **state)
{
    (void)state;
    static const char *const command[] = {"true", NULL};
    SandboxRun run = {
        .command = command, .limits = sandbox_limits_default, .helper = "/no/such/helper"};
    SandboxResult result = {0};
    Error err = {0};
    assert_fails(sandbox_run(&run, &result, &err), ERR_UNSUPPORTED, &err, "nothing can be run");
}

/* What a child process saw of a run under a filter that denies a system call. */
typedef struct Seen {
    Status status;
    bool ran;
    char message[ERROR_MESSAGE_MAX];
} Seen;

/* Denies calls of `name`; where `value` is not 0, only those whose first argument has these bits.
 */
static bool deny(const char *name, unsigned long value)
{
    scmp_filter_ctx context = seccomp_init(SCMP_ACT_ALLOW);
    int number = seccomp_syscall_resolve_name(name);
    int failed = value == 0 ? seccomp_rule_add(context, SCMP_ACT_ERRNO(EPERM), number, 0)
                            : seccomp_rule_add(context, SCMP_ACT_ERRNO(EPERM), number, 1,
                                               SCMP_A0(SCMP_CMP_MASKED_EQ, value, value));
    failed |= seccomp_load(context);
    seccomp_release(context);
    return failed == 0;
}

/* Each step of the isolation is denied in turn: no step may be left out in silence. */
static void test_sandbox_refuses_when_any_step_is_denied(void **state)
{
    (void)state;
    static const struct {
        const char *call;
        unsigned long value;
    } steps[] = {
        {"clone", CLONE_NEWUSER},
        {"clone", CLONE_NEWNET},
        {"clone", CLONE_NEWPID},
        {"open_tree", 0},
        {"mount_setattr", 0},
        {"move_mount", 0},
        {"mount", 0},
        {"pivot_root", 0},
        {"umount2", 0},
        {"setresuid", 0},
        {"setresgid", 0},
        {"capset", 0},
        {"sethostname", 0},
#ifndef TROUPE_SANITIZED /* whose run-time library asks for limits itself */
        {"prlimit64", 0},
#endif
        {"prctl", PR_SET_SECCOMP},
        {"prctl", PR_SET_NO_NEW_PRIVS},
        {"prctl", PR_CAPBSET_DROP},
        {"chdir", 0},
        {"symlink", 0},
        {"mkdir", 0},
        {"chmod", 0},
        {"sendmsg", 0},
        {"socketpair", 0},
    };
    static const char *const command[] = {"echo", "ran", NULL};
    Seen *seen =
        mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(seen, MAP_FAILED);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        memset(seen, 0, sizeof *seen);
        pid_t child = fork_mortal();
        if (child == 0) {
            SandboxResult result = {0};
            Error err = {0};
            if (!deny(steps[i].call, steps[i].value)) _exit(9);
            seen->status = run_command(command, NULL, &result, &err);
            seen->ran = result.output.length > 0;
            memcpy(seen->message, err.message, sizeof seen->message);
            _exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        assert_int_equal(status, 0);
        if (seen->ran || seen->status != ERR_UNSUPPORTED ||
            strstr(seen->message, "nothing was run") == NULL)
            fail_msg("without %s %lx: ran %d, %s: %s", steps[i].call, steps[i].value, seen->ran,
                     status_name(seen->status), seen->message);
    }
    munmap(seen, sizeof *seen);
}

static void test_sandbox_works_for_any_user(void **state)
{
    (void)state;
    if (geteuid() != 0) skip(); /* then all of the other tests are this one */
    pid_t child = fork_mortal();
    if (child == 0) {
        const char *command[] = {"id", "-u", NULL};
        SandboxRun run = {.command = command, .limits = sandbox_limits_default};
        SandboxResult result = {0};
        Error err = {0};
        if (setgid(65534) != 0 || setuid(65534) != 0) _exit(77);
        if (access(BIN "/sandbox", X_OK) != 0) _exit(77);
        Status status = sandbox_run(&run, &result, &err);
        if (status == ERR_UNSUPPORTED)
            _exit(strstr(err.message, "nothing was run") != NULL ? 78 : 2);
        _exit(status == OK && strcmp(str_text(&result.output), "1000\n") == 0 ? 0 : 3);
    }
    int status = 0;
    waitpid(child, &status, 0);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 99;
    if (code == 77)
        print_message("          SKIP: no other user may be had, or the build folder is private\n");
    if (code == 78) print_message("          SKIP: users may not have namespaces here\n");
    if (code == 77 || code == 78) skip();
    assert_int_equal(code, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escape_fork_bomb),
        cmocka_unit_test(test_escape_file_write),
        cmocka_unit_test(test_escape_network),
        cmocka_unit_test(test_escape_ptrace),
        cmocka_unit_test(test_escape_memory),
        cmocka_unit_test(test_escape_cpu),
        cmocka_unit_test(test_escape_symlink),
        cmocka_unit_test(test_escape_proc),
        cmocka_unit_test(test_escape_signals),
        cmocka_unit_test(test_escape_suicide),
        cmocka_unit_test(test_escape_vfork),
        cmocka_unit_test(test_escape_crowd),
        cmocka_unit_test(test_escape_leftover_children),
        cmocka_unit_test(test_escape_privileges),
        cmocka_unit_test(test_escape_disk),
        cmocka_unit_test(test_escape_memory_by_files),
        cmocka_unit_test(test_escape_output),
        cmocka_unit_test(test_sandbox_tells_a_kill_for_want_of_memory),
        cmocka_unit_test(test_sandbox_tells_a_busy_machine_from_a_slow_program),
        cmocka_unit_test(test_sandbox_runs_a_program),
        cmocka_unit_test(test_sandbox_says_how_a_program_died),
        cmocka_unit_test(test_sandbox_knows_a_missing_program),
        cmocka_unit_test(test_sandboxes_run_side_by_side),
        cmocka_unit_test(test_sandbox_dies_with_who_started_it),
        cmocka_unit_test(test_sandbox_leaves_nothing_behind_when_its_start_is_cut),
        cmocka_unit_test(test_sandbox_dies_with_its_helper),
        cmocka_unit_test(test_sandbox_gives_the_program_plain_signals),
        cmocka_unit_test(test_sandbox_refuses_files_larger_than_its_disk),
        cmocka_unit_test(test_sandbox_refuses_names_and_paths),
        cmocka_unit_test(test_sandbox_refuses_without_its_helper),
        cmocka_unit_test(test_sandbox_refuses_when_any_step_is_denied),
        cmocka_unit_test(test_sandbox_works_for_any_user),
    };
    static const char *const command[] = {"true", NULL};
    SandboxResult result = {0};
    Error err = {0};
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    Status status = run_command(command, NULL, &result, &err);
    sandbox_result_clear(&result);
    isolates = status == OK;
    print_message("this machine %s\n", isolates ? "isolates: the escapes are tried in sandboxes"
                                                : "does not isolate: the refusals are tested");
    if (!isolates) print_message("%s\n", err.message);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed == 0 && !isolates ? 77 : failed;
}
