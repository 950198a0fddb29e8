#include "data_source/audit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"
#include "data_source/file_list.h"

#define COUNT_STAGE "stage" /* of the manifest, as the controller writes it */

const char *finding_kind_name(FindingKind kind)
{
    static const char *const names[FINDING_KIND_COUNT] = {
        [FINDING_LEDGER] = "ledger",   [FINDING_CHECKPOINT] = "checkpoint",
        [FINDING_STEPS] = "steps",     [FINDING_NEVER] = "never_consumed",
        [FINDING_TWICE] = "twice",     [FINDING_DATA] = "data",
        [FINDING_RECORDS] = "records",
    };
    return (unsigned)kind < FINDING_KIND_COUNT ? names[kind] : "unknown";
}

void audit_find(Audit *audit, AuditFinding finding, const char *format, ...)
{
    if (audit->num_findings == AUDIT_FINDINGS_MAX) {
        audit->more_findings++;
        return;
    }
    Str text = {0};
    va_list args;
    va_start(args, format);
    str_vprintf(&text, format, args);
    va_end(args);
    finding.text = str_take(&text);
    size_t count = (size_t)audit->num_findings + 1;
    audit->finding = mem_realloc(audit->finding, count, sizeof finding);
    audit->finding[audit->num_findings++] = finding;
}

void audit_tell(const Audit *audit, const char *what, int64_t done, int64_t all)
{
    if (audit->watch.progress != NULL) audit->watch.progress(audit->watch.context, what, done, all);
}

const AuditCheckpoint *audit_newest(const Audit *audit)
{
    for (int i = 0; i < audit->num_checkpoints; i++)
        if (audit->checkpoint[i].agrees) return &audit->checkpoint[i];
    return NULL;
}

int64_t audit_left(const AuditStage *stage, const AuditEpoch *epoch)
{
    return epoch->records > 0 && epoch->end > stage->end ? epoch->end - stage->end : 0;
}

bool audit_is_whole(const AuditStage *stage, const AuditEpoch *epoch)
{
    return epoch->records > 0 && epoch->end - epoch->first == epoch->records &&
           audit_left(stage, epoch) == 0;
}

static AuditData *last_data(const AuditStage *stage)
{
    return &stage->data[stage->num_data - 1];
}

const AuditData *audit_last_data(const AuditStage *stage)
{
    return last_data(stage);
}

bool audit_is_recount(const AuditStage *stage, int i)
{
    const AuditData *data = &stage->data[i];
    return i > 0 && data->fingerprint[0] != '\0' &&
           strcmp(data[-1].fingerprint, data->fingerprint) == 0;
}

int64_t audit_order_begin(const AuditStage *stage)
{
    int i = stage->num_data - 1;
    while (i > 0 && stage->data[i].same_order)
        i--;
    return stage->data[i].position;
}

/* ---- stages and epochs ---- */

static AuditStage *last_stage(const Audit *audit)
{
    return audit->num_stages > 0 ? &audit->stage[audit->num_stages - 1] : NULL;
}

static int64_t manifest_stage(const Manifest *manifest)
{
    return manifest_count(manifest, COUNT_STAGE);
}

/* What lines of before format 2 leave to the manifests. */
static int64_t records_of(const Audit *audit, const LedgerRecord *record, int number)
{
    if (record->records > 0) return record->records;
    for (int i = 0; i < audit->num_checkpoints; i++) {
        const Manifest *manifest = audit->checkpoint[i].manifest;
        if (manifest != NULL && manifest_stage(manifest) == number && manifest->records > 0)
            return manifest->records;
    }
    return 0;
}

/* The stage that a line is of. Lines of before format 2 do not say: there positions that begin
 * anew do. */
static AuditStage *stage_of(Audit *audit, const LedgerRecord *record)
{
    AuditStage *stage = last_stage(audit);
    int number = record->stage;
    if (stage != NULL && record->format < 2) {
        if (number < stage->number) number = stage->number;
        if (number == stage->number && record->first == 0 && stage->end > 0) number++;
    }
    if (stage != NULL && stage->number == number) return stage;
    size_t count = (size_t)audit->num_stages + 1;
    audit->stage = mem_realloc(audit->stage, count, sizeof *audit->stage);
    stage = &audit->stage[audit->num_stages++];
    *stage = (AuditStage){.number = number, .first_step = record->step, .all_told = true};
    return stage;
}

