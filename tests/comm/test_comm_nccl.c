/* Tests of the kind nccl over a double of NCCL (nccl_double.h): what it makes of what NCCL and its
 * ranks do, not NCCL itself. */
#include "tests/comm/group.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "base/memory.h"
#include "comm/comm_nccl.h"
#include "tests/comm/nccl_double.h"

#define STAGING ((size_t)64 * 1024)
#define REMOTE  6 /* ncclRemoteError */

static CommDevice device_with(const char *library)
{
    return (CommDevice){nccl_double_kernels(), nccl_double_streams(), library};
}

static Status nccl_id(int size, size_t staging_bytes, CommId *ret, Error *err)
{
    CommDevice device = device_with(NCCL_DOUBLE);
    return comm_id_create_nccl(&device, size, staging_bytes, ret, err);
}

static Status nccl_create(const CommId *id, int rank, int size, int timeout_ms, Comm **ret,
                          Error *err)
{
    CommDevice device = device_with(NCCL_DOUBLE);
    return comm_create_nccl(&device, id, rank, size, timeout_ms, ret, err);
}

static const GroupKind nccl_kind = {nccl_id, nccl_create};

/* ---- the library ---- */

static void test_nccl_that_is_missing_or_strange_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *library, *text;
    } cases[] = {
        {"/nowhere/libnccl.so.2", "/nowhere/libnccl.so.2: cannot open shared object file"},
        {"/nowhere/libnccl.so.2", "Install NVIDIA's libnccl2"},
        {NCCL_OLD, "is NCCL 2.18.5; from 2.19.1 on"},
        {NCCL_NEW, "is NCCL 3.0.0; from 2.19.1 on, and below 3"},
        {NCCL_OTHER, "is not NCCL: it has no ncclGetVersion"},
        {NCCL_HOLLOW, "(NCCL 22809) has no ncclGetUniqueId"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Error err = {0};
        CommId id, good;
        Comm *comm = NULL;
        CommDevice device = device_with(cases[i].library);
        assert_fails(comm_id_create_nccl(&device, 2, STAGING, &id, &err), ERR_UNSUPPORTED, &err,
                     cases[i].text);
        assert_ok(nccl_id(2, STAGING, &good, &err), &err);
        assert_fails(comm_create_nccl(&device, &good, 0, 2, 100, &comm, &err), ERR_UNSUPPORTED,
                     &err, cases[i].text);
        assert_null(comm);
    }
}

/* NVIDIA's own, where one is installed: it loads and makes ids without a GPU, and says that there
 * is none. */
static void test_nccl_of_this_machine_is_loaded(void **state)
{
    (void)state;
#ifdef NCCL_REAL
    Error err = {0};
    CommId id, other;
    Comm *comm = NULL;
    NcclApi api;
    CommDevice device = device_with(NCCL_REAL);
    assert_ok(nccl_api_load(NCCL_REAL, &api, &err), &err);
    assert_true(api.version >= NCCL_VERSION_MIN);
    assert_ok(comm_id_create_nccl(&device, 1, STAGING, &id, &err), &err);
    assert_ok(comm_id_create_nccl(&device, 1, STAGING, &other, &err), &err);
    assert_memory_not_equal(&((NcclId *)(void *)&id)->unique, &((NcclId *)(void *)&other)->unique,
                            sizeof(NcclUniqueId));
    if (access("/dev/nvidiactl", F_OK) != 0) {
        assert_fails(comm_create_nccl(&device, &id, 0, 1, 20000, &comm, &err), ERR_RESOURCE, &err,
                     "comm_create #1 on rank 0: NCCL says \"unhandled cuda error");
    }
    comm_id_discard(&id);
    comm_id_discard(&other);
#else
    print_message("no NCCL is installed\n");
    skip();
#endif
}

/* ---- order on the device ---- */

typedef struct Kernel {
    float *data;
    int64_t count;
    float factor;
} Kernel;

/* Slow, so that who does not wait for it sees what was there before. */
static void scale(void *argument)
{
    const Kernel *kernel = argument;
    usleep(300);
    for (int64_t i = 0; i < kernel->count; i++)
        kernel->data[i] *= kernel->factor;
}

