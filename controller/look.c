#include "look.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "agent/gpu_inventory.h"
#include "base/memory.h"
#include "base/process.h"
#include "base/str.h"
#include "core/own_code.h"

#define SETS_MAX      64
#define ARGUMENTS_MAX 8 /* of a program's own */

/* `argument` has room for all of them; `tokens`: what was decided as no setting says it. */
static void list_arguments(const JobFile *file, const JobConfig *config, const char *program,
                           const char *const *more, const char *tokens, const char **argument)
{
    int count = 0;
    const char *stage = config->stage;
    CHECK(file->num_sets <= SETS_MAX);
    argument[count++] = program;
    argument[count++] = "--config";
    argument[count++] = file->path;
    for (int i = 0; i < file->num_sets; i++) {
        argument[count++] = "--set";
        argument[count++] = file->set[i];
    }
    if (config->tokens_decided && file->num_sets < SETS_MAX) {
        argument[count++] = "--set";
        argument[count++] = tokens;
    }
    if (stage != NULL) {
        argument[count++] = "--stage";
        argument[count++] = stage;
    }
    for (int i = 0; more != NULL && more[i] != NULL; i++) {
        CHECK(i < ARGUMENTS_MAX);
        argument[count++] = more[i];
    }
    argument[count] = NULL;
}

/* It was killed, perhaps by code of the user's that it runs: that of the data, where it looks at
 * what is trained on, or that of the rollout function. */
static int tell_kill(const JobConfig *config, const char *name, const char *const *more, int signal)
{
    char own[256] = "";
    const char *abbreviation = sigabbrev_np(signal);
    char *end = mem_printf("killed by signal %d (SIG%s)", signal,
                           abbreviation != NULL ? abbreviation : "?");
    bool of_data = more != NULL && more[0] != NULL && strcmp(more[0], "--brief=train") == 0;
    bool suspect = own_code_is_suspect(end, NULL);
    if (suspect && of_data) own_code_describe_reader(config, own, sizeof own);
    if (suspect && own[0] == '\0') own_code_describe(config, own, sizeof own);
    fprintf(stderr, "controller: %s was %s%s%s\n", name, end,
            own[0] != '\0' ? "; code of yours runs in it: " : "", own);
    free(end);
    return status_exit_code(own[0] != '\0' ? ERR_RESOURCE : ERR_INTERNAL);
}

/* What it prints goes to `ret`, as far as it fits; NULL: to where this command's does. */
static int look(const JobFile *file, const JobConfig *config, const char *name,
                const char *const *more, char *ret, size_t size)
{
    const char *argument[2 * SETS_MAX + ARGUMENTS_MAX + 8];
    char tokens[64];
    int end = 0;
    Error err = {0};
    snprintf(tokens, sizeof tokens, "train.max_tokens_per_gpu=%lld",
             (long long)config->train.max_tokens_per_gpu);
    list_arguments(file, config, name, more, tokens, argument);
    fflush(stdout);
    char *program = program_path(name);
    ProgramRun run = {.path = program,
                      .arguments = argument,
                      .words = ret,
                      .words_size = size,
                      .words_of = WORDS_OF_OUTPUT,
                      .cancel = -1};
    Status status = program_run(&run, &end, &err);
    free(program);
    if (status == OK && WIFEXITED(end)) return WEXITSTATUS(end);
    if (status == OK && WTERMSIG(end) == SIGPIPE) raise(SIGPIPE); /* who reads us has left */
    if (status == OK) return tell_kill(config, name, more, WTERMSIG(end));
    fprintf(stderr, "controller: %s %s\n", name, err.message);
    return status_exit_code(status);
}

int look_with(const JobFile *file, const JobConfig *config, const char *program,
              const char *const *arguments)
{
    return look(file, config, program, arguments, NULL, 0);
}

void look_for_gpu(const JobConfig *config, char ret[LOOK_GPU_BYTES])
{
    GpuInventory gpus;
    const Gpu *gpu = NULL;
    if (config->device != JOB_CPU) {
        gpu_inventory_read(&gpus);
        gpu = gpu_inventory_freest(&gpus);
    }
    snprintf(ret, LOOK_GPU_BYTES, "%s", gpu != NULL ? gpu->id : "");
}

