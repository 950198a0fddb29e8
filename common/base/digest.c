#include "base/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/memory.h"

#define PIECE_BYTES ((size_t)1 << 20)
#define LOOK_MS     100

struct Digest {
    EVP_MD_CTX *context;
};

Digest *digest_create(void)
{
    Digest *digest = mem_calloc(1, sizeof *digest);
    digest->context = EVP_MD_CTX_new();
    CHECK(digest->context != NULL);
    CHECK(EVP_DigestInit_ex(digest->context, EVP_sha256(), NULL) == 1);
    return digest;
}

void digest_destroy(Digest *digest)
{
    if (digest == NULL) return;
    EVP_MD_CTX_free(digest->context);
    free(digest);
}

void digest_update(Digest *digest, const void *bytes, size_t length)
{
    CHECK(EVP_DigestUpdate(digest->context, bytes, length) == 1);
}

void digest_finish(Digest *digest, char ret_hex[DIGEST_HEX_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char raw[DIGEST_BYTES];
    unsigned length = 0;
    CHECK(EVP_DigestFinal_ex(digest->context, raw, &length) == 1 && length == DIGEST_BYTES);
    for (int i = 0; i < DIGEST_BYTES; i++) {
        ret_hex[2 * i] = digits[raw[i] >> 4];
        ret_hex[2 * i + 1] = digits[raw[i] & 15];
    }
    ret_hex[2 * DIGEST_BYTES] = '\0';
}

void digest_bytes(const void *bytes, size_t length, char ret_hex[DIGEST_HEX_BYTES])
{
    Digest *digest = digest_create();
    digest_update(digest, bytes, length);
    digest_finish(digest, ret_hex);
    digest_destroy(digest);
}

/* `done` (may be NULL) counts the bytes as they are read, for another thread. */
static Status digest_counted(const char *path, char ret_hex[DIGEST_HEX_BYTES], int64_t *ret_length,
                             atomic_llong *done, Error *err)
{
    Status status = OK;
    Digest *digest = digest_create();
    char *piece = mem_alloc(PIECE_BYTES);
    int64_t total = 0;
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        status = error_set_errno(err, errno, "could not open %s", path);
        goto done;
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        status = error_set(err, ERR_INVALID, "%s is not a regular file", path);
        goto done;
    }
    for (;;) {
        ssize_t got = read(fd, piece, PIECE_BYTES);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            status = error_set_errno(err, errno, "could not read %s", path);
            goto done;
        }
        if (got == 0) break;
        digest_update(digest, piece, (size_t)got);
        if (done != NULL) atomic_fetch_add(done, got);
        total += got;
    }
    digest_finish(digest, ret_hex);
    if (ret_length != NULL) *ret_length = total;
done:
    if (fd >= 0) close(fd);
    free(piece);
    digest_destroy(digest);
    return status;
}

Status digest_file(const char *path, char ret_hex[DIGEST_HEX_BYTES], int64_t *ret_length,
                   Error *err)
{
    return digest_counted(path, ret_hex, ret_length, NULL, err);
}

/* ---- several files ---- */

typedef struct DigestPool {
    DigestJob *job;
    int count;
    atomic_int next;
    atomic_llong done;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    int running; /* threads; under lock */
} DigestPool;

static void *work_through(void *argument)
{
    DigestPool *pool = argument;
    for (int i; (i = atomic_fetch_add(&pool->next, 1)) < pool->count;) {
        DigestJob *job = &pool->job[i];
        job->error.status = OK;
        digest_counted(job->path, job->hex, NULL, &pool->done, &job->error);
    }
    pthread_mutex_lock(&pool->lock);
    pool->running--;
    pthread_cond_signal(&pool->ended);
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Waits for the threads, telling the watch from time to time how far they are. */
static void await(DigestPool *pool, const DigestWatch *watch)
{
    int64_t next_ms = watch != NULL ? clock_ms() + watch->interval_ms : INT64_MAX;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        if (clock_ms() >= next_ms) {
            next_ms += watch->interval_ms > 0 ? watch->interval_ms : 1;
            pthread_mutex_unlock(&pool->lock);
            watch->progress(watch->context, atomic_load(&pool->done));
            pthread_mutex_lock(&pool->lock);
        }
        if (pool->running <= 0) break;
        condition_wait_for(&pool->ended, &pool->lock, LOOK_MS);
    }
    pthread_mutex_unlock(&pool->lock);
}

void digest_files(DigestJob *job, int count, const DigestWatch *watch)
{
    pthread_t thread[DIGEST_THREADS_MAX];
    DigestPool pool = {.job = job, .count = count};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int wanted = count < DIGEST_THREADS_MAX ? count : DIGEST_THREADS_MAX, started = 0;
    if (cpus > 0 && wanted > cpus) wanted = (int)cpus;
    pthread_mutex_init(&pool.lock, NULL);
    condition_init(&pool.ended);
    pthread_mutex_lock(&pool.lock); /* no thread ends before all are counted */
    while (started < wanted && pthread_create(&thread[started], NULL, work_through, &pool) == 0)
        started++;
    pool.running = started;
    pthread_mutex_unlock(&pool.lock);
    if (started == 0 && wanted > 0) work_through(&pool); /* no threads to be had: by itself */
    await(&pool, watch);
    for (int i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    pthread_cond_destroy(&pool.ended);
    pthread_mutex_destroy(&pool.lock);
}
