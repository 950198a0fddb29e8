#include "rollout_worker/serve/choice_text.h"

#include <stdlib.h>
#include <string.h>

void choice_text_init(ChoiceText *choice, const Tokenizer *tokenizer, const SamplingParams *params,
                      bool keep_special, bool keep_stop)
{
    *choice = (ChoiceText){.params = params, .keep_stop = keep_stop};
    choice->stream = decode_stream_create(tokenizer, !keep_special);
}

void choice_text_clear(ChoiceText *choice)
{
    decode_stream_destroy(choice->stream);
    str_free(&choice->text);
    *choice = (ChoiceText){0};
}

/* JSON here cannot hold NUL bytes. */
static void append_piece(ChoiceText *choice, const char *piece, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (piece[i] != '\0')
            str_putc(&choice->text, piece[i]);
        else
            str_puts(&choice->text, "\xEF\xBF\xBD");
    }
}

/* Where a stop string begins that the last token completed; NULL where none does. */
static const char *find_stop(const ChoiceText *choice, const char *stop)
{
    size_t n = strlen(stop);
    size_t from = choice->before_last + 1 > n ? choice->before_last + 1 - n : 0;
    if (choice->text.length == 0) return NULL;
    return memmem(choice->text.data + from, choice->text.length - from, stop, n);
}

/* How much of the text's end is a stop string, until it is known whether it ends the sample, or the
 * beginning of one. */
static size_t held_back(const ChoiceText *choice)
{
    const SamplingParams *params = choice->params;
    size_t most = 0, length = choice->text.length;
    if (choice->keep_stop) return 0;
    bool armed = choice->tokens >= params->min_new_tokens;
    for (int i = 0; i < params->num_stop; i++) {
        const char *found = armed ? find_stop(choice, params->stop[i]) : NULL;
        size_t whole = found != NULL ? length - (size_t)(found - choice->text.data) : 0;
        if (whole > most) most = whole;
        size_t n = strlen(params->stop[i]) - 1;
        if (n > length) n = length;
        for (; n > most; n--)
            if (memcmp(choice->text.data + length - n, params->stop[i], n) == 0) most = n;
    }
    return most;
}

Status choice_text_push(ChoiceText *choice, int32_t token, Error *err)
{
    char *piece = NULL;
    size_t length = 0;
    TRY(decode_stream_step(choice->stream, token, &piece, &length, err));
    choice->before_last = choice->text.length;
    choice->tokens++;
    append_piece(choice, piece, length);
    free(piece);
    size_t certain = choice->text.length - held_back(choice);
    /* What was certain stays so. */
    if (certain > choice->certain) choice->certain = certain;
    return OK;
}

Status choice_text_finish(ChoiceText *choice, int stop_string, Error *err)
{
    char *piece = NULL;
    size_t length = 0;
    TRY(decode_stream_finish(choice->stream, &piece, &length, err));
    append_piece(choice, piece, length);
    free(piece);
    choice->certain = choice->text.length;
    if (stop_string < 0 || choice->keep_stop || choice->text.length == 0) return OK;
    /* The last token completed it; with control tokens left out it may not be there at all. */
    const char *found = find_stop(choice, choice->params->stop[stop_string]);
    if (found == NULL) return OK;
    choice->certain = (size_t)(found - choice->text.data);
    choice->text.length = choice->certain;
    choice->text.data[choice->certain] = '\0';
    return OK;
}
