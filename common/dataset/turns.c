#include "dataset/turns.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "base/memory.h"

#define THREADS_MAX    4 /* reading a piece takes three or four times as long as going through it */
#define FILE_BYTES_MIN (32u << 20)
#define PIECE_BYTES                                                                                \
    (1u << 20) /* smaller ones cost the kernel more, larger ones leave the cache                   \
                */

typedef struct Turns {
    DataFile *file;
    uint64_t file_bytes;
    TakePiece take;
    void *context;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    uint64_t to_read, to_take; /* pieces */
    bool ended;                /* nothing more is taken */
    Status status;
    Error *err;
} Turns;

int turns_threads(uint64_t file_bytes)
{
    cpu_set_t cores;
    if (file_bytes < FILE_BYTES_MIN) return 1;
    if (sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
    int count = CPU_COUNT(&cores);
    return count < THREADS_MAX ? count : THREADS_MAX;
}

/* The number of a piece that nobody reads yet; false: there is none, or no more is wanted. */
static bool next_piece(Turns *turns, uint64_t *ret)
{
    pthread_mutex_lock(&turns->lock);
    *ret = turns->to_read;
    bool there = !turns->ended && *ret * PIECE_BYTES < turns->file_bytes;
    if (there) turns->to_read++;
    pthread_mutex_unlock(&turns->lock);
    return there;
}

/* False: the reading ended before this piece. */
static bool wait_for_turn(Turns *turns, uint64_t piece)
{
    pthread_mutex_lock(&turns->lock);
    while (turns->to_take != piece && !turns->ended)
        pthread_cond_wait(&turns->changed, &turns->lock);
    bool wanted = !turns->ended;
    pthread_mutex_unlock(&turns->lock);
    return wanted;
}

static void end_turn(Turns *turns, Status status, bool enough, const Error *err)
{
    pthread_mutex_lock(&turns->lock);
    turns->to_take++;
    turns->ended = enough || status != OK;
    turns->status = status;
    if (status != OK) *turns->err = *err;
    pthread_cond_broadcast(&turns->changed);
    pthread_mutex_unlock(&turns->lock);
}

static void *work(void *argument)
{
    Turns *turns = argument;
    char *bytes = mem_alloc(PIECE_BYTES);
    for (uint64_t piece; next_piece(turns, &piece);) {
        Error err = {0};
        bool enough = false;
        uint64_t at = piece * PIECE_BYTES, left = turns->file_bytes - at;
        size_t length = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        Status status = data_file_read(turns->file, bytes, length, at, &err);
        if (!wait_for_turn(turns, piece)) break;
        if (status == OK) status = turns->take(turns->context, bytes, length, &enough, &err);
        end_turn(turns, status, enough, &err);
    }
    free(bytes);
    return NULL;
}

Status turns_read(DataFile *file, uint64_t file_bytes, int num_threads, TakePiece take,
                  void *context, Error *err)
{
    CHECK(num_threads >= 1);
    Turns turns = {
        .file = file, .file_bytes = file_bytes, .take = take, .context = context, .err = err};
    pthread_t thread[THREADS_MAX];
    int started = 0;
    pthread_mutex_init(&turns.lock, NULL);
    pthread_cond_init(&turns.changed, NULL);
    while (started < num_threads - 1 && started < THREADS_MAX &&
           pthread_create(&thread[started], NULL, work, &turns) == 0)
        started++; /* with fewer it takes longer */
    work(&turns);
    for (int i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    pthread_cond_destroy(&turns.changed);
    pthread_mutex_destroy(&turns.lock);
    return turns.status;
}
