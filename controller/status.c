#include "status.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "live_line.h"

static void add_actor(cJSON *list, const ActorView *view, int64_t now_ms)
{
    cJSON *actor = cJSON_CreateObject();
    cJSON_AddStringToObject(actor, "name", view->name);
    cJSON_AddStringToObject(actor, "role", role_name(view->role));
    cJSON_AddStringToObject(actor, "state", actor_state_name(view->state));
    cJSON_AddStringToObject(actor, "reason", view->reason);
    cJSON_AddNumberToObject(actor, "pid", view->pid);
    cJSON_AddNumberToObject(actor, "node", view->node);
    cJSON_AddStringToObject(actor, "doing", view->doing);
    cJSON_AddStringToObject(actor, "waiting_for", view->waiting_for);
    cJSON_AddNumberToObject(actor, "restarts", view->restarts);
    cJSON_AddNumberToObject(actor, "rss_bytes", (double)view->rss_bytes);
    cJSON_AddNumberToObject(actor, "since_s", (double)(now_ms - view->since_ms) / 1000);
    if (view->beat_ms > 0)
        cJSON_AddNumberToObject(actor, "last_beat_s", (double)(now_ms - view->beat_ms) / 1000);
    cJSON_AddItemToArray(list, actor);
}

/* Only what there is: JSON has no NAN. */
static void add_figure(cJSON *object, const char *key, double value)
{
    if (isfinite(value)) cJSON_AddNumberToObject(object, key, value);
}

char *status_json(const JobConfig *config, const Controller *controller, const ReportView *last,
                  int64_t now_ms)
{
    JobView job = controller_job(controller);
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "job", config->name);
    cJSON_AddStringToObject(root, "phase", job.phase);
    cJSON_AddNumberToObject(root, "step", (double)job.step);
    cJSON_AddNumberToObject(root, "total_steps", (double)job.total_steps);
    add_figure(root, "loss", last->loss);
    add_figure(root, "tokens_per_s", last->tokens_per_s);
    add_figure(root, "mfu", last->mfu);
    add_figure(root, "eta_s", last->eta_s);
    add_figure(root, "eval_loss", last->eval_loss);
    cJSON_AddNumberToObject(root, "generation", job.generation);
    cJSON_AddNumberToObject(root, "next_position", (double)job.next_position);
    cJSON_AddNumberToObject(root, "records", (double)job.records);
    cJSON_AddNumberToObject(root, "consumed_samples", (double)job.consumed_samples);
    cJSON_AddNumberToObject(root, "rejected_samples", (double)job.rejected_samples);
    cJSON_AddNumberToObject(root, "samples_ready", job.samples_ready);
    cJSON_AddStringToObject(root, "waits_for", job.waits_for);
    if (job.waits_for[0] != '\0')
        cJSON_AddNumberToObject(root, "waits_s", (double)(now_ms - job.waits_since_ms) / 1000);
    if (job.last_checkpoint != NULL)
        cJSON_AddStringToObject(root, "last_checkpoint", job.last_checkpoint);
    cJSON *actors = cJSON_AddArrayToObject(root, "actors");
    for (int i = 0; i < controller_num_actors(controller); i++) {
        ActorView view = controller_actor(controller, i);
        add_actor(actors, &view, now_ms);
    }
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    CHECK(text != NULL);
    return text;
}

static const char *text_of(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(value) ? value->valuestring : "";
}

static double number_of(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

/* Texts come from other processes: whatever they hold, an actor has one line. */
static void put_text(Str *text, const char *before, const char *value)
{
    if (value[0] == '\0') return;
    str_puts(text, before);
    str_put_escaped(text, value);
}

static void put_actor(Str *text, const cJSON *actor)
{
    str_printf(text, "%-14s %-11s %8.0f %8.1f %8.0f  ", text_of(actor, "name"),
               text_of(actor, "state"), number_of(actor, "pid"),
               number_of(actor, "rss_bytes") / (1 << 20), number_of(actor, "restarts"));
    put_text(text, "", text_of(actor, "doing"));
    put_text(text, ", waits for ", text_of(actor, "waiting_for"));
    if (strcmp(text_of(actor, "state"), "alive") != 0)
        put_text(text, " ", text_of(actor, "reason"));
    str_putc(text, '\n');
}

/* The last step in a line, when one was made. */
static void put_last_step(Str *text, const cJSON *root)
{
    if (cJSON_GetObjectItemCaseSensitive(root, "loss") != NULL) {
        str_printf(text, "last step: loss %.4f, ", number_of(root, "loss"));
        live_put_rate(text, number_of(root, "tokens_per_s"));
        str_puts(text, " tok/s");
        if (number_of(root, "mfu") > 0)
            str_printf(text, ", MFU %.0f%%", 100 * number_of(root, "mfu"));
        str_puts(text, ", ETA ");
        live_put_duration(text, number_of(root, "eta_s"));
        str_putc(text, '\n');
    }
    if (cJSON_GetObjectItemCaseSensitive(root, "eval_loss") != NULL)
        str_printf(text, "last evaluation: loss %.4f\n", number_of(root, "eval_loss"));
}

Status status_table(const char *json, char **ret, Error *err)
{
    cJSON *root = NULL;
    TRY(json_parse(json, strlen(json), "the status answer", &root, err));
    Str text = {0};
    put_text(&text, "job ", text_of(root, "job"));
    str_printf(&text, ": %s, step %.0f of %.0f, generation %.0f\n", text_of(root, "phase"),
               number_of(root, "step"), number_of(root, "total_steps"),
               number_of(root, "generation"));
    put_last_step(&text, root);
    str_printf(&text,
               "data: %.0f samples trained, %.0f skipped, %.0f ready; %.0f records an epoch\n",
               number_of(root, "consumed_samples"), number_of(root, "rejected_samples"),
               number_of(root, "samples_ready"), number_of(root, "records"));
    put_text(&text, "last checkpoint: ", text_of(root, "last_checkpoint"));
    if (text_of(root, "last_checkpoint")[0] != '\0') str_putc(&text, '\n');
    if (text_of(root, "waits_for")[0] != '\0') {
        str_printf(&text, "waiting %.1f s for ", number_of(root, "waits_s"));
        put_text(&text, "", text_of(root, "waits_for"));
        str_putc(&text, '\n');
    }
    str_printf(&text, "\n%-14s %-11s %8s %8s %8s  %s\n", "ACTOR", "STATE", "PID", "RSS MiB",
               "RESTARTS", "DOING");
    const cJSON *actor;
    cJSON_ArrayForEach(actor, cJSON_GetObjectItemCaseSensitive(root, "actors"))
        put_actor(&text, actor);
    cJSON_Delete(root);
    *ret = str_take(&text);
    return OK;
}
