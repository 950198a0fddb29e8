#include "dataset/window.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/memory.h"
#include "base/plural.h"
#include "base/rng.h"
#include "dataset/shuffle.h"

#define COUNTERS_MAX 4 /* threads */
#define EPOCHS_KEPT  2 /* readers stand in two around the end of one */
#define VIEWS_KEPT   4
#define WAIT_MS      200 /* between looks whether the wait was cancelled */
#define HANDOVER_MS  200 /* that a window waits for the readers of those before it */

/* The blocks of an epoch in their order. */
typedef struct Epoch {
    uint64_t epoch, used;
    uint64_t *block;             /* [num_blocks]; NULL: none */
    uint64_t *window;            /* [num_windows + 1]: where each begins in `block` */
    uint64_t *before;            /* [num_windows + 1]: records before each, as far as ... */
    uint64_t num_windows, known; /* ... the windows below this are counted */
} Epoch;

/* A window of which records are being read. */
typedef struct View {
    int users;
    uint64_t epoch, window, used;
    uint64_t first, records; /* of the epoch */
    uint64_t num_blocks;
    uint64_t *block;  /* [num_blocks] */
    uint64_t *before; /* [num_blocks + 1]: records of the window before each */
    Permutation permutation;
} View;

struct WindowOrder {
    WindowOptions options;
    uint64_t num_blocks;
    int num_files;
    bool decoded;         /* a window is held in memory */
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t counted, left;
    uint64_t uses;
    Epoch epoch[EPOCHS_KEPT];
    View *view[VIEWS_KEPT];
    uint64_t records;       /* of all blocks, once ... */
    bool complete;          /* ... they are counted */
    const uint64_t *errand; /* [num_blocks]: the order of counting; owned */
    uint64_t next, done;    /* of it */
    uint64_t failed_at;     /* place in it of the first block that could not be counted */
    Error err;              /* of that one */
    _Atomic bool closing;
    pthread_t counter[COUNTERS_MAX];
    int num_counters;
};

struct WindowCursor {
    WindowOrder *order;
    View *view; /* or NULL */
};

/* ---- the order of an epoch ---- */

static uint64_t bytes_of_file(const WindowOrder *order, int file)
{
    uint64_t first, end, bytes = 0;
    dataset_file_blocks(order->options.dataset, file, &first, &end);
    for (uint64_t i = first; i < end; i++)
        bytes += dataset_block_bytes(order->options.dataset, i);
    return bytes;
}

/* Which files, in their permuted order, make the group that begins with the file at `first`. */
static int group_end(const WindowOrder *order, const Permutation *files, int first)
{
    uint64_t bytes = 0, least = order->options.window_bytes * WINDOW_GROUP_WINDOWS;
    int end = first;
    while (end < order->num_files && (end < first + WINDOW_FILES || bytes < least))
        bytes += bytes_of_file(order, (int)permutation_at(files, (uint64_t)end++));
    return end;
}

/* The blocks of the files [first, end) of the permuted ones; owned. */
static uint64_t *list_blocks(const WindowOrder *order, const Permutation *files, int first, int end,
                             uint64_t *ret_count)
{
    const Dataset *dataset = order->options.dataset;
    uint64_t count = 0, from, to;
    for (int i = first; i < end; i++) {
        dataset_file_blocks(dataset, (int)permutation_at(files, (uint64_t)i), &from, &to);
        count += to - from;
    }
    uint64_t *block = mem_alloc((count + 1) * sizeof *block);
    *ret_count = 0;
    for (int i = first; i < end; i++) {
        dataset_file_blocks(dataset, (int)permutation_at(files, (uint64_t)i), &from, &to);
        for (uint64_t k = from; k < to; k++)
            block[(*ret_count)++] = k;
    }
    return block;
}

