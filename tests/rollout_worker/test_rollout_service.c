/* Tests of the rollout worker's answers over real sockets, with the real data source beside it and
 * a rollout function that makes the record's bytes its tokens: order, repetition, holding and
 * releasing, pieces, and data sources that fail in every way. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_stage.h"

#define FOLDER "rollout-service"

/* ---- the rollout function ---- */

static Status echo_open(const JobConfig *config, void **ret_shared, Error *err)
{
    if (config->name == NULL) return error_set(err, ERR_NOT_FOUND, "no name");
    *ret_shared = NULL;
    return OK;
}

static void echo_close(void *shared)
{
    (void)shared;
}

static void *echo_open_thread(const void *shared)
{
    (void)shared;
    return NULL;
}

/* Tokens are the bytes; "#..." is refused, and "?..." takes its time, so that later records are
 * done before. */
/* Of a text in quotes, or of one so long that nobody asks what it is. */
static char kind_of(const RolloutRecord *record)
{
    return record->text[record->text[0] == '"' ? 1 : 0];
}

static void echo(const RolloutRecord *record, Sample *ret)
{
    if (record->error[0] != '\0' || kind_of(record) == '#') {
        ret->status = SAMPLE_REJECTED;
        ret->reject_reason = REJECT_BAD_RECORD;
        ret->reject_message = mem_printf("%s: refused%s", record->source, record->error);
        return;
    }
    if (kind_of(record) == '?') usleep(20000);
    ret->length = (int32_t)record->length;
    ret->prompt_length = 1;
    ret->token = mem_calloc(record->length, sizeof *ret->token);
    ret->loss_mask = mem_calloc(record->length, 1);
    for (size_t i = 0; i < record->length; i++) {
        ret->token[i] = (unsigned char)record->text[i];
        ret->loss_mask[i] = i > 0;
    }
}

static Status echo_run(void *shared, void *scratch, const RolloutRecord *record, RolloutGroup *ret,
                       Error *err)
{
    (void)shared, (void)scratch, (void)err;
    echo(record, rollout_group_add(ret, record));
    return OK;
}

static const RolloutTable echo_table = {
    .name = "echo",
    .open = echo_open,
    .close = echo_close,
    .open_thread = echo_open_thread,
    .close_thread = echo_close,
    .run = echo_run,
};

/* ---- the stage ---- */

static void write_train(const char *text, size_t length)
{
    Error err = {0};
    assert_ok(file_write_atomic(FOLDER "/train.jsonl", text, length, &err), &err);
}

static int stage_open(void **state)
{
    Error err = {0};
    Stage *stage = mem_calloc(1, sizeof *stage);
    *state = stage;
    assert_ok(folder_remove(FOLDER, &err), &err);
    assert_ok(folder_create(FOLDER, &err), &err);
    Str text = {0};
    for (int i = 0; i < 100; i++)
        str_printf(&text, "\"%s line %d\"\n", i % 10 == 3 ? "?" : i % 10 == 7 ? "#" : "!", i);
    write_train(text.data, text.length);
    str_free(&text);
    stage->table = &echo_table;
    stage->train_path = FOLDER "/train.jsonl";
    stage->config.name = "echo";
    stage->config.run_dir = FOLDER "/run";
    stage->config.data.train = (StringList){&stage->train_path, 1};
    stage_begin(stage);
    worker_start(stage, 64 << 20);
    return 0;
}

static int stage_close(void **state)
{
    Stage *stage = *state;
    worker_stop(stage);
    stage_end(stage);
    free(stage);
    return 0;
}

static void assert_not_held(Stage *stage, uint64_t position)
{
    size_t length;
    Answer answer;
    assert_null(fetch_one(stage, position, &length, &answer));
    assert_int_equal(answer.status, ERR_NOT_FOUND);
    assert_non_null(strstr(answer.err.message, "is not held by rollout-0"));
    answer_free(&answer);
}

/* ---- tests ---- */

