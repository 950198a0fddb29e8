#include "rollout_worker/policy.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/plural.h"
#include "base/rng.h"
#include "base/str.h"
#include "model/kv_cache.h"
#include "rollout_worker/engine/engine_follower.h"
#include "rollout_worker/engine/runner.h"
#include "tensor/device.h"

/* Rows of a step beside one for each sample in work: pieces of prompts. */
#define PROMPT_STEP_TOKENS 512

/* Answers are saved, or compared with saved ones, some versions after they were begun. */
#define DIGESTS_KEPT 64

typedef struct VersionDigest {
    int64_t version;
    uint64_t digest;
} VersionDigest;

/* One rank's. */
typedef struct PolicyRank {
    WeightPlan *plan;
    WeightBoardId board_id;
    WeightBoard *board;  /* NULL: not opened */
    Weights *weights[2]; /* NULL: not made yet; where they lie on a board, that one's slots */
    WeightLine *line;    /* over which weights of other hosts come; NULL: the host's memory */
    uint64_t received;   /* digest of its part of what came last */
    /* Of a rank that follows: the board of earlier train ranks, on which one set may be in use yet.
     */
    WeightBoard *board_before; /* NULL: none */
    int set_before;            /* that set, or -1 */
} PolicyRank;

struct Policy {
    const JobConfig *config;
    const KernelTable *kernels;
    DeviceInfo device;
    DType dtype;
    PolicyRank *rank; /* [num_ranks] of this process, from first_rank on */
    int tp_size, first_rank, num_ranks;
    RankComms comms;                    /* where ranks are processes, when they have joined */
    _Atomic(EngineFollower *) follower; /* of one other than 0, then */
    EngineOptions follows;              /* how it is made */
    EngineLost lost;                    /* watches it */
    void *lost_context;
    int in_use;           /* of weights[2]; -1: none is */
    const char *told_way; /* of weights to here, as was said last; NULL: nothing was */
    int64_t received;     /* version that stands in the other set; 0: none does */
    int received_set;
    atomic_ullong progress;    /* of what is being received */
    const DeviceMemory *pools; /* what of the device's memory can be given back; NULL: nothing */
    bool rests;
    int64_t version;
    EngineThread *engine; /* of rank 0 */
    char *memory_plan;
    int64_t memory_bytes, kv_bytes;   /* of all ranks that share a memory; of these, for keys and
                                         values */
    pthread_mutex_t mutex;            /* of the rest */
    VersionDigest seen[DIGESTS_KEPT]; /* ring */
    int num_seen;                     /* ever */
};

/* ---- end tokens ---- */

static void add_end(EndTokens *tokens, int32_t id)
{
    for (int i = 0; i < tokens->count; i++)
        if (tokens->id[i] == id) return;
    if (tokens->count < END_TOKENS_MAX) tokens->id[tokens->count++] = id;
}

Status policy_end_tokens(const ChatText *text, int64_t vocab_size, EndTokens *ret, Error *err)
{
    const JobConfig *config = text->config;
    EndTokens tokens = {.count = 0};
    if (config->model.init != INIT_RANDOM)
        TRY(end_tokens_read(config->model.path, vocab_size, &tokens, err));
    if (tokens.count == 0)
        TRY(end_tokens_read_file(config->model.config, vocab_size, &tokens, err));
    int32_t eos = text_model_eos_id(text->model), turn_end = chat_text_turn_end(text);
    if (tokens.count == 0 && eos >= 0) add_end(&tokens, eos);
    if (turn_end >= 0) add_end(&tokens, turn_end);
    if (tokens.count == 0)
        return error_set(err, ERR_INVALID,
                         "nothing says with which token the model ends an answer: neither "
                         "eos_token_id of %s, nor the tokenizer's eos_token, nor the chat "
                         "template\n  to do: add eos_token_id to config.json",
                         config->model.config);
    *ret = tokens;
    return OK;
}

/* ---- making ---- */

/* At its longest; of all ranks, which take the same each. */
static int64_t bytes_for_an_answer(const Policy *policy)
{
    int64_t pages = (policy->config->data.max_length + KV_PAGE - 1) / KV_PAGE;
    return pages * kv_cache_page_bytes(policy->rank[0].plan, policy->dtype, policy->kernels) *
           policy->tp_size;
}

/* Of all ranks. */
static int64_t bytes_for_pages(const Policy *policy)
{
    const JobConfig *config = policy->config;
    if (config->rollout.kv_cache_mb > 0) return config->rollout.kv_cache_mb << 20;
    return bytes_for_an_answer(policy) * config->rollout.concurrency;
}

