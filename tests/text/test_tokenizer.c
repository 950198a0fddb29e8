/* The tokenizer against published vectors; special tokens only where they are allowed; which bytes
 * a token covers; wrong and unknown files. Ids of many kinds of tokenizer:
 * test_tokenizer_fixtures.c. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "text/tokenizer/tokenizer.h"

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

/* The ids that a tokenizer, given as JSON, makes of a text, as encode_line prints them. */
static void check_ids(const char *json, const char *text, const char *expected)
{
    Error err = {0};
    Tokenizer *tokenizer = NULL;
    assert_ok(tokenizer_parse(json, strlen(json), "t.json", &tokenizer, &err), &err);
    char *found = encode_line(tokenizer, text, strlen(text));
    assert_string_equal(found, expected);
    free(found);
    tokenizer_destroy(tokenizer);
}

/* With "^" put in front, tokenizers 0.23.3 spells that and leaves it unspelled beside it, and it
 * panics where nothing is cut off; behind a character it spells it once, as we do in both. */
static void test_bytes_of_what_stands_for_nothing_are_spelled_once(void **state)
{
    (void)state;
    static const char form[] =
        "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"%s\"},\"content\":"
        "\"\u00e9\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":false,\"use_regex\":%s},\"model\":{\"type\":\"BPE\",\"unk_token\":"
        "\"<unk>\",\"vocab\":{\"<unk>\":0,\"1\":1,\"\u00c3\":2,\"\u00a9\":3,\"a\":4},"
        "\"merges\":[]}}";
    for (int cuts = 0; cuts < 2; cuts++) {
        char *front = mem_printf(form, "^", cuts ? "true" : "false");
        check_ids(front, "1a", " 2 3 1 4");
        free(front);
        char *inside = mem_printf(form, "(?=a)", cuts ? "true" : "false");
        check_ids(inside, "1a", " 1 2 3 4");
        free(inside);
    }
}

/* Expected: tokenizers 0.23.3. Its own code fails where a token would begin behind its end. */
static void test_white_space_that_two_added_tokens_want_goes_to_the_first(void **state)
{
    (void)state;
#define ADDED(id, text, left, right)                                                               \
    "{\"id\":" #id ",\"content\":\"" text "\",\"special\":false,\"lstrip\":" #left                 \
    ",\"rstrip\":" #right ",\"single_word\":false,\"normalized\":false}"
    static const char model[] = "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"vocab\":{"
                                "\"<unk>\":0,\"a\":1,\"b\":2,\" \":3},\"merges\":[]}}";
    char *both = mem_printf("{\"added_tokens\":[" ADDED(4, "  ", true, true) "],%s", model);
    check_ids(both, "    a", " 4 1");
    check_ids(both, "a      b", " 1 4 2");
    free(both);
    char *two = mem_printf(
        "{\"added_tokens\":[" ADDED(4, "x", false, true) "," ADDED(5, "  ", true, false) "],%s",
        model);
    check_ids(two, "x  a", " 4 1");
    check_ids(two, "x    a", " 4 1"); /* a token of white space that is all taken */
    check_ids(two, "    a", " 5 5 1");
    free(two);
#undef ADDED
}

