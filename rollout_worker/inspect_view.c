#include "rollout_worker/inspect_view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/plural.h"
#include "config/source_set.h"
#include "rollout_worker/paint.h"

#define IDS_COLUMNS 100
#define BINS_MAX    16
#define BAR_COLUMNS 40

/* ---- text and ids ---- */

static TokenUse use_of(const InspectedRecord *record, size_t token)
{
    bool cut = record->sample.status == SAMPLE_TRUNCATED && token >= (size_t)record->sample.length;
    if (cut) return TOKEN_CUT;
    return record->trace.conversation.loss_mask[token] ? TOKEN_TRAINED : TOKEN_GIVEN;
}

static void put_text(const InspectedRecord *record, bool color, Str *out)
{
    const TokenizedConversation *conversation = &record->trace.conversation;
    const char *text = conversation->text;
    Painter painter = {.out = out, .color = color};
    size_t at = 0, length = conversation->text_length;
    for (size_t t = 0; t < conversation->length; t++) {
        TokenUse use = use_of(record, t);
        size_t end = conversation->span[t].end;
        while (end < length && ((unsigned char)text[end] & 0xC0) == 0x80)
            end++; /* the other tokens of a character go with its first */
        if (use == TOKEN_CUT && painter.use != TOKEN_CUT) {
            paint(&painter, TOKEN_CUT);
            str_printf(out,
                       "\n---- cut here: %zu more tokens, which data.max_length leaves out ----\n",
                       conversation->length - t);
        }
        paint(&painter, use);
        if (end > at) paint_text(&painter, text + at, end - at);
        if (end > at) at = end;
    }
    paint_text(&painter, text + at, length - at);
    paint(&painter, TOKEN_GIVEN);
    if (out->length > 0 && out->data[out->length - 1] != '\n') str_putc(out, '\n');
}

static void put_ids(const InspectedRecord *record, bool color, Str *out)
{
    const TokenizedConversation *conversation = &record->trace.conversation;
    Painter painter = {.out = out, .color = color};
    int column = 0;
    for (size_t t = 0; t < conversation->length && use_of(record, t) != TOKEN_CUT; t++) {
        char id[16];
        int width = snprintf(id, sizeof id, "%d", conversation->token[t]);
        bool fresh = column == 0 || column + 1 + width > IDS_COLUMNS;
        TokenUse use = use_of(record, t);
        if (painter.use == TOKEN_TRAINED && use != TOKEN_TRAINED) paint(&painter, use);
        str_puts(out, fresh ? (column == 0 ? "  " : "\n  ") : " ");
        paint(&painter, use);
        str_puts(out, id);
        column = fresh ? 2 + width : column + 1 + width;
    }
    paint(&painter, TOKEN_GIVEN);
    str_putc(out, '\n');
}

/* ---- files ---- */

void inspect_view_entries(const Inspection *inspection, Str *out)
{
    for (int i = 0; i < inspection_num_sources(inspection); i++) {
        const StringList *lines = inspection_entries(inspection, i);
        for (int l = 0; lines != NULL && l < lines->count; l++)
            str_printf(out, "%s\n", lines->item[l]);
    }
}

/* ---- a mixture ---- */

void inspect_view_mixture(const Inspection *inspection, Str *out)
{
    uint64_t epoch = inspection_epoch(inspection), run = inspection_run(inspection);
    int count = inspection_num_sources(inspection);
    str_printf(out, "data.sources: %d sources take turns", count);
    if (epoch > 0) str_printf(out, "; an epoch has %llu records", (unsigned long long)epoch);
    str_putc(out, '\n');
    for (int i = 0; i < count; i++) {
        InspectedSource source = inspection_source(inspection, i);
        str_printf(out, "  %-16s %6.2f %% of the records", source.name, 100 * source.share);
        if (source.records > 0) str_printf(out, ", has %llu", (unsigned long long)source.records);
        if (source.records > 0 && epoch > 0)
            str_printf(out, ": %.2f passes an epoch",
                       source.share * (double)epoch / (double)source.records);
        if (source.records > 0 && run > 0)
            str_printf(out, "%s %.2f in the run", epoch > 0 ? "," : ": passes",
                       source.share * (double)run / (double)source.records);
        str_putc(out, '\n');
    }
}

/* ---- one record ---- */

