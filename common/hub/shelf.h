/* HubShelf: the files of a data set that a run reads, fetched from the Hub in the background,
 * several at once: all of them where there is room, else those that are about to be read, in place
 * of those that were read longest ago.
 *
 * A shelf has threads of its own, and shares its room with others; take and give may be called by
 * any number of threads. */
#ifndef TROUPE_HUB_SHELF_H
#define TROUPE_HUB_SHELF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "hub/repo.h"
#include "hub/room.h"

typedef struct ShelfFile {
    const char *path;    /* in the repository; borrowed */
    int64_t modified_ns; /* its time of modification when it was fetched before; 0: not known */
    bool ours;           /* an earlier session of this run has fetched it */
} ShelfFile;

typedef struct HubShelfOptions {
    HubRepo *repo;
    const ShelfFile *file; /* [count], in the order in which they are read; borrowed */
    int count;
    HubRoom *room; /* held while the shelf is open; NULL: one of its own, what the disk has */
    ShelfReading reading;
    /* Called by threads of this shelf and of others: before a file is fetched; before one is
     * dropped, which nobody has taken, and which may not be open afterwards. May be NULL. */
    void (*fetching)(void *context, int file);
    void (*dropping)(void *context, int file);
    void *context;
} HubShelfOptions;

typedef struct HubShelf HubShelf;

/* ERR_RESOURCE: there is no room, with the figures and what to do. */
Status hub_shelf_open(const HubShelfOptions *options, HubShelf **ret, Error *err);
/* Begins to fetch: the functions of the options are called from here on. */
void hub_shelf_start(HubShelf *shelf);
/* Cancels the repository, which has to be closed after it. Accepts NULL. */
void hub_shelf_close(HubShelf *shelf);

/* Waits until the file is there; it stays until it is given back. */
Status hub_shelf_take(HubShelf *shelf, int file, Error *err);
void hub_shelf_give(HubShelf *shelf, int file);

/* Whether files are dropped: there is no room for all of them, or others may want it. */
bool hub_shelf_is_small(const HubShelf *shelf);
/* Whether what this run has fetched has to be known to the next start: it takes room there, too. */
bool hub_shelf_is_bounded(const HubShelf *shelf);
bool hub_shelf_is_ours(HubShelf *shelf, int file); /* fetched by this run */
/* The time of modification that the file gets when it is fetched again. */
void hub_shelf_keep_time(HubShelf *shelf, int file, int64_t modified_ns);
char *hub_shelf_path(const HubShelf *shelf, int file); /* on this machine; owned */
int64_t hub_shelf_bytes_left(const HubShelf *shelf); /* that had to be fetched when it was opened */

#endif
