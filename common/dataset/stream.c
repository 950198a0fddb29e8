#include "dataset/stream.h"

#include <stdlib.h>

#include "base/memory.h"
#include "dataset/shuffle.h"

struct Stream {
    Dataset *dataset;
    RecordOrder order;
};

struct StreamReader {
    OrderCursor cursor;
};

Status stream_open(const StreamOptions *options, Stream **ret, Error *err)
{
    DatasetOptions data = {
        .key = options->key,
        .path = options->path,
        .num_paths = options->num_paths,
        .index_folder = options->index_folder,
        .index_read_only = options->index_read_only,
        .in_order = !options->shuffle,
        .records_max = options->records_max,
        .watch = options->watch,
    };
    Dataset *dataset = NULL;
    TRY(dataset_open(&data, &dataset, err));
    Stream *stream = mem_calloc(1, sizeof *stream);
    stream->dataset = dataset;
    stream->order = (RecordOrder){
        .records = dataset_summary(dataset).records,
        .seed = options->seed,
        .shuffle = options->shuffle,
    };
    *ret = stream;
    return OK;
}

void stream_close(Stream *stream)
{
    if (stream == NULL) return;
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
    dataset_fingerprint(stream->dataset, stream->order.shuffle, stream->order.seed, ret);
}

StreamReader *stream_reader_open(const Stream *stream)
{
    StreamReader *reader = mem_calloc(1, sizeof *reader);
    reader->cursor = order_cursor(stream->order);
    return reader;
}

void stream_reader_close(StreamReader *reader)
{
    free(reader);
}

StreamPlace stream_place(StreamReader *reader, uint64_t position)
{
    StreamPlace place;
    place.index = order_record(&reader->cursor, position, &place.epoch);
    return place;
}