/* Expected: tokenizers 0.23.3. */
static void test_characters_that_vanish_make_neighbours_of_what_they_part(void **state)
{
    (void)state;
    check_ids("{\"model\":{\"type\":\"BPE\",\"fuse_unk\":true,\"vocab\":{\"\u2581\":0,"
              "\"\u2581\u2581\":1},"
              "\"merges\":[\"\u2581 \u2581\"]}}",
              "\u2581\u046F\u2581", " 1");
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

static Tokenizer *load_fixture(const char *name)
{
    Error err = {0};
    Tokenizer *tokenizer = NULL;
    char *path = mem_printf("%s/text/fixtures/%s", TEST_SOURCE_DIR, name);
    assert_ok(tokenizer_load(path, &tokenizer, &err), &err);
    free(path);
    return tokenizer;
}

static void encode(const Tokenizer *tokenizer, const char *text, const SpecialRanges *special,
                   Encoding *encoding)
{
    Error err = {0};
    assert_ok(tokenizer_encode(tokenizer, NULL, text, strlen(text), special, false, encoding, &err),
              &err);
}

static int count_id(const Encoding *encoding, int32_t id)
{
    int count = 0;
    for (size_t i = 0; i < encoding->length; i++)
        count += encoding->span[i].id == id;
    return count;
}

static void test_special_tokens_match_only_inside_their_ranges(void **state)
{
    (void)state;
    Tokenizer *tokenizer = load_fixture("qwen");
    int32_t end = tokenizer_token_id(tokenizer, "<|im_end|>");
    assert_true(end >= 0);
    const char *text = "a<|im_end|>b<|im_end|>c<|im_end|>";
    Encoding encoding = {0};
    encode(tokenizer, text, NULL, &encoding);
    assert_int_equal(count_id(&encoding, end), 3);

    encoding.length = 0;
    const uint32_t second[][2] = {{0, 1}, {12, 22}};
    encode(tokenizer, text, &(SpecialRanges){second, 2, false}, &encoding);
    assert_int_equal(count_id(&encoding, end), 1);
    for (size_t i = 0; i < encoding.length; i++)
        if (encoding.span[i].id == end) assert_int_equal(encoding.span[i].begin, 12);

    encoding.length = 0;
    encode(tokenizer, text, &(SpecialRanges){NULL, 0, false}, &encoding);
    assert_int_equal(count_id(&encoding, end), 0);

    /* A range that ends inside the token, or begins inside it, does not allow it. */
    const uint32_t parts[][2] = {{0, 10}, {13, 22}};
    encoding.length = 0;
    encode(tokenizer, text, &(SpecialRanges){parts, 2, false}, &encoding);
    assert_int_equal(count_id(&encoding, end), 0);
    encoding_free(&encoding);
    tokenizer_destroy(tokenizer);
}

/* Tokens that are not special are the package's wherever they stand; special ones that are kept
 * from matching are counted, and what else begins inside of them is still found. */
static void test_added_tokens_match_outside_the_ranges_where_asked(void **state)
{
    (void)state;
    Tokenizer *tokenizer = load_fixture("qwen");
    int32_t think = tokenizer_token_id(tokenizer, "<think>");
    int32_t end = tokenizer_token_id(tokenizer, "<|im_end|>");
    int32_t folded = tokenizer_token_id(tokenizer, "e\u0301x"); /* normalized */
    const char *text = "<think>a\u030A e\u0301x<|im_end|><think><|im_end|><|im_end|>";
    const uint32_t last[][2] = {{strlen(text) - 10, strlen(text)}};
    Encoding encoding = {0};
    encode(tokenizer, text, &(SpecialRanges){last, 1, false}, &encoding);
    assert_int_equal(count_id(&encoding, think), 0);
    assert_int_equal(encoding.withheld.count, 0);
    encoding.length = 0;
    encode(tokenizer, text, &(SpecialRanges){last, 1, true}, &encoding);
    assert_int_equal(count_id(&encoding, think), 2);
    assert_int_equal(count_id(&encoding, folded), 1);
    assert_int_equal(count_id(&encoding, end), 1);
    assert_int_equal(encoding.span[encoding.length - 1].id, end);
    assert_int_equal(encoding.withheld.count, 2);
    assert_int_equal(encoding.withheld.first.id, end);
    assert_int_equal(encoding.withheld.first.begin, strlen("<think>a\u030A e\u0301x"));
    encoding_free(&encoding);
    tokenizer_destroy(tokenizer);
}

/* "<|im_en" typed by a user, and then the template's own token: the true one must still be found.
 */
static void test_special_token_is_found_behind_a_forbidden_beginning(void **state)
{
    (void)state;
    Tokenizer *tokenizer = load_fixture("qwen");
    int32_t end = tokenizer_token_id(tokenizer, "<|im_end|>");
    const char *text = "<|im_end|<|im_end|>";
    Encoding encoding = {0};
    const uint32_t range[][2] = {{9, 19}};
    encode(tokenizer, text, &(SpecialRanges){range, 1, false}, &encoding);
    assert_int_equal(count_id(&encoding, end), 1);
    assert_int_equal(encoding.span[encoding.length - 1].id, end);
    assert_int_equal(encoding.span[encoding.length - 1].begin, 9);
    encoding_free(&encoding);
    tokenizer_destroy(tokenizer);
}

/* Normalized added tokens are looked for in changed text; the ranges still speak of the input. */
static void test_normalized_added_tokens_respect_the_ranges(void **state)
{
    (void)state;
    Tokenizer *tokenizer = load_fixture("qwen");
    int32_t id = tokenizer_token_id(tokenizer, "e\u0301x");
    assert_true(id >= 0);
    const char *text = "a\u030A e\u0301x e\u0301x"; /* bytes 4 to 8 and 9 to 13 */
    Encoding encoding = {0};
    encode(tokenizer, text, NULL, &encoding);
    assert_int_equal(count_id(&encoding, id), 2);
    encoding.length = 0;
    const uint32_t range[][2] = {{9, 13}};
    encode(tokenizer, text, &(SpecialRanges){range, 1, false}, &encoding);
    assert_int_equal(count_id(&encoding, id), 1);
    assert_int_equal(encoding.span[encoding.length - 1].id, id);
    assert_int_equal(encoding.span[encoding.length - 1].begin, 9);
    assert_int_equal(encoding.span[encoding.length - 1].end, 13);
    encoding_free(&encoding);
    tokenizer_destroy(tokenizer);
}

static void test_spans_cover_unchanged_text_without_gaps(void **state)
{
    (void)state;
    const char *names[] = {"qwen", "llama3", "deepseek", "o200k", "tekken", "falcon"};
    const char *text =
        "It's 12 apples \u2014 \u4eca\u5929<|im_end|> \u5929\u6c14\n\n  def f(x):\t\U0001F600";
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        Tokenizer *tokenizer = load_fixture(names[n]);
        Encoding encoding = {0};
        encode(tokenizer, text, NULL, &encoding);
        uint32_t at = 0;
        for (size_t i = 0; i < encoding.length; i++) {
            assert_int_equal(encoding.span[i].begin, at);
            assert_true(encoding.span[i].end > at);
            at = encoding.span[i].end;
        }
        assert_int_equal(at, strlen(text));
        encoding_free(&encoding);
        tokenizer_destroy(tokenizer);
    }
}

