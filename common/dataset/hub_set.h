/* HubSet: an entry of a data set that names one of the Hugging Face Hub: which of its files are
 * meant, found as in a folder (data_folder.h), and these files as ones of a data set, which are
 * fetched before they are opened and, where there is not room for all of them, closed, dropped and
 * fetched again. What an opening of a file has found is kept beside the indexes then (a note), so
 * that the next start need not fetch it to know how many records it has.
 *
 * Made by one thread; files are opened and read by any number of them. */
#ifndef TROUPE_DATASET_HUB_SET_H
#define TROUPE_DATASET_HUB_SET_H

#include "base/data_path.h"
#include "base/error.h"
#include "dataset/format.h"
#include "hub/room.h"

typedef struct HubSet HubSet;

/* Looks the revision up and lists the files; fetches what it takes to know them, and starts to
 * fetch the files, but where `few`: then only those that are opened. */
Status hub_set_open(const DataPath *path, const DatasetOptions *options, bool few, HubSet **ret,
                    Error *err);
void hub_set_close(HubSet *set); /* accepts NULL; its files are closed */

/* Adds to a room what earlier sessions of a run have fetched, as the notes in its folder of indexes
 * say. */
void hub_set_add_leftovers(HubRoom *room, const char *index_folder);

int hub_set_count(const HubSet *set);
const char *hub_set_split(const HubSet *set);  /* as data_folder_find says it, or NULL; borrowed */
char *const *hub_set_paths(const HubSet *set); /* on this machine, of files that may not be there */

/* The file in *ret_file is one of `hub_file_format`. */
Status hub_set_open_file(HubSet *set, int index, const FileOpening *opening, void **ret_file,
                         Error *err);
extern const DatasetFormat hub_file_format; /* without `known`, `begins` and `open` */

#endif
