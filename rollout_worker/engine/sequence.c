#include "rollout_worker/engine/sequence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"

/* ---- penalties ---- */

static void penalty_table_grow(PenaltyTable *table)
{
    table->capacity = table->capacity * 2 + 64;
    table->edit = mem_realloc(table->edit, (size_t)table->capacity, sizeof *table->edit);
    table->uses = mem_realloc(table->uses, (size_t)table->capacity, sizeof *table->uses);
    table->num_slots = 256;
    while (table->num_slots < 4 * table->capacity)
        table->num_slots *= 2;
    table->slot = mem_realloc(table->slot, (size_t)table->num_slots, sizeof *table->slot);
    memset(table->slot, 0xFF, (size_t)table->num_slots * sizeof *table->slot);
    for (int i = 0; i < table->count; i++) {
        uint64_t at = rng_mix((uint64_t)table->edit[i].token);
        while (table->slot[at & (uint64_t)(table->num_slots - 1)] >= 0)
            at++;
        table->slot[at & (uint64_t)(table->num_slots - 1)] = i;
    }
}

/* Where the token's edit stands; a new one changes nothing. */
static int penalty_of(PenaltyTable *table, int32_t token)
{
    if (table->count == table->capacity) penalty_table_grow(table);
    uint64_t at = rng_mix((uint64_t)token), mask = (uint64_t)(table->num_slots - 1);
    for (; table->slot[at & mask] >= 0; at++)
        if (table->edit[table->slot[at & mask]].token == token) return table->slot[at & mask];
    table->slot[at & mask] = table->count;
    table->edit[table->count] = (LogitEdit){token, 1.0f, 0.0f};
    table->uses[table->count] = 0;
    return table->count++;
}

static bool has_penalties(const SamplingParams *p)
{
    return p->repetition_penalty != 1.0 || p->frequency_penalty != 0.0 ||
           p->presence_penalty != 0.0;
}

/* Counts a token of the prompt or of the output. */
static void count_token(Sequence *sequence, int32_t token, bool output)
{
    const SamplingParams *p = &sequence->request->params;
    if (!has_penalties(p) || (!output && p->repetition_penalty == 1.0)) return;
    PenaltyTable *table = &sequence->penalties;
    int at = penalty_of(table, token);
    table->edit[at].repetition = (float)p->repetition_penalty;
    if (!output) return;
    table->uses[at]++;
    table->edit[at].subtract =
        (float)(p->presence_penalty + p->frequency_penalty * table->uses[at]);
}

/* ---- tokens ---- */

int32_t sequence_generated(const Sequence *sequence)
{
    return sequence->length - sequence->request->prompt_length;
}

static void reserve_tokens(Sequence *sequence, int32_t length)
{
    if (length <= sequence->capacity) return;
    sequence->capacity = length + length / 2 + 64;
    size_t n = (size_t)sequence->capacity;
    sequence->token = mem_realloc(sequence->token, n, sizeof *sequence->token);
    sequence->log_prob = mem_realloc(sequence->log_prob, n, sizeof *sequence->log_prob);
}

static void add_version(Sequence *sequence, int64_t version, int32_t count)
{
    int32_t n = sequence->num_version_runs;
    if (n > 0 && sequence->version_run[n - 1].version == version) {
        sequence->version_run[n - 1].count += count;
        return;
    }
    sequence->version_run =
        mem_realloc(sequence->version_run, (size_t)n + 1, sizeof *sequence->version_run);
    sequence->version_run[n] = (VersionRun){version, count};
    sequence->num_version_runs = n + 1;
}

/* Appends a generated token and its log-prob. *ret_stop: the stop string that ends here, or -1. */
static Status append_token(Sequence *sequence, Drawn drawn, bool armed, int *ret_stop, Error *err)
{
    *ret_stop = -1;
    if (sequence->stop != NULL)
        TRY(stop_matcher_push(sequence->stop, drawn.token, armed, ret_stop, err));
    reserve_tokens(sequence, sequence->length + 1);
    sequence->log_prob[sequence_generated(sequence)] = drawn.log_prob;
    sequence->token[sequence->length++] = drawn.token;
    count_token(sequence, drawn.token, true);
    return OK;
}