/* Composed characters cover the bytes of their parts, inserted ones cover none. */
static void test_spans_point_into_the_input_where_text_is_changed(void **state)
{
    (void)state;
    Tokenizer *tokenizer = load_fixture("qwen");
    Encoding encoding = {0};
    encode(tokenizer, "e\u0301 9", NULL, &encoding); /* e, two bytes of accent, space, 9 */
    assert_int_equal(encoding.span[0].begin, 0);
    assert_int_equal(encoding.span[0].end, 3);
    assert_int_equal(encoding.span[encoding.length - 1].begin, 4);
    assert_int_equal(encoding.span[encoding.length - 1].end, 5);
    tokenizer_destroy(tokenizer);

    tokenizer = load_fixture("llama2");
    encoding.length = 0;
    encode(tokenizer, "7 7", NULL, &encoding); /* U+2581 7 U+2581 7 */
    assert_int_equal(encoding.span[0].begin, 0);
    assert_int_equal(encoding.span[encoding.length - 1].end, 3);
    for (size_t i = 1; i < encoding.length; i++)
        assert_true(encoding.span[i].begin >= encoding.span[i - 1].end);
    encoding_free(&encoding);
    tokenizer_destroy(tokenizer);
}

static void test_ids_and_tokens_map_to_each_other(void **state)
{
    (void)state;
    Tokenizer *tokenizer = load_fixture("flags");
    int32_t size = tokenizer_vocab_size(tokenizer), named = 0;
    for (int32_t id = 0; id < size; id++) {
        const char *token = tokenizer_id_token(tokenizer, id);
        if (token == NULL) continue;
        assert_int_equal(tokenizer_token_id(tokenizer, token), id);
        named++;
    }
    assert_true(named == size);
    assert_null(tokenizer_id_token(tokenizer, size));
    assert_null(tokenizer_id_token(tokenizer, -1));
    assert_int_equal(tokenizer_token_id(tokenizer, "no such token"), -1);
    tokenizer_destroy(tokenizer);
}

