/* Decoding as ids come. A token's text may depend on its neighbours (bytes of one character, a
 * space that only the first word lacks), so a window of ids is decoded: those of the last text
 * given out, for context, and the new ones. What the window's text has more than the context's is
 * new; where it ends in bytes that may yet become a character, what stands before them is given out
 * at once. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "text/tokenizer/internal.h"

/* A character has at most four bytes, and a token at least one: after so many ids without a whole
 * character there is none to come. Where every token ends within a character, there is always one,
 * and the window grows: up to here. */
#define WAITING_MAX 8
#define WINDOW_MAX  1024

struct DecodeStream {
    const Tokenizer *tokenizer;
    bool skip_special_tokens;
    int32_t *id; /* the window */
    size_t count, capacity;
    size_t context; /* how many of them were given out */
    size_t given;   /* bytes of the others' text that were given out already */
    size_t waiting; /* ids since any text was given out */
};

DecodeStream *decode_stream_create(const Tokenizer *tokenizer, bool skip_special_tokens)
{
    DecodeStream *stream = mem_calloc(1, sizeof *stream);
    stream->tokenizer = tokenizer;
    stream->skip_special_tokens = skip_special_tokens;
    return stream;
}

void decode_stream_destroy(DecodeStream *stream)
{
    if (stream == NULL) return;
    free(stream->id);
    free(stream);
}

/* Without U+FFFD at the end: what the next ids may still change. */
static size_t certain_length(const char *text, size_t length)
{
    while (length >= 3 && memcmp(text + length - 3, "\xEF\xBF\xBD", 3) == 0)
        length -= 3;
    return length;
}

/* Decodes ids [begin, end) of the window. */
static Status decode_part(const DecodeStream *stream, size_t begin, size_t end, char **ret_text,
                          size_t *ret_length, Error *err)
{
    return tokenizer_decode(stream->tokenizer, stream->id + begin, end - begin,
                            stream->skip_special_tokens, ret_text, ret_length, err);
}

/* Gives out the text of the new ids, unless it may still change; `all`: in any case. */
static Status give_out(DecodeStream *stream, bool all, char **ret_text, size_t *ret_length,
                       Error *err)
{
    char *context = NULL, *text = NULL;
    size_t context_length = 0, length = 0;
    Status status = decode_part(stream, 0, stream->context, &context, &context_length, err);
    if (status == OK) status = decode_part(stream, 0, stream->count, &text, &length, err);
    if (status != OK) goto done;
    bool grown = length > context_length && memcmp(text, context, context_length) == 0;
    size_t certain = certain_length(text, length), known = context_length + stream->given;
    if (!all && (length <= context_length || certain < length)) {
        bool more = grown && certain > known;
        *ret_length = more ? certain - known : 0;
        *ret_text = mem_strndup(more ? text + known : "", *ret_length);
        stream->given += *ret_length;
        goto done;
    }
    if (length == context_length && memcmp(text, context, length) == 0) {
        /* The new ids have no text at all, as skipped special tokens: they are no context either.
         */
        *ret_text = mem_strdup("");
        *ret_length = 0;
        stream->count = stream->context;
        goto done;
    }
    if (grown && known <= length) {
        *ret_length = length - known;
        *ret_text = mem_strndup(text + known, *ret_length);
    } else {
        /* The new ids spoil the text of the old ones (a stray <0xNN> behind good ones): by
         * themselves. */
        status = decode_part(stream, stream->context, stream->count, ret_text, ret_length, err);
        if (status != OK) goto done;
        size_t given = stream->given < *ret_length ? stream->given : *ret_length;
        *ret_length -= given;
        memmove(*ret_text, *ret_text + given, *ret_length + 1);
    }
    stream->count -= stream->context;
    memmove(stream->id, stream->id + stream->context, stream->count * sizeof *stream->id);
    stream->context = stream->count;
    stream->given = 0;
done:
    free(context);
    free(text);
    return status;
}

Status decode_stream_step(DecodeStream *stream, int32_t id, char **ret_text, size_t *ret_length,
                          Error *err)
{
    if (stream->count == stream->capacity) {
        stream->capacity = stream->capacity * 2 + 16;
        stream->id = mem_realloc(stream->id, stream->capacity, sizeof *stream->id);
    }
    stream->id[stream->count++] = id;
    bool all = ++stream->waiting > WAITING_MAX || stream->count - stream->context > WINDOW_MAX;
    TRY(give_out(stream, all, ret_text, ret_length, err));
    if (*ret_length > 0 || stream->count == stream->context) stream->waiting = 0;
    return OK;
}

Status decode_stream_finish(DecodeStream *stream, char **ret_text, size_t *ret_length, Error *err)
{
    if (stream->count == stream->context) {
        *ret_text = mem_strdup("");
        *ret_length = 0;
        return OK;
    }
    return give_out(stream, true, ret_text, ret_length, err);
}
