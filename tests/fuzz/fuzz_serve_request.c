/* The body of an HTTP request: any bytes are, under each of the three forms, either refused with a
 * message for people and a status of 400 or 404, or prompts of the model's ids with room for an
 * answer and sampling parameters that the engine takes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "rollout_worker/serve/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

#define LENGTH_MAX 256

static void check_refusal(const Refusal *refusal)
{
    Str json = {0};
    int status = refusal_http_status(refusal);
    size_t size = strlen(refusal->error.message);
    CHECKF(status == 400 || status == 404, "%d: %s", status, refusal->error.message);
    CHECKF(size > 0 && utf8_valid_prefix(refusal->error.message, size) == size, "%s",
           refusal->error.message);
    refusal_append_json(refusal, &json);
    cJSON *back = cJSON_ParseWithLength(json.data, json.length);
    CHECKF(back != NULL, "%s", str_text(&json));
    cJSON_Delete(back);
    str_free(&json);
}

static void check_request(const ServeRequest *request, int64_t vocab_size)
{
    CHECK(request->num_prompts > 0 && serve_request_samples(request) <= SERVE_SAMPLES_MAX);
    for (int i = 0; i < request->num_prompts; i++) {
        const ServePrompt *prompt = &request->prompt[i];
        Error err;
        CHECK(prompt->n > 0 && prompt->length > 0 && prompt->length < LENGTH_MAX);
        CHECK(prompt->params.max_new_tokens <= LENGTH_MAX - prompt->length);
        CHECKF(sampling_check(&prompt->params, vocab_size, &err) == OK, "%s", err.message);
        for (int32_t t = 0; t < prompt->length; t++)
            CHECK(prompt->token[t] >= 0 && prompt->token[t] < vocab_size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static TextModel *text;
    Error err;
    if (text == NULL)
        CHECKF(text_model_load(PROJECT_SOURCE_DIR "/deploy/examples/tiny/model", NULL, &text,
                               &err) == OK,
               "%s", err.message);
    ServeModel model = {.name = "tiny", .text = text, .max_length = LENGTH_MAX};
    model.vocab_size = tokenizer_vocab_size(text_model_tokenizer(text));
    for (int api = API_CHAT; api <= API_GENERATE; api++) {
        ServeRequest request = {0};
        Refusal refusal;
        if (serve_request_parse(&model, (ServeApi)api, (const char *)bytes, length, &request,
                                &refusal) == OK)
            check_request(&request, model.vocab_size);
        else
            check_refusal(&refusal);
        serve_request_clear(&request);
    }
    return 0;
}
