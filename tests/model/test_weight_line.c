/* Weights sent between hosts, over the double of NCCL: what arrives is what was sent, version after
 * version; whatever happens to one of the processes, the others come out with a sentence. Each is a
 * process of its own, and none sees the others but through the group. */
#include "test.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "comm/comm_nccl.h"
#include "draw.h"
#include "model/weight_board.h"
#include "model/weight_line.h"
#include "tests/comm/nccl_double.h"

/* So that nobody comes out by a deadline. */
#define ENDLESS_MS 3600000

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

typedef struct Member {
    WeightPlan *plan;
    Weights *weights;
    WeightLine *line;
    int rank, size;
} Member;

static WeightPlan *small_plan(int64_t hidden)
{
    ModelConfig config = {
        .architecture = ARCHITECTURE_QWEN3,
        .vocab_size = 517,
        .hidden_size = hidden,
        .intermediate_size = 24,
        .num_hidden_layers = 2,
        .num_attention_heads = 4,
        .num_key_value_heads = 2,
        .head_dim = 6,
        .qk_norm = true,
        .tie_word_embeddings = true,
    };
    return weight_plan_create(&config, 0, 1);
}

static CommDevice device(void)
{
    return (CommDevice){cpu_kernels(1), nccl_double_host_streams(), NCCL_DOUBLE};
}

static Member join_as(int rank, int size, int64_t hidden, int timeout_ms)
{
    Member member = {.plan = small_plan(hidden), .rank = rank, .size = size};
    member.weights = weights_create(member.plan, DTYPE_BF16, cpu_kernels(1));
    WeightLineOptions options = {
        .plan = member.plan, .dtype = DTYPE_BF16, .device = device(), .timeout_ms = timeout_ms};
    member.line = weight_line_create(&options);
    return member;
}

static void leave(Member *member)
{
    weight_line_destroy(member->line);
    weights_destroy(member->weights);
    weight_plan_destroy(member->plan);
}

/* As a board says it. */
static uint64_t digest_of(const Member *member, const Weights *weights)
{
    Error err = {0};
    WeightBoardId id;
    WeightBoard *board = NULL;
    WeightBoardOptions options = {member->plan, DTYPE_BF16, NULL, 1};
    EXPECT(weight_board_create(&options, &id, &board, &err) == OK);
    weight_board_publish(board, 1, cpu_kernels(1), weights->flat);
    uint64_t digest = weight_board_digest(board, 1);
    weight_board_destroy(board);
    return digest;
}

static WeightMove move_of(const Member *member, const CommId *group, uint64_t id)
{
    return (WeightMove){.id = id,
                        .version = (int64_t)id + 4,
                        .group = *group,
                        .rank = member->rank,
                        .size = member->size};
}

typedef void (*Part)(int rank, int size, const CommId *groups);

/* Its write end is held by those that are to be lost alone: the others read from it that they are
 * gone, as the controller would tell them. */
static int loss[2];

static void take_part(Part part, int rank, int size, const CommId *groups, bool is_lost)
{
    if (!is_lost) close(loss[1]);
    part(rank, size, groups);
    _exit(0);
}

/* `lost` is the set of those that leave the others alone; they are killed, where `killed` says so.
 * Two ids, since the second group is of those that are left. */
static void run_parts(int size, Part part, unsigned lost, bool killed)
{
    Error err = {0};
    CommId groups[2];
    pid_t pid[8];
    assert_int_equal(pipe(loss), 0);
    assert_ok(weight_line_id_create(size, &groups[0], &err), &err);
    assert_ok(weight_line_id_create(size - 1, &groups[1], &err), &err);
    for (int rank = 0; rank < size; rank++) {
        pid[rank] = fork();
        if (pid[rank] == 0) take_part(part, rank, size, groups, lost >> rank & 1);
    }
    close(loss[0]);
    close(loss[1]);
    for (int rank = 0; rank < size; rank++) {
        int status = -1;
        assert_int_equal(waitpid(pid[rank], &status, 0), pid[rank]);
        if (killed && (lost >> rank & 1))
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        else
            assert_int_equal(status, 0);
    }
}

static void send_three_versions(int rank, int size, const CommId *groups)
{
    Member member = join_as(rank, size, 32, ENDLESS_MS);
    Weights *expected = weights_create(member.plan, DTYPE_BF16, cpu_kernels(1));
    for (uint64_t id = 1; id <= 3; id++) {
        Error err = {0};
        uint64_t digest = 0;
        WeightMove move = move_of(&member, &groups[0], id);
        draw_weights(expected, (int)id);
        if (rank == 0) draw_weights(member.weights, (int)id);
        EXPECT(weight_line_move(member.line, &move, member.weights->flat, &digest, &err) == OK);
        size_t bytes = (size_t)member.plan->size * dtype_size(DTYPE_BF16);
        EXPECT(memcmp(member.weights->flat, expected->flat, bytes) == 0);
        EXPECT(digest == digest_of(&member, expected));
    }
    weights_destroy(expected);
    leave(&member);
}

static void test_line_brings_what_was_sent_version_after_version(void **state)
{
    (void)state;
    run_parts(2, send_three_versions, 0, false);
    run_parts(4, send_three_versions, 0, false);
}

/* ---- who is lost ---- */

/* The calls of a move: joining has two (a gathering and an exchange), then come header and
 * weights; 0: before any. */
static int dies_at;

/* In the part of the loop thread. */
static void *abandon_when_told(void *argument)
{
    char none;
    while (read(loss[0], &none, 1) > 0)
        ;
    weight_line_abandon(argument, 1);
    return NULL;
}

