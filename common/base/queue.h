/* A bounded queue of pointers between two threads (the loop thread and the compute thread). Closing
 * it wakes everybody; what is already inside can still be taken. */
#ifndef TROUPE_BASE_QUEUE_H
#define TROUPE_BASE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Queue Queue;

Queue *queue_create(size_t capacity);
/* Accepts NULL; the items inside are the caller's to free first. */
void queue_destroy(Queue *queue);

/* Adds an item, waiting while the queue is full; false if it is closed. */
bool queue_put(Queue *queue, void *item);
/* As queue_put, but false at once when full: for the loop thread, which must not wait. */
bool queue_try_put(Queue *queue, void *item);
/* Takes the oldest item, waiting up to timeout_ms (-1: for ever); NULL on timeout or closed and
 * empty. */
void *queue_take(Queue *queue, int64_t timeout_ms);
void queue_close(Queue *queue);

#endif
