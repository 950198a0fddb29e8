#include "dataset/index_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/str.h"
#include "dataset/content_hash.h"

#define HEADS_FILE  "files.heads"
#define BODIES_FILE "files.bodies"
#define WAITING_MAX 64
#define SUPERSEDED  1000 /* heads that do not count, beside as many as do */
#define HEADS_MAX   (4u * DATASET_FILES_MAX)
#define NAME_KEPT   100      /* bytes of a data file's name, in that of a file of its index */
#define LOCK_LOOKS  200      /* that a start waits for one that clears away, ... */
#define LOOK_NS     10000000 /* ... and how long each */

struct IndexFolder {
    char *path; /* NULL: there is none */
    bool read_only;
    FilePool *pool;
    pthread_mutex_t lock; /* of what follows */
    IndexHead *head;      /* [num_heads], the last `num_waiting` are not written yet */
    uint32_t num_heads, capacity, num_waiting;
    uint32_t *slot; /* [num_slots], a power of two: which head, from 1; 0: none */
    uint32_t num_slots;
    uint64_t *used; /* [num_used] keys of data files */
    uint32_t num_used, used_capacity;
    bool settled;               /* what is not used was removed: nobody has to know any more */
    int bodies;                 /* or -1 */
    int held;                   /* the folder, with a shared lock; -1: it was not there */
    char *warning;              /* or NULL */
    char *folder, *folder_real; /* the folder of data files that was asked for last */
};

static uint64_t head_hash(const IndexHead *head)
{
    return XXH3_64bits(head, offsetof(IndexHead, head_hash));
}

/* ---- heads by name, with the lock held ---- */

static uint32_t *find_slot(const IndexFolder *folder, uint64_t magic, uint64_t key)
{
    uint32_t at = (uint32_t)(key ^ magic >> 8) & (folder->num_slots - 1);
    for (;; at = (at + 1) & (folder->num_slots - 1)) {
        uint32_t index = folder->slot[at];
        if (index == 0) return &folder->slot[at];
        const IndexHead *head = &folder->head[index - 1];
        if (head->key == key && head->magic == magic) return &folder->slot[at];
    }
}

static void grow_slots(IndexFolder *folder)
{
    free(folder->slot);
    folder->num_slots = folder->num_slots > 0 ? 2 * folder->num_slots : 1024;
    folder->slot = mem_calloc(folder->num_slots, sizeof *folder->slot);
    for (uint32_t i = 0; i < folder->num_heads; i++)
        *find_slot(folder, folder->head[i].magic, folder->head[i].key) = i + 1;
}

/* The last one of a name counts. */
static void add_head(IndexFolder *folder, const IndexHead *head)
{
    if (folder->num_heads == folder->capacity) {
        folder->capacity = 2 * folder->capacity + WAITING_MAX;
        folder->head = mem_realloc(folder->head, folder->capacity, sizeof *folder->head);
    }
    folder->head[folder->num_heads++] = *head;
    if (2 * folder->num_heads > folder->num_slots) grow_slots(folder);
    *find_slot(folder, head->magic, head->key) = folder->num_heads;
}

static uint32_t count_names(const IndexFolder *folder)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < folder->num_slots; i++)
        count += folder->slot[i] != 0;
    return count;
}

static void forget_heads(IndexFolder *folder)
{
    free(folder->head);
    free(folder->slot);
    folder->head = NULL;
    folder->slot = NULL;
    folder->num_heads = folder->capacity = folder->num_slots = 0;
    grow_slots(folder);
}

/* ---- opening ---- */

static int open_file(const IndexFolder *folder, const char *name, int flags)
{
    char *path = path_join(folder->path, name);
    int fd = open(path, flags | O_CLOEXEC, 0644), code = errno;
    free(path);
    errno = code;
    return fd;
}

static void remove_file(const IndexFolder *folder, const char *name)
{
    char *path = path_join(folder->path, name);
    unlink(path);
    free(path);
}

/* Those that are whole; one that is cut off at the end is written over by the next. */
static Status read_heads_of(IndexFolder *folder, int fd, const char *path, Error *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0) return error_set_errno(err, errno, "could not stat %s", path);
    uint64_t count = (uint64_t)info.st_size / sizeof(IndexHead);
    if (count > HEADS_MAX) count = HEADS_MAX;
    IndexHead *head = mem_alloc((count + 1) * sizeof *head);
    Status status = file_read_at(fd, head, count * sizeof *head, 0, path, err);
    for (uint64_t i = 0; i < count && status == OK; i++)
        if (head[i].head_hash == head_hash(&head[i])) add_head(folder, &head[i]);
    free(head);
    return status;
}