static AuditEpoch *epoch_of(AuditStage *stage, int64_t position, int64_t step)
{
    for (int i = stage->num_epochs - 1; i >= 0 && position < stage->epochs_end; i--)
        if (position >= stage->epoch[i].first && position < stage->epoch[i].end) {
            stage->epoch[i].last_step = step;
            return &stage->epoch[i];
        }
    const AuditData *data = last_data(stage);
    int64_t number = data->records > 0 ? position / data->records : 0;
    int64_t first = number * data->records, begin = stage->cut_at;
    if (stage->num_epochs == stage->room_for_epochs) {
        stage->room_for_epochs += stage->room_for_epochs / 4 + 16;
        stage->epoch =
            mem_realloc(stage->epoch, (size_t)stage->room_for_epochs, sizeof *stage->epoch);
    }
    AuditEpoch *epoch = &stage->epoch[stage->num_epochs++];
    *epoch =
        (AuditEpoch){.number = number,
                     .records = data->records,
                     .first = first > begin ? first : begin,
                     .end = data->records > 0 ? first + data->records : INT64_MAX,
                     .recounted = first < begin && audit_is_recount(stage, stage->num_data - 1),
                     .first_step = step,
                     .last_step = step};
    if (epoch->end > stage->epochs_end) stage->epochs_end = epoch->end;
    return epoch;
}

/* No epoch goes on behind `end`, where the last data begins. */
static void end_epochs(AuditStage *stage, int64_t end)
{
    bool recount = audit_is_recount(stage, stage->num_data - 1);
    for (int i = stage->num_epochs - 1; i >= 0 && stage->epochs_end > end; i--) {
        if (stage->epoch[i].end <= end) continue;
        stage->epoch[i].end = end;
        stage->epoch[i].recounted = recount;
    }
    stage->epochs_end = stage->cut_at = end;
}

static int reason_of(AuditStage *stage, const char *why)
{
    for (int i = 0; i < stage->num_reasons; i++)
        if (strcmp(stage->reason[i], why) == 0) return i;
    if (stage->num_reasons == AUDIT_REASONS_MAX) return AUDIT_REASONS_MAX - 1;
    stage->reason[stage->num_reasons] = mem_strdup(why);
    return stage->num_reasons++;
}

/* ---- a line ---- */

static void check_order(Audit *audit, const AuditStage *stage, const LedgerRecord *record)
{
    const AuditFinding at = {.stage = stage->number, .step = record->step};
    int64_t before = audit->summary.last_step > 0 ? audit->summary.last_step : 0;
    if (record->step != before + 1) {
        AuditFinding finding = at;
        finding.kind = FINDING_STEPS;
        audit_find(audit, finding, "step %lld follows step %lld: the lines between are not there",
                   (long long)record->step, (long long)before);
    }
    AuditFinding finding = at;
    if (record->first > stage->end) {
        finding.kind = FINDING_NEVER;
        finding.first = stage->end;
        finding.end = record->first;
        audit_find(audit, finding,
                   "positions %lld to %lld were never consumed: step %lld begins behind them",
                   (long long)stage->end, (long long)record->first - 1, (long long)record->step);
    } else if (record->first < stage->end) {
        finding.kind = FINDING_TWICE;
        finding.first = record->first;
        finding.end = record->end < stage->end ? record->end : stage->end;
        audit_find(audit, finding,
                   "positions %lld to %lld were consumed twice: step %lld begins with them again",
                   (long long)finding.first, (long long)finding.end - 1, (long long)record->step);
    }
}

/* A position of the step's stretch is one of the accepted or one of the rejected. */
static void check_stretch(Audit *audit, const AuditStage *stage, const LedgerRecord *record)
{
    AuditFinding finding = {.stage = stage->number, .step = record->step};
    int a = 0, r = 0;
    for (int64_t p = record->first; p < record->end; p++) {
        bool accepted = a < record->num_accepted && record->accepted[a] == p;
        bool rejected = r < record->num_rejected && record->rejected[r] == p;
        a += accepted;
        r += rejected;
        if (accepted != rejected) continue;
        finding.kind = accepted ? FINDING_TWICE : FINDING_NEVER;
        finding.first = p;
        finding.end = p + 1;
        audit_find(audit, finding,
                   accepted ? "position %lld was trained and rejected by step %lld"
                            : "position %lld is passed over by step %lld, neither trained nor "
                              "rejected",
                   (long long)p, (long long)record->step);
    }
}