static Status check_pages(const Policy *policy, Error *err)
{
    const int64_t mb = policy->config->rollout.kv_cache_mb, one = bytes_for_an_answer(policy);
    if (bytes_for_pages(policy) >= one) return OK;
    return error_set(err, ERR_INVALID,
                     "rollout.kv_cache_mb: %lld MiB for the keys and values of a rollout worker, "
                     "but one answer of data.max_length, %lld tokens, takes %lld MiB\n"
                     "Set so much or more, or lower data.max_length.",
                     (long long)mb, (long long)policy->config->data.max_length,
                     (long long)((one + (1 << 20) - 1) >> 20));
}

static EngineOptions engine_options(const Policy *policy, const ChatText *text,
                                    const EndTokens *ends)
{
    const JobConfig *config = policy->config;
    return (EngineOptions){
        .max_length = (int32_t)config->data.max_length,
        .max_samples = (int)config->rollout.concurrency,
        .max_step_tokens = (int)config->rollout.concurrency + PROMPT_STEP_TOKENS,
        .kv_bytes = bytes_for_pages(policy) / policy->tp_size,
        .pools = policy->pools,
        .kv_purpose = config->rollout.kv_cache_mb > 0
                          ? "keys and values: lower rollout.kv_cache_mb or rollout.num_workers"
                          : "keys and values: set rollout.kv_cache_mb, or lower "
                            "rollout.concurrency, data.max_length or rollout.num_workers",
        .enforce_eager = config->rollout.enforce_eager,
        .tokenizer = text != NULL ? text_model_tokenizer(text->model) : NULL,
        .end_token = ends->id,
        .num_end_tokens = ends->count,
    };
}

/* Ranks of this worker in one memory: each has a GPU, or all are on the machine. */
static int ranks_in_a_memory(const Policy *policy)
{
    return policy->config->device == JOB_CPU ? policy->tp_size : 1;
}

/* Whether the weights will lie on this GPU, shown by its train worker. */
static bool reads_in_place(const Policy *policy)
{
    char why[256];
    const JobConfig *config = policy->config;
    const DeviceMemory *memory = policy->device.memory;
    return memory != NULL && config->rollout.colocate && memory->can_share(why, sizeof why);
}

/* The engine's plan needs weights only for their shape. */
static Status plan_memory(Policy *policy, EngineOptions options, Error *err)
{
    EngineMemory memory;
    Weights shape = {
        .kernels = policy->kernels, .plan = policy->rank[0].plan, .dtype = policy->dtype};
    Str text = {0};
    options.weights = &shape;
    TRY(check_pages(policy, err));
    TRY(engine_memory_plan_make(&options, &memory, err));
    int64_t next = memory.weights + memory.packed;
    if (policy->config->device != JOB_CPU) str_printf(&text, "on %s: ", policy->device.text);
    bool shown = reads_in_place(policy);
    if (shown) {
        memory.total -= memory.weights;
        memory.weights = next = 0;
    }
    char *engine = engine_memory_plan_text(&memory);
    if (shown)
        str_printf(&text, "%s; weights where the train worker shows them", engine);
    else
        str_printf(&text, "%s; the next weights, beside those in use, %.1f MiB", engine,
                   (double)next / 0x1p20);
    int ranks = ranks_in_a_memory(policy);
    if (policy->tp_size > 1)
        str_printf(&text, "; so for each of %d tensor-parallel ranks%s%s", policy->tp_size,
                   policy->num_ranks == 1 ? ", a process each" : "",
                   ranks == 1 ? " on a GPU of its own" : "");
    policy->memory_bytes = (memory.total + next) * ranks;
    policy->kv_bytes = memory.pages * ranks;
    str_printf(&text, ": %.2f GiB in all%s", (double)policy->memory_bytes / 0x1p30,
               ranks < policy->tp_size ? " on each" : "");
    free(engine);
    policy->memory_plan = str_take(&text);
    return OK;
}

static Status make_plans(Policy *policy, ModelConfig *ret, Error *err)
{
    ModelConfig model;
    TRY(model_config_read(policy->config->model.config, &model, err));
    TRY(model_config_check_parallel(&model, policy->tp_size, err));
    policy->rank = mem_calloc((size_t)policy->num_ranks, sizeof *policy->rank);
    for (int r = 0; r < policy->num_ranks; r++)
        policy->rank[r] = (PolicyRank){
            .plan = weight_plan_create(&model, policy->first_rank + r, policy->tp_size),
            .set_before = -1,
        };
    *ret = model;
    return OK;
}