static bool is_stop_id(const Request *request, int32_t token)
{
    for (int i = 0; i < request->num_stop_ids; i++)
        if (request->stop_id[i] == token) return true;
    return false;
}

Status sequence_append(Sequence *sequence, Drawn drawn, int64_t version, int32_t max_length,
                       bool *ret_ended, Error *err)
{
    const Request *request = sequence->request;
    const SamplingParams *params = &request->params;
    int stop = -1;
    bool armed = sequence_generated(sequence) + 1 >= params->min_new_tokens;
    TRY(append_token(sequence, drawn, armed, &stop, err));
    add_version(sequence, version, 1);
    if (sequence->first_token_ns == 0) sequence->first_token_ns = clock_ns();
    bool ended = true;
    if (is_stop_id(request, drawn.token)) {
        sequence->finish = FINISH_STOP;
        sequence->stop_token = drawn.token;
    } else if (stop >= 0) {
        sequence->finish = FINISH_STOP;
        sequence->stop_string = stop;
    } else if (sequence_generated(sequence) == params->max_new_tokens ||
               sequence->length == max_length) {
        sequence->finish = FINISH_LENGTH;
    } else {
        ended = false;
    }
    *ret_ended = ended;
    return OK;
}

/* ---- draws ---- */

static void append_edit(EditList *edits, LogitEdit edit)
{
    if (edits->count == edits->capacity) {
        edits->capacity = edits->capacity * 2 + 256;
        edits->edit = mem_realloc(edits->edit, (size_t)edits->capacity, sizeof *edits->edit);
    }
    edits->edit[edits->count++] = edit;
}

void sequence_next_draw(const Sequence *sequence, Draw *ret, EditList *edits)
{
    const Request *request = sequence->request;
    const SamplingParams *params = &request->params;
    NoiseKey key = {params->seed, request->sample, sequence->index};
    int before = edits->count;
    for (int i = 0; i < sequence->penalties.count; i++)
        append_edit(edits, sequence->penalties.edit[i]);
    if (sequence_generated(sequence) < params->min_new_tokens)
        for (int i = 0; i < request->num_stop_ids; i++)
            append_edit(edits, (LogitEdit){request->stop_id[i], 1.0f, INFINITY});
    *ret = (Draw){
        .temperature = request->temperature,
        .greedy = params->temperature == 0.0,
        .top_k = params->top_k > 0 ? params->top_k : 0,
        .top_p = params->top_p,
        .min_p = params->min_p,
        .uniform = sampling_noise(&key, sequence->length),
        .num_edits = edits->count - before,
    };
}

/* ---- lifecycle ---- */

static void collect_stop_ids(Request *request, const EngineOptions *options)
{
    const SamplingParams *params = &request->params;
    int own = params->num_stop_token_ids;
    request->stop_id =
        mem_calloc((size_t)(own + options->num_end_tokens) + 1, sizeof *request->stop_id);
    for (int i = 0; i < own; i++)
        request->stop_id[request->num_stop_ids++] = params->stop_token_id[i];
    for (int i = 0; i < options->num_end_tokens && !params->ignore_eos; i++)
        if (!is_stop_id(request, options->end_token[i]))
            request->stop_id[request->num_stop_ids++] = options->end_token[i];
}

static Status add_partial(Sequence *sequence, const PartialSample *partial, Error *err)
{
    int stop = -1;
    for (int32_t i = 0; i < partial->length; i++) {
        Drawn drawn = {partial->token[i], partial->log_prob[i]};
        TRY(append_token(sequence, drawn, false, &stop, err));
    }
    for (int32_t i = 0; i < partial->num_version_runs; i++)
        if (partial->version_run[i].count > 0)
            add_version(sequence, partial->version_run[i].version, partial->version_run[i].count);
    sequence->resumed = partial->length;
    return OK;
}

