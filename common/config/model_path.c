#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hub_name.h"
#include "base/limits.h"
#include "config/job_internal.h"

static bool holds(const char *folder, const char *name)
{
    char *path = path_join(folder, name);
    bool there = path_exists(path);
    free(path);
    return there;
}

/* Committed ones are named step_<number>; those that are being written have an ending. */
static bool is_checkpoint(const char *root, const char *name)
{
    if (!str_starts_with(name, "step_") || name[5] == '\0') return false;
    if (name[5 + strspn(name + 5, "0123456789")] != '\0') return false;
    char *path = path_join(root, name);
    bool whole = holds(path, "manifest.json") && holds(path, "config.json");
    free(path);
    return whole;
}

/* Numbers have leading zeros, so that the longer name, or else the later one, is the newer. */
static bool is_newer(const char *name, const char *than)
{
    if (than == NULL || strlen(name) != strlen(than))
        return than == NULL || strlen(name) > strlen(than);
    return strcmp(name, than) > 0;
}

/* The newest checkpoint in a folder of them, or NULL. Owned by the caller. */
static char *newest_checkpoint(const char *root)
{
    char *newest = NULL;
    DIR *entries = opendir(root);
    if (entries == NULL) return NULL;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (!is_newer(entry->d_name, newest) || !is_checkpoint(root, entry->d_name)) continue;
        free(newest);
        newest = mem_strdup(entry->d_name);
    }
    closedir(entries);
    char *path = newest != NULL ? path_join(root, newest) : NULL;
    free(newest);
    return path;
}

/* The checkpoint that a file checkpoints/best names; it is the only one who knows. */
static char *named_checkpoint(const char *path)
{
    char *name = NULL, *root = path_folder(path), *checkpoint = NULL;
    size_t length = 0;
    if (file_read(path, 256, &name, &length, NULL) == OK) {
        name[strcspn(name, "\n")] = '\0';
        if (is_checkpoint(root, name)) checkpoint = path_join(root, name);
    }
    free(name);
    free(root);
    return checkpoint;
}

char *model_path_checkpoint(const char *path)
{
    char *root = NULL;
    if (!path_is_folder(path) && path_exists(path) && strcmp(path_name(path), "best") == 0)
        return named_checkpoint(path);
    if (!path_is_folder(path) && path_exists(path) && strcmp(path_name(path), "latest") == 0)
        root = path_folder(path); /* what it says is a hint only */
    else if (path_is_folder(path) && !holds(path, "config.json"))
        root = holds(path, "checkpoints") ? path_join(path, "checkpoints") : mem_strdup(path);
    char *checkpoint = root != NULL ? newest_checkpoint(root) : NULL;
    free(root);
    return checkpoint;
}

bool model_path_is_run(const char *path)
{
    return path_is_folder(path) && !holds(path, "config.json") &&
           (holds(path, "checkpoints") || strcmp(path_name(path), "checkpoints") == 0);
}

const char *model_path_hub_name(const char *path, const char *existing)
{
    const char *name = path + strlen(existing);
    name += strspn(name, "/");
    size_t length = hub_name_length(name);
    return length > 0 && name[length] == '\0' ? name : NULL;
}
