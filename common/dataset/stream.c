#include "dataset/stream.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "dataset/hf_order.h"
#include "dataset/shuffle.h"

struct Stream {
    Dataset *dataset;
    DataOrder kind;
    RecordOrder order;
    HfOrder *hf; /* ORDER_HF */
};

struct StreamReader {
    const Stream *stream;
    OrderCursor cursor;
};

/* A file, or what a slice leaves of it, is what the package calls a shard. */
static void open_hf(Stream *stream)
{
    int num_files = dataset_num_files(stream->dataset);
    uint64_t *records = mem_calloc((size_t)num_files, sizeof *records);
    for (int i = 0; i < num_files; i++)
        records[i] = dataset_file(stream->dataset, i).records;
    HfOptions options = {stream->kind.hf_release, (uint64_t)stream->kind.hf_buffer_size};
    stream->hf = hf_order_create(&options, stream->order.seed, records, (size_t)num_files);
    free(records);
}

Status stream_open(const StreamOptions *options, Stream **ret, Error *err)
{
    DatasetOptions data = {
        .key = options->key,
        .path = options->path,
        .num_paths = options->num_paths,
        .index_folder = options->index_folder,
        .index_read_only = options->index_read_only,
        .in_order = options->order.kind == ORDER_FILES,
        .records_max = options->records_max,
        .hub = options->hub,
        .cache_max = options->cache_max,
        .watch = options->watch,
    };
    Dataset *dataset = NULL;
    TRY(dataset_open(&data, &dataset, err));
    Stream *stream = mem_calloc(1, sizeof *stream);
    stream->dataset = dataset;
    stream->kind = options->order;
    stream->order = (RecordOrder){
        .records = dataset_summary(dataset).records,
        .seed = options->seed,
        .shuffle = options->order.kind == ORDER_FULL,
    };
    if (options->order.kind == ORDER_HF) open_hf(stream);
    *ret = stream;
    return OK;
}

void stream_close(Stream *stream)
{
    if (stream == NULL) return;
    hf_order_destroy(stream->hf);
    dataset_close(stream->dataset);
    free(stream);
}

uint64_t stream_records(const Stream *stream)
{
    return stream->order.records;
}

const Dataset *stream_dataset(const Stream *stream)
{
    return stream->dataset;
}

void stream_fingerprint(const Stream *stream, char ret[DIGEST_HEX_BYTES])
{
    const DataOrder *kind = &stream->kind;
    unsigned long long seed = stream->order.seed;
    char order[100] = "";
    if (kind->kind == ORDER_FULL)
        snprintf(order, sizeof order, "shuffle %d %llu\n", SHUFFLE_VERSION, seed);
    else if (kind->kind == ORDER_HF)
        snprintf(order, sizeof order, "hf %d %s %lld %llu\n", HF_ORDER_VERSION,
                 hf_release_name(kind->hf_release), (long long)kind->hf_buffer_size, seed);
    dataset_fingerprint(stream->dataset, order, ret);
}

StreamReader *stream_reader_open(const Stream *stream)
{
    StreamReader *reader = mem_calloc(1, sizeof *reader);
    reader->stream = stream;
    reader->cursor = order_cursor(stream->order);
    return reader;
}

void stream_reader_close(StreamReader *reader)
{
    free(reader);
}

Status stream_place(StreamReader *reader, uint64_t position, StreamPlace *ret, Error *err)
{
    (void)err;
    const Stream *stream = reader->stream;
    ret->index = order_record(&reader->cursor, position, &ret->epoch);
    if (stream->hf != NULL) ret->index = hf_order_record(stream->hf, ret->epoch, ret->index);
    return OK;
}

Status stream_read(StreamReader *reader, uint64_t position, Str *text, StreamRecord *ret,
                   Error *err)
{
    StreamPlace place;
    TRY(stream_place(reader, position, &place, err));
    ret->epoch = place.epoch;
    return dataset_read(reader->stream->dataset, place.index, text, &ret->source, err);
}
