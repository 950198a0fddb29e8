/* Checkpoints: any layout loads what any other wrote, bit for bit; resuming changes nothing; bad
 * folders are explained. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/memory.h"
#include "golden.h"
#include "toy.h"
#include "trainer_state.h"

#define WHOLE_MAX (1 << 16)

/* ---- ranks ---- */

/* Start from `load` (NULL: random), run steps, save to `save`. */
typedef struct Job {
    ModelConfig config;
    DType dtype;
    const char *load, *save;
    int first, last; /* steps to run */
    float *weights;  /* [WHOLE_MAX] masters, whole */
    int64_t step;    /* found after loading */
    bool anew;       /* the weights of `load` alone */
} Job;

/* The report must be what lies on disk. */
static void check_saved(const char *folder, const SavedFiles *files)
{
    Error err = {0};
    for (int i = 0; i < files->num_files; i++) {
        const SavedFile *file = &files->file[i];
        SafetensorsReader *reader = NULL;
        char *path = path_join(folder, file->name), hex[DIGEST_HEX_BYTES];
        int64_t length = 0;
        rank_ok(digest_file(path, hex, &length, &err), &err);
        rank_check(strcmp(hex, file->sha256) == 0 && length == file->bytes);
        rank_ok(safetensors_open(path, "", &reader, &err), &err);
        rank_check(safetensors_count(reader) == file->num_tensors);
        for (int k = 0; k < file->num_tensors; k++) {
            Tensor tensor;
            rank_ok(safetensors_describe(reader, file->tensor[k].name, &tensor, &err), &err);
            rank_check((int64_t)tensor_bytes(&tensor) == file->tensor[k].bytes);
        }
        safetensors_close(reader);
        free(path);
    }
}

static void body(const Ranks *ranks, void *argument)
{
    Job *job = argument;
    Error err = {0};
    TrainerOptions options = toy_options(ranks, &job->config, job->dtype);
    Trainer *trainer = toy_trainer(ranks, &options);
    if (job->load == NULL)
        rank_ok(trainer_init_random(trainer, 11, &err), &err);
    else if (job->anew)
        rank_ok(trainer_load_weights(trainer, job->load, &err), &err);
    else
        rank_ok(trainer_load(trainer, job->load, &err), &err);
    job->step = trainer_step(trainer);
    toy_train(trainer, ranks, job->first, job->last, 3, NULL);
    if (job->save != NULL) {
        SavedFiles files = {0};
        rank_ok(trainer_save(trainer, job->save, &files, &err), &err);
        check_saved(job->save, &files);
        saved_files_clear(&files);
    }
    if (job->weights != NULL)
        toy_gather(trainer, trainer->optimizer->master, DTYPE_F32, job->weights);
    trainer_destroy(trainer);
}

static int64_t run(Job *job, int tp_size, int dp_size)
{
    if (job->save != NULL) toy_fresh_folder(job->save);
    Job *shared = shared_alloc(sizeof *shared);
    *shared = *job;
    ranks_run(tp_size, dp_size, body, shared);
    int64_t step = shared->step;
    shared_free(shared, sizeof *shared);
    if (job->save == NULL) return step;
    Error err = {0};
    assert_ok(toy_write_index(job->save, "model", &err), &err);
    assert_ok(toy_write_index(job->save, "optimizer", &err), &err);
    return step;
}

/* Same tensors, types, shapes and bytes, however they are spread over files. */
static void assert_same_family(const char *a, const char *b, const char *stem)
{
    Error err = {0};
    SafetensorsReader *reader[2] = {NULL, NULL};
    assert_ok(safetensors_open(a, stem, &reader[0], &err), &err);
    assert_ok(safetensors_open(b, stem, &reader[1], &err), &err);
    assert_int_equal(safetensors_count(reader[0]), safetensors_count(reader[1]));
    for (int i = 0; i < safetensors_count(reader[0]); i++) {
        const char *name = safetensors_name(reader[0], i);
        Tensor tensor[2];
        char *data[2];
        for (int k = 0; k < 2; k++) {
            assert_ok(safetensors_describe(reader[k], name, &tensor[k], &err), &err);
            data[k] = mem_alloc(tensor_bytes(&tensor[k]));
            assert_ok(safetensors_read(reader[k], name, 0, tensor_count(&tensor[k]), data[k], &err),
                      &err);
        }
        assert_true(tensor_same_shape(&tensor[0], &tensor[1]));
        assert_int_equal(tensor[0].dtype, tensor[1].dtype);
        assert_memory_equal(data[0], data[1], tensor_bytes(&tensor[0]));
        free(data[0]);
        free(data[1]);
    }
    safetensors_close(reader[0]);
    safetensors_close(reader[1]);
}

