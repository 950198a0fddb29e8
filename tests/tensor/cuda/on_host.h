/* The language of CUDA kernels on a host without a GPU, for tests: the blocks of a grid run one
 * after the other, the threads of a block as fibers that change places where they meet (barriers,
 * shuffles). It says nothing of speed and everything of indices, sums and barriers; under
 * AddressSanitizer also of accesses beyond an array. A block whose threads do not all come to a
 * barrier stops the test, and the order in which threads run is another one in every launch, so
 * that a missing barrier shows as a wrong result. One thread of the process at a time. */
#ifndef TROUPE_TESTS_CUDA_ON_HOST_H
#define TROUPE_TESTS_CUDA_ON_HOST_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__   static
#define __align__(n) alignas(n)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

struct float2 {
    float x, y;
};

struct alignas(16) float4 {
    float x, y, z, w;
};

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

namespace on_host
{

/* Of the thread that runs. */
struct Place {
    dim3 thread, block, block_size, grid_size;
};
extern Place place;
extern unsigned char
    *shared_bytes; /* of the block, as many as the launch gave; filled with noise */

/* What a launch may ask for: an H100's, until a test says otherwise. */
extern size_t shared_max;

void run(dim3 grid, dim3 block, size_t shared, const std::function<void()> &kernel,
         const char *name);
void barrier(void);
/* Gives `bits` to the warp's other lanes and takes lane `from`'s. Every lane of the warp calls. */
uint64_t exchange(uint64_t bits, int from);
unsigned ballot(bool mine);
/* cuda/pack.cuh: a copy comes at once or as late as it may, so that whoever reads too early, or
 * brings what is still read, gets wrong values. */
void copy_later(void *to, const void *from, size_t bytes);
void commit_copies(void);
void wait_for_copies(int pending);
/* cuda/mma.cuh. Every lane of the warp calls. */
void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2]);
int lane(void);

template <typename T> T exchange_value(T value, int from)
{
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = exchange(bits, from);
    memcpy(&value, &bits, sizeof value);
    return value;
}

} // namespace on_host

#define threadIdx on_host::place.thread
#define blockIdx  on_host::place.block
#define blockDim  on_host::place.block_size
#define gridDim   on_host::place.grid_size

static inline void __syncthreads(void)
{
    on_host::barrier();
}

template <typename T> T __shfl_xor_sync(unsigned, T value, int mask)
{
    return on_host::exchange_value(value, on_host::lane() ^ mask);
}

template <typename T> T __shfl_sync(unsigned, T value, int from)
{
    return on_host::exchange_value(value, from);
}

static inline unsigned __ballot_sync(unsigned, int predicate)
{
    return on_host::ballot(predicate != 0);
}

static inline int __popc(unsigned bits)
{
    return __builtin_popcount(bits);
}

/* Of integers alone: their sums do not depend on the order. */
static inline unsigned long long atomicAdd(unsigned long long *at, unsigned long long value)
{
    unsigned long long old = *at;
    *at += value;
    return old;
}

static inline int atomicAdd(int *at, int value)
{
    int old = *at;
    *at += value;
    return old;
}

static inline void __syncwarp(void)
{
    (void)on_host::exchange(0, 0);
}

/* A call of the library's takes more time than all else. Its second rounding, of about one sum in
 * 2^29, is of no matter here. */
static inline float on_host_fmaf(float a, float b, float c)
{
    return (float)((double)a * (double)b + (double)c);
}
#define fmaf on_host_fmaf

static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}

#define LAUNCH(kernel, grid, block, shared, ...)                                                   \
    on_host::run((grid), (block), (shared), [&] { kernel(__VA_ARGS__); }, #kernel)

#define LAUNCH_ON(stream, kernel, grid, block, shared, ...)                                        \
    ((void)(stream), LAUNCH(kernel, grid, block, shared, __VA_ARGS__))

#define ALLOW_SHARED(kernel) ((void)0) /* a launch sees it */
#define SHARED_BYTES(name)   unsigned char *const name = on_host::shared_bytes

#endif
