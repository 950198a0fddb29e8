#include "ranks.h"

#include "test.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GROUPS_MAX 16
#define TIMEOUT_MS 30000

/* Where rank 0 of each group leaves the group's id. */
typedef struct Meeting {
    CommId id[GROUPS_MAX];
    atomic_int ready[GROUPS_MAX];
} Meeting;

void *shared_alloc(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    return memory;
}

void shared_free(void *memory, size_t bytes)
{
    munmap(memory, bytes);
}

void rank_fail(const char *file, int line, const char *what, const char *message)
{
    fprintf(stderr, "rank failed at %s:%d: %s %s\n", file, line, what, message);
    fflush(stderr);
    _exit(1);
}

static Status shm_id_create(int size, size_t staging_bytes, CommId *ret, Error *err)
{
    return comm_id_create(COMM_SHM, size, staging_bytes, ret, err);
}

static Status shm_create(const CommId *id, int rank, int size, int timeout_ms, Comm **ret,
                         Error *err)
{
    return comm_create(COMM_SHM, id, rank, size, timeout_ms, ret, err);
}

static const GroupKind shm_kind = {shm_id_create, shm_create};
static const GroupKind *kind_used = &shm_kind;

void ranks_use(const GroupKind *kind)
{
    kind_used = kind != NULL ? kind : &shm_kind;
}

static Comm *join(Meeting *meeting, int group, int rank, int size)
{
    Error err = {0};
    Comm *comm = NULL;
    if (size == 1) return NULL;
    if (rank == 0) {
        rank_ok(kind_used->id_create(size, 1 << 16, &meeting->id[group], &err), &err);
        atomic_store(&meeting->ready[group], 1);
    }
    while (!atomic_load(&meeting->ready[group]))
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    rank_ok(kind_used->create(&meeting->id[group], rank, size, TIMEOUT_MS, &comm, &err), &err);
    return comm;
}

static _Noreturn void run_rank(Ranks ranks, Meeting *meeting, void (*body)(const Ranks *, void *),
                               void *argument)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* ctest ends who hangs */
    ranks.kernels = cpu_kernels(1);
    ranks.tensor_comm = join(meeting, ranks.dp_rank, ranks.tp_rank, ranks.tp_size);
    ranks.data_comm = join(meeting, GROUPS_MAX / 2 + ranks.tp_rank, ranks.dp_rank, ranks.dp_size);
    body(&ranks, argument);
    comm_destroy(ranks.tensor_comm);
    comm_destroy(ranks.data_comm);
    fflush(NULL);
    exit(0);
}

void ranks_run(int tp_size, int dp_size, void (*body)(const Ranks *, void *), void *argument)
{
    Meeting *meeting = shared_alloc(sizeof *meeting);
    int world = tp_size * dp_size, failed = 0;
    pid_t child[GROUPS_MAX];
    assert_in_range(world, 1, GROUPS_MAX);
    fflush(NULL);
    for (int r = 0; r < world; r++) {
        child[r] = fork();
        assert_true(child[r] >= 0);
        if (child[r] > 0) continue;
        Ranks ranks = {.tp_size = tp_size, .dp_size = dp_size};
        ranks.tp_rank = r % tp_size;
        ranks.dp_rank = r / tp_size;
        run_rank(ranks, meeting, body, argument);
    }
    for (int r = 0; r < world; r++) {
        int status = 0;
        assert_int_equal(waitpid(child[r], &status, 0), child[r]);
        failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    }
    shared_free(meeting, sizeof *meeting);
    assert_int_equal(failed, 0);
}
