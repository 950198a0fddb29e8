#include <ctype.h>
#include <string.h>

#include "config/job_internal.h"
#include "config/rows.h"

static const char *section_of(const ConfigKey *key, size_t *ret_length)
{
    const char *dot = strchr(key->path, '.');
    *ret_length = dot != NULL ? (size_t)(dot - key->path) : 0;
    return key->path;
}

static bool in_section(const ConfigKey *key, const char *name)
{
    size_t length;
    const char *section = section_of(key, &length);
    return strlen(name) == length && memcmp(section, name, length) == 0;
}

/* A job that takes another one's place stays near to what that one left, unless it says otherwise.
 */
static bool is_left_to_the_stage(const ConfigKey *key, const JobConfig *job)
{
    return strcmp(key->path, "algorithm.reference") == 0 && job->algorithm.reference == NULL &&
           job_wants_reference(job);
}

/* A stage that is swapped in may need room of which the run had none. */
static bool is_wanted_room(const ConfigKey *key, const JobConfig *job)
{
    return (strcmp(key->path, "train.memory_reference") == 0 && job_wants_reference(job)) ||
           (strcmp(key->path, "train.memory_critic") == 0 && job_wants_critic(job));
}

/* All keys: those that a run has but once as `run` has them, the others as `job` does. */
static char *write_text(const JobConfig *run, const JobConfig *job, const char *stage)
{
    Arena *arena = arena_create();
    Str text = {0};
    for (int s = 0; s < job_table.num_sections; s++) {
        const char *section = job_table.section[s]->name;
        if (section[0] != '\0') str_printf(&text, "\n%s:\n", section);
        for (int i = 0; i < config_num_keys(&job_table); i++) {
            const ConfigKey *key = config_key(&job_table, i);
            if (!in_section(key, section)) continue;
            const JobConfig *config = key->fixed ? run : job;
            str_printf(&text, "%s%s: ", section[0] != '\0' ? "  " : "", config_leaf(key->path));
            if (run != job && is_left_to_the_stage(key, job))
                str_puts(&text, REFERENCE_START);
            else if (run != job && is_wanted_room(key, job))
                str_puts(&text, "true");
            else
                config_value_text(key, config, &text);
            const char *place = job_key_place((const LoadedJob *)config, key->path, arena);
            str_printf(&text, "  # %s\n", place != NULL ? config_cut(place, arena) : "default");
        }
    }
    if (stage != NULL) str_printf(&text, "\nstages:\n  - name: %s\n", yaml_quote(stage, arena));
    arena_destroy(arena);
    return str_take(&text);
}

char *job_config_text(const JobConfig *config)
{
    return write_text(config, config, config->stage);
}

char *job_config_graft(const JobConfig *run, const JobConfig *job)
{
    return write_text(run, job, job->stage != NULL ? job->stage : job->name);
}

void job_config_fixed_settings(const JobConfig *config, const char *section, StringList *ret)
{
    for (int i = 0; i < config_num_keys(&job_table); i++) {
        const ConfigKey *key = config_key(&job_table, i);
        if (!key->fixed || !in_section(key, section)) continue;
        Str text = {0};
        str_printf(&text, "%s=", key->path);
        config_value_text(key, config, &text);
        string_list_append(ret, str_text(&text));
        str_free(&text);
    }
}

/* The default as a reader of the reference wants it. */
static const char *default_text(const ConfigKey *key)
{
    if (key->required) return "required";
    return key->preset != NULL ? key->preset : key->derived;
}

