/* bench_tokenizer TOKENIZER.json TEXT...   — how fast text is encoded on one core.
 *
 * Each text is cut into documents of about 2,000 bytes, encoded in order. "first" is the first pass
 * with an empty word cache (text not seen before), "again" the median of further passes; "threads"
 * is what all cores do at once, each the whole text with a cache of its own: in elapsed time, as a
 * share of as many times one core, and the same in processor time, which other programs disturb
 * less. Then texts that are one long word. bench_tokenizer.py
 * runs the `tokenizers` package over the same documents. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "text/tokenizer/tokenizer.h"

#define DOCUMENT_BYTES 2000
#define PASSES         5
#define CACHE_BYTES    (4u << 20)
#define LONG_BYTES     (1u << 20)
#define THREADS_MAX    64

/* Processor time of this thread: as elapsed time on a quiet machine, and fair on a busy one. */
static int64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The end of the document that begins at `at`: a character boundary. */
static size_t document_end(const char *text, size_t length, size_t at)
{
    size_t end = at + DOCUMENT_BYTES;
    if (end >= length) return length;
    while (end < length && ((unsigned char)text[end] & 0xC0) == 0x80)
        end++;
    return end;
}

static double encode_seconds(const Tokenizer *tokenizer, TokenizerCache *cache, const char *text,
                             size_t length, size_t *ret_tokens)
{
    Error err = {0};
    Encoding encoding = {0};
    size_t tokens = 0;
    int64_t begin = cpu_ns();
    for (size_t at = 0, end; at < length; at = end) {
        end = document_end(text, length, at);
        encoding.length = 0;
        CHECKF(tokenizer_encode(tokenizer, cache, text + at, end - at, NULL, false, &encoding,
                                &err) == OK,
               "%s", err.message);
        tokens += encoding.length;
    }
    double seconds = (double)(cpu_ns() - begin) / 1e9;
    encoding_free(&encoding);
    *ret_tokens = tokens;
    return seconds;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void bench_text(const Tokenizer *tokenizer, const char *name, const char *text,
                       size_t length)
{
    double first[PASSES], again[PASSES];
    size_t tokens = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        TokenizerCache *cache = tokenizer_cache_create(tokenizer, CACHE_BYTES);
        first[pass] = encode_seconds(tokenizer, cache, text, length, &tokens);
        again[pass] = encode_seconds(tokenizer, cache, text, length, &tokens);
        tokenizer_cache_destroy(cache);
    }
    qsort(first, PASSES, sizeof *first, compare_doubles);
    qsort(again, PASSES, sizeof *again, compare_doubles);
    double megabytes = (double)length / 1e6;
    printf("%-24s first %7.1f MB/s %7.2f Mtok/s   again %7.1f MB/s   tokens %zu\n", name,
           megabytes / first[PASSES / 2], (double)tokens / 1e6 / first[PASSES / 2],
           megabytes / again[PASSES / 2], tokens);
}

typedef struct Work {
    const Tokenizer *tokenizer;
    const char *text;
    size_t length;
    pthread_barrier_t *start;
    double cpu_seconds;
} Work;

static void *work_run(void *context)
{
    Work *work = context;
    size_t tokens;
    TokenizerCache *cache = tokenizer_cache_create(work->tokenizer, CACHE_BYTES);
    pthread_barrier_wait(work->start);
    work->cpu_seconds = encode_seconds(work->tokenizer, cache, work->text, work->length, &tokens);
    tokenizer_cache_destroy(cache);
    return NULL;
}

/* Elapsed seconds until each of `count` threads has encoded the text; and of the processor, the
 * most that one of them took. */