static void test_lease_answers_in_position_order_with_reasons(void **state)
{
    Stage *stage = *state;
    Troupe__LeaseReply *reply = NULL;
    run_lease(stage, 95, 20, &reply); /* across the end of an epoch */
    assert_int_equal(reply->n_samples, 20);
    for (uint64_t i = 0; i < 20; i++) {
        const Troupe__SampleMeta *meta = reply->samples[i];
        uint64_t position = 95 + i, record = position % 100;
        char expected[64];
        assert_int_equal(meta->position, position);
        if (record % 10 == 7) {
            assert_int_equal(meta->status, SAMPLE_REJECTED);
            assert_int_equal(meta->reject_reason, REJECT_BAD_RECORD);
            snprintf(expected, sizeof expected, FOLDER "/train.jsonl:%d: refused\n  at: byte ",
                     (int)record + 1);
            assert_true(str_starts_with(meta->reject_message, expected));
            assert_not_held(stage, position);
            continue;
        }
        snprintf(expected, sizeof expected, "\"%s line %d\"", record % 10 == 3 ? "?" : "!",
                 (int)record);
        assert_int_equal(meta->status, SAMPLE_COMPLETED);
        assert_int_equal(meta->length, strlen(expected));
        assert_int_equal(meta->trained_tokens, strlen(expected) - 1);
        Answer answer;
        size_t length = 0;
        char *bytes = fetch_one(stage, position, &length, &answer);
        Sample sample = {0};
        Error err = {0};
        assert_ok(sample_unpack((uint8_t *)bytes, length, &sample, &err), &err);
        assert_int_equal(sample.position, position);
        for (int32_t t = 0; t < sample.length; t++)
            assert_int_equal(sample.token[t], expected[t]);
        sample_clear(&sample);
        free(bytes);
    }
    troupe__lease_reply__free_unpacked(reply, NULL);
}

static void test_lease_run_again_gives_the_same_bytes(void **state)
{
    Stage *stage = *state;
    Troupe__LeaseReply *reply = NULL;
    Answer answer;
    size_t length[3];
    char *bytes[3];
    for (int i = 0; i < 3; i++) {
        if (i == 2) { /* a new worker, other leases */
            worker_stop(stage);
            worker_start(stage, 64 << 20);
        }
        run_lease(stage, i == 2 ? 0 : 40, i == 2 ? 50 : 4, &reply);
        troupe__lease_reply__free_unpacked(reply, NULL);
        bytes[i] = fetch_one(stage, 43, &length[i], &answer);
        assert_non_null(bytes[i]);
    }
    assert_int_equal(length[0], length[1]);
    assert_int_equal(length[0], length[2]);
    assert_memory_equal(bytes[0], bytes[1], length[0]);
    assert_memory_equal(bytes[0], bytes[2], length[0]);
    for (int i = 0; i < 3; i++)
        free(bytes[i]);
}

static void test_release_forgets_below_and_a_rollback_may_lease_again(void **state)
{
    Stage *stage = *state;
    Troupe__LeaseReply *reply = NULL;
    size_t length;
    Answer answer;
    run_lease(stage, 10, 5, &reply);
    troupe__lease_reply__free_unpacked(reply, NULL);
    release(stage, 12);
    assert_not_held(stage, 11);
    char *held = fetch_one(stage, 12, &length, &answer);
    assert_non_null(held);
    free(held);
    run_lease(stage, 10, 2, &reply);
    troupe__lease_reply__free_unpacked(reply, NULL);
    held = fetch_one(stage, 11, &length, &answer);
    assert_non_null(held);
    free(held);
}

