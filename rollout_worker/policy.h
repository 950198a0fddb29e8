/* Policy: the network that a rollout worker generates with: an engine in a thread of its own
 * (engine_thread.h), made as the job says, and the weights that train ranks show it on their boards
 * (model/weight_board.h). Version after version is copied and packed beside generation, into the
 * one of two sets of weights that is not in use, compared with the trainer's digests, and then
 * takes the other's place between two tokens. What train ranks of another host send
 * (model/weight_line.h) goes into the same set.
 *
 * With tensor parallelism this process holds all ranks, in the trainer's layout, or each rank is a
 * process of its own (job_has_rank_processes): then this is one rank's part. The log-probs it
 * reports are those of the trainer's ranks to the bit either way. */
#ifndef TROUPE_ROLLOUT_WORKER_POLICY_H
#define TROUPE_ROLLOUT_WORKER_POLICY_H

#include "rollout_worker/chat_text.h"
#include "rollout_worker/engine/end_tokens.h"
#include "rollout_worker/engine/engine_thread.h"
#include "rollout_worker/rank_comms.h"

typedef struct Policy Policy;

/* What a sample ends with, by itself. In this order, as far as they are known: eos_token_id of
 * generation_config.json or config.json in model.path (end_tokens.h), or of model.config; if there
 * is none, the tokenizer's eos_token. And always the token with which the chat template ends an
 * assistant's turn: that is what training teaches a model to stop with, whatever its files say.
 * ERR_INVALID when nothing is known: every answer would run to its limit. */
Status policy_end_tokens(const ChatText *text, int64_t vocab_size, EndTokens *ret, Error *err);

/* Plans the memory: ERR_INVALID where keys and values of one sample of data.max_length do not fit
 * rollout.kv_cache_mb, or train.tp_size cannot split the model. Borrows `text`; allocates little:
 * engine and weights come with the first adoption. */
Status policy_create(const ChatText *text, Policy **ret, Error *err);

/* The part of a tensor-parallel rank other than 0 that is a process of its own: it has no engine
 * thread and asks nothing of the text side; it joins, adopts and rests. */
Status policy_create_rank(const JobConfig *config, int tp_rank, Policy **ret, Error *err);

void policy_end(Policy *policy);     /* engine_thread_end: whoever waits for it returns soon */
void policy_destroy(Policy *policy); /* accepts NULL; nobody may be in a call */

EngineThread *policy_engine(const Policy *policy); /* of rank 0 */

/* engine_thread_watch, of any rank. */
void policy_watch(Policy *policy, EngineLost lost, void *context);

/* What a rank other than 0 does: RolloutActivity's. */
void policy_describe_rank(const Policy *policy, uint64_t *ret_progress, int *ret_working);

/* Where ranks are processes: ids for their groups, by rank 0; and all join them, before the first
 * adoption. Both by the thread that adopts. */
Status policy_make_group(const Policy *policy, RankGroupId *ret, Error *err);
Status policy_join(Policy *policy, const RankGroupId *id, Error *err);
const char *policy_memory_plan(const Policy *policy); /* for people; borrowed */

/* What the device that it generates on had free when the policy was made; 0: nobody knows. */
int64_t policy_memory_free(const Policy *policy);

/* What a machine, or a GPU, has for rollout workers, before any of them holds memory. */
typedef struct MemoryRoom {
    int64_t available;   /* policy_memory_free; 0: nobody knows */
    int64_t trained;     /* what all train workers of the job take */
    int64_t kv_cache_mb; /* what is left for keys and values of a worker, where that is less than
                            all answers take and the job leaves it to us; else 0 */
    bool takes_turns; /* training and generation do not fit a GPU at once, and the job leaves it to
                         us: they are to take turns */
} MemoryRoom;

/* Sets room->kv_cache_mb: three quarters of what is left when a tenth is kept for all else, so that
 * a later session finds as much. On a CPU all rollout workers share the machine's memory with all
 * train workers; of GPUs each has its part of both, or is a rollout worker's own. ERR_RESOURCE when
 * the job's rollout workers take more than there is, even so. With turns (rollout.offload)
 * the larger of both counts, and of training what lies there for generation. Results do not depend
 * on it: answers that find no room wait. */
Status policy_find_room(const Policy *policy, MemoryRoom *room, Error *err);

/* Takes a version over. Returns when it is in use and nobody reads the earlier one any more; of a
 * rank other than 0: when it is ready, and rank 0 may be asked, with which it goes over to it. The
 * version that is in use already is left as it is, unless `restart`: then, and when the boards are
 * others than before, everything in work ends as aborted first, and requests wait for these
 * weights. ERR_UNAVAILABLE when a train rank is gone, ERR_NOT_FOUND when it does not show this
 * version any more, ERR_DATA when weights are not what it wrote. By one thread at a time. */
Status policy_adopt(Policy *policy, const RolloutWeights *weights, RolloutAdoption *ret,
                    Error *err);

/* Receives a version into the set of weights that is not in use, which the next policy_adopt
 * without boards takes over. *ret_digest: of rank 0's part. Fails as weight_line_move; what is in
 * use stays. By the thread that adopts. */
Status policy_receive(Policy *policy, const RolloutMove *move, uint64_t *ret_digest, Error *err);

/* Ends such a one, and those up to this id that come later. Any thread. */
void policy_abandon(Policy *policy, uint64_t move);

/* Changes while one gets on. Any thread. */
uint64_t policy_progress(const Policy *policy);

/* Gives the GPU to training until the next adoption: what is in work waits, keys and values are
 * dropped (rollout.offload). *ret_bytes: what the device has gained. By the thread that adopts. */
Status policy_rest(Policy *policy, int64_t *ret_bytes, Error *err);

/* One digest of the weights of a version that was adopted lately; 0: not known. Any thread. */
uint64_t policy_weights_digest(Policy *policy, int64_t version);

#endif
