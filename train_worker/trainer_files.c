/* A Trainer's state from and to files: see trainer.h. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/weights_check.h"
#include "model/weights_io.h"
#include "trainer_state.h"

/* Tensors of the optimizer file that are not per weight. */
#define STEP_NAME    "optimizer.step"
#define UPDATES_NAME "optimizer.updates"

static void progress(const Trainer *trainer)
{
    model_progress(trainer->model);
}

static void disk_wait(const Trainer *trainer, bool waits)
{
    const TrainerOptions *options = &trainer->options;
    if (options->on_disk_wait != NULL) options->on_disk_wait(options->progress_context, waits);
}

/* This rank's part of a weight in a flat buffer of f32: masters, moments. */
static WeightPart part_of(Trainer *trainer, float *flat, const WeightSpec *spec)
{
    return (WeightPart){trainer->options.kernels, flat + spec->offset, DTYPE_F32,
                        &trainer->load_times};
}

/* ---- random ---- */

Status trainer_init_random(Trainer *trainer, int64_t seed, Error *err)
{
    (void)err;
    for (int s = 0; s < trainer->plan->num_specs; s++) {
        const WeightSpec *spec = &trainer->plan->spec[s];
        WeightPart master = part_of(trainer, trainer->optimizer->master, spec);
        weight_init_random(trainer->plan, spec, seed, &master);
        progress(trainer);
    }
    optimizer_publish(trainer->optimizer);
    trainer->ready = true;
    return OK;
}

/* ---- names ---- */

/* A critic's files lie beside the policy's. */
static char *file_stem(const Trainer *trainer, const char *kind)
{
    return mem_printf("%s%s", trainer->options.model.value_head ? "critic_" : "", kind);
}

/* ---- load ---- */

static bool reader_has(const SafetensorsReader *reader, const char *prefix, const char *name)
{
    char *full = mem_printf("%s%s", prefix, name);
    Tensor found;
    bool has = safetensors_describe(reader, full, &found, NULL) == OK;
    free(full);
    return has;
}

static Status read_counter(SafetensorsReader *reader, const char *folder, const char *name,
                           int64_t *ret, Error *err)
{
    Tensor found = {0};
    TRY(safetensors_describe(reader, name, &found, err));
    if (found.dtype != DTYPE_I64 || tensor_count(&found) != 1)
        return error_set(err, ERR_DATA, "%s: tensor %s is not one I64", folder, name);
    int64_t value = 0;
    TRY(safetensors_read(reader, name, 0, 1, &value, err));
    if (value < 0)
        return error_set(err, ERR_DATA, "%s: tensor %s is %lld", folder, name, (long long)value);
    *ret = value;
    return OK;
}

/* Masters stand in the optimizer file where the weights are rounded (bf16), else they are the
 * weights. */
static Status load_spec(Trainer *trainer, SafetensorsReader *model, SafetensorsReader *optimizer,
                        const char *folder, const WeightSpec *spec, Error *err)
{
    const WeightPlan *plan = trainer->plan;
    Optimizer *state = trainer->optimizer;
    bool score = plan->config.value_head && spec == &plan->spec[plan->lm_head];
    if (score && !reader_has(model, "", spec->name)) { /* a critic made of a model: values of 0 */
        trainer->options.kernels->fill_zero(
            tensor_1d(state->master + spec->offset, DTYPE_F32, spec->cols));
        return OK;
    }
    bool master = optimizer != NULL && reader_has(optimizer, "master.", spec->name);
    WeightPart part = part_of(trainer, state->master, spec);
    TRY(weight_read(master ? optimizer : model, folder, plan, spec, master ? "master." : "", &part,
                    err));
    if (optimizer == NULL) return OK;
    part = part_of(trainer, state->exp_avg, spec);
    TRY(weight_read(optimizer, folder, plan, spec, "exp_avg.", &part, err));
    part = part_of(trainer, state->exp_avg_sq, spec);
    return weight_read(optimizer, folder, plan, spec, "exp_avg_sq.", &part, err);
}

