#include "dataset/read_ahead.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "base/memory.h"

#define PIECES         3 /* one with the caller, one that waits, one that is being read */
#define FILE_BYTES_MIN (32u << 20)

typedef struct Piece {
    char *bytes;
    size_t length;
} Piece;

struct ReadAhead {
    DataFile *file;
    uint64_t file_bytes;
    size_t piece_bytes;
    Piece piece[PIECES];
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    uint64_t read, taken; /* pieces so far; those before `taken` are free again but for the last */
    bool holding;         /* the caller has the last that it took */
    bool closing;
    Status status;
    Error err;
};

bool read_ahead_pays(uint64_t file_bytes)
{
    cpu_set_t cores;
    if (file_bytes < FILE_BYTES_MIN) return false;
    return sched_getaffinity(0, sizeof cores, &cores) == 0 && CPU_COUNT(&cores) > 1;
}

/* Waits for a place; false when the caller closes. */
static bool wait_for_place(ReadAhead *ahead)
{
    pthread_mutex_lock(&ahead->lock);
    while (ahead->read - ahead->taken + ahead->holding == PIECES && !ahead->closing)
        pthread_cond_wait(&ahead->changed, &ahead->lock);
    bool closing = ahead->closing;
    pthread_mutex_unlock(&ahead->lock);
    return !closing;
}

static void tell(ReadAhead *ahead, Status status, const Error *err)
{
    pthread_mutex_lock(&ahead->lock);
    ahead->status = status;
    if (status != OK)
        ahead->err = *err;
    else
        ahead->read++;
    pthread_cond_signal(&ahead->changed);
    pthread_mutex_unlock(&ahead->lock);
}

static void *read_main(void *argument)
{
    ReadAhead *ahead = argument;
    Status status = OK;
    bool end = false;
    for (uint64_t at = 0, piece = 0; status == OK && !end && wait_for_place(ahead); piece++) {
        Error err = {0};
        Piece *place = &ahead->piece[piece % PIECES];
        uint64_t left = ahead->file_bytes - at;
        place->length = left < ahead->piece_bytes ? (size_t)left : ahead->piece_bytes;
        end = place->length == 0;
        if (!end) status = data_file_read(ahead->file, place->bytes, place->length, at, &err);
        at += place->length;
        tell(ahead, status, &err);
    }
    return NULL;
}

ReadAhead *read_ahead_open(DataFile *file, uint64_t file_bytes, size_t piece_bytes)
{
    ReadAhead *ahead = mem_calloc(1, sizeof *ahead);
    ahead->file = file;
    ahead->file_bytes = file_bytes;
    ahead->piece_bytes = piece_bytes;
    for (int i = 0; i < PIECES; i++)
        ahead->piece[i].bytes = mem_alloc(piece_bytes);
    pthread_mutex_init(&ahead->lock, NULL);
    pthread_cond_init(&ahead->changed, NULL);
    CHECK(pthread_create(&ahead->thread, NULL, read_main, ahead) == 0);
    return ahead;
}

Status read_ahead_next(ReadAhead *ahead, const char **ret_bytes, size_t *ret_length, Error *err)
{
    pthread_mutex_lock(&ahead->lock);
    ahead->holding = false; /* what was given before may be written over */
    pthread_cond_signal(&ahead->changed);
    while (ahead->read == ahead->taken && ahead->status == OK)
        pthread_cond_wait(&ahead->changed, &ahead->lock);
    Status status = OK;
    if (ahead->read > ahead->taken) {
        const Piece *piece = &ahead->piece[ahead->taken++ % PIECES];
        ahead->holding = true;
        *ret_bytes = piece->bytes;
        *ret_length = piece->length;
    } else {
        status = ahead->status;
        *err = ahead->err;
    }
    pthread_mutex_unlock(&ahead->lock);
    return status;
}

void read_ahead_close(ReadAhead *ahead)
{
    if (ahead == NULL) return;
    pthread_mutex_lock(&ahead->lock);
    ahead->closing = true;
    pthread_cond_signal(&ahead->changed);
    pthread_mutex_unlock(&ahead->lock);
    pthread_join(ahead->thread, NULL);
    for (int i = 0; i < PIECES; i++)
        free(ahead->piece[i].bytes);
    pthread_cond_destroy(&ahead->changed);
    pthread_mutex_destroy(&ahead->lock);
    free(ahead);
}
