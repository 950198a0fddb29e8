/* Tests of the weights that a train rank shows to rollout workers: what is read is what was
 * written, from another process too, and what is not is said by name. */
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/shared_memory.h"
#include "model/weight_board.h"

static WeightPlan *small_plan(int64_t hidden_size, int tp_rank)
{
    ModelConfig config = {
        .architecture = ARCHITECTURE_QWEN3,
        .vocab_size = 131,
        .hidden_size = hidden_size,
        .intermediate_size = 24,
        .num_hidden_layers = 2,
        .num_attention_heads = 4,
        .num_key_value_heads = 2,
        .head_dim = 6,
        .qk_norm = true,
        .tie_word_embeddings = true,
    };
    return weight_plan_create(&config, tp_rank, 2);
}

/* A flat buffer whose every tensor is full of numbers that tell version and place. */
static float *make_flat(const WeightPlan *plan, int64_t version)
{
    float *flat = mem_calloc((size_t)plan->size, sizeof *flat);
    for (int s = 0; s < plan->num_specs; s++) {
        const WeightSpec *spec = &plan->spec[s];
        for (int64_t i = 0; i < spec->local_rows * spec->local_cols; i++)
            flat[spec->offset + i] = (float)(version * 100000 + spec->offset + i);
    }
    return flat;
}

typedef struct Fixture {
    WeightPlan *plan;
    WeightBoardId id;
    WeightBoard *maker;
    float *flat[5]; /* of versions 1 to 4 */
} Fixture;

static void setup(Fixture *f)
{
    Error err = {0};
    f->plan = small_plan(32, 1);
    assert_ok(weight_board_create(&(WeightBoardOptions){f->plan, DTYPE_F32, NULL, 0}, &f->id,
                                  &f->maker, &err),
              &err);
    for (int64_t v = 1; v < 5; v++)
        f->flat[v] = make_flat(f->plan, v);
}

static void teardown(Fixture *f)
{
    weight_board_destroy(f->maker);
    for (int v = 1; v < 5; v++)
        free(f->flat[v]);
    weight_plan_destroy(f->plan);
}

static void assert_shows(WeightBoard *board, const Fixture *f, int64_t version)
{
    Error err = {0};
    float *copy = mem_calloc((size_t)f->plan->size, sizeof *copy);
    assert_ok(weight_board_take(board, version, cpu_kernels(1), copy, &err), &err);
    assert_memory_equal(copy, f->flat[version], (size_t)f->plan->size * sizeof(float));
    free(copy);
    assert_true(weight_board_digest(board, version) != 0);
    assert_true(weight_board_digest(board, version) != weight_board_digest(board, version - 1));
    assert_true(weight_board_digest(board, 99) == 0);
    assert_true(weight_board_digest(board, 0) == 0);
}

static void assert_lacks(WeightBoard *board, const Fixture *f, int64_t version, const char *why)
{
    Error err = {0};
    float *copy = mem_calloc((size_t)f->plan->size, sizeof *copy);
    assert_fails(weight_board_take(board, version, cpu_kernels(1), copy, &err), ERR_NOT_FOUND, &err,
                 why);
    free(copy);
}

/* Version 1 where it lies, to be spoilt: the only place of the shared memory that holds it. */
typedef struct Shown {
    SharedMemory *memory;
    float *flat;
} Shown;

static Shown find_shown(const Fixture *f)
{
    Error err = {0};
    SharedMemoryId id;
    Shown shown = {0};
    memcpy(&id, f->id.bytes, sizeof id);
    assert_ok(shared_memory_open(&id, "the maker", true, &shown.memory, &err), &err);
    shown.flat = memmem(shown.memory, shown.memory->bytes, f->flat[1],
                        (size_t)f->plan->size * sizeof(float));
    assert_non_null(shown.flat);
    return shown;
}

