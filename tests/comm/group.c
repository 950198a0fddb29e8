#include "tests/comm/group.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "base/digest.h"
#include "base/memory.h"
#include "base/rng.h"

static const GroupKind *kind_used;

void group_use(const GroupKind *kind)
{
    kind_used = kind;
}

Status settled(Comm *comm, Status status, Error *err)
{
    return status == OK ? comm_settle(comm, err) : status;
}

static void run_rank(const Group *group, const CommId *id, int rank)
{
    Error err;
    Comm *comm = NULL;
    if (kind_used->create(id, rank, group->size, group->timeout_ms, &comm, &err) != OK) {
        fprintf(stderr, "rank %d: %s\n", rank, err.message);
        _exit(1);
    }
    group->body(comm, group->context);
    comm_destroy(comm);
    _exit(0);
}

/* Runs the body in `size` processes. Those in the set `killed` must end by SIGKILL, all others with
 * 0. */
void run_group_with_deaths(Group group, unsigned killed)
{
    Error err = {0};
    CommId id;
    pid_t pid[16];
    assert_ok(kind_used->id_create(group.size, group.staging_bytes, &id, &err), &err);
    for (int rank = 0; rank < group.size; rank++) {
        pid[rank] = fork();
        assert_true(pid[rank] >= 0);
        if (pid[rank] == 0) run_rank(&group, &id, rank);
    }
    int bad = 0;
    for (int rank = 0; rank < group.size; rank++) {
        int status = 0;
        assert_int_equal(waitpid(pid[rank], &status, 0), pid[rank]);
        if (killed >> rank & 1)
            bad += !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        else
            bad += status != 0;
    }
    comm_id_discard(&id);
    assert_int_equal(bad, 0);
}

void run_group(int size, size_t staging_bytes, RankBody body, void *context)
{
    run_group_with_deaths((Group){size, staging_bytes, TIMEOUT_MS, body, context}, 0);
}

/* ---- values ---- */

/* What a rank brings: numbers of very different size, so that another order of summing shows. */
float input_value(int rank, int64_t i)
{
    RngBlock block = rng_block(7, (uint64_t)rank, (uint64_t)i);
    return ldexpf(rng_uniform(block.word[0]) - 0.5f, (int)(block.word[1] % 24));
}

void fill_input(void *data, DType dtype, int64_t count, int rank)
{
    for (int64_t i = 0; i < count; i++) {
        if (dtype == DTYPE_F32)
            ((float *)data)[i] = input_value(rank, i);
        else
            ((uint16_t *)data)[i] = bf16_from_f32(input_value(rank, i));
    }
}

static float as_input(DType dtype, float value)
{
    return dtype == DTYPE_F32 ? value : bf16_to_f32(bf16_from_f32(value));
}

/* The result by definition: in rank order, in float, rounded once. */
float expected_value(DType dtype, CommOp op, int size, int64_t i)
{
    float acc = as_input(dtype, input_value(0, i));
    for (int r = 1; r < size; r++) {
        float x = as_input(dtype, input_value(r, i));
        acc = op == COMM_SUM ? acc + x : x > acc ? x : acc;
    }
    return as_input(dtype, acc);
}

bool holds(const void *data, DType dtype, int64_t i, float expected)
{
    if (dtype == DTYPE_BF16) return ((const uint16_t *)data)[i] == bf16_from_f32(expected);
    return memcmp((const float *)data + i, &expected, 4) == 0;
}

/* Ranks come to a call at different times. */
void loiter(const Comm *comm, uint64_t salt, int64_t round)
{
    RngBlock block = rng_block(salt, (uint64_t)comm_rank(comm), (uint64_t)round);
    if (block.word[0] % 4 == 0) usleep(block.word[1] % 300);
}

/* ---- results ---- */

static const int64_t counts[] = {0, 1, 3, 511, 1024, 4097, 20000, 70001};
#define COUNTS ((int)(sizeof counts / sizeof counts[0]))

