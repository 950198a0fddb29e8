/* The sources of a mixture: which one each position of the training stream is of, what a run of the
 * asked length takes of each, and what was trained of each. Which one it is follows from the job
 * alone (dataset/interleave.h); nobody has to be asked. */
#include "core/core.h"

#include <math.h>
#include <stdio.h>

#include "config/source_set.h"

static void make_turns(Controller *c, const Event *event)
{
    const char *name[INTERLEAVE_SOURCES_MAX];
    double weight[INTERLEAVE_SOURCES_MAX];
    int count = event->reply.open_set.num_sources;
    CHECK(count == train_source_count(c->config));
    for (int i = 0; i < count; i++) {
        TrainSource source = train_source(c->config, i);
        int64_t records = event->reply.open_set.source_records[i];
        name[i] = source.name;
        weight[i] = source.weight;
        c->turns.records[i] = records > 0 ? records : RECORDS_UNKNOWN;
        c->done.source[i].records = records;
    }
    CHECK(interleave_make((uint64_t)c->config->seed, name, weight, count, &c->turns.mix) < 0);
}

void sources_take(Controller *c, const Event *event)
{
    bool mixed = event->reply.open_set.num_sources > 1;
    if (mixed) make_turns(c, event);
    lane_of(c, SET_TRAIN)->stream.turns = mixed ? &c->turns : NULL;
}

static double share_of(const Controller *c, int source)
{
    return (double)c->turns.mix.share[source] / (double)INTERLEAVE_UNIT;
}

/* Whether no source is gone through more often than it may be. */
static bool check_repeats(Controller *c, int64_t positions)
{
    for (int i = 0; i < c->turns.mix.count; i++) {
        TrainSource source = train_source(c->config, i);
        int64_t records = c->turns.records[i];
        double passes = share_of(c, i) * (double)positions / (double)records;
        if (source.repeat == 0 || records == RECORDS_UNKNOWN) continue;
        uint64_t beyond =
            interleave_position(&c->turns.mix, i, (uint64_t)(source.repeat * records));
        Stream *stream = &lane_of(c, SET_TRAIN)->stream;
        if ((int64_t)beyond < stream->end) stream->end = (int64_t)beyond;
        if ((int64_t)beyond >= positions) continue;
        core_finish(c, ERR_INVALID,
                    "the run takes %lld records, of which %.4g %% are of the source %s: %.2f "
                    "passes over its %lld records, but %s.repeat is %lld.\n"
                    "Train less, lower its weight, or raise repeat.",
                    (long long)positions, 100 * share_of(c, i), source.name, passes,
                    (long long)records, source.key, (long long)source.repeat);
        return false;
    }
    return true;
}

bool sources_measure(Controller *c, int64_t positions)
{
    if (lane_of(c, SET_TRAIN)->stream.turns == NULL) return true;
    if (!check_repeats(c, positions)) return false;
    if (c->total_steps > 0) return true; /* it was told before the data source died */
    for (int i = 0; i < c->turns.mix.count; i++) {
        const char *name = train_source(c->config, i).name;
        int64_t records = c->turns.records[i];
        if (records == RECORDS_UNKNOWN)
            core_log(c, LOG_INFO, "source", "%s: %.4g %% of the records", name,
                     100 * share_of(c, i));
        else
            core_log(c, LOG_INFO, "source",
                     "%s: %.4g %% of the records, %lld in a pass; the run takes %.2f passes", name,
                     100 * share_of(c, i), (long long)records,
                     share_of(c, i) * (double)positions / (double)records);
    }
    return true;
}

static double passes_at(const Controller *c, const InterleaveCursor *cursor, int source)
{
    int64_t records = c->turns.records[source];
    if (records == RECORDS_UNKNOWN) return NAN;
    return (double)cursor->taken[source] / (double)records;
}

static void take_position(Controller *c, const Stream *stream, int64_t position, int source)
{
    SourceStep *step = &c->source_step[source];
    const Slot *slot = stream_slot(stream, position);
    const SampleMeta *sample = stream_samples(stream, position);
    if (slot->state == SLOT_REJECTED) {
        step->rejected++;
        c->done.source[source].bad_records += stream_is_new_bad_record(stream, position);
        return;
    }
    for (int i = 0; i < slot->samples; i++) {
        if (!sample_meta_trains(&sample[i])) continue;
        step->samples++;
        step->tokens += sample[i].length;
    }
}

int sources_consumed(Controller *c, const Stream *stream, int64_t end)
{
    if (stream->turns == NULL) return 0;
    int count = c->turns.mix.count;
    InterleaveCursor cursor = interleave_cursor(&c->turns.mix, (uint64_t)stream->base);
    for (int i = 0; i < count; i++)
        c->source_step[i] = (SourceStep){.name = train_source(c->config, i).name};
    for (int64_t p = stream->base; p < end; p++)
        take_position(c, stream, p, interleave_next(&cursor).source);
    for (int i = 0; i < count; i++) {
        SourceTally *tally = &c->done.source[i];
        const SourceStep *step = &c->source_step[i];
        c->source_step[i].epoch = passes_at(c, &cursor, i);
        tally->samples += step->samples;
        tally->tokens += step->tokens;
        tally->rejected += step->rejected;
    }
    return count;
}

int sources_view(const Controller *c, SourceView *ret)
{
    if (c->lane[SET_TRAIN].stream.turns == NULL) return 0;
    InterleaveCursor cursor = interleave_cursor(&c->turns.mix, (uint64_t)c->next_position);
    for (int i = 0; i < c->turns.mix.count; i++)
        ret[i] = (SourceView){.name = train_source(c->config, i).name,
                              .share = share_of(c, i),
                              .epoch = passes_at(c, &cursor, i),
                              .tally = c->done.source[i]};
    return c->turns.mix.count;
}
