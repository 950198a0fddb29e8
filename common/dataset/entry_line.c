#include "dataset/entry_line.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/plural.h"
#include "base/size_text.h"
#include "base/str.h"

void entry_line_add(EntryLine *line, char *const *path, size_t count, bool sized)
{
    if (count == 0) return;
    if (line->first == NULL) line->first = mem_strdup(path_name(path[0]));
    free(line->last);
    line->last = mem_strdup(path_name(path[count - 1]));
    line->files += count;
    struct stat info;
    for (size_t i = 0; sized && i < count; i++)
        if (stat(path[i], &info) == 0 && info.st_size > 0) line->bytes += (uint64_t)info.st_size;
}

/* "records 10 to 19 of 200 (from 0)". */
static void put_slice(const DataPath *path, uint64_t records, Str *text)
{
    uint64_t begin = (uint64_t)path->begin, end = (uint64_t)path->end;
    if (records > 0) data_path_slice(path, records, &begin, &end);
    if (records == 0 && path->end == INT64_MAX)
        str_printf(text, "records %llu and on", (unsigned long long)begin);
    else
        str_printf(text, "records %llu to %llu", (unsigned long long)begin,
                   (unsigned long long)end - 1);
    if (records > 0) str_printf(text, " of %llu", (unsigned long long)records);
    str_puts(text, " (from 0)");
}

char *entry_line_text(const EntryLine *line, const char *key, const char *entry,
                      const DataPath *path, uint64_t records)
{
    bool plain = line->files == 1 && line->split == NULL && !path->sliced && path_exists(entry);
    if (plain || line->files == 0) return NULL;
    Str text = {0};
    char size[32];
    str_printf(&text, "%s: ", key);
    str_put_escaped(&text, entry);
    str_puts(&text, " is ");
    if (line->split != NULL) str_printf(&text, "split %s", line->split);
    if (line->split != NULL && path->sliced) str_puts(&text, ", ");
    if (path->sliced) put_slice(path, records, &text);
    if (line->split != NULL || path->sliced) str_puts(&text, ": ");
    str_printf(&text, "%zu file%s, ", line->files, plural(line->files));
    str_put_escaped(&text, line->first);
    if (line->files > 1) str_puts(&text, " to ");
    if (line->files > 1) str_put_escaped(&text, line->last);
    if (line->bytes > 0) str_printf(&text, " (%s)", size_text(line->bytes, size));
    return str_take(&text);
}

void entry_line_free(EntryLine *line)
{
    free(line->first);
    free(line->last);
    free(line->split);
    *line = (EntryLine){0};
}
