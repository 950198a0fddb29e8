/* Trainer: one rank's shard of the policy with its gradients and optimizer state, and the four
 * things done to it: train_step, evaluate, save, load. It knows nothing of sockets, processes or
 * protobuf; what the controller plans reaches it as plain arrays of samples. Used by one thread
 * (the compute thread of the worker).
 *
 * Ranks. World = tp_size x dp_size. Every rank of a tensor-parallel group gets the same calls with
 * the same micro-batches; data-parallel groups get different micro-batches (any number, also none).
 * All ranks call train_step, evaluate and save together. Replicated weights stay bit-identical on
 * all ranks; the same calls give the same weights bit for bit.
 *
 * Numbers. Weights and activations are f32 or bf16; masters, gradients, moments, norms and losses
 * are f32, sums over ranks and norms f64 or in rank order. The loss is a sum over trained tokens;
 * gradients are divided once, by the trained tokens of the whole global batch, so that neither
 * micro-batching, packing nor the number of ranks changes the step. */
#ifndef TROUPE_TRAIN_WORKER_TRAINER_H
#define TROUPE_TRAIN_WORKER_TRAINER_H

#include "comm/comm.h"
#include "model/model_config.h"
#include "sample/sample.h"
#include "tensor/kernels.h"

typedef struct TrainerOptions {
    ModelConfig model;
    DType dtype;                 /* DTYPE_F32 or DTYPE_BF16 */
    int64_t max_tokens;          /* of the largest micro-batch: activations are allocated for it */
    int64_t max_sequence_length; /* of the longest sample; at most max_tokens */
    double adam_beta1, adam_beta2, adam_eps;
    double weight_decay;      /* of matrices; norm weights are not decayed */
    double clip_grad;         /* global norm; 0: no clipping */
    int64_t memory_bytes_max; /* for this rank; 0: no limit. Decides what the backward pass
                                 recomputes. */
    const KernelTable *kernels;
    Comm *tensor_comm; /* borrowed; NULL: alone */
    Comm *data_comm;   /* borrowed; NULL: alone */
    /* Called from the compute thread whenever it got on (each layer, each chunk of the head, each
     * piece of a file): what the progress counter of the beat counts. May be NULL. */
    void (*on_progress)(void *context);
    /* Called from the compute thread when it is about to wait for the disk alone (reserving,
     * flushing) and when that is over: nobody can say there how it gets on, and starting again
     * would not help. May be NULL. */
    void (*on_disk_wait)(void *context, bool waits);
    void *progress_context;
} TrainerOptions;

typedef struct Trainer Trainer;

/* Checks that the model can be split so, plans the memory (ERR_RESOURCE with the plan when it
 * cannot fit) and allocates all of it. The weights are not set yet. */
Status trainer_create(const TrainerOptions *options, Trainer **ret, Error *err);
void trainer_destroy(Trainer *trainer); /* accepts NULL */

/* The memory plan for people, several lines, and its sum for this rank. Borrowed. */
const char *trainer_memory_plan(const Trainer *trainer);
int64_t trainer_memory_bytes(const Trainer *trainer);

/* ---- the state to start from: one of these, before anything else ---- */

/* Weights normal(0, initializer_range), norms 1; the value of an element depends on (seed, tensor
 * name, index) alone, so it is the same for every layout. Step 0. */
Status trainer_init_random(Trainer *trainer, int64_t seed, Error *err);

/* A checkpoint of ours, written under any layout or dtype: its optimizer state and the step it
 * stands for are restored too (a folder without them is step 0). Each rank reads its shard.
 * Messages name file, tensor, what was found and what was expected. */
Status trainer_load(Trainer *trainer, const char *folder, Error *err);

/* A model folder, which a checkpoint of ours is too: its weights alone, to begin anew from. Step 0.
 */
Status trainer_load_weights(Trainer *trainer, const char *folder, Error *err);

int64_t trainer_step(const Trainer *trainer); /* optimizer steps taken */

/* From now on the logits are divided by `temperature` > 0, in training and evaluation: that of the
 * rollouts, so that their log-probs are this trainer's to the bit. 1 at first. */
void trainer_set_temperature(Trainer *trainer, float temperature);

/* ---- work ---- */

typedef struct MicroBatch {
    const Sample *const *sample; /* borrowed for the call */
    int num_samples;
} MicroBatch;

typedef struct TrainStep {
    const MicroBatch *micro_batch; /* of this rank's data-parallel index */
    int num_micro_batches;
    int64_t step;           /* the one this makes: trainer_step() + 1 */
    int64_t trained_tokens; /* of the global batch, over all data-parallel ranks: the normaliser */
    double lr;
} TrainStep;

/* Sums are over this rank's data-parallel share, equal on every rank of a tensor-parallel group.
 * Times are wall seconds; comm_s is what of the others was spent in collectives. */
typedef struct StepResult {
    double loss_sum; /* nats, over trained tokens */
    int64_t trained_tokens, tokens;
    int64_t correct;  /* trained tokens that were the arg max */
    double grad_norm; /* of the whole model and batch, before clipping; 0 after evaluate */
    bool skipped;     /* non-finite gradient: weights and moments untouched on every rank, the step
                         counts */
    double forward_s, backward_s, comm_s, optimizer_s;
    double flops; /* model FLOPs of this rank: its tensor-parallel part of its share */
} StepResult;

/* Forward and backward over the micro-batches, then one AdamW step. A token id outside the
 * vocabulary or a sample longer than planned is ERR_DATA before anything is computed.
 * ERR_INTERNAL when trained_tokens is not what the global batch holds, and the Comm's error when a
 * rank is lost: after either the trainer is unusable. */
Status trainer_train_step(Trainer *trainer, const TrainStep *step, StepResult *ret, Error *err);

/* Forward only. `log_prob` may be NULL; else log_prob[m][s] has an array of the sample's length, or
 * NULL, for sample s of micro-batch m: receives log p(token t | tokens before t) for every t that
 * its loss_mask marks; others are untouched. */
Status trainer_evaluate(Trainer *trainer, const MicroBatch *micro_batch, int num_micro_batches,
                        float *const *const *log_prob, StepResult *ret, Error *err);

/* ---- checkpoints ---- */

typedef struct SavedTensor {
    char *name;
    int64_t bytes;
} SavedTensor;

typedef struct SavedFile {
    char *name; /* inside the folder */
    int64_t bytes;
    char sha256[65];
    SavedTensor *tensor;
    int num_tensors;
} SavedFile;

typedef struct SavedFiles {
    SavedFile *file;
    int num_files;
} SavedFiles;
void saved_files_clear(SavedFiles *files);

/* Writes what this rank owns of the checkpoint into the existing folder and flushes it:
 * model-0000r-of-0000n.safetensors (whole tensors with Hugging Face's names, in the weights' dtype)
 * and optimizer-0000r-of-0000n.safetensors (exp_avg.<name>, exp_avg_sq.<name>, master.<name> when
 * the weights are bf16, and on rank 0 the step). The two index files are made from all ranks' lists
 * by safetensors_index_text. A full disk on one rank fails that rank only, after its part in the
 * collectives. */
Status trainer_save(Trainer *trainer, const char *folder, SavedFiles *ret, Error *err);

#endif
