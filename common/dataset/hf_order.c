/* From the source of `datasets` (iterable_dataset.py) at the releases named; what they do:
 *
 *   files     shuffle(range(files)) by default_rng(seed). From 4.4 on, an epoch e > 0 shuffles what
 *             came of it once more by default_rng(e).
 *   input     the files one after another. From 5.0 on they are cut into up to 10 runs, which take
 *             turns: one record each in 5.0, where the second shuffle stays inside a run; later a
 *             tenth of the buffer each.
 *   buffer    up to 5.0: fill it; then for each record that comes emit that of a slot drawn, and
 *             take its place; at the end shuffle what is left. Later: when it is full permute it,
 *             emit the first half and keep the other.
 *   generator of the buffer: default_rng(seed) for epoch 0. Later up to 4.3 default_rng of its
 * first 63 bits less e, which then shuffles the files, too; from 4.4 on the same for the buffer
 * alone. */
#include "dataset/hf_order.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "dataset/numpy_rng.h"

#define RUNS_MAX       10
#define DRAWS          1000       /* that the package draws at a time */
#define CHUNK_RECORDS  16384      /* of an epoch, kept as they were emitted */
#define CHUNKS_MAX     16         /* kept */
#define CHUNKS_A_POINT 16         /* at first */
#define POINT_BYTES    (8u << 20) /* of all points, about */
#define POINTS_MAX     64

typedef struct Algorithm {
    const char *name;
    bool new_seed_of_epoch; /* for the files, too */
    int runs;
    bool runs_are_kept; /* by the second shuffle of the files */
    bool by_halves;
} Algorithm;

static const Algorithm algorithms[HF_RELEASES] = {
    [HF_4_3] = {"4.3", .new_seed_of_epoch = true, .runs = 1},
    [HF_4_8] = {"4.8", .runs = 1},
    [HF_5_0] = {"5.0", .runs = RUNS_MAX, .runs_are_kept = true},
    [HF_5_2] = {"5.2", .runs = RUNS_MAX, .by_halves = true},
};

/* Files that are read one after another. */
typedef struct Run {
    size_t file, end; /* in the order of the epoch */
    uint64_t at;      /* records of `file` that were taken */
    uint64_t left;    /* records of all of it */
} Run;

/* An epoch up to a point. `buffer` is the state's own. */
typedef struct Replay {
    uint64_t emitted;
    Run run[RUNS_MAX];
    int num_runs, turn;
    uint64_t turn_left; /* records until the next run's turn */
    NumpyRng rng;
    uint32_t draw[DRAWS];
    int num_draws; /* that are left, at the end of `draw` */
    uint64_t *buffer;
    uint64_t held;             /* records in the buffer */
    uint64_t ready, ready_end; /* of the buffer, that are emitted next, in their order */
    bool ended;                /* the input; what is left is being emitted */
} Replay;

typedef struct Chunk {
    uint64_t epoch, number, used;
    uint64_t *record; /* [CHUNK_RECORDS]; NULL: none */
} Chunk;

struct HfOrder {
    Algorithm algorithm;
    uint64_t buffer_size, batch, seed, total;
    ReadWatch *watch;
    size_t num_files;
    uint64_t *records, *first; /* [num_files] */
    pthread_mutex_t lock;      /* of what follows */
    uint64_t epoch;            /* of `file`, `replay` and `point`; UINT64_MAX: none yet */
    uint64_t *file;            /* [num_files]: which stands where */
    Replay replay;
    Replay point[POINTS_MAX]; /* at every chunk whose number divides by chunks_a_point, as far as
                                 somebody came by */
    int num_points, points_max;
    uint64_t chunks_a_point;
    Chunk chunk[CHUNKS_MAX];
    uint64_t uses;
};

const char *hf_release_name(HfRelease release)
{
    return algorithms[release].name;
}

/* ---- one epoch ---- */

static size_t buffer_capacity(const HfOrder *order)
{
    return (size_t)(order->buffer_size + order->batch);
}

/* Applies the package's shuffle of a list of `count` files to file[0, count). */
static void shuffle_files(NumpyRng rng, uint64_t *file, size_t count)
{
    uint64_t *index = mem_alloc(count * sizeof *index), *before = mem_alloc(count * sizeof *before);
    for (size_t i = 0; i < count; i++)
        index[i] = i;
    memcpy(before, file, count * sizeof *file);
    numpy_rng_shuffle(&rng, index, count);
    for (size_t i = 0; i < count; i++)
        file[i] = before[index[i]];
    free(before);
    free(index);
}

