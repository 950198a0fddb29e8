/* The samples of plans over real sockets: pulled from their holders, whoever those are and however
 * many have come and gone. */
#include "test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/memory.h"
#include "base/process.h"
#include "base/str.h"
#include "plan_store.h"
#include "tests/data_source/ask.h"
#include "train.pb-c.h"

/* ---- holders: samples whose tokens tell the position ---- */

static void on_fetch_samples(void *self, Call *call)
{
    (void)self;
    Bytes body = call_body(call);
    Troupe__FetchRequest *request = troupe__fetch_request__unpack(NULL, body.length, body.data);
    assert_non_null(request);
    Troupe__FetchReply reply = TROUPE__FETCH_REPLY__INIT;
    uint32_t *lengths = mem_calloc(request->n_refs, sizeof *lengths);
    Str attachment = {0};
    reply.length = lengths;
    for (size_t i = 0; i < request->n_refs; i++) {
        int32_t token[2] = {7, (int32_t)request->refs[i]->position};
        uint8_t mask[2] = {0, 1}, *bytes = NULL;
        size_t length = 0;
        Sample sample = {.position = (int64_t)request->refs[i]->position,
                         .length = 2,
                         .prompt_length = 1,
                         .token = token,
                         .loss_mask = mask};
        sample_pack(&sample, &bytes, &length);
        str_append(&attachment, bytes, length);
        lengths[reply.n_length++] = (uint32_t)length;
        free(bytes);
    }
    uint8_t packed[256];
    call_reply(call, (Bytes){packed, troupe__fetch_reply__pack(&reply, packed)},
               (Bytes){(uint8_t *)attachment.data, attachment.length});
    str_free(&attachment);
    free(lengths);
    troupe__fetch_request__free_unpacked(request, NULL);
}

/* ---- a rank and its controller on one loop ---- */

typedef struct Stage {
    Loop *loop;
    PlanStore *store;
    Actor *rank;
    Handle *handle; /* to the rank */
    uint64_t plans;
} Stage;

static void on_fetch_plan(void *self, Call *call)
{
    plan_store_fetch(((Stage *)self)->store, call);
}

static Actor *make_actor(Stage *stage, const char *endpoint, const ActorMethod *method, void *self)
{
    ActorOptions options = {.identity = {.name = "a", .job = 5, .incarnation = 10},
                            .endpoint = endpoint,
                            .methods = method,
                            .num_methods = 1,
                            .self = self};
    Actor *actor = NULL;
    Error err = {0};
    assert_ok(actor_create(stage->loop, &options, &actor, &err), &err);
    return actor;
}

static Actor *make_holder(Stage *stage, int number, char endpoint[ENDPOINT_MAX])
{
    static const ActorMethod method = {"rollout.fetch", on_fetch_samples};
    snprintf(endpoint, ENDPOINT_MAX, "ipc:///tmp/troupe-plans-%d-%d.sock", (int)getpid(), number);
    return make_actor(stage, endpoint, &method, NULL);
}

static int stage_open(void **state)
{
    static const ActorMethod method = {"train.fetch", on_fetch_plan};
    Stage *stage = mem_calloc(1, sizeof *stage);
    ActorIdentity self = {.name = "train-0", .job = 5, .incarnation = 11};
    Error err = {0};
    char endpoint[ENDPOINT_MAX];
    snprintf(endpoint, sizeof endpoint, "ipc:///tmp/troupe-rank-%d.sock", (int)getpid());
    assert_ok(loop_create(&stage->loop, &err), &err);
    stage->store = plan_store_create(stage->loop, &self);
    stage->rank = make_actor(stage, endpoint, &method, stage);
    assert_ok(handle_open(stage->loop, &self, "train-0", endpoint, &stage->handle, &err), &err);
    *state = stage;
    return 0;
}

static int stage_close(void **state)
{
    Stage *stage = *state;
    handle_close(stage->handle);
    plan_store_destroy(stage->store);
    actor_destroy(stage->rank);
    loop_destroy(stage->loop);
    free(stage);
    return 0;
}

/* A plan of one sample from each holder, at positions first, first + 1 ... Returns its id, with the
 * number of holders that were lost. */
