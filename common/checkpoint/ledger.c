#include "checkpoint/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/lines.h"
#include "base/memory.h"

#define START        "troupe ledger 1"
#define CHAIN_MEMBER ",\"chain\":\""
#define CHAIN_END    "\"}"
#define NUMBER_MAX   (INT64_C(1) << 53)

/* Of one step: no more than fit on a line as single numbers. */
#define POSITIONS_MAX (LEDGER_LINE_BYTES_MAX / 2)

static const LedgerMark nothing_said = {.last_step = -1, .group_size = 1};

struct Ledger {
    char *path;
    int fd;
    char head[DIGEST_HEX_BYTES];
    LedgerMark mark; /* its end: after the last whole line */
    bool broken;     /* a flush failed: what is on disk is not known any more */
};

static void chain_start(char ret_head[DIGEST_HEX_BYTES])
{
    digest_bytes(START, strlen(START), ret_head);
}

static void chain_next(const char head[DIGEST_HEX_BYTES], const char *payload, size_t length,
                       char ret_head[DIGEST_HEX_BYTES])
{
    Digest *digest = digest_create();
    digest_update(digest, head, DIGEST_HEX_BYTES - 1);
    digest_update(digest, payload, length);
    digest_finish(digest, ret_head);
    digest_destroy(digest);
}

/* ---- positions as ranges ---- */

static void put_ranges(Str *out, const int64_t *position, int count)
{
    for (int i = 0; i < count;) {
        int last = i;
        while (last + 1 < count && position[last + 1] == position[last] + 1)
            last++;
        str_printf(out, "%s%" PRId64, i > 0 ? "," : "", position[i]);
        if (last > i) str_printf(out, "-%" PRId64, position[last]);
        i = last + 1;
    }
}

/* A decimal number without sign; NULL when there is none or it is too large. */
static const char *parse_number(const char *text, int64_t *ret)
{
    int64_t value = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        value = value * 10 + (*at - '0');
        if (value > NUMBER_MAX) return NULL;
    }
    *ret = value;
    return at > text ? at : NULL;
}

/* Expands "3-5,9" into *ret_position (owned). False when it is malformed, not ascending, or leaves
 * [first, end). */
static bool parse_ranges(const char *text, int64_t first, int64_t end, int64_t **ret_position,
                         int *ret_count)
{
    int64_t *position = NULL, next = first;
    size_t count = 0;
    for (const char *at = text; *at != '\0';) {
        int64_t from = 0, to = 0;
        at = parse_number(at, &from);
        to = from;
        if (at != NULL && *at == '-') at = parse_number(at + 1, &to);
        if (at == NULL || from < next || to < from || to >= end) goto malformed;
        if (to - from >= POSITIONS_MAX - (int64_t)count) goto malformed;
        position = mem_realloc(position, count + (size_t)(to - from + 1), sizeof *position);
        for (int64_t p = from; p <= to; p++)
            position[count++] = p;
        next = to + 1;
        if (*at == ',' && at[1] != '\0')
            at++;
        else if (*at != '\0')
            goto malformed;
    }
    *ret_position = position;
    *ret_count = (int)count;
    return true;
malformed:
    free(position);
    return false;
}

/* ---- reading ---- */

typedef struct Scan {
    const char *path;
    int fd;
    Str buffer; /* read, not yet used up */
    size_t used;
    bool at_end;
    int64_t line;    /* number of the last whole line, from 1 */
    LedgerMark mark; /* behind it */
    char head[DIGEST_HEX_BYTES];
} Scan;

static Status damaged(const Scan *scan, const char *what, Error *err)
{
    return error_set(err, ERR_DATA, "%s:%" PRId64 ": the ledger is damaged here: %s", scan->path,
                     scan->line + 1, what);
}

/* The next whole line without its newline (borrowed until the next call), or NULL at the end; what
 * is left in the buffer then is a torn line. */
