/* Tests of the kinds self and shm, and of what is peculiar to shm. Ranks are processes (group.h),
 * or threads over one mapping, so that the thread sanitizer can see all of them. */
#include "tests/comm/group.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "comm/comm_shm.h"

static Status shm_id(int size, size_t staging_bytes, CommId *ret, Error *err)
{
    return comm_id_create(COMM_SHM, size, staging_bytes, ret, err);
}

static Status shm_create(const CommId *id, int rank, int size, int timeout_ms, Comm **ret,
                         Error *err)
{
    return comm_create(COMM_SHM, id, rank, size, timeout_ms, ret, err);
}

static const GroupKind shm_kind = {shm_id, shm_create};

static void test_comm_self_leaves_everything_as_it_is(void **state)
{
    (void)state;
    Error err = {0};
    CommId id;
    Comm *comm = NULL;
    float data[3] = {1, -2, 3}, out[3] = {0};
    double wide = 5;
    char text[64] = "x";
    assert_ok(comm_id_create(COMM_SELF, 1, 0, &id, &err), &err);
    assert_ok(comm_create(COMM_SELF, &id, 0, 1, TIMEOUT_MS, &comm, &err), &err);
    assert_int_equal(comm_size(comm), 1);
    Tensor in = tensor_1d(data, DTYPE_F32, 3);
    assert_ok(comm_all_reduce(comm, in, COMM_SUM, &err), &err);
    assert_ok(comm_all_reduce_f64(comm, &wide, 1, COMM_MAX, &err), &err);
    assert_ok(comm_all_gather(comm, tensor_1d(out, DTYPE_F32, 3), in, &err), &err);
    assert_memory_equal(out, data, sizeof data);
    memset(out, 0, sizeof out);
    assert_ok(comm_reduce_scatter(comm, tensor_1d(out, DTYPE_F32, 3), in, &err), &err);
    assert_memory_equal(out, data, sizeof data);
    assert_ok(comm_broadcast(comm, in, 0, &err), &err);
    assert_true(data[1] == -2 && wide == 5);
    assert_fails(comm_send(comm, in, 0, &err), ERR_INVALID, &err, "rank 0 is this rank itself");
    assert_fails(comm_recv(comm, in, 0, &err), ERR_INVALID, &err, "rank 0 is this rank itself");
    comm_describe_wait(comm, text, sizeof text);
    assert_string_equal(text, "");
    comm_abort(comm);
    assert_fails(comm_barrier(comm, &err), ERR_CANCELLED, &err, "aborted");
    comm_destroy(comm);
    assert_fails(comm_id_create(COMM_SELF, 2, 0, &id, &err), ERR_INVALID, &err, "1 rank, not 2");
}

/* ---- ranks as threads over one mapping ---- */

typedef struct ThreadRank {
    ShmHeader *header;
    int rank;
    void *context;
} ThreadRank;

static void *run_thread_rank(void *argument)
{
    ThreadRank *self = argument;
    Error err;
    Comm *comm = NULL;
    if (shm_join(self->header, false, self->rank, TIMEOUT_MS, &comm, &err) != OK) {
        fprintf(stderr, "thread rank %d: %s\n", self->rank, err.message);
        _exit(1);
    }
    mixed_calls(comm, self->context);
    uint64_t salt = 3;
    reduce_everything(comm, &salt);
    comm_destroy(comm);
    return NULL;
}

static void test_comm_ranks_as_threads_race_for_nothing(void **state)
{
    (void)state;
    enum { SIZE = 3 };
    Error err = {0};
    ShmId id = {0};
    ShmHeader *header = NULL;
    pthread_t threads[SIZE];
    ThreadRank ranks[SIZE];
    uint64_t context[2] = {1, (uint64_t)-1};
    assert_ok(shm_memory_create(SIZE, 8192, &id, &err), &err);
    assert_ok(shm_memory_open(&id, &header, &err), &err);
    shared_memory_discard(&id.memory);
    /* The number of the meeting passes its largest value on the way. */
    for (int r = 0; r < SIZE; r++)
        atomic_store(&header->rank[r].arrived.value, UINT32_MAX - 100);
    for (int pair = 0; pair < SIZE * SIZE; pair++) { /* and that of the piece */
        atomic_store(&shm_pair(header, pair / SIZE, pair % SIZE)->put.value, UINT32_MAX - 10);
        atomic_store(&shm_pair(header, pair / SIZE, pair % SIZE)->taken.value, UINT32_MAX - 10);
    }
    for (int r = 0; r < SIZE; r++) {
        ranks[r] = (ThreadRank){header, r, context};
        assert_int_equal(pthread_create(&threads[r], NULL, run_thread_rank, &ranks[r]), 0);
    }
    for (int r = 0; r < SIZE; r++)
        pthread_join(threads[r], NULL);
    assert_true(atomic_load(&header->rank[0].arrived.value) < 1000000);
    assert_true(atomic_load(&shm_pair(header, 0, 1)->taken.value) < 1000000);
    shm_memory_close(header);
}