static Status load_all(Trainer *trainer, SafetensorsReader *model, SafetensorsReader *optimizer,
                       const char *folder, Error *err)
{
    int64_t step = 0, updates = 0;
    TRY(weights_check_names(model, folder, trainer->plan, err));
    for (int s = 0; s < trainer->plan->num_specs; s++) {
        TRY(load_spec(trainer, model, optimizer, folder, &trainer->plan->spec[s], err));
        progress(trainer);
    }
    if (optimizer != NULL) {
        TRY(read_counter(optimizer, folder, STEP_NAME, &step, err));
        TRY(read_counter(optimizer, folder, UPDATES_NAME, &updates, err));
    }
    trainer->step = step;
    trainer->optimizer->updates = updates;
    optimizer_publish(trainer->optimizer);
    trainer->ready = true;
    return OK;
}

Status trainer_load_weights(Trainer *trainer, const char *folder, Error *err)
{
    SafetensorsReader *model = NULL;
    trainer->ready = false;
    TRY(safetensors_open(folder, "model", &model, err));
    Status status = load_all(trainer, model, NULL, folder, err);
    safetensors_close(model);
    return status;
}

/* Opens weights and, where there is one, optimizer state. */
static Status open_state(const Trainer *trainer, const char *folder, SafetensorsReader **ret_model,
                         SafetensorsReader **ret_optimizer, Error *err)
{
    char *model = file_stem(trainer, "model"), *optimizer = file_stem(trainer, "optimizer");
    Status status = safetensors_open(folder, model, ret_model, err);
    if (status == OK) status = safetensors_open(folder, optimizer, ret_optimizer, err);
    if (status == ERR_NOT_FOUND && *ret_model != NULL) status = OK; /* a model folder of others */
    free(model);
    free(optimizer);
    return status;
}

Status trainer_load(Trainer *trainer, const char *folder, Error *err)
{
    SafetensorsReader *model = NULL, *optimizer = NULL;
    trainer->ready = false;
    Status status = open_state(trainer, folder, &model, &optimizer, err);
    if (status == OK) status = load_all(trainer, model, optimizer, folder, err);
    safetensors_close(optimizer);
    safetensors_close(model);
    return status;
}

/* One tensor of the reference model, in the weights' type. */
static Status load_reference_spec(Trainer *trainer, SafetensorsReader *model, const char *folder,
                                  const WeightSpec *spec, Error *err)
{
    Weights *weights = trainer->reference;
    char *to = (char *)weights->flat + (size_t)spec->offset * dtype_size(weights->dtype);
    WeightPart part = {weights->kernels, to, weights->dtype, &trainer->load_times};
    TRY(weight_read(model, folder, trainer->plan, spec, "", &part, err));
    progress(trainer);
    return OK;
}

Status trainer_load_reference(Trainer *trainer, const char *folder, Error *err)
{
    SafetensorsReader *model = NULL;
    /* First what can be told from the headers: a folder that will not do leaves things as they are.
     */
    TRY(weights_check_folder(folder, &trainer->plan->config, err));
    TRY(trainer_add_reference(trainer, err));
    trainer->reference_ready = false;
    TRY(safetensors_open(folder, "model", &model, err));
    Status status = OK;
    for (int s = 0; status == OK && s < trainer->plan->num_specs; s++)
        status = load_reference_spec(trainer, model, folder, &trainer->plan->spec[s], err);
    safetensors_close(model);
    if (status != OK) return status;
    weights_prepare(trainer->reference);
    trainer->reference_ready = true;
    return OK;
}

Status trainer_keep_reference(Trainer *trainer, Error *err)
{
    CHECK(trainer->ready);
    TRY(trainer_add_reference(trainer, err));
    const Weights *from = trainer->weights;
    from->kernels->copy(trainer->reference->flat, from->flat,
                        (size_t)from->plan->size * dtype_size(from->dtype));
    weights_prepare(trainer->reference);
    trainer->reference_ready = true;
    return OK;
}

/* ---- save ---- */

void saved_files_clear(SavedFiles *files)
{
    for (int i = 0; i < files->num_files; i++) {
        for (int k = 0; k < files->file[i].num_tensors; k++)
            free(files->file[i].tensor[k].name);
        free(files->file[i].tensor);
        free(files->file[i].name);
    }
    free(files->file);
    *files = (SavedFiles){0};
}

/* One kind of per-weight tensor in a file. */
typedef struct SavedKind {
    const char *prefix;
    const void *flat;
    DType dtype;
} SavedKind;

/* Which rank of the world writes each weight: the one with the least to write so far, so that all
 * write about the same. A pure function of the plan, equal on all ranks. */