static Status next_line(Scan *scan, const char **ret_line, size_t *ret_length, Error *err)
{
    for (;;) {
        const char *begin = str_text(&scan->buffer) + scan->used;
        size_t have = scan->buffer.length - scan->used;
        const char *newline = have > 0 ? memchr(begin, '\n', have) : NULL;
        if (newline != NULL) {
            *ret_line = begin;
            *ret_length = (size_t)(newline - begin);
            scan->used += *ret_length + 1;
            return OK;
        }
        *ret_line = NULL;
        if (scan->at_end) return OK;
        if (have > LEDGER_LINE_BYTES_MAX) return damaged(scan, "a line without an end", err);
        if (scan->used > 0) {
            Str rest = {0};
            str_append(&rest, begin, have);
            str_free(&scan->buffer);
            scan->buffer = rest;
            scan->used = 0;
        }
        char piece[65536];
        ssize_t got = read(scan->fd, piece, sizeof piece);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return error_set_errno(err, errno, "could not read %s", scan->path);
        if (got == 0) scan->at_end = true;
        str_append(&scan->buffer, piece, (size_t)got);
    }
}

/* Checks a line's chain and moves the scan's head past it. */
static Status check_chain(Scan *scan, const char *line, size_t length, Error *err)
{
    static const size_t member = sizeof CHAIN_MEMBER - 1, end = sizeof CHAIN_END - 1;
    char head[DIGEST_HEX_BYTES];
    size_t tail = member + DIGEST_HEX_BYTES - 1 + end;
    if (length <= tail || memcmp(line + length - tail, CHAIN_MEMBER, member) != 0 ||
        memcmp(line + length - end, CHAIN_END, end) != 0)
        return damaged(scan, "not a record", err);
    chain_next(scan->head, line, length - tail, head);
    if (memcmp(line + length - tail + member, head, DIGEST_HEX_BYTES - 1) != 0)
        return damaged(scan, "its hash does not follow from the lines before", err);
    memcpy(scan->head, head, sizeof head);
    return OK;
}

typedef void (*Visit)(void *context, const LedgerRecord *record);

/* A record as it is read, with what it owns. */
typedef struct ReadRecord {
    LedgerRecord record;
    int64_t *accepted, *rejected;
    const char **why; /* of each; names borrowed from the JSON */
    LedgerPart *part; /* their indexes owned */
} ReadRecord;

static void free_record(ReadRecord *read)
{
    for (int i = 0; i < read->record.num_parts; i++)
        free((int32_t *)read->part[i].index);
    free(read->part);
    free(read->why);
    free(read->accepted);
    free(read->rejected);
}

/* {"too_long":"71"}: each rejected position has one reason. */
static Status read_why(Scan *scan, const cJSON *json, ReadRecord *read, Error *err)
{
    LedgerRecord *record = &read->record;
    const cJSON *why = cJSON_GetObjectItemCaseSensitive(json, "why"), *reason = NULL;
    if (why == NULL) return OK;
    int named = 0;
    bool fits = cJSON_IsObject(why);
    read->why = mem_calloc((size_t)record->num_rejected + 1, sizeof *read->why);
    cJSON_ArrayForEach(reason, why)
    {
        int64_t *position = NULL;
        int count = 0, at = 0;
        fits = fits && cJSON_IsString(reason) &&
               parse_ranges(reason->valuestring, record->first, record->end, &position, &count);
        for (int i = 0; i < count && fits; i++) {
            while (at < record->num_rejected && record->rejected[at] < position[i])
                at++;
            fits = at < record->num_rejected && record->rejected[at] == position[i] &&
                   read->why[at] == NULL;
            if (fits) read->why[at] = reason->string;
        }
        named += count;
        free(position);
    }
    if (!fits || named != record->num_rejected)
        return damaged(scan, "reasons that do not fit the rejected positions", err);
    record->why = read->why;
    return OK;
}

