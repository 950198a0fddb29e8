#include "base/condition.h"

#include <errno.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"

void condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    CHECK(pthread_cond_init(condition, &monotonic) == 0);
    pthread_condattr_destroy(&monotonic);
}

static bool wait_until(pthread_cond_t *condition, pthread_mutex_t *lock, struct timespec until)
{
    return pthread_cond_timedwait(condition, lock, &until) != ETIMEDOUT;
}

bool condition_wait_for(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t ms)
{
    int64_t ns = clock_ns() + ms * 1000000;
    struct timespec until = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    return wait_until(condition, lock, until);
}

/* Not by way of nanoseconds: a deadline may be as far away as a number can be. */
bool condition_wait_until(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_ms)
{
    struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    return wait_until(condition, lock, until);
}
