/* PagePool: who holds which page of a KvCache, and what unheld pages still contain. Pages are
 * counted by reference: sequences with a common beginning share its full pages. A full page can be
 * published under its contents: its 64 tokens behind the pages before them; whoever begins alike
 * finds it, also after its last holder let go, until it is the least recently used one and its
 * memory is wanted. The last, partly filled page of a sequence that stops can be parked in the same
 * way, for one taker who goes on from it.
 *
 * Contents are compared, not only hashed: a page is found by the page before it and its own tokens,
 * and a page stays findable at least as long as those behind it. Holders must hold all pages from
 * the first on and let go of the last one first. Everything in it is forgotten when the weights
 * change. Used by the compute thread of the rank that plans. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_PAGE_POOL_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_PAGE_POOL_H

#include <stdint.h>

#include "tensor/kernels.h"

typedef struct PagePool PagePool;

#define NO_PAGE (-1) /* the page before the first; or none found */

PagePool *page_pool_create(int num_pages);
void page_pool_destroy(PagePool *pool); /* accepts NULL */

int page_pool_size(const PagePool *pool);
int page_pool_available(const PagePool *pool); /* that can be taken: nobody holds them */
int page_pool_held(const PagePool *pool);

/* A page with one reference and any contents; NO_PAGE when all are held. */
int32_t page_pool_take(PagePool *pool);
void page_pool_share(PagePool *pool, int32_t page); /* one more reference to a held page */
void page_pool_release(PagePool *pool, int32_t page);

/* The caller's page is full: it holds token[KV_PAGE] behind page `before` (published, or NO_PAGE).
 * Returns the page to hold instead, which is another when the same contents were published already;
 * the caller's reference has moved to it. */
int32_t page_pool_publish(PagePool *pool, int32_t before, const int32_t *token, int32_t page);

/* The published page with these contents, with a reference for the caller, or NO_PAGE. */
int32_t page_pool_find(PagePool *pool, int32_t before, const int32_t *token);

/* Gives the caller's only reference to a page that holds `count` < KV_PAGE tokens away, to be found
 * by the next. With a page that others hold too it is page_pool_release. */
void page_pool_park(PagePool *pool, int32_t before, const int32_t *token, int count, int32_t page);

/* The parked page behind `before` that has most of the first tokens of token[count] in common, with
 * the caller's reference; *ret_common says how many (at least 1). NO_PAGE when there is none. */
int32_t page_pool_unpark(PagePool *pool, int32_t before, const int32_t *token, int count,
                         int *ret_common);

/* Nothing can be found any more; what is held stays held. */
void page_pool_forget(PagePool *pool);

#endif
