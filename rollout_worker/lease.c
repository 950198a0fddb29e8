#include "rollout_worker/lease.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "actor/typed.h"
#include "base/clock.h"
#include "base/memory.h"
#include "rollout.pb-c.h"

/* Bytes of records that may wait for the threads before the next piece is read. */
#define READ_AHEAD_BYTES (8u << 20)
/* A piece is a few megabytes. A data source that dies is noticed at once, one that does not get on
 * is started again by the controller; this is for a line that never comes about. */
#define READ_TIMEOUT_MS 120000

/* An answer of the data source: the tasks made from it point into it. */
typedef struct Piece {
    Troupe__ReadReply *reply;
    char *text;
    uint32_t tasks; /* not done */
} Piece;

typedef struct LeaseItem {
    RolloutTask task;
    Lease *lease;
    Piece *piece;
} LeaseItem;

struct Lease {
    LeaseHost *host;
    Call *call; /* NULL once answered; then only what is under way is waited for */
    char set[SET_NAME_BYTES];
    uint64_t first;
    uint32_t count;
    uint32_t num_read, num_done; /* items that have a record; whose task is done */
    LeaseItem *item;             /* [count] */
    size_t bytes_waiting;        /* of records whose task is not done */
    bool reading;
    atomic_bool given_up; /* read by the threads; set once */
    Lease *prev, *next;
};

static void advance(Lease *lease);

/* ---- ends ---- */

static void free_piece(Piece *piece)
{
    troupe__read_reply__free_unpacked(piece->reply, NULL);
    free(piece->text);
    free(piece);
}

static void clear_result(RolloutTask *task)
{
    rollout_group_clear(&task->group);
    free(task->error);
    task->error = NULL;
}

static void free_lease(Lease *lease)
{
    for (uint32_t i = 0; i < lease->num_read; i++)
        clear_result(&lease->item[i].task);
    DL_DELETE(lease->host->leases, lease);
    lease->host->num_leases--;
    free(lease->item);
    free(lease);
}

/* A lease is freed when it is answered and no task or read can call back any more. */
static void free_when_idle(Lease *lease)
{
    if (lease->call == NULL && !lease->reading && lease->num_done == lease->num_read)
        free_lease(lease);
}

/* What its threads still do for it is of no use any more. */
static void fail(Lease *lease, const Error *err)
{
    atomic_store(&lease->given_up, true);
    Call *call = lease->call;
    lease->call = NULL;
    call_fail(call, err);
    free_when_idle(lease);
}

static void fill_meta(const Sample *sample, Troupe__SampleMeta *ret)
{
    SampleMeta meta = sample_meta(sample);
    troupe__sample_meta__init(ret);
    ret->position = (uint64_t)meta.position;
    ret->index = (uint32_t)meta.index;
    ret->status = (uint32_t)meta.status;
    ret->reject_reason = (uint32_t)meta.reject_reason;
    ret->length = (uint32_t)meta.length;
    ret->trained_tokens = (uint32_t)meta.trained_tokens;
    ret->reward = meta.reward;
    ret->right = meta.right;
    ret->weight_version = (uint64_t)meta.weight_version;
    ret->notes = meta.notes;
    ret->turns = (uint32_t)meta.work.turns;
    ret->tool_calls = (uint32_t)meta.work.tool_calls;
    ret->tool_errors = (uint32_t)meta.work.tool_errors;
    ret->retries = (uint32_t)meta.work.retries;
    ret->tool_s = meta.work.tool_s;
    ret->judge_s = meta.work.judge_s;
    ret->part = (float *)sample->work.part; /* borrowed: packed before the sample goes */
    ret->n_part = (size_t)meta.work.num_parts;
    for (int i = NOTE_COUNT - 1; i >= 0; i--) /* the first's, in the end */
        if (sample->note_message[i] != NULL) ret->reject_message = sample->note_message[i];
    if (sample->reject_message != NULL) ret->reject_message = sample->reject_message;
}

/* All samples of the lease in position order, group by group; each in turn belongs to *ret. */
static size_t take_samples(Lease *lease, Sample **ret)
{
    size_t count = 0;
    for (uint32_t i = 0; i < lease->count; i++)
        count += (size_t)lease->item[i].task.group.count;
    Sample *samples = mem_calloc(count, sizeof *samples);
    count = 0;
    for (uint32_t i = 0; i < lease->count; i++) {
        RolloutGroup *group = &lease->item[i].task.group;
        for (int s = 0; s < group->count; s++)
            samples[count++] = group->sample[s];
        group->count = 0;
        rollout_group_clear(group);
    }
    *ret = samples;
    return count;
}

