#include "plan_store.h"

#include <stdlib.h>
#include <string.h>

#include "actor/typed.h"
#include "base/limits.h"
#include "base/memory.h"
#include "dataset/interleave.h"
#include "rollout.pb-c.h"
#include "train.pb-c.h"

#define PULL_TIMEOUT_MS 5000
#define PLANS_PER_SET   2
/* Plans after which a holder that none of them named is forgotten. */
#define PLANS_REMEMBERED 16

typedef struct Holder {
    char endpoint[ENDPOINT_MAX];
    Handle *handle;
    int entries;    /* that name it */
    uint64_t named; /* the last plan that did, counted */
    bool lost;      /* it did not answer last time */
    struct Holder *next;
} Holder;

/* A plan whose samples are being pulled, or have been. */
typedef struct Entry {
    PlanStore *store;
    char set[SET_NAME_BYTES];
    FetchedPlan *plan;
    Call *call;             /* unanswered while pulling */
    int *holder_of;         /* [num_samples]: index into holder */
    bool *here;             /* [num_samples] */
    Holder **holder;        /* [num_holders], of the store */
    bool *lost;             /* [num_holders] */
    int num_holders, pulls; /* pulls under way */
    bool dropped;           /* superseded; freed when the last pull ends */
    struct Entry *next;     /* newest first */
} Entry;

struct PlanStore {
    Loop *loop;
    ActorIdentity self;
    Holder *holders;
    uint64_t plans; /* ever */
    Entry *entries;
};

/* One request for the samples that a holder still owes. */
typedef struct Pull {
    Entry *entry;
    int holder;
    int *sample; /* indices, in the order of the request */
    int count;
} Pull;

void fetched_plan_destroy(FetchedPlan *plan)
{
    if (plan == NULL) return;
    for (int i = 0; i < plan->num_samples; i++)
        sample_clear(&plan->sample[i]);
    free(plan->sample);
    free(plan->pointer);
    free(plan->source);
    free(plan->micro_batch);
    free(plan);
}

static void entry_destroy(Entry *entry)
{
    for (int h = 0; h < entry->num_holders; h++)
        if (entry->holder[h] != NULL) entry->holder[h]->entries--;
    fetched_plan_destroy(entry->plan);
    free(entry->holder_of);
    free(entry->here);
    free(entry->holder);
    free(entry->lost);
    free(entry);
}

/* ---- holders: one handle each, kept while they are in use ---- */

/* Rollout workers come and go, and a handle dials the place of one that has died for ever. */
static void forget_holders(PlanStore *store)
{
    for (Holder **link = &store->holders; *link != NULL;) {
        Holder *holder = *link;
        bool stale = holder->lost || holder->named + PLANS_REMEMBERED < store->plans;
        if (holder->entries > 0 || !stale) {
            link = &holder->next;
            continue;
        }
        *link = holder->next;
        handle_close(holder->handle);
        free(holder);
    }
}

static Status find_holder(PlanStore *store, const char *endpoint, Holder **ret, Error *err)
{
    for (Holder *known = store->holders; known != NULL; known = known->next)
        if (strcmp(known->endpoint, endpoint) == 0) {
            *ret = known;
            return OK;
        }
    Holder *holder = mem_calloc(1, sizeof *holder);
    Status status =
        handle_open(store->loop, &store->self, "a rollout worker", endpoint, &holder->handle, err);
    if (status != OK) {
        free(holder);
        return status;
    }
    strncpy(holder->endpoint, endpoint, sizeof holder->endpoint - 1);
    holder->next = store->holders;
    store->holders = holder;
    *ret = holder;
    return OK;
}

/* ---- the answer ---- */

static void answer(Entry *entry)
{
    Troupe__FetchPlanReply reply = TROUPE__FETCH_PLAN_REPLY__INIT;
    uint32_t *lost = mem_calloc((size_t)entry->num_holders + 1, sizeof *lost);
    reply.lost_holders = lost;
    for (int i = 0; i < entry->num_holders; i++)
        if (entry->lost[i]) lost[reply.n_lost_holders++] = (uint32_t)i;
    call_reply_message(entry->call, &reply.base);
    entry->call = NULL;
    free(lost);
}

static void unlink_entry(Entry *entry)
{
    Entry **link = &entry->store->entries;
    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
}

static void pull_done(Entry *entry)
{
    if (--entry->pulls > 0) return;
    if (entry->call != NULL) answer(entry);
    if (entry->dropped) entry_destroy(entry);
}

/* ---- pulling ---- */

static void pull(Entry *entry, int holder);

