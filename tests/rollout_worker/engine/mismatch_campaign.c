/* A long search for a generated log-prob that is not the trainer's:
 *
 *   mismatch_campaign [samples=10000] [seed=1]
 *
 * Rounds of random models, types, ranks, engines and requests (mismatch.h) until there are so many
 * samples, then a line for each kind. Exits with 1 when one bit of one token differs. The same seed
 * makes the same rounds. */
#include "mismatch.h"

#include <stdio.h>
#include <stdlib.h>

enum { DTYPES = 2, RANKS = 2, KINDS = MISMATCH_MODELS * DTYPES * RANKS };

static void add(MismatchCount *sum, const MismatchCount *one)
{
    sum->samples += one->samples;
    sum->tokens += one->tokens;
    sum->mismatches += one->mismatches;
    if (one->worst > sum->worst) sum->worst = one->worst;
    sum->found_tokens += one->found_tokens;
    sum->preemptions += one->preemptions;
    sum->aborted += one->aborted;
    sum->resumed += one->resumed;
    sum->steps += one->steps;
    sum->micro_batches += one->micro_batches;
}

static void print_count(const char *name, const MismatchCount *count)
{
    printf("%-16s %8lld %9lld %10lld %9.3g %10lld %8lld %8lld %8lld %8lld %8lld\n", name,
           (long long)count->samples, (long long)count->tokens, (long long)count->mismatches,
           count->worst, (long long)count->found_tokens, (long long)count->preemptions,
           (long long)count->aborted, (long long)count->resumed, (long long)count->steps,
           (long long)count->micro_batches);
}

/* The wide model costs a hundred times the others: it gets fewer requests. */
static void run_round(uint64_t seed, int kind, MismatchCount *count)
{
    MismatchModel model = (MismatchModel)(kind % MISMATCH_MODELS);
    MismatchRound round = {
        .seed = seed,
        .model = model,
        .dtype = kind / MISMATCH_MODELS % DTYPES == 0 ? DTYPE_F32 : DTYPE_BF16,
        .num_requests = model == MISMATCH_WIDE ? 12 : 60,
        .count = count,
    };
    ranks_run(1 + kind / (MISMATCH_MODELS * DTYPES), 1, mismatch_round, &round);
}

static void report(const MismatchCount *counts, const MismatchCount *all, int rounds)
{
    printf("%-16s %8s %9s %10s %9s %10s %8s %8s %8s %8s %8s\n", "model, type, tp", "samples",
           "tokens", "mismatches", "worst", "found", "preempt", "aborted", "resumed", "steps",
           "batches");
    for (int kind = 0; kind < KINDS; kind++) {
        char name[32];
        snprintf(name, sizeof name, "%s %s %d",
                 mismatch_model_name((MismatchModel)(kind % MISMATCH_MODELS)),
                 kind / MISMATCH_MODELS % DTYPES == 0 ? "f32" : "bf16",
                 1 + kind / (MISMATCH_MODELS * DTYPES));
        print_count(name, &counts[kind]);
    }
    print_count("all", all);
    printf("%d rounds: %lld samples, %lld tokens, %lld mismatches\n", rounds,
           (long long)all->samples, (long long)all->tokens, (long long)all->mismatches);
}

int main(int argc, char **argv)
{
    long long samples = 10000, seed = 1;
    MismatchCount counts[KINDS] = {0}, all = {0};
    int rounds = 0;
    for (int i = 1; i < argc; i++)
        if (sscanf(argv[i], "samples=%lld", &samples) != 1 &&
            sscanf(argv[i], "seed=%lld", &seed) != 1) {
            fprintf(stderr, "usage: mismatch_campaign [samples=10000] [seed=1]\n");
            return 2;
        }
    for (; rounds < KINDS || all.samples < samples; rounds++) {
        MismatchCount *one = shared_alloc(sizeof *one);
        run_round((uint64_t)seed * 1000000 + (uint64_t)rounds, rounds % KINDS, one);
        add(&counts[rounds % KINDS], one);
        add(&all, one);
        shared_free(one, sizeof *one);
    }
    report(counts, &all, rounds);
    return all.mismatches > 0;
}
