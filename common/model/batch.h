/* Batch: sequences packed one after the other into rows (token, position, sequence), with the rows
 * that carry loss. One form for training, evaluation, prefill, chunked prefill and decode. Grows as
 * needed; reuse it with batch_clear. Used by one thread. */
#ifndef TROUPE_MODEL_BATCH_H
#define TROUPE_MODEL_BATCH_H

#include "tensor/mirror.h"

/* The arrays of a batch where kernels find them: see Batch. */
typedef struct BatchOnDevice {
    const int32_t *token, *position, *cu_seqlens, *first_position, *first_page, *page, *slot;
    const int32_t *target_row, *target;
    const float *temperature;
} BatchOnDevice;

typedef struct Batch {
    int64_t num_rows, num_targets, last_targets; /* last: of the last sequence added */
    int num_sequences;
    int32_t *token, *position;    /* [num_rows] */
    int32_t *cu_seqlens;          /* [num_sequences + 1] */
    int32_t *first_position;      /* [num_sequences]; not 0: earlier keys stand in a cache */
    int32_t *first_page, *page;   /* [num_sequences + 1], and the pages themselves: of a KvCache */
    int32_t *slot;                /* [num_rows] KvPages.slot; set by batch_fill_slots */
    int32_t *target_row, *target; /* [num_targets]: row target_row[i] is to predict target[i] */
    float *temperature;           /* [num_targets]: what the target's logits are divided by */
    int64_t capacity_rows;
    int capacity_sequences, capacity_pages;
    BatchOnDevice device; /* as of the last batch_place */
    Mirror placed;        /* where the device has no host memory: what `device` points into */
} Batch;

Batch *batch_create(void);
void batch_destroy(Batch *batch); /* accepts NULL */
void batch_clear(Batch *batch);

/* Appends a sequence of length >= 1. loss_mask[t] says whether token t is predicted (by row t - 1;
 * loss_mask[0] has no row and is ignored), at temperature 1; NULL: no targets. */
void batch_add(Batch *batch, const int32_t *token, const uint8_t *loss_mask, int64_t length);

/* The temperature of the targets that the last batch_add appended. */
void batch_set_temperature(Batch *batch, float temperature);

/* Appends tokens that continue a sequence at `first_position`; its first `num_pages` pages hold
 * its keys and values, and have room for these. */
void batch_add_chunk(Batch *batch, const int32_t *token, int64_t length, int64_t first_position,
                     const int32_t *page, int num_pages);

/* Room for a batch whose arrays the caller fills itself, as with one that came from another rank.
 */
void batch_resize(Batch *batch, int64_t rows, int sequences, int pages);

/* Each row's place in its sequence's pages; batch_place does it. */
void batch_fill_slots(Batch *batch);

/* Brings the filled batch to the device. model_forward does it; who starts elsewhere, and changed
 * the batch since, calls it. */
void batch_place(Batch *batch, const KernelTable *kernels);

/* Of a placed batch. */
SequenceTable batch_sequences(const Batch *batch);
double batch_squared_lengths(const Batch *batch);

#endif
