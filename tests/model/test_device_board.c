/* Boards of weights in the memory of a device, over one that the host cannot touch
 * (tests/tensor/fenced_kernels.h): read where they lie, copied from another device, or by way of
 * the host; the same weights and digests in every way. Readers are processes of their own. */
#include "test.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tensor/fenced_kernels.h"
#include "../tensor/fenced_memory.h"
#include "base/memory.h"
#include "draw.h"
#include "model/weight_board.h"

#define DEVICE_BYTES ((size_t)64 << 20)

static const KernelTable *device;

typedef struct Fixture {
    WeightPlan *plan;
    WeightBoardOptions options;
    WeightBoardId id;
    WeightBoard *maker;
    void *host[4]; /* of versions 1 to 3 */
    void *flat[4]; /* the same on the device */
    size_t bytes;
    uint64_t digest[4]; /* as a board in the host's memory says */
} Fixture;

static WeightPlan *small_plan(void)
{
    ModelConfig config = {
        .architecture = ARCHITECTURE_QWEN3,
        .vocab_size = 517, /* so that a tensor has several pieces, and the last one a part */
        .hidden_size = 32,
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

static void draw_versions(Fixture *f)
{
    Error err = {0};
    WeightBoardId id;
    WeightBoard *board = NULL;
    WeightBoardOptions on_host = {f->plan, DTYPE_BF16, NULL, 0};
    assert_ok(weight_board_create(&on_host, &id, &board, &err), &err);
    for (int v = 1; v < 4; v++) {
        Weights *weights = weights_create(f->plan, DTYPE_BF16, cpu_kernels(1));
        draw_weights(weights, v);
        f->host[v] = malloc(f->bytes);
        memcpy(f->host[v], weights->flat, f->bytes);
        f->flat[v] = device->alloc(f->bytes);
        device->upload(f->flat[v], f->host[v], f->bytes);
        weight_board_publish(board, v, cpu_kernels(1), f->host[v]);
        f->digest[v] = weight_board_digest(board, v);
        weights_destroy(weights);
    }
    weight_board_destroy(board);
}

static void setup(Fixture *f, int num_slots)
{
    Error err = {0};
    device = fenced_kernels(cpu_kernels(1), DEVICE_BYTES);
    fenced_memory_name("one");
    *f = (Fixture){.plan = small_plan()};
    f->options = (WeightBoardOptions){f->plan, DTYPE_BF16, fenced_memory(), num_slots};
    f->bytes = (size_t)f->plan->size * dtype_size(DTYPE_BF16);
    draw_versions(f);
    assert_ok(weight_board_create(&f->options, &f->id, &f->maker, &err), &err);
}

static void teardown(Fixture *f)
{
    weight_board_destroy(f->maker);
    for (int v = 1; v < 4; v++)
        free(f->host[v]);
    weight_plan_destroy(f->plan);
    fenced_memory_refuse(false, false);
}

static bool holds(const Fixture *f, const void *flat, int64_t version)
{
    void *found = malloc(f->bytes);
    device->download(found, flat, f->bytes);
    bool same = memcmp(found, f->host[version], f->bytes) == 0;
    free(found);
    return same;
}

/* What a reader is to be like. */
typedef struct Reader {
    const char *device;
    bool shares, in_place;
    const char *note; /* a part of it; NULL: it has none */
} Reader;

/* In a process of its own: exit code 0 when everything is as it should be. */
static int read_version(const Fixture *f, const Reader *reader, int64_t version)
{
    Error err = {0};
    WeightBoard *board = NULL;
    void *flat = NULL;
    WeightBoardOptions options = f->options;
    fenced_memory_name(reader->device);
    if (!reader->shares) options.memory = NULL;
    if (weight_board_open(&f->id, &options, &board, &err) != OK) return 1;
    const char *note = weight_board_note(board);
    if ((note != NULL) != (reader->note != NULL)) return 2;
    if (note != NULL && strstr(note, reader->note) == NULL) return 3;
    if (weight_board_is_in_place(board) != reader->in_place) return 4;
    if (reader->in_place) {
        if (weight_board_find(board, version, device, &flat, &err) != OK) return 5;
        if (weight_board_find(board, 99, device, &flat, &err) != ERR_NOT_FOUND) return 6;
    } else {
        flat = device->alloc(f->bytes);
        if (weight_board_take(board, version, device, flat, &err) != OK) return 7;
    }
    if (!holds(f, flat, version)) return 8;
    if (weight_board_digest(board, version) != f->digest[version]) return 9;
    weight_board_destroy(board);
    return 0;
}

static void assert_read(const Fixture *f, const Reader *reader, int64_t version)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) _exit(read_version(f, reader, version));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static const Reader NEIGHBOUR = {"one", true, true, NULL}, OTHER = {"another", true, false, NULL},
                    FOREIGN = {"one", false, false, "shares no memory"};

static void test_weights_are_read_where_they_lie_or_copied(void **state)
{
    (void)state;
    Fixture f;
    setup(&f, 2);
    assert_null(weight_board_note(f.maker));
    for (int v = 1; v < 4; v++) {
        weight_board_publish(f.maker, v, device, f.flat[v]);
        assert_int_equal(weight_board_newest(f.maker), v);
        assert_true(weight_board_digest(f.maker, v) == f.digest[v]);
        assert_read(&f, &NEIGHBOUR, v);
        assert_read(&f, &OTHER, v);
        if (v > 1) assert_read(&f, &NEIGHBOUR, v - 1);
    }
    teardown(&f);
}

/* The copy is made when it is asked for, of what is there, and kept from then on. */
static void test_who_cannot_map_the_device_gets_a_copy_in_the_hosts_memory(void **state)
{
    (void)state;
    Fixture f;
    setup(&f, 2);
    weight_board_publish(f.maker, 1, device, f.flat[1]);
    assert_read(&f, &FOREIGN, 1);
    weight_board_publish(f.maker, 2, device, f.flat[2]);
    weight_board_publish(f.maker, 3, device, f.flat[3]);
    assert_read(&f, &FOREIGN, 2);
    assert_read(&f, &FOREIGN, 3);
    assert_read(&f, &NEIGHBOUR, 3); /* as before */
    fenced_memory_refuse(false, true);
    const Reader refused = {"one", true, false, "opens no memory of others"};
    assert_read(&f, &refused, 3);
    teardown(&f);
}

static void test_a_device_that_shares_nothing_leaves_the_hosts_memory(void **state)
{
    (void)state;
    Fixture f;
    device = fenced_kernels(cpu_kernels(1), DEVICE_BYTES);
    fenced_memory_refuse(true, false);
    setup(&f, 2);
    assert_non_null(strstr(weight_board_note(f.maker), "the test device shares no"));
    weight_board_publish(f.maker, 1, device, f.flat[1]);
    const Reader reader = {"one", true, false, NULL};
    assert_read(&f, &reader, 1);
    teardown(&f);
}

static void test_a_board_of_one_slot_shows_the_newest(void **state)
{
    (void)state;
    Fixture f;
    setup(&f, 1);
    for (int v = 1; v < 4; v++) {
        weight_board_publish(f.maker, v, device, f.flat[v]);
        assert_read(&f, &NEIGHBOUR, v);
        assert_read(&f, &FOREIGN, v);
        assert_true(weight_board_digest(f.maker, v - 1) == 0);
    }
    teardown(&f);
}

static void test_the_tensor_that_differs_on_the_device_is_named(void **state)
{
    (void)state;
    Fixture f;
    setup(&f, 2);
    Error err = {0};
    void *flat = NULL;
    WeightBoard *reader = NULL;
    weight_board_publish(f.maker, 1, device, f.flat[1]);
    assert_ok(weight_board_open(&f.id, &f.options, &reader, &err), &err);
    assert_ok(weight_board_find(reader, 1, device, &flat, &err), &err);
    int spec = weight_plan_find(f.plan, "model.layers.1.mlp.up_proj.weight");
    size_t at = (size_t)f.plan->spec[spec].offset * dtype_size(DTYPE_BF16) + 5;
    char *page = (char *)flat + at / 4096 * 4096;
    assert_int_equal(mprotect(page, 4096, PROT_READ | PROT_WRITE), 0);
    page[at % 4096] ^= 1;
    assert_int_equal(mprotect(page, 4096, PROT_NONE), 0);
    assert_fails(weight_board_find(reader, 1, device, &flat, &err), ERR_DATA, &err,
                 "model.layers.1.mlp.up_proj.weight of version 1");
    assert_fails(weight_board_take(f.maker, 1, device, f.flat[2], &err), ERR_DATA, &err,
                 "model.layers.1.mlp.up_proj.weight of version 1");
    weight_board_destroy(reader);
    teardown(&f);
}

/* What was mapped is whole without its maker; a board of a dead one cannot be opened. */
static void test_weights_outlive_the_process_that_made_them(void **state)
{
    (void)state;
    Fixture f;
    setup(&f, 2);
    int ends[2], status = -1;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        WeightBoard *board = NULL;
        if (weight_board_create(&f.options, &f.id, &board, NULL) != OK) _exit(1);
        weight_board_publish(board, 1, device, f.flat[1]);
        if (write(ends[1], &f.id, sizeof f.id) != (ssize_t)sizeof f.id) _exit(2);
        for (;;)
            pause();
    }
    Error err = {0};
    WeightBoardId id;
    WeightBoard *reader = NULL, *late = NULL;
    void *flat = NULL;
    assert_int_equal(read(ends[0], &id, sizeof id), sizeof id);
    assert_ok(weight_board_open(&id, &f.options, &reader, &err), &err);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_ok(weight_board_find(reader, 1, device, &flat, &err), &err);
    assert_true(holds(&f, flat, 1));
    assert_fails(weight_board_open(&id, &f.options, &late, &err), ERR_UNAVAILABLE, &err, "gone");
    weight_board_destroy(reader);
    close(ends[0]);
    close(ends[1]);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_are_read_where_they_lie_or_copied),
        cmocka_unit_test(test_who_cannot_map_the_device_gets_a_copy_in_the_hosts_memory),
        cmocka_unit_test(test_a_device_that_shares_nothing_leaves_the_hosts_memory),
        cmocka_unit_test(test_a_board_of_one_slot_shows_the_newest),
        cmocka_unit_test(test_the_tensor_that_differs_on_the_device_is_named),
        cmocka_unit_test(test_weights_outlive_the_process_that_made_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