static int count_runs(const HfOrder *order)
{
    size_t most = (size_t)order->algorithm.runs;
    return (int)(order->num_files < most ? order->num_files : most);
}

/* A run's files, of `num_runs` runs as even as may be, the longer ones first. */
static Run cut_run(const HfOrder *order, int num_runs, int index)
{
    size_t runs = (size_t)num_runs, at = (size_t)index;
    size_t each = order->num_files / runs, longer = order->num_files % runs;
    Run run = {.file = each * at + (at < longer ? at : longer)};
    run.end = run.file + each + (at < longer);
    return run;
}

/* Which file stands where in the epoch. */
static void order_files(HfOrder *order, NumpyRng rng, uint64_t epoch)
{
    const Algorithm *algorithm = &order->algorithm;
    for (size_t i = 0; i < order->num_files; i++)
        order->file[i] = i;
    shuffle_files(rng, order->file, order->num_files);
    if (epoch == 0 || algorithm->new_seed_of_epoch) return;
    int num_runs = algorithm->runs_are_kept ? count_runs(order) : 1;
    for (int i = 0; i < num_runs; i++) {
        Run run = cut_run(order, num_runs, i);
        shuffle_files(numpy_rng(epoch), order->file + run.file, run.end - run.file);
    }
}

/* default_rng(draw - epoch), where the draw does not depend on the epoch. */
static NumpyRng shifted_rng(NumpyRng rng, uint64_t epoch)
{
    uint64_t seed = numpy_rng_63_bits(&rng) - epoch;
    return numpy_rng(seed & INT64_MAX); /* below 0, 2^63 is added */
}

static NumpyRng rng_of_epoch(const HfOrder *order, uint64_t epoch)
{
    NumpyRng rng = numpy_rng(order->seed);
    return epoch > 0 ? shifted_rng(rng, epoch) : rng;
}

/* Puts the replay at the beginning of the epoch whose files are in order. */
static void begin_replay(HfOrder *order)
{
    Replay *replay = &order->replay;
    *replay = (Replay){.buffer = replay->buffer,
                       .rng = rng_of_epoch(order, order->epoch),
                       .num_runs = count_runs(order),
                       .turn_left = order->batch};
    for (int i = 0; i < replay->num_runs; i++) {
        Run run = cut_run(order, replay->num_runs, i);
        for (size_t k = run.file; k < run.end; k++)
            run.left += order->records[order->file[k]];
        replay->run[i] = run;
    }
}

static void begin_epoch(HfOrder *order, uint64_t epoch)
{
    order->epoch = epoch;
    order_files(order,
                order->algorithm.new_seed_of_epoch ? rng_of_epoch(order, epoch)
                                                   : numpy_rng(order->seed),
                epoch);
    for (int i = 0; i < order->num_points; i++)
        free(order->point[i].buffer);
    order->num_points = 0;
    order->chunks_a_point = CHUNKS_A_POINT;
    begin_replay(order);
}

static uint64_t take_of_run(const HfOrder *order, Run *run)
{
    while (run->at == order->records[order->file[run->file]]) {
        run->file++;
        run->at = 0;
    }
    run->left--;
    return order->first[order->file[run->file]] + run->at++;
}

/* The next record of the input; false at its end. *ret_batch_ends: another run has its turn next.
 */
static bool next_input(const HfOrder *order, Replay *replay, uint64_t *ret, bool *ret_batch_ends)
{
    for (int passed = 0; replay->run[replay->turn].left == 0;) {
        if (++passed > replay->num_runs) return false;
        replay->turn = (replay->turn + 1) % replay->num_runs;
    }
    Run *run = &replay->run[replay->turn];
    *ret = take_of_run(order, run);
    *ret_batch_ends = --replay->turn_left == 0 || run->left == 0;
    if (*ret_batch_ends) {
        replay->turn = (replay->turn + 1) % replay->num_runs;
        replay->turn_left = order->batch;
    }
    return true;
}

static uint32_t next_slot(const HfOrder *order, Replay *replay)
{
    if (replay->num_draws == 0) {
        for (int i = 0; i < DRAWS; i++)
            replay->draw[i] = numpy_rng_below(&replay->rng, order->buffer_size);
        replay->num_draws = DRAWS;
    }
    return replay->draw[DRAWS - replay->num_draws--];
}