static uint64_t fetch(Stage *stage, char *const *endpoint, int count, int first, size_t *ret_lost)
{
    Troupe__FetchPlan request = TROUPE__FETCH_PLAN__INIT;
    Troupe__MicroBatch micro_batch = TROUPE__MICRO_BATCH__INIT, *batches[] = {&micro_batch};
    Troupe__PlannedSample *sample = mem_calloc((size_t)count, sizeof *sample);
    Troupe__PlannedSample **list = mem_calloc((size_t)count, sizeof *list);
    for (int i = 0; i < count; i++) {
        troupe__planned_sample__init(&sample[i]);
        sample[i].position = (uint64_t)(first + i);
        sample[i].holder = (uint32_t)i;
        sample[i].source = (uint32_t)(first + i) % 5;
        list[i] = &sample[i];
    }
    micro_batch.n_samples = (size_t)count;
    micro_batch.samples = list;
    request.plan = ++stage->plans;
    request.set = "train";
    request.n_holders = (size_t)count;
    request.holders = (char **)endpoint;
    request.n_micro_batches = 1;
    request.micro_batches = batches;
    Answer answer;
    ask(stage->loop, stage->handle, "train.fetch", &request.base, 20000, &answer);
    await(&answer);
    assert_ok(answer.status, &answer.err);
    Troupe__FetchPlanReply *reply =
        troupe__fetch_plan_reply__unpack(NULL, answer.body_length, (const uint8_t *)answer.body);
    assert_non_null(reply);
    *ret_lost = reply->n_lost_holders;
    troupe__fetch_plan_reply__free_unpacked(reply, NULL);
    answer_free(&answer);
    free(list);
    free(sample);
    return request.plan;
}

static void assert_taken(Stage *stage, uint64_t plan, int first, int count)
{
    FetchedPlan *fetched = NULL;
    Error err = {0};
    assert_ok(plan_store_take(stage->store, plan, &fetched, &err), &err);
    assert_int_equal(fetched->num_samples, count);
    for (int i = 0; i < count; i++) {
        assert_int_equal(fetched->sample[i].token[1], first + i);
        assert_int_equal(fetched->source[i], (first + i) % 5);
    }
    fetched_plan_destroy(fetched);
}

static int count_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

/* ---- tests ---- */

static void test_plan_store_forgets_holders_that_come_and_go(void **state)
{
    Stage *stage = *state;
    char endpoint[ENDPOINT_MAX], *list[] = {endpoint};
    size_t lost = 0;
    int descriptors = 0;
    for (int i = 0; i < 300; i++) {
        Actor *holder = make_holder(stage, i, endpoint);
        uint64_t plan = fetch(stage, list, 1, i, &lost);
        assert_int_equal(lost, 0);
        assert_taken(stage, plan, i, 1);
        actor_destroy(holder);
        if (i == 50) descriptors = count_descriptors();
    }
    /* Neither is anybody dialled who has been dead for long: each would take several. */
    assert_true(count_descriptors() < descriptors + 350);
}

static void test_plan_store_takes_from_hundreds_of_holders(void **state)
{
    Stage *stage = *state;
    enum { HOLDERS = 300 };
    process_raise_file_limit();
    Actor *holder[HOLDERS];
    char *endpoint[HOLDERS];
    size_t lost = 0;
    for (int i = 0; i < HOLDERS; i++) {
        endpoint[i] = mem_alloc(ENDPOINT_MAX);
        holder[i] = make_holder(stage, i, endpoint[i]);
    }
    for (int turn = 0; turn < 3; turn++) {
        uint64_t plan = fetch(stage, endpoint, HOLDERS, turn * HOLDERS, &lost);
        assert_int_equal(lost, 0);
        assert_taken(stage, plan, turn * HOLDERS, HOLDERS);
    }
    for (int i = 0; i < HOLDERS; i++) {
        actor_destroy(holder[i]);
        free(endpoint[i]);
    }
}

/* A holder that has died is named; when it is back (at its place or another) it serves. */
static void test_plan_store_names_a_lost_holder_and_takes_it_back(void **state)
{
    Stage *stage = *state;
    char there[ENDPOINT_MAX], gone[ENDPOINT_MAX], *list[] = {there, gone};
    size_t lost = 0;
    Actor *holder = make_holder(stage, 0, there), *dying = make_holder(stage, 1, gone);
    assert_taken(stage, fetch(stage, list, 2, 0, &lost), 0, 2);
    actor_destroy(dying);
    uint64_t plan = fetch(stage, list, 2, 10, &lost);
    assert_int_equal(lost, 1);
    FetchedPlan *fetched = NULL;
    assert_int_equal(plan_store_take(stage->store, plan, &fetched, NULL), ERR_NOT_FOUND);
    dying = make_holder(stage, 1, gone);
    assert_taken(stage, fetch(stage, list, 2, 20, &lost), 20, 2);
    assert_int_equal(lost, 0);
    actor_destroy(dying);
    actor_destroy(holder);
}

#define STAGED(test) cmocka_unit_test_setup_teardown(test, stage_open, stage_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STAGED(test_plan_store_forgets_holders_that_come_and_go),
        STAGED(test_plan_store_takes_from_hundreds_of_holders),
        STAGED(test_plan_store_names_a_lost_holder_and_takes_it_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
