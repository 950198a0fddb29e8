/* The head: final norm, output matrix and cross-entropy, fused over chunks of the rows that carry
 * loss, so that logits exist for one chunk at a time only. The vocabulary is split over the
 * tensor-parallel group: each rank computes its columns, the ranks exchange max, sum of
 * exponentials, target logit and arg max of each row (Shoeybi et al. 2019, section 3), and go on
 * with their own columns. A row's loss does not depend on the chunk it is in. */
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

/* This rank's columns of the logits of `count` rows of the output: logits is [count, V] f32. For
 * decode and tests. */
void head_logits(Head *head, Tensor output, const int32_t *row, int64_t count, Tensor logits);

#endif
