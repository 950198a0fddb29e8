#include "rollout_worker/engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* Of the rows that go through the head at a time: 256 of a vocabulary of 152,000, so that a large
 * step reads the output matrix once. */
#define LOGITS_BYTES   ((int64_t)160 << 20)
#define CANDIDATES_MIN 8192
#define NUM_RESULTS    5

typedef struct Candidate {
    int32_t token;
    float logit;
} Candidate;

/* Arrays of a chunk of draws, in the order of kinds: greedy, whole, filtered. Mirrors [1 + tp_size,
 * ...] hold what is this rank's, then what all ranks have, in their order. */
struct Sampler {
    Model *model;
    Head *head;
    int max_draws, chunk, tp_size;
    int64_t columns, segments; /* of this rank */
    int32_t vocab_first;
    const Draw **draw; /* [chunk] */
    int32_t *index;    /* [chunk] its number in the caller's order */
    int32_t *row, *token;
    float *temperature, *max, *lse;
    double *mass_of;     /* [chunk] what top_p takes its share of */
    int32_t *number;     /* [tp_size, chunk] of candidates of each rank's columns of a row */
    Mirror changes;      /* LogitChange [num_changes] */
    Mirror first_change; /* int32 [chunk + 1] */
    int num_changes;
    Mirror segment;         /* f32 [chunk, segments] */
    Mirror place;           /* SoftmaxPlace [chunk] */
    Mirror column;          /* int32 [chunk] */
    Mirror total;           /* f64 [1 + tp_size, chunk] */
    Mirror drawn;           /* int32 [1 + tp_size, chunk] tokens, -1 where another rank has it */
    Mirror logit;           /* f32 [1 + tp_size, chunk] */
    Mirror mass;            /* f64 [1 + tp_size, chunk, SOFTMAX_BINS] */
    Mirror count;           /* int32, the same */
    Mirror last_bin;        /* int32 [chunk] */
    Mirror first_candidate; /* int64 [chunk] where a row's own candidates begin */
    Mirror candidates;      /* [1 + tp_size, 2, most]: tokens, then logits */
    Mirror asked;  /* of plain draws: f64 uniform, int32 row, f32 temperature [max_draws] */
    Mirror result; /* of plain draws [max_draws]: int32 token, f32 logit, lse, max, arg max */
    Candidate *candidate; /* of one row, all ranks */
    int64_t candidate_capacity;
};

/* ---- memory ---- */

static int64_t chunk_rows(const WeightPlan *plan, int max_draws)
{
    return head_chunk_rows(plan, max_draws, HEAD_CHUNK_ROWS, LOGITS_BYTES);
}

/* Candidates that a rank collects at a time: those of one row at least. */
static int64_t max_candidates(const WeightPlan *plan)
{
    int64_t widest = (plan->config.vocab_size + plan->tp_size - 1) / plan->tp_size;
    return widest > CANDIDATES_MIN ? widest : CANDIDATES_MIN;
}

/* Bytes of a Sampler's mirrors, but for changes: how many of these there are, requests say. */
typedef struct SamplerSizes {
    size_t first_change, segment, place, column, total, drawn, logit, mass, count, last_bin;
    size_t first_candidate, candidates, asked, result;
} SamplerSizes;

static SamplerSizes sizes_of(const WeightPlan *plan, size_t chunk, size_t max_draws)
{
    size_t ranks = 1 + (size_t)plan->tp_size;
    size_t segments = (size_t)softmax_num_segments(plan->spec[plan->lm_head].local_rows);
    return (SamplerSizes){
        .first_change = (chunk + 1) * sizeof(int32_t),
        .segment = chunk * segments * sizeof(float),
        .place = chunk * sizeof(SoftmaxPlace),
        .column = chunk * sizeof(int32_t),
        .total = ranks * chunk * sizeof(double),
        .drawn = ranks * chunk * sizeof(int32_t),
        .logit = ranks * chunk * sizeof(float),
        .mass = ranks * chunk * SOFTMAX_BINS * sizeof(double),
        .count = ranks * chunk * SOFTMAX_BINS * sizeof(int32_t),
        .last_bin = chunk * sizeof(int32_t),
        .first_candidate = chunk * sizeof(int64_t),
        .candidates = ranks * 2 * (size_t)max_candidates(plan) * sizeof(int32_t),
        .asked = max_draws * (sizeof(double) + sizeof(int32_t) + sizeof(float)),
        .result = max_draws * NUM_RESULTS * sizeof(float),
    };
}

