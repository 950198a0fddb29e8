#include "dataset/path_identity.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/file.h"
#include "base/memory.h"

#define EDGE_BYTES (64u << 10)

/* False: it cannot be read. */
static bool put_file(const char *path, off_t size, Str *text)
{
    size_t edge = size < (off_t)EDGE_BYTES ? (size_t)size : EDGE_BYTES;
    char *bytes = mem_alloc(2 * edge + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool read = fd >= 0 && file_read_at(fd, bytes, edge, 0, path, NULL) == OK &&
                file_read_at(fd, bytes + edge, edge, size - (off_t)edge, path, NULL) == OK;
    if (read)
        str_printf(text, "file %lld %016llx\n", (long long)size,
                   (unsigned long long)XXH3_64bits(bytes, 2 * edge));
    if (fd >= 0) close(fd);
    free(bytes);
    return read;
}

static void put_folder(const char *path, Str *text)
{
    struct dirent **entry = NULL;
    int count = scandir(path, &entry, NULL, alphasort);
    str_puts(text, "folder\n");
    for (int i = 0; i < count; i++) {
        char *whole = path_join(path, entry[i]->d_name);
        struct stat info;
        if (stat(whole, &info) == 0 && S_ISREG(info.st_mode))
            str_printf(text, "%lld %s\n", (long long)info.st_size, entry[i]->d_name);
        free(whole);
        free(entry[i]);
    }
    free(entry);
}

void path_identity(const char *path, Str *text)
{
    struct stat info;
    bool there = stat(path, &info) == 0;
    if (there && S_ISDIR(info.st_mode))
        put_folder(path, text);
    else if (!there || !S_ISREG(info.st_mode) || !put_file(path, info.st_size, text))
        str_printf(text, "path %s\n", path);
}
