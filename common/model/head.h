/* The head: final norm, output matrix and cross-entropy, fused over chunks of the rows that carry
 * loss, so that logits exist for one chunk at a time only. The vocabulary is split over the
 * tensor-parallel group: each rank computes its columns, the ranks exchange max, sum of
 * exponentials, target logit and arg max of each row (Shoeybi et al. 2019, section 3), and go on
 * with their own columns. A row's loss does not depend on the chunk it is in.
 *
 * A log-prob has one definition, in training and in generation: the float32 log-softmax, over the
 * whole vocabulary, of the logits divided by the temperature. Both come here for it. */
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
    char *memory;
    Tensor x, norm, dnorm; /* [max_targets, H] rows that carry loss; dnorm only with backward */
    float *rstd;           /* [max_targets] */
    Tensor logits;         /* [chunk_rows, V] f32 */
    Tensor dlogits;        /* [chunk_rows, V]; the logits themselves in f32 */
    float *stats;          /* [4, chunk_rows]: max, sum_exp, target logit, arg max */
    float *gathered;       /* [tp_size, 4, chunk_rows] */
    float *lse;            /* [chunk_rows] */
    float *divisor;        /* [chunk_rows]: the temperatures */
} Head;

/* chunk_rows: see head_chunk_rows. */
Head *head_create(Model *model, int64_t max_targets, int64_t chunk_rows, bool with_backward);
void head_destroy(Head *head); /* accepts NULL */
int64_t head_bytes(const WeightPlan *plan, DType dtype, int64_t max_targets, int64_t chunk_rows,
                   bool with_backward);

/* The most rows of a chunk: enough that the head's products run at full speed (its weight gradient
 * passes over a matrix of the vocabulary's size once per chunk), as long as their logits take no
 * more than bytes_max. */
int64_t head_chunk_rows(const WeightPlan *plan, int64_t max_targets, int64_t bytes_max);

typedef struct HeadResult {
    double loss_sum;     /* nats, over the batch's targets, in their order */
    int64_t correct;     /* targets that are the arg max (the lowest id of equals) */
    int64_t backward_ns; /* of the time spent, what the gradients took */
} HeadResult;

/* Loss of the batch's targets from activations->output. With `gradients`, also: activations->dx
 * receives the gradient of the summed loss with respect to that output, and the gradients of the
 * norm and the output matrix are added to. `log_prob` [num_targets], or NULL, receives log
 * p(target). */
Status head_loss(Head *head, const Batch *batch, Activations *activations, ModelTensors *gradients,
                 float *log_prob, HeadResult *ret, Error *err);

/* ---- the two halves of it, for generation and tests ---- */

/* Logits of `count` <= chunk_rows rows of the output, divided by temperature[i] (NULL: by 1):
 * [count, V] f32, this rank's columns. The head's memory, until its next call. */
Tensor head_logits(Head *head, Tensor output, const int32_t *row, const float *temperature,
                   int64_t count);

/* Of each row over the whole vocabulary, equal on all ranks. The head's, until its next call. */
typedef struct HeadStats {
    const float *max, *lse;    /* [rows] the largest logit; log of the sum of exponentials */
    const float *target_logit; /* [rows] */
    const float *arg_max;      /* [rows] the lowest id of the largest logit */
} HeadStats;

/* Statistics of rows of logits; target[i] is the id whose logit is asked for. Collective. */
Status head_stats(Head *head, Tensor logits, const int32_t *target, HeadStats *ret, Error *err);

/* log p(target). */
static inline float head_log_prob(float target_logit, float lse)
{
    return target_logit - lse;
}

#endif
