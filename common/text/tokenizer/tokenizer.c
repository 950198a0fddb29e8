#include "text/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "text/tokenizer/internal.h"

TokenizerCache *tokenizer_cache_create(const Tokenizer *tokenizer, size_t bytes_max)
{
    (void)tokenizer;
    TokenizerCache *cache = mem_calloc(1, sizeof *cache);
    cache->bpe.cache = word_cache_create(bytes_max);
    return cache;
}

static void cache_clear(TokenizerCache *cache)
{
    normalize_scratch_free(&cache->normalize);
    pretokenize_scratch_free(&cache->pretokenize);
    bpe_scratch_free(&cache->bpe);
    token_sites_free(&cache->raw);
    token_sites_free(&cache->normalized);
}

void tokenizer_cache_destroy(TokenizerCache *cache)
{
    if (cache == NULL) return;
    cache_clear(cache);
    free(cache);
}

int32_t tokenizer_vocab_size(const Tokenizer *tokenizer)
{
    return (int32_t)tokenizer->vocab_size;
}

int32_t tokenizer_token_id(const Tokenizer *tokenizer, const char *token)
{
    uint32_t id = added_token_id(&tokenizer->added, token);
    if (id == TOKEN_NONE) id = vocabulary_find(&tokenizer->bpe.spelled, token, strlen(token));
    return id == TOKEN_NONE ? -1 : (int32_t)id;
}

const char *tokenizer_id_token(const Tokenizer *tokenizer, int32_t id)
{
    if (id < 0) return NULL;
    const AddedToken *added = added_token_of(&tokenizer->added, (uint32_t)id);
    return added != NULL ? added->content : vocabulary_text(&tokenizer->bpe.spelled, (uint32_t)id);
}

TokenKind tokenizer_id_kind(const Tokenizer *tokenizer, int32_t id)
{
    const AddedToken *added = id >= 0 ? added_token_of(&tokenizer->added, (uint32_t)id) : NULL;
    if (added == NULL) return TOKEN_KIND_TEXT;
    return added->special ? TOKEN_KIND_CONTROL : TOKEN_KIND_ADDED;
}

void encoding_free(Encoding *encoding)
{
    free(encoding->span);
    *encoding = (Encoding){0};
}

/* ---- encoding: cut added tokens, normalize, cut normalized added tokens, split into words, merge
 * ---- */

typedef struct EncodeRun {
    const Tokenizer *tokenizer;
    TokenizerCache *cache;
    AddedSearch raw, normalized;
    Encoding *encoding;
} EncodeRun;

static Status encode_word(void *context, const TextView *word, Error *err)
{
    EncodeRun *run = context;
    return bpe_encode(&run->tokenizer->bpe, &run->cache->bpe, word, run->encoding, err);
}

static Status push_word(void *context, const TextView *word, Error *err)
{
    EncodeRun *run = context;
    return bpe_push(&run->tokenizer->bpe, &run->cache->bpe, word, run->encoding, err);
}

static Status encode_normalized(void *context, const TextView *text, const AddedToken *token,
                                Error *err)
{
    EncodeRun *run = context;
    const Tokenizer *tokenizer = run->tokenizer;
    if (token != NULL) {
        encoding_append(run->encoding, token->id, text_view_origin(text, 0, text->length));
        return OK;
    }
    BpeScratch *scratch = &run->cache->bpe;
    scratch->text_begin = text->data;
    scratch->text_end = text->data + text->length;
    scratch->pending_count = 0;
    /* Stages that change text reuse their memory for the next piece: no word may wait there. */
    WordSink sink = tokenizer->pretokenizer.changes_text ? encode_word : push_word;
    TRY(pretokenize(&tokenizer->pretokenizer, &run->cache->pretokenize, text, sink, run, err));
    return bpe_flush(&tokenizer->bpe, scratch, run->encoding, err);
}

static Status encode_raw(void *context, const TextView *text, const AddedToken *token, Error *err)
{
    EncodeRun *run = context;
    const Tokenizer *tokenizer = run->tokenizer;
    if (token != NULL) return encode_normalized(context, text, token, err);
    TextView normalized;
    TRY(normalize(&tokenizer->normalizer, &run->cache->normalize, text, &normalized, err));
    return added_tokens_split(&run->normalized, &normalized, encode_normalized, run, err);
}

Status tokenizer_encode(const Tokenizer *tokenizer, TokenizerCache *cache, const char *text,
                        size_t length, const SpecialRanges *special, bool add_special_tokens,
                        Encoding *encoding, Error *err)
{
    if (length > INT32_MAX)
        return error_set(err, ERR_DATA, "the text has %zu bytes, more than 2 GiB", length);
    size_t valid = utf8_valid_prefix(text, length);
    if (valid < length)
        return error_set(err, ERR_DATA, "the text is not UTF-8 at byte %zu (0x%02X)", valid,
                         (unsigned char)text[valid]);
    TokenizerCache own = {0};
    if (cache == NULL) cache = &own;
    AddedSearch raw = {&tokenizer->added,   false,      tokenizer->table, special,
                       &encoding->withheld, &cache->raw};
    AddedSearch normalized = raw;
    normalized.in_normalized = true;
    normalized.sites = &cache->normalized;
    EncodeRun run = {tokenizer, cache, raw, normalized, encoding};
    size_t before = encoding->length;
    const PostProcessor *post = &tokenizer->post;
    for (size_t i = 0; add_special_tokens && i < post->before_count; i++)
        encoding_append(encoding, post->before[i], (ByteOrigin){0, 0, false});
    TextView view = {text, (uint32_t)length, 0, NULL};
    Status status = added_tokens_split(&run.raw, &view, encode_raw, &run, err);
    for (size_t i = 0; add_special_tokens && i < post->behind_count; i++)
        encoding_append(encoding, post->behind[i],
                        (ByteOrigin){(uint32_t)length, (uint32_t)length, false});
    if (status != OK) encoding->length = before;
    cache_clear(&own);
    return status;
}
