/* HubRepo: a data set, or a model, of the Hub at one commit. A revision is looked up once: the
 * commit that it is then is written into a file of the run (`commits`), which decides from there
 * on, and into the cache. What is known of a commit (its files) never changes, so it is asked for
 * once and kept.
 *
 * Const once opened; any thread. */
#ifndef TROUPE_HUB_REPO_H
#define TROUPE_HUB_REPO_H

#include "base/error.h"
#include "base/hub_name.h"
#include "base/str.h"
#include "hub/answer.h"
#include "hub/client.h"
#include "hub/fetch.h"

typedef struct HubRepo HubRepo;

typedef struct HubRepoOptions {
    const HubAccess *access; /* borrowed */
    const char *commits;     /* the file of the run; NULL: none */
    bool read_only;          /* what stands there is taken, nothing is written there */
    HubWatch watch;
} HubRepoOptions;

/* ERR_NOT_FOUND: no such repository or revision, with the nearest names; ERR_INVALID: it is not for
 * us; ERR_UNAVAILABLE: the Hub cannot be reached, or HF_HUB_OFFLINE and nothing is kept. */
Status hub_repo_open(const HubName *name, const HubRepoOptions *options, HubRepo **ret, Error *err);
void hub_repo_close(HubRepo *repo); /* accepts NULL */

/* Writes what `commits` did not have, of a repository that was opened with read_only. */
Status hub_repo_keep_commit(const HubRepo *repo, const char *commits, Error *err);

const char *hub_repo_label(const HubRepo *repo); /* "OWNER/NAME", "OWNER/NAME#REVISION" */
HubPlace hub_repo_place(const HubRepo *repo);

/* In byte order of their paths. Without a list (offline, and nobody has kept one) those that the
 * cache has. */
const HubFiles *hub_repo_files(const HubRepo *repo);

/* Fetches one file and gives its path on this machine, owned. ERR_NOT_FOUND: there is none. */
Status hub_repo_fetch(HubRepo *repo, const char *path, char **ret_path, Error *err);

/* Ends what is being asked and fetched, with ERR_CANCELLED; nothing can be asked any more. */
void hub_repo_cancel(HubRepo *repo);

#endif
