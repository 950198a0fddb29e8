#include "base/hub_name.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"

#define DATASETS "datasets/"

#define ID_BYTES_MAX 96 /* of each part; the Hub's */

static bool is_name_byte(char byte)
{
    return isalnum((unsigned char)byte) || byte == '-' || byte == '_' || byte == '.';
}

/* The length of one part of a name: letters, digits, '-', '_' and '.', the latter not at its ends
 * and not twice, as the Hub has them; 0: it is none. */
static size_t part_length(const char *text)
{
    size_t length = 0;
    while (is_name_byte(text[length])) {
        if (length > 0 && text[length] == text[length - 1] && strchr("-.", text[length]) != NULL)
            return 0;
        length++;
    }
    if (length == 0 || length > ID_BYTES_MAX) return 0;
    return strchr("-.", text[0]) == NULL && strchr("-.", text[length - 1]) == NULL ? length : 0;
}

static size_t repo_length(const char *text)
{
    size_t owner = part_length(text);
    if (owner == 0 || text[owner] != '/') return 0;
    size_t name = part_length(text + owner + 1);
    return name > 0 ? owner + 1 + name : 0;
}

size_t hub_name_length(const char *text)
{
    static const char *const folders[] = {"models", "model",  "checkpoints", "runs",
                                          "data",   "output", "weights",     "outputs"};
    size_t length = repo_length(text);
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        if (strcspn(text, "/") == strlen(folders[i]) && str_starts_with(text, folders[i])) return 0;
    return length;
}

/* ---- hf://datasets/OWNER/NAME@REVISION/PATH ---- */

/* "refs/pr/N", "refs/convert/NAME": revisions whose slashes stand as they are. */
static size_t special_revision(const char *text)
{
    static const char convert[] = "refs/convert/", request[] = "refs/pr/";
    size_t begin = str_starts_with(text, convert)   ? sizeof convert - 1
                   : str_starts_with(text, request) ? sizeof request - 1
                                                    : 0;
    size_t length = begin;
    while (begin > 0 && is_name_byte(text[length]))
        length++;
    return length > begin ? length : 0;
}

static int hex_digit(char digit)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = digit != '\0' ? strchr(digits, tolower((unsigned char)digit)) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

/* With %2F turned into '/', and so on; NULL for a revision that git would not have either. */
static char *decode_revision(const char *text, size_t length)
{
    Str out = {0};
    for (size_t i = 0; i < length; i++) {
        bool room = text[i] == '%' && i + 2 < length;
        int high = room ? hex_digit(text[i + 1]) : -1, low = room ? hex_digit(text[i + 2]) : -1;
        bool coded = high >= 0 && low >= 0;
        str_putc(&out, coded ? (char)(16 * high + low) : text[i]);
        i += coded ? 2 : 0;
    }
    const char *revision = str_text(&out);
    bool wrong = out.length == 0 || out.length > 200 || revision[0] == '/' ||
                 strstr(revision, "..") != NULL || strpbrk(revision, " ~^:?*[\\") != NULL;
    for (size_t i = 0; i < out.length; i++)
        wrong = wrong || (unsigned char)revision[i] < ' ';
    if (!wrong) return str_take(&out);
    str_free(&out);
    return NULL;
}

/* Of a path in a repository: no way out of it. */
static bool is_path_inside(const char *path)
{
    for (const char *at = path; *at != '\0';) {
        size_t part = strcspn(at, "/");
        if (part == 0 || (part == 1 && at[0] == '.') || (part == 2 && at[0] == '.' && at[1] == '.'))
            return false;
        at += part;
        if (*at == '/') at++;
    }
    return true;
}

/* Behind the scheme, and what says which kind it is. */
static bool parse(const char *at, bool model, HubName *ret)
{
    size_t repo = repo_length(at);
    if (repo == 0) return false;
    HubName name = {.repo = mem_strndup(at, repo), .model = model};
    at += repo;
    if (*at == '@') {
        size_t length = special_revision(++at);
        if (length == 0) length = strcspn(at, "/");
        name.revision = decode_revision(at, length);
        at += length;
    } else {
        name.revision = mem_strdup(HUB_MAIN_REVISION);
    }
    if (*at == '/') name.path = mem_strdup(at + 1);
    if (*at == '\0') name.path = mem_strdup("");
    if (name.revision != NULL && name.path != NULL && is_path_inside(name.path)) {
        *ret = name;
        return true;
    }
    hub_name_free(&name);
    return false;
}