static int *assign_owners(const Trainer *trainer)
{
    int world = trainer->tp_size * trainer->dp_size;
    int *owner = mem_calloc((size_t)trainer->plan->num_specs, sizeof *owner);
    int64_t *load = mem_calloc((size_t)world, sizeof *load);
    for (int s = 0; s < trainer->plan->num_specs; s++) {
        const WeightSpec *spec = &trainer->plan->spec[s];
        int least = 0;
        for (int r = 1; r < world; r++)
            if (load[r] < load[least]) least = r;
        owner[s] = least;
        load[least] += spec->rows * spec->cols;
    }
    free(load);
    return owner;
}

static int world_rank(const Trainer *trainer)
{
    return trainer->dp_rank * trainer->tp_size + trainer->tp_rank;
}

/* What a file holds, as the writer and as the report want it. */
typedef struct Contents {
    SafetensorsEntry *entry;
    int count;
} Contents;

static void contents_add(Contents *contents, char *name, DType dtype, const WeightSpec *spec)
{
    contents->entry =
        mem_realloc(contents->entry, (size_t)contents->count + 1, sizeof *contents->entry);
    SafetensorsEntry *entry = &contents->entry[contents->count++];
    *entry = (SafetensorsEntry){.name = name, .dtype = dtype, .rank = 1, .shape = {1}};
    if (spec == NULL) return;
    entry->rank = spec->rank;
    entry->shape[0] = spec->rows;
    if (spec->rank == 2) entry->shape[1] = spec->cols;
}

static int64_t entry_bytes(const SafetensorsEntry *entry)
{
    int64_t count = 1;
    for (int i = 0; i < entry->rank; i++)
        count *= entry->shape[i];
    return count * (int64_t)dtype_size(entry->dtype);
}

/* Takes the names over into the report, when there is one. */
static void contents_report(Contents *contents, SavedFile *file)
{
    if (file != NULL) {
        file->tensor = mem_calloc((size_t)contents->count, sizeof *file->tensor);
        file->num_tensors = contents->count;
    }
    for (int i = 0; i < contents->count; i++) {
        char *name = (char *)contents->entry[i].name;
        if (file != NULL)
            file->tensor[i] = (SavedTensor){name, entry_bytes(&contents->entry[i])};
        else
            free(name);
    }
    free(contents->entry);
}

/* A file under way. Its failure is kept, and what is written afterwards dropped, because the other
 * ranks count on this one in the remaining collectives. */
typedef struct OutFile {
    const Trainer *trainer;
    char *name;                /* in the folder */
    Contents contents;         /* none: this rank writes no such file */
    SafetensorsWriter *writer; /* NULL if there is none, or it could not be made */
    Status status;
    Error err;
} OutFile;

static void out_write(void *context, const void *bytes, size_t length)
{
    OutFile *out = context;
    if (out->status == OK && out->writer != NULL)
        out->status = safetensors_write(out->writer, bytes, length, &out->err);
    progress(out->trainer);
}

/* One family of files: model or optimizer. */
typedef struct Family {
    const char *kinds; /* "model" or "optimizer" */
    SavedKind kind[3];
    int num_kinds;
    bool with_counters;
} Family;

static Contents list_contents(const Trainer *trainer, const Family *family, const int *owner)
{
    Contents contents = {0};
    int me = world_rank(trainer);
    if (family->with_counters && me == 0) {
        contents_add(&contents, mem_strdup(STEP_NAME), DTYPE_I64, NULL);
        contents_add(&contents, mem_strdup(UPDATES_NAME), DTYPE_I64, NULL);
    }
    for (int k = 0; k < family->num_kinds; k++)
        for (int s = 0; s < trainer->plan->num_specs; s++) {
            const WeightSpec *spec = &trainer->plan->spec[s];
            const SavedKind *kind = &family->kind[k];
            if (owner[s] == me)
                contents_add(&contents, mem_printf("%s%s", kind->prefix, spec->name), kind->dtype,
                             spec);
        }
    return contents;
}

