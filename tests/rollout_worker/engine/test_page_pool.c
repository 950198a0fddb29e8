/* Who holds which page: sharing, finding again, forgetting, and never losing one. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "rollout_worker/engine/page_pool.h"

/* Tokens of a page that `key` names. */
static void fill(int32_t token[KV_PAGE], uint64_t key)
{
    for (int i = 0; i < KV_PAGE; i++)
        token[i] = (int32_t)rng_below(key, (uint64_t)i, 1000);
}

static void test_pages_run_out_and_come_back(void **state)
{
    (void)state;
    PagePool *pool = page_pool_create(3);
    int32_t page[3];
    for (int i = 0; i < 3; i++) {
        page[i] = page_pool_take(pool);
        assert_in_range(page[i], 0, 2);
    }
    assert_int_equal(page_pool_take(pool), NO_PAGE);
    page_pool_share(pool, page[1]);
    page_pool_release(pool, page[1]);
    assert_int_equal(page_pool_available(pool), 0);
    page_pool_release(pool, page[1]);
    assert_int_equal(page_pool_available(pool), 1);
    assert_int_equal(page_pool_take(pool), page[1]);
    page_pool_destroy(pool);
}

static void test_published_pages_are_found_behind_the_same_pages_only(void **state)
{
    (void)state;
    int32_t a[KV_PAGE], b[KV_PAGE];
    PagePool *pool = page_pool_create(6);
    fill(a, 1);
    fill(b, 2);
    int32_t first = page_pool_take(pool), second = page_pool_take(pool);
    assert_int_equal(page_pool_publish(pool, NO_PAGE, a, first), first);
    assert_int_equal(page_pool_publish(pool, first, b, second), second);
    assert_int_equal(page_pool_find(pool, NO_PAGE, b), NO_PAGE);
    assert_int_equal(page_pool_find(pool, first, a), NO_PAGE);
    assert_int_equal(page_pool_find(pool, NO_PAGE, a), first);
    assert_int_equal(page_pool_find(pool, first, b), second);
    b[KV_PAGE - 1]++;
    assert_int_equal(page_pool_find(pool, first, b), NO_PAGE);
    page_pool_destroy(pool);
}

/* Two sequences computed the same: they end up with one page. */
static void test_equal_contents_become_one_page(void **state)
{
    (void)state;
    int32_t a[KV_PAGE];
    PagePool *pool = page_pool_create(2);
    fill(a, 1);
    int32_t mine = page_pool_take(pool), other = page_pool_take(pool);
    page_pool_publish(pool, NO_PAGE, a, mine);
    assert_int_equal(page_pool_publish(pool, NO_PAGE, a, other), mine);
    assert_int_equal(page_pool_available(pool), 1);
    page_pool_release(pool, mine);
    page_pool_release(pool, mine);
    assert_int_equal(page_pool_held(pool), 0);
    page_pool_destroy(pool);
}

static void test_the_least_recently_used_go_first(void **state)
{
    (void)state;
    int32_t token[3][KV_PAGE], page[3];
    PagePool *pool = page_pool_create(3);
    for (int i = 0; i < 3; i++) {
        fill(token[i], (uint64_t)i);
        page[i] = page_pool_take(pool);
        page_pool_publish(pool, NO_PAGE, token[i], page[i]);
    }
    for (int i = 0; i < 3; i++)
        page_pool_release(pool, page[i]);
    assert_int_equal(page_pool_find(pool, NO_PAGE, token[0]), page[0]); /* used again */
    page_pool_release(pool, page[0]);
    assert_int_equal(page_pool_take(pool), page[1]);
    assert_int_equal(page_pool_find(pool, NO_PAGE, token[1]), NO_PAGE);
    assert_int_equal(page_pool_find(pool, NO_PAGE, token[0]), page[0]);
    page_pool_destroy(pool);
}

static void test_parked_pages_go_to_who_has_most_in_common(void **state)
{
    (void)state;
    int32_t a[KV_PAGE], b[KV_PAGE];
    int common = 0;
    PagePool *pool = page_pool_create(4);
    fill(a, 1);
    memcpy(b, a, sizeof a);
    b[10]++;
    int32_t one = page_pool_take(pool), two = page_pool_take(pool);
    page_pool_park(pool, NO_PAGE, a, 20, one);
    page_pool_park(pool, NO_PAGE, b, 30, two);
    assert_int_equal(page_pool_held(pool), 0);
    assert_int_equal(page_pool_unpark(pool, NO_PAGE, b, 25, &common), two);
    assert_int_equal(common, 25);
    assert_int_equal(page_pool_unpark(pool, NO_PAGE, b, 25, &common), one);
    assert_int_equal(common, 10);
    assert_int_equal(page_pool_unpark(pool, NO_PAGE, b, 25, &common), NO_PAGE);
    /* What another holds too is not parked. */
    page_pool_share(pool, one);
    page_pool_park(pool, NO_PAGE, a, 20, one);
    assert_int_equal(page_pool_unpark(pool, NO_PAGE, a, 20, &common), NO_PAGE);
    page_pool_release(pool, one);
    page_pool_release(pool, two);
    assert_int_equal(page_pool_held(pool), 0);
    page_pool_destroy(pool);
}

