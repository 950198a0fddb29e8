#include "view/metrics.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"

/* Where a line stands. */
typedef struct Place {
    int64_t step;
    MetricsKind kind;
    int stage; /* from 1 */
} Place;

struct Metrics {
    FILE *file;
    char *path;
    Place last; /* of the last line; step -1: there is none */
    off_t end;  /* of the last line in the file */
    Str line;   /* being made */
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

/* Reads on from the start of the file until a line is of a step after `step_max`, is not whole, or
 * stands in the way of `of` (which may be NULL); that is where the lines to keep end. */
static void read_lines(Metrics *metrics, int64_t step_max, const Place *of)
{
    char *line = NULL;
    size_t size = 0;
    off_t at = 0;
    metrics->last = (Place){.step = -1};
    metrics->end = 0;
    rewind(metrics->file);
    for (ssize_t length; (length = getline(&line, &size, metrics->file)) > 0; at += length) {
        Place place = place_of(line);
        if (line[length - 1] != '\n' || place.step > step_max) break;
        if (of != NULL && is_in_the_way(&place, of)) break;
        metrics->last = place;
        metrics->end = at + length;
    }
    free(line);
}

static void cut(Metrics *metrics, off_t end)
{
    if (ftruncate(fileno(metrics->file), end) != 0)
        log_event(LOG_WARN, "metrics_not_cut", F_STR("path", metrics->path),
                  F_STR("why", strerror(errno)));
    metrics->end = end;
    fseeko(metrics->file, 0, SEEK_END);
}

void metrics_rewind(Metrics *metrics, int64_t step)
{
    if (metrics->last.step <= step) return;
    read_lines(metrics, step, NULL);
    cut(metrics, metrics->end);
}

/* ---- writing ---- */

void metrics_begin(Metrics *metrics, MetricsKind kind, int64_t step, int stage)
{
    char stamp[CLOCK_STAMP_BYTES];
    Place place = {.step = step, .kind = kind, .stage = stage > 0 ? stage : 1};
    if (is_in_the_way(&metrics->last, &place)) {
        read_lines(metrics, INT64_MAX, &place);
        cut(metrics, metrics->end);
    }
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

void metrics_end(Metrics *metrics)
{
    str_puts(&metrics->line, "}\n");
    fwrite(metrics->line.data, 1, metrics->line.length, metrics->file);
    fflush(metrics->file);
    metrics->end += (off_t)metrics->line.length;
}

/* ---- life ---- */

Status metrics_open(const char *path, Metrics **ret, Error *err)
{
    FILE *file = fopen(path, "a+e");
    if (file == NULL) return error_set_errno(err, errno, "could not open %s", path);
    Metrics *metrics = mem_calloc(1, sizeof *metrics);
    metrics->file = file;
    metrics->path = mem_strdup(path);
    read_lines(metrics, INT64_MAX, NULL);
    cut(metrics, metrics->end);
    *ret = metrics;
    return OK;
}

void metrics_close(Metrics *metrics)
{
    if (metrics == NULL) return;
    fclose(metrics->file);
    str_free(&metrics->line);
    free(metrics->path);
    free(metrics);
}
