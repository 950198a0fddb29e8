#include "hub/repo.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"

#define PAGES_MAX 4096 /* of one list of files */
#define NAMES_MAX 20   /* that are looked at for the nearest */
#define DEPTH_MAX 32   /* of folders in a snapshot */

struct HubRepo {
    HubName name;
    HubRepoOptions options;
    HubClient *client;
    HubCache cache;
    char *label;
    char commit[HUB_COMMIT_BYTES];
    HubFiles files;
    _Atomic bool cancelled;
};

const char *hub_repo_label(const HubRepo *repo)
{
    return repo->label;
}

HubPlace hub_repo_place(const HubRepo *repo)
{
    return (HubPlace){repo->client, &repo->cache, repo->name.repo, repo->commit, repo->name.model};
}

const HubFiles *hub_repo_files(const HubRepo *repo)
{
    return &repo->files;
}

static bool is_commit(const char *revision)
{
    return strlen(revision) == HUB_COMMIT_BYTES - 1 &&
           strspn(revision, "0123456789abcdef") == HUB_COMMIT_BYTES - 1;
}

/* What all of its kind are called, there and in files of ours. */
static const char *kind_folder(const HubRepo *repo)
{
    return repo->name.model ? "models" : "datasets";
}

static const char *kind_name(const HubRepo *repo)
{
    return repo->name.model ? "model" : "data set";
}

/* ENDPOINT/api/datasets/OWNER/NAME, `kind` and, escaped, what is meant of that kind. */
static char *api_url(const HubRepo *repo, const char *kind, const char *meant)
{
    Str url = {0};
    str_printf(&url, "%s/api/%s/%s/%s", repo->options.access->endpoint, kind_folder(repo),
               repo->name.repo, kind);
    if (meant != NULL) str_putc(&url, '/');
    if (meant != NULL) hub_put_escaped(&url, meant, true);
    return str_take(&url);
}

/* ---- the commits that a run began with ---- */

static cJSON *read_commits(const char *path)
{
    cJSON *json = NULL;
    if (json_read(path, CONFIG_BYTES_MAX, &json, NULL) != OK || !cJSON_IsObject(json)) {
        cJSON_Delete(json);
        json = cJSON_CreateObject();
    }
    return json;
}

/* "datasets/OWNER/NAME@REVISION" */
static char *commit_key(const HubRepo *repo)
{
    return mem_printf("%s/%s@%s", kind_folder(repo), repo->name.repo, repo->name.revision);
}

static bool find_commit(HubRepo *repo)
{
    if (repo->options.commits == NULL) return false;
    cJSON *json = read_commits(repo->options.commits);
    char *key = commit_key(repo);
    const cJSON *commit = cJSON_GetObjectItemCaseSensitive(json, key);
    bool found = cJSON_IsString(commit) && is_commit(commit->valuestring);
    if (found) memcpy(repo->commit, commit->valuestring, HUB_COMMIT_BYTES);
    free(key);
    cJSON_Delete(json);
    return found;
}

Status hub_repo_keep_commit(const HubRepo *repo, const char *path, Error *err)
{
    if (is_commit(repo->name.revision)) return OK;
    cJSON *json = read_commits(path);
    char *key = commit_key(repo), *folder = path_folder(path);
    cJSON_DeleteItemFromObjectCaseSensitive(json, key);
    cJSON_AddStringToObject(json, key, repo->commit);
    char *text = cJSON_Print(json);
    Status status = folder_create(folder, err);
    if (status == OK) status = file_write_atomic(path, text, strlen(text), err);
    cJSON_free(text);
    free(folder);
    free(key);
    cJSON_Delete(json);
    return status;
}

static Status keep_commit(const HubRepo *repo, Error *err)
{
    const char *path = repo->options.commits;
    return path == NULL || repo->options.read_only ? OK : hub_repo_keep_commit(repo, path, err);
}

/* ---- which commit ---- */

/* Where names stand in an answer: under `key` of the objects of `list`; NULL: the answer is one. */
typedef struct NamesPlace {
    const char *list, *key;
} NamesPlace;

