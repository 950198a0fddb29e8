/* IntList: what a KEY_INTS key holds; table.h reads and writes it. Plain data. */
#ifndef TROUPE_CONFIG_INT_LIST_H
#define TROUPE_CONFIG_INT_LIST_H

#include <stdint.h>

typedef struct IntList {
    int64_t *item; /* [count], owned */
    int count;
} IntList;

#endif
