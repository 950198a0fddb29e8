/* A small random model and random samples for tests that compare the trainer with itself. */
#ifndef TROUPE_TESTS_TOY_H
#define TROUPE_TESTS_TOY_H

#include "ranks.h"
#include "trainer.h"

#define TOY_SAMPLES 8

/* 2 layers, hidden 48, 8 heads of 6, an odd vocabulary; untied unless told otherwise. */
ModelConfig toy_config(int num_key_value_heads, bool tied);
TrainerOptions toy_options(const Ranks *ranks, const ModelConfig *config, DType dtype);
Trainer *toy_trainer(const Ranks *ranks, const TrainerOptions *options); /* weights not set */

/* TOY_SAMPLES samples of 1 to 20 tokens, a function of `seed`; freed with toy_samples_clear. */
void toy_samples_make(Sample samples[TOY_SAMPLES], uint64_t seed);
int64_t toy_trained_tokens(const Sample *samples, int count);
void toy_samples_clear(Sample samples[TOY_SAMPLES]);

/* Samples of a policy. */
typedef struct ToyRollout {
    Sample sample[TOY_SAMPLES];
    SampleMeta meta[TOY_SAMPLES];
    const Sample *pointer[TOY_SAMPLES];
    int64_t trained_tokens;
} ToyRollout;

/* Toy samples in groups of two, with rewards, and with the log-probs that the trainer gives them,
 * taken one sample at a time, as generation would. Freed with toy_samples_clear. */
void toy_roll_out(Trainer *trainer, float temperature, int64_t weight_version, ToyRollout *ret);

/* Runs steps first .. last on samples that depend on the step alone, dealt over data-parallel
 * ranks, with micro-batches of `size` samples. Adds up the losses over all ranks and steps when
 * *ret_loss is given. */
void toy_train(Trainer *trainer, const Ranks *ranks, int first, int last, int size,
               double *ret_loss);

/* Whole tensors of a flat buffer of the plan's layout, in the order of the plan, at `out` on the
 * first rank. Collective. */
void toy_gather(const Trainer *trainer, const void *flat, DType dtype, void *out);

/* Saves into an existing folder, with indices: a checkpoint. What was written is in *ret_files,
 * when that is not NULL: saved_files_clear. */
void toy_save(Trainer *trainer, const char *folder, SavedFiles *ret_files);

/* What the controller does after a save: an index over the files of one family, <stem>-*. */
Status toy_write_index(const char *folder, const char *stem, Error *err);
void toy_fresh_folder(const char *folder); /* empty; not for ranks */

#endif
