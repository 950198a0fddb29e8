#include "tensor/cuda/vmm.cuh"

#include <cuda.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tensor/cuda/device.cuh"
#include "tensor/cuda/table.h"

#define DRIVER_VERSION 12000 /* whose functions these are */

static struct {
    bool is_open, is_found;
    char why[256]; /* not found: the sentence */
    int device;
    bool shares;
    bool refuses; /* to, all the same */
    size_t step;
    CUresult (*name_of)(CUresult, const char **);
    CUresult (*device_get)(CUdevice *, int);
    CUresult (*attribute)(int *, CUdevice_attribute, CUdevice);
    CUresult (*uuid)(CUuuid *, CUdevice);
    CUresult (*granularity)(size_t *, const CUmemAllocationProp *,
                            CUmemAllocationGranularity_flags);
    CUresult (*reserve)(CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long);
    CUresult (*unreserve)(CUdeviceptr, size_t);
    CUresult (*create)(CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *,
                       unsigned long long);
    CUresult (*release)(CUmemGenericAllocationHandle);
    CUresult (*map)(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long);
    CUresult (*unmap)(CUdeviceptr, size_t);
    CUresult (*access)(CUdeviceptr, size_t, const CUmemAccessDesc *, size_t);
    CUresult (*to_fd)(void *, CUmemGenericAllocationHandle, CUmemAllocationHandleType,
                      unsigned long long);
    CUresult (*from_fd)(CUmemGenericAllocationHandle *, void *, CUmemAllocationHandleType);
} vmm;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of opening */

/* ---- the driver ---- */

static const char *name_of(CUresult result)
{
    const char *name = NULL;
    return vmm.name_of(result, &name) == CUDA_SUCCESS ? name : "an unknown error";
}

static bool refuse(const char *what, CUresult result, char *text, size_t size)
{
    snprintf(text, size, "%s: %s", what, name_of(result));
    return false;
}

/* For what can only fail with the device. */
static void check(CUresult result, const char *what)
{
    if (result == CUDA_SUCCESS) return;
    fprintf(stderr, "CUDA device %d: %s: %s\n", vmm.device, what, name_of(result));
    fflush(stderr);
    abort();
}

template <typename T> static bool find(const char *name, T *ret)
{
    void *function = NULL;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    cudaError_t status = cudaGetDriverEntryPointByVersion(name, &function, DRIVER_VERSION,
                                                          cudaEnableDefault, &found);
    if (status == cudaSuccess && found == cudaDriverEntryPointSuccess && function != NULL) {
        memcpy(ret, &function, sizeof function);
        return true;
    }
    (void)cudaGetLastError();
    snprintf(vmm.why, sizeof vmm.why, "the driver has no %s", name);
    return false;
}

static bool find_all(void)
{
    return find("cuGetErrorName", &vmm.name_of) && find("cuDeviceGet", &vmm.device_get) &&
           find("cuDeviceGetAttribute", &vmm.attribute) && find("cuDeviceGetUuid", &vmm.uuid) &&
           find("cuMemGetAllocationGranularity", &vmm.granularity) &&
           find("cuMemAddressReserve", &vmm.reserve) && find("cuMemAddressFree", &vmm.unreserve) &&
           find("cuMemCreate", &vmm.create) && find("cuMemRelease", &vmm.release) &&
           find("cuMemMap", &vmm.map) && find("cuMemUnmap", &vmm.unmap) &&
           find("cuMemSetAccess", &vmm.access) &&
           find("cuMemExportToShareableHandle", &vmm.to_fd) &&
           find("cuMemImportFromShareableHandle", &vmm.from_fd);
}

static CUmemAllocationProp properties(bool shared)
{
    CUmemAllocationProp wanted;
    memset(&wanted, 0, sizeof wanted);
    wanted.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    wanted.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    wanted.location.id = vmm.device;
    if (shared) wanted.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    return wanted;
}

static bool has(CUdevice_attribute attribute)
{
    CUdevice device;
    int value = 0;
    return vmm.device_get(&device, vmm.device) == CUDA_SUCCESS &&
           vmm.attribute(&value, attribute, device) == CUDA_SUCCESS && value != 0;
}

