#include "toy.h"

#include "test.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/weights_io.h"
#include "trainer_state.h"

ModelConfig toy_config(int num_key_value_heads, bool tied)
{
    return (ModelConfig){
        .architecture = ARCHITECTURE_QWEN3,
        .vocab_size = 131,
        .hidden_size = 48,
        .intermediate_size = 40,
        .num_hidden_layers = 2,
        .num_attention_heads = 8,
        .num_key_value_heads = num_key_value_heads,
        .head_dim = 6,
        .max_position_embeddings = 64,
        .rope_theta = 10000.0,
        .rms_norm_eps = 1e-6f,
        .initializer_range = 0.2f,
        .qk_norm = true,
        .tie_word_embeddings = tied,
    };
}

TrainerOptions toy_options(const Ranks *ranks, const ModelConfig *config, DType dtype)
{
    return (TrainerOptions){
        .model = *config,
        .dtype = dtype,
        .max_tokens = 20 * TOY_SAMPLES,
        .max_sequence_length = 20,
        .adam_beta1 = 0.9,
        .adam_beta2 = 0.95,
        .adam_eps = 1e-8,
        .weight_decay = 0.1,
        .clip_grad = 1.0,
        .kernels = ranks->kernels,
        .tensor_comm = ranks->tensor_comm,
        .data_comm = ranks->data_comm,
    };
}

Trainer *toy_trainer(const Ranks *ranks, const TrainerOptions *options)
{
    (void)ranks;
    Error err = {0};
    Trainer *trainer = NULL;
    rank_ok(trainer_create(options, &trainer, &err), &err);
    return trainer;
}

void toy_samples_make(Sample samples[TOY_SAMPLES], uint64_t seed)
{
    for (int s = 0; s < TOY_SAMPLES; s++) {
        uint64_t key = rng_key(seed * TOY_SAMPLES + (uint64_t)s, "toy");
        Sample *sample = &samples[s];
        *sample = (Sample){.position = s, .length = 1 + (int32_t)rng_below(key, 0, 20)};
        sample->token = mem_calloc((size_t)sample->length, sizeof *sample->token);
        sample->loss_mask = mem_calloc((size_t)sample->length, 1);
        for (int32_t t = 0; t < sample->length; t++) {
            sample->token[t] = (int32_t)rng_below(key, 1 + (uint64_t)t, 131);
            sample->loss_mask[t] = t > 0 && rng_below(key, 100 + (uint64_t)t, 3) > 0;
        }
    }
}

void toy_samples_clear(Sample samples[TOY_SAMPLES])
{
    for (int s = 0; s < TOY_SAMPLES; s++)
        sample_clear(&samples[s]);
}

int64_t toy_trained_tokens(const Sample *samples, int count)
{
    int64_t trained = 0;
    for (int s = 0; s < count; s++)
        for (int32_t t = 0; t < samples[s].length; t++)
            trained += samples[s].loss_mask[t];
    return trained;
}

void toy_roll_out(Trainer *trainer, float temperature, int64_t weight_version, ToyRollout *ret)
{
    Error err = {0};
    StepResult result = {0};
    toy_samples_make(ret->sample, 3);
    ret->trained_tokens = toy_trained_tokens(ret->sample, TOY_SAMPLES);
    for (int s = 0; s < TOY_SAMPLES; s++) {
        Sample *sample = &ret->sample[s];
        float number[32], *numbers[] = {number};
        float *const *lists[] = {numbers};
        const Sample *alone[] = {sample};
        MicroBatch batch = {alone, 1};
        int used = 0;
        sample->position = s / 2;
        sample->index = s % 2;
        sample->prompt_length = 1;
        sample->temperature = temperature;
        sample->weight_version = weight_version;
        sample->reward = s % 4 == 0 ? 1.0f : 0.25f;
        rank_ok(trainer_log_probs(trainer, WEIGHTS_CURRENT, &batch, 1, lists, &result, &err), &err);
        sample->log_prob = mem_calloc((size_t)sample->length, sizeof *sample->log_prob);
        for (int32_t t = 1; t < sample->length; t++)
            if (sample->loss_mask[t]) sample->log_prob[t] = number[used++];
        ret->meta[s] = sample_meta(sample);
        ret->pointer[s] = sample;
    }
}

static int deal(const Ranks *ranks, const Sample samples[TOY_SAMPLES], int size,
                const Sample *pointers[TOY_SAMPLES], MicroBatch batches[TOY_SAMPLES])
{
    int mine = 0, count = 0;
    for (int s = ranks->dp_rank; s < TOY_SAMPLES; s += ranks->dp_size)
        pointers[mine++] = &samples[s];
    for (int first = 0; first < mine; first += size) {
        int n = mine - first < size ? mine - first : size;
        batches[count++] = (MicroBatch){.sample = pointers + first, .num_samples = n};
    }
    return count;
}

