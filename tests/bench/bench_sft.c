/* The data path of SFT on one core, for bench_sft.py: JSONL -> template -> ids and loss mask, as
 * the data source and a rollout worker do it, from opening the file to the finished samples.
 *
 * usage: bench_sft MODEL_FOLDER [TEMPLATE] < commands
 *   time FILE   one pass with fresh caches; prints CPU seconds, samples and tokens
 *   dump FILE   prints a line for each record: its ids, a tab, its mask; or "rejected" and why
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "dataset/dataset.h"
#include "rollout_worker/rollout.h"

static void stop_on(Status status, const Error *err)
{
    if (status == OK) return;
    fprintf(stderr, "bench_sft: %s\n", err->message);
    exit(1);
}

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

typedef struct Pass {
    uint64_t samples, tokens;
} Pass;

static void dump(const Sample *sample)
{
    if (sample->status == SAMPLE_REJECTED) {
        char *line = mem_strdup(sample->reject_message);
        line[strcspn(line, "\n")] = '\0';
        printf("rejected %s\n", line);
        free(line);
        return;
    }
    for (int32_t t = 0; t < sample->length; t++)
        printf("%s%d", t > 0 ? " " : "", sample->token[t]);
    putchar('\t');
    for (int32_t t = 0; t < sample->length; t++)
        putchar('0' + sample->loss_mask[t]);
    putchar('\n');
}

static Pass run_pass(void *shared, const char *path, bool dumps)
{
    Error err = {0};
    Dataset *dataset = NULL;
    DatasetOptions options = {.key = "bench", .path = &path, .num_paths = 1};
    stop_on(dataset_open(&options, &dataset, &err), &err);
    void *scratch = rollout_sft.open_thread(shared);
    Str text = {0};
    Pass pass = {0};
    uint64_t records = dataset_summary(dataset).records;
    for (uint64_t i = 0; i < records; i++) {
        RecordSource source;
        char place[32];
        str_clear(&text);
        stop_on(dataset_read(dataset, i, &text, &source, &err), &err);
        snprintf(place, sizeof place, "%llu", (unsigned long long)source.line);
        RolloutRecord record = {.position = (int64_t)i,
                                .text = text.data,
                                .length = text.length,
                                .source = place,
                                .error = ""};
        RolloutGroup group = {0};
        stop_on(rollout_sft.run(shared, scratch, &record, &group, &err), &err);
        const Sample *sample = &group.sample[0];
        pass.samples += sample->status != SAMPLE_REJECTED;
        pass.tokens += (uint64_t)sample->length;
        if (dumps) dump(sample);
        rollout_group_clear(&group);
    }
    str_free(&text);
    rollout_sft.close_thread(scratch);
    dataset_close(dataset);
    return pass;
}

int main(int argc, char **argv)
{
    JobConfig config = {0};
    config.model.tokenizer = argc > 1 ? argv[1] : NULL;
    config.model.chat_template = argc > 2 ? argv[2] : NULL;
    config.data.label_key = "label";
    config.data.tool_key = "tools";
    config.data.metadata_key = "metadata";
    config.data.max_length = 1 << 20;
    Error err = {0};
    void *shared = NULL;
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: bench_sft MODEL_FOLDER [TEMPLATE] < commands\n");
        return 2;
    }
    stop_on(rollout_sft.open(&config, &shared, &err), &err);
    char line[4096];
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        bool dumps = strncmp(line, "dump ", 5) == 0;
        double begin = cpu_seconds();
        Pass pass = run_pass(shared, line + 5, dumps);
        if (!dumps)
            printf("%.6f %llu %llu\n", cpu_seconds() - begin, (unsigned long long)pass.samples,
                   (unsigned long long)pass.tokens);
        fflush(stdout);
    }
    rollout_sft.close(shared);
    return 0;
}
