/* The part of cmocka that the tests of the kernels use, for machines where it cannot be installed.
 * A test that fails says so and the next one runs. */
#ifndef TROUPE_TESTS_GPU_CMOCKA_H
#define TROUPE_TESTS_GPU_CMOCKA_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*CMFixtureFunction)(void **state);

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

__attribute__((weak)) jmp_buf cmocka_failed; /* one for all sources */

#define print_message printf
#define fail_msg(...)                                                                              \
    do {                                                                                           \
        printf(__VA_ARGS__);                                                                       \
        printf("\n%s:%d\n", __FILE__, __LINE__);                                                   \
        longjmp(cmocka_failed, 1);                                                                 \
    } while (0)
#define assert_true(condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) fail_msg("not so: %s", #condition);                                      \
    } while (0)
#define assert_null(pointer)         assert_true((pointer) == NULL)
#define assert_int_equal(a, b)       assert_true((long long)(a) == (long long)(b))
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)
#define assert_in_range(value, low, high)                                                          \
    assert_true((long long)(value) >= (long long)(low) && (long long)(value) <= (long long)(high))

#define cmocka_unit_test(test)                                                                     \
    {                                                                                              \
#test, test                                                                                \
    }
#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    cmocka_run(tests, sizeof(tests) / sizeof(tests)[0], setup)

static inline int cmocka_run(const struct CMUnitTest *tests, size_t count, CMFixtureFunction setup)
{
    volatile int failures = 0;
    void *state = NULL;
    if (setup != NULL) setup(&state);
    for (volatile size_t i = 0; i < count; i++) {
        if (setjmp(cmocka_failed) == 0) {
            tests[i].run(&state);
            printf("[       OK ] %s\n", tests[i].name);
        } else {
            printf("[  FAILED  ] %s\n", tests[i].name);
            failures = failures + 1;
        }
        fflush(stdout);
    }
    return failures;
}

#endif
