/* Finding, verifying and removing checkpoints. What the folders hold decides, not what any pointer
 * says. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/str.h"
#include "checkpoint/manifest_file.h"

bool checkpoint_parse_name(const char *name, int64_t *ret_step)
{
    static const char prefix[] = "step_";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return false;
    const char *digits = name + sizeof prefix - 1;
    size_t length = strspn(digits, "0123456789");
    if (length < 8 || length > 18 || digits[length] != '\0') return false;
    *ret_step = strtoll(digits, NULL, 10);
    return true;
}

/* ---- verifying ---- */

static Status verify_size(const char *folder, const ManifestFile *file, Error *err)
{
    struct stat info;
    Status status = OK;
    char *path = path_join(folder, file->name);
    if (lstat(path, &info) != 0) {
        status = errno == ENOENT ? error_set(err, ERR_DATA, "checkpoint %s: its file %s is missing",
                                             folder, file->name)
                                 : error_set_errno(err, errno, "could not look at %s", path);
    } else if (!S_ISREG(info.st_mode) || (int64_t)info.st_size != file->bytes) {
        status = error_set(err, ERR_DATA,
                           "checkpoint %s: its file %s has %lld bytes, the manifest says %" PRId64,
                           folder, file->name, (long long)info.st_size, file->bytes);
    }
    free(path);
    return status;
}

/* What a DigestWatch needs to tell a CheckpointWatch. */
typedef struct Checking {
    const CheckpointWatch *watch;
    const char *folder;
    int64_t bytes;
} Checking;

static void tell_checking(void *context, int64_t bytes_done)
{
    const Checking *checking = context;
    checking->watch->checking(checking->watch->context, checking->folder, bytes_done,
                              checking->bytes);
}

static Status verify_digests(const char *folder, const Manifest *manifest,
                             const CheckpointWatch *watch, Error *err)
{
    Checking checking = {.watch = watch, .folder = folder};
    DigestJob *job = mem_calloc((size_t)manifest->num_files + 1, sizeof *job);
    for (int i = 0; i < manifest->num_files; i++) {
        job[i].path = path_join(folder, manifest->file[i].name);
        checking.bytes += manifest->file[i].bytes;
    }
    bool told = watch != NULL && watch->checking != NULL;
    DigestWatch digest_watch = {told ? watch->interval_ms : 0, tell_checking, &checking};
    digest_files(job, manifest->num_files, told ? &digest_watch : NULL);
    Status status = OK;
    for (int i = 0; i < manifest->num_files; i++) {
        const ManifestFile *file = &manifest->file[i];
        if (status == OK && job[i].error.status != OK)
            status = error_set(err, job[i].error.status, "%s", job[i].error.message);
        if (status == OK && strcmp(job[i].hex, file->sha256) != 0)
            status = error_set(err, ERR_DATA,
                               "checkpoint %s: its file %s is damaged: its SHA-256 is %.16s..., "
                               "the manifest says %.16s...",
                               folder, file->name, job[i].hex, file->sha256);
        free((char *)job[i].path);
    }
    free(job);
    return status;
}

static Status load_manifest(const char *folder, Manifest **ret, Error *err)
{
    char *path = path_join(folder, MANIFEST_NAME), *text = NULL;
    size_t length = 0;
    Error why = {0};
    Status status = file_read(path, JSON_FILE_BYTES_MAX, &text, &length, &why);
    if (status == ERR_NOT_FOUND)
        status =
            error_set(err, ERR_DATA, "%s has no %s: not a whole checkpoint", folder, MANIFEST_NAME);
    else if (status == ERR_INVALID) /* a folder, a pipe, larger than any manifest */
        status = error_set(err, ERR_DATA, "%s", why.message);
    else if (status != OK)
        status = error_set(err, status, "%s", why.message);
    if (status == OK) status = manifest_parse(text, length, path, ret, err);
    free(text);
    free(path);
    return status;
}

static Status verify(const char *path, bool digests, const CheckpointWatch *watch, Manifest **ret,
                     Error *err)
{
    Manifest *manifest = NULL;
    if (!path_is_folder(path))
        return error_set(err, ERR_NOT_FOUND, "there is no checkpoint folder %s", path);
    TRY(load_manifest(path, &manifest, err));
    Status status = OK;
    for (int i = 0; i < manifest->num_files && status == OK; i++)
        status = verify_size(path, &manifest->file[i], err);
    if (status == OK && digests) status = verify_digests(path, manifest, watch, err);
    int64_t step = 0;
    if (status == OK && checkpoint_parse_name(path_name(path), &step) && step != manifest->step)
        status = error_set(err, ERR_DATA, "checkpoint %s holds step %" PRId64 ": it was renamed",
                           path, manifest->step);
    if (status != OK) {
        manifest_destroy(manifest);
        return status;
    }
    *ret = manifest;
    return OK;
}

Status checkpoint_verify(const char *path, bool digests, Manifest **ret, Error *err)
{
    return verify(path, digests, NULL, ret, err);
}

/* ---- listing ---- */

typedef struct Found {
    int64_t step;
    char *path;
} Found;

typedef struct FoundList {
    Found *item; /* the newest first */
    int count;
    char **leftover; /* paths of what a kill left behind */
    int num_leftovers;
} FoundList;

static void list_clear(FoundList *list)
{
    for (int i = 0; i < list->count; i++)
        free(list->item[i].path);
    for (int i = 0; i < list->num_leftovers; i++)
        free(list->leftover[i]);
    free(list->item);
    free(list->leftover);
}

static int compare_newest_first(const void *a, const void *b)
{
    const Found *x = a, *y = b;
    return x->step > y->step ? -1 : x->step < y->step;
}

