/* The tokenizer against published vectors and the ids that the `tokenizers` package gives. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "text/tokenizer.h"

/* Real vocabularies are not part of the source: a folder beside it, or $TROUPE_SHARED, may hold
 * them. */
static char *shared_path(const char *name)
{
    const char *folder = getenv("TROUPE_SHARED");
    if (folder == NULL) folder = PROJECT_SOURCE_DIR "/../shared";
    char *path = path_join(folder, name);
    if (path_exists(path)) return path;
    print_message("skipped: %s is absent\n", path);
    free(path);
    return NULL;
}

static char *encode_line(const Tokenizer *tokenizer, const char *text, size_t length)
{
    Error err = {0};
    Encoding encoding = {0};
    assert_ok(tokenizer_encode(tokenizer, NULL, text, length, NULL, false, &encoding, &err), &err);
    char *line = mem_strdup("");
    for (size_t i = 0; i < encoding.length; i++) {
        char *longer = mem_printf("%s %d", line, encoding.span[i].id);
        free(line);
        line = longer;
    }
    encoding_free(&encoding);
    return line;
}

static void check_vectors(const char *tokenizer_name, const char *vectors_name)
{
    Error err = {0};
    char *tokenizer_path = shared_path(tokenizer_name);
    char *inp_name = mem_printf("%s.inp", vectors_name),
         *out_name = mem_printf("%s.out", vectors_name);
    char *inp_path = shared_path(inp_name), *out_path = shared_path(out_name);
    free(inp_name);
    free(out_name);
    if (tokenizer_path == NULL || inp_path == NULL || out_path == NULL) skip();
    Tokenizer *tokenizer = NULL;
    assert_ok(tokenizer_load(tokenizer_path, &tokenizer, &err), &err);
    char *inp = NULL, *out = NULL;
    size_t inp_length, out_length;
    assert_ok(file_read(inp_path, 1 << 20, &inp, &inp_length, &err), &err);
    assert_ok(file_read(out_path, 1 << 20, &out, &out_length, &err), &err);
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char *text = inp, *expected = out;
    int count = 0;
    for (;;) {
        char *end = strstr(text, separator);
        if (end == NULL) break;
        char *line_end = strchr(expected, '\n');
        assert_non_null(line_end);
        *line_end = '\0';
        char *found = encode_line(tokenizer, text, (size_t)(end - text));
        assert_string_equal(found, expected);
        free(found);
        text = end + strlen(separator);
        expected = line_end + 1;
        count++;
    }
    assert_true(count >= 40);
    free(inp);
    free(out);
    free(inp_path);
    free(out_path);
    free(tokenizer_path);
    tokenizer_destroy(tokenizer);
}

static void test_tokenizer_gives_the_published_ids_of_gpt2(void **state)
{
    (void)state;
    check_vectors("data/tokenizers/gpt2/tokenizer.json", "data/tokenizers/vectors/gpt-2");
}

static void test_tokenizer_gives_the_published_ids_of_qwen(void **state)
{
    (void)state;
    check_vectors("data/tokenizers/qwen3/tokenizer.json", "data/tokenizers/vectors/qwen2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_gives_the_published_ids_of_gpt2),
        cmocka_unit_test(test_tokenizer_gives_the_published_ids_of_qwen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
