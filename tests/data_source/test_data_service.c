/* Tests of the data source's answers, over a real socket: any position, bounded answers, errors by
 * name, and the same bytes from a data source that was started anew. */
#include "test.h"

#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/str.h"
#include "tests/data_source/ask.h"
#include "data_source/service.h"
#include "dataset/index_folder.h"

#define FOLDER "data-service"

typedef struct Stage {
    JobConfig config;
    char *train_path, *eval_path;
    char endpoint[ENDPOINT_MAX];
    Loop *loop;
    DataService *service;
    Actor *actor;
    Handle *handle;
} Stage;

static void stage_start(Stage *stage)
{
    Error err = {0};
    assert_ok(loop_create(&stage->loop, &err), &err);
    stage->service = data_service_create(stage->loop, &stage->config);
    ActorOptions options = {
        .identity = {.name = "data-0", .job = 5, .generation = 1, .incarnation = 10},
        .endpoint = stage->endpoint,
        .methods = data_service_methods,
        .num_methods = data_service_num_methods,
        .self = stage->service,
    };
    assert_ok(actor_create(stage->loop, &options, &stage->actor, &err), &err);
    ActorIdentity self = {.name = "caller", .job = 5, .generation = 1, .incarnation = 11};
    assert_ok(handle_open(stage->loop, &self, "data-0", stage->endpoint, &stage->handle, &err),
              &err);
}

static void stage_stop(Stage *stage)
{
    handle_close(stage->handle);
    data_service_destroy(stage->service);
    actor_destroy(stage->actor);
    loop_destroy(stage->loop);
}

static int stage_open(void **state)
{
    Error err = {0};
    Stage *stage = mem_calloc(1, sizeof *stage);
    *state = stage;
    assert_ok(folder_remove(FOLDER, &err), &err);
    assert_ok(folder_create(FOLDER, &err), &err);
    Str text = {0};
    for (int i = 0; i < 300; i++)
        str_printf(&text, "{\"record\": %d}\n", i);
    assert_ok(file_write_atomic(FOLDER "/train.jsonl", text.data, text.length, &err), &err);
    assert_ok(file_write_atomic(FOLDER "/eval.jsonl", text.data, 60, &err),
              &err); /* the last is cut */
    str_free(&text);
    stage->train_path = FOLDER "/train.jsonl";
    stage->eval_path = FOLDER "/eval.jsonl";
    stage->config.run_dir = FOLDER "/run";
    stage->config.seed = 7;
    stage->config.data.shuffle = true;
    stage->config.data.order.kind = ORDER_FULL;
    stage->config.data.reader_threads = 4;
    stage->config.data.train = (StringList){&stage->train_path, 1};
    stage->config.data.eval = (StringList){&stage->eval_path, 1};
    snprintf(stage->endpoint, sizeof stage->endpoint, "ipc:///tmp/troupe-data-%d.sock",
             (int)getpid());
    stage_start(stage);
    return 0;
}

static int stage_close(void **state)
{
    Stage *stage = *state;
    stage_stop(stage);
    free(stage);
    return 0;
}

/* Positions [first, first + count) as lines "position epoch source text", however many answers they
 * take. */
static char *read_stream(Stage *stage, const char *set, uint64_t first, uint32_t count,
                         int *ret_answers)
{
    Str lines = {0};
    *ret_answers = 0;
    while (count > 0) {
        Answer answer;
        Troupe__ReadReply *reply = ask_read(stage->loop, stage->handle, set, first, count, &answer);
        if (reply == NULL) fail_msg("%s", answer.err.message);
        assert_true(reply->n_records > 0 && reply->n_records <= count);
        size_t at = 0;
        for (size_t i = 0; i < reply->n_records; i++) {
            const Troupe__Record *record = reply->records[i];
            assert_int_equal(record->position, first + i);
            str_printf(&lines, "%llu %u %s %s%.*s\n", (unsigned long long)record->position,
                       record->epoch, record->source, record->error, (int)record->length,
                       answer.attachment + at);
            at += record->length;
        }
        assert_int_equal(at, answer.attachment_length);
        first += reply->n_records;
        count -= (uint32_t)reply->n_records;
        ++*ret_answers;
        troupe__read_reply__free_unpacked(reply, NULL);
        answer_free(&answer);
    }
    return str_take(&lines);
}

