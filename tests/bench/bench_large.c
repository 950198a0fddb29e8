/* A data set that is larger than memory: how long a first start takes to its first record, a resume
 * anywhere in the epoch, how much memory that takes, and how well the orders mix.
 *
 * usage: bench_large FOLDER [GB [FILES [WHAT ...]]]     (default: 100 GB in one file)
 * WHAT: window, full, hf, mixing (all of them when none is named); dense: files without holes;
 * seconds=N: so long each order is read from the middle of an epoch (8), while its memory is
 * watched
 *
 * The files are made once, if FOLDER has room: 64 KiB of text are 12 records of about 330 bytes and
 * one of 60 KB whose middle is a hole of the file, so that 1 GB takes 62 MB of the disk; the
 * records have 5 kB on average. What the system has of them in memory is dropped before each first
 * start (holes cost no disk, so a first start is faster here than the disk would be). Each
 * measurement is a process of its own. *
 *        bench_large FOLDER files=PATTERN [seconds=N]     (files that are there, in the order
 * window; FOLDER is for their index)
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arguments.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "dataset/stream.h"
#include "memory_use.h"

#define UNIT_BYTES  (1u << 20)
#define DATA_BYTES  (64u << 10) /* of a unit, that are no hole */
#define UNIT_LINES  193
#define THREADS     8
#define LEASE       64
#define READ_MS     8000
#define WATCHED_MAX 36000 /* seconds */
#define BUFFER_SIZE 10000
#define FILES_MAX   1000
#define BATCH       256
#define MIX_MAX     4000000 /* positions that the mixing is measured on */

typedef struct Bench {
    char *path[FILES_MAX];
    int num_files;
    uint64_t file_bytes, records;
    size_t data_bytes; /* of each unit */
    char *index;
    int64_t read_ms; /* from the middle of an epoch */
} Bench;

static void stop_on(Status status, const Error *err)
{
    if (status == OK) return;
    fprintf(stderr, "bench_large: %s\n", err->message);
    exit(1);
}

