/* HubCache: the folder of a data set (or of a model: models--OWNER--NAME) in the cache of
 * huggingface_hub, in its layout, so that what either of the two has fetched serves the other:
 *
 *   CACHE/datasets--OWNER--NAME/refs/REVISION            the commit that it was
 *                              /trees/COMMIT.json         the files of that commit
 *                              /blobs/ETAG                contents, by checksum
 *                              /blobs/ETAG.incomplete     one on its way
 *                              /snapshots/COMMIT/PATH     a link to its blob
 *   CACHE/.locks/datasets--OWNER--NAME/ETAG.lock          held by who fetches it (flock)
 *
 * Const; any thread, any number of processes. */
#ifndef TROUPE_HUB_CACHE_H
#define TROUPE_HUB_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/hub_name.h"
#include "hub/answer.h"
#include "hub/client.h"

typedef struct HubCache {
    char *root;   /* CACHE */
    char *name;   /* "datasets--OWNER--NAME" */
    char *folder; /* of it */
} HubCache;

HubCache hub_cache_of(const char *root, const HubName *name);
void hub_cache_free(HubCache *cache);

/* The commit that a revision was when it was last looked up; false: nobody did. */
bool hub_cache_find_ref(const HubCache *cache, const char *revision, char ret[HUB_COMMIT_BYTES]);
/* A cache that cannot be written is no fault where nothing has to be fetched. */
Status hub_cache_keep_ref(const HubCache *cache, const char *revision, const char *commit,
                          Error *err);

char *hub_cache_tree(const HubCache *cache, const char *commit); /* its path; owned */
Status hub_cache_keep_tree(const HubCache *cache, const char *commit, const HubFiles *files,
                           Error *err);

/* Of those that are there, the name that is nearest to a name that is not, and may have been meant;
 * "OWNER/NAME", owned, or NULL. */
char *hub_cache_nearest(const HubCache *cache);

/* Owned paths of a file of a commit, of its blob. */
char *hub_cache_snapshot(const HubCache *cache, const char *commit, const char *path);
char *hub_cache_blob(const HubCache *cache, const char *etag);

/* Whether all of a file's bytes are there, as a blob and (linked) in the snapshot. */
bool hub_cache_has_blob(const HubCache *cache, const HubFile *file);
bool hub_cache_has(const HubCache *cache, const char *commit, const HubFile *file);

/* Links a blob into a snapshot; one that is there is replaced where it leads elsewhere. */
Status hub_cache_link(const HubCache *cache, const char *commit, const HubFile *file, Error *err);

/* Waits for the lock of a blob, as long as somebody wants it; after some seconds the watch is told
 * which lock that is, and which process holds it. A disk without locks is used without. *ret_fd:
 * closing it gives it back. */
Status hub_cache_lock(const HubCache *cache, const HubFile *file, const HubWatch *watch,
                      int *ret_fd, Error *err);

#endif
