/* Digests of the tensors of a flat buffer of weights that lies in a device's memory: taken where
 * they lie, so that whoever has weights of another process can tell that they are those it made.
 * Equal to the host's digests of the same bytes (tensor/digest.h). Used by one thread at a time. */
#ifndef TROUPE_MODEL_WEIGHT_DIGEST_H
#define TROUPE_MODEL_WEIGHT_DIGEST_H

#include "model/weights.h"

/* Zero-initialise but for plan and type. */
typedef struct WeightDigester {
    const WeightPlan *plan; /* borrowed */
    DType dtype;
    const KernelTable *kernels;     /* of the last use; NULL: none yet */
    uint64_t *pieces, *host_pieces; /* digests of pieces; NULL: not made yet */
} WeightDigester;

/* Of every tensor: ret[num_specs] in ordinary memory. One wait for all of them. */
void weight_digester_take(WeightDigester *digester, const KernelTable *kernels, const void *flat,
                          uint64_t *ret);
/* Frees what it holds of the device's memory, but not itself. */
void weight_digester_clear(WeightDigester *digester);

/* The first tensor of a flat buffer whose digest is another one; -1: all are as expected. */
int weight_digester_find_other(WeightDigester *digester, const KernelTable *kernels,
                               const void *flat, const uint64_t *expected);

/* One digest of those of all tensors: equal for equal weights of one layout and type. */
uint64_t weight_digest_join(const WeightPlan *plan, const uint64_t *digest);

/* Two plans with one digest have the same tensors at the same places, of the same rank. */
uint64_t weight_layout_digest(const WeightPlan *plan, DType dtype);

/* Where tensor `spec` stands in a flat buffer, and what it takes of it; bytes. */
size_t weight_spec_offset(const WeightPlan *plan, DType dtype, int spec);
size_t weight_spec_bytes(const WeightPlan *plan, DType dtype, int spec);

#endif