bool hub_name_parse(const char *text, HubName *ret)
{
    static const char begin[] = HUB_SCHEME DATASETS;
    return str_starts_with(text, begin) && parse(text + sizeof begin - 1, false, ret);
}

bool hub_model_name_parse(const char *text, HubName *ret)
{
    static const char begin[] = HUB_SCHEME;
    HubName name = {0};
    static const char *const others[] = {DATASETS, "spaces/", "buckets/"};
    bool other = !str_starts_with(text, begin);
    for (size_t i = 0; i < sizeof others / sizeof *others && !other; i++)
        other = str_starts_with(text + sizeof begin - 1, others[i]);
    if (other || !parse(text + sizeof begin - 1, true, &name)) return false;
    if (name.path[0] != '\0') {
        hub_name_free(&name);
        return false;
    }
    *ret = name;
    return true;
}

void hub_name_free(HubName *name)
{
    free(name->repo);
    free(name->revision);
    free(name->path);
    *name = (HubName){0};
}

static void put_revision(Str *out, const char *text, size_t length)
{
    bool special = special_revision(text) == length;
    for (size_t i = 0; i < length; i++) {
        if (!special && strchr("/%@", text[i]) != NULL)
            str_printf(out, "%%%02X", text[i]);
        else
            str_putc(out, text[i]);
    }
}

char *hub_name_write(const HubName *name)
{
    Str out = {0};
    str_printf(&out, "%s%s%s@", HUB_SCHEME, name->model ? "" : DATASETS, name->repo);
    put_revision(&out, name->revision, strlen(name->revision));
    return str_take(&out);
}

/* ---- OWNER/NAME#REVISION ---- */

static bool names_a_file(const char *text, size_t length)
{
    static const char *const endings[] = {".jsonl", ".ndjson",  ".json",  ".gz",     ".zst", ".xz",
                                          ".csv",   ".parquet", ".arrow", ".arrows", ".txt"};
    bool found = false;
    char *name = mem_strndup(text, length);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        found = found || str_ends_with(name, endings[i]);
    free(name);
    return found;
}

static bool is_there(const char *folder, const char *text, size_t length)
{
    char *name = mem_strndup(text, length), *path = path_join(folder, name);
    bool there = path_exists(path);
    free(path);
    free(name);
    return there;
}

static char *expand(const char *text, const char *folder, const char *scheme)
{
    size_t length = hub_name_length(text);
    if (length == 0 || (text[length] != '\0' && strchr("#@", text[length]) == NULL)) return NULL;
    if (names_a_file(text, length) || is_there(folder, text, strcspn(text, "/")) ||
        is_there(folder, text, strlen(text)))
        return NULL;
    const char *rest = text + length, *revision = HUB_MAIN_REVISION;
    size_t size = strlen(revision);
    if (*rest == '#') {
        revision = rest + 1;
        size = strcspn(revision, "@");
        rest = revision + size;
    }
    Str out = {0};
    str_puts(&out, scheme);
    str_append(&out, text, length);
    str_putc(&out, '@');
    put_revision(&out, revision, size);
    str_puts(&out, rest);
    return str_take(&out);
}

char *hub_name_expand(const char *text, const char *folder)
{
    return expand(text, folder, HUB_SCHEME DATASETS);
}

char *hub_model_name_expand(const char *text, const char *folder)
{
    char *name = strchr(text, '@') == NULL ? expand(text, folder, HUB_SCHEME) : NULL;
    HubName parsed = {0};
    if (name == NULL || hub_model_name_parse(name, &parsed)) {
        hub_name_free(&parsed);
        return name;
    }
    free(name);
    return NULL;
}