static void list_rejected(const Audit *audit, AuditStage *stage, const LedgerRecord *record, int at,
                          int reason)
{
    if (stage->num_passed >= audit->listed_max) return;
    size_t count = (size_t)stage->num_passed + 1;
    stage->passed = mem_realloc(stage->passed, count, sizeof *stage->passed);
    stage->passed[stage->num_passed++] =
        (AuditRejected){.position = record->rejected[at],
                        .step = record->step,
                        .why = reason >= 0 ? stage->reason[reason] : NULL};
}

static void count_reason(AuditStage *stage, AuditEpoch *epoch, int reason)
{
    if (reason >= epoch->num_reasons) {
        size_t count = (size_t)reason + 1;
        epoch->rejected_for = mem_realloc(epoch->rejected_for, count, sizeof *epoch->rejected_for);
        while (epoch->num_reasons <= reason)
            epoch->rejected_for[epoch->num_reasons++] = 0;
    }
    epoch->rejected_for[reason]++;
    stage->rejected_for[reason]++;
}

static void count_positions(Audit *audit, AuditStage *stage, const LedgerRecord *record)
{
    for (int i = 0; i < record->num_accepted; i++)
        epoch_of(stage, record->accepted[i], record->step)->trained++;
    for (int i = 0; i < record->num_rejected; i++) {
        AuditEpoch *epoch = epoch_of(stage, record->rejected[i], record->step);
        int reason = record->why != NULL ? reason_of(stage, record->why[i]) : -1;
        epoch->rejected++;
        if (reason >= 0) count_reason(stage, epoch, reason);
        stage->all_told = stage->all_told && reason >= 0;
        list_rejected(audit, stage, record, i, reason);
    }
    stage->trained += record->num_accepted;
    stage->rejected += record->num_rejected;
    audit->samples += (int64_t)record->num_accepted * record->group_size;
    for (int i = 0; i < record->num_parts; i++)
        audit->samples -= record->group_size - record->part[i].count;
}

/* While records are counted an epoch has no length; once it has, it is that of all before, too. */
static void note_length(AuditStage *stage, int64_t records)
{
    AuditData *data = last_data(stage);
    if (data->records > 0 || records < stage->end) return;
    data->records = records;
    for (int i = 0; i < stage->num_epochs; i++) {
        if (stage->epoch[i].end != INT64_MAX) continue;
        stage->epoch[i].records = records;
        stage->epoch[i].end = stage->epochs_end = records;
    }
}

/* The data that its run was made with, by their lists in the index folder. */
static bool keeps_order(const Audit *audit, const AuditData *before, const AuditData *data)
{
    return before->records == data->records &&
           file_list_same_order(audit->index_folder, before->fingerprint, data->fingerprint);
}

static void note_data(const Audit *audit, AuditStage *stage, const LedgerRecord *record)
{
    const char *fingerprint = record->data != NULL ? record->data : "";
    if (stage->num_data > 0) {
        const AuditData *last = last_data(stage);
        bool is_other = fingerprint[0] != '\0' && strcmp(last->fingerprint, fingerprint) != 0;
        if (record->records > 0 && !is_other) note_length(stage, record->records);
        if (!is_other && (record->records == 0 || record->records == last->records)) return;
    }
    size_t count = (size_t)stage->num_data + 1;
    stage->data = mem_realloc(stage->data, count, sizeof *stage->data);
    AuditData *data = &stage->data[stage->num_data++];
    *data = (AuditData){.records = records_of(audit, record, stage->number),
                        .step = record->step,
                        .position = record->first};
    snprintf(data->fingerprint, sizeof data->fingerprint, "%s", fingerprint);
    bool recount = audit_is_recount(stage, stage->num_data - 1);
    data->same_order = recount || (stage->num_data > 1 && keeps_order(audit, data - 1, data));
    if (recount || !data->same_order) end_epochs(stage, record->first);
}

/* ---- checkpoints ---- */

static int64_t rejected_for(const AuditStage *stage, const char *why)
{
    int64_t sum = 0;
    for (int i = 0; i < stage->num_reasons; i++)
        if (strcmp(stage->reason[i], why) == 0) sum += stage->rejected_for[i];
    return sum;
}

