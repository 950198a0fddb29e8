#include "data_source/audit_view.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/plural.h"
#include "sample/group.h"

#define EPOCHS_SHOWN 12 /* the first and the last ones */

/* 1234567 as 1,234,567; of calls in one expression each has its own. */
static const char *grouped(int64_t value, char buffer[32])
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)value), out = 0;
    for (int i = 0; i < length; i++) {
        buffer[out++] = digits[i];
        if (digits[i] != '-' && i + 1 < length && (length - 1 - i) % 3 == 0) buffer[out++] = ',';
    }
    buffer[out] = '\0';
    return buffer;
}
#define NUMBER(value) grouped((value), (char[32]){0})

static const char no_step[] = "no step is in the ledger yet";

static int64_t consumed(const AuditEpoch *epoch)
{
    return epoch->trained + epoch->rejected;
}

/* ---- for people ---- */

static void put_ledger(const Audit *audit, Str *out)
{
    const AuditCheckpoint *newest = audit_newest(audit);
    str_printf(out, "ledger    %s: %s steps", audit->ledger, NUMBER(audit->summary.records));
    if (audit->whole)
        str_printf(out, ", chain whole, head %.16s...\n", audit->summary.head);
    else
        str_puts(out, " up to where it is damaged\n");
    if (audit->summary.torn_bytes > 0)
        str_printf(out,
                   "          an unfinished line of %s bytes behind them: a kill, or a write "
                   "that goes on now\n",
                   NUMBER(audit->summary.torn_bytes));
    int agree = 0, read = 0;
    for (int i = 0; i < audit->num_checkpoints; i++) {
        const AuditCheckpoint *checkpoint = &audit->checkpoint[i];
        agree += checkpoint->agrees;
        read += checkpoint->manifest != NULL;
        if (checkpoint->why != NULL)
            str_printf(out, "          %s says nothing: %s\n", path_name(checkpoint->path),
                       checkpoint->why);
    }
    if (newest == NULL) {
        str_puts(out, "          no checkpoint names its head: nothing proves where it ends\n");
        return;
    }
    str_printf(out, "          %d of %d checkpoint%s agree%s; the newest, %s, stands for %s steps",
               agree, read, plural(read), agree == 1 ? "s" : "", path_name(newest->path),
               NUMBER(newest->manifest->step));
    int64_t behind = audit->summary.last_step - newest->manifest->step;
    if (behind > 0) str_printf(out, "; %s behind it, which a resume makes again", NUMBER(behind));
    str_putc(out, '\n');
}

static void put_reasons(const AuditStage *stage, const AuditEpoch *epoch, Str *out)
{
    const char *before = " (";
    for (int i = 0; i < epoch->num_reasons; i++) {
        if (epoch->rejected_for[i] == 0) continue;
        str_printf(out, "%s%s %s", before, stage->reason[i], NUMBER(epoch->rejected_for[i]));
        before = ", ";
    }
    if (before[0] == ',') str_putc(out, ')');
}

static void put_epoch(const AuditStage *stage, const AuditEpoch *epoch, Str *out)
{
    str_printf(out, "epoch %-3lld ", (long long)epoch->number);
    if (epoch->records > 0)
        str_printf(out, "%s of %s %s consumed, ", NUMBER(consumed(epoch)), NUMBER(epoch->records),
                   stage->counted > 0 ? "positions" : "records");
    else
        str_puts(out, "of unknown length: ");
    str_printf(out, "%s trained", NUMBER(epoch->trained));
    if (epoch->rejected > 0) {
        str_printf(out, ", %s rejected", NUMBER(epoch->rejected));
        put_reasons(stage, epoch, out);
    }
    str_printf(out, "; steps %lld to %lld", (long long)epoch->first_step,
               (long long)epoch->last_step);
    int64_t left = audit_left(stage, epoch);
    if (left > 0)
        str_printf(out, "; %s not consumed: the run stands at position %s", NUMBER(left),
                   NUMBER(stage->end));
    else if (epoch->records > 0 && !audit_is_whole(stage, epoch))
        str_puts(out, epoch->recounted ? "; cut: the epoch length changed within it"
                                       : "; the data changed within it");
    str_putc(out, '\n');
}

static void put_recount(const AuditData *data, Str *out)
{
    str_puts(out, "          epoch length ");
    if (data[-1].records > 0) str_printf(out, "changed from %s to ", NUMBER(data[-1].records));
    str_printf(out,
               "%s%s at position %s (step %lld); the data is the same\n"
               "          from there on epochs are numbered by it, as epoch_id in metrics.jsonl: "
               "position %s is of epoch %s\n",
               NUMBER(data->records), data[-1].records > 0 ? "" : " is known",
               NUMBER(data->position), (long long)data->step, NUMBER(data->position),
               NUMBER(data->position / data->records));
}

