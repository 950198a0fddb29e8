/* What `controller samples` shows of the answers that a run saved. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/manifest.h"
#include "config/stage_list.h"
#include "rollout_worker/browse_view.h"
#include "rollout_worker/saved_group.h"

#define RUN "browse_run"

static const char job[] = "model: {path: m}\n"
                          "data: {train: t}\n"
                          "rollout: {function: generate, reward: random, n_samples_per_prompt: 2, "
                          "save: answers}\n"
                          "algorithm: {dynamic_filter: zero_variance}\n";

static const char job_of_stage_2[] =
    "model: {path: m}\ndata: {train: t}\nrollout: {function: generate, reward: random, "
    "n_samples_per_prompt: 2, save: answers}\n";

/* A group of two answers with these rewards; not finite: the answer could not be judged. */
static void save_in(const char *folder, const char *set, int64_t position, double first,
                    double second)
{
    Error err = {0};
    RolloutRecord record = {.position = position};
    RolloutGroup group = {0};
    const double reward[] = {first, second};
    for (int i = 0; i < 2; i++) {
        Sample *sample = rollout_group_add(&group, &record);
        if (!isfinite(reward[i])) {
            rollout_reject(sample, REJECT_UNJUDGED, "t:1: the verifier is away");
            continue;
        }
        sample->length = 4;
        sample->prompt_length = 2;
        sample->token = mem_calloc(4, sizeof *sample->token);
        sample->loss_mask = mem_calloc(4, 1);
        sample->log_prob = mem_calloc(4, sizeof *sample->log_prob);
        sample->loss_mask[2] = sample->loss_mask[3] = 1;
        sample->log_prob[2] = -1;
        sample->log_prob[3] = -3;
        sample->temperature = 1;
        sample->reward = (float)reward[i];
        sample->work = (SampleWork){.num_parts = 2, .part = {(float)reward[i], 0.25f}};
        sample->right = reward[i] >= 1;
        sample->version_run = mem_calloc(1, sizeof *sample->version_run);
        sample->version_run[0] = (VersionRun){5, 2};
        sample->num_version_runs = 1;
    }
    char *prompt = mem_printf("prompt %lld?", (long long)position);
    Slice response[] = {slice_from("one"), slice_from("two")};
    RewardResult result[] = {{.answer = "1", .extra = mem_strdup("{\"by\": [1]}")},
                             {.answer = "2", .extra = mem_strdup("7")}};
    const RewardNames names = {.count = 2, .name = {"math", "format"}};
    cJSON *own = cJSON_CreateString("mine");
    const cJSON *extra[] = {NULL, own};
    SavedTexts texts = {.prompt = slice_from(prompt),
                        .label = slice_from("label"),
                        .response = response,
                        .result = result,
                        .extra = extra,
                        .rewards = &names};
    char *path = saved_group_path(folder, set, 7, position);
    assert_ok(saved_group_write(path, &group, &texts, &err), &err);
    for (int i = 0; i < 2; i++)
        reward_result_clear(&result[i]);
    cJSON_Delete(own);
    rollout_group_clear(&group);
    free(path);
    free(prompt);
}

static void save(const char *set, int64_t position, double first, double second)
{
    save_in(RUN "/answers", set, position, first, second);
}

static void consume(Ledger *ledger, int64_t step, int64_t first, int64_t trained, int64_t dropped)
{
    Error err = {0};
    LedgerRecord record = {.step = step,
                           .first = first,
                           .end = first + 2,
                           .accepted = &trained,
                           .num_accepted = 1,
                           .rejected = &dropped,
                           .num_rejected = 1};
    assert_ok(ledger_append(ledger, &record, &err), &err);
}

/* Positions 0 to 3 are consumed by steps 1 and 2, 1000 by none. */
static int make_run(void **state)
{
    (void)state;
    Error err = {0};
    Ledger *ledger = NULL;
    assert_ok(folder_remove(RUN, &err), &err);
    assert_ok(folder_create(RUN, &err), &err);
    assert_ok(file_write_atomic(RUN "/config.effective.yaml", job, strlen(job), &err), &err);
    save(NULL, 0, 0, 1);
    save(NULL, 1, 0.5, 0.5); /* zero variance */
    save(NULL, 2, 0.25, 2);
    save(NULL, 3, 1, (double)NAN); /* too small */
    save(NULL, 1000, -1, 0);
    save("eval", 0, 1, 0);
    assert_true(path_exists(RUN "/answers/eval-step6")); /* version 7 */
    assert_ok(ledger_open(RUN "/ledger.jsonl", NULL, NULL, &ledger, NULL, &err), &err);
    consume(ledger, 1, 0, 0, 1);
    consume(ledger, 2, 2, 2, 3);
    ledger_close(ledger);
    return 0;
}

