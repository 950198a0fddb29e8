/* A data set of many files: how long a start takes to its first record, and what it holds.
 *
 * usage: bench_files FOLDER [COUNT [WHAT ...]]     (default: 20000 files)
 * WHAT: jsonl, gzip (what the files are; jsonl), full, window, hf, in_order (all of them when none
 * is named), dense: 360 records a file in place of 20, files=PATTERN: those that are there, of
 * whatever format
 *
 * The files are made once: records of about 500 bytes. Each start is a process of its own, which
 * opens the data set and reads one record, from the middle of an epoch; then 20,000 records, so
 * that many files are opened. What the system has of the files in memory is not dropped. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <zlib.h>

#include "arguments.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "dataset/stream.h"
#include "memory_use.h"

#define RECORDS       20
#define DENSE_RECORDS 360
#define RECORD_BYTES  500
#define READ_RECORDS  20000

typedef struct Bench {
    char *pattern, *index;
    DataOrder order;
} Bench;

static void stop_on(Status status, const Error *err)
{
    if (status == OK) return;
    fprintf(stderr, "bench_files: %s\n", err->message);
    exit(1);
}

static void put_record(Str *text, uint64_t file, int record)
{
    size_t begin = text->length;
    uint64_t noise = rng_mix(file * DENSE_RECORDS + (uint64_t)record);
    str_printf(text, "{\"file\": %llu, \"record\": %d, \"text\": \"", (unsigned long long)file,
               record);
    for (size_t i = text->length - begin; i + 3 < RECORD_BYTES; i++)
        str_putc(text, (char)('a' + (noise >> i % 59) % 26));
    str_puts(text, "\"}\n");
}

static void make_file(const char *path, uint64_t number, int records, bool packed)
{
    Error err;
    Str text = {0};
    for (int i = 0; i < records; i++)
        put_record(&text, number, i);
    if (packed) {
        gzFile file = gzopen(path, "wb");
        if (file == NULL || gzwrite(file, text.data, (unsigned)text.length) <= 0) exit(1);
        gzclose(file);
    } else {
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (fd < 0) exit(1);
        stop_on(file_write_all(fd, text.data, text.length, path, &err), &err);
        close(fd);
    }
    str_free(&text);
}

static void make_files(Bench *bench, const char *folder, int count, int records, bool packed)
{
    Error err;
    const char *ending = packed ? "jsonl.gz" : "jsonl";
    char *data = mem_printf("%s/%d-of-%d.%s", folder, count, records, ending);
    stop_on(folder_create(data, &err), &err);
    for (int i = 0; i < count; i++) {
        char *path = mem_printf("%s/part-%05d.%s", data, i, ending);
        if (!path_exists(path)) make_file(path, (uint64_t)i, records, packed);
        free(path);
    }
    bench->pattern = mem_printf("%s/*.%s", data, ending);
    free(data);
}

static int count_lines(const char *path)
{
    int lines = 0, c;
    FILE *file = fopen(path, "r");
    while (file != NULL && (c = fgetc(file)) != EOF)
        lines += c == '\n';
    if (file != NULL) fclose(file);
    return lines;
}

static int count_entries(const char *path)
{
    int count = -2;
    DIR *folder = opendir(path);
    while (folder != NULL && readdir(folder) != NULL)
        count++;
    if (folder != NULL) closedir(folder);
    return count;
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

/* In work of the processor, of all threads and the system's for them, too. */
static double cpu_ms(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-3;
}

static void run_start(const Bench *bench, const char *what, uint64_t position)
{
    Error err;
    Stream *stream = NULL;
    const char *path = bench->pattern;
    int64_t begin = clock_ms();
    StreamOptions options = {.key = "bench",
                             .path = &path,
                             .num_paths = 1,
                             .index_folder = bench->index,
                             .order = bench->order,
                             .seed = 42};
    stop_on(stream_open(&options, &stream, &err), &err);
    int64_t opened = clock_ms() - begin;
    read_one(stream, position);
    int64_t first = clock_ms() - begin;
    char fingerprint[DIGEST_HEX_BYTES];
    stream_fingerprint(stream, fingerprint);
    int64_t told = clock_ms() - begin;
    double cpu = cpu_ms();
    for (uint64_t i = 0; i < READ_RECORDS; i++)
        read_one(stream, position + i);
    double seconds = (double)(clock_ms() - begin - told) * 1e-3;
    uint64_t records;
    stop_on(stream_count(stream, &records, &err), &err);
    printf(
        "  %-12s opened after %5lld ms, first record after %5lld ms (fingerprint %5lld, %5.0f of "
        "cpu); %6.0f records/s, %llu records counted after %5lld ms; %d maps, %d descriptors, "
        "resident %.0f MB\n",
        what, (long long)opened, (long long)first, (long long)told, cpu,
        READ_RECORDS / (seconds > 0 ? seconds : 1e-3), (unsigned long long)records,
        (long long)(clock_ms() - begin), count_lines("/proc/self/maps"),
        count_entries("/proc/self/fd"), memory_mb("VmHWM:"));
    stream_close(stream);
}

static void measure(const Bench *bench, const char *what, uint64_t position)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        run_start(bench, what, position);
        fflush(stdout);
        _exit(0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    if (status != 0) exit(1);
}

static void measure_order(Bench *bench, const char *name, DataOrder order)
{
    Error err;
    stop_on(folder_remove(bench->index, &err), &err);
    bench->order = order;
    printf("%s\n", name);
    measure(bench, "first start", 0);
    measure(bench, "later start", 100000);
    printf("  %d files in the index folder\n", count_entries(bench->index));
}

static bool has(int argc, char **argv, const char *what)
{
    for (int i = 3; i < argc; i++)
        if (strcmp(argv[i], what) == 0) return true;
    return false;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bench_files FOLDER [COUNT [jsonl|gzip|dense|files=PATTERN|full|"
                        "window|hf|in_order ...]]\n");
        return 2;
    }
    struct {
        const char *name;
        DataOrder order;
    } orders[] = {{"full", {.kind = ORDER_FULL}},
                  {"window", {.kind = ORDER_WINDOW, .window_mb = 128}},
                  {"hf", {.kind = ORDER_HF, .hf_release = HF_5_2, .hf_buffer_size = 10000}},
                  {"in_order", {.kind = ORDER_FILES}}};
    Bench bench = {.index = mem_printf("%s/index", argv[1])};
    const char *pattern = argc > 3 ? argument_value(argv[3], "files") : NULL;
    bool all = true;
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++)
        all = all && !has(argc, argv, orders[i].name);
    if (pattern != NULL)
        bench.pattern = mem_strdup(pattern);
    else
        make_files(&bench, argv[1], argc > 2 ? atoi(argv[2]) : 20000,
                   has(argc, argv, "dense") ? DENSE_RECORDS : RECORDS, has(argc, argv, "gzip"));
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++)
        if (all || has(argc, argv, orders[i].name))
            measure_order(&bench, orders[i].name, orders[i].order);
    free(bench.pattern);
    free(bench.index);
    return 0;
}
