#include "view/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lines.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"

#define METRICS_LINE_MAX    (1u << 20) /* bytes */
#define METRICS_WAITING_MAX (4u << 20) /* bytes, for which the disk has no room */

/* Where a line stands. */
typedef struct Place {
    int64_t step;
    MetricsKind kind;
    int stage; /* from 1 */
} Place;

struct Metrics {
    int fd;
    char *path;
    Place last;   /* of the last line, in the file or waiting; step -1: there is none */
    int64_t end;  /* of the last line in the file */
    Str line;     /* being made */
    Str waiting;  /* whole lines for which the disk had no room yet */
    bool no_room; /* and people were told */
};

/* ---- reading one's own lines ---- */

/* The number behind a key of a whole line, or `otherwise` when it has none. */
static int64_t number_of(const char *line, const char *key, int64_t otherwise)
{
    const char *at = strstr(line, key);
    return at != NULL ? strtoll(at + strlen(key), NULL, 10) : otherwise;
}

static Place place_of(const char *line)
{
    return (Place){
        .step = number_of(line, "\"step\":", -1),
        .kind = strstr(line, "\"eval/") != NULL ? METRICS_EVAL : METRICS_STEP,
        .stage = (int)number_of(line, "\"stage\":", 1),
    };
}

/* A line in the first place stands where one in the second is to stand, or behind it. */
static bool is_in_the_way(const Place *line, const Place *of)
{
    return line->step == of->step && line->kind == of->kind && line->stage >= of->stage;
}

/* Whether a line goes when those of steps after `step_max` do, and those in the way of `of` (which
 * may be NULL). */
static bool has_to_go(const Place *line, int64_t step_max, const Place *of)
{
    return line->step > step_max || (of != NULL && is_in_the_way(line, of));
}

/* Of the lines that wait; true when one stays, which is the last of all then. */
static bool drop_waiting(Metrics *metrics, int64_t step_max, const Place *of)
{
    char *at = metrics->waiting.data;
    bool kept = false;
    for (char *newline; at != NULL && (newline = strchr(at, '\n')) != NULL; at = newline + 1) {
        *newline = '\0';
        Place place = place_of(at);
        *newline = '\n';
        if (has_to_go(&place, step_max, of)) {
            metrics->waiting.length = (size_t)(at - metrics->waiting.data);
            *at = '\0';
            return kept;
        }
        metrics->last = place;
        kept = true;
    }
    return kept;
}

/* Goes back from the end of the file to the last line that stays. */
static Status drop_written(Metrics *metrics, int64_t step_max, const Place *of, Error *err)
{
    Str line = {0};
    int64_t end = metrics->end, begin = 0;
    Place last = {.step = -1};
    Status status = OK;
    for (; end > 0; end = begin) {
        status =
            lines_before(metrics->fd, end, METRICS_LINE_MAX, metrics->path, &line, &begin, err);
        if (status != OK) break;
        last = place_of(str_text(&line));
        if (!has_to_go(&last, step_max, of)) break;
        last = (Place){.step = -1};
    }
    if (status == OK && end < metrics->end && ftruncate(metrics->fd, (off_t)end) != 0)
        status = error_set_errno(err, errno, "could not cut %s back to %lld bytes", metrics->path,
                                 (long long)end);
    if (status == OK) metrics->end = end;
    metrics->last = last;
    str_free(&line);
    return status;
}

static void drop(Metrics *metrics, int64_t step_max, const Place *of)
{
    Error err = {0};
    if (drop_waiting(metrics, step_max, of)) return;
    if (drop_written(metrics, step_max, of, &err) != OK)
        log_event(LOG_WARN, "metrics_not_cut", F_STR("why", err.message));
}

void metrics_rewind(Metrics *metrics, int64_t step)
{
    if (metrics->last.step > step) drop(metrics, step, NULL);
}

/* ---- writing ---- */

void metrics_begin(Metrics *metrics, MetricsKind kind, int64_t step, int stage)
{
    char stamp[CLOCK_STAMP_BYTES];
    Place place = {.step = step, .kind = kind, .stage = stage > 0 ? stage : 1};
    if (is_in_the_way(&metrics->last, &place)) drop(metrics, INT64_MAX, &place);
    metrics->last = place;
    str_clear(&metrics->line);
    str_printf(&metrics->line, "{\"time\":\"%s\"", clock_stamp(stamp));
    if (stage > 0) str_printf(&metrics->line, ",\"stage\":%d", stage);
    str_printf(&metrics->line, ",\"step\":%lld", (long long)step);
}

void metrics_put(Metrics *metrics, const char *name, double value)
{
    if (isfinite(value))
        str_printf(&metrics->line, ",\"%s\":%.9g", name, value);
    else
        str_printf(&metrics->line, ",\"%s\":null", name);
}

/* Lines are there whole and in order: behind one that found no room the others wait. */
static void write_waiting(Metrics *metrics)
{
    Error err = {0};
    if (lines_append(metrics->fd, str_text(&metrics->waiting), metrics->waiting.length,
                     metrics->path, &metrics->end, NULL, &err) == OK) {
        str_clear(&metrics->waiting);
        metrics->no_room = false;
        return;
    }
    if (!metrics->no_room) log_event(LOG_WARN, "metrics_wait", F_STR("why", err.message));
    metrics->no_room = true;
    if (metrics->waiting.length < METRICS_WAITING_MAX) return;
    log_event(LOG_WARN, "metrics_lost", F_STR("why", err.message),
              F_INT("bytes", (int64_t)metrics->waiting.length));
    str_clear(&metrics->waiting);
}

void metrics_end(Metrics *metrics)
{
    str_puts(&metrics->line, "}\n");
    str_append(&metrics->waiting, metrics->line.data, metrics->line.length);
    write_waiting(metrics);
}

/* ---- life ---- */

Status metrics_open(const char *path, Metrics **ret, Error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return error_set_errno(err, errno, "could not open %s", path);
    Metrics *metrics = mem_calloc(1, sizeof *metrics);
    metrics->fd = fd;
    metrics->path = mem_strdup(path);
    Status status = lines_cut_torn(fd, path, &metrics->end, err);
    if (status == OK) status = drop_written(metrics, INT64_MAX, NULL, err);
    if (status == OK)
        *ret = metrics;
    else
        metrics_close(metrics);
    return status;
}

void metrics_close(Metrics *metrics)
{
    if (metrics == NULL) return;
    if (metrics->waiting.length > 0) write_waiting(metrics);
    close(metrics->fd);
    str_free(&metrics->waiting);
    str_free(&metrics->line);
    free(metrics->path);
    free(metrics);
}
