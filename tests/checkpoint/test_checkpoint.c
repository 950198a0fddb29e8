/* Tests of checkpoints: committed whole or not at all whatever is killed or fails at whatever call,
 * damage found and named, leftovers swept. */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/rng.h"
#include "checkpoint/manifest.h"
#include "disk_faults.h"
#include "tensor/safetensors.h"

#define ROOT       "run/checkpoints"
#define PLAIN_TEXT "{\"model_type\": \"qwen3\"}\n"

static Manifest *make_manifest(int64_t step)
{
    Manifest *manifest = manifest_create();
    manifest->step = step;
    manifest->generation = 3;
    manifest->next_position = step * 128;
    manifest->consumed_samples = step * 100;
    manifest->rejected_samples = step * 28;
    manifest->trained_tokens = INT64_C(1) << 50;
    manifest->bad_records = 17;
    manifest->records = 7473;
    manifest_add_count(manifest, "rejected_too_long", 12);
    manifest_add_count(manifest, "odd_\"bad\"", 1);
    manifest->tp_size = 2;
    manifest->dp_size = 1;
    manifest->data_fingerprint = mem_strdup("files \"a\\b\", seed 7");
    manifest->config_sha256 = mem_strdup("cfg");
    manifest->ledger_head = mem_strdup("head");
    manifest->ledger_mark = (LedgerMark){.bytes = 7 * step,
                                         .format = 2,
                                         .data = "of \"a\"",
                                         .stage = 1,
                                         .records = 7473,
                                         .group_size = 8};
    return manifest;
}

/* What a train rank does: a file of tensors, flushed and digested. */
static Status write_tensors(const char *folder, int64_t step, Manifest *manifest, Error *err)
{
    const SafetensorsEntry entry = {"w", DTYPE_I64, 1, {300}};
    SafetensorsWriter *writer = NULL;
    int64_t values[300], bytes = 0;
    char sha256[65], *path = path_join(folder, "model.safetensors");
    for (int i = 0; i < 300; i++)
        values[i] = step * 1000 + i;
    Status status = safetensors_create(path, &entry, 1, NULL, 0, &writer, err);
    free(path);
    if (status != OK) return status;
    status = safetensors_write(writer, values, sizeof values, err);
    if (status != OK) {
        safetensors_abandon(writer);
        return status;
    }
    TRY(safetensors_finish(writer, &bytes, sha256, err));
    manifest_add_file(manifest, "model.safetensors", bytes, sha256);
    return OK;
}

/* A whole save as the controller makes it. */
static Status save(int64_t step, Error *err)
{
    char *folder = NULL, *path = NULL;
    Manifest *manifest = make_manifest(step);
    Status status = checkpoint_begin(ROOT, step, &folder, err);
    if (status == OK)
        status = checkpoint_add_bytes(folder, "config.json", PLAIN_TEXT, strlen(PLAIN_TEXT),
                                      manifest, err);
    if (status == OK)
        status = checkpoint_add_copy(folder, "tokenizer.json", "tokenizer.json", manifest, err);
    if (status == OK) status = write_tensors(folder, step, manifest, err);
    if (status != OK && folder != NULL) checkpoint_abandon(folder);
    if (status == OK) status = checkpoint_commit(ROOT, folder, manifest, &path, err);
    manifest_destroy(manifest);
    free(folder);
    free(path);
    return status;
}

static void save_ok(int64_t step)
{
    Error err = {0};
    assert_ok(save(step, &err), &err);
}

static int start_run(void **state)
{
    (void)state;
    Error err = {0};
    faults_init();
    faults_disarm();
    assert_ok(folder_remove("run", &err), &err);
    assert_ok(folder_create("run", &err), &err);
    assert_ok(file_write_atomic("tokenizer.json", "tokens", 6, &err), &err);
    return 0;
}

/* The step of the newest whole checkpoint, -1 when there is none. Its tensors must be that step's.
 */