static Status open_device(Policy *policy, Error *err)
{
    const JobConfig *config = policy->config;
    int threads = (int)config->cluster.cpus_per_rollout_worker / (int)config->train.tp_size;
    DeviceKind kind = config->device == JOB_CUDA ? DEVICE_CUDA : DEVICE_CPU;
    DeviceOptions options = {.num_threads = threads > 1 ? threads : 1};
    Status status = device_open(kind, &options, &policy->kernels, &policy->device, err);
    return status == OK ? OK : error_prefix(err, "device: %s", device_kind_name(kind));
}

static void on_chunk(void *argument)
{
    atomic_fetch_add(&((Policy *)argument)->progress, 1);
}

/* Next to nothing, before weights come over them. */
static void make_lines(Policy *policy)
{
    for (int r = 0; policy->device.streams != NULL && r < policy->num_ranks; r++) {
        WeightLineOptions options = {
            .plan = policy->rank[r].plan,
            .dtype = policy->dtype,
            .device = {.kernels = policy->kernels, .streams = policy->device.streams},
            .timeout_ms = (int)policy->config->cluster.collective_timeout_s * 1000,
            .on_progress = on_chunk,
            .context = policy,
        };
        policy->rank[r].line = weight_line_create(&options);
    }
}

static Status find_pools(Policy *policy, Error *err)
{
    char why[256] = "it is the host's";
    const DeviceMemory *memory = policy->device.memory;
    if (policy->config->rollout.offload != OFFLOAD_ON) return OK;
    if (memory == NULL || !memory->has_pools(why, sizeof why))
        return error_set(err, ERR_UNSUPPORTED,
                         "rollout.offload: the device's memory cannot be given back while others "
                         "work: %s.\nWrite rollout.offload: false, or colocate: false.",
                         why);
    policy->pools = memory;
    return OK;
}

static Status make_engine(Policy *policy, const ChatText *text, Error *err)
{
    ModelConfig model;
    EndTokens ends;
    TRY(open_device(policy, err));
    TRY(find_pools(policy, err));
    TRY(make_plans(policy, &model, err));
    make_lines(policy);
    TRY(model_config_check_tokenizer(&model, policy->config->model.config,
                                     tokenizer_vocab_size(text_model_tokenizer(text->model)),
                                     policy->config->model.tokenizer, err));
    TRY(policy_end_tokens(text, model.vocab_size, &ends, err));
    EngineThreadOptions options = {
        .engine = engine_options(policy, text, &ends),
        .tp_size = policy->tp_size,
        .kv_policy = policy->config->rollout.partial == PARTIAL_KEEP ? KV_KEEP : KV_RECOMPUTE};
    TRY(plan_memory(policy, options.engine, err));
    return engine_thread_create(&options, &policy->engine, err);
}

/* Rank 0's process has looked at what is of the text side. */
static Status plan_rank(Policy *policy, Error *err)
{
    ModelConfig model;
    EndTokens none = {.count = 0};
    TRY(open_device(policy, err));
    TRY(find_pools(policy, err));
    TRY(make_plans(policy, &model, err));
    policy->follows = engine_options(policy, NULL, &none);
    return plan_memory(policy, policy->follows, err);
}

static Policy *new_policy(const JobConfig *config, int first_rank)
{
    Policy *policy = mem_calloc(1, sizeof *policy);
    policy->config = config;
    policy->dtype = config->model.dtype == MODEL_BF16 ? DTYPE_BF16 : DTYPE_F32;
    policy->tp_size = (int)config->train.tp_size;
    policy->first_rank = first_rank;
    policy->num_ranks = job_has_rank_processes(config) ? 1 : policy->tp_size;
    policy->in_use = -1;
    pthread_mutex_init(&policy->mutex, NULL);
    return policy;
}

static Status give_policy(Policy *policy, Status status, Policy **ret)
{
    if (status == OK)
        *ret = policy;
    else
        policy_destroy(policy);
    return status;
}

Status policy_create(const ChatText *text, Policy **ret, Error *err)
{
    Policy *policy = new_policy(text->config, 0);
    return give_policy(policy, make_engine(policy, text, err), ret);
}

Status policy_create_rank(const JobConfig *config, int tp_rank, Policy **ret, Error *err)
{
    if (!job_has_rank_processes(config) || tp_rank < 1 || tp_rank >= config->train.tp_size)
        return error_set(err, ERR_INVALID,
                         "rank %d of a rollout worker, but the job has none that is a process of "
                         "its own (train.tp_size %lld)",
                         tp_rank, (long long)config->train.tp_size);
    Policy *policy = new_policy(config, tp_rank);
    return give_policy(policy, plan_rank(policy, err), ret);
}

