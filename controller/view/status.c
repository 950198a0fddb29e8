#include "view/status.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "view/live_line.h"
#include "view/skipped.h"

/* What there is none of is null: no key is ever missing. */
static void add_number(cJSON *object, const char *key, bool there, double value)
{
    if (there && isfinite(value))
        cJSON_AddNumberToObject(object, key, value);
    else
        cJSON_AddNullToObject(object, key);
}

static void add_text(cJSON *object, const char *key, const char *value)
{
    if (value != NULL && value[0] != '\0')
        cJSON_AddStringToObject(object, key, value);
    else
        cJSON_AddNullToObject(object, key);
}

static double seconds_since(int64_t now_ms, int64_t then_ms)
{
    return (double)(now_ms - then_ms) / 1000;
}

static void add_actor(cJSON *list, const ActorView *view, int64_t now_ms)
{
    cJSON *actor = cJSON_CreateObject();
    add_text(actor, "name", view->name);
    add_text(actor, "role", role_name(view->role));
    add_text(actor, "state", actor_state_name(view->state));
    add_text(actor, "reason", view->reason);
    add_number(actor, "pid", view->pid > 0, view->pid);
    add_number(actor, "node", view->node >= 0, view->node);
    add_text(actor, "doing", view->doing);
    add_text(actor, "waiting_for", view->waiting_for);
    add_text(actor, "trouble", view->trouble);
    add_number(actor, "restarts", true, view->restarts);
    add_number(actor, "rss_bytes", view->rss_bytes > 0, (double)view->rss_bytes);
    add_number(actor, "since_s", true, seconds_since(now_ms, view->since_ms));
    add_number(actor, "last_beat_s", view->beat_ms > 0, seconds_since(now_ms, view->beat_ms));
    cJSON_AddItemToArray(list, actor);
}

static void add_agent(cJSON *list, const NodeView *view)
{
    cJSON *agent = cJSON_CreateObject();
    add_text(agent, "node", view->name);
    add_text(agent, "state", view->up ? "up" : "down");
    add_number(agent, "pid", view->pid > 0, view->pid);
    add_number(agent, "guard_pid", view->guard_pid > 0, view->guard_pid);
    add_number(agent, "cpus", view->up, view->cpus);
    add_number(agent, "gpus", view->up, view->gpus);
    cJSON_AddItemToArray(list, agent);
}

/* Records that were not trained, or are odd, by reason. */
static void add_tally(cJSON *root, const JobView *job)
{
    Skipped skipped = skipped_count(job);
    cJSON *object = cJSON_AddObjectToObject(root, "skipped");
    add_number(object, "records", true, (double)skipped.records);
    add_number(object, "share", true, skipped.share);
    bool much = skipped_is_much(&skipped);
    add_text(object, "mostly", much ? reject_reason_name(skipped.mostly) : "");
    cJSON *reasons = cJSON_AddObjectToObject(object, "reasons");
    for (int i = REJECT_NONE + 1; i < REJECT_REASON_COUNT; i++)
        add_number(reasons, reject_reason_name((RejectReason)i), true,
                   (double)job->tally.rejected[i]);
    cJSON *odd = cJSON_AddObjectToObject(root, "odd");
    for (int i = 0; i < NOTE_COUNT; i++)
        add_number(odd, sample_note_name((SampleNote)i), true, (double)job->tally.noted[i]);
}

/* Of a mixture; else an empty list. */
static void add_sources(cJSON *root, const Controller *controller)
{
    SourceView view[INTERLEAVE_SOURCES_MAX];
    int count = sources_view(controller, view);
    cJSON *list = cJSON_AddArrayToObject(root, "sources");
    for (int i = 0; i < count; i++) {
        cJSON *source = cJSON_CreateObject();
        add_text(source, "name", view[i].name);
        add_number(source, "share", true, view[i].share);
        add_number(source, "epoch", true, view[i].epoch);
        add_number(source, "samples", true, (double)view[i].tally.samples);
        add_number(source, "tokens", true, (double)view[i].tally.tokens);
        add_number(source, "rejected", true, (double)view[i].tally.rejected);
        add_number(source, "bad_records", true, (double)view[i].tally.bad_records);
        cJSON_AddItemToArray(list, source);
    }
}