void reduce_everything(Comm *comm, void *context)
{
    Error err;
    uint64_t salt = *(const uint64_t *)context;
    int size = comm_size(comm), rank = comm_rank(comm);
    for (int round = 0; round < COUNTS * 4; round++) {
        int64_t count = counts[round / 4];
        DType dtype = round % 2 == 0 ? DTYPE_F32 : DTYPE_BF16;
        CommOp op = round / 2 % 2 == 0 ? COMM_SUM : COMM_MAX;
        char *data = mem_calloc((size_t)count + 1, dtype_size(dtype));
        fill_input(data, dtype, count, rank);
        memset(data + (size_t)count * dtype_size(dtype), 0x5A, dtype_size(dtype));
        loiter(comm, salt, round);
        EXPECT_OK(
            settled(comm, comm_all_reduce(comm, tensor_1d(data, dtype, count), op, &err), &err));
        for (int64_t i = 0; i < count; i++)
            EXPECT(holds(data, dtype, i, expected_value(dtype, op, size, i)));
        EXPECT(data[(size_t)count * dtype_size(dtype)] == 0x5A);
        free(data);
    }
}

void test_comm_all_reduce_sums_in_rank_order(void **state)
{
    (void)state;
    const size_t staging[] = {4096, 16384, 65536};
    for (int size = 2; size <= 5; size++) {
        uint64_t salt = (uint64_t)size;
        run_group(size, staging[size % 3], reduce_everything, &salt);
    }
}

static void move_everything(Comm *comm, void *context)
{
    Error err;
    int size = comm_size(comm), rank = comm_rank(comm);
    (void)context;
    for (int round = 0; round < COUNTS; round++) {
        int64_t n = counts[round];
        float *all = mem_calloc((size_t)(n * size) + 1, 4), *own = mem_calloc((size_t)n + 1, 4);
        fill_input(own, DTYPE_F32, n, rank);
        loiter(comm, 99, round);
        EXPECT_OK(settled(comm,
                          comm_all_gather(comm, tensor_1d(all, DTYPE_F32, n * size),
                                          tensor_1d(own, DTYPE_F32, n), &err),
                          &err));
        for (int r = 0; r < size; r++)
            for (int64_t i = 0; i < n; i++)
                EXPECT(all[r * n + i] == input_value(r, i));
        /* Again from this rank's own place in the result. */
        for (int64_t i = 0; i < n * size; i++)
            if (i / (n > 0 ? n : 1) != rank) all[i] = -1;
        EXPECT_OK(settled(comm,
                          comm_all_gather(comm, tensor_1d(all, DTYPE_F32, n * size),
                                          tensor_1d(all + rank * n, DTYPE_F32, n), &err),
                          &err));
        EXPECT(n == 0 || all[n * size - 1] == input_value(size - 1, n - 1));

        for (int root = 0; root < size; root++) {
            fill_input(own, DTYPE_F32, n, rank);
            EXPECT_OK(settled(comm, comm_broadcast(comm, tensor_1d(own, DTYPE_F32, n), root, &err),
                              &err));
            for (int64_t i = 0; i < n; i++)
                EXPECT(own[i] == input_value(root, i));
        }
        free(own);
        free(all);
    }
}

void test_comm_gathers_and_broadcasts(void **state)
{
    (void)state;
    run_group(2, 4096, move_everything, NULL);
    run_group(4, 16384, move_everything, NULL);
}

static void scatter_everything(Comm *comm, void *context)
{
    Error err;
    int size = comm_size(comm), rank = comm_rank(comm);
    (void)context;
    for (int round = 0; round < COUNTS * 2; round++) {
        int64_t n = counts[round / 2];
        DType dtype = round % 2 == 0 ? DTYPE_F32 : DTYPE_BF16;
        size_t bytes = dtype_size(dtype);
        char *all = mem_calloc((size_t)(n * size) + 1, bytes);
        char *out = mem_calloc((size_t)n + 1, bytes);
        fill_input(all, dtype, n * size, rank);
        EXPECT_OK(settled(comm,
                          comm_reduce_scatter(comm, tensor_1d(out, dtype, n),
                                              tensor_1d(all, dtype, n * size), &err),
                          &err));
        for (int64_t i = 0; i < n; i++)
            EXPECT(holds(out, dtype, i, expected_value(dtype, COMM_SUM, size, rank * n + i)));
        /* In place, and together with an all-gather it is an all-reduce. */
        Tensor mine = tensor_1d(all + (size_t)(rank * n) * bytes, dtype, n);
        EXPECT_OK(settled(
            comm, comm_reduce_scatter(comm, mine, tensor_1d(all, dtype, n * size), &err), &err));
        EXPECT_OK(settled(comm, comm_all_gather(comm, tensor_1d(all, dtype, n * size), mine, &err),
                          &err));
        for (int64_t i = 0; i < n * size; i++)
            EXPECT(holds(all, dtype, i, expected_value(dtype, COMM_SUM, size, i)));
        free(out);
        free(all);
    }
}

