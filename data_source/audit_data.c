#include "data_source/audit_data.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "job_data/job_data.h"

#define TELL_EVERY 4096 /* positions */

/* Epochs of any length but this were counted of what is at hand. */
static bool was_counted_otherwise(const AuditStage *stage, int64_t records)
{
    bool other = false;
    for (int i = 0; i < stage->num_data; i++)
        other = other || (stage->data[i].records > 0 && stage->data[i].records != records);
    return other && audit_order_begin(stage) == 0;
}

/* Whether it is the data that the ledger names last; an epoch of it has so many records, or those
 * that the job said when none were counted yet. */
static bool is_same(Audit *audit, AuditStage *stage, const Mixture *mixture, int64_t said)
{
    char now[DIGEST_HEX_BYTES];
    AuditData *last = &stage->data[stage->num_data - 1];
    int64_t records = (int64_t)mixture_records(mixture);
    AuditFinding finding = {.kind = FINDING_DATA, .stage = stage->number, .step = -1};
    mixture_fingerprint(mixture, now);
    if (last->fingerprint[0] != '\0' && strcmp(last->fingerprint, now) != 0) {
        finding.step = last->step;
        audit_find(audit, finding,
                   "the data at hand has the fingerprint %.16s..., the run was made with %.16s...: "
                   "its files, their order, the sources' weights or the seed changed since",
                   now, last->fingerprint);
        return false;
    }
    if (last->records == 0) last->records = records;
    bool otherwise = was_counted_otherwise(stage, records);
    if (last->records == records || (last->records == said && otherwise)) {
        if (otherwise) stage->counted = records;
        return true;
    }
    audit_find(audit, finding, "the data at hand has %lld records, the ledger counts %lld an epoch",
               (long long)records, (long long)last->records);
    return false;
}

/* The records of one pass over a source that were met. */
typedef struct Seen {
    uint8_t *bit;     /* [records / 8]; NULL: a reader of the user's, which has no numbers */
    uint64_t records; /* of a pass */
    uint64_t pass, count;
    bool began; /* pass is one that was met ... */
    bool whole; /* ... from its beginning on */
} Seen;

static void open_seen(const Mixture *mixture, bool from_start, Seen *ret)
{
    for (int i = 0; i < mixture_num_sources(mixture); i++) {
        ret[i].whole = ret[i].began = from_start;
        if (mixture_source_dataset(mixture, i) == NULL) continue;
        ret[i].records = mixture_source_records(mixture, i);
        ret[i].bit = mem_calloc((size_t)(ret[i].records / 8 + 1), 1);
    }
}

/* Each pass is gone through to its end before the next begins, with every record once. */
static bool see(Seen *seen, uint64_t pass, uint64_t index)
{
    if (!seen->began) {
        seen->began = true;
        seen->pass = pass;
    }
    if (pass == seen->pass + 1 && (seen->count == seen->records || !seen->whole)) {
        memset(seen->bit, 0, (size_t)(seen->records / 8 + 1));
        seen->pass = pass;
        seen->count = 0;
        seen->whole = true;
    }
    uint8_t mask = (uint8_t)(1u << index % 8);
    if (pass != seen->pass || index >= seen->records || (seen->bit[index / 8] & mask) != 0)
        return false;
    seen->bit[index / 8] |= mask;
    seen->count++;
    return true;
}

/* Goes through all positions that are consumed and stand for this data. */
static Status map_positions(Audit *audit, const AuditStage *stage, const Mixture *mixture,
                            MixtureReader *reader, Error *err)
{
    Seen seen[INTERLEAVE_SOURCES_MAX] = {{0}};
    Status status = OK;
    AuditFinding finding = {.kind = FINDING_RECORDS, .stage = stage->number, .step = -1};
    int64_t first = audit_order_begin(stage);
    open_seen(mixture, first == 0, seen);
    for (int64_t p = first; p < stage->end && status == OK; p++) {
        MixtureRecord at;
        uint64_t index = 0;
        if (p % TELL_EVERY == 0) audit_tell(audit, "the positions", p - first, stage->end - first);
        status = mixture_place(reader, (uint64_t)p, &at, err);
        if (status == OK) status = mixture_index(reader, &at, &index, err);
        if (status != OK || seen[at.source].bit == NULL || see(&seen[at.source], at.pass, index))
            continue;
        finding.first = p;
        finding.end = p + 1;
        audit_find(audit, finding,
                   "position %lld stands for record %llu of %s in pass %llu, which another "
                   "position of it stands for, too, or while others of the pass before were left",
                   (long long)p, (unsigned long long)index, mixture_source_name(mixture, at.source),
                   (unsigned long long)at.pass);
    }
    for (int i = 0; i < mixture_num_sources(mixture); i++)
        free(seen[i].bit);
    return status;
}

static Status name_rejected(AuditStage *stage, MixtureReader *reader, Error *err)
{
    Str text = {0}, place = {0};
    Status status = OK;
    for (int i = 0; i < stage->num_passed && status == OK; i++) {
        if (stage->passed[i].position < audit_order_begin(stage)) continue;
        MixtureRecord record;
        uint64_t position = (uint64_t)stage->passed[i].position;
        str_clear(&text);
        status = mixture_read(reader, position, &text, &place, &record, err);
        if (status == OK) stage->passed[i].source = str_take(&place);
    }
    str_free(&place);
    str_free(&text);
    return status;
}

Status audit_records(Audit *audit, AuditStage *stage, const JobConfig *config, Error *err)
{
    JobDataOptions options = {.config = config, .look_only = true};
    Mixture *mixture = NULL;
    MixtureReader *reader = NULL;
    Error why = {0};
    Status status = job_data_open(&options, &mixture, &why);
    if (status == OK) status = mixture_count(mixture, &why);
    if (status != OK || !is_same(audit, stage, mixture, config->data.num_samples)) goto done;
    reader = mixture_reader_open(mixture);
    status = map_positions(audit, stage, mixture, reader, &why);
    stage->mapped = status == OK;
    if (status == OK) status = name_rejected(stage, reader, &why);
done:
    mixture_reader_close(reader);
    mixture_close(mixture);
    if (status == OK) return OK;
    free(stage->not_mapped);
    stage->not_mapped = mem_strdup(why.message);
    return error_set(err, status, "%s", why.message);
}