char *status_json(const JobConfig *config, const Controller *controller, const ReportView *last,
                  int64_t now_ms)
{
    JobView job = controller_job(controller);
    bool waits = job.waits_for[0] != '\0';
    cJSON *root = cJSON_CreateObject();
    add_text(root, "job", config->name);
    add_text(root, "phase", job.phase);
    add_text(root, "stage", job.stage_name);
    add_number(root, "step", true, (double)job.step);
    add_number(root, "total_steps", job.total_steps > 0, (double)job.total_steps);
    add_number(root, "loss", true, last->loss);
    add_number(root, "tokens_per_s", true, last->tokens_per_s);
    add_number(root, "mfu", true, last->mfu);
    add_number(root, "eta_s", true, last->eta_s);
    add_number(root, "eval_loss", true, last->eval_loss);
    add_number(root, "generation", true, job.generation);
    add_number(root, "next_position", true, (double)job.next_position);
    DataPosition at = data_position(job.next_position, job.records);
    add_number(root, "epoch_id", job.records > 0, (double)at.epoch_id);
    add_number(root, "consumed_count", job.records > 0, (double)at.consumed_count);
    add_number(root, "global_consumed_count", true, (double)at.global_consumed_count);
    add_number(root, "records", job.records >= 0, (double)job.records);
    add_number(root, "consumed_samples", true, (double)job.consumed_samples);
    add_number(root, "rejected_samples", true, (double)job.rejected_samples);
    add_tally(root, &job);
    add_sources(root, controller);
    add_number(root, "samples_ready", true, job.samples_ready);
    add_text(root, "waits_for", job.waits_for);
    add_number(root, "waits_s", waits, seconds_since(now_ms, job.waits_since_ms));
    add_text(root, "last_checkpoint", job.last_checkpoint);
    add_number(root, "best_step", job.best.step > 0, (double)job.best.step);
    add_number(root, "best_value", job.best.step > 0, job.best.value);
    cJSON *agents = cJSON_AddArrayToObject(root, "agents");
    for (int i = 0; i < controller_num_nodes(controller); i++) {
        NodeView view = controller_node(controller, i);
        add_agent(agents, &view);
    }
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

static bool has_number(const cJSON *object, const char *key)
{
    return cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(object, key));
}

/* Texts come from other processes: whatever they hold, an actor has one line. */
static void put_text(Str *text, const char *before, const char *value)
{
    if (value[0] == '\0') return;
    str_puts(text, before);
    str_put_escaped(text, value);
}

/* A column of 8, right-aligned; "-" for null. */
static void put_cell(Str *text, const cJSON *object, const char *key, double unit, int decimals)
{
    if (has_number(object, key))
        str_printf(text, " %8.*f", decimals, number_of(object, key) / unit);
    else
        str_printf(text, " %8s", "-");
}

static void put_agent(Str *text, const cJSON *agent)
{
    str_printf(text, "%-14s %-11s", "node_agent", text_of(agent, "state"));
    put_cell(text, agent, "pid", 1, 0);
    str_printf(text, " %8s %8s  ", "-", "-");
    put_text(text, "on ", text_of(agent, "node"));
    if (has_number(agent, "cpus")) {
        double cpus = number_of(agent, "cpus");
        str_printf(text, ", %g CPU%s", cpus, cpus == 1 ? "" : "s");
    }
    double gpus = has_number(agent, "gpus") ? number_of(agent, "gpus") : 0;
    if (gpus > 0) str_printf(text, ", %g GPU%s", gpus, gpus == 1 ? "" : "s");
    if (has_number(agent, "guard_pid"))
        str_printf(text, "; its guard: pid %.0f", number_of(agent, "guard_pid"));
    str_putc(text, '\n');
}

static void put_actor(Str *text, const cJSON *actor)
{
    str_printf(text, "%-14s %-11s", text_of(actor, "name"), text_of(actor, "state"));
    put_cell(text, actor, "pid", 1, 0);
    put_cell(text, actor, "rss_bytes", 1 << 20, 1);
    put_cell(text, actor, "restarts", 1, 0);
    str_puts(text, "  ");
    put_text(text, "", text_of(actor, "doing"));
    put_text(text, ", waits for ", text_of(actor, "waiting_for"));
    put_text(text, "; ", text_of(actor, "trouble"));
    if (strcmp(text_of(actor, "state"), "alive") != 0)
        put_text(text, " ", text_of(actor, "reason"));
    str_putc(text, '\n');
}