static int64_t latest_step(void)
{
    Error err = {0};
    char *path = NULL;
    Manifest *manifest = NULL;
    assert_ok(checkpoint_find_latest(ROOT, &path, &manifest, NULL, &err), &err);
    if (path == NULL) return -1;
    int64_t step = manifest->step, value = 0;
    assert_int_equal(manifest->next_position, step * 128);
    SafetensorsReader *reader = NULL;
    assert_ok(safetensors_open(path, "model", &reader, &err), &err);
    assert_ok(safetensors_read(reader, "w", 299, 1, &value, &err), &err);
    assert_int_equal(value, step * 1000 + 299);
    safetensors_close(reader);
    manifest_destroy(manifest);
    free(path);
    return step;
}

static int count_entries(const char *folder, const char *part)
{
    int count = 0;
    DIR *entries = opendir(folder);
    if (entries == NULL) return 0;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        count += entry->d_name[0] != '.' && strstr(entry->d_name, part) != NULL;
    closedir(entries);
    return count;
}

/* ---- whole or absent ---- */

static void test_checkpoint_commit_is_found_again(void **state)
{
    (void)state;
    Error err = {0};
    char *path = NULL;
    Manifest *manifest = NULL;
    assert_ok(checkpoint_find_latest(ROOT, &path, &manifest, NULL, &err), &err);
    assert_null(path);
    assert_null(manifest);
    save_ok(1);
    save_ok(99999999);
    save_ok(100000000); /* one digit more: sorted by number, not by name */
    assert_ok(checkpoint_find_latest(ROOT, &path, &manifest, NULL, &err), &err);
    assert_string_equal(path, ROOT "/step_100000000");
    assert_int_equal(manifest->step, 100000000);
    assert_int_equal(manifest->generation, 3);
    assert_int_equal(manifest->rejected_samples, 2800000000);
    assert_int_equal(manifest->trained_tokens, INT64_C(1) << 50);
    assert_int_equal(manifest->bad_records, 17);
    assert_int_equal(manifest->records, 7473);
    assert_int_equal(manifest_count(manifest, "rejected_too_long"), 12);
    assert_int_equal(manifest_count(manifest, "odd_\"bad\""), 1);
    assert_int_equal(manifest_count(manifest, "rejected"), 0);
    assert_int_equal(manifest->tp_size, 2);
    assert_string_equal(manifest->data_fingerprint, "files \"a\\b\", seed 7");
    assert_string_equal(manifest->ledger_head, "head");
    const LedgerMark *mark = &manifest->ledger_mark;
    assert_int_equal(mark->bytes, 700000000);
    assert_int_equal(mark->format, 2);
    assert_string_equal(mark->data, "of \"a\"");
    assert_int_equal(mark->stage, 1);
    assert_int_equal(mark->records, 7473);
    assert_int_equal(mark->group_size, 8);
    assert_int_equal(manifest->num_files, 3);
    manifest_destroy(manifest);
    free(path);
    char *latest = NULL;
    assert_ok(file_read(ROOT "/latest", 100, &latest, NULL, &err), &err);
    assert_string_equal(latest, "step_100000000\n");
    free(latest);
}

/* Kills a save in the middle of its k-th change to the disk, for every k, and then loses what a
 * power cut may lose. The step before stays whole; the new one is there when, and only when, it is
 * whole; and once the save has said OK, not even a power cut takes it away. */
static void kill_at_every_call(int64_t step, Loss loss)
{
    int new_found = 0, old_found = 0;
    for (int k = 1;; k++) {
        Error err = {0};
        faults_arm(FAULT_KILL, k, 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) _exit(save(step, &err) == OK ? 0 : 1);
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        bool finished = WIFEXITED(status);
        if (finished) assert_int_equal(WEXITSTATUS(status), 0);
        faults_power_cut("run", loss);
        int64_t found = latest_step();
        if (found != 1 && found != step)
            fail_msg("killed at call %d (%s): step %lld", k, faults_hit(), (long long)found);
        if (finished) assert_int_equal(found, step);
        old_found += found == 1;
        new_found += found == step;
        assert_ok(checkpoint_prune(ROOT, &(CheckpointKeep){0}, &err), &err);
        assert_int_equal(count_entries(ROOT, "partial") + count_entries(ROOT, "tmp"), 0);
        assert_int_equal(latest_step(), found);
        if (step > 1) assert_ok(folder_remove(ROOT "/step_00000002", &err), &err);
        if (finished) break;
    }
    assert_true(old_found + new_found > 20);
    assert_true(new_found >= 2); /* killed after the commit, while the hint is written */
}

