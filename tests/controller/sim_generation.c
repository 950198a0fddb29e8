/* Reinforcement learning in the make-believe cluster: boards of train ranks, rollout workers that
 * take weights over from them, and answers that depend on the weights that gave them. */
#include "sim_internal.h"

#include <string.h>

#include "base/rng.h"
#include "comm/comm.h" /* an id alone */
#include "config/eval_set.h"

bool generates(const World *w)
{
    return w->config->rollout.function != ROLLOUT_SFT;
}

void note_group_sizes(World *w)
{
    int sets = 1 + eval_set_count(w->config);
    for (int set = 0; set < SIM_SETS; set++) {
        int64_t size = 1;
        if (generates(w) && set < sets)
            size = set == 0 ? w->config->rollout.n_samples_per_prompt
                            : eval_set(w->config, set - 1).n_samples_per_prompt;
        w->group_size[set] = (int)size;
    }
}

/* A third of the groups is as good as it is bad. */
void make_group(World *w, const Process *worker, int64_t begun_with, int set, SampleMeta *sample)
{
    int64_t newest = worker->adopted.version, oldest = begun_with < newest ? begun_with : newest;
    if (newest == 0 || oldest == 0)
        violate(w, "actor %d is asked for answers before it has weights", worker->actor);
    SampleMeta prompt = sample[0];
    uint64_t key = rng_mix(worker->adopted.weights ^ (uint64_t)prompt.position * 77);
    for (int i = 0; i < w->group_size[set]; i++) {
        uint64_t h = rng_mix(key + (uint64_t)i);
        sample[i] = prompt;
        sample[i].index = i;
        sample[i].length = prompt.length + (int32_t)(h & 7);
        sample[i].trained_tokens = 1 + (int32_t)(h & 7);
        sample[i].reward = key % 3 == 0 ? 1 : (float)(h >> 10 & 1);
        sample[i].right = sample[i].reward > 0;
        sample[i].weight_version = oldest + (int64_t)(h >> 40) % (newest - oldest + 1);
        if (h % 23 == 0) { /* its verifier failed */
            sample[i].status = SAMPLE_REJECTED;
            sample[i].reject_reason = REJECT_UNJUDGED;
        }
    }
}

/* ---- GPUs ---- */

void take_gpu(World *w, Process *process)
{
    bool trains = process->actor >= w->first_train;
    if (w->config->rollout.offload != OFFLOAD_ON || !generates(w)) return;
    for (int i = 1; i < w->num_actors; i++) {
        const Process *other = &w->process[i];
        if (other->alive && other->has_gpu && (i >= w->first_train) != trains)
            violate(w, "actor %d is to use the GPU that actor %d holds", process->actor, i);
    }
    process->has_gpu = true;
}

/* ---- weights ---- */

/* The rollout worker, or rank of one, that may look at this slot of the rank's board; 0: none. */
static int find_reader(const World *w, const Process *rank, int slot)
{
    int64_t version = rank->board[slot].version;
    for (int i = 1; i < w->first_train; i++) {
        const Process *worker = &w->process[i];
        bool rests = w->config->rollout.offload == OFFLOAD_ON && !worker->has_gpu;
        if (!worker->alive || rests || worker->receives ||
            worker->reads_of != w->process[w->first_train].incarnation)
            continue;
        if (worker->adopted.version == version || worker->adopting == version) return i;
        if (worker->ready.version == version) return i;
    }
    return 0;
}

void answer_publish(World *w, const Effect *fx, Process *rank)
{
    BoardId *board = arena_alloc(w->arena, sizeof *board);
    int64_t version = fx->call.publish.version;
    int slot = !rank->newest;
    if (version != rank->step + 1)
        violate(w, "rank %d at step %lld is to publish version %lld", fx->actor,
                (long long)rank->step, (long long)version);
    int reader = rank->board[slot].version != 0 ? find_reader(w, rank, slot) : 0;
    if (reader != 0)
        violate(w, "rank %d writes version %lld over %lld, which actor %d reads", fx->actor,
                (long long)version, (long long)rank->board[slot].version, reader);
    rank->newest = slot;
    rank->board[slot] = (Shown){version, rank->weights};
    memset(board, 0, sizeof *board);
    board->bytes[0] = (char)(fx->actor - w->first_train);
    Event event = {0};
    event.reply.publish.board = board;
    event.reply.publish.digest = rank->weights;
    answer(w, fx, latency(w), &event);
}

