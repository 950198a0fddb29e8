/* RowList: what a KEY_ROWS key holds; rows.h reads and writes it. Plain data. */
#ifndef TROUPE_CONFIG_ROW_LIST_H
#define TROUPE_CONFIG_ROW_LIST_H

#include <stdint.h>

/* Every row's struct begins with one. */
typedef struct RowHead {
    char *name;     /* owned; letters, digits, '.', '_' and '-' */
    char *path;     /* "eval.sets.gsm8k", owned */
    uint64_t given; /* bit i: key i of the table was written */
} RowHead;

typedef struct RowList {
    void *row; /* [count] structs, owned; in the order written */
    int count;
} RowList;

#endif