/* A branch whose name begins with what was taken for the revision, and a slash. */
static const char *find_longer(const StringList *names, const char *wanted)
{
    size_t length = strlen(wanted);
    for (int i = 0; i < names->count; i++)
        if (str_starts_with(names->item[i], wanted) && names->item[i][length] == '/')
            return names->item[i];
    return NULL;
}

/* Appends the nearest of the names that the Hub lists, or some of them; nothing where it does not.
 */
static void append_nearest(HubRepo *repo, const char *url, const NamesPlace *place,
                           const char *wanted, Error *err)
{
    HubText answer;
    StringList names = {0};
    if (hub_client_get_text(repo->client, url, repo->name.repo, true, &answer, &(Error){0}) == OK)
        for (; place->key != NULL; place++)
            hub_answer_names(str_text(&answer.text), answer.text.length, place->list, place->key,
                             &names);
    hub_text_free(&answer);
    size_t count = names.count < NAMES_MAX ? (size_t)names.count : NAMES_MAX;
    const char *nearest = str_nearest(wanted, (const char *const *)names.item, count);
    const char *longer = find_longer(&names, wanted);
    Str text = {0};
    for (size_t i = 0; i < count && i < 5; i++)
        str_printf(&text, " %s", QUOTED(names.item[i]));
    if (longer != NULL)
        error_append(err, "  to do: did you mean %s? Behind hf:// its slashes are written %%2F",
                     QUOTED(longer));
    else if (nearest != NULL)
        error_append(err, "  to do: did you mean %s?", QUOTED(nearest));
    else if (text.length > 0)
        error_append(err, "  to do: there are:%s", str_text(&text));
    str_free(&text);
    string_list_free(&names);
}

/* Without a token the Hub does not tell what is private from what is not there. */
static Status refuse_absent_repo(HubRepo *repo, Error *err)
{
    const HubAccess *access = repo->options.access;
    error_set(
        err, ERR_NOT_FOUND,
        "%s: %s has no %s of that name for us, and this machine has no folder of it\n"
        "  expected: OWNER/NAME of the Hugging Face Hub, or a path; for a private one a token "
        "(HF_TOKEN) of who may read it, %s",
        repo->label, access->endpoint, kind_name(repo),
        access->token == NULL ? "and there is none" : "which this one is not");
    Str url = {0};
    str_printf(&url, "%s/api/%s?limit=%d&search=", access->endpoint, kind_folder(repo), NAMES_MAX);
    hub_put_escaped(&url, strchr(repo->name.repo, '/') + 1, true);
    append_nearest(repo, str_text(&url), (const NamesPlace[]){{NULL, "id"}, {0}}, repo->name.repo,
                   err);
    str_free(&url);
    return err->status;
}

static Status refuse_absent_revision(HubRepo *repo, Error *err)
{
    char *url = api_url(repo, "refs", NULL);
    error_set(err, ERR_NOT_FOUND,
              "%s has no revision %s\n  expected: one of its branches, tags or commits",
              repo->name.repo, QUOTED(repo->name.revision));
    static const NamesPlace places[] = {
        {"branches", "name"}, {"tags", "name"}, {"converts", "ref"}, {0}};
    append_nearest(repo, url, places, repo->name.revision, err);
    free(url);
    return err->status;
}

static Status explain(HubRepo *repo, const HubHeader *header, Error *err)
{
    HubPlace place = hub_repo_place(repo);
    bool gated = strcmp(header->error_code, "GatedRepo") == 0;
    if (!gated && header->status == 404 && strcmp(header->error_code, "RevisionNotFound") == 0)
        return refuse_absent_revision(repo, err);
    bool absent = header->status == 404 || header->status == 401;
    if (!gated && absent && !hub_refuses_token(&place, header))
        return refuse_absent_repo(repo, err);
    return hub_explain_refusal(&place, header, err);
}

