#include "dataset/reader_states.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/file.h"
#include "base/memory.h"

#define START       "troupe reader states 1\n"
#define NAME_DIGITS 16 /* of the fingerprint, in the name of the file */

typedef struct Entry {
    ReaderPoint point;
    Str state;
} Entry;

/* As it stands in the file, the state behind it. */
typedef struct EntryHead {
    ReaderPoint point;
    uint64_t interval; /* that held when it was written */
    uint64_t length;
    uint64_t checksum; /* of the state, keyed by all that is above */
} EntryHead;

struct ReaderStates {
    char *path; /* NULL: in memory alone */
    char fingerprint[DIGEST_HEX_BYTES];
    int fd; /* to append to; -1: nothing is written */
    Entry *entry;
    int count, capacity;
    size_t bytes; /* of the file with these entries */
    uint64_t interval;
};

static uint64_t checksum_of(const EntryHead *head, const void *state)
{
    uint64_t key = XXH3_64bits(head, offsetof(EntryHead, checksum));
    return XXH3_64bits_withSeed(state, (size_t)head->length, key);
}

static EntryHead head_of(const ReaderStates *states, const Entry *entry)
{
    EntryHead head = {
        .point = entry->point, .interval = states->interval, .length = entry->state.length};
    head.checksum = checksum_of(&head, str_text(&entry->state));
    return head;
}

static void keep(ReaderStates *states, const ReaderPoint *point, const void *state, size_t length)
{
    if (states->count == states->capacity) {
        states->capacity = 2 * states->capacity + 8;
        states->entry = mem_realloc(states->entry, (size_t)states->capacity, sizeof *states->entry);
    }
    Entry *entry = &states->entry[states->count++];
    *entry = (Entry){.point = *point};
    str_append(&entry->state, state, length);
    states->bytes += sizeof(EntryHead) + length;
}

/* ---- the file ---- */

static void put_start(const ReaderStates *states, Str *text)
{
    str_printf(text, "%s%s\n", START, states->fingerprint);
}

static bool is_next(const ReaderStates *states, uint64_t position)
{
    return states->count == 0 || position > states->entry[states->count - 1].point.position;
}

/* Returns the bytes of the file that are whole. */
static size_t take_file(ReaderStates *states, const char *bytes, size_t length)
{
    Str start = {0};
    put_start(states, &start);
    bool mine = length >= start.length && memcmp(bytes, start.data, start.length) == 0;
    size_t at = start.length;
    str_free(&start);
    if (!mine) return 0;
    for (EntryHead head; length - at >= sizeof head;) {
        memcpy(&head, bytes + at, sizeof head);
        if (head.length > READER_STATE_BYTES_MAX || head.length > length - at - sizeof head) break;
        if (head.interval == 0 || states->count == READER_STATES_MAX) break;
        const char *state = bytes + at + sizeof head;
        if (head.checksum != checksum_of(&head, state)) break;
        at += sizeof head + (size_t)head.length;
        /* Two data sources may have written for a moment, the one that was dying and the new. */
        if (!is_next(states, head.point.position)) continue;
        keep(states, &head.point, state, (size_t)head.length);
        states->interval = head.interval;
    }
    return at;
}

static void stop_writing(ReaderStates *states)
{
    if (states->fd >= 0) close(states->fd);
    states->fd = -1;
}

/* The whole file anew; then it is appended to. */
static void write_file(ReaderStates *states)
{
    Str text = {0};
    put_start(states, &text);
    for (int i = 0; i < states->count; i++) {
        EntryHead head = head_of(states, &states->entry[i]);
        str_append(&text, &head, sizeof head);
        str_append(&text, str_text(&states->entry[i].state), states->entry[i].state.length);
    }
    stop_writing(states);
    if (file_write_atomic(states->path, text.data, text.length, NULL) == OK)
        states->fd = open(states->path, O_WRONLY | O_APPEND | O_CLOEXEC);
    str_free(&text);
}

ReaderStates *reader_states_open(const char *folder, bool read_only,
                                 const char fingerprint[DIGEST_HEX_BYTES])
{
    ReaderStates *states = mem_calloc(1, sizeof *states);
    states->fd = -1;
    states->interval = READER_STATES_INTERVAL;
    memcpy(states->fingerprint, fingerprint, DIGEST_HEX_BYTES);
    if (folder == NULL) return states;
    char *name = mem_printf("reader_%.*s.states", NAME_DIGITS, fingerprint), *bytes = NULL;
    size_t length = 0, whole = 0;
    states->path = path_join(folder, name);
    free(name);
    if (file_read(states->path, 2 * READER_STATES_BYTES_MAX, &bytes, &length, NULL) == OK)
        whole = take_file(states, bytes, length);
    free(bytes);
    if (read_only || folder_create(folder, NULL) != OK) return states;
    if (whole > 0 && whole == length)
        states->fd = open(states->path, O_WRONLY | O_APPEND | O_CLOEXEC);
    else
        write_file(states);
    return states;
}

void reader_states_close(ReaderStates *states)
{
    if (states == NULL) return;
    stop_writing(states);
    for (int i = 0; i < states->count; i++)
        str_free(&states->entry[i].state);
    free(states->entry);
    free(states->path);
    free(states);
}

/* ---- use ---- */

bool reader_states_want(const ReaderStates *states, uint64_t position)
{
    if (states->count == 0) return true;
    uint64_t last = states->entry[states->count - 1].point.position;
    return position > last && position - last >= states->interval;
}

/* Every second one goes. */
static void thin_out(ReaderStates *states)
{
    int kept = 0;
    states->bytes = 0;
    for (int i = 0; i < states->count; i++) {
        if (i % 2 != 0) {
            str_free(&states->entry[i].state);
            continue;
        }
        states->bytes += sizeof(EntryHead) + states->entry[i].state.length;
        states->entry[kept++] = states->entry[i];
    }
    states->count = kept;
    states->interval *= 2;
}

void reader_states_add(ReaderStates *states, const ReaderPoint *point, const void *state,
                       size_t length)
{
    CHECK(length <= READER_STATE_BYTES_MAX);
    bool full = states->count == READER_STATES_MAX ||
                states->bytes + sizeof(EntryHead) + length > READER_STATES_BYTES_MAX;
    if (full) thin_out(states);
    keep(states, point, state, length);
    if (states->fd < 0) return;
    if (full) {
        write_file(states);
        return;
    }
    Str text = {0};
    EntryHead head = head_of(states, &states->entry[states->count - 1]);
    str_append(&text, &head, sizeof head);
    str_append(&text, state, length);
    if (file_write_all(states->fd, text.data, text.length, states->path, NULL) != OK)
        stop_writing(states); /* a torn end is cut off by the next start */
    str_free(&text);
}

const ReaderPoint *reader_states_find(const ReaderStates *states, uint64_t position,
                                      const Str **ret_state)
{
    int low = 0, high = states->count; /* the last one at or before it is in [low - 1, high) */
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (states->entry[middle].point.position <= position)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0) return NULL;
    if (ret_state != NULL) *ret_state = &states->entry[low - 1].state;
    return &states->entry[low - 1].point;
}