void test_comm_reduce_scatter_gives_each_rank_its_piece(void **state)
{
    (void)state;
    run_group(2, 4096, scatter_everything, NULL);
    run_group(3, 16384, scatter_everything, NULL);
}

static void reduce_doubles_and_nan(Comm *comm, void *context)
{
    Error err;
    int rank = comm_rank(comm);
    double values[2] = {rank == 0 ? 1e300 : 1, (double)rank};
    float with_nan[4] = {(float)rank, rank == 1 ? NAN : 0, -1, rank == 2 ? NAN : 5};
    (void)context;
    EXPECT_OK(settled(comm, comm_all_reduce_f64(comm, values, 2, COMM_SUM, &err), &err));
    EXPECT(values[0] == 1e300 + 1 + 1 && values[1] == 3);
    values[1] = -rank;
    EXPECT_OK(settled(comm, comm_all_reduce_f64(comm, values, 2, COMM_MAX, &err), &err));
    EXPECT(values[1] == 0);
    EXPECT_OK(settled(
        comm, comm_all_reduce(comm, tensor_1d(with_nan, DTYPE_F32, 4), COMM_MAX, &err), &err));
    EXPECT(with_nan[0] == 2 && isnan(with_nan[1]) && with_nan[2] == -1 && isnan(with_nan[3]));
}

void test_comm_reduces_doubles_and_keeps_nan(void **state)
{
    (void)state;
    run_group(3, 4096, reduce_doubles_and_nan, NULL);
}

/* Every rank sends to the next one, rank 0 first. */
static void pass_around(Comm *comm, int salt, float *room, int64_t n)
{
    Error err;
    int size = comm_size(comm), rank = comm_rank(comm), before = (rank + size - 1) % size;
    Tensor own = tensor_1d(room, DTYPE_F32, n), got = tensor_1d(room + n, DTYPE_F32, n);
    fill_input(room, DTYPE_F32, n, rank + salt);
    if (rank == 0) EXPECT_OK(comm_send(comm, own, 1, &err));
    EXPECT_OK(comm_recv(comm, got, before, &err));
    if (rank != 0) EXPECT_OK(comm_send(comm, own, (rank + 1) % size, &err));
    EXPECT_OK(comm_settle(comm, &err));
    for (int64_t i = 0; i < n; i++)
        EXPECT(room[n + i] == input_value(before + salt, i));
}

/* Many calls of all kinds and sizes in a row, ranks coming late at random; every rank must end with
 * the same bits, and with the bits of the first run. */
