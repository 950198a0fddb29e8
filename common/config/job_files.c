#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/data_path.h"
#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/path_search.h"
#include "config/eval_set.h"
#include "config/job_internal.h"
#include "config/source_set.h"

typedef struct FileCheck {
    const LoadedJob *job;
    Arena *arena;
    Error *err;
} FileCheck;

/* The key, or, of a key of a row, the one whose value the row stands in. */
static const char *key_in_table(const char *key)
{
    int index = config_find_rows(&job_table, key);
    return index >= 0 ? config_key(&job_table, index)->path : key;
}

static bool is_overridden(const FileCheck *check, const char *key)
{
    int index = config_find(&job_table, key_in_table(key));
    return check->job->origin[index].kind == FROM_OVERRIDE;
}

/* "job.yaml:7: model.path": where the path was written, or that it is the default. */
static const char *key_at(const FileCheck *check, const char *key)
{
    const char *place = job_key_place(check->job, key_in_table(key), check->arena);
    if (place == NULL)
        return arena_printf(check->arena, "%s: %s (default)", check->job->where, key);
    return arena_printf(check->arena, "%s: %s", place, key);
}

/* The longest part of a path that does exist: it tells a typo in the file from one in a folder. */
static const char *existing_part(const char *path, Arena *arena)
{
    char *part = arena_printf(arena, "%s", path);
    for (char *slash; (slash = strrchr(part, '/')) != NULL && slash != part;) {
        *slash = '\0';
        if (path_is_folder(part)) return part;
    }
    return "/";
}

#define NAMES_COMPARED 1024

/* The entry of the folder that `name` probably meant, or NULL. Arena memory. */
static const char *nearest_entry(const char *folder, const char *name, Arena *arena)
{
    const char *names[NAMES_COMPARED];
    size_t count = 0;
    DIR *entries = opendir(folder);
    if (entries == NULL) return NULL;
    for (struct dirent *entry; count < NAMES_COMPARED && (entry = readdir(entries)) != NULL;)
        if (entry->d_name[0] != '.') names[count++] = arena_printf(arena, "%s", entry->d_name);
    closedir(entries);
    return str_nearest(name, names, count);
}

/* Where relative paths of the source of this key start; *ret_other where those of the other do. */
static const char *base_of(const FileCheck *check, const char *key, const char **ret_other)
{
    const LoadedJob *job = check->job;
    bool set = is_overridden(check, key);
    *ret_other = set ? job->base_dir : job->working_dir;
    return set ? job->working_dir : job->base_dir;
}

/* What to do about a path that is not there. Arena memory. */
static const char *advice_for_path(const FileCheck *check, const char *key, const char *path)
{
    const char *other = NULL, *base = base_of(check, key, &other);
    bool set = is_overridden(check, key);
    size_t length = strlen(base);
    if (length > 1 && strncmp(path, base, length) == 0 && path[length] == '/') {
        char *there = path_join(other, path + length + 1);
        const char *found = path_exists(there) ? arena_printf(check->arena, "%s", there) : NULL;
        free(there);
        if (found != NULL)
            return arena_printf(check->arena, "Did you mean %s? Relative paths in %s start at %s.",
                                found, set ? "--set" : "the job file",
                                set ? "the working directory" : "its folder");
    }
    return arena_printf(check->arena, "Correct the path (relative ones in %s start at %s, %s).",
                        set ? "--set" : "the job file",
                        set ? "the working directory" : "its folder", base);
}

/* A name of the Hugging Face hub in place of a folder. */
static Status refuse_hub_name(const FileCheck *check, const char *key, const char *path,
                              const char *name)
{
    return error_set(check->err, ERR_NOT_FOUND,
                     "%s: %s does not exist.\n"
                     "Expected a model folder; %s looks like a name on the Hugging Face hub. "
                     "Download it to that place:\n"
                     "  hf download %s --local-dir %s\n"
                     "(pip install huggingface_hub has the command; older ones call it "
                     "huggingface-cli download)",
                     key_at(check, key), path, name, name, path);
}

