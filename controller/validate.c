#include "validate.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "disk_room.h"
#include "local_node.h"
#include "model/model_config.h"
#include "model/weights_check.h"
#include "text/conversation.h"

/* A conversation that every chat template renders: shows template errors before the first sample
 * does. */
static Status try_template(const JobConfig *config, const TextModel *text, Error *err)
{
    static const char chat[] = "[{\"role\":\"user\",\"content\":\"Hello\"},"
                               "{\"role\":\"assistant\",\"content\":\"Hello!\"}]";
    cJSON *messages = cJSON_Parse(chat);
    cJSON *kwargs = NULL;
    const char *kwargs_text = config->data.apply_chat_template_kwargs;
    if (kwargs_text != NULL) kwargs = cJSON_Parse(kwargs_text);
    ConversationOptions options = {.template_kwargs = kwargs};
    TokenizedConversation conversation = {0};
    Status status = conversation_check_kwargs(kwargs, err);
    if (status != OK) {
        err->status = status = ERR_INVALID;
        error_prefix(err, "data.apply_chat_template_kwargs");
        error_append(err, "Remove it there.");
        goto done;
    }
    status = conversation_encode(text, NULL, messages, NULL, &options, &conversation, err);
    if (status != OK) {
        err->status = status = ERR_DATA;
        error_append(err, "Expected a chat template that renders a plain conversation, a user's "
                          "message and an answer to it.\n"
                          "Correct it, or name another one at model.chat_template.");
    }
done:
    tokenized_conversation_free(&conversation);
    cJSON_Delete(messages);
    cJSON_Delete(kwargs);
    return status;
}

static Status load_text(const JobConfig *config, TextModel **ret, Error *err)
{
    Status status = text_model_load(config->model.tokenizer, config->model.chat_template, ret, err);
    if (status != OK)
        error_append(err, "Correct the file, or name another one at model.tokenizer or "
                          "model.chat_template.");
    return status;
}

static char *summarize(const JobConfig *config, const ModelConfig *model, const TextModel *text)
{
    bool embedded = config->cluster.agents.count == 0;
    char *place = embedded ? mem_printf("of %g offered, this machine has %ld",
                                        local_node_cpus(config), sysconf(_SC_NPROCESSORS_ONLN))
                           : mem_printf("of cluster.agents, which were not asked");
    char *weights = config->model.run == NULL
                        ? mem_strdup("")
                        : mem_printf("weights: newest checkpoint of %s: %s\n", config->model.run,
                                     path_name(config->model.path));
    char *summary = mem_printf(
        "model: %lld parameters, %d layers, hidden size %d, vocabulary %lld (tokenizer %d)\n%s"
        "layout: tp %lld x dp %lld, %lld rollout workers, batch of %lld samples; %g CPUs %s\n",
        (long long)model_config_parameters(model), model->num_hidden_layers, model->hidden_size,
        (long long)model->vocab_size, (int)tokenizer_vocab_size(text_model_tokenizer(text)),
        weights, (long long)config->train.tp_size, (long long)config->train.dp_size,
        (long long)config->rollout.num_workers, (long long)config->train.global_batch_size,
        local_node_cpus_needed(config), place);
    free(place);
    free(weights);
    return summary;
}

Status validate_disk(const JobConfig *config, char **ret_line, Error *err)
{
    DiskRoom room;
    char *warning = NULL, one[32], has[32], most[64] = "all are kept";
    TRY(disk_room_look(config, &room, err));
    Status status = disk_room_check(&room, &warning, err);
    if (room.at_a_time > 0)
        snprintf(most, sizeof most, "at most %d stand at a time", room.at_a_time);
    if (status == OK)
        *ret_line =
            mem_printf("disk: a checkpoint takes %s, %s; %s has %s free\n%s%s%s",
                       disk_room_bytes(room.checkpoint_bytes, one), most, room.place,
                       disk_room_bytes(room.free_bytes, has), warning != NULL ? "warning: " : "",
                       warning != NULL ? warning : "", warning != NULL ? "\n" : "");
    free(warning);
    disk_room_free(&room);
    return status;
}

Status validate_job(const JobConfig *config, char **ret_summary, Error *err)
{
    TextModel *text = NULL;
    ModelConfig model;
    Status status = job_config_check_files(config, err);
    if (status == OK) status = model_config_read(config->model.config, &model, err);
    if (status == OK) status = model_config_check_parallel(&model, (int)config->train.tp_size, err);
    if (status == OK && config->model.init == INIT_PRETRAINED)
        status = weights_check_folder(config->model.path, &model, err);
    if (status == OK && config->cluster.agents.count == 0) status = local_node_check(config, err);
    if (status == OK) status = load_text(config, &text, err);
    if (status == OK)
        status = model_config_check_tokenizer(&model, config->model.config,
                                              tokenizer_vocab_size(text_model_tokenizer(text)),
                                              config->model.tokenizer, err);
    if (status == OK) status = try_template(config, text, err);
    if (status == OK && ret_summary != NULL) *ret_summary = summarize(config, &model, text);
    text_model_destroy(text);
    return status;
}
