#include "rollout_worker/service.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/str.h"
#include "rollout.pb-c.h"
#include "rollout_worker/lease.h"

/* Where an answer to rollout.fetch ends; packing so much takes a few milliseconds. */
#define FETCH_ANSWER_BYTES (8u << 20)

/* A packed sample has at most 9 bytes a token and a few fields. */
_Static_assert(FETCH_ANSWER_BYTES + 10ull * SAMPLE_TOKENS_MAX <= MESSAGE_BYTES_MAX, "samples fit");
_Static_assert(LEASES_MAX *LEASE_RECORDS_MAX <= ROLLOUT_TASKS_MAX, "tasks fit");

struct RolloutService {
    const RolloutTable *table;
    void *shared;
    LeaseHost host;
};

static void on_run(void *self, Call *call)
{
    RolloutService *service = self;
    lease_start(&service->host, call);
}

static Status fetch_one(RolloutService *service, const Troupe__FetchRequest *request, size_t i,
                        Str *attachment, Error *err)
{
    const Troupe__SampleRef *ref = request->refs[i];
    const Sample *sample = NULL;
    if (strlen(request->set) < SET_NAME_BYTES && ref->position <= INT64_MAX &&
        ref->index <= INT32_MAX)
        sample = sample_store_get(service->host.store, request->set, (int64_t)ref->position,
                                  (int32_t)ref->index);
    if (sample == NULL)
        return error_set(
            err, ERR_NOT_FOUND,
            "sample %llu.%u of set \"%.40s\" is not held by %s: it was released, or made by "
            "another worker or an earlier process",
            (unsigned long long)ref->position, ref->index, request->set,
            service->host.identity->name);
    uint8_t *bytes = NULL;
    size_t length = 0;
    sample_pack(sample, &bytes, &length);
    str_append(attachment, bytes, length);
    free(bytes);
    return OK;
}

/* Packs the samples asked for, as many as an answer takes, and at least one. */
static Status fetch(RolloutService *service, const Troupe__FetchRequest *request, uint32_t *lengths,
                    Troupe__FetchReply *reply, Str *attachment, Error *err)
{
    reply->length = lengths;
    while (reply->n_length < request->n_refs && attachment->length < FETCH_ANSWER_BYTES) {
        size_t before = attachment->length;
        TRY(fetch_one(service, request, reply->n_length, attachment, err));
        lengths[reply->n_length++] = (uint32_t)(attachment->length - before);
    }
    return OK;
}

static void on_fetch(void *self, Call *call)
{
    Bytes body = call_body(call);
    Troupe__FetchRequest *request = troupe__fetch_request__unpack(NULL, body.length, body.data);
    if (request == NULL) {
        call_failf(call, ERR_INVALID, "the body of rollout.fetch is not a FetchRequest");
        return;
    }
    Error err = {0};
    Str attachment = {0};
    Troupe__FetchReply reply = TROUPE__FETCH_REPLY__INIT;
    uint32_t *lengths = mem_calloc(request->n_refs, sizeof *lengths);
    if (fetch(self, request, lengths, &reply, &attachment, &err) == OK) {
        size_t length = troupe__fetch_reply__get_packed_size(&reply);
        uint8_t *packed = mem_alloc(length);
        troupe__fetch_reply__pack(&reply, packed);
        call_reply(call, (Bytes){packed, length},
                   (Bytes){(uint8_t *)attachment.data, attachment.length});
        free(packed);
    } else {
        call_fail(call, &err);
    }
    free(lengths);
    str_free(&attachment);
    troupe__fetch_request__free_unpacked(request, NULL);
}

static void on_release(void *self, Call *call)
{
    RolloutService *service = self;
    Bytes body = call_body(call);
    Troupe__ReleaseRequest *request = troupe__release_request__unpack(NULL, body.length, body.data);
    if (request == NULL) {
        call_failf(call, ERR_INVALID, "the body of rollout.release is not a ReleaseRequest");
        return;
    }
    int64_t below = request->below > INT64_MAX ? INT64_MAX : (int64_t)request->below;
    if (strlen(request->set) < SET_NAME_BYTES)
        sample_store_release(service->host.store, request->set, below);
    call_reply(call, (Bytes){0}, (Bytes){0});
    troupe__release_request__free_unpacked(request, NULL);
}

const ActorMethod rollout_service_methods[] = {
    {"rollout.run", on_run},
    {"rollout.fetch", on_fetch},
    {"rollout.release", on_release},
};
const int rollout_service_num_methods = 3;

Status rollout_service_create(const RolloutServiceOptions *options, RolloutService **ret,
                              Error *err)
{
    const RolloutTable *table = options->table;
    void *shared = NULL;
    TRY(table->open(options->config, &shared, err));
    RolloutService *service = mem_calloc(1, sizeof *service);
    service->table = table;
    service->shared = shared;
    service->host.loop = options->loop;
    service->host.identity = options->identity;
    service->host.pool = rollout_pool_create(options->loop, table, shared, options->threads);
    service->host.store = sample_store_create(options->store_bytes_max);
    *ret = service;
    return OK;
}

void rollout_service_destroy(RolloutService *service)
{
    if (service == NULL) return;
    rollout_pool_destroy(service->host.pool);
    lease_host_close(&service->host);
    sample_store_destroy(service->host.store);
    service->table->close(service->shared);
    free(service);
}

uint64_t rollout_service_progress(RolloutService *service)
{
    return rollout_pool_progress(service->host.pool);
}

int rollout_service_working(const RolloutService *service)
{
    return lease_host_working(&service->host);
}

void rollout_service_describe(const RolloutService *service, char *ret_doing, size_t doing_bytes,
                              char *ret_waiting, size_t waiting_bytes)
{
    lease_host_describe(&service->host, ret_doing, doing_bytes, ret_waiting, waiting_bytes);
}