/* The host waits for nothing between the calls: kernels and collectives order themselves. */
static void work_ahead(Comm *comm, void *context)
{
    enum { ROUNDS = 400, COUNT = 3000 }; /* more calls than may be under way */
    Error err;
    bool in_halves = *(const bool *)context;
    void *stream = nccl_double_streams()->kernel_stream();
    float *data = mem_calloc(COUNT, sizeof *data), expected = 1.0f;
    Kernel halve = {data, COUNT, 0.5f}, more = {data, COUNT, 1.25f};
    for (int i = 0; i < COUNT; i++)
        data[i] = 1.0f;
    for (int round = 0; round < ROUNDS; round++) {
        Tensor tensor = tensor_1d(data, DTYPE_F32, COUNT);
        if (round % 16 == 0) nccl_double_run(stream, scale, &halve);
        if (in_halves) {
            EXPECT_OK(comm_all_reduce_start(comm, tensor, COMM_SUM, &err));
            EXPECT_OK(comm_all_reduce_finish(comm, &err));
        } else {
            EXPECT_OK(comm_all_reduce(comm, tensor, COMM_SUM, &err));
        }
        nccl_double_run(stream, scale, &halve);
        if (round % 16 == 0) nccl_double_run(stream, scale, &more);
        expected *= round % 16 == 0 ? 0.5f * 2.0f * 0.5f * 1.25f : 1.0f;
    }
    EXPECT_OK(comm_settle(comm, &err));
    nccl_double_synchronize(stream);
    for (int i = 0; i < COUNT; i++)
        EXPECT(data[i] == expected);
    free(data);
}

static void test_nccl_calls_and_kernels_wait_for_each_other(void **state)
{
    (void)state;
    for (int in_halves = 0; in_halves < 2; in_halves++) {
        bool context = in_halves;
        run_group(2, STAGING, work_ahead, &context);
    }
}

static void tell(void *argument)
{
    if (write(*(const int *)argument, "x", 1) != 1) _exit(1);
}

/* Rank 1 comes to the all-reduce only when rank 0's device has done what rank 0 called after it. */
static void overlap(Comm *comm, void *context)
{
    Error err;
    int *ends = context;
    float value = (float)(1 + comm_rank(comm));
    Tensor tensor = tensor_1d(&value, DTYPE_F32, 1);
    if (comm_rank(comm) == 1) wait_for_byte(comm, ends[0]);
    EXPECT_OK(comm_all_reduce_start(comm, tensor, COMM_SUM, &err));
    if (comm_rank(comm) == 0)
        nccl_double_run(nccl_double_streams()->kernel_stream(), tell, &ends[1]);
    EXPECT_OK(comm_all_reduce_finish(comm, &err));
    EXPECT_OK(comm_settle(comm, &err));
    EXPECT(value == 3.0f);
}

static void test_nccl_all_reduce_in_halves_overlaps_with_kernels(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    run_group(2, STAGING, overlap, ends);
    close(ends[0]);
    close(ends[1]);
}

static void share_host_memory(Comm *comm, void *context)
{
    enum { BYTES = 200000 }; /* more than the staging memory */
    Error err;
    (void)context;
    unsigned char *data = mem_calloc(BYTES, 1);
    for (int root = 0; root < comm_size(comm); root++) {
        for (int i = 0; i < BYTES; i++)
            data[i] = comm_rank(comm) == root ? (unsigned char)(i * 7 + root) : 0xEE;
        EXPECT_OK(comm_broadcast_host(comm, data, BYTES, root, &err));
        for (int i = 0; i < BYTES; i++)
            EXPECT(data[i] == (unsigned char)(i * 7 + root));
        EXPECT_OK(comm_broadcast_host(comm, data, 0, root, &err));
    }
    free(data);
}

static void test_nccl_broadcasts_host_memory(void **state)
{
    (void)state;
    run_group(3, STAGING, share_host_memory, NULL);
}

/* ---- ranks as threads: for the thread sanitizer ---- */