/* Where they cannot be read nothing is known, and nothing is to be concluded from that. */
static Status read_heads(IndexFolder *folder, Error *err)
{
    int fd = open_file(folder, HEADS_FILE, O_RDONLY), code = errno;
    if (fd < 0 && code == ENOENT) return OK;
    char *path = path_join(folder->path, HEADS_FILE);
    Status status = fd >= 0 ? read_heads_of(folder, fd, path, err)
                            : error_set_errno(err, code, "could not read %s", path);
    if (status != OK)
        error_append(err, "  expected: what earlier starts have found in the data files\n  to do: "
                          "look after that file; without it each start indexes them again");
    if (fd >= 0) close(fd);
    free(path);
    return status;
}

/* Of a file of its own; NULL: it is none. */
static const char *find_suffix(const char *name)
{
    static const char *const suffixes[] = {".idx", ".tbl", ".rows"};
    const char *found = NULL;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        const char *at = strstr(name, suffixes[i]);
        for (; at != NULL; at = strstr(at + 1, suffixes[i])) {
            const char *behind = at + strlen(suffixes[i]);
            if (behind[0] == '\0' || str_starts_with(behind, ".tmp-")) found = at;
        }
    }
    return found;
}

static int compare_keys(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static bool has_key(const uint64_t *key, uint32_t count, uint64_t wanted)
{
    return count > 0 && bsearch(&wanted, key, count, sizeof *key, compare_keys) != NULL;
}

/* The key stands in a file's name before the suffix; false: the file is not whole. */
static bool key_of(const char *name, const char *suffix, uint64_t *ret)
{
    if (suffix - name < 16 || strchr(suffix + 1, '.') != NULL) return false;
    *ret = strtoull(suffix - 16, NULL, 16);
    return true;
}

/* Whether a head has the file. */
static bool is_named(const uint64_t *key, uint32_t count, const char *name, const char *suffix)
{
    uint64_t wanted;
    return key_of(name, suffix, &wanted) && has_key(key, count, wanted);
}

static void remove_leftovers(const IndexFolder *folder)
{
    DIR *entries = opendir(folder->path);
    uint64_t *key = mem_alloc((folder->num_heads + 1) * sizeof *key);
    uint32_t count = 0;
    for (uint32_t i = 0; i < folder->num_heads; i++)
        if (folder->head[i].own != 0) key[count++] = folder->head[i].key;
    qsort(key, count, sizeof *key, compare_keys);
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        const char *name = entry->d_name, *suffix = find_suffix(name);
        if (suffix != NULL && !is_named(key, count, name, suffix))
            unlinkat(dirfd(entries), name, 0);
    }
    if (entries != NULL) closedir(entries);
    free(key);
}

/* ---- who has the folder open ---- */

/* Whoever has it open holds a shared lock of it, for as long; who can lock it for himself has it
 * alone. Where the folder's file system has no locks nobody ever has. */
static bool lock_folder(const IndexFolder *folder, int how)
{
    int failed;
    while ((failed = flock(folder->held, how | LOCK_NB)) != 0 && errno == EINTR)
        ;
    return failed == 0;
}

static bool take_folder(IndexFolder *folder)
{
    if (folder->held < 0) folder->held = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return folder->held >= 0;
}

/* One that clears away takes a moment; one that was stopped over it is not waited for. */
static void share_folder(const IndexFolder *folder)
{
    for (int look = 0; look < LOCK_LOOKS; look++) {
        if (lock_folder(folder, LOCK_SH) || errno != EWOULDBLOCK) return;
        nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
    }
}

/* By who has the folder alone: removes what no start will use. */
static void clear_away(IndexFolder *folder)
{
    Error unread = {0}; /* which is told when they are read again */
    int bodies = open_file(folder, BODIES_FILE, O_RDONLY);
    bool anew = bodies < 0; /* heads without it are worth nothing */
    if (anew && errno != ENOENT) return;
    if (bodies >= 0) close(bodies);
    if (read_heads(folder, &unread) != OK) return;
    uint32_t names = count_names(folder);
    anew = anew || folder->num_heads == HEADS_MAX || folder->num_heads - names > names + SUPERSEDED;
    if (anew) {
        forget_heads(folder);
        remove_file(folder, HEADS_FILE);
        remove_file(folder, BODIES_FILE);
    }
    remove_leftovers(folder);
}

