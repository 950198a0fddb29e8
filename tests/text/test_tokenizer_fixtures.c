/* Small tokenizers of every kind against the ids and texts that the `tokenizers` package gives
 * (make_tokenizer_fixtures.py). */
#include "test.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "base/utf8.h"
#include "text/tokenizer/tokenizer.h"

static const char *field(const cJSON *object, const char *key, const char *otherwise)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(value) ? value->valuestring : otherwise;
}

static void check_decoded(const Tokenizer *tokenizer, const Encoding *encoding, bool skip_special,
                          const char *expected)
{
    Error err = {0};
    int32_t *ids = mem_calloc(encoding->length + 1, sizeof *ids);
    for (size_t i = 0; i < encoding->length; i++)
        ids[i] = encoding->span[i].id;
    char *text = NULL;
    size_t length = 0;
    assert_ok(
        tokenizer_decode(tokenizer, ids, encoding->length, skip_special, &text, &length, &err),
        &err);
    assert_int_equal(length, strlen(text));
    assert_string_equal(text, expected);
    free(text);
    free(ids);
}

/* Decodes id by id: every piece is UTF-8, and together they are the whole. */
static void check_stream(const Tokenizer *tokenizer, const Encoding *encoding, const char *expected)
{
    Error err = {0};
    DecodeStream *stream = decode_stream_create(tokenizer, false);
    Str text = {0};
    for (size_t i = 0; i <= encoding->length; i++) {
        char *piece = NULL;
        size_t length = 0;
        if (i < encoding->length)
            assert_ok(decode_stream_step(stream, encoding->span[i].id, &piece, &length, &err),
                      &err);
        else
            assert_ok(decode_stream_finish(stream, &piece, &length, &err), &err);
        assert_int_equal(utf8_valid_prefix(piece, length), length);
        str_append(&text, piece, length);
        free(piece);
    }
    assert_string_equal(str_text(&text), expected);
    str_free(&text);
    decode_stream_destroy(stream);
}

static void check_ids(const cJSON *expected, const Encoding *encoding, const char *text)
{
    size_t index = 0;
    const cJSON *id;
    cJSON_ArrayForEach(id, expected)
    {
        if (index >= encoding->length || encoding->span[index].id != id->valueint)
            fail_msg("token %zu of \"%s\" is %d, expected %d", index, text,
                     index < encoding->length ? encoding->span[index].id : -1, id->valueint);
        index++;
    }
    assert_int_equal(encoding->length, index);
}

/* Encodes and decodes every case of a fixture, with a cache (twice: cold and warm) and without. */
static void check_fixture(const char *name, bool streams)
{
    Error err = {0};
    char *folder = mem_printf("%s/text/fixtures/%s", TEST_SOURCE_DIR, name);
    char *cases_path = mem_printf("%s/expected.json", folder);
    Tokenizer *tokenizer = NULL;
    cJSON *cases = NULL;
    assert_ok(tokenizer_load(folder, &tokenizer, &err), &err);
    assert_ok(json_read(cases_path, 1 << 20, &cases, &err), &err);
    TokenizerCache *cache = tokenizer_cache_create(tokenizer, 1 << 16);
    int count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, cases)
    {
        const char *text = field(item, "text", "");
        bool special = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "special"));
        Encoding encoding = {0};
        TokenizerCache *used[] = {NULL, cache, cache};
        for (int i = 0; i < 3; i++) {
            encoding.length = 0;
            assert_ok(tokenizer_encode(tokenizer, used[i], text, strlen(text), NULL, special,
                                       &encoding, &err),
                      &err);
            check_ids(cJSON_GetObjectItemCaseSensitive(item, "ids"), &encoding, text);
        }
        const char *decoded = field(item, "decoded", text);
        check_decoded(tokenizer, &encoding, false, decoded);
        if (streams) check_stream(tokenizer, &encoding, decoded);
        check_decoded(tokenizer, &encoding, true, field(item, "without_special", decoded));
        encoding_free(&encoding);
        count++;
    }
    assert_true(count >= 40);
    tokenizer_cache_destroy(cache);
    tokenizer_destroy(tokenizer);
    cJSON_Delete(cases);
    free(cases_path);
    free(folder);
}

/* `streams`: what a decoder makes of some ids is the beginning of what it makes of more. */
#define FIXTURE_TEST(name, streams)                                                                \
    static void test_tokenizer_##name##_equals_the_package(void **state)                           \
    {                                                                                              \
        (void)state;                                                                               \
        check_fixture(#name, streams);                                                             \
    }

FIXTURE_TEST(affixes, false)
FIXTURE_TEST(behaviors, false)
FIXTURE_TEST(deepseek, true)
FIXTURE_TEST(falcon, true)
FIXTURE_TEST(flags, true)
FIXTURE_TEST(gemma, true)
FIXTURE_TEST(gpt2, true)
FIXTURE_TEST(llama2, true)
FIXTURE_TEST(llama3, true)
FIXTURE_TEST(metaspace, true)
FIXTURE_TEST(o200k, true)
FIXTURE_TEST(qwen, true)
FIXTURE_TEST(tekken, true)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_affixes_equals_the_package),
        cmocka_unit_test(test_tokenizer_behaviors_equals_the_package),
        cmocka_unit_test(test_tokenizer_deepseek_equals_the_package),
        cmocka_unit_test(test_tokenizer_falcon_equals_the_package),
        cmocka_unit_test(test_tokenizer_flags_equals_the_package),
        cmocka_unit_test(test_tokenizer_gemma_equals_the_package),
        cmocka_unit_test(test_tokenizer_gpt2_equals_the_package),
        cmocka_unit_test(test_tokenizer_llama2_equals_the_package),
        cmocka_unit_test(test_tokenizer_llama3_equals_the_package),
        cmocka_unit_test(test_tokenizer_metaspace_equals_the_package),
        cmocka_unit_test(test_tokenizer_o200k_equals_the_package),
        cmocka_unit_test(test_tokenizer_qwen_equals_the_package),
        cmocka_unit_test(test_tokenizer_tekken_equals_the_package),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
