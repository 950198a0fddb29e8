#include "tiny_tokenizer.h"

#include "test.h"

#include <string.h>

#include "base/str.h"
#include "base/utf8.h"

/* The spelling of a byte in a byte-level vocabulary: itself where it prints, else from U+0100 on.
 */
static void put_byte(Str *out, unsigned char byte)
{
    static const unsigned char RANGES[3][2] = {{'!', '~'}, {0xA1, 0xAC}, {0xAE, 0xFF}};
    uint32_t code_point = 256;
    char text[4];
    for (int b = 0; b <= byte; b++) {
        bool prints = false;
        for (int r = 0; r < 3; r++)
            prints = prints || (b >= RANGES[r][0] && b <= RANGES[r][1]);
        if (b == byte && prints) code_point = byte;
        if (b < byte && !prints) code_point++;
    }
    str_append(out, text, (size_t)utf8_encode(code_point, text));
}

Tokenizer *tiny_tokenizer(void)
{
    /* Characters of two to four bytes, cut everywhere; short words in all pieces. */
    static const char *const CHARACTERS[] = {"\u00e9", "\u4f60", "\U0001F600"};
    static const char LETTERS[] = "abcd\n ";
    Error err = {0};
    Tokenizer *tokenizer = NULL;
    Str json = {0}, tokens = {0};
    StringList list = {0};
    char piece[8];
    for (int i = 0; i < 6; i++)
        string_list_append(&list, (char[]){LETTERS[i], '\0'});
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++)
            string_list_append(&list, (char[]){LETTERS[i], LETTERS[j], '\0'});
    for (int c = 0; c < 3; c++)
        for (size_t begin = 0; begin < strlen(CHARACTERS[c]); begin++)
            for (size_t end = begin + 1; end <= strlen(CHARACTERS[c]); end++)
                for (int before = 0; before < 3; before++) {
                    size_t n = 0;
                    if (before > 0) piece[n++] = LETTERS[before];
                    memcpy(piece + n, CHARACTERS[c] + begin, end - begin);
                    n += end - begin;
                    piece[n] = '\0';
                    string_list_append(&list, piece);
                }
    str_puts(&json, "{\"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {");
    for (int i = 0; i < list.count && i < 120; i++) {
        str_clear(&tokens);
        for (const char *byte = list.item[i]; *byte != '\0'; byte++)
            put_byte(&tokens, (unsigned char)*byte);
        str_printf(&json, "%s\"%s\": %d", i > 0 ? ", " : "", str_text(&tokens), i);
    }
    str_puts(&json, "}}, \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                    "\"trim_offsets\": true, \"use_regex\": true}}");
    assert_ok(tokenizer_parse(str_text(&json), json.length, "tiny", &tokenizer, &err), &err);
    string_list_free(&list);
    str_free(&tokens);
    str_free(&json);
    return tokenizer;
}
