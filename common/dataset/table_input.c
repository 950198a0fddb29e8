#include "dataset/table_input.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"

/* Beside the programs: in the folder lib next to that of this one. */
static void *load_beside_program(void)
{
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0) return NULL;
    program[length] = '\0';
    char *folder = path_folder(program),
         *path = mem_printf("%s/../lib/%s", folder, TABLE_LIBRARY_FILE);
    void *library = path_exists(path) ? dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) : NULL;
    free(path);
    free(folder);
    return library;
}

Status table_library_load(const char *path, const char *what, const TableLibrary **ret, Error *err)
{
    dlerror();
    void *library = load_beside_program();
    const char *why = library == NULL ? dlerror() : NULL;
    if (library == NULL && why == NULL)
        library = dlopen(TABLE_LIBRARY_FILE, RTLD_NOW | RTLD_NODELETE);
    TableLibraryFunction *function = NULL;
    if (library != NULL) *(void **)&function = dlsym(library, TABLE_LIBRARY_SYMBOL);
    const TableLibrary *found = function != NULL ? function() : NULL;
    if (found != NULL && found->version == TABLE_LIBRARY_VERSION) {
        *ret = found;
        return OK;
    }
    return error_set(err, ERR_UNSUPPORTED,
                     "%s is %s, and %s\n  expected: JSONL, or a build with Apache Arrow\n  to do: "
                     "run deploy/setup.sh --arrow and build again",
                     path, what, why != NULL ? why : "this build has no Arrow library");
}

/* The first line of what the pool says. */
static void tell_fault(const Error *err, char message[TABLE_MESSAGE_BYTES])
{
    int length = (int)strcspn(err->message, "\n");
    snprintf(message, TABLE_MESSAGE_BYTES, "%.*s", length, err->message);
}

static bool read_for_library(void *file, void *bytes, size_t length, uint64_t offset,
                             char message[TABLE_MESSAGE_BYTES])
{
    Error err = {0};
    if (data_file_read(file, bytes, length, offset, &err) == OK) return true;
    tell_fault(&err, message);
    return false;
}

static void *map_for_library(void *file, char message[TABLE_MESSAGE_BYTES])
{
    Error err = {0};
    int fd;
    void *map = MAP_FAILED;
    if (data_file_take(file, &fd, &err) != OK) {
        tell_fault(&err, message);
        return NULL;
    }
    map = mmap(NULL, (size_t)data_file_state(file)->bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        snprintf(message, TABLE_MESSAGE_BYTES, "it cannot be mapped into memory: %s",
                 strerror(errno));
    data_file_give(file);
    return map != MAP_FAILED ? map : NULL;
}

TableInput table_input(DataFile *file)
{
    return (TableInput){file, data_file_state(file)->bytes, read_for_library, map_for_library};
}
