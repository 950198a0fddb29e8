#include "dataset/block_text.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "dataset/content_hash.h"

#define TABLE_MAGIC  UINT64_C(0x326b6c6265707254) /* "Trpeblk2" on a little-endian machine */
#define SMALL_BLOCKS 4                            /* of a file whose table has no file of its own */
#define AHEAD_BYTES  (64u << 10)

/* Part of the table's name: what was counted otherwise has another. */
typedef struct TableHeader {
    uint64_t magic, probe, file_bytes, block_bytes;
} TableHeader;

/* What is known of a block. Written by whoever has counted it, two of whom write the same; `check`
 * comes last and says that it is there and whole. */
typedef struct BlockEntry {
    uint64_t hash; /* XXH3 of the block's bytes */
    uint32_t records, lines;
    uint64_t check;
} BlockEntry;

struct BlockText {
    TextInput input;
    BlockCache *cache;
    IndexFolder *folder;
    uint64_t probe, num_blocks;
    BlockEntry *entry; /* [num_blocks]; the checks are atomic */
    char *table_path;  /* of the table that has a file of its own, and may be written; or NULL */
    bool small;        /* it has none, but is kept when it is whole */
    _Atomic uint64_t num_counted;
    bool reused;
    _Atomic(char *) warning; /* or NULL */
    pthread_mutex_t lock;    /* of writing entries, and of the sums of lines */
    uint64_t *lines_before;  /* [num_blocks + 1], as far as ... */
    _Atomic uint64_t summed; /* ... the blocks from the first on are counted without a gap */
};

/* ---- the table ---- */

static uint64_t entry_check(const BlockEntry *entry, uint64_t block)
{
    struct {
        uint64_t hash, counts, block;
    } known = {entry->hash, (uint64_t)entry->lines << 32 | entry->records, block};
    return XXH3_64bits(&known, sizeof known) | 1; /* an empty place of the table has 0 */
}

static bool load_entry(const BlockText *text, uint64_t block, BlockEntry *ret)
{
    const BlockEntry *entry = &text->entry[block];
    ret->check = __atomic_load_n(&entry->check, __ATOMIC_ACQUIRE);
    if (ret->check == 0) return false;
    ret->hash = __atomic_load_n(&entry->hash, __ATOMIC_RELAXED);
    ret->records = __atomic_load_n(&entry->records, __ATOMIC_RELAXED);
    ret->lines = __atomic_load_n(&entry->lines, __ATOMIC_RELAXED);
    return ret->check == entry_check(ret, block);
}

static TableHeader header_of(const BlockText *text)
{
    return (TableHeader){TABLE_MAGIC, text->probe, text->input.file_bytes, TEXT_BLOCK_BYTES};
}

static off_t entry_place(uint64_t block)
{
    return (off_t)(sizeof(TableHeader) + block * sizeof(BlockEntry));
}

static bool is_table(const BlockText *text, int fd)
{
    TableHeader header, expected = header_of(text);
    return file_read_at(fd, &header, sizeof header, 0, "", NULL) == OK &&
           memcmp(&header, &expected, sizeof header) == 0;
}

/* As far as it is there. */
static void load_table(BlockText *text, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    size_t bytes = (size_t)text->num_blocks * sizeof *text->entry;
    text->reused = is_table(text, fd) && pread(fd, text->entry, bytes, entry_place(0)) > 0;
    close(fd);
}

static void warn(BlockText *text, const char *message)
{
    char *warning = mem_strdup(message), *none = NULL;
    if (!atomic_compare_exchange_strong(&text->warning, &none, warning)) free(warning);
}

