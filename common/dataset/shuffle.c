#include "dataset/shuffle.h"

#include "base/error.h"
#include "base/rng.h"

static int bits_of(uint64_t value)
{
    return value != 0 ? 64 - __builtin_clzll(value) : 0;
}

static void fill_table(Permutation *permutation, uint64_t key)
{
    uint8_t *table = permutation->table;
    for (uint64_t i = 0; i < permutation->size; i++)
        table[i] = (uint8_t)i;
    for (uint64_t i = permutation->size - 1; i > 0; i--) {
        uint64_t j = rng_below(key, i, i + 1);
        uint8_t swap = table[i];
        table[i] = table[j];
        table[j] = swap;
    }
}

Permutation permutation_of(uint64_t seed, uint64_t epoch, uint64_t size)
{
    CHECK(size > 0 && size <= UINT64_MAX / 4);
    /* The power of two is strictly above `size`: a Feistel network gives only even permutations of
     * its own domain, but even and odd ones of a smaller one. */
    int bits = bits_of(size);
    Permutation permutation = {.size = size, .low_bits = bits / 2, .high_bits = bits - bits / 2};
    uint64_t key = rng_key(seed, "shuffle");
    if (size <= SHUFFLE_TABLE_MAX) {
        fill_table(&permutation, rng_mix(key ^ rng_mix(epoch)));
        return permutation;
    }
    for (int i = 0; i < SHUFFLE_ROUNDS; i += 2) {
        RngBlock block = rng_block(key, epoch, (uint64_t)i);
        permutation.key[i] = (uint64_t)block.word[1] << 32 | block.word[0];
        permutation.key[i + 1] = (uint64_t)block.word[3] << 32 | block.word[2];
    }
    return permutation;
}

uint64_t permutation_at(const Permutation *permutation, uint64_t index)
{
    CHECK(index < permutation->size);
    if (permutation->size <= SHUFFLE_TABLE_MAX) return permutation->table[index];
    int low_bits = permutation->low_bits;
    uint64_t low_mask = (UINT64_C(1) << low_bits) - 1;
    uint64_t high_mask = (UINT64_C(1) << permutation->high_bits) - 1;
    uint64_t low = index & low_mask, high = index >> low_bits;
    uint64_t value;
    do {
        for (int i = 0; i < SHUFFLE_ROUNDS; i += 2) {
            low ^= rng_mix(high ^ permutation->key[i]) & low_mask;
            high ^= rng_mix(low ^ permutation->key[i + 1]) & high_mask;
        }
        value = high << low_bits | low;
    } while (value >= permutation->size);
    return value;
}

OrderCursor order_cursor(RecordOrder order)
{
    CHECK(order.records > 0);
    OrderCursor cursor = {.order = order};
    if (order.shuffle) cursor.permutation = permutation_of(order.seed, 0, order.records);
    return cursor;
}

uint64_t order_record(OrderCursor *cursor, uint64_t position, uint64_t *ret_epoch)
{
    const RecordOrder *order = &cursor->order;
    uint64_t epoch = position / order->records, index = position % order->records;
    *ret_epoch = epoch;
    if (!order->shuffle) return index;
    if (epoch != cursor->epoch) {
        cursor->permutation = permutation_of(order->seed, epoch, order->records);
        cursor->epoch = epoch;
    }
    return permutation_at(&cursor->permutation, index);
}