static void test_text_that_is_not_utf8_is_refused(void **state)
{
    (void)state;
    Error err = {0};
    Tokenizer *tokenizer = load_fixture("qwen");
    Encoding encoding = {0};
    encode(tokenizer, "kept", NULL, &encoding);
    size_t before = encoding.length;
    assert_fails(tokenizer_encode(tokenizer, NULL, "ab\xC3(", 4, NULL, false, &encoding, &err),
                 ERR_DATA, &err, "byte 2");
    assert_int_equal(encoding.length, before);
    encoding_free(&encoding);
    tokenizer_destroy(tokenizer);
}

/* Decoding half a character gives U+FFFD, never broken UTF-8. */
static void test_decoding_half_a_character_gives_a_replacement(void **state)
{
    (void)state;
    Error err = {0};
    Tokenizer *tokenizer = load_fixture("qwen");
    Encoding encoding = {0};
    encode(tokenizer, "\U0001F600", NULL, &encoding);
    assert_true(encoding.length > 1);
    char *text = NULL;
    size_t length = 0;
    assert_ok(tokenizer_decode(tokenizer, &encoding.span[0].id, 1, false, &text, &length, &err),
              &err);
    assert_string_equal(text, "\uFFFD");
    free(text);
    encoding_free(&encoding);
    tokenizer_destroy(tokenizer);
}

static void test_streaming_waits_for_whole_characters(void **state)
{
    (void)state;
    Error err = {0};
    Tokenizer *tokenizer = load_fixture("qwen");
    Encoding encoding = {0};
    encode(tokenizer, "\U0001F600", NULL, &encoding);
    assert_true(encoding.length > 1);
    DecodeStream *stream = decode_stream_create(tokenizer, false);
    char *text = NULL;
    size_t length = 0;
    for (size_t i = 0; i < encoding.length; i++) {
        assert_ok(decode_stream_step(stream, encoding.span[i].id, &text, &length, &err), &err);
        assert_string_equal(text, i + 1 < encoding.length ? "" : "\U0001F600");
        free(text);
    }
    /* Bytes that never become a character come out as U+FFFD, at the end at the latest. */
    assert_ok(decode_stream_step(stream, encoding.span[0].id, &text, &length, &err), &err);
    assert_string_equal(text, "");
    free(text);
    assert_ok(decode_stream_finish(stream, &text, &length, &err), &err);
    assert_string_equal(text, "\uFFFD");
    free(text);
    decode_stream_destroy(stream);
    encoding_free(&encoding);
    tokenizer_destroy(tokenizer);
}

/* However many tokens in a row end within a character, none of them is given up for lost. */
static void test_streaming_goes_on_where_every_token_ends_within_a_character(void **state)
{
    (void)state;
    enum { FIRST = 161, REST_AND_FIRST = 319, SECOND = 236, THIRD = 119, TIMES = 40 };
    Error err = {0};
    Tokenizer *tokenizer = load_fixture("gpt2");
    DecodeStream *stream = decode_stream_create(tokenizer, false);
    Str joined = {0}, expected = {0};
    for (int i = 0; i < TIMES + 3; i++) {
        int32_t id = i == 0 ? FIRST : i <= TIMES ? REST_AND_FIRST : i == TIMES + 1 ? SECOND : THIRD;
        char *text = NULL;
        size_t length = 0;
        assert_ok(decode_stream_step(stream, id, &text, &length, &err), &err);
        str_append(&joined, text, length);
        free(text);
        if (i >= 1 && i != TIMES + 1) str_puts(&expected, "\u53bb");
        assert_string_equal(str_text(&joined), str_text(&expected));
    }
    str_free(&joined);
    str_free(&expected);
    decode_stream_destroy(stream);
    tokenizer_destroy(tokenizer);
}