/* Records of a megabyte: read in pieces, worked on in any order, fetched in parts. */
static void test_large_records_come_and_go_in_parts(void **state)
{
    Stage *stage = *state;
    enum { LINES = 20 };
    size_t bytes = 1 << 20;
    char *text = mem_alloc(LINES * bytes);
    for (size_t i = 0; i < LINES; i++) {
        memset(text + i * bytes, 'a' + (int)i, bytes);
        text[i * bytes] = i % 3 == 0 ? '?' : '!';
        text[(i + 1) * bytes - 1] = '\n';
    }
    write_train(text, LINES * bytes);
    free(text);
    worker_stop(stage);
    worker_start(stage, 256 << 20);
    Troupe__LeaseReply *reply = NULL;
    run_lease(stage, 0, LINES, &reply);
    uint64_t position[LINES];
    for (uint64_t i = 0; i < LINES; i++) {
        assert_int_equal(reply->samples[i]->position, i);
        assert_int_equal(reply->samples[i]->length, bytes - 1);
        position[i] = i;
    }
    troupe__lease_reply__free_unpacked(reply, NULL);
    int answers = 0;
    for (size_t have = 0; have < LINES; answers++) {
        Answer answer;
        Troupe__FetchReply *part =
            ask_fetch(stage->loop, stage->handle, "train", position + have, LINES - have, &answer);
        assert_non_null(part);
        size_t at = 0;
        for (size_t i = 0; i < part->n_length; i++) {
            Sample sample = {0};
            Error err = {0};
            assert_ok(
                sample_unpack((uint8_t *)answer.attachment + at, part->length[i], &sample, &err),
                &err);
            assert_int_equal(sample.position, have + i);
            assert_int_equal(sample.token[sample.length - 1], 'a' + (int)(have + i));
            sample_clear(&sample);
            at += part->length[i];
        }
        assert_int_equal(at, answer.attachment_length);
        have += part->n_length;
        troupe__fetch_reply__free_unpacked(part, NULL);
        answer_free(&answer);
    }
    assert_true(answers > 1 && answers < LINES);
}

static void assert_lease_fails(Stage *stage, const Troupe__LeaseRequest *request, int timeout_ms,
                               Status status, const char *expected)
{
    Answer answer;
    ask(stage->loop, stage->handle, "rollout.run", &request->base, timeout_ms, &answer);
    await(&answer);
    if (answer.status != status || strstr(answer.err.message, expected) == NULL)
        fail_msg("got %s: %s", status_name(answer.status), answer.err.message);
    answer_free(&answer);
}

static void test_lease_fails_by_name_and_the_next_one_works(void **state)
{
    Stage *stage = *state;
    Troupe__LeaseRequest request = lease_of(stage, 0, 10);
    request.set = "eval";
    assert_lease_fails(stage, &request, 20000, ERR_NOT_FOUND, "names no files for data.eval");
    request.set = "a set with a name that is longer than any may be";
    assert_lease_fails(stage, &request, 20000, ERR_INVALID, "not the name of a set");
    request = lease_of(stage, 0, 0);
    assert_lease_fails(stage, &request, 20000, ERR_INVALID, "a lease has 1 to");
    request = lease_of(stage, 0, 10);
    request.data_source = "not an endpoint";
    assert_lease_fails(stage, &request, 20000, ERR_INVALID, "not an endpoint");

    worker_stop(stage);
    worker_start(stage, 1000);
    request = lease_of(stage, 0, 10);
    assert_lease_fails(stage, &request, 20000, ERR_RESOURCE, "SAMPLE_STORE_BYTES_MAX");
    Troupe__LeaseReply *reply = NULL;
    run_lease(stage, 0, 2, &reply);
    troupe__lease_reply__free_unpacked(reply, NULL);
}

static void stop_loop(void *loop)
{
    loop_stop(loop);
}

static void on_keep(void *self, Call *call)
{
    *(Call **)self = call; /* never answered */
}