static void assert_same_checkpoint(const char *a, const char *b)
{
    assert_same_family(a, b, "model");
    assert_same_family(a, b, "optimizer");
}

/* ---- tests ---- */

static void test_checkpoint_is_the_same_for_every_layout(void **state)
{
    (void)state;
    static const struct {
        int tp_size, dp_size;
    } LAYOUTS[] = {{2, 1}, {4, 1}, {1, 2}, {2, 2}, {1, 1}};
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++)
        for (int kv_heads = 1; kv_heads <= 8; kv_heads *= 8) {
            Job job = {
                toy_config(kv_heads, kv_heads == 1), dtype, NULL, "ckpt_0", 1, 2, NULL, 0, false};
            run(&job, 1, 1);
            char from[32], to[32];
            for (size_t i = 0; i < sizeof LAYOUTS / sizeof *LAYOUTS; i++) {
                snprintf(from, sizeof from, "ckpt_%zu", i);
                snprintf(to, sizeof to, "ckpt_%zu", i + 1);
                Job next = {job.config, dtype, from, to, 1, 0, NULL, 0, false};
                int64_t step = run(&next, LAYOUTS[i].tp_size, LAYOUTS[i].dp_size);
                assert_int_equal(step, 2);
                assert_same_checkpoint("ckpt_0", to);
            }
        }
}

static void test_random_weights_are_the_same_for_every_layout(void **state)
{
    (void)state;
    Job job = {toy_config(2, false), DTYPE_BF16, NULL, "init_1", 1, 0, NULL, 0, false};
    run(&job, 1, 1);
    job.save = "init_n";
    run(&job, 4, 2);
    assert_same_checkpoint("init_1", "init_n");
}

static void test_resuming_gives_the_undisturbed_weights(void **state)
{
    (void)state;
    size_t bytes = WHOLE_MAX * sizeof(float);
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        float *whole = shared_alloc(bytes), *resumed = shared_alloc(bytes);
        Job job = {toy_config(2, true), dtype, NULL, NULL, 1, 6, whole, 0, false};
        run(&job, 2, 2);
        Job before = {job.config, dtype, NULL, "half", 1, 3, NULL, 0, false};
        run(&before, 2, 2);
        Job after = {job.config, dtype, "half", NULL, 4, 6, resumed, 0, false};
        assert_int_equal(run(&after, 2, 2), 3);
        assert_memory_equal(whole, resumed, bytes);
        shared_free(whole, bytes);
        shared_free(resumed, bytes);
    }
}

/* A run in bf16 goes on in f32 from its masters, not from its rounded weights; and the other way
 * round. */
static void test_checkpoint_loads_in_another_dtype_without_loss(void **state)
{
    (void)state;
    size_t bytes = WHOLE_MAX * sizeof(float);
    float *saved = shared_alloc(bytes), *loaded = shared_alloc(bytes);
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Job job = {toy_config(4, true), dtype, NULL, "dtype", 1, 2, saved, 0, false};
        run(&job, 1, 1);
        Job other = {
            job.config, dtype == DTYPE_F32 ? DTYPE_BF16 : DTYPE_F32, "dtype", NULL, 1, 0, loaded, 0,
            false};
        run(&other, 2, 1);
        assert_memory_equal(saved, loaded, bytes);
    }
    shared_free(saved, bytes);
    shared_free(loaded, bytes);
}

/* ---- bad folders ---- */

