#include "dataset/block_text.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "dataset/content_hash.h"
#include "dataset/file_probe.h"

#define TABLE_MAGIC UINT64_C(0x316b6c6265707254) /* "Trpeblk1" on a little-endian machine */
#define AHEAD_BYTES (64u << 10)

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
    uint64_t probe, num_blocks;
    BlockEntry *entry; /* [num_blocks]; the checks are atomic */
    void *map;         /* the table, when there is a file of it */
    size_t map_bytes;
    bool reused;
    char *warning;           /* or NULL */
    pthread_mutex_t lock;    /* of the sums of lines */
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

static void store_entry(BlockText *text, uint64_t block, const BlockEntry *from)
{
    BlockEntry *entry = &text->entry[block];
    __atomic_store_n(&entry->hash, from->hash, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->records, from->records, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->lines, from->lines, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->check, entry_check(from, block), __ATOMIC_RELEASE);
}

static TableHeader header_of(const BlockText *text)
{
    return (TableHeader){TABLE_MAGIC, text->probe, text->input.file_bytes, TEXT_BLOCK_BYTES};
}

/* Maps a table of this file; false when it is none. */
static bool map_table(BlockText *text, const char *path, bool read_only)
{
    TableHeader header, expected = header_of(text);
    struct stat info;
    int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (fd < 0) return false;
    bool same = fstat(fd, &info) == 0 && (uint64_t)info.st_size == text->map_bytes &&
                file_read_at(fd, &header, sizeof header, 0, "", NULL) == OK &&
                memcmp(&header, &expected, sizeof header) == 0;
    /* Who may not write it keeps what is counted to himself. */
    void *map = same ? mmap(NULL, text->map_bytes, PROT_READ | PROT_WRITE,
                            read_only ? MAP_PRIVATE : MAP_SHARED, fd, 0)
                     : MAP_FAILED;
    close(fd);
    if (map == MAP_FAILED) return false;
    text->map = map;
    text->entry = (BlockEntry *)(void *)((char *)map + sizeof header);
    return true;
}

static Status write_table(const BlockText *text, const char *path, Error *err)
{
    TableHeader header = header_of(text);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return error_set_errno(err, errno, "could not create %s", path);
    /* All of its room is taken now: a write through the map cannot be refused. */
    int failed = posix_fallocate(fd, 0, (off_t)text->map_bytes);
    Status status = OK;
    if (failed != 0) status = error_set_errno(err, failed, "could not make room for %s", path);
    if (status == OK) status = file_write_all(fd, &header, sizeof header, path, err);
    close(fd);
    return status;
}

/* A table that another process makes at the same time is as good. */
static Status create_table(BlockText *text, const char *folder, const char *path, Error *err)
{
    TRY(folder_create(folder, err));
    char *temporary = mem_printf("%s.tmp-%d", path, (int)gettid());
    Status status = write_table(text, temporary, err);
    if (status == OK && rename(temporary, path) != 0)
        status = error_set_errno(err, errno, "could not rename %s to %s", temporary, path);
    if (status != OK) unlink(temporary);
    if (status == OK && !map_table(text, path, false))
        status = error_set(err, ERR_IO, "could not map %s", path);
    free(temporary);
    return status;
}

static void open_table(BlockText *text, const BlockTextOptions *options)
{
    Error err = {0};
    text->map_bytes = sizeof(TableHeader) + (size_t)text->num_blocks * sizeof(BlockEntry);
    if (options->folder != NULL) {
        char *path =
            mem_printf("%s/text-%016llx.blk", options->folder, (unsigned long long)text->probe);
        text->reused = map_table(text, path, options->read_only);
        if (!text->reused && !options->read_only &&
            create_table(text, options->folder, path, &err) != OK)
            text->warning = mem_strdup(err.message);
        free(path);
    }
    if (text->map == NULL) text->entry = mem_calloc((size_t)text->num_blocks, sizeof *text->entry);
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

static Status open_file(BlockText *text, const BlockTextOptions *options, Error *err)
{
    const TextInput *input = &text->input;
    TRY(file_probe(input->file, &text->probe, err));
    open_table(text, options);
    return OK;
}

Status block_text_open(const TextInput *input, const BlockTextOptions *options, BlockText **ret,
                       Error *err)
{
    BlockText *text = mem_calloc(1, sizeof *text);
    text->input = *input;
    text->cache = options->cache;
    text->num_blocks = (input->file_bytes + TEXT_BLOCK_BYTES - 1) / TEXT_BLOCK_BYTES;
    pthread_mutex_init(&text->lock, NULL);
    Status status = open_file(text, options, err);
    if (status == OK) {
        text->lines_before = mem_calloc((size_t)text->num_blocks + 1, sizeof *text->lines_before);
        *ret = text;
        text = NULL;
    }
    block_text_close(text);
    return status;
}

void block_text_close(BlockText *text)
{
    if (text == NULL) return;
    block_cache_forget(text->cache, text);
    if (text->map != NULL)
        munmap(text->map, text->map_bytes);
    else
        free(text->entry);
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
