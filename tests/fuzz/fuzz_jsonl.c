/* A line of a JSONL file: any bytes are either refused with a message of one to six lines, or give
 * a tree that cJSON builds too, whose conversation is found, by its shape and under a key, or
 * refused in the same way. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/str.h"
#include "base/utf8.h"
#include "rollout_worker/chat_record.h"
#include "rollout_worker/record.h"

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

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    JobConfig config = {0};
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
    return 0;
}
