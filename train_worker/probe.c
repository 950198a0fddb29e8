#include "probe.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"

#define ROWS        512
#define COLUMNS     1024
#define REPETITIONS 3
#define LAST_STEP   256 /* none is due after it but those of evaluations */
/* A device of its own is too fast for these: it would be measured how soon a call begins. */
#define SCALE_MAX   4    /* of both */
#define SECONDS_MIN 1e-3 /* that products take, in which one wait for the device is lost */
#define CALLS_MAX   8

struct Probe {
    const KernelTable *kernels;
    DType dtype;
    Tensor x, y;
    Weight weight;
    int calls; /* products between two looks at the clock */
    double rate;
};

/* Small whole numbers of both signs: exact in every type, and no product of them is slow. */
static void fill(const KernelTable *kernels, Tensor tensor)
{
    int64_t count = tensor_count(&tensor);
    float *value = mem_calloc((size_t)count, sizeof *value);
    for (int64_t i = 0; i < count; i++)
        value[i] = (float)(i * 7 % 15 - 7);
    size_t bytes = (size_t)count * sizeof *value;
    void *there = kernels->alloc(bytes);
    kernels->upload(there, value, bytes);
    kernels->cast(tensor, tensor_2d(there, DTYPE_F32, tensor.shape[0], tensor.shape[1]));
    kernels->synchronize();
    kernels->free(there);
    free(value);
}

static Tensor make_tensor(const KernelTable *kernels, DType dtype, int64_t rows, int64_t columns)
{
    void *data = kernels->alloc((size_t)(rows * columns) * dtype_size(dtype));
    Tensor tensor = tensor_2d(data, dtype, rows, columns);
    fill(kernels, tensor);
    return tensor;
}

static void make_tensors(Probe *probe, int scale)
{
    const KernelTable *kernels = probe->kernels;
    int64_t rows = ROWS * scale, columns = COLUMNS * scale;
    probe->x = make_tensor(kernels, probe->dtype, rows, columns);
    probe->y = make_tensor(kernels, probe->dtype, rows, columns);
    probe->weight = (Weight){.plain = make_tensor(kernels, probe->dtype, columns, columns)};
    kernels->weight_prepare(&probe->weight);
}

static void free_tensors(Probe *probe)
{
    probe->kernels->weight_release(&probe->weight);
    probe->kernels->free(probe->weight.plain.data);
    probe->kernels->free(probe->y.data);
    probe->kernels->free(probe->x.data);
}

static double time_products(const Probe *probe)
{
    int64_t begin = clock_ns();
    for (int i = 0; i < probe->calls; i++)
        probe->kernels->matmul(probe->y, probe->x, &probe->weight);
    probe->kernels->synchronize();
    return (double)(clock_ns() - begin) * 1e-9;
}

/* Larger products, then more of them. The first of a size may have to be prepared, and is not
 * timed. */
static void grow(Probe *probe)
{
    for (int scale = 1;;) {
        time_products(probe);
        if (time_products(probe) >= SECONDS_MIN) return;
        if (scale == SCALE_MAX) break;
        free_tensors(probe);
        make_tensors(probe, scale *= 2);
    }
    while (probe->calls < CALLS_MAX && time_products(probe) < SECONDS_MIN)
        probe->calls *= 2;
}

Probe *probe_create(const KernelTable *kernels, DType dtype)
{
    Probe *probe = mem_calloc(1, sizeof *probe);
    probe->kernels = kernels;
    probe->dtype = dtype;
    probe->calls = 1;
    make_tensors(probe, 1);
    if (!kernels->host_memory) grow(probe);
    return probe;
}

void probe_destroy(Probe *probe)
{
    if (probe == NULL) return;
    free_tensors(probe);
    free(probe);
}

void probe_run(Probe *probe)
{
    double columns = (double)probe->x.shape[1];
    double flops = 2.0 * (double)probe->x.shape[0] * columns * columns * probe->calls;
    for (int i = 0; i < REPETITIONS; i++) {
        double rate = flops / time_products(probe);
        if (rate > probe->rate) probe->rate = rate;
    }
}

double probe_rate(const Probe *probe)
{
    return probe->rate;
}

bool probe_is_due(int64_t count)
{
    int64_t next = 1;
    while (next < count)
        next *= 4;
    return count == next && count <= LAST_STEP;
}
