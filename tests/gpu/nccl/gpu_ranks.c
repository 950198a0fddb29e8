#include "gpu_ranks.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

#define STAGING_BYTES ((size_t)8 << 20)
#define TIMEOUT_MS    30000
#define SECONDS_MAX   150 /* of a process */

_Noreturn void gpu_rank_stop(const GpuRank *self, const char *file, int line, const char *what)
{
    printf("rank %d, %s:%d: %s\n", self->rank, strrchr(file, '/') + 1, line, what);
    fflush(stdout);
    _exit(1);
}

_Noreturn void gpu_rank_die(void)
{
    usleep(500000);
    kill(getpid(), SIGKILL);
    abort();
}

static void be_a_host(const GpuRank *self)
{
    char name[32];
    if (self->gpus >= self->size) {
        snprintf(name, sizeof name, "%d", self->rank);
        if (self->size > 1) setenv("CUDA_VISIBLE_DEVICES", name, 1);
        return;
    }
    snprintf(name, sizeof name, "troupe-%d", self->rank);
    setenv("NCCL_HOSTID", name, 1);
    setenv("NCCL_SOCKET_IFNAME", "lo", 1);
    setenv("NCCL_IB_DISABLE", "1", 1);
    setenv("NCCL_MNNVL_ENABLE", "0", 1); /* nor are these hosts of one rack */
}

static void join(GpuRank *self, const int *ends)
{
    Error err;
    CommId id;
    CommDevice device = {self->kernels, self->device.streams, NULL};
    int64_t begin = clock_ms();
    if (self->rank == 0) {
        MUST_OK(comm_id_create_nccl(&device, self->size, STAGING_BYTES, &id, &err));
        for (int r = 1; r < self->size; r++)
            MUST(write(ends[1], &id, sizeof id) == (ssize_t)sizeof id);
    } else {
        close(ends[1]); /* where rank 0 ends without a word, there is an end to what is read */
        MUST(read(ends[0], &id, sizeof id) == (ssize_t)sizeof id);
    }
    MUST_OK(comm_create_nccl(&device, &id, self->rank, self->size, TIMEOUT_MS, &self->comm, &err));
    if (self->rank == 0) printf("joined in %lld ms\n", (long long)(clock_ms() - begin));
}

static _Noreturn void run_rank(GpuRank *self, GpuBody body, void *argument, const int *ends)
{
    Error err;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(SECONDS_MAX);
    be_a_host(self);
    DeviceOptions options = {.library = NULL};
    MUST_OK(device_open(DEVICE_CUDA, &options, &self->kernels, &self->device, &err));
    if (self->size > 1) join(self, ends);
    body(self, argument);
    comm_destroy(self->comm);
    fflush(stdout);
    _exit(0);
}

int gpu_ranks_run(const char *name, int gpus, int size, GpuBody body, void *argument, int killed)
{
    int ends[2], failures = 0;
    pid_t child[GPU_RANKS_MAX];
    if (pipe(ends) != 0) return 1;
    fflush(stdout);
    for (int r = 0; r < size; r++) {
        GpuRank self = {.rank = r, .size = size, .gpus = gpus};
        child[r] = fork();
        if (child[r] == 0) run_rank(&self, body, argument, ends);
    }
    close(ends[0]);
    close(ends[1]);
    for (int r = 0; r < size; r++) {
        int status = 0;
        waitpid(child[r], &status, 0);
        bool died = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        if (r == killed ? died : status == 0) continue;
        failures++;
        if (WIFSIGNALED(status)) printf("rank %d ended by signal %d\n", r, WTERMSIG(status));
    }
    printf("%s: %s\n", name, failures == 0 ? "passed" : "FAILED");
    fflush(stdout);
    return failures;
}

static void do_nothing(GpuRank *self, void *argument)
{
    (void)self;
    (void)argument;
}

bool gpu_ranks_have_nccl(int gpus, int *ret_code)
{
    Error err;
    if (comm_check_nccl(NULL, &err) == OK) return true;
    printf("skipped: %s\n", err.message);
    *ret_code = gpu_ranks_run("the device by itself", gpus, 1, do_nothing, NULL, -1) == 0 ? 77 : 1;
    return false;
}

void *gpu_ranks_share(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory != MAP_FAILED) return memory;
    fprintf(stderr, "no %zu bytes of shared memory\n", bytes);
    exit(1);
}
