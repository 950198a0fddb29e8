/* Reading in turns: a file from its beginning to its end in pieces, by some threads. Each reads a
 * piece while the others read theirs, and when its turn comes goes through it where it lies, in its
 * own core's cache: pieces are taken in the order of the file, one at a time, and none of them
 * moves to another core. A pass over a file in memory is then faster than one core reads it, and on
 * a disk the disk never waits. */
#ifndef TROUPE_DATASET_TURNS_H
#define TROUPE_DATASET_TURNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "dataset/file_pool.h"

/* Takes the next piece, of at least one byte, valid until it returns; any of the threads, one at a
 * time, each seeing what those before have done. Setting *ret_enough ends the reading, as an error
 * does. */
typedef Status (*TakePiece)(void *context, const char *bytes, size_t length, bool *ret_enough,
                            Error *err);

/* Threads that a file of that size is worth, the caller's among them: one of a small file, and
 * where this process has no more cores. */
int turns_threads(uint64_t file_bytes);

/* Gives all pieces of the first `file_bytes` to `take`; returns when no thread is at work any more.
 * The file is borrowed. Status of the first piece that could not be read, or taken. */
Status turns_read(DataFile *file, uint64_t file_bytes, int num_threads, TakePiece take,
                  void *context, Error *err);

#endif
