/* Where weights come from and go to, tensor by tensor: random numbers, safetensors files with whole
 * tensors, and back to whole tensors by gathering over the tensor-parallel group. Every function
 * works on one spec's part, which lies in device memory, so weights, masters and moments all use
 * the same three. Pieces of a few MB go through the host's memory, whatever a tensor's size. */
#ifndef TROUPE_MODEL_WEIGHTS_IO_H
#define TROUPE_MODEL_WEIGHTS_IO_H

#include "comm/comm.h"
#include "model/weight_plan.h"
#include "tensor/kernels.h"
#include "tensor/safetensors.h"

/* Where the time of reading goes: from the file, with widening; and to the device, as far as the
 * host is kept by it. */
typedef struct LoadTimes {
    int64_t read_ns, upload_ns;
} LoadTimes;

/* A rank's part of a tensor: f32, or bf16, rounded to nearest. */
typedef struct WeightPart {
    const KernelTable *kernels;
    void *data;
    DType dtype;
    LoadTimes *times; /* added to; NULL: nobody asks */
} WeightPart;

/* Fills this rank's part: norms 1, everything else normal(0, initializer_range). Element i of
 * tensor `name` is a function of (seed, name, i) alone. */
void weight_init_random(const WeightPlan *plan, const WeightSpec *spec, int64_t seed,
                        const WeightPart *part);

/* Reads this rank's part of tensor <prefix><name>. The file may hold it as F32, BF16 or F16;
 * its shape must be the spec's. `folder` is for messages. */
Status weight_read(SafetensorsReader *reader, const char *folder, const WeightPlan *plan,
                   const WeightSpec *spec, const char *prefix, const WeightPart *part, Error *err);

/* Streams the whole tensor, in row-major order and in pieces, to `sink` on rank `owner` of the
 * group; all ranks of the group call it with their parts. Only calls of the Comm can fail: a sink
 * keeps its own failure and ignores what follows, because an owner that left early would leave the
 * others waiting. */
typedef struct WeightGather {
    const KernelTable *kernels;
    const WeightPlan *plan;
    Comm *comm; /* may be NULL when alone */
    int owner;
    /* Called on the owner, with bytes in the host's memory. */
    void (*sink)(void *context, const void *bytes, size_t length);
    void *context;
} WeightGather;

Status weight_gather(const WeightGather *gather, const WeightSpec *spec, const void *part,
                     DType dtype, Error *err);

#endif
