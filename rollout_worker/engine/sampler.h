/* Sampler: from rows of the model's output to token ids and their log-probs; docs/sampling.md has
 * the definitions. A token is a pure function of its row of logits and its Draw. It is found by its
 * place on the axis of probabilities (one uniform number a token, no noise per vocabulary entry):
 * over the whole vocabulary in the order of ids by sums of segments, or, where a filter is on,
 * among the most likely tokens, which a histogram finds without sorting the others.
 *
 * With tensor parallelism each rank holds some columns; what ranks exchange are sums, histograms
 * and candidates, and all of them come to the same token. Every rank makes the same calls with the
 * same draws. Used by the compute thread. */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_SAMPLER_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_SAMPLER_H

#include "model/head.h"

/* A change of one logit before the draw, relative to the logit before temperature: divided by
 * `repetition` if positive, else multiplied by it; then `subtract` is taken off. */
typedef struct LogitEdit {
    int32_t token;
    float repetition; /* 1: nothing */
    float subtract;   /* INFINITY forbids the token */
} LogitEdit;

typedef struct Draw {
    int32_t row;       /* of the output */
    float temperature; /* > 0 */
    bool greedy;       /* the most likely token (after edits); the log-prob is at `temperature` */
    int32_t top_k;     /* 0: off */
    double top_p;      /* 1: off */
    double min_p;      /* 0: off */
    double uniform;    /* in [0, 1) */
    const LogitEdit *edit;
    int num_edits;
} Draw;

typedef struct Drawn {
    int32_t token;
    float log_prob; /* of logits / temperature over the whole vocabulary: without edits and filters,
                       bit for bit what head_run gives for this token */
} Drawn;

typedef struct Sampler Sampler;

Sampler *sampler_create(Model *model, int max_draws);
void sampler_destroy(Sampler *sampler); /* accepts NULL */
int64_t sampler_bytes(const WeightPlan *plan, DType dtype, int max_draws);

/* Fills ret[count] for draw[count], count <= max_draws, from rows of output [rows, H]. ERR_DATA,
 * with the number of the draw, where the logits are not finite or all tokens are forbidden; or the
 * Comm's error. */
Status sampler_draw(Sampler *sampler, Tensor output, const Draw *draw, int count, Drawn *ret,
                    Error *err);

/* ---- draws that the device makes by itself: of one rank, without edits and filters ---- */

bool sampler_is_plain(const Sampler *sampler, const Draw *draw, int count);

/* Plain draws where kernels find them. */
typedef struct PlacedDraws {
    const int32_t *row; /* [count]; NULL: draw i is of row i */
    const float *temperature;
    const double *uniform; /* below 0: greedy */
} PlacedDraws;

static inline double draw_place(const Draw *draw)
{
    return draw->greedy ? -1.0 : draw->uniform;
}

/* Kernels alone, so that they can be recorded; sampler_take waits for them, and fills ret for the
 * first `count` draws, as sampler_draw does. */
void sampler_launch(Sampler *sampler, Tensor output, const PlacedDraws *draws, int count);
Status sampler_take(Sampler *sampler, int count, Drawn *ret, Error *err);

#endif