static void put_data(const AuditStage *stage, Str *out)
{
    for (int i = 0; i < stage->num_data; i++) {
        const AuditData *data = &stage->data[i];
        if (data->fingerprint[0] == '\0') continue;
        if (audit_is_recount(stage, i)) {
            put_recount(data, out);
            continue;
        }
        str_printf(out, i == 0 ? "data      fingerprint %.16s..." : "          %.16s...",
                   data->fingerprint);
        if (i > 0)
            str_printf(out, " from position %s on (step %lld): changed, and accepted%s",
                       NUMBER(data->position), (long long)data->step,
                       data->same_order ? "; the order is the same" : "");
        str_putc(out, '\n');
    }
    if (stage->mapped)
        str_printf(out,
                   "          at hand: the positions of each epoch %sare one for each record\n",
                   audit_order_begin(stage) > 0 ? "since its last change " : "");
    if (stage->counted > 0)
        str_printf(out,
                   "          it has %s records: the epochs below are of data.num_samples, not "
                   "of these\n",
                   NUMBER(stage->counted));
    if (stage->not_mapped != NULL)
        str_printf(out, "          not looked at: %s\n", stage->not_mapped);
}

static void put_rejected(const AuditStage *stage, Str *out)
{
    for (int i = 0; i < stage->num_passed; i++) {
        const AuditRejected *one = &stage->passed[i];
        str_printf(out, "rejected  position %s (step %lld): %s", NUMBER(one->position),
                   (long long)one->step, one->why != NULL ? one->why : "reason not told");
        if (one->source != NULL) str_printf(out, ", %s", one->source);
        str_putc(out, '\n');
    }
    if (stage->rejected > stage->num_passed && stage->num_passed > 0)
        str_printf(out, "          and %s more\n", NUMBER(stage->rejected - stage->num_passed));
}

static void put_stage(const Audit *audit, const AuditStage *stage, Str *out)
{
    if (audit->num_stages > 1)
        str_printf(out, "stage %d   steps %lld to %lld\n", stage->number + 1,
                   (long long)stage->first_step, (long long)stage->last_step);
    put_data(stage, out);
    for (int i = 0; i < stage->num_epochs; i++) {
        bool shown = i < EPOCHS_SHOWN / 2 || i >= stage->num_epochs - EPOCHS_SHOWN / 2;
        if (shown) put_epoch(stage, &stage->epoch[i], out);
        if (!shown && i == EPOCHS_SHOWN / 2)
            str_printf(out, "          and %d epoch%s between: --json has them\n",
                       stage->num_epochs - EPOCHS_SHOWN, plural(stage->num_epochs - EPOCHS_SHOWN));
    }
    put_rejected(stage, out);
}

static void put_findings(const Audit *audit, Str *out)
{
    for (int i = 0; i < audit->num_findings && i < audit->listed_max; i++) {
        const AuditFinding *finding = &audit->finding[i];
        str_printf(out, "EXCEPTION %s", finding->text);
        if (audit->num_stages > 1 && finding->kind != FINDING_LEDGER)
            str_printf(out, " (stage %d)", finding->stage + 1);
        str_putc(out, '\n');
    }
    int64_t more = audit->num_findings + audit->more_findings - audit->listed_max;
    if (more > 0) str_printf(out, "          and %s more\n", NUMBER(more));
}

/* Epochs of which nothing is left; of them *ret_before are of data that changed since. */
static int64_t whole_epochs(const Audit *audit, int64_t *ret_before)
{
    int64_t whole = 0;
    *ret_before = 0;
    for (int i = 0; i < audit->num_stages; i++) {
        const AuditStage *stage = &audit->stage[i];
        if (stage->counted > 0) {
            whole += stage->end / stage->counted;
            continue;
        }
        for (int e = 0; e < stage->num_epochs; e++) {
            if (!audit_is_whole(stage, &stage->epoch[e])) continue;
            whole++;
            *ret_before += stage->epoch[e].first < audit_order_begin(stage);
        }
    }
    return whole;
}

/* Of `whole` epochs; or of passes over the records at hand, which are not as many as the job says
 * that an epoch has. */
