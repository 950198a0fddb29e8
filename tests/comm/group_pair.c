/* Tests of comm_send and comm_recv that every kind with several ranks must pass. */
#include "tests/comm/group.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "base/memory.h"

enum { COUNT = 100000, MESSAGES = 3 };

/* ---- what arrives ---- */

/* Several in a row, of other values, into memory that shows what is written beside it. */
static void exchange_messages(Comm *comm, int from, int to, DType dtype, int64_t count)
{
    Error err;
    size_t bytes = (size_t)count * dtype_size(dtype);
    char *room[MESSAGES];
    int rank = comm_rank(comm);
    if (rank != from && rank != to) return;
    for (int i = 0; i < MESSAGES; i++) {
        room[i] = mem_alloc(bytes + 1);
        memset(room[i], 0x5A, bytes + 1);
        if (rank == from) fill_input(room[i], dtype, count, 16 * i + from);
    }
    for (int i = 0; i < MESSAGES; i++) {
        Tensor tensor = tensor_1d(room[i], dtype, count);
        loiter(comm, (uint64_t)(from + 8 * to), count + i);
        EXPECT_OK(rank == from ? comm_send(comm, tensor, to, &err)
                               : comm_recv(comm, tensor, from, &err));
    }
    EXPECT_OK(comm_settle(comm, &err));
    for (int i = 0; i < MESSAGES; i++) {
        for (int64_t k = 0; k < count; k++)
            EXPECT(holds(room[i], dtype, k, input_value(16 * i + from, k)));
        EXPECT(room[i][bytes] == 0x5A);
        free(room[i]);
    }
}

/* Whoever is not in a pair goes ahead, up to the next sum. */
static void exchange_all(Comm *comm, void *context)
{
    static const int64_t counts[] = {0, 1, 1023, 1024, 1025, 70001};
    Error err;
    int size = comm_size(comm);
    (void)context;
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        for (int pair = 0; pair < size * size; pair++)
            if (pair / size != pair % size)
                exchange_messages(comm, pair / size, pair % size,
                                  pair % 2 == 0 ? DTYPE_F32 : DTYPE_BF16, counts[c]);
        float sum = 1;
        EXPECT_OK(settled(
            comm, comm_all_reduce(comm, tensor_1d(&sum, DTYPE_F32, 1), COMM_SUM, &err), &err));
        EXPECT(sum == (float)size);
    }
}

void test_comm_messages_arrive_in_order(void **state)
{
    (void)state;
    run_group(2, 4096, exchange_all, NULL);
    run_group(4, 262144, exchange_all, NULL);
}

static void send_to_itself(Comm *comm, void *context)
{
    Error err;
    static float value = 1;
    Tensor tensor = tensor_1d(&value, DTYPE_F32, 1);
    char expected[64];
    (void)context;
    snprintf(expected, sizeof expected, "rank %d is this rank itself", comm_rank(comm));
    EXPECT_FAILS(comm_send(comm, tensor, comm_rank(comm), &err), ERR_INVALID, expected);
    EXPECT_FAILS(comm_recv(comm, tensor, comm_rank(comm), &err), ERR_INVALID, expected);
    EXPECT_OK(comm_barrier(comm, &err));
}

void test_comm_message_to_itself_is_refused(void **state)
{
    (void)state;
    run_group(2, 4096, send_to_itself, NULL);
}

/* ---- what goes wrong ---- */

static void send_other_things(Comm *comm, void *context)
{
    static const char *const wanted[] = {"recv #1 (of 100000 f32 from rank 0)",
                                         "recv (of 100000 f32 from rank 0)"};
    static const char *const sent[] = {
        "send (of 99999 f32 to rank 1)", "send (of 100000 i32 to rank 1)",
        "send #1 (of 99999 f32 to rank 1)", "send #1 (of 100000 i32 to rank 1)"};
    static float data[COUNT];
    Error err;
    Meeting *meeting = context;
    int how = meeting->how, rank = comm_rank(comm);
    Tensor tensor = tensor_1d(data, DTYPE_F32, COUNT);
    EXPECT_OK(comm_barrier(comm, &err));
    meet(meeting, comm);
    Status status;
    if (rank == 0)
        status = comm_send(comm,
                           how == 0 ? tensor_1d(data, DTYPE_F32, COUNT - 1)
                                    : tensor_1d(data, DTYPE_I32, COUNT),
                           1, &err);
    else
        status = rank == 1 ? comm_recv(comm, tensor, 0, &err) : comm_barrier(comm, &err);
    status = settled(comm, status, &err);
    /* Where calls are queued, the device may be through with what fits. */
    if (status == OK) status = comm_barrier(comm, &err);
    EXPECT(status == ERR_INTERNAL);
    EXPECT(strstr(err.message, "went apart") != NULL);
    EXPECT(strstr(err.message, wanted[0]) != NULL || strstr(err.message, wanted[1]) != NULL);
    EXPECT(strstr(err.message, sent[how]) != NULL || strstr(err.message, sent[how + 2]) != NULL);
    EXPECT(strstr(err.message, "each send meet a recv of the same type and count") != NULL);
    EXPECT_FAILS(comm_barrier(comm, &err), ERR_INTERNAL, "went apart");
}