static Status answer(Lease *lease, const Sample *samples, size_t count, Error *err)
{
    Troupe__SampleMeta *meta = mem_calloc(count, sizeof *meta);
    Troupe__SampleMeta **list = mem_calloc(count, sizeof *list);
    for (size_t i = 0; i < count; i++) {
        fill_meta(&samples[i], &meta[i]);
        list[i] = &meta[i];
    }
    Troupe__LeaseReply reply = TROUPE__LEASE_REPLY__INIT;
    reply.n_samples = count;
    reply.samples = list;
    PackedMessage body = message_pack(&reply.base);
    Status status = OK;
    if (body.length < MESSAGE_BYTES_MAX / 2) {
        Call *call = lease->call;
        lease->call = NULL;
        call_reply(call, (Bytes){body.data, body.length}, (Bytes){0});
    } else {
        status = error_set(err, ERR_RESOURCE,
                           "what there is to say of %zu samples of one lease does not fit a message"
                           "\n  to do: lower rollout.lease_size",
                           count);
    }
    free(body.data);
    free(list);
    free(meta);
    return status;
}

/* All tasks are done: the samples that hold tokens go to the store, the news of all to the caller.
 */
static void finish(Lease *lease)
{
    Sample *samples = NULL;
    size_t count = take_samples(lease, &samples), num_kept = 0;
    Sample *kept = mem_calloc(count, sizeof *kept);
    for (size_t i = 0; i < count; i++)
        if (samples[i].status != SAMPLE_REJECTED) kept[num_kept++] = samples[i];
    Error err = {0};
    /* Nobody else touches a put sample before the answer is packed, so its arrays may be read from
     * here. */
    Status status = sample_store_put(lease->host->store, lease->set, kept, num_kept, &err);
    bool stored = status == OK;
    if (stored) status = answer(lease, samples, count, &err);
    for (size_t i = 0; i < count; i++)
        if (!stored || samples[i].status == SAMPLE_REJECTED) sample_clear(&samples[i]);
    free(kept);
    free(samples);
    if (status == OK)
        free_when_idle(lease);
    else
        fail(lease, &err);
}

/* ---- tasks ---- */

static void on_done(RolloutTask *task)
{
    LeaseItem *item = task->argument;
    Lease *lease = item->lease;
    lease->num_done++;
    lease->bytes_waiting -= task->record.length;
    if (--item->piece->tasks == 0) free_piece(item->piece);
    item->piece = NULL;
    task->record = (RolloutRecord){.position = task->record.position};
    if (lease->call == NULL)
        free_when_idle(lease);
    else if (task->error != NULL)
        fail(lease, task->error);
    else if (lease->num_done == lease->count)
        finish(lease);
    else
        advance(lease);
}

/* The data source answers with the positions that were asked for, from the first on, and lengths
 * that cover the attachment. */
static Status check_piece(const Lease *lease, const Troupe__ReadReply *reply, size_t text_length,
                          Error *err)
{
    uint64_t position = lease->first + lease->num_read;
    size_t length = 0;
    bool right = reply->n_records > 0 && reply->n_records <= lease->count - lease->num_read;
    for (size_t i = 0; right && i < reply->n_records; i++) {
        right = reply->records[i]->position == position + i;
        length += reply->records[i]->length;
    }
    if (right && length == text_length) return OK;
    return error_set(
        err, ERR_INTERNAL,
        "the data source answered %zu records and %zu bytes to a question for positions %llu "
        "to %llu of set \"%s\": they do not fit together",
        reply->n_records, text_length, (unsigned long long)position,
        (unsigned long long)(lease->first + lease->count - 1), lease->set);
}