void toy_train(Trainer *trainer, const Ranks *ranks, int first, int last, int size,
               double *ret_loss)
{
    Error err = {0};
    for (int i = first; i <= last; i++) {
        Sample samples[TOY_SAMPLES];
        const Sample *pointers[TOY_SAMPLES];
        MicroBatch batches[TOY_SAMPLES];
        StepResult result;
        toy_samples_make(samples, (uint64_t)i);
        TrainStep step = {.micro_batch = batches, .step = i, .lr = 1e-2};
        step.num_micro_batches = deal(ranks, samples, size, pointers, batches);
        step.trained_tokens = toy_trained_tokens(samples, TOY_SAMPLES);
        rank_ok(trainer_train_step(trainer, &step, &result, &err), &err);
        double loss = result.loss_sum;
        if (ranks->dp_size > 1)
            rank_ok(comm_all_reduce_f64(ranks->data_comm, &loss, 1, COMM_SUM, &err), &err);
        if (ret_loss != NULL) *ret_loss += loss / (double)step.trained_tokens;
        toy_samples_clear(samples);
    }
}

static void append(void *context, const void *bytes, size_t length)
{
    char **at = context;
    memcpy(*at, bytes, length);
    *at += length;
}

void toy_gather(const Trainer *trainer, const void *flat, DType dtype, void *out)
{
    Error err = {0};
    char *at = out;
    if (trainer->dp_rank != 0) return;
    WeightGather gather = {
        trainer->options.kernels, trainer->plan, trainer->options.tensor_comm, 0, append, &at};
    for (int s = 0; s < trainer->plan->num_specs; s++) {
        const WeightSpec *spec = &trainer->plan->spec[s];
        const char *part = (const char *)flat + (size_t)spec->offset * dtype_size(dtype);
        rank_ok(weight_gather(&gather, spec, part, dtype, &err), &err);
    }
}

/* ---- folders ---- */

typedef struct Places {
    SafetensorsPlace place[512];
    int count;
} Places;

static Status add_places(Places *places, const char *folder, const char *file, Error *err)
{
    SafetensorsReader *reader = NULL;
    char *path = path_join(folder, file);
    Status status = safetensors_open(path, "", &reader, err);
    free(path);
    for (int i = 0; status == OK && i < safetensors_count(reader); i++) {
        Tensor tensor;
        const char *name = safetensors_name(reader, i);
        status = safetensors_describe(reader, name, &tensor, err);
        if (status != OK) break;
        places->place[places->count++] =
            (SafetensorsPlace){mem_strdup(name), mem_strdup(file), (int64_t)tensor_bytes(&tensor)};
    }
    safetensors_close(reader);
    return status;
}

Status toy_write_index(const char *folder, const char *stem, Error *err)
{
    Places places = {0};
    Status status = OK;
    char *text = NULL, *begin = mem_printf("%s-", stem);
    char *path = mem_printf("%s/%s.safetensors.index.json", folder, stem);
    size_t length = 0;
    DIR *listing = opendir(folder);
    CHECK(listing != NULL);
    for (struct dirent *entry; status == OK && (entry = readdir(listing)) != NULL;)
        if (strncmp(entry->d_name, begin, strlen(begin)) == 0)
            status = add_places(&places, folder, entry->d_name, err);
    closedir(listing);
    if (status == OK)
        status = safetensors_index_text(places.place, places.count, &text, &length, err);
    if (status == OK) status = file_write_atomic(path, text, length, err);
    for (int i = 0; i < places.count; i++) {
        free((char *)places.place[i].tensor);
        free((char *)places.place[i].file);
    }
    free(text);
    free(path);
    free(begin);
    return status;
}

void toy_save(Trainer *trainer, const char *folder, SavedFiles *ret_files)
{
    Error err = {0};
    SavedFiles files = {0};
    rank_ok(trainer_save(trainer, folder, &files, &err), &err);
    const char *prefix = trainer->options.model.value_head ? "critic_" : "";
    const char *const kinds[] = {"model", "optimizer"};
    for (int i = 0; i < 2; i++) {
        char *stem = mem_printf("%s%s", prefix, kinds[i]);
        rank_ok(toy_write_index(folder, stem, &err), &err);
        free(stem);
    }
    if (ret_files != NULL)
        *ret_files = files;
    else
        saved_files_clear(&files);
}

void toy_fresh_folder(const char *folder)
{
    Error err = {0};
    assert_ok(folder_remove(folder, &err), &err);
    assert_ok(folder_create(folder, &err), &err);
}