static Status ask_commit(HubRepo *repo, Error *err)
{
    HubText answer;
    char *url = api_url(repo, "revision", repo->name.revision);
    Status status = hub_client_get_text(repo->client, url, repo->label, false, &answer, err);
    if (status == OK)
        status =
            hub_answer_commit(str_text(&answer.text), answer.text.length, url, repo->commit, err);
    else
        status = explain(repo, &answer.header, err);
    hub_text_free(&answer);
    free(url);
    return status;
}

/* What helps somebody whose Hub cannot be reached, where the cache knows the data. */
static Status tell_of_cache(const HubRepo *repo, Error *err)
{
    char known[HUB_COMMIT_BYTES];
    if (err->status == ERR_UNAVAILABLE &&
        hub_cache_find_ref(&repo->cache, repo->name.revision, known))
        error_append(err, "  or: HF_HUB_OFFLINE=1 takes what the cache has of it, commit %s",
                     known);
    return err->status;
}

static const char *download_kind(const HubRepo *repo)
{
    return repo->name.model ? "" : "--repo-type dataset ";
}

static Status find_offline(HubRepo *repo, Error *err)
{
    if (hub_cache_find_ref(&repo->cache, repo->name.revision, repo->commit)) return OK;
    char *nearest = hub_cache_nearest(&repo->cache);
    error_set(err, ERR_RESOURCE,
              "%s is not in the cache (%s), and HF_HUB_OFFLINE asks nobody\n"
              "  expected: refs/%s there\n  to do: %s%s%sunset HF_HUB_OFFLINE, or fetch it first: "
              "hf download %s%s",
              repo->label, repo->cache.folder, repo->name.revision, nearest != NULL ? "write " : "",
              nearest != NULL ? nearest : "", nearest != NULL ? ", which is there, " : "",
              download_kind(repo), repo->name.repo);
    free(nearest);
    return ERR_RESOURCE;
}

static Status choose_commit(HubRepo *repo, Error *err)
{
    const char *revision = repo->name.revision;
    if (is_commit(revision)) {
        memcpy(repo->commit, revision, HUB_COMMIT_BYTES);
        return OK;
    }
    if (find_commit(repo)) return OK;
    if (repo->options.access->offline) {
        TRY(find_offline(repo, err));
    } else {
        if (ask_commit(repo, err) != OK) return tell_of_cache(repo, err);
        TRY(hub_cache_keep_ref(&repo->cache, revision, repo->commit, err));
    }
    return keep_commit(repo, err);
}

/* ---- its files ---- */

/* What a snapshot has, where nobody has kept the list: the names of blobs are the checksums. */
static void walk_snapshot(const char *root, const char *folder, int depth, HubFiles *ret)
{
    char *path = path_join(root, folder);
    DIR *entries = opendir(path);
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        const char *name = entry->d_name;
        struct stat info;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
        if (fstatat(dirfd(entries), name, &info, 0) != 0 || ret->count >= HUB_FILES_MAX) continue;
        char *inner = mem_printf("%s%s%s", folder, folder[0] != '\0' ? "/" : "", name);
        if (S_ISDIR(info.st_mode) && depth < DEPTH_MAX) {
            walk_snapshot(root, inner, depth + 1, ret);
        } else if (S_ISREG(info.st_mode)) {
            ret->item = mem_realloc(ret->item, ret->count + 1, sizeof *ret->item);
            ret->item[ret->count++] =
                (HubFile){.path = mem_strdup(inner), .bytes = (int64_t)info.st_size};
        }
        free(inner);
    }
    if (entries != NULL) closedir(entries);
    free(path);
}

static Status list_offline(HubRepo *repo, Error *err)
{
    char *root = hub_cache_snapshot(&repo->cache, repo->commit, "");
    walk_snapshot(root, "", 0, &repo->files);
    free(root);
    if (repo->files.count > 0) return OK;
    return error_set(err, ERR_RESOURCE,
                     "commit %s of %s is not in the cache (%s), and HF_HUB_OFFLINE asks nobody\n"
                     "  to do: unset HF_HUB_OFFLINE, or fetch it first: hf download %s--revision "
                     "%s %s",
                     repo->commit, repo->name.repo, repo->cache.folder, download_kind(repo),
                     repo->commit, repo->name.repo);
}