/* ---- pairs that wait for each other ---- */

/* Each would wait for the other for ever. */
static void wait_crosswise(Comm *comm, void *context)
{
    /* Who reports it gives its call a number. */
    static const char *const text[][2] = {
        {"send", "send"}, {"recv", "recv"}, {"send", "all_reduce"}, {"recv", "barrier"}};
    char mine[64], told[64];
    Error err;
    float data[4] = {0};
    Tensor tensor = tensor_1d(data, DTYPE_F32, 4);
    int how = ((const Meeting *)context)->how, rank = comm_rank(comm);
    /* They have sent to each other before, and nothing of that is left to be mistaken. */
    EXPECT_OK(rank == 0 ? comm_send(comm, tensor, 1, &err) : comm_recv(comm, tensor, 0, &err));
    EXPECT_OK(rank == 1 ? comm_send(comm, tensor, 0, &err) : comm_recv(comm, tensor, 1, &err));
    EXPECT_OK(comm_barrier(comm, &err));
    Status status;
    if (how == 0 || (how == 2 && rank == 0))
        status = comm_send(comm, tensor, 1 - rank, &err);
    else if (how == 1 || rank == 0)
        status = comm_recv(comm, tensor, 1 - rank, &err);
    else
        status =
            how == 2 ? comm_all_reduce(comm, tensor, COMM_SUM, &err) : comm_barrier(comm, &err);
    EXPECT_FAILS(status, ERR_INTERNAL, "the ranks went apart: rank ");
    snprintf(mine, sizeof mine, "rank 0 is in %s #2 (of 4 f32", text[how][0]);
    snprintf(told, sizeof told, ", rank 1 in %s", text[how][1]);
    bool by_0 = strstr(err.message, mine) != NULL && strstr(err.message, told) != NULL;
    snprintf(mine, sizeof mine, "rank 1 is in %s #2 (of 4 f32", text[how][1]);
    snprintf(told, sizeof told, ", rank 0 in %s (of 4 f32", text[how][0]);
    EXPECT(by_0 || (strstr(err.message, mine) != NULL && strstr(err.message, told) != NULL));
}

static void test_comm_pair_that_waits_crosswise_is_told(void **state)
{
    (void)state;
    run_ways(4, (Group){2, 4096, ENDLESS_MS, wait_crosswise, NULL}, 0);
}

/* ---- joining ---- */

static void test_comm_create_refuses_what_is_not_its_group(void **state)
{
    (void)state;
    Error err = {0};
    CommId id, other;
    Comm *comm = NULL;
    int before = count_descriptors();
    assert_ok(comm_id_create(COMM_SHM, 2, 100, &id, &err), &err);
    assert_fails(comm_create(COMM_SHM, &id, 1, 3, 100, &comm, &err), ERR_INVALID, &err,
                 "made for 2 ranks, not for 3");
    assert_fails(comm_create(COMM_SELF, &id, 0, 1, 100, &comm, &err), ERR_INVALID, &err,
                 "kind \"self\"");
    other = id;
    memset(other.bytes + 1, 0, COMM_ID_BYTES - 1);
    ((ShmId *)(void *)&other)->size = 2;
    assert_fails(comm_create(COMM_SHM, &other, 1, 2, 100, &comm, &err), ERR_INVALID, &err,
                 "not the id of a shared memory");
    other = id;
    ((ShmId *)(void *)&other)->memory.nonce[3] ^= 1;
    assert_fails(comm_create(COMM_SHM, &other, 1, 2, 100, &comm, &err), ERR_UNAVAILABLE, &err,
                 "no longer this shared memory");
    other = id;
    ((ShmId *)(void *)&other)->memory.start_ticks++;
    assert_fails(comm_create(COMM_SHM, &other, 1, 2, 100, &comm, &err), ERR_UNAVAILABLE, &err,
                 "is gone");
    comm_id_discard(&id);
    assert_fails(comm_create(COMM_SHM, &id, 1, 2, 100, &comm, &err), ERR_UNAVAILABLE, &err,
                 "no longer");
    assert_int_equal(count_descriptors(), before);
    assert_fails(comm_id_create(COMM_SHM, 257, 100, &id, &err), ERR_INVALID, &err, "at most 256");
}