static double threads_seconds(const Work *given, int count, double *ret_cpu)
{
    pthread_t thread[THREADS_MAX];
    Work work[THREADS_MAX];
    pthread_barrier_t start;
    CHECK(pthread_barrier_init(&start, NULL, (unsigned)count + 1) == 0);
    for (int i = 0; i < count; i++) {
        work[i] = *given;
        work[i].start = &start;
        CHECK(pthread_create(&thread[i], NULL, work_run, &work[i]) == 0);
    }
    pthread_barrier_wait(&start);
    int64_t begin = clock_ns();
    for (int i = 0; i < count; i++)
        pthread_join(thread[i], NULL);
    double seconds = (double)(clock_ns() - begin) / 1e9;
    *ret_cpu = 0;
    for (int i = 0; i < count; i++)
        if (work[i].cpu_seconds > *ret_cpu) *ret_cpu = work[i].cpu_seconds;
    pthread_barrier_destroy(&start);
    return seconds;
}

static double median(double *value)
{
    qsort(value, PASSES, sizeof *value, compare_doubles);
    return value[PASSES / 2];
}

static void bench_threads(const Tokenizer *tokenizer, const char *name, const char *text,
                          size_t length)
{
    int cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (cores > THREADS_MAX) cores = THREADS_MAX;
    Work work = {.tokenizer = tokenizer, .text = text, .length = length};
    double one[PASSES], all[PASSES], one_cpu[PASSES], all_cpu[PASSES];
    for (int pass = 0; pass < PASSES; pass++) {
        one[pass] = threads_seconds(&work, 1, &one_cpu[pass]);
        all[pass] = threads_seconds(&work, cores, &all_cpu[pass]);
    }
    double elapsed = median(all);
    printf("%-24s threads %d: %.1f MB/s, %.2f of %d times one (processor time %.2f)\n", name, cores,
           (double)length / 1e6 * cores / elapsed, median(one) / elapsed, cores,
           median(one_cpu) / median(all_cpu));
}

static void bench_long(const Tokenizer *tokenizer, const char *name, const char *unit)
{
    Error err = {0};
    size_t size = strlen(unit), length = LONG_BYTES / size * size;
    char *text = mem_alloc(length);
    for (size_t at = 0; at < length; at += size)
        memcpy(text + at, unit, size);
    Encoding encoding = {0};
    TokenizerCache *cache = tokenizer_cache_create(tokenizer, CACHE_BYTES);
    int64_t begin = cpu_ns();
    CHECKF(tokenizer_encode(tokenizer, cache, text, length, NULL, false, &encoding, &err) == OK,
           "%s", err.message);
    double seconds = (double)(cpu_ns() - begin) / 1e9;
    printf("%-24s one word of %zu bytes: %7.1f MB/s, %zu tokens\n", name, length,
           (double)length / 1e6 / seconds, encoding.length);
    tokenizer_cache_destroy(cache);
    encoding_free(&encoding);
    free(text);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bench_tokenizer TOKENIZER.json TEXT...\n");
        return 2;
    }
    Error err = {0};
    Tokenizer *tokenizer = NULL;
    int64_t begin = cpu_ns();
    if (tokenizer_load(argv[1], &tokenizer, &err) != OK) {
        fprintf(stderr, "bench_tokenizer: %s\n", err.message);
        return 1;
    }
    printf("%s: loaded in %.0f ms\n", argv[1], (double)(cpu_ns() - begin) / 1e6);
    for (int i = 2; i < argc; i++) {
        char *text = NULL;
        size_t length = 0;
        if (file_read(argv[i], 1u << 30, &text, &length, &err) != OK) {
            fprintf(stderr, "bench_tokenizer: %s\n", err.message);
            return 1;
        }
        bench_text(tokenizer, path_name(argv[i]), text, length);
        bench_threads(tokenizer, path_name(argv[i]), text, length);
        free(text);
    }
    bench_long(tokenizer, "letters", "a");
    bench_long(tokenizer, "spaces", " ");
    bench_long(tokenizer, "equal signs", "=");
    bench_long(tokenizer, "CJK, one character", "\u4e2d");
    bench_long(tokenizer, "CJK, several", "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u6211\u4eec\u53bb");
    tokenizer_destroy(tokenizer);
    return 0;
}