static Status ask_page(HubRepo *repo, char **url, Error *err)
{
    HubText answer;
    Status status = hub_client_get_text(repo->client, *url, repo->label, false, &answer, err);
    if (status == OK)
        status =
            hub_answer_tree(str_text(&answer.text), answer.text.length, *url, &repo->files, err);
    else
        status = explain(repo, &answer.header, err);
    free(*url);
    *url = answer.next;
    answer.next = NULL;
    hub_text_free(&answer);
    return status;
}

static Status ask_files(HubRepo *repo, Error *err)
{
    char *tree = api_url(repo, "tree", repo->commit);
    char *url = mem_printf("%s?recursive=True&expand=False", tree);
    Status status = OK;
    for (int pages = 0; url != NULL && status == OK; pages++) {
        if (pages == PAGES_MAX)
            status = error_set(err, ERR_RESOURCE, "%s: more than %d pages of files", repo->label,
                               PAGES_MAX);
        else
            status = ask_page(repo, &url, err);
    }
    free(url);
    free(tree);
    hub_files_sort(&repo->files);
    if (status == OK) status = hub_cache_keep_tree(&repo->cache, repo->commit, &repo->files, err);
    return status;
}

static Status find_files(HubRepo *repo, Error *err)
{
    char *path = hub_cache_tree(&repo->cache, repo->commit);
    Status status = hub_tree_read(path, &repo->files, &(Error){0});
    free(path);
    if (status == OK) return OK;
    if (repo->options.access->offline) {
        status = list_offline(repo, err);
        hub_files_sort(&repo->files);
        return status;
    }
    return ask_files(repo, err);
}

/* ---- open ---- */

static bool goes_on(void *context, int64_t new_bytes)
{
    HubRepo *repo = context;
    return hub_watch_goes_on(&repo->options.watch, new_bytes) && !repo->cancelled;
}

static void waits(void *context, const char *waits_for)
{
    HubRepo *repo = context;
    hub_watch_waits(&repo->options.watch, waits_for);
}

Status hub_repo_open(const HubName *name, const HubRepoOptions *options, HubRepo **ret, Error *err)
{
    HubRepo *repo = mem_calloc(1, sizeof *repo);
    repo->options = *options;
    repo->name =
        (HubName){mem_strdup(name->repo), mem_strdup(name->revision), mem_strdup(""), name->model};
    bool usual = strcmp(name->revision, HUB_MAIN_REVISION) == 0;
    repo->label = usual ? mem_strdup(name->repo) : mem_printf("%s#%s", name->repo, name->revision);
    repo->cache = hub_cache_of(options->access->cache, name);
    repo->client = hub_client_create(options->access, (HubWatch){goes_on, repo, waits});
    Status status = choose_commit(repo, err);
    if (status == OK) status = find_files(repo, err);
    if (status == OK) {
        *ret = repo;
        return OK;
    }
    hub_repo_close(repo);
    return status;
}

void hub_repo_close(HubRepo *repo)
{
    if (repo == NULL) return;
    hub_client_destroy(repo->client);
    hub_cache_free(&repo->cache);
    hub_files_free(&repo->files);
    hub_name_free(&repo->name);
    free(repo->label);
    free(repo);
}

Status hub_repo_fetch(HubRepo *repo, const char *path, char **ret_path, Error *err)
{
    HubPlace place = hub_repo_place(repo);
    const HubFile *file = hub_files_find(&repo->files, path);
    if (file == NULL) return error_set(err, ERR_NOT_FOUND, "%s has no file %s", repo->label, path);
    TRY(hub_fetch(&place, file, &(HubFetch){0}, err));
    *ret_path = hub_cache_snapshot(&repo->cache, repo->commit, path);
    return OK;
}

void hub_repo_cancel(HubRepo *repo)
{
    repo->cancelled = true;
}
