/* A data set by blocks: files that are cut by their own format, and files that were indexed, which
 * are cut into equal numbers of records. */
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/str.h"
#include "dataset/block_text.h"
#include "dataset/dataset_internal.h"

#define BLOCK_BYTES TEXT_BLOCK_BYTES /* of a file that is cut anywhere, about */
#define LINES_CACHE (32u << 20)      /* two million lines */

static bool cuts_itself(const DatasetFile *file)
{
    return file->format->num_blocks != NULL && file->format->num_blocks(file->file) > 0;
}

static uint64_t file_bytes(const DatasetFile *file)
{
    return file->format->summary(file->file).bytes;
}

/* What a slice leaves of a file takes as many blocks as the same part of its bytes. */
static uint64_t count_pieces(const DatasetFile *file)
{
    FileSummary summary = file->format->summary(file->file);
    if (summary.records == 0) return 1;
    double share = (double)file->count / (double)summary.records;
    return 1 + (uint64_t)(share * (double)summary.bytes) / BLOCK_BYTES;
}

void dataset_cut_blocks(Dataset *dataset)
{
    uint64_t first = 0;
    /* Of plain text alone the cache holds where lines begin, which is little for a window: the text
     * itself is the system's to keep. */
    if (!dataset_decodes_blocks(dataset)) block_cache_limit(dataset->cache, LINES_CACHE);
    for (int i = 0; i < dataset->num_files; i++) {
        DatasetFile *file = &dataset->file[i];
        file->first_block = first;
        file->num_blocks =
            cuts_itself(file) ? file->format->num_blocks(file->file) : count_pieces(file);
        first += file->num_blocks;
    }
}

uint64_t dataset_num_blocks(const Dataset *dataset)
{
    const DatasetFile *last = &dataset->file[dataset->num_files - 1];
    return last->first_block + last->num_blocks;
}

bool dataset_decodes_blocks(const Dataset *dataset)
{
    for (int i = 0; i < dataset->num_files; i++) {
        FileSummary file = dataset->file[i].format->summary(dataset->file[i].file);
        if (file.compressed || !str_starts_with(file.kind, "jsonl")) return true;
    }
    return false;
}

void dataset_file_blocks(const Dataset *dataset, int file, uint64_t *ret_first, uint64_t *ret_end)
{
    CHECK(dataset->by_blocks && file < dataset->num_files);
    *ret_first = dataset->file[file].first_block;
    *ret_end = *ret_first + dataset->file[file].num_blocks;
}

/* The file of a block, and which one of its blocks that is. */
static const DatasetFile *find_file(const Dataset *dataset, uint64_t block, uint64_t *ret_index)
{
    CHECK(dataset->by_blocks && block < dataset_num_blocks(dataset));
    int low = 0, high = dataset->num_files; /* the last file that begins at or before `block` */
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (dataset->file[middle].first_block <= block)
            low = middle;
        else
            high = middle;
    }
    *ret_index = block - dataset->file[low].first_block;
    return &dataset->file[low];
}

/* What of a file's own block is in the data set, when a slice is taken of the file. */
static FileBlock clip(const DatasetFile *file, FileBlock block)
{
    uint64_t begin = block.first > file->begin ? block.first : file->begin;
    uint64_t end = block.first + block.records, last = file->begin + file->count;
    if (end > last) end = last;
    block.first = begin;
    block.records = end > begin ? end - begin : 0;
    return block;
}

static FileBlock get_block(const DatasetFile *file, uint64_t index)
{
    if (cuts_itself(file)) {
        FileBlock block = file->format->block(file->file, index);
        return file->format->count_block != NULL ? block : clip(file, block);
    }
    uint64_t pieces = file->num_blocks, each = file->count / pieces, longer = file->count % pieces;
    uint64_t first = each * index + (index < longer ? index : longer);
    return (FileBlock){.bytes = file_bytes(file) / pieces,
                       .first = file->begin + first,
                       .records = each + (index < longer),
                       .run = index,
                       .counted = true};
}

uint64_t dataset_block_bytes(const Dataset *dataset, uint64_t block)
{
    uint64_t index;
    const DatasetFile *file = find_file(dataset, block, &index);
    return get_block(file, index).bytes;
}

