/* Reinforcement learning in the make-believe cluster: boards of train ranks, rollout workers that
 * take weights over from them, and answers that depend on the weights that gave them. */
#include "sim_internal.h"

#include "base/rng.h"
#include "config/eval_set.h"

bool generates(const World *w)
{
    return w->config->rollout.function == ROLLOUT_GENERATE;
}

int group_size(const World *w, int set)
{
    if (!generates(w)) return 1;
    return (int)(set == 0 ? w->config->rollout.n_samples_per_prompt
                          : eval_set(w->config, set - 1).n_samples_per_prompt);
}

/* A third of the groups is as good as it is bad. */
void make_group(const World *w, const Process *worker, int set, SampleMeta *sample)
{
    if (worker->adopted.version == 0)
        violate((World *)w, "actor %d is asked for answers before it has weights", worker->actor);
    SampleMeta prompt = sample[0];
    uint64_t key = rng_mix(worker->adopted.weights ^ (uint64_t)prompt.position * 77);
    for (int i = 0; i < group_size(w, set); i++) {
        uint64_t h = rng_mix(key + (uint64_t)i);
        sample[i] = prompt;
        sample[i].index = i;
        sample[i].length = prompt.length + (int32_t)(h & 7);
        sample[i].trained_tokens = 1 + (int32_t)(h & 7);
        sample[i].reward = key % 3 == 0 ? 1 : (float)(h >> 10 & 1);
        sample[i].right = sample[i].reward > 0;
        sample[i].weight_version = worker->adopted.version;
        if (h % 23 == 0) { /* its verifier failed */
            sample[i].status = SAMPLE_REJECTED;
            sample[i].reject_reason = REJECT_UNJUDGED;
        }
    }
}

/* ---- weights ---- */

/* Whether a rollout worker may look at this slot of the rank's board. */
static bool is_read(const World *w, const Process *rank, int slot)
{
    int64_t version = rank->board[slot].version;
    for (int i = 1; i < w->first_train; i++) {
        const Process *worker = &w->process[i];
        if (!worker->alive || worker->reads_of != w->process[w->first_train].incarnation) continue;
        if (worker->adopted.version == version || worker->adopting == version) return true;
    }
    return false;
}

void answer_publish(World *w, const Effect *fx, Process *rank)
{
    static BoardId board;
    int64_t version = fx->call.publish.version;
    int slot = !rank->newest;
    if (version != rank->step + 1)
        violate(w, "rank %d at step %lld is to publish version %lld", fx->actor,
                (long long)rank->step, (long long)version);
    if (rank->board[slot].version != 0 && is_read(w, rank, slot))
        violate(w, "rank %d writes version %lld over %lld, which is read", fx->actor,
                (long long)version, (long long)rank->board[slot].version);
    rank->newest = slot;
    rank->board[slot] = (Shown){version, rank->weights};
    Event event = {0};
    event.reply.publish.board = &board;
    answer(w, fx, latency(w), &event);
}

typedef struct Adoption {
    Effect fx;
    uint64_t rank; /* incarnation of rank 0 */
} Adoption;

static void finish_adoption(World *w, void *argument)
{
    Adoption *adoption = argument;
    const Effect *fx = &adoption->fx;
    Process *worker = &w->process[fx->actor];
    const Process *rank = &w->process[w->first_train];
    if (!worker->alive || worker->incarnation != fx->incarnation) return;
    if (rank->incarnation != adoption->rank) { /* its boards are gone; nobody waits for this */
        worker->adopting = 0;
        answer(w, fx, 1, &(Event){.status = ERR_UNAVAILABLE});
        return;
    }
    int64_t version = fx->call.adopt.version;
    const Shown *found = NULL;
    for (int i = 0; i < 2; i++)
        if (rank->board[i].version == version) found = &rank->board[i];
    if (found == NULL) {
        violate(w, "actor %d does not find version %lld", fx->actor, (long long)version);
        return;
    }
    worker->adopted = *found;
    worker->adopting = 0;
    worker->progress++;
    answer(w, fx, 1, &(Event){0});
}

void answer_adopt(World *w, const Effect *fx, Process *worker)
{
    uint64_t rank = w->process[w->first_train].incarnation;
    if (worker->reads_of != rank) {
        if (!fx->call.adopt.restart) violate(w, "actor %d is not told of new boards", fx->actor);
        worker->adopted = (Shown){0};
        worker->given_up++;
    }
    worker->reads_of = rank;
    worker->adopting = fx->call.adopt.version;
    Adoption *adoption = arena_alloc(w->arena, sizeof *adoption);
    *adoption = (Adoption){*fx, rank};
    push_run(w, latency(w), finish_adoption, adoption);
}

void check_versions(World *w, const Plan *plan)
{
    for (int i = 0; i < plan->num_samples && generates(w) && plan->set == SET_TRAIN; i++) {
        int64_t version = plan->sample[i].weight_version;
        if (version > plan->step || version < plan->step - w->config->rollout.max_staleness)
            violate(w, "step %lld is to train an answer of version %lld", (long long)plan->step,
                    (long long)version);
    }
}
