#include "model/weights_io.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/weights_check.h"
#include "tensor/mirror.h"

#define PIECE_BYTES ((size_t)4 << 20) /* of a tensor under way: bounds staging memory */
#define PIECE_COUNT ((int64_t)(PIECE_BYTES / sizeof(float)))

/* ---- into a part ---- */

/* A part that is being filled: piece by piece through `value`. */
typedef struct PartWriter {
    const WeightPart *part;
    float *value; /* [PIECE_COUNT] in the host's memory */
    void *wide;   /* as many in the device's, where the part is bf16 */
} PartWriter;

static PartWriter writer_begin(const WeightPart *part)
{
    PartWriter writer = {.part = part, .value = mem_alloc(PIECE_BYTES)};
    if (part->dtype != DTYPE_F32) writer.wide = part->kernels->alloc(PIECE_BYTES);
    return writer;
}

static void writer_end(PartWriter *writer)
{
    if (writer->wide != NULL) writer->part->kernels->free(writer->wide);
    free(writer->value);
}

/* The first `count` values become elements [first, first + count) of the part. */
static void write_piece(const PartWriter *writer, int64_t first, int64_t count)
{
    const WeightPart *part = writer->part;
    char *to = (char *)part->data + (size_t)first * dtype_size(part->dtype);
    size_t bytes = (size_t)count * sizeof(float);
    int64_t begin = clock_ns();
    if (writer->wide == NULL) {
        part->kernels->upload(to, writer->value, bytes);
    } else {
        part->kernels->upload(writer->wide, writer->value, bytes);
        part->kernels->cast(tensor_1d(to, part->dtype, count),
                            tensor_1d(writer->wide, DTYPE_F32, count));
    }
    if (part->times != NULL) part->times->upload_ns += clock_ns() - begin;
}

/* ---- random ---- */

/* Elements [first, first + count) of a tensor's stream of normals: block i holds elements 4i to 4i
 * + 3. */
static void fill_normal(uint64_t key, int64_t first, int64_t count, float scale, float *out)
{
    for (int64_t i = 0; i < count;) {
        uint64_t index = (uint64_t)(first + i);
        RngBlock block = rng_block(key, 0, index / 4);
        float value[4];
        rng_normal_pair(block.word[0], block.word[1], &value[0], &value[1]);
        rng_normal_pair(block.word[2], block.word[3], &value[2], &value[3]);
        for (uint64_t lane = index % 4; lane < 4 && i < count; lane++, i++)
            out[i] = value[lane] * scale;
    }
}

static void write_random(const PartWriter *writer, const WeightPlan *plan, const WeightSpec *spec,
                         uint64_t key, WeightSegment run)
{
    for (int64_t done = 0; done < run.count; done += PIECE_COUNT) {
        int64_t count = run.count - done < PIECE_COUNT ? run.count - done : PIECE_COUNT;
        if (spec->rank == 2)
            fill_normal(key, run.global_first + done, count, plan->config.initializer_range,
                        writer->value);
        for (int64_t k = 0; spec->rank != 2 && k < count; k++)
            writer->value[k] = 1.0f;
        write_piece(writer, run.local_first + done, count);
    }
}

void weight_init_random(const WeightPlan *plan, const WeightSpec *spec, int64_t seed,
                        const WeightPart *part)
{
    uint64_t key = rng_key(rng_key((uint64_t)seed, "init"), spec->name);
    PartWriter writer = writer_begin(part);
    for (int64_t i = 0; i < weight_spec_segments(spec); i++)
        write_random(&writer, plan, spec, key,
                     weight_spec_segment(spec, plan->tp_rank, plan->tp_size, i));
    writer_end(&writer);
}

/* ---- reading ---- */

