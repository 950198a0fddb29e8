/* Ranks on GPUs, each a process of its own: they open the device that CUDA_VISIBLE_DEVICES shows
 * them (tensor/device.h) and join over NCCL. Where there are more ranks than GPUs, several share
 * one: each then calls itself another host (NCCL_HOSTID), since NCCL takes a GPU once per host, and
 * NCCL goes by sockets over loopback: what is computed is the same, what it takes says nothing. */
#ifndef TROUPE_TESTS_GPU_RANKS_H
#define TROUPE_TESTS_GPU_RANKS_H

#include "comm/comm.h"
#include "tensor/device.h"

#define GPU_RANKS_MAX 8

typedef struct GpuRank {
    int rank, size, gpus;
    const KernelTable *kernels;
    DeviceInfo device;
    Comm *comm; /* NULL: alone */
} GpuRank;

typedef void (*GpuBody)(GpuRank *self, void *argument);

/* Runs `body` in `size` processes and prints whether all went well. `killed`: the rank that is to
 * end by SIGKILL; -1: none. Returns how many did not end as they should. This process itself never
 * opens the device, which does not survive a fork. */
int gpu_ranks_run(const char *name, int gpus, int size, GpuBody body, void *argument, int killed);

/* Whether there is NCCL, of which else it is said what is missing; then *ret_code is 77, or 1 where
 * the device does not open, either. */
bool gpu_ranks_have_nccl(int gpus, int *ret_code);

/* Zeroed memory that the ranks and this process share. */
void *gpu_ranks_share(size_t bytes);

_Noreturn void gpu_rank_stop(const GpuRank *self, const char *file, int line, const char *what);

/* By SIGKILL, as soon as what it has sent is on its way: over sockets a thread of NCCL's sends what
 * the device is done with. */
_Noreturn void gpu_rank_die(void);

/* In a rank's body. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) gpu_rank_stop(self, __FILE__, __LINE__, #condition);                     \
    } while (0)
#define MUST_OK(call)                                                                              \
    do {                                                                                           \
        if ((call) != OK) gpu_rank_stop(self, __FILE__, __LINE__, err.message);                    \
    } while (0)

#endif
