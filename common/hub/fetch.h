/* One file of a repository, into the cache: by one process at a time (the others wait for it), from
 * where an earlier try ended, checked against the checksum in its name (SHA-256 of large files,
 * git's SHA-1 of small ones) before it counts. A kill leaves ETAG.incomplete, from which the next
 * try goes on. */
#ifndef TROUPE_HUB_FETCH_H
#define TROUPE_HUB_FETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "hub/cache.h"
#include "hub/client.h"

/* A repository at a commit. */
typedef struct HubPlace {
    HubClient *client;
    const HubCache *cache;
    const char *repo, *commit;
    bool model; /* it is none of a data set */
} HubPlace;

typedef struct HubFetch {
    int64_t modified_ns; /* the time of modification that the file is given; 0: now */
    bool fetched;        /* out: it was not there, and this call fetched it */
} HubFetch;

/* OK: the file is whole in the snapshot. Asks nobody where it is there. ERR_DATA: what came is not
 * what the Hub's list says, twice; ERR_RESOURCE: the disk is full; what else hub_client_get says.
 */
Status hub_fetch(const HubPlace *place, const HubFile *file, HubFetch *fetch, Error *err);

/* Bytes of a file that are not in the cache yet. */
int64_t hub_fetch_bytes_left(const HubCache *cache, const char *commit, const HubFile *file);

/* Bytes that an earlier try has left of a file; they may be all of it. */
int64_t hub_fetch_bytes_begun(const HubCache *cache, const HubFile *file);

/* Removes them, but where somebody fetches the file now. */
void hub_fetch_forget(const HubCache *cache, const HubFile *file);

/* Whether it is the token that the Hub refuses: without one, or with one of somebody who may not,
 * it says that there is nothing of that name. */
bool hub_refuses_token(const HubPlace *place, const HubHeader *header);

/* What to do about a refusal of the Hub, and its reason. Returns err->status. */
Status hub_explain_refusal(const HubPlace *place, const HubHeader *header, Error *err);

/* A text as a part of a path in a URL; '/' stays where `whole` is false. Appends to *out. */
void hub_put_escaped(Str *out, const char *text, bool whole);

#endif