static void test_checkpoint_killed_anywhere_is_whole_or_absent(void **state)
{
    (void)state;
    save_ok(1);
    kill_at_every_call(2, LOSE_NOTHING);
}

static void test_checkpoint_survives_loss_of_unflushed_data(void **state)
{
    (void)state;
    save_ok(1);
    kill_at_every_call(2, LOSE_DATA);
}

static void test_checkpoint_survives_loss_of_unflushed_names(void **state)
{
    (void)state;
    save_ok(1);
    kill_at_every_call(2, LOSE_DATA_AND_NAMES);
}

/* Saving a step that is already there: at every moment one of the two whole ones is found. */
static void test_checkpoint_replaces_the_same_step_in_one_move(void **state)
{
    (void)state;
    save_ok(1);
    kill_at_every_call(1, LOSE_NOTHING);
    kill_at_every_call(1, LOSE_DATA_AND_NAMES);
}

/* Even the first save, for which all folders are new, is there for good when it says so. */
static void test_checkpoint_first_save_survives_a_power_cut(void **state)
{
    (void)state;
    Error err = {0};
    for (int made_before = 0; made_before < 2; made_before++) {
        assert_ok(folder_remove("run", &err), &err);
        faults_arm(FAULT_NONE, 0, 0);
        if (made_before) assert_ok(folder_create(ROOT, &err), &err);
        save_ok(1);
        faults_power_cut(".", LOSE_DATA_AND_NAMES);
        assert_int_equal(latest_step(), 1);
    }
}

/* Lets every call of a save fail in turn, and cuts the power after it: what was called OK is there,
 * what was not is absent. */
static void fail_at_every_call(int errnum, Status expected)
{
    int failed = 0, ok = 0;
    for (int k = 1;; k++) {
        Error err = {0};
        faults_arm(FAULT_ERRNO, k, errnum);
        Status status = save(2, &err);
        bool hit = faults_hit()[0] != '\0';
        faults_power_cut("run", LOSE_DATA_AND_NAMES);
        int64_t found = latest_step();
        if (status == OK) {
            assert_int_equal(found, 2);
            ok++;
        } else {
            if (status != expected || found != 1)
                fail_msg("call %d (%s): %s: %s; then step %lld is the newest", k, faults_hit(),
                         status_name(status), err.message, (long long)found);
            if (strcmp(faults_hit(), "unlink") != 0)
                assert_int_equal(count_entries(ROOT, "partial"), 0);
            failed++;
        }
        assert_ok(checkpoint_prune(ROOT, &(CheckpointKeep){0}, &err), &err);
        assert_ok(folder_remove(ROOT "/step_00000002", &err), &err);
        if (!hit) break;
    }
    assert_true(failed > 15);
    assert_true(ok >= 2); /* the hint may fail, and no fault at all */
}

static void test_checkpoint_full_disk_at_any_call_leaves_the_older_one(void **state)
{
    (void)state;
    save_ok(1);
    fail_at_every_call(ENOSPC, ERR_RESOURCE);
}

static void test_checkpoint_input_output_error_at_any_call_leaves_the_older_one(void **state)
{
    (void)state;
    save_ok(1);
    fail_at_every_call(EIO, ERR_IO);
}

static void save_on_small_disk(void)
{
    Error err = {0};
    char *big = mem_calloc(1 << 20, 1), *folder = NULL;
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", "run", "tmpfs", 0, "size=512k") != 0)
        _exit(77);
    Manifest *manifest = make_manifest(2);
    if (save(1, &err) != OK) _exit(1);
    if (checkpoint_begin(ROOT, 2, &folder, &err) != OK) _exit(2);
    if (checkpoint_add_bytes(folder, "big", big, 1 << 20, manifest, &err) != ERR_RESOURCE) _exit(3);
    if (strstr(err.message, "could not reserve 1048576 bytes for " ROOT "/step_00000002") == NULL)
        _exit(4);
    if (strstr(err.message, "No space left") == NULL || manifest->num_files != 0) _exit(5);
    checkpoint_abandon(folder);
    if (count_entries(ROOT, "partial") != 0 || save(3, &err) != OK) _exit(6);
    _exit(0);
}

