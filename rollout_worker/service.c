#include "rollout_worker/policy_server.h"
#include "rollout_worker/service.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "actor/typed.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/queue.h"
#include "base/str.h"
#include "rollout.pb-c.h"
#include "train.pb-c.h"
#include "rollout_worker/lease.h"
#include "rollout_worker/rank_comms.h"

/* Where an answer to rollout.fetch ends; packing so much takes a few milliseconds. */
#define FETCH_ANSWER_BYTES (8u << 20)

/* A packed sample has at most 9 bytes a token and a few fields. */
_Static_assert(FETCH_ANSWER_BYTES + 10ull * SAMPLE_TOKENS_MAX <= MESSAGE_BYTES_MAX, "samples fit");
_Static_assert(LEASES_MAX *LEASE_RECORDS_MAX <= ROLLOUT_TASKS_MAX, "tasks fit");

#define ADOPT_BOARDS_MAX 64 /* tensor-parallel ranks */
#define ADOPTIONS_MAX    8  /* that wait for one another */

typedef enum { WORK_ADOPT, WORK_RECEIVE, WORK_REST, WORK_GROUP, WORK_JOIN } PolicyWork;

/* A call of rollout.adopt, or of another that has to do with the policy and takes its place in the
 * line, on its way through the thread that adopts. */
typedef struct Adoption {
    RolloutService *service;
    Call *call; /* NULL once answered */
    RolloutWeights weights;
    WeightBoardId board[ADOPT_BOARDS_MAX];
    PolicyWork work;
    uint64_t digest[ADOPT_BOARDS_MAX];
    RankGroupId group;
    RolloutMove move;
    CommId move_group[ADOPT_BOARDS_MAX];
    uint64_t received; /* digest */
    double receive_s;
    int64_t rest_bytes;
    double rest_s;
    RolloutAdoption result;
    Status status;
    Error err;
    struct Adoption *prev, *next;
} Adoption;

