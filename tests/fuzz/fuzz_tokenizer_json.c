/* A tokenizer.json of any bytes is either refused with a message, or encodes and decodes text:
 * every id is below the vocabulary's size, every span lies inside the text, and what is decoded is
 * UTF-8. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/tokenizer/tokenizer.h"
#include "text/tokenizer/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static const char text[] =
    "Hello  wor\u0301ld, it's <s> 12345 \u4eca\u5929\u5929\u6c14!\r\n\n\tdef f(x): "
    "a__b\u2581c\u2581"
    "\U0001F600 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";

static void check_decoding(const Tokenizer *tokenizer, const Encoding *encoding)
{
    Error err = {0};
    int32_t *ids = malloc((encoding->length + 1) * sizeof *ids);
    CHECK(ids != NULL);
    for (size_t i = 0; i < encoding->length; i++) {
        ids[i] = encoding->span[i].id;
        CHECK(ids[i] >= 0 && encoding->span[i].begin <= encoding->span[i].end);
        CHECK(encoding->span[i].end <= strlen(text));
    }
    char *decoded = NULL;
    size_t size = 0;
    if (tokenizer_decode(tokenizer, ids, encoding->length, true, &decoded, &size, &err) == OK) {
        CHECK(utf8_valid_prefix(decoded, size) == size && decoded[size] == '\0');
        free(decoded);
    }
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static UnicodeTable *table;
    if (table == NULL) table = unicode_table_create();
    Error err = {0};
    Tokenizer *tokenizer = NULL;
    Status status =
        tokenizer_parse_with((const char *)bytes, length, "t.json", table, &tokenizer, &err);
    if (status != OK) {
        CHECK(err.status == status && strstr(err.message, "t.json") != NULL);
        return 0;
    }
    TokenizerCache *cache = tokenizer_cache_create(tokenizer, 4096);
    Encoding encoding = {0};
    for (int i = 0; i < 2; i++) {
        encoding.length = 0;
        status =
            tokenizer_encode(tokenizer, cache, text, strlen(text), NULL, i == 1, &encoding, &err);
        if (status == OK) check_decoding(tokenizer, &encoding);
    }
    encoding_free(&encoding);
    tokenizer_cache_destroy(cache);
    tokenizer_destroy(tokenizer);
    return 0;
}
