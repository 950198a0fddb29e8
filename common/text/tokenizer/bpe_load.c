/* Loading a BPE model, and working out what makes encoding fast. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "text/tokenizer/bpe_internal.h"

static void pair_insert(Bpe *bpe, uint32_t left, uint32_t right, uint32_t rank)
{
    uint64_t key = pair_key(left, right), hash = pair_hash(key);
    size_t mask = ((size_t)1 << (64 - bpe->pair_shift)) - 1;
    size_t at = (size_t)(hash >> bpe->pair_shift), bit = (size_t)(hash >> bpe->filter_shift);
    bpe->filter[bit / 64] |= (uint64_t)1 << (bit % 64);
    while (bpe->pair[at] != PAIR_EMPTY && bpe->pair[at] >> RANK_BITS != key)
        at = (at + 1) & mask;
    bpe->pair[at] = key << RANK_BITS | rank;
}

/* ---- the byte-level alphabet ---- */

static bool is_plain_byte(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

/* The others, in order of value, are written as U+0100, U+0101, ... */
uint32_t byte_level_char(unsigned char byte)
{
    if (is_plain_byte(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    if (byte <= 0xA0) return 0x121u + (byte - 0x7Fu);
    return 0x143;
}

int byte_level_byte(uint32_t c)
{
    if (c < 0x100) return is_plain_byte(c) ? (int)c : -1;
    if (c <= 0x120) return (int)(c - 0x100);
    if (c <= 0x142) return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

/* ---- vocabulary and merges ---- */

static Status load_vocabulary(Bpe *bpe, const cJSON *vocab, const char *where, Error *err)
{
    size_t count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, vocab) count++;
    vocabulary_reserve(&bpe->spelled, count);
    cJSON_ArrayForEach(item, vocab)
    {
        double number = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!(number >= 0 && number < TOKEN_IDS_MAX) || number != (uint32_t)number)
            return error_set(
                err, ERR_DATA,
                "%s: model.vocab: the id of \"%.100s\" is not a whole number from 0 to %u", where,
                item->string, TOKEN_IDS_MAX - 1);
        uint32_t id = (uint32_t)number;
        const char *other = vocabulary_text(&bpe->spelled, id);
        if (other != NULL && strcmp(other, item->string) != 0)
            return error_set(err, ERR_DATA,
                             "%s: model.vocab: \"%.100s\" and \"%.100s\" have the same id %u",
                             where, other, item->string, id);
        vocabulary_add(&bpe->spelled, item->string, strlen(item->string), id);
    }
    return OK;
}

/* Turns the spelling of a byte-level token into its bytes; false if a character is not of that
 * alphabet. */
static bool unspell(const char *spelled, char *bytes, size_t *ret_length)
{
    size_t length = strlen(spelled), count = 0;
    for (size_t at = 0; at < length;) {
        uint32_t c;
        int size = utf8_decode(spelled + at, length - at, &c);
        int byte = size > 0 ? byte_level_byte(c) : -1;
        if (byte < 0) return false;
        bytes[count++] = (char)byte;
        at += (size_t)size;
    }
    *ret_length = count;
    return true;
}

static void fill_raw_vocabulary(Bpe *bpe)
{
    const Vocabulary *spelled = &bpe->spelled;
    vocabulary_reserve(&bpe->raw, spelled->count);
    for (uint32_t id = 0; id < spelled->id_count; id++) {
        const char *text = vocabulary_text(spelled, id);
        if (text == NULL) continue;
        char *bytes = mem_alloc(spelled->length[id] + 1);
        size_t length;
        if (unspell(text, bytes, &length)) vocabulary_add(&bpe->raw, bytes, length, id);
        free(bytes);
    }
    bpe->all_bytes_known = true;
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        bpe->byte_id[byte] = vocabulary_find(&bpe->raw, &c, 1);
        if (bpe->byte_id[byte] == TOKEN_NONE) bpe->all_bytes_known = false;
    }
}

/* One merge: "left right" in one string (old files) or ["left", "right"]. *ret_text is the memory
 * that both point into, or NULL. */
static bool read_merge(const cJSON *item, char **ret_text, const char **ret_left,
                       const char **ret_right)
{
    if (cJSON_IsArray(item)) {
        const cJSON *left = item->child, *right = left == NULL ? NULL : left->next;
        if (!cJSON_IsString(left) || !cJSON_IsString(right) || right->next != NULL) return false;
        *ret_left = left->valuestring;
        *ret_right = right->valuestring;
        return true;
    }
    if (!cJSON_IsString(item)) return false;
    const char *space = strchr(item->valuestring, ' ');
    if (space == NULL || strchr(space + 1, ' ') != NULL) return false;
    *ret_text = mem_strdup(item->valuestring);
    (*ret_text)[space - item->valuestring] = '\0';
    *ret_left = *ret_text;
    *ret_right = *ret_text + (space - item->valuestring) + 1;
    return true;
}

static Status add_merge(Bpe *bpe, const char *left, const char *right, uint32_t rank,
                        const char *where, Error *err)
{
    const Vocabulary *vocab = &bpe->spelled;
    size_t left_length = strlen(left), right_length = strlen(right);
    size_t skip = bpe->prefix == NULL ? 0 : strlen(bpe->prefix);
    const char *missing = NULL;
    uint32_t left_id = vocabulary_find(vocab, left, left_length);
    uint32_t right_id = vocabulary_find(vocab, right, right_length);
    char *joined = NULL;
    uint32_t joined_id = TOKEN_NONE;
    if (left_id == TOKEN_NONE) {
        missing = left;
    } else if (right_id == TOKEN_NONE) {
        missing = right;
    } else {
        joined = mem_printf("%s%s", left, right_length >= skip ? right + skip : "");
        joined_id = vocabulary_find(vocab, joined, strlen(joined));
        if (joined_id == TOKEN_NONE) missing = joined;
    }
    if (missing != NULL) {
        error_set(err, ERR_DATA, "%s: model.merges[%u]: \"%.100s\" is not in the vocabulary", where,
                  rank, missing);
        free(joined);
        return ERR_DATA;
    }
    pair_insert(bpe, left_id, right_id, rank);
    bpe->left[rank] = left_id;
    bpe->right[rank] = right_id;
    bpe->merged[rank] = joined_id;
    free(joined);
    return OK;
}

static Status load_merges(Bpe *bpe, const cJSON *merges, const char *where, Error *err)
{
    size_t count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, merges) count++;
    if (count > BPE_MERGES_MAX)
        return error_set(err, ERR_UNSUPPORTED, "%s: model.merges has %zu entries, more than %u",
                         where, count, BPE_MERGES_MAX);
    uint32_t bits = 4;
    while (((size_t)1 << bits) < count + count / 2 + 1)
        bits++;
    bpe->pair_shift = 64 - bits;
    bpe->pair = mem_alloc(sizeof *bpe->pair << bits);
    memset(bpe->pair, 0xFF, sizeof *bpe->pair << bits);
    bpe->filter_shift = 64 - (bits + 2);
    bpe->filter = mem_calloc(((size_t)1 << (bits + 2)) / 64, sizeof *bpe->filter);
    bpe->left = mem_calloc(count + 1, sizeof *bpe->left);
    bpe->right = mem_calloc(count + 1, sizeof *bpe->right);
    bpe->merged = mem_calloc(count + 1, sizeof *bpe->merged);
    uint32_t index = 0;
    cJSON_ArrayForEach(item, merges)
    {
        uint32_t at = index++;
        if (cJSON_IsString(item) && strncmp(item->valuestring, "#version", 8) == 0) continue;
        char *text = NULL;
        const char *left, *right;
        if (!read_merge(item, &text, &left, &right))
            return error_set(
                err, ERR_DATA,
                "%s: model.merges[%u] is neither \"left right\" nor [\"left\", \"right\"]", where,
                at);
        Status status = add_merge(bpe, left, right, bpe->merge_count, where, err);
        free(text);
        if (status != OK) return status;
        bpe->merge_count++;
    }
    return OK;
}

