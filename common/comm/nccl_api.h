/* NCCL's C API, as much of it as comm_nccl.c uses, and how it is loaded: libnccl.so.2 by dlopen,
 * when the first group wants it, so that one build serves machines with and without it and nothing
 * links it. There is no library of ours in between: what it would hold is host code that needs
 * nothing but these functions. Private to common/comm and its tests.
 *
 * The declarations are ours, for builds without a CUDA toolkit; NCCL keeps its ABI within version
 * 2, and tests/comm/nccl_header.c holds them against nccl.h where one is found. */
#ifndef TROUPE_COMM_NCCL_API_H
#define TROUPE_COMM_NCCL_API_H

#include <limits.h>
#include <stddef.h>

#include "base/error.h"

#define NCCL_LIBRARY  "libnccl.so.2"
#define NCCL_VARIABLE "TROUPE_NCCL_LIBRARY"
/* Since 2.19.1 ncclCommAbort may be called while another thread is in a call (NVIDIA/nccl#992). */
#define NCCL_VERSION_MIN 21901

typedef struct NcclHandle NcclHandle; /* ncclComm_t is NcclHandle * */

typedef struct NcclUniqueId {
    char internal[128];
} NcclUniqueId;

typedef enum {
    NCCL_SUCCESS,
    NCCL_UNHANDLED_CUDA_ERROR,
    NCCL_SYSTEM_ERROR,
    NCCL_INTERNAL_ERROR,
    NCCL_INVALID_ARGUMENT,
    NCCL_INVALID_USAGE,
    NCCL_REMOTE_ERROR,
    NCCL_IN_PROGRESS,
} NcclResult;

typedef enum { NCCL_UINT8 = 1 } NcclType;

/* ncclConfig_t of 2.19; a later library takes what it lacks for undefined. */
typedef struct NcclConfig {
    size_t size;
    unsigned magic, version;
    int blocking, cga_cluster_size, min_ctas, max_ctas;
    const char *net_name;
    int split_share;
    int traffic_class; /* 2.25's; padding before */
} NcclConfig;

#define NCCL_CONFIG_VERSION 21900
#define NCCL_CONFIG_MAGIC   0xcafebeefu
#define NCCL_UNDEFINED      INT_MIN

/* Streams are cudaStream_t. Every call may return NCCL_IN_PROGRESS; comm_get_async_error says when
 * it is through, and no other call may be made on the communicator before. */
typedef struct NcclApi {
    NcclResult (*get_version)(int *version);
    NcclResult (*get_unique_id)(NcclUniqueId *id);
    NcclResult (*comm_init_rank_config)(NcclHandle **comm, int size, NcclUniqueId id, int rank,
                                        NcclConfig *config);
    NcclResult (*comm_finalize)(NcclHandle *comm);
    NcclResult (*comm_destroy)(NcclHandle *comm);
    NcclResult (*comm_abort)(NcclHandle *comm);
    NcclResult (*comm_get_async_error)(NcclHandle *comm, NcclResult *error);
    const char *(*get_error_string)(NcclResult result);
    const char *(*get_last_error)(NcclHandle *comm);
    NcclResult (*all_gather)(const void *in, void *out, size_t count, NcclType type,
                             NcclHandle *comm, void *stream);
    NcclResult (*broadcast)(const void *in, void *out, size_t count, NcclType type, int root,
                            NcclHandle *comm, void *stream);
    NcclResult (*send)(const void *data, size_t count, NcclType type, int peer, NcclHandle *comm,
                       void *stream);
    NcclResult (*recv)(void *data, size_t count, NcclType type, int peer, NcclHandle *comm,
                       void *stream);
    NcclResult (*group_start)(void);
    NcclResult (*group_end)(void);
    int version; /* 22809 is 2.28.9 */
} NcclApi;

/* Loads NCCL for good; `library` NULL: the file that the environment names in NCCL_VARIABLE, or
 * NCCL_LIBRARY, where the system finds it. ERR_UNSUPPORTED when it is not there, too old, or not
 * NCCL; ret is untouched then. */
Status nccl_api_load(const char *library, NcclApi *ret, Error *err);

/* A configuration of a communicator none of whose calls blocks. */
NcclConfig nccl_config(void);

/* Of a result other than success and in progress. */
Status nccl_status(NcclResult result);

#endif