static void stop_errno(const char *what)
{
    fprintf(stderr, "bench_large: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* The data of a unit: the end of the long line before it, short lines, the beginning of a long one.
 */
static void fill_unit(char *data, size_t bytes, uint64_t file, uint64_t unit)
{
    size_t at = 0, each = bytes / UNIT_LINES - 4;
    if (unit > 0) at += (size_t)sprintf(data, "\"}\n");
    for (int i = 0; i < UNIT_LINES - 1; i++) {
        uint64_t noise = rng_mix(unit * UNIT_LINES + (uint64_t)i);
        size_t end = at + each - 3 - noise % (each / 4);
        at += (size_t)sprintf(data + at,
                              "{\"file\": %llu, \"unit\": %llu, \"line\": %d, \"text\": \"",
                              (unsigned long long)file, (unsigned long long)unit, i);
        for (; at < end; at++)
            data[at] = (char)('a' + (noise >> at % 50) % 26);
        at += (size_t)sprintf(data + at, "\"}\n");
    }
    at += (size_t)sprintf(data + at, "{\"unit\": %llu, \"text\": \"", (unsigned long long)unit);
    memset(data + at, 'z', bytes - at);
}

static void make_file(const Bench *bench, const char *path, uint64_t number)
{
    struct stat info;
    uint64_t bytes = bench->file_bytes;
    if (stat(path, &info) == 0 && (uint64_t)info.st_size == bytes) return;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) stop_errno(path);
    char *data = mem_alloc(UNIT_BYTES);
    for (uint64_t unit = 0; unit < bytes / UNIT_BYTES; unit++) {
        fill_unit(data, bench->data_bytes, number, unit);
        ssize_t written = pwrite(fd, data, bench->data_bytes, (off_t)(unit * UNIT_BYTES));
        if (written != (ssize_t)bench->data_bytes) stop_errno(path);
    }
    if (pwrite(fd, "\"}\n", 3, (off_t)bytes - 3) != 3 || fsync(fd) != 0) stop_errno(path);
    close(fd);
    free(data);
}

static void make_files(Bench *bench, const char *folder, uint64_t gigabytes)
{
    Error err;
    stop_on(folder_create(folder, &err), &err);
    bench->file_bytes =
        gigabytes * 1000000000 / (uint64_t)bench->num_files / UNIT_BYTES * UNIT_BYTES;
    for (int i = 0; i < bench->num_files; i++) {
        bench->path[i] = mem_printf("%s/large-%d-of-%d.jsonl", folder, i, bench->num_files);
        make_file(bench, bench->path[i], (uint64_t)i);
    }
    bench->records = bench->file_bytes / UNIT_BYTES * UNIT_LINES * (uint64_t)bench->num_files;
    bench->index = mem_printf("%s/index", folder);
}

static void forget_files(const Bench *bench)
{
    for (int i = 0; i < bench->num_files; i++) {
        int fd = open(bench->path[i], O_RDONLY);
        if (fd < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) stop_errno("fadvise");
        close(fd);
    }
}

static Stream *open_stream(const Bench *bench, DataOrder order)
{
    Error err;
    Stream *stream = NULL;
    StreamOptions options = {.key = "bench",
                             .path = (const char *const *)bench->path,
                             .num_paths = bench->num_files,
                             .index_folder = bench->index,
                             .order = order,
                             .seed = 42};
    stop_on(stream_open(&options, &stream, &err), &err);
    return stream;
}

static void read_one(const Stream *stream, uint64_t position)
{
    Error err;
    Str text = {0};
    StreamRecord record;
    StreamReader *reader = stream_reader_open(stream);
    stop_on(stream_read(reader, position, &text, &record, &err), &err);
    stream_reader_close(reader);
    str_free(&text);
}

typedef struct Crowd {
    const Stream *stream;
    _Atomic uint64_t next, bytes;
    int64_t until_ms;
} Crowd;

static void *crowd_main(void *argument)
{
    Crowd *crowd = argument;
    Error err;
    Str text = {0};
    while (clock_ms() < crowd->until_ms) {
        uint64_t first = atomic_fetch_add(&crowd->next, LEASE);
        StreamReader *reader = stream_reader_open(crowd->stream);
        for (uint64_t i = 0; i < LEASE; i++) {
            StreamRecord record;
            str_clear(&text);
            stop_on(stream_read(reader, first + i, &text, &record, &err), &err);
            crowd->bytes += text.length;
        }
        stream_reader_close(reader);
    }
    str_free(&text);
    return NULL;
}

/* Resident memory, once a second; and by how much it grew in a minute of the second half, which is
 * the slope of the line that fits it best. */
typedef struct Watched {
    double mb[WATCHED_MAX];
    int count;
} Watched;

static double slope_of_half(const Watched *watched)
{
    int from = watched->count / 2, count = watched->count - from;
    double mean_at = (double)(count - 1) / 2, mean = 0, along = 0, square = 0;
    for (int i = 0; i < count; i++)
        mean += watched->mb[from + i] / count;
    for (int i = 0; i < count; i++) {
        along += (i - mean_at) * (watched->mb[from + i] - mean);
        square += (i - mean_at) * (i - mean_at);
    }
    return square > 0 ? 60 * along / square : 0;
}

static void print_watched(const Watched *watched)
{
    double least = watched->mb[0], most = least;
    for (int i = 1; i < watched->count; i++) {
        least = fmin(least, watched->mb[i]);
        most = fmax(most, watched->mb[i]);
    }
    printf("    watched for %d s: resident %.0f MB at first, %.0f at least, %.0f at most, %.0f at "
           "last; in the second half %+.2f MB a minute; highest ever %.0f\n",
           watched->count, watched->mb[0], least, most, watched->mb[watched->count - 1],
           slope_of_half(watched), memory_mb("VmHWM:"));
}

/* Eight threads read on from `first`, as those of a data source do; the memory of the whole. */
static void read_on(const Stream *stream, uint64_t first, int64_t read_ms)
{
    static Watched watched;
    Crowd crowd = {.stream = stream, .next = first, .until_ms = clock_ms() + read_ms};
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&thread[i], NULL, crowd_main, &crowd);
    while (clock_ms() + 1000 < crowd.until_ms && watched.count < WATCHED_MAX) {
        sleep(1);
        watched.mb[watched.count++] = memory_mb("VmRSS:");
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    printf("    %d threads read on: %.0f records/s, %.0f MB/s\n", THREADS,
           (double)(crowd.next - first) * 1e3 / (double)read_ms,
           (double)crowd.bytes * 1e-3 / (double)read_ms);
    print_watched(&watched);
}

typedef struct Start {
    const Bench *bench;
    DataOrder order;
    double share;  /* of the epoch, at which it begins */
    int64_t on_ms; /* reads on for so long */
    bool count;    /* waits for the count then */
} Start;

static void run_start(const Start *start)
{
    uint64_t position = (uint64_t)(start->share * (double)start->bench->records);
    int64_t begin = clock_ms();
    Stream *stream = open_stream(start->bench, start->order);
    int64_t opened = clock_ms() - begin;
    read_one(stream, position);
    printf("    at %2.0f %%: opened after %lld ms, first record after %lld ms, resident %.0f MB\n",
           100 * start->share, (long long)opened, (long long)(clock_ms() - begin),
           memory_mb("VmRSS:"));
    if (start->on_ms > 0) read_on(stream, position, start->on_ms);
    if (start->count) {
        Error err;
        uint64_t records;
        stop_on(stream_count(stream, &records, &err), &err);
        double seconds = (double)(clock_ms() - begin) * 1e-3;
        double gigabytes = (double)start->bench->file_bytes * start->bench->num_files * 1e-9;
        printf("    %llu records counted after %.1f s (%.2f GB/s); resident at most %.0f MB\n",
               (unsigned long long)records, seconds, gigabytes / seconds, memory_mb("VmHWM:"));
    }
    stream_close(stream);
}

static void measure(const Start *start)
{
    fflush(stdout);
    pid_t child = fork();
    if (child < 0) stop_errno("fork");
    if (child == 0) {
        run_start(start);
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (status != 0) exit(1);
}

static void measure_order(const Bench *bench, const char *name, DataOrder order, bool first)
{
    static const double shares[] = {0, 0.5, 0.99};
    Error err;
    printf("%s\n", name);
    if (first) {
        stop_on(folder_remove(bench->index, &err), &err);
        forget_files(bench);
        printf("  first start\n");
        int64_t on_ms = order.kind == ORDER_WINDOW ? READ_MS : 0;
        measure(&(Start){bench, order, .on_ms = on_ms, .count = true});
    }
    printf("  later starts\n");
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++)
        measure(&(Start){bench, order, shares[i], .on_ms = shares[i] == 0.5 ? bench->read_ms : 0});
}

/* ---- mixing ---- */

/* How the records of an epoch lie in it: `index` [count] are their places in the files. */
static void print_mixing(const Bench *bench, const char *name, const uint64_t *index,
                         uint64_t count)
{
    enum { GRID = 64 };
    static uint32_t cell[GRID][GRID];
    memset(cell, 0, sizeof cell);
    double mean = (double)(bench->records - 1) / 2, rank = 0, apart = 0;
    double variance = (double)bench->records * (double)bench->records / 12;
    uint64_t near = 0, same_file = 0, per_file = bench->records / (uint64_t)bench->num_files;
    for (uint64_t i = 0; i < count; i++) {
        cell[i * GRID / count][index[i] * GRID / bench->records]++;
        rank += ((double)i - (double)(count - 1) / 2) * ((double)index[i] - mean);
        if (i == 0) continue;
        double distance = fabs((double)index[i] - (double)index[i - 1]);
        apart += distance;
        near += distance <= 1000;
        same_file += index[i] / per_file == index[i - 1] / per_file;
    }
    double chi = 0, expected = (double)count / (GRID * GRID);
    for (int i = 0; i < GRID * GRID; i++) {
        double difference = cell[i / GRID][i % GRID] - expected;
        chi += difference * difference / expected;
    }
    double chance = 2000.0 / (double)bench->records;
    printf("  %-14s rank correlation %8.5f; next record %5.1f %% of the set away (33.3 by chance), "
           "within 1000 records %8.1f times chance, of the same file %6.2f times; chi-square of a "
           "64 x 64 grid %10.1f a cell\n",
           name, rank / (double)count / variance,
           100 * apart / (double)count / (double)bench->records,
           (double)near / (double)count / chance,
           (double)same_file / (double)count * bench->num_files, chi / (GRID * GRID));
}

static bool is_wanted(int argc, char **argv, const char *what)
{
    bool some = false;
    for (int i = 4; i < argc; i++) {
        if (strcmp(argv[i], what) == 0) return true;
        some =
            some || (strcmp(argv[i], "dense") != 0 && argument_value(argv[i], "seconds") == NULL);
    }
    return !some && strcmp(what, "dense") != 0;
}

static void measure_mixing(const Bench *bench, const char *name, DataOrder order)
{
    Error err;
    if (bench->records > MIX_MAX) return; /* they would not fit */
    Stream *stream = open_stream(bench, order);
    StreamReader *reader = stream_reader_open(stream);
    uint64_t *index = mem_alloc(bench->records * sizeof *index);
    for (uint64_t i = 0; i < bench->records; i++) {
        StreamPlace place;
        stop_on(stream_place(reader, i, &place, &err), &err);
        stop_on(stream_index(reader, &place, &index[i], &err), &err);
    }
    print_mixing(bench, name, index, bench->records);
    free(index);
    stream_reader_close(reader);
    stream_close(stream);
}

static void measure_all(const Bench *bench, int argc, char **argv)
{
    DataOrder full = {.kind = ORDER_FULL}, window = {.kind = ORDER_WINDOW, .window_mb = 128};
    DataOrder old = {.kind = ORDER_HF, .hf_release = HF_4_3, .hf_buffer_size = BUFFER_SIZE};
    DataOrder new = {.kind = ORDER_HF, .hf_release = HF_5_2, .hf_buffer_size = BUFFER_SIZE};
    if (is_wanted(argc, argv, "window")) measure_order(bench, "window", window, true);
    if (is_wanted(argc, argv, "full")) measure_order(bench, "full", full, true);
    if (is_wanted(argc, argv, "hf")) {
        measure_order(bench, "hf 4.3, buffer of 10000", old, false);
        measure_order(bench, "hf 5.2, buffer of 10000", new, false);
    }
    if (!is_wanted(argc, argv, "mixing")) return;
    printf("mixing\n");
    measure_mixing(bench, "full", full);
    measure_mixing(bench, "window", window);
    measure_mixing(bench, "hf 4.3", old);
    measure_mixing(bench, "hf 5.2", new);
}

/* The files of a pattern are measured as they are. */
static void measure_files(const char *folder, const char *pattern, int64_t read_ms)
{
    glob_t found;
    struct stat info;
    uint64_t bytes = 0;
    Bench bench = {.read_ms = read_ms, .index = mem_printf("%s/index", folder)};
    DataOrder window = {.kind = ORDER_WINDOW, .window_mb = 128};
    if (glob(pattern, 0, NULL, &found) != 0 || found.gl_pathc > FILES_MAX) stop_errno(pattern);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        bench.path[bench.num_files++] = found.gl_pathv[i];
        if (stat(found.gl_pathv[i], &info) == 0) bytes += (uint64_t)info.st_size;
    }
    bench.file_bytes = bytes / found.gl_pathc;
    Error err;
    Stream *stream = open_stream(&bench, window);
    stop_on(stream_count(stream, &bench.records, &err), &err);
    stream_close(stream);
    printf("%.1f GB in %d files, %llu records\n", (double)bytes * 1e-9, bench.num_files,
           (unsigned long long)bench.records);
    measure_order(&bench, "window", window, true);
    globfree(&found);
    free(bench.index);
}