typedef struct BadLoad {
    const char *folder, *expected;
    ModelConfig config;
    Status status;
} BadLoad;

static void bad_load_body(const Ranks *ranks, void *argument)
{
    const BadLoad *bad = argument;
    Error err = {0};
    TrainerOptions options = toy_options(ranks, &bad->config, DTYPE_F32);
    Trainer *trainer = toy_trainer(ranks, &options);
    Status status = trainer_load(trainer, bad->folder, &err);
    if (status != bad->status || strstr(err.message, bad->expected) == NULL)
        rank_fail(__FILE__, __LINE__, bad->expected, err.message);
    int lines = 1;
    for (const char *c = err.message; *c != '\0'; c++)
        lines += *c == '\n';
    rank_check(lines <= 6);
    trainer_destroy(trainer);
}

static void assert_bad_load(const char *folder, const ModelConfig *config, Status status,
                            const char *expected)
{
    BadLoad bad = {folder, expected, *config, status};
    ranks_run(1, 1, bad_load_body, &bad);
}

/* A checkpoint is a model folder: another job begins from its weights, not from its step. */
static void test_checkpoint_serves_as_the_model_of_another_job(void **state)
{
    (void)state;
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Job first = {toy_config(2, true), dtype, NULL, "first_job", 1, 3, NULL, 0, false};
        run(&first, 2, 1);
        Job plain = {first.config, dtype, "first_job", "plain", 1, 2, NULL, 0, true};
        assert_int_equal(run(&plain, 1, 1), 0);
        Job bare = {first.config, dtype, "bare_model", "bare", 1, 2, NULL, 0, false};
        toy_fresh_folder("bare_model"); /* the same weights without anything of a checkpoint */
        assert_int_equal(system("cp first_job/model* bare_model/"), 0);
        assert_int_equal(run(&bare, 1, 1), 0);
        assert_same_checkpoint("plain", "bare");
    }
}

static void test_bad_model_folders_are_explained(void **state)
{
    (void)state;
    char tied[512], untied[512];
    Golden golden, other;
    golden_load(&golden, "tied_gqa");
    golden_load(&other, "untied_mha");
    snprintf(tied, sizeof tied, "%s", golden.folder);
    snprintf(untied, sizeof untied, "%s", other.folder);
    ModelConfig config = golden.config;
    config.tie_word_embeddings = false;
    assert_bad_load(tied, &config, ERR_DATA, "lm_head.weight");
    config = golden.config;
    config.intermediate_size = 64;
    assert_bad_load(
        tied, &config, ERR_DATA,
        "tensor model.layers.0.mlp.gate_proj.weight has shape [28, 32], but the model's "
        "config.json makes it [64, 32]");
    config = golden.config;
    config.num_hidden_layers = 1;
    assert_bad_load(tied, &config, ERR_UNSUPPORTED, "holds tensor model.layers.1.");
    config = golden.config;
    config.qk_norm = false;
    assert_bad_load(tied, &config, ERR_UNSUPPORTED, "k_norm.weight");
    assert_bad_load("no_such_folder", &config, ERR_NOT_FOUND, "no_such_folder");
    golden_clear(&golden);
    golden_clear(&other);
}

/* A weight of whole numbers is not a weight. */
static void test_wrong_type_is_explained(void **state)
{
    (void)state;
    Error err = {0};
    ModelConfig config = toy_config(2, true);
    WeightPlan *plan = weight_plan_create(&config, 0, 1);
    SafetensorsEntry entry[64] = {{0}};
    for (int s = 0; s < plan->num_specs; s++) {
        const WeightSpec *spec = &plan->spec[s];
        entry[s] = (SafetensorsEntry){spec->name, DTYPE_I32, spec->rank, {spec->rows, spec->cols}};
    }
    SafetensorsWriter *writer = NULL;
    toy_fresh_folder("wrong_type");
    assert_ok(safetensors_create("wrong_type/model.safetensors", entry, plan->num_specs, NULL, 0,
                                 &writer, &err),
              &err);
    int64_t parameters = model_config_parameters(&config), bytes;
    char *zeros = mem_calloc((size_t)parameters, 4), hex[65];
    assert_ok(safetensors_write(writer, zeros, (size_t)parameters * 4, &err), &err);
    assert_ok(safetensors_finish(writer, &bytes, hex, &err), &err);
    assert_bad_load("wrong_type", &config, ERR_DATA, "has type I32, but a weight must be");
    free(zeros);
    weight_plan_destroy(plan);
}