/* A token may end in the first bytes of a character: what stands before them is certain. */
static void test_streaming_gives_what_stands_before_half_a_character(void **state)
{
    (void)state;
    Error err = {0};
    static const char json[] =
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\u00c3\": 0, \"\u00a9\": 1, \"b\": 2}, "
        "\"merges\": []}, \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
        "\"trim_offsets\": true, \"use_regex\": true}}";
    const struct {
        int32_t id;
        const char *text;
    } steps[] = {{0, "a"}, {1, "\u00e9"}, {0, "a"}, {2, "\uFFFDb"}, {0, "a"}};
    Tokenizer *tokenizer = NULL;
    assert_ok(tokenizer_parse(json, strlen(json), "tiny", &tokenizer, &err), &err);
    DecodeStream *stream = decode_stream_create(tokenizer, false);
    char *text = NULL;
    size_t length = 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        assert_ok(decode_stream_step(stream, steps[i].id, &text, &length, &err), &err);
        assert_string_equal(text, steps[i].text);
        free(text);
    }
    assert_ok(decode_stream_finish(stream, &text, &length, &err), &err);
    assert_string_equal(text, "\uFFFD");
    free(text);
    decode_stream_destroy(stream);
    tokenizer_destroy(tokenizer);
}

/* The quickstart's model folder fits together: ids of its template, its config's size, no
 * surprises. */
static void test_tiny_tokenizer_of_the_quickstart_round_trips(void **state)
{
    (void)state;
    Error err = {0};
    Tokenizer *tokenizer = NULL;
    assert_ok(tokenizer_load(PROJECT_SOURCE_DIR "/deploy/examples/tiny/model", &tokenizer, &err),
              &err);
    assert_int_equal(tokenizer_vocab_size(tokenizer), 1024);
    const char *text = "<|im_start|>user\nAda has 12 apples and finds 7 more.<|im_end|>\n";
    Encoding encoding = {0};
    encode(tokenizer, text, NULL, &encoding);
    assert_int_equal(encoding.span[0].id, tokenizer_token_id(tokenizer, "<|im_start|>"));
    int32_t ids[256];
    assert_true(encoding.length < 30);
    for (size_t i = 0; i < encoding.length; i++)
        ids[i] = encoding.span[i].id;
    char *decoded = NULL;
    size_t length = 0;
    assert_ok(tokenizer_decode(tokenizer, ids, encoding.length, false, &decoded, &length, &err),
              &err);
    assert_string_equal(decoded, text);
    free(decoded);
    encoding_free(&encoding);
    tokenizer_destroy(tokenizer);
}

#define MODEL "\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"

static void check_refused(const char *json, Status status, const char *text)
{
    Error err = {0};
    Tokenizer *tokenizer = NULL;
    assert_fails(tokenizer_parse(json, strlen(json), "t.json", &tokenizer, &err), status, &err,
                 text);
    assert_null(tokenizer);
    assert_non_null(strstr(err.message, "t.json"));
}

static void test_wrong_files_are_refused_with_place_and_reason(void **state)
{
    (void)state;
    check_refused("{\"model\": {", ERR_DATA, "ends too soon");
    check_refused("[]", ERR_DATA, "a list");
    check_refused("{}", ERR_DATA, "model is nothing");
    check_refused("{\"version\":\"2.0\"," MODEL "}", ERR_UNSUPPORTED, "2.0");
    check_refused("{\"model\":{\"vocab\":[]}}", ERR_DATA, "model.vocab is a list");
    check_refused("{\"model\":{\"vocab\":{\"a\":0}}}", ERR_DATA, "model.merges is nothing");
    check_refused("{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", ERR_DATA, "\"a\"");
    check_refused("{\"model\":{\"vocab\":{\"a\":1e9},\"merges\":[]}}", ERR_DATA, "\"a\"");
    check_refused("{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", ERR_DATA, "same id 0");
    check_refused("{\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}", ERR_DATA,
                  "merges[0]: \"ab\" is not in the vocabulary");
    check_refused("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", ERR_DATA, "merges[0]");
    check_refused("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", ERR_DATA, "merges[0]");
    check_refused("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}",
                  ERR_UNSUPPORTED, "dropout");
    check_refused("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"fuse_unk\":3}}", ERR_INVALID,
                  "fuse_unk");
    check_refused(
        "{\"added_tokens\":[{\"id\":9,\"content\":\"x\",\"special\":true,\"lstrip\":false,"
        "\"rstrip\":false,\"single_word\":false,\"normalized\":false}]," MODEL "}",
        ERR_DATA, "states id 9");
    check_refused("{\"added_tokens\":[{\"id\":3}]," MODEL "}", ERR_NOT_FOUND, "added_tokens[0]");
}

