#include "rollout_worker/paint.h"

#include <stdlib.h>

#include "base/memory.h"

#define GREEN        "\x1b[32m"
#define DIM          "\x1b[2m"
#define RESET        "\x1b[0m"
#define TRAINED_LINE "↵" /* before a line end that is trained, which color alone would not show */

void paint(Painter *painter, TokenUse use)
{
    if (painter->use == use) return;
    if (painter->color) {
        str_puts(painter->out, RESET);
        if (use != TOKEN_GIVEN) str_puts(painter->out, use == TOKEN_TRAINED ? GREEN : DIM);
    } else {
        if (painter->use == TOKEN_TRAINED) str_puts(painter->out, PAINT_CLOSING);
        if (use == TOKEN_TRAINED) str_puts(painter->out, PAINT_OPENING);
    }
    painter->use = use;
}

void paint_text(Painter *painter, const char *text, size_t length)
{
    while (length > 0) {
        size_t plain = 0;
        while (plain < length && text[plain] != '\n' && text[plain] != '\t')
            plain++;
        char *piece = mem_strndup(text, plain);
        str_put_escaped(painter->out, piece);
        free(piece);
        if (plain < length) {
            if (text[plain] == '\n' && painter->color && painter->use == TOKEN_TRAINED)
                str_puts(painter->out, TRAINED_LINE);
            str_putc(painter->out, text[plain++]);
        }
        text += plain;
        length -= plain;
    }
}