void policy_end(Policy *policy)
{
    policy_abandon(policy, UINT64_MAX);
    if (policy->engine != NULL) engine_thread_end(policy->engine);
    if (policy->follower != NULL) engine_follower_end(policy->follower);
}

/* ---- ranks in processes of their own ---- */

Status policy_make_group(const Policy *policy, RankGroupId *ret, Error *err)
{
    if (policy->num_ranks < policy->tp_size && policy->first_rank == 0)
        return rank_group_id_make(policy->config, ret, err);
    return error_set(err, ERR_INTERNAL, "only rank 0 of ranks in processes makes a group");
}

Status policy_join(Policy *policy, const RankGroupId *id, Error *err)
{
    CommDevice device = {.kernels = policy->kernels, .streams = policy->device.streams};
    if (policy->num_ranks == policy->tp_size || policy->comms.plan != NULL)
        return error_set(err, ERR_INTERNAL, "this process has no group to join, or has joined it");
    TRY(rank_comms_join(policy->config, id, policy->first_rank, &device, &policy->comms, err));
    Comm *tensor = policy->comms.tensor, *plan = policy->comms.plan;
    if (policy->engine != NULL) return engine_thread_join(policy->engine, tensor, plan, err);
    policy->follows.tensor_comm = tensor;
    policy->follows.plan_comm = plan;
    policy->follower = engine_follower_create(&policy->follows);
    if (policy->lost != NULL)
        engine_follower_watch(policy->follower, policy->lost, policy->lost_context);
    return OK;
}

void policy_watch(Policy *policy, EngineLost lost, void *context)
{
    policy->lost = lost;
    policy->lost_context = context;
    if (policy->engine != NULL) engine_thread_watch(policy->engine, lost, context);
}

void policy_describe_rank(const Policy *policy, uint64_t *ret_progress, int *ret_working)
{
    const EngineFollower *follower = atomic_load(&policy->follower);
    if (follower == NULL) return;
    *ret_progress = engine_follower_progress(follower);
    *ret_working = engine_follower_working(follower);
}

void policy_destroy(Policy *policy)
{
    if (policy == NULL) return;
    engine_thread_destroy(policy->engine);
    engine_follower_destroy(policy->follower);
    rank_comms_destroy(&policy->comms);
    for (int r = 0; policy->rank != NULL && r < policy->num_ranks; r++) {
        weights_destroy(policy->rank[r].weights[0]);
        weights_destroy(policy->rank[r].weights[1]);
        weight_board_destroy(policy->rank[r].board);
        weight_line_destroy(policy->rank[r].line);
        weight_board_destroy(policy->rank[r].board_before);
        weight_plan_destroy(policy->rank[r].plan);
    }
    free(policy->rank);
    pthread_mutex_destroy(&policy->mutex);
    free(policy->memory_plan);
    free(policy);
}

EngineThread *policy_engine(const Policy *policy)
{
    return policy->engine;
}

const char *policy_memory_plan(const Policy *policy)
{
    return policy->memory_plan;
}

int64_t policy_memory_free(const Policy *policy)
{
    return policy->device.memory_free;
}

/* Who shares the memory that this policy is in. */
typedef struct Sharers {
    int64_t workers; /* rollout workers */
    int64_t trained; /* bytes that train workers take of it */
    bool turns;      /* in that of generation, when they rest */
} Sharers;

static Sharers count_sharers(const Policy *policy, int64_t trained, bool turns)
{
    const JobConfig *config = policy->config;
    int64_t workers = config->rollout.num_workers;
    int64_t gpus = config->train.tp_size * config->train.dp_size;
    if (config->device == JOB_CPU) return (Sharers){workers, trained, false};
    if (!config->rollout.colocate) return (Sharers){1, 0, false};
    if (turns) trained = gpus * weight_board_bytes(policy->rank[0].plan, policy->dtype, 1);
    int64_t parts = workers * config->train.tp_size; /* each takes a GPU per rank */
    return (Sharers){(parts + gpus - 1) / gpus, trained / gpus, turns};
}

static int64_t left_of(const MemoryRoom *room, const Sharers *sharers)
{
    return room->available - room->available / 10 - sharers->trained;
}

/* Beside what rollout workers take whatever they keep. */
static int64_t left_for_pages(const Policy *policy, const MemoryRoom *room, const Sharers *sharers)
{
    int64_t others = sharers->workers * (policy->memory_bytes - policy->kv_bytes);
    int64_t left = left_of(room, sharers) - others;
    return left > 0 ? left : 0;
}

