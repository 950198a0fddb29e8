#include "model_files.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"

const ModelFile model_file[MODEL_FILES] = {
    {"tokenizer.json", true},
    {"tokenizer_config.json", true}, /* may hold the chat template */
    {"chat_template.jinja", true},
    {"special_tokens_map.json", false},
    {"generation_config.json", false},
};

char *model_file_path(const JobConfig *config, int i)
{
    const char *tokenizer = config->model.tokenizer, *name = model_file[i].name;
    if (strcmp(name, "chat_template.jinja") == 0 && config->model.chat_template != NULL)
        return mem_strdup(config->model.chat_template);
    char *folder = path_is_folder(tokenizer) ? mem_strdup(tokenizer) : path_folder(tokenizer);
    char *path = path_join(folder, name);
    free(folder);
    return path;
}