typedef struct ThreadRank {
    const CommId *id;
    int rank, size;
} ThreadRank;

static void *run_thread_rank(void *argument)
{
    const ThreadRank *self = argument;
    Error err;
    Comm *comm = NULL;
    uint64_t context[2] = {1, (uint64_t)-1}, salt = 3;
    if (nccl_create(self->id, self->rank, self->size, TIMEOUT_MS, &comm, &err) != OK) {
        fprintf(stderr, "thread rank %d: %s\n", self->rank, err.message);
        _exit(1);
    }
    mixed_calls(comm, context);
    reduce_everything(comm, &salt);
    comm_destroy(comm);
    return NULL;
}

static void test_nccl_ranks_as_threads_race_for_nothing(void **state)
{
    (void)state;
    enum { SIZE = 3 };
    Error err = {0};
    CommId id;
    pthread_t threads[SIZE];
    ThreadRank ranks[SIZE];
    assert_ok(nccl_id(SIZE, STAGING, &id, &err), &err);
    for (int r = 0; r < SIZE; r++) {
        ranks[r] = (ThreadRank){&id, r, SIZE};
        assert_int_equal(pthread_create(&threads[r], NULL, run_thread_rank, &ranks[r]), 0);
    }
    for (int r = 0; r < SIZE; r++)
        pthread_join(threads[r], NULL);
}

/* ---- what goes wrong ---- */

/* What rank 1's device or NCCL does in its second call, and what both ranks say then. */
typedef struct Fault {
    int ends[2]; /* of a pipe: rank 0 has done its first call */
    DoublePlan plan;
    int timeout_ms; /* of that call */
    Status status;
    const char *text;      /* of the rank that has the fault */
    const char *told_text; /* of the other */
} Fault;

static void meet_fault(Comm *comm, void *context)
{
    Error err;
    const Fault *fault = context;
    bool faulty = comm_rank(comm) == 1;
    static float data[4] = {1, 2, 3, 4}; /* the device may write it until comm_destroy */
    char text[128];
    Tensor tensor = tensor_1d(data, DTYPE_F32, 4);
    EXPECT_OK(settled(comm, comm_all_reduce(comm, tensor, COMM_SUM, &err), &err));
    if (faulty)
        wait_for_byte(comm, fault->ends[0]);
    else
        EXPECT(write(fault->ends[1], "x", 1) == 1);
    /* The other rank never gives up first. */
    comm_set_timeout(comm, faulty ? fault->timeout_ms : ENDLESS_MS);
    DoublePlan plan = fault->plan;
    plan.call = nccl_double_calls() + 1;
    if (faulty) nccl_double_plan(&plan);
    Status status = settled(comm, comm_all_reduce(comm, tensor, COMM_SUM, &err), &err);
    EXPECT_FAILS(status, fault->status, faulty ? fault->text : fault->told_text);
    /* For good, and without a call of NCCL. */
    int calls = nccl_double_calls();
    EXPECT_FAILS(comm_barrier(comm, &err), fault->status, fault->text);
    EXPECT_FAILS(comm_all_reduce(comm, tensor, COMM_SUM, &err), fault->status, fault->text);
    EXPECT_FAILS(comm_settle(comm, &err), fault->status, fault->text);
    EXPECT(nccl_double_calls() == calls);
    comm_describe_wait(comm, text, sizeof text);
    EXPECT(strcmp(text, "") == 0);
}

