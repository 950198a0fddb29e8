/* Weights from a train worker to rollout workers of other hosts (model/weight_line.h) on real GPUs:
 * they arrive as they were sent, a receiver that is killed leaves the others nothing to wait for,
 * and how long it takes. On one GPU the ranks share it (gpu_ranks.h), each as a host of its own,
 * and times say nothing.
 *
 *   nccl_weights [GPUS=1] [LAYERS=4] [SHAPE=qwen3-0.6b]
 *
 * Exits 77 where there is no NCCL. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "gpu_ranks.h"
#include "model/weight_line.h"
#include "model/weights_io.h"
#include "shapes.h"

#define RECEIVERS  2
#define VERSIONS   3
#define TIMEOUT_MS 60000
/* Until somebody in the part of the controller knows of a death. */
#define NOTICE_S 2

typedef struct End {
    WeightPlan *plan;
    Weights *weights;
    WeightLine *line;
    CommId group;
} End;

static End make_end(GpuRank *self, const ModelConfig *model)
{
    Error err;
    End end = {.plan = weight_plan_create(model, 0, 1)};
    end.weights = weights_create(end.plan, DTYPE_BF16, self->kernels);
    WeightLineOptions options = {
        .plan = end.plan,
        .dtype = DTYPE_BF16,
        .device = {.kernels = self->kernels, .streams = self->device.streams},
        .timeout_ms = TIMEOUT_MS,
    };
    end.line = weight_line_create(&options);
    if (self->rank == 0) MUST_OK(weight_line_id_create(self->size, &end.group, &err));
    MUST_OK(comm_broadcast_host(self->comm, &end.group, sizeof end.group, 0, &err));
    return end;
}

static void free_end(End *end)
{
    weight_line_destroy(end->line);
    weights_destroy(end->weights);
    weight_plan_destroy(end->plan);
}

static void draw(End *end, int64_t seed)
{
    for (int i = 0; i < end->plan->num_specs; i++) {
        const Weights *weights = end->weights;
        Tensor view = weight_view(end->plan, i, weights->flat, weights->dtype);
        WeightPart part = {.kernels = weights->kernels, .data = view.data, .dtype = weights->dtype};
        weight_init_random(end->plan, &end->plan->spec[i], seed, &part);
    }
}

static Status carry(GpuRank *self, End *end, int64_t version, uint64_t *ret_digest, Error *err)
{
    WeightMove move = {.id = (uint64_t)version,
                       .version = version,
                       .group = end->group,
                       .rank = self->rank,
                       .size = self->size};
    return weight_line_move(end->line, &move, end->weights->flat, ret_digest, err);
}

/* What a receiver has got it compares itself; here that all have the same, and not what was there
 * before. */
static void send_versions(GpuRank *self, void *argument)
{
    Error err;
    End end = make_end(self, argument);
    uint64_t before = 0;
    double gb = (double)end.plan->size * (double)dtype_size(DTYPE_BF16) / 1e9;
    for (int64_t version = 1; version <= VERSIONS; version++) {
        uint64_t digest = 0, sent = 0;
        if (self->rank == 0) draw(&end, version);
        MUST_OK(comm_barrier(self->comm, &err));
        int64_t begin = clock_ns();
        MUST_OK(carry(self, &end, version, &digest, &err));
        double seconds = (double)(clock_ns() - begin) / 1e9;
        sent = digest;
        MUST_OK(comm_broadcast_host(self->comm, &sent, sizeof sent, 0, &err));
        MUST(sent == digest && digest != before);
        before = digest;
        if (self->rank == 1)
            printf("| %lld | %.2f GB | %.3f s | %.1f GB/s |%s\n", (long long)version, gb, seconds,
                   gb / seconds, version == 1 ? " joins the group" : "");
    }
    free_end(&end);
}

static void *give_notice(void *argument)
{
    sleep(NOTICE_S);
    weight_line_abandon(argument, 2);
    return NULL;
}

static void lose_a_receiver(GpuRank *self, void *argument)
{
    Error err;
    pthread_t thread;
    uint64_t digest = 0;
    End end = make_end(self, argument);
    MUST_OK(carry(self, &end, 1, &digest, &err));
    MUST_OK(comm_barrier(self->comm, &err));
    if (self->rank + 1 == self->size) gpu_rank_die();
    MUST(pthread_create(&thread, NULL, give_notice, end.line) == 0);
    int64_t begin = clock_ms();
    /* NCCL's network may know it sooner, and who has done his part does not mind. */
    Status status = carry(self, &end, 2, &digest, &err);
    MUST(status == OK || status == ERR_CANCELLED || status == ERR_UNAVAILABLE);
    if (self->rank == 0)
        printf("after %lld ms: %s\n", (long long)(clock_ms() - begin),
               status == OK ? "sent all the same" : err.message);
    pthread_join(thread, NULL);
    comm_abort(self->comm); /* the killed one is of that group, too */
    free_end(&end);
}

int main(int argc, char **argv)
{
    int gpus = argc > 1 ? atoi(argv[1]) : 1, layers = argc > 2 ? atoi(argv[2]) : 4;
    const char *name = argc > 3 ? argv[3] : "qwen3-0.6b";
    ModelConfig shape;
    int failures = 0, code = 0;
    if (gpus < 1 || layers < 1 || !shape_find(name, layers, &shape)) {
        fprintf(stderr, "usage: nccl_weights [GPUS=1] [LAYERS=4] [SHAPE]; a shape is %s\n",
                shape_names());
        return 2;
    }
    if (!gpu_ranks_have_nccl(gpus, &code)) return code;
    printf("\n### Weights of %s, %d layers, to %d receivers on %d GPU%s\n\n", name, layers,
           RECEIVERS, gpus, gpus == 1 ? "" : "s");
    printf("| version | | | |\n|---|---|---|---|\n");
    failures += gpu_ranks_run("weights sent", gpus, 1 + RECEIVERS, send_versions, &shape, -1);
    if (failures > 0) return 1;
    failures += gpu_ranks_run("a receiver that dies", gpus, 1 + RECEIVERS, lose_a_receiver, &shape,
                              RECEIVERS);
    return failures == 0 ? 0 : 1;
}