static Status load_affix(const cJSON *model, const char *key, const char *where, char **ret,
                         Error *err)
{
    const char *text = "";
    TRY(json_string_or(model, key, where, &text, err));
    if (text[0] != '\0') *ret = mem_strdup(text);
    return OK;
}

static Status load_flags(Bpe *bpe, const cJSON *model, const char *where, Error *err)
{
    double dropout = 0;
    TRY(json_double_or(model, "dropout", where, &dropout, err));
    if (dropout != 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: model.dropout is %g: ids would be random; set it to null", where,
                         dropout);
    TRY(json_bool_or(model, "fuse_unk", where, &bpe->fuse_unk, err));
    TRY(json_bool_or(model, "byte_fallback", where, &bpe->byte_fallback, err));
    TRY(json_bool_or(model, "ignore_merges", where, &bpe->ignore_merges, err));
    TRY(load_affix(model, "continuing_subword_prefix", where, &bpe->prefix, err));
    TRY(load_affix(model, "end_of_word_suffix", where, &bpe->suffix, err));
    const char *unk = NULL;
    TRY(json_string_or(model, "unk_token", where, &unk, err));
    if (unk != NULL) bpe->unk_token = mem_strdup(unk);
    return OK;
}

/* ---- what makes encoding fast ---- */