/* As above on a file system that really is full; needs the right to mount. */
static void test_checkpoint_small_disk_fails_before_any_work(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) save_on_small_disk();
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_checkpoint_commit_refuses_what_the_manifest_does_not_say(void **state)
{
    (void)state;
    Error err = {0};
    char *folder = NULL, *path = NULL;
    for (int how = 0; how < 4; how++) {
        Manifest *manifest = make_manifest(5);
        assert_ok(checkpoint_begin(ROOT, 5, &folder, &err), &err);
        assert_ok(checkpoint_add_bytes(folder, "a", "abc", 3, manifest, &err), &err);
        char *extra = path_join(folder, "b");
        const char *message = "is not in the manifest";
        Status expected = ERR_INVALID;
        if (how == 0) {
            assert_ok(file_write_atomic(extra, "x", 1, &err), &err);
        } else if (how == 1) {
            manifest_add_file(manifest, "b", 1, manifest->file[0].sha256);
            message = "cannot be found";
            expected = ERR_NOT_FOUND;
        } else if (how == 2) {
            manifest->file[0].bytes = 4;
            message = "has 3 bytes, its writer reported 4";
            expected = ERR_DATA;
        } else {
            manifest_add_file(manifest, "a", 3, manifest->file[0].sha256);
            message = "\"a\" stands twice";
        }
        assert_fails(checkpoint_commit(ROOT, folder, manifest, &path, &err), expected, &err,
                     message);
        assert_false(path_exists(folder));
        assert_null(path);
        manifest_destroy(manifest);
        free(extra);
        free(folder);
    }
    assert_int_equal(latest_step(), -1);
}

static void test_checkpoint_file_names_stay_inside_the_folder(void **state)
{
    (void)state;
    Error err = {0};
    char *folder = NULL;
    const char *const bad[] = {"../x", "a/b",     "/etc/x",        "",    ".",
                               "..",   ".hidden", "manifest.json", "a\nb"};
    Manifest *manifest = make_manifest(5);
    assert_ok(checkpoint_begin(ROOT, 5, &folder, &err), &err);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(checkpoint_add_bytes(folder, bad[i], "x", 1, manifest, &err), ERR_INVALID,
                     &err, "cannot be the name of a file");
    assert_fails(checkpoint_add_copy(folder, "t", "no/such", manifest, &err), ERR_NOT_FOUND, &err,
                 "no/such");
    assert_fails(checkpoint_add_copy(folder, "t", "run", manifest, &err), ERR_INVALID, &err,
                 "not a regular file");
    assert_ok(checkpoint_add_bytes(folder, "t", "", 0, manifest, &err), &err);
    assert_fails(checkpoint_add_bytes(folder, "t", "x", 1, manifest, &err), ERR_EXISTS, &err, "/t");
    assert_int_equal(manifest->num_files, 1);
    checkpoint_abandon(folder);
    manifest_destroy(manifest);
    free(folder);
}

/* ---- damage ---- */

static void flip_bit(const char *path, long bit)
{
    int fd = open(path, O_RDWR);
    char byte;
    assert_int_equal(pread(fd, &byte, 1, bit / 8), 1);
    byte ^= (char)(1 << bit % 8);
    assert_int_equal(pwrite(fd, &byte, 1, bit / 8), 1);
    close(fd);
}

static void expect_damage(const char *file, long bit)
{
    Error err = {0};
    Manifest *manifest = NULL;
    Status status = checkpoint_verify(ROOT "/step_00000001", true, &manifest, &err);
    if (status != ERR_DATA || strstr(err.message, file) == NULL)
        fail_msg("%s, bit %ld: %s: %s", file, bit, status_name(status), err.message);
}

static void test_checkpoint_every_flipped_bit_is_found_and_its_file_named(void **state)
{
    (void)state;
    Error err = {0};
    save_ok(1);
    const char *const files[] = {"manifest.json", "config.json", "tokenizer.json",
                                 "model.safetensors"};
    for (int i = 0; i < 4; i++) {
        struct stat info;
        char *path = path_join(ROOT "/step_00000001", files[i]);
        assert_int_equal(stat(path, &info), 0);
        long bits = (long)info.st_size * 8, step = i == 3 ? 37 : 1;
        for (long bit = 0; bit < bits; bit += step) {
            flip_bit(path, bit);
            expect_damage(files[i], bit);
            flip_bit(path, bit);
        }
        free(path);
    }
    Manifest *manifest = NULL;
    assert_ok(checkpoint_verify(ROOT "/step_00000001", true, &manifest, &err), &err);
    manifest_destroy(manifest);
}

