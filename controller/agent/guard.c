#include "agent/guard.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/strays.h"
#include "base/clock.h"
#include "base/limits.h"
#include "net/socket.h"

enum {
    PATIENCE_MS = 1200, /* for an agent that was told to end */
    CLEANUP_MS = 1500,  /* for what it left to die */
    SLOTS = ACTORS_MAX + 1,
};

struct AgentGuard {
    pid_t pid;
    char endpoint[SLOTS][ENDPOINT_MAX + 16]; /* "" where free */
};

pid_t agent_guard_pid(const AgentGuard *guard)
{
    return guard->pid;
}

int agent_guard_add(AgentGuard *guard, const char *endpoint)
{
    if (strlen(endpoint) >= sizeof guard->endpoint[0]) return -1;
    for (int slot = 0; slot < SLOTS; slot++) {
        if (guard->endpoint[slot][0] != '\0') continue;
        snprintf(guard->endpoint[slot], sizeof guard->endpoint[slot], "%s", endpoint);
        return slot;
    }
    return -1;
}

void agent_guard_remove(AgentGuard *guard, int slot)
{
    if (slot >= 0) guard->endpoint[slot][0] = '\0';
}

/* Waits for the agent's end and returns its wait status. */
static int wait_for_agent(pid_t agent, const sigset_t *signals)
{
    int64_t kill_ms = 0; /* when patience ends; 0: nobody asked it to end */
    for (;;) {
        int status = 0;
        if (waitpid(agent, &status, WNOHANG) == agent) return status;
        struct timespec second = {.tv_sec = kill_ms != 0 ? 0 : 3600, .tv_nsec = 50000000};
        int number = sigtimedwait(signals, NULL, &second);
        if (number == SIGTERM && kill_ms == 0) {
            kill(agent, SIGTERM);
            kill_ms = clock_ms() + PATIENCE_MS;
        }
        if (kill_ms != 0 && clock_ms() >= kill_ms) kill(agent, SIGKILL);
    }
}

static void clean_up(AgentGuard *guard)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    int64_t end_ms = clock_ms() + CLEANUP_MS;
    while (agent_kill_strays(NULL, NULL) > 0 && clock_ms() < end_ms)
        nanosleep(&pause, NULL);
    for (int slot = 0; slot < SLOTS; slot++)
        if (guard->endpoint[slot][0] != '\0') socket_remove_file(guard->endpoint[slot]);
}

/* Ends as the agent did, so that whoever waits for this process learns the truth. */
static _Noreturn void end_like(int status, bool embedded)
{
    const struct rlimit no_core = {0};
    if (!WIFSIGNALED(status)) _exit(WEXITSTATUS(status));
    if (embedded) _exit(AGENT_KILLED_CODE + WTERMSIG(status));
    setrlimit(RLIMIT_CORE, &no_core);
    sigset_t all;
    sigfillset(&all);
    signal(WTERMSIG(status), SIG_DFL);
    sigprocmask(SIG_UNBLOCK, &all, NULL);
    raise(WTERMSIG(status));
    _exit(1);
}

static _Noreturn void run_guard(AgentGuard *guard, pid_t agent, const sigset_t *signals,
                                bool embedded)
{
    prctl(PR_SET_NAME, "agent_guard");
    int status = wait_for_agent(agent, signals);
    clean_up(guard);
    end_like(status, embedded);
}

/* Asks for a signal when the parent ends; false if it has ended already. */
static bool follow_parent(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    return getppid() == parent;
}

Status agent_guard_start(pid_t starter, AgentGuard **ret, Error *err)
{
    if (starter != 0 && !follow_parent(starter))
        return error_set(err, ERR_UNAVAILABLE, "the controller has ended");
    AgentGuard *guard =
        mmap(NULL, sizeof *guard, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (guard == MAP_FAILED)
        return error_set_errno(err, errno, "could not share %zu bytes with the guard",
                               sizeof *guard);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    /* SIGINT at a terminal reaches both; the agent acts on it, and the guard follows the agent. */
    sigset_t signals, before;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, &before);
    pid_t self = guard->pid = getpid(), agent = fork();
    if (agent < 0) return error_set_errno(err, errno, "could not start the agent's process");
    if (agent > 0) run_guard(guard, agent, &signals, starter != 0);
    sigprocmask(SIG_SETMASK, &before, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (!follow_parent(self)) return error_set(err, ERR_UNAVAILABLE, "the guard has ended");
    *ret = guard;
    return OK;
}