static void test_board_keeps_the_newest_two_versions(void **state)
{
    (void)state;
    Fixture f;
    setup(&f);
    Error err = {0};
    WeightBoard *reader = NULL;
    assert_ok(
        weight_board_open(&f.id, &(WeightBoardOptions){f.plan, DTYPE_F32, NULL, 0}, &reader, &err),
        &err);
    assert_int_equal(weight_board_newest(reader), 0);
    assert_lacks(reader, &f, 1, "newest is 0");
    assert_lacks(reader, &f, 0, "newest is 0"); /* no version, though both slots say 0 */
    weight_board_publish(f.maker, 1, cpu_kernels(1), f.flat[1]);
    assert_shows(reader, &f, 1);
    weight_board_publish(f.maker, 2, cpu_kernels(1), f.flat[2]);
    assert_shows(reader, &f, 1);
    assert_shows(reader, &f, 2);
    weight_board_publish(f.maker, 4, cpu_kernels(1), f.flat[4]);
    assert_int_equal(weight_board_newest(reader), 4);
    assert_shows(reader, &f, 2);
    assert_shows(reader, &f, 4);
    assert_lacks(reader, &f, 1, "version 1 of the weights is not on the board");
    weight_board_destroy(reader);
    teardown(&f);
}

/* In a child: exit code 0 when everything was as it should be. */
static int read_in_child(const Fixture *f)
{
    Error err = {0};
    WeightBoard *reader = NULL;
    if (weight_board_open(&f->id, &(WeightBoardOptions){f->plan, DTYPE_F32, NULL, 0}, &reader,
                          &err) != OK)
        return 1;
    float *copy = mem_calloc((size_t)f->plan->size, sizeof *copy);
    if (weight_board_take(reader, 2, cpu_kernels(1), copy, &err) != OK) return 2;
    if (memcmp(copy, f->flat[2], (size_t)f->plan->size * sizeof(float)) != 0) return 3;
    free(copy);
    weight_board_destroy(reader);
    return 0;
}

static void test_board_is_read_by_another_process(void **state)
{
    (void)state;
    Fixture f;
    setup(&f);
    weight_board_publish(f.maker, 1, cpu_kernels(1), f.flat[1]);
    weight_board_publish(f.maker, 2, cpu_kernels(1), f.flat[2]);
    pid_t child = fork();
    if (child == 0) _exit(read_in_child(&f));
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    teardown(&f);
}

static void test_board_names_the_tensor_that_differs(void **state)
{
    (void)state;
    Fixture f;
    setup(&f);
    Error err = {0};
    weight_board_publish(f.maker, 1, cpu_kernels(1), f.flat[1]);
    Shown shown = find_shown(&f);
    int spec = weight_plan_find(f.plan, "model.layers.1.mlp.up_proj.weight");
    assert_in_range(spec, 0, f.plan->num_specs - 1);
    shown.flat[f.plan->spec[spec].offset + 5] += 1;
    WeightBoard *reader = NULL;
    assert_ok(
        weight_board_open(&f.id, &(WeightBoardOptions){f.plan, DTYPE_F32, NULL, 0}, &reader, &err),
        &err);
    float *copy = mem_calloc((size_t)f.plan->size, sizeof *copy);
    assert_fails(weight_board_take(reader, 1, cpu_kernels(1), copy, &err), ERR_DATA, &err,
                 "model.layers.1.mlp.up_proj.weight of version 1");
    free(copy);
    shared_memory_unmap(shown.memory);
    weight_board_destroy(reader);
    teardown(&f);
}

/* A number of the board that is wrong for moments, as if memory failed. */
typedef struct Flicker {
    volatile float *at;
    float right;
    atomic_bool ended;
} Flicker;

__attribute__((no_sanitize("thread"))) static void *flicker_main(void *argument)
{
    Flicker *flicker = argument;
    for (unsigned n = 1; !atomic_load(&flicker->ended); n = n * 1664525u + 1013904223u) {
        *flicker->at = flicker->right + 1;
        for (volatile unsigned i = 0; i < n >> 20; i++)
            ;
        *flicker->at = flicker->right;
        for (volatile unsigned i = 0; i < n >> 20; i++)
            ;
    }
    return NULL;
}

