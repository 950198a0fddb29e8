#include "dataset/interleave.h"

#include "base/error.h"
#include "base/rng.h"

#define POSITION_MAX (UINT64_C(1) << 62)

typedef unsigned __int128 Wide;

/* ---- shares ---- */

/* Remainders that differ by less do so because weights were written in another unit. */
#define SAME_REST 1e-3

/* By largest remainders, so that the sum is exact; of equal remainders the first source's. */
static void round_shares(const double *exact, Interleave *mix)
{
    uint64_t given = 0;
    bool raised[INTERLEAVE_SOURCES_MAX] = {0};
    for (int i = 0; i < mix->count; i++) {
        mix->share[i] = (uint64_t)exact[i];
        given += mix->share[i];
    }
    for (; given < INTERLEAVE_UNIT; given++) {
        int most = -1;
        for (int i = 0; i < mix->count; i++) {
            if (raised[i]) continue;
            double rest = exact[i] - (double)mix->share[i];
            if (most < 0 || rest > exact[most] - (double)mix->share[most] + SAME_REST) most = i;
        }
        mix->share[most]++;
        raised[most] = true;
    }
    CHECK(given == INTERLEAVE_UNIT);
}

int interleave_make(uint64_t seed, const char *const *name, const double *weight, int count,
                    Interleave *ret)
{
    CHECK(count > 0 && count <= INTERLEAVE_SOURCES_MAX);
    double exact[INTERLEAVE_SOURCES_MAX], sum = 0;
    uint64_t key = rng_key(seed, "interleave");
    *ret = (Interleave){.count = count};
    for (int i = 0; i < count; i++)
        sum += weight[i];
    for (int i = 0; i < count; i++) {
        exact[i] = weight[i] / sum * (double)INTERLEAVE_UNIT;
        if (exact[i] < 1) return i;
        ret->key[i] = rng_key(key, name[i]);
    }
    round_shares(exact, ret);
    return -1;
}

/* ---- who comes first ---- */

/* When a source is due for the time `number`, in units of 1 / share: below 2^94. */
static Wide due(const Interleave *mix, int source, uint64_t number)
{
    uint64_t jitter = rng_mix(mix->key[source] ^ rng_mix(number)) >> 32;
    return (Wide)number << 32 | jitter;
}

/* Whether the time a / share[of_a] comes before b / share[of_b]; of equal ones the first source's.
 */
static bool is_before(const Interleave *mix, Wide a, int of_a, Wide b, int of_b)
{
    Wide x = a * mix->share[of_b], y = b * mix->share[of_a]; /* below 2^126 */
    return x != y ? x < y : of_a < of_b;
}

uint64_t interleave_position(const Interleave *mix, int source, uint64_t number)
{
    CHECK(number < POSITION_MAX);
    Wide when = due(mix, source, number);
    Wide position = number;
    for (int i = 0; i < mix->count; i++) {
        if (i == source) continue;
        /* The stretch of that source in which the time lies; earlier ones are over. */
        Wide stretch = (when * mix->share[i] / mix->share[source]) >> 32;
        position += stretch;
        if (position >= POSITION_MAX) return POSITION_MAX - 1;
        position += is_before(mix, due(mix, i, (uint64_t)stretch), i, when, source);
    }
    return (uint64_t)position;
}

uint64_t interleave_epoch(const Interleave *mix, const uint64_t *records, EpochEnd end)
{
    uint64_t epoch = 0;
    for (int i = 0; i < mix->count; i++) {
        if (records[i] == 0) return 0;
        uint64_t until = interleave_position(mix, i, records[i] - 1) + 1;
        bool other = end == EPOCH_ALL_EXHAUSTED ? until > epoch : until < epoch;
        if (i == 0 || other) epoch = until;
    }
    return epoch;
}

InterleaveCursor interleave_cursor(const Interleave *mix, uint64_t position)
{
    CHECK(position < POSITION_MAX);
    InterleaveCursor cursor = {.mix = mix};
    uint64_t count = (uint64_t)mix->count;
    /* At a time t that is a whole number, less than t + count are over. */
    uint64_t time = position > count ? position - count : 0;
    for (int i = 0; i < mix->count; i++) {
        Wide exact = (Wide)time * mix->share[i];
        uint64_t stretch = (uint64_t)(exact >> 32);
        cursor.taken[i] = stretch + (due(mix, i, stretch) < exact);
        cursor.position += cursor.taken[i];
    }
    CHECK(cursor.position <= position);
    while (cursor.position < position)
        interleave_next(&cursor);
    return cursor;
}

InterleavePlace interleave_next(InterleaveCursor *cursor)
{
    const Interleave *mix = cursor->mix;
    int first = 0;
    Wide when = due(mix, 0, cursor->taken[0]);
    for (int i = 1; i < mix->count; i++) {
        Wide other = due(mix, i, cursor->taken[i]);
        if (!is_before(mix, other, i, when, first)) continue;
        first = i;
        when = other;
    }
    cursor->position++;
    return (InterleavePlace){first, cursor->taken[first]++};
}

InterleavePlace interleave_at(const Interleave *mix, uint64_t position)
{
    if (mix->count == 1) return (InterleavePlace){0, position};
    InterleaveCursor cursor = interleave_cursor(mix, position);
    return interleave_next(&cursor);
}