static void test_checkpoint_cut_and_missing_files_are_named(void **state)
{
    (void)state;
    Error err = {0};
    Manifest *manifest = NULL;
    char *bytes = NULL;
    size_t length = 0;
    save_ok(1);
    assert_ok(file_read(ROOT "/step_00000001/manifest.json", 1 << 20, &bytes, &length, &err), &err);
    for (size_t cut = 0; cut < length; cut++) {
        assert_int_equal(truncate(ROOT "/step_00000001/manifest.json", (off_t)cut), 0);
        expect_damage("manifest.json", (long)cut);
        assert_ok(file_write_atomic(ROOT "/step_00000001/manifest.json", bytes, length, &err),
                  &err);
    }
    free(bytes);
    assert_int_equal(truncate(ROOT "/step_00000001/tokenizer.json", 5), 0);
    assert_fails(checkpoint_verify(ROOT "/step_00000001", false, &manifest, &err), ERR_DATA, &err,
                 "tokenizer.json has 5 bytes, the manifest says 6");
    assert_int_equal(unlink(ROOT "/step_00000001/tokenizer.json"), 0);
    assert_fails(checkpoint_verify(ROOT "/step_00000001", false, &manifest, &err), ERR_DATA, &err,
                 "tokenizer.json is missing");
    assert_fails(checkpoint_verify(ROOT "/step_00000009", false, &manifest, &err), ERR_NOT_FOUND,
                 &err, "step_00000009");
    save_ok(1);
    assert_int_equal(rename(ROOT "/step_00000001", ROOT "/step_00000007"), 0);
    assert_fails(checkpoint_verify(ROOT "/step_00000007", true, &manifest, &err), ERR_DATA, &err,
                 "holds step 1: it was renamed");
    assert_null(manifest);
}

typedef struct Skipped {
    int count;
    char message[ERROR_MESSAGE_MAX];
    int64_t bytes_done, bytes;
} Skipped;

static void note_checking(void *context, const char *path, int64_t bytes_done, int64_t bytes)
{
    Skipped *skipped = context;
    assert_non_null(strstr(path, "step_0000000"));
    skipped->bytes_done = bytes_done;
    skipped->bytes = bytes;
}

static void note_skipped(void *context, const char *path, const Error *why)
{
    Skipped *skipped = context;
    assert_non_null(strstr(why->message, path));
    skipped->count++;
    snprintf(skipped->message, sizeof skipped->message, "%s", why->message);
}

static void test_checkpoint_find_latest_passes_over_damage_and_says_so(void **state)
{
    (void)state;
    Error err = {0};
    Skipped skipped = {0};
    const CheckpointWatch watch = {
        .context = &skipped, .skipped = note_skipped, .checking = note_checking};
    char *path = NULL;
    Manifest *manifest = NULL;
    save_ok(1);
    save_ok(2);
    save_ok(3);
    flip_bit(ROOT "/step_00000003/model.safetensors", 12345);
    assert_int_equal(unlink(ROOT "/step_00000002/manifest.json"), 0);
    assert_ok(folder_create(ROOT "/step_99999999.00000001.partial", &err), &err);
    assert_ok(folder_create(ROOT "/step_9", &err), &err);
    assert_ok(folder_create(ROOT "/step_00000099x", &err), &err);
    assert_ok(checkpoint_find_latest(ROOT, &path, &manifest, &watch, &err), &err);
    assert_string_equal(path, ROOT "/step_00000001");
    assert_int_equal(skipped.count, 2);
    assert_true(skipped.bytes > 0 && skipped.bytes_done <= skipped.bytes);
    assert_non_null(strstr(skipped.message, "step_00000002 has no manifest.json"));
    manifest_destroy(manifest);
    free(path);
    path = NULL;
    manifest = NULL;
    flip_bit(ROOT "/step_00000001/manifest.json", 77);
    assert_fails(checkpoint_find_latest(ROOT, &path, &manifest, &watch, &err), ERR_DATA, &err,
                 "none of the 3 checkpoints");
    assert_non_null(strstr(err.message, "model.safetensors is damaged"));
    assert_null(path);
    assert_null(manifest);
    /* Saving the step again puts a whole one in the place of the damaged one. */
    save_ok(3);
    assert_int_equal(latest_step(), 3);
    assert_int_equal(count_entries(ROOT, "step_00000003"), 1);
}