static bool is_one_of(int64_t position, const int64_t *list, int count)
{
    int low = 0, high = count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (list[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && list[low] == position;
}

/* "66":"0-5,7". False when it is malformed. */
static bool read_part(const cJSON *member, ReadRecord *read)
{
    LedgerRecord *record = &read->record;
    int64_t *index = NULL, position = 0;
    int count = 0;
    const char *end = parse_number(member->string, &position);
    if (end == NULL || *end != '\0' || !cJSON_IsString(member)) return false;
    if (!is_one_of(position, record->accepted, record->num_accepted)) return false;
    const LedgerPart *before = record->num_parts > 0 ? &read->part[record->num_parts - 1] : NULL;
    if (before != NULL && before->position >= position) return false;
    if (!parse_ranges(member->valuestring, 0, record->group_size, &index, &count)) return false;
    int32_t *small = mem_calloc((size_t)count + 1, sizeof *small);
    for (int i = 0; i < count; i++)
        small[i] = (int32_t)index[i];
    free(index);
    read->part[record->num_parts++] = (LedgerPart){position, small, count};
    return true;
}

static Status read_parts(Scan *scan, const cJSON *json, ReadRecord *read, Error *err)
{
    const cJSON *partial = cJSON_GetObjectItemCaseSensitive(json, "partial"), *member = NULL;
    if (partial == NULL) return OK;
    read->part = mem_calloc((size_t)cJSON_GetArraySize(partial) + 1, sizeof *read->part);
    read->record.part = read->part;
    bool fits = cJSON_IsObject(partial);
    cJSON_ArrayForEach(member, partial) fits = fits && read_part(member, read);
    return fits ? OK : damaged(scan, "malformed parts of groups", err);
}

/* What holds from this line on. */
static Status read_standing(Scan *scan, const cJSON *json, Error *err)
{
    LedgerMark *standing = &scan->mark;
    int64_t format = standing->format == 0 ? 1 : standing->format;
    TRY(json_int_or(json, "ledger", scan->path, 1, NUMBER_MAX, &format, err));
    if (format > LEDGER_FORMAT)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s is a ledger of format %" PRId64
                         ", this program knows up to %d: use the version that wrote it",
                         scan->path, format, LEDGER_FORMAT);
    standing->format = format;
    TRY(json_int_or(json, "stage", scan->path, 0, INT32_MAX, &standing->stage, err));
    TRY(json_int_or(json, "records", scan->path, 1, NUMBER_MAX, &standing->records, err));
    TRY(json_int_or(json, "group", scan->path, 1, POSITIONS_MAX, &standing->group_size, err));
    const cJSON *data = cJSON_GetObjectItemCaseSensitive(json, "data");
    if (cJSON_IsString(data))
        snprintf(standing->data, sizeof standing->data, "%s", data->valuestring);
    return OK;
}

static Status read_record(Scan *scan, const cJSON *json, ReadRecord *read, Error *err)
{
    LedgerRecord *record = &read->record;
    const char *accepted = NULL, *rejected = NULL;
    int64_t last_step = scan->mark.last_step;
    TRY(json_int(json, "step", scan->path, 0, NUMBER_MAX, &record->step, err));
    TRY(json_int(json, "first", scan->path, 0, NUMBER_MAX, &record->first, err));
    TRY(json_int(json, "end", scan->path, record->first, NUMBER_MAX, &record->end, err));
    TRY(json_string(json, "accepted", scan->path, &accepted, err));
    TRY(json_string(json, "rejected", scan->path, &rejected, err));
    TRY(read_standing(scan, json, err));
    const LedgerMark *standing = &scan->mark;
    if (standing->data[0] != '\0') record->data = standing->data;
    record->stage = (int)standing->stage;
    record->records = standing->records;
    record->group_size = (int)standing->group_size;
    record->chain = scan->head;
    record->format = (int)standing->format;
    record->bytes = standing->bytes;
    scan->mark.last_step = record->step;
    if (record->step <= last_step) return damaged(scan, "steps do not ascend", err);
    if (!parse_ranges(accepted, record->first, record->end, &read->accepted,
                      &record->num_accepted) ||
        !parse_ranges(rejected, record->first, record->end, &read->rejected, &record->num_rejected))
        return damaged(scan, "malformed positions", err);
    record->accepted = read->accepted;
    record->rejected = read->rejected;
    TRY(read_why(scan, json, read, err));
    return read_parts(scan, json, read, err);
}

static Status visit_record(Scan *scan, const cJSON *json, Visit visit, void *context, Error *err)
{
    ReadRecord read = {0};
    Status status = read_record(scan, json, &read, err);
    if (status == OK && visit != NULL) visit(context, &read.record);
    free_record(&read);
    return status;
}

/* Takes one line; *ret_more is false at the end. */
static Status scan_line(Scan *scan, Visit visit, void *context, bool *ret_more, Error *err)
{
    const char *line = NULL;
    size_t length = 0;
    cJSON *json = NULL;
    TRY(next_line(scan, &line, &length, err));
    *ret_more = line != NULL;
    if (line == NULL) return OK;
    TRY(check_chain(scan, line, length, err));
    TRY(json_parse(line, length, scan->path, &json, err));
    Status status = visit_record(scan, json, visit, context, err);
    cJSON_Delete(json);
    if (status == ERR_NOT_FOUND || status == ERR_INVALID)
        status = damaged(scan, "a member is missing or of the wrong type", err);
    scan->mark.bytes += (int64_t)length + 1;
    scan->line++;
    return status;
}

static Status read_rest(Scan *scan, Visit visit, void *context, Error *err)
{
    Status status = OK;
    for (bool more = true; status == OK && more;)
        status = scan_line(scan, visit, context, &more, err);
    return status;
}

Status ledger_read(const char *path, Visit visit, void *context, LedgerSummary *ret, Error *err)
{
    Scan scan = {.path = path, .mark = nothing_said};
    chain_start(scan.head);
    scan.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (scan.fd < 0) return error_set_errno(err, errno, "could not open %s", path);
    Status status = read_rest(&scan, visit, context, err);
    if (status == OK) {
        LedgerSummary summary = {.format = (int)scan.mark.format,
                                 .records = scan.line,
                                 .last_step = scan.mark.last_step};
        summary.torn_bytes = (int64_t)(scan.buffer.length - scan.used);
        memcpy(summary.head, scan.head, sizeof summary.head);
        *ret = summary;
    }
    str_free(&scan.buffer);
    close(scan.fd);
    return status;
}

/* ---- from a mark on ---- */

/* Goes to the line that ends at the mark, with what the line before says of its chain, and reads
 * it. False where the mark does not fit the file, which is then to be read from its start. */
static bool take_mark(Scan *scan, const LedgerMark *mark, const char *head)
{
    Str line = {0};
    int64_t begin = 0, before = 0;
    bool more = true, fits = false;
    chain_start(scan->head);
    if (lines_before(scan->fd, mark->bytes, LEDGER_LINE_BYTES_MAX, scan->path, &line, &begin,
                     NULL) != OK)
        goto done;
    if (begin > 0) {
        size_t tail = DIGEST_HEX_BYTES - 1 + sizeof CHAIN_END - 1 + 1;
        if (lines_before(scan->fd, begin, LEDGER_LINE_BYTES_MAX, scan->path, &line, &before,
                         NULL) != OK ||
            line.length < tail)
            goto done;
        memcpy(scan->head, line.data + line.length - tail, DIGEST_HEX_BYTES - 1);
    }
    scan->mark = *mark;
    scan->mark.bytes = begin;
    scan->mark.last_step = -1;
    fits = lseek(scan->fd, (off_t)begin, SEEK_SET) == (off_t)begin &&
           scan_line(scan, NULL, NULL, &more, NULL) == OK && more &&
           strcmp(scan->head, head) == 0 && scan->mark.bytes == mark->bytes;
done:
    str_free(&line);
    return fits;
}

static Status begin_scan(Scan *scan, Error *err)
{
    scan->used = scan->buffer.length = 0;
    scan->at_end = false;
    scan->line = 0;
    scan->mark = nothing_said;
    chain_start(scan->head);
    if (lseek(scan->fd, 0, SEEK_SET) == 0) return OK;
    return error_set_errno(err, errno, "could not position in %s", scan->path);
}

Status ledger_read_behind(const char *path, const char *head, const LedgerMark *mark, Visit visit,
                          void *context, Error *err)
{
    Scan scan = {.path = path};
    scan.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (scan.fd < 0) return error_set_errno(err, errno, "could not open %s", path);
    bool there = mark != NULL && mark->bytes > 0 && take_mark(&scan, mark, head);
    Status status = there ? OK : begin_scan(&scan, err);
    if (status == OK) status = read_rest(&scan, visit, context, err);
    if (status == ERR_DATA && there && begin_scan(&scan, err) == OK)
        status = read_rest(&scan, NULL, NULL, err); /* which says the number of the line */
    str_free(&scan.buffer);
    close(scan.fd);
    return status;
}

/* ---- writing ---- */

static int64_t count_rest(Scan *scan)
{
    int64_t lines = 0;
    const char *line = NULL;
    size_t length = 0;
    while (next_line(scan, &line, &length, NULL) == OK && line != NULL)
        lines++;
    return lines + (scan->buffer.length > scan->used ? 1 : 0);
}

/* Reads up to the line with that head. */
static Status find_head(Scan *scan, const char *head, Error *err)
{
    bool more = true;
    TRY(begin_scan(scan, err));
    if (head[0] == '\0') return OK;
    while (strcmp(scan->head, head) != 0 && more)
        TRY(scan_line(scan, NULL, NULL, &more, err));
    if (strcmp(scan->head, head) == 0) return OK;
    return error_set(err, ERR_DATA,
                     "%s has %" PRId64 " whole lines, and none with the chain %.16s... that the "
                     "checkpoint names: it is not the ledger of this run, or its end was lost",
                     scan->path, scan->line, head);
}

/* Goes to the line with that head and cuts off what follows. */
static Status rewind_to(Scan *scan, const char *head, const LedgerMark *mark,
                        int64_t *ret_cut_lines, Error *err)
{
    if (mark == NULL || mark->bytes == 0 || !take_mark(scan, mark, head))
        TRY(find_head(scan, head, err));
    int64_t cut = count_rest(scan);
    if (cut > 0 && (ftruncate(scan->fd, (off_t)scan->mark.bytes) != 0 || fsync(scan->fd) != 0))
        return error_set_errno(err, errno, "could not cut %s back to %" PRId64 " bytes", scan->path,
                               scan->mark.bytes);
    if (ret_cut_lines != NULL) *ret_cut_lines = cut;
    return OK;
}

Status ledger_open(const char *path, const char *head, const LedgerMark *mark, Ledger **ret,
                   int64_t *ret_cut_lines, Error *err)
{
    Scan scan = {.path = path};
    scan.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (scan.fd < 0) return error_set_errno(err, errno, "could not open %s", path);
    char *folder = path_folder(path);
    Status status = file_sync_folder(folder, err);
    if (status == OK) status = rewind_to(&scan, head != NULL ? head : "", mark, ret_cut_lines, err);
    if (status == OK) {
        Ledger *ledger = mem_calloc(1, sizeof *ledger);
        ledger->path = mem_strdup(path);
        ledger->fd = scan.fd;
        ledger->mark = scan.mark;
        memcpy(ledger->head, scan.head, sizeof ledger->head);
        *ret = ledger;
    } else {
        close(scan.fd);
    }
    str_free(&scan.buffer);
    free(folder);
    return status;
}

void ledger_close(Ledger *ledger)
{
    if (ledger == NULL) return;
    close(ledger->fd);
    free(ledger->path);
    free(ledger);
}

static void check_positions(const LedgerRecord *record, const int64_t *position, int count)
{
    for (int i = 0; i < count; i++) {
        CHECK(position[i] >= record->first && position[i] < record->end);
        CHECK(i == 0 || position[i] > position[i - 1]);
    }
}

static void check_record(const Ledger *ledger, const LedgerRecord *record)
{
    CHECKF(record->step > ledger->mark.last_step && record->step <= NUMBER_MAX,
           "step %" PRId64 " after %" PRId64, record->step, ledger->mark.last_step);
    CHECK(record->first >= 0 && record->first <= record->end && record->end <= NUMBER_MAX);
    check_positions(record, record->accepted, record->num_accepted);
    check_positions(record, record->rejected, record->num_rejected);
    CHECK(record->data == NULL || strlen(record->data) < DIGEST_HEX_BYTES);
    for (int a = 0, r = 0; a < record->num_accepted && r < record->num_rejected;) {
        CHECK(record->accepted[a] != record->rejected[r]);
        if (record->accepted[a] < record->rejected[r])
            a++;
        else
            r++;
    }
}

static Status refuse_broken(const Ledger *ledger, Error *err)
{
    return error_set(err, ERR_IO,
                     "%s could not be flushed earlier: restart the run to go on from its "
                     "last checkpoint",
                     ledger->path);
}

/* The rejected positions of each reason, in the order in which reasons come. */
static void put_why(Str *line, const LedgerRecord *record)
{
    int64_t *position = mem_calloc((size_t)record->num_rejected, sizeof *position);
    bool *told = mem_calloc((size_t)record->num_rejected, sizeof *told);
    str_puts(line, ",\"why\":{");
    for (int i = 0; i < record->num_rejected; i++) {
        if (told[i]) continue;
        int count = 0;
        for (int j = i; j < record->num_rejected; j++) {
            if (told[j] || strcmp(record->why[j], record->why[i]) != 0) continue;
            told[j] = true;
            position[count++] = record->rejected[j];
        }
        if (i > 0) str_putc(line, ',');
        json_append_string(line, record->why[i]);
        str_puts(line, ":\"");
        put_ranges(line, position, count);
        str_putc(line, '"');
    }
    str_putc(line, '}');
    free(told);
    free(position);
}

static void put_parts(Str *line, const LedgerRecord *record)
{
    for (int i = 0; i < record->num_parts; i++) {
        const LedgerPart *part = &record->part[i];
        int64_t *index = mem_calloc((size_t)part->count + 1, sizeof *index);
        for (int k = 0; k < part->count; k++)
            index[k] = part->index[k];
        str_printf(line, "%s\"%" PRId64 "\":\"", i > 0 ? "," : ",\"partial\":{", part->position);
        put_ranges(line, index, part->count);
        str_puts(line, i + 1 < record->num_parts ? "\"" : "\"}");
        free(index);
    }
}

/* What the line says that those before it have not said; *standing is moved on. */
static void put_news(Str *line, const LedgerRecord *record, LedgerMark *standing)
{
    int64_t group = record->group_size > 0 ? record->group_size : 1;
    if (record->stage != standing->stage) str_printf(line, ",\"stage\":%d", record->stage);
    if (record->data != NULL && strcmp(record->data, standing->data) != 0) {
        str_puts(line, ",\"data\":");
        json_append_string(line, record->data);
        snprintf(standing->data, sizeof standing->data, "%s", record->data);
    }
    if (record->records > 0 && record->records != standing->records) {
        str_printf(line, ",\"records\":%" PRId64, record->records);
        standing->records = record->records;
    }
    if (group != standing->group_size) str_printf(line, ",\"group\":%" PRId64, group);
    standing->stage = record->stage;
    standing->group_size = group;
    standing->last_step = record->step;
}

/* Without its chain. */
static void put_record(Str *line, const LedgerRecord *record, LedgerMark *standing)
{
    str_putc(line, '{');
    if (standing->format == 0) {
        standing->format = LEDGER_FORMAT;
        str_printf(line, "\"ledger\":%d,", LEDGER_FORMAT);
    }
    str_printf(line,
               "\"step\":%" PRId64 ",\"first\":%" PRId64 ",\"end\":%" PRId64 ",\"accepted\":\"",
               record->step, record->first, record->end);
    put_ranges(line, record->accepted, record->num_accepted);
    str_puts(line, "\",\"rejected\":\"");
    put_ranges(line, record->rejected, record->num_rejected);
    str_putc(line, '"');
    if (record->why != NULL && record->num_rejected > 0) put_why(line, record);
    put_news(line, record, standing);
    put_parts(line, record);
}

Status ledger_append(Ledger *ledger, const LedgerRecord *record, Error *err)
{
    check_record(ledger, record);
    if (ledger->broken) return refuse_broken(ledger, err);
    Str line = {0};
    LedgerMark mark = ledger->mark;
    char head[DIGEST_HEX_BYTES];
    put_record(&line, record, &mark);
    chain_next(ledger->head, line.data, line.length, head);
    str_printf(&line, "%s%s%s\n", CHAIN_MEMBER, head, CHAIN_END);
    Status status = OK;
    if (line.length > LEDGER_LINE_BYTES_MAX)
        status = error_set(err, ERR_RESOURCE,
                           "step %" PRId64 " needs a ledger line of %zu bytes, the cap is %u",
                           record->step, line.length, LEDGER_LINE_BYTES_MAX);
    else
        status = lines_append(ledger->fd, line.data, line.length, ledger->path, &mark.bytes,
                              &ledger->broken, err);
    if (status == OK) {
        memcpy(ledger->head, head, sizeof head);
        ledger->mark = mark;
    }
    str_free(&line);
    return status;
}

Status ledger_sync(Ledger *ledger, Error *err)
{
    if (ledger->broken) return refuse_broken(ledger, err);
    if (fsync(ledger->fd) == 0) return OK;
    ledger->broken = true;
    return error_set_errno(err, errno, "could not flush %s", ledger->path);
}

const char *ledger_head(const Ledger *ledger)
{
    return ledger->head;
}

int64_t ledger_last_step(const Ledger *ledger)
{
    return ledger->mark.last_step;
}

const LedgerMark *ledger_mark(const Ledger *ledger)
{
    return &ledger->mark;
}