static void check_count(Audit *audit, const AuditCheckpoint *checkpoint, const char *what,
                        int64_t said, int64_t counted)
{
    if (said == counted) return;
    AuditFinding finding = {.kind = FINDING_CHECKPOINT,
                            .stage = (int)manifest_stage(checkpoint->manifest),
                            .step = checkpoint->manifest->step};
    audit_find(audit, finding, "%s says %s %lld, and the ledger up to its line %lld",
               path_name(checkpoint->path), what, (long long)said, (long long)counted);
}

/* Reasons that stand for nothing else: a group's verdict may be called as a record's is. */
static void check_reasons(Audit *audit, const AuditCheckpoint *checkpoint, const AuditStage *stage)
{
    static const char prefix[] = "rejected_";
    const Manifest *manifest = checkpoint->manifest;
    for (int i = 0; i < manifest->num_counts && stage->all_told; i++) {
        const char *name = manifest->count[i].name, *why = name + sizeof prefix - 1;
        if (!str_starts_with(name, prefix) || strcmp(why, "none") == 0 ||
            strcmp(why, "nothing_to_train") == 0)
            continue;
        check_count(audit, checkpoint, name, manifest->count[i].value, rejected_for(stage, why));
    }
}

/* Its head is the chain of the line that was read last. */
static void compare(Audit *audit, AuditCheckpoint *checkpoint)
{
    const Manifest *manifest = checkpoint->manifest;
    const AuditStage *stage = last_stage(audit);
    int64_t before = audit->num_findings + audit->more_findings;
    bool entered = manifest_stage(manifest) > stage->number; /* and no step made in it */
    checkpoint->found = true;
    check_count(audit, checkpoint, "step", manifest->step, audit->summary.last_step);
    check_count(audit, checkpoint, "next_position", manifest->next_position,
                entered ? 0 : stage->end);
    check_count(audit, checkpoint, "rejected_samples", manifest->rejected_samples,
                entered ? 0 : stage->rejected);
    if (audit->summary.format >= 2)
        check_count(audit, checkpoint, "consumed_samples", manifest->consumed_samples,
                    audit->samples);
    if (!entered) {
        const AuditData *last = last_data(stage);
        const char *data = last->fingerprint;
        if (manifest->records > 0 && last->records > 0)
            check_count(audit, checkpoint, "records", manifest->records, last->records);
        check_reasons(audit, checkpoint, stage);
        if (data[0] != '\0' && strcmp(data, manifest->data_fingerprint) != 0)
            audit_find(audit,
                       (AuditFinding){.kind = FINDING_CHECKPOINT,
                                      .stage = stage->number,
                                      .step = manifest->step},
                       "%s was made with data %.16s..., its line of the ledger with %.16s...",
                       path_name(checkpoint->path), manifest->data_fingerprint, data);
    }
    checkpoint->agrees = audit->num_findings + audit->more_findings == before;
}

static void visit(void *context, const LedgerRecord *record)
{
    Audit *audit = context;
    AuditStage *stage = stage_of(audit, record);
    audit->summary.format = record->format;
    audit_tell(audit, "the ledger", record->bytes, audit->ledger_bytes);
    note_data(audit, stage, record);
    check_order(audit, stage, record);
    check_stretch(audit, stage, record);
    count_positions(audit, stage, record);
    if (record->end > stage->end) stage->end = record->end;
    stage->last_step = record->step;
    audit->summary.last_step = record->step;
    audit->summary.records++;
    for (int i = 0; i < audit->num_checkpoints; i++) {
        AuditCheckpoint *checkpoint = &audit->checkpoint[i];
        if (checkpoint->manifest != NULL &&
            strcmp(checkpoint->manifest->ledger_head, record->chain) == 0)
            compare(audit, checkpoint);
    }
}

/* ---- the whole ---- */

static Status add_checkpoint(Audit *audit, const char *path)
{
    Error err = {0};
    AuditCheckpoint checkpoint = {.path = mem_strdup(path)};
    Status status = checkpoint_verify(path, false, &checkpoint.manifest, &err);
    if (status != OK) checkpoint.why = mem_strdup(err.message);
    size_t count = (size_t)audit->num_checkpoints + 1;
    audit->checkpoint = mem_realloc(audit->checkpoint, count, sizeof checkpoint);
    audit->checkpoint[audit->num_checkpoints++] = checkpoint;
    return status;
}

