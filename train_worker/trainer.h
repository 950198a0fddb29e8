/* Trainer: one rank's shard of a network with its gradients and optimizer state, and the things
 * done to it: train_step, evaluate, log_probs, save, load. It knows nothing of sockets, processes
 * or protobuf; what the controller plans reaches it as plain arrays of samples. Used by one thread
 * (the compute thread of the worker).
 *
 * The network is the policy, trained on what its samples say (supervised) or by a policy loss, with
 * a second, fixed set of weights beside it where a reference model is wanted; or it is a critic: a
 * model of the same kind whose head has one row (options.model.value_head). A critic is a Trainer
 * of its own, in the process of the policy's: they share samples, advantages and groups of ranks,
 * so nothing of a step crosses a socket, and a job with a critic has the same actors as one
 * without.
 *
 * Ranks. World = tp_size x dp_size. Every rank of a tensor-parallel group gets the same calls with
 * the same micro-batches; data-parallel groups get different micro-batches (any number, also none).
 * All ranks call train_step, evaluate and save together. Replicated weights stay bit-identical on
 * all ranks; the same calls give the same weights bit for bit.
 *
 * Numbers. Weights and activations are f32 or bf16; masters, gradients, moments, norms and losses
 * are f32, sums over ranks and norms f64 or in rank order, policy losses f64. The loss is a sum
 * over trained tokens; gradients are divided once, by what the whole global batch says, so that
 * neither micro-batching, packing nor the number of ranks changes the step. A log-prob is the same
 * bits as in generation from the same weights. */
#ifndef TROUPE_TRAIN_WORKER_TRAINER_H
#define TROUPE_TRAIN_WORKER_TRAINER_H

#include "comm/comm.h"
#include "config/algorithm.h"
#include "model/model_config.h"
#include "model/weights.h"
#include "model/weights_io.h"
#include "policy_loss.h"
#include "sample/sample.h"
#include "tensor/device_memory.h"
#include "tensor/kernels.h"

