/* Added tokens: strings cut out of the text before the model sees it, the longest of those that
 * begin leftmost. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "text/tokenizer/internal.h"

/* ---- loading ---- */

static Status read_token(const cJSON *item, const char *where, AddedToken *token, Error *err)
{
    const char *content = NULL;
    if (!cJSON_IsObject(item))
        return error_set(err, ERR_DATA, "%s is %s, expected an object", where,
                         json_type_name(item));
    int64_t id = 0;
    TRY(json_string(item, "content", where, &content, err));
    TRY(json_int(item, "id", where, 0, TOKEN_IDS_MAX - 1, &id, err));
    TRY(json_bool(item, "special", where, &token->special, err));
    TRY(json_bool(item, "single_word", where, &token->single_word, err));
    TRY(json_bool(item, "lstrip", where, &token->lstrip, err));
    TRY(json_bool(item, "rstrip", where, &token->rstrip, err));
    TRY(json_bool(item, "normalized", where, &token->normalized, err));
    token->id = (uint32_t)id;
    token->content = mem_strdup(content);
    return OK;
}

/* What the text is searched for: a `normalized` token is normalized like the text. */
static Status set_pattern(AddedToken *token, const Normalizer *normalizer, Error *err)
{
    NormalizeScratch scratch = {0};
    TextView view = {token->content, (uint32_t)strlen(token->content), 0, NULL}, changed = view;
    Status status = token->normalized ? normalize(normalizer, &scratch, &view, &changed, err) : OK;
    if (status == OK) {
        token->pattern = mem_strndup(changed.data, changed.length);
        token->pattern_length = changed.length;
    }
    normalize_scratch_free(&scratch);
    return status;
}

/* Where the tokens of one file are added: new ones get the ids from `next_id` on. */
typedef struct Adding {
    AddedTokens *added;
    const Vocabulary *vocabulary;
    const Normalizer *normalizer;
    uint32_t next_id;
} Adding;

/* Ids go on behind the vocabulary, and behind the tokens added before. */
static Adding adding_begin(AddedTokens *added, const Vocabulary *vocabulary,
                           const Normalizer *normalizer)
{
    Adding adding = {added, vocabulary, normalizer, vocabulary->count};
    for (uint32_t i = 0; i < added->count; i++)
        if (added->token[i].id >= adding.next_id) adding.next_id = added->token[i].id + 1;
    return adding;
}

static uint32_t known_id(const Adding *adding, const char *content)
{
    uint32_t id = added_token_id(adding->added, content);
    return id != TOKEN_NONE ? id : vocabulary_find(adding->vocabulary, content, strlen(content));
}

/* Puts a token in the place of the one with its id. */
static void put_token(AddedTokens *added, AddedToken *token)
{
    if (token->id >= added->id_count) {
        uint32_t count = token->id + 1 > 2 * added->id_count ? token->id + 1 : 2 * added->id_count;
        added->by_id = mem_realloc(added->by_id, count, sizeof *added->by_id);
        while (added->id_count < count)
            added->by_id[added->id_count++] = TOKEN_NONE;
    }
    uint32_t index = added->by_id[token->id];
    if (index == TOKEN_NONE) {
        index = added->by_id[token->id] = added->count++;
        vocabulary_add(&added->name, token->content, strlen(token->content), index);
    } else {
        /* Listed twice: the later entry counts, but special once is special for good, and so is a
         * normalized spelling for decoding. */
        AddedToken *old = &added->token[index];
        if (old->special) token->special = true;
        if (!token->normalized) {
            token->spelling = old->spelling != NULL ? old->spelling : old->pattern;
            if (old->spelling != NULL)
                old->spelling = NULL;
            else
                old->pattern = NULL;
        }
        free(old->content);
        free(old->pattern);
        free(old->spelling);
    }
    added->token[index] = *token;
    *token = (AddedToken){0};
}

/* The id of a new token: that of the same string in the vocabulary, or the next free one. The
 * reference goes by this rule and not by the id that the file states; files whose ids disagree are
 * refused rather than encoded one way here and another way there. */
static Status add_token(Adding *adding, AddedToken *token, uint32_t stated_id, const char *where,
                        Error *err)
{
    uint32_t id = known_id(adding, token->content);
    if (id == TOKEN_NONE) id = adding->next_id++;
    if (id >= TOKEN_IDS_MAX || adding->added->count >= TOKEN_IDS_MAX - 1)
        return error_set(err, ERR_UNSUPPORTED, "%s: more than %u tokens", where, TOKEN_IDS_MAX);
    if (stated_id != TOKEN_NONE && id != stated_id)
        return error_set(err, ERR_DATA,
                         "%s: added token \"%.100s\" states id %u, but its place in the vocabulary "
                         "gives it id %u",
                         where, token->content, stated_id, id);
    token->id = id;
    TRY(set_pattern(token, adding->normalizer, err));
    put_token(adding->added, token);
    return OK;
}

static void token_free(AddedToken *token)
{
    free(token->content);
    free(token->pattern);
    free(token->spelling);
}

