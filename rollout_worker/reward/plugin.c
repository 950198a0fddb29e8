/* The reward `plugin`: a shared object of the user's with the interface of reward_plugin.h. */
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/reward.h"
#include "rollout_worker/reward/reward_plugin.h"

typedef struct Plugin {
    void *library;
    const RewardPlugin *table;
    void *opened;
} Plugin;

static void plugin_close(void *self)
{
    Plugin *plugin = self;
    if (plugin == NULL) return;
    if (plugin->table != NULL) plugin->table->close(plugin->opened);
    if (plugin->library != NULL) dlclose(plugin->library);
    free(plugin);
}

static Status load(const char *path, void **ret_library, const RewardPlugin **ret, Error *err)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return error_set(err, ERR_NOT_FOUND, "cannot load reward plugin %s: %s", QUOTED(path),
                         dlerror());
    const RewardPlugin *(*entry)(void) = NULL;
    void *symbol = dlsym(library, "reward_plugin");
    memcpy(&entry, &symbol, sizeof entry);
    const RewardPlugin *table = symbol == NULL ? NULL : entry();
    Status status = OK;
    if (table == NULL)
        status = error_set(err, ERR_INVALID, "%s exports no reward_plugin, expected what %s says",
                           QUOTED(path), "reward_plugin.h");
    else if (table->abi != REWARD_PLUGIN_ABI)
        status =
            error_set(err, ERR_UNSUPPORTED,
                      "reward plugin %s is made for interface %u, this build has %d: compile it "
                      "with this build's reward_plugin.h",
                      QUOTED(path), table->abi, REWARD_PLUGIN_ABI);
    else if (table->name == NULL || table->open == NULL || table->close == NULL ||
             table->score == NULL)
        status = error_set(err, ERR_INVALID,
                           "reward plugin %s lacks its name, open, close or score", QUOTED(path));
    if (status != OK) {
        dlclose(library);
        return status;
    }
    *ret_library = library;
    *ret = table;
    return OK;
}

static Status plugin_open(const cJSON *options, void **ret_self, Error *err)
{
    static const char *const keys[] = {"path", "options", NULL};
    const char *path = NULL;
    void *library = NULL, *opened = NULL;
    const RewardPlugin *table = NULL;
    char message[512] = "";
    TRY(options_check(options, "plugin", keys, err));
    TRY(json_string(options, "path", "plugin", &path, err));
    TRY(load(path, &library, &table, err));
    const cJSON *own = cJSON_GetObjectItemCaseSensitive(options, "options");
    char *text = own == NULL ? mem_strdup("{}") : cJSON_PrintUnformatted(own);
    int failed = table->open(text, &opened, message, sizeof message);
    free(text);
    if (failed != 0) {
        message[sizeof message - 1] = '\0';
        error_set(err, ERR_INVALID, "reward plugin %s: %s", QUOTED(table->name),
                  message[0] == '\0' ? "it did not open and says nothing" : message);
        dlclose(library);
        return err->status;
    }
    Plugin *plugin = mem_alloc(sizeof *plugin);
    *plugin = (Plugin){library, table, opened};
    *ret_self = plugin;
    return OK;
}

static RewardPluginText text_of(Slice slice)
{
    return (RewardPluginText){slice.length == 0 ? "" : slice.data, slice.length};
}

static RewardPluginRequest request_of(const RewardRequest *request, const char *metadata)
{
    return (RewardPluginRequest){
        .prompt = text_of(request->prompt),
        .response = text_of(request->response),
        .label = text_of(request->label),
        .metadata = {metadata, strlen(metadata)},
        .position = request->position,
        .index = request->index,
    };
}

static char *print_metadata(const cJSON *metadata)
{
    return metadata == NULL ? mem_strdup("{}") : cJSON_PrintUnformatted(metadata);
}

static void take_result(const Plugin *plugin, RewardPluginResult *from, RewardResult *ret)
{
    from->reason[sizeof from->reason - 1] = '\0';
    from->answer[sizeof from->answer - 1] = '\0';
    bool judged = from->outcome == REWARD_PLUGIN_OK || from->outcome == REWARD_PLUGIN_WRONG;
    if (judged && isfinite(from->score)) {
        reward_judge(ret, from->outcome == REWARD_PLUGIN_OK, from->score, slice_from(from->answer));
        reward_explain(ret, "%s", from->reason);
    } else if (judged) {
        reward_fail(ret, REWARD_INFRA_ERROR, "plugin %s: its score is not finite",
                    plugin->table->name);
    } else {
        bool known =
            from->outcome == REWARD_PLUGIN_INFRA_ERROR || from->outcome == REWARD_PLUGIN_TIMEOUT;
        reward_fail(ret, known ? (RewardOutcome)from->outcome : REWARD_INFRA_ERROR, "plugin %s: %s",
                    plugin->table->name,
                    known ? from->reason : "its outcome is none of the interface's");
    }
}

static void plugin_score_group(void *self, const RewardRequest *requests, int count,
                               RewardResult *ret)
{
    Plugin *plugin = self;
    char *metadata = print_metadata(requests[0].metadata);
    RewardPluginRequest *given = mem_calloc((size_t)count, sizeof *given);
    RewardPluginResult *results = mem_calloc((size_t)count, sizeof *results);
    for (int i = 0; i < count; i++)
        given[i] = request_of(&requests[i], metadata);
    if (plugin->table->score_group != NULL)
        plugin->table->score_group(plugin->opened, given, count, results);
    for (int i = 0; i < count && plugin->table->score_group == NULL; i++)
        plugin->table->score(plugin->opened, &given[i], &results[i]);
    for (int i = 0; i < count; i++)
        take_result(plugin, &results[i], &ret[i]);
    free(results);
    free(given);
    free(metadata);
}

static void plugin_score(void *self, const RewardRequest *request, RewardResult *ret)
{
    Plugin *plugin = self;
    char *metadata = print_metadata(request->metadata);
    RewardPluginRequest given = request_of(request, metadata);
    RewardPluginResult result = {0};
    plugin->table->score(plugin->opened, &given, &result);
    take_result(plugin, &result, ret);
    free(metadata);
}

const RewardTable reward_plugin_table = {"plugin",     plugin_open,        plugin_close,
                                         plugin_score, plugin_score_group, NULL};