/* What stands where a name of the Hub was perhaps meant: one word in the folder where paths start.
 */
static bool is_bare_word(const FileCheck *check, const char *key, const char *path)
{
    const char *other = NULL, *base = base_of(check, key, &other), *name = path_name(path);
    bool model = strcmp(key, "model.path") == 0,
         data = str_starts_with(key, "data.") || str_starts_with(key, "eval.sets");
    size_t length = strlen(base);
    return strncmp(path, base, length) == 0 && name == path + length + 1 &&
           (model || (data && strchr(name, '.') == NULL));
}

static Status refuse_absent(const FileCheck *check, const char *key, const char *path,
                            const char *expected)
{
    const char *part = existing_part(path, check->arena);
    const char *rest = path + strlen(part);
    rest += strspn(rest, "/");
    size_t length = strcspn(rest, "/");
    const char *name = arena_strndup(check->arena, rest, length);
    const char *nearest = nearest_entry(part, name, check->arena), *why = "";
    const char *advice = advice_for_path(check, key, path);
    if (is_bare_word(check, key, path))
        advice = arena_printf(check->arena,
                              "%s\nA name of the Hugging Face Hub is written OWNER/NAME.", advice);
    if (rest[length] == '/') why = arena_printf(check->arena, " (%s has no %s)", part, name);
    if (nearest != NULL) {
        const char *meant =
            arena_printf(check->arena, "%s%s%s%s", part, part[strlen(part) - 1] == '/' ? "" : "/",
                         nearest, rest + length);
        if (path_exists(meant)) advice = arena_printf(check->arena, "Did you mean %s?", meant);
    }
    return error_set(check->err, ERR_NOT_FOUND, "%s: %s does not exist%s, expected %s.\n%s",
                     key_at(check, key), path, why, expected, advice);
}

/* A regular file (or pipe) that can be read. */
static Status check_readable(const FileCheck *check, const char *key, const char *path,
                             const char *expected, bool *ret_empty)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        if (errno == ENOENT || errno == ENOTDIR) return refuse_absent(check, key, path, expected);
        if (errno == ELOOP)
            return error_set(check->err, ERR_INVALID,
                             "%s: %s is a symbolic link that leads back to itself, expected %s.\n"
                             "Mend the link, or name the file that is meant.",
                             key_at(check, key), path, expected);
        return error_set_errno(check->err, errno, "%s: %s", key_at(check, key), path);
    }
    if (S_ISDIR(info.st_mode))
        return error_set(check->err, ERR_INVALID,
                         "%s: %s is a folder, expected %s.\nName the file inside it.",
                         key_at(check, key), path, expected);
    if (access(path, R_OK) != 0)
        return error_set_errno(check->err, errno, "%s: %s cannot be read", key_at(check, key),
                               path);
    *ret_empty = S_ISREG(info.st_mode) && info.st_size == 0;
    return OK;
}

static Status refuse_empty(const FileCheck *check, const char *key, const char *path,
                           const char *expected)
{
    return error_set(check->err, ERR_DATA,
                     "%s: %s is empty (0 bytes), expected %s.\n"
                     "Write it again, or name another file.",
                     key_at(check, key), path, expected);
}

static Status check_file(const FileCheck *check, const char *key, const char *path,
                         const char *expected)
{
    bool empty = false;
    TRY(check_readable(check, key, path, expected, &empty));
    return empty ? refuse_empty(check, key, path, expected) : OK;
}

/* "data.jsonl[:50]" and "data.jsonl@[:10%]" are globs that match nothing, but hardly meant so. */
static Status refuse_slice(const FileCheck *check, const char *key, const char *pattern)
{
    const char *begin = strrchr(pattern, '[');
    int path = (int)(begin - pattern) - (begin > pattern && begin[-1] == '@');
    return error_set(check->err, ERR_INVALID,
                     "%s: %s is no file, and %s is no slice.\n"
                     "Expected whole numbers behind an @, as in %.*s@[:1000] or %.*s@[-500:] (of a "
                     "list, in \"quotes\").\nCorrect it.",
                     key_at(check, key), pattern, begin - (begin > pattern && begin[-1] == '@'),
                     path, pattern, path, pattern);
}

