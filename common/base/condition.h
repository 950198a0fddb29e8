/* Waits that end by the monotonic clock (clock.h): nobody waits longer, or shorter, because the
 * wall clock was set meanwhile. As with pthread_cond_wait the lock is held by the caller, is free
 * while it waits, and a wait may end without a reason. */
#ifndef TROUPE_BASE_CONDITION_H
#define TROUPE_BASE_CONDITION_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Without it the waits below are by the wall clock. pthread_cond_destroy ends its life. */
void condition_init(pthread_cond_t *condition);

/* Until it is signalled or `ms` are over; false: they are. */
bool condition_wait_for(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t ms);

/* Until it is signalled or clock_ms() is `until_ms`; false: it is. */
bool condition_wait_until(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_ms);

#endif
