/* The remainder of an epoch, with data.remainder: drop. A batch is of one epoch; positions at its
 * end that do not fill one are consumed untrained. Which they are follows from positions, lengths
 * of epochs and verdicts alone, so it is the same after a kill, and for any number of workers:
 *
 * - behind a plan stand fewer than a batch: they belong to its step, and nobody makes them
 * - enough stood there, but too many of them were rejected: what was accepted belongs to the step
 *   that begins with the next epoch, as its verdicts had to be waited for */
#include "core/core.h"

bool remainder_is_dropped(const Controller *c)
{
    return c->config->data.remainder == REMAINDER_DROP;
}

static int64_t end_of_epoch(const Stream *stream, int64_t position)
{
    return (position / stream->records + 1) * stream->records;
}

/* That of the data is known, and there is one to be kept. */
static bool is_kept(const Controller *c, const Stream *stream)
{
    return remainder_is_dropped(c) && stream->set == SET_TRAIN && stream->records > 0 &&
           stream->records < RECORDS_UNKNOWN;
}

bool remainder_check(Controller *c, int64_t records)
{
    int64_t batch = job_groups_per_batch(c);
    if (!remainder_is_dropped(c)) return true;
    if (records == RECORDS_UNKNOWN)
        core_finish(c, ERR_INVALID,
                    "data.remainder is drop, but a reader of the training data does not say how "
                    "many records an epoch has.\n"
                    "Write data.remainder: wrap, or give the reader its num_records.");
    else if (records < batch)
        core_finish(c, ERR_INVALID,
                    "a batch takes %lld records, but an epoch has %lld, and data.remainder is "
                    "drop: nothing would be trained.\n"
                    "Use a smaller batch, more data, or data.remainder: wrap.",
                    (long long)batch, (long long)records);
    else
        return true;
    return false;
}

int64_t remainder_positions(const Controller *c, int64_t steps)
{
    int64_t batch = job_groups_per_batch(c), records = c->lane[SET_TRAIN].stream.records;
    if (!is_kept(c, &c->lane[SET_TRAIN].stream)) return steps * batch;
    int64_t of_epoch = records / batch;
    return steps / of_epoch * records + steps % of_epoch * batch;
}

/* Positions of [first, end) that are accepted or may be yet; no more than `enough` are counted. */
static int64_t count_hopeful(const Stream *stream, int64_t first, int64_t end, int64_t enough)
{
    int64_t count = 0;
    for (int64_t p = first; p < end && count < enough; p++) {
        const Slot *slot = stream_slot(stream, p);
        count += slot == NULL || slot->state != SLOT_REJECTED;
    }
    return count;
}

void remainder_drop(Controller *c, Lane *lane)
{
    Stream *stream = &lane->stream;
    int64_t batch = job_groups_per_batch(c), first = lane->planned;
    while (is_kept(c, stream) && first < stream->end) {
        int64_t end = end_of_epoch(stream, first);
        const Slot *slot = stream_slot(stream, first);
        if (slot == NULL) return;
        if (end - first < batch && slot->verdict != GROUP_REMAINDER)
            stream_drop_remainder(stream, first, end);
        if (stream->front < end || count_hopeful(stream, first, end, batch) >= batch) return;
        stream_drop_accepted(stream, first, end);
        first = end;
    }
}

void remainder_pass_over(Controller *c, Plan *plan)
{
    Stream *stream = &lane_of(c, plan->set)->stream;
    int64_t first = plan->end_position;
    if (!is_kept(c, stream) || first % stream->records == 0) return;
    int64_t end = end_of_epoch(stream, first);
    if (end - first >= job_groups_per_batch(c) || !stream_drop_remainder(stream, first, end))
        return;
    for (int64_t p = first; p < end; p++)
        plan_pass_over(plan, p, group_verdict_name(GROUP_REMAINDER));
    plan->dropped[GROUP_REMAINDER] += (int)(end - first);
    plan->end_position = end;
}

int64_t remainder_ahead(const Controller *c, const Lane *lane)
{
    const Stream *stream = &lane->stream;
    int64_t batch = job_groups_per_batch(c), first = lane->planned;
    if (!is_kept(c, stream) || first >= stream->end) return 0;
    int64_t end = end_of_epoch(stream, first);
    if (end - first - stream->rejected_ahead >= batch) return 0;
    int64_t hopeful = count_hopeful(stream, first, end, batch);
    return hopeful < batch ? hopeful : 0;
}