static void test_unknown_components_are_refused_by_name(void **state)
{
    (void)state;
    check_refused("{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", ERR_UNSUPPORTED, "Unigram");
    check_refused("{\"normalizer\":{\"type\":\"Nmt\"}," MODEL "}", ERR_UNSUPPORTED, "Nmt");
    check_refused("{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}," MODEL "}", ERR_UNSUPPORTED,
                  "UnicodeScripts");
    check_refused("{\"decoder\":{\"type\":\"CTC\"}," MODEL "}", ERR_UNSUPPORTED, "CTC");
    check_refused("{\"post_processor\":{\"type\":\"Other\"}," MODEL "}", ERR_UNSUPPORTED, "Other");
    check_refused("{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},"
                  "\"behavior\":\"Random\",\"invert\":false}," MODEL "}",
                  ERR_UNSUPPORTED, "Random");
}

static void check_regex_refused(const char *regex, const char *reason)
{
    char *json = mem_printf("{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},"
                            "\"behavior\":\"Isolated\",\"invert\":false}," MODEL "}",
                            regex);
    check_refused(json, ERR_UNSUPPORTED, reason);
    free(json);
}

static void test_regular_expressions_that_may_mean_something_else_are_refused(void **state)
{
    (void)state;
    check_regex_refused("(a)\\\\1", "an unknown escape");
    check_regex_refused("\\\\p{Klingon}", "the property klingon");
    check_regex_refused("(?x)a b", "this kind of group");
    check_regex_refused("(?i:stra\u00DFe)", "ligature");
    check_regex_refused("(?i:\u00E4)", "beyond ASCII");
    check_regex_refused("a**", "a repeat of a repeat");
    check_regex_refused("[[:alpha:]]", "[:class:]");
    check_regex_refused("[a", "an open class");
    check_regex_refused("(a", "an open group");
    check_regex_refused("a)", "an unopened )");
    check_regex_refused("+a", "a repeat of nothing");
    check_regex_refused("(?<=a+)b", "not supported");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_gives_the_published_ids_of_gpt2),
        cmocka_unit_test(test_tokenizer_gives_the_published_ids_of_qwen),
        cmocka_unit_test(test_special_tokens_match_only_inside_their_ranges),
        cmocka_unit_test(test_added_tokens_match_outside_the_ranges_where_asked),
        cmocka_unit_test(test_special_token_is_found_behind_a_forbidden_beginning),
        cmocka_unit_test(test_normalized_added_tokens_respect_the_ranges),
        cmocka_unit_test(test_spans_cover_unchanged_text_without_gaps),
        cmocka_unit_test(test_spans_point_into_the_input_where_text_is_changed),
        cmocka_unit_test(test_ids_and_tokens_map_to_each_other),
        cmocka_unit_test(test_text_that_is_not_utf8_is_refused),
        cmocka_unit_test(test_decoding_half_a_character_gives_a_replacement),
        cmocka_unit_test(test_streaming_waits_for_whole_characters),
        cmocka_unit_test(test_streaming_goes_on_where_every_token_ends_within_a_character),
        cmocka_unit_test(test_streaming_gives_what_stands_before_half_a_character),
        cmocka_unit_test(test_tiny_tokenizer_of_the_quickstart_round_trips),
        cmocka_unit_test(test_wrong_files_are_refused_with_place_and_reason),
        cmocka_unit_test(test_unknown_components_are_refused_by_name),
        cmocka_unit_test(test_white_space_that_two_added_tokens_want_goes_to_the_first),
        cmocka_unit_test(test_bytes_of_what_stands_for_nothing_are_spelled_once),
        cmocka_unit_test(test_characters_that_vanish_make_neighbours_of_what_they_part),
        cmocka_unit_test(test_regular_expressions_that_may_mean_something_else_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