static bool looks_sliced(const char *pattern)
{
    const char *begin = strrchr(pattern, '[');
    return begin != NULL && str_ends_with(pattern, "]") &&
           (strchr(begin, ':') != NULL || (begin > pattern && begin[-1] == '@'));
}

static Status refuse_braces(const FileCheck *check, const char *key, const char *pattern)
{
    return error_set(check->err, ERR_INVALID,
                     "%s: %s does not exist, and braces have no meaning in a glob here.\n"
                     "Expected *, ? and [...].\nName the files in a list: [a.jsonl, b.jsonl].",
                     key_at(check, key), pattern);
}

static Status refuse_address(const FileCheck *check, const char *key, const char *entry)
{
    return error_set(check->err, ERR_INVALID,
                     "%s: %s is an address, but data are read from files of this machine and from "
                     "data sets of the Hugging Face Hub.\nExpected a path, or OWNER/NAME.\n"
                     "Fetch it first, or read it with a reader of your own (data.reader).",
                     key_at(check, key), entry);
}

static const char data_expected[] = "a data file (JSONL, Parquet, Arrow) or a folder of them";

/* One entry of a list of data: what it stands for is there. What lies in a folder is looked at when
 * it is opened. *ret_empty: files without a byte, and nothing else. */
static Status check_data_path(const FileCheck *check, const char *key, const char *pattern,
                              bool *ret_empty)
{
    *ret_empty = false;
    if (path_is_folder(pattern)) return OK;
    if (!path_exists(pattern) && looks_sliced(pattern)) return refuse_slice(check, key, pattern);
    if (!path_exists(pattern) && strchr(pattern, '{') != NULL)
        return refuse_braces(check, key, pattern);
    if (path_exists(pattern) || strpbrk(pattern, "*?[") == NULL)
        return check_readable(check, key, pattern, data_expected, ret_empty);
    StringList found = {0};
    Error why = {0};
    Status status = path_glob(pattern, &found, &why);
    if (status == ERR_NOT_FOUND)
        error_set(check->err, ERR_NOT_FOUND,
                  "%s: no file matches %s.\nExpected at least one data file; what exists "
                  "of the path is %s.\n%s",
                  key_at(check, key), pattern, existing_part(pattern, check->arena),
                  advice_for_path(check, key, pattern));
    else if (status != OK)
        error_set(check->err, status, "%s: %s", key_at(check, key), why.message);
    bool empty = false, all = true;
    for (int i = 0; status == OK && i < found.count; i++) {
        status = check_readable(check, key, found.item[i], data_expected, &empty);
        all = all && empty;
    }
    if (status == OK) *ret_empty = all;
    string_list_free(&found);
    return status;
}

static Status refuse_hub_spelling(const FileCheck *check, const char *key, const char *name)
{
    bool other =
        str_starts_with(name, HUB_SCHEME "buckets/") || str_starts_with(name, HUB_SCHEME "spaces/");
    return error_set(check->err, ERR_INVALID,
                     "%s: %s is no name of a data set on the Hugging Face Hub.\n"
                     "Expected hf://datasets/OWNER/NAME, with @REVISION and /PATH behind it where "
                     "they are meant, or OWNER/NAME.\n%s",
                     key_at(check, key), QUOTED(name),
                     other ? "Buckets and Spaces are not read: fetch the files into a folder, and "
                             "name that."
                           : "Correct the name.");
}