static Status move_until_abandoned(Member *member, const CommId *group, Error *err)
{
    pthread_t thread;
    uint64_t digest = 0;
    WeightMove move = move_of(member, group, 1);
    EXPECT(pthread_create(&thread, NULL, abandon_when_told, member->line) == 0);
    Status status = weight_line_move(member->line, &move, member->weights->flat, &digest, err);
    close(loss[1]);
    pthread_join(thread, NULL);
    return status;
}

/* One dies at its call `dies_at`, the others are told, and send in a group of those that are left.
 */
static void lose_the_last(int rank, int size, const CommId *groups)
{
    Error err = {0};
    uint64_t digest = 0;
    Member member = join_as(rank, size, 32, ENDLESS_MS);
    draw_weights(member.weights, 1 + rank);
    if (rank == size - 1) {
        if (dies_at == 0) raise(SIGKILL);
        nccl_double_plan(&(DoublePlan){.fault = DOUBLE_DIES, .call = dies_at});
    }
    Status status = move_until_abandoned(&member, &groups[0], &err);
    EXPECT(rank != size - 1);
    EXPECT(status == OK || status == ERR_CANCELLED); /* it may have done its part before */
    EXPECT(status == OK || strstr(err.message, "of version 5 ") != NULL);
    member.size--;
    WeightMove move = move_of(&member, &groups[1], 2);
    EXPECT(weight_line_move(member.line, &move, member.weights->flat, &digest, &err) == OK);
    Weights *expected = weights_create(member.plan, DTYPE_BF16, cpu_kernels(1));
    draw_weights(expected, 1);
    EXPECT(digest == digest_of(&member, expected));
    weights_destroy(expected);
    leave(&member);
}

static void test_line_goes_on_without_whoever_is_killed_at_any_call(void **state)
{
    (void)state;
    for (dies_at = 0; dies_at <= 4; dies_at++)
        run_parts(3, lose_the_last, 1u << 2, true);
}

/* The root is gone: those who receive are told, and that is all. */
static void lose_the_root(int rank, int size, const CommId *groups)
{
    Error err = {0};
    Member member = join_as(rank, size, 32, ENDLESS_MS);
    if (rank == 0) {
        if (dies_at == 0) raise(SIGKILL);
        nccl_double_plan(&(DoublePlan){.fault = DOUBLE_DIES, .call = dies_at});
    }
    Status status = move_until_abandoned(&member, &groups[0], &err);
    EXPECT(rank != 0);
    EXPECT(status == ERR_CANCELLED);
    leave(&member);
}

static void test_line_ends_when_its_root_is_killed_at_any_call(void **state)
{
    (void)state;
    for (dies_at = 0; dies_at <= 4; dies_at++)
        run_parts(3, lose_the_root, 1u << 0, true);
}

/* ---- other ends ---- */

static void abandon_before(int rank, int size, const CommId *groups)
{
    Error err = {0};
    uint64_t digest = 0;
    Member member = join_as(rank, size, 32, ENDLESS_MS);
    WeightMove move = move_of(&member, &groups[0], 7);
    weight_line_abandon(member.line, 7);
    EXPECT(weight_line_move(member.line, &move, member.weights->flat, &digest, &err) ==
           ERR_CANCELLED);
    EXPECT(strstr(err.message, "was abandoned") != NULL);
    leave(&member);
}

static void test_line_does_not_begin_what_was_abandoned(void **state)
{
    (void)state;
    run_parts(2, abandon_before, 0, false);
}

static void send_another_model(int rank, int size, const CommId *groups)
{
    Error err = {0};
    Member member = join_as(rank, size, rank == 1 ? 40 : 32, ENDLESS_MS);
    Status status = move_until_abandoned(&member, &groups[0], &err);
    if (rank == 1) {
        EXPECT(status == ERR_INVALID);
        EXPECT(strstr(err.message, "of another model, type, layout or version") != NULL);
    } else {
        EXPECT(status == OK || status == ERR_CANCELLED);
    }
    leave(&member);
}

static void test_line_refuses_weights_of_another_model(void **state)
{
    (void)state;
    run_parts(2, send_another_model, 1u << 1, false);
}

/* Nobody tells the root. */
static void wait_for_the_dead(int rank, int size, const CommId *groups)
{
    Error err = {0};
    uint64_t digest = 0;
    Member member = join_as(rank, size, 32, rank == 0 ? 300 : ENDLESS_MS);
    WeightMove move = move_of(&member, &groups[0], 1);
    if (rank == 1) nccl_double_plan(&(DoublePlan){.fault = DOUBLE_DIES, .call = 3});
    EXPECT(weight_line_move(member.line, &move, member.weights->flat, &digest, &err) ==
           ERR_TIMEOUT);
    EXPECT(strstr(err.message, "waited 300 ms for the others, none of which is seen") != NULL);
    leave(&member);
}

static void test_line_gives_up_at_the_deadline(void **state)
{
    (void)state;
    run_parts(2, wait_for_the_dead, 1u << 1, true);
}

int main(void)
{
    setenv("TROUPE_NCCL_LIBRARY", NCCL_DOUBLE, 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line_brings_what_was_sent_version_after_version),
        cmocka_unit_test(test_line_goes_on_without_whoever_is_killed_at_any_call),
        cmocka_unit_test(test_line_ends_when_its_root_is_killed_at_any_call),
        cmocka_unit_test(test_line_does_not_begin_what_was_abandoned),
        cmocka_unit_test(test_line_refuses_weights_of_another_model),
        cmocka_unit_test(test_line_gives_up_at_the_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
