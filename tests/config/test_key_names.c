/* Keys that are written wrong, or as other systems call them. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/str.h"
#include "config/job_internal.h"
#include "config/job_text.h"

static void test_config_unknown_key_gives_place_and_nearest_name(void **state)
{
    (void)state;
    REFUSED("train:\n  lr: 1\n  leraning_rate: 1\n", "job.yaml:3:3: train.leraning_rate",
            "Did you mean train.lr");
    REFUSED("train:\n  learning_rate: 1\n", "job.yaml:2:3: train.learning_rate",
            "Did you mean train.lr (a number above 0");
    REFUSED("train:\n  global_batchsize: 8\n", "Did you mean train.global_batch_size");
    REFUSED("lr: 1\n", "job.yaml:1:1: lr", "Did you mean train.lr");
    REFUSED("train: {seed: 1}\n", "job.yaml:1:9: train.seed", "Did you mean seed");
    REFUSED("trian:\n  lr: 1\n", "job.yaml:1:1: trian", "the section train");
    REFUSED("train.lr: 1\n", "job.yaml:1:1: train.lr", "Did you mean train.lr");
    REFUSED("zzz: 1\n", "Valid here: model, data");
    REFUSED("model:\n  zzz: 1\n", "job.yaml:2:3: model.zzz", "Valid here: path, init");
    REFUSED("checkpoint: {save_interval: 3}\n", "Did you mean checkpoint.interval");
    REFUSED("? [a]\n: b\n", "job.yaml:1:3", "name of a key");
    REFUSED("model: {name: x}\n", "Did you mean model.path");
    REFUSED("eval: {steps: 5}\n", "Did you mean eval.interval");
}

/* A name that means something else elsewhere, or the same in another unit, is not given as if it
 * were this one's. */
static void test_config_says_what_to_write_for_keys_of_other_systems(void **state)
{
    (void)state;
    REFUSED("train:\n  gradient_accumulation_steps: 4\n",
            "job.yaml:2:3: train.gradient_accumulation_steps is not a key",
            "train.global_batch_size needs");
    REFUSED("train: {per_device_train_batch_size: 4}\n", "over all ranks");
    REFUSED("cluster: {distributed_timeout_minutes: 5}\n", "in seconds: times 60.");
    REFUSED("train: {warmup_ratio: 0.1}\n", "train.warmup_steps: a number of steps");
    REFUSED("eval: {skip_eval_before_train: true}\n", "the opposite");
    REFUSED("world_size: 8\n", "train.tp_size times train.dp_size");
    REFUSED("train: {bf16: true}\n", "model.dtype: bf16");
}

/* Each name of another system is either that of a key or explained, never both. */
static void test_config_names_of_other_systems_lead_to_one_place(void **state)
{
    (void)state;
    for (int f = 0; f < num_job_foreign; f++) {
        char *names = mem_strdup(job_foreign[f].names), *rest = NULL;
        for (char *name = strtok_r(names, " ", &rest); name; name = strtok_r(NULL, " ", &rest))
            for (int i = 0; i < config_num_keys(&job_table); i++)
                if (config_word_in(config_key(&job_table, i)->also, name))
                    fail_msg("%s stands for %s and is explained too", name,
                             config_key(&job_table, i)->path);
        free(names);
        assert_true(strlen(job_foreign[f].advice) > 10);
        assert_false(str_ends_with(job_foreign[f].advice, "."));
    }
}

static void test_config_names_of_slimes_may_stand_for_ours(void **state)
{
    (void)state;
    JobConfig *config =
        parse_job("model: {path: /m}\n"
                  "data: {train: /d.jsonl, order: hf, hf_dataset_shuffle_buffer: 500, "
                  "num_proc: 3}\n");
    assert_int_equal(config->data.order.hf_buffer_size, 500);
    assert_int_equal(config->data.reader_threads, 3);
    job_config_destroy(config);
    REFUSED("data:\n  reader_threads: 2\n  num_proc: 3\n", "data.reader_threads is set twice",
            "line 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_unknown_key_gives_place_and_nearest_name),
        cmocka_unit_test(test_config_says_what_to_write_for_keys_of_other_systems),
        cmocka_unit_test(test_config_names_of_other_systems_lead_to_one_place),
        cmocka_unit_test(test_config_names_of_slimes_may_stand_for_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
