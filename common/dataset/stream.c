#include "dataset/stream.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "dataset/hf_order.h"
#include "dataset/shuffle.h"
#include "dataset/window.h"

#define CACHE_SLACK (32u << 20) /* beside the window that is being read */

struct Stream {
    char *key;
    Dataset *dataset;
    DataOrder order;
    uint64_t seed;
    RecordOrder records; /* but for ORDER_WINDOW */
    HfOrder *hf;         /* ORDER_HF */
    WindowOrder *window; /* ORDER_WINDOW */
    pthread_mutex_t lock;
    _Atomic(uint64_t *) block_first; /* ORDER_WINDOW, [blocks]: first record of each; NULL until it
                                        was asked for, then const */
};

struct StreamReader {
    const Stream *stream;
    OrderCursor cursor;
    WindowCursor *window; /* ORDER_WINDOW */
};

static uint64_t window_bytes(const DataOrder *order)
{
    return (uint64_t)order->window_mb << 20;
}

static size_t cache_max(const StreamOptions *options)
{
    return options->cache_max > 0 ? options->cache_max : DATASET_CACHE_MAX;
}

/* Of one window, whose pieces are read in any order, none should be decoded twice. */
static size_t cache_bytes(const StreamOptions *options, bool by_blocks)
{
    size_t most = cache_max(options);
    uint64_t window = by_blocks ? window_bytes(&options->order) + CACHE_SLACK : 0;
    return window > most ? (size_t)window : most;
}

/* A window is read from tables in few places at once: what is kept of them is no matter of its
 * size. */
static size_t readers_bytes(const StreamOptions *options)
{
    return cache_max(options) / 2;
}

/* A file, or what a slice leaves of it, is what the package calls a shard. */
static void open_hf(Stream *stream, ReadWatch *watch)
{
    int num_files = dataset_num_files(stream->dataset);
    uint64_t *records = mem_calloc((size_t)num_files, sizeof *records);
    for (int i = 0; i < num_files; i++)
        records[i] = dataset_file(stream->dataset, i).records;
    HfOptions options = {.release = stream->order.hf_release,
                         .buffer_size = (uint64_t)stream->order.hf_buffer_size,
                         .watch = watch};
    stream->hf = hf_order_create(&options, stream->seed, records, (size_t)num_files);
    free(records);
}

static void open_window(Stream *stream, ReadWatch *watch)
{
    WindowOptions options = {.dataset = stream->dataset,
                             .seed = stream->seed,
                             .window_bytes = window_bytes(&stream->order),
                             .watch = watch};
    stream->window = window_order_open(&options);
}

Status stream_open(const StreamOptions *options, Stream **ret, Error *err)
{
    OrderKind kind = options->order.kind;
    bool by_blocks = kind == ORDER_WINDOW && options->records_max == 0;
    DatasetOptions data = {
        .key = options->key,
        .path = options->path,
        .num_paths = options->num_paths,
        .index_folder = options->index_folder,
        .index_read_only = options->index_read_only,
        .in_order = kind == ORDER_FILES,
        .by_blocks = by_blocks,
        .records_max = options->records_max,
        .pool = options->pool,
        .folder = options->folder,
        .hub = options->hub,
        .cache_max = cache_bytes(options, by_blocks),
        .readers_max = readers_bytes(options),
        .watch = options->watch,
    };
    Dataset *dataset = NULL;
    TRY(dataset_open(&data, &dataset, err));
    Stream *stream = mem_calloc(1, sizeof *stream);
    stream->key = mem_strdup(options->key);
    stream->dataset = dataset;
    stream->order = options->order;
    stream->seed = options->seed;
    stream->records = (RecordOrder){.records = dataset_summary(dataset).records,
                                    .seed = options->seed,
                                    .shuffle = kind == ORDER_FULL};
    pthread_mutex_init(&stream->lock, NULL);
    if (kind == ORDER_HF) open_hf(stream, options->watch);
    if (by_blocks) open_window(stream, options->watch);
    *ret = stream;
    return OK;
}

void stream_close(Stream *stream)
{
    if (stream == NULL) return;
    window_order_close(stream->window);
    hf_order_destroy(stream->hf);
    dataset_close(stream->dataset);
    pthread_mutex_destroy(&stream->lock);
    free(stream->block_first);
    free(stream->key);
    free(stream);
}

uint64_t stream_records(const Stream *stream)
{
    if (stream->window != NULL) return window_order_records(stream->window);
    return stream->records.records;
}

static Status name_stream(const Stream *stream, Error *err)
{
    return error_prefix(err, "%s", stream->key);
}

Status stream_count(const Stream *stream, uint64_t *ret_records, Error *err)
{
    if (stream->window != NULL) {
        Status status = window_order_count(stream->window, ret_records, err);
        return status != OK ? name_stream(stream, err) : OK;
    }
    *ret_records = stream->records.records;
    return OK;
}

