/* A checkpoint is whole or absent. It is a folder <run>/checkpoints/step_<8 digits>, a Hugging
 * Face model folder with optimizer state and manifest.json beside, and it is committed in this
 * order: a fresh folder with a random attempt id; every file written, flushed and digested by
 * its writer; manifest.json (all names, sizes, SHA-256 digests, positions and layout) written,
 * flushed and renamed; the folder flushed; the folder renamed to its final name; its parent
 * flushed. The `latest` file is a hint only: loading lists the folders and takes the newest
 * whose manifest and digests hold, saying loudly which it passed over and why. */
#ifndef TROUPE_CHECKPOINT_MANIFEST_H
#define TROUPE_CHECKPOINT_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "checkpoint/ledger.h"

#define MANIFEST_NAME "manifest.json"

typedef struct ManifestFile {
    char *name; /* inside the folder */
    int64_t bytes;
    char sha256[65];
} ManifestFile;

/* A figure under a name: what the run counted beside. */
typedef struct ManifestCount {
    char *name; /* owned */
    int64_t value;
} ManifestCount;

/* One of the best evaluations so far. */
typedef struct ManifestBest {
    int64_t step; /* whose checkpoint is kept for it */
    double value;
} ManifestBest;

typedef struct Manifest {
    int format;   /* 1 */
    int64_t step; /* optimizer steps taken */
    uint32_t generation;
    int64_t next_position; /* of the training stream: everything before it is consumed */
    int64_t consumed_samples, rejected_samples, trained_tokens;
    int64_t bad_records; /* distinct records of the training set that were no conversation */
    int64_t records;     /* of one epoch of the training set; 0: not known */
    char *data_fingerprint;
    char *config_sha256;    /* of the effective configuration */
    char *ledger_head;      /* hash chain over all consumed positions */
    LedgerMark ledger_mark; /* where that stands; bytes 0: not told */
    int tp_size, dp_size;
    ManifestFile *file;
    int num_files;
    ManifestCount *count;
    int num_counts;
    char *best_metric;  /* by which evaluations are compared, or NULL */
    ManifestBest *best; /* the best first; the first is what `best` beside the folders names */
    int num_best;
} Manifest;

Manifest *manifest_create(void); /* all empty, format 1; strings are owned by it (mem_strdup) */
void manifest_destroy(Manifest *manifest); /* accepts NULL */
void manifest_add_file(Manifest *manifest, const char *name, int64_t bytes, const char *sha256);

void manifest_add_count(Manifest *manifest, const char *name, int64_t value); /* at least 0 */
int64_t manifest_count(const Manifest *manifest, const char *name); /* 0 when there is none */

void manifest_add_best(Manifest *manifest, int64_t step, double value); /* finite */

/* The text of manifest.json: JSON whose last member is the SHA-256 of all bytes before it, so
 * that damage to the manifest itself shows. ERR_INVALID: a file name that is not plain or occurs
 * twice, or a malformed digest. Owned. */
Status manifest_text(const Manifest *manifest, char **ret_text, size_t *ret_length, Error *err);
/* Parses and checks it; `where` names it in messages. ERR_DATA: damaged; ERR_UNSUPPORTED: a
 * later format. */
Status manifest_parse(const char *text, size_t length, const char *where, Manifest **ret,
                      Error *err);

/* Makes <root>/step_<step>.<attempt>.partial and returns its path (owned). */
Status checkpoint_begin(const char *root, int64_t step, char **ret_folder, Error *err);
/* Writes a small file (config.json, tokenizer.json ...) into the folder, flushed, and adds it to
 * the manifest. */
Status checkpoint_add_bytes(const char *folder, const char *name, const void *bytes, size_t length,
                            Manifest *manifest, Error *err);
/* As checkpoint_add_bytes, from a regular file of any size. */
Status checkpoint_add_copy(const char *folder, const char *name, const char *source_path,
                           Manifest *manifest, Error *err);
/* Manifest last, flush, rename to the final name, flush the parent, update `latest`. *ret_path
 * is owned. The folder must hold exactly the manifest's files. A folder of the same step that is
 * already there (a damaged one that was passed over, or a step done again) is replaced in one
 * step. On failure the attempt is removed and older checkpoints are untouched; after OK the
 * checkpoint survives a power cut. */
Status checkpoint_commit(const char *root, const char *folder, const Manifest *manifest,
                         char **ret_path, Error *err);
/* Removes an attempt that will not be committed. */
void checkpoint_abandon(const char *folder);

/* Loads a manifest and checks names, sizes and (when `digests`) every digest, several files at a
 * time. ERR_DATA names the
 * damaged file. */
Status checkpoint_verify(const char *path, bool digests, Manifest **ret, Error *err);

/* Who wants to know what a search does; either function may be NULL. */
typedef struct CheckpointWatch {
    void *context;
    /* A damaged one that is passed over. */
    void (*skipped)(void *context, const char *path, const Error *why);
    /* Digesting a large one takes long: called every interval_ms meanwhile. */
    void (*checking)(void *context, const char *path, int64_t bytes_done, int64_t bytes);
    int64_t interval_ms;
} CheckpointWatch;

/* The newest checkpoint under root that verifies; *ret_path is NULL when there is none at all.
 * Each damaged one it passes over is reported to `watch` (may be NULL). If there are some and all
 * are damaged, that is ERR_DATA: a run must not silently begin anew. One that cannot be judged (a
 * later format, a failed read) is not passed over: that is its error. */
Status checkpoint_find_latest(const char *root, char **ret_path, Manifest **ret,
                              const CheckpointWatch *watch, Error *err);

/* The paths of all that have a checkpoint's name, whole or damaged, the newest first; appended to
 * *ret. None when there is no such folder. */
Status checkpoint_list(const char *root, StringList *ret, Error *err);

/* Which checkpoints stay. */
typedef struct CheckpointKeep {
    int last;            /* the newest ones; 0: all */
    const char *path;    /* this one too, or NULL */
    const int64_t *step; /* [num_steps]: those of these steps too, besides the newest */
    int num_steps;
} CheckpointKeep;

/* Removes all others and every leftover without a manifest. Damaged ones do not count as kept, and
 * stay while they are newer than what is kept. Not while a save is under way: its folder would be
 * swept. */
Status checkpoint_prune(const char *root, const CheckpointKeep *keep, Error *err);

/* Writes the hint `best`: the name of the first of the manifest's best checkpoints that is there.
 * None: there is no such file. Of no consequence for any run. */
void checkpoint_name_best(const char *root, const Manifest *manifest);

#endif
