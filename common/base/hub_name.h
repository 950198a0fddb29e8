/* HubName: how a data set or a model of the Hugging Face Hub is written in the place of a path:
 *
 *   OWNER/NAME                          as `datasets` names it; behind it perhaps #REVISION
 *   hf://datasets/OWNER/NAME            the same for certain, as huggingface_hub writes it; behind
 * it perhaps @REVISION, and /PATH: a file, a glob or a folder of it
 *   hf://OWNER/NAME                     of a model; behind it perhaps @REVISION
 *
 * A revision is a branch, a tag or a commit; in the second spelling a slash in it is written %2F
 * (any byte may be written so), but for refs/convert/X and refs/pr/N, where it need not be. What is
 * there under such a name on this machine is meant literally, and so is what hardly is a name of
 * the Hub (hub_name_length). Any thread. */
#ifndef TROUPE_BASE_HUB_NAME_H
#define TROUPE_BASE_HUB_NAME_H

#include <stdbool.h>
#include <stddef.h>

#define HUB_SCHEME        "hf://"
#define HUB_MAIN_REVISION "main"

typedef struct HubName {
    char *repo;     /* "OWNER/NAME" */
    char *revision; /* HUB_MAIN_REVISION where none is said */
    char *path;     /* in the repository; "" for all of it */
    bool model;     /* it is none of a data set */
} HubName;

/* Reads the second spelling, nothing behind it. False: it is none of a data set. */
bool hub_name_parse(const char *text, HubName *ret);
bool hub_model_name_parse(const char *text, HubName *ret); /* the same of a model */
void hub_name_free(HubName *name);                         /* leaves an empty one */
char *hub_name_write(const HubName *name); /* in the second spelling, without its path; owned */

/* The length of the OWNER/NAME that a text begins with; 0 where it begins in another way, or OWNER
 * is what folders of data and models are called. */
size_t hub_name_length(const char *text);

/* Brings an entry of a list of data (base/data_path.h) that begins with the first spelling into the
 * second, owned; NULL where it is a path: it begins in another way, names a data file by its
 * ending, or OWNER is there below `folder`. */
char *hub_name_expand(const char *text, const char *folder);
/* The same of what stands in the place of a model's folder. */
char *hub_model_name_expand(const char *text, const char *folder);

#endif