/* What is left is emitted in an order of its own. */
static void end_input(Replay *replay)
{
    replay->ended = true;
    numpy_rng_shuffle(&replay->rng, replay->buffer, replay->held);
    replay->ready = 0;
    replay->ready_end = replay->held;
}

/* Up to 5.0: each record that comes takes the place of one that goes. */
static uint64_t next_by_slots(const HfOrder *order, Replay *replay)
{
    uint64_t record;
    bool batch_ends;
    while (!replay->ended) {
        if (!next_input(order, replay, &record, &batch_ends)) {
            end_input(replay);
            break;
        }
        if (replay->held == order->buffer_size) {
            uint32_t slot = next_slot(order, replay);
            uint64_t gone = replay->buffer[slot];
            replay->buffer[slot] = record;
            return gone;
        }
        replay->buffer[replay->held++] = record;
    }
    return replay->buffer[replay->ready++];
}

/* numpy's permutation(held), applied to the buffer. */
static void permute_buffer(Replay *replay)
{
    /* To shuffle the values is to take them by the shuffled indices. */
    numpy_rng_shuffle(&replay->rng, replay->buffer, replay->held);
}

/* 5.1 on. */
static uint64_t next_by_halves(const HfOrder *order, Replay *replay)
{
    uint64_t keep = order->buffer_size / 2;
    if (replay->ready == replay->ready_end && !replay->ended) {
        memmove(replay->buffer, replay->buffer + replay->ready_end,
                (replay->held - replay->ready_end) * sizeof *replay->buffer);
        replay->held -= replay->ready_end;
        replay->ready = replay->ready_end = 0;
        bool batch_ends = false;
        while (!(batch_ends && replay->held >= order->buffer_size)) {
            if (!next_input(order, replay, &replay->buffer[replay->held], &batch_ends)) {
                end_input(replay);
                return replay->buffer[replay->ready++];
            }
            replay->held++;
        }
        permute_buffer(replay);
        replay->ready_end = replay->held - keep;
    }
    return replay->buffer[replay->ready++];
}

static uint64_t next_record(const HfOrder *order, Replay *replay)
{
    replay->emitted++;
    return order->algorithm.by_halves ? next_by_halves(order, replay)
                                      : next_by_slots(order, replay);
}

/* ---- points and chunks ---- */

static void copy_replay(const HfOrder *order, Replay *to, const Replay *from)
{
    uint64_t *buffer = to->buffer;
    if (buffer == NULL) buffer = mem_alloc(buffer_capacity(order) * sizeof *buffer);
    *to = *from;
    to->buffer = buffer;
    memcpy(buffer, from->buffer, from->held * sizeof *buffer);
}

/* Every second point goes. */
static void thin_points(HfOrder *order)
{
    int kept = 0;
    order->chunks_a_point *= 2;
    for (int i = 0; i < order->num_points; i++) {
        Replay point = order->point[i];
        if (point.emitted / CHUNK_RECORDS % order->chunks_a_point == 0)
            order->point[kept++] = point;
        else
            free(point.buffer);
    }
    order->num_points = kept;
}

/* The replay stands at the beginning of a chunk. Points stand in the order of the epoch. */
static void keep_point(HfOrder *order)
{
    uint64_t number = order->replay.emitted / CHUNK_RECORDS;
    int last = order->num_points - 1;
    if (number == 0 || number % order->chunks_a_point != 0) return;
    if (last >= 0 && order->point[last].emitted >= order->replay.emitted) return;
    if (order->num_points == order->points_max) {
        thin_points(order);
        if (number % order->chunks_a_point != 0) return;
    }
    Replay *point = &order->point[order->num_points++];
    point->buffer = NULL;
    copy_replay(order, point, &order->replay);
}

/* Puts the replay at or before `place`, as near as what is kept allows. */
static void seek(HfOrder *order, uint64_t epoch, uint64_t place)
{
    if (order->epoch != epoch) begin_epoch(order, epoch);
    const Replay *nearest = NULL;
    for (int i = 0; i < order->num_points && order->point[i].emitted <= place; i++)
        nearest = &order->point[i];
    bool here = order->replay.emitted <= place;
    if (here && (nearest == NULL || nearest->emitted <= order->replay.emitted)) return;
    if (nearest != NULL)
        copy_replay(order, &order->replay, nearest);
    else
        begin_replay(order);
}

