/* A Parquet or Arrow file: any bytes are refused with a message, or give rows that are JSON texts
 * and bad records that say why they are. Arrow itself is not built with sanitizers, so what counts
 * here is the way its arrays are walked. In a build without Arrow there is nothing to do. */
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "dataset/dataset.h"

#define PATH "fuzz-table"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check_message(const Error *err)
{
    int lines = 1;
    for (const char *at = err->message; *at != '\0'; at++)
        lines += *at == '\n';
    CHECKF(lines <= 6 && strstr(err->message, PATH) != NULL, "%s", err->message);
}

static void read_records(const Dataset *dataset)
{
    uint64_t records = dataset_summary(dataset).records;
    Str text = {0};
    for (uint64_t i = 0; i < records && i < 64; i++) {
        Error err = {0};
        RecordSource source;
        str_clear(&text);
        Status status = dataset_read(dataset, i, &text, &source, &err);
        CHECK(status == OK || status == ERR_DATA || status == ERR_RESOURCE);
        if (status != OK) check_message(&err);
        if (status == OK) CHECK(text.data[0] == '{' && text.data[text.length - 1] == '}');
        CHECK(source.line == i + 1 && (status == OK || text.length == 0));
    }
    str_free(&text);
}

static bool is_table(const uint8_t *bytes, size_t length)
{
    if (length < 16) return false;
    return memcmp(bytes, "PAR1", 4) == 0 || memcmp(bytes, "ARROW1\0", 8) == 0 ||
           memcmp(bytes, "\xFF\xFF\xFF\xFF", 4) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    const char *path = PATH;
    Error err = {0};
    Dataset *dataset = NULL;
    if (!is_table(bytes, length)) return 0;
    int fd = open(PATH, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && file_write_all(fd, bytes, length, PATH, &err) == OK);
    close(fd);
    DatasetOptions options = {.key = "data.train", .path = &path, .num_paths = 1};
    if (dataset_open(&options, &dataset, &err) == OK)
        read_records(dataset);
    else
        check_message(&err);
    dataset_close(dataset);
    return 0;
}
