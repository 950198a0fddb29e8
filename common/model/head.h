/* The head: final norm, output matrix, softmax and the loss of the rows that carry one, over chunks
 * of these rows, so that logits exist for one chunk at a time only. The vocabulary is split over
 * the tensor-parallel group: each rank computes its columns, the ranks exchange max, sum of
 * exponentials, target logit and arg max of each row (Shoeybi et al. 2019, section 3), and go on
 * with their own columns. What comes out of a row does not depend on the chunk it is in, nor on
 * what else was asked for.
 *
 * A log-prob has one definition, in training and in generation: the float32 log-softmax, over the
 * whole vocabulary, of the logits divided by the temperature. Both come here for it.
 *
 * The loss is any function of the targets' log-probs and of the entropies of their rows: the head
 * gives these, asks for the loss's derivatives with respect to them, and goes back from there
 *     d logit_j = (dlog_prob ([j = target] - p_j) - dentropy p_j (log p_j + entropy)) / temperature
 * Cross-entropy is the case in which every derivative is -1. A loss that wants all log-probs of a
 * sample before it can give the first derivative gets two walks over the chunks, the second of
 * which computes the logits again; one chunk takes one walk in any case. */
#ifndef TROUPE_MODEL_HEAD_H
#define TROUPE_MODEL_HEAD_H

#include "model/activations.h"
#include "model/batch.h"
#include "model/model.h"

typedef struct Head {
    Model *model; /* borrowed */
    DType dtype;
    bool with_backward;
    int64_t max_targets, chunk_rows;
    char *memory;          /* of the device */
    Tensor x, norm, dnorm; /* [max_targets, H] rows that carry loss; dnorm only with backward */
    float *rstd;           /* [max_targets] */
    Tensor logits;         /* [chunk_rows, V] f32 */
    Tensor dlogits;        /* [chunk_rows, V]; the logits themselves in f32 */
    float *stats;          /* [5, chunk_rows]: max, sum_exp, target logit, arg max, sum_shifted */
    float *gathered;       /* [tp_size, 5, chunk_rows]; NULL when alone */
    Mirror summary;        /* [5, max_targets]: max, lse, target logit, arg max, entropy */
    Mirror given; /* [2, max_targets]: dlog_prob and dentropy by temperature; of generation: rows
                     and temperatures, or targets */
} Head;

/* chunk_rows: see head_chunk_rows. */
Head *head_create(Model *model, int64_t max_targets, int64_t chunk_rows, bool with_backward);
void head_destroy(Head *head); /* accepts NULL */
int64_t head_bytes(const WeightPlan *plan, DType dtype, int64_t max_targets, int64_t chunk_rows,
                   bool with_backward);

/* Rows of a chunk behind which a processor's products gain nothing. */
#define HEAD_CHUNK_ROWS 1024

/* The most rows of a chunk, up to rows_max: enough that the head's products run at full speed (its
 * weight gradient passes over a matrix of the vocabulary's size once per chunk), as long as their
 * logits take no more than bytes_max. */
int64_t head_chunk_rows(const WeightPlan *plan, int64_t max_targets, int64_t rows_max,
                        int64_t bytes_max);

/* A loss of the targets. `derive` reads log_prob (and entropy) of targets [first, first + count)
 * and fills dlog_prob (and dentropy) of these; it is called for all of them at once where
 * needs_all, else for each chunk as it comes. Same results on every rank of the tensor-parallel
 * group. */
typedef struct HeadLoss {
    void (*derive)(void *context, int64_t first, int64_t count);
    void *context;
    bool needs_all;
    float *dlog_prob; /* [num_targets] */
    float *dentropy;  /* [num_targets], or NULL: the loss does not depend on entropies */
} HeadLoss;

/* What is wanted of a pass; arrays by target of the batch. Zero-initialise: sums alone, without
 * gradients. */
typedef struct HeadPass {
    Model *model;            /* whose weights; NULL: the head's own. Of the same plan and type. */
    float *log_prob;         /* receives log p(target); needed by a loss, else may be NULL */
    float *entropy;          /* receives the row's entropy in nats, or NULL: not computed */
    ModelTensors *gradients; /* added to; NULL: forward only */
    const HeadLoss *loss;    /* NULL: cross-entropy */
} HeadPass;

typedef struct HeadResult {
    double nll_sum;      /* -log p over the batch's targets, in their order, in nats */
    int64_t correct;     /* targets that are the arg max (the lowest id of equals) */
    int64_t backward_ns; /* of the time spent, what the gradients took; on a device their share by
                            the number of products */
} HeadResult;

/* Log-probs (and entropies) of the batch's targets from activations->output. With gradients, also:
 * activations->dx receives the gradient of the summed loss with respect to that output, and the
 * gradients of the norm and the output matrix are added to. */
Status head_run(Head *head, const Batch *batch, Activations *activations, const HeadPass *pass,
                HeadResult *ret, Error *err);

/* A pass of a critic, whose head has one row (config.value_head): that row's product is the value
 * of what stands before the target. Arrays by target of the batch. */
typedef struct ValuePass {
    float *value;            /* receives the values */
    ModelTensors *gradients; /* as of HeadPass */
    /* Reads all values and fills dvalue, the loss's derivatives. Only with gradients. */
    void (*derive)(void *context);
    void *context;
    float *dvalue;
} ValuePass;

/* As head_run, but that no collective is needed; returns what the gradients took, in nanoseconds.
 */
int64_t head_run_values(Head *head, const Batch *batch, Activations *activations,
                        const ValuePass *pass);

/* ---- the two halves of it, for generation and tests ---- */

/* Logits of `count` <= chunk_rows rows of the output, divided by temperature[i] (NULL: by 1):
 * [count, V] f32, this rank's columns. The head's memory, until its next call. Rows and
 * temperatures are the host's. */
Tensor head_logits(Head *head, Tensor output, const int32_t *row, const float *temperature,
                   int64_t count);

/* The same where rows (NULL: the first `count` of the output) and temperatures are the device's:
 * kernels alone. */
Tensor head_logits_placed(Head *head, Tensor output, const int32_t *row, const float *temperature,
                          int64_t count);

/* Statistics of rows of logits over the whole vocabulary into `to`, all of the device; target NULL:
 * none is asked for. Kernels alone where the model has one rank, else collective. */
Status head_summarize(Head *head, Tensor logits, const int32_t *target, const RowSummary *to,
                      Error *err);

/* Of each row over the whole vocabulary, equal on all ranks. The head's, until its next call. */
typedef struct HeadStats {
    const float *max, *lse;    /* [rows] the largest logit; log of the sum of exponentials */
    const float *target_logit; /* [rows] */
    const float *arg_max;      /* [rows] the lowest id of the largest logit */
    const float *device_max;   /* max where kernels find it */
} HeadStats;

/* Statistics of rows of logits; target[i] is the id whose logit is asked for, NULL: none is. Arrays
 * of the host. Collective. */
Status head_stats(Head *head, Tensor logits, const int32_t *target, HeadStats *ret, Error *err);

/* log p(target). */
static inline float head_log_prob(float target_logit, float lse)
{
    return target_logit - lse;
}

#endif