/* Runs of blocks that are read side by side: each lane stands in one, and goes on with the next. */
typedef struct Lanes {
    const uint64_t *block; /* [count], of a group */
    const bool *begins;    /* [count]: a run begins here; those of one block are no runs */
    const uint64_t *run;   /* [num_runs]: where they begin in `block`, permuted */
    uint64_t count, num_runs, next_run;
    uint64_t at[WINDOW_LANES];
    int num_lanes;
} Lanes;

/* The next block of a lane that `draw` chooses. */
static uint64_t next_in_lanes(Lanes *lanes, uint64_t key, uint64_t draw)
{
    while (lanes->num_lanes < WINDOW_LANES && lanes->next_run < lanes->num_runs)
        lanes->at[lanes->num_lanes++] = lanes->run[lanes->next_run++];
    int lane = (int)rng_below(key, draw, (uint64_t)lanes->num_lanes);
    uint64_t at = lanes->at[lane]++;
    if (at + 1 == lanes->count || lanes->begins[at + 1]) {
        lanes->num_lanes--;
        memmove(&lanes->at[lane], &lanes->at[lane + 1],
                (size_t)(lanes->num_lanes - lane) * sizeof *lanes->at);
    }
    return lanes->block[at];
}

/* Finds the runs of several blocks among those of a group, and permutes them; `run` has room. */
static void find_runs(const WindowOrder *order, uint64_t tag, bool *begins, uint64_t *run,
                      Lanes *lanes)
{
    const Dataset *dataset = order->options.dataset;
    uint64_t *found = mem_alloc((lanes->count + 1) * sizeof *found);
    for (uint64_t i = 0; i < lanes->count; i++)
        begins[i] = dataset_block_run(dataset, lanes->block[i]) == lanes->block[i];
    for (uint64_t i = 0; i + 1 < lanes->count; i++)
        if (begins[i] && !begins[i + 1]) found[lanes->num_runs++] = i;
    if (lanes->num_runs == 0) {
        free(found);
        return;
    }
    Permutation permutation =
        permutation_of(rng_key(order->options.seed, "window runs"), tag, lanes->num_runs);
    for (uint64_t i = 0; i < lanes->num_runs; i++)
        run[i] = found[permutation_at(&permutation, i)];
    free(found);
}

/* Puts the blocks of a group, permuted, behind each other; returns their number. In the place of a
 * block of a run stands the next one of the lanes. */
static uint64_t order_group(const WindowOrder *order, const Permutation *files, int first, int end,
                            uint64_t tag, uint64_t *block)
{
    uint64_t count = 0, *listed = list_blocks(order, files, first, end, &count);
    bool *begins = mem_calloc(count + 1, sizeof *begins);
    uint64_t *run = mem_alloc((count + 1) * sizeof *run);
    Lanes lanes = {.block = listed, .begins = begins, .run = run, .count = count};
    find_runs(order, tag, begins, run, &lanes);
    uint64_t key = rng_key(order->options.seed, "window blocks");
    uint64_t lane_key = rng_mix(rng_key(order->options.seed, "window lanes") + tag);
    Permutation permutation = permutation_of(key, tag, count);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = permutation_at(&permutation, i);
        bool of_run = !begins[at] || (at + 1 < count && !begins[at + 1]);
        block[i] = of_run ? next_in_lanes(&lanes, lane_key, i) : listed[at];
    }
    free(listed);
    free(begins);
    free(run);
    return count;
}

/* Of a file that is counted from its beginning on the permutation says whose turn it is alone. */
static void keep_sequences(const WindowOrder *order, uint64_t *block, uint64_t count)
{
    uint64_t *turn = mem_calloc((size_t)order->num_files, sizeof *turn), first, end;
    for (uint64_t i = 0; i < count; i++) {
        int file;
        if (!dataset_block_in_sequence(order->options.dataset, block[i], &file)) continue;
        dataset_file_blocks(order->options.dataset, file, &first, &end);
        block[i] = first + turn[file]++;
    }
    free(turn);
}

