/* What a benchmark runs on: the device that its word device=cpu|cuda names, what that device can do
 * at best, and what was taken of its memory. */
#ifndef TROUPE_TESTS_BENCH_DEVICE_H
#define TROUPE_TESTS_BENCH_DEVICE_H

#include "model/weights.h"
#include "tensor/device.h"

typedef struct BenchDevice {
    DeviceKind kind;
    const KernelTable *kernels;
    DeviceInfo info; /* as it was when it was opened */
    double open_s;   /* that opening it took: of a GPU its context, and finding cuBLASLt */
} BenchDevice;

/* Ends the program with a sentence when there is none. */
void bench_device_open(const char *name, int threads, BenchDevice *ret);

/* Bytes that are taken now of what was free when it was opened. No more than once was taken, for
 * memory that is given back is kept for the next who asks; on a CPU, the process's highest. */
int64_t bench_device_used(const BenchDevice *device);

/* By data sheets, of those who are known by name; 0 of others. Dense bf16 products in FLOP/s, and
 * memory in bytes/s. */
double bench_device_peak(const BenchDevice *device);
double bench_device_bandwidth(const BenchDevice *device);

/* Bytes/s, read and written, of copies within its memory: the best of several. */
double bench_device_measure_copy(const BenchDevice *device, size_t bytes);

/* Normal numbers of the model's initializer_range, drawn once and repeated over all matrices, and
 * ones in norms: for speed it matters only that they are numbers. `flat`: device memory in the
 * plan's layout. */
void bench_device_fill(const KernelTable *kernels, const WeightPlan *plan, void *flat, DType dtype);

#endif
