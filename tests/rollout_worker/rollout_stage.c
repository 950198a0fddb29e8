#include "rollout_stage.h"

#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"

Actor *make_actor(Stage *stage, const char *name, const char *endpoint, const ActorMethod *methods,
                  int num_methods, void *self)
{
    ActorOptions options = {
        .identity = {.job = 5, .generation = 1, .incarnation = 10},
        .endpoint = endpoint,
        .methods = methods,
        .num_methods = num_methods,
        .self = self,
    };
    snprintf(options.identity.name, sizeof options.identity.name, "%s", name);
    Actor *actor = NULL;
    Error err = {0};
    assert_ok(actor_create(stage->loop, &options, &actor, &err), &err);
    return actor;
}

void source_start(Stage *stage)
{
    stage->config.data.reader_threads = 2;
    stage->source = data_service_create(stage->loop, &stage->config);
    stage->source_actor = make_actor(stage, "data-0", stage->source_endpoint, data_service_methods,
                                     data_service_num_methods, stage->source);
}

void source_stop(Stage *stage)
{
    actor_destroy(stage->source_actor);
    data_service_destroy(stage->source);
    stage->source_actor = NULL;
    stage->source = NULL;
}

void stage_begin(Stage *stage)
{
    Error err = {0};
    stage->worker =
        (ActorIdentity){.name = "rollout-0", .job = 5, .generation = 1, .incarnation = 11};
    snprintf(stage->source_endpoint, ENDPOINT_MAX, "ipc:///tmp/troupe-source-%d.sock",
             (int)getpid());
    snprintf(stage->worker_endpoint, ENDPOINT_MAX, "ipc:///tmp/troupe-worker-%d.sock",
             (int)getpid());
    assert_ok(loop_create(&stage->loop, &err), &err);
    source_start(stage);
}

void stage_end(Stage *stage)
{
    source_stop(stage);
    loop_destroy(stage->loop);
}

void worker_start(Stage *stage, size_t store_bytes_max)
{
    Error err = {0};
    RolloutServiceOptions options = {
        .loop = stage->loop,
        .identity = &stage->worker,
        .config = &stage->config,
        .table = stage->table,
        .threads = 3,
        .store_bytes_max = store_bytes_max,
        .lost = stage->lost,
        .context = stage,
    };
    assert_ok(rollout_service_create(&options, &stage->service, &err), &err);
    stage->worker_actor =
        make_actor(stage, "rollout-0", stage->worker_endpoint, rollout_service_methods,
                   rollout_service_num_methods, stage->service);
    ActorIdentity self = {.name = "caller", .job = 5, .generation = 1, .incarnation = 12};
    assert_ok(
        handle_open(stage->loop, &self, "rollout-0", stage->worker_endpoint, &stage->handle, &err),
        &err);
}

void worker_stop(Stage *stage)
{
    handle_close(stage->handle);
    rollout_service_destroy(stage->service);
    actor_destroy(stage->worker_actor);
}

Troupe__LeaseRequest lease_of(const Stage *stage, uint64_t first, uint32_t count)
{
    Troupe__LeaseRequest request = TROUPE__LEASE_REQUEST__INIT;
    request.set = "train";
    request.first = first;
    request.count = count;
    request.data_source = (char *)stage->source_endpoint;
    return request;
}

void run_lease(Stage *stage, uint64_t first, uint32_t count, Troupe__LeaseReply **ret)
{
    Troupe__LeaseRequest request = lease_of(stage, first, count);
    Answer answer;
    do {
        *ret = ask_run(stage->loop, stage->handle, &request, &answer);
        answer_free(&answer);
    } while (*ret == NULL && answer.status == ERR_UNAVAILABLE);
    if (*ret == NULL) fail_msg("%s: %s", status_name(answer.status), answer.err.message);
}

void release(Stage *stage, uint64_t below)
{
    Troupe__ReleaseRequest request = TROUPE__RELEASE_REQUEST__INIT;
    request.set = "train";
    request.below = below;
    Answer answer;
    ask(stage->loop, stage->handle, "rollout.release", &request.base, 20000, &answer);
    await(&answer);
    assert_int_equal(answer.status, OK);
    answer_free(&answer);
}

char *fetch_one(Stage *stage, uint64_t position, size_t *ret_length, Answer *answer)
{
    Troupe__FetchReply *reply =
        ask_fetch(stage->loop, stage->handle, "train", &position, 1, answer);
    if (reply == NULL) return NULL;
    assert_int_equal(reply->n_length, 1);
    assert_int_equal(reply->length[0], answer->attachment_length);
    *ret_length = answer->attachment_length;
    char *bytes = mem_strndup(answer->attachment, answer->attachment_length);
    troupe__fetch_reply__free_unpacked(reply, NULL);
    answer_free(answer);
    return bytes;
}
