/* The algorithms of fake.cc, and how often each has multiplied. Shapes of fewer than 4 products an
 * element have none. */
#ifndef TROUPE_TESTS_CUBLASLT_FAKE_H
#define TROUPE_TESTS_CUBLASLT_FAKE_H

typedef enum {
    FAKE_FORWARD,  /* in ascending order; any shape */
    FAKE_BACKWARD, /* in descending order */
    FAKE_FEW,      /* in ascending order; at most 256 rows */
    FAKE_SPLIT,    /* in two parts, with a workspace */
    FAKE_COUNT,
} FakeAlgo;

/* Shapes whose sums are of this length are offered an algorithm, and refused when they are
 * multiplied. */
#define FAKE_REFUSED 77

/* Of the library `fake_lt_calls` [FAKE_COUNT] is found by name. */
#define FAKE_LT_CALLS "fake_lt_calls"

#endif
