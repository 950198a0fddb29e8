/* A line of a JSONL file: any bytes are either refused with a message of one to six lines, or give
 * a tree that cJSON builds too, whose conversation is found or refused in the same way. */
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

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    JobConfig config = {0};
    config.data.input_key = "messages";
    config.data.label_key = "label";
    config.data.tool_key = "tools";
    config.data.metadata_key = "metadata";
    Error err = {0};
    cJSON *json = NULL;
    ChatRecord chat;
    Status status = record_parse((const char *)bytes, length, SOURCE, &json, &err);
    if (status == OK) status = chat_record_find(&config, json, SOURCE, &chat, &err);
    if (status != OK) check_refusal(status, &err);
    cJSON_Delete(json);
    return 0;
}
