/* The stream of a run on one core, from files to lines in shuffled order, and to parsed records:
 * what a data source does, beside what `datasets` and PyTorch do (bench_stream.py). The index is
 * made first and counts.
 *
 * usage: bench_stream lines|parsed|in_order RECORDS FILE...
 * Prints one line of JSON: samples, CPU seconds of all threads, largest resident memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "dataset/stream.h"
#include "rollout_worker/record.h"

#define INDEX_FOLDER "bench-stream-index"

static void stop_on(Status status, const Error *err)
{
    if (status == OK) return;
    fprintf(stderr, "bench_stream: %s\n", err->message);
    exit(1);
}

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
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

static void read_stream(const Stream *stream, uint64_t records, bool parsed)
{
    Error err;
    Str text = {0};
    StreamReader *reader = stream_reader_open(stream);
    for (uint64_t position = 0; position < records; position++) {
        StreamRecord record;
        cJSON *json = NULL;
        str_clear(&text);
        stop_on(stream_read(reader, position, &text, &record, &err), &err);
        if (parsed) stop_on(record_parse(text.data, text.length, "line", &json, &err), &err);
        cJSON_Delete(json);
    }
    stream_reader_close(reader);
    str_free(&text);
}

int main(int argc, char **argv)
{
    Error err;
    Stream *stream = NULL;
    if (argc < 4) {
        fputs("usage: bench_stream lines|parsed|in_order RECORDS FILE...\n", stderr);
        return 2;
    }
    uint64_t records = strtoull(argv[2], NULL, 10);
    bool in_order = strcmp(argv[1], "in_order") == 0;
    StreamOptions options = {.key = "bench",
                             .path = (const char *const *)&argv[3],
                             .num_paths = argc - 3,
                             .index_folder = INDEX_FOLDER,
                             .order.kind = in_order ? ORDER_FILES : ORDER_FULL,
                             .seed = 1};
    stop_on(folder_remove(INDEX_FOLDER, &err), &err);
    double start = cpu_seconds();
    stop_on(stream_open(&options, &stream, &err), &err);
    double opened = cpu_seconds();
    read_stream(stream, records, strcmp(argv[1], "parsed") == 0);
    double end = cpu_seconds();
    stream_close(stream);
    stop_on(folder_remove(INDEX_FOLDER, &err), &err);
    long long peak_kb = peak_memory_kb();
    printf("{\"samples\": %llu, \"cpu_s\": %.4f, \"index_s\": %.4f, \"rss_bytes\": %lld}\n",
           (unsigned long long)records, end - start, opened - start, peak_kb * 1024);
    return 0;
}
