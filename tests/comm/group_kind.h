/* How the groups of a test are made. */
#ifndef TROUPE_TESTS_COMM_GROUP_KIND_H
#define TROUPE_TESTS_COMM_GROUP_KIND_H

#include "comm/comm.h"

typedef struct GroupKind {
    Status (*id_create)(int size, size_t staging_bytes, CommId *ret, Error *err);
    Status (*create)(const CommId *id, int rank, int size, int timeout_ms, Comm **ret, Error *err);
} GroupKind;

#endif
