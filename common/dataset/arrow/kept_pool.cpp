#include "kept_pool.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#include <malloc.h>

#include <arrow/status.h>

#define KEPT_BYTES   (32 << 20) /* that nobody uses */
#define LARGE_BYTES  (16 << 10) /* smaller pieces are the system's business */
#define ALIGNMENT    64
#define MAPPED_BYTES (256 << 10) /* and more come from the system and go back to it */

/* Sizes are rounded up to one of four between a power of two and the next. */
static int64_t round_up(int64_t size)
{
    if (size < LARGE_BYTES) return std::max<int64_t>(size, 1);
    int64_t step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(size - 1))) / 4;
    return (size + step - 1) / step * step;
}

class KeptPool : public arrow::MemoryPool
{
  public:
    arrow::Status Allocate(int64_t size, int64_t alignment, uint8_t **out) override;
    arrow::Status Reallocate(int64_t old_size, int64_t new_size, int64_t alignment,
                             uint8_t **pointer) override;
    void Free(uint8_t *buffer, int64_t size, int64_t alignment) override;
    void ReleaseUnused() override;

    int64_t bytes_allocated() const override
    {
        return used;
    }
    int64_t total_bytes_allocated() const override
    {
        return total;
    }
    int64_t num_allocations() const override
    {
        return count;
    }
    std::string backend_name() const override
    {
        return "kept";
    }

  private:
    struct Piece {
        uint8_t *bytes;
        int64_t size;
    };
    uint8_t *take_kept(int64_t size);
    bool keep(Piece piece);

    std::mutex lock;
    std::vector<Piece> kept; /* the one that was freed last is at the end */
    int64_t kept_bytes = 0;
    std::atomic<int64_t> used = 0, total = 0, count = 0;
};

/* NULL: none of that size is kept. */
uint8_t *KeptPool::take_kept(int64_t size)
{
    std::lock_guard<std::mutex> guard(lock);
    for (size_t i = kept.size(); i-- > 0;) {
        if (kept[i].size != size) continue;
        uint8_t *bytes = kept[i].bytes;
        kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(i));
        kept_bytes -= size;
        return bytes;
    }
    return nullptr;
}

/* In place of those that were freed first. */
bool KeptPool::keep(Piece piece)
{
    if (piece.size > KEPT_BYTES / 2) return false;
    std::lock_guard<std::mutex> guard(lock);
    while (kept_bytes + piece.size > KEPT_BYTES) {
        free(kept.front().bytes);
        kept_bytes -= kept.front().size;
        kept.erase(kept.begin());
    }
    kept.push_back(piece);
    kept_bytes += piece.size;
    return true;
}

arrow::Status KeptPool::Allocate(int64_t size, int64_t alignment, uint8_t **out)
{
    if (size < 0) return arrow::Status::Invalid("a negative size of memory");
    int64_t rounded = round_up(size);
    uint8_t *bytes = nullptr;
    if (rounded >= LARGE_BYTES && alignment <= ALIGNMENT) bytes = take_kept(rounded);
    void *fresh = nullptr;
    size_t aligned = static_cast<size_t>(std::max<int64_t>(alignment, ALIGNMENT));
    if (bytes == nullptr && posix_memalign(&fresh, aligned, static_cast<size_t>(rounded)) != 0)
        return arrow::Status::OutOfMemory("no memory for ", size, " bytes");
    *out = bytes != nullptr ? bytes : static_cast<uint8_t *>(fresh);
    used += size;
    total += size;
    count++;
    return arrow::Status::OK();
}

arrow::Status KeptPool::Reallocate(int64_t old_size, int64_t new_size, int64_t alignment,
                                   uint8_t **pointer)
{
    if (round_up(old_size) == round_up(new_size)) {
        used += new_size - old_size;
        return arrow::Status::OK();
    }
    uint8_t *bytes = nullptr;
    ARROW_RETURN_NOT_OK(Allocate(new_size, alignment, &bytes));
    memcpy(bytes, *pointer, static_cast<size_t>(std::min(old_size, new_size)));
    Free(*pointer, old_size, alignment);
    *pointer = bytes;
    return arrow::Status::OK();
}

void KeptPool::Free(uint8_t *buffer, int64_t size, int64_t alignment)
{
    int64_t rounded = round_up(size);
    used -= size;
    bool large = rounded >= LARGE_BYTES && alignment <= ALIGNMENT;
    if (!large || !keep({buffer, rounded})) free(buffer);
}

void KeptPool::ReleaseUnused()
{
    std::lock_guard<std::mutex> guard(lock);
    for (const Piece &piece : kept)
        free(piece.bytes);
    kept.clear();
    kept_bytes = 0;
}

/* Rows and columns in work come and go by several threads, in pieces of up to some megabytes. Left
 * to itself malloc comes to take such pieces from its arenas, of which each thread has one, and
 * these keep what is free between the pieces: 110 to 190 MB beside 230 MB in use, with eight
 * threads. */
static KeptPool *make_pool()
{
#ifdef M_MMAP_THRESHOLD
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
#endif
    return new KeptPool;
}

arrow::MemoryPool *kept_pool()
{
    static KeptPool *const pool = make_pool(); /* never destroyed: readers may outlive exit */
    return pool;
}