/* ---- what was shown ---- */

typedef struct Shown {
    Str places; /* "position.index " of each */
    Str json, text;
    BrowsedAnswer last;
} Shown;

static void show(void *context, const BrowsedAnswer *answer)
{
    Shown *shown = context;
    str_printf(&shown->places, "%lld.%d ", (long long)answer->sample->position,
               answer->sample->index);
    browse_view_json(answer, &shown->json);
    browse_view_text(answer, NULL, false, &shown->text);
    shown->last = *answer;
}

static void shown_free(Shown *shown)
{
    str_free(&shown->places);
    str_free(&shown->json);
    str_free(&shown->text);
}

static BrowseOptions options_of(BrowseOrder order, uint64_t count)
{
    return (BrowseOptions){.run = RUN, .step = -1, .position = -1, .order = order, .count = count};
}

static Shown browse(const BrowseOptions *options)
{
    Error err = {0};
    Browser *browser = NULL;
    Shown shown = {0};
    uint64_t count = 0;
    assert_ok(browser_open(options, &browser, &err), &err);
    assert_ok(browser_show(browser, show, &shown, &count, &err), &err);
    assert_true(count <= options->count);
    browser_close(browser);
    return shown;
}

static void expect(const BrowseOptions *options, const char *places)
{
    Shown shown = browse(options);
    assert_string_equal(str_text(&shown.places), places);
    shown_free(&shown);
}

static void test_browse_finds_the_highest_and_lowest_rewards(void **state)
{
    (void)state;
    BrowseOptions best = options_of(BROWSE_BEST, 3), worst = options_of(BROWSE_WORST, 4);
    expect(&best, "2.1 0.1 3.0 "); /* of equals the earlier; the one without a reward is none */
    expect(&worst, "1000.0 0.0 1000.1 2.0 ");
    BrowseOptions all = options_of(BROWSE_IN_ORDER, 99);
    expect(&all, "0.0 0.1 1.0 1.1 2.0 2.1 3.0 3.1 1000.0 1000.1 ");
}

static void test_browse_looks_at_a_step_a_position_a_prompt(void **state)
{
    (void)state;
    BrowseOptions options = options_of(BROWSE_IN_ORDER, 99);
    options.step = 2;
    expect(&options, "2.0 2.1 3.0 3.1 ");
    options = options_of(BROWSE_IN_ORDER, 1);
    options.position = 1000;
    expect(&options, "1000.0 ");
    options = options_of(BROWSE_BEST, 99);
    options.prompt = "prompt 1?";
    expect(&options, "1.0 1.1 ");
    options = options_of(BROWSE_IN_ORDER, 99);
    options.set = "eval";
    expect(&options, "0.0 0.1 ");
    options.step = 6; /* version 7 */
    expect(&options, "0.0 0.1 ");
}

/* The ledger of a long run is read from the checkpoint before the step on: what stands there in
 * line 1 is then of no consequence, as for a resume, and else it is. */
static void test_browse_reads_the_ledger_from_the_checkpoint_before_the_step(void **state)
{
    (void)state;
    Error err = {0};
    Ledger *ledger = NULL;
    Manifest *manifest = manifest_create();
    Browser *browser = NULL;
    char *folder = NULL, *path = NULL, *text = NULL;
    size_t length = 0;
    assert_ok(ledger_open(RUN "/ledger.jsonl", NULL, NULL, &ledger, NULL, &err), &err);
    consume(ledger, 1, 0, 0, 1);
    consume(ledger, 2, 2, 2, 3);
    manifest->step = 2;
    manifest->ledger_head = mem_strdup(ledger_head(ledger));
    manifest->ledger_mark = *ledger_mark(ledger);
    manifest->data_fingerprint = mem_strdup("");
    manifest->config_sha256 = mem_strdup("");
    manifest->tp_size = manifest->dp_size = 1;
    consume(ledger, 3, 1000, 1000, 1001);
    ledger_close(ledger);
    assert_ok(checkpoint_begin(RUN "/checkpoints", 2, &folder, &err), &err);
    assert_ok(checkpoint_commit(RUN "/checkpoints", folder, manifest, &path, &err), &err);

    assert_ok(file_read(RUN "/ledger.jsonl", 1 << 20, &text, &length, &err), &err);
    text[20] ^= 1;
    assert_ok(file_write_atomic(RUN "/ledger.jsonl", text, length, &err), &err);
    BrowseOptions options = options_of(BROWSE_IN_ORDER, 99);
    options.step = 3;
    expect(&options, "1000.0 1000.1 ");
    options.step = 2;
    assert_fails(browser_open(&options, &browser, &err), ERR_DATA, &err, "ledger.jsonl:1: ");
    options.step = -1;
    assert_fails(browser_open(&options, &browser, &err), ERR_DATA, &err, "ledger.jsonl:1: ");
    manifest_destroy(manifest);
    free(folder);
    free(path);
    free(text);
}

