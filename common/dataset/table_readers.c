#include "dataset/table_readers.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

/* One that is in use has no reader here, and stands where it will stand. */
typedef struct Kept {
    const TableLibrary *library;
    const void *file;
    TableReader *reader; /* NULL: in use */
    uint64_t group, row;
    size_t bytes;
} Kept;

struct TableReaders {
    pthread_mutex_t lock;
    Kept *kept; /* [count], the one that was used last at the end */
    size_t count, capacity;
    size_t idle, bytes, bytes_max; /* of those that nobody uses */
};

TableReaders *table_readers_create(size_t bytes_max)
{
    TableReaders *readers = mem_calloc(1, sizeof *readers);
    pthread_mutex_init(&readers->lock, NULL);
    readers->bytes_max = bytes_max;
    return readers;
}

void table_readers_destroy(TableReaders *readers)
{
    if (readers == NULL) return;
    for (size_t i = 0; i < readers->count; i++) {
        CHECK(readers->kept[i].reader != NULL);
        readers->kept[i].library->close_reader(readers->kept[i].reader);
    }
    pthread_mutex_destroy(&readers->lock);
    free(readers->kept);
    free(readers);
}

/* ---- with the lock held ---- */

static void add(TableReaders *readers, Kept kept)
{
    if (readers->count == readers->capacity) {
        readers->capacity = 2 * readers->capacity + 8;
        readers->kept = mem_realloc(readers->kept, readers->capacity, sizeof *readers->kept);
    }
    readers->kept[readers->count++] = kept;
    readers->idle += kept.reader != NULL;
    readers->bytes += kept.bytes;
}

static Kept take_out(TableReaders *readers, size_t index)
{
    Kept kept = readers->kept[index];
    readers->count--;
    memmove(&readers->kept[index], &readers->kept[index + 1],
            (readers->count - index) * sizeof *readers->kept);
    readers->idle -= kept.reader != NULL;
    readers->bytes -= kept.bytes;
    return kept;
}

/* The one that nobody uses, of a file or of any (NULL), that was used longest ago. */
static TableReader *take_oldest(TableReaders *readers, const void *file,
                                const TableLibrary **ret_library)
{
    for (size_t i = 0; i < readers->count; i++) {
        const Kept *kept = &readers->kept[i];
        if (kept->reader == NULL || (file != NULL && kept->file != file)) continue;
        *ret_library = kept->library;
        return take_out(readers, i).reader;
    }
    return NULL;
}

/* The nearest before the errand, in use or not; false: there is none. */
static bool find_nearest(const TableReaders *readers, const ReaderErrand *errand, bool used,
                         size_t *ret)
{
    bool found = false;
    for (size_t i = 0; i < readers->count; i++) {
        const Kept *kept = &readers->kept[i];
        if (kept->file != errand->file || kept->group != errand->group) continue;
        if (kept->row > errand->begin || (kept->reader == NULL && !used)) continue;
        if (found && kept->row <= readers->kept[*ret].row) continue;
        *ret = i;
        found = true;
    }
    return found;
}

/* ---- */

/* Where nobody stands, a reader that is opened will stand at the group's first row. */
bool table_readers_take(TableReaders *readers, const ReaderErrand *errand, TableReader **ret,
                        uint64_t *ret_row)
{
    size_t at = 0;
    pthread_mutex_lock(&readers->lock);
    bool found = find_nearest(readers, errand, true, &at);
    uint64_t away = errand->begin - (found ? readers->kept[at].row : 0);
    bool there = found ? away == 0 && readers->kept[at].reader != NULL : away == 0;
    bool ready = there || away > errand->near || errand->near == 0;
    if (ready) {
        bool idle = find_nearest(readers, errand, false, &at);
        Kept kept = {0};
        if (idle) kept = take_out(readers, at);
        *ret = kept.reader;
        *ret_row = kept.row;
        add(readers, (Kept){errand->library, errand->file, NULL, errand->group, errand->end, 0});
    }
    pthread_mutex_unlock(&readers->lock);
    return ready;
}

void table_readers_give_back(TableReaders *readers, const ReaderErrand *errand, TableReader *reader)
{
    const TableLibrary *library = errand->library;
    size_t at = 0, bytes = reader != NULL ? library->reader_bytes(reader) : 0;
    pthread_mutex_lock(&readers->lock);
    while (readers->kept[at].reader != NULL || readers->kept[at].file != errand->file ||
           readers->kept[at].group != errand->group || readers->kept[at].row != errand->end)
        at++;
    take_out(readers, at);
    if (reader != NULL)
        add(readers, (Kept){library, errand->file, reader, errand->group, errand->end, bytes});
    while (readers->bytes > readers->bytes_max && readers->idle > 1) {
        TableReader *oldest = take_oldest(readers, NULL, &library);
        pthread_mutex_unlock(&readers->lock);
        library->close_reader(oldest);
        pthread_mutex_lock(&readers->lock);
    }
    pthread_mutex_unlock(&readers->lock);
}

void table_readers_forget(TableReaders *readers, const void *file)
{
    const TableLibrary *library = NULL;
    TableReader *oldest;
    do {
        pthread_mutex_lock(&readers->lock);
        oldest = take_oldest(readers, file, &library);
        pthread_mutex_unlock(&readers->lock);
        if (oldest != NULL) library->close_reader(oldest);
    } while (oldest != NULL);
}
