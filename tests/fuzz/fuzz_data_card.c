/* README.md of a data folder: any bytes are refused with a message of one to six lines, or lead to
 * files that are in the folder, each once. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "dataset/data_folder.h"

#define FOLDER "fuzz-data-card"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void make_folder(void)
{
    static const char *const names[] = {"/train.jsonl", "/en/test.jsonl", "/en/deep/dev.jsonl",
                                        "/data/train-00000-of-00001.jsonl"};
    static bool made;
    Error err = {0};
    if (made) return;
    CHECK(folder_remove(FOLDER, &err) == OK && folder_create(FOLDER "/en/deep", &err) == OK &&
          folder_create(FOLDER "/data", &err) == OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = path_join(FOLDER, names[i] + 1);
        CHECK(file_write_atomic(path, "{}\n", 3, &err) == OK);
        free(path);
    }
    made = true;
}

static void check_entry(const char *entry, const char *key)
{
    Error err = {0};
    StringList files = {0};
    char *split = NULL;
    DataPath path = data_path_parse(entry);
    Status status = data_folder_files(&path, key, &files, &split, &err);
    int lines = 1;
    for (const char *at = err.message; *at != '\0'; at++)
        lines += *at == '\n';
    if (status != OK) CHECKF(lines <= 6 && str_starts_with(err.message, key), "%s", err.message);
    for (int i = 0; status == OK && i < files.count; i++) {
        CHECK(path_exists(files.item[i]));
        for (int j = 0; j < i; j++)
            CHECK(strcmp(files.item[i], files.item[j]) != 0);
    }
    CHECK(status != OK || files.count > 0);
    string_list_free(&files);
    free(split);
    data_path_free(&path);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    Error err = {0};
    make_folder();
    CHECK(file_write_atomic(FOLDER "/README.md", bytes, length, &err) == OK);
    check_entry(FOLDER, "data.train");
    check_entry(FOLDER, "data.eval");
    check_entry(FOLDER "@x/train", "data.train");
    return 0;
}