static bool take_samples(Pull *pulled, const Reply *reply)
{
    Entry *entry = pulled->entry;
    Troupe__FetchReply *fetched =
        troupe__fetch_reply__unpack(NULL, reply->body.length, reply->body.data);
    if (fetched == NULL || fetched->n_length == 0 || fetched->n_length > (size_t)pulled->count) {
        if (fetched != NULL) troupe__fetch_reply__free_unpacked(fetched, NULL);
        return false;
    }
    size_t at = 0;
    bool good = true;
    for (size_t i = 0; i < fetched->n_length && good; i++) {
        Sample *sample = &entry->plan->sample[pulled->sample[i]];
        int64_t position = sample->position;
        int32_t index = sample->index;
        size_t length = fetched->length[i];
        Sample got = {0};
        good = length <= reply->attachment.length - at &&
               sample_unpack(reply->attachment.data + at, length, &got, NULL) == OK;
        at += length;
        if (good && (got.position != position || got.index != index)) {
            sample_clear(&got);
            good = false;
        }
        if (!good) break;
        *sample = got;
        entry->here[pulled->sample[i]] = true;
    }
    troupe__fetch_reply__free_unpacked(fetched, NULL);
    return good;
}

static void on_pulled(void *argument, const Reply *reply)
{
    Pull *pulled = argument;
    Entry *entry = pulled->entry;
    bool answered = reply->status == OK;
    entry->holder[pulled->holder]->lost = !answered;
    if (!answered || !take_samples(pulled, reply))
        entry->lost[pulled->holder] = true;
    else if (!entry->dropped)
        pull(entry, pulled->holder); /* the answer may have been cut short */
    free(pulled->sample);
    free(pulled);
    pull_done(entry);
}

static Status send_pull(Entry *entry, Pull *pulled, Error *err)
{
    Troupe__FetchRequest request = TROUPE__FETCH_REQUEST__INIT;
    Troupe__SampleRef *ref = mem_calloc((size_t)pulled->count, sizeof *ref);
    Troupe__SampleRef **list = mem_calloc((size_t)pulled->count, sizeof *list);
    for (int i = 0; i < pulled->count; i++) {
        const Sample *sample = &entry->plan->sample[pulled->sample[i]];
        troupe__sample_ref__init(&ref[i]);
        ref[i].position = (uint64_t)sample->position;
        ref[i].index = (uint32_t)sample->index;
        list[i] = &ref[i];
    }
    request.set = entry->set;
    request.n_refs = (size_t)pulled->count;
    request.refs = list;
    MessageCall call = {"rollout.fetch", &request.base, PULL_TIMEOUT_MS};
    Status status =
        handle_call_message(entry->holder[pulled->holder]->handle, &call, on_pulled, pulled, err);
    free(list);
    free(ref);
    return status;
}

/* Asks a holder for what it still owes; nothing to do when it owes nothing. */
static void pull(Entry *entry, int holder)
{
    Pull *pulled = mem_calloc(1, sizeof *pulled);
    pulled->entry = entry;
    pulled->holder = holder;
    pulled->sample = mem_calloc((size_t)entry->plan->num_samples + 1, sizeof *pulled->sample);
    for (int i = 0; i < entry->plan->num_samples; i++)
        if (entry->holder_of[i] == holder && !entry->here[i]) pulled->sample[pulled->count++] = i;
    Error err;
    if (pulled->count > 0) {
        entry->pulls++;
        if (send_pull(entry, pulled, &err) == OK) return;
        entry->lost[holder] = true;
        entry->pulls--;
    }
    free(pulled->sample);
    free(pulled);
}

/* ---- plans ---- */

static void drop(Entry *entry)
{
    unlink_entry(entry);
    if (entry->pulls > 0) {
        call_failf(entry->call, ERR_CANCELLED, "a newer plan has taken its place");
        entry->call = NULL;
        entry->dropped = true;
    } else {
        entry_destroy(entry);
    }
}

/* Drops what is older than the newest plans of the set. */
static void drop_old(PlanStore *store, const char *set)
{
    int seen = 0;
    for (Entry *entry = store->entries, *next; entry != NULL; entry = next) {
        next = entry->next;
        if (strcmp(entry->set, set) == 0 && ++seen > PLANS_PER_SET) drop(entry);
    }
}

void plan_store_forget(PlanStore *store)
{
    while (store->entries != NULL)
        drop(store->entries);
}

static int count_samples(const Troupe__FetchPlan *request)
{
    int count = 0;
    for (size_t m = 0; m < request->n_micro_batches; m++)
        count += (int)request->micro_batches[m]->n_samples;
    return count;
}

