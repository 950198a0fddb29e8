#include "dataset/mixture.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/data_path.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/rng.h"

/* One of `stream` and `reader`. */
typedef struct Source {
    char *name;
    Stream *stream;
    UserReader *reader;
    uint64_t records; /* of a pass of the reader; 0: not known */
} Source;

struct Mixture {
    Source source[INTERLEAVE_SOURCES_MAX];
    int num_sources;
    Interleave turns;
    EpochEnd epoch_end;
};

struct MixtureReader {
    const Mixture *mixture;
    InterleaveCursor cursor;
    StreamReader *stream[INTERLEAVE_SOURCES_MAX]; /* NULL: of a reader */
};

/* ---- opening ---- */

/* So that two sources with the same data do not give the same records at the same time. */
static uint64_t seed_of(const MixtureOptions *options, const MixtureSource *source)
{
    return options->num_sources == 1 ? options->seed : rng_key(options->seed, source->name);
}

static Status open_reader(const MixtureOptions *options, const MixtureSource *source, Source *ret,
                          Error *err)
{
    bool alone = strcmp(source->key, "data.train") == 0;
    char *key = alone ? mem_strdup("data.reader") : mem_printf("%s.reader", source->key);
    UserReaderOptions reader = {
        .key = source->key,
        .reader_key = key,
        .name = source->name,
        .library = source->reader,
        .options = source->reader_options,
        .path = source->path,
        .num_paths = source->num_paths,
        .index_folder = options->index_folder,
        .index_read_only = options->index_read_only,
        .shuffle = source->order.kind != ORDER_FILES,
        .seed = seed_of(options, source),
        .watch = options->watch,
    };
    Status status = user_reader_open(&reader, &ret->reader, err);
    if (status == OK) ret->records = user_reader_records(ret->reader);
    free(key);
    return status;
}

static Status open_files(const MixtureOptions *options, const MixtureSource *source, Source *ret,
                         Error *err)
{
    StreamOptions stream = {
        .key = source->key,
        .path = source->path,
        .num_paths = source->num_paths,
        .index_folder = options->index_folder,
        .index_read_only = options->index_read_only,
        .records_max = options->records_max,
        .cache_max = DATASET_CACHE_MAX / (unsigned)options->num_sources,
        .order = source->order,
        .seed = seed_of(options, source),
        .pool = options->pool,
        .folder = options->folder,
        .hub = options->hub,
        .watch = options->watch,
    };
    return stream_open(&stream, &ret->stream, err);
}

static Status make_turns(const MixtureOptions *options, Mixture *mixture, Error *err)
{
    const char *name[INTERLEAVE_SOURCES_MAX];
    double weight[INTERLEAVE_SOURCES_MAX];
    for (int i = 0; i < options->num_sources; i++) {
        name[i] = options->source[i].name;
        weight[i] = options->source[i].weight;
    }
    int small = interleave_make(options->seed, name, weight, options->num_sources, &mixture->turns);
    if (small < 0) return OK;
    return error_set(err, ERR_INVALID,
                     "%s.weight is %g, of all weights together less than one in four thousand "
                     "million\n  to do: leave the source out, or raise its weight",
                     options->source[small].key, weight[small]);
}

/* Each source is in a window of its own at the same time: bytes of it, 0 where it needs none. */
static Status check_memory(const MixtureOptions *options, const uint64_t *window, Error *err)
{
    uint64_t most = options->memory_max, sum = 0, windows = 0;
    if (most == 0) most = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2;
    for (int i = 0; i < options->num_sources; i++) {
        sum += window[i];
        windows += window[i] > 0;
    }
    if (windows < 2 || sum <= most) return OK;
    return error_set(err, ERR_RESOURCE,
                     "%s: the windows of %llu sources whose files have to be decoded take %llu MB "
                     "of memory together\n  expected: at most %llu MB, half of what there is\n"
                     "  to do: lower data.window_mb, or join sources",
                     options->source[0].key, (unsigned long long)windows,
                     (unsigned long long)(sum >> 20), (unsigned long long)(most >> 20));
}

static void ask_windows(const Mixture *mixture, uint64_t ret[INTERLEAVE_SOURCES_MAX])
{
    for (int i = 0; i < mixture->num_sources; i++) {
        const Stream *stream = mixture->source[i].stream;
        ret[i] = stream != NULL ? stream_window_bytes(stream) : 0;
    }
}

/* Whether sizes tell how much data it has: others are indexed for that, or fetched. */
static bool is_sized(const MixtureSource *source)
{
    bool sized = true;
    for (int i = 0; i < source->num_paths; i++) {
        DataPath path = data_path_parse(source->path[i]);
        sized = sized && !path.sliced && path.hub.repo == NULL;
        data_path_free(&path);
    }
    return sized;
}

