/* A chat template: any bytes are either refused with template line and reason, or render a fixed
 * conversation to UTF-8 text whose origins cover it without holes. Limits are small, so that what
 * is endless ends soon: by the processor's clock, too, for work that is not counted is a fault. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "base/str.h"
#include "base/utf8.h"
#include "text/jinja/run.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static const char conversation[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Rules.\"},"
    "{\"role\": \"user\", \"content\": \" h\\u00e9, <b>you</b> \\n\"},"
    "{\"role\": \"assistant\", \"content\": \"<think>\\nwhy\\n</think>\\n\\nyes\","
    " \"reasoning_content\": \"hm\", \"tool_calls\": [{\"id\": \"1\", \"function\": {\"name\": "
    "\"f\","
    " \"arguments\": {\"a\": [1, 2.5, null, true], \"b\": {\"c\": \"\\\"\"}}}}]},"
    "{\"role\": \"tool\", \"content\": \"3\", \"name\": \"f\"},"
    "{\"role\": \"assistant\", \"content\": \"\\u65e5\\u672c\"}],"
    "\"tools\": [{\"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\"}}}],"
    "\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"add_generation_prompt\": true,"
    "\"n\": 42, \"x\": -1.5, \"s\": \"a-b c\", \"l\": [3, 1, 2], \"d\": {\"k\": \"v\"}}";

static void check_rendering(const Rendering *rendering)
{
    CHECK(utf8_valid_prefix(rendering->text, rendering->length) == rendering->length);
    uint32_t at = 0;
    for (size_t i = 0; i < rendering->num_spans; i++) {
        const OriginSpan *span = &rendering->span[i];
        CHECK(span->begin == at && span->end > at);
        CHECK(span->kind <= ORIGIN_ROLE && span->message < 5 && span->loop_message < 5);
        CHECK(span->kind != ORIGIN_TEMPLATE || span->message == -1);
        at = span->end;
    }
    CHECK(at == rendering->length);
}

#define RENDER_SECONDS_MAX 1.0 /* for what should take milliseconds; sanitizers are slow */

static double processor_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const TemplateLimits limits = {.steps = 100000, .memory_bytes = 32u << 20};
    Error err = {0};
    ChatTemplate *chat_template = NULL;
    Rendering rendering = {0};
    Status status =
        chat_template_compile((const char *)bytes, length, "fuzz", &chat_template, &err);
    if (status == OK) {
        cJSON *variables = cJSON_Parse(conversation);
        CHECK(variables != NULL);
        double begin = processor_seconds();
        status = chat_template_render_within(chat_template, variables, 1767225600, &limits,
                                             &rendering, &err);
        CHECK(processor_seconds() - begin < RENDER_SECONDS_MAX);
        cJSON_Delete(variables);
    }
    if (status == OK) {
        check_rendering(&rendering);
    } else {
        CHECKF(str_starts_with(err.message, "fuzz:"), "%s", err.message);
    }
    rendering_free(&rendering);
    chat_template_destroy(chat_template);
    return 0;
}
