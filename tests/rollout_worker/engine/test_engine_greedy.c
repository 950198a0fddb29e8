/* Greedy samples against transformers' generate on tiny models, all in one engine, on one and two
 * ranks. greedy.json: make_greedy.py. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "ranks.h"
#include "rollout_worker/engine/engine.h"
#include "trainer_state.h"

#define LENGTH_MAX 64

typedef struct Job {
    const char *name;
    const cJSON *samples, *ends;
    int new_tokens;
} Job;

static Trainer *load_model(const Ranks *ranks, const char *name)
{
    Error err = {0};
    Trainer *trainer = NULL;
    char folder[600];
    snprintf(folder, sizeof folder, "%s/model/golden/%s", TEST_SOURCE_DIR, name);
    TrainerOptions options = {
        .dtype = DTYPE_F32,
        .max_tokens = LENGTH_MAX,
        .max_sequence_length = LENGTH_MAX,
        .kernels = ranks->kernels,
        .tensor_comm = ranks->tensor_comm,
    };
    rank_ok(model_config_read(folder, &options.model, &err), &err);
    rank_ok(trainer_create(&options, &trainer, &err), &err);
    rank_ok(trainer_load(trainer, folder, &err), &err);
    return trainer;
}

static void submit(Engine *engine, const Job *job, int number)
{
    Error err = {0};
    int32_t token[LENGTH_MAX], ends[8];
    const cJSON *sample = cJSON_GetArrayItem(job->samples, number);
    const cJSON *prompt = cJSON_GetObjectItem(sample, "prompt");
    GenerateRequest request = {.id = (uint64_t)number,
                               .num_samples = 2, /* equal ones: the noise does not count */
                               .prompt = token,
                               .prompt_length = cJSON_GetArraySize(prompt),
                               .params = sampling_defaults()};
    for (int i = 0; i < request.prompt_length; i++)
        token[i] = cJSON_GetArrayItem(prompt, i)->valueint;
    for (int i = 0; i < cJSON_GetArraySize(job->ends); i++)
        ends[i] = cJSON_GetArrayItem(job->ends, i)->valueint;
    request.params.temperature = 0.0;
    request.params.top_p = 0.5; /* of no effect */
    request.params.max_new_tokens = job->new_tokens;
    request.params.stop_token_id = ends;
    if (cJSON_IsTrue(cJSON_GetObjectItem(sample, "with_ends")))
        request.params.num_stop_token_ids = cJSON_GetArraySize(job->ends);
    rank_ok(engine_submit(engine, &request, &err), &err);
}

static void check_result(const Job *job, const Generation *generation)
{
    const cJSON *sample = cJSON_GetArrayItem(job->samples, (int)generation->request);
    const cJSON *token = cJSON_GetObjectItem(sample, "token");
    rank_check(cJSON_GetArraySize(token) == generation->length);
    for (int i = 0; i < generation->length; i++)
        rank_check(cJSON_GetArrayItem(token, i)->valueint == generation->token[i]);
    rank_check((generation->finish == FINISH_LENGTH) == (generation->length == job->new_tokens));
}

static void greedy_body(const Ranks *ranks, void *argument)
{
    const Job *job = argument;
    Error err = {0};
    Engine *engine = NULL;
    Generation generation;
    int count = cJSON_GetArraySize(job->samples), taken = 0;
    Trainer *trainer = load_model(ranks, job->name);
    EngineOptions options = {.weights = trainer->weights,
                             .tensor_comm = ranks->tensor_comm,
                             .max_length = LENGTH_MAX,
                             .max_samples = 7,
                             .max_step_tokens = 20,
                             .kv_bytes = 1 << 20};
    rank_ok(engine_create(&options, &engine, &err), &err);
    for (int i = 0; i < count && ranks->tp_rank == 0; i++)
        submit(engine, job, i);
    for (bool busy = true, done = false; ranks->tp_rank == 0 ? busy : !done;)
        rank_ok(ranks->tp_rank == 0 ? engine_step(engine, &busy, &err)
                                    : engine_follow(engine, &done, &err),
                &err);
    for (; ranks->tp_rank == 0 && engine_take(engine, &generation); taken++) {
        check_result(job, &generation);
        generation_clear(&generation);
    }
    rank_check(ranks->tp_rank > 0 || taken == 2 * count);
    engine_destroy(engine);
    trainer_destroy(trainer);
}

static void test_greedy_samples_are_those_of_transformers(void **state)
{
    (void)state;
    Error err = {0};
    cJSON *json = NULL;
    const cJSON *samples;
    char path[600];
    snprintf(path, sizeof path, "%s/rollout_worker/engine/greedy.json", TEST_SOURCE_DIR);
    assert_ok(json_read(path, 1 << 20, &json, &err), &err);
    cJSON_ArrayForEach(samples, cJSON_GetObjectItem(json, "cases"))
    {
        Job job = {samples->string, samples, cJSON_GetObjectItem(json, "ends"),
                   cJSON_GetObjectItem(json, "new_tokens")->valueint};
        ranks_run(1, 1, greedy_body, &job);
        ranks_run(2, 1, greedy_body, &job);
    }
    cJSON_Delete(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_samples_are_those_of_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