int main(int argc, char **argv)
{
    const char *pattern = argc > 2 ? argument_value(argv[2], "files") : NULL;
    const char *seconds = argc > 3 ? argument_value(argv[3], "seconds") : NULL;
    if (argc < 2) {
        fprintf(
            stderr,
            "usage: bench_large FOLDER [GB [FILES [seconds=N|dense|window|full|hf|mixing ...]]]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (pattern != NULL) {
        int64_t read_ms =
            seconds != NULL && atoi(seconds) > 1 ? atoi(seconds) * INT64_C(1000) : READ_MS;
        measure_files(argv[1], pattern, read_ms);
        return 0;
    }
    Bench bench = {.num_files = argc > 3 ? atoi(argv[3]) : 1,
                   .data_bytes = is_wanted(argc, argv, "dense") ? UNIT_BYTES : DATA_BYTES};
    bench.read_ms = READ_MS;
    for (int i = 4; i < argc; i++) {
        seconds = argument_value(argv[i], "seconds");
        if (seconds != NULL && atoi(seconds) > 1) bench.read_ms = atoi(seconds) * INT64_C(1000);
    }
    if (bench.num_files < 1 || bench.num_files > FILES_MAX) bench.num_files = FILES_MAX;
    make_files(&bench, argv[1], argc > 2 ? strtoull(argv[2], NULL, 10) : 100);
    printf("%.1f GB in %d files, %llu records of %.1f kB\n",
           (double)bench.file_bytes * bench.num_files * 1e-9, bench.num_files,
           (unsigned long long)bench.records,
           (double)bench.file_bytes * bench.num_files / (double)bench.records * 1e-3);
    measure_all(&bench, argc, argv);
    return 0;
}
