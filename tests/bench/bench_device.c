#include "bench_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"

#define DRAWN       ((int64_t)1 << 20)
#define COPY_ROUNDS 8

/* The longer names first. */
static const struct {
    const char *in_name;
    double peak, bandwidth;
} SHEETS[] = {
    {"H200", 989.4e12, 4.8e12},  {"H100 PCIe", 756e12, 2.0e12}, {"H100 NVL", 835e12, 3.9e12},
    {"H100", 989.4e12, 3.35e12}, {"A100 80GB", 312e12, 2.0e12}, {"A100-SXM4-80GB", 312e12, 2.0e12},
    {"A100", 312e12, 1.555e12},
};

static double seconds_since(int64_t begin_ns)
{
    return (double)(clock_ns() - begin_ns) * 1e-9;
}

void bench_device_open(const char *name, int threads, BenchDevice *ret)
{
    Error err = {0};
    DeviceKind kind = strcmp(name, "cuda") == 0 ? DEVICE_CUDA : DEVICE_CPU;
    DeviceOptions options = {.num_threads = threads};
    int64_t begin = clock_ns();
    if (kind == DEVICE_CPU && strcmp(name, "cpu") != 0) {
        fprintf(stderr, "device=%s: expected cpu or cuda\n", name);
        exit(2);
    }
    ret->kind = kind;
    if (device_open(kind, &options, &ret->kernels, &ret->info, &err) != OK) {
        fprintf(stderr, "device=%s: %s\n", name, err.message);
        exit(1);
    }
    ret->open_s = seconds_since(begin);
}

static int64_t highest_resident(void)
{
    char line[256];
    long long kib = 0;
    FILE *file = fopen("/proc/self/status", "re");
    if (file == NULL) return 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "VmHWM: %lld", &kib) == 1) break;
    fclose(file);
    return kib << 10;
}

int64_t bench_device_used(const BenchDevice *device)
{
    Error err = {0};
    const KernelTable *same = NULL;
    DeviceInfo now;
    if (device->kind == DEVICE_CPU) return highest_resident();
    if (device_open(device->kind, &(DeviceOptions){0}, &same, &now, &err) != OK) return 0;
    return device->info.memory_free - now.memory_free;
}

double bench_device_peak(const BenchDevice *device)
{
    for (size_t i = 0; i < sizeof SHEETS / sizeof *SHEETS; i++)
        if (strstr(device->info.name, SHEETS[i].in_name) != NULL) return SHEETS[i].peak;
    return 0.0;
}

double bench_device_bandwidth(const BenchDevice *device)
{
    for (size_t i = 0; i < sizeof SHEETS / sizeof *SHEETS; i++)
        if (strstr(device->info.name, SHEETS[i].in_name) != NULL) return SHEETS[i].bandwidth;
    return 0.0;
}

double bench_device_measure_copy(const BenchDevice *device, size_t bytes)
{
    const KernelTable *kernels = device->kernels;
    double best = 0.0;
    char *from = kernels->alloc(bytes), *to = kernels->alloc(bytes);
    for (int i = 0; i <= COPY_ROUNDS; i++) {
        kernels->synchronize();
        int64_t begin = clock_ns();
        kernels->copy(to, from, bytes);
        kernels->synchronize();
        double rate = 2.0 * (double)bytes / seconds_since(begin);
        if (i > 0 && rate > best) best = rate;
    }
    kernels->free(from);
    kernels->free(to);
    return best;
}

/* [DRAWN] values in device memory: `scale` times normal ones, or all `scale`. */
static void *make_values(const KernelTable *kernels, DType dtype, float scale, bool normal)
{
    size_t bytes = (size_t)DRAWN * sizeof(float);
    float *value = mem_alloc(bytes);
    for (int64_t i = 0; i < DRAWN; i += 2) {
        RngBlock block = rng_block(1, 0, (uint64_t)i);
        value[i] = value[i + 1] = 1.0f;
        if (normal) rng_normal_pair(block.word[0], block.word[1], &value[i], &value[i + 1]);
        value[i] *= scale;
        value[i + 1] *= scale;
    }
    void *wide = kernels->alloc(bytes);
    kernels->upload(wide, value, bytes);
    free(value);
    if (dtype == DTYPE_F32) return wide;
    void *narrow = kernels->alloc((size_t)DRAWN * dtype_size(dtype));
    kernels->cast(tensor_1d(narrow, dtype, DRAWN), tensor_1d(wide, DTYPE_F32, DRAWN));
    kernels->synchronize();
    kernels->free(wide);
    return narrow;
}

void bench_device_fill(const KernelTable *kernels, const WeightPlan *plan, void *flat, DType dtype)
{
    size_t size = dtype_size(dtype);
    void *normal = make_values(kernels, dtype, plan->config.initializer_range, true);
    void *ones = make_values(kernels, dtype, 1.0f, false);
    for (int i = 0; i < plan->num_specs; i++) {
        const WeightSpec *spec = &plan->spec[i];
        char *to = (char *)flat + (size_t)spec->offset * size;
        int64_t count = spec->local_rows * spec->local_cols;
        for (int64_t at = 0, n; at < count; at += n) {
            n = count - at < DRAWN ? count - at : DRAWN;
            kernels->copy(to + (size_t)at * size, spec->rank == 2 ? normal : ones,
                          (size_t)n * size);
        }
    }
    kernels->synchronize();
    kernels->free(normal);
    kernels->free(ones);
}
