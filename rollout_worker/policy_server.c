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
    if (status == OK)
        *ret = server;
    else
        policy_server_stop(server);
    return status;
}

Status policy_server_check(const JobConfig *config, Error *err)
{
    char *token = NULL;
    if (config->rollout.serve_token_file == NULL) return OK;
    Status status = serve_token_read(config->rollout.serve_token_file, &token, err);
    free(token);
    return status == OK ? OK : error_prefix(err, "rollout.serve_token_file");
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