Status added_tokens_load(AddedTokens *added, const cJSON *list, const Vocabulary *vocabulary,
                         const Normalizer *normalizer, const char *where, Error *err)
{
    if (list == NULL || cJSON_IsNull(list)) return OK;
    if (!cJSON_IsArray(list))
        return error_set(err, ERR_DATA, "%s: added_tokens is %s, expected a list", where,
                         json_type_name(list));
    added->token = mem_calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *added->token);
    vocabulary_reserve(&added->name, (size_t)cJSON_GetArraySize(list));
    Adding adding = adding_begin(added, vocabulary, normalizer);
    const cJSON *item;
    int index = 0;
    cJSON_ArrayForEach(item, list)
    {
        char place[512];
        snprintf(place, sizeof place, "%.400s: added_tokens[%d]", where, index++);
        AddedToken token = {0};
        Status status = read_token(item, place, &token, err);
        if (status == OK && token.content[0] != '\0')
            status = add_token(&adding, &token, token.id, place, err);
        token_free(&token);
        if (status != OK) return status;
    }
    return OK;
}

/* Makes room for more tokens by name. */
static void reserve_more(AddedTokens *added, size_t more)
{
    size_t count = added->count + more;
    added->token = mem_realloc(added->token, count + 1, sizeof *added->token);
    vocabulary_free(&added->name);
    vocabulary_reserve(&added->name, count);
    for (uint32_t i = 0; i < added->count; i++) {
        const char *content = added->token[i].content;
        vocabulary_add(&added->name, content, strlen(content), i);
    }
}

Status added_tokens_extend(AddedTokens *added, const TokenizerExtras *extras,
                           const Vocabulary *vocabulary, const Normalizer *normalizer,
                           const char *where, Error *err)
{
    added->splits_special = extras->splits_special;
    if (extras->count == 0) return OK;
    reserve_more(added, extras->count);
    Adding adding = adding_begin(added, vocabulary, normalizer);
    for (size_t i = 0; i < extras->count; i++) {
        const ExtraToken *extra = &extras->token[i];
        if (extra->content[0] == '\0') continue;
        /* What tokenizer.json knows has the id from there. */
        bool states_id = extra->id >= 0 && known_id(&adding, extra->content) == TOKEN_NONE;
        AddedToken token = {.content = mem_strdup(extra->content),
                            .single_word = extra->single_word,
                            .lstrip = extra->lstrip,
                            .rstrip = extra->rstrip,
                            .normalized = extra->normalized,
                            .special = extra->special};
        Status status =
            add_token(&adding, &token, states_id ? (uint32_t)extra->id : TOKEN_NONE, where, err);
        token_free(&token);
        if (status != OK) return status;
    }
    return OK;
}

/* Two tokens with one normalized form: the package finds now this one, now that, from process to
 * process; here it is the one listed last. */
Status added_tokens_index(AddedTokens *added, const char *where, Error *err)
{
    for (uint32_t i = 0; i < added->count; i++) {
        const AddedToken *token = &added->token[i];
        TokenTrie *trie = token->normalized ? &added->normalized : &added->raw;
        if (token->pattern_length == 0)
            return error_set(err, ERR_UNSUPPORTED,
                             "%s: nothing is left of the added token \"%.100s\" when it is "
                             "normalized, so there is nothing to look for",
                             where, token->content);
        token_trie_add(trie, token->pattern, token->pattern_length, i);
    }
    token_trie_finish(&added->raw);
    token_trie_finish(&added->normalized);
    return OK;
}

void added_tokens_free(AddedTokens *added)
{
    for (uint32_t i = 0; i < added->count; i++)
        token_free(&added->token[i]);
    free(added->token);
    free(added->by_id);
    vocabulary_free(&added->name);
    token_trie_free(&added->raw);
    token_trie_free(&added->normalized);
    *added = (AddedTokens){0};
}

const AddedToken *added_token_of(const AddedTokens *added, uint32_t id)
{
    if (id >= added->id_count || added->by_id[id] == TOKEN_NONE) return NULL;
    return &added->token[added->by_id[id]];
}

static const AddedToken *find_added(const AddedTokens *added, const char *content)
{
    uint32_t index = vocabulary_find(&added->name, content, strlen(content));
    return index == TOKEN_NONE ? NULL : &added->token[index];
}

uint32_t added_token_id(const AddedTokens *added, const char *content)
{
    const AddedToken *token = find_added(added, content);
    return token == NULL ? TOKEN_NONE : token->id;
}

bool added_token_is_special(const AddedTokens *added, const char *content)
{
    const AddedToken *token = find_added(added, content);
    return token != NULL && token->special;
}

/* ---- finding ---- */

/* One walk over a text. */
typedef struct Walk {
    const AddedSearch *search;
    const TokenTrie *trie;
    const TextView *text;
    size_t cursor; /* the range of search->special that may hold what comes next */
} Walk;

/* The end, in the input, of the range that allows tokens to begin at `at`; 0 if none does. The
 * ranges are sorted. */
static uint32_t allowed_limit(Walk *walk, uint32_t at)
{
    const SpecialRanges *special = walk->search->special;
    uint32_t input = text_view_origin(walk->text, at, at + 1).begin;
    while (walk->cursor < special->count && special->range[walk->cursor][1] <= input)
        walk->cursor++;
    if (walk->cursor == special->count || special->range[walk->cursor][0] > input) return 0;
    return special->range[walk->cursor][1];
}