static const char introduction[] =
    "# job.yaml: every key\n\n"
    "Printed from the key table (`common/config/keys/`) by `ninja -C build docs`; do not "
    "edit it here.\n"
    "`controller schema KEY` prints one key, `controller validate --config job.yaml` checks a file "
    "and "
    "starts nothing.\n\n"
    "- An unknown key, a wrong type or a value out of range is an error that names file, line and "
    "key.\n"
    "- `--set KEY=VALUE` replaces a value for one run: `--set train.lr=1e-4`, "
    "`--set 'data.train=[a.jsonl, b.jsonl]'`.\n"
    "- Relative paths start at the job file's folder; `run_dir`, and paths in `--set`, at the "
    "working directory.\n"
    "- Paths, and only paths, may hold `${VARIABLE}` and a leading `~/`; `$$` is one `$`.\n"
    "- A list with one entry may be written without brackets. A glob that starts with `*` needs "
    "\"quotes\".\n"
    "- `stages:` is a list of such files within the file, worked through one after the other: "
    "[stages.md](stages.md).\n"
    "- The run folder's `config.effective.yaml` holds every key with its value and where that came "
    "from.\n\n";

/* They are no section: a list whose entries have all sections. */
static const char stages[] =
    "a list of stages that the run works through, one after the other: each a name (by default "
    "stage-1, stage-2 ...) and the keys in which it differs, in their sections";
static const char stages_example[] = "[{name: sft, train: {num_steps: 500}}, {name: rl, rollout: "
                                     "{function: generate, reward: gsm8k}}]";
static const char stages_more[] = "`--set KEY=VALUE` is of all stages, `--set "
                                  "stages.rl.train.num_steps=200` of the one called rl";

static void put_stages(Str *text)
{
    str_printf(text, "\n## stages\n\n%c%s: [stages.md](stages.md). For example `stages: %s`. %s.\n",
               toupper((unsigned char)stages[0]), stages + 1, stages_example, stages_more);
}

static void put_key_row(const ConfigKey *key, Str *text, Arena *arena)
{
    const char *tick = key->preset != NULL ? "`" : "";
    str_printf(text, "| `%s` | %s | %s%s%s | %s |\n", config_leaf(key->path),
               config_expected(key, arena), tick, default_text(key), tick, key->meaning);
}

static const char columns[] = "| key | value | default | meaning |\n|---|---|---|---|\n";

/* What each name of a KEY_ROWS key takes. */
static void put_rows_table(const ConfigKey *key, Str *text, Arena *arena)
{
    str_printf(text, "\n### %s\n\nAny number of names, each with these keys:\n\n%s", key->path,
               columns);
    for (int i = 0; i < config_num_keys(key->rows); i++)
        put_key_row(config_key(key->rows, i), text, arena);
}

static void put_foreign_values(Str *text)
{
    for (int i = 0; i < config_num_keys(&job_table); i++) {
        const ConfigKey *key = config_key(&job_table, i);
        const ConfigForeign *other = key->foreign;
        for (; other != NULL && other->names != NULL; other++)
            str_printf(text, "| `%s: %s` | %s |\n", config_leaf(key->path), other->names,
                       other->advice);
    }
}

char *job_config_reference(void)
{
    Arena *arena = arena_create();
    Str text = {0};
    str_puts(&text, introduction);
    for (int s = 0; s < job_table.num_sections; s++) {
        const ConfigSection *section = job_table.section[s];
        const char *title = section->name[0] != '\0' ? section->name : "Top of the file";
        str_printf(&text, "%s## %s\n\n%c%s.\n\n", s > 0 ? "\n" : "", title,
                   toupper((unsigned char)section->meaning[0]), section->meaning + 1);
        str_puts(&text, columns);
        for (int pass = 0; pass < 2; pass++)
            for (int i = 0; i < config_num_keys(&job_table); i++) {
                const ConfigKey *key = config_key(&job_table, i);
                if (!in_section(key, section->name)) continue;
                if (pass == 0) put_key_row(key, &text, arena);
                if (pass == 1 && key->type == KEY_ROWS) put_rows_table(key, &text, arena);
            }
    }
    put_stages(&text);
    str_puts(&text,
             "\n## Keys of other systems\n\nNames that mean exactly the same are suggested where "
             "they are met. These have no key of the same meaning and unit:\n\n"
             "| elsewhere | here |\n|---|---|\n");
    for (int i = 0; i < num_job_foreign; i++)
        str_printf(&text, "| `%s` | %s |\n", job_foreign[i].names, job_foreign[i].advice);
    put_foreign_values(&text);
    arena_destroy(arena);
    return str_take(&text);
}

