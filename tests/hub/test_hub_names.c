/* Tests of names of the Hub in the place of paths, and of what the environment says of the Hub. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/data_path.h"
#include "base/file.h"
#include "base/memory.h"
#include "hub/access.h"

typedef struct Expected {
    const char *text, *repo, *revision, *path, *config, *split;
} Expected;

static void test_spelling_of_huggingface_hub_is_read(void **state)
{
    (void)state;
    static const Expected cases[] = {
        {"hf://datasets/a/set", "a/set", "main", "", NULL, NULL},
        {"hf://datasets/a/set@v1.0", "a/set", "v1.0", "", NULL, NULL},
        {"hf://datasets/a/set@v1/data/x.jsonl", "a/set", "v1", "data/x.jsonl", NULL, NULL},
        {"hf://datasets/a/set/data/*.parquet", "a/set", "main", "data/*.parquet", NULL, NULL},
        {"hf://datasets/a/set@refs/pr/3/x.jsonl", "a/set", "refs/pr/3", "x.jsonl", NULL, NULL},
        {"hf://datasets/a/set@refs/convert/parquet", "a/set", "refs/convert/parquet", "", NULL,
         NULL},
        {"hf://datasets/a/set@refs%2Fconvert%2Fparquet", "a/set", "refs/convert/parquet", "", NULL,
         NULL},
        {"hf://datasets/a/set@refs%2fconvert%2fparquet/en/train/0000.parquet@[:10]", "a/set",
         "refs/convert/parquet", "en/train/0000.parquet", NULL, NULL},
        {"hf://datasets/a/set@refs/convert/parquet/en/train/*.parquet", "a/set",
         "refs/convert/parquet", "en/train/*.parquet", NULL, NULL},
        {"hf://datasets/a/set@refs%2Fconvert%2Fparquet@en/test", "a/set", "refs/convert/parquet",
         "", "en", "test"},
        {"hf://datasets/a/set@refs/convert/parquet/en@test", "a/set", "refs/convert/parquet", "en",
         NULL, "test"},
        {"hf://datasets/a/set@refs%2Fpr%2F3@test", "a/set", "refs/pr/3", "", NULL, "test"},
        {"hf://datasets/a/set@100%25@test", "a/set", "100%", "", NULL, "test"},
        {"hf://datasets/a/set@50%", "a/set", "50%", "", NULL, NULL},
        {"hf://datasets/a/set@feature%2Fnew/x", "a/set", "feature/new", "x", NULL, NULL},
        {"hf://datasets/a/set@main@test", "a/set", "main", "", NULL, "test"},
        {"hf://datasets/a/set@main@en/test", "a/set", "main", "", "en", "test"},
        {"hf://datasets/a/set@v1/data@test", "a/set", "v1", "data", NULL, "test"},
        {"hf://datasets/a/set/data@en/test", "a/set", "main", "data", "en", "test"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        DataPath path = data_path_parse(cases[i].text);
        print_message("%s\n", cases[i].text);
        assert_non_null(path.hub.repo);
        assert_string_equal(path.hub.repo, cases[i].repo);
        assert_string_equal(path.hub.revision, cases[i].revision);
        assert_string_equal(path.path, cases[i].path);
        if (cases[i].config != NULL) assert_string_equal(path.config, cases[i].config);
        if (cases[i].split != NULL) assert_string_equal(path.split, cases[i].split);
        assert_true((cases[i].config == NULL) == (path.config == NULL));
        assert_true((cases[i].split == NULL) == (path.split == NULL));
        data_path_free(&path);
    }
}

static void test_what_is_no_data_set_is_no_name(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "hf://a/model",          "hf://datasets/a",         "hf://datasets/a/set@",
        "hf://datasets/-a/set",  "hf://datasets/a/s--et",   "hf://datasets/a/set@v1/../x",
        "hf://datasets/a/set//", "hf://datasets/a/set@..",  "hf://datasets/a/set@a b",
        "hf://spaces/a/set",     "hf://datasets/a/set/./x", "datasets/a/set",
        "hf://buckets/a/set",    "hf://datasets/a/set@%00", "hf://datasets/a/set@a%0Ab"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        HubName name = {0};
        print_message("%s\n", cases[i]);
        assert_false(hub_name_parse(cases[i], &name));
        assert_null(name.repo);
    }
}

static void assert_expanded(const char *text, const char *expected)
{
    char *found = hub_name_expand(text, ".");
    print_message("%s\n", text);
    if (expected == NULL) {
        assert_null(found);
    } else {
        assert_non_null(found);
        assert_string_equal(found, expected);
    }
    free(found);
}

static void test_short_names_become_long_ones(void **state)
{
    (void)state;
    assert_expanded("openai/gsm8k", "hf://datasets/openai/gsm8k@main");
    assert_expanded("openai/gsm8k@main/train", "hf://datasets/openai/gsm8k@main@main/train");
    assert_expanded("openai/gsm8k@test@[:10]", "hf://datasets/openai/gsm8k@main@test@[:10]");
    assert_expanded("openai/gsm8k#v1@test", "hf://datasets/openai/gsm8k@v1@test");
    assert_expanded("openai/gsm8k#a/b", "hf://datasets/openai/gsm8k@a%2Fb");
    assert_expanded("openai/gsm8k#refs/pr/4@x", "hf://datasets/openai/gsm8k@refs/pr/4@x");
    assert_expanded("openai/gsm8k#refs/convert/parquet@main/train",
                    "hf://datasets/openai/gsm8k@refs/convert/parquet@main/train");
    assert_expanded("openai/gsm8k#100%", "hf://datasets/openai/gsm8k@100%25");
    Error err = {0};
    assert_ok(folder_create("here/set", &err), &err);
    assert_expanded("here/set", NULL);
    assert_expanded("here/sett", NULL); /* a slip, in a folder that is there */
    assert_expanded("data/train", NULL);
    assert_expanded("owner/train.jsonl", NULL);
    assert_expanded("owner/train.jsonl.gz", NULL);
    assert_expanded("owner/*.parquet", NULL);
    assert_expanded("owner/name/more", NULL);
    assert_expanded("./owner/name", NULL);
    assert_expanded("/owner/name", NULL);
    assert_expanded("name", NULL);
    assert_expanded("owner/.name", NULL);
}

