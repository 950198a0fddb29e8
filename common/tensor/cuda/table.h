/* The CUDA backend's tables: inside of its library, and in tests over the same sources on a host.
 */
#ifndef TROUPE_TENSOR_CUDA_TABLE_H
#define TROUPE_TENSOR_CUDA_TABLE_H

#include "tensor/kernels.h"
#include "tensor/streams.h"

#ifdef __cplusplus
extern "C" {
#endif
const KernelTable *cuda_table(void);
const DeviceStreams *cuda_streams(void);
const DeviceGraphs *cuda_graphs(void);
/* For measurements: whether the device says from here on that it shares its memory with no other
 * process, so that weights go by way of the host's. */
void cuda_share_nothing(bool refuses);
/* Of those. */
void cuda_reduce_parts(void *stream, const PartReduction *reduction);
#ifdef __cplusplus
}
#endif

#endif
