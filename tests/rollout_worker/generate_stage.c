#include "generate_stage.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "test.h"

/* ---- the stage ---- */

static void write_lines(const char *path, const char *const *lines, int count)
{
    Error err = {0};
    Str text = {0};
    for (int i = 0; i < count; i++)
        str_printf(&text, "%s\n", lines[i]);
    assert_ok(file_write_atomic(path, text.data, text.length, &err), &err);
    str_free(&text);
}

void generation_begin(Stage *stage, const char *folder, const char *const *lines, int count)
{
    Error err = {0};
    JobConfig *config = &stage->config;
    assert_ok(folder_remove(folder, &err), &err);
    assert_ok(folder_create(folder, &err), &err);
    stage->train_path = path_join(folder, "train.jsonl");
    write_lines(stage->train_path, lines, count);
    stage->table = &rollout_generate;
    config->name = "generate";
    stage->run_dir = path_join(folder, "run");
    config->run_dir = stage->run_dir;
    config->seed = 11;
    config->model.init = INIT_RANDOM;
    config->model.config = TINY "/config.json";
    config->model.tokenizer = TINY;
    config->data.train = config->data.eval = (StringList){&stage->train_path, 1};
    config->data.label_key = "label";
    config->data.tool_key = "tools";
    config->data.metadata_key = "metadata";
    config->data.max_length = 100;
    config->rollout.function = ROLLOUT_GENERATE;
    config->rollout.reward = "\"random\"";
    config->rollout.n_samples_per_prompt = GENERATION_GROUP;
    config->rollout.max_response_length = 20;
    config->rollout.temperature = config->rollout.top_p = 1.0;
    config->rollout.penalty.repetition = config->eval.penalty.repetition = 1.0;
    config->rollout.concurrency = 4 * GENERATION_GROUP;
    config->rollout.unjudged_max = 32;
    config->eval.n_samples_per_prompt = 2;
    config->eval.max_response_length = 5;
    config->eval.top_p = 1.0;
    config->train.tp_size = 1;
    config->cluster.cpus_per_rollout_worker = 1;
    stage_begin(stage);
    worker_start(stage, 64 << 20);
}

void generation_end(Stage *stage)
{
    worker_stop(stage);
    stage_end(stage);
    free(stage->train_path);
    free(stage->run_dir);
    free(stage);
}

void worker_restart(Stage *stage)
{
    worker_stop(stage);
    worker_start(stage, 64 << 20);
}

/* ---- calls ---- */

void ask_adopt(Stage *stage, Boards *boards, uint64_t version, bool restart, Answer *ret)
{
    Troupe__AdoptRequest request = TROUPE__ADOPT_REQUEST__INIT;
    ProtobufCBinaryData board[2];
    for (int r = 0; r < boards->tp_size; r++)
        board[r] = (ProtobufCBinaryData){sizeof boards->id[r], (uint8_t *)boards->id[r].bytes};
    request.version = version;
    request.restart = restart;
    request.n_board = (size_t)boards->tp_size;
    request.board = board;
    ask(stage->loop, stage->handle, "rollout.adopt", &request.base, 20000, ret);
}

void adopt(Stage *stage, Boards *boards, uint64_t version, bool restart)
{
    Answer answer;
    ask_adopt(stage, boards, version, restart, &answer);
    await(&answer);
    if (answer.status != OK) fail_msg("%s", answer.err.message);
    Troupe__AdoptReply *reply =
        troupe__adopt_reply__unpack(NULL, answer.body_length, (uint8_t *)answer.body);
    assert_non_null(reply);
    assert_true(reply->wait_s >= 0 && reply->pause_s >= 0);
    troupe__adopt_reply__free_unpacked(reply, NULL);
    answer_free(&answer);
}

/* Boards with version 1, adopted. */
void adopt_first(Stage *stage, Boards *boards)
{
    boards_open(boards, (int)stage->config.train.tp_size);
    boards_publish(boards, 1, 100);
    adopt(stage, boards, 1, false);
}

void start_lease(Stage *stage, const char *set, uint64_t first, uint32_t count, Answer *ret)
{
    Troupe__LeaseRequest request = lease_of(stage, first, count);
    request.set = (char *)set;
    ask(stage->loop, stage->handle, "rollout.run", &request.base, 60000, ret);
}

/* Waits for a lease; NULL when it failed. */
Troupe__LeaseReply *finish_lease(Answer *answer)
{
    await(answer);
    Troupe__LeaseReply *reply =
        answer->status == OK
            ? troupe__lease_reply__unpack(NULL, answer->body_length, (uint8_t *)answer->body)
            : NULL;
    answer_free(answer);
    return reply;
}

Troupe__LeaseReply *lease(Stage *stage, const char *set, uint64_t first, uint32_t count)
{
    Answer answer;
    start_lease(stage, set, first, count, &answer);
    Troupe__LeaseReply *reply = finish_lease(&answer);
    if (reply == NULL) fail_msg("%s: %s", status_name(answer.status), answer.err.message);
    return reply;
}

void lease_train(Stage *stage, uint64_t first, uint32_t count)
{
    troupe__lease_reply__free_unpacked(lease(stage, "train", first, count), NULL);
}

void fetch(Stage *stage, const char *set, uint64_t position, uint32_t index, Sample *ret)
{
    Error err = {0};
    Answer answer;
    Troupe__FetchRequest request = TROUPE__FETCH_REQUEST__INIT;
    Troupe__SampleRef ref = TROUPE__SAMPLE_REF__INIT, *refs[] = {&ref};
    ref.position = position;
    ref.index = index;
    request.set = (char *)set;
    request.refs = refs;
    request.n_refs = 1;
    ask(stage->loop, stage->handle, "rollout.fetch", &request.base, 20000, &answer);
    await(&answer);
    if (answer.status != OK) fail_msg("%s", answer.err.message);
    assert_ok(sample_unpack((uint8_t *)answer.attachment, answer.attachment_length, ret, &err),
              &err);
    answer_free(&answer);
}

static void stop_loop(void *loop)
{
    loop_stop(loop);
}

void turn_once(Stage *stage)
{
    LoopTimer *timer = loop_add_timer(stage->loop, 5, 5, stop_loop, stage->loop);
    loop_run(stage->loop);
    loop_remove_timer(timer);
}

void turn_until(Stage *stage, const char *waiting_for)
{
    char doing[64], waiting[128] = "";
    while (strstr(waiting, waiting_for) == NULL) {
        turn_once(stage);
        rollout_service_describe(stage->service, doing, sizeof doing, waiting, sizeof waiting);
    }
}

void turn_until_trouble(Stage *stage, const char *text)
{
    char told[TROUBLE_TEXT_BYTES] = "";
    int64_t end_ms = clock_ms() + 30000;
    while (told[0] == '\0' && clock_ms() < end_ms) {
        turn_once(stage);
        rollout_service_trouble(stage->service, told, sizeof told);
    }
    if (strstr(told, text) == NULL) fail_msg("%s", told);
}
