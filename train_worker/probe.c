#include "probe.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"

#define ROWS        512
#define COLUMNS     1024
#define REPETITIONS 3
#define LAST_STEP   256 /* none is due after it but those of evaluations */

struct Probe {
    const KernelTable *kernels;
    Tensor x, y;
    Weight weight;
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

Probe *probe_create(const KernelTable *kernels, DType dtype)
{
    Probe *probe = mem_calloc(1, sizeof *probe);
    probe->kernels = kernels;
    probe->x = make_tensor(kernels, dtype, ROWS, COLUMNS);
    probe->y = make_tensor(kernels, dtype, ROWS, COLUMNS);
    probe->weight.plain = make_tensor(kernels, dtype, COLUMNS, COLUMNS);
    kernels->weight_prepare(&probe->weight);
    return probe;
}

void probe_destroy(Probe *probe)
{
    if (probe == NULL) return;
    probe->kernels->weight_release(&probe->weight);
    probe->kernels->free(probe->weight.plain.data);
    probe->kernels->free(probe->y.data);
    probe->kernels->free(probe->x.data);
    free(probe);
}

void probe_run(Probe *probe)
{
    for (int i = 0; i < REPETITIONS; i++) {
        int64_t begin = clock_ns();
        probe->kernels->matmul(probe->y, probe->x, &probe->weight);
        probe->kernels->synchronize();
        double seconds = (double)(clock_ns() - begin) * 1e-9;
        double rate = 2.0 * ROWS * COLUMNS * COLUMNS / seconds;
        if (rate > probe->rate) probe->rate = rate;
    }
}

double probe_rate(const Probe *probe)
{
    return probe->rate;
}

bool probe_is_due(int64_t count)
{
    return count > 0 && count <= LAST_STEP && (count & (count - 1)) == 0;
}
