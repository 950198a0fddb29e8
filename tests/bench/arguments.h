/* Arguments of benchmarks: name=value. */
#ifndef TROUPE_TESTS_BENCH_ARGUMENTS_H
#define TROUPE_TESTS_BENCH_ARGUMENTS_H

/* What follows "name=" in the argument, borrowed from it; NULL: it is another one. */
const char *argument_value(const char *argument, const char *name);

#endif
