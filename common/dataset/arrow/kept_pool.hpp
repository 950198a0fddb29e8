/* KeptPool: memory for Arrow that is used again from row group to row group. Arrow's own pools give
 * large pieces back to the system when a group is done, and the next group's are cleared and mapped
 * anew, page by page: a third of the time that decoding took. Large pieces come in few sizes and
 * are kept, KEPT_BYTES of them at most. One for the process, as Arrow's are; any thread. */
#ifndef TROUPE_DATASET_ARROW_KEPT_POOL_HPP
#define TROUPE_DATASET_ARROW_KEPT_POOL_HPP

#include <arrow/memory_pool.h>

arrow::MemoryPool *kept_pool();

#endif