static void test_forgotten_pages_are_not_found_but_stay_held(void **state)
{
    (void)state;
    int32_t a[KV_PAGE], b[KV_PAGE];
    PagePool *pool = page_pool_create(3);
    fill(a, 1);
    fill(b, 2);
    int32_t held = page_pool_take(pool), unheld = page_pool_take(pool);
    page_pool_publish(pool, NO_PAGE, a, held);
    page_pool_publish(pool, held, b, unheld);
    page_pool_release(pool, unheld);
    page_pool_forget(pool);
    assert_int_equal(page_pool_find(pool, NO_PAGE, a), NO_PAGE);
    assert_int_equal(page_pool_available(pool), 2);
    page_pool_release(pool, held);
    assert_int_equal(page_pool_available(pool), 3);
    page_pool_destroy(pool);
}

/* ---- random holders ---- */

enum { HOLDERS = 12, LENGTH_MAX = 6, POOL = 40 };

/* A holder of pages whose contents are named by `key`s: few, so that many begin alike. */
typedef struct Holder {
    int32_t page[LENGTH_MAX];
    uint64_t key[LENGTH_MAX];
    int count; /* 0: nobody */
} Holder;

/* What each page holds, as the holders know it: pages with one contents only. */
typedef struct Contents {
    uint64_t key[POOL];
    int holders[POOL];
} Contents;

static void holder_start(PagePool *pool, Holder *holder, uint64_t draw)
{
    int wanted = 1 + (int)(draw % LENGTH_MAX);
    int32_t before = NO_PAGE, token[KV_PAGE];
    bool finding = true;
    for (int i = 0; i < wanted; i++) {
        holder->key[i] =
            rng_mix((i > 0 ? holder->key[i - 1] : 7) + rng_mix(draw + (uint64_t)i) % 2);
        fill(token, holder->key[i]);
        int32_t page = finding ? page_pool_find(pool, before, token) : NO_PAGE;
        if (page == NO_PAGE) {
            finding = false;
            page = page_pool_take(pool);
            if (page == NO_PAGE) break;
            page = page_pool_publish(pool, before, token, page);
        }
        holder->page[holder->count++] = before = page;
    }
}

static void holder_end(PagePool *pool, Holder *holder, int park)
{
    int32_t token[KV_PAGE];
    if (park > 0) {
        int32_t tail = page_pool_take(pool);
        fill(token, holder->key[holder->count - 1] + 1);
        if (tail != NO_PAGE)
            page_pool_park(pool, holder->page[holder->count - 1], token, park, tail);
    }
    while (holder->count > 0)
        page_pool_release(pool, holder->page[--holder->count]);
}

/* A page in several hands holds the same for all of them, and the pool counts hands right. */
static void check_holders(PagePool *pool, const Holder *holders)
{
    Contents contents = {.holders = {0}};
    int held = 0;
    for (int h = 0; h < HOLDERS; h++)
        for (int i = 0; i < holders[h].count; i++) {
            int32_t page = holders[h].page[i];
            if (contents.holders[page]++ == 0) {
                held++;
                contents.key[page] = holders[h].key[i];
            }
            assert_true(contents.key[page] == holders[h].key[i]);
        }
    assert_int_equal(page_pool_held(pool), held);
    assert_int_equal(page_pool_available(pool), POOL - held);
}

static void test_random_holders_never_lose_or_confuse_pages(void **state)
{
    (void)state;
    PagePool *pool = page_pool_create(POOL);
    Holder holders[HOLDERS] = {0};
    for (uint64_t step = 0; step < 20000; step++) {
        uint64_t draw = rng_mix(step * 31 + 5);
        Holder *holder = &holders[draw % HOLDERS];
        if (holder->count == 0)
            holder_start(pool, holder, draw >> 8);
        else
            holder_end(pool, holder, (int)(draw >> 8 & 1) * (1 + (int)(draw >> 16 & 31)));
        check_holders(pool, holders);
        if (step % 3000 == 2999) { /* before that all let go: their pages would be unknown */
            for (int h = 0; h < HOLDERS; h++)
                holder_end(pool, &holders[h], 0);
            page_pool_forget(pool);
            assert_int_equal(page_pool_available(pool), POOL);
        }
    }
    for (int h = 0; h < HOLDERS; h++)
        holder_end(pool, &holders[h], 0);
    for (int i = 0; i < POOL; i++) /* all of them are still there */
        assert_int_not_equal(page_pool_take(pool), NO_PAGE);
    assert_int_equal(page_pool_take(pool), NO_PAGE);
    page_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_run_out_and_come_back),
        cmocka_unit_test(test_published_pages_are_found_behind_the_same_pages_only),
        cmocka_unit_test(test_equal_contents_become_one_page),
        cmocka_unit_test(test_the_least_recently_used_go_first),
        cmocka_unit_test(test_parked_pages_go_to_who_has_most_in_common),
        cmocka_unit_test(test_forgotten_pages_are_not_found_but_stay_held),
        cmocka_unit_test(test_random_holders_never_lose_or_confuse_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
