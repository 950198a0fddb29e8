#include "hub/access.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"

#define TOKEN_BYTES_MAX 4096

typedef char *Variable(const char *name);

/* NULL for one that is empty, too. */
static const char *look(Variable *variable, const char *name)
{
    const char *value = variable(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static const char *look_first(Variable *variable, const char *const *name)
{
    const char *value = NULL;
    for (; value == NULL && *name != NULL; name++)
        value = look(variable, *name);
    return value;
}

static bool is_true(const char *value)
{
    static const char *const words[] = {"1", "on", "yes", "true"};
    for (size_t i = 0; value != NULL && i < sizeof words / sizeof *words; i++)
        if (strcasecmp(value, words[i]) == 0) return true;
    return false;
}

/* "~/x" and "~": below the home folder. */
static char *expand_home(Variable *variable, const char *path)
{
    const char *home = look(variable, "HOME");
    if (home == NULL || path[0] != '~' || (path[1] != '/' && path[1] != '\0'))
        return mem_strdup(path);
    return path_join(home, path[1] == '\0' ? "" : path + 2);
}

/* HF_HOME, or "huggingface" in the folder of caches. */
static char *home_folder(Variable *variable)
{
    const char *home = look(variable, "HF_HOME"), *caches = look(variable, "XDG_CACHE_HOME");
    if (home != NULL) return expand_home(variable, home);
    char *folder = expand_home(variable, caches != NULL ? caches : "~/.cache");
    char *path = path_join(folder, "huggingface");
    free(folder);
    return path;
}

/* Without white space around it; NULL when nothing is left. Owned. */
static char *trim(const char *text)
{
    static const char space[] = " \t\r\n";
    text += strspn(text, space);
    size_t length = strlen(text);
    while (length > 0 && strchr(space, text[length - 1]) != NULL)
        length--;
    return length > 0 ? mem_strndup(text, length) : NULL;
}

static Status read_token(Variable *variable, const char *home, char **ret, Error *err)
{
    static const char *const names[] = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", NULL};
    const char *said = look_first(variable, names), *named = look(variable, "HF_TOKEN_PATH");
    *ret = NULL;
    if (is_true(look(variable, "HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return OK;
    if (said != NULL) {
        *ret = trim(said);
    } else {
        char *path = named != NULL ? expand_home(variable, named) : path_join(home, "token");
        char *text = NULL;
        size_t length = 0;
        if (file_read(path, TOKEN_BYTES_MAX, &text, &length, NULL) == OK) *ret = trim(text);
        free(text);
        free(path);
    }
    if (*ret == NULL || strpbrk(*ret, " \t\r\n") == NULL) return OK;
    free(*ret);
    *ret = NULL;
    return error_set(err, ERR_INVALID,
                     "%s is not one word\n  expected: a token, hf_...\n"
                     "  to do: correct it, or write it again with hf auth login",
                     said != NULL ? "HF_TOKEN" : "the token of HF_HOME");
}

static Status read_endpoint(Variable *variable, char **ret, Error *err)
{
    const char *said = look(variable, "HF_ENDPOINT");
    if (said == NULL) said = "https://huggingface.co";
    if ((!str_starts_with(said, "https://") && !str_starts_with(said, "http://")) ||
        strpbrk(said, " \t\r\n?#") != NULL)
        return error_set(err, ERR_INVALID,
                         "HF_ENDPOINT is %s\n  expected: https://... of a server that answers as "
                         "the Hugging Face Hub does\n  to do: correct or unset it",
                         QUOTED(said));
    size_t length = strlen(said);
    while (said[length - 1] == '/')
        length--;
    *ret = mem_strndup(said, length);
    return OK;
}

Status hub_access_read(Variable *variable, HubAccess *ret, Error *err)
{
    static const char *const cache_names[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", NULL};
    static const char *const ca_names[] = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
                                           NULL};
    HubAccess access = {.stall_ms = 30000,
                        .attempts = 6,
                        .tell_ms = 3000,
                        .backoff_ms = 1000,
                        .backoff_ms_max = 30000};
    char *home = home_folder(variable);
    const char *cache = look_first(variable, cache_names), *ca = look_first(variable, ca_names);
    access.cache = cache != NULL ? expand_home(variable, cache) : path_join(home, "hub");
    access.ca_file = mem_strdup(ca);
    access.offline = is_true(look(variable, "HF_HUB_OFFLINE")) ||
                     (look(variable, "HF_HUB_OFFLINE") == NULL &&
                      is_true(look(variable, "TRANSFORMERS_OFFLINE")));
    Status status = read_endpoint(variable, &access.endpoint, err);
    if (status == OK) status = read_token(variable, home, &access.token, err);
    free(home);
    if (status == OK)
        *ret = access;
    else
        hub_access_free(&access);
    return status;
}

void hub_access_free(HubAccess *access)
{
    free(access->endpoint);
    free(access->token);
    free(access->cache);
    free(access->ca_file);
    *access = (HubAccess){0};
}
