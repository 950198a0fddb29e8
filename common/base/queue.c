#include "base/queue.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/error.h"
#include "base/memory.h"

struct Queue {
    pthread_mutex_t lock;
    pthread_cond_t not_empty, not_full;
    void **items; /* ring of `capacity` */
    size_t capacity, first, length;
    bool closed;
};

Queue *queue_create(size_t capacity)
{
    CHECK(capacity > 0);
    Queue *queue = mem_calloc(1, sizeof *queue);
    queue->items = mem_calloc(capacity, sizeof *queue->items);
    queue->capacity = capacity;
    pthread_mutex_init(&queue->lock, NULL);
    condition_init(&queue->not_empty);
    condition_init(&queue->not_full);
    return queue;
}

void queue_destroy(Queue *queue)
{
    if (queue == NULL) return;
    pthread_cond_destroy(&queue->not_empty);
    pthread_cond_destroy(&queue->not_full);
    pthread_mutex_destroy(&queue->lock);
    free(queue->items);
    free(queue);
}

static void add(Queue *queue, void *item)
{
    queue->items[(queue->first + queue->length) % queue->capacity] = item;
    queue->length++;
    pthread_cond_signal(&queue->not_empty);
}

bool queue_put(Queue *queue, void *item)
{
    CHECK(item != NULL);
    pthread_mutex_lock(&queue->lock);
    while (!queue->closed && queue->length == queue->capacity)
        pthread_cond_wait(&queue->not_full, &queue->lock);
    bool open = !queue->closed;
    if (open) add(queue, item);
    pthread_mutex_unlock(&queue->lock);
    return open;
}

bool queue_try_put(Queue *queue, void *item)
{
    CHECK(item != NULL);
    pthread_mutex_lock(&queue->lock);
    bool room = !queue->closed && queue->length < queue->capacity;
    if (room) add(queue, item);
    pthread_mutex_unlock(&queue->lock);
    return room;
}

void *queue_take(Queue *queue, int64_t timeout_ms)
{
    int64_t until_ms = clock_ms() + timeout_ms;
    void *item = NULL;
    pthread_mutex_lock(&queue->lock);
    while (queue->length == 0 && !queue->closed) {
        if (timeout_ms < 0)
            pthread_cond_wait(&queue->not_empty, &queue->lock);
        else if (!condition_wait_until(&queue->not_empty, &queue->lock, until_ms))
            break;
    }
    if (queue->length > 0) {
        item = queue->items[queue->first];
        queue->first = (queue->first + 1) % queue->capacity;
        queue->length--;
        pthread_cond_signal(&queue->not_full);
    }
    pthread_mutex_unlock(&queue->lock);
    return item;
}

void queue_close(Queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->closed = true;
    pthread_cond_broadcast(&queue->not_empty);
    pthread_cond_broadcast(&queue->not_full);
    pthread_mutex_unlock(&queue->lock);
}
