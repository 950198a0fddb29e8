#include "rollout_worker/policy_server.h"

#include <stdlib.h>
#include <time.h>

#include "base/memory.h"
#include "rollout_worker/serve/serve.h"
#include "rollout_worker/serve/thread_generator.h"

#define SAMPLES_MAX 1024 /* of HTTP requests at a time */

struct PolicyServer {
    ThreadGenerator *generator;
    Server *server;
    char *token;
};

/* In the job's words: serve.h speaks of a command's. */
static Status refuse_port(const JobConfig *config, int index, Error *err)
{
    int64_t workers = config->rollout.num_workers;
    return error_set(err, ERR_EXISTS,
                     "rollout.serve_port: port %lld, of rollout worker %d, is in use by another "
                     "program.\nWrite a number from which on %lld %s free, or end that program.",
                     (long long)config->rollout.serve_port + index, index, (long long)workers,
                     workers == 1 ? "port is" : "ports are");
}

Status policy_server_start(const ChatText *text, const Policy *policy, int index,
                           PolicyServer **ret, Error *err)
{
    const JobConfig *config = text->config;
    *ret = NULL;
    if (config->rollout.serve_port == 0) return OK;
    ModelConfig model;
    TRY(model_config_read(config->model.config, &model, err));
    PolicyServer *server = mem_calloc(1, sizeof *server);
    const ToolFormat *tool_format = NULL; /* none that is known: calls stay in the text */
    if (tool_format_detect(text->model, &tool_format, NULL) != OK) tool_format = NULL;
    Status status = OK;
    if (config->rollout.serve_token_file != NULL)
        status = serve_token_read(config->rollout.serve_token_file, &server->token, err);
    server->generator = thread_generator_create(policy_engine(policy), SAMPLES_MAX);
    ServeOptions options = {
        .generator = thread_generator_front(server->generator),
        .model = {config->name, text->model, tool_format, model.vocab_size,
                  (int32_t)config->data.max_length, (int64_t)time(NULL)},
        .host = config->rollout.serve_host,
        .port = (int)config->rollout.serve_port + index,
        .token = server->token,
    };
    if (status == OK) status = serve_start(&options, &server->server, err);
    if (status == ERR_EXISTS) refuse_port(config, index, err);
    if (status == OK)
        *ret = server;
    else
        policy_server_stop(server);
    return status;
}

Status policy_server_check(const JobConfig *config, bool ports, Error *err)
{
    char *token = NULL;
    if (config->rollout.serve_port == 0) return OK;
    Status status = OK;
    if (config->rollout.serve_token_file != NULL)
        status = serve_token_read(config->rollout.serve_token_file, &token, err);
    free(token);
    if (status != OK) return error_prefix(err, "rollout.serve_token_file");
    for (int i = 0; ports && i < (int)config->rollout.num_workers; i++) {
        status =
            serve_try_port(config->rollout.serve_host, (int)config->rollout.serve_port + i, err);
        if (status == ERR_EXISTS) return refuse_port(config, i, err);
        if (status != OK) return error_prefix(err, "rollout.serve_port");
    }
    return OK;
}

void policy_server_stop(PolicyServer *server)
{
    if (server == NULL) return;
    serve_stop(server->server);
    thread_generator_destroy(server->generator);
    free(server->token);
    free(server);
}

const char *policy_server_url(const PolicyServer *server)
{
    return serve_url(server->server);
}