static bool is_single_word(const UnicodeTable *table, const TextView *text, uint32_t begin,
                           uint32_t end)
{
    uint32_t size;
    if (begin > 0 && unicode_is_word(table, utf8_previous(text->data, begin, &size))) return false;
    return end == text->length || !unicode_is_word(table, utf8_next(text->data + end, &size));
}

static void count_withheld(const Walk *walk, uint32_t at, const AddedToken *token)
{
    const AddedSearch *search = walk->search;
    uint32_t end = at + token->pattern_length;
    if (search->withheld == NULL) return;
    if (token->single_word && !is_single_word(search->table, walk->text, at, end)) return;
    if (search->withheld->count++ > 0) return;
    ByteOrigin origin = text_view_origin(walk->text, at, end);
    search->withheld->first = (TokenSpan){(int32_t)token->id, origin.begin, origin.end};
}

/* The longest token at a place that may match there: any that ends within the range, and, where the
 * ranges hold for special tokens alone, others wherever they end. NULL: none. */
static const AddedToken *match_site(Walk *walk, TokenSite site)
{
    const AddedToken *tokens = walk->search->added->token;
    const SpecialRanges *special = walk->search->special;
    const AddedToken *longest = &tokens[token_trie_token(walk->trie, site.node)];
    if (special == NULL) return longest;
    uint32_t limit = allowed_limit(walk, site.at);
    for (uint32_t node = site.node; node != 0; node = token_trie_shorter(walk->trie, node)) {
        const AddedToken *token = &tokens[token_trie_token(walk->trie, node)];
        uint32_t end = site.at + token->pattern_length;
        if (special->added_anywhere && !token->special) return token;
        if (text_view_origin(walk->text, end - 1, end).end <= limit) return token;
        if (special->added_anywhere && token == longest) count_withheld(walk, site.at, token);
    }
    return NULL;
}

/* Finds the next token from `at` on; its place goes to *ret_begin. */
static const AddedToken *find_token(Walk *walk, uint32_t at, uint32_t *ret_begin)
{
    TokenSites *sites = walk->search->sites;
    while (sites->count > 0) {
        TokenSite site = sites->site[--sites->count];
        if (site.at < at) continue;
        *ret_begin = site.at;
        const AddedToken *token = match_site(walk, site);
        if (token != NULL) return token;
    }
    return NULL;
}

/* What a match takes up with the white space that its token swallows. `done` is where the match
 * before ended; the run of white space that a match swallowed last is kept, since a text of nothing
 * else must not be walked through again for each token in it. */
typedef struct Extent {
    uint32_t begin, end, done;
    uint32_t run_begin, run_end;
} Extent;

static void extend(const Walk *walk, const AddedToken *token, Extent *extent)
{
    const TextView *text = walk->text;
    const UnicodeTable *table = walk->search->table;
    uint32_t size;
    if (token->lstrip && extent->begin < extent->done) extent->begin = extent->done;
    while (token->lstrip && extent->begin > extent->done &&
           unicode_is_space(table, utf8_previous(text->data, extent->begin, &size)))
        extent->begin -= size;
    if (!token->rstrip) return;
    if (extent->end < extent->run_begin || extent->end > extent->run_end) {
        extent->run_begin = extent->run_end = extent->end;
        while (extent->run_end < text->length &&
               unicode_is_space(table, utf8_next(text->data + extent->run_end, &size)))
            extent->run_end += size;
    }
    extent->end = extent->run_end;
}

/* As the package: the search goes on behind the match itself, so that a token may also be found in
 * white space that the one before has swallowed. It counts then, unless it would take up nothing.
 */
Status added_tokens_split(const AddedSearch *search, const TextView *text, SegmentSink sink,
                          void *context, Error *err)
{
    const AddedTokens *added = search->added;
    const TokenTrie *trie = search->in_normalized ? &added->normalized : &added->raw;
    Walk walk = {search, trie, text, 0};
    Extent extent = {.run_begin = UINT32_MAX};
    uint32_t at = 0;
    token_trie_find(trie, text->data, text->length, search->sites);
    for (;;) {
        const AddedToken *token = find_token(&walk, at, &extent.begin);
        if (token == NULL) break;
        extent.end = at = extent.begin + token->pattern_length;
        if (added->splits_special && token->special) continue;
        if (token->single_word && !is_single_word(search->table, text, extent.begin, extent.end))
            continue;
        extend(&walk, token, &extent);
        if (extent.begin >= extent.end) continue;
        if (extent.done < extent.begin) {
            TextView before = text_view_slice(text, extent.done, extent.begin);
            TRY(sink(context, &before, NULL, err));
        }
        TextView match = text_view_slice(text, extent.begin, extent.end);
        TRY(sink(context, &match, token, err));
        extent.done = extent.end;
    }
    if (extent.done >= text->length) return OK;
    TextView rest = text_view_slice(text, extent.done, text->length);
    return sink(context, &rest, NULL, err);
}
