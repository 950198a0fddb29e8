#include "rollout_worker/engine/page_pool.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"

typedef enum PageState {
    PAGE_FREE,
    PAGE_PRIVATE,   /* held, contents unknown to others */
    PAGE_PUBLISHED, /* held or not */
    PAGE_PARKED,    /* not held */
} PageState;

typedef struct Page {
    PageState state;
    int references;
    int32_t before;       /* published and parked */
    int followers;        /* published and parked pages behind this one */
    int32_t chain;        /* the next of the same bucket; or of the free list */
    int32_t older, newer; /* among the unheld that can be found */
    int count;            /* tokens */
    int32_t token[KV_PAGE];
} Page;

struct PagePool {
    Page *page;
    int size, num_held;
    int32_t free;           /* list */
    int32_t oldest, newest; /* unheld */
    int32_t *bucket;        /* of published pages, then of parked ones */
    uint64_t mask;
};

PagePool *page_pool_create(int num_pages)
{
    CHECK(num_pages > 0);
    PagePool *pool = mem_calloc(1, sizeof *pool);
    pool->size = num_pages;
    pool->page = mem_calloc((size_t)num_pages, sizeof *pool->page);
    uint64_t buckets = 16;
    while (buckets < 2 * (uint64_t)num_pages)
        buckets *= 2;
    pool->mask = buckets - 1;
    pool->bucket = mem_alloc(2 * (size_t)buckets * sizeof *pool->bucket);
    memset(pool->bucket, 0xFF, 2 * (size_t)buckets * sizeof *pool->bucket);
    pool->free = pool->oldest = pool->newest = NO_PAGE;
    for (int32_t p = num_pages - 1; p >= 0; p--) {
        pool->page[p].chain = pool->free;
        pool->free = p;
    }
    return pool;
}

void page_pool_destroy(PagePool *pool)
{
    if (pool == NULL) return;
    free(pool->page);
    free(pool->bucket);
    free(pool);
}

int page_pool_size(const PagePool *pool)
{
    return pool->size;
}

int page_pool_available(const PagePool *pool)
{
    return pool->size - pool->num_held;
}

int page_pool_held(const PagePool *pool)
{
    return pool->num_held;
}

/* ---- what can be found ---- */

static int32_t *bucket_of(PagePool *pool, int32_t before, const int32_t *token, bool parked)
{
    int words = parked ? 1 : KV_PAGE; /* parked pages are looked for by their first token */
    uint64_t hash = rng_mix((uint64_t)(uint32_t)before);
    for (int i = 0; i < words; i++)
        hash = rng_mix(hash ^ (uint32_t)token[i]);
    return &pool->bucket[(hash & pool->mask) + (parked ? pool->mask + 1 : 0)];
}

static void index_page(PagePool *pool, int32_t page, int32_t before, const int32_t *token,
                       int count)
{
    Page *p = &pool->page[page];
    p->state = count == KV_PAGE ? PAGE_PUBLISHED : PAGE_PARKED;
    p->before = before;
    p->count = count;
    memcpy(p->token, token, (size_t)count * sizeof *token);
    int32_t *bucket = bucket_of(pool, before, token, p->state == PAGE_PARKED);
    p->chain = *bucket;
    *bucket = page;
    if (before == NO_PAGE) return;
    CHECK(pool->page[before].state == PAGE_PUBLISHED);
    pool->page[before].followers++;
}

static void unindex_page(PagePool *pool, int32_t page)
{
    Page *p = &pool->page[page];
    CHECK(p->followers == 0);
    int32_t *link = bucket_of(pool, p->before, p->token, p->state == PAGE_PARKED);
    while (*link != page)
        link = &pool->page[*link].chain;
    *link = p->chain;
    if (p->before != NO_PAGE) pool->page[p->before].followers--;
    p->state = PAGE_PRIVATE;
}

/* ---- the order of use ---- */

static void append_unheld(PagePool *pool, int32_t page)
{
    Page *p = &pool->page[page];
    p->older = pool->newest;
    p->newer = NO_PAGE;
    if (pool->newest != NO_PAGE) pool->page[pool->newest].newer = page;
    if (pool->oldest == NO_PAGE) pool->oldest = page;
    pool->newest = page;
}

static void remove_unheld(PagePool *pool, int32_t page)
{
    Page *p = &pool->page[page];
    if (p->older != NO_PAGE) pool->page[p->older].newer = p->newer;
    if (p->newer != NO_PAGE) pool->page[p->newer].older = p->older;
    if (pool->oldest == page) pool->oldest = p->newer;
    if (pool->newest == page) pool->newest = p->older;
}

