/* Tests of models of the Hub: what makes a model folder is fetched and nothing else, weights only
 * when they are asked for; what a run took it takes again, without asking; what is no model that
 * could be read is refused by name. */
#include "test.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "dataset/files.h"
#include "hub/model.h"
#include "hub/support.h"

#define MODEL   "a/model"
#define COMMITS "run/hub.json"

static HubServer server;
static HubAccess access_http;

static int start_server(void **state)
{
    (void)state;
    make_fresh(SERVER_ROOT);
    hub_server_start("http", &server);
    access_http = hub_server_access("http", &server);
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    hub_server_stop(&server);
    hub_access_free(&access_http);
    return 0;
}

static int fresh(void **state)
{
    static const char index[] =
        "{\"weight_map\": {\"b\": \"model-2.safetensors\", \"a\": \"model-1.safetensors\", "
        "\"c\": \"model-2.safetensors\"}}";
    static const char *const others[] = {
        "README.md",  "pytorch_model.bin",          "q4.gguf",   "model-3.safetensors",
        "vocab.json", "original/model.safetensors", "notes.json"};
    (void)state;
    hub_make_fresh();
    make_fresh("run");
    hub_put(MODEL, COMMIT_A, "config.json", "{}");
    hub_put(MODEL, COMMIT_A, "tokenizer.json", "{\"model\": 1}");
    hub_put(MODEL, COMMIT_A, "chat_template.jinja", "{{ messages }}");
    hub_put(MODEL, COMMIT_A, "additional_chat_templates/tool_use.jinja", "{{ tools }}");
    hub_put(MODEL, COMMIT_A, "model.safetensors.index.json", index);
    hub_put_lines(MODEL, COMMIT_A, "model-1.safetensors", 0, 5000);
    hub_put_lines(MODEL, COMMIT_A, "model-2.safetensors", 0, 9000);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        hub_put(MODEL, COMMIT_A, others[i], "nobody wants this");
    hub_set_refs(MODEL, "{\"branches\": {\"main\": \"" COMMIT_A "\"}}");
    return 0;
}

static Status open_model(const char *text, HubModel **ret, Error *err)
{
    HubName name = {0};
    HubRepoOptions options = {.access = &access_http, .commits = COMMITS, .read_only = true};
    assert_true(hub_model_name_parse(text, &name));
    Status status = hub_model_open(&name, &options, ret, err);
    hub_name_free(&name);
    return status;
}

static HubModel *open_known(void)
{
    HubModel *model = NULL;
    Error err = {0};
    assert_ok(open_model("hf://" MODEL, &model, &err), &err);
    return model;
}

static bool is_here(const HubModel *model, const char *name)
{
    char *path = path_join(hub_model_folder(model), name);
    bool here = path_exists(path);
    free(path);
    return here;
}

static int64_t bytes_there(const char *name)
{
    struct stat info;
    char *path = mem_printf(SERVER_ROOT "/repos/" MODEL "/" COMMIT_A "/%s", name);
    assert_int_equal(stat(path, &info), 0);
    free(path);
    return info.st_size;
}

