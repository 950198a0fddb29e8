/* Calls to actors: an FX_CALL becomes a protobuf request, the answer an EV_REPLY. Only this file
 * knows both forms. */
#include "shell.h"

#include <stdlib.h>
#include <string.h>

#include "actor/typed.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/limits.h"
#include "comm/comm.h"
#include "model/weight_board.h"
#include "rollout.pb-c.h"
#include "train.pb-c.h"

_Static_assert(sizeof(BoardId) == WEIGHT_BOARD_ID_BYTES, "what the core carries is a board's id");

/* What an answer must be matched with. */
typedef struct PendingCall {
    Shell *shell;
    int actor;
    uint64_t incarnation;
    CallKind call;
    uint64_t id;
    int *holder; /* fetch: actor index of each endpoint sent */
    int num_holders;
    Error error; /* of a call that failed before it was sent */
} PendingCall;

/* ---- requests ---- */

static PackedMessage pack_open(const Effect *fx)
{
    Troupe__OpenSetRequest request = TROUPE__OPEN_SET_REQUEST__INIT;
    request.set = (char *)fx->call.set_name;
    if (fx->call.open.known != NULL) request.known = (char *)fx->call.open.known;
    request.count = fx->call.open.count;
    return message_pack(&request.base);
}

static PackedMessage pack_lease(const Shell *shell, const Effect *fx)
{
    Troupe__LeaseRequest request = TROUPE__LEASE_REQUEST__INIT;
    ActorView source = controller_actor(shell->controller, fx->call.lease.data_source);
    request.set = (char *)fx->call.set_name;
    request.first = (uint64_t)fx->call.lease.first;
    request.count = (uint32_t)fx->call.lease.count;
    request.data_source = (char *)source.endpoint;
    return message_pack(&request.base);
}

static PackedMessage pack_give_up(const Effect *fx)
{
    Troupe__GiveUpRequest request = TROUPE__GIVE_UP_REQUEST__INIT;
    request.set = (char *)fx->call.set_name;
    request.first = (uint64_t)fx->call.lease.first;
    request.count = (uint32_t)fx->call.lease.count;
    return message_pack(&request.base);
}

static PackedMessage pack_release(const Effect *fx)
{
    Troupe__ReleaseRequest request = TROUPE__RELEASE_REQUEST__INIT;
    request.set = (char *)fx->call.set_name;
    request.below = (uint64_t)fx->call.release.below;
    return message_pack(&request.base);
}

static PackedMessage pack_bootstrap(const Effect *fx)
{
    Troupe__BootstrapRequest request = TROUPE__BOOTSTRAP_REQUEST__INIT;
    request.tensor_group = fx->call.bootstrap.tensor_group;
    request.data_group = fx->call.bootstrap.data_group;
    return message_pack(&request.base);
}

static PackedMessage pack_start(const Shell *shell, const Effect *fx)
{
    Troupe__StartRequest request = TROUPE__START_REQUEST__INIT;
    request.tensor_group_id.data = (uint8_t *)fx->call.start.tensor_group_id;
    request.tensor_group_id.len = COMM_ID_BYTES;
    request.data_group_id.data = (uint8_t *)fx->call.start.data_group_id;
    request.data_group_id.len = COMM_ID_BYTES;
    request.checkpoint =
        (char *)(fx->call.start.checkpoint != NULL ? fx->call.start.checkpoint : "");
    request.job_yaml = shell->config_yaml;
    int64_t begin = fx->call.start.stage_begin;
    char *stage_start = begin > 0 ? run_folder_checkpoint(shell->folder, begin) : mem_strdup("");
    request.stage_start = stage_start;
    request.first_seed = shell->stages.stage[0].config->seed;
    PackedMessage packed = message_pack(&request.base);
    free(stage_start);
    return packed;
}

static PackedMessage pack_configure(const Shell *shell)
{
    Troupe__ConfigureRequest request = TROUPE__CONFIGURE_REQUEST__INIT;
    request.job_yaml = shell->config_yaml;
    return message_pack(&request.base);
}

