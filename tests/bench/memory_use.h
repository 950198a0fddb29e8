/* What a benchmark takes of the memory. */
#ifndef TROUPE_TESTS_BENCH_MEMORY_USE_H
#define TROUPE_TESTS_BENCH_MEMORY_USE_H

/* Of this process, in MB: "VmRSS:" or "VmHWM:", the highest so far. */
double memory_mb(const char *what);

#endif
