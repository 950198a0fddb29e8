/* The stream of a run, from files to lines or to parsed records: what a data source and its rollout
 * workers do, beside what `datasets` and PyTorch do (bench_stream.py).
 *
 * usage: bench_stream full|window|files lines|parsed RECORDS THREADS FILE...
 * Reads two epochs of RECORDS and prints one line of JSON. The first epoch's time counts from the
 * opening, with whatever index the order needs; that of the second has it. CPU seconds are of all
 * threads. The library that reads tables is loaded before, as Python's packages are. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/memory.h"
#include "dataset/stream.h"
#include "rollout_worker/record.h"

#define INDEX_FOLDER "bench-stream-index"
#define LEASE        64
#define THREADS_MAX  64

/* Positions that the threads share out among themselves. */
typedef struct Crowd {
    const Stream *stream;
    uint64_t end;
    _Atomic uint64_t next, bytes;
    bool parsed;
} Crowd;

typedef struct Times {
    double cpu, wall;
} Times;

static void stop_on(Status status, const Error *err)
{
    if (status == OK) return;
    fprintf(stderr, "bench_stream: %s\n", err->message);
    exit(1);
}

static Times times_now(void)
{
    struct timespec cpu, wall;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    clock_gettime(CLOCK_MONOTONIC, &wall);
    return (Times){(double)cpu.tv_sec + (double)cpu.tv_nsec * 1e-9,
                   (double)wall.tv_sec + (double)wall.tv_nsec * 1e-9};
}

/* Of this program: what getrusage tells begins with who started it. */
static long long peak_memory_kb(void)
{
    char line[256];
    long long kb = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        sscanf(line, "VmHWM: %lld", &kb);
    if (file != NULL) fclose(file);
    return kb;
}

static void *reader_main(void *argument)
{
    Crowd *crowd = argument;
    Error err;
    Str text = {0};
    StreamReader *reader = stream_reader_open(crowd->stream);
    for (uint64_t first; (first = atomic_fetch_add(&crowd->next, LEASE)) < crowd->end;) {
        uint64_t bytes = 0;
        for (uint64_t i = first; i < first + LEASE && i < crowd->end; i++) {
            StreamRecord record;
            cJSON *json = NULL;
            str_clear(&text);
            stop_on(stream_read(reader, i, &text, &record, &err), &err);
            bytes += text.length;
            if (!crowd->parsed) continue;
            stop_on(record_parse(text.data, text.length, "line", &json, &err), &err);
            cJSON_Delete(json);
        }
        crowd->bytes += bytes;
    }
    stream_reader_close(reader);
    str_free(&text);
    return NULL;
}

static void read_epoch(Crowd *crowd, int threads)
{
    pthread_t thread[THREADS_MAX];
    for (int i = 1; i < threads; i++)
        CHECK(pthread_create(&thread[i], NULL, reader_main, crowd) == 0);
    reader_main(crowd);
    for (int i = 1; i < threads; i++)
        pthread_join(thread[i], NULL);
}

static void load_libraries(const char *path)
{
    Error err;
    Dataset *dataset = NULL;
    DatasetOptions options = {.key = "bench", .path = &path, .num_paths = 1, .records_max = 1};
    stop_on(dataset_open(&options, &dataset, &err), &err);
    dataset_close(dataset);
}

static DataOrder order_named(const char *name)
{
    if (strcmp(name, "window") == 0) return (DataOrder){.kind = ORDER_WINDOW, .window_mb = 128};
    return (DataOrder){.kind = strcmp(name, "files") == 0 ? ORDER_FILES : ORDER_FULL};
}

int main(int argc, char **argv)
{
    Error err;
    Stream *stream = NULL;
    if (argc < 6) {
        fputs("usage: bench_stream full|window|files lines|parsed RECORDS THREADS FILE...\n",
              stderr);
        return 2;
    }
    uint64_t records = strtoull(argv[3], NULL, 10);
    int threads = atoi(argv[4]);
    if (threads < 1 || threads > THREADS_MAX) threads = 1;
    StreamOptions options = {.key = "bench",
                             .path = (const char *const *)&argv[5],
                             .num_paths = argc - 5,
                             .index_folder = INDEX_FOLDER,
                             .order = order_named(argv[1]),
                             .seed = 1};
    stop_on(folder_remove(INDEX_FOLDER, &err), &err);
    load_libraries(argv[5]);
    Times start = times_now();
    stop_on(stream_open(&options, &stream, &err), &err);
    Times opened = times_now();
    Crowd crowd = {.stream = stream, .end = records, .parsed = strcmp(argv[2], "parsed") == 0};
    read_epoch(&crowd, threads);
    Times first = times_now();
    crowd.next = crowd.end;
    crowd.end = 2 * records;
    read_epoch(&crowd, threads);
    Times second = times_now();
    long long peak_kb = peak_memory_kb();
    uint64_t bytes = crowd.bytes / 2;
    stream_close(stream);
    stop_on(folder_remove(INDEX_FOLDER, &err), &err);
    printf("{\"samples\": %llu, \"bytes\": %llu, \"open_cpu_s\": %.4f, \"cpu_s\": %.4f, "
           "\"wall_s\": %.4f, \"next_cpu_s\": %.4f, \"next_wall_s\": %.4f, \"rss_bytes\": %lld}\n",
           (unsigned long long)records, (unsigned long long)bytes, opened.cpu - start.cpu,
           first.cpu - start.cpu, first.wall - start.wall, second.cpu - first.cpu,
           second.wall - first.wall, peak_kb * 1024);
    return 0;
}