/* A window ends where it has its bytes, and with its group. */
static void cut_windows(const WindowOrder *order, Epoch *epoch, uint64_t first, uint64_t end)
{
    uint64_t bytes = 0;
    for (uint64_t i = first; i < end; i++) {
        bytes += dataset_block_bytes(order->options.dataset, epoch->block[i]);
        if (bytes < order->options.window_bytes && i + 1 < end) continue;
        epoch->window[++epoch->num_windows] = i + 1;
        bytes = 0;
    }
}

static Epoch make_epoch(const WindowOrder *order, uint64_t number)
{
    Epoch epoch = {.epoch = number};
    epoch.block = mem_alloc(order->num_blocks * sizeof *epoch.block);
    epoch.window = mem_calloc(order->num_blocks + 1, sizeof *epoch.window);
    uint64_t key = rng_key(order->options.seed, "window files"), at = 0;
    Permutation files = permutation_of(key, number, (uint64_t)order->num_files);
    for (int first = 0, end; first < order->num_files; first = end) {
        end = group_end(order, &files, first);
        uint64_t tag = rng_mix(number) + (uint64_t)first;
        uint64_t count = order_group(order, &files, first, end, tag, epoch.block + at);
        if (number == 0) keep_sequences(order, epoch.block + at, count);
        cut_windows(order, &epoch, at, at + count);
        at += count;
    }
    epoch.before = mem_calloc(epoch.num_windows + 1, sizeof *epoch.before);
    return epoch;
}

static void free_epoch(Epoch *epoch)
{
    free(epoch->block);
    free(epoch->window);
    free(epoch->before);
    *epoch = (Epoch){0};
}

/* With the lock held. */
static Epoch *need_epoch(WindowOrder *order, uint64_t number)
{
    Epoch *oldest = &order->epoch[0];
    for (int i = 0; i < EPOCHS_KEPT; i++) {
        Epoch *epoch = &order->epoch[i];
        if (epoch->block != NULL && epoch->epoch == number) {
            epoch->used = ++order->uses;
            return epoch;
        }
        if (epoch->used < oldest->used) oldest = epoch;
    }
    free_epoch(oldest);
    *oldest = make_epoch(order, number);
    oldest->used = ++order->uses;
    return oldest;
}

/* Adds up windows from the first on, as far as they are counted, until one ends beyond `place`. */
static void add_windows(const WindowOrder *order, Epoch *epoch, uint64_t place)
{
    const Dataset *dataset = order->options.dataset;
    while (epoch->known < epoch->num_windows && epoch->before[epoch->known] <= place) {
        uint64_t sum = epoch->before[epoch->known], records;
        for (uint64_t i = epoch->window[epoch->known]; i < epoch->window[epoch->known + 1]; i++) {
            if (!dataset_block_counted(dataset, epoch->block[i], &records)) return;
            sum += records;
        }
        epoch->before[++epoch->known] = sum;
    }
}

/* ---- counting ---- */

static bool is_cancelled(const WindowOrder *order)
{
    return order->closing || (order->options.watch != NULL && order->options.watch->cancelled);
}

static void told_of_block(WindowOrder *order, uint64_t at, Status status, const Error *err)
{
    uint64_t bytes = dataset_block_bytes(order->options.dataset, order->errand[at]);
    ReadWatch *watch = order->options.watch;
    if (watch != NULL) {
        watch->progress++;
        watch->bytes_read += bytes;
    }
    pthread_mutex_lock(&order->lock);
    order->done++;
    if (status != OK && at < order->failed_at) {
        order->failed_at = at;
        order->err = *err;
    }
    pthread_cond_broadcast(&order->counted);
    pthread_mutex_unlock(&order->lock);
}

static void *counter_main(void *argument)
{
    WindowOrder *order = argument;
    while (!is_cancelled(order)) {
        pthread_mutex_lock(&order->lock);
        bool over = order->next == order->num_blocks || order->failed_at < order->next;
        uint64_t at = over ? 0 : order->next++;
        pthread_mutex_unlock(&order->lock);
        if (over) break;
        Error err = {0};
        Status status = dataset_count_block(order->options.dataset, order->errand[at], &err);
        told_of_block(order, at, status, &err);
    }
    return NULL;
}

