/* train_worker: one shard of the policy. */
#include "actor/actor_process.h"
#include "worker.h"

static void on_progress(void *process)
{
    actor_process_progress(process);
}

static void on_doing(void *process, const char *text)
{
    actor_process_set_doing(process, text);
}

static Status start(ActorProcess *process, void **ret_self, Error *err)
{
    (void)err;
    TrainPlace place = actor_process_train_place(process);
    actor_process_set_doing(process, "idle");
    *ret_self = worker_create(&(WorkerOptions){
        .config = actor_process_config(process),
        .loop = actor_process_loop(process),
        .self = actor_process_identity(process),
        .tp_rank = place.tp_rank,
        .tp_size = place.tp_size,
        .dp_rank = place.dp_rank,
        .dp_size = place.dp_size,
        .on_progress = on_progress,
        .on_doing = on_doing,
        .context = process,
    });
    return OK;
}

static void stop(void *self)
{
    worker_destroy(self);
}

static void describe(void *self, ActorReport *report)
{
    worker_describe_wait(self, report->waiting_for, sizeof report->waiting_for);
    report->working = worker_working(self);
    report->progress += worker_vouch(self);
}

int main(int argc, char **argv)
{
    ActorProcessSpec spec = {
        .program = "train_worker",
        .methods = worker_methods,
        .num_methods = worker_num_methods,
        .start = start,
        .stop = stop,
        .describe = describe,
    };
    return actor_process_run(argc, argv, &spec);
}
