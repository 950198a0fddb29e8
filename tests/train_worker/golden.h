/* The fixtures that tests/model/make_golden.py made, and comparison with them. */
#ifndef TROUPE_TESTS_GOLDEN_H
#define TROUPE_TESTS_GOLDEN_H

#include "model/model_config.h"
#include "sample/sample.h"
#include "tensor/safetensors.h"
#include "trainer.h"

#define GOLDEN_STEPS       3
#define GOLDEN_SAMPLES_MAX 8

typedef struct GoldenStep {
    Sample sample[GOLDEN_SAMPLES_MAX];
    const Sample *pointer[GOLDEN_SAMPLES_MAX];
    int num_samples;
    int64_t rows, trained_tokens, correct;
    double loss_sum, grad_norm, lr;
    double *log_prob; /* [trained_tokens] */
} GoldenStep;

typedef struct Golden {
    char folder[512];
    ModelConfig config;
    TrainerOptions options; /* without kernels and comms */
    GoldenStep step[GOLDEN_STEPS];
    SafetensorsReader *expected;
} Golden;

/* `name`: of a fixture of this source tree, or a path with a slash in it. */
void golden_load(Golden *golden, const char *name);
void golden_clear(Golden *golden);

/* Deals the step's samples to dp_size ranks in turn and packs this rank's into micro-batches of
 * `size` samples. Returns their number. */
int golden_micro_batches(const GoldenStep *step, int dp_rank, int dp_size, int size,
                         const Sample *pointers[GOLDEN_SAMPLES_MAX],
                         MicroBatch batches[GOLDEN_SAMPLES_MAX]);

/* ||found - expected|| / ||expected|| */
double relative_error(const float *found, const float *expected, int64_t count);

#endif
