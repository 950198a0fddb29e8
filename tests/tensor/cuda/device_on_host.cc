/* cuda/device.cu where the host's memory is the device's. */
#include <stdio.h>
#include <stdlib.h>

#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/table.h"

void *cuda_alloc(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    CHECK(memory != NULL);
    memset(memory, 0, bytes);
    return memory;
}

void cuda_free(void *memory)
{
    free(memory);
}

void cuda_upload(void *to, const void *host_from, size_t bytes)
{
    cuda_copy(to, host_from, bytes);
}

void cuda_download(void *host_to, const void *from, size_t bytes)
{
    cuda_copy(host_to, from, bytes);
}

void cuda_copy(void *to, const void *from, size_t bytes)
{
    if (bytes > 0) memcpy(to, from, bytes);
}

void cuda_synchronize(void)
{
}

void cuda_fill_zero(Tensor y)
{
    memset(y.data, 0, tensor_bytes(&y));
}

/* A block of its own for every call, so that a step out of it is one into the unknown. */
void *cuda_scratch(size_t bytes)
{
    static void *last;
    free(last);
    last = aligned_alloc(64, (bytes + 63) / 64 * 64);
    CHECK(last != NULL);
    memset(last, 0xFF, bytes);
    return last;
}

size_t cuda_shared_max(void)
{
    return on_host::shared_max;
}

extern "C" void on_host_give_shared(size_t bytes)
{
    on_host::shared_max = bytes;
}

const char *cuda_device_name(void)
{
    return "the host";
}

/* Recording, as far as products ask for it. */
static bool is_recording;
static const char *spoiled;

bool cuda_is_recording(void)
{
    return is_recording;
}

void cuda_spoil_recording(const char *why)
{
    static char kept[512];
    snprintf(kept, sizeof kept, "%s", why);
    spoiled = kept;
}

extern "C" void on_host_record(bool record)
{
    is_recording = record;
    spoiled = NULL;
}

extern "C" const char *on_host_spoiled(void)
{
    return spoiled;
}

const DeviceGraphs *cuda_graphs(void)
{
    return NULL;
}