/* Without a byte may be some of the files, of which a run warns, but not all of them. */
static Status check_data_paths(const FileCheck *check, const char *key, const StringList *entries)
{
    bool all_empty = entries->count > 0;
    for (int i = 0; i < entries->count; i++) {
        DataPath path = data_path_parse(entries->item[i]);
        Status status = OK;
        bool empty = false;
        if (data_path_is_address(entries->item[i]))
            status = refuse_address(check, key, entries->item[i]);
        else if (path.hub.repo == NULL && str_starts_with(path.path, HUB_SCHEME))
            status = refuse_hub_spelling(check, key, path.path);
        else if (path.hub.repo == NULL) /* others are asked for when they are opened */
            status = check_data_path(check, key, path.path, &empty);
        data_path_free(&path);
        TRY(status);
        all_empty = all_empty && empty;
    }
    return all_empty ? refuse_empty(check, key, entries->item[0], data_expected) : OK;
}

static Status check_folder(const FileCheck *check, const char *key, const char *path)
{
    if (model_path_is_run(path))
        return error_set(check->err, ERR_NOT_FOUND,
                         "%s: %s is the folder of a run that has no checkpoint yet.\n"
                         "Expected a model folder, or a run with a checkpoint. Wait for its first "
                         "one, or name another folder.",
                         key_at(check, key), path);
    if (path_is_folder(path)) return OK;
    if (!path_exists(path)) {
        const char *name = model_path_hub_name(path, existing_part(path, check->arena));
        if (name != NULL) return refuse_hub_name(check, key, path, name);
        return refuse_absent(check, key, path,
                             "a Hugging Face model folder (config.json, safetensors, tokenizer)");
    }
    return error_set(
        check->err, ERR_INVALID,
        "%s: %s is a file, expected a Hugging Face model folder.\nName the folder that "
        "holds it.",
        key_at(check, key), path);
}

/* Every file that the index of a sharded model names. */
static Status check_shards(const FileCheck *check, const char *key, const char *folder,
                           const char *index)
{
    cJSON *json = NULL;
    TRY(json_read(index, JSON_FILE_BYTES_MAX, &json, check->err));
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(json, "weight_map"), *file = NULL;
    Status status = OK;
    if (!cJSON_IsObject(map) || map->child == NULL)
        status = error_set(check->err, ERR_DATA,
                           "%s: key \"weight_map\" is %s, expected an object of tensor names.\n"
                           "Fetch the model folder again.",
                           index, json_type_name(map));
    const char *last = "";
    cJSON_ArrayForEach(file, map)
    {
        if (status != OK) break;
        const char *name = cJSON_IsString(file) ? file->valuestring : NULL;
        if (name == NULL || strcmp(name, last) == 0) continue;
        char *path = path_join(folder, name);
        if (!path_exists(path))
            status = error_set(check->err, ERR_NOT_FOUND,
                               "%s: %s names %s, which is not in the folder.\n"
                               "The model is incomplete: fetch the missing file.",
                               key_at(check, key), path_name(index), name);
        free(path);
        last = name;
    }
    cJSON_Delete(json);
    return status;
}

static Status check_weights(const FileCheck *check, const char *key, const char *folder)
{
    char *single = path_join(folder, "model.safetensors");
    char *index = path_join(folder, "model.safetensors.index.json");
    Status status = OK;
    if (path_exists(index))
        status = check_shards(check, key, folder, index);
    else if (!path_exists(single))
        status = error_set(check->err, ERR_NOT_FOUND,
                           "%s: %s holds no weights: neither model.safetensors nor "
                           "model.safetensors.index.json.\n"
                           "Name a complete model folder%s.",
                           key_at(check, key), folder,
                           strcmp(key, "model.path") == 0
                               ? ", or write init: random to start from random numbers"
                               : "");
    free(single);
    free(index);
    return status;
}

/* Whether every rank gets the same share: of the query heads, of the key-value heads (or of one,
 * which ranks then share), of the MLP. */
static bool splits_evenly(int64_t heads, int64_t kv_heads, int64_t width, int64_t tp_size)
{
    return heads % tp_size == 0 && width % tp_size == 0 &&
           (kv_heads % tp_size == 0 || tp_size % kv_heads == 0);
}