void mixed_calls(Comm *comm, void *context)
{
    Error err;
    uint64_t salt = *(const uint64_t *)context;
    int size = comm_size(comm), rank = comm_rank(comm);
    enum { ROUNDS = TEST_RUNS(400), LONGEST = 6000 };
    float *data = mem_calloc(LONGEST * 4, 4), *more = mem_calloc(LONGEST * 4, 4);
    Digest *digest = digest_create();
    for (int round = 0; round < ROUNDS; round++) {
        int64_t n = (int64_t)rng_below(5, (uint64_t)round, LONGEST);
        fill_input(data, DTYPE_F32, n, rank + round);
        loiter(comm, salt, round);
        if (round % 5 == 0)
            EXPECT_OK(settled(
                comm, comm_broadcast(comm, tensor_1d(data, DTYPE_F32, n), round % size, &err),
                &err));
        if (round % 7 == 0) {
            EXPECT_OK(settled(comm,
                              comm_all_gather(comm, tensor_1d(more, DTYPE_F32, n * size),
                                              tensor_1d(data, DTYPE_F32, n), &err),
                              &err));
            EXPECT_OK(settled(comm,
                              comm_reduce_scatter(comm, tensor_1d(data, DTYPE_F32, n),
                                                  tensor_1d(more, DTYPE_F32, n * size), &err),
                              &err));
        }
        if (round % 3 == 0) pass_around(comm, round, more, n);
        EXPECT_OK(settled(
            comm, comm_all_reduce(comm, tensor_1d(data, DTYPE_F32, n), COMM_SUM, &err), &err));
        digest_update(digest, data, (size_t)n * 4);
    }
    char hex[DIGEST_HEX_BYTES], all[4 * DIGEST_HEX_BYTES];
    digest_finish(digest, hex);
    EXPECT_OK(settled(comm,
                      comm_all_gather(comm, tensor_1d(all, DTYPE_U8, size * DIGEST_HEX_BYTES),
                                      tensor_1d(hex, DTYPE_U8, DIGEST_HEX_BYTES), &err),
                      &err));
    for (int r = 0; r < size; r++)
        EXPECT(strcmp(all + r * DIGEST_HEX_BYTES, hex) == 0);
    int fd = *((const int *)((const uint64_t *)context + 1));
    if (rank == 0 && fd >= 0) EXPECT(write(fd, hex, sizeof hex) == (ssize_t)sizeof hex);
    digest_destroy(digest);
    free(data);
    free(more);
}

void test_comm_results_do_not_depend_on_timing(void **state)
{
    (void)state;
    char first[DIGEST_HEX_BYTES] = "", again[DIGEST_HEX_BYTES];
    for (uint64_t run = 0; run < 3; run++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        uint64_t context[2] = {run, (uint64_t)ends[1]};
        run_group(4, 4096, mixed_calls, context);
        char *into = run == 0 ? first : again;
        assert_int_equal(read(ends[0], into, sizeof first), sizeof first);
        if (run > 0) assert_string_equal(first, again);
        close(ends[0]);
        close(ends[1]);
    }
}

/* ---- what goes wrong ---- */

void meet(Meeting *meeting, const Comm *comm)
{
    int size = comm_size(comm), all = (atomic_fetch_add(&meeting->through, 1) / size + 1) * size;
    for (int naps = 0; atomic_load(&meeting->through) < all; naps++) {
        EXPECT(naps < 1000000); /* one that has ended does not come */
        usleep(100);
    }
}

