/* cmocka with the headers that it needs, in the order in which it needs them. */
#ifndef TROUPE_TESTS_TEST_H
#define TROUPE_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"

/* How often a test does one thing: less often under a sanitizer, which looks at what is passed
 * through. */
#ifdef TROUPE_SANITIZED
#define TEST_RUNS(count) (((count) + 4) / 5)
#else
#define TEST_RUNS(count) (count)
#endif

/* Asserts that a call succeeded and shows its message when it did not. */
#define assert_ok(call, err)                                                                       \
    do {                                                                                           \
        Status assert_status_ = (call);                                                            \
        if (assert_status_ != OK)                                                                  \
            fail_msg("%s: %s: %s", #call, status_name(assert_status_), (err)->message);            \
    } while (0)

/* Asserts that a call failed with a status and that its message contains a text. */
#define assert_fails(call, expected_status, err, text)                                             \
    do {                                                                                           \
        Status assert_status_ = (call);                                                            \
        if (assert_status_ != (expected_status))                                                   \
            fail_msg("%s gave %s, expected %s", #call, status_name(assert_status_),                \
                     status_name(expected_status));                                                \
        if (strstr((err)->message, text) == NULL)                                                  \
            fail_msg("%s: message \"%s\" lacks \"%s\"", #call, (err)->message, text);              \
    } while (0)

#endif