/* rollout.kv_cache_mb, of a worker, when those of a memory have so much of it for pages. */
static int64_t mb_of_a_worker(const Policy *policy, int64_t bytes, const Sharers *sharers)
{
    return (bytes / sharers->workers * (policy->tp_size / ranks_in_a_memory(policy))) >> 20;
}

/* Owned. What may be little beside a GPU is not told as none. */
static char *tell_trained(const Sharers *sharers)
{
    double bytes = (double)sharers->trained;
    const char *when = sharers->turns ? " in the turn of generation" : "";
    return bytes < 0.1 * 0x1p30 ? mem_printf("train workers take %.1f MiB%s", bytes / 0x1p20, when)
                                : mem_printf("train workers take %.2f GiB%s", bytes / 0x1p30, when);
}

static Status refuse_room(const Policy *policy, const MemoryRoom *room, const Sharers *sharers,
                          Error *err)
{
    const JobConfig *config = policy->config;
    bool is_set = config->rollout.kv_cache_mb > 0;
    int64_t workers = sharers->workers;
    int64_t most = mb_of_a_worker(policy, left_for_pages(policy, room, sharers), sharers);
    char *trained = tell_trained(sharers);
    error_set(err, ERR_RESOURCE,
              "%s: %lld rollout worker%s take%s %.2f GiB%s, but of %.2f GiB that are free%s "
              "%s and a tenth is kept (%lld answers of up to %lld "
              "tokens at a time; of each worker: %s)",
              is_set ? "rollout.kv_cache_mb" : "rollout.concurrency", (long long)workers,
              plural(workers), workers == 1 ? "s" : "",
              (double)(workers * policy->memory_bytes) / 0x1p30,
              config->kv_cache_decided ? " as decided when the run began (memory.json)" : "",
              (double)room->available / 0x1p30, config->device != JOB_CPU ? " on a GPU" : "",
              trained, (long long)config->rollout.concurrency, (long long)config->data.max_length,
              policy->memory_plan);
    free(trained);
    if (most << 20 < bytes_for_an_answer(policy))
        return error_append(err, "Lower rollout.concurrency, data.max_length or "
                                 "rollout.num_workers, or leave train workers less with "
                                 "train.memory_gb.");
    return error_append(err,
                        "Write rollout.kv_cache_mb: %lld or less (answers that find no room wait), "
                        "lower %srollout.num_workers, or leave train workers less with "
                        "train.memory_gb.",
                        (long long)most, is_set ? "" : "rollout.concurrency, data.max_length or ");
}

static bool fits(const Policy *policy, const MemoryRoom *room, bool turns)
{
    const Sharers sharers = count_sharers(policy, room->trained, turns);
    return sharers.workers * policy->memory_bytes <= left_of(room, &sharers);
}

static bool may_take_turns(const Policy *policy)
{
    char why[256];
    const DeviceMemory *memory = policy->device.memory;
    return policy->config->rollout.offload == OFFLOAD_AUTO && job_may_take_turns(policy->config) &&
           memory != NULL && memory->has_pools(why, sizeof why);
}

Status policy_find_room(const Policy *policy, MemoryRoom *room, Error *err)
{
    const JobConfig *config = policy->config;
    bool turns = config->rollout.offload == OFFLOAD_ON;
    room->kv_cache_mb = 0;
    room->takes_turns = false;
    if (room->available == 0) return OK;
    if (!turns && may_take_turns(policy) && !fits(policy, room, turns))
        turns = room->takes_turns = true;
    if (fits(policy, room, turns)) return OK;
    const Sharers sharers = count_sharers(policy, room->trained, turns);
    if (config->rollout.kv_cache_mb > 0) return refuse_room(policy, room, &sharers, err);
    int64_t left = left_for_pages(policy, room, &sharers);
    int64_t mb = mb_of_a_worker(policy, left / 4 * 3, &sharers);
    if (mb << 20 < bytes_for_an_answer(policy)) return refuse_room(policy, room, &sharers, err);
    room->kv_cache_mb = mb;
    return OK;
}

/* ---- weights ---- */

/* Those that were received are of no board. */
static bool are_same_boards(const Policy *policy, const RolloutWeights *weights)
{
    for (int r = 0; r < weights->num_boards; r++)
        if ((policy->rank[r].board == NULL && !policy->rests) ||
            memcmp(&policy->rank[r].board_id, &weights->board[r], sizeof(WeightBoardId)) != 0)
            return false;
    return true;
}

