/* Merging against the definition (again and again the leftmost pair of the lowest rank), for
 * vocabularies made at random: short words, long ones, ranks in the order of training and in none.
 */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "base/str.h"
#include "text/tokenizer/tokenizer.h"

#define MERGES_MAX 60
#define WORD_MAX   400

typedef struct Draws {
    uint64_t key, counter;
} Draws;

static uint32_t draw(Draws *draws, uint32_t bound)
{
    return (uint32_t)rng_below(draws->key, draws->counter++, bound);
}

typedef struct Merge {
    char left[16], right[16];
} Merge;

typedef struct Model {
    char token[MERGES_MAX + 3][32];
    int token_count;
    Merge merge[MERGES_MAX];
    int merge_count;
} Model;

static int find_token(const Model *model, const char *text)
{
    for (int i = 0; i < model->token_count; i++)
        if (strcmp(model->token[i], text) == 0) return i;
    return -1;
}

/* Merges of random tokens made so far; `shuffled` puts them in random order afterwards. */
static void make_model(Model *model, Draws *draws, bool shuffled)
{
    *model = (Model){.token = {"a", "b", "c"}, .token_count = 3};
    while (model->merge_count < MERGES_MAX) {
        Merge merge;
        char joined[64];
        strcpy(merge.left, model->token[draw(draws, (uint32_t)model->token_count)]);
        strcpy(merge.right, model->token[draw(draws, (uint32_t)model->token_count)]);
        snprintf(joined, sizeof joined, "%s%s", merge.left, merge.right);
        if (strlen(joined) > 12 || find_token(model, joined) >= 0) continue;
        model->merge[model->merge_count++] = merge;
        strcpy(model->token[model->token_count++], joined);
    }
    for (int i = model->merge_count - 1; shuffled && i > 0; i--) {
        int other = (int)draw(draws, (uint32_t)i + 1);
        Merge merge = model->merge[i];
        model->merge[i] = model->merge[other];
        model->merge[other] = merge;
    }
}

static Tokenizer *load_model(const Model *model)
{
    Error err = {0};
    Str json = {0};
    str_puts(&json, "{\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int i = 0; i < model->token_count; i++)
        str_printf(&json, "%s\"%s\":%d", i > 0 ? "," : "", model->token[i], i);
    str_puts(&json, "},\"merges\":[");
    for (int i = 0; i < model->merge_count; i++)
        str_printf(&json, "%s\"%s %s\"", i > 0 ? "," : "", model->merge[i].left,
                   model->merge[i].right);
    str_puts(&json, "]}}");
    Tokenizer *tokenizer = NULL;
    assert_ok(tokenizer_parse(str_text(&json), json.length, "model", &tokenizer, &err), &err);
    str_free(&json);
    return tokenizer;
}

/* The definition, on strings. Returns the number of tokens. */
static int merge_plainly(const Model *model, const char *word, int32_t *ids)
{
    static char part[WORD_MAX][32];
    int count = (int)strlen(word);
    for (int i = 0; i < count; i++)
        memcpy(part[i], (char[2]){word[i]}, 2);
    for (int rank = 0; rank < model->merge_count; rank++) {
        const Merge *merge = &model->merge[rank];
        for (int i = 0; i + 1 < count; i++) {
            if (strcmp(part[i], merge->left) != 0 || strcmp(part[i + 1], merge->right) != 0)
                continue;
            strcat(part[i], part[i + 1]);
            memmove(part[i + 1], part[i + 2], (size_t)(count - i - 2) * sizeof part[0]);
            count--;
            rank = -1; /* a pair of a lower rank may have come up */
            break;
        }
    }
    for (int i = 0; i < count; i++)
        ids[i] = find_token(model, part[i]);
    return count;
}

static void check_words(const Model *model, Draws *draws)
{
    Error err = {0};
    Tokenizer *tokenizer = load_model(model);
    TokenizerCache *cache = tokenizer_cache_create(tokenizer, 4096);
    static const uint32_t lengths[] = {4, 20, 70, WORD_MAX};
    for (int i = 0; i < 60; i++) {
        char word[WORD_MAX + 1];
        int32_t expected[WORD_MAX];
        uint32_t length = 1 + draw(draws, lengths[i % 4]);
        uint32_t letters = 1 + draw(draws, 3);
        for (uint32_t j = 0; j < length; j++)
            word[j] = (char)('a' + draw(draws, letters));
        word[length] = '\0';
        int count = merge_plainly(model, word, expected);
        Encoding encoding = {0};
        assert_ok(tokenizer_encode(tokenizer, i % 2 ? cache : NULL, word, length, NULL, false,
                                   &encoding, &err),
                  &err);
        assert_int_equal(encoding.length, count);
        for (int j = 0; j < count; j++)
            assert_int_equal(encoding.span[j].id, expected[j]);
        encoding_free(&encoding);
    }
    tokenizer_cache_destroy(cache);
    tokenizer_destroy(tokenizer);
}

static void test_merging_in_the_order_of_training_follows_the_definition(void **state)
{
    (void)state;
    Draws draws = {rng_key(1, "bpe"), 0};
    for (int i = 0; i < 15; i++) {
        Model model;
        make_model(&model, &draws, false);
        check_words(&model, &draws);
    }
}

static void test_merging_in_any_order_follows_the_definition(void **state)
{
    (void)state;
    Draws draws = {rng_key(2, "bpe"), 0};
    for (int i = 0; i < 15; i++) {
        Model model;
        make_model(&model, &draws, true);
        check_words(&model, &draws);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merging_in_the_order_of_training_follows_the_definition),
        cmocka_unit_test(test_merging_in_any_order_follows_the_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
