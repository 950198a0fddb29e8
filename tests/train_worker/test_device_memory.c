/* The trainer on a device whose memory the host cannot touch (fenced_kernels.h): it lives, and what
 * it computes and saves is what it computes and saves on the CPU, byte for byte. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tensor/fenced_kernels.h"
#include "../tensor/fenced_memory.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/memory.h"
#include "policy_step.h"
#include "toy.h"
#include "trainer_state.h"

#define DEVICE_BYTES  ((size_t)256 << 20)
#define MAX_REPORT    8192
#define VERSION       4
#define NUM_SFT_STEPS 3

typedef struct Job {
    DType dtype;
    bool fenced,
        rests;    /* rests: and what the trainers have there goes and comes back between calls */
    char *report; /* [MAX_REPORT] what came out: figures and digests of files */
} Job;

/* ---- what is compared ---- */

static void report(const Job *job, const char *what, double value)
{
    size_t used = strlen(job->report);
    snprintf(job->report + used, MAX_REPORT - used, "%s %a\n", what, value);
}

static void report_step(const Job *job, const StepResult *result)
{
    report(job, "loss", result->loss_sum);
    report(job, "correct", (double)result->correct);
    report(job, "norm", result->grad_norm);
    report(job, "entropy", result->policy.entropy);
    report(job, "reference", result->policy.ref_kl);
    report(job, "value", result->value.loss);
    report(job, "differ", (double)result->log_probs_differ);
}

/* Saves as a checkpoint of its own and reports its files. */
static void save(const Job *job, Trainer *trainer, const char *folder)
{
    SavedFiles files;
    toy_save(trainer, folder, &files);
    for (int i = 0; i < files.num_files; i++) {
        size_t used = strlen(job->report);
        snprintf(job->report + used, MAX_REPORT - used, "%s %s\n", files.file[i].name,
                 files.file[i].sha256);
    }
    saved_files_clear(&files);
}

/* ---- a life ---- */

static Trainer *make_trainer(const Ranks *ranks, const Job *job, bool critic)
{
    ModelConfig config = toy_config(2, job->dtype == DTYPE_BF16);
    config.value_head = critic;
    TrainerOptions options = toy_options(ranks, &config, job->dtype);
    options.with_reference = !critic;
    options.pools = job->rests ? fenced_memory() : NULL;
    return toy_trainer(ranks, &options);
}

/* As with rollout.offload, while generation has the device. */
static void rest(const Job *job)
{
    char why[256] = "";
    const DeviceMemory *memory = fenced_memory();
    if (!job->rests) return;
    rank_check(memory->pool_release(POOL_STATE, true) > 0);
    rank_check(memory->pool_release(POOL_SCRATCH, false) > 0);
    rank_check(memory->pool_restore(POOL_STATE, why, sizeof why));
    rank_check(memory->pool_restore(POOL_SCRATCH, why, sizeof why));
}

static void reinforce(const Ranks *ranks, const Job *job, Trainer *policy)
{
    Error err = {0};
    ToyRollout rollout;
    PolicyStepResult result;
    AlgorithmConfig algorithm = {
        .advantage_estimator = ADVANTAGE_PPO,
        .gamma = 1.0,
        .gae_lambda = 1.0,
        .eps_clip = 0.2,
        .eps_clip_high = 0.2,
        .entropy_coef = 0.01,
        .kl_loss_coef = 0.1,
    };
    Trainer *critic = make_trainer(ranks, job, true);
    rank_ok(trainer_load_weights(critic, "device_first", &err), &err);
    rank_ok(trainer_load_reference(policy, "device_first", &err), &err);
    rest(job);
    toy_roll_out(policy, 0.7f, VERSION, &rollout);
    rest(job);
    MicroBatch batch = {rollout.pointer, TOY_SAMPLES};
    PolicyStep step = {
        .micro_batch = &batch,
        .num_micro_batches = 1,
        .step = trainer_step(policy) + 1,
        .trained_tokens = rollout.trained_tokens,
        .lr = 1e-2,
        .weight_version = VERSION,
        .batch = rollout.meta,
        .batch_size = TOY_SAMPLES,
        .critic_lr = 1e-2,
        .critic_updates = 2,
    };
    rank_ok(policy_step(policy, critic, &algorithm, &step, &result, &err), &err);
    rank_check(result.policy.log_probs_compared == rollout.trained_tokens);
    rank_check(result.policy.log_probs_differ == 0);
    report_step(job, &result.policy);
    report_step(job, &result.critic);
    rest(job);
    save(job, critic, "device_last");
    toy_samples_clear(rollout.sample);
    trainer_destroy(critic);
}