static void test_browse_at_random_repeats_itself_with_its_seed(void **state)
{
    (void)state;
    int others = 0;
    BrowseOptions options = options_of(BROWSE_RANDOM, 4);
    Shown first = browse(&options);
    expect(&options, str_text(&first.places));
    for (options.seed = 1; options.seed < 9; options.seed++) {
        Shown other = browse(&options);
        others += strcmp(str_text(&other.places), str_text(&first.places)) != 0;
        shown_free(&other);
    }
    assert_true(others > 4);
    shown_free(&first);
}

static BrowsedAnswer answer_at(int64_t position, int index, const char *in_json,
                               const char *in_text)
{
    BrowseOptions options = options_of(BROWSE_IN_ORDER, (uint64_t)index + 1);
    options.position = position;
    Shown shown = browse(&options);
    if (strstr(str_text(&shown.json), in_json) == NULL) fail_msg("%s", str_text(&shown.json));
    if (strstr(str_text(&shown.text), in_text) == NULL) fail_msg("%s", str_text(&shown.text));
    BrowsedAnswer answer = shown.last;
    answer.json = NULL; /* gone with the browser */
    answer.sample = NULL;
    shown_free(&shown);
    return answer;
}

static void test_browse_tells_what_became_of_an_answer(void **state)
{
    (void)state;
    BrowsedAnswer kept =
        answer_at(2, 1, "\"dropped\": null", "trained in step 2: right, reward 2, advantage +");
    assert_true(kept.trained);
    assert_int_equal(kept.step, 2);
    /* GRPO: the distance from the mean 1.125 over the deviation 1.75 / sqrt(2) */
    assert_true(fabs(kept.advantage - 0.875 / (1.75 / sqrt(2.0) + 1e-6)) < 1e-6);
    assert_true(kept.log_prob_mean == -2);
    BrowsedAnswer flat = answer_at(1, 0, "\"dropped\": \"zero_variance\"",
                                   "not trained: its group was dropped, zero_variance");
    assert_false(flat.trained);
    answer_at(1, 0, "\"trained\": false", "dropped at step 1: wrong, reward 0.5\n");
    answer_at(2, 0, "\"math\":", "{\"math\": 0.25, \"format\": 0.25}\n");
    answer_at(2, 0, "\"extra\": {\"by\": [1]}", "  extra:\n");
    answer_at(2, 1, "\"extra\": {\"function\": \"mine\", \"reward\": 7}", "\"math\": 2");
    BrowsedAnswer lost = answer_at(3, 1, "\"dropped\": \"unjudged\"", "the verifier is away");
    answer_at(3, 1, "\"trained\": false", "rejected at step 2: not judged\n");
    assert_false(lost.trained);
    assert_true(isnan(lost.advantage));
    BrowsedAnswer waits = answer_at(1000, 0, "\"step\": null", "prompt 1000?⟦one⟧");
    assert_false(waits.trained);
    assert_int_equal(waits.step, 0);
}

static void enter(int number, char *name, int64_t steps_before, int generating_before,
                  const char *yaml)
{
    Error err = {0};
    StageEntry entry = {number, name, steps_before, generating_before};
    assert_ok(stage_list_enter(RUN, &entry, yaml, &err), &err);
}

/* The second stage made step 3, from positions 0 and 1 of its own; the third makes no answers. */
static void make_stages(void)
{
    static const char supervised[] = "model: {path: m}\ndata: {train: t}\n";
    Error err = {0};
    LedgerSummary summary;
    Ledger *ledger = NULL;
    assert_ok(ledger_read(RUN "/ledger.jsonl", NULL, NULL, &summary, &err), &err);
    assert_ok(ledger_open(RUN "/ledger.jsonl", summary.head, NULL, &ledger, NULL, &err), &err);
    consume(ledger, 3, 0, 0, 1);
    ledger_close(ledger);
    save_in(RUN "/answers/stage_2", NULL, 0, 0.5, 0.5);
    enter(1, "first", 0, 0, job);
    enter(2, "second", 2, 1, job_of_stage_2);
    enter(3, "last", 3, 2, supervised);
}