static int count_counters(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : cores > COUNTERS_MAX ? COUNTERS_MAX : (int)cores;
}

/* The sum of all blocks; false when some are not counted. */
static bool sum_blocks(const WindowOrder *order, uint64_t *ret)
{
    uint64_t sum = 0, records;
    for (uint64_t i = 0; i < order->num_blocks; i++) {
        if (!dataset_block_counted(order->options.dataset, i, &records)) return false;
        sum += records;
    }
    *ret = sum;
    return true;
}

static void start_counting(WindowOrder *order)
{
    uint64_t *errand = mem_alloc(order->num_blocks * sizeof *errand), known = 0, bytes = 0, records;
    const Epoch *first = need_epoch(order, 0);
    memcpy(errand, first->block, order->num_blocks * sizeof *errand);
    order->errand = errand;
    ReadWatch *watch = order->options.watch;
    for (uint64_t i = 0; i < order->num_blocks; i++) {
        bool counted = dataset_block_counted(order->options.dataset, errand[i], &records);
        if (counted && known == i) known++; /* as far as an earlier start came */
        bytes += dataset_block_bytes(order->options.dataset, errand[i]);
    }
    order->next = order->done = known;
    if (watch != NULL) watch->bytes_total += bytes;
    for (uint64_t i = 0; i < known && watch != NULL; i++)
        watch->bytes_read += dataset_block_bytes(order->options.dataset, errand[i]);
    order->num_counters = count_counters();
    for (int i = 0; i < order->num_counters; i++)
        CHECK(pthread_create(&order->counter[i], NULL, counter_main, order) == 0);
}

WindowOrder *window_order_open(const WindowOptions *options)
{
    WindowOrder *order = mem_calloc(1, sizeof *order);
    order->options = *options;
    order->num_blocks = dataset_num_blocks(options->dataset);
    order->num_files = dataset_num_files(options->dataset);
    order->failed_at = UINT64_MAX;
    pthread_mutex_init(&order->lock, NULL);
    condition_init(&order->counted);
    condition_init(&order->left);
    order->decoded = dataset_decodes_blocks(options->dataset);
    order->complete = sum_blocks(order, &order->records);
    if (!order->complete) start_counting(order);
    return order;
}

static void free_view(View *view)
{
    if (view == NULL) return;
    free(view->block);
    free(view->before);
    free(view);
}

void window_order_close(WindowOrder *order)
{
    if (order == NULL) return;
    order->closing = true;
    if (order->num_counters > 0) dataset_stop_counting(order->options.dataset);
    for (int i = 0; i < order->num_counters; i++)
        pthread_join(order->counter[i], NULL);
    for (int i = 0; i < EPOCHS_KEPT; i++)
        free_epoch(&order->epoch[i]);
    for (int i = 0; i < VIEWS_KEPT; i++)
        free_view(order->view[i]);
    free((uint64_t *)(uintptr_t)order->errand);
    pthread_cond_destroy(&order->left);
    pthread_cond_destroy(&order->counted);
    pthread_mutex_destroy(&order->lock);
    free(order);
}

/* ---- waiting, with the lock held ---- */

static Status refuse_empty(const WindowOrder *order, Error *err)
{
    char more[32] = "";
    if (order->num_files > 1)
        snprintf(more, sizeof more, " and %d more file%s", order->num_files - 1,
                 plural(order->num_files - 1));
    return error_set(err, ERR_DATA,
                     "the data set is empty: no record in %s%s\n  expected: at least one: a line "
                     "with a JSON object, or a row of a table\n  to do: check that the files were "
                     "written completely",
                     dataset_file(order->options.dataset, 0).path, more);
}

/* Notes the end of the counting. */
static bool is_complete(WindowOrder *order)
{
    if (!order->complete && order->done == order->num_blocks && order->failed_at == UINT64_MAX)
        order->complete = sum_blocks(order, &order->records);
    return order->complete;
}