static void put_proven(Str *out, const char *what, bool passes, int64_t whole)
{
    const char *of = passes ? "pass" : "epoch", *ending = passes ? "es" : "s";
    const char *over = passes ? " over the data at hand" : "";
    if (whole > 0)
        str_printf(out,
                   "verdict   each %s of %s whole %s%s%s was consumed exactly once, and none "
                   "twice in one that is not whole\n",
                   what, NUMBER(whole), of, whole == 1 ? "" : ending, over);
    else
        str_printf(out, "verdict   no %s%s is whole yet, and no %s was consumed twice in one\n", of,
                   over, what);
}

/* Consumed is not trained. */
static void put_untrained(const Audit *audit, Str *out)
{
    int64_t rejected = 0, dropped = 0;
    for (int i = 0; i < audit->num_stages; i++) {
        const AuditStage *stage = &audit->stage[i];
        rejected += stage->rejected;
        for (int r = 0; r < stage->num_reasons; r++)
            if (strcmp(stage->reason[r], group_verdict_name(GROUP_REMAINDER)) == 0)
                dropped += stage->rejected_for[r];
    }
    if (rejected == 0) return;
    str_puts(out, "          of all consumed, not trained: ");
    if (dropped > 0)
        str_printf(out, "%s dropped at the end of an epoch%s", NUMBER(dropped),
                   rejected > dropped ? ", " : "");
    if (rejected > dropped) str_printf(out, "%s rejected", NUMBER(rejected - dropped));
    str_putc(out, '\n');
}

static void put_verdict(const Audit *audit, Str *out)
{
    int64_t exceptions = audit->num_findings + audit->more_findings, before = 0;
    int64_t whole = whole_epochs(audit, &before);
    bool mapped = true, changed = false, passes = false;
    for (int i = 0; i < audit->num_stages; i++) {
        mapped = mapped && audit->stage[i].mapped;
        changed = changed || audit_order_begin(&audit->stage[i]) > 0;
        passes = passes || audit->stage[i].counted > 0;
    }
    if (exceptions > 0) {
        str_printf(out, "verdict   NOT proven: %s exception%s\n", NUMBER(exceptions),
                   plural(exceptions));
        return;
    }
    if (audit->num_stages == 0) {
        str_printf(out, "verdict   nothing is proven: %s\n", no_step);
        return;
    }
    put_proven(out, mapped ? "record" : "position", passes, mapped ? whole - before : whole);
    if (mapped && changed)
        str_printf(out,
                   "          since the data changed; before, %s whole epoch%s and the positions "
                   "of all others were consumed once: which records they stood for, the data at "
                   "hand cannot tell\n",
                   NUMBER(before), plural(before));
    if (!mapped)
        str_puts(out, "          that positions and records are one to one was not looked at: it "
                      "takes the data (--data)\n");
    put_untrained(audit, out);
}

void audit_view(const Audit *audit, Str *out)
{
    put_ledger(audit, out);
    for (int i = 0; i < audit->num_stages; i++)
        put_stage(audit, &audit->stage[i], out);
    put_findings(audit, out);
    put_verdict(audit, out);
}

/* ---- for programs ---- */

static void add_text(cJSON *object, const char *key, const char *text)
{
    if (text != NULL)
        cJSON_AddStringToObject(object, key, text);
    else
        cJSON_AddNullToObject(object, key);
}

static void add_number(cJSON *object, const char *key, int64_t value)
{
    cJSON_AddNumberToObject(object, key, (double)value);
}

static void add_epoch(cJSON *list, const AuditStage *stage, const AuditEpoch *epoch)
{
    cJSON *object = cJSON_CreateObject();
    add_number(object, "epoch", epoch->number);
    add_number(object, "consumed", consumed(epoch));
    add_number(object, "trained", epoch->trained);
    add_number(object, "rejected", epoch->rejected);
    cJSON *reasons = cJSON_AddObjectToObject(object, "reasons");
    for (int i = 0; i < stage->num_reasons; i++)
        add_number(reasons, stage->reason[i], i < epoch->num_reasons ? epoch->rejected_for[i] : 0);
    add_number(object, "records", epoch->records);
    add_number(object, "first", epoch->first);
    cJSON_AddBoolToObject(object, "whole", audit_is_whole(stage, epoch));
    add_number(object, "left", audit_left(stage, epoch));
    add_number(object, "first_step", epoch->first_step);
    add_number(object, "last_step", epoch->last_step);
    cJSON_AddItemToArray(list, object);
}