/* When the engine has let go of what lies there. */
static void close_board(PolicyRank *rank)
{
    for (int set = 0; set < 2; set++)
        if (rank->weights[set] != NULL && rank->weights[set]->borrowed) {
            weights_destroy(rank->weights[set]);
            rank->weights[set] = NULL;
        }
    weight_board_destroy(rank->board);
    rank->board = NULL;
}

static void close_board_before(PolicyRank *rank)
{
    weight_board_destroy(rank->board_before);
    rank->board_before = NULL;
    rank->set_before = -1;
}

static Status start_over(Policy *policy, Error *err)
{
    TRY(engine_thread_reset(policy->engine, err));
    policy->in_use = -1;
    for (int r = 0; r < policy->num_ranks; r++)
        close_board(&policy->rank[r]);
    return OK;
}

/* Said when it changes: how weights come here. */
static void tell_way(Policy *policy, const char *way)
{
    if (policy->told_way == way) return;
    policy->told_way = way;
    log_event(LOG_INFO, "weights_come", F_STR("by", way));
}

static void tell_way_of_board(Policy *policy, const WeightBoard *board)
{
    const char *note = weight_board_note(board), *before = policy->told_way;
    const WeightPlan *plan = policy->rank[0].plan;
    tell_way(policy, weight_board_is_in_place(board) ? "this GPU, where a train worker shows them"
                     : note != NULL                  ? "the memory of this host, copied to the GPU"
                     : policy->device.memory != NULL ? "another GPU of this host, copied"
                                                     : "the memory of this host, copied");
    if (note == NULL || policy->told_way == before) return;
    int64_t more = reads_in_place(policy) ? 2 * weight_board_bytes(plan, policy->dtype, 1) : 0;
    log_event(LOG_WARN, "weights_through_host", F_STR("why", note),
              F_INT("beside_the_plan_mib", more >> 20));
}

static Status open_board(Policy *policy, PolicyRank *rank, const WeightBoardId *id, Error *err)
{
    WeightBoardOptions options = {
        .plan = rank->plan, .dtype = policy->dtype, .memory = policy->device.memory};
    if (rank->board != NULL) return OK;
    TRY(weight_board_open(id, &options, &rank->board, err));
    rank->board_id = *id;
    tell_way_of_board(policy, rank->board);
    return OK;
}

/* Where they lie on the trainer's board. The set that is not in use becomes a view of that slot,
 * unless it is one. */
static Status find_part(Policy *policy, PolicyRank *rank, int64_t version, Weights **weights,
                        Error *err)
{
    void *flat = NULL;
    TRY(weight_board_find(rank->board, version, policy->kernels, &flat, err));
    if (*weights != NULL && (*weights)->flat == flat) return OK;
    weights_destroy(*weights);
    *weights = weights_create_at(rank->plan, policy->dtype, policy->kernels, flat);
    return OK;
}

/* A set of one's own. With turns what is in it is taken anew after a rest. */
static void make_room(Policy *policy, const PolicyRank *rank, Weights **weights)
{
    const char *before =
        memory_purpose("weights of the model: lower rollout.num_workers, or set model.dtype: bf16");
    const DeviceMemory *pools = policy->pools;
    const MemoryPool pool = pools != NULL ? pools->pool_enter(POOL_SCRATCH) : POOL_FIXED;
    if (*weights == NULL) *weights = weights_create(rank->plan, policy->dtype, policy->kernels);
    if (pools != NULL) pools->pool_enter(pool);
    memory_purpose(before);
}

/* A copy, as the trainer's digests say it is. */
static Status copy_part(Policy *policy, PolicyRank *rank, int64_t version, Weights **weights,
                        Error *err)
{
    make_room(policy, rank, weights);
    return weight_board_take(rank->board, version, policy->kernels, (*weights)->flat, err);
}

/* Makes a rank's part ready from its board. */
static Status take_part(Policy *policy, PolicyRank *rank, const WeightBoardId *id, int64_t version,
                        Weights **weights, Error *err)
{
    TRY(open_board(policy, rank, id, err));
    TRY(weight_board_is_in_place(rank->board) ? find_part(policy, rank, version, weights, err)
                                              : copy_part(policy, rank, version, weights, err));
    weights_prepare(*weights);
    return OK;
}