typedef struct TrainerOptions {
    ModelConfig model;
    DType dtype;                 /* DTYPE_F32 or DTYPE_BF16 */
    int64_t max_tokens;          /* of the largest micro-batch: activations are allocated for it */
    int64_t max_sequence_length; /* of the longest sample; at most max_tokens */
    double adam_beta1, adam_beta2, adam_eps;
    double weight_decay;     /* of matrices; norm weights are not decayed */
    double clip_grad;        /* global norm; 0: no clipping */
    bool room_for_reference; /* memory is planned for one that may come later */
    bool with_reference; /* room for a second set of weights, of the same dtype: so the log-ratio
                            of equal weights is exactly 0 */
    int64_t memory_bytes_max; /* for this rank; 0: no limit. Decides what the backward pass
                                 recomputes. */
    int shown_weights;        /* sets of weights that rollout workers read on this device: memory is
                                 planned        for them */
    const DeviceMemory *pools; /* trainer_rest can give the device's memory back; NULL: it cannot */
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

/* What a reference model would take of a rank. */
int64_t trainer_reference_bytes(const TrainerOptions *options, int tp_size);

/* What trainer_create would plan for rank 0 of tp_size, which has the most, and nothing of it
 * taken: its sum, what of it goes to the host's memory while the rank rests (NULL: not asked), and
 * as text for people (owned). The communicators and kernels of *options are not looked at. Fails as
 * trainer_create does. */
Status trainer_plan(const TrainerOptions *options, int tp_size, int64_t *ret_bytes,
                    int64_t *ret_kept, char **ret_text, Error *err);

/* Tokens of a micro-batch: those of *options, doubled up to `most` as long as a quarter of the
 * memory stays free, the backward pass recomputes no more and the head's chunks are no smaller. */
int64_t trainer_plan_tokens(const TrainerOptions *options, int tp_size, int64_t most);

/* The memory plan for people, several lines, and its sum for this rank. Borrowed. */
const char *trainer_memory_plan(const Trainer *trainer);
int64_t trainer_memory_bytes(const Trainer *trainer);

/* ---- the state to start from: one of these, before anything else ---- */

/* Weights normal(0, initializer_range), norms 1; the value of an element depends on (seed, tensor
 * name, index) alone, so it is the same for every layout. Step 0. */
Status trainer_init_random(Trainer *trainer, int64_t seed, Error *err);

/* A checkpoint of ours, written under any layout or dtype: its optimizer state and the step it
 * stands for are restored too (a folder without them is step 0). Each rank reads its shard.
 * Messages name file, tensor, what was found and what was expected. A critic takes the checkpoint's
 * critic: ERR_NOT_FOUND without one. */
Status trainer_load(Trainer *trainer, const char *folder, Error *err);

/* A model folder, which a checkpoint of ours is too: its weights alone, to begin anew from. Step 0.
 * A critic takes the model without its head: its values are those of the model's score.weight (a
 * reward model), or 0. */
Status trainer_load_weights(Trainer *trainer, const char *folder, Error *err);

/* The reference model's weights, at any time. Without with_reference memory is taken for them now,
 * if the limit allows. */
Status trainer_load_reference(Trainer *trainer, const char *folder, Error *err);

/* The weights that the policy has now become the reference model's. Memory as above. */
Status trainer_keep_reference(Trainer *trainer, Error *err);

/* What reading weights and optimizer state has taken so far. */
LoadTimes trainer_load_times(const Trainer *trainer);

int64_t trainer_step(const Trainer *trainer); /* optimizer steps taken */

/* The weights in the type that is computed in: what generation uses. Borrowed; they change with
 * each step. */
const Weights *trainer_weights(const Trainer *trainer);

typedef struct TrainerOptimizer {
    double adam_beta1, adam_beta2, adam_eps, weight_decay, clip_grad;
} TrainerOptimizer;

/* What of TrainerOptions may change between steps. */
void trainer_set_optimizer(Trainer *trainer, const TrainerOptimizer *optimizer);

/* ---- work ---- */

/* Logits are divided by a sample's temperature, where it has one. */
typedef struct MicroBatch {
    const Sample *const *sample; /* borrowed for the call */
    int num_samples;
} MicroBatch;

/* What the loss of one sample's trained tokens is computed from beside what the network says of
 * them: arrays by trained token, in order. */
typedef struct TokenData {
    int32_t count;             /* trained tokens of the sample */
    double weight;             /* times each token's loss */
    const double *advantage;   /* policy */
    const float *old_log_prob; /* policy; NULL: as algorithm.old_log_probs says */
    const float *ref_log_prob; /* policy with kl_loss_coef */
    const float *old_value;    /* critic */
    const double *target;      /* critic: the returns */
} TokenData;

typedef struct TrainStep {
    const MicroBatch *micro_batch; /* of this rank's data-parallel index */
    int num_micro_batches;
    int64_t step;           /* the one this makes: trainer_step() + 1 */
    int64_t trained_tokens; /* of the global batch, over all data-parallel ranks */
    double lr;
    double normaliser; /* the loss is divided by it; 0: by trained_tokens */
    /* Cross-entropy: receives each sample's part of loss_sum, micro-batch after micro-batch. May be
     * NULL. */
    double *sample_loss;
    /* Reinforcement learning */
    const AlgorithmConfig *algorithm; /* NULL: cross-entropy */
    const TokenData *const *tokens;   /* [num_micro_batches][num_samples] */
    int64_t weight_version; /* by which generation knows the weights before this step; 0: by none */
    bool keys_are_kept;     /* by generation, when its weights change: what it draws then belongs to
                               no version alone and is compared with none */
    bool has_moved; /* updates of this step came before: the weights are no version of generation's
                     */
    bool goes_on;   /* more of them follow: the step is not made yet */
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
    PolicySums policy;
    ValueSums value;
    /* Tokens that were generated from the weights before this step, and those of them whose
     * log-prob is not, to the bit, what the trainer computes: a mismatch, 0 where all is well. */
    int64_t log_probs_compared, log_probs_differ;
    /* By how many versions the weights that drew trained tokens are behind those that learn from
     * them: sum and most; and samples that were drawn with several. */
    int64_t age, age_max, mixed_samples;
} StepResult;

/* Forward and backward over the micro-batches, then one AdamW step. A token id outside the
 * vocabulary or a sample longer than planned is ERR_DATA before anything is computed.
 * ERR_INTERNAL when trained_tokens is not what the global batch holds, and the Comm's error when a
 * rank is lost: after either the trainer is unusable. */
Status trainer_train_step(Trainer *trainer, const TrainStep *step, StepResult *ret, Error *err);

/* Which weights. */
typedef enum { WEIGHTS_CURRENT, WEIGHTS_REFERENCE } TrainerWeights;

/* Log-probs of the policy's trained tokens, forward only: ret[m][s] receives one for each trained
 * token of sample s of micro-batch m, in order. Adds what it took to *result. */
Status trainer_log_probs(Trainer *trainer, TrainerWeights which, const MicroBatch *micro_batch,
                         int num_micro_batches, float *const *const *ret, StepResult *result,
                         Error *err);

/* The same for a critic's values. */
Status trainer_values(Trainer *trainer, const MicroBatch *micro_batch, int num_micro_batches,
                      float *const *const *ret, StepResult *result, Error *err);

/* Sums over the data-parallel ranks, in place; all of them call it together. */
Status trainer_sum(Trainer *trainer, double *values, int count, Error *err);
void trainer_data_ranks(const Trainer *trainer, int *ret_dp_rank, int *ret_dp_size);

/* Counts step `step` as made and leaves the weights as they are. */
Status trainer_pass_step(Trainer *trainer, int64_t step, Error *err);

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
 * the weights are bf16, and on rank 0 the step); a critic's files are named critic_model and
 * critic_optimizer. The index files are made from all ranks' lists
 * by safetensors_index_text. A full disk on one rank fails that rank only, after its part in the
 * collectives. */
Status trainer_save(Trainer *trainer, const char *folder, SavedFiles *ret, Error *err);

#endif
