/* The sum of squares in f64: a part for each SUM_ELEMENTS of a range, a range's parts in their
 * order, and the ranges in theirs, on the host: one download, however many ranges. */
#include <vector>

#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/warp.cuh"

#define THREADS      256
#define SUM_ELEMENTS (16 * 1024)

/* Where a range stands, and its first part among all. */
struct PartedRange {
    int64_t first, count, part;
};

/* blockIdx.x: a part. */
__global__ void sum_squares_kernel(double *part, const float *x, const PartedRange *range,
                                   int num_ranges)
{
    __shared__ double sums[BLOCK_WARPS_MAX];
    int low = 0, high = num_ranges; /* the last range that begins at or before this part */
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (range[middle].part <= (int64_t)blockIdx.x)
            low = middle;
        else
            high = middle;
    }
    PartedRange mine = range[low];
    int64_t first = ((int64_t)blockIdx.x - mine.part) * SUM_ELEMENTS;
    int64_t end = first + SUM_ELEMENTS < mine.count ? first + SUM_ELEMENTS : mine.count;
    double sum = 0.0;
    for (int64_t i = first + threadIdx.x; i < end; i += THREADS)
        sum += (double)x[mine.first + i] * (double)x[mine.first + i];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

/* blockIdx.x: a range; the parts of a thread are THREADS apart. range[num_ranges].part is the
 * number of all parts. */
__global__ void add_parts_kernel(double *total, const double *part, const PartedRange *range)
{
    __shared__ double sums[BLOCK_WARPS_MAX];
    double sum = 0.0;
    int64_t end = range[blockIdx.x + 1].part;
    for (int64_t i = range[blockIdx.x].part + threadIdx.x; i < end; i += THREADS)
        sum += part[i];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) total[blockIdx.x] = sum;
}

double cuda_sum_squares(const float *x, const ElementRange *host_range, int64_t num_ranges)
{
    std::vector<PartedRange> ranges;
    std::vector<double> totals((size_t)num_ranges);
    int64_t parts = 0;
    for (int64_t i = 0; i < num_ranges; i++) {
        ranges.push_back({host_range[i].first, host_range[i].count, parts});
        parts += ceil_div(host_range[i].count, SUM_ELEMENTS);
    }
    ranges.push_back({0, 0, parts});
    if (parts == 0) return 0.0;
    size_t table_bytes = ranges.size() * sizeof(PartedRange);
    PartedRange *range =
        (PartedRange *)cuda_scratch(table_bytes + (size_t)(num_ranges + parts) * sizeof(double));
    double *total = (double *)(range + ranges.size()), *part = total + num_ranges;
    cuda_upload(range, ranges.data(), table_bytes);
    LAUNCH(sum_squares_kernel, (unsigned)parts, THREADS, 0, part, x, range, (int)num_ranges);
    LAUNCH(add_parts_kernel, (unsigned)num_ranges, THREADS, 0, total, part, range);
    cuda_download(totals.data(), total, totals.size() * sizeof(double));
    double sum = 0.0;
    for (double of_range : totals)
        sum += of_range;
    return sum;
}