/* The endpoints of the workers that hold samples of this plan, each once; the calling order is kept
 * in `pending`. */
static int holder_index(PendingCall *pending, int actor)
{
    for (int i = 0; i < pending->num_holders; i++)
        if (pending->holder[i] == actor) return i;
    pending->holder[pending->num_holders] = actor;
    return pending->num_holders++;
}

static PackedMessage pack_fetch(const Shell *shell, const Effect *fx, PendingCall *pending)
{
    const Plan *plan = fx->call.fetch.plan;
    int first = plan->rank_first[fx->call.fetch.dp_rank];
    int end = plan->rank_first[fx->call.fetch.dp_rank + 1];
    Arena *arena = arena_create();
    Troupe__FetchPlan request = TROUPE__FETCH_PLAN__INIT;
    request.plan = plan->id;
    request.set = (char *)fx->call.set_name;
    request.n_micro_batches = (size_t)(end - first);
    request.micro_batches = arena_alloc(arena, request.n_micro_batches * sizeof(void *));
    pending->holder = mem_calloc((size_t)controller_num_actors(shell->controller), sizeof(int));
    for (int m = first; m < end; m++) {
        const MicroBatchPlan *from = &plan->micro_batch[m];
        Troupe__MicroBatch *to = arena_alloc(arena, sizeof *to);
        troupe__micro_batch__init(to);
        to->n_samples = (size_t)from->count;
        to->samples = arena_alloc(arena, to->n_samples * sizeof(void *));
        for (int i = 0; i < from->count; i++) {
            const PlannedSample *sample = &plan->sample[from->first + i];
            Troupe__PlannedSample *planned = arena_alloc(arena, sizeof *planned);
            troupe__planned_sample__init(planned);
            planned->position = (uint64_t)sample->position;
            planned->index = (uint32_t)sample->index;
            planned->holder = (uint32_t)holder_index(pending, sample->holder);
            planned->source = (uint32_t)sample->source;
            to->samples[i] = planned;
        }
        request.micro_batches[m - first] = to;
    }
    request.n_holders = (size_t)pending->num_holders;
    request.holders = arena_alloc(arena, request.n_holders * sizeof(char *));
    for (int i = 0; i < pending->num_holders; i++) {
        ActorView view = controller_actor(shell->controller, pending->holder[i]);
        request.holders[i] = arena_strndup(arena, view.endpoint, strlen(view.endpoint));
    }
    PackedMessage packed = message_pack(&request.base);
    arena_destroy(arena);
    return packed;
}