/* Its place in the table, which begins anew where there is none of this file. */
static void write_entry(BlockText *text, uint64_t block)
{
    Error err = {0};
    TableHeader header = header_of(text);
    char *folder = path_folder(text->table_path);
    Status status = folder_create(folder, &err);
    int fd = -1;
    if (status == OK) fd = open(text->table_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    bool written = fd >= 0;
    if (written && !is_table(text, fd))
        written = ftruncate(fd, 0) == 0 && pwrite(fd, &header, sizeof header, 0) == sizeof header;
    written = written && pwrite(fd, &text->entry[block], sizeof *text->entry, entry_place(block)) ==
                             sizeof *text->entry;
    if (!written && status == OK)
        error_set_errno(&err, errno, "could not write %s", text->table_path);
    if (!written) warn(text, err.message);
    if (fd >= 0) close(fd);
    free(folder);
}

/* All entries of a small file, once they are there. */
static void keep_small(BlockText *text)
{
    Error err = {0};
    IndexHead head = {.magic = TABLE_MAGIC, .key = text->probe};
    head.body_bytes = (size_t)text->num_blocks * sizeof *text->entry;
    head.body_hash = XXH3_64bits_withSeed(text->entry, head.body_bytes, text->probe);
    Status status =
        index_folder_append(text->folder, text->entry, head.body_bytes, &head.place, &err);
    if (status == OK) status = index_folder_keep(text->folder, &head, &err);
    if (status != OK) warn(text, err.message);
}

static void load_small(BlockText *text)
{
    IndexHead head;
    size_t bytes = (size_t)text->num_blocks * sizeof *text->entry;
    if (!index_folder_find(text->folder, TABLE_MAGIC, text->probe, &head)) return;
    text->reused = head.body_bytes == bytes &&
                   index_folder_read(text->folder, head.place, text->entry, bytes) &&
                   XXH3_64bits_withSeed(text->entry, bytes, text->probe) == head.body_hash;
    if (!text->reused) memset(text->entry, 0, bytes);
}

static void store_entry(BlockText *text, uint64_t block, const BlockEntry *from)
{
    BlockEntry *entry = &text->entry[block];
    pthread_mutex_lock(&text->lock);
    bool known = entry->check != 0; /* by another thread, who has found the same */
    __atomic_store_n(&entry->hash, from->hash, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->records, from->records, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->lines, from->lines, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->check, entry_check(from, block), __ATOMIC_RELEASE);
    bool whole = !known && ++text->num_counted == text->num_blocks;
    if (!known && text->table_path != NULL) write_entry(text, block);
    if (whole && text->small) keep_small(text);
    pthread_mutex_unlock(&text->lock);
}

static void open_table(BlockText *text, const BlockTextOptions *options)
{
    if (options->path == NULL) return;
    if (text->num_blocks <= SMALL_BLOCKS) {
        load_small(text);
        text->small = !options->read_only && !text->reused;
    } else {
        char *path =
            mem_printf("%s/text-%016llx.blk", options->path, (unsigned long long)text->probe);
        load_table(text, path);
        if (options->read_only)
            free(path);
        else
            text->table_path = path;
    }
    BlockEntry known;
    for (uint64_t i = 0; i < text->num_blocks; i++) {
        if (load_entry(text, i, &known))
            text->num_counted++;
        else
            text->entry[i].check = 0; /* what is no entry was never counted */
    }
}

/* ---- the lines of a block ---- */

typedef struct LinePlace {
    uint64_t begin;
    uint64_t line; /* of the block, from 0 */
} LinePlace;

/* Where the records of a block begin; as a Block of the cache. */
typedef struct LineTable {
    uint64_t records;
    uint64_t end;      /* of the last record, with what belongs to it */
    LinePlace place[]; /* [records] */
} LineTable;

/* A block in memory. */
typedef struct LoadedBlock {
    uint64_t begin, end; /* of the file */
    uint64_t from;       /* file offset of `bytes`: one before `begin`, but for the first block */
    const char *bytes;
} LoadedBlock;

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* A file that has become shorter is no fault of a record. */
static Status read_bytes(const BlockText *text, void *bytes, size_t length, uint64_t offset,
                         Error *err)
{
    Error why = {0};
    Status status = data_file_read(text->input.file, bytes, length, offset, &why);
    if (status == ERR_DATA)
        return error_set(err, ERR_IO,
                         "%s\n  expected: data files that stay as they are until the run ends\n"
                         "  to do: restore it and resume, or start a new run",
                         why.message);
    if (status != OK && err != NULL) *err = why;
    return status;
}

/* Whether nothing but white space comes from `offset` on up to the line's or the file's end. */
static Status is_blank_on(const BlockText *text, uint64_t offset, bool *ret, Error *err)
{
    char bytes[4096];
    while (offset < text->input.file_bytes) {
        uint64_t left = text->input.file_bytes - offset;
        size_t length = left < sizeof bytes ? (size_t)left : sizeof bytes, i = 0;
        TRY(read_bytes(text, bytes, length, offset, err));
        while (i < length && is_space(bytes[i]))
            i++;
        *ret = i < length && bytes[i] == '\n';
        if (i < length) return OK;
        offset += length;
    }
    *ret = true;
    return OK;
}

/* Where the first line that begins in the block begins; `end` when none does. */
static uint64_t first_line(const LoadedBlock *block)
{
    const char *bytes = block->bytes;
    size_t length = (size_t)(block->end - block->from);
    if (block->begin == 0) return length >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    const char *newline = memchr(bytes, '\n', length); /* the byte before counts */
    return newline != NULL ? block->from + (uint64_t)(newline - bytes) + 1 : block->end;
}

/* Goes through the lines that begin in the block, and lists the records where `table` is not NULL,
 * which then has room for them. */
static Status scan_block(const BlockText *text, const LoadedBlock *block, LineTable *table,
                         BlockEntry *ret, Error *err)
{
    const char *bytes = block->bytes, *end = bytes + (block->end - block->from);
    const char *at = bytes + (first_line(block) - block->from);
    uint32_t records = 0, lines = 0;
    while (at < end) {
        const char *word = at;
        bool blank = false;
        while (word < end && is_space(*word))
            word++;
        if (word < end)
            blank = *word == '\n';
        else
            TRY(is_blank_on(text, block->end, &blank, err));
        if (!blank && table != NULL)
            table->place[records] = (LinePlace){block->from + (uint64_t)(at - bytes), lines};
        records += !blank;
        lines++;
        const char *newline = memchr(word, '\n', (size_t)(end - word));
        at = newline != NULL ? newline + 1 : end;
    }
    ret->records = records;
    ret->lines = lines;
    return OK;
}

static LoadedBlock block_place(const BlockText *text, uint64_t block)
{
    uint64_t begin = block * TEXT_BLOCK_BYTES;
    return (LoadedBlock){.begin = begin,
                         .end = begin + block_text_bytes(text, block),
                         .from = begin > 0 ? begin - 1 : 0};
}

/* `room` takes TEXT_BLOCK_BYTES + 1. */
static Status load(const BlockText *text, uint64_t block, char *room, LoadedBlock *ret,
                   BlockEntry *ret_entry, Error *err)
{
    *ret = block_place(text, block);
    ret->bytes = room;
    TRY(read_bytes(text, room, (size_t)(ret->end - ret->from), ret->from, err));
    ret_entry->hash = XXH3_64bits(room + (ret->begin - ret->from), (size_t)(ret->end - ret->begin));
    return scan_block(text, ret, NULL, ret_entry, err);
}

static Status refuse_other_bytes(const BlockText *text, const LoadedBlock *block, Error *err)
{
    return error_set(err, ERR_IO,
                     "%s was changed since its records were counted: between its bytes %llu and "
                     "%llu\n"
                     "  expected: data files that stay as they are until the run ends\n"
                     "  to do: restore it and resume, or start a new run",
                     text->input.path, (unsigned long long)block->begin,
                     (unsigned long long)block->end);
}

/* What was found must be what is known, if something is. */
static Status settle(BlockText *text, uint64_t index, const LoadedBlock *block,
                     const BlockEntry *found, Error *err)
{
    BlockEntry known;
    if (!load_entry(text, index, &known)) {
        store_entry(text, index, found);
        return OK;
    }
    if (known.hash != found->hash || known.records != found->records)
        return refuse_other_bytes(text, block, err);
    return OK;
}

/* Where the line that begins at `begin` ends, as far as a record may be long. */
static Status find_end(const BlockText *text, uint64_t begin, uint64_t offset, uint64_t *ret,
                       Error *err)
{
    uint64_t most = begin + JSONL_LINE_BYTES_MAX + 3, file_end = text->input.file_bytes;
    if (most > file_end) most = file_end;
    char *bytes = mem_alloc(AHEAD_BYTES);
    Status status = OK;
    const char *newline = NULL;
    while (offset < most && newline == NULL && status == OK) {
        size_t length = most - offset < AHEAD_BYTES ? (size_t)(most - offset) : AHEAD_BYTES;
        status = read_bytes(text, bytes, length, offset, err);
        if (status == OK) newline = memchr(bytes, '\n', length);
        offset += newline != NULL ? (uint64_t)(newline - bytes) + 1 : length;
    }
    free(bytes);
    *ret = offset;
    return status;
}

static Status list_lines(const BlockText *text, const LoadedBlock *block, uint64_t records,
                         Block *ret, Error *err)
{
    size_t bytes = sizeof(LineTable) + (size_t)records * sizeof(LinePlace);
    LineTable *table = mem_alloc(bytes);
    *table = (LineTable){.records = records, .end = block->end};
    BlockEntry again;
    Status status = scan_block(text, block, table, &again, err);
    if (status == OK && again.records != records)
        status = refuse_other_bytes(text, block, err); /* what lies behind the block has changed */
    /* The last line may end behind the block. */
    if (status == OK && records > 0 && block->bytes[block->end - block->from - 1] != '\n')
        status = find_end(text, table->place[records - 1].begin, block->end, &table->end, err);
    if (status == OK)
        *ret = (Block){table, bytes};
    else
        free(table);
    return status;
}

static Status load_lines(const void *file, uint64_t index, Block *ret, Error *err)
{
    BlockText *text = (BlockText *)(uintptr_t)file; /* what it counts is its own */
    char *room = mem_alloc(TEXT_BLOCK_BYTES + 1);
    LoadedBlock block;
    BlockEntry found;
    Status status = load(text, index, room, &block, &found, err);
    if (status == OK) status = settle(text, index, &block, &found, err);
    if (status == OK) status = list_lines(text, &block, found.records, ret, err);
    free(room);
    return status;
}

/* ---- */

BlockText *block_text_open(const TextInput *input, const TextProbe *probe,
                           const BlockTextOptions *options)
{
    BlockText *text = mem_calloc(1, sizeof *text);
    text->input = *input;
    text->cache = options->cache;
    text->folder = options->folder;
    text->probe = probe->hash;
    text->num_blocks = (input->file_bytes + TEXT_BLOCK_BYTES - 1) / TEXT_BLOCK_BYTES;
    pthread_mutex_init(&text->lock, NULL);
    text->entry = mem_calloc((size_t)text->num_blocks + 1, sizeof *text->entry);
    text->lines_before = mem_calloc((size_t)text->num_blocks + 1, sizeof *text->lines_before);
    open_table(text, options);
    return text;
}

void block_text_close(BlockText *text)
{
    if (text == NULL) return;
    block_cache_forget(text->cache, text);
    free(text->entry);
    free(text->table_path);
    pthread_mutex_destroy(&text->lock);
    free(text->lines_before);
    free(text->warning);
    free(text);
}

uint64_t block_text_probe(const BlockText *text)
{
    return text->probe;
}

bool block_text_reused(const BlockText *text)
{
    return text->reused;
}

const char *block_text_warning(const BlockText *text)
{
    return text->warning;
}

uint64_t block_text_num_blocks(const BlockText *text)
{
    return text->num_blocks;
}

uint64_t block_text_bytes(const BlockText *text, uint64_t block)
{
    uint64_t left = text->input.file_bytes - block * TEXT_BLOCK_BYTES;
    return left < TEXT_BLOCK_BYTES ? left : TEXT_BLOCK_BYTES;
}

bool block_text_counted(const BlockText *text, uint64_t block, uint64_t *ret_records)
{
    BlockEntry known;
    if (!load_entry(text, block, &known)) return false;
    *ret_records = known.records;
    return true;
}

Status block_text_count(BlockText *text, uint64_t block, Error *err)
{
    char *room = mem_alloc(TEXT_BLOCK_BYTES + 1);
    LoadedBlock loaded;
    BlockEntry found;
    Status status = load(text, block, room, &loaded, &found, err);
    if (status == OK) status = settle(text, block, &loaded, &found, err);
    free(room);
    return status;
}

void block_text_prefetch(const BlockText *text, uint64_t block)
{
    LoadedBlock place = block_place(text, block);
    data_file_advise(text->input.file, place.begin, place.end - place.begin, POSIX_FADV_WILLNEED);
}

/* Of the lines before a block; false while that is not known. */
static bool sum_lines(BlockText *text, uint64_t block, uint64_t *ret)
{
    BlockEntry known;
    if (text->summed < block) {
        pthread_mutex_lock(&text->lock);
        uint64_t at = text->summed;
        while (at < block && load_entry(text, at, &known)) {
            text->lines_before[at + 1] = text->lines_before[at] + known.lines;
            at++;
        }
        text->summed = at;
        pthread_mutex_unlock(&text->lock);
    }
    if (text->summed < block) return false;
    *ret = text->lines_before[block];
    return true;
}

Status block_text_line(BlockText *text, uint64_t block, uint64_t record, BlockLine *ret, Error *err)
{
    const Block *lines = NULL;
    TRY(data_file_check(text->input.file, err));
    TRY(block_cache_take(text->cache, text, block, load_lines, &lines, err));
    const LineTable *table = lines->data;
    CHECK(record < table->records);
    const LinePlace *place = &table->place[record];
    uint64_t before = 0;
    ret->begin = place->begin;
    ret->end = record + 1 < table->records ? place[1].begin : table->end;
    ret->line = sum_lines(text, block, &before) ? before + place->line + 1 : 0;
    block_cache_give_back(text->cache, lines);
    return OK;
}
