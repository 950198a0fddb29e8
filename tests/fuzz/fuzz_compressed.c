/* A compressed data file: any bytes behind the magic number of gzip or zstd are refused with a
 * message, or are records that read the same with an index that is kept and with one that is not,
 * of which only the last may be lost to damage. */
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "dataset/dataset.h"

#define PATH   "fuzz-compressed.jsonl"
#define FOLDER "fuzz-compressed-index"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check_message(const Error *err)
{
    int lines = 1;
    for (const char *at = err->message; *at != '\0'; at++)
        lines += *at == '\n';
    CHECKF(lines <= 6 && strstr(err->message, PATH) != NULL, "%s", err->message);
}

static Dataset *open_file(const char *folder)
{
    const char *path = PATH;
    Error err = {0};
    Dataset *dataset = NULL;
    DatasetOptions options = {
        .key = "data.train", .path = &path, .num_paths = 1, .index_folder = folder};
    if (dataset_open(&options, &dataset, &err) != OK) check_message(&err);
    return dataset;
}

static void check_records(const Dataset *kept, const Dataset *unkept)
{
    uint64_t records = dataset_summary(kept).records;
    CHECK(records == dataset_summary(unkept).records);
    Str text[2] = {{0}};
    for (uint64_t i = 0; i < records && i < 200; i++) {
        Error err = {0};
        RecordSource source[2];
        str_clear(&text[0]);
        str_clear(&text[1]);
        Status status = dataset_read(kept, i, &text[0], &source[0], &err);
        CHECK(status == dataset_read(unkept, i, &text[1], &source[1], &err));
        CHECK(status == OK || (status == ERR_DATA && i == records - 1));
        if (status != OK) check_message(&err);
        CHECK(source[0].line == source[1].line && text[0].length == text[1].length);
        CHECK(text[0].length == 0 || memcmp(text[0].data, text[1].data, text[0].length) == 0);
    }
    str_free(&text[0]);
    str_free(&text[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    Error err = {0};
    int fd = open(PATH, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && file_write_all(fd, bytes, length, PATH, &err) == OK);
    close(fd);
    Dataset *kept = open_file(FOLDER), *unkept = open_file(NULL);
    CHECK((kept == NULL) == (unkept == NULL));
    if (kept != NULL) check_records(kept, unkept);
    dataset_close(kept);
    dataset_close(unkept);
    return 0;
}