void test_comm_messages_that_differ_are_named_on_both_sides(void **state)
{
    (void)state;
    run_ways(2, (Group){3, 4096, ENDLESS_MS, send_other_things, NULL}, 0);
}

static void lose_a_peer(Comm *comm, void *context)
{
    static float data[COUNT];
    Error err;
    Meeting *meeting = context;
    int rank = comm_rank(comm);
    Tensor tensor = tensor_1d(data, DTYPE_F32, COUNT);
    EXPECT_OK(comm_barrier(comm, &err));
    meet(meeting, comm);
    if (rank == 1) {
        usleep(meeting->how < 2 ? 0 : 50000); /* rank 0 is asleep by then */
        kill(getpid(), SIGKILL);
    }
    Status status;
    if (rank == 0)
        status = meeting->how % 2 == 0 ? comm_recv(comm, tensor, 1, &err)
                                       : comm_send(comm, tensor, 1, &err);
    else
        status = comm_recv(comm, tensor, 0, &err); /* who lives, and will never send */
    EXPECT_FAILS(settled(comm, status, &err), ERR_UNAVAILABLE, "rank 1 (pid ");
    EXPECT(strstr(err.message, "died while rank 0 waited for it in ") != NULL);
    EXPECT(strstr(err.message, meeting->how % 2 == 0
                                   ? "recv #1 (of 100000 f32 from rank 1)"
                                   : "send #1 (of 100000 f32 to rank 1)") != NULL);
    EXPECT_FAILS(comm_barrier(comm, &err), ERR_UNAVAILABLE, "rank 1 (pid ");
}

void test_comm_death_of_a_peer_is_seen_before_the_deadline(void **state)
{
    (void)state;
    run_ways(4, (Group){3, 4096, ENDLESS_MS, lose_a_peer, NULL}, 1u << 1);
}

static void send_late(Comm *comm, void *context)
{
    Error err;
    static float value = 1;
    const int *ends = context;
    Tensor tensor = tensor_1d(&value, DTYPE_F32, 1);
    EXPECT_OK(comm_barrier(comm, &err));
    if (comm_rank(comm) == 1) {
        wait_for_byte(comm, ends[0]);
        EXPECT_FAILS(comm_send(comm, tensor, 0, &err), ERR_TIMEOUT, "rank 0 reported: recv #1");
        return;
    }
    comm_set_timeout(comm, 100);
    EXPECT_FAILS(settled(comm, comm_recv(comm, tensor, 1, &err), &err), ERR_TIMEOUT,
                 "recv #1 (of 1 f32 from rank 1): rank 0 waited 100 ms for rank 1; rank 1 (pid ");
    EXPECT(strstr(err.message, "is alive, its last call was barrier #2") != NULL);
    EXPECT(write(ends[1], "x", 1) == 1);
}

void test_comm_message_that_does_not_come_names_its_sender(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    run_group(2, 4096, send_late, ends);
    close(ends[0]);
    close(ends[1]);
}

static void *abort_a_recv(void *argument)
{
    Comm *comm = argument;
    char text[128] = "";
    while (strcmp(text, "recv #1, waiting for rank 1") != 0) {
        comm_describe_wait(comm, text, sizeof text);
        usleep(100);
    }
    comm_abort(comm);
    return NULL;
}

static void receive_aborted(Comm *comm, void *context)
{
    Error err;
    static float value = 1;
    Tensor tensor = tensor_1d(&value, DTYPE_F32, 1);
    meet(context, comm);
    if (comm_rank(comm) == 0) {
        pthread_t thread;
        EXPECT(pthread_create(&thread, NULL, abort_a_recv, comm) == 0);
        EXPECT_FAILS(settled(comm, comm_recv(comm, tensor, 1, &err), &err), ERR_CANCELLED,
                     "rank 0 aborted the group");
        pthread_join(thread, NULL);
    }
    meet(context, comm);
    EXPECT_FAILS(comm_send(comm, tensor, 1 - comm_rank(comm), &err), ERR_CANCELLED,
                 "rank 0 aborted the group");
}

void test_comm_abort_ends_a_recv(void **state)
{
    (void)state;
    run_ways(1, (Group){2, 4096, ENDLESS_MS, receive_aborted, NULL}, 0);
}
