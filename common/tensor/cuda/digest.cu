/* Digests of pieces of memory (tensor/digest.h): XXH3's 64 bits of DIGEST_PIECE bytes with seed 0,
 * for inputs of this length alone. Source: Y. Collet, the specification of XXH3
 * (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md, "XXH3 algorithm for long
 * inputs").
 *
 * XXH3 has eight accumulators, each fed by eight bytes of every stripe of 64, and its last step
 * folds them in pairs. Four threads take a piece, a pair each: 16 bytes of every stripe, which a
 * warp reads for eight pieces at a time. Whole numbers: any order of summation is the same. */
#include "tensor/cuda/ops.cuh"
#include "tensor/digest.h"

#define THREADS         256
#define PIECE_THREADS   4
#define STRIPE          64
#define BLOCK_STRIPES   16 /* after which the accumulators are scrambled */
#define STRIPES         ((int)(DIGEST_PIECE / STRIPE))
#define SECRET_SCRAMBLE 16 /* words into the secret */

#define PRIME32_1 0x9E3779B1ull
#define PRIME32_2 0x85EBCA77ull
#define PRIME32_3 0xC2B2AE3Dull
#define PRIME64_1 0x9E3779B185EBCA87ull
#define PRIME64_2 0xC2B2AE3D27D4EB4Full
#define PRIME64_3 0x165667B19E3779F9ull
#define PRIME64_4 0x85EBCA77C2B2AE63ull
#define PRIME64_5 0x27D4EB2F165667C5ull

/* The default secret in words of little-endian bytes, and what of it the last stripe (from byte 121
 * on) and the last step (from byte 11 on) read, which are no words of it. */
typedef struct Keys {
    uint64_t word[24], last[8], merge[8], start[8];
} Keys;

static const Keys KEYS = {
    {0xBE4BA423396CFEB8ull, 0x1CAD21F72C81017Cull, 0xDB979083E96DD4DEull, 0x1F67B3B7A4A44072ull,
     0x78E5C0CC4EE679CBull, 0x2172FFCC7DD05A82ull, 0x8E2443F7744608B8ull, 0x4C263A81E69035E0ull,
     0xCB00C391BB52283Cull, 0xA32E531B8B65D088ull, 0x4EF90DA297486471ull, 0xD8ACDEA946EF1938ull,
     0x3F349CE33F76FAA8ull, 0x1D4F0BC7C7BBDCF9ull, 0x3159B4CD4BE0518Aull, 0x647378D9C97E9FC8ull,
     0xC3EBD33483ACC5EAull, 0xEB6313FAFFA081C5ull, 0x49DAF0B751DD0D17ull, 0x9E68D429265516D3ull,
     0xFCA1477D58BE162Bull, 0xCE31D07AD1B8F88Full, 0x280416958F3ACB45ull, 0x7E404BBBCAFBD7AFull},
    {0xEA647378D9C97E9Full, 0xC5C3EBD33483ACC5ull, 0x17EB6313FAFFA081ull, 0xD349DAF0B751DD0Dull,
     0x2B9E68D429265516ull, 0x8FFCA1477D58BE16ull, 0x45CE31D07AD1B8F8ull, 0xAF280416958F3ACBull},
    {0x6DD4DE1CAD21F72Cull, 0xA44072DB979083E9ull, 0xE679CB1F67B3B7A4ull, 0xD05A8278E5C0CC4Eull,
     0x4608B82172FFCC7Dull, 0x9035E08E2443F774ull, 0x52283C4C263A81E6ull, 0x65D088CB00C391BBull},
    {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1},
};

/* The pair's accumulators and, of the secret, all that it meets. */
typedef struct Pair {
    uint64_t a, b;
} Pair;

/* Sixteen bytes at `at` of the memory, zeros behind its end. */
__device__ static Pair load(const unsigned char *x, size_t at, size_t bytes)
{
    Pair pair = {0, 0};
    if (at + sizeof(uint4) <= bytes) {
        const uint4 four = *(const uint4 *)(x + at);
        pair.a = (uint64_t)four.x | (uint64_t)four.y << 32;
        pair.b = (uint64_t)four.z | (uint64_t)four.w << 32;
        return pair;
    }
    for (int i = 0; i < 8; i++) {
        if (at + i < bytes) pair.a |= (uint64_t)x[at + i] << 8 * i;
        if (at + 8 + i < bytes) pair.b |= (uint64_t)x[at + 8 + i] << 8 * i;
    }
    return pair;
}

