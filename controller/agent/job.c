#include "agent/job.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"

enum {
    NOTICE_TIMEOUT_MS = 2000,
    FIRST_CONNECTION_MS = 10000,
    RECONNECTION_MS = 10000, /* over tcp */
};

struct AgentJobLine {
    AgentJobOptions options;
    Handle *handle;
    LoopTimer *patience; /* runs while there is no connection */
};

static void run_out_of_patience(void *argument)
{
    agent_job_give_up(argument, "its controller cannot be reached");
}

static void on_connection(void *argument, bool connected)
{
    AgentJob *job = argument;
    loop_remove_timer(job->line->patience);
    job->line->patience = NULL;
    if (connected) return;
    if (str_starts_with(job->endpoint, "tcp://"))
        job->line->patience =
            loop_add_timer(job->line->options.loop, RECONNECTION_MS, 0, run_out_of_patience, job);
    else
        agent_job_give_up(job, "the connection to its controller broke");
}

Status agent_job_open(const AgentJobOptions *options, AgentJob **ret, Error *err)
{
    Handle *handle = NULL;
    TRY(handle_open(options->loop, options->self, "the controller", options->endpoint, &handle,
                    err));
    AgentJob *job = mem_calloc(1, sizeof *job);
    job->serial = options->serial;
    job->controller = options->controller;
    job->name = mem_strdup(options->name);
    job->endpoint = mem_strdup(options->endpoint);
    job->line = mem_calloc(1, sizeof *job->line);
    job->line->options = *options;
    job->line->handle = handle;
    job->line->patience =
        loop_add_timer(options->loop, FIRST_CONNECTION_MS, 0, run_out_of_patience, job);
    handle_watch(handle, on_connection, job);
    *ret = job;
    return OK;
}

void agent_job_close(AgentJob *job)
{
    if (job == NULL) return;
    job->gone = true; /* its notices need not be said again */
    loop_remove_timer(job->line->patience);
    handle_close(job->line->handle);
    free(job->line);
    free(job->endpoint);
    free(job->name);
    free(job);
}

void agent_job_give_up(AgentJob *job, const char *why)
{
    if (job->gone) return;
    job->gone = true;
    job->line->options.on_gone(job->line->options.context, job, why);
}

/* ---- death notices ---- */

typedef struct Notice {
    AgentJob *job;
    size_t length;
    uint8_t body[];
} Notice;

static void send_notice(Notice *notice);

static void on_notice_answered(void *argument, const Reply *reply)
{
    Notice *notice = argument;
    bool unheard = reply->status == ERR_TIMEOUT || reply->status == ERR_UNAVAILABLE;
    if (unheard && !notice->job->gone)
        send_notice(notice);
    else
        free(notice);
}

static void send_notice(Notice *notice)
{
    CallOptions options = {.method = "controller.actor_exited",
                           .body = {notice->body, notice->length},
                           .timeout_ms = NOTICE_TIMEOUT_MS};
    Error err;
    Handle *handle = notice->job->line->handle;
    if (handle_call(handle, &options, on_notice_answered, notice, &err) == OK) return;
    log_event(LOG_WARN, "notice_lost", F_STR("why", err.message));
    free(notice);
}

void agent_job_notify(AgentJob *job, Bytes body)
{
    if (job->gone) return;
    Notice *notice = mem_alloc(sizeof *notice + body.length);
    notice->job = job;
    notice->length = body.length;
    memcpy(notice->body, body.data, body.length);
    send_notice(notice);
}
