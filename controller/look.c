#include "look.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/process.h"
#include "base/str.h"

#define SETS_MAX      64
#define ARGUMENTS_MAX 8 /* of a program's own */

/* `argument` has room for all of them. */
static void list_arguments(const JobFile *file, const char *stage, const char *program,
                           const char *const *more, const char **argument)
{
    int count = 0;
    CHECK(file->num_sets <= SETS_MAX);
    argument[count++] = program;
    argument[count++] = "--config";
    argument[count++] = file->path;
    for (int i = 0; i < file->num_sets; i++) {
        argument[count++] = "--set";
        argument[count++] = file->set[i];
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

static int wait_for(const char *name, int failed, pid_t pid)
{
    int wait_status = 0;
    while (failed == 0 && waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
        continue;
    if (failed == 0 && WIFEXITED(wait_status)) return WEXITSTATUS(wait_status);
    if (failed == 0 && WTERMSIG(wait_status) == SIGPIPE) raise(SIGPIPE); /* who reads us has left */
    fprintf(stderr, "controller: %s %s\n", name,
            failed != 0 ? strerror(failed) : strsignal(WTERMSIG(wait_status)));
    return status_exit_code(ERR_INTERNAL);
}

/* What it prints goes to `ret`, as far as it fits; NULL: to where this command's does. */
static int look(const JobFile *file, const JobConfig *config, const char *name,
                const char *const *more, char *ret, size_t size)
{
    const char *argument[2 * SETS_MAX + ARGUMENTS_MAX + 8];
    posix_spawn_file_actions_t actions;
    int ends[2] = {-1, -1};
    pid_t pid = 0;
    list_arguments(file, config->stage, name, more, argument);
    int failed = ret != NULL && pipe2(ends, O_CLOEXEC) != 0 ? errno : 0;
    posix_spawn_file_actions_init(&actions);
    if (ret != NULL) posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    fflush(stdout);
    char *program = program_path(name);
    if (failed == 0)
        failed = posix_spawn(&pid, program, &actions, NULL, (char **)argument, environ);
    free(program);
    posix_spawn_file_actions_destroy(&actions);
    if (ret != NULL) {
        if (ends[1] >= 0) close(ends[1]);
        FILE *from = ends[0] >= 0 ? fdopen(ends[0], "r") : NULL;
        size_t used = from != NULL ? fread(ret, 1, size - 1, from) : 0;
        ret[used] = '\0';
        if (from != NULL) fclose(from);
    }
    return wait_for(name, failed, pid);
}

int look_with(const JobFile *file, const JobConfig *config, const char *program,
              const char *const *arguments)
{
    return look(file, config, program, arguments, NULL, 0);
}

int look_at_function(const JobFile *file, JobConfig *config, bool live)
{
    char trained[32] = "0", available[32], said[256];
    long long mb = 0;
    if (config->rollout.function == ROLLOUT_SFT) return 0;
    if (live)
        return look_with(file, config, "data_inspect", (const char *[]){"--check=functions", NULL});
    snprintf(available, sizeof available, "%lld", (long long)memory_available());
    int code =
        look(file, config, "train_inspect",
             (const char *[]){"--bytes", "--available", available, NULL}, trained, sizeof trained);
    if (code != 0) return code;
    trained[strcspn(trained, "\n")] = '\0';
    code = look(file, config, "data_inspect",
                (const char *[]){"--check", "--available", available, "--trained", trained, NULL},
                said, sizeof said);
    if (code == 0 && sscanf(said, "kv_cache_mb %lld", &mb) == 1)
        job_config_decide_kv_cache(config, mb);
    return code;
}