static void test_data_source_that_dies_fails_the_lease_and_its_successor_serves(void **state)
{
    Stage *stage = *state;
    Troupe__LeaseReply *reply = NULL;
    run_lease(stage, 0, 10, &reply);
    troupe__lease_reply__free_unpacked(reply, NULL);

    /* One that takes the question and dies. */
    source_stop(stage);
    Call *kept = NULL;
    const ActorMethod methods[] = {{"data_source.read", on_keep}};
    Actor *mute = make_actor(stage, "data-1", stage->source_endpoint, methods, 1, &kept);
    Troupe__LeaseRequest request = lease_of(stage, 10, 10);
    Answer answer = {.here = true};
    LoopTimer *timer = loop_add_timer(stage->loop, 5, 5, stop_loop, stage->loop);
    while (kept == NULL) { /* the end of the one before may be news still */
        if (answer.here)
            ask(stage->loop, stage->handle, "rollout.run", &request.base, 20000, &answer);
        loop_run(stage->loop);
    }
    char doing[64], waiting[128];
    rollout_service_describe(stage->service, doing, sizeof doing, waiting, sizeof waiting);
    assert_string_equal(doing, "rollout train 10..19");
    assert_non_null(strstr(waiting, stage->source_endpoint));
    actor_destroy(mute);
    await(&answer);
    loop_remove_timer(timer);
    assert_int_equal(answer.status, ERR_UNAVAILABLE);
    assert_non_null(strstr(answer.err.message, "reading positions from 10 of set \"train\""));
    answer_free(&answer);
    Error gone = {.status = ERR_UNAVAILABLE};
    call_fail(kept, &gone); /* unheard */

    /* The successor, at the same place and then at another. */
    source_start(stage);
    run_lease(stage, 10, 10, &reply);
    troupe__lease_reply__free_unpacked(reply, NULL);
    source_stop(stage);
    snprintf(stage->source_endpoint, ENDPOINT_MAX, "ipc:///tmp/troupe-source2-%d.sock",
             (int)getpid());
    source_start(stage);
    run_lease(stage, 20, 10, &reply);
    troupe__lease_reply__free_unpacked(reply, NULL);
    rollout_service_describe(stage->service, doing, sizeof doing, waiting, sizeof waiting);
    assert_string_equal(doing, "idle");
    assert_string_equal(waiting, "");
}

/* A lease that names a dead data source, because whoever leases has not heard of its death, must
 * not wait for it until the deadline. */
static void test_lease_from_a_dead_data_source_fails_at_once(void **state)
{
    Stage *stage = *state;
    Troupe__LeaseReply *reply = NULL;
    run_lease(stage, 0, 10, &reply);
    troupe__lease_reply__free_unpacked(reply, NULL);
    source_stop(stage);
    Troupe__LeaseRequest request = lease_of(stage, 10, 10);
    /* The first may be under way when the connection breaks. */
    assert_lease_fails(stage, &request, 5000, ERR_UNAVAILABLE, "");
    for (int i = 0; i < 5; i++)
        assert_lease_fails(stage, &request, 5000, ERR_UNAVAILABLE, stage->source_endpoint);
    source_start(stage); /* back at the same place: a broken line, not a death */
    run_lease(stage, 10, 10, &reply);
    troupe__lease_reply__free_unpacked(reply, NULL);
}

static void test_data_source_that_never_answers_meets_the_deadline(void **state)
{
    Stage *stage = *state;
    source_stop(stage);
    Call *kept = NULL;
    const ActorMethod methods[] = {{"data_source.read", on_keep}};
    Actor *mute = make_actor(stage, "data-1", stage->source_endpoint, methods, 1, &kept);
    Troupe__LeaseRequest request = lease_of(stage, 0, 10);
    assert_lease_fails(stage, &request, 200, ERR_TIMEOUT, "");
    actor_destroy(mute);
    Error gone = {.status = ERR_UNAVAILABLE};
    if (kept != NULL) call_fail(kept, &gone);
    source_start(stage);
    Troupe__LeaseReply *reply = NULL;
    run_lease(stage, 0, 10, &reply);
    troupe__lease_reply__free_unpacked(reply, NULL);
}

static void give_up(Stage *stage, uint64_t first, uint32_t count)
{
    Troupe__GiveUpRequest request = TROUPE__GIVE_UP_REQUEST__INIT;
    Answer answer;
    request.set = "train";
    request.first = first;
    request.count = count;
    ask(stage->loop, stage->handle, "rollout.give_up", &request.base, 20000, &answer);
    await(&answer);
    assert_int_equal(answer.status, OK);
    answer_free(&answer);
}

