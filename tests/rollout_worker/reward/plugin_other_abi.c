/* A plugin compiled against an interface that this build does not have. */
#include "rollout_worker/reward/reward_plugin.h"

const RewardPlugin *reward_plugin(void)
{
    static const RewardPlugin table = {.abi = REWARD_PLUGIN_ABI + 1, .name = "other"};
    return &table;
}
