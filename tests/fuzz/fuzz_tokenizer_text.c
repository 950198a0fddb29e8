/* Any bytes as text, for one of the fixtures' tokenizers: text that is not UTF-8 is refused; other
 * text is encoded the same with and without a cache; no special token comes out where none is
 * allowed; and a byte-level tokenizer without a normalizer gives the text back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "text/tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static const struct {
    const char *name;
    bool reversible;
} kinds[] = {{"qwen", false},    {"llama3", true}, {"llama2", false},    {"metaspace", false},
             {"deepseek", true}, {"o200k", true},  {"behaviors", false}, {"flags", false},
             {"gemma", false},   {"tekken", true}};

#define KINDS (sizeof kinds / sizeof kinds[0])

static Tokenizer *load(size_t kind)
{
    static Tokenizer *loaded[KINDS];
    if (loaded[kind] == NULL) {
        Error err = {0};
        char *path = mem_printf("%s/tests/text/fixtures/%s", PROJECT_SOURCE_DIR, kinds[kind].name);
        CHECKF(tokenizer_load(path, &loaded[kind], &err) == OK, "%s", err.message);
        free(path);
    }
    return loaded[kind];
}

static void check_decoded(const Tokenizer *tokenizer, const Encoding *encoding, const char *text,
                          size_t length, bool reversible)
{
    Error err = {0};
    int32_t *ids = mem_calloc(encoding->length + 1, sizeof *ids);
    for (size_t i = 0; i < encoding->length; i++) {
        ids[i] = encoding->span[i].id;
        CHECK(encoding->span[i].begin <= encoding->span[i].end);
        CHECK(encoding->span[i].end <= length);
    }
    char *decoded = NULL;
    size_t size = 0;
    CHECK(tokenizer_decode(tokenizer, ids, encoding->length, false, &decoded, &size, &err) == OK);
    CHECK(utf8_valid_prefix(decoded, size) == size);
    if (reversible) CHECK(size == length && memcmp(decoded, text, length) == 0);
    free(decoded);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    if (length == 0) return 0;
    size_t kind = bytes[0] % KINDS;
    const Tokenizer *tokenizer = load(kind);
    const char *text = (const char *)bytes + 1;
    length--;
    Error err = {0};
    Encoding plain = {0}, cached = {0}, unspecial = {0};
    Status status = tokenizer_encode(tokenizer, NULL, text, length, NULL, false, &plain, &err);
    bool valid = utf8_valid_prefix(text, length) == length;
    CHECKF(valid == (status == OK), "%s", err.message);
    if (valid) {
        TokenizerCache *cache = tokenizer_cache_create(tokenizer, 1024);
        for (int i = 0; i < 2; i++) {
            cached.length = 0;
            CHECK(tokenizer_encode(tokenizer, cache, text, length, NULL, false, &cached, &err) ==
                  OK);
            CHECK(cached.length == plain.length);
            CHECK(plain.length == 0 ||
                  memcmp(cached.span, plain.span, plain.length * sizeof *plain.span) == 0);
        }
        check_decoded(tokenizer, &plain, text, length, kinds[kind].reversible);
        const SpecialRanges none = {NULL, 0, false};
        CHECK(tokenizer_encode(tokenizer, cache, text, length, &none, false, &unspecial, &err) ==
              OK);
        check_decoded(tokenizer, &unspecial, text, length, kinds[kind].reversible);
        tokenizer_cache_destroy(cache);
    }
    encoding_free(&plain);
    encoding_free(&cached);
    encoding_free(&unspecial);
    return 0;
}
