/* Encodes conversations over a pipe, for compare_masks.py: conversation_tool FOLDER [TEMPLATE].
 * Each line of standard input is {"messages": ..., "tools": ..., "add_generation_prompt": ...,
 * "kwargs": ...}, each line of the answer
 * {"ids": [...], "mask": [...], "text": "...", "begin": [...], "end": [...]} (bytes of the text
 * that each token stands for), with "lost" where the template passed over something, or
 * {"error": "..."}. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "text/conversation.h"

static cJSON *encode_line(const TextModel *model, TokenizerCache *cache, const cJSON *request)
{
    cJSON *answer = cJSON_CreateObject();
    TokenizedConversation conversation = {0};
    Error err = {0};
    ConversationOptions options = {
        .add_generation_prompt =
            cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(request, "add_generation_prompt")),
        .template_kwargs = cJSON_GetObjectItemCaseSensitive(request, "kwargs"),
        .keep_text = true,
        .now = 1767225600};
    Status status = conversation_encode(
        model, cache, cJSON_GetObjectItemCaseSensitive(request, "messages"),
        cJSON_GetObjectItemCaseSensitive(request, "tools"), &options, &conversation, &err);
    if (status != OK) {
        cJSON_AddStringToObject(answer, "error", err.message);
        return answer;
    }
    cJSON *mask = cJSON_AddArrayToObject(answer, "mask");
    cJSON *begin = cJSON_AddArrayToObject(answer, "begin");
    cJSON *end = cJSON_AddArrayToObject(answer, "end");
    for (size_t i = 0; i < conversation.length; i++) {
        cJSON_AddItemToArray(mask, cJSON_CreateNumber(conversation.loss_mask[i]));
        cJSON_AddItemToArray(begin, cJSON_CreateNumber(conversation.span[i].begin));
        cJSON_AddItemToArray(end, cJSON_CreateNumber(conversation.span[i].end));
    }
    cJSON_AddItemToObject(answer, "ids",
                          cJSON_CreateIntArray(conversation.token, (int)conversation.length));
    cJSON_AddStringToObject(answer, "text", conversation.text);
    if (conversation.lost != NULL) cJSON_AddStringToObject(answer, "lost", conversation.lost);
    tokenized_conversation_free(&conversation);
    return answer;
}

int main(int argc, char **argv)
{
    TextModel *model = NULL;
    Error err = {0};
    if (argc < 2 || text_model_load(argv[1], argc > 2 ? argv[2] : NULL, &model, &err) != OK) {
        fprintf(stderr, "conversation_tool: %s\n", argc < 2 ? "FOLDER [TEMPLATE]" : err.message);
        return 1;
    }
    TokenizerCache *cache = tokenizer_cache_create(text_model_tokenizer(model), 1 << 24);
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    while ((length = getline(&line, &capacity, stdin)) > 0) {
        cJSON *request = NULL;
        if (json_parse(line, (size_t)length, "request", &request, &err) != OK) {
            fprintf(stderr, "conversation_tool: %s\n", err.message);
            return 1;
        }
        cJSON *answer = encode_line(model, cache, request);
        char *text = cJSON_PrintUnformatted(answer);
        puts(text);
        fflush(stdout);
        free(text);
        cJSON_Delete(answer);
        cJSON_Delete(request);
    }
    free(line);
    tokenizer_cache_destroy(cache);
    text_model_destroy(model);
    return 0;
}