__device__ static void take(Pair *sums, Pair data, uint64_t key_a, uint64_t key_b)
{
    const uint64_t a = data.a ^ key_a, b = data.b ^ key_b;
    sums->a += data.b + (a & 0xFFFFFFFFull) * (a >> 32);
    sums->b += data.a + (b & 0xFFFFFFFFull) * (b >> 32);
}

__device__ static uint64_t scrambled(uint64_t sum, uint64_t key)
{
    return (sum ^ sum >> 47 ^ key) * PRIME32_1;
}

/* Both halves of the product of 128 bits, one upon the other. */
__device__ static uint64_t folded_product(uint64_t a, uint64_t b)
{
    const uint64_t a_low = a & 0xFFFFFFFFull, a_high = a >> 32, b_low = b & 0xFFFFFFFFull,
                   b_high = b >> 32;
    const uint64_t low = a_low * b_low, middle = a_high * b_low + (low >> 32);
    const uint64_t other = a_low * b_high + (middle & 0xFFFFFFFFull);
    const uint64_t high = a_high * b_high + (middle >> 32) + (other >> 32);
    return high ^ (other << 32 | (low & 0xFFFFFFFFull));
}

__device__ static uint64_t avalanche(uint64_t hash)
{
    hash ^= hash >> 37;
    hash *= 0x165667919E3779F9ull;
    return hash ^ hash >> 32;
}

/* The calling thread's pair of the piece that begins at `at`. */
__device__ static uint64_t pair_digest(const unsigned char *x, size_t at, size_t bytes, int pair,
                                       const Keys *keys)
{
    const uint64_t *word = keys->word + 2 * pair;
    Pair sums = {keys->start[2 * pair], keys->start[2 * pair + 1]};
    size_t place = at + 16 * (size_t)pair;
    for (int block = 0; block < STRIPES / BLOCK_STRIPES; block++) {
        /* The last block's last stripe meets the end of the secret, and nothing is scrambled. */
        const bool last = block == STRIPES / BLOCK_STRIPES - 1;
        UNROLL
        for (int s = 0; s < BLOCK_STRIPES; s++, place += STRIPE)
            if (!last || s < BLOCK_STRIPES - 1)
                take(&sums, load(x, place, bytes), word[s], word[s + 1]);
        if (last) break;
        sums.a = scrambled(sums.a, word[SECRET_SCRAMBLE]);
        sums.b = scrambled(sums.b, word[SECRET_SCRAMBLE + 1]);
    }
    take(&sums, load(x, place - STRIPE, bytes), keys->last[2 * pair], keys->last[2 * pair + 1]);
    return folded_product(sums.a ^ keys->merge[2 * pair], sums.b ^ keys->merge[2 * pair + 1]);
}

__global__ void digest_pieces_kernel(uint64_t *digest, const unsigned char *x, size_t bytes,
                                     int64_t pieces, Keys keys)
{
    const int64_t thread = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int64_t piece = thread / PIECE_THREADS;
    uint64_t sum = 0;
    if (piece < pieces)
        sum = pair_digest(x, (size_t)piece * DIGEST_PIECE, bytes, (int)(thread % PIECE_THREADS),
                          &keys);
    for (int distance = PIECE_THREADS / 2; distance > 0; distance /= 2)
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
    if (piece < pieces && thread % PIECE_THREADS == 0)
        digest[piece] = avalanche(sum + DIGEST_PIECE * PRIME64_1);
}

void cuda_digest_pieces(uint64_t *digest, const void *x, size_t bytes)
{
    const int64_t pieces = (int64_t)digest_num_pieces(bytes);
    if (pieces == 0) return;
    CHECK((uintptr_t)x % sizeof(uint4) == 0);
    LAUNCH(digest_pieces_kernel, (unsigned)ceil_div(pieces * PIECE_THREADS, THREADS), THREADS, 0,
           digest, (const unsigned char *)x, bytes, pieces, KEYS);
}
