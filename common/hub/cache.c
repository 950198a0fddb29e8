#include "hub/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"

#define LOCK_PAUSE_MS 200
#define LOCK_TELL_MS  2000 /* after which whoever waits says for what */

HubCache hub_cache_of(const char *root, const HubName *name)
{
    const char *repo = name->repo, *slash = strchr(repo, '/');
    CHECK(slash != NULL);
    HubCache cache = {.root = mem_strdup(root)};
    cache.name = mem_printf("%s--%.*s--%s", name->model ? "models" : "datasets",
                            (int)(slash - repo), repo, slash + 1);
    cache.folder = path_join(root, cache.name);
    return cache;
}

void hub_cache_free(HubCache *cache)
{
    free(cache->root);
    free(cache->name);
    free(cache->folder);
    *cache = (HubCache){0};
}

char *hub_cache_nearest(const HubCache *cache)
{
    size_t kind = strcspn(cache->name, "-") + 2; /* of "datasets--" */
    StringList names = {0};
    DIR *entries = opendir(cache->root);
    if (entries == NULL) return NULL;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (strncmp(entry->d_name, cache->name, kind) == 0 &&
            strcmp(entry->d_name, cache->name) != 0)
            string_list_append(&names, entry->d_name);
    closedir(entries);
    const char *nearest =
        str_nearest(cache->name, (const char *const *)names.item, (size_t)names.count);
    const char *owner = nearest != NULL ? nearest + kind : "", *end = strstr(owner, "--");
    char *name = end != NULL ? mem_printf("%.*s/%s", (int)(end - owner), owner, end + 2) : NULL;
    string_list_free(&names);
    return name;
}

/* Makes the folder that a path is in. */
static Status make_parent(const char *path, Error *err)
{
    char *parent = path_folder(path);
    Status status = folder_create(parent, err);
    free(parent);
    return status;
}

/* file_write_atomic tells the writers of different processes apart; these may be threads of one. */
static Status write_text(const char *path, const char *text, Error *err)
{
    char *own = mem_printf("%s.%d", path, (int)gettid());
    Status status = make_parent(path, err);
    if (status == OK) status = file_write_atomic(own, text, strlen(text), err);
    if (status == OK && rename(own, path) != 0)
        status = error_set_errno(err, errno, "could not rename %s to %s", own, path);
    free(own);
    return status;
}

/* ---- refs and trees ---- */

bool hub_cache_find_ref(const HubCache *cache, const char *revision, char ret[HUB_COMMIT_BYTES])
{
    char *path = mem_printf("%s/refs/%s", cache->folder, revision), *text = NULL;
    size_t length = 0;
    bool found = file_read(path, 256, &text, &length, NULL) == OK;
    if (found) {
        text[strcspn(text, " \r\n")] = '\0';
        found = strlen(text) == HUB_COMMIT_BYTES - 1 &&
                strspn(text, "0123456789abcdef") == HUB_COMMIT_BYTES - 1;
    }
    if (found) memcpy(ret, text, HUB_COMMIT_BYTES);
    free(text);
    free(path);
    return found;
}

Status hub_cache_keep_ref(const HubCache *cache, const char *revision, const char *commit,
                          Error *err)
{
    char known[HUB_COMMIT_BYTES];
    if (strcmp(revision, commit) == 0) return OK;
    if (hub_cache_find_ref(cache, revision, known) && strcmp(known, commit) == 0) return OK;
    char *path = mem_printf("%s/refs/%s", cache->folder, revision);
    Status status = write_text(path, commit, err);
    free(path);
    return status;
}

char *hub_cache_tree(const HubCache *cache, const char *commit)
{
    return mem_printf("%s/trees/%s.json", cache->folder, commit);
}

Status hub_cache_keep_tree(const HubCache *cache, const char *commit, const HubFiles *files,
                           Error *err)
{
    char *path = hub_cache_tree(cache, commit), *text = hub_tree_write(files);
    Status status = write_text(path, text, err);
    free(text);
    free(path);
    return status;
}

/* ---- blobs ---- */

char *hub_cache_snapshot(const HubCache *cache, const char *commit, const char *path)
{
    return mem_printf("%s/snapshots/%s/%s", cache->folder, commit, path);
}

char *hub_cache_blob(const HubCache *cache, const char *etag)
{
    return mem_printf("%s/blobs/%s", cache->folder, etag);
}

static bool has_bytes(const char *path, int64_t bytes)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) && info.st_size == bytes;
}

bool hub_cache_has_blob(const HubCache *cache, const HubFile *file)
{
    char *path = hub_cache_blob(cache, file->etag);
    bool has = has_bytes(path, file->bytes);
    free(path);
    return has;
}