static Status take_checkpoints(Audit *audit, const AuditOptions *options, Error *err)
{
    if (options->checkpoint != NULL) {
        Status status = add_checkpoint(audit, options->checkpoint);
        if (status != OK) error_set(err, status, "%s", audit->checkpoint[0].why);
        return status;
    }
    StringList paths = {0};
    char *root = path_join(options->run, "checkpoints");
    Status status = checkpoint_list(root, &paths, err);
    for (int i = 0; i < paths.count && status == OK; i++)
        (void)add_checkpoint(audit, paths.item[i]);
    string_list_free(&paths);
    free(root);
    return status;
}

/* What a chain alone cannot show: a checkpoint whose line is not there. */
static void find_strangers(Audit *audit)
{
    for (int i = 0; i < audit->num_checkpoints; i++) {
        const AuditCheckpoint *checkpoint = &audit->checkpoint[i];
        if (checkpoint->manifest == NULL || checkpoint->found) continue;
        AuditFinding finding = {.kind = FINDING_CHECKPOINT,
                                .stage = (int)manifest_stage(checkpoint->manifest),
                                .step = checkpoint->manifest->step};
        audit_find(audit, finding,
                   "%s names the line %.16s..., which the ledger does not have: it was cut, or "
                   "written anew, or is another run's",
                   path_name(checkpoint->path), checkpoint->manifest->ledger_head);
    }
}

/* Counted from another side than check_order does. */
static void check_epochs(Audit *audit, const AuditStage *stage)
{
    for (int i = 0; i < stage->num_epochs; i++) {
        const AuditEpoch *epoch = &stage->epoch[i];
        int64_t consumed = epoch->trained + epoch->rejected;
        int64_t end = epoch->end < stage->end ? epoch->end : stage->end;
        int64_t wanted = end - epoch->first;
        if (epoch->records == 0 || consumed == wanted || audit->num_findings > 0) continue;
        AuditFinding finding = {.kind = consumed < wanted ? FINDING_NEVER : FINDING_TWICE,
                                .stage = stage->number,
                                .step = epoch->last_step,
                                .first = epoch->first,
                                .end = end};
        audit_find(audit, finding, "epoch %lld has %lld consumed positions, expected %lld",
                   (long long)epoch->number, (long long)consumed, (long long)wanted);
    }
}

Status audit_run(const AuditOptions *options, Audit *ret, Error *err)
{
    *ret = (Audit){
        .listed_max = options->listed_max, .watch = options->watch, .summary = {.last_step = -1}};
    struct stat info;
    ret->ledger = path_join(options->run, "ledger.jsonl");
    ret->index_folder = path_join(options->run, "index");
    if (stat(ret->ledger, &info) != 0)
        return error_set(err, ERR_NOT_FOUND,
                         "%s is not there: expected the folder of a run that has made a step",
                         ret->ledger);
    ret->ledger_bytes = info.st_size;
    TRY(take_checkpoints(ret, options, err));
    LedgerSummary summary;
    Error why = {0};
    Status status = ledger_read(ret->ledger, visit, ret, &summary, &why);
    ret->whole = status == OK;
    if (status == OK)
        ret->summary = summary;
    else if (status != ERR_DATA)
        return error_set(err, status, "%s", why.message);
    else
        audit_find(ret, (AuditFinding){.kind = FINDING_LEDGER, .step = ret->summary.last_step},
                   "%s", why.message);
    find_strangers(ret);
    for (int i = 0; i < ret->num_stages; i++)
        check_epochs(ret, &ret->stage[i]);
    return OK;
}

static void clear_stage(AuditStage *stage)
{
    for (int i = 0; i < stage->num_passed; i++)
        free(stage->passed[i].source);
    for (int i = 0; i < stage->num_reasons; i++)
        free(stage->reason[i]);
    for (int i = 0; i < stage->num_epochs; i++)
        free(stage->epoch[i].rejected_for);
    free(stage->not_mapped);
    free(stage->passed);
    free(stage->epoch);
    free(stage->data);
}

void audit_clear(Audit *audit)
{
    for (int i = 0; i < audit->num_stages; i++)
        clear_stage(&audit->stage[i]);
    for (int i = 0; i < audit->num_checkpoints; i++) {
        manifest_destroy(audit->checkpoint[i].manifest);
        free(audit->checkpoint[i].path);
        free(audit->checkpoint[i].why);
    }
    for (int i = 0; i < audit->num_findings; i++)
        free(audit->finding[i].text);
    free(audit->stage);
    free(audit->checkpoint);
    free(audit->finding);
    free(audit->index_folder);
    free(audit->ledger);
    *audit = (Audit){0};
}