int look_at_memory(const JobFile *file, const JobConfig *config)
{
    char gpu[LOOK_GPU_BYTES];
    look_for_gpu(config, gpu);
    return look_with(file, config, "train_inspect", (const char *[]){"--gpu", gpu, NULL});
}

int look_at_room(const JobFile *file, const JobConfig *config)
{
    char gpu[LOOK_GPU_BYTES], unused[64];
    char *checkpoint = model_path_checkpoint(config->run_dir);
    bool goes_on = checkpoint != NULL;
    free(checkpoint);
    if (config->rollout.function != ROLLOUT_SFT || config->cluster.agents.count > 0 || goes_on)
        return 0;
    look_for_gpu(config, gpu);
    return look(file, config, "train_inspect", (const char *[]){"--bytes", "--gpu", gpu, NULL},
                unused, sizeof unused);
}

int look_at_tokens(const JobFile *file, JobConfig *config)
{
    char gpu[LOOK_GPU_BYTES], said[256] = "";
    long long tokens = 0;
    if (!config->tokens_open) return 0;
    look_for_gpu(config, gpu);
    int code = look(file, config, "train_inspect", (const char *[]){"--tokens", "--gpu", gpu, NULL},
                    said, sizeof said);
    const char *decided = strstr(said, "max_tokens_per_gpu ");
    if (code == 0 && decided != NULL && sscanf(decided, "max_tokens_per_gpu %lld", &tokens) == 1)
        job_config_decide_tokens(config, tokens);
    return code;
}

int look_at_host(const JobFile *file, const JobConfig *config, bool tell)
{
    char gpu[LOOK_GPU_BYTES], said[1024] = "";
    if (config->device == JOB_CPU || config->rollout.function == ROLLOUT_SFT) return 0;
    look_for_gpu(config, gpu);
    const char *turns = config->rollout.offload == OFFLOAD_ON ? "--turns" : NULL;
    int code = look(file, config, "train_inspect",
                    (const char *[]){"--host", "--gpu", gpu, turns, NULL}, said, sizeof said);
    if (tell) fputs(said, stdout);
    return code;
}

int look_at_device(const JobFile *file, const JobConfig *config)
{
    char gpu[LOOK_GPU_BYTES];
    if (config->device == JOB_CPU) return 0;
    look_for_gpu(config, gpu);
    return look_with(file, config, "train_inspect",
                     (const char *[]){"--device", "--gpu", gpu, NULL});
}

int look_at_function(const JobFile *file, JobConfig *config, bool live)
{
    char trained[32] = "0", available[32], said[256], gpu[LOOK_GPU_BYTES];
    long long mb = 0;
    if (config->rollout.function == ROLLOUT_SFT) return 0;
    if (live)
        return look_with(file, config, "data_inspect", (const char *[]){"--check=functions", NULL});
    /* One figure for both; of a GPU each finds out by itself what is free. */
    const char *more = config->device == JOB_CPU ? "--available" : NULL;
    look_for_gpu(config, gpu);
    snprintf(available, sizeof available, "%lld", (long long)memory_available());
    int code = look(file, config, "train_inspect",
                    (const char *[]){"--bytes", "--gpu", gpu, more, available, NULL}, trained,
                    sizeof trained);
    if (code != 0) return code;
    trained[strcspn(trained, "\n")] = '\0';
    code =
        look(file, config, "data_inspect",
             (const char *[]){"--check", "--trained", trained, "--gpu", gpu, more, available, NULL},
             said, sizeof said);
    if (code != 0) return code;
    if (strstr(said, "takes_turns") != NULL) job_config_decide_offload(config);
    const char *decided = strstr(said, "kv_cache_mb ");
    if (decided != NULL && sscanf(decided, "kv_cache_mb %lld", &mb) == 1)
        job_config_decide_kv_cache(config, mb);
    return code;
}
