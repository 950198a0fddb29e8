/* What a data file of each kind costs on one core, in CPU time: the first opening (the index, and
 * of Parquet a copy of the rows), a later one, all records in their order from the file itself and
 * from what the index has, and records here and there. bench_formats.py makes the files and sets
 * pyarrow beside it.
 *
 * usage: bench_formats FILE... */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/file.h"
#include "dataset/dataset.h"
#include "dataset/shuffle.h"

#define INDEX_FOLDER     "bench-formats-index"
#define SHUFFLED_SECONDS 3

static void stop_on(Status status, const Error *err)
{
    if (status == OK) return;
    fprintf(stderr, "bench_formats: %s\n", err->message);
    exit(1);
}

/* Of all threads of the process: Arrow could have some. */
static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Without a folder nothing is kept: records come from the file itself. */
static Dataset *open_file(const char *path, const char *index_folder, double *ret_seconds)
{
    Error err;
    Dataset *dataset = NULL;
    DatasetOptions options = {
        .key = "bench", .path = &path, .num_paths = 1, .index_folder = index_folder};
    double start = cpu_seconds();
    stop_on(dataset_open(&options, &dataset, &err), &err);
    *ret_seconds = cpu_seconds() - start;
    return dataset;
}

/* Reads records in the order of the file, or here and there for some seconds. */
static uint64_t read_records(const Dataset *dataset, bool shuffled, uint64_t *ret_count)
{
    Error err;
    Str text = {0};
    RecordSource source;
    uint64_t records = dataset_summary(dataset).records, bytes = 0, epoch, i = 0;
    OrderCursor cursor = order_cursor((RecordOrder){records, 1, shuffled});
    double start = cpu_seconds();
    for (; i < records && (!shuffled || cpu_seconds() - start < SHUFFLED_SECONDS); i++) {
        str_clear(&text);
        stop_on(dataset_read(dataset, order_record(&cursor, i, &epoch), &text, &source, &err),
                &err);
        bytes += text.length;
    }
    *ret_count = i;
    str_free(&text);
    return bytes;
}

/* GB of text a second. */
static double read_in_order(const Dataset *dataset, double *ret_gigabytes)
{
    uint64_t count;
    double start = cpu_seconds();
    *ret_gigabytes = (double)read_records(dataset, false, &count) * 1e-9;
    return *ret_gigabytes / (cpu_seconds() - start);
}

static void bench_file(const char *path)
{
    Error err;
    double first, later, gigabytes;
    uint64_t count;
    stop_on(folder_remove(INDEX_FOLDER, &err), &err);
    Dataset *dataset = open_file(path, NULL, &first);
    double from_file = read_in_order(dataset, &gigabytes);
    dataset_close(dataset);
    dataset_close(open_file(path, INDEX_FOLDER, &first));
    dataset = open_file(path, INDEX_FOLDER, &later);
    double in_order = read_in_order(dataset, &gigabytes);
    dataset_close(dataset);
    dataset = open_file(path, INDEX_FOLDER, &later);
    double start = cpu_seconds();
    read_records(dataset, true, &count);
    double shuffled = cpu_seconds() - start;
    printf("%-20s index %5.2f s (%4.2f GB/s of text)  open %5.2f ms  in order %4.2f GB/s, from the "
           "file %4.2f  shuffled %7.0f records/s\n",
           path_name(path), first, gigabytes / first, later * 1e3, in_order, from_file,
           (double)count / shuffled);
    fflush(stdout);
    dataset_close(dataset);
}

int main(int argc, char **argv)
{
    Error err;
    for (int i = 1; i < argc; i++)
        bench_file(argv[i]);
    stop_on(folder_remove(INDEX_FOLDER, &err), &err);
    return 0;
}