/* Until another block is counted. Whatever is waited for lies beyond what failed, if something did:
 * blocks before it that are in work come first, so that the same fault is told each time. */
static Status wait_for_block(WindowOrder *order, Error *err)
{
    if (is_cancelled(order)) return error_set(err, ERR_CANCELLED, "the reading was cancelled");
    if (order->failed_at < UINT64_MAX && order->done == order->next) {
        *err = order->err;
        return err->status;
    }
    condition_wait_for(&order->counted, &order->lock, WAIT_MS);
    return OK;
}

static Status wait_for_all(WindowOrder *order, Error *err)
{
    while (!is_complete(order))
        TRY(wait_for_block(order, err));
    return order->records > 0 ? OK : refuse_empty(order, err);
}

/* The epoch in which a position falls, and its place there; *ret_epoch has its window then. */
static Status find_epoch(WindowOrder *order, uint64_t position, Epoch **ret_epoch,
                         uint64_t *ret_place, Error *err)
{
    if (!is_complete(order)) {
        for (;;) {
            Epoch *first = need_epoch(order, 0);
            add_windows(order, first, position);
            *ret_epoch = first;
            *ret_place = position;
            if (first->before[first->known] > position) return OK;
            if (is_complete(order)) break; /* the position is of a later epoch */
            TRY(wait_for_block(order, err));
        }
    }
    if (order->records == 0) return refuse_empty(order, err);
    *ret_epoch = need_epoch(order, position / order->records);
    *ret_place = position % order->records;
    add_windows(order, *ret_epoch, *ret_place);
    return OK;
}

/* ---- views ---- */