static void assert_model(const char *text, const char *expected, const char *revision)
{
    char *found = hub_model_name_expand(text, ".");
    HubName name = {0};
    print_message("%s\n", text);
    if (expected == NULL) {
        assert_null(found);
        return;
    }
    assert_non_null(found);
    assert_string_equal(found, expected);
    assert_true(hub_model_name_parse(found, &name));
    assert_true(name.model);
    assert_string_equal(name.revision, revision);
    hub_name_free(&name);
    free(found);
}

static void test_names_of_models_are_told_from_folders(void **state)
{
    (void)state;
    Error err = {0};
    assert_model("Qwen/Qwen3-0.6B", "hf://Qwen/Qwen3-0.6B@main", "main");
    assert_model("Qwen/Qwen3-0.6B#v1.0", "hf://Qwen/Qwen3-0.6B@v1.0", "v1.0");
    assert_model("Qwen/Qwen3-0.6B#refs/pr/4", "hf://Qwen/Qwen3-0.6B@refs/pr/4", "refs/pr/4");
    assert_ok(folder_create("there/model", &err), &err);
    static const char *const paths[] = {
        "there/model",     "there/modle",    "models/Qwen3-0.6B", "Qwen/Qwen3/x",
        "Qwen/Qwen3@main", "/Qwen/Qwen3",    "./Qwen/Qwen3",      "Qwen",
        "runs/my-job",     "../models/Qwen3"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        assert_model(paths[i], NULL, NULL);
    static const char *const wrong[] = {"hf://datasets/a/set", "hf://a",        "hf://spaces/a/b",
                                        "hf://a/model/x",      "hf://a/model@", "a/model",
                                        "hf://spaces/b",       "hf://buckets/b"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        HubName name = {0};
        assert_false(hub_model_name_parse(wrong[i], &name));
        assert_null(name.repo);
    }
}

/* ---- the environment ---- */

static const char *variables[16];

static char *variable(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; variables[i] != NULL; i++)
        if (strncmp(variables[i], name, length) == 0 && variables[i][length] == '=')
            return (char *)variables[i] + length + 1;
    return NULL;
}

static HubAccess read_access(const char *const *list)
{
    HubAccess access = {0};
    Error err = {0};
    size_t count = 0;
    for (; list[count] != NULL; count++)
        variables[count] = list[count];
    variables[count] = NULL;
    assert_ok(hub_access_read(variable, &access, &err), &err);
    return access;
}

static void test_environment_is_that_of_huggingface_hub(void **state)
{
    (void)state;
    HubAccess access = read_access((const char *const[]){"HOME=/home/ada", NULL});
    assert_string_equal(access.endpoint, "https://huggingface.co");
    assert_string_equal(access.cache, "/home/ada/.cache/huggingface/hub");
    assert_null(access.token);
    assert_false(access.offline);
    hub_access_free(&access);
    access = read_access((const char *const[]){"HOME=/home/ada", "XDG_CACHE_HOME=/c",
                                               "HF_ENDPOINT=https://mirror/", "HF_TOKEN= hf_x\n",
                                               "HF_HUB_OFFLINE=1", NULL});
    assert_string_equal(access.endpoint, "https://mirror");
    assert_string_equal(access.cache, "/c/huggingface/hub");
    assert_string_equal(access.token, "hf_x");
    assert_true(access.offline);
    hub_access_free(&access);
    access = read_access((const char *const[]){"HOME=/h", "HF_HOME=~/hf", "HF_HUB_CACHE=/big",
                                               "SSL_CERT_FILE=/ca.pem", NULL});
    assert_string_equal(access.cache, "/big");
    assert_string_equal(access.ca_file, "/ca.pem");
    hub_access_free(&access);
}

static void test_token_is_read_from_its_file(void **state)
{
    (void)state;
    Error err = {0};
    assert_ok(folder_create("home", &err), &err);
    assert_ok(file_write_atomic("home/token", "hf_file\n", 8, &err), &err);
    HubAccess access = read_access((const char *const[]){"HF_HOME=home", NULL});
    assert_string_equal(access.token, "hf_file");
    hub_access_free(&access);
    assert_ok(file_write_atomic("home/token", "two words\n", 10, &err), &err);
    assert_fails(hub_access_read(variable, &access, &err), ERR_INVALID, &err, "not one word");
    variables[0] = "HF_ENDPOINT=huggingface.co";
    assert_fails(hub_access_read(variable, &access, &err), ERR_INVALID, &err, "HF_ENDPOINT is");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spelling_of_huggingface_hub_is_read),
        cmocka_unit_test(test_what_is_no_data_set_is_no_name),
        cmocka_unit_test(test_short_names_become_long_ones),
        cmocka_unit_test(test_names_of_models_are_told_from_folders),
        cmocka_unit_test(test_environment_is_that_of_huggingface_hub),
        cmocka_unit_test(test_token_is_read_from_its_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