static bool is_leftover(const char *name)
{
    bool of_step = str_starts_with(name, "step_") &&
                   (str_ends_with(name, PARTIAL_SUFFIX) || str_ends_with(name, REMOVED_SUFFIX));
    return of_step || str_starts_with(name, LATEST_NAME ".tmp-") ||
           str_starts_with(name, BEST_NAME ".tmp-");
}

/* A root that does not exist holds nothing. */
static Status list_root(const char *root, FoundList *list, Error *err)
{
    DIR *folder = opendir(root);
    if (folder == NULL && errno == ENOENT) return OK;
    if (folder == NULL) return error_set_errno(err, errno, "could not open folder %s", root);
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(folder);
        if (entry == NULL) break;
        Found found = {0};
        if (checkpoint_parse_name(entry->d_name, &found.step)) {
            found.path = path_join(root, entry->d_name);
            list->item = mem_realloc(list->item, (size_t)list->count + 1, sizeof found);
            list->item[list->count++] = found;
        } else if (is_leftover(entry->d_name)) {
            list->leftover =
                mem_realloc(list->leftover, (size_t)list->num_leftovers + 1, sizeof(char *));
            list->leftover[list->num_leftovers++] = path_join(root, entry->d_name);
        }
    }
    Status status = errno != 0 ? error_set_errno(err, errno, "could not read folder %s", root) : OK;
    closedir(folder);
    if (list->count > 0)
        qsort(list->item, (size_t)list->count, sizeof *list->item, compare_newest_first);
    return status;
}

Status checkpoint_list(const char *root, StringList *ret, Error *err)
{
    FoundList list = {0};
    Status status = list_root(root, &list, err);
    for (int i = 0; i < list.count && status == OK; i++)
        string_list_append(ret, list.item[i].path);
    list_clear(&list);
    return status;
}

/* What this checkpoint lacks, for good. Anything else (a format of a later program, a disk that
 * does not read, too few descriptors) says nothing against it, and to go on from an older one would
 * throw its steps away. */
static bool is_damage(Status status)
{
    return status == ERR_DATA || status == ERR_NOT_FOUND;
}

Status checkpoint_find_latest(const char *root, char **ret_path, Manifest **ret,
                              const CheckpointWatch *watch, Error *err)
{
    FoundList list = {0};
    Manifest *manifest = NULL;
    Error why = {0}, newest_why = {0};
    int chosen = -1;
    Status status = list_root(root, &list, err);
    for (int i = 0; status == OK && i < list.count && chosen < 0; i++) {
        if (verify(list.item[i].path, true, watch, &manifest, &why) == OK) {
            chosen = i;
            break;
        }
        if (!is_damage(why.status)) {
            error_append(&why,
                         "This is the newest checkpoint, and an older one is not taken in its "
                         "place; move it away to go on from that.");
            status = error_set(err, why.status, "%s", why.message);
            break;
        }
        if (i == 0) newest_why = why;
        if (watch != NULL && watch->skipped != NULL)
            watch->skipped(watch->context, list.item[i].path, &why);
    }
    if (status == OK && chosen < 0 && list.count > 0)
        status =
            error_set(err, ERR_DATA,
                      "none of the %d checkpoints in %s is whole; the newest: %.1000s. Move them "
                      "away to begin anew",
                      list.count, root, newest_why.message);
    if (status == OK) {
        *ret_path = chosen >= 0 ? mem_strdup(list.item[chosen].path) : NULL;
        *ret = manifest;
    }
    list_clear(&list);
    return status;
}

/* ---- removing ---- */

Status checkpoint_remove(const char *path, Error *err)
{
    char *trash = mem_printf("%s.%d" REMOVED_SUFFIX, path, (int)getpid());
    Status status = folder_remove(trash, err);
    if (status == OK && rename(path, trash) != 0)
        status = error_set_errno(err, errno, "could not rename %s to %s", path, trash);
    if (status == OK) status = folder_remove(trash, err);
    free(trash);
    return status;
}

static bool has_manifest(const char *path)
{
    char *manifest = path_join(path, MANIFEST_NAME);
    bool has = path_exists(manifest);
    free(manifest);
    return has;
}

static bool is_kept(const CheckpointKeep *keep, const Found *found)
{
    for (int i = 0; i < keep->num_steps; i++)
        if (keep->step[i] == found->step) return true;
    return keep->path != NULL && strcmp(path_name(found->path), path_name(keep->path)) == 0;
}

Status checkpoint_prune(const char *root, const CheckpointKeep *keep, Error *err)
{
    FoundList list = {0};
    Status status = list_root(root, &list, err);
    for (int i = 0; i < list.num_leftovers && status == OK; i++)
        status = folder_remove(list.leftover[i], err);
    int newer = 0; /* that are kept */
    for (int i = 0; i < list.count && status == OK; i++) {
        const char *path = list.item[i].path;
        Manifest *manifest = NULL;
        bool over = !has_manifest(path) || (keep->last > 0 && newer >= keep->last);
        if (over && !is_kept(keep, &list.item[i]))
            status = checkpoint_remove(path, err);
        else if (checkpoint_verify(path, false, &manifest, NULL) == OK)
            newer++;
        manifest_destroy(manifest);
    }
    list_clear(&list);
    return status;
}

void checkpoint_name_best(const char *root, const Manifest *manifest)
{
    FoundList list = {0};
    const char *name = NULL;
    if (list_root(root, &list, NULL) != OK) return;
    for (int b = 0; b < manifest->num_best && name == NULL; b++)
        for (int i = 0; i < list.count && name == NULL; i++)
            if (list.item[i].step == manifest->best[b].step && has_manifest(list.item[i].path))
                name = path_name(list.item[i].path);
    checkpoint_write_hint(root, BEST_NAME, name);
    list_clear(&list);
}