static uint64_t find_window(const Epoch *epoch, uint64_t place)
{
    uint64_t low = 0, high = epoch->known; /* the last that begins at or before `place` */
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (epoch->before[middle] <= place)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static View *make_view(const WindowOrder *order, const Epoch *epoch, uint64_t window)
{
    const Dataset *dataset = order->options.dataset;
    View *view = mem_calloc(1, sizeof *view);
    uint64_t begin = epoch->window[window];
    view->epoch = epoch->epoch;
    view->window = window;
    view->first = epoch->before[window];
    view->records = epoch->before[window + 1] - view->first;
    view->num_blocks = epoch->window[window + 1] - begin;
    view->block = mem_alloc(view->num_blocks * sizeof *view->block);
    view->before = mem_calloc(view->num_blocks + 1, sizeof *view->before);
    for (uint64_t i = 0; i < view->num_blocks; i++) {
        uint64_t records = 0;
        view->block[i] = epoch->block[begin + i];
        CHECK(dataset_block_counted(dataset, view->block[i], &records));
        view->before[i + 1] = view->before[i] + records;
    }
    uint64_t key = rng_key(order->options.seed, "window records");
    view->permutation = permutation_of(key, rng_mix(epoch->epoch) + window, view->records);
    return view;
}

/* The window after this one will be read next. */
static void prefetch_next(const WindowOrder *order, const Epoch *epoch, uint64_t window)
{
    if (window + 1 >= epoch->num_windows) return;
    for (uint64_t i = epoch->window[window + 1]; i < epoch->window[window + 2]; i++)
        dataset_prefetch_block(order->options.dataset, epoch->block[i]);
}

static View *need_view(WindowOrder *order, const Epoch *epoch, uint64_t window)
{
    int oldest = -1;
    for (int i = 0; i < VIEWS_KEPT; i++) {
        View *view = order->view[i];
        if (view != NULL && view->epoch == epoch->epoch && view->window == window) {
            view->used = ++order->uses;
            return view;
        }
        bool older = oldest < 0 || view == NULL ||
                     (order->view[oldest] != NULL && view->used < order->view[oldest]->used);
        if ((view == NULL || view->users == 0) && older) oldest = i;
    }
    View *made = make_view(order, epoch, window);
    prefetch_next(order, epoch, window);
    made->used = ++order->uses;
    if (oldest >= 0) { /* else they are all in use: this one is its reader's alone */
        free_view(order->view[oldest]);
        order->view[oldest] = made;
    }
    return made;
}

static bool is_kept(const WindowOrder *order, const View *view)
{
    for (int i = 0; i < VIEWS_KEPT; i++)
        if (order->view[i] == view) return true;
    return false;
}

static void leave_view(WindowCursor *cursor)
{
    WindowOrder *order = cursor->order;
    if (cursor->view == NULL) return;
    if (--cursor->view->users == 0) pthread_cond_broadcast(&order->left);
    if (!is_kept(order, cursor->view)) free_view(cursor->view);
    cursor->view = NULL;
}

/* ---- */

uint64_t window_order_records(WindowOrder *order)
{
    pthread_mutex_lock(&order->lock);
    uint64_t records = is_complete(order) ? order->records : 0;
    pthread_mutex_unlock(&order->lock);
    return records;
}

Status window_order_count(WindowOrder *order, uint64_t *ret_records, Error *err)
{
    pthread_mutex_lock(&order->lock);
    Status status = wait_for_all(order, err);
    *ret_records = order->records;
    pthread_mutex_unlock(&order->lock);
    return status;
}

WindowCursor *window_cursor_open(WindowOrder *order)
{
    WindowCursor *cursor = mem_calloc(1, sizeof *cursor);
    cursor->order = order;
    return cursor;
}

void window_cursor_close(WindowCursor *cursor)
{
    if (cursor == NULL) return;
    pthread_mutex_lock(&cursor->order->lock);
    leave_view(cursor);
    pthread_mutex_unlock(&cursor->order->lock);
    free(cursor);
}

/* Whether somebody reads an earlier window, and nobody this one. */
static bool is_early(const WindowOrder *order, uint64_t epoch, uint64_t window)
{
    bool before = false;
    for (int i = 0; i < VIEWS_KEPT; i++) {
        const View *view = order->view[i];
        if (view == NULL || view->users == 0) continue;
        if (view->epoch == epoch && view->window == window) return false;
        before = before || view->epoch < epoch || (view->epoch == epoch && view->window < window);
    }
    return before;
}

/* There is room for one decoded window. Whoever comes to the next one lets those go first who still
 * read the one before: otherwise each would drop what the others need, and all of it be decoded for
 * record after record. It waits no longer than they usually take, since a reader may stand still,
 * for one because it waits for another source of a mixture. */
static Status move_to(WindowCursor *cursor, uint64_t position, uint64_t *ret_place, Error *err)
{
    WindowOrder *order = cursor->order;
    Epoch *epoch = NULL;
    leave_view(cursor);
    TRY(find_epoch(order, position, &epoch, ret_place, err));
    int64_t until = clock_ms() + HANDOVER_MS, left = HANDOVER_MS;
    while (order->decoded && left > 0 &&
           is_early(order, epoch->epoch, find_window(epoch, *ret_place))) {
        condition_wait_for(&order->left, &order->lock, left);
        left = until - clock_ms();
        TRY(find_epoch(order, position, &epoch, ret_place, err));
    }
    cursor->view = need_view(order, epoch, find_window(epoch, *ret_place));
    cursor->view->users++;
    return OK;
}

Status window_cursor_find(WindowCursor *cursor, uint64_t position, WindowPlace *ret, Error *err)
{
    uint64_t place = 0;
    pthread_mutex_lock(&cursor->order->lock);
    Status status = move_to(cursor, position, &place, err);
    pthread_mutex_unlock(&cursor->order->lock);
    if (status != OK) return status;
    const View *view = cursor->view;
    uint64_t record = permutation_at(&view->permutation, place - view->first);
    uint64_t low = 0, high = view->num_blocks; /* the last that begins at or before it */
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (view->before[middle] <= record)
            low = middle;
        else
            high = middle;
    }
    *ret = (WindowPlace){view->epoch, view->block[low], record - view->before[low]};
    return OK;
}