static void submit_piece(Lease *lease, Troupe__ReadReply *reply, Bytes text)
{
    Piece *piece = mem_calloc(1, sizeof *piece);
    piece->reply = reply;
    piece->text = mem_alloc(text.length);
    if (text.length > 0) memcpy(piece->text, text.data, text.length);
    piece->tasks = (uint32_t)reply->n_records;
    size_t at = 0;
    for (size_t i = 0; i < reply->n_records; i++) {
        const Troupe__Record *record = reply->records[i];
        LeaseItem *item = &lease->item[lease->num_read++];
        item->lease = lease;
        item->piece = piece;
        item->task.record = (RolloutRecord){
            .position = (int64_t)record->position,
            .text = piece->text + at,
            .length = record->length,
            .source = record->source,
            .at = record->at,
            .error = record->error,
            .set = strcmp(lease->set, "train") != 0 ? lease->set : NULL,
            .part = record->part[0] != '\0' ? record->part : NULL,
            .given_up = &lease->given_up,
        };
        item->task.done = on_done;
        item->task.argument = item;
        at += record->length;
        lease->bytes_waiting += record->length;
        rollout_pool_submit(lease->host->pool, &item->task);
    }
}

/* ---- reading ---- */

static void on_read(void *argument, const Reply *reply)
{
    Lease *lease = argument;
    lease->reading = false;
    if (lease->call == NULL) {
        free_when_idle(lease);
        return;
    }
    Error err = {0};
    if (reply->status != OK) {
        err = *reply->error;
        /* Cancelled: the data source was replaced while it was being asked. */
        if (err.status == ERR_CANCELLED) err.status = ERR_UNAVAILABLE;
        error_prefix(&err, "reading positions from %llu of set \"%s\"",
                     (unsigned long long)(lease->first + lease->num_read), lease->set);
        fail(lease, &err);
        return;
    }
    Troupe__ReadReply *piece =
        troupe__read_reply__unpack(NULL, reply->body.length, reply->body.data);
    if (piece == NULL) {
        error_set(&err, ERR_INTERNAL, "the data source's answer is not a ReadReply");
        fail(lease, &err);
    } else if (check_piece(lease, piece, reply->attachment.length, &err) != OK) {
        troupe__read_reply__free_unpacked(piece, NULL);
        fail(lease, &err);
    } else {
        submit_piece(lease, piece, reply->attachment);
        advance(lease);
    }
}

/* Asks for the next piece when there is one to ask for and the threads will soon run out of work.
 */
static void advance(Lease *lease)
{
    if (lease->reading || lease->num_read == lease->count ||
        lease->bytes_waiting >= READ_AHEAD_BYTES)
        return;
    Error err = {0};
    if (lease->host->source_lost) {
        error_set(&err, ERR_UNAVAILABLE, "the data source at %s is gone",
                  lease->host->source_endpoint);
        fail(lease, &err);
        return;
    }
    Troupe__ReadRequest request = TROUPE__READ_REQUEST__INIT;
    request.set = lease->set;
    request.first = lease->first + lease->num_read;
    request.count = lease->count - lease->num_read;
    uint8_t body[128];
    CHECK(troupe__read_request__get_packed_size(&request) <= sizeof body);
    int64_t left_ms = call_deadline_ms(lease->call) - clock_ms();
    CallOptions options = {
        .method = "data_source.read",
        .body = {body, troupe__read_request__pack(&request, body)},
        .timeout_ms = left_ms < 1                 ? 1
                      : left_ms > READ_TIMEOUT_MS ? READ_TIMEOUT_MS
                                                  : (int)left_ms,
    };
    lease->reading = true;
    if (handle_call(lease->host->source, &options, on_read, lease, &err) == OK) return;
    lease->reading = false;
    fail(lease, &err);
}

/* Reads under way end when the connection breaks. Later ones must not wait in the queue for a
 * process that has died: whoever leases learns at once. */
static void on_source(void *argument, bool connected)
{
    ((LeaseHost *)argument)->source_lost = !connected;
}

/* The one data source of the job may be replaced by another process at another place. */
static Status reach_source(LeaseHost *host, const char *endpoint, Error *err)
{
    if (host->source != NULL && strcmp(host->source_endpoint, endpoint) == 0) return OK;
    Handle *source = NULL;
    TRY(handle_open(host->loop, host->identity, "the data source", endpoint, &source, err));
    handle_watch(source, on_source, host);
    handle_close(host->source);
    host->source = source;
    host->source_lost = false;
    snprintf(host->source_endpoint, sizeof host->source_endpoint, "%s", endpoint);
    return OK;
}