int64_t sampler_bytes(const WeightPlan *plan, DType dtype, int max_draws)
{
    int64_t chunk = chunk_rows(plan, max_draws);
    SamplerSizes s = sizes_of(plan, (size_t)chunk, (size_t)max_draws);
    size_t all = s.first_change + s.segment + s.place + s.column + s.total + s.drawn + s.logit +
                 s.mass + s.count + s.last_bin + s.first_candidate + s.candidates + s.asked +
                 s.result;
    return head_bytes(plan, dtype, chunk, chunk, false) + (int64_t)all;
}

static void make_mirrors(Sampler *s, size_t chunk)
{
    SamplerSizes sizes = sizes_of(s->model->plan, chunk, (size_t)s->max_draws);
    const struct {
        Mirror *mirror;
        size_t bytes;
    } list[] = {
        {&s->first_change, sizes.first_change},
        {&s->segment, sizes.segment},
        {&s->place, sizes.place},
        {&s->column, sizes.column},
        {&s->total, sizes.total},
        {&s->drawn, sizes.drawn},
        {&s->logit, sizes.logit},
        {&s->mass, sizes.mass},
        {&s->count, sizes.count},
        {&s->last_bin, sizes.last_bin},
        {&s->first_candidate, sizes.first_candidate},
        {&s->candidates, sizes.candidates},
        {&s->asked, sizes.asked},
        {&s->result, sizes.result},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        *list[i].mirror = mirror_create(s->model->kernels, list[i].bytes);
}

Sampler *sampler_create(Model *model, int max_draws)
{
    Sampler *s = mem_calloc(1, sizeof *s);
    const WeightPlan *plan = model->plan;
    const WeightSpec *spec = &plan->spec[plan->lm_head];
    size_t chunk = (size_t)chunk_rows(plan, max_draws);
    s->model = model;
    s->head = head_create(model, (int64_t)chunk, (int64_t)chunk, false);
    s->chunk = (int)chunk;
    s->max_draws = max_draws;
    s->tp_size = plan->tp_size;
    s->columns = spec->local_rows;
    s->segments = softmax_num_segments(s->columns);
    s->vocab_first = (int32_t)weight_spec_part(spec, plan->tp_rank, plan->tp_size).first;
    s->draw = mem_calloc(chunk, sizeof *s->draw);
    int32_t **const ints[] = {&s->index, &s->row, &s->token};
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        *ints[i] = mem_calloc(chunk, sizeof **ints[i]);
    float **const floats[] = {&s->temperature, &s->max, &s->lse};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        *floats[i] = mem_calloc(chunk, sizeof **floats[i]);
    s->mass_of = mem_calloc(chunk, sizeof *s->mass_of);
    s->number = mem_calloc(chunk * (size_t)s->tp_size, sizeof *s->number);
    make_mirrors(s, chunk);
    return s;
}

void sampler_destroy(Sampler *s)
{
    if (s == NULL) return;
    head_destroy(s->head);
    Mirror *const mirrors[] = {&s->changes,    &s->first_change, &s->segment,  &s->place,
                               &s->column,     &s->total,        &s->drawn,    &s->logit,
                               &s->mass,       &s->count,        &s->last_bin, &s->first_candidate,
                               &s->candidates, &s->asked,        &s->result};
    for (size_t i = 0; i < sizeof mirrors / sizeof *mirrors; i++)
        mirror_destroy(mirrors[i]);
    void *const blocks[] = {s->draw, s->index, s->row,     s->token,  s->temperature,
                            s->max,  s->lse,   s->mass_of, s->number, s->candidate};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    free(s);
}

/* ---- what all ranks have ---- */

/* Of a mirror [1 + tp_size, stride] of elements of `size` bytes: the ranks' first `count` elements,
 * in their order and without gaps, from element `stride` on. `computed`: by the host. */
static Status gather(Sampler *s, const Mirror *mirror, int64_t stride, int64_t count, size_t size,
                     bool computed, Error *err)
{
    int64_t bytes = count * (int64_t)size;
    size_t all = (size_t)stride * size;
    if (s->tp_size == 1) {
        if (!computed) mirror_pull(mirror, 0, (size_t)bytes);
        memcpy(mirror->host + all, mirror->host, (size_t)bytes);
        return OK;
    }
    if (computed) mirror_push(mirror, 0, (size_t)bytes);
    TRY(model_all_gather(s->model, tensor_1d(mirror->device + all, DTYPE_U8, s->tp_size * bytes),
                         tensor_1d(mirror->device, DTYPE_U8, bytes), err));
    mirror_pull(mirror, all, (size_t)(s->tp_size * bytes));
    return model_settle(s->model, err);
}

/* This rank's columns of rows of the chunk. */
static Tensor rows_logits(const Sampler *s, int first, int count)
{
    float *logits = (float *)s->head->logits.data + first * s->columns;
    return tensor_2d(logits, DTYPE_F32, count, s->columns);
}

/* ---- edits ---- */

/* What of a draw's edits is this rank's. */
static void list_changes(Sampler *s, int row)
{
    const Draw *draw = s->draw[row];
    LogitChange *change = (LogitChange *)s->changes.host;
    for (int e = 0; e < draw->num_edits; e++) {
        const LogitEdit *edit = &draw->edit[e];
        int64_t column = (int64_t)edit->token - s->vocab_first;
        if (column < 0 || column >= s->columns) continue;
        change[s->num_changes++] = (LogitChange){.column = (int32_t)column,
                                                 .repetition = edit->repetition,
                                                 .subtract = edit->subtract / s->temperature[row]};
    }
}

/* Returns whether any rank has something to edit: the same on all. */
static bool apply_edits(Sampler *s, int count)
{
    int32_t *first = (int32_t *)s->first_change.host;
    size_t edits = 0;
    for (int i = 0; i < count; i++)
        edits += (size_t)s->draw[i]->num_edits;
    s->num_changes = 0;
    if (edits == 0) return false;
    mirror_reserve(&s->changes, s->model->kernels, edits * sizeof(LogitChange));
    for (int i = 0; i < count; i++) {
        first[i] = s->num_changes;
        list_changes(s, i);
    }
    first[count] = s->num_changes;
    mirror_push(&s->changes, 0, (size_t)s->num_changes * sizeof(LogitChange));
    mirror_push(&s->first_change, 0, (size_t)(count + 1) * sizeof *first);
    s->model->kernels->change_logits(rows_logits(s, 0, count), (LogitChange *)s->changes.device,
                                     (const int32_t *)s->first_change.device);
    return true;
}

static void undo_edits(Sampler *s, int count)
{
    if (s->num_changes == 0) return;
    s->model->kernels->restore_logits(rows_logits(s, 0, count),
                                      (const LogitChange *)s->changes.device,
                                      (const int32_t *)s->first_change.device);
}

/* ---- drawing from the whole softmax ---- */

/* The segment of a row's weights on this rank in which `left` lies, and how far into it. */
static SoftmaxPlace find_segment(const float *sum, int64_t segments, double left)
{
    SoftmaxPlace place = {.segment = -1};
    for (int64_t i = 0; i < segments; i++) {
        if (!(sum[i] > 0.0f)) continue;
        place = (SoftmaxPlace){i, left};
        if (left < (double)sum[i]) break;
        left -= (double)sum[i];
    }
    return place;
}

/* Which rank holds the token at *left on the axis of all ranks' weights, which becomes that on its
 * own. */
static int owner_of(const double *total, int stride, int tp_size, double *left)
{
    int owner = 0;
    for (int r = 0; r < tp_size; r++) {
        double mass = total[(int64_t)r * stride];
        if (!(mass > 0.0)) continue;
        owner = r;
        if (*left < mass) break;
        *left -= mass;
    }
    return owner;
}

/* Each draw's place among this rank's weights. */
static Status find_places(Sampler *s, int begin, int count, const float *device_max, Error *err)
{
    float *sum = (float *)s->segment.host;
    double *total = (double *)s->total.host, *all = total + s->chunk;
    SoftmaxPlace *place = (SoftmaxPlace *)s->place.host;
    s->model->kernels->softmax_segments((float *)s->segment.device, rows_logits(s, begin, count),
                                        device_max + begin);
    mirror_pull(&s->segment, 0, (size_t)(count * s->segments) * sizeof *sum);
    for (int i = 0; i < count; i++) {
        total[i] = 0.0;
        for (int64_t j = 0; j < s->segments; j++)
            total[i] += (double)sum[i * s->segments + j];
    }
    TRY(gather(s, &s->total, s->chunk, count, sizeof *total, true, err));
    for (int i = 0; i < count; i++) {
        double left = 0.0;
        for (int r = 0; r < s->tp_size; r++)
            left += all[(int64_t)r * count + i];
        left *= s->draw[begin + i]->uniform;
        bool mine = owner_of(all + i, count, s->tp_size, &left) == s->model->plan->tp_rank;
        place[i] = mine ? find_segment(sum + i * s->segments, s->segments, left)
                        : (SoftmaxPlace){.segment = -1};
    }
    mirror_push(&s->place, 0, (size_t)count * sizeof *place);
    return OK;
}

/* Draws [begin, begin + count) of the chunk. */
static Status draw_whole(Sampler *s, int begin, int count, const float *device_max, Error *err)
{
    if (count == 0) return OK;
    int32_t *column = (int32_t *)s->column.host, *token = (int32_t *)s->drawn.host;
    TRY(find_places(s, begin, count, device_max, err));
    s->model->kernels->softmax_find((int32_t *)s->column.device, rows_logits(s, begin, count),
                                    device_max + begin, (const SoftmaxPlace *)s->place.device);
    mirror_pull(&s->column, 0, (size_t)count * sizeof *column);
    for (int i = 0; i < count; i++)
        token[i] = column[i] < 0 ? -1 : column[i] + s->vocab_first;
    TRY(gather(s, &s->drawn, s->chunk, count, sizeof *token, true, err));
    for (int i = 0; i < count; i++) {
        s->token[begin + i] = -1;
        for (int r = 0; r < s->tp_size; r++) {
            int32_t found = token[s->chunk + (int64_t)r * count + i];
            if (found >= 0) s->token[begin + i] = found;
        }
    }
    return OK;
}

/* ---- drawing from the most likely tokens ---- */

/* The last bin that may hold a token which the filters leave. Where one filter is to cut exactly,
 * all that it counts must be there: what top_k leaves is what top_p takes its share of. */
static int find_last_bin(const Draw *draw, const double *mass, const int32_t *count, double *total)
{
    int last = SOFTMAX_BINS - 1;
    if (draw->top_k > 0) {
        int64_t seen = 0;
        for (int b = 0; b < last; b++)
            if ((seen += count[b]) >= draw->top_k) last = b;
    }
    *total = 0.0;
    for (int b = 0; b <= last; b++)
        *total += mass[b];
    int by_p = last, by_min = last;
    double sum = 0.0;
    /* A little more than the share, so that rounding cannot put the cut into a later bin. */
    for (int b = 0; b < by_p && draw->top_p < 1.0; b++)
        if ((sum += mass[b]) >= draw->top_p * *total * (1.0 + 1e-6)) by_p = b;
    if (draw->min_p > 0.0) {
        double place = 1.0 - log(draw->min_p) * SOFTMAX_BINS_PER_NAT;
        if (place < by_min) by_min = (int)place;
    }
    if (draw->top_k > 0 && draw->top_p < 1.0) return last;
    return by_p < by_min ? by_p : by_min;
}

static int compare_candidates(const void *a, const void *b)
{
    const Candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

/* Sorts the candidates, cuts them by top_k, top_p and min_p, and draws. `total` is the mass of all
 * tokens where there is no top_k. */
static int32_t draw_candidate(const Draw *draw, Candidate *candidate, int64_t n, double total)
{
    qsort(candidate, (size_t)n, sizeof *candidate, compare_candidates);
    float max = candidate[0].logit;
    if (draw->top_k > 0) {
        if (n > draw->top_k) n = draw->top_k;
        total = 0.0;
        for (int64_t i = 0; i < n; i++)
            total += (double)expf(candidate[i].logit - max);
    }
    double kept = 0.0;
    int64_t num_kept = 0;
    while (num_kept < n) {
        double weight = (double)expf(candidate[num_kept].logit - max);
        if (num_kept > 0 && (weight < draw->min_p || weight == 0.0)) break;
        kept += weight;
        num_kept++;
        if (draw->top_p < 1.0 && kept >= draw->top_p * total) break;
    }
    double left = draw->uniform * kept;
    for (int64_t i = 0; i < num_kept; i++) {
        left -= (double)expf(candidate[i].logit - max);
        if (left < 0.0) return candidate[i].token;
    }
    return candidate[num_kept - 1].token;
}

/* Row i's bins of all ranks: their sums decide its last bin, and that how many candidates each rank
 * has. */
static void find_row_bins(Sampler *s, int begin, int count, int i)
{
    int64_t entries = (int64_t)count * SOFTMAX_BINS, after = (int64_t)s->chunk * SOFTMAX_BINS;
    const double *all_mass = (const double *)s->mass.host + after + (int64_t)i * SOFTMAX_BINS;
    const int32_t *all_count = (const int32_t *)s->count.host + after + (int64_t)i * SOFTMAX_BINS;
    double mass[SOFTMAX_BINS] = {0};
    int32_t number[SOFTMAX_BINS] = {0};
    for (int r = 0; r < s->tp_size; r++)
        for (int b = 0; b < SOFTMAX_BINS; b++) {
            mass[b] += all_mass[r * entries + b];
            number[b] += all_count[r * entries + b];
        }
    int last = find_last_bin(s->draw[begin + i], mass, number, &s->mass_of[i]);
    ((int32_t *)s->last_bin.host)[i] = last;
    for (int r = 0; r < s->tp_size; r++) {
        int32_t *sum = &s->number[r * s->chunk + i];
        *sum = 0;
        for (int b = 0; b <= last; b++)
            *sum += all_count[r * entries + b];
    }
}

static Status find_last_bins(Sampler *s, int begin, int count, const float *device_max, Error *err)
{
    int64_t entries = (int64_t)count * SOFTMAX_BINS, stride = (int64_t)s->chunk * SOFTMAX_BINS;
    s->model->kernels->softmax_bins((double *)s->mass.device, (int32_t *)s->count.device,
                                    rows_logits(s, begin, count), device_max + begin);
    TRY(gather(s, &s->mass, stride, entries, sizeof(double), false, err));
    TRY(gather(s, &s->count, stride, entries, sizeof(int32_t), false, err));
    for (int i = 0; i < count; i++)
        find_row_bins(s, begin, count, i);
    mirror_push(&s->last_bin, 0, (size_t)count * sizeof(int32_t));
    return OK;
}

/* How many of the filtered rows from `begin` on have no more candidates, on any rank, than there is
 * room for: one at least. The same on all ranks. */
static int count_rows(const Sampler *s, int begin, int end)
{
    int count = end - begin;
    int64_t room = max_candidates(s->model->plan);
    for (int r = 0; r < s->tp_size; r++) {
        int64_t sum = 0;
        for (int i = 0; i < count; i++)
            if ((sum += s->number[r * s->chunk + begin + i]) > room && i > 0) count = i;
    }
    return count;
}

/* Some of the filtered draws: rows [begin, begin + count) of those that begin at draw `filtered` of
 * the chunk. */
typedef struct FilteredRows {
    int filtered, begin, count;
    const float *device_max;
} FilteredRows;

/* Where each row's candidates begin on this rank; returns the most that a rank has in all. */
static int64_t place_candidates(Sampler *s, const FilteredRows *rows)
{
    int64_t stride = 1, most = 0, *first = (int64_t *)s->first_candidate.host;
    for (int i = rows->begin; i < rows->begin + rows->count; i++) {
        int64_t row = 0;
        for (int r = 0; r < s->tp_size; r++)
            row += s->number[r * s->chunk + i];
        if (row > most) most = row;
    }
    for (int r = 0; r < s->tp_size; r++) {
        const int32_t *number = s->number + r * s->chunk + rows->begin;
        int64_t sum = 0;
        for (int i = 0; i < rows->count; sum += number[i++])
            if (r == s->model->plan->tp_rank) first[i] = sum;
        if (sum > stride) stride = sum;
    }
    mirror_push(&s->first_candidate, 0, (size_t)rows->count * sizeof *first);
    if (most > s->candidate_capacity) {
        s->candidate_capacity = most + most / 4;
        s->candidate =
            mem_realloc(s->candidate, (size_t)s->candidate_capacity, sizeof *s->candidate);
    }
    return stride;
}

/* Collects this rank's candidates and gathers everybody's: for each rank, row after row,
 * *ret_stride tokens, then as many logits. */
static Status gather_candidates(Sampler *s, const FilteredRows *rows, int64_t *ret_stride,
                                Error *err)
{
    int64_t stride = place_candidates(s, rows);
    int at = rows->filtered + rows->begin;
    int32_t *token = (int32_t *)s->candidates.device;
    SoftmaxCandidates to = {token, (float *)token + stride,
                            (const int64_t *)s->first_candidate.device,
                            (const int32_t *)s->last_bin.device + rows->begin, s->vocab_first};
    s->model->kernels->softmax_collect(&to, rows_logits(s, at, rows->count), rows->device_max + at);
    *ret_stride = stride;
    return gather(s, &s->candidates, 2 * stride, 2 * stride, sizeof *token, false, err);
}

/* Row i's candidates of all ranks, in s->candidate. Returns their number. */
static int64_t merge_candidates(Sampler *s, const FilteredRows *rows, int i, int64_t stride)
{
    int64_t n = 0;
    for (int r = 0; r < s->tp_size; r++) {
        const int32_t *number = s->number + r * s->chunk + rows->begin;
        const int32_t *token = (const int32_t *)s->candidates.host + 2 * stride * (1 + r);
        for (int before = 0; before < i; before++)
            token += number[before];
        const float *logit = (const float *)token + stride;
        for (int32_t j = 0; j < number[i]; j++)
            s->candidate[n++] = (Candidate){token[j], logit[j]};
    }
    return n;
}

/* Draws [filtered, filtered + count) of the chunk, as many at a time as candidates have room. */
static Status draw_filtered(Sampler *s, int filtered, int count, const float *device_max,
                            Error *err)
{
    if (count == 0) return OK;
    TRY(find_last_bins(s, filtered, count, device_max, err));
    FilteredRows rows = {.filtered = filtered, .device_max = device_max};
    for (; rows.begin < count; rows.begin += rows.count) {
        int64_t stride = 0;
        rows.count = count_rows(s, rows.begin, count);
        TRY(gather_candidates(s, &rows, &stride, err));
        for (int i = 0; i < rows.count; i++) {
            int64_t n = merge_candidates(s, &rows, i, stride);
            int at = rows.begin + i;
            s->token[filtered + at] =
                draw_candidate(s->draw[filtered + at], s->candidate, n, s->mass_of[at]);
        }
    }
    return OK;
}

/* ---- a chunk ---- */

typedef enum { KIND_GREEDY, KIND_WHOLE, KIND_FILTERED, KIND_COUNT } DrawKind;

static DrawKind draw_kind(const Draw *draw)
{
    if (draw->greedy) return KIND_GREEDY;
    bool filtered = draw->top_k > 0 || draw->top_p < 1.0 || draw->min_p > 0.0;
    return filtered ? KIND_FILTERED : KIND_WHOLE;
}

/* Puts the draws in the order of kinds; begin[k] is where kind k begins. */
static void order_draws(Sampler *s, const Draw *draw, int count, int begin[KIND_COUNT + 1])
{
    int n = 0;
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        begin[kind] = n;
        for (int i = 0; i < count; i++) {
            if ((int)draw_kind(&draw[i]) != kind) continue;
            s->draw[n] = &draw[i];
            s->index[n] = i;
            s->row[n] = draw[i].row;
            s->temperature[n] = draw[i].temperature;
            s->token[n++] = 0;
        }
    }
    begin[KIND_COUNT] = n;
}

/* Statistics of the chunk's logits as they are now, into `max` and, for greedy draws, `token`. */
static Status take_stats(Sampler *s, int count, int num_greedy, HeadStats *ret, Error *err)
{
    TRY(head_stats(s->head, rows_logits(s, 0, count), NULL, ret, err));
    memcpy(s->max, ret->max, (size_t)count * sizeof *s->max);
    for (int i = 0; i < num_greedy; i++)
        s->token[i] = (int32_t)ret->arg_max[i];
    return OK;
}

static Status refuse_logits(int draw, float lse, Error *err)
{
    return error_set(err, ERR_DATA,
                     "draw %d: the logits are not finite (log-sum-exp %g): the weights are broken",
                     draw, (double)lse);
}

static Status check_finite(const Sampler *s, int count, int number, Error *err)
{
    for (int i = 0; i < count; i++) {
        if (!isfinite(s->lse[i])) return refuse_logits(number + s->index[i], s->lse[i], err);
        if (!isfinite(s->max[i]))
            return error_set(err, ERR_DATA, "draw %d: every token is forbidden",
                             number + s->index[i]);
    }
    return OK;
}

/* The chosen tokens' logits without edits, summed over ranks in their order: one of them has it. */
static Status chosen_logits(Sampler *s, int count, Error *err)
{
    int32_t *column = (int32_t *)s->column.host;
    float *mine = (float *)s->logit.host, *all = mine + s->chunk;
    for (int i = 0; i < count; i++)
        column[i] = s->token[i] - s->vocab_first;
    mirror_push(&s->column, 0, (size_t)count * sizeof *column);
    s->model->kernels->pick_columns((float *)s->logit.device, rows_logits(s, 0, count),
                                    (const int32_t *)s->column.device);
    TRY(gather(s, &s->logit, s->chunk, count, sizeof *all, false, err));
    for (int i = 0; i < count; i++) {
        mine[i] = 0.0f;
        for (int r = 0; r < s->tp_size; r++)
            mine[i] += all[(int64_t)r * count + i];
    }
    return OK;
}

static Status draw_chunk(Sampler *s, Tensor output, const Draw *draw, int count, int number,
                         Drawn *ret, Error *err)
{
    HeadStats stats;
    int begin[KIND_COUNT + 1];
    order_draws(s, draw, count, begin);
    head_logits(s->head, output, s->row, s->temperature, count);
    TRY(take_stats(s, count, begin[KIND_WHOLE], &stats, err));
    memcpy(s->lse, stats.lse, (size_t)count * sizeof *s->lse);
    if (apply_edits(s, count)) TRY(take_stats(s, count, begin[KIND_WHOLE], &stats, err));
    TRY(check_finite(s, count, number, err));
    TRY(draw_whole(s, begin[KIND_WHOLE], begin[KIND_FILTERED] - begin[KIND_WHOLE], stats.device_max,
                   err));
    TRY(draw_filtered(s, begin[KIND_FILTERED], count - begin[KIND_FILTERED], stats.device_max,
                      err));
    undo_edits(s, count);
    TRY(chosen_logits(s, count, err));
    const float *logit = (const float *)s->logit.host;
    for (int i = 0; i < count; i++)
        ret[s->index[i]] = (Drawn){s->token[i], head_log_prob(logit[i], s->lse[i])};
    return OK;
}

/* ---- plain draws ---- */

bool sampler_is_plain(const Sampler *s, const Draw *draw, int count)
{
    for (int i = 0; i < count; i++)
        if (draw_kind(&draw[i]) == KIND_FILTERED || draw[i].num_edits > 0) return false;
    return s->tp_size == 1;
}

/* The results from draw `first` on, in either memory of the mirror. */
typedef struct Results {
    int32_t *token;
    float *logit, *lse, *max, *arg_max;
} Results;

static Results results_in(const Sampler *s, char *memory, int first)
{
    int64_t n = s->max_draws;
    float *at = (float *)memory + first;
    return (Results){(int32_t *)at, at + n, at + 2 * n, at + 3 * n, at + 4 * n};
}

static void launch_chunk(Sampler *s, Tensor output, const PlacedDraws *draws, int first, int count)
{
    const KernelTable *kernels = s->model->kernels;
    const int32_t *row = draws->row != NULL ? draws->row + first : NULL;
    Results to = results_in(s, s->result.device, first);
    if (row == NULL) {
        output.data =
            (char *)output.data + (size_t)(first * output.shape[1]) * dtype_size(output.dtype);
        output.shape[0] = count;
    }
    Tensor logits = head_logits_placed(s->head, output, row, draws->temperature + first, count);
    RowSummary summary = {.max = to.max, .lse = to.lse, .arg_max = to.arg_max};
    CHECK(head_summarize(s->head, logits, NULL, &summary, NULL) == OK); /* no collective */
    float *sum = (float *)s->segment.device;
    kernels->softmax_segments(sum, logits, to.max);
    SoftmaxDraw draw = {to.token, to.logit, sum, draws->uniform + first, to.max, to.arg_max};
    kernels->softmax_draw(&draw, logits);
}

void sampler_launch(Sampler *s, Tensor output, const PlacedDraws *draws, int count)
{
    CHECK(s->tp_size == 1 && count <= s->max_draws);
    for (int first = 0; first < count; first += s->chunk)
        launch_chunk(s, output, draws, first, count - first < s->chunk ? count - first : s->chunk);
}

Status sampler_take(Sampler *s, int count, Drawn *ret, Error *err)
{
    size_t last = (size_t)(2 * s->max_draws + count);
    mirror_pull(&s->result, 0, last * sizeof(float));
    Results from = results_in(s, s->result.host, 0);
    for (int i = 0; i < count; i++)
        if (!isfinite(from.lse[i])) return refuse_logits(i, from.lse[i], err);
    for (int i = 0; i < count; i++)
        ret[i] = (Drawn){from.token[i], head_log_prob(from.logit[i], from.lse[i])};
    return OK;
}

static Status draw_plain(Sampler *s, Tensor output, const Draw *draw, int count, Drawn *ret,
                         Error *err)
{
    double *uniform = (double *)s->asked.host;
    int32_t *row = (int32_t *)(uniform + count);
    float *temperature = (float *)(row + count);
    CHECK(count <= s->max_draws);
    for (int i = 0; i < count; i++) {
        uniform[i] = draw_place(&draw[i]);
        row[i] = draw[i].row;
        temperature[i] = draw[i].temperature;
    }
    mirror_push(&s->asked, 0,
                (size_t)count * (sizeof *uniform + sizeof *row + sizeof *temperature));
    const double *asked = (const double *)s->asked.device;
    const int32_t *rows = (const int32_t *)(asked + count);
    PlacedDraws draws = {rows, (const float *)(rows + count), asked};
    sampler_launch(s, output, &draws, count);
    return sampler_take(s, count, ret, err);
}

Status sampler_draw(Sampler *s, Tensor output, const Draw *draw, int count, Drawn *ret, Error *err)
{
    if (count == 0) return OK;
    if (sampler_is_plain(s, draw, count)) return draw_plain(s, output, draw, count, ret, err);
    for (int first = 0; first < count; first += s->chunk) {
        int n = count - first < s->chunk ? count - first : s->chunk;
        TRY(draw_chunk(s, output, draw + first, n, first, ret + first, err));
    }
    return OK;
}
