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

struct Metrics {
    FILE *file;
    char *path;
    MetricsKind kind; /* of the last line */
    int64_t step;     /* of the last line; -1: there is none */
    off_t begin, end; /* of the last line in the file */
    Str line;         /* being made */
};

/* ---- reading one's own lines ---- */

/* The step of a whole line, or -1 when it is none of ours. */
static int64_t step_of(const char *line)
{
    static const char key[] = "\"step\":";
    const char *at = strstr(line, key);
    return at != NULL ? strtoll(at + sizeof key - 1, NULL, 10) : -1;
}

/* Reads on from the start of the file until a line is of a step after `step_max` or is not whole;
 * that is where the lines to keep end. */
static void read_lines(Metrics *metrics, int64_t step_max)
{
    char *line = NULL;
    size_t size = 0;
    off_t at = 0;
    metrics->step = -1;
    metrics->begin = metrics->end = 0;
    rewind(metrics->file);
    for (ssize_t length; (length = getline(&line, &size, metrics->file)) > 0; at += length) {
        int64_t step = step_of(line);
        if (line[length - 1] != '\n' || step > step_max) break;
        metrics->kind = strstr(line, "\"eval/") != NULL ? METRICS_EVAL : METRICS_STEP;
        metrics->step = step;
        metrics->begin = at;
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
    if (metrics->step <= step) return;
    read_lines(metrics, step);
    cut(metrics, metrics->end);
}

/* ---- writing ---- */

void metrics_begin(Metrics *metrics, MetricsKind kind, int64_t step)
{
    char stamp[CLOCK_STAMP_BYTES];
    bool again = metrics->step == step && metrics->kind == kind;
    if (again) cut(metrics, metrics->begin);
    metrics->kind = kind;
    metrics->step = step;
    str_clear(&metrics->line);
    str_printf(&metrics->line, "{\"time\":\"%s\",\"step\":%lld", clock_stamp(stamp),
               (long long)step);
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
    metrics->begin = metrics->end;
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
    read_lines(metrics, INT64_MAX);
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