static Status check_split(const FileCheck *check, const cJSON *json)
{
    const JobConfig *config = &check->job->config;
    const char *path = config->model.config;
    int64_t heads = 0, width = 0, tp = config->train.tp_size;
    TRY(json_int(json, "num_attention_heads", path, 1, INT32_MAX, &heads, check->err));
    TRY(json_int(json, "intermediate_size", path, 1, INT32_MAX, &width, check->err));
    int64_t kv_heads = heads;
    TRY(json_int_or(json, "num_key_value_heads", path, 1, INT32_MAX, &kv_heads, check->err));
    if (splits_evenly(heads, kv_heads, width, tp)) return OK;
    int64_t fit = tp;
    while (!splits_evenly(heads, kv_heads, width, fit))
        fit--;
    return error_set(check->err, ERR_INVALID,
                     "%s is %lld, into which the model cannot be split evenly: %s has "
                     "num_attention_heads %lld, num_key_value_heads %lld, intermediate_size %lld.\n"
                     "Use a tp_size that divides them, for example %lld.",
                     key_at(check, "train.tp_size"), (long long)tp, path, (long long)heads,
                     (long long)kv_heads, (long long)width, (long long)fit);
}

static Status check_length(const FileCheck *check, const cJSON *json)
{
    const JobConfig *config = &check->job->config;
    int64_t positions = INT64_MAX, longest = config->data.max_length;
    TRY(json_int_or(json, "max_position_embeddings", config->model.config, 1, INT32_MAX, &positions,
                    check->err));
    if (longest <= positions) return OK;
    return error_set(check->err, ERR_INVALID,
                     "%s is %lld tokens, more than the model has positions: %s has "
                     "max_position_embeddings %lld.\n"
                     "Expected at most that: write max_length: %lld.",
                     key_at(check, "data.max_length"), (long long)longest, config->model.config,
                     (long long)positions, (long long)positions);
}

static Status check_model_config(const FileCheck *check)
{
    const JobConfig *config = &check->job->config;
    TRY(check_file(check, "model.config", config->model.config, "the model's config.json"));
    cJSON *json = NULL;
    TRY(json_read(config->model.config, CONFIG_BYTES_MAX, &json, check->err));
    Status status = check_split(check, json);
    if (status == OK) status = check_length(check, json);
    cJSON_Delete(json);
    return status;
}

static Status check_tokenizer(const FileCheck *check)
{
    const JobConfig *config = &check->job->config;
    const char *path = config->model.tokenizer;
    char *file = path_is_folder(path) ? path_join(path, "tokenizer.json") : mem_strdup(path);
    Status status = OK;
    if (path_is_folder(path) && !path_exists(file))
        status = error_set(check->err, ERR_NOT_FOUND,
                           "%s: %s holds no tokenizer.json.\nExpected a Hugging Face tokenizer; "
                           "write model.tokenizer: with the folder that has it.",
                           key_at(check, "model.tokenizer"), path);
    else
        status = check_file(check, "model.tokenizer", file,
                            "a folder with tokenizer.json, or that file");
    free(file);
    TRY(status);
    if (config->model.chat_template == NULL) return OK;
    return check_file(check, "model.chat_template", config->model.chat_template,
                      "a chat template (Jinja)");
}

/* The run folder may be absent, but then the folder that will hold it must be writable. */
static Status check_run_dir(const FileCheck *check)
{
    const char *path = check->job->config.run_dir;
    if (path_exists(path) && !path_is_folder(path))
        return error_set(check->err, ERR_EXISTS,
                         "%s: %s is a file, expected a folder that may be created or is one.\n"
                         "Remove the file or choose another run_dir.",
                         key_at(check, "run_dir"), path);
    const char *folder = path_exists(path) ? path : existing_part(path, check->arena);
    if (access(folder, W_OK | X_OK) == 0) return OK;
    return error_set_errno(check->err, errno,
                           "%s: %s cannot be written (choose another run_dir): folder %s",
                           key_at(check, "run_dir"), path, folder);
}

