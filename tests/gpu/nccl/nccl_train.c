/* Training on two tensor-parallel ranks over NCCL beside training on one, on real GPUs: log-probs
 * before the first step, its gradient, and the losses and gradient norms of three steps. What two
 * ranks sum in another order differs in its last bits: bounds are relative, 1e-5 in f32 and 1e-3 in
 * bf16 (of bf16 gradients 2e-2, element by element, since each is itself rounded to 8 bits).
 *
 *   nccl_train [GPUS=1] [LAYERS=4] [SHAPE=qwen3-0.6b]
 *
 * A toy and the shape cut to LAYERS, each in both types; on one GPU the ranks share it
 * (gpu_ranks.h). Prints Markdown; exits 77 where there is no NCCL. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "gpu_ranks.h"
#include "model/weights_io.h"
#include "shapes.h"
#include "trainer_state.h"

#define STEPS     3
#define DOCUMENTS 5
static const int32_t LENGTHS[DOCUMENTS] = {300, 512, 129, 64, 3};
#define LENGTH_MAX 512
#define TOKENS_MAX 1024

/* What one layout made of it; of rank 0. Shared memory. */
typedef struct Outcome {
    double loss[STEPS], norm[STEPS], seconds;
    float log_prob[TOKENS_MAX];
    float gradient[]; /* of the first step, tensor by tensor */
} Outcome;

typedef struct Layout {
    ModelConfig model;
    DType dtype;
    Outcome *outcome;
} Layout;

/* ---- one rank ---- */

typedef struct Documents {
    Sample sample[DOCUMENTS];
    const Sample *pointer[DOCUMENTS];
    MicroBatch batch;
    int64_t trained;
} Documents;

static void make_documents(const ModelConfig *model, Documents *ret)
{
    for (int d = 0; d < DOCUMENTS; d++) {
        Sample *sample = &ret->sample[d];
        *sample = (Sample){.position = d, .length = LENGTHS[d]};
        sample->token = mem_calloc((size_t)LENGTHS[d], sizeof *sample->token);
        sample->loss_mask = mem_calloc((size_t)LENGTHS[d], 1);
        for (int32_t t = 0; t < LENGTHS[d]; t++) {
            uint64_t drawn = rng_below((uint64_t)d, (uint64_t)t, (uint64_t)model->vocab_size);
            sample->token[t] = (int32_t)drawn;
            sample->loss_mask[t] = t > 0;
            ret->trained += t > 0;
        }
        ret->pointer[d] = sample;
    }
    ret->batch = (MicroBatch){ret->pointer, DOCUMENTS};
}

static Trainer *make_trainer(GpuRank *self, const Layout *layout)
{
    Error err;
    Trainer *trainer = NULL;
    TrainerOptions options = {
        .model = layout->model,
        .dtype = layout->dtype,
        .max_tokens = TOKENS_MAX,
        .max_sequence_length = LENGTH_MAX,
        .adam_beta1 = 0.9,
        .adam_beta2 = 0.95,
        .adam_eps = 1e-8,
        .weight_decay = 0.1,
        .clip_grad = 1.0,
        .kernels = self->kernels,
        .tensor_comm = self->comm,
    };
    MUST_OK(trainer_create(&options, &trainer, &err));
    MUST_OK(trainer_init_random(trainer, 7, &err));
    return trainer;
}

static void find_log_probs(GpuRank *self, Trainer *trainer, const Documents *documents, float *ret)
{
    Error err;
    StepResult result = {0};
    float *place[DOCUMENTS], *at = ret;
    for (int d = 0; d < DOCUMENTS; at += LENGTHS[d], d++)
        place[d] = at;
    float *const *const places[] = {place};
    MUST_OK(
        trainer_log_probs(trainer, WEIGHTS_CURRENT, &documents->batch, 1, places, &result, &err));
}

static void append(void *context, const void *bytes, size_t length)
{
    char **at = context;
    memcpy(*at, bytes, length);
    *at += length;
}

static void gather_gradient(GpuRank *self, const Trainer *trainer, float *ret)
{
    Error err;
    char *at = (char *)ret;
    WeightGather gather = {self->kernels, trainer->plan, self->comm, 0, append, &at};
    for (int s = 0; s < trainer->plan->num_specs; s++) {
        const WeightSpec *spec = &trainer->plan->spec[s];
        MUST_OK(weight_gather(&gather, spec, trainer->gradient + spec->offset, DTYPE_F32, &err));
    }
}

