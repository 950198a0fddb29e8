/* The data path in CPU time: indexing beside plain reading of the same file, opening from the
 * sidecar, records in shuffled order, judging and parsing a line, and the whole of rollout function
 * `sft`. Indexing also by the clock when the file is not in memory, beside reading it.
 *
 * usage: bench_data [FILE.jsonl [MODEL_FOLDER]]
 * Default: 256 MB of chats made up in the working directory, and the tiny model of deploy/examples.
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "dataset/dataset.h"
#include "dataset/shuffle.h"
#include "rollout_worker/record.h"
#include "rollout_worker/rollout.h"

#define MADE_BYTES   (256u << 20)
#define RECORDS      200000 /* read in shuffled order */
#define SFT_SECONDS  3
#define INDEX_FOLDER "bench-data-index"

static void stop_on(Status status, const Error *err)
{
    if (status == OK) return;
    fprintf(stderr, "bench_data: %s\n", err->message);
    exit(1);
}

/* Time that the threads of this program were on a core: what others do on the machine does not
 * count. */
static int64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t wall_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static double seconds_since(int64_t start_ns)
{
    return (double)(cpu_ns() - start_ns) * 1e-9;
}

/* Chats of 400 bytes to 8 KB. */
static void make_file(const char *path)
{
    static const char *const words[] = {"number", "apples", "and", "the", "twelve", "gives",
                                        "left",   "42",     "so",  "how", "many",   "\\u00e9\\n"};
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    for (uint64_t record = 0; ftell(file) < (long)MADE_BYTES; record++) {
        fputs("{\"messages\": [{\"role\": \"user\", \"content\": \"", file);
        uint64_t count = 60 + rng_below(1, record, 1200);
        for (uint64_t i = 0; i < count; i++) {
            if (i == count / 3) fputs("\"}, {\"role\": \"assistant\", \"content\": \"", file);
            fprintf(file, "%s ", words[rng_mix(record * 4096 + i) % 12]);
        }
        fprintf(file, "\"}], \"label\": \"%d\"}\n", (int)record);
    }
    fclose(file);
}

static double plain_read_seconds(const char *path)
{
    char *buffer = mem_alloc(1 << 20);
    int fd = open(path, O_RDONLY);
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    int64_t start = cpu_ns();
    while (read(fd, buffer, 1 << 20) > 0)
        ;
    double seconds = seconds_since(start);
    close(fd);
    free(buffer);
    return seconds;
}

/* The kernel forgets the file; what the disk, or the host of this machine, remembers it may. */
static void forget(const char *path)
{
    int fd = open(path, O_RDONLY);
    fdatasync(fd);
    if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) perror("posix_fadvise");
    close(fd);
}

static Dataset *open_dataset(const char *path, const char *folder)
{
    Error err;
    Dataset *dataset = NULL;
    DatasetOptions options = {
        .key = "bench", .path = &path, .num_paths = 1, .index_folder = folder};
    stop_on(dataset_open(&options, &dataset, &err), &err);
    return dataset;
}

/* Of a file in memory: by the clock, where a second core reads while the first goes through what
 * was read, and in CPU time of both. */
static void bench_index(const char *path)
{
    Error err;
    double best_read = 1e9, best_index = 1e9, best_read_cpu = 1e9, best_cpu = 1e9, best_open = 1e9;
    double gigabytes = 0;
    for (int i = 0; i < 5; i++) {
        int64_t wall = wall_ns();
        best_read_cpu = fmin(best_read_cpu, plain_read_seconds(path));
        best_read = fmin(best_read, (double)(wall_ns() - wall) * 1e-9);
        stop_on(folder_remove(INDEX_FOLDER, &err), &err);
        int64_t start = cpu_ns();
        wall = wall_ns();
        dataset_close(open_dataset(path, INDEX_FOLDER));
        best_index = fmin(best_index, (double)(wall_ns() - wall) * 1e-9);
        best_cpu = fmin(best_cpu, seconds_since(start));
        start = cpu_ns();
        Dataset *dataset = open_dataset(path, INDEX_FOLDER);
        best_open = fmin(best_open, seconds_since(start));
        gigabytes = (double)dataset_summary(dataset).bytes * 1e-9;
        dataset_close(dataset);
    }
    printf("plain read      %8.2f GB/s (page cache, by the clock)\n", gigabytes / best_read);
    printf("index           %8.2f GB/s, %.0f %% of plain read; %.0f %% in CPU time\n",
           gigabytes / best_index, 100 * best_read / best_index, 100 * best_read_cpu / best_cpu);
    printf("open (sidecar)  %8.2f ms\n", best_open * 1e3);
}