/* The run that stands in a model's place may have let go of the checkpoint since. */
static Status check_pins(const FileCheck *check)
{
    const JobConfig *config = &check->job->config;
    for (int i = 0; i < config->num_pins; i++) {
        const ModelPin *pin = &config->pin[i];
        if (!pin->kept || path_exists(pin->checkpoint)) continue;
        return error_set(check->err, ERR_NOT_FOUND,
                         "%s: the run in %s began with %s, which is gone (%s goes on without it; "
                         "its checkpoint.keep_last says how many stay).\n"
                         "Put it back, or start a new run with another run_dir, which begins with "
                         "what is newest now.",
                         key_at(check, pin->key), config->run_dir, pin->checkpoint, pin->run);
    }
    return OK;
}

/* The folders that weights are read from. */
static Status check_models(const FileCheck *check)
{
    const JobConfig *config = &check->job->config;
    const struct {
        const char *key, *folder;
    } others[] = {{"algorithm.reference", config->algorithm.reference},
                  {"algorithm.critic", config->algorithm.critic}};
    if (config->model.init != INIT_RANDOM && !config->model.weights_to_come)
        TRY(check_weights(check, "model.path", config->model.path));
    for (int i = 0; i < 2; i++) {
        if (others[i].folder == NULL || strcmp(others[i].folder, REFERENCE_START) == 0) continue;
        TRY(check_folder(check, others[i].key, others[i].folder));
        TRY(check_weights(check, others[i].key, others[i].folder));
    }
    return OK;
}

/* What the rollout workers read. Of several stages an earlier one may make the answers that a later
 * one loads. */
static Status check_rollout(const FileCheck *check)
{
    static const char key[] = "rollout.load", expected[] = "the folder of a run's rollout.save";
    const JobConfig *config = &check->job->config;
    const char *load = config->rollout.load, *token = config->rollout.serve_token_file;
    if (token != NULL)
        TRY(check_file(check, "rollout.serve_token_file", token,
                       "a file with a token in its first line"));
    if (load == NULL || config->stage != NULL || path_is_folder(load)) return OK;
    if (!path_exists(load)) return refuse_absent(check, key, load, expected);
    return error_set(check->err, ERR_INVALID,
                     "%s: %s is a file, expected %s.\nName the folder that holds the answers.",
                     key_at(check, key), load, expected);
}

/* What a reader of the user's makes of its paths is its own business. */
static Status check_source(const FileCheck *check, int index)
{
    TrainSource source = train_source(&check->job->config, index);
    if (source.reader == NULL) return check_data_paths(check, source.key, source.path);
    const char *key = strcmp(source.key, "data.train") == 0
                          ? "data.reader"
                          : arena_printf(check->arena, "%s.reader", source.key);
    return check_file(check, key, source.reader, "a shared object (docs/data.md)");
}

static Status check_data(const FileCheck *check)
{
    const JobConfig *config = &check->job->config;
    TRY(check_tokenizer(check));
    for (int i = 0; i < train_source_count(config); i++)
        TRY(check_source(check, i));
    for (int i = 0; i < eval_set_count(config); i++) {
        EvalSet set = eval_set(config, i);
        TRY(check_data_paths(check, set.key, set.path));
    }
    return OK;
}

Status job_config_check_data(const JobConfig *config, Error *err)
{
    FileCheck check = {.job = (const LoadedJob *)config, .arena = arena_create(), .err = err};
    Status status = check_data(&check);
    arena_destroy(check.arena);
    return status;
}

Status job_config_check_files(const JobConfig *config, Error *err)
{
    FileCheck check = {.job = (const LoadedJob *)config, .arena = arena_create(), .err = err};
    Status status = check_pins(&check);
    if (status == OK) status = check_folder(&check, "model.path", config->model.path);
    if (status == OK) status = check_model_config(&check);
    if (status == OK) status = check_models(&check);
    if (status == OK) status = check_rollout(&check);
    if (status == OK) status = check_data(&check);
    if (status == OK) status = check_run_dir(&check);
    arena_destroy(check.arena);
    return status;
}