/* Whatever the board shows before and after: what is taken is what was written, or is refused. */
static void test_board_vouches_for_the_copy_and_not_for_itself(void **state)
{
    (void)state;
    Fixture f;
    setup(&f);
    Error err = {0};
    pthread_t thread;
    size_t bytes = (size_t)f.plan->size * sizeof(float);
    float *copy = mem_calloc((size_t)f.plan->size, sizeof *copy);
    weight_board_publish(f.maker, 1, cpu_kernels(1), f.flat[1]);
    Shown shown = find_shown(&f);
    int64_t place = f.plan->spec[f.plan->num_specs / 2].offset + 3;
    Flicker flicker = {.at = shown.flat + place, .right = f.flat[1][place]};
    int taken = 0, refused = 0;
    assert_int_equal(pthread_create(&thread, NULL, flicker_main, &flicker), 0);
    for (int i = 0; i < 100000 && (taken < 2000 || refused < 2000); i++) {
        Status status = weight_board_take(f.maker, 1, cpu_kernels(1), copy, &err);
        assert_true(status == OK || status == ERR_DATA);
        if (status == OK) assert_memory_equal(copy, f.flat[1], bytes);
        taken += status == OK;
        refused += status == ERR_DATA;
    }
    atomic_store(&flicker.ended, true);
    pthread_join(thread, NULL);
    assert_true(taken > 0 && refused > 0);
    free(copy);
    shared_memory_unmap(shown.memory);
    teardown(&f);
}

static void test_board_refuses_another_layout(void **state)
{
    (void)state;
    Fixture f;
    setup(&f);
    Error err = {0};
    WeightBoard *reader = NULL;
    WeightPlan *rank = small_plan(32, 0), *wide = small_plan(40, 1);
    assert_fails(
        weight_board_open(&f.id, &(WeightBoardOptions){rank, DTYPE_F32, NULL, 0}, &reader, &err),
        ERR_INVALID, &err, "rank 0 of 2 in f32");
    assert_fails(
        weight_board_open(&f.id, &(WeightBoardOptions){wide, DTYPE_F32, NULL, 0}, &reader, &err),
        ERR_INVALID, &err, "another model, type or layout");
    assert_fails(
        weight_board_open(&f.id, &(WeightBoardOptions){f.plan, DTYPE_BF16, NULL, 0}, &reader, &err),
        ERR_INVALID, &err, "in bf16");
    assert_null(reader);
    weight_plan_destroy(rank);
    weight_plan_destroy(wide);
    teardown(&f);
}

static void test_board_of_a_dead_maker_cannot_be_opened(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    WeightPlan *plan = small_plan(32, 1);
    pid_t child = fork();
    if (child == 0) {
        WeightBoardId made;
        WeightBoard *board = NULL;
        if (weight_board_create(&(WeightBoardOptions){plan, DTYPE_F32, NULL, 0}, &made, &board,
                                NULL) != OK)
            _exit(1);
        ssize_t written = write(ends[1], &made, sizeof made);
        _exit(written == sizeof made ? 0 : 1);
    }
    WeightBoardId id;
    int status = -1;
    assert_int_equal(read(ends[0], &id, sizeof id), sizeof id);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    Error err = {0};
    WeightBoard *reader = NULL;
    assert_fails(
        weight_board_open(&id, &(WeightBoardOptions){plan, DTYPE_F32, NULL, 0}, &reader, &err),
        ERR_UNAVAILABLE, &err, "that made the shared memory is gone");
    weight_plan_destroy(plan);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_board_keeps_the_newest_two_versions),
        cmocka_unit_test(test_board_is_read_by_another_process),
        cmocka_unit_test(test_board_names_the_tensor_that_differs),
        cmocka_unit_test(test_board_vouches_for_the_copy_and_not_for_itself),
        cmocka_unit_test(test_board_refuses_another_layout),
        cmocka_unit_test(test_board_of_a_dead_maker_cannot_be_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