/* IEEE 754 half precision, exactly. */
static float f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 31, mantissa = half & 1023;
    union {
        uint32_t bits;
        float real;
    } u;
    if (exponent == 0) { /* zero or subnormal: mantissa x 2^-24 */
        u.real = (float)mantissa * 0x1p-24f;
        u.bits |= sign;
    } else if (exponent == 31) {
        u.bits = sign | 0x7F800000 | mantissa << 13;
    } else {
        u.bits = sign | (exponent + 112) << 23 | mantissa << 13;
    }
    return u.real;
}

/* In place: halves in the first half of `value` become floats, the last one first. */
static void widen(DType dtype, float *value, int64_t count)
{
    const char *halves = (const char *)value;
    for (int64_t i = count - 1; i >= 0; i--) {
        uint16_t half;
        memcpy(&half, halves + (size_t)i * sizeof half, sizeof half);
        value[i] = dtype == DTYPE_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
    }
}

static Status read_run(SafetensorsReader *reader, const char *name, DType dtype, WeightSegment run,
                       const PartWriter *writer, Error *err)
{
    for (int64_t done = 0; done < run.count; done += PIECE_COUNT) {
        int64_t count = run.count - done < PIECE_COUNT ? run.count - done : PIECE_COUNT;
        int64_t begin = clock_ns();
        TRY(safetensors_read(reader, name, run.global_first + done, count, writer->value, err));
        if (dtype != DTYPE_F32) widen(dtype, writer->value, count);
        if (writer->part->times != NULL) writer->part->times->read_ns += clock_ns() - begin;
        write_piece(writer, run.local_first + done, count);
    }
    return OK;
}

Status weight_read(SafetensorsReader *reader, const char *folder, const WeightPlan *plan,
                   const WeightSpec *spec, const char *prefix, const WeightPart *part, Error *err)
{
    Tensor found = {0};
    TRY(weight_check(reader, folder, spec, prefix, &found, err));
    char *name = mem_printf("%s%s", prefix, spec->name);
    PartWriter writer = writer_begin(part);
    Status status = OK;
    for (int64_t i = 0; status == OK && i < weight_spec_segments(spec); i++) {
        WeightSegment run = weight_spec_segment(spec, plan->tp_rank, plan->tp_size, i);
        status = read_run(reader, name, found.dtype, run, &writer, err);
    }
    writer_end(&writer);
    free(name);
    return status;
}

/* ---- gathering ---- */

static bool is_owner(const WeightGather *gather)
{
    return gather->plan->tp_rank == gather->owner;
}

/* Hands elements of device memory to the sink, piece by piece. */
static void sink_part(const WeightGather *gather, const void *part, size_t bytes)
{
    if (gather->kernels->host_memory) {
        gather->sink(gather->context, part, bytes);
        return;
    }
    char *piece = mem_alloc(PIECE_BYTES);
    for (size_t done = 0; done < bytes; done += PIECE_BYTES) {
        size_t count = bytes - done < PIECE_BYTES ? bytes - done : PIECE_BYTES;
        gather->kernels->download(piece, (const char *)part + done, count);
        gather->sink(gather->context, piece, count);
    }
    free(piece);
}

/* Hands elements [0, count) of `part` on rank `source` to the owner's sink, piece by piece. The
 * other ranks have no part in it. */
static Status send_part(const WeightGather *gather, int source, const char *part, int64_t count,
                        DType dtype, const Mirror *staging, Error *err)
{
    size_t size = dtype_size(dtype);
    int64_t piece_max = (int64_t)(PIECE_BYTES / size);
    bool sends = source == gather->plan->tp_rank;
    if (sends && is_owner(gather)) {
        TRY(comm_settle(gather->comm, err));
        sink_part(gather, part, (size_t)count * size);
        return OK;
    }
    for (int64_t done = 0; (sends || is_owner(gather)) && done < count; done += piece_max) {
        int64_t n = count - done < piece_max ? count - done : piece_max;
        char *place = sends ? (char *)part + (size_t)done * size : staging->device;
        Tensor piece = tensor_1d(place, dtype, n);
        if (sends) {
            TRY(comm_send(gather->comm, piece, gather->owner, err));
            continue;
        }
        TRY(comm_recv(gather->comm, piece, source, err));
        mirror_pull(staging, 0, (size_t)n * size);
        TRY(comm_settle(gather->comm, err));
        gather->sink(gather->context, staging->host, (size_t)n * size);
    }
    return OK;
}