static void open_known(Stage *stage, const char *set, const char *known, Answer *ret)
{
    Troupe__OpenSetRequest request = TROUPE__OPEN_SET_REQUEST__INIT;
    request.set = (char *)set;
    request.known = (char *)known;
    ask(stage->loop, stage->handle, "data_source.open", &request.base, 20000, ret);
    await(ret);
}

static void open_set(Stage *stage, const char *set, Answer *ret)
{
    open_known(stage, set, "", ret);
}

/* Opens the training set anew, as a data source of a resumed run does, and gives what it says has
 * changed; the fingerprint goes to and comes from `fingerprint`. */
static char *reopen(Stage *stage, char fingerprint[DIGEST_HEX_BYTES])
{
    Answer answer;
    stage_stop(stage);
    stage_start(stage);
    open_known(stage, "train", fingerprint, &answer);
    if (answer.status != OK) fail_msg("%s", answer.err.message);
    Troupe__OpenSetReply *reply =
        troupe__open_set_reply__unpack(NULL, answer.body_length, (uint8_t *)answer.body);
    snprintf(fingerprint, DIGEST_HEX_BYTES, "%s", reply->fingerprint);
    char *changes = mem_strdup(reply->changes);
    troupe__open_set_reply__free_unpacked(reply, NULL);
    answer_free(&answer);
    return changes;
}

static void assert_changes(Stage *stage, char fingerprint[DIGEST_HEX_BYTES], const char *expected)
{
    char *changes = reopen(stage, fingerprint);
    assert_string_equal(changes, expected);
    free(changes);
}

static void write_file(const char *path, const char *text)
{
    Error err = {0};
    assert_ok(file_write_atomic(path, text, strlen(text), &err), &err);
}

static void test_open_names_the_files_that_changed(void **state)
{
    Stage *stage = *state;
    char *paths[] = {FOLDER "/train.jsonl", FOLDER "/b.jsonl", FOLDER "/c.jsonl"};
    char fingerprint[DIGEST_HEX_BYTES] = "", first[DIGEST_HEX_BYTES];
    stage->config.data.train = (StringList){paths, 2};
    write_file(paths[1], "{}\n{}\n");
    assert_changes(stage, fingerprint, "");
    strcpy(first, fingerprint);
    assert_changes(stage, fingerprint, "");
    assert_string_equal(fingerprint, first);
    write_file(paths[1], "{} \n{}\n");
    assert_changes(stage, fingerprint, FOLDER "/b.jsonl: 2 records in 7 bytes, were 2 in 6");
    write_file(paths[2], "{}");
    stage->config.data.train.count = 3;
    assert_changes(stage, fingerprint, FOLDER "/c.jsonl was not among the files");
    stage->config.data.train.count = 1;
    assert_changes(stage, fingerprint,
                   FOLDER "/b.jsonl is no longer among the files\n" FOLDER
                          "/c.jsonl is no longer among the files");
    /* What is known is from long ago, or from a run folder that was cleaned up. */
    strcpy(fingerprint, first);
    assert_changes(stage, fingerprint, FOLDER "/b.jsonl is no longer among the files");
    strcpy(fingerprint, "0123456789abcdef");
    assert_changes(stage, fingerprint, "");
}

static int count_indexes(const char *name)
{
    glob_t found;
    char *pattern = mem_printf(FOLDER "/run/index/%s-*.idx", name);
    int count = glob(pattern, 0, NULL, &found) == 0 ? (int)found.gl_pathc : 0;
    globfree(&found);
    free(pattern);
    return count;
}

/* Opens all sets, as a run does before it reads. */
static void start_anew(Stage *stage)
{
    static const char *const sets[] = {"train", "eval"};
    stage_stop(stage);
    stage_start(stage);
    for (int i = 0; i < 2; i++) {
        Answer answer;
        open_set(stage, sets[i], &answer);
        if (answer.status != OK) fail_msg("%s", answer.err.message);
        answer_free(&answer);
    }
}

static void read_one(Stage *stage)
{
    int answers;
    char *lines = read_stream(stage, "train", 0, 1, &answers);
    assert_int_equal(atoi(strstr(lines, "{\"n\": ") + strlen("{\"n\": ")) % 7, 3);
    free(lines);
}

/* The files of indexes of data that the job has no more go when the run reads, not before, and not
 * while somebody else looks. */