/* Whether every merge stands behind all merges that make its operands. */
static bool check_order(const Bpe *bpe)
{
    uint32_t *made = mem_calloc(bpe->spelled.id_count + 1, sizeof *made); /* 1 + highest rank */
    for (uint32_t rank = 0; rank < bpe->merge_count; rank++)
        if (made[bpe->merged[rank]] < rank + 1) made[bpe->merged[rank]] = rank + 1;
    bool in_order = true;
    for (uint32_t rank = 0; rank < bpe->merge_count && in_order; rank++)
        in_order = made[bpe->left[rank]] <= rank && made[bpe->right[rank]] <= rank;
    free(made);
    return in_order;
}

/* Merges a short byte string from its bytes; false if it is too long. */
static bool merge_bytes(const Bpe *bpe, const char *bytes, uint32_t length, ShortWord *word,
                        uint32_t *ret_last_rank)
{
    if (length > BPE_SHORT) return false;
    for (uint32_t i = 0; i < length; i++) {
        word->id[i] = bpe->byte_id[(unsigned char)bytes[i]];
        word->end[i] = i + 1;
    }
    word->count = length;
    merge_short(bpe, word, ret_last_rank);
    return true;
}

/* For every token, the lowest rank at which it merges as the right operand with something that ends
 * in a byte beyond ASCII, as the left one with something that begins with such a byte, and with
 * anything. */
typedef struct LowestRanks {
    uint32_t *as_right, *as_left, *as_any;
} LowestRanks;

static void lower(uint32_t *value, uint32_t rank)
{
    if (rank < *value) *value = rank;
}

static LowestRanks find_lowest_ranks(const Bpe *bpe)
{
    size_t bytes = (bpe->spelled.id_count + 1) * sizeof(uint32_t);
    LowestRanks lowest = {mem_alloc(bytes), mem_alloc(bytes), mem_alloc(bytes)};
    memset(lowest.as_right, 0xFF, bytes);
    memset(lowest.as_left, 0xFF, bytes);
    memset(lowest.as_any, 0xFF, bytes);
    for (uint32_t rank = 0; rank < bpe->merge_count; rank++) {
        uint32_t left = bpe->left[rank], right = bpe->right[rank];
        lower(&lowest.as_any[left], rank);
        lower(&lowest.as_any[right], rank);
        const char *left_text = vocabulary_text(&bpe->raw, left);
        const char *right_text = vocabulary_text(&bpe->raw, right);
        bool left_ascii = left_text != NULL && bpe->raw.length[left] > 0 &&
                          (unsigned char)left_text[bpe->raw.length[left] - 1] < 0x80;
        bool right_ascii = right_text != NULL && (unsigned char)right_text[0] < 0x80;
        if (!left_ascii) lower(&lowest.as_right[right], rank);
        if (!right_ascii) lower(&lowest.as_left[left], rank);
    }
    return lowest;
}

/* Whether a character that is a token may stand in a word from the start, instead of its bytes,
 * where no ASCII is next to it. Its own merges have ranks up to `last_rank`. If none of its parts
 * merges with a neighbour before that rank, and the whole character with none either, then merging
 * it first changes nothing. */
static bool is_safe_start(const Bpe *bpe, const LowestRanks *lowest, const char *bytes,
                          uint32_t length, uint32_t id, uint32_t last_rank)
{
    if (lowest->as_any[id] <= last_rank) return false;
    for (uint32_t part = 1; part < length; part++) {
        uint32_t head = vocabulary_find(&bpe->raw, bytes, part);
        uint32_t tail = vocabulary_find(&bpe->raw, bytes + part, length - part);
        if (head != TOKEN_NONE && lowest->as_right[head] <= last_rank) return false;
        if (tail != TOKEN_NONE && lowest->as_left[tail] <= last_rank) return false;
    }
    return true;
}

static void add_char_token(Bpe *bpe, uint32_t c, uint32_t id)
{
    uint32_t **page = &bpe->char_page[c / 256];
    if (*page == NULL) {
        *page = mem_alloc(256 * sizeof **page);
        memset(*page, 0xFF, 256 * sizeof **page);
    }
    (*page)[c % 256] = id;
}

/* Finds the tokens whose own bytes encode to them alone, and among them the characters that words
 * may begin with. */