static void test_checkpoint_prune_keeps_the_newest_whole_ones(void **state)
{
    (void)state;
    Error err = {0};
    for (int64_t step = 1; step <= 6; step++)
        save_ok(step);
    flip_bit(ROOT "/step_00000006/manifest.json", 5); /* damaged, and newer than all that is kept */
    assert_ok(folder_create(ROOT "/step_00000008", &err), &err); /* no manifest */
    assert_ok(folder_create(ROOT "/step_00000009.0000abcd.partial/sub", &err), &err);
    assert_ok(folder_create(ROOT "/step_00000002.17.removed", &err), &err);
    assert_ok(folder_create(ROOT "/notes", &err), &err);
    CheckpointKeep keep = {.last = 2, .path = "run//checkpoints/step_00000001"};
    assert_ok(checkpoint_prune(ROOT, &keep, &err), &err);
    assert_true(path_exists(ROOT "/step_00000006"));
    assert_true(path_exists(ROOT "/step_00000005"));
    assert_true(path_exists(ROOT "/step_00000004"));
    assert_true(path_exists(ROOT "/step_00000001"));
    assert_true(path_exists(ROOT "/notes"));
    assert_int_equal(count_entries(ROOT, "step_"), 4);
    assert_int_equal(latest_step(), 5);
    assert_ok(checkpoint_prune(ROOT, &(CheckpointKeep){0}, &err), &err);
    assert_int_equal(count_entries(ROOT, "step_"), 4);
    assert_ok(checkpoint_prune(ROOT, &(CheckpointKeep){.last = 1}, &err), &err);
    assert_int_equal(count_entries(ROOT, "step_"), 2);
    assert_ok(checkpoint_prune("run/none", &(CheckpointKeep){.last = 1}, &err), &err);
}

/* Those of the best evaluations stay besides the newest ones, and `best` names the first there is.
 */
static void test_checkpoint_prune_keeps_the_best_ones(void **state)
{
    (void)state;
    Error err = {0};
    for (int64_t step = 1; step <= 6; step++)
        save_ok(step);
    const int64_t best[] = {9, 2, 5};
    CheckpointKeep keep = {.last = 2, .step = best, .num_steps = 3};
    assert_ok(checkpoint_prune(ROOT, &keep, &err), &err);
    assert_int_equal(count_entries(ROOT, "step_"), 3); /* the fifth is one of the newest, too */
    assert_true(path_exists(ROOT "/step_00000002"));
    assert_true(path_exists(ROOT "/step_00000005"));
    Manifest *manifest = manifest_create();
    for (int i = 0; i < 3; i++)
        manifest_add_best(manifest, best[i], 0.5 / (i + 1));
    checkpoint_name_best(ROOT, manifest);
    char *name = NULL;
    size_t length = 0;
    assert_ok(file_read(ROOT "/best", 64, &name, &length, &err), &err);
    assert_string_equal(name, "step_00000002\n");
    free(name);
    manifest->num_best = 0;
    checkpoint_name_best(ROOT, manifest);
    assert_false(path_exists(ROOT "/best"));
    manifest_destroy(manifest);
}

static void test_manifest_of_a_later_format_is_refused_by_name(void **state)
{
    (void)state;
    Error err = {0};
    char *text = NULL, sha256[65];
    size_t length = 0;
    Manifest *manifest = make_manifest(1), *parsed = NULL;
    assert_ok(manifest_text(manifest, &text, &length, &err), &err);
    assert_ok(manifest_parse(text, length, "m", &parsed, &err), &err);
    manifest_destroy(parsed);
    parsed = NULL;
    char *digest = strstr(text, ",\n  \"sha256_of_the_above\"");
    assert_non_null(digest);
    strstr(text, "\"format\": 1")[10] = '2';
    assert_fails(manifest_parse(text, length, "m", &parsed, &err), ERR_DATA, &err, "SHA-256");
    digest_bytes(text, (size_t)(digest - text), sha256);
    memcpy(strrchr(digest, ':') + 3, sha256, 64);
    assert_fails(manifest_parse(text, length, "m", &parsed, &err), ERR_UNSUPPORTED, &err,
                 "m has format 2");
    /* A whole file that lacks a member is malformed. */
    strstr(text, "\"format\": 2")[10] = '1';
    memcpy(strstr(text, "\"step\""), "\"stop\"", 6);
    digest_bytes(text, (size_t)(digest - text), sha256);
    memcpy(strrchr(digest, ':') + 3, sha256, 64);
    assert_fails(manifest_parse(text, length, "m", &parsed, &err), ERR_DATA, &err,
                 "key \"step\" is missing");
    assert_null(parsed);
    free(text);
    manifest_destroy(manifest);
}