static void emit_chunk(HfOrder *order, uint64_t *ret)
{
    uint64_t left = order->total - order->replay.emitted;
    uint64_t count = left < CHUNK_RECORDS ? left : CHUNK_RECORDS;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t record = next_record(order, &order->replay);
        if (ret != NULL) ret[i] = record;
    }
}

/* Replays up to `place`, which may take minutes where nothing is kept of the way there. */
static Status replay_to(HfOrder *order, uint64_t place, Error *err)
{
    ReadWatch *watch = order->watch;
    while (order->replay.emitted < place) {
        if (watch != NULL && watch->cancelled)
            return error_set(err, ERR_CANCELLED, "the reading was cancelled");
        if (watch != NULL) watch->progress++;
        keep_point(order);
        emit_chunk(order, NULL);
    }
    return OK;
}

static Status find_chunk(HfOrder *order, uint64_t epoch, uint64_t number, Chunk **ret, Error *err)
{
    Chunk *oldest = &order->chunk[0];
    for (int i = 0; i < CHUNKS_MAX; i++) {
        Chunk *chunk = &order->chunk[i];
        if (chunk->record != NULL && chunk->epoch == epoch && chunk->number == number) {
            *ret = chunk;
            return OK;
        }
        if (chunk->used < oldest->used) oldest = chunk;
    }
    seek(order, epoch, number * CHUNK_RECORDS);
    TRY(replay_to(order, number * CHUNK_RECORDS, err));
    keep_point(order);
    if (oldest->record == NULL) oldest->record = mem_alloc(CHUNK_RECORDS * sizeof *oldest->record);
    emit_chunk(order, oldest->record);
    oldest->epoch = epoch;
    oldest->number = number;
    *ret = oldest;
    return OK;
}

Status hf_order_record(HfOrder *order, uint64_t epoch, uint64_t place, uint64_t *ret, Error *err)
{
    CHECK(place < order->total);
    Chunk *chunk = NULL;
    pthread_mutex_lock(&order->lock);
    Status status = find_chunk(order, epoch, place / CHUNK_RECORDS, &chunk, err);
    if (status == OK) {
        chunk->used = ++order->uses;
        *ret = chunk->record[place % CHUNK_RECORDS];
    }
    pthread_mutex_unlock(&order->lock);
    return status;
}

/* ---- the whole ---- */

HfOrder *hf_order_create(const HfOptions *options, uint64_t seed, const uint64_t *records,
                         size_t num_files)
{
    CHECK(options->buffer_size > 0 && options->buffer_size <= HF_BUFFER_MAX);
    HfOrder *order = mem_calloc(1, sizeof *order);
    order->algorithm = algorithms[options->release];
    order->buffer_size = options->buffer_size;
    order->batch = 1;
    if (order->algorithm.by_halves && options->buffer_size >= RUNS_MAX)
        order->batch = options->buffer_size / RUNS_MAX;
    order->watch = options->watch;
    order->seed = seed;
    order->num_files = num_files;
    order->records = mem_alloc(num_files * sizeof *order->records);
    order->first = mem_alloc(num_files * sizeof *order->first);
    order->file = mem_alloc(num_files * sizeof *order->file);
    for (size_t i = 0; i < num_files; i++) {
        order->records[i] = records[i];
        order->first[i] = order->total;
        order->total += records[i];
    }
    CHECK(order->total > 0);
    order->replay.buffer = mem_alloc(buffer_capacity(order) * sizeof *order->replay.buffer);
    uint64_t points = POINT_BYTES / (buffer_capacity(order) * sizeof *order->replay.buffer);
    order->points_max = points < 2 ? 2 : points > POINTS_MAX ? POINTS_MAX : (int)points;
    order->epoch = UINT64_MAX;
    pthread_mutex_init(&order->lock, NULL);
    return order;
}

void hf_order_destroy(HfOrder *order)
{
    if (order == NULL) return;
    for (int i = 0; i < CHUNKS_MAX; i++)
        free(order->chunk[i].record);
    for (int i = 0; i < order->num_points; i++)
        free(order->point[i].buffer);
    free(order->replay.buffer);
    free(order->file);
    free(order->first);
    free(order->records);
    pthread_mutex_destroy(&order->lock);
    free(order);
}