static void test_nccl_faults_become_errors_on_all_ranks(void **state)
{
    (void)state;
    static const Fault faults[] = {
        {{-1, -1},
         {DOUBLE_HANGS, 0, 0},
         600,
         ERR_TIMEOUT,
         "all_reduce #3 (sum of 4 f32): rank 1 waited 600 ms for its device, though all ranks on "
         "this host have begun it",
         "rank 1 reported: all_reduce #3"},
        {{-1, -1},
         {DOUBLE_ERRS, 0, REMOTE},
         ENDLESS_MS,
         ERR_UNAVAILABLE,
         "all_reduce #3 (sum of 4 f32) on rank 1: NCCL says \"remote process exited or there was "
         "a network error\": socket closed\\n",
         "rank 1 reported: all_reduce #3"},
        {{-1, -1},
         {DOUBLE_REFUSES, 0, 1},
         ENDLESS_MS,
         ERR_RESOURCE,
         "all_reduce #3 (sum of 4 f32) on rank 1: NCCL says \"unhandled cuda error\"",
         "rank 1 reported: all_reduce #3"},
        {{-1, -1},
         {DOUBLE_IS_STUCK, 0, 0},
         600,
         ERR_TIMEOUT,
         "all_reduce #3 (sum of 4 f32): rank 1 waited 600 ms for its device",
         "rank 1 reported: all_reduce #3"},
        {{-1, -1},
         {DOUBLE_BLOCKS, 0, NCCL_INTERNAL_ERROR},
         600,
         ERR_TIMEOUT,
         "all_reduce #3 (sum of 4 f32): NCCL did not take it within 600 ms",
         "rank 1 reported: all_reduce #3"},
        {{-1, -1},
         {DOUBLE_BLOCKS, 0, NCCL_SUCCESS}, /* it was never done all the same */
         600,
         ERR_TIMEOUT,
         "all_reduce #3 (sum of 4 f32): NCCL did not take it within 600 ms",
         "rank 1 reported: all_reduce #3"},
    };
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        Fault fault = faults[i];
        assert_int_equal(pipe(fault.ends), 0);
        run_group_with_deaths((Group){2, STAGING, TIMEOUT_MS, meet_fault, &fault}, 0);
        close(fault.ends[0]);
        close(fault.ends[1]);
    }
}

/* A process that dies when its device is in a call which it has begun: its part may be done. */
static void die_on_the_device(Comm *comm, void *context)
{
    Error err;
    static float value = 1;
    DoublePlan plan = {DOUBLE_DIES, nccl_double_calls() + 2, 0};
    if (comm_rank(comm) == 1) nccl_double_plan(&plan);
    EXPECT_OK(comm_barrier(comm, &err));
    meet(context, comm);
    EXPECT_FAILS(
        settled(comm, comm_all_reduce(comm, tensor_1d(&value, DTYPE_F32, 1), COMM_SUM, &err), &err),
        ERR_UNAVAILABLE, "rank 1 (pid ");
    EXPECT(strstr(err.message, "died while rank") != NULL);
}

static void test_nccl_death_within_a_call_is_seen_before_the_deadline(void **state)
{
    (void)state;
    run_ways(1, (Group){3, STAGING, ENDLESS_MS, die_on_the_device, NULL}, 1u << 1);
}

/* Both receive first: the device sees to it that neither comes to its send. */
static void receive_crosswise(Comm *comm, void *context)
{
    Error err;
    float in = 0, out = 1;
    char own[64], other[96];
    int rank = comm_rank(comm), peer = 1 - rank;
    meet(context, comm);
    comm_set_timeout(comm, 600);
    snprintf(own, sizeof own, "recv #1 (of 1 f32 from rank %d): rank %d waited", peer, rank);
    snprintf(other, sizeof other, "rank %d reported: recv #1 (of 1 f32 from rank %d)", peer, rank);
    Status status = comm_recv(comm, tensor_1d(&in, DTYPE_F32, 1), peer, &err);
    /* One that comes when the other has given up is told at once. */
    if (status == OK) status = comm_send(comm, tensor_1d(&out, DTYPE_F32, 1), peer, &err);
    EXPECT(settled(comm, status, &err) == ERR_TIMEOUT);
    EXPECT(strstr(err.message, own) != NULL || strstr(err.message, other) != NULL);
}

static void test_nccl_pair_that_waits_crosswise_ends_at_the_deadline(void **state)
{
    (void)state;
    run_ways(1, (Group){2, STAGING, TIMEOUT_MS, receive_crosswise, NULL}, 0);
}

static void *abort_soon(void *argument)
{
    usleep(50000);
    comm_abort(argument);
    return NULL;
}

