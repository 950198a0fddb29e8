/* Between the two sources of the double: how they touch memory of a device (nccl_double_fence). */
#ifndef TROUPE_TESTS_DOUBLE_FENCE_H
#define TROUPE_TESTS_DOUBLE_FENCE_H

void double_enter(void);
void double_leave(void);
/* Before a call is queued on `stream`. */
void double_arrive(const void *stream);

#endif
