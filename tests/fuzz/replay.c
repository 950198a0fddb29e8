/* Runs a fuzz target without libFuzzer: each file of a corpus folder, and each cut of it up to a
 * size, as input from a heap block of exactly that length, so that a sanitizer sees every read past
 * the end. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"

#define CUT_BYTES_MAX   2048
#define INPUT_BYTES_MAX (64u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void run(const char *bytes, size_t length)
{
    uint8_t *copy = mem_alloc(length > 0 ? length : 1);
    memcpy(copy, bytes, length);
    LLVMFuzzerTestOneInput(copy, length);
    free(copy);
}

int main(int argc, char **argv)
{
    int inputs = 0;
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    if (folder == NULL) {
        fprintf(stderr, "usage: %s CORPUS_FOLDER (which exists)\n", argv[0]);
        return 2;
    }
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.') continue;
        Error err = {0};
        char *path = path_join(argv[1], entry->d_name), *bytes = NULL;
        size_t length = 0;
        if (file_read(path, INPUT_BYTES_MAX, &bytes, &length, &err) != OK) {
            fprintf(stderr, "%s\n", err.message);
            return 1;
        }
        run(bytes, length);
        for (size_t cut = 0; cut < length && length <= CUT_BYTES_MAX; cut++)
            run(bytes, cut);
        inputs++;
        free(bytes);
        free(path);
    }
    closedir(folder);
    printf("%s: %d inputs and their cuts\n", argv[1], inputs);
    return inputs > 0 ? 0 : 1;
}