static void free_page(PagePool *pool, int32_t page)
{
    pool->page[page].state = PAGE_FREE;
    pool->page[page].chain = pool->free;
    pool->free = page;
}

/* ---- references ---- */

int32_t page_pool_take(PagePool *pool)
{
    int32_t page = pool->free;
    if (page != NO_PAGE) {
        pool->free = pool->page[page].chain;
    } else if ((page = pool->oldest) != NO_PAGE) {
        remove_unheld(pool, page);
        unindex_page(pool, page);
    } else {
        return NO_PAGE;
    }
    pool->page[page].state = PAGE_PRIVATE;
    pool->page[page].references = 1;
    pool->num_held++;
    return page;
}

static Page *held_page(PagePool *pool, int32_t page)
{
    CHECK(page >= 0 && page < pool->size && pool->page[page].references > 0);
    return &pool->page[page];
}

void page_pool_share(PagePool *pool, int32_t page)
{
    held_page(pool, page)->references++;
}

void page_pool_release(PagePool *pool, int32_t page)
{
    Page *p = held_page(pool, page);
    if (--p->references > 0) return;
    pool->num_held--;
    if (p->state == PAGE_PUBLISHED)
        append_unheld(pool, page);
    else
        free_page(pool, page);
}

/* ---- contents ---- */

static int32_t find_published(PagePool *pool, int32_t before, const int32_t *token)
{
    int32_t page = *bucket_of(pool, before, token, false);
    while (page != NO_PAGE && (pool->page[page].before != before ||
                               memcmp(pool->page[page].token, token, KV_PAGE * sizeof *token) != 0))
        page = pool->page[page].chain;
    return page;
}

/* A reference to a page that may be unheld. */
static void hold(PagePool *pool, int32_t page)
{
    Page *p = &pool->page[page];
    if (p->references++ > 0) return;
    remove_unheld(pool, page);
    pool->num_held++;
}

int32_t page_pool_publish(PagePool *pool, int32_t before, const int32_t *token, int32_t page)
{
    if (held_page(pool, page)->state == PAGE_PUBLISHED) return page;
    int32_t same = find_published(pool, before, token);
    if (same == NO_PAGE) {
        index_page(pool, page, before, token, KV_PAGE);
        return page;
    }
    hold(pool, same);
    page_pool_release(pool, page);
    return same;
}

int32_t page_pool_find(PagePool *pool, int32_t before, const int32_t *token)
{
    int32_t page = find_published(pool, before, token);
    if (page != NO_PAGE) hold(pool, page);
    return page;
}

void page_pool_park(PagePool *pool, int32_t before, const int32_t *token, int count, int32_t page)
{
    Page *p = held_page(pool, page);
    CHECK(count > 0 && count < KV_PAGE && p->state == PAGE_PRIVATE);
    if (p->references > 1) {
        page_pool_release(pool, page);
        return;
    }
    p->references = 0;
    pool->num_held--;
    index_page(pool, page, before, token, count);
    append_unheld(pool, page);
}

static int common_tokens(const Page *page, const int32_t *token, int count)
{
    int limit = page->count < count ? page->count : count, n = 0;
    while (n < limit && page->token[n] == token[n])
        n++;
    return n;
}

int32_t page_pool_unpark(PagePool *pool, int32_t before, const int32_t *token, int count,
                         int *ret_common)
{
    int32_t best = NO_PAGE;
    int most = 0;
    if (count <= 0) return NO_PAGE;
    for (int32_t page = *bucket_of(pool, before, token, true); page != NO_PAGE;
         page = pool->page[page].chain) {
        if (pool->page[page].before != before) continue;
        int common = common_tokens(&pool->page[page], token, count);
        if (common <= most) continue;
        most = common;
        best = page;
    }
    if (best == NO_PAGE) return NO_PAGE;
    unindex_page(pool, best);
    hold(pool, best);
    *ret_common = most;
    return best;
}

void page_pool_forget(PagePool *pool)
{
    memset(pool->bucket, 0xFF, 2 * (size_t)(pool->mask + 1) * sizeof *pool->bucket);
    pool->oldest = pool->newest = NO_PAGE;
    for (int32_t p = 0; p < pool->size; p++) {
        Page *page = &pool->page[p];
        if (page->state == PAGE_FREE) continue;
        page->followers = 0;
        page->state = PAGE_PRIVATE;
        if (page->references == 0) free_page(pool, p);
    }
}
