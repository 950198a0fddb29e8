#include "base/options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/str.h"

#define OPTIONS_MAX 32

static const char *name_of(int letter, const struct option *list)
{
    for (; list->name != NULL; list++)
        if (list->val == letter) return list->name;
    return "?";
}

static const char *nearest(const char *text, const struct option *list)
{
    const char *names[OPTIONS_MAX];
    size_t count = 0;
    for (; list->name != NULL && count < OPTIONS_MAX; list++)
        names[count++] = list->name;
    char *name = mem_strdup(text + strspn(text, "-"));
    name[strcspn(name, "=")] = '\0';
    const char *found = str_nearest(name, names, count);
    free(name);
    return found;
}

/* "usage: NAME ..." and the lines behind it with other uses: "       NAME ...". */
static size_t use_length(const char *help)
{
    size_t indent = strlen("usage: "), length = strcspn(help, "\n");
    if (!str_starts_with(help, "usage: ")) return length;
    const char *name = help + indent;
    size_t word = strcspn(name, " ") + 1;
    while (help[length] == '\n' && strspn(help + length + 1, " ") == indent &&
           strncmp(help + length + 1 + indent, name, word) == 0)
        length += 1 + strcspn(help + length + 1, "\n");
    return length;
}

static Status show_use(const char *help, Error *err)
{
    return error_append(err, "%.*s", (int)use_length(help), help);
}

Status option_misuse(const char *help, Error *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error_setv(err, ERR_INVALID, format, args);
    va_end(args);
    return show_use(help, err);
}

Status option_refuse(int answer, char *const *argv, const struct option *list, const char *help,
                     Error *err)
{
    const char *text = argv[optind - 1];
    if (answer == ':')
        return option_misuse(help, err, "--%s needs a value.", name_of(optopt, list));
    if (optopt != 0 && str_starts_with(text, "--"))
        return option_misuse(help, err, "--%s takes no value.", name_of(optopt, list));
    if (optopt != 0) return option_misuse(help, err, "unknown option -%c.", optopt);
    const char *meant = nearest(text, list);
    error_set(err, ERR_INVALID, "unknown option %s.", text);
    if (meant != NULL) error_append(err, "Did you mean --%s?", meant);
    return show_use(help, err);
}

Status option_number(const char *option, const char *text, uint64_t max, uint64_t *ret, Error *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || strchr(text, '-') != NULL || number > max)
        return error_set(err, ERR_INVALID,
                         "%s is \"%.40s\", expected a whole number from 0 to %llu", option, text,
                         (unsigned long long)max);
    *ret = number;
    return OK;
}

Status option_color(const char *when, bool *ret, Error *err)
{
    if (when == NULL || strcmp(when, "always") == 0)
        *ret = true;
    else if (strcmp(when, "never") == 0)
        *ret = false;
    else if (strcmp(when, "auto") != 0)
        return error_set(err, ERR_INVALID,
                         "--color is \"%.40s\", expected one of always, never, auto", when);
    return OK;
}

bool option_color_auto(void)
{
    const char *terminal = getenv("TERM"), *no_color = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && (no_color == NULL || no_color[0] == '\0') && terminal != NULL &&
           strcmp(terminal, "dumb") != 0;
}