/* Rank 0 sits in a download, as compute threads do, of what the device will never have. */
static void be_aborted_while_downloading(Comm *comm, void *context)
{
    Error err;
    static float value = 1;
    float result = 0;
    meet(context, comm);
    if (comm_rank(comm) == 1) {
        meet(context, comm);
        EXPECT_FAILS(comm_barrier(comm, &err), ERR_CANCELLED, "rank 0 aborted the group");
        return;
    }
    pthread_t thread;
    EXPECT_OK(comm_all_reduce(comm, tensor_1d(&value, DTYPE_F32, 1), COMM_SUM, &err));
    EXPECT(pthread_create(&thread, NULL, abort_soon, comm) == 0);
    nccl_double_kernels()->download(&result, &value, sizeof value);
    EXPECT_FAILS(comm_settle(comm, &err), ERR_CANCELLED, "rank 0 aborted the group");
    pthread_join(thread, NULL);
    meet(context, comm);
}

static void test_nccl_abort_frees_who_waits_for_the_device(void **state)
{
    (void)state;
    run_ways(1, (Group){2, STAGING, ENDLESS_MS, be_aborted_while_downloading, NULL}, 0);
}

/* ---- ranks on other hosts ---- */

/* Rank 1 cannot open rank 0's memory: as if it ran on another host. */
static Status nccl_create_apart(const CommId *id, int rank, int size, int timeout_ms, Comm **ret,
                                Error *err)
{
    NcclId apart;
    CommId own = *id;
    memcpy(&apart, id->bytes, sizeof apart);
    apart.board.nonce[0] ^= (unsigned char)(rank == 1);
    memcpy(own.bytes, &apart, sizeof apart);
    return nccl_create(&own, rank, size, timeout_ms, ret, err);
}

static void reduce_apart(Comm *comm, void *context)
{
    Error err;
    uint64_t salt = 1;
    reduce_everything(comm, &salt);
    EXPECT_OK(comm_barrier(comm, &err));
    meet(context, comm);
    if (comm_rank(comm) == 2) kill(getpid(), SIGKILL);
    if (comm_rank(comm) == 1) comm_set_timeout(comm, 200);
    const char *text = comm_rank(comm) == 1 ? "none of which is seen from this host" : "rank 2";
    EXPECT_FAILS(comm_barrier(comm, &err), comm_rank(comm) == 1 ? ERR_TIMEOUT : ERR_UNAVAILABLE,
                 text);
}

static void test_nccl_rank_of_another_host_works_and_gives_up_at_the_deadline(void **state)
{
    (void)state;
    static const GroupKind apart = {nccl_id, nccl_create_apart};
    group_use(&apart);
    run_ways(1, (Group){3, STAGING, TIMEOUT_MS, reduce_apart, NULL}, 1u << 2);
    group_use(&nccl_kind);
}

/* ---- joining ---- */

static void test_nccl_create_refuses_what_is_not_its_group(void **state)
{
    (void)state;
    Error err = {0};
    CommId id, shm_id;
    Comm *comm = NULL;
    assert_ok(nccl_id(2, STAGING, &id, &err), &err);
    assert_fails(nccl_create(&id, 1, 3, 100, &comm, &err), ERR_INVALID, &err,
                 "made for 2 ranks, not for 3");
    assert_ok(comm_id_create(COMM_SHM, 2, STAGING, &shm_id, &err), &err);
    assert_fails(nccl_create(&shm_id, 1, 2, 100, &comm, &err), ERR_INVALID, &err, "kind \"nccl\"");
    assert_fails(comm_create(COMM_SHM, &id, 1, 2, 100, &comm, &err), ERR_INVALID, &err,
                 "kind \"shm\"");
    comm_id_discard(&shm_id);
    comm_id_discard(&id);
    assert_fails(nccl_id(257, STAGING, &id, &err), ERR_INVALID, &err, "at most 256");
}

