/* The trainer over groups of the kind nccl (over the double of tests/comm: no GPU) gives the bits
 * that it gives over shared memory: gradients whose sum runs beside the products of others, sums of
 * every size, gathered weights, and numbers in double. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"
#include "tests/comm/nccl_double.h"
#include "toy.h"
#include "trainer_state.h"

#define WHOLE_MAX 60000

typedef struct Outcome {
    double loss;
    float gradient[WHOLE_MAX], weights[WHOLE_MAX];
} Outcome;

typedef struct Job {
    ModelConfig config;
    DType dtype;
    Outcome *outcome;
} Job;

static CommDevice device(void)
{
    return (CommDevice){cpu_kernels(1), nccl_double_host_streams(), NCCL_DOUBLE};
}

static Status nccl_id_create(int size, size_t staging_bytes, CommId *ret, Error *err)
{
    CommDevice with = device();
    return comm_id_create_nccl(&with, size, staging_bytes, ret, err);
}

static Status nccl_create(const CommId *id, int rank, int size, int timeout_ms, Comm **ret,
                          Error *err)
{
    CommDevice with = device();
    return comm_create_nccl(&with, id, rank, size, timeout_ms, ret, err);
}

static void body(const Ranks *ranks, void *argument)
{
    Job *job = argument;
    Error err = {0};
    double loss = 0.0;
    TrainerOptions options = toy_options(ranks, &job->config, job->dtype);
    Trainer *trainer = toy_trainer(ranks, &options);
    rank_ok(trainer_init_random(trainer, 7, &err), &err);
    toy_train(trainer, ranks, 1, 2, 2, &loss);
    if (ranks->tp_rank == 0 && ranks->dp_rank == 0) job->outcome->loss = loss;
    toy_gather(trainer, trainer->gradient, DTYPE_F32, job->outcome->gradient);
    toy_gather(trainer, trainer->optimizer->master, DTYPE_F32, job->outcome->weights);
    trainer_destroy(trainer);
}

static Outcome *run(Job job, const GroupKind *kind, int tp_size, int dp_size)
{
    assert_true(model_config_parameters(&job.config) <= WHOLE_MAX);
    job.outcome = shared_alloc(sizeof *job.outcome);
    ranks_use(kind);
    ranks_run(tp_size, dp_size, body, &job);
    ranks_use(NULL);
    return job.outcome;
}

static void check_layout(int kv_heads, DType dtype, int tp_size, int dp_size)
{
    static const GroupKind nccl = {nccl_id_create, nccl_create};
    Job job = {toy_config(kv_heads, false), dtype, NULL};
    Outcome *shm = run(job, NULL, tp_size, dp_size);
    Outcome *found = run(job, &nccl, tp_size, dp_size);
    assert_true(shm->loss != 0.0);
    assert_memory_equal(found, shm, sizeof *shm);
    shared_free(shm, sizeof *shm);
    shared_free(found, sizeof *found);
}

static void test_trainer_over_nccl_gives_the_bits_of_shared_memory(void **state)
{
    (void)state;
    check_layout(2, DTYPE_F32, 2, 1);
    check_layout(2, DTYPE_BF16, 2, 1);
    check_layout(1, DTYPE_BF16, 4, 1); /* kv heads that ranks hold in common */
    check_layout(2, DTYPE_F32, 1, 3);
    check_layout(2, DTYPE_BF16, 2, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trainer_over_nccl_gives_the_bits_of_shared_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