static void find_starts(Bpe *bpe)
{
    const Vocabulary *raw = &bpe->raw;
    LowestRanks lowest = find_lowest_ranks(bpe);
    bpe->whole = mem_calloc(raw->id_count / 64 + 1, sizeof *bpe->whole);
    for (uint32_t id = 0; id < raw->id_count && bpe->all_bytes_known; id++) {
        const char *text = vocabulary_text(raw, id);
        if (text == NULL || raw->length[id] == 0) continue;
        if (raw->length[id] > bpe->longest) bpe->longest = raw->length[id];
        uint32_t length = raw->length[id], last_rank = 0, c;
        ShortWord word;
        if (!merge_bytes(bpe, text, length, &word, &last_rank)) continue;
        if (word.count != 1 || word.id[0] != id) continue;
        bpe->whole[id / 64] |= (uint64_t)1 << (id % 64);
        if (length > 1 && utf8_decode(text, length, &c) == (int)length &&
            is_safe_start(bpe, &lowest, text, length, id, last_rank))
            add_char_token(bpe, c, id);
    }
    free(lowest.as_right);
    free(lowest.as_left);
    free(lowest.as_any);
}

/* Llama-2's kind of model gets a whole text as one word, with U+2581 for spaces. If no token has
 * U+2581 behind another character, none can come to stand across such a place, and the word may be
 * cut there: unless characters without a token vanish, which makes neighbours of what they part. */
static void find_cut(Bpe *bpe)
{
    static const char mark[] = "\xE2\x96\x81";
    const Vocabulary *vocab = &bpe->spelled;
    if (bpe->ignore_merges || bpe->prefix != NULL || bpe->suffix != NULL) return;
    bool vanish = bpe->unk_token == NULL && !bpe->byte_fallback;
    for (int byte = 0; bpe->unk_token == NULL && byte < 256; byte++)
        vanish = vanish || bpe->fallback_id[byte] == TOKEN_NONE;
    if (vanish) return;
    if (vocabulary_find(vocab, mark, 3) == TOKEN_NONE) return;
    for (uint32_t id = 0; id < vocab->id_count; id++) {
        const char *text = vocabulary_text(vocab, id);
        if (text == NULL) continue;
        while (strncmp(text, mark, 3) == 0)
            text += 3;
        if (strstr(text, mark) != NULL) return;
    }
    memcpy(bpe->cut, mark, sizeof mark);
}

Status bpe_load(Bpe *bpe, const cJSON *model, bool byte_level, const char *where, Error *err)
{
    const cJSON *vocab = cJSON_GetObjectItemCaseSensitive(model, "vocab");
    const cJSON *merges = cJSON_GetObjectItemCaseSensitive(model, "merges");
    if (!cJSON_IsObject(vocab))
        return error_set(err, ERR_DATA, "%s: model.vocab is %s, expected an object", where,
                         json_type_name(vocab));
    if (!cJSON_IsArray(merges))
        return error_set(err, ERR_DATA, "%s: model.merges is %s, expected a list", where,
                         json_type_name(merges));
    TRY(load_flags(bpe, model, where, err));
    TRY(load_vocabulary(bpe, vocab, where, err));
    TRY(load_merges(bpe, merges, where, err));
    bpe->unk_id = TOKEN_NONE;
    if (bpe->unk_token != NULL)
        bpe->unk_id = vocabulary_find(&bpe->spelled, bpe->unk_token, strlen(bpe->unk_token));
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        int length = snprintf(text, sizeof text, "<0x%02X>", byte);
        bpe->fallback_id[byte] = vocabulary_find(&bpe->spelled, text, (size_t)length);
    }
    bpe->byte_level = byte_level && bpe->prefix == NULL && bpe->suffix == NULL;
    bpe->ranks_in_order = check_order(bpe);
    if (bpe->byte_level) {
        fill_raw_vocabulary(bpe);
        find_starts(bpe);
    } else {
        find_cut(bpe);
    }
    return OK;
}

void bpe_free(Bpe *bpe)
{
    vocabulary_free(&bpe->spelled);
    vocabulary_free(&bpe->raw);
    free(bpe->prefix);
    free(bpe->suffix);
    free(bpe->unk_token);
    free(bpe->pair);
    free(bpe->filter);
    free(bpe->left);
    free(bpe->right);
    free(bpe->merged);
    free(bpe->whole);
    for (uint32_t i = 0; i < BPE_PAGES; i++)
        free(bpe->char_page[i]);
    *bpe = (Bpe){0};
}