static void test_indexes_of_no_set_are_removed(void **state)
{
    Stage *stage = *state;
    char *paths[] = {FOLDER "/kept.jsonl", FOLDER "/gone.jsonl"};
    Str text = {0};
    for (int i = 0; i < 20000; i++) /* more than lie with those of others */
        str_printf(&text, "{\"n\": %d}\n", 7 * i + 3);
    write_file(paths[0], text.data);
    write_file(paths[1], text.data);
    str_free(&text);
    stage->config.data.train = (StringList){paths, 2};
    start_anew(stage);
    read_one(stage);
    assert_int_equal(count_indexes("kept.jsonl") + count_indexes("gone.jsonl"), 2);

    stage->config.data.train.count = 1;
    start_anew(stage);
    assert_int_equal(count_indexes("gone.jsonl"), 1);
    FilePool *pool = file_pool_create(0);
    IndexFolder *other = index_folder_open(FOLDER "/run/index", true, pool);
    read_one(stage);
    assert_int_equal(count_indexes("gone.jsonl"), 1);
    index_folder_close(other);
    file_pool_destroy(pool);

    start_anew(stage);
    assert_int_equal(count_indexes("gone.jsonl"), 1);
    read_one(stage);
    assert_int_equal(count_indexes("gone.jsonl"), 0);
    assert_int_equal(count_indexes("kept.jsonl"), 1);
    stage->config.data.order = (DataOrder){.kind = ORDER_WINDOW, .window_mb = 1};
    start_anew(stage); /* which needs none: of data that is in the job they stay */
    read_one(stage);
    assert_int_equal(count_indexes("kept.jsonl"), 1);
    stage->config.data.order = (DataOrder){.kind = ORDER_FULL};
    stage->config.data.train.count = 2; /* that it is gone costs a pass */
    start_anew(stage);
    read_one(stage);
    assert_int_equal(count_indexes("kept.jsonl") + count_indexes("gone.jsonl"), 2);
}

