#include "tensor/device.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/plural.h"
#include "base/process.h"
#include "tensor/cuda/library.h"

#define LIBRARY_VARIABLE "TROUPE_CUDA_LIBRARY"
#define SM_MIN           80 /* bf16 products on tensor cores */

/* What helps where there is no library. */
#ifdef BUILDS_CUDA_LIBRARY
#define BUILD_IT                                                                                   \
    "This build makes one: build it (ninja -C build programs), keep it beside the programs, "
#else
#define BUILD_IT "This build was made without CUDA's compiler: configure it anew where nvcc is, "
#endif

const char *device_kind_name(DeviceKind kind)
{
    return kind == DEVICE_CUDA ? "cuda" : "cpu";
}

/* ---- the library ---- */

static Status refuse_missing(const char *beside, const char *in_lib, Error *err)
{
    char *bin = path_folder(beside), *lib = path_folder(in_lib);
    Status status =
        error_set(err, ERR_RESOURCE,
                  "there is no CUDA library: " CUDA_LIBRARY_NAME " stands neither in %s nor in %s "
                  "nor where the dynamic loader looks.\n" BUILD_IT
                  "or name a library with " LIBRARY_VARIABLE ".",
                  bin, lib);
    free(bin);
    free(lib);
    return status;
}

/* Why the dynamic loader does not take a file that is there: mostly a library that it needs. */
static Status refuse_unloadable(const char *path, const char *why, Error *err)
{
    return error_set(err, ERR_RESOURCE,
                     "the CUDA library %s cannot be loaded: %s.\n"
                     "Install the CUDA runtime libraries that it was built with, or name their "
                     "folder in LD_LIBRARY_PATH.",
                     path, why);
}

static Status load_file(const char *path, void **ret, Error *err)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return refuse_unloadable(path, dlerror(), err);
    *ret = library;
    return OK;
}

/* By the dynamic loader's own path. That nothing has the name is told by an error that begins with
 * it; another one comes from a library that was found. */
static Status load_by_name(const char *beside, const char *in_lib, void **ret, Error *err)
{
    void *library = dlopen(CUDA_LIBRARY_NAME, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *why = dlerror();
        if (strncmp(why, CUDA_LIBRARY_NAME ":", sizeof CUDA_LIBRARY_NAME) == 0)
            return refuse_missing(beside, in_lib, err);
        return refuse_unloadable(CUDA_LIBRARY_NAME, why, err);
    }
    *ret = library;
    return OK;
}

static Status load_found(void **ret, char *ret_path, Error *err)
{
    char *beside = program_path(CUDA_LIBRARY_NAME), *folder = path_folder(beside);
    char *parent = path_folder(folder), *in_lib = path_join(parent, "lib/" CUDA_LIBRARY_NAME);
    const char *found = path_exists(beside) ? beside : path_exists(in_lib) ? in_lib : NULL;
    Status status =
        found != NULL ? load_file(found, ret, err) : load_by_name(beside, in_lib, ret, err);
    snprintf(ret_path, PATH_MAX, "%s", found != NULL ? found : CUDA_LIBRARY_NAME);
    free(in_lib);
    free(parent);
    free(folder);
    free(beside);
    return status;
}

/* *ret_path [PATH_MAX] names it in messages. */
static Status load(const DeviceOptions *options, void **ret, char *ret_path, Error *err)
{
    const char *named = options->library;
    if (named == NULL) named = getenv(LIBRARY_VARIABLE);
    if (named == NULL || named[0] == '\0') return load_found(ret, ret_path, err);
    /* Without a folder before its name the loader would look elsewhere. */
    if (realpath(named, ret_path) == NULL)
        return error_set(err, ERR_RESOURCE,
                         "there is no file %s, which is named as the CUDA library.\n"
                         "Correct " LIBRARY_VARIABLE ".",
                         named);
    return load_file(ret_path, ret, err);
}

static Status refuse_strange(const char *path, const char *has, const char *expected, Error *err)
{
    return error_set(err, ERR_UNSUPPORTED,
                     "the CUDA library %s %s, expected %s.\n"
                     "Build it and this program from the same source.",
                     path, has, expected);
}