static void train(GpuRank *self, void *argument)
{
    const Layout *layout = argument;
    Error err;
    Documents documents = {.trained = 0};
    float unused[TOKENS_MAX];
    bool tells = self->rank == 0;
    Trainer *trainer = make_trainer(self, layout);
    make_documents(&layout->model, &documents);
    find_log_probs(self, trainer, &documents, tells ? layout->outcome->log_prob : unused);
    int64_t begin = clock_ns();
    for (int i = 0; i < STEPS; i++) {
        StepResult result;
        TrainStep step = {.micro_batch = &documents.batch,
                          .num_micro_batches = 1,
                          .step = i + 1,
                          .trained_tokens = documents.trained,
                          .lr = 1e-4};
        MUST_OK(trainer_train_step(trainer, &step, &result, &err));
        MUST(!result.skipped);
        if (i == 0) gather_gradient(self, trainer, layout->outcome->gradient);
        if (!tells) continue;
        layout->outcome->loss[i] = result.loss_sum / (double)result.trained_tokens;
        layout->outcome->norm[i] = result.grad_norm;
    }
    if (tells) layout->outcome->seconds = (double)(clock_ns() - begin) * 1e-9;
    trainer_destroy(trainer);
    for (int d = 0; d < DOCUMENTS; d++)
        sample_clear(&documents.sample[d]);
}

/* ---- both layouts ---- */

static double difference(const float *found, const float *expected, int64_t count)
{
    double sum = 0.0, size = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double d = (double)found[i] - (double)expected[i];
        sum += d * d;
        size += (double)expected[i] * (double)expected[i];
    }
    return size > 0.0 && isfinite(sum) ? sqrt(sum / size) : INFINITY;
}

static double largest_of(const double found[STEPS], const double expected[STEPS])
{
    double largest = 0.0;
    for (int i = 0; i < STEPS; i++) {
        double d = fabs(found[i] - expected[i]) / fabs(expected[i]);
        if (isnan(d) || d > largest) largest = d; /* above NaN there is nothing */
    }
    return largest;
}

static bool tell(const char *name, const Layout *one, const Layout *two, int64_t parameters)
{
    const Outcome *a = one->outcome, *b = two->outcome;
    bool narrow = one->dtype == DTYPE_BF16;
    double bound = narrow ? 1e-3 : 1e-5, of_gradient = narrow ? 2e-2 : 1e-5;
    double log_probs = difference(b->log_prob, a->log_prob, TOKENS_MAX);
    double gradient = difference(b->gradient, a->gradient, parameters);
    double loss = largest_of(b->loss, a->loss), norm = largest_of(b->norm, a->norm);
    bool near = log_probs <= bound && loss <= bound && norm <= bound && gradient <= of_gradient;
    printf("| %s %s | %.2e | %.2e | %.2e | %.2e | %.0e | %.4f | %.2f, %.2f | %s |\n", name,
           dtype_name(one->dtype), log_probs, gradient, loss, norm, bound, a->loss[STEPS - 1],
           a->seconds, b->seconds, near ? "near" : "**APART**");
    return near;
}

static int compare(const char *name, const ModelConfig *model, DType dtype, int gpus)
{
    int64_t parameters = model_config_parameters(model);
    size_t bytes = sizeof(Outcome) + (size_t)parameters * sizeof(float);
    Layout one = {*model, dtype, gpu_ranks_share(bytes)};
    Layout two = {*model, dtype, gpu_ranks_share(bytes)};
    int failures = gpu_ranks_run("one rank", gpus, 1, train, &one, -1);
    failures += gpu_ranks_run("two ranks", gpus, 2, train, &two, -1);
    if (failures == 0) {
        printf("\n| TP 2 beside TP 1 | log-probs | gradient | loss | norm | bound | loss, last | s "
               "of %d steps | |\n|---|---|---|---|---|---|---|---|---|\n",
               STEPS);
        failures += !tell(name, &one, &two, parameters);
        printf("\n");
    }
    munmap(one.outcome, bytes);
    munmap(two.outcome, bytes);
    return failures;
}

int main(int argc, char **argv)
{
    int gpus = argc > 1 ? atoi(argv[1]) : 1, layers = argc > 2 ? atoi(argv[2]) : 4;
    const char *name = argc > 3 ? argv[3] : "qwen3-0.6b";
    ModelConfig toy, shape;
    int failures = 0, code = 0;
    if (gpus < 1 || layers < 1 || !shape_find("toy", 0, &toy) ||
        !shape_find(name, layers, &shape)) {
        fprintf(stderr, "usage: nccl_train [GPUS=1] [LAYERS=4] [SHAPE]; a shape is %s\n",
                shape_names());
        return 2;
    }
    if (!gpu_ranks_have_nccl(gpus, &code)) return code;
    printf("\n### Two tensor-parallel ranks over NCCL\n\n");
    failures += compare("toy", &toy, DTYPE_F32, gpus);
    failures += compare("toy", &toy, DTYPE_BF16, gpus);
    if (failures == 0 && strcmp(name, "toy") != 0) {
        failures += compare(name, &shape, DTYPE_F32, gpus);
        failures += compare(name, &shape, DTYPE_BF16, gpus);
    }
    return failures == 0 ? 0 : 1;
}