static void evaluate(const Job *job, Trainer *trainer)
{
    Error err = {0};
    Sample samples[TOY_SAMPLES];
    const Sample *pointers[TOY_SAMPLES];
    StepResult result;
    MicroBatch batch = {pointers, TOY_SAMPLES};
    toy_samples_make(samples, 77);
    for (int s = 0; s < TOY_SAMPLES; s++)
        pointers[s] = &samples[s];
    rank_ok(trainer_evaluate(trainer, &batch, 1, NULL, &result, &err), &err);
    report_step(job, &result);
    toy_samples_clear(samples);
}

/* Drawn, trained, saved, loaded by another, trained by reinforcement, evaluated, saved. */
static void live(const Ranks *given, void *argument)
{
    const Job *job = argument;
    Error err = {0};
    Ranks ranks = *given;
    double loss = 0.0;
    if (job->fenced) ranks.kernels = fenced_kernels(given->kernels, DEVICE_BYTES);
    Trainer *first = make_trainer(&ranks, job, false), *second = make_trainer(&ranks, job, false);
    rank_ok(trainer_init_random(first, 5, &err), &err);
    rest(job);
    toy_train(first, &ranks, 1, NUM_SFT_STEPS, 3, &loss);
    report(job, "supervised loss", loss);
    rest(job);
    save(job, first, "device_first");
    trainer_destroy(first);
    rank_ok(trainer_load(second, "device_first", &err), &err);
    rank_ok(trainer_keep_reference(second, &err), &err);
    reinforce(&ranks, job, second);
    rest(job);
    evaluate(job, second);
    rest(job);
    save(job, second, "device_last");
    trainer_destroy(second);
}

static void test_trainer_touches_device_memory_through_kernels_alone(void **state)
{
    (void)state;
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        char *reports = shared_alloc(3 * MAX_REPORT);
        for (int kind = 0; kind < 3; kind++) {
            Job job = {dtype, kind > 0, kind == 2, reports + kind * MAX_REPORT};
            toy_fresh_folder("device_first");
            toy_fresh_folder("device_last");
            ranks_run(1, 1, live, &job);
        }
        assert_true(strlen(reports) > 1000);
        assert_string_equal(reports, reports + MAX_REPORT);
        assert_string_equal(reports, reports + 2 * MAX_REPORT);
        shared_free(reports, 3 * MAX_REPORT);
    }
}

/* ---- waits ---- */

static const KernelTable *fenced;
static int64_t waits; /* of the host for the device */

static void count_wait(void)
{
    waits++;
    fenced->synchronize();
}

static void count_download(void *host_to, const void *from, size_t bytes)
{
    waits++;
    fenced->download(host_to, from, bytes);
}

/* Rows of a chunk of the head, and how often a supervised step waits with them. */
typedef struct Waits {
    int64_t chunk_rows; /* 0: all */
    int64_t waits, chunks;
    double loss;
} Waits;

static void count_waits(const Ranks *given, void *argument)
{
    Waits *counted = argument;
    Error err = {0};
    Ranks ranks = *given;
    fenced = fenced_kernels(given->kernels, DEVICE_BYTES);
    KernelTable counting = *fenced;
    counting.synchronize = count_wait;
    counting.download = count_download;
    ranks.kernels = &counting;
    const Job job = {.dtype = DTYPE_F32, .fenced = true};
    Trainer *trainer = make_trainer(&ranks, &job, false);
    int64_t targets = trainer->head->max_targets;
    head_destroy(trainer->head);
    if (counted->chunk_rows == 0) counted->chunk_rows = targets;
    trainer->head = head_create(trainer->model, targets, counted->chunk_rows, true);
    rank_ok(trainer_init_random(trainer, 5, &err), &err);
    waits = 0;
    toy_train(trainer, &ranks, 1, 1, 3, &counted->loss);
    counted->waits = waits;
    counted->chunks = targets / counted->chunk_rows;
    trainer_destroy(trainer);
}

static void test_the_head_does_not_wait_for_its_chunks(void **state)
{
    (void)state;
    Waits *counted = shared_alloc(2 * sizeof *counted);
    counted[1].chunk_rows = 2;
    for (int i = 0; i < 2; i++)
        ranks_run(1, 1, count_waits, &counted[i]);
    assert_true(counted[1].chunks > 4);
    assert_true(counted[0].waits > 0);
    assert_int_equal(counted[1].waits, counted[0].waits);
    assert_true(fabs(counted[1].loss - counted[0].loss) < 1e-9);
    shared_free(counted, 2 * sizeof *counted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_head_does_not_wait_for_its_chunks),
        cmocka_unit_test(test_trainer_touches_device_memory_through_kernels_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