uint64_t dataset_decoded_bytes(const Dataset *dataset)
{
    uint64_t sum = 0;
    if (dataset->indexed_first) return 0;
    for (uint64_t i = 0; i < dataset_num_blocks(dataset); i++)
        sum += dataset_block_bytes(dataset, i);
    return sum;
}

uint64_t dataset_block_run(const Dataset *dataset, uint64_t block)
{
    uint64_t index;
    const DatasetFile *file = find_file(dataset, block, &index);
    return file->first_block + get_block(file, index).run;
}

bool dataset_block_counted(const Dataset *dataset, uint64_t block, uint64_t *ret_records)
{
    uint64_t index;
    const DatasetFile *file = find_file(dataset, block, &index);
    FileBlock found = get_block(file, index);
    *ret_records = found.records;
    return found.counted;
}

Status dataset_count_block(const Dataset *dataset, uint64_t block, Error *err)
{
    uint64_t index;
    const DatasetFile *file = find_file(dataset, block, &index);
    if (get_block(file, index).counted) return OK;
    return file->format->count_block(file->file, index, err);
}

bool dataset_block_in_sequence(const Dataset *dataset, uint64_t block, int *ret_file)
{
    uint64_t index;
    const DatasetFile *file = find_file(dataset, block, &index);
    *ret_file = (int)(file - dataset->file);
    return cuts_itself(file) && file->format->in_sequence != NULL &&
           file->format->in_sequence(file->file);
}

void dataset_stop_counting(const Dataset *dataset)
{
    for (int i = 0; i < dataset->num_files; i++) {
        const DatasetFile *file = &dataset->file[i];
        if (file->format->stop_counting != NULL) file->format->stop_counting(file->file);
    }
}

void dataset_prefetch_block(const Dataset *dataset, uint64_t block)
{
    uint64_t index;
    const DatasetFile *file = find_file(dataset, block, &index);
    if (cuts_itself(file) && file->format->prefetch_block != NULL)
        file->format->prefetch_block(file->file, index);
}

Status dataset_read_block(const Dataset *dataset, uint64_t block, uint64_t record, Str *text,
                          RecordSource *ret_source, Error *err)
{
    uint64_t index;
    const DatasetFile *file = find_file(dataset, block, &index);
    FileBlock found = get_block(file, index);
    CHECK(found.counted && record < found.records);
    *ret_source = (RecordSource){.path = file->path};
    if (cuts_itself(file) && file->format->read_block != NULL)
        return file->format->read_block(file->file, index, record, text, ret_source, err);
    return file->format->read(file->file, found.first + record, text, ret_source, err);
}

Status dataset_walk_blocks(const Dataset *dataset, uint64_t index, Str *text,
                           RecordSource *ret_source, Error *err)
{
    uint64_t num_blocks = dataset_num_blocks(dataset), records = 0;
    for (uint64_t i = 0; i < num_blocks; i++) {
        TRY(dataset_count_block(dataset, i, err));
        CHECK(dataset_block_counted(dataset, i, &records));
        if (index < records) return dataset_read_block(dataset, i, index, text, ret_source, err);
        index -= records;
    }
    CHECK(false); /* the caller knows how many there are */
    return OK;
}

char *record_source_text(const RecordSource *source)
{
    if (source->line > 0)
        return mem_printf("%s:%llu", source->path, (unsigned long long)source->line);
    return mem_printf("%s at byte %llu", source->path, (unsigned long long)source->offset);
}

void record_source_place(const RecordSource *source, char ret[RECORD_PLACE_BYTES])
{
    unsigned long long offset = source->offset, group = source->group;
    switch (source->unit) {
    case RECORD_AT_BYTE:
        snprintf(ret, RECORD_PLACE_BYTES, "byte %llu", offset);
        break;
    case RECORD_AT_TEXT_BYTE:
        snprintf(ret, RECORD_PLACE_BYTES, "byte %llu" RECORD_OF_TEXT, offset);
        break;
    case RECORD_IN_ROW_GROUP:
        snprintf(ret, RECORD_PLACE_BYTES, "row %llu of row group %llu", offset + 1, group);
        break;
    case RECORD_IN_BATCH:
        snprintf(ret, RECORD_PLACE_BYTES, "row %llu of record batch %llu", offset + 1, group);
        break;
    }
}