static void test_nccl_create_names_ranks_that_never_joined(void **state)
{
    (void)state;
    Error err = {0};
    CommId id;
    Comm *comm = NULL;
    assert_ok(nccl_id(3, STAGING, &id, &err), &err);
    assert_fails(nccl_create(&id, 1, 3, 50, &comm, &err), ERR_TIMEOUT, &err,
                 "could not join the group as rank 1 of 3: comm_create #1: rank 1 waited 50 ms for "
                 "ranks 0 and 2; rank 0 never joined on this host; rank 2 never joined");
    assert_null(comm);
    assert_fails(nccl_create(&id, 1, 3, 50, &comm, &err), ERR_EXISTS, &err,
                 "rank 1 has already joined");
    /* Who comes after a failure is told of it at once. */
    assert_fails(nccl_create(&id, 0, 3, ENDLESS_MS, &comm, &err), ERR_TIMEOUT, &err,
                 "rank 1 reported: comm_create");
}

static void test_nccl_create_says_what_nccl_says(void **state)
{
    (void)state;
    Error err = {0};
    CommId id;
    Comm *comm = NULL;
    DoublePlan refuse = {DOUBLE_REFUSES, 0, 1}, work = {0};
    assert_ok(nccl_id(1, STAGING, &id, &err), &err);
    nccl_double_plan(&refuse);
    assert_fails(nccl_create(&id, 0, 1, 1000, &comm, &err), ERR_RESOURCE, &err,
                 "comm_create #1 on rank 0: NCCL says \"unhandled cuda error\"");
    nccl_double_plan(&work);
    assert_ok(nccl_id(1, STAGING, &id, &err), &err);
    assert_ok(nccl_create(&id, 0, 1, 1000, &comm, &err), &err);
    assert_ok(comm_barrier(comm, &err), &err);
    comm_destroy(comm);
}

/* The process of rank 0 dies when it has made the id but has not joined. */
static void test_nccl_create_sees_the_death_of_the_maker(void **state)
{
    (void)state;
    Error err = {0};
    CommId id;
    Comm *comm = NULL;
    int ends[2], status = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t maker = fork();
    if (maker == 0) {
        if (nccl_id(2, STAGING, &id, NULL) != OK) _exit(1);
        if (write(ends[1], &id, sizeof id) != (ssize_t)sizeof id) _exit(1);
        usleep(1000000); /* the other has opened the board by then */
        _exit(0);
    }
    assert_int_equal(read(ends[0], &id, sizeof id), sizeof id);
    assert_fails(nccl_create(&id, 1, 2, ENDLESS_MS, &comm, &err), ERR_UNAVAILABLE, &err,
                 "rank 0 (pid ");
    assert_non_null(strstr(err.message, "died while rank 1 waited for it in comm_create #1"));
    assert_int_equal(waitpid(maker, &status, 0), maker);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nccl_that_is_missing_or_strange_is_refused),
        GROUP_TESTS,
        cmocka_unit_test(test_nccl_calls_and_kernels_wait_for_each_other),
        cmocka_unit_test(test_nccl_all_reduce_in_halves_overlaps_with_kernels),
        cmocka_unit_test(test_nccl_broadcasts_host_memory),
        cmocka_unit_test(test_nccl_faults_become_errors_on_all_ranks),
        cmocka_unit_test(test_nccl_death_within_a_call_is_seen_before_the_deadline),
        cmocka_unit_test(test_nccl_pair_that_waits_crosswise_ends_at_the_deadline),
        cmocka_unit_test(test_nccl_abort_frees_who_waits_for_the_device),
        cmocka_unit_test(test_nccl_rank_of_another_host_works_and_gives_up_at_the_deadline),
        cmocka_unit_test(test_nccl_create_sees_the_death_of_the_maker),
        /* From here on this process has threads, which the thread sanitizer wants no fork after. */
        cmocka_unit_test(test_nccl_create_refuses_what_is_not_its_group),
        cmocka_unit_test(test_nccl_create_names_ranks_that_never_joined),
        cmocka_unit_test(test_nccl_create_says_what_nccl_says),
        cmocka_unit_test(test_nccl_ranks_as_threads_race_for_nothing),
        cmocka_unit_test(test_nccl_of_this_machine_is_loaded),
    };
    group_use(&nccl_kind);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
