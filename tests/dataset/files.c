#include "dataset/files.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "test.h"

void make_fresh(const char *folder)
{
    Error err = {0};
    assert_ok(folder_remove(folder, &err), &err);
    assert_ok(folder_create(folder, &err), &err);
}

void write_file(const char *path, const void *bytes, size_t length)
{
    Error err = {0};
    char *folder = path_folder(path);
    assert_ok(folder_create(folder, &err), &err);
    free(folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_ok(file_write_all(fd, bytes, length, path, &err), &err);
    close(fd);
}

void write_text(const char *path, const char *text)
{
    write_file(path, text, strlen(text));
}
