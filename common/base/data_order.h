/* DataOrder: in which order the records of a data set come, as a job says it. What the orders are,
 * dataset/stream.h has. */
#ifndef TROUPE_BASE_DATA_ORDER_H
#define TROUPE_BASE_DATA_ORDER_H

#include <stdint.h>

typedef enum {
    ORDER_FILES,  /* as the files have them */
    ORDER_FULL,   /* any record anywhere in its epoch */
    ORDER_WINDOW, /* pieces of the files anywhere, their records among those of near pieces */
    ORDER_HF,     /* that of the package `datasets` */
} OrderKind;

/* Releases of `datasets` that stream records in orders of their own. */
typedef enum {
    HF_4_3, /* up to 4.3 */
    HF_4_8, /* 4.4 to 4.8 */
    HF_5_0, /* 5.0 */
    HF_5_2, /* 5.1 and 5.2 */
    HF_RELEASES
} HfRelease;

typedef struct DataOrder {
    OrderKind kind;
    int64_t window_mb;      /* ORDER_WINDOW: of 2^20 bytes of the files */
    HfRelease hf_release;   /* ORDER_HF */
    int64_t hf_buffer_size; /* ORDER_HF: of its shuffle buffer, in records */
} DataOrder;

#endif
