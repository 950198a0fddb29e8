/* What the caller's side of the sandbox and its helper both know. */
#include "rollout_worker/reward/sandbox.h"

const SandboxLimits sandbox_limits_default = {
    .wall_ms = 30000,
    .cpu_ms = 10000,
    .memory_bytes = (int64_t)512 << 20,
    .disk_bytes = (int64_t)64 << 20,
    .output_bytes = 64 << 10,
    .processes = 32,
    .open_files = 64,
};

static const char *const end_names[SANDBOX_END_COUNT] = {
    "exited",       "killed",       "wall_limit", "cpu_limit",
    "memory_limit", "output_limit", "starved",    "killed_outside"};

const char *sandbox_end_name(SandboxEnd end)
{
    CHECK((unsigned)end < SANDBOX_END_COUNT);
    return end_names[end];
}

void sandbox_result_clear(SandboxResult *result)
{
    str_free(&result->output);
    str_free(&result->errors);
    *result = (SandboxResult){0};
}