static void test_browse_tells_of_one_stage(void **state)
{
    (void)state;
    make_stages();
    /* The last one that saved answers, as its job judges them. */
    BrowseOptions options = options_of(BROWSE_IN_ORDER, 99);
    Shown shown = browse(&options);
    assert_string_equal(str_text(&shown.places), "0.0 0.1 ");
    assert_int_equal(shown.last.step, 3);
    assert_true(shown.last.trained);
    assert_non_null(strstr(str_text(&shown.json), "\"stage\": \"second\""));
    shown_free(&shown);
    static const char *const names[] = {"first", "1"};
    for (int i = 0; i < 2; i++) {
        options = options_of(BROWSE_IN_ORDER, 99);
        options.stage = names[i];
        expect(&options, "0.0 0.1 1.0 1.1 2.0 2.1 3.0 3.1 1000.0 1000.1 ");
        options.step = 1;
        shown = browse(&options);
        assert_string_equal(str_text(&shown.places), "0.0 0.1 1.0 1.1 ");
        assert_non_null(strstr(str_text(&shown.json), "\"stage\": \"first\""));
        assert_non_null(strstr(str_text(&shown.json), "\"dropped\": \"zero_variance\""));
        shown_free(&shown);
    }
    options.set = "eval";
    options.step = -1;
    expect(&options, "0.0 0.1 ");
}

static void test_browse_names_the_stage_that_lacks_what_is_asked_for(void **state)
{
    (void)state;
    const struct {
        const char *stage;
        int64_t step;
        const char *said;
    } asked[] = {{"first", 3, "stage first (1 of 3 so far): --stage shows another"},
                 {NULL, 2, "stage second (2 of 3 so far)"},
                 {"last", -1, "stage last (3 of 3 so far) generates no answers"},
                 {"rl", -1, "Its stages so far: 1 (first), 2 (second), 3 (last)"}};
    Error err = {0};
    Browser *browser = NULL;
    make_stages();
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        BrowseOptions options = options_of(BROWSE_IN_ORDER, 9);
        options.stage = asked[i].stage;
        options.step = asked[i].step;
        assert_fails(browser_open(&options, &browser, &err), ERR_NOT_FOUND, &err, asked[i].said);
    }
    /* The run is at its first stage again, and not worth telling of when it has no name. */
    enter(1, NULL, 0, 0, job);
    BrowseOptions options = options_of(BROWSE_IN_ORDER, 9);
    assert_ok(browser_open(&options, &browser, &err), &err);
    assert_null(browser_stage(browser));
    browser_close(browser);
    options.stage = "second";
    assert_fails(browser_open(&options, &browser, &err), ERR_NOT_FOUND, &err, "so far: 1.");
    assert_ok(file_write_atomic(RUN "/stages.jsonl", "{\"stage\": 0}\n", 13, &err), &err);
    assert_fails(browser_open(&options, &browser, &err), ERR_DATA, &err, "stages.jsonl:1");
}

static void test_browse_says_what_is_missing(void **state)
{
    (void)state;
    Error err = {0};
    Browser *browser = NULL;
    uint64_t count = 0;
    BrowseOptions options = options_of(BROWSE_IN_ORDER, 9);
    options.run = "nowhere";
    assert_fails(browser_open(&options, &browser, &err), ERR_NOT_FOUND, &err, "not a run folder");
    options = options_of(BROWSE_IN_ORDER, 9);
    options.step = 9;
    assert_fails(browser_open(&options, &browser, &err), ERR_NOT_FOUND, &err, "no answers of that");
    options.set = "eval";
    assert_fails(browser_open(&options, &browser, &err), ERR_NOT_FOUND, &err, "after steps 6");
    options.set = "gsm8k";
    assert_fails(browser_open(&options, &browser, &err), ERR_NOT_FOUND, &err,
                 "No evaluation of it");
    static const char torn[] = "{\"position\": 5, \"index\": 0";
    assert_ok(
        file_write_atomic(RUN "/answers/train/000000/000000005.jsonl", torn, sizeof torn - 1, &err),
        &err);
    options = options_of(BROWSE_IN_ORDER, 99);
    Shown shown = {0};
    assert_ok(browser_open(&options, &browser, &err), &err);
    assert_fails(browser_show(browser, show, &shown, &count, &err), ERR_DATA, &err,
                 "000000005.jsonl:1");
    browser_close(browser);
    shown_free(&shown);
}

#define IN_A_RUN(test) cmocka_unit_test_setup(test, make_run)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_RUN(test_browse_finds_the_highest_and_lowest_rewards),
        IN_A_RUN(test_browse_looks_at_a_step_a_position_a_prompt),
        IN_A_RUN(test_browse_reads_the_ledger_from_the_checkpoint_before_the_step),
        IN_A_RUN(test_browse_at_random_repeats_itself_with_its_seed),
        IN_A_RUN(test_browse_tells_what_became_of_an_answer),
        IN_A_RUN(test_browse_tells_of_one_stage),
        IN_A_RUN(test_browse_names_the_stage_that_lacks_what_is_asked_for),
        IN_A_RUN(test_browse_says_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