static void describe_key(const ConfigKey *key, Str *text, Arena *arena)
{
    str_printf(text, "%s: %s\n  expects %s\n  default: %s\n", key->path, key->meaning,
               config_expected(key, arena), default_text(key));
    if (key->example != NULL) str_printf(text, "  example: %s\n", key->example);
    if (key->alias != NULL) str_printf(text, "  may also be written: %s\n", key->alias);
    if (key->also != NULL) str_printf(text, "  elsewhere called: %s\n", key->also);
    if (key->type != KEY_ROWS) return;
    str_puts(text, "  each name has these keys:\n");
    for (int i = 0; i < config_num_keys(key->rows); i++) {
        const ConfigKey *inner = config_key(key->rows, i);
        str_printf(text, "    %s: %s; expects %s; default: %s\n", inner->path, inner->meaning,
                   config_expected(inner, arena), default_text(inner));
    }
}

Status job_config_describe(const char *path, char **ret, Error *err)
{
    Arena *arena = arena_create();
    Str text = {0};
    Status status = OK;
    int index = config_find(&job_table, path);
    if (index >= 0) describe_key(config_key(&job_table, index), &text, arena);
    for (int i = 0; index < 0 && path[0] != '\0' && i < config_num_keys(&job_table); i++)
        if (in_section(config_key(&job_table, i), path))
            describe_key(config_key(&job_table, i), &text, arena);
    if (strcmp(path, "stages") == 0 || str_starts_with(path, "stages."))
        str_printf(&text, "stages: %s\n  default: none\n  example: %s\n  %s\n", stages,
                   stages_example, stages_more);
    if (text.length > 0)
        *ret = str_take(&text);
    else
        status = config_unknown(&job_table, "schema", path, arena, err);
    str_free(&text);
    arena_destroy(arena);
    return status;
}

/* A value on one line, cut as messages cut values. Arena memory. */
static const char *value_shown(const ConfigKey *key, const JobConfig *config, Arena *arena)
{
    Str text = {0};
    config_value_text(key, config, &text);
    const char *shown = config_cut(str_text(&text), arena);
    str_free(&text);
    return shown;
}

/* The index of the key whose path, or the path of a row of it, a message begins with, or -1. */
static int key_of_message(const char *message)
{
    char path[128];
    size_t length = strcspn(message, ": ");
    if (length == 0 || length >= sizeof path) return -1;
    memcpy(path, message, length);
    path[length] = '\0';
    int index = config_find(&job_table, path);
    return index >= 0 ? index : config_find_rows(&job_table, path);
}

Status job_config_locate(const JobConfig *config, Error *err)
{
    const LoadedJob *job = (const LoadedJob *)config;
    int index = key_of_message(err->message);
    if (index < 0) return err->status;
    const ConfigKey *key = config_key(&job_table, index);
    Arena *arena = arena_create();
    const char *place = job_key_place(job, key->path, arena);
    error_prefix(err, "%s", place != NULL ? config_cut(place, arena) : job->where);
    /* Lines behind the first say what to do: that needs no words about the key. */
    if (strchr(err->message, '\n') == NULL) error_append(err, "%s: %s.", key->path, key->meaning);
    arena_destroy(arena);
    return err->status;
}

/* Of two structs that the key is of. */
static bool same_value(const ConfigKey *key, const void *a, const void *b)
{
    Str text_a = {0}, text_b = {0};
    config_value_text(key, a, &text_a);
    config_value_text(key, b, &text_b);
    bool same = strcmp(str_text(&text_a), str_text(&text_b)) == 0;
    str_free(&text_a);
    str_free(&text_b);
    return same;
}

