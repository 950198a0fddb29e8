#include "rollout_worker/engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define LOGITS_BYTES ((int64_t)128 << 20) /* of the rows that go through the head at a time */

/* A logit that an edit replaced. */
typedef struct OldLogit {
    int64_t at;
    float value;
} OldLogit;

typedef struct Candidate {
    int32_t token;
    float logit;
} Candidate;

/* Arrays of a chunk of draws. They are in the order of kinds: greedy, whole, filtered. */
struct Sampler {
    Model *model;
    Head *head;
    int chunk, tp_size;
    int64_t columns, segments; /* of this rank */
    int32_t vocab_first;
    const Draw **draw; /* [chunk] */
    int32_t *index;    /* [chunk] its number in the caller's order */
    int32_t *row, *token;
    float *temperature, *max, *lse, *logit;
    float *segment;       /* [chunk, segments] */
    double *total;        /* [1 + tp_size, chunk]: this rank's, then all ranks' */
    double *mass;         /* [1 + tp_size, chunk, SOFTMAX_BINS], made when the first filter comes */
    int32_t *count;       /* the same */
    int32_t *last_bin;    /* [chunk] */
    int32_t *number;      /* [tp_size, chunk] of candidates of each rank's columns of a row */
    int64_t *first;       /* [chunk] where a row's own candidates begin */
    int32_t *own;         /* tokens, then logits, of this rank's candidates */
    int32_t *all;         /* the ranks' `own` */
    Candidate *candidate; /* of one row, all ranks */
    int64_t own_capacity, candidate_capacity;
    OldLogit *old;
    int num_old, old_capacity;
};

/* ---- memory ---- */

static int64_t chunk_rows(const WeightPlan *plan, int max_draws)
{
    return head_chunk_rows(plan, max_draws, LOGITS_BYTES);
}

int64_t sampler_bytes(const WeightPlan *plan, DType dtype, int max_draws)
{
    int64_t chunk = chunk_rows(plan, max_draws);
    return head_bytes(plan, dtype, chunk, chunk, false) +
           chunk * softmax_num_segments(plan->spec[plan->lm_head].local_rows) *
               (int64_t)sizeof(float);
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
    s->tp_size = plan->tp_size;
    s->columns = spec->local_rows;
    s->segments = softmax_num_segments(s->columns);
    s->vocab_first = (int32_t)weight_spec_part(spec, plan->tp_rank, plan->tp_size).first;
    s->draw = mem_calloc(chunk, sizeof *s->draw);
    int32_t **const ints[] = {&s->index, &s->row, &s->token, &s->last_bin};
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        *ints[i] = mem_calloc(chunk, sizeof **ints[i]);
    float **const floats[] = {&s->temperature, &s->max, &s->lse, &s->logit};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        *floats[i] = mem_calloc(chunk * (1 + (size_t)s->tp_size), sizeof **floats[i]);
    s->segment = mem_calloc(chunk * (size_t)s->segments, sizeof *s->segment);
    s->total = mem_calloc(chunk * (1 + (size_t)s->tp_size), sizeof *s->total);
    s->number = mem_calloc(chunk * (size_t)s->tp_size, sizeof *s->number);
    s->first = mem_calloc(chunk, sizeof *s->first);
    return s;
}

void sampler_destroy(Sampler *s)
{
    if (s == NULL) return;
    head_destroy(s->head);
    void *const blocks[] = {s->draw,        s->index, s->row,       s->token,  s->last_bin,
                            s->temperature, s->max,   s->lse,       s->logit,  s->segment,
                            s->total,       s->mass,  s->count,     s->number, s->first,
                            s->own,         s->all,   s->candidate, s->old};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    free(s);
}

/* ---- what all ranks have ---- */

/* out = the ranks' `count` elements of `size` bytes, in rank order. */
static Status gather(Sampler *s, void *out, const void *in, int64_t count, size_t size, Error *err)
{
    int64_t bytes = count * (int64_t)size;
    return model_all_gather(s->model, tensor_1d(out, DTYPE_U8, s->tp_size * bytes),
                            tensor_1d((void *)in, DTYPE_U8, bytes), err);
}

