/* Tests of how plain stretches of a text are copied: for each length around those of vectors, with
 * each special byte at each place, and nothing written outside of the room. */
#include "test.h"

#include <string.h>

#include "dataset/arrow/json_scan.h"

#define LENGTH_MAX 70
#define CANARY     '#'

static void check(const char *text, size_t length, size_t plain)
{
    char out[LENGTH_MAX + 2];
    memset(out, CANARY, sizeof out);
    assert_int_equal(json_copy_plain(out + 1, text, length), plain);
    assert_memory_equal(out + 1, text, plain);
    assert_int_equal(out[0], CANARY);
    for (size_t i = length + 1; i < sizeof out; i++)
        assert_int_equal(out[i], CANARY);
}

static void test_up_to_the_first_special_byte(void **state)
{
    (void)state;
    static const char special[] = {'"', '\\', '\0', '\n', 0x1F};
    char text[LENGTH_MAX];
    for (size_t length = 0; length < LENGTH_MAX; length++) {
        for (size_t i = 0; i < length; i++) /* what stands for itself, from the least to the most */
            text[i] = "\x20!#[]\x7F\x80\xC3\xFF"[i % 9];
        check(text, length, length);
        for (size_t at = 0; at < length; at++) {
            char kept = text[at];
            for (size_t i = 0; i < sizeof special; i++) {
                text[at] = special[i];
                text[length - 1] = '"';
                check(text, length, at);
            }
            text[at] = kept;
            text[length - 1] = 'x';
        }
    }
}

static void test_which_bytes_are_plain(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        char text[16];
        bool plain = byte >= 0x20 && byte != '"' && byte != '\\';
        memset(text, byte, sizeof text);
        check(text, 16, plain ? 16 : 0);
        check(text, 3, plain ? 3 : 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_up_to_the_first_special_byte),
        cmocka_unit_test(test_which_bytes_are_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
