/* File list: which files a stream was made of, and of a mixture which sources with which shares,
 * kept in the index folder under the stream's fingerprint. A fingerprint alone says only that a
 * data set has changed; with the list of the one before at hand what changed has a name. A
 * convenience: where the list is lost, nothing but the name is. Any thread. */
#ifndef TROUPE_DATA_SOURCE_FILE_LIST_H
#define TROUPE_DATA_SOURCE_FILE_LIST_H

#include "dataset/mixture.h"

/* Writes the list of `mixture`, whose stream has this fingerprint, unless it is there. What keeps
 * it from being written is of no consequence. */
void file_list_keep(const char *folder, const char *fingerprint, const Mixture *mixture);

/* What is other in `mixture` than in the list kept under `known`, in at most four lines of text
 * ("a.jsonl: 12 records in 3400 bytes, were 12 in 3398"). "" when there is no such list or no
 * difference. Owned by the caller. */
char *file_list_changes(const char *folder, const char *known, const Mixture *mixture);

/* Whether a position stands for the same line of the same file in both streams, by their
 * fingerprints, whatever the line says. False where a list is lost. */
bool file_list_same_order(const char *folder, const char *fingerprint, const char *other);

#endif