/* Rows lie together in the whole tensor rank by rank, so the parts are simply sent in that order.
 */
static Status gather_rows(const WeightGather *gather, const WeightSpec *spec, const void *part,
                          DType dtype, Error *err)
{
    Status status = OK;
    int64_t sent_to = 0;
    Mirror staging = mirror_create(gather->kernels, PIECE_BYTES);
    for (int rank = 0; status == OK && rank < gather->plan->tp_size; rank++) {
        WeightRange range = weight_spec_part(spec, rank, gather->plan->tp_size);
        if (range.first < sent_to) continue; /* a copy of what the rank before it sent */
        sent_to = range.first + range.count;
        status = send_part(gather, rank, part, range.count * spec->cols, dtype, &staging, err);
    }
    mirror_destroy(&staging);
    return status;
}

/* Puts the ranks' columns of `rows` rows side by side. */
static void interleave_columns(const WeightSpec *spec, int tp_size, const char *gathered, char *out,
                               int64_t rows, size_t size)
{
    for (int rank = 0; rank < tp_size; rank++) {
        WeightRange range = weight_spec_part(spec, rank, tp_size);
        size_t bytes = (size_t)range.count * size;
        const char *from = gathered + (size_t)rank * (size_t)rows * bytes;
        for (int64_t row = 0; row < rows; row++)
            memcpy(out + (size_t)(row * spec->cols + range.first) * size,
                   from + (size_t)row * bytes, bytes);
    }
}

static Status gather_columns(const WeightGather *gather, const WeightSpec *spec, const void *part,
                             DType dtype, Error *err)
{
    Status status = OK;
    size_t size = dtype_size(dtype), row_bytes = (size_t)spec->cols * size;
    int64_t block = (int64_t)(PIECE_BYTES / row_bytes);
    if (block < 1) block = 1;
    if (block > spec->rows) block = spec->rows;
    Mirror gathered = mirror_create(gather->kernels, (size_t)block * row_bytes);
    char *whole = mem_alloc((size_t)block * row_bytes);
    for (int64_t row = 0; row < spec->rows; row += block) {
        int64_t rows = spec->rows - row < block ? spec->rows - row : block;
        char *mine = (char *)part + (size_t)(row * spec->local_cols) * size;
        Tensor in = tensor_2d(mine, dtype, rows, spec->local_cols);
        Tensor out = tensor_2d(gathered.device, dtype, rows, spec->cols);
        status = comm_all_gather(gather->comm, out, in, err);
        if (status != OK) break;
        if (!is_owner(gather)) continue;
        mirror_pull(&gathered, 0, (size_t)rows * row_bytes);
        status = comm_settle(gather->comm, err);
        if (status != OK) break;
        interleave_columns(spec, gather->plan->tp_size, gathered.host, whole, rows, size);
        gather->sink(gather->context, whole, (size_t)rows * row_bytes);
    }
    mirror_destroy(&gathered);
    free(whole);
    return status;
}

Status weight_gather(const WeightGather *gather, const WeightSpec *spec, const void *part,
                     DType dtype, Error *err)
{
    if (spec->split == SPLIT_NONE || gather->plan->tp_size == 1) {
        size_t bytes = (size_t)(spec->local_rows * spec->local_cols) * dtype_size(dtype);
        if (is_owner(gather)) sink_part(gather, part, bytes);
        return OK;
    }
    if (spec->split == SPLIT_ROWS) return gather_rows(gather, spec, part, dtype, err);
    return gather_columns(gather, spec, part, dtype, err);
}