static double percent(uint64_t part, uint64_t whole)
{
    return whole > 0 ? 100.0 * (double)part / (double)whole : 0;
}

static const char *fate_of(const InspectOptions *options, RejectReason reason)
{
    return inspect_stops(options->config, reason) ? "ends a run" : "a run passes over";
}

/* Whether records are prompts, of which nothing is trained. */
static bool generates(const InspectOptions *options)
{
    return options->config->rollout.function != ROLLOUT_SFT;
}

static long long answer_tokens(const InspectOptions *options, size_t prompt)
{
    const JobConfig *config = options->config;
    int64_t most = config->rollout.max_response_length;
    int64_t room = config->data.max_length - (int64_t)prompt;
    int set = options->set != NULL ? eval_set_find(config, options->set) : -1;
    int64_t own = set >= 0 ? eval_set(config, set).max_response_length : 0;
    if (own > 0) most = own;
    return room < 0 ? 0 : room < most ? room : most;
}

static void put_figures(const InspectOptions *options, const InspectedRecord *record, Str *out)
{
    const TokenizedConversation *conversation = &record->trace.conversation;
    size_t length = 0, trained = 0;
    for (size_t t = 0; t < conversation->length && use_of(record, t) != TOKEN_CUT; t++) {
        trained += conversation->loss_mask[t];
        length++;
    }
    if (record->trace.shape != NULL) str_printf(out, "  shape    %s\n", record->trace.shape);
    if (conversation->length > 0 && generates(options))
        str_printf(out, "  prompt   %zu tokens, at most %lld to be generated behind them\n", length,
                   answer_tokens(options, length));
    else if (conversation->length > 0)
        str_printf(out, "  tokens   %zu, %zu of them trained (%.1f %%)\n", length, trained,
                   percent(trained, length));
    if (record->trace.label != NULL) {
        str_puts(out, "  label:\n");
        str_put_block(out, record->trace.label);
    }
    if (length < conversation->length)
        str_printf(out, "  cut      from %zu tokens, by data.max_length %lld\n",
                   conversation->length, (long long)options->config->data.max_length);
    for (int i = 0; i < NOTE_COUNT; i++) {
        if (record->sample.note_message[i] == NULL) continue;
        str_printf(out, "  %s, though odd (%s):\n", generates(options) ? "used" : "trained",
                   sample_note_name((SampleNote)i));
        str_put_block(out, record->sample.note_message[i]);
    }
    if (record->sample.status != SAMPLE_REJECTED) return;
    str_printf(out, "  rejected as %s, which %s\n",
               reject_reason_name(record->sample.reject_reason),
               fate_of(options, record->sample.reject_reason));
    str_put_block(out, record->sample.reject_message);
}

void inspect_view_record(const InspectOptions *options, const InspectedRecord *record, bool color,
                         Str *out)
{
    if (record->numbered)
        str_printf(out, "record %llu of %s", (unsigned long long)record->index, record->key);
    else
        str_printf(out, "a record of %s", record->key);
    if (options->choice.by_position)
        str_printf(out, ", at position %llu", (unsigned long long)options->choice.number);
    if (options->choice.by_position && strncmp(record->key, "data.sources.", 13) == 0)
        str_printf(out, "%s, in pass %llu over it", options->source != NULL ? " of its own" : "",
                   (unsigned long long)record->pass + 1);
    str_puts(out, ": ");
    str_put_escaped(out, record->source);
    str_putc(out, '\n');
    put_figures(options, record, out);
    if (record->trace.conversation.length == 0) return;
    str_printf(out, "\ntext%s:\n\n",
               generates(options) ? ""
               : color            ? ", green where it is trained"
                       : ", between " PAINT_OPENING " and " PAINT_CLOSING " where it is trained");
    put_text(record, color, out);
    str_puts(out, "\nids:\n\n");
    put_ids(record, color, out);
}

/* ---- the first records ---- */

/* 1, 2 or 5 times a power of ten, and at least `least`. */
static int32_t round_width(int32_t least)
{
    static const int32_t factors[] = {1, 2, 5};
    for (int32_t power = 1;; power *= 10)
        for (int i = 0; i < 3; i++)
            if (power * factors[i] >= least) return power * factors[i];
}

