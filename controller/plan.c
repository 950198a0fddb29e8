#include "plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

void plan_clear(Plan *plan)
{
    free(plan->sample);
    free(plan->micro_batch);
    free(plan->rank_first);
    *plan = (Plan){0};
}

static int by_position(const void *a, const void *b)
{
    const PlannedSample *x = a, *y = b;
    return (x->position > y->position) - (x->position < y->position);
}

static int by_length_descending(const void *a, const void *b)
{
    const PlannedSample *x = a, *y = b;
    if (x->length != y->length) return (x->length < y->length) - (x->length > y->length);
    return by_position(a, b);
}

/* Collects the first accepted samples from `from` on. */
static PlanOutcome collect(const Stream *stream, int64_t from, const PlanOptions *options,
                           Plan *plan)
{
    int64_t position = from;
    while (plan->num_samples < options->num_samples && position < stream->end) {
        const Slot *slot = stream_slot(stream, position);
        if (slot == NULL) return PLAN_CROWDED;
        if (slot->state == SLOT_FREE || slot->state == SLOT_LEASED) return PLAN_WAITS;
        position++;
        if (slot->state == SLOT_REJECTED) {
            plan->rejected++;
            continue;
        }
        plan->sample[plan->num_samples++] = (PlannedSample){
            .position = slot->meta.position,
            .index = slot->meta.index,
            .holder = slot->worker,
            .length = slot->meta.length,
            .trained_tokens = slot->meta.trained_tokens,
        };
        plan->trained_tokens += slot->meta.trained_tokens;
    }
    bool enough = plan->num_samples == options->num_samples;
    if (!enough && !(options->allow_fewer && plan->num_samples > 0)) return PLAN_ENDS;
    plan->first_position = from;
    plan->end_position = position;
    return PLAN_MADE;
}

/* Sorts the samples by data-parallel rank, in place; first[r] is where rank r begins. */
static void balance(Plan *plan, int dp_size, int *first)
{
    int64_t *load = mem_calloc((size_t)dp_size, sizeof *load);
    int *count = mem_calloc((size_t)dp_size, sizeof *count);
    int *rank = mem_calloc((size_t)plan->num_samples, sizeof *rank);
    qsort(plan->sample, (size_t)plan->num_samples, sizeof *plan->sample, by_length_descending);
    for (int i = 0; i < plan->num_samples; i++) {
        for (int r = 1; r < dp_size; r++)
            if (load[r] < load[rank[i]]) rank[i] = r;
        load[rank[i]] += plan->sample[i].length;
        count[rank[i]]++;
    }
    PlannedSample *sorted = mem_calloc((size_t)plan->num_samples, sizeof *sorted);
    int *next = mem_calloc((size_t)dp_size, sizeof *next);
    for (int r = 0; r < dp_size; r++) {
        next[r] = first[r];
        first[r + 1] = first[r] + count[r];
    }
    for (int i = 0; i < plan->num_samples; i++)
        sorted[next[rank[i]]++] = plan->sample[i];
    free(plan->sample);
    plan->sample = sorted;
    free(next);
    free(rank);
    free(count);
    free(load);
}

/* Packs the samples [first, first + count), which come longest first, into bins of at most
 * max_tokens (one that is longer stands alone), and lays the bins out one after the other. */
static void pack_by_tokens(Plan *plan, int first, int count, int64_t max_tokens)
{
    int64_t *fill = mem_calloc((size_t)count + 1, sizeof *fill);
    int *bin = mem_calloc((size_t)count + 1, sizeof *bin);
    int num_bins = 0;
    for (int i = 0; i < count; i++) {
        int32_t length = plan->sample[first + i].length;
        int b = 0;
        while (b < num_bins && fill[b] + length > max_tokens)
            b++;
        if (b == num_bins) num_bins++;
        fill[b] += length;
        bin[i] = b;
    }
    PlannedSample *packed = mem_calloc((size_t)count + 1, sizeof *packed);
    int at = 0;
    for (int b = 0; b < num_bins; b++) {
        int begin = at;
        for (int i = 0; i < count; i++)
            if (bin[i] == b) packed[at++] = plan->sample[first + i];
        qsort(packed + begin, (size_t)(at - begin), sizeof *packed, by_position);
        plan->micro_batch[plan->num_micro_batches++] =
            (MicroBatchPlan){.first = first + begin, .count = at - begin};
    }
    memcpy(plan->sample + first, packed, (size_t)count * sizeof *packed);
    free(packed);
    free(bin);
    free(fill);
}

static void pack_by_count(Plan *plan, int first, int count, int micro_batch_size)
{
    qsort(plan->sample + first, (size_t)count, sizeof *plan->sample, by_position);
    for (int at = 0; at < count; at += micro_batch_size) {
        int size = count - at < micro_batch_size ? count - at : micro_batch_size;
        plan->micro_batch[plan->num_micro_batches++] =
            (MicroBatchPlan){.first = first + at, .count = size};
    }
}

PlanOutcome plan_make(const Stream *stream, int64_t from, const PlanOptions *options,
                      Plan *ret_plan)
{
    CHECK(options->num_samples > 0 && options->dp_size > 0);
    Plan plan = {.set = stream->set, .dp_size = options->dp_size};
    plan.sample = mem_calloc((size_t)options->num_samples, sizeof *plan.sample);
    PlanOutcome outcome = collect(stream, from, options, &plan);
    if (outcome != PLAN_MADE) {
        plan_clear(&plan);
        return outcome;
    }
    int *first = mem_calloc((size_t)options->dp_size + 1, sizeof *first);
    plan.micro_batch = mem_calloc((size_t)plan.num_samples, sizeof *plan.micro_batch);
    plan.rank_first = mem_calloc((size_t)options->dp_size + 1, sizeof *plan.rank_first);
    balance(&plan, options->dp_size, first);
    for (int r = 0; r < options->dp_size; r++) {
        if (options->micro_batch_size > 0)
            pack_by_count(&plan, first[r], first[r + 1] - first[r], options->micro_batch_size);
        else
            pack_by_tokens(&plan, first[r], first[r + 1] - first[r], options->max_tokens);
        plan.rank_first[r + 1] = plan.num_micro_batches;
    }
    free(first);
    *ret_plan = plan;
    return PLAN_MADE;
}
