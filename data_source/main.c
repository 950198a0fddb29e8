/* data_source: the ordered sample stream of a job. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "actor/actor_process.h"
#include "base/log.h"
#include "data_source/service.h"

/* Each data file keeps a descriptor; the usual soft limit of 1,024 is there for select(), which
 * nobody uses here. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        log_event(LOG_WARN, "file_limit_not_raised", F_INT("limit", (int64_t)limit.rlim_max));
}

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
    raise_file_limit();
    return actor_process_run(argc, argv, &spec);
}