static void put_histogram(const InspectSummary *summary, Str *out)
{
    int32_t longest = summary->length[summary->num_lengths - 1];
    int32_t width = round_width((longest + BINS_MAX) / BINS_MAX);
    uint64_t bin[BINS_MAX + 1] = {0}, fullest = 0;
    for (uint64_t i = 0; i < summary->num_lengths; i++)
        bin[summary->length[i] / width]++;
    for (int i = 0; i <= BINS_MAX; i++)
        if (bin[i] > fullest) fullest = bin[i];
    str_puts(out, "\ntokens before any cut:\n\n");
    for (int32_t i = summary->length[0] / width; i <= longest / width; i++) {
        int columns = (int)((bin[i] * BAR_COLUMNS + fullest - 1) / fullest);
        str_printf(out, "  %7d to %7d %8llu  ", i * width, (i + 1) * width - 1,
                   (unsigned long long)bin[i]);
        for (int c = 0; c < columns; c++)
            str_putc(out, '#');
        str_putc(out, '\n');
    }
}

static void put_shapes(const InspectSummary *summary, Str *out)
{
    if (summary->shape[0].name == NULL) return;
    str_puts(out, "  shapes     ");
    for (int i = 0; i < SHAPES_MAX && summary->shape[i].name != NULL; i++)
        str_printf(out, "%s%s %llu", i > 0 ? ", " : "", summary->shape[i].name,
                   (unsigned long long)summary->shape[i].records);
    str_putc(out, '\n');
}

static const char *kind_name(const InspectFinding *finding)
{
    return finding->rejected ? reject_reason_name((RejectReason)finding->kind)
                             : sample_note_name((SampleNote)finding->kind);
}

/* For each kind how many there are, and the first in full. */
static void put_kinds(const InspectOptions *options, const InspectSummary *summary, Str *out)
{
    for (int reason = 0; reason < REJECT_REASON_COUNT; reason++) {
        if (summary->rejected[reason] == 0) continue;
        str_printf(out, "\nrejected as %s, which %s: %llu. The first:\n\n",
                   reject_reason_name((RejectReason)reason), fate_of(options, (RejectReason)reason),
                   (unsigned long long)summary->rejected[reason]);
        str_put_block(out, inspect_first(summary, true, reason)->message);
    }
    for (int note = 0; note < NOTE_COUNT; note++) {
        if (summary->odd[note] == 0) continue;
        str_printf(out, "\n%s, though odd (%s): %llu. The first:\n\n",
                   generates(options) ? "used" : "trained", sample_note_name((SampleNote)note),
                   (unsigned long long)summary->odd[note]);
        str_put_block(out, inspect_first(summary, false, note)->message);
    }
}

/* A line for each of the first, where "the first" of each kind are not all. */
static void put_list(const InspectOptions *options, const InspectSummary *summary, Str *out)
{
    uint64_t all = 0, kinds = 0;
    for (int i = 0; i < REJECT_REASON_COUNT; i++) {
        all += summary->rejected[i];
        kinds += summary->rejected[i] > 0;
    }
    for (int i = 0; i < NOTE_COUNT; i++) {
        all += summary->odd[i];
        kinds += summary->odd[i] > 0;
    }
    uint64_t shown =
        summary->num_findings < options->listed_max ? summary->num_findings : options->listed_max;
    if (all == kinds || shown == 0) return;
    str_printf(out, "\n%s%llu of them (--list), in their order:\n\n",
               shown < all ? "the first " : "all ", (unsigned long long)shown);
    for (uint64_t i = 0; i < shown; i++) {
        const InspectFinding *finding = &summary->finding[i];
        char *line = mem_strndup(finding->message, strcspn(finding->message, "\n"));
        str_printf(out, "  %-16s ", kind_name(finding));
        str_put_escaped(out, line);
        str_putc(out, '\n');
        free(line);
    }
}

/* "all 12 ", "the first 1000 of 7473 ", "the first 1000 ". */
static void put_part(const InspectSummary *summary, Str *out)
{
    str_printf(out, "%s %llu ", summary->all ? "all" : "the first",
               (unsigned long long)summary->records);
    if (!summary->all && summary->there > 0)
        str_printf(out, "of %llu ", (unsigned long long)summary->there);
}