/* Nothing of a table is read before its interface and its size are known to be ours. */
static Status read_table(void *library, const char *path, const CudaLibrary **ret, Error *err)
{
    const CudaLibrary *(*entry)(void) = NULL;
    char has[96], expected[96];
    void *symbol = dlsym(library, CUDA_LIBRARY_SYMBOL);
    memcpy(&entry, &symbol, sizeof entry);
    const CudaLibrary *table = symbol != NULL ? entry() : NULL;
    if (table == NULL)
        return refuse_strange(path, "does not export " CUDA_LIBRARY_SYMBOL,
                              "a library of this project", err);
    if (table->abi != CUDA_LIBRARY_ABI) {
        snprintf(has, sizeof has, "is made for interface %d", table->abi);
        snprintf(expected, sizeof expected, "interface %d", CUDA_LIBRARY_ABI);
        return refuse_strange(path, has, expected, err);
    }
    if (table->kernel_table_bytes != sizeof(KernelTable)) {
        snprintf(has, sizeof has, "has a table of kernels of %zu bytes", table->kernel_table_bytes);
        snprintf(expected, sizeof expected, "%zu bytes", sizeof(KernelTable));
        return refuse_strange(path, has, expected, err);
    }
    if (table->streams()->bytes != sizeof(DeviceStreams)) {
        snprintf(has, sizeof has, "has a table of streams of %zu bytes", table->streams()->bytes);
        snprintf(expected, sizeof expected, "%zu bytes", sizeof(DeviceStreams));
        return refuse_strange(path, has, expected, err);
    }
    if (table->memory()->bytes != sizeof(DeviceMemory)) {
        snprintf(has, sizeof has, "has a table of memory of %zu bytes", table->memory()->bytes);
        snprintf(expected, sizeof expected, "%zu bytes", sizeof(DeviceMemory));
        return refuse_strange(path, has, expected, err);
    }
    *ret = table;
    return OK;
}

/* ---- the device ---- */

/* Of a version as CUDA writes it: 13020 is 13.2. */
static void put_version(int version, char ret[16])
{
    snprintf(ret, 16, "%d.%d", version / 1000, version % 1000 / 10);
}

static void describe(const CudaDevice *device, DeviceInfo *ret)
{
    char driver[16], runtime[16];
    put_version(device->driver_version, driver);
    put_version(device->runtime_version, runtime);
    *ret = (DeviceInfo){.memory_total = device->memory_total, .memory_free = device->memory_free};
    snprintf(ret->name, sizeof ret->name, "%s", device->name);
    snprintf(ret->text, sizeof ret->text,
             "%s (sm_%d, %s), %.1f of %.1f GiB free, CUDA driver %s, runtime %s", device->name,
             device->sm, device->pci_bus_id, (double)device->memory_free / 0x1p30,
             (double)device->memory_total / 0x1p30, driver, runtime);
}

static Status open_first(const CudaLibrary *library, const KernelTable **ret, DeviceInfo *ret_info,
                         Error *err)
{
    char why[512] = "it does not say why";
    CudaDevice device = {.sm = 0};
    if (library->count(why, sizeof why) <= 0)
        return error_set(err, ERR_RESOURCE,
                         "there is no CUDA device: %s\nnvidia-smi shows what there is; a container "
                         "must be given its GPUs, and CUDA_VISIBLE_DEVICES may hide some.",
                         why);
    if (!library->describe(0, &device, why, sizeof why))
        return error_set(err, ERR_RESOURCE, "the CUDA device does not say what it is: %s", why);
    if (device.sm < SM_MIN)
        return error_set(err, ERR_UNSUPPORTED,
                         "the CUDA device %s has compute capability %d.%d, expected %d.%d or more "
                         "(A100, RTX 30 and later).\nShow another one in CUDA_VISIBLE_DEVICES.",
                         device.name, device.sm / 10, device.sm % 10, SM_MIN / 10, SM_MIN % 10);
    const KernelTable *kernels = library->open(0, why, sizeof why);
    if (kernels == NULL)
        return error_set(err, ERR_RESOURCE, "the CUDA device %s cannot be opened: %s", device.name,
                         why);
    if (kernels->graphs != NULL && kernels->graphs->bytes != sizeof(DeviceGraphs))
        return error_set(
            err, ERR_UNSUPPORTED,
            "the CUDA library has a table of graphs of %zu bytes, expected %zu bytes.\n"
            "Build it and this program from the same source.",
            kernels->graphs->bytes, sizeof(DeviceGraphs));
    if (ret_info != NULL) {
        describe(&device, ret_info);
        ret_info->streams = library->streams();
        ret_info->memory = library->memory();
    }
    *ret = kernels;
    return OK;
}

/* A library that was loaded stays, fit or not: its runtime may have left threads and exit handlers
 * behind. */
static Status open_cuda(const DeviceOptions *options, const KernelTable **ret, DeviceInfo *ret_info,
                        Error *err)
{
    void *library = NULL;
    char path[PATH_MAX] = "";
    const CudaLibrary *table = NULL;
    TRY(load(options, &library, path, err));
    TRY(read_table(library, path, &table, err));
    return open_first(table, ret, ret_info, err);
}

static void open_cpu(const DeviceOptions *options, const KernelTable **ret, DeviceInfo *ret_info)
{
    *ret = cpu_kernels(options->num_threads);
    if (ret_info == NULL) return;
    *ret_info = (DeviceInfo){.name = "CPU",
                             .memory_total =
                                 (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE),
                             .memory_free = memory_available(),
                             .note = cpu_kernels_note()};
    snprintf(ret_info->text, sizeof ret_info->text, "CPU, %d thread%s", options->num_threads,
             plural(options->num_threads));
}

Status device_open(DeviceKind kind, const DeviceOptions *options, const KernelTable **ret,
                   DeviceInfo *ret_info, Error *err)
{
    if (kind == DEVICE_CUDA) return open_cuda(options, ret, ret_info, err);
    open_cpu(options, ret, ret_info);
    return OK;
}