/* This rank's columns of a row of the chunk. */
static float *row_logits(const Sampler *s, int row)
{
    return (float *)s->head->logits.data + row * s->columns;
}

static Tensor rows_logits(const Sampler *s, int first, int count)
{
    return tensor_2d(row_logits(s, first), DTYPE_F32, count, s->columns);
}

/* ---- edits ---- */

static void edit_logit(Sampler *s, int row, const LogitEdit *edit)
{
    int64_t column = (int64_t)edit->token - s->vocab_first;
    if (column < 0 || column >= s->columns) return;
    float *logit = row_logits(s, row) + column;
    if (s->num_old == s->old_capacity) {
        s->old_capacity = s->old_capacity * 2 + 64;
        s->old = mem_realloc(s->old, (size_t)s->old_capacity, sizeof *s->old);
    }
    s->old[s->num_old++] = (OldLogit){row * s->columns + column, *logit};
    if (edit->repetition != 1.0f)
        *logit = *logit > 0.0f ? *logit / edit->repetition : *logit * edit->repetition;
    if (edit->subtract != 0.0f) *logit -= edit->subtract / s->temperature[row];
}

/* Returns whether any rank has something to edit: the same on all. */
static bool apply_edits(Sampler *s, int count)
{
    bool any = false;
    s->num_old = 0;
    for (int i = 0; i < count; i++)
        for (int e = 0; e < s->draw[i]->num_edits; e++) {
            edit_logit(s, i, &s->draw[i]->edit[e]);
            any = true;
        }
    return any;
}

static void undo_edits(Sampler *s)
{
    float *logits = s->head->logits.data;
    while (s->num_old > 0) {
        OldLogit old = s->old[--s->num_old];
        logits[old.at] = old.value;
    }
}

/* ---- drawing from the whole softmax ---- */

/* The column at which the sum of exp(x - max) exceeds `left`; the last with a weight when rounding
 * leaves none. */
static int64_t find_column(const float *x, int64_t n, float max, double left)
{
    int64_t last = -1;
    for (int64_t j = 0; j < n; j++) {
        float weight = expf(x[j] - max);
        if (!(weight > 0.0f)) continue;
        last = j;
        left -= (double)weight;
        if (left < 0.0) break;
    }
    return last;
}

