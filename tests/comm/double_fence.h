/* Between the two sources of the double: how they touch memory behind a fence (DoubleFence). */
#ifndef TROUPE_TESTS_DOUBLE_FENCE_H
#define TROUPE_TESTS_DOUBLE_FENCE_H

#include <stdbool.h>

bool double_is_fenced(void);
void double_enter(void);
void double_leave(void);
/* Before something is queued on `stream`. What the thread of a stream that is the host itself has
 * given its device before stands before it. */
void double_arrive(const void *stream);

#endif
