#include "model/weight_digest.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"
#include "tensor/digest.h"

size_t weight_spec_bytes(const WeightPlan *plan, DType dtype, int spec)
{
    const WeightSpec *it = &plan->spec[spec];
    return (size_t)(it->local_rows * it->local_cols) * dtype_size(dtype);
}

size_t weight_spec_offset(const WeightPlan *plan, DType dtype, int spec)
{
    return (size_t)plan->spec[spec].offset * dtype_size(dtype);
}

uint64_t weight_layout_digest(const WeightPlan *plan, DType dtype)
{
    XXH3_state_t *state = XXH3_createState();
    XXH3_64bits_reset(state);
    int64_t shape[] = {plan->tp_rank, plan->tp_size, plan->size, plan->num_specs, dtype};
    XXH3_64bits_update(state, shape, sizeof shape);
    for (int i = 0; i < plan->num_specs; i++) {
        const WeightSpec *spec = &plan->spec[i];
        int64_t part[] = {spec->local_rows, spec->local_cols, spec->offset};
        XXH3_64bits_update(state, spec->name, strlen(spec->name) + 1);
        XXH3_64bits_update(state, part, sizeof part);
    }
    uint64_t digest = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return digest;
}

uint64_t weight_digest_join(const WeightPlan *plan, const uint64_t *digest)
{
    return XXH3_64bits(digest, (size_t)plan->num_specs * sizeof *digest);
}

static void make_room(WeightDigester *digester)
{
    size_t pieces = 0;
    if (digester->pieces != NULL) return;
    for (int i = 0; i < digester->plan->num_specs; i++)
        pieces += digest_num_pieces(weight_spec_bytes(digester->plan, digester->dtype, i));
    digester->pieces = digester->kernels->alloc(pieces * sizeof *digester->pieces);
    digester->host_pieces = mem_calloc(pieces, sizeof *digester->host_pieces);
}

void weight_digester_take(WeightDigester *digester, const KernelTable *kernels, const void *flat,
                          uint64_t *ret)
{
    const WeightPlan *plan = digester->plan;
    size_t first = 0;
    digester->kernels = kernels;
    make_room(digester);
    for (int i = 0; i < plan->num_specs; i++) {
        size_t bytes = weight_spec_bytes(plan, digester->dtype, i);
        kernels->digest_pieces(digester->pieces + first,
                               (const char *)flat + weight_spec_offset(plan, digester->dtype, i),
                               bytes);
        first += digest_num_pieces(bytes);
    }
    kernels->download(digester->host_pieces, digester->pieces, first * sizeof *digester->pieces);
    first = 0;
    for (int i = 0; i < plan->num_specs; i++) {
        size_t bytes = weight_spec_bytes(plan, digester->dtype, i);
        ret[i] = digest_join(digester->host_pieces + first, bytes);
        first += digest_num_pieces(bytes);
    }
}

int weight_digester_find_other(WeightDigester *digester, const KernelTable *kernels,
                               const void *flat, const uint64_t *expected)
{
    int other = -1, count = digester->plan->num_specs;
    uint64_t *found = mem_calloc((size_t)count, sizeof *found);
    weight_digester_take(digester, kernels, flat, found);
    for (int i = count - 1; i >= 0; i--)
        if (found[i] != expected[i]) other = i;
    free(found);
    return other;
}

void weight_digester_clear(WeightDigester *digester)
{
    if (digester->pieces != NULL) digester->kernels->free(digester->pieces);
    free(digester->host_pieces);
    digester->pieces = digester->host_pieces = NULL;
}
