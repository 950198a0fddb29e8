#include "rollout_worker/rollout.h"

#include "base/memory.h"

const RolloutTable *rollout_table(RolloutFunction function)
{
    switch (function) {
    case ROLLOUT_SFT:
    case ROLLOUT_GENERATE:
        return &rollout_sft;
    }
    check_failed(__FILE__, __LINE__, "function", "no rollout function %d", (int)function);
}

void rollout_reject(Sample *ret, RejectReason reason, const char *message)
{
    ret->status = SAMPLE_REJECTED;
    ret->reject_reason = reason;
    ret->reject_message = mem_strdup(message);
}

void rollout_trace_clear(RolloutTrace *trace)
{
    tokenized_conversation_free(&trace->conversation);
    *trace = (RolloutTrace){0};
}