/* ---- failures while saving ---- */

static void full_disk_body(const Ranks *ranks, void *argument)
{
    Job *job = argument;
    Error err = {0};
    TrainerOptions options = toy_options(ranks, &job->config, DTYPE_F32);
    Trainer *trainer = toy_trainer(ranks, &options);
    rank_ok(trainer_init_random(trainer, 11, &err), &err);
    SavedFiles files = {0};
    /* rank 1 has nowhere to write; rank 0 must not hang or fail because of it */
    const char *folder = ranks->tp_rank == 1 ? "saved/absent" : "saved";
    Status status = trainer_save(trainer, folder, &files, &err);
    rank_check(ranks->tp_rank == 1 ? status == ERR_NOT_FOUND : status == OK);
    rank_check(ranks->tp_rank == 1 ? files.num_files == 0 : files.num_files == 2);
    if (ranks->tp_rank == 1) rank_check(strstr(err.message, "saved/absent/model-00002") != NULL);
    saved_files_clear(&files);
    toy_train(trainer, ranks, 1, 1, 8, NULL); /* and training can go on */
    trainer_destroy(trainer);
}

/* What stands between the two waits for the disk, and progress in between. */
typedef struct DiskWatch {
    bool waits;
    int waited, progressed_while_waiting;
} DiskWatch;

static void on_disk_wait(void *context, bool waits)
{
    DiskWatch *watch = context;
    rank_check(watch->waits != waits);
    watch->waits = waits;
    watch->waited += waits;
}

static void on_progress(void *context)
{
    DiskWatch *watch = context;
    watch->progressed_while_waiting += watch->waits;
}

static void flush_body(const Ranks *ranks, void *argument)
{
    Job *job = argument;
    Error err = {0};
    DiskWatch watch = {0};
    TrainerOptions options = toy_options(ranks, &job->config, DTYPE_F32);
    options.on_disk_wait = on_disk_wait;
    options.on_progress = on_progress;
    options.progress_context = &watch;
    Trainer *trainer = toy_trainer(ranks, &options);
    rank_ok(trainer_init_random(trainer, 11, &err), &err);
    SavedFiles files = {0};
    rank_ok(trainer_save(trainer, "flushed", &files, &err), &err);
    rank_check(!watch.waits && watch.waited == 4); /* reserve and flush, two files */
    rank_check(watch.progressed_while_waiting >= 2);
    saved_files_clear(&files);
    trainer_destroy(trainer);
}

static void test_a_save_says_when_it_waits_for_the_disk(void **state)
{
    (void)state;
    Job job = {.config = toy_config(2, true)};
    toy_fresh_folder("flushed");
    ranks_run(2, 1, flush_body, &job);
}

static void test_a_failed_save_fails_one_rank_and_stops_nobody(void **state)
{
    (void)state;
    Job job = {.config = toy_config(2, true)};
    toy_fresh_folder("saved");
    ranks_run(2, 1, full_disk_body, &job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint_is_the_same_for_every_layout),
        cmocka_unit_test(test_random_weights_are_the_same_for_every_layout),
        cmocka_unit_test(test_resuming_gives_the_undisturbed_weights),
        cmocka_unit_test(test_checkpoint_loads_in_another_dtype_without_loss),
        cmocka_unit_test(test_checkpoint_serves_as_the_model_of_another_job),
        cmocka_unit_test(test_bad_model_folders_are_explained),
        cmocka_unit_test(test_wrong_type_is_explained),
        cmocka_unit_test(test_a_save_says_when_it_waits_for_the_disk),
        cmocka_unit_test(test_a_failed_save_fails_one_rank_and_stops_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
