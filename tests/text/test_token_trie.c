/* The search for added tokens against comparing every string at every place. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "text/tokenizer/token_trie.h"
#include "text/tokenizer/vocabulary.h"

#define STRINGS_MAX 12
#define TEXT_BYTES  200

static uint32_t draw(uint64_t *state, uint32_t below)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % below;
}

/* Text of few different letters, so that much of it repeats. */
static size_t draw_text(uint64_t *state, char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        text[i] = "abc"[draw(state, 3) * draw(state, 2)];
    text[length] = '\0';
    return length;
}

/* The strings that begin at `at`, the longest first, as the trie gives them. */
static void check_site(const TokenTrie *trie, uint32_t node, char strings[][9], size_t count,
                       const char *text)
{
    for (size_t length = 8; length > 0; length--) {
        uint32_t expected = TOKEN_NONE;
        for (size_t i = 0; i < count; i++)
            if (strlen(strings[i]) == length && strncmp(text, strings[i], length) == 0)
                expected = (uint32_t)i; /* of two equal ones the later */
        if (expected == TOKEN_NONE) continue;
        assert_true(node != 0);
        assert_int_equal(token_trie_token(trie, node), expected);
        node = token_trie_shorter(trie, node);
    }
    assert_int_equal(node, 0);
}

static void test_every_string_is_found_at_every_place(void **state)
{
    (void)state;
    uint64_t seed = 1;
    TokenSites sites = {0};
    for (int round = 0; round < 300; round++) {
        char strings[STRINGS_MAX][9], text[TEXT_BYTES + 1];
        TokenTrie trie = {0};
        size_t count = 1 + draw(&seed, STRINGS_MAX);
        for (size_t i = 0; i < count; i++)
            token_trie_add(&trie, strings[i], draw_text(&seed, strings[i], 1 + draw(&seed, 8)),
                           (uint32_t)i);
        token_trie_finish(&trie);
        uint32_t length = (uint32_t)draw_text(&seed, text, draw(&seed, TEXT_BYTES));
        token_trie_find(&trie, text, length, &sites);
        for (uint32_t at = 0; at < length; at++) {
            uint32_t node = 0;
            if (sites.count > 0 && sites.site[sites.count - 1].at == at)
                node = sites.site[--sites.count].node;
            check_site(&trie, node, strings, count, text + at);
        }
        assert_int_equal(sites.count, 0);
        token_trie_free(&trie);
    }
    token_sites_free(&sites);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_string_is_found_at_every_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