/* Before the version is in use: an answer may be done with it at once. */
static void remember_digest(Policy *policy, const RolloutWeights *weights)
{
    uint64_t digest = 0;
    const bool received = weights->num_boards == 0;
    for (int r = 0; r < policy->num_ranks; r++) {
        const PolicyRank *rank = &policy->rank[r];
        digest = rng_mix(digest ^ (received ? rank->received
                                            : weight_board_digest(rank->board, weights->version)));
    }
    for (int r = 0; r < weights->num_digests; r++)
        digest = rng_mix(digest ^ weights->digest[r]);
    pthread_mutex_lock(&policy->mutex);
    policy->seen[policy->num_seen++ % DIGESTS_KEPT] = (VersionDigest){weights->version, digest};
    pthread_mutex_unlock(&policy->mutex);
}

/* ---- turns on a GPU ---- */

Status policy_rest(Policy *policy, int64_t *ret_bytes, Error *err)
{
    *ret_bytes = 0;
    if (policy->pools == NULL)
        return error_set(err, ERR_INTERNAL, "this worker was not made to rest (rollout.offload)");
    if (policy->engine != NULL) TRY(engine_thread_rest(policy->engine, err));
    if (policy->follower != NULL) (void)engine_follower_withdraw(policy->follower);
    for (int r = 0; r < policy->num_ranks; r++) { /* the train worker's memory is its own */
        weight_board_destroy(policy->rank[r].board);
        policy->rank[r].board = NULL;
        close_board_before(&policy->rank[r]);
    }
    *ret_bytes = policy->pools->pool_release(POOL_STATE, true);
    *ret_bytes += policy->pools->pool_release(POOL_SCRATCH, false);
    policy->rests = true;
    return OK;
}

static Status wake(Policy *policy, Error *err)
{
    char why[256] = "";
    if (!policy->rests) return OK;
    if (!policy->pools->pool_restore(POOL_STATE, why, sizeof why) ||
        !policy->pools->pool_restore(POOL_SCRATCH, why, sizeof why))
        return error_set(err, ERR_RESOURCE,
                         "the GPU's memory that this worker had given back is not to be had again: "
                         "%s.\nSee that nothing else uses the GPU, or lower rollout.kv_cache_mb.",
                         why);
    policy->rests = false;
    return OK;
}

/* ---- taking over ---- */

/* The set that nobody generates with. */
static int other_set(const Policy *policy)
{
    return policy->in_use == 0 ? 1 : 0;
}

Status policy_receive(Policy *policy, const RolloutMove *move, uint64_t *ret_digest, Error *err)
{
    int set = other_set(policy);
    if (policy->num_ranks < policy->tp_size)
        return error_set(err, ERR_UNSUPPORTED,
                         "ranks in processes of their own read weights on their host alone");
    if (move->num_groups != policy->tp_size)
        return error_set(err, ERR_INVALID, "weights of %d ranks, but train.tp_size is %d",
                         move->num_groups, policy->tp_size);
    policy->received = 0;
    for (int r = 0; r < policy->num_ranks; r++) {
        PolicyRank *rank = &policy->rank[r];
        WeightMove part = move->move;
        part.group = move->group[r];
        if (rank->line == NULL)
            return error_set(err, ERR_UNSUPPORTED,
                             "weights of another host come to GPUs alone (device: cuda)");
        tell_way(policy, "NCCL, from a train worker of another host");
        if (rank->weights[set] != NULL && rank->weights[set]->borrowed) {
            weights_destroy(rank->weights[set]);
            rank->weights[set] = NULL;
        }
        make_room(policy, rank, &rank->weights[set]);
        TRY(weight_line_move(rank->line, &part, rank->weights[set]->flat, &rank->received, err));
        weights_prepare(rank->weights[set]);
    }
    policy->received = move->move.version;
    policy->received_set = set;
    *ret_digest = policy->rank[0].received;
    return OK;
}

void policy_abandon(Policy *policy, uint64_t move)
{
    for (int r = 0; r < policy->num_ranks; r++)
        if (policy->rank[r].line != NULL) weight_line_abandon(policy->rank[r].line, move);
}

uint64_t policy_progress(const Policy *policy)
{
    return atomic_load(&policy->progress);
}

static Status make_ready(Policy *policy, const RolloutWeights *weights, int set, Error *err)
{
    for (int r = 0; r < weights->num_boards; r++) {
        PolicyRank *rank = &policy->rank[r];
        TRY(take_part(policy, rank, &weights->board[r], weights->version, &rank->weights[set],
                      err));
    }
    return OK;
}

