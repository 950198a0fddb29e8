/* The hand-written splitters against PCRE2 on the same patterns, over random text that is full of
 * the characters and turns by which the patterns tell words apart. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "base/str.h"
#include "base/utf8.h"
#include "text/tokenizer/matcher.h"

#define TEXTS_PER_PATTERN 4000

static const char *const turns[] = {
    "'s",     "'S",     "'\u017F", "'re",    "'VE",    "'Ll",    "'d",         "'t",
    "'",      "a",      "Z",       "word",   "Word",   "WORD",   "iPhone",     " ",
    "  ",     "\t",     "\n",      "\r\n",   "\u00A0", "\u3000", "\u2028",     "0",
    "12345",  "\u0663", "\u00BD",  ".",      ",",      "//",     "!?",         "_",
    "\u2014", "\u4E2D", "\u3042",  "\u30A2", "\uAC00", "\u0301", "\u0308",     "\u00E9",
    "\u00C9", "\u01C5", "\u02B0",  "\u05D0", "\u200B", "\a",     "\U0001F600", "\U00031350",
    "\uE000", "\u0378", "\u20AC",  "\u00AA", "\u2160", "\u0903", "\u180E",     "\xC2\x85",
    "\x1C",   "\u9FA5", "\u9FA6",  "\u30FB", "\u3099",
};

/* A stream of draws. */
typedef struct Draws {
    uint64_t key, counter;
} Draws;

static uint64_t draw(Draws *draws, uint64_t bound)
{
    return rng_below(draws->key, draws->counter++, bound);
}

static void append_random(Str *text, Draws *draws)
{
    if (draw(draws, 4) != 0) {
        const char *turn = turns[draw(draws, sizeof turns / sizeof turns[0])];
        str_puts(text, turn);
        return;
    }
    static const uint32_t limits[] = {0x80, 0x250, 0x800, 0x3400, 0x10000, 0x20000, 0x110000};
    uint32_t c = (uint32_t)draw(draws, limits[draw(draws, 7)]);
    if (c >= 0xD800 && c <= 0xDFFF) c = 'x';
    char bytes[4];
    int size = utf8_encode(c, bytes);
    str_append(text, bytes, (size_t)size);
}

static void fail_at(const char *pattern, const Str *text, MatchRange found, MatchRange expected)
{
    fail_msg("%s\n gives %u-%u, PCRE2 gives %u-%u in \"%s\"", pattern, found.begin, found.end,
             expected.begin, expected.end, str_text(text));
}

static void compare_matches(const Matcher *fast, const Matcher *general, MatchScratch *scratch,
                            const Str *text)
{
    Error err = {0};
    MatchWalk walk[2];
    for (int i = 0; i < 2; i++)
        walk[i] = (MatchWalk){.matcher = i == 0 ? fast : general,
                              .scratch = scratch,
                              .text = str_text(text),
                              .length = (uint32_t)text->length,
                              .last_end = UINT32_MAX};
    bool more = true;
    while (more) {
        MatchRange found = {0, 0}, expected = {0, 0};
        bool expects_more = false;
        assert_ok(match_next(&walk[0], &found, &more, &err), &err);
        assert_ok(match_next(&walk[1], &expected, &expects_more, &err), &err);
        if (!more) found = (MatchRange){0, 0};
        if (more != expects_more || found.begin != expected.begin || found.end != expected.end)
            fail_at(general->source, text, found, expected);
    }
}

static void test_splitters_give_the_matches_of_their_patterns(void **state)
{
    (void)state;
    Error err = {0};
    UnicodeTable *table = unicode_table_create();
    Draws draws = {rng_key(20260101, "splitters"), 0};
    int patterns = 0;
    for (; splitter_pattern(patterns) != NULL; patterns++) {
        Matcher fast = {0}, general = {0};
        const char *pattern = splitter_pattern(patterns);
        assert_ok(matcher_load_regex(&fast, pattern, table, "test", &err), &err);
        assert_ok(matcher_load_regex(&general, pattern, table, "test", &err), &err);
        assert_non_null(fast.splitter);
        general.splitter = NULL;
        MatchScratch scratch = {0};
        Str text = {0};
        for (int i = 0; i < TEXTS_PER_PATTERN; i++) {
            str_clear(&text);
            for (uint64_t parts = 1 + draw(&draws, 12); parts > 0; parts--)
                append_random(&text, &draws);
            compare_matches(&fast, &general, &scratch, &text);
        }
        str_free(&text);
        match_scratch_free(&scratch);
        matcher_free(&fast);
        matcher_free(&general);
    }
    assert_int_equal(patterns, 9);
    free(table);
}

/* Every code point up to the end of the assigned planes, and some of the others, between letters,
 * spaces and signs: the character classes agree. */
static void test_splitters_class_every_character_like_their_patterns(void **state)
{
    (void)state;
    Error err = {0};
    UnicodeTable *table = unicode_table_create();
    for (int i = 0; splitter_pattern(i) != NULL; i++) {
        Matcher fast = {0}, general = {0};
        assert_ok(matcher_load_regex(&fast, splitter_pattern(i), table, "test", &err), &err);
        assert_ok(matcher_load_regex(&general, splitter_pattern(i), table, "test", &err), &err);
        general.splitter = NULL;
        MatchScratch scratch = {0};
        Str text = {0};
        for (uint32_t c = 1; c < CODE_POINTS; c += c < 0x32400 ? 1 : 97) {
            if (c >= 0xD800 && c <= 0xDFFF) continue;
            char bytes[5] = {0};
            utf8_encode(c, bytes);
            str_puts(&text, bytes);
            str_puts(&text, c % 3 == 0 ? "a" : c % 3 == 1 ? " " : "!B");
            str_puts(&text, bytes);
            if (text.length < 4096 && c + 97 < CODE_POINTS) continue;
            compare_matches(&fast, &general, &scratch, &text);
            str_clear(&text);
        }
        str_free(&text);
        match_scratch_free(&scratch);
        matcher_free(&fast);
        matcher_free(&general);
    }
    free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_splitters_give_the_matches_of_their_patterns),
        cmocka_unit_test(test_splitters_class_every_character_like_their_patterns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