/* Where there are no symbolic links, huggingface_hub leaves the file itself in the snapshot. */
bool hub_cache_has(const HubCache *cache, const char *commit, const HubFile *file)
{
    char *path = hub_cache_snapshot(cache, commit, file->path);
    bool has = has_bytes(path, file->bytes);
    free(path);
    return has;
}

/* "../../../blobs/ETAG": one step up for each folder that the file is in. */
static char *link_target(const HubFile *file)
{
    Str target = {0};
    str_puts(&target, "../../");
    for (const char *at = file->path; (at = strchr(at, '/')) != NULL; at++)
        str_puts(&target, "../");
    str_printf(&target, "blobs/%s", file->etag);
    return str_take(&target);
}

Status hub_cache_link(const HubCache *cache, const char *commit, const HubFile *file, Error *err)
{
    if (hub_cache_has(cache, commit, file)) return OK;
    char *path = hub_cache_snapshot(cache, commit, file->path), *target = link_target(file);
    char *beside = mem_printf("%s.%d.tmp", path, (int)gettid());
    Status status = make_parent(path, err);
    if (status == OK) {
        unlink(beside);
        if (symlink(target, beside) != 0 || rename(beside, path) != 0)
            status = error_set_errno(err, errno, "could not link %s", path);
    }
    free(beside);
    free(target);
    free(path);
    return status;
}

/* ---- locks ---- */

/* Some releases of huggingface_hub take the file away when they give the lock back: who has waited
 * for it then has a lock that nobody else sees. */
static bool is_still_there(int fd, const char *path)
{
    struct stat held, there;
    return fstat(fd, &held) == 0 && stat(path, &there) == 0 && held.st_dev == there.st_dev &&
           held.st_ino == there.st_ino;
}

/* A disk without locks (some network disks) is used without: two processes may then fetch the same
 * file, each from where the other is, and what comes of it is checked as ever. */
static bool has_no_locks(int why)
{
    return why == ENOSYS || why == ENOLCK || why == EOPNOTSUPP;
}

static Status try_lock(const char *path, int *ret_fd, Error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0664);
    if (fd < 0) return error_set_errno(err, errno, "could not open %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && !has_no_locks(errno)) {
        int why = errno;
        close(fd);
        if (why == EWOULDBLOCK || why == EINTR) return ERR_UNAVAILABLE;
        return error_set_errno(err, why, "could not lock %s", path);
    }
    if (is_still_there(fd, path)) {
        *ret_fd = fd;
        return OK;
    }
    close(fd);
    return ERR_UNAVAILABLE;
}

/* The process that holds the lock, as the kernel lists it; 0: one of another machine, or not known.
 */
static long find_holder(const char *path)
{
    struct stat info;
    char line[256], kind[16];
    long holder = 0;
    FILE *locks = stat(path, &info) == 0 ? fopen("/proc/locks", "re") : NULL;
    while (locks != NULL && holder == 0 && fgets(line, sizeof line, locks) != NULL) {
        long pid;
        unsigned long long inode;
        /* "1: FLOCK  ADVISORY  WRITE 4711 fe:01:123456 0 EOF" */
        if (sscanf(line, "%*d: %15s %*s %*s %ld %*x:%*x:%llu", kind, &pid, &inode) == 3 &&
            strcmp(kind, "FLOCK") == 0 && inode == info.st_ino && pid > 0)
            holder = pid;
    }
    if (locks != NULL) fclose(locks);
    return holder;
}

static void tell_lock(const HubFile *file, const char *path, const HubWatch *watch)
{
    long holder = find_holder(path);
    char process[64] = "another process";
    if (holder > 0) snprintf(process, sizeof process, "process %ld", holder);
    char *text = mem_printf("%s, which fetches %s, to give back %s", process, file->path, path);
    hub_watch_waits(watch, text);
    free(text);
}

Status hub_cache_lock(const HubCache *cache, const HubFile *file, const HubWatch *watch,
                      int *ret_fd, Error *err)
{
    char *path = mem_printf("%s/.locks/%s/%s.lock", cache->root, cache->name, file->etag);
    Status status = make_parent(path, err);
    int64_t tell_ms = clock_ms() + LOCK_TELL_MS;
    bool told = false;
    while (status == OK && (status = try_lock(path, ret_fd, err)) == ERR_UNAVAILABLE) {
        status = hub_watch_pause(watch, LOCK_PAUSE_MS, err);
        if (clock_ms() < tell_ms) continue;
        tell_lock(file, path, watch);
        tell_ms = clock_ms() + LOCK_TELL_MS; /* another one may hold it then */
        told = true;
    }
    if (told) hub_watch_waits(watch, "");
    free(path);
    return status;
}