/* ---- ranks that are processes of their own ---- */

static int num_behind(const World *w)
{
    int workers = w->first_behind - 1;
    return job_has_rank_processes(w->config) ? (w->first_train - w->first_behind) / workers : 0;
}

static Process *rank_behind(World *w, int worker, int i)
{
    return &w->process[w->first_behind + (worker - 1) * num_behind(w) + i];
}

static bool is_behind(const World *w, int actor)
{
    return actor >= w->first_behind && actor < w->first_train;
}

static int worker_of(const World *w, int actor)
{
    return is_behind(w, actor) ? 1 + (actor - w->first_behind) / num_behind(w) : actor;
}

static int tp_rank_of(const World *w, const Effect *fx)
{
    return is_behind(w, fx->actor) ? 1 + (fx->actor - w->first_behind) % num_behind(w) : 0;
}

void answer_group_ids(World *w, const Effect *fx, Process *worker)
{
    static char id[COMM_ID_BYTES];
    uint64_t name = worker->incarnation;
    if (is_behind(w, fx->actor) || num_behind(w) == 0)
        violate(w, "actor %d is to name a group", fx->actor);
    memcpy(id, &name, sizeof name);
    Event event = {0};
    event.reply.group_ids.tensor_id = event.reply.group_ids.plan_id = id;
    answer(w, fx, latency(w), &event);
}

void answer_join(World *w, const Effect *fx, Process *process)
{
    uint64_t name;
    memcpy(&name, fx->call.join.plan_id, sizeof name);
    if (process->rank_group != 0) violate(w, "actor %d is to join twice", fx->actor);
    process->rank_group = name;
    answer(w, fx, latency(w), &(Event){0});
}

void check_ranks(World *w, int worker)
{
    const Process *first = &w->process[worker];
    for (int i = 0; i < num_behind(w); i++) {
        const Process *rank = rank_behind(w, worker, i);
        if (rank->alive && (rank->rank_group == 0 || rank->rank_group != first->rank_group))
            violate(w, "actor %d works with ranks of another group", worker);
    }
}

void check_rest(World *w, int actor)
{
    const Process *worker = &w->process[worker_of(w, actor)];
    if (actor < w->first_train && worker->alive && worker->has_gpu)
        violate(w, "actor %d rests, but the worker that it is a rank of does not", actor);
}

/* The worker goes over to weights with all of its ranks. A dead one is told of soon. */
static void go_over(World *w, int worker)
{
    Process *first = &w->process[worker];
    check_ranks(w, worker);
    for (int i = 0; i < num_behind(w); i++) {
        Process *rank = rank_behind(w, worker, i);
        if (!rank->alive) continue;
        if (rank->ready.version != first->adopted.version ||
            rank->ready.weights != first->adopted.weights)
            violate(w, "actor %d goes over to version %lld, a rank behind it has %lld ready",
                    worker, (long long)first->adopted.version, (long long)rank->ready.version);
        rank->adopted = rank->ready;
    }
}

typedef struct Adoption {
    Effect fx;
    uint64_t rank; /* incarnation of the rank that shows the weights */
    int board_of;  /* that rank */
} Adoption;

/* Where it stands ready for the worker; NULL: nowhere. */
static const Shown *find_shown(const World *w, const Adoption *adoption, const Process *worker)
{
    const Effect *fx = &adoption->fx;
    const Shown *found = &worker->received;
    if (worker->receives) return found->version == fx->call.adopt.version ? found : NULL;
    const Process *rank = &w->process[w->first_train + adoption->board_of];
    if (strcmp(host_name(w, rank->node), host_name(w, worker->node)) != 0) return NULL;
    for (int i = 0; i < 2; i++)
        if (rank->board[i].version == fx->call.adopt.version) return &rank->board[i];
    return NULL;
}

static void finish_adoption(World *w, void *argument)
{
    Adoption *adoption = argument;
    const Effect *fx = &adoption->fx;
    Process *worker = &w->process[fx->actor];
    const Process *rank = &w->process[w->first_train + adoption->board_of];
    if (!worker->alive || worker->incarnation != fx->incarnation) return;
    if (rank->incarnation != adoption->rank) { /* its boards are gone; nobody waits for this */
        worker->adopting = 0;
        answer(w, fx, 1, &(Event){.status = ERR_UNAVAILABLE});
        return;
    }
    int64_t version = fx->call.adopt.version;
    const Shown *found = find_shown(w, adoption, worker);
    if (found == NULL) {
        violate(w, "actor %d does not find version %lld", fx->actor, (long long)version);
        return;
    }
    worker->adopting = 0;
    worker->progress++;
    if (is_behind(w, fx->actor)) {
        worker->ready = *found;
    } else {
        worker->adopted = *found;
        go_over(w, fx->actor);
    }
    answer(w, fx, 1, &(Event){0});
}