static void test_a_model_has_what_is_read_and_nothing_else(void **state)
{
    (void)state;
    Error err = {0};
    HubModel *model = open_known();
    int64_t one = bytes_there("model-1.safetensors"), two = bytes_there("model-2.safetensors");
    assert_string_equal(hub_model_commit(model), COMMIT_A);
    assert_string_equal(hub_model_folder(model), HUB_CACHE "/models--a--model/snapshots/" COMMIT_A);
    assert_true(is_here(model, "config.json") && is_here(model, "tokenizer.json"));
    assert_true(is_here(model, "additional_chat_templates/tool_use.jinja"));
    assert_int_equal(hub_requests_with("model-"), 0);
    HubWeights weights = hub_model_weights(model);
    assert_int_equal(weights.files, 2);
    assert_int_equal(weights.bytes, one + two);
    assert_int_equal(weights.bytes_left, one + two);
    assert_ok(hub_model_fetch_weights(model, &err), &err);
    assert_int_equal(hub_model_weights(model).bytes_left, 0);
    assert_true(is_here(model, "model-1.safetensors") && is_here(model, "model-2.safetensors"));
    static const char *const others[] = {"README", "pytorch",  "gguf", "model-3",
                                         "vocab",  "original", "notes"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_int_equal(hub_requests_with(others[i]), 0);
    hub_model_close(model);
}

/* What a run took stands in its folder; nobody is asked for it again. */
static void test_a_run_stays_at_its_commit(void **state)
{
    (void)state;
    Error err = {0};
    HubModel *model = open_known();
    assert_false(path_exists(COMMITS));
    assert_ok(hub_model_keep_commit(model, COMMITS, &err), &err);
    assert_ok(hub_model_fetch_weights(model, &err), &err);
    hub_model_close(model);
    hub_put(MODEL, COMMIT_B, "config.json", "{\"newer\": 1}");
    hub_set_refs(MODEL, "{\"branches\": {\"main\": \"" COMMIT_B "\"}}");
    hub_forget_requests();
    model = open_known();
    assert_string_equal(hub_model_commit(model), COMMIT_A);
    assert_int_equal(hub_model_weights(model).bytes_left, 0);
    assert_ok(hub_model_fetch_weights(model, &err), &err);
    assert_int_equal(hub_requests_with("\"path\""), 0);
    hub_model_close(model);
    assert_int_equal(unlink(COMMITS), 0);
    model = open_known();
    assert_string_equal(hub_model_commit(model), COMMIT_B);
    hub_model_close(model);
}

static void test_one_file_of_weights_needs_no_index(void **state)
{
    (void)state;
    Error err = {0};
    HubModel *model = NULL;
    hub_put("a/small", COMMIT_A, "config.json", "{}");
    hub_put_lines("a/small", COMMIT_A, "model.safetensors", 0, 4000);
    hub_set_refs("a/small", "{\"branches\": {}, \"tags\": {\"v1\": \"" COMMIT_A "\"}}");
    assert_ok(open_model("hf://a/small@v1", &model, &err), &err);
    assert_string_equal(hub_model_label(model), "a/small#v1");
    assert_ok(hub_model_fetch_weights(model, &err), &err);
    assert_true(is_here(model, "model.safetensors"));
    hub_model_close(model);
}

static void test_what_is_no_model_is_refused(void **state)
{
    (void)state;
    Error err = {0};
    HubModel *model = NULL;
    assert_fails(open_model("hf://a/modle", &model, &err), ERR_NOT_FOUND, &err,
                 "has no model of that name");
    assert_fails(open_model("hf://a/model@v9", &model, &err), ERR_NOT_FOUND, &err,
                 "has no revision");
    hub_put("a/pickled", COMMIT_A, "config.json", "{}");
    hub_put("a/pickled", COMMIT_A, "pytorch_model.bin", "x");
    hub_set_refs("a/pickled", "{\"branches\": {\"main\": \"" COMMIT_A "\"}}");
    assert_ok(open_model("hf://a/pickled", &model, &err), &err);
    assert_int_equal(hub_model_weights(model).files, 0);
    assert_fails(hub_model_fetch_weights(model, &err), ERR_NOT_FOUND, &err,
                 "has no weights in safetensors");
    hub_model_close(model);
    hub_put("a/gguf", COMMIT_A, "model.gguf", "x");
    hub_set_refs("a/gguf", "{\"branches\": {\"main\": \"" COMMIT_A "\"}}");
    assert_fails(open_model("hf://a/gguf", &model, &err), ERR_NOT_FOUND, &err, "no config.json");
    hub_put("a/torn", COMMIT_A, "config.json", "{}");
    hub_put("a/torn", COMMIT_A, "model.safetensors.index.json",
            "{\"weight_map\": {\"a\": \"../../config.json\"}}");
    hub_set_refs("a/torn", "{\"branches\": {\"main\": \"" COMMIT_A "\"}}");
    assert_fails(open_model("hf://a/torn", &model, &err), ERR_DATA, &err,
                 "names \"../../config.json\", which is not among its files");
}

int main(void)
{
    if (!hub_server_is_possible()) {
        print_message("no python3 to serve\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_model_has_what_is_read_and_nothing_else, fresh),
        cmocka_unit_test_setup(test_a_run_stays_at_its_commit, fresh),
        cmocka_unit_test_setup(test_one_file_of_weights_needs_no_index, fresh),
        cmocka_unit_test_setup(test_what_is_no_model_is_refused, fresh),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
