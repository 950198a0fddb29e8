/* data_source: the ordered sample stream of a job. */
#include "actor/actor_process.h"
#include "dataset/file_pool.h"
#include "dataset/last_words.h"
#include "data_source/service.h"

static Status start(ActorProcess *process, void **ret_self, Error *err)
{
    (void)err;
    *ret_self = data_service_create(actor_process_loop(process), actor_process_config(process));
    return OK;
}

static void stop(void *self)
{
    data_service_destroy(self);
}

static void describe(void *self, ActorReport *report)
{
    report->progress += data_service_progress(self);
    report->working = data_service_working(self);
    data_service_describe(self, report->doing, sizeof report->doing);
    data_service_notice(self, report->notice, sizeof report->notice);
}

int main(int argc, char **argv)
{
    ActorProcessSpec spec = {
        .program = "data_source",
        .methods = data_service_methods,
        .num_methods = data_service_num_methods,
        .start = start,
        .stop = stop,
        .describe = describe,
    };
    file_pool_raise_limit();
    last_words_prepare();
    return actor_process_run(argc, argv, &spec);
}
