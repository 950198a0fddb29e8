#include "dataset/format.h"

static const DatasetFormat *const formats[] = {&dataset_table, &dataset_jsonl};
#define NUM_FORMATS (sizeof formats / sizeof *formats)

/* A file that the index folder knows costs no more than its opening; the head of others is read. */
static Status find_format(FileOpening *opening, const DatasetFormat **ret, Error *err)
{
    for (size_t i = 0; i < NUM_FORMATS; i++) {
        opening->known = formats[i]->known(opening);
        *ret = formats[i];
        if (opening->known) return OK;
    }
    uint64_t bytes = data_file_state(opening->file)->bytes;
    size_t length = bytes < sizeof opening->head ? (size_t)bytes : sizeof opening->head, kind = 0;
    TRY(data_file_read(opening->file, opening->head, length, 0, err));
    while (!formats[kind]->begins(opening->head, length))
        kind++;
    *ret = formats[kind];
    return OK;
}

Status dataset_format_open(const FileOpening *opening, const DatasetFormat **ret_format,
                           void **ret_file, Error *err)
{
    FileOpening whole = *opening;
    const DatasetFormat *format = NULL;
    TRY(data_file_open(opening->pool, opening->path, &whole.file, err));
    Status status = find_format(&whole, &format, err);
    if (status != OK) {
        data_file_close(whole.file);
        return status;
    }
    TRY(format->open(&whole, ret_file, err));
    index_folder_use(opening->folder, index_folder_key(opening->folder, opening->path));
    *ret_format = format;
    return OK;
}
