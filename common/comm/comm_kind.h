/* What a kind of Comm implements; private to common/comm. comm.c checks types and sizes, so an
 * implementation gets what fits together. */
#ifndef TROUPE_COMM_COMM_KIND_H
#define TROUPE_COMM_COMM_KIND_H

#include "comm/comm.h"

/* What is reduced; moving calls count in bytes. */
typedef enum { ELEMENT_BYTE, ELEMENT_F32, ELEMENT_BF16, ELEMENT_F64, ELEMENT_COUNT } CommElement;

typedef struct CommReduction {
    CommElement element; /* not ELEMENT_BYTE */
    CommOp op;
} CommReduction;

typedef struct CommTable {
    const char *name;
    /* NULL, as `create`, where a device is needed (comm_create_nccl). */
    Status (*id_create)(int size, size_t staging_bytes, CommId *ret, Error *err);
    void (*id_discard)(const CommId *id);
    /* Rank and size are already checked against each other. */
    Status (*create)(const CommId *id, int rank, int size, int timeout_ms, Comm **ret, Error *err);
    void (*destroy)(Comm *comm);
    Status (*all_reduce)(Comm *comm, void *data, int64_t count, CommElement element, CommOp op,
                         Error *err);
    Status (*all_gather)(Comm *comm, void *out, const void *in, int64_t bytes, Error *err);
    Status (*reduce_scatter)(Comm *comm, void *out, const void *in, int64_t count,
                             CommElement element, Error *err);
    Status (*broadcast)(Comm *comm, void *data, int64_t bytes, int root, Error *err);
    Status (*barrier)(Comm *comm, Error *err);
    /* The peer is another rank; self has none. */
    Status (*send)(Comm *comm, Tensor tensor, int to, Error *err);
    Status (*recv)(Comm *comm, Tensor tensor, int from, Error *err);
    /* Of a kind whose calls are queued; NULL: they are done when they return, on the memory that
     * the host has too, and an all-reduce in two halves is one in its second. */
    Status (*all_reduce_start)(Comm *comm, void *data, int64_t count, CommElement element,
                               CommOp op, Error *err);
    Status (*all_reduce_finish)(Comm *comm, Error *err);
    Status (*broadcast_host)(Comm *comm, void *data, int64_t bytes, int root, Error *err);
    Status (*settle)(Comm *comm, Error *err);
    void (*abort)(Comm *comm);
    void (*describe_wait)(const Comm *comm, char *text, size_t size);
} CommTable;

/* The first member of every kind's own struct. */
struct Comm {
    const CommTable *table;
    int rank, size;
    int timeout_ms;
    /* An all-reduce between its halves; data is kept where the second half does it. */
    bool started;
    void *started_data;
    int64_t started_count;
    CommReduction started_how;
};

extern const CommTable comm_self_table, comm_shm_table, comm_nccl_table;

size_t comm_element_size(CommElement element);

/* destination[i] = the sum or maximum of source[0][i], source[1][i] ... source[size - 1][i],
 * taken in that order in f32 (f64 for f64) and rounded once. The destination may be one of the
 * sources. `copy` (may be NULL) receives the same values. Otherwise nothing overlaps. */
void comm_reduce_sources(void *destination, void *copy, const void *const *source, int size,
                         int64_t count, CommReduction how);

#endif