void answer_adopt(World *w, const Effect *fx, Process *worker)
{
    bool behind = num_behind(w) > 0;
    take_gpu(w, worker);
    if (behind && worker->rank_group == 0) violate(w, "actor %d is not in a group", fx->actor);
    int boards = fx->call.adopt.num_boards, tp_size = (int)w->config->train.tp_size;
    if (boards != (behind ? 1 : tp_size) && (behind || boards != 0)) /* 0: it has received them */
        violate(w, "actor %d is told of %d boards", fx->actor, boards);
    if (behind && boards > 0 && fx->call.adopt.board[0].bytes[0] % tp_size != tp_rank_of(w, fx))
        violate(w, "actor %d is told of the board of rank %d", fx->actor,
                fx->call.adopt.board[0].bytes[0]);
    uint64_t rank = w->process[w->first_train].incarnation;
    if (worker->reads_of != rank) {
        if (!fx->call.adopt.restart) violate(w, "actor %d is not told of new boards", fx->actor);
        /* A rank behind another computes on with what it has until its worker is told, too; but
         * that lies where nobody writes any more. */
        worker->adopted = worker->ready = (Shown){0};
        worker->given_up++;
    }
    worker->reads_of = rank;
    worker->adopting = fx->call.adopt.version;
    worker->receives = boards == 0;
    Adoption *adoption = arena_alloc(w->arena, sizeof *adoption);
    int board_of = worker->receives ? 0 : fx->call.adopt.board[0].bytes[0];
    *adoption = (Adoption){*fx, w->process[w->first_train + board_of].incarnation, board_of};
    push_run(w, latency(w), finish_adoption, adoption);
}

/* ---- weights between hosts: nobody in a group sees the others die ---- */

#define MOVE_DEADLINE_MS 60000

const char *host_name(const World *w, int node)
{
    static const char *const names[NODES_HERE] = {"host-0", "host-1", "host-2", "host-3"};
    return names[w->faults->hosts > 1 ? node % w->faults->hosts : 0];
}

void answer_meet(World *w, const Effect *fx, const Process *rank)
{
    CommId *id = arena_alloc(w->arena, sizeof *id);
    memset(id, 0, sizeof *id);
    uint64_t number = draw(w);
    memcpy(id->bytes, &number, sizeof number);
    if (rank->moves || fx->call.meet.size < 2)
        violate(w, "actor %d is to meet %d others amid a send", fx->actor, fx->call.meet.size - 1);
    Event event = {0};
    event.reply.meet.group = id;
    w->result.met++;
    answer(w, fx, latency(w), &event);
}

static bool is_in_move(const Process *process, const Effect *fx)
{
    return process->alive && process->moves && process->move.call.move.id == fx->call.move.id;
}

static void finish_part(World *w, Process *process, const Effect *fx)
{
    const Process *root = &w->process[w->first_train];
    process->moves = false;
    process->progress++;
    if (fx->call.call == CALL_RECEIVE) {
        process->received = (Shown){fx->call.move.version, root->weights};
        w->result.received++;
    } else {
        process->sent = fx->call.move.version;
    }
    answer(w, fx, latency(w), &(Event){0});
}

/* All have begun it some time ago; who has died since leaves the others waiting. */
static void finish_move(World *w, void *argument)
{
    const Effect *fx = argument;
    int members = 0;
    for (int i = 1; i < w->num_actors; i++)
        members += is_in_move(&w->process[i], fx);
    if (members < fx->call.move.size) return;
    for (int i = 1; i < w->num_actors; i++)
        if (is_in_move(&w->process[i], fx)) finish_part(w, &w->process[i], &w->process[i].move);
}

static void give_up_move(World *w, void *argument)
{
    const Effect *fx = argument;
    Process *process = &w->process[fx->actor];
    if (process->incarnation != fx->incarnation || !is_in_move(process, fx)) return;
    process->moves = false;
    answer(w, fx, 1, &(Event){.status = ERR_TIMEOUT, .message = "waited for the others"});
}