/* Gives the manifest another format, with a digest that fits. */
static void set_format(const char *path, char format)
{
    Error err = {0};
    char *text = NULL, sha256[65];
    size_t length = 0;
    assert_ok(file_read(path, 1 << 20, &text, &length, &err), &err);
    char *digest = strstr(text, ",\n  \"sha256_of_the_above\"");
    assert_non_null(digest);
    strstr(text, "\"format\": ")[10] = format;
    digest_bytes(text, (size_t)(digest - text), sha256);
    memcpy(strrchr(digest, ':') + 3, sha256, 64);
    assert_ok(file_write_atomic(path, text, length, &err), &err);
    free(text);
}

/* To fall back on an older checkpoint is for one that is damaged, not for one that this program or
 * this moment cannot read: the steps since would be lost without need. */
static void test_checkpoint_that_cannot_be_judged_is_not_passed_over(void **state)
{
    (void)state;
    Error err = {0};
    char *path = NULL;
    Manifest *manifest = NULL;
    save_ok(1);
    save_ok(2);
    set_format(ROOT "/step_00000002/" MANIFEST_NAME, '2');
    assert_fails(checkpoint_find_latest(ROOT, &path, &manifest, NULL, &err), ERR_UNSUPPORTED, &err,
                 "step_00000002");
    assert_non_null(strstr(err.message, "move it away"));
    set_format(ROOT "/step_00000002/" MANIFEST_NAME, '1');
    faults_fail_reads(EIO);
    Status status = checkpoint_find_latest(ROOT, &path, &manifest, NULL, &err);
    faults_fail_reads(0);
    assert_int_equal(status, ERR_IO);
    assert_non_null(strstr(err.message, "step_00000002"));
    assert_null(path);
    assert_int_equal(latest_step(), 2);
}

int main(void)
{
#define IN_A_RUN(test) cmocka_unit_test_setup(test, start_run)
    const struct CMUnitTest tests[] = {
        IN_A_RUN(test_checkpoint_commit_is_found_again),
        IN_A_RUN(test_checkpoint_killed_anywhere_is_whole_or_absent),
        IN_A_RUN(test_checkpoint_survives_loss_of_unflushed_data),
        IN_A_RUN(test_checkpoint_survives_loss_of_unflushed_names),
        IN_A_RUN(test_checkpoint_replaces_the_same_step_in_one_move),
        IN_A_RUN(test_checkpoint_first_save_survives_a_power_cut),
        IN_A_RUN(test_checkpoint_full_disk_at_any_call_leaves_the_older_one),
        IN_A_RUN(test_checkpoint_input_output_error_at_any_call_leaves_the_older_one),
        IN_A_RUN(test_checkpoint_small_disk_fails_before_any_work),
        IN_A_RUN(test_checkpoint_commit_refuses_what_the_manifest_does_not_say),
        IN_A_RUN(test_checkpoint_file_names_stay_inside_the_folder),
        IN_A_RUN(test_checkpoint_every_flipped_bit_is_found_and_its_file_named),
        IN_A_RUN(test_checkpoint_cut_and_missing_files_are_named),
        IN_A_RUN(test_checkpoint_find_latest_passes_over_damage_and_says_so),
        IN_A_RUN(test_checkpoint_that_cannot_be_judged_is_not_passed_over),
        IN_A_RUN(test_checkpoint_prune_keeps_the_newest_whole_ones),
        IN_A_RUN(test_checkpoint_prune_keeps_the_best_ones),
        IN_A_RUN(test_manifest_of_a_later_format_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