/* The token at `left` on the axis of this rank's weights. */
static int32_t find_token(const Sampler *s, int row, double left)
{
    const float *sum = s->segment + row * s->segments, *x = row_logits(s, row);
    int64_t chosen = -1;
    for (int64_t i = 0; i < s->segments; i++) {
        if (!(sum[i] > 0.0f)) continue;
        chosen = i;
        if (left < (double)sum[i]) break;
        left -= (double)sum[i];
    }
    if (chosen < 0) return -1;
    int64_t begin = chosen * SOFTMAX_SEGMENT, n = s->columns - begin;
    int64_t column =
        find_column(x + begin, n < SOFTMAX_SEGMENT ? n : SOFTMAX_SEGMENT, s->max[row], left);
    return column < 0 ? -1 : (int32_t)(begin + column) + s->vocab_first;
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

/* Draws [begin, begin + count) of the chunk. */
static Status draw_whole(Sampler *s, int begin, int count, Error *err)
{
    int rank = s->model->plan->tp_rank;
    if (count == 0) return OK;
    s->model->kernels->softmax_segments(s->segment + begin * s->segments,
                                        rows_logits(s, begin, count), s->max + begin);
    for (int i = 0; i < count; i++) {
        s->total[i] = 0.0;
        for (int64_t j = 0; j < s->segments; j++)
            s->total[i] += (double)s->segment[(begin + i) * s->segments + j];
    }
    double *all = s->total + s->chunk;
    TRY(gather(s, all, s->total, count, sizeof *all, err));
    for (int i = 0; i < count; i++) {
        double left = 0.0;
        for (int r = 0; r < s->tp_size; r++)
            left += all[(int64_t)r * count + i];
        left *= s->draw[begin + i]->uniform;
        bool mine = owner_of(all + i, count, s->tp_size, &left) == rank;
        s->token[begin + i] = mine ? find_token(s, begin + i, left) : -1;
    }
    if (s->tp_size == 1) return OK;
    int32_t *tokens = (int32_t *)all; /* tp_size * count of them fit where the doubles were */
    TRY(gather(s, tokens, s->token + begin, count, sizeof *tokens, err));
    for (int i = 0; i < count; i++)
        for (int r = 0; r < s->tp_size; r++)
            if (tokens[(int64_t)r * count + i] >= 0)
                s->token[begin + i] = tokens[(int64_t)r * count + i];
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

static void reserve_bins(Sampler *s)
{
    if (s->mass != NULL) return;
    size_t entries = (size_t)s->chunk * (1 + (size_t)s->tp_size) * SOFTMAX_BINS;
    s->mass = mem_calloc(entries, sizeof *s->mass);
    s->count = mem_calloc(entries, sizeof *s->count);
}

static void reserve_candidates(Sampler *s, int64_t own, int64_t row)
{
    if (own > s->own_capacity) {
        s->own_capacity = own + own / 4;
        size_t words = 2 * (size_t)s->own_capacity;
        s->own = mem_realloc(s->own, words, sizeof *s->own);
        s->all = mem_realloc(s->all, words * (size_t)s->tp_size, sizeof *s->all);
    }
    if (row > s->candidate_capacity) {
        s->candidate_capacity = row + row / 4;
        s->candidate =
            mem_realloc(s->candidate, (size_t)s->candidate_capacity, sizeof *s->candidate);
    }
}

/* Bins of all ranks, and from them each row's last bin; total[i] becomes the mass that top_p takes
 * its share of. */
static Status find_last_bins(Sampler *s, int begin, int count, Error *err)
{
    int64_t entries = (int64_t)count * SOFTMAX_BINS, after = (int64_t)s->chunk * SOFTMAX_BINS;
    reserve_bins(s);
    s->model->kernels->softmax_bins(s->mass, s->count, rows_logits(s, begin, count),
                                    s->max + begin);
    TRY(gather(s, s->mass + after, s->mass, entries, sizeof *s->mass, err));
    TRY(gather(s, s->count + after, s->count, entries, sizeof *s->count, err));
    for (int i = 0; i < count; i++) {
        double mass[SOFTMAX_BINS] = {0};
        int32_t number[SOFTMAX_BINS] = {0};
        for (int r = 0; r < s->tp_size; r++)
            for (int b = 0; b < SOFTMAX_BINS; b++) {
                int64_t at = after + r * entries + (int64_t)i * SOFTMAX_BINS + b;
                mass[b] += s->mass[at];
                number[b] += s->count[at];
            }
        int last = find_last_bin(s->draw[begin + i], mass, number, &s->total[i]);
        s->last_bin[i] = last;
        for (int r = 0; r < s->tp_size; r++) {
            const int32_t *of_rank = s->count + after + r * entries + (int64_t)i * SOFTMAX_BINS;
            int32_t *sum = &s->number[r * s->chunk + i];
            *sum = 0;
            for (int b = 0; b <= last; b++)
                *sum += of_rank[b];
        }
    }
    return OK;
}

/* Collects this rank's candidates and gathers everybody's into `all`: for each rank, row after row,
 * *ret_stride tokens, then as many logits. */
static Status gather_candidates(Sampler *s, int begin, int count, int64_t *ret_stride, Error *err)
{
    int64_t stride = 1, most = 0;
    for (int i = 0; i < count; i++) {
        int64_t row = 0;
        for (int r = 0; r < s->tp_size; r++)
            row += s->number[r * s->chunk + i];
        if (row > most) most = row;
    }
    for (int r = 0; r < s->tp_size; r++) {
        int64_t sum = 0;
        for (int i = 0; i < count; sum += s->number[r * s->chunk + i++])
            if (r == s->model->plan->tp_rank) s->first[i] = sum;
        if (sum > stride) stride = sum;
    }
    reserve_candidates(s, stride, most);
    SoftmaxCandidates to = {s->own, (float *)s->own + stride, s->first, s->last_bin,
                            s->vocab_first};
    s->model->kernels->softmax_collect(&to, rows_logits(s, begin, count), s->max + begin);
    *ret_stride = stride;
    return gather(s, s->all, s->own, 2 * stride, sizeof *s->all, err);
}

/* Row i's candidates of all ranks, in s->candidate. Returns their number. */
static int64_t merge_candidates(Sampler *s, int i, int64_t stride)
{
    int64_t n = 0;
    for (int r = 0; r < s->tp_size; r++) {
        const int32_t *number = s->number + r * s->chunk, *token = s->all + 2 * stride * r;
        for (int before = 0; before < i; before++)
            token += number[before];
        const float *logit = (const float *)token + stride;
        for (int32_t j = 0; j < number[i]; j++)
            s->candidate[n++] = (Candidate){token[j], logit[j]};
    }
    return n;
}

static Status draw_filtered(Sampler *s, int begin, int count, Error *err)
{
    int64_t stride = 0;
    if (count == 0) return OK;
    TRY(find_last_bins(s, begin, count, err));
    TRY(gather_candidates(s, begin, count, &stride, err));
    for (int i = 0; i < count; i++) {
        int64_t n = merge_candidates(s, i, stride);
        s->token[begin + i] = draw_candidate(s->draw[begin + i], s->candidate, n, s->total[i]);
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
    for (int i = 0; i < count; i++)
        s->token[i] = 0;
    TRY(head_stats(s->head, rows_logits(s, 0, count), s->token, ret, err));
    memcpy(s->max, ret->max, (size_t)count * sizeof *s->max);
    for (int i = 0; i < num_greedy; i++)
        s->token[i] = (int32_t)ret->arg_max[i];
    return OK;
}

static Status check_finite(const Sampler *s, int count, int number, Error *err)
{
    for (int i = 0; i < count; i++) {
        if (!isfinite(s->lse[i]))
            return error_set(err, ERR_DATA,
                             "draw %d: the logits are not finite (log-sum-exp %g): the weights are "
                             "broken",
                             number + s->index[i], (double)s->lse[i]);
        if (!isfinite(s->max[i]))
            return error_set(err, ERR_DATA, "draw %d: every token is forbidden",
                             number + s->index[i]);
    }
    return OK;
}

/* The chosen tokens' logits without edits, summed over ranks in their order: one of them has it. */
static Status chosen_logits(Sampler *s, int count, Error *err)
{
    float *mine = s->logit, *all = s->logit + s->chunk;
    for (int i = 0; i < count; i++) {
        int64_t column = (int64_t)s->token[i] - s->vocab_first;
        mine[i] = column >= 0 && column < s->columns ? row_logits(s, i)[column] : 0.0f;
    }
    TRY(gather(s, all, mine, count, sizeof *all, err));
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
    TRY(draw_whole(s, begin[KIND_WHOLE], begin[KIND_FILTERED] - begin[KIND_WHOLE], err));
    TRY(draw_filtered(s, begin[KIND_FILTERED], count - begin[KIND_FILTERED], err));
    undo_edits(s);
    TRY(chosen_logits(s, count, err));
    for (int i = 0; i < count; i++)
        ret[s->index[i]] = (Drawn){s->token[i], head_log_prob(s->logit[i], s->lse[i])};
    return OK;
}

Status sampler_draw(Sampler *s, Tensor output, const Draw *draw, int count, Drawn *ret, Error *err)
{
    for (int first = 0; first < count; first += s->chunk) {
        int n = count - first < s->chunk ? count - first : s->chunk;
        TRY(draw_chunk(s, output, draw + first, n, first, ret + first, err));
    }
    return OK;
}