static Sequence *sequence_create(Request *request, const GenerateRequest *from,
                                 const EngineOptions *options)
{
    Sequence *sequence = mem_calloc(1, sizeof *sequence);
    sequence->request = request;
    sequence->stop_token = sequence->stop_string = -1;
    reserve_tokens(sequence, from->prompt_length + 1);
    memcpy(sequence->token, from->prompt, (size_t)from->prompt_length * sizeof *from->prompt);
    sequence->length = from->prompt_length;
    if (request->params.num_stop > 0)
        sequence->stop = stop_matcher_create(options->tokenizer, &request->params);
    for (int32_t i = 0; i < from->prompt_length; i++)
        count_token(sequence, from->prompt[i], false);
    return sequence;
}

Status request_create(const GenerateRequest *from, const EngineOptions *options, uint64_t order,
                      Request **ret, Error *err)
{
    Request *request = mem_calloc(1, sizeof *request);
    request->id = from->id;
    request->sample = from->sample;
    sampling_copy(&request->params, &from->params);
    request->temperature = from->params.temperature == 0.0 ? 1.0f : (float)from->params.temperature;
    request->prompt_length = from->prompt_length;
    request->num_members = request->num_left = from->num_samples;
    request->member = mem_calloc((size_t)from->num_samples, sizeof *request->member);
    request->submitted_ns = clock_ns();
    collect_stop_ids(request, options);
    Status status = OK;
    for (int i = 0; status == OK && i < from->num_samples; i++) {
        request->member[i] = sequence_create(request, from, options);
        request->member[i]->index = from->first_index + (uint32_t)i;
        request->member[i]->order = order + (uint64_t)i;
        if (from->partial != NULL) status = add_partial(request->member[i], &from->partial[i], err);
    }
    if (status == OK)
        *ret = request;
    else
        request_destroy(request);
    return status;
}

void sequence_destroy(Sequence *sequence)
{
    if (sequence == NULL) return;
    stop_matcher_destroy(sequence->stop);
    free(sequence->token);
    free(sequence->log_prob);
    free(sequence->version_run);
    free(sequence->penalties.edit);
    free(sequence->penalties.uses);
    free(sequence->penalties.slot);
    free(sequence->page);
    free(sequence);
}

void request_destroy(Request *request)
{
    if (request == NULL) return;
    for (int i = 0; i < request->num_members; i++)
        sequence_destroy(request->member[i]);
    sampling_clear(&request->params);
    free(request->stop_id);
    free(request->member);
    free(request);
}

void sequence_to_generation(Sequence *sequence, int64_t now_ns, Generation *ret)
{
    const Request *request = sequence->request;
    int32_t prompt = request->prompt_length, length = sequence->length - prompt;
    memmove(sequence->token, sequence->token + prompt, (size_t)length * sizeof *sequence->token);
    *ret = (Generation){
        .request = request->id,
        .index = sequence->index,
        .token = sequence->token,
        .log_prob = sequence->log_prob,
        .version_run = sequence->version_run,
        .length = length,
        .num_version_runs = sequence->num_version_runs,
        .temperature = request->temperature,
        .finish = sequence->finish,
        .stop_token = sequence->stop_token,
        .stop_string = sequence->stop_string,
        .prompt_length = prompt,
        .found_tokens = sequence->found,
        .preemptions = sequence->preemptions,
        .queued_ns = sequence->started_ns > 0 ? sequence->started_ns - request->submitted_ns : 0,
        .first_token_ns =
            sequence->first_token_ns > 0 ? sequence->first_token_ns - request->submitted_ns : 0,
        .total_ns = now_ns - request->submitted_ns,
    };
    sequence->token = NULL;
    sequence->log_prob = NULL;
    sequence->version_run = NULL;
}
