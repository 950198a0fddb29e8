#include "model/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

Batch *batch_create(void)
{
    Batch *batch = mem_calloc(1, sizeof *batch);
    batch->cu_seqlens = mem_calloc(1, sizeof *batch->cu_seqlens);
    batch->first_page = mem_calloc(1, sizeof *batch->first_page);
    return batch;
}

void batch_destroy(Batch *batch)
{
    if (batch == NULL) return;
    free(batch->token);
    free(batch->position);
    free(batch->slot);
    free(batch->cu_seqlens);
    free(batch->first_position);
    free(batch->first_page);
    free(batch->page);
    free(batch->target_row);
    free(batch->target);
    free(batch->temperature);
    mirror_destroy(&batch->placed);
    free(batch);
}

void batch_clear(Batch *batch)
{
    batch->num_rows = batch->num_targets = batch->last_targets = 0;
    batch->num_sequences = 0;
    batch->device = (BatchOnDevice){0};
}

static void reserve_rows(Batch *batch, int64_t rows)
{
    if (rows <= batch->capacity_rows) return;
    CHECK(rows <= INT32_MAX);
    if (rows < 2 * batch->capacity_rows) rows = 2 * batch->capacity_rows;
    size_t n = (size_t)rows;
    batch->token = mem_realloc(batch->token, n, sizeof *batch->token);
    batch->position = mem_realloc(batch->position, n, sizeof *batch->position);
    batch->slot = mem_realloc(batch->slot, n, sizeof *batch->slot);
    batch->target_row = mem_realloc(batch->target_row, n, sizeof *batch->target_row);
    batch->target = mem_realloc(batch->target, n, sizeof *batch->target);
    batch->temperature = mem_realloc(batch->temperature, n, sizeof *batch->temperature);
    batch->capacity_rows = rows;
}

static void reserve_sequences(Batch *batch, int count)
{
    if (count <= batch->capacity_sequences) return;
    if (count < 2 * batch->capacity_sequences) count = 2 * batch->capacity_sequences;
    size_t n = (size_t)count;
    batch->cu_seqlens = mem_realloc(batch->cu_seqlens, n + 1, sizeof *batch->cu_seqlens);
    batch->first_position = mem_realloc(batch->first_position, n, sizeof *batch->first_position);
    batch->first_page = mem_realloc(batch->first_page, n + 1, sizeof *batch->first_page);
    batch->capacity_sequences = count;
}

static void reserve_pages(Batch *batch, int count)
{
    if (count <= batch->capacity_pages) return;
    batch->capacity_pages = 2 * count;
    batch->page = mem_realloc(batch->page, (size_t)batch->capacity_pages, sizeof *batch->page);
}

static void add_pages(Batch *batch, int index, const int32_t *page, int count)
{
    int32_t begin = batch->first_page[index];
    reserve_pages(batch, begin + count);
    for (int i = 0; i < count; i++)
        batch->page[begin + i] = page[i];
    batch->first_page[index + 1] = begin + count;
}

void batch_resize(Batch *batch, int64_t rows, int sequences, int pages)
{
    batch_clear(batch);
    reserve_rows(batch, rows);
    reserve_sequences(batch, sequences);
    reserve_pages(batch, pages);
    batch->num_rows = rows;
    batch->num_sequences = sequences;
}

void batch_add_chunk(Batch *batch, const int32_t *token, int64_t length, int64_t first_position,
                     const int32_t *page, int num_pages)
{
    CHECKF(length >= 1, "a sequence of %lld tokens", (long long)length);
    CHECK(first_position >= 0 && first_position + length <= INT32_MAX);
    int64_t begin = batch->num_rows;
    batch->device = (BatchOnDevice){0};
    reserve_rows(batch, begin + length);
    reserve_sequences(batch, batch->num_sequences + 1);
    for (int64_t i = 0; i < length; i++) {
        batch->token[begin + i] = token[i];
        batch->position[begin + i] = (int32_t)(first_position + i);
    }
    int index = batch->num_sequences++;
    batch->num_rows += length;
    batch->cu_seqlens[index] = (int32_t)begin;
    batch->cu_seqlens[index + 1] = (int32_t)batch->num_rows;
    batch->first_position[index] = (int32_t)first_position;
    add_pages(batch, index, page, num_pages);
}