/* Rank 0 reads set `used` (-1: none) until it is asked to adopt what comes now. */
static void leave_board(PolicyRank *rank, int used)
{
    Weights **other = &rank->weights[used == 0 ? 1 : 0];
    if (used < 0) {
        close_board_before(rank);
        close_board(rank);
        return;
    }
    if (*other != NULL && (*other)->borrowed) {
        weights_destroy(*other);
        *other = NULL;
    }
    if (used == rank->set_before) {
        weight_board_destroy(rank->board); /* nobody has gone over to it */
    } else {
        close_board_before(rank);
        rank->board_before = rank->board;
        rank->set_before = used;
    }
    rank->board = NULL;
}

/* Of a rank other than 0: has the weights ready when this returns. */
static Status adopt_behind(Policy *policy, const RolloutWeights *weights, RolloutAdoption *ret,
                           Error *err)
{
    PolicyRank *rank = &policy->rank[0];
    int64_t began = clock_ns();
    const Weights *in_use = engine_follower_withdraw(policy->follower);
    int used = in_use == NULL ? -1 : in_use == rank->weights[1];
    if (weights->restart || !are_same_boards(policy, weights))
        leave_board(rank, used);
    else if (used != rank->set_before)
        close_board_before(rank);
    TRY(wake(policy, err));
    Weights **next = &rank->weights[used == 0 ? 1 : 0];
    TRY(take_part(policy, rank, &weights->board[0], weights->version, next, err));
    policy->kernels->synchronize();
    ret->digest = weight_board_digest(rank->board, weights->version);
    ret->wait_s = (double)(clock_ns() - began) / 1e9;
    return engine_follower_offer(policy->follower, *next, weights->version, err);
}

/* Weights of the ranks of this process, and what those in others have said of theirs. */
static Status check_weights(const Policy *policy, const RolloutWeights *weights, Error *err)
{
    bool apart = policy->num_ranks < policy->tp_size;
    int others = apart && policy->first_rank == 0 ? policy->tp_size - 1 : 0;
    bool received = weights->num_boards == 0 && !apart;
    if ((weights->num_boards != policy->num_ranks && !received) || weights->num_digests != others)
        return error_set(err, ERR_INVALID,
                         "weights of %d ranks and digests of %d, expected %d and %d with "
                         "train.tp_size %d",
                         weights->num_boards, weights->num_digests, policy->num_ranks, others,
                         policy->tp_size);
    if (!apart || policy->comms.plan != NULL) return OK;
    return error_set(err, ERR_INVALID, "weights before the ranks have joined their group");
}

static Status put_to_use(Policy *policy, int set, int64_t version, double *ret_pause_s, Error *err)
{
    const Weights *next[ENGINE_RANKS_MAX];
    for (int r = 0; r < policy->num_ranks; r++)
        next[r] = policy->rank[r].weights[set];
    policy->in_use = -1; /* on failure the engine has none */
    policy->received = 0;
    TRY(engine_thread_adopt(policy->engine, next, version, ret_pause_s, err));
    policy->in_use = set;
    policy->version = version;
    return OK;
}

Status policy_adopt(Policy *policy, const RolloutWeights *weights, RolloutAdoption *ret, Error *err)
{
    int64_t began = clock_ns();
    bool received = weights->num_boards == 0;
    *ret = (RolloutAdoption){0};
    TRY(check_weights(policy, weights, err));
    if (policy->first_rank > 0) return adopt_behind(policy, weights, ret, err);
    bool same = are_same_boards(policy, weights);
    if (weights->restart || !same) TRY(start_over(policy, err));
    bool known = policy->in_use >= 0 && policy->version == weights->version;
    if (known && !policy->rests) return OK;
    if (received && policy->received != weights->version)
        return error_set(err, ERR_NOT_FOUND, "version %lld of the weights was not received here",
                         (long long)weights->version);
    TRY(wake(policy, err));
    int set = received ? policy->received_set : other_set(policy);
    TRY(make_ready(policy, weights, set, err));
    remember_digest(policy, weights);
    ret->wait_s = (double)(clock_ns() - began) / 1e9;
    return put_to_use(policy, set, weights->version, &ret->pause_s, err);
}

uint64_t policy_weights_digest(Policy *policy, int64_t version)
{
    uint64_t digest = 0;
    pthread_mutex_lock(&policy->mutex);
    int oldest = policy->num_seen > DIGESTS_KEPT ? policy->num_seen - DIGESTS_KEPT : 0;
    for (int i = policy->num_seen - 1; i >= oldest && digest == 0; i--)
        if (policy->seen[i % DIGESTS_KEPT].version == version)
            digest = policy->seen[i % DIGESTS_KEPT].digest;
    pthread_mutex_unlock(&policy->mutex);
    return digest;
}