static bool open_locked(int device)
{
    vmm.device = device;
    if (!find_all()) return false;
    if (!has(CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED)) {
        snprintf(vmm.why, sizeof vmm.why, "the device has no virtual memory management");
        return false;
    }
    vmm.shares = has(CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED);
    const CUmemAllocationProp wanted = properties(vmm.shares);
    const CUresult result =
        vmm.granularity(&vmm.step, &wanted, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
    if (result == CUDA_SUCCESS) return true;
    return refuse("cuMemGetAllocationGranularity", result, vmm.why, sizeof vmm.why);
}

bool vmm_open(int device, char *text, size_t size)
{
    pthread_mutex_lock(&lock);
    if (!vmm.is_open) vmm.is_found = open_locked(device);
    vmm.is_open = true;
    pthread_mutex_unlock(&lock);
    if (!vmm.is_found) snprintf(text, size, "%s", vmm.why);
    return vmm.is_found;
}

void cuda_share_nothing(bool refuses)
{
    vmm.refuses = refuses;
}

bool vmm_shares(char *text, size_t size)
{
    if (vmm.refuses)
        snprintf(text, size, "this library was made to share nothing");
    else if (!vmm.shares)
        snprintf(text, size,
                 "the device gives out no descriptors of its memory to other processes");
    return vmm.shares && !vmm.refuses;
}

void vmm_identify(unsigned char ret[16])
{
    CUdevice device;
    CUuuid uuid;
    check(vmm.device_get(&device, vmm.device), "cuDeviceGet");
    check(vmm.uuid(&uuid, device), "cuDeviceGetUuid");
    memcpy(ret, uuid.bytes, 16);
}

size_t vmm_step(void)
{
    return vmm.step;
}

/* ---- addresses and memory ---- */

void *vmm_reserve(size_t bytes)
{
    CUdeviceptr at = 0;
    check(vmm.reserve(&at, bytes, 0, 0, 0), "cuMemAddressReserve");
    return (void *)(uintptr_t)at;
}

void vmm_unreserve(void *memory, size_t bytes)
{
    check(vmm.unreserve((CUdeviceptr)(uintptr_t)memory, bytes), "cuMemAddressFree");
}

/* Takes the handle over: what is mapped lives on without it. */
static bool map(void *memory, size_t bytes, CUmemGenericAllocationHandle handle, bool only_read,
                char *text, size_t size)
{
    const CUdeviceptr at = (CUdeviceptr)(uintptr_t)memory;
    CUmemAccessDesc access;
    memset(&access, 0, sizeof access);
    access.location = properties(false).location;
    access.flags = only_read ? CU_MEM_ACCESS_FLAGS_PROT_READ : CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    CUresult result = vmm.map(at, bytes, 0, handle, 0);
    (void)vmm.release(handle);
    if (result != CUDA_SUCCESS) return refuse("cuMemMap", result, text, size);
    result = vmm.access(at, bytes, &access, 1);
    if (result != CUDA_SUCCESS && only_read) { /* not every driver knows memory to be read alone */
        access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
        result = vmm.access(at, bytes, &access, 1);
    }
    if (result == CUDA_SUCCESS) return true;
    check(vmm.unmap(at, bytes), "cuMemUnmap");
    return refuse("cuMemSetAccess", result, text, size);
}

bool vmm_back(void *memory, size_t bytes, int *ret_fd, char *text, size_t size)
{
    const CUmemAllocationProp wanted = properties(ret_fd != NULL);
    CUmemGenericAllocationHandle handle = 0;
    int fd = -1;
    CUresult result = vmm.create(&handle, bytes, &wanted, 0);
    if (result != CUDA_SUCCESS) return refuse("cuMemCreate", result, text, size);
    if (ret_fd != NULL)
        result = vmm.to_fd(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    if (result != CUDA_SUCCESS) {
        (void)vmm.release(handle);
        return refuse("cuMemExportToShareableHandle", result, text, size);
    }
    if (map(memory, bytes, handle, false, text, size)) {
        /* A copy in a program that is started would keep the memory. */
        if (ret_fd != NULL) (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
        if (ret_fd != NULL) *ret_fd = fd;
        return true;
    }
    if (fd >= 0) close(fd);
    return false;
}

bool vmm_back_with(void *memory, size_t bytes, int fd, char *text, size_t size)
{
    CUmemGenericAllocationHandle handle = 0;
    const CUresult result =
        vmm.from_fd(&handle, (void *)(uintptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    if (result != CUDA_SUCCESS) return refuse("cuMemImportFromShareableHandle", result, text, size);
    return map(memory, bytes, handle, true, text, size);
}

void vmm_unback(void *memory, size_t bytes)
{
    check(vmm.unmap((CUdeviceptr)(uintptr_t)memory, bytes), "cuMemUnmap");
}