void batch_add(Batch *batch, const int32_t *token, const uint8_t *loss_mask, int64_t length)
{
    int64_t begin = batch->num_rows, first_target = batch->num_targets;
    batch_add_chunk(batch, token, length, 0, NULL, 0);
    for (int64_t i = 1; loss_mask != NULL && i < length; i++) {
        if (!loss_mask[i]) continue;
        batch->target_row[batch->num_targets] = (int32_t)(begin + i - 1);
        batch->target[batch->num_targets] = token[i];
        batch->temperature[batch->num_targets] = 1.0f;
        batch->num_targets++;
    }
    batch->last_targets = batch->num_targets - first_target;
}

void batch_set_temperature(Batch *batch, float temperature)
{
    for (int64_t i = batch->num_targets - batch->last_targets; i < batch->num_targets; i++)
        batch->temperature[i] = temperature;
}

/* ---- on the device ---- */

#define NUM_ARRAYS 10

/* The arrays in BatchOnDevice's order; all of 4-byte elements. */
typedef struct PlacedArray {
    const void *from;
    size_t count;
} PlacedArray;

/* Where the arrays are, in BatchOnDevice's order: where they lie, or in the device's memory. */
static void place_arrays(Batch *batch, const KernelTable *kernels, const PlacedArray *array,
                         const void **ret)
{
    size_t first[NUM_ARRAYS + 1] = {0};
    for (int i = 0; i < NUM_ARRAYS; i++) {
        ret[i] = array[i].from;
        first[i + 1] = first[i] + (array[i].count * sizeof(int32_t) + 15) / 16 * 16;
    }
    if (kernels->host_memory) return;
    mirror_reserve(&batch->placed, kernels, first[NUM_ARRAYS]);
    for (int i = 0; i < NUM_ARRAYS; i++) {
        if (array[i].count > 0)
            memcpy(batch->placed.host + first[i], array[i].from, array[i].count * sizeof(int32_t));
        ret[i] = batch->placed.device + first[i];
    }
    mirror_push(&batch->placed, 0, first[NUM_ARRAYS]);
}

void batch_fill_slots(Batch *batch)
{
    if (batch->first_page[batch->num_sequences] == 0) return;
    for (int i = 0; i < batch->num_sequences; i++) {
        const int32_t *page = batch->page + batch->first_page[i];
        int32_t pages = batch->first_page[i + 1] - batch->first_page[i];
        for (int32_t row = batch->cu_seqlens[i]; row < batch->cu_seqlens[i + 1]; row++) {
            int32_t position = batch->first_position[i] + row - batch->cu_seqlens[i];
            int32_t at = position / KV_PAGE;
            batch->slot[row] = at < pages ? page[at] * KV_PAGE + position % KV_PAGE : -1;
        }
    }
}

void batch_place(Batch *batch, const KernelTable *kernels)
{
    size_t rows = (size_t)batch->num_rows, targets = (size_t)batch->num_targets;
    size_t sequences = (size_t)batch->num_sequences;
    const PlacedArray array[NUM_ARRAYS] = {
        {batch->token, rows},
        {batch->position, rows},
        {batch->cu_seqlens, sequences + 1},
        {batch->first_position, sequences},
        {batch->first_page, sequences + 1},
        {batch->page, (size_t)batch->first_page[sequences]},
        {batch->target_row, targets},
        {batch->target, targets},
        {batch->temperature, targets},
        {batch->slot, batch->first_page[sequences] > 0 ? rows : 0},
    };
    const void *at[NUM_ARRAYS];
    batch_fill_slots(batch);
    place_arrays(batch, kernels, array, at);
    batch->device = (BatchOnDevice){.token = at[0],
                                    .position = at[1],
                                    .cu_seqlens = at[2],
                                    .first_position = at[3],
                                    .first_page = at[4],
                                    .page = at[5],
                                    .target_row = at[6],
                                    .target = at[7],
                                    .temperature = at[8],
                                    .slot = at[9]};
}

SequenceTable batch_sequences(const Batch *batch)
{
    return (SequenceTable){
        .num_sequences = batch->num_sequences,
        .cu_seqlens = batch->device.cu_seqlens,
        .first_position = batch->device.first_position,
        .host_cu_seqlens = batch->cu_seqlens,
        .host_first_position = batch->first_position,
    };
}

double batch_squared_lengths(const Batch *batch)
{
    double sum = 0.0;
    for (int i = 0; i < batch->num_sequences; i++) {
        double length = batch->cu_seqlens[i + 1] - batch->cu_seqlens[i];
        sum += length * (length + 2.0 * batch->first_position[i]);
    }
    return sum;
}
