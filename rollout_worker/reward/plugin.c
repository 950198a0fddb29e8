/* The reward `plugin`: a shared object of the user's with the interface of reward_plugin.h. */
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/process/plugin_guard.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/reward.h"
#include "rollout_worker/reward/reward_plugin.h"

#define TIMEOUT_MS 60000

typedef struct Plugin {
    void *library;
    const RewardPlugin *table;
    void *opened;
    PluginGuard *guard;
} Plugin;

static void plugin_close(void *self)
{
    Plugin *plugin = self;
    if (plugin == NULL) return;
    if (!plugin_guard_destroy(plugin->guard)) return; /* what hangs in it may use it still */
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
    static const char *const keys[] = {"path", "options", "timeout_ms", NULL};
    const char *path = NULL;
    int64_t timeout_ms = TIMEOUT_MS;
    void *library = NULL, *opened = NULL;
    const RewardPlugin *table = NULL;
    char message[512] = "";
    TRY(options_check(options, "plugin", keys, err));
    TRY(json_string(options, "path", "plugin", &path, err));
    TRY(json_int_or(options, "timeout_ms", "plugin", 1, 86400000, &timeout_ms, err));
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
    *plugin = (Plugin){library, table, opened, plugin_guard_create(table->name, timeout_ms)};
    *ret_self = plugin;
    return OK;
}

/* ---- calls ---- */

/* A call of the plugin with all that it needs: it may outlive who asked. */
typedef struct Asked {
    const Plugin *plugin;
    RewardPluginRequest *request; /* [count] */
    RewardPluginResult *result;   /* [count] */
    int count;
    bool group; /* score_group */
    Str texts;  /* what the requests point to */
    char *metadata;
} Asked;

static size_t put_text(Str *texts, Slice slice)
{
    size_t at = texts->length;
    if (slice.length > 0) str_append(texts, slice.data, slice.length);
    return at;
}

static RewardPluginText text_at(const Str *texts, size_t at, Slice slice)
{
    return (RewardPluginText){slice.length == 0 ? "" : texts->data + at, slice.length};
}

static Asked *asked_create(const Plugin *plugin, const RewardRequest *requests, int count)
{
    Asked *asked = mem_calloc(1, sizeof *asked);
    size_t bytes = 1;
    for (int i = 0; i < count; i++)
        bytes += requests[i].prompt.length + requests[i].response.length + requests[i].label.length;
    str_reserve(&asked->texts, bytes); /* so that it does not move */
    asked->plugin = plugin;
    asked->count = count;
    asked->request = mem_calloc((size_t)count, sizeof *asked->request);
    asked->result = mem_calloc((size_t)count, sizeof *asked->result);
    asked->metadata = requests[0].metadata == NULL ? mem_strdup("{}")
                                                   : cJSON_PrintUnformatted(requests[0].metadata);
    for (int i = 0; i < count; i++) {
        const RewardRequest *from = &requests[i];
        size_t prompt = put_text(&asked->texts, from->prompt);
        size_t response = put_text(&asked->texts, from->response);
        size_t label = put_text(&asked->texts, from->label);
        asked->request[i] = (RewardPluginRequest){
            .prompt = text_at(&asked->texts, prompt, from->prompt),
            .response = text_at(&asked->texts, response, from->response),
            .label = text_at(&asked->texts, label, from->label),
            .metadata = {asked->metadata, strlen(asked->metadata)},
            .position = from->position,
            .index = from->index,
        };
    }
    return asked;
}

static void asked_destroy(void *argument)
{
    Asked *asked = argument;
    free(asked->request);
    free(asked->result);
    free(asked->metadata);
    str_free(&asked->texts);
    free(asked);
}

static void call_plugin(void *argument, GuardedCall *call)
{
    Asked *asked = argument;
    const Plugin *plugin = asked->plugin;
    (void)call;
    if (asked->group)
        plugin->table->score_group(plugin->opened, asked->request, asked->count, asked->result);
    else
        plugin->table->score(plugin->opened, asked->request, asked->result);
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

/* Asks about all of them at once. */
static void ask(const Plugin *plugin, const RewardRequest *requests, int count, bool group,
                RewardResult *ret)
{
    Asked *asked = asked_create(plugin, requests, count);
    Error err = {0};
    asked->group = group;
    const PluginWork work = {call_plugin, asked_destroy, asked};
    Status status = plugin_guard_call(plugin->guard, &work, &err);
    for (int i = 0; i < count && status == OK; i++)
        take_result(plugin, &asked->result[i], &ret[i]);
    for (int i = 0; i < count && status != OK; i++) {
        reward_fail(&ret[i], REWARD_TIMEOUT, "%.*s", (int)strcspn(err.message, "\n"), err.message);
        ret[i].hopeless = status == ERR_RESOURCE;
    }
    if (status == OK) asked_destroy(asked);
}

static void plugin_score_group(void *self, const RewardRequest *requests, int count,
                               RewardResult *ret)
{
    const Plugin *plugin = self;
    if (plugin->table->score_group != NULL) {
        ask(plugin, requests, count, true, ret);
        return;
    }
    for (int i = 0; i < count; i++)
        ask(plugin, &requests[i], 1, false, &ret[i]);
}

static void plugin_score(void *self, const RewardRequest *request, RewardResult *ret)
{
    ask(self, request, 1, false, ret);
}

const RewardTable reward_plugin_table = {"plugin",     plugin_open,        plugin_close,
                                         plugin_score, plugin_score_group, NULL};