/* By the clock, from the disk: the best of three of each. */
static void bench_cold_index(const char *path)
{
    Error err;
    double best_read = 1e9, best_index = 1e9, gigabytes = 0;
    for (int i = 0; i < 3; i++) {
        forget(path);
        int64_t start = wall_ns();
        plain_read_seconds(path);
        double seconds = (double)(wall_ns() - start) * 1e-9;
        if (seconds < best_read) best_read = seconds;
        stop_on(folder_remove(INDEX_FOLDER, &err), &err);
        forget(path);
        start = wall_ns();
        Dataset *dataset = open_dataset(path, INDEX_FOLDER);
        seconds = (double)(wall_ns() - start) * 1e-9;
        if (seconds < best_index) best_index = seconds;
        gigabytes = (double)dataset_summary(dataset).bytes * 1e-9;
        dataset_close(dataset);
    }
    printf("cold read       %8.2f GB/s (not in memory, by the clock)\n", gigabytes / best_read);
    printf("cold index      %8.2f GB/s, %.0f %% of it\n", gigabytes / best_index,
           100 * best_read / best_index);
}

static void bench_reads(const Dataset *dataset)
{
    Error err;
    RecordSource source;
    Str text = {0};
    OrderCursor cursor = order_cursor((RecordOrder){dataset_summary(dataset).records, 1, true});
    uint64_t bytes = 0, epoch;
    int64_t start = cpu_ns();
    for (uint64_t position = 0; position < RECORDS; position++) {
        str_clear(&text);
        stop_on(
            dataset_read(dataset, order_record(&cursor, position, &epoch), &text, &source, &err),
            &err);
        bytes += text.length;
    }
    double seconds = seconds_since(start);
    printf("shuffled reads  %8.0f records/s, %.2f GB/s\n", RECORDS / seconds,
           (double)bytes / seconds * 1e-9);
    str_free(&text);
}

static void bench_parse(const Dataset *dataset)
{
    Error err;
    Str text = {0};
    double check_seconds = 0, parse_seconds = 0;
    uint64_t bytes = 0, count = dataset_summary(dataset).records;
    for (uint64_t i = 0; i < count && bytes < 64u << 20; i++) {
        RecordSource source;
        cJSON *json = NULL;
        str_clear(&text);
        stop_on(dataset_read(dataset, i, &text, &source, &err), &err);
        bytes += text.length;
        int64_t start = cpu_ns();
        stop_on(record_check(text.data, text.length, "line", &err), &err);
        check_seconds += seconds_since(start);
        start = cpu_ns();
        stop_on(record_parse(text.data, text.length, "line", &json, &err), &err);
        parse_seconds += seconds_since(start);
        cJSON_Delete(json);
    }
    printf("check           %8.0f MB/s\n", (double)bytes / check_seconds * 1e-6);
    printf("check + parse   %8.0f MB/s\n", (double)bytes / parse_seconds * 1e-6);
    str_free(&text);
}

static void bench_sft(const Dataset *dataset, const char *model)
{
    Error err;
    JobConfig config = {0};
    config.model.tokenizer = (char *)model;
    config.data.label_key = "label";
    config.data.tool_key = "tools";
    config.data.metadata_key = "metadata";
    config.data.max_length = 1 << 20;
    void *shared = NULL;
    stop_on(rollout_sft.open(&config, &shared, &err), &err);
    void *scratch = rollout_sft.open_thread(shared);
    Str text = {0};
    uint64_t samples = 0, tokens = 0, bytes = 0, epoch;
    OrderCursor cursor = order_cursor((RecordOrder){dataset_summary(dataset).records, 2, true});
    int64_t start = cpu_ns();
    for (; seconds_since(start) < SFT_SECONDS; samples++) {
        RecordSource source;
        str_clear(&text);
        stop_on(dataset_read(dataset, order_record(&cursor, samples, &epoch), &text, &source, &err),
                &err);
        RolloutRecord record = {.position = (int64_t)samples,
                                .text = text.data,
                                .length = text.length,
                                .source = "line",
                                .error = ""};
        RolloutGroup group = {0};
        stop_on(rollout_sft.run(shared, scratch, &record, &group, &err), &err);
        const Sample *sample = &group.sample[0];
        if (sample->status == SAMPLE_REJECTED) {
            fprintf(stderr, "bench_data: %s\n", sample->reject_message);
            exit(1);
        }
        tokens += (uint64_t)sample->length;
        bytes += text.length;
        rollout_group_clear(&group);
    }
    double seconds = seconds_since(start);
    printf("sft             %8.0f samples/s, %.2f Mtokens/s, %.1f MB/s of JSON on one core\n",
           (double)samples / seconds, (double)tokens / seconds * 1e-6,
           (double)bytes / seconds * 1e-6);
    str_free(&text);
    rollout_sft.close_thread(scratch);
    rollout_sft.close(shared);
}

int main(int argc, char **argv)
{
    const char *made = "bench-data.jsonl";
    const char *path = argc > 1 ? argv[1] : made;
    const char *model = argc > 2 ? argv[2] : PROJECT_SOURCE_DIR "/deploy/examples/tiny/model";
    Error err;
    if (path == made) make_file(made);
    bench_index(path);
    bench_cold_index(path);
    Dataset *dataset = open_dataset(path, INDEX_FOLDER);
    bench_reads(dataset);
    bench_parse(dataset);
    bench_sft(dataset, model);
    dataset_close(dataset);
    if (path == made) unlink(made);
    stop_on(folder_remove(INDEX_FOLDER, &err), &err);
    return 0;
}
