#include "view/skipped.h"

#include "base/log.h"

#define MUCH 0.01

Skipped skipped_count(const JobView *job)
{
    Skipped skipped = {.mostly = REJECT_NONE};
    const RecordTally *tally = &job->tally;
    int64_t most = 0;
    for (int i = REJECT_NONE + 1; i < REJECT_REASON_COUNT; i++) {
        skipped.records += tally->rejected[i];
        if (tally->rejected[i] <= most) continue;
        most = tally->rejected[i];
        skipped.mostly = (RejectReason)i;
    }
    for (int i = 0; i < NOTE_COUNT; i++)
        skipped.odd += tally->noted[i];
    if (job->next_position > 0)
        skipped.share = (double)skipped.records / (double)job->next_position;
    return skipped;
}

bool skipped_is_much(const Skipped *skipped)
{
    return skipped->share > MUCH;
}

void skipped_put_share(Str *text, double share, const char *mostly)
{
    str_printf(text, "%.1f %%", 100 * share);
    if (mostly[0] != '\0') str_printf(text, ", mostly %s", mostly);
}

void skipped_log(const JobView *job)
{
    Skipped skipped = skipped_count(job);
    if (skipped_is_much(&skipped)) {
        Str text = {0};
        skipped_put_share(&text, skipped.share, reject_reason_name(skipped.mostly));
        log_event(LOG_WARN, "records_skipped", F_INT("records", skipped.records),
                  F_STR("share", str_text(&text)),
                  F_STR("why", reject_is_of_record(skipped.mostly)
                                   ? "`controller data inspect --count all` lists them"
                                   : "what makes or judges answers failed or passed them over"));
        str_free(&text);
    }
    for (int i = 0; i < NOTE_COUNT; i++)
        if (job->tally.noted[i] > 0)
            log_event(LOG_WARN, "records_odd", F_INT("records", job->tally.noted[i]),
                      F_STR("what", sample_note_name((SampleNote)i)));
}
