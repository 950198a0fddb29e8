#include "dataset/file_warnings.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/str.h"

static void add(Dataset *dataset, Str *line)
{
    char *text = str_take(line);
    string_list_append(&dataset->entries, text);
    free(text);
}

/* Of a file of the Hub that is not here it is not known. */
static bool is_empty(const DatasetFile *file)
{
    if (file->format == &hub_file_format) return false;
    FileSummary summary = file->format->summary(file->file);
    return summary.counted ? summary.records == 0 : summary.bytes == 0;
}

static void tell_empty(Dataset *dataset, const char *key)
{
    const char *first = NULL;
    int count = 0;
    for (int i = 0; i < dataset->num_files; i++) {
        if (!is_empty(&dataset->file[i])) continue;
        if (count++ == 0) first = dataset->file[i].path;
    }
    if (count == 0 || count == dataset->num_files) return; /* all: refused by who reads them */
    Str line = {0};
    str_printf(&line, "warning: %s: no record is in %s", key, first);
    if (count > 1) str_printf(&line, " and in %d more file%s", count - 1, count == 2 ? "" : "s");
    str_puts(&line, ", as if the writing had been cut off; the other files are read");
    add(dataset, &line);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void tell_twice(Dataset *dataset, const char *key)
{
    static const char *const endings[] = {".gz", ".zst"};
    size_t count = (size_t)dataset->num_files;
    char **name = mem_calloc(count + 1, sizeof *name), *first = NULL, *other = NULL;
    int twice = 0;
    for (size_t i = 0; i < count; i++)
        name[i] = dataset->file[i].path;
    qsort(name, count, sizeof *name, by_name);
    for (size_t i = 0; i < count; i++) {
        for (size_t e = 0; e < sizeof endings / sizeof *endings; e++) {
            if (!str_ends_with(name[i], endings[e])) continue;
            char *plain = mem_strdup(name[i]);
            plain[strlen(plain) - strlen(endings[e])] = '\0';
            char **found = bsearch(&plain, name, count, sizeof *name, by_name);
            if (found != NULL && twice++ == 0) first = *found, other = name[i];
            free(plain);
        }
    }
    if (twice > 0) {
        Str line = {0};
        str_printf(&line, "warning: %s: both %s and %s are read", key, first, other);
        if (twice > 1) str_printf(&line, ", and %d more with and without compression", twice - 1);
        str_puts(&line, ": each record twice, if they are the same");
        add(dataset, &line);
    }
    free(name);
}

void file_warnings_add(Dataset *dataset, const char *key)
{
    tell_empty(dataset, key);
    tell_twice(dataset, key);
}