void run_ways(int ways, Group group, unsigned deaths)
{
    Meeting *meeting =
        mmap(NULL, sizeof *meeting, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(meeting, MAP_FAILED);
    group.context = meeting;
    for (int how = 0; how < ways; how++) {
        meeting->how = how;
        atomic_store(&meeting->through, 0);
        run_group_with_deaths(group, deaths);
    }
    munmap(meeting, sizeof *meeting);
}

static void differ(Comm *comm, void *context)
{
    Error err;
    Meeting *meeting = context;
    int how = meeting->how, rank = comm_rank(comm);
    static float data[64]; /* the device may write it until comm_destroy */
    Tensor whole = tensor_1d(data, DTYPE_F32, 64), half = tensor_1d(data, DTYPE_F32, 32);
    EXPECT_OK(comm_barrier(comm, &err));
    meet(meeting, comm);
    Status status;
    if (rank != 2)
        status = comm_all_reduce(comm, whole, COMM_SUM, &err);
    else if (how == 0)
        status = comm_all_reduce(comm, half, COMM_SUM, &err);
    else if (how == 1)
        status = comm_all_reduce(comm, whole, COMM_MAX, &err);
    else if (how == 2)
        status = comm_broadcast(comm, whole, 2, &err);
    else
        status = comm_barrier(comm, &err);
    status = settled(comm, status, &err);
    /* Where calls are queued, the root of a broadcast may be through before the others come. */
    if (status == OK && rank == 2 && how == 2) status = comm_barrier(comm, &err);
    static const char *const theirs[] = {"(sum of 32 f32)", "(max of 64 f32)",
                                         "(of 256 bytes from rank 2)", "barrier"};
    EXPECT(status == ERR_INTERNAL);
    EXPECT(strstr(err.message, "went apart") != NULL);
    EXPECT(strstr(err.message, "(sum of 64 f32)") != NULL);
    EXPECT(strstr(err.message, theirs[how]) != NULL);
    EXPECT(strstr(err.message, "rank 2 in") != NULL || strstr(err.message, "rank 2 is in") != NULL);
    EXPECT_FAILS(comm_barrier(comm, &err), ERR_INTERNAL, "went apart");
}

void test_comm_names_different_calls_instead_of_hanging(void **state)
{
    (void)state;
    run_ways(4, (Group){3, 4096, ENDLESS_MS, differ, NULL}, 0);
}

static void die_on_the_way(Comm *comm, void *context)
{
    Error err;
    Meeting *meeting = context;
    static float data[100000];
    Tensor tensor = tensor_1d(data, DTYPE_F32, 100000);
    EXPECT_OK(settled(comm, comm_all_reduce(comm, tensor, COMM_SUM, &err), &err));
    meet(meeting, comm);
    if (comm_rank(comm) == 1) {
        if (meeting->how == 1) usleep(50000); /* the others are asleep by then */
        kill(getpid(), SIGKILL);
    }
    EXPECT_FAILS(settled(comm, comm_all_reduce(comm, tensor, COMM_SUM, &err), &err),
                 ERR_UNAVAILABLE, "rank 1 (pid ");
    EXPECT(strstr(err.message, "died") != NULL);
    EXPECT(strstr(err.message, "all_reduce #3 (sum of 100000 f32)") != NULL);
    EXPECT_FAILS(comm_barrier(comm, &err), ERR_UNAVAILABLE, "rank 1 (pid ");
}

void test_comm_death_of_a_rank_is_seen_before_the_deadline(void **state)
{
    (void)state;
    run_ways(2, (Group){4, 4096, ENDLESS_MS, die_on_the_way, NULL}, 1u << 1);
}

/* Calls until one fails. */
static void call_until_death(Comm *comm, void *context)
{
    Error err;
    const int *kill_context = context; /* the victim; where to say that this rank has joined */
    int victim = kill_context[0];
    char expected[32];
    static float data[30000], all[4 * 3000];
    EXPECT(write(kill_context[1], "j", 1) == 1);
    snprintf(expected, sizeof expected, "rank %d (pid ", victim);
    for (int round = 0;; round++) {
        int64_t n = (int64_t)rng_below(11, (uint64_t)round, 30000);
        Status status = comm_all_reduce(comm, tensor_1d(data, DTYPE_F32, n), COMM_MAX, &err);
        if (status == OK)
            status = comm_all_gather(comm, tensor_1d(all, DTYPE_F32, 4 * 3000),
                                     tensor_1d(data, DTYPE_F32, 3000), &err);
        if (status == OK && round % 3 == 0) status = comm_settle(comm, &err);
        if (status == OK) continue;
        EXPECT_FAILS(status, ERR_UNAVAILABLE, expected);
        EXPECT_FAILS(comm_barrier(comm, &err), ERR_UNAVAILABLE, expected);
        return;
    }
}

void test_comm_kill_at_a_random_moment_ends_the_others(void **state)
{
    (void)state;
    for (int round = 0; round < 12; round++) {
        Error err = {0};
        CommId id;
        pid_t pid[4];
        int context[2] = {round % 4, -1}, ends[2], bad = 0;
        char joined;
        Group group = {4, 8192, ENDLESS_MS, call_until_death, context};
        assert_int_equal(pipe(ends), 0);
        context[1] = ends[1];
        assert_ok(kind_used->id_create(4, group.staging_bytes, &id, &err), &err);
        for (int rank = 0; rank < 4; rank++) {
            pid[rank] = fork();
            if (pid[rank] == 0) run_rank(&group, &id, rank);
        }
        /* Not before all have joined: the others' calls would never begin. */
        for (int rank = 0; rank < 4; rank++)
            assert_int_equal(read(ends[0], &joined, 1), 1);
        usleep((useconds_t)rng_below(13, (uint64_t)round, 5000));
        assert_int_equal(kill(pid[context[0]], SIGKILL), 0);
        for (int rank = 0; rank < 4; rank++) {
            int status = 0;
            assert_int_equal(waitpid(pid[rank], &status, 0), pid[rank]);
            bad += rank == context[0] ? !WIFSIGNALED(status) : status != 0;
        }
        assert_int_equal(bad, 0);
        close(ends[0]);
        close(ends[1]);
        comm_id_discard(&id);
    }
}

static void leave_early(Comm *comm, void *context)
{
    Error err;
    EXPECT_OK(comm_barrier(comm, &err));
    meet(context, comm);
    if (comm_rank(comm) == 1) return;
    EXPECT_FAILS(comm_barrier(comm, &err), ERR_UNAVAILABLE, "rank 1 (pid ");
    EXPECT(strstr(err.message, "left the group") != NULL || strstr(err.message, "died") != NULL);
}

void test_comm_rank_that_left_is_named(void **state)
{
    (void)state;
    run_ways(1, (Group){3, 4096, ENDLESS_MS, leave_early, NULL}, 0);
}

void wait_for_byte(Comm *comm, int fd)
{
    char byte;
    EXPECT(read(fd, &byte, 1) == 1);
}

static void come_late(Comm *comm, void *context)
{
    Error err;
    const int *ends = context;
    EXPECT_OK(settled(comm, comm_broadcast(comm, tensor_1d(&err, DTYPE_U8, 0), 1, &err), &err));
    if (comm_rank(comm) == 1) {
        wait_for_byte(comm, ends[0]);
        EXPECT_FAILS(comm_barrier(comm, &err), ERR_TIMEOUT, "rank 0 reported: barrier #3");
        return;
    }
    comm_set_timeout(comm, 100);
    EXPECT_FAILS(comm_barrier(comm, &err), ERR_TIMEOUT,
                 "barrier #3: rank 0 waited 100 ms for rank 1; rank 1 (pid ");
    EXPECT(strstr(err.message, "is alive, its last call was broadcast #2") != NULL);
    EXPECT_FAILS(comm_barrier(comm, &err), ERR_TIMEOUT, "barrier #3");
    EXPECT(write(ends[1], "x", 1) == 1);
}

void test_comm_timeout_names_call_and_missing_rank(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    run_group(2, 4096, come_late, ends);
    close(ends[0]);
    close(ends[1]);
}

static void *abort_when_waiting(void *argument)
{
    Comm *comm = argument;
    char text[128] = "";
    while (strcmp(text, "all_reduce #2, waiting for ranks 1 and 2") != 0) {
        comm_describe_wait(comm, text, sizeof text);
        usleep(100);
    }
    comm_abort(comm);
    return NULL;
}

static void be_aborted(Comm *comm, void *context)
{
    Error err;
    static float value = 1;
    char text[128];
    meet(context, comm);
    comm_describe_wait(comm, text, sizeof text);
    EXPECT(strcmp(text, "") == 0);
    if (comm_rank(comm) == 0) {
        pthread_t thread;
        EXPECT(pthread_create(&thread, NULL, abort_when_waiting, comm) == 0);
        EXPECT_FAILS(settled(comm,
                             comm_all_reduce(comm, tensor_1d(&value, DTYPE_F32, 1), COMM_SUM, &err),
                             &err),
                     ERR_CANCELLED, "rank 0 aborted the group");
        pthread_join(thread, NULL);
    }
    meet(context, comm);
    EXPECT_FAILS(comm_barrier(comm, &err), ERR_CANCELLED, "rank 0 aborted the group");
}

void test_comm_abort_ends_waiting_and_describe_says_for_whom(void **state)
{
    (void)state;
    run_ways(1, (Group){3, 4096, ENDLESS_MS, be_aborted, NULL}, 0);
}

int count_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}