/* Sends the weights of this data-parallel index to their owners, which write them. */
static Status stream_family(Trainer *trainer, const Family *family, const int *owner, OutFile *out,
                            Error *err)
{
    if (family->with_counters && world_rank(trainer) == 0) {
        int64_t counters[] = {trainer->step, trainer->optimizer->updates};
        out_write(out, counters, sizeof counters);
    }
    WeightGather gather = {
        .kernels = trainer->options.kernels,
        .plan = trainer->plan,
        .comm = trainer->options.tensor_comm,
        .sink = out_write,
        .context = out,
    };
    for (int k = 0; k < family->num_kinds; k++)
        for (int s = 0; s < trainer->plan->num_specs; s++) {
            if (owner[s] / trainer->tp_size != trainer->dp_rank) continue;
            const WeightSpec *spec = &trainer->plan->spec[s];
            const SavedKind *kind = &family->kind[k];
            gather.owner = owner[s] % trainer->tp_size;
            TRY(weight_gather(&gather, spec,
                              (const char *)kind->flat +
                                  (size_t)spec->offset * dtype_size(kind->dtype),
                              kind->dtype, err));
        }
    return OK;
}

/* Writes this rank's file of a family, if it owns anything, and takes part in the gathering of what
 * others own. The result is that of the collectives: a failure of this rank alone is kept in *out.
 */
static Status write_family(Trainer *trainer, const char *folder, const Family *family, OutFile *out,
                           Error *err)
{
    static const char *const METADATA[] = {"format", "pt"};
    int *owner = assign_owners(trainer);
    *out = (OutFile){.trainer = trainer, .contents = list_contents(trainer, family, owner)};
    char *stem = file_stem(trainer, family->kinds);
    out->name = mem_printf("%s-%05d-of-%05d.safetensors", stem, world_rank(trainer) + 1,
                           trainer->tp_size * trainer->dp_size);
    free(stem);
    char *path = path_join(folder, out->name);
    disk_wait(trainer, true);
    if (out->contents.count > 0)
        out->status = safetensors_create(path, out->contents.entry, out->contents.count, METADATA,
                                         1, &out->writer, &out->err);
    disk_wait(trainer, false);
    free(path);
    Status status = stream_family(trainer, family, owner, out, err);
    free(owner);
    return status;
}

static void flushed(void *context)
{
    progress(context);
}

/* Flushes and closes, or abandons; the file is added to *files when it is good. */
static Status finish_file(OutFile *out, bool abandon, SavedFiles *files, Error *err)
{
    SavedFile file = {.name = out->name};
    bool good = !abandon && out->status == OK;
    disk_wait(out->trainer, true);
    if (good && out->writer != NULL)
        out->status = safetensors_flush(out->writer, flushed, (void *)out->trainer, &out->err);
    good = good && out->status == OK;
    if (good && out->writer != NULL)
        out->status = safetensors_finish(out->writer, &file.bytes, file.sha256, &out->err);
    else
        safetensors_abandon(out->writer);
    disk_wait(out->trainer, false);
    good = good && out->status == OK && out->contents.count > 0;
    contents_report(&out->contents, good ? &file : NULL);
    if (good) {
        files->file = mem_realloc(files->file, (size_t)files->num_files + 1, sizeof *files->file);
        files->file[files->num_files++] = file;
    } else {
        free(out->name);
    }
    if (out->status != OK && err != NULL) *err = out->err;
    return out->status;
}

#define NUM_FAMILIES 2

Status trainer_save(Trainer *trainer, const char *folder, SavedFiles *ret, Error *err)
{
    const Weights *weights = trainer->weights;
    const Optimizer *optimizer = trainer->optimizer;
    const Family families[NUM_FAMILIES] = {
        {"model", {{"", weights->flat, weights->dtype}}, 1, false},
        {"optimizer",
         {{"exp_avg.", optimizer->exp_avg, DTYPE_F32},
          {"exp_avg_sq.", optimizer->exp_avg_sq, DTYPE_F32},
          {"master.", optimizer->master, DTYPE_F32}},
         weights->dtype == DTYPE_F32 ? 2 : 3,
         true},
    };
    CHECK(trainer->ready);
    SavedFiles files = {0};
    OutFile out[NUM_FAMILIES];
    Status comm = OK, first = OK;
    int begun = 0;
    while (begun < NUM_FAMILIES && comm == OK) {
        comm = write_family(trainer, folder, &families[begun], &out[begun], err);
        begun++;
    }
    /* After the last collective: nobody waits there for the disk of another. */
    for (int i = 0; i < begun; i++) {
        Error *first_err = comm == OK && first == OK ? err : NULL;
        Status status = finish_file(&out[i], comm != OK || first != OK, &files, first_err);
        if (first == OK) first = status;
    }
    if (comm != OK) {
        trainer->broken = true;
        first = comm;
    }
    if (first != OK) {
        saved_files_clear(&files);
        return first;
    }
    *ret = files;
    return OK;
}
