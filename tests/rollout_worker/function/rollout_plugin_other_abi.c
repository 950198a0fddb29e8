/* A rollout function that was compiled against another interface than this build's. */
#include "rollout_worker/function/rollout_plugin.h"

const RolloutPlugin *rollout_plugin(void)
{
    static const RolloutPlugin table = {.abi = ROLLOUT_PLUGIN_ABI + 1};
    return &table;
}