static void test_a_lease_that_nobody_wants_ends_at_once(void **state)
{
    Stage *stage = *state;
    source_stop(stage);
    Call *kept = NULL;
    const ActorMethod methods[] = {{"data_source.read", on_keep}};
    Actor *mute = make_actor(stage, "data-1", stage->source_endpoint, methods, 1, &kept);
    Troupe__LeaseRequest request = lease_of(stage, 0, 10);
    Answer answer;
    ask(stage->loop, stage->handle, "rollout.run", &request.base, 60000, &answer);
    give_up(stage, 0, 5); /* another lease, which is not there */
    assert_false(answer.here);
    give_up(stage, 0, 10);
    await(&answer);
    assert_int_equal(answer.status, ERR_CANCELLED);
    answer_free(&answer);
    actor_destroy(mute);
    Error gone = {.status = ERR_UNAVAILABLE};
    if (kept != NULL) call_fail(kept, &gone);
    source_start(stage);
    Troupe__LeaseReply *reply = NULL;
    run_lease(stage, 0, 10, &reply);
    troupe__lease_reply__free_unpacked(reply, NULL);
}

/* Answers that do not fit the question; `self` counts which one is due. */
static void on_lie(void *self, Call *call)
{
    int *lie = self;
    Troupe__ReadReply reply = TROUPE__READ_REPLY__INIT;
    Troupe__Record record = TROUPE__RECORD__INIT, *list[] = {&record};
    uint8_t body[64] = {0xFF, 0xFF, 0xFF};
    size_t length = 3; /* 0: not a message at all */
    reply.records = list;
    reply.n_records = *lie == 1 ? 0 : 1; /* 1: no record */
    record.position = *lie == 2 ? 8 : 7; /* 2: another position */
    record.length = *lie == 3 ? 4 : 3;   /* 3: more bytes than came */
    if (*lie > 0) length = troupe__read_reply__pack(&reply, body);
    call_reply(call, (Bytes){body, length}, (Bytes){(const uint8_t *)"abc", 3});
    ++*lie;
}

static void test_data_source_that_lies_is_not_believed(void **state)
{
    Stage *stage = *state;
    source_stop(stage);
    int lie = 0;
    const ActorMethod methods[] = {{"data_source.read", on_lie}};
    Actor *liar = make_actor(stage, "data-1", stage->source_endpoint, methods, 1, &lie);
    Troupe__LeaseRequest request = lease_of(stage, 7, 2);
    assert_lease_fails(stage, &request, 20000, ERR_INTERNAL, "not a ReadReply");
    for (int i = 0; i < 3; i++)
        assert_lease_fails(stage, &request, 20000, ERR_INTERNAL, "do not fit together");
    actor_destroy(liar);
    source_start(stage);
}

static void test_worker_ends_in_the_middle_of_leases(void **state)
{
    Stage *stage = *state;
    Answer answer[5];
    for (int i = 0; i < 5; i++) {
        Troupe__LeaseRequest request = lease_of(stage, (uint64_t)i * 20, 20);
        ask(stage->loop, stage->handle, "rollout.run", &request.base, 20000, &answer[i]);
    }
    await(&answer[0]); /* the others are somewhere on their way */
    worker_stop(stage);
    source_stop(stage);
    loop_destroy(stage->loop);
    Error err = {0};
    assert_ok(loop_create(&stage->loop, &err), &err);
    source_start(stage);
    worker_start(stage, 64 << 20);
    for (int i = 0; i < 5; i++)
        answer_free(&answer[i]);
    Troupe__LeaseReply *reply = NULL;
    run_lease(stage, 0, 100, &reply);
    troupe__lease_reply__free_unpacked(reply, NULL);
}

#define STAGED(test) cmocka_unit_test_setup_teardown(test, stage_open, stage_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STAGED(test_lease_answers_in_position_order_with_reasons),
        STAGED(test_lease_run_again_gives_the_same_bytes),
        STAGED(test_release_forgets_below_and_a_rollback_may_lease_again),
        STAGED(test_large_records_come_and_go_in_parts),
        STAGED(test_lease_fails_by_name_and_the_next_one_works),
        STAGED(test_data_source_that_dies_fails_the_lease_and_its_successor_serves),
        STAGED(test_lease_from_a_dead_data_source_fails_at_once),
        STAGED(test_data_source_that_never_answers_meets_the_deadline),
        STAGED(test_a_lease_that_nobody_wants_ends_at_once),
        STAGED(test_data_source_that_lies_is_not_believed),
        STAGED(test_worker_ends_in_the_middle_of_leases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