/* What was read while nobody else could read is read again with the others. */
static void open_files(IndexFolder *folder)
{
    Error why = {0};
    if (!take_folder(folder)) return;
    if (!folder->read_only && lock_folder(folder, LOCK_EX)) clear_away(folder);
    forget_heads(folder);
    share_folder(folder);
    folder->bodies =
        open_file(folder, BODIES_FILE, folder->read_only ? O_RDONLY : O_RDWR | O_APPEND);
    if (folder->bodies >= 0 && read_heads(folder, &why) != OK)
        folder->warning = mem_strdup(why.message);
}

IndexFolder *index_folder_open(const char *path, bool read_only, FilePool *pool)
{
    IndexFolder *folder = mem_calloc(1, sizeof *folder);
    folder->path = path != NULL ? mem_strdup(path) : NULL;
    folder->read_only = read_only;
    folder->pool = pool;
    folder->bodies = folder->held = -1;
    pthread_mutex_init(&folder->lock, NULL);
    grow_slots(folder);
    if (path != NULL) open_files(folder);
    return folder;
}

void index_folder_close(IndexFolder *folder)
{
    if (folder == NULL) return;
    (void)index_folder_flush(folder, NULL);
    if (folder->bodies >= 0) close(folder->bodies);
    if (folder->held >= 0) close(folder->held);
    pthread_mutex_destroy(&folder->lock);
    free(folder->warning);
    free(folder->folder);
    free(folder->folder_real);
    free(folder->used);
    free(folder->slot);
    free(folder->head);
    free(folder->path);
    free(folder);
}

FilePool *index_folder_pool(const IndexFolder *folder)
{
    return folder->pool;
}

const char *index_folder_warning(const IndexFolder *folder)
{
    return folder->warning;
}

const char *index_folder_path(const IndexFolder *folder)
{
    return folder->path;
}

bool index_folder_writes(const IndexFolder *folder)
{
    return folder->path != NULL && !folder->read_only;
}

/* ---- reading ---- */

uint64_t index_folder_key(IndexFolder *folder, const char *path)
{
    char *parent = path_folder(path);
    pthread_mutex_lock(&folder->lock);
    if (folder->folder == NULL || strcmp(folder->folder, parent) != 0) {
        free(folder->folder);
        free(folder->folder_real);
        folder->folder = mem_strdup(parent);
        char *real = realpath(parent, NULL);
        folder->folder_real = mem_strdup(real != NULL ? real : parent);
        free(real);
    }
    char *whole = path_join(folder->folder_real, path_name(path));
    pthread_mutex_unlock(&folder->lock);
    uint64_t key = XXH3_64bits(whole, strlen(whole));
    free(whole);
    free(parent);
    return key;
}

bool index_folder_find(IndexFolder *folder, uint64_t magic, uint64_t key, IndexHead *ret)
{
    pthread_mutex_lock(&folder->lock);
    uint32_t index = *find_slot(folder, magic, key);
    if (index != 0) *ret = folder->head[index - 1];
    pthread_mutex_unlock(&folder->lock);
    return index != 0;
}

bool index_folder_read(IndexFolder *folder, uint64_t place, void *bytes, size_t length)
{
    return folder->bodies >= 0 &&
           file_read_at(folder->bodies, bytes, length, (int64_t)place, "", NULL) == OK;
}

char *index_folder_file(const IndexFolder *folder, const char *path, uint64_t key,
                        const char *suffix)
{
    char *name =
        mem_printf("%.*s-%016llx%s", NAME_KEPT, path_name(path), (unsigned long long)key, suffix);
    char *whole = path_join(folder->path, name);
    free(name);
    return whole;
}

/* ---- writing, with the lock held ---- */

static Status need_bodies(IndexFolder *folder, Error *err)
{
    if (folder->bodies >= 0) return OK;
    TRY(folder_create(folder->path, err));
    if (folder->held < 0 && take_folder(folder)) share_folder(folder);
    folder->bodies = open_file(folder, BODIES_FILE, O_RDWR | O_APPEND | O_CREAT);
    if (folder->bodies >= 0) return OK;
    return error_set_errno(err, errno, "could not create %s/" BODIES_FILE, folder->path);
}