Status mixture_check_windows(const Mixture *mixture, const MixtureOptions *options, Error *err)
{
    uint64_t window[INTERLEAVE_SOURCES_MAX];
    ask_windows(mixture, window);
    if (check_memory(options, window, NULL) == OK) return OK;
    MixtureOptions whole = *options;
    whole.records_max = 0;
    for (int i = 0; i < options->num_sources; i++) {
        Source opened = {0};
        if (window[i] == 0 || !is_sized(&options->source[i])) continue;
        TRY(open_files(&whole, &options->source[i], &opened, err));
        window[i] = stream_window_bytes(opened.stream);
        stream_close(opened.stream);
    }
    return check_memory(options, window, err);
}

Status mixture_open(const MixtureOptions *options, Mixture **ret, Error *err)
{
    uint64_t window[INTERLEAVE_SOURCES_MAX];
    CHECK(options->num_sources > 0 && options->num_sources <= INTERLEAVE_SOURCES_MAX);
    Mixture *mixture = mem_calloc(1, sizeof *mixture);
    mixture->epoch_end = options->epoch_end;
    Status status = make_turns(options, mixture, err);
    for (int i = 0; i < options->num_sources && status == OK; i++) {
        const MixtureSource *source = &options->source[i];
        Source *opened = &mixture->source[mixture->num_sources++];
        opened->name = mem_strdup(source->name);
        status = source->reader != NULL ? open_reader(options, source, opened, err)
                                        : open_files(options, source, opened, err);
    }
    if (status == OK && options->records_max == 0) {
        ask_windows(mixture, window);
        status = check_memory(options, window, err);
    }
    if (status == OK) {
        *ret = mixture;
        mixture = NULL;
    }
    mixture_close(mixture);
    return status;
}

void mixture_close(Mixture *mixture)
{
    if (mixture == NULL) return;
    for (int i = 0; i < mixture->num_sources; i++) {
        free(mixture->source[i].name);
        stream_close(mixture->source[i].stream);
        user_reader_close(mixture->source[i].reader);
    }
    free(mixture);
}

/* ---- what it is ---- */

static const Source *source_at(const Mixture *mixture, int source)
{
    CHECK(source >= 0 && source < mixture->num_sources);
    return &mixture->source[source];
}

int mixture_num_sources(const Mixture *mixture)
{
    return mixture->num_sources;
}

const char *mixture_source_name(const Mixture *mixture, int source)
{
    return source_at(mixture, source)->name;
}

uint64_t mixture_source_records(const Mixture *mixture, int source)
{
    const Source *found = source_at(mixture, source);
    return found->stream != NULL ? stream_records(found->stream) : found->records;
}

const Dataset *mixture_source_dataset(const Mixture *mixture, int source)
{
    const Stream *stream = source_at(mixture, source)->stream;
    return stream != NULL ? stream_dataset(stream) : NULL;
}

const UserReader *mixture_source_reader(const Mixture *mixture, int source)
{
    return source_at(mixture, source)->reader;
}

const Interleave *mixture_turns(const Mixture *mixture)
{
    return &mixture->turns;
}

uint64_t mixture_records(const Mixture *mixture)
{
    uint64_t records[INTERLEAVE_SOURCES_MAX];
    for (int i = 0; i < mixture->num_sources; i++)
        records[i] = mixture_source_records(mixture, i);
    return interleave_epoch(&mixture->turns, records, mixture->epoch_end);
}

Status mixture_count(const Mixture *mixture, Error *err)
{
    for (int i = 0; i < mixture->num_sources; i++) {
        uint64_t records;
        const Stream *stream = mixture->source[i].stream;
        if (stream != NULL) TRY(stream_count(stream, &records, err));
    }
    return OK;
}

typedef void StreamFingerprint(const Stream *stream, char ret[DIGEST_HEX_BYTES]);

static void source_fingerprint(const Mixture *mixture, int index, StreamFingerprint *of,
                               char ret[DIGEST_HEX_BYTES])
{
    const Source *source = source_at(mixture, index);
    if (source->reader != NULL)
        user_reader_fingerprint(source->reader, ret);
    else
        of(source->stream, ret);
}

