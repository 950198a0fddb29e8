/* bench_reward CORPUS.tsv [SECONDS]   — grades per second on one core, and what a sandbox costs.
 *
 * The corpus is tests/rollout_worker/reward/fixtures/math_corpus.tsv: every pair is graded by
 * `math` as the end of a response of about 2,000 characters, over and over for SECONDS (default 5)
 * of processor time; then gsm8k, dapo, gpqa and f1 on the same responses. Then 100 runs of `true`
 * and of an empty Python program in a sandbox, beside the same without one (fork and exec): elapsed
 * time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/reward/reward.h"
#include "rollout_worker/reward/sandbox.h"

#define CORPUS_BYTES_MAX (16u << 20)
#define RESPONSE_BYTES   2000
#define PAIRS_MAX        100000

typedef struct Pair {
    Slice label;
    Slice response;
} Pair;

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static Pair make_pair(char *expected, const char *answer)
{
    static const char line[] = "So we multiply both sides by 3 and get 12 apples, as before.\n";
    Str response = {0};
    while (response.length + sizeof line < RESPONSE_BYTES)
        str_puts(&response, line);
    str_printf(&response, "Thus the answer is \\boxed{%s}.\nAnswer: %s\n#### %s\n", answer, answer,
               answer);
    size_t length = response.length;
    return (Pair){slice_from(expected), {str_take(&response), length}};
}

static int read_pairs(char *text, Pair *pairs)
{
    int count = 0;
    for (char *line = strtok(text, "\n"); line != NULL && count < PAIRS_MAX;
         line = strtok(NULL, "\n")) {
        char *column = line;
        for (int i = 0; i < 3 && column != NULL; i++)
            column = strchr(column, '\t') == NULL ? NULL : strchr(column, '\t') + 1;
        char *tab = column == NULL ? NULL : strchr(column, '\t');
        if (tab == NULL) continue;
        *tab = '\0';
        pairs[count++] = make_pair(column, tab + 1);
    }
    return count;
}

static void measure(const RewardTable *table, const Pair *pairs, int count, double seconds)
{
    Error err = {0};
    void *opened = NULL;
    CHECK(table->open(NULL, &opened, &err) == OK);
    long graded = 0, right = 0;
    double begin = cpu_seconds(), slowest = 0, end = begin;
    while (end - begin < seconds) {
        for (int i = 0; i < count; i++) {
            RewardRequest request = {.response = pairs[i].response, .label = pairs[i].label};
            RewardResult result = {0};
            double start = cpu_seconds();
            table->score(opened, &request, &result);
            end = cpu_seconds();
            if (end - start > slowest) slowest = end - start;
            right += result.outcome == REWARD_OK;
            graded++;
            reward_result_clear(&result);
        }
    }
    printf("%-10s %9.0f grades/s, slowest %.0f us, %.1f %% right\n", table->name,
           (double)graded / (end - begin), slowest * 1e6, 100.0 * (double)right / (double)graded);
    table->close(opened);
}

#define RUNS 100

static int compare_times(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void run_plainly(const char *const *command)
{
    pid_t pid = vfork();
    if (pid == 0) {
        execvp(command[0], (char *const *)command);
        _exit(127);
    }
    CHECK(waitpid(pid, NULL, 0) == pid);
}

/* Milliseconds of the median and the 90th percentile. */
static void measure_sandbox(const char *const *command, bool isolated)
{
    int64_t times[RUNS];
    Error err = {0};
    for (int i = 0; i < RUNS; i++) {
        SandboxRun run = {.command = command, .limits = sandbox_limits_default};
        SandboxResult result = {0};
        int64_t start = clock_ns();
        if (!isolated) {
            run_plainly(command);
        } else if (sandbox_run(&run, &result, &err) != OK) {
            printf("%s\n", err.message);
            return;
        }
        times[i] = clock_ns() - start;
        sandbox_result_clear(&result);
    }
    qsort(times, RUNS, sizeof *times, compare_times);
    printf("%-10s %s: %.2f ms, nine of ten below %.2f ms\n", command[0],
           isolated ? "in a sandbox" : "plainly     ", (double)times[RUNS / 2] / 1e6,
           (double)times[RUNS * 9 / 10] / 1e6);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s CORPUS.tsv [SECONDS]\n", argv[0]);
        return 2;
    }
    Error err = {0};
    char *text = NULL;
    size_t length = 0;
    if (file_read(argv[1], CORPUS_BYTES_MAX, &text, &length, &err) != OK) {
        fprintf(stderr, "%s\n", err.message);
        return status_exit_code(err.status);
    }
    Pair *pairs = mem_calloc(PAIRS_MAX, sizeof *pairs);
    int count = read_pairs(text, pairs);
    printf("%d pairs\n", count);
    double seconds = argc > 2 ? atof(argv[2]) : 5;
    static const RewardTable *const tables[] = {&reward_math, &reward_gsm8k, &reward_dapo,
                                                &reward_gpqa, &reward_f1};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        measure(tables[i], pairs, count, i == 0 ? seconds : seconds / 5);
    static const char *const nothing[] = {"true", NULL};
    static const char *const python[] = {"/usr/bin/python3", "-c", "pass", NULL};
    for (int isolated = 0; isolated < 2; isolated++) {
        measure_sandbox(nothing, isolated);
        if (access(python[0], X_OK) == 0) measure_sandbox(python, isolated);
    }
    return 0;
}