/* The lock of the file keeps others from appending between its repair and its end. */
static Status write_heads(IndexFolder *folder, Error *err)
{
    struct stat info;
    int fd = open_file(folder, HEADS_FILE, O_RDWR | O_APPEND | O_CREAT);
    if (fd < 0) return error_set_errno(err, errno, "could not create %s/" HEADS_FILE, folder->path);
    const IndexHead *first = &folder->head[folder->num_heads - folder->num_waiting];
    size_t bytes = folder->num_waiting * sizeof *first;
    Status status = OK;
    if (flock(fd, LOCK_EX) != 0 || fstat(fd, &info) != 0 ||
        ftruncate(fd, info.st_size - info.st_size % (off_t)sizeof *first) != 0)
        status = error_set_errno(err, errno, "could not write %s/" HEADS_FILE, folder->path);
    else
        status = file_write_all(fd, first, bytes, "the index", err);
    close(fd);
    return status;
}

static Status flush(IndexFolder *folder, Error *err)
{
    if (folder->num_waiting == 0) return OK;
    Status status = write_heads(folder, err);
    folder->num_waiting = 0; /* what cannot be written now is made again by the next start */
    return status;
}

Status index_folder_make(IndexFolder *folder, Error *err)
{
    pthread_mutex_lock(&folder->lock);
    Status status = need_bodies(folder, err);
    pthread_mutex_unlock(&folder->lock);
    return status;
}

Status index_folder_append(IndexFolder *folder, const void *bytes, size_t length,
                           uint64_t *ret_place, Error *err)
{
    pthread_mutex_lock(&folder->lock);
    Status status = need_bodies(folder, err);
    if (status == OK) status = file_write_all(folder->bodies, bytes, length, "the index", err);
    /* The end behind what was appended, whoever else appends: the descriptor is this process's. */
    off_t end = status == OK ? lseek(folder->bodies, 0, SEEK_CUR) : 0;
    pthread_mutex_unlock(&folder->lock);
    if (status == OK) *ret_place = (uint64_t)end - length;
    return status;
}

Status index_folder_keep(IndexFolder *folder, const IndexHead *head, Error *err)
{
    IndexHead kept = *head;
    kept.head_hash = head_hash(&kept);
    pthread_mutex_lock(&folder->lock);
    Status status = need_bodies(folder, err);
    if (status == OK) {
        add_head(folder, &kept);
        folder->num_waiting++;
        if (folder->num_waiting == WAITING_MAX || kept.own != 0) status = flush(folder, err);
    }
    pthread_mutex_unlock(&folder->lock);
    return status;
}

void index_folder_rest(IndexFolder *folder)
{
    pthread_mutex_lock(&folder->lock);
    if (folder->num_waiting == 0) forget_heads(folder);
    pthread_mutex_unlock(&folder->lock);
}

Status index_folder_flush(IndexFolder *folder, Error *err)
{
    pthread_mutex_lock(&folder->lock);
    Status status = flush(folder, err);
    pthread_mutex_unlock(&folder->lock);
    return status;
}

/* ---- what a run uses ---- */

void index_folder_use(IndexFolder *folder, uint64_t key)
{
    pthread_mutex_lock(&folder->lock);
    if (folder->num_used == folder->used_capacity) {
        folder->used_capacity = 2 * folder->used_capacity + 16;
        folder->used = mem_realloc(folder->used, folder->used_capacity, sizeof *folder->used);
    }
    if (!folder->settled) folder->used[folder->num_used++] = key;
    pthread_mutex_unlock(&folder->lock);
}

/* What is not whole is being made. */
static int remove_unused(IndexFolder *folder)
{
    DIR *entries = opendir(folder->path);
    int count = 0;
    if (folder->num_used > 0)
        qsort(folder->used, folder->num_used, sizeof *folder->used, compare_keys);
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        uint64_t key;
        const char *name = entry->d_name, *suffix = find_suffix(name);
        if (suffix == NULL || !key_of(name, suffix, &key)) continue;
        if (!has_key(folder->used, folder->num_used, key))
            count += unlinkat(dirfd(entries), name, 0) == 0;
    }
    if (entries != NULL) closedir(entries);
    return count;
}

/* The lock is taken from the others at once or not at all; where it is not it has to be shared
 * anew. Whoever opens the folder just then may have it to himself: he leaves what heads name, and
 * what he begins anew costs a pass over the data file. */
int index_folder_remove_unused(IndexFolder *folder)
{
    int count = 0;
    pthread_mutex_lock(&folder->lock);
    if (folder->held >= 0 && !folder->read_only && folder->warning == NULL) {
        if (lock_folder(folder, LOCK_EX)) count = remove_unused(folder);
        share_folder(folder);
    }
    folder->settled = true;
    folder->num_used = 0;
    pthread_mutex_unlock(&folder->lock);
    return count;
}