/* The last step in a line, when one was made. */
static void put_last_step(Str *text, const cJSON *root)
{
    if (has_number(root, "loss")) {
        str_printf(text, "last step: loss %.4f, ", number_of(root, "loss"));
        live_put_rate(text, number_of(root, "tokens_per_s"));
        str_puts(text, " tok/s");
        if (has_number(root, "mfu")) str_printf(text, ", MFU %.0f%%", 100 * number_of(root, "mfu"));
        if (has_number(root, "eta_s")) {
            str_puts(text, ", ETA ");
            live_put_duration(text, number_of(root, "eta_s"));
        }
        str_putc(text, '\n');
    }
    if (has_number(root, "eval_loss"))
        str_printf(text, "last evaluation: loss %.4f\n", number_of(root, "eval_loss"));
}

/* Why so many, in brackets; nothing when they are few. */
static void put_skipped(Str *text, const cJSON *root)
{
    const cJSON *skipped = cJSON_GetObjectItemCaseSensitive(root, "skipped");
    const char *mostly = text_of(skipped, "mostly");
    if (mostly[0] == '\0') return;
    str_puts(text, " (");
    skipped_put_share(text, number_of(skipped, "share"), mostly);
    str_putc(text, ')');
}

static void put_sources(Str *text, const cJSON *root)
{
    const cJSON *source;
    cJSON_ArrayForEach(source, cJSON_GetObjectItemCaseSensitive(root, "sources"))
    {
        put_text(text, "  ", text_of(source, "name"));
        str_printf(text, ": %.1f %%, %.0f samples of %.0f tokens trained, %.0f skipped",
                   100 * number_of(source, "share"), number_of(source, "samples"),
                   number_of(source, "tokens"), number_of(source, "rejected"));
        if (has_number(source, "epoch"))
            str_printf(text, ", pass %.2f", number_of(source, "epoch"));
        str_putc(text, '\n');
    }
}

static void put_processes(Str *text, const cJSON *root)
{
    str_printf(text, "\n%-14s %-11s %8s %8s %8s  %s\n", "ACTOR", "STATE", "PID", "RSS MiB",
               "RESTARTS", "DOING");
    const cJSON *agent, *actor;
    cJSON_ArrayForEach(agent, cJSON_GetObjectItemCaseSensitive(root, "agents"))
        put_agent(text, agent);
    cJSON_ArrayForEach(actor, cJSON_GetObjectItemCaseSensitive(root, "actors"))
        put_actor(text, actor);
}

Status status_table(const char *json, char **ret, Error *err)
{
    cJSON *root = NULL;
    TRY(json_parse(json, strlen(json), "the status answer", &root, err));
    Str text = {0};
    put_text(&text, "job ", text_of(root, "job"));
    put_text(&text, ", stage ", text_of(root, "stage"));
    str_printf(&text, ": %s, step %.0f", text_of(root, "phase"), number_of(root, "step"));
    if (has_number(root, "total_steps"))
        str_printf(&text, " of %.0f", number_of(root, "total_steps"));
    str_printf(&text, ", generation %.0f\n", number_of(root, "generation"));
    put_last_step(&text, root);
    str_printf(&text, "data: %.0f samples trained, %.0f skipped",
               number_of(root, "consumed_samples"), number_of(root, "rejected_samples"));
    put_skipped(&text, root);
    str_printf(&text, ", %.0f ready", number_of(root, "samples_ready"));
    if (has_number(root, "epoch_id"))
        str_printf(&text, "; %.0f of %.0f records of epoch %.0f", number_of(root, "consumed_count"),
                   number_of(root, "records"), number_of(root, "epoch_id"));
    str_putc(&text, '\n');
    put_sources(&text, root);
    put_text(&text, "last checkpoint: ", text_of(root, "last_checkpoint"));
    if (text_of(root, "last_checkpoint")[0] != '\0') str_putc(&text, '\n');
    if (has_number(root, "best_step"))
        str_printf(&text, "best evaluation: %.6g, step %.0f\n", number_of(root, "best_value"),
                   number_of(root, "best_step"));
    if (text_of(root, "waits_for")[0] != '\0') {
        str_printf(&text, "waiting %.1f s for ", number_of(root, "waits_s"));
        put_text(&text, "", text_of(root, "waits_for"));
        str_putc(&text, '\n');
    }
    if (strcmp(text_of(root, "phase"), "done") != 0) put_processes(&text, root);
    cJSON_Delete(root);
    *ret = str_take(&text);
    return OK;
}
