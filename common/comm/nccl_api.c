#include "comm/nccl_api.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* Where a function's address goes. */
typedef struct Symbol {
    const char *name;
    size_t place; /* in NcclApi */
} Symbol;

static const Symbol symbols[] = {
    {"ncclGetUniqueId", offsetof(NcclApi, get_unique_id)},
    {"ncclCommInitRankConfig", offsetof(NcclApi, comm_init_rank_config)},
    {"ncclCommFinalize", offsetof(NcclApi, comm_finalize)},
    {"ncclCommDestroy", offsetof(NcclApi, comm_destroy)},
    {"ncclCommAbort", offsetof(NcclApi, comm_abort)},
    {"ncclCommGetAsyncError", offsetof(NcclApi, comm_get_async_error)},
    {"ncclGetErrorString", offsetof(NcclApi, get_error_string)},
    {"ncclGetLastError", offsetof(NcclApi, get_last_error)},
    {"ncclAllGather", offsetof(NcclApi, all_gather)},
    {"ncclBroadcast", offsetof(NcclApi, broadcast)},
    {"ncclSend", offsetof(NcclApi, send)},
    {"ncclRecv", offsetof(NcclApi, recv)},
    {"ncclGroupStart", offsetof(NcclApi, group_start)},
    {"ncclGroupEnd", offsetof(NcclApi, group_end)},
};
#define SYMBOLS (sizeof symbols / sizeof symbols[0])

static bool find(void *library, const char *name, NcclApi *api, size_t place)
{
    void *address = dlsym(library, name);
    memcpy((char *)api + place, &address, sizeof address);
    return address != NULL;
}

static Status find_all(void *library, const char *name, NcclApi *api, Error *err)
{
    int version = 0;
    if (!find(library, "ncclGetVersion", api, offsetof(NcclApi, get_version)))
        return error_set(err, ERR_UNSUPPORTED, "%s is not NCCL: it has no ncclGetVersion", name);
    NcclResult result = api->get_version(&version);
    if (result != NCCL_SUCCESS)
        return error_set(err, ERR_UNSUPPORTED, "%s does not tell its version (NCCL error %d)", name,
                         (int)result);
    if (version < NCCL_VERSION_MIN || version >= 30000)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s is NCCL %d.%d.%d; from 2.19.1 on, and below 3, is what works: before, "
                         "a group could not be aborted while a call was under way",
                         name, version < 10000 ? version / 1000 : version / 10000,
                         version < 10000 ? version / 100 % 10 : version / 100 % 100, version % 100);
    api->version = version;
    for (size_t i = 0; i < SYMBOLS; i++)
        if (!find(library, symbols[i].name, api, symbols[i].place))
            return error_set(err, ERR_UNSUPPORTED, "%s (NCCL %d) has no %s", name, version,
                             symbols[i].name);
    return OK;
}

Status nccl_api_load(const char *name, NcclApi *ret, Error *err)
{
    NcclApi api;
    memset(&api, 0, sizeof api);
    if (name == NULL) name = getenv(NCCL_VARIABLE);
    if (name == NULL || name[0] == '\0') name = NCCL_LIBRARY;
    /* Never closed: threads of NCCL's own may still run in it. */
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return error_set(err, ERR_UNSUPPORTED,
                         "several GPUs work together through NCCL, which could not be loaded: %s. "
                         "Install NVIDIA's libnccl2, name its folder in LD_LIBRARY_PATH, or the "
                         "file in " NCCL_VARIABLE,
                         dlerror());
    TRY(find_all(library, name, &api, err));
    *ret = api;
    return OK;
}

NcclConfig nccl_config(void)
{
    return (NcclConfig){
        .size = sizeof(NcclConfig),
        .magic = NCCL_CONFIG_MAGIC,
        .version = NCCL_CONFIG_VERSION,
        .blocking = 0,
        .cga_cluster_size = NCCL_UNDEFINED,
        .min_ctas = NCCL_UNDEFINED,
        .max_ctas = NCCL_UNDEFINED,
        .net_name = NULL,
        .split_share = NCCL_UNDEFINED,
        .traffic_class = NCCL_UNDEFINED,
    };
}

Status nccl_status(NcclResult result)
{
    switch (result) {
    case NCCL_REMOTE_ERROR:
        return ERR_UNAVAILABLE;
    case NCCL_UNHANDLED_CUDA_ERROR:
    case NCCL_SYSTEM_ERROR:
        return ERR_RESOURCE;
    default:
        return ERR_INTERNAL;
    }
}
