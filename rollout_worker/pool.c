#include "rollout_worker/pool.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/queue.h"

struct RolloutPool {
    Loop *loop;
    const RolloutTable *table;
    void *shared;
    Queue *tasks;
    int num_threads;
    pthread_t *thread;
    _Atomic uint64_t progress;
};

static void task_done(void *argument)
{
    RolloutTask *task = argument;
    task->done(task);
}

static void run(RolloutPool *pool, void *scratch, RolloutTask *task)
{
    Error err = {0};
    const RolloutRecord *record = &task->record;
    Status status = record->given_up != NULL && atomic_load(record->given_up)
                        ? error_set(&err, ERR_CANCELLED, "nobody wants these samples any more")
                        : pool->table->run(pool->shared, scratch, record, &task->group, &err);
    for (int i = 0; i < task->group.count; i++)
        rollout_locate(&task->group.sample[i], record);
    if (status == OK) return;
    rollout_group_clear(&task->group);
    task->error = mem_alloc(sizeof *task->error);
    *task->error = err;
}

static void *thread_main(void *argument)
{
    RolloutPool *pool = argument;
    void *scratch = pool->table->open_thread(pool->shared);
    for (RolloutTask *task; (task = queue_take(pool->tasks, -1)) != NULL;) {
        task->group = (RolloutGroup){0};
        task->error = NULL;
        run(pool, scratch, task);
        pool->progress++;
        loop_post(pool->loop, task_done, task);
    }
    pool->table->close_thread(scratch);
    return NULL;
}

RolloutPool *rollout_pool_create(Loop *loop, const RolloutTable *table, void *shared, int threads)
{
    CHECK(threads > 0);
    RolloutPool *pool = mem_calloc(1, sizeof *pool);
    pool->loop = loop;
    pool->table = table;
    pool->shared = shared;
    pool->tasks = queue_create(ROLLOUT_TASKS_MAX);
    pool->num_threads = threads;
    pool->thread = mem_calloc((size_t)threads, sizeof *pool->thread);
    for (int i = 0; i < threads; i++)
        CHECK(pthread_create(&pool->thread[i], NULL, thread_main, pool) == 0);
    return pool;
}

void rollout_pool_destroy(RolloutPool *pool)
{
    if (pool == NULL) return;
    queue_close(pool->tasks);
    while (queue_take(pool->tasks, 0) != NULL) /* not begun, and not to be */
        ;
    for (int i = 0; i < pool->num_threads; i++)
        pthread_join(pool->thread[i], NULL);
    queue_destroy(pool->tasks);
    free(pool->thread);
    free(pool);
}

void rollout_pool_submit(RolloutPool *pool, RolloutTask *task)
{
    CHECK(queue_try_put(pool->tasks, task));
}

uint64_t rollout_pool_progress(RolloutPool *pool)
{
    return pool->progress;
}
