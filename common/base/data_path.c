#include "base/data_path.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"

/* A bound of a slice, up to `end`; nothing written is `absent`. */
static bool read_bound(const char *text, const char *end, int64_t absent, int64_t *ret)
{
    *ret = absent;
    if (text == end) return true;
    const char *digits = text + (*text == '-');
    if (digits == end || (size_t)(end - digits) != strspn(digits, "0123456789")) return false;
    errno = 0;
    *ret = strtoll(text, NULL, 10);
    return errno == 0;
}

/* Takes "@[a:b]" off the end of `text`. */
static bool take_slice(char *text, DataPath *path)
{
    size_t length = strlen(text);
    char *at = strrchr(text, '@');
    if (at == NULL || at[1] != '[' || text[length - 1] != ']') return false;
    const char *colon = strchr(at, ':');
    if (colon == NULL || !read_bound(at + 2, colon, 0, &path->begin) ||
        !read_bound(colon + 1, text + length - 1, INT64_MAX, &path->end))
        return false;
    *at = '\0';
    path->sliced = true;
    return true;
}

/* "split" or "config/split". */
static void put_split(const char *text, DataPath *path)
{
    const char *slash = strchr(text, '/');
    if (slash != NULL) path->config = mem_strndup(text, (size_t)(slash - text));
    path->split = mem_strdup(slash != NULL ? slash + 1 : text);
}

/* Takes "@split" or "@config/split" off the end of the name of a folder. */
static void take_split(char *text, DataPath *path)
{
    char *at = strrchr(text, '@');
    if (at == NULL || at == text || at[1] == '\0' || at[1] == '/') return;
    *at = '\0';
    char *slash = strchr(at + 1, '/');
    if (!path_is_folder(text) || (slash != NULL && slash[1] == '\0')) {
        *at = '@';
        return;
    }
    put_split(at + 1, path);
}

/* The "@" before the split of a name of the Hub, or NULL: one directly behind OWNER/NAME begins the
 * revision. */
static char *hub_split(char *text)
{
    char *owner = strstr(text, "datasets/"), *name = NULL;
    if (owner != NULL) name = strchr(owner + strlen("datasets/"), '/');
    if (name == NULL) return NULL;
    char *end = name + 1 + strcspn(name + 1, "/@"), *last = strrchr(end, '@');
    return last != NULL && last != end ? last : NULL;
}

/* Takes the text of a name apart; what is none stays a path, which is not there. */
static void take_hub_name(DataPath *path)
{
    char *at = hub_split(path->path);
    if (at != NULL) *at = '\0';
    if (!hub_name_parse(path->path, &path->hub)) {
        if (at != NULL) *at = '@';
        return;
    }
    if (at != NULL) put_split(at + 1, path);
    free(path->path);
    path->path = mem_strdup(path->hub.path);
}

bool data_path_is_address(const char *text)
{
    size_t scheme = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789+");
    return scheme > 1 && str_starts_with(text + scheme, "://") &&
           !str_starts_with(text, HUB_SCHEME);
}

DataPath data_path_parse(const char *text)
{
    DataPath path = {.path = mem_strdup(text), .end = INT64_MAX};
    if (path_exists(path.path)) return path;
    take_slice(path.path, &path);
    if (str_starts_with(path.path, HUB_SCHEME))
        take_hub_name(&path);
    else if (!path_exists(path.path))
        take_split(path.path, &path);
    return path;
}

void data_path_free(DataPath *path)
{
    free(path->path);
    hub_name_free(&path->hub);
    free(path->config);
    free(path->split);
    *path = (DataPath){0};
}

static uint64_t resolve(int64_t bound, uint64_t records)
{
    uint64_t back = bound < 0 ? 0 - (uint64_t)bound : 0;
    uint64_t at = bound >= 0 ? (uint64_t)bound : back < records ? records - back : 0;
    return at < records ? at : records;
}

void data_path_slice(const DataPath *path, uint64_t records, uint64_t *ret_begin, uint64_t *ret_end)
{
    *ret_begin = resolve(path->begin, records);
    *ret_end = resolve(path->end, records);
    if (*ret_end < *ret_begin) *ret_end = *ret_begin;
}