/* A set that is open is read while another one is still being opened, which may take long. */
static void test_an_open_set_is_read_while_another_is_opened(void **state)
{
    Stage *stage = *state;
    Answer answer;
    Troupe__OpenSetRequest request = TROUPE__OPEN_SET_REQUEST__INIT;
    request.set = "eval";
    open_set(stage, "train", &answer);
    assert_int_equal(answer.status, OK);
    answer_free(&answer);
    int heads = open(FOLDER "/run/index/files.heads", O_RDONLY | O_CLOEXEC);
    assert_true(heads >= 0 && flock(heads, LOCK_EX) == 0); /* what the opening waits for */
    ask(stage->loop, stage->handle, "data_source.open", &request.base, 20000, &answer);
    Status status = OK;
    for (uint64_t i = 0; i < 50 && status == OK; i++) {
        Answer read;
        Troupe__ReadReply *reply = ask_read(stage->loop, stage->handle, "train", i, 1, &read);
        if (reply != NULL) troupe__read_reply__free_unpacked(reply, NULL);
        status = read.status;
        answer_free(&read);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    bool here = answer.here;
    close(heads);
    assert_int_equal(status, OK);
    assert_false(here);
    await(&answer);
    assert_int_equal(answer.status, OK);
    answer_free(&answer);
}

static void test_open_tells_size_and_fingerprint(void **state)
{
    Stage *stage = *state;
    Answer answer;
    open_set(stage, "train", &answer);
    if (answer.status != OK) fail_msg("%s", answer.err.message);
    Troupe__OpenSetReply *reply =
        troupe__open_set_reply__unpack(NULL, answer.body_length, (uint8_t *)answer.body);
    assert_int_equal(reply->records, 300);
    assert_int_equal(reply->files, 1);
    assert_int_equal(reply->bytes, 10 * 14 + 90 * 15 + 200 * 16);
    assert_int_equal(strlen(reply->fingerprint), 64);
    troupe__open_set_reply__free_unpacked(reply, NULL);
    answer_free(&answer);
}

static void test_every_epoch_has_each_record_once_in_its_own_order(void **state)
{
    Stage *stage = *state;
    int answers, seen[2][300] = {{0}}, same = 0, previous[300] = {0};
    char *lines = read_stream(stage, "train", 0, 600, &answers);
    char *line = lines;
    for (int i = 0; i < 600; i++) {
        int position, epoch, source_line, record;
        assert_int_equal(sscanf(line, "%d %d " FOLDER "/train.jsonl:%d {\"record\": %d}", &position,
                                &epoch, &source_line, &record),
                         4);
        assert_int_equal(position, i);
        assert_int_equal(epoch, i / 300);
        assert_int_equal(source_line, record + 1);
        seen[epoch][record]++;
        if (epoch == 0)
            previous[position] = record;
        else
            same += previous[position - 300] == record;
        line = strchr(line, '\n') + 1;
    }
    for (int i = 0; i < 600; i++)
        assert_int_equal(seen[i / 300][i % 300], 1);
    assert_true(same < 15); /* 1 expected, Poisson */
    free(lines);
}

/* Whether it is counted already must not show, unless it was asked for. */
static void test_window_is_not_counted_before_somebody_asks(void **state)
{
    Stage *stage = *state;
    stage_stop(stage);
    stage->config.data.order = (DataOrder){.kind = ORDER_WINDOW, .window_mb = 1};
    stage_start(stage);
    for (int count = 0; count < 4; count++) {
        Answer answer;
        Troupe__OpenSetRequest request = TROUPE__OPEN_SET_REQUEST__INIT;
        request.set = "train";
        request.count = count % 2 == 1;
        ask(stage->loop, stage->handle, "data_source.open", &request.base, 20000, &answer);
        await(&answer);
        if (answer.status != OK) fail_msg("%s", answer.err.message);
        Troupe__OpenSetReply *reply =
            troupe__open_set_reply__unpack(NULL, answer.body_length, (uint8_t *)answer.body);
        assert_int_equal(reply->records, request.count ? 300 : 0);
        assert_int_equal(strlen(reply->fingerprint), 64);
        troupe__open_set_reply__free_unpacked(reply, NULL);
        answer_free(&answer);
    }
    int answers, seen[300] = {0};
    char *lines = read_stream(stage, "train", 300, 300, &answers);
    char *line = lines;
    for (int i = 0; i < 300; i++) {
        int position, epoch, source_line, record;
        assert_int_equal(sscanf(line, "%d %d " FOLDER "/train.jsonl:%d {\"record\": %d}", &position,
                                &epoch, &source_line, &record),
                         4);
        assert_int_equal(epoch, 1);
        assert_int_equal(source_line, record + 1);
        assert_int_equal(seen[record]++, 0);
        line = strchr(line, '\n') + 1;
    }
    free(lines);
}

static void test_eval_is_in_file_order(void **state)
{
    int answers;
    char *lines = read_stream(*state, "eval", 1, 5, &answers);
    assert_string_equal(lines, "1 0 " FOLDER "/eval.jsonl:2 {\"record\": 1}\n"
                               "2 0 " FOLDER "/eval.jsonl:3 {\"record\": 2}\n"
                               "3 0 " FOLDER "/eval.jsonl:4 {\"record\": 3}\n"
                               "4 0 " FOLDER "/eval.jsonl:5 {\"re\n" /* handed out as it is */
                               "5 1 " FOLDER "/eval.jsonl:1 {\"record\": 0}\n");
    free(lines);
}

static void test_data_source_started_anew_gives_the_same_bytes_at_any_position(void **state)
{
    Stage *stage = *state;
    int answers;
    char *before = read_stream(stage, "train", 250, 120, &answers);
    stage_stop(stage);
    stage_start(stage); /* nobody opens the set: the first read does */
    char *after = read_stream(stage, "train", 250, 120, &answers);
    assert_string_equal(before, after);
    free(before);
    free(after);

    char *far = read_stream(stage, "train", UINT64_C(3000000000000), 3, &answers);
    assert_true(str_starts_with(far, "3000000000000 "));
    free(far);
}

/* Long records come in several answers, each of at least one; a line longer than a message is told,
 * not sent. */
static void test_answers_are_bounded_by_bytes(void **state)
{
    Stage *stage = *state;
    enum { LINES = 8 };
    size_t length = 3 << 20;
    Str text = {0};
    for (int i = 0; i < LINES; i++) {
        size_t bytes = i == 5 ? (size_t)JSONL_LINE_BYTES_MAX + 1 : length;
        str_reserve(&text, text.length + bytes + 2);
        memset(text.data + text.length, 'a' + i, bytes);
        text.data[text.length + bytes] = '\n';
        text.length += bytes + 1;
    }
    Error err = {0};
    assert_ok(file_write_atomic(FOLDER "/train.jsonl", text.data, text.length, &err), &err);
    str_free(&text);
    stage_stop(stage);
    stage->config.data.shuffle = false;
    stage_start(stage);
    int answers;
    char *lines = read_stream(stage, "train", 0, LINES, &answers);
    assert_true(answers >= 2 && answers < LINES);
    char *line = lines;
    for (int i = 0; i < LINES; i++) {
        char *end = strchr(line, '\n');
        char head[128];
        snprintf(head, sizeof head, "%d 0 " FOLDER "/train.jsonl:%d ", i, i + 1);
        if (!str_starts_with(line, head)) fail_msg("%.200s, expected %s", line, head);
        if (i == 5) {
            assert_non_null(strstr(line, "train.jsonl:6: the line has more than"));
            end = strchr(strchr(end + 1, '\n') + 1, '\n'); /* three lines of message */
        } else {
            assert_int_equal((size_t)(end - line), strlen(head) + length);
            assert_int_equal(end[-1], 'a' + i);
        }
        line = end + 1;
    }
    free(lines);
}

static void assert_read_fails(Stage *stage, const char *set, uint64_t first, uint32_t count,
                              Status status, const char *expected)
{
    Answer answer;
    assert_null(ask_read(stage->loop, stage->handle, set, first, count, &answer));
    if (answer.status != status || strstr(answer.err.message, expected) == NULL)
        fail_msg("got %s: %s", status_name(answer.status), answer.err.message);
    answer_free(&answer);
}

static void test_refusals_say_what_is_wrong(void **state)
{
    Stage *stage = *state;
    Error err = {0};
    assert_read_fails(stage, "test", 0, 1, ERR_INVALID, "there is no set \"test\" in the job");
    assert_read_fails(stage, "train", 0, 0, ERR_INVALID, "1 to");
    assert_read_fails(stage, "train", 0, LEASE_RECORDS_MAX + 1, ERR_INVALID, "1 to");
    assert_ok(file_write_atomic(FOLDER "/eval.jsonl", "\n", 1, &err), &err);
    assert_read_fails(stage, "eval", 0, 1, ERR_DATA, "data.eval: the data set is empty");
    assert_ok(file_write_atomic(FOLDER "/eval.jsonl", "{}\n", 3, &err), &err);
    int answers;
    char *lines = read_stream(stage, "eval", 0, 1, &answers); /* mended: asked again, it is there */
    free(lines);
    stage->config.data.eval.count = 0;
    stage_stop(stage);
    stage_start(stage);
    assert_read_fails(stage, "eval", 0, 1, ERR_NOT_FOUND, "names no files for data.eval");

    Answer answer;
    open_set(stage, "train", &answer);
    assert_int_equal(answer.status, OK);
    answer_free(&answer);
    int changed = truncate(FOLDER "/train.jsonl", 100);
    assert_int_equal(changed, 0);
    assert_read_fails(stage, "train", 0, 300, ERR_IO, "train.jsonl was changed during the run");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_indexes_of_no_set_are_removed, stage_open,
                                        stage_close),
        cmocka_unit_test_setup_teardown(test_an_open_set_is_read_while_another_is_opened,
                                        stage_open, stage_close),
        cmocka_unit_test_setup_teardown(test_open_tells_size_and_fingerprint, stage_open,
                                        stage_close),
        cmocka_unit_test_setup_teardown(test_open_names_the_files_that_changed, stage_open,
                                        stage_close),
        cmocka_unit_test_setup_teardown(test_every_epoch_has_each_record_once_in_its_own_order,
                                        stage_open, stage_close),
        cmocka_unit_test_setup_teardown(test_window_is_not_counted_before_somebody_asks, stage_open,
                                        stage_close),
        cmocka_unit_test_setup_teardown(test_eval_is_in_file_order, stage_open, stage_close),
        cmocka_unit_test_setup_teardown(
            test_data_source_started_anew_gives_the_same_bytes_at_any_position, stage_open,
            stage_close),
        cmocka_unit_test_setup_teardown(test_answers_are_bounded_by_bytes, stage_open, stage_close),
        cmocka_unit_test_setup_teardown(test_refusals_say_what_is_wrong, stage_open, stage_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
