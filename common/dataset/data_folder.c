#include "dataset/data_folder.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/path_search.h"
#include "dataset/data_card.h"

#define FOLDER_FILES_MAX (16 * DATASET_FILES_MAX) /* data or not */
#define JSON_BYTES_MAX   (16 << 20)               /* of what save_to_disk writes beside the data */
#define SEPARATORS       "-._ 0123456789"

typedef struct Finder {
    const FolderSource *source;
    const char *root; /* its label */
    const DataPath *wanted;
    const char *key;
    StringList *out;
    char **ret_split;
    Error *err;
} Finder;

/* ---- what lies in a folder ---- */

typedef struct Ending {
    const char *text, *kind;
} Ending;

static const Ending endings[] = {
    {".jsonl", "JSONL"},     {".ndjson", "JSONL"}, {".json", "JSONL"},
    {".parquet", "Parquet"}, {".arrow", "Arrow"},  {".arrows", "Arrow"},
};

/* "JSONL", "Parquet" or "Arrow" by the ending, NULL for what is no data file. */
static const char *kind_of(const char *name)
{
    static const char *const others[] = {"config.json", "dataset_info.json", "dataset_infos.json",
                                         "dataset_dict.json", "state.json"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(path_name(name), others[i]) == 0) return NULL;
    char *bare = mem_strdup(name);
    size_t length = strlen(bare);
    if (str_ends_with(bare, ".gz")) bare[length - 3] = '\0';
    if (str_ends_with(bare, ".zst")) bare[length - 4] = '\0';
    const char *kind = NULL;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (str_ends_with(bare, endings[i].text)) kind = endings[i].kind;
    free(bare);
    return kind;
}

