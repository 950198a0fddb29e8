/* What a Dataset is made of, for dataset.c and dataset_blocks.c. */
#ifndef TROUPE_DATASET_DATASET_INTERNAL_H
#define TROUPE_DATASET_DATASET_INTERNAL_H

#include "dataset/block_cache.h"
#include "dataset/format.h"
#include "dataset/hub_set.h"

typedef struct DatasetFile {
    const DatasetFormat *format;
    void *file;
    char *path;
    uint64_t first; /* index of its first record in the data set */
    uint64_t begin; /* that record in the file: later where a slice leaves some out */
    uint64_t count; /* of its records, that are in the data set */
    uint64_t first_block, num_blocks; /* by blocks */
} DatasetFile;

struct Dataset {
    bool by_blocks;
    DatasetFile *file;
    int num_files, capacity;
    DatasetSummary summary;
    BlockCache *cache;
    TableReaders *readers;
    IndexFolder *folder;
    FilePool *pool;
    bool own_pool, own_folder;
    char *warning;      /* that of the summary */
    StringList entries; /* a line of what each is that is not plain, and file_warnings.h's */
    HubSet **hub;       /* [num_hubs] */
    int num_hubs;
    bool indexed_first; /* by blocks: files of an entry were indexed, as if it were not */
    bool uncounted;     /* of a file the records are not known: it was opened by blocks */
    bool unhashed;      /* of a file only the beginning was read: there is no fingerprint */
};

/* After all files are open: cuts them into blocks. */
void dataset_cut_blocks(Dataset *dataset);
/* dataset_read where no index has the record: counts blocks as far as it takes. */
Status dataset_walk_blocks(const Dataset *dataset, uint64_t index, Str *text,
                           RecordSource *ret_source, Error *err);

#endif