/* What an epoch is does not change which record stands at a position. */
static void fingerprint(const Mixture *mixture, StreamFingerprint *of, char ret[DIGEST_HEX_BYTES])
{
    if (mixture->num_sources == 1) {
        source_fingerprint(mixture, 0, of, ret);
        return;
    }
    Str text = {0};
    str_printf(&text, "troupe mixture %d\n", INTERLEAVE_VERSION);
    for (int i = 0; i < mixture->num_sources; i++) {
        char source[DIGEST_HEX_BYTES];
        source_fingerprint(mixture, i, of, source);
        str_printf(&text, "%s %llu %016llx %s\n", mixture->source[i].name,
                   (unsigned long long)mixture->turns.share[i],
                   (unsigned long long)mixture->turns.key[i], source);
    }
    digest_bytes(text.data, text.length, ret);
    str_free(&text);
}

void mixture_fingerprint(const Mixture *mixture, char ret[DIGEST_HEX_BYTES])
{
    fingerprint(mixture, stream_fingerprint, ret);
}

void mixture_order_fingerprint(const Mixture *mixture, char ret[DIGEST_HEX_BYTES])
{
    fingerprint(mixture, stream_order_fingerprint, ret);
}

/* ---- reading ---- */

MixtureReader *mixture_reader_open(const Mixture *mixture)
{
    MixtureReader *reader = mem_calloc(1, sizeof *reader);
    reader->mixture = mixture;
    reader->cursor = interleave_cursor(&mixture->turns, 0);
    for (int i = 0; i < mixture->num_sources; i++)
        if (mixture->source[i].stream != NULL)
            reader->stream[i] = stream_reader_open(mixture->source[i].stream);
    return reader;
}

void mixture_reader_close(MixtureReader *reader)
{
    if (reader == NULL) return;
    for (int i = 0; i < reader->mixture->num_sources; i++)
        stream_reader_close(reader->stream[i]);
    free(reader);
}

static Status read_files(StreamReader *reader, Str *text, Str *place, MixtureRecord *ret,
                         Error *err)
{
    Error why = {0};
    StreamRecord record = {0};
    Status status = stream_read(reader, ret->position, text, &record, &why);
    ret->bad = record.bad;
    if (status != OK && !ret->bad) {
        if (err != NULL) *err = why;
        return status;
    }
    ret->pass = record.place.epoch;
    ret->block = record.place.block;
    ret->index = record.place.index;
    char *source = record_source_text(&record.source);
    str_puts(place, source);
    free(source);
    record_source_place(&record.source, ret->at);
    if (ret->bad) str_puts(text, why.message);
    return OK;
}

Status mixture_read_source(MixtureReader *reader, int index, uint64_t position, Str *text,
                           Str *place, MixtureRecord *ret, Error *err)
{
    const Source *source = source_at(reader->mixture, index);
    MixtureRecord record = {.source = index, .position = position, .index = position};
    Status status = OK;
    if (source->reader != NULL) {
        UserRecord read;
        status = user_reader_read(source->reader, position, text, place, &read, err);
        if (status == OK) record.pass = read.epoch;
        if (status == OK) record.bad = read.bad;
    } else {
        status = read_files(reader->stream[index], text, place, &record, err);
    }
    if (status == OK) *ret = record;
    return status;
}

static InterleavePlace find_due(MixtureReader *reader, uint64_t position)
{
    const Mixture *mixture = reader->mixture;
    if (mixture->num_sources == 1) return (InterleavePlace){.source = 0, .position = position};
    if (reader->cursor.position != position)
        reader->cursor = interleave_cursor(&mixture->turns, position);
    return interleave_next(&reader->cursor);
}

Status mixture_place(MixtureReader *reader, uint64_t position, MixtureRecord *ret, Error *err)
{
    InterleavePlace due = find_due(reader, position);
    StreamPlace place = {.index = due.position};
    StreamReader *stream = reader->stream[due.source];
    if (stream != NULL) TRY(stream_place(stream, due.position, &place, err));
    *ret = (MixtureRecord){.source = due.source,
                           .pass = place.epoch,
                           .position = due.position,
                           .block = place.block,
                           .index = place.index};
    return OK;
}

Status mixture_read(MixtureReader *reader, uint64_t position, Str *text, Str *place,
                    MixtureRecord *ret, Error *err)
{
    InterleavePlace due = find_due(reader, position);
    return mixture_read_source(reader, due.source, due.position, text, place, ret, err);
}

Status mixture_index(MixtureReader *reader, const MixtureRecord *record, uint64_t *ret, Error *err)
{
    StreamReader *stream = reader->stream[record->source];
    StreamPlace place = {record->pass, record->block, record->index};
    *ret = record->index;
    return stream != NULL ? stream_index(stream, &place, ret, err) : OK;
}

bool mixture_describe(const Mixture *mixture, char *text, size_t size)
{
    for (int i = 0; i < mixture->num_sources; i++) {
        const UserReader *reader = mixture->source[i].reader;
        if (reader != NULL && user_reader_describe(reader, text, size)) return true;
    }
    return false;
}