const char *job_config_set_aside(const JobConfig *config)
{
    return ((const LoadedJob *)config)->set_aside;
}

bool job_config_departs(const JobConfig *config, const char *path)
{
    int index = config_find(&job_table, path);
    CHECK(index >= 0);
    const ConfigKey *key = config_key(&job_table, index);
    OriginKind kind = ((const LoadedJob *)config)->origin[index].kind;
    if (kind != FROM_FILE && kind != FROM_OVERRIDE) return false;
    Str text = {0};
    config_value_text(key, config, &text);
    bool departs = key->preset == NULL || strcmp(str_text(&text), key->preset) != 0;
    str_free(&text);
    return departs;
}

/* What a job says, once and then; arena memory. */
typedef struct Changes {
    Str text;
    const char *place; /* of the key that is looked at */
    Arena *arena;
} Changes;

static void put_change(Changes *changes, const char *path, const char *before, const char *after)
{
    str_printf(&changes->text, "%s%s: %s -> %s (%s)", changes->text.length > 0 ? "\n" : "", path,
               before, after, changes->place);
}

static const RowHead *find_row(const ConfigKey *key, const RowList *rows, const char *name)
{
    for (int i = 0; i < rows->count; i++)
        if (strcmp(row_at(key, rows, i)->name, name) == 0) return row_at(key, rows, i);
    return NULL;
}

static const char *cell_shown(const ConfigKey *cell, const RowHead *row, bool given, Arena *arena)
{
    Str text = {0};
    if (given) config_value_text(cell, row, &text);
    const char *shown = config_cut(given ? str_text(&text) : "not said", arena);
    str_free(&text);
    return shown;
}

/* Two rows of one name, cell by cell. */
static void put_row_changes(Changes *changes, const ConfigKey *key, const RowHead *before,
                            const RowHead *after)
{
    for (int i = 0; i < config_num_keys(key->rows); i++) {
        const ConfigKey *cell = config_key(key->rows, i);
        bool was = before->given >> i & 1, is = after->given >> i & 1;
        if (was == is && (!was || same_value(cell, before, after))) continue;
        put_change(changes, arena_printf(changes->arena, "%s.%s", after->path, cell->path),
                   cell_shown(cell, before, was, changes->arena),
                   cell_shown(cell, after, is, changes->arena));
    }
}

static void put_rows_changes(Changes *changes, const ConfigKey *key, const RowList *before,
                             const RowList *after)
{
    size_t length = changes->text.length;
    for (int i = 0; i < after->count; i++) {
        const RowHead *row = row_at(key, after, i), *old = find_row(key, before, row->name);
        if (old != NULL)
            put_row_changes(changes, key, old, row);
        else
            put_change(changes, row->path, "not there", "added");
    }
    for (int i = 0; i < before->count; i++) {
        const RowHead *row = row_at(key, before, i);
        if (find_row(key, after, row->name) == NULL)
            put_change(changes, row->path, "there", "removed");
    }
    if (changes->text.length == length) /* it was not the rows that differ */
        put_change(changes, key->path, "in one order", "in another");
}

char *job_config_changes(const JobConfig *before, const JobConfig *after)
{
    Changes changes = {.arena = arena_create()};
    for (int i = 0; i < config_num_keys(&job_table); i++) {
        const ConfigKey *key = config_key(&job_table, i);
        if (same_value(key, before, after)) continue;
        const char *place = job_key_place((const LoadedJob *)after, key->path, changes.arena);
        changes.place = place != NULL ? config_cut(place, changes.arena) : "default";
        if (key->type == KEY_ROWS)
            put_rows_changes(&changes, key, (const RowList *)((const char *)before + key->offset),
                             (const RowList *)((const char *)after + key->offset));
        else
            put_change(&changes, key->path, value_shown(key, before, changes.arena),
                       value_shown(key, after, changes.arena));
    }
    arena_destroy(changes.arena);
    return changes.text.length > 0 ? str_take(&changes.text) : NULL;
}
