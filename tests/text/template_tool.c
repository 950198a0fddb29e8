/* Renders templates over a pipe, for compare_templates.py: for each pair of a template and its
 * variables (as JSON, each with its length as 4 bytes before it) answers one byte (1: rendered),
 * then the length and the text or the error, then the number of origin spans and each as end, kind,
 * message, loop message and generation. Integers are 32 bits, little endian. With an argument N
 * every rendering is done N times, to be timed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/memory.h"
#include "text/chat_template.h"

static char *read_block(size_t *ret_length)
{
    uint32_t length;
    if (fread(&length, sizeof length, 1, stdin) != 1) return NULL;
    char *block = mem_alloc((size_t)length + 1);
    if (fread(block, 1, length, stdin) != length) exit(1);
    block[length] = '\0';
    *ret_length = length;
    return block;
}

static void write_int(int64_t number)
{
    int32_t word = (int32_t)number;
    fwrite(&word, sizeof word, 1, stdout);
}

static void answer(Status status, const Rendering *rendering, const Error *err)
{
    putchar(status == OK);
    const char *text = status == OK ? rendering->text : err->message;
    size_t length = status == OK ? rendering->length : strlen(text);
    write_int((int64_t)length);
    fwrite(text, 1, length, stdout);
    write_int(status == OK ? (int64_t)rendering->num_spans : 0);
    for (size_t i = 0; status == OK && i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        write_int(span->end);
        write_int((int64_t)span->kind);
        write_int(span->message);
        write_int(span->loop_message);
        write_int(span->generation);
    }
    fflush(stdout);
}

static double cpu_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static Status render(const char *source, size_t length, const cJSON *variables, int times,
                     Rendering *ret, Error *err)
{
    ChatTemplate *chat_template = NULL;
    TRY(chat_template_compile(source, length, "template", &chat_template, err));
    Status status = chat_template_render(chat_template, variables, 1767225600, ret, err);
    double begin = cpu_us();
    for (int i = 1; i < times && status == OK; i++) {
        rendering_free(ret);
        status = chat_template_render(chat_template, variables, 1767225600, ret, err);
    }
    if (times > 1) fprintf(stderr, "%.3f us\n", (cpu_us() - begin) / (times - 1));
    chat_template_destroy(chat_template);
    return status;
}

int main(int argc, char **argv)
{
    int times = argc > 1 ? atoi(argv[1]) : 1;
    char *source, *text;
    size_t source_length = 0, length = 0;
    while ((source = read_block(&source_length)) != NULL) {
        text = read_block(&length);
        if (text == NULL) return 1;
        Error err = {0};
        Rendering rendering = {0};
        cJSON *variables = NULL;
        Status status = json_parse(text, length, "variables", &variables, &err);
        if (status == OK)
            status = render(source, source_length, variables, times, &rendering, &err);
        answer(status, &rendering, &err);
        rendering_free(&rendering);
        cJSON_Delete(variables);
        free(source);
        free(text);
    }
    return 0;
}
