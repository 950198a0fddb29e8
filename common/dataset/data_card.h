/* Data card: the part of a data set's README.md that says which files belong to which
 * configuration and split (Hugging Face's `configs`). Any thread. */
#ifndef TROUPE_DATASET_DATA_CARD_H
#define TROUPE_DATASET_DATA_CARD_H

#include <stdbool.h>

#include "base/error.h"
#include "base/str.h"

/* The files of one split, as patterns relative to the folder. */
typedef struct CardSplit {
    char *name;
    StringList pattern;
} CardSplit;

typedef struct CardConfig {
    char *name;
    char *data_dir; /* NULL: the folder itself */
    bool is_default;
    CardSplit *split; /* [num_splits]; none: as if there were no card */
    int num_splits;
} CardConfig;

typedef struct DataCard {
    CardConfig *config; /* [num_configs] */
    int num_configs;
} DataCard;

/* Reads a README.md; one that names no configurations, or is not there, has none of them. */
Status data_card_read(const char *path, DataCard *ret, Error *err);
void data_card_free(DataCard *card);

/* The split of that name, which is added when there is none. */
CardSplit *card_split(CardConfig *config, const char *name);
void card_config_clear(CardConfig *config);

#endif
