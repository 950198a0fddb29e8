/* A line of a JSONL file: any bytes are either refused with a message of one to six lines, or give
 * a tree that cJSON builds too, whose conversation is found, by its shape and under a key, or
 * refused in the same way; and rollout function `sft` makes a sample of it, or says why not. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "base/utf8.h"
#include "rollout_worker/chat_record.h"
#include "rollout_worker/record.h"
#include "rollout_worker/rollout.h"

#define SOURCE "data.jsonl:7"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check_refusal(Status status, const Error *err)
{
    int lines = 1;
    for (const char *at = err->message; *at != '\0'; at++)
        lines += *at == '\n';
    CHECKF(status == ERR_DATA && lines <= 6, "%s", err->message);
    CHECKF(str_starts_with(err->message, SOURCE ": "), "%s", err->message);
    CHECKF(strstr(err->message, "\n  to do: ") != NULL, "%s", err->message);
    size_t size = strlen(err->message);
    CHECK(utf8_valid_prefix(err->message, size) == size);
}

static void check_conversation(const ChatConversation *conversation)
{
    CHECK(cJSON_IsArray(conversation->messages));
    int count = cJSON_GetArraySize(conversation->messages);
    CHECK(conversation->num_prompt_messages >= 0 && conversation->num_prompt_messages <= count);
    CHECK((conversation->rejected != NULL) == (conversation->shape == SHAPE_PAIR));
}

/* A template that takes content, reasoning, tools and calls, so that all of a record is used. */
static const char template[] =
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.reasoning_content }}{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}{% endfor %}<|im_end|>\n{% endfor %}";

static void check_sample(const RolloutRecord *record, JobConfig *config)
{
    static void *shared, *scratch;
    if (shared == NULL) {
        Error err;
        CHECK(file_write_atomic("fuzz.jinja", template, sizeof template - 1, &err) == OK);
        config->model.tokenizer = PROJECT_SOURCE_DIR "/deploy/examples/tiny/model";
        config->model.chat_template = "fuzz.jinja";
        CHECKF(rollout_sft.open(config, &shared, &err) == OK, "%s", err.message);
        scratch = rollout_sft.open_thread(shared);
    }
    Sample sample = {0};
    RolloutTrace trace = {0};
    rollout_sft.explain(shared, scratch, record, &sample, &trace);
    CHECK(sample.status == SAMPLE_REJECTED || trace.conversation.length == (size_t)sample.length);
    if (sample.status == SAMPLE_REJECTED) {
        Error err;
        error_set(&err, ERR_DATA, "%s", sample.reject_message);
        check_refusal(ERR_DATA, &err);
    } else {
        CHECK(sample.loss_mask[0] == 0 && sample_meta(&sample).trained_tokens > 0);
    }
    rollout_trace_clear(&trace);
    sample_clear(&sample);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static JobConfig config; /* what is opened once refers to it */
    config.data.label_key = "label";
    config.data.tool_key = "tools";
    config.data.metadata_key = "metadata";
    config.data.apply_chat_template_kwargs = "{\"enable_thinking\": false}";
    static char *const input_keys[] = {NULL, "messages"};
    Error err = {0};
    cJSON *json = NULL;
    Status status = record_parse((const char *)bytes, length, SOURCE, &json, &err);
    if (status != OK) check_refusal(status, &err);
    for (int i = 0; status == OK && i < 2; i++) {
        ChatReader reader;
        ChatRecord chat = {0};
        config.data.input_key = input_keys[i];
        CHECK(chat_reader_create(&config, &reader, &err) == OK);
        Status read = chat_record_read(&reader, json, SOURCE, &chat, &err);
        if (read != OK) check_refusal(read, &err);
        if (read == OK) check_conversation(&chat.conversation);
        chat_record_clear(&chat);
        chat_reader_clear(&reader);
    }
    cJSON_Delete(json);
    config.data.input_key = NULL;
    config.data.max_length = 1 << 20;
    RolloutRecord record = {.position = 7,
                            .text = (const char *)bytes,
                            .length = length,
                            .source = SOURCE,
                            .error = ""};
    check_sample(&record, &config);
    return 0;
}