static Status check_request(const LeaseHost *host, const Troupe__LeaseRequest *request, Error *err)
{
    if (request->count == 0 || request->count > LEASE_RECORDS_MAX || request->first > INT64_MAX / 2)
        return error_set(err, ERR_INVALID,
                         "cannot lease %u positions from %llu on: a lease has 1 to %d",
                         request->count, (unsigned long long)request->first, LEASE_RECORDS_MAX);
    if (request->set[0] == '\0' || strlen(request->set) >= SET_NAME_BYTES)
        return error_set(err, ERR_INVALID, "\"%.40s\" is not the name of a set", request->set);
    if (strlen(request->data_source) >= ENDPOINT_MAX)
        return error_set(err, ERR_INVALID, "the endpoint of the data source is too long");
    if (host->num_leases >= LEASES_MAX)
        return error_set(err, ERR_RESOURCE,
                         "this rollout worker has %d leases in work and takes no more",
                         host->num_leases);
    return OK;
}

void lease_start(LeaseHost *host, Call *call)
{
    Bytes body = call_body(call);
    Error err = {0};
    Troupe__LeaseRequest *request = troupe__lease_request__unpack(NULL, body.length, body.data);
    if (request == NULL) {
        call_failf(call, ERR_INVALID, "the body of rollout.run is not a LeaseRequest");
        return;
    }
    if (check_request(host, request, &err) != OK ||
        reach_source(host, request->data_source, &err) != OK) {
        call_fail(call, &err);
        goto done;
    }
    Lease *lease = mem_calloc(1, sizeof *lease);
    lease->host = host;
    lease->call = call;
    snprintf(lease->set, sizeof lease->set, "%s", request->set);
    lease->first = request->first;
    lease->count = request->count;
    lease->item = mem_calloc(lease->count, sizeof *lease->item);
    DL_APPEND(host->leases, lease);
    host->num_leases++;
    advance(lease);
done:
    troupe__lease_request__free_unpacked(request, NULL);
}

/* ---- the host ---- */

/* The pool is gone, so tasks that were submitted never call back. */
static void abandon(Lease *lease)
{
    for (uint32_t i = 0; i < lease->num_read; i++) {
        LeaseItem *item = &lease->item[i];
        if (item->piece != NULL && --item->piece->tasks == 0) free_piece(item->piece);
        clear_result(&item->task);
    }
    lease->num_read = lease->num_done = 0;
    if (lease->call != NULL) {
        Error err;
        error_set(&err, ERR_UNAVAILABLE, "the rollout worker is ending");
        fail(lease, &err);
    } else {
        free_when_idle(lease);
    }
}

void lease_host_close(LeaseHost *host)
{
    handle_close(host->source); /* ends the reads */
    host->source = NULL;
    while (host->leases != NULL)
        abandon(host->leases);
}

void lease_give_up(LeaseHost *host, const char *set, uint64_t first, uint32_t count)
{
    Lease *lease, *next;
    Error err = {0};
    error_set(&err, ERR_CANCELLED, "nobody wants this lease any more");
    DL_FOREACH_SAFE(host->leases, lease, next)
    if (lease->call != NULL && lease->first == first && lease->count == count &&
        strcmp(lease->set, set) == 0)
        fail(lease, &err);
}

void lease_host_give_up(LeaseHost *host, const char *why)
{
    Lease *lease, *next;
    Error err = {0};
    error_set(&err, ERR_CANCELLED, "%s", why);
    DL_FOREACH_SAFE(host->leases, lease, next)
    if (lease->call != NULL) fail(lease, &err);
}

int lease_host_working(const LeaseHost *host)
{
    int working = 0;
    for (const Lease *lease = host->leases; lease != NULL; lease = lease->next)
        working += (int)(lease->num_read - lease->num_done);
    return working;
}

void lease_host_describe(const LeaseHost *host, char *ret_doing, size_t doing_bytes,
                         char *ret_waiting, size_t waiting_bytes)
{
    const Lease *lease = host->leases;
    ret_waiting[0] = '\0';
    snprintf(ret_doing, doing_bytes, "idle");
    if (lease == NULL) return;
    snprintf(ret_doing, doing_bytes, "rollout %s %llu..%llu", lease->set,
             (unsigned long long)lease->first,
             (unsigned long long)(lease->first + lease->count - 1));
    if (lease->reading && lease->num_done == lease->num_read)
        snprintf(ret_waiting, waiting_bytes, "records from the data source at %s",
                 host->source_endpoint);
}