/* Whether a file counts as data: none of the folders that it is in, nor itself, is hidden. */
static bool is_data(const char *path)
{
    for (const char *at = path, *slash; (slash = strchr(at, '/')) != NULL; at = slash + 1)
        if (at[0] == '.' || str_starts_with(at, "__")) return false;
    return path_name(path)[0] != '.' && kind_of(path) != NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static Status list_data(const Finder *finder, StringList *ret)
{
    StringList all = {0};
    Status status = finder->source->list(finder->source->context, &all, finder->err);
    if (status != OK) error_prefix(finder->err, "%s", finder->key);
    for (int i = 0; i < all.count && status == OK; i++)
        if (is_data(all.item[i])) string_list_append(ret, all.item[i]);
    string_list_free(&all);
    if (ret->count > 0) qsort(ret->item, (size_t)ret->count, sizeof *ret->item, compare_names);
    if (status == OK && ret->count > DATASET_FILES_MAX)
        status = error_set(finder->err, ERR_RESOURCE,
                           "%s: %s holds more than %d data files (DATASET_FILES_MAX)", finder->key,
                           finder->root, DATASET_FILES_MAX);
    return status;
}

/* Where in a name a word stands: there are separators on the sides at which the name goes on. */
typedef struct WordPlace {
    bool begins, ends; /* the name */
} WordPlace;

static bool has_word(const char *name, size_t length, const char *word, WordPlace place)
{
    size_t size = strlen(word);
    for (size_t at = 0; at + size <= length; at++) {
        if (memcmp(name + at, word, size) != 0) continue;
        bool begins = at == 0, ends = at + size == length;
        if (begins != place.begins || ends != place.ends) continue;
        if (!begins && strchr(SEPARATORS, name[at - 1]) == NULL) continue;
        if (!ends && strchr(SEPARATORS, name[at + size]) == NULL) continue;
        return true;
    }
    return false;
}

static bool folder_has_word(const char *path, const char *word, WordPlace place)
{
    for (const char *slash; (slash = strchr(path, '/')) != NULL; path = slash + 1)
        if (has_word(path, (size_t)(slash - path), word, place)) return true;
    return false;
}

/* A file's name does not end with the word, but with an ending. */
static bool file_has_word(const char *path, const char *word, WordPlace place)
{
    const char *name = path_name(path);
    return !place.ends && has_word(name, strlen(name), word, place);
}

/* ---- splits by name ---- */

typedef struct SplitWords {
    const char *split, *word[5];
} SplitWords;

static const SplitWords split_words[] = {
    {"train", {"train", "training"}},
    {"validation", {"validation", "valid", "dev", "val"}},
    {"test", {"test", "testing", "eval", "evaluation"}},
};

typedef bool HasWord(const char *path, const char *word, WordPlace place);

/* "data/SPLIT-00000-of-00001.parquet": the length of SPLIT, or 0. */
static size_t sharded_split(const char *path)
{
    if (!str_starts_with(path, "data/") || strchr(path + 5, '/') != NULL) return 0;
    const char *name = path + 5, *of = strstr(name, "-of-");
    if (of == NULL || of - name < 7 || of[-6] != '-') return 0;
    if (strspn(of - 5, "0123456789") != 5 || strspn(of + 4, "0123456789") < 5) return 0;
    return strchr(of + 9, '.') != NULL ? (size_t)(of - 6 - name) : 0;
}

/* Files of which each is taken once. */
typedef struct Choice {
    const StringList *files;
    bool *taken; /* [files->count] */
    StringList *out;
} Choice;

static void take_file(const Choice *choice, int index)
{
    if (choice->taken[index]) return;
    choice->taken[index] = true;
    string_list_append(choice->out, choice->files->item[index]);
}

/* Takes the files that have a word at a place. */
static void take_with_word(const Choice *choice, HasWord *has_it, const char *word, WordPlace place)
{
    for (int i = 0; i < choice->files->count; i++)
        if (has_it(choice->files->item[i], word, place)) take_file(choice, i);
}

/* Sorts the files into splits by a word in their names; true when there was one. */
static bool split_by_words(const StringList *files, HasWord *has_it, CardConfig *ret)
{
    static const WordPlace places[] = {{true, true}, {true, false}, {false, true}, {false, false}};
    for (size_t i = 0; i < sizeof split_words / sizeof *split_words; i++) {
        StringList found = {0};
        Choice choice = {files, mem_calloc((size_t)files->count + 1, sizeof(bool)), &found};
        for (int w = 0; split_words[i].word[w] != NULL; w++)
            for (size_t p = 0; p < sizeof places / sizeof *places; p++)
                take_with_word(&choice, has_it, split_words[i].word[w], places[p]);
        free(choice.taken);
        if (found.count > 0)
            card_split(ret, split_words[i].split)->pattern = found;
        else
            string_list_free(&found);
    }
    return ret->num_splits > 0;
}

/* The splits of a folder of which nothing is said but names. */
static void infer_splits(const StringList *files, CardConfig *ret)
{
    for (int i = 0; i < files->count; i++) {
        size_t length = sharded_split(files->item[i]);
        if (length == 0) continue;
        char *name = mem_strndup(files->item[i] + 5, length);
        string_list_append(&card_split(ret, name)->pattern, files->item[i]);
        free(name);
    }
    if (ret->num_splits > 0) return;
    if (split_by_words(files, folder_has_word, ret)) return;
    if (split_by_words(files, file_has_word, ret)) return;
    for (int i = 0; i < files->count; i++)
        string_list_append(&card_split(ret, "train")->pattern, files->item[i]);
}

/* ---- choosing ---- */

static Status refuse_split(const Finder *finder, const CardConfig *config, const char *wanted)
{
    Str names = {0};
    for (int i = 0; i < config->num_splits; i++)
        str_printf(&names, " %s", config->split[i].name);
    error_set(
        finder->err, ERR_NOT_FOUND,
        "%s: %s has no split %s\n  expected: one of those that it has:%s\n  to do: write %s@%s",
        finder->key, finder->root, wanted, names.length > 0 ? str_text(&names) : " none",
        finder->root, config->num_splits > 0 ? config->split[0].name : "SPLIT");
    str_free(&names);
    return ERR_NOT_FOUND;
}

static const CardSplit *split_of(const CardConfig *config, const char *name)
{
    for (int i = 0; i < config->num_splits; i++)
        if (strcmp(config->split[i].name, name) == 0) return &config->split[i];
    return NULL;
}

static Status choose_split(const Finder *finder, const CardConfig *config, const CardSplit **ret)
{
    bool training =
        strcmp(finder->key, "data.train") == 0 || str_starts_with(finder->key, "data.sources.");
    const char *name = finder->wanted->split;
    if (name != NULL) {
        *ret = split_of(config, name);
    } else if (training) {
        *ret = split_of(config, name = "train");
    } else {
        *ret = split_of(config, "validation");
        if (*ret == NULL) *ret = split_of(config, name = "test");
        if (*ret == NULL) name = "validation or test";
    }
    if (*ret == NULL) return refuse_split(finder, config, name);
    bool named = config->name != NULL && strcmp(config->name, "default") != 0;
    *finder->ret_split =
        named ? mem_printf("%s/%s", config->name, (*ret)->name) : mem_strdup((*ret)->name);
    return OK;
}

static Status refuse_mixture(const Finder *finder, const char *a, const char *b)
{
    return error_set(finder->err, ERR_INVALID,
                     "%s: %s holds files of two kinds, %s and %s, perhaps the same data twice\n"
                     "  expected: one kind\n  to do: name those that are meant, such as %s/*%s",
                     finder->key, finder->root, a, b, finder->root, strrchr(a, '.'));
}

/* Appends the files of a split. */
static Status add_files(const Finder *finder, const StringList *files)
{
    for (int i = 0; i < files->count; i++) {
        if (strcmp(kind_of(files->item[i]), kind_of(files->item[0])) != 0)
            return refuse_mixture(finder, files->item[0], files->item[i]);
        string_list_append(finder->out, files->item[i]);
    }
    return OK;
}

static Status refuse_empty(const Finder *finder)
{
    return error_set(
        finder->err, ERR_NOT_FOUND,
        "%s: %s holds no data files\n  expected: .jsonl, .json, .jsonl.gz, .jsonl.zst, "
        ".parquet or .arrow\n  to do: correct the path, or name the files",
        finder->key, finder->root);
}

/* By names alone, of the files below `folder` ("" or relative, with a slash at its end). */
static Status add_by_names(const Finder *finder, const StringList *all, const char *folder)
{
    StringList files = {0};
    for (int i = 0; i < all->count; i++)
        if (str_starts_with(all->item[i], folder))
            string_list_append(&files, all->item[i] + strlen(folder));
    CardConfig config = {0};
    infer_splits(&files, &config);
    string_list_free(&files);
    const CardSplit *split = NULL;
    Status status =
        config.num_splits == 0 ? refuse_empty(finder) : choose_split(finder, &config, &split);
    for (int i = 0; status == OK && i < split->pattern.count; i++) {
        char *path = mem_printf("%s%s", folder, split->pattern.item[i]);
        string_list_append(&files, path);
        free(path);
    }
    if (status == OK) status = add_files(finder, &files);
    string_list_free(&files);
    card_config_clear(&config);
    return status;
}

/* ---- README.md ---- */

/* Of a folder without any: what is meant is its split. */
static Status refuse_any_config(const Finder *finder)
{
    const DataPath *wanted = finder->wanted;
    return error_set(finder->err, ERR_NOT_FOUND,
                     "%s: %s has no configuration %s\n  expected: a split alone: there is no "
                     "README.md that names configurations\n  to do: write %s@%s",
                     finder->key, finder->root, wanted->config, finder->root, wanted->split);
}

static Status refuse_config(const Finder *finder, const DataCard *card)
{
    Str names = {0};
    if (card->num_configs == 0) return refuse_any_config(finder);
    for (int i = 0; i < card->num_configs; i++)
        str_printf(&names, " %s", card->config[i].name);
    const char *wanted = finder->wanted->config;
    error_set(finder->err, ERR_NOT_FOUND,
              "%s: %s has %s%s\n  expected: one of its configurations:%s\n  to do: write %s@%s/%s",
              finder->key, finder->root,
              wanted != NULL ? "no configuration " : "several configurations",
              wanted != NULL ? wanted : "", str_text(&names), finder->root, card->config[0].name,
              finder->wanted->split != NULL ? finder->wanted->split : "train");
    str_free(&names);
    return ERR_NOT_FOUND;
}

static const CardConfig *choose_config(const Finder *finder, const DataCard *card)
{
    const char *wanted = finder->wanted->config;
    if (wanted == NULL && card->num_configs == 1) return &card->config[0];
    for (int i = 0; i < card->num_configs; i++)
        if (wanted == NULL && card->config[i].is_default) return &card->config[i];
    for (int i = 0; i < card->num_configs; i++)
        if (strcmp(card->config[i].name, wanted != NULL ? wanted : "default") == 0)
            return &card->config[i];
    return NULL;
}

/* The files that the card's patterns of a split stand for. */
static Status add_by_patterns(const Finder *finder, const StringList *all, const CardConfig *config,
                              const CardSplit *split)
{
    StringList files = {0};
    Choice choice = {all, mem_calloc((size_t)all->count + 1, sizeof(bool)), &files};
    Status status = OK;
    for (int p = 0; p < split->pattern.count && status == OK; p++) {
        const char *base = config->data_dir != NULL ? config->data_dir : "";
        char *pattern = path_join(base, split->pattern.item[p]);
        const char *wanted = str_starts_with(pattern, "./") ? pattern + 2 : pattern;
        int before = files.count;
        for (int i = 0; i < all->count; i++)
            if (path_matches(wanted, all->item[i])) take_file(&choice, i);
        if (files.count == before && strpbrk(wanted, "*?[") == NULL)
            status =
                error_set(finder->err, ERR_NOT_FOUND,
                          "%s: README.md of %s names %s, which is no data file there\n  to do: "
                          "fetch the whole data set",
                          finder->key, finder->root, wanted);
        free(pattern);
    }
    if (status == OK) status = files.count > 0 ? add_files(finder, &files) : refuse_empty(finder);
    free(choice.taken);
    string_list_free(&files);
    return status;
}

static Status add_by_card(const Finder *finder, const StringList *all, const DataCard *card)
{
    const char *wanted = finder->wanted->config;
    if (card->num_configs == 0 && (wanted == NULL || strcmp(wanted, "default") == 0))
        return add_by_names(finder, all, "");
    const CardConfig *config = choose_config(finder, card);
    if (config == NULL) return refuse_config(finder, card);
    if (config->num_splits == 0) {
        const char *base = config->data_dir != NULL ? config->data_dir : "";
        bool whole = base[0] == '\0' || strcmp(base, ".") == 0;
        char *folder =
            whole ? mem_strdup("") : mem_printf("%s%s", base, str_ends_with(base, "/") ? "" : "/");
        Status status = add_by_names(finder, all, folder);
        free(folder);
        return status;
    }
    const CardSplit *split = NULL;
    TRY(choose_split(finder, config, &split));
    return add_by_patterns(finder, all, config, split);
}

/* ---- what save_to_disk has written ---- */

/* Reads a file of JSON; *ret stays NULL where there is none. */
static Status read_json(const Finder *finder, const char *name, cJSON **ret)
{
    char *path = NULL;
    Status status = finder->source->get(finder->source->context, name, &path, finder->err);
    if (status == ERR_NOT_FOUND) return OK;
    if (status == OK) status = json_read(path, JSON_BYTES_MAX, ret, finder->err);
    free(path);
    return status;
}

/* The files of one split, which state.json names: that in `folder`, or ("") the whole source. */
static Status add_saved(const Finder *finder, const char *folder, const cJSON *state)
{
    const cJSON *files = cJSON_GetObjectItemCaseSensitive(state, "_data_files"), *file = NULL;
    if (!cJSON_IsArray(files))
        return error_set(finder->err, ERR_DATA,
                         "%s: no list \"_data_files\" in state.json of %s%s%s", finder->key,
                         finder->root, folder[0] != '\0' ? "/" : "", folder);
    cJSON_ArrayForEach(file, files)
    {
        const char *name = NULL;
        TRY(json_string(file, "filename", "state.json", &name, finder->err));
        char *data = path_join(folder, path_name(name));
        string_list_append(finder->out, data);
        free(data);
    }
    return OK;
}

static Status add_saved_dict(const Finder *finder, const cJSON *dict)
{
    CardConfig config = {0};
    const cJSON *name = NULL;
    cJSON *state = NULL;
    cJSON_ArrayForEach(name, cJSON_GetObjectItemCaseSensitive(dict, "splits"))
    {
        if (cJSON_IsString(name) && strchr(name->valuestring, '/') == NULL)
            card_split(&config, name->valuestring);
    }
    const CardSplit *split = NULL;
    Status status = choose_split(finder, &config, &split);
    if (status == OK) {
        char *path = mem_printf("%s/state.json", split->name);
        status = read_json(finder, path, &state);
        if (status == OK) status = add_saved(finder, split->name, state);
        free(path);
    }
    cJSON_Delete(state);
    card_config_clear(&config);
    return status;
}

static Status add_named(const Finder *finder)
{
    DataCard card = {0};
    StringList all = {0};
    char *path = NULL;
    Status status = finder->source->get(finder->source->context, "README.md", &path, finder->err);
    if (status == ERR_NOT_FOUND)
        status = OK;
    else if (status == OK && (status = data_card_read(path, &card, finder->err)) != OK)
        error_prefix(finder->err, "%s", finder->key);
    if (status == OK) status = list_data(finder, &all);
    if (status == OK) status = add_by_card(finder, &all, &card);
    string_list_free(&all);
    data_card_free(&card);
    free(path);
    return status;
}

Status data_folder_find(const FolderSource *source, const DataPath *wanted, const char *key,
                        StringList *ret, char **ret_split, Error *err)
{
    *ret_split = NULL;
    Finder finder = {source, source->label, wanted, key, ret, ret_split, err};
    cJSON *dict = NULL, *state = NULL;
    Status status = read_json(&finder, "dataset_dict.json", &dict);
    if (status == OK && dict == NULL) status = read_json(&finder, "state.json", &state);
    if (status == OK && dict != NULL)
        status = add_saved_dict(&finder, dict);
    else if (status == OK && state != NULL && wanted->split != NULL)
        status = error_set(err, ERR_INVALID, "%s: %s is one split\n  to do: write it without @%s",
                           key, source->label, wanted->split);
    else if (status == OK && state != NULL)
        status = add_saved(&finder, "", state);
    else if (status == OK)
        status = add_named(&finder);
    cJSON_Delete(dict);
    cJSON_Delete(state);
    if (status == OK) return OK;
    free(*ret_split);
    *ret_split = NULL;
    return status;
}

/* ---- folders of this machine ---- */

static Status list_folder(void *root, StringList *ret, Error *err)
{
    return path_list_files(root, FOLDER_FILES_MAX, ret, err);
}

static Status get_of_folder(void *root, const char *name, char **ret_path, Error *err)
{
    char *path = path_join(root, name);
    if (!path_exists(path)) {
        free(path);
        return error_set(err, ERR_NOT_FOUND, "%s has no %s", (const char *)root, name);
    }
    *ret_path = path;
    return OK;
}

Status data_folder_files(const DataPath *wanted, const char *key, StringList *ret, char **ret_split,
                         Error *err)
{
    FolderSource source = {wanted->path, list_folder, get_of_folder, wanted->path};
    StringList names = {0};
    Status status = data_folder_find(&source, wanted, key, &names, ret_split, err);
    for (int i = 0; i < names.count && status == OK; i++) {
        char *path = path_join(wanted->path, names.item[i]);
        string_list_append(ret, path);
        free(path);
    }
    string_list_free(&names);
    return status;
}
