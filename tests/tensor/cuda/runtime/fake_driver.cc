#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <string>

#include "cuda.h"
#include "fake.h"

#define STEP ((size_t)2 << 20)

bool fake_has_no_vmm, fake_shares_nothing, fake_reads_need_writes;

static std::map<CUdeviceptr, size_t> reserved;
static std::map<CUdeviceptr, size_t> mapped;                 /* memory behind addresses */
static std::map<CUmemGenericAllocationHandle, size_t> files; /* by descriptor */

size_t fake_vmm_bytes(void)
{
    size_t bytes = 0;
    for (const auto &one : mapped)
        bytes += one.second;
    return bytes;
}

size_t fake_vmm_reserved(void)
{
    return reserved.size();
}

static CUresult get_error_name(CUresult result, const char **name)
{
    *name = result == CUDA_ERROR_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_OTHER";
    return CUDA_SUCCESS;
}

static CUresult device_get(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return CUDA_SUCCESS;
}

static CUresult get_attribute(int *value, CUdevice_attribute attribute, CUdevice)
{
    *value = attribute == CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
                 ? !fake_has_no_vmm
                 : !fake_shares_nothing;
    return CUDA_SUCCESS;
}

static CUresult get_uuid(CUuuid *uuid, CUdevice device)
{
    memset(uuid->bytes, 'a' + device, sizeof uuid->bytes);
    return CUDA_SUCCESS;
}

static CUresult get_granularity(size_t *step, const CUmemAllocationProp *,
                                CUmemAllocationGranularity_flags)
{
    *step = STEP;
    return CUDA_SUCCESS;
}

/* ---- addresses ---- */

static void forbid(CUdeviceptr at, size_t bytes)
{
    mmap((void *)(uintptr_t)at, bytes, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static CUresult address_reserve(CUdeviceptr *ret, size_t bytes, size_t, CUdeviceptr,
                                unsigned long long)
{
    if (bytes % STEP != 0) return CUDA_ERROR_INVALID_VALUE;
    *ret = (CUdeviceptr)(uintptr_t)mmap(NULL, bytes, PROT_NONE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    reserved[*ret] = bytes;
    return CUDA_SUCCESS;
}

static CUresult address_free(CUdeviceptr at, size_t bytes)
{
    if (mapped.count(at) != 0 || reserved[at] != bytes) return CUDA_ERROR_INVALID_VALUE;
    reserved.erase(at);
    munmap((void *)(uintptr_t)at, bytes);
    return CUDA_SUCCESS;
}

/* ---- memory ---- */

static CUresult create(CUmemGenericAllocationHandle *handle, size_t bytes,
                       const CUmemAllocationProp *, unsigned long long)
{
    if (bytes % STEP != 0) return CUDA_ERROR_INVALID_VALUE;
    if (fake_memory_used() + bytes > fake_device.memory_bytes) return CUDA_ERROR_OUT_OF_MEMORY;
    const int fd = memfd_create("fake device memory", MFD_CLOEXEC);
    if (ftruncate(fd, (off_t)bytes) != 0) return CUDA_ERROR_OUT_OF_MEMORY;
    files[(CUmemGenericAllocationHandle)fd] = bytes;
    *handle = (CUmemGenericAllocationHandle)fd;
    return CUDA_SUCCESS;
}

static CUresult release(CUmemGenericAllocationHandle handle)
{
    if (files.erase(handle) != 1) return CUDA_ERROR_INVALID_VALUE;
    close((int)handle);
    return CUDA_SUCCESS;
}

static CUresult map_memory(CUdeviceptr at, size_t bytes, size_t,
                           CUmemGenericAllocationHandle handle, unsigned long long)
{
    if (files.count(handle) == 0 || reserved[at] != bytes || files[handle] != bytes)
        return CUDA_ERROR_INVALID_VALUE;
    mmap((void *)(uintptr_t)at, bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, (int)handle, 0);
    mapped[at] = bytes;
    return CUDA_SUCCESS;
}

static CUresult unmap_memory(CUdeviceptr at, size_t bytes)
{
    if (mapped[at] != bytes) return CUDA_ERROR_INVALID_VALUE;
    mapped.erase(at);
    forbid(at, bytes);
    return CUDA_SUCCESS;
}

static CUresult set_access(CUdeviceptr at, size_t bytes, const CUmemAccessDesc *access, size_t)
{
    const bool reads = access->flags == CU_MEM_ACCESS_FLAGS_PROT_READ;
    if (reads && fake_reads_need_writes) return CUDA_ERROR_NOT_SUPPORTED;
    mprotect((void *)(uintptr_t)at, bytes, reads ? PROT_READ : PROT_READ | PROT_WRITE);
    return CUDA_SUCCESS;
}

static CUresult to_descriptor(void *ret, CUmemGenericAllocationHandle handle,
                              CUmemAllocationHandleType, unsigned long long)
{
    *(int *)ret = dup((int)handle);
    return CUDA_SUCCESS;
}

static CUresult from_descriptor(CUmemGenericAllocationHandle *ret, void *fd,
                                CUmemAllocationHandleType)
{
    const int own = dup((int)(uintptr_t)fd);
    const off_t bytes = lseek(own, 0, SEEK_END);
    if (own < 0 || bytes <= 0) return CUDA_ERROR_INVALID_VALUE;
    files[(CUmemGenericAllocationHandle)own] = (size_t)bytes;
    *ret = (CUmemGenericAllocationHandle)own;
    return CUDA_SUCCESS;
}

/* ---- how they are found ---- */

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult *result)
{
    static const std::map<std::string, void *> all = {
        {"cuGetErrorName", (void *)get_error_name},
        {"cuDeviceGet", (void *)device_get},
        {"cuDeviceGetAttribute", (void *)get_attribute},
        {"cuDeviceGetUuid", (void *)get_uuid},
        {"cuMemGetAllocationGranularity", (void *)get_granularity},
        {"cuMemAddressReserve", (void *)address_reserve},
        {"cuMemAddressFree", (void *)address_free},
        {"cuMemCreate", (void *)create},
        {"cuMemRelease", (void *)release},
        {"cuMemMap", (void *)map_memory},
        {"cuMemUnmap", (void *)unmap_memory},
        {"cuMemSetAccess", (void *)set_access},
        {"cuMemExportToShareableHandle", (void *)to_descriptor},
        {"cuMemImportFromShareableHandle", (void *)from_descriptor},
    };
    const auto found = all.find(symbol);
    *result = found != all.end() ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    if (found != all.end()) *function = found->second;
    return cudaSuccess;
}