uint64_t stream_window_bytes(const Stream *stream)
{
    if (stream->order.kind != ORDER_WINDOW || !dataset_decodes_blocks(stream->dataset)) return 0;
    uint64_t window = window_bytes(&stream->order);
    uint64_t all = stream->window != NULL ? dataset_decoded_bytes(stream->dataset) : 0;
    return (all > 0 && all < window ? all : window) + CACHE_SLACK;
}

const Dataset *stream_dataset(const Stream *stream)
{
    return stream->dataset;
}

#define ORDER_TEXT_BYTES 100

/* What it is besides its files. */
static void order_text(const Stream *stream, char text[ORDER_TEXT_BYTES])
{
    const DataOrder *order = &stream->order;
    unsigned long long seed = stream->seed;
    text[0] = '\0';
    switch (order->kind) {
    case ORDER_FILES:
        break;
    case ORDER_FULL:
        snprintf(text, ORDER_TEXT_BYTES, "shuffle %d %llu\n", SHUFFLE_VERSION, seed);
        break;
    case ORDER_WINDOW:
        snprintf(text, ORDER_TEXT_BYTES, "window %d %lld %llu\n", WINDOW_VERSION,
                 (long long)order->window_mb, seed);
        break;
    case ORDER_HF:
        snprintf(text, ORDER_TEXT_BYTES, "hf %d %s %lld %llu\n", HF_ORDER_VERSION,
                 hf_release_name(order->hf_release), (long long)order->hf_buffer_size, seed);
        break;
    }
}

void stream_fingerprint(const Stream *stream, char ret[DIGEST_HEX_BYTES])
{
    char text[ORDER_TEXT_BYTES];
    order_text(stream, text);
    dataset_fingerprint(stream->dataset, text, ret);
}

void stream_order_fingerprint(const Stream *stream, char ret[DIGEST_HEX_BYTES])
{
    if (stream->order.kind == ORDER_WINDOW) {
        stream_fingerprint(stream, ret);
        return;
    }
    char order[ORDER_TEXT_BYTES];
    Str text = {0};
    order_text(stream, order);
    str_puts(&text, order);
    for (int i = 0; i < dataset_num_files(stream->dataset); i++) {
        DatasetFileInfo file = dataset_file(stream->dataset, i);
        str_printf(&text, "%llu %s\n", (unsigned long long)file.records, path_name(file.path));
    }
    digest_bytes(text.data, text.length, ret);
    str_free(&text);
}

StreamReader *stream_reader_open(const Stream *stream)
{
    StreamReader *reader = mem_calloc(1, sizeof *reader);
    reader->stream = stream;
    if (stream->window != NULL)
        reader->window = window_cursor_open(stream->window);
    else
        reader->cursor = order_cursor(stream->records);
    return reader;
}

void stream_reader_close(StreamReader *reader)
{
    if (reader == NULL) return;
    window_cursor_close(reader->window);
    free(reader);
}

Status stream_place(StreamReader *reader, uint64_t position, StreamPlace *ret, Error *err)
{
    const Stream *stream = reader->stream;
    if (reader->window != NULL) {
        WindowPlace place;
        Status status = window_cursor_find(reader->window, position, &place, err);
        if (status != OK) return name_stream(stream, err);
        *ret = (StreamPlace){place.epoch, place.block, place.record};
        return OK;
    }
    StreamPlace found = {0};
    found.index = order_record(&reader->cursor, position, &found.epoch);
    if (stream->hf != NULL)
        TRY(hf_order_record(stream->hf, found.epoch, found.index, &found.index, err));
    *ret = found;
    return OK;
}

/* All blocks are counted. */
static void sum_blocks(Stream *stream)
{
    uint64_t count = dataset_num_blocks(stream->dataset), sum = 0, records;
    uint64_t *first = mem_alloc(count * sizeof *first);
    for (uint64_t i = 0; i < count; i++) {
        CHECK(dataset_block_counted(stream->dataset, i, &records));
        first[i] = sum;
        sum += records;
    }
    stream->block_first = first;
}

Status stream_index(StreamReader *reader, const StreamPlace *place, uint64_t *ret, Error *err)
{
    Stream *stream = (Stream *)(uintptr_t)reader->stream; /* the sums have a lock of their own */
    *ret = place->index;
    if (stream->window == NULL) return OK;
    if (stream->block_first == NULL) {
        uint64_t records;
        TRY(window_order_count(stream->window, &records, err));
        pthread_mutex_lock(&stream->lock);
        if (stream->block_first == NULL) sum_blocks(stream);
        pthread_mutex_unlock(&stream->lock);
    }
    *ret += stream->block_first[place->block];
    return OK;
}

Status stream_read(StreamReader *reader, uint64_t position, Str *text, StreamRecord *ret,
                   Error *err)
{
    const Dataset *dataset = reader->stream->dataset;
    StreamPlace place;
    ret->bad = false;
    TRY(stream_place(reader, position, &place, err));
    ret->place = place;
    Status status =
        reader->window != NULL
            ? dataset_read_block(dataset, place.block, place.index, text, &ret->source, err)
            : dataset_read(dataset, place.index, text, &ret->source, err);
    ret->bad = status == ERR_DATA;
    return status;
}