void inspect_view_summary(const InspectOptions *options, const InspectSummary *summary, Str *out)
{
    uint64_t used = summary->completed + summary->truncated;
    put_part(summary, out);
    str_printf(out, "records of %s%s%s, %.1f KB of JSON:\n", inspect_set_key(options),
               summary->more && summary->there == 0 ? ", which has more" : "",
               summary->more ? " (--count all: all of them)" : "",
               (double)summary->json_bytes / 1000);
    put_shapes(summary, out);
    str_printf(out, "  samples    %llu, %llu of them cut; %llu rejected\n",
               (unsigned long long)used, (unsigned long long)summary->truncated,
               (unsigned long long)(summary->records - used));
    if (generates(options))
        str_printf(out, "  tokens     %llu of prompts\n", (unsigned long long)summary->tokens);
    else
        str_printf(out, "  tokens     %llu, %llu of them trained (%.1f %%)\n",
                   (unsigned long long)summary->tokens, (unsigned long long)summary->trained,
                   percent(summary->trained, summary->tokens));
    uint64_t n = summary->num_lengths;
    if (n > 0) {
        const int32_t *length = summary->length;
        str_printf(out, "  length     %d to %d, median %d, nine tenths at most %d\n", length[0],
                   length[n - 1], length[(n - 1) / 2], length[(n - 1) * 9 / 10]);
        str_printf(out, "  too long   %llu over data.max_length %lld (%.1f %%)\n",
                   (unsigned long long)summary->over_max,
                   (long long)options->config->data.max_length, percent(summary->over_max, n));
        put_histogram(summary, out);
    }
    put_kinds(options, summary, out);
    put_list(options, summary, out);
}

/* That a run would go on does not make it what was meant. */
static void put_few(const InspectOptions *options, const InspectSummary *summary, Str *out)
{
    uint64_t used = summary->completed + summary->truncated;
    if (used == 0 || 2 * used >= summary->records) return;
    str_printf(out, "  warning: only %.1f %% of these records are used",
               percent(used, summary->records));
    if (2 * summary->rejected[REJECT_TOO_LONG] >= summary->records)
        str_printf(out, "; raise data.max_length, which is %lld",
                   (long long)options->config->data.max_length);
    str_puts(out, "\n");
}

/* Where all are known, however few were looked at. */
static void put_wrong_count(const InspectOptions *options, const InspectSummary *summary, Str *out)
{
    bool of_run = options->set == NULL && options->config->data.sources.count == 0;
    if (!of_run || summary->there == 0) return;
    char *wrong = train_wrong_count(options->config, (int64_t)summary->there);
    if (wrong != NULL) str_printf(out, "  warning: %s\n", wrong);
    free(wrong);
}

void inspect_view_brief(const InspectOptions *options, const InspectSummary *summary, Str *out)
{
    uint64_t used = summary->completed + summary->truncated;
    unsigned long long records = summary->records, tokens = summary->tokens;
    str_printf(out, "%s: ", inspect_set_key(options));
    put_part(summary, out);
    bool unknown = summary->more && summary->there == 0;
    str_printf(out, "%s ",
               unknown        ? "records, of more, give"
               : records == 1 ? "record gives"
                              : "records give");
    if (generates(options))
        str_printf(out, "%llu prompt%s of %llu tokens", (unsigned long long)used, plural(used),
                   tokens);
    else
        str_printf(out, "%llu sample%s (%llu cut) of %llu tokens, %.1f %% of them trained",
                   (unsigned long long)used, plural(used), (unsigned long long)summary->truncated,
                   tokens, percent(summary->trained, summary->tokens));
    str_printf(out, "; %llu rejected\n", (unsigned long long)(records - used));
    for (int reason = 0; reason < REJECT_REASON_COUNT; reason++) {
        if (summary->rejected[reason] == 0) continue;
        str_printf(out, "  %llu as %s, which %s. The first:\n",
                   (unsigned long long)summary->rejected[reason],
                   reject_reason_name((RejectReason)reason),
                   fate_of(options, (RejectReason)reason));
        str_put_block(out, inspect_first(summary, true, reason)->message);
    }
    put_few(options, summary, out);
    put_wrong_count(options, summary, out);
    for (int note = 0; note < NOTE_COUNT; note++) {
        if (summary->odd[note] == 0) continue;
        str_printf(out, "  %llu odd (%s), and %s. The first:\n",
                   (unsigned long long)summary->odd[note], sample_note_name((SampleNote)note),
                   generates(options) ? "used" : "trained");
        str_put_block(out, inspect_first(summary, false, note)->message);
    }
}
