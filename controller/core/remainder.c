/* Where steps end: what becomes of the end of an epoch that does not fill a batch. It follows from
 * positions, lengths of epochs and verdicts alone, so it is the same after a kill, and for any
 * number of workers. With `pad` plan_make ends a plan where its epoch does. With `drop` positions
 * at an epoch's end that are no batch are consumed untrained:
 *
 * - behind a plan stand fewer than a batch: they belong to its step, and nobody makes them
 * - enough stood there, but too many of them were rejected: what was accepted belongs to the step
 *   that begins with the next epoch, as its verdicts had to be waited for
 *
 * So does with both, having no group, an end that was rejected as a whole. */
#include "core/core.h"

static bool remainder_wraps(const Controller *c)
{
    return c->config->data.remainder == REMAINDER_WRAP;
}

bool remainder_is_padded(const Controller *c)
{
    return c->config->data.remainder == REMAINDER_PAD;
}

static bool is_dropped(const Controller *c)
{
    return c->config->data.remainder == REMAINDER_DROP;
}

const char *remainder_fate(const Controller *c)
{
    static const char *const fate[] = {
        [REMAINDER_WRAP] = "with which the next epoch begins",
        [REMAINDER_DROP] = "which are passed over (data.remainder: drop)",
        [REMAINDER_PAD] = "which make a smaller step (data.remainder: pad)",
    };
    return fate[c->config->data.remainder];
}

int64_t remainder_least(const Controller *c)
{
    return remainder_is_padded(c) ? 1 : job_groups_per_batch(c);
}

int64_t remainder_seam(const Controller *c, const Stream *stream, int64_t position)
{
    bool known = stream->records > 0 && stream->records < RECORDS_UNKNOWN;
    if (remainder_wraps(c) || stream->set != SET_TRAIN || !known) return INT64_MAX;
    return (position / stream->records + 1) * stream->records;
}

bool remainder_check(Controller *c, int64_t records)
{
    const char *policy = is_dropped(c) ? "drop" : "pad";
    int64_t batch = job_groups_per_batch(c);
    if (remainder_wraps(c)) return true;
    if (records == RECORDS_UNKNOWN)
        core_finish(c, ERR_INVALID,
                    "data.remainder is %s, but a reader of the training data does not say how "
                    "many records an epoch has.\n"
                    "Write data.remainder: wrap, or give the reader its num_records.",
                    policy);
    else if (is_dropped(c) && records < batch)
        core_finish(c, ERR_INVALID,
                    "a batch takes %lld records, but an epoch has %lld, and data.remainder is "
                    "drop: nothing would be trained.\n"
                    "Use a smaller batch, more data, or data.remainder: pad.",
                    (long long)batch, (long long)records);
    else
        return true;
    return false;
}

/* Whether that of a position is accepted or may be yet. */
static bool is_hopeful(const Stream *stream, int64_t position)
{
    const Slot *slot = stream_slot(stream, position);
    return slot == NULL || slot->state != SLOT_REJECTED;
}

/* Positions of [first, end) that are; no more than `enough` are counted. */
static int64_t count_hopeful(const Stream *stream, int64_t first, int64_t end, int64_t enough)
{
    int64_t count = 0;
    for (int64_t p = first; p < end && count < enough; p++)
        count += is_hopeful(stream, p);
    return count;
}

/* Of the step that begins at `first`. What is not in the window cannot be leased. */
static int64_t end_of_step(const Controller *c, const Stream *stream, int64_t first, int64_t groups)
{
    int64_t position = first, count = 0, seam = remainder_seam(c, stream, first);
    while (count < groups && position < stream->end && stream_slot(stream, position) != NULL) {
        count += is_hopeful(stream, position++);
        if (position < seam) continue;
        if (count >= remainder_least(c)) break;
        count = 0; /* it is no step, and the next one begins here */
        seam = remainder_seam(c, stream, position);
    }
    return position;
}

int64_t remainder_reach(const Controller *c, const Lane *lane, int64_t steps, int64_t groups)
{
    const Stream *stream = &lane->stream;
    int64_t rejected =
        stream->rejected_ahead - lane->running.plan.rejected - lane->next.plan.rejected;
    int64_t reach = lane->planned + steps * groups + rejected;
    if (reach <= remainder_seam(c, stream, lane->planned)) return reach;
    reach = lane->planned;
    for (int64_t i = 0; i < steps; i++)
        reach = end_of_step(c, stream, reach, groups);
    return reach;
}

void remainder_drop(Controller *c, Lane *lane)
{
    Stream *stream = &lane->stream;
    int64_t batch = job_groups_per_batch(c), first = lane->planned, seam;
    while (is_dropped(c) && first < stream->end) {
        const Slot *slot = stream_slot(stream, first);
        seam = remainder_seam(c, stream, first);
        if (slot == NULL || seam == INT64_MAX) return;
        if (seam - first < batch && slot->verdict != GROUP_REMAINDER)
            stream_drop_remainder(stream, first, seam);
        if (stream->front < seam || count_hopeful(stream, first, seam, batch) >= batch) return;
        stream_drop_accepted(stream, first, seam);
        first = seam;
    }
}

void remainder_pass_over(Controller *c, Plan *plan)
{
    Stream *stream = &lane_of(c, plan->set)->stream;
    int64_t first = plan->end_position, seam = remainder_seam(c, stream, first - 1);
    if (!is_dropped(c) || first == seam || seam == INT64_MAX) return;
    if (seam - first >= job_groups_per_batch(c) || !stream_drop_remainder(stream, first, seam))
        return;
    for (int64_t p = first; p < seam; p++)
        plan_pass_over(plan, p, group_verdict_name(GROUP_REMAINDER));
    plan->dropped[GROUP_REMAINDER] += (int)(seam - first);
    plan->end_position = seam;
}
