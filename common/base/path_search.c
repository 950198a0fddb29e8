#include "base/path_search.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"

/* ---- below a folder ---- */

typedef struct FolderId {
    dev_t device;
    ino_t inode;
} FolderId;

typedef struct Walk {
    const char *root;
    int max;
    FolderId *seen; /* [num_seen] */
    int num_seen;
    StringList *out;
    Error *err;
} Walk;

static bool is_new(Walk *walk, const struct stat *info)
{
    for (int i = 0; i < walk->num_seen; i++)
        if (walk->seen[i].device == info->st_dev && walk->seen[i].inode == info->st_ino)
            return false;
    walk->seen = mem_realloc(walk->seen, (size_t)walk->num_seen + 1, sizeof *walk->seen);
    walk->seen[walk->num_seen++] = (FolderId){info->st_dev, info->st_ino};
    return true;
}

static Status walk_folder(Walk *walk, const char *folder);

/* `name` is relative to the root. */
static Status walk_entry(Walk *walk, int at, const char *name)
{
    struct stat info;
    if (fstatat(at, path_name(name), &info, 0) != 0) {
        if (errno != ENOENT)
            return error_set_errno(walk->err, errno, "%s/%s cannot be looked at", walk->root, name);
        info = (struct stat){.st_mode = S_IFREG}; /* a link to what is not there */
    }
    if (S_ISREG(info.st_mode)) string_list_append(walk->out, name);
    if (!S_ISDIR(info.st_mode) || !is_new(walk, &info)) return OK;
    char *inner = mem_printf("%s/", name);
    Status status = walk_folder(walk, inner);
    free(inner);
    return status;
}

/* `folder` is "" or ends with a slash. */
static Status walk_folder(Walk *walk, const char *folder)
{
    char *path = path_join(walk->root, folder);
    DIR *entries = opendir(path);
    Status status = OK;
    if (entries == NULL) status = error_set_errno(walk->err, errno, "%s cannot be listed", path);
    while (status == OK && walk->out->count <= walk->max) {
        errno = 0;
        struct dirent *entry = readdir(entries);
        if (entry == NULL) {
            if (errno != 0)
                status = error_set_errno(walk->err, errno, "%s cannot be listed to its end", path);
            break;
        }
        if (entry->d_name[0] == '.') continue;
        char *name = mem_printf("%s%s", folder, entry->d_name);
        status = walk_entry(walk, dirfd(entries), name);
        free(name);
    }
    if (entries != NULL) closedir(entries);
    free(path);
    return status;
}

Status path_list_files(const char *root, int max, StringList *ret, Error *err)
{
    Walk walk = {.root = root, .max = max, .out = ret, .err = err};
    struct stat info;
    if (stat(root, &info) == 0) (void)is_new(&walk, &info);
    Status status = walk_folder(&walk, "");
    free(walk.seen);
    return status;
}

/* ---- patterns ---- */

bool path_matches(const char *pattern, const char *path)
{
    if (str_starts_with(pattern, "**")) {
        const char *rest = pattern + 2;
        if (*rest == '\0') return true;
        if (*rest == '/') {
            for (const char *at = path; at != NULL; at = strchr(at, '/')) {
                at += *at == '/';
                if (path_matches(rest + 1, at)) return true;
            }
            return false;
        }
    }
    size_t head = strcspn(pattern, "/"), part = strcspn(path, "/");
    if ((pattern[head] == '/') != (path[part] == '/')) {
        /* The last `**` of a pattern goes over folders. */
        if (pattern[head] != '\0' || !str_ends_with(pattern, "**")) return false;
    }
    char *wanted = mem_strndup(pattern, head), *found = mem_strndup(path, part);
    bool same = fnmatch(wanted, found, FNM_NOESCAPE) == 0;
    free(wanted);
    free(found);
    if (!same) return false;
    return pattern[head] == '\0' || path_matches(pattern + head + 1, path + part + 1);
}

/* What glob(3) could not list; it takes no context. */
static _Thread_local struct {
    char path[PATH_MAX];
    int code;
} not_listed;

static int note_failure(const char *path, int code)
{
    if (code == ENOENT) return 0;
    snprintf(not_listed.path, sizeof not_listed.path, "%s", path);
    not_listed.code = code;
    return 1;
}

static Status add_matches(const char *pattern, StringList *ret, Error *err)
{
    glob_t found = {0};
    int failed = glob(pattern, GLOB_NOSORT, note_failure, &found);
    Status status = OK;
    for (size_t i = 0; failed == 0 && i < found.gl_pathc; i++)
        string_list_append(ret, found.gl_pathv[i]);
    if (failed == GLOB_ABORTED)
        status = error_set_errno(err, not_listed.code, "%s cannot be listed", not_listed.path);
    else if (failed == GLOB_NOSPACE)
        status = error_set(err, ERR_RESOURCE, "no memory to list %s", pattern);
    globfree(&found);
    return status;
}

/* Where `**` stands as a whole part, or NULL. */
static const char *find_any_depth(const char *pattern)
{
    for (const char *at = strstr(pattern, "**"); at != NULL; at = strstr(at + 1, "**"))
        if ((at == pattern || at[-1] == '/') && (at[2] == '/' || at[2] == '\0')) return at;
    return NULL;
}

/* The files below one folder that match the rest of the pattern, which begins with `**`. */
static Status add_below(const char *folder, const char *rest, StringList *ret, Error *err)
{
    StringList files = {0};
    Status status = path_list_files(folder, INT_MAX - 1, &files, err);
    for (int i = 0; i < files.count && status == OK; i++) {
        if (!path_matches(rest, files.item[i])) continue;
        char *path = path_join(folder, files.item[i]);
        string_list_append(ret, path);
        free(path);
    }
    string_list_free(&files);
    return status;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

Status path_glob(const char *pattern, StringList *ret, Error *err)
{
    StringList folders = {0};
    Status status = OK;
    int before = ret->count;
    const char *rest = find_any_depth(pattern);
    if (rest == NULL) {
        status = add_matches(pattern, ret, err);
    } else {
        char *base =
            rest == pattern ? mem_strdup(".") : mem_strndup(pattern, (size_t)(rest - pattern));
        status = add_matches(base, &folders, err);
        free(base);
    }
    for (int i = 0; i < folders.count && status == OK; i++)
        if (path_is_folder(folders.item[i])) status = add_below(folders.item[i], rest, ret, err);
    string_list_free(&folders);
    if (status != OK) return status;
    if (ret->count == before) return error_set(err, ERR_NOT_FOUND, "no file matches %s", pattern);
    qsort(ret->item + before, (size_t)(ret->count - before), sizeof *ret->item, compare_paths);
    return OK;
}
