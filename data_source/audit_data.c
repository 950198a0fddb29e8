#include "data_source/audit_data.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "dataset/stream.h"

static Status open_stream(const JobConfig *config, Stream **ret, Error *err)
{
    char *index = path_join(config->run_dir, "index");
    char *hub_commits = path_join(config->run_dir, DATASET_HUB_COMMITS);
    DatasetHub hub = {.commits = hub_commits, .bytes_max = (int64_t)(config->data.cache_gb * 1e9)};
    StreamOptions options = {
        .key = "data.train",
        .path = (const char *const *)config->data.train.item,
        .num_paths = config->data.train.count,
        .index_folder = index,
        .index_read_only = true,
        .order = job_data_order(config),
        .seed = (uint64_t)config->seed,
        .hub = &hub,
    };
    Status status = stream_open(&options, ret, err);
    free(index);
    free(hub_commits);
    return status;
}

/* Whether it is the data that the ledger names last; it has so many records. */
static bool is_same(Audit *audit, AuditStage *stage, const Stream *stream, int64_t records)
{
    char now[DIGEST_HEX_BYTES];
    const AuditData *last = stage->num_data > 0 ? &stage->data[stage->num_data - 1] : NULL;
    AuditFinding finding = {.kind = FINDING_DATA, .stage = stage->number, .step = -1};
    stream_fingerprint(stream, now);
    if (last != NULL && strcmp(last->fingerprint, now) != 0) {
        finding.step = last->step;
        audit_find(audit, finding,
                   "the data at hand has the fingerprint %.16s..., the run was made with %.16s...: "
                   "its files, their order or the seed changed since",
                   now, last->fingerprint);
        return false;
    }
    if (stage->records == 0) stage->records = records;
    if (stage->records == records) return true;
    audit_find(audit, finding, "the data at hand has %lld records, the ledger counts %lld an epoch",
               (long long)records, (long long)stage->records);
    return false;
}

/* The records of one epoch that were met. */
typedef struct Seen {
    uint8_t *bit; /* [records / 8] */
    uint64_t records, count;
} Seen;

static bool see(Seen *seen, uint64_t index)
{
    uint8_t mask = (uint8_t)(1u << index % 8);
    if (index >= seen->records || (seen->bit[index / 8] & mask) != 0) return false;
    seen->bit[index / 8] |= mask;
    seen->count++;
    return true;
}

/* Goes through the positions of one epoch below `end`. */
static Status map_epoch(Audit *audit, const AuditStage *stage, StreamReader *reader, Seen *seen,
                        const AuditEpoch *epoch, Error *err)
{
    AuditFinding finding = {
        .kind = FINDING_RECORDS, .stage = stage->number, .step = epoch->last_step};
    int64_t first = epoch->number * stage->records, end = first + stage->records;
    if (end > stage->end) end = stage->end;
    memset(seen->bit, 0, (size_t)(seen->records / 8 + 1));
    seen->count = 0;
    for (int64_t p = first; p < end; p++) {
        StreamPlace place;
        uint64_t index;
        TRY(stream_place(reader, (uint64_t)p, &place, err));
        TRY(stream_index(reader, &place, &index, err));
        if (place.epoch == (uint64_t)epoch->number && see(seen, index)) continue;
        finding.first = p;
        finding.end = p + 1;
        audit_find(audit, finding,
                   "position %lld of epoch %lld stands for record %llu of epoch %llu, which "
                   "another position of it stands for, too",
                   (long long)p, (long long)epoch->number, (unsigned long long)index,
                   (unsigned long long)place.epoch);
    }
    finding.first = first;
    finding.end = end;
    if ((int64_t)seen->count != end - first)
        audit_find(audit, finding, "epoch %lld has %lld positions and %llu records",
                   (long long)epoch->number, (long long)(end - first),
                   (unsigned long long)seen->count);
    return OK;
}

static Status name_rejected(AuditStage *stage, StreamReader *reader, Error *err)
{
    Str text = {0};
    Status status = OK;
    for (int i = 0; i < stage->num_passed && status == OK; i++) {
        StreamRecord record;
        str_clear(&text);
        status = stream_read(reader, (uint64_t)stage->passed[i].position, &text, &record, err);
        if (status == ERR_DATA) status = OK; /* that is what is wrong with it */
        if (status == OK) stage->passed[i].source = record_source_text(&record.source);
    }
    str_free(&text);
    return status;
}

Status audit_records(Audit *audit, AuditStage *stage, const JobConfig *config, Error *err)
{
    Stream *stream = NULL;
    StreamReader *reader = NULL;
    Seen seen = {0};
    Error why = {0};
    Status status = open_stream(config, &stream, &why);
    if (status == OK) status = stream_count(stream, &seen.records, &why);
    if (status != OK || !is_same(audit, stage, stream, (int64_t)seen.records)) goto done;
    reader = stream_reader_open(stream);
    seen.bit = mem_alloc((size_t)(seen.records / 8 + 1));
    for (int i = 0; i < stage->num_epochs && status == OK; i++)
        status = map_epoch(audit, stage, reader, &seen, &stage->epoch[i], &why);
    stage->mapped = status == OK;
    if (status == OK) status = name_rejected(stage, reader, &why);
done:
    free(seen.bit);
    stream_reader_close(reader);
    stream_close(stream);
    if (status == OK) return OK;
    free(stage->not_mapped);
    stage->not_mapped = mem_strdup(why.message);
    return error_set(err, status, "%s", why.message);
}