void answer_move(World *w, const Effect *fx, Process *process)
{
    bool sends = fx->call.call == CALL_SEND;
    int64_t version = fx->call.move.version;
    uint64_t group;
    if (sends && version != process->step + 1)
        violate(w, "rank %d at step %lld is to send version %lld", fx->actor,
                (long long)process->step, (long long)version);
    bool adopts = process->adopting != 0 && /* and not in vain */
                  process->reads_of == w->process[w->first_train].incarnation;
    if (!sends && adopts) violate(w, "actor %d is to receive while it adopts", fx->actor);
    if (!sends &&
        strcmp(host_name(w, process->node), host_name(w, w->process[w->first_train].node)) == 0)
        violate(w, "actor %d is beside the train ranks and is to receive", fx->actor);
    if (fx->call.move.id <= process->abandoned) {
        answer(w, fx, latency(w), &(Event){.status = ERR_CANCELLED, .message = "abandoned"});
        return;
    }
    memcpy(&group, fx->call.move.group->bytes, sizeof group);
    process->group = group;
    process->moves = true;
    process->move = *fx;
    if (!sends) process->received = (Shown){0};
    Effect *kept = arena_alloc(w->arena, sizeof *kept);
    *kept = *fx;
    int members = 0;
    for (int i = 1; i < w->num_actors; i++) {
        members += is_in_move(&w->process[i], fx);
        if (is_in_move(&w->process[i], fx) && w->process[i].group != group)
            violate(w, "actors %d and %d are in two groups", i, fx->actor);
    }
    if (members == fx->call.move.size) push_run(w, latency(w), finish_move, kept);
    push_run(w, MOVE_DEADLINE_MS, give_up_move, kept);
}

void answer_abandon(World *w, const Effect *fx, Process *process)
{
    if (fx->call.abandon.id > process->abandoned) process->abandoned = fx->call.abandon.id;
    if (process->moves && process->move.call.move.id <= process->abandoned) {
        process->moves = false;
        w->result.abandoned++;
        answer(w, &process->move, latency(w),
               &(Event){.status = ERR_CANCELLED, .message = "abandoned"});
    }
    answer(w, fx, latency(w), &(Event){0});
}

/* Groups below `end` that may be trained, where the records alone decide. */
static int64_t count_trained(const World *w, int64_t end)
{
    int64_t count = 0;
    for (int64_t p = 0; p < end; p++)
        count += sample_at(w, SET_TRAIN, p).status == SAMPLE_COMPLETED;
    return count;
}

static bool is_on_show(const World *w, int64_t version)
{
    bool is = false;
    for (int i = w->first_train; i < w->num_actors; i++) {
        const Process *rank = &w->process[i];
        is = is || version == rank->board[0].version || version == rank->board[1].version ||
             version == rank->sent;
    }
    return is;
}

/* The capacity: allowed age and the version's own step are all that may be ahead of what the
 * weights have learnt. */
void check_lease(World *w, const Effect *fx, const Process *worker)
{
    if (generates(w) && w->config->rollout.offload == OFFLOAD_ON && !worker->has_gpu)
        violate(w, "actor %d is given work while it rests", fx->actor);
    if (!generates(w) || fx->call.set != SET_TRAIN) return;
    int64_t version = worker->adopted.version, end = fx->call.lease.first + fx->call.lease.count;
    int64_t batch = job_samples_per_step(w->config) / w->group_size[SET_TRAIN];
    if (!is_on_show(w, version))
        violate(w, "actor %d has weights of version %lld and is given work", fx->actor,
                (long long)version);
    if (w->config->algorithm.dynamic_filter != FILTER_NONE) return;
    int64_t ahead = count_trained(w, end) - (version - 1) * batch;
    if (ahead > w->result.most_ahead) w->result.most_ahead = ahead;
}

void check_versions(World *w, const Plan *plan)
{
    if (plan->set == SET_TRAIN) {
        w->result.dropped += plan->dropped[GROUP_TOO_STALE];
        w->result.recomputed += plan->recomputed + plan->given_up;
    }
    for (int i = 0; i < plan->num_samples && generates(w) && plan->set == SET_TRAIN; i++) {
        int64_t version = plan->sample[i].weight_version;
        if (version > plan->step || version < plan->step - w->config->rollout.max_staleness)
            violate(w, "step %lld is to train an answer of version %lld", (long long)plan->step,
                    (long long)version);
    }
}