static void test_comm_create_names_ranks_that_never_joined(void **state)
{
    (void)state;
    Error err = {0};
    CommId id;
    Comm *comm = NULL;
    int before = count_descriptors();
    assert_ok(comm_id_create(COMM_SHM, 3, 4096, &id, &err), &err);
    assert_fails(comm_create(COMM_SHM, &id, 0, 3, 50, &comm, &err), ERR_TIMEOUT, &err,
                 "comm_create #1: rank 0 waited 50 ms for ranks 1 and 2; rank 1 never joined");
    assert_int_equal(count_descriptors(), before);
    assert_null(comm);
}

static void test_comm_create_refuses_a_rank_that_is_taken(void **state)
{
    (void)state;
    Error err = {0};
    CommId id;
    Comm *comm = NULL;
    assert_ok(comm_id_create(COMM_SHM, 2, 4096, &id, &err), &err);
    assert_fails(comm_create(COMM_SHM, &id, 1, 2, 50, &comm, &err), ERR_TIMEOUT, &err, "rank 0");
    assert_fails(comm_create(COMM_SHM, &id, 1, 2, 50, &comm, &err), ERR_EXISTS, &err,
                 "rank 1 has already joined");
    /* Who comes after a failure is told of it at once. */
    assert_fails(comm_create(COMM_SHM, &id, 0, 2, ENDLESS_MS, &comm, &err), ERR_TIMEOUT, &err,
                 "rank 1 reported: comm_create");
}

/* Rank 0's process dies when it has made the id but has not joined: who waits for it learns it. */
static void test_comm_create_sees_the_death_of_the_maker(void **state)
{
    (void)state;
    Error err = {0};
    CommId id;
    ShmHeader *header = NULL;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t maker = fork();
    if (maker == 0) {
        if (comm_id_create(COMM_SHM, 2, 4096, &id, NULL) != OK) _exit(1);
        if (write(ends[1], &id, sizeof id) != (ssize_t)sizeof id) _exit(1);
        for (;;)
            pause();
    }
    assert_int_equal(read(ends[0], &id, sizeof id), sizeof id);
    assert_ok(shm_memory_open((const ShmId *)(const void *)&id, &header, &err), &err);
    pid_t joiner = fork();
    if (joiner == 0) {
        Comm *comm = NULL;
        Status status = comm_create(COMM_SHM, &id, 1, 2, ENDLESS_MS, &comm, &err);
        _exit(status == ERR_UNAVAILABLE && strstr(err.message, "rank 0 (pid ") != NULL &&
                      strstr(err.message, "died while rank 1 waited for it in comm_create") != NULL
                  ? 0
                  : 1);
    }
    while (atomic_load(&header->rank[1].arrived.value) == 0)
        usleep(100);
    assert_int_equal(kill(maker, SIGKILL), 0);
    int status = 0;
    assert_int_equal(waitpid(joiner, &status, 0), joiner);
    assert_int_equal(status, 0);
    assert_int_equal(waitpid(maker, &status, 0), maker);
    shm_memory_close(header);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        GROUP_TESTS,
        cmocka_unit_test(test_comm_self_leaves_everything_as_it_is),
        cmocka_unit_test(test_comm_pair_that_waits_crosswise_is_told),
        cmocka_unit_test(test_comm_ranks_as_threads_race_for_nothing),
        cmocka_unit_test(test_comm_create_refuses_what_is_not_its_group),
        cmocka_unit_test(test_comm_create_names_ranks_that_never_joined),
        cmocka_unit_test(test_comm_create_refuses_a_rank_that_is_taken),
        cmocka_unit_test(test_comm_create_sees_the_death_of_the_maker),
    };
    group_use(&shm_kind);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