struct RolloutService {
    const RolloutTable *table;
    void *shared;
    LeaseHost host;
    PolicyServer *server; /* NULL: the job wants none, or it could not start yet */
    Error not_serving;    /* why it could not: another program has the port; tried again later */
    bool told_serving;    /* the controller knows where, or why not */
    int index;
    void (*lost)(void *context, const Error *why);
    void *lost_context;
    Error lost_why;
    /* adopting; without weights to adopt there is no thread */
    Queue *adoptions;
    pthread_t adopter;
    Adoption *in_work;
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

static void on_give_up(void *self, Call *call)
{
    RolloutService *service = self;
    Bytes body = call_body(call);
    Troupe__GiveUpRequest *request = troupe__give_up_request__unpack(NULL, body.length, body.data);
    if (request == NULL) {
        call_refuse_unreadable(call);
        return;
    }
    lease_give_up(&service->host, request->set, request->first, request->count);
    call_reply(call, (Bytes){0}, (Bytes){0});
    troupe__give_up_request__free_unpacked(request, NULL);
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

/* ---- weights ---- */

static Status start_server(RolloutService *service, Error *err)
{
    const ChatText *text = NULL;
    if (service->table->policy == NULL) return OK;
    const Policy *policy = service->table->policy(service->shared, &text);
    Status status = policy_server_start(text, policy, service->index, &service->server, err);
    if (status != ERR_EXISTS) return status;
    service->not_serving = *err; /* nothing that a run would have to end for */
    return OK;
}

/* Once, and again when the port has become free. */
static void tell_serving(RolloutService *service, Troupe__AdoptReply *reply)
{
    Error err;
    if (service->told_serving && service->server == NULL && service->not_serving.status != OK) {
        (void)start_server(service, &err); /* why it cannot is known */
        service->told_serving = service->server == NULL;
    }
    if (service->told_serving) return;
    service->told_serving = true;
    if (service->server != NULL)
        reply->serving = (char *)policy_server_url(service->server);
    else
        reply->not_serving = service->not_serving.message;
}

static void reply_rest(const Adoption *adoption)
{
    Troupe__RestReply reply = TROUPE__REST_REPLY__INIT;
    reply.bytes = (uint64_t)adoption->rest_bytes;
    reply.seconds = adoption->rest_s;
    call_reply_message(adoption->call, &reply.base);
}

static void reply_receive(const Adoption *adoption)
{
    Troupe__SendReply reply = TROUPE__SEND_REPLY__INIT;
    reply.digest = adoption->received;
    reply.seconds = adoption->receive_s;
    call_reply_message(adoption->call, &reply.base);
}

static void reply_group(Adoption *adoption)
{
    RankGroupId *id = &adoption->group;
    Troupe__RankGroup reply = TROUPE__RANK_GROUP__INIT;
    reply.tensor_id = (ProtobufCBinaryData){sizeof id->tensor.bytes, (uint8_t *)id->tensor.bytes};
    reply.plan_id = (ProtobufCBinaryData){sizeof id->plan.bytes, (uint8_t *)id->plan.bytes};
    call_reply_message(adoption->call, &reply.base);
}

static void reply_adopt(const Adoption *adoption)
{
    Troupe__AdoptReply reply = TROUPE__ADOPT_REPLY__INIT;
    reply.wait_s = adoption->result.wait_s;
    reply.pause_s = adoption->result.pause_s;
    reply.digest = adoption->result.digest;
    tell_serving(adoption->service, &reply);
    call_reply_message(adoption->call, &reply.base);
}

static void finish_adoption(Adoption *adoption)
{
    Call *call = adoption->call;
    if (adoption->status != OK)
        call_fail(call, &adoption->err);
    else if (adoption->work == WORK_REST)
        reply_rest(adoption);
    else if (adoption->work == WORK_RECEIVE)
        reply_receive(adoption);
    else if (adoption->work == WORK_GROUP)
        reply_group(adoption);
    else if (adoption->work == WORK_JOIN)
        call_reply(call, (Bytes){0}, (Bytes){0});
    else
        reply_adopt(adoption);
    DL_DELETE(adoption->service->in_work, adoption);
    free(adoption);
}

static void on_adopted(void *argument)
{
    finish_adoption(argument);
}

static Status work(const RolloutService *service, Adoption *adoption, Error *err)
{
    const RolloutTable *table = service->table;
    int64_t begin_ns = clock_ns();
    switch (adoption->work) {
    case WORK_REST:
        TRY(table->rest(service->shared, &adoption->rest_bytes, err));
        adoption->rest_s = (double)(clock_ns() - begin_ns) / 1e9;
        return OK;
    case WORK_RECEIVE:
        TRY(table->receive(service->shared, &adoption->move, &adoption->received, err));
        adoption->receive_s = (double)(clock_ns() - begin_ns) / 1e9;
        return OK;
    case WORK_GROUP:
        return table->make_group(service->shared, &adoption->group, err);
    case WORK_JOIN:
        return table->join(service->shared, &adoption->group, err);
    default:
        return table->adopt(service->shared, &adoption->weights, &adoption->result, err);
    }
}

static void *adopter_main(void *argument)
{
    RolloutService *service = argument;
    for (Adoption *adoption; (adoption = queue_take(service->adoptions, -1)) != NULL;) {
        adoption->status = work(service, adoption, &adoption->err);
        loop_post(service->host.loop, on_adopted, adoption);
    }
    return NULL;
}

static Status check_adoption(const RolloutService *service, const Troupe__AdoptRequest *request,
                             Error *err)
{
    if (service->table->adopt == NULL)
        return error_set(err, ERR_UNSUPPORTED, "rollout.function %s has no use for weights",
                         service->table->name);
    if (request->version == 0 || request->version > INT64_MAX ||
        request->n_board > ADOPT_BOARDS_MAX)
        return error_set(err, ERR_INVALID,
                         "weights of version %llu from %zu ranks: expected version 1 or more, and "
                         "at most %d ranks",
                         (unsigned long long)request->version, request->n_board, ADOPT_BOARDS_MAX);
    if (request->n_digest >= ADOPT_BOARDS_MAX)
        return error_set(err, ERR_INVALID, "digests of %zu ranks, expected less than %d",
                         request->n_digest, ADOPT_BOARDS_MAX);
    for (size_t i = 0; i < request->n_board; i++)
        if (request->board[i].len != sizeof(WeightBoardId))
            return error_set(err, ERR_INVALID, "board %zu is named by %zu bytes, expected %zu", i,
                             request->board[i].len, sizeof(WeightBoardId));
    return OK;
}

/* Weights of new train ranks: what is in work was asked for by a step that will be made again. */
static void give_up_all(RolloutService *service)
{
    lease_host_give_up(&service->host, "the train workers were started again");
}

static void put_in_line(RolloutService *service, Adoption *adoption)
{
    DL_APPEND(service->in_work, adoption);
    if (queue_try_put(service->adoptions, adoption)) return;
    adoption->status =
        error_set(&adoption->err, ERR_RESOURCE, "%d versions wait to be adopted", ADOPTIONS_MAX);
    finish_adoption(adoption);
}

static Adoption *new_adoption(RolloutService *service, PolicyWork kind, Call *call)
{
    Adoption *adoption = mem_calloc(1, sizeof *adoption);
    adoption->service = service;
    adoption->work = kind;
    adoption->call = call;
    return adoption;
}

static void adopt(RolloutService *service, const Troupe__AdoptRequest *request, Call *call)
{
    Error err = {0};
    if (check_adoption(service, request, &err) != OK) {
        call_fail(call, &err);
        return;
    }
    Adoption *adoption = new_adoption(service, WORK_ADOPT, call);
    adoption->weights = (RolloutWeights){.version = (int64_t)request->version,
                                         .board = adoption->board,
                                         .num_boards = (int)request->n_board,
                                         .digest = adoption->digest,
                                         .num_digests = (int)request->n_digest,
                                         .restart = request->restart};
    for (size_t i = 0; i < request->n_board; i++)
        memcpy(adoption->board[i].bytes, request->board[i].data, sizeof(WeightBoardId));
    for (size_t i = 0; i < request->n_digest; i++)
        adoption->digest[i] = request->digest[i];
    if (request->restart) give_up_all(service);
    put_in_line(service, adoption);
}

static bool is_whole_move(const Troupe__ReceiveRequest *request)
{
    for (size_t i = 0; i < request->n_group; i++)
        if (request->group[i].len != COMM_ID_BYTES) return false;
    return request->version > 0 && request->version <= INT64_MAX && request->id > 0 &&
           request->n_group > 0 && request->n_group <= ADOPT_BOARDS_MAX && request->rank > 0 &&
           request->rank < request->size && request->size <= INT32_MAX;
}

static void put_move(RolloutService *service, const Troupe__ReceiveRequest *request, Call *call)
{
    Adoption *adoption = new_adoption(service, WORK_RECEIVE, call);
    adoption->move.move = (WeightMove){.id = request->id,
                                       .version = (int64_t)request->version,
                                       .rank = (int)request->rank,
                                       .size = (int)request->size};
    adoption->move.group = adoption->move_group;
    adoption->move.num_groups = (int)request->n_group;
    for (size_t i = 0; i < request->n_group; i++)
        memcpy(adoption->move_group[i].bytes, request->group[i].data, COMM_ID_BYTES);
    put_in_line(service, adoption);
}

static void on_receive(void *self, Call *call)
{
    RolloutService *service = self;
    Bytes body = call_body(call);
    Troupe__ReceiveRequest *request = troupe__receive_request__unpack(NULL, body.length, body.data);
    if (request == NULL || !is_whole_move(request))
        call_refuse_unreadable(call);
    else if (service->table->receive == NULL)
        call_failf(call, ERR_UNSUPPORTED, "rollout.function %s has no use for weights",
                   service->table->name);
    else
        put_move(service, request, call);
    if (request != NULL) troupe__receive_request__free_unpacked(request, NULL);
}

/* Beside the thread that receives. */
static void on_abandon(void *self, Call *call)
{
    RolloutService *service = self;
    Bytes body = call_body(call);
    Troupe__AbandonRequest *request = troupe__abandon_request__unpack(NULL, body.length, body.data);
    if (request == NULL) {
        call_refuse_unreadable(call);
        return;
    }
    if (service->table->abandon != NULL) service->table->abandon(service->shared, request->id);
    call_reply(call, (Bytes){0}, (Bytes){0});
    troupe__abandon_request__free_unpacked(request, NULL);
}

static void on_rest(void *self, Call *call)
{
    RolloutService *service = self;
    if (service->table->rest == NULL) {
        call_failf(call, ERR_UNSUPPORTED, "rollout.function %s has no GPU to give back",
                   service->table->name);
        return;
    }
    put_in_line(service, new_adoption(service, WORK_REST, call));
}

static void on_group(void *self, Call *call)
{
    RolloutService *service = self;
    if (service->table->make_group == NULL)
        call_failf(call, ERR_UNSUPPORTED, "rollout.function %s has no ranks to join",
                   service->table->name);
    else
        put_in_line(service, new_adoption(service, WORK_GROUP, call));
}

static bool read_id(const ProtobufCBinaryData *bytes, CommId *ret)
{
    if (bytes->len != sizeof ret->bytes) return false;
    memcpy(ret->bytes, bytes->data, sizeof ret->bytes);
    return true;
}

static void on_join(void *self, Call *call)
{
    RolloutService *service = self;
    Bytes body = call_body(call);
    RankGroupId id;
    Troupe__RankGroup *request = troupe__rank_group__unpack(NULL, body.length, body.data);
    bool read = request != NULL && read_id(&request->tensor_id, &id.tensor) &&
                read_id(&request->plan_id, &id.plan);
    troupe__rank_group__free_unpacked(request, NULL);
    if (!read) {
        call_refuse_unreadable(call);
    } else if (service->table->join == NULL) {
        call_failf(call, ERR_UNSUPPORTED, "rollout.function %s has no ranks to join",
                   service->table->name);
    } else {
        Adoption *adoption = new_adoption(service, WORK_JOIN, call);
        adoption->group = id;
        put_in_line(service, adoption);
    }
}

static void on_adopt(void *self, Call *call)
{
    Bytes body = call_body(call);
    Troupe__AdoptRequest *request = troupe__adopt_request__unpack(NULL, body.length, body.data);
    if (request == NULL) {
        call_refuse_unreadable(call);
        return;
    }
    adopt(self, request, call);
    troupe__adopt_request__free_unpacked(request, NULL);
}

static void adopter_start(RolloutService *service)
{
    if (service->table->adopt == NULL) return;
    service->adoptions = queue_create(ADOPTIONS_MAX);
    CHECK(pthread_create(&service->adopter, NULL, adopter_main, service) == 0);
}

/* After `end`: an adoption under way fails soon. */
static void adopter_stop(RolloutService *service)
{
    if (service->adoptions == NULL) return;
    queue_close(service->adoptions);
    while (queue_take(service->adoptions, 0) != NULL) /* not begun, and not to be */
        ;
    pthread_join(service->adopter, NULL);
    queue_destroy(service->adoptions);
    while (service->in_work != NULL) {
        Adoption *adoption = service->in_work;
        if (adoption->status == OK)
            adoption->status =
                error_set(&adoption->err, ERR_UNAVAILABLE, "the rollout worker is ending");
        finish_adoption(adoption);
    }
}

/* ---- losing it ---- */

static void tell_lost(void *argument)
{
    const RolloutService *service = argument;
    service->lost(service->lost_context, &service->lost_why);
}

/* Posted before the leases that fail by it: they must not be asked for again here. */
static void on_lost(void *context, const Error *why)
{
    RolloutService *service = context;
    service->lost_why = *why;
    loop_post(service->host.loop, tell_lost, service);
}

/* ---- life ---- */

const ActorMethod rollout_service_methods[] = {
    {"rollout.run", on_run},         {"rollout.give_up", on_give_up}, {"rollout.fetch", on_fetch},
    {"rollout.release", on_release}, {"rollout.adopt", on_adopt},     {"rollout.rest", on_rest},
    {"rollout.receive", on_receive}, {"weights.abandon", on_abandon}, {"rollout.group", on_group},
    {"rollout.join", on_join},
};
const int rollout_service_num_methods =
    sizeof rollout_service_methods / sizeof *rollout_service_methods;

const char *rollout_service_url(const RolloutService *service)
{
    return service->server != NULL ? policy_server_url(service->server) : NULL;
}

static Status open_table(const RolloutServiceOptions *options, void **ret_shared, Error *err)
{
    if (options->tp_rank > 0)
        return rollout_rank_open(options->config, options->tp_rank, ret_shared, err);
    return options->table->open(options->config, ret_shared, err);
}

Status rollout_service_create(const RolloutServiceOptions *options, RolloutService **ret,
                              Error *err)
{
    void *shared = NULL;
    TRY(open_table(options, &shared, err));
    const RolloutTable *table = options->tp_rank > 0 ? &rollout_rank : options->table;
    RolloutService *service = mem_calloc(1, sizeof *service);
    service->table = table;
    service->shared = shared;
    service->host.loop = options->loop;
    service->host.identity = options->identity;
    int threads =
        table->num_threads != NULL ? table->num_threads(options->config) : options->threads;
    service->host.pool = rollout_pool_create(options->loop, table, shared, threads);
    service->host.store = sample_store_create(options->store_bytes_max);
    service->index = options->index;
    service->lost = options->lost;
    service->lost_context = options->context;
    if (table->watch != NULL && options->lost != NULL) table->watch(shared, on_lost, service);
    adopter_start(service);
    Status status = start_server(service, err);
    if (status == OK)
        *ret = service;
    else
        rollout_service_destroy(service);
    return status;
}

void rollout_service_destroy(RolloutService *service)
{
    if (service == NULL) return;
    policy_server_stop(service->server);
    if (service->table->end != NULL) service->table->end(service->shared);
    adopter_stop(service);
    rollout_pool_destroy(service->host.pool);
    lease_host_close(&service->host);
    sample_store_destroy(service->host.store);
    service->table->close(service->shared);
    free(service);
}

static RolloutActivity activity_of(const RolloutService *service)
{
    RolloutActivity activity = {.waiting_for = ""};
    if (service->table->describe != NULL) service->table->describe(service->shared, &activity);
    return activity;
}

void rollout_service_trouble(const RolloutService *service, char *ret, size_t bytes)
{
    snprintf(ret, bytes, "%s", activity_of(service).trouble);
}

const char *rollout_service_memory_plan(const RolloutService *service)
{
    if (service->table->memory_plan == NULL) return NULL;
    return service->table->memory_plan(service->shared);
}

uint64_t rollout_service_progress(RolloutService *service)
{
    return rollout_pool_progress(service->host.pool) + activity_of(service).progress;
}

int rollout_service_working(const RolloutService *service)
{
    if (service->table->describe != NULL) return activity_of(service).working;
    return lease_host_working(&service->host);
}

void rollout_service_describe(const RolloutService *service, char *ret_doing, size_t doing_bytes,
                              char *ret_waiting, size_t waiting_bytes)
{
    RolloutActivity activity = activity_of(service);
    lease_host_describe(&service->host, ret_doing, doing_bytes, ret_waiting, waiting_bytes);
    if (ret_waiting[0] == '\0' && lease_host_working(&service->host) > 0)
        snprintf(ret_waiting, waiting_bytes, "%s", activity.waiting_for);
}
