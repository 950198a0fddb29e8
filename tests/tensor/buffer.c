#include "tensor/buffer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "test.h"

static Buffer buffer_create(DType dtype, int64_t rows, int64_t columns)
{
    Buffer buffer = {.tensor = tensor_2d(NULL, dtype, rows, columns)};
    const size_t count = (size_t)tensor_count(&buffer.tensor);
    buffer.tensor.data = mem_alloc(tensor_bytes(&buffer.tensor) + (count == 0));
    buffer.exact = mem_calloc(count + 1, sizeof *buffer.exact);
    return buffer;
}

Buffer buffer_random(DType dtype, int64_t rows, int64_t columns, uint64_t key, double spread)
{
    Buffer buffer = buffer_create(dtype, rows, columns);
    for (int64_t i = 0; i < rows * columns; i++) {
        const RngBlock block = rng_block(key, 0, (uint64_t)i);
        buffer.exact[i] = (2.0 * (double)rng_uniform(block.word[0]) - 1.0) * spread;
    }
    buffer_store_exact(&buffer);
    return buffer;
}

Buffer buffer_result(DType dtype, int64_t rows, int64_t columns)
{
    Buffer buffer = buffer_create(dtype, rows, columns);
    memset(buffer.tensor.data, 0xFF, tensor_bytes(&buffer.tensor)); /* NaN in both types */
    return buffer;
}

void buffer_free(Buffer *buffer)
{
    free(buffer->tensor.data);
    free(buffer->exact);
    *buffer = (Buffer){0};
}

void buffer_store_exact(Buffer *buffer)
{
    for (int64_t i = 0; i < tensor_count(&buffer->tensor); i++) {
        if (buffer->tensor.dtype == DTYPE_F32)
            ((float *)buffer->tensor.data)[i] = (float)buffer->exact[i];
        else
            ((uint16_t *)buffer->tensor.data)[i] = bf16_from_f32((float)buffer->exact[i]);
        buffer->exact[i] = buffer_at(buffer, i);
    }
}

double buffer_at(const Buffer *buffer, int64_t index)
{
    if (buffer->tensor.dtype == DTYPE_F32)
        return (double)((const float *)buffer->tensor.data)[index];
    return (double)bf16_to_f32(((const uint16_t *)buffer->tensor.data)[index]);
}

static double worst_element(const Buffer *buffer, int64_t *ret_index)
{
    const int64_t count = tensor_count(&buffer->tensor);
    double squares = 0, worst = 0;
    for (int64_t i = 0; i < count; i++)
        squares += buffer->exact[i] * buffer->exact[i];
    const double rms = sqrt(squares / (double)(count > 0 ? count : 1)) + 1e-30;
    for (int64_t i = 0; i < count; i++) {
        const double difference = fabs(buffer_at(buffer, i) - buffer->exact[i]);
        const double error = difference / (fabs(buffer->exact[i]) + rms);
        if (!(error <= worst)) {
            worst = isnan(error) ? INFINITY : error;
            *ret_index = i;
        }
    }
    return worst;
}

double buffer_error(const Buffer *buffer)
{
    int64_t index = 0;
    return worst_element(buffer, &index);
}

void assert_buffer_close(const Buffer *buffer, double tolerance, const char *what)
{
    int64_t index = 0;
    const double error = worst_element(buffer, &index);
    char shape[96];
    if (!(error <= tolerance))
        fail_msg("%s %s %s: element %lld is %.9g, expected %.9g: error %.3g > %.3g", what,
                 dtype_name(buffer->tensor.dtype), tensor_shape_text(&buffer->tensor, shape),
                 (long long)index, buffer_at(buffer, index), buffer->exact[index], error,
                 tolerance);
}

double tolerance_of(DType dtype, double f32)
{
    return dtype == DTYPE_F32 ? f32 : 8e-3;
}

void assert_gradient_of(LossFunction loss, const void *context, double *x, const double *gradient,
                        int64_t n, const char *what)
{
    double scale = 1e-3;
    for (int64_t i = 0; i < n; i++)
        scale = fmax(scale, fabs(gradient[i]));
    const int64_t step = n / 40 + 1;
    for (int64_t i = 0; i < n; i += step) {
        const double h = 1e-5, x0 = x[i];
        x[i] = x0 + h;
        const double above = loss(context);
        x[i] = x0 - h;
        const double below = loss(context);
        x[i] = x0;
        const double slope = (above - below) / (2 * h);
        if (!(fabs(slope - gradient[i]) <= 1e-6 * scale))
            fail_msg("%s: gradient %lld is %.9g, finite difference %.9g", what, (long long)i,
                     gradient[i], slope);
    }
}
