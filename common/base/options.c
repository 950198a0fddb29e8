#include "base/options.h"

#include <stdlib.h>
#include <string.h>

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

Status option_refuse(int answer, char *const *argv, const struct option *list, Error *err)
{
    const char *text = argv[optind - 1];
    if (answer == ':')
        return error_set(err, ERR_INVALID, "--%s needs a value.", name_of(optopt, list));
    if (optopt != 0 && str_starts_with(text, "--"))
        return error_set(err, ERR_INVALID, "--%s takes no value.", name_of(optopt, list));
    if (optopt != 0) return error_set(err, ERR_INVALID, "unknown option -%c.", optopt);
    const char *meant = nearest(text, list);
    error_set(err, ERR_INVALID, "unknown option %s.", text);
    if (meant != NULL) error_append(err, "Did you mean --%s?", meant);
    return ERR_INVALID;
}
