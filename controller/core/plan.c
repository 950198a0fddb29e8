#include "core/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

void plan_clear(Plan *plan)
{
    free(plan->passed);
    free(plan->sample);
    free(plan->micro_batch);
    free(plan->rank_first);
    *plan = (Plan){0};
}

void plan_pass_over(Plan *plan, int64_t position, const char *why)
{
    if ((plan->rejected & (plan->rejected - 1)) == 0) { /* full: 0, 1, 2, 4 ... */
        size_t room = plan->rejected > 0 ? 2 * (size_t)plan->rejected : 1;
        plan->passed = mem_realloc(plan->passed, room, sizeof *plan->passed);
    }
    plan->passed[plan->rejected++] = (PassedOver){position, why};
}

static int by_position(const void *a, const void *b)
{
    const PlannedSample *x = a, *y = b;
    if (x->position != y->position) return x->position < y->position ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static int by_length_descending(const void *a, const void *b)
{
    const PlannedSample *x = a, *y = b;
    if (x->length != y->length) return (x->length < y->length) - (x->length > y->length);
    return by_position(a, b);
}

static void add_group(const Stream *stream, int64_t position, int source, Plan *plan)
{
    const Slot *slot = stream_slot(stream, position);
    const SampleMeta *sample = stream_samples(stream, position);
    for (int i = 0; i < slot->samples; i++) {
        if (!sample_meta_trains(&sample[i])) continue;
        plan->sample[plan->num_samples++] = (PlannedSample){
            .position = sample[i].position,
            .index = sample[i].index,
            .holder = slot->worker,
            .source = source,
            .length = sample[i].length,
            .trained_tokens = sample[i].trained_tokens,
            .truncated = sample[i].status == SAMPLE_TRUNCATED,
            .right = sample[i].right,
            .reward = sample[i].reward,
            .weight_version = sample[i].weight_version,
            .work = sample[i].work,
        };
        plan->trained_tokens += sample[i].trained_tokens;
    }
    plan->num_groups++;
}

/* What went wrong on the way to a group, trained or not. */
static void count_losses(const Stream *stream, int64_t position, Plan *plan)
{
    const SampleMeta *sample = stream_samples(stream, position);
    for (int i = 0; i < stream_slot(stream, position)->samples; i++) {
        bool rejected = sample[i].status == SAMPLE_REJECTED;
        plan->unjudged += rejected && sample[i].reject_reason == REJECT_UNJUDGED;
        plan->failed += rejected && sample[i].reject_reason == REJECT_FAILED;
        plan->retries += sample[i].work.retries;
    }
}

/* The first sample speaks for its record, as records_consumed has it. */
static const char *why_rejected(const Stream *stream, int64_t position)
{
    RejectReason reason = stream_samples(stream, position)->reject_reason;
    return reason != REJECT_NONE ? reject_reason_name(reason)
                                 : group_verdict_name(stream_slot(stream, position)->verdict);
}

/* Collects the first accepted groups from `from` on. */
static PlanOutcome collect(const Stream *stream, int64_t from, const PlanOptions *options,
                           Plan *plan)
{
    int64_t position = from;
    InterleaveCursor turns = {0};
    if (stream->turns != NULL) turns = interleave_cursor(&stream->turns->mix, (uint64_t)from);
    while (plan->num_groups < options->num_groups && position < stream->end) {
        bool fresh = options->epoch > 0 && position % options->epoch == 0;
        if (fresh && plan->num_groups > 0) break; /* another epoch begins */
        const Slot *slot = stream_slot(stream, position);
        if (slot == NULL) return PLAN_CROWDED;
        if (slot->state == SLOT_FREE || slot->state == SLOT_LEASED) return PLAN_WAITS;
        int source = stream->turns != NULL ? interleave_next(&turns).source : 0;
        count_losses(stream, position, plan);
        if (position == from || slot->leased_ms < plan->begun_ms) plan->begun_ms = slot->leased_ms;
        if (slot->done_ms > plan->done_ms) plan->done_ms = slot->done_ms;
        if (slot->state == SLOT_REJECTED) {
            plan_pass_over(plan, position, why_rejected(stream, position));
            plan->dropped[slot->verdict]++;
        } else {
            add_group(stream, position, source, plan);
        }
        position++;
    }
    bool enough = plan->num_groups == options->num_groups;
    if (!enough && !(options->allow_fewer && plan->num_groups > 0)) return PLAN_ENDS;
    plan->first_position = from;
    plan->end_position = position;
    return PLAN_MADE;
}

/* ---- over ranks ---- */

/* The ranks as a heap: the least loaded first, of equals the lowest. */
typedef struct RankHeap {
    int *rank;     /* [count] */
    int64_t *load; /* by rank */
    int count;
} RankHeap;

static bool comes_first(const RankHeap *heap, int a, int b)
{
    int64_t x = heap->load[heap->rank[a]], y = heap->load[heap->rank[b]];
    return x != y ? x < y : heap->rank[a] < heap->rank[b];
}

/* The first rank has got more to do. */
static void sink_first(RankHeap *heap)
{
    for (int at = 0;;) {
        int least = at;
        for (int child = 2 * at + 1; child <= 2 * at + 2 && child < heap->count; child++)
            if (comes_first(heap, child, least)) least = child;
        if (least == at) return;
        int other = heap->rank[at];
        heap->rank[at] = heap->rank[least];
        heap->rank[least] = other;
        at = least;
    }
}

/* Groups `count` samples by group[i], keeping their order; first[g] is where group g begins. */
static void group_samples(PlannedSample *sample, int count, const int *group, int num_groups,
                          int *first)
{
    PlannedSample *grouped = mem_calloc((size_t)count + 1, sizeof *grouped);
    int *next = mem_calloc((size_t)num_groups + 1, sizeof *next);
    for (int i = 0; i < count; i++)
        next[group[i] + 1]++;
    for (int g = 0; g < num_groups; g++)
        next[g + 1] += next[g];
    memcpy(first, next, ((size_t)num_groups + 1) * sizeof *first);
    for (int i = 0; i < count; i++)
        grouped[next[group[i]]++] = sample[i];
    memcpy(sample, grouped, (size_t)count * sizeof *grouped);
    free(next);
    free(grouped);
}

/* Sorts the samples [first, end), longest first, and gives each a rank; what it gets of other
 * updates does not count, as ranks wait for each other in each. */
static void balance(Plan *plan, int first, int end, int *rank)
{
    int dp_size = plan->dp_size;
    RankHeap heap = {.rank = mem_calloc((size_t)dp_size, sizeof *heap.rank),
                     .load = mem_calloc((size_t)dp_size, sizeof *heap.load),
                     .count = dp_size};
    for (int r = 0; r < dp_size; r++)
        heap.rank[r] = r;
    qsort(plan->sample + first, (size_t)(end - first), sizeof *plan->sample, by_length_descending);
    for (int i = first; i < end; i++) {
        rank[i] = heap.rank[0];
        heap.load[rank[i]] += plan->sample[i].length;
        sink_first(&heap);
    }
    free(heap.load);
    free(heap.rank);
}

/* Samples come by position. Returns where the ones of update u end that begin at `from`; *group is
 * how many groups came before and is moved on. */
static int end_of_update(const Plan *plan, int from, int u, int each, int *group)
{
    int at = from;
    while (at < plan->num_samples && update_of_group(*group, each) == u) {
        int64_t position = plan->sample[at].position;
        while (at < plan->num_samples && plan->sample[at].position == position)
            at++;
        ++*group;
    }
    return at;
}

/* Sorts the samples by data-parallel rank and, within it, by update, in place; first[r * updates +
 * u] is where those of update u on rank r begin. */
static void share_out(Plan *plan, int groups_of_update, int *first)
{
    int updates = updates_of_groups(plan->num_groups, groups_of_update);
    int *share = mem_calloc((size_t)plan->num_samples + 1, sizeof *share);
    for (int u = 0, begin = 0, group = 0; u < updates; u++) {
        int end = end_of_update(plan, begin, u, groups_of_update, &group);
        balance(plan, begin, end, share);
        for (int i = begin; i < end; i++)
            share[i] = share[i] * updates + u;
        begin = end;
    }
    group_samples(plan->sample, plan->num_samples, share, plan->dp_size * updates, first);
    free(share);
}

/* ---- into micro-batches ---- */

/* Bins of equal size as a tournament tree: an inner node knows the most room below it, so the first
 * bin that has room for something is found in the depth of the tree. */
typedef struct Bins {
    int64_t *room; /* [2 * width]: node n has children 2n and 2n + 1, bin b is node width + b */
    int width;     /* a power of two */
} Bins;

static Bins bins_make(int count, int64_t size)
{
    Bins bins = {.width = 1};
    while (bins.width < count)
        bins.width *= 2;
    bins.room = mem_calloc(2 * (size_t)bins.width, sizeof *bins.room);
    for (int node = 0; node < 2 * bins.width; node++)
        bins.room[node] = size;
    return bins;
}

/* The first bin with room for `length`, which takes it. */
static int bins_put(Bins *bins, int64_t length)
{
    int node = 1;
    while (node < bins->width)
        node = bins->room[2 * node] >= length ? 2 * node : 2 * node + 1;
    int bin = node - bins->width;
    bins->room[node] -= length;
    for (node /= 2; node > 0; node /= 2) {
        int64_t left = bins->room[2 * node], right = bins->room[2 * node + 1];
        bins->room[node] = left > right ? left : right;
    }
    return bin;
}

/* Packs the samples [first, first + count), which come longest first, into bins of at most
 * max_tokens (one that is longer stands alone), and lays the bins out one after the other. */
static void pack_by_tokens(Plan *plan, int first, int count, int64_t max_tokens)
{
    if (count == 0) return;
    PlannedSample *sample = plan->sample + first;
    Bins bins = bins_make(count, max_tokens);
    int *bin = mem_calloc((size_t)count, sizeof *bin);
    int *begin = mem_calloc((size_t)count + 1, sizeof *begin);
    int num_bins = 0;
    for (int i = 0; i < count; i++) {
        bool alone = sample[i].length > max_tokens; /* it fills a bin, and all of it */
        bin[i] = bins_put(&bins, alone ? max_tokens : sample[i].length);
        if (bin[i] == num_bins) num_bins++;
    }
    group_samples(sample, count, bin, num_bins, begin);
    for (int b = 0; b < num_bins; b++) {
        int size = begin[b + 1] - begin[b];
        qsort(sample + begin[b], (size_t)size, sizeof *sample, by_position);
        plan->micro_batch[plan->num_micro_batches++] =
            (MicroBatchPlan){.first = first + begin[b], .count = size};
    }
    free(begin);
    free(bin);
    free(bins.room);
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
    CHECK(options->num_groups > 0 && options->dp_size > 0);
    Plan plan = {.set = stream->set, .dp_size = options->dp_size, .group_size = stream->group_size};
    plan.sample =
        mem_calloc((size_t)options->num_groups * (size_t)stream->group_size, sizeof *plan.sample);
    PlanOutcome outcome = collect(stream, from, options, &plan);
    if (outcome != PLAN_MADE) {
        plan_clear(&plan);
        return outcome;
    }
    int updates = updates_of_groups(plan.num_groups, options->groups_of_update);
    int shares = plan.dp_size * updates;
    int *first = mem_calloc((size_t)shares + 1, sizeof *first);
    plan.micro_batch = mem_calloc((size_t)plan.num_samples, sizeof *plan.micro_batch);
    plan.rank_first = mem_calloc((size_t)plan.dp_size + 1, sizeof *plan.rank_first);
    share_out(&plan, options->groups_of_update, first);
    for (int s = 0; s < shares; s++) {
        int count = first[s + 1] - first[s];
        if (options->micro_batch_size > 0)
            pack_by_count(&plan, first[s], count, options->micro_batch_size);
        else
            pack_by_tokens(&plan, first[s], count, options->max_tokens);
        plan.rank_first[s / updates + 1] = plan.num_micro_batches;
    }
    free(first);
    *ret_plan = plan;
    return PLAN_MADE;
}
