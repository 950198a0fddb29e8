#include "hub/model.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"
#include "hub/shelf.h"

#define WEIGHTS       "model.safetensors"
#define WEIGHTS_INDEX "model.safetensors.index.json"
#define TEMPLATES     "additional_chat_templates/"

struct HubModel {
    HubRepo *repo;
    char *folder;
    StringList weights; /* names of files */
};

/* What a model is read from, beside its weights. */
static bool is_wanted(const char *path)
{
    static const char *const names[] = {
        "config.json",           "generation_config.json",  "tokenizer.json",
        "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
        "chat_template.jinja",   "chat_template.json",      WEIGHTS_INDEX,
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(path, names[i]) == 0) return true;
    return str_starts_with(path, TEMPLATES) && str_ends_with(path, ".jinja");
}

static bool has(const HubModel *model, const char *path)
{
    return hub_files_find(hub_repo_files(model->repo), path) != NULL;
}

/* ---- opening ---- */

static Status fetch_small(HubModel *model, Error *err)
{
    const HubFiles *files = hub_repo_files(model->repo);
    for (size_t i = 0; i < files->count; i++) {
        char *path = NULL;
        if (is_wanted(files->item[i].path))
            TRY(hub_repo_fetch(model->repo, files->item[i].path, &path, err));
        free(path);
    }
    return OK;
}

static Status refuse_shard(const HubModel *model, const char *name, Error *err)
{
    return error_set(err, ERR_DATA,
                     "%s: " WEIGHTS_INDEX " names %s, which is not among its files\n"
                     "  expected: a complete model\n  to do: name another revision, or tell who "
                     "has published it",
                     hub_model_label(model), QUOTED(name));
}

/* The files that the index of a model in several names, each once. */
static Status list_shards(HubModel *model, Error *err)
{
    char *path = hub_cache_snapshot(hub_repo_place(model->repo).cache, hub_model_commit(model),
                                    WEIGHTS_INDEX);
    cJSON *json = NULL;
    Status status = json_read(path, JSON_FILE_BYTES_MAX, &json, err);
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(json, "weight_map"), *shard;
    HubFiles wanted = {0}; /* sorted, they are listed once */
    cJSON_ArrayForEach(shard, map)
    {
        const char *name = cJSON_IsString(shard) ? shard->valuestring : "";
        if (status == OK && !has(model, name)) status = refuse_shard(model, name, err);
        if (status != OK) break;
        if (wanted.count > 0 && strcmp(wanted.item[wanted.count - 1].path, name) == 0) continue;
        wanted.item = mem_realloc(wanted.item, wanted.count + 1, sizeof *wanted.item);
        wanted.item[wanted.count++] = (HubFile){.path = mem_strdup(name)};
    }
    hub_files_sort(&wanted);
    for (size_t i = 0; i < wanted.count && status == OK; i++)
        string_list_append(&model->weights, wanted.item[i].path);
    hub_files_free(&wanted);
    cJSON_Delete(json);
    free(path);
    return status;
}

static Status find_files(HubModel *model, Error *err)
{
    if (!has(model, "config.json"))
        return error_set(err, ERR_NOT_FOUND,
                         "%s has no config.json, so it is no model in the form of transformers\n"
                         "  to do: name the repository that has it (of quantized ones, such as "
                         "GGUF, the one that they were made of)",
                         hub_model_label(model));
    TRY(fetch_small(model, err));
    if (has(model, WEIGHTS_INDEX)) return list_shards(model, err);
    if (has(model, WEIGHTS)) string_list_append(&model->weights, WEIGHTS);
    return OK;
}

Status hub_model_open(const HubName *name, const HubRepoOptions *options, HubModel **ret,
                      Error *err)
{
    CHECK(name->model);
    HubModel *model = mem_calloc(1, sizeof *model);
    Status status = hub_repo_open(name, options, &model->repo, err);
    if (status == OK) {
        HubPlace place = hub_repo_place(model->repo);
        model->folder = hub_cache_snapshot(place.cache, place.commit, "");
        size_t length = strlen(model->folder);
        if (length > 1 && model->folder[length - 1] == '/') model->folder[length - 1] = '\0';
        status = find_files(model, err);
    }
    if (status == OK) {
        *ret = model;
        model = NULL;
    }
    hub_model_close(model);
    return status;
}

void hub_model_close(HubModel *model)
{
    if (model == NULL) return;
    hub_repo_close(model->repo);
    string_list_free(&model->weights);
    free(model->folder);
    free(model);
}

const char *hub_model_label(const HubModel *model)
{
    return hub_repo_label(model->repo);
}

const char *hub_model_commit(const HubModel *model)
{
    return hub_repo_place(model->repo).commit;
}

const char *hub_model_folder(const HubModel *model)
{
    return model->folder;
}

/* ---- weights ---- */

HubWeights hub_model_weights(const HubModel *model)
{
    HubWeights weights = {.files = model->weights.count};
    HubPlace place = hub_repo_place(model->repo);
    for (int i = 0; i < model->weights.count; i++) {
        const HubFile *file = hub_files_find(hub_repo_files(model->repo), model->weights.item[i]);
        weights.bytes += file->bytes;
        weights.bytes_left += hub_fetch_bytes_left(place.cache, place.commit, file);
    }
    return weights;
}

static Status refuse_no_weights(const HubModel *model, Error *err)
{
    return error_set(err, ERR_NOT_FOUND,
                     "%s has no weights in safetensors: neither " WEIGHTS " nor " WEIGHTS_INDEX "\n"
                     "  to do: name another repository or revision of the model (many that have "
                     "only pickles have them on refs/pr/N), or write model.init: random",
                     hub_model_label(model));
}

Status hub_model_fetch_weights(HubModel *model, Error *err)
{
    int count = model->weights.count;
    if (count == 0) return refuse_no_weights(model, err);
    ShelfFile *files = mem_calloc((size_t)count, sizeof *files);
    for (int i = 0; i < count; i++)
        files[i].path = model->weights.item[i];
    HubShelfOptions options = {
        .repo = model->repo, .file = files, .count = count, .reading = SHELF_ANY_ORDER};
    HubShelf *shelf = NULL;
    Status status = hub_shelf_open(&options, &shelf, err);
    if (status == OK) hub_shelf_start(shelf);
    for (int i = 0; i < count && status == OK; i++) {
        status = hub_shelf_take(shelf, i, err);
        if (status == OK) hub_shelf_give(shelf, i);
    }
    hub_shelf_close(shelf);
    free(files);
    return status;
}

Status hub_model_keep_commit(const HubModel *model, const char *commits, Error *err)
{
    return hub_repo_keep_commit(model->repo, commits, err);
}