static int by_identity(const void *a, const void *b)
{
    const PlannedSample *x = *(const PlannedSample *const *)a,
                        *y = *(const PlannedSample *const *)b;
    if (x->position != y->position) return x->position < y->position ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* The whole batch with its rewards, by position and index. */
static Troupe__PolicyBatch *policy_batch(const Plan *plan, Arena *arena)
{
    size_t count = (size_t)plan->num_samples;
    const PlannedSample **sample = arena_alloc(arena, count * sizeof *sample);
    for (size_t i = 0; i < count; i++)
        sample[i] = &plan->sample[i];
    qsort(sample, count, sizeof *sample, by_identity);
    Troupe__PolicyBatch *batch = arena_alloc(arena, sizeof *batch);
    troupe__policy_batch__init(batch);
    batch->n_position = batch->n_index = batch->n_reward = count;
    batch->position = arena_alloc(arena, count * sizeof *batch->position);
    batch->index = arena_alloc(arena, count * sizeof *batch->index);
    batch->reward = arena_alloc(arena, count * sizeof *batch->reward);
    for (size_t i = 0; i < count; i++) {
        batch->position[i] = (uint64_t)sample[i]->position;
        batch->index[i] = (uint32_t)sample[i]->index;
        batch->reward[i] = sample[i]->reward;
    }
    batch->weight_version = (uint64_t)plan->step;
    return batch;
}

static PackedMessage pack_step(const Effect *fx)
{
    const Plan *plan = fx->call.step.plan;
    Arena *arena = arena_create();
    Troupe__StepRequest request = TROUPE__STEP_REQUEST__INIT;
    request.plan = plan->id;
    request.step = (uint64_t)plan->step;
    request.trained_tokens = (uint64_t)plan->trained_tokens;
    request.first_step = (uint64_t)fx->call.step.first_step;
    request.total_steps = (uint64_t)fx->call.step.total_steps;
    if (fx->call.step.by_rewards) request.policy = policy_batch(plan, arena);
    PackedMessage packed = message_pack(&request.base);
    arena_destroy(arena);
    return packed;
}

static PackedMessage pack_publish(const Effect *fx)
{
    Troupe__PublishRequest request = TROUPE__PUBLISH_REQUEST__INIT;
    request.version = (uint64_t)fx->call.publish.version;
    return message_pack(&request.base);
}

static PackedMessage pack_adopt(const Effect *fx)
{
    ProtobufCBinaryData board[WORLD_SIZE_MAX];
    CHECK(fx->call.adopt.num_boards <= WORLD_SIZE_MAX);
    for (int i = 0; i < fx->call.adopt.num_boards; i++)
        board[i] = (ProtobufCBinaryData){sizeof(BoardId), (uint8_t *)fx->call.adopt.board[i].bytes};
    Troupe__AdoptRequest request = TROUPE__ADOPT_REQUEST__INIT;
    request.version = (uint64_t)fx->call.adopt.version;
    request.n_board = (size_t)fx->call.adopt.num_boards;
    request.board = board;
    request.restart = fx->call.adopt.restart;
    request.n_digest = (size_t)fx->call.adopt.num_digests;
    request.digest = (uint64_t *)fx->call.adopt.digest;
    return message_pack(&request.base);
}

static PackedMessage pack_join(const Effect *fx)
{
    Troupe__RankGroup request = TROUPE__RANK_GROUP__INIT;
    request.tensor_id = (ProtobufCBinaryData){COMM_ID_BYTES, (uint8_t *)fx->call.join.tensor_id};
    request.plan_id = (ProtobufCBinaryData){COMM_ID_BYTES, (uint8_t *)fx->call.join.plan_id};
    return message_pack(&request.base);
}

static PackedMessage pack_meet(const Effect *fx)
{
    Troupe__MeetRequest request = TROUPE__MEET_REQUEST__INIT;
    request.size = (uint32_t)fx->call.meet.size;
    return message_pack(&request.base);
}

static PackedMessage pack_send(const Effect *fx)
{
    Troupe__SendRequest request = TROUPE__SEND_REQUEST__INIT;
    request.version = (uint64_t)fx->call.move.version;
    request.id = fx->call.move.id;
    request.group = (ProtobufCBinaryData){COMM_ID_BYTES, (uint8_t *)fx->call.move.group->bytes};
    request.size = (uint32_t)fx->call.move.size;
    return message_pack(&request.base);
}

static PackedMessage pack_receive(const Effect *fx)
{
    ProtobufCBinaryData group[WORLD_SIZE_MAX];
    CHECK(fx->call.move.num_groups <= WORLD_SIZE_MAX);
    for (int i = 0; i < fx->call.move.num_groups; i++)
        group[i] = (ProtobufCBinaryData){COMM_ID_BYTES, (uint8_t *)fx->call.move.group[i].bytes};
    Troupe__ReceiveRequest request = TROUPE__RECEIVE_REQUEST__INIT;
    request.version = (uint64_t)fx->call.move.version;
    request.id = fx->call.move.id;
    request.n_group = (size_t)fx->call.move.num_groups;
    request.group = group;
    request.rank = (uint32_t)fx->call.move.rank;
    request.size = (uint32_t)fx->call.move.size;
    return message_pack(&request.base);
}

static PackedMessage pack_abandon(const Effect *fx)
{
    Troupe__AbandonRequest request = TROUPE__ABANDON_REQUEST__INIT;
    request.id = fx->call.abandon.id;
    return message_pack(&request.base);
}

static PackedMessage pack_evaluate(const Effect *fx)
{
    Troupe__EvaluateRequest request = TROUPE__EVALUATE_REQUEST__INIT;
    request.plan = fx->call.step.plan->id;
    return message_pack(&request.base);
}

static PackedMessage pack_save(const Effect *fx)
{
    Troupe__SaveRequest request = TROUPE__SAVE_REQUEST__INIT;
    request.folder = (char *)fx->call.save.folder;
    request.step = (uint64_t)fx->call.save.step;
    return message_pack(&request.base);
}

static PackedMessage pack_request(const Shell *shell, const Effect *fx, PendingCall *pending)
{
    switch (fx->call.call) {
    case CALL_OPEN_SET:
        return pack_open(fx);
    case CALL_LEASE:
        return pack_lease(shell, fx);
    case CALL_GIVE_UP:
        return pack_give_up(fx);
    case CALL_RELEASE_SAMPLES:
        return pack_release(fx);
    case CALL_BOOTSTRAP:
        return pack_bootstrap(fx);
    case CALL_START:
        return pack_start(shell, fx);
    case CALL_CONFIGURE:
        return pack_configure(shell);
    case CALL_FETCH:
        return pack_fetch(shell, fx, pending);
    case CALL_STEP:
        return pack_step(fx);
    case CALL_EVALUATE:
        return pack_evaluate(fx);
    case CALL_PUBLISH:
        return pack_publish(fx);
    case CALL_ADOPT:
        return pack_adopt(fx);
    case CALL_MEET:
        return pack_meet(fx);
    case CALL_SEND:
        return pack_send(fx);
    case CALL_RECEIVE:
        return pack_receive(fx);
    case CALL_ABANDON:
        return pack_abandon(fx);
    case CALL_JOIN:
        return pack_join(fx);
    case CALL_GROUP:
    case CALL_REST:
    case CALL_REST_RANK:
    case CALL_LEAVE:
        return (PackedMessage){0};
    default:
        CHECK(fx->call.call == CALL_SAVE);
        return pack_save(fx);
    }
}

/* ---- answers: each fills the event and feeds it while what it points to lives ---- */

static bool read_open(Shell *shell, Event *event, Bytes body)
{
    Troupe__OpenSetReply *reply = troupe__open_set_reply__unpack(NULL, body.length, body.data);
    if (reply == NULL) return false;
    event->reply.open_set.records = (int64_t)reply->records;
    event->reply.open_set.fingerprint = reply->fingerprint;
    event->reply.open_set.changes = reply->changes;
    event->reply.open_set.entry = reply->entries;
    event->reply.open_set.num_entries = (int)reply->n_entries;
    int64_t records[INTERLEAVE_SOURCES_MAX];
    for (size_t i = 0; i < reply->n_sources && i < INTERLEAVE_SOURCES_MAX; i++)
        records[i] = (int64_t)reply->sources[i]->records;
    event->reply.open_set.source_records = records;
    event->reply.open_set.num_sources = (int)reply->n_sources;
    shell_feed(shell, event);
    troupe__open_set_reply__free_unpacked(reply, NULL);
    return true;
}

static bool read_lease(Shell *shell, Event *event, Bytes body)
{
    Troupe__LeaseReply *reply = troupe__lease_reply__unpack(NULL, body.length, body.data);
    if (reply == NULL) return false;
    SampleMeta *meta = mem_calloc(reply->n_samples, sizeof *meta);
    const char **why = mem_calloc(reply->n_samples, sizeof *why);
    for (size_t i = 0; i < reply->n_samples; i++) {
        const Troupe__SampleMeta *from = reply->samples[i];
        meta[i] = (SampleMeta){
            .position = (int64_t)from->position,
            .index = (int32_t)from->index,
            .status =
                from->status < SAMPLE_STATUS_COUNT ? (SampleStatus)from->status : SAMPLE_REJECTED,
            .reject_reason = from->reject_reason < REJECT_REASON_COUNT
                                 ? (RejectReason)from->reject_reason
                                 : REJECT_BAD_RECORD,
            .length = (int32_t)from->length,
            .trained_tokens = (int32_t)from->trained_tokens,
            .reward = from->reward,
            .right = from->right,
            .weight_version = (int64_t)from->weight_version,
            .notes = from->notes,
            .work = {.turns = (int32_t)from->turns,
                     .tool_calls = (int32_t)from->tool_calls,
                     .tool_errors = (int32_t)from->tool_errors,
                     .retries = (int32_t)from->retries,
                     .tool_s = from->tool_s,
                     .judge_s = from->judge_s},
        };
        for (size_t k = 0; k < from->n_part && k < REWARDS_MAX; k++)
            meta[i].work.part[meta[i].work.num_parts++] = from->part[k];
        why[i] = from->reject_message[0] != '\0' ? from->reject_message : NULL;
    }
    event->reply.lease.meta = meta;
    event->reply.lease.reject_message = why;
    event->reply.lease.count = (int)reply->n_samples;
    shell_feed(shell, event);
    free(why);
    free(meta);
    troupe__lease_reply__free_unpacked(reply, NULL);
    return true;
}

static const void *comm_id_or_null(const ProtobufCBinaryData *bytes)
{
    return bytes->len == COMM_ID_BYTES ? bytes->data : NULL;
}

static bool read_bootstrap(Shell *shell, Event *event, Bytes body)
{
    Troupe__BootstrapReply *reply = troupe__bootstrap_reply__unpack(NULL, body.length, body.data);
    if (reply == NULL) return false;
    event->reply.bootstrap.tensor_group_id = comm_id_or_null(&reply->tensor_group_id);
    event->reply.bootstrap.data_group_id = comm_id_or_null(&reply->data_group_id);
    shell_feed(shell, event);
    troupe__bootstrap_reply__free_unpacked(reply, NULL);
    return true;
}

static bool read_group(Shell *shell, Event *event, Bytes body)
{
    Troupe__RankGroup *reply = troupe__rank_group__unpack(NULL, body.length, body.data);
    if (reply == NULL) return false;
    event->reply.group_ids.tensor_id = comm_id_or_null(&reply->tensor_id);
    event->reply.group_ids.plan_id = comm_id_or_null(&reply->plan_id);
    bool whole = event->reply.group_ids.tensor_id != NULL && event->reply.group_ids.plan_id != NULL;
    if (whole) shell_feed(shell, event);
    troupe__rank_group__free_unpacked(reply, NULL);
    return whole;
}

/* A rank measures more than once, and each process of it anew: the highest rate counts. */
static void keep_rate(Shell *shell, int actor, double rate)
{
    if (rate > shell->peak_flops[actor]) shell->peak_flops[actor] = rate;
}

static bool read_start(Shell *shell, Event *event, Bytes body)
{
    Troupe__StartReply *reply = troupe__start_reply__unpack(NULL, body.length, body.data);
    if (reply == NULL) return false;
    event->reply.start.step = (int64_t)reply->step;
    event->reply.start.parameters = (int64_t)reply->parameters;
    event->reply.start.memory_plan = reply->memory_plan;
    if (reply->device[0] != '\0')
        log_event(LOG_INFO, "device",
                  F_STR("of", controller_actor(shell->controller, event->actor).name),
                  F_STR("is", reply->device));
    keep_rate(shell, event->actor, reply->peak_flops);
    shell->memory.available = (int64_t)reply->memory_available;
    shell->memory.taken = (int64_t)reply->memory_bytes;
    if (reply->note[0] != '\0' && !shell->noted)
        log_event(LOG_WARN, "note", F_STR("what", reply->note));
    shell->noted = shell->noted || reply->note[0] != '\0';
    shell_feed(shell, event);
    troupe__start_reply__free_unpacked(reply, NULL);
    return true;
}

static bool read_configure(Shell *shell, Event *event, Bytes body)
{
    Troupe__ConfigureReply *reply = troupe__configure_reply__unpack(NULL, body.length, body.data);
    if (reply == NULL) return false;
    shell->memory.taken = (int64_t)reply->memory_bytes;
    shell_feed(shell, event);
    troupe__configure_reply__free_unpacked(reply, NULL);
    return true;
}

static bool read_fetch(Shell *shell, Event *event, Bytes body, const PendingCall *pending)
{
    Troupe__FetchPlanReply *reply = troupe__fetch_plan_reply__unpack(NULL, body.length, body.data);
    if (reply == NULL) return false;
    int *lost = mem_calloc(reply->n_lost_holders, sizeof *lost);
    int count = 0;
    for (size_t i = 0; i < reply->n_lost_holders; i++)
        if (reply->lost_holders[i] < (uint32_t)pending->num_holders)
            lost[count++] = pending->holder[reply->lost_holders[i]];
    event->reply.fetch.lost_holder = lost;
    event->reply.fetch.count = count;
    shell_feed(shell, event);
    free(lost);
    troupe__fetch_plan_reply__free_unpacked(reply, NULL);
    return true;
}

static PolicyFigures policy_figures(const Troupe__PolicyFigures *from)
{
    return (PolicyFigures){
        .tokens = from->tokens,
        .loss = from->loss,
        .policy_loss = from->policy_loss,
        .kl_loss = from->kl_loss,
        .entropy = from->entropy,
        .ref_kl = from->ref_kl,
        .old_kl = from->old_kl,
        .old_kl3 = from->old_kl3,
        .ratio = from->ratio,
        .clipped_low = from->clipped_low,
        .clipped_high = from->clipped_high,
        .clipped_dual = from->clipped_dual,
        .advantage = from->advantage,
        .advantage_squared = from->advantage_squared,
        .correction = from->correction,
        .corrected = from->corrected,
        .rollout_tokens = from->rollout_tokens,
        .rollout_difference = from->rollout_difference,
        .reward_kl = from->reward_kl,
        .value_loss = from->value_loss,
        .value_tokens = from->value_tokens,
        .value_clipped = from->value_clipped,
        .rollout_difference_max = from->rollout_difference_max,
        .ratio_min = from->ratio_min,
        .ratio_max = from->ratio_max,
        .normaliser = from->normaliser,
        .critic_grad_norm = from->critic_grad_norm,
        .passes_s = from->passes_s,
        .critic_s = from->critic_s,
        .log_probs_compared = (int64_t)from->log_probs_compared,
        .log_probs_differ = (int64_t)from->log_probs_differ,
        .age = from->age,
        .age_max = from->age_max,
        .mixed_samples = (int64_t)from->mixed_samples,
        .groups = (int)from->groups,
        .zero_variance_groups = (int)from->zero_variance_groups,
    };
}

static bool read_sources(const Troupe__StepReply *reply, StepResult *result)
{
    for (size_t i = 0; i < reply->n_sources; i++) {
        const Troupe__SourceLoss *from = reply->sources[i];
        if (from->source >= INTERLEAVE_SOURCES_MAX) return false;
        result->source[from->source] = (SourceLoss){from->loss_sum, (int64_t)from->trained_tokens};
    }
    return true;
}

static bool read_step(Shell *shell, Event *event, Bytes body)
{
    Troupe__StepReply *reply = troupe__step_reply__unpack(NULL, body.length, body.data);
    if (reply == NULL) return false;
    keep_rate(shell, event->actor, reply->peak_flops);
    event->reply.step = (StepResult){
        .loss_sum = reply->loss_sum,
        .trained_tokens = (int64_t)reply->trained_tokens,
        .tokens = (int64_t)reply->tokens,
        .correct = (int64_t)reply->correct,
        .grad_norm = reply->grad_norm,
        .skipped = reply->skipped,
        .lr = reply->lr,
        .forward_s = reply->forward_s,
        .backward_s = reply->backward_s,
        .comm_s = reply->comm_s,
        .optimizer_s = reply->optimizer_s,
        .flops = reply->flops,
        .has_policy = reply->policy != NULL,
    };
    if (reply->policy != NULL) event->reply.step.policy = policy_figures(reply->policy);
    bool right = read_sources(reply, &event->reply.step);
    if (right) shell_feed(shell, event);
    troupe__step_reply__free_unpacked(reply, NULL);
    return right;
}

static bool read_publish(Shell *shell, Event *event, Bytes body)
{
    Troupe__PublishReply *reply = troupe__publish_reply__unpack(NULL, body.length, body.data);
    bool right = reply != NULL && reply->board.len == sizeof(BoardId);
    if (right) {
        BoardId board;
        memcpy(board.bytes, reply->board.data, sizeof board.bytes);
        event->reply.publish.board = &board;
        event->reply.publish.digest = reply->digest;
        event->reply.publish.seconds = reply->seconds;
        shell_feed(shell, event);
    }
    if (reply != NULL) troupe__publish_reply__free_unpacked(reply, NULL);
    return right;
}

static bool read_meet(Shell *shell, Event *event, Bytes body)
{
    Troupe__MeetReply *reply = troupe__meet_reply__unpack(NULL, body.length, body.data);
    if (reply == NULL) return false;
    event->reply.meet.group = comm_id_or_null(&reply->group);
    bool right = event->reply.meet.group != NULL;
    if (right) shell_feed(shell, event);
    troupe__meet_reply__free_unpacked(reply, NULL);
    return right;
}

/* Of train.send and rollout.receive. */
static bool read_send(Shell *shell, Event *event, Bytes body)
{
    Troupe__SendReply *reply = troupe__send_reply__unpack(NULL, body.length, body.data);
    if (reply == NULL) return false;
    log_event(LOG_DEBUG, "weights_moved",
              F_STR("actor", controller_actor(shell->controller, event->actor).name),
              F_REAL("seconds", reply->seconds));
    shell_feed(shell, event);
    troupe__send_reply__free_unpacked(reply, NULL);
    return true;
}

static bool read_adopt(Shell *shell, Event *event, Bytes body)
{
    Troupe__AdoptReply *reply = troupe__adopt_reply__unpack(NULL, body.length, body.data);
    if (reply == NULL) return false;
    event->reply.adopt.wait_s = reply->wait_s;
    event->reply.adopt.pause_s = reply->pause_s;
    event->reply.adopt.digest = reply->digest;
    const char *worker = controller_actor(shell->controller, event->actor).name;
    if (reply->serving[0] != '\0')
        log_event(LOG_INFO, "serving", F_STR("worker", worker), F_STR("url", reply->serving));
    if (reply->not_serving[0] != '\0')
        log_event(LOG_WARN, "not_serving", F_STR("worker", worker),
                  F_STR("why", reply->not_serving));
    shell_feed(shell, event);
    troupe__adopt_reply__free_unpacked(reply, NULL);
    return true;
}

static bool read_rest(Shell *shell, Event *event, Bytes body)
{
    Troupe__RestReply *reply = troupe__rest_reply__unpack(NULL, body.length, body.data);
    if (reply == NULL) return false;
    log_event(LOG_DEBUG, "rests",
              F_STR("actor", controller_actor(shell->controller, event->actor).name),
              F_INT("bytes", (int64_t)reply->bytes), F_REAL("seconds", reply->seconds));
    shell_feed(shell, event);
    troupe__rest_reply__free_unpacked(reply, NULL);
    return true;
}

static SavedFileInfo saved_file(Arena *arena, const Troupe__SavedFile *from)
{
    const char **name = arena_alloc(arena, from->n_tensors * sizeof *name);
    int64_t *bytes = arena_alloc(arena, from->n_tensors * sizeof *bytes);
    for (size_t i = 0; i < from->n_tensors; i++) {
        name[i] = from->tensors[i]->name;
        bytes[i] = (int64_t)from->tensors[i]->bytes;
    }
    return (SavedFileInfo){
        .name = from->name,
        .bytes = (int64_t)from->bytes,
        .sha256 = from->sha256,
        .tensor = name,
        .tensor_bytes = bytes,
        .num_tensors = (int)from->n_tensors,
    };
}

static bool read_save(Shell *shell, Event *event, Bytes body)
{
    Troupe__SaveReply *reply = troupe__save_reply__unpack(NULL, body.length, body.data);
    if (reply == NULL) return false;
    Arena *arena = arena_create();
    SavedFileInfo *file = arena_alloc(arena, reply->n_files * sizeof *file);
    for (size_t i = 0; i < reply->n_files; i++)
        file[i] = saved_file(arena, reply->files[i]);
    event->reply.save.file = file;
    event->reply.save.count = (int)reply->n_files;
    shell_feed(shell, event);
    arena_destroy(arena);
    troupe__save_reply__free_unpacked(reply, NULL);
    return true;
}

static bool read_answer(Shell *shell, Event *event, Bytes body, const PendingCall *pending)
{
    switch (pending->call) {
    case CALL_OPEN_SET:
        return read_open(shell, event, body);
    case CALL_LEASE:
        return read_lease(shell, event, body);
    case CALL_BOOTSTRAP:
        return read_bootstrap(shell, event, body);
    case CALL_GROUP:
        return read_group(shell, event, body);
    case CALL_START:
        return read_start(shell, event, body);
    case CALL_CONFIGURE:
        return read_configure(shell, event, body);
    case CALL_FETCH:
        return read_fetch(shell, event, body, pending);
    case CALL_STEP:
    case CALL_EVALUATE:
        return read_step(shell, event, body);
    case CALL_PUBLISH:
        return read_publish(shell, event, body);
    case CALL_MEET:
        return read_meet(shell, event, body);
    case CALL_SEND:
    case CALL_RECEIVE:
        return read_send(shell, event, body);
    case CALL_ADOPT:
        return read_adopt(shell, event, body);
    case CALL_SAVE:
        return read_save(shell, event, body);
    case CALL_REST:
    case CALL_REST_RANK:
        return read_rest(shell, event, body);
    default:
        shell_feed(shell, event);
        return true;
    }
}

static void on_reply(void *argument, const Reply *reply)
{
    PendingCall *pending = argument;
    Event event = {.kind = EV_REPLY,
                   .actor = pending->actor,
                   .incarnation = pending->incarnation,
                   .status = reply->status};
    event.reply.call = pending->call;
    event.reply.id = pending->id;
    if (reply->status != OK) {
        event.message = reply->error->message;
        shell_feed(pending->shell, &event);
    } else if (!read_answer(pending->shell, &event, reply->body, pending)) {
        event.status = ERR_INTERNAL;
        event.message = "an answer that cannot be read";
        shell_feed(pending->shell, &event);
    }
    free(pending->holder);
    free(pending);
}

static void fail_later(void *argument)
{
    PendingCall *pending = argument;
    on_reply(pending, &(Reply){.status = pending->error.status, .error = &pending->error});
}

void shell_call(Shell *shell, const Effect *fx)
{
    PendingCall *pending = mem_calloc(1, sizeof *pending);
    pending->shell = shell;
    pending->actor = fx->actor;
    pending->incarnation = fx->incarnation;
    pending->call = fx->call.call;
    pending->id = fx->call.id;
    const ActorLink *link = &shell->actor[fx->actor];
    Status status;
    if (link->handle == NULL || link->incarnation != fx->incarnation) {
        status = error_set(&pending->error, ERR_UNAVAILABLE, "there is no line to it");
    } else {
        PackedMessage body = pack_request(shell, fx, pending);
        CallOptions options = {
            .method = call_kind_name(fx->call.call),
            .body = {body.data, body.length},
            .timeout_ms = fx->call.timeout_ms,
        };
        status = handle_call(link->handle, &options, on_reply, pending, &pending->error);
        free(body.data);
    }
    if (status != OK) loop_post(shell->loop, fail_later, pending);
}
