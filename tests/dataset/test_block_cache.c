/* Tests of the cache of decoded pieces: what is being decoded counts as held, and waits where that
 * is much. */
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "dataset/block_cache.h"

#define MEGABYTE ((size_t)1 << 20)

static atomic_int loads; /* since a test began */

static Status load(const void *file, uint64_t index, Block *ret, Error *err)
{
    (void)file;
    (void)index;
    (void)err;
    loads++;
    *ret = (Block){mem_alloc(MEGABYTE), MEGABYTE};
    return OK;
}

static void touch(BlockCache *cache, uint64_t index)
{
    Error err = {0};
    const Block *block = NULL;
    assert_ok(block_cache_take(cache, &loads, index, load, &block, &err), &err);
    block_cache_give_back(cache, block);
}

static void test_what_is_claimed_takes_the_place_of_the_oldest(void **state)
{
    (void)state;
    size_t bytes = 0;
    BlockCache *cache = block_cache_create(4 * MEGABYTE);
    loads = 0;
    for (uint64_t i = 0; i < 4; i++)
        touch(cache, i);
    void *spare = block_cache_claim(cache, MEGABYTE, &bytes); /* that of block 0 */
    assert_non_null(spare);
    assert_int_equal(bytes, MEGABYTE);
    assert_null(block_cache_claim(cache, MEGABYTE / 4, &bytes)); /* block 1 is too large for it */
    for (uint64_t i = 2; i < 4; i++)
        touch(cache, i);
    assert_int_equal(loads, 4);
    block_cache_settle(cache, MEGABYTE);
    block_cache_settle(cache, MEGABYTE / 4);
    for (uint64_t i = 0; i < 2; i++)
        touch(cache, i);
    assert_int_equal(loads, 6);
    free(spare);
    block_cache_destroy(cache);
}

typedef struct Claim {
    BlockCache *cache;
    atomic_bool made;
} Claim;

static void *claim_main(void *argument)
{
    Claim *claim = argument;
    size_t bytes = 0;
    free(block_cache_claim(claim->cache, BLOCK_WORK_BYTES / 2, &bytes));
    claim->made = true;
    return NULL;
}

/* However large, one is decoded. */
static void test_no_more_is_claimed_than_may_be_decoded_at_once(void **state)
{
    (void)state;
    size_t bytes = 0;
    pthread_t thread;
    Claim claim = {.cache = block_cache_create(MEGABYTE)};
    assert_null(block_cache_claim(claim.cache, 2 * BLOCK_WORK_BYTES, &bytes));
    assert_int_equal(pthread_create(&thread, NULL, claim_main, &claim), 0);
    usleep(50000);
    assert_false(claim.made);
    block_cache_settle(claim.cache, 2 * BLOCK_WORK_BYTES);
    pthread_join(thread, NULL);
    assert_true(claim.made);
    assert_null(block_cache_claim(claim.cache, BLOCK_WORK_BYTES / 2, &bytes)); /* beside it */
    block_cache_settle(claim.cache, BLOCK_WORK_BYTES);
    block_cache_destroy(claim.cache);
}

#define SMALL_FILES 8
#define BLOCKS      20000
#define ROUNDS      20

typedef struct Forgetting {
    BlockCache *cache;
    char file[SMALL_FILES];
    pthread_mutex_t filling; /* blocks are in use */
    atomic_bool over;
} Forgetting;

static Status load_small(const void *file, uint64_t index, Block *ret, Error *err)
{
    (void)file;
    (void)index;
    (void)err;
    *ret = (Block){mem_alloc(16), 16};
    return OK;
}

static void *forget_main(void *argument)
{
    Forgetting *forgetting = argument;
    for (int i = 0; !forgetting->over; i = (i + 1) % SMALL_FILES) {
        pthread_mutex_lock(&forgetting->filling);
        block_cache_forget(forgetting->cache, &forgetting->file[i]);
        pthread_mutex_unlock(&forgetting->filling);
    }
    return NULL;
}

/* A data set of the Hub drops files, by a thread of its own, until it is closed. */
static void test_files_are_dropped_while_the_cache_is_emptied(void **state)
{
    (void)state;
    Error err = {0};
    pthread_t thread;
    Forgetting forgetting = {.cache = block_cache_create(MEGABYTE)};
    pthread_mutex_init(&forgetting.filling, NULL);
    assert_int_equal(pthread_create(&thread, NULL, forget_main, &forgetting), 0);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_mutex_lock(&forgetting.filling);
        for (uint64_t i = 0; i < BLOCKS; i++) {
            const Block *block = NULL;
            const char *file = &forgetting.file[i % SMALL_FILES];
            assert_ok(block_cache_take(forgetting.cache, file, i, load_small, &block, &err), &err);
            block_cache_give_back(forgetting.cache, block);
        }
        pthread_mutex_unlock(&forgetting.filling);
        block_cache_clear(forgetting.cache);
    }
    forgetting.over = true;
    pthread_join(thread, NULL);
    pthread_mutex_destroy(&forgetting.filling);
    block_cache_destroy(forgetting.cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_claimed_takes_the_place_of_the_oldest),
        cmocka_unit_test(test_no_more_is_claimed_than_may_be_decoded_at_once),
        cmocka_unit_test(test_files_are_dropped_while_the_cache_is_emptied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