static void add_stage(cJSON *list, const AuditStage *stage)
{
    cJSON *object = cJSON_CreateObject();
    add_number(object, "stage", stage->number);
    add_number(object, "records", audit_last_data(stage)->records);
    add_number(object, "position", stage->end);
    add_number(object, "trained", stage->trained);
    add_number(object, "rejected", stage->rejected);
    add_number(object, "counted", stage->counted);
    cJSON_AddBoolToObject(object, "mapped", stage->mapped);
    add_text(object, "not_mapped", stage->not_mapped);
    cJSON *data = cJSON_AddArrayToObject(object, "data");
    for (int i = 0; i < stage->num_data; i++) {
        cJSON *one = cJSON_CreateObject();
        add_text(one, "fingerprint", stage->data[i].fingerprint);
        add_number(one, "records", stage->data[i].records);
        add_number(one, "step", stage->data[i].step);
        add_number(one, "position", stage->data[i].position);
        cJSON_AddBoolToObject(one, "same_order", stage->data[i].same_order);
        cJSON_AddItemToArray(data, one);
    }
    cJSON *epochs = cJSON_AddArrayToObject(object, "epochs");
    for (int i = 0; i < stage->num_epochs; i++)
        add_epoch(epochs, stage, &stage->epoch[i]);
    cJSON *rejected = cJSON_AddArrayToObject(object, "first_rejected");
    for (int i = 0; i < stage->num_passed; i++) {
        cJSON *one = cJSON_CreateObject();
        add_number(one, "position", stage->passed[i].position);
        add_number(one, "step", stage->passed[i].step);
        add_text(one, "why", stage->passed[i].why);
        add_text(one, "source", stage->passed[i].source);
        cJSON_AddItemToArray(rejected, one);
    }
    cJSON_AddItemToArray(list, object);
}

static void add_checkpoints(cJSON *root, const Audit *audit)
{
    cJSON *list = cJSON_AddArrayToObject(root, "checkpoints");
    for (int i = 0; i < audit->num_checkpoints; i++) {
        const AuditCheckpoint *checkpoint = &audit->checkpoint[i];
        cJSON *object = cJSON_CreateObject();
        add_text(object, "path", checkpoint->path);
        add_number(object, "step", checkpoint->manifest != NULL ? checkpoint->manifest->step : -1);
        cJSON_AddBoolToObject(object, "agrees", checkpoint->agrees);
        add_text(object, "unreadable", checkpoint->why);
        cJSON_AddItemToArray(list, object);
    }
}

static void add_findings(cJSON *root, const Audit *audit)
{
    cJSON *list = cJSON_AddArrayToObject(root, "findings");
    for (int i = 0; i < audit->num_findings; i++) {
        const AuditFinding *finding = &audit->finding[i];
        cJSON *object = cJSON_CreateObject();
        add_text(object, "kind", finding_kind_name(finding->kind));
        add_number(object, "stage", finding->stage);
        add_number(object, "step", finding->step);
        add_number(object, "first", finding->first);
        add_number(object, "end", finding->end);
        add_text(object, "message", finding->text);
        cJSON_AddItemToArray(list, object);
    }
}

void audit_view_json(const Audit *audit, Str *out)
{
    cJSON *root = cJSON_CreateObject();
    if (audit->num_findings == 0 && audit->num_stages == 0)
        cJSON_AddNullToObject(root, "exactly_once");
    else
        cJSON_AddBoolToObject(root, "exactly_once", audit->num_findings == 0);
    add_text(root, "nothing_proven", audit->num_stages == 0 ? no_step : NULL);
    add_number(root, "exceptions", audit->num_findings + audit->more_findings);
    int64_t before = 0;
    add_number(root, "whole_epochs", whole_epochs(audit, &before));
    add_number(root, "whole_epochs_of_data_before", before);
    add_text(root, "ledger", audit->ledger);
    add_number(root, "format", audit->summary.format);
    add_number(root, "steps", audit->summary.records);
    add_number(root, "last_step", audit->summary.last_step);
    add_text(root, "head", audit->whole ? audit->summary.head : NULL);
    add_number(root, "torn_bytes", audit->summary.torn_bytes);
    add_number(root, "samples", audit->samples);
    add_checkpoints(root, audit);
    cJSON *stages = cJSON_AddArrayToObject(root, "stages");
    for (int i = 0; i < audit->num_stages; i++)
        add_stage(stages, &audit->stage[i]);
    add_findings(root, audit);
    char *text = cJSON_PrintUnformatted(root);
    CHECK(text != NULL);
    str_puts(out, text);
    str_putc(out, '\n');
    cJSON_free(text);
    cJSON_Delete(root);
}