static void lay_out(Entry *entry, const Troupe__FetchPlan *request)
{
    FetchedPlan *plan = mem_calloc(1, sizeof *plan);
    size_t count = (size_t)count_samples(request);
    plan->id = request->plan;
    plan->num_samples = (int)count;
    plan->sample = mem_calloc(count, sizeof *plan->sample);
    plan->pointer = mem_calloc(count, sizeof *plan->pointer);
    plan->source = mem_calloc(count, sizeof *plan->source);
    plan->micro_batch = mem_calloc(request->n_micro_batches, sizeof *plan->micro_batch);
    plan->num_micro_batches = (int)request->n_micro_batches;
    entry->plan = plan;
    entry->holder_of = mem_calloc(count, sizeof *entry->holder_of);
    entry->here = mem_calloc(count, sizeof *entry->here);
    int at = 0;
    for (size_t m = 0; m < request->n_micro_batches; m++) {
        const Troupe__MicroBatch *from = request->micro_batches[m];
        plan->micro_batch[m] = (MicroBatch){&plan->pointer[at], (int)from->n_samples};
        for (size_t i = 0; i < from->n_samples; i++, at++) {
            plan->sample[at].position = (int64_t)from->samples[i]->position;
            plan->sample[at].index = (int32_t)from->samples[i]->index;
            plan->pointer[at] = &plan->sample[at];
            plan->source[at] = (int)from->samples[i]->source;
            entry->holder_of[at] = (int)from->samples[i]->holder;
        }
    }
}

static Status check_request(const Troupe__FetchPlan *request, Error *err)
{
    if (request == NULL) return error_set(err, ERR_INVALID, "the plan cannot be read");
    if (request->n_holders > ACTORS_MAX || strlen(request->set) >= sizeof(((Entry *)0)->set))
        return error_set(err, ERR_INVALID, "the plan names %zu holders of set %.20s",
                         request->n_holders, request->set);
    for (size_t m = 0; m < request->n_micro_batches; m++)
        for (size_t i = 0; i < request->micro_batches[m]->n_samples; i++) {
            const Troupe__PlannedSample *sample = request->micro_batches[m]->samples[i];
            if (sample->holder >= request->n_holders)
                return error_set(err, ERR_INVALID, "the plan names a holder that it does not list");
            if (sample->source >= INTERLEAVE_SOURCES_MAX)
                return error_set(err, ERR_INVALID, "the plan names source %u, at most %d are known",
                                 sample->source, INTERLEAVE_SOURCES_MAX);
        }
    return OK;
}

static Status begin(PlanStore *store, const Troupe__FetchPlan *request, Call *call, Error *err)
{
    TRY(check_request(request, err));
    store->plans++;
    Entry *entry = mem_calloc(1, sizeof *entry);
    entry->store = store;
    entry->num_holders = (int)request->n_holders;
    entry->holder = mem_calloc(request->n_holders, sizeof *entry->holder);
    entry->lost = mem_calloc(request->n_holders, sizeof *entry->lost);
    strncpy(entry->set, request->set, sizeof entry->set - 1);
    lay_out(entry, request);
    for (int h = 0; h < entry->num_holders; h++) {
        Status status = find_holder(store, request->holders[h], &entry->holder[h], err);
        if (status != OK) {
            entry_destroy(entry);
            return status;
        }
        entry->holder[h]->entries++;
        entry->holder[h]->named = store->plans;
    }
    entry->call = call;
    entry->next = store->entries;
    store->entries = entry;
    entry->pulls = 1; /* held until every pull was sent */
    for (int h = 0; h < entry->num_holders; h++)
        pull(entry, h);
    pull_done(entry);
    drop_old(store, request->set);
    forget_holders(store);
    return OK;
}

void plan_store_fetch(PlanStore *store, Call *call)
{
    Error err;
    Bytes body = call_body(call);
    Troupe__FetchPlan *request = troupe__fetch_plan__unpack(NULL, body.length, body.data);
    if (begin(store, request, call, &err) != OK) call_fail(call, &err);
    if (request != NULL) troupe__fetch_plan__free_unpacked(request, NULL);
}

static bool is_whole(const Entry *entry)
{
    for (int i = 0; i < entry->plan->num_samples; i++)
        if (!entry->here[i]) return false;
    return true;
}

Status plan_store_take(PlanStore *store, uint64_t id, FetchedPlan **ret, Error *err)
{
    for (Entry *entry = store->entries; entry != NULL; entry = entry->next) {
        if (entry->plan->id != id) continue;
        if (entry->pulls > 0 || !is_whole(entry)) break;
        *ret = entry->plan;
        entry->plan = NULL;
        unlink_entry(entry);
        entry_destroy(entry);
        return OK;
    }
    return error_set(err, ERR_NOT_FOUND, "plan %llu has not been fetched", (unsigned long long)id);
}

PlanStore *plan_store_create(Loop *loop, const ActorIdentity *self)
{
    PlanStore *store = mem_calloc(1, sizeof *store);
    store->loop = loop;
    store->self = *self;
    return store;
}

void plan_store_destroy(PlanStore *store)
{
    if (store == NULL) return;
    for (Holder *holder = store->holders; holder != NULL; holder = holder->next) {
        handle_close(holder->handle); /* ends every pull */
        holder->handle = NULL;
    }
    while (store->entries != NULL) {
        Entry *entry = store->entries;
        store->entries = entry->next;
        entry_destroy(entry);
    }
    store->plans = UINT64_MAX;
    forget_holders(store);
    free(store);
}
