/* Tiny models on a GPU beside transformers and torch (tests/model/golden): log-probs of every
 * trained token, losses and gradient norms of three AdamW steps, in f32.
 *
 *   gpu_golden FOLDER...
 *
 * Prints Markdown; exits 1 where something is further from the fixture than 1e-4. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "golden.h"
#include "gpu_ranks.h"

#define TOLERANCE 1e-4

/* The largest differences of all steps, relative but for log-probs. Shared memory. */
typedef struct Outcome {
    double log_prob, loss, norm;
    bool whole; /* all steps were done */
} Outcome;

typedef struct Task {
    const Golden *golden;
    Outcome *outcome;
} Task;

static void keep_largest(double *largest, double found, double expected, double scale)
{
    double away = fabs(found - expected) / scale;
    if (isnan(away) || away > *largest) *largest = away; /* above NaN there is nothing */
}

static void compare_log_probs(GpuRank *self, Trainer *trainer, const GoldenStep *step,
                              Outcome *outcome)
{
    Error err = {0};
    StepResult result = {0};
    MicroBatch batch = {step->pointer, step->num_samples};
    float *found = mem_calloc((size_t)step->trained_tokens, sizeof *found);
    float *of_sample[GOLDEN_SAMPLES_MAX];
    float *const *of_batch[] = {of_sample};
    float *at = found;
    for (int s = 0; s < step->num_samples; s++) {
        of_sample[s] = at;
        for (int t = 1; t < step->sample[s].length; t++)
            at += step->sample[s].loss_mask[t];
    }
    MUST_OK(trainer_log_probs(trainer, WEIGHTS_CURRENT, &batch, 1, of_batch, &result, &err));
    for (int64_t i = 0; i < step->trained_tokens; i++)
        keep_largest(&outcome->log_prob, (double)found[i], step->log_prob[i], 1.0);
    free(found);
}

static void run_golden(GpuRank *self, void *argument)
{
    Task *task = argument;
    const Golden *golden = task->golden;
    Error err = {0};
    Trainer *trainer = NULL;
    TrainerOptions options = golden->options;
    options.kernels = self->kernels;
    MUST_OK(trainer_create(&options, &trainer, &err));
    MUST_OK(trainer_load(trainer, golden->folder, &err));
    for (int i = 0; i < GOLDEN_STEPS; i++) {
        const GoldenStep *from = &golden->step[i];
        StepResult result = {0};
        MicroBatch batch = {from->pointer, from->num_samples};
        compare_log_probs(self, trainer, from, task->outcome);
        TrainStep step = {.micro_batch = &batch,
                          .num_micro_batches = 1,
                          .step = i + 1,
                          .trained_tokens = from->trained_tokens,
                          .lr = from->lr};
        MUST_OK(trainer_train_step(trainer, &step, &result, &err));
        keep_largest(&task->outcome->loss, result.loss_sum, from->loss_sum, from->loss_sum);
        keep_largest(&task->outcome->norm, result.grad_norm, from->grad_norm, from->grad_norm);
    }
    trainer_destroy(trainer);
    task->outcome->whole = true;
}

static int run_folder(const char *folder, Outcome *outcome)
{
    Golden golden;
    Task task = {&golden, outcome};
    golden_load(&golden, folder);
    int failures = gpu_ranks_run(folder, 1, 1, run_golden, &task, -1);
    golden_clear(&golden);
    return failures;
}

static int judge(const char *folder, const Outcome *o)
{
    if (!o->whole) {
        printf("| %s | | | | **not done, see above** |\n", folder);
        return 1;
    }
    bool is_near = o->log_prob < TOLERANCE && o->loss < TOLERANCE && o->norm < TOLERANCE;
    printf("| %s | %.1e | %.1e | %.1e | %s |\n", folder, o->log_prob, o->loss, o->norm,
           is_near ? "near" : "**TOO FAR**");
    return !is_near;
}

int main(int argc, char **argv)
{
    int failures = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: gpu_golden FOLDER... (tests/model/golden/tied_gqa ...)\n");
        return 2;
    }
    Outcome *outcome = gpu_ranks_share((size_t)argc * sizeof *outcome);
    for (int i = 1; i < argc; i++)
        failures += run_folder(argv[i], &outcome[i]);
    printf("\nThe largest difference from transformers, in f32 (at most %.0e):\n\n"
           "| model | log-prob, nats | loss, relative | gradient norm, relative | |\n"
           "|---|---|---|---|---|\n",
           TOLERANCE);
    for (int i = 1; i < argc; i++)
        failures += judge(argv[i], &outcome[i]);
    return failures > 0;
}
